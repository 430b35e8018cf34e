/* Counters, gauges and histograms, and their text in the Prometheus exposition
 * format (version 0.0.4). A family has a name, a help line, a type and up to
 * four label names; a series is one combination of label values.
 *
 * Families are static objects, registered once at the start. metric_get() finds
 * or makes a series under a lock. A series lives as long as the process, so
 * callers on hot paths keep the pointer. Values are atomics: any thread, no
 * lock. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

#define METRIC_MAX_LABELS  4
#define METRIC_MAX_BUCKETS 24
/* Beyond this number, new series of a family become one series whose label
 * values are all "other", so that a stranger cannot grow the memory. */
#define METRIC_MAX_SERIES 512

struct metric_series;

struct metric_family {
	const char *name; /* ends in its unit: _seconds, _bytes, _total */
	const char *help;
	enum metric_type type;
	const char *labels[METRIC_MAX_LABELS]; /* NULL-padded */
	/* Upper bounds, rising, without +Inf; 0 ends the list. */
	double buckets[METRIC_MAX_BUCKETS];
	/* Private to metrics.c. */
	struct metric_family *next;
	struct metric_series *series;
	unsigned int nseries;
};

/* Adds f to the output of metrics_write(). Borrows f for ever. Harmless when f
 * is registered already. */
void metric_register(struct metric_family *f);

/* Returns the series with these label values, as many as the family has labels;
 * NULL stands for none. Copies the values, cut at 255 bytes. Never NULL: when
 * memory is short it is a shared dummy. Registers the family if necessary. */
struct metric_series *metric_get(struct metric_family *f,
				 const char *const values[]);

void metric_add(struct metric_series *s, double delta);	    /* counter, gauge */
void metric_set(struct metric_series *s, double value);	    /* gauge */
void metric_observe(struct metric_series *s, double value); /* histogram */
double metric_value(const struct metric_series *s);   /* a histogram's sum */
uint64_t metric_count(const struct metric_series *s); /* a histogram's count */

/* Returns the sum of the series of a counter or gauge; with a label, only of
 * the series whose first label has this value. 0 if there is none. */
double metrics_total(const char *name, const char *label);

/* Appends all families by name, each with its series by label values. -EMSGSIZE
 * or -ENOMEM; out is unchanged then. */
int metrics_write(struct buf *out);

#endif
