/* Flights: their buffers, the write to the store, which reads may see their
 * bytes, and the check of the blob's digest. */
#include "fetch/fetch-private.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/log.h"

/* ---- Memory ---- */

static void chunk_buf_free(struct chunk_buf *b)
{
	b->f->buf_bytes -= CHUNK_SIZE;
	(void)munmap(b->data, CHUNK_SIZE);
	free(b);
}

static struct chunk_buf *chunk_buf_new(struct fetch *f)
{
	const int prot = PROT_READ | PROT_WRITE;
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	struct chunk_buf *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	/* cppcheck-suppress invalidFunctionArg ; -1 is what mmap(2) says */
	b->data = mmap(NULL, CHUNK_SIZE, prot, flags, -1, 0);
	if (b->data == MAP_FAILED) {
		free(b);
		return NULL;
	}
	b->f = f;
	f->buf_bytes += CHUNK_SIZE;
	return b;
}

/* Frees one MEMORY flight whose buffer nobody else uses. These flights only
 * save requests. */
static bool reclaim_memory_flight(struct fetch *f)
{
	list_for_each (n, &f->in[FLIGHT_MEMORY]) {
		struct flight *fl = list_entry(n, struct flight, node);

		if (fl->buf->refs == 1) {
			flight_free(fl);
			return true;
		}
	}
	return false;
}

static bool holds_memory(const struct fetch_read *rd)
{
	for (int i = 0; i < 2; i++)
		if (rd->wait[i].buf && rd->wait[i].buf->refs == 1)
			return true;
	return false;
}

/* A read over two chunks may hold one buffer while it waits for memory for the
 * other chunk. The youngest such read starts over. The oldest never does, so it
 * makes progress. */
static bool reclaim_from_reads(struct fetch *f)
{
	struct fetch_read *oldest = NULL, *youngest = NULL;

	list_for_each (n, &f->reads) {
		struct fetch_read *rd = list_entry(n, struct fetch_read, node);

		if (!holds_memory(rd))
			continue;
		if (!oldest)
			oldest = rd;
		youngest = rd;
	}
	if (youngest == oldest)
		return false;
	read_again(youngest);
	return true;
}

/* The memory of whoever takes long over what has been in the store since. */
static bool reclaim_from_loans(struct fetch *f)
{
	list_for_each_safe (n, &f->loans) {
		struct chunk_loan *l = list_entry(n, struct chunk_loan, node);

		if (l->buf->refs == 1)
			l->recall(l);
		if (f->pool)
			return true;
	}
	return false;
}

struct chunk_buf *chunk_buf_get(struct fetch *f)
{
	struct chunk_buf *b;

	if (!f->pool && f->buf_bytes + CHUNK_SIZE <= f->cfg.memory_bytes) {
		b = chunk_buf_new(f);
		if (b) {
			b->refs = 1;
			return b;
		}
	}
	while (!f->pool)
		if (!reclaim_memory_flight(f) && !reclaim_from_loans(f) &&
		    !reclaim_from_reads(f))
			return NULL;
	b = f->pool;
	f->pool = b->next;
	b->refs = 1;
	return b;
}

struct chunk_buf *chunk_buf_ref(struct chunk_buf *b)
{
	b->refs++;
	return b;
}

void chunk_buf_unref(struct chunk_buf **bp)
{
	struct chunk_buf *b = *bp;
	struct fetch *f;

	*bp = NULL;
	if (!b || --b->refs > 0)
		return;
	f = b->f;
	if (f->stopping) {
		chunk_buf_free(b);
		return;
	}
	/* A fresh page costs a page fault: buffers stay in the pool until there
	 * is no work, see on_tick(). */
	b->next = f->pool;
	f->pool = b;
	if (f->npaused)
		kick(f);
	arm_tick(f);
}

void chunk_lend(struct chunk_loan *l, struct chunk_buf *b,
		void (*recall)(struct chunk_loan *l))
{
	l->buf = chunk_buf_ref(b);
	l->recall = recall;
	list_add_tail(&b->f->loans, &l->node);
}

void chunk_return(struct chunk_loan *l)
{
	if (!l->buf)
		return;
	list_del(&l->node);
	chunk_buf_unref(&l->buf);
}

void pool_trim(struct fetch *f)
{
	while (f->pool) {
		struct chunk_buf *b = f->pool;

		f->pool = b->next;
		chunk_buf_free(b);
	}
}

/* ---- Blobs ---- */

struct blob_fetch *blob_fetch_get(struct fetch *f, struct blob *b)
{
	struct blob_fetch *bf = blob_user(b);

	if (!bf) {
		bf = calloc(1, sizeof(*bf));
		if (!bf)
			return NULL;
		bf->f = f;
		bf->blob = blob_ref(b);
		list_init(&bf->gated);
		list_add_tail(&f->blobs, &bf->node);
		blob_set_user(b, bf);
	}
	/* The blob was evicted, or it matched in the end. */
	if (!blob_gated(b) && blob_get_state(b) != BLOB_BAD)
		bf->mismatches = bf->peers_mismatches = 0;
	bf->users++;
	return bf;
}

void blob_fetch_put(struct blob_fetch *bf)
{
	BUG_ON(bf->users == 0);
	if (--bf->users > 0 || bf->checking)
		return;
	/* Keeps the record of a mismatch until the blob matches or is
	 * evicted. */
	if (bf->mismatches + bf->peers_mismatches > 0 && blob_gated(bf->blob) &&
	    !bf->f->stopping)
		return;
	BUG_ON(!list_empty(&bf->gated));
	list_del(&bf->node);
	blob_set_user(bf->blob, NULL);
	blob_unref(&bf->blob);
	free(bf);
}

/* ---- Flights ---- */

static struct list *bucket(const struct blob_fetch *bf, uint32_t chunk)
{
	uintptr_t h = (uintptr_t)bf / 64 * 31 + chunk;

	return &bf->f->buckets[h % FLIGHT_BUCKETS];
}

struct flight *flight_find(const struct blob_fetch *bf, uint32_t chunk)
{
	const struct list *head = bucket(bf, chunk);

	list_for_each (n, head) {
		struct flight *fl = list_entry(n, struct flight, hash);

		if (fl->bf == bf && fl->chunk == chunk)
			return fl;
	}
	return NULL;
}

struct flight *flight_new(struct blob_fetch *bf, uint32_t chunk)
{
	struct fetch *f = bf->f;
	struct flight *fl = calloc(1, sizeof(*fl));

	if (!fl)
		return NULL;
	fl->bf = bf;
	bf->users++;
	fl->chunk = chunk;
	fl->len = blob_chunk_len(bf->blob, chunk);
	fl->why = BUF_INIT(WHY_MAX);
	list_init(&fl->waits);
	list_add(bucket(bf, chunk), &fl->hash);
	fl->state = FLIGHT_QUEUED;
	list_add_tail(&f->in[FLIGHT_QUEUED], &fl->node);
	f->n[FLIGHT_QUEUED]++;
	metric_add(f->m_flights, 1);
	arm_tick(f);
	return fl;
}

void flight_move(struct flight *fl, enum flight_state to)
{
	struct fetch *f = fl->bf->f;

	list_del(&fl->node);
	f->n[fl->state]--;
	fl->state = to;
	list_add_tail(&f->in[to], &fl->node);
	f->n[to]++;
}

void flight_free(struct flight *fl)
{
	struct blob_fetch *bf = fl->bf;

	BUG_ON(!list_empty(&fl->waits));
	BUG_ON(fl->writing);
	list_del(&fl->node);
	bf->f->n[fl->state]--;
	list_del(&fl->hash);
	buf_release(&fl->why);
	chunk_buf_unref(&fl->buf);
	source_auth_unref(&fl->auth);
	free(fl);
	blob_fetch_put(bf);
}

static uint32_t count_arrived(const struct flight *fl, enum flight_state state)
{
	uint32_t n = 0;

	list_for_each (it, &fl->bf->f->in[state]) {
		const struct flight *o = list_entry(it, struct flight, node);

		if (o != fl && o->bf == fl->bf &&
		    !blob_has(fl->bf->blob, o->chunk))
			n++;
	}
	return n;
}

/* Whether all other chunks of the blob have arrived, so that this one would
 * complete it. Workers mark chunks present meanwhile. The flights are counted
 * before blob_missing() is read, so a chunk may count twice; this errs on the
 * safe side. */
static bool is_last(const struct flight *fl)
{
	const struct fetch *f = fl->bf->f;
	const struct blob *b = fl->bf->blob;
	uint32_t arrived = !blob_has(b, fl->chunk);

	if (blob_key(b)->kind != BLOB_SHA256 ||
	    blob_missing(b) > f->n[FLIGHT_WRITING] + f->n[FLIGHT_LAST] + 1)
		return false;
	arrived += count_arrived(fl, FLIGHT_WRITING);
	arrived += count_arrived(fl, FLIGHT_LAST);
	return blob_missing(b) <= arrived;
}

bool flight_shows(const struct flight *fl)
{
	const struct blob *b = fl->bf->blob;

	if (blob_key(b)->kind != BLOB_SHA256)
		return true;
	if (fl->state == FLIGHT_MEMORY && blob_chunks(b) == 1)
		return true; /* write_work() checked the digest */
	/* store_write() checks each chunk of a proven blob first. */
	if (blob_proven(b))
		return fl->state == FLIGHT_MEMORY;
	if (blob_gated(b))
		return false;
	return fl->state == FLIGHT_MEMORY || !is_last(fl) ||
	       blob_unsummed_bytes(b) > STORE_GATE_MAX;
}

/* shown: to all reads; else only to unchecked reads of members, which check the
 * blob themselves. */
static void serve_waits(struct flight *fl, bool shown)
{
	list_for_each_safe (n, &fl->waits) {
		struct fetch_wait *w = list_entry(n, struct fetch_wait, node);

		if (w->need > fl->have)
			return;
		if (shown || (w->rd->unchecked && read_sees(w->rd, fl)))
			read_take(w, fl);
	}
}

void flight_progress(struct flight *fl)
{
	const struct fetch_wait *w;

	if (list_empty(&fl->waits))
		return;
	w = list_first(&fl->waits, struct fetch_wait, node);
	if (w->need <= fl->have)
		serve_waits(fl, flight_shows(fl));
}

void flight_forget_bytes(struct flight *fl)
{
	/* Does not reuse the buffer: a reader may hold a reference. */
	chunk_buf_unref(&fl->buf);
	fl->have = 0;
}

void flight_fail(struct flight *fl, int r)
{
	while (!list_empty(&fl->waits))
		read_fail(list_first(&fl->waits, struct fetch_wait, node)->rd,
			  r);
	flight_free(fl);
}

/* ---- Credentials ----
 *
 * One flight serves all reads of a chunk, so a request carries one credential
 * at a time. Reads without a credential profit from reads with one. If upstream
 * refuses a credential, those of the other reads are tried. */

void flight_choose_auth(struct flight *fl)
{
	if (fl->auth && now_ms() < fl->auth->until_ms)
		return;
	source_auth_unref(&fl->auth);
	list_for_each (n, &fl->waits) {
		const struct fetch_read *rd =
			list_entry(n, struct fetch_wait, node)->rd;

		if (rd->auth) {
			fl->auth = source_auth_ref(rd->auth);
			return;
		}
	}
}

bool flight_refuse(struct flight *fl, int r)
{
	list_for_each_safe (n, &fl->waits) {
		struct fetch_read *rd =
			list_entry(n, struct fetch_wait, node)->rd;

		if (source_auth_same(rd->auth, fl->auth))
			read_fail(rd, r);
	}
	source_auth_unref(&fl->auth);
	return !list_empty(&fl->waits);
}

void flight_send_members_away(struct flight *fl)
{
	list_for_each_safe (n, &fl->waits) {
		struct fetch_read *rd =
			list_entry(n, struct fetch_wait, node)->rd;

		if (rd->as_owner)
			read_finish(rd, -EBUSY);
	}
	fl->as_owner = false;
}

/* ---- Wrong bytes ---- */

/* Some chunks came from members, so the mismatch says nothing about
 * upstream. */
static void log_peers_mismatch(const struct blob *b)
{
	char s[DIGEST_STR_SIZE];

	log_error("blob does not match its digest",
		  LS("digest", digest_str(&blob_key(b)->id, s)),
		  LS("then", "the chunks from members are fetched again "
			     "from upstream"));
}

static void log_mismatch(const struct blob *b, unsigned int times, bool bad)
{
	char s[DIGEST_STR_SIZE];

	log_error("blob does not match its digest",
		  LS("digest", digest_str(&blob_key(b)->id, s)),
		  LU("times", times),
		  LS("then", bad ? "the blob is marked bad"
				 : "the blob is fetched again"));
}

/* The number of places that the blob can be fetched from. */
static uint32_t count_origins(struct blob *b)
{
	CLEANUP(string_list_release) struct string_list l = {0};

	return blob_origins(b, &l) == 0 ? (uint32_t)l.n : 0;
}

static void refetch(struct blob_fetch *bf)
{
	fetch_prefetch(bf->f, bf->blob, 0, blob_size(bf->blob));
}

/* ---- To the store ---- */

/* On a worker. */
static void write_work(struct loop_job *j)
{
	struct flight *fl = container_of(j, struct flight, job);
	struct blob *b = fl->bf->blob;
	int r = store_write(fl->bf->f->cfg.store, b, fl->chunk, fl->buf->data,
			    fl->len, fl->from);

	fl->write_result = r;
	if (r < 0 && r != -EEXIST && blob_key(b)->kind == BLOB_SHA256 &&
	    blob_chunks(b) == 1) {
		struct digest d;

		/* The store will never have the whole blob to check. */
		digest_of(fl->buf->data, fl->len, &d);
		fl->digest_ok = digest_equal(&d, &blob_key(b)->id);
	}
}

/* Attaches the waiting reads again: most find the chunk in the store, some wait
 * for the blob's check. r: 0, or the error that kept the chunk out of the
 * store. */
static void release_waits(struct flight *fl, int r)
{
	while (!list_empty(&fl->waits)) {
		struct fetch_read *rd =
			list_first(&fl->waits, struct fetch_wait, node)->rd;

		if (r < 0 && rd->stored)
			read_fail(rd, r);
		else
			read_again(rd);
	}
}

static void stored(struct flight *fl)
{
	struct blob_fetch *bf = fl->bf;
	uint32_t chunk = fl->chunk;

	/* Do not serve the buffer if the write gave -EEXIST: the store may have
	 * other bytes. Do not serve it either if the chunk is absent again: the
	 * blob may have failed its digest and been evicted since, which opens
	 * the gate. Check the gate first; the chunk does not come back between
	 * the two checks. */
	if (fl->write_result == 0)
		serve_waits(fl,
			    !blob_gated(bf->blob) && blob_has(bf->blob, chunk));
	release_waits(fl, 0);
	flight_free(fl);
	/* The mismatch was handled before this write was reported. The refetch
	 * left out this chunk, which had a flight then. */
	if (bf->mismatches + bf->peers_mismatches > 0 &&
	    blob_get_state(bf->blob) != BLOB_BAD && blob_failed(bf->blob) &&
	    !blob_has(bf->blob, chunk))
		refetch(bf);
}

/* The bytes of a blob of one chunk, which could not be written, are wrong. Only
 * upstream's count as a try. */
static void not_matching(struct flight *fl)
{
	struct blob *b = fl->bf->blob;
	bool bad = false;

	if (fl->from == CHUNK_FROM_UPSTREAM) {
		fl->mismatches++;
		bad = fl->mismatches >= max_u32(2, count_origins(b));
		log_mismatch(b, fl->mismatches, bad);
	}
	if (bad) {
		blob_set_bad(fl->bf->f->cfg.store, b);
		flight_fail(fl, -EBADMSG);
		return;
	}
	flight_lied(fl);
}

static void not_stored(struct flight *fl, int r)
{
	struct blob *b = fl->bf->blob;
	struct fetch *f = fl->bf->f;

	if (blob_get_state(b) == BLOB_BAD) {
		flight_fail(fl, -EBADMSG);
	} else if (r == -EBADMSG) {
		flight_lied(fl);
	} else if (r == -ENOMEM && blob_proven(b)) {
		flight_fail(fl, r); /* nobody has looked at them */
	} else if (blob_chunks(b) == 1 && !fl->digest_ok &&
		   blob_key(b)->kind == BLOB_SHA256) {
		not_matching(fl);
	} else {
		flight_move(fl, FLIGHT_MEMORY);
		flight_progress(fl);
		release_waits(fl, r);
		if (f->n[FLIGHT_MEMORY] > MEMORY_FLIGHTS)
			flight_free(list_first(&f->in[FLIGHT_MEMORY],
					       struct flight, node));
	}
}

static void write_start(struct flight *fl);

/* Writes the last chunk once the blob's other chunks are in the store; the
 * store then closes the gate at this write. If it were written earlier it could
 * be read from the store, while another chunk, still being written, may have
 * been shown from its buffer: a reader would have the whole unchecked blob. */
static void write_last(struct blob_fetch *bf)
{
	struct fetch *f = bf->f;

	list_for_each_safe (n, &f->in[FLIGHT_LAST]) {
		struct flight *fl = list_entry(n, struct flight, node);

		if (bf->nwriting > 0)
			break;
		if (fl->bf != bf)
			continue;
		if (f->stopping)
			flight_free(fl);
		else
			write_start(fl);
	}
}

static void write_done(struct loop_job *j)
{
	struct flight *fl = container_of(j, struct flight, job);
	struct blob_fetch *bf = fl->bf;
	struct fetch *f = bf->f;
	int r = fl->write_result;

	bf->users++;
	bf->nwriting--;
	fl->writing = false;
	if (f->stopping)
		flight_free(fl);
	else if (r == 0 || r == -EEXIST)
		stored(fl);
	else
		not_stored(fl, r);
	write_last(bf);
	blob_fetch_put(bf);
	kick(f);
}

static void write_start(struct flight *fl)
{
	fl->writing = true;
	fl->bf->nwriting++;
	flight_move(fl, FLIGHT_WRITING);
	loop_work(fl->bf->f->cfg.loop, &fl->job, write_work, write_done);
}

void flight_received(struct flight *fl)
{
	fl->run = NULL;
	source_auth_unref(&fl->auth);
	flight_move(fl, FLIGHT_LAST);
	flight_progress(fl);
	if (is_last(fl))
		write_last(fl->bf);
	else
		write_start(fl);
}

/* ---- The digest's check ---- */

static void check_posted(struct loop_task *t)
{
	struct blob_fetch *bf = container_of(t, struct blob_fetch, checked);
	int r = bf->check_result;

	bf->checking = false;
	bf->users++;
	while (!list_empty(&bf->gated)) {
		struct fetch_read *rd =
			list_first(&bf->gated, struct fetch_wait, node)->rd;

		if (r == 0 || r == -EBADMSG || r == -ENODATA)
			read_again(rd);
		else
			read_fail(rd, r);
	}
	kick(bf->f);
	blob_fetch_put(bf);
}

/* On a store thread, or inside check_start(). */
static void check_ended(void *arg, int r)
{
	struct blob_fetch *bf = arg;

	bf->check_result = r;
	loop_post(bf->f->cfg.loop, &bf->checked);
}

void check_start(struct blob_fetch *bf)
{
	if (bf->checking)
		return;
	bf->checking = true;
	bf->checked.run = check_posted;
	blob_on_verified(bf->f->cfg.store, bf->blob, check_ended, bf);
}

/* The second time comes from another place, if there is one. */
static void blame_upstream(struct blob_fetch *bf)
{
	for (unsigned int i = 0; i < bf->f->nsources; i++) {
		struct source *s = bf->f->sources[i];

		if (s->ops->blame)
			s->ops->blame(s, bf->blob, CHUNK_FROM_UPSTREAM, 0);
	}
}

static void mismatch(struct blob_fetch *bf, bool from_peers)
{
	bool bad;

	if (from_peers && bf->peers_mismatches++ == 0) {
		log_peers_mismatch(bf->blob);
		refetch(bf);
		return;
	}
	bad = ++bf->mismatches >= max_u32(2, count_origins(bf->blob));
	log_mismatch(bf->blob, bf->mismatches, bad);
	if (bad) {
		blob_set_bad(bf->f->cfg.store, bf->blob);
	} else {
		blame_upstream(bf);
		refetch(bf);
	}
}

struct event {
	struct loop_task task;
	struct fetch *f;
	struct blob *blob;
	bool from_peers;
};

static void event_posted(struct loop_task *t)
{
	struct event *e = container_of(t, struct event, task);
	struct fetch *f = e->f;
	struct blob_fetch *bf = NULL;

	if (!f->stopping)
		bf = blob_fetch_get(f, e->blob);
	if (bf) {
		mismatch(bf, e->from_peers);
		blob_fetch_put(bf);
	}
	blob_unref(&e->blob);
	free(e);
	fetch_posted(f);
}

void fetch_store_event(struct fetch *f, struct blob *b, enum blob_event ev)
{
	struct event *e;

	if (ev != BLOB_EV_MISMATCH)
		return;
	e = calloc(1, sizeof(*e));
	if (!e)
		return; /* the gate stays closed all the same */
	e->task.run = event_posted;
	e->f = f;
	e->blob = blob_ref(b);
	for (uint32_t c = 0; !e->from_peers && c < blob_chunks(b); c++)
		e->from_peers = blob_chunk_from(b, c) != CHUNK_FROM_UPSTREAM;
	if (!fetch_post(f, &e->task)) {
		blob_unref(&e->blob);
		free(e);
	}
}
