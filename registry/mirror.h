/* The mirror: the routes that a container runtime calls.
 *
 *   GET, HEAD /v2/
 *   GET, HEAD /v2/<name>/manifests/<tag or digest>[?ns=<registry>]
 *   GET, HEAD /v2/<name>/blobs/<digest>[?ns=<registry>]
 *   GET, HEAD /v2/<name>/tags/list, /v2/<name>/referrers/<digest>,
 *             /v2/_catalog[?ns=<registry>&n=&last=&artifactType=]
 *
 * ns names the registry that the client wants (containerd adds it when it asks
 * a mirror). Without ns <name> may begin with the registry, HOST/ or
 * HOST__PORT/ (a path in podman's configuration cannot hold a colon). Without
 * both, the default registry is meant, else the only one that is served; when
 * it could be several, the answer is 404. Content by digest is served from the
 * store, whichever registry it came from.
 *
 * Content that cannot be served, for whatever reason, is a 404 within the
 * deadline, so that the client goes to the registry itself. Clients without ns
 * do so for manifests, but not for blobs: a blob is waited for as long as the
 * registry's own time-outs allow, and is a 404 only if the registry says so,
 * else 502. A tag that upstream did not confirm
 * is served with "Warning: 110" and counted.
 *
 * Lists are the registry's answers with their status and body. A list that
 * cannot be had is a 404 only for a client that gives ns, which goes on to the
 * registry; others would take a 404 for an empty list, and get 403 or 502.
 *
 * Sources: OCI distribution specification 1.1;
 * github.com/containerd/containerd/docs/hosts.md. Loop thread. */
#ifndef REGISTRY_MIRROR_H
#define REGISTRY_MIRROR_H

#include "base/options.h"
#include "registry/registry.h"
#include "registry/serve.h"

struct mirror;

struct mirror_config {
	const struct serve_config *serve; /* borrowed, like all pointers here */
	struct registry *registry;
	/* Registries that the mirror serves; empty = any. */
	const struct string_list *hosts;
	const char *default_host; /* of requests that name none; NULL: none */
	uint64_t deadline_ms;	  /* time until a 404; 0 = 10 s */
};

int mirror_new(const struct mirror_config *cfg, struct mirror **ret);
void mirror_free(struct mirror **m);

/* Returns false if the path is not the mirror's. Else takes over the request
 * and returns true. */
bool mirror_handle(struct mirror *m, struct http_req *rq);

#endif
