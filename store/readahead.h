/* Guesses what will be read next. Pure: no I/O, no clock, no lock; the caller
 * guards it.
 *
 * Readers are told apart by position, not by file handle, so that the guess
 * survives whoever opened the file. A read that goes on where a stream stands
 * (or skips ahead a little, or comes slightly out of order, as kernel
 * read-ahead does) moves the stream; its window doubles from one chunk to
 * max_window. Anything else starts a new stream with no window at all, so that
 * random access costs just the chunks that it touches. */
#ifndef STORE_READAHEAD_H
#define STORE_READAHEAD_H

#include <stdbool.h>
#include <stdint.h>

#define READAHEAD_STREAMS 16

struct readahead_stream {
	uint64_t next;	  /* where the reader is expected next; 0 = unused */
	uint64_t window;  /* bytes */
	uint64_t horizon; /* all before it was asked for, or read */
	uint64_t used;	  /* of readahead.clock, for least recently used */
};

struct readahead { /* zeroed at first */
	struct readahead_stream s[READAHEAD_STREAMS];
	uint64_t clock;
};

/* Notes a read of [off, off+len) in a file of `size` bytes. True: the range
 * [*ret_off, *ret_off + *ret_len), chunk-aligned but for the file's end, is
 * worth fetching now. */
bool readahead_note(struct readahead *ra, uint64_t off, uint64_t len,
		    uint64_t size, uint64_t max_window, uint64_t *ret_off,
		    uint64_t *ret_len);

#endif
