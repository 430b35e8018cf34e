#include "base/text.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t utf8_len(const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s;
	/* The range of the second byte excludes overlong forms, surrogates and
	 * values above U+10FFFF (Unicode 15, table 3-7). */
	unsigned char lo = 0x80, hi = 0xbf;
	size_t need;

	if (len == 0)
		return 0;
	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		need = 2;
	} else if (p[0] >= 0xe0 && p[0] <= 0xef) {
		need = 3;
		lo = p[0] == 0xe0 ? 0xa0 : lo;
		hi = p[0] == 0xed ? 0x9f : hi;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		need = 4;
		lo = p[0] == 0xf0 ? 0x90 : lo;
		hi = p[0] == 0xf4 ? 0x8f : hi;
	} else {
		return 0;
	}
	if (len < need || p[1] < lo || p[1] > hi)
		return 0;
	for (size_t i = 2; i < need; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return need;
}

size_t utf8_cut(const char *s, size_t len)
{
	/* A sequence that len cuts begins at most three bytes before it. */
	for (size_t back = 1; back <= 3 && back <= len; back++) {
		unsigned char c = (unsigned char)s[len - back];

		if ((c & 0xc0) == 0x80)
			continue;
		if (c >= 0xc0 && utf8_len(s + len - back, back) == 0)
			return len - back;
		break;
	}
	return len;
}

static bool is_control(const unsigned char *p, size_t n)
{
	if (n == 1)
		return p[0] < 0x20 || p[0] == 0x7f;
	/* U+0080 to U+009F: some terminals interpret them. */
	return n == 2 && p[0] == 0xc2 && p[1] < 0xa0;
}

size_t text_escape(const char *s, size_t len, char out[TEXT_ESCAPE_SIZE])
{
	static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
	const unsigned char *p = (const unsigned char *)s;
	size_t n = utf8_len(s, len);
	const char *hit;

	if (n == 0) {
		memcpy(out, "\xef\xbf\xbd", 4);
		return 1;
	}
	hit = n == 1 && p[0] ? strchr(from, p[0]) : NULL;
	if (hit) {
		out[0] = '\\';
		out[1] = to[hit - from];
		out[2] = '\0';
	} else if (is_control(p, n)) {
		(void)snprintf(out, TEXT_ESCAPE_SIZE, "\\u%04x", p[n - 1]);
	} else {
		memcpy(out, s, n);
		out[n] = '\0';
	}
	return n;
}

char *text_double(double d, char out[TEXT_DOUBLE_SIZE])
{
	if (isnan(d)) {
		memcpy(out, "NaN", 4);
	} else if (isinf(d)) {
		memcpy(out, d > 0 ? "+Inf" : "-Inf", 5);
	} else if (d == 0) {
		memcpy(out, "0", 2); /* never "-0" */
	} else if (fabs(d) < 9007199254740992.0 && trunc(d) == d) {
		(void)snprintf(out, TEXT_DOUBLE_SIZE, "%.0f", d);
	} else {
		for (int digits = 15; digits <= 17; digits++) {
			(void)snprintf(out, TEXT_DOUBLE_SIZE, "%.*g", digits,
				       d);
			if (strtod(out, NULL) == d)
				break;
		}
	}
	return out;
}
