#include "base/name-table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define MAX_BUCKETS (UINT32_C(1) << 20)

/* FNV-1a with a random seed, because local users and manifests choose the keys.
 */
static uint64_t hash_key(const struct hash_table *t, const char *key)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325) ^ t->seed;

	for (; *key; key++) {
		h ^= (unsigned char)*key;
		h *= UINT64_C(0x100000001b3);
	}
	return h ^ (h >> 32);
}

int name_table_init(struct hash_table *t)
{
	return hash_init(t, MAX_BUCKETS);
}

void name_table_release(struct hash_table *t)
{
	hash_release(t);
}

static struct name_node *of(struct hash_node *h)
{
	return container_of(h, struct name_node, hash);
}

struct name_node *name_table_find(struct hash_table *t, const char *key)
{
	struct hash_node *h = hash_find(t, hash_key(t, key));

	while (h && strcmp(of(h)->key, key) != 0)
		h = hash_find_next(h);
	if (!h)
		return NULL;
	hash_touch(t, h);
	return of(h);
}

int name_table_add(struct hash_table *t, struct name_node *n, const char *key)
{
	n->key = strdup(key);
	if (!n->key)
		return -ENOMEM;
	hash_add(t, &n->hash, hash_key(t, key));
	return 0;
}

void name_table_del(struct hash_table *t, struct name_node *n)
{
	hash_del(t, &n->hash);
	free(n->key);
	n->key = NULL;
}
