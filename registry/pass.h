/* Passes a registry's content on to a client as it comes, without keeping or
 * checking it: for digests that the store does not know (sha512), which the
 * client checks itself. Loop thread. */
#ifndef REGISTRY_PASS_H
#define REGISTRY_PASS_H

#include <stdint.h>

#include "http/server.h"
#include "registry/registry.h"

/* Called once, before the answer begins. 0: the caller may add headers.
 * Otherwise the caller answers rq; errors as in registry.h. */
typedef void pass_cb(struct http_req *rq, int r);

/* Answers rq, a GET or HEAD, with what the registry sends for `what`
 * ("blobs/DIGEST") of a repository whose host and name the caller has checked.
 * Ranges are ignored. accept: NULL for none. The answer begins within
 * deadline_ms. When the registry fails later, the connection is reset. Takes
 * over rq, also when it calls cb. The server must have ended before
 * registry_free(). */
void registry_pass(struct registry *r, struct http_req *rq, const char *host,
		   const char *name, const char *what, const char *accept,
		   uint64_t deadline_ms, pass_cb *cb);

#endif
