/* Test Anything Protocol for unit tests: each test program calls RUN() on its
 * test functions and returns tap_done(). A failed check prints where and what
 * was compared, marks the running test, and goes on. */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_count, tap_failed, tap_test_failed;
static const char *tap_skipped;

#define RUN(fn)                                                                \
	do {                                                                   \
		tap_test_failed = 0;                                           \
		tap_skipped = NULL;                                            \
		fn();                                                          \
		tap_count++;                                                   \
		tap_failed += tap_test_failed != 0;                            \
		printf("%sok %d - %s%s%s\n", tap_test_failed ? "not " : "",    \
		       tap_count, #fn, tap_skipped ? " # SKIP " : "",          \
		       tap_skipped ? tap_skipped : "");                        \
		(void)fflush(stdout);                                          \
	} while (0)

/* Ends a test function: the machine lacks a requirement. A failure if STRICT=1.
 */
#define SKIP(why)                                                              \
	do {                                                                   \
		if (getenv("STRICT")) {                                        \
			tap_test_failed = 1;                                   \
			printf("# %s:%d: skipped under STRICT: %s\n",          \
			       __FILE__, __LINE__, why);                       \
		} else {                                                       \
			tap_skipped = (why);                                   \
		}                                                              \
		return;                                                        \
	} while (0)

#define OK(x)                                                                  \
	do {                                                                   \
		if (!(x)) {                                                    \
			tap_test_failed = 1;                                   \
			printf("# %s:%d: %s: %s is false\n", __FILE__,         \
			       __LINE__, __func__, #x);                        \
		}                                                              \
	} while (0)

/* Integers of any type; both sides are evaluated once. */
#define EQ(a, b)                                                               \
	do {                                                                   \
		long long a_ = (long long)(a), b_ = (long long)(b);            \
		if (a_ != b_) {                                                \
			tap_test_failed = 1;                                   \
			printf("# %s:%d: %s: %s is %lld, not %lld\n",          \
			       __FILE__, __LINE__, __func__, #a, a_, b_);      \
		}                                                              \
	} while (0)

#define STREQ(a, b)                                                            \
	do {                                                                   \
		const char *a_ = (a), *b_ = (b);                               \
		if (!a_ || !b_ || strcmp(a_, b_) != 0) {                       \
			tap_test_failed = 1;                                   \
			printf("# %s:%d: %s: %s is \"%s\", not \"%s\"\n",      \
			       __FILE__, __LINE__, __func__, #a,               \
			       a_ ? a_ : "(null)", b_ ? b_ : "(null)");        \
		}                                                              \
	} while (0)

/* Ends the program: nothing after this point could be tested. */
#define BAIL(msg)                                                              \
	do {                                                                   \
		printf("Bail out! %s:%d: %s\n", __FILE__, __LINE__, msg);      \
		exit(1);                                                       \
	} while (0)

static inline int tap_done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed != 0;
}

#endif
