/* The commands that talk to a running daemon over its control socket. */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "cmd/cli.h"
#include "daemon/config.h"
#include "http/client.h"

#define MAX_ANSWER (256 << 20)

/* The options of all these commands. */
struct client_config {
	char *config;
	char *cache_dir;
	bool json;
	bool all;
	bool quiet;
};

#define F(field) offsetof(struct client_config, field)

/* clang-format off */
static const struct option options[] = {
	{.name = "cache-dir", .type = OPT_STRING, .offset = F(cache_dir),
	 .value_name = "DIR", .def = DEFAULT_CACHE_DIR, .section = "Options",
	 .help = "the daemon's cache directory, where its socket is"},
	{.name = "json", .type = OPT_BOOL, .offset = F(json),
	 .section = "Options", .help = "print JSON as the daemon sent it"},
	{.name = "all", .type = OPT_BOOL, .offset = F(all),
	 .section = "Options", .help = "every blob of the cache"},
	{.name = "quiet", .type = OPT_BOOL, .offset = F(quiet),
	 .section = "Options", .help = "no progress"},
	{.name = "config", .type = OPT_STRING, .offset = F(config),
	 .shared = true,
	 .value_name = "FILE", .section = "Options", .hidden = true,
	 .help = "options as a JSON object"},
};
/* clang-format on */

/* One request, on a loop of its own. */
struct request {
	struct loop *loop;
	struct http_client *client;
	struct loop_task start;
	struct http_request rq;
	struct buf body;
	/* If set, called with each whole line; the body is not kept then. */
	void (*line)(struct request *c, const char *line, size_t len);
	void *arg;
	int status;
	int r;
	char why[256];
};

static int on_head(void *arg, struct http_exchange *x,
		   const struct http_response *res)
{
	struct request *c = arg;

	(void)x;
	c->status = res->status;
	return 0;
}

static int on_data(void *arg, struct http_exchange *x, const void *bytes,
		   size_t len)
{
	struct request *c = arg;
	char *nl;
	int r = buf_add(&c->body, bytes, len);

	(void)x;
	if (r < 0 || !c->line || c->status != 200)
		return r;
	while ((nl = memchr(c->body.data, '\n', c->body.len))) {
		size_t n = (size_t)(nl - c->body.data);

		c->line(c, c->body.data, n);
		memmove(c->body.data, nl + 1, c->body.len - n - 1);
		buf_truncate(&c->body, c->body.len - n - 1);
	}
	return 0;
}

static void on_done(void *arg, struct http_exchange *x, int r, const char *why)
{
	struct request *c = arg;

	(void)x;
	c->r = r;
	(void)snprintf(c->why, sizeof(c->why), "%s", why ? why : "");
	loop_stop(c->loop);
}

static void on_start(struct loop_task *t)
{
	static const struct http_callbacks cb = {
		.head = on_head, .data = on_data, .done = on_done};
	struct request *c = container_of(t, struct request, start);
	struct http_client_config hc = {.user_agent = "peerd"};
	struct http_exchange *x;

	c->r = http_client_new(c->loop, &hc, &c->client);
	if (c->r == 0)
		c->r = http_start(c->client, &c->rq, &cb, c, &x);
	if (c->r < 0)
		loop_stop(c->loop);
}

static void free_client(struct loop_task *t)
{
	struct request *c = container_of(t, struct request, start);

	http_client_free(&c->client);
	loop_stop(c->loop);
}

/* Prints the message of an error body; see http_reply_error(). */
static void print_refusal(const struct request *c)
{
	CLEANUP(json_decrefp) json_t *v = NULL;
	const char *text = NULL;

	if (c->body.data &&
	    json_parse(c->body.data, c->body.len, 65536, &v, NULL) == 0)
		text = json_get_str(json_array_get(json_get_arr(v, "errors"),
						   0),
				    "message");
	if (text)
		(void)fprintf(stderr, "peerd: %s\n", text);
	else
		(void)fprintf(stderr, "peerd: the daemon answered %d\n",
			      c->status);
}

/* Sends a request and reads the whole answer. 0 if the daemon answered 200;
 * else an error message was printed. */
static int call_daemon(const struct client_config *cfg, const char *method,
		       const char *path, const char *body, struct request *c)
{
	CLEANUP(buf_release)
	struct buf sock = BUF_INIT(4096), url = BUF_INIT(4096);
	static const struct http_header json = {"Content-Type",
						"application/json"};

	if (control_path(cfg->cache_dir, &sock) < 0 ||
	    buf_printf(&url, "http://peerd%s", path) < 0 ||
	    loop_new(&c->loop) < 0) {
		(void)fprintf(stderr, "peerd: out of memory\n");
		return -ENOMEM;
	}
	if (access(sock.data, W_OK) == -1) {
		(void)fprintf(stderr,
			      "peerd: no daemon has its socket at %s: %s\n"
			      "(is it running, with this --cache-dir?)\n",
			      sock.data, strerror(errno));
		loop_free(&c->loop);
		return -ENOENT;
	}
	c->body = BUF_INIT(MAX_ANSWER);
	c->rq = (struct http_request){
		.method = method,
		.url = url.data,
		.headers = &json,
		.nheaders = 1,
		.body = body,
		.body_len = body ? strlen(body) : 0,
		.unix_socket = sock.data,
		.first_byte_timeout_ms = 3600000,
		.low_speed_seconds = 3600,
	};
	c->start.run = on_start;
	loop_post(c->loop, &c->start);
	loop_run(c->loop);
	c->start.run = free_client;
	loop_post(c->loop, &c->start);
	loop_run(c->loop);
	loop_free(&c->loop);
	if (c->r < 0) {
		(void)fprintf(stderr,
			      "peerd: request to the daemon at %s: %s\n",
			      sock.data, *c->why ? c->why : strerror(-c->r));
	} else if (c->status != 200) {
		print_refusal(c);
		c->r = -EIO;
	}
	return c->r;
}

static json_t *call_json(const struct client_config *cfg, const char *method,
			 const char *path, const char *body)
{
	struct request c = {0};
	struct error err;
	json_t *v = NULL;

	if (call_daemon(cfg, method, path, body, &c) == 0) {
		if (cfg->json)
			(void)fwrite(c.body.data, 1, c.body.len, stdout);
		if (json_parse(c.body.data ? c.body.data : "", c.body.len,
			       MAX_ANSWER, &v, &err) < 0)
			(void)fprintf(stderr, "peerd: invalid answer: %s\n",
				      err.text);
	}
	buf_release(&c.body);
	return v;
}

/* ---- status, ls ---- */

static uint64_t num(const json_t *o, const char *key)
{
	uint64_t n = 0;

	(void)json_get_u64(o, key, &n);
	return n;
}

static const char *human(uint64_t bytes, char out[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double v = (double)bytes;
	size_t u = 0;

	while (v >= 1024 && u + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		u++;
	}
	(void)snprintf(out, 32, u && v < 100 ? "%.1f %s" : "%.0f %s", v,
		       units[u]);
	return out;
}

/* Prints the parts that only some daemons have. */
static void print_others(const json_t *v)
{
	const json_t *peers = json_get_obj(v, "peers");
	const json_t *c = json_get_obj(v, "containerd");

	if (peers)
		printf("peers     %llu alive\n",
		       (unsigned long long)num(peers, "alive"));
	if (c)
		printf("containerd: %llu blobs in its content store%s, %llu "
		       "images%s\n",
		       (unsigned long long)num(c, "blobs"),
		       json_is_true(json_object_get(c, "watching"))
			       ? ""
			       : " (absent)",
		       (unsigned long long)num(c, "images"),
		       json_is_true(json_object_get(c, "connected"))
			       ? ""
			       : " (not connected)");
}

static int print_status(const struct client_config *cfg,
			const struct string_list *args)
{
	CLEANUP(json_decrefp)
	json_t *v = call_json(cfg, "GET", "/api/v1/status", NULL);
	const json_t *cache = json_get_obj(v, "cache");
	const json_t *fetch = json_get_obj(v, "fetch");
	const char *mount;
	char a[32], b[32];

	(void)args;
	if (!v)
		return 1;
	if (cfg->json)
		return 0;
	mount = json_get_str(v, "mount");
	printf("node      %s, version %s, up %llu s\n", json_get_str(v, "node"),
	       json_get_str(v, "version"),
	       (unsigned long long)num(v, "uptime_seconds"));
	printf("mount     %s\n", mount ? mount : "none");
	printf("cache     %llu blobs, %s; %llu manifests, %s",
	       (unsigned long long)num(cache, "blobs"),
	       human(num(cache, "cached_bytes"), a),
	       (unsigned long long)num(cache, "manifests"),
	       human(num(cache, "manifest_bytes"), b));
	if (num(cache, "max_bytes"))
		printf("; of %s", human(num(cache, "max_bytes"), b));
	printf("; %s free on its file system\n",
	       human(num(cache, "free_bytes"), a));
	printf("verified  %llu blobs, %llu did not match\n",
	       (unsigned long long)num(cache, "verified_blobs"),
	       (unsigned long long)num(cache, "mismatched_blobs"));
	printf("evicted   %s; damaged chunks %llu, write errors %llu\n",
	       human(num(cache, "evicted_bytes"), a),
	       (unsigned long long)num(cache, "damaged_chunks"),
	       (unsigned long long)num(cache, "write_errors"));
	printf("fetched   %s; now %llu requests for %llu chunks, %llu reads "
	       "wait\n",
	       human(num(fetch, "fetched_bytes"), a),
	       (unsigned long long)num(fetch, "requests"),
	       (unsigned long long)num(fetch, "flights"),
	       (unsigned long long)num(fetch, "waiting_reads"));
	printf("failed    %llu requests, %llu reads\n",
	       (unsigned long long)num(fetch, "failed_requests"),
	       (unsigned long long)num(fetch, "failed_reads"));
	print_others(v);
	return 0;
}

static int list_blobs(const struct client_config *cfg,
		      const struct string_list *args)
{
	CLEANUP(json_decrefp)
	json_t *v = call_json(cfg, "GET", "/api/v1/blobs", NULL);
	size_t i;
	json_t *b;

	(void)args;
	if (!v)
		return 1;
	if (cfg->json)
		return 0;
	printf("%-71s %10s %10s  %-11s %s\n", "BLOB", "SIZE", "CACHED", "STATE",
	       "LAST USE");
	json_array_foreach (json_get_arr(v, "blobs"), i, b) {
		const char *name = json_get_str(b, "digest");
		char size[32], cached[32], when[32] = "-";
		time_t t = (time_t)num(b, "last_use");
		struct tm tm;

		if (t && localtime_r(&t, &tm))
			(void)strftime(when, sizeof(when), "%F %T", &tm);
		printf("%s%-*s %10s %10s  %-11s %s\n",
		       name ? "" : "url:", name ? 71 : 67,
		       name ? name : json_get_str(b, "url_key"),
		       human(num(b, "size"), size),
		       human(num(b, "cached"), cached),
		       json_get_str(b, "state"), when);
	}
	return 0;
}

/* ---- peers ---- */

static int list_peers(const struct client_config *cfg,
		      const struct string_list *args)
{
	CLEANUP(json_decrefp)
	json_t *v = call_json(cfg, "GET", "/api/v1/peers", NULL);
	size_t i;
	json_t *b;

	(void)args;
	if (!v)
		return 1;
	if (cfg->json)
		return 0;
	printf("%-20s %-22s %-10s %-8s %8s %10s %10s  %s\n", "NODE", "ADDRESS",
	       "ZONE", "STATE", "RTT", "FROM IT", "TO IT", "");
	json_array_foreach (json_get_arr(v, "peers"), i, b) {
		char from[32], to[32];
		const char *zone = json_get_str(b, "zone");

		printf("%-20s %-22s %-10s %-8s %5.1f ms %10s %10s  %s\n",
		       json_get_str(b, "name"), json_get_str(b, "address"),
		       zone && *zone ? zone : "-", json_get_str(b, "state"),
		       json_real_value(json_object_get(b, "rtt_ms")),
		       human(num(b, "received_bytes"), from),
		       human(num(b, "sent_bytes"), to), json_get_str(b, "why"));
	}
	return 0;
}

/* ---- pull ---- */

struct pull_view {
	const char *ref;
	bool bar;
	bool json;
	struct timespec start;
	char result[512]; /* empty until the last line */
	uint64_t bytes, before;
};

static double seconds_since(const struct timespec *t)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - t->tv_sec) +
	       (double)(now.tv_nsec - t->tv_nsec) / 1e9;
}

static void draw_bar(const struct pull_view *v, const json_t *o)
{
	static const char full[] = "########################";
	uint64_t total = num(o, "bytes"), done = num(o, "bytes_done");
	int width = (int)sizeof(full) - 1;
	int fill =
		total ? (int)((double)width * (double)done / (double)total) : 0;
	double s = seconds_since(&v->start);
	char a[32], b[32], c[32];

	(void)fprintf(
		stderr, "\r%llu/%llu blobs [%-*.*s] %s of %s, %s/s   ",
		(unsigned long long)num(o, "blobs_done"),
		(unsigned long long)num(o, "blobs"), width, fill, full,
		human(done, a), human(total, b),
		human(s > 0 ? (uint64_t)((double)(done -
						  num(o, "bytes_before")) /
					 s)
			    : 0,
		      c));
	(void)fflush(stderr);
}

static void on_pull_line(struct request *c, const char *line, size_t len)
{
	struct pull_view *v = c->arg;
	CLEANUP(json_decrefp) json_t *o = NULL;
	const char *result;

	if (v->json)
		printf("%.*s\n", (int)len, line);
	if (json_parse(line, len, 65536, &o, NULL) < 0)
		return;
	v->bytes = num(o, "bytes");
	v->before = num(o, "bytes_before");
	result = json_get_str(o, "result");
	if (result)
		(void)snprintf(v->result, sizeof(v->result), "%s", result);
	if (v->bar)
		draw_bar(v, o);
}

static int pull_one(const struct client_config *cfg, const char *ref)
{
	struct pull_view v = {
		.ref = ref,
		.json = cfg->json,
		.bar = !cfg->json && !cfg->quiet && isatty(STDERR_FILENO),
	};
	struct request c = {.line = on_pull_line, .arg = &v};
	CLEANUP(buf_release) struct buf body = BUF_INIT(65536);
	char a[32], b[32];
	double s;
	int r;

	if (buf_str(&body, "{\"reference\":") < 0 ||
	    json_quote(&body, ref) < 0 || buf_str(&body, "}") < 0) {
		(void)fprintf(stderr,
			      "peerd: %.64s…: the reference is too long\n",
			      ref);
		return 1;
	}
	(void)clock_gettime(CLOCK_MONOTONIC, &v.start);
	r = call_daemon(cfg, "POST", "/api/v1/pull", body.data, &c);
	buf_release(&c.body);
	if (v.bar)
		(void)fputc('\n', stderr);
	if (r < 0)
		return 1;
	if (strcmp(v.result, "ok") != 0) {
		(void)fprintf(stderr, "peerd: %s: %s\n", ref,
			      *v.result ? v.result
					: "the daemon closed the connection");
		return 1;
	}
	s = seconds_since(&v.start);
	if (!cfg->json && !cfg->quiet)
		printf("%s: %s, of which %s fetched, in %.1f s\n", ref,
		       human(v.bytes, a), human(v.bytes - v.before, b), s);
	return 0;
}

static int pull(const struct client_config *cfg, const struct string_list *refs)
{
	int status = 0;

	if (refs->n == 0) {
		(void)fprintf(stderr, "peerd: pull needs a reference: "
				      "peerd pull HOST/NAME:TAG…\n");
		return 2;
	}
	for (size_t i = 0; i < refs->n; i++)
		status |= pull_one(cfg, refs->v[i]);
	return status;
}

/* ---- verify, evict ---- */

static int keys_body(const struct client_config *cfg,
		     const struct string_list *args, struct buf *out)
{
	int r = buf_str(out, cfg->all ? "{\"all\":true" : "{\"digests\":[");

	if (!cfg->all && args->n == 0) {
		(void)fprintf(stderr,
			      "peerd: give digests (sha256:…), or --all\n");
		return -EINVAL;
	}
	for (size_t i = 0; i < args->n && !cfg->all && r == 0; i++) {
		if (i)
			r = buf_str(out, ",");
		if (r == 0)
			r = json_quote(out, args->v[i]);
	}
	return r < 0 ? r : buf_str(out, cfg->all ? "}" : "]}");
}

static int post_keys(const struct client_config *cfg, const char *path,
		     const struct string_list *args)
{
	CLEANUP(buf_release) struct buf body = BUF_INIT(1 << 20);
	CLEANUP(json_decrefp) json_t *v = NULL;
	int status = 0;
	size_t i;
	json_t *b;

	if (keys_body(cfg, args, &body) < 0)
		return 2;
	v = call_json(cfg, "POST", path, body.data);
	if (!v)
		return 1;
	json_array_foreach (json_get_arr(v, "blobs"), i, b) {
		const char *result = json_get_str(b, "result");

		if (!cfg->json && !cfg->quiet)
			printf("%s  %s\n", json_get_str(b, "blob"), result);
		if (strcmp(result, "verified") != 0 &&
		    strcmp(result, "incomplete") != 0 &&
		    strcmp(result, "unverifiable") != 0 &&
		    strcmp(result, "evicted") != 0)
			status = 1;
	}
	return status;
}

static int verify(const struct client_config *cfg,
		  const struct string_list *args)
{
	return post_keys(cfg, "/api/v1/verify", args);
}

static int evict(const struct client_config *cfg,
		 const struct string_list *args)
{
	return post_keys(cfg, "/api/v1/evict", args);
}

/* ---- The commands ---- */

struct client_run {
	struct client_config cfg; /* must be first: receives the options */
	int (*run)(const struct client_config *cfg,
		   const struct string_list *args);
};

static int run_one(void *arg, const struct string_list *args)
{
	const struct client_run *r = arg;

	return r->run(&r->cfg, args);
}

static int run(const struct command *c, int argc, char **argv,
	       int (*run_it)(const struct client_config *cfg,
			     const struct string_list *args))
{
	struct client_run r = {.run = run_it};

	return command_run(c, options, ARRAY_SIZE(options), &r, argc, argv,
			   run_one);
}

int cmd_status(const struct command *c, int argc, char **argv)
{
	return run(c, argc, argv, print_status);
}

int cmd_ls(const struct command *c, int argc, char **argv)
{
	return run(c, argc, argv, list_blobs);
}

int cmd_peers(const struct command *c, int argc, char **argv)
{
	return run(c, argc, argv, list_peers);
}

int cmd_pull(const struct command *c, int argc, char **argv)
{
	return run(c, argc, argv, pull);
}

int cmd_verify(const struct command *c, int argc, char **argv)
{
	return run(c, argc, argv, verify);
}

int cmd_evict(const struct command *c, int argc, char **argv)
{
	return run(c, argc, argv, evict);
}
