/* The memory of a home: which member announced which key. Loop thread. */
#ifndef P2P_HOLDERS_HOME_H
#define P2P_HOLDERS_HOME_H

#include "p2p/holders-keys.h"

struct holder_home {
	struct hash_table keys;	 /* by announcement, oldest first */
	struct hash_table names; /* ids of the members that hold something */
	struct members *members;
	const char *self; /* this node's id; borrowed */
	uint32_t ttl_ms, max_keys;
	struct metric_series *m_keys;
};

/* Returns 0 or -ENOMEM. */
int home_init(struct holder_home *t, struct members *members, const char *self,
	      uint32_t ttl_ms, uint32_t max_keys);
void home_release(struct holder_home *t);

/* Notes that the node with this id holds the key. A note about this node itself
 * does not expire. Returns 0, also if the key has too many living holders, or
 * -ENOMEM. */
int home_put(struct holder_home *t, const struct holder_key *key, uint64_t size,
	     const char *id);
/* Drops the note about this node: it no longer holds the key, or is no longer a
 * home of it. */
void home_drop_self(struct holder_home *t, const struct holder_key *key);

/* Writes the living members that hold the key, without this node, and returns
 * their number. *ret_self: whether this node holds it. *ret_size is 0 if nobody
 * holds it. */
unsigned int home_find(const struct holder_home *t,
		       const struct holder_key *key, uint64_t *ret_size,
		       struct member *ret[HOLDERS_PER_KEY], bool *ret_self);

/* Drops expired notes, a limited number of keys per call. Returns when to call
 * again, in ms; UINT64_MAX if there are no keys. */
uint64_t home_sweep(struct holder_home *t, uint64_t now);

#endif
