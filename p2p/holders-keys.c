#include "p2p/holders-keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MIN_BUCKETS 64
/* Moving that many nodes takes some milliseconds of the loop's time; from there
 * on chains get longer. */
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

/* Keys come from other nodes, who need not have computed them from anything:
 * all bits count, from a random start. */
static uint64_t hash_key(const struct key_table *t,
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

int key_table_init(struct key_table *t)
{
	*t = (struct key_table){.nbuckets = MIN_BUCKETS};
	list_init(&t->order);
	if (getrandom(&t->seed, sizeof(t->seed), 0) != sizeof(t->seed))
		t->seed = now_ms();
	t->buckets = calloc(t->nbuckets, sizeof(*t->buckets));
	return t->buckets ? 0 : -ENOMEM;
}

void key_table_release(struct key_table *t, void (*end)(struct key_node *n))
{
	while (t->n > 0) {
		struct key_node *n =
			list_first(&t->order, struct key_node, order);

		key_table_del(t, n);
		end(n);
	}
	free(t->buckets);
	t->buckets = NULL;
}

struct key_node *key_table_find(const struct key_table *t,
				const struct holder_key *key)
{
	uint64_t h = hash_key(t, key);
	struct key_node *n = t->buckets[h & (t->nbuckets - 1)];

	while (n && (n->hash != h || !holder_key_equal(&n->key, key)))
		n = n->next;
	return n;
}

/* When memory is short the chains just get longer. */
static void grow(struct key_table *t)
{
	uint32_t n = t->nbuckets * 2;
	struct key_node **b = calloc(n, sizeof(*b));

	if (!b)
		return;
	for (uint32_t i = 0; i < t->nbuckets; i++) {
		while (t->buckets[i]) {
			struct key_node *e = t->buckets[i];

			t->buckets[i] = e->next;
			e->next = b[e->hash & (n - 1)];
			b[e->hash & (n - 1)] = e;
		}
	}
	free(t->buckets);
	t->buckets = b;
	t->nbuckets = n;
}

void key_table_add(struct key_table *t, struct key_node *n)
{
	struct key_node **b;

	if (t->n >= t->nbuckets && t->nbuckets < MAX_BUCKETS)
		grow(t);
	n->hash = hash_key(t, &n->key);
	b = &t->buckets[n->hash & (t->nbuckets - 1)];
	n->next = *b;
	*b = n;
	list_add_tail(&t->order, &n->order);
	t->n++;
}

void key_table_del(struct key_table *t, struct key_node *n)
{
	struct key_node **p = &t->buckets[n->hash & (t->nbuckets - 1)];

	while (*p != n) {
		BUG_ON(!*p);
		p = &(*p)->next;
	}
	*p = n->next;
	list_del(&n->order);
	t->n--;
}

void key_table_touch(struct key_table *t, struct key_node *n)
{
	list_del(&n->order);
	list_add_tail(&t->order, &n->order);
}
