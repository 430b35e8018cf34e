/* What this node knows about the members' part in blobs: which chunks they
 * have, which they own, which member to ask. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "p2p/peers-private.h"

/* How long the answer of homes is valid. */
#define FOUND_MS 3000
/* How long a member is not asked to fetch a blob after know_wont(). */
#define WONT_MS 10000

static struct list *bucket(struct peers *p, const struct blob_key *key)
{
	return &p->know_hash[digest_prefix(&key->id) % KNOW_HASH];
}

struct know *know_find(struct peers *p, const struct blob_key *key)
{
	struct list *head = bucket(p, key);

	list_for_each (n, head) {
		struct know *k = list_entry(n, struct know, hash);

		if (blob_key_equal(&k->key, key))
			return k;
	}
	return NULL;
}

static void have_release(struct have *h)
{
	partner_unref(&h->partner);
	free(h->what.bits);
}

static void know_free(struct peers *p, struct know *k)
{
	list_del(&k->hash);
	list_del(&k->lru);
	p->nknows--;
	for (unsigned int i = 0; i < k->nhaves; i++)
		have_release(&k->haves[i]);
	free(k->haves);
	for (int i = 0; i < KNOW_MAX_ROUNDS; i++)
		free(k->deals[i].owners);
	free(k);
}

/* Frees the oldest ones without users. */
static void make_room(struct peers *p)
{
	list_for_each_safe (n, &p->knows) {
		struct know *k = list_entry(n, struct know, lru);

		if (p->nknows < KNOW_MAX_BLOBS)
			return;
		if (k->users == 0)
			know_free(p, k);
	}
}

struct know *know_get(struct peers *p, const struct blob_key *key,
		      uint64_t size)
{
	struct know *k = know_find(p, key);
	uint8_t name[1 + DIGEST_BYTES];

	if (k && k->size != size && k->users == 0) {
		know_free(p, k); /* the blob's size has changed */
		k = NULL;
	}
	if (!k) {
		make_room(p);
		k = calloc(1, sizeof(*k));
		if (!k)
			return NULL;
		k->key = *key;
		k->size = size;
		k->nchunks = (uint32_t)div_up_u64(size, CHUNK_SIZE);
		k->stripe = place_stripe_chunks(k->nchunks);
		name[0] = (uint8_t)key->kind;
		memcpy(name + 1, key->id.sha256, DIGEST_BYTES);
		k->place = place_hash(name, sizeof(name));
		list_add(bucket(p, key), &k->hash);
		list_init(&k->lru);
		p->nknows++;
	}
	list_del(&k->lru);
	list_add_tail(&p->knows, &k->lru);
	k->users++;
	return k;
}

void know_put(struct peers *p, struct know *k)
{
	(void)p;
	BUG_ON(k->users == 0);
	k->users--;
}

void know_free_all(struct peers *p)
{
	while (!list_empty(&p->knows))
		know_free(p, list_first(&p->knows, struct know, lru));
}

static void drop_have(struct know *k, unsigned int i)
{
	have_release(&k->haves[i]);
	k->haves[i] = k->haves[--k->nhaves];
}

void know_forget_partner(struct peers *p, struct partner *w)
{
	list_for_each (n, &p->knows) {
		struct know *k = list_entry(n, struct know, lru);

		for (unsigned int i = 0; i < k->nhaves; i++)
			if (k->haves[i].partner == w)
				drop_have(k, i--);
	}
}

/* ---- Have-maps ---- */

struct have *know_of(struct peers *p, struct know *k, struct partner *w)
{
	struct have *v;

	(void)p;
	for (unsigned int i = 0; i < k->nhaves; i++)
		if (k->haves[i].partner == w)
			return &k->haves[i];
	if (k->nhaves == KNOW_MAX_MEMBERS)
		drop_have(k, (unsigned int)(k->clock++ % KNOW_MAX_MEMBERS));
	v = reallocarray(k->haves, k->nhaves + 1, sizeof(*v));
	if (!v)
		return NULL;
	k->haves = v;
	v += k->nhaves++;
	memset(v, 0, sizeof(*v));
	v->partner = partner_ref(w);
	return v;
}

bool have_chunk(const struct have *h, uint32_t chunk)
{
	uint32_t i = chunk - h->what.first;

	if (h->what.all)
		return true;
	return chunk >= h->what.first && i < h->what.n &&
	       (h->what.bits[i / 8] >> i % 8 & 1);
}

void know_read(struct peers *p, struct know *k, struct partner *w,
	       const char *text)
{
	struct have_bits bits;
	struct have *h;

	if (!text || !w || have_text_parse(text, k->nchunks, &bits) < 0)
		return;
	h = know_of(p, k, w);
	if (!h) {
		free(bits.bits);
	} else if (bits.all) {
		h->what.all = true;
	} else {
		free(h->what.bits);
		h->what = bits;
	}
}

void know_lacks(struct know *k, const struct partner *w, uint32_t chunk)
{
	for (unsigned int i = 0; i < k->nhaves; i++) {
		struct have_bits *b = &k->haves[i].what;
		uint32_t at = chunk - b->first;

		if (k->haves[i].partner != w)
			continue;
		b->all = false;
		if (chunk >= b->first && at < b->n)
			b->bits[at / 8] &= (uint8_t)(0xffu ^ (1u << at % 8));
	}
}

void know_wont(struct peers *p, struct know *k, struct partner *w)
{
	struct have *h = know_of(p, k, w);

	if (!h)
		return;
	h->wont = true;
	h->wont_ms = now_ms() + WONT_MS;
}

/* ---- Owners ---- */

/* Returns the deal of a round, with at least `wanted` owners. */
static const struct deal *deal_of(struct peers *p, struct know *k,
				  const struct place_view *view, uint32_t round,
				  uint32_t wanted)
{
	uint64_t generation = members_generation(p->members);
	struct deal *d = &k->deals[0];
	uint8_t *used;

	for (int i = 0; i < KNOW_MAX_ROUNDS; i++) {
		struct deal *o = &k->deals[i];

		if (o->owners && o->generation == generation &&
		    o->round == round) {
			d = o;
			break;
		}
		if (o->used < d->used)
			d = o;
	}
	d->used = ++k->clock;
	if (d->owners && d->generation == generation && d->round == round &&
	    d->n >= wanted)
		return d;
	/* Deals the whole round, because its other stripes are needed soon. */
	wanted = (uint32_t)min_u64(view->n, place_stripes(k->nchunks) -
						    (uint64_t)round * view->n);
	free(d->owners);
	d->owners = calloc(wanted, sizeof(*d->owners));
	used = calloc(1, view->n);
	if (d->owners && used) {
		d->generation = generation;
		d->round = round;
		d->n = wanted;
		place_deal(view, k->place, round, wanted, d->owners, used);
	} else {
		free(d->owners);
		d->owners = NULL;
	}
	free(used);
	return d->owners ? d : NULL;
}

uint32_t know_order(struct peers *p, struct know *k, uint32_t chunk,
		    uint32_t order[PLACE_ORDER])
{
	const struct place_view *view = members_view(p->members, false);
	uint32_t stripe = k->one_owner ? 0 : chunk / k->stripe;
	uint32_t i = stripe % view->n;
	const struct deal *d = deal_of(p, k, view, stripe / view->n, i + 1);

	return d ? place_order(view, k->place, stripe, d->owners[i], order) : 0;
}

void know_set_owner(struct peers *p, struct know *k, struct blob *b)
{
	k->one_owner = p->cfg.sweeps && p->cfg.sweeps(p->cfg.arg, b);
}

bool know_is_anothers(struct peers *p, struct know *k, struct blob *b)
{
	uint32_t order[PLACE_ORDER];

	know_set_owner(p, k, b);
	return k->one_owner && know_order(p, k, 0, order) > 0 &&
	       members_at(p->members, false, order[0]);
}

/* ---- Choosing a member ---- */

static struct place_candidate candidate(const struct ask *a, struct know *k,
					struct partner *w, uint32_t chunk,
					uint64_t now)
{
	struct place_candidate c = {.self = !w};

	if (!w)
		return c;
	c.active = w->active;
	c.slow = w->slow_ms > now;
	c.tried = w->benched_ms > now || !partner_alive(w) ||
		  (a && ask_was_tried(a, w));
	for (unsigned int i = 0; i < k->nhaves; i++) {
		const struct have *h = &k->haves[i];

		if (h->partner == w) {
			c.has = have_chunk(h, chunk);
			c.wont = h->wont && h->wont_ms > now;
		}
	}
	return c;
}

enum place_verdict know_choose(struct peers *p, struct know *k, uint32_t chunk,
			       const struct ask *a, bool background,
			       bool as_owner, struct partner **ret)
{
	struct place_candidate order[PLACE_ORDER];
	struct place_candidate holders[KNOW_MAX_MEMBERS];
	struct partner *who[PLACE_ORDER + KNOW_MAX_MEMBERS] = {NULL};
	uint32_t members[PLACE_ORDER], n = 0, member;
	struct place_ask ask = {
		.order = order,
		.holders = holders,
		.max_active = PEER_MAX_ACTIVE,
		.background = background,
	};
	uint64_t now = now_ms();
	enum place_verdict v;

	*ret = NULL;
	if (!as_owner)
		n = know_order(p, k, chunk, members);
	for (uint32_t i = 0; i < n; i++) {
		struct member *mb = members_at(p->members, false, members[i]);

		who[i] = mb ? partner_of(p, mb) : NULL;
		order[i] = candidate(a, k, who[i], chunk, now);
		order[i].member = i;
	}
	if (n == 0)
		order[n++] = (struct place_candidate){.self = true};
	ask.norder = n;
	for (unsigned int i = 0; i < k->nhaves; i++) {
		struct have *h = &k->haves[i];
		bool listed = false;

		if (!have_chunk(h, chunk))
			continue;
		for (uint32_t j = 0; j < ask.norder; j++)
			listed |= who[j] == h->partner;
		if (listed)
			continue;
		who[n] = h->partner;
		holders[ask.nholders] = candidate(a, k, h->partner, chunk, now);
		holders[ask.nholders++].member = n++;
	}
	v = place_choose(&ask, &member);
	if (v == PLACE_ASK_HOLDER || v == PLACE_ASK_OWNER)
		*ret = who[member];
	return v;
}

/* ---- Homes ---- */

struct home_look {
	struct peers *p;
	struct blob_key key;
};

static void looked(void *arg, int r, uint64_t size, struct member *const *v,
		   unsigned int n)
{
	struct home_look *l = arg;
	struct peers *p = l->p; /* dangles if r is -ECANCELED */
	struct know *k = r == -ECANCELED ? NULL : know_find(p, &l->key);

	free(l);
	if (!k)
		return;
	k->looking = false;
	k->found_ms = now_ms();
	for (unsigned int i = 0; i < n && (size == 0 || size == k->size); i++) {
		struct partner *w = partner_of(p, v[i]);
		struct have *h = w ? know_of(p, k, w) : NULL;

		/* The member is taken to have the whole blob until it sends a
		 * have-map. */
		if (h && !h->what.bits)
			h->what.all = true;
	}
	know_put(p, k);
	asks_pump(p);
}

bool know_look(struct peers *p, struct know *k)
{
	struct holder_key key = holder_key_of(&k->key);
	struct home_look *l;

	if (k->looking)
		return true;
	if (k->found_ms && now_ms() - k->found_ms < FOUND_MS)
		return false;
	l = calloc(1, sizeof(*l));
	if (!l)
		return false;
	l->p = p;
	l->key = k->key;
	k->looking = true;
	k->users++;
	if (holders_find(p->holders, &key, looked, l) == 0)
		return true;
	k->looking = false;
	know_put(p, k);
	free(l);
	return false;
}
