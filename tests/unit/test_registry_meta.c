/* Manifests, tags, blob sizes, logins and plain files from servers that lie,
 * refuse and change their minds. */
#include "tests/unit/registry-liar.h"

/* alice:s3cret */
#define BASIC	 "YWxpY2U6czNjcmV0"
#define OCI_TYPE "application/vnd.oci.image.manifest.v1+json"
#define EMPTY_IMAGE                                                            \
	"{\"schemaVersion\":2,\"mediaType\":\"" OCI_TYPE "\","                 \
	"\"layers\":[]}"

/* ---- Tokens ---- */

/* A registry whose token server is itself or l->other. The valid token is
 * "tok-<state>"; l->data has the other members of the token's answer. */
static bool answer_with_token(struct liar *l, int fd, const char *req, int nth)
{
	int state = __atomic_load_n(&l->state, __ATOMIC_SEQ_CST);
	char want[64], body[256], header[256];

	(void)nth;
	if (has(req, " /token")) {
		(void)snprintf(body, sizeof(body), "{\"token\":\"tok-%d\"%s}",
			       state, l->data ? (const char *)l->data : "");
		return reply_text(fd, req, "200 OK", "", body);
	}
	(void)snprintf(want, sizeof(want), "\r\nAuthorization: Bearer tok-%d\r",
		       state);
	if (!has(req, want)) {
		(void)snprintf(header, sizeof(header),
			       "WWW-Authenticate: Bearer realm=\"http://%s"
			       "/token\",service=\"ser vice\","
			       "scope=\"repository:a/b:pull\"\r\n",
			       l->other ? l->other->host : l->host);
		return reply_text(fd, req, "401 Unauthorized", header, "{}");
	}
	if (has(req, "/manifests/"))
		return reply_text(fd, req, "200 OK",
				  "Content-Type: " OCI_TYPE "\r\n",
				  EMPTY_IMAGE);
	return reply_range(fd, req);
}

/* One round trip for a range as soon as the token is known; one token for all
 * parallel requests. */
static void test_token(void)
{
	struct got_manifest m[6] = {0};
	struct reg_rig g = {0};
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_with_token);
	rig_open(&g);
	for (int i = 0; i < 6; i++) {
		char tag[8];

		(void)snprintf(tag, sizeof(tag), "t%d", i);
		start_manifest(&g, l.host, "a/b", tag, &m[i]);
	}
	rig_wait(&g);
	for (int i = 0; i < 6; i++) {
		EQ(m[i].r, 0);
		free(m[i].bytes);
	}
	EQ(liar_count(&l, "GET /token?service=ser%20vice&"
			  "scope=repository:a/b:pull "),
	   1);
	EQ(liar_count(&l, "GET /token"), 1);
	b = content_blob(&g, l.host);
	EQ(rig_range(&g, b, 0, 100, content, NULL), 0);
	EQ(rig_range(&g, b, 100, 100, content, NULL), 0);
	EQ(liar_count(&l, "GET /v2/a/b/blobs/"), 2);
	EQ(liar_count(&l, "GET /token"), 1);
	EQ(liar_saw(&l, "Authorization: Basic"), 0);
	/* The token is revoked: dropped at the 401, and another one is fetched.
	 */
	__atomic_store_n(&l.state, 1, __ATOMIC_SEQ_CST);
	EQ(rig_range(&g, b, 200, 100, content, NULL), 0);
	EQ(liar_count(&l, "GET /token"), 2);
	EQ(liar_count(&l, "GET /v2/a/b/blobs/"), 4);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

/* With credentials, and a token that lives for a second only. */
static void test_token_with_login(void)
{
	const struct timespec pause = {.tv_nsec = 10000000};
	uint64_t start;
	struct reg_rig g = {0};
	struct blob *b;
	char path[300];
	struct liar l;

	liar_start(&l, answer_with_token);
	l.data = ",\"expires_in\":1";
	rig_open(&g);
	rig_config(&g, path, sizeof(path), l.host, "\"auth\":\"" BASIC "\"");
	rig_restart_registry(&g);
	b = content_blob(&g, l.host);
	EQ(rig_range(&g, b, 0, 100, content, NULL), 0);
	EQ(liar_count(&l, "GET /token?service=ser%20vice&"
			  "scope=repository:a/b:pull&account=alice "),
	   1);
	EQ(liar_saw(&l, "Authorization: Basic " BASIC), 1);
	for (start = now_ms(); now_ms() < start + 1000;)
		(void)nanosleep(&pause, NULL);
	EQ(rig_range(&g, b, 0, 100, content, NULL), 0);
	EQ(liar_count(&l, "GET /token"), 2);
	EQ(liar_count(&l, "GET /v2/a/b/blobs/"), 3); /* no second 401 */
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

/* A plain registry may name a token server elsewhere, but our credentials do
 * not go there. */
static void test_token_elsewhere(void)
{
	char path[300], elsewhere[64];
	struct reg_rig g = {0};
	struct liar l, other;
	struct blob *b;

	liar_start(&l, answer_with_token);
	liar_start(&other, answer_with_token);
	(void)snprintf(elsewhere, sizeof(elsewhere), "localhost:%s",
		       strchr(other.host, ':') + 1);
	other.host = elsewhere;
	l.other = &other;
	rig_open(&g);
	rig_config(&g, path, sizeof(path), l.host, "\"auth\":\"" BASIC "\"");
	rig_restart_registry(&g);
	b = content_blob(&g, l.host);
	EQ(rig_range(&g, b, 0, 100, content, NULL), 0);
	EQ(liar_count(&other, "GET /token"), 1);
	EQ(liar_saw(&other, "Authorization"), 0);
	EQ(liar_saw(&other, "alice"), 0);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
	liar_stop(&other);
}

static void test_identity_token(void)
{
	struct reg_rig g = {0};
	struct blob *b;
	char path[300];
	struct liar l;

	liar_start(&l, answer_with_token);
	rig_open(&g);
	rig_config(&g, path, sizeof(path), l.host,
		   "\"identitytoken\":\"re fresh&x\"");
	rig_restart_registry(&g);
	b = content_blob(&g, l.host);
	EQ(rig_range(&g, b, 0, 100, content, NULL), 0);
	EQ(liar_count(&l, "POST /token HTTP/1.1"), 1);
	EQ(liar_saw(&l, "\r\n\r\ngrant_type=refresh_token&client_id=peerd&"
			"service=ser%20vice&scope=repository:a/b:pull&"
			"refresh_token=re%20fresh%26x"),
	   1);
	/* A token that must be used unchanged. */
	rig_config(&g, path, sizeof(path), l.host,
		   "\"registrytoken\":\"tok-0\"");
	rig_restart_registry(&g);
	EQ(rig_range(&g, b, 0, 100, content, NULL), 0);
	EQ(liar_count(&l, "POST /token"), 1);
	blob_unref(&b);
	rig_close(&g);
	liar_stop(&l);
}

/* The status of /token is in l->data, its body too. */
static bool answer_bad_token(struct liar *l, int fd, const char *req, int nth)
{
	const char *const *d = l->data;

	if (has(req, "GET /token"))
		return reply_text(fd, req, d[0], "", d[1]);
	l->data = NULL;
	(void)answer_with_token(l, fd, req, nth);
	l->data = d;
	return true;
}

static void test_bad_tokens(void)
{
	static const struct {
		const char *d[2];
		int r;
	} t[] = {
		{{"401 Unauthorized", "{}"}, -EACCES},
		{{"400 Bad Request", "{}"}, -EACCES},
		{{"404 Not Found", "{}"}, -EACCES},
		{{"200 OK", "{"}, -EBADMSG},
		{{"200 OK", "{\"token\":\"a\\nb\"}"}, -EBADMSG},
		/* The registry refuses the token: one retry, then no more. */
		{{"200 OK", "{\"token\":\"wrong\"}"}, -EACCES},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct reg_rig g = {0};
		struct range w = {0};
		struct blob *b;
		struct liar l;

		liar_start(&l, answer_bad_token);
		l.data = t[i].d;
		rig_open(&g);
		b = content_blob(&g, l.host);
		EQ(rig_range(&g, b, 0, 100, NULL, &w), t[i].r);
		EQ(rig_manifest(&g, l.host, "a/b", "v1", NULL), t[i].r);
		OK(liar_count(&l, "") <= 8);
		blob_unref(&b);
		rig_close(&g);
		liar_stop(&l);
	}
}

/* ---- Manifests ---- */

struct doc {
	const char *status, *headers, *body;
};

static bool answer_doc(struct liar *l, int fd, const char *req, int nth)
{
	const struct doc *d = __atomic_load_n(&l->data, __ATOMIC_SEQ_CST);

	(void)nth;
	return reply_text(fd, req, d->status, d->headers, d->body);
}

static bool answer_huge(struct liar *l, int fd, const char *req, int nth)
{
	static char zeros[65536];

	(void)nth;
	if (l->state == 0) {
		(void)server_say(fd, "HTTP/1.1 200 OK\r\n"
				     "Content-Length: 99999999999\r\n\r\n{");
		server_stall(fd);
		return false;
	}
	(void)req;
	(void)server_say(fd, "HTTP/1.1 200 OK\r\n\r\n");
	while (server_send(fd, zeros, sizeof(zeros)))
		;
	return false;
}

static void test_bad_manifests(void)
{
	static const struct {
		struct doc d;
		int r;
	} t[] = {
		{{"200 OK", "", "{"}, -EBADMSG},
		{{"200 OK", "", ""}, -EBADMSG},
		{{"200 OK", "Content-Type: text/html\r\n", "<html>Login"},
		 -EBADMSG},
		{{"200 OK",
		  "Docker-Content-Digest: sha256:0000000000000000000000000000"
		  "000000000000000000000000000000000000\r\n",
		  EMPTY_IMAGE},
		 -EBADMSG},
		{{"200 OK", "Docker-Content-Digest: sha512:00\r\n",
		  EMPTY_IMAGE},
		 0},
		{{"500 Oops", "", "x"}, -EHOSTUNREACH},
		{{"404 Not Found", "", "x"}, -ENOENT},
		{{"403 Forbidden", "", "x"}, -EACCES},
	};
	struct got_tags tags;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct reg_rig g = {.cfg = {.meta_timeout_ms = 1500}};
		struct liar l;

		liar_start(&l, answer_doc);
		l.data = &t[i].d;
		if (t[i].r != -EHOSTUNREACH)
			g.cfg.meta_timeout_ms = 0;
		rig_open(&g);
		EQ(rig_manifest(&g, l.host, "a/b", "v1", NULL), t[i].r);
		rig_close(&g);
		liar_stop(&l);
	}
	for (int i = 0; i < 2; i++) {
		struct reg_rig g = {0};
		struct liar l;

		liar_start(&l, answer_huge);
		l.state = i;
		rig_open(&g);
		EQ(rig_manifest(&g, l.host, "a/b", "v1", NULL), -EBADMSG);
		EQ(rig_tags(&g, l.host, "a/b", &tags), -EBADMSG);
		rig_close(&g);
		liar_stop(&l);
	}
}

/* By digest: bytes that do not match are neither taken nor kept. Bytes that
 * match are, even if they are not a manifest. */
static void test_manifest_digest(void)
{
	static const struct doc wrong = {
		"200 OK", "Content-Type: " OCI_TYPE "\r\n", EMPTY_IMAGE " "};
	static const struct doc odd = {
		"200 OK", "Content-Type: text/html; charset=x\r\n", "<html>"};
	struct got_manifest m = {0};
	struct reg_rig g = {0};
	char d[DIGEST_STR_SIZE];
	struct digest digest;
	struct liar l;

	liar_start(&l, answer_doc);
	rig_open(&g);
	l.data = &wrong;
	digest_of(EMPTY_IMAGE, strlen(EMPTY_IMAGE), &digest);
	digest_str(&digest, d);
	EQ(rig_manifest(&g, l.host, "a/b", d, NULL), -EBADMSG);
	EQ(rig_manifest(&g, l.host, "a/b", d, NULL), -EBADMSG);
	EQ(liar_count(&l, ""), 2);
	__atomic_store_n(&l.data, &odd, __ATOMIC_SEQ_CST);
	digest_of(odd.body, strlen(odd.body), &digest);
	EQ(rig_manifest(&g, l.host, "a/b", digest_str(&digest, d), &m), 0);
	OK(!m.parsed);
	STREQ(m.bytes, "<html>");
	STREQ(m.type, "text/html");
	EQ(rig_manifest(&g, l.host, "a/b", d, &m), 0);
	EQ(liar_count(&l, ""), 3); /* from the store */
	free(m.bytes);
	rig_close(&g);
	liar_stop(&l);
}

static bool answer_flaky(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	if (nth == 0)
		return reply_text(fd, req, "503 Busy", "", "x");
	if (nth == 1)
		return false; /* closes without an answer */
	return reply_text(fd, req, "200 OK", "", EMPTY_IMAGE);
}

/* Retried within the deadline; equal requests are merged. */
static void test_retries(void)
{
	struct got_manifest m[5] = {0};
	struct reg_rig g = {0};
	struct liar l;

	liar_start(&l, answer_flaky);
	rig_open(&g);
	for (int i = 0; i < 5; i++)
		start_manifest(&g, l.host, "a/b", "v1", &m[i]);
	rig_wait(&g);
	for (int i = 0; i < 5; i++) {
		EQ(m[i].r, 0);
		EQ(m[i].calls, 1);
		free(m[i].bytes);
	}
	/* curl itself repeats a request on a connection that died. */
	OK(liar_count(&l, "") >= 3 && liar_count(&l, "") <= 4);
	rig_close(&g);
	liar_stop(&l);
}

static void test_no_is_remembered(void)
{
	static const struct doc none = {"404 Not Found", "", "x"};
	struct reg_rig g = {.cfg = {.negative_ms = 3600000}};
	struct got_tags t;
	struct digest d = {{5}};
	struct blob *b;
	struct liar l;

	liar_start(&l, answer_doc);
	l.data = &none;
	rig_open(&g);
	for (int i = 0; i < 3; i++) {
		EQ(rig_manifest(&g, l.host, "a/b", "v1", NULL), -ENOENT);
		EQ(rig_tags(&g, l.host, "a/b", &t), -ENOENT);
		EQ(rig_blob(&g, l.host, "a/b", &d, &b), -ENOENT);
	}
	EQ(liar_count(&l, ""), 3);
	rig_close(&g);
	liar_stop(&l);
}

/* What upstream says once the request ends that a stale answer has left in the
 * background. */
static int fresh_manifest(struct reg_rig *g, const char *host)
{
	struct got_manifest m = {.stale = true};
	int r = 0;

	for (int i = 0; i < 1000 && r == 0 && m.stale; i++) {
		r = rig_manifest(g, host, "a/b", "v1", &m);
		(void)usleep(10000);
	}
	free(m.bytes);
	return r;
}

/* HEAD confirms a tag that is known; a tag that is gone is forgotten, and not
 * served when upstream fails later. */
static void test_tag_confirmed(void)
{
	static const struct doc here = {"200 OK", "", EMPTY_IMAGE};
	static const struct doc gone = {
		"404 Not Found", "Content-Type: application/json\r\n", "{}"};
	static const struct doc proxys = {"404 Not Found",
					  "Content-Type: text/html\r\n", "x"};
	static const struct doc down = {"502 Bad Gateway", "", "x"};
	struct reg_rig g = {.cfg = {.meta_timeout_ms = 1500}};
	struct got_manifest m = {0};
	char header[256], d[DIGEST_STR_SIZE];
	struct digest digest;
	struct doc with_digest = here;
	struct liar l;

	digest_of(EMPTY_IMAGE, strlen(EMPTY_IMAGE), &digest);
	(void)snprintf(header, sizeof(header), "Docker-Content-Digest: %s\r\n",
		       digest_str(&digest, d));
	with_digest.headers = header;
	liar_start(&l, answer_doc);
	l.data = &with_digest;
	rig_open(&g);
	EQ(rig_manifest(&g, l.host, "a/b", "v1", NULL), 0);
	EQ(rig_manifest(&g, l.host, "a/b", "v1", &m), 0);
	OK(!m.stale);
	EQ(liar_count(&l, "GET "), 1);
	EQ(liar_count(&l, "HEAD "), 1);
	/* A HEAD without a digest is no answer. */
	__atomic_store_n(&l.data, &here, __ATOMIC_SEQ_CST);
	EQ(rig_manifest(&g, l.host, "a/b", "v1", &m), 0);
	EQ(liar_count(&l, "GET "), 2);
	__atomic_store_n(&l.data, &down, __ATOMIC_SEQ_CST);
	EQ(rig_manifest(&g, l.host, "a/b", "v1", &m), 0);
	OK(m.stale);
	STREQ(m.bytes, EMPTY_IMAGE);
	/* A 404 that is not a registry's does not make it forgotten. */
	__atomic_store_n(&l.data, &proxys, __ATOMIC_SEQ_CST);
	EQ(fresh_manifest(&g, l.host), -ENOENT);
	__atomic_store_n(&l.data, &down, __ATOMIC_SEQ_CST);
	EQ(rig_manifest(&g, l.host, "a/b", "v1", &m), 0);
	OK(m.stale);
	__atomic_store_n(&l.data, &gone, __ATOMIC_SEQ_CST);
	EQ(fresh_manifest(&g, l.host), -ENOENT);
	__atomic_store_n(&l.data, &down, __ATOMIC_SEQ_CST);
	EQ(fresh_manifest(&g, l.host), -EHOSTUNREACH);
	free(m.bytes);
	rig_close(&g);
	liar_stop(&l);
}

/* ---- Tags ---- */

static bool answer_pages(struct liar *l, int fd, const char *req, int nth)
{
	char link[256];

	(void)nth;
	if (has(req, "last=b")) {
		/* To another server: not followed. */
		(void)snprintf(link, sizeof(link),
			       "Link: <http://%s/x>; rel=\"next\"\r\n",
			       l->other->host);
		return reply_text(fd, req, "200 OK", link,
				  "{\"tags\":[\"a\",\"c\",\"../x\",7]}");
	}
	if (has(req, "last=m"))
		return reply_text(fd, req, "200 OK",
				  "Link: <list?n=1000&last=b>; rel=next\r\n",
				  "{\"tags\":null}");
	return reply_text(fd, req, "200 OK",
			  "Link: </v2/a/b/tags/list?n=1000&last=m>; "
			  "rel=\"next\"\r\n",
			  "{\"name\":\"a/b\",\"tags\":[\"m\",\"b\",\"m\"]}");
}

static void test_tag_pages(void)
{
	struct reg_rig g = {0};
	struct got_tags t;
	struct liar l, other;

	liar_start(&l, answer_pages);
	liar_start(&other, answer_pages);
	l.other = &other;
	rig_open(&g);
	EQ(rig_tags(&g, l.host, "a/b", &t), 0);
	STREQ(t.text, "a b c m");
	EQ(liar_count(&l, "GET /v2/a/b/tags/list?n=1000"), 3);
	EQ(liar_count(&other, ""), 0);
	rig_close(&g);
	liar_stop(&l);
	liar_stop(&other);
}

static bool answer_endless(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)nth;
	return reply_text(fd, req, "200 OK",
			  "Link: </v2/a/b/tags/list>; rel=\"next\"\r\n",
			  "{\"tags\":[\"a\"]}");
}

static void test_bad_tags(void)
{
	static const struct doc docs[] = {
		{"200 OK", "", "{"},
		{"200 OK", "", "[]"},
		{"200 OK", "", "{\"tags\":7}"},
		{"200 OK", "", "{}"},
		{"200 OK", "", "{\"tags\":[]} x"},
	};
	struct reg_rig g = {0};
	struct got_tags t;
	struct liar l;

	liar_start(&l, answer_doc);
	rig_open(&g);
	for (size_t i = 0; i < ARRAY_SIZE(docs); i++) {
		__atomic_store_n(&l.data, &docs[i], __ATOMIC_SEQ_CST);
		EQ(rig_tags(&g, l.host, "a/b", &t), -EBADMSG);
	}
	rig_close(&g);
	liar_stop(&l);

	g = (struct reg_rig){0};
	liar_start(&l, answer_endless);
	rig_open(&g);
	EQ(rig_tags(&g, l.host, "a/b", &t), 0);
	STREQ(t.text, "a");
	OK(liar_count(&l, "") <= 3);
	rig_close(&g);
	liar_stop(&l);
}

/* ---- Sizes of blobs ---- */

static bool answer_no_head(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)nth;
	if (is(req, "HEAD "))
		return reply_text(fd, req, "405 Method Not Allowed", "", "x");
	return reply_range(fd, req);
}

static bool answer_no_length(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)nth;
	if (is(req, "HEAD "))
		return server_say(fd, "HTTP/1.1 200 OK\r\n"
				      "Transfer-Encoding: chunked\r\n\r\n");
	return reply_text(fd, req, "416 No", "Content-Range: bytes */0\r\n",
			  "");
}

static bool answer_empty(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)nth;
	return reply_text(fd, req, "200 OK", "", "");
}

static void test_sizes(void)
{
	static const struct {
		liar_answer *answer;
		uint64_t size;
	} t[] = {
		{answer_no_head, CONTENT_SIZE},
		/* No other digest than that of no bytes is of no bytes. */
		{answer_no_length, 0},
		{answer_empty, 0},
	};
	struct digest d;

	digest_of(content, CONTENT_SIZE, &d);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct reg_rig g = {0};
		struct blob *b = NULL;
		struct liar l;

		liar_start(&l, t[i].answer);
		rig_open(&g);
		EQ(rig_blob(&g, l.host, "a/b", &d, &b),
		   t[i].size ? 0 : -EBADMSG);
		if (b)
			EQ(blob_size(b), t[i].size);
		blob_unref(&b);
		/* Now it is known. */
		EQ(rig_blob(&g, l.host, "a/b", &d, &b),
		   t[i].size ? 0 : -EBADMSG);
		OK(liar_count(&l, "") <= (t[i].size ? 2 : 4));
		blob_unref(&b);
		rig_close(&g);
		liar_stop(&l);
	}
}

int main(void)
{
	rig_log();
	content_init();
	RUN(test_token);
	RUN(test_token_with_login);
	RUN(test_token_elsewhere);
	RUN(test_identity_token);
	RUN(test_bad_tokens);
	RUN(test_bad_manifests);
	RUN(test_manifest_digest);
	RUN(test_retries);
	RUN(test_no_is_remembered);
	RUN(test_tag_confirmed);
	RUN(test_tag_pages);
	RUN(test_bad_tags);
	RUN(test_sizes);
	return tap_done();
}
