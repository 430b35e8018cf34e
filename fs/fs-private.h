/* Shared inside fs/. */
#ifndef FS_FS_PRIVATE_H
#define FS_FS_PRIVATE_H

#include <pthread.h>

#include "base/list.h"
#include "base/log.h"
#include "base/metrics.h"
#include "fetch/readahead.h"
#include "fs/fs.h"

enum node_type {
	NODE_ROOT,
	NODE_BLOBS_TOP,	 /* blobs */
	NODE_BLOBS,	 /* blobs/sha256 */
	NODE_REGISTRY,	 /* registry */
	NODE_NAME,	 /* registry/<host>[/<part of a name>] */
	NODE_REPO_BLOBS, /* …/blobs */
	NODE_REPO_MANIFESTS,
	NODE_REPO_TAGS,
	NODE_TAG,    /* …/tags/<tag> */
	NODE_LAYERS, /* …/tags/<tag>/layers, of one image */
	NODE_FILES,  /* …/tags/<tag>/files[/<part of a title>] */
	NODE_URL,
	NODE_SCHEME,
	NODE_URL_DIR, /* url/<scheme>/<host>[/<part of a path>] */
	NODE_PEERD,
	NODE_STATUS,   /* .peerd/status.json */
	NODE_BLOB,     /* a file: the blob's bytes */
	NODE_MANIFEST, /* a file: a manifest's bytes, in memory */
};

/* An image: a manifest with layers, and the index that led to it if any. */
struct image {
	unsigned int refs;    /* atomic */
	struct digest top;    /* of what the tag names */
	struct digest digest; /* of the manifest with layers */
	struct manifest *manifest;
	/* The bytes of both. */
	void *bytes, *index_bytes;
	size_t len, index_len; /* index_len 0: the tag names no index */
};

/* One inode. Identity (type, host, name, sub, digest) never changes. */
struct node {
	struct list hash;
	uint64_t ino;
	enum node_type type;
	uint64_t nlookup;  /* guarded by: fs.mu; the kernel's, as FUSE counts */
	unsigned int uses; /* guarded by: fs.mu; ours */
	char *host;	   /* registry host, or a URL's scheme */
	char *name;	   /* repository (or its beginning), or host + path */
	char *sub;	   /* tag, or the beginning of a title */
	bool real_dir;	   /* URL_DIR: the server said that it is one */
	struct digest digest; /* LAYERS, FILES: the image; MANIFEST */
	struct image *image;  /* LAYERS, FILES */
	struct blob *blob;    /* BLOB: a reference */
	void *bytes;	      /* MANIFEST */
	size_t len;
	struct node_ahead *ahead; /* BLOB */
	unsigned int opens;	  /* atomic */
	/* guarded by: fs.mu */
	struct list names; /* in fs.made_up or .proven; see fs/evict.c */
	uint64_t parent;   /* inode number of the directory that it was last
			      looked up in; 0: none yet */
	bool is_proven;
};

/* Read-ahead in one file. */
struct node_ahead {
	pthread_mutex_t mu;
	struct readahead ra; /* guarded by: mu */
};

#define NODE_BUCKETS 4096

struct fs {
	struct fs_config cfg;
	struct fuse_session *se;
	pthread_mutex_t mu;
	struct list buckets[NODE_BUCKETS]; /* guarded by: mu */
	unsigned int nnodes;		   /* guarded by: mu */
	struct node *root;
	/* Directories that the kernel can be told to forget, the one that was
	 * looked up longest ago first; guarded by: mu. */
	struct list made_up, proven;
	bool evicting; /* guarded by: mu */
	struct loop_task evict_task;
	struct loop_job evict_job;
	uint64_t next_dir; /* guarded by: mu */
	struct list dirs;  /* guarded by: mu; open directories */
	struct metric_series *m_ops[8];
	struct metric_series *m_hit_bytes, *m_read_bytes;
	struct metric_series *m_read_seconds;
};

enum fs_metric {
	FS_LOOKUP,
	FS_GETATTR,
	FS_OPEN,
	FS_READ,
	FS_OPENDIR,
	FS_READDIR,
	FS_XATTR,
	FS_STATFS
};

/* ---- node.c: any thread ---- */

/* The node of that identity, made if there is none; the caller owns a use.
 * Strings are copied. NULL when memory is short. The pointers may be NULL. */
struct node *node_get(struct fs *fs, enum node_type type, const char *host,
		      const char *name, const char *sub,
		      const struct digest *digest);
/* NODE_BLOB; takes over the reference *b. */
struct node *node_get_blob(struct fs *fs, struct blob **b);
/* By inode number, with a use; NULL if unknown. */
struct node *node_find(struct fs *fs, uint64_t ino);
void node_put(struct fs *fs, struct node **n);
/* The kernel is about to learn that n is in dir. */
void node_lookup_add(struct fs *fs, const struct node *dir, struct node *n);
/* mu is held; no use is counted. NULL if unknown. */
struct node *node_find_locked(struct fs *fs, uint64_t ino);
void node_forget(struct fs *fs, uint64_t ino, uint64_t n);
uint64_t blob_ino(const struct blob_key *key);
int nodes_init(struct fs *fs);
void nodes_release(struct fs *fs);
bool node_is_dir(const struct node *n);
/* Sets an image on LAYERS or FILES if it has none yet; takes a reference. */
void node_set_image(struct fs *fs, struct node *n, struct image *img);

/* ---- evict.c: any thread ---- */

void evict_init(struct fs *fs);
/* n was found in dir. mu is held. True: evict_start() is due, without mu. */
bool evict_note_locked(struct fs *fs, const struct node *dir, struct node *n);
void evict_start(struct fs *fs);

/* ---- image.c: loop thread ---- */

struct image *image_ref(struct image *img);
void image_unref(struct image **img);
typedef void image_cb(void *arg, int r, struct image *img /* borrowed */);
/* What a tag (or digest) names, with this machine's manifest out of an index.
 * An artifact that is no image is -ENOENT only if its manifest cannot be
 * parsed. */
void image_resolve(struct fs *fs, const char *host, const char *name,
		   const char *reference, image_cb *cb, void *arg);

/* ---- attr.c ---- */

void node_stat(struct fs *fs, const struct node *n, struct stat *st);
double node_attr_timeout(const struct node *n);
/* For names that may change: tags and what depends on them. */
double node_entry_timeout(const struct fs *fs, const struct node *n);
void fs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		    size_t size);
void fs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fs_op_statfs(fuse_req_t req, fuse_ino_t ino);

/* ---- op.c: a request that is answered on the loop ---- */

struct fs_op {
	struct loop_task task, cancel;
	struct fs *fs;
	fuse_req_t req;	   /* NULL once replied; loop thread */
	struct node *node; /* a use */
	char *name;
	struct fuse_file_info fi;
	void (*run)(struct fs_op *op);
	unsigned int refs; /* atomic: the request's life, and a cancel's */
	bool cancelled;	   /* guarded by: libfuse's lock of the request */
};

/* Posts run() to the loop. name may be NULL. On memory shortage replies. */
void fs_op_start(struct fs *fs, fuse_req_t req, struct node *n,
		 const char *name, const struct fuse_file_info *fi,
		 void (*run)(struct fs_op *op));
/* Exactly one of these ends the operation; each frees op. */
void fs_op_reply_err(struct fs_op *op, int r);
void fs_op_reply_entry(struct fs_op *op, struct node **n);
void fs_op_reply_opendir(struct fs_op *op, struct string_list *names);
/* -ETIMEDOUT and the like become what a file's reader understands. */
int fs_errno(int r);
void fs_reply_err(fuse_req_t req, int r);
/* n was found in dir. */
void fs_reply_entry(struct fs *fs, fuse_req_t req, const struct node *dir,
		    struct node **n);
void fs_count(struct fs *fs, enum fs_metric m);

/* ---- lookup.c, dir.c, read.c ---- */

void fs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		   struct fuse_file_info *fi);
void fs_op_releasedir(fuse_req_t req, fuse_ino_t ino,
		      struct fuse_file_info *fi);
void dirs_release(struct fs *fs);
/* Takes over the names; 0 when memory is short. */
uint64_t dir_open(struct fs *fs, struct string_list *names);
/* "00-0123456789ab" */
#define LAYER_NAME_SIZE 32
void layer_name(const struct manifest *m, uint32_t i,
		char out[LAYER_NAME_SIZE]);
void fs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		struct fuse_file_info *fi);
void fs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

#endif
