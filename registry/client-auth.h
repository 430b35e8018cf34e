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
	char *value;  /* the header's value; secret */
	char *url;    /* with its query; as secret as the query */
	char *origin; /* without the query, in the form of blob_add_origin() */
	const struct string_list *guard; /* of struct call_spec; borrowed */
	/* base.id in hex: equal for equal value and URL, while the process
	 * lives. */
	char tag[DIGEST_HEX_SIZE];
};

/* Creates the credential; copies url and value. guard is borrowed while the
 * process lives. On 0 the caller owns a reference, which client_auth_end()
 * gives back. -EINVAL: the value must not be passed on, because it is
 * malformed, or neither Basic nor Bearer (other schemes authenticate a whole
 * connection, which later serves other clients, or sign the request's own URL).
 * -EIO: no random bytes. -ENOMEM. */
int client_auth_new(const struct url *url, const char *value,
		    const struct string_list *guard, struct client_auth **ret);
/* Tells that the client's request has ended; starts the
 * CLIENT_AUTH_LINGER_MS. */
void client_auth_over(struct client_auth *a);
/* The same, and drops the reference. Sets *a to NULL; NULL is allowed. */
void client_auth_end(struct client_auth **a);
/* The client_auth behind a source_auth; NULL for NULL. Borrowed. */
struct client_auth *client_auth_of(struct source_auth *a);
/* Adds to rq the WWW-Authenticate header of a 401. */
void client_auth_challenge(const struct client_auth *a, struct http_req *rq);

#endif
