/* Guesses what will be read next. Pure: no I/O, no clock, no lock; the caller
 * guards it.
 *
 * Readers are told apart by position, not by file handle, so that the guess
 * survives whoever opened the file. A read that goes on where a stream stands
 * (or skips ahead a little, or comes slightly out of order, as kernel
 * read-ahead does) moves the stream. Anything else starts a new stream with no
 * window at all, so that random access costs just the chunks that it touches.
 *
 * The window begins with one chunk and grows by twice what is read, to
 * READAHEAD_STEADY, and on to max_window as long as the reader has to wait for
 * bytes now and then, within half a window. When it does not, it is the reader
 * and not the network that is slow, and the window shrinks to READAHEAD_STEADY
 * again: what is far ahead of the reader has left the processor's caches by the
 * time it is read.
 *
 * It moves on in small steps, an eighth of itself: as long as one chunk is late
 * the reader stands still and so does the window, and all that was asked for
 * beyond is what keeps the links busy meanwhile. */
#ifndef FETCH_READAHEAD_H
#define FETCH_READAHEAD_H

#include <stdbool.h>
#include <stdint.h>

#define READAHEAD_STREAMS 16
#define READAHEAD_STEADY  (UINT64_C(16) << 20) /* bytes */

struct readahead_stream {
	uint64_t next;	  /* where the reader is expected next; 0 = unused */
	uint64_t window;  /* bytes */
	uint64_t looked;  /* where the reader was when it was looked at last */
	uint64_t horizon; /* all before it was asked for, or read */
	uint64_t used;	  /* of readahead.clock, for least recently used */
	uint64_t waited;  /* where it had to wait last */
};

struct readahead { /* zeroed at first */
	struct readahead_stream s[READAHEAD_STREAMS];
	uint64_t clock;
};

/* What is worth fetching now: chunk-aligned but for the file's end. */
struct readahead_want {
	uint64_t off, len;
	/* The reader goes on and on: what follows will be wanted as well. */
	bool steady;
};

/* Notes a read of [off, off+len) in a file of `size` bytes; waited: its bytes
 * were not there yet. A max_window of less than a chunk is one. True: *ret is
 * worth fetching. */
bool readahead_note(struct readahead *ra, uint64_t off, uint64_t len,
		    uint64_t size, uint64_t max_window, bool waited,
		    struct readahead_want *ret);

#endif
