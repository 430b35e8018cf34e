#include "http/url.h"

#include <errno.h>

#include "base/cleanup.h"
#include "tests/unit/tap.h"

/* Parses s and writes it again; "" if it is refused. */
static const char *parsed(const char *s)
{
	static char text[URL_MAX_BYTES + 1];
	CLEANUP(url_release) struct url u = {0};
	CLEANUP(buf_release) struct buf b = BUF_INIT(URL_MAX_BYTES);
	int r = url_parse(s, &u);

	text[0] = '\0';
	if (r < 0) {
		EQ(r, -EINVAL);
		OK(!u.scheme && !u.host && !u.path && !u.query);
		return text;
	}
	EQ(url_format(&u, true, &b), 0);
	memcpy(text, b.data, b.len + 1);
	return text;
}

static const char *resolved(const char *base, const char *ref)
{
	static char text[URL_MAX_BYTES + 1];
	CLEANUP(url_release) struct url u = {0}, v = {0};
	CLEANUP(buf_release) struct buf b = BUF_INIT(URL_MAX_BYTES);
	int r;

	text[0] = '\0';
	EQ(url_parse(base, &u), 0);
	r = url_resolve(&u, ref, &v);
	if (r < 0) {
		EQ(r, -EINVAL);
		return text;
	}
	EQ(url_format(&v, true, &b), 0);
	memcpy(text, b.data, b.len + 1);
	return text;
}

static void test_parts(void)
{
	CLEANUP(url_release) struct url u = {0};

	EQ(url_parse("HTTPS://Reg.Example.COM:8443/v2/A%2fb?x=1&y=/?#frag", &u),
	   0);
	STREQ(u.scheme, "https");
	STREQ(u.host, "reg.example.com");
	EQ(u.port, 8443);
	OK(u.port_given);
	STREQ(u.path, "/v2/A%2fb");
	STREQ(u.query, "x=1&y=/?");
}

static void test_defaults(void)
{
	CLEANUP(url_release) struct url u = {0}, v = {0}, w = {0};

	EQ(url_parse("http://h", &u), 0);
	EQ(u.port, 80);
	OK(!u.port_given);
	STREQ(u.path, "/");
	OK(u.query == NULL);
	EQ(url_parse("https://h?", &v), 0);
	EQ(v.port, 443);
	STREQ(v.path, "/");
	STREQ(v.query, "");
	EQ(url_parse("https://h:443", &w), 0);
	OK(w.port_given);
	OK(url_same_origin(&v, &w));
	OK(!url_same_origin(&u, &v));
}

static void test_authority(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(64);
	CLEANUP(url_release) struct url u = {0};

	STREQ(parsed("http://h:80/a"), "http://h/a");
	STREQ(parsed("http://h:/a"), "http://h/a");
	STREQ(parsed("http://h:443/a"), "http://h:443/a");
	STREQ(parsed("https://h:443/a"), "https://h/a");
	STREQ(parsed("http://h:00080/"), "http://h/");
	STREQ(parsed("http://h:65535/"), "http://h:65535/");
	STREQ(parsed("http://[::1]:5000/x"), "http://[::1]:5000/x");
	STREQ(parsed("http://[FE80::A]/x"), "http://[fe80::a]/x");
	STREQ(parsed("http://127.0.0.1/"), "http://127.0.0.1/");
	STREQ(parsed("http://a_b-c.d~/"), "http://a_b-c.d~/");
	EQ(url_parse("http://[::1]:81/", &u), 0);
	STREQ(u.host, "::1");
	EQ(url_authority(&u, &b), 0);
	STREQ(b.data, "[::1]:81");
}

static void test_refused(void)
{
	static const char *const bad[] = {
		"",
		"/a",
		"//h/a",
		"h/a",
		"ftp://h/a",
		"http:/h/a",
		"http:h",
		"http//h",
		" http://h/",
		"httpx://h/",
		"http://",
		"http:///a",
		"http://:80/",
		"http://?a",
		"http://u@h/",
		"http://u:p@h/",
		"http://@h/",
		"http://h@/",
		"http://h:0/",
		"http://h:65536/",
		"http://h:99999999999999999999/",
		"http://h:-1/",
		"http://h:8x/",
		"http://h:80:80/",
		"http://h\\@i/",
		"http://h%2e/",
		"http://h,i/",
		"http://h\xc3\xa4/",
		"http://[::1/",
		"http://::1/",
		"http://[]/",
		"http://[1]/",
		"http://[::1]x/",
		"http://[::1]:x/",
		"http://[fe80::1%25eth0]/",
		"http://[v1.a]/",
		"http://[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]/",
		"http://h/a b",
		"http://h/a\tb",
		"http://h/a\nb",
		"http://h/a\r\nX: y",
		"http://h/a\x7f",
		"http://h/?a b",
		"http://h/#a b",
		"http://h /",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		STREQ(parsed(bad[i]), "");
		if (tap_test_failed)
			printf("# … was %s\n", bad[i]);
	}
}

static void test_lengths(void)
{
	CLEANUP(url_release) struct url u = {0}, v = {0};
	static char s[URL_MAX_BYTES + 2];

	memset(s, 'a', sizeof(s) - 1);
	memcpy(s, "http://h/", 9);
	EQ(url_parse(s, &u), -EINVAL);
	s[URL_MAX_BYTES] = '\0';
	EQ(url_parse(s, &u), 0);
	EQ(strlen(u.path), URL_MAX_BYTES - 8);
	/* Its path is added, so that it would be too long once written out. */
	s[8] = '?';
	EQ(url_parse(s, &v), -EINVAL);
	s[URL_MAX_BYTES - 1] = '\0';
	EQ(url_parse(s, &v), 0);
	/* A host name of 255 bytes, of 256. */
	memset(s, 'a', 300);
	memcpy(s, "http://", 7);
	s[7 + 255] = '\0';
	EQ(strlen(parsed(s)), 7 + 255 + 1);
	s[7 + 255] = 'a';
	s[7 + 256] = '\0';
	STREQ(parsed(s), "");
}

static void test_dot_segments(void)
{
	STREQ(parsed("http://h/a/./b/../c"), "http://h/a/c");
	STREQ(parsed("http://h/a/b/c/./../../g"), "http://h/a/g");
	STREQ(parsed("http://h/.."), "http://h/");
	STREQ(parsed("http://h/."), "http://h/");
	STREQ(parsed("http://h/../../a"), "http://h/a");
	STREQ(parsed("http://h/a/.."), "http://h/");
	STREQ(parsed("http://h/a/."), "http://h/a/");
	STREQ(parsed("http://h//a//..//b"), "http://h//a//b");
	STREQ(parsed("http://h/..a/.b/c./..."), "http://h/..a/.b/c./...");
	STREQ(parsed("http://h/%2e%2E/a"), "http://h/%2e%2E/a");
	STREQ(parsed("http://h/a/b?x=/../y"), "http://h/a/b?x=/../y");
}

static void test_without_query(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(64);
	CLEANUP(buf_release) struct buf small = BUF_INIT(10);
	CLEANUP(url_release) struct url u = {0};

	EQ(url_parse("https://h/a?sig=secret", &u), 0);
	EQ(url_format(&u, false, &b), 0);
	STREQ(b.data, "https://h/a");
	EQ(url_format(&u, false, &small), -EMSGSIZE);
}

/* RFC 3986, 5.4.1 and 5.4.2. A fragment is dropped, and what is no http URL
 * is refused. */
static void test_rfc_examples(void)
{
	static const struct {
		const char *ref, *want;
	} t[] = {
		{"g:h", ""},
		{"g", "http://a/b/c/g"},
		{"./g", "http://a/b/c/g"},
		{"g/", "http://a/b/c/g/"},
		{"/g", "http://a/g"},
		{"//g", "http://g/"},
		{"?y", "http://a/b/c/d;p?y"},
		{"g?y", "http://a/b/c/g?y"},
		{"#s", "http://a/b/c/d;p?q"},
		{"g#s", "http://a/b/c/g"},
		{"g?y#s", "http://a/b/c/g?y"},
		{";x", "http://a/b/c/;x"},
		{"g;x", "http://a/b/c/g;x"},
		{"g;x?y#s", "http://a/b/c/g;x?y"},
		{"", "http://a/b/c/d;p?q"},
		{".", "http://a/b/c/"},
		{"./", "http://a/b/c/"},
		{"..", "http://a/b/"},
		{"../", "http://a/b/"},
		{"../g", "http://a/b/g"},
		{"../..", "http://a/"},
		{"../../", "http://a/"},
		{"../../g", "http://a/g"},
		{"../../../g", "http://a/g"},
		{"../../../../g", "http://a/g"},
		{"/./g", "http://a/g"},
		{"/../g", "http://a/g"},
		{"g.", "http://a/b/c/g."},
		{".g", "http://a/b/c/.g"},
		{"g..", "http://a/b/c/g.."},
		{"..g", "http://a/b/c/..g"},
		{"./../g", "http://a/b/g"},
		{"./g/.", "http://a/b/c/g/"},
		{"g/./h", "http://a/b/c/g/h"},
		{"g/../h", "http://a/b/c/h"},
		{"g;x=1/./y", "http://a/b/c/g;x=1/y"},
		{"g;x=1/../y", "http://a/b/c/y"},
		{"g?y/./x", "http://a/b/c/g?y/./x"},
		{"g?y/../x", "http://a/b/c/g?y/../x"},
		{"g#s/./x", "http://a/b/c/g"},
		{"g#s/../x", "http://a/b/c/g"},
		{"http:g", ""}, /* strict, and then not absolute */
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		STREQ(resolved("http://a/b/c/d;p?q", t[i].ref), t[i].want);
}

static void test_resolve(void)
{
	static char ref[URL_MAX_BYTES + 2];

	STREQ(resolved("https://a:8443/x", "/y"), "https://a:8443/y");
	STREQ(resolved("https://a:8443/x", "//b/y"), "https://b/y");
	STREQ(resolved("https://a/x", "http://b/y"), "http://b/y");
	STREQ(resolved("https://a/x", "HTTP://B:80/y"), "http://b/y");
	STREQ(resolved("http://[::1]:5/x", "y"), "http://[::1]:5/y");
	STREQ(resolved("http://a", "b"), "http://a/b");
	STREQ(resolved("http://a//b", "c"), "http://a//c");
	STREQ(resolved("http://a/b?q", "./c:d"), "http://a/c:d");
	STREQ(resolved("http://a/b", "c d"), "");
	STREQ(resolved("http://a/b", "c\r\nX: y"), "");
	STREQ(resolved("http://a/b", "//u@h/"), "");
	STREQ(resolved("http://a/b", "//"), "");
	STREQ(resolved("http://a/b", "javascript:x"), "");
	STREQ(resolved("http://a/b", "1:2"), "http://a/1:2");
	STREQ(resolved("http://a/b", ":x"), "http://a/:x");
	memset(ref, 'r', sizeof(ref) - 1);
	STREQ(resolved("http://a/b", ref), "");
	ref[URL_MAX_BYTES] = '\0';
	STREQ(resolved("http://a/b", ref), "");
	ref[URL_MAX_BYTES - 9] = '\0';
	EQ(strlen(resolved("http://a/b", ref)), URL_MAX_BYTES);
}

static void test_same_origin(void)
{
	static const struct {
		const char *a, *b;
		bool same;
	} t[] = {
		{"http://h/a", "http://H:80/b?c", true},
		{"http://h/", "https://h/", false},
		{"http://h:443/", "https://h/", false},
		{"http://h/", "http://h:8080/", false},
		{"http://h/", "http://h.i/", false},
		{"https://[::1]/", "https://[::1]:443/", true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		CLEANUP(url_release) struct url u = {0}, v = {0};

		EQ(url_parse(t[i].a, &u), 0);
		EQ(url_parse(t[i].b, &v), 0);
		EQ(url_same_origin(&u, &v), t[i].same);
		EQ(url_same_origin(&v, &u), t[i].same);
	}
}

static void test_encode(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(100);
	CLEANUP(buf_release) struct buf small = BUF_INIT(6);

	EQ(url_encode(&b, "a/b c%?&=+~._-Z9\xc3\xa4\x01", "/"), 0);
	STREQ(b.data, "a/b%20c%25%3F%26%3D%2B~._-Z9%C3%A4%01");
	buf_reset(&b);
	EQ(url_encode(&b, "a/b:c", ""), 0);
	STREQ(b.data, "a%2Fb%3Ac");
	EQ(url_encode(&small, "ab", ""), 0);
	EQ(url_encode(&small, "c//", ""), -EMSGSIZE);
	STREQ(small.data, "ab");
	EQ(small.len, 2);
}

static void test_decode(void)
{
	static const struct {
		const char *in, *out; /* NULL: refused */
	} t[] = {
		{"", ""},
		{"abc", "abc"},
		{"%41%62%2F", "Ab/"},
		{"%c3%A4", "\xc3\xa4"},
		{"a+b", "a+b"},
		{"%2541", "%41"},
		{"%", NULL},
		{"%4", NULL},
		{"a%4g", NULL},
		{"a%g4", NULL},
		{"%%41", NULL},
		{"a%00b", NULL},
		{"ok%41%", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		CLEANUP(freep) char *s = strdup(t[i].in);
		bool ok = url_decode(s);

		EQ(ok, t[i].out != NULL);
		/* A refused call leaves the output unchanged. */
		STREQ(s, t[i].out ? t[i].out : t[i].in);
	}
}

int main(void)
{
	RUN(test_parts);
	RUN(test_defaults);
	RUN(test_authority);
	RUN(test_refused);
	RUN(test_lengths);
	RUN(test_dot_segments);
	RUN(test_without_query);
	RUN(test_rfc_examples);
	RUN(test_resolve);
	RUN(test_same_origin);
	RUN(test_encode);
	RUN(test_decode);
	return tap_done();
}
