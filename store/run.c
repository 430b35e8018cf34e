/* Range requests to sources, and what becomes of their flights when they
 * fail. */
#include "store/fetch-private.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"

#define RETRY_FIRST_MS 100
#define RETRY_MAX_MS   3000
/* A lying or vanished blob is not asked for more often than this. */
#define RETRY_MAX_TRIES 8

static struct metric_family m_bytes = {
	.name = "peerd_fetched_bytes_total",
	.help = "Bytes of blobs that were fetched, by source.",
	.type = METRIC_COUNTER,
	.labels = {"source"},
};
static struct metric_family m_errors = {
	.name = "peerd_fetch_errors_total",
	.help = "Range requests that failed, by source and cause.",
	.type = METRIC_COUNTER,
	.labels = {"source", "cause"},
};

static const char *cause_of(int r)
{
	switch (r) {
	case -ENOENT:
		return "not_found";
	case -EACCES:
		return "refused";
	case -EBADMSG:
		return "wrong_answer";
	case -ESTALE:
		return "changed";
	case -ETIMEDOUT:
		return "timeout";
	case -ECANCELED:
		return "canceled";
	default:
		return "unreachable";
	}
}

static void queue_flight(struct flight *fl, enum flight_state state)
{
	struct fetch *f = fl->bf->f;

	fl->state = state;
	fl->run = NULL;
	list_del(&fl->queue);
	list_add_tail(&f->queue, &fl->queue);
	f->nqueued++;
}

static void unqueue_flight(struct flight *fl)
{
	list_del(&fl->queue);
	fl->bf->f->nqueued--;
}

/* When several sources fail, readers get the error that says most: a refusal
 * or a "no" is only the answer if all agree on it. */
static int error_rank(int r)
{
	switch (r) {
	case 0:
		return 0;
	case -ENOENT:
		return 1;
	case -EACCES:
		return 2;
	default:
		return 3;
	}
}

/* The flight's run ended with r before its bytes were complete. */
static void flight_failed_once(struct flight *fl, const char *name, int r,
			       const char *why)
{
	struct fetch *f = fl->bf->f;
	uint64_t pause;

	if (error_rank(r) >= error_rank(fl->last_error))
		fl->last_error = r;
	if (fl->why.len < 700)
		(void)buf_printf(&fl->why, "%s%s: %s", fl->why.len ? "; " : "",
				 name, why);
	if (r == -EBADMSG) {
		/* What a liar sent before he was found out is not kept. */
		fl->have = 0;
	}
	if (list_empty(&fl->waits) || f->stopping) {
		flight_free(fl);
		return;
	}
	fl->source++;
	if (fl->source < f->nsources) {
		fl->retry_ms = 0;
		queue_flight(fl, FLIGHT_RETRY);
		return;
	}
	/* Every source had its turn. */
	fl->source = 0;
	fl->failures++;
	if (fl->last_error == -ENOENT || fl->last_error == -EACCES ||
	    fl->last_error == -ESTALE || fl->failures >= 64 ||
	    (fl->last_error == -EBADMSG && fl->failures >= RETRY_MAX_TRIES)) {
		flight_fail(fl, fl->last_error);
		return;
	}
	pause = (uint64_t)RETRY_FIRST_MS
		<< (fl->failures < 6 ? fl->failures - 1 : 5);
	pause = min_u64(pause, RETRY_MAX_MS);
	/* The chunk number spreads retries a little without a random source. */
	fl->retry_ms = now_ms() + pause + fl->chunk % 32;
	queue_flight(fl, FLIGHT_RETRY);
}

static void run_free(struct run *run)
{
	struct fetch *f = run->f;

	list_del(&run->node);
	if (run->background) {
		f->background_runs--;
		f->wanted_bytes -= run->rq.length - run->bytes;
	}
	free(run);
}

static void on_done(struct source_request *rq, int r, const char *why)
{
	struct run *run = container_of(rq, struct run, rq);
	struct fetch *f = run->f;
	struct blob_fetch *bf = run->bf;
	const char *name = run->source->ops->name;
	uint32_t at = run->at, end = run->end;
	unsigned int source_index = run->source_index;

	if (r == -ECANCELED && run->stalled) {
		r = -ETIMEDOUT;
		why = "no bytes for too long";
	}
	if (r == 0 && at < end) {
		r = -ECONNRESET;
		why = "ended early";
	}
	if (r < 0) {
		f->failed_runs++;
		metric_add(metric_get(&m_errors,
				      (const char *const[]){name, cause_of(r)}),
			   1);
	}
	run_free(run);
	bf->users++;
	for (uint32_t c = at; c < end; c++) {
		struct flight *fl = flight_find(f, bf, c);

		if (!fl || fl->state != FLIGHT_RUNNING)
			continue;
		fl->source = source_index;
		flight_failed_once(fl, name, r, why ? why : "failed");
	}
	blob_fetch_put(bf);
	runs_schedule(f);
}

static bool on_data(struct source_request *rq, const void *bytes, size_t len)
{
	struct run *run = container_of(rq, struct run, rq);
	struct fetch *f = run->f;
	const uint8_t *p = bytes;

	BUG_ON(len > run->rq.length - run->bytes);
	/* Take all of it or nothing: first see that there is memory. A piece
	 * is smaller than a chunk, so it touches two flights at most. */
	for (uint64_t o = run->bytes; o < run->bytes + len;) {
		uint64_t abs = run->rq.offset + o;
		struct flight *fl =
			flight_find(f, run->bf, (uint32_t)(abs / CHUNK_SIZE));

		BUG_ON(!fl);
		if (!fl->buf) {
			fl->buf = chunk_buf_get(f);
			if (!fl->buf) {
				run->paused = true;
				return false;
			}
		}
		o += CHUNK_SIZE - abs % CHUNK_SIZE;
	}
	run->progress_ms = now_ms();
	run->bytes += len;
	f->fetched_bytes += len;
	metric_add(run->m_bytes, (double)len);
	if (run->background)
		f->wanted_bytes -= len;
	while (len > 0) {
		struct flight *fl = flight_find(f, run->bf, run->at);
		uint32_t n;

		BUG_ON(!fl || fl->run != run);
		n = (uint32_t)min_u64(len, fl->len - fl->have);
		memcpy(fl->buf->data + fl->have, p, n);
		fl->have += n;
		if (run->rq.from != CHUNK_FROM_UPSTREAM || fl->have == n)
			fl->from = run->rq.from;
		p += n;
		len -= n;
		if (fl->have == fl->len) {
			run->at++;
			flight_received(fl);
		} else {
			flight_progress(fl);
		}
	}
	return true;
}

/* Gives the run to the first source from run->source_index on that has an idea
 * about the blob. */
static bool run_give(struct run *run)
{
	struct fetch *f = run->f;

	for (; run->source_index < f->nsources; run->source_index++) {
		run->source = f->sources[run->source_index];
		run->m_bytes =
			metric_get(&m_bytes, (const char *const[]){
						     run->source->ops->name});
		if (run->source->ops->start(run->source, &run->rq) == 0)
			return true;
	}
	return false;
}

static uint64_t latest_deadline(const struct flight *fl, uint64_t at_least)
{
	uint64_t d = at_least;

	list_for_each (n, &fl->waits) {
		const struct fetch_wait *w =
			list_entry(n, struct fetch_wait, node);

		d = max_u64(d, w->rd->deadline_ms);
	}
	return d;
}

void run_start(struct flight *fl, bool background)
{
	struct blob_fetch *bf = fl->bf;
	struct fetch *f = bf->f;
	struct run *run = calloc(1, sizeof(*run));
	uint64_t now = now_ms(), deadline = now + 1000, bytes;
	uint32_t c = fl->chunk, first = c;
	unsigned int source = fl->source;

	BUG_ON(fl->state != FLIGHT_QUEUED && fl->state != FLIGHT_RETRY);
	if (!run) {
		/* Tried again with the next tick. */
		fl->state = FLIGHT_RETRY;
		fl->retry_ms = now + RETRY_FIRST_MS;
		return;
	}
	bytes = fl->len - fl->have;
	/* Those behind it, as far as they wait for the same source and hold no
	 * bytes yet. */
	for (;;) {
		deadline = latest_deadline(fl, deadline);
		unqueue_flight(fl);
		fl->state = FLIGHT_RUNNING;
		fl->run = run;
		c++;
		if (c >= blob_chunks(bf->blob) || bytes >= RUN_MAX_BYTES)
			break;
		fl = flight_find(f, bf, c);
		if (!fl ||
		    (fl->state != FLIGHT_QUEUED && fl->state != FLIGHT_RETRY) ||
		    fl->have > 0 || fl->source != source || fl->retry_ms > now)
			break;
		bytes += fl->len;
	}
	fl = flight_find(f, bf, first);
	run->f = f;
	run->bf = bf;
	run->first = run->at = first;
	run->end = c;
	run->source_index = source;
	run->progress_ms = now;
	run->background = background;
	run->rq.blob = bf->blob;
	run->rq.offset = (uint64_t)first * CHUNK_SIZE + fl->have;
	run->rq.length = bytes;
	run->rq.deadline_ms = max_u64(
		deadline, background ? now + f->cfg.read_timeout_ms : 0);
	run->rq.background = background;
	run->rq.data = on_data;
	run->rq.done = on_done;
	list_add_tail(&f->runs, &run->node);
	if (background) {
		f->background_runs++;
		f->wanted_bytes += bytes;
	}
	if (!run_give(run)) {
		run->source = f->sources[f->nsources - 1];
		on_done(&run->rq, -ENOENT, "knows no place to get it from");
	}
}

void runs_schedule(struct fetch *f)
{
	uint64_t now = now_ms();
	bool again = true;

	if (f->stopping)
		return;
	/* Starting a run takes flights off the queue (and a failure may put
	 * some back), so begin anew after each. */
	while (again) {
		again = false;
		list_for_each (n, &f->queue) {
			struct flight *fl = list_entry(n, struct flight, queue);
			bool wanted = !list_empty(&fl->waits);

			if (fl->state == FLIGHT_RETRY && fl->retry_ms > now)
				continue;
			if (!wanted && (f->background_runs >= f->cfg.workers ||
					f->wanted_bytes >= f->cfg.memory_bytes))
				continue;
			run_start(fl, !wanted);
			again = true;
			break;
		}
	}
}

void runs_resume(struct fetch *f)
{
	/* One at a time: a resumed run may use up the memory again, and each
	 * buffer that is freed calls this anew. */
	list_for_each (n, &f->runs) {
		struct run *run = list_entry(n, struct run, node);

		if (run->paused) {
			run->paused = false;
			run->progress_ms = now_ms();
			run->source->ops->resume(run->source, &run->rq);
			return;
		}
	}
}

void runs_check_stalls(struct fetch *f, uint64_t now)
{
	uint64_t limit = f->cfg.read_timeout_ms / 4;

	limit = min_u64(max_u64(limit, 1000), 10000);
	list_for_each (n, &f->runs) {
		struct run *run = list_entry(n, struct run, node);
		bool wanted = false;

		if (run->paused || run->stalled || run->at == run->end ||
		    now - run->progress_ms < limit)
			continue;
		for (uint32_t c = run->at; c < run->end && !wanted; c++) {
			struct flight *fl = flight_find(f, run->bf, c);

			wanted = fl && !list_empty(&fl->waits);
		}
		if (!wanted && now - run->progress_ms < f->cfg.read_timeout_ms)
			continue;
		run->stalled = true;
		run->source->ops->cancel(run->source, &run->rq);
	}
}
