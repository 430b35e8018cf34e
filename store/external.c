/* External blobs: files of external_dir, read in place.
 *
 * blob.external says whether b is read from the file behind blob.ext_fd. Once
 * set, that number means this blob while the blob is in memory, since a sender
 * only borrows it: dup3() puts another file in its place, or /dev/null when
 * there is no file any more.
 *
 * A sender that has begun with the external file or with the store's must be
 * able to end. So the store does not drop either at once when the other takes
 * over: it puts the blob on store.settling, and the commit thread drops it
 * after a while. */
#include "store/store-private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"

/* Blocks. Returns the file's descriptor, or a negative errno; -ESTALE: the file
 * is not usable. Refuses a file without bytes, which a crash may leave; a blob
 * without bytes needs no file. */
static int open_external(struct store *s, const struct digest *d,
			 uint64_t *ret_size)
{
	CLEANUP(freep) char *path = NULL;
	CLEANUP(closep) int fd = -1;
	char hex[DIGEST_HEX_SIZE];
	struct stat st;

	if (asprintf(&path, "%s/%s", s->external_dir, digest_hex(d, hex)) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	for (int tries = 0; fd == -1; tries++) {
		/* O_NONBLOCK: open() of a FIFO would wait. */
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd == -1 && tries == 0 &&
		    (errno == EMFILE || errno == ENFILE))
			trim_idle(s, 0);
		else if (fd == -1)
			return errno == ELOOP || errno == ENXIO ? -ESTALE
								: -errno;
	}
	if (fstat(fd, &st) == -1)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 ||
	    (uint64_t)st.st_size > BLOB_MAX_SIZE)
		return -ESTALE;
	*ret_size = (uint64_t)st.st_size;
	return steal_fd(&fd);
}

/* Puts b on store.settling: due at once if nobody else refers to b, else after
 * the grace. mu is held. */
static void settle_later_locked(struct blob *b)
{
	struct store *s = b->store;
	bool alone;

	if (list_empty(&b->settling))
		blob_ref_locked(b);
	alone = LOAD(&b->refs) == 2; /* the list's and the caller's */
	list_del(&b->settling);
	if (alone) {
		b->settle_ms = 0;
		list_add(&s->settling, &b->settling);
	} else {
		b->settle_ms = now_ms() + s->external_grace_ms;
		list_add_tail(&s->settling, &b->settling);
	}
	(void)pthread_cond_signal(&s->commit_wake);
}

/* Takes the right to change the files that b is read from; open_blob() takes it
 * too. mu is held. */
static void take_files_locked(struct blob *b)
{
	while (b->opening)
		(void)pthread_cond_wait(&b->store->changed, &b->store->mu);
	b->opening = true;
}

static void give_files_locked(struct blob *b)
{
	b->opening = false;
	(void)pthread_cond_broadcast(&b->store->changed);
}

static void complain(const struct blob *b, const char *why)
{
	static struct log_limit limit;
	char str[DIGEST_STR_SIZE];

	if (log_limit_ok(&limit, 10, 60000))
		log_warn("a blob in the content store is not used",
			 LS("blob", digest_str(&b->key.id, str)),
			 LS("why", why));
}

/* Stops using a file that turned out wrong, until it has been removed. */
static void refuse(struct blob *b, const char *why)
{
	store_lock(b->store);
	if (LOAD(&b->external)) {
		STORE_REL(&b->external, false);
		settle_later_locked(b);
	}
	b->ext_refused = true;
	/* The kernel may have pages of it. */
	b->ev_dropped++;
	blob_dirty_locked(b);
	store_unlock(b->store);
	complain(b, why);
}

/* ---- Coming and going ---- */

int external_load(struct blob *b, int r)
{
	CLEANUP(closep) int fd = -1;
	uint64_t size = 0;

	if (!b->store->external_dir || b->key.kind != BLOB_SHA256 ||
	    (r < 0 && r != -ENOENT))
		return r;
	fd = open_external(b->store, &b->key.id, &size);
	if (fd < 0)
		return r;
	/* Another size: it may have been cut short. */
	if (b->key.claim.size > 0 && size != b->key.claim.size)
		return r;
	if (r == 0 && size != b->size) {
		complain(b, "its size is wrong");
		return 0;
	}
	if (r == -ENOENT) {
		r = blob_set_size(b, size);
		if (r < 0)
			return r;
	}
	b->ext_fd = steal_fd(&fd);
	STORE_REL(&b->external, true);
	return 0;
}

uint64_t external_size(struct store *s, const struct digest *d)
{
	CLEANUP(closep) int fd = -1;
	uint64_t size = 0;

	if (s->external_dir)
		fd = open_external(s, d, &size);
	return fd >= 0 ? size : 0;
}

void external_loaded_locked(struct blob *b)
{
	if (LOAD(&b->external) &&
	    (LOAD(&b->npresent) > 0 || LOAD(&b->state) == BLOB_BAD))
		settle_later_locked(b);
}

/* Looks into the directory for a blob in memory. */
static int look(struct store *s, struct blob *b)
{
	CLEANUP(closep) int fd = -1;
	bool same_size = true;
	uint64_t size = 0;
	int r;

	store_lock(s);
	take_files_locked(b);
	store_unlock(s);
	fd = open_external(s, &b->key.id, &size);
	r = fd < 0 ? fd : 1;
	if (r == 1 && size != b->size) {
		same_size = false;
		/* Anybody can make a claim of another size. */
		r = blob_proven(b) || b->ext_refused ? -ESTALE : -ENOENT;
	}
	/* It may be another file of that name. It has the same bytes, so
	 * readers can go on with it. */
	if (r == 1 && LOAD(&b->ext_fd) >= 0 &&
	    dup3(fd, LOAD(&b->ext_fd), O_CLOEXEC) == -1)
		r = -errno;
	store_lock(s);
	if (r == -ENOENT && same_size)
		b->ext_refused = false;
	if (r == 1 && b->ext_refused)
		r = -ESTALE;
	if (r == 1) {
		if (LOAD(&b->ext_fd) < 0)
			STORE_REL(&b->ext_fd, steal_fd(&fd));
		STORE_REL(&b->external, true);
		external_loaded_locked(b);
	} else if (LOAD(&b->external)) {
		STORE_REL(&b->external, false);
		settle_later_locked(b);
	}
	give_files_locked(b);
	store_unlock(s);
	if (!same_size)
		complain(b, "its size is wrong");
	return r == -ENOENT || r == -ENOTDIR ? 0 : r;
}

static bool has_chunks(struct store *s, const struct blob_key *key)
{
	uint8_t bkey[INDEX_BKEY];
	struct index_blob rec;

	bkey_of(key, bkey);
	return index_get_blob(s->ix, bkey, &rec) == 0 && rec.cached_bytes > 0;
}

int store_external_changed(struct store *s, const struct digest *d)
{
	CLEANUP(freep) struct blob_key *keys = NULL;
	CLEANUP(closep) int fd = -1;
	uint64_t size = 0;
	int worst = 0, used = 0;
	size_t n = 0;
	int r;

	if (!s->external_dir)
		return 0;
	r = store_claims_of(s, d, &keys, &n);
	if (r < 0)
		return r;
	/* Also for a blob loaded just now: its file may have gone since. */
	for (size_t i = 0; i < n; i++) {
		struct blob *b = blob_find_loaded(s, &keys[i]);

		if (!b && has_chunks(s, &keys[i]) &&
		    blob_get_quiet(s, &keys[i], &b) < 0)
			b = NULL;
		if (!b)
			continue;
		r = look(s, b);
		used |= r > 0;
		worst = r < worst ? r : worst;
		blob_unref(&b);
	}
	if (used || worst < 0)
		return used ? 1 : worst;
	/* A later load looks into the directory itself. */
	fd = open_external(s, d, &size);
	if (fd >= 0)
		return 1;
	return fd == -ENOENT || fd == -ENOTDIR ? 0 : fd;
}

bool blob_external(const struct blob *b)
{
	return LOAD_ACQ(&b->external);
}

/* ---- Settling, on the commit thread ---- */

/* Closes the external file. */
static void let_go(struct store *s, struct blob *b)
{
	int fd = -1, number;

	store_lock(s);
	number = LOAD(&b->ext_fd);
	(void)__atomic_fetch_add(&b->gen, 1, __ATOMIC_SEQ_CST);
	if (LOAD(&b->refs) == 1) { /* ours: nobody has borrowed the number */
		fd = number;
		STORE_REL(&b->ext_fd, -1);
	}
	store_unlock(s);
	if (fd >= 0)
		(void)close(fd);
	else if (number >= 0)
		(void)dup3(s->nullfd, number, O_CLOEXEC);
}

static void settle(struct store *s, struct blob *b)
{
	store_lock(s);
	take_files_locked(b);
	store_unlock(s);
	if (LOAD_ACQ(&b->external))
		blob_drop_all(b);
	else
		let_go(s, b);
	store_lock(s);
	give_files_locked(b);
	store_unlock(s);
}

void external_settle(struct store *s, bool all)
{
	uint64_t now = now_ms();

	for (;;) {
		struct blob *b = NULL;

		store_lock(s);
		if (!list_empty(&s->settling))
			b = list_first(&s->settling, struct blob, settling);
		if (b && (all || b->settle_ms <= now))
			list_del(&b->settling);
		else
			b = NULL;
		store_unlock(s);
		if (!b)
			return;
		settle(s, b);
		blob_unref(&b);
	}
}

/* ---- Reading ---- */

int external_read(struct blob *b, uint64_t off, void *buf, size_t len)
{
	for (;;) {
		uint64_t gen = __atomic_load_n(&b->gen, __ATOMIC_SEQ_CST);
		uint32_t now = store_tick(b->store);
		int r;

		if (!LOAD_ACQ(&b->external))
			return -ENODATA;
		r = pread_all(LOAD_ACQ(&b->ext_fd), buf, len, off);
		if (r == 0) {
			/* Whichever file it was, its bytes were right. */
			if (LOAD(&b->used) != now)
				STORE(&b->used, now);
			return 0;
		}
		if (__atomic_load_n(&b->gen, __ATOMIC_SEQ_CST) != gen)
			continue;
		refuse(b, r == -ENODATA ? "it is too short" : strerror(-r));
		return -ENODATA;
	}
}

int external_verify(struct blob *b)
{
	CLEANUP(freep) uint8_t *buf = malloc(CHUNK_SIZE);
	CLEANUP(sha256_free) struct sha256 *h = sha256_new();
	struct digest d;

	if (!buf || !h)
		return -ENOMEM;
	for (uint32_t c = 0; c < b->chunks; c++) {
		uint32_t len = blob_chunk_len(b, c);
		int r = external_read(b, c * CHUNK_SIZE, buf, len);

		if (r < 0)
			return r;
		sha256_update(h, buf, len);
	}
	sha256_final(h, &d);
	if (digest_equal(&d, &b->key.id))
		return 0;
	refuse(b, "it does not match its digest");
	return -EBADMSG;
}

/* ---- Manifests ---- */

/* Reads a manifest's media type. -ENOENT: not a manifest, but a configuration
 * or a small layer, which have digests too. */
static int media_type(const char *bytes, size_t len, char **ret)
{
	CLEANUP(json_decrefp) json_t *o = NULL;
	const char *type;
	uint64_t version;

	if (json_parse(bytes, len, MANIFEST_MAX_BYTES, &o, NULL) < 0 ||
	    json_get_u64(o, "schemaVersion", &version) < 0 || version != 2)
		return -ENOENT;
	type = json_get_str(o, "mediaType");
	*ret = strdup(type ? type : "");
	return *ret ? 0 : -ENOMEM;
}

int external_manifest(struct store *s, const struct digest *d, char **ret_type,
		      void **ret_bytes, size_t *ret_len)
{
	CLEANUP(freep) char *bytes = NULL, *type = NULL;
	CLEANUP(closep) int fd = -1;
	struct digest sum;
	uint64_t size = 0;
	int r;

	if (!s->external_dir)
		return -ENOENT;
	fd = open_external(s, d, &size);
	if (fd < 0 || size > MANIFEST_MAX_BYTES)
		return -ENOENT;
	bytes = malloc(size + 1);
	if (!bytes)
		return -ENOMEM;
	if (pread_all(fd, bytes, size, 0) < 0)
		return -ENOENT;
	bytes[size] = '\0';
	digest_of(bytes, size, &sum);
	if (!digest_equal(&sum, d))
		return -ENOENT;
	r = media_type(bytes, size, &type);
	if (r < 0)
		return r;
	*ret_type = steal_ptr(&type);
	*ret_bytes = steal_ptr(&bytes);
	*ret_len = size;
	return 0;
}
