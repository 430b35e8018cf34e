/* Fetches chunks from other nodes, and serves chunks to them.
 *
 * A node that lacks a chunk asks the owner of its stripe (p2p/placement.h) for
 * the range. The owner fetches the chunk from upstream once for all members,
 * and passes the bytes on while they arrive; so does any member that is asked
 * as if it were the owner. Members that are known to have the chunk come before
 * upstream: requests and answers say what the sender has, and homes are asked
 * (p2p/holders.h).
 *
 *   GET /v2/<name>/blobs/<digest>?ns=<registry>      one range
 *   GET /blobs/<URL>                                 one range
 *   GET /v2/<name>/manifests/<reference>?ns=<registry>
 *   GET /peer/v1/hello, GET and POST /peer/v1/holders
 *
 * Requests between nodes carry
 *
 *   Peerd-Hop: 1           a member asks; its request is never passed on to a
 *                          third node as a request to fetch
 *   Peerd-Blob: sha256:<hex> or url:<hex>;size=<bytes>
 *                          the blob, whatever the URL says
 *   Peerd-From: <id>       the requester
 *   Peerd-Fetch: 1         fetch the range if you lack it; otherwise only what
 *                          is there, or on its way from another member
 *   Peerd-Insist: 1        no 307, if possible
 *   Peerd-Load: <n>        requests that the sender serves; on answers too
 *   Peerd-Slow: <id>,…     members that the sender finds slow, or that seem
 *                          slow to it; on answers too
 *   Peerd-Have: all, or <first chunk>:<hex>
 *                          whole chunks that the sender has, bit 0 of the
 *                          first byte first; on answers too, 404 included
 *   Peerd-Ask: <id>        on a 307: another member that was given the chunk
 *
 * They carry no credentials and no query strings. A node accepts bytes only in
 * a 206 with exactly the range and size that it asked for. The blob's digest
 * decides in the end; a member whose bytes failed it is benched.
 *
 * Loop thread, unless a function says otherwise. */
#ifndef P2P_PEERS_H
#define P2P_PEERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/loop.h"
#include "fetch/source.h"
#include "http/client.h"
#include "http/server.h"
#include "p2p/members.h"
#include "registry/other-nodes.h"
#include "registry/serve.h"
#include "store/store.h"

struct peers;

enum peers_observed {
	PEERS_DISCOVERY, /* seconds until a member with the chunk was found */
	PEERS_SPEED,	 /* MiB/s of one request's bytes */
};

struct peers_config {
	struct loop *loop; /* borrowed, like the next three */
	struct http_client *client;
	struct store *store;
	struct members_config members; /* loop, client, changed and forget are
					  set by peers_new() */
	uint32_t upload_slots;	       /* requests served at once; 0 = 64 */
	/* How ranges are sent; borrowed until peers_free(). */
	const struct serve_config *serve;
	/* Whether this node may fetch from a registry that only a member has
	 * named. NULL: from any. */
	bool (*may_fetch)(void *arg, const char *host);
	/* Whether the blob is read from its beginning to its end only
	 * (source_ops.sweeps). One member then owns all of it. NULL: none. */
	bool (*sweeps)(void *arg, struct blob *b);
	/* For metrics; addr is the member's address. May be NULL. */
	void (*observe)(void *arg, enum peers_observed what, const char *addr,
			double value);
	/* The number of living members has changed. May be NULL. */
	void (*changed)(void *arg, unsigned int alive);
	void *arg;
};

int peers_new(const struct peers_config *cfg, struct peers **ret,
	      struct error *err);
/* Call it after the server and the fetch engine have ended; no thread may call
 * peers_blob_event() or peers_announce() any more. Sets *p to NULL; NULL
 * allowed. */
void peers_free(struct peers **p);

struct members *peers_members(struct peers *p);
/* Owned by p; so is the next one. */
struct source *peers_source(struct peers *p);
struct other_nodes *peers_other_nodes(struct peers *p);

/* Handles a request on the members' listener. */
void peers_handle(struct peers *p, struct http_req *rq);

/* Handles a store event: benches members that sent wrong bytes, and tells homes
 * what this node has now. Any thread. */
void peers_blob_event(struct peers *p, struct blob *b, enum blob_event ev);
/* Announces that this node has a blob, or a part of it. Any thread. */
void peers_announce(struct peers *p, const struct blob_key *key, uint64_t size);

/* Writes {"self":{…},"peers":[{…}],…} for GET /api/v1/peers. */
int peers_json(struct peers *p, struct buf *out);

#endif
