#include "http/range.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static void skip_space(const char **p)
{
	while (**p == ' ' || **p == '\t')
		(*p)++;
}

/* Digits only, at least one. A number that is too large becomes UINT64_MAX. For
 * a position that is right, since it lies after every end. */
static bool take_number(const char **p, uint64_t *ret)
{
	uint64_t v = 0;

	if (!is_digit(**p))
		return false;
	for (; is_digit(**p); (*p)++) {
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(**p - '0'), &v))
			v = UINT64_MAX;
		if (v == UINT64_MAX) {
			while (is_digit(**p))
				(*p)++;
			break;
		}
	}
	*ret = v;
	return true;
}

/* One of "0-99", "5-", "-3". ret->len is 0 if it is not satisfiable. */
static bool take_spec(const char **p, uint64_t size, struct byte_range *ret)
{
	uint64_t first, last = UINT64_MAX;

	*ret = (struct byte_range){0};
	if (**p == '-') {
		(*p)++;
		if (!take_number(p, &last))
			return false;
		ret->len = min_u64(last, size);
		ret->off = size - ret->len;
		return true;
	}
	if (!take_number(p, &first) || **p != '-')
		return false;
	(*p)++;
	if (is_digit(**p) && !take_number(p, &last))
		return false;
	if (last < first)
		return false;
	if (first < size) {
		ret->off = first;
		ret->len = min_u64(last, size - 1) - first + 1;
	}
	return true;
}

/* Adds b to the n in out, of which no two overlap. Those that b overlaps become
 * one with it, at the place of the first of them. Returns how many there are
 * then. */
static int add_range(struct byte_range *out, int n, struct byte_range b)
{
	int at = -1, kept = 0;

	for (int i = 0; i < n; i++) {
		struct byte_range o = out[i];
		uint64_t end = max_u64(o.off + o.len, b.off + b.len);

		if (o.off >= b.off + b.len || b.off >= o.off + o.len) {
			out[kept++] = o;
			continue;
		}
		b.off = min_u64(o.off, b.off);
		b.len = end - b.off;
		if (at < 0)
			at = kept++;
	}
	out[at < 0 ? kept++ : at] = b;
	return kept;
}

int range_parse(const char *value, uint64_t size,
		struct byte_range out[RANGE_MAX])
{
	const char *p = value;
	int specs = 0, n = 0;

	skip_space(&p);
	if (strncasecmp(p, "bytes=", 6) != 0)
		return -EINVAL;
	p += 6;
	for (;;) {
		struct byte_range b;

		/* Empty list elements are allowed: RFC 9110, 5.6.1.2. */
		skip_space(&p);
		while (*p == ',') {
			p++;
			skip_space(&p);
		}
		if (!*p)
			break;
		if (!take_spec(&p, size, &b))
			return -EINVAL;
		if (++specs > RANGE_MAX)
			return -E2BIG;
		if (b.len > 0)
			n = add_range(out, n, b);
		skip_space(&p);
		if (*p && *p != ',')
			return -EINVAL;
	}
	if (specs == 0)
		return -EINVAL;
	return n > 0 ? n : -ERANGE;
}

int content_range_parse(const char *value, uint64_t *ret_first,
			uint64_t *ret_last, uint64_t *ret_total)
{
	uint64_t first, last, total = UINT64_MAX;
	const char *p = value;

	skip_space(&p);
	if (strncasecmp(p, "bytes ", 6) != 0)
		return -EINVAL;
	p += 6;
	skip_space(&p);
	if (!take_number(&p, &first) || *p++ != '-' ||
	    !take_number(&p, &last) || *p++ != '/')
		return -EINVAL;
	if (*p == '*') {
		p++;
	} else if (!take_number(&p, &total) || total == UINT64_MAX) {
		return -EINVAL;
	}
	skip_space(&p);
	if (*p || first > last || last >= total)
		return -EINVAL;
	*ret_first = first;
	*ret_last = last;
	*ret_total = total;
	return 0;
}
