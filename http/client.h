/* HTTP requests on the loop: libcurl's multi interface driven by
 * curl_multi_socket_action() over uv_poll and uv_timer.
 *
 * One exchange is one request and one response; redirects are not followed
 * here (http status 3xx is a response like any other), so that no header of
 * ours can cross to another host by accident. Connections are kept alive and
 * shared by all exchanges of a client.
 *
 * Everything runs on the loop thread. */
#ifndef HTTP_CLIENT_H
#define HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/util.h"
#include "http/local.h"

struct http_client;
struct http_exchange;

struct http_client_config {
	const char *user_agent; /* copied */
	/* In all, used or idle; 0 = 1024, of which 64 idle: so many hosts that
	 * hang hold up nobody else. */
	uint32_t max_connections;
	uint32_t max_host_connections; /* 0 = 16 */
};

struct http_header {
	const char *name;
	const char *value;
};

/* Everything here is copied by http_start(). Zero means the default. */
struct http_request {
	const char *method; /* NULL = GET */
	const char *url;    /* http or https, absolute */
	const struct http_header *headers;
	size_t nheaders;
	const void *body; /* sent with Content-Length */
	size_t body_len;
	bool has_range; /* sends "Range: bytes=off-(off+len-1)" */
	uint64_t range_off, range_len;

	const char
		*unix_socket; /* connect there instead of to the URL's host */
	bool http2_prior_knowledge;	  /* each on a connection of its own */
	const char *ca_file;		  /* besides the system's; PEM */
	const char *cert_file, *key_file; /* our own certificate */
	bool ca_only;			  /* ca_file instead of the system's */
	/* The other side is a member of our cluster: whatever its host is
	 * called, a certificate of ca_file, which must be given with https, is
	 * what counts, and TLS is 1.3. New files are taken up by the next
	 * request, and connections made with others not used again; when they
	 * are no good the old ones stay in use. Proxies are not used. */
	bool peer;
	/* done(-EPERM) instead of asking an address that is so near, or nearer
	 * (http/local.h), whatever name led there, on new connections and on
	 * those used again; 0: none is refused. A proxy may be anywhere. It
	 * looks names up for itself, so the name is looked up here before, and
	 * is refused if one of its addresses is. A name that is not known here
	 * is left to the proxy. */
	enum addr_scope refuse;

	/* Waiting for one of max_host_connections counts only in total. */
	uint32_t connect_timeout_ms;	/* name, TCP and TLS; 10 s */
	uint32_t first_byte_timeout_ms; /* from the sending of the request until
					   the final head has arrived; 30 s */
	uint32_t low_speed_bytes;   /* below this many a second (1024) … */
	uint32_t low_speed_seconds; /* … for so long (20) is a stall; time
				       while paused does not count */
	uint64_t total_timeout_ms;  /* 0 = none */
};

/* A response head; valid until the exchange's done() returns. */
struct http_response {
	int status;		/* 200… */
	int64_t content_length; /* -1: not given */
};

struct http_callbacks {
	/* The final status and headers have arrived (1xx are skipped). Return
	 * 0, or a negative errno to end the exchange with it. May be NULL. */
	int (*head)(void *arg, struct http_exchange *x,
		    const struct http_response *res);
	/* A 1xx: the other side is at work on it. May be NULL. */
	void (*informed)(void *arg, struct http_exchange *x);
	/* Body bytes, at most 512 KiB at once (16 KiB with curl 7.88). Returns
	 * 0: taken. -EAGAIN: not taken, the exchange pauses until
	 * http_resume() and then hands them over again. Another negative errno
	 * ends the exchange with it. NULL: the body is discarded. */
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
/* Cancels what is under way (done() is called from here, -ECANCELED), then
 * frees and NULLs. Memory that libuv still needs goes in its close
 * callbacks. Allowed in done(), not in head() and data(). NULL allowed. */
void http_client_free(struct http_client **c);

/* On 0 *ret lives until done() returned. -EINVAL, -ENOMEM: done() will not be
 * called. Allowed in every callback. The proxies that http_proxy, https_proxy
 * and no_proxy name are used, except for a unix_socket. */
int http_start(struct http_client *c, const struct http_request *rq,
	       const struct http_callbacks *cb, void *arg,
	       struct http_exchange **ret);
/* After data() returned -EAGAIN, or in data() before that. Data comes in a
 * later turn of the loop, never from inside this call. */
void http_resume(struct http_exchange *x);
/* done(-ECANCELED) follows in a later turn of the loop, and no other callback
 * before it. Harmless when repeated, and in done(). */
void http_cancel(struct http_exchange *x);

/* From head() on: a response header's value, NULL if absent; the i-th of
 * several of that name. Borrowed until done() returns. */
const char *http_header(struct http_exchange *x, const char *name, size_t i);
/* The same for what was sent after the body, as gRPC does; from done() on. */
const char *http_trailer(struct http_exchange *x, const char *name, size_t i);
/* Seconds from Retry-After (a number or a date), 0 if there is none, at most
 * 3600. */
uint32_t http_retry_after_s(struct http_exchange *x);
/* Where it went, for logs: "10.0.0.1:443"; empty before it connected. */
const char *http_peer_addr(struct http_exchange *x);
/* Milliseconds from http_start() until connected (TLS included) and until the
 * first byte; 0 if not reached. */
void http_timing(struct http_exchange *x, double *ret_connect_ms,
		 double *ret_first_byte_ms);

#endif
