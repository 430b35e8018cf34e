/* Absolute http and https URLs, split and put together. Source: RFC 3986.
 * Any thread. */
#ifndef HTTP_URL_H
#define HTTP_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define URL_MAX_BYTES 8192

struct url {
	char *scheme;  /* "http" or "https", lower case */
	char *host;    /* lower case; IPv6 without brackets */
	uint16_t port; /* the scheme's default when not given */
	bool port_given;
	char *path;  /* begins with '/', as it stood, percent-encoding and
			all, but with "." and ".." segments removed */
	char *query; /* without '?'; NULL if there is none */
};

/* -EINVAL: not an absolute http(s) URL; control bytes, spaces, user
 * information, or longer than URL_MAX_BYTES. The fragment is dropped. On 0
 * the caller owns the strings: url_release(). */
int url_parse(const char *s, struct url *ret);
void url_release(struct url *u);
/* Appends. authority: "host", "host:port" (only if not the default) with
 * brackets for IPv6. */
int url_authority(const struct url *u, struct buf *out);
int url_format(const struct url *u, bool with_query, struct buf *out);
/* What Location: `ref` means when it came from `base`. RFC 3986, 5.2. */
int url_resolve(const struct url *base, const char *ref, struct url *ret);
/* Same scheme, host and port. */
bool url_same_origin(const struct url *a, const struct url *b);
/* Appends s, with everything but unreserved characters and those in `keep`
 * percent-encoded. */
int url_encode(struct buf *out, const char *s, const char *keep);
/* In place; false on a malformed escape or an encoded NUL. */
bool url_decode(char *s);

#endif
