/* Hash tables with string keys, which keep their nodes in order of use, so that
 * the idle ones can be dropped first. The owner of the table owns the nodes.
 * Not thread-safe: loop thread. */
#ifndef REGISTRY_TABLE_H
#define REGISTRY_TABLE_H

#include "base/hash.h"

struct table_node {
	struct hash_node hash;
	char *key; /* owned by the table while the node is in it */
};

/* -ENOMEM. */
int table_init(struct hash_table *t);
/* The nodes must have been taken out. */
void table_release(struct hash_table *t);
/* NULL if absent. Counts as a use. */
struct table_node *table_find(struct hash_table *t, const char *key);
/* Copies the key, which must be absent. -ENOMEM. */
int table_add(struct hash_table *t, struct table_node *n, const char *key);
/* Takes the node out and frees its key. */
void table_del(struct hash_table *t, struct table_node *n);

#define table_entry(ptr, type, member) container_of(ptr, type, member)

/* Walks from the least recently used node; the current one may be deleted. `it`
 * is a struct list *. */
#define table_for_each_safe(it, t) list_for_each_safe (it, &(t)->order)
#define table_at(it, type, member) list_entry(it, type, member.hash.order)
/* The least recently used; the table is not empty. */
#define table_first(t, type, member) table_at((t)->order.next, type, member)

#endif
