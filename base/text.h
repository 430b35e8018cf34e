/* Writes single characters and numbers for all text that leaves peerd (the log,
 * JSON, metrics, errors), and reads hex digits. Any thread. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stddef.h>

/* Length (1 to 4) of the UTF-8 sequence at s. 0 if the first bytes are not
 * valid: cut short, overlong, a surrogate, above U+10FFFF. */
size_t utf8_len(const char *s, size_t len);

/* The longest length up to len that does not split a character of s. */
size_t utf8_cut(const char *s, size_t len);

#define TEXT_ESCAPE_SIZE 8

/* Writes the first character of s (len > 0) as in a JSON string, with a NUL:
 * escapes quote, backslash and control characters (C0, DEL, C1); a byte that is
 * not UTF-8 becomes U+FFFD. Returns the number of bytes of s it used. */
size_t text_escape(const char *s, size_t len, char out[TEXT_ESCAPE_SIZE]);

#define TEXT_DOUBLE_SIZE 32

/* Writes the shortest text that reads back as d; exact integers have no point
 * or exponent; "NaN", "+Inf", "-Inf". Returns out. */
char *text_double(double d, char out[TEXT_DOUBLE_SIZE]);

/* The value of a lower-case hex digit, -1 for any other character. */
static inline int hex_value_lower(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The same for either case. */
static inline int hex_value(char c)
{
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : hex_value_lower(c);
}

#endif
