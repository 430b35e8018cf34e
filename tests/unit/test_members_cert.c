/* Whose id it is: members-cert.c. */
#include "tests/unit/members-tls.h"

#define PORTS 20

static struct identity ca;
static struct subject s;
static struct fake f[PORTS];
static struct tls_server *mine, *evil;

static void begin_tls(void)
{
	begin();
	log_forget();
	ca = make_identity((struct cert_spec){.cn = "ca"});
	make_files(&ca);
	mine = make_tls("me", &ca, 0, 0);
	evil = make_tls("evil", &ca, 0, 0);
	memset(f, 0, sizeof(f));
	subject_init(&s, "me");
	use_tls(&s, file("me.crt"), file("me.key"));
}

static void end_tls(void)
{
	subject_stop(&s);
	for (int i = 0; i < PORTS; i++)
		if (f[i].server)
			fake_down(&f[i]);
	tls_server_free(&mine);
	tls_server_free(&evil);
	end();
	remove_files();
	free_identity(&ca);
}

static void node_up(int i, struct tls_server *tls, const char *ip,
		    const char *id)
{
	f[i].tls = tls;
	fake_up(&f[i], ip, id);
	subject_peer(&s, f[i].addr);
}

static void many_ids(const char *ip, struct tls_server *tls)
{
	static char ids[PORTS][8];

	for (int i = 0; i < PORTS; i++) {
		(void)snprintf(ids[i], sizeof(ids[i]), "id%d", i);
		node_up(i, tls, ip, ids[i]);
	}
}

static bool all_greeted(int times)
{
	for (int i = 0; i < PORTS; i++)
		if (f[i].hits < times)
			return false;
	return true;
}

static int first_alive(void)
{
	for (int i = 0; i < PORTS; i++)
		if (alive(&s, f[i].id))
			return i;
	return -1;
}

/* One certificate, one host, many ports: one member. */
static void test_many_ids(void)
{
	int first;

	begin_tls();
	many_ids("127.0.0.2", evil);
	subject_start(&s);
	UNTIL(all_greeted(6));
	EQ(members_alive(s.m), 1);
	EQ(tally(&s).by_state[MEMBER_NEW], PORTS - 1);
	EQ(logged("not accepted"), 1);
	OK(metrics_total("peerd_greetings_total", "refused") >= PORTS - 1);

	/* It goes away, and one of the others is it. */
	first = first_alive();
	OK(first >= 0);
	fake_down(&f[first]);
	UNTIL(first_alive() >= 0 && first_alive() != first);
	EQ(members_alive(s.m), 1);
	end_tls();
}

/* Nodes may share a certificate, each on its host. */
static void test_shared_certificate(void)
{
	begin_tls();
	node_up(0, evil, "127.0.0.2", "two");
	node_up(1, evil, "127.0.0.3", "three");
	node_up(2, mine, "127.0.0.2", "four");
	subject_start(&s);
	UNTIL(members_alive(s.m) == 3);
	STREQ(members_find(s.m, "two")->cert, "evil");
	STREQ(members_find(s.m, "four")->cert, "me");
	end_tls();
}

static void test_without_certificates(void)
{
	begin();
	memset(f, 0, sizeof(f));
	subject_init(&s, "me");
	many_ids("127.0.0.2", NULL);
	subject_start(&s);
	UNTIL(all_greeted(6));
	EQ(members_alive(s.m), 16);
	subject_stop(&s);
	for (int i = 0; i < PORTS; i++)
		fake_down(&f[i]);
	end();
}

/* Another's id is not to be had, also while that is away. */
static void test_stolen_id(void)
{
	begin_tls();
	node_up(0, mine, "127.0.0.2", "two");
	node_up(1, evil, "127.0.0.3", "three");
	subject_start(&s);
	UNTIL(alive(&s, "two") && alive(&s, "three"));
	f[1].id = "two";
	UNTIL(state_of(&s, "three") == MEMBER_GONE);
	STREQ(members_find(s.m, "two")->addr, f[0].addr);
	fake_down(&f[0]);
	UNTIL(state_of(&s, "two") == MEMBER_GONE);
	f[1].hits = 0;
	UNTIL(f[1].hits >= 3);
	EQ(members_alive(s.m), 0);
	STREQ(members_find(s.m, "two")->cert, "me");
	fake_again(&f[0]);
	UNTIL(alive(&s, "two"));
	STREQ(members_find(s.m, "two")->addr, f[0].addr);
	end_tls();
}

/* A key that is renewed keeps its name; and who is given another name is itself
 * once its old self is gone. */
static void test_renewed(void)
{
	struct tls_server *again;

	begin_tls();
	node_up(0, mine, "127.0.0.2", "two");
	subject_start(&s);
	UNTIL(alive(&s, "two"));
	again = make_tls("me", &ca, 0, 0);
	fake_down(&f[0]);
	f[0].tls = again;
	fake_again(&f[0]);
	UNTIL(state_of(&s, "two") == MEMBER_ALIVE && f[0].hits >= 4);
	fake_down(&f[0]);
	f[0].tls = evil;
	fake_again(&f[0]);
	UNTIL(alive(&s, "two") &&
	      strcmp(members_find(s.m, "two")->cert, "evil") == 0);
	fake_down(&f[0]);
	f[0].server = NULL;
	tls_server_free(&again);
	end_tls();
}

/* ---- Requests ---- */

struct request {
	const char *id;
	bool done;
	char found[MEMBER_ID_MAX];
};

static void request_handler(void *arg, struct http_req *rq)
{
	struct request *q = arg;
	const struct member *mb = members_speaker(s.m, rq, q->id);

	(void)snprintf(q->found, sizeof(q->found), "%s", mb ? mb->id : "none");
	http_reply(rq, 200, NULL, NULL, 0);
}

static void request_done(void *arg, struct http_exchange *x, int r,
			 const char *why)
{
	struct request *q = arg;

	(void)x;
	EQ(r, 0);
	if (r < 0)
		printf("# %s\n", why);
	q->done = true;
}

/* Who is believed to speak when a request says that it is of that id, and shows
 * that certificate. */
static const char *speaker(const char *id, const char *cert)
{
	static struct request q;
	const struct http_callbacks cb = {.done = request_done};
	struct http_server_config cfg = {.loop = loop};
	struct http_server *server;
	struct http_request rq = {.peer = true, .ca_file = file("ca.crt")};
	struct http_exchange *x;
	struct error err = {""};
	char crt[160], key[160], url[64];
	bool stopped = false;
	uint16_t port;

	q = (struct request){.id = id};
	if (http_server_new(&cfg, &server) < 0 ||
	    http_listen(server, "127.0.0.1:0", mine, request_handler, &q, &port,
			&err) < 0)
		BAIL(err.text);
	(void)snprintf(crt, sizeof(crt), "%s/%s.crt", dir, cert);
	(void)snprintf(key, sizeof(key), "%s/%s.key", dir, cert);
	(void)snprintf(url, sizeof(url), "https://127.0.0.1:%u/", port);
	rq.url = url;
	rq.cert_file = crt;
	rq.key_file = key;
	EQ(http_start(client, &rq, &cb, &q, &x), 0);
	UNTIL(q.done);
	http_server_stop(server, 0, on_stopped, &stopped);
	UNTIL(stopped);
	http_server_free(&server);
	return q.found;
}

static void test_speaker(void)
{
	struct tls_server *two;

	begin_tls();
	two = make_tls("two", &ca, 0, 0);
	node_up(0, two, "127.0.0.2", "two");
	node_up(1, evil, "127.0.0.3", "three");
	subject_start(&s);
	UNTIL(members_alive(s.m) == 2);
	STREQ(speaker("two", "two"), "two");
	STREQ(speaker("three", "evil"), "three");
	STREQ(speaker("two", "evil"), "none");
	STREQ(speaker("three", "two"), "none");
	STREQ(speaker("nobody", "two"), "none");
	STREQ(speaker(NULL, "two"), "none");
	end_tls();
	tls_server_free(&two);
}

int main(void)
{
	rig_start();
	RUN(test_many_ids);
	RUN(test_shared_certificate);
	RUN(test_without_certificates);
	RUN(test_stolen_id);
	RUN(test_renewed);
	RUN(test_speaker);
	return rig_end();
}
