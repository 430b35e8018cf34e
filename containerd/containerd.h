/* The containerd of this node: the blobs that it has and the names of its
 * images.
 *
 * Blobs: peerd watches <content_path>/blobs/sha256 with inotify. When a file
 * comes or goes, peerd first tells the store (store_external_changed()), which
 * reads the file in place and drops its own copy, and then calls changed(). The
 * directory may be absent, vanish, and come back.
 *
 * Images: peerd lists the images of all namespaces over containerd's socket,
 * again after each event of an image, and at intervals. A tag whose manifest
 * can be read on this node is recorded in the store as not confirmed by its
 * registry (seen at 0), unless the registry has answered for the tag since. The
 * registry layer uses such a record when the registry does not answer.
 * containerd may be absent, and may come, go and come back.
 *
 * Loop thread; pool workers access the disk. Failures stay inside: each is
 * logged once and the work is tried again. */
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
				     containerd_blob_dir(content_path) */
	const char *sock;	  /* copied; NULL: no images */
	/* Called when a blob came or went. Loop thread; never from inside
	 * containerd_new(). May be NULL. */
	void (*changed)(void *arg, const struct digest *d, bool present);
	void *arg;
	/* Intervals; tests set them. 0 = the default. */
	uint32_t look_ms;  /* between checks of the directory: 3 s */
	uint32_t list_ms;  /* between lists of images, at most: 30 s */
	uint32_t retry_ms; /* longest pause between connects: 5 s */
};

/* Appends "<content_path>/blobs/sha256" to out. -EMSGSIZE, -ENOMEM. */
int containerd_blob_dir(const char *content_path, struct buf *out);

int containerd_new(const struct containerd_config *cfg,
		   struct containerd **ret);
/* No callback comes afterwards. A running job ends before loop_free() returns;
 * the store must live until then. *c may be NULL, and becomes NULL. */
void containerd_free(struct containerd **c);

bool containerd_has(const struct containerd *c, const struct digest *d);
/* Calls each(arg, d) for all blobs. The first non-zero result ends the walk and
 * is returned. */
int containerd_each(const struct containerd *c,
		    int (*each)(void *arg, const struct digest *d), void *arg);

struct containerd_stats {
	bool watching; /* the last scan of the directory succeeded */
	uint64_t blobs;
	uint64_t scans; /* scans of the directory since the start, with all
			   files checked */
	bool connected; /* the last list of images succeeded */
	uint64_t images;
	uint64_t lists;	 /* lists of a namespace's images since the start */
	uint64_t events; /* events of images since the start */
};
void containerd_stats(const struct containerd *c, struct containerd_stats *ret);

#endif
