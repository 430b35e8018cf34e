/* The fetch engine at its limits: memory, budget, disk, time, cancelled reads.
 */
#include "tests/unit/fetch-rig.h"

#define SMALL (4 * MIB) /* the least possible memory */

static void small_rig(struct rig *rig)
{
	rig_init(rig, (struct fetch_config){.memory_bytes = SMALL},
		 (struct store_config){0});
}

static void ends_well(struct rig *rig, const struct reader *r)
{
	UNTIL(rig, r->calls == 1);
	EQ(r->r, 0);
}

/* ---- Readers that give up ---- */

#define LEAVERS 60

/* Each for a chunk far from the others', of which half has come. All leave but
 * the first and the last. */
static void few_go_on_for_nobody(void)
{
	static struct reader r[LEAVERS];
	struct reader late = {0};
	struct content c;
	struct rig rig;
	struct fake *f;
	uint64_t size = UINT64_C(16) << 40;

	rig_new(&rig);
	f = &rig.fakes[0];
	content_init(&rig, &c, BLOB_URL, 1, size);
	memset(r, 0, sizeof(r));
	for (uint64_t i = 0; i < LEAVERS; i++)
		start_read(&rig, &r[i], &c, i * 1000 * MIB, CHUNK_SIZE);
	turns(&rig);
	EQ(asks(f), LEAVERS);
	for (unsigned int i = 0; i < LEAVERS; i++)
		OK(give(ask_of(f, i), 100000));
	for (int i = 1; i < LEAVERS - 1; i++)
		fetch_read_cancel(&r[i].rd);
	UNTIL(&rig, asks(f) == 18);
	EQ(f->starts, LEAVERS); /* none was begun anew */
	EQ(r[0].calls + r[LEAVERS - 1].calls, 0);

	/* The latest go on, and one that is wanted again is wanted. */
	start_read(&rig, &late, &c, (LEAVERS - 2) * 1000 * MIB, CHUNK_SIZE);
	turns(&rig);
	EQ(f->starts, LEAVERS);
	/* What ends without its bytes is not tried again for nobody. */
	answer(ask_of(f, 1), -ECONNRESET);
	turns(&rig);
	EQ(f->starts, LEAVERS);
	f->behave = honest;
	ends_well(&rig, &r[0]);
	ends_well(&rig, &r[LEAVERS - 1]);
	ends_well(&rig, &late);
	UNTIL(&rig, idle(&rig));
	EQ(f->starts, LEAVERS);
	rig_release(&rig);
}

/* ---- Memory ---- */

static void pauses_for_memory(void)
{
	struct content c, d;
	struct reader lent[4] = {0}, r = {0}, more = {0};
	struct fake *f;
	struct rig rig;

	small_rig(&rig);
	f = &rig.fakes[0];
	content_init(&rig, &c, BLOB_URL, 1, 4 * MIB);
	content_init(&rig, &d, BLOB_URL, 2, 4 * MIB);
	f->behave = honest;
	for (uint32_t i = 0; i < 4; i++) {
		lent[i].keep = true;
		start_read(&rig, &lent[i], &c, i * CHUNK_SIZE, CHUNK_SIZE);
		ends_well(&rig, &lent[i]);
		OK(lent[i].held[0] != NULL);
	}
	UNTIL(&rig, blob_missing(c.b) == 0);
	EQ(memory_now(&rig), SMALL);
	start_read(&rig, &r, &d, 0, CHUNK_SIZE);
	start_read(&rig, &more, &d, 3 * MIB, CHUNK_SIZE);
	turns(&rig);
	EQ(asks(f), 2);
	OK(ask_of(f, 0)->paused && ask_of(f, 1)->paused);
	EQ(r.calls + more.calls, 0);
	chunk_buf_unref(&lent[2].held[0]);
	UNTIL(&rig, r.calls + more.calls == 2);
	EQ(r.r, 0);
	EQ(more.r, 0);
	EQ(f->sent, 6 * MIB);
	for (uint32_t i = 0; i < 4; i++)
		chunk_buf_unref(&lent[i].held[0]);
	/* All memory is free when nothing is in flight. */
	UNTIL(&rig, memory_now(&rig) == 0);
	OK(rig.most_memory <= SMALL);
	rig_release(&rig);
}

#define MANY 8

/* More reads than the memory allows, each over the end of the first chunk of
 * another blob. */
static void read_over_chunk_ends(struct rig *rig, struct content c[MANY],
				 struct reader r[MANY], bool prefetch)
{
	small_rig(rig);
	for (uint32_t i = 0; i < MANY; i++) {
		content_init(rig, &c[i], BLOB_URL, i, 3 * MIB);
		if (prefetch)
			fetch_prefetch(rig->fetch, c[i].b, MIB, 2 * MIB);
		start_read(rig, &r[i], &c[i], MIB - 10, 20);
	}
	turns(rig);
	EQ(asks(&rig->fakes[0]), MANY);
}

/* Pieces across the end of a chunk, from more requests than buffers: no request
 * may keep buffers that the others need. */
static void no_deadlock_over_chunk_ends(void)
{
	struct rig rig;
	struct content c[MANY];
	struct reader r[MANY] = {0};
	struct fake *f = &rig.fakes[0];
	unsigned int open, rounds = 0;

	read_over_chunk_ends(&rig, c, r, true);
	do {
		open = 0;
		list_for_each_safe (n, &f->asks) {
			struct ask *a = list_entry(n, struct ask, node);

			if (give(a, 700000) && all_given(a))
				answer(a, 0);
			else
				open++;
		}
		turn_wait(&rig, true);
	} while (open > 0 && ++rounds < 100000);
	EQ(open, 0);
	for (int i = 0; i < MANY; i++) {
		ends_well(&rig, &r[i]);
		UNTIL(&rig, blob_missing(c[i].b) == 0);
		EQ(read_all(&rig, &c[i]), 0);
	}
	EQ(f->sent, 24 * MIB);
	OK(rig.most_memory <= SMALL);
	rig_release(&rig);
}

/* Reads over two chunks; each holds the first while it waits for the second. */
static void no_deadlock_of_readers(void)
{
	struct rig rig;
	struct content c[MANY];
	struct reader r[MANY] = {0};
	struct fake *f = &rig.fakes[0];

	read_over_chunk_ends(&rig, c, r, false);
	for (unsigned int i = 0; i < MANY; i++)
		(void)give(ask_of(f, i), MIB);
	for (int i = 0; i < MANY; i++)
		UNTIL(&rig, blob_has(c[i].b, 0) || ask_of(f, 4) != NULL);
	f->behave = honest;
	for (int i = 0; i < MANY; i++)
		ends_well(&rig, &r[i]);
	OK(rig.most_memory <= SMALL);
	rig_release(&rig);
}

struct sequence {
	struct reader r;
	uint64_t next;
	uint32_t step;
	int bad;
};

static void read_next(struct reader *r)
{
	struct sequence *s = container_of(r, struct sequence, r);
	uint64_t off = s->next;

	if (r->calls && r->r)
		s->bad++;
	if (off >= r->c->size)
		return;
	s->next = min_u64(off + s->step, r->c->size);
	r->then = read_next;
	start_read(r->rig, r, r->c, off, (uint32_t)(s->next - off));
	r->calls = 0;
}

static bool at_end(const struct sequence *s)
{
	return s->next == s->r.c->size && s->r.calls > 0;
}

/* n parallel readers from start to end: the first in steps of `step` bytes,
 * each further one in steps of `step` more. */
static void read_in_sequence(struct rig *rig, struct content *c, uint32_t n,
			     uint32_t step, uint32_t more)
{
	struct sequence s[5];

	BUG_ON(n > ARRAY_SIZE(s));
	memset(s, 0, sizeof(s));
	for (uint32_t i = 0; i < n; i++) {
		s[i].r.rig = rig;
		s[i].r.c = c;
		s[i].step = step + i * more;
		read_next(&s[i].r);
	}
	for (uint32_t i = 0; i < n; i++) {
		UNTIL(rig, at_end(&s[i]));
		EQ(s[i].bad, 0);
	}
}

static void larger_than_memory(void)
{
	struct content c;
	struct rig rig;

	small_rig(&rig);
	content_init(&rig, &c, BLOB_SHA256, 3, 24 * MIB + 4321);
	rig.fakes[0].behave = honest;
	fetch_prefetch(rig.fetch, c.b, 0, c.size);
	read_in_sequence(&rig, &c, 5, 131072, 200000);
	EQ(rig.fakes[0].sent, c.size);
	OK(rig.most_memory <= SMALL);
	EQ(blob_get_state(c.b), BLOB_VERIFIED);
	rig_release(&rig);
}

/* ---- Prefetch ---- */

static void one_worker_rig(struct rig *rig, struct content *c,
			   struct content *d)
{
	rig_init(rig, (struct fetch_config){.workers = 1},
		 (struct store_config){0});
	content_init(rig, c, BLOB_URL, 1, 40 * MIB);
	content_init(rig, d, BLOB_URL, 2, 6 * MIB);
}

static void prefetch_and_promotion(void)
{
	struct content c, d;
	struct reader r = {0};
	struct fake *f;
	struct rig rig;

	one_worker_rig(&rig, &c, &d);
	f = &rig.fakes[0];
	fetch_prefetch(rig.fetch, c.b, MIB + 5, 2 * MIB);
	fetch_prefetch(rig.fetch, d.b, 0, UINT64_MAX);
	fetch_prefetch(rig.fetch, d.b, 6 * MIB, 1);
	turns(&rig);
	EQ(asks(f), 1);
	OK(ask_of(f, 0)->rq->background);
	EQ(ask_of(f, 0)->rq->offset, MIB);
	EQ(ask_of(f, 0)->rq->length, 3 * MIB);
	/* A read wants it: it starts, with the chunks behind it. */
	start_read(&rig, &r, &d, 2 * MIB, 100);
	turns(&rig);
	EQ(asks(f), 2);
	OK(!ask_of(f, 1)->rq->background);
	EQ(ask_of(f, 1)->rq->offset, 2 * MIB);
	EQ(ask_of(f, 1)->rq->length, 4 * MIB);
	deliver(ask_of(f, 1));
	ends_well(&rig, &r);
	/* Chunks that are in flight or present are not requested again. */
	fetch_prefetch(rig.fetch, d.b, 0, d.size);
	fetch_prefetch(rig.fetch, c.b, 0, 5 * MIB);
	UNTIL(&rig, blob_missing(d.b) == 2);
	EQ(asks(f), 1);
	deliver(ask_of(f, 0));
	UNTIL(&rig, asks(f) == 1);
	EQ(ask_of(f, 0)->rq->length, 2 * MIB);
	deliver(ask_of(f, 0));
	f->behave = honest;
	UNTIL(&rig, blob_missing(c.b) == 35 && blob_missing(d.b) == 0);
	EQ(f->sent, 11 * MIB);
	rig_release(&rig);
}

static void prefetch_forgotten(void)
{
	struct content c, d;
	struct fake *f;
	struct rig rig;

	one_worker_rig(&rig, &c, &d);
	f = &rig.fakes[0];
	fetch_prefetch_cancel(rig.fetch, c.b);
	fetch_prefetch_post(rig.fetch, c.b, 0, MIB, false);
	turns(&rig);
	fetch_prefetch(rig.fetch, c.b, 3 * MIB, MIB);
	fetch_prefetch(rig.fetch, d.b, 0, 2 * MIB);
	fetch_prefetch_cancel(rig.fetch, c.b);
	deliver(ask_of(f, 0));
	UNTIL(&rig, asks(f) == 1);
	OK(ask_of(f, 0)->c == &d);
	deliver(ask_of(f, 0));
	UNTIL(&rig, idle(&rig));
	EQ(asks(f), 0);
	EQ(blob_missing(d.b), 4);
	EQ(blob_missing(c.b), 39);
	/* A failing prefetch is not repeated for ever. */
	fetch_prefetch(rig.fetch, d.b, 5 * MIB, MIB);
	turns(&rig);
	answer(ask_of(f, 0), -ECONNRESET);
	turns(&rig);
	EQ(asks(f), 0);
	OK(idle(&rig));
	rig_release(&rig);
}

/* A registry that hangs holds neither the only worker nor the memory for the
 * bytes that it does not send. */
static void prefetch_beside_a_hanging_one(void)
{
	struct content c, d;
	struct fake *f;
	struct rig rig;

	rig_init(&rig,
		 (struct fetch_config){.workers = 1,
				       .memory_bytes = 4 * MIB,
				       .stall_ms = 300},
		 (struct store_config){0});
	content_init(&rig, &c, BLOB_URL, 1, 40 * MIB);
	content_init(&rig, &d, BLOB_URL, 2, 2 * MIB);
	f = &rig.fakes[0];
	fetch_prefetch(rig.fetch, c.b, 0, 20 * MIB);
	fetch_prefetch(rig.fetch, d.b, 0, d.size);
	turns(&rig);
	EQ(asks(f), 1);
	OK(give(ask_of(f, 0), MIB));
	UNTIL(&rig, asks(f) == 2);
	OK(ask_of(f, 1)->c == &d);
	EQ(f->cancels, 0);
	deliver(ask_of(f, 1));
	UNTIL(&rig, blob_missing(d.b) == 0);
	/* The prefetch continues. */
	f->behave = honest;
	UNTIL(&rig, blob_missing(c.b) == 20);
	UNTIL(&rig, idle(&rig));
	EQ(f->starts, 2);
	rig_release(&rig);
}

/* ---- Cancel and stop ---- */

static void canceled(void)
{
	struct content c, g;
	struct reader r = {0}, other = {0};
	struct fetch_stats st;
	struct fake *f;
	struct rig rig;

	rig_new(&rig);
	f = &rig.fakes[0];
	content_init(&rig, &c, BLOB_URL, 1, 4 * MIB);
	content_init(&rig, &g, BLOB_SHA256, 2, MIB);
	/* Before the request. */
	start_read(&rig, &r, &c, MIB - 10, 20);
	fetch_read_cancel(&r.rd);
	fetch_read_cancel(&r.rd);
	EQ(r.calls, 0);
	turns(&rig);
	EQ(r.calls, 1);
	EQ(r.r, -ECANCELED);
	EQ(f->starts, 0);
	/* During the request: the other reader gets the bytes. */
	start_read(&rig, &r, &c, MIB - 10, 20);
	start_read(&rig, &other, &c, 0, 100);
	turns(&rig);
	OK(give(ask_of(f, 0), 99));
	fetch_read_cancel(&r.rd);
	OK(give(ask_of(f, 0), 1));
	turns(&rig);
	EQ(r.r, -ECANCELED);
	EQ(other.calls, 1);
	EQ(other.r, 0);
	/* With one chunk lent, and done() due already. */
	start_read(&rig, &r, &c, MIB - 10, 20);
	start_read(&rig, &other, &c, MIB - 10, 20);
	OK(give(ask_of(f, 0), MIB));
	turns(&rig);
	EQ(r.calls, 1);
	start_read(&rig, &r, &c, MIB - 10, 20);
	fetch_read_cancel(&r.rd);
	turns(&rig);
	EQ(r.calls, 1);
	EQ(r.r, 0);
	start_read(&rig, &r, &c, 2 * MIB - 10, 20);
	turns(&rig);
	fetch_read_cancel(&r.rd);
	turns(&rig);
	EQ(r.r, -ECANCELED);
	deliver(ask_of(f, 0));
	answer(ask_of(f, 0), -ECONNRESET);
	UNTIL(&rig, blob_missing(c.b) == 2);
	/* During the pause before a retry: no read wants the chunk any more. */
	start_read(&rig, &r, &c, 3 * MIB, 20);
	turns(&rig);
	answer(ask_of(f, 0), -ECONNRESET);
	turns(&rig);
	fetch_read_cancel(&r.rd);
	UNTIL(&rig, idle(&rig));
	EQ(r.r, -ECANCELED);
	EQ(asks(f), 0);
	/* While the digest is checked, or just before. */
	for (int i = 0; i < 30; i++) {
		start_read(&rig, &r, &g, 0, CHUNK_SIZE);
		turns(&rig);
		deliver(ask_of(f, 0));
		UNTIL(&rig, blob_missing(g.b) == 0);
		for (int k = 0; k < i % 3; k++)
			turn_wait(&rig, false);
		fetch_read_cancel(&r.rd);
		UNTIL(&rig, r.calls == 1);
		OK(r.r == -ECANCELED || r.r == 0);
		EQ(read_now(&rig, &g, 5, 10), 0);
		evict_all(&rig, &g);
	}
	fetch_stats(rig.fetch, &st);
	EQ(st.failed_reads, 0);
	rig_release(&rig);
}

/* A chain of reads, each started in the done() of the one before, does not
 * block the loop. */
static void again_at_once(struct reader *r)
{
	unsigned int calls = r->calls;

	start_read(r->rig, r, r->c, 0, 100);
	r->calls = calls;
}

static void readers_do_not_starve_the_loop(void)
{
	struct content c;
	struct reader r = {0};
	struct rig rig;

	rig_new(&rig);
	rig.fakes[0].behave = honest;
	content_init(&rig, &c, BLOB_URL, 1, MIB);
	EQ(read_all(&rig, &c), 0);
	r.then = again_at_once;
	start_read(&rig, &r, &c, 0, 100);
	turn_wait(&rig, false);
	OK(r.calls < 3);
	turns(&rig);
	OK(r.calls > 3);
	r.then = NULL;
	UNTIL(&rig, (fetch_read_cancel(&r.rd), true));
	turns(&rig);
	rig_release(&rig);
}

static void stop_with_all_under_way(void)
{
	struct content c[10];
	struct reader r[12] = {0}, lent[2] = {0}, late = {0};
	struct fake *f;
	struct rig rig;

	small_rig(&rig);
	f = &rig.fakes[0];
	for (uint64_t i = 0; i < 10; i++)
		content_init(&rig, &c[i], i % 2 ? BLOB_URL : BLOB_SHA256, i,
			     (i + 1) * MIB);
	/* One stored, one lent; one to be retried; one being checked; some
	 * running, some paused, some queued, one half served. */
	lent[0].keep = true;
	start_read(&rig, &lent[0], &c[9], 0, 100);
	turns(&rig);
	deliver(ask_of(f, 0));
	UNTIL(&rig, lent[0].calls == 1 && blob_has(c[9].b, 0));
	start_read(&rig, &r[0], &c[9], MIB, 100);
	turns(&rig);
	answer(ask_of(f, 0), -ECONNREFUSED);
	for (int i = 1; i < 9; i++) {
		fetch_prefetch(rig.fetch, c[i].b, 0, c[i].size);
		start_read(&rig, &r[i], &c[i], MIB / 2, CHUNK_SIZE);
	}
	start_read(&rig, &r[9], &c[0], 0, CHUNK_SIZE);
	turns(&rig);
	deliver(ask_of(f, asks(f) - 1));
	for (unsigned int i = 0; i < asks(f); i++)
		(void)give(ask_of(f, i), MIB - 1 + i);
	start_read(&rig, &r[10], &c[9], MIB, 5);
	start_read(&rig, &r[11], &c[9], 2 * MIB, 5);
	chunk_buf_unref(&lent[0].held[0]);
	fetch_prefetch_post(rig.fetch, c[8].b, 0, MIB, false);
	fetch_stop(rig.fetch, on_stopped, &rig);
	fetch_prefetch(rig.fetch, c[8].b, 0, MIB);
	fetch_prefetch_post(rig.fetch, c[8].b, 0, MIB, false);
	start_read(&rig, &late, &c[8], 0, 5);
	UNTIL(&rig, rig.stopped);
	for (int i = 0; i < 12; i++) {
		EQ(r[i].calls, 1);
		OK(r[i].r == -ECANCELED || r[i].r == 0);
	}
	EQ(late.r, -ECANCELED);
	start_read(&rig, &late, &c[8], 0, 5);
	turns(&rig);
	EQ(late.calls, 1);
	EQ(late.r, -ECANCELED);
	fetch_prefetch_post(rig.fetch, c[8].b, 0, MIB, false);
	rig_release(&rig);
}

static void stop_while_checking(void)
{
	for (int i = 0; i < 20; i++) {
		struct content c;
		struct reader r = {0};
		struct rig rig;

		rig_new(&rig);
		content_init(&rig, &c, BLOB_SHA256, 1, 5 * MIB);
		rig.fakes[0].behave = honest;
		fetch_prefetch(rig.fetch, c.b, 0, c.size);
		start_read(&rig, &r, &c, 4 * MIB, 100);
		if (i % 2)
			UNTIL(&rig, blob_missing(c.b) == 0);
		else
			UNTIL(&rig, blob_missing(c.b) <= (uint32_t)i / 4);
		rig_stop(&rig);
		EQ(r.calls, 1);
		rig_release(&rig);
	}
}

static void nothing_done(void)
{
	struct fetch *none = NULL;
	struct rig rig;

	fetch_free(&none);
	rig_new(&rig);
	rig_release(&rig);
}

/* ---- A full disk ---- */

static bool tmpfs(char dir[5000], const char *options)
{
	(void)snprintf(dir, 5000, "%s/full", t_dir);
	if (mkdir(dir, 0700) == -1)
		BAIL("mkdir");
	return mount("tmpfs", dir, "tmpfs", 0, options) == 0;
}

static void fill_up(const char *dir)
{
	static char page[4096];
	char path[5100];
	CLEANUP(closep) int fd = -1;

	(void)snprintf(path, sizeof(path), "%s/filler", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, page, sizeof(page)) == (ssize_t)sizeof(page))
		;
}

static void full_disk(void)
{
	char dir[5000];
	struct content c, tiny[3];
	struct rig rig;
	unsigned int rounds;

	if (!tmpfs(dir, "size=8m")) {
		wipe();
		SKIP("cannot mount a tmpfs");
	}
	rig_init(&rig, (struct fetch_config){.memory_bytes = 8 * MIB},
		 (struct store_config){.dir = dir});
	rig.fakes[0].behave = honest;
	content_init(&rig, &c, BLOB_SHA256, 3, 30 * MIB + 9);
	read_in_sequence(&rig, &c, 4, 250000, 250000);
	OK(rig.most_memory <= 8 * MIB);
	OK(blob_missing(c.b) > 0);
	/* A chunk is served many times from one fetch. */
	rounds = rig.fakes[0].starts;
	for (uint32_t i = 0; i < 8; i++)
		EQ(read_now(&rig, &c, 29 * MIB + i * 100000, 100000), 0);
	OK(rig.fakes[0].starts - rounds <= 2);
	/* Full to the last page. A blob of one chunk is checked all the same.
	 */
	evict_all(&rig, &c);
	fill_up(dir);
	for (uint64_t i = 0; i < 3; i++)
		content_init(&rig, &tiny[i], BLOB_SHA256, 50 + i, 300000);
	tiny[0].wrong_times = 1;
	tiny[1].wrong_times = 100;
	for (int i = 0; i < 2; i++) {
		struct reader r = {.rig = &rig, .c = &tiny[2]};

		r.rd = (struct fetch_read){.blob = tiny[2].b,
					   .len = 10,
					   .stored = true,
					   .done = reader_done};
		fetch_read_start(rig.fetch, &r.rd);
		UNTIL(&rig, r.calls == 1);
		EQ(r.r, -ENOSPC);
	}
	EQ(read_now(&rig, &tiny[0], 0, 300000), 0);
	EQ(read_now(&rig, &tiny[1], 0, 300000), -EBADMSG);
	EQ(read_now(&rig, &tiny[2], 5, 100), 0);
	EQ(blob_missing(tiny[0].b) + blob_missing(tiny[2].b), 2);
	rig.mounted = dir;
	rig_release(&rig);
}

int main(void)
{
	rig_begin("test_fetch_limits");
	RUN(pauses_for_memory);
	RUN(no_deadlock_over_chunk_ends);
	RUN(no_deadlock_of_readers);
	RUN(larger_than_memory);
	RUN(prefetch_and_promotion);
	RUN(prefetch_forgotten);
	RUN(prefetch_beside_a_hanging_one);
	RUN(canceled);
	RUN(few_go_on_for_nobody);
	RUN(readers_do_not_starve_the_loop);
	RUN(stop_with_all_under_way);
	RUN(stop_while_checking);
	RUN(nothing_done);
	RUN(full_disk);
	return t_end();
}
