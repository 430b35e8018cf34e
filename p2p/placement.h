/* Who fetches what, and whom to ask next. Pure: no I/O, no clock, no lock, no
 * memory but what the caller gives; the daemon and the simulation
 * (tests/sim) run the same code, but for the rule of who is slow: the
 * simulation judges single requests (below, "Who is slow"), the daemon what a
 * member delivers in all (p2p/slow.c), for it also sees silence.
 *
 * A blob is cut into stripes of a few chunks. In every round of as many
 * stripes as there are members each member owns exactly one, chosen by
 * rendezvous hash within the round: shares are even, and a change of members
 * moves few. All members that see the same members deal the same way.
 *
 * Rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to
 * increase hit rates", 1998. Why rounds: shared/anchors/swarm.md, and
 * docs/benchmarks.md for what our own simulation says. */
#ifndef P2P_PLACEMENT_H
#define P2P_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLACE_HOMES 3
/* How far down the order of a stripe's owners one looks. */
#define PLACE_ORDER 4
#define PLACE_NONE  UINT32_MAX

/* The members that may own stripes: those alive in our zone, and ourselves.
 * ids are distinct, rising, and the same on every node. */
struct place_view {
	const uint64_t *ids;
	uint32_t n; /* at least 1: ourselves */
	uint32_t self;
};

/* 64 well-mixed bits of anything; the same on every machine. */
uint64_t place_hash(const void *bytes, size_t len);

/* Chunks in a stripe of a blob of so many chunks: the same for all. */
uint32_t place_stripe_chunks(uint32_t nchunks);
uint32_t place_stripes(uint32_t nchunks);

/* The deal of one round, that of stripe / view->n: owners[i] is the member (an
 * index into the view) that owns stripe round * n + i. blob: place_hash() of
 * its key. `wanted` of them are filled in, at most n. used: n bytes of scratch
 * memory. */
void place_deal(const struct place_view *view, uint64_t blob, uint32_t round,
		uint32_t wanted, uint32_t *owners, uint8_t *used);

/* Who takes a stripe over, one after the other: order[0] is its owner (from
 * place_deal()), the others are the highest by hash. Returns how many were
 * filled in, at most PLACE_ORDER. */
uint32_t place_order(const struct place_view *view, uint64_t blob,
		     uint32_t stripe, uint32_t owner,
		     uint32_t order[PLACE_ORDER]);

/* The members of `all` (of every zone) that keep note of who holds something:
 * the highest by hash of its key. Returns how many, at most PLACE_HOMES. */
uint32_t place_homes(const struct place_view *all, uint64_t key,
		     uint32_t homes[PLACE_HOMES]);

/* ---- Whom to ask ---- */

/* A member that might be asked for a chunk. */
struct place_candidate {
	uint32_t member; /* the caller's number for it */
	uint32_t active; /* our requests that are open at it */
	bool self;
	bool has;   /* known to have the whole chunk */
	bool slow;  /* against what is normal now, or benched */
	bool tried; /* for this chunk, in vain */
	bool wont;  /* refuses to fetch this blob for others */
};

struct place_ask {
	/* The stripe's owner and who comes after it. */
	const struct place_candidate *order;
	uint32_t norder;
	/* Others that are known to have it. */
	const struct place_candidate *holders;
	uint32_t nholders;
	uint32_t max_active; /* more than so many wait for their turn… */
	bool background;     /* …unless somebody waits for the chunk */
};

enum place_verdict {
	PLACE_ASK_HOLDER,   /* member has it */
	PLACE_ASK_OWNER,    /* member shall fetch it if it lacks it */
	PLACE_ASK_UPSTREAM, /* we are to fetch it */
	PLACE_WAIT,	    /* all that are worth asking are busy with our own
			       requests: ask again when one has ended */
};

/* Even load first: of those that have it the one with the fewest of our
 * requests, the owner when equal. A slow one is asked only when nobody else is
 * left, and upstream only by the first in the order that is fit. */
enum place_verdict place_choose(const struct place_ask *ask,
				uint32_t *ret_member);

/* ---- Who is slow ---- */

/* What a request takes now: the median of v[0..nended), durations of the latest
 * that ended, and v[nended..nended + nopen), ages of those that are open, as
 * far as they have taken longer by now. When all wait for one thing, such as
 * upstream, all are equally late and none is slow. Both at most some tens;
 * those asked of upstream belong in, for members' to be compared with. Reorders
 * and changes v. 0 = nothing known. */
uint64_t place_normal_ms(uint32_t *v, uint32_t nended, uint32_t nopen);

/* What to judge a request by that a reader waits for. */
static inline uint64_t place_awaited_ms(uint64_t normal_ms)
{
	return normal_ms * 3 / 4;
}

/* Whether a request that has brought `got` of `len` bytes in age_ms should be
 * taken over by somebody else: it would end much later than a fresh one, when
 * normal_ms is what one takes now (0 = not known yet).
 *
 * The member is at fault only if it was asked itself (no 307 led there) and has
 * ended no request of ours since this one was sent: then call it slow for a
 * while. Else it may wait for another, and must only not be asked for this
 * chunk again: members that are thought slow in error cost upstream copies. */
bool place_is_slow(uint64_t age_ms, uint64_t got, uint64_t len,
		   uint64_t normal_ms);

/* ---- Whom to send on ---- */

/* To how many members a node gives one chunk before it sends others that ask
 * for it to those, whatever its load: a blob of few chunks has few owners,
 * whose uplinks all would wait for. UINT32_MAX = no limit. */
uint32_t place_fanout(uint32_t nchunks, uint32_t nmembers);

/* One that was given the chunk lately, or is being given it. */
struct place_receiver {
	/* Requests that it serves, as it said last, and those that were sent on
	 * to it since. */
	uint32_t load;
	/* What our latest transfer to it took, or the time since the latest one
	 * ended while others are open, if that is longer; 0 = not known. Tells
	 * one with a slow downlink, which has little load because of it. */
	uint32_t pace_ms;
	bool unfit; /* slow, benched, gone, or the asker itself */
};

/* How much more load than a receiver's is worth a round trip: in a small
 * cluster each may give to each, but one that is the last to have something is
 * not to send all of it to all; in a large one all are busy. */
uint32_t place_margin(uint32_t nmembers);

struct place_given {
	const struct place_receiver *to;
	uint32_t n;
	uint32_t turn;	 /* rises with each that is sent on */
	uint32_t load;	 /* requests that we serve, of all blobs */
	uint32_t times;	 /* so many were given this chunk */
	uint32_t fanout; /* place_fanout() */
	uint32_t margin; /* place_margin() */
	/* The asker was sent on once for this chunk and came back: those that
	 * are sent on for ever may wait for each other in a circle. Heeded
	 * while times is below twice the fanout. */
	bool insist;
};

/* Which of given->to a member should be sent on to (307), or PLACE_NONE: serve
 * it. The one with the least load, if that is well below ours. Not to be asked
 * about one that was given the chunk before: serve it. */
uint32_t place_redirect(const struct place_given *given);

/* How many ranges a node asks upstream for at once without anybody waiting for
 * them, when there are so many members. */
uint32_t place_upstream_runs(uint32_t nmembers);

#endif
