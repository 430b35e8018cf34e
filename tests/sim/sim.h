/* A discrete-event simulation of nodes that want the same blobs at once. It
 * uses the daemon's own decisions (p2p/placement.c). One call simulates one
 * run; a seed determines the course of all events. swarm.c has the scenarios.
 *
 * Modelled: each node's uplink (its open transfers in turn, one quantum each)
 * and downlink (first come, first served), the origin's uplink, latency, a
 * bounded number of bytes on their way per transfer (socket buffers), requests
 * that wait at a member until it has the bytes, bytes passed on while they
 * arrive, redirects, have-maps on requests and answers, members that die or
 * join, and the time until others notice. Not modelled: processors, disks,
 * packet loss, protocol overhead, congestion inside the network. */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_config {
	uint32_t nodes;
	uint32_t chunks;     /* per blob, 1 MiB each */
	uint32_t blobs;	     /* that all nodes want at once */
	uint32_t stripe;     /* in chunks; 0 = place_stripe_chunks() */
	uint32_t window;     /* chunks of read-ahead */
	uint32_t max_active; /* background requests at one member */
	bool redirect;	     /* whether place_redirect() is used */
	uint32_t fanout;     /* 0 = place_fanout() */
	uint32_t runs;	     /* 0 = place_upstream_runs() */
	uint32_t quantum;    /* bytes */
	double link_mbit;    /* of a node of rate 1, both ways */
	double origin;	     /* the origin's uplink, in node links */
	double rtt_ms, origin_rtt_ms;
	double spread;	  /* starts are spread over so many bounds (bound_s) */
	bool skew;	  /* uplinks of 0.5 (a quarter of the nodes), 1 and 2 (a
			     quarter) */
	uint32_t slow;	  /* number of slow nodes … */
	double slow_rate; /* … and their rate in links, both ways */
	uint32_t kill;	  /* nodes that die at kill_at bounds */
	double kill_at;
	bool silent;   /* … without a reset: power loss */
	uint32_t join; /* nodes that join at join_at bounds */
	double join_at;
	double notice_s; /* until all members know of a death */
	uint64_t seed;
};

struct sim_result {
	double bound_s;
	double last, mean; /* time over bound, without the slow nodes */
	double slow_last;  /* of the slow nodes; 0 = there are none */
	double copies; /* bytes that the origin sent, over those of the blobs */
	double load;   /* bytes sent by a node: maximum over mean */
	double owned;  /* chunks owned by a node: maximum over mean */
	double wasted; /* bytes received twice, per node and copy */
	uint64_t requests, redirects, takeovers, events;
	uint32_t unfinished; /* living nodes without all bytes: a bug */
};

void sim_defaults(struct sim_config *cfg);
/* Whether a run with this configuration is possible. */
bool sim_possible(const struct sim_config *cfg);
void sim_run(const struct sim_config *cfg, struct sim_result *ret);

#endif
