#include "registry/client-auth.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "base/cleanup.h"

static void auth_free(struct source_auth *base)
{
	struct client_auth *a = container_of(base, struct client_auth, base);

	free(a->value);
	free(a->url);
	free(a->origin);
	free(a);
}

/* Requires one blank, then visible ASCII without commas: a comma joins several
 * headers of one name. */
static bool is_passed_on(const char *value)
{
	size_t scheme = strcspn(value, " ");
	const char *p = value + scheme + 1;

	if (!(scheme == 5 && strncasecmp(value, "Basic", 5) == 0) &&
	    !(scheme == 6 && strncasecmp(value, "Bearer", 6) == 0))
		return false;
	if (!value[scheme] || !*p || strlen(value) > CLIENT_AUTH_MAX_BYTES)
		return false;
	while (*p > ' ' && *p <= '~' && *p != ',')
		p++;
	return !*p;
}

/* The salt prevents that somebody who sees a tag tries out credentials against
 * it. */
static int set_id(struct client_auth *a)
{
	static uint8_t salt[32];
	static bool salted;
	struct sha256 *h;

	if (!salted && getrandom(salt, sizeof(salt), 0) != sizeof(salt))
		return -EIO;
	salted = true;
	h = sha256_new();
	if (!h)
		return -ENOMEM;
	sha256_update(h, salt, sizeof(salt));
	sha256_update(h, a->url, strlen(a->url) + 1);
	sha256_update(h, a->value, strlen(a->value));
	sha256_final(h, &a->base.id);
	sha256_free(&h);
	(void)digest_hex(&a->base.id, a->tag);
	return 0;
}

static int fill(struct client_auth *a, const struct url *url, const char *value)
{
	CLEANUP(buf_release) struct buf whole = BUF_INIT(URL_MAX_BYTES + 64);
	CLEANUP(buf_release) struct buf origin = BUF_INIT(URL_MAX_BYTES + 64);
	int r = url_format(url, true, &whole);

	if (r == 0)
		r = url_format(url, false, &origin);
	if (r < 0)
		return r;
	a->value = strdup(value);
	a->url = buf_steal(&whole);
	a->origin = buf_steal(&origin);
	return a->value && a->url && a->origin ? set_id(a) : -ENOMEM;
}

int client_auth_new(const struct url *url, const char *value,
		    struct client_auth **ret)
{
	struct client_auth *a;
	int r;

	if (!is_passed_on(value))
		return -EINVAL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->base.refs = 1;
	a->base.until_ms = UINT64_MAX;
	a->base.free = auth_free;
	r = fill(a, url, value);
	if (r < 0)
		auth_free(&a->base);
	else
		*ret = a;
	return r;
}

void client_auth_over(struct client_auth *a)
{
	a->base.until_ms = now_ms() + CLIENT_AUTH_LINGER_MS;
}

void client_auth_end(struct client_auth **pa)
{
	struct client_auth *a = *pa;
	struct source_auth *base;

	*pa = NULL;
	if (!a)
		return;
	client_auth_over(a);
	base = &a->base;
	source_auth_unref(&base);
}

struct client_auth *client_auth_of(struct source_auth *a)
{
	return a ? container_of(a, struct client_auth, base) : NULL;
}

void client_auth_challenge(const struct client_auth *a, struct http_req *rq)
{
	http_header_add(rq, "WWW-Authenticate", "%.*s realm=\"upstream\"",
			(int)strcspn(a->value, " "), a->value);
}
