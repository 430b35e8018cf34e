/* Keys of holders as text, and hash tables of them. The owner of a table owns
 * its nodes. Not thread-safe. */
#ifndef P2P_HOLDERS_KEYS_H
#define P2P_HOLDERS_KEYS_H

#include "base/hash.h"
#include "p2p/holders.h"

#define HOLDER_KEY_SIZE DIGEST_STR_SIZE

/* Returns out. */
char *holder_key_str(const struct holder_key *key, char out[HOLDER_KEY_SIZE]);
/* -EINVAL unless it is a known kind, a colon and 64 lower-case hex digits. */
int holder_key_parse(const char *s, struct holder_key *ret);
bool holder_key_equal(const struct holder_key *a, const struct holder_key *b);

struct key_node {
	struct hash_node hash;
	struct holder_key key;
};

#define key_entry(ptr, type) container_of(ptr, type, node)
/* The entry at a struct list of a table's order. */
#define key_at(it, type) list_entry(it, type, node.hash.order)
/* The first entry in the order; the table must not be empty. */
#define key_first(t, type) key_at((t)->order.next, type)

/* -ENOMEM. */
int key_table_init(struct hash_table *t);
/* Removes all nodes and calls end() for each. */
void key_table_release(struct hash_table *t, void (*end)(struct key_node *n));
/* NULL if absent. Does not change the order. */
struct key_node *key_table_find(const struct hash_table *t,
				const struct holder_key *key);
/* n->key must be set and absent from t. */
void key_table_add(struct hash_table *t, struct key_node *n);
void key_table_del(struct hash_table *t, struct key_node *n);
/* Moves n to the end of the order. */
void key_table_touch(struct hash_table *t, struct key_node *n);

#endif
