/* An HTTP/1.1 server on the loop. It parses with llhttp, keeps
 * connections alive, answers one request after the other on a connection
 * (what a client sends ahead waits in the connection's buffer and the socket),
 * and holds no more than a small window for a slow client. Sources: RFC 9110,
 * RFC 9112.
 *
 * Everything runs on the loop thread, or before loop_run().
 *
 * A handler is called when the head of a request has arrived. It answers with
 * http_reply(), now or later; or with http_begin() and then http_write() or
 * http_send_file() as often as it likes, waiting for each to call back, and
 * http_end(). When the client goes away first, the `gone` callback tells the
 * handler, once, and the request must not be touched after the handler has
 * answered that with http_release(). Every request ends in exactly one of
 * http_reply(), http_end(), http_abort() or http_release(); any of them is
 * allowed after the client went away, and none calls back.
 *
 * A client that closes only its own half (FIN) still gets its answer. One that
 * closed for good looks the same until something is sent to it; therefore, when
 * a FIN comes while a request waits for its answer, "100 Continue" is sent,
 * which such a client's host answers with RST. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/util.h"

struct http_server;
struct http_listener;
struct http_req;
struct tls_server;

struct http_server_config {
	struct loop *loop;
	const char *name; /* Server: header; copied */
	/* Of each http_listen(), see http/places.h; 0 = its share of the open
	 * files. When all have a request under way, one more is answered 503,
	 * or with TLS closed. */
	uint32_t max_connections;
	const char *probe; /* a path that is answered even then; borrowed; NULL:
			      none */
	uint32_t max_header_bytes;  /* 0 = 32 KiB, at most 64 KiB: 431; so do
				       more than 100 fields */
	uint32_t max_target_bytes;  /* 0 = 8 KiB: 414 */
	uint32_t max_body_bytes;    /* 0 = 1 MiB: 413 */
	uint32_t header_timeout_ms; /* whole head; 0 = 10 s: 408, or just closed
				       when nothing came */
	uint32_t idle_timeout_ms;   /* between requests; 0 = 60 s */
	uint32_t send_timeout_ms;   /* no byte could be sent for so long; 0 =
				       60 s: the connection is reset. Also
				       for a whole request body: 408 */
	/* A handler has ended a request (which may still be leaving), ns after
	 * it was called. status: 0 when the answer was broken off, or the
	 * client went away. rq: what was asked; nothing may be done to it. May
	 * be NULL. */
	void (*ended)(void *arg, const struct http_req *rq, int status,
		      uint64_t ns);
	void *ended_arg;
};

/* -ENOMEM. Ignores SIGPIPE for the process, since sendfile(2) cannot be told
 * not to raise it. */
int http_server_new(const struct http_server_config *cfg,
		    struct http_server **ret);
/* Drains: listeners close, idle connections close, busy ones finish their
 * response with "Connection: close" or are cut off after grace_ms (0: at
 * once), which their handlers see as gone(). Once every request has ended, and
 * never before it returns, calls done() (may be NULL). Once per server. */
void http_server_stop(struct http_server *s, uint32_t grace_ms,
		      void (*done)(void *arg), void *arg);
/* After stop's done(). NULLs. NULL allowed. */
void http_server_free(struct http_server **s);

typedef void http_handler(void *arg, struct http_req *rq);

/* A listener on "host:port", "[v6]:port", ":port" (all addresses), or
 * "unix:/path" (mode 0600; a stale socket file is replaced). Its requests go
 * to handler. tls, from http/tls.h, or NULL for none, is borrowed until stop's
 * done(); clients then have header_timeout_ms for the handshake. *ret_port (may
 * be NULL) is the port in use, for ":0". A name is looked up at once and all
 * its addresses are listened on. -EINVAL for a malformed address, -EADDRINUSE,
 * -EEXIST for a path that is no socket, and what socket(2) and bind(2) give.
 * *err names the address. */
int http_listen(struct http_server *s, const char *addr, struct tls_server *tls,
		http_handler *handler, void *arg, uint16_t *ret_port,
		struct error *err);

/* ---- The request; borrowed strings live until it ends ---- */

const char *http_req_method(const struct http_req *rq);
/* As sent, percent-encoding and query included; begins with '/' ("OPTIONS *"
 * is answered by the server, absolute-form is reduced to its path and query).
 * Visible ASCII without '#'. "." and ".." segments are left for the handler. */
const char *http_req_target(const struct http_req *rq);
/* Path without the query, still encoded. */
const char *http_req_path(const struct http_req *rq);
/* The first value of a query parameter, decoded ('+' is a blank); NULL if
 * absent, malformed or with an encoded NUL. */
const char *http_req_query(struct http_req *rq, const char *name);
/* NULL if absent. Several fields of one name are joined with ", ". Names are
 * compared without regard to case. */
const char *http_req_header(const struct http_req *rq, const char *name);
/* The whole body (Content-Length or chunked), read before the handler runs.
 * Never NULL. */
const void *http_req_body(const struct http_req *rq, size_t *ret_len);
/* "127.0.0.1:1234" or "unix". */
const char *http_req_client(const struct http_req *rq);
bool http_req_is_head(const struct http_req *rq);
/* The name (CN) in the TLS client's certificate, "" if that has none that can
 * be printed; NULL without TLS. */
const char *http_req_tls_name(const struct http_req *rq);

/* For the handler's own state. */
void http_req_set_data(struct http_req *rq, void *data);
void *http_req_data(const struct http_req *rq);
/* Called at most once, when the connection breaks before the answer is
 * complete. Any write callback that is outstanding is called before, with its
 * error; when that ends the request, gone() is not called. */
void http_req_on_gone(struct http_req *rq, void (*gone)(struct http_req *rq));

/* ---- The answer ---- */

/* Adds a header to the answer; both are copied. Before http_reply() or
 * http_begin(). Values with CR or LF are refused by BUG_ON: the caller builds
 * them from checked parts. The server adds Server, Date, Content-Length or
 * Transfer-Encoding, and Connection. */
void http_header_add(struct http_req *rq, const char *name, const char *fmt,
		     ...) PRINTF(3, 4);

/* A whole answer; body is copied, and left out for HEAD (Content-Length stays).
 * type may be NULL. */
void http_reply(struct http_req *rq, int status, const char *type,
		const void *body, size_t len);
/* {"errors":[{"code":code,"message":message}]}, the registry's error format
 * (OCI distribution specification, "Error Codes"). */
void http_reply_error(struct http_req *rq, int status, const char *code,
		      const char *fmt, ...) PRINTF(4, 5);

/* Tells a client that waits that its request is being worked on (102, RFC 2518,
 * 10.1). Nothing, once the answer has begun. */
void http_inform(struct http_req *rq);
/* Status line and headers. length < 0: chunked, or until the connection closes
 * for an HTTP/1.0 client. The head leaves with the first bytes that are
 * written, or at the end of this turn of the loop. After it, for a HEAD
 * request, call http_end() (bytes that are written nevertheless are dropped).
 */
void http_begin(struct http_req *rq, int status, int64_t length);
/* Called when the bytes have left (r 0) or cannot (-EPIPE, the client is gone;
 * for a file, -EIO and other errors of reading it: http_abort() then). Exactly
 * once per call, never from inside it; not at all when the request is ended
 * before, by http_abort() or http_release(), which give the bytes and the fd
 * back at once. */
typedef void http_sent_cb(struct http_req *rq, int r);
/* bytes must stay valid until sent(). One write at a time, and no more bytes
 * in all than http_begin() promised. */
void http_write(struct http_req *rq, const void *bytes, size_t len,
		http_sent_cb *sent);
/* Takes the bytes of an http_write() that is under way back, whose sent() then
 * never comes. Returns how many have not left; the answer still lacks them.
 * 0: there are none, or, in a chunked answer, it cannot be done; sent() comes.
 */
size_t http_take_back(struct http_req *rq);
/* The same as http_write() with bytes of a file, by sendfile(2) where the
 * connection is plain and in pieces of 64 KiB where it is encrypted; fd is
 * borrowed until sent(). At most 2 MiB leave per turn of the loop. A file that
 * ends early: -EIO. Reads of what is not in the page cache hold the loop up:
 * have it read ahead (posix_fadvise(2)) where that matters. */
void http_send_file(struct http_req *rq, int fd, uint64_t off, uint64_t len,
		    http_sent_cb *sent);
/* All was written. Less than http_begin() promised: same as http_abort(). */
void http_end(struct http_req *rq);
/* Resets the connection (RST), so that nobody can take what was sent for the
 * whole. */
void http_abort(struct http_req *rq);
/* After gone(), or a write's -EPIPE. */
void http_release(struct http_req *rq);

#endif
