/* External blobs: read in place, not stored twice. */
#include <dirent.h>
#include <limits.h>

#include "tests/unit/store-helpers.h"

#define SIZE (3 * MIB + 1234)

static char e_dir[5000];

static struct store *open_ext(uint32_t grace_ms)
{
	return open_with((struct store_config){.commit_interval_ms = 5,
					       .external_dir = e_dir,
					       .external_grace_ms = grace_ms});
}

static void begin(void)
{
	wipe();
	run("mkdir -p \"$D\"/ext");
}

static const char *ext_file(struct blob_key key)
{
	static char path[6000];
	char hex[DIGEST_HEX_SIZE];

	(void)snprintf(path, sizeof(path), "%s/%s", e_dir,
		       digest_hex(&key.id, hex));
	return path;
}

/* The file appears as a whole, as with containerd. */
static void put_file(struct blob_key key, const void *bytes, size_t len)
{
	char tmp[6000];
	int fd;

	(void)snprintf(tmp, sizeof(tmp), "%s.new", e_dir);
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len || close(fd) != 0 ||
	    rename(tmp, ext_file(key)) != 0)
		BAIL("put_file");
}

static void put_ext(struct blob_key key, uint64_t seed, uint64_t size)
{
	CLEANUP(freep) uint8_t *buf = malloc(size + 1);

	if (!buf)
		BAIL("malloc");
	fill(seed, 0, buf, size);
	put_file(key, buf, size);
}

static void del_ext(struct blob_key key)
{
	if (unlink(ext_file(key)) != 0)
		BAIL("unlink");
}

static bool fd_same(int fd, uint64_t seed, uint64_t off, size_t len)
{
	CLEANUP(freep) uint8_t *buf = malloc(len);

	return buf && pread(fd, buf, len, (off_t)off) == (ssize_t)len &&
	       same(seed, off, buf, len);
}

/* Counts the open descriptors of this process for deleted files below $D. */
static int deleted_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	const struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d))) {
		char to[PATH_MAX];
		ssize_t len =
			readlinkat(dirfd(d), e->d_name, to, sizeof(to) - 1);

		if (len < 0)
			continue;
		to[len] = '\0';
		n += strncmp(to, e_dir, strlen(e_dir)) == 0 &&
		     strstr(to, " (deleted)");
	}
	if (d)
		(void)closedir(d);
	return n;
}

static uint64_t cached(struct store *s)
{
	struct store_stats st;

	store_stats(s, &st);
	return st.cached_bytes;
}

/* False: the store let go of its own chunks meanwhile, the bytes may be gone.
 */
static bool sends_same(struct store *s, struct blob *b, uint64_t seed)
{
	uint64_t gen;
	bool right;
	int fd = -1;

	EQ(store_range_fd_now(s, b, 5, 2 * MIB, &fd, &gen), 0);
	right = fd_same(fd, seed, 5, 2 * MIB);
	if (!store_gen_ok(b, gen))
		return false;
	OK(right);
	return true;
}

static void check_whole(struct store *s, struct blob *b, uint64_t seed)
{
	uint8_t bits[2] = {0x55, 0x55};
	uint64_t gen;
	int fd = -1;

	EQ(blob_size(b), SIZE);
	OK(blob_external(b));
	EQ(blob_get_state(b), BLOB_VERIFIED);
	EQ(blob_missing(b), 0);
	EQ(blob_next_missing(b, 0), 4);
	OK(blob_has(b, 0) && blob_has(b, 3) && !blob_has(b, 4));
	OK(!blob_gated(b));
	EQ(blob_unsummed_bytes(b), 0);
	EQ(blob_cached_bytes(b), SIZE);
	blob_bitmap(b, bits, sizeof(bits));
	EQ(bits[0], 0x0f);
	EQ(bits[1], 0);
	EQ(read_same(s, b, seed, 0, SIZE), 0);
	EQ(read_same(s, b, seed, 3 * MIB - 7, 300), 0);
	EQ(read_same(s, b, seed, SIZE, 0), 0);
	EQ(read_same(s, b, seed, SIZE - 1, 2), -EINVAL);
	WAIT(sends_same(s, b, seed));
	EQ(store_range_fd(s, b, 0, SIZE, &fd, &gen), 0);
	OK(fd_same(fd, seed, 0, SIZE));
	EQ(store_range_fd(s, b, 1, SIZE, &fd, &gen), -EINVAL);
	EQ(verified(s, b), 0);
}

static void test_in_place(void)
{
	struct blob_key key = sha_key(1, SIZE), other = sha_key(2, SIZE);
	struct blob_key nobody = {.kind = BLOB_SHA256, .id = key.id};
	struct store *s;
	struct blob *b;

	begin();
	put_ext(key, 1, SIZE);
	s = open_ext(0);
	EQ(store_get(s, &other, &b), -ENOENT);
	EQ(store_peek(s, &key, &b), -EAGAIN);
	b = get_blob(s, key);
	check_whole(s, b, 1);
	EQ(write_chunk(s, b, 1, 1), -EEXIST);
	EQ(store_verify(s, b), 0);
	EQ(store_external_changed(s, &key.id), 1);
	EQ(store_external_changed(s, &other.id), 0);
	check_whole(s, b, 1);
	EQ(store_sync(s), 0);
	EQ(cached(s), 0);
	EQ(access(file_of(key), F_OK), -1);
	blob_unref(&b);
	/* The blob has this size and no other. */
	b = make_blob(s, key, SIZE);
	check_whole(s, b, 1);
	blob_unref(&b);
	b = make_blob(s, key, SIZE + 1);
	OK(!blob_external(b));
	blob_unref(&b);
	b = get_blob(s, nobody);
	OK(blob_external(b));
	blob_unref(&b);
	store_close(&s);

	/* Origins of an external blob are kept in the index. */
	s = open_ext(0);
	b = get_blob(s, key);
	EQ(blob_add_origin(s, b, "registry://example.com/a"), 0);
	blob_unref(&b);
	store_close(&s);
	del_ext(key);
	s = open_ext(0);
	b = get_blob(s, key);
	OK(!blob_external(b));
	EQ(blob_size(b), SIZE);
	EQ(blob_missing(b), 4);
	EQ(blob_get_state(b), BLOB_PROVISIONAL);
	blob_unref(&b);
	store_close(&s);
}

static void test_no_directory(void)
{
	struct blob_key key = sha_key(1, SIZE);
	struct store *s;
	struct blob *b;

	wipe();
	s = open_ext(0);
	EQ(store_get(s, &key, &b), -ENOENT);
	EQ(store_external_changed(s, &key.id), 0);
	run("mkdir \"$D\"/ext");
	put_ext(key, 1, SIZE);
	EQ(store_external_changed(s, &key.id), 1);
	b = get_blob(s, key);
	check_whole(s, b, 1);
	run("rm -r \"$D\"/ext");
	EQ(store_external_changed(s, &key.id), 0);
	OK(!blob_external(b));
	blob_unref(&b);
	store_close(&s);
}

static void test_unfit_files(void)
{
	static const char *const make[] = {
		"mkfifo \"$F\"",
		"mkdir \"$F\"",
		"echo secret >\"$D\"/s && ln -s \"$D\"/s \"$F\"",
		": >\"$F\"",
	};
	struct blob_key key = sha_key(1, SIZE);
	struct store *s;
	struct blob *b;

	for (size_t i = 0; i < ARRAY_SIZE(make); i++) {
		begin();
		(void)setenv("F", ext_file(key), 1);
		run(make[i]);
		s = open_ext(0);
		EQ(store_get(s, &key, &b), -ENOENT);
		EQ(store_external_changed(s, &key.id), -ESTALE);
		b = make_blob(s, key, SIZE);
		OK(!blob_external(b));
		EQ(store_external_changed(s, &key.id), -ESTALE);
		write_all(s, b, 1);
		EQ(verified(s, b), 0);
		EQ(read_same(s, b, 1, 0, SIZE), 0);
		blob_unref(&b);
		store_close(&s);
	}
	/* The file's size differs from the known one. */
	begin();
	put_ext(key, 1, SIZE - 1);
	s = open_with((struct store_config){.commit_interval_ms = 5});
	b = make_blob(s, key, SIZE);
	EQ(write_chunk(s, b, 0, 1), 0);
	blob_unref(&b);
	store_close(&s);
	s = open_ext(0);
	b = get_blob(s, key);
	OK(!blob_external(b));
	EQ(blob_missing(b), 3);
	/* The claim may be wrong: the file is a blob of its own size. */
	EQ(store_external_changed(s, &key.id), 1);
	OK(!blob_external(b));
	EQ(blob_missing(b), 3);
	put_ext(key, 1, SIZE);
	EQ(store_external_changed(s, &key.id), 1);
	check_whole(s, b, 1);
	blob_unref(&b);
	store_close(&s);
}

/* The store's chunks are dropped; readers do not notice. */
static void test_takes_over(void)
{
	struct blob_key key = sha_key(1, SIZE);
	struct store *s;
	struct blob *b;
	uint64_t gen;
	int fd;

	begin();
	s = open_ext(1);
	b = make_blob(s, key, SIZE);
	write_all(s, b, 1);
	EQ(verified(s, b), 0);
	EQ(store_range_fd(s, b, 0, SIZE, &fd, &gen), 0);
	put_ext(key, 1, SIZE);
	EQ(store_external_changed(s, &key.id), 1);
	EQ(read_same(s, b, 1, 0, SIZE), 0);
	WAIT(cached(s) == 0);
	EQ(store_sync(s), 0);
	OK(!store_gen_ok(b, gen)); /* of the store's own file */
	check_whole(s, b, 1);
	del_ext(key);
	EQ(store_external_changed(s, &key.id), 0);
	EQ(blob_missing(b), 4);
	EQ(read_same(s, b, 1, 0, 10), -ENODATA);
	write_all(s, b, 1);
	EQ(verified(s, b), 0);
	EQ(read_same(s, b, 1, 0, SIZE), 0);
	blob_unref(&b);
	store_close(&s);
}

/* The store's file stays while a sender may use it. */
static void test_grace(void)
{
	struct blob_key key = sha_key(1, SIZE);
	struct store *s;
	struct blob *b;
	uint64_t gen;
	int fd;

	begin();
	s = open_ext(3600000);
	b = make_blob(s, key, SIZE);
	write_all(s, b, 1);
	EQ(store_sync(s), 0);
	EQ(verified(s, b), 0);
	EQ(store_range_fd(s, b, 0, SIZE, &fd, &gen), 0);
	put_ext(key, 1, SIZE);
	EQ(store_external_changed(s, &key.id), 1);
	EQ(store_sync(s), 0);
	EQ(store_sync(s), 0);
	OK(store_gen_ok(b, gen));
	OK(fd_same(fd, 1, 0, SIZE));
	EQ(cached(s), SIZE);
	/* Back to the store's own chunks; none was lost. */
	del_ext(key);
	EQ(store_external_changed(s, &key.id), 0);
	EQ(blob_missing(b), 0);
	OK(!blob_external(b));
	EQ(read_same(s, b, 1, 0, SIZE), 0);
	OK(store_gen_ok(b, gen));
	put_ext(key, 1, SIZE);
	EQ(store_external_changed(s, &key.id), 1);
	blob_unref(&b);
	/* Delayed drops happen at the latest when the store closes. */
	store_close(&s);
	s = open_ext(0);
	EQ(cached(s), 0);
	store_close(&s);
}

static void test_deleted_in_mid_read(void)
{
	struct blob_key key = sha_key(1, SIZE);
	struct store *s;
	struct blob *b;
	uint64_t gen;
	int fd;

	begin();
	put_ext(key, 1, SIZE);
	s = open_ext(3600000);
	b = get_blob(s, key);
	EQ(store_range_fd(s, b, 0, SIZE, &fd, &gen), 0);
	OK(fd_same(fd, 1, 0, MIB));
	del_ext(key);
	EQ(store_external_changed(s, &key.id), 0);
	EQ(store_sync(s), 0);
	OK(fd_same(fd, 1, MIB, SIZE - MIB));
	OK(store_gen_ok(b, gen));
	EQ(blob_missing(b), 4);
	EQ(blob_get_state(b), BLOB_PROVISIONAL);
	EQ(blob_cached_bytes(b), 0);
	EQ(read_same(s, b, 1, 0, 1), -ENODATA);
	EQ(store_range_fd(s, b, 0, 1, &fd, &gen), -ENODATA);
	EQ(deleted_fds(), 1);
	/* The external file comes back: the lent descriptor number now means
	 * the new file. */
	put_ext(key, 1, SIZE);
	EQ(store_external_changed(s, &key.id), 1);
	OK(fd_same(fd, 1, 0, SIZE));
	OK(store_gen_ok(b, gen));
	EQ(deleted_fds(), 0);
	check_whole(s, b, 1);
	blob_unref(&b);
	store_close(&s);
}

/* The disk space is free again after the grace time, whatever is held. */
static void test_lets_go(void)
{
	struct blob_key key = sha_key(1, SIZE);
	struct store *s;
	struct blob *b;
	uint64_t gen;
	uint8_t byte;
	int fd;

	begin();
	put_ext(key, 1, SIZE);
	s = open_ext(1);
	b = get_blob(s, key);
	EQ(store_range_fd(s, b, 0, SIZE, &fd, &gen), 0);
	del_ext(key);
	EQ(store_external_changed(s, &key.id), 0);
	WAIT(deleted_fds() == 0);
	OK(!store_gen_ok(b, gen));
	EQ(pread(fd, &byte, 1, 0), 0);
	EQ(read_same(s, b, 1, 0, 1), -ENODATA);
	put_ext(key, 1, SIZE);
	EQ(store_external_changed(s, &key.id), 1);
	check_whole(s, b, 1);
	blob_unref(&b);
	store_close(&s);

	/* Immediately if nobody holds the blob. */
	s = open_ext(3600000);
	b = get_blob(s, key);
	EQ(store_sync(s), 0);
	blob_unref(&b);
	del_ext(key);
	EQ(store_external_changed(s, &key.id), 0);
	WAIT(deleted_fds() == 0);
	store_close(&s);
}

static void test_replaced(void)
{
	struct blob_key key = sha_key(1, SIZE);
	struct store *s;
	struct blob *b;

	begin();
	put_ext(key, 1, SIZE);
	s = open_ext(3600000);
	b = get_blob(s, key);
	for (int i = 0; i < 20; i++) {
		put_ext(key, 1, SIZE);
		EQ(store_external_changed(s, &key.id), 1);
		EQ(deleted_fds(), 0);
	}
	check_whole(s, b, 1);
	blob_unref(&b);
	store_close(&s);
}

static void test_damaged(void)
{
	struct blob_key key = sha_key(1, SIZE);
	struct store *s;
	struct blob *b;

	begin();
	put_ext(key, 1, SIZE);
	s = open_ext(1);
	b = get_blob(s, key);
	/* A truncated file: the read detects it, and the file is not used
	 * again. */
	EQ(truncate(ext_file(key), 2 * MIB), 0);
	EQ(read_same(s, b, 1, 0, MIB), 0);
	EQ(read_same(s, b, 1, 2 * MIB - 1, 2), -ENODATA);
	OK(!blob_external(b));
	EQ(store_external_changed(s, &key.id), -ESTALE);
	write_all(s, b, 1);
	EQ(verified(s, b), 0);
	EQ(read_same(s, b, 1, 0, SIZE), 0);
	del_ext(key);
	EQ(store_external_changed(s, &key.id), 0);
	put_ext(key, 1, SIZE);
	EQ(store_external_changed(s, &key.id), 1);
	check_whole(s, b, 1);
	/* A file with wrong bytes: store_verify() detects it. */
	flip_byte(ext_file(key), 2 * MIB + 5);
	EQ(store_verify(s, b), -EBADMSG);
	OK(!blob_external(b));
	EQ(store_external_changed(s, &key.id), -ESTALE);
	OK(!blob_external(b));
	blob_unref(&b);
	store_close(&s);
}

static void test_index_is_told(void)
{
	struct blob_key key = sha_key(1, SIZE), key2 = sha_key(2, SIZE);
	struct store *s;
	struct blob *b;

	begin();
	s = open_ext(0);
	for (uint64_t seed = 1; seed <= 2; seed++) {
		b = make_blob(s, seed == 1 ? key : key2, SIZE);
		write_all(s, b, seed);
		EQ(verified(s, b), 0);
		blob_unref(&b);
	}
	store_close(&s);
	put_ext(key, 1, SIZE);
	put_ext(key2, 2, SIZE);
	/* Detected by a read, and by store_external_changed(). */
	s = open_ext(3600000);
	EQ(cached(s), 2 * SIZE);
	b = get_blob(s, key);
	check_whole(s, b, 1);
	WAIT(cached(s) == SIZE);
	blob_unref(&b);
	EQ(store_external_changed(s, &key2.id), 1);
	WAIT(cached(s) == 0);
	EQ(store_sync(s), 0);
	store_close(&s);
	s = open_ext(0);
	EQ(cached(s), 0);
	b = get_blob(s, key2);
	check_whole(s, b, 2);
	blob_unref(&b);
	store_close(&s);
}

/* Wrong chunks of the store do not count any more. */
static void test_bad_blob(void)
{
	struct blob_key key = sha_key(1, SIZE);
	struct store *s;
	struct blob *b;

	begin();
	s = open_ext(1);
	b = make_blob(s, key, SIZE);
	blob_set_bad(s, b);
	EQ(read_same(s, b, 1, 0, 1), -EIO);
	put_ext(key, 1, SIZE);
	EQ(store_external_changed(s, &key.id), 1);
	check_whole(s, b, 1);
	/* The store's chunks mismatch, then the external file replaces them. */
	del_ext(key);
	EQ(store_external_changed(s, &key.id), 0);
	WAIT(blob_get_state(b) == BLOB_PROVISIONAL);
	for (uint32_t c = 0; c < 4; c++)
		EQ(write_chunk(s, b, c, c == 2 ? 7 : 1), 0);
	WAIT(events(BLOB_EV_MISMATCH) == 1);
	OK(blob_gated(b));
	put_ext(key, 1, SIZE);
	EQ(store_external_changed(s, &key.id), 1);
	check_whole(s, b, 1);
	blob_unref(&b);
	store_close(&s);
}

/* ---- Manifests ---- */

static struct blob_key put_text(const char *text)
{
	struct blob_key key = {.kind = BLOB_SHA256};

	digest_of(text, strlen(text), &key.id);
	put_file(key, text, strlen(text));
	return key;
}

static void test_manifests(void)
{
	static const char typed[] =
		"{\"schemaVersion\": 2, \"mediaType\": \"a/b+json\"}";
	static const char plain[] = "{\"schemaVersion\":2,\"layers\":[]}";
	static const char *const not_one[] = {
		"{\"architecture\":\"amd64\"}",
		"{\"schemaVersion\":1}",
		"{\"schemaVersion\":\"2\"}",
		"[2]",
		"not JSON",
	};
	struct blob_key key;
	char *type = NULL;
	void *bytes = NULL;
	size_t len = 0;
	struct store *s;

	begin();
	s = open_ext(0);
	key = put_text(typed);
	EQ(store_manifest_get(s, &key.id, &type, &bytes, &len), 0);
	STREQ(type, "a/b+json");
	STREQ(bytes, typed);
	EQ(len, strlen(typed));
	free(type);
	free(bytes);
	/* The recorded media type wins. */
	EQ(store_manifest_put(s, &key.id, "told", typed, strlen(typed)), 0);
	EQ(store_manifest_get(s, &key.id, &type, &bytes, &len), 0);
	STREQ(type, "told");
	free(type);
	free(bytes);
	key = put_text(plain);
	EQ(store_manifest_get(s, &key.id, &type, &bytes, &len), 0);
	STREQ(type, "");
	free(type);
	free(bytes);
	flip_byte(ext_file(key), 3);
	EQ(store_manifest_get(s, &key.id, &type, &bytes, &len), -ENOENT);
	del_ext(key);
	EQ(store_manifest_get(s, &key.id, &type, &bytes, &len), -ENOENT);
	for (size_t i = 0; i < ARRAY_SIZE(not_one); i++) {
		key = put_text(not_one[i]);
		EQ(store_manifest_get(s, &key.id, &type, &bytes, &len),
		   -ENOENT);
	}
	key = sha_key(3, 5 * MIB);
	put_ext(key, 3, 5 * MIB);
	EQ(store_manifest_get(s, &key.id, &type, &bytes, &len), -ENOENT);
	store_close(&s);
}

/* ---- All at once ---- */

struct crowd {
	struct store *s;
	struct blob_key key;
	bool stop;	  /* atomic */
	int wrong, right; /* atomic */
};

static bool stopped(struct crowd *c)
{
	return __atomic_load_n(&c->stop, __ATOMIC_RELAXED);
}

static void note(struct crowd *c, bool right)
{
	__atomic_fetch_add(right ? &c->right : &c->wrong, 1, __ATOMIC_RELAXED);
}

static void *crowd_read(void *arg)
{
	struct crowd *c = arg;

	for (uint64_t i = 1; !stopped(c); i = i * 13 + 7) {
		struct blob *b = get_blob(c->s, c->key);
		uint64_t off = i % (SIZE - 70000);
		int r = read_same(c->s, b, 1, off, 70000);

		if (r != -ENODATA && r != -EAGAIN)
			note(c, r == 0);
		blob_unref(&b);
	}
	return NULL;
}

static void *crowd_send(void *arg)
{
	struct crowd *c = arg;

	for (uint64_t i = 1; !stopped(c); i = i * 13 + 7) {
		struct blob *b = get_blob(c->s, c->key);
		uint64_t off = i % (SIZE - 70000), gen;
		bool right;
		int fd;

		if (store_range_fd(c->s, b, off, 70000, &fd, &gen) == 0) {
			right = fd_same(fd, 1, off, 70000);
			if (store_gen_ok(b, gen))
				note(c, right);
		}
		blob_unref(&b);
	}
	return NULL;
}

static void *crowd_write(void *arg)
{
	struct crowd *c = arg;

	for (uint32_t i = 0; !stopped(c); i++) {
		struct blob *b = get_blob(c->s, c->key);
		int r = write_chunk(c->s, b, i % 4, 1);

		if (r < 0 && r != -EEXIST)
			note(c, false);
		if (i % 64 == 63)
			(void)store_evict(c->s, b);
		if (i % 16 == 15)
			(void)store_verify(c->s, b);
		blob_unref(&b);
	}
	return NULL;
}

static void test_crowd(void)
{
	struct crowd c = {.key = sha_key(1, SIZE)};
	pthread_t t[4];
	struct blob *b;

	begin();
	c.s = open_ext(1);
	b = make_blob(c.s, c.key, SIZE);
	(void)pthread_create(&t[0], NULL, crowd_read, &c);
	(void)pthread_create(&t[1], NULL, crowd_read, &c);
	(void)pthread_create(&t[2], NULL, crowd_send, &c);
	(void)pthread_create(&t[3], NULL, crowd_write, &c);
	for (int i = 0; i < (T_TSAN ? 40 : 200); i++) {
		put_ext(c.key, 1, SIZE);
		EQ(store_external_changed(c.s, &c.key.id), 1);
		(void)store_sync(c.s);
		del_ext(c.key);
		EQ(store_external_changed(c.s, &c.key.id), 0);
		(void)store_sync(c.s);
	}
	__atomic_store_n(&c.stop, true, __ATOMIC_RELAXED);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		(void)pthread_join(t[i], NULL);
	EQ(c.wrong, 0);
	OK(c.right > 0);
	put_ext(c.key, 1, SIZE);
	EQ(store_external_changed(c.s, &c.key.id), 1);
	WAIT(cached(c.s) == 0);
	check_whole(c.s, b, 1);
	blob_unref(&b);
	store_close(&c.s);
}

int main(void)
{
	t_begin("external");
	(void)snprintf(e_dir, sizeof(e_dir), "%s/ext", t_dir);
	RUN(test_in_place);
	RUN(test_no_directory);
	RUN(test_unfit_files);
	RUN(test_takes_over);
	RUN(test_grace);
	RUN(test_deleted_in_mid_read);
	RUN(test_lets_go);
	RUN(test_replaced);
	RUN(test_damaged);
	RUN(test_index_is_told);
	RUN(test_bad_blob);
	RUN(test_manifests);
	RUN(test_crowd);
	return t_end();
}
