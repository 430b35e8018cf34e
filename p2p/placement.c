#include "p2p/placement.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

/* The finalizer of splitmix64 (Steele, Lea and Flood, "Fast splittable
 * pseudorandom number generators", 2014; constants of Stafford's variant 13).
 * It is a bijection, so distinct members never tie. */
static inline uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	x ^= x >> 31;
	return x;
}

/* FNV-1a, then mix(), because FNV-1a's low bits are weak. */
uint64_t place_hash(const void *bytes, size_t len)
{
	const unsigned char *p = bytes;
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < len; i++) {
		h ^= p[i];
		h *= UINT64_C(0x100000001b3);
	}
	return mix(h);
}

/* Members are ranked for a stripe by mix(stripe_key() ^ id). The key takes the
 * stripe's number in the blob, not its place in the round: rounds shift when a
 * member joins, and owners must not. */
static inline uint64_t stripe_key(uint64_t blob, uint32_t stripe)
{
	return mix(blob +
		   (stripe + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15));
}

/* Stripes of one chunk keep the most owners at work within a reader's window.
 * From 1 GiB on, stripes of two chunks halve the number of requests. */
uint32_t place_stripe_chunks(uint32_t nchunks)
{
	return nchunks >= 1024 ? 2 : 1;
}

uint32_t place_stripes(uint32_t nchunks)
{
	uint32_t len = place_stripe_chunks(nchunks);

	return nchunks / len + (nchunks % len != 0);
}

void place_deal(const struct place_view *view, uint64_t blob, uint32_t round,
		uint32_t wanted, uint32_t *owners, uint8_t *used)
{
	memset(used, 0, view->n);
	for (uint32_t i = 0; i < wanted && i < view->n; i++) {
		uint64_t key = stripe_key(blob, round * view->n + i);
		uint64_t best = 0;
		uint32_t owner = PLACE_NONE;

		for (uint32_t m = 0; m < view->n; m++) {
			uint64_t h = mix(key ^ view->ids[m]);

			if (used[m] || (h <= best && owner != PLACE_NONE))
				continue;
			best = h;
			owner = m;
		}
		used[owner] = 1;
		owners[i] = owner;
	}
}

/* Writes the members with the highest hashes, in order, into out[from..max). */
static uint32_t highest(const struct place_view *view, uint64_t key,
			uint32_t except, uint32_t from, uint32_t max,
			uint32_t *out)
{
	uint64_t score[PLACE_ORDER + PLACE_HOMES];
	uint32_t n = from;

	for (uint32_t m = 0; m < view->n; m++) {
		uint64_t h = mix(key ^ view->ids[m]);
		uint32_t i;

		if (m == except || (n == max && h < score[n - 1]))
			continue;
		if (n < max)
			n++;
		for (i = n - 1; i > from && score[i - 1] < h; i--) {
			score[i] = score[i - 1];
			out[i] = out[i - 1];
		}
		score[i] = h;
		out[i] = m;
	}
	return n;
}

uint32_t place_order(const struct place_view *view, uint64_t blob,
		     uint32_t stripe, uint32_t owner,
		     uint32_t order[PLACE_ORDER])
{
	order[0] = owner;
	return highest(view, stripe_key(blob, stripe), owner, 1, PLACE_ORDER,
		       order);
}

uint32_t place_homes(const struct place_view *all, uint64_t key,
		     uint32_t homes[PLACE_HOMES])
{
	return highest(all, mix(key), PLACE_NONE, 0, PLACE_HOMES, homes);
}

/* ---- Choosing a member to ask ---- */

/* Returns the holder with fewer open requests of this node; a if equal. */
static const struct place_candidate *lighter(const struct place_candidate *a,
					     const struct place_candidate *b)
{
	return !a || b->active < a->active ? b : a;
}

/* The best holder that was not tried, among the slow or the other ones. */
static const struct place_candidate *best_holder(const struct place_ask *ask,
						 bool slow)
{
	const struct place_candidate *best = NULL, *c;

	for (uint32_t i = 0; i < ask->norder; i++) {
		c = &ask->order[i];
		if (c->has && !c->self && !c->tried && c->slow == slow)
			best = lighter(best, c);
	}
	for (uint32_t i = 0; i < ask->nholders; i++) {
		c = &ask->holders[i];
		if (c->has && !c->self && !c->tried && c->slow == slow)
			best = lighter(best, c);
	}
	return best;
}

static const struct place_candidate *first_fit(const struct place_ask *ask)
{
	for (uint32_t i = 0; i < ask->norder; i++) {
		const struct place_candidate *c = &ask->order[i];

		if (!c->tried && !c->slow && !c->wont)
			return c;
	}
	return NULL;
}

enum place_verdict place_choose(const struct place_ask *ask,
				uint32_t *ret_member)
{
	const struct place_candidate *owner = first_fit(ask);
	const struct place_candidate *best = best_holder(ask, false);

	/* A substitute that lacks the chunk would fetch another copy. */
	if (owner && !owner->self &&
	    (!best || (owner->active <= best->active &&
		       (owner->has || owner == ask->order))))
		best = owner;
	if (!best && !owner)
		best = best_holder(ask, true);
	*ret_member = PLACE_NONE;
	if (!best)
		return PLACE_ASK_UPSTREAM;
	/* The next try comes when an open request of this node ends, so there
	 * must be one. */
	if (ask->background && best->active && best->active >= ask->max_active)
		return PLACE_WAIT;
	*ret_member = best->member;
	return best->has ? PLACE_ASK_HOLDER : PLACE_ASK_OWNER;
}

/* The figures below did best in tests/sim (docs/benchmarks.md).
 *
 * A request is slow if it is older than SLOW_AGE times the normal duration, and
 * its rest, at its rate so far, would take longer than SLOW_REST times that. */
#define SLOW_MIN_MS 250
#define SLOW_AGE    2
#define SLOW_REST   2
#define MARGIN_MAX  7
/* A receiver that takes more than so many times longer than the fastest one
 * gets no redirect. */
#define PACE 3
/* A limited fanout; see place_fanout(). */
#define FANOUT 8

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

uint64_t place_normal_ms(uint32_t *v, uint32_t nended, uint32_t nopen)
{
	uint32_t base = 0, n = nended + nopen;

	if (nended) {
		qsort(v, nended, sizeof(*v), by_value);
		base = v[nended / 2];
	}
	for (uint32_t i = nended; i < n; i++)
		if (v[i] < base)
			v[i] = base;
	if (!n)
		return 0;
	qsort(v, n, sizeof(*v), by_value);
	return v[n / 2] ? v[n / 2] : 1;
}

bool place_is_slow(uint64_t age_ms, uint64_t got, uint64_t len,
		   uint64_t normal_ms)
{
	double age = (double)age_ms, normal = (double)normal_ms;

	if (age_ms < SLOW_MIN_MS || !normal_ms || got >= len)
		return false;
	return age > SLOW_AGE * normal &&
	       age * (double)(len - got) > SLOW_REST * normal * (double)got;
}

uint32_t place_fanout(uint32_t nchunks, uint32_t nmembers)
{
	return nmembers > 32 || nmembers > nchunks ? FANOUT : UINT32_MAX;
}

uint32_t place_margin(uint32_t nmembers)
{
	uint64_t half = max_u64(nmembers / 2, 2);

	return (uint32_t)min_u64(half - 1, MARGIN_MAX);
}

uint32_t place_redirect(const struct place_given *given)
{
	uint32_t fastest = UINT32_MAX, best = PLACE_NONE, least = UINT32_MAX;

	if (given->insist && given->times / 2 < given->fanout)
		return PLACE_NONE;
	for (uint32_t i = 0; i < given->n; i++) {
		const struct place_receiver *r = &given->to[i];

		if (!r->unfit && r->pace_ms < fastest)
			fastest = r->pace_ms;
	}
	if (fastest < SLOW_MIN_MS)
		fastest = SLOW_MIN_MS;
	for (uint32_t i = 0; i < given->n; i++) {
		uint32_t k = (given->turn % given->n + i) % given->n;
		const struct place_receiver *r = &given->to[k];

		if (r->unfit || r->pace_ms / PACE > fastest)
			continue;
		if (best == PLACE_NONE || r->load < least) {
			best = k;
			least = r->load;
		}
	}
	if (best == PLACE_NONE || given->times >= given->fanout)
		return best;
	return given->load > (uint64_t)least + given->margin ? best
							     : PLACE_NONE;
}

uint32_t place_upstream_runs(uint32_t nmembers)
{
	return nmembers == 1 ? 4 : 2;
}
