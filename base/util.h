/* Small things that every floor needs. Any thread. */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member)                                        \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t div_up_u64(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

/* Room for one more than n elements of a growing array: returns where it is
 * now. NULL when memory is short; v is as it was then. */
static inline void *array_grow(void *v, size_t n, size_t *cap, size_t size)
{
	size_t want = *cap ? *cap * 2 : 64;

	if (n < *cap)
		return v;
	v = reallocarray(v, want, size);
	if (v)
		*cap = want;
	return v;
}

/* An invariant of our own was broken: print where and abort. Always compiled.
 * Never reachable from network or disk input. */
#define BUG_ON(x)                                                              \
	do {                                                                   \
		if (__builtin_expect(!!(x), 0)) {                              \
			(void)fprintf(stderr, "<2>%s:%d: BUG: %s\n", __FILE__, \
				      __LINE__, #x);                           \
			abort();                                               \
		}                                                              \
	} while (0)

/* CLOCK_MONOTONIC in milliseconds. */
static inline uint64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* CLOCK_REALTIME in whole seconds since 1970. */
static inline uint64_t now_unix_s(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec;
}

/* A sentence for a person, filled by a function that fails. Callers own the
 * storage; set_error(NULL, …) is allowed. Always returns r, so that
 * `return set_error(err, -EINVAL, "…")` reads in one line. */
struct error {
	char text[512];
};

int set_error(struct error *err, int r, const char *fmt, ...) PRINTF(3, 4);

#endif
