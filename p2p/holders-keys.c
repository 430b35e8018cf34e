#include "p2p/holders-keys.h"

#include <errno.h>
#include <string.h>

/* Moving so many nodes takes some milliseconds of the loop's time. Larger
 * tables get longer chains instead. */
#define MAX_BUCKETS (UINT32_C(1) << 16)

static const struct {
	enum holder_kind kind;
	const char *prefix;
} kinds[] = {
	{HOLDER_SHA256, "sha256:"},
	{HOLDER_URL, "url:"},
	{HOLDER_TAG, "tag:"},
};

char *holder_key_str(const struct holder_key *key, char out[HOLDER_KEY_SIZE])
{
	char hex[DIGEST_HEX_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].kind == key->kind)
			(void)snprintf(out, HOLDER_KEY_SIZE, "%s%s",
				       kinds[i].prefix,
				       digest_hex(&key->id, hex));
	return out;
}

int holder_key_parse(const char *s, struct holder_key *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t len = strlen(kinds[i].prefix);

		if (strncmp(s, kinds[i].prefix, len) != 0)
			continue;
		ret->kind = kinds[i].kind;
		return digest_parse_hex(s + len, &ret->id);
	}
	return -EINVAL;
}

bool holder_key_equal(const struct holder_key *a, const struct holder_key *b)
{
	return a->kind == b->kind && digest_equal(&a->id, &b->id);
}

/* Keys come from other nodes, which may choose them freely. So all bits count,
 * and the seed is random. */
static uint64_t hash_key(const struct hash_table *t,
			 const struct holder_key *key)
{
	uint64_t h = t->seed + (uint64_t)key->kind, w;

	for (size_t i = 0; i < DIGEST_BYTES; i += sizeof(w)) {
		unsigned __int128 m;

		memcpy(&w, key->id.sha256 + i, sizeof(w));
		m = (unsigned __int128)(h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
		h = (uint64_t)m ^ (uint64_t)(m >> 64) ^ t->seed;
	}
	return h ^ (h >> 32);
}

int key_table_init(struct hash_table *t)
{
	return hash_init(t, MAX_BUCKETS);
}

void key_table_release(struct hash_table *t, void (*end)(struct key_node *n))
{
	while (t->n > 0) {
		struct key_node *n =
			list_first(&t->order, struct key_node, hash.order);

		key_table_del(t, n);
		end(n);
	}
	hash_release(t);
}

static struct key_node *of(struct hash_node *h)
{
	return container_of(h, struct key_node, hash);
}

struct key_node *key_table_find(const struct hash_table *t,
				const struct holder_key *key)
{
	struct hash_node *h = hash_find(t, hash_key(t, key));

	while (h && !holder_key_equal(&of(h)->key, key))
		h = hash_find_next(h);
	return h ? of(h) : NULL;
}

void key_table_add(struct hash_table *t, struct key_node *n)
{
	hash_add(t, &n->hash, hash_key(t, &n->key));
}

void key_table_del(struct hash_table *t, struct key_node *n)
{
	hash_del(t, &n->hash);
}

void key_table_touch(struct hash_table *t, struct key_node *n)
{
	hash_touch(t, &n->hash);
}
