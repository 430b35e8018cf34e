#include "http/small.h"

static int on_head(void *arg, struct http_exchange *x,
		   const struct http_response *res)
{
	struct http_small *s = arg;

	s->answer.status = res->status;
	s->answer.content_length = res->content_length;
	http_peer_cert(x, s->answer.cert);
	return 0;
}

static int on_data(void *arg, struct http_exchange *x, const void *bytes,
		   size_t len)
{
	struct http_small *s = arg;
	struct buf *b = &s->answer.body;

	(void)x;
	if (s->cut)
		len = min_u64(len, b->max - b->len);
	return len > 0 ? buf_add(b, bytes, len) : 0;
}

static void on_done(void *arg, struct http_exchange *x, int r, const char *why)
{
	struct http_small *s = arg;
	/* done() may free s or start it again. */
	struct http_answer a = s->answer;

	a.r = r;
	a.why = why;
	a.x = x;
	s->x = NULL;
	s->done(s, &a);
	buf_release(&a.body);
}

int http_small_start(struct http_small *s, struct http_client *c,
		     const struct http_request *rq, size_t max_body, bool cut,
		     void (*done)(struct http_small *s, struct http_answer *a))
{
	static const struct http_callbacks cb = {
		.head = on_head, .data = on_data, .done = on_done};

	*s = (struct http_small){.answer = {.content_length = -1,
					    .body = BUF_INIT(max_body)},
				 .cut = cut,
				 .done = done};
	return http_start(c, rq, &cb, s, &s->x);
}

void http_small_cancel(struct http_small *s)
{
	if (s->x)
		http_cancel(s->x);
}
