/* A discrete-event simulation of nodes that want the same blobs at once, with
 * the daemon's own decisions (p2p/placement.c). One run is one call; a seed
 * gives one course of events. See swarm.c for the scenarios.
 *
 * What is modelled: each node's uplink (its open transfers by turns, a quantum
 * each) and downlink (first come, first served), the origin's uplink, latency,
 * a bounded amount on its way per transfer (socket buffers), requests that
 * wait at a member until it has the bytes, bytes passed on while they arrive,
 * redirects, have-maps on requests and replies, members that die or join and
 * the time until others notice. What is not: processors, disks, packet loss,
 * protocol overhead, congestion inside the network. */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_config {
	uint32_t nodes;
	uint32_t chunks;     /* per blob, of 1 MiB */
	uint32_t blobs;	     /* wanted by all at once */
	uint32_t stripe;     /* chunks; 0 = place_stripe_chunks() */
	uint32_t window;     /* chunks that a node reads ahead */
	uint32_t max_active; /* background requests per member */
	bool redirect;	     /* place_redirect() is used */
	uint32_t fanout;     /* 0 = place_fanout() */
	uint32_t runs;	     /* 0 = place_upstream_runs() */
	uint32_t quantum;    /* bytes */
	double link_mbit;    /* of a node of rate 1, both ways */
	double origin;	     /* the origin's uplink, in links */
	double rtt_ms, origin_rtt_ms;
	double spread;	  /* starts over so many times the bound */
	bool skew;	  /* uplinks of 0.5 (a quarter), 1, 2 (a quarter) */
	uint32_t slow;	  /* so many nodes … */
	double slow_rate; /* … of this rate, both ways */
	uint32_t kill;	  /* so many die at kill_at times the bound */
	double kill_at;
	bool silent;   /* … without a word: power loss */
	uint32_t join; /* so many more join at join_at */
	double join_at;
	double notice_s; /* until members learn of a death or a birth */
	uint64_t seed;
};

struct sim_result {
	double bound_s;
	double last, mean; /* time over bound, of all but the slow ones */
	double slow_last;  /* of the slow ones; 0 = none */
	double copies;	   /* bytes the origin sent, over those of the blobs */
	double load;	   /* uploaded by a node: max over mean */
	double owned;	   /* chunks owned by a node: max over mean */
	double wasted;	   /* bytes received twice, per node and copy */
	uint64_t requests, redirects, takeovers, events;
	uint32_t unfinished; /* nodes that live and lack something: a bug */
};

void sim_defaults(struct sim_config *cfg);
/* Whether a run of it makes sense. */
bool sim_possible(const struct sim_config *cfg);
void sim_run(const struct sim_config *cfg, struct sim_result *ret);

#endif
