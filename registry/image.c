/* Follows indexes to the image for this machine. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "registry/registry-private.h"

/* An index in an index in an index is seen in the wild; more is not. */
#define MAX_DEPTH 4
#define MAX_TODO  32
#define MAX_ASKED 16

struct image_query {
	struct registry *r;
	char *host, *name;
	image_cb *cb;
	void *arg;
	struct image_top top;
	bool has_top;
	void *index_bytes;
	/* Entries that may be or lead to the image, the best last. */
	struct {
		struct digest digest;
		unsigned int depth;
	} todo[MAX_TODO];
	size_t ntodo;
	unsigned int depth, asked;
	struct buf platforms;
};

static void image_end(struct image_query *q, int r,
		      const struct manifest_result *res, const char *why)
{
	q->cb(q->arg, r, res, q->has_top ? &q->top : NULL, why);
	buf_release(&q->platforms);
	free(q->index_bytes);
	free(q->host);
	free(q->name);
	free(q);
}

static int set_top(struct image_query *q, const struct manifest_result *res)
{
	q->has_top = true;
	q->top.digest = res->digest;
	if (!res->manifest || !res->manifest->index)
		return 0;
	q->index_bytes = malloc(res->len ? res->len : 1);
	if (!q->index_bytes)
		return -ENOMEM;
	memcpy(q->index_bytes, res->bytes, res->len);
	q->top.index_bytes = q->index_bytes;
	q->top.index_len = res->len;
	return 0;
}

/* Adds the entries of an index that may fit, so that the best is asked next. */
static void add_entries(struct image_query *q, const struct manifest *m)
{
	uint32_t n = 0;

	manifest_list_platforms(m, &q->platforms);
	if (q->depth + 1 >= MAX_DEPTH)
		return;
	while (q->ntodo + n < MAX_TODO && manifest_for_platform(m, NULL, n))
		n++;
	while (n-- > 0) {
		q->todo[q->ntodo].digest =
			manifest_for_platform(m, NULL, n)->digest;
		q->todo[q->ntodo++].depth = q->depth + 1;
	}
}

static void none_fits(struct image_query *q)
{
	char why[IMAGE_WHY_SIZE];

	(void)snprintf(why, sizeof(why),
		       q->platforms.len
			       ? "the index has no image for %s, but for %s"
			       : "the index has no image for %s%s",
		       manifest_platform(),
		       q->platforms.len ? q->platforms.data : "");
	log_info("no image for this machine's platform",
		 LS("registry", q->host), LS("repository", q->name),
		 LS("why", why));
	image_end(q, -ENOENT, NULL, why);
}

static void on_manifest(void *arg, int r, const struct manifest_result *res)
{
	struct image_query *q = arg;
	char s[DIGEST_STR_SIZE];

	if (r == 0 && !q->has_top)
		r = set_top(q, res);
	if (r == 0 && !res->manifest)
		r = -EBADMSG;
	if (r < 0 || !res->manifest->index) {
		image_end(q, r, r == 0 ? res : NULL, NULL);
		return;
	}
	add_entries(q, res->manifest);
	if (q->ntodo == 0 || ++q->asked > MAX_ASKED) {
		none_fits(q);
		return;
	}
	q->ntodo--;
	q->depth = q->todo[q->ntodo].depth;
	registry_get_manifest(q->r, q->host, q->name,
			      digest_str(&q->todo[q->ntodo].digest, s),
			      on_manifest, q);
}

void registry_get_image(struct registry *r, const char *host, const char *name,
			const char *reference, image_cb *cb, void *arg)
{
	struct image_query *q = calloc(1, sizeof(*q));

	if (!q || !(q->host = strdup(host)) || !(q->name = strdup(name))) {
		if (q)
			free(q->host);
		free(q);
		cb(arg, -ENOMEM, NULL, NULL, NULL);
		return;
	}
	q->r = r;
	q->cb = cb;
	q->arg = arg;
	q->platforms = BUF_INIT(IMAGE_WHY_SIZE / 2);
	registry_get_manifest(r, host, name, reference, on_manifest, q);
}
