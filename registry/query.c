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

/* Without an answer for so long, other nodes are asked too. */
#define PATIENCE_MS 500
/* After so long what is known is served, and the host counts as down. */
#define LATE_MS 2000
/* The same for a host that answers with errors: time for two more tries. */
#define HURRY_MS 500

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
	delay_cancel(&f->patience);
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

bool query_host_is_down(struct query *f)
{
	return f->host && outage_now(f->r, f->host);
}

void query_host_failed(struct query *f)
{
	if (f->host)
		outage_begin(f->r, f->host, f->name, true);
}

void query_host_answered(struct query *f)
{
	if (f->host)
		outage_end(f->r, f->host);
}

static void patience_over(struct delay *d)
{
	struct query *f = container_of(d, struct query, patience);

	if (f->job_busy) { /* what it works on cannot be served now */
		delay_set(f->r, d, now_ms() + PATIENCE_MS);
		return;
	}
	if (!f->late && now_ms() >= f->late_ms) {
		f->late = true;
		outage_begin(f->r, f->host, f->name, false);
	} else if (!f->late) {
		delay_set(f->r, d, f->late_ms);
	}
	if (f->ops->impatient)
		f->ops->impatient(f, f->late);
}

void query_wait(struct query *f)
{
	bool down = query_host_is_down(f);

	f->late_ms = now_ms() + (down ? 0 : LATE_MS);
	delay_set(f->r, &f->patience, now_ms() + (down ? 0 : PATIENCE_MS));
}

void query_hurry(struct call *c)
{
	struct query *f = c->arg;
	uint64_t when = now_ms() + HURRY_MS;

	if (!f->late_ms || f->late || f->late_ms <= when)
		return;
	f->late_ms = when;
	delay_set(f->r, &f->patience, when);
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

void query_finish_once(struct query *f, int r)
{
	complain(f, r);
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
	delay_init(&f->patience, patience_over);
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
	if (f->late) /* do not let it wait again */
		delay_set(r, &f->patience, now_ms());
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
