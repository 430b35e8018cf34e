/* The store when things go wrong: kills, damage, full disks, eviction under
 * readers. */
#include <dirent.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/unit/store-helpers.h"

/* Counts the regular files below a directory of the cache. */
static int files_below(const char *name)
{
	char cmd[200];
	FILE *f;
	int n = -1;

	(void)snprintf(cmd, sizeof(cmd),
		       "find \"$D\"/%s -type f 2>/dev/null | wc -l", name);
	f = popen(cmd, "re");
	if (!f || fscanf(f, "%d", &n) != 1)
		BAIL("find");
	(void)pclose(f);
	return n;
}

/* Bytes on disk. */
static uint64_t disk_bytes(struct blob_key key)
{
	struct stat st;

	return stat(file_of(key), &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* ---- kill -9 ---- */

#define KILL_BLOBS  3
#define KILL_CHUNKS 16

/* Writes for ever; evicts one blob at intervals. Reports which chunks are
 * durable. */
static void writer_child(int out, uint32_t round)
{
	struct store *s = open_with((struct store_config){0});
	struct blob *b[KILL_BLOBS];
	uint32_t n = round * 7;

	for (uint64_t i = 0; i < KILL_BLOBS; i++)
		b[i] = make_blob(s, url_key(i), KILL_CHUNKS * MIB - 500);
	for (;; n++) {
		uint32_t i = n % KILL_BLOBS, c = n / KILL_BLOBS % KILL_CHUNKS;
		uint8_t msg[2] = {(uint8_t)i, (uint8_t)c};
		int r = write_chunk(s, b[i], c, i);

		if (r < 0 && r != -EEXIST)
			_exit(1);
		if (i == 2 && c == KILL_CHUNKS - 1)
			(void)store_evict(s, b[2]);
		/* Blob 2 comes and goes; of the others each chunk stays. */
		if (n % 4 == 0 && i < 2 &&
		    (store_sync(s) != 0 || write(out, msg, 2) != 2))
			_exit(1);
	}
}

static void kill_round(uint32_t round, bool durable[2][KILL_CHUNKS])
{
	uint8_t msg[2];
	int fds[2], status;
	unsigned int say = 1 + round % 6;
	pid_t pid;

	(void)fflush(stdout);
	if (pipe(fds) < 0)
		BAIL("pipe");
	pid = fork();
	if (pid == 0) {
		(void)close(fds[0]);
		writer_child(fds[1], round);
	}
	(void)close(fds[1]);
	for (unsigned int i = 0; i < say; i++) {
		if (read(fds[0], msg, 2) != 2)
			BAIL("the writer has ended");
		durable[msg[0]][msg[1]] = true;
	}
	/* The kill comes in the middle of a write, a flush or a commit. */
	(void)usleep(round * 1777 % 23000);
	EQ(kill(pid, SIGKILL), 0);
	EQ(waitpid(pid, &status, 0), pid);
	while (read(fds[0], msg, 2) == 2)
		durable[msg[0]][msg[1]] = true;
	(void)close(fds[0]);
}

static void killed(void)
{
	bool durable[2][KILL_CHUNKS] = {{false}};
	struct store_stats st;

	for (uint32_t round = 0; round < 20; round++) {
		struct blob_key key;
		struct store *s;
		uint64_t cached = 0;

		kill_round(round, durable);
		s = open_store();
		for (uint64_t i = 0; i < KILL_BLOBS; i++) {
			struct blob *b = NULL;

			key = url_key(i);
			if (store_get(s, &key, &b) == -ENOENT) {
				OK(i == 2 || !durable[i][0]);
				continue;
			}
			for (uint32_t c = 0; c < KILL_CHUNKS; c++) {
				if (i < 2 && durable[i][c])
					OK(blob_has(b, c));
				if (blob_has(b, c))
					EQ(read_same(s, b, i, c * CHUNK_SIZE,
						     blob_chunk_len(b, c)),
					   0);
			}
			cached += blob_cached_bytes(b);
			blob_unref(&b);
		}
		store_stats(s, &st);
		EQ(st.damaged_chunks, 0);
		EQ(st.cached_bytes, cached);
		store_close(&s);
	}
	wipe();
}

/* ---- Damage ---- */

static void damaged_byte(void)
{
	struct blob_key key = url_key(1);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, 4 * MIB + 9);
	struct store_stats st;

	write_all(s, b, 1);
	blob_unref(&b);
	store_close(&s);
	flip_byte(file_of(key), 2 * MIB + 12345);
	flip_byte(file_of(key), 4 * MIB + 8);

	s = open_store();
	b = get_blob(s, key);
	EQ(blob_missing(b), 0);
	EQ(read_same(s, b, 1, 2 * MIB, 1), -ENODATA);
	EQ(read_same(s, b, 1, 3 * MIB + 100, MIB - 100), 0);
	EQ(read_same(s, b, 1, 3 * MIB, MIB + 1), -ENODATA);
	EQ(read_same(s, b, 1, 0, 2 * MIB), 0);
	EQ(blob_missing(b), 2);
	store_stats(s, &st);
	EQ(st.damaged_chunks, 2);
	EQ(st.cached_bytes, 3 * MIB);
	EQ(store_sync(s), 0);
	EQ(events(BLOB_EV_DROPPED), 2);
	blob_unref(&b);
	store_close(&s);

	s = open_store();
	b = get_blob(s, key);
	EQ(blob_missing(b), 2);
	EQ(write_chunk(s, b, 2, 1), 0);
	EQ(write_chunk(s, b, 4, 1), 0);
	EQ(read_same(s, b, 1, 0, blob_size(b)), 0);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

static void truncated_file(void)
{
	struct blob_key key = url_key(2);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, 5 * MIB);
	struct stat st;

	write_all(s, b, 2);
	blob_unref(&b);
	store_close(&s);
	EQ(truncate(file_of(key), 2 * MIB + 5), 0);

	s = open_store();
	b = get_blob(s, key);
	EQ(read_same(s, b, 2, 0, 2 * MIB), 0);
	EQ(blob_missing(b), 3);
	EQ(read_same(s, b, 2, 2 * MIB, 5), -ENODATA);
	EQ(stat(file_of(key), &st), 0);
	EQ(st.st_size, 5 * MIB);
	EQ(write_chunk(s, b, 4, 2), 0);
	blob_unref(&b);
	store_close(&s);

	EQ(unlink(file_of(key)), 0);
	s = open_store();
	b = get_blob(s, key);
	EQ(read_same(s, b, 2, 0, 10), -ENODATA);
	EQ(blob_missing(b), 5);
	write_all(s, b, 2);
	EQ(read_same(s, b, 2, 0, 5 * MIB), 0);
	/* Truncated by another process. */
	EQ(store_sync(s), 0);
	EQ(truncate(file_of(key), MIB), 0);
	EQ(read_same(s, b, 2, 3 * MIB, MIB), -ENODATA);
	EQ(read_same(s, b, 2, 0, MIB), 0);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* The record of a blob's chunks is gone or damaged: the chunks are absent, and
 * the counters are corrected, once. */
static void lost_record(void)
{
	struct blob_key key = url_key(4);
	uint8_t rec[INDEX_BKEY + 4] = {BLOB_URL};
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, 300 * MIB);
	struct index *ix = NULL;
	struct index_batch batch;
	struct store_stats st;

	EQ(write_chunk(s, b, 0, 4), 0);
	EQ(write_chunk(s, b, 299, 4), 0);
	blob_unref(&b);
	store_close(&s);
	EQ(index_open(in_dir("index"), &ix, NULL), 0);
	memcpy(rec + 1, key.id.sha256, DIGEST_BYTES);
	index_batch_init(&batch);
	index_del(&batch, INDEX_CHUNKS, rec, sizeof(rec));
	rec[INDEX_BKEY + 3] = 77; /* beyond the blob */
	index_put(&batch, INDEX_CHUNKS, rec, sizeof(rec), rec, 10);
	EQ(index_write(ix, &batch), 0);
	index_batch_release(&batch);
	index_close(&ix);

	s = open_store();
	for (int i = 0; i < 3; i++) {
		b = get_blob(s, key);
		EQ(blob_missing(b), 299);
		EQ(read_same(s, b, 4, 299 * MIB, MIB), 0);
		store_stats(s, &st);
		EQ(st.cached_bytes, MIB);
		blob_unref(&b);
		/* So many others that the blob leaves the memory. */
		for (uint64_t k = 0; k < 400; k++) {
			b = make_blob(s, url_key(1000 + k), 1);
			blob_unref(&b);
		}
		EQ(store_sync(s), 0);
	}
	store_close(&s);
	wipe();
}

static void orphans(void)
{
	struct store *s = open_store();
	struct blob *b = make_blob(s, url_key(3), MIB);

	write_all(s, b, 3);
	blob_unref(&b);
	store_close(&s);
	run("mkdir -p \"$D\"/blobs/sha256/ab && cd \"$D\"/blobs/sha256/ab && "
	    "echo x > abcdef0123456789abcdef0123456789"
	    "abcdef0123456789abcdef0123456789 && echo y > notes.txt");
	EQ(files_below("blobs"), 3);
	s = open_store();
	EQ(files_below("blobs"), 2);
	b = get_blob(s, url_key(3));
	EQ(read_same(s, b, 3, 0, MIB), 0);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* Runs in a child, so that a crash is detected. Every present chunk is right.
 */
static void use_damaged(void)
{
	struct store *s = open_store();

	for (uint64_t i = 0; i < 40; i++) {
		uint64_t size = (i % 5 + 1) * 3000;
		struct blob *b = make_blob(s, url_key(i), size);

		if (blob_has(b, 0) && read_same(s, b, i, 0, size) != 0)
			_exit(2);
		if (!blob_has(b, 0) && write_chunk(s, b, 0, i) != 0)
			_exit(3);
		if (read_same(s, b, i, 0, size) != 0)
			_exit(4);
		(void)blob_add_origin(s, b, "registry://x/y");
		blob_unref(&b);
	}
	if (store_sync(s) != 0)
		_exit(5);
	store_close(&s);
	_exit(0);
}

static void damaged_index(void)
{
	uint64_t rng = 12345;
	struct store *s = open_store();
	struct stat st;

	for (uint64_t i = 0; i < 40; i++) {
		struct blob *b = make_blob(s, url_key(i), (i % 5 + 1) * 3000);

		write_all(s, b, i);
		blob_unref(&b);
	}
	store_close(&s);
	run("cp -r \"$D\" \"$D\".good");
	EQ(stat(in_dir("index/data.mdb"), &st), 0);
	for (int i = 0; i < 60; i++) {
		int status;
		pid_t pid;

		run("rm -rf \"$D\"/* && cp -r \"$D\".good/* \"$D\"");
		rng = rng * 6364136223846793005 + 1442695040888963407;
		if (i % 6 == 5)
			EQ(truncate(
				   in_dir("index/data.mdb"),
				   (off_t)((rng >> 20) % (uint64_t)st.st_size)),
			   0);
		else
			for (int k = 0; k < 1 + i % 4; k++)
				flip_byte(in_dir("index/data.mdb"),
					  (rng >> (10 + k)) %
						  (uint64_t)st.st_size);
		(void)fflush(stdout);
		pid = fork();
		if (pid == 0)
			use_damaged();
		EQ(waitpid(pid, &status, 0), pid);
		OK(WIFEXITED(status));
		EQ(WEXITSTATUS(status), 0);
	}
	run("rm -rf \"$D\".good");
	wipe();
}

/* The files that are kept of a damaged index, and those that are not. */
static void damage_is_set_aside(void)
{
	struct blob_key key = url_key(1);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, 100);

	write_all(s, b, 1);
	blob_unref(&b);
	store_close(&s);
	run("head -c 9000 /dev/urandom > \"$D\"/index/data.mdb");
	for (int i = 0; i < 2; i++) {
		s = open_store();
		EQ(store_get(s, &key, &b), -ENOENT);
		EQ(files_below("blobs"), 0);
		/* data.mdb and lock.mdb of the latest one */
		EQ(files_below("index.damaged"), 2);
		store_close(&s);
		run("head -c 9000 /dev/urandom > \"$D\"/index/data.mdb");
	}
	wipe();
}

/* ---- Refusals ---- */

static void two_at_once(void)
{
	struct store_config cfg = {.dir = t_dir};
	struct store *s = open_store(), *second = NULL;
	struct error err = {""};
	char pid[20];

	(void)snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	EQ(store_open(&cfg, &second, &err), -EBUSY);
	OK(second == NULL);
	OK(strstr(err.text, pid) && strstr(err.text, t_dir));
	store_close(&s);
	EQ(store_open(&cfg, &second, &err), 0);
	store_close(&second);
	wipe();
}

static void unknown_format(void)
{
	struct store_config cfg = {.dir = t_dir};
	struct store *s = open_store();
	struct blob *b = make_blob(s, url_key(1), 100);
	struct index *ix = NULL;
	struct index_batch batch;
	struct error err = {""};

	write_all(s, b, 1);
	blob_unref(&b);
	store_close(&s);
	EQ(index_open(in_dir("index"), &ix, NULL), 0);
	index_batch_init(&batch);
	index_put(&batch, INDEX_META, "format", 6, "7", 1);
	EQ(index_write(ix, &batch), 0);
	index_batch_release(&batch);
	index_close(&ix);
	run("cp \"$D\"/index/data.mdb \"$D\"/before");
	EQ(store_open(&cfg, &s, &err), -EPROTO);
	OK(strstr(err.text, t_dir) && strstr(err.text, "version"));
	run("cmp \"$D\"/index/data.mdb \"$D\"/before");
	EQ(files_below("blobs"), 1);
	wipe();
}

static void bad_directories(void)
{
	struct store_config cfg = {.dir = ""};
	struct store *s = NULL;
	struct error err = {""};
	char dir[5000];

	EQ(store_open(&cfg, &s, &err), -ENOENT);
	run("touch \"$D\"/file");
	cfg.dir = in_dir("file");
	EQ(store_open(&cfg, &s, &err), -ENOTDIR);
	OK(strstr(err.text, "/file"));
	/* The directory is made with its parents. */
	(void)snprintf(dir, sizeof(dir), "%s/a/b/c/", t_dir);
	cfg.dir = dir;
	EQ(store_open(&cfg, &s, &err), 0);
	store_close(&s);
	wipe();
}

static bool mount_tmp(const char *options)
{
	EQ(mkdir(in_dir("m"), 0755), 0);
	return geteuid() == 0 &&
	       mount("tmpfs", in_dir("m"), "tmpfs", 0, options) == 0;
}

static void unmount_tmp(void)
{
	if (umount2(in_dir("m"), 0) == -1)
		EQ(umount2(in_dir("m"), MNT_DETACH), 0);
	wipe();
}

static void read_only_directory(void)
{
	struct store_config cfg = {0};
	struct store *s = NULL;
	struct error err = {""};
	char dir[5000];

	if (!mount_tmp("size=1m")) {
		wipe();
		SKIP("needs root to mount a tmpfs");
	}
	(void)snprintf(dir, sizeof(dir), "%s", in_dir("m"));
	cfg.dir = dir;
	EQ(mount(NULL, dir, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	EQ(store_open(&cfg, &s, &err), -EROFS);
	OK(strstr(err.text, dir) && strstr(err.text, "Read-only"));
	unmount_tmp();
}

/* ---- Full disk ---- */

static void full_disk(void)
{
	struct store_config cfg = {.commit_interval_ms = 5};
	struct store *s;
	struct blob *b, *big;
	struct store_stats st;
	char dir[5000];
	int refused = 0;

	if (!mount_tmp("size=8m")) {
		wipe();
		SKIP("needs root to mount a tmpfs");
	}
	(void)snprintf(dir, sizeof(dir), "%s", in_dir("m"));
	cfg.dir = dir;
	s = open_with(cfg);
	b = make_blob(s, url_key(1), 20 * MIB);
	/* Each write that finds the disk full evicts older chunks. */
	for (uint32_t c = 0; c < 20; c++) {
		EQ(write_chunk(s, b, c, 1), 0);
		EQ(read_same(s, b, 1, c * MIB, MIB), 0);
	}
	store_stats(s, &st);
	OK(st.evicted_chunks > 0);
	EQ(st.write_errors, 0);
	EQ(store_sync(s), 0);
	blob_unref(&b);
	store_close(&s);

	/* Another file fills the disk: nothing can be kept. */
	s = open_with(cfg);
	b = get_blob(s, url_key(1));
	EQ(store_evict(s, b), 0);
	run("dd if=/dev/zero of=\"$D\"/m/other bs=4k 2>/dev/null || true");
	big = make_blob(s, url_key(2), 3 * MIB);
	for (uint32_t c = 0; c < 3; c++)
		refused += write_chunk(s, big, c, 2) == -ENOSPC;
	EQ(refused, 3);
	EQ(blob_missing(big), 3);
	EQ(read_same(s, big, 2, 0, 1), -ENODATA);
	store_stats(s, &st);
	EQ(st.write_errors, 3);
	run("rm \"$D\"/m/other");
	EQ(write_chunk(s, big, 1, 2), 0);
	EQ(store_sync(s), 0);
	blob_unref(&b);
	blob_unref(&big);
	store_close(&s);
	s = open_with(cfg);
	b = get_blob(s, url_key(2));
	EQ(read_same(s, b, 2, MIB, MIB), 0);
	blob_unref(&b);
	store_close(&s);
	unmount_tmp();
}

/* ---- Eviction ---- */

static uint64_t cached(struct store *s)
{
	struct store_stats st;

	store_stats(s, &st);
	return st.cached_bytes;
}

/* The least recently used blob is evicted first, and its space is freed. */
static void eviction_order(void)
{
	struct store_config cfg = {.max_bytes = 100 * MIB,
				   .commit_interval_ms = 5};
	struct store *s = open_with(cfg);
	struct blob *b[4];
	uint64_t t;

	for (uint64_t i = 0; i < 4; i++) {
		b[i] = make_blob(s, url_key(i), 8 * MIB);
		write_all(s, b[i], i);
	}
	for (int i = 0; i < 4; i++)
		blob_unref(&b[i]);
	store_close(&s);

	/* Their order by last use is now 1, 0, 3, 2. */
	for (int i = 0; i < 4; i++) {
		uint64_t k = (uint64_t[]){1, 0, 3, 2}[i];

		t = now_unix_s();
		WAIT(now_unix_s() > t);
		s = open_with(cfg);
		b[0] = get_blob(s, url_key(k));
		EQ(read_same(s, b[0], k, 0, 8 * MIB), 0);
		blob_unref(&b[0]);
		store_close(&s);
	}
	cfg.max_bytes = 24 * MIB;
	s = open_with(cfg);
	EQ(store_sync(s), 0);
	/* 95 % of 24 MiB: blob 1 is gone, 0 lost two chunks. */
	for (uint64_t i = 0; i < 4; i++)
		b[i] = get_blob(s, url_key(i));
	EQ(blob_missing(b[1]), 8);
	EQ(blob_missing(b[0]), 2);
	EQ(blob_missing(b[3]), 0);
	EQ(blob_missing(b[2]), 0);
	EQ(cached(s), 22 * MIB);
	EQ(disk_bytes(url_key(1)), 0);
	OK(disk_bytes(url_key(0)) <= 6 * MIB + 65536);
	/* An evicted chunk comes back. */
	EQ(write_chunk(s, b[1], 3, 1), 0);
	EQ(read_same(s, b[1], 1, 3 * MIB, MIB), 0);
	for (int i = 0; i < 4; i++)
		blob_unref(&b[i]);
	store_close(&s);
	wipe();
}

static void tiny_cache(void)
{
	struct store_config cfg = {.max_bytes = 2 * MIB,
				   .commit_interval_ms = 5};
	struct store *s = open_with(cfg);
	struct blob *b = make_blob(s, url_key(1), 30 * MIB);

	for (uint32_t c = 0; c < 30; c++) {
		EQ(write_chunk(s, b, c, 1), 0);
		EQ(read_same(s, b, 1, c * MIB, MIB), 0);
	}
	WAIT(cached(s) <= 2 * MIB);
	/* The latest ones stay. */
	OK(blob_has(b, 29));
	EQ(read_same(s, b, 1, 29 * MIB, MIB), 0);
	EQ(store_sync(s), 0);
	OK(disk_bytes(url_key(1)) <= 2 * MIB + 65536);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

static void keeps_disk_free(void)
{
	struct store_config cfg = {.min_free_bytes = UINT64_MAX / 2,
				   .commit_interval_ms = 5};
	struct store *s = open_with(cfg);
	struct blob *b = make_blob(s, url_key(1), 4 * MIB);

	write_all(s, b, 1);
	WAIT(cached(s) == 0);
	EQ(blob_missing(b), 4);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* ---- A slow disk ---- */

/* While `gated`, flushes of cache files wait, but for so many. */
static struct {
	pthread_mutex_t mu;
	pthread_cond_t cond;
	bool gated;
	int allowed, waiting;
} t_flush = {.mu = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static bool is_cache_file(int fd)
{
	char link[64], path[4096];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	return strstr(path, "/blobs/") != NULL;
}

/* In place of the C library's. */
int fdatasync(int fd)
{
	(void)pthread_mutex_lock(&t_flush.mu);
	t_flush.waiting++;
	while (t_flush.gated && t_flush.allowed == 0 && is_cache_file(fd))
		(void)pthread_cond_wait(&t_flush.cond, &t_flush.mu);
	if (t_flush.gated && is_cache_file(fd))
		t_flush.allowed--;
	t_flush.waiting--;
	(void)pthread_mutex_unlock(&t_flush.mu);
	return (int)syscall(SYS_fdatasync, fd);
}

static void flush_gate(bool gated, int allowed)
{
	(void)pthread_mutex_lock(&t_flush.mu);
	t_flush.gated = gated;
	t_flush.allowed = allowed;
	(void)pthread_cond_broadcast(&t_flush.cond);
	(void)pthread_mutex_unlock(&t_flush.mu);
}

static bool flush_waits(void)
{
	bool waits;

	(void)pthread_mutex_lock(&t_flush.mu);
	waits = t_flush.waiting > 0 && t_flush.allowed == 0;
	(void)pthread_mutex_unlock(&t_flush.mu);
	return waits;
}

struct late {
	struct store *s;
	struct blob *b;
	uint32_t chunk;
	bool opened; /* atomic */
	bool early;  /* it was written while the flush still waited */
};

static void *late_main(void *arg)
{
	struct late *l = arg;

	EQ(write_chunk(l->s, l->b, l->chunk, 1), 0);
	l->early = !__atomic_load_n(&l->opened, __ATOMIC_SEQ_CST);
	return NULL;
}

/* The bytes of evicted chunks take room until the flush of the others and the
 * commit have ended. Meanwhile writers have no more than the slack. */
static void evicted_takes_room(void)
{
	enum {
		SLACK = 64, /* MIN_SLACK_BYTES of store/blob.c, in MiB */
		LIMIT = 16,
		FIRST = 60,
	};
	struct store_config cfg = {.max_bytes = LIMIT * MIB,
				   .commit_interval_ms = 5};
	struct store *s = open_with(cfg);
	struct late l = {.s = s, .chunk = LIMIT + SLACK + 1};
	struct blob *b = l.b = make_blob(s, url_key(1), 100 * MIB);
	pthread_t thread;
	uint64_t old;

	flush_gate(true, 0);
	for (uint32_t c = 0; c < FIRST; c++)
		EQ(write_chunk(s, b, c, 1), 0);
	WAIT(flush_waits());
	/* What was used just now would not be evicted. */
	old = now_ms() + 500;
	WAIT(now_ms() >= old);
	flush_gate(true, 1);
	WAIT(cached(s) <= LIMIT * MIB && flush_waits());
	OK(disk_bytes(url_key(1)) >= FIRST * MIB);
	for (uint32_t c = FIRST; c <= LIMIT + SLACK; c++)
		EQ(write_chunk(s, b, c, 1), 0);
	EQ(pthread_create(&thread, NULL, late_main, &l), 0);
	/* Time to be wrong in. */
	(void)usleep(200000);
	OK(disk_bytes(url_key(1)) <= (LIMIT + SLACK + 1) * MIB + 65536);
	__atomic_store_n(&l.opened, true, __ATOMIC_SEQ_CST);
	flush_gate(false, 0);
	EQ(pthread_join(thread, NULL), 0);
	OK(!l.early);
	WAIT(cached(s) <= LIMIT * MIB);
	EQ(store_sync(s), 0);
	OK(disk_bytes(url_key(1)) <= LIMIT * MIB + 65536);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* ---- Load ---- */

/* Readers fetch what is missing and look at every byte, while a cap that is
 * much too small throws out what they read. */
#define LOAD_BLOBS   3
#define LOAD_CHUNKS  12
#define LOAD_THREADS 4
#define LOAD_READS   1500
#define LOAD_MS	     15000 /* enough is enough on a slow machine */

struct load {
	struct store *s;
	struct blob *b[LOAD_BLOBS];
	uint64_t seed;
	pthread_t thread;
	int reads, fetches, wrong;
};

static void *load_main(void *arg)
{
	struct load *l = arg;
	uint64_t rng = l->seed * 0x9E3779B97F4A7C15 + 1;
	uint64_t end = now_ms() + LOAD_MS;

	while (l->reads < LOAD_READS && now_ms() < end) {
		uint64_t i, off, len, gen;
		int r, fd;

		rng = rng * 6364136223846793005 + 1442695040888963407;
		i = (rng >> 33) % LOAD_BLOBS;
		off = (rng >> 20) % (LOAD_CHUNKS * MIB - 70000);
		len = 1 + (rng >> 13) % 70000;
		r = read_same(l->s, l->b[i], i, off, len);
		if (r == -ENODATA) {
			uint32_t last = (uint32_t)((off + len - 1) / MIB);

			for (uint32_t c = (uint32_t)(off / MIB); c <= last; c++)
				(void)write_chunk(l->s, l->b[i], c, i);
			l->fetches++;
			continue;
		}
		l->reads++;
		l->wrong += r != 0;
		if (l->reads % 16 == 0 &&
		    store_range_fd(l->s, l->b[i], off, 100, &fd, &gen) == 0) {
			uint8_t buf[100];

			if (pread(fd, buf, 100, (off_t)off) == 100 &&
			    store_gen_ok(l->b[i], gen))
				l->wrong += !same(i, off, buf, 100);
		}
		if (l->reads % 500 == 0 && l->seed == 1)
			(void)store_evict(l->s, l->b[i]);
	}
	return NULL;
}

static void eviction_under_load(void)
{
	struct store_config cfg = {.max_bytes = 20 * MIB,
				   .commit_interval_ms = 5};
	struct store *s = open_with(cfg);
	struct load l[LOAD_THREADS];
	struct blob *b[LOAD_BLOBS];
	int fetches = 0, reads = 0;

	for (uint64_t i = 0; i < LOAD_BLOBS; i++)
		b[i] = make_blob(s, url_key(i), LOAD_CHUNKS * MIB);
	for (uint64_t t = 0; t < LOAD_THREADS; t++) {
		l[t] = (struct load){.s = s, .seed = t + 1};
		memcpy(l[t].b, b, sizeof(b));
		EQ(pthread_create(&l[t].thread, NULL, load_main, &l[t]), 0);
	}
	for (int t = 0; t < LOAD_THREADS; t++) {
		EQ(pthread_join(l[t].thread, NULL), 0);
		EQ(l[t].wrong, 0);
		fetches += l[t].fetches;
		reads += l[t].reads;
	}
	printf("# %d reads, %d fetches\n", reads, fetches);
	OK(reads > 0 && fetches > 0);
	WAIT(cached(s) <= 20 * MIB);
	for (int i = 0; i < LOAD_BLOBS; i++)
		blob_unref(&b[i]);
	store_close(&s);

	s = open_with(cfg);
	for (uint64_t i = 0; i < LOAD_BLOBS; i++) {
		b[i] = get_blob(s, url_key(i));
		for (uint32_t c = 0; c < LOAD_CHUNKS; c++)
			if (blob_has(b[i], c))
				EQ(read_same(s, b[i], i, c * MIB, MIB), 0);
		blob_unref(&b[i]);
	}
	store_close(&s);
	wipe();
}

/* ---- Inodes ---- */

static bool has_file(struct blob_key key)
{
	struct stat st;

	return stat(file_of(key), &st) == 0;
}

static void emptied_files_go(void)
{
	const struct blob_key key = url_key(1), other = url_key(2);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, 3 * MIB);
	uint64_t gen;
	int fd;

	for (int round = 0; round < 3; round++) {
		write_all(s, b, 1);
		OK(has_file(key));
		EQ(read_same(s, b, 1, 5, 2 * MIB), 0);
		EQ(store_evict(s, b), 0);
		OK(!has_file(key));
		EQ(read_same(s, b, 1, 0, 10), -ENODATA);
	}
	/* An empty range needs no file. */
	EQ(store_range_fd(s, b, 0, 0, &fd, &gen), 0);
	store_range_done(b);
	OK(!has_file(key));
	/* A chunk that is left keeps it. */
	write_all(s, b, 1);
	store_lock(s);
	chunk_drop_locked(b, 0);
	store_unlock(s);
	EQ(store_sync(s), 0);
	OK(has_file(key));
	EQ(read_same(s, b, 1, MIB, 2 * MIB), 0);
	blob_unref(&b);
	store_close(&s);

	/* A crash came between the index and the file. */
	s = open_store();
	b = make_blob(s, other, 5);
	EQ(store_sync(s), 0);
	blob_unref(&b);
	store_close(&s);
	(void)setenv("F", file_of(other), 1);
	run("mkdir -p \"${F%/*}\" && echo >\"$F\"");
	s = open_store();
	OK(!has_file(other));
	OK(has_file(key));
	b = get_blob(s, key);
	EQ(read_same(s, b, 1, MIB, 2 * MIB), 0);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* A reader's descriptor is its own until it is given back. */
static void emptied_while_lent(void)
{
	const struct blob_key key = url_key(1);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, MIB);
	uint64_t gen;
	int fd;

	write_all(s, b, 1);
	EQ(store_sync(s), 0);
	EQ(store_range_fd(s, b, 0, MIB, &fd, &gen), 0);
	EQ(store_evict(s, b), 0);
	OK(!store_gen_ok(b, gen));
	OK(fcntl(fd, F_GETFD) >= 0);
	/* What is written meanwhile is not lost with a file without a name. */
	write_all(s, b, 1);
	EQ(store_sync(s), 0);
	OK(has_file(key));
	EQ(store_evict(s, b), 0);
	store_range_done(b);
	blob_unref(&b);
	WAIT(!has_file(key));
	b = get_blob(s, key);
	write_all(s, b, 1);
	blob_unref(&b);
	store_close(&s);
	s = open_store();
	b = get_blob(s, key);
	EQ(read_same(s, b, 1, 0, MIB), 0);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

#define MANY_FILES 1000

static void no_inodes(void)
{
	struct store_config cfg = {0};
	char dir[5000];
	struct store *s;

	if (!mount_tmp("size=64m,nr_inodes=500")) {
		wipe();
		SKIP("needs root to mount a tmpfs");
	}
	(void)snprintf(dir, sizeof(dir), "%s", in_dir("m"));
	cfg.dir = dir;
	s = open_with(cfg);
	for (uint64_t i = 0; i < MANY_FILES; i++) {
		struct blob *b = make_blob(s, url_key(i), 100);

		EQ(write_chunk(s, b, 0, i), 0);
		EQ(read_same(s, b, i, 0, 100), 0);
		blob_unref(&b);
	}
	/* The last ones are still there: not all went for one. */
	for (uint64_t i = MANY_FILES - 50; i < MANY_FILES; i++) {
		struct blob *b = get_blob(s, url_key(i));

		EQ(read_same(s, b, i, 0, 100), 0);
		blob_unref(&b);
	}
	store_close(&s);
	unmount_tmp();
}

int main(void)
{
	t_begin("test_store_faults");
	if (!T_TSAN)
		RUN(killed);
	RUN(damaged_byte);
	RUN(truncated_file);
	RUN(lost_record);
	RUN(orphans);
	if (!T_TSAN)
		RUN(damaged_index);
	RUN(damage_is_set_aside);
	RUN(two_at_once);
	RUN(unknown_format);
	RUN(bad_directories);
	RUN(read_only_directory);
	RUN(full_disk);
	RUN(emptied_files_go);
	RUN(emptied_while_lent);
	RUN(no_inodes);
	RUN(eviction_order);
	RUN(tiny_cache);
	RUN(keeps_disk_free);
	RUN(evicted_takes_room);
	RUN(eviction_under_load);
	return t_end();
}
