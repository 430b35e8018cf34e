#include "http/small.h"
#include "tests/unit/http-rig.h"

#define LIMIT 5

/* A request and its result. */
struct one {
	struct http_small s;
	struct rig *rig;
	const char *again; /* a URL to ask from done() */
	bool cancel;	   /* cancel that request at once */
	int dones, r, status;
	int64_t content_length;
	size_t len;
	char body[32], type[32];
	bool why;
};

static void on_done(struct http_small *s, struct http_answer *a);

static int start_cut(struct one *o, const char *url, bool cut)
{
	struct http_request rq = {.url = url};
	int r;

	o->dones = 0;
	o->rig->running++;
	r = http_small_start(&o->s, o->rig->client, &rq, LIMIT, cut, on_done);
	EQ(o->dones, 0); /* never from inside the call */
	EQ(o->s.x != NULL, r == 0);
	if (r < 0)
		o->rig->running--;
	return r;
}

static void on_done(struct http_small *s, struct http_answer *a)
{
	struct one *o = container_of(s, struct one, s);
	const char *type = http_header(a->x, "Content-Type", 0);
	const char *again = o->again;

	OK(s->x == NULL);
	o->dones++;
	o->r = a->r;
	o->status = a->status;
	o->content_length = a->content_length;
	o->len = a->body.len;
	o->why = *a->why != '\0';
	(void)snprintf(o->body, sizeof(o->body), "%s",
		       a->body.data ? a->body.data : "");
	(void)snprintf(o->type, sizeof(o->type), "%s", type ? type : "");
	o->again = NULL;
	if (again) {
		int dones = o->dones;

		EQ(start_cut(o, again, false), 0);
		o->dones = dones;
		if (o->cancel)
			http_small_cancel(s);
	}
	if (--o->rig->running == 0)
		loop_stop(o->rig->loop);
}

static void run_cut(struct bench *b, struct one *o, const char *path, bool cut)
{
	*o = (struct one){.rig = &b->rig};
	EQ(start_cut(o, url_of(b, path), cut), 0);
	rig_run(&b->rig);
	EQ(o->dones, 1);
}

/* The path selects the answer: /STATUS/BYTES of body. */
static void play(struct server *s, int fd, int nth)
{
	char text[256];
	int status, len;

	(void)nth;
	while (server_read(s, fd)) {
		if (sscanf(s->request, "GET /%d/%d ", &status, &len) != 2)
			return;
		if (status == 0) {
			server_stall(fd);
			return;
		}
		(void)snprintf(text, sizeof(text),
			       "HTTP/1.1 %d X\r\nContent-Type: a/b\r\n"
			       "Content-Length: %d\r\n\r\n%.*s",
			       status, len, len, "0123456789");
		if (!server_say(fd, text))
			return;
	}
}

static void test_answers(void)
{
	struct bench b;
	struct one o;

	bench_init(&b, play);
	run_cut(&b, &o, "/200/5", false); /* just fits */
	EQ(o.r, 0);
	EQ(o.status, 200);
	EQ(o.content_length, 5);
	EQ(o.len, 5);
	STREQ(o.body, "01234");
	STREQ(o.type, "a/b");
	run_cut(&b, &o, "/404/3", false);
	EQ(o.r, 0);
	EQ(o.status, 404);
	STREQ(o.body, "012");
	run_cut(&b, &o, "/200/0", false);
	EQ(o.r, 0);
	EQ(o.len, 0);
	bench_release(&b);
}

static void test_too_long(void)
{
	struct bench b;
	struct one o;

	bench_init(&b, play);
	run_cut(&b, &o, "/200/6", false);
	EQ(o.r, -EMSGSIZE);
	EQ(o.status, 200);
	OK(o.why);
	run_cut(&b, &o, "/200/9", true);
	EQ(o.r, 0);
	EQ(o.content_length, 9);
	STREQ(o.body, "01234");
	bench_release(&b);
}

static void test_refused(void)
{
	struct bench b;
	struct one o;
	char url[80];

	bench_init(&b, play);
	(void)snprintf(url, sizeof(url), "%s/200/1", b.server.url);
	server_stop(&b.server);
	o = (struct one){.rig = &b.rig};
	EQ(start_cut(&o, url, false), 0);
	rig_run(&b.rig);
	EQ(o.dones, 1);
	EQ(o.r, -ECONNREFUSED);
	EQ(o.status, 0);
	EQ(o.content_length, -1);
	OK(o.why);
	EQ(start_cut(&o, "no URL", false), -EINVAL);
	EQ(o.dones, 0);
	http_small_cancel(&o.s); /* no request is open: does nothing */
	rig_release(&b.rig);
}

static void test_cancel(void)
{
	struct bench b;
	struct one o;

	bench_init(&b, play);
	o = (struct one){.rig = &b.rig};
	EQ(start_cut(&o, url_of(&b, "/0/0"), false), 0);
	http_small_cancel(&o.s);
	http_small_cancel(&o.s);
	EQ(o.dones, 0);
	rig_run(&b.rig);
	EQ(o.dones, 1);
	EQ(o.r, -ECANCELED);
	bench_release(&b);
}

/* done() may start the request again, and cancel it: the answer that done() got
 * does not change. */
static void test_again_from_done(void)
{
	struct bench b;
	struct one o;

	bench_init(&b, play);
	for (int i = 0; i < 2; i++) {
		o = (struct one){.rig = &b.rig,
				 .again = url_of(&b, "/200/4"),
				 .cancel = i == 1};
		EQ(start_cut(&o, o.again, false), 0);
		rig_run(&b.rig);
		EQ(o.dones, 2);
		EQ(o.r, i == 1 ? -ECANCELED : 0);
		STREQ(o.body, i == 1 ? "" : "0123");
	}
	bench_release(&b);
}

/* An open request ends with the client. */
static void test_client_free(void)
{
	struct bench b;
	struct one o;

	bench_init(&b, play);
	o = (struct one){.rig = &b.rig};
	EQ(start_cut(&o, url_of(&b, "/0/0"), false), 0);
	bench_release(&b);
	EQ(o.dones, 1);
	EQ(o.r, -ECANCELED);
}

int main(void)
{
	rig_environment();
	RUN(test_answers);
	RUN(test_too_long);
	RUN(test_refused);
	RUN(test_cancel);
	RUN(test_again_from_done);
	RUN(test_client_free);
	return tap_done();
}
