/* Replies to getattr, getxattr, listxattr and statfs. */
#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "fs/fs-private.h"

void fs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_find(fs, ino);
	struct stat st;

	(void)fi;
	fs_count(fs, FS_GETATTR);
	if (!n) {
		fs_reply_err(req, -ESTALE);
		return;
	}
	node_stat(fs, n, &st);
	(void)fuse_reply_attr(req, &st, node_attr_timeout(n));
	node_put(fs, &n);
}

static int xattr_value(const struct node *n, const char *name, struct buf *out)
{
	static const char *const verified[] = {
		[BLOB_PROVISIONAL] = "no",
		[BLOB_VERIFIED] = "yes",
		[BLOB_BAD] = "bad",
	};
	char s[DIGEST_STR_SIZE];

	if (n->type == NODE_MANIFEST) {
		if (strcmp(name, "user.peerd.digest") == 0)
			return buf_str(out, digest_str(&n->digest, s));
		return -ENODATA;
	}
	if (!n->blob)
		return -ENODATA;
	if (strcmp(name, "user.peerd.digest") == 0 &&
	    blob_key(n->blob)->kind == BLOB_SHA256)
		return buf_str(out, digest_str(&blob_key(n->blob)->id, s));
	if (strcmp(name, "user.peerd.cached") == 0)
		return buf_printf(
			out, "%llu",
			(unsigned long long)blob_cached_bytes(n->blob));
	if (strcmp(name, "user.peerd.verified") == 0)
		return buf_str(out, verified[blob_get_state(n->blob)]);
	if (strcmp(name, "user.peerd.sources") == 0) {
		CLEANUP(string_list_release) struct string_list l = {0};
		int r = blob_origins(n->blob, &l);

		for (size_t i = 0; i < l.n && r == 0; i++)
			r = buf_printf(out, "%s%s", i ? "\n" : "", l.v[i]);
		return r == 0 && !out->data ? buf_str(out, "") : r;
	}
	return -ENODATA;
}

static void reply_xattr(fuse_req_t req, const char *value, size_t len,
			size_t size)
{
	if (size == 0)
		(void)fuse_reply_xattr(req, len);
	else if (len > size)
		fs_reply_err(req, -ERANGE);
	else
		(void)fuse_reply_buf(req, value, len);
}

void fs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		    size_t size)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_find(fs, ino);
	CLEANUP(buf_release) struct buf out = BUF_INIT(32768);
	int r = n ? xattr_value(n, name, &out) : -ESTALE;

	fs_count(fs, FS_XATTR);
	if (r < 0)
		fs_reply_err(req, r);
	else
		reply_xattr(req, out.data, out.len, size);
	node_put(fs, &n);
}

void fs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	static const char blob[] = "user.peerd.digest\0user.peerd.cached\0"
				   "user.peerd.verified\0user.peerd.sources";
	static const char url[] = "user.peerd.cached\0user.peerd.verified\0"
				  "user.peerd.sources";
	static const char manifest[] = "user.peerd.digest";
	struct fs *fs = fs_of(req);
	struct node *n = node_find(fs, ino);

	fs_count(fs, FS_XATTR);
	if (!n)
		fs_reply_err(req, -ESTALE);
	else if (n->type == NODE_MANIFEST)
		reply_xattr(req, manifest, sizeof(manifest), size);
	else if (n->blob && blob_key(n->blob)->kind == BLOB_URL)
		reply_xattr(req, url, sizeof(url), size);
	else if (n->blob)
		reply_xattr(req, blob, sizeof(blob), size);
	else
		reply_xattr(req, NULL, 0, size);
	node_put(fs, &n);
}

void fs_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	struct store_stats st;
	struct statvfs v = {
		.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};

	(void)ino;
	fs_count(fs, FS_STATFS);
	store_stats(fs->cfg.store, &st);
	v.f_blocks = (st.max_bytes ? st.max_bytes
				   : st.cached_bytes + st.fs_free_bytes) /
		     4096;
	v.f_bfree = v.f_bavail =
		v.f_blocks - min_u64(v.f_blocks, st.cached_bytes / 4096);
	v.f_files = st.blobs;
	(void)fuse_reply_statfs(req, &v);
}
