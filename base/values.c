#include "base/values.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"

#define MAX_FRACTION 6 /* digits; times 2^40 this still fits 64 bits */

/* Lists of strings */

void string_list_release(struct string_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = (struct string_list){0};
}

static int list_add_bytes(struct string_list *l, const char *s, size_t len)
{
	CLEANUP(freep) char *copy = strndup(s, len);
	char **v;

	if (!copy)
		return -ENOMEM;
	v = realloc(l->v, (l->n + 2) * sizeof(*v));
	if (!v)
		return -ENOMEM;
	v[l->n] = steal_ptr(&copy);
	v[l->n + 1] = NULL;
	l->v = v;
	l->n++;
	return 0;
}

int string_list_add(struct string_list *l, const char *s)
{
	return list_add_bytes(l, s, strlen(s));
}

int string_list_split(struct string_list *l, const char *s)
{
	for (;;) {
		size_t len = strcspn(s, ","), blank = strspn(s, " \t");
		const char *start = s + (blank < len ? blank : len);
		const char *end = s + len;
		int r;

		while (end > start && (end[-1] == ' ' || end[-1] == '\t'))
			end--;
		r = end > start
			    ? list_add_bytes(l, start, (size_t)(end - start))
			    : 0;
		if (r < 0 || s[len] == '\0')
			return r;
		s += len + 1;
	}
}

bool string_list_has(const struct string_list *l, const char *s)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i], s) == 0)
			return true;
	return false;
}

/* Numbers */

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{"TiB", (uint64_t)1 << 40},
	{"GiB", (uint64_t)1 << 30},
	{"MiB", (uint64_t)1 << 20},
	{"KiB", (uint64_t)1 << 10},
	{"TB", 1000000000000},
	{"GB", 1000000000},
	{"MB", 1000000},
	{"KB", 1000},
	{"B", 1},
	{"", 1},
};

static const struct unit duration_units[] = {
	{"h", 3600000},
	{"m", 60000},
	{"s", 1000},
	{"ms", 1},
};

/* Reads at least one digit at *s and moves *s past the digits. */
static int take_digits(const char **s, uint64_t *ret)
{
	const char *p = *s;
	uint64_t v = 0;

	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(v, 10u, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
			return -ERANGE;
	}
	if (p == *s)
		return -EINVAL;
	*s = p;
	*ret = v;
	return 0;
}

int parse_u64(const char *s, uint64_t *ret)
{
	uint64_t v;
	int r;

	/* Checked first, so that "99…9x" is -EINVAL and not -ERANGE. */
	if (s[strspn(s, "0123456789")] != '\0')
		return -EINVAL;
	r = take_digits(&s, &v);
	if (r == 0)
		*ret = v;
	return r;
}

/* "12", "12UNIT", "1.5UNIT"; the fraction is rounded down. */
static int parse_units(const char *s, const struct unit *units, size_t n,
		       uint64_t *ret)
{
	uint64_t whole, fraction = 0, divisor = 1, v;
	int r = take_digits(&s, &whole);

	if (r < 0)
		return r;
	if (*s == '.') {
		const char *start = ++s;

		r = take_digits(&s, &fraction);
		if (r < 0 || s - start > MAX_FRACTION)
			return -EINVAL;
		for (; start < s; start++)
			divisor *= 10;
	}
	for (size_t i = 0; i < n; i++) {
		if (strcmp(s, units[i].name) != 0)
			continue;
		if (divisor > 1 && units[i].factor == 1)
			return -EINVAL;
		if (__builtin_mul_overflow(whole, units[i].factor, &v) ||
		    __builtin_add_overflow(
			    v, fraction * units[i].factor / divisor, &v))
			return -ERANGE;
		*ret = v;
		return 0;
	}
	return -EINVAL;
}

int parse_size(const char *s, uint64_t *ret)
{
	return parse_units(s, size_units, ARRAY_SIZE(size_units), ret);
}

int parse_duration_ms(const char *s, uint64_t *ret)
{
	if (strcmp(s, "0") == 0) {
		*ret = 0;
		return 0;
	}
	return parse_units(s, duration_units, ARRAY_SIZE(duration_units), ret);
}

static char *show_units(uint64_t v, const struct unit *units, size_t n,
			char out[VALUE_SHOW_SIZE])
{
	for (size_t i = 0; v > 0 && i < n; i++)
		if (v % units[i].factor == 0) {
			(void)snprintf(out, VALUE_SHOW_SIZE, "%" PRIu64 "%s",
				       v / units[i].factor, units[i].name);
			return out;
		}
	(void)snprintf(out, VALUE_SHOW_SIZE, "%" PRIu64, v);
	return out;
}

char *show_size(uint64_t bytes, char out[VALUE_SHOW_SIZE])
{
	return show_units(bytes, size_units, 4 /* powers of 1024 */, out);
}

char *show_duration_ms(uint64_t ms, char out[VALUE_SHOW_SIZE])
{
	return show_units(ms, duration_units, ARRAY_SIZE(duration_units), out);
}
