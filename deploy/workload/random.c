/* peerd-random: reads random ranges of blobs from upstream and again through
 * peerd's /blobs/, compares the bytes, and prints the results of both. It runs
 * one request at a time, each on the loop until it has ended. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/options.h"
#include "http/client.h"
#include "http/range.h"
#include "http/url.h"

#define MIB	      (UINT64_C(1) << 20)
#define MAX_REDIRECTS 5
#define MAX_READ      (256 * MIB)
#define MAX_WAIT_MS   UINT64_C(86400000)

struct settings {
	char *proxy, *node_name, *ca_file;
	uint64_t reads, read_size, rounds, seed, wait_ms, timeout_ms;
	bool stay;
};

#define F(field) offsetof(struct settings, field)

static const struct option options[] = {
	{.name = "proxy",
	 .type = OPT_STRING,
	 .offset = F(proxy),
	 .value_name = "URL",
	 .def = "http://127.0.0.1:5000/blobs/",
	 .section = "Options",
	 .help = "peerd; a blob's URL is put behind it"},
	{.name = "reads",
	 .type = OPT_UINT,
	 .offset = F(reads),
	 .value_name = "N",
	 .def = "5",
	 .min = 1,
	 .max = 100000,
	 .section = "Options",
	 .help = "reads of each blob and way"},
	{.name = "read-size",
	 .type = OPT_SIZE,
	 .offset = F(read_size),
	 .value_name = "SIZE",
	 .def = "1MiB",
	 .min = 1,
	 .max = MAX_READ,
	 .section = "Options",
	 .help = "the longest range; each is half of that at least, if the "
		 "blob is long enough"},
	{.name = "rounds",
	 .type = OPT_UINT,
	 .offset = F(rounds),
	 .value_name = "N",
	 .def = "1",
	 .min = 1,
	 .max = 1000000,
	 .section = "Options",
	 .help = "how often to go through all blobs"},
	{.name = "seed",
	 .type = OPT_UINT,
	 .offset = F(seed),
	 .value_name = "N",
	 .def = "0",
	 .section = "Options",
	 .help = "the same ranges as another run with it; 0 is at random"},
	{.name = "wait",
	 .type = OPT_DURATION,
	 .offset = F(wait_ms),
	 .value_name = "TIME",
	 .def = "60s",
	 .max = MAX_WAIT_MS,
	 .section = "Options",
	 .help = "how long peerd may take until it is ready"},
	{.name = "timeout",
	 .type = OPT_DURATION,
	 .offset = F(timeout_ms),
	 .value_name = "TIME",
	 .def = "120s",
	 .min = 100,
	 .max = MAX_WAIT_MS,
	 .section = "Options",
	 .help = "of one read"},
	{.name = "ca",
	 .type = OPT_STRING,
	 .offset = F(ca_file),
	 .value_name = "FILE",
	 .section = "Options",
	 .help = "CA certificates of upstream, besides the system's"},
	{.name = "node-name",
	 .type = OPT_STRING,
	 .offset = F(node_name),
	 .value_name = "NAME",
	 .section = "Options",
	 .help = "\"node\" in what is printed; the host name by default"},
	{.name = "stay",
	 .type = OPT_BOOL,
	 .offset = F(stay),
	 .section = "Options",
	 .help = "do not end, so that a DaemonSet does not begin again"},
};

static const char help_head[] =
	"usage: peerd-random [OPTION]… URL…\n"
	"\n"
	"Reads random ranges of the blobs at the URLs, from upstream and then\n"
	"through peerd, compares the bytes, and prints JSON lines: \"downloading\n"
	"blob\", \"speeds (MB/s)\", \"error rates\". The status is 0 when all was\n"
	"read and equal, 1 when not, 2 when an option is wrong.\n"
	"\n"
	"Speeds are of single reads, waiting included; 1 MB is 1,000,000 bytes.\n"
	"Percentiles are of speed, from the fastest on: 50 % of the reads were at\n"
	"least as fast as p50, 95 % as p95, and p100 is the slowest of all.\n"
	"An error rate is the part of the reads that failed or had wrong bytes,\n"
	"from 0 to 1.\n"
	"\n";

enum mode { UPSTREAM, P2P };
static const char *const mode_names[] = {"upstream", "p2p"};

struct way {
	double *speeds; /* of the successful reads */
	size_t nspeeds, reads, errors;
};

struct range_sum {
	uint64_t off, len;
	struct digest sum;
	bool known; /* sum is set, from upstream's bytes */
};

struct worker {
	const struct settings *cfg;
	struct loop *loop;
	struct http_client *client;
	uint64_t random;
	struct way ways[2];
	struct range_sum *ranges;
	size_t mismatches;

	/* Of the running request. */
	struct buf body, location;
	int status, result;
	uint64_t first, last, total; /* from Content-Range */
	bool has_range;
	char why[256];
};

/* ---- One request ---- */

static int on_head(void *arg, struct http_exchange *x,
		   const struct http_response *res)
{
	struct worker *w = arg;
	const char *s = http_header(x, "Content-Range", 0);

	w->status = res->status;
	w->has_range = s && content_range_parse(s, &w->first, &w->last,
						&w->total) == 0;
	s = http_header(x, "Location", 0);
	buf_reset(&w->location);
	if (s && buf_str(&w->location, s) < 0)
		return -EPROTO;
	return 0;
}

static int on_data(void *arg, struct http_exchange *x, const void *bytes,
		   size_t len)
{
	struct worker *w = arg;

	(void)x;
	/* More bytes than requested. */
	if (w->status == 206)
		return buf_add(&w->body, bytes, len) < 0 ? -EPROTO : 0;
	return 0;
}

static void on_done(void *arg, struct http_exchange *x, int r, const char *why)
{
	struct worker *w = arg;

	(void)x;
	w->result = r;
	(void)snprintf(w->why, sizeof(w->why), "%s", why ? why : "");
	loop_stop(w->loop);
}

static int request(struct worker *w, const char *url, uint64_t off,
		   uint64_t len)
{
	static const struct http_callbacks cb = {
		.head = on_head, .data = on_data, .done = on_done};
	struct http_exchange *x;
	struct http_request rq = {
		.url = url,
		.has_range = len > 0,
		.range_off = off,
		.range_len = len,
		.ca_file = w->cfg->ca_file,
		.first_byte_timeout_ms = (uint32_t)w->cfg->timeout_ms,
		.total_timeout_ms = w->cfg->timeout_ms,
	};
	int r;

	buf_reset(&w->body);
	w->body.max = len;
	w->status = 0;
	w->has_range = false;
	r = http_start(w->client, &rq, &cb, w, &x);
	if (r < 0) {
		(void)snprintf(w->why, sizeof(w->why), "not a URL");
		return r;
	}
	loop_run(w->loop);
	return w->result;
}

/* Follows a redirect; replaces url. */
static int redirected(struct worker *w, struct buf *url)
{
	CLEANUP(url_release) struct url base = {0};
	CLEANUP(url_release) struct url next = {0};
	int r = url_parse(url->data, &base);

	if (r == 0)
		r = url_resolve(&base, w->location.data, &next);
	buf_reset(url);
	return r == 0 ? url_format(&next, true, url) : r;
}

/* Reads a range into w->body. Returns 0, or a negative errno with w->why. */
static int read_range(struct worker *w, const char *at, uint64_t off,
		      uint64_t len)
{
	CLEANUP(buf_release) struct buf url = BUF_INIT(2 * URL_MAX_BYTES);
	int r = buf_str(&url, at);

	for (int i = 0; r == 0 && i <= MAX_REDIRECTS; i++) {
		r = request(w, url.data, off, len);
		if (r < 0 || w->status / 100 != 3 || w->location.len == 0)
			break;
		r = redirected(w, &url);
	}
	if (r < 0)
		return r;
	if (w->status != 206) {
		(void)snprintf(w->why, sizeof(w->why), "status %d, not 206",
			       w->status);
		return -EPROTO;
	}
	if (!w->has_range || w->first != off || w->last != off + len - 1 ||
	    w->body.len != len) {
		(void)snprintf(w->why, sizeof(w->why), "%s",
			       "not the range that was asked for");
		return -EPROTO;
	}
	return 0;
}

/* ---- Choice of ranges ---- */

/* xorshift64*: good enough to choose ranges. */
static uint64_t next_random(struct worker *w)
{
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return w->random * UINT64_C(0x2545F4914F6CDD1D);
}

static void choose_ranges(struct worker *w, uint64_t size)
{
	for (size_t i = 0; i < w->cfg->reads; i++) {
		struct range_sum *s = &w->ranges[i];
		uint64_t half = div_up_u64(w->cfg->read_size, 2);

		s->len = min_u64(half + next_random(w) %
						 (w->cfg->read_size - half + 1),
				 size);
		s->off = next_random(w) % (size - s->len + 1);
		s->known = false;
	}
}

static void log_failure(const char *url, enum mode mode,
			const struct range_sum *s, const char *why)
{
	log_error("read failed", LS("mode", mode_names[mode]), LS("url", url),
		  LU("offset", s->off), LU("length", s->len), LS("why", why));
}

static void read_one(struct worker *w, enum mode mode, const char *url,
		     struct range_sum *s)
{
	struct way *way = &w->ways[mode];
	struct timespec from, to;
	struct digest sum;
	double seconds;
	int r;

	(void)clock_gettime(CLOCK_MONOTONIC, &from);
	r = read_range(w, url, s->off, s->len);
	(void)clock_gettime(CLOCK_MONOTONIC, &to);
	way->reads++;
	if (r < 0) {
		way->errors++;
		log_failure(url, mode, s, w->why);
		return;
	}
	digest_of(w->body.data, w->body.len, &sum);
	if (mode == UPSTREAM) {
		s->sum = sum;
		s->known = true;
	} else if (s->known && !digest_equal(&s->sum, &sum)) {
		way->errors++;
		w->mismatches++;
		log_failure(url, mode, s, "not upstream's bytes");
		return;
	}
	seconds = (double)(to.tv_sec - from.tv_sec) +
		  (double)(to.tv_nsec - from.tv_nsec) / 1e9;
	way->speeds[way->nspeeds++] =
		(double)s->len / 1e6 / (seconds > 1e-9 ? seconds : 1e-9);
}

static void read_blob(struct worker *w, const char *url)
{
	CLEANUP(buf_release) struct buf by_p2p = BUF_INIT(2 * URL_MAX_BYTES);
	const struct range_sum first = {.len = 1};
	int r = read_range(w, url, 0, 1);

	if (r < 0 || w->total == UINT64_MAX || w->total == 0) {
		log_failure(url, UPSTREAM, &first,
			    r < 0 ? w->why : "its size is not told");
		w->ways[UPSTREAM].reads++;
		w->ways[UPSTREAM].errors++;
		return;
	}
	choose_ranges(w, w->total);
	if (buf_printf(&by_p2p, "%s%s%s", w->cfg->proxy,
		       w->cfg->proxy[strlen(w->cfg->proxy) - 1] == '/' ? ""
								       : "/",
		       url) < 0)
		return;
	for (enum mode mode = UPSTREAM; mode <= P2P; mode++) {
		log_info("downloading blob", LS("mode", mode_names[mode]),
			 LU("size", w->total),
			 LU("readsPerBlob", w->cfg->reads));
		for (size_t i = 0; i < w->cfg->reads; i++)
			read_one(w, mode, mode == P2P ? by_p2p.data : url,
				 &w->ranges[i]);
	}
}

/* ---- Report ---- */

static int by_speed(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x < y) - (x > y);
}

/* Percentiles by nearest rank, the fastest first: p100 is the slowest. */
static double percentile(const struct way *way, unsigned p)
{
	size_t rank = (way->nspeeds * p + 99) / 100;

	return way->nspeeds ? way->speeds[rank ? rank - 1 : 0] : 0;
}

static void tell_speeds(struct way *way, enum mode mode)
{
	static const unsigned at[] = {50, 75, 90, 95, 100};
	char keys[ARRAY_SIZE(at)][24];
	struct log_field fields[ARRAY_SIZE(at) + 1] = {0};

	qsort(way->speeds, way->nspeeds, sizeof(way->speeds[0]), by_speed);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		(void)snprintf(keys[i], sizeof(keys[i]), "%s.p%u",
			       mode_names[mode], at[i]);
		fields[i] = LD(keys[i], percentile(way, at[i]));
	}
	if (way->nspeeds)
		log_write(LOG_INFO, "speeds (MB/s)", fields);
}

static double error_rate(const struct way *way)
{
	return way->reads ? (double)way->errors / (double)way->reads : 0;
}

/* ---- Waiting for peerd ---- */

static void on_timer(uv_timer_t *timer)
{
	loop_stop(timer->data);
}

static void nap(struct worker *w, uint64_t ms)
{
	uv_timer_t timer;

	(void)uv_timer_init(loop_uv(w->loop), &timer);
	timer.data = w->loop;
	(void)uv_timer_start(&timer, on_timer, ms, 0);
	loop_run(w->loop);
	uv_close((uv_handle_t *)&timer, NULL);
	(void)uv_run(loop_uv(w->loop), UV_RUN_NOWAIT);
}

static int wait_ready(struct worker *w)
{
	CLEANUP(buf_release) struct buf at = BUF_INIT(URL_MAX_BYTES);
	CLEANUP(url_release) struct url proxy = {0}, ready = {0};
	uint64_t until = now_ms() + w->cfg->wait_ms;
	int r = url_parse(w->cfg->proxy, &proxy);

	if (r == 0)
		r = url_resolve(&proxy, "/readyz", &ready);
	if (r == 0)
		r = url_format(&ready, false, &at);
	if (r < 0) {
		log_error("--proxy is no URL", LS("proxy", w->cfg->proxy));
		return r;
	}
	for (;;) {
		r = request(w, at.data, 0, 0);
		if (r == 0 && w->status == 200)
			return 0;
		if (now_ms() >= until)
			break;
		nap(w, 200);
	}
	log_error("peerd is not ready", LS("url", at.data),
		  LI("status", w->status), LS("why", w->why));
	return -ETIMEDOUT;
}

/* ---- Main ---- */

static int worker_init(struct worker *w, const struct settings *cfg,
		       size_t nblobs)
{
	struct http_client_config cc = {.user_agent =
						"peerd-random/" PEERD_VERSION};
	uint64_t reads = cfg->reads * cfg->rounds;
	int r;

	*w = (struct worker){.cfg = cfg, .random = cfg->seed};
	w->location = BUF_INIT(URL_MAX_BYTES);
	if (reads > SIZE_MAX / 64 / nblobs)
		return -E2BIG;
	while (w->random == 0)
		if (getrandom(&w->random, sizeof(w->random), 0) == -1)
			return -errno;
	w->ranges = calloc(cfg->reads, sizeof(*w->ranges));
	for (int i = 0; i < 2; i++) {
		w->ways[i].speeds = calloc(reads * nblobs, sizeof(double));
		if (!w->ways[i].speeds)
			return -ENOMEM;
	}
	if (!w->ranges)
		return -ENOMEM;
	r = loop_new(&w->loop);
	return r < 0 ? r : http_client_new(w->loop, &cc, &w->client);
}

static void worker_release(struct worker *w)
{
	if (w->client)
		http_client_free(&w->client);
	loop_free(&w->loop);
	buf_release(&w->body);
	buf_release(&w->location);
	free(w->ranges);
	free(w->ways[UPSTREAM].speeds);
	free(w->ways[P2P].speeds);
}

static int work(const struct settings *cfg, const struct string_list *urls)
{
	CLEANUP(worker_release) struct worker w;
	int r = worker_init(&w, cfg, urls->n);

	if (r < 0) {
		log_error("cannot start", LE(r));
		return 1;
	}
	if (wait_ready(&w) < 0)
		return 1;
	log_info("reading", LU("blobs", urls->n), LU("seed", w.random));
	for (uint64_t i = 0; i < cfg->rounds; i++)
		for (size_t j = 0; j < urls->n; j++)
			read_blob(&w, urls->v[j]);
	tell_speeds(&w.ways[UPSTREAM], UPSTREAM);
	tell_speeds(&w.ways[P2P], P2P);
	log_info("error rates", LD("p2p.error_rate", error_rate(&w.ways[P2P])),
		 LD("upstream.error_rate", error_rate(&w.ways[UPSTREAM])));
	if (w.mismatches)
		log_error("bytes differed", LU("reads", w.mismatches));
	return w.ways[UPSTREAM].errors || w.ways[P2P].errors;
}

int main(int argc, char **argv)
{
	struct settings cfg = {0};
	CLEANUP(string_list_release) struct string_list urls = {0};
	struct error err = {""};
	char host[256] = "";
	bool help = false;
	int status = 2, r;

	r = options_parse(options, ARRAY_SIZE(options), &cfg, argc, argv, &urls,
			  &help, &err);
	if (r < 0) {
		(void)fprintf(stderr, "peerd-random: %s\n", err.text);
	} else if (help) {
		(void)fputs(help_head, stdout);
		options_help(options, ARRAY_SIZE(options), stdout);
		status = 0;
	} else if (urls.n == 0) {
		(void)fprintf(stderr, "peerd-random: no URL (see --help)\n");
	} else {
		(void)gethostname(host, sizeof(host) - 1);
		log_init(LOG_INFO, LOG_FORMAT_JSON,
			 cfg.node_name ? cfg.node_name : host, PEERD_VERSION);
		log_set_fd(STDOUT_FILENO);
		status = work(&cfg, &urls);
		while (cfg.stay)
			(void)pause();
	}
	options_release(options, ARRAY_SIZE(options), &cfg);
	return status;
}
