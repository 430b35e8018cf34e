#include "http/deadline.h"

#include "base/util.h"
#include "tests/unit/tap.h"

static char why[128];

/* The second check, as the loop does it. */
static bool over(struct deadline *d, uint64_t now)
{
	if (deadline_check(d, now, why, sizeof(why)))
		return true;
	return d->late && deadline_check(d, now + 1, why, sizeof(why));
}

static struct deadline started(uint64_t now)
{
	struct deadline d = {
		.first_byte_ms = 500,
		.low_speed_bytes = 100,
		.low_speed_seconds = 3,
	};

	deadline_start(&d, now);
	return d;
}

static void test_nothing_to_wait_for(void)
{
	struct deadline d = started(1000);

	EQ(deadline_wait_ms(&d, 1000), UINT64_MAX);
	OK(!over(&d, 1000000)); /* queued for a connection */
	EQ(deadline_wait_ms(&d, 1000000), UINT64_MAX);
}

static void test_first_byte(void)
{
	struct deadline d = started(1000);

	deadline_sent(&d, 5000);
	EQ(deadline_wait_ms(&d, 5000), 500);
	EQ(deadline_wait_ms(&d, 5400), 100);
	OK(!over(&d, 5499));
	EQ(deadline_wait_ms(&d, 9999), 0);
	/* Only the second check counts. */
	OK(!deadline_check(&d, 9999, why, sizeof(why)));
	EQ(deadline_wait_ms(&d, 9999), 1);
	OK(deadline_check(&d, 10000, why, sizeof(why)));
	STREQ(why, "no response within 500 ms of the request");
}

/* The loop could not run; the head was in the socket's buffer. */
static void test_head_at_second_look(void)
{
	struct deadline d = started(0);

	deadline_sent(&d, 0);
	OK(!deadline_check(&d, 60000, why, sizeof(why)));
	deadline_head(&d, 60000);
	OK(!deadline_check(&d, 60001, why, sizeof(why)));
	EQ(deadline_wait_ms(&d, 60001), 1000);
}

/* curl sends a request again if a kept connection was dead. */
static void test_sent_again(void)
{
	struct deadline d = started(0);

	deadline_sent(&d, 0);
	deadline_sent(&d, 400);
	OK(!over(&d, 800));
	OK(over(&d, 900));
}

static void test_total(void)
{
	struct deadline d = started(1000);

	d.total_ms = 2000;
	EQ(deadline_wait_ms(&d, 1000), 2000);
	deadline_sent(&d, 2800);
	EQ(deadline_wait_ms(&d, 2800), 200);
	OK(!over(&d, 2999));
	OK(over(&d, 3000));
	STREQ(why, "not finished within 2000 ms");

	/* The deadline also counts while paused. */
	d = started(0);
	d.total_ms = 2000;
	deadline_head(&d, 0);
	deadline_pause(&d, 0);
	EQ(deadline_wait_ms(&d, 0), 2000);
	OK(over(&d, 2000));
}

/* Feeds so many bytes in each of n seconds from *now on; true when stalled. */
static bool seconds(struct deadline *d, uint64_t *now, int n, size_t bytes)
{
	while (n-- > 0) {
		deadline_bytes(d, bytes);
		*now += 1000;
		if (deadline_check(d, *now, why, sizeof(why)))
			return true;
	}
	return false;
}

static void test_low_speed(void)
{
	struct deadline d = started(0);
	uint64_t now = 0;

	deadline_sent(&d, 0);
	deadline_head(&d, 0);
	OK(!seconds(&d, &now, 100, 100));
	OK(!seconds(&d, &now, 2, 99));
	OK(!seconds(&d, &now, 1, 100)); /* starts again */
	OK(!seconds(&d, &now, 2, 0));
	OK(seconds(&d, &now, 1, 0));
	STREQ(why, "less than 100 bytes a second for 3 s");
}

/* Checked more often than once in a window. */
static void test_low_speed_in_small_steps(void)
{
	struct deadline d = started(0);
	uint64_t now = 0;

	deadline_head(&d, 0);
	while (now < 60000 && !deadline_check(&d, now, why, sizeof(why)))
		now += 10;
	EQ(now, 3000);
}

static void test_paused_time_does_not_count(void)
{
	struct deadline d = started(0);
	uint64_t now = 0;

	deadline_head(&d, 0);
	OK(!seconds(&d, &now, 2, 0));
	deadline_pause(&d, now);
	deadline_pause(&d, now + 10);
	EQ(deadline_wait_ms(&d, now), UINT64_MAX);
	OK(!seconds(&d, &now, 1000, 0));
	deadline_resume(&d, now);
	EQ(deadline_wait_ms(&d, now), 1000);
	OK(!deadline_check(&d, now + 999, why, sizeof(why)));
	OK(deadline_check(&d, now + 1000, why, sizeof(why)));
}

/* If the reader takes a little at intervals, the reader is slow, not the
 * sender. */
static void test_slow_reader(void)
{
	struct deadline d = started(0);
	uint64_t now = 0;

	deadline_head(&d, 0);
	for (int i = 0; i < 1000; i++) {
		deadline_bytes(&d, 10);
		deadline_pause(&d, now);
		now += 5000;
		OK(!deadline_check(&d, now, why, sizeof(why)));
		deadline_resume(&d, now);
		now += 1;
	}
}

/* A minute without a turn of the loop is not a stall of a minute. */
static void test_stretched_window(void)
{
	struct deadline d = started(0);

	deadline_head(&d, 0);
	OK(!deadline_check(&d, 60000, why, sizeof(why)));
	deadline_bytes(&d, 100000);
	OK(!deadline_check(&d, 61000, why, sizeof(why)));
}

int main(void)
{
	RUN(test_nothing_to_wait_for);
	RUN(test_first_byte);
	RUN(test_head_at_second_look);
	RUN(test_sent_again);
	RUN(test_total);
	RUN(test_low_speed);
	RUN(test_low_speed_in_small_steps);
	RUN(test_paused_time_does_not_count);
	RUN(test_slow_reader);
	RUN(test_stretched_window);
	return tap_done();
}
