/* The files of blobs: opened when they are needed, closed when too many are
 * open, and unlinked when they hold no chunk. */
#include "store/store-private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define CLOSE_AT_ONCE 8
#define CLOSE_TRIES   64

void blob_file_gone_locked(struct blob *b)
{
	if (b->fd < 0)
		return;
	list_del(&b->file);
	b->store->nfiles--;
}

static int make_dirs(struct store *s, const char *path)
{
	char dir[FILE_PATH_SIZE];
	const char *slash = path;

	while ((slash = strchr(slash, '/'))) {
		(void)snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path),
			       path);
		if (mkdirat(s->dirfd, dir, 0700) == -1 && errno != EEXIST)
			return -errno;
		slash++;
	}
	return 0;
}

static int open_made(struct store *s, const char *path)
{
	int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
	int fd = openat(s->dirfd, path, flags, 0600);
	int r;

	if (fd == -1 && errno == ENOENT) {
		r = make_dirs(s, path);
		if (r < 0)
			return r;
		fd = openat(s->dirfd, path, flags, 0600);
	}
	return fd == -1 ? -errno : fd;
}

/* *ret_size is the length at which the file was found. */
static int open_file(struct blob *b, bool make, uint64_t *ret_size,
		     bool *ret_made)
{
	struct store *s = b->store;
	char path[FILE_PATH_SIZE];
	CLEANUP(closep) int fd = -1;
	struct stat st;

	(void)blob_path(&b->key, path);
	fd = openat(s->dirfd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd == -1 && errno == ENOENT && make) {
		fd = open_made(s, path);
		if (fd < 0)
			return fd;
		*ret_made = true;
	}
	if (fd == -1)
		return -errno;
	if (fstat(fd, &st) == -1)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EIO;
	*ret_size = (uint64_t)st.st_size;
	if (*ret_size != b->size && ftruncate(fd, (off_t)b->size) == -1)
		return -errno;
	return steal_fd(&fd);
}

/* Drops the chunks beyond the length at which the file was found. */
static unsigned int drop_beyond(struct blob *b, uint64_t length)
{
	unsigned int n = 0;

	for (uint32_t c = 0; c < b->chunks && LOAD(&b->npresent) > 0; c++) {
		struct seg *g = seg_of(b, c);

		if (!g) {
			c |= INDEX_SEG - 1;
			continue;
		}
		if (!bit_get(g->present, c % INDEX_SEG) ||
		    (c * CHUNK_SIZE) + blob_chunk_len(b, c) <= length)
			continue;
		blob_damaged_locked(b, c);
		n++;
	}
	return n;
}

/* Takes up to CLOSE_AT_ONCE files that nobody uses and that need no flush, in
 * order, until `keep` are left. Files in use move to the end. mu is held. */
static int take_unused_locked(struct store *s, unsigned int keep,
			      int ret_fds[CLOSE_AT_ONCE])
{
	unsigned int tries = (unsigned int)min_u64(s->nfiles, CLOSE_TRIES);
	int n = 0;

	for (; tries > 0 && s->nfiles > keep && n < CLOSE_AT_ONCE; tries--) {
		struct blob *b = list_first(&s->files, struct blob, file);
		int fd = b->fd;

		list_del(&b->file);
		list_add_tail(&s->files, &b->file);
		if (b->in_dirty || b->in_cycle)
			continue;
		/* Writes fd, then reads fd_uses; blob_fd() writes fd_uses, then
		 * reads fd. So one of the two sees the other. */
		__atomic_store_n(&b->fd, -1, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&b->fd_uses, __ATOMIC_SEQ_CST) > 0) {
			STORE_REL(&b->fd, fd);
			continue;
		}
		list_del(&b->file);
		s->nfiles--;
		ret_fds[n++] = fd;
	}
	return n;
}

static void close_unused(struct store *s, unsigned int keep)
{
	int fds[CLOSE_AT_ONCE], n;

	do {
		store_lock(s);
		n = take_unused_locked(s, keep, fds);
		store_unlock(s);
		for (int i = 0; i < n; i++)
			(void)close(fds[i]);
	} while (n == CLOSE_AT_ONCE);
}

bool too_many_files(struct store *s)
{
	bool yes;

	store_lock(s);
	yes = s->nfiles > s->max_files + s->max_files / 4;
	store_unlock(s);
	return yes;
}

static int open_blob(struct blob *b, bool make)
{
	struct store *s = b->store;
	unsigned int dropped = 0;
	uint64_t length = 0;
	bool made = false;
	int fd;

	store_lock(s);
	while (b->opening)
		(void)pthread_cond_wait(&s->changed, &s->mu);
	fd = b->fd;
	if (fd >= 0) {
		store_unlock(s);
		return fd;
	}
	b->opening = true;
	store_unlock(s);

	fd = open_file(b, make, &length, &made);
	if (fd == -EMFILE || fd == -ENFILE) {
		trim_idle(s, 0);
		close_unused(s, s->max_files / 2);
		fd = open_file(b, make, &length, &made);
	}

	store_lock(s);
	b->opening = false;
	if (made)
		b->made = true;
	if (fd >= 0 || fd == -ENOENT)
		dropped = drop_beyond(b, fd >= 0 ? length : 0);
	if (fd >= 0) {
		STORE_REL(&b->fd, fd);
		list_add_tail(&s->files, &b->file);
		s->nfiles++;
	}
	(void)pthread_cond_broadcast(&s->changed);
	store_unlock(s);
	if (dropped > 0) {
		char hex[DIGEST_HEX_SIZE];

		log_warn("a cache file is missing or too short; "
			 "the next reads fetch the lost chunks",
			 LS("blob", digest_hex(&b->key.id, hex)),
			 LU("chunks", dropped));
	}
	close_unused(s, s->max_files);
	return fd;
}

int blob_fd(struct blob *b, bool make)
{
	int fd;

	(void)__atomic_fetch_add(&b->fd_uses, 1, __ATOMIC_SEQ_CST);
	fd = __atomic_load_n(&b->fd, __ATOMIC_SEQ_CST);
	if (fd < 0)
		fd = open_blob(b, make);
	if (fd < 0)
		blob_fd_put(b);
	return fd;
}

/* ---- Files without chunks ---- */

/* True if the index and memory agree that b has no chunk, and nobody writes
 * one. mu is held. */
static bool is_empty_locked(const struct blob *b)
{
	if (LOAD(&b->npresent) > 0)
		return false;
	for (uint32_t k = 0; k < b->nsegs; k++) {
		const struct seg *g = seg_at(b, k);

		if (g && g->changed)
			return false;
		for (int i = 0; g && i < SEG_WORDS; i++)
			if (g->claimed[i])
				return false;
	}
	return true;
}

/* Takes the descriptor from b, so that all others wait in open_blob(). False:
 * somebody uses it; blob_unref() tries again. mu is held. */
static bool take_file_locked(struct blob *b, int *ret_fd)
{
	int fd = b->fd;

	b->left_file = true;
	if (b->opening)
		return false;
	/* In the order of take_unused_locked(). */
	__atomic_store_n(&b->fd, -1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&b->fd_uses, __ATOMIC_SEQ_CST) > 0) {
		STORE_REL(&b->fd, fd);
		return false;
	}
	b->left_file = false;
	b->opening = true;
	if (fd >= 0) {
		list_del(&b->file);
		b->store->nfiles--;
	}
	*ret_fd = fd;
	return true;
}

bool blob_unlink_empty(struct blob *b)
{
	static struct log_limit limit;
	struct store *s = b->store;
	char path[FILE_PATH_SIZE];
	int fd = -1, r = 0;
	bool taken;

	store_lock(s);
	taken = is_empty_locked(b) && take_file_locked(b, &fd);
	store_unlock(s);
	if (!taken)
		return false;
	if (unlinkat(s->dirfd, blob_path(&b->key, path), 0) == -1 &&
	    errno != ENOENT)
		r = -errno;
	closep(&fd);
	store_lock(s);
	for (uint32_t k = 0; r == 0 && k < b->nsegs; k++) {
		struct seg *g = seg_at(b, k);

		if (g)
			memset(g->punch, 0, sizeof(g->punch));
	}
	b->made = false;
	b->opening = false;
	(void)pthread_cond_broadcast(&s->changed);
	store_unlock(s);
	if (r < 0 && log_limit_ok(&limit, 1, 3600000))
		log_warn("cannot remove an empty cache file", LE(r));
	return r == 0;
}
