/* Answers an HTTP request with a blob, or with ranges of it.
 *
 * What is in the store leaves by sendfile(2); what is not is fetched, and sent
 * up to the flight's watermark while the rest still arrives. The head is sent
 * only when there are bytes to follow it, so that a blob that nobody has is a
 * plain 404. After that a failing source is replaced inside the response; if
 * none is left, or the bytes fail the digest, the connection is reset: never
 * padded, never short with success.
 *
 * A slow client holds one piece of memory (at most a chunk) or none. How far
 * is fetched ahead follows what the client has taken, never what it asked for:
 * containerd 2.1 asks for "bytes=N-" and hangs up.
 *
 * Source: RFC 9110, sections 13 (conditions) and 14 (ranges). Loop thread. */
#ifndef REGISTRY_SERVE_H
#define REGISTRY_SERVE_H

#include "base/loop.h"
#include "fetch/fetch.h"
#include "http/server.h"
#include "registry/client-auth.h"
#include "store/store.h"

struct serve_config {
	struct loop *loop;
	struct store *store;
	struct fetch *fetch;
	uint64_t max_window;	    /* 0 = no prefetch */
	uint64_t first_deadline_ms; /* until the first byte: 404 after it; 0 =
				       10 s */
};

struct serve_how {
	const char *content_type; /* NULL = application/octet-stream */
	const char *etag;   /* without quotes, no longer than a digest; copied.
			       NULL = the digest, or none for a URL's blob */
	bool tell_digest;   /* the etag as Docker-Content-Digest, too */
	bool peer;	    /* a node asks: it checks the whole itself */
	bool as_owner;	    /* see fetch_read.as_owner */
	int miss_status;    /* when nobody has the first byte; 0 = 404 */
	int refused_status; /* when upstream refuses it; 0 = miss_status. 401
			       is answered where that is due to auth */
	struct client_auth *auth; /* NULL: none; taken over, as *b is */
	/* Called once, when the response has ended. r as for fetch, or -EPIPE
	 * when the client went away. bytes: of the body, sent. May be NULL. */
	void (*done)(void *arg, int r, uint64_t bytes);
	void *arg;
};

/* cfg is borrowed until the response has ended. *b is a reference that is
 * taken over. Headers that the caller has added with http_header_add() go
 * out with the answer. */
void serve_blob(const struct serve_config *cfg, struct http_req *rq,
		struct blob **b, const struct serve_how *how);

/* For bytes in memory (manifests): conditions, HEAD and ranges alike. bytes
 * are copied. */
void serve_bytes(struct http_req *rq, const void *bytes, size_t len,
		 const char *content_type, const char *etag);

#endif
