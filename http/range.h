/* Range, Content-Range and If-Range arithmetic. Source: RFC 9110, section 14.
 * Any thread; no allocation. */
#ifndef HTTP_RANGE_H
#define HTTP_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More ranges in one header than this are refused (RFC 9110, 17.15). */
#define RANGE_MAX 64

struct byte_range {
	uint64_t off;
	uint64_t len; /* > 0 */
};

/* Parses the value of a Range header against a representation of `size`
 * bytes: "bytes=0-99", "bytes=5-", "bytes=-3", several with commas. Returns
 * the number of satisfiable ranges put into out, in the order given; those that
 * overlap are one (RFC 9110, 15.3.7.2), so that no byte is sent twice. -ERANGE:
 * none is satisfiable (416). -EINVAL: not a byte range or malformed: the header
 * is to be ignored (RFC 9110, 14.2). -E2BIG: more than RANGE_MAX ranges. */
int range_parse(const char *value, uint64_t size,
		struct byte_range out[RANGE_MAX]);

/* "bytes 0-99/200". *ret_total is UINT64_MAX for "*". -EINVAL for anything
 * else, "bytes * /200" (a 416's) included. */
int content_range_parse(const char *value, uint64_t *ret_first,
			uint64_t *ret_last, uint64_t *ret_total);

#endif
