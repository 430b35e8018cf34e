#include "http/places.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/cleanup.h"

struct places_client {
	struct hash_node node;
	struct list crowd;   /* in places.crowd[…], or empty */
	struct list waiting; /* places, the longest first */
	uint32_t n, n_waiting;
	uint64_t key[2];
};

/* ---- Addresses ---- */

/* What counts as one client: an IPv4 address, the 64 bits of an IPv6 one that
 * a network hands out (a host has all of the others), this host. */
static void key_of(const struct sockaddr_storage *addr, uint64_t key[2])
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	const struct sockaddr_in6 *a6 = (const void *)addr;
	const struct sockaddr_in *a4 = (const void *)addr;
	uint32_t v4 = 0;

	key[0] = key[1] = 0; /* this host */
	if (addr->ss_family == AF_INET) {
		v4 = ntohl(a4->sin_addr.s_addr);
	} else if (addr->ss_family == AF_INET6) {
		const uint8_t *b = a6->sin6_addr.s6_addr;

		if (memcmp(b, mapped, sizeof(mapped)) == 0) {
			memcpy(&v4, b + 12, sizeof(v4));
			v4 = ntohl(v4);
		} else if (!IN6_IS_ADDR_LOOPBACK(&a6->sin6_addr)) {
			memcpy(&key[0], b, sizeof(key[0]));
			key[1] = 2;
		}
	}
	if (v4 != 0 && v4 >> 24 != IN_LOOPBACKNET) {
		key[0] = v4;
		key[1] = 1;
	}
}

static struct places_client *find(struct places *p, const uint64_t key[2],
				  uint64_t *ret_hash)
{
	__uint128_t m = (__uint128_t)(key[0] ^ p->clients.seed) *
			((p->clients.seed << 1 | 1) + key[1]);
	struct hash_node *n;

	*ret_hash = (uint64_t)m ^ (uint64_t)(m >> 64);
	n = hash_find(&p->clients, *ret_hash);
	while (n) {
		struct places_client *c =
			container_of(n, struct places_client, node);

		if (c->key[0] == key[0] && c->key[1] == key[1])
			return c;
		n = hash_find_next(n);
	}
	return NULL;
}

static struct places_client *get_client(struct places *p,
					const struct sockaddr_storage *addr)
{
	struct places_client *c;
	uint64_t key[2], hash;

	key_of(addr, key);
	c = find(p, key, &hash);
	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	memcpy(c->key, key, sizeof(key));
	list_init(&c->crowd);
	list_init(&c->waiting);
	hash_add(&p->clients, &c->node, hash);
	return c;
}

static bool is_this_host(const struct places_client *c)
{
	return c->key[1] == 0;
}

/* ---- Places ---- */

int places_new(uint32_t max, struct places **ret)
{
	CLEANUP(freep) struct places *p = calloc(1, sizeof(*p));
	uint32_t buckets = HASH_MIN_BUCKETS;

	if (!p)
		return -ENOMEM;
	while (buckets < max && buckets < 1U << 20)
		buckets *= 2;
	if (hash_init(&p->clients, buckets) < 0)
		return -ENOMEM;
	p->max = max;
	list_init(&p->owned);
	list_init(&p->spare_waiting);
	for (size_t i = 0; i < ARRAY_SIZE(p->crowd); i++)
		list_init(&p->crowd[i]);
	*ret = steal_ptr(&p);
	return 0;
}

void places_free(struct places **pp)
{
	struct places *p = *pp;

	if (!p)
		return;
	BUG_ON(p->n > 0 || p->n_spare > 0);
	list_del(&p->owned);
	hash_release(&p->clients);
	free(p);
	*pp = NULL;
}

/* After c->n_waiting has changed. */
static void sort_in(struct places *p, struct places_client *c)
{
	list_del(&c->crowd);
	if (c->n_waiting > 0)
		list_add_tail(&p->crowd[31 - __builtin_clz(c->n_waiting)],
			      &c->crowd);
}

void places_wait(struct places *p, struct place *pl, bool waits)
{
	struct places_client *c = pl->client;

	if (!pl->taken || waits != list_empty(&pl->node))
		return;
	if (waits)
		list_add_tail(c ? &c->waiting : &p->spare_waiting, &pl->node);
	else
		list_del(&pl->node);
	if (c) {
		c->n_waiting += waits ? 1U : -1U;
		sort_in(p, c);
	}
}

static struct place *first(const struct list *waiting)
{
	return list_empty(waiting) ? NULL
				   : list_first(waiting, struct place, node);
}

/* Of the client with the most that wait, give or take a factor of two. */
static struct place *of_most(const struct places *p)
{
	for (size_t i = ARRAY_SIZE(p->crowd); i-- > 0;)
		if (!list_empty(&p->crowd[i]))
			return first(&list_first(&p->crowd[i],
						 struct places_client, crowd)
					      ->waiting);
	return NULL;
}

static void client_put(struct places *p, struct places_client *c)
{
	if (c->n > 0)
		return;
	hash_del(&p->clients, &c->node);
	free(c);
}

static int enter_spare(struct places *p, struct place *pl,
		       struct place **ret_victim)
{
	if (p->n_spare >= PLACES_SPARE) {
		*ret_victim = first(&p->spare_waiting);
		if (!*ret_victim)
			return -EAGAIN;
	}
	p->n_spare++;
	pl->client = NULL;
	return 0;
}

int places_enter(struct places *p, struct place *pl,
		 const struct sockaddr_storage *addr, struct place **ret_victim)
{
	struct places_client *c = get_client(p, addr);
	bool over, full;
	int r = 0;

	*ret_victim = NULL;
	if (!c)
		return -ENOMEM;
	over = !is_this_host(c) && c->n >= (p->max + 1) / 2;
	full = p->n >= p->max;
	if (over)
		*ret_victim = first(&c->waiting);
	else if (full)
		*ret_victim = of_most(p);
	if ((over || full) && !*ret_victim) {
		client_put(p, c);
		r = enter_spare(p, pl, ret_victim);
	} else {
		c->n++;
		p->n++;
		pl->client = c;
	}
	if (r < 0)
		return r;
	list_init(&pl->node);
	pl->taken = true;
	places_wait(p, pl, true);
	return 0;
}

void places_leave(struct places *p, struct place *pl)
{
	struct places_client *c = pl->client;

	if (!pl->taken)
		return;
	places_wait(p, pl, false);
	pl->taken = false;
	if (!c) {
		p->n_spare--;
		return;
	}
	p->n--;
	c->n--;
	client_put(p, c);
}
