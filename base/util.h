/* Small helpers for every floor. Any thread. */
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

/* clang-format 14 takes the minus for a sign. */
/* clang-format off */
#define container_of(ptr, type, member)                                        \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))
/* clang-format on */

#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t div_up_u64(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

/* Makes room for one more than n elements in a growing array of *cap elements
 * of `size` bytes. Returns the array's new place. NULL without memory: v and
 * *cap are unchanged then. */
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

/* Prints the location and aborts if an invariant of our own is broken. Always
 * compiled in. Input from the network or the disk must never reach it. */
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

/* A message for people, filled by a function that fails. The caller owns the
 * storage; err may be NULL. set_error() returns r, so that `return
 * set_error(err, -EINVAL, "…")` fits on one line. */
struct error {
	char text[512];
};

int set_error(struct error *err, int r, const char *fmt, ...) PRINTF(3, 4);

#endif
