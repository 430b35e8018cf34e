/* Reads of files. The libfuse thread that got the request answers a hit. The
 * loop, or a pool worker of the loop, answers a miss. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "fs/fs-private.h"

/* One buffer for each libfuse thread and pool worker, made on first use. */
static _Thread_local void *read_buf;
static pthread_key_t read_buf_key;
static pthread_once_t read_buf_once = PTHREAD_ONCE_INIT;

static void make_key(void)
{
	(void)pthread_key_create(&read_buf_key, free);
}

static void *thread_buf(void)
{
	if (!read_buf) {
		(void)pthread_once(&read_buf_once, make_key);
		if (posix_memalign(&read_buf, 4096, CHUNK_SIZE) != 0)
			return NULL;
		(void)pthread_setspecific(read_buf_key, read_buf);
	}
	return read_buf;
}

struct fs_read {
	struct fetch_read rd;
	struct loop_task task, cancel;
	struct loop_job job;
	struct fs *fs;
	fuse_req_t req;
	struct node *node; /* owns a use, and so the blob */
	uint64_t start_ms;
	struct fetch_piece piece[2]; /* for the job; own their buffers */
	uint32_t npieces;
	int result; /* of the job */
	bool started, finished;
	bool given_up;	   /* the read was interrupted; loop thread */
	bool cancelled;	   /* guarded by: libfuse's lock of the request */
	unsigned int refs; /* atomic */
};

static void read_put(struct fs_read *r)
{
	if (__atomic_sub_fetch(&r->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	node_put(r->fs, &r->node);
	free(r);
}

/* Makes the one reply, on the loop or on the worker that runs the job. */
static void read_reply(struct fs_read *r, int err, const struct iovec *iov,
		       int n)
{
	fuse_req_interrupt_func(r->req, NULL, NULL);
	if (err < 0)
		fs_reply_err(r->req, err == -ENODATA ? -EIO : err);
	else
		(void)fuse_reply_iov(r->req, iov, n);
}

static void read_cancel(struct loop_task *t)
{
	struct fs_read *r = container_of(t, struct fs_read, cancel);

	r->given_up = true;
	if (r->started && !r->finished)
		fetch_read_cancel(&r->rd);
	read_put(r);
}

static void read_interrupted(fuse_req_t req, void *data)
{
	struct fs_read *r = data;

	(void)req;
	if (r->cancelled)
		return;
	r->cancelled = true;
	(void)__atomic_add_fetch(&r->refs, 1, __ATOMIC_ACQ_REL);
	r->cancel.run = read_cancel;
	loop_post(r->fs->cfg.loop, &r->cancel);
}

/* Some of the pieces are in the store by now: a pool worker reads them. The
 * other pieces are sent from memory, because the store may get them much
 * later. */
static void from_store(struct loop_job *j)
{
	struct fs_read *r = container_of(j, struct fs_read, job);
	uint8_t *buf = thread_buf();
	uint64_t off = r->rd.off;
	struct iovec iov[2];

	r->result = buf ? 0 : -ENOMEM;
	for (uint32_t i = 0; r->result == 0 && i < r->npieces; i++) {
		const struct fetch_piece *p = &r->piece[i];

		iov[i].iov_base = (void *)(uintptr_t)p->mem;
		iov[i].iov_len = p->len;
		if (!p->mem) {
			iov[i].iov_base = buf;
			r->result = store_read(r->fs->cfg.store, r->node->blob,
					       off, buf, p->len);
			buf += p->len;
		}
		off += p->len;
	}
	if (r->result == 0)
		read_reply(r, 0, iov, (int)r->npieces);
}

static void from_store_done(struct loop_job *j)
{
	struct fs_read *r = container_of(j, struct fs_read, job);

	for (uint32_t i = 0; i < r->npieces; i++)
		chunk_buf_unref(&r->piece[i].buf);
	if (r->result < 0 && r->given_up)
		r->result = -ECANCELED;
	if (r->result == -ENODATA || r->result == -EAGAIN) {
		/* Evicted meanwhile, or not verified yet: the read starts
		 * again, with the same deadline. */
		r->finished = false;
		fetch_read_start(r->fs->cfg.fetch, &r->rd);
		return;
	}
	if (r->result < 0)
		read_reply(r, r->result, NULL, 0);
	read_put(r);
}

static void read_done(struct fetch_read *rd, int err)
{
	struct fs_read *r = container_of(rd, struct fs_read, rd);
	struct iovec iov[2] = {0};
	bool in_memory = true;

	r->finished = true;
	for (uint32_t i = 0; i < rd->npieces; i++) {
		iov[i].iov_base = (void *)(uintptr_t)rd->piece[i].mem;
		iov[i].iov_len = rd->piece[i].len;
		in_memory = in_memory && rd->piece[i].mem;
	}
	if (err == 0 && !in_memory) {
		memcpy(r->piece, rd->piece, sizeof(r->piece));
		r->npieces = rd->npieces;
		for (uint32_t i = 0; i < r->npieces; i++)
			if (r->piece[i].buf)
				(void)chunk_buf_ref(r->piece[i].buf);
		loop_work(r->fs->cfg.loop, &r->job, from_store,
			  from_store_done);
		return;
	}
	metric_observe(r->fs->m_read_seconds,
		       (double)(now_ms() - r->start_ms) / 1000);
	read_reply(r, err, iov, (int)rd->npieces);
	read_put(r);
}

static void read_start(struct loop_task *t)
{
	struct fs_read *r = container_of(t, struct fs_read, task);

	r->started = true;
	fetch_read_start(r->fs->cfg.fetch, &r->rd);
	fuse_req_interrupt_func(r->req, read_interrupted, r);
}

static void guess_ahead(struct fs *fs, struct node *n, uint64_t off,
			size_t size, bool waits)
{
	struct readahead_want want;

	if (!fs->cfg.max_window || blob_missing(n->blob) == 0)
		return;
	(void)pthread_mutex_lock(&n->ahead->mu);
	/* Posted with the lock held: another reader that takes these chunks as
	 * requested cannot reach the loop before the request does. */
	if (readahead_note(&n->ahead->ra, off, size, blob_size(n->blob),
			   fs->cfg.max_window, waits, &want))
		fetch_prefetch_post(fs->cfg.fetch, n->blob, want.off, want.len,
				    want.steady);
	(void)pthread_mutex_unlock(&n->ahead->mu);
}

static void read_blob(struct fs *fs, fuse_req_t req, struct node *n, size_t len,
		      uint64_t off)
{
	void *buf = thread_buf();
	struct fs_read *r;
	int err = -ENOMEM;

	if (buf)
		err = store_read(fs->cfg.store, n->blob, off, buf, len);
	guess_ahead(fs, n, off, len, err < 0);
	metric_add(fs->m_read_bytes, (double)len);
	if (err != -ENODATA && err != -EAGAIN) {
		if (err < 0) {
			fs_reply_err(req, err);
		} else {
			(void)fuse_reply_buf(req, buf, len);
			metric_add(fs->m_hit_bytes, (double)len);
		}
		node_put(fs, &n);
		return;
	}
	r = calloc(1, sizeof(*r));
	if (!r) {
		fs_reply_err(req, -ENOMEM);
		node_put(fs, &n);
		return;
	}
	r->fs = fs;
	r->req = req;
	r->node = n;
	r->refs = 1;
	r->start_ms = now_ms();
	r->rd.blob = n->blob;
	r->rd.off = off;
	r->rd.len = (uint32_t)len;
	r->rd.done = read_done;
	r->task.run = read_start;
	loop_post(fs->cfg.loop, &r->task);
}

/* .peerd/status.json, made anew for each read. */
static void run_status(struct fs_op *op)
{
	struct fs *fs = op->fs;
	CLEANUP(buf_release) struct buf out = BUF_INIT(1 << 20);
	fuse_req_t req = fs_op_take(op);
	size_t off = (size_t)op->fi.fh, size = op->fi.lock_owner;
	int r = fs->cfg.status(fs->cfg.status_arg, &out);

	if (r < 0)
		fs_reply_err(req, r);
	else if (off >= out.len)
		(void)fuse_reply_buf(req, NULL, 0);
	else
		(void)fuse_reply_buf(req, out.data + off,
				     min_u64(size, out.len - off));
	fs_op_put(op);
}

static void read_status(struct fs *fs, fuse_req_t req, struct node *n,
			size_t size, off_t off)
{
	/* The operation's file info carries offset and size to the loop. */
	struct fuse_file_info range = {.fh = (uint64_t)off, .lock_owner = size};

	fs_op_start(fs, req, n, NULL, &range, run_status);
}

void fs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_find(fs, ino);
	uint64_t at = (uint64_t)off;

	(void)fi;
	fs_count(fs, FS_READ);
	if (!n) {
		fs_reply_err(req, -ESTALE);
		return;
	}
	switch (n->type) {
	case NODE_BLOB:
		if (at >= blob_size(n->blob)) {
			(void)fuse_reply_buf(req, NULL, 0);
			break;
		}
		size = min_u64(size, blob_size(n->blob) - at);
		BUG_ON(size > CHUNK_SIZE); /* max_read is CHUNK_SIZE */
		read_blob(fs, req, n, size, at);
		return;
	case NODE_MANIFEST:
		if (at >= n->len)
			(void)fuse_reply_buf(req, NULL, 0);
		else
			(void)fuse_reply_buf(req, (char *)n->bytes + at,
					     min_u64(size, n->len - at));
		break;
	case NODE_STATUS:
		read_status(fs, req, n, size, off);
		return;
	default:
		fs_reply_err(req, -EISDIR);
	}
	node_put(fs, &n);
}

void fs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_find(fs, ino);
	int r = 0;

	fs_count(fs, FS_OPEN);
	if (!n)
		r = -ESTALE;
	else if ((fi->flags & O_ACCMODE) != O_RDONLY)
		r = -EACCES;
	else if (node_is_dir(n))
		r = -EISDIR;
	else if (n->blob && blob_get_state(n->blob) == BLOB_BAD)
		r = -EIO;
	if (r < 0) {
		fs_reply_err(req, r);
		node_put(fs, &n);
		return;
	}
	if (n->type == NODE_STATUS)
		fi->direct_io = 1;
	else
		fi->keep_cache = 1;
	fi->noflush = 1;
	(void)__atomic_add_fetch(&n->opens, 1, __ATOMIC_RELAXED);
	if (fuse_reply_open(req, fi) == -ENOENT)
		(void)__atomic_sub_fetch(&n->opens, 1, __ATOMIC_RELAXED);
	node_put(fs, &n);
}

struct forget_prefetch {
	struct loop_task task;
	struct fs *fs;
	struct node *node;
};

static void forget_prefetch(struct loop_task *t)
{
	struct forget_prefetch *p =
		container_of(t, struct forget_prefetch, task);

	if (__atomic_load_n(&p->node->opens, __ATOMIC_RELAXED) == 0)
		fetch_prefetch_cancel(p->fs->cfg.fetch, p->node->blob);
	node_put(p->fs, &p->node);
	free(p);
}

void fs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_find(fs, ino);
	struct forget_prefetch *p;

	(void)fi;
	fs_reply_err(req, 0);
	/* opens is 0 for a file that an earlier daemon opened. */
	if (!n || __atomic_load_n(&n->opens, __ATOMIC_RELAXED) == 0 ||
	    __atomic_sub_fetch(&n->opens, 1, __ATOMIC_RELAXED) > 0 ||
	    !n->blob || blob_missing(n->blob) == 0 ||
	    !(p = calloc(1, sizeof(*p)))) {
		node_put(fs, &n);
		return;
	}
	/* No reader is left: drops prefetches that have not begun. */
	(void)pthread_mutex_lock(&n->ahead->mu);
	memset(&n->ahead->ra, 0, sizeof(n->ahead->ra));
	(void)pthread_mutex_unlock(&n->ahead->mu);
	p->fs = fs;
	p->node = n;
	p->task.run = forget_prefetch;
	loop_post(fs->cfg.loop, &p->task);
}
