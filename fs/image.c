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
	struct fs *fs;
	struct image *img;
	char *host, *name;
	image_cb *cb;
	void *arg;
};

static void resolve_end(struct resolve *rs, int r)
{
	rs->cb(rs->arg, r, r == 0 ? rs->img : NULL);
	image_unref(&rs->img);
	free(rs->host);
	free(rs->name);
	free(rs);
}

static int copy_bytes(const struct manifest_result *res, void **ret,
		      size_t *ret_len)
{
	*ret = malloc(res->len ? res->len : 1);
	if (!*ret)
		return -ENOMEM;
	memcpy(*ret, res->bytes, res->len);
	*ret_len = res->len;
	return 0;
}

static int take_manifest(struct image *img, const struct manifest_result *res)
{
	int r = copy_bytes(res, &img->bytes, &img->len);

	if (r < 0)
		return r;
	img->digest = res->digest;
	return manifest_parse(res->bytes, res->len, res->media_type,
			      &img->manifest, NULL);
}

static void on_child(void *arg, int r, const struct manifest_result *res)
{
	struct resolve *rs = arg;

	if (r == 0)
		r = take_manifest(rs->img, res);
	if (r == 0 && rs->img->manifest->index)
		r = -ENOENT; /* an index in an index has no layers to show */
	resolve_end(rs, r);
}

static void on_top(void *arg, int r, const struct manifest_result *res)
{
	struct resolve *rs = arg;
	const struct descriptor *d;
	char s[DIGEST_STR_SIZE];

	if (r == 0 && !res->manifest)
		r = -EBADMSG;
	if (r < 0) {
		resolve_end(rs, r);
		return;
	}
	rs->img->top = res->digest;
	if (!res->manifest->index) {
		resolve_end(rs, take_manifest(rs->img, res));
		return;
	}
	r = copy_bytes(res, &rs->img->index_bytes, &rs->img->index_len);
	d = manifest_for_platform(res->manifest, NULL);
	if (r < 0 || !d) {
		resolve_end(rs, r < 0 ? r : -ENOENT);
		return;
	}
	registry_get_manifest(rs->fs->cfg.registry, rs->host, rs->name,
			      digest_str(&d->digest, s), on_child, rs);
}

void image_resolve(struct fs *fs, const char *host, const char *name,
		   const char *reference, image_cb *cb, void *arg)
{
	struct resolve *rs = calloc(1, sizeof(*rs));
	struct image *img = calloc(1, sizeof(*img));

	if (!rs || !img || !(rs->host = strdup(host)) ||
	    !(rs->name = strdup(name))) {
		if (rs)
			free(rs->host);
		free(rs);
		free(img);
		cb(arg, -ENOMEM, NULL);
		return;
	}
	img->refs = 1;
	rs->fs = fs;
	rs->img = img;
	rs->cb = cb;
	rs->arg = arg;
	registry_get_manifest(fs->cfg.registry, host, name, reference, on_top,
			      rs);
}
