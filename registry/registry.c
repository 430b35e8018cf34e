/* The registry object, its timers, and its jobs. */
#include "registry/registry.h"

#include <pthread.h>
#include <string.h>

#include "registry/registry-private.h"

/* ---- Time: one timer for all delays ---- */

struct ticker {
	uv_timer_t timer;
	struct registry *r;
};

void delay_init(struct delay *d, void (*fire)(struct delay *d))
{
	*d = (struct delay){.fire = fire};
	list_init(&d->node);
}

bool delay_is_set(const struct delay *d)
{
	return !list_empty(&d->node);
}

void delay_cancel(struct delay *d)
{
	list_del(&d->node);
}

static void tick(uv_timer_t *t);

static void arm(struct registry *r)
{
	uint64_t now = now_ms(), when;

	if (list_empty(&r->delays))
		return;
	when = list_first(&r->delays, struct delay, node)->when_ms;
	/* The loop's cached time may be old, and the timer would fire early. */
	uv_update_time(loop_uv(r->loop));
	(void)uv_timer_start(&r->ticker->timer, tick,
			     when > now ? when - now : 0, 0);
}

static void tick(uv_timer_t *t)
{
	struct registry *r = container_of(t, struct ticker, timer)->r;
	uint64_t now = now_ms();
	struct list due;

	list_init(&due);
	while (!list_empty(&r->delays)) {
		struct delay *d = list_first(&r->delays, struct delay, node);

		if (d->when_ms > now)
			break;
		list_del(&d->node);
		list_add_tail(&due, &d->node);
	}
	/* A delay that a fire() sets waits for the next turn. The due ones can
	 * still be cancelled. */
	while (!list_empty(&due)) {
		struct delay *d = list_first(&due, struct delay, node);

		list_del(&d->node);
		d->fire(d);
	}
	arm(r);
}

void delay_set(struct registry *r, struct delay *d, uint64_t when_ms)
{
	struct list *at = r->delays.prev;

	list_del(&d->node);
	at = r->delays.prev;
	d->when_ms = when_ms;
	while (at != &r->delays &&
	       list_entry(at, struct delay, node)->when_ms > when_ms)
		at = at->prev;
	list_add(at, &d->node);
	if (r->delays.next == &d->node)
		arm(r);
}

static void ticker_closed(uv_handle_t *h)
{
	free(container_of((uv_timer_t *)h, struct ticker, timer));
}

/* ---- Jobs ---- */

struct workers {
	pthread_mutex_t mu;
	pthread_cond_t idle;
	uint32_t working; /* guarded by: mu; jobs queued, or inside work() */
	uint32_t refs;	  /* loop thread */
};

static struct workers *workers_new(void)
{
	struct workers *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->refs = 1;
	(void)pthread_mutex_init(&w->mu, NULL);
	(void)pthread_cond_init(&w->idle, NULL);
	return w;
}

static void workers_unref(struct workers *w)
{
	if (--w->refs)
		return;
	(void)pthread_cond_destroy(&w->idle);
	(void)pthread_mutex_destroy(&w->mu);
	free(w);
}

static void workers_wait(struct workers *w)
{
	(void)pthread_mutex_lock(&w->mu);
	while (w->working)
		(void)pthread_cond_wait(&w->idle, &w->mu);
	(void)pthread_mutex_unlock(&w->mu);
}

static void job_work(struct loop_job *base)
{
	struct store_job *j = container_of(base, struct store_job, base);
	struct workers *w = j->workers;

	j->work(j);
	(void)pthread_mutex_lock(&w->mu);
	if (!--w->working)
		(void)pthread_cond_broadcast(&w->idle);
	(void)pthread_mutex_unlock(&w->mu);
}

static void job_done(struct loop_job *base)
{
	struct store_job *j = container_of(base, struct store_job, base);
	struct workers *w = j->workers;

	j->done(j);
	workers_unref(w);
}

void store_job_start(struct registry *r, struct store_job *j,
		     void (*work)(struct store_job *j),
		     void (*done)(struct store_job *j))
{
	*j = (struct store_job){
		.workers = r->workers, .work = work, .done = done};
	r->workers->refs++;
	(void)pthread_mutex_lock(&r->workers->mu);
	r->workers->working++;
	(void)pthread_mutex_unlock(&r->workers->mu);
	loop_work(r->loop, &j->base, job_work, job_done);
}

/* ---- The registry ---- */

static int copy_config(struct registry *r, const struct registry_config *cfg)
{
	r->loop = cfg->loop;
	r->client = cfg->client;
	r->store = cfg->store;
	r->meta_timeout_ms = cfg->meta_timeout_ms;
	r->tag_fresh_ms = cfg->tag_fresh_ms;
	r->negative_ms = cfg->negative_ms;
	r->guard = cfg->guard;
	r->peers = cfg->peers;
	if (cfg->docker_config) {
		r->docker_config = strdup(cfg->docker_config);
		if (!r->docker_config)
			return -ENOMEM;
	}
	if (cfg->certs_dir) {
		r->certs_dir = strdup(cfg->certs_dir);
		if (!r->certs_dir)
			return -ENOMEM;
	}
	for (size_t i = 0; cfg->plain_http && i < cfg->plain_http->n; i++) {
		if (string_list_add(&r->plain_http, cfg->plain_http->v[i]) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int init_tables(struct registry *r)
{
	struct hash_table *t[] = {&r->hosts,	&r->logins, &r->routes,
				  &r->queries,	&r->noes,   &r->urls,
				  &r->versions, &r->lists,  &r->outages};
	int e;

	list_init(&r->delays);
	list_init(&r->calls);
	creds_init(r);
	list_init(&r->requests);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		e = name_table_init(t[i]);
		if (e < 0)
			return e;
	}
	return 0;
}

/* Frees memory only. */
static void registry_destroy(struct registry *r)
{
	struct hash_table *t[] = {&r->hosts,	&r->logins, &r->routes,
				  &r->queries,	&r->noes,   &r->urls,
				  &r->versions, &r->lists,  &r->outages};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		name_table_release(t[i]);
	if (r->workers)
		workers_unref(r->workers);
	auth_config_free(&r->auth);
	string_list_release(&r->plain_http);
	free(r->certs_dir);
	free(r->docker_config);
	free(r);
}

static int start_ticker(struct registry *r)
{
	struct ticker *t = calloc(1, sizeof(*t));
	int e;

	if (!t)
		return -ENOMEM;
	t->r = r;
	e = uv_timer_init(loop_uv(r->loop), &t->timer);
	if (e < 0) {
		free(t);
		return e;
	}
	r->ticker = t;
	return 0;
}

int registry_new(const struct registry_config *cfg, struct registry **ret,
		 struct error *err)
{
	struct registry *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return set_error(err, -ENOMEM, "out of memory");
	r->source.ops = &upstream_ops;
	r->node = cfg->node ? cfg->node : "";
	count_register();
	e = init_tables(r);
	if (e == 0)
		e = copy_config(r, cfg);
	if (e == 0) {
		r->workers = workers_new();
		e = r->workers ? start_ticker(r) : -ENOMEM;
	}
	if (e < 0) {
		registry_destroy(r);
		return set_error(err, e,
				 "cannot set up the registry "
				 "client: %s",
				 strerror(-e));
	}
	creds_refresh(r);
	*ret = r;
	return 0;
}

void registry_free(struct registry **pr)
{
	struct registry *r = *pr;

	*pr = NULL;
	if (!r)
		return;
	workers_wait(r->workers);
	queries_release(r);
	outages_release(r);
	requests_release(r);
	while (!list_empty(&r->calls)) {
		struct call *c = list_first(&r->calls, struct call, node);

		call_abandon(&c);
	}
	routes_release(r);
	urls_release(r);
	noes_release(r);
	lists_release(r);
	logins_release(r);
	creds_end(r);
	(void)uv_timer_stop(&r->ticker->timer);
	uv_close((uv_handle_t *)&r->ticker->timer, ticker_closed);
	registry_destroy(r);
}

struct source *registry_source(struct registry *r)
{
	return &r->source;
}
