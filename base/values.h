/* Lists of strings, and numbers as people write them. A list is not
 * thread-safe; everything else: any thread. */
#ifndef BASE_VALUES_H
#define BASE_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct string_list {
	char **v; /* NULL-terminated, or NULL when n is 0 */
	size_t n;
};

void string_list_release(struct string_list *l);
int string_list_add(struct string_list *l, const char *s); /* copies; -ENOMEM */
/* Adds the comma-separated parts of s, trimmed, without empty ones. -ENOMEM. */
int string_list_split(struct string_list *l, const char *s);
bool string_list_has(const struct string_list *l, const char *s);

/* Parse a number. -EINVAL, or -ERANGE on overflow; *ret is unchanged then.
 * struct option describes sizes and durations; a fraction has up to six digits
 * and is rounded down. "0" needs no unit. */
int parse_size(const char *s, uint64_t *ret);
int parse_duration_ms(const char *s, uint64_t *ret);
int parse_u64(const char *s, uint64_t *ret); /* decimal digits only */

#define VALUE_SHOW_SIZE 32

/* Write the number for the parsers to read back exactly, in the largest unit
 * that divides it. Return out. */
char *show_size(uint64_t bytes, char out[VALUE_SHOW_SIZE]);
char *show_duration_ms(uint64_t ms, char out[VALUE_SHOW_SIZE]);

#endif
