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
 * Targets that the guard refuses are 403. Only http and https.
 *
 * Sources: overlaybd docs/P2P; Azure/peerd docs. Loop thread. */
#ifndef REGISTRY_PROXY_H
#define REGISTRY_PROXY_H

#include "registry/guard.h"
#include "registry/registry.h"
#include "registry/serve.h"

struct proxy;

struct proxy_config {
	const struct serve_config *serve; /* borrowed, like all of these */
	struct registry *registry;
	const struct guard *guard; /* the registry's */
};

int proxy_new(const struct proxy_config *cfg, struct proxy **ret);
void proxy_free(struct proxy **p);

/* True if the path is the proxy's; the request is then taken over. */
bool proxy_handle(struct proxy *p, struct http_req *rq);

#endif
