/* What a member delivers while something is wanted of it. Pure: no clock, no
 * lock, no memory of its own.
 *
 * Time is cut into slots, and only those count in which one waited for the
 * member from beginning to end. A slot should last as long as some pieces take
 * to come, or the figures of those that share a link tell nothing. */
#ifndef P2P_PACE_H
#define P2P_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_SLOTS 15

struct pace { /* zeroed at first */
	/* Of the latest slots; the current one at `at`. */
	uint64_t bytes[PACE_SLOTS + 1];
	uint32_t ms[PACE_SLOTS + 1];
	unsigned int at;
	uint32_t busy; /* bit 0: the last whole one counts, and so on */
	bool broken;   /* the current one does not */
};

/* It has sent so many bytes. */
void pace_add(struct pace *p, uint64_t bytes);
/* Nothing was wanted of it for a part of the slot. */
void pace_break(struct pace *p);
/* The slot has ended, and lasted so long. */
void pace_slot(struct pace *p, uint32_t ms);
/* Bytes a second over the slots that count, the current one left out; -1 when
 * they are fewer than `least`, or none. */
double pace_rate(const struct pace *p, unsigned int least);

/* How long slots should be when a chunk takes normal_ms (0 = not known): all of
 * them as long as it takes for some chunks to come, at least 100 ms each. */
static inline uint32_t pace_slot_ms(uint64_t normal_ms)
{
	uint64_t ms = normal_ms / 6;

	return ms < 100 ? 100 : ms > 1000 ? 1000 : (uint32_t)ms;
}

#endif
