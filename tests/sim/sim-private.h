/* Shared by net.c (links, transfers, events) and node.c (the nodes' behaviour).
 *
 * The unit is the stripe: it is asked for as a whole and passed on in
 * quanta. */
#ifndef TESTS_SIM_PRIVATE_H
#define TESTS_SIM_PRIVATE_H

#include <stddef.h>

#include "p2p/placement.h"
#include "tests/sim/sim.h"

#define MAX_TRIED 12
/* Receivers of a chunk that a node remembers. */
#define MAX_KIDS 8
/* Have-maps of other nodes that a node keeps. */
#define MAX_KNOWN 512
#define NORMAL	  16
#define MAX_OPEN  64
/* Quanta of one transfer that may be on their way. */
#define WINDOW_QUANTA 4
#define TICK_S	      0.1

enum event_kind {
	EV_SENT,     /* the uplink of flow's src has sent a quantum */
	EV_GOT,	     /* a quantum has passed dst's downlink */
	EV_REQUEST,  /* flow's request arrives at src */
	EV_REDIRECT, /* the redirect to `arg` arrives at dst */
	EV_RESET,    /* dst learns that src is dead */
	EV_START,    /* node arg begins to read */
	EV_KILL,
	EV_JOIN,
	EV_LOOKED, /* the homes have answered node arg */
	EV_NOTICE, /* node arg learns which nodes are dead */
	EV_TICK,
};

struct flow;
struct flight;

/* One request; for src a transfer to dst. */
struct flow {
	struct flow *ring_next, *wait_next;
	struct flight *flight; /* at dst */
	double asked_at;
	uint32_t src, dst, unit;
	uint32_t first, sent; /* in quanta */
	uint32_t refs;	      /* events, ring, wait list */
	uint16_t on_way;
	uint8_t hops;
	bool served, ready, dead, demand, must;
};

/* A unit on its way to a node. */
struct flight {
	struct flight *prev, *next; /* list of the node */
	struct flow *flow;	    /* NULL: no request is open */
	struct flow *waiters; /* flows from this node that wait for this unit */
	uint32_t unit, got;   /* got: in quanta */
	uint32_t tried[MAX_TRIED];
	uint32_t ntried;
	bool own;	/* this node's reader wants it */
	bool for_peers; /* other members want it: no other owner is asked */
	bool demand;
};

/* What a node knows of another node. */
struct known {
	uint32_t peer, active;
	double slow_until;
	uint32_t strikes, load, open_to;
	double given_at, took, brought_at;
	uint64_t have[];
};

struct kids {
	uint32_t n, turn, times;
	uint32_t id[MAX_KIDS], known[MAX_KIDS];
};

/* A set of members as some nodes see it, with the owners of all units. */
struct view {
	struct place_view place;
	uint32_t *node;	 /* node numbers, by index in the view */
	uint32_t *order; /* PLACE_ORDER nodes for each unit */
	uint32_t norder;
};

struct node {
	double up, down; /* in quanta per second */
	double down_free;
	double start, finish;
	struct flow *ring_head, *ring_tail;
	bool busy, alive, started, done, slow;
	bool looked, looking; /* homes: were asked; are being asked */
	uint32_t view, load;
	uint64_t *have;
	struct flight **flights, *list;
	struct kids *kids;
	uint32_t low, next; /* positions in the reading order */
	uint32_t upstream;  /* requests open at the origin */
	uint32_t pending;   /* flights without an open request */
	uint64_t sent;
	uint32_t normal[NORMAL]; /* durations of the latest requests, in ms */
	uint32_t nnormal;
	unsigned char *known; /* array of struct known */
	uint32_t nknown, known_size;
	uint64_t *known_map; /* hash table by peer: peer and index + 1 */
	uint32_t known_map_size;
};

struct event {
	double t;
	uint64_t seq;
	struct flow *flow;
	uint32_t arg;
	uint32_t kind;
};

struct sim {
	struct sim_config cfg;
	struct node *nodes; /* the last one is the origin */
	uint64_t *ids;	    /* of the nodes, ascending */
	uint32_t total;	    /* including nodes that join later */
	uint32_t origin;
	uint32_t units, units_per_blob, words, words_per_blob;
	uint32_t quanta; /* in a unit */
	uint32_t *plan;	 /* units in reading order */
	uint32_t window, fanout, runs;
	struct view *views;
	uint32_t nviews;
	struct event *heap;
	size_t nheap, heap_size;
	uint64_t seq;
	double now, bound;
	uint64_t rnd;
	uint32_t unfinished; /* living nodes, started or not, that lack
				something */
	struct flow *free_flows;
	struct flow_block *blocks;
	struct sim_result res;
	uint64_t wasted;
};

/* net.c */
void *sim_alloc(size_t n, size_t size);
double sim_random(struct sim *s); /* [0, 1) */
void sim_at(struct sim *s, double t, enum event_kind kind, struct flow *f,
	    uint32_t arg);
bool sim_next(struct sim *s, struct event *ret);
struct flow *flow_new(struct sim *s);
void flows_release(struct sim *s);
void flow_unref(struct sim *s, struct flow *f);
/* Lets src send if it can. */
void flow_kick(struct sim *s, struct flow *f);
/* Ends the flow; bytes on their way are wasted. */
void flow_end(struct sim *s, struct flow *f);
void link_sent(struct sim *s, struct flow *f);
/* Returns the delay in one direction, with some jitter. */
double latency(struct sim *s, uint32_t a, uint32_t b);

static inline size_t unit_word(const struct sim *s, uint32_t unit)
{
	return (size_t)(unit / s->units_per_blob) * s->words_per_blob +
	       unit % s->units_per_blob / 64;
}

static inline uint64_t unit_bit(const struct sim *s, uint32_t unit)
{
	return UINT64_C(1) << (unit % s->units_per_blob % 64);
}

static inline bool has_unit(const struct sim *s, const uint64_t *have,
			    uint32_t unit)
{
	return have[unit_word(s, unit)] & unit_bit(s, unit);
}

/* node.c */
void node_init(struct sim *s, uint32_t x);
void node_release(struct node *n);
void node_start(struct sim *s, uint32_t x);
void node_looked(struct sim *s, uint32_t x);
void node_request(struct sim *s, struct flow *f);
void node_redirected(struct sim *s, struct flow *f, uint32_t to);
void node_reset(struct sim *s, struct flow *f);
void node_got(struct sim *s, struct flow *f);
void node_kill(struct sim *s, uint32_t x);
void node_tick(struct sim *s, uint32_t x);
/* The node stops asking dead nodes. */
void node_notice(struct sim *s, uint32_t x);

#endif
