/* The head of a response: status line and header fields, collected line by line
 * within limits. Sources: RFC 9110, section 5; RFC 9112, sections 4 and 5. No
 * I/O; not thread-safe. */
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

/* Adds one line, with or without its CR LF; an empty line ends the head. A
 * status line starts the head anew, so that the fields of an interim response
 * (1xx) are dropped. Returns 1 if this line completed the final head, 0 if not,
 * -EPROTO for bytes that are not HTTP or exceed a limit, -ENOMEM. Must not be
 * called once the head is complete. */
int head_add(struct head *h, const char *line, size_t len);

/* Adds one line of the trailer section to a struct of its own, because trailer
 * fields must not be merged into the head: RFC 9110, 6.5.1. 0, -EPROTO,
 * -ENOMEM. */
int head_add_trailer(struct head *h, const char *line, size_t len);

/* The i-th value of a field name, ignoring case; NULL if there is none.
 * Borrowed until the next head_add() or head_release(). */
const char *head_get(const struct head *h, const char *name, size_t i);

#endif
