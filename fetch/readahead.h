/* Predicts what a reader reads next. Pure code: no I/O, no clock, no lock; the
 * caller serialises the calls.
 *
 * Readers are told apart by position, not by file handle, so the prediction
 * does not depend on open files. A read that continues at a stream's position
 * (or skips ahead a little, or comes slightly out of order, as kernel
 * read-ahead does) moves the stream. Any other read starts a stream with no
 * window, so random access fetches only the chunks that it touches.
 *
 * The window begins with one chunk. It grows by twice what is read, to
 * READAHEAD_STEADY, and on to max_window as long as the reader waits for bytes
 * now and then, within half a window. A reader that does not wait is slower
 * than the network: its window shrinks to READAHEAD_STEADY again, because bytes
 * far ahead of the reader have left the processor's caches by the time they are
 * read.
 *
 * The window moves in small steps, an eighth of its size. While one chunk is
 * late, the reader and the window stand still; the chunks requested beyond it
 * keep the links busy meanwhile. */
#ifndef FETCH_READAHEAD_H
#define FETCH_READAHEAD_H

#include <stdbool.h>
#include <stdint.h>

#define READAHEAD_STREAMS 16
#define READAHEAD_STEADY  (UINT64_C(16) << 20) /* bytes */

struct readahead_stream {
	uint64_t next;	  /* where the next read is expected; 0 = unused */
	uint64_t window;  /* bytes */
	uint64_t looked;  /* the reader's position at the last step */
	uint64_t horizon; /* all bytes before it were requested or read */
	uint64_t used;	 /* value of readahead.clock at the last use, for LRU */
	uint64_t waited; /* where the reader waited last */
};

struct readahead { /* starts zeroed */
	struct readahead_stream s[READAHEAD_STREAMS];
	uint64_t clock;
};

/* The range to fetch now: aligned to chunks, except at the file's end. */
struct readahead_want {
	uint64_t off, len;
	/* The reader is sequential and steady: it will want what follows
	 * too. */
	bool steady;
};

/* Notes a read of [off, off+len) in a file of `size` bytes; waited: the bytes
 * were not present. A max_window below one chunk counts as one chunk. Returns
 * true if *ret is a range to fetch. */
bool readahead_note(struct readahead *ra, uint64_t off, uint64_t len,
		    uint64_t size, uint64_t max_window, bool waited,
		    struct readahead_want *ret);

#endif
