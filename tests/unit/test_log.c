#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/util.h"
#include "tests/unit/tap.h"

#define MANY 200

/* Lines go into an unnamed file, which read_log() empties. */
static int log_fd = -1;
static char output[1 << 20];

static void open_log(void)
{
	FILE *f = tmpfile();

	if (!f)
		BAIL("tmpfile");
	log_fd = fcntl(fileno(f), F_DUPFD_CLOEXEC, 0);
	(void)fclose(f);
	if (log_fd == -1 || fcntl(log_fd, F_SETFL, O_APPEND) == -1)
		BAIL("fcntl");
	log_set_fd(log_fd);
}

static const char *read_log(void)
{
	ssize_t n = pread(log_fd, output, sizeof(output) - 1, 0);

	if (n == -1 || ftruncate(log_fd, 0) == -1)
		BAIL("cannot read the log");
	output[n] = '\0';
	return output;
}

/* The log's only line as JSON; the caller owns it. */
static json_t *read_json(void)
{
	const char *s = read_log();
	size_t len = strlen(s);
	struct error err = {{0}};
	json_t *v = NULL;

	OK(len > 0 && strchr(s, '\n') == s + len - 1);
	if (json_parse(s, len, sizeof(output), &v, &err) != 0)
		printf("# %s in: %s\n", err.text, s);
	OK(json_is_object(v));
	return v;
}

/* The value of a string field after logging, in JSON. */
static void field_is(const char *value, const char *want)
{
	CLEANUP(json_decrefp) json_t *v = NULL;

	log_info("test", LS("k", value));
	v = read_json();
	STREQ(json_get_str(v, "k"), want);
}

/* Checks that the log line does not contain `what`. */
static void hides(const char *value, const char *what)
{
	const char *s;

	log_info("test", LS("k", value));
	s = read_log();
	if (strstr(s, what))
		printf("# %s", s);
	OK(strstr(s, what) == NULL);
}

static void test_json_line(void)
{
	static const char head[] = "{\"level\":\"warn\",\"node\":\"node-1\","
				   "\"version\":\"1.2\",\"time\":\"2";
	CLEANUP(json_decrefp) json_t *v = NULL;
	const char *s;

	log_init(LOG_INFO, LOG_FORMAT_JSON, "node-1", "1.2");
	log_warn("blob verified", LS("digest", "sha256:00"), LU("ms", 12),
		 LI("delta", -3), LD("rate", 0.5), LB("warm", true),
		 LB("cold", false), LE(-ENOENT), LS("none", NULL));
	s = read_log();
	EQ(strncmp(s, head, strlen(head)), 0);
	STREQ(strstr(s, "\"message\""),
	      "\"message\":\"blob verified\",\"digest\":\"sha256:00\","
	      "\"ms\":12,\"delta\":-3,\"rate\":0.5,\"warm\":true,"
	      "\"cold\":false,\"error\":\"No such file or directory\","
	      "\"none\":\"\"}\n");
	EQ(json_parse(s, strlen(s), sizeof(output), &v, NULL), 0);
}

static void test_time(void)
{
	static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";
	CLEANUP(json_decrefp) json_t *v = NULL;
	const char *t;
	struct tm tm = {0};

	log_info("now");
	v = read_json();
	t = json_get_str(v, "time");
	EQ(strlen(t), strlen(form));
	for (size_t i = 0; i < strlen(form) && i < strlen(t); i++)
		OK(form[i] == 'd' ? t[i] >= '0' && t[i] <= '9'
				  : t[i] == form[i]);
	OK(strptime(t, "%Y-%m-%dT%H:%M:%S", &tm) != NULL);
	/* Within a day: zone and year are right. The clock may change
	 * meanwhile. */
	OK(llabs((long long)timegm(&tm) - (long long)now_unix_s()) < 86400);
}

static void test_numbers(void)
{
	log_info("n", LU("max", UINT64_MAX), LI("min", INT64_MIN),
		 LD("nan", NAN), LD("inf", INFINITY), LD("int", 3.0),
		 LE(ENOENT), LE(-99999));
	OK(strstr(read_log(),
		  "\"max\":18446744073709551615,\"min\":-9223372036854775808,"
		  "\"nan\":null,\"inf\":null,\"int\":3,") != NULL);
}

static int evaluated;

static const char *evaluate(void)
{
	evaluated++;
	return "x";
}

static void test_levels(void)
{
	enum log_level l = LOG_ERROR;

	log_init(LOG_WARN, LOG_FORMAT_JSON, "n", "v");
	log_info("hidden", LS("k", evaluate()));
	log_debug("hidden");
	STREQ(read_log(), "");
	EQ(evaluated, 0);
	log_warn("shown", LS("k", evaluate()));
	log_error("shown");
	OK(strstr(read_log(), "\"level\":\"error\"") != NULL);
	EQ(evaluated, 1);
	OK(log_on(LOG_WARN));
	OK(!log_on(LOG_INFO));
	log_init(LOG_DEBUG, LOG_FORMAT_JSON, "n", "v");
	log_debug("shown");
	OK(strstr(read_log(), "\"level\":\"debug\"") != NULL);

	EQ(log_level_parse("debug", &l), 0);
	EQ(l, LOG_DEBUG);
	EQ(log_level_parse("warning", &l), 0);
	EQ(l, LOG_WARN);
	EQ(log_level_parse("error", &l), 0);
	EQ(l, LOG_ERROR);
	EQ(log_level_parse("", &l), -EINVAL);
	EQ(log_level_parse("INFO", &l), -EINVAL);
	EQ(log_level_parse("infos", &l), -EINVAL);
	EQ(l, LOG_ERROR);
}

static void test_escaping(void)
{
	field_is("a\"b\\c\n\r\t\x01\x1b[31m\x7f",
		 "a\"b\\c\n\r\t\x01\x1b[31m\x7f");
	log_info("test", LS("k", "a\x1b[31m\nb\xc2\x9b"));
	OK(strstr(read_log(), "\"a\\u001b[31m\\nb\\u009b\"") != NULL);
	field_is("ok é€😀", "ok é€😀");
	field_is("a\xff"
		 "b\xc0\xaf\xe2\x82",
		 "a\xef\xbf\xbd"
		 "b\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
	log_init(LOG_INFO, LOG_FORMAT_JSON, "no\"de\n", "\xff");
	log_info("test");
	OK(strstr(read_log(),
		  "\"node\":\"no\\\"de\\n\",\"version\":\"\xef\xbf\xbd\"") !=
	   NULL);
}

static void test_long_strings_are_cut(void)
{
	CLEANUP(json_decrefp) json_t *v = NULL;
	char s[5000];
	const char *k;

	memset(s, 'x', sizeof(s));
	s[1024] = '\0';
	field_is(s, s);
	memcpy(s + 1023, "€yyy", sizeof("€yyy"));
	log_info("test", LS("k", s));
	v = read_json();
	k = json_get_str(v, "k");
	EQ(strspn(k, "x"), 1023);
	STREQ(k + 1023, "…"); /* the cut does not split a character */
}

/* The line stays one JSON object, however long the fields. */
static void test_long_lines(void)
{
	CLEANUP(json_decrefp) json_t *v = NULL;
	struct log_field fields[MANY + 1] = {{0}};
	char s[1025];

	memset(s, 1, sizeof(s)); /* grows sixfold */
	s[1024] = '\0';
	for (size_t i = 0; i < MANY; i++)
		fields[i] = LS("k", s);
	log_write(LOG_INFO, s, fields);
	v = json_loads(read_log(), 0, NULL);
	OK(json_is_object(v));
	OK(json_is_true(json_object_get(v, "truncated")));
	STREQ(json_get_str(v, "message"), s);
	STREQ(json_get_str(v, "k"), s);
}

static void test_urls(void)
{
	field_is("https://h.example/p/q?sig=abc", "https://h.example/p/q");
	field_is("https://h/p#frag", "https://h/p");
	field_is("https://h?sig=abc", "https://h");
	field_is("https://user:pw@h:5000/p", "https://h:5000/p");
	field_is("https://user@h", "https://h");
	field_is("https://u:p@w@h/p@q", "https://h/p@q");
	field_is("http://[::1]:5000/x?y", "http://[::1]:5000/x");
	field_is("docker://h/name@sha256:00", "docker://h/name@sha256:00");
	field_is("get https://h/a?x=1 failed", "get https://h/a failed");
	field_is("https://a/b?c https://d:e@f/g?h i",
		 "https://a/b https://f/g i");
	field_is("http://a:1/x,http://u:p@b:2/y?q",
		 "http://a:1/x,http://b:2/y");
	field_is("connect to http://h:5000: refused?",
		 "connect to http://h:5000: refused?");
	field_is("what? no URL #1 here: a@b", "what? no URL #1 here: a@b");
	field_is("://", "://");
	field_is("https://", "https://");
	field_is("a://b://c", "a://b://c");
}

static void test_secrets_stay_out(void)
{
	static const char *const urls[] = {
		"https://h/p?SECRET",
		"https://h/p?a=b?SECRET",
		"https://h/p?a=b#SECRET",
		"https://h/p?x=https://y/SECRET",
		"https://h/p?x=\"SECRET",
		"https://h/p?x='SECRET'",
		"https://h/p?x=a,b;SECRET",
		"https://h/p?x=<SECRET>",
		"https://h/p?x=\xc2\xa0SECRET",
		"https://h/p?x=\xffSECRET",
		"https://SECRET@h/p",
		"https://u:SECRET@h/p",
		"https://u:pw/SECRET@h/p",
		"https://u:pw?SECRET@h/p",
		"https://u:pw#SECRET@h/p",
		"https://SECRET:x@[::1]:1/p",
		"http://proxy/blobs/https://u:SECRET@h/p",
		"http://proxy/blobs/https://h/p?SECRET",
		"{\"location\":\"https://h/p?sig=SECRET\"}",
		"a://b?c d://e@f?SECRET",
		"a://b/c d://SECRET@f?g",
	};

	for (size_t i = 0; i < ARRAY_SIZE(urls); i++)
		hides(urls[i], "SECRET");
	log_info("see https://u:SECRET@h/p?SECRET");
	OK(strstr(read_log(), "SECRET") == NULL);
}

/* A cut in a URL does not let its query through. */
static void test_long_urls(void)
{
	char s[3000];

	for (size_t pad = 1000; pad < 1040; pad++) {
		memset(s, 'x', pad);
		(void)snprintf(s + pad, sizeof(s) - pad,
			       " https://u:SECRET@h/p?SECRET");
		hides(s, "SECRET");
	}
}

static void redacts(const char *url, const char *want)
{
	char out[64];

	OK(log_redact_url(url, out, sizeof(out)) == out);
	STREQ(out, want);
}

static void test_redact_url(void)
{
	char out[8] = "unhurt";

	redacts("https://u:p@h:1/p?q#f", "https://h:1/p");
	redacts("/v2/x/blobs/y?sig=1", "/v2/x/blobs/y");
	redacts("//u:p@h/x?y", "//h/x");
	redacts("u:p@h/x", "h/x");
	redacts("h:5000/x?y", "h:5000/x");
	redacts("https://h/p?a b c", "https://h/p");
	redacts("https://us er:p@h/x", "https://h/x");
	redacts("/p?x=https://h/q", "/p");
	redacts("", "");
	redacts(NULL, "");
	STREQ(log_redact_url("https://h/p", out, 0), "unhurt");
	STREQ(log_redact_url("https://h/p", out, 1), "");
	STREQ(log_redact_url("https://h/p", out, 8), "https:/");
	STREQ(log_redact_url("abcdef€", out, 8), "abcdef");
}

static void test_text_format(void)
{
	const char *s;

	log_init(LOG_INFO, LOG_FORMAT_TEXT, "n", "v");
	log_info("message", LS("key", "value"), LU("n", 5));
	s = read_log();
	EQ(strcspn(s, ":"), 2);
	EQ(s[5], ':');
	EQ(s[8], '.');
	STREQ(s + 12, " info  message key=value n=5\n");
	log_error("It's \"so\"", LS("a", "b c"), LS("empty", ""),
		  LS("q", "x\"y"), LS("e", "x=y"), LS("p", "/a/b:c"),
		  LS("esc", "\x1b[2J"), LE(-EIO));
	s = read_log();
	STREQ(s + 12, " error It's \"so\" a=\"b c\" empty=\"\" q=\"x\\\"y\" "
		      "e=\"x=y\" p=/a/b:c esc=\"\\u001b[2J\" "
		      "error=\"Input/output error\"\n");
	log_warn("a\nb \x1b[2J");
	STREQ(read_log() + 12, " warn  a\\nb \\u001b[2J\n");
}

static void test_auto_format(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave;
	char s[256];
	ssize_t n;

	log_init(LOG_INFO, LOG_FORMAT_AUTO, "n", "v");
	log_info("file");
	EQ(read_log()[0], '{');
	if (master == -1 || grantpt(master) == -1 || unlockpt(master) == -1)
		SKIP("no pseudo terminals");
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave == -1) {
		(void)close(master);
		SKIP("no pseudo terminals");
	}
	log_set_fd(slave);
	log_info("terminal");
	n = read(master, s, sizeof(s) - 1);
	s[n > 0 ? n : 0] = '\0';
	OK(strstr(s, " info  terminal") != NULL);
	log_set_fd(log_fd);
	(void)close(slave);
	(void)close(master);
}

static void test_errno_is_kept(void)
{
	log_init(LOG_INFO, LOG_FORMAT_JSON, "n", "v");
	log_set_fd(1 << 20); /* no such descriptor */
	errno = EAGAIN;
	log_info("lost");
	EQ(errno, EAGAIN);
	log_set_fd(log_fd);
	errno = EAGAIN;
	log_info("kept");
	EQ(errno, EAGAIN);
	(void)read_log();
}

static void test_limit(void)
{
	struct log_limit l = {0}, none = {0}, brief = {0};
	int passed = 0;
	uint64_t start;

	for (int i = 0; i < 100; i++)
		passed += log_limit_ok(&l, 5, 3600000);
	EQ(passed, 5);
	OK(!log_limit_ok(&none, 0, 1000));
	/* The limit opens again: waits for the clock, however slow it is. */
	OK(log_limit_ok(&brief, 1, 1));
	start = now_ms();
	while (now_ms() < start + 2)
		;
	OK(log_limit_ok(&brief, 1, 1));
}

static struct log_limit shared_limit;

static void *write_lines(void *arg)
{
	long passed = 0;

	for (int i = 0; i < MANY; i++) {
		log_info("line", LS("who", arg), LU("i", i));
		passed += log_limit_ok(&shared_limit, 50, 3600000);
	}
	return (void *)passed;
}

/* No line is torn or lost, and the limit holds over all threads. */
static void test_threads(void)
{
	static char names[4][2] = {"a", "b", "c", "d"};
	pthread_t t[4];
	long passed = 0;
	int lines = 0, bad = 0;
	char *save = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		if (pthread_create(&t[i], NULL, write_lines, names[i]) != 0)
			BAIL("pthread_create");
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		void *r;

		(void)pthread_join(t[i], &r);
		passed += (long)r;
	}
	EQ(passed, 50);
	(void)read_log();
	for (char *s = strtok_r(output, "\n", &save); s;
	     s = strtok_r(NULL, "\n", &save)) {
		json_t *v = json_loads(s, 0, NULL);

		lines++;
		bad += !json_get_str(v, "who");
		json_decref(v);
	}
	EQ(lines, 4 * MANY);
	EQ(bad, 0);
}

int main(void)
{
	open_log();
	RUN(test_json_line);
	RUN(test_time);
	RUN(test_numbers);
	RUN(test_levels);
	RUN(test_escaping);
	RUN(test_long_strings_are_cut);
	RUN(test_long_lines);
	RUN(test_urls);
	RUN(test_secrets_stay_out);
	RUN(test_long_urls);
	RUN(test_redact_url);
	RUN(test_text_format);
	RUN(test_auto_format);
	RUN(test_errno_is_kept);
	RUN(test_limit);
	RUN(test_threads);
	log_set_fd(-1);
	(void)close(log_fd);
	return tap_done();
}
