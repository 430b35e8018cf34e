/* Refused requests, timeouts and limits of the server, listening and draining.
 */
#include "base/log.h"
#include "tests/unit/http-harness.h"

static void test_refusals(void)
{
	static const struct {
		int status;
		const char *bytes;
	} cases[] = {
		{400, "GET / HTTP/1.1\r\n\r\n"},
		{400, "GET / HTTP/1.1\n\n"},
		{400, "\x16\x03\x01\x02\x03 hello"},
		{400, "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
		      "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /"},
		{400, "POST /echo HTTP/1.1\r\nHost: x\r\n"
		      "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"},
		{413, "POST /echo HTTP/1.1\r\nHost: x\r\n"
		      "Content-Length: 1001\r\n\r\nabc"},
		{413, "POST /echo HTTP/1.1\r\nHost: x\r\n"
		      "Content-Length: 18446744073709551615\r\n\r\nabc"},
		{413, "POST /echo HTTP/1.1\r\nHost: x\r\n"
		      "Transfer-Encoding: chunked\r\n\r\n3e8\r\n%01000d\r\n"
		      "1\r\nx\r\n0\r\n\r\n"},
		{414, "GET /%0600d HTTP/1.1\r\nHost: x\r\n\r\n"},
		{414, "GET /%0700d"},
		{417, "GET / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n"},
		{431, "GET / HTTP/1.1\r\nHost: x\r\nA: %02000d\r\n\r\n"},
		{431, "GET / HTTP/1.1\r\nHost: x\r\nA: %02000d"},
		{501, "BREW / HTTP/1.1\r\nHost: x\r\n\r\n"},
		{505, "GET / HTTP/3.0\r\nHost: x\r\n\r\n"},
	};
	char bytes[4096];

	start((struct http_server_config){.max_body_bytes = 1000,
					  .max_target_bytes = 500,
					  .max_header_bytes = 1500});
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *zeros = strstr(cases[i].bytes, "%0");
		size_t n = zeros ? strtoull(zeros + 1, NULL, 10) : 0;
		int skip = zeros ? (int)(zeros - cases[i].bytes) : 0;
		int fd = dial();

		if (zeros)
			(void)snprintf(bytes, sizeof(bytes), "%.*s%0*d%s", skip,
				       cases[i].bytes, (int)n, 0,
				       strchr(zeros, 'd') + 1);
		EQ(ask(fd, zeros ? bytes : cases[i].bytes), cases[i].status);
		OK(has("Connection: close\r\n"));
		OK(has("Content-Type: application/json\r\n"));
		OK(answer.body &&
		   strncmp(answer.body, "{\"errors\":[{", 12) == 0);
		EQ(ending(fd), 0);
		(void)close(fd);
	}
	stop();
}

/* The refusal arrives although the client still has much to send. */
static void test_refusal_of_large_body(void)
{
	static char junk[600000];
	int fd;

	start((struct http_server_config){.max_body_bytes = 1000});
	fd = dial();
	put(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 600000\r\n"
		"\r\n");
	EQ(send(fd, junk, sizeof(junk), MSG_NOSIGNAL), sizeof(junk));
	EQ(get_answer(fd, false), 413);
	EQ(ending(fd), 0);
	(void)close(fd);
	stop();
}

static void test_slow_clients(void)
{
	int fd;

	start((struct http_server_config){.header_timeout_ms = 1000,
					  .send_timeout_ms = 300});
	fd = dial();
	EQ(ending(fd), 0); /* nothing sent, nothing answered */
	(void)close(fd);
	fd = dial();
	EQ(ask(fd, "GET / HTTP/1.1\r\nHost:"), 408);
	EQ(ending(fd), 0);
	(void)close(fd);
	fd = dial();
	EQ(ask(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"),
	   408);
	EQ(ending(fd), 0);
	(void)close(fd);
	/* A client that does not receive. */
	fd = dial();
	put(fd, GET("/file"));
	EVENTS("EPIPE gone ");
	while (recv(fd, answer.head, sizeof(answer.head), 0) > 0)
		;
	EQ(errno, ECONNRESET);
	(void)close(fd);
	stop();
}

/* What a client does not take can be had back, and the rest comes from
 * elsewhere. */
static void test_take_back(void)
{
	int fd;

	start((struct http_server_config){.send_timeout_ms = 1000});
	fd = dial();
	put(fd, GET("/all"));
	EVENTS("parked ");
	on_loop(take_back);
	EQ(get_answer(fd, false), 200);
	OK(is_file(0, FILE_SIZE));
	EQ(ask(fd, GET("/echo")), 200);
	/* The time of a client that takes nothing ends all the same. */
	put(fd, GET("/all"));
	EVENTS("parked ");
	on_loop(take_back);
	EVENTS("EPIPE gone ");
	(void)close(fd);
	stop();
}

static void test_idle_timeout(void)
{
	int fd;

	start((struct http_server_config){.idle_timeout_ms = 60});
	fd = dial();
	EQ(ask(fd, GET("/echo")), 200);
	EQ(ending(fd), 0);
	(void)close(fd);
	/* A handler may take longer than any timeout. */
	fd = dial();
	put(fd, GET("/park"));
	EVENTS("parked ");
	{
		int other = dial();

		EQ(ask(other, GET("/echo")), 200);
		EQ(ending(other), 0);
		(void)close(other);
	}
	on_loop(park_reply);
	EQ(get_answer(fd, false), 200);
	(void)close(fd);
	stop();
}

/* When all places are taken, the connection that waited longest goes. */
static void test_idle_go_first(void)
{
	int a, b, c;

	start((struct http_server_config){.max_connections = 2});
	a = dial();
	EQ(ask(a, GET("/echo")), 200);
	b = dial();
	EQ(ask(b, GET("/echo")), 200);
	EQ(ask(a, GET("/echo")), 200);
	c = dial();
	EQ(ask(c, GET("/echo")), 200);
	EQ(ending(b), 0);
	(void)close(b);
	/* Those that have sent nothing, a piece of a head or of a body go,
	 * too. */
	b = dial();
	put(b, "GET / HT");
	EQ(ending(a), 0);
	(void)close(a);
	a = dial();
	EQ(ask(a, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
		  "Expect: 100-continue\r\n\r\n"),
	   100);
	EQ(ending(c), 0);
	(void)close(c);
	c = dial();
	EQ(ask(c, GET("/echo")), 200);
	OK(ending(b) == 0 || ending(b) == ECONNRESET);
	(void)close(b);
	b = dial();
	EQ(ask(b, GET("/echo")), 200);
	OK(ending(a) == 0);
	(void)close(a);
	(void)close(b);
	(void)close(c);
	stop();
}

/* More clients than there are places, and all the time. */
static void test_hoarders(void)
{
	int idle[64], fd;

	start((struct http_server_config){.max_connections = 4});
	for (size_t i = 0; i < ARRAY_SIZE(idle); i++)
		idle[i] = dial();
	fd = dial();
	for (size_t i = 0; i < ARRAY_SIZE(idle) - 3; i++) {
		EQ(ending(idle[i]), 0);
		(void)close(idle[i]);
	}
	EQ(ask(fd, GET("/echo")), 200);
	for (size_t i = ARRAY_SIZE(idle) - 3; i < ARRAY_SIZE(idle); i++) {
		EQ(ask(idle[i], GET("/echo")), 200);
		(void)close(idle[i]);
	}
	(void)close(fd);
	stop();
}

/* Requests under way are let be; a probe is answered all the same. */
static void test_all_are_busy(void)
{
	int a, b, c, spare[20], status;

	start((struct http_server_config){.max_connections = 2,
					  .probe = "/echo"});
	a = dial();
	put(a, GET("/file"));
	EQ(recv(a, answer.head, 1, MSG_PEEK), 1);
	b = dial();
	put(b, GET("/file"));
	EQ(recv(b, answer.head, 1, MSG_PEEK), 1);
	c = dial();
	EQ(ask(c, GET("/file")), 503);
	OK(has("Connection: close\r\n"));
	EQ(ending(c), 0);
	(void)close(c);
	for (size_t i = 0; i < ARRAY_SIZE(spare); i++)
		spare[i] = dial();
	c = dial();
	EQ(ask(c, GET("/echo?x")), 200);
	OK(has("Connection: close\r\n"));
	EQ(ending(c), 0);
	(void)close(c);
	for (size_t i = 0; i < ARRAY_SIZE(spare); i++)
		(void)close(spare[i]);
	EQ(get_answer(a, false), 200);
	OK(is_file(0, FILE_SIZE));
	/* The place is free as soon as the server has seen it. */
	do {
		c = dial();
		status = ask(c, GET("/file?len=1"));
		(void)close(c);
	} while (status == 503);
	EQ(status, 200);
	EQ(get_answer(b, false), 200);
	OK(is_file(0, FILE_SIZE));
	(void)close(a);
	(void)close(b);
	stop();
}

static struct error listen_err;
static uint16_t second_port;

static void listen_second(void)
{
	static int arg = 42;

	EQ(http_listen(server, "127.0.0.1:0", NULL, handler, &arg, &second_port,
		       &listen_err),
	   0);
}

/* One that is full takes nothing from the others. */
static void test_each_listener_has_its_own(void)
{
	uint16_t first_port;
	int a, b, c;

	start((struct http_server_config){.max_connections = 1});
	on_loop(listen_second);
	a = dial();
	put(a, GET("/file"));
	EQ(recv(a, answer.head, 1, MSG_PEEK), 1);
	b = dial();
	EQ(ask(b, GET("/echo")), 503);
	first_port = port;
	port = second_port;
	c = dial();
	EQ(ask(c, GET("/echo")), 200);
	EQ(ask(c, GET("/echo")), 200);
	port = first_port;
	(void)close(a);
	(void)close(b);
	(void)close(c);
	EVENTS("EPIPE gone ");
	stop();
}

/* Blank lines in front of a request do not begin its time anew. */
static void test_blank_lines(void)
{
	uint64_t began = now_ms();
	int fd, r;

	start((struct http_server_config){.header_timeout_ms = 500});
	fd = dial();
	do {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		r = send(fd, "\r\n", 2, MSG_NOSIGNAL) == 2 ? poll(&p, 1, 50)
							   : 1;
	} while (r == 0 && now_ms() - began < 20000);
	OK(r == 1);
	(void)close(fd);
	stop();
}

static void test_out_of_descriptors(void)
{
	struct rlimit old, low;
	char line[512];
	int fd, log[2], probe;

	EQ(pipe(log), 0);
	log_set_fd(log[1]);
	start((struct http_server_config){0});
	fd = client_socket();
	probe = dup(fd);
	(void)close(probe);
	EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)probe;
	EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
	dial_with(fd);
	put(fd, GET("/echo"));
	OK(read(log[0], line, sizeof(line)) > 0);
	EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	EQ(get_answer(fd, false), 200);
	(void)close(fd);
	stop();
	log_set_fd(-1);
	(void)close(log[0]);
	(void)close(log[1]);
}

static int dial_unix(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(a.sun_path, path, strlen(path));
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

static char unix_addr[96];
static int listen_r;

static void listen_again(void)
{
	listen_r = http_listen(server, unix_addr, NULL, handler, NULL, NULL,
			       &listen_err);
}

static void test_unix_socket(void)
{
	const char *path = unix_addr + 5;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct stat st;
	int fd;

	(void)snprintf(unix_addr, sizeof(unix_addr), "unix:%s/sock", dir);
	memcpy(a.sun_path, path, strlen(path));
	/* The socket file that a killed process leaves behind. */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	EQ(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	(void)close(fd);
	start_on(unix_addr, (struct http_server_config){0});
	EQ(lstat(path, &st), 0);
	OK(S_ISSOCK(st.st_mode));
	EQ(st.st_mode & 07777, 0600);
	fd = dial_unix(path);
	EQ(ask(fd, GET("/echo")), 200);
	OK(has("X-Client: unix\r\n"));
	EQ(ask(fd, GET("/file")), 200);
	OK(is_file(0, FILE_SIZE));
	put(fd, GET("/park"));
	EVENTS("parked ");
	(void)close(fd);
	EVENTS("gone ");
	/* A live socket stays. */
	on_loop(listen_again);
	EQ(listen_r, -EADDRINUSE);
	OK(strstr(listen_err.text, path) != NULL);
	fd = dial_unix(path);
	EQ(ask(fd, GET("/echo")), 200);
	(void)close(fd);
	stop();
	EQ(lstat(path, &st), -1);
}

static int try_listen(const char *addr)
{
	listen_err.text[0] = '\0';
	return http_listen(server, addr, NULL, handler, NULL, &port,
			   &listen_err);
}

static void test_addresses(void)
{
	static const char *const bad[] = {
		"",	   "x",	      "127.0.0.1",    "127.0.0.1:",
		"a:b",	   "a:65536", "a:1x",	      "::1:80",
		"[::1:80", "[]:80",   "127.0.0.1:-1", "[::1]x:80",
	};
	struct http_server_config cfg = {0};
	char taken[64];
	int fd;

	EQ(loop_new(&loop), 0);
	cfg.loop = loop;
	EQ(http_server_new(&cfg, &server), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EQ(try_listen(bad[i]), -EINVAL);
		OK(strstr(listen_err.text, bad[i]) != NULL);
	}
	OK(try_listen("nobody.invalid:0") < 0);
	EQ(try_listen("192.0.2.1:0"), -EADDRNOTAVAIL);
	EQ(try_listen("unix:/nonexistent/peerd/sock"), -ENOENT);
	EQ(try_listen("unix:"), -ENAMETOOLONG);
	(void)snprintf(unix_addr, sizeof(unix_addr), "unix:%s/file", dir);
	fd = open(unix_addr + 5, O_CREAT | O_WRONLY, 0600);
	OK(fd >= 0);
	(void)close(fd);
	EQ(try_listen(unix_addr), -EEXIST);
	EQ(unlink(unix_addr + 5), 0);
	EQ(try_listen("localhost:0"), 0);
	(void)snprintf(taken, sizeof(taken), "127.0.0.1:%u", port);
	EQ(try_listen(taken), -EADDRINUSE);
	EQ(try_listen(":0"), 0);
	OK(port > 0);
	stop_now();
	OK(server != NULL); /* done() is never called from inside */
	loop_run(loop);
	OK(server == NULL);
	loop_free(&loop);
}

static void test_drain(void)
{
	int idle, busy, half, late;

	start((struct http_server_config){0});
	idle = dial();
	EQ(ask(idle, GET("/echo")), 200);
	busy = dial();
	put(busy, GET("/park"));
	EVENTS("parked ");
	half = dial();
	EQ(ask(half, GET("/echo")), 200);
	put(half, "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
		  "Content-Length: 2\r\n\r\n");
	EQ(get_answer(half, false), 100);
	on_loop(stop_slowly);
	EQ(ending(idle), 0);
	EQ(ask(half, "hi"), 200);
	OK(has("Connection: close\r\n"));
	EQ(ending(half), 0);
	/* While an answer runs, others are given too. */
	late = dial();
	EQ(ask(late, GET("/echo")), 200);
	OK(has("Connection: close\r\n"));
	EQ(ending(late), 0);
	on_loop(park_reply);
	EQ(get_answer(busy, false), 200);
	OK(has("Connection: close\r\n"));
	EQ(ending(busy), 0);
	join();
	(void)close(idle);
	(void)close(busy);
	(void)close(half);
	(void)close(late);
}

static void test_drain_cuts_off(void)
{
	int busy, stalled;

	start((struct http_server_config){0});
	busy = dial();
	put(busy, GET("/park"));
	EVENTS("parked ");
	stalled = dial();
	put(stalled, GET("/file"));
	EQ(recv(stalled, answer.head, 100, MSG_WAITALL), 100);
	on_loop(stop_soon);
	join();
	EQ(ending(busy), 0);
	(void)close(busy);
	(void)close(stalled);
}

/* A body without length that is cut off must not look whole. */
static void test_drain_cuts_off_without_length(void)
{
	int fd;

	start((struct http_server_config){0});
	fd = dial();
	put(fd, "GET /begin-open HTTP/1.0\r\n\r\n");
	EVENTS("parked ");
	on_loop(stop_soon);
	join();
	EQ(ending_after(fd), ECONNRESET);
	(void)close(fd);
}

int main(void)
{
	make_files();
	RUN(test_refusals);
	RUN(test_refusal_of_large_body);
	RUN(test_slow_clients);
	RUN(test_take_back);
	RUN(test_idle_timeout);
	RUN(test_blank_lines);
	RUN(test_idle_go_first);
	RUN(test_hoarders);
	RUN(test_all_are_busy);
	RUN(test_each_listener_has_its_own);
	RUN(test_out_of_descriptors);
	RUN(test_unix_socket);
	RUN(test_addresses);
	RUN(test_drain);
	RUN(test_drain_cuts_off);
	RUN(test_drain_cuts_off_without_length);
	remove_files();
	return tap_done();
}
