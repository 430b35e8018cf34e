/* The index alone: records, and damaged files. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "store/index-check.h"
#include "store/index.h"
#include "tests/unit/tap.h"

static char dir[4096];

/* In the commands $D is the test's directory. */
static void run(const char *cmd)
{
	if (system(cmd) != 0)
		BAIL(cmd);
}

static void wipe(void)
{
	run("rm -rf \"$D\"/i");
}

static char *path_of(const char *name)
{
	static char path[8192];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static struct index *open_ix(void)
{
	struct index *ix = NULL;
	struct error err;

	if (index_open(path_of("i"), &ix, &err) < 0)
		BAIL(err.text);
	return ix;
}

static uint64_t rng = 1;

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

static int put(struct index *ix, enum index_db db, const char *k, const char *v)
{
	struct index_batch b;
	int r;

	index_batch_init(&b);
	index_put(&b, db, k, strlen(k), v, strlen(v));
	r = index_write(ix, &b);
	index_batch_release(&b);
	return r;
}

static bool has(struct index *ix, enum index_db db, const char *k,
		const char *v)
{
	CLEANUP(buf_release) struct buf out = BUF_INIT(1 << 20);

	return index_get(ix, db, k, strlen(k), &out) == 0 &&
	       out.len == strlen(v) &&
	       (out.len == 0 || memcmp(out.data, v, out.len) == 0);
}

static int add_name(void *arg, const uint8_t *key, size_t key_len,
		    const uint8_t *val, size_t val_len)
{
	(void)val;
	(void)val_len;
	return buf_add(arg, key, key_len);
}

static int add_until_x(void *arg, const uint8_t *key, size_t key_len,
		       const uint8_t *val, size_t val_len)
{
	(void)val;
	(void)val_len;
	return key[0] == 'x' ? 77 : buf_add(arg, key, key_len);
}

static int jump(void *arg, const uint8_t *key, size_t key_len,
		struct index_cursor *next)
{
	(void)buf_add(arg, key, key_len);
	next->next[0] = (uint8_t)(key[0] + 1);
	next->next_len = 1;
	return INDEX_SEEK;
}

static void records(void)
{
	CLEANUP(buf_release) struct buf names = BUF_INIT(1000);
	struct index_batch b;
	struct index *ix = open_ix();
	struct stat st;

	EQ(put(ix, INDEX_KV, "a1", "one"), 0);
	EQ(put(ix, INDEX_KV, "a2", "two"), 0);
	EQ(put(ix, INDEX_KV, "a2", "three"), 0);
	EQ(put(ix, INDEX_KV, "x9", ""), 0);
	EQ(put(ix, INDEX_KV, "", "v"), -ENAMETOOLONG);
	OK(has(ix, INDEX_KV, "a1", "one"));
	OK(has(ix, INDEX_KV, "a2", "three"));
	OK(has(ix, INDEX_KV, "x9", ""));
	OK(!has(ix, INDEX_TAGS, "a1", "one"));

	EQ(index_each(ix, INDEX_KV, "a", 1, add_name, &names), 0);
	STREQ(names.data, "a1a2");
	buf_reset(&names);
	EQ(index_each(ix, INDEX_KV, NULL, 0, add_until_x, &names), 77);
	STREQ(names.data, "a1a2");
	buf_reset(&names);
	EQ(index_walk(ix, INDEX_KV, NULL, 0, jump, &names), 0);
	STREQ(names.data, "a1x9");

	index_batch_init(&b);
	index_del_prefix(&b, INDEX_KV, "a", 1);
	index_del(&b, INDEX_KV, "nothing", 7);
	EQ(index_write(ix, &b), 0);
	index_batch_release(&b);
	OK(!has(ix, INDEX_KV, "a1", "one"));
	OK(has(ix, INDEX_KV, "x9", ""));
	index_close(&ix);
	OK(ix == NULL);

	EQ(stat(path_of("i"), &st), 0);
	EQ(st.st_mode & 07777, 0700);
	EQ(stat(path_of("i/data.mdb"), &st), 0);
	EQ(st.st_mode & 07777, 0600);

	EQ(index_check(path_of("i")), 0);
	ix = open_ix();
	OK(has(ix, INDEX_KV, "x9", ""));
	index_close(&ix);
	wipe();
}

/* A batch is written as a whole or not at all. */
static void batches(void)
{
	char key[600];
	struct index_batch b;
	struct index *ix = open_ix();

	memset(key, 'k', sizeof(key));
	index_batch_init(&b);
	index_put(&b, INDEX_KV, "good", 4, "v", 1);
	index_put(&b, INDEX_KV, key, sizeof(key), "v", 1);
	EQ(index_write(ix, &b), -ENAMETOOLONG);
	index_batch_release(&b);
	OK(!has(ix, INDEX_KV, "good", "v"));

	index_put(&b, INDEX_KV, key, INDEX_KEY_MAX, "v", 1);
	EQ(index_write(ix, &b), 0);
	index_batch_release(&b);
	index_close(&ix);
	wipe();
}

static void blobs_and_touches(void)
{
	struct index_blob rec = {123456789, 1000, 77, 1}, got;
	uint8_t key[INDEX_BKEY] = {1, 2, 3}, other[INDEX_BKEY] = {9};
	struct index_batch b;
	struct index *ix = open_ix();

	index_batch_init(&b);
	index_put_blob(&b, key, &rec);
	index_touch(&b, INDEX_BLOBS, key, sizeof(key), 2000);
	index_touch(&b, INDEX_BLOBS, key, sizeof(key), 1500);
	index_touch(&b, INDEX_BLOBS, other, sizeof(other), 5);
	EQ(index_write(ix, &b), 0);
	index_batch_release(&b);
	EQ(index_get_blob(ix, key, &got), 0);
	EQ(got.size, 123456789);
	EQ(got.last_use_s, 2000);
	EQ(got.cached_bytes, 77);
	EQ(got.state, 1);
	EQ(index_get_blob(ix, other, &got), -ENOENT);
	index_close(&ix);
	wipe();
}

static void flip(const char *file, off_t at, uint8_t bits)
{
	int fd = open(file, O_RDWR);
	uint8_t c;

	if (fd < 0 || pread(fd, &c, 1, at) != 1)
		BAIL("flip");
	c ^= bits;
	if (pwrite(fd, &c, 1, at) != 1)
		BAIL("flip");
	(void)close(fd);
}

/* Flips bits in one character of every copy of text in the file; LMDB leaves
 * old versions of a page behind. */
static void flip_text(const char *file, const char *text, size_t i,
		      uint8_t bits)
{
	int fd = open(file, O_RDONLY), n = 0;
	struct stat st;
	CLEANUP(freep) char *data = NULL;
	char *at;

	if (fd < 0 || fstat(fd, &st) < 0)
		BAIL("open");
	data = malloc((size_t)st.st_size);
	if (!data || read(fd, data, (size_t)st.st_size) != st.st_size)
		BAIL("read");
	(void)close(fd);
	at = data;
	while ((at = memmem(at, (size_t)(data + st.st_size - at), text,
			    strlen(text)))) {
		flip(file, at - data + (off_t)i, bits);
		at++;
		n++;
	}
	OK(n > 0);
}

/* A record with changed bytes is absent; the others are present. */
static void wrong_checksum(void)
{
	struct index *ix = open_ix();

	EQ(put(ix, INDEX_KV, "first", "findmewhenyoucan"), 0);
	EQ(put(ix, INDEX_KV, "second", "unharmed"), 0);
	index_close(&ix);
	flip_text(path_of("i/data.mdb"), "findmewhenyoucan", 3, 0x20);
	EQ(index_check(path_of("i")), 0);
	ix = open_ix();
	OK(!has(ix, INDEX_KV, "first", "findmewhenyoucan"));
	OK(has(ix, INDEX_KV, "second", "unharmed"));
	EQ(put(ix, INDEX_KV, "first", "anew"), 0);
	OK(has(ix, INDEX_KV, "first", "anew"));
	index_close(&ix);
	/* The checksum covers the key too. */
	flip_text(path_of("i/data.mdb"), "secondunharmed", 5, 1); /* secone */
	ix = open_ix();
	OK(!has(ix, INDEX_KV, "second", "unharmed"));
	OK(!has(ix, INDEX_KV, "secone", "unharmed"));
	index_close(&ix);
	wipe();
}

static void other_format(void)
{
	struct index *ix = open_ix();

	EQ(put(ix, INDEX_META, "format", "9"), 0);
	index_close(&ix);
	EQ(index_check(path_of("i")), -EPROTO);
	ix = open_ix();
	EQ(put(ix, INDEX_META, "format", "1"), 0);
	index_close(&ix);
	EQ(index_check(path_of("i")), -ESTALE);
	wipe();
}

static void no_index(void)
{
	EQ(index_check(path_of("i")), 0);
	EQ(mkdir(path_of("i"), 0700), 0);
	EQ(index_check(path_of("i")), 0);
	EQ(close(open(path_of("i/data.mdb"), O_CREAT | O_WRONLY, 0600)), 0);
	EQ(index_check(path_of("i")), -EBADMSG);
	wipe();
}

/* One random step: records of all sizes come and go. */
static void churn(struct index *ix, unsigned int n)
{
	static char val[300000];
	struct index_batch b;

	index_batch_init(&b);
	for (unsigned int i = 0; i < n; i++) {
		enum index_db db = (enum index_db)(1 + rnd(INDEX_DBS - 1));
		uint8_t key[80];
		size_t len = 1 + rnd(sizeof(key) - 1), size;

		memset(key, 'k', sizeof(key));
		key[0] = (uint8_t)('a' + rnd(5));
		key[len - 1] = (uint8_t)rnd(200);
		size = rnd(10) ? rnd(900) : rnd(2000);
		if (rnd(60) == 0)
			size = rnd(sizeof(val));
		memset(val, (int)rnd(256), 64);
		if (rnd(3) == 0)
			index_del(&b, db, key, len);
		else if (rnd(400) == 0)
			index_del_prefix(&b, db, key, 1);
		else
			index_put(&b, db, key, len, val, size);
	}
	if (index_write(ix, &b) != 0)
		BAIL("index_write");
	index_batch_release(&b);
}

/* The check gives no false alarm, whatever the state of LMDB's pages. */
static void check_of_sound_files(void)
{
	struct index *ix = open_ix();

	rng = 4711;
	for (int i = 0; i < 150; i++) {
		churn(ix, 1 + (unsigned int)rnd(i % 10 ? 40 : 900));
		if (index_check_pages(path_of("i")) != 0) {
			printf("# round %d\n", i);
			BAIL("a sound file was called damaged");
		}
		if (i % 25 == 0) {
			index_close(&ix);
			EQ(index_check(path_of("i")), 0);
			ix = open_ix();
		}
	}
	index_close(&ix);
	EQ(index_check(path_of("i")), 0);
	wipe();
}

static int count(void *arg, const uint8_t *key, size_t key_len,
		 const uint8_t *val, size_t val_len)
{
	(void)key;
	(void)val;
	*(size_t *)arg += key_len + val_len;
	return 0;
}

/* Runs in a child: uses an index that passed the check as heavily as possible.
 */
static int use_file(void)
{
	struct index *ix = open_ix();
	size_t n = 0;

	for (int db = 0; db < INDEX_DBS; db++)
		if (index_each(ix, (enum index_db)db, NULL, 0, count, &n) != 0)
			return 3;
	for (int i = 0; i < 8; i++)
		churn(ix, 100);
	index_close(&ix);
	return index_check_pages(path_of("i")) == 0 ? 0 : 4;
}

static int run_child(int (*fn)(void))
{
	int status;
	pid_t pid;

	(void)fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(fn());
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		BAIL("fork");
	return WIFEXITED(status) ? WEXITSTATUS(status)
				 : 1000 + WTERMSIG(status);
}

/* Picks a page at random, rarely one that only continues a long value. */
static off_t pick_page(const char *file, off_t size)
{
	int fd = open(file, O_RDONLY);
	off_t page = 0;

	for (int i = 0; i < 20; i++) {
		uint8_t flags = 0;

		page = (off_t)rnd((uint64_t)size / 4096) * 4096;
		if (pread(fd, &flags, 1, page + 10) == 1 && (flags & 11) &&
		    !(flags & ~11u))
			break;
	}
	(void)close(fd);
	return page;
}

/* Flipped bits anywhere are detected or harmless. */
static void flipped_bits(void)
{
	int found = 0, harmless = 0;
	struct index *ix = open_ix();
	struct stat st;

	rng = 99;
	churn(ix, 900);
	churn(ix, 20);
	index_close(&ix);
	run("cp \"$D\"/i/data.mdb \"$D\"/good");
	EQ(stat(path_of("i/data.mdb"), &st), 0);
	for (int i = 0; i < 250; i++) {
		off_t page = pick_page(path_of("good"), st.st_size);
		/* Picks headers and meta pages more often than others. */
		off_t at = page + (off_t)rnd(i % 2 ? 4096 : 160);
		uint8_t bits = (uint8_t)(1u << rnd(8));
		int r;

		if (i % 5 == 0)
			at = (at - page) % 160 + (i % 10 ? 4096 : 0);
		run("cp \"$D\"/good \"$D\"/i/data.mdb");
		flip(path_of("i/data.mdb"), at, bits);
		r = index_check(path_of("i"));
		if (r == -EBADMSG) {
			found++;
			continue;
		}
		EQ(r, 0);
		harmless++;
		r = run_child(use_file);
		if (r != 0)
			printf("# at %lld bits %x: %d\n", (long long)at, bits,
			       r);
		EQ(r, 0);
	}
	printf("# %d found, %d harmless\n", found, harmless);
	OK(found > 20);
	OK(harmless > 20);
	EQ(unlink(path_of("good")), 0);
	wipe();
}

static void truncated(void)
{
	struct index *ix = open_ix();
	struct stat st;

	rng = 5;
	for (int i = 0; i < 6; i++)
		churn(ix, 150);
	index_close(&ix);
	run("cp \"$D\"/i/data.mdb \"$D\"/good");
	EQ(stat(path_of("good"), &st), 0);
	for (int i = 0; i < 40; i++) {
		off_t len = (off_t)rnd((uint64_t)st.st_size);
		int r;

		if (i < 10)
			len = i * 1000;
		run("cp \"$D\"/good \"$D\"/i/data.mdb");
		EQ(truncate(path_of("i/data.mdb"), len), 0);
		r = index_check(path_of("i"));
		OK(r == -EBADMSG || r == 0);
		if (r == 0)
			EQ(run_child(use_file), 0);
	}
	/* A file that is not an index. */
	run("head -c 200000 /dev/zero > \"$D\"/i/data.mdb");
	EQ(index_check(path_of("i")), -EBADMSG);
	run("head -c 8192 \"$D\"/good | cat - \"$D\"/good > \"$D\"/i/data.mdb");
	EQ(index_check(path_of("i")), -EBADMSG);
	EQ(unlink(path_of("good")), 0);
	wipe();
}

/* The map grows when the records need more room than it has. */
static void map_grows(void)
{
	struct index *ix;
	size_t n = 0;

	index_map_bytes = (size_t)1 << 20;
	ix = open_ix();
	rng = 8;
	for (int i = 0; i < 20; i++) {
		churn(ix, 100);
		EQ(index_each(ix, INDEX_KV, NULL, 0, count, &n), 0);
	}
	OK(n > (size_t)1 << 20);
	index_close(&ix);
	EQ(index_check(path_of("i")), 0);
	ix = open_ix();
	churn(ix, 100);
	index_close(&ix);
	wipe();
}

int main(void)
{
	const char *tmp = getenv("TMPDIR");
	int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);

	(void)snprintf(dir, sizeof(dir), "%s/test_index.XXXXXX",
		       tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		BAIL("mkdtemp");
	(void)setenv("D", dir, 1);
	log_init(LOG_ERROR, LOG_FORMAT_TEXT, "test", "0");
	log_set_fd(quiet);
	RUN(records);
	RUN(batches);
	RUN(blobs_and_touches);
	RUN(wrong_checksum);
	RUN(other_format);
	RUN(no_index);
	RUN(check_of_sound_files);
	RUN(flipped_bits);
	RUN(truncated);
	RUN(map_grows);
	log_set_fd(-1);
	(void)close(quiet);
	run("rm -rf \"$D\"");
	return tap_done();
}
