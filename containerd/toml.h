/* Splits a TOML file into comments, keys and table headers with their byte
 * positions, so that a file can be edited without changing the rest. Values are
 * skipped, not parsed; errors beyond the syntax (a key given twice, a number
 * with two points) are not detected.
 * Source: toml.io, TOML 1.0; newlines in inline tables as in 1.1. Any
 * thread. */
#ifndef CONTAINERD_TOML_H
#define CONTAINERD_TOML_H

#include <stdbool.h>
#include <stddef.h>

#include "base/util.h"

#define TOML_PART_SIZE 520

enum toml_type {
	TOML_BLANK,   /* an empty line */
	TOML_COMMENT, /* a line with only a comment */
	TOML_TABLE,   /* [a.b] */
	TOML_ARRAY,   /* [[a.b]] */
	TOML_KEY,     /* a.b = …, all lines of the value */
};

/* The number of parts, and the first two, decoded. A part that does not fit is
 * "". */
struct toml_path {
	size_t n;
	char part[2][TOML_PART_SIZE];
};

struct toml_item {
	enum toml_type type;
	size_t start; /* of the line */
	size_t end;   /* after the newline, if there is one */
	unsigned int line;
	struct toml_path path; /* tables and keys */
};

struct toml {
	const char *s;
	size_t len, pos;
	unsigned int line;
	struct error *err; /* may be NULL */
};

/* Prepares t; borrows s and err until the last toml_next(). Skips a byte order
 * mark. -EINVAL, err set: the text is not UTF-8 or has control characters that
 * TOML forbids. */
int toml_init(struct toml *t, const char *s, size_t len, struct error *err);

/* 1: *ret is the next item; 0: the end; -EINVAL, err has the line: a syntax
 * error. There are no gaps between items. */
int toml_next(struct toml *t, struct toml_item *ret);

#endif
