/* The head of a response: status line and header fields, collected line by
 * line within limits. Source: RFC 9110, section 5; RFC 9112, sections 4 and 5.
 * No I/O; not thread-safe. */
#ifndef HTTP_HEAD_H
#define HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define HEAD_MAX_BYTES	65536
#define HEAD_MAX_FIELDS 256

struct head {
	int status;
	int64_t content_length; /* -1: not given, or chunked */
	bool complete;
	/* Private. */
	bool chunked;
	unsigned int nfields;
	struct buf text; /* names and values, each with its NUL */
	struct {
		uint32_t name, value; /* offsets in text */
	} field[HEAD_MAX_FIELDS];
};

void head_init(struct head *h);
void head_release(struct head *h);

/* One line, its CR LF included or not; an empty line ends the head. A status
 * line starts over, so that what an interim response (1xx) said is forgotten.
 * Returns 1 when this line completed the final head, 0 when not, -EPROTO for
 * bytes that are no HTTP or pass a limit, -ENOMEM. Not to be called again once
 * complete. */
int head_add(struct head *h, const char *line, size_t len);

/* One line of the trailer section, into a struct of its own. The fields must
 * not be taken for those of the head: RFC 9110, 6.5.1. 0, -EPROTO, -ENOMEM. */
int head_add_trailer(struct head *h, const char *line, size_t len);

/* The i-th value of that name, case ignored; NULL if there is none. Borrowed
 * until the next head_add() or head_release(). */
const char *head_get(const struct head *h, const char *name, size_t i);

#endif
