/* Shared by the files behind p2p/peers.h. */
#ifndef P2P_PEERS_PRIVATE_H
#define P2P_PEERS_PRIVATE_H

#include "base/list.h"
#include "base/metrics.h"
#include "p2p/holders.h"
#include "p2p/pace.h"
#include "p2p/peers.h"
#include "p2p/placement.h"
#include "p2p/words.h"

/* Background requests of this node at one member: one whose bytes arrive, and
 * one that the member can begin meanwhile. */
#define PEER_MAX_ACTIVE 2
/* Limits of what is remembered of blobs, asks and transfers. */
#define KNOW_MAX_MEMBERS 64
#define KNOW_MAX_ROUNDS	 4
#define KNOW_MAX_BLOBS	 512
#define KNOW_HASH	 256
#define ASK_MAX_TRIED	 12
#define GIVEN_MAX	 4096
#define GIVEN_MEMBERS	 8
#define NORM_SAMPLES	 32
#define TICK_MS		 100
/* Members whose opinion of a member is remembered. */
#define DOUBTERS 8

/* A member as a source of bytes; member.user points to it. */
struct partner {
	struct list node; /* in peers.partners */
	struct peers *p;
	struct member *mb; /* NULL once the member is freed */
	unsigned int refs; /* asks and others; one more while mb is set */
	uint16_t store_id; /* see store_peer_id() */
	uint32_t active;   /* open requests of this node there */
	struct pace pace;
	uint64_t heard_ms; /* when it last showed signs of life, or was asked */
	uint64_t heard_bytes; /* since heard_ms */
	bool paused;	      /* during this tick, because memory was short */
	uint64_t slow_ms;     /* judged slow until then */
	uint32_t slow_times;  /* verdicts in a row */
	bool slow_seen; /* the verdict is this node's own, not only others' */
	uint64_t seems_slow_ms; /* seems slow to this node since then; 0: it
				   does not */
	bool lived;		/* when the members changed last */
	bool pardon;		/* to be tried again once it is not suspect */
	uint64_t pardoned_ms;	/* opinions of others count from then on */
	struct {
		const struct partner *who; /* only for comparison; may dangle */
		uint64_t ms;
	} doubts[DOUBTERS];  /* opinions of other members that it is slow, or
				seems so */
	uint64_t benched_ms; /* its bytes were wrong: not asked until then */
	/* Requests that it serves, as it said last (Peerd-Load), and those that
	 * this node redirected to it since. */
	uint32_t load;
	/* Answers of this node to it: how many are open; when the first of them
	 * began or the latest ended; how long the latest took. */
	uint32_t open_to;
	uint64_t given_ms, took_ms;
	uint64_t got_bytes, sent_bytes, failures, benched_times;
};

/* The chunks of a blob that a member has. */
struct have {
	struct partner *partner; /* a reference */
	struct have_bits what;
	bool wont;	  /* it refuses to fetch the blob for others */
	uint64_t wont_ms; /* until then */
};

struct deal {
	uint64_t generation;
	uint32_t round, n; /* number of owners[] */
	uint32_t *owners;
	uint64_t used;
};

/* What this node knows about the members' part in a blob. */
struct know {
	struct list hash; /* in peers.know_hash */
	struct list lru;  /* in peers.knows, least recently used first */
	struct blob_key key;
	uint64_t place; /* place_hash() of the key */
	uint64_t size;
	uint32_t nchunks, stripe;
	bool one_owner; /* the first stripe's owner has all of them */
	unsigned int users;
	struct have *haves;
	unsigned int nhaves;
	struct deal deals[KNOW_MAX_ROUNDS];
	uint64_t clock;
	bool looking;	   /* homes are being asked */
	uint64_t found_ms; /* when homes answered last; 0 = never */
};

/* A range that this node wants from members, until it is here or no member is
 * left. */
struct ask {
	struct list node; /* in peers.asks, oldest first */
	struct peers *p;
	struct source_request *rq;
	struct know *know;
	uint32_t chunk; /* the one with the next byte */
	uint64_t got;	/* bytes handed over in all */
	bool cancelled;
	bool as_owner; /* other members wait for this node to fetch it */
	bool waiting;  /* for a member with less to do, or for homes */
	struct partner *tried[ASK_MAX_TRIED];
	unsigned int ntried;
	/* The open request. */
	struct http_exchange *x;
	struct partner *at;
	bool as_holder; /* the member is thought to have the chunk */
	bool insist;	/* the member must not redirect */
	bool leaving;	/* being cancelled, in favour of another source */
	bool head_ok, paused;
	int status;
	bool moved;		  /* a 307 came */
	struct partner *moved_to; /* a reference */
	unsigned int moves, hedges;
	uint64_t sent_ms, got_before, started_ns, head_ns;
	/* The result if no member delivers. */
	int worst_r;
	struct buf why;
	struct loop_task later;
	int end_r;
};

/* The members that a chunk was given to, for redirects. */
struct given {
	struct list hash, lru;
	struct blob_key key;
	uint32_t chunk;
	uint32_t times;		/* transfers of the chunk to any member */
	uint32_t turn;		/* redirects */
	unsigned int n, oldest; /* of to[] */
	struct partner *to[GIVEN_MEMBERS]; /* references */
};

struct norm {
	uint32_t ms[NORM_SAMPLES]; /* per MiB */
	unsigned int n;
};

struct peers {
	struct peers_config cfg;
	struct members *members;
	struct holders *holders;
	struct source source;
	struct other_nodes for_registry;
	struct list partners;

	struct list know_hash[KNOW_HASH];
	struct list knows;
	unsigned int nknows;

	struct list asks;
	bool freeing, closed;
	unsigned int jobs; /* jobs on workers */
	struct loop_task pump;
	uv_timer_t tick;
	bool ticking;
	/* Durations of requests to owners, and to members that had the
	 * chunk. */
	struct norm norm_owner, norm_holder;
	uint64_t slot_ms; /* when the current slot of all paces began */

	struct list metas;  /* p2p/meta.c */
	struct list serves; /* p2p/upload.c */
	unsigned int nserves;
	struct list given_hash[KNOW_HASH];
	struct list given;
	unsigned int ngiven;

	uint64_t takeovers, redirects_got, redirects_sent, yields, mismatches;
	uint64_t served_bytes;
	uint64_t informed_ms;

	/* Members that may have sent wrong bytes; see peers.c. */
	struct list suspicions;
	unsigned int
		nsuspicions; /* atomic; includes those not yet on the list */
};

/* ---- peers.c ---- */

struct partner *partner_of(struct peers *p, struct member *mb);
struct partner *partner_find(struct peers *p, const char *id);
struct partner *partner_ref(struct partner *w);
void partner_unref(struct partner **w);
bool partner_alive(const struct partner *w);
/* The name for logs. NULL or a freed member has a text, too. */
const char *partner_name(const struct partner *w);
/* The member of that store_peer_id() sent wrong bytes: it is not asked for a
 * while. */
void peers_bench(struct peers *p, uint16_t store_id);
void arm_peers_tick(struct peers *p);
/* One of p->jobs has ended. May free p. */
void peers_job_ended(struct peers *p);

/* ---- know.c ---- */

/* Finds or makes what is known of the blob, and counts a use until know_put().
 * NULL: no memory. */
struct know *know_get(struct peers *p, const struct blob_key *key,
		      uint64_t size);
void know_put(struct peers *p, struct know *k);
/* Finds it without counting a use; NULL: nothing is known. */
struct know *know_find(struct peers *p, const struct blob_key *key);
void know_forget_partner(struct peers *p, struct partner *w);
void know_free_all(struct peers *p);
struct have *know_of(struct peers *p, struct know *k, struct partner *w);
bool have_chunk(const struct have *h, uint32_t chunk);
/* Reads the text of a Peerd-Have; ignores it if it is malformed. */
void know_read(struct peers *p, struct know *k, struct partner *w,
	       const char *text);
void know_lacks(struct know *k, const struct partner *w, uint32_t chunk);
/* For some seconds the member is not asked to fetch the blob: it refused to (no
 * credentials, upstream fails), or fetched wrong bytes. */
void know_wont(struct peers *p, struct know *k, struct partner *w);
/* Sets k->one_owner. */
void know_set_owner(struct peers *p, struct know *k, struct blob *b);
/* Whether upstream serves no ranges of b, and another member is the one that
 * reads it. */
bool know_is_anothers(struct peers *p, struct know *k, struct blob *b);
/* Fills in the owner of the chunk's stripe and its substitutes, as indices into
 * the zone's view. Returns at most PLACE_ORDER; 0: no memory. */
uint32_t know_order(struct peers *p, struct know *k, uint32_t chunk,
		    uint32_t order[PLACE_ORDER]);
/* Chooses the member to ask for the chunk, without those that a has tried; see
 * place_choose(). *ret is borrowed; NULL unless a member is to be asked. */
enum place_verdict know_choose(struct peers *p, struct know *k, uint32_t chunk,
			       const struct ask *a, bool background,
			       bool as_owner, struct partner **ret);
/* Asks homes for holders, unless that was done a moment ago. True: an answer is
 * on its way; it calls asks_pump(). */
bool know_look(struct peers *p, struct know *k);

/* ---- ask.c ---- */

void peers_source_init(struct peers *p);
/* Retries all asks that wait for a member or for homes, in the next turn. */
void asks_pump(struct peers *p);
/* Cancels all requests to w; their asks go elsewhere. */
void asks_leave(struct peers *p, const struct partner *w, const char *why);
/* Hedges: what a reader waits for, and comes much later than normal_ms (per
 * chunk; 0: not known), is asked of another member if there is one. The late
 * member is not called slow. */
void asks_hedge(struct peers *p, uint64_t normal_ms, uint64_t now);
/* Returns the member that the chunk comes from now; NULL: none. */
struct partner *ask_at(struct peers *p, const struct blob_key *key,
		       uint32_t chunk);
/* Cancels asks for the chunk at w if they take much longer than normal, or in
 * any case if at_once. This node then fetches the chunk itself, because other
 * members wait for it. True: there was such an ask. */
bool asks_yield(struct peers *p, const struct blob_key *key, uint32_t chunk,
		const struct partner *w, bool at_once);
bool ask_was_tried(const struct ask *a, const struct partner *w);
int origin_path(const char *origin, const struct blob_key *key,
		struct buf *out);

/* ---- slow.c ---- */

/* Notes how long a member took for so many bytes. had_it: it was thought to
 * have them; otherwise it was asked as the owner. */
void slow_note(struct peers *p, bool had_it, uint64_t ms, uint64_t bytes);
/* Returns how long members take for so many bytes now: the median; 0 = not
 * known yet. */
uint64_t slow_normal_ms(const struct peers *p, uint64_t bytes);
/* Writes the text of Peerd-Slow: members that are slow for this node, or seem
 * slow to it. Returns out, or NULL if there are none. */
char *slow_text(const struct peers *p, char out[SLOW_TEXT_SIZE]);
/* Reads w's Peerd-Slow; ignores it if it is malformed. NULL allowed. */
void slow_read(struct peers *p, const struct partner *w, const char *text);
/* Called when ticks begin, after a pause or not. */
void slow_begin(struct peers *p, uint64_t now);
/* Called every TICK_MS while there are asks or serves, and once after the last
 * one: finds slow members, and moves their requests elsewhere. */
void slow_tick(struct peers *p, uint64_t now);
/* The set of living members has changed. A member that left has no record if it
 * returns. Members that were found slow may have waited for it: they are tried
 * again, unless they were found slow twice with no range delivered in
 * between. */
void slow_members_changed(struct peers *p);

/* ---- upload.c ---- */

void serve_init(struct peers *p);
void serve_tick(struct peers *p, uint64_t now);
void given_forget_partner(struct peers *p, const struct partner *w);
void given_free_all(struct peers *p);

/* ---- meta.c ---- */

void meta_init(struct peers *p);
void meta_free_all(struct peers *p);
/* Handles GET …/manifests/… of a member. */
void meta_handle(struct peers *p, struct http_req *rq, const char *host,
		 const char *name, const char *reference);

#endif
