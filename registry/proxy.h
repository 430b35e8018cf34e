/* The proxy: the route that block drivers call, GET or HEAD /blobs/<absolute
 * URL>, with Range. It implements the contract of overlaybd's p2pConfig and of
 * Azure peerd.
 *
 * The proxy passes the URL to registry_get_url_guarded(). The content's key is
 * the digest that the path names, else the URL without its query and the
 * version that upstream names. The query (usually a signature) stays in memory.
 *
 * A client's Authorization header, Basic or Bearer, goes to the URL's origin on
 * behalf of this client, and nowhere else (registry/client-auth.h). The client
 * gets upstream's refusal as a 401 or 403.
 *
 * A daemon that fetches URLs for any client must not open a way into the host's
 * network. So targets that are, or resolve by name to, loopback, link-local or
 * unspecified addresses are refused, unless `allow` names them. Only http and
 * https.
 *
 * Sources: overlaybd docs/P2P; Azure/peerd docs. Loop thread. */
#ifndef REGISTRY_PROXY_H
#define REGISTRY_PROXY_H

#include "base/options.h"
#include "registry/registry.h"
#include "registry/serve.h"

struct proxy;

struct proxy_config {
	const struct serve_config *serve; /* borrowed, like all pointers here */
	struct registry *registry;
	/* Entries host, host:port or ".suffix": permitted targets on this host
	 * or link. */
	const struct string_list *allow;
};

int proxy_new(const struct proxy_config *cfg, struct proxy **ret);
void proxy_free(struct proxy **p);

/* Returns false if the path is not the proxy's. Else takes over the request and
 * returns true. */
bool proxy_handle(struct proxy *p, struct http_req *rq);

/* Whether a URL may lead to this host. Judges a name by its form ("localhost",
 * "*.localhost", addresses in any notation of inet_aton(3)). Exported for
 * tests. */
bool proxy_target_ok(const struct string_list *allow, const char *host,
		     uint16_t port);

#endif
