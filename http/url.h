/* Parses and formats absolute http and https URLs. Source: RFC 3986. Any
 * thread. */
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
	uint16_t port; /* the scheme's default if not given */
	bool port_given;
	/* Begins with '/'. As given, with its percent-encoding, but without "."
	 * and ".." segments. */
	char *path;
	char *query; /* without '?'; NULL if absent */
};

/* Parses a URL; drops the fragment. On 0 the caller owns the strings and frees
 * them with url_release(). -EINVAL: not an absolute http(s) URL, longer than
 * URL_MAX_BYTES, or with control bytes, spaces or user information. -ENOMEM. */
int url_parse(const char *s, struct url *ret);
void url_release(struct url *u);
/* Both append to out. The authority is "host" or, unless the port is the
 * default, "host:port", with brackets around an IPv6 address. */
int url_authority(const struct url *u, struct buf *out);
int url_format(const struct url *u, bool with_query, struct buf *out);
/* Resolves the reference `ref` (of a Location header) against `base`. RFC 3986,
 * 5.2. Errors as url_parse(). */
int url_resolve(const struct url *base, const char *ref, struct url *ret);
/* True if scheme, host and port are the same. */
bool url_same_origin(const struct url *a, const struct url *b);
/* Appends s; percent-encodes all but unreserved characters and those in
 * `keep`. */
int url_encode(struct buf *out, const char *s, const char *keep);
/* Decodes in place. False on a malformed escape or an encoded NUL; s is
 * unchanged then. */
bool url_decode(char *s);

#endif
