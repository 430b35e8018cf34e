/* How single characters and numbers are written, wherever text leaves us: the
 * log, JSON, metrics, error sentences; and hex digits read. Any thread. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stddef.h>

/* Length (1 to 4) of the UTF-8 sequence that s begins with, 0 when the first
 * bytes are none: cut short, overlong, a surrogate, above U+10FFFF. */
size_t utf8_len(const char *s, size_t len);

/* The length, at most len, at which s may be cut without splitting a
 * character. */
size_t utf8_cut(const char *s, size_t len);

#define TEXT_ESCAPE_SIZE 8

/* Writes the first character of s (len > 0) as it stands in a JSON string, NUL
 * after it: quote, backslash and control characters (C0, DEL, C1) escaped, a
 * byte that is no UTF-8 as U+FFFD. Returns how many bytes of s that was. */
size_t text_escape(const char *s, size_t len, char out[TEXT_ESCAPE_SIZE]);

#define TEXT_DOUBLE_SIZE 32

/* The shortest text that reads back as d; integers without point or exponent
 * as far as they are exact; "NaN", "+Inf", "-Inf". Returns out. */
char *text_double(double d, char out[TEXT_DOUBLE_SIZE]);

/* The value of a hex digit, -1 if c is none. */
static inline int hex_value_lower(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The same, of either case. */
static inline int hex_value(char c)
{
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : hex_value_lower(c);
}

#endif
