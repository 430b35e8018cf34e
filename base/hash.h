/* A hash table with intrusive nodes and keys of the user's choice. It also
 * keeps its nodes in an order: the order of addition, unless hash_touch() moves
 * one. The user hashes the keys (with the table's seed if others choose the
 * keys), compares them, and owns the nodes. A node must not move in memory
 * while it is in the table. Not thread-safe: the owner of the table names the
 * lock or thread that guards it. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stdint.h>

#include "base/list.h"

#define HASH_MIN_BUCKETS 64

struct hash_node {
	struct hash_node *next; /* in the bucket */
	struct list order;	/* in hash_table.order */
	uint64_t hash;
};

struct hash_table {
	struct hash_node **buckets;
	uint32_t nbuckets, max_buckets; /* powers of two */
	uint32_t n;
	uint64_t seed; /* random */
	struct list order;
};

/* Makes a table of HASH_MIN_BUCKETS, which doubles up to max_buckets, a power
 * of two not below HASH_MIN_BUCKETS; after that the chains get longer. Each
 * doubling moves all nodes. -ENOMEM. hash_release() is allowed after an error,
 * and on a zeroed table. */
int hash_init(struct hash_table *t, uint32_t max_buckets);
/* Frees the buckets. The table must have no nodes. */
void hash_release(struct hash_table *t);

/* Return a node with this hash, and the next such node; NULL if there is none.
 * Their keys may differ: the caller compares them. */
struct hash_node *hash_find(const struct hash_table *t, uint64_t hash);
struct hash_node *hash_find_next(const struct hash_node *n);

/* Adds n at the end of the order. Cannot fail: without memory to grow, the
 * chains get longer and the next call tries again. The node must be in no
 * table, and its key must be absent. */
void hash_add(struct hash_table *t, struct hash_node *n, uint64_t hash);
void hash_del(struct hash_table *t, struct hash_node *n);
/* Moves n to the end of the order. */
void hash_touch(struct hash_table *t, struct hash_node *n);

#endif
