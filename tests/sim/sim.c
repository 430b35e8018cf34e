/* One run: makes the nodes and their views, handles the events, computes the
 * results. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tests/sim/sim-private.h"

#define CHUNK (1u << 20)

void sim_defaults(struct sim_config *cfg)
{
	*cfg = (struct sim_config){
		.nodes = 8,
		.chunks = 128,
		.blobs = 1,
		.window = 64,
		.max_active = 2,
		.redirect = true,
		.quantum = 64 << 10,
		.link_mbit = 200,
		.origin = 1,
		.rtt_ms = 0.5,
		.origin_rtt_ms = 10,
		.slow_rate = 0.1,
		.kill_at = 0.5,
		.join_at = 0.5,
		.notice_s = 3,
		.seed = 1,
	};
}

bool sim_possible(const struct sim_config *c)
{
	return c->nodes && c->nodes <= 100000 && c->chunks &&
	       c->chunks <= 65536 && c->blobs && c->blobs <= 1000 &&
	       c->join <= 100000 && c->slow < c->nodes &&
	       c->kill < c->nodes - c->slow && c->window && c->max_active &&
	       c->quantum >= 4096 && c->quantum <= CHUNK &&
	       CHUNK % c->quantum == 0 && c->link_mbit > 0 && c->origin > 0 &&
	       c->slow_rate > 0 && c->stripe <= 64;
}

/* ---- Members ---- */

/* Adds a view of the nodes that live now, with its deal. */
static void view_add(struct sim *s)
{
	struct view *v;
	uint8_t *used = sim_alloc(s->total, 1);
	uint32_t *owners = sim_alloc(s->total, 4), order[PLACE_ORDER];
	uint64_t *ids = sim_alloc(s->total, 8);

	s->views = realloc(s->views, (s->nviews + 1) * sizeof(*s->views));
	BUG_ON(!s->views);
	v = &s->views[s->nviews++];
	*v = (struct view){.place.ids = ids};
	v->node = sim_alloc(s->total, 4);
	v->order = sim_alloc((size_t)s->units * PLACE_ORDER, 4);
	for (uint32_t x = 0; x < s->total; x++)
		if (s->nodes[x].alive) {
			ids[v->place.n] = s->ids[x];
			v->node[v->place.n++] = x;
		}
	for (uint32_t u = 0; u < s->units; u++) {
		char key[32];
		int len = snprintf(key, sizeof(key), "%llu/%u",
				   (unsigned long long)s->cfg.seed,
				   u / s->units_per_blob);
		uint64_t blob = place_hash(key, (size_t)len);
		uint32_t i = u % s->units_per_blob, n = v->place.n;

		if (i % n == 0)
			place_deal(&v->place, blob, i / n,
				   s->units_per_blob - i, owners, used);
		v->norder =
			place_order(&v->place, blob, i, owners[i % n], order);
		for (uint32_t k = 0; k < v->norder; k++)
			v->order[(size_t)u * PLACE_ORDER + k] =
				v->node[order[k]];
	}
	free(used);
	free(owners);
}

static double owned(const struct sim *s)
{
	uint32_t *n = sim_alloc(s->total, 4), max = 0;
	double mean = (double)s->units / s->cfg.nodes;

	for (uint32_t u = 0; u < s->units; u++) {
		uint32_t o = s->views[0].order[(size_t)u * PLACE_ORDER];

		if (++n[o] > max)
			max = n[o];
	}
	free(n);
	return max / mean;
}

/* A node that reads a blob keeps its view; nodes that join see the members of
 * now. */
static void join(struct sim *s)
{
	for (uint32_t x = 0; x < s->total; x++) {
		struct node *n = &s->nodes[x];

		/* A node that joins later has a negative start. */
		if (n->alive || n->start >= 0)
			continue;
		n->alive = true;
		n->view = s->nviews; /* the view that is added below */
		sim_at(s, s->now, EV_START, NULL, x);
	}
	view_add(s);
}

/* Ids are hashes, so the first nodes are a random choice. */
static void kill_some(struct sim *s)
{
	for (uint32_t i = 0, x = 0; i < s->cfg.kill && x < s->total; x++)
		if (s->nodes[x].alive && !s->nodes[x].slow) {
			node_kill(s, x);
			i++;
		}
	for (uint32_t x = 0; x < s->total; x++)
		if (s->nodes[x].alive)
			sim_at(s, s->now + s->cfg.notice_s * sim_random(s),
			       EV_NOTICE, NULL, x);
}

/* ---- A run ---- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void make_nodes(struct sim *s)
{
	const struct sim_config *cfg = &s->cfg;
	double rate = cfg->link_mbit * 1e6 / 8 / cfg->quantum;
	double sum = 0, fast = 0, size = (double)s->units * s->quanta;
	uint32_t slow = cfg->slow, joining = cfg->join;

	s->nodes = sim_alloc(s->total + 1, sizeof(*s->nodes));
	s->ids = sim_alloc(s->total, 8);
	for (uint32_t x = 0; x < s->total; x++) {
		uint64_t key[2] = {cfg->seed, x};

		s->ids[x] = place_hash(key, sizeof(key));
	}
	qsort(s->ids, s->total, 8, by_value);
	for (uint32_t x = 0; x < s->total; x++) {
		struct node *n = &s->nodes[x];
		uint32_t left = s->total - x;

		node_init(s, x);
		n->up = n->down = rate;
		n->alive = true;
		if (sim_random(s) * left < joining) {
			joining--;
			n->alive = false;
			n->start = -1;
			continue;
		}
		if (cfg->skew)
			n->up *= x % 4 == 1 ? 0.5 : x % 4 == 3 ? 2 : 1;
		if (slow && sim_random(s) * (left - joining) < slow) {
			slow--;
			n->slow = true;
			n->up = n->down = rate * cfg->slow_rate;
		} else {
			sum += n->up;
			fast++;
		}
	}
	s->nodes[s->origin].up = rate * cfg->origin;
	s->nodes[s->origin].alive = true;
	/* Kumar and Ross, 2006. */
	s->bound = fmax(size / (rate * fmin(cfg->origin, 1)),
			fast * size / (rate * cfg->origin + sum));
	s->unfinished = s->total;
}

static void make(struct sim *s)
{
	const struct sim_config *cfg = &s->cfg;
	uint32_t stripe =
		cfg->stripe ? cfg->stripe : place_stripe_chunks(cfg->chunks);

	s->total = cfg->nodes + cfg->join;
	s->origin = s->total;
	s->rnd = cfg->seed;
	s->units_per_blob = (uint32_t)div_up_u64(cfg->chunks, stripe);
	s->units = s->units_per_blob * cfg->blobs;
	s->words_per_blob = (uint32_t)div_up_u64(s->units_per_blob, 64);
	s->words = s->words_per_blob * cfg->blobs;
	s->quanta = stripe * (CHUNK / cfg->quantum);
	s->window = (uint32_t)max_u64(cfg->window / stripe, 1);
	s->fanout = cfg->fanout ? cfg->fanout
				: place_fanout(cfg->chunks, cfg->nodes);
	s->runs = cfg->runs ? cfg->runs : place_upstream_runs(cfg->nodes);
	/* All blobs are read side by side. */
	s->plan = sim_alloc(s->units, 4);
	for (uint32_t i = 0; i < s->units; i++)
		s->plan[i] =
			i % cfg->blobs * s->units_per_blob + i / cfg->blobs;
	make_nodes(s);
	view_add(s);
	s->res.owned = owned(s);
	for (uint32_t x = 0; x < s->total; x++)
		if (s->nodes[x].alive)
			sim_at(s,
			       cfg->spread * s->bound * sim_random(s) +
				       latency(s, x, x),
			       EV_START, NULL, x);
	if (cfg->kill)
		sim_at(s, cfg->kill_at * s->bound, EV_KILL, NULL, 0);
	if (cfg->join)
		sim_at(s, cfg->join_at * s->bound, EV_JOIN, NULL, 0);
	sim_at(s, TICK_S, EV_TICK, NULL, 0);
}

static void handle(struct sim *s, const struct event *e)
{
	switch (e->kind) {
	case EV_SENT:
		link_sent(s, e->flow);
		break;
	case EV_GOT:
		node_got(s, e->flow);
		break;
	case EV_REQUEST:
		node_request(s, e->flow);
		break;
	case EV_REDIRECT:
		node_redirected(s, e->flow, e->arg);
		break;
	case EV_RESET:
		node_reset(s, e->flow);
		break;
	case EV_START:
		node_start(s, e->arg);
		break;
	case EV_KILL:
		kill_some(s);
		break;
	case EV_JOIN:
		join(s);
		break;
	case EV_LOOKED:
		node_looked(s, e->arg);
		break;
	case EV_NOTICE:
		node_notice(s, e->arg);
		break;
	case EV_TICK:
		for (uint32_t x = 0; x < s->total; x++)
			node_tick(s, x);
		sim_at(s, s->now + TICK_S, EV_TICK, NULL, 0);
		break;
	}
	if (e->flow)
		flow_unref(s, e->flow);
}

static void results(struct sim *s, struct sim_result *ret)
{
	double size = (double)s->units * s->quanta, n = 0, sum = 0, max = 0;

	s->res.bound_s = s->bound;
	for (uint32_t x = 0; x < s->total; x++) {
		const struct node *nd = &s->nodes[x];
		double t = (nd->finish - nd->start) / s->bound;

		sum += (double)nd->sent;
		max = fmax(max, (double)nd->sent);
		if (!nd->done)
			continue;
		if (nd->slow) {
			s->res.slow_last = fmax(s->res.slow_last, t);
			continue;
		}
		s->res.last = fmax(s->res.last, t);
		s->res.mean += t;
		n++;
	}
	s->res.mean /= n;
	s->res.copies = (double)s->nodes[s->origin].sent / size;
	s->res.load = sum > 0 ? max / (sum / s->total) : 1;
	s->res.wasted = (double)s->wasted / size / s->total;
	s->res.unfinished = s->unfinished;
	*ret = s->res;
}

void sim_run(const struct sim_config *cfg, struct sim_result *ret)
{
	struct sim s = {.cfg = *cfg};
	struct event e;

	make(&s);
	while (s.unfinished && s.now < 50 * s.bound && sim_next(&s, &e)) {
		s.res.events++;
		handle(&s, &e);
	}
	results(&s, ret);
	for (uint32_t x = 0; x < s.total; x++)
		node_release(&s.nodes[x]);
	for (uint32_t i = 0; i < s.nviews; i++) {
		free((void *)(uintptr_t)s.views[i].place.ids);
		free(s.views[i].node);
		free(s.views[i].order);
	}
	flows_release(&s);
	free(s.views);
	free(s.nodes);
	free(s.ids);
	free(s.plan);
	free(s.heap);
}
