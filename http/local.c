#include "http/local.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

static bool v4_is_local(uint32_t a)
{
	return a >> 24 == 127 || a >> 24 == 0 || a >> 16 == 0xa9fe ||
	       a >> 28 == 14 || a == 0xffffffff;
}

static bool v6_is_local(const struct in6_addr *a)
{
	/* 64:ff9b::/96, RFC 6052 */
	static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
	uint32_t v4;

	if (IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_UNSPECIFIED(a) ||
	    IN6_IS_ADDR_LINKLOCAL(a) || IN6_IS_ADDR_MULTICAST(a))
		return true;
	if (!IN6_IS_ADDR_V4MAPPED(a) && !IN6_IS_ADDR_V4COMPAT(a) &&
	    memcmp(a->s6_addr, nat64, sizeof(nat64)) != 0)
		return false;
	memcpy(&v4, &a->s6_addr[12], sizeof(v4));
	return v4_is_local(ntohl(v4));
}

bool addr_is_local(const struct sockaddr *sa)
{
	struct sockaddr_in a4;
	struct sockaddr_in6 a6;

	switch (sa->sa_family) {
	case AF_INET:
		memcpy(&a4, sa, sizeof(a4));
		return v4_is_local(ntohl(a4.sin_addr.s_addr));
	case AF_INET6:
		memcpy(&a6, sa, sizeof(a6));
		return v6_is_local(&a6.sin6_addr);
	default:
		return true;
	}
}

static bool is_localhost(const char *host)
{
	static const char name[] = ".localhost";
	size_t len = strlen(host), n = sizeof(name) - 1;

	if (len > 0 && host[len - 1] == '.')
		len--;
	if (len == n - 1)
		return strncasecmp(host, name + 1, n - 1) == 0;
	return len >= n && strncasecmp(host + len - n, name, n) == 0;
}

bool authority_is_loopback(const char *authority)
{
	bool v6 = authority[0] == '[';
	const char *begin = authority + v6;
	size_t len = strcspn(begin, v6 ? "]" : ":");
	const char *end = begin + len;
	char host[INET6_ADDRSTRLEN];
	struct in6_addr a6;
	struct in_addr a4;

	if (len >= sizeof(host) || (v6 && *end++ != ']') ||
	    (*end != '\0' && *end != ':'))
		return false;
	memcpy(host, begin, len);
	host[len] = '\0';
	if (v6)
		return inet_pton(AF_INET6, host, &a6) == 1 &&
		       IN6_IS_ADDR_LOOPBACK(&a6);
	return strcmp(host, "localhost") == 0 ||
	       (inet_pton(AF_INET, host, &a4) == 1 &&
		ntohl(a4.s_addr) >> 24 == IN_LOOPBACKNET);
}

bool host_looks_local(const char *host)
{
	char bare[INET6_ADDRSTRLEN + 1];
	struct in6_addr a6;
	struct in_addr a4;

	if (is_localhost(host))
		return true;
	if (inet_aton(host, &a4))
		return v4_is_local(ntohl(a4.s_addr));
	/* without a zone ("fe80::1%25eth0") */
	(void)snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(host, "%"),
		       host);
	return inet_pton(AF_INET6, bare, &a6) == 1 && v6_is_local(&a6);
}
