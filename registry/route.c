/* Routes: whether a blob's bytes are at its origin, or at the target of the
 * origin's redirect. */
#include <string.h>
#include <strings.h>

#include "registry/registry-private.h"

#define LIFETIME_DEFAULT_S 300
#define LIFETIME_MIN_S	   30
#define LIFETIME_MAX_S	   3600

/* Writes a query parameter's decoded value to out. False if it is absent,
 * malformed, or does not fit. */
static bool get_param(const char *query, const char *name, char *out,
		      size_t size)
{
	size_t len = strlen(name);

	for (const char *p = query; p; p = strchr(p, '&')) {
		size_t n;

		p += *p == '&';
		if (strncasecmp(p, name, len) != 0 || p[len] != '=')
			continue;
		p += len + 1;
		n = strcspn(p, "&");
		if (n >= size)
			return false;
		memcpy(out, p, n);
		out[n] = '\0';
		return url_decode(out);
	}
	return false;
}

static bool parse_time(const char *s, const char *format, uint64_t *ret)
{
	struct tm tm = {0};
	const char *end = strptime(s, format, &tm);
	time_t t;

	if (!end || (*end && *end != 'Z' && *end != '.'))
		return false;
	t = timegm(&tm);
	if (t < 0)
		return false;
	*ret = (uint64_t)t;
	return true;
}

/* Signatures of Amazon and Google: a start time and a duration in seconds. */
static bool signed_expiry(const char *query, const char *date_name,
			  const char *expires_name, uint64_t *ret)
{
	char date[64], expires[32];
	uint64_t start, len;

	if (!get_param(query, date_name, date, sizeof(date)) ||
	    !get_param(query, expires_name, expires, sizeof(expires)) ||
	    !parse_time(date, "%Y%m%dT%H%M%S", &start) ||
	    parse_u64(expires, &len) < 0 || len > UINT32_MAX)
		return false;
	*ret = start + len;
	return true;
}

static bool find_expiry(const char *query, uint64_t *ret)
{
	char v[64];

	if (signed_expiry(query, "X-Amz-Date", "X-Amz-Expires", ret) ||
	    signed_expiry(query, "X-Goog-Date", "X-Goog-Expires", ret))
		return true;
	/* Azure's shared access signatures: the end time. */
	if (get_param(query, "se", v, sizeof(v)) &&
	    (parse_time(v, "%Y-%m-%dT%H:%M:%S", ret) ||
	     parse_time(v, "%Y-%m-%dT%H:%M", ret) ||
	     parse_time(v, "%Y-%m-%d", ret)))
		return true;
	/* CloudFront, and older signatures of Amazon and Google: Unix time. */
	return get_param(query, "Expires", v, sizeof(v)) &&
	       parse_u64(v, ret) == 0;
}

uint64_t route_lifetime_ms(const char *query, uint64_t now_s)
{
	uint64_t at, life = LIFETIME_DEFAULT_S;

	/* Nine tenths of the lifetime leave room for clocks that differ. A
	 * target that is used too long costs one refused request, nothing
	 * else. */
	if (query && find_expiry(query, &at))
		life = at > now_s ? (at - now_s) / 10 * 9 : 0;
	life = min_u64(max_u64(life, LIFETIME_MIN_S), LIFETIME_MAX_S);
	return life * 1000;
}

const char *origin_repo(const char *origin)
{
	size_t n = strlen(REGISTRY_PREFIX);

	return strncmp(origin, REGISTRY_PREFIX, n) == 0 ? origin + n : NULL;
}

char *repo_host(const char *repo)
{
	return strndup(repo, strcspn(repo, "/"));
}

char *route_key(const struct blob_key *key, const char *origin, const char *tag)
{
	char hex[DIGEST_HEX_SIZE];
	char *s;

	if (asprintf(&s, "%d:%s %s%s%s", (int)key->kind,
		     digest_hex(&key->id, hex), origin, tag ? " " : "",
		     tag ? tag : "") < 0)
		return NULL;
	return s;
}

void route_forget(struct route *rt)
{
	free(rt->target);
	rt->target = NULL;
	rt->state = ROUTE_UNKNOWN;
}

static void route_del(struct registry *r, struct route *rt)
{
	name_table_del(&r->routes, &rt->node);
	free(rt->target);
	free(rt);
}

static void trim(struct registry *r)
{
	if (r->routes.n < MAX_ROUTES)
		return;
	name_table_for_each_safe(it, &r->routes)
	{
		struct route *rt = name_table_at(it, struct route, node);

		if (rt->refs == 0) {
			route_del(r, rt);
			return;
		}
	}
}

struct route *route_by_number(struct registry *r, uint64_t number)
{
	name_table_for_each_safe(it, &r->routes)
	{
		struct route *rt = name_table_at(it, struct route, node);

		if (rt->number == number)
			return rt;
	}
	return NULL;
}

int route_get(struct registry *r, const struct blob_key *key,
	      const char *origin, const char *tag, struct route **ret)
{
	CLEANUP(freep) char *k = route_key(key, origin, tag);
	struct name_node *tn;
	struct route *rt;

	if (!k)
		return -ENOMEM;
	tn = name_table_find(&r->routes, k);
	if (tn) {
		rt = name_table_entry(tn, struct route, node);
	} else {
		trim(r);
		rt = calloc(1, sizeof(*rt));
		if (!rt)
			return -ENOMEM;
		list_init(&rt->waiters);
		rt->number = ++r->route_numbers;
		if (name_table_add(&r->routes, &rt->node, k) < 0) {
			free(rt);
			return -ENOMEM;
		}
	}
	rt->refs++;
	*ret = rt;
	return 0;
}

void route_unref(struct registry *r, struct route **prt)
{
	struct route *rt = *prt;

	*prt = NULL;
	if (rt && --rt->refs == 0 && r->routes.n > MAX_ROUTES)
		route_del(r, rt);
}

enum route_state route_now(struct route *rt)
{
	if (rt->state == ROUTE_TARGET && now_ms() >= rt->expires_ms)
		route_forget(rt);
	return rt->state;
}

void route_set_direct(struct route *rt)
{
	route_forget(rt);
	rt->state = ROUTE_DIRECT;
}

void route_set_target(struct route *rt, const struct url *target)
{
	struct buf b = BUF_INIT(URL_MAX_BYTES + 64);

	route_forget(rt);
	if (url_format(target, true, &b) < 0) {
		buf_release(&b);
		return;
	}
	rt->target = buf_steal(&b);
	if (!rt->target)
		return;
	rt->state = ROUTE_TARGET;
	rt->expires_ms =
		now_ms() + route_lifetime_ms(target->query, now_unix_s());
}

void routes_release(struct registry *r)
{
	name_table_for_each_safe(it, &r->routes)
		route_del(r, name_table_at(it, struct route, node));
}
