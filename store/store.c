/* Opens and closes a cache directory; lists the whole store. */
#include "store/store-private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptors.h"

#define DEFAULT_COMMIT_MS 50
#define EXTERNAL_GRACE_MS 30000
#define DAMAGED_DIR	  "index.damaged"

static const char *kind_name(enum blob_kind kind)
{
	return kind == BLOB_SHA256 ? "sha256" : "url";
}

void bkey_of(const struct blob_key *key, uint8_t out[INDEX_BKEY])
{
	out[0] = (uint8_t)key->kind;
	memcpy(out + 1, key->id.sha256, DIGEST_BYTES);
	memcpy(out + INDEX_BKEY_ID, key->claim.place, BLOB_PLACE_BYTES);
	put_le(out + INDEX_BKEY_ID + BLOB_PLACE_BYTES, key->claim.size, 8);
}

bool bkey_parse(const uint8_t *p, size_t len, struct blob_key *ret)
{
	if (len != INDEX_BKEY || (p[0] != BLOB_SHA256 && p[0] != BLOB_URL))
		return false;
	ret->kind = p[0] == BLOB_SHA256 ? BLOB_SHA256 : BLOB_URL;
	memcpy(ret->id.sha256, p + 1, DIGEST_BYTES);
	memcpy(ret->claim.place, p + INDEX_BKEY_ID, BLOB_PLACE_BYTES);
	ret->claim.size = get_le(p + INDEX_BKEY_ID + BLOB_PLACE_BYTES, 8);
	return true;
}

bool blob_key_equal(const struct blob_key *a, const struct blob_key *b)
{
	return a->kind == b->kind && digest_equal(&a->id, &b->id) &&
	       a->claim.size == b->claim.size &&
	       memcmp(a->claim.place, b->claim.place, BLOB_PLACE_BYTES) == 0;
}

bool blob_key_placed(const struct blob_key *key)
{
	static const uint8_t none[BLOB_PLACE_BYTES];

	return memcmp(key->claim.place, none, sizeof(none)) != 0;
}

void blob_key_claim(struct blob_key *key, const char *origin, uint64_t size)
{
	static const char registry[] = "registry://";
	size_t len = strlen(origin);
	struct digest d;

	if (strncmp(origin, registry, sizeof(registry) - 1) == 0)
		len = sizeof(registry) - 1 +
		      strcspn(origin + sizeof(registry) - 1, "/");
	digest_of(origin, len, &d);
	memcpy(key->claim.place, d.sha256, BLOB_PLACE_BYTES);
	key->claim.size = size;
}

static bool has_claim(const struct blob_key *key)
{
	static const struct blob_claim none;

	return memcmp(&key->claim, &none, sizeof(none)) != 0;
}

/* HEX, or HEX.PLACE.SIZE, all in hex. */
char *blob_path(const struct blob_key *key, char out[FILE_PATH_SIZE])
{
	char hex[DIGEST_HEX_SIZE], place[DIGEST_HEX_SIZE];
	struct digest d = {{0}};
	int n;

	(void)digest_hex(&key->id, hex);
	n = snprintf(out, FILE_PATH_SIZE, "blobs/%s/%.2s/%s",
		     kind_name(key->kind), hex, hex);
	if (!has_claim(key))
		return out;
	memcpy(d.sha256, key->claim.place, BLOB_PLACE_BYTES);
	(void)digest_hex(&d, place);
	(void)snprintf(out + n, FILE_PATH_SIZE - (size_t)n, ".%.*s.%" PRIx64,
		       2 * BLOB_PLACE_BYTES, place, key->claim.size);
	return out;
}

/* The key of a file of that name; false: it is none of ours. */
static bool parse_file_name(const char *name, struct blob_key *ret)
{
	char hex[DIGEST_HEX_SIZE], place[DIGEST_HEX_SIZE];
	char path[FILE_PATH_SIZE];
	size_t len = strcspn(name, ".");
	struct digest d;

	if (len != DIGEST_HEX_SIZE - 1)
		return false;
	(void)snprintf(hex, sizeof(hex), "%.*s", (int)len, name);
	if (digest_parse_hex(hex, &ret->id) < 0)
		return false;
	if (name[len] == '.') {
		(void)snprintf(place, sizeof(place), "%.*s%032d",
			       2 * BLOB_PLACE_BYTES, name + len + 1, 0);
		if (digest_parse_hex(place, &d) < 0 ||
		    sscanf(name + len + 1 + 2 * BLOB_PLACE_BYTES, ".%" SCNx64,
			   &ret->claim.size) != 1)
			return false;
		memcpy(ret->claim.place, d.sha256, BLOB_PLACE_BYTES);
	}
	return strcmp(name, strrchr(blob_path(ret, path), '/') + 1) == 0;
}

uint32_t store_tick(const struct store *s)
{
	struct timespec ts;
	uint64_t ms;

	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	ms = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
	/* The coarse clock may lag behind open_ms. */
	ms = ms > s->open_ms ? ms - s->open_ms : 0;
	return (uint32_t)(ms * TICKS_PER_S / 1000) + 1;
}

uint64_t blob_last_use_s(const struct blob *b)
{
	uint32_t used = LOAD(&b->used);

	return used ? b->store->open_s + used / TICKS_PER_S : b->rec_last_use_s;
}

void cond_init(pthread_cond_t *c)
{
	pthread_condattr_t a;

	BUG_ON(pthread_condattr_init(&a) != 0);
	(void)pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	BUG_ON(pthread_cond_init(c, &a) != 0);
	(void)pthread_condattr_destroy(&a);
}

void cond_wait_until(pthread_cond_t *c, struct store *s, uint64_t ms)
{
	struct timespec ts = {.tv_sec = (time_t)(ms / 1000),
			      .tv_nsec = (long)(ms % 1000) * 1000000};

	(void)pthread_cond_timedwait(c, &s->mu, &ts);
}

/* ---- The directory ---- */

static int mkdir_parents(const char *dir)
{
	CLEANUP(freep) char *path = strdup(dir);

	if (!path)
		return -ENOMEM;
	if (!*path)
		return -ENOENT;
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(path, 0755) == -1 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(path, 0700) == -1 && errno != EEXIST ? -errno : 0;
}

static int take_lock(struct store *s, struct error *err)
{
	char text[32] = "";
	ssize_t n;
	int r;

	s->lockfd = openat(s->dirfd, "lock",
			   O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lockfd == -1) {
		r = -errno;
		return set_error(err, r,
				 "cannot write to cache directory %s: %s",
				 s->dir, strerror(-r));
	}
	if (flock(s->lockfd, LOCK_EX | LOCK_NB) == -1) {
		r = -errno;
		if (r != -EWOULDBLOCK)
			return set_error(err, r, "cannot lock %s/lock: %s",
					 s->dir, strerror(-r));
		n = pread(s->lockfd, text, sizeof(text) - 1, 0);
		text[n > 0 ? n : 0] = '\0';
		text[strspn(text, "0123456789")] = '\0';
		return set_error(err, -EBUSY,
				 "cache directory %s is in use by process %s",
				 s->dir, *text ? text : "(unknown)");
	}
	(void)snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(s->lockfd, 0) == -1 ||
	    pwrite(s->lockfd, text, strlen(text), 0) != (ssize_t)strlen(text)) {
		/* On a full disk the lock works without the number. */
		r = -errno;
		if (r != -ENOSPC && r != -EDQUOT)
			return set_error(
				err, r,
				"cannot write to cache directory %s: %s",
				s->dir, strerror(-r));
	}
	return 0;
}

static int open_dir(struct store *s, struct error *err)
{
	int r = mkdir_parents(s->dir);

	if (r < 0)
		return set_error(err, r, "cannot create cache directory %s: %s",
				 s->dir, strerror(-r));
	s->dirfd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dirfd == -1) {
		r = -errno;
		return set_error(err, r, "cannot open cache directory %s: %s",
				 s->dir, strerror(-r));
	}
	r = take_lock(s, err);
	if (r < 0)
		return r;
	return 0;
}

/* Keeps a damaged index for inspection, in place of the one kept before. */
static int set_aside(struct store *s)
{
	static const char *const files[] = {"data.mdb", "lock.mdb",
					    "compact.mdb"};
	char path[64];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		(void)snprintf(path, sizeof(path), DAMAGED_DIR "/%s", files[i]);
		(void)unlinkat(s->dirfd, path, 0);
	}
	(void)unlinkat(s->dirfd, DAMAGED_DIR, AT_REMOVEDIR);
	if (renameat(s->dirfd, "index", s->dirfd, DAMAGED_DIR) == -1)
		return -errno;
	return 0;
}

static int open_index(struct store *s, struct error *err)
{
	CLEANUP(freep) char *dir = NULL;
	int r;

	if (asprintf(&dir, "%s/index", s->dir) < 0) {
		dir = NULL;
		return -ENOMEM;
	}
	r = index_check(dir);
	if (r == -EPROTO)
		return set_error(err, r,
				 "cache directory %s was written by another "
				 "version of this program; use the one that "
				 "made it, or another directory",
				 s->dir);
	if (r == -EBADMSG)
		log_warn("the cache index is damaged; the cache starts empty",
			 LS("dir", s->dir), LS("kept_as", DAMAGED_DIR));
	if (r == -ESTALE)
		log_warn("the cache was written by an earlier version; it "
			 "starts empty",
			 LS("dir", s->dir), LS("kept_as", DAMAGED_DIR));
	if (r == -EBADMSG || r == -ESTALE)
		r = set_aside(s);
	if (r < 0)
		return set_error(err, r, "cannot read the cache index %s: %s",
				 dir, strerror(-r));
	if (mkdirat(s->dirfd, "blobs", 0700) == -1 && errno != EEXIST) {
		r = -errno;
		return set_error(err, r, "cannot create %s/blobs: %s", s->dir,
				 strerror(-r));
	}
	r = index_open(dir, &s->ix, err);
	(void)fsync(s->dirfd);
	return r;
}

/* ---- Loading at the start ---- */

static int count_blob(void *arg, const uint8_t *key, size_t key_len,
		      const uint8_t *val, size_t val_len)
{
	struct store *s = arg;
	struct index_blob rec;
	struct blob_key k;

	if (!bkey_parse(key, key_len, &k) ||
	    !index_decode_blob(val, val_len, &rec))
		return 0;
	s->nblobs++;
	s->cached_bytes += rec.cached_bytes;
	return 0;
}

static int count_manifest(void *arg, const uint8_t *key, size_t key_len,
			  const uint8_t *val, size_t val_len)
{
	struct store *s = arg;
	struct index_blob rec;

	(void)key;
	if (key_len != DIGEST_BYTES || !index_decode_blob(val, val_len, &rec))
		return 0;
	s->manifests++;
	s->manifest_bytes += rec.cached_bytes;
	return 0;
}

static int add_peer(struct store *s, const char *name)
{
	char **v;

	if ((s->npeers & (s->npeers - 1)) == 0) {
		size_t cap = s->npeers ? (size_t)s->npeers * 2 : 1;

		v = reallocarray(s->peers, cap, sizeof(*v));
		if (!v)
			return -ENOMEM;
		s->peers = v;
	}
	s->peers[s->npeers] = strdup(name);
	if (!s->peers[s->npeers])
		return -ENOMEM;
	s->npeers++;
	return 0;
}

static int load_peer(void *arg, const uint8_t *key, size_t key_len,
		     const uint8_t *val, size_t val_len)
{
	struct store *s = arg;
	char name[MAX_NAME];
	unsigned int id;
	int r = 0;

	if (key_len != 2 || val_len >= sizeof(name))
		return 0;
	id = (unsigned int)key[0] << 8 | key[1];
	memcpy(name, val, val_len);
	name[val_len] = '\0';
	/* A damaged record leaves a number without a name. */
	while (r == 0 && s->npeers + 1 < id)
		r = add_peer(s, "");
	return r == 0 && id > 0 && id <= MAX_PEERS ? add_peer(s, name) : r;
}

/* Removes files without a record, and those of blobs without chunks. Leaves
 * names alone that are not ours. */
static unsigned int scan_files(struct store *s, int dirfd, enum blob_kind kind)
{
	DIR *d = fdopendir(dirfd);
	unsigned int removed = 0;
	struct dirent *e;

	if (!d) {
		(void)close(dirfd);
		return 0;
	}
	while ((e = readdir(d))) {
		struct blob_key key = {.kind = kind};
		uint8_t bkey[INDEX_BKEY];
		struct index_blob rec;
		int r;

		if (!parse_file_name(e->d_name, &key))
			continue;
		bkey_of(&key, bkey);
		r = index_get_blob(s->ix, bkey, &rec);
		if ((r == -ENOENT || (r == 0 && rec.cached_bytes == 0)) &&
		    unlinkat(dirfd, e->d_name, 0) == 0)
			removed++;
	}
	(void)closedir(d);
	return removed;
}

static void remove_orphans(struct store *s)
{
	static const enum blob_kind kinds[] = {BLOB_SHA256, BLOB_URL};
	unsigned int removed = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		for (unsigned int aa = 0; aa < 256; aa++) {
			char path[32];
			int fd;

			(void)snprintf(path, sizeof(path), "blobs/%s/%02x",
				       kind_name(kinds[i]), aa);
			fd = openat(s->dirfd, path,
				    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			if (fd >= 0)
				removed += scan_files(s, fd, kinds[i]);
		}
	}
	if (removed)
		log_info("removed cache files without chunks",
			 LU("files", removed));
}

static int load_all(struct store *s, struct error *err)
{
	int r = index_each(s->ix, INDEX_BLOBS, NULL, 0, count_blob, s);

	if (r == 0)
		r = index_each(s->ix, INDEX_USES, NULL, 0, count_manifest, s);
	if (r == 0)
		r = index_each(s->ix, INDEX_PEERS, NULL, 0, load_peer, s);
	if (r < 0)
		return set_error(err, r, "cannot read the cache index: %s",
				 strerror(-r));
	s->npeers_saved = s->npeers;
	remove_orphans(s);
	return 0;
}

/* ---- Open and close ---- */

static void init(struct store *s, const struct store_config *cfg)
{
	s->dirfd = s->lockfd = s->nullfd = -1;
	s->external_grace_ms = cfg->external_grace_ms ? cfg->external_grace_ms
						      : EXTERNAL_GRACE_MS;
	s->max_files = descriptors_share(DESCRIPTORS_BLOBS);
	s->max_bytes = cfg->max_bytes;
	s->min_free_bytes = cfg->min_free_bytes;
	s->commit_interval_ms = cfg->commit_interval_ms
					? cfg->commit_interval_ms
					: DEFAULT_COMMIT_MS;
	s->event = cfg->event;
	s->event_arg = cfg->event_arg;
	s->open_ms = now_ms();
	s->open_s = now_unix_s();
	s->housekeep_ms = s->open_ms; /* applies a smaller limit at once */
	BUG_ON(pthread_mutex_init(&s->mu, NULL) != 0);
	BUG_ON(pthread_mutex_init(&s->manifests_mu, NULL) != 0);
	cond_init(&s->changed);
	cond_init(&s->commit_wake);
	cond_init(&s->cycle_end);
	cond_init(&s->sum_wake[0]);
	cond_init(&s->sum_wake[1]);
	list_init(&s->idle);
	list_init(&s->files);
	list_init(&s->dirty);
	list_init(&s->settling);
	list_init(&s->sums[0]);
	list_init(&s->sums[1]);
}

static void destroy(struct store *s)
{
	index_close(&s->ix);
	for (unsigned int i = 0; i < s->npeers; i++)
		free(s->peers[i]);
	free(s->peers);
	free(s->touches);
	closep(&s->dirfd);
	closep(&s->nullfd);
	closep(&s->lockfd); /* releases the lock */
	(void)pthread_cond_destroy(&s->changed);
	(void)pthread_cond_destroy(&s->commit_wake);
	(void)pthread_cond_destroy(&s->cycle_end);
	(void)pthread_cond_destroy(&s->sum_wake[0]);
	(void)pthread_cond_destroy(&s->sum_wake[1]);
	(void)pthread_mutex_destroy(&s->mu);
	(void)pthread_mutex_destroy(&s->manifests_mu);
	free(s->external_dir);
	free(s->dir);
	free(s);
}

static void stop_threads(struct store *s, int nsums, bool commit)
{
	store_lock(s);
	s->stop = true;
	(void)pthread_cond_broadcast(&s->sum_wake[0]);
	(void)pthread_cond_broadcast(&s->sum_wake[1]);
	store_unlock(s);
	for (int i = 0; i < nsums; i++)
		(void)pthread_join(s->sum_thread[i], NULL);
	sum_cancel(s);
	store_lock(s);
	s->stop_commit = true;
	(void)pthread_cond_broadcast(&s->commit_wake);
	store_unlock(s);
	if (commit)
		(void)pthread_join(s->commit_thread, NULL);
}

static int start_threads(struct store *s)
{
	int r = pthread_create(&s->commit_thread, NULL, commit_main, s);

	if (r != 0)
		return -r;
	for (int i = 0; i < 2; i++) {
		struct sum_arg *a = malloc(sizeof(*a));

		r = ENOMEM;
		if (a) {
			*a = (struct sum_arg){s, i};
			r = pthread_create(&s->sum_thread[i], NULL, sum_main,
					   a);
		}
		if (r != 0) {
			free(a);
			stop_threads(s, i, true);
			return -r;
		}
	}
	return 0;
}

static bool set_external(struct store *s, const struct store_config *cfg)
{
	s->external_dir = strdup(cfg->external_dir);
	return s->external_dir;
}

int store_open(const struct store_config *cfg, struct store **ret,
	       struct error *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int r = -ENOMEM;

	if (!s)
		return set_error(err, r, "out of memory");
	init(s, cfg);
	s->dir = strdup(cfg->dir);
	s->nullfd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (s->nullfd == -1)
		r = set_error(err, -errno, "cannot open /dev/null: %s",
			      strerror(errno));
	else if (s->dir && (!cfg->external_dir || set_external(s, cfg)))
		r = open_dir(s, err);
	if (r == 0)
		r = open_index(s, err);
	if (r == 0)
		r = load_all(s, err);
	if (r == 0) {
		r = start_threads(s);
		if (r < 0)
			(void)set_error(err, r, "cannot start a thread: %s",
					strerror(-r));
	}
	if (r < 0) {
		destroy(s);
		return r;
	}
	*ret = s;
	return 0;
}

void store_close(struct store **sp)
{
	struct store *s = *sp;

	if (!s)
		return;
	stop_threads(s, 2, true);
	/* Only blobs whose records could not be written are still dirty. */
	drop_unsaved(s);
	trim_idle(s, 0);
	for (size_t h = 0; h < HASH_SIZE; h++)
		BUG_ON(s->hash[h] !=
		       NULL); /* fails if somebody holds a reference */
	destroy(s);
	*sp = NULL;
}

/* ---- Members ---- */

uint16_t store_peer_id(struct store *s, const char *peer)
{
	unsigned int id = 0;

	store_lock(s);
	for (unsigned int i = 0; id == 0 && i < s->npeers; i++)
		if (strcmp(s->peers[i], peer) == 0)
			id = i + 1;
	if (id == 0 && s->npeers < MAX_PEERS && *peer &&
	    strlen(peer) < MAX_NAME && add_peer(s, peer) == 0)
		id = s->npeers;
	store_unlock(s);
	return (uint16_t)(id ? id : MAX_PEERS);
}

int store_peer_name(struct store *s, uint16_t id, char *out, size_t out_size)
{
	int r = -ENOENT;

	store_lock(s);
	if (id > 0 && id <= s->npeers && *s->peers[id - 1]) {
		(void)snprintf(out, out_size, "%s", s->peers[id - 1]);
		r = 0;
	}
	store_unlock(s);
	return r;
}

/* ---- The whole store ---- */

struct infos {
	struct blob_info *v;
	size_t n, cap;
};

static int add_info(void *arg, const uint8_t *key, size_t key_len,
		    const uint8_t *val, size_t val_len)
{
	struct infos *l = arg;
	struct index_blob rec;
	struct blob_info *i;
	void *v;

	v = array_grow(l->v, l->n, &l->cap, sizeof(*l->v));
	if (!v)
		return -ENOMEM;
	l->v = v;
	i = &l->v[l->n];
	if (!bkey_parse(key, key_len, &i->key) ||
	    !index_decode_blob(val, val_len, &rec) || rec.state > BLOB_BAD)
		return 0;
	i->size = rec.size;
	i->cached_bytes = rec.cached_bytes;
	i->last_use_s = rec.last_use_s;
	i->state = state_shown((enum blob_state)rec.state, rec.size,
			       rec.cached_bytes);
	i->shared = rec.state == BLOB_VERIFIED;
	l->n++;
	return 0;
}

int store_each(struct store *s,
	       int (*each)(void *arg, const struct blob_info *info), void *arg)
{
	struct infos l = {0};
	int r;

	/* Gives every blob a record. */
	(void)store_sync(s);
	r = index_each(s->ix, INDEX_BLOBS, NULL, 0, add_info, &l);
	for (size_t i = 0; r == 0 && i < l.n; i++) {
		struct blob *b;

		store_lock(s);
		b = blob_find_locked(s, &l.v[i].key);
		if (b && !b->loading) {
			l.v[i].size = b->size;
			l.v[i].cached_bytes = LOAD(&b->cached_bytes);
			l.v[i].last_use_s = blob_last_use_s(b);
			l.v[i].state = blob_get_state(b);
			l.v[i].shared = blob_shared(b);
		}
		store_unlock(s);
		r = each(arg, &l.v[i]);
	}
	free(l.v);
	return r;
}

void store_stats(struct store *s, struct store_stats *ret)
{
	struct statvfs v;

	*ret = (struct store_stats){
		.cached_bytes = LOAD(&s->cached_bytes),
		.max_bytes = s->max_bytes,
		.manifests = LOAD(&s->manifests),
		.manifest_bytes = LOAD(&s->manifest_bytes),
		.evicted_chunks = LOAD(&s->evicted_chunks),
		.evicted_bytes = LOAD(&s->evicted_bytes),
		.damaged_chunks = LOAD(&s->damaged_chunks),
		.write_errors = LOAD(&s->write_errors),
		.commits = LOAD(&s->commits),
		.verified_blobs = LOAD(&s->verified_blobs),
		.mismatched_blobs = LOAD(&s->mismatched_blobs),
	};
	if (fstatvfs(s->dirfd, &v) == 0)
		ret->fs_free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
	store_lock(s);
	ret->blobs = s->nblobs;
	store_unlock(s);
}
