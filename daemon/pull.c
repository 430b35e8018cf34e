#include "daemon/pull.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/ref.h"

/* Parallel fetches of one pull, in blobs. */
#define SIDE_BY_SIDE 3
#define WINDOW	     (UINT64_C(32) << 20)

struct pull_item {
	struct fetch_read rd;
	struct loop_task checked;
	struct pull *p;
	struct digest digest;
	struct blob *blob;
	uint64_t last_cached;
	uint32_t at;	     /* chunks before it were checked */
	unsigned int passes; /* over the whole blob */
	int check_result;
	bool done;
};

struct pull {
	struct daemon *d;
	struct pull_callbacks cb;
	void *arg;
	struct ref ref;
	struct pull_item *items;
	uint32_t nitems, next, active;
	bool cancelled;
	int result;
	char why[IMAGE_WHY_SIZE + 16];
	struct pull_progress progress;
};

static void start_items(struct pull *p);

static void pull_end(struct pull *p)
{
	p->cb.done(p->arg, p->result, p->why, &p->progress);
	for (uint32_t i = 0; i < p->nitems; i++)
		blob_unref(&p->items[i].blob);
	free(p->items);
	ref_release(&p->ref);
	free(p);
}

static const char *reason(int r)
{
	switch (r) {
	case -ENOENT:
		return "not found";
	case -EACCES:
		return "the registry refuses access";
	case -EHOSTUNREACH:
		return "the registry gave no usable answer";
	case -ETIMEDOUT:
		return "no source delivered in time";
	case -EBADMSG:
		return "the registry sent wrong bytes";
	case -ENODATA:
	case -ENOSPC:
		return "the cache is too small for the whole blob";
	default:
		return strerror(-r);
	}
}

static void fail(struct pull *p, int r, const char *what)
{
	if (p->result == 0) {
		p->result = r;
		(void)snprintf(p->why, sizeof(p->why), "%s: %s", what,
			       reason(r));
	}
}

static void item_end(struct pull_item *it, int r)
{
	struct pull *p = it->p;
	char s[DIGEST_STR_SIZE];

	it->done = true;
	p->active--;
	if (r < 0)
		fail(p, r, digest_str(&it->digest, s));
	else
		p->progress.blobs_done++;
	p->cb.progress(p->arg, &p->progress);
	start_items(p);
}

static void item_checked(struct loop_task *t)
{
	struct pull_item *it = container_of(t, struct pull_item, checked);

	item_end(it, it->check_result);
}

static void on_verified(void *arg, int r)
{
	struct pull_item *it = arg;

	it->check_result = r;
	loop_post(it->p->d->loop, &it->checked);
}

static void account(struct pull_item *it)
{
	uint64_t now = blob_cached_bytes(it->blob);

	it->p->progress.bytes_done += now - it->last_cached;
	it->last_cached = now;
}

static void item_step(struct pull_item *it);

static void on_read(struct fetch_read *rd, int r)
{
	struct pull_item *it = container_of(rd, struct pull_item, rd);

	account(it);
	if (r < 0) {
		item_end(it, r);
		return;
	}
	it->p->cb.progress(it->p->arg, &it->p->progress);
	item_step(it);
}

/* Reads the next missing chunk and prefetches the chunks after it. A blob that
 * does not fit into the cache loses its first chunks to eviction while the last
 * ones come; after a second pass it fails with -ENOSPC. */
static void item_step(struct pull_item *it)
{
	struct pull *p = it->p;
	uint32_t c = blob_next_missing(it->blob, it->at);
	uint64_t off;

	if (p->cancelled || p->result < 0) {
		item_end(it, -ECANCELED);
		return;
	}
	if (c == blob_chunks(it->blob) && blob_missing(it->blob) > 0) {
		it->at = 0;
		if (++it->passes > 1) {
			item_end(it, -ENOSPC);
			return;
		}
		c = blob_next_missing(it->blob, 0);
	}
	if (c == blob_chunks(it->blob)) {
		account(it);
		it->checked.run = item_checked;
		blob_on_verified(p->d->store, it->blob, on_verified, it);
		return;
	}
	it->at = c + 1;
	off = (uint64_t)c * CHUNK_SIZE;
	fetch_prefetch(p->d->fetch, it->blob, off, WINDOW);
	memset(&it->rd, 0, sizeof(it->rd));
	it->rd.blob = it->blob;
	it->rd.off = off;
	it->rd.len = blob_chunk_len(it->blob, c);
	it->rd.stored = true;
	it->rd.done = on_read;
	fetch_read_start(p->d->fetch, &it->rd);
}

static void on_blob(void *arg, int r, struct blob *b)
{
	struct pull_item *it = arg;
	struct pull *p = it->p;

	if (r < 0) {
		item_end(it, r);
		return;
	}
	it->blob = b;
	it->last_cached = blob_cached_bytes(b);
	p->progress.bytes += blob_size(b);
	p->progress.bytes_done += it->last_cached;
	p->progress.bytes_before += it->last_cached;
	item_step(it);
}

static void start_items(struct pull *p)
{
	struct registry *reg = p->d->registry;

	while (p->active < SIDE_BY_SIDE && p->next < p->nitems &&
	       p->result == 0 && !p->cancelled) {
		struct pull_item *it = &p->items[p->next++];

		p->active++;
		registry_get_blob(reg, p->ref.host, p->ref.name, &it->digest,
				  on_blob, it);
	}
	if (p->active == 0) {
		if (p->cancelled)
			fail(p, -ECANCELED, "stopped");
		pull_end(p);
	}
}

static void add_item(struct pull *p, const struct digest *d)
{
	for (uint32_t i = 0; i < p->nitems; i++)
		if (digest_equal(&p->items[i].digest, d))
			return;
	p->items[p->nitems].p = p;
	p->items[p->nitems++].digest = *d;
	p->progress.blobs++;
}

static void on_image(void *arg, int r, const struct manifest_result *res,
		     const struct image_top *top, const char *why)
{
	struct pull *p = arg;
	const struct manifest *m = r == 0 ? res->manifest : NULL;
	/* docker-registry answers 500, not 404, if the digest is that of a
	 * blob. */
	bool alone = r < 0 && r != -EACCES && r != -ENOMEM &&
		     p->ref.has_digest && !top;

	if (!m && !alone) {
		fail(p, r, "manifest");
		if (why)
			(void)snprintf(p->why, sizeof(p->why), "manifest: %s",
				       why);
		pull_end(p);
		return;
	}
	p->items = calloc(m ? m->nentries + 1 : 1, sizeof(*p->items));
	if (!p->items) {
		fail(p, -ENOMEM, "manifest");
		pull_end(p);
		return;
	}
	if (alone)
		add_item(p, &p->ref.digest);
	if (m && m->has_config)
		add_item(p, &m->config.digest);
	for (uint32_t i = 0; m && i < m->nentries; i++)
		add_item(p, &m->entries[i].digest);
	start_items(p);
}

int pull_start(struct daemon *d, const char *ref,
	       const struct pull_callbacks *cb, void *arg, struct pull **ret,
	       struct error *err)
{
	struct registry *reg = d->registry;
	CLEANUP(freep) struct pull *p = calloc(1, sizeof(*p));
	char s[DIGEST_STR_SIZE];
	int r;

	if (!p)
		return -ENOMEM;
	r = ref_parse(ref, &p->ref, err);
	if (r < 0)
		return r;
	p->d = d;
	p->cb = *cb;
	p->arg = arg;
	*ret = p;
	registry_get_image(reg, p->ref.host, p->ref.name,
			   p->ref.has_digest ? digest_str(&p->ref.digest, s)
					     : p->ref.tag,
			   on_image, p);
	(void)steal_ptr(&p);
	return 0;
}

void pull_cancel(struct pull *p)
{
	p->cancelled = true;
}
