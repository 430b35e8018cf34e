/* Plain files as blobs: versions, signatures, redirects, servers without
 * ranges; and no secret reaches the log or the store. */
#include "registry/guard.h"
#include "registry/registry-private.h"
#include "tests/unit/registry-liar.h"

/* The headers that name a version are in l->data. */
static bool answer_file(struct liar *l, int fd, const char *req, int nth)
{
	const char *headers = __atomic_load_n(&l->data, __ATOMIC_SEQ_CST);
	char all[512];

	(void)nth;
	(void)snprintf(all, sizeof(all), "Accept-Ranges: bytes\r\n%s",
		       headers ? headers : "");
	return reply_range_with(fd, req, all);
}

static const char *url_of(const struct liar *l, const char *rest)
{
	static char url[512];

	(void)snprintf(url, sizeof(url), "http://%s/%s", l->host, rest);
	return url;
}

static void set_version(struct liar *l, const char *headers)
{
	__atomic_store_n(&l->data, headers, __ATOMIC_SEQ_CST);
}

static void test_file(void)
{
	struct reg_rig g = {.cfg = {.tag_fresh_ms = 3600000}};
	struct string_list origins = {0};
	struct blob *b, *c;
	struct liar l;

	liar_start(&l, answer_file);
	set_version(&l, "ETag: \"v1\"\r\n");
	rig_open(&g);
	EQ(rig_url(&g, url_of(&l, "d/f?X-Amz-Signature=s3cr3t"), &b), 0);
	EQ(blob_size(b), CONTENT_SIZE);
	EQ(blob_key(b)->kind, BLOB_URL);
	EQ(liar_count(&l, "HEAD /d/f?X-Amz-Signature=s3cr3t "), 1);
	EQ(liar_count(&l, ""), 1);
	EQ(blob_origins(b, &origins), 0);
	EQ(origins.n, 1);
	STREQ(origins.v[0], url_of(&l, "d/f"));
	string_list_release(&origins);
	EQ(rig_range(&g, b, 10, 100, content, NULL), 0);
	EQ(liar_count(&l, "GET /d/f?X-Amz-Signature=s3cr3t "), 1);
	EQ(liar_saw(&l, "\r\nIf-Match: \"v1\"\r\n"), 1);
	/* The answer is kept for a while. */
	EQ(rig_url(&g, url_of(&l, "d/f?X-Amz-Signature=s3cr3t"), &c), 0);
	OK(c == b);
	EQ(liar_count(&l, ""), 2);
	blob_unref(&c);
	/* A newer signature: the same blob, fetched with that. */
	EQ(rig_url(&g, url_of(&l, "d/f?X-Amz-Signature=newer"), &c), 0);
	OK(digest_equal(&blob_key(c)->id, &blob_key(b)->id));
	EQ(rig_range(&g, c, 0, 10, content, NULL), 0);
	EQ(liar_count(&l, "GET /d/f?X-Amz-Signature=newer "), 1);
	blob_unref(&c);
	/* Another file is another blob, even with the same version. */
	EQ(rig_url(&g, url_of(&l, "d/g"), &c), 0);
	OK(!digest_equal(&blob_key(c)->id, &blob_key(b)->id));
	blob_unref(&c);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

static void new_version(struct reg_rig *g, struct liar *l, const char *headers,
			struct digest *ret)
{
	struct blob *b = NULL;

	set_version(l, headers);
	EQ(rig_url(g, url_of(l, "f"), &b), 0);
	if (!b)
		BAIL("no blob");
	*ret = blob_key(b)->id;
	blob_unref(&b);
}

static void test_versions(void)
{
	static const char *const v[] = {
		"ETag: \"v1\"\r\n",
		"ETag: \"v2\"\r\n",
		"Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n",
		"Last-Modified: Mon, 01 Jan 2024 00:00:01 GMT\r\n",
		"ETag: W/\"v1\"\r\n",
		("ETag: W/\"v1\"\r\n"
		 "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n"),
	};
	struct digest id[ARRAY_SIZE(v)], again;
	struct reg_rig g = {0};
	struct liar l;

	liar_start(&l, answer_file);
	rig_open(&g);
	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		new_version(&g, &l, v[i], &id[i]);
		for (size_t j = 0; j < i; j++)
			OK(!digest_equal(&id[i], &id[j]));
	}
	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		new_version(&g, &l, v[i], &again);
		OK(digest_equal(&id[i], &again));
	}
	/* A strong ETag is enough. */
	new_version(&g, &l,
		    "ETag: \"v1\"\r\n"
		    "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n",
		    &again);
	OK(digest_equal(&id[0], &again));
	/* Without a validator, two answers never count as the same file. */
	new_version(&g, &l, "", &id[0]);
	new_version(&g, &l, "", &again);
	OK(!digest_equal(&id[0], &again));
	rig_close(&g);
	liar_stop(&l);
}

static struct digest id_of(const char *query)
{
	struct digest id;

	OK(url_version_id("http://h/f", query, "\"v\"", NULL, 10, &id));
	return id;
}

/* Parameters of a signature do not name another file, if there is one; any
 * other parameter does. */
static void test_signed_names(void)
{
	static const struct {
		const char *a, *b;
		bool same;
	} pairs[] = {
		{"sig=1&st=2&se=3", "se=5&sig=4", true},
		{"st=1", "st=2", false},
		{"d=1&sig=1&sv=1", "d=1&sig=2&sv=2", true},
		{"d=1&sig=1", "d=2&sig=1", false},
		{"Expires=1&Signature=1&Key-Pair-Id=1", "Signature=2", true},
		{"Policy=1", "Policy=2", false},
		{"X-Amz-Date=1&X-Amz-Signature=1", "X-Amz-Signature=2", true},
		{"X-Amz-Date=1", "X-Amz-Date=2", false},
		{"X-Goog-Date=1&x-goog-signature=1", "X-Goog-Signature=2",
		 true},
		{"Signature=1&sp=1", "Signature=1&sp=2", false},
		{"token=1", "token=2", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct digest a = id_of(pairs[i].a), b = id_of(pairs[i].b);

		EQ(digest_equal(&a, &b), pairs[i].same);
	}
}

/* A file that changes under a reader: no byte of the new file is taken for one
 * of the old, even after a restart; then it is looked up again. */
static void test_changed(void)
{
	struct reg_rig g = {.cfg = {.tag_fresh_ms = 3600000}};
	struct range w = {0};
	struct blob *b, *c;
	struct liar l;

	liar_start(&l, answer_file);
	set_version(&l, "ETag: \"v1\"\r\n");
	rig_open(&g);
	EQ(rig_url(&g, url_of(&l, "f"), &b), 0);
	EQ(rig_range(&g, b, 0, 10, content, NULL), 0);
	rig_restart_registry(&g);
	EQ(rig_range(&g, b, 10, 10, content, NULL), 0);
	EQ(rig_url(&g, url_of(&l, "f"), &c), 0);
	OK(c == b);
	blob_unref(&c);
	set_version(&l, "ETag: \"v2\"\r\n");
	EQ(rig_range(&g, b, 20, 10, NULL, &w), -ESTALE);
	EQ(rig_url(&g, url_of(&l, "f"), &c), 0);
	OK(!digest_equal(&blob_key(b)->id, &blob_key(c)->id));
	EQ(rig_range(&g, c, 20, 10, content, NULL), 0);
	blob_unref(&c);
	rig_restart_registry(&g);
	EQ(rig_range(&g, b, 20, 10, NULL, NULL), -ESTALE);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

static void test_unversioned(void)
{
	struct reg_rig g = {.cfg = {.tag_fresh_ms = 3600000}};
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_file);
	rig_open(&g);
	EQ(rig_url(&g, url_of(&l, "f"), &b), 0);
	EQ(rig_range(&g, b, 0, 10, content, NULL), 0);
	EQ(rig_range(&g, b, 990, 10, content, NULL), 0);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

/* ---- Difficult servers ---- */

static bool answer_whole(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)nth;
	return reply(fd, req, "200 OK", "ETag: \"x\"\r\n", content,
		     CONTENT_SIZE);
}

/* HEAD is not covered by the signature. */
static bool answer_get_only(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)nth;
	if (is(req, "HEAD "))
		return reply_text(fd, req, "403 Forbidden", "", "x");
	return reply_range_with(fd, req, "ETag: \"x\"\r\n");
}

static bool answer_status(struct liar *l, int fd, const char *req, int nth)
{
	(void)nth;
	return reply_text(fd, req, l->data, "", "x");
}

static bool answer_redirect(struct liar *l, int fd, const char *req, int nth)
{
	(void)nth;
	return redirect(fd, req, "http://%s/real?Signature=h1dden",
			l->other->host);
}

static int try_url(liar_answer *answer, const void *data, int *ret_asked)
{
	struct reg_rig g = {.cfg = {.meta_timeout_ms = 1500}};
	struct blob *b = NULL;
	struct liar l;
	int r;

	liar_start(&l, answer);
	l.data = data;
	if (answer != answer_status)
		g.cfg.meta_timeout_ms = 0;
	rig_open(&g);
	r = rig_url(&g, url_of(&l, "f?sig=1"), &b);
	if (r == 0) {
		EQ(blob_size(b), CONTENT_SIZE);
		EQ(rig_range(&g, b, 500, 500, content, NULL), 0);
	}
	blob_unref(&b);
	rig_close(&g);
	*ret_asked = liar_count(&l, "");
	liar_stop(&l);
	return r;
}

static void test_servers(void)
{
	int n;

	EQ(try_url(answer_whole, NULL, &n), -EOPNOTSUPP);
	EQ(n, 2);
	EQ(try_url(answer_get_only, NULL, &n), 0);
	EQ(n, 3);
	EQ(try_url(answer_status, "404 Not Found", &n), -ENOENT);
	EQ(n, 1);
	EQ(try_url(answer_status, "403 Forbidden", &n), -EACCES);
	EQ(n, 2);
	EQ(try_url(answer_status, "401 Unauthorized", &n), -EACCES);
	EQ(try_url(answer_status, "500 Oops", &n), -EHOSTUNREACH);
}

static void test_redirected(void)
{
	struct reg_rig g = {0};
	struct liar l, other;
	struct blob *b;

	liar_start(&l, answer_redirect);
	liar_start(&other, answer_file);
	l.other = &other;
	set_version(&other, "ETag: \"v1\"\r\n");
	rig_open(&g);
	EQ(rig_url(&g, url_of(&l, "f"), &b), 0);
	for (int i = 0; i < 5; i++)
		EQ(rig_range(&g, b, 0, 10, content, NULL), 0);
	EQ(liar_count(&l, ""), 2); /* HEAD, and the first GET */
	EQ(liar_count(&other, ""), 6);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
	liar_stop(&other);
}

/* After a restart it is not known which credential found it. */
static void test_forgotten(void)
{
	static const struct guard guard;
	struct blob_key key = {.kind = BLOB_URL};
	struct reg_rig g = {.cfg = {.guard = &guard}};
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_file);
	rig_open(&g);
	EQ(store_create(g.store, &key, CONTENT_SIZE, &b), 0);
	EQ(blob_add_origin(g.store, b, url_of(&l, "f")), 0);
	OK(rig_range(&g, b, 0, 10, content, NULL) < 0);
	EQ(liar_count(&l, ""), 0);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

static void test_bad_urls(void)
{
	static const char *const bad[] = {
		"",
		"f",
		"ftp://127.0.0.1/f",
		"http://",
		"http://u:p@h/f",
		"http://h/a b",
		"http://h/\x01",
	};
	struct reg_rig g = {0};
	struct blob *b;
	char s[5000];

	rig_open(&g);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		EQ(rig_url(&g, bad[i], &b), -ENOENT);
	memset(s, 'a', sizeof(s) - 1);
	memcpy(s, "http://127.0.0.1/", 17);
	s[sizeof(s) - 1] = '\0';
	EQ(rig_url(&g, s, &b), -ENOENT);
	rig_close(&g);
}

/* ---- The server goes away ---- */

static void test_unreachable(void)
{
	struct reg_rig g = {0};
	char same[512], other[512], fresh[512];
	struct blob *b, *c;
	struct liar l;

	liar_start(&l, answer_file);
	set_version(&l, "ETag: \"v1\"\r\n");
	(void)snprintf(same, sizeof(same), "%s", url_of(&l, "f?id=1"));
	(void)snprintf(fresh, sizeof(fresh), "%s", url_of(&l, "f?id=1&sig=b"));
	(void)snprintf(other, sizeof(other), "%s", url_of(&l, "f?id=2&sig=a"));
	rig_open(&g);
	EQ(rig_url(&g, same, &b), 0);
	/* The client's connections must go before the server can. */
	registry_free(&g.registry);
	http_client_free(&g.client);
	(void)uv_run(loop_uv(g.loop), UV_RUN_NOWAIT);
	liar_stop(&l);
	if (http_client_new(g.loop, &(struct http_client_config){0},
			    &g.client) < 0)
		BAIL("http_client_new");
	rig_restart_registry(&g);
	EQ(rig_url(&g, same, &c), 0);
	OK(c == b);
	blob_unref(&c);
	/* Nobody can say whether this signature is good. */
	EQ(rig_url(&g, fresh, &c), -EHOSTUNREACH);
	/* Another thing by the same name. */
	EQ(rig_url(&g, other, &c), -EHOSTUNREACH);
	blob_unref(&b);
	rig_close(&g);
}

/* ---- Secrets ---- */

static bool file_has(const char *path, const char *text)
{
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEANUP(freep) char *data = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return false;
	data = malloc((size_t)st.st_size + 1);
	if (!data || read(fd, data, (size_t)st.st_size) != st.st_size)
		return false;
	return memmem(data, (size_t)st.st_size, text, strlen(text)) != NULL;
}

static const char *leak; /* look_for_leak() searches for these */
static int leaks;

static int look_for_leak(const char *path, const struct stat *st, int flag,
			 struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if (flag == FTW_F && !strstr(path, "docker.json") &&
	    file_has(path, leak)) {
		printf("# \"%s\" is in %s\n", leak, path);
		leaks++;
	}
	return 0;
}

static void test_no_leaks(void)
{
	static const char *const secrets[] = {"h1dden", "s3cr3t", "czNjcjN0",
					      "cGFzc3dvcmQ"};
	struct reg_rig g = {0};
	struct liar l, other;
	char path[300];
	struct blob *b = NULL;
	int fd;

	liar_start(&l, answer_redirect);
	liar_start(&other, answer_file);
	l.other = &other;
	set_version(&other, "ETag: \"v1\"\r\n");
	rig_open(&g);
	(void)snprintf(path, sizeof(path), "%s/log", g.dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	log_set_fd(fd);
	rig_config(&g, path, sizeof(path), l.host,
		   "\"auth\":\"dXNlcjpwYXNzd29yZA==\"");
	rig_restart_registry(&g);
	EQ(rig_url(&g, url_of(&l, "f?sig=s3cr3t"), &b), 0);
	EQ(rig_range(&g, b, 0, 10, content, NULL), 0);
	set_version(&other, "ETag: \"v2\"\r\n");
	EQ(rig_range(&g, b, 0, 10, NULL, NULL), -ESTALE);
	blob_unref(&b);
	other.answer = answer_status;
	set_version(&other, "403 Forbidden");
	EQ(rig_url(&g, url_of(&l, "f?sig=s3cr3t"), &b), -EACCES);
	EQ(rig_manifest(&g, l.host, "a/b", "v1", NULL), -EACCES);
	EQ(store_sync(g.store), 0);
	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++) {
		leak = secrets[i];
		(void)nftw(g.dir, look_for_leak, 16, FTW_PHYS);
	}
	EQ(leaks, 0);
	(void)snprintf(path, sizeof(path), "%s/log", g.dir);
	OK(file_has(path, "refuses access")); /* something was logged */
	log_set_fd(-1);
	(void)close(fd);
	rig_close(&g);
	liar_stop(&l);
	liar_stop(&other);
}

int main(void)
{
	rig_log();
	content_init();
	RUN(test_file);
	RUN(test_versions);
	RUN(test_signed_names);
	RUN(test_changed);
	RUN(test_unversioned);
	RUN(test_servers);
	RUN(test_redirected);
	RUN(test_forgotten);
	RUN(test_bad_urls);
	RUN(test_unreachable);
	RUN(test_no_leaks);
	return tap_done();
}
