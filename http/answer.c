#include <errno.h>
#include <stdarg.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/text.h"
#include "http/server-private.h"

/* ---- The request ---- */

const char *http_req_method(const struct http_req *rq)
{
	return rq->head.method;
}

static const char *head_bytes(const struct http_req *rq)
{
	return container_of(rq, const struct conn, rq)->in;
}

/* The string lives as long as the request. NULL without memory. */
static char *new_string(const struct http_req *rq, size_t len)
{
	struct http_str *s = malloc(sizeof(*s) + len + 1);

	if (!s)
		return NULL;
	s->next = rq->strs->first;
	rq->strs->first = s;
	s->s[len] = '\0';
	return s->s;
}

const char *http_req_target(const struct http_req *rq)
{
	return head_bytes(rq) + rq->head.target;
}

const char *http_req_path(const struct http_req *rq)
{
	const char *target = http_req_target(rq);
	char *path;

	if (rq->head.path_len == rq->head.target_len)
		return target;
	path = new_string(rq, rq->head.path_len);
	if (path)
		memcpy(path, target, rq->head.path_len);
	return path ? path : "";
}

/* '+' means a space in a query. False on a malformed escape and on NUL. */
static bool decode(const char *s, size_t len, char *out)
{
	for (size_t i = 0; i < len; i++) {
		int high, low;

		if (s[i] != '%') {
			*out++ = (char)(s[i] == '+' ? ' ' : s[i]);
			continue;
		}
		high = i + 2 < len ? hex_value(s[i + 1]) : -1;
		low = i + 2 < len ? hex_value(s[i + 2]) : -1;
		if (high < 0 || low < 0 || high + low == 0)
			return false;
		*out++ = (char)(high << 4 | low);
		i += 2;
	}
	*out = '\0';
	return true;
}

const char *http_req_query(struct http_req *rq, const char *name)
{
	const char *p = http_req_target(rq) + rq->head.path_len;

	while (*p) {
		size_t len = strcspn(++p, "&");
		const char *eq = memchr(p, '=', len);
		size_t name_len = eq ? (size_t)(eq - p) : len;
		char *s = new_string(rq, len);

		if (!s)
			return NULL;
		if (decode(p, name_len, s) && strcmp(s, name) == 0) {
			if (!eq)
				return "";
			return decode(eq + 1, len - name_len - 1, s) ? s : NULL;
		}
		p += len;
	}
	return NULL;
}

const char *http_req_header(const struct http_req *rq, const char *name)
{
	const struct http_head *h = &rq->head;
	const char *in = head_bytes(rq), *first = NULL;
	size_t len = 0, n = 0;
	char *joined, *p;

	for (uint32_t i = 0; i < h->n_fields; i++) {
		if (strcasecmp(in + h->fields[i].name, name) != 0)
			continue;
		first = first ? first : in + h->fields[i].value;
		len += h->fields[i].value_len + 2U;
		n++;
	}
	if (n <= 1)
		return first;
	joined = p = new_string(rq, len);
	if (!joined)
		return NULL;
	for (uint32_t i = 0; i < h->n_fields; i++) {
		const struct http_field *f = &h->fields[i];

		if (strcasecmp(in + f->name, name) != 0)
			continue;
		memcpy(p, in + f->value, f->value_len);
		p += f->value_len;
		memcpy(p, ", ", 2);
		p += 2;
	}
	p[-2] = '\0';
	return joined;
}

const void *http_req_body(const struct http_req *rq, size_t *ret_len)
{
	const struct conn *c = container_of(rq, const struct conn, rq);

	*ret_len = c->body_len;
	return c->body_data ? c->body_data : "";
}

const char *http_req_client(const struct http_req *rq)
{
	char *s = new_string(rq, HTTP_ADDR_SIZE);

	return s ? conn_addr(container_of(rq, const struct conn, rq), s)
		 : "unknown";
}

bool http_req_is_head(const struct http_req *rq)
{
	return rq->head.is_head;
}

const char *http_req_tls_name(const struct http_req *rq)
{
	return container_of(rq, const struct conn, rq)->tls_name;
}

void http_req_set_data(struct http_req *rq, void *data)
{
	rq->data = data;
}

void *http_req_data(const struct http_req *rq)
{
	return rq->data;
}

void http_req_on_gone(struct http_req *rq, void (*gone)(struct http_req *rq))
{
	struct conn *c = req_conn(rq);

	rq->gone = gone;
	if (c->state == CONN_DEAD)
		conn_later(c, LATER_CALL);
}

/* ---- The head of the answer ---- */

void http_header_add(struct http_req *rq, const char *name, const char *fmt,
		     ...)
{
	CLEANUP(freep) char *value = NULL;
	va_list ap;
	int n;

	BUG_ON(rq->begun);
	va_start(ap, fmt);
	n = vasprintf(&value, fmt, ap);
	va_end(ap);
	if (n < 0) {
		value = NULL;
		rq->out_of_memory = true;
		return;
	}
	BUG_ON(strpbrk(name, "\r\n: ") || strpbrk(value, "\r\n"));
	if (buf_str(&rq->fields, name) < 0 || buf_str(&rq->fields, ": ") < 0 ||
	    buf_add(&rq->fields, value, (size_t)n) < 0 ||
	    buf_str(&rq->fields, "\r\n") < 0)
		rq->out_of_memory = true;
}

static const char *date_line(struct http_server *s)
{
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	time_t now = (time_t)now_unix_s();
	struct tm tm;

	if (s->date_s == (uint64_t)now || !gmtime_r(&now, &tm))
		return s->date;
	/* strftime(3) would use the locale. */
	(void)snprintf(s->date, sizeof(s->date),
		       "Date: %.3s, %02d %.3s %d %02d:%02d:%02d GMT\r\n",
		       days + 3 * (ptrdiff_t)tm.tm_wday, tm.tm_mday,
		       months + 3 * (ptrdiff_t)tm.tm_mon, tm.tm_year + 1900,
		       tm.tm_hour, tm.tm_min, tm.tm_sec);
	s->date_s = (uint64_t)now;
	return s->date;
}

static const char *connection_line(const struct conn *c)
{
	if (!c->keep)
		return "Connection: close\r\n";
	return c->rq.head.minor == 0 ? "Connection: keep-alive\r\n" : "";
}

/* length < 0: unknown. False without memory. */
static bool build_head(struct conn *c, int status, const char *type,
		       int64_t length)
{
	struct http_server *s = c->server;
	struct http_req *rq = &c->rq;
	char line[128], len[64] = "";
	int n;

	rq->begun = true;
	rq->without_body = rq->head.is_head || status == 204 || status == 304;
	if (length >= 0 && status != 204 && !(status == 304 && length == 0))
		(void)snprintf(len, sizeof(len), "Content-Length: %lld\r\n",
			       (long long)length);
	if (length < 0 && status != 204 && status != 304) {
		rq->chunked = rq->head.minor > 0;
		rq->until_close = !rq->chunked;
		c->keep = c->keep && rq->chunked;
		if (rq->chunked)
			(void)snprintf(len, sizeof(len),
				       "Transfer-Encoding: chunked\r\n");
	}
	if (s->stopping)
		c->keep = false;
	n = snprintf(line, sizeof(line), "HTTP/1.1 %d %s\r\nServer: ", status,
		     http_status_phrase(status));
	return !rq->out_of_memory && buf_add(&c->out, line, (size_t)n) == 0 &&
	       buf_str(&c->out, s->name) == 0 &&
	       buf_str(&c->out, "\r\n") == 0 &&
	       buf_str(&c->out, date_line(s)) == 0 &&
	       (!type || (buf_str(&c->out, "Content-Type: ") == 0 &&
			  buf_str(&c->out, type) == 0 &&
			  buf_str(&c->out, "\r\n") == 0)) &&
	       buf_str(&c->out, len) == 0 &&
	       buf_str(&c->out, connection_line(c)) == 0 &&
	       (rq->fields.len == 0 ||
		buf_add(&c->out, rq->fields.data, rq->fields.len) == 0) &&
	       buf_str(&c->out, "\r\n") == 0;
}

/* ---- Whole answers ---- */

void http_reply(struct http_req *rq, int status, const char *type,
		const void *body, size_t len)
{
	struct conn *c = req_conn(rq);
	bool ok = true;

	BUG_ON(rq->begun);
	rq->status = c->state == CONN_DEAD ? 0 : status;
	conn_unhold(c);
	if (c->state == CONN_DEAD)
		return;
	if (!build_head(c, status, type, (int64_t)len)) {
		conn_close(c, true);
		return;
	}
	conn_set_state(c, CONN_FLUSH);
	if (!rq->without_body) {
		c->lent = body;
		c->lent_len = len;
	}
	conn_kick(c);
	if (c->lent_len > 0) {
		ok = buf_add(&c->out, c->lent, c->lent_len) == 0;
		c->lent_len = 0;
	}
	if (!ok)
		conn_close(c, true);
}

void http_reply_error(struct http_req *rq, int status, const char *code,
		      const char *fmt, ...)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(16U << 10);
	char message[1024];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	if (buf_str(&b, "{\"errors\":[{\"code\":") < 0 ||
	    json_quote(&b, code) < 0 || buf_str(&b, ",\"message\":") < 0 ||
	    json_quote(&b, message) < 0 || buf_str(&b, "}]}\n") < 0)
		buf_reset(&b);
	http_reply(rq, status, "application/json", b.data, b.len);
}

/* ---- Answers in parts ---- */

void http_inform(struct http_req *rq)
{
	struct conn *c = req_conn(rq);

	if (c->state != CONN_HANDLER || rq->begun || c->out.len > 0 ||
	    rq->head.minor == 0)
		return;
	(void)buf_str(&c->out, "HTTP/1.1 102 Processing\r\n\r\n");
	conn_later(c, LATER_FLUSH);
}

void http_begin(struct http_req *rq, int status, int64_t length)
{
	struct conn *c = req_conn(rq);

	BUG_ON(rq->begun);
	rq->begun = true;
	rq->status = status;
	if (c->state == CONN_DEAD)
		return;
	if (!build_head(c, status, NULL, length)) {
		conn_close(c, true);
		return;
	}
	rq->promised = length > 0 && !rq->without_body ? (uint64_t)length : 0;
	/* The first bytes of the body leave with the head if they come in this
	 * turn. */
	conn_later(c, LATER_FLUSH);
}

/* True if there are bytes to send; else sent() will be called. */
static bool begin_write(struct conn *c, uint64_t len, http_sent_cb *sent)
{
	struct http_req *rq = &c->rq;
	bool ok = true;

	BUG_ON(!c->held || !rq->begun || c->sent);
	c->sent = sent;
	c->sent_r = c->state == CONN_DEAD ? -EPIPE : 0;
	if (c->state == CONN_DEAD || rq->without_body || len == 0) {
		conn_later(c, LATER_CALL);
		return false;
	}
	if (rq->chunked) {
		ok = buf_printf(&c->out, "%s%llx\r\n",
				rq->chunk_open ? "\r\n" : "",
				(unsigned long long)len) == 0;
		rq->chunk_open = true;
	} else if (!rq->until_close) {
		BUG_ON(len > rq->promised);
		rq->promised -= len;
	}
	c->writing = true;
	if (!ok)
		conn_close(c, true);
	return ok;
}

void http_write(struct http_req *rq, const void *bytes, size_t len,
		http_sent_cb *sent)
{
	struct conn *c = req_conn(rq);

	if (!begin_write(c, len, sent))
		return;
	c->lent = bytes;
	c->lent_len = len;
	conn_kick_unless_armed(c);
}

size_t http_take_back(struct http_req *rq)
{
	struct conn *c = req_conn(rq);
	size_t left = c->lent_len;

	if (!c->writing || left == 0 || rq->chunked)
		return 0;
	c->writing = false;
	c->sent = NULL;
	c->lent_len = 0;
	if (!rq->until_close)
		rq->promised += left;
	conn_kick(c); /* there may be nothing left that has a deadline */
	return left;
}

void http_send_file(struct http_req *rq, int fd, uint64_t off, uint64_t len,
		    http_sent_cb *sent)
{
	struct conn *c = req_conn(rq);

	if (!begin_write(c, len, sent))
		return;
	c->file = fd;
	c->file_off = off;
	c->file_len = len;
	conn_kick_unless_armed(c);
}

void http_end(struct http_req *rq)
{
	struct conn *c = req_conn(rq);
	bool ok = true;

	BUG_ON(!rq->begun || c->sent);
	if (c->state == CONN_DEAD || (rq->promised > 0 && !rq->chunked))
		rq->status = 0;
	conn_unhold(c);
	if (c->state == CONN_DEAD)
		return;
	if (rq->chunked && !rq->without_body)
		ok = buf_str(&c->out, rq->chunk_open ? "\r\n0\r\n\r\n"
						     : "0\r\n\r\n") == 0;
	if (!ok || rq->promised > 0) {
		conn_end_short(c);
		return;
	}
	conn_set_state(c, CONN_FLUSH);
	conn_kick(c);
}

void http_abort(struct http_req *rq)
{
	struct conn *c = req_conn(rq);

	rq->status = 0;
	conn_unhold(c);
	if (c->state != CONN_DEAD)
		conn_end_short(c);
}

void http_release(struct http_req *rq)
{
	struct conn *c = req_conn(rq);

	BUG_ON(c->state != CONN_DEAD);
	rq->status = 0;
	conn_unhold(c);
}
