/* Blobs on disk: which blobs exist, which of their chunks are present, and
 * whether their bytes are right.
 *
 * A blob is an immutable run of bytes with a known size, cut into chunks of
 * CHUNK_SIZE; the last one may be shorter. <dir>/blobs/<kind>/<aa>/<hex> is one
 * sparse file per blob, at full size. <dir>/index/ is an LMDB environment;
 * index.h has its layout. The one process that uses the directory holds
 * <dir>/lock.
 *
 * The promise: after kill -9 or a power cut, a chunk that the index calls
 * present reads back right, or its CRC32C fails at the first read and the chunk
 * counts as absent. Order of writing: pwrite, fdatasync (batched), index
 * commit. Order of eviction: index commit, then the hole. A committed chunk is
 * not fetched again unless it was evicted or damaged.
 *
 * A blob with a digest is provisional until its SHA-256 is checked, which needs
 * all its chunks (the sum runs along the contiguous prefix while it grows).
 * Then the blob becomes verified, or its chunks are dropped.
 *
 * Threads: any thread may call every function. Those marked "Blocks" touch the
 * disk: never call them on the loop thread. The store has three threads of its
 * own: one commits and evicts; one sums, at low priority; one sums the blobs
 * that somebody waits for. No lock is held across I/O or a callback. A callback
 * on a store thread must not call a function that waits for a commit:
 * store_sync(), store_evict(), store_verify(), store_each(). */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/digest.h"
#include "base/manifest.h"
#include "base/options.h"
#include "base/util.h"

#define CHUNK_SHIFT 20
#define CHUNK_SIZE  (UINT64_C(1) << CHUNK_SHIFT)
/* 16 TiB, the reach of a chunk number of 24 bits */
#define BLOB_MAX_SIZE (UINT64_C(1) << 44)

struct store;
struct blob;

enum blob_kind {
	BLOB_SHA256 = 1, /* id is the blob's digest */
	BLOB_URL = 2, /* id is the SHA-256 of a URL and its version; there is no
			 digest to check the bytes */
};

/* A claim: a place (a registry, or a URL) says that a digest stands for `size`
 * bytes. Bytes that are not verified belong to the claim of the place that they
 * came from, and only readers whose own name leads to that place see them. A
 * digest may have several claims. Each is a blob of its own until one of them
 * is verified; from then on every reader gets that blob (see blob_proven()). */
#define BLOB_PLACE_BYTES 16
struct blob_claim {
	uint8_t place[BLOB_PLACE_BYTES]; /* all zero: nobody's claim */
	uint64_t size;			 /* 0: in a look-up, of any size */
};

struct blob_key {
	enum blob_kind kind;
	struct digest id;
	struct blob_claim claim; /* BLOB_SHA256 only */
};

bool blob_key_equal(const struct blob_key *a, const struct blob_key *b);
/* Whether the claim is somebody's. */
bool blob_key_placed(const struct blob_key *key);
/* Sets key->claim to the place of the origin (see blob_add_origin()): the whole
 * registry, or the single URL. */
void blob_key_claim(struct blob_key *key, const char *origin, uint64_t size);

enum blob_state {
	BLOB_PROVISIONAL, /* not checked, or not completely */
	BLOB_VERIFIED,	  /* all bytes were present and matched the digest, and
			     some are present still */
	BLOB_BAD, /* failed its digest repeatedly: reads give EIO until the blob
		     is evicted */
};

/* Where a chunk came from: 0 is upstream, others are members (store_peer_id()).
 */
#define CHUNK_FROM_UPSTREAM 0

enum blob_event {
	BLOB_EV_VERIFIED,  /* the digest matched */
	BLOB_EV_MISMATCH,  /* it did not; the chunks from members were dropped,
			      or all chunks if none was from a member */
	BLOB_EV_DROPPED,   /* a chunk was damaged on disk and dropped */
	BLOB_EV_COMMITTED, /* chunks became durable */
	BLOB_EV_EMPTIED,   /* its last chunk was evicted or dropped */
	BLOB_EVENTS
};

struct store_config {
	const char *dir;	     /* created if absent; copied */
	uint64_t max_bytes;	     /* of chunks and manifests; 0 = no limit */
	uint64_t min_free_bytes;     /* of the file system, kept free */
	uint32_t commit_interval_ms; /* batch window; 0 = 50 */
	/* See "External blobs"; copied; NULL = none. */
	const char *external_dir;
	uint32_t external_grace_ms; /* 0 = 30 s */
	/* Called on a store thread with no lock held. The store holds a
	 * reference to b until the call returns. May be NULL. */
	void (*event)(void *arg, struct blob *b, enum blob_event ev);
	void *event_arg;
};

/* Blocks. Takes the lock (-EBUSY: *err names the holder's pid) and checks the
 * index's format version (-EPROTO: unknown; the directory is unchanged). Then
 * it checks the index in a child process, since a damaged LMDB file can make
 * its reader fault or abort. It moves a damaged index aside with a warning in
 * the log, removes the blobs, and starts with an empty cache. Removes files
 * without a record. *err also describes -EROFS, -EACCES, -ENOSPC and so on. On
 * 0 the caller owns *ret. Call it before the process has other threads. */
int store_open(const struct store_config *cfg, struct store **ret,
	       struct error *err);
/* Blocks. Commits the written chunks, stops the threads, frees *s and makes it
 * NULL. All references to blobs must have been dropped. *s may be NULL. */
void store_close(struct store **s);

/* ---- Blobs ---- */

/* Blocks (a short index read) unless the blob is in memory. Gets the proven
 * blob of that digest, whatever its claim; else the blob of key's claim. With a
 * claim of any size: the one with most bytes here. Without a claim: only a
 * proven or an external blob. -ENOENT: there is none. On 0 the caller owns a
 * reference. */
int store_get(struct store *s, const struct blob_key *key, struct blob **ret);
/* Blocks. The same, but makes the blob of key's claim with that size if there
 * is none. -ESTALE: the blob of a URL has another size. -EFBIG above
 * BLOB_MAX_SIZE. -EBADMSG: size is 0, but the digest is not that of zero bytes.
 */
int store_create(struct store *s, const struct blob_key *key, uint64_t size,
		 struct blob **ret);
/* The same for a blob that may not exist at all: the index gets a record of it
 * with its first chunk, or when store_create() gets it. */
int store_create_unsure(struct store *s, const struct blob_key *key,
			uint64_t size, struct blob **ret);
/* Blocks. Gets the blob of exactly that claim. -ENOENT. */
int store_get_claim(struct store *s, const struct blob_key *key,
		    struct blob **ret);
/* Blocks. The keys of all blobs of that digest, each once. *ret is the caller's
 * to free(). */
int store_claims_of(struct store *s, const struct digest *d,
		    struct blob_key **ret, size_t *ret_n);
/* Does not block. -EAGAIN: the blob is not in memory; use store_get(). */
int store_peek(struct store *s, const struct blob_key *key, struct blob **ret);
struct blob *blob_ref(struct blob *b);
/* Drops the reference and makes *b NULL. A blob without references may stay in
 * memory for a while. */
void blob_unref(struct blob **b);

const struct blob_key *blob_key(const struct blob *b);
uint64_t blob_size(const struct blob *b);
uint32_t blob_chunks(const struct blob *b);
/* Length of one chunk: CHUNK_SIZE, or less for the last one. */
uint32_t blob_chunk_len(const struct blob *b, uint32_t chunk);
enum blob_state blob_get_state(const struct blob *b);
/* The blob was verified as a whole, and the store knows the SHA-256 state
 * behind each chunk (see sha256_state()). A chunk that was dropped since is
 * checked on its own when it comes back, from any sender, and no reader sees it
 * before. External blobs are not proven. */
bool blob_proven(const struct blob *b);
/* Proven or external: its bytes may be shown to every reader. */
bool blob_shared(const struct blob *b);
uint64_t blob_cached_bytes(const struct blob *b);
uint32_t blob_missing(const struct blob *b); /* chunks that are not present */
bool blob_has(const struct blob *b, uint32_t chunk);
/* The first absent chunk at or after `from`; blob_chunks() if there is none. */
uint32_t blob_next_missing(const struct blob *b, uint32_t from);
/* The source of a chunk, also of one that a BLOB_EV_MISMATCH has just dropped.
 * CHUNK_FROM_UPSTREAM for all chunks of a verified blob. */
uint16_t blob_chunk_from(const struct blob *b, uint32_t chunk);
/* The CRC32C of a chunk, likewise. */
uint32_t blob_chunk_crc(const struct blob *b, uint32_t chunk);
/* Copies the bitmap of present chunks; bit 0 of byte 0 is chunk 0. */
void blob_bitmap(const struct blob *b, uint8_t *out, size_t out_bytes);

/* A slot for fetch/: the object that it attached to the blob, NULL at first.
 * Loop thread only. The store never looks into it. A blob stays in memory only
 * while it has references, so the owner of a user object must hold one. */
void blob_set_user(struct blob *b, void *user);
void *blob_user(const struct blob *b);

/* Adds an origin of b: "registry://HOST/NAME" or a URL without secrets. The
 * index keeps at most 16, newest first; a known one moves to the front. Does
 * not block: the next commit writes it. -EINVAL: empty, or above 1 KiB.
 * -ENOMEM. */
int blob_add_origin(struct store *s, struct blob *b, const char *origin);
/* Moves an origin to the end of the list; NULL: the first one. Does not block.
 */
void blob_origin_last(struct store *s, struct blob *b, const char *origin);
/* Appends copies of the origins, newest first. -ENOMEM. */
int blob_origins(struct blob *b, struct string_list *ret);
/* Whether the origin is of another place than that of b's claim, which only a
 * proven blob has. */
bool blob_origin_foreign(const struct blob *b, const char *origin);

/* ---- Chunks ---- */

/* Blocks on disk. Reads exactly len bytes at off (-EINVAL: beyond the blob's
 * end). Checks each chunk's CRC32C at its first use after a start. -ENODATA: a
 * chunk is absent (or was damaged, and is dropped): fetch it and try again.
 * -EAGAIN: see blob_gated(). -EIO: the blob is bad, or the disk failed.
 * -ESTALE: a blob of another size has replaced b. Safe during an eviction. */
int store_read(struct store *s, struct blob *b, uint64_t off, void *buf,
	       size_t len);

/* True if b is gated: store_read() gives -EAGAIN. The gate of a provisional
 * blob with a digest closes when all its chunks are present but not checked
 * (unless more than STORE_GATE_MAX bytes are still to be summed). It also
 * closes at a mismatch, until the blob is verified or evicted.
 * blob_on_verified() tells when to try again. */
#define STORE_GATE_MAX (UINT64_C(64) << 20)
bool blob_gated(const struct blob *b);
/* True if a mismatch closed the gate. */
bool blob_failed(const struct blob *b);

/* Blocks on disk. For sendfile(2): makes sure that [off, off+len) is present
 * and checked, and gives the file's descriptor, which lives until
 * store_range_done() and no longer than the reference to b. *ret_gen is for
 * store_gen_ok(), which is false if the range may have been evicted since; the
 * bytes sent in between may be holes then and must not count as sent. Errors as
 * for store_read(). */
int store_range_fd(struct store *s, struct blob *b, uint64_t off, uint64_t len,
		   int *ret_fd, uint64_t *ret_gen);
bool store_gen_ok(struct blob *b, uint64_t gen);
/* Call it once for each descriptor that was got. Descriptors are scarce. */
void store_range_done(struct blob *b);
/* A range that is being sent. An eviction meanwhile leaves its bytes in the
 * file until the hold ends. Embedded in the caller's object. */
struct store_hold {
	struct list node;
	uint32_t first, last; /* chunks */
	bool broken;
};
/* Holds a range of a descriptor that store_range_fd() gave with this gen.
 * -EAGAIN: the blob has changed since; ask for the range again. */
int store_hold(struct blob *b, uint64_t off, uint64_t len, uint64_t gen,
	       struct store_hold *h);
/* Ends it. False: some of its bytes were found wrong, or others were written
 * over them; what was sent must not count as sent. */
bool store_unhold(struct blob *b, struct store_hold *h);
/* The same without blocking. -EBUSY: the file is not open or a chunk is not
 * checked; use store_range_fd() on a worker. */
int store_range_fd_now(struct store *s, struct blob *b, uint64_t off,
		       uint64_t len, int *ret_fd, uint64_t *ret_gen);
/* The same (now: without blocking) for readers that check the whole blob, as
 * members do: only the gate of a mismatch holds them back. */
int store_range_fd_unchecked(struct store *s, struct blob *b, uint64_t off,
			     uint64_t len, bool now, int *ret_fd,
			     uint64_t *ret_gen);

/* Blocks on disk. Writes a whole chunk (len = blob_chunk_len()) and marks it
 * present; the next commit makes it durable. -EBADMSG: the blob is proven and
 * the bytes are not the chunk's; with any other result but -ENOMEM the bytes of
 * a proven blob are right. -EEXIST: it was present, nothing was done. -ENOSPC,
 * -EDQUOT, -EROFS, -EIO: not kept (the store logs the first of a series); a
 * full disk first causes one eviction. The chunk that completes the blob starts
 * its verification; see blob_on_verified(). */
int store_write(struct store *s, struct blob *b, uint32_t chunk,
		const void *data, size_t len, uint16_t from);

/* Calls done(arg, r) when the check that store_write() of the last chunk
 * started has ended: 0 verified (or nothing to verify: BLOB_URL), -EBADMSG
 * mismatch, -ENODATA chunks are missing, -ECANCELED the store closes, -ENOMEM.
 * It comes on a store thread, or inside this call if the result is known. */
void blob_on_verified(struct store *s, struct blob *b,
		      void (*done)(void *arg, int r), void *arg);
/* Bytes that must still be summed before b can be verified. */
uint64_t blob_unsummed_bytes(const struct blob *b);

/* Blocks. Sums all present bytes anew, in any state. 0: verified. -EBADMSG:
 * chunks are dropped as for a mismatch. -ENODATA: incomplete; it checked each
 * present chunk against its CRC32C instead. -ESTALE, -ECANCELED, -ENOMEM. */
int store_verify(struct store *s, struct blob *b);

/* Blocks. Drops every chunk and commits that; the record and its origins stay.
 * Resets BLOB_BAD. */
int store_evict(struct store *s, struct blob *b);
/* Marks the blob BLOB_BAD, also in the index. */
void blob_set_bad(struct store *s, struct blob *b);
/* Milliseconds since the blob was marked BLOB_BAD; large after a restart. */
uint64_t blob_bad_ms(const struct blob *b);
/* Blocks until all chunks written so far are durable. */
int store_sync(struct store *s);

/* ---- External blobs ----
 *
 * The store reads the files of external_dir that are named by their SHA-256 in
 * hex (containerd's content store) in place, and keeps no second copy. A blob
 * with such a file of its size is external: all its chunks count as present and
 * verified, reads and descriptors come from that file, store_write() gives
 * -EEXIST. The store looks into the directory when a blob comes into memory,
 * and at store_external_changed(). store_get() makes a blob that only the
 * directory knows, as store_create() would.
 *
 * When a blob becomes external or stops being so, a sender from the old file
 * has external_grace_ms to end. Then the store drops its own chunks, or closes
 * the external file and store_gen_ok() is false. Without an external file the
 * blob has the chunks of the store.
 *
 * The owner of the files has checked them; the store checks only that each is a
 * regular file of the right size. A file that is too short, or that
 * store_verify() finds wrong, is not used again until it has been removed. */

/* Blocks. Tells the store that a file came or went. 1: the file exists; a blob
 * in memory uses it and drops its own chunks. 0: no file. -ESTALE: the file is
 * not usable. Others are those of open(2); the file is not used then. */
int store_external_changed(struct store *s, const struct digest *d);
bool blob_external(const struct blob *b);

/* ---- Members as sources of chunks ---- */

/* Returns a small number for a member's name, stable across restarts: 1..65534.
 * All names share 65534 once the numbers are used up (or a name has over 255
 * bytes). */
uint16_t store_peer_id(struct store *s, const char *peer);
/* Copies the name. -ENOENT: no such number. */
int store_peer_name(struct store *s, uint16_t id, char *out, size_t out_size);

/* ---- Manifests, tags, URL versions: small records. All block. ---- */

/* Stores a manifest. -EBADMSG: bytes do not hash to d. -EFBIG above
 * MANIFEST_MAX_BYTES. Manifests have an eighth of the cache; above that the
 * least recently used are evicted. */
int store_manifest_put(struct store *s, const struct digest *d,
		       const char *media_type, const void *bytes, size_t len);
/* Gets a manifest; the caller free()s *ret_bytes and *ret_type. -ENOENT. Looks
 * into external_dir for an unknown one, whose type is its own mediaType, "" if
 * it has none. */
int store_manifest_get(struct store *s, const struct digest *d, char **ret_type,
		       void **ret_bytes, size_t *ret_len);

/* -ENOENT: it is not stored. */
int store_manifest_evict(struct store *s, const struct digest *d);
/* Appends the digests of all stored manifests, "sha256:…". */
int store_manifest_list(struct store *s, struct string_list *ret);

/* Of tags, of what repositories have, and of general records whose key begins
 * with "url:", at most STORE_MAX_RECORDS of each kind are kept for long: those
 * that were written last. The same holds for records of blobs without chunks,
 * by their last use. */
#define STORE_MAX_RECORDS 100000

/* repo is "HOST/NAME". seen_s: when upstream said so, in seconds since 1970. */
int store_tag_put(struct store *s, const char *repo, const char *tag,
		  const struct digest *d, uint64_t seen_s);
int store_tag_get(struct store *s, const char *repo, const char *tag,
		  struct digest *ret, uint64_t *ret_seen_s);
int store_tag_del(struct store *s, const char *repo, const char *tag);
/* Appends the known tags of a repository. */
int store_tag_list(struct store *s, const char *repo, struct string_list *ret);

/* Records that the repository has this manifest, or this blob of that size
 * (from a manifest's descriptor). */
int store_repo_add(struct store *s, const char *repo, bool manifest,
		   const struct digest *d, uint64_t size);
int store_repo_del(struct store *s, const char *repo, bool manifest,
		   const struct digest *d);
/* -ENOENT: no such record. */
int store_repo_has(struct store *s, const char *repo, bool manifest,
		   const struct digest *d, uint64_t *ret_size);
/* Calls each(arg, d, size) for all of them. A non-zero return ends the walk and
 * is returned. */
int store_repo_each(struct store *s, const char *repo, bool manifest,
		    int (*each)(void *arg, const struct digest *d,
				uint64_t size),
		    void *arg);
/* Appends the known "HOST/NAME" that begin with prefix, in order. */
int store_repo_list(struct store *s, const char *prefix,
		    struct string_list *ret);

/* A general small record: key at most 480 bytes (e.g. "url\0…"), value at most
 * 64 KiB (-EINVAL otherwise). */
int store_kv_put(struct store *s, const void *key, size_t key_len,
		 const void *val, size_t val_len);
int store_kv_get(struct store *s, const void *key, size_t key_len,
		 struct buf *ret);
int store_kv_del(struct store *s, const void *key, size_t key_len);
/* Appends the keys with that prefix, as strings. */
int store_kv_list(struct store *s, const char *prefix, struct string_list *ret);

/* ---- The whole store ---- */

struct blob_info {
	struct blob_key key;
	uint64_t size;
	uint64_t cached_bytes;
	uint64_t last_use_s; /* since 1970 */
	enum blob_state state;
	bool shared; /* see blob_shared(); false while it is not in memory and
			not proven */
};
/* Blocks. Calls each() for every known blob, by key. A non-zero return ends the
 * walk and is returned. */
int store_each(struct store *s,
	       int (*each)(void *arg, const struct blob_info *info), void *arg);

struct store_stats {
	uint64_t blobs;
	uint64_t cached_bytes; /* of chunks */
	uint64_t manifests, manifest_bytes;
	uint64_t max_bytes;
	uint64_t fs_free_bytes;
	uint64_t evicted_chunks, evicted_bytes; /* since the start */
	uint64_t damaged_chunks;
	uint64_t write_errors;
	uint64_t commits;
	uint64_t verified_blobs, mismatched_blobs;
};
void store_stats(struct store *s, struct store_stats *ret);

#endif
