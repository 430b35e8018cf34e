/* A blob's chunks: reading, writing and dropping them. */
#include "store/store-private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define CHECK_PIECE	   ((size_t)64 << 10)
#define ENOSPC_EVICT_BYTES ((uint64_t)64 << 20)
#define ENOSPC_EVICT_FILES 64
#define MIN_SLACK_BYTES	   ((uint64_t)64 << 20)

/* ---- Questions that do not touch the disk ---- */

const struct blob_key *blob_key(const struct blob *b)
{
	return &b->key;
}

uint64_t blob_size(const struct blob *b)
{
	return b->size;
}

uint32_t blob_chunks(const struct blob *b)
{
	return b->chunks;
}

uint32_t blob_chunk_len(const struct blob *b, uint32_t chunk)
{
	BUG_ON(chunk >= b->chunks);
	return (uint32_t)min_u64(b->size - chunk * CHUNK_SIZE, CHUNK_SIZE);
}

enum blob_state blob_get_state(const struct blob *b)
{
	enum blob_state state = (enum blob_state)LOAD_ACQ(&b->state);

	if (LOAD_ACQ(&b->external))
		return BLOB_VERIFIED;
	return state_shown(state, b->size, LOAD(&b->cached_bytes));
}

bool blob_proven(const struct blob *b)
{
	return LOAD_ACQ(&b->proven);
}

bool blob_shared(const struct blob *b)
{
	return blob_proven(b) || LOAD_ACQ(&b->external);
}

uint64_t blob_cached_bytes(const struct blob *b)
{
	return LOAD_ACQ(&b->external) ? b->size : LOAD(&b->cached_bytes);
}

uint32_t blob_missing(const struct blob *b)
{
	return LOAD_ACQ(&b->external) ? 0 : b->chunks - LOAD_ACQ(&b->npresent);
}

bool blob_has(const struct blob *b, uint32_t chunk)
{
	return chunk_present(b, chunk) ||
	       (LOAD_ACQ(&b->external) && chunk < b->chunks);
}

uint32_t blob_next_missing(const struct blob *b, uint32_t from)
{
	uint32_t c = LOAD_ACQ(&b->external) ? b->chunks : from;

	while (c < b->chunks) {
		struct seg *g = seg_of(b, c);
		uint64_t absent;

		if (!g)
			return c;
		absent = ~LOAD_ACQ(&g->present[c % INDEX_SEG / 64]) >> (c % 64);
		if (absent) {
			c += (uint32_t)__builtin_ctzll(absent);
			break;
		}
		c = (c | 63) + 1;
	}
	return c < b->chunks ? c : b->chunks;
}

void blob_bitmap(const struct blob *b, uint8_t *out, size_t out_bytes)
{
	bool all = LOAD_ACQ(&b->external);

	memset(out, 0, out_bytes);
	for (uint32_t c = 0; c < b->chunks && c / 8 < out_bytes; c += 8) {
		struct seg *g = seg_of(b, c);

		if (all)
			out[c / 8] = (uint8_t)(0xff >>
					       (8 - min_u64(8, b->chunks - c)));
		else if (g)
			out[c / 8] =
				(uint8_t)(LOAD_ACQ(&g->present[c % INDEX_SEG /
							       64]) >>
					  (c % 64));
	}
}

uint16_t blob_chunk_from(const struct blob *b, uint32_t chunk)
{
	struct seg *g = chunk < b->chunks ? seg_of(b, chunk) : NULL;
	uint16_t from = CHUNK_FROM_UPSTREAM;

	store_lock(b->store);
	if (g && g->from[chunk % INDEX_SEG] != CHUNK_FROM_VERIFIED)
		from = g->from[chunk % INDEX_SEG];
	store_unlock(b->store);
	return from;
}

uint32_t blob_chunk_crc(const struct blob *b, uint32_t chunk)
{
	struct seg *g = chunk < b->chunks ? seg_of(b, chunk) : NULL;

	return g ? LOAD(&g->crc[chunk % INDEX_SEG]) : 0;
}

void blob_set_user(struct blob *b, void *user)
{
	b->user = user;
}

void *blob_user(const struct blob *b)
{
	return b->user;
}

bool blob_origin_foreign(const struct blob *b, const char *origin)
{
	struct blob_key key = b->key;

	/* Without a place nobody adds an origin. */
	if (key.kind != BLOB_SHA256 || !blob_key_placed(&key))
		return false;
	blob_key_claim(&key, origin, key.claim.size);
	return !blob_key_equal(&key, &b->key);
}

void blob_drop_foreign_origins(struct blob *b)
{
	struct string_list *l = &b->origins;
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++) {
		if (blob_origin_foreign(b, l->v[i]))
			free(l->v[i]);
		else
			l->v[n++] = l->v[i];
	}
	if (n < l->n)
		b->origins_changed = true;
	for (size_t i = n; i < l->n; i++)
		l->v[i] = NULL;
	l->n = n;
}

/* Makes room. Neither the claim's place nor the others can take all of it: the
 * reader of a proven blob may know a place that still answers. */
static void drop_origin_locked(struct blob *b)
{
	struct string_list *l = &b->origins;
	size_t foreign = 0, i;

	for (i = 0; i < l->n; i++)
		foreign += blob_origin_foreign(b, l->v[i]);
	for (i = l->n - 1; i > 0; i--)
		if (blob_origin_foreign(b, l->v[i]) == (foreign > l->n / 2))
			break;
	free(l->v[i]);
	l->n--;
	memmove(l->v + i, l->v + i + 1, (l->n - i) * sizeof(*l->v));
	l->v[l->n] = NULL;
}

/* The newest one comes first. One of another place, which a proven blob may
 * have, comes last. */
static int add_origin_locked(struct blob *b, const char *origin)
{
	struct string_list *l = &b->origins;
	bool foreign = blob_origin_foreign(b, origin);
	char *s;
	int r;

	if (foreign && !LOAD(&b->proven))
		return 0;
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i], origin) == 0) {
			if (foreign)
				return 0;
			s = l->v[i];
			memmove(l->v + 1, l->v, i * sizeof(*l->v));
			l->v[0] = s;
			return i > 0;
		}
	if (l->n >= MAX_ORIGINS)
		drop_origin_locked(b);
	r = string_list_add(l, origin);
	if (r < 0)
		return r;
	if (foreign)
		return 1;
	s = l->v[l->n - 1];
	memmove(l->v + 1, l->v, (l->n - 1) * sizeof(*l->v));
	l->v[0] = s;
	return 1;
}

int blob_add_origin(struct store *s, struct blob *b, const char *origin)
{
	size_t len = strlen(origin);
	int r;

	if (len == 0 || len > MAX_ORIGIN_BYTES)
		return -EINVAL;
	store_lock(s);
	r = add_origin_locked(b, origin);
	if (r > 0) {
		b->origins_changed = true;
		blob_dirty_locked(b);
	}
	store_unlock(s);
	return r < 0 ? r : 0;
}

void blob_origin_last(struct store *s, struct blob *b, const char *origin)
{
	struct string_list *l = &b->origins;
	char *o;

	store_lock(s);
	for (size_t i = 0; i < l->n; i++) {
		o = l->v[i];
		if (origin && strcmp(o, origin) != 0)
			continue;
		memmove(l->v + i, l->v + i + 1, (l->n - i - 1) * sizeof(o));
		l->v[l->n - 1] = o;
		b->origins_changed = true;
		blob_dirty_locked(b);
		break;
	}
	store_unlock(s);
}

int blob_origins(struct blob *b, struct string_list *ret)
{
	int r = 0;

	store_lock(b->store);
	for (size_t i = 0; r == 0 && i < b->origins.n; i++)
		r = string_list_add(ret, b->origins.v[i]);
	store_unlock(b->store);
	return r;
}

void blob_set_bad(struct store *s, struct blob *b)
{
	store_lock(s);
	STORE(&b->bad_ms, now_ms());
	STORE_REL(&b->state, BLOB_BAD);
	b->rec_changed = true;
	blob_dirty_locked(b);
	store_unlock(s);
}

uint64_t blob_bad_ms(const struct blob *b)
{
	return now_ms() - LOAD(&b->bad_ms);
}

bool blob_gated(const struct blob *b)
{
	return LOAD_ACQ(&b->gate) != GATE_OPEN && !LOAD_ACQ(&b->external);
}

bool blob_failed(const struct blob *b)
{
	return LOAD_ACQ(&b->gate) == GATE_FAILED && !LOAD_ACQ(&b->external);
}

void gate_locked(struct blob *b)
{
	if (b->key.kind == BLOB_SHA256 && LOAD(&b->gate) == GATE_OPEN &&
	    LOAD(&b->state) == BLOB_PROVISIONAL &&
	    blob_unsummed_bytes(b) <= STORE_GATE_MAX)
		STORE_REL(&b->gate, GATE_UNCHECKED);
}

/* ---- Proof ---- */

/* The states behind the chunk and behind the one before it, and nothing else,
 * are needed; the last chunk leads to the digest itself. */
int chunk_prove(const struct blob *b, uint32_t chunk, const void *data)
{
	CLEANUP(sha256_free) struct sha256 *h = sha256_new();
	uint8_t state[SHA256_STATE_BYTES];
	struct digest d;
	uint32_t before = chunk - 1;

	if (!h)
		return -ENOMEM;
	if (chunk > 0)
		sha256_resume(h, seg_of(b, before)->sums[before % INDEX_SEG],
			      chunk * CHUNK_SIZE);
	sha256_update(h, data, blob_chunk_len(b, chunk));
	if (chunk + 1 == b->chunks) {
		sha256_final(h, &d);
		return digest_equal(&d, &b->key.id) ? 0 : -EBADMSG;
	}
	sha256_state(h, state);
	return memcmp(state, seg_of(b, chunk)->sums[chunk % INDEX_SEG],
		      sizeof(state)) == 0
		       ? 0
		       : -EBADMSG;
}

void blob_segs_changed_locked(struct blob *b)
{
	if (!LOAD(&b->proven))
		return;
	for (uint32_t k = 0; k < b->nsegs; k++)
		seg_at(b, k)->changed = true;
	b->rec_changed = true;
}

/* ---- Dropping ---- */

void chunk_drop_locked(struct blob *b, uint32_t chunk)
{
	struct seg *g = seg_of(b, chunk);
	uint32_t i = chunk % INDEX_SEG, len = blob_chunk_len(b, chunk);

	BUG_ON(!bit_get(g->present, i));
	bit_clear(g->present, i);
	bit_clear(g->checked, i);
	bit_clear(g->dirty, i);
	bit_clear(g->syncing, i);
	if (bit_get(g->durable, i))
		b->durable_bytes -= len;
	bit_clear(g->durable, i);
	bit_set(g->punch, i);
	g->changed = true;
	if (LOAD(&b->gate) == GATE_UNCHECKED)
		STORE_REL(&b->gate, GATE_OPEN);
	SUB(&b->npresent, 1);
	if (LOAD(&b->npresent) == 0)
		blob_segs_changed_locked(b);
	SUB(&b->cached_bytes, len);
	SUB(&b->store->cached_bytes, len);
	if (b->sum && chunk <= LOAD(&b->sum_next))
		b->sum_reset = true;
	(void)__atomic_fetch_add(&b->gen, 1, __ATOMIC_SEQ_CST);
	blob_dirty_locked(b);
}

void holds_break_locked(struct blob *b, uint32_t chunk)
{
	list_for_each (n, &b->holds) {
		struct store_hold *h = list_entry(n, struct store_hold, node);

		h->broken |= h->first <= chunk && chunk <= h->last;
	}
}

void blob_damaged_locked(struct blob *b, uint32_t chunk)
{
	chunk_drop_locked(b, chunk);
	holds_break_locked(b, chunk);
	b->ev_dropped++;
	ADD(&b->store->damaged_chunks, 1);
}

void blob_drop_all(struct blob *b)
{
	struct store *s = b->store;

	for (uint32_t i = 0; i < b->nsegs; i++) {
		store_lock(s);
		for (uint32_t c = 0; seg_at(b, i) && c < seg_at(b, i)->n; c++)
			if (bit_get(seg_at(b, i)->present, c))
				chunk_drop_locked(b, i * INDEX_SEG + c);
		store_unlock(s);
	}
	store_lock(s);
	STORE_REL(&b->gate, GATE_OPEN);
	if (LOAD(&b->state) == BLOB_BAD && b->size > 0) {
		STORE_REL(&b->state, BLOB_PROVISIONAL);
		b->rec_changed = true;
	}
	blob_dirty_locked(b);
	store_unlock(s);
}

int store_evict(struct store *s, struct blob *b)
{
	blob_drop_all(b);
	return commit_wait(s);
}

/* ---- Reading ---- */

int pread_all(int fd, void *buf, size_t len, uint64_t off)
{
	uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = pread(fd, p, len, (off_t)off);

		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -errno;
		if (n == 0)
			return -ENODATA;
		p += n;
		off += (size_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Reads in pieces that fit the processor's cache, without a buffer for a whole
 * chunk. */
static int chunk_crc(int fd, uint64_t off, uint32_t len, uint32_t *ret)
{
	CLEANUP(freep) uint8_t *piece = malloc(CHECK_PIECE);
	uint32_t crc = 0;

	if (!piece)
		return -ENOMEM;
	(void)posix_fadvise(fd, (off_t)off, (off_t)len, POSIX_FADV_WILLNEED);
	while (len > 0) {
		size_t n = min_u64(len, CHECK_PIECE);
		int r = pread_all(fd, piece, n, off);

		if (r < 0)
			return r;
		crc = crc32c(crc, piece, n);
		off += n;
		len -= (uint32_t)n;
	}
	*ret = crc;
	return 0;
}

/* -EAGAIN: the generation moved meanwhile; the result is unknown. */
static int check_once(struct blob *b, uint32_t chunk, bool force)
{
	uint64_t gen = __atomic_load_n(&b->gen, __ATOMIC_SEQ_CST);
	struct seg *g = seg_of(b, chunk);
	uint32_t i = chunk % INDEX_SEG, crc = 0;
	struct store *s = b->store;
	char hex[DIGEST_HEX_SIZE];
	int fd, r;

	if (!g || !bit_get(g->present, i))
		return -ENODATA;
	if (!force && bit_get(g->checked, i))
		return 0;
	fd = blob_fd(b, false);
	if (fd < 0)
		return fd == -ENOENT ? -ENODATA : fd;
	r = chunk_crc(fd, chunk * CHUNK_SIZE, blob_chunk_len(b, chunk), &crc);
	blob_fd_put(b);
	if (r == -ENOMEM)
		return r;
	store_lock(s);
	if (LOAD(&b->gen) != gen) {
		store_unlock(s);
		return -EAGAIN;
	}
	if (r == 0 && crc == LOAD(&g->crc[i])) {
		bit_set(g->checked, i);
		store_unlock(s);
		return 0;
	}
	blob_damaged_locked(b, chunk);
	store_unlock(s);
	log_warn("dropped a damaged chunk; the next read fetches it",
		 LS("blob", digest_hex(&b->key.id, hex)), LU("chunk", chunk),
		 LE(r < 0 ? r : -EBADMSG));
	return -ENODATA;
}

int chunk_check(struct blob *b, uint32_t chunk, bool force)
{
	int r;

	do {
		r = check_once(b, chunk, force);
	} while (r == -EAGAIN);
	return r;
}

static int range_check(struct blob *b, uint32_t first, uint32_t last)
{
	for (uint32_t c = first; c <= last; c++) {
		struct seg *g = seg_of(b, c);
		int r;

		if (!g || !bit_get(g->present, c % INDEX_SEG))
			return -ENODATA;
		if (bit_get(g->checked, c % INDEX_SEG))
			continue;
		r = chunk_check(b, c, false);
		if (r < 0)
			return r;
	}
	return 0;
}

static void touch(struct blob *b, uint32_t first, uint32_t last)
{
	uint32_t now = store_tick(b->store);

	if (LOAD(&b->used) != now)
		STORE(&b->used, now);
	for (uint32_t c = first; c <= last; c++) {
		struct seg *g = seg_of(b, c);

		if (g && LOAD(&g->used[c % INDEX_SEG]) != now)
			STORE(&g->used[c % INDEX_SEG], now);
	}
}

static bool gen_moved(struct blob *b, uint64_t gen)
{
#ifndef __SANITIZE_THREAD__ /* gcc's thread sanitizer does not know it */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
	return __atomic_load_n(&b->gen, __ATOMIC_SEQ_CST) != gen;
}

/* Finds the error of a failed read. Chunks that the disk cannot read become
 * absent. */
static int read_failed(struct blob *b, uint32_t first, uint32_t last, int why)
{
	for (uint32_t c = first; c <= last; c++) {
		int r = chunk_check(b, c, true);

		if (r < 0)
			return r;
	}
	return why; /* the error did not come back */
}

static int read_range(struct blob *b, uint64_t off, void *buf, size_t len)
{
	uint32_t first = (uint32_t)(off >> CHUNK_SHIFT);
	uint32_t last = (uint32_t)((off + len - 1) >> CHUNK_SHIFT);

	for (int tries = 0;; tries++) {
		uint64_t gen = __atomic_load_n(&b->gen, __ATOMIC_SEQ_CST);
		int fd, r = range_check(b, first, last);

		if (r < 0)
			return r;
		fd = blob_fd(b, false);
		if (fd < 0 && fd != -ENOENT)
			return fd;
		r = fd < 0 ? -ENODATA : pread_all(fd, buf, len, off);
		if (fd >= 0)
			blob_fd_put(b);
		if (gen_moved(b, gen))
			continue;
		if (r == 0)
			return 0;
		r = read_failed(b, first, last, r);
		if (r != -EIO || tries > 0)
			return r;
	}
}

static bool in_range(const struct blob *b, uint64_t off, uint64_t len)
{
	return off <= b->size && len <= b->size - off;
}

int store_read(struct store *s, struct blob *b, uint64_t off, void *buf,
	       size_t len)
{
	int r;

	(void)s;
	if (!in_range(b, off, len))
		return -EINVAL;
	if (LOAD_ACQ(&b->external)) {
		r = external_read(b, off, buf, len);
		if (r != -ENODATA)
			return r;
	}
	if (LOAD_ACQ(&b->state) == BLOB_BAD)
		return -EIO;
	if (len == 0)
		return 0;
	if (LOAD_ACQ(&b->gate))
		return -EAGAIN;
	r = read_range(b, off, buf, len);
	/* Tests again, because the chunk that closes the gate may have come
	 * meanwhile. */
	if (r == 0 && LOAD_ACQ(&b->gate))
		return -EAGAIN;
	if (r == 0)
		touch(b, (uint32_t)(off >> CHUNK_SHIFT),
		      (uint32_t)((off + len - 1) >> CHUNK_SHIFT));
	return r;
}

int chunk_read(struct blob *b, uint32_t chunk, void *buf)
{
	return read_range(b, chunk * CHUNK_SIZE, buf, blob_chunk_len(b, chunk));
}

static int range_fd(struct store *s, struct blob *b, uint64_t off, uint64_t len,
		    enum gate held_by, int *ret_fd, uint64_t *ret_gen)
{
	uint32_t first = (uint32_t)(off >> CHUNK_SHIFT), last = first;
	int fd, r = 0;

	if (!in_range(b, off, len))
		return -EINVAL;
	*ret_gen = __atomic_load_n(&b->gen, __ATOMIC_SEQ_CST);
	if (LOAD_ACQ(&b->external)) {
		STORE(&b->used, store_tick(s));
		ADD(&b->fd_uses,
		    1); /* store_range_done() subtracts one in any case */
		*ret_fd = LOAD_ACQ(&b->ext_fd);
		return 0;
	}
	if (LOAD_ACQ(&b->state) == BLOB_BAD)
		return -EIO;
	if (len > 0) {
		last = (uint32_t)((off + len - 1) >> CHUNK_SHIFT);
		r = range_check(b, first, last);
	}
	if (r == 0 && LOAD_ACQ(&b->gate) >= (uint32_t)held_by)
		r = -EAGAIN;
	if (r < 0)
		return r;
	if (len == 0) { /* of no file: a blob without chunks has none */
		ADD(&b->fd_uses, 1);
		*ret_fd = s->nullfd;
		return 0;
	}
	fd = blob_fd(b, false);
	if (fd < 0)
		return fd == -ENOENT ? -ENODATA : fd;
	touch(b, first, last);
	*ret_fd = fd;
	return 0;
}

int store_range_fd(struct store *s, struct blob *b, uint64_t off, uint64_t len,
		   int *ret_fd, uint64_t *ret_gen)
{
	return range_fd(s, b, off, len, GATE_UNCHECKED, ret_fd, ret_gen);
}

/* True if range_fd() would block: only at a miss or a first use. */
static bool range_blocks(struct blob *b, uint64_t off, uint64_t len)
{
	uint32_t last = (uint32_t)((off + len - 1) >> CHUNK_SHIFT);

	if (len == 0 || !in_range(b, off, len))
		return true;
	if (LOAD_ACQ(&b->external))
		return false;
	if (LOAD_ACQ(&b->fd) < 0)
		return true;
	for (uint32_t c = (uint32_t)(off >> CHUNK_SHIFT); c <= last; c++) {
		struct seg *g = seg_of(b, c);

		if (!g || !bit_get(g->present, c % INDEX_SEG) ||
		    !bit_get(g->checked, c % INDEX_SEG))
			return true;
	}
	return false;
}

int store_range_fd_now(struct store *s, struct blob *b, uint64_t off,
		       uint64_t len, int *ret_fd, uint64_t *ret_gen)
{
	return range_blocks(b, off, len)
		       ? -EBUSY
		       : store_range_fd(s, b, off, len, ret_fd, ret_gen);
}

int store_range_fd_unchecked(struct store *s, struct blob *b, uint64_t off,
			     uint64_t len, bool now, int *ret_fd,
			     uint64_t *ret_gen)
{
	if (now && range_blocks(b, off, len))
		return -EBUSY;
	return range_fd(s, b, off, len, GATE_FAILED, ret_fd, ret_gen);
}

bool store_gen_ok(struct blob *b, uint64_t gen)
{
	return !gen_moved(b, gen);
}

void store_range_done(struct blob *b)
{
	blob_fd_put(b);
}

int store_hold(struct blob *b, uint64_t off, uint64_t len, uint64_t gen,
	       struct store_hold *h)
{
	bool same;

	*h = (struct store_hold){
		.first = (uint32_t)(off >> CHUNK_SHIFT),
		.last = (uint32_t)((off + len - 1) >> CHUNK_SHIFT),
	};
	store_lock(b->store);
	same = LOAD(&b->gen) == gen;
	if (same)
		list_add_tail(&b->holds, &h->node);
	store_unlock(b->store);
	return same ? 0 : -EAGAIN;
}

bool store_unhold(struct blob *b, struct store_hold *h)
{
	store_lock(b->store);
	list_del(&h->node);
	if (b->punch_waits && list_empty(&b->holds)) {
		b->punch_waits = false;
		blob_dirty_locked(b);
	}
	store_unlock(b->store);
	return !h->broken;
}

/* ---- Writing ---- */

static int pwrite_all(int fd, const void *data, size_t len, uint64_t off)
{
	const uint8_t *p = data;

	while (len > 0) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		off += (size_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int claim(struct store *s, struct blob *b, uint32_t chunk)
{
	uint32_t i = chunk % INDEX_SEG;
	struct seg *g;
	int r = 0;

	store_lock(s);
	g = seg_make_locked(b, chunk >> INDEX_SEG_SHIFT);
	if (!g) {
		store_unlock(s);
		return -ENOMEM;
	}
	while (bit_get(g->claimed, i))
		(void)pthread_cond_wait(&s->changed, &s->mu);
	if (bit_get(g->present, i))
		r = -EEXIST;
	else if (LOAD(&b->state) == BLOB_BAD)
		r = -EIO;
	else
		bit_set(g->claimed, i);
	store_unlock(s);
	return r;
}

static void unclaim(struct store *s, struct blob *b, uint32_t chunk)
{
	store_lock(s);
	bit_clear(seg_of(b, chunk)->claimed, chunk % INDEX_SEG);
	if (LOAD(&b->npresent) == 0) /* its file holds nothing */
		blob_dirty_locked(b);
	(void)pthread_cond_broadcast(&s->changed);
	store_unlock(s);
}

static void publish(struct store *s, struct blob *b, uint32_t chunk,
		    uint32_t crc, uint16_t from)
{
	uint32_t i = chunk % INDEX_SEG, len = blob_chunk_len(b, chunk);
	uint32_t now = store_tick(s);
	struct seg *g;

	store_lock(s);
	g = seg_of(b, chunk);
	STORE(&g->crc[i], crc);
	g->from[i] = LOAD(&b->proven) ? CHUNK_FROM_VERIFIED : from;
	STORE(&g->used[i], now);
	STORE(&b->used, now);
	bit_clear(g->punch, i);
	bit_clear(g->claimed, i);
	bit_set(g->dirty, i);
	/* The bytes of a proven blob are the same ones. */
	if (!LOAD(&b->proven))
		holds_break_locked(b, chunk);
	bit_set(g->checked, i);
	if (LOAD(&b->npresent) == 0)
		blob_segs_changed_locked(b);
	if (LOAD(&b->npresent) + 1 == b->chunks)
		gate_locked(b);
	blob_sure_locked(b);
	bit_set(g->present, i);
	ADD(&b->npresent, 1);
	ADD(&b->cached_bytes, len);
	ADD(&s->cached_bytes, len);
	blob_dirty_locked(b);
	if (LOAD(&b->external)) /* it became external during the write */
		chunk_drop_locked(b, chunk);
	sum_kick_locked(b);
	(void)pthread_cond_broadcast(&s->changed);
	store_unlock(s);
}

/* Asks the commit thread to evict bytes, or whole blobs where not even a file
 * could be made: without free inodes no number of bytes helps. False: nothing
 * could be evicted. */
static bool make_room(struct store *s, bool file)
{
	bool got;

	store_lock(s);
	if (file)
		s->evict_files = ENOSPC_EVICT_FILES;
	else
		s->evict_wanted = ENOSPC_EVICT_BYTES;
	store_unlock(s);
	(void)commit_wait(s);
	store_lock(s);
	got = s->evict_got > 0;
	store_unlock(s);
	return got;
}

/* Writers that are faster than the disk wait here for the commit thread.
 * Otherwise the cache and the number of open files would grow without bounds
 * during its flush. Evicted chunks take room until the flush and the commit
 * have ended. */
static void keep_to_limit(struct store *s)
{
	uint64_t slack = max_u64(MIN_SLACK_BYTES, s->max_bytes / 8);
	uint64_t used = LOAD(&s->cached_bytes) + LOAD(&s->unpunched_bytes);

	if ((s->max_bytes && used > s->max_bytes + slack) || too_many_files(s))
		(void)commit_wait(s);
}

static void write_failed(struct store *s, int r)
{
	static struct log_limit limit;

	ADD(&s->write_errors, 1);
	if (log_limit_ok(&limit, 1, 60000))
		log_error("cannot write to the cache; "
			  "reads are served but not cached",
			  LE(r));
}

int store_write(struct store *s, struct blob *b, uint32_t chunk,
		const void *data, size_t len, uint16_t from)
{
	uint64_t off = chunk * CHUNK_SIZE;
	int fd, r;

	if (chunk >= b->chunks || len != blob_chunk_len(b, chunk))
		return -EINVAL;
	if (LOAD_ACQ(&b->external))
		return -EEXIST;
	r = blob_proven(b) ? chunk_prove(b, chunk, data) : 0;
	if (r < 0)
		return r;
	keep_to_limit(s);
	r = claim(s, b, chunk);
	if (r < 0)
		return r;
	for (int tries = 0;; tries++) {
		fd = blob_fd(b, true);
		r = fd < 0 ? fd : pwrite_all(fd, data, len, off);
		if ((r != -ENOSPC && r != -EDQUOT) || tries > 0 ||
		    !make_room(s, fd < 0))
			break;
		if (fd >= 0)
			blob_fd_put(b);
	}
	if (r < 0) {
		/* Frees the space of the bytes written before the error. */
		if (fd >= 0) {
			(void)fallocate(
				fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)off, (off_t)len);
			blob_fd_put(b);
		}
		unclaim(s, b, chunk);
		write_failed(s, r);
		return r;
	}
	publish(s, b, chunk, crc32c(0, data, len), from);
	blob_fd_put(b); /* from now on the dirty chunk keeps the file open */
	return 0;
}
