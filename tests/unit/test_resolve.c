/* p2p/resolve.h, with the test's own name server. */
#include "tests/unit/members-rig.h"

static const struct {
	const char *entry;
	enum resolve_kind kind;
	const char *name;
	uint16_t port;
} good[] = {
	{"10.0.0.1:5001", RESOLVE_ADDR, "10.0.0.1", 5001},
	{"10.0.0.1", RESOLVE_ADDR, "10.0.0.1", 5001},
	{"dns:10.0.0.1:7", RESOLVE_ADDR, "10.0.0.1", 7},
	{"[::1]:65535", RESOLVE_ADDR, "::1", 65535},
	{"[2001:db8::1]", RESOLVE_ADDR, "2001:db8::1", 5001},
	{"node-1.example", RESOLVE_HOST, "node-1.example", 5001},
	{"node1:1", RESOLVE_HOST, "node1", 1},
	{"dns:peerd.ns.svc.cluster.local.:5001", RESOLVE_DNS,
	 "peerd.ns.svc.cluster.local.", 5001},
	{"dns:peerd", RESOLVE_DNS, "peerd", 5001},
	{"srv:_peerd._tcp.example.com", RESOLVE_SRV, "_peerd._tcp.example.com",
	 0},
};

static const char *const bad[] = {
	"",
	":",
	":5001",
	"dns:",
	"dns::5001",
	"srv:",
	"srv:peerd.example",
	"srv:_peerd._tcp",
	"srv:_peerd.tcp.example",
	"srv:_peerd._tcp.example:5001",
	"host:",
	"host:0",
	"host:65536",
	"host:99999999999999999999",
	"host:-1",
	"host:+1",
	"host: 1",
	"host:1x",
	"host:5001:5001",
	"::1",
	"::1:5001",
	"[::1",
	"[::1]5001",
	"[::1]:",
	"[10.0.0.1]:5001",
	"[]:5001",
	"[::]:5001",
	"[fe80::1]:5001",
	"[ff02::1]:5001",
	"0.0.0.0:5001",
	"255.255.255.255:5001",
	"1.2.3:5001",
	"1.2.3.4.5:5001",
	"256.1.1.1:5001",
	"017.1.1.1:1",
	"host name:5001",
	"host/path",
	"http://host:5001",
	"a..b",
	".a",
	"h\xc3\xb6st:1",
	"[1:2:3:4:5:6:7:8:9]:1",
	"1234",
	"[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]:1",
	/* 64 characters */
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b:1",
};

static void test_names(void)
{
	struct resolve_name nm;
	char text[400];
	struct error err;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		EQ(resolve_parse(good[i].entry, &nm, &err), 0);
		EQ(nm.kind, good[i].kind);
		STREQ(nm.name, good[i].name);
		EQ(nm.port, good[i].port);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err.text[0] = '\0';
		if (resolve_parse(bad[i], &nm, &err) != -EINVAL)
			printf("# taken: \"%s\"\n", bad[i]);
		EQ(resolve_parse(bad[i], &nm, &err), -EINVAL);
		OK(strncmp(err.text, bad[i], strlen(bad[i])) == 0);
	}
	for (int n = 252; n <= 256; n++) {
		memset(text, 'a', sizeof(text));
		for (int i = 50; i < n - 1; i += 50)
			text[i] = '.';
		text[n] = '\0';
		EQ(resolve_parse(text, &nm, &err), n <= 253 ? 0 : -EINVAL);
	}
}

static void test_addresses(void)
{
	char text[RESOLVE_TEXT_MAX];
	struct resolve_addr a;

	EQ(resolve_addr_parse("10.1.2.3", 80, &a), 0);
	STREQ(resolve_addr_text(&a, text), "10.1.2.3:80");
	EQ(resolve_addr_parse("::ffff:10.1.2.3", 80, &a), 0);
	OK(!a.v6);
	STREQ(resolve_addr_text(&a, text), "10.1.2.3:80");
	EQ(resolve_addr_parse("2001:DB8:0:0::1", 65535, &a), 0);
	STREQ(resolve_addr_text(&a, text), "[2001:db8::1]:65535");
	EQ(resolve_addr_parse("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
			      65535, &a),
	   -EINVAL);
	EQ(resolve_addr_parse("fe80::1", 1, &a), -EINVAL);
	EQ(resolve_addr_parse("::ffff:224.0.0.1", 1, &a), -EINVAL);
	EQ(resolve_addr_parse("10.0.0.1", 0, &a), -EINVAL);
	EQ(resolve_addr_parse("localhost", 1, &a), -EINVAL);
}

static int look(const char *entry, const char *nameserver,
		struct resolve_result *res)
{
	static const int stop = 0;
	struct resolve_name nm;

	EQ(resolve_parse(entry, &nm, NULL), 0);
	return resolve_run(&nm, nameserver, &stop, res);
}

static bool gave(const struct resolve_result *res, const char *want)
{
	char text[RESOLVE_TEXT_MAX];

	for (size_t i = 0; i < res->n; i++)
		if (strcmp(resolve_addr_text(&res->v[i], text), want) == 0)
			return true;
	return false;
}

static void test_lookup_addresses(void)
{
	struct resolve_result res;

	dns_clear();
	dns_host("a.test", "127.0.0.2");
	dns_host("a.test", "127.0.0.3");
	dns_host("a.test", "fd00::1");
	dns_host("a.test", "0.0.0.0");
	dns_host("a.test", "fe80::1");
	dns_srv("other.test", 1, "a.test");
	dns_code("sick.test", 0, 2);
	dns_code("liar.test", 0, GARBAGE);
	dns_host("half.test", "127.0.0.4");
	dns_code("half.test", T_AAAA, 2);

	EQ(look("dns:a.test:77", dns.addr, &res), 0);
	EQ(res.n, 3);
	OK(gave(&res, "127.0.0.2:77") && gave(&res, "127.0.0.3:77") &&
	   gave(&res, "[fd00::1]:77"));
	OK(!res.partial);
	resolve_result_release(&res);
	EQ(look("dns:none.test", dns.addr, &res), -ENOENT);
	OK(res.why[0]);
	resolve_result_release(&res);
	EQ(look("dns:other.test", dns.addr, &res), -ENOENT); /* no A */
	resolve_result_release(&res);
	EQ(look("sick.test:1", dns.addr, &res), -ETIMEDOUT);
	OK(res.why[0]);
	resolve_result_release(&res);
	EQ(look("dns:liar.test", dns.addr, &res), -EBADMSG);
	resolve_result_release(&res);
	EQ(look("dns:half.test", dns.addr, &res), 0);
	EQ(res.n, 1);
	OK(res.partial);
	resolve_result_release(&res);
	EQ(look("10.0.0.1:1", dns.addr, &res), 0);
	OK(res.n == 1 && gave(&res, "10.0.0.1:1"));
	resolve_result_release(&res);
	EQ(look("a.test:1", "nonsense", &res), -EINVAL);
	resolve_result_release(&res);
}

static void test_lookup_services(void)
{
	struct resolve_result res;

	dns_clear();
	dns_host("a.test", "127.0.0.2");
	dns_host("b.test", "127.0.0.3");
	dns_host_as("c.test", "127.0.0.4", true);
	dns_code("sick.test", 0, 2);
	dns_srv("_p._tcp.test", 1001, "a.test");
	dns_srv("_p._tcp.test", 1002, "A.test");
	dns_srv("_p._tcp.test", 1003, "b.test");
	dns_srv("_p._tcp.test", 1004, "c.test");
	dns_srv("_p._tcp.test", 0, "a.test");
	dns_srv("_p._tcp.test", 1005, "gone.test");
	dns_srv("_none._tcp.test", 1, ".");
	dns_srv("_half._tcp.test", 1006, "sick.test");
	dns_srv("_half._tcp.test", 1007, "a.test");
	dns_srv("_sick._tcp.test", 1008, "sick.test");
	dns_code("_liar._tcp.test", 0, GARBAGE);

	EQ(look("srv:_p._tcp.test", dns.addr, &res), 0);
	EQ(res.n, 4);
	OK(gave(&res, "127.0.0.2:1001") && gave(&res, "127.0.0.2:1002") &&
	   gave(&res, "127.0.0.3:1003") && gave(&res, "127.0.0.4:1004"));
	OK(!res.partial);
	resolve_result_release(&res);
	EQ(look("srv:_none._tcp.test", dns.addr, &res), -ENOENT);
	resolve_result_release(&res);
	EQ(look("srv:_absent._tcp.test", dns.addr, &res), -ENOENT);
	resolve_result_release(&res);
	EQ(look("srv:_half._tcp.test", dns.addr, &res), 0);
	OK(res.n == 1 && res.partial && gave(&res, "127.0.0.2:1007"));
	resolve_result_release(&res);
	EQ(look("srv:_sick._tcp.test", dns.addr, &res), -ETIMEDOUT);
	resolve_result_release(&res);
	EQ(look("srv:_liar._tcp.test", dns.addr, &res), -EBADMSG);
	resolve_result_release(&res);
}

/* /etc/hosts, through the system's resolver. */
static void test_lookup_system(void)
{
	struct resolve_result res;
	int r = look("localhost:9", NULL, &res);

	if (r == 0)
		OK(gave(&res, "127.0.0.1:9") || gave(&res, "[::1]:9"));
	resolve_result_release(&res);
	if (r < 0)
		SKIP("this machine does not know localhost");
}

static void test_lookup_many(void)
{
	struct resolve_result res;
	char ip[32];

	dns_clear();
	for (int i = 0; i < 2000; i++) {
		(void)snprintf(ip, sizeof(ip), "127.0.%d.%d", i / 250,
			       i % 250 + 1);
		dns_host("many.test", ip);
		dns_srv("_m._tcp.test", (unsigned int)i + 1, "one.test");
	}
	dns_host_as("one.test", "127.0.0.1", true);
	EQ(look("dns:many.test", dns.addr, &res), 0);
	EQ(res.n, 2000);
	OK(gave(&res, "127.0.7.250:5001"));
	resolve_result_release(&res);
	EQ(look("srv:_m._tcp.test", dns.addr, &res), 0);
	EQ(res.n, 2000);
	OK(gave(&res, "127.0.0.1:2000"));
	resolve_result_release(&res);
}

int main(void)
{
	rig_start();
	RUN(test_names);
	RUN(test_addresses);
	RUN(test_lookup_addresses);
	RUN(test_lookup_services);
	RUN(test_lookup_system);
	RUN(test_lookup_many);
	return rig_end();
}
