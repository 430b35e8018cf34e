/* Many blobs, random reads, sources that fail at random, a cache that is too
 * small, and a thread that evicts all the time: every byte is compared. The
 * seed is fixed; the threads' order is not. */
#include "tests/unit/fetch-rig.h"

#define BLOBS	10
#define READERS 48
#define READS	4000

static uint64_t seed = 20240607;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

static struct content contents[BLOBS];
static struct reader readers[READERS];
static bool canceled[READERS];
static unsigned int started, finished, wrong, refused;
static bool over; /* atomic */

static int some_error(void)
{
	static const int errors[] = {-ECONNRESET, -ETIMEDOUT, -EBADMSG,
				     -ECONNREFUSED, -EIO};

	return errors[rnd(ARRAY_SIZE(errors))];
}

/* A source that is mostly honest, with pieces of any size; it also waits, lies,
 * aborts, hangs. */
static void moody(struct ask *a)
{
	if (a->left < 0)
		a->left = rnd(4) ? 1000000 : (int)rnd(30);
	switch (rnd(40)) {
	case 0:
		return;
	case 1:
		if (a->left == 0)
			answer(a, some_error());
		return;
	case 2:
		if (rnd(20) == 0)
			a->left = -2; /* sends nothing more */
		break;
	}
	if (a->left == -2)
		return;
	for (int i = 0; i < 8 && a->left > 0 && !all_given(a); i++, a->left--)
		if (!give(a, 1 + rnd(rnd(2) ? 300000 : 5000)))
			return;
	if (all_given(a))
		answer(a, rnd(10) ? 0 : some_error());
	else if (a->left == 0 && rnd(2))
		answer(a, rnd(5) ? some_error() : 0);
}

static void next_read(struct reader *r);

static void on_read(struct reader *r)
{
	struct content *c = r->c;
	size_t i = (size_t)(r - readers);

	finished++;
	if (r->r == 1) {
		wrong++;
		printf("# wrong bytes: blob %d, %llu+%u\n", (int)(c - contents),
		       (unsigned long long)r->rd.off, r->rd.len);
	} else if (r->r == -EBADMSG) {
		/* Twice in a row; allowed where the source was told to. */
		OK(c->wrong_at < c->size);
		refused++;
	} else if (r->r != 0) {
		OK(canceled[i]);
		EQ(r->r, -ECANCELED);
	}
	canceled[i] = false;
	if (started < READS)
		next_read(r);
}

static void next_read(struct reader *r)
{
	struct content *c = &contents[rnd(BLOBS)];
	uint64_t off = rnd(4) ? rnd(c->size) : c->size - 1;
	uint64_t len =
		min_u64(1 + rnd(rnd(2) ? 5000 : CHUNK_SIZE), c->size - off);

	started++;
	if (c->size < MIB && rnd(40) == 0)
		c->wrong_times = 1;
	r->then = on_read;
	read_range_min(r->rig, r, c, off, (uint32_t)len,
		       rnd(3) ? 0 : (uint32_t)(1 + rnd(len)));
	if (rnd(20) == 0)
		(rnd(2) ? fetch_prefetch : fetch_prefetch_steady)(
			r->rig->fetch, c->b, off, rnd(c->size));
	if (rnd(50) == 0)
		fetch_prefetch_cancel(r->rig->fetch, c->b);
}

static void *evict_all_the_time(void *arg)
{
	struct rig *rig = arg;
	uint64_t n = 0;

	while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
		(void)store_evict(rig->store, contents[n++ % BLOBS].b);
		(void)store_sync(rig->store);
	}
	return NULL;
}

static void cancel_some(void)
{
	size_t i = rnd(READERS);

	if (readers[i].calls == 0 && readers[i].rd.done) {
		canceled[i] = true;
		fetch_read_cancel(&readers[i].rd);
	}
}

static void stress(void)
{
	static const uint64_t sizes[BLOBS] = {
		1,	 4096,	  CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE,
		3000000, 5000000, 6000001,    700000,	      4 * CHUNK_SIZE};
	uint64_t until = now_ms() + 500000;
	struct fetch_stats st;
	struct rig rig;
	pthread_t evictor;

	rig_init(&rig,
		 (struct fetch_config){.memory_bytes = 6 * MIB,
				       .read_timeout_ms = 600000,
				       .stall_ms = 40,
				       .workers = 3},
		 (struct store_config){.max_bytes = 8 * MIB});
	second_source(&rig);
	rig.fakes[0].behave = rig.fakes[1].behave = moody;
	for (uint64_t i = 0; i < BLOBS; i++) {
		content_init(&rig, &contents[i],
			     i % 3 == 2 ? BLOB_URL : BLOB_SHA256, i, sizes[i]);
		contents[i].wrong_at = UINT64_MAX;
	}
	/* Even their wrong bytes must not reach a reader. */
	contents[1].wrong_at = 7;
	contents[3].wrong_at = UINT64_MAX;
	for (size_t i = 0; i < READERS; i++)
		readers[i].rig = &rig;
	if (pthread_create(&evictor, NULL, evict_all_the_time, &rig) != 0)
		BAIL("pthread_create");
	for (size_t i = 0; i < READERS; i++)
		next_read(&readers[i]);
	while (finished < READS && now_ms() < until) {
		turn_wait(&rig, true);
		if (rnd(200) == 0)
			cancel_some();
	}
	EQ(finished, READS);
	EQ(started, READS);
	EQ(wrong, 0);
	__atomic_store_n(&over, true, __ATOMIC_RELEASE);
	(void)pthread_join(evictor, NULL);
	OK(rig.most_memory <= 6 * MIB);
	fetch_stats(rig.fetch, &st);
	printf("# %llu bytes in %u requests, %llu of them failed, %u resumed, "
	       "%u cancelled; %u reads refused, %u mismatches\n",
	       (unsigned long long)st.fetched_bytes,
	       rig.fakes[0].starts + rig.fakes[1].starts,
	       (unsigned long long)st.failed_runs,
	       rig.fakes[0].resumes + rig.fakes[1].resumes,
	       rig.fakes[0].cancels + rig.fakes[1].cancels, refused,
	       rig_events(&rig, BLOB_EV_MISMATCH));
	rig_release(&rig);
}

int main(void)
{
	rig_begin("test_fetch_stress");
	RUN(stress);
	return t_end();
}
