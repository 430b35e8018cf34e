#include "http/head.h"

#include <errno.h>

#include "base/cleanup.h"
#include "tests/unit/tap.h"

/* Adds the lines of a text. Returns the first result that is not 0, else 0. */
static int add(struct head *h, const char *text)
{
	while (*text) {
		size_t n = strcspn(text, "\n") + 1;
		int r = head_add(h, text, n);

		if (r != 0)
			return r;
		text += n;
	}
	return 0;
}

static int whole(const char *text)
{
	CLEANUP(head_release) struct head h;

	head_init(&h);
	return add(&h, text);
}

static void test_fields(void)
{
	CLEANUP(head_release) struct head h;

	head_init(&h);
	EQ(h.content_length, -1);
	EQ(add(&h, "HTTP/1.1 206 Partial Content\r\n"
		   "ETag:\"x\"\r\n"
		   "A:  1 \t\r\n"
		   "a: 2\n"
		   "Content-Length: 0012\r\n"
		   "\r\n"),
	   1);
	OK(h.complete);
	EQ(h.status, 206);
	EQ(h.content_length, 12);
	STREQ(head_get(&h, "etag", 0), "\"x\"");
	STREQ(head_get(&h, "A", 0), "1");
	STREQ(head_get(&h, "A", 1), "2");
	OK(head_get(&h, "A", 2) == NULL);
	OK(head_get(&h, "B", 0) == NULL);
}

static void test_interim(void)
{
	CLEANUP(head_release) struct head h;

	head_init(&h);
	EQ(add(&h, "HTTP/1.1 103 Early Hints\r\nA: b\r\n"
		   "Content-Length: 3\r\n\r\n"),
	   0);
	OK(!h.complete);
	EQ(add(&h, "HTTP/2 200 \r\nC: d\r\n\r\n"), 1);
	EQ(h.status, 200);
	EQ(h.content_length, -1);
	OK(head_get(&h, "A", 0) == NULL);
	STREQ(head_get(&h, "C", 0), "d");
	EQ(whole("HTTP/1.1 101 Switching Protocols\r\n\r\n"), 1);
}

static void test_content_length(void)
{
	CLEANUP(head_release) struct head h;

	EQ(whole("HTTP/1.1 200\nContent-Length: 9223372036854775807\n\n"), 1);
	EQ(whole("HTTP/1.1 200\nContent-Length: 9223372036854775808\n\n"),
	   -EPROTO);
	EQ(whole("HTTP/1.1 200\nContent-Length: 5\nContent-Length: 5\n\n"), 1);
	EQ(whole("HTTP/1.1 200\nContent-Length: 5\nContent-Length: 6\n\n"),
	   -EPROTO);
	EQ(whole("HTTP/1.1 200\nContent-Length: 5, 5\n\n"), -EPROTO);
	EQ(whole("HTTP/1.1 200\nContent-Length: +5\n\n"), -EPROTO);
	EQ(whole("HTTP/1.1 200\nContent-Length: 0x5\n\n"), -EPROTO);
	EQ(whole("HTTP/1.1 200\nContent-Length:\n\n"), -EPROTO);
	head_init(&h);
	EQ(add(&h, "HTTP/1.1 200 OK\nContent-Length: 5\n"
		   "Transfer-Encoding: chunked\n\n"),
	   1);
	EQ(h.content_length, -1);
}

static void test_malformed(void)
{
	CLEANUP(head_release) struct head h;

	EQ(whole("\r\n"), -EPROTO);
	EQ(whole("A: b\r\n"), -EPROTO);
	EQ(whole("HTTP/1.1\r\n"), -EPROTO);
	EQ(whole("HTTP/1.1 \r\n"), -EPROTO);
	EQ(whole("HTTP/1.1 20\r\n"), -EPROTO);
	EQ(whole("HTTP/1.1 2000 OK\r\n"), -EPROTO);
	EQ(whole("HTTP/1.1 099 OK\r\n"), -EPROTO);
	EQ(whole("HTTP/1.1 -20 OK\r\n"), -EPROTO);
	EQ(whole("HTTP/1.1 200\r\n\r\n"), 1);
	EQ(whole("HTTP/1.1 200 OK\r\nno colon\r\n"), -EPROTO);
	EQ(whole("HTTP/1.1 200 OK\r\n: no name\r\n"), -EPROTO);
	EQ(whole("HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n"), -EPROTO);
	head_init(&h);
	EQ(add(&h, "HTTP/1.1 200 OK\r\n"), 0);
	EQ(head_add(&h, "A: b\0c\r\n", 8), -EPROTO);
}

static void test_limits(void)
{
	CLEANUP(head_release) struct head h, big;
	static char line[HEAD_MAX_BYTES + 16];

	head_init(&h);
	EQ(add(&h, "HTTP/1.1 200 OK\r\n"), 0);
	for (int i = 0; i < HEAD_MAX_FIELDS; i++)
		EQ(add(&h, "A: b\r\n"), 0);
	EQ(add(&h, "A: b\r\n"), -EPROTO);

	/* Name, value and a NUL for each fit exactly; one byte more does not.
	 */
	memset(line, 'x', sizeof(line));
	line[1] = ':';
	head_init(&big);
	EQ(add(&big, "HTTP/1.1 200 OK\r\n"), 0);
	EQ(head_add(&big, line, HEAD_MAX_BYTES - 1), 0);
	EQ(strlen(head_get(&big, "x", 0)), HEAD_MAX_BYTES - 3);
	EQ(add(&big, "HTTP/1.1 200 OK\r\n"), 0);
	EQ(head_add(&big, line, HEAD_MAX_BYTES), -EPROTO);
}

static void test_trailers(void)
{
	static const char nul[] = "a\0: b\r\n";
	CLEANUP(head_release) struct head t;

	head_init(&t);
	EQ(head_add_trailer(&t, "grpc-status: 0\r\n", 16), 0);
	EQ(head_add_trailer(&t, "grpc-message:\r\n", 15), 0);
	EQ(head_add_trailer(&t, "\r\n", 2), 0);
	EQ(head_add_trailer(&t, "A: b", 4), 0);
	EQ(head_add_trailer(&t, "no colon\r\n", 10), -EPROTO);
	EQ(head_add_trailer(&t, nul, sizeof(nul) - 1), -EPROTO);
	STREQ(head_get(&t, "Grpc-Status", 0), "0");
	STREQ(head_get(&t, "grpc-message", 0), "");
	STREQ(head_get(&t, "a", 0), "b");
	OK(!head_get(&t, "a", 1));
}

int main(void)
{
	RUN(test_fields);
	RUN(test_interim);
	RUN(test_content_length);
	RUN(test_malformed);
	RUN(test_limits);
	RUN(test_trailers);
	return tap_done();
}
