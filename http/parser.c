#include "http/parser.h"

#include <errno.h>
#include <http_parser.h>
#include <strings.h>

#include "base/text.h"
#include "base/util.h"

/* All extensions and trailers of a body together: nobody needs them. */
#define MAX_CHUNK_EXTRA 2048

static bool is_text(unsigned char c)
{
	return (c >= 0x20 && c != 0x7f) || c == '\t';
}

/* RFC 9110, 5.6.2: tchar */
static bool is_token(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		    (c >= '0' && c <= '9'))
			continue;
		if (c == 0 || !strchr("!#$%&'*+-.^_`|~", c))
			return false;
	}
	return len > 0;
}

int http_head_find(const char *bytes, size_t len, size_t *pos, size_t *ret_len)
{
	size_t i;

	for (i = *pos; i < len; i++) {
		if (is_text((unsigned char)bytes[i]))
			continue;
		if (bytes[i] != '\r')
			return -EBADMSG;
		if (i + 1 == len)
			break;
		if (bytes[i + 1] != '\n')
			return -EBADMSG;
		if (i > 0 && bytes[i - 1] == '\n') {
			*ret_len = i + 2;
			return 0;
		}
		/* Whether the next line is a folded one is still to be seen:
		 * come back to this CR. */
		if (i + 2 == len)
			break;
		if (bytes[i + 2] == ' ' || bytes[i + 2] == '\t')
			return -EBADMSG;
		i++;
	}
	*pos = i;
	return -EAGAIN;
}

struct walk {
	struct http_head *head;
	const char *bytes;
	bool in_value;
	bool overflow;
	bool complete;
};

static int on_url(http_parser *p, const char *at, size_t len)
{
	struct walk *w = p->data;

	w->head->target = (uint32_t)(at - w->bytes);
	w->head->target_len = (uint32_t)len;
	return 0;
}

static int on_field(http_parser *p, const char *at, size_t len)
{
	struct walk *w = p->data;
	struct http_head *h = w->head;

	if (h->n_fields == HTTP_MAX_FIELDS || len > UINT16_MAX) {
		w->overflow = true;
		return -1;
	}
	h->fields[h->n_fields++] = (struct http_field){
		.name = (uint32_t)(at - w->bytes),
		.name_len = (uint16_t)len,
		.value = (uint32_t)(at - w->bytes + (ptrdiff_t)len),
	};
	return 0;
}

static int on_value(http_parser *p, const char *at, size_t len)
{
	struct walk *w = p->data;
	struct http_field *f;

	while (len > 0 && (at[len - 1] == ' ' || at[len - 1] == '\t'))
		len--;
	if (w->head->n_fields == 0 || len > UINT16_MAX) {
		w->overflow = true;
		return -1;
	}
	/* For an empty value `at` may point into the next line; the value stays
	 * where on_field() put it, at the colon. */
	if (len == 0)
		return 0;
	f = &w->head->fields[w->head->n_fields - 1];
	f->value = (uint32_t)(at - w->bytes);
	f->value_len = (uint16_t)len;
	return 0;
}

static int on_headers_complete(http_parser *p)
{
	struct walk *w = p->data;

	w->complete = true;
	w->head->keep_alive = http_should_keep_alive(p) != 0;
	return 1; /* no body: its framing is http_chunked's and the caller's */
}

static const http_parser_settings settings = {
	.on_url = on_url,
	.on_header_field = on_field,
	.on_header_value = on_value,
	.on_headers_complete = on_headers_complete,
};

/* The request line as RFC 9112 has it, with single blanks; http-parser skips
 * several. */
static bool request_line_ok(const char *bytes, size_t len,
			    const struct http_head *h)
{
	size_t method = strlen(h->method);
	size_t end = (size_t)h->target + h->target_len;

	return h->target == method + 1 && end + 11 <= len &&
	       memcmp(bytes, h->method, method) == 0 && bytes[method] == ' ' &&
	       memcmp(bytes + end, " HTTP/1.", 8) == 0 &&
	       memcmp(bytes + end + 9, "\r\n", 2) == 0;
}

/* Absolute-form becomes origin-form in place. */
static bool reduce_absolute(char *bytes, struct http_head *h)
{
	char *t = bytes + h->target, *end = t + h->target_len, *p;

	if (h->target_len > 7 && strncasecmp(t, "http://", 7) == 0)
		t += 7;
	else if (h->target_len > 8 && strncasecmp(t, "https://", 8) == 0)
		t += 8;
	else
		return false;
	for (p = t; p < end && *p != '/' && *p != '?'; p++) {
		if (*p == '@')
			return false;
	}
	if (p == t)
		return false;
	/* No path: the authority's last byte makes room for one. */
	if (p == end || *p == '?')
		*--p = '/';
	h->target = (uint32_t)(p - bytes);
	h->target_len = (uint32_t)(end - p);
	return true;
}

static int check_target(char *bytes, size_t max_target, struct http_head *h)
{
	const char *t = bytes + h->target, *q;

	if (h->target_len > max_target)
		return 414;
	for (uint32_t i = 0; i < h->target_len; i++) {
		unsigned char c = (unsigned char)t[i];

		if (c <= 0x20 || c >= 0x7f || c == '#')
			return 400;
	}
	bytes[h->target + h->target_len] = '\0';
	if (strcmp(h->method, "CONNECT") == 0)
		return 501;
	if (strcmp(t, "*") == 0)
		h->path_len = 1;
	if (h->path_len == 1)
		return strcmp(h->method, "OPTIONS") == 0 ? 0 : 400;
	if (*t != '/' && !reduce_absolute(bytes, h))
		return 400;
	q = strchr(bytes + h->target, '?');
	h->path_len = q ? (uint32_t)(q - bytes) - h->target : h->target_len;
	return 0;
}

static bool name_is(const struct http_field *f, const char *bytes,
		    const char *name)
{
	return strcasecmp(bytes + f->name, name) == 0;
}

/* RFC 3986's characters of an authority without user information. */
static bool host_ok(const char *s)
{
	for (; *s; s++) {
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
		      (*s >= '0' && *s <= '9') ||
		      strchr("-._~!$&'()*+;=%:[]", *s)))
			return false;
	}
	return true;
}

static bool parse_length(const char *s, uint64_t *ret)
{
	size_t n = strspn(s, "0123456789");

	if (n == 0 || n > 18 || s[n])
		return false;
	*ret = strtoull(s, NULL, 10);
	return true;
}

/* RFC 9112, 6.1 and 6.3: what does not end in chunked has no known end. */
static int refuse_coding(const char *v)
{
	const char *last = strrchr(v, ',');

	last = last ? last + 1 : v;
	last += strspn(last, " \t");
	return strcasecmp(last, "chunked") == 0 ? 501 : 400;
}

static int check_fields(char *bytes, struct http_head *h)
{
	unsigned int hosts = 0, lengths = 0, codings = 0;

	for (uint32_t i = 0; i < h->n_fields; i++) {
		struct http_field *f = &h->fields[i];
		const char *v = bytes + f->value;

		if (!is_token(bytes + f->name, f->name_len) ||
		    bytes[f->name + f->name_len] != ':')
			return 400;
		bytes[f->name + f->name_len] = '\0';
		bytes[f->value + f->value_len] = '\0';
		if (name_is(f, bytes, "host")) {
			if (hosts++ > 0 || !host_ok(v))
				return 400;
		} else if (name_is(f, bytes, "content-length")) {
			if (lengths++ > 0 ||
			    !parse_length(v, &h->content_length))
				return 400;
		} else if (name_is(f, bytes, "transfer-encoding")) {
			if (codings++ > 0 || h->minor == 0)
				return 400;
			if (strcasecmp(v, "chunked") != 0)
				return refuse_coding(v);
			h->chunked = true;
		} else if (name_is(f, bytes, "expect") && h->minor > 0) {
			if (strcasecmp(v, "100-continue") != 0)
				return 417;
			h->expect_continue = true;
		}
	}
	if ((lengths > 0 && codings > 0) || (hosts == 0 && h->minor > 0))
		return 400;
	return 0;
}

static int refuse(const http_parser *p, const struct walk *w, char *bytes,
		  size_t len)
{
	size_t n = 0;

	if (w->overflow || p->http_errno == HPE_HEADER_OVERFLOW)
		return 431;
	if (p->http_errno != HPE_INVALID_METHOD)
		return 400;
	while (n < len && bytes[n] != ' ' && bytes[n] != '\r')
		n++;
	return n < len && bytes[n] == ' ' && is_token(bytes, n) ? 501 : 400;
}

int http_head_parse(char *bytes, size_t len, size_t max_target,
		    struct http_head *ret)
{
	struct walk w = {.head = ret, .bytes = bytes};
	http_parser p;
	int r;

	memset(ret, 0, offsetof(struct http_head, fields));
	ret->method = "";
	ret->minor = 1;
	http_parser_init(&p, HTTP_REQUEST);
	p.data = &w;
	if (len > HTTP_MAX_HEAD)
		return 431;
	if (http_parser_execute(&p, &settings, bytes, len) != len ||
	    p.http_errno != HPE_OK || !w.complete)
		return refuse(&p, &w, bytes, len);
	ret->method = http_method_str(p.method);
	ret->is_head = p.method == HTTP_HEAD;
	if (p.http_major > 1)
		return 505;
	if (!request_line_ok(bytes, len, ret))
		return 400;
	ret->minor = p.http_minor > 0;
	r = check_target(bytes, max_target, ret);
	if (r != 0)
		return r;
	return check_fields(bytes, ret);
}

enum chunk_state {
	CHUNK_SIZE,
	CHUNK_EXTENSION,
	CHUNK_SIZE_LF,
	CHUNK_DATA,
	CHUNK_DATA_CR,
	CHUNK_DATA_LF,
	CHUNK_LINE, /* the start of a trailer line, or of the last line */
	CHUNK_TRAILER,
	CHUNK_TRAILER_LF,
	CHUNK_LAST_LF,
	CHUNK_END,
};

static int chunk_size(struct http_chunked *d, char c)
{
	int digit = hex_value(c);

	if (digit >= 0) {
		if (++d->digits > 15)
			return -EBADMSG;
		d->left = d->left << 4 | (unsigned int)digit;
		return CHUNK_SIZE;
	}
	if (d->digits == 0)
		return -EBADMSG;
	if (c == '\r')
		return CHUNK_SIZE_LF;
	return c == ';' ? CHUNK_EXTENSION : -EBADMSG;
}

static int chunk_text(struct http_chunked *d, char c, int stay, int next)
{
	if (c == '\r')
		return next;
	if (!is_text((unsigned char)c) || ++d->extra > MAX_CHUNK_EXTRA)
		return -EBADMSG;
	return stay;
}

/* The state after byte c, which is not chunk data. */
static int chunk_step(struct http_chunked *d, char c)
{
	switch ((enum chunk_state)d->state) {
	case CHUNK_SIZE:
		return chunk_size(d, c);
	case CHUNK_EXTENSION:
		return chunk_text(d, c, CHUNK_EXTENSION, CHUNK_SIZE_LF);
	case CHUNK_SIZE_LF:
		if (c != '\n')
			return -EBADMSG;
		return d->left > 0 ? CHUNK_DATA : CHUNK_LINE;
	case CHUNK_DATA_CR:
		return c == '\r' ? CHUNK_DATA_LF : -EBADMSG;
	case CHUNK_DATA_LF:
		d->digits = 0;
		return c == '\n' ? CHUNK_SIZE : -EBADMSG;
	case CHUNK_LINE:
		if (c == ' ' || c == '\t')
			return -EBADMSG;
		return chunk_text(d, c, CHUNK_TRAILER, CHUNK_LAST_LF);
	case CHUNK_TRAILER:
		return chunk_text(d, c, CHUNK_TRAILER, CHUNK_TRAILER_LF);
	case CHUNK_TRAILER_LF:
		return c == '\n' ? CHUNK_LINE : -EBADMSG;
	case CHUNK_LAST_LF:
		return c == '\n' ? CHUNK_END : -EBADMSG;
	case CHUNK_DATA:
	case CHUNK_END:
		break;
	}
	return -EBADMSG;
}

int http_chunked_next(struct http_chunked *d, const char *bytes, size_t len,
		      size_t *ret_used, const char **ret_data, size_t *ret_len)
{
	size_t i;
	int next;

	*ret_len = 0;
	for (i = 0; i < len && d->state != CHUNK_END; i++) {
		if (d->state == CHUNK_DATA) {
			*ret_data = bytes + i;
			*ret_len = (size_t)min_u64(d->left, len - i);
			d->left -= *ret_len;
			if (d->left == 0)
				d->state = CHUNK_DATA_CR;
			*ret_used = i + *ret_len;
			return 0;
		}
		next = chunk_step(d, bytes[i]);
		if (next < 0)
			return next;
		d->state = next;
	}
	*ret_used = i;
	return d->state == CHUNK_END;
}

const char *http_status_phrase(int status)
{
	const char *s = http_status_str((enum http_status)status);

	return *s == '<' ? "Unknown" : s;
}
