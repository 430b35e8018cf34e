#include "base/metrics.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/text.h"
#include "base/util.h"

#define LABEL_SIZE 256 /* longer values are cut */

struct metric_series {
	struct metric_series *next;
	const struct metric_family *family; /* NULL: the dummy */
	char *values[METRIC_MAX_LABELS];
	uint64_t value; /* atomic; the bits of a double */
	/* Atomic; one per bound and one for +Inf. Each counts only the values
	 * between the preceding bound and its own. */
	uint64_t buckets[];
};

/* Guards the list of families and every family's list of series. Both only
 * grow. */
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static struct metric_family *families; /* guarded by: mu; by name */

static struct metric_series dummy;

typedef char label_values[METRIC_MAX_LABELS][LABEL_SIZE];

static size_t label_count(const struct metric_family *f)
{
	size_t n = 0;

	while (n < METRIC_MAX_LABELS && f->labels[n])
		n++;
	return n;
}

static size_t bucket_count(const struct metric_family *f)
{
	size_t n = 0;

	while (n < METRIC_MAX_BUCKETS && f->buckets[n] != 0)
		n++;
	return n;
}

/* Makes a short value of valid UTF-8, as the format demands. */
static void clean_value(const char *s, char out[LABEL_SIZE])
{
	size_t len = strlen(s), n = 0;

	while (len > 0) {
		size_t used = utf8_len(s, len);
		const char *c = used ? s : "\xef\xbf\xbd";
		size_t add = used ? used : 3;

		if (n + add >= LABEL_SIZE)
			break;
		memcpy(out + n, c, add);
		n += add;
		used = used ? used : 1;
		s += used;
		len -= used;
	}
	out[n] = '\0';
}

static void series_free(struct metric_series **s)
{
	if (!*s)
		return;
	for (size_t i = 0; i < METRIC_MAX_LABELS; i++)
		free((*s)->values[i]);
	free(*s);
	*s = NULL;
}

static struct metric_series *series_new(const struct metric_family *f,
					char values[][LABEL_SIZE])
{
	size_t cells = f->type == METRIC_HISTOGRAM ? bucket_count(f) + 1 : 0;
	CLEANUP(series_free)
	struct metric_series *s =
		calloc(1, sizeof(*s) + cells * sizeof(s->buckets[0]));

	if (!s)
		return NULL;
	s->family = f;
	for (size_t i = 0; i < label_count(f); i++) {
		s->values[i] = strdup(values[i]);
		if (!s->values[i])
			return NULL;
	}
	return steal_ptr(&s);
}

static int compare(const struct metric_series *s, char values[][LABEL_SIZE])
{
	for (size_t i = 0; i < label_count(s->family); i++) {
		int c = strcmp(s->values[i], values[i]);

		if (c != 0)
			return c;
	}
	return 0;
}

/* Returns the link to the series, or the link at which to insert it. */
static struct metric_series **find(struct metric_family *f,
				   char values[][LABEL_SIZE], bool *found)
{
	struct metric_series **at = &f->series;
	int c = 1;

	while (*at && (c = compare(*at, values)) < 0)
		at = &(*at)->next;
	*found = *at && c == 0;
	return at;
}

static struct metric_series *get_locked(struct metric_family *f,
					char values[][LABEL_SIZE])
{
	struct metric_series **at, *s;
	bool found;

	at = find(f, values, &found);
	if (!found && f->nseries >= METRIC_MAX_SERIES) {
		for (size_t i = 0; i < label_count(f); i++)
			memcpy(values[i], "other", sizeof("other"));
		at = find(f, values, &found);
	}
	if (found)
		return *at;
	s = series_new(f, values);
	if (!s)
		return &dummy;
	s->next = *at;
	*at = s;
	f->nseries++;
	return s;
}

static void register_locked(struct metric_family *f)
{
	struct metric_family **at = &families;
	label_values none = {{0}};
	int c = 1;

	while (*at && (c = strcmp((*at)->name, f->name)) < 0)
		at = &(*at)->next;
	if (*at == f)
		return;
	BUG_ON(*at && c == 0); /* two families of one name */
	f->next = *at;
	*at = f;
	if (label_count(f) == 0) /* shows 0 instead of "no data" */
		(void)get_locked(f, none);
}

void metric_register(struct metric_family *f)
{
	(void)pthread_mutex_lock(&mu);
	register_locked(f);
	(void)pthread_mutex_unlock(&mu);
}

struct metric_series *metric_get(struct metric_family *f,
				 const char *const values[])
{
	label_values clean;
	struct metric_series *s;

	for (size_t i = 0; i < label_count(f); i++)
		clean_value(values && values[i] ? values[i] : "", clean[i]);
	(void)pthread_mutex_lock(&mu);
	register_locked(f);
	s = get_locked(f, clean);
	(void)pthread_mutex_unlock(&mu);
	return s;
}

static double load(const struct metric_series *s)
{
	uint64_t bits = __atomic_load_n(&s->value, __ATOMIC_RELAXED);
	double d;

	memcpy(&d, &bits, sizeof(d));
	return d;
}

static void add(struct metric_series *s, double delta)
{
	uint64_t was = __atomic_load_n(&s->value, __ATOMIC_RELAXED), is;
	double d;

	do {
		memcpy(&d, &was, sizeof(d));
		d += delta;
		memcpy(&is, &d, sizeof(is));
	} while (!__atomic_compare_exchange_n(
		&s->value, &was, is, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

void metric_add(struct metric_series *s, double delta)
{
	if (!s->family)
		return;
	BUG_ON(s->family->type == METRIC_HISTOGRAM);
	/* A counter never falls, even if a clock or a length is wrong. */
	if (s->family->type == METRIC_COUNTER && !(delta > 0))
		return;
	add(s, delta);
}

void metric_set(struct metric_series *s, double value)
{
	uint64_t bits;

	if (!s->family)
		return;
	BUG_ON(s->family->type == METRIC_HISTOGRAM);
	memcpy(&bits, &value, sizeof(bits));
	__atomic_store_n(&s->value, bits, __ATOMIC_RELAXED);
}

void metric_observe(struct metric_series *s, double value)
{
	size_t i = 0;

	if (!s->family || isnan(value))
		return;
	BUG_ON(s->family->type != METRIC_HISTOGRAM);
	while (i < METRIC_MAX_BUCKETS && s->family->buckets[i] != 0 &&
	       value > s->family->buckets[i])
		i++;
	(void)__atomic_fetch_add(&s->buckets[i], 1, __ATOMIC_RELAXED);
	add(s, value);
}

double metric_value(const struct metric_series *s)
{
	return load(s);
}

uint64_t metric_count(const struct metric_series *s)
{
	uint64_t sum = 0;

	if (!s->family || s->family->type != METRIC_HISTOGRAM)
		return 0;
	for (size_t i = 0; i <= bucket_count(s->family); i++)
		sum += __atomic_load_n(&s->buckets[i], __ATOMIC_RELAXED);
	return sum;
}

double metrics_total(const char *name, const char *label)
{
	double sum = 0;

	(void)pthread_mutex_lock(&mu);
	for (const struct metric_family *f = families; f; f = f->next) {
		if (strcmp(f->name, name) != 0 || f->type == METRIC_HISTOGRAM)
			continue;
		for (const struct metric_series *s = f->series; s; s = s->next)
			if (!label || strcmp(s->values[0], label) == 0)
				sum += load(s);
	}
	(void)pthread_mutex_unlock(&mu);
	return sum;
}

/* quotes: escapes quotes too, as in label values; help texts keep them. */
static int write_escaped(struct buf *out, const char *s, bool quotes)
{
	int r = 0;

	for (; r == 0 && *s; s++) {
		if (*s == '\n')
			r = buf_str(out, "\\n");
		else if (*s == '\\' || (*s == '"' && quotes))
			r = buf_printf(out, "\\%c", *s);
		else
			r = buf_add(out, s, 1);
	}
	return r;
}

static int write_label(struct buf *out, char *sep, const char *name,
		       const char *value)
{
	int r = buf_printf(out, "%c%s=\"", *sep, name);

	*sep = ',';
	if (r == 0)
		r = write_escaped(out, value, true);
	return r < 0 ? r : buf_add(out, "\"", 1);
}

/* Writes one line. le is NULL except for the buckets of a histogram. */
static int write_sample(struct buf *out, const struct metric_series *s,
			const char *suffix, const char *le, double value)
{
	char sep = '{', num[TEXT_DOUBLE_SIZE];
	const struct metric_family *f = s->family;
	int r = buf_printf(out, "%s%s", f->name, suffix);

	for (size_t i = 0; r == 0 && i < label_count(f); i++)
		r = write_label(out, &sep, f->labels[i], s->values[i]);
	if (r == 0 && le)
		r = write_label(out, &sep, "le", le);
	if (r == 0 && sep == ',')
		r = buf_add(out, "}", 1);
	return r < 0 ? r : buf_printf(out, " %s\n", text_double(value, num));
}

/* Computes _count from the buckets, so that they agree while other threads
 * count. */
static int write_histogram(struct buf *out, const struct metric_series *s)
{
	size_t n = bucket_count(s->family);
	uint64_t sum = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i <= n; i++) {
		char le[TEXT_DOUBLE_SIZE];

		sum += __atomic_load_n(&s->buckets[i], __ATOMIC_RELAXED);
		(void)text_double(i < n ? s->family->buckets[i] : INFINITY, le);
		r = write_sample(out, s, "_bucket", le, (double)sum);
	}
	if (r == 0)
		r = write_sample(out, s, "_sum", NULL, load(s));
	if (r == 0)
		r = write_sample(out, s, "_count", NULL, (double)sum);
	return r;
}

static int write_family(struct buf *out, const struct metric_family *f)
{
	static const char *const types[] = {
		[METRIC_COUNTER] = "counter",
		[METRIC_GAUGE] = "gauge",
		[METRIC_HISTOGRAM] = "histogram",
	};
	int r;

	/* Also a family without series, to show that it exists. */
	r = buf_printf(out, "# HELP %s ", f->name);
	if (r == 0)
		r = write_escaped(out, f->help, false);
	if (r == 0)
		r = buf_printf(out, "\n# TYPE %s %s\n", f->name,
			       types[f->type]);
	for (const struct metric_series *s = f->series; r == 0 && s;
	     s = s->next)
		r = f->type == METRIC_HISTOGRAM
			    ? write_histogram(out, s)
			    : write_sample(out, s, "", NULL, load(s));
	return r;
}

int metrics_write(struct buf *out)
{
	size_t before = out->len;
	int r = 0;

	(void)pthread_mutex_lock(&mu);
	for (const struct metric_family *f = families; r == 0 && f; f = f->next)
		r = write_family(out, f);
	(void)pthread_mutex_unlock(&mu);
	if (r < 0)
		buf_truncate(out, before);
	return r;
}
