/* What a home keeps in memory: who said that it holds which key. Loop
 * thread. */
#ifndef P2P_HOLDERS_HOME_H
#define P2P_HOLDERS_HOME_H

#include "p2p/holders-keys.h"

struct holder_home {
	struct hash_table keys;	 /* least recently announced first */
	struct hash_table names; /* ids of those who hold something */
	struct members *members;
	const char *self; /* our own id; borrowed */
	uint32_t ttl_ms, max_keys;
	struct metric_series *m_keys;
};

/* -ENOMEM. */
int home_init(struct holder_home *t, struct members *members, const char *self,
	      uint32_t ttl_ms, uint32_t max_keys);
void home_release(struct holder_home *t);

/* The node of that id holds it. What we hold ourselves does not run out.
 * -ENOMEM. */
int home_put(struct holder_home *t, const struct holder_key *key, uint64_t size,
	     const char *id);
/* We ourselves do not, or are not its home any more. */
void home_drop_self(struct holder_home *t, const struct holder_key *key);

/* Living members that hold it, ourselves not; *ret_self says whether we do.
 * Returns how many. */
unsigned int home_find(const struct holder_home *t,
		       const struct holder_key *key, uint64_t *ret_size,
		       struct member *ret[HOLDERS_PER_KEY], bool *ret_self);

/* Drops what has run out, some keys at a time. Returns when to be called
 * again, UINT64_MAX when there is nothing. */
uint64_t home_sweep(struct holder_home *t, uint64_t now);

#endif
