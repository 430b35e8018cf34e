/* Bounds of what is in the index only: manifests by their bytes, other records
 * by their number. The least recently used go first. Runs on the commit thread,
 * except where the header says otherwise.
 *
 * Manifests have a share of their own. In one order with chunks a reader of
 * layers would drop every manifest within seconds, although all manifests of a
 * node take less room than one of its layers; and without manifests the node
 * knows no image while upstream is away. */
#include "store/store-private.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"

#define MANIFEST_SHARE 8 /* an eighth of the cache */
#define BATCH	       1000
/* The general records that others than we ourselves can make. */
#define URL_PREFIX "url:"

void note_touch_locked(struct store *s, enum index_db db, const uint8_t *key,
		       size_t key_len, uint64_t last_use_s)
{
	struct touch *t;

	if (s->ntouches == MAX_TOUCHES)
		return;
	if (!s->touches)
		s->touches = malloc(MAX_TOUCHES * sizeof(*t));
	if (!s->touches)
		return;
	t = &s->touches[s->ntouches++];
	t->db = db;
	memcpy(t->key, key, key_len);
	t->key_len = key_len;
	t->last_use_s = last_use_s;
	if (s->ntouches == MAX_TOUCHES / 2) {
		s->housekeep_ms = 0;
		(void)pthread_cond_signal(&s->commit_wake);
	}
}

/* ---- The oldest records of a database ---- */

/* Says when a record was used last, and how many bytes it stands for. False: it
 * stays. */
typedef bool age_fn(const uint8_t *val, size_t val_len, uint64_t *ret_age_s,
		    uint64_t *ret_bytes);

struct old {
	uint64_t age_s, bytes;
	size_t at, len; /* the key, in olds.keys */
};

struct olds {
	age_fn *age;
	struct old *v;
	size_t n, cap;
	struct buf keys;
};

static int add_old(void *arg, const uint8_t *key, size_t key_len,
		   const uint8_t *val, size_t val_len)
{
	struct olds *l = arg;
	struct old one = {.at = l->keys.len, .len = key_len};

	if (!l->age(val, val_len, &one.age_s, &one.bytes))
		return 0;
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 1024;
		void *v = reallocarray(l->v, cap, sizeof(*l->v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n++] = one;
	return buf_add(&l->keys, key, key_len);
}

static int by_age(const void *a, const void *b)
{
	const struct old *x = a, *y = b;

	return x->age_s < y->age_s ? -1 : x->age_s > y->age_s;
}

static void olds_release(struct olds *l)
{
	free(l->v);
	buf_release(&l->keys);
}

/* The records whose key begins with prefix, the oldest first. */
static int list_olds(struct store *s, enum index_db db, const char *prefix,
		     age_fn *age, struct olds *ret)
{
	int r;

	*ret = (struct olds){.age = age, .keys = BUF_INIT((size_t)1 << 30)};
	r = index_each(s->ix, db, prefix, strlen(prefix), add_old, ret);
	if (r == 0 && ret->n > 0)
		qsort(ret->v, ret->n, sizeof(*ret->v), by_age);
	return r;
}

static void trim_failed(struct store *s, int r)
{
	static struct log_limit limit;

	ADD(&s->write_errors, 1);
	if (log_limit_ok(&limit, 1, 60000))
		log_error("cannot remove old records from the cache index",
			  LE(r));
}

/* ---- Manifests ---- */

uint64_t manifests_max(struct store *s)
{
	uint64_t room = s->max_bytes, have;
	struct statvfs v;

	if (room == 0 && fstatvfs(s->dirfd, &v) == 0) {
		have = (uint64_t)v.f_bavail * v.f_frsize;
		room = LOAD(&s->cached_bytes) + LOAD(&s->manifest_bytes) +
		       have - min_u64(have, s->min_free_bytes);
	}
	return room / MANIFEST_SHARE;
}

static bool manifest_age(const uint8_t *val, size_t val_len,
			 uint64_t *ret_age_s, uint64_t *ret_bytes)
{
	struct index_blob rec;

	if (!index_decode_blob(val, val_len, &rec))
		return false;
	*ret_age_s = rec.last_use_s;
	*ret_bytes = rec.cached_bytes;
	return true;
}

/* Deletes those from `first` on, until no more than max_bytes are stored.
 * manifests_mu is held. */
static int drop_manifests(struct store *s, const struct olds *l, size_t first,
			  uint64_t max_bytes)
{
	struct index_batch batch;
	uint64_t bytes = 0;
	size_t n = 0;
	int r;

	index_batch_init(&batch);
	while (first + n < l->n && n < BATCH &&
	       LOAD(&s->manifest_bytes) - bytes > max_bytes) {
		const struct old *o = &l->v[first + n++];

		index_del(&batch, INDEX_MANIFESTS, l->keys.data + o->at,
			  o->len);
		index_del(&batch, INDEX_USES, l->keys.data + o->at, o->len);
		bytes += o->bytes;
	}
	r = n > 0 ? index_write(s->ix, &batch) : 0;
	index_batch_release(&batch);
	if (r < 0)
		return r;
	SUB(&s->manifests, n);
	SUB(&s->manifest_bytes, bytes);
	ADD(&s->evicted_bytes, bytes);
	return (int)n;
}

void evict_manifests(struct store *s)
{
	uint64_t max = manifests_max(s);
	struct olds l;
	size_t at = 0;
	int r;

	if (LOAD(&s->manifest_bytes) <= max)
		return;
	write_touches(s);
	(void)pthread_mutex_lock(&s->manifests_mu);
	r = list_olds(s, INDEX_USES, "", manifest_age, &l);
	while (r == 0 && (r = drop_manifests(s, &l, at, max - max / 20)) > 0) {
		at += (size_t)r;
		r = 0;
	}
	(void)pthread_mutex_unlock(&s->manifests_mu);
	olds_release(&l);
	if (r < 0)
		trim_failed(s, r);
}

int store_manifest_evict(struct store *s, const struct digest *d)
{
	struct old one = {.len = DIGEST_BYTES};
	struct olds l = {.v = &one, .n = 1, .keys = BUF_INIT(DIGEST_BYTES)};
	CLEANUP(buf_release) struct buf v = BUF_INIT(64);
	int r = buf_add(&l.keys, d->sha256, DIGEST_BYTES);

	(void)pthread_mutex_lock(&s->manifests_mu);
	if (r == 0)
		r = index_get(s->ix, INDEX_USES, d->sha256, DIGEST_BYTES, &v);
	if (r == 0 &&
	    !manifest_age((uint8_t *)v.data, v.len, &one.age_s, &one.bytes))
		r = -ENOENT;
	if (r == 0)
		r = drop_manifests(s, &l, 0, 0);
	(void)pthread_mutex_unlock(&s->manifests_mu);
	buf_release(&l.keys);
	return r < 0 ? r : 0;
}

/* ---- Records by their number ---- */

static bool age_at(const uint8_t *val, size_t val_len, size_t at,
		   uint64_t *ret_age_s)
{
	if (val_len < at + 8)
		return false;
	*ret_age_s = get_le(val + at, 8);
	return true;
}

static bool noted_age(const uint8_t *val, size_t val_len, uint64_t *ret_age_s,
		      uint64_t *ret_bytes)
{
	*ret_bytes = 0;
	return age_at(val, val_len, 0, ret_age_s);
}

static bool tag_age(const uint8_t *val, size_t val_len, uint64_t *ret_age_s,
		    uint64_t *ret_bytes)
{
	*ret_bytes = 0;
	return age_at(val, val_len, DIGEST_BYTES, ret_age_s);
}

static bool empty_blob_age(const uint8_t *val, size_t val_len,
			   uint64_t *ret_age_s, uint64_t *ret_bytes)
{
	struct index_blob rec;

	if (!index_decode_blob(val, val_len, &rec) || rec.cached_bytes > 0)
		return false;
	*ret_bytes = 0;
	*ret_age_s = rec.last_use_s;
	return true;
}

static int drop_keys(struct store *s, enum index_db db, const struct olds *l,
		     size_t first, size_t n)
{
	struct index_batch batch;
	int r;

	index_batch_init(&batch);
	for (size_t i = first; i < first + n; i++)
		index_del(&batch, db, l->keys.data + l->v[i].at, l->v[i].len);
	r = index_write(s->ix, &batch);
	index_batch_release(&batch);
	return r;
}

/* It may have been in memory since, and have come to chunks. */
static bool still_empty(struct store *s, const uint8_t bkey[INDEX_BKEY])
{
	struct index_blob rec;

	return index_get_blob(s->ix, bkey, &rec) == 0 && rec.cached_bytes == 0;
}

/* Leaves those that are in memory. Their files went with their chunks. */
static int drop_blobs(struct store *s, enum index_db db, const struct olds *l,
		      size_t first, size_t n)
{
	struct blob_key *keys = calloc(n, sizeof(*keys));
	struct index_batch batch;
	size_t got = 0;
	int r;

	(void)db;
	if (!keys)
		return -ENOMEM;
	index_batch_init(&batch);
	for (size_t i = first; i < first + n; i++) {
		const struct old *o = &l->v[i];
		const uint8_t *key = (uint8_t *)l->keys.data + o->at;

		if (!bkey_parse(key, o->len, &keys[got]) ||
		    !blob_reserve(s, &keys[got]))
			continue;
		if (still_empty(s, key)) {
			index_del(&batch, INDEX_BLOBS, key, o->len);
			index_del(&batch, INDEX_ORIGINS, key, o->len);
			index_del_prefix(&batch, INDEX_CHUNKS, key, o->len);
			got++;
		} else {
			blob_unreserve(s, &keys[got]);
		}
	}
	r = got > 0 ? index_write(s->ix, &batch) : 0;
	index_batch_release(&batch);
	store_lock(s);
	if (r == 0)
		s->nblobs -= got;
	store_unlock(s);
	while (got > 0)
		blob_unreserve(s, &keys[--got]);
	free(keys);
	return r;
}

/* Drops the oldest above STORE_MAX_RECORDS, and a tenth more, so that the next
 * walk is not due at once. */
static int trim(struct store *s, enum index_db db, const char *prefix,
		age_fn *age,
		int (*drop)(struct store *s, enum index_db db,
			    const struct olds *l, size_t first, size_t n))
{
	size_t want = 0, n;
	struct olds l;
	int r;

	if (index_count(s->ix, db) <= STORE_MAX_RECORDS)
		return 0;
	r = list_olds(s, db, prefix, age, &l);
	if (r == 0 && l.n > STORE_MAX_RECORDS)
		want = l.n - STORE_MAX_RECORDS + STORE_MAX_RECORDS / 10;
	for (size_t i = 0; r == 0 && i < want; i += n) {
		n = min_u64(want - i, BATCH);
		r = drop(s, db, &l, i, n);
	}
	olds_release(&l);
	return r;
}

void trim_records(struct store *s)
{
	int r = trim(s, INDEX_BLOBS, "", empty_blob_age, drop_blobs);

	if (r == 0)
		r = trim(s, INDEX_REPOS, "", noted_age, drop_keys);
	if (r == 0)
		r = trim(s, INDEX_TAGS, "", tag_age, drop_keys);
	if (r == 0)
		r = trim(s, INDEX_KV, URL_PREFIX, noted_age, drop_keys);
	if (r < 0)
		trim_failed(s, r);
}
