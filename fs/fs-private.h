/* Shared by the files of fs/, which call each other in one direction: image.c,
 * node.c, op.c; then attr.c, dir.c, lookup.c and read.c; then fs.c. */
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

/* An image: a manifest with layers, and the index that led to it, if any. */
struct image {
	unsigned int refs;    /* atomic */
	struct digest top;    /* of the manifest or index that the tag names */
	struct digest digest; /* of the manifest with layers */
	struct manifest *manifest;
	/* The bytes of manifest and index. */
	void *bytes, *index_bytes;
	size_t len, index_len; /* index_len 0: no index */
};

/* One inode. Its identity (type, host, name, sub, digest) never changes. */
struct node {
	struct list hash;
	uint64_t ino;
	enum node_type type;
	uint64_t nlookup;  /* guarded by: fs.mu; the kernel's lookup count */
	unsigned int uses; /* guarded by: fs.mu; references of this daemon */
	char *host;	   /* registry host, or a URL's scheme */
	char *name;	   /* repository (or a prefix of it), or host + path */
	char *sub;	   /* tag, or a prefix of a title */
	bool real_dir;	   /* URL_DIR: the server says that it is a directory */
	struct digest digest; /* LAYERS, FILES: the image; MANIFEST */
	struct image *image;  /* LAYERS, FILES */
	struct blob *blob;    /* BLOB: owns a reference */
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
	uint64_t next_dir;    /* guarded by: mu */
	struct list dirs;     /* guarded by: mu; open directories */
	struct list invals;   /* struct inval; loop thread */
	unsigned int ninvals; /* under way */
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

/* ---- image.c: loop thread; any thread for layer_name() and references ---- */

struct image *image_ref(struct image *img);
void image_unref(struct image **img);
/* img is borrowed; NULL unless r is 0. */
typedef void image_ready_cb(void *arg, int r, struct image *img);
/* Resolves a tag or digest to an image; of an index it takes the manifest for
 * this machine. -ENOENT: upstream does not have it, or the index has no
 * manifest for this machine. -EBADMSG: the manifest cannot be parsed. */
void image_resolve(struct fs *fs, const char *host, const char *name,
		   const char *reference, image_ready_cb *cb, void *arg);
/* The file name of layer i: "00-0123456789ab". */
#define LAYER_NAME_SIZE 32
void layer_name(const struct manifest *m, uint32_t i,
		char out[LAYER_NAME_SIZE]);

/* ---- node.c: any thread ---- */

/* Returns the node of this identity and makes it if there is none. The caller
 * owns a use (node_put()). Copies the strings; the pointers may be NULL. NULL
 * without memory. */
struct node *node_get(struct fs *fs, enum node_type type, const char *host,
		      const char *name, const char *sub,
		      const struct digest *digest);
/* The same for NODE_BLOB; owns the reference *b and sets it to NULL. place: the
 * place that the reader's name leads to, as an origin of blob_key_claim(), or
 * NULL. Names of the same place share a node, and with it the kernel's pages.
 * Names of other places do not: the kernel may have filled pages before the
 * blob was verified. */
struct node *node_get_blob(struct fs *fs, struct blob **b, const char *place);
/* Finds a node by inode number; the caller owns a use. NULL if unknown. */
struct node *node_find(struct fs *fs, uint64_t ino);
void node_put(struct fs *fs, struct node **n);
/* The kernel is about to learn that n is in dir. */
void node_lookup_add(struct fs *fs, const struct node *dir, struct node *n);
/* mu is held; no use is counted. NULL if unknown. */
struct node *node_find_locked(struct fs *fs, uint64_t ino);
void node_forget(struct fs *fs, uint64_t ino, uint64_t n);
/* Calls each(arg, ino) for every node of that blob, with fs.mu held. */
void node_each_of(struct fs *fs, const struct blob *b,
		  void (*each)(void *arg, uint64_t ino), void *arg);
int nodes_init(struct fs *fs);
void nodes_release(struct fs *fs);
bool node_is_dir(const struct node *n);
/* Sets the image of a LAYERS or FILES node that has none; takes a reference of
 * its own. */
void node_set_image(struct fs *fs, struct node *n, struct image *img);
void node_stat(struct fs *fs, const struct node *n, struct stat *st);
double node_attr_timeout(const struct node *n);
/* Seconds that the kernel may keep the node's name: tag_fresh_ms for a name
 * that may change (a tag and what depends on it), else a day. */
double node_entry_timeout(const struct fs *fs, const struct node *n);

/* ---- evict.c: any thread ---- */

void evict_init(struct fs *fs);
/* n was found in dir. mu is held. True: evict_start() is due, without mu. */
bool evict_note_locked(struct fs *fs, const struct node *dir, struct node *n);
void evict_start(struct fs *fs);

/* ---- op.c: a request that is answered on the loop ---- */

struct fs_op {
	struct loop_task task, cancel;
	struct fs *fs;
	fuse_req_t req;	   /* NULL once replied; loop thread */
	struct node *node; /* owns a use */
	char *name;
	struct fuse_file_info fi;
	void (*run)(struct fs_op *op);
	unsigned int refs; /* atomic: one for the request, one for a cancel */
	bool cancelled;	   /* guarded by: libfuse's lock of the request */
};

/* Calls run() on the loop thread. Copies name, which may be NULL; owns the use
 * of n. Without memory it replies -ENOMEM instead. */
void fs_op_start(struct fs *fs, fuse_req_t req, struct node *n,
		 const char *name, const struct fuse_file_info *fi,
		 void (*run)(struct fs_op *op));
/* Each of these replies and frees op. Exactly one of them must be called. */
void fs_op_reply_err(struct fs_op *op, int r);
void fs_op_reply_entry(struct fs_op *op, struct node **n);
/* For another kind of reply. fs_op_take() takes the request, so that an
 * interrupt no longer answers it; NULL: an interrupt has answered it.
 * fs_op_put() ends the operation in both cases. */
fuse_req_t fs_op_take(struct fs_op *op);
void fs_op_put(struct fs_op *op);
/* Maps r to an errno that readers of files know: EIO for -ETIMEDOUT and the
 * like. */
int fs_errno(int r);
void fs_reply_err(fuse_req_t req, int r);
/* n was found in dir. */
void fs_reply_entry(struct fs *fs, fuse_req_t req, const struct node *dir,
		    struct node **n);
void fs_count(struct fs *fs, enum fs_metric m);

/* ---- attr.c ---- */

void fs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		    size_t size);
void fs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fs_op_statfs(fuse_req_t req, fuse_ino_t ino);

/* ---- lookup.c, dir.c, read.c ---- */

void fs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		   struct fuse_file_info *fi);
void fs_op_releasedir(fuse_req_t req, fuse_ino_t ino,
		      struct fuse_file_info *fi);
void dirs_release(struct fs *fs);
void fs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		struct fuse_file_info *fi);
void fs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

#endif
