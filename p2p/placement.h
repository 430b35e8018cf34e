/* Decides which member fetches a stripe, and which member a node asks next.
 * Pure: no I/O, no clock, no lock, no memory but the caller's. The daemon and
 * the simulation (tests/sim) run the same code, except for the verdict "slow":
 * the simulation judges single requests (see "Slow requests" below); the daemon
 * judges a member's total rate (p2p/slow.c), because it also detects silence.
 *
 * A blob is cut into stripes of a few chunks. A round has as many stripes as
 * there are members. Each member owns exactly one stripe of a round, chosen by
 * rendezvous hash within the round. So shares are even, and a change of members
 * moves few stripes. All members that see the same members compute the same
 * owners.
 *
 * Rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to
 * increase hit rates", 1998. Why rounds: docs/swarm.md;
 * docs/benchmarks.md has the results of the simulation. */
#ifndef P2P_PLACEMENT_H
#define P2P_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLACE_HOMES 3
/* Members in the order of a stripe: its owner and three substitutes. */
#define PLACE_ORDER 4
#define PLACE_NONE  UINT32_MAX

/* The members among which stripes are dealt: alive or suspect, and this node.
 * ids are distinct, ascending, and the same on every node. */
struct place_view {
	const uint64_t *ids;
	uint32_t n; /* at least 1: this node */
	uint32_t self;
};

/* Returns a well-mixed 64-bit hash of any bytes; the same on every machine. */
uint64_t place_hash(const void *bytes, size_t len);

/* Returns the chunks in a stripe of a blob of nchunks chunks. All members
 * compute the same value. */
uint32_t place_stripe_chunks(uint32_t nchunks);
uint32_t place_stripes(uint32_t nchunks);

/* Deals one round. owners[i] becomes the member (an index into the view) that
 * owns stripe round * n + i. blob: place_hash() of the blob's key. Fills in
 * min(wanted, n) owners. used: n bytes of scratch memory. */
void place_deal(const struct place_view *view, uint64_t blob, uint32_t round,
		uint32_t wanted, uint32_t *owners, uint8_t *used);

/* Fills in the order in which members take over a stripe: order[0] is its owner
 * (from place_deal()), the others have the highest hashes. Returns the number
 * filled in, at most PLACE_ORDER. */
uint32_t place_order(const struct place_view *view, uint64_t blob,
		     uint32_t stripe, uint32_t owner,
		     uint32_t order[PLACE_ORDER]);

/* Picks the homes of a key among `all` (the members of every zone): those with
 * the highest hashes. Returns their number, at most PLACE_HOMES. */
uint32_t place_homes(const struct place_view *all, uint64_t key,
		     uint32_t homes[PLACE_HOMES]);

/* ---- Choosing a member to ask ---- */

/* A member that may be asked for a chunk. */
struct place_candidate {
	uint32_t member; /* the caller's number for the member */
	uint32_t active; /* requests of this node that are open there */
	bool self;
	bool has;   /* known to have the whole chunk */
	bool slow;  /* judged slow at present */
	bool tried; /* not to be asked: asked for this chunk in vain, benched or
		       gone */
	bool wont;  /* refuses to fetch this blob for others */
};

struct place_ask {
	/* The stripe's owner and its substitutes. */
	const struct place_candidate *order;
	uint32_t norder;
	/* Other members that are known to have the chunk. */
	const struct place_candidate *holders;
	uint32_t nholders;
	uint32_t max_active; /* open requests of this node at one member … */
	bool background;     /* … at which a background request waits */
};

enum place_verdict {
	PLACE_ASK_HOLDER,   /* the member has the chunk */
	PLACE_ASK_OWNER,    /* the member fetches the chunk if it lacks it */
	PLACE_ASK_UPSTREAM, /* this node fetches the chunk */
	PLACE_WAIT, /* each member worth asking is busy with requests of this
		       node: ask again when one has ended */
};

/* Evens out the load: among the members that have the chunk it picks the one
 * with the fewest requests of this node, the owner if equal. It picks a slow
 * member only if no other is left. It returns PLACE_ASK_UPSTREAM if this node
 * is the first fit member of the order and no fit member has the chunk, or if
 * nobody is left. */
enum place_verdict place_choose(const struct place_ask *ask,
				uint32_t *ret_member);

/* ---- Slow requests ---- */

/* Returns how long a request takes now, in ms, at least 1; 0 = not known. This
 * is the median of v[0..nended), durations of the latest requests that ended,
 * and v[nended..nended + nopen), ages of the open ones; an open one counts as
 * at least the median of the ended ones. So when all requests wait for one
 * thing, such as upstream, all are equally late and none is slow. nended and
 * nopen are at most some tens. Requests to upstream belong in v, so that
 * requests to members are compared with them. Sorts and changes v. */
uint64_t place_normal_ms(uint32_t *v, uint32_t nended, uint32_t nopen);

/* The normal_ms for a request that a reader waits for. */
static inline uint64_t place_awaited_ms(uint64_t normal_ms)
{
	return normal_ms * 3 / 4;
}

/* Says whether another member should take over a request that has brought `got`
 * of `len` bytes in age_ms: it would end much later than a new request.
 * normal_ms is what a request takes now (0 = not known yet).
 *
 * The member is at fault only if this node chose it (no 307 led there) and it
 * has ended no request of this node since this one was sent: then call it slow
 * for a while. Otherwise it may itself wait for another member; then only do
 * not ask it for this chunk again. Each false verdict costs copies from
 * upstream. */
bool place_is_slow(uint64_t age_ms, uint64_t got, uint64_t len,
		   uint64_t normal_ms);

/* ---- Redirecting ---- */

/* Returns to how many members a node gives one chunk before it redirects all
 * further members to those, whatever its load. A blob of few chunks has few
 * owners, and all members would wait for their uplinks. UINT32_MAX = no
 * limit. */
uint32_t place_fanout(uint32_t nchunks, uint32_t nmembers);

/* A member that was given the chunk lately, or is being given it. */
struct place_receiver {
	/* Requests that the member serves, as it said last, and those that were
	 * redirected to it since. */
	uint32_t load;
	/* Duration of the latest transfer to the member, or, if longer, the
	 * time since the latest one ended while others are open; 0 = not known.
	 * Detects a slow downlink, which keeps the member's load low. */
	uint32_t pace_ms;
	bool unfit; /* slow, benched, gone, or the requester itself */
};

/* Returns by how much this node's load must exceed a receiver's for a redirect
 * to be worth its round trip. In a small cluster every member may send to every
 * other, but a single node that has a chunk must not send it to all. In a large
 * cluster all members are busy. */
uint32_t place_margin(uint32_t nmembers);

struct place_given {
	const struct place_receiver *to;
	uint32_t n;
	uint32_t turn;	 /* rises with each redirect */
	uint32_t load;	 /* requests that this node serves, of all blobs */
	uint32_t times;	 /* how often this chunk was given to a member */
	uint32_t fanout; /* place_fanout() */
	uint32_t margin; /* place_margin() */
	/* The requester was redirected for this chunk before and came back.
	 * Members that are redirected for ever may wait for each other in a
	 * circle. Ignored once times reaches twice the fanout. */
	bool insist;
};

/* Returns the index in given->to of the member that the requester is redirected
 * to (307), or PLACE_NONE: serve the requester. It is the receiver with the
 * least load, if that is well below this node's. Do not call it for a requester
 * that was given the chunk before: serve that one. */
uint32_t place_redirect(const struct place_given *given);

/* Returns how many background ranges a node asks of upstream at once, in a
 * cluster of nmembers. */
uint32_t place_upstream_runs(uint32_t nmembers);

#endif
