/* What is asked of upstream, counted. */
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
