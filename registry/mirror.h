/* The routes that a container runtime calls:
 *
 *   GET, HEAD /v2/
 *   GET, HEAD /v2/<name>/manifests/<tag or digest>[?ns=<registry>]
 *   GET, HEAD /v2/<name>/blobs/<digest>[?ns=<registry>]
 *
 * ns is the registry that the client really means (containerd adds it when it
 * asks a mirror). Without it the first of the configured registries is meant;
 * content by digest is served from the store whoever asked for it first.
 *
 * What cannot be served, for whatever reason, is a 404 within the deadline, so
 * that the client goes to the registry itself; it never hangs, and a plain
 * miss is never a 5xx. A tag that upstream did not confirm is served with
 * "Warning: 110" and counted.
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
	const struct serve_config *serve; /* borrowed, like all of these */
	struct registry *registry;
	/* Registries that may be asked for; empty = any. */
	const struct string_list *hosts;
	uint64_t deadline_ms; /* until a 404; 0 = 10 s */
};

int mirror_new(const struct mirror_config *cfg, struct mirror **ret);
void mirror_free(struct mirror **m);

/* True if the path is the mirror's; the request is then taken over. */
bool mirror_handle(struct mirror *m, struct http_req *rq);

#endif
