/* Keys of holders as text, and a hash table of them with intrusive nodes that
 * keeps its nodes in an order of the owner's choice. The owner of the table
 * owns the nodes. Not thread-safe. */
#ifndef P2P_HOLDERS_KEYS_H
#define P2P_HOLDERS_KEYS_H

#include "base/list.h"
#include "p2p/holders.h"

#define HOLDER_KEY_SIZE DIGEST_STR_SIZE

/* Returns out. */
char *holder_key_str(const struct holder_key *key, char out[HOLDER_KEY_SIZE]);
/* -EINVAL for all but a known kind, a colon and 64 lower-case hex digits. */
int holder_key_parse(const char *s, struct holder_key *ret);
bool holder_key_equal(const struct holder_key *a, const struct holder_key *b);

struct key_node {
	struct key_node *next; /* in the bucket */
	struct list order;     /* in key_table.order */
	uint64_t hash;
	struct holder_key key;
};

struct key_table {
	struct key_node **buckets;
	uint32_t nbuckets; /* a power of two */
	uint32_t n;
	uint64_t seed;
	struct list order; /* as added, unless moved */
};

#define key_entry(ptr, type) container_of(ptr, type, node)
/* The first in the order; the table is not empty. */
#define key_first(t, type) list_first(&(t)->order, type, node.order)

/* -ENOMEM. */
int key_table_init(struct key_table *t);
/* Calls end() for each node that is left, after taking it out. */
void key_table_release(struct key_table *t, void (*end)(struct key_node *n));
/* NULL if absent. Leaves the order alone. */
struct key_node *key_table_find(const struct key_table *t,
				const struct holder_key *key);
/* n->key is set, and absent. */
void key_table_add(struct key_table *t, struct key_node *n);
void key_table_del(struct key_table *t, struct key_node *n);
/* To the end of the order. */
void key_table_touch(struct key_table *t, struct key_node *n);

#endif
