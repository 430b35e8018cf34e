#include "p2p/pace.h"

#define ALL_SLOTS ((1u << PACE_SLOTS) - 1)

void pace_add(struct pace *p, uint64_t bytes)
{
	p->bytes[p->at] += bytes;
}

void pace_break(struct pace *p)
{
	p->broken = true;
}

void pace_slot(struct pace *p, uint32_t ms)
{
	p->ms[p->at] = ms;
	p->busy = (p->busy << 1 | !p->broken) & ALL_SLOTS;
	p->broken = false;
	p->at = (p->at + 1) % (PACE_SLOTS + 1);
	p->bytes[p->at] = 0;
}

double pace_rate(const struct pace *p, unsigned int least)
{
	uint64_t bytes = 0, ms = 0;
	unsigned int n = 0;

	for (unsigned int i = 0; i < PACE_SLOTS; i++) {
		unsigned int k = (p->at + PACE_SLOTS - i) % (PACE_SLOTS + 1);

		if (!(p->busy >> i & 1))
			continue;
		bytes += p->bytes[k];
		ms += p->ms[k];
		n++;
	}
	return n < least || ms == 0 ? -1 : (double)bytes * 1000 / (double)ms;
}
