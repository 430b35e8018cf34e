/* The proxy: the route that block drivers call, GET or HEAD /blobs/<absolute
 * URL>, with Range. It implements the contract of overlaybd's p2pConfig and of
 * Azure peerd.
 *
 * The proxy passes the URL to registry_get_url(). The content's key is
 * the digest that the path names, else the URL without its query and the
 * version that upstream names. The query (usually a signature) stays in memory.
 *
 * A client's Authorization header, Basic or Bearer, goes to the URL's origin on
 * behalf of this client, and nowhere else (registry/client-auth.h). The client
 * gets upstream's refusal as a 401 or 403.
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
	const struct serve_config *serve; /* borrowed, like all pointers here */
	struct registry *registry;
	const struct guard *guard; /* the registry's */
};

int proxy_new(const struct proxy_config *cfg, struct proxy **ret);
void proxy_free(struct proxy **p);

/* Returns false if the path is not the proxy's. Else takes over the request and
 * returns true. */
bool proxy_handle(struct proxy *p, struct http_req *rq);

#endif
