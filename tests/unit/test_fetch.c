/* The fetch engine over a real store and a real loop, with scripted sources. */
#include "tests/unit/fetch-rig.h"

/* ---- Which chunks are fetched, and when readers get bytes ---- */

static void watermark(void)
{
	static const uint64_t pieces[] = {1, 7, 4088, 4096, 65537, 300001};
	struct content c;
	struct reader early = {0}, late = {0}, all = {0};
	struct fake *f;
	struct rig rig;
	struct ask *a;

	rig_new(&rig);
	f = &rig.fakes[0];
	content_init(&rig, &c, BLOB_SHA256, 1, 3 * MIB + 1000);
	start_read(&rig, &early, &c, MIB, 4096);
	start_read(&rig, &late, &c, MIB + 4090, 10);
	start_read(&rig, &all, &c, MIB, CHUNK_SIZE);
	turns(&rig);
	EQ(asks(f), 1);
	a = ask_of(f, 0);
	EQ(a->rq->offset, MIB);
	EQ(a->rq->length, MIB);
	OK(!a->rq->background);
	OK(a->rq->deadline_ms > now_ms() + 30000);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		OK(give(a, pieces[i]));
		turns(&rig);
		EQ(early.calls, a->sent >= 4096);
		EQ(late.calls, a->sent >= 4100);
		EQ(all.calls, 0);
	}
	EQ(early.r, 0);
	EQ(early.npieces, 1);
	OK(!early.from_store);
	EQ(late.r, 0);
	/* A late reader gets the bytes that arrived already at once. */
	start_read(&rig, &early, &c, MIB + 1, 1000);
	turns(&rig);
	EQ(early.calls, 1);
	EQ(early.r, 0);
	deliver(a);
	UNTIL(&rig, all.calls > 0);
	EQ(all.r, 0);
	UNTIL(&rig, blob_has(c.b, 1));
	EQ(blob_missing(c.b), 3);
	EQ(f->starts, 1);
	EQ(f->sent, MIB);
	/* Now from the store. */
	UNTIL(&rig, read_now(&rig, &c, MIB + 5, 100) == 0);
	EQ(f->starts, 1);
	rig_release(&rig);
}

static void part_of_a_read(void)
{
	struct content c;
	struct reader r = {0};
	struct rig rig;
	struct ask *a;

	rig_new(&rig);
	content_init(&rig, &c, BLOB_SHA256, 2, 4 * MIB);
	read_range_min(&rig, &r, &c, MIB - 1000, 900000, 1500);
	turns(&rig);
	EQ(asks(&rig.fakes[0]), 1);
	a = ask_of(&rig.fakes[0], 0);
	EQ(a->rq->offset, 0);
	EQ(a->rq->length, 2 * MIB);
	OK(give(a, MIB + 499));
	turns(&rig);
	EQ(r.calls, 0);
	OK(give(a, 3001));
	turns(&rig);
	EQ(r.calls, 1);
	EQ(r.r, 0);
	EQ(r.got, 1000 + 3500);
	EQ(r.npieces, 2);
	deliver(a);
	EQ(read_now(&rig, &c, MIB - 1000, 900000), 0);
	EQ(rig.fakes[0].starts, 1);
	rig_release(&rig);
}

/* A read with .stored wants the bytes in the store. */
static void only_when_stored(void)
{
	struct content c;
	struct reader r = {0}, plain = {0};
	struct rig rig;

	rig_new(&rig);
	content_init(&rig, &c, BLOB_SHA256, 2, 2 * MIB);
	for (uint32_t i = 0; i < 2; i++) {
		r = (struct reader){.rig = &rig, .c = &c};
		r.rd = (struct fetch_read){.blob = c.b,
					   .off = i * CHUNK_SIZE,
					   .len = 10,
					   .stored = true,
					   .done = reader_done};
		fetch_read_start(rig.fetch, &r.rd);
		start_read(&rig, &plain, &c, i * CHUNK_SIZE, 10);
		turns(&rig);
		OK(give(ask_of(&rig.fakes[0], 0), MIB - 1));
		turns(&rig);
		EQ(plain.calls, i == 0);
		EQ(r.calls, 0);
		deliver(ask_of(&rig.fakes[0], 0));
		UNTIL(&rig, r.calls == 1);
		EQ(r.r, 0);
		OK(r.from_store && blob_has(c.b, i));
	}
	EQ(r.state, BLOB_VERIFIED);
	UNTIL(&rig, plain.calls == 1);
	rig_release(&rig);
}

static void neighbours_in_one_request(void)
{
	static const uint32_t chunks[] = {5, 7, 4, 6, 10};
	struct content c;
	struct reader r[ARRAY_SIZE(chunks)] = {0};
	struct rig rig;

	rig_new(&rig);
	content_init(&rig, &c, BLOB_URL, 3, 20 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(chunks); i++)
		start_read(&rig, &r[i], &c, chunks[i] * CHUNK_SIZE, 100);
	fetch_prefetch(rig.fetch, c.b, 11 * MIB, 2 * MIB);
	turns(&rig);
	EQ(asks(&rig.fakes[0]), 2);
	EQ(ask_of(&rig.fakes[0], 0)->rq->offset, 4 * MIB);
	EQ(ask_of(&rig.fakes[0], 0)->rq->length, 4 * MIB);
	EQ(ask_of(&rig.fakes[0], 1)->rq->offset, 10 * MIB);
	EQ(ask_of(&rig.fakes[0], 1)->rq->length, 3 * MIB);
	rig.fakes[0].behave = honest;
	for (size_t i = 0; i < ARRAY_SIZE(chunks); i++) {
		UNTIL(&rig, r[i].calls > 0);
		EQ(r[i].r, 0);
	}
	rig_release(&rig);
}

static void each_byte_once(void)
{
	struct content c;
	static struct reader r[64];
	struct rig rig;
	unsigned int done;

	memset(r, 0, sizeof(r));
	rig_new(&rig);
	content_init(&rig, &c, BLOB_SHA256, 4, 9 * MIB + 77);
	rig.fakes[0].behave = honest;
	for (uint64_t i = 0; i < ARRAY_SIZE(r); i++)
		start_read(&rig, &r[i], &c, i * 2654435761 % (8 * MIB),
			   (uint32_t)(1 + i * 16000));
	do {
		done = 0;
		turn_wait(&rig, true);
		for (size_t i = 0; i < ARRAY_SIZE(r); i++)
			done += r[i].calls;
	} while (done < ARRAY_SIZE(r));
	for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
		EQ(r[i].r, 0);
		EQ(r[i].calls, 1);
	}
	EQ(read_all(&rig, &c), 0);
	EQ(rig.fakes[0].sent, c.size);
	EQ(blob_get_state(c.b), BLOB_VERIFIED);
	rig_release(&rig);
}

/* ---- Sources that fail ---- */

static void resumes_at_watermark(void)
{
	struct content c;
	struct reader r = {0};
	struct fake *f;
	struct rig rig;
	struct ask *a;

	rig_new(&rig);
	f = &rig.fakes[0];
	content_init(&rig, &c, BLOB_URL, 5, 4 * MIB);
	start_read(&rig, &r, &c, MIB + 500000, CHUNK_SIZE);
	turns(&rig);
	a = ask_of(f, 0);
	EQ(a->rq->offset, MIB);
	EQ(a->rq->length, 2 * MIB);
	OK(give(a, 300000));
	answer(a, -ECONNRESET);
	turns(&rig); /* it brought bytes: no pause */
	a = ask_of(f, 0);
	EQ(a->rq->offset, MIB + 300000);
	EQ(a->rq->length, 2 * MIB - 300000);
	OK(give(a, 1));
	answer(a, -ETIMEDOUT);
	turns(&rig);
	EQ(asks(f), 0); /* few bytes */
	EQ(r.calls, 0);
	UNTIL(&rig, asks(f) == 1);
	a = ask_of(f, 0);
	EQ(a->rq->offset, MIB + 300001);
	/* The source ends its answer early. */
	OK(give(a, MIB));
	answer(a, 0);
	turns(&rig);
	a = ask_of(f, 0);
	EQ(a->rq->offset, 2 * MIB + 300001);
	deliver(a);
	UNTIL(&rig, r.calls > 0);
	EQ(r.r, 0);
	EQ(r.calls, 1);
	EQ(f->sent, 2 * MIB);
	rig_release(&rig);
}

static void a_liars_bytes_are_dropped(void)
{
	struct content c;
	struct reader first = {.keep = true}, r = {0};
	struct rig rig;
	struct ask *a;
	uint8_t *seen;

	rig_new(&rig);
	content_init(&rig, &c, BLOB_URL, 6, 2 * MIB);
	c.wrong_at = 1000;
	c.wrong_times = 1;
	start_read(&rig, &first, &c, 0, 100);
	start_read(&rig, &r, &c, 0, CHUNK_SIZE);
	turns(&rig);
	a = ask_of(&rig.fakes[0], 0);
	OK(give(a, 200000));
	turns(&rig);
	EQ(first.calls, 1);
	seen = malloc(100);
	if (!seen)
		BAIL("malloc");
	memcpy(seen, first.rd.piece[0].mem, 100);
	answer(a, -EBADMSG);
	UNTIL(&rig, asks(&rig.fakes[0]) == 1);
	a = ask_of(&rig.fakes[0], 0);
	EQ(a->rq->offset, 0);
	deliver(a);
	UNTIL(&rig, r.calls > 0);
	EQ(r.r, 0);
	/* Lent bytes are not overwritten. */
	EQ(memcmp(seen, first.rd.piece[0].mem, 100), 0);
	free(seen);
	chunk_buf_unref(&first.held[0]);
	rig_release(&rig);
}

static void fail_with(struct rig *rig, int source, int r)
{
	UNTIL(rig, asks(&rig->fakes[source]) == 1);
	answer(ask_of(&rig->fakes[source], 0), r);
}

static void errors_told(void)
{
	static const int final[] = {-ENOENT, -EACCES, -ESTALE};
	struct content c;
	struct reader r = {0}, other = {0};
	struct rig rig;

	rig_new(&rig);
	second_source(&rig);
	content_init(&rig, &c, BLOB_SHA256, 7, 3 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(final); i++) {
		start_read(&rig, &r, &c, 0, 100);
		start_read(&rig, &other, &c, MIB - 5, 10);
		turns(&rig);
		fail_with(&rig, 0, -ENOENT);
		turns(&rig);
		EQ(r.calls, 0);
		fail_with(&rig, 1, final[i]);
		turns(&rig);
		EQ(r.calls, 1);
		EQ(r.r, final[i]);
		EQ(other.calls, 1);
		EQ(other.r, final[i]);
	}
	/* One source may have it but does not answer: no "no" yet. */
	start_read(&rig, &r, &c, 0, 100);
	turns(&rig);
	fail_with(&rig, 0, -ECONNREFUSED);
	turns(&rig);
	fail_with(&rig, 1, -ENOENT);
	turns(&rig);
	EQ(r.calls, 0);
	/* In the next round both sources agree. */
	fail_with(&rig, 0, -ENOENT);
	turns(&rig);
	fail_with(&rig, 1, -ENOENT);
	turns(&rig);
	EQ(r.calls, 1);
	EQ(r.r, -ENOENT);
	rig_release(&rig);
}

static void second_source_takes_over(void)
{
	struct content c, d;
	struct rig rig;

	rig_new(&rig);
	second_source(&rig);
	rig.fakes[0].refuse = -ENOENT;
	rig.fakes[1].behave = honest;
	content_init(&rig, &c, BLOB_SHA256, 8, 2 * MIB);
	content_init(&rig, &d, BLOB_SHA256, 9, 3 * MIB);
	EQ(read_all(&rig, &c), 0);
	/* The same for prefetch, and if the first source answers later. */
	rig.fakes[0].refuse = 0;
	fetch_prefetch(rig.fetch, d.b, 0, d.size);
	fail_with(&rig, 0, -ENOENT);
	UNTIL(&rig, blob_missing(d.b) == 0);
	EQ(rig.fakes[1].sent, 5 * MIB);
	rig_release(&rig);
}

static void nobody_knows(void)
{
	struct content c;
	struct reader r = {0}, straddle = {0};
	struct rig rig;

	rig_new(&rig);
	rig.fakes[0].refuse = -ENOENT;
	content_init(&rig, &c, BLOB_SHA256, 10, 3 * MIB);
	start_read(&rig, &straddle, &c, MIB - 5, 10);
	start_read(&rig, &r, &c, 0, 100);
	fetch_prefetch(rig.fetch, c.b, 0, c.size);
	turns(&rig);
	EQ(r.calls, 1);
	EQ(r.r, -ENOENT);
	EQ(straddle.calls, 1);
	EQ(straddle.r, -ENOENT);
	fetch_prefetch(rig.fetch, c.b, 0, c.size);
	turns(&rig);
	/* For example without memory. */
	rig.fakes[0].refuse = -ENOMEM;
	start_read(&rig, &r, &c, 0, 100);
	turns(&rig);
	EQ(r.calls, 0);
	rig.fakes[0].refuse = 0;
	rig.fakes[0].behave = honest;
	UNTIL(&rig, r.calls == 1);
	EQ(r.r, 0);
	rig_release(&rig);
}

static void stalls(void)
{
	struct content c;
	struct reader r = {0};
	struct fake *f;
	struct rig rig;

	rig_init(&rig, (struct fetch_config){.stall_ms = 30},
		 (struct store_config){0});
	second_source(&rig);
	f = rig.fakes;
	content_init(&rig, &c, BLOB_URL, 11, 8 * MIB);
	start_read(&rig, &r, &c, 0, CHUNK_SIZE);
	fetch_prefetch(rig.fetch, c.b, MIB, 2 * MIB);
	UNTIL(&rig, f[0].cancels == 1); /* not a byte */
	UNTIL(&rig, asks(&f[1]) == 1);
	OK(give(ask_of(&f[1], 0), 100000));
	UNTIL(&rig, f[1].cancels == 1);
	UNTIL(&rig, asks(&f[0]) == 1);
	EQ(ask_of(&f[0], 0)->rq->offset, 100000);
	/* Without a reader the request is left alone. */
	deliver(ask_of(&f[0], 0));
	UNTIL(&rig, r.calls == 1);
	EQ(r.r, 0);
	EQ(f[0].starts, 2);
	EQ(f[1].starts, 1);
	rig_release(&rig);
}

static unsigned int lines_with(int fd, const char *text)
{
	static char log[1 << 16];
	ssize_t n = pread(fd, log, sizeof(log) - 1, 0);
	unsigned int found = 0;

	log[n > 0 ? n : 0] = '\0';
	for (const char *p = log; (p = strstr(p, text)); p++)
		found++;
	return found;
}

static void deadlines(void)
{
	int log = open(t_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	struct content c;
	struct reader r = {0}, later = {0};
	struct rig rig;

	if (log < 0)
		BAIL("O_TMPFILE");
	rig_init(&rig, (struct fetch_config){.read_timeout_ms = 1000},
		 (struct store_config){0});
	content_init(&rig, &c, BLOB_SHA256, 12, 3 * MIB);
	log_set_fd(log);
	start_read(&rig, &r, &c, 0, 100);
	later.rig = &rig;
	later.c = &c;
	later.rd = (struct fetch_read){.blob = c.b,
				       .len = 50,
				       .deadline_ms = now_ms() + 100000,
				       .done = reader_done};
	fetch_read_start(rig.fetch, &later.rd);
	turns(&rig);
	fail_with(&rig, 0, -ECONNREFUSED);
	UNTIL(&rig, r.calls == 1);
	log_set_fd(t_log_fd);
	EQ(r.r, -ETIMEDOUT);
	EQ(lines_with(log, "read failed"), 1);
	EQ(lines_with(log, "fake: "), 1); /* the source and the reason */
	EQ(later.calls, 0);
	UNTIL(&rig, asks(&rig.fakes[0]) == 1);
	deliver(ask_of(&rig.fakes[0], 0));
	UNTIL(&rig, later.calls == 1);
	EQ(later.r, 0);
	/* A deadline that has passed already. */
	later.rd.deadline_ms = 1;
	fetch_read_start(rig.fetch, &later.rd);
	UNTIL(&rig, later.calls == 2);
	EQ(later.r, -ETIMEDOUT);
	(void)close(log);
	rig_release(&rig);
}

/* ---- Wrong bytes ---- */

/* The last chunk is not delivered before the whole blob is checked. */
static void gate(void)
{
	struct content c;
	struct reader r[3] = {0}, early = {0};
	struct rig rig;
	struct ask *a;

	rig_new(&rig);
	content_init(&rig, &c, BLOB_SHA256, 13, 3 * MIB);
	for (uint32_t i = 0; i < 3; i++)
		start_read(&rig, &r[i], &c, i * CHUNK_SIZE, CHUNK_SIZE);
	start_read(&rig, &early, &c, 2 * MIB, 1);
	turns(&rig);
	a = ask_of(&rig.fakes[0], 0);
	OK(give(a, MIB));
	turns(&rig);
	EQ(r[0].calls, 1);
	OK(give(a, MIB + 100));
	turns(&rig);
	EQ(r[1].calls, 1);
	/* No byte of the last chunk, not even those that have arrived. */
	EQ(early.calls, 0);
	OK(give(a, MIB - 200));
	turns(&rig);
	EQ(early.calls, 0);
	deliver(a);
	UNTIL(&rig, r[2].calls == 1 && early.calls == 1);
	EQ(r[2].r, 0);
	EQ(r[2].state, BLOB_VERIFIED);
	EQ(early.state, BLOB_VERIFIED);
	rig_release(&rig);
}

static void wrong_once_small(void)
{
	struct content c;
	struct reader r = {0}, one = {0};
	struct rig rig;

	rig_new(&rig);
	content_init(&rig, &c, BLOB_SHA256, 14, 5000);
	rig.fakes[0].behave = honest;
	c.wrong_at = 4000;
	c.wrong_times = 1;
	start_read(&rig, &r, &c, 0, 5000);
	start_read(&rig, &one, &c, 10, 1);
	UNTIL(&rig, r.calls == 1 && one.calls == 1);
	EQ(r.r, 0);
	EQ(one.r, 0);
	EQ(r.state, BLOB_VERIFIED);
	EQ(rig.fakes[0].starts, 2);
	EQ(rig_events(&rig, BLOB_EV_MISMATCH), 1);
	rig_release(&rig);
}

static void wrong_for_ever(uint64_t size, uint64_t wrong_at)
{
	struct content c;
	struct rig rig;
	int log = open(t_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	unsigned int starts;

	if (log < 0)
		BAIL("O_TMPFILE");
	rig_new(&rig);
	log_set_fd(log);
	content_init(&rig, &c, BLOB_SHA256, 15, size);
	rig.fakes[0].behave = honest;
	c.wrong_at = wrong_at;
	c.wrong_times = 1000000;
	OK(read_all(&rig, &c) != 0); /* 1 if the wrong chunk came early */
	UNTIL(&rig, read_now(&rig, &c, size - 10, 10) == -EBADMSG);
	UNTIL(&rig, blob_get_state(c.b) == BLOB_BAD);
	UNTIL(&rig, rig_events(&rig, BLOB_EV_MISMATCH) == 2);
	EQ(read_now(&rig, &c, 0, 10), -EBADMSG);
	starts = rig.fakes[0].starts;
	EQ(read_now(&rig, &c, size - 1, 1), -EBADMSG);
	fetch_prefetch(rig.fetch, c.b, 0, size);
	turns(&rig);
	EQ(rig.fakes[0].starts, starts);
	EQ(lines_with(log, "the blob is fetched again"), 1);
	EQ(lines_with(log, "the blob is marked bad"), 1);
	log_set_fd(t_log_fd);
	/* After eviction the blob may be fetched again. */
	c.wrong_times = 0;
	evict_all(&rig, &c);
	EQ(read_all(&rig, &c), 0);
	EQ(blob_get_state(c.b), BLOB_VERIFIED);
	(void)close(log);
	rig_release(&rig);
}

static void wrong_for_ever_small(void)
{
	wrong_for_ever(5000, 17);
}

static void wrong_for_ever_large(void)
{
	wrong_for_ever(5 * MIB + 5, 2 * MIB + 17);
}

/* A reader that waits for the end may have read wrong bytes before. The order
 * of writes decides which chunk is the last. The engine fetches the blob again
 * by itself, for later readers. */
static void wrong_once_large(void)
{
	struct content c;
	struct reader r[6] = {0};
	struct rig rig;
	unsigned int told = 0;
	struct ask *a;

	rig_new(&rig);
	content_init(&rig, &c, BLOB_SHA256, 16, 5 * MIB + 5);
	c.wrong_at = 3 * MIB + 1;
	c.wrong_times = 1;
	for (uint32_t i = 0; i < 6; i++)
		start_read(&rig, &r[i], &c, i * CHUNK_SIZE, 5);
	turns(&rig);
	deliver(ask_of(&rig.fakes[0], 0));
	for (int i = 0; i < 6; i++) {
		UNTIL(&rig, r[i].calls == 1);
		OK(r[i].r == 0 || r[i].r == -EBADMSG ||
		   (i == 3 && r[i].r == 1));
		told += r[i].r == -EBADMSG;
	}
	EQ(told, 1);
	UNTIL(&rig, asks(&rig.fakes[0]) == 1);
	a = ask_of(&rig.fakes[0], 0);
	OK(a->rq->background);
	/* No bytes while the blob is fetched again, at any offset. */
	OK(give(a, 4 * MIB));
	EQ(read_now(&rig, &c, 0, 10), -EBADMSG);
	EQ(read_now(&rig, &c, 5 * MIB, 5), -EBADMSG);
	fetch_prefetch_cancel(rig.fetch, c.b);
	rig.fakes[0].behave = honest;
	UNTIL(&rig, blob_get_state(c.b) == BLOB_VERIFIED);
	EQ(read_all(&rig, &c), 0);
	OK(rig.fakes[0].sent <= 2 * c.size);
	/* From now on each chunk is known: wrong ones are seen by nobody, and
	 * cost whoever brought them. */
	evict_all(&rig, &c);
	c.wrong_times = 1;
	EQ(read_now(&rig, &c, MIB, 10), 0);
	EQ(read_all(&rig, &c), 0);
	EQ(c.wrong_times, 0);
	EQ(rig.fakes[0].blamed, 2); /* the first time as well */
	EQ(blob_get_state(c.b), BLOB_VERIFIED);
	rig_release(&rig);
}

/* No reader gets all of a wrong blob, in whatever order the chunks come and the
 * workers write them. */
static void never_all_of_a_wrong_blob(void)
{
	for (uint64_t i = 0; i < 32; i++) {
		uint32_t n = 2 + i % 4;
		struct content c;
		struct reader r[6] = {0};
		struct rig rig;
		unsigned int told = 0;

		rig_new(&rig);
		content_init(&rig, &c, BLOB_SHA256, i, n * MIB - i);
		c.wrong_at = i;
		c.wrong_times = 1000;
		rig.fakes[0].behave = honest;
		for (uint32_t k = 0; k < n; k++) {
			uint32_t at = (uint32_t)(k + i) % n;

			start_read(&rig, &r[at], &c, at * CHUNK_SIZE,
				   blob_chunk_len(c.b, at));
			if (i % 3 == 0)
				turns(&rig);
		}
		for (uint32_t k = 0; k < n; k++) {
			UNTIL(&rig, r[k].calls == 1);
			told += r[k].r == -EBADMSG;
		}
		OK(told > 0);
		rig_release(&rig);
	}
}

/* The mismatch may be known before the write of the last chunk is reported. */
static void wrong_once_many_times(void)
{
	for (uint64_t i = 0; i < 24; i++) {
		struct content c;
		struct rig rig;

		rig_new(&rig);
		content_init(&rig, &c, BLOB_SHA256, i, i % 4 * MIB + 1 + i);
		c.wrong_at = i;
		c.wrong_times = 1;
		rig.fakes[0].behave = honest;
		if (blob_chunks(c.b) == 1)
			EQ(read_now(&rig, &c, 0, (uint32_t)c.size), 0);
		else
			fetch_prefetch(rig.fetch, c.b, 0, c.size);
		UNTIL(&rig, blob_get_state(c.b) == BLOB_VERIFIED);
		EQ(read_all(&rig, &c), 0);
		rig_release(&rig);
	}
}

static void peer_first(struct ask *a)
{
	a->rq->from = a->fake->starts == 1 ? 7 : CHUNK_FROM_UPSTREAM;
	honest(a);
}

/* Wrong bytes from a node do not count against upstream, which may be wrong
 * once itself. */
static void wrong_from_a_peer(void)
{
	for (uint64_t i = 0; i < 3; i++) {
		struct content c;
		struct rig rig;

		rig_new(&rig);
		content_init(&rig, &c, BLOB_SHA256, i, i * MIB + 10);
		c.wrong_at = i;
		c.wrong_times = 2;
		rig.fakes[0].behave = peer_first;
		fetch_prefetch(rig.fetch, c.b, 0, c.size);
		UNTIL(&rig, blob_get_state(c.b) == BLOB_VERIFIED);
		EQ(c.wrong_times, 0);
		EQ(read_all(&rig, &c), 0);
		rig_release(&rig);
	}
}

/* A member checks the blob itself: only bytes that are known to be wrong are
 * held back from it. */
static void unchecked_reads(void)
{
	struct reader one = {0}, peer = {0};
	struct content c;
	struct rig rig;

	rig_new(&rig);
	content_init(&rig, &c, BLOB_SHA256, 3, MIB);
	peer.rd.unchecked = true;
	start_read(&rig, &one, &c, 0, 100);
	start_read(&rig, &peer, &c, 0, 100);
	turns(&rig);
	OK(give(ask_of(&rig.fakes[0], 0), 1000));
	UNTIL(&rig, peer.calls == 1);
	EQ(peer.r, 0);
	EQ(one.calls, 0);
	deliver(ask_of(&rig.fakes[0], 0));
	UNTIL(&rig, one.calls == 1);
	EQ(one.r, 0);
	rig_release(&rig);
}

int main(void)
{
	rig_begin("test_fetch");
	RUN(watermark);
	RUN(part_of_a_read);
	RUN(only_when_stored);
	RUN(neighbours_in_one_request);
	RUN(each_byte_once);
	RUN(resumes_at_watermark);
	RUN(a_liars_bytes_are_dropped);
	RUN(errors_told);
	RUN(second_source_takes_over);
	RUN(nobody_knows);
	RUN(stalls);
	RUN(deadlines);
	RUN(gate);
	RUN(wrong_once_small);
	RUN(wrong_for_ever_small);
	RUN(wrong_for_ever_large);
	RUN(wrong_once_large);
	RUN(never_all_of_a_wrong_blob);
	RUN(wrong_once_many_times);
	RUN(wrong_from_a_peer);
	RUN(unchecked_reads);
	return t_end();
}
