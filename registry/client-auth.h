/* The credential of a client of /blobs/<URL> for the server that the URL names:
 * the Authorization header of the client's request. overlaybd sends one to a
 * registry that delivers layers without a redirect.
 *
 * Where it goes: the requests to upstream that serve the client's request carry
 * it, to the origin (scheme, host and port) of exactly that URL. It does not
 * follow a redirect to another origin, and goes to no other place that has the
 * blob, such as other nodes. Lower floors and neighbours pass it on as a struct
 * source_auth, which they cannot look into.
 *
 * How long: as long as the client's request, and CLIENT_AUTH_LINGER_MS longer
 * for prefetch and for a fetch after a failed digest. It is kept in memory
 * only: never in the log, in metrics, in the store or in a key; keys contain
 * client_auth.tag.
 *
 * For whom: an upstream answer to one credential does not count for another
 * credential, or for none. The tag separates look-ups, refusals, redirects and
 * the versions of files without a digest. A read that waited in vain for
 * another read's credential tries its own (fetch/flight.c). Bytes that have
 * arrived belong to the store, and any reader may read them: see
 * docs/upstream.md, "Credentials of clients".
 *
 * This node's own credentials (--registry-config) are not used for URLs, so the
 * order of the two never matters. Loop thread. */
#ifndef REGISTRY_CLIENT_AUTH_H
#define REGISTRY_CLIENT_AUTH_H

#include "base/values.h"
#include "fetch/source.h"
#include "http/server.h"
#include "http/url.h"

#define CLIENT_AUTH_LINGER_MS 10000
#define CLIENT_AUTH_MAX_BYTES ((size_t)16 << 10)

struct client_auth {
	struct source_auth base;
	char *value;  /* of the header; secret */
	char *url;    /* whole; as secret as its query */
	char *origin; /* without the query, as blob_add_origin() has it */
	/* Of base.id: the same for the same value and URL, until the process
	 * ends. */
	char tag[DIGEST_HEX_SIZE];
};

/* value is copied. On 0 the caller owns a reference,
 * which client_auth_end() gives back. -EINVAL: not to be passed on, since it is
 * neither Basic nor Bearer (others log in a whole connection, which is used for
 * other clients afterwards, or sign the request's own URL), or is malformed.
 * -ENOMEM. */
int client_auth_new(const struct url *url, const char *value,
		    struct client_auth **ret);
/* The request that it came with is over. */
void client_auth_over(struct client_auth *a);
/* The same, and drops the reference. Sets *a to NULL; NULL is allowed. */
void client_auth_end(struct client_auth **a);
/* The client_auth behind a source_auth; NULL for NULL. Borrowed. */
struct client_auth *client_auth_of(struct source_auth *a);
/* Adds to rq the WWW-Authenticate header of a 401. */
void client_auth_challenge(const struct client_auth *a, struct http_req *rq);

#endif
