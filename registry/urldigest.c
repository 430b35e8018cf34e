#include "registry/urldigest.h"

#include <string.h>
#include <strings.h>

#define HEX_LEN (DIGEST_HEX_SIZE - 1)

/* A segment of the path; not NUL-terminated. */
struct segment {
	const char *s;
	size_t len;
};

/* Cuts off the last segment; *end then points at the slash before it. */
static bool last_segment(const char *path, const char **end,
			 struct segment *ret)
{
	const char *p = *end;

	while (p > path && p[-1] != '/')
		p--;
	if (p == path)
		return false;
	*ret = (struct segment){p, (size_t)(*end - p)};
	*end = p - 1;
	return true;
}

static bool is(const struct segment *g, const char *text)
{
	return g->len == strlen(text) && memcmp(g->s, text, g->len) == 0;
}

static bool parse_hex(const char *s, size_t len, struct digest *ret)
{
	char hex[DIGEST_HEX_SIZE];

	if (len != HEX_LEN)
		return false;
	memcpy(hex, s, len);
	hex[len] = '\0';
	return digest_parse_hex(hex, ret) == 0;
}

/* Parses "sha256:<hex>"; the colon may be percent-encoded. */
static bool parse_named(const struct segment *g, struct digest *ret)
{
	static const char *const names[] = {"sha256:", "sha256%3a"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		size_t n = strlen(names[i]);

		if (g->len > n && strncasecmp(g->s, names[i], n) == 0 &&
		    memcmp(g->s, "sha256", 6) == 0)
			return parse_hex(g->s + n, g->len - n, ret);
	}
	return false;
}

bool url_digest(const char *path, struct digest *ret)
{
	const char *end = path + strlen(path);
	struct segment g, aa, algorithm;

	if (!last_segment(path, &end, &g))
		return false;
	if (parse_named(&g, ret))
		return true;
	if (is(&g, "data") && !last_segment(path, &end, &g))
		return false;
	return last_segment(path, &end, &aa) &&
	       last_segment(path, &end, &algorithm) &&
	       is(&algorithm, "sha256") && aa.len == 2 &&
	       memcmp(aa.s, g.s, 2) == 0 && parse_hex(g.s, g.len, ret);
}
