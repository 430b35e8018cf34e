/* The verdict "slow": p2p/slow.c, on made-up partners. The test sets the time,
 * except for reports, which the clock dates. */
#include "p2p/peers-private.h"
#include "tests/unit/tap.h"

#define MEMBERS	  8
#define NORMAL_MS 100
#define SLOT_MS	  100
#define CROWD	  (200u << 10) /* bytes a slot */

/* The fields of a struct peers that p2p/slow.c uses. */
static struct peers p;
static struct partner partners[MEMBERS];
static struct member members[MEMBERS];
static uint64_t now;

static void set_up(void)
{
	memset(&p, 0, sizeof(p));
	memset(partners, 0, sizeof(partners));
	memset(members, 0, sizeof(members));
	p.freeing = true; /* no loop: no task is posted */
	list_init(&p.partners);
	list_init(&p.asks);
	now = p.slot_ms = now_ms();
	for (unsigned int i = 0; i < MEMBERS; i++) {
		struct partner *w = &partners[i];

		(void)snprintf(members[i].id, sizeof(members[i].id), "m%u", i);
		members[i].state = MEMBER_ALIVE;
		w->p = &p;
		w->mb = &members[i];
		w->refs = w->active = 1;
		w->lived = true;
		list_add_tail(&p.partners, &w->node);
	}
	for (int i = 0; i < 4; i++)
		slow_note(&p, true, NORMAL_MS, CHUNK_SIZE);
}

/* Runs so many slots in which all partners bring the same, except the first. */
static void slots(unsigned int n, uint32_t first)
{
	while (n--) {
		for (unsigned int i = 0; i < MEMBERS; i++) {
			pace_add(&partners[i].pace, i ? CROWD : first);
			partners[i].heard_ms = now + SLOT_MS;
		}
		now += SLOT_MS;
		slow_tick(&p, now);
	}
}

static bool told(const char *id)
{
	char text[SLOW_TEXT_SIZE];

	return slow_text(&p, text) && strcmp(text, id) == 0;
}

static bool is_slow(unsigned int i)
{
	return partners[i].slow_ms > now;
}

static void test_one_alone_waits(void)
{
	set_up();
	slots(15, CROWD / 7);
	OK(!is_slow(0));
	OK(told("m0"));
	/* Two slow seconds are more than chance. */
	slots(20, CROWD / 7);
	OK(is_slow(0));
	OK(told("m0"));
	for (unsigned int i = 1; i < MEMBERS; i++)
		OK(!is_slow(i));
}

static void test_what_is_clear_is_clear(void)
{
	set_up();
	slots(15, CROWD / 11);
	OK(is_slow(0));
}

static void test_two_that_see_it_do_not(void)
{
	set_up();
	slots(15, CROWD / 7);
	OK(!is_slow(0));
	partners[0].doubts[0].who = &partners[3];
	partners[0].doubts[0].ms = now;
	slots(1, CROWD / 7);
	OK(is_slow(0));
}

/* Otherwise two nodes would confirm each other's verdict for ever. */
static void test_what_is_heard_is_not_passed_on(void)
{
	set_up();
	slots(7, CROWD * 23 / 100);
	partners[0].doubts[0].who = &partners[3];
	partners[0].doubts[0].ms = now;
	for (int i = 0; i < 8; i++) {
		partners[0].slow_ms = 0;
		OK(!told("m0"));
		slots(1, CROWD * 23 / 100);
	}
	/* Together with this node's own measurement it makes a verdict. */
	OK(is_slow(0));
}

static void test_verdicts_are_told_first(void)
{
	char text[SLOW_TEXT_SIZE];

	set_up();
	for (unsigned int i = 0; i < MEMBERS; i++)
		partners[i].seems_slow_ms = now;
	partners[7].slow_ms = now + 10000;
	partners[7].slow_seen = true;
	OK(slow_text(&p, text) && strncmp(text, "m7,m0,m1", 8) == 0);
}

static void test_an_old_pace_tells_nothing(void)
{
	set_up();
	slots(14, CROWD / 7);
	OK(told("m0"));
	now += 60000;
	slow_begin(&p, now);
	slots(1, CROWD / 7);
	OK(!is_slow(0));
	OK(!told("m0"));
}

static void test_what_passes_is_nothing(void)
{
	set_up();
	slots(14, CROWD / 7);
	OK(told("m0"));
	slots(15, CROWD);
	OK(!told("m0"));
	/* Its time starts again. */
	slots(18, CROWD / 7);
	OK(!is_slow(0));
}

static void test_silence_needs_nobody_else(void)
{
	set_up();
	partners[0].heard_ms = now;
	for (int i = 0; i < 20; i++) {
		OK(!is_slow(0));
		now += TICK_MS;
		for (unsigned int k = 1; k < MEMBERS; k++)
			partners[k].heard_ms = now;
		slow_tick(&p, now);
	}
	OK(is_slow(0));
}

static void make_slow(void)
{
	set_up();
	slots(40, CROWD / 7);
	OK(is_slow(0));
}

static void test_forgiven_when_another_goes(void)
{
	make_slow();
	slow_members_changed(&p);
	OK(is_slow(0));
	members[5].state = MEMBER_GONE;
	slow_members_changed(&p);
	OK(!is_slow(0));
	/* It is really slow: for longer, whichever member goes then. */
	slots(40, CROWD / 7);
	OK(is_slow(0));
	members[6].state = MEMBER_GONE;
	slow_members_changed(&p);
	OK(is_slow(0));
}

/* It may be about to go too, as in a split cluster. */
static void test_a_suspect_is_not_forgiven(void)
{
	make_slow();
	members[0].state = MEMBER_SUSPECT;
	members[5].state = MEMBER_GONE;
	slow_members_changed(&p);
	OK(is_slow(0));
	members[0].state = MEMBER_ALIVE;
	slow_tick(&p, now);
	OK(!is_slow(0));
}

static void test_who_comes_back_has_no_record(void)
{
	make_slow();
	members[0].state = MEMBER_GONE;
	slow_members_changed(&p);
	members[0].state = MEMBER_ALIVE;
	slow_members_changed(&p);
	OK(!is_slow(0));
	OK(partners[0].slow_times == 0);
}

int main(void)
{
	RUN(test_one_alone_waits);
	RUN(test_what_is_clear_is_clear);
	RUN(test_two_that_see_it_do_not);
	RUN(test_what_is_heard_is_not_passed_on);
	RUN(test_verdicts_are_told_first);
	RUN(test_an_old_pace_tells_nothing);
	RUN(test_what_passes_is_nothing);
	RUN(test_silence_needs_nobody_else);
	RUN(test_forgiven_when_another_goes);
	RUN(test_a_suspect_is_not_forgiven);
	RUN(test_who_comes_back_has_no_record);
	return tap_done();
}
