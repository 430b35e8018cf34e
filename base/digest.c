#define OPENSSL_SUPPRESS_DEPRECATED
#include "base/digest.h"

#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/cleanup.h"
#include "base/text.h"
#include "base/util.h"

#define PREFIX	   "sha256:"
#define PREFIX_LEN (sizeof(PREFIX) - 1)

int digest_parse_hex(const char *s, struct digest *ret)
{
	struct digest d;

	for (size_t i = 0; i < DIGEST_BYTES; i++) {
		int hi = hex_value_lower(s[2 * i]);
		int lo = hi < 0 ? -1 : hex_value_lower(s[2 * i + 1]);

		if (lo < 0)
			return -EINVAL;
		d.sha256[i] = (uint8_t)(hi << 4 | lo);
	}
	if (s[2 * DIGEST_BYTES] != '\0')
		return -EINVAL;
	*ret = d;
	return 0;
}

int digest_parse(const char *s, struct digest *ret)
{
	if (strncmp(s, PREFIX, PREFIX_LEN) != 0)
		return -EINVAL;
	return digest_parse_hex(s + PREFIX_LEN, ret);
}

char *digest_hex(const struct digest *d, char out[DIGEST_HEX_SIZE])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < DIGEST_BYTES; i++) {
		out[2 * i] = digits[d->sha256[i] >> 4];
		out[2 * i + 1] = digits[d->sha256[i] & 15];
	}
	out[2 * DIGEST_BYTES] = '\0';
	return out;
}

char *digest_str(const struct digest *d, char out[DIGEST_STR_SIZE])
{
	memcpy(out, PREFIX, PREFIX_LEN);
	(void)digest_hex(d, out + PREFIX_LEN);
	return out;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
	return memcmp(a->sha256, b->sha256, DIGEST_BYTES) == 0;
}

uint64_t digest_prefix(const struct digest *d)
{
	uint64_t v;

	memcpy(&v, d->sha256, sizeof(v));
	return be64toh(v);
}

/* Fetched once: EVP_sha256() would look up its implementation under a lock at
 * every start of a sum. */
static const EVP_MD *sha256_md;

static void fetch_md(void)
{
	sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
}

static const EVP_MD *get_md(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, fetch_md);
	return sha256_md;
}

/* As in sha256_update() and sha256_final(), OpenSSL can fail here only for lack
 * of memory. The process ends then, because an invalid sum would be worse. */
void digest_of(const void *data, size_t len, struct digest *ret)
{
	int r = EVP_Digest(data, len, ret->sha256, NULL, get_md(), NULL);

	BUG_ON(r != 1);
}

/* EVP hides the chaining value that sha256_state() gives; these functions are
 * deprecated, use the same code for the processor, and are part of OpenSSL 3.
 */
struct sha256 {
	SHA256_CTX ctx;
};

struct sha256 *sha256_new(void)
{
	struct sha256 *h = calloc(1, sizeof(*h));

	if (h)
		sha256_reset(h);
	return h;
}

void sha256_reset(struct sha256 *h)
{
	BUG_ON(SHA256_Init(&h->ctx) != 1);
}

void sha256_update(struct sha256 *h, const void *data, size_t len)
{
	BUG_ON(SHA256_Update(&h->ctx, data, len) != 1);
}

void sha256_final(struct sha256 *h, struct digest *ret)
{
	BUG_ON(SHA256_Final(ret->sha256, &h->ctx) != 1);
}

void sha256_state(const struct sha256 *h, uint8_t out[SHA256_STATE_BYTES])
{
	BUG_ON(h->ctx.num != 0);
	for (size_t i = 0; i < 8; i++)
		for (size_t k = 0; k < 4; k++)
			out[4 * i + k] = (uint8_t)(h->ctx.h[i] >> (24 - 8 * k));
}

void sha256_resume(struct sha256 *h, const uint8_t state[SHA256_STATE_BYTES],
		   uint64_t bytes)
{
	uint64_t bits = bytes * 8;

	BUG_ON(bytes % 64 != 0);
	sha256_reset(h);
	for (size_t i = 0; i < 8; i++) {
		h->ctx.h[i] = 0;
		for (size_t k = 0; k < 4; k++)
			h->ctx.h[i] = h->ctx.h[i] << 8 | state[4 * i + k];
	}
	h->ctx.Nl = (SHA_LONG)bits;
	h->ctx.Nh = (SHA_LONG)(bits >> 32);
}

void sha256_free(struct sha256 **h)
{
	free(*h);
	*h = NULL;
}

/* CRC32C.
 *
 * Values are polynomials over GF(2) modulo P, bit-reversed: bit 31 is x^0.
 * slice[k][b] is byte b followed by k zero bytes. Appending n zero bytes to a
 * sum multiplies it by x^(8n); shift[][] holds that product for n =
 * STREAM_BYTES, by byte of the sum. */
#define CRC32C_POLY  0x82f63b78u
#define STREAM_BYTES 1024

static uint32_t slice[8][256];
static uint32_t shift[4][256];

static uint32_t append_zero_byte(uint32_t crc)
{
	return crc >> 8 ^ slice[0][crc & 0xff];
}

static void make_tables(void)
{
	for (uint32_t b = 0; b < 256; b++) {
		uint32_t crc = b;

		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? CRC32C_POLY : 0);
		slice[0][b] = crc;
	}
	for (size_t k = 1; k < 8; k++)
		for (size_t b = 0; b < 256; b++)
			slice[k][b] = append_zero_byte(slice[k - 1][b]);

	/* The product is linear, so it is computed for one bit at a time. */
	for (size_t bit = 0; bit < 32; bit++) {
		uint32_t crc = 1u << bit;
		size_t step = (size_t)1 << (bit % 8);

		for (int i = 0; i < STREAM_BYTES; i++)
			crc = append_zero_byte(crc);
		for (size_t b = 0; b < 256; b++)
			if (b & step)
				shift[bit / 8][b] ^= crc;
	}
}

static void tables_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, make_tables);
}

static uint32_t update_table(uint32_t crc, const uint8_t *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t v;

		memcpy(&v, p, sizeof(v));
		v = le64toh(v) ^ crc;
		crc = slice[7][v & 0xff] ^ slice[6][v >> 8 & 0xff] ^
		      slice[5][v >> 16 & 0xff] ^ slice[4][v >> 24 & 0xff] ^
		      slice[3][v >> 32 & 0xff] ^ slice[2][v >> 40 & 0xff] ^
		      slice[1][v >> 48 & 0xff] ^ slice[0][v >> 56];
	}
	for (; len > 0; p++, len--)
		crc = crc >> 8 ^ slice[0][(crc ^ *p) & 0xff];
	return crc;
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t len)
{
	tables_init();
	return ~update_table(~crc, data, len);
}

#if defined(__x86_64__)
static uint32_t shift_stream(uint32_t crc)
{
	return shift[0][crc & 0xff] ^ shift[1][crc >> 8 & 0xff] ^
	       shift[2][crc >> 16 & 0xff] ^ shift[3][crc >> 24];
}

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* A crc32q takes three cycles, and one can start in each cycle. Hence this
 * computes three sums over adjacent ranges and combines them afterwards. */
__attribute__((target("sse4.2"))) static uint32_t update_sse42(uint32_t crc,
							       const uint8_t *p,
							       size_t len)
{
	uint64_t a = crc;

	for (; len >= (size_t)3 * STREAM_BYTES;
	     p += (size_t)3 * STREAM_BYTES, len -= (size_t)3 * STREAM_BYTES) {
		uint64_t b = 0, c = 0;

		for (size_t i = 0; i < STREAM_BYTES; i += 8) {
			a = _mm_crc32_u64(a, load64(p + i));
			b = _mm_crc32_u64(b, load64(p + STREAM_BYTES + i));
			c = _mm_crc32_u64(
				c, load64(p + (size_t)2 * STREAM_BYTES + i));
		}
		a = shift_stream((uint32_t)a) ^ b;
		a = shift_stream((uint32_t)a) ^ c;
	}
	for (; len >= 8; p += 8, len -= 8)
		a = _mm_crc32_u64(a, load64(p));
	for (; len > 0; p++, len--)
		a = _mm_crc32_u8((uint32_t)a, *p);
	return (uint32_t)a;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	tables_init();
#if defined(__x86_64__)
	if (__builtin_cpu_supports("sse4.2"))
		return ~update_sse42(~crc, data, len);
#endif
	return ~update_table(~crc, data, len);
}
