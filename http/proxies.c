#include "http/proxies.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SEPARATORS " ,\t"

static const char *env(const char *lower, const char *upper)
{
	const char *v = getenv(lower);

	if ((!v || !*v) && upper)
		v = getenv(upper);
	return v && *v ? v : NULL;
}

/* Family 0: not an address. */
struct address {
	int family;
	uint8_t bytes[16];
};

static void parse_address(const char *s, struct address *ret)
{
	*ret = (struct address){0};
	if (inet_pton(AF_INET, s, ret->bytes) == 1)
		ret->family = AF_INET;
	else if (inet_pton(AF_INET6, s, ret->bytes) == 1)
		ret->family = AF_INET6;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned long bits)
{
	size_t whole = bits / 8;
	uint8_t mask = (uint8_t)(0xff00U >> bits % 8);

	return memcmp(a, b, whole) == 0 &&
	       (bits % 8 == 0 || ((a[whole] ^ b[whole]) & mask) == 0);
}

/* word: an address, or a network. */
static bool covers(char *word, const struct address *a)
{
	unsigned long max = a->family == AF_INET ? 32 : 128, bits = max;
	char *slash = strchr(word, '/'), *end;
	struct address net;

	if (slash) {
		*slash = '\0';
		if (slash[1] < '0' || slash[1] > '9')
			return false;
		bits = strtoul(slash + 1, &end, 10);
		if (*end || bits > max)
			return false;
	}
	if (*word == '[' && word[strlen(word) - 1] == ']') {
		word[strlen(word) - 1] = '\0';
		word++;
	}
	parse_address(word, &net);
	return net.family == a->family && same_bits(net.bytes, a->bytes, bits);
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
	struct address a;
	char word[256];

	parse_address(host, &a);
	while (*(list += strspn(list, SEPARATORS))) {
		size_t n = strcspn(list, SEPARATORS);

		if (n < sizeof(word)) {
			memcpy(word, list, n);
			word[n] = '\0';
			if (strcmp(word, "*") == 0 ||
			    (a.family ? covers(word, &a) : names(word, host)))
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
