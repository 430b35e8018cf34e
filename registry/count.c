/* Metrics of requests to upstream. */
#include "base/metrics.h"
#include "registry/registry-private.h"

static struct metric_family requests_total = {
	.name = "peerd_upstream_requests_total",
	.help = "Requests sent to registries and other upstream servers.",
	.type = METRIC_COUNTER,
	.labels = {"host", "code"},
};

static struct metric_family bytes_total = {
	.name = "peerd_upstream_bytes_total",
	.help = "Body bytes received from upstream servers.",
	.type = METRIC_COUNTER,
	.labels = {"host"},
};

/* Name and labels as in the Go peerd. */
static struct metric_family speed = {
	.name = "peerd_upstream_response_speed_mib_per_second",
	.help = "Speed of upstream response in MiB per second.",
	.type = METRIC_HISTOGRAM,
	.labels = {"self", "hostname", "op"},
	.buckets = {1, 5, 10, 25, 50, 75, 100, 150, 200, 300, 400, 600, 800,
		    1000, 1500, 2000, 3000},
};

void count_register(void)
{
	metric_register(&requests_total);
	metric_register(&bytes_total);
	metric_register(&speed);
}

void count_speed(const char *node, const char *host, uint64_t bytes,
		 uint64_t ns)
{
	const char *const labels[] = {node, host, "pread"};

	if (bytes && ns)
		metric_observe(metric_get(&speed, labels),
			       (double)bytes / (1 << 20) / ((double)ns / 1e9));
}

void count_response(const char *host, int code)
{
	char text[16] = "error";

	if (code)
		(void)snprintf(text, sizeof(text), "%d", code);
	metric_add(metric_get(&requests_total,
			      (const char *const[]){host, text}),
		   1);
}

struct metric_series *count_bytes_series(const char *host)
{
	return metric_get(&bytes_total, (const char *const[]){host});
}
