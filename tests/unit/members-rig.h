/* Shared by the tests of p2p/members.h and p2p/resolve.h: a name server, nodes
 * on many loopback addresses whose answers the test sets, and members. */
#ifndef TESTS_MEMBERS_RIG_H
#define TESTS_MEMBERS_RIG_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/metrics.h"
#include "http/tls.h"
#include "p2p/members.h"
#include "p2p/resolve.h"
#include "tests/unit/tap.h"

#define GREET_MS 60

/* ---- The name server ---- */

#define T_A    1
#define T_AAAA 28
#define T_SRV  33

enum { GARBAGE = 100 }; /* in addition to the real response codes */

struct record {
	char name[64];
	int type;
	unsigned char data[80];
	size_t len;
	bool additional; /* sent along with every SRV answer */
};

static struct {
	pthread_t thread;
	pthread_mutex_t mu;
	int fd;
	char addr[32];
	struct record *v; /* guarded by: mu, like the fields below */
	size_t n, cap;
	struct {
		char name[64];
		int type, code; /* type 0: all */
	} codes[16];
	size_t ncodes;
	int queries;
} dns = {.mu = PTHREAD_MUTEX_INITIALIZER};

static inline size_t put16(unsigned char *p, unsigned int v)
{
	p[0] = (unsigned char)(v >> 8);
	p[1] = (unsigned char)v;
	return 2;
}

/* In wire format. */
static inline size_t put_name(unsigned char *p, const char *s)
{
	size_t at = 0;

	while (*s && strcmp(s, ".") != 0) {
		size_t n = strcspn(s, ".");

		p[at++] = (unsigned char)n;
		memcpy(p + at, s, n);
		at += n;
		s += n + (s[n] == '.');
	}
	p[at++] = 0;
	return at;
}

static inline size_t put_record(unsigned char *p, const struct record *r,
				bool same)
{
	size_t at = same ? put16(p, 0xc00c) : put_name(p, r->name);

	at += put16(p + at, (unsigned int)r->type);
	at += put16(p + at, 1); /* IN */
	at += put16(p + at, 0);
	at += put16(p + at, 1); /* TTL */
	at += put16(p + at, (unsigned int)r->len);
	memcpy(p + at, r->data, r->len);
	return at + r->len;
}

static inline size_t read_question(const unsigned char *q, size_t len,
				   char *name, int *ret_type)
{
	size_t at = 12, n = 0;

	while (at < len && q[at]) {
		memcpy(name + n, q + at + 1, q[at]);
		n += q[at];
		name[n++] = '.';
		at += 1 + q[at];
	}
	name[n ? n - 1 : 0] = '\0';
	*ret_type = q[at + 1] << 8 | q[at + 2];
	return at + 5;
}

static inline int code_of(const char *name, int type)
{
	for (size_t i = 0; i < dns.ncodes; i++)
		if (strcasecmp(dns.codes[i].name, name) == 0 &&
		    (!dns.codes[i].type || dns.codes[i].type == type))
			return dns.codes[i].code;
	for (size_t i = 0; i < dns.n; i++)
		if (strcasecmp(dns.v[i].name, name) == 0)
			return 0;
	return 3; /* NXDOMAIN */
}

static inline size_t make_answer(unsigned char *out, const unsigned char *q,
				 size_t len)
{
	unsigned int counts[2] = {0, 0};
	char name[256];
	int type, code;
	size_t at = read_question(q, len, name, &type);

	memcpy(out, q, at);
	code = code_of(name, type);
	out[2] = 0x85; /* a recursive, authoritative answer */
	out[3] = (unsigned char)(0x80 | (code == GARBAGE ? 0 : code));
	memset(out + 6, 0, 6);
	if (code == GARBAGE)
		put16(out + 6, 7); /* but there are no records */
	if (code)
		return at;
	for (int extra = 0; extra < 2; extra++)
		for (size_t i = 0; i < dns.n; i++) {
			const struct record *r = &dns.v[i];
			bool mine = strcasecmp(r->name, name) == 0 &&
				    r->type == type;

			if (extra ? !r->additional || type != T_SRV : !mine)
				continue;
			at += put_record(out + at, r, !extra);
			counts[extra]++;
		}
	put16(out + 6, counts[0]);
	put16(out + 10, counts[1]);
	return at;
}

static inline void *dns_main(void *arg)
{
	static unsigned char q[2048], out[65536];
	struct sockaddr_in from;

	(void)arg;
	for (;;) {
		socklen_t len = sizeof(from);
		ssize_t n = recvfrom(dns.fd, q, sizeof(q), 0,
				     (struct sockaddr *)&from, &len);
		size_t m;

		if (n <= 16)
			return NULL; /* a short datagram tells the thread to end
				      */
		(void)pthread_mutex_lock(&dns.mu);
		dns.queries++;
		m = make_answer(out, q, (size_t)n);
		(void)pthread_mutex_unlock(&dns.mu);
		(void)sendto(dns.fd, out, m, 0, (struct sockaddr *)&from, len);
	}
}

static inline void dns_start(void)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(sin);
	int big = 1 << 20;

	dns.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	(void)setsockopt(dns.fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	if (dns.fd < 0 || bind(dns.fd, (struct sockaddr *)&sin, len) < 0 ||
	    getsockname(dns.fd, (struct sockaddr *)&sin, &len) < 0 ||
	    pthread_create(&dns.thread, NULL, dns_main, NULL) != 0)
		BAIL("name server");
	(void)snprintf(dns.addr, sizeof(dns.addr), "127.0.0.1:%d",
		       ntohs(sin.sin_port));
}

static inline void dns_stop(void)
{
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);

	(void)getsockname(dns.fd, (struct sockaddr *)&sin, &len);
	(void)sendto(dns.fd, "", 0, 0, (struct sockaddr *)&sin, len);
	(void)pthread_join(dns.thread, NULL);
	(void)close(dns.fd);
	free(dns.v);
}

static inline void dns_clear(void)
{
	(void)pthread_mutex_lock(&dns.mu);
	dns.n = dns.ncodes = 0;
	(void)pthread_mutex_unlock(&dns.mu);
}

static inline void dns_code(const char *name, int type, int code)
{
	(void)pthread_mutex_lock(&dns.mu);
	(void)snprintf(dns.codes[dns.ncodes].name, 64, "%s", name);
	dns.codes[dns.ncodes].type = type;
	dns.codes[dns.ncodes++].code = code;
	(void)pthread_mutex_unlock(&dns.mu);
}

static inline void dns_add(const struct record *r)
{
	(void)pthread_mutex_lock(&dns.mu);
	if (dns.n == dns.cap) {
		dns.cap = dns.cap ? dns.cap * 2 : 64;
		dns.v = realloc(dns.v, dns.cap * sizeof(*dns.v));
		if (!dns.v)
			BAIL("memory");
	}
	dns.v[dns.n++] = *r;
	(void)pthread_mutex_unlock(&dns.mu);
}

static inline void dns_host_as(const char *name, const char *ip,
			       bool additional)
{
	bool v6 = strchr(ip, ':') != NULL;
	struct record r = {.type = v6 ? T_AAAA : T_A,
			   .len = v6 ? 16 : 4,
			   .additional = additional};

	(void)snprintf(r.name, sizeof(r.name), "%s", name);
	EQ(inet_pton(v6 ? AF_INET6 : AF_INET, ip, r.data), 1);
	dns_add(&r);
}

static inline void dns_host(const char *name, const char *ip)
{
	dns_host_as(name, ip, false);
}

static inline void dns_srv(const char *name, unsigned int port,
			   const char *target)
{
	struct record r = {.type = T_SRV};

	(void)snprintf(r.name, sizeof(r.name), "%s", name);
	put16(r.data + 4, port);
	r.len = 6 + put_name(r.data + 6, target);
	dns_add(&r);
}

static inline int dns_queries(void)
{
	int n;

	(void)pthread_mutex_lock(&dns.mu);
	n = dns.queries;
	(void)pthread_mutex_unlock(&dns.mu);
	return n;
}

/* ---- The loop ---- */

static struct loop *loop;
static struct http_client *client;
static uv_timer_t tick;

static inline void on_tick(uv_timer_t *t)
{
	(void)t;
	loop_stop(loop);
}

static inline void turn(uint64_t ms)
{
	uv_update_time(loop_uv(loop));
	(void)uv_timer_start(&tick, on_tick, ms, 0);
	loop_run(loop);
	(void)uv_timer_stop(&tick);
}

#define UNTIL(cond)                                                            \
	do {                                                                   \
		uint64_t end_ = now_ms() + 120000;                             \
		while (!(cond) && now_ms() < end_)                             \
			turn(2);                                               \
		OK(cond);                                                      \
	} while (0)

static inline void run_for(uint64_t ms)
{
	uint64_t end = now_ms() + ms;

	while (now_ms() < end)
		turn(5);
}

static inline void begin(void)
{
	struct http_client_config cfg = {.user_agent = "test/1",
					 .max_connections = 256};

	dns_clear();
	if (loop_new(&loop) < 0 || http_client_new(loop, &cfg, &client) < 0)
		BAIL("no loop or client");
	(void)uv_timer_init(loop_uv(loop), &tick);
}

static inline void end(void)
{
	http_client_free(&client);
	uv_close((uv_handle_t *)&tick, NULL);
	loop_free(&loop);
}

/* ---- Nodes whose answers the test sets ---- */

struct fake {
	struct http_server *server;
	uint16_t port;
	char addr[32]; /* "127.0.0.2:1234" */
	const char *ip;
	const char *body; /* the answer; NULL: made from id and zone */
	const char *id, *name, *zone;
	const char *prefix; /* the id is this and the requested host */
	int status;
	bool hang;
	struct members **real; /* NULL, or the node that answers in its place */
	struct tls_server *tls;
	int hits;
	char listen[32]; /* Peerd-Listen of the last request */
	struct http_req *parked[64];
	int nparked;
};

static inline void on_gone(struct http_req *rq)
{
	struct fake *f = http_req_data(rq);

	for (int i = 0; i < f->nparked; i++)
		if (f->parked[i] == rq)
			f->parked[i] = f->parked[--f->nparked];
	http_release(rq);
}

static inline void park(struct fake *f, struct http_req *rq)
{
	if (f->nparked == 64) {
		http_abort(rq);
		return;
	}
	f->parked[f->nparked++] = rq;
	http_req_set_data(rq, f);
	http_req_on_gone(rq, on_gone);
}

static inline void fake_handler(void *arg, struct http_req *rq)
{
	const char *listen = http_req_header(rq, "Peerd-Listen");
	struct fake *f = arg;
	char text[512];
	int n;

	f->hits++;
	(void)snprintf(f->listen, sizeof(f->listen), "%s",
		       listen ? listen : "none");
	STREQ(http_req_path(rq), "/peer/v1/hello");
	if (f->hang) {
		park(f, rq);
		return;
	}
	if (f->real && *f->real) {
		members_hello(*f->real, rq);
		return;
	}
	if (f->real) {
		http_reply(rq, 503, NULL, NULL, 0);
		return;
	}
	if (f->body) {
		http_reply(rq, f->status, NULL, f->body, strlen(f->body));
		return;
	}
	n = snprintf(text, sizeof(text),
		     "{\"id\":\"%s%s\",\"name\":\"%s\",\"zone\":\"%s\","
		     "\"version\":\"1.0\"}",
		     f->prefix ? f->prefix : "",
		     f->prefix ? http_req_header(rq, "Host") : f->id,
		     f->name ? f->name : "n", f->zone ? f->zone : "");
	http_reply(rq, f->status, "application/json", text, (size_t)n);
}

/* port 0: any */
static inline void fake_up_on(struct fake *f, const char *ip, uint16_t port)
{
	struct http_server_config cfg = {.loop = loop};
	struct error err = {""};

	f->ip = ip;
	if (!f->status)
		f->status = 200;
	(void)snprintf(f->addr, sizeof(f->addr), "%s:%u", ip, port);
	if (http_server_new(&cfg, &f->server) < 0 ||
	    http_listen(f->server, f->addr, f->tls, fake_handler, f, &f->port,
			&err) < 0)
		BAIL(err.text);
	(void)snprintf(f->addr, sizeof(f->addr), "%s:%u", ip, f->port);
}

static inline void fake_up(struct fake *f, const char *ip, const char *id)
{
	f->id = id;
	fake_up_on(f, ip, 0);
}

static inline void on_stopped(void *arg)
{
	*(bool *)arg = true;
}

static inline void fake_down(struct fake *f)
{
	bool done = false;

	http_server_stop(f->server, 0, on_stopped, &done);
	UNTIL(done);
	http_server_free(&f->server);
}

static inline void fake_again(struct fake *f)
{
	fake_up_on(f, f->ip, f->port);
}

/* ---- Members under test ---- */

struct subject {
	struct members *m;
	struct string_list peers;
	struct members_config cfg;
	int changed, forgotten;
	uint64_t generation; /* at the last call of changed() */
	bool busy;	     /* inside a call of the test */
};

static inline void on_changed(void *arg)
{
	struct subject *s = arg;
	const struct place_view *v = members_view(s->m, true);

	OK(!s->busy);
	s->changed++;
	s->generation = members_generation(s->m);
	EQ(v->n, members_alive(s->m) + 1);
	for (uint32_t i = 0; i < v->n; i++) {
		struct member *mb = members_at(s->m, true, i);

		OK(i == 0 || v->ids[i - 1] < v->ids[i]);
		EQ(mb == NULL, i == v->self);
		OK(!mb || mb->place_id == v->ids[i]);
	}
}

static inline void on_forget(void *arg, struct member *mb)
{
	struct subject *s = arg;

	OK(!s->busy);
	OK(mb->state == MEMBER_NEW || mb->state == MEMBER_GONE);
	s->forgotten++;
}

static inline void subject_init(struct subject *s, const char *id)
{
	*s = (struct subject){0};
	s->cfg = (struct members_config){
		.loop = loop,
		.client = client,
		.id = id,
		.name = id,
		.zone = "z1",
		.version = "0.1",
		.port = 5001,
		.greet_ms = GREET_MS,
		.lookup_ms = 50,
		.nameserver = dns.addr,
		.changed = on_changed,
		.forget = on_forget,
		.arg = s,
	};
}

static inline void subject_peer(struct subject *s, const char *entry)
{
	EQ(string_list_add(&s->peers, entry), 0);
}

static inline void subject_start(struct subject *s)
{
	struct error err = {""};

	s->cfg.peers = &s->peers;
	s->busy = true;
	EQ(members_new(&s->cfg, &s->m, &err), 0);
	s->busy = false;
	string_list_release(&s->peers); /* members_new() copied it */
	if (!s->m)
		BAIL(err.text);
}

static inline void subject_stop(struct subject *s)
{
	int changed = s->changed, forgotten = s->forgotten;

	s->busy = true;
	members_free(&s->m);
	OK(s->m == NULL);
	run_for(1);
	EQ(s->changed, changed);
	EQ(s->forgotten, forgotten);
}

struct tally {
	unsigned int n, by_state[4];
	struct member *last;
};

static inline void on_each(void *arg, struct member *mb)
{
	struct tally *t = arg;

	t->n++;
	t->by_state[mb->state]++;
	t->last = mb;
}

static inline struct tally tally(struct subject *s)
{
	struct tally t = {0};

	members_each(s->m, on_each, &t);
	return t;
}

static inline enum member_state state_of(struct subject *s, const char *id)
{
	struct member *mb = members_find(s->m, id);

	return mb ? mb->state : MEMBER_NEW;
}

static inline bool alive(struct subject *s, const char *id)
{
	return state_of(s, id) == MEMBER_ALIVE;
}

static inline void note(struct subject *s, const char *id, bool ok,
			const char *why)
{
	s->busy = true;
	members_note(s->m, members_find(s->m, id), ok, why);
	s->busy = false;
}

static inline bool in_view(struct subject *s, bool all, const char *id)
{
	const struct place_view *v = members_view(s->m, all);

	for (uint32_t i = 0; i < v->n; i++) {
		struct member *mb = members_at(s->m, all, i);

		if (mb && strcmp(mb->id, id) == 0)
			return true;
	}
	return false;
}

/* ---- The program ---- */

static int log_fd;

/* Counts the lines of the log with this message. */
static inline int logged(const char *message)
{
	static char text[1 << 20];
	ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);
	int lines = 0;

	text[n > 0 ? n : 0] = '\0';
	for (const char *s = text; (s = strstr(s, message)); s++)
		lines++;
	return lines;
}

static inline void log_forget(void)
{
	EQ(ftruncate(log_fd, 0), 0);
	(void)lseek(log_fd, 0, SEEK_SET);
}

/* Call it first. */
static inline void rig_start(void)
{
	static const char *const vars[] = {"http_proxy", "https_proxy",
					   "all_proxy", "no_proxy"};

	for (size_t i = 0; i < ARRAY_SIZE(vars); i++)
		(void)unsetenv(vars[i]);
	(void)alarm(600); /* a hang is a failure */
	log_init(LOG_INFO, LOG_FORMAT_JSON, "test", "0");
	log_fd = memfd_create("log", MFD_CLOEXEC);
	if (log_fd < 0)
		BAIL("memfd_create");
	log_set_fd(log_fd);
	dns_start();
}

static inline int rig_end(void)
{
	dns_stop();
	log_set_fd(-1);
	(void)close(log_fd);
	return tap_done();
}

#endif
