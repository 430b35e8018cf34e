/* The server with TLS, and the client for peers, against each other and
 * against what neither of them would do. */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/mman.h>

#include "base/digest.h"
#include "base/log.h"
#include "base/metrics.h"
#include "http/server-private.h"
#include "http/tls.h"
#include "tests/unit/http-harness.h"
#include "tests/unit/http-rig.h"
#include "tests/unit/scratch.h"
#include "tests/unit/tls-certs.h"

#define BIG_SIZE ((size_t)64 << 20)

static struct identity ca, other_ca, false_ca, node_a, node_b, stranger,
	impostor, expired, early, client_only, server_only, nameless;
static struct tls_server *tls;
static char *big;
static int big_fd;
static int log_fd;

static const char *file(const char *name)
{
	return path_below(dir, name);
}

/* ---- The server ---- */

static void tls_handler(void *arg, struct http_req *rq)
{
	const char *path = http_req_path(rq), *name = http_req_tls_name(rq);

	if (strcmp(path, "/name") == 0) {
		http_reply(rq, 200, NULL, name ? name : "(null)",
			   strlen(name ? name : "(null)"));
	} else if (strcmp(path, "/big") == 0) {
		uint64_t off = number(rq, "off", 0);
		uint64_t len = number(rq, "len", BIG_SIZE - off);

		http_req_on_gone(rq, on_gone);
		http_begin(rq, 206, (int64_t)len);
		http_send_file(rq, big_fd, off, len, sent_then_end);
	} else {
		handler(arg, rq);
	}
}

static void start_tls(struct http_server_config cfg, const char *name)
{
	static int arg = 42;
	struct error err = {""};
	char crt[32], key[32];

	events[0] = '\0';
	parked = NULL;
	(void)snprintf(crt, sizeof(crt), "%s.crt", name);
	(void)snprintf(key, sizeof(key), "%s.key", name);
	if (tls_server_new(file("ca.crt"), file(crt), file(key), &tls, &err) <
	    0)
		BAIL(err.text);
	EQ(loop_new(&loop), 0);
	cfg.loop = loop;
	EQ(http_server_new(&cfg, &server), 0);
	if (http_listen(server, "127.0.0.1:0", tls, tls_handler, &arg, &port,
			&err) < 0)
		BAIL(err.text);
	if (pthread_create(&thread, NULL, run_loop, loop) != 0)
		BAIL("pthread_create");
}

static void stop_tls(void)
{
	stop();
	tls_server_free(&tls);
	OK(tls == NULL);
}

static int reload_r;

static void reload_on_loop(void)
{
	reload_r = tls_server_reload_if_changed(tls);
}

static int reload(void)
{
	on_loop(reload_on_loop);
	return reload_r;
}

static uint32_t open_connections;

static void count_on_loop(void)
{
	open_connections = server->n_conns;
}

/* The server notices the end of a client later. */
static void wait_for_connections(uint32_t n)
{
	uint64_t until = now_ms() + 60000;

	do {
		on_loop(count_on_loop);
	} while (open_connections != n && now_ms() < until);
	EQ(open_connections, n);
}

static double failures(const char *kind)
{
	return metrics_total("peerd_tls_handshake_failures_total", kind);
}

static void wait_for_failures(const char *kind, double n)
{
	uint64_t until = now_ms() + 60000;

	while (failures(kind) < n && now_ms() < until)
		(void)usleep(1000);
	EQ(failures(kind), n);
}

static void log_begin(void)
{
	EQ(ftruncate(log_fd, 0), 0);
	(void)lseek(log_fd, 0, SEEK_SET);
}

static int log_lines(const char *with)
{
	static char text[65536];
	ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);
	int lines = 0;

	text[n < 0 ? 0 : n] = '\0';
	for (const char *p = text; (p = strstr(p, with)); p++)
		lines++;
	return lines;
}

/* ---- Our client ---- */

struct sink {
	struct rig *rig;
	struct http_exchange *x;
	struct sha256 *hash;
	uint64_t len, pause_at;
	int status, r;
	char why[256];
	char body[256];
	uv_timer_t *timer;
};

static int sink_head(void *arg, struct http_exchange *x,
		     const struct http_response *res)
{
	struct sink *s = arg;

	(void)x;
	s->status = res->status;
	return 0;
}

static int sink_data(void *arg, struct http_exchange *x, const void *bytes,
		     size_t len)
{
	struct sink *s = arg;

	if (s->pause_at && s->len >= s->pause_at) {
		s->pause_at = 0;
		http_resume(x); /* in a later turn */
		return -EAGAIN;
	}
	sha256_update(s->hash, bytes, len);
	if (s->len + len < sizeof(s->body))
		memcpy(s->body + s->len, bytes, len);
	s->len += len;
	if (s->len + len > 3000000 && s->pause_at == 0 && s->len % 7 == 0)
		s->pause_at = s->len + 1000000;
	return 0;
}

static void sink_done(void *arg, struct http_exchange *x, int r,
		      const char *why)
{
	struct sink *s = arg;

	(void)x;
	s->r = r;
	(void)snprintf(s->why, sizeof(s->why), "%s", why);
	if (--s->rig->running == 0)
		loop_stop(s->rig->loop);
}

static struct http_request peer_request(const char *as)
{
	static char crt[8][160], key[8][160];
	static unsigned int n;
	struct http_request rq = {.peer = true, .ca_file = file("ca.crt")};

	n = (n + 1) % ARRAY_SIZE(crt);
	(void)snprintf(crt[n], sizeof(crt[n]), "%s/%s.crt", dir, as);
	(void)snprintf(key[n], sizeof(key[n]), "%s/%s.key", dir, as);
	if (*as) {
		rq.cert_file = crt[n];
		rq.key_file = key[n];
	}
	return rq;
}

static void sink_start(struct rig *rig, struct sink *s, struct http_request rq,
		       const char *target)
{
	static const struct http_callbacks cb = {
		.head = sink_head, .data = sink_data, .done = sink_done};
	char url[256];

	memset(s, 0, sizeof(*s));
	s->rig = rig;
	s->hash = sha256_new();
	(void)snprintf(url, sizeof(url), "https://127.0.0.1:%u%s", port,
		       target);
	rq.url = url;
	rig->running++;
	EQ(http_start(rig->client, &rq, &cb, s, &s->x), 0);
}

static void sink_digest(struct sink *s, struct digest *ret)
{
	sha256_final(s->hash, ret);
	sha256_free(&s->hash);
}

static int get_with(struct rig *rig, struct sink *s, struct http_request rq,
		    const char *target)
{
	sink_start(rig, s, rq, target);
	rig_run(rig);
	sha256_free(&s->hash);
	return s->r;
}

/* With a new client, and so on a new connection. */
static int get_alone(struct sink *s, struct http_request rq, const char *target)
{
	struct rig rig;
	int r;

	rig_init(&rig);
	r = get_with(&rig, s, rq, target);
	rig_release(&rig);
	return r;
}

/* ---- A scripted client ---- */

struct raw {
	SSL_CTX *ctx;
	SSL *ssl;
	int fd;
};

static struct raw raw_new(const struct identity *as, int max_version)
{
	struct raw r = {.ctx = SSL_CTX_new(TLS_client_method())};

	if (as) {
		(void)SSL_CTX_use_certificate(r.ctx, as->cert);
		(void)SSL_CTX_use_PrivateKey(r.ctx, as->key);
	}
	if (max_version)
		(void)SSL_CTX_set_max_proto_version(r.ctx, max_version);
	r.ssl = SSL_new(r.ctx);
	r.fd = dial();
	(void)SSL_set_fd(r.ssl, r.fd);
	return r;
}

static struct raw raw_open(const struct identity *as)
{
	struct raw r = raw_new(as, 0);

	EQ(SSL_connect(r.ssl), 1);
	return r;
}

static void raw_close(struct raw *r)
{
	(void)SSL_shutdown(r->ssl);
	SSL_free(r->ssl);
	SSL_CTX_free(r->ctx);
	(void)close(r->fd);
	ERR_clear_error();
}

static size_t raw_take(struct raw *r, char *out, size_t len)
{
	size_t at = 0;
	int n;

	while (at < len &&
	       (n = SSL_read(r->ssl, out + at, (int)(len - at))) > 0)
		at += (size_t)n;
	return at;
}

/* Reads one answer into `answer`. Returns its status, 0 for none. */
static int raw_answer(struct raw *r)
{
	const char *cl;
	size_t n = 0;

	free(answer.body);
	memset(&answer, 0, sizeof(answer));
	while (n < sizeof(answer.head) - 1 &&
	       raw_take(r, answer.head + n, 1) == 1) {
		n++;
		if (strstr(answer.head, "\r\n\r\n"))
			break;
	}
	cl = strstr(answer.head, "Content-Length: ");
	if (!strstr(answer.head, "\r\n\r\n") || !cl)
		return 0;
	answer.status = (int)strtol(answer.head + 9, NULL, 10);
	answer.len = strtoull(cl + 16, NULL, 10);
	answer.body = calloc(1, answer.len + 1);
	EQ(raw_take(r, answer.body, answer.len), answer.len);
	return answer.status;
}

static void raw_put(struct raw *r, const char *s)
{
	EQ(SSL_write(r->ssl, s, (int)strlen(s)), strlen(s));
}

static int raw_ask(struct raw *r, const char *request)
{
	raw_put(r, request);
	return raw_answer(r);
}

static bool raw_cert_is(struct raw *r, const struct identity *id)
{
	return X509_cmp(SSL_get0_peer_certificate(r->ssl), id->cert) == 0;
}

/* ---- Requests that succeed ---- */

static void test_get(void)
{
	struct sink s;

	start_tls((struct http_server_config){0}, "a");
	EQ(get_alone(&s, peer_request("b"), "/name"), 0);
	EQ(s.status, 200);
	STREQ(s.body, "node b");
	EQ(get_alone(&s, peer_request("a"), "/name"), 0);
	STREQ(s.body, "node a");
	EQ(get_alone(&s, peer_request("nameless"), "/name"), 0);
	EQ(s.len, 0); /* "", and not NULL */
	EQ(get_alone(&s, peer_request("b"), "/nothing"), 0);
	EQ(s.status, 404);
	EQ(get_alone(&s, peer_request("b"), "/abort"), -ECONNRESET);
	EQ(get_alone(&s, peer_request("b"), "/short"), -ECONNRESET);
	EQ(failures(NULL), 0);
	stop_tls();
}

/* One connection, used again, and again after the server has closed it. */
static void test_keep_alive(void)
{
	struct http_server_config cfg = {.idle_timeout_ms = 100};
	struct sink s;
	struct rig rig;

	start_tls(cfg, "a");
	rig_init(&rig);
	for (int i = 0; i < 5; i++) {
		EQ(get_with(&rig, &s, peer_request("b"), "/name"), 0);
		STREQ(s.body, "node b");
	}
	wait_for_connections(0);
	EQ(get_with(&rig, &s, peer_request("b"), "/name"), 0);
	STREQ(s.body, "node b");
	rig_release(&rig);
	stop_tls();
}

static void test_big(void)
{
	struct digest want, got;
	struct sink s;
	struct rig rig;

	start_tls((struct http_server_config){0}, "a");
	rig_init(&rig);
	digest_of(big, BIG_SIZE, &want);
	sink_start(&rig, &s, peer_request("b"), "/big");
	rig_run(&rig);
	EQ(s.r, 0);
	EQ(s.status, 206);
	EQ(s.len, BIG_SIZE);
	sink_digest(&s, &got);
	OK(digest_equal(&got, &want));
	rig_release(&rig);
	stop_tls();
}

/* Lengths around the ends of records and pieces, all at once. */
static void test_ranges(void)
{
	static const size_t lens[] = {
		1,	 100,	  16383,   16384,   16385,	    131071,
		131072,	 131073,  1000000, 2097152, (2U << 20) + 1, 16700,
		4194304, 5000001,
	};
	struct sink s[ARRAY_SIZE(lens)];
	struct digest want, got;
	struct rig rig;

	start_tls((struct http_server_config){0}, "a");
	rig_init(&rig);
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		char target[64];

		(void)snprintf(target, sizeof(target), "/big?off=%zu&len=%zu",
			       i * 1234567, lens[i]);
		sink_start(&rig, &s[i], peer_request("b"), target);
	}
	rig_run(&rig);
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		EQ(s[i].r, 0);
		EQ(s[i].len, lens[i]);
		digest_of(big + i * 1234567, lens[i], &want);
		sink_digest(&s[i], &got);
		OK(digest_equal(&got, &want));
	}
	rig_release(&rig);
	stop_tls();
}

/* http_write() instead of files, with a known length and in chunks. */
static void test_pieces(void)
{
	struct digest want, got;
	struct sink s[2];
	struct rig rig;

	start_tls((struct http_server_config){0}, "a");
	rig_init(&rig);
	digest_of(file_bytes, FILE_SIZE, &want);
	sink_start(&rig, &s[0], peer_request("b"), "/pieces");
	sink_start(&rig, &s[1], peer_request("b"), "/pieces?chunked");
	rig_run(&rig);
	for (int i = 0; i < 2; i++) {
		EQ(s[i].r, 0);
		EQ(s[i].len, FILE_SIZE);
		sink_digest(&s[i], &got);
		OK(digest_equal(&got, &want));
	}
	rig_release(&rig);
	stop_tls();
}

/* A client whose socket takes 64 KiB and that reads a little at a time, so that
 * the server has to wait for it all the time. */
static void test_slow_reader(void)
{
	struct raw r;
	char *got = malloc(FILE_SIZE);
	size_t at = 0;

	start_tls((struct http_server_config){0}, "a");
	r = raw_open(&node_b);
	raw_put(&r, GET("/file"));
	while (!strstr(answer.head, "\r\n\r\n")) {
		size_t n = strlen(answer.head);

		if (raw_take(&r, answer.head + n, 1) != 1)
			BAIL("no head");
	}
	while (at < FILE_SIZE) {
		size_t n = raw_take(&r, got + at,
				    min_u64(FILE_SIZE - at, 1 + at % 5000));

		if (n == 0)
			break;
		at += n;
	}
	EQ(at, FILE_SIZE);
	OK(memcmp(got, file_bytes, FILE_SIZE) == 0);
	EQ(raw_ask(&r, GET("/name")), 200);
	STREQ(answer.body, "node b");
	raw_close(&r);
	stop_tls();
	free(got);
}

/* A client that reads nothing is disconnected, and takes little memory until
 * then. */
static void test_stalled_reader(void)
{
	struct http_server_config cfg = {.send_timeout_ms = 200};
	struct raw r;

	start_tls(cfg, "a");
	r = raw_open(&node_b);
	raw_put(&r, GET("/big"));
	EVENTS("EPIPE gone ");
	wait_for_connections(0);
	raw_close(&r);
	stop_tls();
}

static void test_gone_in_transfer(void)
{
	static const char *const requests[] = {GET("/big"), GET("/pieces"),
					       GET("/pieces?chunked")};
	char some[100000];

	start_tls((struct http_server_config){0}, "a");
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		struct raw r = raw_open(&node_b);

		raw_put(&r, requests[i]);
		EQ(raw_take(&r, some, sizeof(some)), sizeof(some));
		if (i == 0)
			server_will_reset(r.fd);
		raw_close(&r);
		EVENTS("EPIPE gone ");
	}
	wait_for_connections(0);
	EQ(failures(NULL), 0);
	stop_tls();
}

/* While the handler waits: FIN, then our interim answer, then RST. */
static void test_gone_while_waiting(void)
{
	struct raw r;

	start_tls((struct http_server_config){0}, "a");
	r = raw_open(&node_b);
	raw_put(&r, GET("/park"));
	EVENTS("parked ");
	raw_close(&r);
	EVENTS("gone ");
	wait_for_connections(0);
	stop_tls();
}

/* The name outlives the connection as long as the request does. */
static void keep_name(void)
{
	const char *name = http_req_tls_name(parked);

	STREQ(name, "node b");
	http_release(parked);
	parked = NULL;
}

static void note_gone(struct http_req *rq)
{
	(void)rq;
	note("gone");
}

static void hear_of_end(void)
{
	http_req_on_gone(parked, note_gone);
}

static void test_name_outlives_connection(void)
{
	struct raw r;

	start_tls((struct http_server_config){0}, "a");
	r = raw_open(&node_b);
	raw_put(&r, GET("/park"));
	EVENTS("parked ");
	on_loop(hear_of_end);
	server_will_reset(r.fd);
	raw_close(&r);
	EVENTS("gone ");
	on_loop(keep_name);
	stop_tls();
}

static void test_many_connections(void)
{
	struct raw r[60];

	start_tls((struct http_server_config){0}, "a");
	for (size_t i = 0; i < ARRAY_SIZE(r); i++)
		r[i] = raw_open(i % 2 ? &node_a : &node_b);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(r); i++)
			raw_put(&r[i], GET("/name"));
		for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
			EQ(raw_answer(&r[i]), 200);
			STREQ(answer.body, i % 2 ? "node a" : "node b");
		}
	}
	wait_for_connections(ARRAY_SIZE(r));
	for (size_t i = 0; i < ARRAY_SIZE(r); i++)
		raw_close(&r[i]);
	wait_for_connections(0);
	stop_tls();
}

/* Several requests in one record, which is larger than one read of the server:
 * the socket does not signal the rest. */
static void test_full_records(void)
{
	static char record[16384];
	struct raw r;
	size_t n;

	start_tls((struct http_server_config){0}, "a");
	r = raw_open(&node_b);
	n = (size_t)snprintf(record, sizeof(record),
			     "POST /echo HTTP/1.1\r\nHost: x\r\n"
			     "Content-Length: 14000\r\n\r\n");
	memset(record + n, 'x', 14000);
	n += 14000;
	for (int i = 0; i < 10; i++)
		n += (size_t)snprintf(record + n, sizeof(record) - n,
				      GET("/name"));
	EQ(SSL_write(r.ssl, record, (int)n), n);
	EQ(raw_answer(&r), 200);
	EQ(answer.len, 14000);
	for (int i = 0; i < 10; i++) {
		EQ(raw_answer(&r), 200);
		STREQ(answer.body, "node b");
	}
	/* Bodies in chunks, of many records. */
	raw_put(&r, "POST /echo HTTP/1.1\r\nHost: x\r\n"
		    "Transfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 50; i++) {
		raw_put(&r, "2800\r\n");
		EQ(SSL_write(r.ssl, record, 0x2800), 0x2800);
		raw_put(&r, "\r\n");
	}
	raw_put(&r, "0\r\n\r\n");
	EQ(raw_answer(&r), 200);
	EQ(answer.len, 50 * 0x2800);
	/* Byte by byte. */
	for (const char *p = GET("/name"); *p; p++)
		EQ(SSL_write(r.ssl, p, 1), 1);
	EQ(raw_answer(&r), 200);
	raw_close(&r);
	stop_tls();
}

/* TLS announces the end, not only TCP. */
static void test_close_notify(void)
{
	struct raw r;
	char c;
	int n;

	start_tls((struct http_server_config){0}, "a");
	r = raw_open(&node_b);
	EQ(raw_ask(&r, "GET /name HTTP/1.1\r\nHost: x\r\n"
		       "Connection: close\r\n\r\n"),
	   200);
	n = SSL_read(r.ssl, &c, 1);
	EQ(n, 0);
	EQ(SSL_get_error(r.ssl, n), SSL_ERROR_ZERO_RETURN);
	raw_close(&r);
	/* The client ends its half first, and still gets its answer. */
	r = raw_open(&node_b);
	raw_put(&r, GET("/park"));
	EVENTS("parked ");
	(void)SSL_shutdown(r.ssl);
	on_loop(park_reply);
	EQ(raw_answer(&r), 200);
	STREQ(answer.body, "late");
	raw_close(&r);
	stop_tls();
}

static void test_key_update(void)
{
	struct raw r;

	start_tls((struct http_server_config){0}, "a");
	r = raw_open(&node_b);
	for (int i = 0; i < 50; i++) {
		EQ(SSL_key_update(r.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
		EQ(raw_ask(&r, GET("/name")), 200);
	}
	EQ(SSL_renegotiate(r.ssl), 0);
	raw_close(&r);
	stop_tls();
}

static void test_no_resumption(void)
{
	SSL_SESSION *session;
	struct raw r;

	start_tls((struct http_server_config){0}, "a");
	r = raw_open(&node_b);
	EQ(raw_ask(&r, GET("/name")), 200);
	session = SSL_get1_session(r.ssl);
	EQ(SSL_SESSION_is_resumable(session), 0);
	SSL_SESSION_free(session);
	EQ(SSL_version(r.ssl), TLS1_3_VERSION);
	STREQ(SSL_get_cipher_name(r.ssl), "TLS_AES_128_GCM_SHA256");
	raw_close(&r);
	stop_tls();
}

static void test_too_many_connections(void)
{
	struct http_server_config cfg = {.max_connections = 1,
					 .probe = "/name"};
	struct raw r, r2;
	char byte;

	start_tls(cfg, "a");
	r = raw_open(&node_b);
	EQ(raw_ask(&r, GET("/name")), 200);
	/* It waits, and so it goes. */
	r2 = raw_open(&node_b);
	EQ(raw_ask(&r2, GET("/name")), 200);
	EQ(raw_take(&r, &byte, 1), 0);
	raw_close(&r);
	raw_put(&r2, GET("/big"));
	EQ(raw_take(&r2, &byte, 1), 1);
	r = raw_new(&node_b, 0);
	OK(SSL_connect(r.ssl) <= 0);
	raw_close(&r2);
	raw_close(&r);
	EVENTS("EPIPE gone ");
	stop_tls();
}

/* ---- Which peers are accepted ---- */

static void refused_client(const char *as, const char *kind, const char *why)
{
	double before = failures(kind);
	struct sink s;

	EQ(get_alone(&s, peer_request(as), "/name"), -EKEYREJECTED);
	OK(strstr(s.why, why));
	if (!strstr(s.why, why))
		printf("# \"%s\" has no \"%s\"\n", s.why, why);
	EQ(s.status, 0);
	wait_for_failures(kind, before + 1);
}

static void test_refused_clients(void)
{
	struct sink s;

	log_begin();
	start_tls((struct http_server_config){0}, "a");
	refused_client("stranger", "certificate", "another CA issued it");
	refused_client("impostor", "certificate", "signature");
	refused_client("expired", "certificate", "expired");
	refused_client("early", "certificate", "not valid yet");
	refused_client("server-only", "certificate", "not for this use");
	refused_client("", "no_certificate", "requires a certificate");
	EQ(get_alone(&s, peer_request("client-only"), "/name"), 0);
	EQ(log_lines("TLS handshake failed"), 1);
	EQ(log_lines("\"level\":\"warn\""), 1);
	stop_tls();
}

static void refused_server(const char *name, const char *why)
{
	double before = failures(NULL);
	struct sink s;

	start_tls((struct http_server_config){0}, name);
	EQ(get_alone(&s, peer_request("b"), "/name"), -EKEYREJECTED);
	OK(strstr(s.why, why));
	if (!strstr(s.why, why))
		printf("# \"%s\" has no \"%s\"\n", s.why, why);
	/* "refused", or "incomplete" when the reset that follows its alert
	 * destroys that on the way. */
	wait_for_failures(NULL, before + 1);
	stop_tls();
}

static void test_refused_servers(void)
{
	log_begin();
	refused_server("stranger", "another CA issued the");
	refused_server("impostor", "signature");
	refused_server("expired", "certificate has expired");
	refused_server("early", "certificate is not valid yet");
	refused_server("client-only", "");
	/* The log warned of each certificate. */
	EQ(log_lines("other nodes will refuse our certificate"), 5);
}

/* No process listens there: requests to it fail. */
static void set_proxy(void)
{
	(void)setenv("https_proxy", "http://127.0.0.1:1", 1);
}

/* The host's name is not checked for members, but for all other servers. */
static void test_host_name(void)
{
	struct http_request rq = peer_request("b");
	struct sink s;

	start_tls((struct http_server_config){0}, "a");
	EQ(get_alone(&s, rq, "/name"), 0);
	rq.peer = false;
	rq.ca_only = true;
	(void)unsetenv("https_proxy");
	EQ(get_alone(&s, rq, "/name"), -EKEYREJECTED);
	set_proxy();
	stop_tls();
}

static void serve_tls_1_2(struct server *s, int fd, int nth)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	SSL *ssl;

	(void)s;
	(void)nth;
	(void)SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
	(void)SSL_CTX_use_certificate(ctx, node_a.cert);
	(void)SSL_CTX_use_PrivateKey(ctx, node_a.key);
	ssl = SSL_new(ctx);
	(void)SSL_set_fd(ssl, fd);
	OK(SSL_accept(ssl) <= 0);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	ERR_clear_error();
}

static void test_old_tls(void)
{
	static struct server scripted;
	double before;
	struct sink s;
	struct raw r;

	start_tls((struct http_server_config){0}, "a");
	before = failures("protocol");
	r = raw_new(&node_b, TLS1_2_VERSION);
	OK(SSL_connect(r.ssl) <= 0);
	wait_for_failures("protocol", before + 1);
	raw_close(&r);
	stop_tls();
	server_start(&scripted, serve_tls_1_2);
	port = (uint16_t)strtoul(strrchr(scripted.url, ':') + 1, NULL, 10);
	EQ(get_alone(&s, peer_request("b"), "/name"), -EPROTO);
	server_stop(&scripted);
}

static void test_peer_needs_ca(void)
{
	static const struct http_callbacks cb = {
		.head = sink_head, .data = sink_data, .done = sink_done};
	struct http_request rq = {.peer = true, .url = "https://127.0.0.1/"};
	struct http_exchange *x;
	struct rig rig;

	rig_init(&rig);
	EQ(http_start(rig.client, &rq, &cb, NULL, &x), -EINVAL);
	rig_release(&rig);
}

/* ---- Bytes that are no TLS ---- */

/* The connection's end, whatever comes before it. */
static void drain(int fd)
{
	char buf[4096];

	while (recv(fd, buf, sizeof(buf), 0) > 0)
		;
	(void)close(fd);
}

static void test_not_tls(void)
{
	static const char garbage[] = "\x16\x03\x01\x02\x00garbage, garbage";
	double before;
	char noise[300];
	int fd;

	start_tls((struct http_server_config){.header_timeout_ms = 500}, "a");
	before = failures("protocol");
	fd = dial();
	put(fd, GET("/name"));
	drain(fd);
	wait_for_failures("protocol", before + 1);
	for (int i = 0; i < 20; i++) {
		double all = failures(NULL);

		for (size_t j = 0; j < sizeof(noise); j++)
			noise[j] = (char)(i * 37 + (int)j * (7 + i) + 1);
		memcpy(noise, garbage, (size_t)(i % 6));
		fd = dial();
		(void)send(fd, noise, sizeof(noise), MSG_NOSIGNAL);
		drain(fd);
		wait_for_failures(NULL, all + 1);
	}
	wait_for_connections(0);
	stop_tls();
}

/* Garbage in a handshake that began correctly, and after it. */
static void test_garbage_after_handshake(void)
{
	struct raw r;

	start_tls((struct http_server_config){0}, "a");
	r = raw_open(&node_b);
	EQ(raw_ask(&r, GET("/name")), 200);
	put(r.fd, "\x17\x03\x03\x00\x20"
		  "0123456789abcdef0123456789abcdef");
	put(r.fd, "more of it");
	(void)shutdown(r.fd, SHUT_WR);
	wait_for_connections(0);
	raw_close(&r);
	EQ(failures(NULL), failures(NULL));
	stop_tls();
}

/* A first flight, whole or half of it, and nothing more. */
static void test_stalled_handshake(void)
{
	struct http_server_config cfg = {.header_timeout_ms = 200};
	char hello[4096];
	double before;
	BIO *out = BIO_new(BIO_s_mem());
	struct raw r;
	int len, fd;

	start_tls(cfg, "a");
	r = raw_new(&node_b, 0);
	BIO_up_ref(out);
	SSL_set0_wbio(r.ssl, out);
	(void)fcntl(r.fd, F_SETFL, O_NONBLOCK);
	OK(SSL_connect(r.ssl) <= 0);
	len = BIO_read(out, hello, sizeof(hello));
	OK(len > 100);
	before = failures("incomplete");
	for (int i = 0; i < 4; i++) {
		int n = i == 0 ? 1 : i == 1 ? len / 2 : i == 2 ? len - 1 : len;

		fd = dial();
		EQ(send(fd, hello, (size_t)n, MSG_NOSIGNAL), n);
		drain(fd);
		wait_for_failures("incomplete", before + i + 1);
	}
	/* A client that sends nothing, like a health check, is not logged as a
	 * failure. */
	fd = dial();
	drain(fd);
	fd = dial();
	(void)close(fd);
	raw_close(&r);
	wait_for_connections(0);
	EQ(failures("incomplete"), before + 4);
	BIO_free(out);
	stop_tls();
}

static void test_closed_in_handshake(void)
{
	double before;
	int fd;

	start_tls((struct http_server_config){0}, "a");
	before = failures("incomplete");
	fd = dial();
	put(fd, "\x16\x03\x01\x02");
	(void)shutdown(fd, SHUT_WR);
	drain(fd);
	wait_for_failures("incomplete", before + 1);
	wait_for_connections(0);
	stop_tls();
}

/* Stops while clients are in all states. */
static void test_stop(void)
{
	struct raw r[3];
	int fd;

	start_tls((struct http_server_config){0}, "a");
	fd = dial();
	put(fd, "\x16\x03\x01\x02");
	r[0] = raw_open(&node_b);
	r[1] = raw_open(&node_b);
	raw_put(&r[1], GET("/park"));
	r[2] = raw_open(&node_b);
	raw_put(&r[2], GET("/big"));
	EVENTS("parked ");
	stop_tls();
	(void)close(fd);
	for (int i = 0; i < 3; i++)
		raw_close(&r[i]);
}

/* ---- Files that change ---- */

static void use(const char *as, const struct identity *id)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "%s.crt", as);
	save_cert(file(name), id);
	(void)snprintf(name, sizeof(name), "%s.key", as);
	save_key(file(name), id, NULL);
}

static void damage(const char *name, const char *text)
{
	FILE *f = fopen(file(name), "w");

	OK(f && fputs(text, f) >= 0);
	if (f)
		(void)fclose(f);
}

static void test_reload(void)
{
	struct raw r, r2;

	use("it", &node_a);
	start_tls((struct http_server_config){0}, "it");
	EQ(reload(), 0);
	r = raw_open(&node_b);
	OK(raw_cert_is(&r, &node_a));
	use("it", &node_b);
	EQ(reload(), 1);
	EQ(reload(), 0);
	r2 = raw_open(&node_b);
	OK(raw_cert_is(&r2, &node_b));
	EQ(raw_ask(&r, GET("/name")), 200);
	EQ(raw_ask(&r2, GET("/name")), 200);
	raw_close(&r);
	raw_close(&r2);
	stop_tls();
}

static void test_reload_keeps_old(void)
{
	struct raw r;

	use("it", &node_a);
	start_tls((struct http_server_config){0}, "it");
	log_begin();
	save_key(file("it.key"), &node_b, NULL);
	EQ(reload(), -EKEYREJECTED);
	EQ(reload(), 0);
	EQ(log_lines("cannot use the new certificates"), 1);
	EQ(log_lines("it.key"), 1);
	damage("it.key", "nothing\n");
	EQ(reload(), -EBADMSG);
	EQ(unlink(file("it.key")), 0);
	EQ(reload(), -ENOENT);
	EQ(reload(), 0);
	EQ(log_lines("cannot use the new certificates"), 3);
	r = raw_open(&node_b);
	OK(raw_cert_is(&r, &node_a));
	EQ(raw_ask(&r, GET("/name")), 200);
	raw_close(&r);
	use("it", &node_b);
	EQ(reload(), 1);
	r = raw_open(&node_b);
	OK(raw_cert_is(&r, &node_b));
	raw_close(&r);
	stop_tls();
}

/* From one CA to another, by way of both. */
static void test_ca_rollover(void)
{
	struct sink s;
	FILE *f;

	start_tls((struct http_server_config){0}, "a");
	EQ(get_alone(&s, peer_request("stranger"), "/name"), -EKEYREJECTED);
	f = fopen(file("ca.crt"), "a");
	EQ(PEM_write_X509(f, other_ca.cert), 1);
	(void)fclose(f);
	EQ(reload(), 1);
	EQ(get_alone(&s, peer_request("stranger"), "/name"), 0);
	STREQ(s.body, "stranger");
	EQ(get_alone(&s, peer_request("b"), "/name"), 0);
	save_cert(file("ca.crt"), &other_ca);
	EQ(reload(), 1);
	/* The client does not trust the test's own server any more. */
	EQ(get_alone(&s, peer_request("stranger"), "/name"), -EKEYREJECTED);
	save_cert(file("ca.crt"), &ca);
	EQ(reload(), 1);
	stop_tls();
}

/* The next request of a client uses new files, if they are valid. */
static void test_client_renews(void)
{
	struct http_request rq;
	struct sink s, s2;
	struct rig rig;

	use("it", &node_a);
	start_tls((struct http_server_config){0}, "a");
	rig_init(&rig);
	rq = peer_request("it");
	EQ(get_with(&rig, &s, rq, "/name"), 0);
	STREQ(s.body, "node a");
	use("it", &node_b);
	/* The idle connection is not used again. */
	EQ(get_with(&rig, &s, rq, "/name"), 0);
	STREQ(s.body, "node b");
	sink_start(&rig, &s, rq, "/big");
	sink_start(&rig, &s2, rq, "/name");
	rig_run(&rig);
	EQ(s.len, BIG_SIZE);
	STREQ(s2.body, "node b");
	sha256_free(&s.hash);
	sha256_free(&s2.hash);
	EQ(truncate(rq.cert_file, 100), 0);
	EQ(get_with(&rig, &s, rq, "/name"), 0);
	STREQ(s.body, "node b");
	use("it", &node_a);
	EQ(get_with(&rig, &s, rq, "/name"), 0);
	STREQ(s.body, "node a");
	rig_release(&rig);
	stop_tls();
}

/* More than a client keeps loaded. */
static void test_many_identities(void)
{
	struct sink s;
	struct rig rig;
	char name[16];

	start_tls((struct http_server_config){0}, "a");
	rig_init(&rig);
	for (int i = 0; i < 12; i++) {
		(void)snprintf(name, sizeof(name), "many%d", i);
		use(name, i % 2 ? &node_b : &node_a);
		EQ(get_with(&rig, &s, peer_request(name), "/name"), 0);
		STREQ(s.body, i % 2 ? "node b" : "node a");
	}
	rig_release(&rig);
	stop_tls();
}

static void test_client_sees_new_ca(void)
{
	struct http_request rq;
	struct sink s;
	struct rig rig;

	save_cert(file("it-ca.crt"), &ca);
	start_tls((struct http_server_config){0}, "a");
	rig_init(&rig);
	rq = peer_request("b");
	rq.ca_file = file("it-ca.crt");
	EQ(get_with(&rig, &s, rq, "/abort"), -ECONNRESET);
	EQ(get_with(&rig, &s, rq, "/abort"), -ECONNRESET);
	save_cert(file("it-ca.crt"), &other_ca);
	rq.ca_file = file("it-ca.crt");
	EQ(get_with(&rig, &s, rq, "/name"), -EKEYREJECTED);
	save_cert(file("it-ca.crt"), &ca);
	rq.ca_file = file("it-ca.crt");
	EQ(get_with(&rig, &s, rq, "/name"), 0);
	rig_release(&rig);
	stop_tls();
}

/* A connection made with one certificate is not used with another. */
static void test_certificates_are_not_shared(void)
{
	struct sink s;
	struct rig rig;

	start_tls((struct http_server_config){0}, "a");
	rig_init(&rig);
	for (int i = 0; i < 3; i++) {
		EQ(get_with(&rig, &s, peer_request("a"), "/name"), 0);
		STREQ(s.body, "node a");
		EQ(get_with(&rig, &s, peer_request("b"), "/name"), 0);
		STREQ(s.body, "node b");
		EQ(get_with(&rig, &s, peer_request(""), "/name"),
		   -EKEYREJECTED);
	}
	rig_release(&rig);
	stop_tls();
}

/* ---- Invalid files ---- */

static int try_files(const char *ca_name, const char *crt, const char *key,
		     const char *blamed)
{
	struct tls_server *t = NULL;
	struct error err = {""};
	int r = tls_server_new(file(ca_name), file(crt), file(key), &t, &err);

	OK((r == 0) == (t != NULL));
	if (blamed && !strstr(err.text, blamed)) {
		tap_test_failed = 1;
		printf("# \"%s\" does not blame %s\n", err.text, blamed);
	}
	tls_server_free(&t);
	EQ(ERR_peek_error(), 0);
	return r;
}

static void test_bad_files(void)
{
	char *large = malloc(2 << 20);

	EQ(try_files("ca.crt", "a.crt", "a.key", NULL), 0);
	EQ(try_files("none", "a.crt", "a.key", "/none"), -ENOENT);
	EQ(try_files("ca.crt", "none", "a.key", "/none"), -ENOENT);
	EQ(try_files("ca.crt", "a.crt", "none", "/none"), -ENOENT);
	EQ(try_files("ca.crt", "a.crt", "b.key", "b.key"), -EKEYREJECTED);
	EQ(try_files(".", "a.crt", "a.key", "regular"), -EBADMSG);
	EQ(mkfifo(file("fifo"), 0600), 0);
	EQ(try_files("ca.crt", "fifo", "a.key", "fifo"), -EBADMSG);
	damage("empty", "");
	damage("text", "no such thing\n");
	damage("cut", "-----BEGIN CERTIFICATE-----\nMIIB\n");
	EQ(try_files("empty", "a.crt", "a.key", "empty"), -EBADMSG);
	EQ(try_files("ca.crt", "text", "a.key", "text"), -EBADMSG);
	EQ(try_files("ca.crt", "cut", "a.key", "damaged"), -EBADMSG);
	EQ(try_files("ca.crt", "a.crt", "empty", "empty"), -EBADMSG);
	EQ(try_files("ca.crt", "a.crt", "text", "text"), -EBADMSG);
	/* In each other's place. */
	EQ(try_files("ca.crt", "a.key", "a.crt", "a.key"), -EBADMSG);
	EQ(try_files("ca.crt", "a.crt", "a.crt", "private key"), -EBADMSG);
	EQ(try_files("a.crt", "a.crt", "a.key", "not a CA certificate"),
	   -EBADMSG);
	save_key(file("locked"), &node_a, "secret");
	EQ(try_files("ca.crt", "a.crt", "locked", "passphrase"), -EBADMSG);
	memset(large, '\n', 2 << 20);
	large[(2 << 20) - 1] = '\0';
	damage("large", large);
	EQ(try_files("large", "a.crt", "a.key", "1 MiB"), -EBADMSG);
	free(large);
	/* Only warned of. */
	log_begin();
	EQ(try_files("ca.crt", "expired.crt", "expired.key", NULL), 0);
	EQ(log_lines("expired"), 2); /* file and cause, in one line */
	EQ(try_files("ca.crt", "stranger.crt", "stranger.key", NULL), 0);
	EQ(log_lines("other nodes will refuse"), 2);
}

/* ---- */

static void make_identity_files(void)
{
	struct {
		const char *name;
		struct identity *id;
	} all[] = {
		{"a", &node_a},
		{"b", &node_b},
		{"stranger", &stranger},
		{"impostor", &impostor},
		{"expired", &expired},
		{"early", &early},
		{"client-only", &client_only},
		{"server-only", &server_only},
		{"nameless", &nameless},
	};
	struct cert_spec s = {.cn = "test CA"};

	ca = make_identity(s);
	false_ca = make_identity(s); /* of the same name */
	s.cn = "other CA";
	other_ca = make_identity(s);
	s.ca = &ca;
	s.cn = "node a";
	node_a = make_identity(s);
	s.cn = "node b";
	node_b = make_identity(s);
	s.usage = "clientAuth";
	client_only = make_identity(s);
	s.usage = "serverAuth";
	server_only = make_identity(s);
	s.usage = NULL;
	s.cn = NULL;
	nameless = make_identity(s);
	s.cn = "expired";
	s.from = -2 * DAY;
	s.until = -60;
	expired = make_identity(s);
	s.cn = "early";
	s.from = DAY;
	s.until = 2 * DAY;
	early = make_identity(s);
	s = (struct cert_spec){.cn = "stranger", .ca = &other_ca};
	stranger = make_identity(s);
	s = (struct cert_spec){.cn = "impostor", .ca = &false_ca};
	impostor = make_identity(s);
	save_cert(file("ca.crt"), &ca);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		use(all[i].name, all[i].id);
}

static void free_identities(void)
{
	struct identity *all[] = {&ca,		&other_ca,    &false_ca,
				  &node_a,	&node_b,      &impostor,
				  &stranger,	&expired,     &early,
				  &client_only, &server_only, &nameless};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		free_identity(all[i]);
}

static void make_big(void)
{
	uint64_t x = 88172645463325252ULL;

	big = malloc(BIG_SIZE);
	big_fd = memfd_create("big", MFD_CLOEXEC);
	if (!big || big_fd < 0)
		BAIL("big file");
	for (size_t i = 0; i < BIG_SIZE; i += sizeof(x)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(big + i, &x, sizeof(x));
	}
	for (size_t at = 0; at < BIG_SIZE;) {
		ssize_t n = write(big_fd, big + at, BIG_SIZE - at);

		if (n <= 0)
			BAIL("big file");
		at += (size_t)n;
	}
}

int main(void)
{
	rig_environment();
	set_proxy();
	log_fd = memfd_create("log", MFD_CLOEXEC);
	log_init(LOG_INFO, LOG_FORMAT_JSON, "test", "0");
	log_set_fd(log_fd);
	make_files();
	make_big();
	make_identity_files();
	RUN(test_get);
	RUN(test_keep_alive);
	RUN(test_big);
	RUN(test_ranges);
	RUN(test_pieces);
	RUN(test_slow_reader);
	RUN(test_stalled_reader);
	RUN(test_gone_in_transfer);
	RUN(test_gone_while_waiting);
	RUN(test_name_outlives_connection);
	RUN(test_many_connections);
	RUN(test_full_records);
	RUN(test_close_notify);
	RUN(test_key_update);
	RUN(test_no_resumption);
	RUN(test_too_many_connections);
	RUN(test_refused_clients);
	RUN(test_refused_servers);
	RUN(test_host_name);
	RUN(test_old_tls);
	RUN(test_peer_needs_ca);
	RUN(test_not_tls);
	RUN(test_garbage_after_handshake);
	RUN(test_stalled_handshake);
	RUN(test_closed_in_handshake);
	RUN(test_stop);
	RUN(test_reload);
	RUN(test_reload_keeps_old);
	RUN(test_ca_rollover);
	RUN(test_client_renews);
	RUN(test_many_identities);
	RUN(test_client_sees_new_ca);
	RUN(test_certificates_are_not_shared);
	RUN(test_bad_files);
	log_set_fd(-1);
	free_identities();
	free(big);
	(void)close(big_fd);
	(void)close(log_fd);
	remove_tree(dir);
	remove_files();
	return tap_done();
}
