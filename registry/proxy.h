/* The route that block drivers call: GET, HEAD /blobs/<absolute URL>, with
 * Range. It is the contract of overlaybd's p2pConfig, and Azure peerd's.
 *
 * The URL goes to the registries, which keys the content by the digest that it
 * finds in the path, else by the URL without its query and the version that
 * upstream names. The query (a signature, as a rule) stays in memory.
 *
 * A client's Authorization, Basic or Bearer, is sent to the URL's origin for
 * this client's sake, and nowhere else (registry/client-auth.h). 401 and 403 of
 * upstream's are the answer to it.
 *
 * A daemon that fetches URLs for whoever asks must not become a way into the
 * host's network: targets that are, or resolve by name to, loopback,
 * link-local or unspecified addresses are refused unless they are named in
 * `allow`. Only http and https.
 *
 * Sources: overlaybd docs/P2P; Azure/peerd docs. Loop thread. */
#ifndef REGISTRY_PROXY_H
#define REGISTRY_PROXY_H

#include "base/options.h"
#include "registry/registry.h"
#include "registry/serve.h"

struct proxy;

struct proxy_config {
	const struct serve_config *serve; /* borrowed, like all of these */
	struct registry *registry;
	/* host, host:port, or ".suffix": may be asked for although on this
	 * host or link. */
	const struct string_list *allow;
};

int proxy_new(const struct proxy_config *cfg, struct proxy **ret);
void proxy_free(struct proxy **p);

/* True if the path is the proxy's; the request is then taken over. */
bool proxy_handle(struct proxy *p, struct http_req *rq);

/* Whether a URL's host may be asked for: names are judged by how they look
 * ("localhost", "*.localhost", addresses in any notation that inet_aton(3)
 * takes). For tests. */
bool proxy_target_ok(const struct string_list *allow, const char *host,
		     uint16_t port);

#endif
