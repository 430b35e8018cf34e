#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "tests/unit/tap.h"

static void test_starts_empty(void)
{
	struct buf b = BUF_INIT(10);

	OK(b.data == NULL);
	EQ(b.len, 0);
	EQ(buf_add(&b, NULL, 0), 0);
	EQ(buf_str(&b, ""), 0);
	OK(b.data == NULL);
	buf_reset(&b);
	buf_release(&b);
	buf_release(&b);
}

static void test_adds_and_terminates(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(100);

	EQ(buf_str(&b, "ab"), 0);
	EQ(buf_add(&b, "c\0d", 3), 0);
	EQ(buf_printf(&b, "%d-%s", 42, "x"), 0);
	EQ(b.len, 9);
	EQ(memcmp(b.data, "abc\0d42-x", 10), 0);
}

/* The limit is exact, and a refused addition changes nothing. */
static void test_limit(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(8);

	EQ(buf_str(&b, "12345"), 0);
	EQ(buf_str(&b, "6789"), -EMSGSIZE);
	STREQ(b.data, "12345");
	EQ(buf_printf(&b, "%s", "6789"), -EMSGSIZE);
	STREQ(b.data, "12345");
	EQ(b.len, 5);
	EQ(buf_printf(&b, "%s", "678"), 0);
	STREQ(b.data, "12345678");
	EQ(buf_add(&b, "9", 1), -EMSGSIZE);
	EQ(buf_printf(&b, "9"), -EMSGSIZE);
	EQ(buf_printf(&b, "%s", ""), 0);
	EQ(buf_add(&b, "", SIZE_MAX), -EMSGSIZE);
	EQ(b.len, 8);
	OK(b.cap <= 9);
}

static void test_limit_of_nothing(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(0);

	EQ(buf_str(&b, "x"), -EMSGSIZE);
	EQ(buf_printf(&b, "x"), -EMSGSIZE);
	OK(b.data == NULL);
}

static void test_unlimited(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(SIZE_MAX);

	EQ(buf_str(&b, "x"), 0);
	EQ(buf_add(&b, "", SIZE_MAX - 1), -ENOMEM);
	STREQ(b.data, "x");
}

static void test_grows(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(100000);
	char want[16];

	for (int i = 0; i < 20000; i++)
		if (buf_printf(&b, "%05d", i) != 0)
			BAIL("buf_printf");
	EQ(b.len, 100000);
	for (int i = 0; i < 20000; i++) {
		(void)snprintf(want, sizeof(want), "%05d", i);
		if (memcmp(b.data + 5 * i, want, 5) != 0)
			BAIL("contents");
	}
	EQ(buf_str(&b, "x"), -EMSGSIZE);
}

/* A text longer than the allocated memory is formatted again as a whole. */
static void test_printf_longer_than_room(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(1000);

	EQ(buf_printf(&b, "%0*d|", 63, 7), 0);
	EQ(b.len, 64);
	EQ(buf_printf(&b, "%0*d|", 299, 8), 0);
	EQ(b.len, 364);
	EQ(strlen(b.data), 364);
	EQ(b.data[363], '|');
	EQ(b.data[362], '8');
}

static void test_truncate_and_reset_keep_memory(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(100);
	char *p;

	EQ(buf_str(&b, "abcdef"), 0);
	p = b.data;
	buf_truncate(&b, 10);
	STREQ(b.data, "abcdef");
	buf_truncate(&b, 3);
	STREQ(b.data, "abc");
	buf_reset(&b);
	EQ(b.len, 0);
	STREQ(b.data, "");
	EQ(buf_str(&b, "xy"), 0);
	STREQ(b.data, "xy");
	OK(b.data == p);
}

static void test_steal(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(4);
	CLEANUP(freep) char *empty = buf_steal(&b);
	CLEANUP(freep) char *full = NULL;

	STREQ(empty, "");
	EQ(buf_str(&b, "abcd"), 0);
	full = buf_steal(&b);
	STREQ(full, "abcd");
	OK(b.data == NULL);
	EQ(b.len, 0);
	/* The limit stays. */
	EQ(buf_str(&b, "abcde"), -EMSGSIZE);
	EQ(buf_str(&b, "ab"), 0);
}

int main(void)
{
	RUN(test_starts_empty);
	RUN(test_adds_and_terminates);
	RUN(test_limit);
	RUN(test_limit_of_nothing);
	RUN(test_unlimited);
	RUN(test_grows);
	RUN(test_printf_longer_than_room);
	RUN(test_truncate_and_reset_keep_memory);
	RUN(test_steal);
	return tap_done();
}
