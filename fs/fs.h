/* The tree below the mount point, as libfuse low-level operations.
 *
 *   blobs/sha256/<hex>                        blobs this node knows
 *   registry/<host>/<name…>/blobs/<digest>    any blob of a repository
 *   registry/<host>/<name…>/manifests/<ref>   a manifest, by tag or digest
 *   registry/<host>/<name…>/tags/<tag>/       one image:
 *       manifest.json
 *       index.json                            of a multi-platform image
 *       config.json
 *       layers/NN-<short digest>
 *       files/<title…>
 *   url/<scheme>/<host[:port]>/<path…>        a file that serves ranges
 *   .peerd/status.json                        the state of the daemon
 *
 * Read-only. Directories above blobs/, manifests/ and tags/ do not use the
 * network. A repository cannot have a component named blobs, manifests or tags
 * here.
 *
 * Inode numbers are computed from digests and paths, so they are the same after
 * a restart, and file handles carry no state. One blob is one inode, however
 * many names lead to it, so the page cache holds it once.
 *
 * Threads: libfuse's threads answer requests for what is in the store or in
 * memory. They post the other requests to the loop thread. Each request gets
 * exactly one reply. An interrupted request is answered EINTR at once; its
 * fetch goes on. */
#ifndef FS_FS_H
#define FS_FS_H

#include <fuse_lowlevel.h>

#include "base/buf.h"
#include "base/loop.h"
#include "fetch/fetch.h"
#include "registry/registry.h"
#include "store/store.h"

struct fs;

struct fs_config {
	struct loop *loop; /* these four are borrowed */
	struct store *store;
	struct fetch *fetch;
	struct registry *registry;
	/* Appends the content of .peerd/status.json. Called on the loop
	 * thread. */
	int (*status)(void *arg, struct buf *out);
	void *status_arg;
	uint64_t max_window; /* largest read-ahead, in bytes; 0 = none */
	/* How long the kernel may keep names that can change, and that a name
	 * is absent. */
	uint64_t tag_fresh_ms, negative_ms;
};

int fs_new(const struct fs_config *cfg, struct fs **ret);
/* Only after the session has ended and no task or job of fs is left on the
 * loop. */
void fs_free(struct fs **fs);

/* The operations for fuse_session_new(); userdata is the struct fs. */
extern const struct fuse_lowlevel_ops fs_ops;

/* Sets the session, which fs_blob_event() notifies. Before the first
 * request. */
void fs_set_session(struct fs *fs, struct fuse_session *se);

/* Makes the kernel drop its pages of a blob whose bytes failed their digest.
 * For store_config.event: called on a store thread; does not block. */
void fs_blob_event(struct fs *fs, struct blob *b, enum blob_event ev);

#endif
