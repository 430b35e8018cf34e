/* The registries' side of the daemon: manifests, tags, blob sizes and blob
 * ranges over the OCI distribution API, and ranges of plain HTTP(S) files.
 *
 * It authenticates with what the Docker config.json has for the host (or
 * nothing), follows redirects by hand, retries what is worth it within a
 * deadline, and remembers what it learnt in the store: manifests by digest,
 * tags with the time they were seen, which repository has which blob of which
 * size. Equal requests under way are one request (single-flight). A "no" is
 * remembered for a few seconds.
 *
 * All functions run on the loop thread. Callbacks run there too, exactly once,
 * never from inside the call that started them (but for -ENOMEM, when there is
 * no memory even to remember the request). Reads of the small index
 * records go through pool workers.
 *
 * Errors: -ENOENT the registry says there is none (404, or DNS knows no such
 * host); -EACCES refused (401 or 403 after authentication), logged once per
 * repository and minute; -EBADMSG what came does not match its digest or
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
				      again when its mtime changes. A missing
				      or bad file is a warning, not an error:
				      credentials never gate cached reads */
	const char *certs_dir;	   /* per-registry CA: DIR/<host[:port]>/ca.crt
				      (as /etc/docker/certs.d); NULL = none */
	const struct string_list *plain_http; /* hosts[:port] without TLS */
	uint64_t meta_timeout_ms;	      /* manifests, tags, sizes; 15 s */
	uint64_t tag_fresh_ms; /* a tag is not asked again before; 30 s */
	uint64_t negative_ms;  /* a "no" is remembered; 5 s */
	/* Asked when upstream cannot be reached, and told of manifests; NULL =
	 * there are no other nodes. Borrowed until registry_free(). */
	struct other_nodes *peers;
	/* Which addresses may be connected to (registry/guard.h); NULL = all,
	 * for tests. Borrowed until registry_free(). */
	const struct guard *guard;
	const char *node; /* this node's name, for metrics; NULL = "". Borrowed
			     until registry_free() */
};

int registry_new(const struct registry_config *cfg, struct registry **ret,
		 struct error *err);
/* Callbacks of what is under way run from here with -ECANCELED. Not from inside
 * a callback of the registry. The store may be closed, and the client freed,
 * after it; the loop must get a turn before it is freed. */
void registry_free(struct registry **r);

/* A manifest's bytes; borrowed during the callback. */
struct manifest_result {
	struct digest digest;
	const char *media_type;
	const void *bytes;
	size_t len;
	const struct manifest *manifest; /* NULL if it could not be parsed; the
					    bytes match the digest all the
					    same */
	bool stale; /* a tag upstream did not confirm: the last known one */
};

/* res is NULL unless r is 0. */
typedef void manifest_cb(void *arg, int r, const struct manifest_result *res);
/* tags is sorted and borrowed; stale as above. */
typedef void tags_cb(void *arg, int r, const struct string_list *tags,
		     bool stale);
/* b, NULL unless r is 0, is a reference that the callback owns. */
typedef void blob_cb(void *arg, int r, struct blob *b);

/* reference is a tag or a "sha256:…". By digest: from the store without a
 * request if it is there. By tag: the known digest while it is fresh, else
 * upstream is asked (HEAD, then GET of what is new); when upstream cannot be
 * reached the last known digest is served, marked stale. The digest of every
 * manifest is checked, and every layer, config and child of it is recorded
 * with store_repo_add(). */
void registry_get_manifest(struct registry *r, const char *host,
			   const char *name, const char *reference,
			   manifest_cb *cb, void *arg);

/* tags is sorted; borrowed. Paged (Link: rel="next"), at most 100,000 tags
 * and 16 MiB. When upstream cannot be reached: those known in the store, and
 * stale is true; -EHOSTUNREACH if none is. */
void registry_list_tags(struct registry *r, const char *host, const char *name,
			tags_cb *cb, void *arg);

/* The blob of a repository, ready to be read: its size is taken from the store
 * if it is known there (a manifest's descriptor, or the blob itself), else
 * asked for with HEAD. The origin "registry://host/name" is added to it. The
 * callback owns the reference in *b (NULL unless r is 0). */
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

/* Ranges of blobs from their origins. Tries a blob's origins newest first; a
 * redirect's target is remembered per blob until it expires (from its query,
 * if it says so; else 5 minutes) or answers 401, 403, 404 or 410, and is then
 * resolved again, single-flight. No credentials go to the target of a redirect,
 * only Accept, Range and If-Match. A request with auth begins at the place
 * that this is for. Belongs to r. */
struct source *registry_source(struct registry *r);

#endif
