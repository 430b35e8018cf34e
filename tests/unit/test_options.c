#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/options.h"
#include "tests/unit/tap.h"

#define KIB 1024ull
#define GIB (1024ull * 1024 * 1024)

/* A program with one option of each type. */
struct fixture {
	char *config;
	char *name;
	char *dir;
	struct string_list hosts;
	struct string_list peers;
	bool verbose;
	bool safe;
	uint64_t workers;
	uint64_t cache_size;
	uint64_t deadline_ms;
	uint64_t plain;
	char *level;
	bool secret;
};

#define AT(field) .offset = offsetof(struct fixture, field)

static const struct option table[] = {
	{"config", OPT_STRING, AT(config), "FILE", .section = "General",
	 .help = "Read options from a JSON file"},
	{"node-name", OPT_STRING, AT(name), "NAME", .section = "General",
	 .help = "Name of this node"},
	{"dir", OPT_STRING, AT(dir), "DIR", "/var/lib/x", .section = "Cache",
	 .help = "Where blobs are kept"},
	{"hosts", OPT_LIST, AT(hosts), "HOST,...", "a.example,b.example",
	 .section = "General",
	 .help = "Registries that are served, by their names as they stand in "
		 "image references, without a scheme"},
	{"peers", OPT_LIST, AT(peers), "PEER,...", .section = "General",
	 .help = "Other nodes"},
	{"verbose", OPT_BOOL, AT(verbose), .section = "General",
	 .help = "Say more"},
	{"safe", OPT_BOOL, AT(safe), .def = "true", .section = "General",
	 .help = "Check more"},
	{"workers", OPT_UINT, AT(workers), "N", "4", 1, 64,
	 .section = "General", .help = "Threads"},
	{"cache-size", OPT_SIZE, AT(cache_size), "SIZE", "10GiB", 64 * KIB, 0,
	 .section = "Cache", .help = "Bytes on disk"},
	{"deadline", OPT_DURATION, AT(deadline_ms), "TIME", "60s", 100, 3600000,
	 .section = "General", .help = "For one read"},
	{"plain", OPT_UINT, AT(plain), "N", .section = "General",
	 .help = "No default"},
	{"log-level", OPT_ENUM, AT(level), "LEVEL", "info", 0, 0,
	 "error|warn|info|debug", "General", "What is logged"},
	{"secret-knob", OPT_BOOL, AT(secret), .section = "Secret",
	 .help = "Never shown", .hidden = true},
};

#define N	 ARRAY_SIZE(table)
#define MAX_ARGS 16

static struct fixture c;
static struct string_list rest;
static struct error err;
static bool help;

static void done(void)
{
	options_release(table, N, &c);
	string_list_release(&rest);
}

/* Arguments separated by '|', so that blanks may be in them. */
static int parse(const char *args)
{
	CLEANUP(freep) char *copy = strdup(args);
	char *argv[MAX_ARGS + 1] = {(char *)"prog"}, *p = copy;
	int argc = 1, r;

	if (!copy)
		BAIL("strdup");
	while (p && *args && argc < MAX_ARGS)
		argv[argc++] = strsep(&p, "|");
	memset(&c, 0xa5, sizeof(c)); /* need not be clean before */
	memset(&rest, 0xa5, sizeof(rest));
	memset(&err, 0, sizeof(err));
	r = options_parse(table, N, &c, argc, argv, &rest, &help, &err);
	OK((r == 0) == (err.text[0] == '\0'));
	return r;
}

static void fails(const char *args, const char *want)
{
	EQ(parse(args), -EINVAL);
	STREQ(err.text, want);
	done();
}

static char path[PATH_MAX];

static void write_config(const char *text)
{
	const char *dir = getenv("TMPDIR");
	FILE *f;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/test_options.XXXXXX",
		       dir ? dir : "/tmp");
	fd = mkstemp(path);
	f = fd == -1 ? NULL : fdopen(fd, "w");
	if (!f || fputs(text, f) == EOF || fclose(f) == EOF)
		BAIL("cannot write a file");
	(void)setenv("PEERD_CONFIG", path, 1);
}

static void remove_config(void)
{
	(void)unlink(path);
	(void)unsetenv("PEERD_CONFIG");
}

/* The message is "KEY in PATH: " and tail, or "PATH: " and tail. */
static void file_fails(const char *text, const char *key, const char *tail)
{
	char want[PATH_MAX + 512];

	write_config(text);
	(void)snprintf(want, sizeof(want), "%s%s%s: %s", key,
		       *key ? " in " : "", path, tail);
	fails("", want);
	remove_config();
}

static void test_defaults(void)
{
	EQ(parse(""), 0);
	OK(c.config == NULL);
	OK(c.name == NULL);
	STREQ(c.dir, "/var/lib/x");
	EQ(c.hosts.n, 2);
	STREQ(c.hosts.v[0], "a.example");
	STREQ(c.hosts.v[1], "b.example");
	OK(c.hosts.v[2] == NULL);
	EQ(c.peers.n, 0);
	OK(c.peers.v == NULL);
	OK(!c.verbose);
	OK(c.safe);
	EQ(c.workers, 4);
	EQ(c.cache_size, 10 * GIB);
	EQ(c.deadline_ms, 60000);
	EQ(c.plain, 0);
	STREQ(c.level, "info");
	OK(!help);
	EQ(rest.n, 0);
	done();
	OK(c.dir == NULL);
	done(); /* twice is harmless */
}

static void test_flags(void)
{
	EQ(parse("--node-name|n 1|--dir=/x=y|--verbose|--safe=no|--workers=64|"
		 "--cache-size|1.5TiB|--deadline|100ms|--log-level|debug|"
		 "--secret-knob"),
	   0);
	STREQ(c.name, "n 1");
	STREQ(c.dir, "/x=y");
	OK(c.verbose);
	OK(!c.safe);
	EQ(c.workers, 64);
	EQ(c.cache_size, 1536 * GIB);
	EQ(c.deadline_ms, 100);
	STREQ(c.level, "debug");
	OK(c.secret);
	done();
	EQ(parse("--dir="), 0);
	STREQ(c.dir, "");
	done();
	EQ(parse("--workers|5|--workers|6"), 0);
	EQ(c.workers, 6);
	done();
}

static void test_lists(void)
{
	EQ(parse("--hosts|x, y ,,z|--hosts=w"), 0);
	EQ(c.hosts.n, 4); /* the default is replaced, flags add up */
	STREQ(c.hosts.v[0], "x");
	STREQ(c.hosts.v[1], "y");
	STREQ(c.hosts.v[2], "z");
	STREQ(c.hosts.v[3], "w");
	OK(c.hosts.v[4] == NULL);
	OK(string_list_has(&c.hosts, "y"));
	OK(!string_list_has(&c.hosts, "a.example"));
	OK(!string_list_has(&c.peers, "y"));
	done();
	EQ(parse("--hosts="), 0);
	EQ(c.hosts.n, 0);
	done();
	EQ(parse("--hosts= , "), 0);
	EQ(c.hosts.n, 0);
	done();
}

static void test_positional(void)
{
	char *argv[] = {(char *)"prog", (char *)"x", NULL};

	EQ(parse("run|--verbose|x|-|--|--dir|-h"), 0);
	EQ(rest.n, 5);
	STREQ(rest.v[0], "run");
	STREQ(rest.v[1], "x");
	STREQ(rest.v[2], "-");
	STREQ(rest.v[3], "--dir");
	STREQ(rest.v[4], "-h");
	OK(c.verbose);
	OK(!help);
	done();
	EQ(options_parse(table, N, &c, 2, argv, NULL, &help, &err), -EINVAL);
	STREQ(err.text, "x: unexpected argument");
	options_release(table, N, &c);
	EQ(options_parse(table, N, &c, 1, argv, NULL, &help, &err), 0);
	options_release(table, N, &c);
	EQ(options_parse(table, N, &c, 0, argv, NULL, &help, &err), 0);
	options_release(table, N, &c);
}

static void test_help_ends_parsing(void)
{
	EQ(parse("--help|--nonsense"), 0);
	OK(help);
	done();
	EQ(parse("run|-h"), 0);
	OK(help);
	done();
	EQ(parse("--dir|-h"), 0); /* a value, not a question */
	OK(!help);
	STREQ(c.dir, "-h");
	done();
}

static void test_bad_flags(void)
{
	fails("--nonsense", "--nonsense: no such option");
	fails("--cache-sze=1",
	      "--cache-sze: no such option; did you mean --cache-size");
	fails("-dir", "-dir: no such option; did you mean --dir");
	fails("-v", "-v: no such option");
	fails("--secret-knop", "--secret-knop: no such option");
	fails("--dir", "--dir: needs a value: text");
	fails("--dir|--verbose", "--dir: needs a value: text");
	fails("--workers|--", "--workers: needs a value: a whole number, from "
			      "1 to 64");
	fails("--x\x1b[2J\n", "--x\\u001b[2J\\n: no such option");
	fails("--=5", "--: no such option");
}

/* The message has option, origin, value and the allowed values. */
static void test_bad_values(void)
{
	fails("--workers=0",
	      "--workers: \"0\" is not a whole number, from 1 to 64");
	fails("--workers=65",
	      "--workers: \"65\" is not a whole number, from 1 to 64");
	fails("--workers=-1",
	      "--workers: \"-1\" is not a whole number, from 1 to 64");
	fails("--workers=",
	      "--workers: \"\" is not a whole number, from 1 to 64");
	fails("--cache-size=5x",
	      "--cache-size: \"5x\" is not a size such as 4096, 64KiB or "
	      "1.5GB, at least 64KiB");
	fails("--cache-size=1KiB",
	      "--cache-size: \"1KiB\" is not a size such as 4096, 64KiB or "
	      "1.5GB, at least 64KiB");
	fails("--deadline=5",
	      "--deadline: \"5\" is not a time such as 500ms, 5s, 2m or 1h, "
	      "from 100ms to 1h");
	fails("--verbose=maybe", "--verbose: \"maybe\" is not true or false");
	fails("--log-level=inf",
	      "--log-level: \"inf\" is not one of error|warn|info|debug");
	fails("--log-level=error|--log-level=",
	      "--log-level: \"\" is not one of error|warn|info|debug");
	fails("--plain=https://u:SECRET@h/p?SECRET",
	      "--plain: \"https://h/p\" is not a whole number");
	fails("--plain=\x1b[2J\"",
	      "--plain: \"\\u001b[2J\\\"\" is not a whole number");
}

static void test_long_bad_value(void)
{
	char args[2000] = "--plain=";

	memset(args + 8, 'x', sizeof(args) - 9);
	EQ(parse(args), -EINVAL);
	OK(strlen(err.text) < 200);
	OK(strstr(err.text, "…\" is not a whole number") != NULL);
	done();
	memset(args + 8, 1, sizeof(args) - 9);
	EQ(parse(args), -EINVAL);
	OK(strstr(err.text, "…\" is not a whole number") != NULL);
	done();
}

static void test_environment(void)
{
	(void)setenv("PEERD_CACHE_SIZE", "1MiB", 1);
	(void)setenv("PEERD_HOSTS", "e1,e2", 1);
	(void)setenv("PEERD_VERBOSE", "yes", 1);
	(void)setenv("PEERD_DIR", "", 1); /* counts as unset */
	(void)setenv("PEERD_SERVICE_HOST", "10.0.0.1", 1);
	EQ(parse(""), 0);
	EQ(c.cache_size, 1024 * KIB);
	EQ(c.hosts.n, 2);
	STREQ(c.hosts.v[0], "e1");
	OK(c.verbose);
	STREQ(c.dir, "/var/lib/x");
	done();
	EQ(parse("--cache-size=2MiB|--hosts=f|--verbose=false"), 0);
	EQ(c.cache_size, 2048 * KIB);
	EQ(c.hosts.n, 1);
	OK(!c.verbose);
	done();
	(void)setenv("PEERD_CACHE_SIZE", "much", 1);
	fails("", "PEERD_CACHE_SIZE (environment): \"much\" is not a size such "
		  "as 4096, 64KiB or 1.5GB, at least 64KiB");
	(void)unsetenv("PEERD_CACHE_SIZE");
	(void)unsetenv("PEERD_HOSTS");
	(void)unsetenv("PEERD_VERBOSE");
	(void)unsetenv("PEERD_DIR");
	(void)unsetenv("PEERD_SERVICE_HOST");
}

static void test_file(void)
{
	char args[PATH_MAX + 64];

	write_config("{\"cache-size\": \"1GiB\", \"workers\": 7, \"safe\": "
		     "false, \"hosts\": [\"a,b\", \"c\"], \"peers\": \"p,q\","
		     "\"verbose\": \"yes\", \"deadline\": \"2m\","
		     "\"log-level\": \"warn\", \"node-name\": \"f\"}");
	EQ(parse(""), 0);
	EQ(c.cache_size, GIB);
	EQ(c.workers, 7);
	OK(!c.safe);
	EQ(c.hosts.n, 2);
	STREQ(c.hosts.v[0], "a,b"); /* unchanged */
	EQ(c.peers.n, 2);
	OK(c.verbose);
	EQ(c.deadline_ms, 120000);
	STREQ(c.level, "warn");
	STREQ(c.config, path);
	done();

	/* The environment wins over the file, and a flag wins over both. */
	(void)setenv("PEERD_WORKERS", "8", 1);
	(void)setenv("PEERD_PEERS", "r", 1);
	(void)setenv("PEERD_NODE_NAME", "e", 1);
	EQ(parse("--node-name=g"), 0);
	EQ(c.workers, 8);
	EQ(c.peers.n, 1);
	STREQ(c.name, "g");
	done();
	(void)unsetenv("PEERD_WORKERS");
	(void)unsetenv("PEERD_PEERS");
	(void)unsetenv("PEERD_NODE_NAME");

	(void)setenv("PEERD_CONFIG", "/nonexistent/file", 1);
	(void)snprintf(args, sizeof(args), "--config|%s", path);
	EQ(parse(args), 0);
	EQ(c.workers, 7);
	STREQ(c.config, path);
	done();
	fails("", "/nonexistent/file: No such file or directory");
	remove_config();
}

static void test_bad_files(void)
{
	file_fails("[]", "", "not a JSON object");
	file_fails("{\"cache-sise\": 1}", "",
		   "cache-sise: no such option; did you mean cache-size");
	file_fails("{\"config\": \"x\"}", "",
		   "\"config\" cannot be set in a file");
	file_fails("{\"workers\": 65}", "workers",
		   "\"65\" is not a whole number, from 1 to 64");
	file_fails("{\"workers\": -1}", "workers",
		   "\"-1\" is not a whole number, from 1 to 64");
	file_fails("{\"workers\": 1.5}", "workers",
		   "wrong type of value, wanted a whole number, from 1 to 64");
	file_fails("{\"deadline\": 5}", "deadline",
		   "wrong type of value, wanted a time such as 500ms, 5s, 2m "
		   "or 1h, from 100ms to 1h");
	file_fails("{\"verbose\": 1}", "verbose",
		   "wrong type of value, wanted true or false");
	file_fails("{\"verbose\": null}", "verbose",
		   "wrong type of value, wanted true or false");
	file_fails("{\"hosts\": [\"a\", 1]}", "hosts",
		   "item 2 is not a string");
	file_fails("{\"hosts\": {}}", "hosts",
		   "wrong type of value, wanted a comma-separated list");
	file_fails("{\"dir\": \"a\", \"dir\": \"b\"}", "",
		   "JSON: duplicate key at line 1, column 18");
	file_fails("{", "", "JSON: ends too early at line 1, column 1");
}

static void test_help_text(void)
{
	CLEANUP(freep) char *text = NULL;
	size_t len = 0, longest = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		BAIL("open_memstream");
	options_help(table, N, f);
	(void)fclose(f);
	OK(strncmp(text, "General:\n  --config FILE", 24) == 0);
	OK(strstr(text,
		  "\n  --node-name NAME              Name of this node\n"));
	OK(strstr(text,
		  "\nCache:\n"
		  "  --dir DIR                     Where blobs are kept "
		  "(default /var/lib/x)\n"
		  "  --cache-size SIZE             Bytes on disk (default "
		  "10GiB)\n\n"));
	OK(strstr(text,
		  "  --hosts HOST,...              Registries that are served, "
		  "by their names as\n"
		  "                                they stand in image "
		  "references, without a scheme\n"
		  "                                (default "
		  "a.example,b.example)\n"));
	OK(strstr(text, "What is logged (error|warn|info|debug,"));
	OK(strstr(text, "PEERD_NODE_NAME"));
	OK(!strstr(text, "ecret"));
	OK(strstr(text, "General:") == text);
	OK(!strstr(text + 8, "General:")); /* each heading once */
	for (char *s = text; *s; s += strcspn(s, "\n") + 1)
		longest = max_u64(longest, strcspn(s, "\n"));
	OK(longest <= 80);
	if (getenv("SHOW"))
		(void)fputs(text, stderr);
}

static void size_is(const char *s, uint64_t want)
{
	uint64_t v = 77;
	int r = parse_size(s, &v);

	if (r != 0 || v != want)
		printf("# parse_size(%s)\n", s);
	EQ(r, 0);
	OK(v == want);
}

static void test_parse_size(void)
{
	static const char *const bad[] = {
		"",	 "KiB",	   "-1",	   "+1",      " 1",
		"1 KiB", "1kib",   "1K",	   "1G",      "0x10",
		"1.5",	 "1.5B",   "1.KiB",	   ".5KiB",   "1e3",
		"1KiBx", "1,5KiB", "1.1234567GiB", "1..5KiB",
	};
	uint64_t v = 77;

	size_is("0", 0);
	size_is("4096", 4096);
	size_is("12B", 12);
	size_is("64KiB", 65536);
	size_is("1KB", 1000);
	size_is("3MB", 3000000);
	size_is("2MiB", 2097152);
	size_is("10GiB", 10 * GIB);
	size_is("1.5GB", 1500000000);
	size_is("1.5TiB", 1536 * GIB);
	size_is("0.25KiB", 256);
	size_is("0.0001KiB", 0); /* rounded down */
	size_is("1.999999TiB", 2199022156040);
	size_is("18446744073709551615", UINT64_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (parse_size(bad[i], &v) != -EINVAL)
			printf("# accepted: %s\n", bad[i]);
		EQ(parse_size(bad[i], &v), -EINVAL);
	}
	EQ(parse_size("18446744073709551616", &v), -ERANGE);
	EQ(parse_size("16777216TiB", &v), -ERANGE);
	EQ(parse_size("99999999999999999999999999", &v), -ERANGE);
	EQ(v, 77);
}

static void test_parse_duration_and_u64(void)
{
	uint64_t v = 77;

	EQ(parse_duration_ms("5", &v), -EINVAL);
	EQ(parse_duration_ms("s", &v), -EINVAL);
	EQ(parse_duration_ms("5sec", &v), -EINVAL);
	EQ(parse_duration_ms("1h30m", &v), -EINVAL);
	EQ(parse_duration_ms("0.5ms", &v), -EINVAL);
	EQ(parse_duration_ms("18446744073709551615h", &v), -ERANGE);
	EQ(parse_u64("", &v), -EINVAL);
	EQ(parse_u64("1 ", &v), -EINVAL);
	EQ(parse_u64("-1", &v), -EINVAL);
	EQ(parse_u64("18446744073709551616", &v), -ERANGE);
	EQ(parse_u64("99999999999999999999x", &v), -EINVAL);
	EQ(v, 77);
	EQ(parse_duration_ms("0", &v), 0);
	EQ(v, 0);
	EQ(parse_duration_ms("500ms", &v), 0);
	EQ(v, 500);
	EQ(parse_duration_ms("1.5s", &v), 0);
	EQ(v, 1500);
	EQ(parse_duration_ms("2m", &v), 0);
	EQ(v, 120000);
	EQ(parse_duration_ms("1h", &v), 0);
	EQ(v, 3600000);
	EQ(parse_u64("18446744073709551615", &v), 0);
	OK(v == UINT64_MAX);
}

static void test_show(void)
{
	char s[VALUE_SHOW_SIZE];

	STREQ(show_size(0, s), "0");
	STREQ(show_size(1000, s), "1000");
	STREQ(show_size(65536, s), "64KiB");
	STREQ(show_size(10 * GIB, s), "10GiB");
	STREQ(show_size(UINT64_MAX, s), "18446744073709551615");
	STREQ(show_duration_ms(0, s), "0");
	STREQ(show_duration_ms(1500, s), "1500ms");
	STREQ(show_duration_ms(60000, s), "1m");
	STREQ(show_duration_ms(90000, s), "90s");
}

int main(void)
{
	for (size_t i = 0; i < N; i++) {
		char name[64] = "PEERD_";

		for (size_t k = 0; table[i].name[k] && k < 50; k++)
			name[6 + k] =
				table[i].name[k] == '-'
					? '_'
					: (char)(table[i].name[k] & ~0x20);
		(void)unsetenv(name);
	}
	RUN(test_defaults);
	RUN(test_flags);
	RUN(test_lists);
	RUN(test_positional);
	RUN(test_help_ends_parsing);
	RUN(test_bad_flags);
	RUN(test_bad_values);
	RUN(test_long_bad_value);
	RUN(test_environment);
	RUN(test_file);
	RUN(test_bad_files);
	RUN(test_help_text);
	RUN(test_parse_size);
	RUN(test_parse_duration_and_u64);
	RUN(test_show);
	return tap_done();
}
