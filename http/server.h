/* An HTTP/1.1 server on the loop. It parses requests with http/parser.h, keeps
 * connections alive and answers the requests of a connection one after the
 * other. Pipelined requests wait in the connection's buffer and in the socket.
 * A slow client costs no more memory than one small window. Sources: RFC 9110,
 * RFC 9112.
 *
 * All functions run on the loop thread, or before loop_run().
 *
 * The server calls a handler when the head and the body of a request have
 * arrived. The handler answers, at once or later, in one of two ways:
 *
 * - with http_reply();
 * - with http_begin(), then any number of http_write() and http_send_file()
 *   calls, each after the callback of the one before, then http_end().
 *
 * If the client closes the connection first, the server calls the request's
 * gone() once. The handler then ends the request with http_release() and does
 * not touch the request again. Exactly one of http_reply(), http_end(),
 * http_abort() and http_release() ends each request. Each of them is allowed
 * after the client has gone, and none of them calls back.
 *
 * A client that closes only its own half (FIN) still gets its answer. A client
 * that has closed both halves looks the same until the server sends something
 * to it. Therefore, if a FIN arrives while a request waits for its answer, the
 * server sends "100 Continue"; the host of a client that has closed both halves
 * answers that with RST. */
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
	/* Per http_listen() (http/places.h). 0 = the share of the open files
	 * (base/descriptors.h). If all of them have a request under way, a
	 * further connection is answered 503, or closed if it is encrypted. */
	uint32_t max_connections;
	/* A path that is answered even then. Borrowed; NULL: none. */
	const char *probe;
	/* 0 = 32 KiB, at most 64 KiB. Above: 431, as for more than 100
	 * fields. */
	uint32_t max_header_bytes;
	uint32_t max_target_bytes; /* 0 = 8 KiB; above: 414 */
	uint32_t max_body_bytes;   /* 0 = 1 MiB; above: 413 */
	/* For the whole head; 0 = 10 s. Then 408, or only a close if no byte
	 * arrived. */
	uint32_t header_timeout_ms;
	uint32_t idle_timeout_ms; /* between requests; 0 = 60 s */
	/* 0 = 60 s. The connection is reset if no byte could be sent for so
	 * long. Also the limit for a whole request body: 408. */
	uint32_t send_timeout_ms;
	/* Called when a handler has ended a request, whose answer may still be
	 * in the send buffers. ns: time since the handler was called. status: 0
	 * if the answer is incomplete or the client has gone. rq: for reading
	 * only. May be NULL. */
	void (*ended)(void *arg, const struct http_req *rq, int status,
		      uint64_t ns);
	void *ended_arg;
};

/* Makes a server without listeners. Copies *cfg. Sets SIGPIPE to SIG_IGN for
 * the process, because sendfile(2) has no flag that suppresses the signal.
 * -ENOMEM. */
int http_server_new(const struct http_server_config *cfg,
		    struct http_server **ret);
/* Drains the server: closes the idle connections, and lets busy connections
 * finish their response with "Connection: close". New connections are served
 * until none is left, for a client may fetch one layer by several of them.
 * After grace_ms (0: at once) closes the listeners and the connections that are
 * left; their handlers see gone(). Calls done() (may be NULL) when every
 * request has ended, never before this function returns. Call it once per
 * server. */
void http_server_stop(struct http_server *s, uint32_t grace_ms,
		      void (*done)(void *arg), void *arg);
/* Frees s and sets it to NULL; NULL is allowed. Only after the done() of
 * http_server_stop(). */
void http_server_free(struct http_server **s);

typedef void http_handler(void *arg, struct http_req *rq);

/* Adds a listener on "host:port", "[v6]:port", ":port" (all addresses) or
 * "unix:/path" (mode 0600; replaces the socket file of a dead process).
 * Requests go to handler. Resolves a name inside the call and listens on all of
 * its addresses. *ret_port (may be NULL) is the port in use, for ":0".
 *
 * tls, from http/tls.h, is borrowed until the done() of http_server_stop();
 * NULL for plain HTTP. Clients then have header_timeout_ms for the handshake.
 *
 * -EINVAL for a malformed address, -EADDRINUSE, -EEXIST for a path that is not
 * a socket, and the errors of socket(2) and bind(2). *err names the address. */
int http_listen(struct http_server *s, const char *addr, struct tls_server *tls,
		http_handler *handler, void *arg, uint16_t *ret_port,
		struct error *err);

/* ---- The request; returned strings are borrowed until it ends ---- */

const char *http_req_method(const struct http_req *rq);
/* The target as sent, with percent-encoding and query. Begins with '/': the
 * server itself answers "OPTIONS *", and reduces the absolute form to path and
 * query. Visible ASCII without '#'. May hold "." and ".." segments; the handler
 * checks them. */
const char *http_req_target(const struct http_req *rq);
/* The path without the query, still encoded. */
const char *http_req_path(const struct http_req *rq);
/* The first value of a query parameter, decoded ('+' becomes a space). NULL if
 * it is absent, is malformed or holds an encoded NUL, or without memory. */
const char *http_req_query(struct http_req *rq, const char *name);
/* The value of a header, NULL if absent. Ignores the case of the name. Joins
 * several fields of one name with ", ". */
const char *http_req_header(const struct http_req *rq, const char *name);
/* The whole body (Content-Length or chunked), which was read before the handler
 * was called. Never NULL. */
const void *http_req_body(const struct http_req *rq, size_t *ret_len);
/* The client's address: "127.0.0.1:1234" or "unix". */
const char *http_req_client(const struct http_req *rq);
bool http_req_is_head(const struct http_req *rq);
/* The common name (CN) in the TLS client's certificate; "" if it has none that
 * is printable; NULL without TLS. */
const char *http_req_tls_name(const struct http_req *rq);

/* A pointer for the handler's own state. */
void http_req_set_data(struct http_req *rq, void *data);
void *http_req_data(const struct http_req *rq);
/* Sets gone(), which is called at most once, when the connection breaks before
 * the answer is complete. The callback of an outstanding write is called
 * before, with its error; if that callback ends the request, gone() is not
 * called. */
void http_req_on_gone(struct http_req *rq, void (*gone)(struct http_req *rq));

/* ---- The answer ---- */

/* Adds a header to the answer; copies both strings. Only before http_reply() or
 * http_begin(). A value with CR or LF is a bug of the caller, which builds
 * values from checked parts (BUG_ON). The server itself adds Server, Date,
 * Content-Length or Transfer-Encoding, and Connection. */
void http_header_add(struct http_req *rq, const char *name, const char *fmt,
		     ...) PRINTF(3, 4);

/* Sends a whole answer and ends the request. Copies the body; leaves it out for
 * HEAD, but keeps Content-Length. type may be NULL. */
void http_reply(struct http_req *rq, int status, const char *type,
		const void *body, size_t len);
/* Like http_reply(), with the body
 * {"errors":[{"code":code,"message":message}]}, the error format of registries
 * (OCI distribution specification, "Error Codes"). */
void http_reply_error(struct http_req *rq, int status, const char *code,
		      const char *fmt, ...) PRINTF(4, 5);

/* Sends 102 (Processing; RFC 2518, 10.1) to a client that waits. Does nothing
 * once the answer has begun. */
void http_inform(struct http_req *rq);
/* Begins an answer: status line and headers. length < 0: the body is chunked,
 * or ends with the connection for an HTTP/1.0 client. The head is sent with the
 * first bytes written, or at the end of this turn of the loop. For a HEAD
 * request call http_end() next; bytes written all the same are dropped. */
void http_begin(struct http_req *rq, int status, int64_t length);
/* Called when the bytes are in the socket (r 0) or cannot be sent: -EPIPE if
 * the client has gone; -EIO and other read errors of a file, upon which the
 * handler calls http_abort(). Called exactly once per write, never from inside
 * the call that writes. Not called at all if http_abort() or http_release()
 * ends the request before; these give the bytes and the fd back at once. */
typedef void http_sent_cb(struct http_req *rq, int r);
/* Sends bytes of the body, which stay valid until sent(). One write at a time,
 * and in all no more bytes than http_begin() promised. */
void http_write(struct http_req *rq, const void *bytes, size_t len,
		http_sent_cb *sent);
/* Takes back the bytes of an http_write() that have not left. sent() is then
 * not called, and the answer still lacks them. Returns their number. 0: all
 * have left, or the answer is chunked; sent() comes. */
size_t http_take_back(struct http_req *rq);
/* Sends bytes of a file: by sendfile(2) on a plain connection, in pieces of 64
 * KiB on an encrypted one. fd is borrowed until sent(). Sends at most 2 MiB per
 * turn of the loop. A file that ends early: -EIO. Reading bytes that are not in
 * the page cache blocks the loop; a caller for whom that matters has them read
 * ahead (posix_fadvise(2)). */
void http_send_file(struct http_req *rq, int fd, uint64_t off, uint64_t len,
		    http_sent_cb *sent);
/* Ends an answer of http_begin(). Acts as http_abort() if fewer bytes were
 * written than http_begin() promised. */
void http_end(struct http_req *rq);
/* Ends the request before its answer is whole, and the connection with it: by
 * an orderly close (FIN) where the client can see that bytes are missing, upon
 * which containerd asks again, also at its next host; by a reset (RST), upon
 * which it gives up, where all bytes were sent already or the answer has no
 * length. */
void http_abort(struct http_req *rq);
/* Ends the request after gone() or after a write's -EPIPE. */
void http_release(struct http_req *rq);

#endif
