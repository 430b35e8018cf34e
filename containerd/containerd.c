#include "containerd/containerd.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "containerd/containerd-private.h"

struct containerd {
	struct ctr_blobs *blobs;   /* NULL: no content_path */
	struct ctr_images *images; /* NULL: no sock */
};

int containerd_blob_dir(const char *content_path, struct buf *out)
{
	return buf_printf(out, "%s/blobs/sha256", content_path);
}

int containerd_new(const struct containerd_config *cfg, struct containerd **ret)
{
	struct containerd *c = calloc(1, sizeof(*c));
	int r = 0;

	if (!c)
		return -ENOMEM;
	if (cfg->content_path)
		r = ctr_blobs_new(cfg, &c->blobs);
	if (r == 0 && cfg->sock)
		r = ctr_images_new(cfg, &c->images);
	if (r < 0) {
		containerd_free(&c);
		return r;
	}
	*ret = c;
	return 0;
}

void containerd_free(struct containerd **pc)
{
	struct containerd *c = steal_ptr(pc);

	if (!c)
		return;
	ctr_blobs_free(&c->blobs);
	ctr_images_free(&c->images);
	free(c);
}

bool containerd_has(const struct containerd *c, const struct digest *d)
{
	return c->blobs && ctr_blobs_has(c->blobs, d);
}

int containerd_each(const struct containerd *c,
		    int (*each)(void *arg, const struct digest *d), void *arg)
{
	return c->blobs ? ctr_blobs_each(c->blobs, each, arg) : 0;
}

void containerd_stats(const struct containerd *c, struct containerd_stats *ret)
{
	*ret = (struct containerd_stats){0};
	if (c->blobs)
		ctr_blobs_stats(c->blobs, ret);
	if (c->images)
		ctr_images_stats(c->images, ret);
}
