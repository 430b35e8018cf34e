/* The client for upstream: manifests, tags, blob sizes and blob ranges over the
 * OCI distribution API, and ranges of plain HTTP(S) files.
 *
 * It authenticates with the host's credentials from the Docker config.json (or
 * without credentials), follows redirects itself, and retries temporary errors
 * within a deadline. It records what it learnt in the store: manifests by
 * digest, tags with the time of their confirmation, which repository has which
 * blob of which size. Equal requests under way share one query. A "no" is
 * remembered for a few seconds.
 *
 * All functions run on the loop thread. So do callbacks, exactly once, never
 * from inside the call that started the request (except -ENOMEM, when there is
 * no memory to remember the request). Pool workers read the index records.
 *
 * Errors: -ENOENT upstream has no such content (404, or DNS knows no such
 * host); -EACCES refused (401 or 403 after authentication), logged once per
 * repository and minute; -EBADMSG the content does not match its digest or
 * cannot be parsed; -EHOSTUNREACH no answer, or 5xx/429 until the deadline. */
#ifndef REGISTRY_REGISTRY_H
#define REGISTRY_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/manifest.h"
#include "base/options.h"
#include "fetch/source.h"
#include "http/client.h"
#include "registry/other-nodes.h"
#include "store/store.h"

struct guard;
struct registry;

struct registry_config {
	struct loop *loop; /* borrowed, like the next two */
	struct http_client *client;
	struct store *store;
	const char *docker_config; /* path of a config.json; NULL = none. Read
				      again when its mtime changes. A missing or
				      bad file is a warning, not an error:
				      cached reads need no credentials */
	const char *certs_dir; /* per-registry CA: DIR/<host[:port]>/ca.crt (as
				  /etc/docker/certs.d); NULL = none */
	const struct string_list *plain_http; /* hosts[:port] without TLS */
	uint64_t meta_timeout_ms; /* deadline for manifests, tags and sizes */
	uint64_t tag_fresh_ms; /* how long a tag's answer is used without asking
				  again */
	uint64_t negative_ms;  /* how long a "no" is remembered */
	/* Asked when upstream cannot be reached, and told of new manifests;
	 * NULL = there are no other nodes. Borrowed until registry_free(). */
	struct other_nodes *peers;
	/* Which addresses may be connected to (registry/guard.h); NULL = all,
	 * for tests. Borrowed until registry_free(). */
	const struct guard *guard;
	const char *node; /* this node's name, for metrics; NULL = "". Borrowed
			     until registry_free() */
};

int registry_new(const struct registry_config *cfg, struct registry **ret,
		 struct error *err);
/* Frees *r and sets it to NULL; NULL is allowed. Runs the callbacks of pending
 * requests with -ECANCELED. Do not call it from inside a callback of the
 * registry. Afterwards the store may be closed and the HTTP client freed; the
 * loop needs a turn before it is freed. */
void registry_free(struct registry **r);

/* A manifest's bytes; borrowed during the callback. */
struct manifest_result {
	struct digest digest;
	const char *media_type;
	const void *bytes;
	size_t len;
	const struct manifest *manifest; /* NULL if it could not be parsed; its
					    digest matches all the same */
	bool stale; /* by tag, and upstream did not confirm it */
};

/* res is NULL unless r is 0. */
typedef void manifest_cb(void *arg, int r, const struct manifest_result *res);
/* tags is sorted, and borrowed during the callback; stale: upstream did not
 * confirm the list. */
typedef void tags_cb(void *arg, int r, const struct string_list *tags,
		     bool stale);
/* A registry's answer to a request for a list; borrowed during the callback. */
struct list_result {
	int status; /* 2xx, or the registry's error of 400 or more */
	const char *media_type; /* these three: visible ASCII; NULL: none */
	/* The next page (RFC 8288): "/path?query" on the registry, or the URL
	 * of one that is on another server. */
	const char *next;
	const char *filters; /* OCI-Filters-Applied */
	const void *bytes;   /* the body, of an error too */
	size_t len;
	bool stale; /* upstream did not confirm it, or not yet */
};
/* res is NULL unless r is 0. */
typedef void list_cb(void *arg, int r, const struct list_result *res);
/* b is NULL unless r is 0. The callback owns the reference. */
typedef void blob_cb(void *arg, int r, struct blob *b);

/* Gets a manifest; reference is a tag or "sha256:…". By digest: from the store
 * without a request if it is there. By tag: the known digest while it is fresh;
 * else upstream is asked (HEAD, then GET of new content). When upstream cannot
 * be reached: a tag's last known manifest, marked stale; else other nodes are
 * asked. Checks the digest of every manifest, and records each layer, config
 * and child with store_repo_add(). */
void registry_get_manifest(struct registry *r, const char *host,
			   const char *name, const char *reference,
			   manifest_cb *cb, void *arg);

/* What the reference of registry_get_image() named. */
struct image_top {
	struct digest digest;
	const void *index_bytes; /* NULL: it is not an index */
	size_t index_len;
};
#define IMAGE_WHY_SIZE 1024
/* res is the manifest with layers, NULL unless r is 0. top is NULL if the
 * reference itself could not be had. why is a sentence, or NULL. All is
 * borrowed during the callback. */
typedef void image_cb(void *arg, int r, const struct manifest_result *res,
		      const struct image_top *top, const char *why);
/* Gets a manifest, and of an index the image for this machine, as containerd
 * chooses it (manifest_for_platform()), through at most three further indexes.
 * -ENOENT with why: none fits; it names the platforms there are. Other errors:
 * registry_get_manifest()'s; -EBADMSG: cannot be parsed. */
void registry_get_image(struct registry *r, const char *host, const char *name,
			const char *reference, image_cb *cb, void *arg);

/* Lists a repository's tags. Follows pages (Link: rel="next"), up to 100,000
 * tags and 16 MiB. When upstream cannot be reached: the tags in the store, with
 * stale true; -EHOSTUNREACH if there are none. */
void registry_list_tags(struct registry *r, const char *host, const char *name,
			tags_cb *cb, void *arg);

/* Gets one page of a list as the registry answers it, up to 4 MiB. what:
 * "tags/list" or "referrers/DIGEST" of the repository, or "_catalog" with name
 * NULL; query: what goes behind "?", percent-encoded, "" for nothing. Lists are
 * kept in memory (1,024 and 16 MiB, until credentials change) and used again
 * for tag_fresh_ms. When upstream cannot be reached, or takes longer than 2 s:
 * the kept list, marked stale. An answer with an error status is passed on with
 * its body, and not kept. Errors: -EHOSTUNREACH no answer; -EBADMSG the answer
 * is too large, or not JSON; -EPERM the address is refused. */
void registry_get_list(struct registry *r, const char *host, const char *name,
		       const char *what, const char *query, list_cb *cb,
		       void *arg);

/* Gets a repository's blob, ready for reading. The size comes from the store if
 * it is known there (from a manifest's descriptor, or the blob itself); else
 * from upstream (HEAD); when upstream cannot be reached, from other nodes. Adds
 * the origin "registry://host/name" to the blob. */
void registry_get_blob(struct registry *r, const char *host, const char *name,
		       const struct digest *d, blob_cb *cb, void *arg);

/* A plain HTTP(S) file as a blob. If its path names a digest
 * (registry/urldigest.h), that is its key, it is checked against it, and needs
 * no version. Else it is of kind BLOB_URL. Its key is made of the URL
 * without query, the ETag (or Last-Modified) and the length, which one HEAD
 * (or GET of one byte, where HEAD is refused) tells; a server that does not
 * serve ranges gives -EOPNOTSUPP. `url` may carry a query (a signature): it is
 * kept in memory for the fetches of this process, never stored. The version
 * stays known for tag_fresh_ms; when upstream cannot be reached, the last
 * known version is served if there is one. An address that the guard refuses is
 * -EPERM, whatever name or redirect leads there, now and when ranges are
 * fetched.
 *
 * auth (registry/client-auth.h; NULL: none; referenced) is sent to the URL's
 * origin; -EKEYEXPIRED when that answers 401 to it. A version that was found
 * out with it is known to those who come with the same only, and is not served
 * when upstream cannot be reached. */
void registry_get_url(struct registry *r, const char *url,
		      struct source_auth *auth, blob_cb *cb, void *arg);

/* The source that fetches ranges of blobs from their origins. Tries a blob's
 * origins, newest first. A redirect's target is remembered per blob and origin
 * until it expires (as its query says; else 5 minutes) or answers 400, 401,
 * 403, 404 or 410; then one request resolves it again, and others wait for
 * that. No credentials go to the target of a redirect, only Accept, Range and
 * If-Match. A request with auth begins at the place that auth is for. Belongs
 * to r. */
struct source *registry_source(struct registry *r);
/* Whether one of b's registries serves no ranges, as far as is known, so that b
 * is read from its beginning to its end. */
bool registry_serves_no_ranges(struct registry *r, struct blob *b);

#endif
