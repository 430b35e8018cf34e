#include "store/index.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/digest.h"
#include "base/log.h"
#include "store/index-check.h"

#define BLOB_RECORD 28
#define CRC_BYTES   4
#define MAX_READERS 1024
/* Disk blocks reserved past the end of data.mdb, so that the index can record
 * an eviction on a full disk. */
#define RESERVE_BYTES ((off_t)1 << 20)

/* Not const: LMDB takes plain pointers. */
static char format_key[] = "format";

size_t index_map_bytes = sizeof(void *) > 4 ? (size_t)((uint64_t)4 << 30)
					    : (size_t)512 << 20;

static const char *const db_names[INDEX_DBS] = {
	"meta", "blobs", "chunks", "origins", "manifests",
	"tags", "repos", "kv",	   "peers",
};

struct index {
	char *dir;
	MDB_env *env;
	MDB_dbi dbi[INDEX_DBS];
	size_t map_bytes;
	off_t reserved; /* guarded by: LMDB's writer lock */
	/* Shared during every transaction; exclusive to change the map or to
	 * reopen it, which LMDB allows only without transactions. */
	pthread_rwlock_t map;
	bool bad_crc_logged; /* atomic */
};

enum op_what { OP_PUT, OP_DEL, OP_DEL_PREFIX, OP_TOUCH };

struct index_op {
	enum index_db db;
	enum op_what what;
	size_t key, key_len, val, val_len;
};

/* Maps LMDB's codes to errno. */
static int mdb_r(int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_MAP_FULL:
		return -ENOSPC;
	case MDB_READERS_FULL:
		return -EAGAIN;
	case MDB_BAD_VALSIZE:
		return -EINVAL;
	default:
		return rc > 0 ? -rc : -EIO;
	}
}

static uint32_t record_crc(const void *key, size_t key_len, const void *val,
			   size_t val_len)
{
	return crc32c(crc32c(0, key, key_len), val, val_len);
}

/* Removes the checksum from *val; false if it is wrong. */
static bool record_ok(struct index *ix, enum index_db db, const MDB_val *key,
		      MDB_val *val)
{
	const uint8_t *p = val->mv_data;
	size_t len;

	if (val->mv_size >= CRC_BYTES) {
		len = val->mv_size - CRC_BYTES;
		if (record_crc(key->mv_data, key->mv_size, p, len) ==
		    get_le(p + len, CRC_BYTES)) {
			val->mv_size = len;
			return true;
		}
	}
	if (!__atomic_exchange_n(&ix->bad_crc_logged, true, __ATOMIC_RELAXED))
		log_warn("damaged records in the cache index are ignored",
			 LS("database", db_names[db]));
	return false;
}

/* ---- The check, in a child ---- */

enum { CHECK_OK, CHECK_DAMAGED, CHECK_FORMAT, CHECK_CANNOT };

static void check_assert(MDB_env *env, const char *msg)
{
	(void)env;
	(void)msg;
	_exit(CHECK_DAMAGED);
}

static int check_rc(int rc)
{
	switch (rc) {
	case 0:
		return CHECK_OK;
	case EACCES:
	case EPERM:
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		return CHECK_CANNOT;
	default:
		return CHECK_DAMAGED;
	}
}

static int check_format(MDB_txn *txn, MDB_dbi dbi)
{
	MDB_val key = {sizeof(format_key) - 1, format_key}, val;
	const uint8_t *p;
	size_t len;

	if (mdb_get(txn, dbi, &key, &val) != 0 || val.mv_size < CRC_BYTES)
		return CHECK_DAMAGED;
	p = val.mv_data;
	len = val.mv_size - CRC_BYTES;
	if (record_crc(format_key, sizeof(format_key) - 1, p, len) !=
	    get_le(p + len, CRC_BYTES))
		return CHECK_DAMAGED;
	return len == sizeof(INDEX_FORMAT) - 1 &&
			       memcmp(p, INDEX_FORMAT, len) == 0
		       ? CHECK_OK
		       : CHECK_FORMAT;
}

/* Reads every byte. The sum keeps the compiler from removing the reads. */
static int check_db(MDB_txn *txn, MDB_dbi dbi, uint32_t *sum)
{
	MDB_cursor *cur;
	MDB_val key, val;
	int rc = mdb_cursor_open(txn, dbi, &cur);

	if (rc != 0)
		return check_rc(rc);
	while ((rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) == 0)
		*sum ^= record_crc(key.mv_data, key.mv_size, val.mv_data,
				   val.mv_size);
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? CHECK_OK : check_rc(rc);
}

static int check_txn(MDB_env *env, MDB_txn *txn)
{
	static volatile uint32_t keep;
	MDB_dbi dbi;
	uint32_t sum = 0;
	int rc, r;

	(void)env;
	rc = mdb_dbi_open(txn, db_names[INDEX_META], 0, &dbi);
	if (rc == MDB_NOTFOUND) {
		/* A crash before the first commit leaves an empty environment.
		 */
		MDB_stat st;

		rc = mdb_dbi_open(txn, NULL, 0, &dbi);
		if (rc == 0)
			rc = mdb_stat(txn, dbi, &st);
		return rc == 0 && st.ms_entries == 0 ? CHECK_OK : CHECK_DAMAGED;
	}
	if (rc != 0)
		return check_rc(rc);
	r = check_format(txn, dbi);
	for (int i = 0; r == CHECK_OK && i < INDEX_DBS; i++) {
		rc = mdb_dbi_open(txn, db_names[i], 0, &dbi);
		if (rc == MDB_NOTFOUND)
			return CHECK_DAMAGED;
		r = rc == 0 ? check_db(txn, dbi, &sum) : check_rc(rc);
	}
	if (r == CHECK_OK)
		r = check_db(txn, 0, &sum); /* the list of free pages */
	keep = sum;
	(void)keep;
	return r;
}

static int check_child(const char *dir)
{
	MDB_env *env;
	MDB_txn *txn;
	int rc, r;

	r = index_check_pages(dir);
	if (r < 0)
		return r == -EBADMSG ? CHECK_DAMAGED : CHECK_CANNOT;
	rc = mdb_env_create(&env);
	if (rc != 0)
		return CHECK_CANNOT;
	(void)mdb_env_set_assert(env, check_assert);
	(void)mdb_env_set_maxdbs(env, INDEX_DBS);
	/* Otherwise the file, which may be wrong, sets the size. */
	(void)mdb_env_set_mapsize(env, index_map_bytes);
	rc = mdb_env_open(env, dir, MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0600);
	if (rc == 0)
		rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
	if (rc != 0)
		return check_rc(rc);
	return check_txn(env, txn);
}

int index_check(const char *dir)
{
	char path[4096];
	struct stat st;
	int status;
	pid_t pid;

	if (snprintf(path, sizeof(path), "%s/data.mdb", dir) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	if (stat(path, &st) == -1)
		return errno == ENOENT ? 0 : -errno;
	if (st.st_size == 0)
		return -EBADMSG;
	pid = fork();
	if (pid == -1)
		return -errno;
	if (pid == 0) {
		struct rlimit none = {0, 0};

		(void)setrlimit(RLIMIT_CORE, &none);
		(void)signal(SIGSEGV, SIG_DFL);
		(void)signal(SIGBUS, SIG_DFL);
		(void)signal(SIGABRT, SIG_DFL);
		(void)signal(SIGFPE, SIG_DFL);
		_exit(check_child(dir));
	}
	while (waitpid(pid, &status, 0) == -1)
		if (errno != EINTR)
			return -errno;
	if (!WIFEXITED(status))
		return WTERMSIG(status) == SIGKILL ? -EIO : -EBADMSG;
	switch (WEXITSTATUS(status)) {
	case CHECK_OK:
		return 0;
	case CHECK_FORMAT:
		return -EPROTO;
	case CHECK_CANNOT:
		return -EIO;
	default:
		return -EBADMSG;
	}
}

/* ---- Open and close ---- */

static int make_dbs(struct index *ix)
{
	uint8_t text[sizeof(INDEX_FORMAT) - 1 + CRC_BYTES];
	MDB_val key = {sizeof(format_key) - 1, format_key};
	MDB_val val = {sizeof(text), text};
	size_t len = sizeof(text) - CRC_BYTES;
	MDB_txn *txn;
	int rc = mdb_txn_begin(ix->env, NULL, 0, &txn);

	if (rc != 0)
		return rc;
	memcpy(text, INDEX_FORMAT, len);
	put_le(text + len,
	       record_crc(format_key, sizeof(format_key) - 1, text, len),
	       CRC_BYTES);
	for (int i = 0; rc == 0 && i < INDEX_DBS; i++)
		rc = mdb_dbi_open(txn, db_names[i], MDB_CREATE, &ix->dbi[i]);
	if (rc == 0)
		rc = mdb_put(txn, ix->dbi[INDEX_META], &key, &val,
			     MDB_NOOVERWRITE);
	if (rc == MDB_KEYEXIST)
		rc = 0;
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	return mdb_txn_commit(txn);
}

static int open_env(struct index *ix)
{
	int rc = mdb_env_create(&ix->env);

	if (rc != 0)
		return rc;
	(void)mdb_env_set_maxdbs(ix->env, INDEX_DBS);
	(void)mdb_env_set_maxreaders(ix->env, MAX_READERS);
	(void)mdb_env_set_mapsize(ix->env, ix->map_bytes);
	rc = mdb_env_open(ix->env, ix->dir, MDB_NOTLS | MDB_NORDAHEAD, 0600);
	if (rc == 0)
		rc = make_dbs(ix);
	if (rc != 0) {
		mdb_env_close(ix->env);
		ix->env = NULL;
	}
	return rc;
}

static void fsync_dir(const char *dir)
{
	CLEANUP(closep)
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		(void)fsync(fd);
}

static void reserve(struct index *ix)
{
	struct stat st;
	mdb_filehandle_t fd;

	if (mdb_env_get_fd(ix->env, &fd) != 0 || fstat(fd, &st) == -1 ||
	    st.st_size + RESERVE_BYTES / 2 <= ix->reserved)
		return;
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, st.st_size + RESERVE_BYTES) ==
	    0)
		ix->reserved = st.st_size + RESERVE_BYTES;
}

int index_open(const char *dir, struct index **ret, struct error *err)
{
	CLEANUP(freep) char *lock = NULL;
	struct index *ix;
	int rc;

	if (mkdir(dir, 0700) == -1 && errno != EEXIST)
		return set_error(err, -errno, "cannot create %s: %s", dir,
				 strerror(errno));
	if (asprintf(&lock, "%s/lock.mdb", dir) < 0) {
		lock = NULL;
		return -ENOMEM;
	}
	(void)unlink(lock);
	ix = calloc(1, sizeof(*ix));
	if (!ix)
		return -ENOMEM;
	ix->dir = strdup(dir);
	if (!ix->dir) {
		free(ix);
		return -ENOMEM;
	}
	ix->map_bytes = index_map_bytes;
	rc = open_env(ix);
	if (rc != 0) {
		(void)set_error(err, 0, "cannot open the cache index %s: %s",
				dir, mdb_strerror(rc));
		free(ix->dir);
		free(ix);
		return mdb_r(rc);
	}
	BUG_ON(pthread_rwlock_init(&ix->map, NULL) != 0);
	reserve(ix);
	fsync_dir(dir);
	*ret = ix;
	return 0;
}

void index_close(struct index **ixp)
{
	struct index *ix = *ixp;

	if (!ix)
		return;
	if (ix->env)
		mdb_env_close(ix->env);
	(void)pthread_rwlock_destroy(&ix->map);
	free(ix->dir);
	free(ix);
	*ixp = NULL;
}

/* ---- Reading ---- */

static int read_begin(struct index *ix, MDB_txn **ret)
{
	int rc;

	(void)pthread_rwlock_rdlock(&ix->map);
	rc = ix->env ? mdb_txn_begin(ix->env, NULL, MDB_RDONLY, ret) : EIO;
	if (rc != 0)
		(void)pthread_rwlock_unlock(&ix->map);
	return mdb_r(rc);
}

static void read_end(struct index *ix, MDB_txn *txn)
{
	mdb_txn_abort(txn);
	(void)pthread_rwlock_unlock(&ix->map);
}

static int get_checked(struct index *ix, MDB_txn *txn, enum index_db db,
		       const void *key, size_t key_len, MDB_val *ret)
{
	MDB_val k = {key_len, (void *)(uintptr_t)key};
	int r;

	if (key_len == 0 || key_len > INDEX_KEY_MAX)
		return -ENOENT;
	r = mdb_r(mdb_get(txn, ix->dbi[db], &k, ret));
	if (r == 0 && !record_ok(ix, db, &k, ret))
		r = -ENOENT;
	return r;
}

int index_get(struct index *ix, enum index_db db, const void *key,
	      size_t key_len, struct buf *ret)
{
	MDB_txn *txn;
	MDB_val val;
	int r = read_begin(ix, &txn);

	if (r < 0)
		return r;
	r = get_checked(ix, txn, db, key, key_len, &val);
	if (r == 0)
		r = buf_add(ret, val.mv_data, val.mv_size);
	read_end(ix, txn);
	return r;
}

bool index_decode_blob(const uint8_t *p, size_t len, struct index_blob *ret)
{
	if (len != BLOB_RECORD)
		return false;
	ret->size = get_le(p, 8);
	ret->last_use_s = get_le(p + 8, 8);
	ret->cached_bytes = get_le(p + 16, 8);
	ret->state = (uint32_t)get_le(p + 24, 4);
	return true;
}

static void encode_blob(const struct index_blob *rec, uint8_t p[BLOB_RECORD])
{
	put_le(p, rec->size, 8);
	put_le(p + 8, rec->last_use_s, 8);
	put_le(p + 16, rec->cached_bytes, 8);
	put_le(p + 24, rec->state, 4);
}

int index_get_blob(struct index *ix, const uint8_t bkey[INDEX_BKEY],
		   struct index_blob *ret)
{
	MDB_txn *txn;
	MDB_val val;
	int r = read_begin(ix, &txn);

	if (r < 0)
		return r;
	r = get_checked(ix, txn, INDEX_BLOBS, bkey, INDEX_BKEY, &val);
	if (r == 0 && !index_decode_blob(val.mv_data, val.mv_size, ret))
		r = -ENOENT;
	read_end(ix, txn);
	return r;
}

int index_each(struct index *ix, enum index_db db, const void *prefix,
	       size_t prefix_len, index_each_fn *each, void *arg)
{
	MDB_val key = {prefix_len, (void *)(uintptr_t)prefix}, val;
	MDB_cursor *cur;
	MDB_txn *txn;
	int rc, r;

	if (prefix_len > INDEX_KEY_MAX)
		return 0;
	r = read_begin(ix, &txn);
	if (r < 0)
		return r;
	rc = mdb_cursor_open(txn, ix->dbi[db], &cur);
	if (rc != 0) {
		read_end(ix, txn);
		return mdb_r(rc);
	}
	rc = mdb_cursor_get(cur, &key, &val,
			    prefix_len ? MDB_SET_RANGE : MDB_FIRST);
	while (rc == 0 && r == 0) {
		if (key.mv_size < prefix_len ||
		    (prefix_len &&
		     memcmp(key.mv_data, prefix, prefix_len) != 0))
			break;
		if (record_ok(ix, db, &key, &val))
			r = each(arg, key.mv_data, key.mv_size, val.mv_data,
				 val.mv_size);
		if (r == 0)
			rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT);
	}
	mdb_cursor_close(cur);
	read_end(ix, txn);
	if (r == 0 && rc != 0 && rc != MDB_NOTFOUND)
		r = mdb_r(rc);
	return r;
}

int index_walk(struct index *ix, enum index_db db, const void *from,
	       size_t from_len, index_walk_fn *each, void *arg)
{
	struct index_cursor next;
	MDB_val key = {from_len, (void *)(uintptr_t)from}, val;
	MDB_cursor *cur;
	MDB_txn *txn;
	int rc, r;

	if (from_len > INDEX_KEY_MAX)
		return 0;
	r = read_begin(ix, &txn);
	if (r < 0)
		return r;
	rc = mdb_cursor_open(txn, ix->dbi[db], &cur);
	if (rc != 0) {
		read_end(ix, txn);
		return mdb_r(rc);
	}
	rc = mdb_cursor_get(cur, &key, &val,
			    from_len ? MDB_SET_RANGE : MDB_FIRST);
	while (rc == 0) {
		r = 0;
		if (record_ok(ix, db, &key, &val))
			r = each(arg, key.mv_data, key.mv_size, &next);
		if (r == INDEX_SEEK) {
			key = (MDB_val){next.next_len, next.next};
			rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
		} else if (r == 0) {
			rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT);
		} else {
			break;
		}
	}
	mdb_cursor_close(cur);
	read_end(ix, txn);
	if (rc != 0 && rc != MDB_NOTFOUND)
		return mdb_r(rc);
	return r == INDEX_SEEK ? 0 : r;
}

/* ---- Writing ---- */

void index_batch_init(struct index_batch *b)
{
	*b = (struct index_batch){.data = BUF_INIT((size_t)1 << 30)};
}

void index_batch_release(struct index_batch *b)
{
	free(b->ops);
	buf_release(&b->data);
	index_batch_init(b);
}

static struct index_op *add_op(struct index_batch *b, enum index_db db,
			       enum op_what what, const void *key,
			       size_t key_len, size_t val_len)
{
	struct index_op *o;
	int r;

	if (b->error == 0 && (key_len == 0 || key_len > INDEX_KEY_MAX))
		b->error = -ENAMETOOLONG;
	if (b->error < 0)
		return NULL;
	if (b->n == b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 8;
		struct index_op *p = reallocarray(b->ops, cap, sizeof(*p));

		if (!p) {
			b->error = -ENOMEM;
			return NULL;
		}
		b->ops = p;
		b->cap = cap;
	}
	o = &b->ops[b->n];
	*o = (struct index_op){.db = db,
			       .what = what,
			       .key = b->data.len,
			       .key_len = key_len,
			       .val = b->data.len + key_len,
			       .val_len = val_len};
	r = buf_add(&b->data, key, key_len);
	if (r < 0) {
		b->error = r;
		return NULL;
	}
	b->n++;
	return o;
}

void index_put(struct index_batch *b, enum index_db db, const void *key,
	       size_t key_len, const void *val, size_t val_len)
{
	uint8_t crc[CRC_BYTES];
	int r;

	if (!add_op(b, db, OP_PUT, key, key_len, val_len + CRC_BYTES))
		return;
	put_le(crc, record_crc(key, key_len, val, val_len), CRC_BYTES);
	r = val_len ? buf_add(&b->data, val, val_len) : 0;
	if (r == 0)
		r = buf_add(&b->data, crc, sizeof(crc));
	if (r < 0)
		b->error = r;
}

void index_put_blob(struct index_batch *b, const uint8_t bkey[INDEX_BKEY],
		    const struct index_blob *rec)
{
	uint8_t p[BLOB_RECORD];

	encode_blob(rec, p);
	index_put(b, INDEX_BLOBS, bkey, INDEX_BKEY, p, sizeof(p));
}

void index_del(struct index_batch *b, enum index_db db, const void *key,
	       size_t key_len)
{
	(void)add_op(b, db, OP_DEL, key, key_len, 0);
}

void index_del_prefix(struct index_batch *b, enum index_db db,
		      const void *prefix, size_t prefix_len)
{
	(void)add_op(b, db, OP_DEL_PREFIX, prefix, prefix_len, 0);
}

void index_touch(struct index_batch *b, const uint8_t bkey[INDEX_BKEY],
		 uint64_t last_use_s)
{
	uint8_t v[8];
	int r;

	if (!add_op(b, INDEX_BLOBS, OP_TOUCH, bkey, INDEX_BKEY, sizeof(v)))
		return;
	put_le(v, last_use_s, 8);
	r = buf_add(&b->data, v, sizeof(v));
	if (r < 0)
		b->error = r;
}

static int apply_del_prefix(MDB_txn *txn, MDB_dbi dbi, const MDB_val *prefix)
{
	MDB_val key = *prefix, val;
	MDB_cursor *cur;
	int rc = mdb_cursor_open(txn, dbi, &cur);

	if (rc != 0)
		return rc;
	rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
	while (rc == 0 && key.mv_size >= prefix->mv_size &&
	       memcmp(key.mv_data, prefix->mv_data, prefix->mv_size) == 0) {
		rc = mdb_cursor_del(cur, 0);
		if (rc != 0)
			break;
		key = *prefix;
		rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
	}
	mdb_cursor_close(cur);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

static int apply_touch(struct index *ix, MDB_txn *txn, MDB_val *key,
		       uint64_t last_use_s)
{
	uint8_t p[BLOB_RECORD + CRC_BYTES];
	struct index_blob rec;
	MDB_val val;
	int rc = mdb_get(txn, ix->dbi[INDEX_BLOBS], key, &val);

	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc != 0)
		return rc;
	if (!record_ok(ix, INDEX_BLOBS, key, &val) ||
	    !index_decode_blob(val.mv_data, val.mv_size, &rec) ||
	    rec.last_use_s >= last_use_s)
		return 0;
	rec.last_use_s = last_use_s;
	encode_blob(&rec, p);
	put_le(p + BLOB_RECORD,
	       record_crc(key->mv_data, key->mv_size, p, BLOB_RECORD),
	       CRC_BYTES);
	val = (MDB_val){sizeof(p), p};
	return mdb_put(txn, ix->dbi[INDEX_BLOBS], key, &val, 0);
}

static int apply(struct index *ix, MDB_txn *txn, const struct index_batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct index_op *o = &b->ops[i];
		MDB_val key = {o->key_len, b->data.data + o->key};
		MDB_val val = {o->val_len, b->data.data + o->val};
		MDB_dbi dbi = ix->dbi[o->db];
		int rc = 0;

		switch (o->what) {
		case OP_PUT:
			rc = mdb_put(txn, dbi, &key, &val, 0);
			break;
		case OP_DEL:
			rc = mdb_del(txn, dbi, &key, NULL);
			if (rc == MDB_NOTFOUND)
				rc = 0;
			break;
		case OP_DEL_PREFIX:
			rc = apply_del_prefix(txn, dbi, &key);
			break;
		case OP_TOUCH:
			rc = apply_touch(ix, txn, &key, get_le(val.mv_data, 8));
			break;
		}
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int write_once(struct index *ix, const struct index_batch *b)
{
	MDB_txn *txn;
	int rc;

	(void)pthread_rwlock_rdlock(&ix->map);
	rc = ix->env ? mdb_txn_begin(ix->env, NULL, 0, &txn) : MDB_PANIC;
	if (rc == 0) {
		reserve(ix);
		rc = apply(ix, txn, b);
		if (rc == 0)
			rc = mdb_txn_commit(txn);
		else
			mdb_txn_abort(txn);
	}
	(void)pthread_rwlock_unlock(&ix->map);
	return rc;
}

/* Grows a map that was too small. Or reopens the environment after a failed
 * write of its meta page: until then LMDB refuses all work. */
static int change_env(struct index *ix, int why)
{
	int rc;

	(void)pthread_rwlock_wrlock(&ix->map);
	if (why == MDB_MAP_FULL && ix->env) {
		MDB_envinfo info;

		rc = mdb_env_info(ix->env, &info);
		if (rc == 0) {
			ix->map_bytes = info.me_mapsize + info.me_mapsize / 2;
			rc = mdb_env_set_mapsize(ix->env, ix->map_bytes);
		}
	} else {
		if (ix->env)
			mdb_env_close(ix->env);
		ix->env = NULL;
		rc = open_env(ix);
	}
	(void)pthread_rwlock_unlock(&ix->map);
	return rc;
}

int index_write(struct index *ix, const struct index_batch *b)
{
	int rc = 0;

	if (b->error < 0)
		return b->error;
	for (int tries = 0; tries < 4; tries++) {
		rc = write_once(ix, b);
		if (rc != MDB_MAP_FULL && rc != MDB_PANIC)
			break;
		if (change_env(ix, rc) != 0)
			break;
	}
	return mdb_r(rc);
}
