/* SHA-256 names, SHA-256 of a stream, and CRC32C of a chunk.
 *
 * Sources: OCI image specification, "Digests"; FIPS 180-4; RFC 3720, B.4 for
 * CRC32C (polynomial 0x1EDC6F41, as SSE4.2 and ARMv8 compute it). No other file
 * on floor 1 uses OpenSSL. Any thread; one thread at a time may use a struct
 * sha256. */
#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_BYTES	32
#define DIGEST_HEX_SIZE 65 /* 64 digits and the NUL */
#define DIGEST_STR_SIZE 72 /* "sha256:", 64 digits and the NUL */

struct digest {
	uint8_t sha256[DIGEST_BYTES];
};

/* Parses "sha256:" and 64 lower-case hex digits, with nothing after them.
 * -EINVAL for anything else, other algorithms included. */
int digest_parse(const char *s, struct digest *ret);
/* As digest_parse(), without the "sha256:". */
int digest_parse_hex(const char *s, struct digest *ret);
/* Write the digest with or without "sha256:". Both return out. */
char *digest_hex(const struct digest *d, char out[DIGEST_HEX_SIZE]);
char *digest_str(const struct digest *d, char out[DIGEST_STR_SIZE]);

bool digest_equal(const struct digest *a, const struct digest *b);
/* The first eight bytes, big endian, for hash tables and inode numbers. A
 * digest is uniformly distributed, so they need no further hashing. */
uint64_t digest_prefix(const struct digest *d);
void digest_of(const void *data, size_t len, struct digest *ret);

struct sha256;
/* NULL when memory is short. */
struct sha256 *sha256_new(void);
void sha256_reset(struct sha256 *h);
void sha256_update(struct sha256 *h, const void *data, size_t len);
/* Ends the sum. Call sha256_reset() before the next use. */
void sha256_final(struct sha256 *h, struct digest *ret);
/* Frees *h and makes it NULL. *h may be NULL. */
void sha256_free(struct sha256 **h);

/* Returns the CRC32C of the data. crc is 0 at first, then the result for the
 * preceding bytes. Uses SSE4.2 if the processor has it (three interleaved
 * streams, about 10 GB/s), else a table; both give the same result. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);
/* Uses the table only: for other processors, and for tests. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len);

#endif
