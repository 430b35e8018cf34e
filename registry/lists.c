/* Lists as the registry answers them: tags, referrers, the catalog.
 *
 * A list of status 2xx is kept in memory: it is fresh for tag_fresh_ms, and
 * served stale when the registry does not answer. All other answers are passed
 * on to those who wait, and not kept. */
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "registry/registry-private.h"

/* The largest list; as for manifests, of which a list of referrers is one. */
#define LIST_MAX_BYTES MANIFEST_MAX_BYTES
/* All lists that are kept. */
#define LISTS_MAX_BYTES ((size_t)16 << 20)
#define MAX_LISTS	1024

struct list_entry {
	struct name_node node; /* in registry.lists, by query key */
	uint32_t refs;	       /* of the table, and of queries */
	uint64_t fetched_ms;
	size_t bytes; /* counted in registry.lists_bytes */
	int status;
	char *type, *next, *filters; /* as in struct list_result */
	void *body;
	size_t len;
};

struct list_query {
	struct query f;
	char *path; /* behind "/v2/", with the query */
	bool referrers;
	uint64_t auth_generation; /* at the start */
	struct list_entry *known; /* referenced; NULL: none */
	struct list_entry *got;	  /* referenced; NULL: none yet */
	bool stale;
};

static struct list_query *of(struct query *f)
{
	return container_of(f, struct list_query, f);
}

/* ---- What is kept ---- */

static void entry_unref(struct list_entry **pe)
{
	struct list_entry *e = *pe;

	*pe = NULL;
	if (!e || --e->refs)
		return;
	free(e->type);
	free(e->next);
	free(e->filters);
	free(e->body);
	free(e);
}

static void list_forget(struct registry *r, struct list_entry *e)
{
	r->lists_bytes -= e->bytes;
	name_table_del(&r->lists, &e->node);
	entry_unref(&e);
}

void lists_release(struct registry *r)
{
	name_table_for_each_safe(it, &r->lists)
		list_forget(r, name_table_at(it, struct list_entry, node));
}

/* Borrowed; NULL: none. */
static struct list_entry *list_find(struct registry *r, const char *key)
{
	struct name_node *tn = name_table_find(&r->lists, key);

	return tn ? name_table_entry(tn, struct list_entry, node) : NULL;
}

static void list_drop(struct registry *r, const char *key)
{
	struct list_entry *e = list_find(r, key);

	if (e)
		list_forget(r, e);
}

static size_t size_or_0(const char *s)
{
	return s ? strlen(s) : 0;
}

/* Without memory the list is not kept, but served all the same. */
static void list_keep(struct registry *r, const char *key, struct list_entry *e)
{
	list_drop(r, key);
	e->bytes = sizeof(*e) + strlen(key) + e->len + size_or_0(e->type) +
		   size_or_0(e->next) + size_or_0(e->filters);
	while (r->lists.n && (r->lists.n >= MAX_LISTS ||
			      r->lists_bytes + e->bytes > LISTS_MAX_BYTES))
		list_forget(r, name_table_first(&r->lists, struct list_entry,
						node));
	if (name_table_add(&r->lists, &e->node, key) < 0)
		return;
	e->refs++;
	r->lists_bytes += e->bytes;
}

/* ---- The next page ---- */

/* The element of a Link header that `p` points to. Returns what comes behind
 * it; NULL: no element is left, or it is malformed. */
static const char *link_element(const char *p, const char **ret_url,
				size_t *ret_len, bool *ret_next)
{
	const char *end;

	p += strspn(p, ", \t");
	end = *p == '<' ? strchr(p, '>') : NULL;
	if (!end)
		return NULL;
	*ret_url = p + 1;
	*ret_len = (size_t)(end - p - 1);
	p = end + 1 + strcspn(end + 1, ",");
	end++;
	*ret_next = false;
	for (; end < p && !*ret_next; end++)
		*ret_next = strncasecmp(end, "rel=\"next\"", 10) == 0 ||
			    strncasecmp(end, "rel=next", 8) == 0;
	return p;
}

int call_next_page(struct call *c, struct url *ret)
{
	const char *v, *url;
	size_t len;
	bool next;

	for (size_t i = 0; (v = call_header(c, "Link", i)); i++) {
		while ((v = link_element(v, &url, &len, &next))) {
			CLEANUP(freep) char *ref = NULL;

			if (!next)
				continue;
			ref = strndup(url, len);
			if (!ref)
				return -ENOMEM;
			return url_resolve(&c->at, ref, ret) < 0 ? -EBADMSG : 1;
		}
	}
	return 0;
}

/* *ret: the path and query of the next page on this registry, or the whole URL
 * of one that is elsewhere; NULL: this is the last one. */
static int next_page(struct call *c, char **ret)
{
	CLEANUP(url_release) struct url u = {0}, start = {0};
	CLEANUP(buf_release) struct buf b = BUF_INIT(URL_MAX_BYTES + 64);
	int r = call_next_page(c, &u);

	if (r <= 0)
		return r;
	if (url_parse(c->start, &start) < 0)
		return -ENOMEM;
	if (!url_same_origin(&start, &u))
		r = url_format(&u, true, &b);
	else
		r = buf_printf(&b, "%s%s%s", u.path, u.query ? "?" : "",
			       u.query ? u.query : "");
	if (r == 0)
		*ret = buf_steal(&b);
	return r < 0 || *ret ? r : -ENOMEM;
}

/* ---- The answer ---- */

static void list_release(struct query *f)
{
	struct list_query *l = of(f);

	entry_unref(&l->known);
	entry_unref(&l->got);
	free(l->path);
}

static void list_answer(struct query *f, int r, void (*cb)(void), void *arg)
{
	struct list_result res = {0};
	const struct list_entry *e;

	if (r < 0) {
		((list_cb *)cb)(arg, r, NULL);
		return;
	}
	e = of(f)->stale ? of(f)->known : of(f)->got;
	res = (struct list_result){
		.status = e->status,
		.media_type = e->type,
		.next = e->next,
		.filters = e->filters,
		.bytes = e->body,
		.len = e->len,
		.stale = of(f)->stale,
	};
	((list_cb *)cb)(arg, 0, &res);
}

/* Copies a header's value, unless it cannot be one of ours. NULL is not an
 * error. */
static char *copy_value(const char *s)
{
	for (const char *p = s; p && *p; p++) {
		if (*p < ' ' || *p > '~')
			return NULL;
	}
	return s ? strdup(s) : NULL;
}

static int entry_new(struct call *c, struct list_entry **ret)
{
	struct list_entry *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return -ENOMEM;
	e->refs = 1;
	e->fetched_ms = now_ms();
	e->status = c->status;
	e->type = copy_value(call_header(c, "Content-Type", 0));
	e->filters = copy_value(call_header(c, "OCI-Filters-Applied", 0));
	r = next_page(c, &e->next);
	e->len = c->body.len;
	if (r >= 0 && e->len) {
		e->body = buf_steal(&c->body);
		r = e->body ? 0 : -ENOMEM;
	}
	if (r < 0)
		entry_unref(&e);
	*ret = e;
	return r < 0 ? r : 0;
}

/* Whether the credentials have changed since the query began. An answer to the
 * old ones is for those who wait, and for nobody else. */
static bool is_outdated(const struct list_query *l)
{
	return l->auth_generation != l->f.r->auth_generation;
}

static bool is_json(const struct list_entry *e)
{
	return e->type && strcasestr(e->type, "json");
}

static void serve_known(struct query *f)
{
	of(f)->stale = true;
	query_finish(f, 0);
}

static void failed(struct query *f, struct call *c, int r)
{
	struct list_query *l = of(f);

	if (call_unreachable(c, r)) {
		query_host_failed(f);
		if (l->known && !is_outdated(l)) {
			log_warn("upstream does not answer; the last known "
				 "list is served",
				 LS("repository", f->repo), LS("why", f->why));
			serve_known(f);
			return;
		}
	} else {
		query_host_answered(f);
	}
	/* A status without an answer that can be passed on, as a redirect to
	 * nowhere. */
	if (c->status < 400 || entry_new(c, &l->got) < 0) {
		query_finish(f, call_public_errno(c, r));
		return;
	}
	/* Other 404s may be those of a proxy that has lost its registry. */
	if (c->status == 404 && is_json(l->got))
		list_drop(f->r, f->node.key);
	query_finish(f, 0);
}

static void got(struct call *c, int r, const char *why)
{
	struct query *f = c->arg;
	struct list_query *l = of(f);

	query_why(f, why);
	f->call = NULL;
	if (r < 0) {
		failed(f, c, r);
		return;
	}
	query_host_answered(f);
	r = entry_new(c, &l->got);
	if (r == 0 && !is_json(l->got)) {
		query_why(f, "the list is not JSON");
		r = -EBADMSG;
	} else if (r == 0 && !is_outdated(l)) {
		list_keep(f->r, f->node.key, l->got);
	}
	query_finish(f, r);
}

/* Answers those who wait with the known list; the request goes on. */
static void list_impatient(struct query *f, bool late)
{
	struct list_query *l = of(f);

	if (!late || !l->known || is_outdated(l))
		return;
	l->stale = true;
	query_answer_waiting(f);
	l->stale = false;
}

static void get(struct query *f)
{
	static const struct call_ops ops = {
		.done = got,
		.delayed = query_hurry,
	};
	struct list_query *l = of(f);
	CLEANUP(login_unref) struct login *s = NULL;
	CLEANUP(freep) char *url = NULL;
	struct call_spec spec = {
		.accept = l->referrers ? "application/"
					 "vnd.oci.image.index.v1+json, "
					 "application/json"
				       : "application/json",
		.max_body = LIST_MAX_BYTES,
		.deadline_ms = outage_deadline_ms(f->r, f->host),
		.registry = f->host,
		.retry = true,
		.keep_error = true,
	};
	int r;

	r = login_url(f->r, f->host, f->name, &s, &url, "%s", l->path);
	spec.url = url;
	spec.login = s;
	if (r == 0)
		r = call_start(f->r, &spec, &ops, f, &f->call);
	if (r < 0)
		query_finish(f, r);
}

static void list_begin(struct query *f)
{
	struct list_query *l = of(f);
	uint64_t now = now_ms();

	l->auth_generation = f->r->auth_generation;
	l->known = list_find(f->r, f->node.key);
	if (l->known)
		l->known->refs++;
	if (l->known && now - l->known->fetched_ms < f->r->tag_fresh_ms) {
		l->got = l->known;
		l->got->refs++;
		query_finish(f, 0);
	} else if (l->known && query_host_is_down(f)) {
		serve_known(f);
	} else {
		query_wait(f);
		get(f);
	}
}

static const struct query_ops list_ops = {
	.size = sizeof(struct list_query),
	.begin = list_begin,
	.answer = list_answer,
	.release = list_release,
	.impatient = list_impatient,
};

/* The catalog is no repository's; "_catalog" cannot be a repository's name. */
static int set_catalog(struct query *f, const char *host)
{
	if (!ref_host_valid(host))
		return -ENOENT;
	host = ref_host_canonical(host);
	f->host = strdup(host);
	f->name = strdup("_catalog");
	f->repo = strdup(host);
	return f->host && f->name && f->repo ? 0 : -ENOMEM;
}

static int set_path(struct list_query *l, const char *what, const char *query)
{
	const char *name = strcmp(what, "_catalog") == 0 ? "" : l->f.name;
	int n = asprintf(&l->path, "%s%s%s%s%s", name, *name ? "/" : "", what,
			 *query ? "?" : "", query);

	if (n < 0)
		l->path = NULL;
	return n < 0 ? -ENOMEM : 0;
}

void registry_get_list(struct registry *r, const char *host, const char *name,
		       const char *what, const char *query, list_cb *cb,
		       void *arg)
{
	struct list_query *l;
	struct query *f;
	bool is_new;
	char *key;
	int e;

	if (asprintf(&key, "list %s %s %s?%s", host, name ? name : "", what,
		     query) < 0)
		key = NULL;
	f = query_join(r, &list_ops, key, (void (*)(void))cb, arg, &is_new);
	if (!f || !is_new)
		return;
	l = of(f);
	l->referrers = strncmp(what, "referrers/", 10) == 0;
	e = name ? query_set_repo(f, host, name) : set_catalog(f, host);
	if (e == 0)
		e = set_path(l, what, query);
	if (e < 0)
		query_abort(f, e);
}
