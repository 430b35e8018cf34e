/* The credential that a client of /blobs/<URL> has for the server that the URL
 * names: its request's Authorization header. overlaybd sends one where a
 * registry delivers layers without a redirect.
 *
 * Where it goes: with what is asked of upstream for the sake of that request,
 * to the origin (scheme, host and port) of that very URL. It does not follow a
 * redirect to another origin, and goes to no other place where the blob may be
 * had, such as other nodes. Floors below and neighbours hand it on as a struct
 * source_auth, in which there is nothing to be read.
 *
 * How long: as long as its request, and CLIENT_AUTH_LINGER_MS longer for what
 * the request wanted ahead, or wants fetched again because it failed its
 * digest. It is in memory only: not in the log, in metrics, in the store, and
 * not in any key; keys have client_auth.tag.
 *
 * For whom: what upstream says to one credential is not taken for what it says
 * to another, or to none: look-ups, refusals, redirects and the versions of
 * files without a digest are kept apart by the tag. A read that has waited in
 * vain for bytes that another one's credential should have brought tries its
 * own (fetch/flight.c). Bytes that have come are the store's, and are read as
 * any are: see docs/architecture.md, "Over HTTP".
 *
 * Ours (--registry-config) are not used for URLs, so there is nothing that
 * could come before or after the client's. Loop thread. */
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
/* The same, and gives the reference back. NULLs; NULL allowed. */
void client_auth_end(struct client_auth **a);
/* What a source was handed; NULL for NULL. */
struct client_auth *client_auth_of(struct source_auth *a);
/* Adds the WWW-Authenticate that belongs to a 401. */
void client_auth_challenge(const struct client_auth *a, struct http_req *rq);

#endif
