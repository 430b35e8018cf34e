/* A set of digests. Not thread-safe. */
#ifndef CONTAINERD_DIGEST_SET_H
#define CONTAINERD_DIGEST_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"

struct digest_slot {
	struct digest d;
	bool used;
};

struct digest_set { /* all zero is an empty one */
	struct digest_slot *v;
	size_t n, cap; /* cap is 0 or a power of two */
	uint64_t seed;
};

bool digest_set_has(const struct digest_set *s, const struct digest *d);
/* 1: added. 0: it was there already. -ENOMEM. */
int digest_set_add(struct digest_set *s, const struct digest *d);
/* Removes d. Returns whether it was there. */
bool digest_set_del(struct digest_set *s, const struct digest *d);
/* Returns the next digest of a walk, NULL at the end. *at is 0 at first. The
 * set must not change during the walk. */
const struct digest *digest_set_next(const struct digest_set *s, size_t *at);
void digest_set_release(struct digest_set *s);

#endif
