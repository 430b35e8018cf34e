/* What the registries ask of the other nodes of the cluster when upstream
 * cannot be reached. p2p/ implements this table and daemon/ hands it to
 * registry/, so that registry/ need not know p2p/.
 *
 * Loop thread, unless a function says otherwise. Callbacks come exactly once,
 * never from inside the call that started them. */
#ifndef REGISTRY_OTHER_NODES_H
#define REGISTRY_OTHER_NODES_H

#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"

struct other_nodes;

/* bytes (borrowed, at most MANIFEST_MAX_BYTES) are what a member has; whoever
 * asked by digest checks them against it. r: 0, -ENOENT nobody has it,
 * -ECANCELED. */
typedef void peer_manifest_cb(void *arg, int r, const char *media_type,
			      const void *bytes, size_t len);
/* size is what members say of the blob. */
typedef void peer_size_cb(void *arg, int r, uint64_t size);

struct other_nodes_ops {
	/* By tag or "sha256:…". */
	void (*get_manifest)(struct other_nodes *p, const char *host,
			     const char *name, const char *reference,
			     peer_manifest_cb *cb, void *arg);
	/* Of a blob of the repository. */
	void (*get_size)(struct other_nodes *p, const char *host,
			 const char *name, const struct digest *d,
			 peer_size_cb *cb, void *arg);
	/* Ends what was asked with this arg: its callback does not come. */
	void (*cancel)(struct other_nodes *p, void *arg);
	/* This node now has a manifest, by this tag if it is not NULL. Any
	 * thread. */
	void (*noted)(struct other_nodes *p, const char *host, const char *name,
		      const char *tag, const struct digest *d);
};

struct other_nodes {
	const struct other_nodes_ops *ops;
};

#endif
