#include "http/range.h"

#include <errno.h>

#include "base/util.h"
#include "tests/unit/tap.h"

#define U64_MAX_STR "18446744073709551615"

/* Parses and writes the ranges out as "off+len,…", or the error's number. */
static const char *ranges(const char *value, uint64_t size)
{
	static char text[4096];
	struct byte_range r[RANGE_MAX];
	int n = range_parse(value, size, r);
	size_t len = 0;

	if (n < 0)
		return n == -ERANGE   ? "ERANGE"
		       : n == -EINVAL ? "EINVAL"
		       : n == -E2BIG  ? "E2BIG"
				      : "?";
	text[0] = '\0';
	for (int i = 0; i < n; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
					"%s%llu+%llu", i ? "," : "",
					(unsigned long long)r[i].off,
					(unsigned long long)r[i].len);
	return text;
}

static void test_single(void)
{
	static const struct {
		const char *value;
		uint64_t size;
		const char *want;
	} t[] = {
		{"bytes=0-0", 10, "0+1"},	{"bytes=0-99", 10, "0+10"},
		{"bytes=9-9", 10, "9+1"},	{"bytes=9-", 10, "9+1"},
		{"bytes=0-", 10, "0+10"},	{"bytes=10-", 10, "ERANGE"},
		{"bytes=10-20", 10, "ERANGE"},	{"bytes=-3", 10, "7+3"},
		{"bytes=-10", 10, "0+10"},	{"bytes=-11", 10, "0+10"},
		{"bytes=-0", 10, "ERANGE"},	{"bytes=0-", 0, "ERANGE"},
		{"bytes=0-0", 0, "ERANGE"},	{"bytes=-5", 0, "ERANGE"},
		{"BYTES=0-1", 10, "0+2"},	{"  bytes=0-1  ", 10, "0+2"},
		{"bytes=0000-0001", 10, "0+2"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		STREQ(ranges(t[i].value, t[i].size), t[i].want);
}

static void test_several(void)
{
	STREQ(ranges("bytes=0-1,4-5", 10), "0+2,4+2");
	STREQ(ranges("bytes=4-5 , 0-1", 10), "4+2,0+2");
	STREQ(ranges("bytes=0-1,50-60", 10), "0+2");
	STREQ(ranges("bytes=50-60,0-1,-0", 10), "0+2");
	STREQ(ranges("bytes=50-60,70-", 10), "ERANGE");
	STREQ(ranges("bytes=,0-1,,\t,2-3,", 10), "0+2,2+2");
	STREQ(ranges("bytes=0-1,x", 10), "EINVAL");
	STREQ(ranges("bytes=0-1;2-3", 10), "EINVAL");
	STREQ(ranges("bytes=0-1 2-3", 10), "EINVAL");
}

/* No byte is in two of them. */
static void test_overlapping(void)
{
	STREQ(ranges("bytes=0-5,3-8,-1", 10), "0+9,9+1");
	STREQ(ranges("bytes=3-8,0-5", 10), "0+9");
	STREQ(ranges("bytes=0-,0-,0-", 10), "0+10");
	STREQ(ranges("bytes=8-9,0-1,4-5,1-4", 10), "8+2,0+6");
	STREQ(ranges("bytes=0-1,4-5,8-9,2-3", 10), "0+2,4+2,8+2,2+2");
	STREQ(ranges("bytes=6-7,0-1,3-4,9-9,1-6", 10), "0+8,9+1");
	STREQ(ranges("bytes=5-5,-10,2-3", 10), "0+10");
	STREQ(ranges("bytes=0-,-1", UINT64_MAX), "0+" U64_MAX_STR);
	STREQ(ranges("bytes=18446744073709551600-,18446744073709551000-" U64_MAX_STR
		     ",0-0",
		     UINT64_MAX),
	      "18446744073709551000+615,0+1");
}

static void test_malformed(void)
{
	static const char *const bad[] = {
		"",
		"bytes",
		"bytes=",
		"bytes=,",
		"bytes= ",
		"bytes=-",
		"bytes=--1",
		"bytes=1",
		"bytes=a-b",
		"bytes=1-b",
		"bytes=1-2x",
		"bytes=2-1",
		"bytes=1--2",
		"bytes=1-2-3",
		"bytes=+1-2",
		"bytes=1 - 2",
		"bytes 0-1",
		"bytes:0-1",
		"byte=0-1",
		"bytess=0-1",
		"items=0-1",
		"bytes =0-1",
		"bytes=0x1-2",
		"bytes=-1-2",
		"bytes=\n0-1",
		"0-1",
		"bytes=1-2\r",
		"none",
		"bytes=0-1/2",
		"bytes=1.0-2",
		"bytes=\xb2-3",
		"bytes=-1x",
		"bytes=" U64_MAX_STR "0-1",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		STREQ(ranges(bad[i], 10), "EINVAL");
		if (tap_test_failed)
			printf("# … was %s\n", bad[i]);
	}
}

/* Numbers of any length are well-formed. */
static void test_huge_numbers(void)
{
	STREQ(ranges("bytes=0-" U64_MAX_STR, 10), "0+10");
	STREQ(ranges("bytes=5-999999999999999999999999999999", 10), "5+5");
	STREQ(ranges("bytes=999999999999999999999999999999-", 10), "ERANGE");
	STREQ(ranges("bytes=-999999999999999999999999999999", 10), "0+10");
	STREQ(ranges("bytes=" U64_MAX_STR "-" U64_MAX_STR, 10), "ERANGE");
	STREQ(ranges("bytes=0-", UINT64_MAX), "0+" U64_MAX_STR);
	STREQ(ranges("bytes=-1", UINT64_MAX), "18446744073709551614+1");
	STREQ(ranges("bytes=18446744073709551614-", UINT64_MAX),
	      "18446744073709551614+1");
	STREQ(ranges("bytes=" U64_MAX_STR "-", UINT64_MAX), "ERANGE");
}

static void test_too_many(void)
{
	char value[8 + (RANGE_MAX + 1) * 8] = "bytes=";
	size_t len = strlen(value);
	struct byte_range r[RANGE_MAX];

	for (int i = 0; i < RANGE_MAX; i++)
		len += (size_t)snprintf(value + len, sizeof(value) - len,
					"%d-%d,", 2 * i, 2 * i);
	EQ(range_parse(value, 200, r), RANGE_MAX);
	EQ(r[RANGE_MAX - 1].off, 2 * (RANGE_MAX - 1));
	memcpy(value + len, "1-1", 4);
	EQ(range_parse(value, 200, r), -E2BIG);
	/* Those that are not satisfiable count, too, and those that overlap. */
	EQ(range_parse(value, 1, r), -E2BIG);
}

static void test_content_range(void)
{
	static const struct {
		const char *value;
		uint64_t first, last, total;
	} t[] = {
		{"bytes 0-99/200", 0, 99, 200},
		{"bytes 0-0/1", 0, 0, 1},
		{"BYTES 5-5/*", 5, 5, UINT64_MAX},
		{" bytes  1-2/3 ", 1, 2, 3},
		{"bytes 0-18446744073709551613/18446744073709551614", 0,
		 UINT64_MAX - 2, UINT64_MAX - 1},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		uint64_t first = 1, last = 1, total = 1;

		EQ(content_range_parse(t[i].value, &first, &last, &total), 0);
		OK(first == t[i].first && last == t[i].last &&
		   total == t[i].total);
	}
}

static void test_content_range_refused(void)
{
	static const char *const bad[] = {
		"",
		"bytes",
		"bytes ",
		"bytes */200",
		"bytes */*",
		"bytes=0-99/200",
		"bytes 0-99",
		"bytes 0-99/",
		"bytes 0-/200",
		"bytes -99/200",
		"bytes 0/200",
		"bytes 99-0/200",
		"bytes 0-200/200",
		"bytes 0-99/99",
		"bytes 0-0/0",
		"bytes 0-99/200x",
		"bytes 0-99/**",
		"bytes 0-99/-1",
		"bytes 0 - 99/200",
		"bytes 0-99 /200",
		"bytes 0-99/ 200",
		"items 0-99/200",
		"bytes 0-99/200,bytes 0-99/200",
		"bytes 0-1/" U64_MAX_STR,
		"bytes 0-1/99999999999999999999999",
		"bytes 0-" U64_MAX_STR "/*",
		"bytes 0-99999999999999999999999/*",
		"bytes +0-1/2",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t a = 7, b = 7, c = 7;

		EQ(content_range_parse(bad[i], &a, &b, &c), -EINVAL);
		OK(a == 7 && b == 7 && c == 7);
		if (tap_test_failed)
			printf("# … was %s\n", bad[i]);
	}
}

int main(void)
{
	RUN(test_single);
	RUN(test_several);
	RUN(test_overlapping);
	RUN(test_malformed);
	RUN(test_huge_numbers);
	RUN(test_too_many);
	RUN(test_content_range);
	RUN(test_content_range_refused);
	return tap_done();
}
