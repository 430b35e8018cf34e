#include "base/cleanup.h"
#include "base/manifest.h"

#include <errno.h>

#include "base/buf.h"
#include "registry/registry.h"
#include "tests/unit/tap.h"

#define D1                                                                     \
	"sha256:"                                                              \
	"1111111111111111111111111111111111111111111111111111111111111111"
#define D2                                                                     \
	"sha256:"                                                              \
	"2222222222222222222222222222222222222222222222222222222222222222"
#define D3                                                                     \
	"sha256:"                                                              \
	"3333333333333333333333333333333333333333333333333333333333333333"
#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX    "application/vnd.oci.image.index.v1+json"
#define DOCKER_LIST  "application/vnd.docker.distribution.manifest.list.v2+json"

static int parse(const char *s, const char *type, struct manifest **ret,
		 struct error *err)
{
	*ret = NULL;
	return manifest_parse(s, strlen(s), type, ret, err);
}

static void test_image(void)
{
	struct manifest *m;
	char text[DIGEST_STR_SIZE];

	EQ(parse("{\"schemaVersion\":2,\"config\":{\"digest\":\"" D1 "\","
		 "\"size\":3,\"mediaType\":\"a/b\"},\"unknown\":[[{}]],"
		 "\"layers\":[{\"digest\":\"" D2 "\",\"size\":0},"
		 "{\"digest\":\"" D3 "\",\"size\":17,\"annotations\":{"
		 "\"org.opencontainers.image.title\":\"dir/f\xc3\xa4.bin\"}}]}",
		 OCI_MANIFEST "; charset=utf-8", &m, NULL),
	   0);
	OK(!m->index);
	OK(m->has_config);
	STREQ(digest_str(&m->config.digest, text), D1);
	STREQ(m->config.media_type, "a/b");
	EQ(m->nentries, 2);
	STREQ(digest_str(&m->entries[0].digest, text), D2);
	EQ(m->entries[0].size, 0);
	STREQ(m->entries[0].media_type, "");
	OK(!m->entries[0].title);
	EQ(m->entries[1].size, 17);
	STREQ(m->entries[1].title, "dir/f\xc3\xa4.bin");
	STREQ(m->media_type, OCI_MANIFEST);
	OK(!manifest_for_platform(m, NULL, 0));
	manifest_free(&m);
	OK(!m);
	manifest_free(&m);
}

/* The document's media type wins over the header, and the header over a guess.
 */
static void test_kind(void)
{
	static const char *const image = "{\"schemaVersion\":2,\"layers\":[]}";
	static const char *const list =
		"{\"schemaVersion\":2,\"manifests\":[]}";
	struct manifest *m;

	EQ(parse(image, "", &m, NULL), 0);
	STREQ(m->media_type, OCI_MANIFEST);
	manifest_free(&m);
	EQ(parse(image, "text/plain", &m, NULL), 0);
	manifest_free(&m);
	EQ(parse(list, "", &m, NULL), 0);
	OK(m->index);
	STREQ(m->media_type, OCI_INDEX);
	manifest_free(&m);
	EQ(parse(list, DOCKER_LIST, &m, NULL), 0);
	STREQ(m->media_type, DOCKER_LIST);
	manifest_free(&m);
	EQ(parse("{\"schemaVersion\":2,\"mediaType\":\"" OCI_INDEX "\","
		 "\"manifests\":[]}",
		 OCI_MANIFEST, &m, NULL),
	   0);
	STREQ(m->media_type, OCI_INDEX);
	manifest_free(&m);
	EQ(parse(list, OCI_MANIFEST, &m, NULL), -EINVAL);
	EQ(parse(image, OCI_INDEX, &m, NULL), -EINVAL);
	EQ(parse("{\"schemaVersion\":2,\"mediaType\":\"" OCI_INDEX "\","
		 "\"layers\":[]}",
		 "", &m, NULL),
	   -EINVAL);
}

static void test_bad(void)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"\"x\"",
		"{}",
		"{\"schemaVersion\":2}",
		"{\"schemaVersion\":1,\"layers\":[]}",
		"{\"schemaVersion\":\"2\",\"layers\":[]}",
		"{\"schemaVersion\":1,\"fsLayers\":[]}",
		"{\"schemaVersion\":2,\"layers\":[],\"manifests\":[]}",
		"{\"schemaVersion\":2,\"config\":{},\"manifests\":[]}",
		"{\"schemaVersion\":2,\"layers\":{}}",
		"{\"schemaVersion\":2,\"layers\":[1]}",
		"{\"schemaVersion\":2,\"layers\":[{}]}",
		"{\"schemaVersion\":2,\"layers\":[{\"digest\":\"" D1 "\"}]}",
		"{\"schemaVersion\":2,\"layers\":[{\"size\":1}]}",
		"{\"schemaVersion\":2,\"layers\":[{\"digest\":\"" D1 "\","
		"\"size\":-1}]}",
		"{\"schemaVersion\":2,\"layers\":[{\"digest\":\"" D1 "\","
		"\"size\":1.5}]}",
		"{\"schemaVersion\":2,\"layers\":[{\"digest\":\"" D1 "\","
		"\"size\":18446744073709551615}]}",
		"{\"schemaVersion\":2,\"layers\":[{\"digest\":\"" D1 "\","
		"\"size\":17592186044417}]}",
		"{\"schemaVersion\":2,\"layers\":[{\"digest\":\"" D1 "0\","
		"\"size\":1}]}",
		"{\"schemaVersion\":2,\"layers\":[{\"digest\":\"sha512:00\","
		"\"size\":1}]}",
		"{\"schemaVersion\":2,\"layers\":[{\"digest\":\"" D1 "\","
		"\"size\":1,\"mediaType\":\"a\\r\\nb: c\"}]}",
		"{\"schemaVersion\":2,\"mediaType\":\"text/plain\","
		"\"layers\":[]}",
		"{\"schemaVersion\":2,\"layers\":[]} x",
		"{\"schemaVersion\":2,\"layers\":[],\"layers\":[]}",
		"<html></html>",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error err = {""};
		struct manifest *m;
		int r = parse(bad[i], "", &m, &err);

		if (r != -EINVAL)
			printf("# %s\n", bad[i]);
		EQ(r, -EINVAL);
		OK(err.text[0]);
		OK(!m);
	}
}

static void add_layers(struct buf *b, int n)
{
	EQ(buf_str(b, "{\"schemaVersion\":2,\"layers\":["), 0);
	for (int i = 0; i < n; i++)
		EQ(buf_printf(b, "%s{\"digest\":\"" D1 "\",\"size\":1}",
			      i ? "," : ""),
		   0);
	EQ(buf_str(b, "]}"), 0);
}

static void test_limits(void)
{
	struct buf b = BUF_INIT(16 << 20);
	struct error err = {""};
	struct manifest *m = NULL;

	add_layers(&b, MANIFEST_MAX_ENTRIES);
	EQ(manifest_parse(b.data, b.len, "", &m, &err), 0);
	EQ(m->nentries, MANIFEST_MAX_ENTRIES);
	manifest_free(&m);
	buf_reset(&b);
	add_layers(&b, MANIFEST_MAX_ENTRIES + 1);
	EQ(manifest_parse(b.data, b.len, "", &m, &err), -EINVAL);
	OK(strstr(err.text, "4097"));
	buf_reset(&b);
	add_layers(&b, 100000);
	EQ(manifest_parse(b.data, b.len, "", &m, &err), -EINVAL);
	OK(!m);
	buf_reset(&b);
	for (int i = 0; i < 100000; i++)
		EQ(buf_str(&b, "["), 0);
	EQ(manifest_parse(b.data, b.len, "", &m, &err), -EINVAL);
	buf_release(&b);
}

static const char *title_of(const char *title, struct manifest **m)
{
	struct buf b = BUF_INIT(16 << 10);

	EQ(buf_printf(&b,
		      "{\"schemaVersion\":2,\"layers\":[{\"digest\":\"" D1
		      "\",\"size\":1,\"annotations\":{"
		      "\"org.opencontainers.image.title\":\"%s\"}}]}",
		      title),
	   0);
	EQ(manifest_parse(b.data, b.len, "", m, NULL), 0);
	buf_release(&b);
	return *m ? (*m)->entries[0].title : NULL;
}

static void test_titles(void)
{
	static const char *const bad[] = {
		"",	"/",	     "/a",	"a/",	     "a//b",
		".",	"..",	     "a/..",	"../a",	     "a/./b",
		"a\\n", "a\\u0001b", "\\u007f", "a\\u0085b",
	};
	static const char *const good[] = {"a",	    "a b", "...",	  ".a",
					   "a/b/c", "a:b", "\xe2\x82\xac"};
	struct manifest *m;
	char s[5000];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (title_of(bad[i], &m))
			printf("# \"%s\"\n", bad[i]);
		OK(!m->entries[0].title);
		manifest_free(&m);
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		STREQ(title_of(good[i], &m), good[i]);
		manifest_free(&m);
	}
	memset(s, 'x', sizeof(s));
	s[255] = '\0';
	STREQ(title_of(s, &m), s);
	manifest_free(&m);
	s[255] = 'x';
	s[256] = '\0';
	OK(!title_of(s, &m));
	manifest_free(&m);
	for (int i = 1; i < 4999; i += 2)
		s[i] = '/';
	s[4999] = '\0';
	OK(!title_of(s, &m));
	manifest_free(&m);
}

#define ENTRY(d, os, arch, extra)                                              \
	"{\"digest\":\"" d "\",\"size\":1,\"platform\":{\"os\":\"" os "\","    \
	"\"architecture\":\"" arch "\"" extra "}}"

static const char *pick(const struct manifest *m, const char *platform)
{
	static char text[DIGEST_STR_SIZE];
	const struct descriptor *d = manifest_for_platform(m, platform, 0);

	return d ? digest_str(&d->digest, text) : "none";
}

static void test_platforms(void)
{
	struct manifest *m;

	EQ(parse("{\"schemaVersion\":2,\"manifests\":[" ENTRY(D1, "unknown", "unknown", "") "," ENTRY(D1, "linux", "arm", ",\"variant\":\"v6\"") "," ENTRY(
			 D2, "linux", "arm",
			 ",\"variant\":\"v7\"") "," ENTRY(D3, "linux", "arm",
							  "") "," ENTRY(D2,
									"windows",
									"amd64",
									"") "," ENTRY(D3,
										      "linux",
										      "arm64",
										      ",\"variant\":\"v8\"") ","
													     "{\"digest\":\"" D1
													     "\",\"size\":1}]}",
		 "", &m, NULL),
	   0);
	EQ(m->nentries, 7);
	STREQ(pick(m, "linux/arm/v7"), D2);
	STREQ(pick(m, "linux/arm/v6"), D1);
	/* No older variant: the entry without a platform is the last choice. */
	STREQ(pick(m, "linux/arm/v5"), D1);
	STREQ(pick(m, "linux/arm"), D2); /* v7 */
	STREQ(pick(m, "linux/arm/v8"), D2);
	STREQ(pick(m, "linux/arm64"), D3);
	STREQ(pick(m, "windows/amd64"), D2);
	STREQ(pick(m, "linux/amd64"), D1);
	STREQ(pick(m, "unknown/unknown"), D1);
	STREQ(pick(m, "linux"), D1);
	STREQ(pick(m, ""), D1);
	manifest_free(&m);
	OK(strncmp(manifest_platform(), "linux/", 6) == 0);
}

static void test_platform_names(void)
{
	CLEANUP(buf_release) struct buf names = BUF_INIT(64);
	struct manifest *m;

	EQ(parse("{\"schemaVersion\":2,\"manifests\":[" ENTRY(
			 D1, "linux", "386",
			 "") "," ENTRY(D2, "linux", "x86_64",
				       "") "," ENTRY(D3, "linux", "aarch64",
						     ",\"variant\":\"v8\"") "]}",
		 "", &m, NULL),
	   0);
	STREQ(pick(m, "linux/amd64"), D2);
	STREQ(pick(m, "linux/amd64/v3"), D2);
	STREQ(pick(m, "linux/386"), D1);
	STREQ(pick(m, "linux/arm64"), D3);
	STREQ(pick(m, "linux/s390x"), "none");
	STREQ(pick(m, "linux"), "none");
	STREQ(pick(m, ""), "none");
	/* amd64 also runs 386. */
	OK(manifest_for_platform(m, "linux/amd64", 1) == &m->entries[0]);
	OK(!manifest_for_platform(m, "linux/amd64", 2));
	manifest_list_platforms(m, &names);
	STREQ(names.data, "linux/386, linux/x86_64, linux/aarch64/v8");
	manifest_free(&m);
}

int main(void)
{
	RUN(test_image);
	RUN(test_kind);
	RUN(test_bad);
	RUN(test_limits);
	RUN(test_titles);
	RUN(test_platforms);
	RUN(test_platform_names);
	return tap_done();
}
