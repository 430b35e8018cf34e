#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/text.h"
#include "tests/unit/tap.h"

static void test_utf8_len(void)
{
	EQ(utf8_len("", 0), 0);
	EQ(utf8_len("a", 1), 1);
	EQ(utf8_len("\0", 1), 1);
	EQ(utf8_len("é", 2), 2);
	EQ(utf8_len("é", 1), 0);
	EQ(utf8_len("€", 3), 3);
	EQ(utf8_len("😀x", 5), 4);
	EQ(utf8_len("\x80", 1), 0);
	EQ(utf8_len("\xc1\xbf", 2), 0);		/* overlong */
	EQ(utf8_len("\xe0\x9f\xbf", 3), 0);	/* overlong */
	EQ(utf8_len("\xf0\x8f\xbf\xbf", 4), 0); /* overlong */
	EQ(utf8_len("\xed\xa0\x80", 3), 0);	/* surrogate */
	EQ(utf8_len("\xf4\x8f\xbf\xbf", 4), 4); /* U+10FFFF */
	EQ(utf8_len("\xf4\x90\x80\x80", 4), 0); /* beyond U+10FFFF */
	EQ(utf8_len("\xff", 1), 0);
}

static void escapes(const char *s, size_t len, size_t used, const char *want)
{
	char out[TEXT_ESCAPE_SIZE];

	EQ(text_escape(s, len, out), used);
	STREQ(out, want);
}

static void test_escape(void)
{
	escapes("ab", 2, 1, "a");
	escapes("\"", 1, 1, "\\\"");
	escapes("\\", 1, 1, "\\\\");
	escapes("\n", 1, 1, "\\n");
	escapes("\0", 1, 1, "\\u0000");
	escapes("\x7f", 1, 1, "\\u007f");
	escapes("\xc2\x80", 2, 2, "\\u0080");
	escapes("\xc2\xa0", 2, 2, "\xc2\xa0");
	escapes("€€", 6, 3, "€");
	escapes("€", 2, 1, "\xef\xbf\xbd");
}

static void test_utf8_cut(void)
{
	EQ(utf8_cut("abc", 2), 2);
	EQ(utf8_cut("a€b", 4), 4);
	EQ(utf8_cut("a€b", 3), 1);
	EQ(utf8_cut("a€b", 2), 1);
	EQ(utf8_cut("😀", 3), 0);
	EQ(utf8_cut("", 0), 0);
	EQ(utf8_cut("\x80\x80\x80\x80", 3), 3); /* no character to split */
}

static void test_double(void)
{
	char s[TEXT_DOUBLE_SIZE];

	STREQ(text_double(0, s), "0");
	STREQ(text_double(-0.0, s), "0");
	STREQ(text_double(1, s), "1");
	STREQ(text_double(-17, s), "-17");
	STREQ(text_double(0.1, s), "0.1");
	STREQ(text_double(0.005, s), "0.005");
	STREQ(text_double(123456789012345.0, s), "123456789012345");
	STREQ(text_double(1.0 / 3, s), "0.333333333333333"
				       "3");
	STREQ(text_double(1e300, s), "1e+300");
	STREQ(text_double(NAN, s), "NaN");
	STREQ(text_double(INFINITY, s), "+Inf");
	STREQ(text_double(-INFINITY, s), "-Inf");
	STREQ(text_double(9007199254740991.0, s), "9007199254740991");
}

/* For any bits, the written text reads back as the same number. */
static void test_double_reads_back(void)
{
	uint64_t x = 1;
	int wrong = 0;

	for (int i = 0; i < 20000; i++) {
		char s[TEXT_DOUBLE_SIZE];
		double d;

		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		memcpy(&d, &x, sizeof(d));
		if (!isnan(d))
			wrong += strtod(text_double(d, s), NULL) != d;
	}
	EQ(wrong, 0);
}

static void test_hex_value(void)
{
	static const char lower[] = "0123456789abcdef", upper[] = "ABCDEF";

	for (int c = CHAR_MIN; c <= CHAR_MAX; c++) {
		const char *l = c ? strchr(lower, c) : NULL;
		const char *u = c ? strchr(upper, c) : NULL;

		EQ(hex_value_lower((char)c), l ? l - lower : -1);
		EQ(hex_value((char)c), l ? l - lower : u ? u - upper + 10 : -1);
	}
}

int main(void)
{
	RUN(test_hex_value);
	RUN(test_utf8_len);
	RUN(test_escape);
	RUN(test_utf8_cut);
	RUN(test_double);
	RUN(test_double_reads_back);
	return tap_done();
}
