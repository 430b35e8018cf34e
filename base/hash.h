/* A hash table with intrusive nodes and keys of the user's choice, which also
 * keeps its nodes in an order: as added, unless moved. The user hashes the keys
 * (with the table's seed, where others choose them), compares them, and owns
 * the nodes, which must stay where they are while they are in the table. Not
 * thread-safe: who owns the table says which lock or thread guards it. */
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

/* The table begins with HASH_MIN_BUCKETS and doubles up to max_buckets, a power
 * of two not below that; from there on chains get longer. Each doubling moves
 * all nodes. -ENOMEM; hash_release() is allowed then, and on a zeroed table. */
int hash_init(struct hash_table *t, uint32_t max_buckets);
/* The nodes must have been taken out. */
void hash_release(struct hash_table *t);

/* One of the nodes with that hash, and the next one: their keys may differ.
 * NULL if there is none. */
struct hash_node *hash_find(const struct hash_table *t, uint64_t hash);
struct hash_node *hash_find_next(const struct hash_node *n);

/* Cannot fail: when there is no memory to grow with, chains get longer, and the
 * next call tries again. The node must be in no table; its key must be
 * absent. */
void hash_add(struct hash_table *t, struct hash_node *n, uint64_t hash);
void hash_del(struct hash_table *t, struct hash_node *n);
/* To the end of the order. */
void hash_touch(struct hash_table *t, struct hash_node *n);

#endif
