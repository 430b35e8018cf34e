#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/util.h"

int hash_init(struct hash_table *t, uint32_t max_buckets)
{
	BUG_ON(max_buckets < HASH_MIN_BUCKETS ||
	       (max_buckets & (max_buckets - 1)));
	*t = (struct hash_table){
		.nbuckets = HASH_MIN_BUCKETS,
		.max_buckets = max_buckets,
	};
	list_init(&t->order);
	if (getrandom(&t->seed, sizeof(t->seed), 0) != sizeof(t->seed))
		t->seed = now_ms();
	t->buckets = calloc(t->nbuckets, sizeof(struct hash_node *));
	return t->buckets ? 0 : -ENOMEM;
}

void hash_release(struct hash_table *t)
{
	BUG_ON(t->n > 0);
	free(t->buckets);
	t->buckets = NULL;
}

static struct hash_node **bucket(const struct hash_table *t, uint64_t hash)
{
	return &t->buckets[hash & (t->nbuckets - 1)];
}

static struct hash_node *skip_others(struct hash_node *n, uint64_t hash)
{
	while (n && n->hash != hash)
		n = n->next;
	return n;
}

struct hash_node *hash_find(const struct hash_table *t, uint64_t hash)
{
	return skip_others(*bucket(t, hash), hash);
}

struct hash_node *hash_find_next(const struct hash_node *n)
{
	return skip_others(n->next, n->hash);
}

static void push(struct hash_table *t, struct hash_node *n)
{
	struct hash_node **b = bucket(t, n->hash);

	n->next = *b;
	*b = n;
}

static void grow(struct hash_table *t)
{
	uint32_t nold = t->nbuckets;
	struct hash_node **old = t->buckets;
	struct hash_node **b = calloc((size_t)nold * 2, sizeof(*b));

	if (!b)
		return;
	t->buckets = b;
	t->nbuckets = nold * 2;
	for (uint32_t i = 0; i < nold; i++) {
		while (old[i]) {
			struct hash_node *n = old[i];

			old[i] = n->next;
			push(t, n);
		}
	}
	free(old);
}

void hash_add(struct hash_table *t, struct hash_node *n, uint64_t hash)
{
	if (t->n >= t->nbuckets && t->nbuckets < t->max_buckets)
		grow(t);
	n->hash = hash;
	push(t, n);
	list_add_tail(&t->order, &n->order);
	t->n++;
}

void hash_del(struct hash_table *t, struct hash_node *n)
{
	struct hash_node **p = bucket(t, n->hash);

	while (*p != n) {
		BUG_ON(!*p);
		p = &(*p)->next;
	}
	*p = n->next;
	list_del(&n->order);
	t->n--;
}

void hash_touch(struct hash_table *t, struct hash_node *n)
{
	list_del(&n->order);
	list_add_tail(&t->order, &n->order);
}
