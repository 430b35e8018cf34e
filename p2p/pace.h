/* Measures the rate at which a member delivers while this node waits for it.
 * Pure: no clock, no lock, no memory of its own.
 *
 * Time is cut into slots. A slot counts only if this node waited for the member
 * from its beginning to its end. A slot should be long enough for several
 * pieces to arrive; otherwise the rates of members that share a link say
 * nothing. */
#ifndef P2P_PACE_H
#define P2P_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_SLOTS 15

struct pace { /* all zero at first */
	/* Of the latest slots; the current slot is at `at`. */
	uint64_t bytes[PACE_SLOTS + 1];
	uint32_t ms[PACE_SLOTS + 1];
	unsigned int at;
	uint32_t busy; /* bit 0: the latest complete slot counts; bit 1: the one
			  before; … */
	bool broken;   /* the current slot does not count */
};

/* The member has sent so many bytes. */
void pace_add(struct pace *p, uint64_t bytes);
/* Nothing was wanted of the member for a part of the slot. */
void pace_break(struct pace *p);
/* Ends the current slot, which lasted ms. */
void pace_slot(struct pace *p, uint32_t ms);
/* Returns bytes per second over the slots that count, without the current one;
 * -1 if fewer than `least` count, or none. */
double pace_rate(const struct pace *p, unsigned int least);

/* Returns the length of a slot when a chunk takes normal_ms (0 = not known):
 * 100 to 1000 ms, so that some chunks arrive within all PACE_SLOTS together. */
static inline uint32_t pace_slot_ms(uint64_t normal_ms)
{
	uint64_t ms = normal_ms / 6;

	return ms < 100 ? 100 : ms > 1000 ? 1000 : (uint32_t)ms;
}

#endif
