/* What fetch.c (reads, flights, verification) and run.c (range requests) share.
 * Loop thread only, but for the fields marked otherwise. */
#ifndef STORE_FETCH_PRIVATE_H
#define STORE_FETCH_PRIVATE_H

#include "base/buf.h"
#include "base/metrics.h"
#include "store/fetch.h"

#define FETCH_MAX_SOURCES 4
#define FLIGHT_BUCKETS	  1024
/* Chunks that could not be stored stay in memory for a while. */
#define MEMORY_FLIGHTS 16
/* Queued prefetch beyond this is not worth remembering. */
#define MAX_QUEUED_FLIGHTS 8192
/* The longest range in one request. */
#define RUN_MAX_BYTES (UINT64_C(32) << 20)
#define TICK_MS	      50
/* Pooled buffers are given back after so many ticks without work. */
#define IDLE_TICKS	   40

/* CHUNK_SIZE bytes of memory, pooled by the engine. */
struct chunk_buf {
	struct fetch *f;
	struct chunk_buf *next; /* in the pool */
	unsigned int refs;
	uint8_t *data;
};

enum flight_state {
	FLIGHT_QUEUED,	/* prefetch that waits for budget; in f->queue */
	FLIGHT_RETRY,	/* in f->queue too, not before retry_ms */
	FLIGHT_RUNNING, /* part of a run */
	FLIGHT_WRITING, /* all bytes are in the buffer; a worker writes them */
	FLIGHT_MEMORY,	/* the store could not keep it; in f->memory */
};

struct flight {
	struct list hash;  /* in f->buckets */
	struct list queue; /* in f->queue or f->memory */
	struct list waits; /* struct fetch_wait */
	struct blob_fetch *bf;
	struct run *run;
	struct chunk_buf *buf; /* NULL until the first byte */
	enum flight_state state;
	uint32_t chunk;
	uint32_t len;	     /* of the chunk */
	uint32_t have;	     /* watermark: bytes in buf */
	uint16_t from;	     /* who sent the bytes; a peer wins over upstream */
	unsigned int source; /* to be tried next */
	unsigned int failures; /* of runs; for the pause */
	uint64_t retry_ms;
	int last_error;	     /* the one to report, see error_rank() */
	struct buf why;	     /* who failed and how, for the log */
	struct loop_job job; /* WRITING */
	int write_result;
};

/* What the engine knows of a blob while something is going on with it. */
struct blob_fetch {
	struct list node; /* in f->blobs */
	struct fetch *f;
	struct blob *blob;    /* a reference */
	unsigned int users;   /* flights, and those who are looking at it */
	unsigned int writing; /* flights received whole, not yet in the store */
	struct list gated;    /* reads that wait for the digest's check */
	bool checking;	      /* blob_on_verified() is due */
	unsigned int mismatches;
	uint64_t refetch_ms; /* when all was last asked for again */
	/* The check's result on its way to the loop. */
	struct loop_task checked;
	int check_result;
};

/* One range request. */
struct run {
	struct source_request rq;
	struct list node; /* in f->runs */
	struct fetch *f;
	struct blob_fetch *bf;
	struct source *source;
	unsigned int source_index;
	uint32_t first, end;  /* chunks */
	uint32_t at;	      /* the one being filled; == end: all received */
	uint64_t progress_ms; /* when bytes came last */
	uint64_t bytes;	      /* received */
	bool paused;	      /* for want of memory */
	bool background;      /* counts against f->workers */
	bool stalled;	      /* we cancelled it for that */
	struct metric_series *m_bytes; /* of source */
};

struct fetch {
	struct fetch_config cfg;
	struct source *sources[FETCH_MAX_SOURCES];
	unsigned int nsources;
	struct list buckets[FLIGHT_BUCKETS];
	struct list blobs;
	struct list runs;
	struct list queue;  /* flights QUEUED or RETRY, oldest first */
	struct list memory; /* flights MEMORY, oldest first */
	struct list reads;  /* waiting */
	struct list ready;  /* reads whose done() is due */
	struct loop_task wake;
	bool wake_posted;
	unsigned int nqueued, nmemory, nflights, nreads;
	unsigned int background_runs;
	uint64_t wanted_bytes; /* asked for by background runs, not received */
	uint64_t buf_bytes;
	struct chunk_buf *pool;
	unsigned int pooled;
	uv_timer_t tick;
	bool ticking, stopping;
	unsigned int idle_ticks;
	void (*stopped)(void *arg);
	void *stopped_arg;
	uint64_t fetched_bytes, failed_runs, failed_reads;
	uint64_t oom_until_ms;
	struct metric_series *m_flights, *m_waits, *m_failed_reads;
};

/* fetch.c */
struct flight *flight_find(struct fetch *f, const struct blob_fetch *bf,
			   uint32_t chunk);
void flight_free(struct flight *fl);
/* Ends a use of bf (users--), and bf itself when nothing is left to do. */
void blob_fetch_put(struct blob_fetch *bf);
/* Serves the waiting reads that the watermark allows. */
void flight_progress(struct flight *fl);
/* All bytes are in the buffer: to the store with them. */
void flight_received(struct flight *fl);
/* No source can, or will: everyone who waits gets r. */
void flight_fail(struct flight *fl, int r);
/* A buffer, or NULL when the budget is used up. */
struct chunk_buf *chunk_buf_get(struct fetch *f);

/* run.c */
/* Starts the flight's run now, with those queued right behind it. */
void run_start(struct flight *fl, bool background);
/* Starts what the budget and the clock allow. */
void runs_schedule(struct fetch *f);
/* Memory has become free. */
void runs_resume(struct fetch *f);
/* Ends the runs that stall while somebody waits. */
void runs_check_stalls(struct fetch *f, uint64_t now);

#endif
