/* Streams: long range requests for steady sequential readers.
 *
 * Each request costs the registry and this node some time, and leaves a gap
 * between two replies. So a steady reader gets long requests: flights join the
 * request as the reader's window moves on. Where there is no flight yet, the
 * bytes stay in the connection, so that TCP flow control holds the registry
 * back.
 *
 * A stream ends early when no reader wants more of it for a while, or when
 * another request has fetched its next chunk. The bytes sent meanwhile, up to
 * some MiB in the buffers of the two systems, are then wasted. So the request
 * is long enough to be worth this loss. It is short enough to end soon on a
 * slow network, where several requests in parallel may be faster.
 *
 * Streams are used only when upstream is the only source: with members, this
 * node must not fetch the stripes of other owners. */
#include "fetch/fetch-private.h"

/* The longest request, in chunks. */
#define STREAM_CHUNKS 64
/* A stream that is held back for so long is ended. */
#define STREAM_IDLE_MS 5000
/* If readers wait for streams that were not held back for so many bytes, one
 * connection is slower than the reader; several requests in parallel are
 * better. */
#define STREAM_SLOW_BYTES (UINT64_C(64) << 20)
/* A stream reaches a chunk at most so far ahead sooner than a new request
 * would. */
#define STREAM_NEAR (UINT64_C(8) << 20)

void stream_hurry(const struct run *run)
{
	struct blob_fetch *bf = run->bf;

	if (bf->stream == run && run->pos - bf->held_pos >= STREAM_SLOW_BYTES)
		bf->no_streams = true;
}

void stream_end(struct run *run)
{
	if (run->bf->stream != run)
		return;
	run->bf->stream = NULL;
	run->f->nstreams--;
}

void stream_begin(struct run *run, const struct flight *last)
{
	const struct blob *b = run->rq.blob;
	struct blob_fetch *bf = run->bf;
	struct fetch *f = run->f;
	uint32_t end = (uint32_t)min_u64(
		blob_chunks(b), (uint64_t)run_chunk(run) + STREAM_CHUNKS);

	if (!last->steady || !run->background || bf->stream || bf->no_streams ||
	    f->nsources > 1 || f->nstreams >= f->cfg.workers)
		return;
	while (run->limit < end && !blob_has(b, run->limit)) {
		const struct flight *fl = flight_find(bf, run->limit);

		if (fl && fl->state != FLIGHT_QUEUED)
			break;
		run->limit++;
	}
	if (run->limit == run->end)
		return;
	run->rq.length =
		min_u64((uint64_t)run->limit * CHUNK_SIZE, blob_size(b)) -
		run->rq.offset;
	bf->stream = run;
	if (run_chunk(run) != bf->streamed)
		bf->held_pos = run->pos;
	bf->streamed = run->limit;
	f->nstreams++;
	/* It lasts as long as its reader, so it takes no background slot from
	 * others. */
	run->background = false;
}

static bool stream_takes(const struct run *run, struct flight *fl)
{
	if (fl->have > 0 || fl->source > 0 || fl->as_owner ||
	    (fl->state != FLIGHT_QUEUED && fl->state != FLIGHT_WANTED))
		return false;
	flight_choose_auth(fl);
	return source_auth_same(fl->auth, run->rq.auth);
}

/* Whether the stream may take all chunks before `until`. Gaps come from reads
 * that overtook other reads, or the window. */
static bool stream_fills(const struct run *run, uint32_t until)
{
	for (uint32_t c = run->end; c < until; c++) {
		struct flight *fl = flight_find(run->bf, c);

		if (fl ? !stream_takes(run, fl) : blob_has(run->rq.blob, c))
			return false;
	}
	return true;
}

static void stream_take(struct run *run, struct flight *fl)
{
	fl->run = run;
	flight_move(fl, FLIGHT_RUNNING);
	run->end++;
	if (!list_empty(&fl->waits))
		run_hurry(run, false);
	/* The stream has all its flights now; another one may begin at its
	 * end. */
	if (run->end == run->limit)
		stream_end(run);
	if (run->held) {
		run->held = false;
		run->progress_ms = now_ms();
		run->source->ops->resume(run->source, &run->rq);
	}
}

bool stream_join(struct flight *fl)
{
	struct run *run = fl->bf->stream;
	uint32_t chunk = fl->chunk;
	bool near;

	if (!run || run->cancelled || chunk < run->end || chunk >= run->limit ||
	    !stream_takes(run, fl))
		return false;
	near = (uint64_t)chunk * CHUNK_SIZE - run->pos < STREAM_NEAR;
	if (!near &&
	    (chunk > run->end || (!fl->steady && !list_empty(&fl->waits))))
		return false;
	if (!stream_fills(run, chunk))
		return false;
	while (run->end < chunk) {
		struct flight *before = flight_find(run->bf, run->end);

		if (!before) {
			before = flight_new(run->bf, run->end);
			if (!before)
				return false;
			before->auth = source_auth_ref(run->rq.auth);
		}
		stream_take(run, before);
	}
	stream_take(run, fl);
	return true;
}

void stream_stop(struct run *run)
{
	stream_end(run);
	run->bf->streamed = UINT32_MAX; /* no stream continues this one */
	run_cancel(run);
}

void stream_forget(struct blob_fetch *bf)
{
	if (bf->stream && bf->stream->held)
		stream_stop(bf->stream);
}

bool stream_over(const struct run *run, uint64_t now)
{
	return run->held && !run->cancelled &&
	       (now - run->progress_ms >= STREAM_IDLE_MS ||
		blob_has(run->rq.blob, run->end) ||
		flight_find(run->bf, run->end));
}
