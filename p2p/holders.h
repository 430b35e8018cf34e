/* Who holds what is not where its owners are: content of containerd's store,
 * blobs that were fetched with credentials that others lack, or before the
 * members changed; and manifests and tags.
 *
 * A node announces what it holds to the three home nodes of each key
 * (place_homes()), batched, again when the members change, and every
 * HOLDERS_AGAIN_MS. Homes keep it in memory for HOLDERS_TTL_MS: soft state,
 * bounded, the least recently announced goes first. To ask costs one round
 * trip; several asks for one key are one, and answers are remembered for a
 * moment.
 *
 *   POST /peer/v1/holders  {"id","holds":[["sha256:<hex>",size],…]}
 *                          204; 403 when id is not among the home's members
 *   GET  /peer/v1/holders?key=sha256:<hex>
 *                          {"size":N,"holders":["<member id>",…]}
 *
 * Keys are "sha256:<hex>" (blobs and manifests), "url:<hex>" and "tag:<hex>".
 * Every answer carries Peerd-Epoch, drawn when the home starts: when it is
 * another than before, the home has forgotten what it was told, and is told
 * again.
 *
 * Loop thread, but for holders_announce() and holders_withdraw(). */
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
/* Of one key; more are not remembered. */
#define HOLDERS_PER_KEY 16
/* Keys that a home keeps in memory. */
#define HOLDERS_MAX_KEYS 200000
/* What one node announces at most: the newest. */
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
	const char *id; /* our own, as the members know it; copied */
	/* A lookup has ended (what was remembered is none): for metrics. May be
	 * NULL. */
	void (*looked_up)(void *arg, double seconds, bool found);
	void *arg;
	/* For tests; 0 is the default of each. */
	uint32_t batch_ms; /* news wait so long for others; 100 */
	uint32_t again_ms; /* HOLDERS_AGAIN_MS */
	uint32_t ttl_ms;   /* as a home; HOLDERS_TTL_MS */
	uint32_t none_ms;  /* "nobody" is remembered; 500 */
	uint32_t found_ms; /* holders are remembered; 5000 */
	uint32_t max_own;  /* HOLDERS_MAX_OWN */
	uint32_t max_keys; /* HOLDERS_MAX_KEYS */
};

int holders_new(const struct holders_config *cfg, struct holders **ret);
/* Asks that are open are answered with -ECANCELED, in later turns; no thread
 * may announce any more. Before members_free() and http_client_free(). NULLs.
 */
void holders_free(struct holders **h);

/* This node holds it (size 0: not known, or no blob). From any thread. Harmless
 * when repeated. */
void holders_announce(struct holders *h, const struct holder_key *key,
		      uint64_t size);
/* No more; homes learn of it when it runs out, or on a 404. From any thread. */
void holders_withdraw(struct holders *h, const struct holder_key *key);
/* The members have changed: what has other homes now is announced there. */
void holders_members_changed(struct holders *h);

/* r 0: v[0..n) are living members that hold it (never ourselves; n may be 0;
 * those whose last greeting failed come last), and its size as the last one
 * said (0 = not known; to be checked by who fetches). -ETIMEDOUT and others: no
 * home could be asked, -EBUSY: too many lookups; n is 0. v is borrowed during
 * the call. Exactly once, never from inside holders_find(). */
typedef void holders_cb(void *arg, int r, uint64_t size,
			struct member *const *v, unsigned int n);

/* The homes are asked one after the other until one knows a holder; when this
 * node is a home itself, its own notes come first. Not found is remembered for
 * 500 ms, found for 5 s. -ENOMEM: the callback does not come. */
int holders_find(struct holders *h, const struct holder_key *key,
		 holders_cb *cb, void *arg);
/* Ends all finds with this arg: their callbacks do not come. */
void holders_cancel(struct holders *h, void *arg);

/* A member is about to be freed. */
void holders_forget(struct holders *h, struct member *mb);

/* Answers both routes above. The caller has checked that a peer asks. */
void holders_handle(struct holders *h, struct http_req *rq);

struct holders_stats {
	uint64_t own, keys; /* announced by us; kept for others */
	uint64_t finds, found, announcements_sent, announcements_got;
};
void holders_stats(struct holders *h, struct holders_stats *ret);

#endif
