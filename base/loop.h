/* The loop thread, and how work gets on and off it.
 *
 * One thread, the one inside loop_run(), owns sockets, timers and all protocol
 * state. Other threads reach it with loop_post(). loop_work() moves work that
 * blocks (disk, hashing, LMDB) to a pool worker; its done() runs on the loop.
 *
 * Rules: a posted task and a job's done() run exactly once, on the loop thread,
 * never from inside the call that started them, and with no lock held. So
 * code on the loop thread uses loop_post(), too, to call back later.
 * loop_cancel() takes the task back. */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <uv.h>

#include "base/list.h"

struct loop;

/* Embedded in the caller's object, zeroed except for run. Must stay alive until
 * run() has begun or loop_cancel() has returned. loop_post() may queue it again
 * after that. */
struct loop_task {
	struct list node; /* guarded by: the loop's mu, as is queued */
	bool queued;
	void (*run)(struct loop_task *t);
};

/* Embedded likewise; must stay alive until done() is called. */
struct loop_job {
	uv_work_t req;
	struct loop *loop;
	/* Runs on a pool worker; may block. */
	void (*work)(struct loop_job *j);
	/* Runs on the loop thread, after work(). */
	void (*done)(struct loop_job *j);
};

/* Makes a loop. On 0 the caller owns *ret and ends it with loop_free().
 * -ENOMEM, and the errors of uv_loop_init() and uv_async_init(). Any thread. */
int loop_new(struct loop **ret);

/* Runs until loop_stop(). The calling thread is the loop thread meanwhile. */
void loop_run(struct loop *l);

/* Makes loop_run() return after the current callbacks. Any thread. */
void loop_stop(struct loop *l);

/* Runs the remaining tasks, jobs and closing handles to their end, then frees
 * *l and makes it NULL. All users must have closed their handles. *l may be
 * NULL. */
void loop_free(struct loop **l);

/* Queues t to run on the loop thread, in the order of posting. A queued task
 * keeps its place and runs once for all posts before its run() begins. run()
 * sees all that the posting threads wrote before. Any thread. */
void loop_post(struct loop *l, struct loop_task *t);

/* Removes the task if it is queued. Loop thread only. */
void loop_cancel(struct loop *l, struct loop_task *t);

/* Sets up and queues the job. Loop thread only. */
void loop_work(struct loop *l, struct loop_job *j,
	       void (*work)(struct loop_job *j),
	       void (*done)(struct loop_job *j));

/* True on the thread that is inside loop_run(). */
bool loop_here(const struct loop *l);

/* For uv_timer_init() and the like. Loop thread only. */
uv_loop_t *loop_uv(struct loop *l);

#endif
