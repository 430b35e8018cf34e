#include "fetch/readahead.h"

#include "store/store.h"
#include "tests/unit/tap.h"

#define MIB  (UINT64_C(1) << 20)
#define SIZE (1024 * MIB)

static uint64_t off, len;
static bool steady;

static bool note_of(struct readahead *ra, uint64_t o, uint64_t l, uint64_t size,
		    bool waited)
{
	struct readahead_want want;

	if (!readahead_note(ra, o, l, size, 64 * MIB, waited, &want))
		return false;
	off = want.off;
	len = want.len;
	steady = want.steady;
	return true;
}

static bool note(struct readahead *ra, uint64_t o, uint64_t l)
{
	return note_of(ra, o, l, SIZE, true);
}

/* A single read prefetches nothing beyond its range. */
static void test_single_read(void)
{
	struct readahead ra = {0};

	OK(!note(&ra, 300 * MIB, 4096));
	OK(!note(&ra, 700 * MIB, 4096));
}

/* A sequential reader's window grows up to the limit, and the ranges follow
 * one another without a gap or an overlap. */
static void test_sequential(void)
{
	struct readahead ra = {0};
	uint64_t at = MIB, biggest = 0;

	for (uint64_t o = 0; o < SIZE; o += 128 << 10) {
		if (!note(&ra, o, 128 << 10))
			continue;
		EQ(off, at);
		EQ(off % CHUNK_SIZE, 0);
		at = off + len;
		if (at - o > biggest)
			biggest = at - o;
	}
	EQ(at, SIZE);
	OK(biggest >= 60 * MIB && biggest <= 66 * MIB);
}

static void test_random(void)
{
	struct readahead ra = {0};
	unsigned int fired = 0;
	uint64_t x = 88172645463325252;

	for (int i = 0; i < 1000; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		fired += note(&ra, x % (SIZE * 64) / 64 / 4096 * 4096, 4096);
	}
	OK(fired < 60);
}

static void test_two_streams(void)
{
	struct readahead ra = {0};
	uint64_t a = MIB, b = 513 * MIB;

	for (uint64_t o = 0; o < 100 * MIB; o += 1 << 18) {
		if (note(&ra, o, 1 << 18)) {
			EQ(off, a);
			a = off + len;
		}
		if (note(&ra, 512 * MIB + o, 1 << 18)) {
			EQ(off, b);
			b = off + len;
		}
	}
	OK(a >= 100 * MIB && b >= 612 * MIB);
}

static void test_out_of_order(void)
{
	struct readahead ra = {0};
	uint64_t at = MIB;

	for (uint64_t o = 0; o + MIB < 200 * MIB; o += MIB) {
		uint64_t x = o ^ (1 << 19); /* halves swapped */

		if (note(&ra, x, 1 << 19)) {
			OK(off >= at);
			at = off + len;
		}
		(void)note(&ra, o, 1 << 19);
	}
	OK(at > 64 * MIB);
}

static void test_file_end(void)
{
	struct readahead ra = {0};
	uint64_t size = 5 * MIB + 17, at = 0;

	for (uint64_t o = 0; o < size; o += 65536)
		if (note_of(&ra, o, 65536, size, true))
			at = off + len;
	EQ(at, size);
	OK(!note_of(&ra, size, 10, size, true));
}

/* Wherever a reader stops, at least as many bytes as it has read are requested
 * ahead of it; never only the rest of a window. */
static void test_small_steps(void)
{
	struct readahead ra = {0};
	uint64_t horizon = MIB;

	for (uint64_t o = 0; o < SIZE - 64 * MIB; o += 128 << 10) {
		if (note(&ra, o, 128 << 10))
			horizon = off + len;
		if (o >= 8 * MIB)
			OK(horizon >= o + min_u64(o * 5 / 4, 54 * MIB));
	}
}

/* A reader that never waits is slower than the source: no more is fetched ahead
 * than it needs. */
static void test_steady(void)
{
	struct readahead ra = {0};
	uint64_t o = 0, most = 0, horizon = 0, began = SIZE;

	for (; o < 200 * MIB; o += MIB)
		if (note_of(&ra, o, MIB, SIZE, true)) {
			horizon = off + len;
			most = max_u64(most, len);
			if (steady)
				began = min_u64(began, o);
			OK(steady == (o >= began));
		}
	EQ(horizon > o + 32 * MIB, true);
	OK(most <= 24 * MIB);
	OK(began > READAHEAD_STEADY / 2 && began < 32 * MIB);
	for (; o < 400 * MIB; o += MIB)
		(void)note_of(&ra, o, MIB, SIZE, false);
	for (; o < 600 * MIB; o += MIB) {
		if (!note_of(&ra, o, MIB, SIZE, false))
			continue;
		EQ(off, horizon > off ? horizon : off);
		horizon = off + len;
		OK(steady);
		OK(horizon - o <= READAHEAD_STEADY + 2 * MIB);
	}
	/* It waits now and then. */
	for (; o < 700 * MIB; o += MIB)
		if (note_of(&ra, o, MIB, SIZE, o % (8 * MIB) == 0))
			horizon = off + len;
	OK(horizon > o + 48 * MIB);
	/* The network has become slower. */
	for (; o < 900 * MIB; o += MIB)
		if (note_of(&ra, o, MIB, SIZE, true)) {
			horizon = off + len;
		}
	OK(horizon > o + 32 * MIB);
}

/* A cache of little more than a chunk. */
static void test_small_window(void)
{
	struct readahead ra = {0};
	struct readahead_want want;
	uint64_t ahead = 0;

	for (uint64_t o = 0; o < 64 * MIB; o += 128 << 10)
		if (readahead_note(&ra, o, 128 << 10, SIZE, MIB / 4, true,
				   &want))
			ahead += want.len;
	OK(ahead >= 60 * MIB);
}

int main(void)
{
	RUN(test_single_read);
	RUN(test_sequential);
	RUN(test_random);
	RUN(test_two_streams);
	RUN(test_out_of_order);
	RUN(test_file_end);
	RUN(test_small_steps);
	RUN(test_steady);
	RUN(test_small_window);
	return tap_done();
}
