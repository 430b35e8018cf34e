/* Input: a base URL, a newline, a reference. A URL that parses must be the same
 * after writing and parsing it again; encoding and decoding are inverse. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "http/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(const char *a, const char *b)
{
	return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static void check_url(const struct url *u)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(URL_MAX_BYTES);
	CLEANUP(buf_release) struct buf bare = BUF_INIT(URL_MAX_BYTES);
	CLEANUP(url_release) struct url again = {0};
	size_t n;

	BUG_ON(url_format(u, true, &b) != 0);
	BUG_ON(url_parse(b.data, &again) != 0);
	BUG_ON(!same(u->scheme, again.scheme) || !same(u->host, again.host));
	BUG_ON(!same(u->path, again.path) || !same(u->query, again.query));
	BUG_ON(u->port != again.port || u->port == 0);
	BUG_ON(!url_same_origin(u, &again));
	BUG_ON(u->path[0] != '/' || strchr(u->path, '?'));
	BUG_ON(strstr(u->path, "/../") || strstr(u->path, "/./"));
	n = strlen(u->path);
	BUG_ON(n >= 3 && strcmp(u->path + n - 3, "/..") == 0);
	BUG_ON(strpbrk(u->host, "@/\\ ?#%"));
	BUG_ON(strpbrk(b.data, " \t\r\n#"));
	BUG_ON(url_format(u, false, &bare) != 0);
	BUG_ON(strchr(bare.data, '?'));
}

static void check_escapes(const char *s)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(1 << 20);
	CLEANUP(freep) char *d = strdup(s);

	if (!*s)
		return;
	BUG_ON(url_encode(&b, s, "/") != 0);
	BUG_ON(!url_decode(b.data) || strcmp(b.data, s) != 0);
	if (url_decode(d))
		BUG_ON(strlen(d) > strlen(s));
	else
		BUG_ON(strcmp(d, s) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(freep) char *s = strndup((const char *)data, size);
	CLEANUP(url_release) struct url base = {0}, u = {0}, v = {0};
	char *ref = strchr(s, '\n');

	check_escapes(s);
	if (ref)
		*ref++ = '\0';
	if (url_parse(s, &base) < 0)
		return 0;
	check_url(&base);
	if (ref && url_resolve(&base, ref, &u) == 0)
		check_url(&u);
	/* An empty reference is the base itself. */
	BUG_ON(url_resolve(&base, "", &v) != 0);
	BUG_ON(!same(base.path, v.path) || !same(base.query, v.query));
	return 0;
}
