/* Shared by the tests of the fetch engine: a store, a loop that the test runs
 * turn by turn, sources that the test scripts, and readers that compare every
 * byte. */
#ifndef TESTS_FETCH_RIG_H
#define TESTS_FETCH_RIG_H

#include <sys/mount.h>

#include "base/loop.h"
#include "fetch/fetch.h"
#include "tests/unit/store-helpers.h"

#define MAX_SOURCES 2

/* A blob of known content. */
struct content {
	struct blob *b;
	struct blob_key key;
	uint64_t seed, size;
	/* Requests that cover this byte get a wrong one, so many times. */
	uint64_t wrong_at;
	int wrong_times;
};

struct rig;

/* A running request. */
struct ask {
	struct list node;
	struct fake *fake;
	struct source_request *rq;
	struct content *c;
	uint64_t sent;
	bool wrong, paused, canceled;
	int left; /* for behave() */
};

struct fake {
	struct source source;
	struct rig *rig;
	struct list asks;
	int refuse; /* what start() returns */
	unsigned int starts, cancels, resumes, blamed;
	uint64_t sent; /* bytes that were taken */
	/* NULL: by hand. Called once a turn for each request; may end it. */
	void (*behave)(struct ask *a);
};

struct rig {
	struct loop *loop;
	struct store *store;
	struct fetch *fetch; /* atomic */
	uv_timer_t turn;
	struct fake fakes[MAX_SOURCES];
	struct content *contents[64];
	unsigned int ncontents;
	unsigned int events[BLOB_EVENTS]; /* atomic */
	uint64_t most_memory;
	bool stopped;
	const char *mounted; /* unmounted at the end */
};

/* One read, started again as often as needed. */
struct reader {
	struct fetch_read rd;
	struct rig *rig;
	struct content *c;
	unsigned int calls; /* result of done() */
	int r;		    /* 1: wrong bytes */
	uint32_t got;
	uint32_t npieces;
	bool keep; /* the pieces, in held[] */
	bool from_store;
	enum blob_state state; /* when done() was called */
	struct chunk_buf *held[2];
	void (*then)(struct reader *rd);
};

/* The log goes here while no test reads it. */
static int t_log_fd = -1;

static inline void rig_begin(const char *name)
{
	t_begin(name);
	if (!getenv("VERBOSE"))
		t_log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	log_set_fd(t_log_fd);
}

/* ---- Sources ---- */

static int fake_start(struct source *s, struct source_request *rq)
{
	struct fake *f = container_of(s, struct fake, source);
	struct ask *a;

	f->starts++;
	if (f->refuse)
		return f->refuse;
	a = calloc(1, sizeof(*a));
	if (!a)
		BAIL("calloc");
	a->fake = f;
	a->rq = rq;
	a->left = -1;
	for (unsigned int i = 0; i < f->rig->ncontents; i++)
		if (f->rig->contents[i]->b == rq->blob)
			a->c = f->rig->contents[i];
	OK(a->c && rq->length > 0 && rq->offset < a->c->size &&
	   rq->length <= a->c->size - rq->offset);
	if (a->c->wrong_times && rq->offset <= a->c->wrong_at &&
	    rq->offset + rq->length > a->c->wrong_at) {
		a->wrong = true;
		a->c->wrong_times--;
	}
	rq->source_data = a;
	list_add_tail(&f->asks, &a->node);
	return 0;
}

static void fake_blame(struct source *s, struct blob *b, uint16_t from,
		       uint64_t place)
{
	struct fake *f = container_of(s, struct fake, source);

	(void)b;
	(void)from;
	(void)place;
	f->blamed++;
}

static void fake_resume(struct source *s, struct source_request *rq)
{
	struct ask *a = rq->source_data;

	(void)s;
	OK(a->paused);
	a->paused = false;
	a->fake->resumes++;
}

static void fake_cancel(struct source *s, struct source_request *rq)
{
	struct ask *a = rq->source_data;

	(void)s;
	OK(!a->canceled);
	a->canceled = true;
	a->fake->cancels++;
}

static const struct source_ops fake_ops = {
	.name = "fake",
	.start = fake_start,
	.resume = fake_resume,
	.blame = fake_blame,
	.cancel = fake_cancel,
};

/* Delivers the next n bytes, or those that are left. False: the engine did not
 * take them. */
static inline bool give(struct ask *a, uint64_t n)
{
	CLEANUP(freep) uint8_t *buf = NULL;
	uint64_t off = a->rq->offset + a->sent;

	n = min_u64(n, a->rq->length - a->sent);
	if (n == 0 || a->paused || a->canceled)
		return !a->paused;
	buf = malloc(n);
	if (!buf)
		BAIL("malloc");
	fill(a->c->seed, off, buf, n);
	if (a->wrong && a->c->wrong_at >= off && a->c->wrong_at < off + n)
		buf[a->c->wrong_at - off] ^= 1;
	if (!a->rq->data(a->rq, buf, n)) {
		a->paused = true;
		return false;
	}
	a->sent += n;
	a->fake->sent += n;
	return true;
}

static inline void answer(struct ask *a, int r)
{
	struct source_request *rq = a->rq;

	list_del(&a->node);
	free(a);
	rq->done(rq, r, r ? strerror(-r) : "");
}

static inline bool all_given(const struct ask *a)
{
	return a->sent == a->rq->length;
}

/* Delivers all bytes, in pieces of an odd size. */
static inline void honest(struct ask *a)
{
	for (int i = 0; i < 20 && !all_given(a); i++)
		if (!give(a, 66667))
			return;
	if (all_given(a))
		answer(a, 0);
}

#define ask_of(f, i) ask_at(f, i, __LINE__)
static inline struct ask *ask_at(struct fake *f, unsigned int i, int line)
{
	list_for_each (n, &f->asks)
		if (i-- == 0)
			return list_entry(n, struct ask, node);
	printf("# line %d, %u starts\n", line, f->starts);
	BAIL("no such request");
}

static inline unsigned int asks(struct fake *f)
{
	unsigned int n = 0;

	list_for_each (it, &f->asks)
		n++;
	return n;
}

static inline void deliver(struct ask *a)
{
	while (!all_given(a))
		if (!give(a, 66667))
			return;
	answer(a, 0);
}

/* ---- The loop ---- */

static inline uint64_t memory_now(struct rig *rig)
{
	struct fetch_stats st;

	fetch_stats(rig->fetch, &st);
	return st.memory_bytes;
}

/* One turn of the sources and one of the loop. The loop waits for the next
 * event if `wait` is set and no source has bytes to send. */
static inline void turn_wait(struct rig *rig, bool wait)
{
	for (int i = 0; i < MAX_SOURCES; i++) {
		struct fake *f = &rig->fakes[i];

		list_for_each_safe (n, &f->asks) {
			struct ask *a = list_entry(n, struct ask, node);

			if (a->canceled)
				answer(a, -ECANCELED);
			else if (f->behave)
				f->behave(a);
		}
		list_for_each (n, &f->asks) {
			const struct ask *a = list_entry(n, struct ask, node);

			wait = wait && !a->canceled &&
			       (!f->behave || a->paused);
		}
	}
	(void)uv_run(loop_uv(rig->loop), wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
	if (rig->fetch)
		rig->most_memory = max_u64(rig->most_memory, memory_now(rig));
}

/* Runs everything that needs no source, no thread and no timer. */
static inline void turns(struct rig *rig)
{
	for (int i = 0; i < 20; i++)
		turn_wait(rig, false);
}

#define UNTIL(rig, cond)                                                       \
	do {                                                                   \
		uint64_t until_ = now_ms() + 120000;                           \
		while (!(cond) && now_ms() < until_)                           \
			turn_wait(rig, true);                                  \
		OK(cond);                                                      \
		if (!(cond))                                                   \
			BAIL(#cond);                                           \
	} while (0)

/* Keeps the loop from waiting for long. */
static void on_turn(uv_timer_t *t)
{
	(void)t;
}

/* True if no request, read or flight is left. */
static inline bool idle(struct rig *rig)
{
	struct fetch_stats st;

	fetch_stats(rig->fetch, &st);
	return st.flights == 0 && st.runs == 0 && st.reads == 0;
}

static void rig_event(void *arg, struct blob *b, enum blob_event ev)
{
	struct rig *rig = arg;
	struct fetch *f = __atomic_load_n(&rig->fetch, __ATOMIC_ACQUIRE);

	__atomic_fetch_add(&rig->events[ev], 1, __ATOMIC_SEQ_CST);
	if (f)
		fetch_store_event(f, b, ev);
}

static inline unsigned int rig_events(struct rig *rig, enum blob_event ev)
{
	return __atomic_load_n(&rig->events[ev], __ATOMIC_SEQ_CST);
}

static inline void rig_init(struct rig *rig, struct fetch_config fc,
			    struct store_config sc)
{
	struct fetch *f;
	struct error err;

	memset(rig, 0, sizeof(*rig));
	sc.dir = sc.dir ? sc.dir : t_dir;
	sc.commit_interval_ms = 5;
	sc.event = rig_event;
	sc.event_arg = rig;
	if (store_open(&sc, &rig->store, &err) < 0)
		BAIL(err.text);
	if (loop_new(&rig->loop) < 0)
		BAIL("loop_new");
	(void)uv_timer_init(loop_uv(rig->loop), &rig->turn);
	(void)uv_timer_start(&rig->turn, on_turn, 2, 2);
	fc.loop = rig->loop;
	fc.store = rig->store;
	if (fetch_new(&fc, &f) < 0)
		BAIL("fetch_new");
	for (int i = 0; i < MAX_SOURCES; i++) {
		rig->fakes[i].source.ops = &fake_ops;
		rig->fakes[i].rig = rig;
		list_init(&rig->fakes[i].asks);
	}
	fetch_add_source(f, &rig->fakes[0].source);
	__atomic_store_n(&rig->fetch, f, __ATOMIC_RELEASE);
}

static inline void rig_new(struct rig *rig)
{
	rig_init(rig, (struct fetch_config){0}, (struct store_config){0});
}

static inline void second_source(struct rig *rig)
{
	fetch_add_source(rig->fetch, &rig->fakes[1].source);
}

static inline void content_init(struct rig *rig, struct content *c,
				enum blob_kind kind, uint64_t seed,
				uint64_t size)
{
	*c = (struct content){.seed = seed, .size = size};
	c->key = kind == BLOB_URL ? url_key(seed) : sha_key(seed, size);
	c->b = make_blob(rig->store, c->key, size);
	rig->contents[rig->ncontents++] = c;
}

static void on_stopped(void *arg)
{
	struct rig *rig = arg;

	OK(!rig->stopped);
	rig->stopped = true;
}

static inline void rig_stop(struct rig *rig)
{
	fetch_stop(rig->fetch, on_stopped, rig);
	OK(!rig->stopped);
	UNTIL(rig, rig->stopped);
	for (int i = 0; i < MAX_SOURCES; i++)
		OK(list_empty(&rig->fakes[i].asks));
}

static inline void rig_release(struct rig *rig)
{
	struct fetch_stats st;

	if (!rig->stopped)
		rig_stop(rig);
	fetch_stats(rig->fetch, &st);
	EQ(st.flights, 0);
	EQ(st.runs, 0);
	EQ(st.reads, 0);
	EQ(st.memory_bytes, 0);
	uv_close((uv_handle_t *)&rig->turn, NULL);
	for (unsigned int i = 0; i < rig->ncontents; i++)
		blob_unref(&rig->contents[i]->b);
	store_close(&rig->store);
	loop_free(&rig->loop);
	fetch_free(&rig->fetch);
	if (rig->mounted)
		EQ(umount(rig->mounted), 0);
	wipe();
}

/* Chunks that are still in flight would be stored again. */
static inline void evict_all(struct rig *rig, struct content *c)
{
	UNTIL(rig, idle(rig));
	EQ(store_evict(rig->store, c->b), 0);
	EQ(blob_cached_bytes(c->b), 0);
}

/* ---- Readers ---- */

/* Copies the bytes of the pieces, as a user of the engine does. */
static inline int copy_pieces(struct reader *r, uint8_t *buf)
{
	struct fetch_read *rd = &r->rd;
	uint32_t at = 0;

	for (uint32_t i = 0; i < rd->npieces; i++) {
		const struct fetch_piece *p = &rd->piece[i];
		int e = 0;

		OK(p->len > 0 && at + p->len <= rd->len);
		if (p->mem)
			memcpy(buf + at, p->mem, p->len);
		else
			e = store_read(r->rig->store, rd->blob, rd->off + at,
				       buf + at, p->len);
		if (e < 0)
			return e;
		r->from_store |= !p->mem;
		at += (uint32_t)p->len;
	}
	EQ(at, rd->got);
	OK(at >= rd->min);
	return 0;
}

static void reader_done(struct fetch_read *rd, int e)
{
	struct reader *r = container_of(rd, struct reader, rd);
	CLEANUP(freep) uint8_t *buf = malloc(rd->len);

	if (!buf)
		BAIL("malloc");
	r->from_store = false;
	r->state = blob_get_state(rd->blob);
	if (e == 0)
		e = copy_pieces(r, buf);
	else
		EQ(rd->npieces, 0);
	if (e == -ENODATA || e == -EAGAIN) {
		fetch_read_start(r->rig->fetch, rd);
		return;
	}
	r->calls++;
	r->r = e;
	r->got = e == 0 ? rd->got : 0;
	r->npieces = rd->npieces;
	if (e == 0 && !same(r->c->seed, rd->off, buf, rd->got))
		r->r = 1;
	for (uint32_t i = 0; r->keep && i < rd->npieces; i++)
		if (rd->piece[i].buf)
			r->held[i] = chunk_buf_ref(rd->piece[i].buf);
	if (r->then)
		r->then(r);
}

static inline void read_range_min(struct rig *rig, struct reader *r,
				  struct content *c, uint64_t off, uint32_t len,
				  uint32_t min)
{
	r->rig = rig;
	r->c = c;
	r->calls = 0;
	r->rd = (struct fetch_read){.blob = c->b,
				    .off = off,
				    .len = len,
				    .min = min,
				    .unchecked = r->rd.unchecked,
				    .auth = r->rd.auth,
				    .done = reader_done};
	fetch_read_start(rig->fetch, &r->rd);
	EQ(r->calls, 0);
}

static inline void start_read(struct rig *rig, struct reader *r,
			      struct content *c, uint64_t off, uint32_t len)
{
	read_range_min(rig, r, c, off, len, 0);
}

/* The result of a read from start to end. */
static inline int read_now(struct rig *rig, struct content *c, uint64_t off,
			   uint32_t len)
{
	struct reader r = {0};

	start_read(rig, &r, c, off, len);
	UNTIL(rig, r.calls > 0);
	turns(rig);
	EQ(r.calls, 1);
	return r.r;
}

/* Reads chunk by chunk to the end. Returns the first result that is not 0. */
static inline int read_all(struct rig *rig, struct content *c)
{
	int first = 0;

	for (uint32_t i = 0; i < blob_chunks(c->b); i++) {
		int r = read_now(rig, c, i * CHUNK_SIZE,
				 blob_chunk_len(c->b, i));

		first = first ? first : r;
	}
	return first;
}

#endif
