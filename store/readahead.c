#include "store/readahead.h"

#include "base/util.h"
#include "store/store.h"

/* Kernel read-ahead sends requests of one stream side by side, so that they
 * may arrive this much out of order. */
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

bool readahead_note(struct readahead *ra, uint64_t off, uint64_t len,
		    uint64_t size, uint64_t max_window, uint64_t *ret_off,
		    uint64_t *ret_len)
{
	struct readahead_stream *s = find(ra, off);
	uint64_t end = min_u64(off + len, size), want;

	s->used = ++ra->clock;
	if (!s->next) {
		s->next = end;
		s->window = 0;
		s->horizon = chunk_up(end);
		return false;
	}
	if (end <= s->next) /* out of order, or read again */
		return false;
	s->next = end;
	if (s->horizon < end)
		s->horizon = chunk_up(end);
	if (s->horizon >= size || end + s->window / 2 < s->horizon)
		return false;
	s->window = min_u64(max_u64(s->window * 2, CHUNK_SIZE), max_window);
	want = min_u64(chunk_up(end + s->window), chunk_up(size));
	if (want <= s->horizon)
		return false;
	*ret_off = s->horizon;
	*ret_len = min_u64(want, size) - s->horizon;
	s->horizon = want;
	return true;
}
