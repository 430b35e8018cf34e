#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"

struct loop {
	uv_loop_t uv;
	uv_async_t wake;
	pthread_mutex_t mu;
	struct list posted; /* guarded by: mu */
	bool stopping;	    /* guarded by: mu */
	unsigned int jobs;  /* loop thread only */
	pthread_t thread;   /* set by loop_run() and loop_free() */
	bool running;	    /* atomic */
};

/* Removes t from its list. mu is held. */
static void take_out(struct loop_task *t)
{
	list_del(&t->node);
	t->queued = false;
}

/* uv_async_send() coalesces: one wake-up may stand for many posts, so this runs
 * the whole list. A task posted meanwhile waits for the next turn of the loop:
 * a task that reposts itself cannot starve the sockets. */
static void on_wake(uv_async_t *h)
{
	struct loop *l = h->data;
	struct list batch;
	bool stop;

	list_init(&batch);
	(void)pthread_mutex_lock(&l->mu);
	list_move_all(&l->posted, &batch);
	stop = l->stopping;
	l->stopping = false;
	while (!list_empty(&batch)) {
		struct loop_task *t =
			list_first(&batch, struct loop_task, node);

		take_out(t);
		(void)pthread_mutex_unlock(&l->mu);
		t->run(t);
		(void)pthread_mutex_lock(&l->mu);
	}
	(void)pthread_mutex_unlock(&l->mu);
	if (stop)
		uv_stop(&l->uv);
}

int loop_new(struct loop **ret)
{
	CLEANUP(freep) struct loop *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	list_init(&l->posted);
	r = uv_loop_init(&l->uv);
	if (r < 0)
		return r;
	r = uv_async_init(&l->uv, &l->wake, on_wake);
	if (r < 0) {
		(void)uv_loop_close(&l->uv);
		return r;
	}
	l->wake.data = l;
	r = pthread_mutex_init(&l->mu, NULL);
	BUG_ON(r != 0);
	*ret = steal_ptr(&l);
	return 0;
}

void loop_run(struct loop *l)
{
	l->thread = pthread_self();
	__atomic_store_n(&l->running, true, __ATOMIC_RELEASE);
	(void)uv_run(&l->uv, UV_RUN_DEFAULT);
	__atomic_store_n(&l->running, false, __ATOMIC_RELEASE);
}

void loop_stop(struct loop *l)
{
	(void)pthread_mutex_lock(&l->mu);
	l->stopping = true;
	(void)uv_async_send(&l->wake);
	(void)pthread_mutex_unlock(&l->mu);
}

void loop_free(struct loop **lp)
{
	struct loop *l = *lp;
	bool more;

	if (!l)
		return;
	l->thread = pthread_self();
	__atomic_store_n(&l->running, true, __ATOMIC_RELEASE);
	do {
		on_wake(&l->wake);
		(void)uv_run(&l->uv, l->jobs ? UV_RUN_ONCE : UV_RUN_NOWAIT);
		(void)pthread_mutex_lock(&l->mu);
		more = !list_empty(&l->posted) || l->jobs > 0;
		(void)pthread_mutex_unlock(&l->mu);
	} while (more);
	uv_close((uv_handle_t *)&l->wake, NULL);
	(void)uv_run(&l->uv, UV_RUN_DEFAULT);
	/* fails if an owner forgot to close its handle */
	BUG_ON(uv_loop_close(&l->uv) != 0);
	(void)pthread_mutex_destroy(&l->mu);
	free(l);
	*lp = NULL;
}

void loop_post(struct loop *l, struct loop_task *t)
{
	(void)pthread_mutex_lock(&l->mu);
	if (!t->queued) {
		t->queued = true;
		list_add_tail(&l->posted, &t->node);
		/* Under the lock: once the task has run, the loop may be
		 * freed. */
		(void)uv_async_send(&l->wake);
	}
	(void)pthread_mutex_unlock(&l->mu);
}

void loop_cancel(struct loop *l, struct loop_task *t)
{
	(void)pthread_mutex_lock(&l->mu);
	if (t->queued)
		take_out(t);
	(void)pthread_mutex_unlock(&l->mu);
}

static void job_work(uv_work_t *req)
{
	struct loop_job *j = container_of(req, struct loop_job, req);

	j->work(j);
}

static void job_done(uv_work_t *req, int status)
{
	struct loop_job *j = container_of(req, struct loop_job, req);

	(void)status; /* UV_ECANCELED only after uv_cancel(), which nobody calls
		       */
	j->loop->jobs--;
	j->done(j);
}

void loop_work(struct loop *l, struct loop_job *j,
	       void (*work)(struct loop_job *j),
	       void (*done)(struct loop_job *j))
{
	int r;

	j->loop = l;
	j->work = work;
	j->done = done;
	l->jobs++;
	r = uv_queue_work(&l->uv, &j->req, job_work, job_done);
	BUG_ON(r != 0); /* fails only without a work callback */
}

bool loop_here(const struct loop *l)
{
	return __atomic_load_n(&l->running, __ATOMIC_ACQUIRE) &&
	       pthread_equal(l->thread, pthread_self());
}

uv_loop_t *loop_uv(struct loop *l)
{
	return &l->uv;
}
