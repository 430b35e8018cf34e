/* Greetings, GET /peer/v1/hello: the client's and the server's side. */
#include "p2p/members-private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/metrics.h"

#define HELLO_PATH     "/peer/v1/hello"
#define MAX_ANSWER     ((size_t)64 << 10)
#define MIN_TIMEOUT_MS 1000
#define MAX_TIMEOUT_MS 3000
/* Limits of strangers, in all and per IP address: addresses known only from
 * greetings to this node, which have never answered. */
#define MAX_STRANGERS	      256
#define MAX_STRANGERS_OF_HOST 16

static struct metric_family m_greetings = {
	.name = "peerd_greetings_total",
	.help = "Greetings sent to members and addresses, by result.",
	.type = METRIC_COUNTER,
	.labels = {"result"},
};

void greet_register(void)
{
	metric_register(&m_greetings);
}

/* ---- Asking ---- */

bool greet_is_text(const char *s, size_t min, size_t size)
{
	size_t n = 0;

	if (!s)
		return false;
	while (n < size && s[n] > ' ' && s[n] <= '~')
		n++;
	return n >= min && n < size && s[n] == '\0';
}

/* An absent field counts as empty. *ret borrows from o. */
static int read_field(const json_t *o, const char *key, size_t min, size_t size,
		      const char **ret, struct error *err)
{
	const char *s = json_get_str(o, key);

	if (!s && !json_object_get(o, key))
		s = "";
	if (!greet_is_text(s, min, size))
		return set_error(err, -EBADMSG, "its greeting has no valid %s",
				 key);
	*ret = s;
	return 0;
}

static int read_hello(const json_t *o, struct hello *ret, struct error *err)
{
	int r = read_field(o, "id", 1, MEMBER_ID_MAX, &ret->id, err);

	if (r == 0)
		r = read_field(o, "name", 0, MEMBER_NAME_MAX, &ret->name, err);
	if (r == 0)
		r = read_field(o, "zone", 0, MEMBER_NAME_MAX, &ret->zone, err);
	if (r == 0)
		r = read_field(o, "version", 0, MEMBER_NAME_MAX, &ret->version,
			       err);
	return r;
}

int greet_parse(const char *bytes, size_t len, json_t **ret_doc,
		struct hello *ret, struct error *err)
{
	CLEANUP(json_decrefp) json_t *o = NULL;
	struct error bad = {""};
	int r;

	if (json_parse(bytes, len, MAX_ANSWER, &o, &bad) < 0)
		return set_error(err, -EBADMSG, "its greeting is not JSON: %s",
				 bad.text);
	r = read_hello(o, ret, err);
	if (r == 0)
		*ret_doc = steal_ptr(&o);
	return r;
}

static const char *result_of(int r)
{
	switch (r) {
	case 0:
		return "ok";
	case -ETIMEDOUT:
		return "timeout";
	case -EKEYREJECTED:
		return "certificate";
	case -EBADMSG:
	case -EMSGSIZE:
	case -EPROTO:
		return "garbage";
	case -EACCES:
		return "refused";
	default:
		return "unreachable";
	}
}

/* Returns 0 if the answer makes the node a member, or is this node's. */
static int take_answer(struct addr *a, const struct http_answer *ans,
		       struct error *err)
{
	CLEANUP(json_decrefp) json_t *o = NULL;
	struct hello h;
	double connect_ms, first_ms;
	int r;

	if (ans->status != 200)
		return set_error(err, -EACCES,
				 "it answered the greeting with %d",
				 ans->status);
	r = greet_parse(ans->body.data ? ans->body.data : "", ans->body.len, &o,
			&h, err);
	if (r < 0)
		return r;
	http_timing(ans->x, &connect_ms, &first_ms);
	return members_answered(
		a, &h, ans->cert,
		first_ms > connect_ms ? first_ms - connect_ms : 0, err);
}

/* Limited: probably the same for hundreds of members. */
static void log_certificate(struct members *m, const struct addr *a,
			    const char *why)
{
	if (log_limit_ok(&m->log_certificates, 1, 600000))
		log_warn("a member and this node do not trust each other's "
			 "certificates",
			 LS("addr", a->text), LS("why", why));
}

static void greeting_ended(struct addr *a, const struct http_answer *ans)
{
	struct error err = {""};
	int r = ans->r;

	if (r == 0)
		r = take_answer(a, ans, &err);
	else if (r == -EMSGSIZE)
		(void)set_error(&err, r, "its greeting is too long");
	else
		(void)set_error(&err, r, "%s", ans->why);
	metric_add(metric_get(&m_greetings,
			      (const char *const[]){result_of(r)}),
		   1);
	if (r == -EKEYREJECTED)
		log_certificate(a->m, a, err.text);
	/* A transfer succeeded meanwhile: the greeting waited for a connection,
	 * or its answer for a processor. */
	if (r == -ETIMEDOUT && a->node && a->node->mb.heard_ms >= a->tried_ms)
		r = 0;
	if (r < 0)
		members_failed(a, err.text);
	addr_greeted(a);
}

static void on_done(struct http_small *s, struct http_answer *ans)
{
	struct addr *a = container_of(s, struct addr, greeting);
	struct members *m = a->m;

	/* Short memory of this node is not the member's fault. */
	if (!m->closing && ans->r != -ENOMEM && ans->r != -ECANCELED)
		greeting_ended(a, ans);
	addr_again(a);
	members_arm(m);
	members_unref(m);
}

static int send_greeting(struct addr *a)
{
	CLEANUP(buf_release) struct buf url = BUF_INIT(512);
	struct members *m = a->m;
	uint32_t ms = (uint32_t)min_u64(
		max_u64(m->cfg.greet_ms, MIN_TIMEOUT_MS), MAX_TIMEOUT_MS);
	struct http_header listen = {.name = "Peerd-Listen"};
	struct http_request rq = {.headers = &listen};
	struct member at = {0};
	char port[8];
	int r;

	(void)snprintf(at.addr, sizeof(at.addr), "%s", a->text);
	r = members_request(m, &at, HELLO_PATH, &rq, &url);
	if (r < 0)
		return r;
	(void)snprintf(port, sizeof(port), "%u", m->cfg.port);
	listen.value = port;
	rq.nheaders = m->cfg.port != 0;
	rq.connect_timeout_ms = ms;
	rq.total_timeout_ms = ms;
	return http_small_start(&a->greeting, m->cfg.client, &rq, MAX_ANSWER,
				false, on_done);
}

int greet_start(struct addr *a)
{
	int r;

	a->m->greeting++;
	r = send_greeting(a);
	if (r == 0)
		a->m->refs++;
	return r;
}

/* ---- Answering ---- */

static bool is_stranger(const struct addr *a)
{
	return a->named == 0 && a->answered_ms == 0 && a->node;
}

/* A node that greets this one can make it greet ports of the greeting node's
 * own host, at a harmless rate, but of no other host. */
static bool may_learn(struct members *m, const struct resolve_addr *at)
{
	unsigned int all = 0, here = 0;

	if (!bucket_take(&m->may_learn))
		return false;
	list_for_each (it, &m->addrs) {
		const struct addr *a = list_entry(it, struct addr, all);

		if (!is_stranger(a))
			continue;
		all++;
		here += a->at.v6 == at->v6 &&
			memcmp(a->at.ip, at->ip, sizeof(at->ip)) == 0;
	}
	return all < MAX_STRANGERS && here < MAX_STRANGERS_OF_HOST;
}

static void learn(struct members *m, const struct resolve_addr *at)
{
	char text[RESOLVE_TEXT_MAX];
	struct addr *a = addr_find(m, resolve_addr_text(at, text));
	uint64_t now = now_ms();

	if (!a && may_learn(m, at))
		a = addr_get(m, at);
	if (!a || !a->node)
		return; /* too many addresses, or the address is this node's */
	a->learned_ms = now;
	/* A member that was away is back. */
	if (a->node->mb.state != MEMBER_ALIVE)
		addr_hurry(a, a->tried_ms + m->cfg.greet_ms / 3);
	members_arm(m);
}

int greet_client_addr(const char *client, uint16_t port,
		      struct resolve_addr *ret)
{
	const char *end = strrchr(client, ':');
	char ip[INET6_ADDRSTRLEN];

	if (!end)
		return -EINVAL; /* a Unix socket */
	if (*client == '[') {
		client++;
		end--;
	}
	if (end <= client || (size_t)(end - client) >= sizeof(ip))
		return -EINVAL;
	memcpy(ip, client, (size_t)(end - client));
	ip[end - client] = '\0';
	return resolve_addr_parse(ip, port, ret);
}

static void learn_from(struct members *m, const struct http_req *rq)
{
	const char *listen = http_req_header(rq, "Peerd-Listen");
	struct resolve_addr at;
	uint64_t port;

	if (listen && strlen(listen) <= 5 && parse_u64(listen, &port) == 0 &&
	    port >= 1 && port <= UINT16_MAX &&
	    greet_client_addr(http_req_client(rq), (uint16_t)port, &at) == 0)
		learn(m, &at);
}

void members_hello(struct members *m, struct http_req *rq)
{
	const struct members_config *cfg = &m->cfg;
	char text[MEMBER_ID_MAX + 3 * MEMBER_NAME_MAX + 64];
	CLEANUP(buf_release) struct buf b = BUF_INIT(4 * sizeof(text));
	const char *const v[] = {
		"{\"id\":",   cfg->id,	 ",\"name\":",	  cfg->name,
		",\"zone\":", cfg->zone, ",\"version\":", cfg->version};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(v); i++)
		r = i % 2 ? json_quote(&b, v[i]) : buf_str(&b, v[i]);
	if (r == 0)
		r = buf_str(&b, "}");
	if (r < 0) {
		http_reply_error(rq, 503, "UNAVAILABLE", "out of memory");
		return;
	}
	learn_from(m, rq);
	http_reply(rq, 200, "application/json", b.data, b.len);
}
