/* Directory listings. Opening a directory makes a sorted list of its names; a
 * readdir offset is a position in the list. So a handle of an earlier daemon
 * can be replaced by a new list. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/ref.h"
#include "fs/fs-private.h"

struct dir {
	struct list node; /* in fs.dirs */
	uint64_t id;
	struct string_list names; /* a trailing '/' marks a directory */
};

/* Stores the names and returns a handle for them; leaves *names empty. 0
 * without memory. */
static uint64_t dir_open(struct fs *fs, struct string_list *names)
{
	struct dir *d = calloc(1, sizeof(*d));
	uint64_t id;

	if (!d) {
		string_list_release(names);
		return 0;
	}
	d->names = *names;
	*names = (struct string_list){0};
	(void)pthread_mutex_lock(&fs->mu);
	id = d->id = ++fs->next_dir;
	list_add(&fs->dirs, &d->node);
	(void)pthread_mutex_unlock(&fs->mu);
	return id;
}

static struct dir *dir_find_locked(struct fs *fs, uint64_t id)
{
	list_for_each (n, &fs->dirs) {
		struct dir *d = list_entry(n, struct dir, node);

		if (d->id == id)
			return d;
	}
	return NULL;
}

static void dir_free(struct dir *d)
{
	string_list_release(&d->names);
	free(d);
}

void dirs_release(struct fs *fs)
{
	while (!list_empty(&fs->dirs)) {
		struct dir *d = list_first(&fs->dirs, struct dir, node);

		list_del(&d->node);
		dir_free(d);
	}
}

static int add(struct string_list *l, const char *name, bool is_dir)
{
	char s[512];

	(void)snprintf(s, sizeof(s), "%s%s", name, is_dir ? "/" : "");
	return string_list_add(l, s);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void sort_unique(struct string_list *l)
{
	size_t out = 0;

	if (l->n < 2)
		return;
	qsort(l->v, l->n, sizeof(*l->v), by_name);
	for (size_t i = 0; i < l->n; i++) {
		if (out > 0 && strcmp(l->v[out - 1], l->v[i]) == 0)
			free(l->v[i]);
		else
			l->v[out++] = l->v[i];
	}
	l->n = out;
	l->v[out] = NULL;
}

/* Adds the component of each path that follows `prefix` + '/'. A component that
 * ends its path is a directory if leaf_is_dir. */
static int add_components(struct string_list *out,
			  const struct string_list *paths, const char *prefix,
			  bool leaf_is_dir)
{
	size_t plen = strlen(prefix);
	int r = 0;

	for (size_t i = 0; i < paths->n && r == 0; i++) {
		const char *p = paths->v[i], *slash;
		char part[256];

		if (strncmp(p, prefix, plen) != 0 || (plen && p[plen] != '/'))
			continue;
		p += plen + (plen > 0);
		slash = strchr(p, '/');
		if (!*p ||
		    (slash ? (size_t)(slash - p) : strlen(p)) >= sizeof(part))
			continue;
		(void)snprintf(part, sizeof(part), "%.*s",
			       slash ? (int)(slash - p) : 255, p);
		r = add(out, part, slash || leaf_is_dir);
	}
	return r;
}

static int list_repos(struct fs *fs, const struct node *n,
		      struct string_list *out)
{
	CLEANUP(string_list_release) struct string_list paths = {0};
	CLEANUP(buf_release) struct buf b = BUF_INIT(1024);
	const char *prefix;
	int r = 0;

	if (n->type == NODE_NAME)
		r = buf_printf(&b, "%s%s%s", n->host, *n->name ? "/" : "",
			       n->name);
	prefix = b.data ? b.data : "";
	if (r == 0)
		r = store_repo_list(fs->cfg.store, prefix, &paths);
	if (r == 0)
		r = add_components(out, &paths, prefix, true);
	for (size_t i = 0;
	     r == 0 && n->type == NODE_NAME && *n->name && i < paths.n; i++)
		if (strcmp(paths.v[i], prefix) == 0)
			r = add(out, "blobs", true) |
			    add(out, "manifests", true) |
			    add(out, "tags", true);
	return r < 0 ? -ENOMEM : 0;
}

static int add_digest(void *arg, const struct digest *d, uint64_t size)
{
	char s[DIGEST_STR_SIZE];

	(void)size;
	return add(arg, digest_str(d, s), false);
}

static int list_repo_digests(struct fs *fs, const struct node *n,
			     struct string_list *out)
{
	CLEANUP(buf_release) struct buf repo = BUF_INIT(1024);
	int r = buf_printf(&repo, "%s/%s", n->host, n->name);

	if (r == 0)
		r = store_repo_each(fs->cfg.store, repo.data,
				    n->type == NODE_REPO_MANIFESTS, add_digest,
				    out);
	return r;
}

static int add_blob_info(void *arg, const struct blob_info *info)
{
	char hex[DIGEST_HEX_SIZE];

	/* The name says nothing of where it comes from. */
	if (info->key.kind != BLOB_SHA256 || !info->shared)
		return 0;
	return add(arg, digest_hex(&info->key.id, hex), false);
}

static int list_image(const struct node *n, struct string_list *out)
{
	CLEANUP(string_list_release) struct string_list titles = {0};
	const struct manifest *m = n->image->manifest;
	int r = 0;

	for (uint32_t i = 0; i < m->nentries && r == 0; i++) {
		char name[LAYER_NAME_SIZE];

		if (n->type == NODE_LAYERS) {
			layer_name(m, i, name);
			r = add(out, name, false);
		} else if (m->entries[i].title) {
			r = string_list_add(&titles, m->entries[i].title);
		}
	}
	if (r == 0 && n->type == NODE_FILES)
		r = add_components(out, &titles, n->sub, false);
	return r;
}

/* Lists a directory that needs no network. */
static int list_sync(struct fs *fs, const struct node *n,
		     struct string_list *out)
{
	int r = 0;

	switch (n->type) {
	case NODE_ROOT:
		return add(out, ".peerd", true) | add(out, "blobs", true) |
		       add(out, "registry", true) | add(out, "url", true);
	case NODE_BLOBS_TOP:
		return add(out, "sha256", true);
	case NODE_BLOBS:
		return store_each(fs->cfg.store, add_blob_info, out);
	case NODE_REGISTRY:
	case NODE_NAME:
		r = list_repos(fs, n, out);
		break;
	case NODE_REPO_BLOBS:
	case NODE_REPO_MANIFESTS:
		r = list_repo_digests(fs, n, out);
		break;
	case NODE_LAYERS:
	case NODE_FILES:
		r = list_image(n, out);
		break;
	case NODE_URL:
		return add(out, "http", true) | add(out, "https", true);
	case NODE_PEERD:
		return add(out, "status.json", false);
	case NODE_SCHEME:
	case NODE_URL_DIR:
		break; /* HTTP has no listings */
	default:
		return -ENOTDIR;
	}
	sort_unique(out);
	return r;
}

static void reply_opendir(struct fs_op *op, struct string_list *names)
{
	fuse_req_t req = fs_op_take(op);

	if (req) {
		op->fi.fh = dir_open(op->fs, names);
		(void)fuse_reply_open(req, &op->fi);
	} else {
		string_list_release(names);
	}
	fs_op_put(op);
}

static void on_tags(void *arg, int r, const struct string_list *tags,
		    bool stale)
{
	struct fs_op *op = arg;
	struct string_list names = {0};

	(void)stale;
	for (size_t i = 0; r == 0 && i < tags->n; i++)
		r = ref_tag_valid(tags->v[i]) ? add(&names, tags->v[i], true)
					      : 0;
	if (r < 0) {
		string_list_release(&names);
		fs_op_reply_err(op, r);
		return;
	}
	sort_unique(&names);
	reply_opendir(op, &names);
}

static void run_tags(struct fs_op *op)
{
	struct registry *reg = op->fs->cfg.registry;

	registry_list_tags(reg, op->node->host, op->node->name, on_tags, op);
}

static void on_tag_image(void *arg, int r, struct image *img)
{
	struct fs_op *op = arg;
	struct string_list names = {0};

	if (r == 0 && img->manifest->has_config)
		r = add(&names, "config.json", false);
	if (r == 0)
		r = add(&names, "files", true);
	if (r == 0 && img->index_len)
		r = add(&names, "index.json", false);
	if (r == 0)
		r = add(&names, "layers", true);
	if (r == 0)
		r = add(&names, "manifest.json", false);
	if (r < 0) {
		string_list_release(&names);
		fs_op_reply_err(op, r);
		return;
	}
	reply_opendir(op, &names);
}

static void run_tag(struct fs_op *op)
{
	image_resolve(op->fs, op->node->host, op->node->name, op->node->sub,
		      on_tag_image, op);
}

void fs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_find(fs, ino);
	struct string_list names = {0};
	int r;

	fs_count(fs, FS_OPENDIR);
	if (!n) {
		fs_reply_err(req, -ESTALE);
		return;
	}
	if (n->type == NODE_REPO_TAGS || n->type == NODE_TAG) {
		fs_op_start(fs, req, n, NULL, fi,
			    n->type == NODE_TAG ? run_tag : run_tags);
		return;
	}
	r = list_sync(fs, n, &names);
	if (r < 0) {
		string_list_release(&names);
		fs_reply_err(req, r);
	} else {
		fi->fh = dir_open(fs, &names);
		(void)fuse_reply_open(req, fi);
	}
	node_put(fs, &n);
}

static size_t add_entry(fuse_req_t req, char *buf, size_t room,
			const char *name, off_t next)
{
	struct stat st = {0};
	char plain[512];
	size_t len = strlen(name);
	bool is_dir = len > 1 && name[len - 1] == '/';

	(void)snprintf(plain, sizeof(plain), "%.*s",
		       (int)(is_dir ? len - 1 : len), name);
	st.st_mode = is_dir ? S_IFDIR : S_IFREG;
	st.st_ino = 1; /* lookup returns the real numbers */
	return fuse_add_direntry(req, buf, room, plain, &st, next);
}

void fs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		   struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	CLEANUP(freep) char *buf = malloc(size);
	CLEANUP(string_list_release) struct string_list again = {0};
	const struct string_list *names = &again;
	struct dir *d;
	size_t used = 0;

	fs_count(fs, FS_READDIR);
	if (!buf) {
		fs_reply_err(req, -ENOMEM);
		return;
	}
	(void)pthread_mutex_lock(&fs->mu);
	d = dir_find_locked(fs, fi->fh);
	(void)pthread_mutex_unlock(&fs->mu);
	if (d) {
		names = &d->names; /* valid until releasedir */
	} else {
		/* A handle of an earlier daemon. */
		struct node *n = node_find(fs, ino);

		if (n && n->type != NODE_TAG && n->type != NODE_REPO_TAGS)
			(void)list_sync(fs, n, &again);
		node_put(fs, &n);
	}
	for (size_t i = (size_t)off; i < names->n + 2; i++) {
		const char *name = i == 0   ? "./"
				   : i == 1 ? "../"
					    : names->v[i - 2];
		size_t len = add_entry(req, buf + used, size - used, name,
				       (off_t)i + 1);

		if (len > size - used)
			break;
		used += len;
	}
	(void)fuse_reply_buf(req, buf, used);
}

void fs_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct dir *d;

	(void)ino;
	(void)pthread_mutex_lock(&fs->mu);
	d = dir_find_locked(fs, fi->fh);
	if (d)
		list_del(&d->node);
	(void)pthread_mutex_unlock(&fs->mu);
	if (d)
		dir_free(d);
	fs_reply_err(req, 0);
}
