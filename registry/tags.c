/* Lists of a repository's tags. */
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/log.h"
#include "registry/registry-private.h"

#define TAGS_MAX       100000
#define TAGS_MAX_BYTES ((size_t)16 << 20)
#define PAGES_MAX      1000
#define PAGE_SIZE      1000

struct tags_query {
	struct query f;
	struct store *store;
	struct string_list tags;
	struct buf page;
	size_t bytes; /* total size of all pages */
	uint32_t pages;
	char *next; /* URL of the next page; NULL: there is none */
	bool full;  /* a limit was reached */
	bool stale;
	int r;	    /* result of the job */
	int call_r; /* error to report if the store knows no tags */
};

static struct tags_query *of(struct query *f)
{
	return container_of(f, struct tags_query, f);
}

static void tags_release(struct query *f)
{
	string_list_release(&of(f)->tags);
	buf_release(&of(f)->page);
	free(of(f)->next);
}

static void tags_answer(struct query *f, int r, void (*cb)(void), void *arg)
{
	if (r < 0)
		((tags_cb *)cb)(arg, r, NULL, false);
	else
		((tags_cb *)cb)(arg, 0, &of(f)->tags, of(f)->stale);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort(struct string_list *l)
{
	size_t n = 0;

	if (l->n < 2)
		return;
	qsort(l->v, l->n, sizeof(*l->v), by_name);
	for (size_t i = 1; i < l->n; i++) {
		if (strcmp(l->v[n], l->v[i]) == 0)
			free(l->v[i]);
		else
			l->v[++n] = l->v[i];
	}
	for (size_t i = n + 1; i < l->n; i++)
		l->v[i] = NULL;
	l->n = n + 1;
}

/* ---- Jobs ---- */

static void parse_page(struct store_job *j)
{
	struct tags_query *t = of(container_of(j, struct query, job));
	CLEANUP(json_decrefp) json_t *o = NULL;
	json_t *list;

	t->r = json_parse(t->page.data ? t->page.data : "", t->page.len,
			  TAGS_MAX_BYTES, &o, NULL);
	buf_release(&t->page);
	if (t->r < 0) {
		t->r = t->r == -ENOMEM ? t->r : -EBADMSG;
		return;
	}
	list = json_object_get(o, "tags");
	if (!json_is_array(list) && !json_is_null(list)) {
		t->r = -EBADMSG;
		return;
	}
	for (size_t i = 0; i < json_array_size(list) && t->r == 0; i++) {
		const char *s = json_string_value(json_array_get(list, i));

		if (!s || !ref_tag_valid(s))
			continue;
		if (t->tags.n >= TAGS_MAX) {
			t->full = true;
			break;
		}
		t->r = string_list_add(&t->tags, s);
	}
	if (t->r == 0 && (t->full || !t->next))
		sort(&t->tags);
}

static void list_known(struct store_job *j)
{
	struct tags_query *t = of(container_of(j, struct query, job));

	string_list_release(&t->tags);
	t->r = store_tag_list(t->store, t->f.repo, &t->tags);
	sort(&t->tags);
}

/* ---- Upstream ---- */

static void known_listed(struct query *f)
{
	struct tags_query *t = of(f);

	t->stale = true;
	query_finish(f, t->r == 0 && t->tags.n ? 0 : t->call_r);
}

static void get_page(struct query *f, const char *url);

static void page_parsed(struct query *f)
{
	struct tags_query *t = of(f);
	CLEANUP(freep) char *next = steal_ptr(&t->next);

	if (t->r == -EBADMSG)
		query_why(f, "the list of tags is malformed");
	if (t->full)
		log_warn("a repository has more tags than are listed",
			 LS("repository", f->repo), LU("listed", t->tags.n));
	if (t->r == 0 && next && !t->full)
		get_page(f, next);
	else
		query_finish(f, t->r);
}

/* Takes the next page only on the same server, because the login is sent
 * there. */
static void find_next(struct tags_query *t, struct call *c)
{
	CLEANUP(url_release) struct url u = {0};
	CLEANUP(buf_release) struct buf b = BUF_INIT(URL_MAX_BYTES + 64);

	if (c->crossed || call_next_page(c, &u) <= 0)
		return;
	if (url_same_origin(&c->at, &u) && url_format(&u, true, &b) == 0 &&
	    strcmp(b.data, c->start) !=
		    0) /* the page must not link to itself */
		t->next = buf_steal(&b);
}

static void page_done(struct call *c, int r, const char *why)
{
	struct query *f = c->arg;
	struct tags_query *t = of(f);

	query_why(f, why);
	f->call = NULL;
	if (r < 0 && call_unreachable(c, r)) {
		t->call_r = call_public_errno(c, r);
		query_host_failed(f);
		query_job(f, list_known, known_listed);
		return;
	}
	query_host_answered(f);
	if (r < 0) {
		query_finish(f, call_public_errno(c, r));
		return;
	}
	find_next(t, c);
	t->bytes += c->body.len;
	t->pages++;
	/* Limits pages without end, or without tags. */
	if (t->bytes >= TAGS_MAX_BYTES || t->pages >= PAGES_MAX)
		t->full = true;
	t->page = c->body;
	c->body = BUF_INIT(0);
	query_job(f, parse_page, page_parsed);
}

static void get_page(struct query *f, const char *url)
{
	static const struct call_ops ops = {.done = page_done};
	CLEANUP(login_unref) struct login *s = NULL;
	CLEANUP(freep) char *first = NULL;
	struct call_spec spec = {
		.url = url,
		.accept = "application/json",
		.max_body = TAGS_MAX_BYTES,
		.deadline_ms = outage_deadline_ms(f->r, f->host),
		.registry = f->host,
		.retry = true,
	};
	int r;

	r = login_url(f->r, f->host, f->name, &s, &first, "%s/tags/list?n=%d",
		      f->name, PAGE_SIZE);
	if (!url)
		spec.url = first;
	spec.login = s;
	if (r == 0)
		r = call_start(f->r, &spec, &ops, f, &f->call);
	if (r < 0)
		query_finish(f, r);
}

static void tags_begin(struct query *f)
{
	if (query_host_is_down(f)) {
		of(f)->call_r = -EHOSTUNREACH;
		query_why(f, "the registry did not answer a moment ago");
		query_job(f, list_known, known_listed);
	} else {
		get_page(f, NULL);
	}
}

static const struct query_ops tags_ops = {
	.size = sizeof(struct tags_query),
	.begin = tags_begin,
	.answer = tags_answer,
	.release = tags_release,
};

void registry_list_tags(struct registry *r, const char *host, const char *name,
			tags_cb *cb, void *arg)
{
	struct query *f;
	bool is_new;
	char *key;
	int e;

	if (asprintf(&key, "tags %s %s", host, name) < 0)
		key = NULL;
	f = query_join(r, &tags_ops, key, (void (*)(void))cb, arg, &is_new);
	if (!f || !is_new)
		return;
	of(f)->store = r->store;
	e = query_set_repo(f, host, name);
	if (e < 0)
		query_abort(f, e);
}
