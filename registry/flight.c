/* Equal requests under way are one; a "no" is remembered for a while. */
#include <string.h>

#include "base/log.h"
#include "registry/registry-private.h"

/* ---- "No" ---- */

struct no {
	struct table_node node;
	uint64_t until_ms;
	int e;
};

static void no_del(struct registry *r, struct no *n)
{
	table_del(&r->noes, &n->node);
	free(n);
}

void noes_release(struct registry *r)
{
	table_for_each_safe(it, &r->noes)
		no_del(r, table_at(it, struct no, node));
}

int no_find(struct registry *r, const char *key)
{
	struct table_node *tn = table_find(&r->noes, key);
	struct no *n;

	if (!tn)
		return 0;
	n = table_entry(tn, struct no, node);
	if (n->until_ms > now_ms())
		return n->e;
	no_del(r, n);
	return 0;
}

void no_remember(struct registry *r, const char *key, int e)
{
	struct table_node *tn = table_find(&r->noes, key);
	struct no *n;

	if (r->negative_ms == 0)
		return;
	if (tn) {
		n = table_entry(tn, struct no, node);
	} else {
		if (r->noes.n >= MAX_NOES)
			no_del(r, table_first(&r->noes, struct no, node));
		n = calloc(1, sizeof(*n));
		if (!n)
			return;
		if (table_add(&r->noes, &n->node, key) < 0) {
			free(n);
			return;
		}
	}
	n->e = e;
	n->until_ms = now_ms() + r->negative_ms;
}

/* ---- Flights ---- */

struct waiter {
	struct list node;
	void (*cb)(void);
	void *arg;
};

static void answer_all(struct flight *f, int r)
{
	while (!list_empty(&f->waiters)) {
		struct waiter *w = list_first(&f->waiters, struct waiter, node);

		list_del(&w->node);
		f->ops->answer(f, r, w->cb, w->arg);
		free(w);
	}
}

static void flight_free(struct flight *f)
{
	free(f->host);
	free(f->name);
	free(f->repo);
	free(f);
}

/* Takes it out of the table: whoever asks from now on, perhaps from inside a
 * callback, starts a new one. */
static void flight_end(struct flight *f, int r)
{
	table_del(&f->r->flights, &f->node);
	delay_cancel(&f->begin);
	call_abandon(&f->call);
	probe_abandon(&f->probe);
	if (f->asked_peers)
		f->r->peers->ops->cancel(f->r->peers, f);
	answer_all(f, r);
	/* At once, also when registry_free() ends a flight whose job has done
	 * its work but not come back: the store may be closed by then. */
	f->ops->release(f);
	f->r = NULL;
	if (!f->job_busy)
		flight_free(f);
}

void flight_why(struct flight *f, const char *why)
{
	(void)snprintf(f->why, sizeof(f->why), "%s", why ? why : "");
}

static char *down_key(const struct flight *f)
{
	char *s;

	if (!f->host || asprintf(&s, "down %s", f->host) < 0)
		return NULL;
	return s;
}

bool flight_host_is_down(struct flight *f)
{
	CLEANUP(freep) char *key = down_key(f);

	return key && no_find(f->r, key) < 0;
}

void flight_host_failed(struct flight *f)
{
	CLEANUP(freep) char *key = down_key(f);

	if (key)
		no_remember(f->r, key, -EHOSTUNREACH);
}

/* A refusal is logged by its session. */
static void complain(const struct flight *f, int r)
{
	static struct log_limit limit;

	if (r >= 0 || r == -ENOENT || r == -EACCES || r == -EKEYEXPIRED ||
	    r == -ECANCELED)
		return;
	if (log_limit_ok(&limit, 20, 60000))
		log_warn("upstream has no usable answer", LS("name", f->repo),
			 LE(r), LS("why", f->why));
}

void flight_finish(struct flight *f, int r)
{
	complain(f, r);
	if (r < 0 && r != -ENOMEM && r != -ECANCELED)
		no_remember(f->r, f->node.key, r);
	flight_end(f, r);
}

static void flight_begin(struct delay *d)
{
	struct flight *f = container_of(d, struct flight, begin);
	int r = f->abort_r;

	creds_refresh(f->r); /* what was refused may be allowed now */
	if (r == 0)
		r = no_find(f->r, f->node.key);
	if (r < 0)
		flight_end(f, r);
	else
		f->ops->begin(f);
}

static int flight_new(struct registry *r, const struct flight_ops *ops,
		      const char *key, struct flight **ret)
{
	struct flight *f = calloc(1, ops->size);

	if (!f)
		return -ENOMEM;
	f->ops = ops;
	f->r = r;
	list_init(&f->waiters);
	delay_init(&f->begin, flight_begin);
	if (table_add(&r->flights, &f->node, key) < 0) {
		free(f);
		return -ENOMEM;
	}
	delay_set(r, &f->begin, now_ms());
	*ret = f;
	return 0;
}

static struct flight *join(struct registry *r, const struct flight_ops *ops,
			   const char *key, struct waiter *w, bool *ret_new)
{
	struct table_node *tn;
	struct flight *f;

	if (!key || !w)
		return NULL;
	tn = table_find(&r->flights, key);
	*ret_new = !tn;
	if (tn)
		f = table_entry(tn, struct flight, node);
	else if (flight_new(r, ops, key, &f) < 0)
		return NULL;
	list_add_tail(&f->waiters, &w->node);
	return f;
}

struct flight *flight_join(struct registry *r, const struct flight_ops *ops,
			   char *key, void (*cb)(void), void *arg,
			   bool *ret_new)
{
	struct waiter *w = calloc(1, sizeof(*w));
	struct flight *f;

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

int flight_set_repo(struct flight *f, const char *host, const char *name)
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

void flight_abort(struct flight *f, int r)
{
	f->abort_r = r;
}

static void flight_job_done(struct job *j)
{
	struct flight *f = container_of(j, struct flight, job);

	f->job_busy = false;
	if (f->r)
		f->job_done(f);
	else
		flight_free(f);
}

void flight_job(struct flight *f, void (*work)(struct job *j),
		void (*done)(struct flight *f))
{
	f->job_busy = true;
	f->job_done = done;
	job_start(f->r, &f->job, work, flight_job_done);
}

void flights_release(struct registry *r)
{
	while (r->flights.n)
		flight_end(table_first(&r->flights, struct flight, node),
			   -ECANCELED);
}
