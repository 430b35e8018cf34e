/* When an exchange is out of time: the first byte, the speed, the whole. Its
 * clock is what the caller passes (milliseconds that never go back); it starts
 * nothing by itself. Time during which the caller takes no bytes is not held
 * against the other side. Not thread-safe. */
#ifndef HTTP_DEADLINE_H
#define HTTP_DEADLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct deadline {
	uint64_t total_ms;	    /* from deadline_start(); 0 = none */
	uint32_t first_byte_ms;	    /* from deadline_sent() to _head() */
	uint32_t low_speed_bytes;   /* fewer a second … */
	uint32_t low_speed_seconds; /* … for so long is a stall */
	/* Private. */
	uint64_t start, sent;
	enum { DEADLINE_WAITING, DEADLINE_SENT, DEADLINE_BODY } phase;
	bool paused, late;
	uint64_t mark; /* when the window began or was last resumed */
	uint64_t window_ms, window_bytes;
	uint64_t slow_ms; /* of windows too slow, one after the other */
};

void deadline_start(struct deadline *d, uint64_t now);
void deadline_sent(struct deadline *d, uint64_t now); /* the request */
void deadline_head(struct deadline *d, uint64_t now); /* the head is there */
void deadline_bytes(struct deadline *d, size_t n);
void deadline_pause(struct deadline *d, uint64_t now);
void deadline_resume(struct deadline *d, uint64_t now);

/* What to wait for after an event above: milliseconds until the next
 * deadline_check(), UINT64_MAX if none is needed. */
uint64_t deadline_wait_ms(const struct deadline *d, uint64_t now);

/* NULL, or why the exchange is to be ended: a sentence, in `why`. A deadline
 * that has passed is reported by the second check, one turn of the loop after
 * the first: if the loop was kept from running, the answer may lie unread in
 * the socket. */
const char *deadline_check(struct deadline *d, uint64_t now, char *why,
			   size_t why_size);

#endif
