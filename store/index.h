/* clang-format off */
/* The index: what the store knows about its files, in LMDB. Only index.c
 * includes <lmdb.h>.
 *
 * <cache>/index/ is the environment (data.mdb, lock.mdb), mode 0700/0600.
 * Numbers are little-endian unless the table says otherwise. Its databases:
 *
 *   database   key                              value
 *   meta       "format"                         "1"
 *   blobs      BKEY                             size u64, last use u64 (seconds
 *                                               since 1970), bytes of present
 *                                               chunks u64, state u32
 *   chunks     BKEY, segment u32 big-endian     bitmap[32], crc32c u32[n],
 *                                               from u16[n]; of a verified blob
 *                                               SHA-256 state[32][n] too
 *   origins    BKEY                             NUL-terminated strings, newest
 *                                               first
 *   manifests  digest[32]                       media type, NUL, bytes
 *   uses       digest[32] of a manifest         as in blobs; bytes of the
 *                                               record in manifests
 *   tags       repository, NUL, tag             digest[32], seen u64
 *   repos      repository, NUL                  noted u64
 *              repository, NUL, 'm' or 'b',
 *              digest[32]                       noted u64, size u64
 *   kv         any                              noted u64, any
 *   peers      number u16 big-endian            name
 *
 * BKEY is 57 bytes: kind u8, id[32], claim: place[16], size u64. A segment stands for INDEX_SEG chunks; n
 * is how many of them the blob has. Seen, noted: in seconds since 1970. Every value is followed by the CRC32C (u32)
 * of key and value; a record with a wrong checksum counts as absent, and the
 * first such record is logged.
 *
 * Any thread. Writes are durable on return and serialised by LMDB. */
/* clang-format on */
#ifndef STORE_INDEX_H
#define STORE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/util.h"

#define INDEX_FORMAT "2"
/* Of a URL's blob, and the part of all keys of one digest. */
#define INDEX_BKEY_ID	   33
#define INDEX_BKEY	   57
#define INDEX_KEY_MAX	   500 /* LMDB's own limit is 511 */
#define INDEX_SEG_SHIFT	   8
#define INDEX_SEG	   256 /* chunks in a segment */
#define INDEX_SEG_BYTES(n) (32 + 6 * (size_t)(n))
/* With the states of the sum. */
#define INDEX_SEG_FULL(n) (INDEX_SEG_BYTES(n) + 32 * (size_t)(n))

struct index;

enum index_db {
	INDEX_META,
	INDEX_BLOBS,
	INDEX_CHUNKS,
	INDEX_ORIGINS,
	INDEX_MANIFESTS,
	INDEX_USES,
	INDEX_TAGS,
	INDEX_REPOS,
	INDEX_KV,
	INDEX_PEERS,
	INDEX_DBS,
};

struct index_blob {
	uint64_t size;
	uint64_t last_use_s;
	uint64_t cached_bytes;
	uint32_t state;
};

/* Checks <dir>/data.mdb in a child process, since a damaged file can make its
 * reader fault or abort. Changes nothing. 0: sound, or no file. -EPROTO:
 * another format. -EBADMSG: damaged. Others: the check could not run. */
int index_check(const char *dir);

/* The address space of a new environment, in bytes; it grows. */
extern size_t index_map_bytes;

/* Opens the index; makes dir and the databases if necessary. Call index_check()
 * first. Replaces the lock file: the caller makes sure that no other process
 * uses dir. Writes a smaller data.mdb when more than half of it is free: LMDB
 * uses free pages again, but never gives them back. */
int index_open(const char *dir, struct index **ret, struct error *err);
void index_close(struct index **ix);

/* Appends the value. -ENOENT: absent, or its checksum is wrong. */
int index_get(struct index *ix, enum index_db db, const void *key,
	      size_t key_len, struct buf *ret);
/* The same for a blob's record, without a copy on the heap. */
int index_get_blob(struct index *ix, const uint8_t bkey[INDEX_BKEY],
		   struct index_blob *ret);

/* Number of records in a database; 0 if it cannot be read. */
uint64_t index_count(struct index *ix, enum index_db db);

/* Calls each() for all records whose key begins with prefix, in order; skips
 * those with a wrong checksum. key and val live until each() returns, and
 * each() must not write to the index. A non-zero return ends the walk and is
 * returned. */
typedef int index_each_fn(void *arg, const uint8_t *key, size_t key_len,
			  const uint8_t *val, size_t val_len);
int index_each(struct index *ix, enum index_db db, const void *prefix,
	       size_t prefix_len, index_each_fn *each, void *arg);
/* The same from the key `from` on. each() may return INDEX_SEEK to go on at the
 * key in *next (at most INDEX_KEY_MAX bytes). */
#define INDEX_SEEK 0x5eec

struct index_cursor {
	uint8_t next[INDEX_KEY_MAX + 1];
	size_t next_len;
};
typedef int index_walk_fn(void *arg, const uint8_t *key, size_t key_len,
			  struct index_cursor *next);
int index_walk(struct index *ix, enum index_db db, const void *from,
	       size_t from_len, index_walk_fn *each, void *arg);

bool index_decode_blob(const uint8_t *val, size_t len, struct index_blob *ret);

/* Changes that are written together or not at all. An error while adding
 * sticks: index_write() returns it. */
struct index_op;
struct index_batch {
	struct index_op *ops;
	size_t n, cap;
	struct buf data;
	int error;
};

void index_batch_init(struct index_batch *b);
void index_batch_release(struct index_batch *b);
void index_put(struct index_batch *b, enum index_db db, const void *key,
	       size_t key_len, const void *val, size_t val_len);
void index_put_blob(struct index_batch *b, const uint8_t bkey[INDEX_BKEY],
		    const struct index_blob *rec);
void index_del(struct index_batch *b, enum index_db db, const void *key,
	       size_t key_len);
/* Deletes every key with this prefix. */
void index_del_prefix(struct index_batch *b, enum index_db db,
		      const void *prefix, size_t prefix_len);
/* For INDEX_USES; rec as for a blob. */
void index_put_use(struct index_batch *b, const void *key, size_t key_len,
		   const struct index_blob *rec);
/* Raises the last use of a record in INDEX_BLOBS or INDEX_USES if there is
 * one. */
void index_touch(struct index_batch *b, enum index_db db, const void *key,
		 size_t key_len, uint64_t last_use_s);

/* Blocks. 0: all changes are durable. -ENOSPC and so on: none is written. */
int index_write(struct index *ix, const struct index_batch *b);

/* Little-endian numbers. */
static inline void put_le(uint8_t *p, uint64_t v, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t get_le(const uint8_t *p, unsigned int bytes)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

#endif
