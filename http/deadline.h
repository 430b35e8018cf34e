/* Decides when an exchange has run out of time: for the first byte, by its
 * speed, or in total. It starts no timer; the caller passes the time in
 * milliseconds of a monotonic clock. Time while the caller takes no bytes does
 * not count. Not thread-safe. */
#ifndef HTTP_DEADLINE_H
#define HTTP_DEADLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct deadline {
	uint64_t total_ms;	  /* from deadline_start(); 0 = none */
	uint32_t first_byte_ms;	  /* from deadline_sent() to deadline_head() */
	uint32_t low_speed_bytes; /* fewer bytes a second … */
	uint32_t low_speed_seconds; /* … for so many seconds are a stall */
	/* Private. */
	uint64_t start, sent;
	enum { DEADLINE_WAITING, DEADLINE_SENT, DEADLINE_BODY } phase;
	bool paused, late;
	uint64_t mark; /* when the window began or was last resumed */
	uint64_t window_ms, window_bytes;
	uint64_t slow_ms; /* sum of consecutive slow windows */
};

void deadline_start(struct deadline *d, uint64_t now);
void deadline_sent(struct deadline *d, uint64_t now); /* the request was sent */
void deadline_head(struct deadline *d, uint64_t now); /* the head has arrived */
void deadline_bytes(struct deadline *d, size_t n);
void deadline_pause(struct deadline *d, uint64_t now);
void deadline_resume(struct deadline *d, uint64_t now);

/* The milliseconds until the next deadline_check(), after each of the events
 * above; UINT64_MAX if no check is needed. */
uint64_t deadline_wait_ms(const struct deadline *d, uint64_t now);

/* NULL, or the reason to end the exchange: a sentence, in `why`. The second
 * check reports a deadline that has passed, one turn of the loop after the
 * first check: if the loop was held up, the answer may be unread in the
 * socket. */
const char *deadline_check(struct deadline *d, uint64_t now, char *why,
			   size_t why_size);

#endif
