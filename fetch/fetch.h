/* The daemon's central task: fetch each absent chunk of a blob once, and answer
 * every read that waits for the chunk.
 *
 * An absent chunk gets one *flight*, however many reads want the chunk. Flights
 * of neighbouring chunks share one *run*: a single range request to one source.
 * Bytes are appended to the flight's buffer as they arrive. The flight's
 * *watermark* counts these bytes; reads below the watermark are answered while
 * the rest is still arriving. A pool worker writes a full buffer to the store,
 * and the flight ends.
 *
 * Prefetch creates flights that no read waits for. These flights start when the
 * memory budget allows; a read that begins to wait for such a flight promotes
 * it to demand.
 *
 * When a run fails, its flights go to the next source. After the last source
 * they start with the first source again, after growing pauses, as long as a
 * read waits. A run that breaks off within a chunk continues at the watermark.
 * A run that stalls while a read waits is cancelled and counts as failed.
 *
 * Never wrong bytes: the engine holds back the bytes that would complete a blob
 * with a digest until the whole blob is checked. So nobody can read such a blob
 * to its end before its digest matched. On a mismatch everything is fetched
 * again, and no bytes are served until the blob matches. Meanwhile reads of a
 * blob of several chunks get -EBADMSG, since the reader may have read wrong
 * bytes of the blob before; reads of a blob of one chunk wait. After the second
 * mismatch the blob is marked bad. Two kinds of blobs are not held back: a blob
 * of which more than STORE_GATE_MAX bytes are still to be summed, and a blob
 * that the store cannot keep as a whole (full disk, cache smaller than the
 * blob), because then there is nothing to sum. A blob of a single chunk is
 * checked even if the store cannot keep it.
 *
 * All functions run on the loop thread, unless their comment says otherwise. */
#ifndef FETCH_FETCH_H
#define FETCH_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "base/loop.h"
#include "fetch/source.h"
#include "store/store.h"

struct fetch;
struct flight;
struct chunk_buf;

struct fetch_config {
	struct loop *loop;
	struct store *store;
	uint64_t read_timeout_ms; /* 0 = 60 s */
	/* A run that receives no byte for so long is cancelled if a read waits
	 * for it; the limit for the first byte is three times as long. 0 = a
	 * sixth of read_timeout_ms, 1 to 10 s. */
	uint64_t stall_ms;
	/* Limit for all chunk buffers: chunks requested and not yet written,
	 * and lent pieces. At least 4 MiB; 0 = 64 MiB. */
	uint64_t memory_bytes;
	/* Limit for parallel background runs at a source that sets no limit of
	 * its own; 0 = 8. */
	uint32_t workers;
};

int fetch_new(const struct fetch_config *cfg, struct fetch **ret);
/* Adds a source; at most 4. Sources are tried in the order in which they were
 * added. s is borrowed until fetch_stop() is done. */
void fetch_add_source(struct fetch *f, struct source *s);
/* Cancels every read and run (their callbacks come with -ECANCELED), then calls
 * done() in a later turn. Until done() the loop must run and the sources must
 * live. A read that is started later ends with -ECANCELED. */
void fetch_stop(struct fetch *f, void (*done)(void *arg), void *arg);
/* Frees f and sets *f to NULL; NULL is allowed. Call it after the done() of
 * fetch_stop(), when no other thread calls fetch_prefetch_post() or
 * fetch_store_event() any more, and when all pieces were given back. */
void fetch_free(struct fetch **f);

/* ---- Reading ---- */

struct fetch_read;

struct fetch_wait { /* private */
	struct list node;
	struct fetch_read *rd;
	bool waiting;
	struct flight *flight; /* NULL while it waits for none */
	uint32_t need; /* number of bytes to wait for, from the chunk's start */
	/* The flight's buffer and watermark, kept while the read still waits
	 * for its other chunk. */
	struct chunk_buf *buf;
	uint32_t have;
};

struct fetch_piece {
	const void *mem; /* NULL: in the store; use store_read() */
	size_t len;
	struct chunk_buf *buf; /* the buffer that mem points into */
};

/* Embedded in the caller's object. */
struct fetch_read {
	/* Set by the caller. */
	struct blob *blob; /* borrowed until done() */
	uint64_t off;
	uint32_t len; /* > 0, <= CHUNK_SIZE, within the blob */
	uint32_t min; /* call done() as soon as so many bytes from off on are
			 available; 0 = len */
	uint64_t deadline_ms; /* on now_ms(); 0 = now + read_timeout_ms */
	bool stored;	/* call done() only when the bytes are in the store, or
			   with the error that keeps them out (-ENOSPC) */
	bool unchecked; /* the reader is a member, which checks the whole blob
			   itself: bytes are not held back, unless they failed
			   the digest */
	bool as_owner;	/* the reader is a member that takes this node for the
			   owner: do not ask another owner */
	/* NULL, or the reader's credential; borrowed until done(). Requests for
	 * the chunks that this read waits for carry it, unless another read's
	 * credential is tried first. */
	struct source_auth *auth;
	/* Called exactly once, never from inside fetch_read_start(). r is 0:
	 * piece[] describes at least `min` bytes from off on, in order.
	 * -ENOENT: no source has the blob. -EACCES: refused. -EKEYEXPIRED: auth
	 * is not valid any more (only with auth). -EBADMSG: the bytes failed
	 * the digest. -ESTALE: changed upstream. -ETIMEDOUT: no source
	 * delivered in time (logged, with the reasons). -ENOMEM. -ECANCELED.
	 *
	 * A piece in the store may be evicted before it is read: on -ENODATA or
	 * -EAGAIN from store_read() start the read again, with the same
	 * deadline_ms. A piece in memory may be in memory only (full disk), so
	 * take its bytes from there. */
	void (*done)(struct fetch_read *rd, int r);

	/* Output for done(); borrowed until done() returns. */
	struct fetch_piece piece[2];
	uint32_t npieces;
	uint32_t got; /* total bytes of the pieces */

	/* Private. */
	struct fetch *f;
	struct fetch_wait wait[2];
	struct list node; /* in f->reads, f->again or f->ready */
	uint64_t started_ms;
	int result;
	unsigned int nwaiting; /* number of waiting entries in wait[] */
	unsigned int state;
};

void fetch_read_start(struct fetch *f, struct fetch_read *rd);
/* Ends the read: done(-ECANCELED) comes in a later turn. The flight goes on if
 * it has begun and few others do for no reader (fetch/run.c, MAX_GIVEN_UP).
 * Has no effect on a read whose done() is already scheduled. */
void fetch_read_cancel(struct fetch_read *rd);

/* Keeps a piece's memory beyond done(). The buffer counts against memory_bytes,
 * so hold the reference for a short time only, or as a loan. Call it on the
 * loop thread; any thread may read the bytes. */
struct chunk_buf *chunk_buf_ref(struct chunk_buf *b);
/* Gives the reference back and sets *b to NULL; NULL is allowed. */
void chunk_buf_unref(struct chunk_buf **b);

/* A reference that may last as long as a slow client likes. When a chunk needs
 * memory and no buffer is free, fetch calls recall() of the oldest loan whose
 * bytes no flight needs any more. recall() returns the loan, or keeps it for
 * now; it calls nothing else of fetch. The bytes are then in the store, or are
 * fetched again. */
struct chunk_loan {
	struct list node;
	struct chunk_buf *buf;
	void (*recall)(struct chunk_loan *l);
};

/* Takes a reference to b. */
void chunk_lend(struct chunk_loan *l, struct chunk_buf *b,
		void (*recall)(struct chunk_loan *l));
/* Harmless on a returned or zeroed loan. */
void chunk_return(struct chunk_loan *l);

/* Prefetches [off, off+len). Skips chunks that are present or have a flight;
 * queues chunks that the budget does not allow now. */
void fetch_prefetch(struct fetch *f, struct blob *b, uint64_t off,
		    uint64_t len);
/* The same for a steady sequential reader, which will also want the bytes
 * behind the range. The request may be longer than the range; its connection is
 * held back until the reader wants more (see fetch/stream.c). */
void fetch_prefetch_steady(struct fetch *f, struct blob *b, uint64_t off,
			   uint64_t len);
/* Either of the above, with a reader's credential (NULL: none). The flights
 * reference auth. */
void fetch_prefetch_as(struct fetch *f, struct blob *b, uint64_t off,
		       uint64_t len, bool steady, struct source_auth *auth);
/* Drops the blob's queued prefetch flights that have not started, and ends its
 * stream if the stream is held back. */
void fetch_prefetch_cancel(struct fetch *f, struct blob *b);

/* Posts fetch_prefetch() or fetch_prefetch_steady() to the loop. References the
 * blob until the post has run. Any thread. */
void fetch_prefetch_post(struct fetch *f, struct blob *b, uint64_t off,
			 uint64_t len, bool steady);

/* Handles an event of the store: acts on BLOB_EV_MISMATCH. daemon/daemon.c
 * calls it from store_config.event. Any thread. */
void fetch_store_event(struct fetch *f, struct blob *b, enum blob_event ev);

struct fetch_stats {
	uint64_t flights;	/* now */
	uint64_t runs;		/* now */
	uint64_t reads;		/* waiting now */
	uint64_t memory_bytes;	/* in buffers now */
	uint64_t fetched_bytes; /* since the start, as received */
	uint64_t failed_runs;
	uint64_t failed_reads; /* without cancelled reads */
};
void fetch_stats(struct fetch *f, struct fetch_stats *ret);

#endif
