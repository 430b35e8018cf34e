#include "containerd/grpc.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

#define MAX_METADATA 4
#define WHY_SIZE     256

/* ---- Messages ---- */

static uint32_t message_len(const struct grpc_reader *g)
{
	return (uint32_t)g->prefix[1] << 24 | (uint32_t)g->prefix[2] << 16 |
	       (uint32_t)g->prefix[3] << 8 | g->prefix[4];
}

int grpc_read(struct grpc_reader *g, const void *bytes, size_t len,
	      int (*message)(void *arg, const void *msg, size_t len), void *arg)
{
	const uint8_t *p = bytes;

	while (len > 0) {
		size_t n;
		int r;

		if (g->have < GRPC_PREFIX) {
			g->prefix[g->have++] = *p++;
			len--;
			if (g->have < GRPC_PREFIX)
				continue;
			if (g->prefix[0] != 0)
				return -EBADMSG;
			if (message_len(g) > g->msg.max)
				return -EMSGSIZE;
		}
		n = min_u64(len, message_len(g) - g->msg.len);
		r = n ? buf_add(&g->msg, p, n) : 0;
		if (r < 0)
			return r;
		p += n;
		len -= n;
		if (g->msg.len < message_len(g))
			continue;
		r = message(arg, g->msg.len ? g->msg.data : "", g->msg.len);
		if (r < 0)
			return r;
		g->have = 0;
		buf_reset(&g->msg);
	}
	return 0;
}

bool grpc_reader_within(const struct grpc_reader *g)
{
	return g->have > 0;
}

void grpc_reader_release(struct grpc_reader *g)
{
	buf_release(&g->msg);
}

/* ---- Calls ---- */

struct grpc_call {
	struct grpc_callbacks cb;
	void *arg;
	bool abandoned;
	struct http_exchange *x;
	struct grpc_reader reader;
};

static int on_message(void *arg, const void *msg, size_t len)
{
	struct grpc_call *c = arg;

	return c->abandoned ? -ECANCELED : c->cb.message(c->arg, msg, len);
}

static int on_head(void *arg, struct http_exchange *x,
		   const struct http_response *res)
{
	const char *type = http_header(x, "Content-Type", 0);

	(void)arg;
	if (res->status != 200 || !type ||
	    strncasecmp(type, "application/grpc", 16) != 0)
		return -EPROTO;
	return 0;
}

static int on_data(void *arg, struct http_exchange *x, const void *bytes,
		   size_t len)
{
	struct grpc_call *c = arg;

	(void)x;
	return grpc_read(&c->reader, bytes, len, on_message, c);
}

static int status_errno(const char *status)
{
	static const struct {
		const char *status;
		int r;
	} known[] = {
		{"0", 0},
		{"5", -ENOENT},
		{"7", -EACCES},
		{"12", -EOPNOTSUPP},
		{"14", -EHOSTUNREACH},
		{"16", -EACCES},
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(status, known[i].status) == 0)
			return known[i].r;
	return -EIO;
}

/* The result of a complete exchange. A reply without any message may be a head
 * alone, with the status in its headers ("Trailers-Only"). */
static int outcome(struct grpc_call *c, struct http_exchange *x, char *why)
{
	const char *status = http_trailer(x, "grpc-status", 0);
	const char *text = http_trailer(x, "grpc-message", 0);
	int r;

	if (!status) {
		status = http_header(x, "grpc-status", 0);
		text = http_header(x, "grpc-message", 0);
	}
	if (!status || grpc_reader_within(&c->reader)) {
		(void)snprintf(why, WHY_SIZE, "the reply was cut short");
		return -EPROTO;
	}
	r = status_errno(status);
	if (r < 0)
		(void)snprintf(why, WHY_SIZE, "status %.20s: %.200s", status,
			       text ? text : "");
	return r;
}

static void on_done(void *arg, struct http_exchange *x, int r, const char *why)
{
	struct grpc_call *c = arg;
	char text[WHY_SIZE];

	(void)snprintf(text, sizeof(text), "%s", why);
	if (r == 0)
		r = outcome(c, x, text);
	if (!c->abandoned)
		c->cb.done(c->arg, r, text);
	grpc_reader_release(&c->reader);
	free(c);
}

static int frame(const struct grpc_request *rq, struct buf *out)
{
	uint32_t len = (uint32_t)rq->len;
	uint8_t prefix[GRPC_PREFIX] = {0, (uint8_t)(len >> 24),
				       (uint8_t)(len >> 16),
				       (uint8_t)(len >> 8), (uint8_t)len};
	int r = buf_add(out, prefix, sizeof(prefix));

	return r == 0 && len > 0 ? buf_add(out, rq->msg, len) : r;
}

static int send_request(struct http_client *c, const struct grpc_request *rq,
			struct grpc_call *call)
{
	static const struct http_callbacks cb = {
		.head = on_head, .data = on_data, .done = on_done};
	CLEANUP(buf_release) struct buf url = BUF_INIT(1024);
	CLEANUP(buf_release) struct buf body = BUF_INIT((size_t)1 << 20);
	struct http_header headers[2 + MAX_METADATA] = {
		{"Content-Type", "application/grpc+proto"},
		{"TE", "trailers"},
	};
	uint32_t patience = rq->timeout_ms ? rq->timeout_ms : UINT32_MAX;
	struct http_request hr = {
		.method = "POST",
		.headers = headers,
		.nheaders = 2 + rq->nmetadata,
		.unix_socket = rq->sock,
		.http2_prior_knowledge = true,
		.first_byte_timeout_ms = patience,
		.low_speed_seconds = patience,
		.total_timeout_ms = rq->timeout_ms,
	};
	int r;

	if (rq->nmetadata > MAX_METADATA)
		return -EINVAL;
	for (size_t i = 0; i < rq->nmetadata; i++)
		headers[2 + i] = rq->metadata[i];
	r = frame(rq, &body);
	if (r == 0)
		r = buf_printf(&url, "http://localhost%s", rq->method);
	if (r < 0)
		return r == -EMSGSIZE ? -EINVAL : r;
	hr.url = url.data;
	hr.body = body.data;
	hr.body_len = body.len;
	return http_start(c, &hr, &cb, call, &call->x);
}

int grpc_start(struct http_client *c, const struct grpc_request *rq,
	       const struct grpc_callbacks *cb, void *arg,
	       struct grpc_call **ret)
{
	struct grpc_call *call = calloc(1, sizeof(*call));
	int r;

	if (!call)
		return -ENOMEM;
	call->cb = *cb;
	call->arg = arg;
	call->reader = GRPC_READER_INIT(rq->max_reply);
	r = send_request(c, rq, call);
	if (r < 0) {
		free(call);
		return r;
	}
	*ret = call;
	return 0;
}

void grpc_abandon(struct grpc_call **pc)
{
	struct grpc_call *c = steal_ptr(pc);

	if (!c)
		return;
	c->abandoned = true;
	http_cancel(c->x);
}
