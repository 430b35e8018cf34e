/* An HTTP client on the loop: libcurl's multi interface, driven by
 * curl_multi_socket_action() with uv_poll and uv_timer.
 *
 * One exchange is one request and one response. The client does not follow
 * redirects: it hands a 3xx to the caller as any other response, so that no
 * header of ours reaches another host by accident. All exchanges of a client
 * share its connections, which are kept alive.
 *
 * All functions run on the loop thread. */
#ifndef HTTP_CLIENT_H
#define HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/util.h"
#include "http/local.h"
#include "http/tls.h"

struct http_client;
struct http_exchange;

struct http_client_config {
	const char *user_agent; /* copied */
	/* Used and idle ones together, at most the client's share of the open
	 * files (base/descriptors.h). 0 = that share, of which 64 idle: so many
	 * that hosts that hang do not delay requests to other hosts. */
	uint32_t max_connections;
	uint32_t max_host_connections; /* 0 = 16 */
};

struct http_header {
	const char *name;
	const char *value;
};

/* http_start() copies everything here. Zero means the default. */
struct http_request {
	const char *method; /* NULL = GET */
	const char *url;    /* http or https, absolute */
	const struct http_header *headers;
	size_t nheaders;
	const void *body; /* sent with Content-Length */
	size_t body_len;
	bool has_range; /* sends "Range: bytes=off-(off+len-1)" */
	uint64_t range_off, range_len;

	/* Connect to this socket instead of the URL's host. */
	const char *unix_socket;
	bool http2_prior_knowledge; /* each on a connection of its own */
	const char *ca_file;	    /* PEM; trusted besides the system's */
	const char *cert_file, *key_file; /* our own certificate and its key */
	bool ca_only;			  /* trust ca_file only */
	/* The other side is a member of our cluster. The connection uses TLS
	 * 1.3 and no proxy. Any certificate from ca_file's CA is accepted,
	 * whatever the host's name; https needs ca_file. The next request takes
	 * up changed files, and connections made with the old files are not
	 * used again. Changed files that cannot be used leave the old ones in
	 * use. */
	bool peer;
	/* done(-EPERM) instead of asking an address that is so near, or nearer
	 * (http/local.h), whatever name led there, on new connections and on
	 * those used again; 0: none is refused. A proxy may be anywhere. It
	 * looks names up for itself, so the name is looked up here before, and
	 * is refused if one of its addresses is. A name that is not known here
	 * is left to the proxy. */
	enum addr_scope refuse;

	/* Time spent waiting for one of max_host_connections counts only in
	 * total_timeout_ms. */
	uint32_t connect_timeout_ms; /* resolver, TCP and TLS; 10 s */
	/* From sending the request until the final head has arrived; 30 s. */
	uint32_t first_byte_timeout_ms;
	/* Fewer than low_speed_bytes a second (1024) for low_speed_seconds (20)
	 * is a stall. Time while paused does not count. */
	uint32_t low_speed_bytes;
	uint32_t low_speed_seconds;
	uint64_t total_timeout_ms; /* 0 = none */
	/* No connection that is older is used again; 0 = any. */
	uint32_t max_connection_age_s;
};

/* A response head. Valid until the exchange's done() returns. */
struct http_response {
	int status;		/* 200… */
	int64_t content_length; /* -1: not given */
};

struct http_callbacks {
	/* The final status and headers have arrived (1xx are skipped). Returns
	 * 0, or a negative errno, which ends the exchange with that error. May
	 * be NULL. */
	int (*head)(void *arg, struct http_exchange *x,
		    const struct http_response *res);
	/* A 1xx arrived: the server is at work on the request. May be NULL. */
	void (*informed)(void *arg, struct http_exchange *x);
	/* Body bytes, at most 512 KiB per call (16 KiB with curl 7.88). Returns
	 * 0 if it took them, or -EAGAIN if not: the exchange then pauses until
	 * http_resume() and hands them over again. Another negative errno ends
	 * the exchange with that error. NULL: the body is discarded. */
	int (*data)(void *arg, struct http_exchange *x, const void *bytes,
		    size_t len);
	/* Exactly once, never from inside http_start(); x is freed after it.
	 * r: 0 when the response arrived whole (whatever its status; the body
	 * had the length its head promised), -ECANCELED after http_cancel(),
	 * -ENOENT host not found, -ECONNREFUSED, -EHOSTUNREACH, -ETIMEDOUT
	 * (connect, first byte, stall or total), -ECONNRESET (closed early or
	 * reset), -EPROTO (not HTTP, header too large), -EKEYREJECTED (TLS:
	 * their certificate is not trusted, or they refused ours or the lack of
	 * it; `why` tells which, and what is wrong with it), -EPERM (see
	 * refuse), -EIO others (among them a certificate of ours that
	 * cannot be read), or what a callback returned. `why` is a sentence
	 * without the URL's query. */
	void (*done)(void *arg, struct http_exchange *x, int r,
		     const char *why);
};

int http_client_new(struct loop *l, const struct http_client_config *cfg,
		    struct http_client **ret);
/* Cancels all exchanges: calls their done(-ECANCELED) from inside this
 * function. Then frees c and sets it to NULL; memory that libuv still uses is
 * freed in its close callbacks. Allowed in done(), not in head() and data().
 * NULL is allowed. */
void http_client_free(struct http_client **c);

/* Starts an exchange. On 0 *ret lives until done() has returned. On -EINVAL and
 * -ENOMEM done() is not called. Allowed in every callback. Uses the proxies
 * that http_proxy, https_proxy and no_proxy name, except with unix_socket or
 * peer. */
int http_start(struct http_client *c, const struct http_request *rq,
	       const struct http_callbacks *cb, void *arg,
	       struct http_exchange **ret);
/* Continues an exchange, after data() returned -EAGAIN, or in data() before
 * that. Data comes in a later turn of the loop, never from inside this call. */
void http_resume(struct http_exchange *x);
/* Cancels an exchange: done(-ECANCELED) follows in a later turn of the loop,
 * and no other callback before it. May be called again, and in done(), without
 * effect. */
void http_cancel(struct http_exchange *x);

/* The value of a response header, NULL if absent; i selects one of several of
 * that name. From head() on; borrowed until done() returns. */
const char *http_header(struct http_exchange *x, const char *name, size_t i);
/* The same for a trailer field, which follows the body (gRPC uses them). In
 * done(). */
const char *http_trailer(struct http_exchange *x, const char *name, size_t i);
/* The seconds in Retry-After (a number or a date), at most 3600; 0 if
 * absent. */
uint32_t http_retry_after_s(struct http_exchange *x);
/* In head() and data(): the common name in the certificate of the other side,
 * "" without TLS or without such a name. */
void http_peer_cert(struct http_exchange *x, char out[TLS_NAME_SIZE]);
/* The address the exchange went to, for logs: "10.0.0.1:443"; "" before it
 * connected. */
const char *http_peer_addr(struct http_exchange *x);
/* The milliseconds from http_start() until connected (TLS included) and until
 * the first byte; 0 if not reached. */
void http_timing(struct http_exchange *x, double *ret_connect_ms,
		 double *ret_first_byte_ms);

#endif
