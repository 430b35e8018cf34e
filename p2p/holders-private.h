/* What holders*.c share. Loop thread, but for `news`. */
#ifndef P2P_HOLDERS_PRIVATE_H
#define P2P_HOLDERS_PRIVATE_H

#include <pthread.h>

#include "base/list.h"
#include "http/small.h"
#include "p2p/holders-home.h"
#include "p2p/holders.h"

#define HOLDERS_PATH "/peer/v1/holders"
/* Of one announcement; a home takes no larger one. */
#define HOLDERS_BATCH_KEYS  1000
#define HOLDERS_BATCH_BYTES (128u << 10)
#define HOLDERS_EPOCH_SIZE  17
#define HOLDERS_EPOCH	    "Peerd-Epoch"
/* How long the task works before it lets others have a turn. */
#define HOLDERS_SLICE_NS UINT64_C(2000000)

/* A request to a member. */
struct holders_call {
	struct http_small http;
	struct member *mb; /* NULL once forgotten */
	uint64_t start_ms, total_ms;
};

struct holders {
	struct holders_config cfg; /* numbers are filled in */
	char id[MEMBER_ID_MAX];
	char epoch[HOLDERS_EPOCH_SIZE];
	unsigned int refs; /* the owner, the timer, the task, exchanges */
	bool closing;
	uint64_t random;
	uv_timer_t timer;
	uint64_t timer_ms; /* when it fires; UINT64_MAX: not set */
	struct holder_home home;
	struct holders_stats stats;

	pthread_mutex_t mu;
	struct list news; /* guarded by: mu */
	uint32_t nnews;	  /* guarded by: mu */
	struct loop_task task;

	/* holders-own.c */
	struct list reading;	      /* taken from news */
	struct hash_table own;	      /* oldest announcement first */
	struct list placed, unplaced; /* struct own; unplaced ones' homes are to
					 be found (again) */
	/* Homes of ours; longest not sent to first. */
	struct hash_table targets;
	unsigned int nposts;

	/* holders-find.c */
	struct hash_table asks;
	struct list asking,
		known; /* struct search; least recently used first */
	unsigned int nasking;
	struct list waiters; /* all of them */
	struct list telling; /* asks whose waiters are to be told */
	struct list failing; /* waiters to be told of what they were given */
	struct metric_series *m_found, *m_none, *m_failed, *m_remembered;
};

/* holders.c */
void holders_ref(struct holders *h);
void holders_unref(struct holders *h);
/* Has the task run soon. Any thread. */
void holders_kick(struct holders *h);
/* Has the timer fire by then. */
void holders_wake(struct holders *h, uint64_t at_ms);
/* lo … hi, both included. */
uint64_t holders_random(struct holders *h, uint64_t lo, uint64_t hi);
/* Tells the members how it went. In its done(). */
void holders_note(struct holders *h, const struct holders_call *c,
		  const struct http_answer *a);
/* The same on every node: what place_homes() takes. */
uint64_t holder_place(const struct holder_key *key);

/* holders-own.c */
int own_init(struct holders *h);
void own_release(struct holders *h);
void own_announce(struct holders *h, const struct holder_key *key,
		  uint64_t size);
void own_withdraw(struct holders *h, const struct holder_key *key);
/* Finds homes, for a slice of time. True: there is more to do. */
bool own_work(struct holders *h);
/* What a home said of itself; NULL: nothing. */
void own_heard_epoch(struct holders *h, const struct member *mb,
		     const char *epoch);
/* Sends what is due. Returns when to be called again. */
uint64_t own_tick(struct holders *h, uint64_t now);
void own_forget(struct holders *h, struct member *mb);
/* Cancels its exchanges. */
void own_stop(struct holders *h);

/* holders-find.c */
int find_init(struct holders *h);
void find_release(struct holders *h);
/* Tells those whose answer is there. */
void find_work(struct holders *h);
void find_forget(struct holders *h, struct member *mb);
/* Cancels its exchanges; all waiters get -ECANCELED by find_work(). */
void find_stop(struct holders *h);

#endif
