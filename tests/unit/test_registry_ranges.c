/* Ranges of blobs from servers that lie, redirect, refuse and stall. */
#include "tests/unit/registry-liar.h"

/* alice:s3cret */
#define BASIC "YWxpY2U6czNjcmV0"

/* ---- Single answers ---- */

struct lie {
	const char *head; /* all of it but the empty line */
	size_t from,
		len; /* so many bytes of the content follow; then it closes */
	uint64_t off, want;
	int r;
	size_t got; /* bytes that may be delivered */
};

#define HEAD206(range) "HTTP/1.1 206 Partial Content\r\nContent-Range: " range
#define CL(n)	       "\r\nContent-Length: " #n
#define JUST(status)   "HTTP/1.1 " status CL(0)

static const struct lie lies[] = {
	{HEAD206("bytes 100-199/1000") CL(100), 100, 100, 100, 100, 0, 100},
	{HEAD206("bytes 100-199/1000"), 100, 100, 100, 100, 0, 100},
	{HEAD206("bytes 101-200/1000") CL(100), 101, 100, 100, 100, -EBADMSG,
	 0},
	{HEAD206("bytes 100-198/1000") CL(99), 100, 99, 100, 100, -EBADMSG,
	 99}, /* the rest is asked for, and does not come */
	{HEAD206("bytes 100-200/1000") CL(101), 100, 101, 100, 100, -EBADMSG,
	 0},
	{HEAD206("bytes 100-199/1001") CL(100), 100, 100, 100, 100, -EBADMSG,
	 0},
	{HEAD206("bytes 100-199/*") CL(100), 100, 100, 100, 100, 0, 100},
	{HEAD206("bytes */1000") CL(0), 0, 0, 100, 100, -EBADMSG, 0},
	{HEAD206("items 100-199/1000") CL(100), 100, 100, 100, 100, -EBADMSG,
	 0},
	{HEAD206("bytes 18446744073709551615-0/1000") CL(100), 100, 100, 100,
	 100, -EBADMSG, 0},
	{HEAD206("bytes 100-199/1000") CL(50), 100, 50, 100, 100, -EBADMSG, 0},
	{"HTTP/1.1 206 Partial Content" CL(100), 100, 100, 100, 100, -EBADMSG,
	 0},
	{"HTTP/1.1 206 Partial Content\r\n"
	 "Content-Type: multipart/byteranges; boundary=x" CL(100),
	 100, 100, 100, 100, -EBADMSG, 0},
	/* Short and long bodies. */
	{HEAD206("bytes 100-199/1000") CL(100), 100, 50, 100, 100, -ECONNRESET,
	 50},
	{HEAD206("bytes 100-199/1000"), 100, 50, 100, 100, -ECONNRESET, 50},
	{HEAD206("bytes 100-199/1000"), 100, 0, 100, 100, -ECONNRESET, 0},
	{HEAD206("bytes 100-199/1000"), 100, 150, 100, 100, -EBADMSG, 100},
	/* The whole file. */
	{"HTTP/1.1 200 OK" CL(1000), 0, 1000, 0, 1000, 0, 1000},
	{"HTTP/1.1 200 OK" CL(1000), 0, 1000, 0, 100, -ERANGE, 0},
	{"HTTP/1.1 200 OK" CL(1000), 0, 1000, 100, 100, -ERANGE, 0},
	{"HTTP/1.1 200 OK", 0, 1000, 100, 100, -ERANGE, 0},
	{"HTTP/1.1 200 OK" CL(999), 0, 999, 0, 100, -EBADMSG, 0},
	{"HTTP/1.1 200 OK" CL(1001), 0, 1000, 0, 1000, -EBADMSG, 0},
	{"HTTP/1.1 200 OK", 0, 1000, 0, 1000, 0, 1000},
	{"HTTP/1.1 200 OK", 0, 999, 0, 1000, -ECONNRESET, 999},
	{"HTTP/1.1 204 No Content", 0, 0, 0, 100, -EBADMSG, 0},
	/* Refusals. */
	{JUST("400 Bad Request"), 0, 0, 0, 10, -ERANGE, 0},
	{JUST("501 Not Implemented"), 0, 0, 0, 10, -ERANGE, 0},
	{JUST("416 No"), 0, 0, 0, 10, -ERANGE, 0},
	{"HTTP/1.1 416 No\r\nContent-Range: bytes */1000" CL(0), 0, 0, 0, 10,
	 -ERANGE, 0},
	{JUST("401 Unauthorized"), 0, 0, 0, 10, -EACCES, 0},
	{JUST("403 Forbidden"), 0, 0, 0, 10, -EACCES, 0},
	{JUST("404 Not Found"), 0, 0, 0, 10, -ENOENT, 0},
	{JUST("410 Gone"), 0, 0, 0, 10, -ENOENT, 0},
	{JUST("412 Precondition Failed"), 0, 0, 0, 10, -ESTALE, 0},
	{"HTTP/1.1 416 No\r\nContent-Range: bytes */5" CL(0), 0, 0, 0, 10,
	 -EBADMSG, 0},
	{JUST("418 Teapot"), 0, 0, 0, 10, -EBADMSG, 0},
	{JUST("429 Too Many Requests"), 0, 0, 0, 10, -EHOSTUNREACH, 0},
	{JUST("500 Oops"), 0, 0, 0, 10, -EHOSTUNREACH, 0},
	{JUST("503 Busy"), 0, 0, 0, 10, -EHOSTUNREACH, 0},
	{JUST("503 Busy") "\r\nRetry-After: 3600", 0, 0, 0, 10, -EHOSTUNREACH,
	 0},
	/* Redirects to nowhere. */
	{JUST("302 Found"), 0, 0, 0, 10, -EBADMSG, 0},
	{JUST("302 Found") "\r\nLocation: ftp://127.0.0.1/x", 0, 0, 0, 10,
	 -EBADMSG, 0},
	{JUST("302 Found") "\r\nLocation: http://u:p@127.0.0.1/x", 0, 0, 0, 10,
	 -EBADMSG, 0},
	{JUST("302 Found") "\r\nLocation: /v2/again", 0, 0, 0, 10, -EBADMSG, 0},
};

static bool answer_lie(struct liar *l, int fd, const char *req, int nth)
{
	const struct lie *lie = l->data;

	(void)req;
	(void)nth;
	(void)(server_say(fd, lie->head) && server_say(fd, "\r\n\r\n") &&
	       server_send(fd, content + lie->from, lie->len));
	return false;
}

/* Whatever comes, no wrong byte and no extra byte is delivered. The why names
 * the registry. */
static void test_lies(void)
{
	struct reg_rig g = {0};
	struct blob *b;

	rig_open(&g);
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct range w = {0};
		char origin[128];
		struct liar l;
		int r;

		liar_start(&l, answer_lie);
		l.data = &lies[i];
		b = content_blob(&g, NULL);
		(void)snprintf(origin, sizeof(origin), "registry://%s/a/b",
			       l.host);
		w.rq.origin = origin;
		r = range_start(&g, b, lies[i].off, lies[i].want, &w);
		EQ(r, 0);
		rig_wait(&g);
		if (w.r != lies[i].r || w.bytes.len > lies[i].got)
			printf("# lie %zu: %s: %s\n", i, lies[i].head, w.why);
		EQ(w.dones, 1);
		EQ(w.r, lies[i].r);
		OK(w.bytes.len <= lies[i].got);
		if (w.r == 0)
			EQ(w.bytes.len, lies[i].want);
		else
			OK(strstr(w.why, l.host) != NULL);
		OK(w.bytes.len == 0 ||
		   memcmp(w.bytes.data, content + lies[i].off, w.bytes.len) ==
			   0);
		buf_release(&w.bytes);
		blob_unref(&b);
		liar_stop(&l);
	}
	rig_close(&g);
}

/* ---- Retry-After ---- */

static bool answer_busy_once(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	if (nth == 0)
		return reply_text(fd, req, "429 Too Many Requests",
				  "Retry-After: 1\r\n", "wait");
	return reply_range(fd, req);
}

/* The request, and others to the same registry, wait as long as the registry
 * says. */
static void test_retry_after(void)
{
	struct reg_rig g = {0};
	struct range w = {0}, w2 = {0};
	uint64_t start = now_ms();
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_busy_once);
	rig_open(&g);
	b = content_blob(&g, l.host);
	EQ(range_start(&g, b, 0, 10, &w), 0);
	EQ(range_start(&g, b, 10, 10, &w2), 0);
	rig_wait(&g);
	EQ(w.r, 0);
	EQ(w2.r, 0);
	OK(now_ms() - start >= 1000);
	EQ(liar_count(&l, ""), 3);
	buf_release(&w.bytes);
	buf_release(&w2.bytes);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

/* ---- Redirects ---- */

static bool answer_protected_redirect(struct liar *l, int fd, const char *req,
				      int nth)
{
	(void)nth;
	if (!has(req, "\r\nAuthorization: Basic " BASIC "\r\n"))
		return reply_text(fd, req, "401 Unauthorized",
				  "WWW-Authenticate: Basic realm=\"x\"\r\n",
				  "{}");
	return redirect(fd, req, "http://%s/data?sig=%d", l->other->host,
			__atomic_load_n(&l->other->state, __ATOMIC_SEQ_CST));
}

/* Accepts only the signature that is valid now. */
static bool answer_signed(struct liar *l, int fd, const char *req, int nth)
{
	char want[64];

	(void)nth;
	(void)snprintf(want, sizeof(want), "GET /data?sig=%d ",
		       __atomic_load_n(&l->state, __ATOMIC_SEQ_CST));
	if (!is(req, want))
		return reply_text(fd, req, "403 Forbidden", "", "expired");
	return reply_range(fd, req);
}

#define MANY 8

static void range_many(struct reg_rig *g, struct blob *b, int r)
{
	struct range w[MANY] = {0};

	for (int i = 0; i < MANY; i++)
		EQ(range_start(g, b, (uint64_t)i * 100, 100, &w[i]), 0);
	rig_wait(g);
	for (int i = 0; i < MANY; i++) {
		EQ(w[i].dones, 1);
		EQ(w[i].r, r);
		if (r == 0)
			OK(w[i].bytes.len == 100 &&
			   memcmp(w[i].bytes.data, content + i * 100, 100) ==
				   0);
		buf_release(&w[i].bytes);
	}
}

/* The first request finds the route; the others wait for it and then go
 * straight to the target, without the credentials. When the target expires, the
 * same happens again. */
static void test_redirect(void)
{
	struct reg_rig g = {0};
	struct liar reg, data;
	struct blob *b;
	char path[300];

	liar_start(&reg, answer_protected_redirect);
	liar_start(&data, answer_signed);
	reg.other = &data;
	rig_open(&g);
	rig_config(&g, path, sizeof(path), reg.host, "\"auth\":\"" BASIC "\"");
	rig_restart_registry(&g);
	b = content_blob(&g, reg.host);
	range_many(&g, b, 0);
	EQ(liar_count(&reg, ""), 2); /* 401, 307 */
	EQ(liar_count(&data, ""), MANY);
	range_many(&g, b, 0);
	EQ(liar_count(&reg, ""), 2);
	EQ(liar_count(&data, ""), 2 * MANY);
	__atomic_store_n(&data.state, 1, __ATOMIC_SEQ_CST);
	range_many(&g, b, 0);
	EQ(liar_count(&reg, ""), 3); /* the login is still known */
	EQ(liar_count(&data, ""), 4 * MANY);
	EQ(liar_saw(&data, "Authorization"), 0);
	EQ(liar_saw(&data, BASIC), 0);
	EQ(liar_saw(&data, "Cookie"), 0);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&reg);
	liar_stop(&data);
}

static bool answer_wrong_redirect(struct liar *l, int fd, const char *req,
				  int nth)
{
	(void)nth;
	return redirect(fd, req, "http://%s/data?sig=999&secret=hidden",
			l->other->host);
}

/* A target that refuses at once is a refusal and is not asked for ever; its
 * query does not appear in the why. */
static void test_redirect_refused(void)
{
	struct reg_rig g = {0};
	struct liar reg, data;
	struct range w = {0};
	struct blob *b;

	liar_start(&reg, answer_wrong_redirect);
	liar_start(&data, answer_signed);
	reg.other = &data;
	rig_open(&g);
	b = content_blob(&g, reg.host);
	EQ(rig_range(&g, b, 0, 100, NULL, &w), -EACCES);
	OK(!strstr(w.why, "hidden"));
	OK(!strstr(w.why, "sig="));
	EQ(liar_count(&reg, ""), 1);
	EQ(liar_count(&data, ""), 1);
	range_many(&g, b, -EACCES);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&reg);
	liar_stop(&data);
}

static bool answer_loop(struct liar *l, int fd, const char *req, int nth)
{
	return redirect(fd, req, "http://%s/%d", l->other->host, nth);
}

static void test_redirect_loop(void)
{
	struct reg_rig g = {0};
	struct liar a, c;
	struct blob *b;

	liar_start(&a, answer_loop);
	liar_start(&c, answer_loop);
	a.other = &c;
	c.other = &a;
	rig_open(&g);
	b = content_blob(&g, a.host);
	EQ(rig_range(&g, b, 0, 100, NULL, NULL), -EBADMSG);
	OK(liar_count(&a, "") + liar_count(&c, "") <= 6);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&a);
	liar_stop(&c);
}

/* ---- Direct answers ---- */

static bool answer_range(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)nth;
	return reply_range(fd, req);
}

static void test_direct(void)
{
	struct reg_rig g = {0};
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_range);
	rig_open(&g);
	b = content_blob(&g, l.host);
	range_many(&g, b, 0);
	EQ(liar_count(&l, ""), MANY);
	range_many(&g, b, 0);
	EQ(liar_count(&l, ""), 2 * MANY);
	EQ(liar_count(&l, "GET /v2/a/b/blobs/sha256:"), 2 * MANY);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

static bool answer_404(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)nth;
	return reply_text(fd, req, "404 Not Found", "", "no");
}

/* All requests that wait for the first answer share its failure, and for a
 * while none is sent again. */
static void test_no_is_shared(void)
{
	struct reg_rig g = {.cfg = {.negative_ms = 3600000}};
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_404);
	rig_open(&g);
	b = content_blob(&g, l.host);
	range_many(&g, b, -ENOENT);
	EQ(liar_count(&l, ""), 1);
	range_many(&g, b, -ENOENT);
	EQ(liar_count(&l, ""), 1);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

/* ---- Several origins ---- */

static bool answer_half(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)req;
	(void)nth;
	(void)(server_say(fd,
			  HEAD206("bytes 0-999/1000") CL(1000) "\r\n\r\n") &&
	       server_send(fd, content, 400));
	return false;
}

/* Newest first; an aborted body is continued at the next origin. */
static void test_origins(void)
{
	struct reg_rig g = {0};
	struct liar none, half, good;
	struct range w = {0};
	char origin[128];
	struct blob *b;

	liar_start(&none, answer_404);
	liar_start(&half, answer_half);
	liar_start(&good, answer_range);
	rig_open(&g);
	b = content_blob(&g, good.host);
	(void)snprintf(origin, sizeof(origin), "registry://%s/a/b", half.host);
	EQ(blob_add_origin(g.store, b, origin), 0);
	(void)snprintf(origin, sizeof(origin), "registry://%s/a/b", none.host);
	EQ(blob_add_origin(g.store, b, origin), 0);
	EQ(rig_range(&g, b, 0, CONTENT_SIZE, content, NULL), 0);
	EQ(liar_count(&none, ""), 1);
	EQ(liar_count(&half, ""), 1);
	EQ(liar_count(&good, ""), 1);
	EQ(liar_saw(&good, "Range: bytes=400-999\r\n"), 1);
	/* Only the named origin. */
	w.rq.origin = origin;
	EQ(rig_range(&g, b, 0, 10, content, &w), -ENOENT);
	OK(strstr(w.why, none.host) != NULL);
	OK(!strstr(w.why, good.host));
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&none);
	liar_stop(&half);
	liar_stop(&good);
}

static bool answer_drip(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)req;
	(void)nth;
	(void)server_say(fd, HEAD206("bytes 0-999/1000") CL(1000) "\r\n\r\n");
	(void)server_send(fd, content, 1);
	server_stall(fd);
	return false;
}

/* A place that sends a proven blob byte by byte keeps its readers for seconds
 * only, if another is known; and the next readers not at all. */
static void test_slow_place(void)
{
	struct reg_rig g = {0};
	struct liar slow, good;
	char origin[128];
	struct blob *b;

	liar_start(&slow, answer_drip);
	liar_start(&good, answer_range);
	rig_open(&g);
	b = content_blob(&g, good.host);
	EQ(store_write(g.store, b, 0, content, CONTENT_SIZE,
		       CHUNK_FROM_UPSTREAM),
	   0);
	EQ(store_verify(g.store, b), 0);
	OK(blob_proven(b));
	(void)snprintf(origin, sizeof(origin), "registry://%s/a/b", slow.host);
	EQ(blob_add_origin(g.store, b, origin), 0);
	EQ(rig_range(&g, b, 0, CONTENT_SIZE, content, NULL), 0);
	EQ(liar_count(&slow, ""), 1);
	EQ(liar_saw(&good, "Range: bytes=1-999\r\n"), 1);
	EQ(rig_range(&g, b, 0, CONTENT_SIZE, content, NULL), 0);
	EQ(liar_count(&slow, ""), 1);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&slow);
	liar_stop(&good);
}

/* If all fail, a temporary failure is reported, and why lists all. */
static void test_all_origins_fail(void)
{
	struct reg_rig g = {0};
	struct liar none, half;
	struct range w = {0};
	char origin[128];
	struct blob *b;

	liar_start(&none, answer_404);
	liar_start(&half, answer_half);
	rig_open(&g);
	b = content_blob(&g, none.host);
	(void)snprintf(origin, sizeof(origin), "registry://%s/a/b", half.host);
	EQ(blob_add_origin(g.store, b, origin), 0);
	EQ(rig_range(&g, b, 0, CONTENT_SIZE, content, &w), -ECONNRESET);
	OK(strstr(w.why, none.host) && strstr(w.why, half.host));
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&none);
	liar_stop(&half);
}

static void test_no_origin(void)
{
	struct reg_rig g = {0};
	struct range w = {0};
	struct blob *b;

	rig_open(&g);
	b = content_blob(&g, NULL);
	EQ(rig_range(&g, b, 0, 10, NULL, NULL), -ENOENT);
	w.rq.origin = "registry://no-slash";
	EQ(rig_range(&g, b, 0, 10, NULL, &w), -EINVAL);
	w.rq.origin = "gopher://127.0.0.1/";
	EQ(rig_range(&g, b, 0, 10, NULL, &w), -EINVAL);
	blob_unref(&b);
	rig_close(&g);
}

/* ---- Pausing, cancelling, deadlines ---- */

static struct range *paused;

static void go_on(struct loop_task *t)
{
	struct source *s = registry_source(paused->g->registry);

	(void)t;
	s->ops->resume(s, &paused->rq);
}

static bool refuse_twice(struct range *w)
{
	static struct loop_task task = {.run = go_on};
	static int n;

	if (n++ >= 2)
		return true;
	paused = w;
	loop_post(w->g->loop, &task);
	return false;
}

static void test_pause(void)
{
	struct range w = {.on_data = refuse_twice};
	struct reg_rig g = {0};
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_range);
	rig_open(&g);
	b = content_blob(&g, l.host);
	EQ(rig_range(&g, b, 0, CONTENT_SIZE, content, &w), 0);
	EQ(liar_count(&l, ""), 1);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

static bool cancel_at_data(struct range *w)
{
	struct source *s = registry_source(w->g->registry);

	s->ops->cancel(s, &w->rq);
	s->ops->cancel(s, &w->rq);
	EQ(w->dones, 0);
	return true;
}

static bool answer_stall_first(struct liar *l, int fd, const char *req, int nth)
{
	if (nth == 0) {
		server_stall(fd);
		return false;
	}
	return answer_range(l, fd, req, nth);
}

/* Turns the loop until l has had n requests. */
static void turn_until_asked(struct reg_rig *g, struct liar *l, int n)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	g->starting = false;
	while (liar_count(l, "") < n) {
		(void)uv_run(loop_uv(g->loop), UV_RUN_NOWAIT);
		(void)nanosleep(&pause, NULL);
	}
}

/* During the body; before the answer, with others waiting for it, of which the
 * first then becomes the leader; and while waiting. */
static void test_cancel(void)
{
	struct range w = {.on_data = cancel_at_data}, v[3] = {0};
	struct reg_rig g = {0};
	struct source *s;
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_range);
	rig_open(&g);
	s = registry_source(g.registry);
	b = content_blob(&g, l.host);
	EQ(rig_range(&g, b, 0, CONTENT_SIZE, NULL, &w), -ECANCELED);
	blob_unref(&b);
	liar_stop(&l);

	liar_start(&l, answer_stall_first);
	b = content_blob(&g, l.host);
	for (int i = 0; i < 3; i++)
		EQ(range_start(&g, b, 0, 100, &v[i]), 0);
	turn_until_asked(&g, &l, 1);
	s->ops->cancel(s, &v[2].rq);
	s->ops->cancel(s, &v[0].rq);
	EQ(v[0].dones, 0);
	rig_wait(&g);
	EQ(v[0].r, -ECANCELED);
	EQ(v[1].r, 0);
	EQ(v[2].r, -ECANCELED);
	for (int i = 0; i < 3; i++)
		buf_release(&v[i].bytes);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

static bool answer_stall(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)req;
	(void)nth;
	server_stall(fd);
	return false;
}

static void test_deadline(void)
{
	struct reg_rig g = {0};
	struct range w[3] = {0};
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_stall);
	rig_open(&g);
	b = content_blob(&g, l.host);
	for (int i = 0; i < 3; i++) {
		w[i].rq.deadline_ms = now_ms() + 300;
		EQ(range_start(&g, b, 0, 10, &w[i]), 0);
	}
	rig_wait(&g);
	for (int i = 0; i < 3; i++) {
		EQ(w[i].r, -ETIMEDOUT);
		EQ(w[i].dones, 1);
		buf_release(&w[i].bytes);
	}
	/* A deadline that has passed already. */
	w[0].rq.deadline_ms = 1;
	EQ(rig_range(&g, b, 0, 10, NULL, &w[0]), -ETIMEDOUT);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

/* registry_free() calls back everything that is running. */
static void test_free_while_busy(void)
{
	struct reg_rig g = {0};
	struct range w[3] = {0};
	struct got_manifest m[3] = {0};
	struct got_tags t;
	struct digest d = {{9}};
	struct got_blob gb = {.g = &g};
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_stall);
	rig_open(&g);
	b = content_blob(&g, l.host);
	for (int i = 0; i < 3; i++) {
		EQ(range_start(&g, b, 0, 10, &w[i]), 0);
		start_manifest(&g, l.host, "a/b", i ? "v1" : "v2", &m[i]);
	}
	rig_begin(&g);
	registry_get_blob(g.registry, l.host, "a/b", &d, on_blob, &gb);
	t = (struct got_tags){.g = &g};
	rig_begin(&g);
	registry_list_tags(g.registry, l.host, "a/b", on_tags, &t);
	/* The range, the blob, the tags, two manifests. */
	turn_until_asked(&g, &l, 5);
	registry_free(&g.registry);
	for (int i = 0; i < 3; i++) {
		EQ(w[i].r, -ECANCELED);
		EQ(w[i].dones, 1);
		EQ(m[i].r, -ECANCELED);
		EQ(m[i].calls, 1);
		buf_release(&w[i].bytes);
	}
	EQ(gb.r, -ECANCELED);
	EQ(t.r, -ECANCELED);
	EQ(g.pending, 0);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

int main(void)
{
	rig_log();
	content_init();
	RUN(test_lies);
	RUN(test_retry_after);
	RUN(test_redirect);
	RUN(test_redirect_refused);
	RUN(test_redirect_loop);
	RUN(test_direct);
	RUN(test_no_is_shared);
	RUN(test_origins);
	RUN(test_slow_place);
	RUN(test_all_origins_fail);
	RUN(test_no_origin);
	RUN(test_pause);
	RUN(test_cancel);
	RUN(test_deadline);
	RUN(test_free_while_busy);
	return tap_done();
}
