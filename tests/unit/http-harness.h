/* A server in a loop thread with a handler controlled by the path, and clients
 * with plain sockets in the test's thread. */
#ifndef TESTS_HTTP_HARNESS_H
#define TESTS_HTTP_HARNESS_H

#include "http/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/tap.h"

#define FILE_SIZE ((size_t)12 << 20)

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static char events[256]; /* guarded by: mu */
static bool call_done;	 /* guarded by: mu */

/* Loop thread, except before start() and after stop(). */
static struct loop *loop;
static struct http_server *server;
static struct http_req *parked;

static pthread_t thread;
static uint16_t port;
static int file_fd;
static char *file_bytes;
static char dir[64];

/* ---- Waiting for the loop thread ---- */

static inline void note(const char *what)
{
	(void)pthread_mutex_lock(&mu);
	(void)snprintf(events + strlen(events), sizeof(events) - strlen(events),
		       "%s ", what);
	(void)pthread_cond_broadcast(&changed);
	(void)pthread_mutex_unlock(&mu);
}

static inline void expect_events_at(int line, const char *want)
{
	struct timespec until;
	int r = 0;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 60;
	(void)pthread_mutex_lock(&mu);
	while (strlen(events) < strlen(want) && r == 0)
		r = pthread_cond_timedwait(&changed, &mu, &until);
	if (strcmp(events, want) != 0) {
		tap_test_failed = 1;
		printf("# line %d: events are \"%s\", not \"%s\"\n", line,
		       events, want);
	}
	events[0] = '\0';
	(void)pthread_mutex_unlock(&mu);
}
#define EVENTS(want) expect_events_at(__LINE__, want)

struct call {
	struct loop_task task;
	void (*fn)(void);
};

static inline void run_call(struct loop_task *t)
{
	container_of(t, struct call, task)->fn();
	(void)pthread_mutex_lock(&mu);
	call_done = true;
	(void)pthread_cond_broadcast(&changed);
	(void)pthread_mutex_unlock(&mu);
}

/* Runs fn() on the loop thread and waits until it returns. */
static inline void on_loop(void (*fn)(void))
{
	struct call c = {.task.run = run_call, .fn = fn};

	(void)pthread_mutex_lock(&mu);
	call_done = false;
	loop_post(loop, &c.task);
	while (!call_done)
		(void)pthread_cond_wait(&changed, &mu);
	(void)pthread_mutex_unlock(&mu);
}

/* ---- Handlers ---- */

static inline void on_gone(struct http_req *rq)
{
	note("gone");
	http_release(rq);
	parked = NULL;
}

static inline void sent_then_end(struct http_req *rq, int r)
{
	if (r == 0) {
		http_end(rq);
		return;
	}
	note(r == -EPIPE ? "EPIPE" : r == -EIO ? "EIO" : "other");
	if (r != -EPIPE)
		http_abort(rq);
}

static inline void sent_only(struct http_req *rq, int r)
{
	(void)rq;
	note(r == 0 ? "sent" : "unsent");
}

static inline uint64_t number(struct http_req *rq, const char *name,
			      uint64_t def)
{
	const char *s = http_req_query(rq, name);

	return s ? strtoull(s, NULL, 10) : def;
}

/* ?off, ?len of the file, ?n promised, ?chunked */
static inline void reply_file(struct http_req *rq)
{
	uint64_t off = number(rq, "off", 0);
	uint64_t len = number(rq, "len", FILE_SIZE);
	uint64_t n = number(rq, "n", len);

	http_req_on_gone(rq, on_gone);
	http_begin(rq, 200, http_req_query(rq, "chunked") ? -1 : (int64_t)n);
	http_send_file(rq, file_fd, off, len, sent_then_end);
}

/* The file in writes of 300,000 bytes. */
static inline void next_piece(struct http_req *rq, int r)
{
	size_t at = (size_t)(uintptr_t)http_req_data(rq);
	size_t n = FILE_SIZE - at < 300000 ? FILE_SIZE - at : 300000;

	if (r < 0) {
		note("EPIPE");
		return;
	}
	if (n == 0) {
		http_end(rq);
		return;
	}
	http_req_set_data(rq, (void *)(uintptr_t)(at + n));
	http_write(rq, file_bytes + at, n, next_piece);
}

static inline void reply_pieces(struct http_req *rq)
{
	http_req_on_gone(rq, on_gone);
	http_begin(rq, 200,
		   http_req_query(rq, "chunked") ? -1 : (int64_t)FILE_SIZE);
	next_piece(rq, 0);
}

static inline void unwanted(struct http_req *rq, int r)
{
	(void)rq;
	(void)r;
	note("unwanted");
}

static inline void write_all(struct http_req *rq)
{
	parked = rq;
	http_req_on_gone(rq, on_gone);
	http_begin(rq, 200, (int64_t)FILE_SIZE);
	http_write(rq, file_bytes, FILE_SIZE, unwanted);
	note("parked");
}

static inline void reply_echo(struct http_req *rq)
{
	const char *h = http_req_header(rq, "x-many");
	const char *q = http_req_query(rq, "a b");
	size_t len = 0;
	const void *body = http_req_body(rq, &len);

	http_header_add(rq, "X-Method", "%s", http_req_method(rq));
	http_header_add(rq, "X-Target", "%s", http_req_target(rq));
	http_header_add(rq, "X-Path", "%s", http_req_path(rq));
	http_header_add(rq, "X-Query", "%s", q ? q : "(none)");
	http_header_add(rq, "X-Many", "%s", h ? h : "(none)");
	http_header_add(rq, "X-Client", "%.10s", http_req_client(rq));
	http_reply(rq, 200, "text/plain", body, len);
}

static inline void handler(void *arg, struct http_req *rq)
{
	const char *path = http_req_path(rq);

	EQ(*(int *)arg, 42);
	if (strcmp(path, "/echo") == 0) {
		reply_echo(rq);
	} else if (strcmp(path, "/file") == 0) {
		reply_file(rq);
	} else if (strcmp(path, "/pieces") == 0) {
		reply_pieces(rq);
	} else if (strcmp(path, "/park") == 0) {
		parked = rq;
		http_req_on_gone(rq, on_gone);
		note("parked");
	} else if (strcmp(path, "/begin") == 0) {
		parked = rq;
		http_req_on_gone(rq, on_gone);
		http_begin(rq, 200, 5);
		note("parked");
	} else if (strcmp(path, "/begin-open") == 0) {
		parked = rq;
		http_req_on_gone(rq, on_gone);
		http_begin(rq, 200, -1);
		note("parked");
	} else if (strcmp(path, "/all") == 0) {
		write_all(rq);
	} else if (strcmp(path, "/abort") == 0) {
		http_abort(rq);
	} else if (strcmp(path, "/short") == 0) {
		http_begin(rq, 200, 10);
		http_write(rq, "abc", 3, sent_then_end);
	} else if (strcmp(path, "/empty") == 0) {
		http_reply(rq, 304, NULL, NULL, 0);
	} else {
		http_reply_error(rq, 404, "NAME_UNKNOWN", "no \"%s\"", path);
	}
}

static inline void park_reply(void)
{
	http_reply(parked, 200, NULL, "late", 4);
	parked = NULL;
}

static inline void park_write(void)
{
	http_write(parked, "hello", 5, sent_then_end);
	parked = NULL;
}

static inline void take_back(void)
{
	size_t left = http_take_back(parked);

	OK(left > 0 && left < FILE_SIZE);
	EQ(http_take_back(parked), 0);
	http_send_file(parked, file_fd, FILE_SIZE - left, left, sent_then_end);
	parked = NULL;
}

static inline void park_abort(void)
{
	http_abort(parked);
	parked = NULL;
}

/* ---- The server's life ---- */

static inline void on_stopped(void *arg)
{
	(void)arg;
	http_server_free(&server);
	loop_stop(loop);
}

static inline void stop_now(void)
{
	http_server_stop(server, 0, on_stopped, NULL);
}

static inline void stop_slowly(void)
{
	http_server_stop(server, 600000, on_stopped, NULL);
}

static inline void stop_soon(void)
{
	http_server_stop(server, 50, on_stopped, NULL);
}

static inline void *run_loop(void *arg)
{
	loop_run(arg);
	return NULL;
}

static inline void start_on(const char *addr, struct http_server_config cfg)
{
	static int arg = 42;
	struct error err = {""};

	events[0] = '\0';
	parked = NULL;
	EQ(loop_new(&loop), 0);
	cfg.loop = loop;
	EQ(http_server_new(&cfg, &server), 0);
	if (http_listen(server, addr, NULL, handler, &arg, &port, &err) < 0)
		BAIL(err.text);
	if (pthread_create(&thread, NULL, run_loop, loop) != 0)
		BAIL("pthread_create");
}

static inline void start(struct http_server_config cfg)
{
	start_on("127.0.0.1:0", cfg);
	OK(port != 0);
}

static inline void join(void)
{
	(void)pthread_join(thread, NULL);
	OK(server == NULL);
	loop_free(&loop);
}

static inline void stop(void)
{
	on_loop(stop_now);
	join();
}

/* ---- Clients ---- */

static inline int client_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), small = 64 << 10;

	if (fd < 0)
		BAIL("socket");
	/* No SO_RCVTIMEO: with one, the end of an io_uring, which libuv 1.45
	 * and later have in each loop, interrupts a recv() in the thread that
	 * made the loop. contain ends what hangs. */
	/* A small receive buffer: a client that does not read soon stalls the
	 * server. */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	return fd;
}

static inline void dial_with(int fd)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons(port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		BAIL("connect");
}

static inline int dial(void)
{
	int fd = client_socket();

	dial_with(fd);
	return fd;
}

static inline void put(int fd, const char *s)
{
	EQ(send(fd, s, strlen(s), MSG_NOSIGNAL), strlen(s));
}

static struct answer {
	char head[8192];
	char *body;
	size_t len;
	int status;
} answer;

static inline size_t take(int fd, char *out, size_t len)
{
	size_t at = 0;
	ssize_t n;

	while (at < len && (n = recv(fd, out + at, len - at, 0)) > 0)
		at += (size_t)n;
	return at;
}

static inline size_t take_line(int fd, char *out)
{
	size_t n = 0;

	while (n < 1000 && take(fd, out + n, 1) == 1 && out[n++] != '\n')
		;
	out[n] = '\0';
	return n;
}

static inline void take_chunks(int fd)
{
	char line[1024];
	size_t n;

	answer.body = malloc(FILE_SIZE + 16);
	do {
		(void)take_line(fd, line);
		n = strtoull(line, NULL, 16);
		if (!answer.body || n > FILE_SIZE - answer.len)
			BAIL("chunk too large");
		EQ(take(fd, answer.body + answer.len, n), n);
		answer.len += n;
		EQ(take_line(fd, line), 2);
	} while (n > 0);
}

/* Reads one answer. Returns its status, or 0 if the connection ended before. */
static inline int get_answer(int fd, bool is_head)
{
	const char *cl;
	size_t n = 0, got;

	free(answer.body);
	memset(&answer, 0, sizeof(answer));
	while (n < sizeof(answer.head) - 1 &&
	       take(fd, answer.head + n, 1) == 1) {
		n++;
		if (strstr(answer.head, "\r\n\r\n"))
			break;
	}
	if (!strstr(answer.head, "\r\n\r\n"))
		return 0;
	answer.status = (int)strtol(answer.head + 9, NULL, 10);
	cl = strstr(answer.head, "Content-Length: ");
	if (cl && !is_head) {
		answer.len = strtoull(cl + 16, NULL, 10);
		answer.body = calloc(1, answer.len + 1);
		got = answer.body ? take(fd, answer.body, answer.len) : 0;
		EQ(got, answer.len);
	} else if (strstr(answer.head, "chunked") && !is_head) {
		take_chunks(fd);
	}
	return answer.status;
}

static inline int ask(int fd, const char *request)
{
	put(fd, request);
	return get_answer(fd, strncmp(request, "HEAD", 4) == 0);
}

static inline bool has(const char *header)
{
	return strstr(answer.head, header) != NULL;
}

/* Waits for the end of the connection. 0: closed; ECONNRESET. */
static inline int ending(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, 0);

	return n == 0 ? 0 : n < 0 ? errno : -1;
}

/* The same after all that the server has sent. */
static inline int ending_after(int fd)
{
	char sink[65536];
	ssize_t n;

	do {
		n = recv(fd, sink, sizeof(sink), 0);
	} while (n > 0);
	return n == 0 ? 0 : errno;
}

#define GET(target) "GET " target " HTTP/1.1\r\nHost: x\r\n\r\n"

static inline bool is_file(size_t off, size_t len)
{
	return answer.len == len &&
	       memcmp(answer.body, file_bytes + off, len) == 0;
}

static inline void make_files(void)
{
	char path[96];

	(void)snprintf(dir, sizeof(dir), "%s/peerd-http-XXXXXX",
		       getenv("TMPDIR") && strlen(getenv("TMPDIR")) < 32
			       ? getenv("TMPDIR")
			       : "/tmp");
	file_bytes = malloc(FILE_SIZE);
	if (!file_bytes || !mkdtemp(dir))
		BAIL("mkdtemp");
	for (size_t i = 0; i < FILE_SIZE; i++)
		file_bytes[i] = (char)(i * 31 + (i >> 8) * 7 + (i >> 16));
	(void)snprintf(path, sizeof(path), "%s/bytes", dir);
	file_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file_fd < 0 || write(file_fd, file_bytes, FILE_SIZE) != FILE_SIZE)
		BAIL("file");
	(void)unlink(path);
}

static inline void remove_files(void)
{
	(void)rmdir(dir);
	(void)close(file_fd);
	free(file_bytes);
	free(answer.body);
}

#endif
