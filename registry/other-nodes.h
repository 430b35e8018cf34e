/* The table by which registry/ asks other nodes of the cluster when upstream
 * cannot be reached. p2p/ implements the table and daemon/ hands it to
 * registry/, so that registry/ need not know p2p/.
 *
 * Loop thread, unless a comment says otherwise. A callback comes exactly once,
 * never from inside the call that started the request. */
#ifndef REGISTRY_OTHER_NODES_H
#define REGISTRY_OTHER_NODES_H

#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"

struct other_nodes;

/* bytes (borrowed, at most MANIFEST_MAX_BYTES) is a member's copy; a caller
 * that asked by digest must check bytes against it. r: 0, -ENOENT no member has
 * the manifest, -ECANCELED. */
typedef void peer_manifest_cb(void *arg, int r, const char *media_type,
			      const void *bytes, size_t len);
/* size is what a member says; not verified. r as above. */
typedef void peer_size_cb(void *arg, int r, uint64_t size);

struct other_nodes_ops {
	/* reference is a tag or "sha256:…". */
	void (*get_manifest)(struct other_nodes *p, const char *host,
			     const char *name, const char *reference,
			     peer_manifest_cb *cb, void *arg);
	/* Of a blob of the repository. */
	void (*get_size)(struct other_nodes *p, const char *host,
			 const char *name, const struct digest *d,
			 peer_size_cb *cb, void *arg);
	/* Cancels the requests that were started with this arg; their callbacks
	 * do not come. */
	void (*cancel)(struct other_nodes *p, void *arg);
	/* Tells that this node now has the manifest d; tag: NULL, or the tag
	 * that means d. Any thread. */
	void (*noted)(struct other_nodes *p, const char *host, const char *name,
		      const char *tag, const struct digest *d);
};

struct other_nodes {
	const struct other_nodes_ops *ops;
};

#endif
