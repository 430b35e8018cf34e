/* The table under p2p/holders-keys.h and base/name-table.h. */
#include <stdlib.h>

/* An allocator that fails when a test says so. */
static int failures_left, failures;

static void *scarce_calloc(size_t n, size_t size)
{
	if (failures_left > 0) {
		failures_left--;
		failures++;
		return NULL;
	}
	return calloc(n, size);
}

#define calloc scarce_calloc
#include "base/hash.c"
#undef calloc

#include "tests/unit/tap.h"

#define MAX_BUCKETS 1024u
#define N	    5000

struct entry {
	struct hash_node node;
	int key;
};

static struct entry entries[N];

/* Neighbours share a hash, and hashes differ in high bits too. */
static uint64_t hash_of(int key)
{
	return (uint64_t)(key / 2) * UINT64_C(0x9e3779b97f4a7c15);
}

static struct entry *find(const struct hash_table *t, int key)
{
	struct hash_node *n = hash_find(t, hash_of(key));

	while (n && container_of(n, struct entry, node)->key != key)
		n = hash_find_next(n);
	return n ? container_of(n, struct entry, node) : NULL;
}

static void add(struct hash_table *t, int from, int to)
{
	for (int i = from; i < to; i++) {
		entries[i].key = i;
		hash_add(t, &entries[i].node, hash_of(i));
	}
}

/* All of these are found, and no others. */
static void check_found(const struct hash_table *t, int n)
{
	int wrong = 0;

	EQ(t->n, n);
	for (int i = 0; i < N; i++)
		wrong += find(t, i) != (i < n ? &entries[i] : NULL);
	EQ(wrong, 0);
}

static void empty(struct hash_table *t)
{
	list_for_each_safe (it, &t->order)
		hash_del(t, list_entry(it, struct hash_node, order));
	EQ(t->n, 0);
	hash_release(t);
}

static void test_growth(void)
{
	struct hash_table t;

	EQ(hash_init(&t, MAX_BUCKETS), 0);
	EQ(t.nbuckets, HASH_MIN_BUCKETS);
	check_found(&t, 0);
	for (int n = 0; n < N; n += 500) {
		add(&t, n, n + 500);
		check_found(&t, n + 500);
		EQ(t.nbuckets & (t.nbuckets - 1), 0);
		OK(t.nbuckets == MAX_BUCKETS || t.nbuckets >= t.n);
	}
	EQ(t.nbuckets, MAX_BUCKETS);
	empty(&t);

	EQ(hash_init(&t, HASH_MIN_BUCKETS), 0);
	add(&t, 0, 500);
	EQ(t.nbuckets, HASH_MIN_BUCKETS);
	check_found(&t, 500);
	empty(&t);
}

static void test_no_memory_to_grow(void)
{
	struct hash_table t;

	EQ(hash_init(&t, MAX_BUCKETS), 0);
	add(&t, 0, HASH_MIN_BUCKETS);
	failures = 0;
	failures_left = 100;
	add(&t, HASH_MIN_BUCKETS, HASH_MIN_BUCKETS + 100);
	EQ(failures, 100);
	EQ(t.nbuckets, HASH_MIN_BUCKETS);
	check_found(&t, HASH_MIN_BUCKETS + 100);
	/* The table grows as soon as memory allows. */
	add(&t, HASH_MIN_BUCKETS + 100, HASH_MIN_BUCKETS + 101);
	EQ(t.nbuckets, 2 * HASH_MIN_BUCKETS);
	check_found(&t, HASH_MIN_BUCKETS + 101);
	empty(&t);
}

static void test_no_memory_at_all(void)
{
	struct hash_table t, zeroed = {0};

	failures_left = 1;
	EQ(hash_init(&t, MAX_BUCKETS), -ENOMEM);
	hash_release(&t);
	hash_release(&t);
	hash_release(&zeroed);
}

static void test_order(void)
{
	struct hash_table t;
	int want = 0;

	EQ(hash_init(&t, MAX_BUCKETS), 0);
	add(&t, 0, 300);
	for (int i = 0; i < 100; i++)
		hash_touch(&t, &entries[i].node);
	list_for_each (it, &t.order) {
		struct entry *e = list_entry(it, struct entry, node.order);

		EQ(e->key, (want + 100) % 300);
		want++;
	}
	EQ(want, 300);
	check_found(&t, 300);
	empty(&t);
}

static void test_deletion(void)
{
	struct hash_table t;

	EQ(hash_init(&t, MAX_BUCKETS), 0);
	add(&t, 0, N);
	/* Removes one of each two with the same hash. */
	for (int i = 0; i < N; i += 2)
		hash_del(&t, &entries[i].node);
	EQ(t.n, N / 2);
	for (int i = 0; i < N; i += 2) {
		OK(!find(&t, i));
		OK(find(&t, i + 1) == &entries[i + 1]);
	}
	/* A removed entry may be added again. */
	for (int i = 0; i < N; i += 2)
		hash_add(&t, &entries[i].node, hash_of(i));
	check_found(&t, N);
	empty(&t);
}

int main(void)
{
	RUN(test_growth);
	RUN(test_no_memory_to_grow);
	RUN(test_no_memory_at_all);
	RUN(test_order);
	RUN(test_deletion);
	return tap_done();
}
