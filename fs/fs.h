/* The tree below the mount point, as libfuse low-level operations.
 *
 *   blobs/sha256/<hex>                        blobs this node knows
 *   registry/<host>/<name…>/blobs/<digest>    any blob of a repository
 *   registry/<host>/<name…>/manifests/<ref>   manifest bytes, by tag or digest
 *   registry/<host>/<name…>/tags/<tag>/       manifest.json, index.json (of a
 *                                             multi-platform image),
 * config.json, layers/NN-<short digest>, files/<title…>
 *   url/<scheme>/<host[:port]>/<path…>        a file that serves ranges
 *   .peerd/status.json                        what the daemon is doing
 *
 * Read-only. Directories above blobs/, manifests/ and tags/ touch no network.
 * A repository cannot have a component named blobs, manifests or tags here.
 *
 * Inode numbers come from digests and paths, so they are the same after a
 * restart, and file handles carry no state. One blob is one inode, however
 * many names lead to it, so the page cache holds it once.
 *
 * Threads: libfuse's threads answer what is in the store or in memory; the
 * rest is posted to the loop thread. Each request gets exactly one reply. An
 * interrupted request is answered EINTR at once; the fetch behind it goes on.
 */
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
	struct loop *loop; /* all borrowed */
	struct store *store;
	struct fetch *fetch;
	struct registry *registry;
	/* Writes .peerd/status.json; on the loop thread. */
	int (*status)(void *arg, struct buf *out);
	void *status_arg;
	uint64_t max_window; /* read-ahead of a sequential reader; 0 = none */
	uint64_t tag_fresh_ms, negative_ms; /* life of names in the kernel */
};

int fs_new(const struct fs_config *cfg, struct fs **ret);
/* After the session has ended and the loop has nothing of ours left. */
void fs_free(struct fs **fs);

/* For fuse_session_new(); userdata is the struct fs. */
extern const struct fuse_lowlevel_ops fs_ops;

/* The session, once it is made: needed to tell the kernel that pages of a blob
 * were wrong. Before the first request. */
void fs_set_session(struct fs *fs, struct fuse_session *se);

/* Makes the kernel forget its pages of a blob whose bytes failed the digest.
 * On a store thread (store_config.event); does not block. */
void fs_blob_event(struct fs *fs, struct blob *b, enum blob_event ev);

#endif
