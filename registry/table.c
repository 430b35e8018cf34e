#include "registry/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/util.h"

/* FNV-1a from a random start: keys come from local users and from manifests. */
static uint64_t hash_key(const struct table *t, const char *key)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325) ^ t->seed;

	for (; *key; key++) {
		h ^= (unsigned char)*key;
		h *= UINT64_C(0x100000001b3);
	}
	return h ^ (h >> 32);
}

int table_init(struct table *t)
{
	*t = (struct table){.nbuckets = 64};
	list_init(&t->used);
	if (getrandom(&t->seed, sizeof(t->seed), 0) != sizeof(t->seed))
		t->seed = now_ms();
	t->buckets = calloc(t->nbuckets, sizeof(struct table_node *));
	return t->buckets ? 0 : -ENOMEM;
}

void table_release(struct table *t)
{
	BUG_ON(t->n > 0);
	free(t->buckets);
	t->buckets = NULL;
}

struct table_node *table_find(struct table *t, const char *key)
{
	uint64_t h = hash_key(t, key);
	struct table_node *n = t->buckets[h & (t->nbuckets - 1)];

	while (n && (n->hash != h || strcmp(n->key, key) != 0))
		n = n->next;
	if (n) {
		list_del(&n->used);
		list_add_tail(&t->used, &n->used);
	}
	return n;
}

/* When memory is short the chains just get longer. */
static void grow(struct table *t)
{
	uint32_t n = t->nbuckets * 2;
	struct table_node **b = calloc(n, sizeof(struct table_node *));

	if (!b)
		return;
	for (uint32_t i = 0; i < t->nbuckets; i++) {
		while (t->buckets[i]) {
			struct table_node *e = t->buckets[i];

			t->buckets[i] = e->next;
			e->next = b[e->hash & (n - 1)];
			b[e->hash & (n - 1)] = e;
		}
	}
	free(t->buckets);
	t->buckets = b;
	t->nbuckets = n;
}

int table_add(struct table *t, struct table_node *n, const char *key)
{
	struct table_node **b;

	n->key = strdup(key);
	if (!n->key)
		return -ENOMEM;
	if (t->n >= t->nbuckets && t->nbuckets < UINT32_C(1) << 20)
		grow(t);
	n->hash = hash_key(t, key);
	b = &t->buckets[n->hash & (t->nbuckets - 1)];
	n->next = *b;
	*b = n;
	list_add_tail(&t->used, &n->used);
	t->n++;
	return 0;
}

void table_del(struct table *t, struct table_node *n)
{
	struct table_node **p = &t->buckets[n->hash & (t->nbuckets - 1)];

	while (*p != n) {
		BUG_ON(!*p);
		p = &(*p)->next;
	}
	*p = n->next;
	list_del(&n->used);
	free(n->key);
	n->key = NULL;
	t->n--;
}
