/* Which proxy a URL is asked for through. */
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "http/proxies.h"
#include "tests/unit/tap.h"

static void test_excepts(void)
{
	static const struct {
		const char *list, *host;
		bool want;
	} t[] = {
		{"", "a.example", false},
		{" , ", "a.example", false},
		{"*", "a.example", true},
		{"*", "10.0.0.1", true},
		{"b.example,*", "a.example", true},
		{"a.example", "a.example", true},
		{"A.Example", "a.example", true},
		{"a.example", "a.example.", true},
		{"a.example.", "a.example", true},
		{"example", "a.example", true},
		{".example", "a.example", true},
		{".a.example", "a.example", true},
		{"ample", "a.example", false},
		{"a.example", "example", false},
		{"b.example a.example", "a.example", true},
		{"b.example,\ta.example", "a.example", true},
		{".", "a.example", false},
		{"10.0.0.1", "10.0.0.1", true},
		{"10.0.0.1", "10.0.0.10", false},
		{"0.0.1", "10.0.0.1", false},
		{"10.0.0.0/8", "10.200.0.1", true},
		{"10.0.0.0/8", "11.0.0.1", false},
		{"10.96.0.0/12", "10.111.1.1", true},
		{"10.96.0.0/12", "10.112.0.1", false},
		{"0.0.0.0/0", "10.112.0.1", true},
		{"10.0.0.0/33", "10.0.0.0", false},
		{"10.0.0.0/", "10.0.0.0", false},
		{"10.0.0.0/-1", "10.0.0.0", false},
		{"10.0.0.0/8x", "10.0.0.0", false},
		{"10.0.0.0/8", "a.example", false},
		{"fd00::/8", "fd12::1", true},
		{"fd00::/8", "fe12::1", false},
		{"[::1]", "::1", true},
		{"::1", "::1", true},
		{"::/0", "10.0.0.1", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		if (proxy_excepts(t[i].list, t[i].host) != t[i].want) {
			OK(false);
			printf("# \"%s\" %s\n", t[i].list, t[i].host);
		}
	OK(true);
}

static bool goes_to(const char *text, const char *proxy)
{
	CLEANUP(url_release) struct url u = {0};
	const char *p;

	EQ(url_parse(text, &u), 0);
	p = proxy_for(&u);
	return p && proxy ? strcmp(p, proxy) == 0 : p == proxy;
}

static void test_environment(void)
{
	static const char *const vars[] = {"http_proxy", "https_proxy",
					   "all_proxy",	 "no_proxy",
					   "HTTP_PROXY", "HTTPS_PROXY",
					   "ALL_PROXY",	 "NO_PROXY"};

	for (size_t i = 0; i < ARRAY_SIZE(vars); i++)
		(void)unsetenv(vars[i]);
	OK(goes_to("http://a.example/", NULL));
	(void)setenv("HTTP_PROXY", "http://upper", 1);
	OK(goes_to("http://a.example/", NULL));
	(void)setenv("http_proxy", "http://one", 1);
	OK(goes_to("http://a.example/", "http://one"));
	OK(goes_to("https://a.example/", NULL));
	(void)setenv("ALL_PROXY", "http://all", 1);
	OK(goes_to("https://a.example/", "http://all"));
	OK(goes_to("http://a.example/", "http://one"));
	(void)setenv("HTTPS_PROXY", "http://two", 1);
	OK(goes_to("https://a.example/", "http://two"));
	(void)setenv("https_proxy", "http://three", 1);
	OK(goes_to("https://a.example/", "http://three"));
	(void)setenv("NO_PROXY", "a.example", 1);
	OK(goes_to("https://a.example/", NULL));
	OK(goes_to("http://a.example:81/", NULL));
	OK(goes_to("http://b.example/", "http://one"));
	(void)setenv("no_proxy", "b.example", 1);
	OK(goes_to("http://a.example/", "http://one"));
	OK(goes_to("http://b.example/", NULL));
	(void)setenv("http_proxy", "", 1);
	(void)setenv("ALL_PROXY", "", 1);
	OK(goes_to("http://a.example/", NULL));
}

int main(void)
{
	RUN(test_excepts);
	RUN(test_environment);
	return tap_done();
}
