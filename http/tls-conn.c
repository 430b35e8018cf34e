/* The transport of connections with TLS: implements http_transport with
 * http/tls.h. */
#include <errno.h>
#include <unistd.h>

#include "base/metrics.h"
#include "http/server-private.h"
#include "http/tls.h"

#define WARN_PERIOD_MS 60000

static struct metric_family failures = {
	.name = "peerd_tls_handshake_failures_total",
	.help = "Failed TLS handshakes of clients, by reason.",
	.type = METRIC_COUNTER,
	.labels = {"reason"},
};

/* Logs with a limit, because any client that reaches the port can cause
 * failures. */
static void report_failure(struct conn *c)
{
	struct http_server *s = c->server;
	const char *kind, *why = tls_session_failure(c->tls, &kind);
	char addr[HTTP_ADDR_SIZE];

	if (!why || c->tls_reported)
		return;
	c->tls_reported = true;
	metric_add(metric_get(&failures, &kind), 1);
	conn_addr(c, addr);
	if (log_limit_ok(&s->tls_log, 1, WARN_PERIOD_MS))
		log_warn("TLS handshake failed", LS("client", addr),
			 LS("cause", why));
	else
		log_debug("TLS handshake failed", LS("client", addr),
			  LS("cause", why));
}

static int flush(struct conn *c)
{
	size_t before = tls_session_unsent(c->tls);
	int r = tls_session_flush(c->tls);
	size_t after = tls_session_unsent(c->tls);

	if (after < before)
		c->progress = true;
	c->unsent = after > 0;
	return r;
}

static ssize_t tls_read(struct conn *c, void *buf, size_t len)
{
	ssize_t n = tls_session_read(c->tls, buf, len);
	const char *name;

	c->unsent = tls_session_unsent(c->tls) > 0;
	if (c->tls_name)
		return n == -EKEYREJECTED ? -EPROTO : n;
	name = tls_session_name(c->tls);
	if (name) {
		c->tls_name = strdup(name);
		return c->tls_name ? n : -ENOMEM;
	}
	if (n != -EKEYREJECTED && n != -EPROTO)
		return n;
	report_failure(c);
	return -ESHUTDOWN;
}

static size_t bytes_of(const struct iovec *iov, int n)
{
	size_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* Head and body of a small answer become one record. */
static int write_joined(struct conn *c, const struct iovec *iov, int n)
{
	char *buf = tls_session_buffer(c->tls);
	size_t len = 0;

	for (int i = 0; i < n; i++) {
		memcpy(buf + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	return tls_session_write(c->tls, buf, len);
}

static ssize_t tls_writev(struct conn *c, const struct iovec *iov, int n,
			  bool more)
{
	size_t len = bytes_of(iov, n), done = 0;
	int r = c->unsent ? flush(c) : 0;

	if (r == 0 && n > 1 && len <= HTTP_SMALL_FILE) {
		r = write_joined(c, iov, n);
		done = len;
	}
	for (int i = 0; r == 0 && i < n && done < len; i++) {
		size_t piece =
			(size_t)min_u64(iov[i].iov_len, TLS_PIECE_BYTES - done);

		r = tls_session_write(c->tls, iov[i].iov_base, piece);
		done += piece;
		if (piece < iov[i].iov_len)
			break;
	}
	if (r < 0)
		return r;
	r = more ? tls_session_hold(c->tls) : flush(c);
	c->unsent = tls_session_unsent(c->tls) > 0;
	return r < 0 && r != -EAGAIN ? r : (ssize_t)done;
}

static ssize_t tls_sendfile(struct conn *c, int fd, uint64_t off, size_t len)
{
	char *buf = tls_session_buffer(c->tls);
	/* tls_session_hold() may have kept a head until now. */
	int r = 0;
	ssize_t n;

	if (tls_session_unsent(c->tls) > HTTP_SMALL_FILE)
		r = flush(c);
	if (r < 0)
		return r;
	do {
		n = pread(fd, buf, (size_t)min_u64(len, TLS_PIECE_BYTES),
			  (off_t)off);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	r = tls_session_write(c->tls, buf, (size_t)n);
	if (r == 0)
		r = flush(c);
	return r < 0 && r != -EAGAIN ? -EPIPE : n;
}

static bool tls_pending(const struct conn *c)
{
	return tls_session_pending(c->tls);
}

static void tls_shut_wr(struct conn *c)
{
	tls_session_end(c->tls);
	(void)flush(c);
	/* Bytes that the socket has no room for are lost. */
	c->unsent = false;
	http_plain.shut_wr(c);
}

static void tls_close(struct conn *c, bool reset)
{
	if (!c->tls_name)
		report_failure(c);
	if (!reset) {
		tls_session_end(c->tls);
		(void)flush(c);
	}
	tls_session_free(&c->tls);
	c->unsent = false;
	http_plain.close(c, reset);
}

static const struct http_transport http_tls = {
	.read = tls_read,
	.writev = tls_writev,
	.sendfile = tls_sendfile,
	.pending = tls_pending,
	.shut_wr = tls_shut_wr,
	.close = tls_close,
};

int conn_use_tls(struct conn *c, struct tls_server *tls)
{
	int r = tls_session_new(tls, c->fd, &c->tls);

	if (r == 0)
		c->tr = &http_tls;
	return r;
}

void conn_tls_metrics(void)
{
	static const char *const kinds[] = {"certificate", "no_certificate",
					    "refused", "protocol",
					    "incomplete"};

	/* Makes the series exist, with value 0, from the start. */
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		(void)metric_get(&failures, &kinds[i]);
}
