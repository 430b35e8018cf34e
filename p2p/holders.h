/* Finds holders of what its owners lack: content of containerd's store, blobs
 * fetched with credentials that other nodes lack, blobs fetched before the
 * members changed; and manifests and tags.
 *
 * A node announces what it holds to the three homes of each key
 * (place_homes()): in batches, again when the members change, and again every
 * HOLDERS_AGAIN_MS. Homes keep this in memory for HOLDERS_TTL_MS. It is soft
 * state and bounded; the least recently announced key is dropped first. A
 * lookup costs one round trip. Several lookups of one key are one, and its
 * result is remembered for a moment.
 *
 *   POST /peer/v1/holders  {"id","holds":[["sha256:<hex>",size],…]}
 *                          204; 403 when id is not among the home's members,
 *                          or not the requester's
 *   GET  /peer/v1/holders?key=sha256:<hex>
 *                          {"size":N,"holders":["<member id>",…]}
 *
 * Keys are "sha256:<hex>" (blobs and manifests), "url:<hex>" and "tag:<hex>".
 * Every answer carries Peerd-Epoch, which a home draws at its start. A new
 * epoch means that the home has lost its memory; the node then announces
 * everything again.
 *
 * Loop thread, except holders_announce() and holders_withdraw(). */
#ifndef P2P_HOLDERS_H
#define P2P_HOLDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/loop.h"
#include "http/client.h"
#include "http/server.h"
#include "p2p/members.h"

#define HOLDERS_AGAIN_MS 120000
#define HOLDERS_TTL_MS	 300000
/* Holders of one key. A further one replaces a member that is gone, or is
 * ignored. */
#define HOLDERS_PER_KEY 16
/* Keys that a home keeps in memory. */
#define HOLDERS_MAX_KEYS 200000
/* Keys that one node announces: the newest. */
#define HOLDERS_MAX_OWN 50000

enum holder_kind { HOLDER_SHA256 = 1, HOLDER_URL = 2, HOLDER_TAG = 3 };

struct holder_key {
	enum holder_kind kind;
	struct digest id;
};

struct holders;

struct holders_config {
	struct loop *loop;
	struct http_client *client;
	struct members *members;
	const char *id; /* the id by which the members know this node; copied */
	/* A lookup has ended, for metrics. Not called for a remembered result.
	 * May be NULL. */
	void (*looked_up)(void *arg, double seconds, bool found);
	void *arg;
	/* For tests; 0 means the default. */
	uint32_t batch_ms; /* delay, to share a request; 100 */
	uint32_t again_ms; /* HOLDERS_AGAIN_MS */
	uint32_t ttl_ms;   /* as a home; HOLDERS_TTL_MS */
	uint32_t none_ms;  /* how long "no holder" is remembered; 500 */
	uint32_t found_ms; /* how long holders are remembered; 5000 */
	uint32_t max_own;  /* HOLDERS_MAX_OWN */
	uint32_t max_keys; /* HOLDERS_MAX_KEYS */
};

int holders_new(const struct holders_config *cfg, struct holders **ret);
/* Frees h in later turns and sets *h to NULL. Open lookups end with -ECANCELED,
 * in later turns. No thread may announce any more. Call it before
 * members_free() and http_client_free(). */
void holders_free(struct holders **h);

/* This node holds the key (size 0: not known, or not a blob). Any thread. May
 * be repeated. */
void holders_announce(struct holders *h, const struct holder_key *key,
		      uint64_t size);
/* This node no longer holds the key. Homes are not told: their note expires
 * after HOLDERS_TTL_MS; a member that asks until then gets a 404. Any
 * thread. */
void holders_withdraw(struct holders *h, const struct holder_key *key);
/* The members have changed: announces keys to their new homes. */
void holders_members_changed(struct holders *h);

/* r 0: v[0..n) are living members that hold the key, never this node; n may be
 * 0; suspect members come last. size is what the last answer said (0 = not
 * known); the caller must check it. r < 0: n is 0; -EBUSY: too many lookups;
 * -ETIMEDOUT and others: no home could be asked. v is borrowed during the call.
 * Called exactly once, never from inside holders_find(). */
typedef void holders_cb(void *arg, int r, uint64_t size,
			struct member *const *v, unsigned int n);

/* Asks the homes one after the other until one knows a holder; the own notes of
 * this node come first. "No holder" is remembered for 500 ms, holders for 5 s.
 * -ENOMEM: the callback does not come. */
int holders_find(struct holders *h, const struct holder_key *key,
		 holders_cb *cb, void *arg);
/* Ends all lookups with this arg; their callbacks do not come. */
void holders_cancel(struct holders *h, void *arg);

/* Drops all pointers to a member that is about to be freed. */
void holders_forget(struct holders *h, struct member *mb);

/* Answers both routes above. The caller has checked that the requester is a
 * member. */
void holders_handle(struct holders *h, struct http_req *rq);

struct holders_stats {
	uint64_t own, keys; /* announced by this node; kept as a home */
	uint64_t finds, found, announcements_sent, announcements_got;
};
void holders_stats(struct holders *h, struct holders_stats *ret);

#endif
