/* Hash tables with string keys. They keep their nodes in order of use, so that
 * the owner can drop idle ones first. The owner of the table owns the nodes.
 * Not thread-safe: loop thread. */
#ifndef BASE_NAME_TABLE_H
#define BASE_NAME_TABLE_H

#include "base/hash.h"

struct name_node {
	struct hash_node hash;
	char *key; /* owned by the table while the node is in it */
};

/* -ENOMEM. */
int name_table_init(struct hash_table *t);
/* The table must have no nodes. */
void name_table_release(struct hash_table *t);
/* Returns the node, or NULL. Counts as a use. */
struct name_node *name_table_find(struct hash_table *t, const char *key);
/* Adds n with a copy of the key, which must be absent. -ENOMEM. */
int name_table_add(struct hash_table *t, struct name_node *n, const char *key);
/* Removes the node and frees its key. */
void name_table_del(struct hash_table *t, struct name_node *n);

#define name_table_entry(ptr, type, member) container_of(ptr, type, member)

/* Walks from the least recently used node; the body may delete the current one.
 * `it` is a struct list *. */
#define name_table_for_each_safe(it, t) list_for_each_safe (it, &(t)->order)
#define name_table_at(it, type, member) list_entry(it, type, member.hash.order)
/* The least recently used node; the table must not be empty. */
#define name_table_first(t, type, member)                                      \
	name_table_at((t)->order.next, type, member)

#endif
