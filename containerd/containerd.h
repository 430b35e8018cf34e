/* containerd beside us: which blobs it has, and what its images are called.
 *
 * Blobs: <content_path>/blobs/sha256 is watched with inotify. Of a file that
 * comes or goes the store is told (store_external_changed()), which reads it in
 * place and drops its own copy; then whoever asked for it. The directory may be
 * absent, vanish, and come back.
 *
 * Images: their names are asked for over containerd's socket, in all
 * namespaces, and again when containerd says that one has changed, and now and
 * then. A tag whose manifest can be read here is noted in the store, as not
 * confirmed by its registry (seen at 0), unless the registry has said something
 * else since: it is what the registry layer falls back on when the registry
 * cannot be reached. containerd may be absent, and may come, go and come back.
 *
 * Loop thread; the disk is touched by pool workers. Nothing here is an error
 * for anybody else: what cannot be had is logged once and tried again. */
#ifndef CONTAINERD_CONTAINERD_H
#define CONTAINERD_CONTAINERD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/digest.h"
#include "base/loop.h"
#include "http/client.h"
#include "store/store.h"

struct containerd;

struct containerd_config {
	struct loop *loop; /* borrowed, like the next two */
	struct http_client *client;
	struct store *store;
	const char *content_path; /* copied; NULL: no blobs. The store's
				     external_dir must be
				     containerd_blob_dir() of it */
	const char *sock;	  /* copied; NULL: no images */
	/* A blob has come, or gone. On the loop, never from inside
	 * containerd_new(). May be NULL. */
	void (*changed)(void *arg, const struct digest *d, bool present);
	void *arg;
	/* For tests; 0 = the default. */
	uint32_t look_ms;  /* is the directory there, and the same: 3 s */
	uint32_t list_ms;  /* images are listed: 30 s */
	uint32_t retry_ms; /* the longest pause before connecting: 5 s */
};

/* "<content_path>/blobs/sha256". -EMSGSIZE, -ENOMEM. */
int containerd_blob_dir(const char *content_path, struct buf *out);

int containerd_new(const struct containerd_config *cfg,
		   struct containerd **ret);
/* No callback comes any more. Jobs under way go on until loop_free(): the
 * store must live until then. NULL allowed. */
void containerd_free(struct containerd **c);

bool containerd_has(const struct containerd *c, const struct digest *d);
/* Calls each(arg, d) for all blobs; a non-zero return ends it and is
 * returned. */
int containerd_each(const struct containerd *c,
		    int (*each)(void *arg, const struct digest *d), void *arg);

struct containerd_stats {
	bool watching; /* the directory is there */
	uint64_t blobs;
	uint64_t scans; /* of the directory, since the start, all done with */
	bool connected; /* images could be listed the last time */
	uint64_t images;
	uint64_t lists;	 /* of a namespace's images, since the start */
	uint64_t events; /* of images, since the start */
};
void containerd_stats(const struct containerd *c, struct containerd_stats *ret);

#endif
