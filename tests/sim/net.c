/* Events, links and transfers. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "tests/sim/sim-private.h"

void *sim_alloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	BUG_ON(!p);
	return p;
}

double sim_random(struct sim *s)
{
	s->rnd += UINT64_C(0x9e3779b97f4a7c15);
	return (double)(place_hash(&s->rnd, sizeof(s->rnd)) >> 11) * 0x1p-53;
}

/* ---- Events: a heap with four branches ---- */

static inline bool earlier(const struct event *a, const struct event *b)
{
	return a->t < b->t || (a->t == b->t && a->seq < b->seq);
}

void sim_at(struct sim *s, double t, enum event_kind kind, struct flow *f,
	    uint32_t arg)
{
	struct event e = {
		.t = t, .seq = s->seq++, .flow = f, .arg = arg, .kind = kind};
	size_t i = s->nheap++;

	if (s->nheap > s->heap_size) {
		s->heap_size = s->heap_size ? 2 * s->heap_size : 1024;
		s->heap = realloc(s->heap, s->heap_size * sizeof(*s->heap));
		BUG_ON(!s->heap);
	}
	if (f)
		f->refs++;
	while (i && earlier(&e, &s->heap[(i - 1) / 4])) {
		s->heap[i] = s->heap[(i - 1) / 4];
		i = (i - 1) / 4;
	}
	s->heap[i] = e;
}

bool sim_next(struct sim *s, struct event *ret)
{
	struct event last;
	size_t i = 0;

	if (!s->nheap)
		return false;
	*ret = s->heap[0];
	last = s->heap[--s->nheap];
	for (;;) {
		size_t c = 4 * i + 1, best = c;

		if (c >= s->nheap)
			break;
		for (size_t k = c + 1; k < c + 4 && k < s->nheap; k++)
			if (earlier(&s->heap[k], &s->heap[best]))
				best = k;
		if (!earlier(&s->heap[best], &last))
			break;
		s->heap[i] = s->heap[best];
		i = best;
	}
	s->heap[i] = last;
	s->now = ret->t;
	return true;
}

/* ---- Transfers ---- */

struct flow_block {
	struct flow_block *next;
	struct flow v[1024];
};

static void flow_free(struct sim *s, struct flow *f)
{
	f->ring_next = s->free_flows;
	s->free_flows = f;
}

struct flow *flow_new(struct sim *s)
{
	struct flow *f;

	if (!s->free_flows) {
		struct flow_block *b = sim_alloc(1, sizeof(*b));

		b->next = s->blocks;
		s->blocks = b;
		for (size_t i = 0; i < ARRAY_SIZE(b->v); i++)
			flow_free(s, &b->v[i]);
	}
	f = s->free_flows;
	s->free_flows = f->ring_next;
	memset(f, 0, sizeof(*f));
	return f;
}

void flows_release(struct sim *s)
{
	struct flow_block *b;

	while ((b = s->blocks)) {
		s->blocks = b->next;
		free(b);
	}
}

void flow_unref(struct sim *s, struct flow *f)
{
	if (!--f->refs && f->dead)
		flow_free(s, f);
}

void flow_end(struct sim *s, struct flow *f)
{
	f->dead = true;
	f->flight = NULL;
	if (!f->refs)
		flow_free(s, f);
}

double latency(struct sim *s, uint32_t a, uint32_t b)
{
	double rtt = a == s->origin || b == s->origin ? s->cfg.origin_rtt_ms
						      : s->cfg.rtt_ms;

	return rtt / 2000 * (0.75 + sim_random(s) / 2);
}

static uint32_t available(const struct sim *s, const struct flow *f)
{
	const struct node *n = &s->nodes[f->src];
	const struct flight *fl;

	if (f->src == s->origin || has_unit(s, n->have, f->unit))
		return s->quanta;
	fl = n->flights[f->unit];
	return fl ? fl->got : 0;
}

static bool can_send(const struct sim *s, const struct flow *f)
{
	return !f->dead && f->served && f->on_way < WINDOW_QUANTA &&
	       f->sent < s->quanta && s->nodes[f->src].alive &&
	       available(s, f) > f->sent;
}

static void ring_push(struct node *n, struct flow *f)
{
	f->ready = true;
	f->refs++;
	f->ring_next = NULL;
	if (n->ring_tail)
		n->ring_tail->ring_next = f;
	else
		n->ring_head = f;
	n->ring_tail = f;
}

static void link_next(struct sim *s, uint32_t src)
{
	struct node *n = &s->nodes[src];

	while (!n->busy && n->ring_head) {
		struct flow *f = n->ring_head;

		n->ring_head = f->ring_next;
		if (!n->ring_head)
			n->ring_tail = NULL;
		f->ready = false;
		if (can_send(s, f)) {
			n->busy = true;
			sim_at(s, s->now + 1 / n->up, EV_SENT, f, 0);
		}
		flow_unref(s, f);
	}
}

void flow_kick(struct sim *s, struct flow *f)
{
	if (f->ready || !can_send(s, f))
		return;
	ring_push(&s->nodes[f->src], f);
	link_next(s, f->src);
}

void link_sent(struct sim *s, struct flow *f)
{
	struct node *n = &s->nodes[f->src], *to = &s->nodes[f->dst];
	double t = s->now + latency(s, f->src, f->dst);

	n->busy = false;
	n->sent++;
	if (n->alive && to->alive) {
		if (t < to->down_free)
			t = to->down_free;
		to->down_free = t + 1 / to->down;
		f->sent++;
		f->on_way++;
		sim_at(s, to->down_free, EV_GOT, f, 0);
	}
	if (!f->ready && can_send(s, f))
		ring_push(n, f);
	link_next(s, f->src);
}
