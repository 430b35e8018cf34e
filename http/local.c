#include "http/local.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/log.h"

#define COMPLAIN_MS 60000

static bool is_own(const struct ifaddrs *i, sa_family_t family,
		   const void *bytes)
{
	struct sockaddr_in a4;
	struct sockaddr_in6 a6;

	if (!i->ifa_addr || i->ifa_addr->sa_family != family)
		return false;
	if (family == AF_INET) {
		memcpy(&a4, i->ifa_addr, sizeof(a4));
		return memcmp(&a4.sin_addr, bytes, sizeof(a4.sin_addr)) == 0;
	}
	memcpy(&a6, i->ifa_addr, sizeof(a6));
	return memcmp(&a6.sin6_addr, bytes, sizeof(a6.sin6_addr)) == 0;
}

/* Asked for each time: addresses come and go. */
static enum addr_scope own_scope(sa_family_t family, const void *bytes)
{
	static struct log_limit limit;
	struct ifaddrs *list = NULL;
	bool own = false;

	if (getifaddrs(&list) < 0) {
		if (log_limit_ok(&limit, 1, COMPLAIN_MS))
			log_error("the addresses of this host cannot be "
				  "listed, so targets are refused",
				  LE(-errno));
		return ADDR_HOST;
	}
	for (const struct ifaddrs *i = list; i && !own; i = i->ifa_next)
		own = is_own(i, family, bytes);
	freeifaddrs(list);
	return own ? ADDR_HOST : ADDR_FAR;
}

static enum addr_scope v4_scope(struct in_addr addr)
{
	uint32_t a = ntohl(addr.s_addr);

	if (a >> 24 == 0 || a >> 16 == 0xa9fe || a >> 28 == 14 ||
	    a == INADDR_BROADCAST)
		return ADDR_LINK;
	if (a >> 24 == IN_LOOPBACKNET)
		return ADDR_HOST;
	return own_scope(AF_INET, &addr);
}

static enum addr_scope v6_scope(const struct in6_addr *a)
{
	/* 64:ff9b::/96, RFC 6052 */
	static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
	struct in_addr v4;

	if (IN6_IS_ADDR_LOOPBACK(a))
		return ADDR_HOST;
	if (IN6_IS_ADDR_UNSPECIFIED(a) || IN6_IS_ADDR_LINKLOCAL(a) ||
	    IN6_IS_ADDR_MULTICAST(a))
		return ADDR_LINK;
	if (!IN6_IS_ADDR_V4MAPPED(a) && !IN6_IS_ADDR_V4COMPAT(a) &&
	    memcmp(a->s6_addr, nat64, sizeof(nat64)) != 0)
		return own_scope(AF_INET6, a);
	memcpy(&v4, &a->s6_addr[12], sizeof(v4));
	return v4_scope(v4);
}

enum addr_scope addr_scope(const struct sockaddr *sa)
{
	struct sockaddr_in a4;
	struct sockaddr_in6 a6;

	switch (sa->sa_family) {
	case AF_INET:
		memcpy(&a4, sa, sizeof(a4));
		return v4_scope(a4.sin_addr);
	case AF_INET6:
		memcpy(&a6, sa, sizeof(a6));
		return v6_scope(&a6.sin6_addr);
	default:
		return ADDR_LINK;
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

enum addr_scope host_scope(const char *host)
{
	char bare[INET6_ADDRSTRLEN + 1];
	struct in6_addr a6;
	struct in_addr a4;

	if (is_localhost(host))
		return ADDR_HOST;
	if (inet_aton(host, &a4))
		return v4_scope(a4);
	/* Without a zone ("fe80::1%25eth0"). */
	(void)snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(host, "%"),
		       host);
	return inet_pton(AF_INET6, bare, &a6) == 1 ? v6_scope(&a6) : ADDR_FAR;
}

/* Family 0: not an address. */
struct address {
	int family;
	uint8_t bytes[16];
};

static struct address parse_address(const char *s)
{
	struct address a = {0};

	if (inet_pton(AF_INET, s, a.bytes) == 1)
		a.family = AF_INET;
	else if (inet_pton(AF_INET6, s, a.bytes) == 1)
		a.family = AF_INET6;
	return a;
}

/* bits: of the address that are the network's. */
static struct address parse_network(const char *s, unsigned int *ret_bits)
{
	char text[INET6_ADDRSTRLEN + 2];
	size_t n = strcspn(s, "/"), digits;
	const char *slash = s + n;
	struct address a = {0};
	unsigned int max;

	if (n > 2 && *s == '[' && s[n - 1] == ']') {
		s++;
		n -= 2;
	}
	if (n >= sizeof(text))
		return a;
	memcpy(text, s, n);
	text[n] = '\0';
	a = parse_address(text);
	max = a.family == AF_INET ? 32 : 128;
	*ret_bits = max;
	if (!*slash)
		return a;
	digits = strspn(slash + 1, "0123456789");
	if (digits > 0 && digits < 4 && !slash[1 + digits])
		*ret_bits = (unsigned int)strtoul(slash + 1, NULL, 10);
	else
		a.family = 0;
	if (*ret_bits > max)
		a.family = 0;
	return a;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned int bits)
{
	size_t whole = bits / 8;
	uint8_t mask = (uint8_t)(0xff00U >> bits % 8);

	return memcmp(a, b, whole) == 0 &&
	       (bits % 8 == 0 || ((a[whole] ^ b[whole]) & mask) == 0);
}

bool host_is_address(const char *host)
{
	return parse_address(host).family != 0;
}

bool network_valid(const char *network)
{
	unsigned int bits;

	return parse_network(network, &bits).family != 0;
}

bool host_in_network(const char *host, const char *network)
{
	struct address a = parse_address(host), net;
	unsigned int bits = 0;

	net = parse_network(network, &bits);
	return a.family && net.family == a.family &&
	       same_bits(net.bytes, a.bytes, bits);
}
