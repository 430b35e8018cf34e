/* Shared by members.c (members, their states, the views), members-addr.c
 * (addresses, the schedule of greetings, lookups) and greet.c (greetings, both
 * directions). */
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

/* An address of a member or of this node, or one that nobody has answered at.
 * It is in the heap unless a greeting is open. */
struct addr {
	struct members *m;
	char text[RESOLVE_TEXT_MAX];
	struct resolve_addr at;
	struct addr *hash_next;
	struct list all;	  /* in members.addrs */
	struct list sibling;	  /* in node.addrs */
	struct member_node *node; /* the member there; NULL: this node */

	unsigned int named; /* how many names of --peers name it */
	uint32_t mark;	    /* see apply_lookup() */
	bool greeted;	    /* at least once, with or without success */
	bool awaited;	    /* members_settled() waits for its first greeting */
	uint64_t since_ms;  /* when it was found, or lost its last name */
	uint64_t learned_ms;  /* when the node that listens there greeted this
				 node; 0 = never */
	uint64_t answered_ms; /* 0 = never */
	uint64_t tried_ms;
	unsigned int failures; /* in a row */

	uint64_t due_ms;
	size_t heap_at;
	struct http_small greeting;
};

/* A member with its addresses. One in state NEW has exactly one address. One
 * that has lost its last address is dead and is freed in a later turn. */
struct member_node {
	struct member mb;
	struct list link; /* in members.nodes or .dead */
	struct list addrs;
	struct addr *primary;	       /* the address in mb.addr */
	struct member_node *hash_next; /* while it has an id and is not dead */
	bool dead;
};

/* An entry of --peers. */
struct name {
	char *text;
	struct resolve_name nm;
	struct addr **v; /* the addresses of the last lookup */
	size_t n;
	uint64_t due_ms;
	bool looked_up; /* at least once */
	int told;	/* the error that was logged last */
};

/* A token bucket: limits a rate, with a burst after a pause. */
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
	struct members_config cfg; /* its strings are copies, owned */
	unsigned int refs;	   /* the owner, timer, lookup, greetings */
	bool closing;
	uv_timer_t timer;
	uint64_t random;

	struct list nodes, dead;
	struct member_node *by_id[MEMBERS_BUCKETS];
	struct view views[2]; /* of this node's zone; of all zones */
	uint64_t generation;
	unsigned int living;
	struct loop_task task;
	bool dirty; /* the views must be rebuilt */

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
	int stop; /* atomic: the lookup must end */
	uint32_t mark;

	size_t unlooked, awaited; /* what members_settled() still waits for */
	bool settled;

	struct log_limit log_states, log_certificates, log_copies, log_refused;
};

/* ---- members.c ---- */

void members_unref(struct members *m);
/* In a later turn: rebuilds the views, calls `changed` if they differ, frees
 * dead members. */
void members_post(struct members *m);
void members_check_settled(struct members *m);
/* Returns ms, changed at random by at most 20 %. */
uint64_t members_jitter(struct members *m, uint64_t ms);

/* Adds a member in state NEW with the address a. -ENOMEM. */
int node_new(struct members *m, struct addr *a);
/* Takes a from node; node dies without its last address. */
void node_drop_addr(struct member_node *node, struct addr *a, const char *why);

struct hello {
	const char *id, *name, *zone, *version;
};
/* Handle the outcome of a greeting of a. cert: the name in the certificate of
 * the node that answered, "" without TLS. -EACCES: *err says why the node is no
 * member; members_failed() must follow. */
int members_answered(struct addr *a, const struct hello *h, const char *cert,
		     double rtt_ms, struct error *err);
void members_failed(struct addr *a, const char *why);

/* ---- members-addr.c ---- */

/* Returns the address, which it adds if it is new. NULL: too many addresses, or
 * no memory. */
struct addr *addr_get(struct members *m, const struct resolve_addr *at);
struct addr *addr_find(struct members *m, const char *text);
/* Whether a name of --peers names it, or it greeted this node lately. */
bool addr_is_named(const struct addr *a);
/* No greeting of a may be open. */
void addr_free(struct addr *a);
/* Greets a no later than at due_ms, unless a greeting is open. */
void addr_hurry(struct addr *a, uint64_t due_ms);
/* Sets the next turn of a after its greeting has ended. */
void addr_again(struct addr *a);
void addr_greeted(struct addr *a);

bool bucket_take(struct bucket *b);

int names_init(struct members *m, struct error *err);
void names_release(struct members *m);
/* Arms the timer for the next greeting or lookup. */
void members_arm(struct members *m);
void members_on_timer(uv_timer_t *t);

/* ---- members-cert.c ---- */

/* Why the node at a must not have the id of mb (NULL: an id that is not known),
 * given its certificate; NULL: it may. */
const char *cert_refusal(const struct addr *a, const char *cert,
			 const struct member *mb);

/* ---- greet.c ---- */

/* Parses "10.0.0.1:1234" or "[::1]:1234", with `port` in place of the port.
 * -EINVAL: a Unix socket. */
int greet_client_addr(const char *client, uint16_t port,
		      struct resolve_addr *ret);

/* Counts in members.greeting until addr_again(). A negative errno: nothing
 * began, but the caller must still call addr_again(). */
int greet_start(struct addr *a);
/* Parses a member's answer. *ret borrows from *ret_doc, which the caller owns
 * (json_decref()). -EBADMSG: *err says why. */
int greet_parse(const char *bytes, size_t len, json_t **ret_doc,
		struct hello *ret, struct error *err);
void greet_register(void);
bool greet_is_text(const char *s, size_t min, size_t size);

#endif
