#include "base/ref.h"

#include <errno.h>

#include "tests/unit/tap.h"

#define HEX "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

static const char *filled(char *buf, char c, size_t n)
{
	memset(buf, c, n);
	buf[n] = '\0';
	return buf;
}

static void test_hosts(void)
{
	static const char *const good[] = {
		"docker.io",	  "localhost",
		"localhost:5000", "a",
		"10.0.0.1",	  "registry.local:1",
		"x-y.z:65535",	  "[::1]",
		"[fe80::1]:5000", "[::ffff:10.0.0.1]:80",
	};
	static const char *const bad[] = {
		"",	    ".",    "..",   "a..b",	 "-a",	   "a-",
		"a.-b",	    "a-.b", ".a",   "a.",	 "A.io",   "a_b",
		"a/b",	    "a:",   "a:0",  "a:65536",	 "a:x",	   "a:1:2",
		"a:123456", "[]",   "[::1", "[::1]x",	 "[::1]:", "[1]",
		"[::g]",    "a b",  "a\n",  "user@host", "a%2fb",  ":5000",
	};
	char long_host[300];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		if (!ref_host_valid(good[i]))
			printf("# %s\n", good[i]);
		OK(ref_host_valid(good[i]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (ref_host_valid(bad[i]))
			printf("# %s\n", bad[i]);
		OK(!ref_host_valid(bad[i]));
	}
	OK(ref_host_valid(filled(long_host, 'a', REF_HOST_MAX)));
	OK(!ref_host_valid(filled(long_host, 'a', REF_HOST_MAX + 1)));
}

static void test_names(void)
{
	static const char *const good[] = {
		"a",   "library/ubuntu", "a.b",	  "a_b",     "a__b",
		"a-b", "a---b",		 "0/1/2", "a/b/c/d",
	};
	static const char *const bad[] = {
		"",	 "/",	"a/",  "/a",	   "a//b",  ".",    "..",
		"a/..",	 "a/.", "A",   "a..b",	   "a___b", "a._b", "-a",
		"a-",	 "_a",	"a_",  ".a",	   "a.",    "a b",  "a%2fb",
		"a\x01", "a:b", "a@b", "\xc3\xa4",
	};
	char buf[300];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		OK(ref_name_valid(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (ref_name_valid(bad[i]))
			printf("# %s\n", bad[i]);
		OK(!ref_name_valid(bad[i]));
	}
	OK(ref_component_valid("a.b"));
	OK(!ref_component_valid("a/b"));
	OK(ref_name_valid(filled(buf, 'a', REF_NAME_MAX)));
	OK(!ref_name_valid(filled(buf, 'a', REF_NAME_MAX + 1)));
}

static void test_digests(void)
{
	static const char hex[] = "0123456789abcdef0123456789abcdef"
				  "0123456789abcdef0123456789abcdef";
	char s[600];

	(void)snprintf(s, sizeof(s), "sha256:%s", hex);
	OK(ref_digest_valid(s));
	s[10] = 'A';
	OK(!ref_digest_valid(s));
	(void)snprintf(s, sizeof(s), "sha512:%s%s", hex, hex);
	OK(ref_digest_valid(s));
	s[strlen(s) - 1] = '\0';
	OK(!ref_digest_valid(s));
	OK(ref_digest_valid(
		"multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSP"));
	OK(ref_digest_valid("a.b_c-d:x="));
	OK(!ref_digest_valid(""));
	OK(!ref_digest_valid(":"));
	OK(!ref_digest_valid("md5:"));
	OK(!ref_digest_valid("md5"));
	OK(!ref_digest_valid("a+:b"));
	OK(!ref_digest_valid("+a:b"));
	OK(!ref_digest_valid("a:b/c"));
	OK(!ref_digest_valid("a:b?c"));
	(void)snprintf(s, sizeof(s), "x:%s%s%s%s", hex, hex, hex, hex);
	OK(!ref_digest_valid(s));
}

static void test_tags(void)
{
	static const char *const bad[] = {"",	 ".a",	"-a",  "a/b",
					  "a:b", "a b", "a\n", "\xc3\xa4"};
	char buf[200];

	OK(ref_tag_valid("latest"));
	OK(ref_tag_valid("_v1.0-RC_2"));
	OK(ref_tag_valid(filled(buf, 'x', REF_TAG_MAX)));
	OK(!ref_tag_valid(filled(buf, 'x', REF_TAG_MAX + 1)));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		OK(!ref_tag_valid(bad[i]));
}

static void test_paths(void)
{
	static const struct {
		const char *path, *name, *kind, *reference;
	} t[] = {
		{"/v2/a/blobs/x", "a", "blobs", "x"},
		{"/v2/a/b/manifests/latest", "a/b", "manifests", "latest"},
		{"/v2/blobs/manifests/blobs/x", "blobs/manifests", "blobs",
		 "x"},
		{"/v2/v2/v2/v2", "v2", "v2", "v2"},
		/* The caller checks it. */
		{"/v2/a//", "a", "", ""},
		{"/v2/a/tags/list", "a", "tags", "list"},
	};
	static const char *const bad[] = {
		"",
		"/",
		"/v2",
		"/v2/",
		"/v2//",
		"/v2///",
		"/v2/a",
		"/v2/a/b",
		"v2/a/b/c",
		"/v1/a/b/c",
		"/V2/a/b/c",
		"/v2a/b/c/d",
		"//v2/a/b/c",
		"/v2//a/b",
		"/v2//a/b/c",
		"/v2/a//b/c",
		"/v2/A/b/c",
		"/v2/../b/c",
		"/v2/a/../b/c",
		"/v2/a b/c/d",
		"/v2/a:b/c/d",
		"/v2/a//b/c/",
	};
	char path[600], name[300], *n, *k, *r;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		(void)snprintf(path, sizeof(path), "%s", t[i].path);
		OK(ref_split_path(path, &n, &k, &r));
		STREQ(n, t[i].name);
		STREQ(k, t[i].kind);
		STREQ(r, t[i].reference);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		(void)snprintf(path, sizeof(path), "%s", bad[i]);
		if (ref_split_path(path, &n, &k, &r)) {
			printf("# %s\n", bad[i]);
			OK(false);
		}
	}
	for (size_t len = REF_NAME_MAX; len <= REF_NAME_MAX + 1; len++) {
		(void)snprintf(path, sizeof(path), "/v2/%s/blobs/x",
			       filled(name, 'a', len));
		EQ(ref_split_path(path, &n, &k, &r), len == REF_NAME_MAX);
	}
}

static void test_aliases(void)
{
	STREQ(ref_host_canonical("index.docker.io"), "docker.io");
	STREQ(ref_host_canonical("registry-1.docker.io"), "docker.io");
	STREQ(ref_host_canonical("ghcr.io"), "ghcr.io");
	STREQ(ref_host_api("docker.io"), "registry-1.docker.io");
	STREQ(ref_host_api("index.docker.io"), "registry-1.docker.io");
	STREQ(ref_host_api("localhost:5000"), "localhost:5000");
}

static void test_references(void)
{
	static const struct {
		const char *s, *host, *name, *tag;
		bool digest;
	} t[] = {
		{"ubuntu", "docker.io", "library/ubuntu", "latest", false},
		{"ubuntu:22.04", "docker.io", "library/ubuntu", "22.04", false},
		{"me/app", "docker.io", "me/app", "latest", false},
		{"docker.io/ubuntu", "docker.io", "library/ubuntu", "latest",
		 false},
		{"index.docker.io/a/b:c", "docker.io", "a/b", "c", false},
		{"localhost/x", "localhost", "x", "latest", false},
		{"localhost:5000/x:y", "localhost:5000", "x", "y", false},
		{"Reg.Example.ORG/x", "reg.example.org", "x", "latest", false},
		{"[::1]:5000/a/b", "[::1]:5000", "a/b", "latest", false},
		{"localhost:5000", "docker.io", "library/localhost", "5000",
		 false},
		{"h.io/x@sha256:" HEX, "h.io", "x", NULL, true},
		{"h.io/x:t@sha256:" HEX, "h.io", "x", "t", true},
		{"x@sha256:" HEX, "docker.io", "library/x", NULL, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct error err = {""};
		struct ref r;

		EQ(ref_parse(t[i].s, &r, &err), 0);
		STREQ(r.host, t[i].host);
		STREQ(r.name, t[i].name);
		if (t[i].tag)
			STREQ(r.tag, t[i].tag);
		else
			OK(!r.tag);
		EQ(r.has_digest, t[i].digest);
		ref_release(&r);
	}
}

static void test_bad_references(void)
{
	static const struct {
		const char *s, *says;
	} t[] = {
		{"", "empty"},
		{"h.io/", "repository name"},
		{"h.io/UP", "repository name"},
		{"h.io/a/../b", "repository name"},
		{"h..io/a", "registry host"},
		{"h.io:99999/a", "registry host"},
		{"a:", "tag"},
		{"a:b:c", "tag"},
		{"a@", "digest"},
		{"a@sha512:00", "digest"},
		{"a@sha256:" HEX "0", "digest"},
		{"a@b@sha256:" HEX, "digest"},
		{"a b", "repository name"},
		{"https://h.io/a", "registry host"},
	};
	char buf[5000];
	struct error err;
	struct ref r;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		err.text[0] = '\0';
		EQ(ref_parse(t[i].s, &r, &err), -EINVAL);
		if (!strstr(err.text, t[i].says))
			printf("# \"%s\": %s\n", t[i].s, err.text);
		OK(strstr(err.text, t[i].says) != NULL);
		ref_release(&r); /* harmless */
	}
	EQ(ref_parse(filled(buf, 'a', 4096), &r, NULL), -EINVAL);
	EQ(ref_parse(filled(buf, 'a', 250), &r, NULL), -EINVAL);
	EQ(ref_parse(filled(buf, 'a', 247), &r, NULL), 0);
	ref_release(&r);
}

static void test_listed(void)
{
	char a[] = "http://127.0.0.1:5000", b[] = "docker.io";
	char c[] = "a.example:443", d[] = "_default";
	char *names[] = {a, b, c}, *all[] = {d};
	struct string_list none = {0}, some = {.v = names, .n = 3},
			   any = {.v = all, .n = 1};

	OK(ref_host_listed(&some, "127.0.0.1:5000"));
	OK(ref_host_listed(&some, "index.docker.io"));
	OK(ref_host_listed(&some, "a.example:443"));
	OK(!ref_host_listed(&some, "a.example"));
	OK(!ref_host_listed(&some, "b.example"));
	OK(ref_host_listed(&any, "b.example"));
	OK(!ref_host_listed(&none, "b.example"));
}

int main(void)
{
	RUN(test_hosts);
	RUN(test_names);
	RUN(test_tags);
	RUN(test_digests);
	RUN(test_paths);
	RUN(test_aliases);
	RUN(test_references);
	RUN(test_bad_references);
	RUN(test_listed);
	return tap_done();
}
