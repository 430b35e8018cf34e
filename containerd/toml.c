#include "containerd/toml.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"

#define MAX_DEPTH 64
#define BOM	  "\xef\xbb\xbf"

static int fail(struct toml *t, const char *what)
{
	return set_error(t->err, -EINVAL, "line %u: %s", t->line, what);
}

int toml_init(struct toml *t, const char *s, size_t len, struct error *err)
{
	*t = (struct toml){.s = s, .len = len, .line = 1, .err = err};
	for (size_t i = 0; i < len;) {
		unsigned char c = (unsigned char)s[i];
		size_t n = utf8_len(s + i, len - i);

		if (n == 0)
			return fail(t, "not UTF-8");
		if (c == '\r' && (i + 1 == len || s[i + 1] != '\n'))
			return fail(t, "carriage return without newline");
		if ((c < 0x20 && c != '\t' && c != '\r' && c != '\n') ||
		    c == 0x7f)
			return fail(t, "control character");
		if (c == '\n')
			t->line++;
		i += n;
	}
	t->line = 1;
	if (len >= 3 && memcmp(s, BOM, 3) == 0)
		t->pos = 3;
	return 0;
}

/* The next character; NUL at the end. toml_init() rejects a NUL in the text. */
static char peek(const struct toml *t)
{
	if (t->pos == t->len)
		return '\0';
	return t->s[t->pos];
}

static bool at(const struct toml *t, const char *what)
{
	size_t n = strlen(what);

	return t->len - t->pos >= n && memcmp(t->s + t->pos, what, n) == 0;
}

/* toml_init() rejects a carriage return without a newline. */
static void skip_spaces(struct toml *t)
{
	while (peek(t) == ' ' || peek(t) == '\t' || peek(t) == '\r')
		t->pos++;
}

static void skip_comment(struct toml *t)
{
	while (t->pos < t->len && t->s[t->pos] != '\n')
		t->pos++;
}

/* Skips spaces, comments and newlines, as allowed inside an array. */
static void skip_gap(struct toml *t)
{
	for (;; t->pos++) {
		skip_spaces(t);
		if (peek(t) == '#')
			skip_comment(t);
		if (peek(t) != '\n')
			return;
		t->line++;
	}
}

struct part {
	char *text; /* TOML_PART_SIZE bytes; NULL: the text is not kept */
	size_t len;
};

static void part_add(struct part *p, const char *s, size_t len)
{
	if (!p->text)
		return;
	if (len >= TOML_PART_SIZE - p->len) {
		p->text[0] = '\0';
		p->text = NULL;
		return;
	}
	memcpy(p->text + p->len, s, len);
	p->len += len;
	p->text[p->len] = '\0';
}

static void part_add_char(struct part *p, unsigned long c)
{
	char s[4];
	size_t n = 0;

	if (c < 0x80) {
		s[n++] = (char)c;
	} else if (c < 0x800) {
		s[n++] = (char)(0xc0 | c >> 6);
	} else if (c < 0x10000) {
		s[n++] = (char)(0xe0 | c >> 12);
		s[n++] = (char)(0x80 | (c >> 6 & 0x3f));
	} else {
		s[n++] = (char)(0xf0 | c >> 18);
		s[n++] = (char)(0x80 | (c >> 12 & 0x3f));
		s[n++] = (char)(0x80 | (c >> 6 & 0x3f));
	}
	if (c >= 0x80)
		s[n++] = (char)(0x80 | (c & 0x3f));
	part_add(p, s, n);
}

/* Reads an escape after its backslash. */
static int escape(struct toml *t, struct part *p)
{
	static const char names[] = "btnfre\"\\";
	static const char values[] = "\b\t\n\f\r\x1b\"\\";
	char c = peek(t);
	const char *at_name = c ? strchr(names, c) : NULL;
	unsigned long code = 0;
	int digits = c == 'u' ? 4 : c == 'U' ? 8 : c == 'x' ? 2 : 0;

	if (!at_name && !digits)
		return fail(t, "unknown escape");
	t->pos++;
	if (at_name) {
		part_add(p, &values[at_name - names], 1);
		return 0;
	}
	for (int i = 0; i < digits; i++, t->pos++) {
		int digit = hex_value(peek(t));

		if (digit < 0)
			return fail(t, "bad hexadecimal digit in an escape");
		code = code << 4 | (unsigned long)digit;
	}
	if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return fail(t, "escape is not a character");
	part_add_char(p, code);
	return 0;
}

static int string(struct toml *t, struct part *p)
{
	char quote = t->s[t->pos++];

	for (;;) {
		char c = peek(t);

		if (c == '\0' || c == '\n')
			return fail(t, "unterminated string");
		t->pos++;
		if (c == quote)
			return 0;
		if (c == '\\' && quote == '"') {
			int r = escape(t, p);

			if (r < 0)
				return r;
		} else {
			part_add(p, &c, 1);
		}
	}
}

/* Up to two quotes may stand before the closing three. A backslash at the end
 * of a line does not escape a character. */
static int long_string(struct toml *t)
{
	const char *quotes = t->s[t->pos] == '"' ? "\"\"\"" : "'''";
	unsigned int first = t->line;

	for (t->pos += 3; t->pos < t->len; t->pos++) {
		if (at(t, quotes)) {
			t->pos += 3;
			for (int i = 0; i < 2 && peek(t) == *quotes; i++)
				t->pos++;
			return 0;
		}
		if (peek(t) == '\\' && *quotes == '"' && t->pos + 1 < t->len &&
		    t->s[t->pos + 1] != '\n')
			t->pos++;
		if (peek(t) == '\n')
			t->line++;
	}
	t->line = first;
	return fail(t, "unterminated multi-line string");
}

static bool is_bare(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static int key(struct toml *t, struct toml_path *path)
{
	path->n = 0;
	for (;;) {
		struct part p = {path->n < 2 ? path->part[path->n] : NULL, 0};
		char c;
		int r = 0;

		if (p.text)
			p.text[0] = '\0';
		skip_spaces(t);
		c = peek(t);
		if (c == '"' || c == '\'') {
			r = string(t, &p);
		} else if (is_bare(c)) {
			size_t start = t->pos;

			while (is_bare(peek(t)))
				t->pos++;
			part_add(&p, t->s + start, t->pos - start);
		} else {
			r = fail(t, "key expected");
		}
		if (r < 0)
			return r;
		path->n++;
		skip_spaces(t);
		if (peek(t) != '.')
			return 0;
		t->pos++;
	}
}

static int value(struct toml *t, unsigned int depth);

/* An array or an inline table. */
static int group(struct toml *t, unsigned int depth)
{
	bool table = t->s[t->pos] == '{';
	char close = table ? '}' : ']';
	unsigned int first = t->line;

	if (depth > MAX_DEPTH)
		return fail(t, "nested too deeply");
	t->pos++;
	for (;;) {
		int r = 0;

		skip_gap(t);
		if (t->pos == t->len) {
			t->line = first;
			return fail(t, table ? "\"{\" without \"}\""
					     : "\"[\" without \"]\"");
		}
		if (peek(t) == close)
			break;
		if (table) {
			struct toml_path ignored;

			r = key(t, &ignored);
			if (r == 0 && peek(t) != '=')
				r = fail(t, "key without \"=\"");
			if (r == 0)
				t->pos++;
		}
		if (r == 0)
			r = value(t, depth + 1);
		if (r < 0)
			return r;
		skip_gap(t);
		if (peek(t) == ',')
			t->pos++;
		else if (peek(t) != close && t->pos < t->len)
			return fail(t, "no comma between two values");
	}
	t->pos++;
	return 0;
}

/* A number, date or Boolean. "1979-05-27 07:32:00" has a space. */
static int bare_value(struct toml *t)
{
	size_t start = t->pos;

	for (;; t->pos++) {
		char c = peek(t);
		bool date = c == ' ' && t->pos - start == 10 &&
			    t->s[start + 4] == '-' && t->pos + 1 < t->len &&
			    t->s[t->pos + 1] >= '0' && t->s[t->pos + 1] <= '9';

		if (!date && !is_bare(c) && c != '+' && c != '.' && c != ':')
			break;
	}
	return t->pos == start ? fail(t, "value expected") : 0;
}

static int value(struct toml *t, unsigned int depth)
{
	struct part ignored = {NULL, 0};

	skip_spaces(t);
	if (at(t, "\"\"\"") || at(t, "'''"))
		return long_string(t);
	if (peek(t) == '"' || peek(t) == '\'')
		return string(t, &ignored);
	if (peek(t) == '[' || peek(t) == '{')
		return group(t, depth);
	return bare_value(t);
}

/* A table header; t->pos is at its first bracket. */
static int header(struct toml *t, struct toml_item *ret)
{
	bool array = at(t, "[[");
	int r;

	ret->type = array ? TOML_ARRAY : TOML_TABLE;
	t->pos += array ? 2 : 1;
	r = key(t, &ret->path);
	if (r < 0)
		return r;
	if (!at(t, array ? "]]" : "]"))
		return fail(t, "table header without \"]\"");
	t->pos += array ? 2 : 1;
	return 0;
}

static int statement(struct toml *t, struct toml_item *ret)
{
	int r;

	if (peek(t) == '[')
		return header(t, ret);
	ret->type = TOML_KEY;
	r = key(t, &ret->path);
	if (r < 0)
		return r;
	if (peek(t) != '=')
		return fail(t, "key without \"=\"");
	t->pos++;
	return value(t, 0);
}

int toml_next(struct toml *t, struct toml_item *ret)
{
	int r = 0;

	if (t->pos == t->len)
		return 0;
	ret->start = t->pos;
	ret->line = t->line;
	ret->path.n = 0;
	skip_spaces(t);
	if (t->pos == t->len || peek(t) == '\n')
		ret->type = TOML_BLANK;
	else if (peek(t) == '#')
		ret->type = TOML_COMMENT;
	else
		r = statement(t, ret);
	if (r < 0)
		return r;
	skip_spaces(t);
	if (peek(t) == '#')
		skip_comment(t);
	if (t->pos < t->len && peek(t) != '\n')
		return fail(t, "unexpected text after the value");
	if (t->pos < t->len) {
		t->pos++;
		t->line++;
	}
	ret->end = t->pos;
	return 1;
}
