/* Shared by the tests of the store: a directory, blobs of known content, and a
 * record of events. */
#ifndef TESTS_STORE_HELPERS_H
#define TESTS_STORE_HELPERS_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "store/store-private.h"
#include "tests/unit/tap.h"

/* ThreadSanitizer's runtime cannot start threads in a forked child. */
#if defined(__SANITIZE_THREAD__)
#define T_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define T_TSAN 1
#endif
#endif
#ifndef T_TSAN
#define T_TSAN 0
#endif

#define MIB ((uint64_t)1 << 20)

static char t_dir[4096];
static int t_events[BLOB_EVENTS]; /* atomic */

static inline void t_event(void *arg, struct blob *b, enum blob_event ev)
{
	(void)arg;
	(void)b;
	__atomic_fetch_add(&t_events[ev], 1, __ATOMIC_SEQ_CST);
}

static inline int events(enum blob_event ev)
{
	return __atomic_load_n(&t_events[ev], __ATOMIC_SEQ_CST);
}

/* Waits for a condition that a store thread makes true. */
#define WAIT(cond)                                                             \
	do {                                                                   \
		uint64_t until_ = now_ms() + 120000;                           \
		while (!(cond) && now_ms() < until_)                           \
			(void)usleep(1000);                                    \
		OK(cond);                                                      \
	} while (0)

/* In the commands $D is the test's directory. */
static inline void run(const char *cmd)
{
	if (system(cmd) != 0)
		BAIL(cmd);
}

static inline struct store *open_with(struct store_config cfg)
{
	struct store *s = NULL;
	struct error err;

	if (!cfg.dir)
		cfg.dir = t_dir;
	cfg.event = t_event;
	memset(t_events, 0, sizeof(t_events));
	if (store_open(&cfg, &s, &err) < 0)
		BAIL(err.text);
	return s;
}

static inline struct store *open_store(void)
{
	return open_with((struct store_config){.commit_interval_ms = 5});
}

static inline void wipe(void)
{
	run("rm -rf \"$D\"/* ");
}

static inline uint64_t fill_word(uint64_t seed, uint64_t at)
{
	uint64_t x = (at + 1) * 0x9E3779B97F4A7C15 ^ seed * 0xD1B54A32D192ED03;

	x ^= x >> 29;
	x *= 0xBF58476D1CE4E5B9;
	return x ^ x >> 32;
}

/* The bytes of the blob with this seed, from offset off. */
static inline void fill(uint64_t seed, uint64_t off, uint8_t *out, size_t len)
{
	while (len > 0) {
		uint64_t x = fill_word(seed, off / 8) >> (8 * (off % 8));
		size_t n = min_u64(len, 8 - off % 8);

		memcpy(out, &x, n);
		out += n;
		off += n;
		len -= n;
	}
}

static inline bool same(uint64_t seed, uint64_t off, const uint8_t *got,
			size_t len)
{
	CLEANUP(freep) uint8_t *want = malloc(len + 1);

	if (!want)
		BAIL("malloc");
	fill(seed, off, want, len);
	return memcmp(want, got, len) == 0;
}

static inline struct blob_key sha_key(uint64_t seed, uint64_t size)
{
	struct blob_key key = {.kind = BLOB_SHA256};
	struct sha256 *h = sha256_new();
	CLEANUP(freep) uint8_t *buf = malloc(CHUNK_SIZE);

	if (!h || !buf)
		BAIL("malloc");
	for (uint64_t off = 0; off < size; off += CHUNK_SIZE) {
		size_t n = min_u64(CHUNK_SIZE, size - off);

		fill(seed, off, buf, n);
		sha256_update(h, buf, n);
	}
	sha256_final(h, &key.id);
	sha256_free(&h);
	if (size > 0)
		blob_key_claim(&key, "registry://example.com/a", size);
	return key;
}

static inline struct blob_key url_key(uint64_t seed)
{
	struct blob_key key = {.kind = BLOB_URL};

	digest_of(&seed, sizeof(seed), &key.id);
	return key;
}

static inline struct blob *make_blob(struct store *s, struct blob_key key,
				     uint64_t size)
{
	struct blob *b = NULL;

	if (store_create(s, &key, size, &b) < 0)
		BAIL("store_create");
	return b;
}

static inline struct blob *get_blob(struct store *s, struct blob_key key)
{
	struct blob *b = NULL;

	if (store_get(s, &key, &b) < 0)
		BAIL("store_get");
	return b;
}

static inline int write_chunk_as(struct store *s, struct blob *b, uint32_t c,
				 uint64_t seed, uint16_t from)
{
	CLEANUP(freep) uint8_t *buf = malloc(CHUNK_SIZE);
	uint32_t len = blob_chunk_len(b, c);

	if (!buf)
		BAIL("malloc");
	fill(seed, c * CHUNK_SIZE, buf, len);
	return store_write(s, b, c, buf, len, from);
}

static inline int write_chunk(struct store *s, struct blob *b, uint32_t c,
			      uint64_t seed)
{
	return write_chunk_as(s, b, c, seed, CHUNK_FROM_UPSTREAM);
}

static inline void write_all(struct store *s, struct blob *b, uint64_t seed)
{
	for (uint32_t c = 0; c < blob_chunks(b); c++)
		EQ(write_chunk(s, b, c, seed), 0);
}

/* Calls store_read() and compares the bytes. 1: they are wrong. */
static inline int read_same(struct store *s, struct blob *b, uint64_t seed,
			    uint64_t off, size_t len)
{
	CLEANUP(freep) uint8_t *buf = malloc(len + 1);
	int r;

	if (!buf)
		BAIL("malloc");
	r = store_read(s, b, off, buf, len);
	return r == 0 && !same(seed, off, buf, len) ? 1 : r;
}

static inline char *file_of(struct blob_key key)
{
	static char path[5000];
	char name[FILE_PATH_SIZE];

	(void)snprintf(path, sizeof(path), "%s/%s", t_dir,
		       blob_path(&key, name));
	return path;
}

static inline char *in_dir(const char *name)
{
	static char path[5000];

	(void)snprintf(path, sizeof(path), "%s/%s", t_dir, name);
	return path;
}

static inline void flip_byte(const char *file, uint64_t at)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);
	uint8_t c;

	if (fd < 0 || pread(fd, &c, 1, (off_t)at) != 1)
		BAIL("flip_byte");
	c ^= 0x10;
	if (pwrite(fd, &c, 1, (off_t)at) != 1)
		BAIL("flip_byte");
	(void)close(fd);
}

/* The result of blob_on_verified(). */
static inline void t_answer(void *arg, int r)
{
	__atomic_store_n((int *)arg, r, __ATOMIC_SEQ_CST);
}

static inline int verified(struct store *s, struct blob *b)
{
	int r = 12345;

	blob_on_verified(s, b, t_answer, &r);
	WAIT(__atomic_load_n(&r, __ATOMIC_SEQ_CST) != 12345);
	return __atomic_load_n(&r, __ATOMIC_SEQ_CST);
}

static inline void t_begin(const char *name)
{
	const char *tmp = getenv("TMPDIR");
	int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);

	(void)snprintf(t_dir, sizeof(t_dir), "%s/%s.XXXXXX", tmp ? tmp : "/tmp",
		       name);
	if (!mkdtemp(t_dir))
		BAIL("mkdtemp");
	(void)setenv("D", t_dir, 1);
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	log_init(LOG_ERROR, LOG_FORMAT_TEXT, "test", "0");
	if (!getenv("VERBOSE"))
		log_set_fd(quiet);
}

static inline int t_end(void)
{
	run("rm -rf \"$D\"");
	return tap_done();
}

#endif
