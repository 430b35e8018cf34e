/* Blobs on disk: which there are, which of their chunks are present, and
 * whether the bytes are right.
 *
 * A blob is an immutable run of bytes with a known size, cut into chunks of
 * CHUNK_SIZE; the last one may be short. <dir>/blobs/<kind>/<aa>/<hex> is one
 * sparse file per blob, at full size. <dir>/index/ is an LMDB environment; its
 * layout is in index.h. <dir>/lock is held by the one process that uses the
 * directory.
 *
 * The promise: after kill -9 or a power cut, a chunk that the index calls
 * present reads back right, or its CRC32C finds it out at the first read and
 * it counts as absent. Order of writing: pwrite, fdatasync (batched), index
 * commit. Order of eviction: index commit, then the hole. A chunk that was
 * committed is not fetched again unless it was evicted or damaged.
 *
 * A blob with a digest is provisional until its SHA-256 was checked, once all
 * chunks are there (the sum runs along the contiguous prefix while it grows).
 * It is then verified, or its chunks are dropped.
 *
 * Threads: every function may be called from any thread. Those marked
 * "blocks" touch the disk: never call them from the loop thread. The store has
 * three threads of its own: one commits and evicts, one (at low priority) sums,
 * and one sums what somebody waits for. No lock is held across I/O or a
 * callback. A callback on a store thread must not call what waits for a commit:
 * store_sync(), store_evict(), store_verify(), store_each(). */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/digest.h"
#include "base/manifest.h"
#include "base/options.h"
#include "base/util.h"

#define CHUNK_SHIFT 20
#define CHUNK_SIZE  (UINT64_C(1) << CHUNK_SHIFT)
/* 16 TiB: what a chunk number of 24 bits reaches. */
#define BLOB_MAX_SIZE (UINT64_C(1) << 44)

struct store;
struct blob;

enum blob_kind {
	BLOB_SHA256 = 1, /* id is the blob's digest */
	BLOB_URL = 2,	 /* id is the SHA-256 of a URL and its version; there
			    is no digest to verify the bytes against */
};

/* Whose word it is that a digest stands for so many bytes, and where those
 * bytes come from. Bytes and facts that are not checked belong to one claim:
 * a reader sees them only if its own name leads to that place. A digest may
 * have several claims, each a blob of its own, until one of them is verified;
 * that blob is then everybody's (see blob_proven()). */
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
/* Sets key->claim to that of the place which the origin (see blob_add_origin())
 * belongs to: a registry as a whole, or a single URL. */
void blob_key_claim(struct blob_key *key, const char *origin, uint64_t size);

enum blob_state {
	BLOB_PROVISIONAL, /* not yet, or not wholly, checked */
	BLOB_VERIFIED,	  /* all bytes were there and matched the digest, and
			     not all of them were evicted since */
	BLOB_BAD,	  /* did not match, again and again: reads give EIO
			     until it is evicted */
};

/* Where a chunk came from: 0 is upstream, others are peers (store_peer_id()).
 */
#define CHUNK_FROM_UPSTREAM 0

enum blob_event {
	BLOB_EV_VERIFIED,  /* the digest matched */
	BLOB_EV_MISMATCH,  /* it did not; chunks were dropped: those from peers,
			      or all of them when none was from a peer */
	BLOB_EV_DROPPED,   /* a chunk was found damaged on disk and dropped */
	BLOB_EV_COMMITTED, /* chunks became durable */
	BLOB_EV_EMPTIED,   /* the last of its chunks was evicted or dropped */
	BLOB_EVENTS
};

struct store_config {
	const char *dir;	     /* made if absent; copied */
	uint64_t max_bytes;	     /* of chunks; 0 = no limit */
	uint64_t min_free_bytes;     /* of the file system; evict below that */
	uint32_t commit_interval_ms; /* batch window; 0 = 50 */
	/* See "Blobs that somebody else keeps"; copied; NULL = none. */
	const char *external_dir;
	uint32_t external_grace_ms; /* 0 = 30 s */
	/* Called on a store thread with no lock held; b is referenced until
	 * the call returns. May be NULL. */
	void (*event)(void *arg, struct blob *b, enum blob_event ev);
	void *event_arg;
};

/* Blocks. Takes the lock (-EBUSY: *err names the holder's pid), checks the
 * index's format version (-EPROTO: unknown, nothing is touched), and its
 * integrity in a child process, since a damaged LMDB file can fault or abort
 * whoever reads it: a damaged index is moved aside with a warning in the log,
 * the blobs are removed, and the cache starts empty. Files without a record
 * are removed. -EROFS, -EACCES, -ENOSPC and so on come with *err too. On 0 the
 * caller owns *ret. Call it before the process has other threads. */
int store_open(const struct store_config *cfg, struct store **ret,
	       struct error *err);
/* Blocks: commits what is written, stops the threads, frees and NULLs. Blobs
 * must have been released. NULL allowed. */
void store_close(struct store **s);

/* ---- Blobs ---- */

/* Blocks (a short index read) unless the blob is in memory already. The blob of
 * that digest that is proven, whosever claim it began as; else the blob of
 * key's claim. With a claim of any size: the one with most of its bytes here.
 * Without a claim: only a proven or an external one. -ENOENT: there is none. On
 * 0 the caller owns a reference. */
int store_get(struct store *s, const struct blob_key *key, struct blob **ret);
/* Blocks. The same, and the blob of key's claim with that size is made if there
 * is none. -ESTALE: a URL's blob has another size; -EFBIG above BLOB_MAX_SIZE;
 * -EBADMSG: no bytes, but the digest is not that of no bytes. */
int store_create(struct store *s, const struct blob_key *key, uint64_t size,
		 struct blob **ret);
/* Blocks. Exactly that blob. -ENOENT. */
int store_get_claim(struct store *s, const struct blob_key *key,
		    struct blob **ret);
/* Blocks. The keys of all blobs of that digest, each once. *ret is the caller's
 * to free(). */
int store_claims_of(struct store *s, const struct digest *d,
		    struct blob_key **ret, size_t *ret_n);
/* Does not block: -EAGAIN when the blob is not in memory; use store_get(). */
int store_peek(struct store *s, const struct blob_key *key, struct blob **ret);
struct blob *blob_ref(struct blob *b);
/* NULLs. A blob without references may stay in memory for a while. */
void blob_unref(struct blob **b);

const struct blob_key *blob_key(const struct blob *b);
uint64_t blob_size(const struct blob *b);
uint32_t blob_chunks(const struct blob *b);
/* Length of one chunk: CHUNK_SIZE, or less for the last one. */
uint32_t blob_chunk_len(const struct blob *b, uint32_t chunk);
enum blob_state blob_get_state(const struct blob *b);
/* The blob was verified as a whole since it came into memory, or before with
 * chunks left: what each of its chunks must be is known (see sha256_state()).
 * Chunks that were dropped since are checked one by one as they come back,
 * whoever brings them, and are shown to nobody before. External blobs do not
 * count. */
bool blob_proven(const struct blob *b);
/* Proven or external: its bytes may be shown to every reader. */
bool blob_shared(const struct blob *b);
uint64_t blob_cached_bytes(const struct blob *b);
uint32_t blob_missing(const struct blob *b); /* chunks that are not present */
bool blob_has(const struct blob *b, uint32_t chunk);
/* The first chunk at or after `from` that is absent; blob_chunks() if none. */
uint32_t blob_next_missing(const struct blob *b, uint32_t from);
/* Who brought a chunk, also one that a BLOB_EV_MISMATCH has just dropped.
 * CHUNK_FROM_UPSTREAM once the blob was verified. */
uint16_t blob_chunk_from(const struct blob *b, uint32_t chunk);
/* Likewise its CRC32C. */
uint32_t blob_chunk_crc(const struct blob *b, uint32_t chunk);
/* Copies the presence bitmap, bit 0 of byte 0 = chunk 0. */
void blob_bitmap(const struct blob *b, uint8_t *out, size_t out_bytes);

/* A slot for the fetch layer: an object it attached to the blob, NULL at
 * first. Loop thread only. The store never looks into it; it keeps a blob in
 * memory as long as somebody holds a reference, and so must whoever sets it. */
void blob_set_user(struct blob *b, void *user);
void *blob_user(const struct blob *b);

/* Names a place to fetch b from: "registry://HOST/NAME" or a URL without
 * secrets. Kept in the index, newest first, at most 16; a known one moves to
 * the front. Does not block (written with the next commit). -EINVAL above
 * 1 KiB. */
int blob_add_origin(struct store *s, struct blob *b, const char *origin);
/* Moves an origin to the end; NULL: the first one. Does not block. */
void blob_origin_last(struct store *s, struct blob *b, const char *origin);
/* Appends copies, newest first. -ENOMEM. */
int blob_origins(struct blob *b, struct string_list *ret);

/* ---- Chunks ---- */

/* Blocks on disk. Reads exactly len bytes at off, which must lie within the
 * blob. Checks each chunk's CRC32C the first time it is touched after a start.
 * -ENODATA: a chunk is absent (or was found damaged, and dropped): fetch, then
 * try again. -EAGAIN: see blob_gated(). -EIO: the blob is bad, or the disk is.
 * Safe against eviction at the same time. */
int store_read(struct store *s, struct blob *b, uint64_t off, void *buf,
	       size_t len);

/* A provisional blob with a digest is gated, so that store_read() gives
 * -EAGAIN, when all its chunks are there but were not yet checked (unless more
 * than STORE_GATE_MAX bytes are still to be summed), and from a mismatch until
 * it is verified or evicted. blob_on_verified() tells when to try again. */
#define STORE_GATE_MAX (UINT64_C(64) << 20)
bool blob_gated(const struct blob *b);
/* The gate is closed for a mismatch. */
bool blob_failed(const struct blob *b);

/* For sendfile(2): makes sure that [off, off+len) is present and checked, and
 * gives the file's descriptor, which lives until store_range_done(), and no
 * longer than the reference to b. *ret_gen tells store_gen_ok() whether the
 * range was evicted since: data that left between the two calls may be holes
 * and must not count as sent. */
int store_range_fd(struct store *s, struct blob *b, uint64_t off, uint64_t len,
		   int *ret_fd, uint64_t *ret_gen);
bool store_gen_ok(struct blob *b, uint64_t gen);
/* Once for each descriptor that was got. Descriptors are few. */
void store_range_done(struct blob *b);
/* The same without blocking: -EBUSY when the file is not open yet or a chunk
 * not checked; use store_range_fd() on a worker then. */
int store_range_fd_now(struct store *s, struct blob *b, uint64_t off,
		       uint64_t len, int *ret_fd, uint64_t *ret_gen);
/* Both for those who check the whole themselves, as peers do: only the gate of
 * a mismatch holds them. now: without blocking. */
int store_range_fd_unchecked(struct store *s, struct blob *b, uint64_t off,
			     uint64_t len, bool now, int *ret_fd,
			     uint64_t *ret_gen);

/* Blocks on disk. Writes a whole chunk (len = blob_chunk_len()) and marks it
 * present; it becomes durable with the next commit. -EBADMSG: the blob is
 * proven, and these are not the chunk's bytes. With any other result they are.
 * -EEXIST: it was present already, nothing is done. -ENOSPC, -EDQUOT, -EROFS,
 * -EIO: not kept (the store logs the first of a series); eviction is tried once
 * before. When this chunk completes the blob, verification starts by itself;
 * see blob_wait_verified(). */
int store_write(struct store *s, struct blob *b, uint32_t chunk,
		const void *data, size_t len, uint16_t from);

/* Calls done(arg, r) once the check that store_write() of the last chunk
 * started has ended: 0 verified (or nothing to verify: BLOB_URL), -EBADMSG
 * mismatch, -ENODATA chunks are missing, -ECANCELED the store closes. On a
 * store thread, or from inside this call when the answer is known. */
void blob_on_verified(struct store *s, struct blob *b,
		      void (*done)(void *arg, int r), void *arg);
/* Bytes that the sum still has to run over before b can be verified. */
uint64_t blob_unsummed_bytes(const struct blob *b);

/* Blocks. Sums all present bytes anew, whatever the state: 0 verified,
 * -EBADMSG (chunks are dropped as for a mismatch), -ENODATA incomplete: each
 * present chunk was checked against its CRC32C instead. */
int store_verify(struct store *s, struct blob *b);

/* Blocks. Drops every chunk; the record and its origins stay. Resets
 * BLOB_BAD. */
int store_evict(struct store *s, struct blob *b);
/* Marks the blob BLOB_BAD, kept in the index. */
void blob_set_bad(struct store *s, struct blob *b);
/* How long it has been BLOB_BAD; a mark from before the start is old. */
uint64_t blob_bad_ms(const struct blob *b);
/* Blocks until everything written so far is durable. */
int store_sync(struct store *s);

/* ---- Blobs that somebody else keeps ----
 *
 * Files of external_dir that are named by their SHA-256 in hex (containerd's
 * content store) are read in place, and not kept twice. A blob for which there
 * is such a file of its size is external: all its chunks count as present and
 * verified, reads and descriptors come from that file, store_write() gives
 * -EEXIST. The directory is looked at when a blob comes into memory, and when
 * store_external_changed() says so. A blob that only the directory knows is
 * made by store_get(), as store_create() would.
 *
 * Who was sending from our own file or from theirs when the other took over
 * has external_grace_ms to end; then our chunks are dropped, or their file is
 * let go and store_gen_ok() is false. When theirs is gone, the blob is what
 * our own chunks make it.
 *
 * They who keep the files have checked them; we look that it is a regular file
 * of the right size. One that is found cut short, or that store_verify() finds
 * wrong, is used no more before it was gone. */

/* Blocks. A file came or went. 1: there is one; it is in use if the blob is in
 * memory, and our own chunks go. 0: there is none. -ESTALE: there is one that
 * is not used. Others are those of open(2); the file is not used then. */
int store_external_changed(struct store *s, const struct digest *d);
bool blob_external(const struct blob *b);

/* ---- Peers as origins of chunks ---- */

/* A small number for a peer's name, stable across restarts. 1..65534; the same
 * number for all once those are used up. */
uint16_t store_peer_id(struct store *s, const char *peer);
/* Copies the name; -ENOENT. */
int store_peer_name(struct store *s, uint16_t id, char *out, size_t out_size);

/* ---- Manifests, tags, URL versions: small records, all block ---- */

/* bytes must hash to d (checked: -EBADMSG). At most MANIFEST_MAX_BYTES. */
int store_manifest_put(struct store *s, const struct digest *d,
		       const char *media_type, const void *bytes, size_t len);
/* *ret_bytes and *ret_type are the caller's to free(). -ENOENT. One that is
 * not known is looked for in external_dir; its type is what it says itself, ""
 * if nothing. */
int store_manifest_get(struct store *s, const struct digest *d, char **ret_type,
		       void **ret_bytes, size_t *ret_len);

/* repo is "HOST/NAME". seen_s: when upstream said so, seconds since 1970. */
int store_tag_put(struct store *s, const char *repo, const char *tag,
		  const struct digest *d, uint64_t seen_s);
int store_tag_get(struct store *s, const char *repo, const char *tag,
		  struct digest *ret, uint64_t *ret_seen_s);
int store_tag_del(struct store *s, const char *repo, const char *tag);
/* Appends the tags known of a repository. */
int store_tag_list(struct store *s, const char *repo, struct string_list *ret);

/* Remembers that the repository has this manifest, resp. this blob of that
 * size (from a manifest's descriptor). */
int store_repo_add(struct store *s, const char *repo, bool manifest,
		   const struct digest *d, uint64_t size);
int store_repo_del(struct store *s, const char *repo, bool manifest,
		   const struct digest *d);
/* -ENOENT when the repository was not seen to have it. */
int store_repo_has(struct store *s, const char *repo, bool manifest,
		   const struct digest *d, uint64_t *ret_size);
/* Calls each(arg, d, size) for all of them; a non-zero return ends it and is
 * returned. */
int store_repo_each(struct store *s, const char *repo, bool manifest,
		    int (*each)(void *arg, const struct digest *d,
				uint64_t size),
		    void *arg);
/* Appends the known "HOST/NAME" that begin with prefix, in order. */
int store_repo_list(struct store *s, const char *prefix,
		    struct string_list *ret);

/* A general small record: key at most 480 bytes (e.g. "url\0…"), value at
 * most 64 KiB. */
int store_kv_put(struct store *s, const void *key, size_t key_len,
		 const void *val, size_t val_len);
int store_kv_get(struct store *s, const void *key, size_t key_len,
		 struct buf *ret);
int store_kv_del(struct store *s, const void *key, size_t key_len);
/* Appends the keys with that prefix, as strings. */
int store_kv_list(struct store *s, const char *prefix, struct string_list *ret);

/* ---- Looking at the whole ---- */

struct blob_info {
	struct blob_key key;
	uint64_t size;
	uint64_t cached_bytes;
	uint64_t last_use_s; /* since 1970 */
	enum blob_state state;
	bool shared; /* see blob_shared(); false while it is not in memory and
			not proven */
};
/* Blocks. Each known blob, by key. A non-zero return ends it. */
int store_each(struct store *s,
	       int (*each)(void *arg, const struct blob_info *info), void *arg);

struct store_stats {
	uint64_t blobs;
	uint64_t cached_bytes;
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
