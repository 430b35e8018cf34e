#include "registry/auth.h"

#include <errno.h>

#include "registry/registry-private.h"
#include "tests/unit/tap.h"

static struct auth_config *config(const char *json)
{
	struct auth_config *c = NULL;
	struct error err = {""};

	EQ(auth_config_parse(json, strlen(json), &c, &err), 0);
	if (!c)
		BAIL(err.text);
	return c;
}

static void test_base64(void)
{
	static const struct {
		const char *in, *out;
	} good[] = {{"", ""},	     {"Zg==", "f"},	      {"Zm8=", "fo"},
		    {"Zm9v", "foo"}, {"Zm9vYg==", "foob"},    {"Zg", "f"},
		    {"Zm8", "fo"},   {"+/+/", "\xfb\xff\xbf"}};
	static const char *const bad[] = {
		"Z", "Zg=", "Zg===", "Zm9v=", "Z-==", "Zg==x", "Zm 9v", "===="};
	size_t len;
	char *s;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		s = NULL;
		EQ(auth_base64_decode(good[i].in, &s, &len), 0);
		STREQ(s, good[i].out);
		EQ(len, strlen(good[i].out));
		free(s);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		EQ(auth_base64_decode(bad[i], &s, &len), -EINVAL);
	s = auth_basic("Aladdin", "open sesame");
	STREQ(s, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
	free(s);
	s = auth_basic("", "");
	STREQ(s, "Basic Og==");
	free(s);
}

static void test_config(void)
{
	struct auth_config *c = config(
		"{\"auths\":{"
		"\"https://index.docker.io/v1/\":{\"auth\":\"dTpw\"},"
		"\"h.io:5000\":{\"username\":\"me\",\"password\":\"a:b\"},"
		"\"http://URL.example/v2/\":{\"auth\":\"dTpwOnE=\"},"
		"\"id.io\":{\"auth\":\"PHRva2VuPjo=\","
		"\"identitytoken\":\"refresh\"},"
		"\"reg.io\":{\"registrytoken\":\"abc\"},"
		"\"nul.io\":{\"auth\":\"dTpwAAA=\"},"
		"\"empty.io\":{},"
		"\"bad.io\":{\"auth\":\"!!\"},"
		"\"nocolon.io\":{\"auth\":\"dXA=\"},"
		"\"evil.io\":{\"registrytoken\":\"a\\r\\nb\"},"
		"\"part.io/team\":{\"auth\":\"dTpw\"},"
		"\"..\":{\"auth\":\"dTpw\"},"
		"\"x.io\":7},"
		"\"credsStore\":\"desktop\"}");
	const struct auth_creds *a;

	a = auth_config_find(c, "docker.io", "team/app");
	OK(a && a->user && strcmp(a->user, "u") == 0);
	STREQ(a->password, "p");
	a = auth_config_find(c, "h.io:5000", "team/app");
	STREQ(a->password, "a:b");
	a = auth_config_find(c, "url.example", "team/app");
	STREQ(a->password, "p:q");
	a = auth_config_find(c, "id.io", "team/app");
	STREQ(a->identity_token, "refresh");
	a = auth_config_find(c, "reg.io", "team/app");
	STREQ(a->registry_token, "abc");
	a = auth_config_find(c, "nul.io", "team/app");
	STREQ(a->password, "p");
	OK(!auth_config_find(c, "empty.io", "team/app"));
	OK(!auth_config_find(c, "bad.io", "team/app"));
	OK(!auth_config_find(c, "nocolon.io", "team/app"));
	OK(!auth_config_find(c, "evil.io", "team/app"));
	OK(auth_config_find(c, "part.io", "team/app"));
	OK(auth_config_find(c, "part.io", "team"));
	OK(!auth_config_find(c, "part.io", "team2/app"));
	OK(!auth_config_find(c, "part.io", "tea"));
	OK(!auth_config_find(c, "x.io", "team/app"));
	OK(!auth_config_find(c, "h.io", "team/app"));
	OK(!auth_config_find(NULL, "h.io", "team/app"));
	OK(auth_config_has_helpers(c));
	auth_config_free(&c);
	OK(!c);
}

/* An entry of the host wins over the older URL form, whatever their order. */
static void test_config_precedence(void)
{
	struct auth_config *c =
		config("{\"auths\":{\"a.io\":{\"auth\":\"dTpw\"},"
		       "\"https://a.io/v1/\":{\"auth\":\"eDp5\"},"
		       "\"https://b.io/v1/\":{\"auth\":\"eDp5\"},"
		       "\"b.io\":{\"auth\":\"dTpw\"}}}");

	STREQ(auth_config_find(c, "a.io", "team/app")->user, "u");
	STREQ(auth_config_find(c, "b.io", "team/app")->user, "u");
	OK(!auth_config_has_helpers(c));
	auth_config_free(&c);
}

/* containers-auth.json(5): the most specific key wins. */
static void test_config_namespaces(void)
{
	struct auth_config *c =
		config("{\"auths\":{\"a.io\":{\"auth\":\"MTpw\"},"
		       "\"a.io/team/app\":{\"auth\":\"Mzpw\"},"
		       "\"a.io/team\":{\"auth\":\"Mjpw\"},"
		       "\"docker.io/me\":{\"auth\":\"NTpw\"},"
		       "\"https://index.docker.io/v1/\":{\"auth\":\"NDpw\"},"
		       "\"b.io/TEAM\":{\"auth\":\"dTpw\"}}}");

	STREQ(auth_config_find(c, "a.io", "team/app")->user, "3");
	STREQ(auth_config_find(c, "a.io", "team/app/part")->user, "3");
	STREQ(auth_config_find(c, "a.io", "team/apple")->user, "2");
	STREQ(auth_config_find(c, "a.io", "teams/app")->user, "1");
	STREQ(auth_config_find(c, "docker.io", "me/x")->user, "5");
	STREQ(auth_config_find(c, "docker.io", "library/x")->user, "4");
	OK(!auth_config_find(c, "b.io", "team"));
	auth_config_free(&c);
}

static void test_bad_config(void)
{
	static const char *const bad[] = {"", "{", "[]", "7", "{\"a\":1}x"};
	struct auth_config *c = NULL;
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err.text[0] = '\0';
		EQ(auth_config_parse(bad[i], strlen(bad[i]), &c, &err),
		   -EINVAL);
		OK(err.text[0]);
	}
	c = config("{}");
	OK(!auth_config_find(c, "a", "team/app"));
	auth_config_free(&c);
	c = config("{\"auths\":[]}");
	auth_config_free(&c);
	EQ(auth_config_read("/nonexistent/config.json", &c, &err), -ENOENT);
}

static void expect(const char *value, enum auth_scheme scheme,
		   const char *realm, const char *service, const char *scope)
{
	struct auth_challenge c;
	int r = auth_challenge_parse(value, &c);

	if (r != 0)
		printf("# %s\n", value);
	EQ(r, 0);
	EQ(c.scheme, scheme);
	STREQ(c.realm ? c.realm : "-", realm);
	STREQ(c.service ? c.service : "-", service);
	STREQ(c.scope ? c.scope : "-", scope);
	auth_challenge_release(&c);
}

static void test_challenges(void)
{
	expect("Basic realm=\"x y\"", AUTH_BASIC, "x y", "-", "-");
	expect("basic", AUTH_BASIC, "-", "-", "-");
	expect("Bearer realm=\"https://a/t\",service=\"s\","
	       "scope=\"repository:a/b:pull,push\"",
	       AUTH_BEARER, "https://a/t", "s", "repository:a/b:pull,push");
	expect("BEARER Realm = https://a/t , Service=s", AUTH_BEARER,
	       "https://a/t", "s", "-");
	expect("Basic realm=\"b\", Bearer realm=\"r\"", AUTH_BEARER, "r", "-",
	       "-");
	expect("Bearer realm=\"r\", error=\"x\", Basic realm=\"b\"",
	       AUTH_BEARER, "r", "-", "-");
	expect("Negotiate abc==, Basic realm=\"b\"", AUTH_BASIC, "b", "-", "-");
	expect("Negotiate, Basic", AUTH_BASIC, "-", "-", "-");
	expect(", ,Bearer realm=\"a\\\"b\\\\c\"", AUTH_BEARER, "a\"b\\c", "-",
	       "-");
	/* A Bearer challenge without a realm is useless. */
	expect("Bearer service=\"s\", Basic realm=\"b\"", AUTH_BASIC, "b", "-",
	       "-");
	/* The first of equal parameters counts. */
	expect("Bearer realm=\"a\",realm=\"b\"", AUTH_BEARER, "a", "-", "-");
}

static void test_bad_challenges(void)
{
	static const char *const none[] = {
		"",   ",", "Negotiate", "Digest a=b", "Bearer service=\"s\"",
		"x y"};
	static const char *const malformed[] = {
		"Bearer realm=\"abc",
		"=",
		"Basic realm=\"a\nb\"",
		"\"",
		"Bearer realm=\"a\" service=\"b\" x",
		"Basic\x01",
	};
	struct auth_challenge c;

	for (size_t i = 0; i < ARRAY_SIZE(none); i++)
		EQ(auth_challenge_parse(none[i], &c), -ENOENT);
	for (size_t i = 0; i < ARRAY_SIZE(malformed); i++) {
		int r = auth_challenge_parse(malformed[i], &c);

		if (r != -EINVAL)
			printf("# %s\n", malformed[i]);
		EQ(r, -EINVAL);
	}
}

static int token(const char *json, struct auth_token *t)
{
	struct error err;

	return auth_token_parse(json, strlen(json), 1000000, t, &err);
}

static void test_tokens(void)
{
	struct auth_token t;

	EQ(token("{\"token\":\"abc\",\"expires_in\":300}", &t), 0);
	STREQ(t.value, "abc");
	EQ(t.refresh_ms, 1000000 + 240000);
	OK(t.expires_ms > t.refresh_ms && t.expires_ms <= 1000000 + 300000);
	auth_token_release(&t);
	OK(!t.value);
	EQ(token("{\"access_token\":\"x\"}", &t), 0);
	EQ(t.refresh_ms, 1000000 + 48000); /* 60 s without expires_in */
	auth_token_release(&t);
	EQ(token("{\"token\":\"\",\"access_token\":\"y\","
		 "\"expires_in\":0}",
		 &t),
	   0);
	STREQ(t.value, "y");
	auth_token_release(&t);
	EQ(token("{\"token\":\"x\",\"expires_in\":9007199254740993}", &t), 0);
	OK(t.expires_ms <= 1000000 + 86400000);
	auth_token_release(&t);
	EQ(token("{}", &t), -EINVAL);
	EQ(token("[]", &t), -EINVAL);
	EQ(token("", &t), -EINVAL);
	EQ(token("{\"token\":7}", &t), -EINVAL);
	EQ(token("{\"token\":\"a\\r\\nX: y\"}", &t), -EINVAL);
	EQ(token("{\"token\":\"a b\"}", &t), -EINVAL);
}

static void test_target_lifetimes(void)
{
	const uint64_t now = 1700000000; /* 2023-11-14T22:13:20Z */

	EQ(route_lifetime_ms(NULL, now), 300000);
	EQ(route_lifetime_ms("a=b", now), 300000);
	EQ(route_lifetime_ms("X-Amz-Date=20231114T221320Z&X-Amz-Expires=1200"
			     "&X-Amz-Signature=0",
			     now),
	   1080000);
	EQ(route_lifetime_ms("x=y&X-Goog-Date=20231114T221320Z&"
			     "X-Goog-Expires=100",
			     now),
	   90000);
	EQ(route_lifetime_ms("se=2023-11-14T22%3A33%3A20Z&sig=x", now),
	   1080000);
	EQ(route_lifetime_ms("Expires=1700000100&Signature=x", now), 90000);
	/* Never so short that each range would be resolved again, and never for
	 * ever. */
	EQ(route_lifetime_ms("Expires=1600000000", now), 30000);
	EQ(route_lifetime_ms("Expires=9999999999", now), 3600000);
	EQ(route_lifetime_ms("Expires=x", now), 300000);
	EQ(route_lifetime_ms("Expires=99999999999999999999", now), 300000);
	EQ(route_lifetime_ms("se=%zz", now), 300000);
	EQ(route_lifetime_ms("X-Amz-Date=x&X-Amz-Expires=5", now), 300000);
}

struct entry {
	struct name_node node;
	int value;
};

/* The table that holds logins, routes and other records. */
static void test_table(void)
{
	enum { N = 5000 };
	static struct entry e[N];
	struct hash_table t;
	char key[32];

	EQ(name_table_init(&t), 0);
	for (int i = 0; i < N; i++) {
		(void)snprintf(key, sizeof(key), "key %d", i);
		OK(!name_table_find(&t, key));
		EQ(name_table_add(&t, &e[i].node, key), 0);
		e[i].value = i;
	}
	EQ(t.n, N);
	OK(t.nbuckets >= N / 2);
	for (int i = 0; i < N; i++) {
		(void)snprintf(key, sizeof(key), "key %d", i);
		OK(name_table_find(&t, key) == &e[i].node);
	}
	OK(name_table_find(&t, "key 0") == &e[0].node);
	OK(name_table_first(&t, struct entry, node) == &e[1]);
	for (int i = 0; i < N; i += 2)
		name_table_del(&t, &e[i].node);
	EQ(t.n, N / 2);
	OK(!name_table_find(&t, "key 0"));
	OK(name_table_find(&t, "key 1") == &e[1].node);
	name_table_for_each_safe(it, &t) name_table_del(
		&t, list_entry(it, struct name_node, hash.order));
	EQ(t.n, 0);
	name_table_release(&t);
}

int main(void)
{
	RUN(test_base64);
	RUN(test_config);
	RUN(test_config_precedence);
	RUN(test_config_namespaces);
	RUN(test_bad_config);
	RUN(test_challenges);
	RUN(test_bad_challenges);
	RUN(test_tokens);
	RUN(test_target_lifetimes);
	RUN(test_table);
	return tap_done();
}
