/* Shared by the files holders*.c. Loop thread, except `news`. */
#ifndef P2P_HOLDERS_PRIVATE_H
#define P2P_HOLDERS_PRIVATE_H

#include <pthread.h>

#include "base/list.h"
#include "http/small.h"
#include "p2p/holders-home.h"
#include "p2p/holders.h"

#define HOLDERS_PATH "/peer/v1/holders"
/* Limits of one announcement; a home refuses a larger one. */
#define HOLDERS_BATCH_KEYS  1000
#define HOLDERS_BATCH_BYTES (128u << 10)
#define HOLDERS_EPOCH_SIZE  17
#define HOLDERS_EPOCH	    "Peerd-Epoch"
/* How long one turn of the task lasts at most. */
#define HOLDERS_SLICE_NS UINT64_C(2000000)

/* A request to a member. */
struct holders_call {
	struct http_small http;
	struct member *mb; /* NULL once the member is forgotten */
	uint64_t start_ms, total_ms;
};

struct holders {
	struct holders_config cfg; /* with the defaults filled in */
	char id[MEMBER_ID_MAX];
	char epoch[HOLDERS_EPOCH_SIZE];
	unsigned int refs; /* the timer, the last turn of the task, exchanges */
	bool closing;
	uint64_t random;
	uv_timer_t timer;
	uint64_t timer_ms; /* when the timer fires; UINT64_MAX: not armed */
	struct holder_home home;
	struct holders_stats stats;

	pthread_mutex_t mu;
	struct list news; /* guarded by: mu */
	uint32_t nnews;	  /* guarded by: mu */
	struct loop_task task;

	/* holders-own.c */
	struct list reading;	      /* taken from news */
	struct hash_table own;	      /* by announcement, oldest first */
	struct list placed, unplaced; /* struct own; the homes of unplaced ones
					 are to be found (again) */
	/* Homes of this node's keys; the longest not sent to first. */
	struct hash_table targets;
	unsigned int nposts;

	/* holders-find.c */
	struct hash_table asks;
	struct list asking,
		known; /* struct search; known: least recently used first */
	unsigned int nasking;
	struct list waiters; /* of all searches */
	struct list telling; /* searches whose waiters get their result next */
	struct list failing; /* waiters that get an error next */
	struct metric_series *m_found, *m_none, *m_failed, *m_remembered;
};

/* holders.c */
void holders_ref(struct holders *h);
void holders_unref(struct holders *h);
/* Runs the task in the next turn of the loop. Any thread. */
void holders_kick(struct holders *h);
/* Arms the timer for at_ms, or earlier. */
void holders_wake(struct holders *h, uint64_t at_ms);
/* Returns a number from lo to hi, both included. */
uint64_t holders_random(struct holders *h, uint64_t lo, uint64_t hi);
/* Reports the outcome of c to the members. Call it from the exchange's
 * done(). */
void holders_note(struct holders *h, const struct holders_call *c,
		  const struct http_answer *a);
/* Returns the hash for place_homes(); the same on every node. */
uint64_t holder_place(const struct holder_key *key);

/* holders-own.c */
int own_init(struct holders *h);
void own_release(struct holders *h);
void own_announce(struct holders *h, const struct holder_key *key,
		  uint64_t size);
void own_withdraw(struct holders *h, const struct holder_key *key);
/* Finds homes, for HOLDERS_SLICE_NS. True: there is more to do. */
bool own_work(struct holders *h);
/* Handles the Peerd-Epoch of a home's answer; NULL: it had none. */
void own_heard_epoch(struct holders *h, const struct member *mb,
		     const char *epoch);
/* Sends what is due. Returns when to call again, in ms. */
uint64_t own_tick(struct holders *h, uint64_t now);
void own_forget(struct holders *h, struct member *mb);
/* Cancels the exchanges of holders-own.c. */
void own_stop(struct holders *h);

/* holders-find.c */
int find_init(struct holders *h);
void find_release(struct holders *h);
/* Calls the waiters whose results or errors are ready. */
void find_work(struct holders *h);
void find_forget(struct holders *h, struct member *mb);
/* Cancels the exchanges of holders-find.c; find_work() then gives all waiters
 * -ECANCELED. */
void find_stop(struct holders *h);

#endif
