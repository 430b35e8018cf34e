/* containerd/hosts.h: the edit of containerd's hosts.toml and its undo. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "containerd/hosts-private.h"
#include "containerd/hosts.h"
#include "containerd/toml.h"
#include "tests/unit/scratch.h"
#include "tests/unit/tap.h"

#define MIRROR "http://127.0.0.1:5000"
#define HEADER "[host.\"" MIRROR "\"]"

/* Texts as people have them in their files. */
static const char *const originals[] = {
	"",
	"\n",
	"# only a comment",
	"# only a comment\n",
	"\n\n\n",
	"server = \"https://a\"",
	"server = \"https://a\"\n",
	"server = \"https://a\"\r\n",
	"server = \"https://a\"\r\n\r\n[host.\"https://b\"]\r\n  "
	"capabilities = [\"pull\"]",
	"server = \"https://a\"\r\n# no newline",
	"[host.\"https://b\"]\n",
	"[host.\"https://b\"]",
	"   [host.\"https://b\"]   # why\n",
	"# top\n\nserver = 'https://a' # x\n\n# about b\n# more\n"
	"[host.\"https://b\"]\n  capabilities = [\"pull\"]\n\n"
	"[host.\"https://b\".header]\n  x = [\"1\", \"2\"]\n",
	"# server = \"https://commented\"\n[host.'https://b']\n",
	"ca = \"\"\"\nserver = \"no\"\n[host.\"no\"]\n# BEGIN peerd\n"
	"\"\"\"\n[host.\"https://b\"]\n",
	"ca = '''\n# END peerd\n''\n'''''\nserver = \"https://a\"\n",
	"ca = \"\"\"a\\\\\\\"\"\"\\\"\"\"\"\n",
	"client = [\n  [\"a\", \"b\"], # ]\n  [\"[host.x]\", 'c'],\n]\n"
	"[host.\"https://b\"]\n",
	"header = { x = \"]}\", \"y.z\" = ['#', \"}\"] }\n[host.\"b\"]\n",
	"a.b.\"c d\" = 1979-05-27 07:32:00 # date\n[ host . \"b\" ]\n",
	"server.x = 1\n\"server\\u0020\" = 2\n[[other]]\n[[other]]\n",
	"[host]\n[host.\"b\"]\nx = 1\n",
	"[header]\nserver = \"in a table\"\n[host.b]\n",
	"\xef\xbb\xbf[host.\"b\"]\n",
	"\xef\xbb\xbf",
	"\xef\xbb\xbf# bom",
	"# \xc3\xa9\xe2\x82\xac\xf0\x9f\x90\xb3\n\"\xc3\xa9\" = 'x'\n",
	"# BEGINpeerd\n#END peerd\n# BEGIN peerdy\n",
	"x = 1\n\t# a\n\n# b\n\t# c\n\t[host.\"b\"]\n#tail",
	"x = [\"a\\\\\", \"\\\"\"] #\"\n",
	"n = -1.5e+3\nb = true\ni = [1,2,3,]\nd = 07:32:00.5\n[host.b]\n",
	"x = 1   \n   ",
};

/* Replaces libc's: a killed process loses nothing without it, and the test of
 * crashes would wait for the disk a thousand times. */
static unsigned int synced;

int fsync(int fd)
{
	synced++;
	return fcntl(fd, F_GETFD) == -1 ? -1 : 0;
}

/* Collected reports */

static char told[8192];
static int count[4];

static void note(enum hosts_level level, const char *host, const char *text,
		 void *arg)
{
	size_t n = strlen(told);

	(void)arg;
	count[level]++;
	(void)snprintf(told + n, sizeof(told) - n, "%s: %s\n", host, text);
}

static void forget(void)
{
	told[0] = '\0';
	memset(count, 0, sizeof(count));
}

/* A directory for each test: TOP/certs.d, TOP/state. */

static char top[256], certs[300], state[300];

static void begin(void)
{
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(top, sizeof(top), "%s/test_hosts.XXXXXX",
		       tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(top))
		BAIL("mkdtemp");
	(void)snprintf(certs, sizeof(certs), "%s/certs.d", top);
	(void)snprintf(state, sizeof(state), "%s/state", top);
	forget();
}

static void end(void)
{
	remove_tree(top);
}

static const char *path_in(const char *rest)
{
	static char paths[64][600];
	static unsigned int next;
	char *p = paths[next++ % ARRAY_SIZE(paths)];

	(void)snprintf(p, sizeof(paths[0]), "%s/%s", certs, rest);
	return p;
}

static void put(const char *path, const char *data, size_t len)
{
	char dir[600];
	FILE *f;

	(void)snprintf(dir, sizeof(dir), "%s", path);
	for (char *p = dir + 1; *p; p++)
		if (*p == '/') {
			*p = '\0';
			(void)mkdir(dir, 0755);
			*p = '/';
		}
	f = fopen(path, "w");
	if (!f || fwrite(data, 1, len, f) != len || fclose(f))
		BAIL("cannot write a file");
}

static void put_str(const char *path, const char *s)
{
	put(path, s, strlen(s));
}

/* NULL if it does not exist. */
static char *get(const char *path, size_t *ret_len)
{
	struct hosts_file f;
	char *data;

	if (hosts_file_read(path, &f, NULL) < 0)
		return NULL;
	data = f.data;
	f.data = NULL;
	if (ret_len)
		*ret_len = f.len;
	hosts_file_release(&f);
	return data;
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static bool holds(const char *path, const char *data, size_t len)
{
	size_t n = 0;
	CLEANUP(freep) char *is = get(path, &n);

	return is && n == len && memcmp(is, data, len) == 0;
}

static bool holds_str(const char *path, const char *s)
{
	return holds(path, s, strlen(s));
}

static bool contains(const char *path, const char *s)
{
	CLEANUP(freep) char *is = get(path, NULL);

	return is && strstr(is, s);
}

static int call(bool add, const char *hosts, const char *mirrors)
{
	struct hosts_config c = {.config_path = certs, .state_dir = state};
	int r;

	(void)string_list_split(&c.hosts, hosts);
	(void)string_list_split(&c.mirrors, mirrors);
	r = add ? hosts_add(&c, note, NULL) : hosts_undo(&c, note, NULL);
	string_list_release(&c.hosts);
	string_list_release(&c.mirrors);
	return r;
}

static int add(const char *hosts)
{
	return call(true, hosts, MIRROR);
}

static int undo(const char *hosts)
{
	return call(false, hosts, "");
}

/* The scanner */

static int scan(const char *s, size_t len, struct error *err)
{
	struct toml t;
	struct toml_item item;
	size_t pos = 0;
	int r = toml_init(&t, s, len, err);

	if (r == 0)
		pos = t.pos;
	while (r == 0 && (r = toml_next(&t, &item)) > 0) {
		OK(item.start == pos && item.end > pos && item.end <= len);
		pos = item.end;
		r = 0;
	}
	OK(r < 0 || pos == len);
	return r;
}

static void test_scanner_accepts(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(originals); i++) {
		struct error err = {""};

		if (scan(originals[i], strlen(originals[i]), &err) != 0) {
			printf("# original %zu: %s\n", i, err.text);
			OK(false);
		}
	}
}

static void test_scanner_refuses(void)
{
	static const struct {
		const char *s, *line;
	} bad[] = {
		{"a = \"\"\"\n\n[host.x]\n", "line 1:"},
		{"x = 1\na = '''\nb''\n", "line 2:"},
		{"a = \"x\n", "line 1:"},
		{"a = 'x", "line 1:"},
		{"\n\na = \"\\q\"\n", "line 3:"},
		{"\"\\ud800\" = 1\n", "line 1:"},
		{"a = [1, 2\n[host.x]\n", "line 2:"},
		{"a = [1 2]\n", "line 1:"},
		{"a = [1,\n2\n", "line 1:"},
		{"a = { b = 1\n", "line 1:"},
		{"a = { b }\n", "line 1:"},
		{"[host.\"x\"\n", "line 1:"},
		{"[[host.x]\n", "line 1:"},
		{"[]\n", "line 1:"},
		{"a\n", "line 1:"},
		{"a =\n", "line 1:"},
		{"= 1\n", "line 1:"},
		{"a. = 1\n", "line 1:"},
		{"a = 1 2\n", "line 1:"},
		{"a = 1\rb = 2\n", "line 1:"},
		{"a = 1\r", "line 1:"},
		{"# \x01\n", "line 1:"},
		{"ok = 1\n# \xff\n", "line 2:"},
		{"a = \"\xc0\x80\"\n", "line 1:"},
		{"a\x7f = 1", "line 1:"},
	};
	char deep[1000];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = {""};
		int r = scan(bad[i].s, strlen(bad[i].s), &err);

		if (r != -EINVAL ||
		    strncmp(err.text, bad[i].line, strlen(bad[i].line)) != 0) {
			printf("# bad %zu: %d %s\n", i, r, err.text);
			OK(false);
		}
	}
	EQ(scan("a = 1\0", 6, NULL), -EINVAL);
	memset(deep, '[', sizeof(deep));
	memcpy(deep, "a = ", 4);
	EQ(scan(deep, sizeof(deep), NULL), -EINVAL);
}

static void test_scanner_paths(void)
{
	static const char s[] = "[ host . \"http://a\\u0062\\t\" . 'x' ]\n"
				"'a.b'.c = 1\n[[h]]\n";
	struct toml t;
	struct toml_item item;

	EQ(toml_init(&t, s, strlen(s), NULL), 0);
	EQ(toml_next(&t, &item), 1);
	EQ(item.type, TOML_TABLE);
	EQ(item.path.n, 3);
	STREQ(item.path.part[0], "host");
	STREQ(item.path.part[1], "http://ab\t");
	EQ(toml_next(&t, &item), 1);
	EQ(item.type, TOML_KEY);
	EQ(item.path.n, 2);
	STREQ(item.path.part[0], "a.b");
	STREQ(item.path.part[1], "c");
	EQ(toml_next(&t, &item), 1);
	EQ(item.type, TOML_ARRAY);
	EQ(item.line, 3);
	EQ(toml_next(&t, &item), 0);
}

/* Bytes that are not text must not make it read past the end. */
static void test_scanner_cut(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(originals); i++) {
		size_t len = strlen(originals[i]);

		for (size_t n = 0; n <= len; n++) {
			/* A buffer of the exact size, for the sanitizer. */
			char *s = malloc(n + 1);

			if (!s)
				BAIL("malloc");
			memcpy(s, originals[i], n);
			s[n] = 'x';
			(void)scan(s, n, NULL);
			free(s);
		}
	}
}

/* The edit */

static struct string_list one_mirror(void)
{
	struct string_list l = {0};

	(void)string_list_add(&l, MIRROR);
	return l;
}

/* Adds the block to base, strips it again, and compares. */
static void round_trip(const char *base, size_t len, enum hosts_made made)
{
	CLEANUP(string_list_release) struct string_list m = one_mirror();
	CLEANUP(buf_release) struct buf with = BUF_INIT(1 << 20);
	CLEANUP(buf_release) struct buf without = BUF_INIT(1 << 20);
	struct hosts_block b = {.mirrors = &m,
				.server = "https://up",
				.extra = "ca = [\"x.crt\"]\n",
				.made = made};
	struct hosts_found found;
	size_t present;
	struct error err = {""};
	int r = hosts_edit_add(base, len, &b, &with, &present, &err);

	if (r < 0) {
		printf("# %s: %.*s\n", err.text, (int)len, base);
		OK(false);
		return;
	}
	EQ(present, 0);
	OK(with.len > len);
	EQ(scan(with.data, with.len, NULL), 0);
	EQ(hosts_edit_strip(with.data, with.len, &without, &found, NULL), 0);
	EQ(found.blocks, 1);
	EQ(found.made, made);
	OK(!found.edited);
	if (without.len != len ||
	    (len && memcmp(without.data, base, len) != 0)) {
		printf("# not restored: \"%.*s\"\n# is: \"%.*s\"\n", (int)len,
		       base, (int)without.len, without.len ? without.data : "");
		OK(false);
	}
}

static uint64_t seed = 20260917;

static size_t pick(size_t n)
{
	seed = seed * UINT64_C(6364136223846793005) + 1;
	return (size_t)(seed >> 33) % n;
}

/* Top-level keys and comments, then tables, with any line endings and with or
 * without the last newline. '|' stands for a newline, '@' for text that makes a
 * name unique. */
static size_t random_file(char *out, size_t size)
{
	static const char *const keys[] = {
		"server = \"https://a\"",
		"ca = \"\"\"|[host.x]|# BEGIN peerd|\"\"\"",
		"ca = ['a', # [|\"b\"]",
		"x.y = { a = [1, {b='}'}] }",
		"skip_verify=true#",
		"s = '''|'' '''",
	};
	static const char *const gaps[] = {
		"",
		"# server = \"x\"",
		"\t# [host.\"c\"]",
		"  ",
		"#",
		"# BEGIN",
		"# END",
	};
	static const char *const tables[] = {
		"[host.\"https://b@\"]",
		"  [ host.'c@' ] # x",
		"[host.\"d@\".header]",
		"[[x@]]",
		"[other@]",
	};
	const char *eol = pick(3) ? "\n" : "\r\n";
	size_t n = 0, nkeys = pick(4), ntables = pick(4);

	for (size_t i = 0; i < nkeys + ntables * 3; i++) {
		const char *from = i >= nkeys && (i - nkeys) % 3 == 0
					   ? tables[pick(ARRAY_SIZE(tables))]
					   : keys[pick(ARRAY_SIZE(keys))];

		for (size_t k = pick(3); k > 0; k--)
			n += (size_t)snprintf(out + n, size - n, "%s%s",
					      gaps[pick(ARRAY_SIZE(gaps))],
					      eol);
		for (; *from; from++) {
			char c[2] = {*from == '@' ? (char)('a' + i) : *from};

			n += (size_t)snprintf(out + n, size - n, "%s",
					      *from == '|' ? eol : c);
		}
		n += (size_t)snprintf(out + n, size - n, "%s", eol);
	}
	if (n >= strlen(eol) && pick(2))
		n -= strlen(eol);
	return n;
}

static void test_edit_round_trip(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(originals); i++)
		for (int made = 0; made < 3; made++)
			round_trip(originals[i], strlen(originals[i]),
				   (enum hosts_made)made);
}

static void test_edit_round_trip_random(void)
{
	char file[8192];

	for (int i = 0; i < 5000; i++)
		round_trip(file, random_file(file, sizeof(file)),
			   HOSTS_MADE_NOTHING);
}

static char *edited(const char *base)
{
	CLEANUP(string_list_release) struct string_list m = one_mirror();
	struct buf out = BUF_INIT(1 << 20);
	struct hosts_block b = {.mirrors = &m, .server = "https://up"};
	size_t present;

	if (hosts_edit_add(base, strlen(base), &b, &out, &present, NULL) < 0) {
		buf_release(&out);
		return NULL;
	}
	return buf_steal(&out);
}

/* Whether the parts stand in s in this order. */
static bool in_order(const char *s, const char *a, const char *b, const char *c)
{
	const char *p = s ? strstr(s, a) : NULL;

	p = p ? strstr(p + strlen(a), b) : NULL;
	return p && strstr(p + strlen(b), c);
}

static void test_edit_place(void)
{
	CLEANUP(freep) char *a = edited("x = 1\n\n# about b\n[host.\"b\"]\n");
	CLEANUP(freep) char *b = edited("[header]\n[host.\"b\"]\n");
	CLEANUP(freep) char *c = edited("s = \"\"\"\n[host.x]\n\"\"\"\ny = 1");
	CLEANUP(freep) char *d = edited("server = \"https://mine\"\n");
	CLEANUP(freep) char *e = edited("# server = \"https://mine\"\n");
	CLEANUP(freep) char *f = edited("[t]\nserver = \"https://mine\"\n");
	CLEANUP(freep) char *g = edited("x = 1\r\n");

	OK(in_order(a, "x = 1\n\n# BEGIN", HEADER,
		    "# END peerd\n# about b\n[host.\"b\"]"));
	OK(in_order(b, "# BEGIN", HEADER, "# END peerd\n[header]"));
	OK(in_order(c, "y = 1\n# BEGIN", HEADER, "# END peerd"));
	OK(d && !strstr(d, "https://up"));
	OK(in_order(e, "# server", "server = \"https://up\"\n[host", "# END"));
	OK(in_order(f, "server = \"https://up\"\n[host", "# END", "[t]"));
	OK(in_order(g, "x = 1\r\n# BEGIN", HEADER "\r\n", "# END peerd\r\n"));
	OK(in_order(a, HEADER "\n",
		    "  capabilities = [\"pull\", \"resolve\"]\n",
		    "  dial_timeout = \"1s\"\n"));
}

static void test_edit_no_place(void)
{
	static const char *const bad[] = {
		"host = { \"b\" = {} }\n", "host.\"b\".skip_verify = true\n",
		"\"host\" = 1\n",	   "[[host]]\n",
		"[[host.\"b\"]]\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CLEANUP(freep) char *s = edited(bad[i]);

		OK(!s);
	}
}

/* A table given twice makes containerd drop the whole file. */
static void test_edit_mirror_there(void)
{
	static const char *const there[] = {
		HEADER "\n",
		"[ host . '" MIRROR "' ] # x\n",
		"[host.\"b\"]\n[host.\"http://127.0.0.1:500\\u0030\"]\n",
		"[host]\n\"" MIRROR "\".skip_verify = true\n",
		"[host]\n\"" MIRROR "\" = {}\n",
		"[host.\"" MIRROR "\".header]\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(there); i++) {
		CLEANUP(freep) char *s = edited(there[i]);

		OK(s && strcmp(s, there[i]) == 0);
	}
}

static void test_edit_damaged_block(void)
{
	static const char *const bad[] = {
		"# BEGIN peerd\n",
		"# BEGIN peerd\n# END peerd\n",
		"x = 1\n# END peerd\n",
		"# BEGIN peerd\n# peerd made=file server= mirrors=\n"
		"# END peerd\n",
		"# BEGIN peerd\n# peerd made=all server= mirrors= "
		"crc32c=00000000\n# END peerd\n",
		"# BEGIN peerd\n# peerd made=dir server= mirrors= "
		"crc32c=0000000g\n# END peerd\n",
		"# BEGIN peerd\n# peerd made=dir server= mirrors= "
		"crc32c=00000000\n# BEGIN peerd\n# END peerd\n",
		"# BEGIN peerd\n# peerd made=dir server= mirrors= "
		"crc32c=00000000\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CLEANUP(buf_release) struct buf out = BUF_INIT(1 << 20);
		struct hosts_found found;
		struct error err = {""};

		EQ(hosts_edit_strip(bad[i], strlen(bad[i]), &out, &found, &err),
		   -EINVAL);
		OK(strstr(err.text, "by hand"));
	}
}

/* Files */

static void test_new_file(void)
{
	struct stat st;
	const char *file = path_in("");

	begin();
	synced = 0;
	file = path_in("docker.io/hosts.toml");
	EQ(add("docker.io"), 0);
	EQ(count[HOSTS_CHANGED], 1);
	OK(contains(file,
		    "server = \"https://registry-1.docker.io\"\n" HEADER "\n"));
	EQ(stat(file, &st), 0);
	EQ(st.st_mode & 07777, 0644);
	EQ(stat(state, &st), 0);
	EQ(st.st_mode & 07777, 0700);
	forget();
	EQ(add("docker.io"), 0);
	EQ(count[HOSTS_UNCHANGED], 1);
	EQ(count[HOSTS_CHANGED] + count[HOSTS_WARNING], 0);
	EQ(undo("docker.io"), 0);
	OK(!exists(certs));
	EQ(undo("docker.io"), 0);
	EQ(undo(""), 0);
	EQ(count[HOSTS_FAILED] + count[HOSTS_WARNING], 0);
	OK(!exists(certs));
	end();
}

static void test_servers(void)
{
	begin();
	EQ(add("mcr.microsoft.com,https://ghcr.io/,http://plain.example:8080,"
	       "localhost:5001,127.0.0.1:5001,_default,index.docker.io,"
	       "127.example:5001"),
	   0);
	OK(contains(path_in("mcr.microsoft.com/hosts.toml"),
		    "\nserver = \"https://mcr.microsoft.com\"\n"));
	OK(contains(path_in("ghcr.io/hosts.toml"),
		    "\nserver = \"https://ghcr.io\"\n"));
	OK(contains(path_in("plain.example:8080/hosts.toml"),
		    "\nserver = \"http://plain.example:8080\"\n"));
	OK(contains(path_in("docker.io/hosts.toml"), "registry-1"));
	/* No server line: containerd uses no TLS there; and "_default" has no
	 * single server. */
	OK(contains(path_in("localhost:5001/hosts.toml"), HEADER));
	OK(!contains(path_in("localhost:5001/hosts.toml"), "\nserver"));
	OK(!contains(path_in("127.0.0.1:5001/hosts.toml"), "\nserver"));
	OK(!contains(path_in("_default/hosts.toml"), "\nserver"));
	/* The name may belong to any registry. */
	OK(contains(path_in("127.example:5001/hosts.toml"),
		    "\nserver = \"https://127.example:5001\"\n"));
	EQ(undo(""), 0);
	OK(!exists(certs));
	end();
}

/* One registry at a time: the last undo removes the parents. */
static void test_parents_removed(void)
{
	begin();
	EQ(add("a.example,b.example"), 0);
	EQ(undo("a.example"), 0);
	OK(!exists(path_in("a.example")));
	OK(exists(path_in("b.example")));
	EQ(undo("b.example"), 0);
	OK(!exists(certs));
	/* Directories that existed before stay. */
	OK(mkdir(certs, 0755) == 0 && mkdir(path_in("a.example"), 0755) == 0);
	EQ(add("a.example,b.example"), 0);
	EQ(undo(""), 0);
	OK(exists(path_in("a.example")));
	OK(!exists(path_in("b.example")));
	OK(!exists(path_in("a.example/hosts.toml")));
	end();
}

static void check_file(const char *data, size_t len, bool lose_state)
{
	const char *file = path_in("r.example/hosts.toml");

	put(file, data, len);
	EQ(add("r.example"), 0);
	OK(contains(file, HEADER));
	forget();
	EQ(add("r.example"), 0);
	EQ(count[HOSTS_UNCHANGED], 1);
	EQ(count[HOSTS_CHANGED], 0);
	if (lose_state)
		remove_tree(state);
	EQ(undo("r.example"), 0);
	if (!holds(file, data, len)) {
		printf("# not restored: \"%.*s\"\n", (int)len, data);
		OK(false);
	}
	forget();
	EQ(undo("r.example"), 0);
	EQ(count[HOSTS_CHANGED], 0);
	OK(holds(file, data, len));
}

static void test_restore_table(void)
{
	begin();
	for (size_t i = 0; i < ARRAY_SIZE(originals); i++) {
		check_file(originals[i], strlen(originals[i]), false);
		check_file(originals[i], strlen(originals[i]), true);
	}
	end();
}

static void test_restore_random(void)
{
	char data[8192];

	begin();
	for (int i = 0; i < 60; i++)
		check_file(data, random_file(data, sizeof(data)), i % 2 == 0);
	end();
}

static void test_hand_edits(void)
{
	static const char base[] = "x = 1\n[host.\"b\"]\n  y = 2\n";
	static const char more[] = "[host.\"http://added\"]\n  z = 1\n";
	const char *file;

	begin();
	file = path_in("r.example/hosts.toml");
	for (int lost = 0; lost < 2; lost++) {
		CLEANUP(freep) char *with = NULL, *text = NULL, *want = NULL;

		put_str(file, base);
		EQ(add("r.example"), 0);
		with = get(file, NULL);
		text = hosts_format("# first\n%s%s", with ? with : "", more);
		want = hosts_format("# first\n%s%s", base, more);
		put_str(file, text);
		/* Added again before the undo, as at every start of the daemon.
		 */
		if (lost)
			EQ(add("r.example"), 0);
		if (lost)
			remove_tree(state);
		EQ(undo("r.example"), 0);
		OK(holds_str(file, want));
	}
	end();
}

/* peerd made the file, but lines added by hand keep it. */
static void test_hand_edit_of_ours(void)
{
	CLEANUP(freep) char *text = NULL;
	const char *file;
	char *with;

	begin();
	file = path_in("r.example/hosts.toml");
	EQ(add("r.example"), 0);
	with = get(file, NULL);
	text = hosts_format("%s[host.\"b\"]\n", with ? with : "");
	free(with);
	put_str(file, text);
	EQ(add("r.example"), 0);
	EQ(undo(""), 0);
	OK(holds_str(file, "[host.\"b\"]\n"));
	EQ(undo(""), 0);
	OK(holds_str(file, "[host.\"b\"]\n"));
	end();
}

/* Replaces the first occurrence. */
static void replace(const char *file, const char *what, const char *by)
{
	CLEANUP(freep) char *s = get(file, NULL);
	CLEANUP(freep) char *out = NULL;
	char *p = s ? strstr(s, what) : NULL;

	OK(p != NULL);
	if (!p)
		return;
	*p = '\0';
	out = hosts_format("%s%s%s", s, by, p + strlen(what));
	put_str(file, out);
}

static void test_hand_edit_inside(void)
{
	static const char base[] = "[host.\"b\"]\n";
	const char *file;

	begin();
	file = path_in("r.example/hosts.toml");
	put_str(file, base);
	/* A block with another timeout is still peerd's. */
	EQ(add("r.example"), 0);
	replace(file, "\"1s\"", "\"5s\"\n  skip_verify = true");
	EQ(undo(""), 0);
	OK(holds_str(file, base));
	/* A host added to the block is not. */
	EQ(add("r.example"), 0);
	replace(file, "# END peerd",
		"# mine\n[host.\"c\"]\n  z = 1\n"
		"# END peerd");
	EQ(undo(""), 0);
	OK(holds_str(file, "# mine\n[host.\"c\"]\n  z = 1\n[host.\"b\"]\n"));
	/* Another server is not, either. */
	put_str(file, base);
	EQ(add("r.example"), 0);
	replace(file, "server = \"https://r.example\"",
		"server = \"https://other\"");
	EQ(undo(""), 0);
	OK(holds_str(file, "server = \"https://other\"\n[host.\"b\"]\n"));
	/* The next add takes the rest over. */
	EQ(add("r.example"), 0);
	OK(contains(file, "server = \"https://other\"\n# BEGIN"));
	OK(!contains(file, "https://r.example"));
	EQ(undo(""), 0);
	OK(holds_str(file, "server = \"https://other\"\n[host.\"b\"]\n"));
	end();
}

static void test_block_removed_by_hand(void)
{
	const char *file;

	begin();
	file = path_in("r.example/hosts.toml");
	put_str(file, "x = 1\n");
	EQ(add("r.example"), 0);
	put_str(file, "y = 2\n");
	EQ(undo(""), 0);
	OK(holds_str(file, "y = 2\n"));
	EQ(add("r.example"), 0);
	OK(unlink(file) == 0);
	EQ(undo(""), 0);
	OK(!exists(file));
	EQ(count[HOSTS_FAILED], 0);
	end();
}

static void test_damaged_block_is_kept(void)
{
	CLEANUP(freep) char *before = NULL;
	const char *file;

	begin();
	file = path_in("r.example/hosts.toml");
	EQ(add("r.example"), 0);
	replace(file, "# END peerd", "#");
	before = get(file, NULL);
	EQ(undo(""), -EINVAL);
	OK(strstr(told, "hosts.toml: line 1:"));
	EQ(add("r.example"), -EINVAL);
	OK(before && holds_str(file, before));
	end();
}

static void test_mirrors_change(void)
{
	static const char base[] = "[host.\"b\"]\n";
	CLEANUP(freep) char *s = NULL;
	const char *file;

	begin();
	file = path_in("r.example/hosts.toml");
	put_str(file, base);
	EQ(add("r.example"), 0);
	EQ(call(true, "r.example",
		"http://127.0.0.1:1,http://127.0.0.1:2,"
		"http://127.0.0.1:1"),
	   0);
	s = get(file, NULL);
	OK(in_order(s, "[host.\"http://127.0.0.1:1\"]",
		    "[host.\"http://127.0.0.1:2\"]", "[host.\"b\"]"));
	OK(s && !strstr(s, MIRROR));
	EQ(undo(""), 0);
	OK(holds_str(file, base));
	end();
}

static void test_mirror_there_already(void)
{
	const char *file;

	begin();
	file = path_in("r.example/hosts.toml");
	put_str(file, HEADER "\n");
	EQ(add("r.example"), 0);
	OK(holds_str(file, HEADER "\n"));
	EQ(count[HOSTS_WARNING], 1);
	EQ(count[HOSTS_UNCHANGED], 1);
	/* One of two. */
	EQ(call(true, "r.example", "http://127.0.0.1:1," MIRROR), 0);
	OK(contains(file, "# BEGIN"));
	EQ(undo(""), 0);
	OK(holds_str(file, HEADER "\n"));
	/* A mirror added by hand below the block; it is dropped from the block.
	 */
	put_str(file, "x = 1\n");
	EQ(add("r.example"), 0);
	replace(file, "# END peerd\n", "# END peerd\n" HEADER "\n");
	EQ(add("r.example"), 0);
	OK(holds_str(file, "x = 1\n" HEADER "\n"));
	EQ(undo(""), 0);
	OK(holds_str(file, "x = 1\n" HEADER "\n"));
	end();
}

/* Files that no option names stay untouched. */
static void test_others_untouched(void)
{
	const char *other, *binary;

	begin();
	other = path_in("other.example/hosts.toml");
	binary = path_in("binary.example/hosts.toml");
	EQ(add("r.example"), 0);
	put_str(other, "server = \"https://o\"\n");
	put(binary, "\xff\x00\x01", 3);
	EQ(undo(""), 0);
	EQ(count[HOSTS_FAILED], 0);
	OK(holds_str(other, "server = \"https://o\"\n"));
	OK(holds(binary, "\xff\x00\x01", 3));
	OK(!exists(path_in("r.example")));
	end();
}

static void test_dir_with_other_files(void)
{
	begin();
	EQ(add("r.example"), 0);
	put_str(path_in("r.example/mine"), "x");
	EQ(undo(""), 0);
	OK(!exists(path_in("r.example/hosts.toml")));
	OK(exists(path_in("r.example/mine")));
	end();
}

static void test_lost_state_of_new_file(void)
{
	begin();
	EQ(add("r.example"), 0);
	remove_tree(state);
	EQ(undo(""), 0);
	OK(!exists(path_in("r.example")));
	/* The directory existed: only the file is removed. */
	OK(mkdir(path_in("s.example"), 0755) == 0);
	EQ(add("s.example"), 0);
	remove_tree(state);
	EQ(undo(""), 0);
	OK(exists(path_in("s.example")));
	OK(!exists(path_in("s.example/hosts.toml")));
	/* An empty file is a file. */
	put_str(path_in("s.example/hosts.toml"), "");
	EQ(add("s.example"), 0);
	remove_tree(state);
	EQ(undo(""), 0);
	OK(holds_str(path_in("s.example/hosts.toml"), ""));
	end();
}

static int damage(const char *path, const struct stat *st, int type,
		  struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if (type == FTW_F)
		put_str(path, "{\"format\":\"peerd-hosts-1\"}");
	return 0;
}

static void test_damaged_state(void)
{
	const char *file;

	begin();
	file = path_in("r.example/hosts.toml");
	put_str(file, "x = 1");
	EQ(add("r.example"), 0);
	(void)nftw(state, damage, 16, FTW_PHYS);
	EQ(undo("r.example"), 0);
	EQ(count[HOSTS_WARNING], 1);
	OK(holds_str(file, "x = 1"));
	end();
}

static void test_mode_owner_and_link(void)
{
	static const char base[] = "x = 1\n";
	const char *link;
	char target[400], text[64] = "";
	struct stat st;

	begin();
	(void)snprintf(target, sizeof(target), "%s/real/h.toml", top);
	link = path_in("r.example/hosts.toml");
	put_str(target, base);
	OK(chmod(target, 0604) == 0);
	if (geteuid() == 0)
		OK(chown(target, 12, 34) == 0);
	OK(mkdir(certs, 0755) == 0 && mkdir(path_in("r.example"), 0755) == 0);
	OK(symlink("../../real/h.toml", link) == 0);
	for (int i = 0; i < 2; i++) {
		EQ(i == 0 ? add("r.example") : undo("r.example"), 0);
		OK(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
		OK(readlink(link, text, sizeof(text) - 1) > 0);
		STREQ(text, "../../real/h.toml");
		OK(stat(target, &st) == 0 && (st.st_mode & 07777) == 0604);
		OK(geteuid() != 0 || (st.st_uid == 12 && st.st_gid == 34));
		OK(contains(target, HEADER) == (i == 0));
	}
	OK(holds_str(target, base));
	/* A link to a missing file. */
	OK(unlink(target) == 0);
	EQ(add("r.example"), -ELOOP);
	OK(strstr(told, "link"));
	end();
}

static void test_certificates(void)
{
	const char *file;

	begin();
	file = path_in("r.example/hosts.toml");
	put_str(path_in("r.example/b.crt"), "");
	put_str(path_in("r.example/a.crt"), "");
	put_str(path_in("r.example/c.cert"), "");
	put_str(path_in("r.example/c.key"), "");
	put_str(path_in("r.example/d.cert"), "");
	put_str(path_in("r.example/e\"\n.crt"), "");
	EQ(add("r.example"), 0);
	OK(contains(file, "\nca = [\"a.crt\", \"b.crt\"]\n"
			  "client = [[\"c.cert\", \"c.key\"], \"d.cert\"]\n"
			  "[host."));
	EQ(undo(""), 0);
	OK(!exists(file));
	OK(exists(path_in("r.example/a.crt")));
	/* With a hosts.toml containerd ignores the certificates of the
	 * directory. */
	put_str(file, "[host.\"b\"]\n");
	EQ(add("r.example"), 0);
	OK(!contains(file, "a.crt"));
	end();
}

static void test_port_directories(void)
{
	begin();
	EQ(add("r.example:5000"), 0);
	OK(exists(path_in("r.example:5000/hosts.toml")));
	EQ(undo("r.example:5000"), 0);
	/* containerd looks at this one first. */
	put_str(path_in("r.example_5000_/hosts.toml"), "x = 1\n");
	EQ(add("r.example:5000"), 0);
	OK(!exists(path_in("r.example:5000")));
	OK(contains(path_in("r.example_5000_/hosts.toml"), HEADER));
	EQ(undo("r.example:5000"), 0);
	OK(holds_str(path_in("r.example_5000_/hosts.toml"), "x = 1\n"));
	EQ(add("[::1]:5000"), 0);
	OK(contains(path_in("[::1]:5000/hosts.toml"), HEADER));
	end();
}

static void test_default_hidden(void)
{
	begin();
	EQ(add("_default,a.example"), 0);
	EQ(count[HOSTS_WARNING], 0);
	put_str(path_in("_default/hosts.toml"), "[host.\"b\"]\n");
	EQ(add("c.example"), 0);
	EQ(count[HOSTS_WARNING], 1);
	OK(strstr(told, "_default"));
	EQ(add("c.example"), 0);
	EQ(count[HOSTS_WARNING], 1);
	end();
}

static void test_several_directories(void)
{
	char path[1024];
	struct hosts_config c = {.config_path = path, .state_dir = state};

	begin();
	(void)snprintf(path, sizeof(path), "%s//x/:%s/y", top, top);
	(void)string_list_add(&c.hosts, "r.example");
	(void)string_list_add(&c.mirrors, MIRROR);
	EQ(hosts_add(&c, note, NULL), 0);
	EQ(count[HOSTS_WARNING], 1);
	(void)snprintf(path, sizeof(path), "%s/x/r.example/hosts.toml", top);
	OK(exists(path));
	(void)snprintf(path, sizeof(path), "%s/x", top);
	EQ(hosts_undo(&c, note, NULL), 0);
	OK(!exists(path));
	c.config_path = ":";
	EQ(hosts_add(&c, note, NULL), -EINVAL);
	c.config_path = "";
	EQ(hosts_undo(&c, note, NULL), -EINVAL);
	string_list_release(&c.hosts);
	string_list_release(&c.mirrors);
	end();
}

static void test_bad_names(void)
{
	static const char *const bad[] = {
		"..",	     ".",      "/etc",	      "a/b",
		"A.example", "a b",    "a.example:0", "ftp://a.example",
		"https://",  "_other", "a.example//", "../x",
	};

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		forget();
		if (add(bad[i]) != -EINVAL || count[HOSTS_FAILED] != 1) {
			printf("# \"%s\" is taken\n", bad[i]);
			OK(false);
		}
		EQ(undo(bad[i]), -EINVAL);
	}
	OK(!exists(certs));
	/* The other registries are edited. */
	EQ(add("..,r.example,UPPER"), -EINVAL);
	OK(exists(path_in("r.example/hosts.toml")));
	end();
}

static void test_bad_mirrors(void)
{
	static const char *const bad[] = {
		"127.0.0.1:5000",  "ftp://x",	   "http://",
		"http:///x",	   "http://u:p@h", "http://h?x=1",
		"http://h\"]\n[x", "http://h h",   "http://\xc3\xa9",
		"http://h\\u0041", "unix:///x",	   "http://:5000",
	};

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (call(true, "r.example", bad[i]) != -EINVAL) {
			printf("# \"%s\" is taken\n", bad[i]);
			OK(false);
		}
	EQ(call(true, "r.example", ""), -EINVAL);
	EQ(add(""), -EINVAL);
	OK(!exists(certs));
	end();
}

static void test_bad_files(void)
{
	char *large = malloc(HOSTS_MAX_BYTES + 1);

	if (!large)
		BAIL("malloc");
	memset(large, '\n', HOSTS_MAX_BYTES + 1);
	begin();
	put(path_in("large.example/hosts.toml"), large, HOSTS_MAX_BYTES + 1);
	put(path_in("full.example/hosts.toml"), large, HOSTS_MAX_BYTES);
	put_str(path_in("latin.example/hosts.toml"), "# \xe9\n");
	put_str(path_in("open.example/hosts.toml"), "x = \"\"\"\n");
	put_str(path_in("file.example"), "x");
	OK(mkdir(path_in("dir.example"), 0755) == 0);
	OK(mkdir(path_in("dir.example/hosts.toml"), 0755) == 0);
	OK(mkdir(path_in("pipe.example"), 0755) == 0);
	OK(mkfifo(path_in("pipe.example/hosts.toml"), 0644) == 0);
	EQ(add("large.example,full.example,latin.example,open.example,"
	       "file.example,dir.example,pipe.example,good.example"),
	   -EFBIG);
	EQ(count[HOSTS_FAILED], 7);
	EQ(count[HOSTS_CHANGED], 1);
	OK(strstr(told, "large.example/hosts.toml: larger than 1048576"));
	OK(strstr(told, "full.example/hosts.toml: grows too large"));
	OK(strstr(told, "latin.example/hosts.toml: line 1: not UTF-8"));
	OK(strstr(told, "open.example/hosts.toml: line 1: unterminated"));
	OK(strstr(told, "file.example/hosts.toml: cannot read: Not a dir"));
	OK(strstr(told, "dir.example/hosts.toml: not a regular file"));
	OK(strstr(told, "pipe.example/hosts.toml: not a regular file"));
	OK(holds_str(path_in("open.example/hosts.toml"), "x = \"\"\"\n"));
	OK(holds(path_in("full.example/hosts.toml"), large, HOSTS_MAX_BYTES));
	OK(contains(path_in("good.example/hosts.toml"), HEADER));
	end();
	free(large);
}

static void test_unwritable(void)
{
	begin();
	if (geteuid() == 0) {
		/* Root can write everywhere, except below a file. */
		put_str(certs, "x");
		EQ(add("r.example"), -ENOTDIR);
	} else {
		OK(mkdir(certs, 0555) == 0);
		EQ(add("r.example"), -EACCES);
	}
	EQ(count[HOSTS_FAILED], 1);
	OK(strstr(told, certs));
	end();
}

/* Crashes */

/* Runs the call in a child that dies before its nth step. Returns whether it
 * died. */
static bool die_at(unsigned int n, bool adding, const char *mirrors)
{
	pid_t pid;
	int status;

	(void)fflush(stdout);
	pid = fork();
	if (pid == -1)
		BAIL("fork");
	if (pid == 0) {
		hosts_test_die_at = n;
		(void)call(adding, "r.example", mirrors);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		BAIL("waitpid");
	if (WIFEXITED(status))
		return false;
	OK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	return true;
}

static const char *const crash_bases[] = {
	NULL, /* nothing there, not even the directories */
	"",
	"x = 1\n\n[host.\"b\"]",
	"server = \"https://a\"\r\n# end",
};

static void set_up(const char *base)
{
	remove_tree(certs);
	remove_tree(state);
	if (base)
		put_str(path_in("r.example/hosts.toml"), base);
}

static bool is_as_before(const char *base)
{
	return base ? holds_str(path_in("r.example/hosts.toml"), base)
		    : !exists(certs);
}

static bool left_over(void)
{
	return exists(path_in("r.example/.hosts.toml.peerd-new"));
}

/* The file always has either the old or the new content. */
static void check_whole(const char *base, const char *other)
{
	const char *file = path_in("r.example/hosts.toml");

	if (!exists(file))
		OK(!base);
	else
		OK((base && holds_str(file, base)) || holds_str(file, other));
}

static void crash(const char *base, bool adding, const char *before,
		  const char *mirrors)
{
	CLEANUP(freep) char *file = strdup(path_in("r.example/hosts.toml"));
	CLEANUP(freep) char *old = NULL, *new = NULL;
	bool died = true;
	unsigned int n;

	if (!file)
		BAIL("strdup");
	set_up(base);
	if (before)
		EQ(call(true, "r.example", before), 0);
	old = before ? get(file, NULL) : base ? strdup(base) : NULL;
	if (adding) {
		EQ(call(true, "r.example", mirrors), 0);
		new = get(file, NULL);
	}
	for (n = 1; died && n < 1000; n++) {
		for (int then_add = 0; then_add < 3; then_add++) {
			set_up(base);
			if (before)
				EQ(call(true, "r.example", before), 0);
			died = die_at(n, adding, mirrors);
			if (adding)
				check_whole(old, new ? new : "");
			else if (exists(file))
				OK(holds_str(file, old ? old : "") ||
				   (base && holds_str(file, base)));
			if (then_add == 1) {
				EQ(call(true, "r.example", MIRROR), 0);
				OK(contains(file, HEADER));
			} else if (then_add == 2) {
				remove_tree(state);
			}
			EQ(undo("r.example"), 0);
			/* Without the state undo does not know of parent
			 * directories. */
			if (then_add == 2 && !base)
				OK(!exists(file));
			else if (!is_as_before(base)) {
				printf("# died at %u, adding %d\n", n, adding);
				OK(false);
			}
			if (then_add < 2)
				OK(!left_over());
		}
	}
	OK(n > 8 && n < 1000);
}

static void test_crash_in_add(void)
{
	begin();
	for (size_t i = 0; i < ARRAY_SIZE(crash_bases); i++)
		crash(crash_bases[i], true, NULL, MIRROR);
	EQ(count[HOSTS_FAILED], 0);
	end();
}

static void test_crash_in_change(void)
{
	begin();
	for (size_t i = 0; i < ARRAY_SIZE(crash_bases); i++)
		crash(crash_bases[i], true, MIRROR, "http://127.0.0.1:1");
	EQ(count[HOSTS_FAILED], 0);
	end();
}

static void test_crash_in_undo(void)
{
	begin();
	for (size_t i = 0; i < ARRAY_SIZE(crash_bases); i++)
		crash(crash_bases[i], false, MIRROR, "");
	EQ(count[HOSTS_FAILED], 0);
	end();
}

/* Parallel processes: each edit is complete. */
static void test_concurrent(void)
{
	pid_t pids[4];

	begin();
	put_str(path_in("r.example/hosts.toml"), "x = 1\n");
	(void)fflush(stdout);
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = fork();
		if (pids[i] == -1)
			BAIL("fork");
		if (pids[i] == 0) {
			int r = 0;

			for (int k = 0; k < 10 && r == 0; k++) {
				r = add("r.example");
				if (r == 0)
					r = undo("r.example");
			}
			_exit(r != 0);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		int status = -1;

		OK(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
	}
	EQ(undo(""), 0);
	OK(holds_str(path_in("r.example/hosts.toml"), "x = 1\n"));
	end();
}

int main(void)
{
	RUN(test_scanner_accepts);
	RUN(test_scanner_refuses);
	RUN(test_scanner_paths);
	RUN(test_scanner_cut);
	RUN(test_edit_round_trip);
	RUN(test_edit_round_trip_random);
	RUN(test_edit_place);
	RUN(test_edit_no_place);
	RUN(test_edit_mirror_there);
	RUN(test_edit_damaged_block);
	RUN(test_new_file);
	RUN(test_servers);
	RUN(test_parents_removed);
	RUN(test_restore_table);
	RUN(test_restore_random);
	RUN(test_hand_edits);
	RUN(test_hand_edit_of_ours);
	RUN(test_hand_edit_inside);
	RUN(test_block_removed_by_hand);
	RUN(test_damaged_block_is_kept);
	RUN(test_mirrors_change);
	RUN(test_mirror_there_already);
	RUN(test_others_untouched);
	RUN(test_dir_with_other_files);
	RUN(test_lost_state_of_new_file);
	RUN(test_damaged_state);
	RUN(test_mode_owner_and_link);
	RUN(test_certificates);
	RUN(test_port_directories);
	RUN(test_default_hidden);
	RUN(test_several_directories);
	RUN(test_bad_names);
	RUN(test_bad_mirrors);
	RUN(test_bad_files);
	RUN(test_unwritable);
	RUN(test_crash_in_add);
	RUN(test_crash_in_change);
	RUN(test_crash_in_undo);
	RUN(test_concurrent);
	return tap_done();
}
