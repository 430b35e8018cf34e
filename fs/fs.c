#include "fs/fs.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "fs/fs-private.h"

static struct metric_family m_ops = {
	.name = "peerd_fuse_operations_total",
	.help = "FUSE requests, by operation.",
	.type = METRIC_COUNTER,
	.labels = {"operation"},
};
static struct metric_family m_bytes = {
	.name = "peerd_fuse_read_bytes_total",
	.help = "Bytes that readers of the mount requested, and how many of "
		"them the store had (hit).",
	.type = METRIC_COUNTER,
	.labels = {"kind"},
};
static struct metric_family m_wait = {
	.name = "peerd_fuse_miss_seconds",
	.help = "Seconds that reads of absent bytes waited.",
	.type = METRIC_HISTOGRAM,
	.buckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
		    2.5, 5, 10, 30, 60},
};

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	/* The bytes of a digest never change, so only fs_blob_event() drops
	 * pages. With automatic invalidation the kernel would drop them
	 * whenever it reads attributes again because of st_blocks. */
	conn->want &= ~(
		unsigned int)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
			      FUSE_CAP_READDIRPLUS_AUTO |
			      FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_READ);
	if (conn->capable & FUSE_CAP_EXPLICIT_INVAL_DATA)
		conn->want |= FUSE_CAP_EXPLICIT_INVAL_DATA;
	if (conn->capable & FUSE_CAP_ASYNC_READ)
		conn->want |= FUSE_CAP_ASYNC_READ;
	if (conn->capable & FUSE_CAP_PARALLEL_DIROPS)
		conn->want |= FUSE_CAP_PARALLEL_DIROPS;
	conn->max_read = CHUNK_SIZE;
	conn->max_readahead = 16 << 20; /* the kernel lowers it */
	/* For all files together. The limit is high, so that reads that wait
	 * for a hanging registry do not use up all requests. From
	 * congestion_threshold on the kernel sends no read-ahead. */
	conn->max_background = 1024;
	conn->congestion_threshold = 768;
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	node_forget(fs_of(req), ino, nlookup);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count,
			    struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		node_forget(fs_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

const struct fuse_lowlevel_ops fs_ops = {
	.init = op_init,
	.lookup = fs_op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = fs_op_getattr,
	.open = fs_op_open,
	.read = fs_op_read,
	.release = fs_op_release,
	.opendir = fs_op_opendir,
	.readdir = fs_op_readdir,
	.releasedir = fs_op_releasedir,
	.statfs = fs_op_statfs,
	.getxattr = fs_op_getxattr,
	.listxattr = fs_op_listxattr,
};

int fs_new(const struct fs_config *cfg, struct fs **ret)
{
	static const char *const ops[] = {
		[FS_LOOKUP] = "lookup",	  [FS_GETATTR] = "getattr",
		[FS_OPEN] = "open",	  [FS_READ] = "read",
		[FS_OPENDIR] = "opendir", [FS_READDIR] = "readdir",
		[FS_XATTR] = "xattr",	  [FS_STATFS] = "statfs",
	};
	CLEANUP(freep) struct fs *fs = calloc(1, sizeof(*fs));
	int r;

	if (!fs)
		return -ENOMEM;
	fs->cfg = *cfg;
	list_init(&fs->dirs);
	list_init(&fs->invals);
	(void)pthread_mutex_init(&fs->mu, NULL);
	r = nodes_init(fs);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		fs->m_ops[i] =
			metric_get(&m_ops, (const char *const[]){ops[i]});
	fs->m_read_bytes =
		metric_get(&m_bytes, (const char *const[]){"requested"});
	fs->m_hit_bytes = metric_get(&m_bytes, (const char *const[]){"hit"});
	fs->m_read_seconds = metric_get(&m_wait, NULL);
	*ret = steal_ptr(&fs);
	return 0;
}

void fs_free(struct fs **fsp)
{
	struct fs *fs = *fsp;

	if (!fs)
		return;
	dirs_release(fs);
	nodes_release(fs);
	(void)pthread_mutex_destroy(&fs->mu);
	free(fs);
	*fsp = NULL;
}

void fs_set_session(struct fs *fs, struct fuse_session *se)
{
	fs->se = se;
}

/* How many invalidations may be under way: half of libuv's workers. */
#define INVALS 2

/* Invalidates a file's pages on a pool worker. The call waits for page locks,
 * and reads that wait for this daemon hold those; so it must not block a store
 * thread or the loop. */
struct inval {
	struct list node; /* in fs.invals, while it waits for its turn */
	struct loop_task task;
	struct loop_job job;
	struct fs *fs;
	struct blob *blob;
	uint64_t *inos;
	size_t n, cap;
};

static void inval_add(void *arg, uint64_t ino)
{
	struct inval *v = arg;

	if (v->n == v->cap) {
		size_t cap = v->cap ? v->cap * 2 : 4;
		void *more = reallocarray(v->inos, cap, sizeof(*v->inos));

		if (!more) {
			log_error("pages of wrong bytes stay with the kernel",
				  LE(-ENOMEM));
			return;
		}
		v->inos = more;
		v->cap = cap;
	}
	v->inos[v->n++] = ino;
}

static void inval_work(struct loop_job *j)
{
	struct inval *v = container_of(j, struct inval, job);

	node_each_of(v->fs, v->blob, inval_add, v);
	/* -ENOENT: the kernel has no such inode. */
	for (size_t i = 0; i < v->n; i++)
		(void)fuse_lowlevel_notify_inval_inode(v->fs->se, v->inos[i], 0,
						       0);
}

static void invals_run(struct fs *fs);

static void inval_done(struct loop_job *j)
{
	struct inval *v = container_of(j, struct inval, job);
	struct fs *fs = v->fs;

	blob_unref(&v->blob);
	free(v->inos);
	free(v);
	fs->ninvals--;
	invals_run(fs);
}

/* Each may wait for a read, which may need another worker of the pool, and may
 * be one that a slow origin keeps waiting: so a few at a time. */
static void invals_run(struct fs *fs)
{
	while (fs->ninvals < INVALS && !list_empty(&fs->invals)) {
		struct inval *v = list_first(&fs->invals, struct inval, node);

		list_del(&v->node);
		fs->ninvals++;
		loop_work(fs->cfg.loop, &v->job, inval_work, inval_done);
	}
}

static void inval_start(struct loop_task *t)
{
	struct inval *v = container_of(t, struct inval, task);

	list_add_tail(&v->fs->invals, &v->node);
	invals_run(v->fs);
}

void fs_blob_event(struct fs *fs, struct blob *b, enum blob_event ev)
{
	struct inval *v;

	/* What is damaged on disk now may have been when it was read. */
	if ((ev != BLOB_EV_MISMATCH && ev != BLOB_EV_DROPPED) || !fs->se)
		return;
	v = calloc(1, sizeof(*v));
	if (!v) {
		log_error("pages of wrong bytes stay with the kernel",
			  LE(-ENOMEM));
		return;
	}
	v->fs = fs;
	v->blob = blob_ref(b);
	v->task.run = inval_start;
	loop_post(fs->cfg.loop, &v->task);
}
