#include "http/url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/text.h"

#define HOST_MAX_BYTES 255

static uint16_t default_port(const char *scheme)
{
	return strcmp(scheme, "https") == 0 ? 443 : 80;
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9');
}

/* RFC 3986, 2.3. */
static bool is_unreserved(char c)
{
	return is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

static char *dup_lower(const char *s, size_t len)
{
	char *d = strndup(s, len);

	for (char *p = d; p && *p; p++)
		*p = (char)tolower((unsigned char)*p);
	return d;
}

/* Bytes from 0x80 on pass, since servers send raw UTF-8 in Location. */
static bool bytes_allowed(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c <= 0x20 || c == 0x7f)
			return false;
	}
	return true;
}

/* RFC 3986, 5.2.4, in place; the path begins with '/'. */
static void remove_dot_segments(char *path)
{
	char *out = path; /* path..out is done: it has no dot segment */
	const char *in = path;

	while (*in) {
		size_t n = 1 + strcspn(in + 1, "/"); /* '/' and a segment */
		bool last = in[n] == '\0';

		if (n == 2 && in[1] == '.') {
			if (last)
				*out++ = '/';
		} else if (n == 3 && in[1] == '.' && in[2] == '.') {
			while (out > path && *--out != '/')
				;
			if (last)
				*out++ = '/';
		} else {
			memmove(out, in, n);
			out += n;
		}
		in += n;
	}
	*out = '\0';
}

static int parse_host(const char *s, size_t len, char **ret)
{
	struct in6_addr addr;
	char *host;

	if (len >= 2 && s[0] == '[' && s[len - 1] == ']') {
		s++;
		len -= 2;
		host = len < INET6_ADDRSTRLEN ? dup_lower(s, len) : NULL;
		if (len < INET6_ADDRSTRLEN && !host)
			return -ENOMEM;
		if (!host || inet_pton(AF_INET6, host, &addr) != 1) {
			free(host);
			return -EINVAL;
		}
		*ret = host;
		return 0;
	}
	if (len == 0 || len > HOST_MAX_BYTES)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		if (!is_unreserved(s[i]))
			return -EINVAL;
	*ret = dup_lower(s, len);
	return *ret ? 0 : -ENOMEM;
}

/* An empty port means the default one. RFC 3986, 3.2.3. */
static int parse_port(const char *s, size_t len, struct url *u)
{
	unsigned int port = 0;

	if (len == 0)
		return 0;
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -EINVAL;
		port = port * 10 + (unsigned int)(s[i] - '0');
		if (port > UINT16_MAX)
			return -EINVAL;
	}
	if (port == 0)
		return -EINVAL;
	u->port = (uint16_t)port;
	u->port_given = true;
	return 0;
}

static int parse_authority(const char *s, size_t len, struct url *u)
{
	size_t host_len = len;
	int r;

	if (len > 0 && s[0] == '[') {
		const char *end = memchr(s, ']', len);

		if (!end)
			return -EINVAL;
		host_len = (size_t)(end - s) + 1;
	} else {
		const char *colon = memchr(s, ':', len);

		if (colon)
			host_len = (size_t)(colon - s);
	}
	if (host_len < len && s[host_len] != ':')
		return -EINVAL;
	if (host_len < len) {
		r = parse_port(s + host_len + 1, len - host_len - 1, u);
		if (r < 0)
			return r;
	}
	return parse_host(s, host_len, &u->host);
}

int url_parse(const char *s, struct url *ret)
{
	CLEANUP(url_release) struct url u = {0};
	size_t len = strnlen(s, URL_MAX_BYTES + 1), n;
	const char *scheme;
	int r;

	if (len > URL_MAX_BYTES || !bytes_allowed(s, len))
		return -EINVAL;
	if (strncasecmp(s, "http://", 7) == 0)
		scheme = "http";
	else if (strncasecmp(s, "https://", 8) == 0)
		scheme = "https";
	else
		return -EINVAL;
	u.scheme = strdup(scheme);
	if (!u.scheme)
		return -ENOMEM;
	u.port = default_port(scheme);

	s += strlen(scheme) + 3;
	n = strcspn(s, "/?#");
	r = parse_authority(s, n, &u);
	if (r < 0)
		return r;

	s += n;
	/* The output of url_format() must parse, too. */
	if (*s != '/' && len == URL_MAX_BYTES)
		return -EINVAL;
	n = strcspn(s, "?#");
	u.path = n > 0 ? strndup(s, n) : strdup("/");
	if (!u.path)
		return -ENOMEM;
	remove_dot_segments(u.path);

	s += n;
	if (*s == '?') {
		u.query = strndup(s + 1, strcspn(s + 1, "#"));
		if (!u.query)
			return -ENOMEM;
	}
	*ret = u;
	u = (struct url){0};
	return 0;
}

void url_release(struct url *u)
{
	free(u->scheme);
	free(u->host);
	free(u->path);
	free(u->query);
	*u = (struct url){0};
}

int url_authority(const struct url *u, struct buf *out)
{
	bool v6 = strchr(u->host, ':') != NULL;
	const char *open = v6 ? "[" : "", *close = v6 ? "]" : "";

	if (u->port == default_port(u->scheme))
		return buf_printf(out, "%s%s%s", open, u->host, close);
	return buf_printf(out, "%s%s%s:%u", open, u->host, close, u->port);
}

int url_format(const struct url *u, bool with_query, struct buf *out)
{
	int r;

	r = buf_printf(out, "%s://", u->scheme);
	if (r == 0)
		r = url_authority(u, out);
	if (r == 0)
		r = buf_str(out, u->path);
	if (r == 0 && with_query && u->query)
		r = buf_printf(out, "?%s", u->query);
	return r;
}

/* RFC 3986, 3.1. */
static bool has_scheme(const char *ref)
{
	size_t n = 0;

	while (is_alnum(ref[n]) || (ref[n] && strchr("+-.", ref[n])))
		n++;
	return n > 0 && ref[n] == ':' && isalpha((unsigned char)ref[0]);
}

/* The URL as text, with its dot segments: RFC 3986, 5.2.2 (which parts come
 * from the reference and which from the base) and 5.2.3 ("merge"). */
static int join(const struct url *base, const char *ref, struct buf *out)
{
	bool whole_path = *ref == '\0' || *ref == '?' || *ref == '#';
	int r;

	if (ref[0] == '/' && ref[1] == '/')
		return buf_printf(out, "%s:%s", base->scheme, ref);
	r = buf_printf(out, "%s://", base->scheme);
	if (r == 0)
		r = url_authority(base, out);
	if (r == 0 && whole_path) {
		r = buf_str(out, base->path);
		if (r == 0 && *ref != '?' && base->query)
			r = buf_printf(out, "?%s", base->query);
	} else if (r == 0 && *ref != '/') {
		const char *slash = strrchr(base->path, '/');

		r = buf_add(out, base->path, (size_t)(slash - base->path) + 1);
	}
	return r < 0 ? r : buf_str(out, ref);
}

int url_resolve(const struct url *base, const char *ref, struct url *ret)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(2 * URL_MAX_BYTES);
	int r;

	if (strnlen(ref, URL_MAX_BYTES + 1) > URL_MAX_BYTES)
		return -EINVAL;
	if (has_scheme(ref))
		return url_parse(ref, ret);
	r = join(base, ref, &b);
	if (r < 0)
		return r == -EMSGSIZE ? -EINVAL : r;
	return url_parse(b.data, ret);
}

bool url_same_origin(const struct url *a, const struct url *b)
{
	return a->port == b->port && strcmp(a->scheme, b->scheme) == 0 &&
	       strcmp(a->host, b->host) == 0;
}

int url_encode(struct buf *out, const char *s, const char *keep)
{
	size_t old = out->len;

	for (; *s; s++) {
		int r;

		if (is_unreserved(*s) || strchr(keep, *s))
			r = buf_add(out, s, 1);
		else
			r = buf_printf(out, "%%%02X", (unsigned char)*s);
		if (r < 0) {
			out->len = old;
			if (out->data)
				out->data[old] = '\0';
			return r;
		}
	}
	return 0;
}

bool url_decode(char *s)
{
	char *out = s;

	for (const char *in = s; *in; in++) {
		int hi, lo;

		if (*in != '%')
			continue;
		hi = hex_value(in[1]);
		lo = hi < 0 ? -1 : hex_value(in[2]);
		if (lo < 0 || (hi == 0 && lo == 0))
			return false;
	}
	for (const char *in = s; *in; in++) {
		if (*in == '%') {
			*out++ = (char)(hex_value(in[1]) << 4 |
					hex_value(in[2]));
			in += 2;
		} else {
			*out++ = *in;
		}
	}
	*out = '\0';
	return true;
}
