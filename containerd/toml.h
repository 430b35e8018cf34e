/* Where things stand in a TOML file: comments, keys and table headers with the
 * bytes they take, so that a file can be edited without touching the rest.
 * Values are stepped over, not read; what TOML forbids beyond that (a key
 * given twice, a number with two points) is not noticed.
 * Source: toml.io, TOML 1.0; newlines in inline tables as in 1.1. Any
 * thread. */
#ifndef CONTAINERD_TOML_H
#define CONTAINERD_TOML_H

#include <stdbool.h>
#include <stddef.h>

#include "base/util.h"

#define TOML_PART_SIZE 520

enum toml_type {
	TOML_BLANK,   /* a line without anything */
	TOML_COMMENT, /* a line of its own */
	TOML_TABLE,   /* [a.b] */
	TOML_ARRAY,   /* [[a.b]] */
	TOML_KEY,     /* a.b = …, all lines of the value */
};

/* The first two parts, decoded; one that does not fit is "". */
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

/* Lends s and err until the last toml_next(). A byte order mark is stepped
 * over. -EINVAL, err set, for bytes that no TOML file has: other encodings
 * than UTF-8, control characters. */
int toml_init(struct toml *t, const char *s, size_t len, struct error *err);

/* 1: *ret is the next item; 0: the end; -EINVAL, err with the line: not
 * understood. Items follow each other without gaps. */
int toml_next(struct toml *t, struct toml_item *ret);

#endif
