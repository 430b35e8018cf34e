#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "http/server-private.h"
#include "http/tls.h"

#define IN_MIN	     4096 /* first size of the input buffer */
#define BODY_ROOM    2048 /* least free space for reading chunked bytes */
#define OUT_MAX	     (256U << 20) /* own bytes; a reply is buffered whole */
#define SLICE	     (2U << 20)	  /* bytes sent per turn and connection */
#define RUN_MAX	     16		  /* pipelined requests per turn */
#define LINGER_MS    2000
#define LINGER_BYTES (1U << 20)

static void conn_run(struct conn *c);
static void conn_read(struct conn *c);

/* ---- Events ---- */

static void on_poll(uv_poll_t *h, int status, int events);

static size_t own_bytes(const struct conn *c)
{
	return c->out.len - c->out_pos;
}

static bool has_output(const struct conn *c)
{
	return own_bytes(c) > 0 || c->lent_len > 0 || c->file_len > 0 ||
	       c->unsent;
}

static int wanted(const struct conn *c)
{
	int events = 0;

	if (has_output(c))
		events |= UV_WRITABLE;
	switch (c->state) {
	case CONN_HEAD:
	case CONN_BODY:
		return events | UV_READABLE | UV_DISCONNECT;
	case CONN_LINGER:
		return events | UV_READABLE;
	case CONN_HANDLER:
	case CONN_FLUSH:
		/* After a FIN, UV_DISCONNECT would be reported in every turn.
		 * UV_PRIORITIZED is the one event that reports only errors and
		 * a full hang-up. */
		return events | (c->fin ? UV_PRIORITIZED : UV_DISCONNECT);
	case CONN_DEAD:
		break;
	}
	return 0;
}

/* libuv needs up to three system calls to change the events of a descriptor.
 * Therefore an event that is no longer wanted stays set until it is reported
 * without need. unused: the events that were. */
static void conn_arm(struct conn *c, int unused)
{
	int want = wanted(c);

	if (c->state == CONN_DEAD)
		return;
	if (want & UV_READABLE && c->tr->pending && c->tr->pending(c))
		conn_later(c, LATER_READ);
	if ((want & ~c->armed) == 0 && (unused & ~want) == 0)
		return;
	c->armed = want;
	(void)uv_poll_start(&c->poll, want, on_poll);
}

void conn_later(struct conn *c, unsigned int what)
{
	struct http_server *s = c->server;

	if (c->later == 0)
		list_add_tail(&s->later, &c->later_node);
	c->later |= what;
	http_server_wake(s);
}

/* Until the whole of a request is here, and once its answer has left, nobody
 * misses much if the connection ends. */
void conn_set_state(struct conn *c, enum conn_state state)
{
	c->state = state;
	if (state == CONN_DEAD)
		places_leave(c->places, &c->place);
	else
		places_wait(c->places, &c->place,
			    state == CONN_HEAD || state == CONN_BODY ||
				    state == CONN_LINGER);
}

/* ---- The end ---- */

static void free_strings(struct conn *c)
{
	while (c->strs.first) {
		struct http_str *s = c->strs.first;

		c->strs.first = s->next;
		free(s);
	}
}

static void conn_free(struct conn *c)
{
	struct http_server *s = c->server;

	list_del(&c->later_node);
	list_del(&c->node);
	s->n_conns--;
	free_strings(c);
	buf_release(&c->rq.fields);
	buf_release(&c->out);
	free(c->in);
	free(c->body);
	free(c->tls_name);
	free(c);
	http_server_check_stopped(s);
}

static void on_closed(uv_handle_t *h)
{
	struct conn *c = h->data;

	c->closed = true;
	if (!c->held && c->later == 0)
		conn_free(c);
}

void conn_close(struct conn *c, bool reset)
{
	if (c->state == CONN_DEAD)
		return;
	conn_set_state(c, CONN_DEAD);
	c->deadline_ms = 0;
	buf_reset(&c->out);
	c->out_pos = c->lent_len = 0;
	c->file_len = 0;
	c->unsent = false;
	if (c->writing) {
		c->writing = false;
		c->sent_r = -EPIPE;
	}
	uv_close((uv_handle_t *)&c->poll, on_closed);
	c->tr->close(c, reset);
	if (c->held)
		conn_later(c, LATER_CALL);
}

void conn_unhold(struct conn *c)
{
	const struct http_server_config *cfg = &c->server->cfg;

	BUG_ON(!c->held);
	if (cfg->ended && c->rq.called_ns)
		cfg->ended(cfg->ended_arg, &c->rq, c->rq.status,
			   uv_hrtime() - c->rq.called_ns);
	c->held = false;
	c->sent = NULL;
	if (c->state == CONN_DEAD)
		conn_later(c, LATER_CALL); /* frees the connection */
}

void conn_do_later(struct conn *c)
{
	unsigned int what = c->later;

	c->later = 0;
	if (what & LATER_CALL) {
		http_sent_cb *sent = c->writing ? NULL : c->sent;
		void (*gone)(struct http_req *);

		if (sent) {
			c->sent = NULL;
			sent(&c->rq, c->sent_r);
		}
		gone = c->rq.gone;
		/* If sent() began a write that failed at once, that write's
		 * callback comes first, in the next turn. */
		if (c->state == CONN_DEAD && c->held && !c->sent && gone) {
			c->rq.gone = NULL;
			gone(&c->rq);
		}
	}
	if (what & LATER_FLUSH && has_output(c))
		conn_kick_unless_armed(c);
	if (what & LATER_RUN)
		conn_run(c);
	if (what & LATER_READ && wanted(c) & UV_READABLE) {
		conn_read(c);
		conn_arm(c, 0);
	}
	if (c->state == CONN_DEAD && c->closed && !c->held)
		conn_free(c);
}

/* ---- Sending ---- */

static void consume_output(struct conn *c, size_t n)
{
	size_t own = (size_t)min_u64(n, own_bytes(c));

	c->out_pos += own;
	n -= own;
	if (c->lent_len > 0) {
		c->lent += n;
		c->lent_len -= n;
	} else {
		c->file_off += n;
		c->file_len -= n;
	}
	if (n > 0)
		c->progress = true;
}

static ssize_t send_bytes(struct conn *c, size_t max)
{
	struct iovec iov[2];
	int n = 0;

	if (own_bytes(c) > 0)
		iov[n++] = (struct iovec){c->out.data + c->out_pos,
					  (size_t)min_u64(own_bytes(c), max)};
	if (c->lent_len > 0)
		iov[n++] = (struct iovec){(void *)c->lent,
					  (size_t)min_u64(c->lent_len, max)};
	return c->tr->writev(c, iov, n, c->file_len > 0);
}

/* Reading the file failed, or the file is shorter than its length (r 0). */
static void file_failed(struct conn *c, int r)
{
	/* These bytes of the answer are missing. */
	if (!c->rq.chunked && !c->rq.until_close)
		c->rq.promised += c->file_len;
	c->file_len = 0;
	c->sent_r = r == 0 ? -EIO : r;
}

/* Reads bytes of the file and sends them with own bytes in front. For small
 * files, where one call for head and body is cheaper than sendfile(2), and for
 * transports without sendfile(). */
static ssize_t send_copy(struct conn *c)
{
	char *buf = c->server->scratch;
	size_t own = own_bytes(c);
	struct iovec iov = {buf, 0};
	ssize_t n;

	if (own > 0)
		memcpy(buf, c->out.data + c->out_pos, own);
	do {
		n = pread(c->file, buf + own,
			  (size_t)min_u64(c->file_len, HTTP_SMALL_FILE),
			  (off_t)c->file_off);
	} while (n < 0 && errno == EINTR);
	if (n <= 0) {
		file_failed(c, n < 0 ? -errno : 0);
		return 0;
	}
	iov.iov_len = own + (size_t)n;
	return c->tr->writev(c, &iov, 1, (uint64_t)n < c->file_len);
}

static bool is_file_error(ssize_t r)
{
	return r == 0 || r == -EIO || r == -EINVAL || r == -ESPIPE ||
	       r == -EISDIR || r == -EBADF || r == -EOVERFLOW;
}

static ssize_t send_file(struct conn *c, size_t max)
{
	ssize_t n;

	n = c->tr->sendfile(c, c->file, c->file_off,
			    (size_t)min_u64(c->file_len, max));
	if (is_file_error(n)) {
		file_failed(c, (int)n);
		return 0;
	}
	return n;
}

/* 0 if nothing is left to send, -EAGAIN, or the error that broke the
 * connection. */
static int conn_send(struct conn *c)
{
	size_t left = SLICE;
	ssize_t n;

	while (has_output(c)) {
		if (left == 0)
			return -EAGAIN;
		if (c->file_len > 0 && c->lent_len == 0 &&
		    own_bytes(c) <=
			    sizeof(c->server->scratch) - HTTP_SMALL_FILE &&
		    (c->file_len <= HTTP_SMALL_FILE || !c->tr->sendfile))
			n = send_copy(c);
		else if (own_bytes(c) > 0 || c->lent_len > 0)
			n = send_bytes(c, left);
		else if (c->file_len == 0)
			n = c->tr->writev(c, NULL, 0, false);
		else
			n = send_file(c, left);
		if (n < 0)
			return (int)n;
		consume_output(c, (size_t)n);
		left -= (size_t)min_u64((uint64_t)n, left);
	}
	buf_reset(&c->out);
	c->out_pos = 0;
	return 0;
}

static void linger(struct conn *c)
{
	conn_set_state(c, CONN_LINGER);
	c->deadline_ms = uv_now(c->server->uv) + LINGER_MS;
	c->linger_left = LINGER_BYTES;
	c->tr->shut_wr(c);
	conn_arm(c, 0);
}

void conn_end_short(struct conn *c)
{
	const struct http_req *rq = &c->rq;
	bool shows = rq->chunked || rq->promised > 0 || c->lent_len > 0 ||
		     c->file_len > 0 || !rq->begun;

	if (rq->until_close || !shows) {
		conn_close(c, true);
		return;
	}
	buf_reset(&c->out);
	c->out_pos = c->lent_len = 0;
	c->file_len = 0;
	c->writing = false;
	linger(c);
}

/* The whole answer is in the socket. */
static void response_done(struct conn *c)
{
	const struct http_server_config *cfg = &c->server->cfg;
	uint64_t now = uv_now(c->server->uv);

	free_strings(c);
	free(c->body);
	c->body = NULL;
	c->body_len = c->body_cap = 0;
	if (!c->keep || c->server->stopping) {
		if (c->unread || c->in_len > c->in_used)
			linger(c);
		else
			conn_close(c, false);
		return;
	}
	c->in_len -= c->in_used;
	if (c->in_len > 0) {
		memmove(c->in, c->in + c->in_used, c->in_len);
	} else if (c->in_cap > IN_MIN) {
		free(c->in);
		c->in = NULL;
		c->in_cap = 0;
	}
	c->in_used = c->in_pos = 0;
	conn_set_state(c, CONN_HEAD);
	c->head_timed = c->in_len > 0;
	c->deadline_ms = now + (c->in_len > 0 ? cfg->header_timeout_ms
					      : cfg->idle_timeout_ms);
	if (!c->running && c->in_len > 0)
		conn_later(c, LATER_RUN);
	conn_arm(c, 0);
}

void conn_kick(struct conn *c)
{
	int r;

	c->progress = false;
	r = conn_send(c);
	if (r < 0 && r != -EAGAIN) {
		conn_close(c, true);
		return;
	}
	if (r == -EAGAIN) {
		/* A handshake has no more time than a head has. */
		if (c->state != CONN_HEAD &&
		    (c->progress || c->deadline_ms == 0))
			c->deadline_ms = uv_now(c->server->uv) +
					 c->server->cfg.send_timeout_ms;
		conn_arm(c, 0);
		return;
	}
	if (c->state == CONN_HANDLER)
		c->deadline_ms = 0;
	if (c->writing) {
		c->writing = false;
		conn_later(c, LATER_CALL);
	}
	if (c->state == CONN_FLUSH)
		response_done(c);
}

void conn_kick_unless_armed(struct conn *c)
{
	if (!(c->armed & UV_WRITABLE))
		conn_kick(c);
	else if (c->deadline_ms == 0)
		/* The socket may be full to the byte, and stay so. */
		c->deadline_ms =
			uv_now(c->server->uv) + c->server->cfg.send_timeout_ms;
}

/* ---- Receiving ---- */

/* Answers a request that is not passed to the handler. */
static void refuse(struct conn *c, int status, const char *code,
		   const char *message)
{
	conn_set_state(c, CONN_HANDLER);
	c->held = true;
	c->keep = false;
	c->unread = true;
	c->deadline_ms = 0;
	http_reply_error(&c->rq, status, code, "%s", message);
}

static void refuse_head(struct conn *c, int status)
{
	static const struct {
		int status;
		const char *code, *message;
	} why[] = {
		{400, "BAD_REQUEST", "malformed request"},
		{414, "TARGET_TOO_LONG", "request target too long"},
		{417, "EXPECTATION_FAILED", "unknown expectation"},
		{431, "HEADER_TOO_LARGE", "request header too large"},
		{501, "UNSUPPORTED", "unknown method or transfer coding"},
		{505, "VERSION_UNSUPPORTED", "not HTTP/1.0 or HTTP/1.1"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(why); i++) {
		if (why[i].status == status)
			return refuse(c, status, why[i].code, why[i].message);
	}
	BUG_ON(true);
}

static void call_handler(struct conn *c)
{
	conn_set_state(c, CONN_HANDLER);
	c->held = true;
	c->deadline_ms = 0;
	if (c->in[c->rq.head.target] == '*') {
		http_header_add(&c->rq, "Allow", "GET, HEAD, OPTIONS");
		return http_reply(&c->rq, 204, NULL, NULL, 0);
	}
	c->rq.called_ns = uv_hrtime();
	c->handler(c->handler_arg, &c->rq);
}

/* Grows the buffer for bytes that have arrived, not for an announced length. */
static int reserve(char **p, size_t *cap, size_t need, size_t max)
{
	size_t n = *cap ? *cap : IN_MIN;
	char *q;

	if (need <= *cap)
		return 0;
	if (need > max)
		return -EMSGSIZE;
	while (n < need)
		n *= 2;
	n = (size_t)min_u64(n, max);
	q = realloc(*p, n);
	if (!q)
		return -ENOMEM;
	*p = q;
	*cap = n;
	return 0;
}

static int body_add(struct conn *c, const char *bytes, size_t len)
{
	size_t max = c->server->cfg.max_body_bytes;

	if (len > max - c->body_len)
		return -EMSGSIZE;
	/* One byte more, for the final NUL. */
	if (reserve(&c->body, &c->body_cap, c->body_len + len + 1, max + 1) < 0)
		return -ENOMEM;
	memcpy(c->body + c->body_len, bytes, len);
	c->body_len += len;
	c->body[c->body_len] = '\0';
	return 0;
}

/* Takes body bytes from the input buffer. 1 if the body is complete, 0 if more
 * is needed, -EBADMSG, -EMSGSIZE, -ENOMEM. */
static int take_body(struct conn *c)
{
	const struct http_head *h = &c->rq.head;
	size_t have = c->in_len - c->in_used, used, n;
	const char *data;
	int done = 0, r = 0;

	if (!h->chunked) {
		n = (size_t)min_u64(have, h->content_length - c->body_len);
		r = body_add(c, c->in + c->in_used, n);
		c->in_used += n;
		return r < 0 ? r : c->body_len == h->content_length;
	}
	while (!done && c->in_used < c->in_len) {
		done = http_chunked_next(&c->chunks, c->in + c->in_used,
					 c->in_len - c->in_used, &used, &data,
					 &n);
		if (done < 0)
			return done;
		c->in_used += used;
		if (n > 0)
			r = body_add(c, data, n);
		if (r < 0)
			return r;
	}
	return done;
}

static void run_body(struct conn *c)
{
	size_t head = c->in_pos; /* the head's length */
	int r = take_body(c);

	if (r == 1) {
		c->body_data = c->body;
		call_handler(c);
		return;
	}
	if (r == -EBADMSG)
		return refuse(c, 400, "BAD_REQUEST", "malformed chunk");
	if (r == -EMSGSIZE)
		return refuse(c, 413, "BODY_TOO_LARGE",
			      "request body too large");
	if (r < 0)
		return conn_close(c, true);
	/* All bytes after the head belonged to the body. */
	c->in_len = c->in_used = head;
}

static void await_body(struct conn *c)
{
	const struct http_head *h = &c->rq.head;

	if (h->content_length > c->server->cfg.max_body_bytes)
		return refuse(c, 413, "BODY_TOO_LARGE",
			      "request body too large");
	if (!h->chunked && h->content_length <= c->in_len - c->in_used) {
		c->body_data = c->in + c->in_used;
		c->body_len = (size_t)h->content_length;
		c->in_used += c->body_len;
		return call_handler(c);
	}
	conn_set_state(c, CONN_BODY);
	c->chunks = (struct http_chunked){0};
	c->deadline_ms = uv_now(c->server->uv) + c->server->cfg.send_timeout_ms;
	if (h->expect_continue && c->in_len == c->in_used) {
		(void)buf_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
		conn_kick(c);
		if (c->state != CONN_BODY)
			return;
	}
	run_body(c);
}

static void start_request(struct conn *c, size_t head_len)
{
	struct http_req *rq = &c->rq;

	buf_reset(&rq->fields);
	rq->strs = &c->strs;
	rq->data = NULL;
	rq->gone = NULL;
	rq->promised = rq->called_ns = 0;
	rq->status = 0;
	rq->begun = rq->chunked = rq->chunk_open = false;
	rq->until_close = rq->without_body = rq->out_of_memory = false;
	c->keep = rq->head.keep_alive && !place_is_spare(&c->place);
	c->unread = false;
	c->body_data = NULL;
	c->body_len = 0;
	c->in_pos = c->in_used = head_len;
	c->sent_r = 0;
}

/* Prepares an answer to bytes that are not a request. */
static void no_request(struct conn *c)
{
	memset(&c->rq.head, 0, offsetof(struct http_head, fields));
	c->rq.head.minor = 1;
	start_request(c, 0);
}

/* Skips empty lines before a request line (RFC 9112, 2.2). */
static void skip_blank_lines(struct conn *c)
{
	size_t n = 0;

	while (n + 2 <= c->in_len && memcmp(c->in + n, "\r\n", 2) == 0)
		n += 2;
	if (n > 0) {
		c->in_len -= n;
		memmove(c->in, c->in + n, c->in_len);
	}
}

static bool is_probe(const struct conn *c)
{
	const char *probe = c->server->cfg.probe;

	return probe && strcmp(http_req_path(&c->rq), probe) == 0;
}

/* True if a request was taken from the buffer. */
static bool run_head(struct conn *c)
{
	const struct http_server_config *cfg = &c->server->cfg;
	size_t len = 0;
	int r;

	if (c->in_pos == 0)
		skip_blank_lines(c);
	if (c->in_len == 0)
		return false;
	r = http_head_find(c->in, c->in_len, &c->in_pos, &len);
	if (r == -EAGAIN && c->in_len <= cfg->max_header_bytes) {
		/* room for "PROPPATCH " and " HTTP/1.1" */
		if (c->in_len > (size_t)cfg->max_target_bytes + 64 &&
		    !memchr(c->in, '\n', c->in_len)) {
			no_request(c);
			refuse_head(c, 414);
			return true;
		}
		return false;
	}
	if (r == -EBADMSG || r == -EAGAIN || len > cfg->max_header_bytes) {
		no_request(c);
		refuse_head(c, r == -EBADMSG ? 400 : 431);
		return true;
	}
	r = http_head_parse(c->in, len, cfg->max_target_bytes, &c->rq.head);
	start_request(c, len);
	if (r != 0)
		refuse_head(c, r);
	else if (place_is_spare(&c->place) && !is_probe(c))
		refuse(c, 503, "TOOMANYREQUESTS", "too many connections");
	else
		await_body(c);
	return true;
}

static void conn_run(struct conn *c)
{
	c->running = true;
	for (int i = 0; c->state == CONN_HEAD && run_head(c); i++) {
		if (i == RUN_MAX && c->state == CONN_HEAD) {
			conn_later(c, LATER_RUN);
			break;
		}
	}
	c->running = false;
	conn_arm(c, 0);
}

/* Reads into the input buffer. False if no byte came; the connection may then
 * be closed. */
static bool fill(struct conn *c, size_t room)
{
	size_t max = (size_t)HTTP_MAX_HEAD + IN_MIN;
	ssize_t n;

	if (reserve(&c->in, &c->in_cap, c->in_len + room, max) < 0) {
		conn_close(c, true);
		return false;
	}
	n = c->tr->read(c, c->in + c->in_len, c->in_cap - c->in_len);
	if (n > 0) {
		c->in_len += (size_t)n;
		return true;
	}
	/* Without a request there is no handler to tell. */
	if (n == -ESHUTDOWN)
		linger(c);
	else if (n != -EAGAIN)
		conn_close(c, n < 0);
	return false;
}

static void read_head(struct conn *c)
{
	if (!fill(c, 1))
		return;
	/* Once: blank lines may come and be dropped without end. */
	if (!c->head_timed)
		c->deadline_ms = uv_now(c->server->uv) +
				 c->server->cfg.header_timeout_ms;
	c->head_timed = true;
	conn_run(c);
}

/* The bytes after the body may hold the next request. */
static void read_body(struct conn *c)
{
	if (!fill(c, BODY_ROOM))
		return;
	c->running = true;
	run_body(c);
	c->running = false;
	conn_run(c);
}

static void read_and_drop(struct conn *c)
{
	struct http_server *s = c->server;
	ssize_t n = c->tr->read(c, s->scratch, sizeof(s->scratch));

	if (n == -EAGAIN)
		return;
	if (n <= 0 || (size_t)n >= c->linger_left)
		conn_close(c, n < 0);
	else
		c->linger_left -= (size_t)n;
}

static void conn_read(struct conn *c)
{
	if (c->state == CONN_HEAD)
		read_head(c);
	else if (c->state == CONN_BODY)
		read_body(c);
	else
		read_and_drop(c);
}

/* The client has closed its half, or both; a FIN does not tell which. The host
 * of a client that has closed both answers every byte with RST, which does
 * tell. So, if the answer has not begun, an interim response is sent, which
 * clients ignore (RFC 9110, 15.2). Otherwise the next bytes of the answer have
 * the same effect. */
static void on_fin(struct conn *c)
{
	struct pollfd p = {.fd = c->fd};

	c->fin = true;
	if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR)) {
		conn_close(c, true);
		return;
	}
	if (c->state == CONN_HANDLER && !c->rq.begun && !has_output(c) &&
	    c->rq.head.minor > 0) {
		(void)buf_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
		conn_kick(c);
	}
}

static void on_poll(uv_poll_t *h, int status, int events)
{
	struct conn *c = h->data;
	struct http_server *s = c->server;
	int unused = events;

	http_server_enter(s);
	if (status < 0) {
		conn_close(c, true);
		http_server_leave(s);
		return;
	}
	if (events & UV_WRITABLE && has_output(c)) {
		unused &= ~UV_WRITABLE;
		conn_kick(c);
	}
	if (events & UV_READABLE && wanted(c) & UV_READABLE) {
		unused &= ~UV_READABLE;
		conn_read(c);
	}
	if (c->state == CONN_HANDLER || c->state == CONN_FLUSH) {
		if (events & UV_PRIORITIZED)
			conn_close(c, true);
		else if (events & UV_DISCONNECT && !c->fin)
			on_fin(c);
	}
	conn_arm(c, unused);
	http_server_leave(s);
}

void conn_timeout(struct conn *c)
{
	switch (c->state) {
	case CONN_HEAD:
		if (c->in_len == 0)
			return conn_close(c, false);
		no_request(c);
		return refuse(c, 408, "REQUEST_TIMEOUT", "request too slow");
	case CONN_BODY:
		return refuse(c, 408, "REQUEST_TIMEOUT", "request too slow");
	case CONN_HANDLER:
	case CONN_FLUSH:
		return conn_close(c, true);
	case CONN_LINGER:
		return conn_close(c, false);
	case CONN_DEAD:
		break;
	}
}

/* A connection that waits may have to go for it. */
static int take_place(struct conn *c)
{
	struct http_server *s = c->server;
	struct place *victim;
	int r = places_enter(c->places, &c->place, &c->addr, &victim);

	if (r == 0 && victim)
		conn_close(container_of(victim, struct conn, place), false);
	if ((r == -EAGAIN || victim) && log_limit_ok(&s->crowd_log, 1, 60000)) {
		char addr[HTTP_ADDR_SIZE];

		log_warn("too many connections",
			 LS("client", conn_addr(c, addr)),
			 LU("limit", c->places->max));
	}
	return r;
}

int conn_new(struct http_listener *l, int fd_,
	     const struct sockaddr_storage *addr)
{
	CLEANUP(freep) struct conn *c = calloc(1, sizeof(*c));
	CLEANUP(closep) int fd = fd_;
	struct http_server *s = l->server;
	int on = 1, r;

	if (!c)
		return -ENOMEM;
	c->fd = fd;
	c->server = s;
	c->tr = &http_plain;
	c->addr = *addr;
	c->places = l->places;
	r = take_place(c);
	if (r < 0)
		return r;
	if (addr->ss_family != AF_UNIX)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	/* With TLS a refusal would cost more than many requests. */
	if (l->tls)
		r = place_is_spare(&c->place) ? -EAGAIN
					      : conn_use_tls(c, l->tls);
	if (r == 0)
		r = uv_poll_init_socket(s->uv, &c->poll, fd);
	if (r < 0) {
		places_leave(c->places, &c->place);
		tls_session_free(&c->tls);
		return r;
	}
	c->poll.data = c;
	(void)steal_fd(&fd);
	c->handler = l->handler;
	c->handler_arg = l->arg;
	c->out = BUF_INIT(OUT_MAX);
	c->rq.fields = BUF_INIT(HTTP_MAX_HEAD);
	list_init(&c->later_node);
	list_add_tail(&s->conns, &c->node);
	s->n_conns++;
	c->deadline_ms = uv_now(s->uv) + s->cfg.header_timeout_ms;
	conn_arm(c, 0);
	(void)steal_ptr(&c);
	return 0;
}
