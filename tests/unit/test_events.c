/* Events against a scripted API server on the same loop.
 * tests/deploy/51-events.bats tests TLS and reads the objects with a real
 * client. */
#include "daemon/events.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "http/server.h"
#include "tests/unit/tap.h"

#define MAX_POSTS   64
#define PATIENCE_MS 60000

enum { HANG = -1, RESET = -2 };

struct post {
	char target[256], auth[128], body[4096];
	uint64_t at_ms;
};

static struct {
	struct loop *loop;
	struct http_client *client;
	struct http_server *server;
	struct events *ev;
	uv_timer_t timer;
	char dir[64], url[64], notified[2048], log_path[96];
	int log_fd;

	/* The nth post gets the status script[n]; 201 after its end. */
	int script[MAX_POSTS];
	const char *retry_after;
	struct post posts[MAX_POSTS];
	int nposts, want, ok, want_ok;
	void (*on_post)(int n);
	struct http_req *hung;
	bool done;
} t;

static void on_gone(struct http_req *rq)
{
	http_release(rq);
	t.hung = NULL;
}

static void check_wanted(void)
{
	if (t.nposts >= t.want && t.ok >= t.want_ok)
		loop_stop(t.loop);
}

static void answer(struct http_req *rq, int status)
{
	static const char no[] = "{\"kind\":\"Status\",\"message\":\"no\"}";

	if (status == HANG) {
		t.hung = rq;
		http_req_on_gone(rq, on_gone);
	} else if (status == RESET) {
		http_abort(rq);
	} else {
		if (status >= 429 && t.retry_after)
			http_header_add(rq, "Retry-After", "%s", t.retry_after);
		http_reply(rq, status, "application/json", no, sizeof(no) - 1);
	}
}

static void handle(void *arg, struct http_req *rq)
{
	int n = t.nposts, status = t.script[n] ? t.script[n] : 201;
	struct post *p = &t.posts[n];
	size_t len;
	const char *body = http_req_body(rq, &len);
	const char *auth = http_req_header(rq, "Authorization");

	(void)arg;
	STREQ(http_req_method(rq), "POST");
	STREQ(http_req_header(rq, "Content-Type"), "application/json");
	(void)snprintf(p->target, sizeof(p->target), "%s", http_req_target(rq));
	(void)snprintf(p->auth, sizeof(p->auth), "%s", auth ? auth : "");
	(void)snprintf(p->body, sizeof(p->body), "%.*s", (int)len, body);
	p->at_ms = now_ms();
	if (++t.nposts == MAX_POSTS)
		BAIL("too many posts");
	t.ok += status / 100 == 2;
	if (t.on_post)
		t.on_post(n);
	answer(rq, status);
	check_wanted();
}

static void write_file(const char *name, const char *text)
{
	char path[128], tmp[160];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", t.dir, name);
	(void)snprintf(tmp, sizeof(tmp), "%s.new", path);
	f = fopen(tmp, "w");
	if (!f || fputs(text, f) < 0 || fclose(f) != 0 ||
	    rename(tmp, path) != 0)
		BAIL("cannot write");
}

static void notify(const char *state)
{
	size_t len = strlen(t.notified);

	(void)snprintf(t.notified + len, sizeof(t.notified) - len, "%s\n",
		       state);
}

/* Counts the lines of this test's log that contain the text. */
static int logged(const char *text)
{
	CLEANUP(freep) char *line = NULL;
	FILE *f = fopen(t.log_path, "r");
	size_t size = 0;
	int n = 0;

	if (!f)
		BAIL("no log");
	while (getline(&line, &size, f) > 0)
		n += strstr(line, text) != NULL;
	(void)fclose(f);
	return n;
}

static void late(uv_timer_t *timer)
{
	(void)timer;
	tap_test_failed = 1;
	printf("# gave up waiting: %d posts of %d, %d ok of %d\n", t.nposts,
	       t.want, t.ok, t.want_ok);
	loop_stop(t.loop);
}

static void setup(void)
{
	struct http_server_config sc = {.name = "api"};
	struct http_client_config cc = {.user_agent = "test/1"};
	struct error err;
	uint16_t port;

	memset(&t, 0, sizeof(t));
	(void)snprintf(t.dir, sizeof(t.dir), "/tmp/test-events-XXXXXX");
	if (!mkdtemp(t.dir) || loop_new(&t.loop) < 0)
		BAIL("no loop");
	sc.loop = t.loop;
	if (http_client_new(t.loop, &cc, &t.client) < 0 ||
	    http_server_new(&sc, &t.server) < 0 ||
	    http_listen(t.server, "127.0.0.1:0", NULL, handle, NULL, &port,
			&err) < 0)
		BAIL("no server");
	(void)snprintf(t.url, sizeof(t.url), "http://127.0.0.1:%u", port);
	(void)snprintf(t.log_path, sizeof(t.log_path), "%s/log", t.dir);
	t.log_fd = creat(t.log_path, 0600);
	log_set_fd(t.log_fd);
	write_file("token", "first\n");
	write_file("namespace", "kube-test");
	(void)setenv("POD_NAME", "peerd-x1", 1);
	(void)setenv("POD_UID", "0c1e-uid", 1);
	(void)setenv("NODE_NAME", "node-1", 1);
	(void)unsetenv("POD_NAMESPACE");
	(void)unsetenv("KUBERNETES_SERVICE_HOST");
	(void)uv_timer_init(loop_uv(t.loop), &t.timer);
	(void)uv_timer_start(&t.timer, late, PATIENCE_MS, 0);
}

static void open_events_at(const char *url)
{
	struct events_config cfg = {
		.loop = t.loop,
		.client = t.client,
		.notify = notify,
		.account_dir = t.dir,
		.api_url = url,
		.retry_ms = 10,
		.timeout_ms = 2000,
		.refill_ms = 1500,
	};

	EQ(events_new(&cfg, &t.ev), 0);
}

static void open_events(void)
{
	open_events_at(t.url);
}

/* Waits for so many posts, and so many of them with a good answer. */
static void wait_posts(int want, int want_ok)
{
	t.want = want;
	t.want_ok = want_ok;
	if (t.nposts < want || t.ok < want_ok)
		loop_run(t.loop);
}

static void pass_time(uv_timer_t *timer)
{
	(void)timer;
	loop_stop(t.loop);
}

/* Waits long enough for an unwanted post to come. */
static void settle(void)
{
	t.want = t.want_ok = MAX_POSTS;
	(void)uv_timer_start(&t.timer, pass_time, 400, 0);
	loop_run(t.loop);
	(void)uv_timer_start(&t.timer, late, PATIENCE_MS, 0);
}

static void server_stopped(void *arg)
{
	(void)arg;
	http_server_free(&t.server);
	loop_stop(t.loop);
}

static void release(void)
{
	const char *const names[] = {"token", "namespace", "log"};
	char path[128];

	events_free(&t.ev);
	OK(t.ev == NULL);
	events_free(&t.ev);
	uv_close((uv_handle_t *)&t.timer, NULL);
	http_server_stop(t.server, 0, server_stopped, NULL);
	loop_run(t.loop);
	http_client_free(&t.client);
	loop_free(&t.loop);
	log_set_fd(-1);
	(void)close(t.log_fd);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", t.dir, names[i]);
		(void)unlink(path);
	}
	(void)rmdir(t.dir);
}

/* Returns the value at a path of keys in the nth post; "" if it is absent. */
static const char *field(int n, const char *key, const char *sub)
{
	static char value[2048];
	CLEANUP(json_decrefp) json_t *v = NULL;
	const char *s;
	struct error err;

	if (json_parse(t.posts[n].body, strlen(t.posts[n].body), 65536, &v,
		       &err) < 0)
		return "(not JSON)";
	s = sub ? json_get_str(json_get_obj(v, key), sub)
		: json_get_str(v, key);
	(void)snprintf(value, sizeof(value), "%s", s ? s : "");
	return value;
}

static void test_object(void)
{
	char name[300];

	setup();
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "starting");
	events_state(t.ev, P2P_CONNECTED, "2 of 3 \"members\" answer\nX=1");
	events_state(t.ev, P2P_CONNECTED, "again");
	events_state(t.ev, P2P_DISCONNECTED, "nobody answers");
	wait_posts(3, 3);
	settle();
	EQ(t.nposts, 3);
	STREQ(t.posts[0].target, "/api/v1/namespaces/kube-test/events");
	STREQ(t.posts[0].auth, "Bearer first");
	STREQ(field(0, "reason", NULL), "P2PInitializing");
	STREQ(field(0, "kind", NULL), "Event");
	STREQ(field(0, "apiVersion", NULL), "v1");
	STREQ(field(0, "type", NULL), "Normal");
	STREQ(field(0, "involvedObject", "kind"), "Pod");
	STREQ(field(0, "involvedObject", "name"), "peerd-x1");
	STREQ(field(0, "involvedObject", "uid"), "0c1e-uid");
	STREQ(field(0, "involvedObject", "namespace"), "kube-test");
	STREQ(field(0, "metadata", "namespace"), "kube-test");
	STREQ(field(0, "source", "component"), "peerd");
	STREQ(field(0, "source", "host"), "node-1");
	EQ(strlen(field(0, "firstTimestamp", NULL)), 20);
	(void)snprintf(name, sizeof(name), "%s", field(0, "metadata", "name"));
	OK(strncmp(name, "peerd-x1.", 9) == 0);
	OK(strcmp(name, field(1, "metadata", "name")) != 0);
	STREQ(field(1, "reason", NULL), "P2PConnected");
	STREQ(field(1, "message", NULL), "2 of 3 \"members\" answer X=1");
	STREQ(field(2, "reason", NULL), "P2PDisconnected");
	STREQ(field(2, "type", NULL), "Warning");
	STREQ(t.notified, "STATUS=P2PInitializing: starting\n"
			  "STATUS=P2PConnected: 2 of 3 \"members\" answer X=1\n"
			  "STATUS=P2PDisconnected: nobody answers\n");
	EQ(logged("\"message\":\"P2PConnected\""), 1);
	EQ(logged("\"level\":\"warn\""), 1);
	EQ(events_current(t.ev), P2P_DISCONNECTED);
	release();
}

static void test_outside_kubernetes(void)
{
	setup();
	open_events_at(NULL);
	events_state(t.ev, P2P_ACTIVE, "serving");
	events_state(NULL, P2P_ACTIVE, "nobody");
	EQ(events_current(NULL), P2P_NONE);
	settle();
	EQ(t.nposts, 0);
	STREQ(t.notified, "STATUS=P2PActive: serving\n");
	EQ(logged("\"level\":\"warn\""), 0);
	release();
}

static void no_events_with(const char *name, const char *value)
{
	setup();
	if (value)
		(void)setenv(name, value, 1);
	else
		(void)unsetenv(name);
	open_events();
	events_state(t.ev, P2P_ACTIVE, "serving");
	settle();
	EQ(t.nposts, 0);
	EQ(logged("no events on the pod"), 1);
	release();
}

static void test_incomplete_environment(void)
{
	no_events_with("POD_NAME", NULL);
	no_events_with("POD_NAME", "x/../../secrets");
	no_events_with("POD_NAMESPACE", "default?watch=1");
	/* Events are still sent without these two. */
	setup();
	(void)unsetenv("POD_UID");
	(void)unsetenv("NODE_NAME");
	(void)setenv("POD_NAMESPACE", "other", 1);
	open_events();
	events_state(t.ev, P2P_ACTIVE, "serving");
	wait_posts(1, 1);
	STREQ(t.posts[0].target, "/api/v1/namespaces/other/events");
	STREQ(field(0, "involvedObject", "uid"), "");
	release();
}

static void test_errors_are_tried_again(void)
{
	static const int statuses[] = {500, 503, 429, 408, RESET, 504};

	setup();
	memcpy(t.script, statuses, sizeof(statuses));
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "one");
	events_state(t.ev, P2P_CONNECTED, "two");
	wait_posts(8, 2);
	for (int i = 0; i < 7; i++)
		STREQ(field(i, "message", NULL), "one");
	STREQ(field(7, "message", NULL), "two");
	/* All attempts use one name, so the event cannot appear twice. */
	STREQ(strstr(t.posts[6].body, "peerd-x1."),
	      strstr(t.posts[0].body, "peerd-x1."));
	settle();
	EQ(logged("cannot post events"), 1);
	EQ(logged("reach the Kubernetes API again"), 1);
	release();
}

static void test_retry_after(void)
{
	setup();
	t.script[0] = 429;
	t.retry_after = "1";
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "one");
	wait_posts(2, 1);
	OK(t.posts[1].at_ms - t.posts[0].at_ms >= 990);
	release();
}

static void test_hang(void)
{
	setup();
	t.script[0] = HANG;
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "one");
	wait_posts(2, 1);
	EQ(logged("cannot post events"), 1);
	STREQ(field(1, "message", NULL), "one");
	release();
}

static void test_conflict(void)
{
	char first[300];

	setup();
	t.script[0] = 409; /* the name of another event */
	t.script[1] = 500; /* it had arrived */
	t.script[2] = 409;
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "one");
	events_state(t.ev, P2P_CONNECTED, "two");
	wait_posts(4, 1);
	(void)snprintf(first, sizeof(first), "%s",
		       field(0, "metadata", "name"));
	OK(strcmp(first, field(1, "metadata", "name")) != 0);
	(void)snprintf(first, sizeof(first), "%s",
		       field(1, "metadata", "name"));
	STREQ(field(2, "metadata", "name"), first);
	STREQ(field(3, "message", NULL), "two");
	settle();
	EQ(t.nposts, 4);
	release();
}

static void refused_with(int status)
{
	setup();
	for (int i = 0; i < 6; i++)
		t.script[i] = status;
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "one");
	wait_posts(4, 0);
	settle();
	EQ(t.nposts, 4);
	EQ(logged("refuses events; given up"), 1);
	/* Each later event is tried once and not logged. */
	events_state(t.ev, P2P_CONNECTED, "two");
	wait_posts(5, 0);
	events_state(t.ev, P2P_ACTIVE, "three");
	wait_posts(6, 0);
	settle();
	EQ(t.nposts, 6);
	EQ(logged("refuses events"), 1);
	/* The role was bound. */
	events_state(t.ev, P2P_DISCONNECTED, "four");
	wait_posts(7, 1);
	settle();
	EQ(logged("reach the Kubernetes API again"), 1);
	EQ(logged("first"), 0);
	EQ(logged("Bearer"), 0);
	release();
}

static void test_refused(void)
{
	refused_with(401);
	refused_with(403);
	refused_with(404);
}

static void test_invalid_is_dropped(void)
{
	setup();
	t.script[0] = 422;
	t.script[1] = 400;
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "one");
	events_state(t.ev, P2P_CONNECTED, "two");
	events_state(t.ev, P2P_ACTIVE, "three");
	wait_posts(3, 1);
	STREQ(field(2, "message", NULL), "three");
	EQ(logged("event was dropped"), 1);
	release();
}

static void new_token(int n)
{
	if (n == 0)
		write_file("token", "second");
}

static void test_token_is_read_again(void)
{
	setup();
	t.script[0] = 401;
	t.on_post = new_token;
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "one");
	wait_posts(2, 1);
	STREQ(t.posts[0].auth, "Bearer first");
	STREQ(t.posts[1].auth, "Bearer second");
	settle();
	EQ(logged("refuses"), 0);
	write_file("token", "third");
	events_state(t.ev, P2P_CONNECTED, "two");
	wait_posts(3, 2);
	STREQ(t.posts[2].auth, "Bearer third");
	release();
}

static void put_token(uv_timer_t *timer)
{
	write_file("token", "late");
	uv_close((uv_handle_t *)timer, NULL);
}

static void test_token_comes_late(void)
{
	static uv_timer_t timer;
	char path[128];

	setup();
	(void)snprintf(path, sizeof(path), "%s/token", t.dir);
	(void)unlink(path);
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "one");
	(void)uv_timer_init(loop_uv(t.loop), &timer);
	(void)uv_timer_start(&timer, put_token, 100, 0);
	wait_posts(1, 1);
	STREQ(t.posts[0].auth, "Bearer late");
	EQ(logged("token cannot be read"), 1);
	release();
}

static void test_flapping(void)
{
	char text[32];

	setup();
	open_events();
	for (int i = 0; i < 100; i++) {
		(void)snprintf(text, sizeof(text), "%d", i);
		events_state(t.ev, i % 2 ? P2P_DISCONNECTED : P2P_CONNECTED,
			     text);
	}
	wait_posts(12, 12);
	settle();
	EQ(t.nposts, 12);
	/* The rest of the queue is sent slowly and ends with the current state.
	 */
	wait_posts(16, 16);
	STREQ(field(15, "message", NULL), "99");
	STREQ(field(0, "message", NULL), "0");
	release();
}

static void test_nobody_there(void)
{
	setup();
	open_events_at("http://127.0.0.1:1");
	events_state(t.ev, P2P_INITIALIZING, "one");
	settle();
	EQ(logged("cannot post events"), 1);
	release(); /* during a pause */
}

static void test_free_at_any_time(void)
{
	/* While the token is read. */
	setup();
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "one");
	release();
	/* While a request hangs. */
	setup();
	t.script[0] = HANG;
	open_events();
	events_state(t.ev, P2P_INITIALIZING, "one");
	wait_posts(1, 0);
	release();
	/* Before the first event. */
	setup();
	open_events();
	release();
}

static void test_long_message(void)
{
	char text[3000];

	setup();
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	open_events();
	events_state(t.ev, P2P_FAILED, text);
	wait_posts(1, 1);
	EQ(strlen(field(0, "message", NULL)), 1024);
	STREQ(field(0, "type", NULL), "Warning");
	release();
}

int main(void)
{
	(void)signal(SIGPIPE, SIG_IGN);
	(void)setenv("no_proxy", "*", 1);
	(void)alarm(300);
	log_init(LOG_DEBUG, LOG_FORMAT_JSON, "test", "1");
	RUN(test_object);
	RUN(test_outside_kubernetes);
	RUN(test_incomplete_environment);
	RUN(test_errors_are_tried_again);
	RUN(test_retry_after);
	RUN(test_hang);
	RUN(test_conflict);
	RUN(test_refused);
	RUN(test_invalid_is_dropped);
	RUN(test_token_is_read_again);
	RUN(test_token_comes_late);
	RUN(test_flapping);
	RUN(test_nobody_there);
	RUN(test_free_at_any_time);
	RUN(test_long_message);
	return tap_done();
}
