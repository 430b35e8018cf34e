/* What the files of p2p/peers.h share. */
#ifndef P2P_PEERS_PRIVATE_H
#define P2P_PEERS_PRIVATE_H

#include "base/list.h"
#include "base/metrics.h"
#include "p2p/holders.h"
#include "p2p/pace.h"
#include "p2p/peers.h"
#include "p2p/placement.h"
#include "p2p/words.h"

/* Our requests that wait at one member: one whose bytes come, and one that the
 * member can begin with meanwhile. */
#define PEER_MAX_ACTIVE 2
/* Of one blob as much is known as this. */
#define KNOW_MAX_MEMBERS 64
#define KNOW_MAX_ROUNDS	 4
#define KNOW_MAX_BLOBS	 512
#define KNOW_HASH	 256
#define ASK_MAX_TRIED	 12
#define GIVEN_MAX	 4096
#define GIVEN_MEMBERS	 8
#define NORM_SAMPLES	 32
#define TICK_MS		 100
/* Members whose opinion of another one is remembered. */
#define DOUBTERS 8

/* A member as a partner; hangs on member.user. */
struct partner {
	struct list node; /* in peers.partners */
	struct peers *p;
	struct member *mb; /* NULL: forgotten by members */
	unsigned int refs; /* asks; and 1 while mb */
	uint16_t store_id; /* see store_peer_id() */
	uint32_t active;   /* our requests open at it */
	struct pace pace;
	uint64_t heard_ms; /* when it showed signs of life last, or was asked */
	uint64_t heard_bytes;	/* since then */
	bool paused;		/* for want of memory, at this tick */
	uint64_t slow_ms;	/* judged slow until then */
	uint32_t slow_times;	/* in a row */
	bool slow_seen;		/* by ourselves, not only by others */
	uint64_t seems_slow_ms; /* to us since then; 0: it does not */
	bool lived;		/* when the members changed last */
	bool pardon;		/* to be tried again once it is not suspect */
	uint64_t pardoned_ms;	/* what others say counts from then on */
	struct {
		const struct partner *who; /* to be compared only */
		uint64_t ms;
	} doubts[DOUBTERS];  /* whom it seems slow to, and when they said so */
	uint64_t benched_ms; /* its bytes were wrong: not asked until then */
	/* Requests that it serves, as it said last (Peerd-Load), and those that
	 * we sent on to it since. */
	uint32_t load;
	/* Our answers to it: how many are open, when the first of them began or
	 * the latest ended, how long the latest took. */
	uint32_t open_to;
	uint64_t given_ms, took_ms;
	uint64_t got_bytes, sent_bytes, failures, benched_times;
};

/* What a member has of a blob. */
struct have {
	struct partner *partner; /* a reference */
	struct have_bits what;
	bool wont;	  /* fetch it for others */
	uint64_t wont_ms; /* until then */
};

struct deal {
	uint64_t generation;
	uint32_t round, n; /* owners known of the round */
	uint32_t *owners;
	uint64_t used;
};

/* What is known of a blob. */
struct know {
	struct list hash; /* in peers.know_hash */
	struct list lru;  /* in peers.knows, least recently used first */
	struct blob_key key;
	uint64_t place; /* place_hash() of the key */
	uint64_t size;
	uint32_t nchunks, stripe;
	unsigned int users;
	struct have *haves;
	unsigned int nhaves;
	struct deal deals[KNOW_MAX_ROUNDS];
	uint64_t clock;
	bool looking;	   /* homes are being asked */
	uint64_t found_ms; /* when they answered; 0 = never */
};

/* A range that is asked of members, until it is there or none is left. */
struct ask {
	struct list node; /* in peers.asks, oldest first */
	struct peers *p;
	struct source_request *rq;
	struct know *know;
	uint32_t chunk; /* the first one */
	uint64_t got;	/* bytes handed over, in all */
	bool cancelled;
	bool as_owner; /* others wait for us to fetch it */
	bool waiting;  /* for a member with less to do, or for the homes */
	struct partner *tried[ASK_MAX_TRIED];
	unsigned int ntried;
	/* The request that is open. */
	struct http_exchange *x;
	struct partner *at;
	bool as_holder; /* it is thought to have it */
	bool insist;	/* no more 307s */
	bool leaving;	/* it is being given up for another */
	bool head_ok, paused;
	int status;
	bool moved;		  /* a 307 came */
	struct partner *moved_to; /* a reference */
	unsigned int moves, hedges;
	uint64_t sent_ms, got_before, started_ns, head_ns;
	/* When all was in vain. */
	int worst_r;
	struct buf why;
	struct loop_task later;
	int end_r;
};

/* Whom a chunk was given to, for those that ask when there are many. */
struct given {
	struct list hash, lru;
	struct blob_key key;
	uint32_t chunk;
	uint32_t times;			   /* it was given to somebody */
	uint32_t turn;			   /* requests that were sent on */
	unsigned int n, oldest;		   /* of to[] */
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
	unsigned int jobs; /* on workers */
	struct loop_task pump;
	uv_timer_t tick;
	bool ticking;
	/* Of what was asked of owners, and of those who had it. */
	struct norm norm_owner, norm_holder;
	uint64_t slot_ms; /* when the slot of all paces began */

	struct list metas;  /* p2p/meta.c */
	struct list serves; /* p2p/upload.c */
	unsigned int nserves;
	struct list given_hash[KNOW_HASH];
	struct list given;
	unsigned int ngiven;

	uint64_t takeovers, redirects_got, redirects_sent, yields, mismatches;
	uint64_t served_bytes;
	uint64_t informed_ms;

	/* Who may have sent wrong bytes; see peers.c. */
	struct list suspicions;
	unsigned int nsuspicions; /* atomic; loop thread writes */
};

/* ---- peers.c ---- */

struct partner *partner_of(struct peers *p, struct member *mb);
struct partner *partner_find(struct peers *p, const char *id);
struct partner *partner_ref(struct partner *w);
void partner_unref(struct partner **w);
bool partner_alive(const struct partner *w);
/* Ours, when w is NULL. */
const char *partner_name(const struct partner *w);
void arm_peers_tick(struct peers *p);
/* One of p->jobs has come back; p may be gone after it. */
void peers_job_ended(struct peers *p);

/* ---- know.c ---- */

/* A use of what is known of the blob; NULL when memory is short. */
struct know *know_get(struct peers *p, const struct blob_key *key,
		      uint64_t size);
void know_put(struct peers *p, struct know *k);
/* The same without a use, or NULL. */
struct know *know_find(struct peers *p, const struct blob_key *key);
void know_forget_partner(struct peers *p, struct partner *w);
void know_free_all(struct peers *p);
struct have *know_of(struct peers *p, struct know *k, struct partner *w);
bool have_chunk(const struct have *h, uint32_t chunk);
/* From a Peerd-Have; what is malformed tells nothing. */
void know_read(struct peers *p, struct know *k, struct partner *w,
	       const char *text);
void know_lacks(struct know *k, const struct partner *w, uint32_t chunk);
/* The owner of the chunk's stripe and who comes after it, as members of the
 * zone's view; at most PLACE_ORDER, 0 when memory is short. */
uint32_t know_order(struct peers *p, struct know *k, uint32_t chunk,
		    uint32_t order[PLACE_ORDER]);
/* Whom to ask for the chunk, tried left out; see place_choose(). *ret is
 * borrowed, NULL unless somebody is to be asked. */
enum place_verdict know_choose(struct peers *p, struct know *k, uint32_t chunk,
			       const struct ask *a, bool background,
			       bool as_owner, struct partner **ret);
/* Homes are asked who has it, unless that was done a moment ago. True: an
 * answer is to come, and asks_pump() will be called. */
bool know_look(struct peers *p, struct know *k);

/* ---- ask.c ---- */

void peers_source_init(struct peers *p);
/* Who waits for a member or for the homes looks again. */
void asks_pump(struct peers *p);
/* What was asked of w is asked elsewhere. */
void asks_leave(struct peers *p, const struct partner *w, const char *why);
/* What readers wait for and comes much later than is normal now (0: not known)
 * is asked of somebody else, if there is one. The member is not called slow for
 * it. */
void asks_hedge(struct peers *p, uint64_t normal_ms, uint64_t now);
/* Whether the chunk comes from a member now: who it is. */
struct partner *ask_at(struct peers *p, const struct blob_key *key,
		       uint32_t chunk);
/* Asks for the chunk that wait at w give it up, if they take much longer than
 * is normal or at_once: we fetch it, for others wait for us. True: there was
 * one. */
bool asks_yield(struct peers *p, const struct blob_key *key, uint32_t chunk,
		const struct partner *w, bool at_once);
bool ask_was_tried(const struct ask *a, const struct partner *w);
int origin_path(const char *origin, const struct blob_key *key,
		struct buf *out);

/* ---- slow.c ---- */

/* A member took so long for so many bytes; had_it: it was thought to have them,
 * else it was asked as the owner. */
void slow_note(struct peers *p, bool had_it, uint64_t ms, uint64_t bytes);
/* What members take for so many bytes now, the median; 0 = not known yet. */
uint64_t slow_normal_ms(const struct peers *p, uint64_t bytes);
/* A Peerd-Slow of those that are or seem slow to ourselves; NULL if there are
 * none, else out. */
char *slow_text(const struct peers *p, char out[SLOW_TEXT_SIZE]);
/* From one of w's; what is malformed tells nothing. NULL allowed. */
void slow_read(struct peers *p, const struct partner *w, const char *text);
/* Ticks begin, after a pause or not. */
void slow_begin(struct peers *p, uint64_t now);
/* Every TICK_MS while there are asks or serves, and once when there are none
 * any more: takes over what is slow. */
void slow_tick(struct peers *p, uint64_t now);
/* The living are others than before. Who left comes back, if it does, without a
 * record. Those that were found slow may have been waiting for it: they are
 * tried again, unless they were found so twice with no range in between. */
void slow_members_changed(struct peers *p);

/* ---- serve.c ---- */

void serve_init(struct peers *p);
void serve_tick(struct peers *p, uint64_t now);
void given_forget_partner(struct peers *p, const struct partner *w);
void given_free_all(struct peers *p);

/* ---- meta.c ---- */

void meta_init(struct peers *p);
void meta_free_all(struct peers *p);
/* GET …/manifests/… of a peer. */
void meta_handle(struct peers *p, struct http_req *rq, const char *host,
		 const char *name, const char *reference);

#endif
