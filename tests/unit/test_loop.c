#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/loop.h"
#include "base/util.h"
#include "tests/unit/tap.h"

#define POSTERS	 4
#define PER_POST 2000

static struct loop *new_loop(void)
{
	struct loop *l = NULL;

	if (loop_new(&l) != 0)
		BAIL("loop_new");
	return l;
}

static void *run(void *arg)
{
	loop_run(arg);
	return NULL;
}

static pthread_t start(struct loop *l)
{
	pthread_t t;

	if (pthread_create(&t, NULL, run, l) != 0)
		BAIL("pthread_create");
	return t;
}

struct item {
	struct loop_task task;
	struct loop *loop;
	int poster, seq;
};

static struct item items[POSTERS][PER_POST];
static int next_seq[POSTERS]; /* loop thread only */
static int ran, out_of_order, elsewhere;

static void item_run(struct loop_task *t)
{
	struct item *it = container_of(t, struct item, task);

	elsewhere += !loop_here(it->loop);
	out_of_order += next_seq[it->poster]++ != it->seq;
	if (++ran == POSTERS * PER_POST)
		loop_stop(it->loop);
}

static void *post_many(void *arg)
{
	struct item *it = arg;

	for (int i = 0; i < PER_POST; i++)
		loop_post(it[i].loop, &it[i].task);
	return NULL;
}

/* Every task runs once, on the loop thread, in the order of its poster. */
static void test_posts_from_threads(void)
{
	struct loop *l = new_loop();
	pthread_t t[POSTERS];

	for (int p = 0; p < POSTERS; p++)
		for (int i = 0; i < PER_POST; i++)
			items[p][i] = (struct item){{.run = item_run}, l, p, i};
	for (int p = 0; p < POSTERS; p++)
		if (pthread_create(&t[p], NULL, post_many, items[p]) != 0)
			BAIL("pthread_create");
	OK(!loop_here(l));
	loop_run(l);
	OK(!loop_here(l));
	for (int p = 0; p < POSTERS; p++)
		(void)pthread_join(t[p], NULL);
	EQ(ran, POSTERS * PER_POST);
	EQ(out_of_order, 0);
	EQ(elsewhere, 0);
	loop_free(&l);
	OK(l == NULL);
	loop_free(&l);
}

struct again {
	struct loop_task task;
	struct loop *loop;
	int left;
	bool nested, inside;
};

static void again_run(struct loop_task *t)
{
	struct again *a = container_of(t, struct again, task);

	a->nested |= a->inside;
	a->inside = true;
	if (--a->left > 0)
		loop_post(a->loop, t);
	else
		loop_stop(a->loop);
	a->inside = false;
}

/* A task may post itself, and is not run from inside loop_post(). */
static void test_post_again_from_run(void)
{
	struct loop *l = new_loop();
	struct again a = {{.run = again_run}, l, 1000, false, false};

	loop_post(l, &a.task);
	EQ(a.left, 1000);
	loop_run(l);
	EQ(a.left, 0);
	OK(!a.nested);
	loop_free(&l);
}

/* A task that many threads post again and again. */
static struct shared {
	struct loop_task task;
	struct loop *loop;
	int posts; /* atomic, relaxed */
	int runs, seen;
	bool inside;
} shared;

static void shared_run(struct loop_task *t)
{
	OK(t == &shared.task && !shared.inside);
	shared.inside = true;
	shared.runs++;
	shared.seen = __atomic_load_n(&shared.posts, __ATOMIC_RELAXED);
	if (shared.seen == POSTERS * PER_POST)
		loop_stop(shared.loop);
	shared.inside = false;
}

static void *post_shared(void *arg)
{
	(void)arg;
	for (int i = 0; i < PER_POST; i++) {
		(void)__atomic_add_fetch(&shared.posts, 1, __ATOMIC_RELAXED);
		loop_post(shared.loop, &shared.task);
	}
	return NULL;
}

/* A queued task is not queued twice, and no post is lost: run() sees all that
 * was written before the post. */
static void test_post_what_is_queued(void)
{
	pthread_t t[POSTERS];

	shared.loop = new_loop();
	shared.task.run = shared_run;
	for (int p = 0; p < POSTERS; p++)
		if (pthread_create(&t[p], NULL, post_shared, NULL) != 0)
			BAIL("pthread_create");
	loop_run(shared.loop);
	for (int p = 0; p < POSTERS; p++)
		(void)pthread_join(t[p], NULL);
	EQ(shared.seen, POSTERS * PER_POST);

	shared.runs = 0;
	loop_free(&shared.loop); /* runs posts that came after the last run() */
	OK(shared.runs <= 1);
	shared.loop = new_loop();
	shared.runs = 0;
	for (int i = 0; i < 3; i++)
		loop_post(shared.loop, &shared.task);
	EQ(shared.runs, 0);
	loop_free(&shared.loop);
	EQ(shared.runs, 1);
}

struct canceler {
	struct loop_task first, second, third;
	struct loop *loop;
	char ran[8];
	size_t n;
};

static void first_run(struct loop_task *t)
{
	struct canceler *c = container_of(t, struct canceler, first);

	c->ran[c->n++] = '1';
	loop_cancel(c->loop, &c->second); /* queued for this same turn */
	loop_cancel(c->loop, &c->second);
	loop_cancel(c->loop, t); /* it already runs: does nothing */
}

static void second_run(struct loop_task *t)
{
	struct canceler *c = container_of(t, struct canceler, second);

	c->ran[c->n++] = '2';
}

static void third_run(struct loop_task *t)
{
	struct canceler *c = container_of(t, struct canceler, third);

	c->ran[c->n++] = '3';
	if (c->n == 2)
		loop_post(c->loop, &c->second);
}

static void test_cancel(void)
{
	struct canceler c = {.first = {.run = first_run},
			     .second = {.run = second_run},
			     .third = {.run = third_run},
			     .loop = new_loop()};

	loop_cancel(c.loop, &c.second); /* never queued: does nothing */
	loop_post(c.loop, &c.first);
	loop_post(c.loop, &c.second);
	loop_post(c.loop, &c.third);
	loop_free(&c.loop);
	STREQ(c.ran, "132");
}

struct ticker {
	uv_timer_t timer;
	struct loop *loop;
	struct loop_task greedy;
	int ticks, turns;
	bool stop;
};

static void greedy_run(struct loop_task *t)
{
	struct ticker *k = container_of(t, struct ticker, greedy);

	k->turns++;
	if (!k->stop)
		loop_post(k->loop, t);
}

static void on_tick(uv_timer_t *t)
{
	struct ticker *k = t->data;

	if (++k->ticks < 3)
		return;
	k->stop = true;
	uv_close((uv_handle_t *)t, NULL);
	loop_stop(k->loop);
}

/* A task that posts itself for ever does not block timers. */
static void test_no_starvation(void)
{
	struct loop *l = new_loop();
	struct ticker k = {.loop = l, .greedy = {.run = greedy_run}};

	EQ(uv_timer_init(loop_uv(l), &k.timer), 0);
	k.timer.data = &k;
	EQ(uv_timer_start(&k.timer, on_tick, 1, 1), 0);
	loop_post(l, &k.greedy);
	loop_run(l);
	EQ(k.ticks, 3);
	OK(k.turns > 0);
	loop_free(&l);
}

struct work {
	struct loop_job job;
	struct loop *loop;
	pthread_t worker;
	int *left; /* loop thread only */
	int worked, done;
	bool here_at_work, here_at_done;
};

static void work_do(struct loop_job *j)
{
	struct work *w = container_of(j, struct work, job);

	w->worker = pthread_self();
	w->here_at_work = loop_here(w->loop);
	w->worked++;
}

static void work_done(struct loop_job *j)
{
	struct work *w = container_of(j, struct work, job);

	w->done++;
	w->here_at_done = loop_here(w->loop);
	if (--*w->left == 0)
		loop_stop(w->loop);
}

static void test_jobs(void)
{
	struct loop *l = new_loop();
	struct work w[50] = {0};
	int left = ARRAY_SIZE(w), wrong = 0;

	for (size_t i = 0; i < ARRAY_SIZE(w); i++) {
		w[i].loop = l;
		w[i].left = &left;
		loop_work(l, &w[i].job, work_do, work_done);
		EQ(w[i].done, 0);
	}
	loop_run(l);
	EQ(left, 0);
	for (size_t i = 0; i < ARRAY_SIZE(w); i++)
		wrong += w[i].worked != 1 || w[i].done != 1 ||
			 w[i].here_at_work || !w[i].here_at_done ||
			 pthread_equal(w[i].worker, pthread_self());
	EQ(wrong, 0);
	loop_free(&l);
}

struct chain {
	struct loop_job job;
	struct loop_task task;
	struct loop *loop;
	int steps;
	bool stop;
};

static void chain_work(struct loop_job *j)
{
	(void)j;
}

static void chain_done(struct loop_job *j)
{
	struct chain *c = container_of(j, struct chain, job);

	loop_post(c->loop, &c->task);
}

static void chain_run(struct loop_task *t)
{
	struct chain *c = container_of(t, struct chain, task);

	if (++c->steps < 20)
		loop_work(c->loop, &c->job, chain_work, chain_done);
	else if (c->stop)
		loop_stop(c->loop);
}

/* A job's done() may post a task that queues the same job again. */
static void test_job_and_task_in_turn(void)
{
	struct loop *l = new_loop();
	struct chain c = {.task = {.run = chain_run}, .loop = l, .stop = true};

	loop_post(l, &c.task);
	loop_run(l);
	EQ(c.steps, 20);
	loop_free(&l);
}

/* Work started before loop_free(), and work that it starts, still ends. */
static void test_free_finishes_what_was_started(void)
{
	struct loop *l = new_loop();
	struct chain a = {.task = {.run = chain_run}, .loop = l},
		     b = {.task = {.run = chain_run}, .loop = l};
	struct again c = {{.run = again_run}, l, 100, false, false};

	loop_post(l, &a.task);
	loop_post(l, &c.task);
	loop_work(l, &b.job, chain_work, chain_done);
	loop_free(&l);
	OK(l == NULL);
	EQ(a.steps, 20);
	EQ(b.steps, 20);
	EQ(c.left, 0);
}

struct closer {
	uv_timer_t timer;
	struct loop *loop;
	struct loop_task task;
	int closed, ran;
};

static void closer_run(struct loop_task *t)
{
	container_of(t, struct closer, task)->ran++;
}

static void on_closed(uv_handle_t *h)
{
	struct closer *c = h->data;

	c->closed++;
	loop_post(c->loop, &c->task);
}

/* Close callbacks still run, and so do the tasks that they post. */
static void test_free_runs_close_callbacks(void)
{
	struct loop *l = new_loop();
	struct closer c = {.loop = l, .task = {.run = closer_run}};

	EQ(uv_timer_init(loop_uv(l), &c.timer), 0);
	c.timer.data = &c;
	uv_close((uv_handle_t *)&c.timer, on_closed);
	loop_free(&l);
	EQ(c.closed, 1);
	EQ(c.ran, 1);
}

static void test_stop(void)
{
	struct loop *l = new_loop();
	struct again a = {{.run = again_run}, l, 1, false, false};
	pthread_t t;

	loop_stop(l); /* before the run: it returns at once */
	loop_run(l);
	t = start(l); /* another thread can run it again */
	loop_stop(l);
	(void)pthread_join(t, NULL);

	/* Tasks posted before the stop are run. */
	loop_post(l, &a.task);
	loop_stop(l);
	loop_run(l);
	EQ(a.left, 0);
	loop_free(&l);
}

static void test_free_unused(void)
{
	struct loop *l = new_loop();

	loop_free(&l);
	OK(l == NULL);
	l = new_loop();
	loop_stop(l); /* a stop that nobody waited for */
	loop_free(&l);
	OK(l == NULL);
}

struct last {
	struct loop_task task;
	struct loop *loop;
};

static void last_run(struct loop_task *t)
{
	loop_stop(container_of(t, struct last, task)->loop);
}

static void *post_last(void *arg)
{
	struct last *x = arg;

	loop_post(x->loop, &x->task);
	return NULL;
}

/* The loop may be freed as soon as the last task has run, though the thread
 * that posted it may still be inside loop_post(). */
static void test_free_races_with_last_post(void)
{
	for (int i = 0; i < 300; i++) {
		struct loop *l = new_loop();
		struct last x = {{.run = last_run}, l};
		pthread_t t;

		if (pthread_create(&t, NULL, post_last, &x) != 0)
			BAIL("pthread_create");
		loop_run(l);
		loop_free(&l);
		(void)pthread_join(t, NULL);
	}
}

int main(void)
{
	RUN(test_posts_from_threads);
	RUN(test_post_again_from_run);
	RUN(test_post_what_is_queued);
	RUN(test_cancel);
	RUN(test_no_starvation);
	RUN(test_jobs);
	RUN(test_job_and_task_in_turn);
	RUN(test_free_finishes_what_was_started);
	RUN(test_free_runs_close_callbacks);
	RUN(test_stop);
	RUN(test_free_unused);
	RUN(test_free_races_with_last_post);
	return tap_done();
}
