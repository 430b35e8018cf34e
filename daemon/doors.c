/* Who may ask on --http-addr and --prom-addr. docs/security.md has it in words.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/daemon-private.h"
#include "http/local.h"
#include "http/url.h"

#define ADDRESS_MAX 64

/* "host", "host:port", "[v6]:port" without the port and brackets. */
static bool bare_host(const char *authority, char *out, size_t size)
{
	bool v6 = *authority == '[';
	const char *begin = authority + v6;
	size_t n = strcspn(begin, v6 ? "]" : ":");

	if (n == 0 || n >= size)
		return false;
	memcpy(out, begin, n);
	out[n] = '\0';
	return true;
}

static bool is_name(const char *name, const char *host)
{
	return *name && strcasecmp(name, host) == 0;
}

static bool in_names(const struct string_list *names, const char *host)
{
	size_t len = strlen(host);

	for (size_t i = 0; i < names->n; i++) {
		const char *s = names->v[i];
		size_t n = strlen(s);

		if (is_name(s, host) || (*s == '.' && len > n &&
					 strcasecmp(host + len - n, s) == 0))
			return true;
	}
	return false;
}

/* The host of a URL or of an address to listen on. */
static bool names_host(const char *text, const char *host)
{
	CLEANUP(url_release) struct url u = {0};
	char name[256];

	if (url_parse(text, &u) == 0)
		return is_name(u.host, host);
	return bare_host(text, name, sizeof(name)) && is_name(name, host);
}

/* A web page can make a name of its own lead here (DNS rebinding). It cannot do
 * that with an address, so all of them are good: which ones lead here from
 * outside of a pod, the pod does not know. */
static bool is_our_name(const struct daemon *d, const char *authority)
{
	const struct config *c = d->cfg;
	char host[256], own[256] = "";
	size_t n;

	if (!bare_host(authority, host, sizeof(host)))
		return false;
	n = strlen(host);
	if (host[n - 1] == '.')
		host[n - 1] = '\0';
	if (host_is_address(host) || host_scope(host) == ADDR_HOST)
		return true;
	(void)gethostname(own, sizeof(own) - 1);
	if (is_name(own, host) || is_name(d->node, host) ||
	    names_host(c->http_addr, host) || names_host(c->prom_addr, host) ||
	    in_names(&c->http_names, host))
		return true;
	for (size_t i = 0; i < c->mirrors.n; i++)
		if (names_host(c->mirrors.v[i], host))
			return true;
	return false;
}

/* What only browsers send: a page of another site wants this. */
static bool is_of_other_site(const struct http_req *rq, const char *host)
{
	const char *site = http_req_header(rq, "Sec-Fetch-Site");
	const char *origin = http_req_header(rq, "Origin");
	const char *at = origin ? strstr(origin, "://") : NULL;

	return (site && strcasecmp(site, "cross-site") == 0) ||
	       (origin && (!at || !host || strcasecmp(at + 3, host) != 0));
}

bool doors_open(struct daemon *d, struct http_req *rq)
{
	const char *host = http_req_header(rq, "Host");

	if (host && !is_our_name(d, host)) {
		http_reply_error(rq, 421, "DENIED",
				 "%.200s is not a name of this host that "
				 "peerd knows; --http-names adds it",
				 host);
		return false;
	}
	if (is_of_other_site(rq, host)) {
		http_reply_error(rq, 403, "DENIED",
				 "web pages of other sites are not served");
		return false;
	}
	return true;
}

bool doors_open_to(struct daemon *d, struct http_req *rq)
{
	const struct string_list *allow = &d->cfg->http_allow;
	const char *client = http_req_client(rq);
	char addr[ADDRESS_MAX];

	if (allow->n == 0)
		return true;
	if (bare_host(client, addr, sizeof(addr))) {
		if (host_scope(addr) == ADDR_HOST)
			return true;
		for (size_t i = 0; i < allow->n; i++)
			if (host_in_network(addr, allow->v[i]))
				return true;
	}
	http_reply_error(rq, 403, "DENIED", "%s is not in --http-allow",
			 client);
	return false;
}

int doors_check(const struct config *cfg, struct error *err)
{
	for (size_t i = 0; i < cfg->http_allow.n; i++) {
		const char *s = cfg->http_allow.v[i];

		if (!network_valid(s))
			return set_error(err, -EINVAL,
					 "http-allow: \"%s\" is not an address "
					 "or a network such as 10.0.0.0/8",
					 s);
	}
	return 0;
}
