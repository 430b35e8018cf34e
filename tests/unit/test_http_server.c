/* Requests, answers, and clients that go away. */
#include "tests/unit/http-harness.h"

static void test_keep_alive(void)
{
	int fd;

	start((struct http_server_config){.name = "tester"});
	fd = dial();
	EQ(ask(fd, "POST /echo?x=1&a%20b=c%2Bd+e HTTP/1.1\r\nHost: x\r\n"
		   "X-Many: 1\r\nx-many: 2\r\nContent-Length: 3\r\n\r\nabc"),
	   200);
	STREQ(answer.body, "abc");
	OK(has("Server: tester\r\n"));
	OK(has("Date: "));
	OK(has("Content-Type: text/plain\r\n"));
	OK(has("X-Method: POST\r\n"));
	OK(has("X-Target: /echo?x=1&a%20b=c%2Bd+e\r\n"));
	OK(has("X-Path: /echo\r\n"));
	OK(has("X-Query: c+d e\r\n"));
	OK(has("X-Many: 1, 2\r\n"));
	OK(has("X-Client: 127.0.0.1:\r\n"));
	OK(!has("Connection:"));
	EQ(ask(fd, GET("/echo?a%20b=%zz")), 200);
	OK(has("X-Query: (none)\r\n"));
	OK(has("X-Many: (none)\r\n"));
	EQ(answer.len, 0);
	EQ(ask(fd, "HEAD /file?len=7 HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
	OK(has("Content-Length: 7\r\n"));
	EQ(ask(fd, GET("/empty")), 304);
	OK(!has("Content-Length"));
	EQ(ask(fd, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"), 204);
	EQ(ask(fd, GET("/a\"b")), 404);
	STREQ(answer.body, "{\"errors\":[{\"code\":\"NAME_UNKNOWN\","
			   "\"message\":\"no \\\"/a\\\"b\\\"\"}]}\n");
	EQ(ask(fd, "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
		   "\r\n"),
	   200);
	OK(has("Connection: close\r\n"));
	EQ(ending(fd), 0);
	(void)close(fd);
	stop();
}

static void test_http_1_0(void)
{
	int fd;

	start((struct http_server_config){0});
	fd = dial();
	EQ(ask(fd, "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
	   200);
	OK(has("Connection: keep-alive\r\n"));
	EQ(ask(fd, "GET /file?chunked&len=5 HTTP/1.0\r\n"
		   "Connection: keep-alive\r\n\r\n"),
	   200);
	OK(has("Connection: close\r\n"));
	OK(!has("chunked"));
	answer.body = calloc(1, 6);
	EQ(take(fd, answer.body, 6), 5);
	OK(memcmp(answer.body, file_bytes, 5) == 0);
	(void)close(fd);
	stop();
}

static void test_pipelining(void)
{
	static const char two[] = GET(
		"/echo?1") "POST /echo?2 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
			   "\r\nhi" GET(
				   "/file?off=4&len=30000") "POST /echo?4 HTTP/1.1\r\nHost: x\r\n"
							    "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n"
							    "0\r\n\r\n\r\n" GET(
								    "/echo?5");
	int fd;

	start((struct http_server_config){0});
	for (int mode = 0; mode < 2; mode++) {
		fd = dial();
		/* All at once, then byte by byte. */
		if (mode == 0)
			put(fd, two);
		for (size_t i = 0; mode == 1 && two[i]; i++)
			EQ(send(fd, two + i, 1, MSG_NOSIGNAL), 1);
		EQ(get_answer(fd, false), 200);
		OK(has("X-Target: /echo?1\r\n"));
		EQ(get_answer(fd, false), 200);
		OK(has("X-Target: /echo?2\r\n"));
		STREQ(answer.body, "hi");
		EQ(get_answer(fd, false), 200);
		OK(is_file(4, 30000));
		EQ(get_answer(fd, false), 200);
		OK(has("X-Target: /echo?4\r\n"));
		STREQ(answer.body, "abcd");
		EQ(get_answer(fd, false), 200);
		OK(has("X-Target: /echo?5\r\n"));
		(void)close(fd);
	}
	stop();
}

/* More requests in one segment than one turn answers, behind one that waits. */
static void test_many_pipelined(void)
{
	int fd, n = 0;

	start((struct http_server_config){0});
	fd = dial();
	put(fd, GET("/park"));
	for (int i = 0; i < 200; i++)
		put(fd, GET("/echo"));
	EVENTS("parked ");
	on_loop(park_reply);
	EQ(get_answer(fd, false), 200);
	STREQ(answer.body, "late");
	while (n < 200 && get_answer(fd, false) == 200)
		n++;
	EQ(n, 200);
	(void)close(fd);
	stop();
}

static void test_expect_continue(void)
{
	int fd;

	start((struct http_server_config){0});
	fd = dial();
	EQ(ask(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
		   "Expect: 100-continue\r\n\r\n"),
	   100);
	EQ(ask(fd, "abc"), 200);
	STREQ(answer.body, "abc");
	/* Not when the body came along. */
	EQ(ask(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
		   "Expect: 100-continue\r\n\r\nabc"),
	   200);
	(void)close(fd);
	stop();
}

static void test_large_body(void)
{
	int fd;

	start((struct http_server_config){0});
	fd = dial();
	put(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n"
		"\r\n");
	EQ(send(fd, file_bytes, 1 << 20, MSG_NOSIGNAL), 1 << 20);
	EQ(get_answer(fd, false), 200);
	OK(is_file(0, 1 << 20));
	(void)close(fd);
	stop();
}

static void test_files_and_writes(void)
{
	int fd;

	start((struct http_server_config){0});
	fd = dial();
	EQ(ask(fd, GET("/file")), 200);
	OK(is_file(0, FILE_SIZE));
	EQ(ask(fd, GET("/file?off=5&len=4096")), 200);
	OK(is_file(5, 4096));
	EQ(ask(fd, GET("/file?len=0")), 200);
	EQ(answer.len, 0);
	EQ(ask(fd, GET("/file?chunked&off=1000000&len=5000000")), 200);
	OK(is_file(1000000, 5000000));
	EQ(ask(fd, GET("/file?chunked&len=0")), 200);
	EQ(answer.len, 0);
	EQ(ask(fd, GET("/pieces")), 200);
	OK(is_file(0, FILE_SIZE));
	EQ(ask(fd, GET("/pieces?chunked")), 200);
	OK(is_file(0, FILE_SIZE));
	EQ(ask(fd, "HEAD /pieces?chunked HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
	EQ(ask(fd, GET("/echo")), 200);
	(void)close(fd);
	stop();
}

/* The head does not wait for the body. */
static void test_head_leaves_alone(void)
{
	char body[6] = "";
	int fd;

	start((struct http_server_config){0});
	fd = dial();
	put(fd, GET("/begin"));
	EQ(get_answer(fd, true), 200);
	EVENTS("parked ");
	on_loop(park_write);
	EQ(take(fd, body, 5), 5);
	STREQ(body, "hello");
	EQ(ask(fd, GET("/echo")), 200);
	(void)close(fd);
	stop();
}

/* An answer that shows that it is incomplete ends in an orderly close, whatever
 * the reason: clients ask again after that, and not after a reset. */
static void test_short_answers(void)
{
	static const char *const requests[] = {
		GET("/abort"),
		GET("/short"),
		GET("/file?len=10&n=11"),
		GET("/file?off=12582900&len=100"),    /* small, copied */
		GET("/file?off=12000000&len=900000"), /* by sendfile */
	};

	start((struct http_server_config){0});
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		char sink[65536];
		int fd = dial();
		ssize_t n;

		put(fd, requests[i]);
		do {
			n = recv(fd, sink, sizeof(sink), 0);
		} while (n > 0);
		EQ(n, 0);
		(void)close(fd);
	}
	EVENTS("EIO EIO ");
	stop();
}

static void reset(int fd)
{
	struct linger l = {.l_onoff = 1};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	(void)close(fd);
}

static void test_client_goes(void)
{
	int fd;

	start((struct http_server_config){0});
	fd = dial();
	put(fd, GET("/park"));
	EVENTS("parked ");
	(void)close(fd);
	EVENTS("gone ");
	fd = dial();
	put(fd, GET("/park"));
	EVENTS("parked ");
	reset(fd);
	EVENTS("gone ");
	fd = dial();
	put(fd, GET("/begin"));
	EVENTS("parked ");
	reset(fd);
	EVENTS("gone ");
	/* In the middle of a write, of a file, and with another request behind
	 * it. */
	fd = dial();
	put(fd, GET("/pieces") GET("/echo"));
	EQ(recv(fd, answer.head, 100, MSG_WAITALL), 100);
	(void)close(fd);
	EVENTS("EPIPE gone ");
	fd = dial();
	put(fd, GET("/file"));
	EQ(recv(fd, answer.head, 100, MSG_WAITALL), 100);
	(void)close(fd);
	EVENTS("EPIPE gone ");
	/* Before the request is complete: no callback comes. */
	fd = dial();
	put(fd,
	    "POST /park HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab");
	(void)close(fd);
	fd = dial();
	EQ(ask(fd, GET("/echo")), 200);
	(void)close(fd);
	stop();
}

static void keep_it(struct http_req *rq)
{
	(void)rq;
	note("gone");
}

static void set_keep_it(void)
{
	http_req_on_gone(parked, keep_it);
}

static void begin_and_write(void)
{
	http_begin(parked, 200, 5);
	http_write(parked, "hello", 5, sent_only);
}

static void release(void)
{
	http_release(parked);
}

/* A handler may notice it late, and answer until then. */
static void test_answer_after_gone(void)
{
	static void (*const ends[])(void) = {release, park_reply, park_abort};

	start((struct http_server_config){0});
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		int fd = dial();

		put(fd, GET("/park"));
		EVENTS("parked ");
		on_loop(set_keep_it);
		reset(fd);
		EVENTS("gone ");
		if (i == 0) {
			on_loop(begin_and_write);
			EVENTS("unsent ");
		}
		on_loop(ends[i]);
	}
	stop();
}

/* A client that has closed only its own half gets its answer, at once or later.
 */
static void test_half_close(void)
{
	int fd;

	start((struct http_server_config){0});
	fd = dial();
	put(fd, GET("/echo?1") GET("/echo?2"));
	(void)shutdown(fd, SHUT_WR);
	EQ(get_answer(fd, false), 200);
	EQ(get_answer(fd, false), 200);
	EQ(ending(fd), 0);
	(void)close(fd);
	fd = dial();
	put(fd, GET("/file"));
	(void)shutdown(fd, SHUT_WR);
	EQ(get_answer(fd, false), 200);
	OK(is_file(0, FILE_SIZE));
	(void)close(fd);
	fd = dial();
	put(fd, GET("/park") GET("/echo"));
	EVENTS("parked ");
	(void)shutdown(fd, SHUT_WR);
	EQ(get_answer(fd, false), 100);
	on_loop(park_reply);
	EQ(get_answer(fd, false), 200);
	STREQ(answer.body, "late");
	EQ(get_answer(fd, false), 200);
	EQ(ending(fd), 0);
	(void)close(fd);
	stop();
}

static void test_many_clients(void)
{
	int fds[100];

	start((struct http_server_config){0});
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial();
		put(fds[i], i % 2 ? GET("/file?len=2000000") : GET("/echo"));
	}
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		EQ(get_answer(fds[i], false), 200);
		OK(i % 2 == 0 || is_file(0, 2000000));
		(void)close(fds[i]);
	}
	stop();
}

int main(void)
{
	make_files();
	RUN(test_keep_alive);
	RUN(test_http_1_0);
	RUN(test_pipelining);
	RUN(test_many_pipelined);
	RUN(test_expect_continue);
	RUN(test_large_body);
	RUN(test_files_and_writes);
	RUN(test_head_leaves_alone);
	RUN(test_short_answers);
	RUN(test_client_goes);
	RUN(test_answer_after_gone);
	RUN(test_half_close);
	RUN(test_many_clients);
	remove_files();
	return tap_done();
}
