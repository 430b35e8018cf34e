#include "http/parser.h"

#include <errno.h>
#include <llhttp.h>
#include <strings.h>

#include "base/text.h"
#include "base/util.h"

/* All extensions and trailers of a body together: nobody needs them. */
#define MAX_CHUNK_EXTRA 2048

/* RFC 9110, 5.6.2 */
#define TCHAR                                                                  \
	"!#$%&'*+-.^_`|~0123456789"                                            \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static bool is_text(unsigned char c)
{
	return (c >= 0x20 && c != 0x7f) || c == '\t';
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
};

static int on_url(llhttp_t *p, const char *at, size_t len)
{
	struct walk *w = p->data;

	w->head->target = (uint32_t)(at - w->bytes);
	w->head->target_len = (uint32_t)len;
	return 0;
}

/* llhttp 8.1 takes an empty name. */
static int on_field(llhttp_t *p, const char *at, size_t len)
{
	struct walk *w = p->data;
	struct http_head *h = w->head;

	if (len == 0)
		return HPE_INVALID_HEADER_TOKEN;
	if (h->n_fields == HTTP_MAX_FIELDS)
		return HPE_USER;
	h->fields[h->n_fields++] = (struct http_field){
		.name = (uint32_t)(at - w->bytes),
		.name_len = (uint16_t)len,
		.value = (uint32_t)(at - w->bytes + (ptrdiff_t)len),
	};
	return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t len)
{
	struct walk *w = p->data;
	struct http_field *f = &w->head->fields[w->head->n_fields - 1];

	while (len > 0 && (at[len - 1] == ' ' || at[len - 1] == '\t'))
		len--;
	/* For an empty value `at` may point into the next line; the value stays
	 * where on_field() put it, at the colon. */
	if (len == 0)
		return 0;
	f->value = (uint32_t)(at - w->bytes);
	f->value_len = (uint16_t)len;
	return 0;
}

/* llhttp reads the head only. Bodies are left to http_chunked_next(), which
 * limits extensions and trailers, and to the caller. */
static int on_headers_complete(llhttp_t *p)
{
	(void)p;
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_url = on_url,
	.on_header_field = on_field,
	.on_header_value = on_value,
	.on_headers_complete = on_headers_complete,
};

/* llhttp skips empty lines before the request line, and blanks around the
 * target. */
static bool request_line_ok(const char *bytes, const struct http_head *h)
{
	return h->target == strlen(h->method) + 1 &&
	       bytes[h->target + h->target_len + 1] == 'H';
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
	if (memchr(t, '#', h->target_len))
		return 400;
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
	unsigned int hosts = 0;

	for (uint32_t i = 0; i < h->n_fields; i++) {
		struct http_field *f = &h->fields[i];
		const char *v = bytes + f->value;

		bytes[f->name + f->name_len] = '\0';
		bytes[f->value + f->value_len] = '\0';
		if (name_is(f, bytes, "host")) {
			if (hosts++ > 0 || !host_ok(v))
				return 400;
		} else if (name_is(f, bytes, "transfer-encoding")) {
			if (h->chunked || h->minor == 0)
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
	return hosts == 0 && h->minor > 0 ? 400 : 0;
}

/* 501 for an unknown method, 400 for a malformed one. */
static int refuse(llhttp_errno_t err, const llhttp_t *p, char *bytes,
		  size_t len)
{
	size_t n;

	if (err == HPE_USER)
		return 431;
	if (err != HPE_INVALID_METHOD && p->method <= HTTP_SOURCE)
		return 400;
	bytes[len - 1] = '\0';
	n = strspn(bytes, TCHAR);
	return n > 0 && bytes[n] == ' ' ? 501 : 400;
}

int http_head_parse(char *bytes, size_t len, size_t max_target,
		    struct http_head *ret)
{
	struct walk w = {.head = ret, .bytes = bytes};
	llhttp_errno_t err;
	llhttp_t p;
	int r;

	memset(ret, 0, offsetof(struct http_head, fields));
	ret->method = "";
	ret->minor = 1;
	if (len > HTTP_MAX_HEAD)
		return 431;
	llhttp_init(&p, HTTP_REQUEST, &settings);
	/* HTTP/1.2 is read as 1.1 (RFC 9110, 2.5). llhttp 8.1 has no function
	 * that sets this flag. */
	p.lenient_flags |= LENIENT_VERSION;
	p.data = &w;
	err = llhttp_execute(&p, bytes, len);
	/* The methods after SOURCE belong to RTSP and HTTP/2, or are unknown to
	 * llhttp 8.1. */
	if (err != HPE_PAUSED || llhttp_get_error_pos(&p) != bytes + len ||
	    p.method > HTTP_SOURCE)
		return refuse(err, &p, bytes, len);
	ret->method = llhttp_method_name((llhttp_method_t)p.method);
	ret->is_head = p.method == HTTP_HEAD;
	ret->keep_alive = llhttp_should_keep_alive(&p) != 0;
	ret->content_length = p.content_length;
	if (p.http_major != 1)
		return p.http_major > 1 ? 505 : 400;
	if (!request_line_ok(bytes, ret))
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

/* RFC 9110, section 15, and RFC 6585; 1xx are written where they are sent. */
static const char *const phrases[] = {
	[200] = "OK",
	[201] = "Created",
	[202] = "Accepted",
	[203] = "Non-Authoritative Information",
	[204] = "No Content",
	[205] = "Reset Content",
	[206] = "Partial Content",
	[300] = "Multiple Choices",
	[301] = "Moved Permanently",
	[302] = "Found",
	[303] = "See Other",
	[304] = "Not Modified",
	[307] = "Temporary Redirect",
	[308] = "Permanent Redirect",
	[400] = "Bad Request",
	[401] = "Unauthorized",
	[403] = "Forbidden",
	[404] = "Not Found",
	[405] = "Method Not Allowed",
	[406] = "Not Acceptable",
	[408] = "Request Timeout",
	[409] = "Conflict",
	[410] = "Gone",
	[411] = "Length Required",
	[412] = "Precondition Failed",
	[413] = "Content Too Large",
	[414] = "URI Too Long",
	[415] = "Unsupported Media Type",
	[416] = "Range Not Satisfiable",
	[417] = "Expectation Failed",
	[421] = "Misdirected Request",
	[422] = "Unprocessable Content",
	[426] = "Upgrade Required",
	[428] = "Precondition Required",
	[429] = "Too Many Requests",
	[431] = "Request Header Fields Too Large",
	[500] = "Internal Server Error",
	[501] = "Not Implemented",
	[502] = "Bad Gateway",
	[503] = "Service Unavailable",
	[504] = "Gateway Timeout",
	[505] = "HTTP Version Not Supported",
};

const char *http_status_phrase(int status)
{
	const char *s = status >= 0 && status < (int)ARRAY_SIZE(phrases)
				? phrases[status]
				: NULL;

	return s ? s : "Unknown";
}
