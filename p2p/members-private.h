/* Shared by members.c (members, their states, the views), members-addr.c
 * (addresses, whose turn it is, lookups) and greet.c (greetings, both ways). */
#ifndef P2P_MEMBERS_PRIVATE_H
#define P2P_MEMBERS_PRIVATE_H

#include "base/json.h"
#include "base/list.h"
#include "base/log.h"
#include "http/small.h"
#include "p2p/members.h"
#include "p2p/resolve.h"

#define MEMBERS_BUCKETS 4096

struct member_node;

/* Where a member, or ourselves, or nobody may be reached. It is in the heap
 * unless it is being greeted. */
struct addr {
	struct members *m;
	char text[RESOLVE_TEXT_MAX];
	struct resolve_addr at;
	struct addr *hash_next;
	struct list all;	  /* in members.addrs */
	struct list sibling;	  /* in node.addrs */
	struct member_node *node; /* who answers there; NULL: we do ourselves */

	unsigned int named;   /* by so many names of --peers */
	uint32_t mark;	      /* see apply_lookup() */
	bool greeted;	      /* at least once, with whatever success */
	bool awaited;	      /* members_settled() waits for that */
	uint64_t since_ms;    /* known, or no longer named */
	uint64_t learned_ms;  /* who listens there greeted us; 0 = never */
	uint64_t answered_ms; /* 0 = never */
	uint64_t tried_ms;
	unsigned int failures; /* in a row */

	uint64_t due_ms;
	size_t heap_at;
	struct http_small greeting;
};

/* A member with its addresses. Every NEW one has exactly one; whoever has
 * none any more is dead, which frees it in a later turn. */
struct member_node {
	struct member mb;
	struct list link; /* in members.nodes or .dead */
	struct list addrs;
	struct addr *primary;	       /* whose text is mb.addr */
	struct member_node *hash_next; /* while it has an id and is not dead */
	bool dead;
};

/* An entry of --peers. */
struct name {
	char *text;
	struct resolve_name nm;
	struct addr **v; /* what the last lookup gave */
	size_t n;
	uint64_t due_ms;
	bool looked_up; /* at least once */
	int told;	/* the errno that was logged last */
};

/* So much a second may be done, and so much at once after a pause. */
struct bucket {
	double tokens, burst, per_ms;
	uint64_t at_ms;
};

struct view {
	struct place_view place;
	uint64_t *ids;
	struct member **at;
};

struct members {
	struct members_config cfg; /* its strings are ours */
	unsigned int refs;	   /* owner, timer, lookup, greetings */
	bool closing;
	uv_timer_t timer;
	uint64_t random;

	struct list nodes, dead;
	struct member_node *by_id[MEMBERS_BUCKETS];
	struct view views[2]; /* of our zone, of all */
	uint64_t generation;
	unsigned int living;
	struct loop_task task;
	bool dirty; /* the views */

	struct list addrs;
	struct addr *by_text[MEMBERS_BUCKETS];
	size_t naddrs;
	struct addr **heap; /* by due_ms */
	size_t heap_n, heap_cap;
	unsigned int greeting;
	struct bucket may_greet, may_learn;
	bool full_told;

	struct name *names;
	size_t nnames;
	struct loop_job job;
	bool looking_up;
	struct name *job_name;
	struct resolve_result job_result;
	int job_r;
	int stop; /* atomic: the lookup shall end */
	uint32_t mark;

	size_t unlooked, awaited; /* until it is settled */
	bool settled;

	struct log_limit log_states, log_certificates, log_copies;
};

/* ---- members.c ---- */

void members_unref(struct members *m);
/* Rebuilds the views and tells of it, and frees the dead, in a later turn. */
void members_post(struct members *m);
void members_check_settled(struct members *m);
/* within 20 % of ms */
uint64_t members_jitter(struct members *m, uint64_t ms);

/* A member to be, at a. -ENOMEM. */
int node_new(struct members *m, struct addr *a);
/* a is no longer node's. */
void node_drop_addr(struct member_node *node, struct addr *a, const char *why);

struct hello {
	const char *id, *name, *zone, *version;
};
/* How a greeting of a ended. */
void members_answered(struct addr *a, const struct hello *h, double rtt_ms);
void members_failed(struct addr *a, const char *why);

/* ---- members-addr.c ---- */

/* Finds or makes; NULL when there are too many, or memory is short. */
struct addr *addr_get(struct members *m, const struct resolve_addr *at);
struct addr *addr_find(struct members *m, const char *text);
/* By a name of --peers, or because it greeted us lately. */
bool addr_is_named(const struct addr *a);
/* It is not being greeted. */
void addr_free(struct addr *a);
/* No later than at due_ms, unless it is being greeted. */
void addr_hurry(struct addr *a, uint64_t due_ms);
/* A greeting has ended: sets its next turn. */
void addr_again(struct addr *a);
void addr_greeted(struct addr *a);

bool bucket_take(struct bucket *b);

int names_init(struct members *m, struct error *err);
void names_release(struct members *m);
/* Sets the timer for what comes next. */
void members_arm(struct members *m);
void members_on_timer(uv_timer_t *t);

/* ---- greet.c ---- */

/* members.greeting is one more until addr_again(). -ENOMEM: nothing began. */
int greet_start(struct addr *a);
/* What a member answers. *ret borrows from *ret_doc, which the caller owns:
 * json_decref(). -EBADMSG, *err says why. */
int greet_parse(const char *bytes, size_t len, json_t **ret_doc,
		struct hello *ret, struct error *err);
void greet_register(void);
bool greet_is_text(const char *s, size_t min, size_t size);

#endif
