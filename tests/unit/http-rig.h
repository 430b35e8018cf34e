/* Shared by the tests of http/client.h: a loop, a client, and exchanges that
 * record their events. */
#ifndef TESTS_HTTP_RIG_H
#define TESTS_HTTP_RIG_H

#include <errno.h>

#include "base/cleanup.h"
#include "http/client.h"
#include "tests/unit/scripted-server.h"

struct rig {
	struct loop *loop;
	struct http_client *client;
	int running; /* exchanges; the loop stops at 0 */
};

struct fetch {
	struct rig *rig;
	struct http_exchange *x; /* NULL once done */
	/* Actions; may be NULL. */
	int (*on_head)(struct fetch *f);
	int (*on_data)(struct fetch *f, const char *bytes, size_t len);
	void (*on_done)(struct fetch *f);
	/* Events so far. */
	int heads, dones, calls;
	int status;
	int64_t content_length;
	char *body;
	size_t len;
	int r;
	char why[512], peer[128];
	double connect_ms, first_byte_ms;
};

static inline int rig_head(void *arg, struct http_exchange *x,
			   const struct http_response *res)
{
	struct fetch *f = arg;

	f->heads++;
	EQ(f->calls, 0);
	OK(f->x == x);
	f->status = res->status;
	f->content_length = res->content_length;
	return f->on_head ? f->on_head(f) : 0;
}

static inline int rig_data(void *arg, struct http_exchange *x,
			   const void *bytes, size_t len)
{
	struct fetch *f = arg;
	int r;

	f->calls++;
	EQ(f->heads, 1);
	EQ(f->dones, 0);
	OK(f->x == x);
	OK(len > 0 && len <= 512 * 1024);
	r = f->on_data ? f->on_data(f, bytes, len) : 0;
	if (r == 0) {
		f->body = realloc(f->body, f->len + len + 1);
		memcpy(f->body + f->len, bytes, len);
		f->len += len;
		f->body[f->len] = '\0';
	}
	return r;
}

static inline void rig_done(void *arg, struct http_exchange *x, int r,
			    const char *why)
{
	struct fetch *f = arg;

	OK(f->x == x);
	f->dones++;
	f->r = r;
	(void)snprintf(f->why, sizeof(f->why), "%s", why);
	(void)snprintf(f->peer, sizeof(f->peer), "%s", http_peer_addr(x));
	http_timing(x, &f->connect_ms, &f->first_byte_ms);
	if (f->on_done)
		f->on_done(f);
	f->x = NULL;
	if (--f->rig->running == 0)
		loop_stop(f->rig->loop);
}

static const struct http_callbacks rig_callbacks = {
	.head = rig_head, .data = rig_data, .done = rig_done};

static inline void rig_init(struct rig *rig)
{
	struct http_client_config cfg = {.user_agent = "test/1"};

	*rig = (struct rig){0};
	if (loop_new(&rig->loop) < 0 ||
	    http_client_new(rig->loop, &cfg, &rig->client) < 0)
		BAIL("no loop or client");
}

static inline void rig_release(struct rig *rig)
{
	http_client_free(&rig->client);
	OK(rig->client == NULL);
	loop_free(&rig->loop);
}

static inline void fetch_start(struct rig *rig, struct fetch *f,
			       const struct http_request *rq)
{
	f->rig = rig;
	rig->running++;
	EQ(http_start(rig->client, rq, &rig_callbacks, f, &f->x), 0);
	EQ(f->dones, 0); /* never from inside http_start() */
}

static inline void fetch_release(struct fetch *f)
{
	free(f->body);
	f->body = NULL;
}

/* Waits until all exchanges have ended. */
static inline void rig_run(struct rig *rig)
{
	if (rig->running > 0)
		loop_run(rig->loop);
	EQ(rig->running, 0);
}

/* Runs one exchange from start to end. */
static inline void fetch_rq(struct rig *rig, struct fetch *f,
			    const struct http_request *rq)
{
	fetch_start(rig, f, rq);
	rig_run(rig);
	EQ(f->dones, 1);
}

static inline void fetch_url(struct rig *rig, struct fetch *f, const char *url)
{
	struct http_request rq = {.url = url};

	fetch_rq(rig, f, &rq);
}

/* Call it first: the machine's proxy settings must not affect a test. */
static inline void rig_environment(void)
{
	static const char *const vars[] = {"http_proxy", "https_proxy",
					   "all_proxy",	 "no_proxy",
					   "HTTP_PROXY", "HTTPS_PROXY",
					   "ALL_PROXY",	 "NO_PROXY"};

	for (size_t i = 0; i < ARRAY_SIZE(vars); i++)
		(void)unsetenv(vars[i]);
	(void)alarm(300); /* a hang is a failure */
}

/* Most tests fetch one thing from a server with one script. */
struct bench {
	struct rig rig;
	struct server server;
	struct fetch f;
};

static inline void bench_init(struct bench *b, server_script *script)
{
	b->f = (struct fetch){0};
	rig_init(&b->rig);
	server_start(&b->server, script);
}

/* The client is freed first: scripts wait until it closes its connections. */
static inline void bench_release(struct bench *b)
{
	rig_release(&b->rig);
	server_stop(&b->server);
	fetch_release(&b->f);
}

static inline const char *url_of(struct bench *b, const char *path)
{
	static char url[256];

	(void)snprintf(url, sizeof(url), "%s%s", b->server.url, path);
	return url;
}

/* Answers every request with the same text; for scripts below. */
static inline void answer_all(struct server *s, int fd, const char *text)
{
	while (server_read(s, fd))
		if (!server_say(fd, text))
			break;
}

static inline void say_hello(struct server *s, int fd, int nth)
{
	(void)nth;
	answer_all(s, fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
}

#endif
