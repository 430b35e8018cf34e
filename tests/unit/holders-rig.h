/* Shared by the tests of p2p/holders.h: several nodes in one process, each with
 * its own server, client, members and holders, on loopback addresses. The
 * test's thread runs their loop while it waits. */
#ifndef TESTS_HOLDERS_RIG_H
#define TESTS_HOLDERS_RIG_H

#include <errno.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "p2p/holders-private.h"
#include "tests/unit/tap.h"

#define MAX_NODES 20
#define WAIT_MS	  60000
#define LONG_MS	  3600000

enum mode {
	ANSWER,
	HANG,
	GARBAGE,
	LIES, /* names itself, unknown members, and impossible sizes */
	ERROR_500,
};

static struct node {
	int nr;
	char id[16];
	uint16_t port;
	struct http_server *server;
	struct http_client *client;
	struct members *members;
	struct holders *holders;
	enum mode mode;
	struct http_req *parked[64];
	int nparked;
	int gets, posts;
	int lookups, lookups_found;
	uint64_t max_post_bytes;
} nodes[MAX_NODES];

static int nnodes;
static struct loop *loop;
static struct http_client *client; /* the test's own */
/* Settings of the nodes of the next cluster. */
static struct holders_config settings;

/* ---- Waiting ---- */

struct wait {
	uv_timer_t timer;
	bool (*done)(void);
	uint64_t until_ms;
	bool ok, closed;
};

static inline void on_wait(uv_timer_t *t)
{
	struct wait *w = t->data;

	w->ok = w->done();
	if (!w->ok && now_ms() < w->until_ms)
		return;
	(void)uv_timer_stop(t);
	loop_stop(loop);
}

static inline void on_wait_closed(uv_handle_t *t)
{
	struct wait *w = t->data;

	w->closed = true;
	loop_stop(loop);
}

static inline bool run_for(bool (*done)(void), uint64_t ms)
{
	struct wait w = {.done = done, .until_ms = now_ms() + ms};

	(void)uv_timer_init(loop_uv(loop), &w.timer);
	w.timer.data = &w;
	(void)uv_timer_start(&w.timer, on_wait, 0, 2);
	loop_run(loop);
	uv_close((uv_handle_t *)&w.timer, on_wait_closed);
	while (!w.closed)
		loop_run(loop);
	return w.ok;
}

static inline bool run_until(bool (*done)(void))
{
	return run_for(done, WAIT_MS);
}

static inline bool never(void)
{
	return false;
}

/* Runs some turns of the loop, so that an unwanted event has time to happen. */
static inline void run_a_bit(void)
{
	(void)run_for(never, 60);
}

/* ---- Nodes ---- */

static inline void on_gone(struct http_req *rq)
{
	struct node *n = http_req_data(rq);

	for (int i = 0; i < n->nparked; i++)
		if (n->parked[i] == rq)
			n->parked[i] = n->parked[--n->nparked];
	http_release(rq);
}

static inline void park(struct node *n, struct http_req *rq)
{
	if (n->nparked == ARRAY_SIZE(n->parked))
		BAIL("too many requests are parked");
	n->parked[n->nparked++] = rq;
	http_req_set_data(rq, n);
	http_req_on_gone(rq, on_gone);
}

static inline void reply_lies(struct http_req *rq)
{
	static const char *const lies[] = {
		"{\"size\":-1,\"holders\":[]}",
		"{\"size\":17592186044417,\"holders\":[\"n0\"]}",
		"{\"size\":1,\"holders\":[\"n0\",5]}",
		"{\"size\":1,\"holders\":{}}",
		"{\"size\":1.5,\"holders\":[]}",
		"[]",
	};
	static unsigned int i;
	const char *s = lies[i++ % ARRAY_SIZE(lies)];

	http_reply(rq, 200, NULL, s, strlen(s));
}

static inline void handler(void *arg, struct http_req *rq)
{
	struct node *n = arg;
	size_t len;

	if (strcmp(http_req_path(rq), "/peer/v1/hello") == 0) {
		members_hello(n->members, rq);
		return;
	}
	if (strcmp(http_req_method(rq), "POST") == 0) {
		n->posts++;
		(void)http_req_body(rq, &len);
		n->max_post_bytes = max_u64(n->max_post_bytes, len);
	} else {
		n->gets++;
	}
	switch (n->mode) {
	case ANSWER:
		holders_handle(n->holders, rq);
		break;
	case HANG:
		park(n, rq);
		break;
	case GARBAGE:
		http_reply(rq, 200, NULL, "\xff\x00garbage", 9);
		break;
	case LIES:
		reply_lies(rq);
		break;
	case ERROR_500:
		http_reply_error(rq, 500, "UNKNOWN", "no");
		break;
	}
}

static inline void on_changed(void *arg)
{
	struct node *n = arg;

	if (n->holders)
		holders_members_changed(n->holders);
}

static inline void on_forget(void *arg, struct member *mb)
{
	struct node *n = arg;

	if (n->holders)
		holders_forget(n->holders, mb);
}

static inline void on_looked_up(void *arg, double seconds, bool found)
{
	struct node *n = arg;

	OK(seconds >= 0 && seconds < 3600);
	n->lookups++;
	n->lookups_found += found;
}

static inline void node_listen(int nr)
{
	struct node *n = &nodes[nr];
	struct http_server_config cfg = {.loop = loop};
	struct error err = {""};
	char addr[32];

	*n = (struct node){.nr = nr};
	(void)snprintf(n->id, sizeof(n->id), "n%d", nr);
	EQ(http_server_new(&cfg, &n->server), 0);
	(void)snprintf(addr, sizeof(addr), "127.0.0.%d:0", nr + 1);
	if (http_listen(n->server, addr, NULL, handler, n, &n->port, &err) < 0)
		BAIL(err.text);
}

static inline void node_new_holders(struct node *n)
{
	struct holders_config cfg = settings;

	cfg.loop = loop;
	cfg.client = n->client;
	cfg.members = n->members;
	cfg.id = n->id;
	cfg.looked_up = on_looked_up;
	cfg.arg = n;
	if (holders_new(&cfg, &n->holders) < 0)
		BAIL("holders_new");
}

static inline void node_start(struct node *n, const struct string_list *peers)
{
	struct http_client_config cc = {.user_agent = "test/1"};
	struct members_config mc = {.loop = loop,
				    .peers = peers,
				    .id = n->id,
				    .name = n->id,
				    .zone = "",
				    .version = "1",
				    .port = n->port,
				    .greet_ms = 500,
				    .changed = on_changed,
				    .forget = on_forget,
				    .arg = n};
	struct error err = {""};

	if (http_client_new(loop, &cc, &n->client) < 0)
		BAIL("http_client_new");
	mc.client = n->client;
	if (members_new(&mc, &n->members, &err) < 0)
		BAIL(err.text);
	node_new_holders(n);
}

static inline bool all_alive(void)
{
	int living = 0;

	for (int i = 0; i < nnodes; i++)
		living += nodes[i].members != NULL;
	for (int i = 0; i < nnodes; i++)
		if (nodes[i].members &&
		    members_alive(nodes[i].members) != (unsigned int)living - 1)
			return false;
	return true;
}

static inline void on_stopped(void *arg)
{
	struct node *n = arg;

	http_server_free(&n->server);
}

static inline void node_kill(struct node *n)
{
	holders_free(&n->holders);
	OK(!n->holders);
	members_free(&n->members);
	http_client_free(&n->client);
	if (n->server)
		http_server_stop(n->server, 0, on_stopped, n);
}

static inline void begin(int n)
{
	CLEANUP(string_list_release) struct string_list peers = {NULL, 0};
	struct http_client_config cc = {.user_agent = "test/1"};

	if (loop_new(&loop) < 0 || http_client_new(loop, &cc, &client) < 0)
		BAIL("loop");
	if (settings.batch_ms == 0)
		settings.batch_ms = 5;
	if (settings.again_ms == 0)
		settings.again_ms = LONG_MS;
	if (settings.ttl_ms == 0)
		settings.ttl_ms = LONG_MS;
	if (settings.none_ms == 0)
		settings.none_ms = LONG_MS;
	if (settings.found_ms == 0)
		settings.found_ms = LONG_MS;
	nnodes = n;
	for (int i = 0; i < n; i++) {
		char addr[32];

		node_listen(i);
		(void)snprintf(addr, sizeof(addr), "127.0.0.%d:%u", i + 1,
			       nodes[i].port);
		EQ(string_list_add(&peers, addr), 0);
	}
	for (int i = 0; i < n; i++)
		node_start(&nodes[i], &peers);
	OK(run_until(all_alive));
}

static inline bool all_stopped(void)
{
	for (int i = 0; i < nnodes; i++)
		if (nodes[i].server)
			return false;
	return true;
}

static inline void end(void)
{
	for (int i = 0; i < nnodes; i++)
		if (nodes[i].members)
			node_kill(&nodes[i]);
	OK(run_until(all_stopped));
	http_client_free(&client);
	loop_free(&loop);
	settings = (struct holders_config){0};
}

/* ---- Keys ---- */

static inline struct holder_key key_nr(unsigned int nr)
{
	struct holder_key key = {.kind = HOLDER_SHA256};

	digest_of(&nr, sizeof(nr), &key.id);
	return key;
}

/* The node of each home. */
static inline uint32_t homes_of(const struct node *n,
				const struct holder_key *key,
				int ret[PLACE_HOMES])
{
	uint32_t v[PLACE_HOMES];
	uint32_t k = place_homes(members_view(n->members, true),
				 holder_place(key), v);

	for (uint32_t i = 0; i < k; i++) {
		struct member *mb = members_at(n->members, true, v[i]);

		ret[i] = mb ? (int)strtol(mb->id + 1, NULL, 10) : n->nr;
	}
	return k;
}

static inline bool is_home(int nr, const struct holder_key *key)
{
	int v[PLACE_HOMES];
	uint32_t n = homes_of(&nodes[nr], key, v);

	for (uint32_t i = 0; i < n; i++)
		if (v[i] == nr)
			return true;
	return false;
}

static unsigned int next_key;

/* A new key of which neither n0 nor n1 is a home. */
static inline struct holder_key new_key(void)
{
	struct holder_key key;

	do {
		key = key_nr(next_key++);
	} while (is_home(0, &key) || is_home(1, &key));
	return key;
}

static inline uint64_t got(void)
{
	uint64_t n = 0;

	for (int i = 0; i < nnodes; i++) {
		struct holders_stats st;

		if (!nodes[i].holders)
			continue;
		holders_stats(nodes[i].holders, &st);
		n += st.announcements_got;
	}
	return n;
}

static uint64_t wanted;

static inline bool got_wanted(void)
{
	return got() >= wanted;
}

/* n announces the key; waits until the three homes know it. */
static inline void announce(struct node *n, const struct holder_key *key,
			    uint64_t size)
{
	wanted = got() + PLACE_HOMES;
	holders_announce(n->holders, key, size);
	OK(run_until(got_wanted));
}

/* ---- Finding ---- */

#define MAX_FINDS 64

static struct find {
	int calls, r;
	uint64_t size;
	unsigned int n;
	char ids[256]; /* "n1 n2 " */
	struct member *first;
	void (*then)(struct find *f);
} finds[MAX_FINDS];

static int answered;
static int awaited;
static bool finding;

static inline void on_found(void *arg, int r, uint64_t size,
			    struct member *const *v, unsigned int n)
{
	struct find *f = arg;

	OK(!finding);
	f->calls++;
	f->r = r;
	f->size = size;
	f->n = n;
	f->first = n > 0 ? v[0] : NULL;
	f->ids[0] = '\0';
	for (unsigned int i = 0; i < n; i++)
		(void)snprintf(f->ids + strlen(f->ids),
			       sizeof(f->ids) - strlen(f->ids), "%s ",
			       v[i]->id);
	answered++;
	if (f->then)
		f->then(f);
}

static inline bool all_answered(void)
{
	return answered >= awaited;
}

static inline void find_start(struct node *n, const struct holder_key *key,
			      struct find *f)
{
	*f = (struct find){.then = f->then};
	finding = true;
	EQ(holders_find(n->holders, key, on_found, f), 0);
	finding = false;
	EQ(f->calls, 0);
	awaited++;
}

static inline struct find *find(struct node *n, const struct holder_key *key)
{
	struct find *f = &finds[0];

	answered = awaited = 0;
	f->then = NULL;
	find_start(n, key, f);
	OK(run_until(all_answered));
	EQ(f->calls, 1);
	return f;
}

static inline int all_gets(void)
{
	int n = 0;

	for (int i = 0; i < nnodes; i++)
		n += nodes[i].gets;
	return n;
}

/* ---- Requests of the test's own ---- */

static struct {
	bool done;
	int status, r;
	char epoch[64];
	struct buf body;
} reply;

static inline int on_reply_head(void *arg, struct http_exchange *x,
				const struct http_response *res)
{
	const char *e = http_header(x, "Peerd-Epoch", 0);

	(void)arg;
	reply.status = res->status;
	(void)snprintf(reply.epoch, sizeof(reply.epoch), "%s", e ? e : "");
	return 0;
}

static inline int on_reply_data(void *arg, struct http_exchange *x,
				const void *bytes, size_t len)
{
	(void)arg;
	(void)x;
	return buf_add(&reply.body, bytes, len);
}

static inline void on_reply_done(void *arg, struct http_exchange *x, int r,
				 const char *why)
{
	(void)arg;
	(void)x;
	(void)why;
	reply.r = r;
	reply.done = true;
}

static inline bool reply_done(void)
{
	return reply.done;
}

/* Returns the status; the body is in reply.body. */
static inline int ask(struct node *n, const char *method, const char *query,
		      const void *body, size_t len)
{
	static const struct http_callbacks cb = {.head = on_reply_head,
						 .data = on_reply_data,
						 .done = on_reply_done};
	char url[256];
	struct http_request rq = {
		.method = method, .url = url, .body = body, .body_len = len};
	struct http_exchange *x;

	buf_release(&reply.body);
	reply.body = BUF_INIT(1 << 20);
	reply.done = false;
	reply.status = 0;
	(void)snprintf(url, sizeof(url),
		       "http://127.0.0.%d:%u/peer/v1/holders%s", n->nr + 1,
		       n->port, query);
	EQ(http_start(client, &rq, &cb, NULL, &x), 0);
	OK(run_until(reply_done));
	EQ(reply.r, 0);
	return reply.status;
}

static inline int post(struct node *n, const char *body)
{
	return ask(n, "POST", "", body, strlen(body));
}

/* ---- Conditions to wait for ---- */

static uint64_t until_ms;

static inline bool is_later(void)
{
	return now_ms() >= until_ms;
}

static inline bool table_has_own(void)
{
	struct holders_stats st;

	holders_stats(nodes[0].holders, &st);
	return st.keys == wanted;
}

static struct node *restarted;

static inline bool home_knows(void)
{
	struct holders_stats st;

	holders_stats(restarted->holders, &st);
	return st.keys >= wanted;
}

static uint64_t own_wanted;

static inline bool own_is_wanted(void)
{
	struct holders_stats st;

	holders_stats(nodes[0].holders, &st);
	return st.own == own_wanted;
}

/* ---- Announcements by hand ---- */

/* {"id":"n<from>","holds":[…]} of n keys. */
static inline void holds(struct buf *out, int from, unsigned int first,
			 unsigned int n)
{
	buf_reset(out);
	(void)buf_printf(out, "{\"id\":\"n%d\",\"holds\":[", from);
	for (unsigned int k = first; k < first + n; k++) {
		struct holder_key key = key_nr(k);
		char s[HOLDER_KEY_SIZE];

		(void)buf_printf(out, "%s[\"%s\",%u]", k > first ? "," : "",
				 holder_key_str(&key, s), k);
	}
	(void)buf_str(out, "]}");
}

/* Call it first: the machine's proxy settings must not affect a test. */
static inline void holders_rig_environment(void)
{
	static const char *const vars[] = {"http_proxy",  "https_proxy",
					   "all_proxy",	  "HTTP_PROXY",
					   "HTTPS_PROXY", "ALL_PROXY"};

	for (size_t i = 0; i < ARRAY_SIZE(vars); i++)
		(void)unsetenv(vars[i]);
	(void)alarm(900); /* a hang is a failure */
	log_init(LOG_ERROR, LOG_FORMAT_TEXT, "test", "1");
}

#endif
