/* Credentials of clients: which ones are passed on, to which servers, and which
 * readers may use the results. */
#include "registry/guard.h"
#include "registry/client-auth.h"
#include "tests/unit/registry-liar.h"

#define GOOD "Bearer g00d.t0ken"
#define BAD  "Basic YmFkOnNlY3JldA=="

/* ---- Which credentials are passed on ---- */

static struct string_list allowed; /* what the rig's clients may ask for */
static const struct guard guard = {.allow = &allowed};

static struct client_auth *auth_new(const char *url, const char *value)
{
	CLEANUP(url_release) struct url u = {0};
	struct client_auth *a = NULL;

	if (url_parse(url, &u) < 0)
		BAIL("url_parse");
	EQ(client_auth_new(&u, value, &a), 0);
	return a;
}

static void test_values(void)
{
	static const char *const good[] = {"Basic YTpi", "bearer x", GOOD,
					   "BEARER a.b-c_d~e+f/g=="};
	static const char *const bad[] = {
		"",
		"Basic",
		"Basic ",
		"Basic  YTpi",
		"Basic YTpi ",
		" Basic YTpi",
		"Basic YTpi, Bearer x",
		"Basic YTpi,Bearer",
		"Bearer a\tb",
		"Bearer a\r\nX: y",
		"Bearer \xc3\xa4",
		"Bearerx y",
		"Negotiate YIIZ",
		"NTLM TlRM",
		"Digest username=\"a\"",
		"AWS4-HMAC-SHA256 Credential=x",
	};
	CLEANUP(url_release) struct url u = {0};
	CLEANUP(freep) char *long_one = malloc(CLIENT_AUTH_MAX_BYTES + 2);
	struct client_auth *a = NULL;

	EQ(url_parse("https://h/x", &u), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EQ(client_auth_new(&u, bad[i], &a), -EINVAL);
		OK(!a);
	}
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		EQ(client_auth_new(&u, good[i], &a), 0);
		STREQ(a->value, good[i]);
		client_auth_end(&a);
		OK(!a);
	}
	memset(long_one, 'x', CLIENT_AUTH_MAX_BYTES + 1);
	long_one[CLIENT_AUTH_MAX_BYTES + 1] = '\0';
	memcpy(long_one, "Bearer ", 7);
	EQ(client_auth_new(&u, long_one, &a), -EINVAL);
	long_one[CLIENT_AUTH_MAX_BYTES] = '\0';
	EQ(client_auth_new(&u, long_one, &a), 0);
	client_auth_end(&a);
	client_auth_end(&a);
}

static void test_identity(void)
{
	struct client_auth *v[] = {
		auth_new("https://h/x?q=1", GOOD),
		auth_new("https://h/x?q=1", BAD),
		auth_new("https://h/x", GOOD),
		auth_new("http://h/x", GOOD),
		auth_new("https://h:444/x", GOOD),
	};
	struct client_auth *again = auth_new("https://H:443/./x?q=1", GOOD);

	STREQ(again->origin, "https://h/x");
	STREQ(again->url, "https://h/x?q=1");
	STREQ(again->tag, v[0]->tag);
	OK(source_auth_same(&again->base, &v[0]->base));
	for (size_t i = 1; i < ARRAY_SIZE(v); i++)
		OK(!source_auth_same(&again->base, &v[i]->base));
	OK(!strstr(again->tag, "g00d"));
	EQ(again->base.until_ms, UINT64_MAX);
	client_auth_over(again);
	OK(again->base.until_ms <= now_ms() + CLIENT_AUTH_LINGER_MS);
	client_auth_end(&again);
	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		client_auth_end(&v[i]);
}

/* ---- Which servers get it ---- */

static const char *url_of(const struct liar *l, const char *rest)
{
	static char url[512];

	(void)snprintf(url, sizeof(url), "http://%s/%s", l->host, rest);
	return url;
}

/* Looks up a URL as the proxy does. The caller owns *ret, and a reference in
 * *ret_auth. */
static int ask(struct reg_rig *g, const struct liar *l, const char *rest,
	       const char *value, struct blob **ret,
	       struct client_auth **ret_auth)
{
	CLEANUP(url_release) struct url u = {0};
	const char *url = url_of(l, rest);
	struct got_blob w = {.g = g};

	*ret_auth = NULL;
	if (url_parse(url, &u) < 0 ||
	    (value && client_auth_new(&u, value, ret_auth) < 0))
		BAIL("client_auth_new");
	rig_begin(g);
	registry_get_url(g->registry, url,
			 *ret_auth ? &(*ret_auth)->base : NULL, on_blob, &w);
	rig_wait(g);
	EQ(w.calls, 1);
	*ret = w.b;
	return w.r;
}

/* Looks a blob up, reads it and drops the reference. */
static int fetch(struct reg_rig *g, const struct liar *l, const char *rest,
		 const char *value)
{
	struct client_auth *auth;
	struct blob *b;
	struct range w = {0};
	int r = ask(g, l, rest, value, &b, &auth);

	if (r == 0) {
		w.rq.auth = auth ? &auth->base : NULL;
		r = rig_range(g, b, 10, 100, content, &w);
	}
	blob_unref(&b);
	if (auth)
		EQ(auth->base.refs, 1);
	client_auth_end(&auth);
	return r;
}

static bool is_good(const char *req)
{
	return has(req, "\r\nAuthorization: " GOOD "\r\n");
}

/* A registry that delivers to requests with the token. It redirects /to-other
 * to another server, and /to-same to another path. */
static bool answer_private(struct liar *l, int fd, const char *req, int nth)
{
	(void)nth;
	if (!is_good(req))
		return reply_text(fd, req, "401 Unauthorized",
				  "WWW-Authenticate: Bearer realm=\"x\"\r\n",
				  "no");
	if (strstr(req, " /forbidden"))
		return reply_text(fd, req, "403 Forbidden", "", "no");
	if (strstr(req, " /to-same"))
		return redirect(fd, req, "/moved");
	if (strstr(req, " /to-other"))
		return redirect(fd, req, "http://%s/real?sig=h1dden",
				l->other->host);
	return reply_range_with(fd, req,
				"Accept-Ranges: bytes\r\nETag: \"v1\"\r\n");
}

static bool answer_public(struct liar *l, int fd, const char *req, int nth)
{
	(void)l;
	(void)nth;
	if (has(req, "\r\nAuthorization:"))
		return reply_text(fd, req, "400 Bad Request", "", "no");
	return reply_range_with(fd, req,
				"Accept-Ranges: bytes\r\nETag: \"v1\"\r\n");
}

static void open_all(struct reg_rig *g, struct liar *l, struct liar *other)
{
	liar_start(l, answer_private);
	liar_start(other, answer_public);
	l->other = other;
	EQ(string_list_add(&allowed, "127.0.0.1"), 0);
	rig_open(g);
}

static void close_all(struct reg_rig *g, struct liar *l, struct liar *other)
{
	rig_close(g);
	liar_stop(l);
	liar_stop(other);
	string_list_release(&allowed);
}

static void test_sent(void)
{
	struct reg_rig g = {.cfg = {.tag_fresh_ms = 3600000}};
	struct liar l, other;

	open_all(&g, &l, &other);
	EQ(fetch(&g, &l, "f?x=1", GOOD), 0);
	EQ(liar_count(&l, "HEAD /f?x=1 "), 1);
	EQ(liar_count(&l, "GET /f?x=1 "), 1);
	EQ(liar_saw(&l, GOOD), 2);
	/* The credential's own origin may redirect it. */
	EQ(fetch(&g, &l, "to-same", GOOD), 0);
	EQ(liar_count(&l, "GET /moved "), 1);
	EQ(liar_saw(&l, "Authorization"), liar_count(&l, ""));
	/* GET and HEAD are refused: no second attempt. */
	EQ(fetch(&g, &l, "forbidden", GOOD), -EACCES);
	close_all(&g, &l, &other);
}

static void test_not_to_others(void)
{
	struct reg_rig g = {.cfg = {.tag_fresh_ms = 3600000}};
	struct liar l, other;

	open_all(&g, &l, &other);
	for (int i = 0; i < 3; i++)
		EQ(fetch(&g, &l, "to-other", GOOD), 0);
	EQ(liar_saw(&other, "Authorization"), 0);
	EQ(liar_saw(&other, "sig=h1dden"), liar_count(&other, ""));
	EQ(liar_count(&other, ""), 4); /* HEAD, GETs */
	EQ(liar_count(&l, ""), 2);     /* the redirect is known then */
	/* But a client that could not have learnt it gets nothing. */
	EQ(fetch(&g, &l, "to-other", NULL), -EACCES);
	EQ(liar_count(&other, ""), 4);
	close_all(&g, &l, &other);
}

/* The same blob at another URL. */
static void test_other_origins(void)
{
	struct reg_rig g = {.cfg = {.negative_ms = 0}};
	struct client_auth *auth;
	struct range w = {0};
	struct liar l, other;
	struct blob *b;
	char path[100], hex[DIGEST_HEX_SIZE];
	struct blob_key key;
	struct digest d;

	open_all(&g, &l, &other);
	digest_of(content, CONTENT_SIZE, &d);
	(void)snprintf(path, sizeof(path), "sha256:%s", digest_hex(&d, hex));
	EQ(ask(&g, &other, path, NULL, &b, &auth), 0);
	blob_unref(&b);
	EQ(ask(&g, &l, path, GOOD, &b, &auth), 0);
	/* Its own origin first, then the other one without the credential. */
	w.rq.auth = &auth->base;
	EQ(rig_range(&g, b, 0, 10, content, &w), 0);
	EQ(liar_saw(&l, GOOD), 2);
	EQ(liar_count(&other, "GET "), 0);
	client_auth_end(&auth);
	blob_unref(&b);
	/* A refused credential does not keep the bytes from the client with the
	 * right one. */
	auth = auth_new(url_of(&l, path), BAD);
	key = (struct blob_key){.kind = BLOB_SHA256, .id = d};
	blob_key_claim(&key, url_of(&other, path), CONTENT_SIZE);
	EQ(store_get(g.store, &key, &b), 0);
	w.rq.auth = &auth->base;
	EQ(rig_range(&g, b, 0, 10, content, &w), 0);
	EQ(liar_saw(&l, BAD), 1);
	EQ(liar_count(&other, "GET "), 1);
	EQ(liar_saw(&other, "Authorization"), 0);
	client_auth_end(&auth);
	blob_unref(&b);
	close_all(&g, &l, &other);
}

/* ---- Which clients get the bytes ---- */

static void test_refusals(void)
{
	struct reg_rig g = {
		.cfg = {.tag_fresh_ms = 3600000, .negative_ms = 3600000}};
	struct client_auth *auth;
	struct range w = {0};
	struct liar l, other;
	struct blob *b;
	int n;

	open_all(&g, &l, &other);
	/* Without, with a bad and with a good credential, in any order, each
	 * client gets its own answer. */
	for (int i = 0; i < 3; i++) {
		EQ(fetch(&g, &l, "f", NULL), -EACCES);
		EQ(fetch(&g, &l, "f", BAD), -EKEYEXPIRED);
		EQ(fetch(&g, &l, "f", GOOD), 0);
	}
	/* Upstream was asked once for each "no". */
	EQ(liar_saw(&l, BAD), 1);
	EQ(liar_count(&l, "") - liar_saw(&l, "Authorization"), 1);
	/* The same for ranges. */
	EQ(ask(&g, &l, "f", GOOD, &b, &auth), 0);
	client_auth_end(&auth);
	EQ(rig_range(&g, b, 0, 10, NULL, NULL), -EACCES);
	auth = auth_new(url_of(&l, "f"), BAD);
	w.rq.auth = &auth->base;
	EQ(rig_range(&g, b, 0, 10, NULL, &w), -EKEYEXPIRED);
	client_auth_end(&auth);
	auth = auth_new(url_of(&l, "f"), GOOD);
	w.rq.auth = &auth->base;
	EQ(rig_range(&g, b, 0, 10, content, &w), 0);
	client_auth_end(&auth);
	/* A credential for another file is not sent for this one. */
	n = liar_count(&l, "GET /f");
	auth = auth_new(url_of(&l, "g"), GOOD);
	w.rq.auth = &auth->base;
	EQ(rig_range(&g, b, 0, 10, NULL, &w), -ESTALE);
	EQ(liar_count(&l, "GET /f"), n);
	client_auth_end(&auth);
	blob_unref(&b);
	close_all(&g, &l, &other);
}

/* A file without a digest that was looked up with a credential is not served to
 * clients without one while the server is down. */
static void test_unreachable(void)
{
	struct reg_rig g = {.cfg = {.meta_timeout_ms = 2000}};
	struct liar l, other;

	open_all(&g, &l, &other);
	EQ(fetch(&g, &l, "f", GOOD), 0);
	EQ(fetch(&g, &other, "f", NULL), 0);
	registry_free(&g.registry);
	http_client_free(&g.client);
	(void)uv_run(loop_uv(g.loop), UV_RUN_NOWAIT);
	server_stop(&l.server);
	server_stop(&other.server);
	if (http_client_new(g.loop, &(struct http_client_config){0},
			    &g.client) < 0)
		BAIL("http_client_new");
	rig_restart_registry(&g);
	for (int i = 0; i < 2; i++) {
		struct client_auth *auth;
		struct blob *b;

		EQ(ask(&g, &l, "f", i ? GOOD : NULL, &b, &auth), -EHOSTUNREACH);
		client_auth_end(&auth);
		EQ(ask(&g, &other, "f", NULL, &b, &auth), 0);
		blob_unref(&b);
	}
	rig_close(&g);
	string_list_release(&allowed);
	for (int i = 0; i < l.n; i++)
		free(l.reqs[i]);
	for (int i = 0; i < other.n; i++)
		free(other.reqs[i]);
}

/* Two lookups at a time, of which one is allowed. */
static void test_at_once(void)
{
	static const char *const values[] = {NULL, GOOD, BAD, GOOD};
	static const int want[] = {-EACCES, 0, -EKEYEXPIRED, 0};
	struct got_blob w[ARRAY_SIZE(values)];
	struct client_auth *auth[ARRAY_SIZE(values)] = {NULL};
	struct reg_rig g = {.cfg = {.guard = &guard}};
	struct liar l, other;

	open_all(&g, &l, &other);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		w[i] = (struct got_blob){.g = &g};
		if (values[i])
			auth[i] = auth_new(url_of(&l, "f"), values[i]);
		rig_begin(&g);
		registry_get_url(g.registry, url_of(&l, "f"),
				 auth[i] ? &auth[i]->base : NULL, on_blob,
				 &w[i]);
	}
	rig_wait(&g);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		EQ(w[i].r, want[i]);
		blob_unref(&w[i].b);
		if (auth[i])
			EQ(auth[i]->base.refs, 1);
		client_auth_end(&auth[i]);
	}
	EQ(liar_saw(&l, GOOD), 1);
	close_all(&g, &l, &other);
}

int main(void)
{
	rig_log();
	content_init();
	RUN(test_values);
	RUN(test_identity);
	RUN(test_sent);
	RUN(test_not_to_others);
	RUN(test_other_origins);
	RUN(test_refusals);
	RUN(test_unreachable);
	RUN(test_at_once);
	return tap_done();
}
