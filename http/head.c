#include "http/head.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* 101 is a final response, although 1xx: after it the connection does not carry
 * HTTP any more. RFC 9110, 15.2.2. */
#define SWITCHING_PROTOCOLS 101

void head_init(struct head *h)
{
	h->text = BUF_INIT(HEAD_MAX_BYTES);
	h->nfields = 0;
	h->status = 0;
	h->content_length = -1;
	h->chunked = h->complete = false;
}

void head_release(struct head *h)
{
	buf_release(&h->text);
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "HTTP/1.1 200 OK", "HTTP/2 200". */
static int add_status_line(struct head *h, const char *line, size_t len)
{
	const char *p = memchr(line, ' ', len);
	size_t left = p ? len - (size_t)(p - line) : 0;

	if (left < 4 || !is_digit(p[1]) || !is_digit(p[2]) || !is_digit(p[3]) ||
	    (left > 4 && p[4] != ' '))
		return -EPROTO;
	buf_reset(&h->text);
	h->nfields = 0;
	h->content_length = -1;
	h->chunked = false;
	h->status = (p[1] - '0') * 100 + (p[2] - '0') * 10 + (p[3] - '0');
	return h->status >= 100 ? 0 : -EPROTO;
}

/* Equal values count as one; different values are an attack: RFC 9110, 8.6. */
static int note_content_length(struct head *h, const char *value)
{
	int64_t v = 0;

	if (!*value)
		return -EPROTO;
	for (const char *p = value; *p; p++)
		if (!is_digit(*p) || __builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, *p - '0', &v))
			return -EPROTO;
	if (h->content_length >= 0 && h->content_length != v)
		return -EPROTO;
	h->content_length = v;
	return 0;
}

static int add_field(struct head *h, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len), *value;
	size_t name_len, value_len;
	int r;

	/* Folded lines are refused, too: RFC 9112, 5.2. */
	if (!colon || colon == line || line[0] == ' ' || line[0] == '\t' ||
	    memchr(line, '\0', len) || h->status == 0 ||
	    h->nfields == HEAD_MAX_FIELDS)
		return -EPROTO;
	name_len = (size_t)(colon - line);
	value = colon + 1;
	value_len = len - name_len - 1;
	while (value_len > 0 && (*value == ' ' || *value == '\t')) {
		value++;
		value_len--;
	}
	while (value_len > 0 &&
	       (value[value_len - 1] == ' ' || value[value_len - 1] == '\t'))
		value_len--;

	h->field[h->nfields].name = (uint32_t)h->text.len;
	r = buf_add(&h->text, line, name_len);
	if (r == 0)
		r = buf_add(&h->text, "", 1);
	if (r == 0) {
		h->field[h->nfields].value = (uint32_t)h->text.len;
		r = buf_add(&h->text, value, value_len);
	}
	if (r == 0)
		r = buf_add(&h->text, "", 1);
	if (r < 0)
		return r == -EMSGSIZE ? -EPROTO : r;
	line = h->text.data + h->field[h->nfields].name;
	value = h->text.data + h->field[h->nfields].value;
	h->nfields++;
	if (strcasecmp(line, "content-length") == 0)
		return note_content_length(h, value);
	if (strcasecmp(line, "transfer-encoding") == 0)
		h->chunked = true;
	return 0;
}

static size_t without_crlf(const char *line, size_t len)
{
	if (len > 0 && line[len - 1] == '\n')
		len--;
	if (len > 0 && line[len - 1] == '\r')
		len--;
	return len;
}

int head_add_trailer(struct head *h, const char *line, size_t len)
{
	len = without_crlf(line, len);
	h->status = 200;
	return len > 0 ? add_field(h, line, len) : 0;
}

int head_add(struct head *h, const char *line, size_t len)
{
	BUG_ON(h->complete);
	len = without_crlf(line, len);
	if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
		return add_status_line(h, line, len);
	if (len > 0)
		return add_field(h, line, len);
	if (h->status == 0)
		return -EPROTO;
	if (h->status < 200 && h->status != SWITCHING_PROTOCOLS)
		return 0;
	if (h->chunked)
		h->content_length = -1;
	h->complete = true;
	return 1;
}

const char *head_get(const struct head *h, const char *name, size_t i)
{
	for (unsigned int f = 0; f < h->nfields; f++)
		if (strcasecmp(h->text.data + h->field[f].name, name) == 0 &&
		    i-- == 0)
			return h->text.data + h->field[f].value;
	return NULL;
}
