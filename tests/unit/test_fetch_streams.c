/* Long requests for steady sequential readers: see fetch/stream.c. */
#include "tests/unit/fetch-rig.h"

/* Sends what the engine wants now. A cancelled request is gone in the next
 * turn. */
static void flow(struct rig *rig, struct ask *a)
{
	do {
		while (!a->paused && !a->canceled && !all_given(a))
			(void)give(a, 100003);
		for (int i = 0; i < 20 && !a->canceled; i++)
			turn_wait(rig, false);
	} while (!a->paused && !a->canceled && !all_given(a));
}

static struct ask *stream_of(struct rig *rig, struct content *c, uint64_t size,
			     uint64_t want)
{
	rig_new(rig);
	content_init(rig, c, BLOB_URL, 5, size);
	fetch_prefetch_steady(rig->fetch, c->b, 0, want);
	turns(rig);
	EQ(asks(&rig->fakes[0]), 1);
	return ask_of(&rig->fakes[0], 0);
}

/* One request brought the blob, and no byte twice. */
static void ends_whole(struct rig *rig, const struct content *c, struct ask *a)
{
	OK(all_given(a));
	answer(a, 0);
	UNTIL(rig, idle(rig));
	EQ(blob_missing(c->b), 0);
	EQ(rig->fakes[0].starts, 1);
	EQ(rig->fakes[0].sent, c->size);
}

/* One request for all; bytes that no reader wants yet stay at the source. */
static void one_request(void)
{
	struct content c;
	struct rig rig;
	struct ask *a = stream_of(&rig, &c, 20 * MIB + 17, 4 * MIB);

	EQ(a->rq->offset, 0);
	EQ(a->rq->length, 20 * MIB + 17);
	OK(a->rq->background);
	flow(&rig, a);
	OK(a->paused);
	UNTIL(&rig, blob_missing(c.b) == 17);
	EQ(idle(&rig), false);
	for (uint64_t at = 4 * MIB; at < c.size; at += 4 * MIB) {
		fetch_prefetch_steady(rig.fetch, c.b, at, 4 * MIB);
		turns(&rig);
		OK(!a->paused);
		flow(&rig, a);
	}
	ends_whole(&rig, &c, a);
	EQ(read_now(&rig, &c, 20 * MIB - 5, 22), 0);
	rig_release(&rig);
}

/* A reader that overtakes the window uses the stream; one far ahead does not.
 * Where that one was faster the stream ends without a failure. */
static void readers_of_it(void)
{
	struct content c;
	struct reader next = {0}, far = {0};
	struct fetch_stats st;
	struct rig rig;
	struct ask *a = stream_of(&rig, &c, 20 * MIB, 2 * MIB);

	start_read(&rig, &next, &c, 2 * MIB, 100);
	start_read(&rig, &far, &c, 3 * MIB + 5, 100);
	turns(&rig);
	OK(!a->rq->background);
	EQ(asks(&rig.fakes[0]), 1);
	flow(&rig, a);
	UNTIL(&rig, next.calls == 1 && far.calls == 1);
	OK(next.r == 0 && far.r == 0);
	OK(a->paused);

	memset(&far, 0, sizeof(far));
	start_read(&rig, &far, &c, 16 * MIB, 100);
	turns(&rig);
	EQ(asks(&rig.fakes[0]), 2);
	OK(a->paused);
	fetch_prefetch_steady(rig.fetch, c.b, 4 * MIB, 15 * MIB);
	turns(&rig);
	OK(!a->paused);
	flow(&rig, a);
	OK(a->sent > 16 * MIB - 100003);
	UNTIL(&rig, a->canceled);
	rig.fakes[0].behave = honest;
	UNTIL(&rig, idle(&rig));
	for (uint32_t i = 0; i < 19; i++)
		OK(blob_has(c.b, i));
	fetch_stats(rig.fetch, &st);
	EQ(st.failed_runs, 0);
	OK(far.r == 0 && far.calls == 1);
	rig_release(&rig);
}

/* Reads come in any order: one a little ahead of the others makes the stream
 * bring the bytes between too, and nothing is requested twice. Prefetch for
 * another reader does the same. */
static void leaps(void)
{
	struct content c;
	struct reader ahead = {0}, behind = {0};
	struct rig rig;
	struct ask *a = stream_of(&rig, &c, 30 * MIB, 2 * MIB);

	flow(&rig, a);
	OK(a->paused);
	start_read(&rig, &ahead, &c, 5 * MIB + 5, 100);
	turns(&rig);
	start_read(&rig, &behind, &c, 3 * MIB, 100);
	turns(&rig);
	OK(!a->paused);
	flow(&rig, a);
	UNTIL(&rig, ahead.calls == 1 && behind.calls == 1);
	OK(ahead.r == 0 && behind.r == 0);

	fetch_prefetch_steady(rig.fetch, c.b, 6 * MIB, 12 * MIB);
	fetch_prefetch(rig.fetch, c.b, 18 * MIB, MIB);
	turns(&rig);
	EQ(asks(&rig.fakes[0]), 1);
	fetch_prefetch_steady(rig.fetch, c.b, 19 * MIB, 11 * MIB);
	turns(&rig);
	flow(&rig, a);
	ends_whole(&rig, &c, a);
	rig_release(&rig);
}

/* The connection is not kept without a reader. */
static void ends_when_forgotten(void)
{
	struct content c;
	struct fetch_stats st;
	struct rig rig;
	struct ask *a = stream_of(&rig, &c, 20 * MIB, 2 * MIB);

	fetch_prefetch_cancel(rig.fetch, c.b);
	turns(&rig);
	OK(!a->canceled); /* it brings wanted bytes first */
	flow(&rig, a);
	OK(a->paused);
	fetch_prefetch_cancel(rig.fetch, c.b);
	OK(a->canceled);
	UNTIL(&rig, idle(&rig));

	fetch_prefetch_steady(rig.fetch, c.b, 2 * MIB, 2 * MIB);
	turns(&rig);
	a = ask_of(&rig.fakes[0], 0);
	EQ(a->rq->length, 18 * MIB);
	flow(&rig, a);
	UNTIL(&rig, a->canceled); /* after a while */
	UNTIL(&rig, idle(&rig));
	fetch_stats(rig.fetch, &st);
	EQ(st.failed_runs, 0);
	OK(rig.fakes[0].sent <= 4 * MIB);
	EQ(blob_next_missing(c.b, 0), 4);
	rig_release(&rig);
}

/* The registry aborts: while the stream is held back nothing happens; else the
 * rest of the wanted bytes is requested again. */
static void breaks_off(void)
{
	struct content c;
	struct fetch_stats st;
	struct rig rig;
	struct ask *a = stream_of(&rig, &c, 20 * MIB, 2 * MIB);

	flow(&rig, a);
	OK(a->paused);
	answer(a, -ECONNRESET);
	UNTIL(&rig, idle(&rig));
	fetch_stats(rig.fetch, &st);
	EQ(st.failed_runs, 0);

	fetch_prefetch_steady(rig.fetch, c.b, 2 * MIB, 4 * MIB);
	turns(&rig);
	a = ask_of(&rig.fakes[0], 0);
	OK(give(a, MIB + 5));
	answer(a, -ECONNRESET);
	turns(&rig);
	a = ask_of(&rig.fakes[0], 0);
	EQ(a->rq->offset, 3 * MIB + 5);
	flow(&rig, a);
	UNTIL(&rig, blob_next_missing(c.b, 0) == 6);
	fetch_stats(rig.fetch, &st);
	EQ(st.failed_runs, 1);
	rig_release(&rig);
}

/* Readers wait although the stream was never held back: parallel requests are
 * better. Bytes requested before are not requested again. */
static void too_slow(void)
{
	struct content c;
	struct reader r = {0};
	struct rig rig;
	struct ask *a = stream_of(&rig, &c, 300 * MIB, 30 * MIB), *b;

	EQ(a->rq->length, 64 * MIB);
	fetch_prefetch_steady(rig.fetch, c.b, 30 * MIB, 44 * MIB);
	turns(&rig);
	EQ(asks(&rig.fakes[0]), 2); /* the next one is in flight */
	b = ask_of(&rig.fakes[0], 1);
	EQ(b->rq->offset, 64 * MIB);
	EQ(b->rq->length, 64 * MIB);
	flow(&rig, a);
	OK(all_given(a));
	answer(a, 0);
	while (b->sent < 5 * MIB) {
		OK(give(b, 300007));
		turn_wait(&rig, false);
	}
	start_read(&rig, &r, &c, 70 * MIB, 100);
	turns(&rig);
	for (uint64_t at = 74 * MIB; at < 200 * MIB; at += 2 * MIB) {
		fetch_prefetch_steady(rig.fetch, c.b, at, 2 * MIB);
		turns(&rig);
	}
	EQ(b->rq->length, 64 * MIB);
	OK(asks(&rig.fakes[0]) >= 3);
	rig.fakes[0].behave = honest;
	UNTIL(&rig, idle(&rig));
	EQ(blob_next_missing(c.b, 0), 200);
	EQ(r.r, 0);
	EQ(rig.fakes[0].sent, 200 * MIB);
	rig_release(&rig);
}

int main(void)
{
	rig_begin("test_fetch_streams");
	RUN(one_request);
	RUN(readers_of_it);
	RUN(leaps);
	RUN(ends_when_forgotten);
	RUN(breaks_off);
	RUN(too_slow);
	return t_end();
}
