#include "http/deadline.h"

#include <stdio.h>

#include "base/util.h"

#define WINDOW_MS 1000
/* A longer window was stretched by a loop that was held up. */
#define WINDOW_MAX_MS  2000
#define SECOND_LOOK_MS 1

void deadline_start(struct deadline *d, uint64_t now)
{
	d->start = now;
	d->phase = DEADLINE_WAITING;
}

void deadline_sent(struct deadline *d, uint64_t now)
{
	d->sent = now;
	d->phase = DEADLINE_SENT;
}

void deadline_head(struct deadline *d, uint64_t now)
{
	d->phase = DEADLINE_BODY;
	d->mark = now;
	d->window_ms = d->window_bytes = d->slow_ms = 0;
}

void deadline_bytes(struct deadline *d, size_t n)
{
	d->window_bytes += n;
}

void deadline_pause(struct deadline *d, uint64_t now)
{
	if (d->paused)
		return;
	d->paused = true;
	d->window_ms += now - d->mark;
}

void deadline_resume(struct deadline *d, uint64_t now)
{
	d->paused = false;
	d->mark = now;
}

static uint64_t until(uint64_t when, uint64_t now)
{
	return when > now ? when - now : 0;
}

uint64_t deadline_wait_ms(const struct deadline *d, uint64_t now)
{
	uint64_t ms = UINT64_MAX;

	if (d->late)
		return SECOND_LOOK_MS;
	if (d->total_ms > 0)
		ms = until(d->start + d->total_ms, now);
	if (d->phase == DEADLINE_SENT)
		ms = min_u64(ms, until(d->sent + d->first_byte_ms, now));
	if (d->phase == DEADLINE_BODY && !d->paused)
		ms = min_u64(ms, WINDOW_MS);
	return ms;
}

static bool too_slow(struct deadline *d, uint64_t now)
{
	uint64_t ms;

	if (!d->paused) {
		d->window_ms += now - d->mark;
		d->mark = now;
	}
	if (d->window_ms < WINDOW_MS)
		return false;
	ms = min_u64(d->window_ms, WINDOW_MAX_MS);
	if (d->window_bytes * 1000 < d->low_speed_bytes * ms)
		d->slow_ms += ms;
	else
		d->slow_ms = 0;
	d->window_ms = d->window_bytes = 0;
	return d->slow_ms >= d->low_speed_seconds * UINT64_C(1000);
}

const char *deadline_check(struct deadline *d, uint64_t now, char *why,
			   size_t why_size)
{
	bool total = d->total_ms > 0 && now >= d->start + d->total_ms;
	bool first =
		d->phase == DEADLINE_SENT && now >= d->sent + d->first_byte_ms;
	bool second_look = d->late;

	d->late = total || first;
	if (d->late && !second_look)
		return NULL;
	if (total)
		(void)snprintf(why, why_size, "not finished within %llu ms",
			       (unsigned long long)d->total_ms);
	else if (first)
		(void)snprintf(why, why_size,
			       "no response within %u ms of the request",
			       d->first_byte_ms);
	else if (d->phase == DEADLINE_BODY && too_slow(d, now))
		(void)snprintf(why, why_size,
			       "less than %u bytes a second for %u s",
			       d->low_speed_bytes, d->low_speed_seconds);
	else
		return NULL;
	return why;
}
