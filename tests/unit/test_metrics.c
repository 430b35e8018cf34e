#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/metrics.h"
#include "base/util.h"
#include "tests/unit/tap.h"

static struct metric_family requests = {
	.name = "test_requests_total",
	.help = "Requests \\ by\nroute",
	.type = METRIC_COUNTER,
	.labels = {"route", "code"},
};
static struct metric_family inflight = {
	.name = "test_inflight_requests",
	.help = "Requests being answered",
	.type = METRIC_GAUGE,
};
static struct metric_family seconds = {
	.name = "test_request_duration_seconds",
	.help = "Time to answer",
	.type = METRIC_HISTOGRAM,
	.labels = {"method"},
	.buckets = {0.005, 0.25, 1, 10},
};
static struct metric_family unused = {
	.name = "test_unused_total",
	.help = "Never counted",
	.type = METRIC_COUNTER,
	.labels = {"x"},
};
static struct metric_family many = {
	.name = "test_many_total",
	.help = "Many label values",
	.type = METRIC_COUNTER,
	.labels = {"who", "what"},
};
static struct metric_family shared = {
	.name = "test_shared_seconds",
	.help = "Used by several threads",
	.type = METRIC_HISTOGRAM,
	.labels = {"n"},
	.buckets = {1, 2},
};

/* The output of metrics_write(); the caller frees it. */
static char *text(void)
{
	struct buf b = BUF_INIT((size_t)1 << 20);

	if (metrics_write(&b) != 0)
		BAIL("metrics_write");
	return buf_steal(&b);
}

static void has(const char *want)
{
	CLEANUP(freep) char *t = text();

	if (!strstr(t, want))
		printf("# missing: %s\n# in:\n%s\n", want, t);
	OK(strstr(t, want) != NULL);
}

static void lacks(const char *what)
{
	CLEANUP(freep) char *t = text();

	OK(strstr(t, what) == NULL);
}

static struct metric_series *series2(struct metric_family *f, const char *a,
				     const char *b)
{
	const char *const v[] = {a, b};

	return metric_get(f, v);
}

static void test_counter(void)
{
	struct metric_series *s = series2(&requests, "/v2/", "200");

	OK(series2(&requests, "/v2/", "200") == s);
	OK(series2(&requests, "/v2/", "404") != s);
	metric_add(s, 1);
	metric_add(s, 2);
	metric_add(s, -5); /* a counter never falls */
	metric_add(s, NAN);
	EQ(metric_value(s), 3);
	has("# HELP test_requests_total Requests \\\\ by\\nroute\n"
	    "# TYPE test_requests_total counter\n"
	    "test_requests_total{route=\"/v2/\",code=\"200\"} 3\n"
	    "test_requests_total{route=\"/v2/\",code=\"404\"} 0\n");
	metric_add(s, 0.5);
	has("test_requests_total{route=\"/v2/\",code=\"200\"} 3.5\n");
}

/* A family without labels reads 0 as soon as it is registered. */
static void test_gauge(void)
{
	struct metric_series *s;

	lacks("test_inflight_requests");
	metric_register(&inflight);
	metric_register(&inflight);
	has("# TYPE test_inflight_requests gauge\ntest_inflight_requests 0\n");
	s = metric_get(&inflight, NULL);
	metric_set(s, 7);
	metric_add(s, -2);
	EQ(metric_value(s), 5);
	has("\ntest_inflight_requests 5\n");
	metric_set(s, 12345678901.0);
	has("\ntest_inflight_requests 12345678901\n");
	metric_set(s, -INFINITY);
	has("\ntest_inflight_requests -Inf\n");
	metric_set(s, 0);
}

static void test_histogram(void)
{
	const char *const v[] = {"GET"};
	struct metric_series *s = metric_get(&seconds, v);

	metric_observe(s, 0.001);
	metric_observe(s, 0.25); /* a value on the bound counts as below */
	metric_observe(s, 0.5);
	metric_observe(s, 100);
	metric_observe(s, NAN);
	EQ(metric_count(s), 4);
	OK(metric_value(s) > 100.750 && metric_value(s) < 100.752);
#define B "test_request_duration_seconds_bucket{method=\"GET\",le="
	has("# TYPE test_request_duration_seconds histogram\n" B
	    "\"0.005\"} 1\n" B "\"0.25\"} 2\n" B "\"1\"} 3\n" B "\"10\"} 3\n" B
	    "\"+Inf\"} 4\n"
	    "test_request_duration_seconds_sum{method=\"GET\"} 100.751\n"
	    "test_request_duration_seconds_count{method=\"GET\"} 4\n");
#undef B
}

static void test_label_values_are_made_safe(void)
{
	char longer[1000];

	metric_add(series2(&requests, "a\"b\\c\nd", "é"), 1);
	has("{route=\"a\\\"b\\\\c\\nd\",code=\"é\"} 1\n");
	metric_add(series2(&requests, "\xff\xc3", NULL), 1);
	has("{route=\"\xef\xbf\xbd\xef\xbf\xbd\",code=\"\"} 1\n");

	memset(longer, 'x', sizeof(longer));
	longer[999] = '\0';
	metric_add(series2(&requests, longer, ""), 1);
	longer[998] = 'y'; /* past the cut: the same series */
	metric_add(series2(&requests, longer, ""), 1);
	longer[255] = '\0';
	metric_add(series2(&requests, longer, ""), 1);
	EQ(metric_value(series2(&requests, longer, "")), 3);
}

static void test_order(void)
{
	CLEANUP(freep) char *t = NULL;

	metric_register(&unused);
	t = text();
	has("# TYPE test_unused_total "); /* no series yet */
	lacks("\ntest_unused_total");
	OK(strstr(t, "# HELP test_inflight_requests") <
	   strstr(t, "# HELP test_request_duration_seconds"));
	OK(strstr(t, "# HELP test_request_duration_seconds") <
	   strstr(t, "# HELP test_requests_total"));
	OK(strstr(t, "code=\"200\"") < strstr(t, "code=\"404\""));
}

static void test_too_many_series(void)
{
	struct metric_series *other = NULL;
	int differ = 0;

	for (int i = 0; i < METRIC_MAX_SERIES + 100; i++) {
		char who[16];
		struct metric_series *s;

		(void)snprintf(who, sizeof(who), "w%d", i);
		s = series2(&many, who, "x");
		metric_add(s, 1);
		if (i == METRIC_MAX_SERIES)
			other = s;
		differ += i > METRIC_MAX_SERIES && s != other;
	}
	EQ(differ, 0);
	OK(series2(&many, "new", "y") == other);
	OK(series2(&many, "w5", "x") != other);
	EQ(metric_value(other), 100);
	has("test_many_total{who=\"other\",what=\"other\"} 100\n");
}

static void test_limit_leaves_nothing(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(200);

	EQ(buf_str(&b, "before"), 0);
	EQ(metrics_write(&b), -EMSGSIZE);
	STREQ(b.data, "before");
}

static void *count(void *arg)
{
	const char *const v[] = {"1"};

	(void)arg;
	for (int i = 0; i < 10000; i++)
		metric_observe(metric_get(&shared, v), (double)(i % 4));
	return NULL;
}

static void test_threads(void)
{
	const char *const v[] = {"1"};
	pthread_t t[4];

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		if (pthread_create(&t[i], NULL, count, NULL) != 0)
			BAIL("pthread_create");
	for (int i = 0; i < 20; i++) {
		CLEANUP(freep) char *s = text();

		OK(s != NULL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		(void)pthread_join(t[i], NULL);
	EQ(metric_count(metric_get(&shared, v)), 40000);
	EQ(metric_value(metric_get(&shared, v)), 60000);
	has("test_shared_seconds_bucket{n=\"1\",le=\"1\"} 20000\n"
	    "test_shared_seconds_bucket{n=\"1\",le=\"2\"} 30000\n"
	    "test_shared_seconds_bucket{n=\"1\",le=\"+Inf\"} 40000\n");
}

static void test_promtool(void)
{
	CLEANUP(freep) char *t = text();
	FILE *p;
	int status;

	if (system("command -v promtool >/dev/null 2>&1") != 0)
		SKIP("no promtool");
	p = popen("promtool check metrics 1>&2", "w");
	if (!p)
		BAIL("popen");
	(void)fputs(t, p);
	status = pclose(p);
	OK(WIFEXITED(status));
	EQ(WEXITSTATUS(status), 0);
}

int main(void)
{
	RUN(test_counter);
	RUN(test_gauge);
	RUN(test_histogram);
	RUN(test_label_values_are_made_safe);
	RUN(test_order);
	RUN(test_too_many_series);
	RUN(test_limit_leaves_nothing);
	RUN(test_threads);
	RUN(test_promtool);
	return tap_done();
}
