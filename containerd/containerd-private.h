/* Shared by the files containerd/containerd*.c. Loop thread, unless a function
 * says that it blocks. */
#ifndef CONTAINERD_CONTAINERD_PRIVATE_H
#define CONTAINERD_CONTAINERD_PRIVATE_H

#include "containerd/containerd.h"

/* ---- containerd-blobs.c ---- */

struct ctr_blobs;

int ctr_blobs_new(const struct containerd_config *cfg, struct ctr_blobs **ret);
/* The memory is freed after the handles are closed and the job has ended. *b
 * may be NULL, and becomes NULL. */
void ctr_blobs_free(struct ctr_blobs **b);
bool ctr_blobs_has(const struct ctr_blobs *b, const struct digest *d);
int ctr_blobs_each(const struct ctr_blobs *b,
		   int (*each)(void *arg, const struct digest *d), void *arg);
void ctr_blobs_stats(const struct ctr_blobs *b, struct containerd_stats *ret);

/* ---- containerd-images.c ---- */

struct ctr_images;

int ctr_images_new(const struct containerd_config *cfg,
		   struct ctr_images **ret);
/* The same as ctr_blobs_free(). */
void ctr_images_free(struct ctr_images **i);
void ctr_images_stats(const struct ctr_images *i, struct containerd_stats *ret);

/* ---- containerd-note.c ---- */

/* Splits an image's name into "HOST/NAME" and tag; the caller frees both.
 * *ret_tag is NULL if the name has a digest. -EINVAL: the name does not name
 * anything in a registry. */
int ctr_image_name(const char *name, char **ret_repo, char **ret_tag);
/* Blocks. Records the image in the store; tag may be NULL. -ENOENT: the store
 * cannot read its manifest. */
int ctr_image_note(struct store *s, const char *repo, const char *tag,
		   const struct digest *d, uint64_t updated_s);

#endif
