/* Places for connections: shares, who has to go, spare ones. */
#include "http/places.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/unit/tap.h"

#define MAX 8

static struct places *places;
static struct place none;

static struct sockaddr_storage addr(const char *text)
{
	struct sockaddr_storage a = {0};
	struct sockaddr_in *a4 = (void *)&a;
	struct sockaddr_in6 *a6 = (void *)&a;

	if (strcmp(text, "unix") == 0) {
		a.ss_family = AF_UNIX;
	} else if (strchr(text, ':')) {
		a.ss_family = AF_INET6;
		EQ(inet_pton(AF_INET6, text, &a6->sin6_addr), 1);
	} else {
		a.ss_family = AF_INET;
		EQ(inet_pton(AF_INET, text, &a4->sin_addr), 1);
	}
	return a;
}

static struct place *victim;

static int enter(struct place *pl, const char *from)
{
	struct sockaddr_storage a = addr(from);

	*pl = (struct place){0};
	victim = &none;
	return places_enter(places, pl, &a, &victim);
}

/* With a request under way. */
static void enter_busy(struct place *pl, const char *from)
{
	EQ(enter(pl, from), 0);
	OK(!victim);
	places_wait(places, pl, false);
}

static void begin(void)
{
	EQ(places_new(MAX, &places), 0);
}

static void end(struct place *pl, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		places_leave(places, &pl[i]);
		places_leave(places, &pl[i]);
	}
	EQ(places->clients.n, 0);
	places_free(&places);
	OK(!places);
	places_free(&places);
}

/* Others of the same address, the longest that wait first, until half are
 * busy. */
static void half_for(const char *const from[], size_t n)
{
	struct place pl[MAX + 1] = {0};

	begin();
	for (size_t i = 0; i < MAX / 2; i++) {
		EQ(enter(&pl[i], from[i % n]), 0);
		OK(!victim);
	}
	/* The first is asked something, and waits again. */
	places_wait(places, &pl[0], false);
	places_wait(places, &pl[0], true);
	EQ(enter(&pl[MAX / 2], from[0]), 0);
	OK(victim == &pl[1]);
	places_leave(places, victim);
	for (size_t i = 0; i < MAX; i++)
		places_wait(places, &pl[i], false);
	EQ(enter(&pl[MAX], from[n - 1]), 0);
	OK(!victim);
	OK(place_is_spare(&pl[MAX]));
	EQ(places->n, MAX / 2);
	places_leave(places, &pl[MAX]);
	EQ(enter(&pl[MAX], "198.51.100.1"), 0);
	OK(!place_is_spare(&pl[MAX]));
	end(pl, MAX + 1);
}

static void test_share(void)
{
	static const char *const v4[] = {"192.0.2.1", "::ffff:192.0.2.1"};
	static const char *const v6[] = {"2001:db8:1:2::1",
					 "2001:db8:1:2:ffff::"};

	half_for(v4, 2);
	half_for(v6, 2);
}

static void test_other_addresses_are_others(void)
{
	static const char *const from[MAX] = {
		"192.0.2.1",	  "192.0.2.1",	     "192.0.2.2",
		"192.0.2.2",	  "2001:db8:1:2::1", "2001:db8:1:2::1",
		"2001:db8:1:3::", "2001:db8:1:3::"};
	struct place pl[MAX];

	begin();
	for (size_t i = 0; i < MAX; i++) {
		EQ(enter(&pl[i], from[i]), 0);
		OK(!victim);
	}
	EQ(places->clients.n, 4);
	end(pl, MAX);
}

static void test_this_host_has_all(void)
{
	static const char *const from[] = {"127.0.0.1", "127.8.8.8", "::1",
					   "unix", "::ffff:127.0.0.1"};
	struct place pl[MAX];

	begin();
	for (size_t i = 0; i < MAX; i++)
		enter_busy(&pl[i], from[i % ARRAY_SIZE(from)]);
	EQ(places->clients.n, 1);
	for (size_t i = 0; i < MAX; i++)
		OK(!place_is_spare(&pl[i]));
	end(pl, MAX);
}

static void test_who_holds_most_loses(void)
{
	struct place pl[MAX + 2];

	begin();
	EQ(enter(&pl[0], "192.0.2.1"), 0);
	EQ(enter(&pl[1], "192.0.2.2"), 0);
	enter_busy(&pl[2], "192.0.2.3");
	enter_busy(&pl[3], "192.0.2.3");
	for (size_t i = 4; i < MAX; i++)
		EQ(enter(&pl[i], "192.0.2.4"), 0);
	/* From somebody new, and from this host. */
	EQ(enter(&pl[MAX], "192.0.2.5"), 0);
	OK(victim == &pl[4]);
	places_leave(places, victim);
	EQ(enter(&pl[MAX + 1], "127.0.0.1"), 0);
	OK(victim == &pl[5]);
	places_leave(places, victim);
	EQ(places->n, MAX);
	EQ(places->n_spare, 0);
	end(pl, MAX + 2);
}

static void test_spare(void)
{
	struct place pl[MAX + PLACES_SPARE + 2] = {0};
	struct place *spare = &pl[MAX], *last = &pl[MAX + PLACES_SPARE];

	begin();
	for (size_t i = 0; i < MAX; i++)
		enter_busy(&pl[i], "127.0.0.1");
	for (size_t i = 0; i < PLACES_SPARE; i++) {
		enter_busy(&spare[i], "192.0.2.1");
		OK(place_is_spare(&spare[i]));
	}
	/* None of them waits. */
	EQ(enter(last, "127.0.0.1"), -EAGAIN);
	EQ(places->n_spare, PLACES_SPARE);
	/* That which has its answer does. */
	places_wait(places, &spare[3], true);
	EQ(enter(last, "192.0.2.2"), 0);
	OK(victim == &spare[3]);
	OK(place_is_spare(last));
	places_leave(places, victim);
	EQ(places->n_spare, PLACES_SPARE);
	/* A place that was given back is one. */
	places_leave(places, &pl[0]);
	EQ(enter(&pl[0], "192.0.2.2"), 0);
	OK(!victim);
	OK(!place_is_spare(&pl[0]));
	EQ(places->n, MAX);
	end(pl, ARRAY_SIZE(pl));
}

/* Whatever happens, the counts are those of what is there. */
static void test_at_random(void)
{
	static struct place pl[200];
	uint64_t x = 88172645463325252;
	char from[32];

	memset(pl, 0, sizeof(pl));
	begin();
	for (int i = 0; i < 200000; i++) {
		struct place *p;
		uint32_t n = 0, spare = 0;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p = &pl[x % ARRAY_SIZE(pl)];
		if (p->taken && x >> 40 & 1) {
			places_wait(places, p, x >> 41 & 1);
		} else if (p->taken) {
			places_leave(places, p);
		} else {
			(void)snprintf(from, sizeof(from), "%d.0.2.1",
				       (int)(x >> 42) % 6 + 126);
			if (enter(p, from) == 0 && victim)
				places_leave(places, victim);
		}
		if (i % 100)
			continue;
		for (size_t k = 0; k < ARRAY_SIZE(pl); k++) {
			n += pl[k].taken && !place_is_spare(&pl[k]);
			spare += pl[k].taken && place_is_spare(&pl[k]);
		}
		EQ(places->n, n);
		EQ(places->n_spare, spare);
		OK(n <= MAX && spare <= PLACES_SPARE);
	}
	end(pl, ARRAY_SIZE(pl));
}

int main(void)
{
	RUN(test_share);
	RUN(test_other_addresses_are_others);
	RUN(test_this_host_has_all);
	RUN(test_who_holds_most_loses);
	RUN(test_spare);
	RUN(test_at_random);
	return tap_done();
}
