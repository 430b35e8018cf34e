/* What containerd.c, containerd-blobs.c and containerd-images.c share. Loop
 * thread. */
#ifndef CONTAINERD_CONTAINERD_PRIVATE_H
#define CONTAINERD_CONTAINERD_PRIVATE_H

#include "containerd/containerd.h"

/* ---- containerd-blobs.c ---- */

struct ctr_blobs;

int ctr_blobs_new(const struct containerd_config *cfg, struct ctr_blobs **ret);
/* Its memory goes when its handles are closed and its job has come back. */
void ctr_blobs_free(struct ctr_blobs **b);
bool ctr_blobs_has(const struct ctr_blobs *b, const struct digest *d);
int ctr_blobs_each(const struct ctr_blobs *b,
		   int (*each)(void *arg, const struct digest *d), void *arg);
void ctr_blobs_stats(const struct ctr_blobs *b, struct containerd_stats *ret);

/* ---- containerd-images.c ---- */

struct ctr_images;

int ctr_images_new(const struct containerd_config *cfg,
		   struct ctr_images **ret);
/* As above. */
void ctr_images_free(struct ctr_images **i);
void ctr_images_stats(const struct ctr_images *i, struct containerd_stats *ret);

/* ---- containerd-note.c ---- */

/* What an image's name means; to be freed. -EINVAL: it is not the name of
 * something in a registry. *ret_tag is NULL if it names a digest alone. */
int ctr_image_name(const char *name, char **ret_repo, char **ret_tag);
/* Blocks. Notes the image in the store; tag may be NULL. -ENOENT: its manifest
 * cannot be read here. */
int ctr_image_note(struct store *s, const char *repo, const char *tag,
		   const struct digest *d, uint64_t updated_s);

#endif
