/* Addresses and names that belong to this host or link. */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "http/local.h"
#include "tests/unit/tap.h"

static enum addr_scope v4(const char *s)
{
	struct sockaddr_in a = {.sin_family = AF_INET};

	EQ(inet_pton(AF_INET, s, &a.sin_addr), 1);
	return addr_scope((const struct sockaddr *)&a);
}

static enum addr_scope v6(const char *s)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6};

	EQ(inet_pton(AF_INET6, s, &a.sin6_addr), 1);
	return addr_scope((const struct sockaddr *)&a);
}

static void test_addresses(void)
{
	struct sockaddr un = {.sa_family = AF_UNIX};

	EQ(v4("127.0.0.1"), ADDR_HOST);
	EQ(v4("127.255.0.3"), ADDR_HOST);
	EQ(v4("0.0.0.0"), ADDR_LINK);
	EQ(v4("169.254.169.254"), ADDR_LINK);
	EQ(v4("224.0.0.1"), ADDR_LINK);
	EQ(v4("255.255.255.255"), ADDR_LINK);
	EQ(v4("10.0.0.1"), ADDR_FAR);
	EQ(v4("128.0.0.1"), ADDR_FAR);
	EQ(v4("169.253.0.1"), ADDR_FAR);
	EQ(v4("192.168.1.1"), ADDR_FAR);
	EQ(v6("::1"), ADDR_HOST);
	EQ(v6("::"), ADDR_LINK);
	EQ(v6("fe80::1"), ADDR_LINK);
	EQ(v6("ff02::1"), ADDR_LINK);
	EQ(v6("::ffff:127.0.0.1"), ADDR_HOST);
	EQ(v6("::ffff:169.254.169.254"), ADDR_LINK);
	EQ(v6("::127.0.0.1"), ADDR_HOST);
	EQ(v6("64:ff9b::7f00:1"), ADDR_HOST);
	EQ(v6("::ffff:10.0.0.1"), ADDR_FAR);
	EQ(v6("64:ff9b::a00:1"), ADDR_FAR);
	EQ(v6("2001:db8::1"), ADDR_FAR);
	EQ(v6("fd00::1"), ADDR_FAR);
	EQ(addr_scope(&un), ADDR_LINK);
}

/* What the interfaces of the machine have. */
static void test_own(void)
{
	char host[INET6_ADDRSTRLEN];
	struct sockaddr_in6 mapped = {.sin6_family = AF_INET6};
	struct ifaddrs *list = NULL;
	struct sockaddr_in a;

	EQ(getifaddrs(&list), 0);
	for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
		int family = i->ifa_addr ? i->ifa_addr->sa_family : 0;

		if (family == AF_INET || family == AF_INET6)
			OK(addr_scope(i->ifa_addr) != ADDR_FAR);
		if (family != AF_INET)
			continue;
		memcpy(&a, i->ifa_addr, sizeof(a));
		(void)inet_ntop(AF_INET, &a.sin_addr, host, sizeof(host));
		OK(host_scope(host) != ADDR_FAR);
		memset(&mapped.sin6_addr.s6_addr[10], 0xff, 2);
		memcpy(&mapped.sin6_addr.s6_addr[12], &a.sin_addr, 4);
		OK(addr_scope((struct sockaddr *)&mapped) != ADDR_FAR);
	}
	freeifaddrs(list);
}

static void test_names(void)
{
	static const char *const local[] = {
		"localhost",
		"LOCALHOST",
		"localhost.",
		"a.localhost",
		"a.b.LocalHost.",
		"127.0.0.1",
		"127.1",
		"2130706433",
		"0x7f000001",
		"0177.0.0.1",
		"0",
		"::1",
		"fe80::1",
		"fe80::1%25eth0",
		"::ffff:127.0.0.1",
		"169.254.1.2",
	};
	static const char *const others[] = {
		"",
		".",
		"localhos",
		"xlocalhost",
		"localhost.example",
		"registry.example",
		"10.0.0.1",
		"2001:db8::1",
		"1.2.3.4.5",
		"8.8.8.8",
	};

	for (size_t i = 0; i < sizeof(local) / sizeof(*local); i++)
		if (host_scope(local[i]) == ADDR_FAR) {
			OK(false);
			printf("# %s\n", local[i]);
		}
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		if (host_scope(others[i]) != ADDR_FAR) {
			OK(false);
			printf("# %s\n", others[i]);
		}
}

static void test_loopback(void)
{
	static const char *const loopback[] = {
		"localhost",	  "localhost:5000",    "127.0.0.1",
		"127.0.0.1:5000", "127.255.0.3:1",     "[::1]",
		"[::1]:5000",	  "[0:0:0:0:0:0:0:1]",
	};
	static const char *const others[] = {
		"",
		":5000",
		"localhost.example",
		"a.localhost",
		"localhos",
		"127.example",
		"127.example:5000",
		"127.0.0.1.example",
		"127.0.0.1.2",
		"127.",
		"127.0.0",
		"126.0.0.1",
		"128.0.0.1:5000",
		"0.0.0.0:5000",
		"::1",
		"[",
		"[]",
		"[::1",
		"[::1]x",
		"[::]:5000",
		"[::2]",
		"[fe80::1]",
		"[127.0.0.1]",
		"[localhost]",
		"dns:localhost:5000",
		"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000",
		"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0001]",
	};

	for (size_t i = 0; i < sizeof(loopback) / sizeof(*loopback); i++)
		if (!authority_is_loopback(loopback[i])) {
			OK(false);
			printf("# %s\n", loopback[i]);
		}
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		if (authority_is_loopback(others[i])) {
			OK(false);
			printf("# %s\n", others[i]);
		}
}

int main(void)
{
	RUN(test_loopback);
	RUN(test_addresses);
	RUN(test_own);
	RUN(test_names);
	return tap_done();
}
