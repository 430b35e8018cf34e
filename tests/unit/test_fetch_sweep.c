/* Blobs without ranges: see fetch/sweep.c. */
#include "tests/unit/fetch-rig.h"

static bool no_ranges;

static bool fake_sweeps(struct source *s, struct blob *b)
{
	(void)s;
	(void)b;
	return no_ranges;
}

static const struct source_ops sweep_ops = {
	.name = "fake",
	.start = fake_start,
	.resume = fake_resume,
	.blame = fake_blame,
	.cancel = fake_cancel,
	.sweeps = fake_sweeps,
};

static void open_rig(struct rig *rig, struct content *c, uint64_t size,
		     bool known)
{
	rig_new(rig);
	rig->fakes[0].source.ops = &sweep_ops;
	content_init(rig, c, BLOB_URL, 7, size);
	no_ranges = known;
}

/* The only request, for the whole blob. */
static struct ask *sweep_of(struct rig *rig, const struct content *c)
{
	struct ask *a;

	UNTIL(rig, asks(&rig->fakes[0]) == 1);
	a = ask_of(&rig->fakes[0], 0);
	EQ(a->rq->offset, 0);
	EQ(a->rq->length, c->size);
	return a;
}

/* Up to that position. A buffer may have to come free first. */
static void flow_to(struct rig *rig, struct ask *a, uint64_t pos)
{
	while (a->sent < pos) {
		if (!a->paused)
			(void)give(a, min_u64(100003, pos - a->sent));
		turn_wait(rig, false);
	}
}

/* Requests for ranges end; one for the whole blob serves all. */
static void found_out(void)
{
	struct reader far = {0}, near = {0}, late = {0};
	struct content c;
	struct rig rig;
	struct ask *a;

	open_rig(&rig, &c, 20 * MIB + 17, false);
	start_read(&rig, &far, &c, 18 * MIB + 5, 100);
	start_read(&rig, &near, &c, 3 * MIB + 5, 100);
	turns(&rig);
	EQ(asks(&rig.fakes[0]), 2);
	no_ranges = true;
	answer(ask_of(&rig.fakes[0], 1), -ERANGE);
	answer(ask_of(&rig.fakes[0], 0), -ERANGE);
	a = sweep_of(&rig, &c);
	flow_to(&rig, a, 4 * MIB);
	UNTIL(&rig, near.calls == 1);
	EQ(far.calls, 0);
	start_read(&rig, &late, &c, 10 * MIB, 100);
	turns(&rig);
	EQ(asks(&rig.fakes[0]), 1);
	flow_to(&rig, a, c.size);
	answer(a, 0);
	UNTIL(&rig, idle(&rig));
	OK(near.r == 0 && far.r == 0 && late.r == 0);
	OK(far.calls == 1 && late.calls == 1);
	EQ(blob_missing(c.b), 0);
	EQ(rig.fakes[0].starts, 3);
	EQ(rig.fakes[0].sent, c.size);
	rig_release(&rig);
}

/* After a break the next one begins at 0, and skips what is held. */
static void breaks_off(void)
{
	struct reader r = {0};
	struct content c;
	struct rig rig;
	struct fetch_stats st;
	struct ask *a;

	open_rig(&rig, &c, 12 * MIB, true);
	start_read(&rig, &r, &c, 9 * MIB, 100);
	a = sweep_of(&rig, &c);
	flow_to(&rig, a, 5 * MIB + 500000);
	answer(a, -ECONNRESET);
	a = sweep_of(&rig, &c);
	flow_to(&rig, a, c.size);
	answer(a, 0);
	UNTIL(&rig, idle(&rig));
	OK(r.calls == 1 && r.r == 0);
	EQ(blob_missing(c.b), 0);
	EQ(rig.fakes[0].starts, 2);
	fetch_stats(rig.fetch, &st);
	OK(st.fetched_bytes <= c.size + MIB); /* of one chunk, twice */
	rig_release(&rig);
}

/* Prefetch that breaks off at the same place again ends. */
static void not_for_ever(void)
{
	struct content c;
	struct rig rig;
	struct ask *a;

	open_rig(&rig, &c, 12 * MIB, true);
	fetch_prefetch(rig.fetch, c.b, 0, c.size);
	for (int i = 0; i < 2; i++) {
		a = sweep_of(&rig, &c);
		flow_to(&rig, a, 5 * MIB);
		UNTIL(&rig, blob_has(c.b, 4));
		answer(a, -ECONNRESET);
	}
	UNTIL(&rig, idle(&rig));
	EQ(rig.fakes[0].starts, 2);
	rig_release(&rig);
}

/* A read of what the sweep has passed waits for the next one. */
static void passed(void)
{
	struct reader r = {0};
	struct content c;
	struct rig rig;
	struct ask *a;

	open_rig(&rig, &c, 8 * MIB, true);
	fetch_prefetch(rig.fetch, c.b, 6 * MIB, MIB);
	a = sweep_of(&rig, &c);
	flow_to(&rig, a, 4 * MIB);
	UNTIL(&rig, blob_has(c.b, 3));
	EQ(store_evict(rig.store, c.b), 0);
	start_read(&rig, &r, &c, MIB, 100);
	for (int i = 0; i < 20; i++)
		turns(&rig);
	EQ(asks(&rig.fakes[0]), 1);
	flow_to(&rig, a, c.size);
	answer(a, 0);
	a = sweep_of(&rig, &c);
	flow_to(&rig, a, c.size);
	answer(a, 0);
	UNTIL(&rig, idle(&rig));
	OK(r.calls == 1 && r.r == 0);
	EQ(blob_missing(c.b), 0);
	rig_release(&rig);
}

int main(void)
{
	rig_begin("test_fetch_sweep");
	RUN(found_out);
	RUN(breaks_off);
	RUN(not_for_ever);
	RUN(passed);
	return t_end();
}
