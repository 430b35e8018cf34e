/* Metrics of the whole daemon: requests, and the counters of the store and of
 * the fetches. */
#include <string.h>
#include <strings.h>

#include "base/metrics.h"
#include "daemon/daemon-private.h"

/* ---- Families with the names and units of the Go peerd ---- */

static struct metric_family m_request = {
	.name = "peerd_request_duration_seconds",
	.help = "Duration of requests in seconds.",
	.type = METRIC_HISTOGRAM,
	.labels = {"self", "method", "handler"},
	.buckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
		    2.5, 5, 10, 30, 60, 120},
};
static struct metric_family m_discovery = {
	.name = "peerd_peer_discovery_duration_seconds",
	.help = "Duration of peer discovery in seconds.",
	.type = METRIC_HISTOGRAM,
	.labels = {"self", "ip"},
	.buckets = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
		    0.5, 1, 2.5},
};
static struct metric_family m_peer_speed = {
	.name = "peerd_peer_response_speed_mib_per_second",
	.help = "Speed of peer response in MiB per second.",
	.type = METRIC_HISTOGRAM,
	.labels = {"self", "ip", "op"},
	.buckets = {1, 5, 10, 25, 50, 75, 100, 150, 200, 300, 400, 600, 800,
		    1000, 1500, 2000, 3000},
};

/* ---- Other families ---- */

static struct metric_family m_answers = {
	.name = "peerd_http_requests_total",
	.help = "HTTP requests, by handler and status; 0: aborted.",
	.type = METRIC_COUNTER,
	.labels = {"handler", "code"},
};
static struct metric_family m_amplification = {
	.name = "peerd_amplification_ratio",
	.help = "Bytes fetched per byte that readers got, since the "
		"start; below 1 the cache saves traffic.",
	.type = METRIC_GAUGE,
};
static struct metric_family m_flights = {
	.name = "peerd_flights",
	.help = "Chunks that are being fetched now.",
	.type = METRIC_GAUGE,
};
static struct metric_family m_waiting = {
	.name = "peerd_waiting_reads",
	.help = "Reads that wait for a flight now.",
	.type = METRIC_GAUGE,
};
static struct metric_family m_memory = {
	.name = "peerd_fetch_memory_bytes",
	.help = "Memory that holds bytes on their way into the store.",
	.type = METRIC_GAUGE,
};
static struct metric_family m_cache_bytes = {
	.name = "peerd_cache_bytes",
	.help = "Bytes of chunks in the store.",
	.type = METRIC_GAUGE,
};
static struct metric_family m_manifest_bytes = {
	.name = "peerd_cache_manifest_bytes",
	.help = "Bytes of manifests in the store.",
	.type = METRIC_GAUGE,
};
static struct metric_family m_cache_blobs = {
	.name = "peerd_cache_blobs",
	.help = "Blobs that the store knows.",
	.type = METRIC_GAUGE,
};
static struct metric_family m_free = {
	.name = "peerd_cache_free_bytes",
	.help = "Free bytes on the file system of the store.",
	.type = METRIC_GAUGE,
};
static struct metric_family m_evicted_chunks = {
	.name = "peerd_evicted_chunks_total",
	.help = "Chunks that were evicted.",
	.type = METRIC_COUNTER,
};
static struct metric_family m_evicted_bytes = {
	.name = "peerd_evicted_bytes_total",
	.help = "Bytes that were evicted.",
	.type = METRIC_COUNTER,
};
static struct metric_family m_errors = {
	.name = "peerd_store_errors_total",
	.help = "Errors of the store, by cause.",
	.type = METRIC_COUNTER,
	.labels = {"cause"},
};
static struct metric_family m_checked = {
	.name = "peerd_checked_blobs_total",
	.help = "Blobs whose digest was computed, by result.",
	.type = METRIC_COUNTER,
	.labels = {"result"},
};

static struct metric_series *single(struct metric_family *f)
{
	return metric_get(f, NULL);
}

static struct metric_series *labelled(struct metric_family *f, const char *l)
{
	return metric_get(f, (const char *const[]){l});
}

/* Sets a counter to the total that its owner counted. */
static void show(struct metric_series *s, uint64_t total)
{
	metric_add(s, (double)total - metric_value(s));
}

void stats_init(void)
{
	static struct metric_family *const shown[] = {
		&m_request, &m_discovery, &m_peer_speed, &m_answers};

	for (size_t i = 0; i < ARRAY_SIZE(shown); i++)
		metric_register(shown[i]);
}

void stats_collect(struct daemon *d)
{
	struct store_stats st;
	struct fetch_stats ft;
	double read;

	store_stats(d->store, &st);
	fetch_stats(d->fetch, &ft);
	metric_set(single(&m_flights), (double)ft.flights);
	metric_set(single(&m_waiting), (double)ft.reads);
	metric_set(single(&m_memory), (double)ft.memory_bytes);
	metric_set(single(&m_cache_bytes), (double)st.cached_bytes);
	metric_set(single(&m_manifest_bytes), (double)st.manifest_bytes);
	metric_set(single(&m_cache_blobs), (double)st.blobs);
	metric_set(single(&m_free), (double)st.fs_free_bytes);
	show(single(&m_evicted_chunks), st.evicted_chunks);
	show(single(&m_evicted_bytes), st.evicted_bytes);
	show(labelled(&m_errors, "damaged_chunk"), st.damaged_chunks);
	show(labelled(&m_errors, "write"), st.write_errors);
	show(labelled(&m_checked, "verified"), st.verified_blobs);
	show(labelled(&m_checked, "mismatch"), st.mismatched_blobs);
	read = metrics_total("peerd_http_sent_bytes_total", NULL) +
	       metrics_total("peerd_fuse_read_bytes_total", "requested");
	metric_set(single(&m_amplification),
		   read > 0 ? (double)ft.fetched_bytes / read : 0);
}

/* ---- Members ---- */

void stats_discovery(const struct daemon *d, const char *addr, double seconds)
{
	metric_observe(metric_get(&m_discovery,
				  (const char *const[]){d->node, addr}),
		       seconds);
}

void stats_peer_speed(const struct daemon *d, const char *addr,
		      double mib_per_second)
{
	metric_observe(
		metric_get(&m_peer_speed,
			   (const char *const[]){d->node, addr, "pread"}),
		mib_per_second);
}

/* ---- Requests ---- */

static bool is_below(const char *path, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(path, prefix, n) == 0 &&
	       (path[n] == '/' || path[n] == '\0' || path[n] == '?');
}

/* The handler's name in the Go peerd. */
static const char *handler_of(const char *target)
{
	if (is_below(target, "/v2"))
		return "oci";
	return is_below(target, "/blobs") ? "files" : "api";
}

/* Keeps the series of the handlers that get thousands of requests a second. */
static struct metric_series *duration_series(const struct daemon *d,
					     const char *method,
					     const char *handler)
{
	static struct metric_series *kept[2][2];
	bool files = *handler == 'f';
	bool head = strcmp(method, "HEAD") == 0;
	const char *const labels[] = {d->node, method, handler};
	struct metric_series **s = &kept[files][head];

	if (*handler == 'a' || (!head && strcmp(method, "GET") != 0))
		return metric_get(&m_request, labels);
	if (!*s)
		*s = metric_get(&m_request, labels);
	return *s;
}

static void count_answer(const char *handler, int status)
{
	static struct metric_series *kept[2][2];
	const char *labels[] = {handler, NULL};
	bool common = *handler != 'a' && (status == 200 || status == 206);
	struct metric_series *s, **k = &kept[*handler == 'f'][status == 206];
	char code[16];

	if (common && *k) {
		metric_add(*k, 1);
		return;
	}
	(void)snprintf(code, sizeof(code), "%d", status);
	labels[1] = code;
	s = metric_get(&m_answers, labels);
	if (common)
		*k = s;
	metric_add(s, 1);
}

void stats_request(void *arg, const struct http_req *rq, int status,
		   uint64_t ns)
{
	const char *handler = handler_of(http_req_target(rq));

	metric_observe(duration_series(arg, http_req_method(rq), handler),
		       (double)ns / 1e9);
	count_answer(handler, status);
}
