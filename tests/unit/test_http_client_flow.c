#include <fcntl.h>
#include <netdb.h>

#include "tests/unit/http-rig.h"

#define MIB (1024 * 1024)

/* --- Deadlines; test_deadline.c has the arithmetic --------------------- */

static void stall(struct server *s, int fd, int nth)
{
	static const char *const text[] = {
		"",
		"HTTP/1.1 200 OK\r\nContent-",
		"HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",
	};

	if (server_read(s, fd) && nth < (int)ARRAY_SIZE(text))
		(void)server_say(fd, text[nth]);
	server_stall(fd);
}

static void test_stalls(void)
{
	struct bench b;

	bench_init(&b, stall);
	for (int i = 0; i < 5; i++) {
		struct http_request rq = {.url = url_of(&b, "/?sig=secret")};
		struct fetch f = {0};

		if (i < 3)
			rq.first_byte_timeout_ms = 100;
		else if (i == 3)
			rq.low_speed_seconds = 1;
		else
			rq.total_timeout_ms = 300;
		fetch_rq(&b.rig, &f, &rq);
		EQ(f.r, -ETIMEDOUT);
		EQ(f.heads, i >= 3);
		OK(strstr(f.why, i < 3	  ? "no response"
				 : i == 3 ? "a second"
					  : "not finished"));
		fetch_release(&f);
	}
	bench_release(&b);
}

static void test_connect_timeout(void)
{
	struct bench b;
	char url[80];
	struct http_request rq = {.url = url, .connect_timeout_ms = 100};

	bench_init(&b, stall);
	(void)snprintf(url, sizeof(url), "https%.60s", b.server.url + 4);
	fetch_rq(&b.rig, &b.f, &rq);
	EQ(b.f.r, -ETIMEDOUT);
	EQ(b.f.connect_ms, 0);
	bench_release(&b);
}

/* --- Pausing ----------------------------------------------------------- */

#define BIG_BYTES (8 * MIB)

static char pattern(size_t i)
{
	return (char)(i * 7 + i / 251 + i / 65536);
}

static void say_big(struct server *s, int fd, int nth)
{
	static char *body;
	static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
	char head[64];

	(void)nth;
	(void)pthread_mutex_lock(&mu);
	if (!body) {
		body = malloc(BIG_BYTES);
		for (size_t i = 0; i < BIG_BYTES; i++)
			body[i] = pattern(i);
	}
	(void)pthread_mutex_unlock(&mu);
	(void)snprintf(head, sizeof(head),
		       "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n",
		       BIG_BYTES);
	while (server_read(s, fd))
		if (!server_say(fd, head) || !server_send(fd, body, BIG_BYTES))
			break;
}

static bool big_is_right(const struct fetch *f)
{
	if (f->len != BIG_BYTES)
		return false;
	for (size_t i = 0; i < BIG_BYTES; i++)
		if (f->body[i] != pattern(i))
			return false;
	return true;
}

/* An exchange on which a later turn of the loop acts. */
static struct later {
	struct loop_task task;
	struct fetch *f;
	bool posted, refused, in_resume;
	unsigned int n;
} later;

static void resume_later(struct loop_task *t)
{
	(void)t;
	later.posted = false;
	later.in_resume = true;
	http_resume(later.f->x);
	http_resume(later.f->x); /* a second call is harmless */
	later.in_resume = false;
}

/* Every second call refuses its bytes, so each piece comes twice. */
static int pause_first(struct fetch *f, const char *bytes, size_t len)
{
	OK(!later.in_resume);
	OK(!later.posted); /* nothing comes while paused */
	for (size_t i = 0; i < len; i += 997)
		OK(bytes[i] == pattern(f->len + i));
	later.refused = !later.refused;
	if (!later.refused)
		return 0;
	later.n++;
	later.f = f;
	later.posted = true;
	later.task.run = resume_later;
	loop_post(f->rig->loop, &later.task);
	return -EAGAIN;
}

static void test_pause(void)
{
	struct bench b;

	later = (struct later){0};
	bench_init(&b, say_big);
	b.f.on_data = pause_first;
	fetch_url(&b.rig, &b.f, b.server.url);
	EQ(b.f.r, 0);
	OK(big_is_right(&b.f));
	OK(later.n >= BIG_BYTES / (512 * 1024));
	bench_release(&b);
}

/* The reader has room again before it returned that it had none. */
static int resume_first(struct fetch *f, const char *bytes, size_t len)
{
	(void)bytes;
	(void)len;
	later.refused = !later.refused;
	if (!later.refused)
		return 0;
	http_resume(f->x);
	return -EAGAIN;
}

static void test_resume_in_data(void)
{
	struct bench b;

	later = (struct later){0};
	bench_init(&b, say_big);
	b.f.on_data = resume_first;
	fetch_url(&b.rig, &b.f, b.server.url);
	EQ(b.f.r, 0);
	OK(big_is_right(&b.f));
	bench_release(&b);
}

static uv_timer_t pause_timer;

static void pause_over(uv_timer_t *t)
{
	struct fetch *f = t->data;

	EQ(f->dones, 0);
	http_resume(f->x);
	uv_close((uv_handle_t *)t, NULL);
}

static int pause_long(struct fetch *f, const char *bytes, size_t len)
{
	(void)bytes;
	(void)len;
	if (later.refused)
		return 0;
	later.refused = true;
	(void)uv_timer_init(loop_uv(f->rig->loop), &pause_timer);
	pause_timer.data = f;
	(void)uv_timer_start(&pause_timer, pause_over, 2500, 0);
	return -EAGAIN;
}

static void test_pause_is_no_stall(void)
{
	struct bench b;
	struct http_request rq = {.low_speed_seconds = 1};

	later = (struct later){0};
	bench_init(&b, say_big);
	rq.url = b.server.url;
	b.f.on_data = pause_long;
	fetch_rq(&b.rig, &b.f, &rq);
	EQ(b.f.r, 0);
	OK(big_is_right(&b.f));
	bench_release(&b);
}

static int pause_then_fail(struct fetch *f, const char *bytes, size_t len)
{
	if (later.refused)
		return -ENOSPC;
	return pause_first(f, bytes, len);
}

static void test_error_after_pause(void)
{
	struct bench b;

	later = (struct later){0};
	bench_init(&b, say_big);
	b.f.on_data = pause_then_fail;
	fetch_url(&b.rig, &b.f, b.server.url);
	EQ(b.f.r, -ENOSPC);
	bench_release(&b);
}

/* --- Cancelling -------------------------------------------------------- */

static void cancel(struct fetch *f)
{
	http_cancel(f->x);
	http_cancel(f->x);
	EQ(f->dones, 0);
}

static int cancel_in_head(struct fetch *f)
{
	cancel(f);
	return 0;
}

static int cancel_in_data(struct fetch *f, const char *bytes, size_t len)
{
	(void)bytes;
	(void)len;
	cancel(f);
	return 0;
}

static int cancel_and_pause(struct fetch *f, const char *bytes, size_t len)
{
	(void)bytes;
	(void)len;
	cancel(f);
	return -EAGAIN;
}

static void cancel_task(struct loop_task *t)
{
	(void)t;
	cancel(later.f);
}

static int pause_and_cancel_later(struct fetch *f, const char *bytes,
				  size_t len)
{
	(void)bytes;
	(void)len;
	if (later.f)
		return -EAGAIN;
	later.f = f;
	later.task.run = cancel_task;
	loop_post(f->rig->loop, &later.task);
	return -EAGAIN;
}

static void cancel_in_done(struct fetch *f)
{
	http_cancel(f->x);
	http_resume(f->x);
}

static void test_cancel_at_start(void)
{
	struct http_request rq = {0};
	struct bench b;

	bench_init(&b, say_hello);
	rq.url = b.server.url;
	fetch_start(&b.rig, &b.f, &rq);
	cancel(&b.f);
	rig_run(&b.rig);
	EQ(b.f.r, -ECANCELED);
	EQ(b.f.heads, 0);
	EQ(server_connections(&b.server), 0);
	bench_release(&b);
}

static void test_cancel_in_callbacks(void)
{
	struct fetch f[] = {
		{.on_head = cancel_in_head},
		{.on_data = cancel_in_data},
		{.on_data = cancel_and_pause},
		{.on_data = pause_and_cancel_later},
		{.on_data = cancel_in_data, .on_done = cancel_in_done},
	};
	struct bench b;

	later = (struct later){0};
	bench_init(&b, say_big);
	for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
		fetch_url(&b.rig, &f[i], b.server.url);
		EQ(f[i].r, -ECANCELED);
		EQ(f[i].heads, 1);
		EQ(f[i].calls, i > 0);
		fetch_release(&f[i]);
	}
	bench_release(&b);
}

/* Small enough that the response is whole before the cancel is seen. */
static void test_cancel_too_late(void)
{
	struct fetch f = {.on_data = cancel_in_data};
	struct bench b;

	bench_init(&b, say_hello);
	b.f.on_done = cancel_in_done;
	fetch_url(&b.rig, &b.f, b.server.url);
	EQ(b.f.r, 0);
	fetch_url(&b.rig, &f, b.server.url);
	EQ(f.r, -ECANCELED);
	bench_release(&b);
	fetch_release(&f);
}

static struct fetch *other;

static void cancel_other(struct fetch *f)
{
	(void)f;
	EQ(other->dones, 0);
	http_cancel(other->x);
	EQ(other->dones, 0);
}

static int start_second(struct fetch *f)
{
	static char url[80];
	struct http_request rq = {.url = url};

	(void)snprintf(url, sizeof(url), "%s", http_peer_addr(f->x));
	memmove(url + 7, url, strlen(url) + 1);
	memcpy(url, "http://", 7);
	fetch_start(f->rig, other, &rq);
	return 0;
}

/* One exchange stalls; another, done, cancels it. */
static void test_cancel_another(void)
{
	struct fetch f = {.on_done = cancel_other};
	static struct server quick;
	struct http_request rq = {0};
	struct bench b;

	bench_init(&b, stall);
	server_start(&quick, say_hello);
	other = &b.f;
	rq.url = b.server.url;
	fetch_start(&b.rig, &b.f, &rq);
	rq.url = quick.url;
	fetch_start(&b.rig, &f, &rq);
	rig_run(&b.rig);
	EQ(f.r, 0);
	EQ(b.f.r, -ECANCELED);
	bench_release(&b);
	server_stop(&quick);
	fetch_release(&f);
}

static void test_start_in_callbacks(void)
{
	struct fetch f = {.on_head = start_second}, g = {0};
	struct bench b;

	bench_init(&b, say_hello);
	other = &g;
	fetch_url(&b.rig, &f, b.server.url);
	EQ(f.r, 0);
	EQ(g.r, 0);
	STREQ(g.body, "hello");
	bench_release(&b);
	fetch_release(&f);
	fetch_release(&g);
}

/* --- The end of the client --------------------------------------------- */

static void test_free_with_exchanges(void)
{
	static struct fetch f[8];
	struct http_request rq = {0};
	struct bench b;

	memset(f, 0, sizeof(f));
	later = (struct later){0};
	bench_init(&b, say_big);
	rq.url = b.server.url;
	for (int i = 0; i < 8; i++) {
		fetch_start(&b.rig, &f[i], &rq);
		f[i].on_data = pause_and_cancel_later;
	}
	/* Runs until the first of them was paused and cancelled. */
	b.rig.running -= 7;
	rig_run(&b.rig);
	b.rig.running = 100;
	http_client_free(&b.rig.client);
	for (int i = 0; i < 8; i++) {
		EQ(f[i].dones, 1);
		EQ(f[i].r, -ECANCELED);
		fetch_release(&f[i]);
	}
	bench_release(&b);
}

static void free_client(struct fetch *f)
{
	struct http_request rq = {.url = "http://127.0.0.1:1/"};
	struct http_client *c = f->rig->client;
	struct fetch g = {0};

	http_client_free(&f->rig->client);
	EQ(http_start(c, &rq, &rig_callbacks, &g, &g.x), -EINVAL);
}

static void test_free_in_done(void)
{
	static struct fetch f[4];
	struct http_request rq = {0};
	struct bench b;

	memset(f, 0, sizeof(f));
	bench_init(&b, say_hello);
	rq.url = b.server.url;
	for (int i = 0; i < 4; i++) {
		fetch_start(&b.rig, &f[i], &rq);
		if (i == 1)
			f[i].on_done = free_client;
	}
	rig_run(&b.rig);
	OK(b.rig.client == NULL);
	for (int i = 0; i < 4; i++) {
		EQ(f[i].dones, 1);
		OK(f[i].r == 0 || f[i].r == -ECANCELED);
		fetch_release(&f[i]);
	}
	EQ(f[1].r, 0);
	bench_release(&b);
}

static void test_free_at_once(void)
{
	struct fetch f = {0};
	struct http_request rq = {.url = "http://127.0.0.1:1/"};
	struct http_client *none = NULL;
	struct rig rig;

	http_client_free(&none);
	rig_init(&rig);
	fetch_start(&rig, &f, &rq);
	rig_release(&rig);
	EQ(f.r, -ECANCELED);
	EQ(f.dones, 1);
}

/* --- Names ------------------------------------------------------------- */

static struct {
	pthread_mutex_t mu;
	pthread_cond_t cond;
	bool release;
	int waiting;
	struct loop *loop;
} slow = {.mu = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

/* Replaces libc's: no test may ask a name server. */
int getaddrinfo(const char *node, const char *service,
		const struct addrinfo *hints, struct addrinfo **res)
{
	(void)service;
	(void)hints;
	(void)res;
	if (strcmp(node, "slow.test") == 0) {
		loop_post(slow.loop, &later.task);
		(void)pthread_mutex_lock(&slow.mu);
		slow.waiting++;
		while (!slow.release)
			(void)pthread_cond_wait(&slow.cond, &slow.mu);
		slow.waiting--;
		(void)pthread_cond_broadcast(&slow.cond);
		(void)pthread_mutex_unlock(&slow.mu);
	}
	return EAI_NONAME;
}

/* A name server that does not answer must not block the loop: this test would
 * hang if cancelling waited for it. */
static void test_cancel_while_resolving(void)
{
	struct fetch f = {0};
	struct rig rig;

	rig_init(&rig);
	later = (struct later){.f = &f, .task.run = cancel_task};
	slow.loop = rig.loop;
	fetch_url(&rig, &f, "http://slow.test/");
	EQ(f.r, -ECANCELED);
	(void)pthread_mutex_lock(&slow.mu);
	slow.release = true;
	(void)pthread_cond_broadcast(&slow.cond);
	while (slow.waiting > 0)
		(void)pthread_cond_wait(&slow.cond, &slow.mu);
	(void)pthread_mutex_unlock(&slow.mu);
	rig_release(&rig);
}

static void test_close_on_exec(void)
{
	struct bench b;
	int open = 0;

	bench_init(&b, say_hello);
	fetch_url(&b.rig, &b.f, b.server.url);
	for (int fd = 3; fd < 256; fd++) {
		struct sockaddr_in sin;
		socklen_t len = sizeof(sin);
		char peer[64];

		if (getpeername(fd, (struct sockaddr *)&sin, &len) < 0)
			continue;
		(void)snprintf(peer, sizeof(peer), "http://127.0.0.1:%d",
			       ntohs(sin.sin_port));
		if (strcmp(peer, b.server.url) != 0)
			continue;
		open++;
		EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	}
	EQ(open, 1);
	bench_release(&b);
}

int main(void)
{
	rig_environment();
	RUN(test_stalls);
	RUN(test_connect_timeout);
	RUN(test_pause);
	RUN(test_resume_in_data);
	RUN(test_pause_is_no_stall);
	RUN(test_error_after_pause);
	RUN(test_cancel_at_start);
	RUN(test_cancel_in_callbacks);
	RUN(test_cancel_too_late);
	RUN(test_cancel_another);
	RUN(test_start_in_callbacks);
	RUN(test_free_with_exchanges);
	RUN(test_free_in_done);
	RUN(test_free_at_once);
	RUN(test_cancel_while_resolving);
	RUN(test_close_on_exec);
	return tap_done();
}
