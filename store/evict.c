/* Eviction: the least recently used blobs first, of each its least recently
 * used chunks. Blobs used in the last 10 s come last, chunk by chunk. Chunks
 * used in the last quarter of a second stay, since their reader may not have
 * read them yet. Runs on the commit thread. */
#include "store/store-private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"

#define RECENT_TICKS ((int64_t)10 * TICKS_PER_S)
#define KEEP_TICKS   4
#define AGAIN_MS     300
#define SMALL_CACHE  ((uint64_t)16 << 20)

struct candidate {
	struct blob_key key;
	int64_t used; /* ticks; negative before store_open() */
	uint64_t cached_bytes;
};

struct candidates {
	struct store *store;
	struct candidate *v;
	size_t n, cap;
};

struct victim {
	struct blob *blob;
	int64_t used;
	uint32_t chunk;
};

struct victims {
	struct victim *v;
	size_t n, cap;
};

static int add_candidate(struct candidates *c, const struct candidate *one)
{
	void *v = array_grow(c->v, c->n, &c->cap, sizeof(*c->v));

	if (!v)
		return -ENOMEM;
	c->v = v;
	c->v[c->n++] = *one;
	return 0;
}

int64_t record_tick(const struct store *s, uint64_t last_use_s)
{
	if (last_use_s >= s->open_s)
		return 0;
	return -(int64_t)min_u64((s->open_s - last_use_s) * TICKS_PER_S,
				 INT64_MAX);
}

static int from_record(void *arg, const uint8_t *key, size_t key_len,
		       const uint8_t *val, size_t val_len)
{
	struct candidates *c = arg;
	struct index_blob rec;
	struct candidate one;

	if (!bkey_parse(key, key_len, &one.key) ||
	    !index_decode_blob(val, val_len, &rec) || rec.cached_bytes == 0)
		return 0;
	one.used = record_tick(c->store, rec.last_use_s);
	one.cached_bytes = rec.cached_bytes;
	return add_candidate(c, &one);
}

static int by_key(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	int r = memcmp(&x->key.id, &y->key.id, sizeof(x->key.id));

	if (x->key.kind != y->key.kind)
		return x->key.kind < y->key.kind ? -1 : 1;
	if (r == 0)
		r = memcmp(x->key.claim.place, y->key.claim.place,
			   BLOB_PLACE_BYTES);
	if (r == 0 && x->key.claim.size != y->key.claim.size)
		r = x->key.claim.size < y->key.claim.size ? -1 : 1;
	return r;
}

static int by_age(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	return x->used < y->used ? -1 : x->used > y->used;
}

static int victim_age(const void *a, const void *b)
{
	const struct victim *x = a, *y = b;

	if (x->used != y->used)
		return x->used < y->used ? -1 : 1;
	if (x->blob != y->blob)
		return x->blob < y->blob ? -1 : 1;
	return x->chunk < y->chunk ? -1 : x->chunk > y->chunk;
}

/* Adds the blobs in memory, whose values are newer than the index's. */
static int overlay(struct store *s, struct candidates *c)
{
	size_t known = c->n;
	int r = 0;

	if (known)
		qsort(c->v, known, sizeof(*c->v), by_key);
	store_lock(s);
	for (size_t h = 0; r == 0 && h < HASH_SIZE; h++) {
		for (struct blob *b = s->hash[h]; r == 0 && b; b = b->next) {
			struct candidate one = {.key = b->key}, *old = NULL;

			if (b->loading)
				continue;
			one.cached_bytes = LOAD(&b->cached_bytes);
			one.used = LOAD(&b->used);
			if (one.used == 0)
				one.used = record_tick(s, b->rec_last_use_s);
			if (known)
				old = bsearch(&one, c->v, known, sizeof(*c->v),
					      by_key);
			if (old)
				*old = one;
			else
				r = add_candidate(c, &one);
		}
	}
	store_unlock(s);
	return r;
}

/* ---- Chunks ---- */

/* For a chunk not used since the start, only the blob's last use is known. */
static int64_t chunk_used(const struct blob *b, uint32_t chunk)
{
	struct seg *g = seg_of(b, chunk);
	uint32_t used = g ? LOAD(&g->used[chunk % INDEX_SEG]) : 0;

	return used ? used : record_tick(b->store, b->loaded_last_use_s);
}

static int collect(struct blob *b, struct victims *l)
{
	for (uint32_t c = 0; c < b->chunks; c++) {
		void *v;

		if (!seg_of(b, c)) {
			c |= INDEX_SEG - 1;
			continue;
		}
		if (!chunk_present(b, c))
			continue;
		v = array_grow(l->v, l->n, &l->cap, sizeof(*l->v));
		if (!v)
			return -ENOMEM;
		l->v = v;
		l->v[l->n++] = (struct victim){b, chunk_used(b, c), c};
	}
	return 0;
}

static uint64_t drop_one(struct store *s, const struct victim *v)
{
	uint64_t len = 0;

	store_lock(s);
	if (chunk_present(v->blob, v->chunk)) {
		len = blob_chunk_len(v->blob, v->chunk);
		chunk_drop_locked(v->blob, v->chunk);
	}
	if (len && LOAD(&v->blob->npresent) == 0 &&
	    LOAD(&v->blob->state) == BLOB_BAD)
		STORE_REL(&v->blob->state, BLOB_PROVISIONAL);
	store_unlock(s);
	if (len) {
		ADD(&s->unpunched_bytes, len);
		ADD(&s->evicted_chunks, 1);
		ADD(&s->evicted_bytes, len);
	}
	return len;
}

/* Drops the oldest first, until `want` bytes are gone; none used after
 * `before`. */
static uint64_t drop_oldest(struct store *s, struct victims *l, uint64_t want,
			    int64_t before)
{
	uint64_t got = 0;

	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), victim_age);
	for (size_t i = 0; i < l->n && got < want; i++) {
		if (l->v[i].used > before)
			break;
		got += drop_one(s, &l->v[i]);
	}
	return got;
}

/* Evicts blobs that were not used recently, one after the other. */
static uint64_t evict_old(struct store *s, const struct candidates *c,
			  uint64_t want, int64_t recent, size_t *ret_next)
{
	struct victims l = {0};
	uint64_t got = 0;
	size_t i;

	for (i = 0; i < c->n && got < want && c->v[i].used < recent; i++) {
		struct blob *b;

		if (c->v[i].cached_bytes == 0 ||
		    blob_get_quiet(s, &c->v[i].key, &b) < 0)
			continue;
		l.n = 0;
		if (collect(b, &l) == 0)
			got += drop_oldest(s, &l, want - got, INT64_MAX);
		blob_unref(&b);
	}
	free(l.v);
	*ret_next = i;
	return got;
}

/* Evicts from the other blobs, by chunk. hard: also chunks used just now. */
static uint64_t evict_recent(struct store *s, const struct candidates *c,
			     size_t first, uint64_t want, bool hard)
{
	int64_t before = (int64_t)store_tick(s) - KEEP_TICKS;
	struct blob **held = calloc(c->n - first + 1, sizeof(struct blob *));
	struct victims l = {0};
	uint64_t got = 0;
	size_t n = 0;

	for (size_t i = first; held && i < c->n; i++) {
		if (c->v[i].cached_bytes == 0 ||
		    blob_get_quiet(s, &c->v[i].key, &held[n]) < 0)
			continue;
		if (collect(held[n++], &l) < 0)
			break;
	}
	got = drop_oldest(s, &l, want, hard ? INT64_MAX : before);
	while (n > 0)
		blob_unref(&held[--n]);
	free(held);
	free(l.v);
	return got;
}

/* Evicts all chunks of the blobs that were used longest ago; returns how many
 * blobs. */
static unsigned int evict_whole(struct store *s, const struct candidates *c,
				unsigned int want)
{
	struct victims l = {0};
	unsigned int n = 0;

	for (size_t i = 0; i < c->n && n < want; i++) {
		struct blob *b;

		if (c->v[i].cached_bytes == 0 ||
		    blob_get_quiet(s, &c->v[i].key, &b) < 0)
			continue;
		l.n = 0;
		if (collect(b, &l) == 0)
			(void)drop_oldest(s, &l, UINT64_MAX, INT64_MAX);
		n += LOAD(&b->npresent) == 0;
		blob_unref(&b);
	}
	free(l.v);
	return n;
}

/* All blobs, the least recently used first. */
static int list_candidates(struct store *s, struct candidates *c)
{
	int r = index_each(s->ix, INDEX_BLOBS, NULL, 0, from_record, c);

	if (r == 0)
		r = overlay(s, c);
	if (r == 0 && c->n > 0)
		qsort(c->v, c->n, sizeof(*c->v), by_age);
	return r;
}

static uint64_t evict_bytes(struct store *s, const struct candidates *c,
			    uint64_t want, bool hard)
{
	int64_t recent = (int64_t)store_tick(s) - RECENT_TICKS;
	size_t next;
	uint64_t got = evict_old(s, c, want, recent, &next);

	if (got < want)
		got += evict_recent(s, c, next, want - got, hard);
	return got;
}

/* Returns the number of bytes of chunks that the limits ask to drop. */
static uint64_t over_limits(struct store *s)
{
	uint64_t chunks = LOAD(&s->cached_bytes), over = 0, keep, have;
	uint64_t cached = chunks + LOAD(&s->manifest_bytes);
	struct statvfs v;

	if (s->max_bytes && cached > s->max_bytes) {
		keep = s->max_bytes - s->max_bytes / 20;
		if (s->max_bytes < SMALL_CACHE)
			keep = s->max_bytes;
		over = cached - keep;
	}
	if (s->min_free_bytes && chunks > 0 && fstatvfs(s->dirfd, &v) == 0) {
		have = (uint64_t)v.f_bavail * v.f_frsize;
		if (have < s->min_free_bytes)
			over = max_u64(over, s->min_free_bytes - have);
	}
	return min_u64(over, chunks);
}

void evict(struct store *s, uint64_t want, unsigned int files)
{
	struct candidates c = {.store = s};
	uint64_t over = over_limits(s), got = 0;
	unsigned int emptied = 0;
	bool hard = want > 0;

	if (want == 0 && over == 0 && files == 0)
		return;
	if (list_candidates(s, &c) == 0 && files > 0) {
		emptied = evict_whole(s, &c, files);
		over = over_limits(s);
	}
	if (c.n > 0 && (hard || over > 0))
		got = evict_bytes(s, &c, max_u64(over, want), hard);
	free(c.v);
	store_lock(s);
	if (hard || files > 0)
		s->evict_got = got + emptied;
	if (!hard && got < over)
		s->evict_again_ms = now_ms() + AGAIN_MS;
	store_unlock(s);
}
