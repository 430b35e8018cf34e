#include <stdint.h>
#include <string.h>

#include "base/util.h"
#include "p2p/placement.h"
#include "tests/unit/tap.h"

#define MANY 1000

/* ---- Members ---- */

static uint64_t ids[MANY + 1];
static uint32_t owners[MANY];
static uint8_t used[MANY];

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* n members, named by number. */
static struct place_view members(uint32_t n)
{
	struct place_view view = {.ids = ids, .n = n};

	for (uint32_t i = 0; i < n; i++) {
		char name[16];
		int len = snprintf(name, sizeof(name), "node-%u", i);

		ids[i] = place_hash(name, (size_t)len);
	}
	qsort(ids, n, sizeof(*ids), by_value);
	return view;
}

static uint64_t blob_of(uint32_t i)
{
	char key[32];
	int len = snprintf(key, sizeof(key), "sha256:%u", i);

	return place_hash(key, (size_t)len);
}

/* ---- Hash and deal ---- */

/* All members must compute the same values; others would fetch everything
 * twice. Changing them changes the protocol. */
static void test_fixed_values(void)
{
	static const uint32_t dealt[] = {2, 6, 0, 1, 7, 4, 3, 5};
	static const uint32_t ordered[] = {1, 6, 7, 3};
	static const uint32_t at_home[] = {5, 2, 7};
	struct place_view v = members(8);
	uint32_t order[PLACE_ORDER], homes[PLACE_HOMES];

	OK(place_hash("", 0) == UINT64_C(0xf52a15e9a9b5e89b));
	OK(place_hash("peerd", 5) == UINT64_C(0x4c04d6ae5f5e8441));
	place_deal(&v, blob_of(1), 0, 8, owners, used);
	for (uint32_t i = 0; i < 8; i++)
		EQ(owners[i], dealt[i]);
	EQ(place_order(&v, blob_of(1), 3, owners[3], order), PLACE_ORDER);
	for (uint32_t i = 0; i < PLACE_ORDER; i++)
		EQ(order[i], ordered[i]);
	EQ(place_homes(&v, blob_of(1), homes), PLACE_HOMES);
	for (uint32_t i = 0; i < PLACE_HOMES; i++)
		EQ(homes[i], at_home[i]);
}

/* Half the bits change with one bit of the input, wherever it is. */
static void test_hash_mixes(void)
{
	unsigned char key[64] = {0};
	uint64_t h = place_hash(key, sizeof(key));
	unsigned int changed = 0;

	for (unsigned int bit = 0; bit < 8 * sizeof(key); bit++) {
		key[bit / 8] ^= (unsigned char)(1u << bit % 8);
		changed += (unsigned int)__builtin_popcountll(
			h ^ place_hash(key, sizeof(key)));
		key[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	OK(changed > 512 * 30 && changed < 512 * 34);
	OK(place_hash("a", 1) != place_hash("a", 2));
}

static void test_stripes(void)
{
	EQ(place_stripe_chunks(0), 1);
	EQ(place_stripe_chunks(1), 1);
	EQ(place_stripe_chunks(1023), 1);
	EQ(place_stripe_chunks(1024), 2);
	EQ(place_stripes(0), 0);
	EQ(place_stripes(1), 1);
	EQ(place_stripes(1024), 512);
	EQ(place_stripes(1025), 513);
	OK(place_stripe_chunks(UINT32_MAX) > 0);
	OK(place_stripes(UINT32_MAX) >=
	   UINT32_MAX / place_stripe_chunks(UINT32_MAX));
}

/* Every member once in every round, in an order that rounds and blobs do not
 * share. */
static void test_each_once(void)
{
	static const uint32_t sizes[] = {1, 2, 3, 8, 64, MANY};
	uint32_t first[64];

	for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
		struct place_view v = members(sizes[k]);

		for (uint32_t round = 0; round < 3; round++) {
			uint8_t seen[MANY] = {0};

			place_deal(&v, blob_of(7), round, v.n, owners, used);
			for (uint32_t i = 0; i < v.n; i++) {
				OK(owners[i] < v.n && !seen[owners[i]]);
				seen[owners[i]] = 1;
			}
		}
	}
	for (uint32_t k = 0; k < 2; k++) {
		struct place_view v = members(64);
		uint32_t same = 0;

		place_deal(&v, blob_of(7), 0, 64, first, used);
		place_deal(&v, blob_of(7 + k), 1 - k, 64, owners, used);
		for (uint32_t i = 0; i < 64; i++)
			same += first[i] == owners[i];
		OK(same < 10);
	}
}

/* The deal of a round does not depend on how many owners are requested. */
static void test_part_of_a_round(void)
{
	struct place_view v = members(64);
	uint32_t part[64];

	place_deal(&v, blob_of(3), 2, 64, owners, used);
	for (uint32_t wanted = 0; wanted <= 64; wanted += 16) {
		memset(part, 0xff, sizeof(part));
		place_deal(&v, blob_of(3), 2, wanted, part, used);
		EQ(memcmp(part, owners, wanted * sizeof(*part)), 0);
		OK(wanted == 64 || part[wanted] == UINT32_MAX);
	}
	/* More than the number of members: the whole round, no more. */
	v = members(4);
	memset(part, 0xff, sizeof(part));
	place_deal(&v, blob_of(3), 0, 64, part, used);
	OK(part[3] < 4 && part[4] == UINT32_MAX);
}

/* Stripes of a blob that have another owner among `with` than among `without`,
 * which lacks the member `gone`; in percent. */
static double moved(uint32_t n, uint32_t stripes, uint32_t gone)
{
	uint64_t some[MANY], was[4 * MANY];
	struct place_view with = members(n);
	struct place_view without = {.ids = some, .n = n - 1};
	uint32_t count = 0;

	memcpy(some, ids, gone * sizeof(*some));
	memcpy(some + gone, ids + gone + 1, (n - 1 - gone) * sizeof(*some));
	for (uint32_t i = 0; i < stripes; i++) {
		if (i % n == 0)
			place_deal(&with, blob_of(n), i / n, n, owners, used);
		was[i] = ids[owners[i % n]];
	}
	for (uint32_t i = 0; i < stripes; i++) {
		if (i % (n - 1) == 0)
			place_deal(&without, blob_of(n), i / (n - 1), n - 1,
				   owners, used);
		count += was[i] != some[owners[i % (n - 1)]];
	}
	return 100.0 * count / stripes;
}

/* A member that joins or leaves moves few stripes. */
static void test_churn(void)
{
	double sum = 0;

	for (uint32_t gone = 0; gone < 64; gone++)
		sum += moved(64, 256, gone);
	printf("# of 256 stripes among 64, %.1f %% move\n", sum / 64);
	OK(sum / 64 < 20);
	sum = 0;
	for (uint32_t gone = 0; gone < 8; gone++)
		sum += moved(8, 128, gone);
	printf("# of 128 stripes among 8, %.1f %% move\n", sum / 8);
	OK(sum / 8 < 75);
}

/* ---- Orders and homes ---- */

static void test_orders(void)
{
	struct place_view v = members(16);
	uint32_t second[16] = {0};

	for (uint32_t s = 0; s < 1600; s++) {
		uint32_t order[PLACE_ORDER];

		if (s % 16 == 0)
			place_deal(&v, blob_of(9), s / 16, 16, owners, used);
		EQ(place_order(&v, blob_of(9), s, owners[s % 16], order),
		   PLACE_ORDER);
		EQ(order[0], owners[s % 16]);
		for (uint32_t i = 0; i < PLACE_ORDER; i++)
			for (uint32_t j = 0; j < i; j++)
				OK(order[i] != order[j]);
		second[order[1]]++;
	}
	for (uint32_t m = 0; m < 16; m++)
		OK(second[m] > 60 && second[m] < 140);
}

static void test_orders_of_few(void)
{
	uint32_t order[PLACE_ORDER];

	for (uint32_t n = 1; n <= PLACE_ORDER + 1; n++) {
		struct place_view v = members(n);

		memset(order, 0xff, sizeof(order));
		EQ(place_order(&v, 1, 2, n - 1, order),
		   n < PLACE_ORDER ? n : PLACE_ORDER);
		EQ(order[0], n - 1);
		for (uint32_t i = 0; i < PLACE_ORDER; i++)
			OK(i < n ? order[i] < n : order[i] == UINT32_MAX);
	}
}

static void test_homes(void)
{
	struct place_view v = members(50);
	uint32_t count[50] = {0}, homes[PLACE_HOMES];

	for (uint32_t b = 0; b < 5000; b++) {
		EQ(place_homes(&v, blob_of(b), homes), PLACE_HOMES);
		OK(homes[0] != homes[1] && homes[1] != homes[2] &&
		   homes[0] != homes[2]);
		for (uint32_t i = 0; i < PLACE_HOMES; i++)
			count[homes[i]]++;
	}
	for (uint32_t m = 0; m < 50; m++)
		OK(count[m] > 225 && count[m] < 375);
	v = members(2);
	EQ(place_homes(&v, 5, homes), 2);
	OK(homes[0] != homes[1]);
	v = members(1);
	EQ(place_homes(&v, 5, homes), 1);
	EQ(homes[0], 0);
}

/* A home that leaves is replaced; the others stay. */
static void test_homes_stay(void)
{
	struct place_view v = members(20);
	uint64_t some[20], old[PLACE_HOMES];
	uint32_t homes[PLACE_HOMES];

	for (uint32_t b = 0; b < 200; b++) {
		struct place_view less = {.ids = some, .n = 19};
		uint32_t gone;

		place_homes(&v, blob_of(b), homes);
		for (uint32_t i = 0; i < PLACE_HOMES; i++)
			old[i] = ids[homes[i]];
		gone = homes[0];
		memcpy(some, ids, gone * sizeof(*some));
		memcpy(some + gone, ids + gone + 1,
		       (19 - gone) * sizeof(*some));
		place_homes(&less, blob_of(b), homes);
		OK(some[homes[0]] == old[1] && some[homes[1]] == old[2]);
	}
}

/* ---- Which member to ask ---- */

/* "order | holders": a letter is a member, `*` ourselves; marks after it: +
 * has, s slow, t tried, w refuses, a digit its open requests. */
static enum place_verdict choose(const char *text, bool background,
				 char *ret_member)
{
	struct place_candidate c[2][16];
	struct place_ask ask = {.order = c[0],
				.holders = c[1],
				.max_active = 2,
				.background = background};
	uint32_t *n = &ask.norder, member;
	struct place_candidate *v = c[0];
	enum place_verdict verdict;

	for (; *text; text++) {
		struct place_candidate *last = *n ? &v[*n - 1] : v;

		if (*text == '|') {
			v = c[1];
			n = &ask.nholders;
		} else if (*text == '*' || (*text >= 'A' && *text <= 'Z')) {
			v[(*n)++] = (struct place_candidate){
				.member = (uint32_t)*text,
				.self = *text == '*',
			};
		} else if (*text >= '0' && *text <= '9') {
			last->active = (uint32_t)(*text - '0');
		} else if (*text != ' ') {
			last->has |= *text == '+';
			last->slow |= *text == 's';
			last->tried |= *text == 't';
			last->wont |= *text == 'w';
		}
	}
	verdict = place_choose(&ask, &member);
	*ret_member = member == PLACE_NONE ? '-' : (char)member;
	return verdict;
}

#define CHOOSE(text, background, verdict, who)                                 \
	do {                                                                   \
		char got_;                                                     \
		EQ(choose(text, background, &got_), verdict);                  \
		EQ(got_, who);                                                 \
	} while (0)

static void test_choose_owner(void)
{
	CHOOSE("A B * C", true, PLACE_ASK_OWNER, 'A');
	CHOOSE("A+ B * C", true, PLACE_ASK_HOLDER, 'A');
	CHOOSE("A1 B * C", true, PLACE_ASK_OWNER, 'A');
	/* Unfit ones are passed over. */
	CHOOSE("At B * C", true, PLACE_ASK_OWNER, 'B');
	CHOOSE("As B * C", true, PLACE_ASK_OWNER, 'B');
	CHOOSE("Aw B * C", true, PLACE_ASK_OWNER, 'B');
	/* Other holders, only if they have fewer requests of this node. */
	CHOOSE("A B | C+", true, PLACE_ASK_OWNER, 'A');
	CHOOSE("A1 B | C+1", true, PLACE_ASK_OWNER, 'A');
	CHOOSE("A1 B | C+", true, PLACE_ASK_HOLDER, 'C');
	CHOOSE("A1 B+ | C+", true, PLACE_ASK_HOLDER, 'B');
	CHOOSE("A2 B+1 | C+1 D+", true, PLACE_ASK_HOLDER, 'D');
	/* A substitute would fetch the chunk a second time. */
	CHOOSE("As B | C+", true, PLACE_ASK_HOLDER, 'C');
	CHOOSE("As B | C+1", true, PLACE_ASK_HOLDER, 'C');
	CHOOSE("As B C+1", true, PLACE_ASK_HOLDER, 'C');
	CHOOSE("As B+ | C+1", true, PLACE_ASK_HOLDER, 'B');
	/* Slow, tried and empty holders do not count. */
	CHOOSE("A1 B | C+s D+t E", true, PLACE_ASK_OWNER, 'A');
}

static void test_choose_self(void)
{
	CHOOSE("* A B", true, PLACE_ASK_UPSTREAM, '-');
	CHOOSE("*", false, PLACE_ASK_UPSTREAM, '-');
	CHOOSE("At * B", true, PLACE_ASK_UPSTREAM, '-');
	/* The origin sends one copy. */
	CHOOSE("* A | B+", true, PLACE_ASK_HOLDER, 'B');
	CHOOSE("* A+ | B+", true, PLACE_ASK_HOLDER, 'A');
	CHOOSE("* A+1 | B+", true, PLACE_ASK_HOLDER, 'B');
	CHOOSE("* Aw+ | B", true, PLACE_ASK_HOLDER, 'A');
	/* Not from a slow one: this node is fit. */
	CHOOSE("* A | B+s", true, PLACE_ASK_UPSTREAM, '-');
	/* This node is not its own holder. */
	CHOOSE("*+ A", true, PLACE_ASK_UPSTREAM, '-');
}

static void test_choose_wait(void)
{
	CHOOSE("A2 B * C", true, PLACE_WAIT, '-');
	CHOOSE("A2 B | C+2", true, PLACE_WAIT, '-');
	CHOOSE("* A | B+2 C+3", true, PLACE_WAIT, '-');
	CHOOSE("A3 B | C+2", true, PLACE_WAIT, '-');
	CHOOSE("A2 B | C+1", true, PLACE_ASK_HOLDER, 'C');
	/* A read waits for the chunk. */
	CHOOSE("A2 B * C", false, PLACE_ASK_OWNER, 'A');
	CHOOSE("* A | B+3 C+2", false, PLACE_ASK_HOLDER, 'C');
	/* No next in order while the owner is merely busy. */
	CHOOSE("A2 B+2 C", true, PLACE_WAIT, '-');
}

static void test_choose_last(void)
{
	/* No fit owner: a fit holder, slow ones that have it, upstream. */
	CHOOSE("At Bs | C+", true, PLACE_ASK_HOLDER, 'C');
	CHOOSE("At Bs+ | C+", true, PLACE_ASK_HOLDER, 'C');
	CHOOSE("At Bs+ | C+s", true, PLACE_ASK_HOLDER, 'B');
	CHOOSE("At Bs | C+s", true, PLACE_ASK_HOLDER, 'C');
	CHOOSE("At Bs Cw", true, PLACE_ASK_UPSTREAM, '-');
	CHOOSE("At+ Bt | C+t", false, PLACE_ASK_UPSTREAM, '-');
	CHOOSE("", true, PLACE_ASK_UPSTREAM, '-');
	CHOOSE("| A+", true, PLACE_ASK_HOLDER, 'A');
	CHOOSE("| A", true, PLACE_ASK_UPSTREAM, '-');
	CHOOSE("At | B+2", true, PLACE_WAIT, '-');
	CHOOSE("As+2 | B+s1", true, PLACE_ASK_HOLDER, 'B');
}

/* PLACE_WAIT comes only while a request of this node is open, even if the limit
 * is 0. */
static void test_choose_no_deadlock(void)
{
	struct place_candidate a = {.member = 1};
	struct place_ask ask = {.order = &a, .norder = 1, .background = true};
	uint32_t member;

	EQ(place_choose(&ask, &member), PLACE_ASK_OWNER);
	a.active = 1;
	EQ(place_choose(&ask, &member), PLACE_WAIT);
}

/* In any cluster: asking one member after the other ends at upstream, no member
 * is asked twice, and no forbidden one is asked. */
static void test_choose_ends(void)
{
	uint64_t x = 1;

	for (unsigned int round = 0; round < 20000; round++) {
		struct place_candidate c[12];
		struct place_ask ask = {.order = c, .max_active = 2};
		unsigned int asked = 0;
		uint32_t member;

		x = place_hash(&x, sizeof(x));
		ask.norder = x % (PLACE_ORDER + 1);
		ask.nholders = x / 8 % 8;
		ask.holders = c + ask.norder;
		for (uint32_t i = 0; i < ask.norder + ask.nholders; i++) {
			x = place_hash(&x, sizeof(x));
			c[i] = (struct place_candidate){
				.member = i,
				.active = x % 4,
				.self = i < ask.norder && i == x / 4 % 4,
				.has = i >= ask.norder || x & 256,
				.slow = x & 512,
				.tried = x & 1024,
				.wont = x & 2048,
			};
		}
		for (;;) {
			enum place_verdict v = place_choose(&ask, &member);

			if (v == PLACE_ASK_UPSTREAM) {
				EQ(member, PLACE_NONE);
				break;
			}
			OK(v == PLACE_ASK_OWNER || v == PLACE_ASK_HOLDER);
			if (member >= 12 || ++asked > 12) {
				OK(!"asks for ever");
				return;
			}
			OK(!c[member].tried && !c[member].self);
			OK((v == PLACE_ASK_HOLDER) == c[member].has);
			OK(v == PLACE_ASK_HOLDER ||
			   (!c[member].slow && !c[member].wont));
			c[member].tried = true;
		}
	}
}

/* ---- Slow ones ---- */

static void test_normal(void)
{
	uint32_t ended[] = {500, 100, 300};
	uint32_t young[] = {500, 100, 300, 5, 6, 7, 8};
	uint32_t late[] = {500, 100, 300, 900, 901, 902, 903, 904};
	uint32_t one_late[] = {500, 100, 300, 90000, 1};
	uint32_t start[] = {700, 701, 702};
	uint32_t zero[] = {0};

	EQ(place_normal_ms(NULL, 0, 0), 0);
	EQ(place_normal_ms(ended, 3, 0), 300);
	EQ(place_normal_ms(young, 3, 4), 300);
	EQ(place_normal_ms(late, 3, 5), 901);
	EQ(place_normal_ms(one_late, 3, 2), 300);
	EQ(place_normal_ms(start, 0, 3), 701);
	EQ(place_normal_ms(zero, 0, 1), 1);
}

static void test_slow(void)
{
	const uint64_t MiB = 1 << 20;

	/* Young, unknown, done. */
	OK(!place_is_slow(249, 0, MiB, 10));
	OK(place_is_slow(250, 0, MiB, 10));
	OK(!place_is_slow(100000, 0, MiB, 0));
	OK(!place_is_slow(100000, MiB, MiB, 10));
	OK(!place_is_slow(100000, 2 * MiB, MiB, 10));
	/* Nothing came. */
	OK(!place_is_slow(1000, 0, MiB, 500));
	OK(place_is_slow(1001, 0, MiB, 500));
	OK(!place_is_slow(1001, 0, MiB, 800));
	/* A tenth of the pace. */
	OK(!place_is_slow(900, MiB / 10, MiB, 500));
	OK(place_is_slow(1100, MiB / 10, MiB, 500));
	/* Late, but soon to end. */
	OK(!place_is_slow(1100, MiB / 2 + MiB / 10, MiB, 500));
	OK(!place_is_slow(5000, MiB - 1, MiB, 500));
	/* When all are late nobody is. */
	OK(!place_is_slow(60000, 0, MiB, 60000));
	/* No overflow. */
	OK(place_is_slow(UINT64_MAX, 1, UINT64_MAX, 1));
	OK(!place_is_slow(UINT64_MAX, 0, MiB, UINT64_MAX));
	OK(place_awaited_ms(1000) < 1000 && place_awaited_ms(1000) >= 600);
}

/* ---- Sending on ---- */

static void test_redirect(void)
{
	struct place_receiver to[3] = {{.load = 3}, {.load = 1}, {.load = 2}};
	struct place_given g = {.to = to,
				.n = 3,
				.load = 20,
				.times = 3,
				.fanout = UINT32_MAX,
				.margin = 2};

	EQ(place_redirect(&g), 1);
	g.load = 4;
	EQ(place_redirect(&g), 1);
	/* We have little to do. */
	g.load = 3;
	EQ(place_redirect(&g), PLACE_NONE);
	/* But have given it to many. */
	g.fanout = 3;
	EQ(place_redirect(&g), 1);
	/* A requester that came back is served, up to twice as many. */
	g.insist = true;
	EQ(place_redirect(&g), PLACE_NONE);
	g.times = 6;
	EQ(place_redirect(&g), 1);
	g.insist = false;
	/* By turns when equal. */
	to[0].load = to[2].load = 1;
	g.turn = 2;
	EQ(place_redirect(&g), 2);
	g.turn = UINT32_MAX;
	EQ(place_redirect(&g), UINT32_MAX % 3);
	/* Not to a member that is unfit or receives slowly. */
	g.turn = 0;
	to[0].unfit = true;
	EQ(place_redirect(&g), 1);
	to[0].unfit = false;
	to[0].load = 0;
	to[0].pace_ms = 5000;
	EQ(place_redirect(&g), 1);
	to[1].pace_ms = to[2].pace_ms = 4000;
	EQ(place_redirect(&g), 0);
	/* No member. */
	to[0].unfit = to[1].unfit = to[2].unfit = true;
	EQ(place_redirect(&g), PLACE_NONE);
	g.n = 0;
	EQ(place_redirect(&g), PLACE_NONE);
}

static void test_limits(void)
{
	EQ(place_fanout(128, 8), UINT32_MAX);
	EQ(place_fanout(128, 1), UINT32_MAX);
	OK(place_fanout(6, 8) < 64);
	OK(place_fanout(128, 1000) < 64);
	/* The only holder of four nodes does not send a chunk to all three
	 * others, two requests of each; and sixteen nodes do not redirect each
	 * other in circles. */
	OK(place_margin(4) == 1 && place_margin(16) >= 5);
	for (uint32_t n = 1; n < 20000; n = n * 3 + 1) {
		OK(place_margin(n) >= 1 && place_margin(n) <= 7);
		OK(place_fanout(128, n) >= 2);
		OK(place_upstream_runs(n) >= 1 && place_upstream_runs(n) <= 4);
	}
}

int main(void)
{
	RUN(test_fixed_values);
	RUN(test_hash_mixes);
	RUN(test_stripes);
	RUN(test_each_once);
	RUN(test_part_of_a_round);
	RUN(test_churn);
	RUN(test_orders);
	RUN(test_orders_of_few);
	RUN(test_homes);
	RUN(test_homes_stay);
	RUN(test_choose_owner);
	RUN(test_choose_self);
	RUN(test_choose_wait);
	RUN(test_choose_last);
	RUN(test_choose_no_deadlock);
	RUN(test_choose_ends);
	RUN(test_normal);
	RUN(test_slow);
	RUN(test_redirect);
	RUN(test_limits);
	return tap_done();
}
