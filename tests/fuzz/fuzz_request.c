/* The request path: finds and parses heads, then decodes the rest as a chunked
 * body, as a whole and byte by byte. Both must agree, and the results must keep
 * the promises of http/parser.h. */
#include <errno.h>
#include <stdint.h>
#include <strings.h>

#include "http/parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void check_string(const char *s, size_t len, size_t at, size_t head_len)
{
	check(at + len < head_len && s[at + len] == '\0');
	for (size_t i = at; i < at + len; i++)
		check((unsigned char)s[i] >= 0x20 || s[i] == '\t');
}

static void check_head(const char *bytes, size_t len, const struct http_head *h)
{
	unsigned int hosts = 0, framings = 0;

	check_string(bytes, h->target_len, h->target, len);
	check(h->path_len > 0 && h->path_len <= h->target_len);
	check(bytes[h->target] == '/' || bytes[h->target] == '*');
	check(h->path_len == h->target_len ||
	      bytes[h->target + h->path_len] == '?');
	check(!(h->chunked && h->content_length > 0));
	for (uint32_t i = 0; i < h->n_fields; i++) {
		const struct http_field *f = &h->fields[i];

		check(f->name_len > 0);
		check_string(bytes, f->name_len, f->name, len);
		check_string(bytes, f->value_len, f->value, len);
		hosts += strcasecmp(bytes + f->name, "host") == 0;
		framings += strcasecmp(bytes + f->name, "content-length") == 0;
		framings +=
			strcasecmp(bytes + f->name, "transfer-encoding") == 0;
	}
	check(framings <= 1 && hosts <= 1 && (hosts == 1 || h->minor == 0));
}

static int unchunk(const char *s, size_t len, size_t step, char *out,
		   size_t *ret_total, size_t *ret_taken)
{
	struct http_chunked d = {0};
	size_t at = 0, used, n;
	const char *body;
	int r = 0;

	*ret_total = *ret_taken = 0;
	while (at < len && r == 0) {
		size_t end = at + step < len ? at + step : len;

		r = http_chunked_next(&d, s + at, end - at, &used, &body, &n);
		if (r < 0)
			break;
		check(used <= end - at);
		check(used > 0);
		check(n == 0 || (body >= s + at && body + n == s + at + used));
		if (n > 0)
			memcpy(out + *ret_total, body, n);
		*ret_total += n;
		at += used;
	}
	*ret_taken = at;
	return r;
}

static void check_chunks(const char *s, size_t len)
{
	char *a = malloc(len + 1), *b = malloc(len + 1);
	size_t na, nb, ta, tb;
	int ra, rb;

	check(a && b);
	ra = unchunk(s, len, len + 1, a, &na, &ta);
	rb = unchunk(s, len, 1, b, &nb, &tb);
	check(ra == rb && na == nb && memcmp(a, b, na) == 0);
	check(ra < 0 || ta == tb);
	free(a);
	free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct http_head h;
	char *bytes = malloc(size + 1);
	size_t pos = 0, len = 0, pos1 = 0, len1 = 0, n;
	int r, r1 = -EAGAIN;

	check(bytes != NULL);
	memcpy(bytes, data, size);
	r = http_head_find(bytes, size, &pos, &len);
	for (n = 1; n <= size && r1 == -EAGAIN; n++)
		r1 = http_head_find(bytes, n, &pos1, &len1);
	check(r == r1);
	if (r == 0) {
		check(len == len1 && len <= size);
		/* A copy of the exact size lets ASan detect a read one byte
		 * past the end. */
		char *head = malloc(len);

		check(head != NULL);
		memcpy(head, bytes, len);
		r = http_head_parse(head, len, 1024, &h);
		check(r == 0 || strcmp(http_status_phrase(r), "Unknown") != 0);
		if (r == 0)
			check_head(head, len, &h);
		free(head);
		check_chunks(bytes + len, size - len);
	}
	check_chunks(bytes, size);
	free(bytes);
	return 0;
}
