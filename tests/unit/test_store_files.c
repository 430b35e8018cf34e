/* Many blobs in use at once, and few descriptors. */
#include <dirent.h>
#include <sys/resource.h>

#include "tests/unit/store-helpers.h"

#define LIMIT	64
#define BLOBS	200
#define SIZE	5000
#define THREADS 4
#define READS	3000

/* Open files of blobs. */
static int open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	int n = 0;

	if (!d)
		BAIL("/proc/self/fd");
	while ((e = readdir(d))) {
		char to[4096];
		ssize_t len =
			readlinkat(dirfd(d), e->d_name, to, sizeof(to) - 1);

		if (len < 0)
			continue;
		to[len] = '\0';
		n += strstr(to, "/blobs/") != NULL;
	}
	(void)closedir(d);
	return n;
}

static void limit_files(rlim_t n)
{
	struct rlimit lim;

	EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
	lim.rlim_cur = n;
	EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
}

static void make_blobs(struct store *s, struct blob *b[BLOBS])
{
	for (uint64_t i = 0; i < BLOBS; i++) {
		b[i] = make_blob(s, url_key(i), SIZE);
		EQ(write_chunk(s, b[i], 0, i), 0);
	}
}

static void release(struct blob *b[BLOBS])
{
	for (int i = 0; i < BLOBS; i++)
		blob_unref(&b[i]);
}

/* All blobs are held, written, read, evicted and written again. */
static void more_blobs_than_descriptors(void)
{
	struct blob *b[BLOBS];
	struct store *s;

	limit_files(LIMIT);
	s = open_store();
	make_blobs(s, b);
	for (int round = 0; round < 2; round++)
		for (uint64_t i = 0; i < BLOBS; i++)
			EQ(read_same(s, b[i], i, 17, SIZE - 17), 0);
	OK(open_files() <= LIMIT * 3 / 4);
	for (uint64_t i = 0; i < BLOBS; i += 3) {
		EQ(store_evict(s, b[i]), 0);
		EQ(write_chunk(s, b[i], 0, i), 0);
	}
	for (uint64_t i = 0; i < BLOBS; i++)
		EQ(store_verify(s, b[i]), 0);
	release(b);
	store_close(&s);
	/* Bytes written in files that were closed since are there. */
	s = open_store();
	for (uint64_t i = 0; i < BLOBS; i++) {
		b[i] = get_blob(s, url_key(i));
		EQ(read_same(s, b[i], i, 0, SIZE), 0);
	}
	release(b);
	store_close(&s);
	EQ(open_files(), 0);
}

struct reader {
	pthread_t thread;
	struct store *s;
	struct blob **b;
	uint64_t seed;
	int wrong;
};

static void *read_main(void *arg)
{
	struct reader *r = arg;
	uint64_t rng = r->seed;

	for (int n = 0; n < READS; n++) {
		uint64_t i, off, len;
		int got;

		rng = rng * 6364136223846793005 + 1442695040888963407;
		i = (rng >> 33) % BLOBS;
		off = (rng >> 20) % (SIZE - 100);
		len = 1 + (rng >> 13) % 100;
		got = read_same(r->s, r->b[i], i, off, len);
		if (got == -ENODATA) {
			/* Evicted by a test thread. */
			(void)write_chunk(r->s, r->b[i], 0, i);
			got = read_same(r->s, r->b[i], i, off, len);
		}
		r->wrong += got != 0 && got != -ENODATA;
		if (n % 100 == 0)
			r->wrong += store_evict(r->s, r->b[i]) != 0;
	}
	return NULL;
}

/* A descriptor number that was closed and reused belongs to another blob. */
static void readers_at_once(void)
{
	struct reader r[THREADS];
	struct blob *b[BLOBS];
	struct store *s = open_store();

	make_blobs(s, b);
	for (uint64_t t = 0; t < THREADS; t++) {
		r[t] = (struct reader){.s = s, .b = b, .seed = t + 1};
		EQ(pthread_create(&r[t].thread, NULL, read_main, &r[t]), 0);
	}
	for (int t = 0; t < THREADS; t++) {
		EQ(pthread_join(r[t].thread, NULL), 0);
		EQ(r[t].wrong, 0);
	}
	release(b);
	store_close(&s);
}

/* A lent descriptor belongs to its blob until it is returned. */
static void lent(void)
{
	struct blob *b[BLOBS];
	struct store *s = open_store();
	uint8_t buf[SIZE];
	uint64_t gen;
	int fd[8], again;

	make_blobs(s, b);
	EQ(store_sync(s), 0);
	for (uint64_t i = 0; i < 8; i++)
		EQ(store_range_fd(s, b[i], 0, SIZE, &fd[i], &gen), 0);
	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 8; i < BLOBS; i++)
			EQ(read_same(s, b[i], i, 0, SIZE), 0);
		for (uint64_t i = 0; i < 8; i++) {
			EQ(pread(fd[i], buf, SIZE, 0), SIZE);
			OK(same(i, 0, buf, SIZE));
		}
	}
	/* Twice lent, once given back. */
	EQ(store_range_fd(s, b[0], 0, SIZE, &again, &gen), 0);
	EQ(again, fd[0]);
	store_range_done(b[0]);
	for (uint64_t i = 8; i < BLOBS; i++)
		EQ(read_same(s, b[i], i, 0, SIZE), 0);
	EQ(pread(again, buf, SIZE, 0), SIZE);
	OK(same(0, 0, buf, SIZE));
	for (int i = 0; i < 8; i++)
		store_range_done(b[i]);
	/* All of them, one after the other. */
	for (uint64_t i = 0; i < BLOBS; i++) {
		EQ(store_range_fd(s, b[i], 0, SIZE, &again, &gen), 0);
		EQ(pread(again, buf, SIZE, 0), SIZE);
		OK(same(i, 0, buf, SIZE));
		store_range_done(b[i]);
	}
	OK(open_files() <= LIMIT * 3 / 4);
	release(b);
	store_close(&s);
}

int main(void)
{
	t_begin("test_store_files");
	RUN(more_blobs_than_descriptors);
	wipe();
	RUN(readers_at_once);
	wipe();
	RUN(lent);
	return t_end();
}
