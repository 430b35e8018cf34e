/* The blobs in memory: a hash table of those with references, and a few idle
 * ones. The index knows the rest. */
#include "store/store-private.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

static struct blob **bucket(struct store *s, const struct blob_key *key)
{
	uint64_t h = digest_prefix(&key->id) ^ (uint64_t)key->kind;

	return &s->hash[h % HASH_SIZE];
}

struct blob *blob_find_locked(struct store *s, const struct blob_key *key)
{
	struct blob *b = *bucket(s, key);

	while (b && !blob_key_equal(&b->key, key))
		b = b->next;
	return b;
}

static void hash_add(struct store *s, struct blob *b)
{
	struct blob **p = bucket(s, &b->key);

	b->next = *p;
	*p = b;
	b->hashed = true;
}

static void hash_del(struct store *s, struct blob *b)
{
	struct blob **p = bucket(s, &b->key);

	while (*p != b)
		p = &(*p)->next;
	*p = b->next;
	b->hashed = false;
}

static struct blob *blob_new(struct store *s, const struct blob_key *key)
{
	struct blob *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->store = s;
	b->key = *key;
	b->refs = 1;
	b->fd = b->ext_fd = -1;
	list_init(&b->settling);
	list_init(&b->idle);
	list_init(&b->dirty);
	list_init(&b->file);
	list_init(&b->cycle);
	list_init(&b->sum_node);
	list_init(&b->waiters);
	list_init(&b->holds);
	return b;
}

static void blob_free(struct blob *b)
{
	BUG_ON(!list_empty(&b->waiters));
	for (uint32_t i = 0; i < b->nsegs; i++) {
		struct seg *g = seg_at(b, i);

		if (g)
			free(g->sums);
		free(g);
	}
	if (b->pages != &b->one_page) {
		for (uint32_t i = 0; i < b->nsegs; i += SEG_PAGE)
			free((void *)b->pages[i / SEG_PAGE]);
		free((void *)b->pages);
	}
	closep(&b->fd);
	closep(&b->ext_fd);
	sha256_free(&b->sum);
	string_list_release(&b->origins);
	free(b);
}

static void free_all(struct list *dead)
{
	while (!list_empty(dead)) {
		struct blob *b = list_first(dead, struct blob, idle);

		list_del(&b->idle);
		blob_free(b);
	}
}

/* Notes b's last use for a later commit. mu is held. */
static void note_touch(struct store *s, struct blob *b)
{
	uint64_t last = blob_last_use_s(b);
	uint8_t bkey[INDEX_BKEY];

	if (!b->indexed || last <= b->rec_last_use_s)
		return;
	bkey_of(&b->key, bkey);
	note_touch_locked(s, INDEX_BLOBS, bkey, sizeof(bkey), last);
}

static void trim_idle_locked(struct store *s, unsigned int keep,
			     struct list *dead)
{
	while (s->nidle > keep) {
		struct blob *b = list_first(&s->idle, struct blob, idle);

		list_del(&b->idle);
		s->nidle--;
		hash_del(s, b);
		blob_file_gone_locked(b);
		note_touch(s, b);
		list_add_tail(dead, &b->idle);
	}
}

void trim_idle(struct store *s, unsigned int keep)
{
	struct list dead;

	list_init(&dead);
	store_lock(s);
	trim_idle_locked(s, keep, &dead);
	store_unlock(s);
	free_all(&dead);
}

static void ref_found(struct store *s, struct blob *b)
{
	if (__atomic_fetch_add(&b->refs, 1, __ATOMIC_RELAXED) == 0) {
		list_del(&b->idle);
		s->nidle--;
	}
}

struct blob *blob_ref(struct blob *b)
{
	ADD(&b->refs, 1);
	return b;
}

void blob_unref(struct blob **bp)
{
	struct blob *b = *bp;
	struct store *s;
	struct list dead;
	uint32_t n;

	*bp = NULL;
	if (!b)
		return;
	n = LOAD(&b->refs);
	while (n > 1)
		if (__atomic_compare_exchange_n(&b->refs, &n, n - 1, true,
						__ATOMIC_RELEASE,
						__ATOMIC_RELAXED))
			return;
	s = b->store;
	list_init(&dead);
	store_lock(s);
	if (__atomic_sub_fetch(&b->refs, 1, __ATOMIC_ACQ_REL) == 0) {
		if (b->hashed && b->left_file) {
			/* The commit thread tries again to unlink it. */
			b->left_file = false;
			STORE(&b->fd_uses, 0);
			blob_dirty_locked(b);
		} else if (b->hashed) {
			list_add_tail(&s->idle, &b->idle);
			s->nidle++;
			/* Any use left is one that its borrower did not end. */
			STORE(&b->fd_uses, 0);
			trim_idle_locked(s, MAX_IDLE_BLOBS, &dead);
		} else {
			blob_file_gone_locked(b);
			list_add_tail(&dead, &b->idle);
		}
	}
	store_unlock(s);
	free_all(&dead);
}

/* ---- From the index into memory ---- */

int blob_set_size(struct blob *b, uint64_t size)
{
	b->size = size;
	b->chunks = (uint32_t)div_up_u64(size, CHUNK_SIZE);
	b->nsegs = (uint32_t)div_up_u64(b->chunks, INDEX_SEG);
	b->one_page = &b->one;
	b->pages = &b->one_page;
	if (b->nsegs > 1) {
		b->pages = calloc(div_up_u64(b->nsegs, SEG_PAGE),
				  sizeof(struct seg **));
		if (!b->pages) {
			b->pages = &b->one_page;
			b->nsegs = 0;
			return -ENOMEM;
		}
	}
	return 0;
}

/* The table's page for segment i, made if need be; NULL: no memory. */
static struct seg **page_make_locked(struct blob *b, uint32_t i)
{
	uint32_t p = i / SEG_PAGE;
	size_t n = min_u64(b->nsegs - (uint64_t)p * SEG_PAGE, SEG_PAGE);

	if (!b->pages[p])
		STORE_REL(&b->pages[p], calloc(n, sizeof(struct seg *)));
	return b->pages[p];
}

struct seg *seg_make_locked(struct blob *b, uint32_t i)
{
	uint32_t n = (uint32_t)min_u64(b->chunks - i * INDEX_SEG, INDEX_SEG);
	struct seg *g = seg_at(b, i), **page;

	if (g)
		return g;
	page = page_make_locked(b, i);
	if (!page)
		return NULL;
	g = calloc(1,
		   sizeof(*g) + n * (2 * sizeof(uint32_t) + sizeof(uint16_t)));
	if (!g)
		return NULL;
	g->n = n;
	g->crc = g->used + n;
	g->from = (uint16_t *)(g->crc + n);
	STORE_REL(&page[i % SEG_PAGE], g);
	return g;
}

static int load_seg(void *arg, const uint8_t *key, size_t key_len,
		    const uint8_t *val, size_t val_len)
{
	struct blob *b = arg;
	struct seg *g;
	uint32_t i;

	if (key_len != INDEX_BKEY + 4)
		return 0;
	key += INDEX_BKEY;
	i = (uint32_t)key[0] << 24 | (uint32_t)key[1] << 16 |
	    (uint32_t)key[2] << 8 | key[3];
	if (i >= b->nsegs)
		return 0;
	g = seg_make_locked(b, i);
	if (!g)
		return -ENOMEM;
	if (val_len != INDEX_SEG_BYTES(g->n) && val_len != INDEX_SEG_FULL(g->n))
		return 0;
	if (val_len == INDEX_SEG_FULL(g->n)) {
		g->sums = calloc(g->n, sizeof(*g->sums));
		if (!g->sums)
			return -ENOMEM;
		memcpy(g->sums, val + INDEX_SEG_BYTES(g->n),
		       g->n * sizeof(*g->sums));
	}
	for (uint32_t c = 0; c < g->n; c++) {
		if (!(val[c / 8] >> (c % 8) & 1))
			continue;
		g->crc[c] = (uint32_t)get_le(val + 32 + (size_t)4 * c, 4);
		g->from[c] = (uint16_t)get_le(
			val + 32 + (size_t)4 * g->n + (size_t)2 * c, 2);
		bit_set(g->present, c);
		bit_set(g->durable, c);
		b->npresent++;
		b->ev_held = true;
		b->cached_bytes += blob_chunk_len(b, i * INDEX_SEG + c);
	}
	return 0;
}

static int load_origins(struct store *s, struct blob *b,
			const uint8_t bkey[INDEX_BKEY])
{
	CLEANUP(buf_release)
	struct buf v = BUF_INIT(MAX_ORIGINS * (MAX_ORIGIN_BYTES + 1));
	int r = index_get(s->ix, INDEX_ORIGINS, bkey, INDEX_BKEY, &v);

	if (r < 0)
		return r == -ENOENT || r == -EMSGSIZE ? 0 : r;
	for (size_t at = 0; at < v.len && b->origins.n < MAX_ORIGINS;) {
		r = string_list_add(&b->origins, v.data + at);
		if (r < 0)
			return r;
		at += strlen(v.data + at) + 1;
	}
	return 0;
}

/* The blob was verified, and the sums of all its chunks are here. */
static bool has_proof(const struct blob *b)
{
	if (b->key.kind != BLOB_SHA256 || b->state != BLOB_VERIFIED)
		return false;
	for (uint32_t k = 0; b->chunks > 1 && k < b->nsegs; k++)
		if (!seg_at(b, k) || !seg_at(b, k)->sums)
			return false;
	return true;
}

/* Reads b from the index. No other thread uses b yet: it is `loading`. */
static int load(struct store *s, struct blob *b)
{
	uint8_t bkey[INDEX_BKEY];
	struct index_blob rec;
	int r;

	bkey_of(&b->key, bkey);
	r = index_get_blob(s->ix, bkey, &rec);
	if (r == 0 &&
	    (rec.size > BLOB_MAX_SIZE || rec.state > BLOB_BAD ||
	     (b->key.claim.size > 0 && b->key.claim.size != rec.size)))
		r = -ENOENT;
	if (r < 0)
		return r;
	r = blob_set_size(b, rec.size);
	if (r < 0)
		return r;
	b->state = rec.state;
	b->rec_last_use_s = b->loaded_last_use_s = rec.last_use_s;
	b->indexed = true;
	r = index_each(s->ix, INDEX_CHUNKS, bkey, sizeof(bkey), load_seg, b);
	if (r == 0)
		r = load_origins(s, b, bkey);
	if (r < 0)
		return r;
	b->proven = has_proof(b);
	if (!b->proven)
		blob_drop_foreign_origins(b);
	if (b->state == BLOB_VERIFIED && b->key.kind == BLOB_SHA256 &&
	    !b->proven)
		b->state = BLOB_PROVISIONAL;
	b->durable_bytes = b->cached_bytes;
	/* They differ when a segment's record was damaged. */
	b->rec_changed = b->cached_bytes != rec.cached_bytes;
	ADD(&s->cached_bytes, b->cached_bytes - rec.cached_bytes);
	return 0;
}

/* Sets up a blob that the index does not know. mu is held. */
static void init_new_locked(struct store *s, struct blob *b)
{
	/* store_create() lets no other digest have no bytes. */
	b->proven = b->size == 0 && b->key.kind == BLOB_SHA256;
	b->state = b->proven ? BLOB_VERIFIED : BLOB_PROVISIONAL;
	b->used = store_tick(s);
	b->rec_changed = true;
	b->load_error = 0;
	if (!b->unsure)
		blob_dirty_locked(b);
}

/* Counts a new record. Any user may name more blobs within a minute than
 * housekeeping should find. mu is held. */
static void count_record_locked(struct store *s)
{
	s->nblobs++;
	if (s->nblobs > STORE_MAX_RECORDS &&
	    s->nblobs % (STORE_MAX_RECORDS / 10) == 0) {
		s->housekeep_ms = 0;
		(void)pthread_cond_signal(&s->commit_wake);
	}
}

void blob_sure_locked(struct blob *b)
{
	if (!b->unsure)
		return;
	b->unsure = false;
	count_record_locked(b->store);
	b->rec_changed = true;
	blob_dirty_locked(b);
}

/* Finds the blob in memory, or puts it there from the index. *ret_absent (only
 * with keep): the index has no record; *ret is then still loading, and the
 * caller must fill it and clear `loading`. Takes a reference. */
static int get_or_load(struct store *s, const struct blob_key *key, bool keep,
		       struct blob **ret, bool *ret_absent)
{
	struct blob *b, *fresh = blob_new(s, key);
	bool known;
	int r;

	*ret_absent = false;
	if (!fresh)
		return -ENOMEM;
	store_lock(s);
	while ((b = blob_find_locked(s, key)) && b->loading)
		(void)pthread_cond_wait(&s->changed, &s->mu);
	if (b) {
		ref_found(s, b);
		store_unlock(s);
		blob_free(fresh);
		*ret = b;
		return 0;
	}
	b = fresh;
	b->loading = true;
	hash_add(s, b);
	store_unlock(s);

	r = load(s, b);
	known = r == 0;
	r = external_load(b, r);
	if (r == -ENOENT && keep) {
		*ret = b;
		*ret_absent = true;
		return 0;
	}
	store_lock(s);
	b->loading = false;
	if (r < 0) {
		hash_del(s, b);
	} else if (!known) {
		count_record_locked(s);
		init_new_locked(s, b);
	} else {
		external_loaded_locked(b);
		if (LOAD(&b->npresent) == b->chunks)
			gate_locked(b);
		if (b->rec_changed)
			blob_dirty_locked(b);
	}
	(void)pthread_cond_broadcast(&s->changed);
	store_unlock(s);
	if (r < 0)
		blob_unref(&b);
	*ret = b;
	return r;
}

struct blob *blob_find_loaded(struct store *s, const struct blob_key *key)
{
	struct blob *b;

	store_lock(s);
	while ((b = blob_find_locked(s, key)) && b->loading)
		(void)pthread_cond_wait(&s->changed, &s->mu);
	if (b)
		ref_found(s, b);
	store_unlock(s);
	return b;
}

int blob_get_quiet(struct store *s, const struct blob_key *key,
		   struct blob **ret)
{
	bool absent;

	return get_or_load(s, key, false, ret, &absent);
}

/* ---- Blobs of one digest ---- */

static bool same_digest(const struct blob_key *a, const struct digest *d)
{
	return a->kind == BLOB_SHA256 && digest_equal(&a->id, d);
}

static bool same_place(const struct blob_key *a, const struct blob_key *b)
{
	return a->kind == b->kind && digest_equal(&a->id, &b->id) &&
	       memcmp(a->claim.place, b->claim.place, BLOB_PLACE_BYTES) == 0;
}

/* A proven blob in memory; NULL. mu is held. */
static struct blob *find_proven_locked(struct store *s, const struct digest *d)
{
	const struct blob_key key = {.kind = BLOB_SHA256, .id = *d};
	struct blob *b = *bucket(s, &key);

	while (b && (b->loading || !same_digest(&b->key, d) || !blob_proven(b)))
		b = b->next;
	return b;
}

/* The blob that a look-up of key finds in memory; NULL. mu is held. */
static struct blob *find_best_locked(struct store *s,
				     const struct blob_key *key)
{
	struct blob *best = NULL;

	if (key->kind == BLOB_SHA256)
		best = find_proven_locked(s, &key->id);
	if (best)
		return best;
	if (key->kind != BLOB_SHA256 || key->claim.size > 0 ||
	    !blob_key_placed(key)) {
		best = blob_find_locked(s, key);
		return best && best->loading ? NULL : best;
	}
	for (struct blob *b = *bucket(s, key); b; b = b->next)
		if (!b->loading && same_place(&b->key, key) &&
		    LOAD(&b->cached_bytes) >
			    (best ? LOAD(&best->cached_bytes) : 0))
			best = b;
	return best;
}

struct key_list {
	struct blob_key *v;
	size_t n, cap;
	/* Of the records: */
	struct blob_key proven, best;
	const struct blob_key *want;
	uint64_t best_bytes;
	bool has_proven;
};

static int add_key(struct key_list *l, const struct blob_key *key)
{
	void *v;

	for (size_t i = 0; i < l->n; i++)
		if (blob_key_equal(&l->v[i], key))
			return 0;
	v = array_grow(l->v, l->n, &l->cap, sizeof(*l->v));
	if (!v)
		return -ENOMEM;
	l->v = v;
	l->v[l->n++] = *key;
	return 0;
}

static int add_record(void *arg, const uint8_t *key, size_t key_len,
		      const uint8_t *val, size_t val_len)
{
	struct key_list *l = arg;
	struct index_blob rec;
	struct blob_key k;

	if (!bkey_parse(key, key_len, &k) ||
	    !index_decode_blob(val, val_len, &rec))
		return 0;
	if (rec.state == BLOB_VERIFIED) {
		l->proven = k;
		l->has_proven = true;
	}
	if (l->want && same_place(&k, l->want) &&
	    rec.cached_bytes > l->best_bytes) {
		l->best = k;
		l->best_bytes = rec.cached_bytes;
	}
	return l->want ? 0 : add_key(l, &k);
}

static int each_record(struct store *s, const struct digest *d,
		       struct key_list *l)
{
	const struct blob_key key = {.kind = BLOB_SHA256, .id = *d};
	uint8_t bkey[INDEX_BKEY];

	bkey_of(&key, bkey);
	return index_each(s->ix, INDEX_BLOBS, bkey, INDEX_BKEY_ID, add_record,
			  l);
}

int store_claims_of(struct store *s, const struct digest *d,
		    struct blob_key **ret, size_t *ret_n)
{
	const struct blob_key key = {.kind = BLOB_SHA256, .id = *d};
	struct key_list l = {0};
	int r;

	store_lock(s);
	r = 0;
	for (struct blob *b = *bucket(s, &key); r == 0 && b; b = b->next)
		if (!b->loading && same_digest(&b->key, d))
			r = add_key(&l, &b->key);
	store_unlock(s);
	if (r == 0)
		r = each_record(s, d, &l);
	if (r < 0) {
		free(l.v);
		return r;
	}
	*ret = l.v;
	*ret_n = l.n;
	return 0;
}

/* Finds the blob of that place, of any size, that has most bytes here. */
static int find_any_size(struct store *s, const struct blob_key *key,
			 const struct key_list *records, struct blob **ret)
{
	struct blob_key k = *key;
	struct blob *b;

	store_lock(s);
	b = find_best_locked(s, key);
	if (b && LOAD(&b->cached_bytes) >= records->best_bytes)
		ref_found(s, b);
	else
		b = NULL;
	store_unlock(s);
	*ret = b;
	if (b)
		return 0;
	if (records->best_bytes > 0)
		return blob_get_quiet(s, &records->best, ret);
	k.claim.size = external_size(s, &key->id);
	return k.claim.size > 0 ? blob_get_quiet(s, &k, ret) : -ENOENT;
}

/* A reference to what a look-up of key finds, in memory or not. -ENOENT. */
static int find(struct store *s, const struct blob_key *key, struct blob **ret)
{
	struct key_list l = {.want = key};
	struct blob *b;
	int r;

	if (key->kind != BLOB_SHA256)
		return blob_get_quiet(s, key, ret);
	store_lock(s);
	b = find_proven_locked(s, &key->id);
	if (b)
		ref_found(s, b);
	store_unlock(s);
	if (b) {
		*ret = b;
		return 0;
	}
	r = each_record(s, &key->id, &l);
	if (r == 0 && l.has_proven) {
		r = blob_get_quiet(s, &l.proven, &b);
		if (r == 0 && blob_proven(b)) {
			*ret = b;
			return 0;
		}
		blob_unref(&b);
		r = r == -ENOENT ? 0 : r;
	}
	if (r < 0)
		return r;
	if (blob_key_placed(key) && key->claim.size == 0)
		return find_any_size(s, key, &l, ret);
	r = blob_get_quiet(s, key, &b);
	/* Without a claim, only what containerd has checked. */
	if (r == 0 && !blob_key_placed(key) && !blob_shared(b)) {
		blob_unref(&b);
		r = -ENOENT;
	}
	*ret = b;
	return r;
}

int store_peek(struct store *s, const struct blob_key *key, struct blob **ret)
{
	struct blob *b;

	store_lock(s);
	b = find_best_locked(s, key);
	if (b && key->kind == BLOB_SHA256 && !blob_key_placed(key) &&
	    !blob_shared(b))
		b = NULL;
	if (b)
		ref_found(s, b);
	store_unlock(s);
	*ret = b;
	return b ? 0 : -EAGAIN;
}

/* Starts the sum of a blob that became complete before the last stop. */
static void kick_sum(struct store *s, struct blob *b)
{
	store_lock(s);
	if (LOAD(&b->npresent) == b->chunks)
		sum_kick_locked(b);
	store_unlock(s);
}

int store_get(struct store *s, const struct blob_key *key, struct blob **ret)
{
	int r = find(s, key, ret);

	if (r == 0)
		kick_sum(s, *ret);
	return r;
}

int store_get_claim(struct store *s, const struct blob_key *key,
		    struct blob **ret)
{
	return blob_get_quiet(s, key, ret);
}

static int create(struct store *s, const struct blob_key *key, uint64_t size,
		  bool unsure, struct blob **ret)
{
	struct blob *b;
	bool absent;
	int r = get_or_load(s, key, true, &b, &absent);

	if (r < 0)
		return r;
	if (!absent && b->size != size) {
		blob_unref(&b);
		return -ESTALE;
	}
	if (absent)
		r = blob_set_size(b, size);
	store_lock(s);
	if (absent) {
		b->loading = false;
		if (r == 0) {
			b->unsure = unsure;
			if (!unsure)
				count_record_locked(s);
			init_new_locked(s, b);
		} else {
			hash_del(s, b);
		}
		(void)pthread_cond_broadcast(&s->changed);
	}
	store_unlock(s);
	if (r < 0)
		blob_unref(&b);
	*ret = b;
	return r;
}

static int find_or_create(struct store *s, const struct blob_key *key,
			  uint64_t size, bool unsure, struct blob **ret)
{
	struct blob_key k = *key;
	struct digest none;
	int r = -ENOENT;

	if (size > BLOB_MAX_SIZE)
		return -EFBIG;
	digest_of("", 0, &none);
	if (k.kind == BLOB_SHA256 && size == 0 && !digest_equal(&none, &k.id))
		return -EBADMSG;
	if (k.kind == BLOB_SHA256 && size == 0)
		k.claim = (struct blob_claim){0};
	else if (k.kind == BLOB_SHA256)
		k.claim.size = size;
	if (k.kind == BLOB_SHA256)
		r = find(s, &k, ret);
	if (r == -ENOENT)
		r = create(s, &k, size, unsure, ret);
	if (r == 0)
		kick_sum(s, *ret);
	return r;
}

int store_create(struct store *s, const struct blob_key *key, uint64_t size,
		 struct blob **ret)
{
	int r = find_or_create(s, key, size, false, ret);

	if (r < 0)
		return r;
	store_lock(s);
	blob_sure_locked(*ret);
	store_unlock(s);
	return 0;
}

int store_create_unsure(struct store *s, const struct blob_key *key,
			uint64_t size, struct blob **ret)
{
	return find_or_create(s, key, size, true, ret);
}

/* ---- A key that nobody may load ---- */

bool blob_reserve(struct store *s, const struct blob_key *key)
{
	struct blob *b = blob_new(s, key);
	struct blob *old;

	if (!b)
		return false;
	store_lock(s);
	old = blob_find_locked(s, key);
	if (!old) {
		b->loading = true;
		hash_add(s, b);
	}
	store_unlock(s);
	if (old)
		blob_free(b);
	return !old;
}

void blob_unreserve(struct store *s, const struct blob_key *key)
{
	struct blob *b;

	store_lock(s);
	b = blob_find_locked(s, key);
	hash_del(s, b);
	(void)pthread_cond_broadcast(&s->changed);
	store_unlock(s);
	blob_free(b);
}
