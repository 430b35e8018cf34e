/* Shared by fetch.c (reads and the engine), flight.c (flights and the digest's
 * check), run.c (range requests), stream.c (long range requests) and sweep.c
 * (blobs without ranges). Loop thread only, but for the fields marked
 * otherwise.
 *
 * No callback runs while a list is walked. Due work (reads to end or to attach
 * again, flights to start, runs to resume) goes into a list; on_wake() does the
 * work from the loop, see kick(). */
#ifndef FETCH_FETCH_PRIVATE_H
#define FETCH_FETCH_PRIVATE_H

#include <pthread.h>

#include "base/buf.h"
#include "base/metrics.h"
#include "fetch/fetch.h"

#define FETCH_MAX_SOURCES 4
#define FLIGHT_BUCKETS	  2048
/* Limit for flights whose chunk the store could not keep. */
#define MEMORY_FLIGHTS 16
/* After so long without work the pooled buffers are freed. */
#define QUIET_MS 2000
/* Prefetch beyond so many queued flights is dropped. */
#define MAX_QUEUED_FLIGHTS 8192
/* The longest range of one request, streams excepted (fetch/stream.c). */
#define RUN_MAX_BYTES (UINT64_C(32) << 20)
#define TICK_MS	      50
#define WHY_MAX	      1024

/* CHUNK_SIZE bytes of memory; the engine pools the buffers. */
struct chunk_buf {
	struct fetch *f;
	struct chunk_buf *next; /* next buffer in the pool */
	unsigned int refs;
	uint8_t *data;
};

/* Each flight is in the list of its state, fetch.in[state], oldest first. */
enum flight_state {
	FLIGHT_QUEUED,	/* prefetch; waits for budget */
	FLIGHT_WANTED,	/* starts at the next wake */
	FLIGHT_RETRY,	/* paused until retry_ms; freed if no read waits */
	FLIGHT_RUNNING, /* part of a run */
	FLIGHT_WRITING, /* the buffer is full; a worker writes it */
	FLIGHT_LAST,	/* the buffer is full, but its chunk would complete the
			   blob: written after the blob's other chunks */
	FLIGHT_MEMORY,	/* the store could not keep the chunk; no read waits */
	FLIGHT_STATES
};

struct flight {
	struct list hash;  /* in f->buckets */
	struct list node;  /* in f->in[state] */
	struct list waits; /* struct fetch_wait, by rising need */
	struct blob_fetch *bf;
	struct run *run;       /* only in RUNNING */
	struct chunk_buf *buf; /* NULL: no bytes yet */
	enum flight_state state;
	uint32_t chunk;
	uint32_t len;  /* the chunk's length */
	uint32_t have; /* watermark: bytes in buf */
	uint16_t from; /* sender of the bytes; a member wins over upstream */
	/* Index of the source that sent all the bytes, and its
	 * source_request.place; FETCH_MAX_SOURCES, 0 if several did. */
	unsigned int by;
	uint64_t place;
	unsigned int source; /* index of the source to try next */
	unsigned int rounds; /* number of rounds in which every source failed */
	uint64_t retry_ms;
	int error;	/* the error of this round with the highest
			   source_error_rank() */
	struct buf why; /* failed sources and their reasons in the last round,
			   for the log */
	/* A worker uses these fields while the state is WRITING. */
	struct loop_job job;
	int write_result;
	bool writing;
	bool as_owner; /* see fetch_read */
	bool steady;   /* see fetch_prefetch_steady() */
	bool given_up; /* the last read that waited for it was cancelled, or
			  came to its deadline */
	/* A reference, or NULL. The credential that requests carry: of the
	 * prefetch that created the flight, or of a waiting read. */
	struct source_auth *auth;
	/* Only for the single chunk of a blob, when the store could not keep
	 * the chunk. */
	bool digest_ok;
	unsigned int mismatches;
};

/* The engine's state of a blob that has flights or whose check is under way. */
struct blob_fetch {
	struct list node; /* in f->blobs */
	struct fetch *f;
	struct blob *blob;     /* a reference */
	unsigned int users;    /* flights, and callers that hold bf */
	unsigned int nwriting; /* flights in state WRITING */
	struct list gated;     /* reads that wait for the digest's check */
	struct run *stream;    /* the stream that flights may join, or NULL */
	struct run *sweep;     /* the run that reads the whole blob, or NULL */
	uint32_t streamed;     /* the chunk after the last stream's request */
	uint64_t held_pos;     /* where streams in a row were held back last */
	bool no_streams;       /* one connection is too slow for the reader */
	unsigned int mismatches; /* mismatches since the blob last matched */
	unsigned int peers_mismatches; /* the same, with bytes from members */
	bool checking; /* the callback of blob_on_verified() is outstanding */
	int check_result;
	struct loop_task checked;
};

/* One range request. */
struct run {
	struct source_request rq;
	struct list node; /* in f->runs */
	struct fetch *f;
	struct blob_fetch *bf; /* of the flights; a reference (users) */
	struct source *source;
	struct metric_series *m_bytes; /* the source's counter */
	unsigned int source_index;
	uint32_t end;	/* the chunk after the last flight */
	uint32_t limit; /* the chunk after the request's last chunk */
	uint64_t pos;	/* position in the blob of the next byte to take */
	uint64_t acked; /* the source's pos; behind pos after a piece that was
			   taken only in part */
	uint64_t taken; /* bytes that flights got; the rest was skipped */
	uint64_t progress_ms; /* when bytes came last, or it was resumed */
	bool paused;	      /* no buffer was free */
	bool held;	      /* a stream, until a reader wants more of it */
	bool background;      /* counts against its source's limit */
	bool cancelled;
	bool given_up; /* cancelled because no reader is left */
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
	uint64_t wanted_bytes; /* requested by background runs, not received */

	struct list reads; /* waiting, oldest first */
	struct list again; /* to be attached again */
	struct list ready; /* done() is due */
	unsigned int nreads;

	struct chunk_buf *pool;
	struct list loans;  /* oldest first */
	uint64_t buf_bytes; /* includes pooled buffers */

	struct loop_task wake;
	uv_timer_t tick;
	bool ticking;
	uint64_t quiet_ms; /* time since which there is no work */

	bool stopping, stopped;
	void (*on_stopped)(void *arg);
	void *stopped_arg;

	uint64_t fetched_bytes, failed_runs, failed_reads;
	struct metric_series *m_flights, *m_waits, *m_failed_reads;

	/* Posts from other threads; see fetch_post(). */
	pthread_mutex_t mu;
	unsigned int posts; /* guarded by: mu; posted and not yet run */
	bool closed;	    /* guarded by: mu; refuses further posts */
};

/* ---- fetch.c ---- */

/* Schedules on_wake() for the next turn of the loop. */
void kick(struct fetch *f);
/* Starts the timer of on_tick(), unless it runs or the engine is stopping. */
void arm_tick(struct fetch *f);
/* Closes the engine if it is stopping and no work is left. */
void maybe_stopped(struct fetch *f);
/* Posts t like loop_post(). Returns false if the engine is closed; the task
 * then belongs to the caller again. The task must call fetch_posted() when it
 * runs. Any thread. */
bool fetch_post(struct fetch *f, struct loop_task *t);
void fetch_posted(struct fetch *f);

/* Whether rd may get the flight's bytes; see fetch.h, "Never wrong bytes". */
bool read_sees(const struct fetch_read *rd, const struct flight *fl);
/* Lends the flight's bytes to w and ends its wait; completes the read if the
 * read waits for nothing else. */
void read_take(struct fetch_wait *w, struct flight *fl);
/* Ends the read's waits; attaches the read again in the next turn. */
void read_again(struct fetch_read *rd);
void read_finish(struct fetch_read *rd, int r);
/* Logs the reason (rate-limited), then calls read_finish(). */
void read_fail(struct fetch_read *rd, int r);

/* ---- flight.c ---- */

/* Returns a buffer with one reference, or NULL when the budget is used up. */
struct chunk_buf *chunk_buf_get(struct fetch *f);
void pool_trim(struct fetch *f);

/* Returns b's state with one more user; creates it if needed. NULL when memory
 * is short. */
struct blob_fetch *blob_fetch_get(struct fetch *f, struct blob *b);
/* Drops a user, and frees bf when bf is not needed any more. */
void blob_fetch_put(struct blob_fetch *bf);

struct flight *flight_find(const struct blob_fetch *bf, uint32_t chunk);
/* Creates a flight in state QUEUED; NULL when memory is short. */
struct flight *flight_new(struct blob_fetch *bf, uint32_t chunk);
void flight_move(struct flight *fl, enum flight_state to);
void flight_free(struct flight *fl);
/* Whether the flight's bytes may be served before the whole blob is checked;
 * see fetch.h, "Never wrong bytes". */
bool flight_shows(const struct flight *fl);
/* Serves the waiting reads that lie below the watermark. */
void flight_progress(struct flight *fl);
/* Call it when the buffer is full: sends the chunk to the store. */
void flight_received(struct flight *fl);
/* Discards the flight's bytes. */
void flight_forget_bytes(struct flight *fl);
/* Ends the flight and all its waiting reads with error r. */
void flight_fail(struct flight *fl, int r);
/* Sets fl->auth. Call it before a run or a stream takes the flight. */
void flight_choose_auth(struct flight *fl);
/* Call it when upstream refused fl->auth: waiting reads with the same
 * credential fail with r. Returns true if other reads still wait; their
 * credentials are tried next. */
bool flight_refuse(struct flight *fl, int r);

/* Ends the reads with as_owner of a flight of which upstream serves no range:
 * -EBUSY. Their members did not know, and look for the blob's one owner now. */
void flight_send_members_away(struct flight *fl);

/* Starts the digest's check; when the check ends, the reads in bf->gated are
 * attached again or fail. */
void check_start(struct blob_fetch *bf);

/* ---- run.c ---- */

/* Starts the WANTED flights, resumes paused runs, and starts prefetch within
 * the budget. */
void runs_wake(struct fetch *f);
/* Cancels stalled runs, and moves flights whose pause is over to WANTED. */
void runs_tick(struct fetch *f, uint64_t now);
void run_cancel(struct run *run);
/* Tells the source that a read waits for a chunk of the run; as_owner: see
 * fetch_read. */
void run_hurry(struct run *run, bool as_owner);
/* The chunk that contains run->pos. */
static inline uint32_t run_chunk(const struct run *run)
{
	return (uint32_t)(run->pos / CHUNK_SIZE);
}

/* Bytes still to come for the run's flights; a stream's request is longer. */
static inline uint64_t run_left(const struct run *run)
{
	uint64_t end = (uint64_t)run->end * CHUNK_SIZE;

	return min_u64(end, blob_size(run->rq.blob)) - run->pos;
}

/* The flight's bytes are not the chunk's. Blames the source that sent them and
 * asks the next one. */
void flight_lied(struct flight *fl);

/* ---- stream.c ---- */

/* Makes a run that is about to start a stream, if the conditions hold; last:
 * the run's last flight. */
void stream_begin(struct run *run, const struct flight *last);
/* Adds a flight that is in no run to the blob's stream. Returns true if the
 * flight joined. */
bool stream_join(struct flight *fl);
/* Notes that a read waits for a chunk of the run, if the run is a stream. */
void stream_hurry(const struct run *run);
/* Closes the stream for further flights; the run goes on. */
void stream_end(struct run *run);
/* Whether the stream is held back and has no further use. */
bool stream_over(const struct run *run, uint64_t now);
/* Ends a stream that has delivered all its flights. */
void stream_stop(struct run *run);
/* Ends the blob's stream if it is held back. Call it when no reader is left. */
void stream_forget(struct blob_fetch *bf);

/* ---- sweep.c ---- */

/* Whether the blob can only be read as a whole at the source of that index. */
bool sweep_due(const struct blob_fetch *bf, unsigned int source);
/* Makes a run that is about to start the blob's sweep; fl: its first flight. */
void sweep_begin(struct run *run, struct flight *fl);
/* Call it when the run ends. */
void sweep_end(struct run *run);
/* Adds a flight that is in no run to the blob's sweep, which exists. A flight
 * that the sweep has passed is looked at later; false if it is in the
 * background, and stays as it is. */
bool sweep_join(struct flight *fl, bool background);
/* Returns the flight that takes the sweep's next byte, made if there is none.
 * NULL: the next *ret_skip bytes are not needed. */
struct flight *sweep_flight(struct run *run, uint64_t *ret_skip);

#endif
