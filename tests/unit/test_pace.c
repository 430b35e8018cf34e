/* The measured pace of members: p2p/pace.h. */
#include "p2p/pace.h"
#include "tests/unit/tap.h"

static void slots(struct pace *p, unsigned int n, uint64_t bytes, uint32_t ms)
{
	while (n--) {
		pace_add(p, bytes);
		pace_slot(p, ms);
	}
}

static void test_rate(void)
{
	struct pace p = {0};

	OK(pace_rate(&p, 0) < 0);
	pace_add(&p, 4096);
	OK(pace_rate(&p, 0) < 0); /* a part of a slot does not count */
	pace_slot(&p, 100);
	OK(pace_rate(&p, 1) == 40960);
	OK(pace_rate(&p, 2) < 0);
	/* No bytes came while a request waited. */
	pace_slot(&p, 100);
	OK(pace_rate(&p, 2) == 20480);
	/* Longer samples weigh more. */
	pace_add(&p, 4096);
	pace_slot(&p, 200);
	OK(pace_rate(&p, 3) == 20480);
}

static void test_only_what_is_waited_for(void)
{
	struct pace p = {0};

	slots(&p, 3, 1000, 100);
	pace_break(&p);
	pace_slot(&p, 100);
	OK(pace_rate(&p, 4) < 0);
	OK(pace_rate(&p, 3) == 10000);
	/* The next one counts again. */
	slots(&p, 1, 1000, 100);
	OK(pace_rate(&p, 4) == 10000);
}

static void test_old_slots_are_forgotten(void)
{
	struct pace p = {0};

	slots(&p, 40, 1000000, 100);
	OK(pace_rate(&p, PACE_SLOTS) == 10000000);
	slots(&p, PACE_SLOTS, 10, 100);
	OK(pace_rate(&p, PACE_SLOTS) == 100);
	for (int i = 0; i < PACE_SLOTS; i++) {
		pace_break(&p);
		pace_slot(&p, 100);
	}
	OK(pace_rate(&p, 0) < 0);
}

static void test_slots_follow_what_is_normal(void)
{
	EQ(pace_slot_ms(0), 100);
	EQ(pace_slot_ms(30), 100);
	EQ(pace_slot_ms(2700), 450);
	EQ(pace_slot_ms(UINT64_MAX), 1000);
}

int main(void)
{
	RUN(test_rate);
	RUN(test_only_what_is_waited_for);
	RUN(test_old_slots_are_forgotten);
	RUN(test_slots_follow_what_is_normal);
	return tap_done();
}
