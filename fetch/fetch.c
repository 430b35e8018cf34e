/* Reads, prefetch, and the engine's life cycle. */
#include "fetch/fetch-private.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"

/* A read is in fetch.reads, fetch.again or fetch.ready. */
enum read_state { READ_WAITING, READ_AGAIN, READ_READY };

static struct metric_family m_flights = {
	.name = "peerd_flights_total",
	.help = "Flights that were created for absent chunks.",
	.type = METRIC_COUNTER,
};
static struct metric_family m_waits = {
	.name = "peerd_fetch_waits_total",
	.help = "Reads that waited for a flight.",
	.type = METRIC_COUNTER,
};
static struct metric_family m_failed = {
	.name = "peerd_failed_reads_total",
	.help = "Reads that failed; cancelled reads do not count.",
	.type = METRIC_COUNTER,
};

/* ---- Waiting ---- */

/* Keeps fl->waits in order of rising need, so that a flight's progress checks
 * the first entry only. */
static void wait_for(struct fetch_read *rd, struct fetch_wait *w,
		     struct flight *fl)
{
	struct list *at = &fl->waits;

	while (at->prev != &fl->waits &&
	       list_entry(at->prev, struct fetch_wait, node)->need > w->need)
		at = at->prev;
	list_add_tail(at, &w->node);
	fl->as_owner |= rd->as_owner;
	fl->given_up = false;
	w->flight = fl;
	w->waiting = true;
	rd->nwaiting++;
	if (fl->state == FLIGHT_QUEUED)
		flight_move(fl, FLIGHT_WANTED);
	else if (fl->state == FLIGHT_RUNNING)
		run_hurry(fl->run, rd->as_owner);
}

static void wait_end(struct fetch_wait *w)
{
	if (!w->waiting)
		return;
	list_del(&w->node);
	w->waiting = false;
	w->flight = NULL;
	w->rd->nwaiting--;
}

static void give_up(struct fetch_wait *w)
{
	struct flight *fl = w->flight;

	wait_end(w);
	if (fl && list_empty(&fl->waits))
		fl->given_up = true;
}

static void read_move(struct fetch_read *rd, struct list *to,
		      enum read_state state)
{
	list_del(&rd->node);
	list_add_tail(to, &rd->node);
	rd->state = state;
	if (state != READ_WAITING)
		kick(rd->f);
}

static void read_let_go(struct fetch_read *rd)
{
	for (int i = 0; i < 2; i++) {
		wait_end(&rd->wait[i]);
		chunk_buf_unref(&rd->wait[i].buf);
	}
}

void read_again(struct fetch_read *rd)
{
	read_let_go(rd);
	read_move(rd, &rd->f->again, READ_AGAIN);
}

void read_finish(struct fetch_read *rd, int r)
{
	struct fetch *f = rd->f;

	if (rd->state == READ_READY)
		return;
	for (int i = 0; r < 0 && i < 2; i++)
		give_up(&rd->wait[i]);
	read_let_go(rd);
	rd->result = r;
	if (r < 0 && r != -ECANCELED) {
		f->failed_reads++;
		metric_add(f->m_failed_reads, 1);
	}
	read_move(rd, &f->ready, READ_READY);
}

/* The reason why the read has not ended. */
static const char *read_why(const struct fetch_read *rd)
{
	const struct blob_fetch *bf = blob_user(rd->blob);

	if (blob_get_state(rd->blob) == BLOB_BAD)
		return "the blob does not match its digest";
	for (uint64_t at = rd->off; bf && at < rd->off + rd->min;
	     at = (at / CHUNK_SIZE + 1) * CHUNK_SIZE) {
		const struct flight *fl =
			flight_find(bf, (uint32_t)(at / CHUNK_SIZE));

		if (fl && fl->why.len)
			return fl->why.data;
		if (fl && fl->state == FLIGHT_RUNNING)
			return fl->run->paused ? "paused: no memory is free"
					       : "the reply is still coming";
		if (fl &&
		    (fl->state == FLIGHT_WRITING || fl->state == FLIGHT_LAST))
			return "the disk has not written the chunk yet";
		if (fl)
			return "the request has not started yet";
	}
	if (blob_gated(rd->blob))
		return "the digest is not checked yet";
	return "the bytes came too late";
}

/* Credentials of clients expire; this is the client's fault, and not logged. */
static bool is_clients_fault(const struct fetch_read *rd, int r)
{
	return rd->auth && (r == -EKEYEXPIRED || r == -EACCES);
}

/* A read that fails is logged here and nowhere below. */
void read_fail(struct fetch_read *rd, int r)
{
	static struct log_limit limit;
	char s[DIGEST_STR_SIZE];

	if (rd->state != READ_READY && r != -ECANCELED &&
	    !is_clients_fault(rd, r) && log_limit_ok(&limit, 20, 1000))
		log_error("read failed",
			  LS("digest", digest_str(&blob_key(rd->blob)->id, s)),
			  LU("offset", rd->off), LU("length", rd->len),
			  LU("ms", now_ms() - rd->started_ms), LE(r),
			  LS("why", read_why(rd)));
	read_finish(rd, r);
}

/* ---- Available bytes ---- */

static bool held_back(const struct fetch_read *rd)
{
	return rd->unchecked ? blob_failed(rd->blob) : blob_gated(rd->blob);
}

bool read_sees(const struct fetch_read *rd, const struct flight *fl)
{
	if (!rd->unchecked || blob_proven(rd->blob))
		return flight_shows(fl);
	return !blob_failed(rd->blob);
}

/* Fills rd->piece[] from the bytes available now. rd->got is the number of
 * bytes from rd->off on without a gap. */
static void read_collect(struct fetch_read *rd)
{
	const struct blob_fetch *bf = blob_user(rd->blob);
	uint64_t at = rd->off, end = rd->off + rd->len;
	bool gated = held_back(rd);

	rd->npieces = 0;
	rd->got = 0;
	for (int i = 0; at < end; i++) {
		uint32_t c = (uint32_t)(at / CHUNK_SIZE);
		uint32_t o = (uint32_t)(at % CHUNK_SIZE), have = 0;
		size_t want = min_u64(end - at, CHUNK_SIZE - o);
		const struct flight *fl = bf ? flight_find(bf, c) : NULL;
		struct fetch_piece *p = &rd->piece[i];
		struct chunk_buf *buf = NULL;

		if (fl && fl->buf && !rd->stored && read_sees(rd, fl)) {
			buf = fl->buf;
			have = fl->have;
		}
		if (rd->wait[i].buf && !gated && rd->wait[i].have > have) {
			buf = rd->wait[i].buf;
			have = rd->wait[i].have;
		}
		memset(p, 0, sizeof(*p));
		if (have > o) {
			p->buf = buf;
			p->mem = buf->data + o;
			p->len = min_u64(want, have - o);
		} else if (blob_has(rd->blob, c) && !gated) {
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
}

/* Call it when the read waits for nothing any more. */
static void read_complete(struct fetch_read *rd)
{
	read_collect(rd);
	if (rd->got < rd->min) { /* evicted meanwhile, or gated */
		rd->npieces = rd->got = 0;
		read_again(rd);
		return;
	}
	for (uint32_t i = 0; i < rd->npieces; i++)
		if (rd->piece[i].buf)
			(void)chunk_buf_ref(rd->piece[i].buf);
	read_finish(rd, 0);
}

static void take(struct fetch_wait *w, struct flight *fl)
{
	w->buf = chunk_buf_ref(fl->buf);
	w->have = fl->have;
}

void read_take(struct fetch_wait *w, struct flight *fl)
{
	wait_end(w);
	take(w, fl);
	if (w->rd->nwaiting == 0)
		read_complete(w->rd);
}

/* ---- Reads ---- */

/* Makes rd wait for each chunk whose bytes it lacks. Returns 0 or an errno that
 * ends the read. */
static int read_wait(struct fetch_read *rd, struct blob_fetch *bf)
{
	uint64_t at = rd->off, end = rd->off + rd->min;

	for (int i = 0; at < end; i++) {
		uint32_t c = (uint32_t)(at / CHUNK_SIZE);
		uint64_t begin = (uint64_t)c * CHUNK_SIZE;
		struct fetch_wait *w = &rd->wait[i];
		struct flight *fl = flight_find(bf, c);

		at = begin + CHUNK_SIZE;
		w->need = rd->stored
				  ? UINT32_MAX /* until the flight ends */
				  : (uint32_t)min_u64(end - begin, CHUNK_SIZE);
		if (fl && fl->buf && fl->have >= w->need && read_sees(rd, fl)) {
			take(w, fl);
			continue;
		}
		if (blob_has(rd->blob, c))
			continue;
		if (!fl)
			fl = flight_new(bf, c);
		if (!fl)
			return -ENOMEM;
		if (fl->state == FLIGHT_MEMORY)
			return fl->write_result;
		wait_for(rd, w, fl);
	}
	return 0;
}

/* Whether the blob failed its digest and is incomplete since. The gate is
 * closed after a mismatch, and also while all chunks are present and unchecked;
 * both may change between the calls, hence the second look. */
static bool failed_digest(const struct blob *b)
{
	return blob_gated(b) && blob_missing(b) > 0 && blob_gated(b);
}

static void read_attach(struct fetch_read *rd)
{
	struct fetch *f = rd->f;
	struct blob *b = rd->blob;
	struct blob_fetch *bf;
	int r = 0;

	if (f->stopping) {
		read_finish(rd, -ECANCELED);
		return;
	}
	if (rd->deadline_ms <= now_ms()) {
		read_fail(rd, -ETIMEDOUT);
		return;
	}
	if (blob_get_state(b) == BLOB_BAD) {
		read_fail(rd, -EBADMSG);
		return;
	}
	bf = blob_fetch_get(f, b);
	if (!bf) {
		read_fail(rd, -ENOMEM);
		return;
	}
	if (rd->unchecked && blob_failed(b)) {
		r = -EBADMSG;
	} else if (failed_digest(b) && blob_chunks(b) > 1) {
		fetch_prefetch_as(f, b, 0, blob_size(b), false, rd->auth);
		r = -EBADMSG;
	} else if (held_back(rd) && blob_missing(b) == 0) {
		rd->wait[0].waiting = true;
		rd->nwaiting++;
		list_add_tail(&bf->gated, &rd->wait[0].node);
		check_start(bf);
	} else {
		r = read_wait(rd, bf);
	}
	if (r < 0) {
		read_fail(rd, r);
	} else if (rd->nwaiting == 0) {
		read_complete(rd);
	} else {
		read_move(rd, &f->reads, READ_WAITING);
		metric_add(f->m_waits, 1);
		kick(f);
		arm_tick(f);
	}
	blob_fetch_put(bf);
}

void fetch_read_start(struct fetch *f, struct fetch_read *rd)
{
	uint64_t now = now_ms();

	BUG_ON(rd->len == 0 || rd->len > CHUNK_SIZE || rd->min > rd->len ||
	       rd->off > blob_size(rd->blob) ||
	       rd->len > blob_size(rd->blob) - rd->off);
	rd->f = f;
	rd->npieces = 0;
	rd->got = 0;
	rd->started_ms = now;
	if (!rd->min)
		rd->min = rd->len;
	if (!rd->deadline_ms)
		rd->deadline_ms = now + f->cfg.read_timeout_ms;
	rd->nwaiting = 0;
	memset(rd->wait, 0, sizeof(rd->wait));
	rd->wait[0].rd = rd->wait[1].rd = rd;
	list_init(&rd->node);
	rd->state = READ_AGAIN;
	f->nreads++;
	read_attach(rd);
}

void fetch_read_cancel(struct fetch_read *rd)
{
	read_finish(rd, -ECANCELED);
}

/* ---- Prefetch ---- */

void fetch_prefetch_as(struct fetch *f, struct blob *b, uint64_t off,
		       uint64_t len, bool steady, struct source_auth *auth)
{
	struct blob_fetch *bf;
	struct flight *fl;
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
		if (f->n[FLIGHT_QUEUED] >= MAX_QUEUED_FLIGHTS)
			break;
		if (flight_find(bf, c))
			continue;
		fl = flight_new(bf, c);
		if (!fl)
			break;
		fl->steady = steady;
		fl->auth = source_auth_ref(auth);
		(void)stream_join(fl);
	}
	blob_fetch_put(bf);
	kick(f);
}

void fetch_prefetch(struct fetch *f, struct blob *b, uint64_t off, uint64_t len)
{
	fetch_prefetch_as(f, b, off, len, false, NULL);
}

void fetch_prefetch_steady(struct fetch *f, struct blob *b, uint64_t off,
			   uint64_t len)
{
	fetch_prefetch_as(f, b, off, len, true, NULL);
}

void fetch_prefetch_cancel(struct fetch *f, struct blob *b)
{
	struct blob_fetch *bf = blob_user(b);

	if (!bf || bf->mismatches || bf->peers_mismatches)
		return;
	bf->users++;
	list_for_each_safe (n, &f->in[FLIGHT_QUEUED]) {
		struct flight *fl = list_entry(n, struct flight, node);

		if (fl->bf == bf)
			flight_free(fl);
	}
	stream_forget(bf);
	blob_fetch_put(bf);
}

struct prefetch_post {
	struct loop_task task;
	struct fetch *f;
	struct blob *b;
	uint64_t off, len;
	bool steady;
};

static void prefetch_posted(struct loop_task *t)
{
	struct prefetch_post *p = container_of(t, struct prefetch_post, task);
	struct fetch *f = p->f;

	fetch_prefetch_as(f, p->b, p->off, p->len, p->steady, NULL);
	blob_unref(&p->b);
	free(p);
	fetch_posted(f);
}

void fetch_prefetch_post(struct fetch *f, struct blob *b, uint64_t off,
			 uint64_t len, bool steady)
{
	struct prefetch_post *p = calloc(1, sizeof(*p));

	if (!p)
		return; /* only a guess is lost */
	p->f = f;
	p->b = blob_ref(b);
	p->off = off;
	p->len = len;
	p->steady = steady;
	p->task.run = prefetch_posted;
	if (!fetch_post(f, &p->task)) {
		blob_unref(&p->b);
		free(p);
	}
}

/* ---- Due work ---- */

static void call_ready(struct fetch *f)
{
	struct list due;

	/* Reads that done() starts wait for the next turn. */
	list_init(&due);
	list_move_all(&f->ready, &due);
	while (!list_empty(&due)) {
		struct fetch_read *rd =
			list_first(&due, struct fetch_read, node);
		struct chunk_buf *lent[2] = {NULL, NULL};

		list_del(&rd->node);
		for (uint32_t i = 0; i < rd->npieces; i++)
			lent[i] = rd->piece[i].buf;
		rd->done(rd, rd->result); /* may free rd */
		chunk_buf_unref(&lent[0]);
		chunk_buf_unref(&lent[1]);
		f->nreads--;
	}
}

static void attach_again(struct fetch *f)
{
	struct list due;

	list_init(&due);
	list_move_all(&f->again, &due);
	while (!list_empty(&due))
		read_attach(list_first(&due, struct fetch_read, node));
}

static void on_wake(struct loop_task *t)
{
	struct fetch *f = container_of(t, struct fetch, wake);

	attach_again(f);
	call_ready(f);
	runs_wake(f);
	maybe_stopped(f);
}

void kick(struct fetch *f)
{
	loop_post(f->cfg.loop, &f->wake);
}

bool fetch_post(struct fetch *f, struct loop_task *t)
{
	bool open;

	(void)pthread_mutex_lock(&f->mu);
	open = !f->closed;
	if (open) {
		f->posts++;
		loop_post(f->cfg.loop, t);
	}
	(void)pthread_mutex_unlock(&f->mu);
	return open;
}

void fetch_posted(struct fetch *f)
{
	(void)pthread_mutex_lock(&f->mu);
	f->posts--;
	(void)pthread_mutex_unlock(&f->mu);
	if (f->stopping)
		kick(f);
}

/* ---- Time ---- */

static void check_deadlines(struct fetch *f, uint64_t now)
{
	list_for_each_safe (n, &f->reads) {
		struct fetch_read *rd = list_entry(n, struct fetch_read, node);

		if (rd->deadline_ms <= now)
			read_fail(rd, -ETIMEDOUT);
		else if (blob_external(rd->blob))
			read_again(rd); /* containerd has the blob */
	}
}

static bool is_quiet(const struct fetch *f)
{
	for (int i = 0; i < FLIGHT_STATES; i++)
		if (f->n[i] && i != FLIGHT_MEMORY)
			return false;
	return f->nreads == 0 && f->nruns == 0;
}

static void drop_memory_flights(struct fetch *f)
{
	struct list *head = &f->in[FLIGHT_MEMORY];

	while (!list_empty(head))
		flight_free(list_first(head, struct flight, node));
}

static void on_tick(uv_timer_t *t)
{
	struct fetch *f = t->data;
	uint64_t now = now_ms();

	check_deadlines(f, now);
	runs_tick(f, now);
	list_for_each_safe (n, &f->blobs) {
		struct blob_fetch *bf = list_entry(n, struct blob_fetch, node);

		/* Frees the state of a blob that failed its digest and was
		 * evicted since. */
		bf->users++;
		blob_fetch_put(bf);
	}
	kick(f);
	if (!is_quiet(f)) {
		f->quiet_ms = now;
		return;
	}
	if (now - f->quiet_ms < QUIET_MS)
		return;
	drop_memory_flights(f);
	pool_trim(f);
	(void)uv_timer_stop(&f->tick);
	f->ticking = false;
}

void arm_tick(struct fetch *f)
{
	if (f->ticking || f->stopping)
		return;
	f->ticking = true;
	f->quiet_ms = now_ms();
	(void)uv_timer_start(&f->tick, on_tick, TICK_MS, TICK_MS);
}

/* ---- The engine ---- */

int fetch_new(const struct fetch_config *cfg, struct fetch **ret)
{
	struct fetch *f = calloc(1, sizeof(*f));
	struct fetch_config *c;

	if (!f)
		return -ENOMEM;
	c = &f->cfg;
	*c = *cfg;
	if (!c->read_timeout_ms)
		c->read_timeout_ms = 60000;
	if (!c->stall_ms)
		c->stall_ms =
			min_u64(max_u64(c->read_timeout_ms / 6, 1000), 10000);
	if (!c->memory_bytes)
		c->memory_bytes = UINT64_C(64) << 20;
	c->memory_bytes = max_u64(c->memory_bytes, 4 * CHUNK_SIZE);
	if (!c->workers)
		c->workers = 8;
	for (int i = 0; i < FLIGHT_BUCKETS; i++)
		list_init(&f->buckets[i]);
	for (int i = 0; i < FLIGHT_STATES; i++)
		list_init(&f->in[i]);
	list_init(&f->loans);
	list_init(&f->blobs);
	list_init(&f->runs);
	list_init(&f->reads);
	list_init(&f->again);
	list_init(&f->ready);
	f->wake.run = on_wake;
	BUG_ON(pthread_mutex_init(&f->mu, NULL) != 0);
	(void)uv_timer_init(loop_uv(c->loop), &f->tick);
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

	loop_cancel(f->cfg.loop, &f->wake);
	if (f->on_stopped)
		f->on_stopped(f->stopped_arg);
}

void maybe_stopped(struct fetch *f)
{
	if (!f->stopping || f->stopped || f->nreads || f->nruns ||
	    !list_empty(&f->blobs))
		return;
	(void)pthread_mutex_lock(&f->mu);
	f->stopped = f->closed = f->posts == 0;
	(void)pthread_mutex_unlock(&f->mu);
	if (!f->stopped)
		return;
	pool_trim(f);
	uv_close((uv_handle_t *)&f->tick, on_closed);
}

void fetch_stop(struct fetch *f, void (*done)(void *arg), void *arg)
{
	static const enum flight_state idle[] = {FLIGHT_QUEUED, FLIGHT_WANTED,
						 FLIGHT_RETRY, FLIGHT_MEMORY};

	f->stopping = true;
	f->on_stopped = done;
	f->stopped_arg = arg;
	(void)uv_timer_stop(&f->tick);
	while (!list_empty(&f->reads))
		read_finish(list_first(&f->reads, struct fetch_read, node),
			    -ECANCELED);
	while (!list_empty(&f->again))
		read_finish(list_first(&f->again, struct fetch_read, node),
			    -ECANCELED);
	for (size_t i = 0; i < ARRAY_SIZE(idle); i++) {
		struct list *head = &f->in[idle[i]];

		while (!list_empty(head))
			flight_free(list_first(head, struct flight, node));
	}
	/* RUNNING flights end with their runs, WRITING ones with their jobs,
	 * checks with the sum. */
	list_for_each (n, &f->runs)
		run_cancel(list_entry(n, struct run, node));
	list_for_each_safe (n, &f->blobs) {
		struct blob_fetch *bf = list_entry(n, struct blob_fetch, node);

		bf->users++;
		blob_fetch_put(bf);
	}
	kick(f);
}

void fetch_free(struct fetch **fp)
{
	struct fetch *f = *fp;

	*fp = NULL;
	if (!f)
		return;
	BUG_ON(f->buf_bytes > 0); /* a piece was not given back */
	(void)pthread_mutex_destroy(&f->mu);
	free(f);
}

void fetch_stats(struct fetch *f, struct fetch_stats *ret)
{
	uint64_t flights = 0;

	for (int i = 0; i < FLIGHT_STATES; i++)
		flights += f->n[i];
	*ret = (struct fetch_stats){
		.flights = flights,
		.runs = f->nruns,
		.reads = f->nreads,
		.memory_bytes = f->buf_bytes,
		.fetched_bytes = f->fetched_bytes,
		.failed_runs = f->failed_runs,
		.failed_reads = f->failed_reads,
	};
}
