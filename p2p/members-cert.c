/* Which certificate and which host a member's id belongs to.
 *
 * An id is drawn by the node itself, so a node could take as many as it likes,
 * or another's. Therefore an id belongs to the certificate (its name: a key may
 * be renewed) that greeted with it first, and a certificate has one living id
 * on each IP address: nodes may share a certificate, as the pods of the chart
 * do. Without TLS only the address is left. */
#include "p2p/members-private.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "http/local.h"

/* Without certificates nodes on one host cannot be told apart from one node
 * with many ids. */
#define MAX_IDS_OF_HOST 16

static bool same_ip(const struct resolve_addr *a, const struct resolve_addr *b)
{
	return a->v6 == b->v6 && memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

static bool is_loopback(const struct resolve_addr *a)
{
	char text[RESOLVE_TEXT_MAX];

	return authority_is_loopback(resolve_addr_text(a, text));
}

/* All loopback addresses are this host, whichever was connected to. */
static bool same_host(const struct resolve_addr *a,
		      const struct resolve_addr *b)
{
	return same_ip(a, b) || (is_loopback(a) && is_loopback(b));
}

/* The number of living members, without `node`, that have this certificate and
 * are at a's IP address. The member that is at a itself leaves it now. */
static unsigned int ids_of_host(const struct addr *a, const char *cert,
				const struct member_node *node)
{
	const struct member_node *last = NULL;
	unsigned int n = 0;

	list_for_each (it, &a->m->addrs) {
		const struct addr *o = list_entry(it, struct addr, all);
		const struct member_node *on = o->node;

		if (o == a || !on || on == node || on == last ||
		    !member_lives(&on->mb) || !same_ip(&o->at, &a->at) ||
		    strcmp(on->mb.cert, cert) != 0)
			continue;
		last = on;
		n++;
	}
	return n;
}

const char *cert_refusal(const struct addr *a, const char *cert,
			 const struct member *mb)
{
	const struct member_node *node =
		mb ? container_of(mb, struct member_node, mb) : NULL;
	bool living = node && member_lives(&node->mb);

	if (node && strcmp(mb->cert, cert) != 0 && (living || a->node != node))
		return "its id belongs to another certificate";
	if (!living &&
	    ids_of_host(a, cert, node) >= (*cert ? 1 : MAX_IDS_OF_HOST))
		return *cert ? "its certificate has another id on this host"
			     : "too many ids on this host";
	return NULL;
}

static bool is_shared(struct members *m, const struct member_node *node)
{
	list_for_each (it, &m->nodes) {
		const struct member_node *o =
			list_entry(it, struct member_node, link);

		if (o != node && member_lives(&o->mb) &&
		    strcmp(o->mb.cert, node->mb.cert) == 0)
			return true;
	}
	return false;
}

struct member *members_speaker(struct members *m, const struct http_req *rq,
			       const char *id)
{
	const char *cert = http_req_tls_name(rq);
	struct member *mb = id ? members_find(m, id) : NULL;
	const struct member_node *node;
	struct resolve_addr at;
	bool known;

	if (!mb || strcmp(mb->cert, cert ? cert : "") != 0)
		return NULL;
	node = container_of(mb, struct member_node, mb);
	known = greet_client_addr(http_req_client(rq), 1, &at) == 0;
	list_for_each (it, &node->addrs)
		if (known &&
		    same_host(&list_entry(it, struct addr, sibling)->at, &at))
			return mb;
	/* A host with several addresses sends from any of them. */
	return *mb->cert && !is_shared(m, node) ? mb : NULL;
}
