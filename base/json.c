#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"

/* jansson recurses once per level on the caller's stack. Brackets in strings do
 * not count. jansson itself checks everything else. */
static int check_depth(const char *data, size_t len, struct error *err)
{
	unsigned int depth = 0;
	bool in_string = false;

	for (size_t i = 0; i < len; i++) {
		char c = data[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '[' || c == '{') {
			if (++depth > JSON_MAX_DEPTH)
				return set_error(err, -EINVAL,
						 "JSON: nested deeper than %d "
						 "at byte %zu",
						 JSON_MAX_DEPTH, i);
		} else if ((c == ']' || c == '}') && depth > 0) {
			depth--;
		}
	}
	return 0;
}

/* jansson's own message quotes the input, which may contain a password. */
static const char *error_words(enum json_error_code code)
{
	switch (code) {
	case json_error_out_of_memory:
		return "out of memory";
	case json_error_premature_end_of_input:
		return "ends too early";
	case json_error_end_of_input_expected:
		return "more than one value";
	case json_error_invalid_utf8:
		return "invalid UTF-8";
	case json_error_duplicate_key:
		return "duplicate key";
	case json_error_numeric_overflow:
		return "number too large";
	case json_error_null_character:
	case json_error_null_byte_in_key:
		return "NUL in a string";
	case json_error_invalid_syntax:
	default:
		return "syntax error";
	}
}

int json_parse(const char *data, size_t len, size_t max_bytes, json_t **ret,
	       struct error *err)
{
	json_error_t e;
	json_t *v;
	int r;

	if (len > max_bytes)
		return set_error(err, -EMSGSIZE,
				 "JSON: %zu bytes, at most %zu are allowed",
				 len, max_bytes);
	r = check_depth(data, len, err);
	if (r < 0)
		return r;
	v = json_loadb(data ? data : "", len,
		       JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
	if (!v)
		return set_error(err,
				 json_error_code(&e) == json_error_out_of_memory
					 ? -ENOMEM
					 : -EINVAL,
				 "JSON: %s at line %d, column %d",
				 error_words(json_error_code(&e)), e.line,
				 e.column);
	*ret = v;
	return 0;
}

static int read_all(int fd, struct buf *out)
{
	for (;;) {
		char part[4096];
		ssize_t n = read(fd, part, sizeof(part));
		int r;

		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -errno;
		if (n == 0)
			return 0;
		r = buf_add(out, part, (size_t)n);
		if (r < 0)
			return r;
	}
}

int json_parse_file(const char *path, size_t max_bytes, json_t **ret,
		    struct error *err)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(max_bytes);
	CLEANUP(closep) int fd = -1;
	struct error e;
	int r;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	r = fd == -1 ? -errno : read_all(fd, &b);
	if (r == -EMSGSIZE)
		return set_error(err, r, "%s: more than %zu bytes", path,
				 max_bytes);
	if (r < 0)
		return set_error(err, r, "%s: %s", path, strerror(-r));
	r = json_parse(b.data, b.len, max_bytes, ret, &e);
	if (r < 0)
		return set_error(err, r, "%.255s: %s", path, e.text);
	return 0;
}

const char *json_get_str(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

json_t *json_get_obj(const json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);

	return json_is_object(v) ? v : NULL;
}

json_t *json_get_arr(const json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);

	return json_is_array(v) ? v : NULL;
}

int json_get_u64(const json_t *o, const char *key, uint64_t *ret)
{
	const json_t *v = json_object_get(o, key);

	if (!v)
		return -ENOENT;
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return -ERANGE;
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

struct dump {
	struct buf *out;
	int r;
};

static int dump_part(const char *data, size_t len, void *arg)
{
	struct dump *d = arg;

	d->r = buf_add(d->out, data, len);
	return d->r < 0 ? -1 : 0;
}

int json_dump(const json_t *v, struct buf *out)
{
	struct dump d = {.out = out};
	size_t before = out->len;

	if (json_dump_callback(v, dump_part, &d,
			       JSON_COMPACT | JSON_ENCODE_ANY) == 0)
		return 0;
	buf_truncate(out, before);
	return d.r < 0 ? d.r : -ENOMEM;
}

int json_quote(struct buf *out, const char *s)
{
	size_t before = out->len, len = strlen(s);
	int r = buf_add(out, "\"", 1);

	while (r == 0 && len > 0) {
		char c[TEXT_ESCAPE_SIZE];
		size_t n = text_escape(s, len, c);

		r = buf_str(out, c);
		s += n;
		len -= n;
	}
	if (r == 0)
		r = buf_add(out, "\"", 1);
	if (r < 0)
		buf_truncate(out, before);
	return r;
}
