/* The log: one line per record, on standard error.
 *
 * JSON lines when standard error is not a terminal:
 *   {"level":"info","node":"n1","version":"1.2","time":"2026-…Z",
 *    "message":"blob verified","digest":"sha256:…","ms":12}
 * and plain text on a terminal. The message is a constant sentence; values that
 * vary are fields. log_write() escapes strings, cuts them at 1 KiB, and removes
 * the query and user information of every URL in them. It does so for all
 * callers, so that no signature or password reaches the log.
 *
 * The layer that gives up on an error logs it; the layers below return it. Any
 * thread; each line is one write(2). */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

enum log_format { LOG_FORMAT_AUTO, LOG_FORMAT_JSON, LOG_FORMAT_TEXT };

enum log_field_type {
	LOG_END,
	LOG_T_STR,
	LOG_T_U64,
	LOG_T_I64,
	LOG_T_F64,
	LOG_T_BOOL,
	LOG_T_ERR
};

struct log_field {
	enum log_field_type type;
	const char *key;
	union {
		const char *s; /* NULL becomes an empty string */
		uint64_t u;
		int64_t i;
		double d;
	} v;
};

#define LS(k, x) ((struct log_field){LOG_T_STR, k, {.s = (x)}})
#define LU(k, x) ((struct log_field){LOG_T_U64, k, {.u = (uint64_t)(x)}})
#define LI(k, x) ((struct log_field){LOG_T_I64, k, {.i = (int64_t)(x)}})
#define LD(k, x) ((struct log_field){LOG_T_F64, k, {.d = (double)(x)}})
#define LB(k, x) ((struct log_field){LOG_T_BOOL, k, {.u = (x) ? 1 : 0}})
/* "error":"<strerror of -r>" for a negative errno. */
#define LE(r) ((struct log_field){LOG_T_ERR, "error", {.i = (int64_t)(r)}})

#define log_error(msg, ...) LOG_AT(LOG_ERROR, msg, ##__VA_ARGS__)
#define log_warn(msg, ...)  LOG_AT(LOG_WARN, msg, ##__VA_ARGS__)
#define log_info(msg, ...)  LOG_AT(LOG_INFO, msg, ##__VA_ARGS__)
#define log_debug(msg, ...) LOG_AT(LOG_DEBUG, msg, ##__VA_ARGS__)

/* Evaluates the fields only if the level is on. */
#define LOG_AT(level, msg, ...)                                                \
	do {                                                                   \
		if (log_on(level))                                             \
			log_write(level, msg,                                  \
				  (const struct log_field[]){                  \
					  {LOG_END, 0, {0}},                   \
					  ##__VA_ARGS__,                       \
					  {LOG_END, 0, {0}}} +                 \
					  1);                                  \
	} while (0)

/* Call it before the first thread starts. Copies node and version (cut at 255
 * and 63 bytes). */
void log_init(enum log_level max, enum log_format format, const char *node,
	      const char *version);

/* Parses "error", "warn", "info", "debug" (or "warning"). -EINVAL otherwise. */
int log_level_parse(const char *s, enum log_level *ret);

bool log_on(enum log_level level);
void log_write(enum log_level level, const char *message,
	       const struct log_field *fields);

/* Sends the lines to fd instead of standard error, for tests. -1 restores it.
 */
void log_set_fd(int fd);

/* True for at most `burst` calls per `period_ms`; for lines that the network
 * can cause at will. The struct is static and zeroed. Any thread. */
struct log_limit {
	uint64_t window_start_ms;
	uint32_t count;
};
bool log_limit_ok(struct log_limit *l, uint32_t burst, uint32_t period_ms);

/* Copies url into out without query, fragment and user information, for
 * messages built by hand. Always terminates out; returns it. */
char *log_redact_url(const char *url, char *out, size_t out_size);

#endif
