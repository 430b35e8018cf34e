#include "containerd/digest-set.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/util.h"

/* The slot where a search for d begins. Digests are evenly distributed unless
 * somebody chooses them to collide; the seed prevents that. */
static size_t home(const struct digest_set *s, const struct digest *d)
{
	uint64_t h = (digest_prefix(d) ^ s->seed) * (s->seed | 1);

	return (size_t)(h >> 32) & (s->cap - 1);
}

/* The slot of d, or the free slot where d would be put. There is always a free
 * slot. */
static size_t find(const struct digest_set *s, const struct digest *d)
{
	size_t i = home(s, d);

	while (s->v[i].used && !digest_equal(&s->v[i].d, d))
		i = (i + 1) & (s->cap - 1);
	return i;
}

bool digest_set_has(const struct digest_set *s, const struct digest *d)
{
	return s->cap > 0 && s->v[find(s, d)].used;
}

static int grow(struct digest_set *s)
{
	struct digest_set bigger = {
		.cap = s->cap ? s->cap * 2 : 64, .n = s->n, .seed = s->seed};
	const struct digest *d;
	size_t at = 0;

	if (!s->cap && getrandom(&bigger.seed, sizeof(bigger.seed), 0) !=
			       sizeof(bigger.seed))
		bigger.seed = now_ms();
	bigger.v = calloc(bigger.cap, sizeof(*bigger.v));
	if (!bigger.v)
		return -ENOMEM;
	while ((d = digest_set_next(s, &at)))
		bigger.v[find(&bigger, d)] = (struct digest_slot){*d, true};
	free(s->v);
	*s = bigger;
	return 0;
}

int digest_set_add(struct digest_set *s, const struct digest *d)
{
	size_t i;

	if (digest_set_has(s, d))
		return 0;
	if (s->n + 1 > s->cap - s->cap / 4 && grow(s) < 0)
		return -ENOMEM;
	i = find(s, d);
	s->v[i] = (struct digest_slot){*d, true};
	s->n++;
	return 1;
}

bool digest_set_del(struct digest_set *s, const struct digest *d)
{
	size_t hole, i, mask = s->cap - 1;

	if (!digest_set_has(s, d))
		return false;
	hole = find(s, d);
	s->v[hole].used = false;
	s->n--;
	/* Moves back the entries behind the hole that collided with it. */
	for (i = (hole + 1) & mask; s->v[i].used; i = (i + 1) & mask) {
		size_t from = home(s, &s->v[i].d);

		if (((i - from) & mask) < ((i - hole) & mask))
			continue;
		s->v[hole] = s->v[i];
		s->v[i].used = false;
		hole = i;
	}
	return true;
}

const struct digest *digest_set_next(const struct digest_set *s, size_t *at)
{
	while (*at < s->cap) {
		const struct digest_slot *slot = &s->v[(*at)++];

		if (slot->used)
			return &slot->d;
	}
	return NULL;
}

void digest_set_release(struct digest_set *s)
{
	free(s->v);
	*s = (struct digest_set){0};
}
