/* A hash table with string keys and intrusive nodes, which also keeps its nodes
 * in order of use, so that the idle ones can be dropped first. The owner of the
 * table owns the nodes. Not thread-safe: loop thread. */
#ifndef REGISTRY_TABLE_H
#define REGISTRY_TABLE_H

#include <stdint.h>

#include "base/list.h"

struct table_node {
	struct table_node *next; /* in the bucket */
	struct list used;	 /* in table.used */
	uint64_t hash;
	char *key; /* owned by the table while the node is in it */
};

struct table {
	struct table_node **buckets;
	uint32_t nbuckets; /* a power of two */
	uint32_t n;
	uint64_t seed;
	struct list used; /* least recently used first */
};

/* -ENOMEM. */
int table_init(struct table *t);
/* The nodes must have been taken out. */
void table_release(struct table *t);
/* NULL if absent. Counts as a use. */
struct table_node *table_find(struct table *t, const char *key);
/* Copies the key, which must be absent. -ENOMEM. */
int table_add(struct table *t, struct table_node *n, const char *key);
/* Takes the node out and frees its key. */
void table_del(struct table *t, struct table_node *n);

#define table_entry(ptr, type, member) container_of(ptr, type, member)

/* Walks from the least recently used node; the current one may be deleted. */
#define table_for_each_safe(it, t) list_for_each_safe (it, &(t)->used)

#endif
