/* The behaviour of a node: the parts of p2p/ and of fetch/fetch.c that decide
 * which node sends what to which node. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tests/sim/sim-private.h"

/* How long a slow member is not asked; doubled with each verdict. */
#define BENCH_S	    3.0
#define BENCH_MAX_S 60.0

/* ---- Knowledge of other nodes ---- */

static struct known *known_at(const struct sim *s, const struct node *n,
			      uint32_t i)
{
	return (void *)(n->known + i * (sizeof(struct known) + s->words * 8));
}

static uint32_t slot_of(const struct node *n, uint32_t peer)
{
	return (peer * UINT32_C(2654435769)) & (n->known_map_size - 1);
}

static struct known *known_find(const struct sim *s, const struct node *n,
				uint32_t peer)
{
	uint32_t i;

	if (!n->nknown)
		return NULL;
	for (i = slot_of(n, peer); n->known_map[i];
	     i = (i + 1) & (n->known_map_size - 1))
		if (n->known_map[i] >> 32 == peer)
			return known_at(s, n, (uint32_t)n->known_map[i] - 1);
	return NULL;
}

static void map_put(struct node *n, uint32_t peer, uint32_t value)
{
	uint32_t i = slot_of(n, peer);

	while (n->known_map[i])
		i = (i + 1) & (n->known_map_size - 1);
	n->known_map[i] = (uint64_t)peer << 32 | value;
}

static struct known *known_get(const struct sim *s, struct node *n,
			       uint32_t peer)
{
	size_t each = sizeof(struct known) + s->words * 8;
	struct known *k = known_find(s, n, peer);

	if (k)
		return k;
	if (n->nknown == n->known_size) {
		n->known_size = n->known_size ? 2 * n->known_size : 8;
		n->known = realloc(n->known, n->known_size * each);
		BUG_ON(!n->known);
		n->known_map_size = 2 * n->known_size;
		free(n->known_map);
		n->known_map = sim_alloc(n->known_map_size, 8);
		for (uint32_t i = 0; i < n->nknown; i++)
			map_put(n, known_at(s, n, i)->peer, i + 1);
	}
	k = known_at(s, n, n->nknown++);
	memset(k, 0, each);
	k->peer = peer;
	map_put(n, peer, n->nknown);
	return k;
}

static uint32_t known_index(const struct sim *s, struct node *n, uint32_t peer)
{
	unsigned char *k = (unsigned char *)known_get(s, n, peer);

	return (uint32_t)((size_t)(k - n->known) /
			  (sizeof(struct known) + s->words * 8));
}

/* x receives p's have-map of the unit's blob. */
static void learn(struct sim *s, uint32_t x, uint32_t p, uint32_t unit)
{
	struct node *n = &s->nodes[x];
	struct known *k;
	size_t off = unit / s->units_per_blob * s->words_per_blob;

	if (p == s->origin)
		return;
	k = n->nknown < MAX_KNOWN ? known_get(s, n, p) : known_find(s, n, p);
	if (!k)
		return;
	k->load = s->nodes[p].load;
	memcpy(k->have + off, s->nodes[p].have + off, s->words_per_blob * 8);
}

static void bench(struct sim *s, uint32_t x, uint32_t p, double least)
{
	struct known *k = known_get(s, &s->nodes[x], p);
	double t = BENCH_S * (double)(1u << min_u64(k->strikes++, 5));

	t = s->now + fmin(fmax(t, least), BENCH_MAX_S);
	k->slow_until = fmax(k->slow_until, t);
}

/* ---- Flights ---- */

static struct flight *flight_new(struct sim *s, uint32_t x, uint32_t unit)
{
	struct node *n = &s->nodes[x];
	struct flight *fl = sim_alloc(1, sizeof(*fl));

	fl->unit = unit;
	fl->next = n->list;
	if (n->list)
		n->list->prev = fl;
	n->list = fl;
	n->flights[unit] = fl;
	n->pending++;
	return fl;
}

static void flight_free(struct sim *s, uint32_t x, struct flight *fl)
{
	struct node *n = &s->nodes[x];

	if (fl->prev)
		fl->prev->next = fl->next;
	else
		n->list = fl->next;
	if (fl->next)
		fl->next->prev = fl->prev;
	n->flights[fl->unit] = NULL;
	if (!fl->flow)
		n->pending--;
	while (fl->waiters) {
		struct flow *f = fl->waiters;

		fl->waiters = f->wait_next;
		flow_unref(s, f);
	}
	free(fl);
}

static bool was_tried(const struct flight *fl, uint32_t p)
{
	for (uint32_t i = 0; i < fl->ntried; i++)
		if (fl->tried[i] == p)
			return true;
	return false;
}

static void set_tried(struct flight *fl, uint32_t p)
{
	if (!was_tried(fl, p) && fl->ntried < MAX_TRIED)
		fl->tried[fl->ntried++] = p;
}

static void kid_gone(struct sim *s, uint32_t x, uint32_t unit, uint32_t kid)
{
	struct kids *k = &s->nodes[x].kids[unit];

	for (uint32_t i = 0; i < k->n; i++)
		if (k->id[i] == kid) {
			k->id[i] = k->id[--k->n];
			k->known[i] = k->known[k->n];
			return;
		}
}

/* The request has ended: all bytes were brought, or it was given up. */
static void flight_leave(struct sim *s, uint32_t x, struct flight *fl,
			 bool brought)
{
	struct node *n = &s->nodes[x];
	struct flow *f = fl->flow;

	fl->flow = NULL;
	n->pending++;
	if (f->served)
		s->nodes[f->src].load--;
	if (f->served && f->src != s->origin) {
		struct known *q = known_get(s, &s->nodes[f->src], x);

		q->open_to--;
		q->given_at = s->now;
		q->took = s->now - f->asked_at;
	}
	if (2 * f->first <= s->quanta)
		n->normal[n->nnormal++ % NORMAL] =
			(uint32_t)(1000 * (s->now - f->asked_at));
	if (f->src == s->origin) {
		n->upstream--;
	} else {
		known_get(s, n, f->src)->active--;
		if (!brought)
			kid_gone(s, f->src, fl->unit, x);
	}
	flow_end(s, f);
}

static void flight_ask(struct sim *s, uint32_t x, struct flight *fl, uint32_t p)
{
	struct flow *f = flow_new(s);

	f->src = p;
	f->dst = x;
	f->unit = fl->unit;
	f->first = f->sent = fl->got;
	f->flight = fl;
	f->demand = fl->demand;
	/* After one redirect in vain the requester insists: members that wait
	 * for each other in a circle would not get the unit. */
	f->must = fl->ntried > 0;
	f->asked_at = s->now;
	fl->flow = f;
	s->nodes[x].pending--;
	s->res.requests++;
	if (p == s->origin)
		s->nodes[x].upstream++;
	else
		known_get(s, &s->nodes[x], p)->active++;
	sim_at(s, s->now + latency(s, x, p), EV_REQUEST, f, 0);
}

static void candidate(const struct sim *s, uint32_t x, const struct flight *fl,
		      uint32_t p, struct place_candidate *ret)
{
	const struct known *k = known_find(s, &s->nodes[x], p);

	*ret = (struct place_candidate){
		.member = p,
		.active = k ? k->active : 0,
		.self = p == x,
		.has = p != x && k && has_unit(s, k->have, fl->unit),
		.slow = k && k->slow_until > s->now,
		.tried = was_tried(fl, p),
	};
}

/* Asks the best member for a flight without an open request. */
static void flight_start(struct sim *s, uint32_t x, struct flight *fl)
{
	struct node *n = &s->nodes[x];
	const struct view *v = &s->views[n->view];
	const uint32_t *order = v->order + (size_t)fl->unit * PLACE_ORDER;
	struct place_candidate first[PLACE_ORDER], others[MAX_KNOWN];
	struct place_ask ask = {.order = first,
				.holders = others,
				.max_active = s->cfg.max_active,
				.background = !fl->demand};
	uint32_t member;

	/* The requester judged the members before this one unfit. */
	if (fl->for_peers)
		candidate(s, x, fl, x, &first[ask.norder++]);
	else
		for (; ask.norder < v->norder; ask.norder++)
			candidate(s, x, fl, order[ask.norder],
				  &first[ask.norder]);
	for (uint32_t i = 0; i < n->nknown && ask.nholders < MAX_KNOWN; i++) {
		const struct known *k = known_at(s, n, i);
		bool named = false;

		if (!has_unit(s, k->have, fl->unit))
			continue;
		for (uint32_t j = 0; j < ask.norder; j++)
			named |= first[j].member == k->peer;
		if (!named)
			candidate(s, x, fl, k->peer, &others[ask.nholders++]);
	}
	switch (place_choose(&ask, &member)) {
	case PLACE_ASK_HOLDER:
	case PLACE_ASK_OWNER:
		flight_ask(s, x, fl, member);
		break;
	case PLACE_ASK_UPSTREAM:
		if (!n->looked && s->cfg.nodes > 1) {
			n->looked = true;
			sim_at(s, s->now + s->cfg.rtt_ms / 500, EV_LOOKED, NULL,
			       x);
			n->looking = true;
		}
		if (!n->looking && (fl->demand || n->upstream < s->runs))
			flight_ask(s, x, fl, s->origin);
		break;
	case PLACE_WAIT:
		break;
	}
}

/* Retries flights without an open request, the first in reading order first. */
static void node_retry(struct sim *s, uint32_t x)
{
	struct node *n = &s->nodes[x];
	struct flight *fl, *prev;

	if (!n->pending)
		return;
	for (fl = n->list; fl && fl->next; fl = fl->next)
		;
	for (; fl; fl = prev) {
		prev = fl->prev;
		if (!fl->flow)
			flight_start(s, x, fl);
	}
}

/* The homes have named some nodes that have something, and those send their
 * have-maps. */
void node_looked(struct sim *s, uint32_t x)
{
	uint32_t found = 0;

	s->nodes[x].looking = false;
	for (uint32_t i = 0; i < 16 && found < PLACE_HOMES; i++) {
		uint32_t y = (uint32_t)(sim_random(s) * s->total);
		const struct node *n = &s->nodes[y];
		bool any = false;

		for (uint32_t w = 0; w < s->words; w++)
			any |= n->have[w] != 0;
		if (y == x || !n->alive || !any)
			continue;
		for (uint32_t u = 0; u < s->units; u += s->units_per_blob)
			learn(s, x, y, u);
		found++;
	}
	node_retry(s, x);
}

/* ---- Reading ---- */

static void demand(struct sim *s, uint32_t x, struct flight *fl)
{
	if (fl->demand)
		return;
	fl->demand = true;
	if (!fl->flow)
		flight_start(s, x, fl);
}

/* Starts flights for the window. The reader waits for the first unit of it. */
static void node_read(struct sim *s, uint32_t x)
{
	struct node *n = &s->nodes[x];

	while (n->low < s->units && has_unit(s, n->have, s->plan[n->low]))
		n->low++;
	if (n->low == s->units) {
		if (!n->done)
			s->unfinished--;
		n->done = true;
		n->finish = s->now;
		return;
	}
	for (; n->next < s->units && n->next < n->low + s->window; n->next++) {
		uint32_t unit = s->plan[n->next];
		struct flight *fl = n->flights[unit];

		if (has_unit(s, n->have, unit))
			continue;
		if (!fl) {
			fl = flight_new(s, x, unit);
			fl->own = true;
			flight_start(s, x, fl);
		}
		fl->own = true;
	}
	demand(s, x, n->flights[s->plan[n->low]]);
}

void node_start(struct sim *s, uint32_t x)
{
	struct node *n = &s->nodes[x];

	if (!n->alive)
		return;
	n->started = true;
	n->start = s->now;
	node_read(s, x);
}

/* ---- Requests of other nodes ---- */

static void serve(struct sim *s, struct flow *f)
{
	struct node *n = &s->nodes[f->src];
	struct flight *fl = n->flights ? n->flights[f->unit] : NULL;

	f->served = true;
	n->load++;
	if (f->src != s->origin) {
		struct known *q = known_get(s, n, f->dst);

		if (!q->open_to++)
			q->given_at = s->now;
	}
	if (fl) {
		f->wait_next = fl->waiters;
		fl->waiters = f;
		f->refs++;
	}
	flow_kick(s, f);
}

/* Returns how long a transfer to the node takes at present, as far as is
 * known. */
static uint32_t pace_ms(const struct sim *s, const struct known *k)
{
	double open = k->open_to ? s->now - k->given_at : 0;

	return (uint32_t)(1000 * fmax(k->took, open));
}

/* True: redirected to a node that has the unit from this node, or is getting
 * it. */
static bool redirect(struct sim *s, struct flow *f)
{
	struct node *n = &s->nodes[f->src];
	struct kids *k = &n->kids[f->unit];
	struct place_receiver to[MAX_KIDS];
	struct place_given given = {.to = to,
				    .n = k->n,
				    .turn = k->turn,
				    .load = n->load,
				    .times = k->times,
				    .fanout = s->fanout,
				    .margin = place_margin(s->cfg.nodes),
				    .insist = f->must};
	uint32_t i;

	for (i = 0; i < k->n; i++) {
		const struct known *q = known_at(s, n, k->known[i]);

		if (k->id[i] == f->dst)
			return false;
		to[i] = (struct place_receiver){
			.load = q->load,
			.pace_ms = pace_ms(s, q),
			.unfit = q->slow_until > s->now,
		};
	}
	i = place_redirect(&given);
	if (i == PLACE_NONE) {
		k->times++;
		if (k->n < MAX_KIDS) {
			k->known[k->n] = known_index(s, n, f->dst);
			k->id[k->n++] = f->dst;
		}
		return false;
	}
	k->turn++;
	s->res.redirects++;
	known_at(s, n, k->known[i])->load++;
	sim_at(s, s->now + latency(s, f->src, f->dst), EV_REDIRECT, f,
	       k->id[i]);
	return true;
}

void node_request(struct sim *s, struct flow *f)
{
	uint32_t x = f->src;
	struct node *n = &s->nodes[x];
	struct flight *fl;

	if (f->dead)
		return;
	if (x == s->origin) {
		serve(s, f);
		return;
	}
	if (!n->alive) {
		if (!s->cfg.silent)
			sim_at(s, s->now + latency(s, x, f->dst), EV_RESET, f,
			       0);
		return;
	}
	learn(s, x, f->dst, f->unit);
	if (s->cfg.redirect && redirect(s, f))
		return;
	fl = n->flights[f->unit];
	if (!has_unit(s, n->have, f->unit)) {
		if (!fl)
			fl = flight_new(s, x, f->unit);
		if (fl->flow && fl->flow->src == f->dst) {
			/* Each of the two waits for the other. */
			flight_leave(s, x, fl, false);
			set_tried(fl, f->dst);
		}
		if (!fl->flow)
			fl->for_peers = true;
		if (f->demand)
			fl->demand = true;
		if (!fl->flow)
			flight_start(s, x, fl);
	}
	serve(s, f);
}

void node_redirected(struct sim *s, struct flow *f, uint32_t to)
{
	struct node *n = &s->nodes[f->dst];

	if (f->dead)
		return;
	if (++f->hops > 64 || to == f->dst || was_tried(f->flight, to)) {
		f->must = true;
		to = f->src;
	}
	known_get(s, n, f->src)->active--;
	f->src = to;
	known_get(s, n, to)->active++;
	sim_at(s, s->now + latency(s, f->dst, to), EV_REQUEST, f, 0);
}

/* ---- Arrivals and failures ---- */

static void wake(struct sim *s, struct flight *fl)
{
	struct flow **pp = &fl->waiters, *f;

	while ((f = *pp)) {
		if (f->dead) {
			*pp = f->wait_next;
			flow_unref(s, f);
			continue;
		}
		flow_kick(s, f);
		pp = &f->wait_next;
	}
}

void node_got(struct sim *s, struct flow *f)
{
	struct node *n = &s->nodes[f->dst];
	struct flight *fl = f->flight;
	uint32_t x = f->dst, unit = f->unit;
	bool own;

	if (f->dead || !n->alive) {
		s->wasted++;
		return;
	}
	f->on_way--;
	if (fl->got++ == f->first)
		learn(s, x, f->src, unit);
	if (fl->got < s->quanta) {
		wake(s, fl);
		flow_kick(s, f);
		return;
	}
	if (f->src != s->origin) {
		struct known *k;

		learn(s, x, f->src, unit);
		k = known_find(s, n, f->src);
		if (k)
			k->brought_at = s->now;
		if (k && s->now - f->asked_at < 1)
			k->strikes = 0;
	}
	flight_leave(s, x, fl, true);
	n->have[unit_word(s, unit)] |= unit_bit(s, unit);
	wake(s, fl);
	own = fl->own;
	flight_free(s, x, fl);
	node_retry(s, x);
	if (n->started && own && !n->done)
		node_read(s, x);
}

/* Hands the request to another node, from the watermark on. */
static void give_up(struct sim *s, uint32_t x, struct flight *fl)
{
	set_tried(fl, fl->flow->src);
	flight_leave(s, x, fl, false);
	flight_start(s, x, fl);
}

void node_reset(struct sim *s, struct flow *f)
{
	if (f->dead)
		return;
	bench(s, f->dst, f->src, s->cfg.notice_s);
	give_up(s, f->dst, f->flight);
}

static uint64_t normal_ms(const struct sim *s, const struct node *n)
{
	uint32_t v[NORMAL + MAX_OPEN], ended, open = 0;

	ended = n->nnormal < NORMAL ? n->nnormal : NORMAL;
	memcpy(v, n->normal, ended * sizeof(*v));
	for (const struct flight *fl = n->list; fl && open < MAX_OPEN;
	     fl = fl->next)
		if (fl->flow)
			v[ended + open++] =
				(uint32_t)(1000 *
					   (s->now - fl->flow->asked_at));
	return place_normal_ms(v, ended, open);
}

/* Gives up requests at slow members. */
void node_tick(struct sim *s, uint32_t x)
{
	struct node *n = &s->nodes[x];
	uint64_t normal, bytes = s->cfg.quantum;
	struct flight *fl, *next;

	if (!n->alive || !n->list)
		return;
	normal = normal_ms(s, n);
	for (fl = n->list; fl; fl = next) {
		struct flow *f = fl->flow;

		next = fl->next;
		if (!f || f->src == s->origin ||
		    !place_is_slow((uint64_t)(1000 * (s->now - f->asked_at)),
				   (fl->got - f->first) * bytes,
				   (s->quanta - f->first) * bytes,
				   fl->demand ? place_awaited_ms(normal)
					      : normal))
			continue;
		s->res.takeovers++;
		if (!f->hops &&
		    known_get(s, n, f->src)->brought_at < f->asked_at)
			bench(s, x, f->src, 0);
		give_up(s, x, fl);
	}
}

void node_notice(struct sim *s, uint32_t x)
{
	struct node *n = &s->nodes[x];
	struct flight *fl, *next;

	for (uint32_t y = 0; y < s->total; y++)
		if (!s->nodes[y].alive)
			known_get(s, n, y)->slow_until = HUGE_VAL;
	for (fl = n->list; fl; fl = next) {
		next = fl->next;
		if (fl->flow && !s->nodes[fl->flow->src].alive)
			give_up(s, x, fl);
	}
	node_retry(s, x);
}

/* ---- Start and end ---- */

void node_init(struct sim *s, uint32_t x)
{
	struct node *n = &s->nodes[x];

	n->have = sim_alloc(s->words, 8);
	n->flights = sim_alloc(s->units, sizeof(struct flight *));
	n->kids = sim_alloc(s->units, sizeof(struct kids));
}

void node_release(struct node *n)
{
	struct flight *fl;

	while ((fl = n->list)) {
		n->list = fl->next;
		free(fl);
	}
	free(n->have);
	free(n->flights);
	free(n->kids);
	free(n->known);
	free(n->known_map);
}

void node_kill(struct sim *s, uint32_t x)
{
	struct node *n = &s->nodes[x];
	struct flight *fl;

	n->alive = false;
	if (!n->done)
		s->unfinished--;
	while ((fl = n->list)) {
		if (fl->flow)
			flight_leave(s, x, fl, false);
		flight_free(s, x, fl);
	}
	for (uint32_t y = 0; y < s->total && !s->cfg.silent; y++)
		for (fl = s->nodes[y].list; fl; fl = fl->next)
			if (fl->flow && fl->flow->src == x)
				sim_at(s, s->now + latency(s, x, y), EV_RESET,
				       fl->flow, 0);
}
