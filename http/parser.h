/* The head of an HTTP/1.x request, and chunked bodies, from bytes. Pure: no
 * I/O, no clock, no allocation. Any thread.
 *
 * llhttp (included in parser.c only) splits the head, in its strict mode. Two
 * readers of one connection that disagree on where a request ends let one
 * client speak in another's name (RFC 9112, section 11.2). Refused, therefore:
 * line ends other than CR LF, control bytes, folded lines, blanks around field
 * names, Content-Length beside Transfer-Encoding, several Content-Lengths, no
 * Host or several. llhttp 8.1 (Debian 12) accepts folded lines and empty field
 * names; http_head_find() refuses the former, http_head_parse() the latter. */
#ifndef HTTP_PARSER_H
#define HTTP_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_MAX_FIELDS 100
/* llhttp has no limit. */
#define HTTP_MAX_HEAD (64U << 10)

/* Offsets into the head's bytes, where name and value end in NUL. */
struct http_field {
	uint32_t name, value;
	uint16_t name_len, value_len;
};

struct http_head {
	const char *method; /* static */
	uint32_t target;    /* offset; ends in NUL; '/' first, or "*" */
	uint32_t target_len;
	uint32_t path_len; /* of the target, up to '?' */
	uint8_t minor;	   /* HTTP/1.minor: 0, or 1 for 1 and above */
	bool is_head;
	bool keep_alive;
	bool chunked;
	bool expect_continue;
	uint64_t content_length; /* 0 without */
	uint32_t n_fields;
	struct http_field fields[HTTP_MAX_FIELDS];
};

/* Looks for the empty line that ends a head which begins at bytes[0]. *pos is
 * 0 at first and remembers how far it was looked at, when more bytes come.
 * 0: *ret_len is the length, empty line included. -EAGAIN: no end yet.
 * -EBADMSG: this can never become a head. */
int http_head_find(const char *bytes, size_t len, size_t *pos, size_t *ret_len);

/* Parses a head of the length that http_head_find() gave. Writes NULs into the
 * bytes, also when it fails. Returns 0, or the status to refuse it with: 400,
 * 414 (target longer than max_target), 417, 431, 501, 505; 400 comes first when
 * llhttp finds a fault. Fields of *ret
 * that were not reached are zero, except minor, which is 1. */
int http_head_parse(char *bytes, size_t len, size_t max_target,
		    struct http_head *ret);

/* A chunked body. Zeroed, it is ready for a body's first byte. */
struct http_chunked {
	int state;
	uint64_t left; /* of the chunk's data */
	uint32_t digits;
	uint32_t extra; /* bytes of extensions and trailers */
};

/* Takes bytes until some belong to the body (*ret_data, *ret_len, which point
 * into `bytes`), the body ends, or no bytes are left; *ret_used is how many
 * were taken. Trailers are dropped. 1: the body is complete; 0: call again
 * with the bytes after those used; -EBADMSG: malformed. */
int http_chunked_next(struct http_chunked *d, const char *bytes, size_t len,
		      size_t *ret_used, const char **ret_data, size_t *ret_len);

/* "Not Found"; "Unknown" for a status that is not registered. */
const char *http_status_phrase(int status);

#endif
