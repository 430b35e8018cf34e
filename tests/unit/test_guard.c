/* Where the daemon may be sent, and by whom. */
#include "base/util.h"
#include "registry/guard.h"
#include "tests/unit/tap.h"

static const char *const allow_v[] = {"127.0.0.1:7000", "[::1]:7000",
				      ".inner.example", "files.example"};
static const char *const hosts_v[] = {"reg.example:5000", "http://10.9.8.7",
				      "docker.io", "_default"};
static const char *const plain_v[] = {"127.0.0.1:5000", "169.254.1.1:80"};
static const struct string_list allow = {(char **)allow_v, 4};
static const struct string_list hosts = {(char **)hosts_v, 4};
static const struct string_list some_hosts = {(char **)hosts_v, 3};
static const struct string_list plain = {(char **)plain_v, 2};

static const struct guard nobody, all = {&allow, &hosts, &plain};

static void test_urls(void)
{
	EQ(guard_refuse(NULL, NULL, "127.0.0.1", 80), ADDR_FAR);
	EQ(guard_refuse(&nobody, NULL, "a.example", 80), ADDR_HOST);
	EQ(guard_refuse(&all, NULL, "a.example", 80), ADDR_HOST);
	EQ(guard_refuse(&all, NULL, "127.0.0.1", 7000), ADDR_FAR);
	EQ(guard_refuse(&all, NULL, "127.0.0.1", 7001), ADDR_HOST);
	EQ(guard_refuse(&all, NULL, "::1", 7000), ADDR_FAR);
	EQ(guard_refuse(&all, NULL, "a.INNER.example", 1), ADDR_FAR);
	EQ(guard_refuse(&all, NULL, "inner.example", 1), ADDR_HOST);
	EQ(guard_refuse(&all, NULL, "files.example", 1), ADDR_FAR);
	/* To be a registry is no leave to be asked for by URL. */
	EQ(guard_refuse(&all, NULL, "reg.example", 5000), ADDR_HOST);
	EQ(guard_refuse(&all, NULL, "127.0.0.1", 5000), ADDR_HOST);
}

static void test_registries(void)
{
	/* A reader has named it: it may be on this host, with other ports for
	 * what it sends us to. */
	EQ(guard_refuse(&nobody, "127.0.0.1:5000", "127.0.0.1", 5000),
	   ADDR_LINK);
	EQ(guard_refuse(&nobody, "127.0.0.1:5000", "127.0.0.1", 5001),
	   ADDR_LINK);
	EQ(guard_refuse(&nobody, "a.example", "A.example", 443), ADDR_LINK);
	EQ(guard_refuse(&nobody, "docker.io", "registry-1.docker.io", 443),
	   ADDR_LINK);
	EQ(guard_refuse(&nobody, "[::1]:5000", "::1", 5000), ADDR_LINK);
	/* Elsewhere it may send us off this host only. */
	EQ(guard_refuse(&nobody, "a.example", "127.0.0.1", 80), ADDR_HOST);
	EQ(guard_refuse(&nobody, "127.0.0.1:5000", "localhost", 5000),
	   ADDR_HOST);
	EQ(guard_refuse(&nobody, "docker.io", "auth.docker.io", 443),
	   ADDR_HOST);
	EQ(guard_refuse(&nobody, "not a host", "127.0.0.1", 80), ADDR_HOST);
	/* The operator has named it. */
	EQ(guard_refuse(&all, "169.254.1.1:80", "169.254.1.1", 80), ADDR_FAR);
	EQ(guard_refuse(&all, "10.9.8.7", "10.9.8.7", 443), ADDR_FAR);
	EQ(guard_refuse(&all, "169.254.1.2", "169.254.1.2", 443), ADDR_LINK);
}

static void test_names(void)
{
	OK(guard_refuses_name(&nobody, NULL, "localhost", 80));
	OK(guard_refuses_name(&nobody, NULL, "2130706433", 80));
	OK(guard_refuses_name(&nobody, NULL, "169.254.169.254", 80));
	OK(!guard_refuses_name(&nobody, NULL, "a.example", 80));
	OK(!guard_refuses_name(&all, NULL, "127.0.0.1", 7000));
	OK(!guard_refuses_name(&nobody, "127.0.0.1:5000", "127.0.0.1", 5000));
	OK(guard_refuses_name(&nobody, "169.254.169.254", "169.254.169.254",
			      443));
	OK(guard_refuses_name(&nobody, "a.example", "169.254.169.254", 80));
}

static void test_members(void)
{
	static const char *const near[] = {
		"127.0.0.1",
		"127.0.0.1:9999",
		"localhost",
		"localhost:9999",
		"a.localhost:1",
		"[::1]",
		"[::1]:9999",
		"127.1:80",
		"169.254.169.254",
		"169.254.1.2:443",
		"0.0.0.0:80",
		"[fe80::1]:80",
		"",
		"a b",
	};
	const struct guard some = {&allow, &some_hosts, &plain};

	for (size_t i = 0; i < ARRAY_SIZE(near); i++) {
		OK(!guard_member_may(&nobody, near[i]));
		OK(!guard_member_may(&all, near[i]));
		OK(!guard_member_may(&some, near[i]));
	}
	OK(guard_member_may(&nobody, "a.example"));
	OK(guard_member_may(&nobody, "a.example:5000"));
	OK(guard_member_may(&nobody, "docker.io"));
	OK(guard_member_may(&all, "a.example"));
	OK(!guard_member_may(&some, "a.example"));
	OK(guard_member_may(&some, "reg.example:5000"));
	OK(!guard_member_may(&some, "reg.example"));
	OK(guard_member_may(&some, "index.docker.io"));
	OK(guard_member_may(&some, "127.0.0.1:5000"));
}

int main(void)
{
	RUN(test_urls);
	RUN(test_registries);
	RUN(test_names);
	RUN(test_members);
	return tap_done();
}
