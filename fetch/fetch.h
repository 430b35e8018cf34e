/* The one act of the daemon: make bytes of a blob available, once, and answer
 * all who wait for them.
 *
 * A chunk that is absent gets one *flight*, whoever asks and however many do.
 * Flights of neighbouring chunks travel together in one *run*: a single range
 * request to one source. Bytes are appended to the flight's buffer as they
 * come; its watermark tells how many; readers are served up to it while the
 * rest is still arriving. A full buffer is written to the store by a pool
 * worker, and the flight ends.
 *
 * Prefetch makes flights that nobody waits for. They start when the budget
 * allows; a reader that comes to wait for one promotes it.
 *
 * A failed run leaves its flights to the next source, and after the last one
 * to the first again, with growing pauses, as long as somebody waits. A run
 * that breaks off in mid-chunk goes on at the watermark. A run that stalls
 * while somebody waits is ended likewise.
 *
 * Never wrong bytes: the bytes that would complete a blob with a digest are
 * held back until the whole has been checked, so nobody can read such a blob
 * to its end before it is known to be right. If it is not, everything is
 * fetched again, and nothing of it is served until it matches. Meanwhile reads
 * of a blob of several chunks get -EBADMSG, for whoever reads may have read
 * wrong bytes of it before; those of a single chunk wait. When it fails a
 * second time the blob is marked bad. Not held are the bytes of a blob of which
 * more than STORE_GATE_MAX bytes are still to be summed, and of one that the
 * store cannot keep as a whole (full disk, cache smaller than the blob): there
 * is nothing to sum them from, except for a blob of a single chunk.
 *
 * Everything here runs on the loop thread, unless it says otherwise. */
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
	/* A run without a new byte for so long is given up if somebody waits;
	 * the first byte may take three times as long. 0 = a sixth of
	 * read_timeout_ms, 1 to 10 s. */
	uint64_t stall_ms;
	/* Of chunks requested and not yet written, and of pieces lent; at least
	 * 4 MiB. 0 = 64 MiB. */
	uint64_t memory_bytes;
	/* Background runs at once from one source that sets no limit of its
	 * own; 0 = 8. */
	uint32_t workers;
};

int fetch_new(const struct fetch_config *cfg, struct fetch **ret);
/* Tried in the order in which they were added; at most 4. */
void fetch_add_source(struct fetch *f, struct source *s);
/* Cancels every read and run (their callbacks come, -ECANCELED), then calls
 * done() in a later turn. Until then the loop must run, and the sources live.
 * Reads that are started later end with -ECANCELED. */
void fetch_stop(struct fetch *f, void (*done)(void *arg), void *arg);
/* After fetch_stop() was done, once no other thread calls in any more: neither
 * fetch_prefetch_post() nor fetch_store_event(). All pieces must have been
 * given back. NULLs; NULL allowed. */
void fetch_free(struct fetch **f);

/* ---- Reading ---- */

struct fetch_read;

struct fetch_wait { /* private */
	struct list node;
	struct fetch_read *rd;
	bool waiting;
	uint32_t need; /* bytes from the chunk's start */
	/* What came of a flight: kept for a read that waits for its other chunk
	 * too. */
	struct chunk_buf *buf;
	uint32_t have;
};

struct fetch_piece {
	const void *mem; /* NULL: in the store; use store_read() */
	size_t len;
	struct chunk_buf *buf; /* what mem points into */
};

/* Embedded in the caller's object. */
struct fetch_read {
	/* Set by the caller. */
	struct blob *blob; /* borrowed until done() */
	uint64_t off;
	uint32_t len; /* > 0, <= CHUNK_SIZE, within the blob */
	uint32_t min; /* be called as soon as so many bytes from off on are
			 there; 0 = len */
	uint64_t deadline_ms; /* on now_ms(); 0 = now + read_timeout_ms */
	bool stored;	/* be called only once the bytes are in the store, or
			   with the error that keeps them out (-ENOSPC) */
	bool unchecked; /* a peer reads, and checks the whole itself: bytes are
			   not held back, unless they failed the digest */
	bool as_owner;	/* a peer reads what it wants us to fetch for all: no
			   other owner is to be asked */
	/* NULL, or what who reads has brought along; borrowed until done().
	 * Requests for chunks that this read waits for are sent with it, unless
	 * another read's is tried first. */
	struct source_auth *auth;
	/* Exactly once, never from inside fetch_read_start(). r: 0, and
	 * piece[] describes at least `min` bytes from off on, in order;
	 * -ENOENT nobody has the blob; -EACCES; -EKEYEXPIRED, with auth only;
	 * -EBADMSG the bytes failed the digest; -ESTALE changed upstream;
	 * -ETIMEDOUT no source delivered in time (logged, with the reasons);
	 * -ENOMEM; -ECANCELED.
	 *
	 * A piece in the store may be gone when it is read: -ENODATA and
	 * -EAGAIN of store_read() mean to start the read again, with the same
	 * deadline_ms. Pieces in memory may be in memory only (full disk), so
	 * take those from where they are. */
	void (*done)(struct fetch_read *rd, int r);

	/* For done(): borrowed until it returns. */
	struct fetch_piece piece[2];
	uint32_t npieces;
	uint32_t got; /* bytes the pieces describe */

	/* Private. */
	struct fetch *f;
	struct fetch_wait wait[2];
	struct list node; /* in f->reads, again or ready */
	uint64_t started_ms;
	int result;
	unsigned int nwaiting; /* of wait[] */
	unsigned int state;
};

void fetch_read_start(struct fetch *f, struct fetch_read *rd);
/* done(-ECANCELED) follows in a later turn. The flight goes on. Harmless on a
 * read whose end is already due. */
void fetch_read_cancel(struct fetch_read *rd);

/* Keeps a piece's memory beyond done(), which counts against memory_bytes: for
 * a short time, or as a loan. Loop thread; the bytes may be read on any. */
struct chunk_buf *chunk_buf_ref(struct chunk_buf *b);
/* NULLs; NULL allowed. */
void chunk_buf_unref(struct chunk_buf **b);

/* Memory that is held for as long as somebody else likes. When there is no
 * other and a chunk wants some, the oldest loan is called back: recall() unrefs
 * the buffer, or leaves it for the moment, and calls nothing else of fetch.
 * What was in it is in the store, or fetched anew. */
struct chunk_loan {
	struct list node;
	struct chunk_buf *buf;
	void (*recall)(struct chunk_loan *l);
};

/* Refs b. */
void chunk_lend(struct chunk_loan *l, struct chunk_buf *b,
		void (*recall)(struct chunk_loan *l));
/* Harmless when repeated, and on a zeroed loan. */
void chunk_return(struct chunk_loan *l);

/* Wants [off, off+len) soon. What is present or under way is skipped; what
 * the budget does not allow now is queued. */
void fetch_prefetch(struct fetch *f, struct blob *b, uint64_t off,
		    uint64_t len);
/* The same for a reader that will want what follows too, in time: the request
 * may be longer than what is wanted now, and its connection is held back until
 * more of it is (see fetch/stream.c). */
void fetch_prefetch_steady(struct fetch *f, struct blob *b, uint64_t off,
			   uint64_t len);
/* Either, for a reader with a credential (NULL: without), which is referenced
 * until that is done. */
void fetch_prefetch_as(struct fetch *f, struct blob *b, uint64_t off,
		       uint64_t len, bool steady, struct source_auth *auth);
/* Forgets queued prefetch of the blob that has not begun, and a request that is
 * held back. */
void fetch_prefetch_cancel(struct fetch *f, struct blob *b);

/* From any thread: fetch_prefetch(), or _steady(), by way of loop_post(). The
 * blob is referenced meanwhile. */
void fetch_prefetch_post(struct fetch *f, struct blob *b, uint64_t off,
			 uint64_t len, bool steady);

/* The store's event callback, to be plugged into store_config.event by way of
 * daemon.c: a mismatch is only learnt of here. Any thread. */
void fetch_store_event(struct fetch *f, struct blob *b, enum blob_event ev);

struct fetch_stats {
	uint64_t flights;	/* now */
	uint64_t runs;		/* now */
	uint64_t reads;		/* waiting now */
	uint64_t memory_bytes;	/* in buffers now */
	uint64_t fetched_bytes; /* since the start, as received */
	uint64_t failed_runs;
	uint64_t failed_reads; /* cancelled ones do not count */
};
void fetch_stats(struct fetch *f, struct fetch_stats *ret);

#endif
