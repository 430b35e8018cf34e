/* Answers an HTTP request with a blob, or with ranges of it.
 *
 * Bytes in the store are sent by sendfile(2). Absent bytes are fetched, and
 * sent up to the flight's watermark while the rest still arrives. The head
 * waits for the first bytes, so that a blob that no source has is a plain 404.
 * After the head a failing source is replaced inside the response. If no source
 * is left, or the bytes fail the digest, the connection ends (http_abort()):
 * the response is never padded, and never short with success.
 *
 * A slow client holds at most one piece of memory (up to a chunk). Prefetch
 * follows what the client has taken, never what it asked for: containerd 2.1
 * asks for "bytes=N-" and hangs up.
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
	uint64_t max_window; /* of the read-ahead, in bytes; 0 = no prefetch */
	uint64_t first_deadline_ms; /* wait for the first byte, then
				       miss_status; 0 = 10 s */
};

struct serve_how {
	const char *content_type; /* NULL = application/octet-stream */
	const char *etag; /* without quotes, no longer than a digest; copied.
			     NULL = the digest, or none for a URL's blob */
	bool tell_digest; /* send the etag as Docker-Content-Digest, too */
	bool peer;	  /* a member asks, and checks the whole blob itself */
	bool as_owner;	  /* see fetch_read.as_owner */
	bool patient;	  /* no first_deadline_ms: the read's own time-out */
	int miss_status; /* status when no source has the first byte; 0 = 404 */
	int refused_status;	  /* status when upstream refuses access; 0 =
				     miss_status. A refusal of auth is a 401 */
	struct client_auth *auth; /* NULL: none; serve_blob() takes it over */
	/* Called once, when the response has ended. r: as of fetch_read.done(),
	 * or -EPIPE when the client closed the connection. bytes: body bytes
	 * sent. May be NULL. */
	void (*done)(void *arg, int r, uint64_t bytes);
	void *arg;
};

/* Answers rq with *b. cfg is borrowed until the response has ended. Takes over
 * the reference *b, and how->auth. Headers that the caller added with
 * http_header_add() go out with the answer. */
void serve_blob(const struct serve_config *cfg, struct http_req *rq,
		struct blob **b, const struct serve_how *how);

/* The same for bytes in memory (manifests), with conditions, HEAD and ranges.
 * Copies bytes. */
void serve_bytes(struct http_req *rq, const void *bytes, size_t len,
		 const char *content_type, const char *etag);

#endif
