/* Parses Range and Content-Range. Source: RFC 9110, section 14. Any thread; no
 * allocation. */
#ifndef HTTP_RANGE_H
#define HTTP_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A header with more ranges is refused (RFC 9110, 17.15). */
#define RANGE_MAX 64

struct byte_range {
	uint64_t off;
	uint64_t len; /* > 0 */
};

/* Parses the value of a Range header ("bytes=0-99", "bytes=5-", "bytes=-3",
 * several with commas) against a representation of `size` bytes. Returns the
 * number of satisfiable ranges, which are in out in the order given. Ranges
 * that overlap are merged, at the place of the first (RFC 9110, 15.3.7.2), so
 * that no byte is sent twice. -ERANGE: none is satisfiable (416). -EINVAL:
 * malformed or not a byte range; the caller ignores the header (RFC 9110,
 * 14.2). -E2BIG: more than RANGE_MAX ranges. */
int range_parse(const char *value, uint64_t size,
		struct byte_range out[RANGE_MAX]);

/* Parses "bytes 0-99/200". *ret_last is inclusive; *ret_total is UINT64_MAX for
 * "*". -EINVAL for anything else, also for the "bytes * /200" of a 416. */
int content_range_parse(const char *value, uint64_t *ret_first,
			uint64_t *ret_last, uint64_t *ret_total);

#endif
