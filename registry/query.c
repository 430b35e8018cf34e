/* Queries: equal questions share one; a "no" is remembered for a while. */
#include <string.h>

#include "base/log.h"
#include "registry/registry-private.h"

/* ---- "No" ---- */

struct no {
	struct name_node node;
	uint64_t until_ms;
	int e;
};

static void no_del(struct registry *r, struct no *n)
{
	name_table_del(&r->noes, &n->node);
	free(n);
}

void noes_release(struct registry *r)
{
	name_table_for_each_safe(it, &r->noes)
		no_del(r, name_table_at(it, struct no, node));
}

int no_find(struct registry *r, const char *key)
{
	struct name_node *tn = name_table_find(&r->noes, key);
	struct no *n;

	if (!tn)
		return 0;
	n = name_table_entry(tn, struct no, node);
	if (n->until_ms > now_ms())
		return n->e;
	no_del(r, n);
	return 0;
}

void no_remember(struct registry *r, const char *key, int e)
{
	struct name_node *tn = name_table_find(&r->noes, key);
	struct no *n;

	if (r->negative_ms == 0)
		return;
	if (tn) {
		n = name_table_entry(tn, struct no, node);
	} else {
		if (r->noes.n >= MAX_NOES)
			no_del(r, name_table_first(&r->noes, struct no, node));
		n = calloc(1, sizeof(*n));
		if (!n)
			return;
		if (name_table_add(&r->noes, &n->node, key) < 0) {
			free(n);
			return;
		}
	}
	n->e = e;
	n->until_ms = now_ms() + r->negative_ms;
}

/* ---- Queries ---- */

struct query_waiter {
	struct list node;
	void (*cb)(void);
	void *arg;
};

static void answer_all(struct query *f, int r)
{
	while (!list_empty(&f->waiters)) {
		struct query_waiter *w =
			list_first(&f->waiters, struct query_waiter, node);

		list_del(&w->node);
		f->ops->answer(f, r, w->cb, w->arg);
		free(w);
	}
}

void query_answer_waiting(struct query *f)
{
	answer_all(f, 0);
}

static void query_free(struct query *f)
{
	free(f->host);
	free(f->name);
	free(f->repo);
	free(f);
}

/* Takes f out of the table first: a caller that asks from now on, perhaps from
 * inside a callback, starts a new query. */
static void query_end(struct query *f, int r)
{
	name_table_del(&f->r->queries, &f->node);
	loop_cancel(f->r->loop, &f->begin);
	call_abandon(&f->call);
	probe_abandon(&f->probe);
	if (f->asked_peers)
		f->r->peers->ops->cancel(f->r->peers, f);
	answer_all(f, r);
	/* Release at once, even if registry_free() ends a query whose job has
	 * run and not come back: the store may be closed by then. */
	f->ops->release(f);
	f->r = NULL;
	if (!f->job_busy)
		query_free(f);
}

void query_why(struct query *f, const char *why)
{
	(void)snprintf(f->why, sizeof(f->why), "%s", why ? why : "");
}

static char *down_key(const struct query *f)
{
	char *s;

	if (!f->host || asprintf(&s, "down %s", f->host) < 0)
		return NULL;
	return s;
}

bool query_host_is_down(struct query *f)
{
	CLEANUP(freep) char *key = down_key(f);

	return key && no_find(f->r, key) < 0;
}

void query_host_failed(struct query *f)
{
	CLEANUP(freep) char *key = down_key(f);

	if (key)
		no_remember(f->r, key, -EHOSTUNREACH);
}

/* login.c logs refusals. */
static void complain(const struct query *f, int r)
{
	static struct log_limit limit;

	if (r >= 0 || r == -ENOENT || r == -EACCES || r == -EKEYEXPIRED ||
	    r == -ECANCELED)
		return;
	if (log_limit_ok(&limit, 20, 60000))
		log_warn("upstream has no usable answer", LS("name", f->repo),
			 LE(r), LS("why", f->why));
}

void query_finish(struct query *f, int r)
{
	complain(f, r);
	if (r < 0 && r != -ENOMEM && r != -ECANCELED)
		no_remember(f->r, f->node.key, r);
	query_end(f, r);
}

static void query_begin(struct loop_task *t)
{
	struct query *f = container_of(t, struct query, begin);
	int r = f->abort_r;

	creds_refresh(f->r); /* new credentials may allow what was refused */
	if (r == 0)
		r = no_find(f->r, f->node.key);
	if (r < 0)
		query_end(f, r);
	else
		f->ops->begin(f);
}

static int query_new(struct registry *r, const struct query_ops *ops,
		     const char *key, struct query **ret)
{
	struct query *f = calloc(1, ops->size);

	if (!f)
		return -ENOMEM;
	f->ops = ops;
	f->r = r;
	list_init(&f->waiters);
	f->begin.run = query_begin;
	if (name_table_add(&r->queries, &f->node, key) < 0) {
		free(f);
		return -ENOMEM;
	}
	loop_post(r->loop, &f->begin);
	*ret = f;
	return 0;
}

static struct query *join(struct registry *r, const struct query_ops *ops,
			  const char *key, struct query_waiter *w,
			  bool *ret_new)
{
	struct name_node *tn;
	struct query *f;

	if (!key || !w)
		return NULL;
	tn = name_table_find(&r->queries, key);
	*ret_new = !tn;
	if (tn)
		f = name_table_entry(tn, struct query, node);
	else if (query_new(r, ops, key, &f) < 0)
		return NULL;
	list_add_tail(&f->waiters, &w->node);
	return f;
}

struct query *query_join(struct registry *r, const struct query_ops *ops,
			 char *key, void (*cb)(void), void *arg, bool *ret_new)
{
	struct query_waiter *w = calloc(1, sizeof(*w));
	struct query *f;

	if (w) {
		w->cb = cb;
		w->arg = arg;
	}
	f = join(r, ops, key, w, ret_new);
	if (!f) {
		free(w);
		ops->answer(NULL, -ENOMEM, cb, arg);
	}
	free(key);
	return f;
}

int query_set_repo(struct query *f, const char *host, const char *name)
{
	const char *library = "";

	if (!ref_host_valid(host) || !ref_name_valid(name))
		return -ENOENT;
	host = ref_host_canonical(host);
	if (strcmp(host, "docker.io") == 0 && !strchr(name, '/'))
		library = "library/";
	f->host = strdup(host);
	if (asprintf(&f->name, "%s%s", library, name) < 0)
		f->name = NULL;
	if (asprintf(&f->repo, "%s/%s%s", host, library, name) < 0)
		f->repo = NULL;
	return f->host && f->name && f->repo ? 0 : -ENOMEM;
}

void query_abort(struct query *f, int r)
{
	f->abort_r = r;
}

static void query_job_done(struct store_job *j)
{
	struct query *f = container_of(j, struct query, job);

	f->job_busy = false;
	if (f->r)
		f->job_done(f);
	else
		query_free(f);
}

void query_job(struct query *f, void (*work)(struct store_job *j),
	       void (*done)(struct query *f))
{
	f->job_busy = true;
	f->job_done = done;
	store_job_start(f->r, &f->job, work, query_job_done);
}

void queries_release(struct registry *r)
{
	while (r->queries.n)
		query_end(name_table_first(&r->queries, struct query, node),
			  -ECANCELED);
}
