/* The loop thread and the ways onto and off it.
 *
 * One thread, the one inside loop_run(), owns sockets, timers and all protocol
 * state. Other threads reach it with loop_post(). Work that blocks (disk,
 * hashing, LMDB) leaves it with loop_work() and comes back by itself.
 *
 * Rules: a posted task and a job's done() run exactly once, on the loop thread,
 * never from inside the call that started them, and with no lock held. So the
 * loop thread posts too, to call back later: no flag is needed to post once,
 * and loop_cancel() takes back what is not to run. */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <uv.h>

#include "base/list.h"

struct loop;

/* Embedded in the caller's object, all zero but for run. Must stay alive until
 * run() has begun or loop_cancel() has returned; only posting it again queues
 * it again. */
struct loop_task {
	struct list node; /* guarded by: the loop's mu, as is queued */
	bool queued;
	void (*run)(struct loop_task *t);
};

/* Embedded likewise; must stay alive until done() was called. */
struct loop_job {
	uv_work_t req;
	struct loop *loop;
	/* On a pool worker; may block. */
	void (*work)(struct loop_job *j);
	/* On the loop thread, after work(). */
	void (*done)(struct loop_job *j);
};

/* On 0 the caller owns *ret and ends it with loop_free(). -ENOMEM and what
 * uv_loop_init() gives. The calling thread need not be the loop thread. */
int loop_new(struct loop **ret);

/* Runs until loop_stop(). The calling thread is the loop thread meanwhile. */
void loop_run(struct loop *l);

/* From any thread: makes loop_run() return once the current callbacks are
 * done. */
void loop_stop(struct loop *l);

/* Runs tasks, jobs and closing handles that are left until none is, then frees
 * and NULLs. All other users must have closed their handles. NULL allowed. */
void loop_free(struct loop **l);

/* From any thread. Tasks run in the order in which they were posted. A task
 * that is queued already keeps its place and runs once for all posts before its
 * run() begins; run() sees all that the posting threads did before. */
void loop_post(struct loop *l, struct loop_task *t);

/* From the loop thread only. Takes the task out if it is queued. */
void loop_cancel(struct loop *l, struct loop_task *t);

/* From the loop thread only. Sets up and queues the job. */
void loop_work(struct loop *l, struct loop_job *j,
	       void (*work)(struct loop_job *j),
	       void (*done)(struct loop_job *j));

/* True on the thread that is inside loop_run(). */
bool loop_here(const struct loop *l);

/* For uv_timer_init() and the like; loop thread only. */
uv_loop_t *loop_uv(struct loop *l);

#endif
