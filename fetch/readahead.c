#include "fetch/readahead.h"

#include "base/util.h"
#include "store/store.h"

/* Kernel read-ahead sends several requests of one stream at once. A request may
 * arrive up to so many bytes behind the stream's position. */
#define BEHIND	 (UINT64_C(4) << 20)
#define MAX_SKIP (UINT64_C(16) << 20)

static uint64_t chunk_up(uint64_t off)
{
	return (off + CHUNK_SIZE - 1) & ~(CHUNK_SIZE - 1);
}

static struct readahead_stream *find(struct readahead *ra, uint64_t off)
{
	struct readahead_stream *lru = &ra->s[0];

	for (int i = 0; i < READAHEAD_STREAMS; i++) {
		struct readahead_stream *s = &ra->s[i];
		uint64_t skip =
			min_u64(max_u64(s->window, CHUNK_SIZE), MAX_SKIP);

		if (s->next && off + BEHIND >= s->next && off <= s->next + skip)
			return s;
		if (s->used < lru->used)
			lru = s;
	}
	lru->next = 0;
	return lru;
}

/* The window of a reader that advanced by `step` since the last step. */
static uint64_t next_window(const struct readahead_stream *s, uint64_t step,
			    uint64_t max_window)
{
	uint64_t window = s->window;
	bool waits = s->next - s->waited <= window / 2;

	if (waits || window < READAHEAD_STEADY)
		window = max_u64(window + 2 * step, CHUNK_SIZE);
	else
		window -= min_u64(2 * step, window - READAHEAD_STEADY);
	return min_u64(window, max_u64(max_window, CHUNK_SIZE));
}

bool readahead_note(struct readahead *ra, uint64_t off, uint64_t len,
		    uint64_t size, uint64_t max_window, bool waited,
		    struct readahead_want *ret)
{
	struct readahead_stream *s = find(ra, off);
	uint64_t end = min_u64(off + len, size), step, want;

	s->used = ++ra->clock;
	if (!s->next) {
		*s = (struct readahead_stream){
			.next = end,
			.looked = end,
			.horizon = chunk_up(end),
			.used = s->used,
		};
		return false;
	}
	if (waited)
		s->waited = max_u64(s->next, end);
	if (end <= s->next) /* out of order, or read again */
		return false;
	s->next = end;
	if (s->horizon < end)
		s->horizon = chunk_up(end);
	step = end - s->looked;
	if (s->horizon >= size ||
	    (s->window && step < max_u64(s->window / 8, CHUNK_SIZE)))
		return false;
	s->window = next_window(s, step, max_window);
	s->looked = end;
	ret->steady = s->window >= min_u64(READAHEAD_STEADY, max_window);
	want = min_u64(chunk_up(end + s->window), chunk_up(size));
	if (want <= s->horizon)
		return false;
	ret->off = s->horizon;
	ret->len = min_u64(want, size) - s->horizon;
	s->horizon = want;
	return true;
}
