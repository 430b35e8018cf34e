/* Lookup: finds the node for a name in a directory. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/ref.h"
#include "fs/fs-private.h"

#define MAX_NAME_PART 255

/* Refuses empty names, control bytes, and encoded slashes or NULs, because
 * upstream could read such a name differently than it looks here. */
static bool name_ok(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > MAX_NAME_PART || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return false;
	for (const char *p = name; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f || *p == '\\')
			return false;
		if (*p == '%' && (strncasecmp(p, "%2f", 3) == 0 ||
				  strncasecmp(p, "%00", 3) == 0))
			return false;
	}
	return true;
}

static char *join(const char *a, const char *b)
{
	CLEANUP(buf_release) struct buf s = BUF_INIT(16384);

	if (buf_printf(&s, "%s%s%s", a ? a : "", a && *a ? "/" : "", b) < 0)
		return NULL;
	return buf_steal(&s);
}

/* The name leads to "SCHEME://REST". */
static void reply_blob(struct fs_op *op, int r, struct blob *b,
		       const char *scheme, const char *rest)
{
	CLEANUP(buf_release) struct buf place = BUF_INIT(65536);
	struct node *n;

	if (r == 0)
		r = buf_printf(&place, "%s://%s", scheme, rest);
	if (r < 0) {
		blob_unref(&b);
		fs_op_reply_err(op, r);
		return;
	}
	n = node_get_blob(op->fs, &b, place.data);
	fs_op_reply_entry(op, &n);
}

/* Of a repository. */
static void on_blob(void *arg, int r, struct blob *b)
{
	struct fs_op *op = arg;

	reply_blob(op, r, b, "registry", op->node->host);
}

/* ---- blobs/sha256/<hex> ---- */

static void lookup_known_blob(struct fs *fs, fuse_req_t req,
			      const struct node *dir, const char *name)
{
	struct blob_key key = {.kind = BLOB_SHA256};
	struct blob *b = NULL;
	struct node *n;
	int r = digest_parse_hex(name, &key.id);

	if (r == 0)
		r = store_get(fs->cfg.store, &key, &b);
	if (r < 0) {
		fs_reply_err(req, r == -EINVAL ? -ENOENT : r);
		return;
	}
	n = node_get_blob(fs, &b, NULL);
	if (n)
		fs_reply_entry(fs, req, dir, &n);
	else
		fs_reply_err(req, -ENOMEM);
}

/* ---- registry/… ---- */

static void run_repo_blob(struct fs_op *op)
{
	struct registry *reg = op->fs->cfg.registry;
	struct digest d;

	if (digest_parse(op->name, &d) < 0) {
		fs_op_reply_err(op, -ENOENT);
		return;
	}
	registry_get_blob(reg, op->node->host, op->node->name, &d, on_blob, op);
}

static void on_manifest(void *arg, int r, const struct manifest_result *res)
{
	struct fs_op *op = arg;
	struct node *n;
	void *copy;

	if (r < 0) {
		fs_op_reply_err(op, r);
		return;
	}
	copy = malloc(res->len ? res->len : 1);
	n = copy ? node_get(op->fs, NODE_MANIFEST, NULL, NULL, NULL,
			    &res->digest)
		 : NULL;
	if (n) {
		memcpy(copy, res->bytes, res->len);
		(void)pthread_mutex_lock(&op->fs->mu);
		if (!n->bytes) {
			n->bytes = steal_ptr(&copy);
			n->len = res->len;
		}
		(void)pthread_mutex_unlock(&op->fs->mu);
	}
	free(copy);
	fs_op_reply_entry(op, &n);
}

static void run_manifest(struct fs_op *op)
{
	struct registry *reg = op->fs->cfg.registry;
	struct digest d;

	if (digest_parse(op->name, &d) < 0 && !ref_tag_valid(op->name)) {
		fs_op_reply_err(op, -ENOENT);
		return;
	}
	registry_get_manifest(reg, op->node->host, op->node->name, op->name,
			      on_manifest, op);
}

static void on_tag(void *arg, int r, struct image *img)
{
	struct fs_op *op = arg;
	struct node *n;

	(void)img;
	if (r < 0) {
		fs_op_reply_err(op, r);
		return;
	}
	n = node_get(op->fs, NODE_TAG, op->node->host, op->node->name, op->name,
		     NULL);
	fs_op_reply_entry(op, &n);
}

static void run_tag(struct fs_op *op)
{
	if (!ref_tag_valid(op->name)) {
		fs_op_reply_err(op, -ENOENT);
		return;
	}
	image_resolve(op->fs, op->node->host, op->node->name, op->name, on_tag,
		      op);
}

/* A file of bytes that the image already has in memory. */
static struct node *bytes_node(struct fs *fs, const struct digest *d,
			       const void *bytes, size_t len)
{
	struct manifest_result res = {.digest = *d, .bytes = bytes, .len = len};
	struct node *n = node_get(fs, NODE_MANIFEST, NULL, NULL, NULL, d);
	void *copy = n && !n->bytes ? malloc(len ? len : 1) : NULL;

	if (n && !n->bytes && copy) {
		memcpy(copy, res.bytes, len);
		(void)pthread_mutex_lock(&fs->mu);
		if (!n->bytes) {
			n->bytes = steal_ptr(&copy);
			n->len = len;
		}
		(void)pthread_mutex_unlock(&fs->mu);
	}
	free(copy);
	if (n && !n->bytes)
		node_put(fs, &n);
	return n;
}

static void on_tag_child(void *arg, int r, struct image *img)
{
	struct fs_op *op = arg;
	struct fs *fs = op->fs;
	const char *host = op->node->host, *name = op->node->name;
	struct registry *reg = fs->cfg.registry;
	struct node *n = NULL;

	if (r < 0) {
		fs_op_reply_err(op, r);
		return;
	}
	if (strcmp(op->name, "manifest.json") == 0) {
		n = bytes_node(fs, &img->digest, img->bytes, img->len);
	} else if (strcmp(op->name, "index.json") == 0 && img->index_len) {
		n = bytes_node(fs, &img->top, img->index_bytes, img->index_len);
	} else if (strcmp(op->name, "config.json") == 0 &&
		   img->manifest->has_config) {
		registry_get_blob(reg, host, name,
				  &img->manifest->config.digest, on_blob, op);
		return;
	} else if (strcmp(op->name, "layers") == 0 ||
		   strcmp(op->name, "files") == 0) {
		n = node_get(fs, *op->name == 'l' ? NODE_LAYERS : NODE_FILES,
			     host, name, "", &img->digest);
		if (n)
			node_set_image(fs, n, img);
	} else {
		fs_op_reply_err(op, -ENOENT);
		return;
	}
	fs_op_reply_entry(op, &n);
}

static void run_tag_child(struct fs_op *op)
{
	image_resolve(op->fs, op->node->host, op->node->name, op->node->sub,
		      on_tag_child, op);
}

static void run_layer(struct fs_op *op)
{
	struct registry *reg = op->fs->cfg.registry;
	const struct manifest *m = op->node->image->manifest;
	char name[LAYER_NAME_SIZE];

	for (uint32_t i = 0; i < m->nentries; i++) {
		layer_name(m, i, name);
		if (strcmp(name, op->name) == 0) {
			registry_get_blob(reg, op->node->host, op->node->name,
					  &m->entries[i].digest, on_blob, op);
			return;
		}
	}
	fs_op_reply_err(op, -ENOENT);
}

static void run_title(struct fs_op *op)
{
	struct registry *reg = op->fs->cfg.registry;
	const struct manifest *m = op->node->image->manifest;
	CLEANUP(freep) char *path = join(op->node->sub, op->name);
	size_t len = path ? strlen(path) : 0;

	if (!path) {
		fs_op_reply_err(op, -ENOMEM);
		return;
	}
	for (uint32_t i = 0; i < m->nentries; i++) {
		const char *title = m->entries[i].title;
		struct node *n;

		if (!title || strncmp(title, path, len) != 0)
			continue;
		if (title[len] == '\0') {
			registry_get_blob(reg, op->node->host, op->node->name,
					  &m->entries[i].digest, on_blob, op);
			return;
		}
		if (title[len] != '/')
			continue;
		n = node_get(op->fs, NODE_FILES, op->node->host, op->node->name,
			     path, &op->node->digest);
		if (n)
			node_set_image(op->fs, n, op->node->image);
		fs_op_reply_entry(op, &n);
		return;
	}
	fs_op_reply_err(op, -ENOENT);
}

/* registry/<host> and the directories below it. */
static struct node *lookup_name(struct fs *fs, const struct node *dir,
				const char *name)
{
	CLEANUP(freep) char *path = NULL;

	if (dir->type == NODE_REGISTRY) {
		if (!ref_host_valid(name))
			return NULL;
		return node_get(fs, NODE_NAME, name, "", NULL, NULL);
	}
	if (*dir->name) {
		if (strcmp(name, "blobs") == 0)
			return node_get(fs, NODE_REPO_BLOBS, dir->host,
					dir->name, NULL, NULL);
		if (strcmp(name, "manifests") == 0)
			return node_get(fs, NODE_REPO_MANIFESTS, dir->host,
					dir->name, NULL, NULL);
		if (strcmp(name, "tags") == 0)
			return node_get(fs, NODE_REPO_TAGS, dir->host,
					dir->name, NULL, NULL);
	}
	path = join(dir->name, name);
	if (!path || !ref_component_valid(name) || !ref_name_valid(path))
		return NULL;
	return node_get(fs, NODE_NAME, dir->host, path, NULL, NULL);
}

/* ---- url/… ---- */

struct below_job {
	struct loop_job job;
	struct fs_op *op;
	int r; /* why upstream could not be asked */
	bool known;
};

/* Sets known if a file below this name was read before. */
static void below_work(struct loop_job *lj)
{
	struct below_job *j = container_of(lj, struct below_job, job);
	CLEANUP(string_list_release) struct string_list l = {0};
	CLEANUP(buf_release) struct buf prefix = BUF_INIT(8192);
	const struct fs_op *op = j->op;

	if (buf_printf(&prefix, "url:%s://%s/%s/", op->node->host,
		       op->node->name, op->name) == 0 &&
	    store_kv_list(op->fs->cfg.store, prefix.data, &l) == 0)
		j->known = l.n > 0;
}

static void below_done(struct loop_job *lj)
{
	struct below_job *j = container_of(lj, struct below_job, job);
	struct fs_op *op = j->op;
	CLEANUP(freep) char *path = join(op->node->name, op->name);
	struct node *n;

	if (j->known && path) {
		n = node_get(op->fs, NODE_URL_DIR, op->node->host, path, NULL,
			     NULL);
		fs_op_reply_entry(op, &n);
	} else {
		fs_op_reply_err(op, j->r);
	}
	free(j);
}

/* Upstream does not answer: decides by the files that were read before whether
 * the name is a directory. */
static void look_below(struct fs_op *op, int r)
{
	struct below_job *j = calloc(1, sizeof(*j));

	if (!j) {
		fs_op_reply_err(op, r);
		return;
	}
	j->op = op;
	j->r = r;
	loop_work(op->fs->cfg.loop, &j->job, below_work, below_done);
}

static void on_url(void *arg, int r, struct blob *b)
{
	struct fs_op *op = arg;
	CLEANUP(freep) char *path = NULL;
	struct node *n;

	/* HTTP has no directories: which part of a path is a file is known only
	 * once the server has a file of that name. A name that is not a file
	 * may still have files below it. The exception: the server has said
	 * that the parent is a directory, and does not know this name. */
	if (r == -EHOSTUNREACH || r == -ETIMEDOUT) {
		look_below(op, r);
		return;
	}
	if (r == 0 ||
	    (r != -EISDIR && r != -EOPNOTSUPP && r != -EACCES &&
	     r != -ENOENT) ||
	    (r == -ENOENT && op->node->real_dir)) {
		path = join(op->node->name, op->name);
		reply_blob(op, path ? r : -ENOMEM, b, op->node->host, path);
		return;
	}
	path = join(op->node->name, op->name);
	n = path ? node_get(op->fs, NODE_URL_DIR, op->node->host, path, NULL,
			    NULL)
		 : NULL;
	if (n && r == -EISDIR) {
		(void)pthread_mutex_lock(&op->fs->mu);
		n->real_dir = true;
		(void)pthread_mutex_unlock(&op->fs->mu);
	}
	fs_op_reply_entry(op, &n);
}

static void run_url(struct fs_op *op)
{
	struct registry *reg = op->fs->cfg.registry;
	CLEANUP(buf_release) struct buf url = BUF_INIT(8192);

	/* Encodes bytes that have a meaning in a URL, but not '%', so that
	 * encoded bytes stay as they are. */
	(void)buf_printf(&url, "%s://%s/", op->node->host, op->node->name);
	for (const char *p = op->name; *p; p++) {
		int r;

		if ((unsigned char)*p <= 0x20 || *p == 0x7f || *p == '?' ||
		    *p == '#' || *p == '"' || *p == '<' || *p == '>' ||
		    (unsigned char)*p >= 0x80)
			r = buf_printf(&url, "%%%02X", (unsigned char)*p);
		else
			r = buf_add(&url, p, 1);
		if (r < 0) {
			fs_op_reply_err(op, -ENAMETOOLONG);
			return;
		}
	}
	registry_get_url(reg, url.data, NULL, on_url, op);
}

/* ---- All directories ---- */

static void reply_static(struct fs *fs, fuse_req_t req, const struct node *dir,
			 const char *name, const char *const names[],
			 const enum node_type types[], const char *arg)
{
	for (int i = 0; names[i]; i++) {
		struct node *n;

		if (strcmp(names[i], name) != 0)
			continue;
		n = node_get(fs, types[i], arg ? name : NULL, arg, NULL, NULL);
		if (n)
			fs_reply_entry(fs, req, dir, &n);
		else
			fs_reply_err(req, -ENOMEM);
		return;
	}
	fs_reply_err(req, -ENOENT);
}

static void lookup_sync(struct fs *fs, fuse_req_t req, struct node *dir,
			const char *name)
{
	struct node *n;

	switch (dir->type) {
	case NODE_ROOT:
		reply_static(fs, req, dir, name,
			     (const char *const[]){"blobs", "registry", "url",
						   ".peerd", NULL},
			     (const enum node_type[]){NODE_BLOBS_TOP,
						      NODE_REGISTRY, NODE_URL,
						      NODE_PEERD},
			     NULL);
		break;
	case NODE_BLOBS_TOP:
		reply_static(fs, req, dir, name,
			     (const char *const[]){"sha256", NULL},
			     (const enum node_type[]){NODE_BLOBS}, NULL);
		break;
	case NODE_PEERD:
		reply_static(fs, req, dir, name,
			     (const char *const[]){"status.json", NULL},
			     (const enum node_type[]){NODE_STATUS}, NULL);
		break;
	case NODE_URL:
		reply_static(fs, req, dir, name,
			     (const char *const[]){"http", "https", NULL},
			     (const enum node_type[]){NODE_SCHEME, NODE_SCHEME},
			     "");
		break;
	case NODE_BLOBS:
		lookup_known_blob(fs, req, dir, name);
		break;
	case NODE_REGISTRY:
	case NODE_NAME:
		n = lookup_name(fs, dir, name);
		if (n)
			fs_reply_entry(fs, req, dir, &n);
		else
			fs_reply_err(req, -ENOENT);
		break;
	case NODE_SCHEME:
		n = ref_host_valid(name) ? node_get(fs, NODE_URL_DIR, dir->host,
						    name, NULL, NULL)
					 : NULL;
		if (n)
			fs_reply_entry(fs, req, dir, &n);
		else
			fs_reply_err(req, -ENOENT);
		break;
	default:
		fs_reply_err(req, -ENOTDIR);
	}
}

void fs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	static void (*const async[])(struct fs_op *) = {
		[NODE_REPO_BLOBS] = run_repo_blob,
		[NODE_REPO_MANIFESTS] = run_manifest,
		[NODE_REPO_TAGS] = run_tag,
		[NODE_TAG] = run_tag_child,
		[NODE_LAYERS] = run_layer,
		[NODE_FILES] = run_title,
		[NODE_URL_DIR] = run_url,
		[NODE_MANIFEST] = NULL,
	};
	struct fs *fs = fs_of(req);
	struct node *dir = node_find(fs, parent);

	fs_count(fs, FS_LOOKUP);
	if (!dir) {
		fs_reply_err(req, -ESTALE);
	} else if (!name_ok(name)) {
		fs_reply_err(req, strlen(name) > MAX_NAME_PART ? -ENAMETOOLONG
							       : -ENOENT);
	} else if (async[dir->type]) {
		fs_op_start(fs, req, dir, name, NULL, async[dir->type]);
		return; /* the operation owns dir */
	} else {
		lookup_sync(fs, req, dir, name);
	}
	node_put(fs, &dir);
}
