/* JSON from strangers, read with limits on size and depth; jansson is included
 * here and in the files that read values (through this header), its parser is
 * called only in json.c. Source: RFC 8259. Duplicate keys, NUL in strings and
 * bytes after the value are errors. Any thread. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/util.h"

#define JSON_MAX_DEPTH 32

/* Parses exactly one value. -EMSGSIZE when len > max_bytes, -EINVAL when it is
 * not JSON, is nested deeper than JSON_MAX_DEPTH (checked before jansson
 * recurses) or has a duplicate key; *err says where. On 0 the caller owns
 * *ret: CLEANUP(json_decrefp) of jansson, or json_decref(). */
int json_parse(const char *data, size_t len, size_t max_bytes, json_t **ret,
	       struct error *err);

/* Reads a whole file of at most max_bytes. -errno of open(2) and read(2). */
int json_parse_file(const char *path, size_t max_bytes, json_t **ret,
		    struct error *err);

/* NULL when o is no object, or has no such key of that type. Borrowed from
 * o. */
const char *json_get_str(const json_t *o, const char *key);
json_t *json_get_obj(const json_t *o, const char *key);
json_t *json_get_arr(const json_t *o, const char *key);
/* -ENOENT when absent, -ERANGE when negative or not an integer. */
int json_get_u64(const json_t *o, const char *key, uint64_t *ret);

/* Appends v in compact form. -EMSGSIZE or -ENOMEM. */
int json_dump(const json_t *v, struct buf *out);

/* Appends s as a JSON string, quotes included; bytes that are not UTF-8 come
 * out as U+FFFD. -EMSGSIZE or -ENOMEM. */
int json_quote(struct buf *out, const char *s);

#endif
