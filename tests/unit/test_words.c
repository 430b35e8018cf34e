#include "p2p/words.h"

#include <errno.h>

#include "tests/unit/tap.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_blob(void)
{
	static const char *const bad[] = {
		"",
		";size=1",
		"sha256:" HEX,
		"sha256:" HEX ";size=",
		"sha256:" HEX ";size=-1",
		"sha256:" HEX ";size= 1",
		"sha256:" HEX ";size=1x",
		"sha256:" HEX "0;size=1",
		"sha256:0"
		";size=1",
		"sha512:" HEX ";size=1",
		/* Holders know tags, requests for blobs do not. */
		"tag:" HEX ";size=1",
		"sha256:" HEX ";size=99999999999999999999",
		"sha256:" HEX ";size=18446744073709551615",
		"SHA256:" HEX ";size=1",
	};
	static const char *const good[] = {
		"sha256:" HEX ";size=0",
		"url:" HEX ";size=1099511627776",
	};
	char text[BLOB_TEXT_SIZE];
	struct blob_key key, other;
	uint64_t size;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		EQ(blob_text_parse(bad[i], &key, &size), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		EQ(blob_text_parse(good[i], &key, &size), 0);
		EQ(key.kind, i ? BLOB_URL : BLOB_SHA256);
		STREQ(blob_text(&key, size, text), good[i]);
		OK(i == 0 || !blob_key_equal(&key, &other));
		other = key;
		OK(blob_key_equal(&key, &other));
	}
	key.kind = BLOB_URL;
	STREQ(blob_text(&key, UINT64_MAX, text),
	      "url:" HEX ";size=18446744073709551615");
}

static void test_have(void)
{
	static const char *const bad[] = {
		"",	"al",	"All",	  "0",
		"0:1",	"x:00", "-1:0",	  "0:0G",
		"0:0A", ":00",	"100:00", "99999999999999999999:00"};
	struct have_bits h;
	char longest[HAVE_MAX_CHUNKS / 4 + 8];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EQ(have_text_parse(bad[i], 100, &h), -EINVAL);
		OK(!h.bits);
	}
	EQ(have_text_parse("all", 100, &h), 0);
	OK(h.all && !h.bits && h.n == 0);
	EQ(have_text_parse("8:81ff", 100, &h), 0);
	OK(!h.all && h.first == 8 && h.n == 16);
	OK(h.bits[0] == 0x81 && h.bits[1] == 0xff);
	free(h.bits);
	EQ(have_text_parse("0:", 100, &h), 0);
	EQ(h.n, 0);
	free(h.bits);
	memset(longest, '0', sizeof(longest));
	memcpy(longest, "0:", 2);
	longest[2 + HAVE_MAX_CHUNKS / 4] = '\0';
	EQ(have_text_parse(longest, 100, &h), 0);
	EQ(h.n, HAVE_MAX_CHUNKS);
	free(h.bits);
	memset(longest, '0', sizeof(longest));
	memcpy(longest, "0:", 2);
	longest[4 + HAVE_MAX_CHUNKS / 4] = '\0';
	EQ(have_text_parse(longest, 100, &h), -EINVAL);
}

static void test_load(void)
{
	uint32_t n = 7;

	EQ(load_text_parse("12", &n), 0);
	EQ(n, 12);
	EQ(load_text_parse("", &n), -EINVAL);
	EQ(load_text_parse("-1", &n), -EINVAL);
	EQ(load_text_parse("65536", &n), -EINVAL);
	EQ(load_text_parse("1 ", &n), -EINVAL);
	EQ(n, 12);
}

static char said[256];

static void note_id(void *arg, const char *id)
{
	(void)arg;
	(void)snprintf(said + strlen(said), sizeof(said) - strlen(said), "[%s]",
		       id);
}

static void test_slow(void)
{
	static const char *const bad[] = {
		"", ",", "a,", ",a", "a,,b", "a,b,c,d,e", HEX "," HEX HEX};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EQ(slow_text_parse(bad[i], note_id, NULL), -EINVAL);
		STREQ(said, "");
	}
	EQ(slow_text_parse("a,bc,d,e", note_id, NULL), 0);
	STREQ(said, "[a][bc][d][e]");
}

int main(void)
{
	RUN(test_blob);
	RUN(test_have);
	RUN(test_load);
	RUN(test_slow);
	return tap_done();
}
