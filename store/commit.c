/* The commit thread: makes written chunks durable in batches, and evicts.
 *
 * A cycle takes all changed blobs, flushes their files, writes one index
 * transaction, and then frees the disk space of the chunks that this
 * transaction removed; a file whose last chunk it removed is unlinked. Changes
 * made meanwhile wait for the next cycle. */
#include "store/store-private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#define RETRY_MS	1000
#define MAX_DIRTY_BLOBS 256

void blob_dirty_locked(struct blob *b)
{
	struct store *s = b->store;

	if (b->in_dirty)
		return;
	b->in_dirty = true;
	blob_ref_locked(b);
	list_add_tail(&s->dirty, &b->dirty);
	if (s->ndirty++ == 0) {
		s->first_dirty_ms = now_ms();
		(void)pthread_cond_signal(&s->commit_wake);
	} else if (s->ndirty == MAX_DIRTY_BLOBS) {
		(void)pthread_cond_signal(&s->commit_wake);
	}
}

int commit_wait(struct store *s)
{
	uint64_t want;
	int r;

	store_lock(s);
	want = s->cycle_started + 1;
	if (s->cycle_wanted < want)
		s->cycle_wanted = want;
	(void)pthread_cond_signal(&s->commit_wake);
	while (s->cycle_done < want)
		(void)pthread_cond_wait(&s->cycle_end, &s->mu);
	r = s->cycle_result;
	store_unlock(s);
	return r;
}

int store_sync(struct store *s)
{
	return commit_wait(s);
}

/* ---- Files ---- */

static void fsync_at(struct store *s, const char *path, size_t len)
{
	char dir[FILE_PATH_SIZE];
	CLEANUP(closep) int fd = -1;

	(void)snprintf(dir, sizeof(dir), "%.*s", (int)len, path);
	fd = openat(s->dirfd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		(void)fsync(fd);
}

/* Makes a new file's name as durable as its bytes. */
static void sync_name(struct store *s, struct blob *b)
{
	char path[FILE_PATH_SIZE];
	char *end;

	(void)blob_path(&b->key, path);
	end = strrchr(path, '/');
	fsync_at(s, path, (size_t)(end - path));
	*end = '\0';
	end = strrchr(path, '/');
	fsync_at(s, path, (size_t)(end - path));
}

/* Moves b's dirty chunks to `syncing`. True: there are any. mu is held. */
static bool take_dirty(struct blob *b)
{
	uint64_t any = 0;

	for (uint32_t k = 0; k < b->nsegs; k++) {
		struct seg *g = seg_at(b, k);

		for (int i = 0; g && i < SEG_WORDS; i++) {
			g->syncing[i] |= g->dirty[i];
			any |= g->syncing[i];
			if (g->dirty[i])
				g->changed = true;
			g->dirty[i] = 0;
		}
	}
	return any != 0;
}

static void drop_syncing(struct store *s, struct blob *b)
{
	store_lock(s);
	for (uint32_t c = 0; c < b->chunks; c++) {
		struct seg *g = seg_of(b, c);

		if (!g)
			c |= INDEX_SEG - 1;
		else if (bit_get(g->syncing, c % INDEX_SEG))
			blob_damaged_locked(b, c);
	}
	store_unlock(s);
}

static void sync_file(struct store *s, struct blob *b)
{
	static struct log_limit limit;
	bool any, made;
	int fd, r;

	store_lock(s);
	any = take_dirty(b);
	made = b->made;
	b->made = false;
	store_unlock(s);
	if (made)
		sync_name(s, b);
	if (!any)
		return;
	fd = blob_fd(b, false);
	r = fd < 0 ? fd : 0;
	if (fd >= 0) {
		if (fdatasync(fd) == -1)
			r = -errno;
		blob_fd_put(b);
	}
	if (r == 0)
		return;
	/* The kernel may have discarded the bytes already. */
	drop_syncing(s, b);
	ADD(&s->write_errors, 1);
	if (log_limit_ok(&limit, 1, 60000))
		log_error(
			"cannot flush a cache file; its new chunks are dropped",
			LE(r));
}

/* ---- The index ---- */

/* Writes a segment's record and returns its length; 0: nothing to keep. mu is
 * held. */
static size_t encode_seg(const struct blob *b, const struct seg *g,
			 uint8_t *out)
{
	/* The proof goes with the blob's last chunk. */
	bool proof = LOAD(&b->proven) && LOAD(&b->npresent) > 0 && g->sums;
	bool any = proof;

	memset(out, 0, INDEX_SEG_BYTES(g->n));
	for (uint32_t i = 0; i < g->n; i++) {
		if (!bit_get(g->durable, i))
			continue;
		any = true;
		out[i / 8] |= (uint8_t)(1u << (i % 8));
		put_le(out + 32 + (size_t)4 * i, g->crc[i], 4);
		put_le(out + 32 + (size_t)4 * g->n + (size_t)2 * i, g->from[i],
		       2);
	}
	if (!any)
		return 0;
	if (!proof)
		return INDEX_SEG_BYTES(g->n);
	memcpy(out + INDEX_SEG_BYTES(g->n), g->sums, g->n * sizeof(*g->sums));
	return INDEX_SEG_FULL(g->n);
}

/* Makes the flushed chunks of a segment durable. mu is held. */
static void promote(struct blob *b, struct seg *g, uint32_t first)
{
	for (uint32_t i = 0; i < g->n; i++) {
		if (!bit_get(g->syncing, i))
			continue;
		if (!bit_get(g->durable, i))
			b->durable_bytes += blob_chunk_len(b, first + i);
		bit_set(g->durable, i);
	}
	memset(g->syncing, 0, sizeof(g->syncing));
}

/* Adds one segment's record. True: the segment had new chunks. */
static bool put_seg(struct store *s, struct blob *b, uint32_t k,
		    struct index_batch *batch)
{
	uint8_t key[INDEX_BKEY + 4], rec[INDEX_SEG_FULL(INDEX_SEG)];
	bool changed, fresh = false;
	struct seg *g = seg_at(b, k);
	size_t len = 0;

	if (!g)
		return false;
	store_lock(s);
	for (int i = 0; i < SEG_WORDS; i++)
		fresh |= g->syncing[i] != 0;
	changed = g->changed;
	if (changed) {
		promote(b, g, k * INDEX_SEG);
		len = encode_seg(b, g, rec);
		g->changed = false;
	}
	store_unlock(s);
	if (!changed)
		return false;
	bkey_of(&b->key, key);
	for (int i = 0; i < 4; i++)
		key[INDEX_BKEY + i] = (uint8_t)(k >> (24 - 8 * i));
	if (len > 0)
		index_put(batch, INDEX_CHUNKS, key, sizeof(key), rec, len);
	else
		index_del(batch, INDEX_CHUNKS, key, sizeof(key));
	return fresh;
}

static void put_origins(struct store *s, struct blob *b,
			const uint8_t bkey[INDEX_BKEY],
			struct index_batch *batch)
{
	CLEANUP(buf_release)
	struct buf v = BUF_INIT(MAX_ORIGINS * (MAX_ORIGIN_BYTES + 1));
	bool changed;
	int r = 0;

	store_lock(s);
	changed = b->origins_changed;
	b->origins_changed = false;
	for (size_t i = 0; changed && r == 0 && i < b->origins.n; i++)
		r = buf_add(&v, b->origins.v[i], strlen(b->origins.v[i]) + 1);
	store_unlock(s);
	if (r < 0)
		batch->error = r;
	else if (changed && v.len > 0)
		index_put(batch, INDEX_ORIGINS, bkey, INDEX_BKEY, v.data,
			  v.len);
}

/* Adds b's records. True: chunks of b become durable with them. */
static bool put_blob(struct store *s, struct blob *b, struct index_batch *batch)
{
	uint8_t bkey[INDEX_BKEY];
	struct index_blob rec;
	bool fresh = false, unsure;

	bkey_of(&b->key, bkey);
	store_lock(s);
	unsure = b->unsure;
	store_unlock(s);
	if (unsure)
		return false;
	for (uint32_t k = 0; k < b->nsegs; k++)
		fresh |= put_seg(s, b, k, batch);
	put_origins(s, b, bkey, batch);
	store_lock(s);
	rec = (struct index_blob){.size = b->size,
				  .last_use_s = blob_last_use_s(b),
				  .cached_bytes = b->durable_bytes,
				  .state = LOAD(&b->state)};
	/* Without chunks no proof is kept. */
	if (rec.state == BLOB_VERIFIED && b->chunks > 0 &&
	    LOAD(&b->npresent) == 0)
		rec.state = BLOB_PROVISIONAL;
	b->rec_changed = false;
	b->rec_last_use_s = rec.last_use_s;
	b->indexed = true;
	store_unlock(s);
	index_put_blob(batch, bkey, &rec);
	return fresh;
}

/* Adds the last uses: of blobs in memory, and those that were noted. */
static void put_touches(struct store *s, struct index_batch *batch)
{
	struct touch *t;
	unsigned int n;

	store_lock(s);
	for (size_t h = 0; h < HASH_SIZE; h++) {
		for (struct blob *b = s->hash[h]; b; b = b->next) {
			uint8_t bkey[INDEX_BKEY];
			uint64_t last;

			if (b->loading || !b->indexed)
				continue;
			last = blob_last_use_s(b);
			if (last <= b->rec_last_use_s)
				continue;
			b->rec_last_use_s = last;
			bkey_of(&b->key, bkey);
			index_touch(batch, INDEX_BLOBS, bkey, sizeof(bkey),
				    last);
		}
	}
	t = s->touches;
	n = s->ntouches;
	s->touches = NULL;
	s->ntouches = 0;
	store_unlock(s);
	for (unsigned int i = 0; i < n; i++)
		index_touch(batch, t[i].db, t[i].key, t[i].key_len,
			    t[i].last_use_s);
	free(t);
}

void write_touches(struct store *s)
{
	struct index_batch batch;

	index_batch_init(&batch);
	put_touches(s, &batch);
	/* A last use that is lost only changes an order. */
	(void)index_write(s->ix, &batch);
	index_batch_release(&batch);
}

static void put_peers(struct store *s, struct index_batch *batch,
		      unsigned int *ret_saved)
{
	store_lock(s);
	for (unsigned int i = s->npeers_saved; i < s->npeers; i++) {
		unsigned int id = i + 1;
		uint8_t key[2] = {(uint8_t)(id >> 8), (uint8_t)id};

		index_put(batch, INDEX_PEERS, key, sizeof(key), s->peers[i],
			  strlen(s->peers[i]));
	}
	*ret_saved = s->npeers;
	store_unlock(s);
}

/* ---- A cycle ---- */

static void punch(int fd, uint64_t off, uint64_t len)
{
	static struct log_limit limit;

	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)off, (off_t)len) == -1 &&
	    log_limit_ok(&limit, 1, 3600000))
		log_warn("cannot free the disk space of evicted chunks",
			 LE(-errno));
}

/* The segment's chunks that are being sent. */
static void held_bits_locked(struct blob *b, uint32_t k,
			     uint64_t held[SEG_WORDS])
{
	list_for_each (n, &b->holds) {
		const struct store_hold *h =
			list_entry(n, struct store_hold, node);

		for (uint32_t c = h->first; c <= h->last; c++)
			if (c / INDEX_SEG == k)
				bit_set(held, c % INDEX_SEG);
		b->punch_waits = true;
	}
}

/* Frees the disk space of dropped chunks that are no longer in the index. */
static void punch_seg(struct store *s, struct blob *b, uint32_t k)
{
	uint64_t mine[SEG_WORDS] = {0}, held[SEG_WORDS] = {0};
	struct seg *g = seg_at(b, k);
	uint64_t any = 0;
	int fd;

	if (!g)
		return;
	store_lock(s);
	held_bits_locked(b, k, held);
	for (int i = 0; i < SEG_WORDS && !g->changed; i++) {
		mine[i] = g->punch[i] & ~g->present[i] & ~g->claimed[i] &
			  ~held[i];
		g->claimed[i] |= mine[i];
		g->punch[i] &= ~mine[i];
		any |= mine[i];
	}
	store_unlock(s);
	if (!any)
		return;
	fd = blob_fd(b, false);
	for (uint32_t i = 0; fd >= 0 && i < g->n;) {
		uint32_t end = i;

		while (end < g->n && mine[end / 64] >> (end % 64) & 1)
			end++;
		if (end > i)
			punch(fd, (k * INDEX_SEG + i) * CHUNK_SIZE,
			      (end - i) * CHUNK_SIZE);
		i = end + 1;
	}
	if (fd >= 0)
		blob_fd_put(b);
	store_lock(s);
	for (int i = 0; i < SEG_WORDS; i++)
		g->claimed[i] &= ~mine[i];
	(void)pthread_cond_broadcast(&s->changed);
	store_unlock(s);
}

static void send_events(struct store *s, struct blob *b, bool fresh)
{
	unsigned int dropped;
	bool held, empty;

	store_lock(s);
	dropped = b->ev_dropped;
	b->ev_dropped = 0;
	empty = LOAD(&b->npresent) == 0 && !LOAD(&b->external);
	store_unlock(s);
	held = b->ev_held || fresh;
	b->ev_held = held && !empty;
	if (!s->event)
		return;
	for (unsigned int i = 0; i < dropped; i++)
		s->event(s->event_arg, b, BLOB_EV_DROPPED);
	if (fresh)
		s->event(s->event_arg, b, BLOB_EV_COMMITTED);
	if (held && empty)
		s->event(s->event_arg, b, BLOB_EV_EMPTIED);
}

/* After a failed index write: queues all of b's records again. */
static void requeue(struct store *s, struct blob *b)
{
	store_lock(s);
	for (uint32_t k = 0; k < b->nsegs; k++)
		if (seg_at(b, k))
			seg_at(b, k)->changed = true;
	b->rec_changed = b->origins_changed = true;
	blob_dirty_locked(b);
	s->retry_ms = now_ms() + RETRY_MS;
	store_unlock(s);
}

static void finish(struct store *s, struct list *batch, int r)
{
	static struct log_limit limit;

	if (r < 0) {
		ADD(&s->write_errors, 1);
		if (log_limit_ok(&limit, 1, 60000))
			log_error("cannot write the cache index", LE(r));
	}
	while (!list_empty(batch)) {
		struct blob *b = list_first(batch, struct blob, cycle);
		bool fresh = b->fresh;

		list_del(&b->cycle);
		store_lock(s);
		b->in_cycle = false;
		store_unlock(s);
		if (r < 0)
			requeue(s, b);
		else if (!blob_unlink_empty(b))
			for (uint32_t k = 0; k < b->nsegs; k++)
				punch_seg(s, b, k);
		send_events(s, b, fresh && r == 0);
		blob_unref(&b);
	}
}

static int run_cycle(struct store *s, bool housekeep)
{
	struct index_batch batch;
	struct list blobs;
	unsigned int npeers;
	int r = 0;

	list_init(&blobs);
	index_batch_init(&batch);
	store_lock(s);
	while (!list_empty(&s->dirty)) {
		struct blob *b = list_first(&s->dirty, struct blob, dirty);

		list_del(&b->dirty);
		list_add_tail(&blobs, &b->cycle);
		b->in_dirty = false;
		b->in_cycle = true;
	}
	s->ndirty = 0;
	s->retry_ms = 0;
	store_unlock(s);

	list_for_each (n, &blobs) {
		sync_file(s, list_entry(n, struct blob, cycle));
	}
	list_for_each (n, &blobs) {
		struct blob *b = list_entry(n, struct blob, cycle);

		b->fresh = put_blob(s, b, &batch);
	}
	put_peers(s, &batch, &npeers);
	if (housekeep)
		put_touches(s, &batch);
	if (batch.n > 0 || batch.error < 0) {
		r = index_write(s->ix, &batch);
		if (r == 0)
			ADD(&s->commits, 1);
	}
	index_batch_release(&batch);
	if (r == 0) {
		store_lock(s);
		s->npeers_saved = npeers;
		store_unlock(s);
	}
	finish(s, &blobs, r);
	return r;
}

/* Returns when the next cycle is due; mu is held. */
static uint64_t due_ms(const struct store *s)
{
	uint64_t t = s->housekeep_ms;

	if (s->stop_commit || s->cycle_wanted > s->cycle_started ||
	    s->ndirty >= MAX_DIRTY_BLOBS)
		return s->retry_ms && !s->stop_commit &&
				       s->cycle_wanted <= s->cycle_started
			       ? s->retry_ms
			       : 0;
	if (s->ndirty > 0)
		t = min_u64(t,
			    max_u64(s->first_dirty_ms + s->commit_interval_ms,
				    s->retry_ms));
	if (s->evict_again_ms)
		t = min_u64(t, s->evict_again_ms);
	if (!list_empty(&s->settling))
		t = min_u64(t, list_first(&s->settling, struct blob, settling)
				       ->settle_ms);
	return t;
}

void *commit_main(void *arg)
{
	struct store *s = arg;
	bool stop = false;

	(void)pthread_setname_np(pthread_self(), "commit");
	while (!stop) {
		uint64_t want_room, number, due;
		unsigned int want_files;
		bool housekeep;
		int r;

		store_lock(s);
		while ((due = due_ms(s)) > now_ms())
			cond_wait_until(&s->commit_wake, s, due);
		stop = s->stop_commit;
		number = ++s->cycle_started;
		want_room = s->evict_wanted;
		want_files = s->evict_files;
		s->evict_wanted = 0;
		s->evict_files = 0;
		s->evict_again_ms = 0;
		housekeep = stop || now_ms() >= s->housekeep_ms;
		if (housekeep)
			s->housekeep_ms = now_ms() + HOUSEKEEPING_MS;
		store_unlock(s);

		external_settle(s, stop);
		evict(s, want_room, want_files);
		r = run_cycle(s, housekeep);
		evict_manifests(s);
		STORE(&s->unpunched_bytes, 0);
		if (housekeep && !stop)
			trim_records(s);

		store_lock(s);
		s->cycle_done = number;
		s->cycle_result = r;
		(void)pthread_cond_broadcast(&s->cycle_end);
		store_unlock(s);
	}
	return NULL;
}

void drop_unsaved(struct store *s)
{
	struct blob *b;

	for (;;) {
		store_lock(s);
		if (list_empty(&s->dirty)) {
			store_unlock(s);
			return;
		}
		b = list_first(&s->dirty, struct blob, dirty);
		list_del(&b->dirty);
		b->in_dirty = false;
		store_unlock(s);
		blob_unref(&b);
	}
}
