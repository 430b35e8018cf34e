#include "store/fetch-private.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/log.h"

/* A read's way: WAITING (in f->reads, its waits in flights), GATED (in a
 * blob's list), READY (in f->ready, done() is due). */
enum read_state { READ_NEW, READ_WAITING, READ_GATED, READ_READY };

static struct metric_family m_flights = {
	.name = "peerd_flights_total",
	.help = "Chunks that were fetched because they were absent.",
	.type = METRIC_COUNTER,
};
static struct metric_family m_waits = {
	.name = "peerd_fetch_waits_total",
	.help = "Reads that had to wait for a flight.",
	.type = METRIC_COUNTER,
};
static struct metric_family m_failed = {
	.name = "peerd_failed_reads_total",
	.help = "Reads that no source could satisfy.",
	.type = METRIC_COUNTER,
};

static void arm_tick(struct fetch *f);
static void read_attach(struct fetch_read *rd);
static void check_verified(struct blob_fetch *bf);

/* ---- Memory ---- */

static void chunk_buf_free(struct chunk_buf *b)
{
	b->f->buf_bytes -= CHUNK_SIZE;
	(void)munmap(b->data, CHUNK_SIZE);
	free(b);
}

struct chunk_buf *chunk_buf_get(struct fetch *f)
{
	struct chunk_buf *b = f->pool;

	if (b) {
		f->pool = b->next;
		f->pooled--;
		b->refs = 1;
		return b;
	}
	if (f->buf_bytes + CHUNK_SIZE > f->cfg.memory_bytes) {
		/* Chunks that the store could not keep are a convenience. */
		if (list_empty(&f->memory))
			return NULL;
		flight_free(list_first(&f->memory, struct flight, queue));
		return chunk_buf_get(f);
	}
	b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	b->data = mmap(NULL, CHUNK_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->data == MAP_FAILED) {
		free(b);
		return NULL;
	}
	b->f = f;
	b->refs = 1;
	f->buf_bytes += CHUNK_SIZE;
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
	if (!f->stopping) {
		/* Fresh pages cost a fault each: buffers are kept until all is
		 * quiet, see on_tick(). */
		b->next = f->pool;
		f->pool = b;
		f->pooled++;
	} else {
		chunk_buf_free(b);
	}
	runs_resume(f);
}

static void pool_trim(struct fetch *f)
{
	while (f->pool) {
		struct chunk_buf *b = f->pool;

		f->pool = b->next;
		f->pooled--;
		chunk_buf_free(b);
	}
}

/* ---- Blobs and flights ---- */

static struct blob_fetch *blob_fetch_get(struct fetch *f, struct blob *b)
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
	bf->users++;
	return bf;
}

void blob_fetch_put(struct blob_fetch *bf)
{
	BUG_ON(bf->users == 0);
	bf->users--;
	/* A blob that failed its digest is watched until it is right. */
	if (bf->users || bf->checking || !list_empty(&bf->gated) ||
	    (bf->mismatches && blob_gated(bf->blob) && !bf->f->stopping))
		return;
	list_del(&bf->node);
	blob_set_user(bf->blob, NULL);
	blob_unref(&bf->blob);
	free(bf);
}

static struct list *bucket(struct fetch *f, const struct blob_fetch *bf,
			   uint32_t chunk)
{
	uintptr_t h = (uintptr_t)bf / 64 * 31 + chunk;

	return &f->buckets[h % FLIGHT_BUCKETS];
}

struct flight *flight_find(struct fetch *f, const struct blob_fetch *bf,
			   uint32_t chunk)
{
	const struct list *head = bucket(f, bf, chunk);

	list_for_each (n, head) {
		struct flight *fl = list_entry(n, struct flight, hash);

		if (fl->bf == bf && fl->chunk == chunk)
			return fl;
	}
	return NULL;
}

static struct flight *flight_new(struct blob_fetch *bf, uint32_t chunk)
{
	struct fetch *f = bf->f;
	struct flight *fl = calloc(1, sizeof(*fl));

	if (!fl)
		return NULL;
	fl->bf = bf;
	bf->users++;
	fl->chunk = chunk;
	fl->len = blob_chunk_len(bf->blob, chunk);
	fl->why = BUF_INIT(1024);
	list_init(&fl->waits);
	list_add(bucket(f, bf, chunk), &fl->hash);
	fl->state = FLIGHT_QUEUED;
	list_add_tail(&f->queue, &fl->queue);
	f->nqueued++;
	f->nflights++;
	metric_add(f->m_flights, 1);
	arm_tick(f);
	return fl;
}

void flight_free(struct flight *fl)
{
	struct blob_fetch *bf = fl->bf;
	struct fetch *f = bf->f;

	BUG_ON(!list_empty(&fl->waits));
	BUG_ON(fl->state == FLIGHT_WRITING);
	if (fl->state == FLIGHT_QUEUED || fl->state == FLIGHT_RETRY)
		f->nqueued--;
	else if (fl->state == FLIGHT_MEMORY)
		f->nmemory--;
	list_del(&fl->queue);
	list_del(&fl->hash);
	f->nflights--;
	buf_release(&fl->why);
	chunk_buf_unref(&fl->buf);
	free(fl);
	blob_fetch_put(bf);
}

/* ---- Ends of reads ---- */

static void move_list(struct list *from, struct list *to)
{
	while (!list_empty(from)) {
		struct list *n = from->next;

		list_del(n);
		list_add_tail(to, n);
	}
}

static void run_ready(struct loop_task *t)
{
	struct fetch *f = container_of(t, struct fetch, wake);

	struct list batch;

	/* What becomes ready meanwhile waits for the next turn: a caller that
	 * reads on from done() must not keep the loop from its sockets. */
	f->wake_posted = false;
	list_init(&batch);
	move_list(&f->ready, &batch);
	while (!list_empty(&batch)) {
		struct fetch_read *rd =
			list_first(&batch, struct fetch_read, node);
		struct chunk_buf *held[2] = {NULL, NULL};
		uint32_t n = rd->npieces;

		list_del(&rd->node);
		f->nreads--;
		for (uint32_t i = 0; i < n; i++)
			held[i] = rd->piece[i].buf;
		rd->done(rd, rd->result); /* rd may be gone */
		for (uint32_t i = 0; i < n; i++)
			chunk_buf_unref(&held[i]);
	}
}

static void read_unwait(struct fetch_read *rd)
{
	for (int i = 0; i < 2; i++) {
		struct fetch_wait *w = &rd->wait[i];

		if (w->rd) {
			list_del(&w->node);
			w->rd = NULL;
			w->flight = NULL;
		}
	}
}

static void read_drop_landed(struct fetch_read *rd)
{
	for (int i = 0; i < 2; i++)
		chunk_buf_unref(&rd->wait[i].landed);
}

static struct chunk_buf *read_landed(const struct fetch_read *rd,
				     uint32_t chunk)
{
	for (int i = 0; i < 2; i++)
		if (rd->wait[i].landed && rd->wait[i].landed_chunk == chunk)
			return rd->wait[i].landed;
	return NULL;
}

static void read_finish(struct fetch_read *rd, int r)
{
	struct fetch *f = rd->f;

	if (rd->state == READ_READY)
		return;
	read_unwait(rd);
	read_drop_landed(rd);
	list_del(&rd->node);
	rd->state = READ_READY;
	rd->result = r;
	if (r < 0) {
		/* What was there already was too little. */
		for (uint32_t i = 0; i < rd->npieces; i++)
			chunk_buf_unref(&rd->piece[i].buf);
		rd->npieces = 0;
		f->failed_reads++;
		if (r != -ECANCELED)
			metric_add(f->m_failed_reads, 1);
	}
	list_add_tail(&f->ready, &rd->node);
	if (!f->wake_posted) {
		f->wake_posted = true;
		loop_post(f->cfg.loop, &f->wake);
	}
}

/* Whether the flight's bytes may be shown although the rest of the blob is not
 * checked; see fetch.h, "Never wrong bytes". */
static bool may_serve(const struct flight *fl)
{
	const struct blob_fetch *bf = fl->bf;
	const struct blob *b = bf->blob;
	uint32_t absent;

	if (blob_gated(b))
		return false;
	if (blob_key(b)->kind != BLOB_SHA256 || fl->state == FLIGHT_MEMORY)
		return true;
	/* Chunks of which no byte, or not every byte, has come, besides this
	 * one. A chunk may count as written here and as present there for a
	 * moment; that errs to the safe side. */
	absent = blob_missing(b);
	absent -= (uint32_t)min_u64(absent, bf->writing);
	if (fl->state != FLIGHT_WRITING && absent > 0)
		absent--;
	return absent > 0 || blob_unsummed_bytes(b) > STORE_GATE_MAX;
}

/* Fills rd->piece[] from what is there now. Returns the number of bytes from
 * rd->off on without a gap. */
static uint32_t read_collect(struct fetch_read *rd)
{
	struct fetch *f = rd->f;
	struct blob_fetch *bf = blob_user(rd->blob);
	uint64_t at = rd->off, end = rd->off + rd->len;

	for (uint32_t i = 0; i < rd->npieces; i++)
		chunk_buf_unref(&rd->piece[i].buf);
	rd->npieces = 0;
	rd->got = 0;
	while (at < end) {
		uint32_t c = (uint32_t)(at / CHUNK_SIZE);
		uint32_t o = (uint32_t)(at % CHUNK_SIZE);
		size_t want = min_u64(end - at, CHUNK_SIZE - o);
		struct flight *fl = bf ? flight_find(f, bf, c) : NULL;
		struct fetch_piece *p = &rd->piece[rd->npieces];

		memset(p, 0, sizeof(*p));
		if (!rd->stored && fl && fl->buf && fl->have > o &&
		    may_serve(fl)) {
			p->buf = chunk_buf_ref(fl->buf);
			p->mem = fl->buf->data + o;
			p->len = min_u64(want, fl->have - o);
		} else if (blob_has(rd->blob, c) && !blob_gated(rd->blob)) {
			struct chunk_buf *b = read_landed(rd, c);

			if (b) {
				p->buf = chunk_buf_ref(b);
				p->mem = b->data + o;
			}
			p->len = want;
		} else {
			break;
		}
		rd->npieces++;
		rd->got += (uint32_t)p->len;
		at += p->len;
		if (p->len < want)
			break;
	}
	return rd->got;
}

static bool read_try_finish(struct fetch_read *rd)
{
	if (read_collect(rd) < rd->min)
		return false;
	read_finish(rd, 0);
	return true;
}

static const char *read_why(const struct fetch_read *rd)
{
	for (int i = 0; i < 2; i++) {
		const struct flight *fl =
			rd->wait[i].rd ? rd->wait[i].flight : NULL;

		if (fl && fl->why.len)
			return fl->why.data;
		if (fl && fl->state == FLIGHT_RUNNING)
			return fl->run && fl->run->paused
				       ? "paused for want of memory"
				       : "the reply is still coming";
		if (fl)
			return "waits for its turn";
	}
	return "waits for the digest's check";
}

/* The layer that gives up logs. */
static void log_failed_read(const struct fetch_read *rd, int r)
{
	static struct log_limit limit;
	char hex[DIGEST_STR_SIZE];

	if (!log_limit_ok(&limit, 20, 1000))
		return;
	log_error("read failed",
		  LS("digest", digest_str(&blob_key(rd->blob)->id, hex)),
		  LU("offset", rd->off), LU("length", rd->len),
		  LU("ms", now_ms() - rd->started_ms), LE(r),
		  LS("why", read_why(rd)));
}

/* ---- Flights' progress ---- */

void flight_progress(struct flight *fl)
{
	if (list_empty(&fl->waits) || !may_serve(fl))
		return;
	list_for_each_safe (n, &fl->waits) {
		struct fetch_wait *w = list_entry(n, struct fetch_wait, node);

		if (w->need <= fl->have)
			(void)read_try_finish(w->rd);
	}
}

/* A flight has ended well: they who still wait look again. Most go on with the
 * store, some wait for the check of the whole. */
static void reattach_waits(struct list *waits)
{
	while (!list_empty(waits)) {
		struct fetch_read *rd =
			list_first(waits, struct fetch_wait, node)->rd;

		read_unwait(rd);
		read_attach(rd);
	}
}

static void write_work(struct loop_job *j)
{
	struct flight *fl = container_of(j, struct flight, job);
	struct fetch *f = fl->bf->f;

	fl->write_result = store_write(f->cfg.store, fl->bf->blob, fl->chunk,
				       fl->buf->data, fl->len, fl->from);
}

static void keep_in_memory(struct flight *fl)
{
	struct fetch *f = fl->bf->f;

	list_for_each_safe (n, &fl->waits) {
		struct fetch_read *rd =
			list_entry(n, struct fetch_wait, node)->rd;

		if (rd->stored)
			read_finish(rd, fl->write_result);
	}
	fl->state = FLIGHT_MEMORY;
	list_add_tail(&f->memory, &fl->queue);
	f->nmemory++;
	flight_progress(fl);
	while (f->nmemory > MEMORY_FLIGHTS) {
		struct flight *old =
			list_first(&f->memory, struct flight, queue);

		if (!list_empty(&old->waits))
			break; /* gated; ends at the deadline */
		flight_free(old);
	}
}

static void keep_landed(struct fetch_wait *w, const struct flight *fl)
{
	w->flight = NULL;
	if (w->rd->off + w->rd->min <= ((uint64_t)fl->chunk + 1) * CHUNK_SIZE &&
	    w->rd->off >= (uint64_t)fl->chunk * CHUNK_SIZE)
		return; /* waits for nothing else but the check */
	chunk_buf_unref(&w->landed);
	w->landed = chunk_buf_ref(fl->buf);
	w->landed_chunk = fl->chunk;
}

static void write_done(struct loop_job *j)
{
	struct flight *fl = container_of(j, struct flight, job);
	struct blob_fetch *bf = fl->bf;
	struct fetch *f = bf->f;

	bf->users++;
	bf->writing--;
	fl->state = FLIGHT_RUNNING; /* no longer WRITING: may be freed */
	if (fl->write_result < 0 && fl->write_result != -EEXIST &&
	    !f->stopping) {
		keep_in_memory(fl);
	} else {
		struct list waits;

		list_init(&waits);
		while (!list_empty(&fl->waits)) {
			struct list *n = fl->waits.next;

			list_del(n);
			list_add_tail(&waits, n);
			keep_landed(list_entry(n, struct fetch_wait, node), fl);
		}
		flight_free(fl);
		reattach_waits(&waits);
		check_verified(bf);
	}
	blob_fetch_put(bf);
	runs_schedule(f);
}

void flight_received(struct flight *fl)
{
	struct blob_fetch *bf = fl->bf;

	fl->state = FLIGHT_WRITING;
	fl->run = NULL;
	bf->writing++;
	flight_progress(fl);
	loop_work(bf->f->cfg.loop, &fl->job, write_work, write_done);
}

void flight_fail(struct flight *fl, int r)
{
	while (!list_empty(&fl->waits)) {
		struct fetch_read *rd =
			list_first(&fl->waits, struct fetch_wait, node)->rd;

		log_failed_read(rd, r);
		read_finish(rd, r);
	}
	flight_free(fl);
}

/* ---- The digest's check ---- */

static void refetch_all(struct blob_fetch *bf)
{
	bf->refetch_ms = now_ms();
	fetch_prefetch(bf->f, bf->blob, 0, blob_size(bf->blob));
}

static void on_checked_loop(struct loop_task *t)
{
	struct blob_fetch *bf = container_of(t, struct blob_fetch, checked);
	struct list again;
	int r = bf->check_result;
	bool many = blob_chunks(bf->blob) > 1;

	bf->checking = false;
	bf->users++;
	list_init(&again);
	while (!list_empty(&bf->gated)) {
		struct list *n = bf->gated.next;

		list_del(n);
		list_add_tail(&again, n);
	}
	if (r == -EBADMSG) {
		char s[DIGEST_STR_SIZE];

		bf->mismatches++;
		log_error("blob does not match its digest",
			  LS("digest", digest_str(&blob_key(bf->blob)->id, s)),
			  LU("times", bf->mismatches),
			  LS("then", bf->mismatches > 1
					     ? "it is marked bad"
					     : "it is fetched again"));
		if (bf->mismatches > 1)
			blob_set_bad(bf->f->cfg.store, bf->blob);
	}
	while (!list_empty(&again)) {
		struct fetch_read *rd =
			list_first(&again, struct fetch_read, node);

		list_del(&rd->node);
		rd->state = READ_NEW;
		/* Whoever waits at the end of a longer blob has read from it
		 * before, and what it read was wrong. */
		if (r == -EBADMSG && (many || bf->mismatches > 1))
			read_finish(rd, -EBADMSG);
		else
			read_attach(rd);
	}
	if (r == -EBADMSG && bf->mismatches == 1 && !bf->f->stopping)
		refetch_all(bf);
	blob_fetch_put(bf);
}

/* On a store thread, or on the loop inside check_verified(). */
static void on_checked(void *arg, int r)
{
	struct blob_fetch *bf = arg;

	bf->check_result = r;
	loop_post(bf->f->cfg.loop, &bf->checked);
}

static void check_verified(struct blob_fetch *bf)
{
	if (bf->checking || blob_missing(bf->blob) > 0 ||
	    blob_get_state(bf->blob) != BLOB_PROVISIONAL ||
	    blob_key(bf->blob)->kind != BLOB_SHA256)
		return;
	bf->checking = true;
	bf->checked.run = on_checked_loop;
	blob_on_verified(bf->f->cfg.store, bf->blob, on_checked, bf);
}

/* ---- Reads ---- */

static void wait_for(struct fetch_read *rd, int i, struct flight *fl,
		     uint32_t need)
{
	struct fetch_wait *w = &rd->wait[i];

	w->rd = rd; /* what has landed stays */
	w->flight = fl;
	w->need = need;
	list_add_tail(&fl->waits, &w->node);
}

/* Makes rd wait for whatever it lacks, or finishes it. */
static void read_attach(struct fetch_read *rd)
{
	struct fetch *f = rd->f;
	struct blob_fetch *bf;
	uint64_t end = rd->off + rd->min;
	int nwaits = 0;

	list_del(&rd->node);
	if (f->stopping) {
		read_finish(rd, -ECANCELED);
		return;
	}
	if (blob_get_state(rd->blob) == BLOB_BAD) {
		read_finish(rd, -EBADMSG);
		return;
	}
	if (read_try_finish(rd))
		return;
	bf = blob_fetch_get(f, rd->blob);
	if (!bf) {
		read_finish(rd, -ENOMEM);
		return;
	}
	rd->state = READ_WAITING;
	list_add_tail(&f->reads, &rd->node);
	for (uint64_t at = rd->off; at < end;) {
		uint32_t c = (uint32_t)(at / CHUNK_SIZE);
		uint64_t next = min_u64(((uint64_t)c + 1) * CHUNK_SIZE, end);
		struct flight *fl = flight_find(f, bf, c);

		if (!fl && !blob_has(rd->blob, c)) {
			fl = flight_new(bf, c);
			if (!fl) {
				read_finish(rd, -ENOMEM);
				goto out;
			}
		}
		if (fl && fl->state == FLIGHT_MEMORY && rd->stored) {
			read_finish(rd, fl->write_result);
			goto out;
		}
		if (fl)
			wait_for(rd, nwaits++, fl,
				 (uint32_t)(next - (uint64_t)c * CHUNK_SIZE));
		if (fl &&
		    (fl->state == FLIGHT_QUEUED ||
		     (fl->state == FLIGHT_RETRY && fl->retry_ms <= now_ms())))
			run_start(fl, false);
		at = next;
	}
	if (!nwaits) {
		/* All is there, but not yet checked. */
		rd->state = READ_GATED;
		list_del(&rd->node);
		list_add_tail(&bf->gated, &rd->node);
		check_verified(bf);
		arm_tick(f);
	}
	metric_add(f->m_waits, 1);
out:
	blob_fetch_put(bf);
}

void fetch_read_start(struct fetch *f, struct fetch_read *rd)
{
	uint64_t now = now_ms();

	BUG_ON(rd->len == 0 || rd->len > CHUNK_SIZE ||
	       rd->off + rd->len > blob_size(rd->blob) || rd->min > rd->len);
	rd->f = f;
	rd->npieces = 0;
	rd->got = 0;
	rd->state = READ_NEW;
	rd->started_ms = now;
	if (!rd->min)
		rd->min = rd->len;
	if (!rd->deadline_ms)
		rd->deadline_ms = now + f->cfg.read_timeout_ms;
	memset(rd->wait, 0, sizeof(rd->wait));
	list_init(&rd->node);
	f->nreads++;
	read_attach(rd);
}

void fetch_read_cancel(struct fetch_read *rd)
{
	read_finish(rd, -ECANCELED);
}

void fetch_prefetch(struct fetch *f, struct blob *b, uint64_t off, uint64_t len)
{
	struct blob_fetch *bf;
	uint32_t c, end;

	if (f->stopping || len == 0 || off >= blob_size(b) ||
	    blob_missing(b) == 0 || blob_get_state(b) == BLOB_BAD)
		return;
	len = min_u64(len, blob_size(b) - off);
	end = (uint32_t)div_up_u64(off + len, CHUNK_SIZE);
	bf = blob_fetch_get(f, b);
	if (!bf)
		return;
	for (c = blob_next_missing(b, (uint32_t)(off / CHUNK_SIZE)); c < end;
	     c = blob_next_missing(b, c + 1)) {
		if (f->nqueued >= MAX_QUEUED_FLIGHTS)
			break;
		if (!flight_find(f, bf, c) && !flight_new(bf, c))
			break;
	}
	blob_fetch_put(bf);
	runs_schedule(f);
}

void fetch_prefetch_cancel(struct fetch *f, struct blob *b)
{
	struct blob_fetch *bf = blob_user(b);

	if (!bf || bf->mismatches)
		return;
	bf->users++;
	list_for_each_safe (n, &f->queue) {
		struct flight *fl = list_entry(n, struct flight, queue);

		if (fl->bf == bf && list_empty(&fl->waits))
			flight_free(fl);
	}
	blob_fetch_put(bf);
}

struct prefetch_post {
	struct loop_task task;
	struct fetch *f;
	struct blob *b;
	uint64_t off, len;
};

static void prefetch_posted(struct loop_task *t)
{
	struct prefetch_post *p = container_of(t, struct prefetch_post, task);

	fetch_prefetch(p->f, p->b, p->off, p->len);
	blob_unref(&p->b);
	free(p);
}

void fetch_prefetch_post(struct fetch *f, struct blob *b, uint64_t off,
			 uint64_t len)
{
	struct prefetch_post *p = calloc(1, sizeof(*p));

	if (!p)
		return; /* only a guess is lost */
	p->f = f;
	p->b = blob_ref(b);
	p->off = off;
	p->len = len;
	p->task.run = prefetch_posted;
	loop_post(f->cfg.loop, &p->task);
}

/* ---- Time ---- */

static void check_deadlines(struct list *reads, uint64_t now)
{
	list_for_each_safe (n, reads) {
		struct fetch_read *rd = list_entry(n, struct fetch_read, node);

		/* Its file may have come while the source let us wait. */
		if (blob_external(rd->blob) && read_try_finish(rd))
			continue;
		if (rd->deadline_ms <= now) {
			log_failed_read(rd, -ETIMEDOUT);
			read_finish(rd, -ETIMEDOUT);
		}
	}
}

/* Retries that nobody waits for any more. */
static void drop_unwanted(struct fetch *f)
{
	list_for_each_safe (n, &f->queue) {
		struct flight *fl = list_entry(n, struct flight, queue);

		if (fl->state == FLIGHT_RETRY && list_empty(&fl->waits))
			flight_free(fl);
	}
}

/* Reads that wait for a check which has ended unseen: before we could ask for
 * its result, or between two looks at the blob. */
static void look_again(struct blob_fetch *bf)
{
	struct list again;

	if (list_empty(&bf->gated) || bf->checking)
		return;
	if (blob_gated(bf->blob)) {
		if (blob_missing(bf->blob) == 0)
			check_verified(bf);
		else if (!bf->mismatches) /* its chunks were dropped */
			bf->mismatches = 1;
		return;
	}
	list_init(&again);
	move_list(&bf->gated, &again);
	while (!list_empty(&again)) {
		struct fetch_read *rd =
			list_first(&again, struct fetch_read, node);

		list_del(&rd->node);
		rd->state = READ_NEW;
		read_attach(rd);
	}
}

static void on_tick(uv_timer_t *t)
{
	struct fetch *f = t->data;
	uint64_t now = now_ms();
	bool busy = f->nflights > f->nmemory || f->nreads > 0;

	check_deadlines(&f->reads, now);
	drop_unwanted(f);
	list_for_each_safe (n, &f->blobs) {
		struct blob_fetch *bf = list_entry(n, struct blob_fetch, node);

		check_deadlines(&bf->gated, now);
		bf->users++;
		look_again(bf);
		/* A refetch after a mismatch that broke off. */
		if (bf->mismatches && bf->users == 1 && !bf->checking &&
		    !list_empty(&bf->gated) && now - bf->refetch_ms > 1000)
			refetch_all(bf);
		blob_fetch_put(bf);
	}
	runs_check_stalls(f, now);
	runs_schedule(f);
	f->idle_ticks = busy ? 0 : f->idle_ticks + 1;
	if (f->idle_ticks > IDLE_TICKS) {
		pool_trim(f);
		(void)uv_timer_stop(&f->tick);
		f->ticking = false;
	}
}

static void arm_tick(struct fetch *f)
{
	if (f->ticking)
		return;
	f->ticking = true;
	(void)uv_timer_start(&f->tick, on_tick, TICK_MS, TICK_MS);
}

/* ---- The engine ---- */

int fetch_new(const struct fetch_config *cfg, struct fetch **ret)
{
	struct fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->cfg = *cfg;
	if (!f->cfg.read_timeout_ms)
		f->cfg.read_timeout_ms = 60000;
	if (!f->cfg.memory_bytes)
		f->cfg.memory_bytes = UINT64_C(64) << 20;
	f->cfg.memory_bytes = max_u64(f->cfg.memory_bytes, 4 * CHUNK_SIZE);
	if (!f->cfg.workers)
		f->cfg.workers = 8;
	for (int i = 0; i < FLIGHT_BUCKETS; i++)
		list_init(&f->buckets[i]);
	list_init(&f->blobs);
	list_init(&f->runs);
	list_init(&f->queue);
	list_init(&f->memory);
	list_init(&f->reads);
	list_init(&f->ready);
	f->wake.run = run_ready;
	(void)uv_timer_init(loop_uv(cfg->loop), &f->tick);
	f->tick.data = f;
	f->m_flights = metric_get(&m_flights, NULL);
	f->m_waits = metric_get(&m_waits, NULL);
	f->m_failed_reads = metric_get(&m_failed, NULL);
	*ret = f;
	return 0;
}

void fetch_add_source(struct fetch *f, struct source *s)
{
	BUG_ON(f->nsources >= FETCH_MAX_SOURCES);
	f->sources[f->nsources++] = s;
}

static void on_closed(uv_handle_t *h)
{
	struct fetch *f = h->data;

	if (f->stopped)
		f->stopped(f->stopped_arg);
}

/* Cancelled runs, writes and checks come back one by one. */
static void on_stop_tick(uv_timer_t *t)
{
	struct fetch *f = t->data;

	while (!list_empty(&f->memory))
		flight_free(list_first(&f->memory, struct flight, queue));
	if (f->nflights || f->nreads || !list_empty(&f->runs) ||
	    !list_empty(&f->blobs) || f->wake_posted)
		return;
	pool_trim(f);
	(void)uv_timer_stop(t);
	uv_close((uv_handle_t *)t, on_closed);
}

void fetch_stop(struct fetch *f, void (*done)(void *arg), void *arg)
{
	f->stopping = true;
	f->stopped = done;
	f->stopped_arg = arg;
	while (!list_empty(&f->reads))
		read_finish(list_first(&f->reads, struct fetch_read, node),
			    -ECANCELED);
	list_for_each_safe (n, &f->blobs) {
		struct blob_fetch *bf = list_entry(n, struct blob_fetch, node);

		bf->users++;
		while (!list_empty(&bf->gated))
			read_finish(list_first(&bf->gated, struct fetch_read,
					       node),
				    -ECANCELED);
		blob_fetch_put(bf);
	}
	while (!list_empty(&f->queue))
		flight_free(list_first(&f->queue, struct flight, queue));
	list_for_each (n, &f->runs) {
		struct run *run = list_entry(n, struct run, node);

		run->source->ops->cancel(run->source, &run->rq);
	}
	(void)uv_timer_start(&f->tick, on_stop_tick, 0, 5);
}

void fetch_free(struct fetch **fp)
{
	free(*fp);
	*fp = NULL;
}

void fetch_stats(struct fetch *f, struct fetch_stats *ret)
{
	unsigned int runs = 0;

	list_for_each (n, &f->runs)
		runs++;
	*ret = (struct fetch_stats){
		.flights = f->nflights,
		.runs = runs,
		.reads = f->nreads,
		.memory_bytes = f->buf_bytes,
		.fetched_bytes = f->fetched_bytes,
		.failed_runs = f->failed_runs,
		.failed_reads = f->failed_reads,
	};
}
