/* What fetch.c (reads and the engine), flight.c (chunks on their way, the
 * digest's check) and run.c (range requests) share. Loop thread only, but for
 * the fields marked otherwise.
 *
 * Nothing calls back while lists are walked: what is due (reads to be ended or
 * looked at again, flights to be started, runs to be resumed) is put into a
 * list, and on_wake() does it from the loop, see kick(). */
#ifndef FETCH_FETCH_PRIVATE_H
#define FETCH_FETCH_PRIVATE_H

#include <pthread.h>

#include "base/buf.h"
#include "base/metrics.h"
#include "fetch/fetch.h"

#define FETCH_MAX_SOURCES 4
#define FLIGHT_BUCKETS	  2048
/* Chunks that could not be stored stay in memory for a while. */
#define MEMORY_FLIGHTS 16
/* Memory that is not needed is given back after so long without work. */
#define QUIET_MS 2000
/* Queued prefetch beyond this is not worth remembering. */
#define MAX_QUEUED_FLIGHTS 8192
/* The longest range in one request that is no stream (fetch/stream.c). */
#define RUN_MAX_BYTES (UINT64_C(32) << 20)
#define TICK_MS	      50
#define WHY_MAX	      1024

/* CHUNK_SIZE bytes of memory, pooled by the engine. */
struct chunk_buf {
	struct fetch *f;
	struct chunk_buf *next; /* in the pool */
	unsigned int refs;
	uint8_t *data;
};

/* Each flight is in the list of its state, fetch.in[state], oldest first. */
enum flight_state {
	FLIGHT_QUEUED,	/* prefetch that waits for budget */
	FLIGHT_WANTED,	/* to be started with the next wake */
	FLIGHT_RETRY,	/* not before retry_ms, and only if wanted then */
	FLIGHT_RUNNING, /* part of a run */
	FLIGHT_WRITING, /* all bytes are in the buffer; a worker writes them */
	FLIGHT_LAST,	/* likewise, but it would complete the blob: written
			   when the blob's others are */
	FLIGHT_MEMORY,	/* the store could not keep it; nobody waits */
	FLIGHT_STATES
};

struct flight {
	struct list hash;  /* in f->buckets */
	struct list node;  /* in f->in[state] */
	struct list waits; /* struct fetch_wait, rising by need */
	struct blob_fetch *bf;
	struct run *run;       /* RUNNING */
	struct chunk_buf *buf; /* NULL without bytes, or about to get some */
	enum flight_state state;
	uint32_t chunk;
	uint32_t len;	     /* of the chunk */
	uint32_t have;	     /* watermark: bytes in buf */
	uint16_t from;	     /* who sent the bytes; a peer wins over upstream */
	unsigned int source; /* to be tried next */
	unsigned int rounds; /* in which every source failed */
	uint64_t retry_ms;
	int error;	/* of this round; highest source_error_rank() */
	struct buf why; /* who failed and how in the last round, for the log */
	/* WRITING; the worker has it. */
	struct loop_job job;
	int write_result;
	bool writing;
	bool as_owner; /* see fetch_read */
	bool steady;   /* see fetch_prefetch_steady() */
	/* A reference. What it is asked for with: of who wanted it ahead, or of
	 * a read that waits; NULL: nothing. */
	struct source_auth *auth;
	/* Of a blob's only chunk that could not be stored. */
	bool digest_ok;
	unsigned int mismatches;
};

/* What the engine knows of a blob while something is going on with it. */
struct blob_fetch {
	struct list node; /* in f->blobs */
	struct fetch *f;
	struct blob *blob;     /* a reference */
	unsigned int users;    /* flights, and those who are looking at it */
	unsigned int nwriting; /* flights of it that are */
	struct list gated;     /* waits for the digest's check */
	struct run *stream;    /* that flights may join; NULL: none */
	uint32_t streamed;     /* chunk behind the last stream's request */
	uint64_t held_pos;     /* where streams in a row were held back last */
	bool no_streams;       /* one connection is too slow for its reader */
	unsigned int mismatches;       /* since the blob was last right */
	unsigned int peers_mismatches; /* of bytes of other nodes, likewise */
	bool checking;		       /* blob_on_verified() is due */
	int check_result;
	struct loop_task checked;
};

/* One range request. */
struct run {
	struct source_request rq;
	struct list node; /* in f->runs */
	struct fetch *f;
	struct blob_fetch *bf; /* of the flights, as long as there is one */
	struct source *source;
	struct metric_series *m_bytes; /* of source */
	unsigned int source_index;
	uint32_t end;	      /* chunk behind the last flight */
	uint32_t limit;	      /* chunk behind the last one of the request */
	uint64_t pos;	      /* of the next byte to be taken, in the blob */
	uint64_t acked;	      /* the same as the source sees it; behind pos
				 after a piece of which only a part was taken */
	uint64_t progress_ms; /* when bytes came last, or it went on */
	bool paused;	      /* for want of memory */
	bool held;	      /* a stream, until somebody wants more of it */
	bool background;      /* counts against its source's limit */
	bool cancelled;
};

struct fetch {
	struct fetch_config cfg;
	struct source *sources[FETCH_MAX_SOURCES];
	unsigned int nsources;

	struct list buckets[FLIGHT_BUCKETS];
	struct list in[FLIGHT_STATES];
	unsigned int n[FLIGHT_STATES];
	struct list blobs;

	struct list runs;
	unsigned int nruns, npaused, nstreams;
	uint64_t wanted_bytes; /* asked for by background runs, not received */

	struct list reads; /* waiting, oldest first */
	struct list again; /* to be looked at again */
	struct list ready; /* done() is due */
	unsigned int nreads;

	struct chunk_buf *pool;
	uint64_t buf_bytes; /* pooled ones included */

	struct loop_task wake;
	uv_timer_t tick;
	bool ticking;
	uint64_t quiet_ms; /* no work since then */

	bool stopping, stopped;
	void (*on_stopped)(void *arg);
	void *stopped_arg;

	uint64_t fetched_bytes, failed_runs, failed_reads;
	struct metric_series *m_flights, *m_waits, *m_failed_reads;

	/* Posts from other threads; see fetch_post(). */
	pthread_mutex_t mu;
	unsigned int posts; /* guarded by: mu; under way */
	bool closed;	    /* guarded by: mu; no more of them */
};

/* ---- fetch.c ---- */

/* What is due is done in the next turn of the loop. */
void kick(struct fetch *f);
/* The tick runs while anything else does. */
void arm_tick(struct fetch *f);
/* Ends the engine once all is over. */
void maybe_stopped(struct fetch *f);
/* From any thread: as loop_post(), unless the engine has ended: false, and the
 * task is the caller's again. The task calls fetch_posted() when it runs. */
bool fetch_post(struct fetch *f, struct loop_task *t);
void fetch_posted(struct fetch *f);

/* Whether rd may have the flight's bytes; see fetch.h, "Never wrong bytes". */
bool read_sees(const struct fetch_read *rd, const struct flight *fl);
/* What w waits for is there: the flight's bytes are lent to it. */
void read_take(struct fetch_wait *w, struct flight *fl);
/* Waits for nothing any more; looked at anew in the next turn. */
void read_again(struct fetch_read *rd);
void read_finish(struct fetch_read *rd, int r);
/* The same, and logs why. */
void read_fail(struct fetch_read *rd, int r);

/* ---- flight.c ---- */

/* A buffer, or NULL when the budget is used up. */
struct chunk_buf *chunk_buf_get(struct fetch *f);
void pool_trim(struct fetch *f);

/* A use of what is known of b; NULL when memory is short. */
struct blob_fetch *blob_fetch_get(struct fetch *f, struct blob *b);
/* Ends it, and bf itself when nothing is left to do. */
void blob_fetch_put(struct blob_fetch *bf);

struct flight *flight_find(const struct blob_fetch *bf, uint32_t chunk);
/* QUEUED; NULL when memory is short. */
struct flight *flight_new(struct blob_fetch *bf, uint32_t chunk);
void flight_move(struct flight *fl, enum flight_state to);
void flight_free(struct flight *fl);
/* Whether the flight's bytes may be shown although the rest of the blob is not
 * checked; see fetch.h, "Never wrong bytes". */
bool flight_shows(const struct flight *fl);
/* Serves the waiting reads that the watermark allows. */
void flight_progress(struct flight *fl);
/* All bytes are in the buffer: to the store with them. */
void flight_received(struct flight *fl);
/* The bytes it has are not to be used. */
void flight_forget_bytes(struct flight *fl);
/* No source can, or will: everyone who waits gets r. */
void flight_fail(struct flight *fl, int r);
/* To be called before it is asked for: sets fl->auth. */
void flight_choose_auth(struct flight *fl);
/* What was asked for with fl->auth was refused: whoever waits with the same
 * gets r. True if others wait, who are to try theirs. */
bool flight_refuse(struct flight *fl, int r);

/* Has those in bf->gated looked at again once the digest was checked. */
void check_start(struct blob_fetch *bf);

/* ---- run.c ---- */

/* Starts the flights that are WANTED, resumes paused runs, starts prefetch as
 * far as the budget allows. */
void runs_wake(struct fetch *f);
/* Ends the runs that stall, and brings back flights whose pause is over. */
void runs_tick(struct fetch *f, uint64_t now);
void run_cancel(struct run *run);
/* Somebody waits for a chunk of it, as an owner perhaps. */
void run_hurry(struct run *run, bool as_owner);
/* The chunk of its next byte. */
static inline uint32_t run_chunk(const struct run *run)
{
	return (uint32_t)(run->pos / CHUNK_SIZE);
}

/* Of its flights: a stream's request is longer. */
static inline uint64_t run_left(const struct run *run)
{
	uint64_t end = (uint64_t)run->end * CHUNK_SIZE;

	return min_u64(end, blob_size(run->rq.blob)) - run->pos;
}

/* ---- stream.c ---- */

/* Makes a run that is about to start a stream, if it may be one; last: its
 * last flight. */
void stream_begin(struct run *run, const struct flight *last);
/* True: the flight, which nobody was asked for yet, is part of its blob's
 * stream now. */
bool stream_join(struct flight *fl);
/* Somebody waits for a chunk of the run, which may be a stream. */
void stream_hurry(const struct run *run);
/* No flight joins it any more. */
void stream_end(struct run *run);
/* It is held back, and for nothing. */
bool stream_over(const struct run *run, uint64_t now);
/* Has brought what was wanted of it, and is not to bring more. */
void stream_stop(struct run *run);
/* Nobody reads the blob any more. */
void stream_forget(struct blob_fetch *bf);

#endif
