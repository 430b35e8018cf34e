/* p2p/holders.h: finding and announcing. */
#include <pthread.h>

#include "tests/unit/holders-rig.h"

/* Starts n nodes and a new key, which n0 has announced. */
static struct holder_key begin_with_key(int n, uint64_t size)
{
	struct holder_key key;

	begin(n);
	key = new_key();
	announce(&nodes[0], &key, size);
	return key;
}

/* n1 asks n times at once; finds[] gets the results. */
static void find_start_many(const struct holder_key *key, int n)
{
	answered = awaited = 0;
	for (int i = 0; i < n; i++) {
		finds[i].then = NULL;
		find_start(&nodes[1], key, &finds[i]);
	}
}

static void finds_n0(struct node *n, const struct holder_key *key,
		     uint64_t size)
{
	struct find *f = find(n, key);

	EQ(f->r, 0);
	EQ(f->size, size);
	STREQ(f->ids, "n0 ");
}

static void finds_nobody(struct node *n, const struct holder_key *key)
{
	struct find *f = find(n, key);

	EQ(f->r, 0);
	EQ(f->n, 0);
	EQ(f->size, 0);
}

static void test_found_by_a_home(void)
{
	struct holder_key key = begin_with_key(6, 123);
	struct holders_stats st;
	struct find *f;

	finds_n0(&nodes[1], &key, 123);
	EQ(all_gets(), 1);
	EQ(nodes[1].lookups, 1);
	EQ(nodes[1].lookups_found, 1);
	/* Remembered. */
	finds_n0(&nodes[1], &key, 123);
	EQ(all_gets(), 1);
	EQ(nodes[1].lookups, 1);
	/* Never the node itself. */
	f = find(&nodes[0], &key);
	EQ(f->r, 0);
	EQ(f->n, 0);
	holders_stats(nodes[0].holders, &st);
	EQ(st.own, 1);
	EQ(st.keys, 0);
	EQ(st.announcements_sent, 3);
	holders_stats(nodes[1].holders, &st);
	EQ(st.finds, 2);
	EQ(st.found, 2);
	end();
}

static void test_all_kinds(void)
{
	struct holder_key key;

	begin(5);
	key = new_key();
	for (int kind = HOLDER_SHA256; kind <= HOLDER_TAG; kind++) {
		do {
			key = key_nr(next_key++);
			key.kind = (enum holder_kind)kind;
		} while (is_home(0, &key) || is_home(1, &key));
		announce(&nodes[0], &key, 0);
		STREQ(find(&nodes[1], &key)->ids, "n0 ");
		/* Keys of another kind with the same number differ. */
		key.kind = key.kind % 3 + 1;
		EQ(find(&nodes[1], &key)->n, 0);
	}
	end();
}

static void test_nobody(void)
{
	struct holder_key key;

	begin(6);
	key = new_key();
	finds_nobody(&nodes[1], &key);
	EQ(all_gets(), 3);
	EQ(nodes[1].lookups, 1);
	EQ(nodes[1].lookups_found, 0);
	EQ(find(&nodes[1], &key)->n, 0);
	EQ(all_gets(), 3);
	end();
}

static void test_nobody_is_soon_forgotten(void)
{
	struct holder_key key;

	settings.none_ms = 1;
	begin(5);
	key = new_key();
	EQ(find(&nodes[1], &key)->n, 0);
	announce(&nodes[0], &key, 5);
	until_ms = now_ms() + 2;
	OK(run_until(is_later));
	EQ(find(&nodes[1], &key)->n, 1);
	end();
}

static void test_alone(void)
{
	struct holder_key key = key_nr(1);

	begin(1);
	finds_nobody(&nodes[0], &key);
	holders_announce(nodes[0].holders, &key, 1);
	key = key_nr(2);
	finds_nobody(&nodes[0], &key);
	end();
}

/* With two nodes each is a home of everything. */
static void test_own_notes_first(void)
{
	struct holder_key key = key_nr(next_key++);

	begin(2);
	wanted = got() + 1;
	holders_announce(nodes[0].holders, &key, 77);
	OK(run_until(got_wanted));
	STREQ(find(&nodes[1], &key)->ids, "n0 ");
	EQ(all_gets(), 0);
	/* The holder itself asks the other home, which names nobody else. */
	EQ(find(&nodes[0], &key)->n, 0);
	EQ(all_gets(), 1);
	/* A third node that asks gets both. */
	wanted = got() + 1;
	holders_announce(nodes[1].holders, &key, 77);
	OK(run_until(got_wanted));
	wanted = 1;
	OK(run_until(table_has_own));
	{
		char q[HOLDER_KEY_SIZE + 8] = "?key=";

		(void)holder_key_str(&key, q + 5);
		EQ(ask(&nodes[0], "GET", q, NULL, 0), 200);
		STREQ(reply.body.data,
		      "{\"size\":77,\"holders\":[\"n0\",\"n1\"]}");
		EQ(strlen(reply.epoch), 16);
	}
	holders_withdraw(nodes[0].holders, &key);
	holders_withdraw(nodes[0].holders, &key); /* harmless */
	run_a_bit();
	wanted = 1; /* n1's */
	OK(table_has_own());
	end();
}

static void test_equal_asks_are_one(void)
{
	struct holder_key key = begin_with_key(6, 9);

	find_start_many(&key, 20);
	OK(run_until(all_answered));
	for (int i = 0; i < 20; i++) {
		EQ(finds[i].calls, 1);
		STREQ(finds[i].ids, "n0 ");
	}
	EQ(all_gets(), 1);
	EQ(nodes[1].lookups, 1);
	end();
}

static void test_cancel(void)
{
	struct holder_key key = begin_with_key(6, 9);

	find_start_many(&key, 10);
	for (int i = 0; i < 10; i += 2)
		holders_cancel(nodes[1].holders, &finds[i]);
	holders_cancel(nodes[1].holders, &key); /* there is no such find */
	awaited = 5;
	OK(run_until(all_answered));
	run_a_bit();
	for (int i = 0; i < 10; i++)
		EQ(finds[i].calls, i % 2);
	/* Remembered answers too. */
	find_start(&nodes[1], &key, &finds[0]);
	holders_cancel(nodes[1].holders, &finds[0]);
	run_a_bit();
	EQ(finds[0].calls, 0);
	end();
}

static struct holder_key again_key;

static void cancel_next(struct find *f)
{
	holders_cancel(nodes[1].holders, f + 1);
	(f + 1)->then = NULL;
	f->then = NULL;
	find_start(&nodes[1], &again_key, f);
}

/* A callback starts another find, and cancels the one that would be called
 * next. */
static void test_callbacks_find_and_cancel(void)
{
	again_key = begin_with_key(6, 9);
	find_start_many(&again_key, 3);
	finds[0].then = cancel_next;
	awaited = 2; /* one is canceled; one is added there */
	OK(run_until(all_answered));
	run_a_bit();
	EQ(finds[0].calls, 1); /* counted again */
	EQ(finds[1].calls, 0);
	EQ(finds[2].calls, 1);
	EQ(answered, 3);
	EQ(all_gets(), 1);
	end();
}

static void free_holders(struct find *f)
{
	(void)f;
	holders_free(&nodes[1].holders);
}

static void test_free_answers_all(void)
{
	struct holder_key key;

	begin(6);
	key = new_key();
	for (int i = 2; i < 6; i++)
		nodes[i].mode = HANG;
	find_start_many(&key, 4);
	holders_cancel(nodes[1].holders, &finds[3]);
	holders_free(&nodes[1].holders);
	OK(!nodes[1].holders);
	EQ(answered, 0);
	awaited = 3;
	OK(run_until(all_answered));
	run_a_bit();
	for (int i = 0; i < 4; i++) {
		EQ(finds[i].calls, i < 3);
		EQ(finds[i].r, i < 3 ? -ECANCELED : 0);
		EQ(finds[i].n, 0);
	}
	holders_free(&nodes[1].holders); /* NULL */
	end();
}

/* From inside a callback. */
static void test_free_in_a_callback(void)
{
	struct holder_key key = begin_with_key(6, 9);

	find_start_many(&key, 3);
	finds[0].then = free_holders;
	OK(run_until(all_answered));
	EQ(finds[0].r, 0);
	EQ(finds[1].r, -ECANCELED);
	EQ(finds[2].r, -ECANCELED);
	end();
}

static bool found_again(void)
{
	static struct find f;

	if (f.calls > 0 && f.n > 0) {
		f = (struct find){0};
		return true;
	}
	if (f.calls > 0 || awaited == 0) {
		f.then = NULL;
		find_start(&nodes[1], &again_key, &f);
	}
	return false;
}

/* Each time one home less knows it; then the homes that replaced them do. */
static void test_homes_die(void)
{
	int homes[PLACE_HOMES];

	settings.found_ms = settings.none_ms = 1;
	again_key = begin_with_key(9, 123);
	EQ(homes_of(&nodes[1], &again_key, homes), PLACE_HOMES);
	for (int i = 0; i < PLACE_HOMES; i++) {
		STREQ(find(&nodes[1], &again_key)->ids, "n0 ");
		node_kill(&nodes[homes[i]]);
	}
	answered = awaited = 0;
	OK(run_until(found_again));
	OK(run_until(all_answered));
	OK(run_until(all_alive));
	end();
}

static void bad_homes(enum mode mode)
{
	struct holder_key key;
	int homes[PLACE_HOMES];
	struct find *f;

	settings.found_ms = settings.none_ms = 1;
	key = begin_with_key(6, 123);
	(void)homes_of(&nodes[1], &key, homes);
	nodes[homes[0]].mode = mode;
	STREQ(find(&nodes[1], &key)->ids, "n0 ");
	nodes[homes[1]].mode = mode;
	STREQ(find(&nodes[1], &key)->ids, "n0 ");
	nodes[homes[2]].mode = mode;
	f = find(&nodes[1], &key);
	EQ(f->n, 0);
	OK(f->r == (mode == HANG	? -ETIMEDOUT
		    : mode == ERROR_500 ? -EIO
					: -EBADMSG));
	end();
}

static void test_homes_hang(void)
{
	bad_homes(HANG);
}

static void test_homes_answer_garbage(void)
{
	bad_homes(GARBAGE);
}

static void test_homes_lie(void)
{
	bad_homes(LIES);
}

static void test_homes_fail(void)
{
	bad_homes(ERROR_500);
}

static int parked_at;

static bool is_parked(void)
{
	return nodes[parked_at].nparked > 0;
}

/* The members forget the home that is being asked, and later the holder. */
static void test_forget(void)
{
	struct holder_key key = begin_with_key(6, 123);
	int homes[PLACE_HOMES];
	struct member *mb;

	(void)homes_of(&nodes[1], &key, homes);
	parked_at = homes[0];
	nodes[parked_at].mode = HANG;
	find_start_many(&key, 1);
	OK(run_until(is_parked));
	mb = members_find(nodes[1].members, nodes[homes[1]].id);
	holders_forget(nodes[1].holders, mb); /* not asked yet */
	mb = members_find(nodes[1].members, nodes[homes[0]].id);
	holders_forget(nodes[1].holders, mb);
	OK(run_until(all_answered));
	STREQ(finds[0].ids, "n0 ");
	EQ(nodes[homes[1]].gets, 0);
	EQ(nodes[homes[2]].gets, 1);
	mb = members_find(nodes[1].members, "n0");
	holders_forget(nodes[1].holders, mb);
	EQ(find(&nodes[1], &key)->n, 0);
	end();
}

/* A home that has lost its records is told again as soon as a member hears of
 * it. */
static void test_home_restarts(void)
{
	struct holder_key key = begin_with_key(6, 123), other;
	int homes[PLACE_HOMES];

	(void)homes_of(&nodes[0], &key, homes);
	restarted = &nodes[homes[1]];
	holders_free(&restarted->holders);
	node_new_holders(restarted);
	do {
		other = new_key();
	} while (!is_home(homes[1], &other));
	holders_announce(nodes[0].holders, &other, 1);
	wanted = 2;
	OK(run_until(home_knows));
	end();
}

static void test_again(void)
{
	struct holder_key key;

	settings.again_ms = 40;
	begin(5);
	key = new_key();
	wanted = got() + (uint64_t)5 * PLACE_HOMES;
	holders_announce(nodes[0].holders, &key, 123);
	OK(run_until(got_wanted));
	end();
}

static bool all_forgotten(void)
{
	for (int i = 0; i < nnodes; i++) {
		struct holders_stats st;

		holders_stats(nodes[i].holders, &st);
		if (st.keys > 0)
			return false;
	}
	return true;
}

static void test_runs_out(void)
{
	struct holder_key key;

	settings.ttl_ms = 300;
	settings.none_ms = 1;
	key = begin_with_key(5, 123);
	OK(run_until(all_forgotten));
	EQ(find(&nodes[1], &key)->n, 0);
	end();
}

static void test_size_becomes_known(void)
{
	struct holder_key key;

	settings.found_ms = 1;
	key = begin_with_key(5, 0);
	EQ(find(&nodes[1], &key)->size, 0);
	announce(&nodes[0], &key, 55);
	until_ms = now_ms() + 2;
	OK(run_until(is_later));
	EQ(find(&nodes[1], &key)->size, 55);
	/* Nothing new in this. */
	holders_announce(nodes[0].holders, &key, 55);
	holders_announce(nodes[0].holders, &key, 0);
	run_a_bit();
	EQ(got(), 6);
	end();
}

#define MANY 5000

/* The homes, without n0 itself, of all of the first n keys. */
static void all_homes(unsigned int n, uint32_t *ret)
{
	for (unsigned int k = 0; k < n; k++) {
		struct holder_key key = key_nr(k);
		int homes[PLACE_HOMES];
		uint32_t c = homes_of(&nodes[0], &key, homes);

		ret[k] = 0;
		for (uint32_t i = 0; i < c; i++)
			if (homes[i] != 0)
				ret[k] |= UINT32_C(1) << homes[i];
	}
}

static uint64_t count_news(const uint32_t *before, const uint32_t *now)
{
	uint64_t n = 0;

	for (unsigned int k = 0; k < MANY; k++)
		n += (unsigned int)__builtin_popcount(now[k] & ~before[k]);
	return n;
}

static void test_batches_and_moves(void)
{
	static uint32_t none[MANY], before[MANY], now[MANY];
	int posts = 0;

	begin(6);
	for (unsigned int k = 0; k < MANY; k++) {
		struct holder_key key = key_nr(k);

		holders_announce(nodes[0].holders, &key, k + 1);
	}
	all_homes(MANY, before);
	wanted = count_news(none, before);
	own_wanted = MANY;
	OK(run_until(got_wanted));
	OK(own_is_wanted());
	run_a_bit();
	EQ(got(), wanted);
	for (int i = 1; i < 6; i++) {
		posts += nodes[i].posts;
		OK(nodes[i].max_post_bytes <= 128 << 10);
	}
	OK(posts >= 5 * 3 && posts <= 5 * 20);
	/* A node leaves: only the keys that it was a home of are sent, to the
	 * new home. */
	wanted = got();
	{
		struct holders_stats st;

		holders_stats(nodes[5].holders, &st);
		wanted -= st.announcements_got;
	}
	node_kill(&nodes[5]);
	OK(run_until(all_alive));
	all_homes(MANY, now);
	OK(count_news(before, now) > MANY / 10);
	wanted += count_news(before, now);
	OK(run_until(got_wanted));
	run_a_bit();
	EQ(got(), wanted);
	end();
}

static void test_own_set_is_bounded(void)
{
	settings.max_own = 10;
	begin(1);
	for (unsigned int k = 0; k < 100; k++) {
		struct holder_key key = key_nr(k);

		holders_announce(nodes[0].holders, &key, 1);
	}
	wanted = own_wanted = 10;
	OK(run_until(own_is_wanted));
	OK(run_until(table_has_own));
	/* The newest ones remain. */
	for (unsigned int k = 90; k < 100; k++) {
		struct holder_key key = key_nr(k);

		holders_withdraw(nodes[0].holders, &key);
	}
	wanted = own_wanted = 0;
	OK(run_until(own_is_wanted));
	OK(table_has_own());
	end();
}

/* ---- Threads ---- */

#define THREADS	    4
#define OF_A_THREAD 2000

static int threads_left; /* atomic */

/* Every other one stays. */
static void *announcer(void *arg)
{
	unsigned int first = (unsigned int)(uintptr_t)arg * OF_A_THREAD;

	for (unsigned int i = first; i < first + OF_A_THREAD; i++) {
		struct holder_key key = key_nr(i);

		holders_announce(nodes[0].holders, &key, i);
		if (i % 2)
			holders_withdraw(nodes[0].holders, &key);
		else
			holders_announce(nodes[0].holders, &key, i);
	}
	(void)__atomic_sub_fetch(&threads_left, 1, __ATOMIC_RELEASE);
	return NULL;
}

static bool threads_done(void)
{
	return __atomic_load_n(&threads_left, __ATOMIC_ACQUIRE) == 0;
}

static void test_threads(void)
{
	pthread_t t[THREADS];

	begin(3);
	threads_left = THREADS;
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&t[i], NULL, announcer, (void *)i) != 0)
			BAIL("pthread_create");
	OK(run_until(threads_done));
	for (int i = 0; i < THREADS; i++)
		(void)pthread_join(t[i], NULL);
	own_wanted = THREADS * OF_A_THREAD / 2;
	OK(run_until(own_is_wanted));
	wanted = own_wanted;
	OK(run_until(table_has_own));
	restarted = &nodes[1];
	OK(run_until(home_knows));
	end();
}

/* The most keys that are allowed, and a member comes: the loop is not blocked.
 */
static void test_full_set(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(1 << 20);

	begin(4);
	for (unsigned int k = 0; k < HOLDERS_MAX_OWN; k++) {
		struct holder_key key = key_nr(k);

		holders_announce(nodes[0].holders, &key, 1);
	}
	own_wanted = HOLDERS_MAX_OWN;
	OK(run_until(own_is_wanted));
	for (int i = 0; i < 3; i++)
		holders_members_changed(nodes[0].holders);
	holds(&b, 1, 0, 1);
	EQ(post(&nodes[0], b.data), 204);
	/* Freed in the middle of it. */
	end();
}

int main(void)
{
	holders_rig_environment();
	RUN(test_found_by_a_home);
	RUN(test_all_kinds);
	RUN(test_nobody);
	RUN(test_nobody_is_soon_forgotten);
	RUN(test_alone);
	RUN(test_own_notes_first);
	RUN(test_equal_asks_are_one);
	RUN(test_cancel);
	RUN(test_callbacks_find_and_cancel);
	RUN(test_free_answers_all);
	RUN(test_free_in_a_callback);
	RUN(test_homes_die);
	RUN(test_homes_hang);
	RUN(test_homes_answer_garbage);
	RUN(test_homes_lie);
	RUN(test_homes_fail);
	RUN(test_forget);
	RUN(test_home_restarts);
	RUN(test_again);
	RUN(test_runs_out);
	RUN(test_size_becomes_known);
	RUN(test_batches_and_moves);
	RUN(test_own_set_is_bounded);
	RUN(test_threads);
	RUN(test_full_set);
	buf_release(&reply.body);
	return tap_done();
}
