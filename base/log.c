#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "base/util.h"

#define VALUE_BYTES 1024
/* On the stack, so that a line needs no memory from malloc(). Holds the head
 * and two strings of VALUE_BYTES with every byte escaped. */
#define LINE_BYTES 16384
#define TAIL_BYTES 32 /* free for the note of truncation and the line's end */

#define CONTROL_BYTES                                                          \
	"\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f"               \
	"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d"             \
	"\x1e\x1f\x7f"

static struct {
	int max;   /* atomic; enum log_level */
	int fd;	   /* atomic */
	bool text; /* atomic */
	enum log_format format;
	char node[256];
	char version[64];
} state = {.max = LOG_INFO, .fd = STDERR_FILENO};

static const char *const level_names[] = {
	[LOG_ERROR] = "error",
	[LOG_WARN] = "warn",
	[LOG_INFO] = "info",
	[LOG_DEBUG] = "debug",
};

void log_set_fd(int fd)
{
	bool text = state.format == LOG_FORMAT_TEXT;

	fd = fd == -1 ? STDERR_FILENO : fd;
	if (state.format == LOG_FORMAT_AUTO)
		text = isatty(fd) == 1;
	__atomic_store_n(&state.fd, fd, __ATOMIC_RELAXED);
	__atomic_store_n(&state.text, text, __ATOMIC_RELAXED);
}

void log_init(enum log_level max, enum log_format format, const char *node,
	      const char *version)
{
	__atomic_store_n(&state.max, (int)max, __ATOMIC_RELAXED);
	state.format = format;
	(void)snprintf(state.node, sizeof(state.node), "%s", node);
	(void)snprintf(state.version, sizeof(state.version), "%s", version);
	log_set_fd(__atomic_load_n(&state.fd, __ATOMIC_RELAXED));
}

int log_level_parse(const char *s, enum log_level *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++)
		if (strcmp(s, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return 0;
		}
	if (strcmp(s, "warning") != 0)
		return -EINVAL;
	*ret = LOG_WARN;
	return 0;
}

bool log_on(enum log_level level)
{
	return (int)level <= __atomic_load_n(&state.max, __ATOMIC_RELAXED);
}

/* Redaction */

struct redacted {
	char *out;
	size_t size;
	size_t len;
	bool cut;
};

static void keep(struct redacted *r, const char *s, size_t len)
{
	size_t room = r->size - 1 - r->len;

	if (len > room) {
		len = room;
		r->cut = true;
	}
	memcpy(r->out + r->len, s, len);
	r->len += len;
}

/* Accepts "host", "host:1" or "[::1]:1", with punctuation after it. Any other
 * text with a colon is more likely "user:password" with a reserved character.
 */
static bool port_ok(const char *s, size_t len)
{
	const char *end = s + len;
	const char *p = memrchr(s, ']', len);

	p = memchr(p ? p : s, ':', (size_t)(end - (p ? p : s)));
	if (!p)
		return true;
	for (p++; p < end && *p >= '0' && *p <= '9'; p++)
		;
	for (; p < end && strchr(":,.;)]}>'\"", *p); p++)
		;
	return p == end;
}

/* Copies s without the parts of a URL that may be secret: user information,
 * query and fragment. Within a text only blanks and control bytes end a URL:
 * losing some words after it is better than showing half a signature. A URL
 * within a URL's path is treated like the outer one. whole: s is one URL, not a
 * text. */
static void redact(struct redacted *r, const char *s, bool whole)
{
	const char *const blank = whole ? "" : " " CONTROL_BYTES;
	const char *const stop = whole ? "/?#" : "/?# " CONTROL_BYTES;
	const char *first = strstr(s, "://");
	bool in_url = whole, authority = whole;

	if (whole && first && strcspn(s, "/?#") >= (size_t)(first - s))
		authority = false; /* s begins with a scheme */
	if (authority && strncmp(s, "//", 2) == 0) {
		keep(r, s, 2);
		s += 2;
	}
	while (*s && !r->cut) {
		if (authority) {
			size_t len = strcspn(s, stop);
			const char *at = memrchr(s, '@', len);

			authority = false;
			if (at) {
				s = at + 1;
			} else if (!port_ok(s, len)) {
				keep(r, "[redacted]", 10);
				s += strcspn(s, blank);
			}
		} else if (*s == ':' && strncmp(s, "://", 3) == 0) {
			keep(r, s, 3);
			s += 3;
			in_url = authority = true;
		} else if (in_url && (*s == '?' || *s == '#')) {
			s += strcspn(s, blank);
			in_url = whole;
		} else {
			if (strchr(blank, *s))
				in_url = whole;
			keep(r, s++, 1);
		}
	}
	if (r->cut)
		r->len = utf8_cut(r->out, r->len);
	r->out[r->len] = '\0';
}

char *log_redact_url(const char *url, char *out, size_t out_size)
{
	struct redacted r = {.out = out, .size = out_size};

	if (out_size > 0)
		redact(&r, url ? url : "", true);
	return out;
}

/* A line */

struct line {
	bool text;
	bool full;
	size_t len;
	char data[LINE_BYTES];
};

static void put(struct line *l, const char *s, size_t len)
{
	if (l->full || len > sizeof(l->data) - TAIL_BYTES - l->len) {
		l->full = true;
		return;
	}
	memcpy(l->data + l->len, s, len);
	l->len += len;
}

static void puts_line(struct line *l, const char *s)
{
	put(l, s, strlen(s));
}

/* keep_quotes: for the message on a terminal, which has no quotes around it. */
static void put_escaped(struct line *l, const char *s, bool keep_quotes)
{
	size_t len = strlen(s);

	while (len > 0) {
		char c[TEXT_ESCAPE_SIZE];
		size_t n = text_escape(s, len, c);

		if (keep_quotes && (*s == '"' || *s == '\\'))
			put(l, s, 1);
		else
			puts_line(l, c);
		s += n;
		len -= n;
	}
}

static bool is_plain(const char *s)
{
	size_t len = strlen(s);

	if (len == 0 || strpbrk(s, " =\""))
		return false;
	while (len > 0) {
		char c[TEXT_ESCAPE_SIZE];
		size_t n = text_escape(s, len, c);

		if (strlen(c) != n || memcmp(c, s, n) != 0)
			return false;
		s += n;
		len -= n;
	}
	return true;
}

/* Writes s redacted, cut and escaped. */
static void put_string(struct line *l, const char *s, bool message)
{
	char value[VALUE_BYTES + 1 + sizeof("…")];
	struct redacted r = {.out = value, .size = VALUE_BYTES + 1};
	bool quotes;

	redact(&r, s ? s : "", false);
	if (r.cut)
		memcpy(value + r.len, "…", sizeof("…"));
	quotes = !l->text || (!message && !is_plain(value));
	if (quotes)
		put(l, "\"", 1);
	put_escaped(l, value, l->text && message);
	if (quotes)
		put(l, "\"", 1);
}

static void put_key(struct line *l, const char *key)
{
	if (l->text) {
		put(l, " ", 1);
		put_escaped(l, key, true);
		put(l, "=", 1);
		return;
	}
	put(l, ",\"", 2);
	put_escaped(l, key, false);
	put(l, "\":", 2);
}

static void put_field(struct line *l, const struct log_field *f)
{
	char num[TEXT_DOUBLE_SIZE], err[128];

	put_key(l, f->key);
	switch (f->type) {
	case LOG_T_STR:
		put_string(l, f->v.s, false);
		return;
	case LOG_T_ERR:
		put_string(l, strerror_r((int)-f->v.i, err, sizeof(err)),
			   false);
		return;
	case LOG_T_U64:
		(void)snprintf(num, sizeof(num), "%" PRIu64, f->v.u);
		break;
	case LOG_T_I64:
		(void)snprintf(num, sizeof(num), "%" PRId64, f->v.i);
		break;
	case LOG_T_F64:
		if (isfinite(f->v.d))
			(void)text_double(f->v.d, num);
		else
			(void)snprintf(num, sizeof(num), "null");
		break;
	case LOG_T_BOOL:
		(void)snprintf(num, sizeof(num), "%s",
			       f->v.u ? "true" : "false");
		break;
	case LOG_END:
	default:
		return;
	}
	puts_line(l, num);
}

static void put_head(struct line *l, enum log_level level)
{
	struct timespec ts;
	char when[64];
	struct tm tm;
	size_t n;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	if (l->text) {
		(void)localtime_r(&ts.tv_sec, &tm);
		n = strftime(when, sizeof(when), "%H:%M:%S", &tm);
		(void)snprintf(when + n, sizeof(when) - n, ".%03d %-5s ",
			       (int)(ts.tv_nsec / 1000000), level_names[level]);
		puts_line(l, when);
		return;
	}
	(void)gmtime_r(&ts.tv_sec, &tm);
	n = strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
	(void)snprintf(when + n, sizeof(when) - n, ".%03dZ",
		       (int)(ts.tv_nsec / 1000000));
	puts_line(l, "{\"level\":\"");
	puts_line(l, level_names[level]);
	puts_line(l, "\",\"node\":\"");
	put_escaped(l, state.node, false);
	puts_line(l, "\",\"version\":\"");
	put_escaped(l, state.version, false);
	puts_line(l, "\",\"time\":\"");
	puts_line(l, when);
	puts_line(l, "\",\"message\":");
}

void log_write(enum log_level level, const char *message,
	       const struct log_field *fields)
{
	int saved = errno;
	struct line l;
	ssize_t n;

	l.text = __atomic_load_n(&state.text, __ATOMIC_RELAXED);
	l.full = false;
	l.len = 0;
	put_head(&l, level);
	put_string(&l, message, true);
	for (const struct log_field *f = fields; f && f->type != LOG_END; f++) {
		size_t before = l.len;

		put_field(&l, f);
		if (l.full) {
			static const char *const note[] = {
				",\"truncated\":true", " truncated=true"};

			l.len = before;
			memcpy(l.data + l.len, note[l.text],
			       strlen(note[l.text]));
			l.len += strlen(note[l.text]);
			break;
		}
	}
	if (!l.text)
		l.data[l.len++] = '}';
	l.data[l.len++] = '\n';
	do /* an error has nowhere to go */
		n = write(__atomic_load_n(&state.fd, __ATOMIC_RELAXED), l.data,
			  l.len);
	while (n == -1 && errno == EINTR);
	errno = saved;
}

bool log_limit_ok(struct log_limit *l, uint32_t burst, uint32_t period_ms)
{
	/* One lock for all limits; it is held for a few instructions. */
	static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
	uint64_t now = now_ms();
	bool ok;

	(void)pthread_mutex_lock(&mu);
	if (now - l->window_start_ms >= period_ms) {
		l->window_start_ms = now;
		l->count = 0;
	}
	ok = l->count < burst;
	l->count += ok;
	(void)pthread_mutex_unlock(&mu);
	return ok;
}
