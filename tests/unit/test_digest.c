#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/digest.h"
#include "base/util.h"
#include "tests/unit/tap.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define MILLION_A                                                              \
	"cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"

static void test_parse_and_print(void)
{
	char hex[DIGEST_HEX_SIZE], str[DIGEST_STR_SIZE];
	struct digest d, e;

	EQ(digest_parse("sha256:" ABC, &d), 0);
	EQ(d.sha256[0], 0xba);
	EQ(d.sha256[31], 0xad);
	STREQ(digest_hex(&d, hex), ABC);
	STREQ(digest_str(&d, str), "sha256:" ABC);
	EQ(digest_parse_hex(ABC, &e), 0);
	OK(digest_equal(&d, &e));
	e.sha256[31] ^= 1;
	OK(!digest_equal(&d, &e));
	OK(digest_prefix(&d) == 0xba7816bf8f01cfeaULL);
}

static void test_parse_refuses(void)
{
	static const char *const bad[] = {
		"",
		"sha256",
		"sha256:",
		ABC,
		"SHA256:" ABC,
		"sha512:" ABC,
		"sha256:" ABC "0",
		"sha256:" ABC "\n",
		" sha256:" ABC,
		"sha256: " ABC,
		"sha256:0x7816bf8f01cfea414140de5dae2223"
		"b00361a396177a9cb410ff61f20015ad",
		"sha256:BA7816bf8f01cfea414140de5dae2223"
		"b00361a396177a9cb410ff61f20015ad",
		"sha256:ba7816bf8f01cfea414140de5dae2223"
		"b00361a396177a9cb410ff61f20015a",
		"sha256:ba7816bf8f01cfea414140de5dae2223"
		"b00361a396177a9cb410ff61f20015ag",
	};
	struct digest d;

	memset(&d, 0x5a, sizeof(d));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (digest_parse(bad[i], &d) != -EINVAL) {
			printf("# accepted: %s\n", bad[i]);
			OK(false);
		}
	EQ(digest_parse_hex("sha256:" ABC, &d), -EINVAL);
	EQ(digest_parse_hex("", &d), -EINVAL);
	EQ(d.sha256[0], 0x5a); /* untouched */
}

static void test_digest_of(void)
{
	char hex[DIGEST_HEX_SIZE];
	struct digest d;

	digest_of("", 0, &d);
	STREQ(digest_hex(&d, hex), EMPTY);
	digest_of(NULL, 0, &d);
	STREQ(digest_hex(&d, hex), EMPTY);
	digest_of("abc", 3, &d);
	STREQ(digest_hex(&d, hex), ABC);
}

static void test_stream(void)
{
	CLEANUP(sha256_free) struct sha256 *h = sha256_new();
	char hex[DIGEST_HEX_SIZE], block[1000];
	struct digest d;

	if (!h)
		BAIL("sha256_new");
	memset(block, 'a', sizeof(block));
	for (int i = 0; i < 1000; i++)
		sha256_update(h, block, sizeof(block));
	sha256_update(h, NULL, 0);
	sha256_final(h, &d);
	STREQ(digest_hex(&d, hex), MILLION_A);

	/* Again after the end, and again from the middle. */
	sha256_reset(h);
	sha256_update(h, "xyz", 3);
	sha256_reset(h);
	sha256_update(h, "a", 1);
	sha256_update(h, "bc", 2);
	sha256_final(h, &d);
	STREQ(digest_hex(&d, hex), ABC);
	sha256_free(&h);
	OK(h == NULL);
	sha256_free(&h);
}

static void fill(uint8_t *p, size_t len)
{
	uint32_t x = 12345;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525 + 1013904223;
		p[i] = (uint8_t)(x >> 24);
	}
}

/* RFC 3720, B.4, and the check value of the catalogue of CRCs. */
static void test_crc_vectors(void)
{
	uint8_t b[32];

	OK(crc32c(0, "123456789", 9) == 0xe3069283);
	OK(crc32c_portable(0, "123456789", 9) == 0xe3069283);
	OK(crc32c(0, "", 0) == 0);
	memset(b, 0, sizeof(b));
	OK(crc32c(0, b, sizeof(b)) == 0x8a9136aa);
	memset(b, 0xff, sizeof(b));
	OK(crc32c(0, b, sizeof(b)) == 0x62a8ab43);
	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)i;
	OK(crc32c(0, b, sizeof(b)) == 0x46dd794e);
	OK(crc32c_portable(0, b, sizeof(b)) == 0x46dd794e);
}

static uint32_t crc_by_bit(uint32_t crc, const uint8_t *p, size_t len)
{
	crc = ~crc;
	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

/* Compares both implementations with the definition, for every length around
 * the block borders and at every alignment. */
static void test_crc_lengths(void)
{
	static const size_t around[] = {0, 8, 1024, 3072, 6144, 9216, 20000};
	enum { SIZE = 20100 };
	CLEANUP(freep) uint8_t *p = malloc(SIZE);
	int wrong = 0;

	if (!p)
		BAIL("malloc");
	fill(p, SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(around); i++)
		for (size_t k = 0; k < 17; k++) {
			size_t len = around[i] + k, off = k % 9;
			uint32_t want = crc_by_bit(7, p + off, len);

			len = around[i] + k;
			wrong += crc32c(7, p + off, len) != want;
			wrong += crc32c_portable(7, p + off, len) != want;
		}
	EQ(wrong, 0);
}

static void test_crc_in_parts(void)
{
	enum { SIZE = 10000 };
	CLEANUP(freep) uint8_t *p = malloc(SIZE);
	uint32_t whole;
	int wrong = 0;

	if (!p)
		BAIL("malloc");
	fill(p, SIZE);
	whole = crc32c(0, p, SIZE);
	for (size_t cut = 0; cut <= SIZE; cut += 97)
		wrong +=
			crc32c(crc32c(0, p, cut), p + cut, SIZE - cut) != whole;
	EQ(wrong, 0);
	p[5000] ^= 0x10;
	OK(crc32c(0, p, SIZE) != whole);
}

static void *sum_many(void *arg)
{
	(void)arg;
	for (int i = 0; i < 1000; i++) {
		char hex[DIGEST_HEX_SIZE];
		struct digest d;

		digest_of("abc", 3, &d);
		if (strcmp(digest_hex(&d, hex), ABC) != 0 ||
		    crc32c(0, "123456789", 9) != 0xe3069283)
			return (void *)1;
	}
	return NULL;
}

static void test_threads(void)
{
	pthread_t t[4];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		if (pthread_create(&t[i], NULL, sum_many, NULL) != 0)
			BAIL("pthread_create");
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		void *r;

		(void)pthread_join(t[i], &r);
		OK(r == NULL);
	}
}

/* Not a test: BENCH=1 prints the speed. */
static void bench(void)
{
	enum { SIZE = 1 << 20, ROUNDS = 4000 };
	CLEANUP(freep) uint8_t *p = malloc(SIZE);
	uint32_t (*const sums[])(uint32_t, const void *,
				 size_t) = {crc32c, crc32c_portable};

	if (!p)
		BAIL("malloc");
	fill(p, SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(sums); i++) {
		uint64_t start = now_ms(), ms;
		uint32_t crc = 0;

		for (int k = 0; k < ROUNDS; k++)
			crc = sums[i](crc, p, SIZE);
		ms = now_ms() - start;
		printf("# %s: %.2f GB/s (%08x)\n",
		       i == 0 ? "crc32c" : "crc32c_portable",
		       (double)SIZE * ROUNDS / 1e6 / (double)(ms ? ms : 1),
		       crc);
	}
}

int main(void)
{
	/* Runs first, so that the threads race for the set-up of tables and
	 * OpenSSL. */
	RUN(test_threads);
	RUN(test_parse_and_print);
	RUN(test_parse_refuses);
	RUN(test_digest_of);
	RUN(test_stream);
	RUN(test_crc_vectors);
	RUN(test_crc_lengths);
	RUN(test_crc_in_parts);
	if (getenv("BENCH"))
		bench();
	return tap_done();
}
