#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/text.h"
#include "tests/unit/tap.h"

#define MAX 65536

static int parse(const char *s, json_t **ret)
{
	struct error err = {{0}};
	int r = json_parse(s, strlen(s), MAX, ret, &err);

	OK((r == 0) == (err.text[0] == '\0'));
	return r;
}

static void accepts(const char *s)
{
	CLEANUP(json_decrefp) json_t *v = NULL;
	int r = parse(s, &v);

	if (r != 0)
		printf("# refused: %s\n", s);
	EQ(r, 0);
	OK(v != NULL);
}

static void refuses(const char *s)
{
	json_t *v = NULL;
	int r = parse(s, &v);

	if (r != -EINVAL)
		printf("# result %d: %.100s\n", r, s);
	EQ(r, -EINVAL);
	OK(v == NULL);
}

static void test_any_single_value(void)
{
	accepts("{}");
	accepts(" [1, 2.5, \"x\", null, true] \n");
	accepts("\"\\u00e9\"");
	accepts("-1");
	accepts("null");
}

static void test_malformed(void)
{
	refuses("");
	refuses(" ");
	refuses("{");
	refuses("[1,]");
	refuses("{\"a\":1,}");
	refuses("{'a':1}");
	refuses("{a:1}");
	refuses("[1] [2]");
	refuses("{} x");
	refuses("// c\n{}");
	refuses("NaN");
	refuses("01");
	refuses("\"\x01\"");
	refuses("\"\xff\"");
	refuses("\"\xed\xa0\x80\"");
	refuses("\"\\ud800\"");
	refuses("]");
	refuses("\"\\");
	refuses("99999999999999999999");
	refuses("1e999");
}

static void test_duplicate_key(void)
{
	refuses("{\"a\":1,\"a\":2}");
	refuses("{\"a\":1,\"\\u0061\":2}");
	refuses("[{\"x\":{\"b\":1,\"b\":1}}]");
	accepts("[{\"a\":1},{\"a\":1}]");
}

static void test_nul(void)
{
	json_t *v = NULL;

	refuses("\"a\\u0000b\"");
	refuses("{\"a\\u0000b\":1}");
	EQ(json_parse("{}\0", 3, MAX, &v, NULL), -EINVAL);
	EQ(json_parse("\"a\0b\"", 5, MAX, &v, NULL), -EINVAL);
	EQ(json_parse(NULL, 0, MAX, &v, NULL), -EINVAL);
	OK(v == NULL);
}

static void nest(char *out, size_t depth, char open, char close)
{
	memset(out, open, depth);
	memset(out + depth, close, depth);
	out[2 * depth] = '\0';
}

static void test_depth(void)
{
	enum { DEEP = 30000 };
	CLEANUP(freep) char *s = malloc(2 * DEEP + 1);

	if (!s)
		BAIL("malloc");
	nest(s, JSON_MAX_DEPTH, '[', ']');
	accepts(s);
	nest(s, JSON_MAX_DEPTH + 1, '[', ']');
	refuses(s);
	nest(s, DEEP, '[', ']');
	refuses(s);
	nest(s, DEEP, '{', '}');
	refuses(s);
	/* No depth: brackets in strings, siblings. */
	accepts("\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"");
	accepts("[\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"]");
	accepts("[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],"
		"[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[]]");
}

static void test_size(void)
{
	struct error err;
	json_t *v = NULL;

	EQ(json_parse("[1]", 3, 2, &v, &err), -EMSGSIZE);
	OK(v == NULL);
	EQ(json_parse("[1]", 3, 3, &v, &err), 0);
	json_decref(v);
}

/* The message has the position and quotes nothing: the file may hold passwords.
 */
static void test_error_is_discreet(void)
{
	static const char *const texts[] = {
		"{\n\"auth\": hunter2 }",
		"{\n\"hunter2\":1,\"hunter2\":2}",
		"{\n\"auth\": \"hunter2\" hunter2}",
		"{\n\"auth\": \"hunter2",
		"{\n\"auth\": \"hunter2\\x\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct error err = {{0}};
		json_t *v = NULL;

		EQ(json_parse(texts[i], strlen(texts[i]), MAX, &v, &err),
		   -EINVAL);
		OK(strstr(err.text, "hunter2") == NULL);
		OK(strstr(err.text, "line 2") != NULL);
	}
}

static void test_getters(void)
{
	CLEANUP(json_decrefp) json_t *o = NULL;
	uint64_t u = 77;

	EQ(parse("{\"s\":\"x\",\"o\":{},\"a\":[],\"n\":5,\"neg\":-1,"
		 "\"real\":1.0,\"null\":null,\"big\":9223372036854775807}",
		 &o),
	   0);
	STREQ(json_get_str(o, "s"), "x");
	OK(json_get_str(o, "n") == NULL);
	OK(json_get_str(o, "none") == NULL);
	OK(json_get_str(NULL, "s") == NULL);
	OK(json_get_str(json_get_arr(o, "a"), "s") == NULL);
	OK(json_get_obj(o, "o") != NULL);
	OK(json_get_obj(o, "a") == NULL);
	OK(json_get_arr(o, "a") != NULL);
	OK(json_get_arr(o, "o") == NULL);
	EQ(json_get_u64(o, "none", &u), -ENOENT);
	EQ(json_get_u64(NULL, "n", &u), -ENOENT);
	EQ(json_get_u64(o, "neg", &u), -ERANGE);
	EQ(json_get_u64(o, "real", &u), -ERANGE);
	EQ(json_get_u64(o, "s", &u), -ERANGE);
	EQ(json_get_u64(o, "null", &u), -ERANGE);
	EQ(u, 77);
	EQ(json_get_u64(o, "n", &u), 0);
	EQ(u, 5);
	EQ(json_get_u64(o, "big", &u), 0);
	EQ(u, INT64_MAX);
}

static char path[PATH_MAX];

static void write_file(const char *data, size_t len)
{
	const char *dir = getenv("TMPDIR");
	int fd;

	(void)snprintf(path, sizeof(path), "%s/test_json.XXXXXX",
		       dir ? dir : "/tmp");
	fd = mkstemp(path);
	if (fd == -1 || write(fd, data, len) != (ssize_t)len)
		BAIL("cannot write a file");
	(void)close(fd);
}

static void test_file(void)
{
	static const char text[] = "{\"a\": [1, 2]}";
	CLEANUP(freep) char *big = malloc(20001);
	json_t *v = NULL;
	struct error err;

	write_file(text, strlen(text));
	EQ(json_parse_file(path, strlen(text), &v, &err), 0);
	OK(json_get_arr(v, "a") != NULL);
	json_decref(v);
	EQ(json_parse_file(path, strlen(text) - 1, &v, &err), -EMSGSIZE);
	OK(strstr(err.text, path) != NULL);
	(void)unlink(path);
	EQ(json_parse_file(path, 100, &v, &err), -ENOENT);
	OK(strstr(err.text, path) != NULL);
	EQ(json_parse_file("/", 100, &v, &err), -EISDIR);

	write_file("", 0);
	EQ(json_parse_file(path, 100, &v, &err), -EINVAL);
	(void)unlink(path);

	/* Longer than one read. */
	if (!big)
		BAIL("malloc");
	memset(big, ' ', 20000);
	memcpy(big + 19998, "[]", 3);
	write_file(big, 20000);
	EQ(json_parse_file(path, 20000, &v, &err), 0);
	json_decref(v);
	(void)unlink(path);
}

static void test_dump(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(30);
	CLEANUP(json_decrefp) json_t *v = NULL;

	EQ(parse("{ \"a\" : [ 1, \"x\\n\" ] }", &v), 0);
	EQ(buf_str(&b, "v="), 0);
	EQ(json_dump(v, &b), 0);
	STREQ(b.data, "v={\"a\":[1,\"x\\n\"]}");
	/* The second does not fit, and no part of it stays. */
	EQ(json_dump(v, &b), -EMSGSIZE);
	STREQ(b.data, "v={\"a\":[1,\"x\\n\"]}");
	buf_reset(&b);
	EQ(json_dump(json_get_arr(v, "a"), &b), 0);
	STREQ(b.data, "[1,\"x\\n\"]");
}

static void quoted(const char *in, const char *want)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(200);

	EQ(json_quote(&b, in), 0);
	STREQ(b.data, want);
}

static void test_quote(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(5);

	quoted("", "\"\"");
	quoted("abc", "\"abc\"");
	quoted("a\"b\\c/", "\"a\\\"b\\\\c/\"");
	quoted("\n\r\t\b\f\x01\x1f\x7f", "\"\\n\\r\\t\\b\\f\\u0001\\u001f"
					 "\\u007f\"");
	quoted("é€😀", "\"é€😀\"");
	quoted("\xc2\x9b", "\"\\u009b\""); /* CSI in one character */
	quoted("a\xff"
	       "b",
	       "\"a\xef\xbf\xbd"
	       "b\"");
	quoted("\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\"");
	quoted("\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\"");
	quoted("\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");

	EQ(json_quote(&b, "abcd"), -EMSGSIZE);
	EQ(b.len, 0);
	EQ(json_quote(&b, "abc"), 0);
	STREQ(b.data, "\"abc\"");
}

/* The output of json_quote() reads back the same, for every byte and pair of
 * bytes. */
static void test_quote_reads_back(void)
{
	int wrong = 0;

	for (int a = 1; a < 256; a++)
		for (int c = 0; c < 256; c++) {
			CLEANUP(buf_release) struct buf b = BUF_INIT(200);
			CLEANUP(json_decrefp) json_t *v = NULL;
			char s[3] = {(char)a, (char)c, '\0'};
			const char *back;

			if (json_quote(&b, s) != 0)
				BAIL("json_quote");
			wrong += json_parse(b.data, b.len, MAX, &v, NULL) != 0;
			back = json_string_value(v);
			if (!back)
				continue;
			if (a < 128 && c < 128)
				wrong += strcmp(back, s) != 0;
			wrong += utf8_len(back, strlen(back)) == 0;
		}
	EQ(wrong, 0);
}

int main(void)
{
	RUN(test_any_single_value);
	RUN(test_malformed);
	RUN(test_duplicate_key);
	RUN(test_nul);
	RUN(test_depth);
	RUN(test_size);
	RUN(test_error_is_discreet);
	RUN(test_getters);
	RUN(test_file);
	RUN(test_dump);
	RUN(test_quote);
	RUN(test_quote_reads_back);
	return tap_done();
}
