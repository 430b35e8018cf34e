/* Parses JSON from untrusted sources, with limits on size and depth. Source:
 * RFC 8259. Duplicate keys, NUL in strings and bytes after the value are
 * errors. Only json.c calls jansson's parser; other files get <jansson.h>
 * through this header, to read values. Any thread. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/util.h"

#define JSON_MAX_DEPTH 32

/* Parses exactly one value. -EMSGSIZE: len > max_bytes. -EINVAL: not JSON, a
 * duplicate key, or nested deeper than JSON_MAX_DEPTH (checked before jansson
 * recurses); *err gives the position. -ENOMEM. On 0 the caller owns *ret and
 * ends it with CLEANUP(json_decrefp) of jansson, or json_decref(). */
int json_parse(const char *data, size_t len, size_t max_bytes, json_t **ret,
	       struct error *err);

/* As json_parse(), for a file of at most max_bytes. Also -errno of open(2) and
 * read(2). */
int json_parse_file(const char *path, size_t max_bytes, json_t **ret,
		    struct error *err);

/* Return a value borrowed from o. NULL if o is not an object, or has no such
 * key of that type. */
const char *json_get_str(const json_t *o, const char *key);
json_t *json_get_obj(const json_t *o, const char *key);
json_t *json_get_arr(const json_t *o, const char *key);
/* -ENOENT: absent. -ERANGE: negative, or not an integer. */
int json_get_u64(const json_t *o, const char *key, uint64_t *ret);

/* Appends v in compact form. -EMSGSIZE or -ENOMEM; out is unchanged then. */
int json_dump(const json_t *v, struct buf *out);

/* Appends s as a JSON string with its quotes; a byte that is not UTF-8 becomes
 * U+FFFD. -EMSGSIZE or -ENOMEM; out is unchanged then. */
int json_quote(struct buf *out, const char *s);

#endif
