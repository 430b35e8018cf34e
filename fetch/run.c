/* Runs: range requests to sources, and the retries of the flights of failed
 * runs. */
#include "fetch/fetch-private.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

#define RETRY_FIRST_MS 100
#define RETRY_MAX_MS   3000
/* After so many rounds a flight that ends a round with a wrong reply fails. */
#define MAX_BAD_ROUNDS 8
/* A request that brought so many bytes is no failure: the rest is requested
 * again at once, from the same source. */
#define PROGRESS_BYTES ((uint64_t)64 << 10)
/* The slowest acceptable pace of a whole run; see also
 * fetch_config.stall_ms. */
#define SLOW_BYTES_PER_MS 16
/* So many queued flights are passed over to find one whose source has a free
 * slot. */
#define MAX_PASSED 1024
/* Runs that go on although the readers that waited for them gave up. */
#define MAX_GIVEN_UP 16

static struct metric_family m_bytes = {
	.name = "peerd_fetched_bytes_total",
	.help = "Bytes of blobs received, by source.",
	.type = METRIC_COUNTER,
	.labels = {"source"},
};
static struct metric_family m_errors = {
	.name = "peerd_fetch_errors_total",
	.help = "Failed range requests, by source and cause.",
	.type = METRIC_COUNTER,
	.labels = {"source", "cause"},
};

/* ---- Failures ---- */

static const char *cause_of(int r)
{
	switch (r) {
	case -ENOENT:
		return "not_found";
	case -EACCES:
	case -EKEYEXPIRED:
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

static const char *run_name(const struct run *run)
{
	return run->source ? run->source->ops->name : "none";
}

static void count_failure(const struct run *run, int r)
{
	const char *const labels[] = {run_name(run), cause_of(r)};

	run->f->failed_runs++;
	metric_add(metric_get(&m_errors, labels), 1);
}

static void note_failure(struct flight *fl, const char *name, int r,
			 const char *why)
{
	if (!fl->error)
		buf_reset(&fl->why); /* a new round */
	if (source_error_rank(r) >= source_error_rank(fl->error))
		fl->error = r;
	/* What does not fit is left out. */
	(void)buf_printf(&fl->why, "%s%s: %s", fl->why.len ? "; " : "", name,
			 why);
}

/* A refusal of a request with, or without, a credential. Registries also send
 * 404 where they mean "no access". */
static bool is_refusal(int r)
{
	return r == -ENOENT || r == -EACCES || r == -EKEYEXPIRED;
}

static bool is_final(const struct flight *fl)
{
	return is_refusal(fl->error) || fl->error == -ESTALE ||
	       (fl->error == -EBADMSG && fl->rounds >= MAX_BAD_ROUNDS);
}

static void leave_run(struct flight *fl)
{
	fl->run = NULL;
	/* It may have a buffer without bytes. */
	if (fl->have == 0)
		flight_forget_bytes(fl);
}

/* Call it when every source has had its turn. */
static void round_failed(struct flight *fl)
{
	uint64_t pause;

	fl->rounds++;
	fl->source = 0;
	if (is_refusal(fl->error) && flight_refuse(fl, fl->error)) {
		fl->rounds = 0;
		fl->error = 0;
		flight_move(fl, FLIGHT_WANTED);
		return;
	}
	if (is_final(fl)) {
		flight_fail(fl, fl->error);
		return;
	}
	if (list_empty(&fl->waits)) {
		flight_free(fl);
		return;
	}
	pause = (uint64_t)RETRY_FIRST_MS
		<< (fl->rounds < 6 ? fl->rounds - 1 : 5);
	fl->retry_ms = now_ms() + min_u64(pause, RETRY_MAX_MS);
	fl->error = 0;
	flight_move(fl, FLIGHT_RETRY);
}

static bool run_sweeps(const struct run *run)
{
	return run->bf->sweep == run;
}

/* Call it when the run ended with r before the flight's bytes were complete. */
static void flight_run_failed(struct flight *fl, const struct run *run, int r,
			      const char *why)
{
	bool progress = run->taken >= PROGRESS_BYTES && r != -EBADMSG &&
			r != -EBUSY && !run->cancelled;
	bool no_ranges = r == -ERANGE && !run_sweeps(run);

	if (run->f->stopping || (fl->given_up && list_empty(&fl->waits))) {
		flight_free(fl);
		return;
	}
	/* Bytes of a source that sent a wrong reply are not kept. */
	if (r == -EBADMSG)
		flight_forget_bytes(fl);
	note_failure(fl, run_name(run), r, why);
	leave_run(fl);
	if (no_ranges)
		flight_send_members_away(fl);
	if (progress || no_ranges)
		fl->error = 0; /* earlier failures do not count any more */
	fl->source = no_ranges ? 0 : run->source_index + !progress;
	if (fl->source >= run->f->nsources)
		round_failed(fl);
	else
		flight_move(fl, list_empty(&fl->waits) ? FLIGHT_QUEUED
						       : FLIGHT_WANTED);
}

void flight_lied(struct flight *fl)
{
	struct fetch *f = fl->bf->f;
	const char *name = "sources";
	struct source *s;

	if (fl->by < f->nsources) {
		s = f->sources[fl->by];
		name = s->ops->name;
		if (s->ops->blame)
			s->ops->blame(s, fl->bf->blob, fl->from, fl->place);
		fl->source = fl->by + 1;
	} else {
		fl->source = f->nsources; /* several: nobody can be blamed */
	}
	flight_forget_bytes(fl);
	note_failure(fl, name, -EBADMSG, "the bytes are not the chunk's");
	if (fl->source >= f->nsources)
		round_failed(fl);
	else
		flight_move(fl, list_empty(&fl->waits) ? FLIGHT_QUEUED
						       : FLIGHT_WANTED);
}

/* ---- One run ---- */

static bool run_wanted(const struct run *run)
{
	for (uint32_t c = run_chunk(run); run_left(run) > 0 && c < run->end;
	     c++) {
		const struct flight *fl = flight_find(run->bf, c);

		if (fl && fl->run == run && !list_empty(&fl->waits))
			return true;
	}
	return false;
}

static void set_paused(struct run *run, bool paused)
{
	if (run->paused == paused)
		return;
	run->paused = paused;
	if (paused)
		run->f->npaused++;
	else
		run->f->npaused--;
}

void run_cancel(struct run *run)
{
	if (run->cancelled)
		return;
	run->cancelled = true;
	set_paused(run, false);
	run->source->ops->cancel(run->source, &run->rq);
}

void run_hurry(struct run *run, bool as_owner)
{
	struct source_request *rq = &run->rq;

	stream_hurry(run);
	if (run->cancelled || (!rq->background && rq->as_owner >= as_owner))
		return;
	rq->background = false;
	rq->as_owner |= as_owner;
	if (run->source->ops->hurry)
		run->source->ops->hurry(run->source, rq);
}

/* Gives up the run's slot at its source. */
static void give_turn(struct run *run)
{
	if (!run->background)
		return;
	run->background = false;
	if (!run_sweeps(run))
		run->f->wanted_bytes -= run_left(run);
	if (run->source)
		run->source->background_runs--;
}

static void run_free(struct run *run)
{
	struct fetch *f = run->f;
	struct blob_fetch *bf = run->bf;

	set_paused(run, false);
	stream_end(run);
	source_auth_unref(&run->rq.auth);
	list_del(&run->node);
	f->nruns--;
	give_turn(run);
	sweep_end(run);
	free(run);
	blob_fetch_put(bf);
	kick(f);
}

static void on_done(struct source_request *rq, int r, const char *why)
{
	struct run *run = container_of(rq, struct run, rq);

	if (run->held) {
		r = 0; /* it delivered all its flights */
	} else if (run->given_up) {
		r = -ECANCELED;
		why = "no reader is left";
	} else if (run->cancelled && !run->f->stopping) {
		r = -ETIMEDOUT;
		why = "no bytes arrived for too long";
	} else if (r == 0 && run_left(run) > 0) {
		r = -ECONNRESET;
		why = "the reply ended early";
	}
	if (r < 0 && r != -ERANGE && !run->given_up)
		count_failure(run, r);
	for (uint32_t c = run_chunk(run); run_left(run) > 0 && c < run->end;
	     c++) {
		struct flight *fl = flight_find(run->bf, c);

		if (fl && fl->run == run)
			flight_run_failed(fl, run, r, why ? why : "failed");
	}
	run_free(run);
}

/* Before bytes of the run are added to those the flight has. */
static void note_origin(struct flight *fl, const struct run *run)
{
	const struct source_request *rq = &run->rq;

	if (fl->have == 0) {
		fl->by = run->source_index;
		fl->place = rq->place;
	} else if (fl->by != run->source_index || fl->place != rq->place ||
		   fl->from != rq->from) {
		fl->by = FETCH_MAX_SOURCES;
		fl->place = 0;
	}
	if (fl->have == 0 || rq->from != CHUNK_FROM_UPSTREAM)
		fl->from = rq->from;
}

/* The flight that takes the next byte. NULL: the next *ret_skip bytes are not
 * needed. */
static struct flight *next_flight(struct run *run, uint64_t *ret_skip)
{
	struct flight *fl;

	if (run_sweeps(run))
		return sweep_flight(run, ret_skip);
	fl = flight_find(run->bf, run_chunk(run));
	BUG_ON(!fl || fl->run != run);
	return fl;
}

static bool on_data(struct source_request *rq, const void *bytes, size_t len)
{
	struct run *run = container_of(rq, struct run, rq);
	struct fetch *f = run->f;
	const uint8_t *p = bytes;
	size_t left = len, n;

	BUG_ON(len > rq->offset + rq->length - run->acked);
	/* After a refused piece the same bytes come again, and the beginning
	 * was taken already. (Taking it avoids a deadlock: a partly filled
	 * buffer that waits for the refused rest could block all other
	 * runs.) */
	n = min_u64(run->pos - run->acked, left);
	p += n;
	left -= n;
	while (left > 0) {
		struct flight *fl;
		uint64_t skip;

		if (run_left(run) == 0) {
			run->held = true;
			run->bf->held_pos = run->pos;
			return false;
		}
		fl = next_flight(run, &skip);
		if (!fl) {
			n = min_u64(left, skip);
			run->pos += n;
			p += n;
			left -= n;
			continue;
		}
		if (!fl->buf) {
			fl->buf = chunk_buf_get(f);
			if (!fl->buf) {
				set_paused(run, true);
				return false;
			}
		}
		n = min_u64(left, fl->len - fl->have);
		memcpy(fl->buf->data + fl->have, p, n);
		note_origin(fl, run);
		fl->have += (uint32_t)n;
		run->pos += n;
		run->taken += n;
		p += n;
		left -= n;
		f->fetched_bytes += n;
		metric_add(run->m_bytes, (double)n);
		if (run->background && !run_sweeps(run))
			f->wanted_bytes -= n;
		if (fl->have == fl->len)
			flight_received(fl);
		else
			flight_progress(fl);
	}
	run->acked += len;
	run->progress_ms = now_ms();
	return true;
}

static void set_source(struct run *run, unsigned int index)
{
	const char *labels[1];

	if (run->background && run->source)
		run->source->background_runs--;
	run->source_index = index;
	run->source = run->f->sources[index];
	if (run->background)
		run->source->background_runs++;
	labels[0] = run_name(run);
	run->m_bytes = metric_get(&m_bytes, labels);
}

/* Starts the run at the first source, from run->source_index on, that knows a
 * place for the blob. */
static int run_give(struct run *run)
{
	struct fetch *f = run->f;
	int worst = -ENOENT, r;

	for (unsigned int i = run->source_index; i < f->nsources; i++) {
		set_source(run, i);
		r = run->source->ops->start(run->source, &run->rq);
		if (r == 0)
			return 0;
		if (source_error_rank(r) > source_error_rank(worst))
			worst = r;
	}
	return worst;
}

/* Returns the first source from fl->source on that takes the flight, and how
 * many chunks make one request there. Returns the number of sources if none
 * takes it. */
static unsigned int source_of(const struct flight *fl, uint32_t *ret_extent)
{
	const struct fetch *f = fl->bf->f;
	uint32_t most = blob_chunks(fl->bf->blob) - fl->chunk;
	unsigned int i;

	*ret_extent = most;
	for (i = fl->source; i < f->nsources; i++) {
		struct source *s = f->sources[i];

		if (!s->ops->extent)
			break;
		*ret_extent = s->ops->extent(s, fl->bf->blob, fl->chunk, most,
					     fl->as_owner);
		if (*ret_extent > 0)
			break;
	}
	return i;
}

static bool is_full(const struct fetch *f, unsigned int source)
{
	const struct source *s;

	if (source >= f->nsources)
		return false;
	s = f->sources[source];
	return s->background_runs >=
	       (s->max_background ? s->max_background : f->cfg.workers);
}

/* Whether the flight may travel behind (or before) others in a run. Flights
 * that failed together retry together. */
static bool may_join(struct flight *fl, const struct flight *first,
		     unsigned int source)
{
	uint32_t extent;

	if (!fl || fl->have > 0 || fl->source != first->source ||
	    fl->as_owner != first->as_owner || source_of(fl, &extent) != source)
		return false;
	if (fl->state != FLIGHT_QUEUED && fl->state != FLIGHT_WANTED &&
	    !(fl->state == FLIGHT_RETRY &&
	      fl->retry_ms <= first->retry_ms + TICK_MS))
		return false;
	flight_choose_auth(fl);
	return source_auth_same(fl->auth, first->auth);
}

/* The kernel sends parallel reads in any order: starts with the first of the
 * neighbouring flights that reads wait for. */
static struct flight *run_first(struct flight *fl, unsigned int source)
{
	uint64_t bytes = fl->len;

	while (fl->have == 0 && fl->chunk > 0 && bytes < RUN_MAX_BYTES) {
		struct flight *before = flight_find(fl->bf, fl->chunk - 1);

		if (!may_join(before, fl, source) ||
		    before->state == FLIGHT_QUEUED)
			break;
		fl = before;
		bytes += fl->len;
	}
	return fl;
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

/* Takes up to `extent` flights, from fl on, whose chunks follow one another.
 * Returns the last of them. */
static const struct flight *run_fill(struct run *run, struct flight *fl,
				     uint32_t extent)
{
	const struct flight *first = fl, *last;
	struct source_request *rq = &run->rq;

	do {
		rq->length += fl->len - fl->have;
		rq->deadline_ms = latest_deadline(fl, rq->deadline_ms);
		run->end = fl->chunk + 1;
		fl->run = run;
		last = fl;
		flight_move(fl, FLIGHT_RUNNING);
		if (run->end == blob_chunks(rq->blob) || --extent == 0 ||
		    rq->length >= RUN_MAX_BYTES)
			break;
		fl = flight_find(run->bf, run->end);
	} while (may_join(fl, first, run->source_index));
	run->limit = run->end;
	return last;
}

/* Starts a run with the flight and its queued neighbours. Returns false if the
 * flight must wait for a free slot at its source. */
static bool run_start(struct flight *fl, bool background)
{
	struct blob_fetch *bf = fl->bf;
	struct fetch *f = bf->f;
	uint64_t now = now_ms();
	uint32_t extent;
	unsigned int source = source_of(fl, &extent);
	bool sweep;
	struct run *run;
	int r;

	flight_choose_auth(fl);
	if (stream_join(fl))
		return true;
	sweep = sweep_due(bf, source);
	if (sweep && bf->sweep)
		return sweep_join(fl, background);
	if (background && is_full(f, source))
		return false;
	run = calloc(1, sizeof(*run));
	if (!run) {
		fl->retry_ms = now + RETRY_FIRST_MS;
		flight_move(fl, FLIGHT_RETRY);
		return true;
	}
	if (!background && extent > 1 && !sweep) {
		fl = run_first(fl, source);
		(void)source_of(fl, &extent);
	}
	run->f = f;
	run->bf = bf;
	bf->users++;
	run->source_index = source;
	run->progress_ms = now;
	run->background = background;
	run->rq.blob = bf->blob;
	if (!sweep)
		run->rq.offset = (uint64_t)fl->chunk * CHUNK_SIZE + fl->have;
	run->rq.deadline_ms = now + f->cfg.read_timeout_ms;
	run->rq.background = background;
	run->rq.as_owner = fl->as_owner;
	run->rq.auth = source_auth_ref(fl->auth);
	run->rq.data = on_data;
	run->rq.done = on_done;
	run->pos = run->acked = run->rq.offset;
	if (sweep) {
		run->rq.length = blob_size(bf->blob);
		run->rq.deadline_ms = latest_deadline(fl, run->rq.deadline_ms);
		sweep_begin(run, fl);
	} else {
		stream_begin(run, run_fill(run, fl, extent));
	}
	run->rq.deadline_ms += run->rq.length / SLOW_BYTES_PER_MS;
	list_add_tail(&f->runs, &run->node);
	f->nruns++;
	if (run->background && !sweep)
		f->wanted_bytes += run->rq.length;
	r = run_give(run);
	if (r < 0)
		on_done(&run->rq, r, "no place for the blob is known");
	return true;
}

/* ---- All runs ---- */

/* Resumes paused runs as far as buffers are free, each in its turn. wanted:
 * only runs that a read waits for. */
static void resume_paused(struct fetch *f, bool wanted)
{
	struct list due;

	list_init(&due);
	list_for_each_safe (n, &f->runs) {
		const struct run *run = list_entry(n, struct run, node);

		if (!run->paused || (wanted && !run_wanted(run)))
			continue;
		list_del(n);
		list_add_tail(&due, n);
	}
	while (!list_empty(&due)) {
		struct run *run = list_first(&due, struct run, node);
		struct flight *fl = flight_find(run->bf, run_chunk(run));

		fl->buf = chunk_buf_get(f);
		if (!fl->buf)
			break;
		list_del(&run->node);
		list_add_tail(&f->runs, &run->node);
		set_paused(run, false);
		run->progress_ms = now_ms();
		run->source->ops->resume(run->source, &run->rq);
	}
	/* Runs that got no buffer stay at the head of the list. */
	list_move_all(&f->runs, &due);
	list_move_all(&due, &f->runs);
}

static bool all_full(const struct fetch *f)
{
	for (unsigned int i = 0; i < f->nsources; i++)
		if (!is_full(f, i))
			return false;
	return f->nsources > 0;
}

/* Starts prefetch, oldest first. A flight whose source has no free slot lets
 * others pass. A run takes several flights out of the list, so the walk begins
 * anew after each run. */
static void start_queued(struct fetch *f)
{
	struct list *head = &f->in[FLIGHT_QUEUED];
	struct list *n = head->next;

	for (unsigned int passed = 0; n != head && passed < MAX_PASSED &&
				      f->wanted_bytes < f->cfg.memory_bytes &&
				      !all_full(f);) {
		struct flight *fl = list_entry(n, struct flight, node);
		bool started = run_start(fl, true);

		n = started ? head->next : n->next;
		passed += !started;
	}
}

void runs_wake(struct fetch *f)
{
	if (f->stopping)
		return;
	while (f->n[FLIGHT_WANTED] > 0) {
		struct flight *fl =
			list_first(&f->in[FLIGHT_WANTED], struct flight, node);

		if (list_empty(&fl->waits))
			flight_free(fl); /* its reads were cancelled */
		else
			(void)run_start(fl, false);
	}
	if (f->npaused > 0) {
		resume_paused(f, true);
		resume_paused(f, false);
	}
	start_queued(f);
}

static bool is_stalled(const struct run *run, uint64_t now)
{
	const struct fetch *f = run->f;
	uint64_t limit = f->cfg.stall_ms;

	if (run->paused || run->held || run->cancelled || run_left(run) == 0)
		return false;
	if (run->pos == run->rq.offset)
		limit *= 3;
	if (now - run->progress_ms < limit)
		return false;
	/* Other runs may need its buffer. */
	return f->npaused > 0 || run_wanted(run) ||
	       now - run->progress_ms >= f->cfg.read_timeout_ms;
}

/* A registry that hangs must not keep all slots until its runs are cancelled.
 * This holds for upstream, the last source, only: a request to a member may
 * wait for its turn there. */
static bool is_idle(const struct run *run, uint64_t now)
{
	const struct fetch *f = run->f;

	return run->background && !run->paused && !run->cancelled &&
	       run->source_index + 1 == f->nsources &&
	       now - run->progress_ms >= f->cfg.stall_ms / 2;
}

/* Readers waited for it, and all of them gave up. */
static bool is_given_up(const struct run *run)
{
	bool any = false;

	if (run->background || run->held || run->cancelled ||
	    run_left(run) == 0)
		return false;
	for (uint32_t c = run_chunk(run); c < run->end; c++) {
		const struct flight *fl = flight_find(run->bf, c);

		any |= fl && fl->run == run && fl->given_up;
	}
	return any && !run_wanted(run);
}

/* The latest go on, because half of their bytes may be here. */
static void end_given_up(struct fetch *f)
{
	unsigned int n = 0;

	for (struct list *it = f->runs.prev; it != &f->runs; it = it->prev) {
		struct run *run = list_entry(it, struct run, node);

		if (!is_given_up(run) || ++n <= MAX_GIVEN_UP)
			continue;
		run->given_up = true;
		run_cancel(run);
	}
}

void runs_tick(struct fetch *f, uint64_t now)
{
	end_given_up(f);
	list_for_each (n, &f->runs) {
		struct run *run = list_entry(n, struct run, node);

		if (stream_over(run, now))
			stream_stop(run);
		else if (is_stalled(run, now))
			run_cancel(run);
		else if (is_idle(run, now))
			give_turn(run);
	}
	list_for_each_safe (n, &f->in[FLIGHT_RETRY]) {
		struct flight *fl = list_entry(n, struct flight, node);

		if (list_empty(&fl->waits))
			flight_free(fl);
		else if (fl->retry_ms <= now)
			flight_move(fl, FLIGHT_WANTED);
	}
}
