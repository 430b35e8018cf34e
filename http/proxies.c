#include "http/proxies.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http/local.h"

#define SEPARATORS " ,\t"

static const char *env(const char *lower, const char *upper)
{
	const char *v = getenv(lower);

	if ((!v || !*v) && upper)
		v = getenv(upper);
	return v && *v ? v : NULL;
}

/* Without the dot that a whole name may end in. */
static size_t name_len(const char *s)
{
	size_t n = strlen(s);

	return n > 0 && s[n - 1] == '.' ? n - 1 : n;
}

static bool names(const char *word, const char *host)
{
	size_t n, len = name_len(host);

	word += *word == '.';
	n = name_len(word);
	if (n == 0 || n > len || strncasecmp(host + len - n, word, n) != 0)
		return false;
	return n == len || host[len - n - 1] == '.';
}

bool proxy_excepts(const char *list, const char *host)
{
	bool address = host_is_address(host);
	char word[256];

	while (*(list += strspn(list, SEPARATORS))) {
		size_t n = strcspn(list, SEPARATORS);

		if (n < sizeof(word)) {
			memcpy(word, list, n);
			word[n] = '\0';
			if (strcmp(word, "*") == 0 ||
			    (address ? host_in_network(host, word)
				     : names(word, host)))
				return true;
		}
		list += n;
	}
	return false;
}

const char *proxy_for(const struct url *u)
{
	const char *proxy = strcmp(u->scheme, "https") == 0
				    ? env("https_proxy", "HTTPS_PROXY")
				    : env("http_proxy", NULL);
	const char *except = env("no_proxy", "NO_PROXY");

	if (!proxy)
		proxy = env("all_proxy", "ALL_PROXY");
	if (!proxy || (except && proxy_excepts(except, u->host)))
		return NULL;
	return proxy;
}
