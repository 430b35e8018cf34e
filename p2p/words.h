/* The headers that members send with requests for blobs and with the answers.
 * Pure. Text from a member is untrusted input.
 *
 *   Peerd-Blob: sha256:<hex>;size=<bytes>    or url:<hex>;size=…
 *   Peerd-Have: all, or <first chunk>:<hex>  one bit per chunk from there on,
 *                                            low bits first
 *   Peerd-Load: <n>                          requests that the sender serves
 *   Peerd-Slow: <id>[,<id>]…                 members the sender finds slow,
 *                                            or that seem slow to it
 *
 * The parsers return 0, or -EINVAL for malformed text. */
#ifndef P2P_WORDS_H
#define P2P_WORDS_H

#include "p2p/holders.h"
#include "p2p/members.h"
#include "store/store.h"

/* Chunks in one Peerd-Have. */
#define HAVE_MAX_CHUNKS 8192
/* "65536:", two digits a byte, NUL. */
#define HAVE_TEXT_SIZE (16 + HAVE_MAX_CHUNKS / 4)
/* A key, ";size=", 20 digits, NUL. */
#define BLOB_TEXT_SIZE (DIGEST_STR_SIZE + 27)

struct holder_key holder_key_of(const struct blob_key *key);
bool blob_key_equal(const struct blob_key *a, const struct blob_key *b);

/* Returns out. */
char *blob_text(const struct blob_key *key, uint64_t size,
		char out[BLOB_TEXT_SIZE]);
/* *ret_size is at most BLOB_MAX_SIZE. */
int blob_text_parse(const char *s, struct blob_key *ret_key,
		    uint64_t *ret_size);

struct have_bits {
	bool all;	   /* if true, the other fields are 0 */
	uint32_t first, n; /* the range of chunks that bits covers */
	uint8_t *bits;	   /* owned; free() it */
};

/* For a blob of nchunks chunks; first is below nchunks, first + n may exceed
 * it. Also -ENOMEM. */
int have_text_parse(const char *s, uint32_t nchunks, struct have_bits *ret);
/* Writes the have-map of this node for b, around chunk if not all chunks fit.
 * Returns out. */
char *have_text(const struct blob *b, uint32_t chunk, char out[HAVE_TEXT_SIZE]);

int load_text_parse(const char *s, uint32_t *ret);

/* Ids in one Peerd-Slow. */
#define SLOW_MAX_IDS   4
#define SLOW_TEXT_SIZE (SLOW_MAX_IDS * MEMBER_ID_MAX)

/* Calls id() for each id; for none if the text is malformed. */
int slow_text_parse(const char *s, void (*id)(void *arg, const char *id),
		    void *arg);

#endif
