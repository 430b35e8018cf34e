/* Resolves a tag to an image for this machine. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "fs/fs-private.h"

struct image *image_ref(struct image *img)
{
	(void)__atomic_add_fetch(&img->refs, 1, __ATOMIC_RELAXED);
	return img;
}

void image_unref(struct image **ip)
{
	struct image *img = *ip;

	*ip = NULL;
	if (!img || __atomic_sub_fetch(&img->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	manifest_free(&img->manifest);
	free(img->bytes);
	free(img->index_bytes);
	free(img);
}

void layer_name(const struct manifest *m, uint32_t i, char out[LAYER_NAME_SIZE])
{
	char hex[DIGEST_HEX_SIZE];

	(void)snprintf(out, LAYER_NAME_SIZE, "%02u-%.12s", i,
		       digest_hex(&m->entries[i].digest, hex));
}

struct resolve {
	image_ready_cb *cb;
	void *arg;
};

static int copy_bytes(const void *bytes, size_t len, void **ret,
		      size_t *ret_len)
{
	*ret = malloc(len ? len : 1);
	if (!*ret)
		return -ENOMEM;
	memcpy(*ret, bytes, len);
	*ret_len = len;
	return 0;
}

static int make_image(const struct manifest_result *res,
		      const struct image_top *top, struct image *img)
{
	int r = copy_bytes(res->bytes, res->len, &img->bytes, &img->len);

	if (r == 0 && top->index_bytes)
		r = copy_bytes(top->index_bytes, top->index_len,
			       &img->index_bytes, &img->index_len);
	if (r < 0)
		return r;
	img->top = top->digest;
	img->digest = res->digest;
	return manifest_parse(res->bytes, res->len, res->media_type,
			      &img->manifest, NULL);
}

static void on_image(void *arg, int r, const struct manifest_result *res,
		     const struct image_top *top, const char *why)
{
	struct resolve *rs = arg;
	struct image *img = NULL;

	(void)why;
	if (r == 0) {
		img = calloc(1, sizeof(*img));
		r = img ? 0 : -ENOMEM;
	}
	if (img) {
		img->refs = 1;
		r = make_image(res, top, img);
	}
	rs->cb(rs->arg, r, r == 0 ? img : NULL);
	image_unref(&img);
	free(rs);
}

void image_resolve(struct fs *fs, const char *host, const char *name,
		   const char *reference, image_ready_cb *cb, void *arg)
{
	struct resolve *rs = calloc(1, sizeof(*rs));

	if (!rs) {
		cb(arg, -ENOMEM, NULL);
		return;
	}
	rs->cb = cb;
	rs->arg = arg;
	registry_get_image(fs->cfg.registry, host, name, reference, on_image,
			   rs);
}
