/* Reading from other nodes, and serving them.
 *
 * A node that lacks a chunk asks the owner of its stripe (p2p/placement.h) for
 * the range; who owns it, or is asked as if it did, fetches it from upstream
 * once for everybody, and passes the bytes on while they arrive. Members that
 * are known to have it come before upstream: what they have rides on requests
 * and replies, and homes are asked (p2p/holders.h).
 *
 *   GET /v2/<name>/blobs/<digest>?ns=<registry>      one range
 *   GET /blobs/<URL>                                 one range
 *   GET /v2/<name>/manifests/<reference>?ns=<registry>
 *   GET /peer/v1/hello, GET and POST /peer/v1/holders
 *
 * Requests between nodes carry
 *
 *   Peerd-Hop: 1           never passed on to a third node as a request to
 *                          fetch
 *   Peerd-Blob: sha256:<hex> or url:<hex>;size=<bytes>
 *                          what is meant, whatever the URL says
 *   Peerd-From: <id>       who asks
 *   Peerd-Fetch: 1         fetch it if you lack it; else only what is there
 *   Peerd-Insist: 1        no 307, if it can be helped
 *   Peerd-Load: <n>        requests that the sender serves; on answers too
 *   Peerd-Slow: <id>,…     members that are or seem slow to it; on answers too
 *   Peerd-Have: all, or <first chunk>:<hex>
 *                          whole chunks that the sender has, bit 0 of the
 *                          first byte first; on replies too, 404 included
 *   Peerd-Ask: <id>        on a 307: who else was given it
 *
 * No credentials and no query strings are among them. What comes is accepted
 * only as 206 with the very range and size that were asked for; the blob's
 * digest decides in the end, and a member whose bytes failed it is benched.
 *
 * Loop thread, unless it says otherwise. */
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
	PEERS_DISCOVERY, /* seconds until a member was known to have it */
	PEERS_SPEED,	 /* MiB/s of one request's bytes */
};

struct peers_config {
	struct loop *loop; /* borrowed, like the next three */
	struct http_client *client;
	struct store *store;
	struct members_config members; /* loop, client, changed and forget are
					  ours */
	uint32_t upload_slots;	       /* requests served at once; 0 = 64 */
	const struct serve_config *serve; /* how ranges are sent; borrowed until
					     peers_free() */
	/* Whether a member may have us fetch from a registry that we have not
	 * been told of otherwise. NULL: from any. */
	bool (*may_fetch)(void *arg, const char *host);
	/* For the metrics; addr is the member's. May be NULL. */
	void (*observe)(void *arg, enum peers_observed what, const char *addr,
			double value);
	/* How many members live has changed. May be NULL. */
	void (*changed)(void *arg, unsigned int alive);
	void *arg;
};

int peers_new(const struct peers_config *cfg, struct peers **ret,
	      struct error *err);
/* After the server and the fetch engine have ended, and no thread calls
 * peers_blob_event() or peers_announce() any more. NULLs. NULL allowed. */
void peers_free(struct peers **p);

struct members *peers_members(struct peers *p);
/* Belongs to p, like the next one. */
struct source *peers_source(struct peers *p);
struct other_nodes *peers_other_nodes(struct peers *p);

/* A request on the listener for peers. */
void peers_handle(struct peers *p, struct http_req *rq);

/* The store's event, any thread: benches who sent wrong bytes, tells homes what
 * has come. */
void peers_blob_event(struct peers *p, struct blob *b, enum blob_event ev);
/* This node has (all of, or a part of) a blob. Any thread. */
void peers_announce(struct peers *p, const struct blob_key *key, uint64_t size);

/* {"self":{…},"peers":[{…}],…} for GET /api/v1/peers. */
int peers_json(struct peers *p, struct buf *out);

#endif
