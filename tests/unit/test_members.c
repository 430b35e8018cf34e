/* p2p/members.h, with HTTP servers on many loopback addresses in this
 * process. */
#include <sys/resource.h>

#include "tests/unit/members-tls.h"

static void test_bad_config(void)
{
	static const char *const ids[] = {"", "a b", "\xc3\xa4", "a\n",
					  ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
					   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")};
	struct subject s;
	struct error err;

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		subject_init(&s, ids[i]);
		EQ(members_new(&s.cfg, &s.m, &err), -EINVAL);
		OK(strstr(err.text, "id"));
	}
	subject_init(&s, "me");
	subject_peer(&s, "127.0.0.2:1");
	subject_peer(&s, "host:0");
	s.cfg.peers = &s.peers;
	EQ(members_new(&s.cfg, &s.m, &err), -EINVAL);
	OK(strstr(err.text, "host:0"));
	OK(s.m == NULL);
	run_for(20);
	EQ(s.changed + s.forgotten, 0);
	string_list_release(&s.peers);
	end();
}

static void test_alone(void)
{
	struct subject s;

	begin();
	subject_init(&s, "me");
	subject_start(&s);
	EQ(members_view(s.m, false)->n, 1);
	EQ(members_view(s.m, true)->self, 0);
	OK(members_at(s.m, false, 0) == NULL);
	EQ(members_view(s.m, false)->ids[0], place_hash("me", 2));
	UNTIL(members_settled(s.m));
	EQ(members_alive(s.m), 0);
	OK(members_find(s.m, "me") == NULL);
	subject_stop(&s);
	end();
}

static void test_one_member(void)
{
	CLEANUP(buf_release) struct buf url = BUF_INIT(200);
	struct fake f = {.name = "node-two", .zone = "z1"};
	struct http_request rq = {.method = "HEAD"};
	struct member *mb;
	struct subject s;

	begin();
	fake_up(&f, "127.0.0.2", "two");
	subject_init(&s, "me");
	subject_peer(&s, f.addr);
	subject_start(&s);
	OK(!members_settled(s.m));
	EQ(tally(&s).by_state[MEMBER_NEW], 1);
	UNTIL(s.changed);
	UNTIL(members_settled(s.m));
	EQ(members_alive(s.m), 1);
	mb = members_find(s.m, "two");
	OK(mb && mb->state == MEMBER_ALIVE && mb->same_zone);
	STREQ(mb->name, "node-two");
	STREQ(mb->version, "1.0");
	STREQ(mb->zone, "z1");
	STREQ(mb->addr, f.addr);
	EQ(mb->place_id, place_hash("two", 3));
	OK(mb->rtt_ms > 0 && mb->heard_ms > 0);
	EQ(s.generation, members_generation(s.m));
	STREQ(f.listen, "5001");

	EQ(members_request(s.m, mb, "/x?y", &rq, &url), 0);
	(void)snprintf(f.listen, sizeof(f.listen), "%s", rq.url + 7);
	OK(strncmp(rq.url, "http://127.0.0.2:", 17) == 0);
	OK(strstr(rq.url, "/x?y"));
	STREQ(rq.method, "HEAD");
	OK(rq.connect_timeout_ms > 0 && !rq.ca_file);

	/* The member is greeted repeatedly. */
	UNTIL(f.hits > 5);
	EQ(s.generation, members_generation(s.m));
	EQ(tally(&s).n, 1);
	subject_stop(&s);
	fake_down(&f);
	end();
}

static void test_tls_request(void)
{
	CLEANUP(buf_release) struct buf url = BUF_INIT(200);
	struct member mb = {.addr = "[::1]:5001"};
	struct http_request rq = {0};
	struct subject s;

	begin();
	subject_init(&s, "me");
	s.cfg.ca_file = "/ca";
	s.cfg.cert_file = "/cert";
	s.cfg.key_file = "/key";
	subject_start(&s);
	EQ(members_request(s.m, &mb, "/p", &rq, &url), 0);
	STREQ(rq.url, "https://[::1]:5001/p");
	OK(rq.peer);
	STREQ(rq.ca_file, "/ca");
	STREQ(rq.cert_file, "/cert");
	STREQ(rq.key_file, "/key");
	buf_release(&url);
	url.max = 10;
	EQ(members_request(s.m, &mb, "/p", &rq, &url), -EMSGSIZE);
	subject_stop(&s);
	end();
}

/* Only "one" is told of the other. */
static void test_stranger_greets(void)
{
	struct fake f1 = {0}, f2 = {0};
	struct subject one, two;

	begin();
	fake_up(&f1, "127.0.0.1", "");
	fake_up(&f2, "127.0.0.1", "");
	subject_init(&two, "two");
	two.cfg.port = f2.port;
	two.cfg.zone = "z2";
	subject_start(&two);
	f2.real = &two.m;
	subject_init(&one, "one");
	one.cfg.port = f1.port;
	subject_peer(&one, f2.addr);
	subject_start(&one);
	f1.real = &one.m;
	UNTIL(alive(&one, "two") && alive(&two, "one"));
	STREQ(members_find(two.m, "one")->addr, f1.addr);
	UNTIL(in_view(&one, true, "two"));
	OK(!in_view(&one, false, "two")); /* another zone */
	EQ(members_view(one.m, false)->n, 1);

	/* It goes, and is forgotten because no --peers entry names it. */
	subject_stop(&one);
	fake_down(&f1);
	UNTIL(state_of(&two, "one") == MEMBER_GONE);
	UNTIL(!members_find(two.m, "one"));
	EQ(two.forgotten, 1);
	EQ(members_view(two.m, true)->n, 1);
	EQ(tally(&two).n, 0);
	subject_stop(&two);
	fake_down(&f2);
	end();
}

static void test_only_ourselves(void)
{
	struct fake f = {0};
	struct subject s;
	char entry[64];
	int hits;

	begin();
	fake_up_on(&f, "127.0.0.1", 0);
	dns_host("self.test", "127.0.0.1");
	dns_host("self.test", "127.0.0.1");
	subject_init(&s, "me");
	s.cfg.port = f.port;
	(void)snprintf(entry, sizeof(entry), "dns:self.test:%u", f.port);
	subject_peer(&s, entry);
	subject_peer(&s, f.addr);
	subject_peer(&s, f.addr);
	subject_start(&s);
	f.real = &s.m;
	UNTIL(members_settled(s.m) && tally(&s).n == 0);
	EQ(members_alive(s.m), 0);
	EQ(members_view(s.m, true)->n, 1);
	/* Rarely greeted: another node may get the address. */
	hits = f.hits;
	run_for((uint64_t)GREET_MS * 10);
	OK(f.hits <= hits + 2);
	f.real = NULL;
	f.id = "other";
	UNTIL(alive(&s, "other"));
	f.real = &s.m;
	UNTIL(!members_find(s.m, "other"));
	EQ(members_alive(s.m), 0);
	subject_stop(&s);
	fake_down(&f);
	end();
}

static const char *const garbage[] = {
	"",
	"hello",
	"[]",
	"{}",
	"null",
	"{\"id\":1}",
	"{\"id\":\"\"}",
	"{\"id\":\"a b\"}",
	"{\"id\":\"\\u00e4\"}",
	"{\"id\":\"a\\n\"}",
	"{\"id\":\"a\",\"name\":7}",
	"{\"id\":\"a\",\"zone\":\"\\u001b[2J\"}",
	"{\"id\":\"a\",\"version\":null}",
	"{\"id\":\"a\"",
	"{\"id\":\"a\"}}",
	/* 64 characters */
	("{\"id\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}"),
};

static void test_garbage(void)
{
	struct fake f[ARRAY_SIZE(garbage) + 2] = {0};
	size_t n = ARRAY_SIZE(garbage);
	CLEANUP(freep) char *huge = calloc(1, 70001);
	struct subject s;

	begin();
	subject_init(&s, "me");
	(void)memset(huge, ' ', 70000);
	(void)memcpy(huge, "{\"id\":\"a\"}", 10);
	for (size_t i = 0; i < n + 2; i++) {
		f[i].body = i < n ? garbage[i] : huge;
		if (i > n) {
			f[i].body = NULL;
			f[i].status = 503;
		}
		fake_up(&f[i], "127.0.0.1", "bad");
		subject_peer(&s, f[i].addr);
	}
	subject_start(&s);
	for (size_t i = 0; i < n + 2; i++)
		UNTIL(f[i].hits >= 4);
	EQ(tally(&s).by_state[MEMBER_NEW], n + 2);
	OK(tally(&s).last->failures >= 3);
	OK(tally(&s).last->why[0]);
	EQ(members_alive(s.m), 0);
	OK(members_settled(s.m));
	OK(metrics_total("peerd_greetings_total", "garbage") >= n * 4);
	OK(metrics_total("peerd_greetings_total", "refused") >= 4);

	/* A node whose answers become valid is taken. */
	f[3].body = "{\"id\":\"sane\",\"later\":[1,2]}";
	UNTIL(alive(&s, "sane"));
	STREQ(members_find(s.m, "sane")->name, "");
	/* A member whose answers become invalid is gone, with a reason. */
	f[3].body = garbage[1];
	UNTIL(state_of(&s, "sane") == MEMBER_GONE);
	OK(strstr(members_find(s.m, "sane")->why, "JSON"));
	subject_stop(&s);
	for (size_t i = 0; i < n + 2; i++)
		fake_down(&f[i]);
	end();
}

static void test_hangs(void)
{
	struct fake f = {0}, g = {0};
	struct subject s;

	begin();
	fake_up(&f, "127.0.0.2", "two");
	fake_up(&g, "127.0.0.3", "three");
	subject_init(&s, "me");
	subject_peer(&s, f.addr);
	subject_peer(&s, g.addr);
	subject_start(&s);
	UNTIL(alive(&s, "two") && alive(&s, "three"));
	f.hang = true;
	UNTIL(state_of(&s, "two") == MEMBER_SUSPECT);
	OK(in_view(&s, true, "two")); /* still alive */
	EQ(members_alive(s.m), 2);
	UNTIL(state_of(&s, "two") == MEMBER_GONE);
	UNTIL(!in_view(&s, true, "two"));
	OK(members_find(s.m, "two")->why[0]);
	OK(alive(&s, "three"));
	f.hang = false;
	UNTIL(alive(&s, "two"));
	UNTIL(in_view(&s, true, "two"));
	/* members_free() while a greeting hangs. */
	f.hang = true;
	f.nparked = 0;
	UNTIL(f.nparked > 0);
	subject_stop(&s);
	fake_down(&f);
	fake_down(&g);
	end();
}

static void test_comes_back(void)
{
	struct fake f = {0};
	struct subject s;

	begin();
	log_forget();
	fake_up(&f, "127.0.0.2", "two");
	subject_init(&s, "me");
	s.cfg.greet_ms = 20;
	subject_peer(&s, f.addr);
	subject_start(&s);
	UNTIL(alive(&s, "two"));
	fake_down(&f);
	UNTIL(state_of(&s, "two") == MEMBER_GONE);
	/* Named by --peers: never forgotten. */
	EQ(logged("\"member alive\""), 1);
	EQ(logged("\"member suspect\""), 1);
	EQ(logged("\"member gone\""), 1);
	EQ(logged("no member is alive"), 1);
	run_for((uint64_t)s.cfg.greet_ms * 120);
	EQ(logged("\"member gone\""), 1);
	OK(members_find(s.m, "two") != NULL);
	OK(members_find(s.m, "two")->failures > MEMBERS_GONE_AFTER);
	fake_again(&f);
	UNTIL(alive(&s, "two"));
	EQ(members_find(s.m, "two")->failures, 0);
	EQ(s.forgotten, 0);

	EQ(logged("\"member alive\""), 2);
	/* It comes back with another id. */
	f.id = "other";
	UNTIL(alive(&s, "other") && !members_find(s.m, "two"));
	UNTIL(s.forgotten == 1);
	UNTIL(in_view(&s, true, "other") && !in_view(&s, true, "two"));
	EQ(members_alive(s.m), 1);
	subject_stop(&s);
	fake_down(&f);
	end();
}

static void test_two_addresses(void)
{
	struct fake f = {0}, g = {0};
	struct member *mb;
	struct subject s;
	const char *other;

	begin();
	fake_up(&f, "127.0.0.2", "two");
	fake_up(&g, "127.0.0.3", "two");
	subject_init(&s, "me");
	subject_peer(&s, f.addr);
	subject_peer(&s, g.addr);
	subject_peer(&s, g.addr);
	subject_start(&s);
	UNTIL(members_settled(s.m) && alive(&s, "two") && tally(&s).n == 1);
	EQ(members_alive(s.m), 1);
	UNTIL(s.forgotten == 1); /* expected to be the other node */
	mb = members_find(s.m, "two");
	/* The address in use fails; the other takes over. */
	other = strcmp(mb->addr, f.addr) == 0 ? g.addr : f.addr;
	fake_down(other == g.addr ? &f : &g);
	UNTIL(strcmp(mb->addr, other) == 0);
	UNTIL(mb->state == MEMBER_ALIVE);
	OK(members_find(s.m, "two") == mb);
	/* Another node comes up at the first address. */
	if (other == g.addr) {
		f.id = "new";
		fake_again(&f);
	} else {
		g.id = "new";
		fake_again(&g);
	}
	UNTIL(alive(&s, "new"));
	UNTIL(alive(&s, "two"));
	STREQ(mb->addr, other);
	EQ(members_alive(s.m), 2);
	subject_stop(&s);
	fake_down(&f);
	fake_down(&g);
	end();
}

/* Lookups that fail or find nothing drop no member that answers. */
static void test_dns_comes_and_goes(void)
{
	struct fake f = {0}, g = {0};
	struct subject s;
	char entry[64];
	int n;

	begin();
	fake_up(&f, "127.0.0.2", "two");
	g.id = "three";
	fake_up_on(&g, "127.0.0.3", f.port);
	(void)snprintf(entry, sizeof(entry), "dns:p.test:%u", f.port);
	subject_init(&s, "me");
	subject_peer(&s, entry);
	subject_start(&s);
	UNTIL(members_settled(s.m)); /* NXDOMAIN */
	EQ(tally(&s).n, 0);
	dns_host("p.test", "127.0.0.2");
	UNTIL(alive(&s, "two"));
	dns_host("p.test", "127.0.0.3");
	UNTIL(alive(&s, "three"));

	for (int code = 2; code <= 3; code++) {
		dns_clear();
		dns_code("p.test", 0, code);
		n = dns_queries();
		UNTIL(dns_queries() > n + 6);
		n = f.hits;
		UNTIL(f.hits > n + 3);
		OK(alive(&s, "two") && alive(&s, "three"));
		EQ(s.forgotten, 0);
	}
	/* A member that no name leads to (NXDOMAIN) and that does not answer.
	 */
	fake_down(&f);
	UNTIL(state_of(&s, "two") == MEMBER_GONE);
	UNTIL(!members_find(s.m, "two"));
	EQ(s.forgotten, 1);
	OK(alive(&s, "three"));
	EQ(tally(&s).n, 1);
	subject_stop(&s);
	fake_down(&g);
	end();
}

/* A lookup that fails at first: the start is settled, and the lookup is
 * repeated later. */
static void test_sick_server(void)
{
	struct fake f = {0};
	struct subject s;

	begin();
	fake_up(&f, "127.0.0.2", "two");
	dns_code("_p._tcp.test", 0, 2);
	subject_init(&s, "me");
	subject_peer(&s, "srv:_p._tcp.test");
	subject_start(&s);
	UNTIL(members_settled(s.m));
	EQ(tally(&s).n, 0);
	dns_clear();
	dns_srv("_p._tcp.test", f.port, "t.test");
	dns_host("t.test", "127.0.0.2");
	UNTIL(alive(&s, "two"));
	subject_stop(&s);
	fake_down(&f);
	end();
}

/* host:port takes one address, the first that works. */
static void test_host(void)
{
	struct fake f = {0};
	struct subject s;
	char entry[64];

	begin();
	fake_up(&f, "127.0.0.2", "two");
	dns_host("h.test", "127.0.0.9"); /* nobody there */
	dns_host("h.test", "127.0.0.2");
	(void)snprintf(entry, sizeof(entry), "h.test:%u", f.port);
	subject_init(&s, "me");
	subject_peer(&s, entry);
	subject_start(&s);
	UNTIL(members_settled(s.m));
	EQ(tally(&s).n, 1);
	UNTIL(alive(&s, "two"));
	subject_stop(&s);
	fake_down(&f);
	end();
}

static void test_notes(void)
{
	struct fake f = {0}, g = {0};
	struct subject s;
	int hits, changed;

	begin();
	fake_up(&f, "127.0.0.2", "two");
	fake_up(&g, "127.0.0.3", "three");
	subject_init(&s, "me");
	s.cfg.greet_ms = 120000; /* turns do not come without an event */
	subject_peer(&s, f.addr);
	subject_peer(&s, g.addr);
	subject_start(&s);
	UNTIL(alive(&s, "two") && alive(&s, "three") && members_settled(s.m) &&
	      s.generation > 1 && in_view(&s, true, "three"));
	run_for(20);
	hits = f.hits;
	changed = s.changed;
	note(&s, "two", false, "it was slow");
	note(&s, "two", false, "it is still slow");
	EQ(state_of(&s, "two"), MEMBER_SUSPECT);
	EQ(members_find(s.m, "two")->failures, 1);
	STREQ(members_find(s.m, "two")->why, "it is still slow");
	OK(in_view(&s, true, "two"));
	UNTIL(f.hits == hits + 1); /* at once */
	UNTIL(alive(&s, "two"));
	note(&s, "two", false, "x");
	note(&s, "two", true, NULL);
	OK(alive(&s, "two"));
	EQ(members_find(s.m, "two")->failures, 0);
	run_for(20);
	EQ(s.changed, changed); /* the alive members did not change meanwhile */

	/* Both fail; greetings after failed transfers detect it. */
	s.busy = true;
	fake_down(&f);
	fake_down(&g);
	s.busy = false;
	note(&s, "two", false, "reset");
	note(&s, "three", false, "reset");
	UNTIL(members_find(s.m, "two")->failures >= 2 &&
	      members_find(s.m, "three")->failures >= 2);
	/* A later transfer succeeds. */
	note(&s, "two", true, NULL);
	OK(alive(&s, "two"));
	subject_stop(&s);
	end();
}

static void test_zone_changes(void)
{
	struct fake f = {.zone = "z1"};
	struct subject s;

	begin();
	fake_up(&f, "127.0.0.2", "two");
	subject_init(&s, "me");
	subject_peer(&s, f.addr);
	subject_start(&s);
	UNTIL(in_view(&s, false, "two"));
	f.zone = "z2";
	UNTIL(!in_view(&s, false, "two"));
	OK(in_view(&s, true, "two"));
	OK(!members_find(s.m, "two")->same_zone);
	subject_stop(&s);
	fake_down(&f);
	end();
}

/* ---- Incoming greetings ---- */

struct hail {
	int open;
	int status[2000];
	char body[512];
	size_t len;
};

static int hail_data(void *arg, struct http_exchange *x, const void *bytes,
		     size_t len)
{
	struct hail *h = arg;

	(void)x;
	if (h->len + len < sizeof(h->body))
		memcpy(h->body + h->len, bytes, len);
	h->len += len;
	return 0;
}

static void hail_done(void *arg, struct http_exchange *x, int r,
		      const char *why)
{
	struct hail *h = arg;

	(void)x;
	(void)why;
	EQ(r, 0);
	h->open--;
}

static const struct http_callbacks hail_callbacks = {.data = hail_data,
						     .done = hail_done};

static void hail(struct hail *h, struct fake *f, const char *listen)
{
	struct http_header hd = {"Peerd-Listen", listen};
	struct http_request rq = {.headers = &hd, .nheaders = listen != NULL};
	struct http_exchange *x;
	char url[128];

	(void)snprintf(url, sizeof(url), "http://%s/peer/v1/hello", f->addr);
	rq.url = url;
	h->open++;
	h->len = 0;
	EQ(http_start(client, &rq, &hail_callbacks, h, &x), 0);
}

static void test_hello(void)
{
	static const char *const wrong[] = {"",	  "0", "65536",	      "-1",
					    "1x", "x", "00000000080", "1,2"};
	struct fake f = {0};
	struct hail h = {0};
	struct subject s;
	char port[16];

	begin();
	fake_up(&f, "127.0.0.1", "");
	subject_init(&s, "me");
	subject_start(&s);
	f.real = &s.m;
	hail(&h, &f, NULL);
	UNTIL(h.open == 0);
	h.body[h.len] = '\0';
	STREQ(h.body, "{\"id\":\"me\",\"name\":\"me\",\"zone\":\"z1\","
		      "\"version\":\"0.1\"}");
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		hail(&h, &f, wrong[i]);
	UNTIL(h.open == 0);
	EQ(tally(&s).n, 0);

	/* A stranger with a thousand ports. Not all at once: curl 8.14 looks at
	 * each request that waits for a connection whenever one ends. */
	for (int i = 0; i < 1000; i++) {
		(void)snprintf(port, sizeof(port), "%d", 20000 + i);
		hail(&h, &f, port);
		if (i % 50 == 0)
			UNTIL(h.open == 0);
	}
	UNTIL(h.open == 0);
	OK(tally(&s).n > 0 && tally(&s).n <= 16);
	/* No node answers there: forgotten. */
	UNTIL(tally(&s).n == 0);
	EQ(members_alive(s.m), 0);
	subject_stop(&s);
	fake_down(&f);
	end();
}

/* A gone member that greets this node need not wait for its turn. */
static void test_greeted_back(void)
{
	struct fake me = {0}, f = {0};
	struct hail h = {0};
	struct subject s;
	char port[16];
	uint64_t from;

	begin();
	fake_up(&me, "127.0.0.1", "");
	fake_up(&f, "127.0.0.1", "two");
	subject_init(&s, "me");
	s.cfg.greet_ms = 1000;
	subject_peer(&s, f.addr);
	subject_start(&s);
	me.real = &s.m;
	UNTIL(alive(&s, "two"));
	fake_down(&f);
	note(&s, "two", false, "reset");
	UNTIL(members_find(s.m, "two")->failures > MEMBERS_GONE_AFTER);
	EQ(state_of(&s, "two"), MEMBER_GONE);
	/* Now it would be greeted after 10 s. */
	fake_again(&f);
	from = now_ms();
	(void)snprintf(port, sizeof(port), "%u", f.port);
	hail(&h, &me, port);
	UNTIL(alive(&s, "two"));
	OK(now_ms() - from < 7000);
	UNTIL(h.open == 0);
	subject_stop(&s);
	fake_down(&f);
	fake_down(&me);
	end();
}

/* ---- Trust ---- */

/* Two members, one whose certificate has expired, and one of another CA. */
static void test_trust(void)
{
	struct identity ca = make_identity((struct cert_spec){.cn = "ca"});
	struct identity other = make_identity((struct cert_spec){.cn = "o"});
	struct tls_server *tls[4];
	struct fake f[4] = {0};
	struct subject one, two;

	begin();
	log_forget();
	make_files(&ca);
	tls[0] = make_tls("one", &ca, 0, 0);
	tls[1] = make_tls("two", &ca, 0, 0);
	tls[2] = make_tls("old", &ca, -2 * DAY, -DAY);
	tls[3] = make_tls("stranger", &other, 0, 0);
	for (int i = 0; i < 4; i++) {
		f[i].tls = tls[i];
		fake_up(&f[i], "127.0.0.1", i == 2 ? "old" : "stranger");
	}
	subject_init(&two, "two");
	use_tls(&two, file("two.crt"), file("two.key"));
	two.cfg.port = f[1].port;
	subject_start(&two);
	f[1].real = &two.m;
	subject_init(&one, "one");
	use_tls(&one, file("one.crt"), file("one.key"));
	one.cfg.port = f[0].port;
	for (int i = 0; i < 4; i++)
		subject_peer(&one, f[i].addr);
	subject_start(&one);
	f[0].real = &one.m;
	UNTIL(alive(&one, "two") && alive(&two, "one"));
	UNTIL(metrics_total("peerd_greetings_total", "certificate") >= 6);
	EQ(members_alive(one.m), 1);
	EQ(tally(&one).by_state[MEMBER_NEW], 2);
	OK(strstr(tally(&one).last->why, "certificate"));
	EQ(f[2].hits + f[3].hits, 0);
	EQ(logged("do not trust"), 1); /* not once for each */
	subject_stop(&one);
	subject_stop(&two);
	for (int i = 0; i < 4; i++) {
		fake_down(&f[i]);
		tls_server_free(&tls[i]);
	}
	end();
	remove_files();
	free_identity(&ca);
	free_identity(&other);
}

/* ---- Many ---- */

#define MANY 2000

static void name_many(const char *name)
{
	char ip[32];

	for (int i = 0; i < MANY; i++) {
		(void)snprintf(ip, sizeof(ip), "127.1.%d.%d", i / 250,
			       i % 250 + 1);
		dns_host(name, ip);
	}
}

static double cpu_seconds(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void test_many(void)
{
	struct fake f = {.prefix = "node-"};
	struct subject s;
	char entry[64];
	uint64_t from;
	double rate;
	int hits;

	begin();
	fake_up_on(&f, "0.0.0.0", 0);
	name_many("many.test");
	(void)snprintf(entry, sizeof(entry), "dns:many.test:%u", f.port);
	subject_init(&s, "me");
	subject_peer(&s, entry);
	subject_start(&s);
	/* 2,500 a second at this greet_ms. */
	from = now_ms();
	UNTIL(members_alive(s.m) >= MANY - MANY / 10 && members_settled(s.m));
	rate = (double)f.hits / ((double)(now_ms() - from) + 1);
	OK(rate <= 150.0 / GREET_MS + 1);
	OK(f.hits >= MANY - MANY / 10);
	UNTIL(members_alive(s.m) == MANY);
	/* The view follows in a later turn of the loop. */
	UNTIL(members_view(s.m, true)->n == MANY + 1);
	EQ(tally(&s).n, MANY);

	/* Then all are greeted again, each at its time. */
	hits = f.hits;
	from = now_ms();
	run_for(2000);
	rate = (double)(f.hits - hits) / (double)(now_ms() - from);
	OK(f.hits > hits);
	OK(rate <= 150.0 / GREET_MS);
	subject_stop(&s);
	fake_down(&f);
	end();
}

/* 2,000 addresses without a node, at the pace of a real cluster. */
static void test_many_dead(void)
{
	struct subject s;
	struct fake f = {0};
	char entry[64];
	double cpu, before, n, elapsed;
	uint64_t from;

	begin();
	fake_up(&f, "127.0.0.1", "x"); /* a port that no process uses then */
	fake_down(&f);
	name_many("dead.test");
	(void)snprintf(entry, sizeof(entry), "dns:dead.test:%u", f.port);
	subject_init(&s, "me");
	s.cfg.greet_ms = 3000;
	s.cfg.lookup_ms = 5000;
	subject_peer(&s, entry);
	subject_start(&s);
	UNTIL(tally(&s).n == MANY);
	run_for(500);
	before = metrics_total("peerd_greetings_total", NULL);
	cpu = cpu_seconds();
	from = now_ms();
	run_for(3000);
	elapsed = (double)(now_ms() - from) / 1000;
	n = metrics_total("peerd_greetings_total", NULL) - before;
	cpu = cpu_seconds() - cpu;
	printf("# %.0f greetings and %.2f s of processor in %.1f s\n", n, cpu,
	       elapsed);
	OK(n <= elapsed * 50 + 60);
	OK(cpu < elapsed * 0.8); /* no busy loop */
	EQ(members_alive(s.m), 0);
	subject_stop(&s);
	end();
}

int main(void)
{
	rig_start();
	RUN(test_bad_config);
	RUN(test_alone);
	RUN(test_one_member);
	RUN(test_tls_request);
	RUN(test_stranger_greets);
	RUN(test_only_ourselves);
	RUN(test_garbage);
	RUN(test_hangs);
	RUN(test_comes_back);
	RUN(test_two_addresses);
	RUN(test_dns_comes_and_goes);
	RUN(test_sick_server);
	RUN(test_host);
	RUN(test_notes);
	RUN(test_zone_changes);
	RUN(test_hello);
	RUN(test_greeted_back);
	RUN(test_trust);
	RUN(test_many);
	RUN(test_many_dead);
	return rig_end();
}
