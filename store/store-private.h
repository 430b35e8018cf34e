/* Shared inside store/: the internals of the store and of a blob.
 *
 * One mutex, store.mu, guards all state that changes; it is held for memory
 * only, never across I/O, LMDB or a callback. Readers take no lock: they load
 * the blob's generation, test the bits of the chunks, read the bytes, and start
 * over if the generation has moved. Code that drops a chunk clears its bits
 * first, then raises the generation, and frees its bytes only later.
 *
 * A chunk of a blob is, in this order:
 *   claimed   being written or punched out; it is absent
 *   present   readable; `dirty` until the commit thread takes it
 *   syncing   the commit thread has it between fdatasync and the index
 *   durable   in the index, or in it with the next commit
 * and after a drop: `punch` until its disk space is free. */
#ifndef STORE_STORE_PRIVATE_H
#define STORE_STORE_PRIVATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/log.h"
#include "store/index.h"
#include "store/store.h"

#define SEG_WORDS (INDEX_SEG / 64)
#define SEG_PAGE  256 /* segments; of a blob of 16 TiB there are 256 pages */
/* For a chunk of a verified blob: its source matters no longer. */
#define CHUNK_FROM_VERIFIED 0xffff
#define MAX_ORIGINS	    ((size_t)16)
#define MAX_ORIGIN_BYTES    1024
#define HASH_SIZE	    4096
#define MAX_IDLE_BLOBS	    256
#define MAX_TOUCHES	    4096
#define MAX_PEERS	    65534
#define MAX_NAME	    256
#define FILE_PATH_SIZE	    160
/* A tick is 1/16 s since store_open(); 0 means before that. */
#define TICKS_PER_S	16
#define HOUSEKEEPING_MS 60000

/* 256 chunks of a blob, or all it has. Allocated when the first of them is
 * written or found in the index; freed with the blob. */
struct seg {
	uint64_t present[SEG_WORDS]; /* atomic; changed under store.mu */
	uint64_t checked[SEG_WORDS]; /* atomic; likewise */
	/* guarded by: store.mu */
	uint64_t claimed[SEG_WORDS];
	uint64_t dirty[SEG_WORDS];
	uint64_t syncing[SEG_WORDS];
	uint64_t durable[SEG_WORDS];
	uint64_t punch[SEG_WORDS];
	bool changed; /* the index's record must be written */
	uint32_t n;
	uint32_t *crc;	/* atomic */
	uint16_t *from; /* guarded by: store.mu */
	/* sha256_state() behind each chunk; NULL before the first sum. Written
	 * by the sum until the blob is proven, constant from then on. */
	uint8_t (*sums)[SHA256_STATE_BYTES];
	uint32_t used[]; /* atomic; ticks */
};

struct sha256;

/* Why store_read() withholds the bytes; see blob_gated(). */
enum gate { GATE_OPEN, GATE_UNCHECKED, GATE_FAILED };

struct blob {
	struct store *store;
	struct blob_key key;
	uint64_t size;
	uint32_t chunks;
	uint32_t nsegs;
	/* Tables of SEG_PAGE segments; see seg_at(). Entries are atomic; each
	 * changes from NULL once. */
	struct seg ***pages;
	struct seg **one_page, *one; /* of a blob with one segment */
	uint64_t loaded_last_use_s;  /* as in the index when it was loaded */

	uint32_t refs;	       /* atomic; 0 <-> 1 only under store.mu */
	uint64_t gen;	       /* atomic; changed under store.mu */
	uint32_t state;	       /* atomic; likewise */
	uint32_t gate;	       /* atomic; likewise; enum gate */
	uint32_t npresent;     /* atomic; likewise */
	uint64_t cached_bytes; /* atomic; likewise */
	uint32_t used;	       /* atomic; ticks */
	int fd;		       /* atomic; -1 while the file is not open */
	uint32_t fd_uses;      /* atomic; see blob_fd() */
	int ext_fd;	       /* atomic; see external.c */
	bool external;	       /* atomic; changed under store.mu */
	bool proven;	       /* atomic; see blob_proven() */
	uint64_t bad_ms;       /* atomic; when it was marked bad, 0 before */
	void *user;	       /* loop thread */

	/* guarded by: store.mu */
	struct blob *next; /* in the hash table */
	struct list idle;  /* in store.idle: no references */
	struct list dirty; /* in store.dirty, which holds a reference */
	struct list cycle; /* commit thread */
	bool fresh;	   /* commit thread: chunks become durable */
	bool hashed, loading, opening, in_dirty, in_cycle;
	struct list file; /* in store.files, while fd is open */
	int load_error;
	bool rec_changed, origins_changed;
	bool ext_refused;
	struct list settling; /* in store.settling, which holds a reference */
	uint64_t settle_ms;
	bool made;	/* the file's name is not durable yet */
	bool left_file; /* a file without chunks that was in use */
	bool indexed;	/* the index has a record */
	bool unsure;	/* see store_create_unsure(); not counted in nblobs */
	uint64_t durable_bytes;
	uint64_t rec_last_use_s; /* as in the index */
	unsigned int ev_dropped; /* number of BLOB_EV_DROPPED not sent yet */
	bool ev_held; /* had durable chunks: owes BLOB_EV_EMPTIED; commit thread
		       */
	struct string_list origins;

	/* The sum; guarded by: store.mu. Exception: the thread that has set
	 * sum_running uses *sum without it. */
	struct sha256 *sum;
	uint32_t sum_next; /* atomic; number of chunks summed */
	bool sum_reset, sum_queued, sum_running, sum_forced;
	struct list sum_node; /* in store.sums[], which holds a reference */
	struct list waiters;

	/* guarded by: store.mu */
	struct list holds; /* struct store_hold */
	bool punch_waits;  /* dropped chunks that a hold kept in the file */
};

struct sum_waiter {
	struct list node;
	void (*done)(void *arg, int r);
	void *arg;
};

/* The last use of a blob or manifest, to be written at leisure. */
struct touch {
	enum index_db db; /* INDEX_BLOBS or INDEX_USES */
	uint8_t key[INDEX_BKEY];
	size_t key_len;
	uint64_t last_use_s;
};

struct store {
	char *dir;
	int dirfd, lockfd;
	struct index *ix;
	uint64_t max_bytes, min_free_bytes;
	uint32_t commit_interval_ms;
	char *external_dir; /* NULL = none */
	uint32_t external_grace_ms;
	int nullfd;		/* /dev/null */
	unsigned int max_files; /* limit of open blob files, kept if possible */
	void (*event)(void *arg, struct blob *b, enum blob_event ev);
	void *event_arg;
	uint64_t open_ms; /* CLOCK_MONOTONIC, of tick 0 */
	uint64_t open_s;  /* CLOCK_REALTIME of tick 0 */

	pthread_mutex_t mu;
	pthread_cond_t changed; /* a claim, a load or an open has ended */
	/* guarded by: mu */
	struct blob *hash[HASH_SIZE];
	struct list idle; /* unreferenced blobs, oldest first */
	unsigned int nidle;
	uint64_t nblobs;
	struct list files; /* open files, in the order of closing */
	unsigned int nfiles;
	bool stop, stop_commit;

	/* The commit thread; guarded by: mu. */
	pthread_t commit_thread;
	pthread_cond_t commit_wake, cycle_end;
	struct list dirty;
	struct list settling; /* by settle_ms */
	unsigned int ndirty;
	uint64_t first_dirty_ms, retry_ms, housekeep_ms, evict_again_ms;
	uint64_t cycle_wanted, cycle_started, cycle_done;
	int cycle_result;
	uint64_t evict_wanted, evict_got;
	unsigned int evict_files;
	struct touch *touches;
	unsigned int ntouches;

	/* The sum threads; guarded by: mu. [0] sums the blobs that somebody
	 * waits for, at normal priority; [1] sums the rest, at low priority. */
	pthread_t sum_thread[2];
	pthread_cond_t sum_wake[2];
	struct list sums[2];

	/* Held while a manifest is written or deleted, LMDB included. */
	pthread_mutex_t manifests_mu;

	/* guarded by: mu */
	char **peers; /* number - 1 -> name */
	unsigned int npeers, npeers_saved;

	/* Atomic. */
	uint64_t cached_bytes;
	uint64_t manifests, manifest_bytes; /* changed under manifests_mu */
	uint64_t unpunched_bytes;	    /* evicted in this cycle */
	uint64_t evicted_chunks, evicted_bytes, damaged_chunks, write_errors;
	uint64_t commits, verified_blobs, mismatched_blobs;
};

#define LOAD(p)		__atomic_load_n(p, __ATOMIC_RELAXED)
#define LOAD_ACQ(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define STORE(p, v)	__atomic_store_n(p, v, __ATOMIC_RELAXED)
#define STORE_REL(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define ADD(p, v)	((void)__atomic_fetch_add(p, v, __ATOMIC_RELAXED))
#define SUB(p, v)	((void)__atomic_fetch_sub(p, v, __ATOMIC_RELAXED))

static inline bool bit_get(const uint64_t *w, uint32_t i)
{
	return LOAD_ACQ(&w[i / 64]) >> (i % 64) & 1;
}

static inline void bit_set(uint64_t *w, uint32_t i)
{
	STORE_REL(&w[i / 64], LOAD(&w[i / 64]) | UINT64_C(1) << (i % 64));
}

static inline void bit_clear(uint64_t *w, uint32_t i)
{
	STORE_REL(&w[i / 64], LOAD(&w[i / 64]) & ~(UINT64_C(1) << (i % 64)));
}

/* Segment k; NULL: nothing is known of its chunks. */
static inline struct seg *seg_at(const struct blob *b, uint32_t k)
{
	struct seg **page = LOAD_ACQ(&b->pages[k / SEG_PAGE]);

	return page ? LOAD_ACQ(&page[k % SEG_PAGE]) : NULL;
}

static inline struct seg *seg_of(const struct blob *b, uint32_t chunk)
{
	return seg_at(b, chunk >> INDEX_SEG_SHIFT);
}

/* True for a chunk in the store's own file; blob_has() also counts external
 * ones. */
static inline bool chunk_present(const struct blob *b, uint32_t chunk)
{
	struct seg *g = chunk < b->chunks ? seg_of(b, chunk) : NULL;

	return g && bit_get(g->present, chunk % INDEX_SEG);
}

/* Without chunks a verified blob counts as provisional: nothing verified is
 * left but its size. */
static inline enum blob_state state_shown(enum blob_state state, uint64_t size,
					  uint64_t cached_bytes)
{
	return state == BLOB_VERIFIED && size > 0 && cached_bytes == 0
		       ? BLOB_PROVISIONAL
		       : state;
}

static inline void store_lock(struct store *s)
{
	(void)pthread_mutex_lock(&s->mu);
}

static inline void store_unlock(struct store *s)
{
	(void)pthread_mutex_unlock(&s->mu);
}

/* ---- store.c ---- */

void bkey_of(const struct blob_key *key, uint8_t out[INDEX_BKEY]);
bool bkey_parse(const uint8_t *p, size_t len, struct blob_key *ret);
/* Writes the file's name below the cache directory into out; returns out. */
char *blob_path(const struct blob_key *key, char out[FILE_PATH_SIZE]);
uint32_t store_tick(const struct store *s);
/* A blob's last use, in seconds since 1970. */
uint64_t blob_last_use_s(const struct blob *b);
/* Waits until `ms` of now_ms(), or a signal; mu is held. */
void cond_wait_until(pthread_cond_t *c, struct store *s, uint64_t ms);
void cond_init(pthread_cond_t *c);

/* ---- blob-table.c: the blobs in memory ---- */

/* As store_get(), for the store itself: it does not start verification. */
int blob_get_quiet(struct store *s, const struct blob_key *key,
		   struct blob **ret);
/* mu is held. */
struct blob *blob_find_locked(struct store *s, const struct blob_key *key);
/* The index shall have a record of it. mu is held. */
void blob_sure_locked(struct blob *b);
/* Gets a reference to the blob if it is in memory or being loaded, else NULL.
 */
struct blob *blob_find_loaded(struct store *s, const struct blob_key *key);
/* Marks the records of all segments of a proven blob as changed. mu is held. */
void blob_segs_changed_locked(struct blob *b);
/* For a blob that is being made. -ENOMEM. */
int blob_set_size(struct blob *b, uint64_t size);
static inline void blob_ref_locked(struct blob *b)
{
	ADD(&b->refs, 1);
}
/* Prevents the load of a blob while its record is deleted. False: the blob is
 * in memory, or memory is short. */
bool blob_reserve(struct store *s, const struct blob_key *key);
void blob_unreserve(struct store *s, const struct blob_key *key);
/* Gets or makes segment i; NULL when memory is short. mu is held. */
struct seg *seg_make_locked(struct blob *b, uint32_t i);
/* Frees idle blobs and closes their files, until `keep` are left. mu is not
 * held. */
void trim_idle(struct store *s, unsigned int keep);

/* ---- blob-file.c ---- */

/* Blocks. Returns the descriptor, or a negative errno; -ENOENT when there is no
 * file and make is false. The caller holds a reference to b. The descriptor
 * stays open until blob_fd_put(), and while chunks wait for a flush; after that
 * the store may close it when too many are open. */
int blob_fd(struct blob *b, bool make);
static inline void blob_fd_put(struct blob *b)
{
	(void)__atomic_fetch_sub(&b->fd_uses, 1, __ATOMIC_SEQ_CST);
}
/* True if writers should wait until some files are flushed. */
bool too_many_files(struct store *s);
/* Takes b's file off store.files; the caller closes it. mu is held. */
void blob_file_gone_locked(struct blob *b);
/* On the commit thread, after the index commit: unlinks b's file if b has no
 * chunk. A later write makes a new file. False: the file stays. */
bool blob_unlink_empty(struct blob *b);

/* ---- blob.c ---- */

/* Drops a present chunk. mu is held. */
void chunk_drop_locked(struct blob *b, uint32_t chunk);
/* The chunk's bytes in the file are wrong, or not those that a hold began with.
 */
void holds_break_locked(struct blob *b, uint32_t chunk);
/* Drops all chunks; the blob is no longer bad. */
void blob_drop_all(struct blob *b);
/* Queues b for the commit thread; mu is held. */
void blob_dirty_locked(struct blob *b);
/* Blocks. Compares a chunk with its checksum: if `force`, or at its first use.
 * 0: present and right. -ENODATA: absent, or damaged and dropped now. -ENOMEM.
 */
int chunk_check(struct blob *b, uint32_t chunk, bool force);
/* Blocks. -ENODATA: the file is too short. */
int pread_all(int fd, void *buf, size_t len, uint64_t off);
/* Blocks. Reads one whole chunk, checked; does not count as a use. */
int chunk_read(struct blob *b, uint32_t chunk, void *buf);
/* Forgets the origins of other places than that of b's claim: readers of this
 * place must not get their bytes unchecked. mu is held, or b is loading. */
void blob_drop_foreign_origins(struct blob *b);
/* Checks the bytes of a proven blob's chunk: 0, -EBADMSG or -ENOMEM. */
int chunk_prove(const struct blob *b, uint32_t chunk, const void *data);
/* Drops a chunk whose bytes are lost. mu is held. */
void blob_damaged_locked(struct blob *b, uint32_t chunk);

/* Closes the gate if a check can follow soon (blob_gated()). For a blob whose
 * chunks are all present, or will be with the next one. mu is held. */
void gate_locked(struct blob *b);

/* ---- commit.c ---- */

void *commit_main(void *arg);
/* Waits for the end of a cycle that begins after this call; returns its result.
 */
int commit_wait(struct store *s);

/* On the commit thread: writes the noted last uses. */
void write_touches(struct store *s);
/* At store_close(): releases the blobs whose changes could not be written. */
void drop_unsaved(struct store *s);

/* ---- evict.c, on the commit thread ---- */

/* Drops chunks as the limits ask, at least `want` bytes, and all chunks of
 * `files` blobs. The next commit frees their disk space. */
void evict(struct store *s, uint64_t want, unsigned int files);
/* As in the index: ticks from store_open() on, negative before. */
int64_t record_tick(const struct store *s, uint64_t last_use_s);

/* ---- evict-records.c ---- */

/* The bytes that manifests may take. */
uint64_t manifests_max(struct store *s);
/* On the commit thread: evicts the least recently used manifests above that. */
void evict_manifests(struct store *s);
/* On the commit thread: keeps to STORE_MAX_RECORDS. */
void trim_records(struct store *s);
/* Notes a last use for a later commit. mu is held. */
void note_touch_locked(struct store *s, enum index_db db, const uint8_t *key,
		       size_t key_len, uint64_t last_use_s);

/* ---- external.c: external blobs ---- */

/* Looks into external_dir while b is being loaded. r is the result of the
 * index, 0 or -ENOENT. Returns 0 or r, or -ENOMEM. */
int external_load(struct blob *b, int r);
/* The size of the external file of that name; 0: no usable file. */
uint64_t external_size(struct store *s, const struct digest *d);
/* The second half of external_load(). mu is held. */
void external_loaded_locked(struct blob *b);
/* Blocks. -ENODATA: b is not external, or no longer. */
int external_read(struct blob *b, uint64_t off, void *buf, size_t len);
/* As store_verify(). */
int external_verify(struct blob *b);
/* As store_manifest_get(). */
int external_manifest(struct store *s, const struct digest *d, char **ret_type,
		      void **ret_bytes, size_t *ret_len);
/* On the commit thread: closes or drops the files whose grace has ended; with
 * `all`, at the end, all of them. */
void external_settle(struct store *s, bool all);

/* ---- verify.c ---- */

struct sum_arg {
	struct store *store;
	int which;
};
void *sum_main(void *arg);
/* Queues b if its sum can continue. mu is held. */
void sum_kick_locked(struct blob *b);
/* After the threads have ended: waiters get -ECANCELED. */
void sum_cancel(struct store *s);

#endif
