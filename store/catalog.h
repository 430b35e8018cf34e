/* What the faces of the daemon (mount, mirror) ask of the registries: names
 * become manifests, tag lists and blobs. registry/ implements it; main.c hands
 * it to fs/ and the others, so that the floors need not know each other.
 *
 * Everything runs on the loop thread. Callbacks come exactly once, never from
 * inside the call that started them. Errors: -ENOENT there is none; -EACCES
 * refused; -EBADMSG what came was wrong; -EHOSTUNREACH no usable answer in
 * time; -EISDIR, -EOPNOTSUPP as get_url() says; -ECANCELED at the end. */
#ifndef STORE_CATALOG_H
#define STORE_CATALOG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/digest.h"
#include "base/manifest.h"
#include "base/options.h"
#include "store/store.h"

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

struct catalog;
struct source_auth; /* store/source.h */

struct catalog_ops {
	/* By tag or "sha256:…". */
	void (*get_manifest)(struct catalog *c, const char *host,
			     const char *name, const char *reference,
			     manifest_cb *cb, void *arg);
	void (*list_tags)(struct catalog *c, const char *host, const char *name,
			  tags_cb *cb, void *arg);
	/* A blob of a repository, of known size, ready to be read. */
	void (*get_blob)(struct catalog *c, const char *host, const char *name,
			 const struct digest *d, blob_cb *cb, void *arg);
	/* Any file that serves ranges. -EISDIR: the server sends the same URL
	 * with a slash behind it; -EOPNOTSUPP: it does not serve ranges. */
	void (*get_url)(struct catalog *c, const char *url, blob_cb *cb,
			void *arg);
	/* The same for strangers: -EPERM for what is on this host or link,
	 * wherever names and redirects lead, but for the hosts in guard
	 * (borrowed while the catalog lives). auth: what they have for that
	 * URL, referenced as long as it is needed, or NULL; -EKEYEXPIRED when
	 * it is no good. */
	void (*get_url_guarded)(struct catalog *c, const char *url,
				const struct string_list *guard,
				struct source_auth *auth, blob_cb *cb,
				void *arg);
};

struct catalog {
	const struct catalog_ops *ops;
};

/* ---- The other nodes ----
 *
 * What the registries ask of peers when upstream cannot be reached: p2p/
 * implements it, main.c hands it to registry/. */

struct catalog_peers;

/* bytes (borrowed, at most MANIFEST_MAX_BYTES) are what a member has; whoever
 * asked by digest checks them against it. r: 0, -ENOENT nobody has it,
 * -ECANCELED. */
typedef void peer_manifest_cb(void *arg, int r, const char *media_type,
			      const void *bytes, size_t len);
/* size is what members say of the blob. */
typedef void peer_size_cb(void *arg, int r, uint64_t size);

struct catalog_peers_ops {
	/* By tag or "sha256:…". */
	void (*get_manifest)(struct catalog_peers *p, const char *host,
			     const char *name, const char *reference,
			     peer_manifest_cb *cb, void *arg);
	void (*get_size)(struct catalog_peers *p, const struct digest *d,
			 peer_size_cb *cb, void *arg);
	/* Ends what was asked with this arg: its callback does not come. */
	void (*cancel)(struct catalog_peers *p, void *arg);
	/* This node now has a manifest, by this tag if it is not NULL. Any
	 * thread. */
	void (*noted)(struct catalog_peers *p, const char *host,
		      const char *name, const char *tag,
		      const struct digest *d);
};

struct catalog_peers {
	const struct catalog_peers_ops *ops;
};

#endif
