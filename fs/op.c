/* Requests that are answered on the loop, and how replies are made. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "fs/fs-private.h"

int fs_errno(int r)
{
	switch (-r) {
	case ENOENT:
	case EACCES:
	case ENOMEM:
	case EINVAL:
	case ENAMETOOLONG:
	case EINTR:
	case EISDIR:
	case ENOTDIR:
	case ESTALE:
	case ENODATA:
	case ERANGE:
		return -r;
	case ECANCELED:
		return EINTR;
	case EPERM: /* an address that the guard refuses */
		return EACCES;
	default:
		return EIO;
	}
}

void fs_reply_err(fuse_req_t req, int r)
{
	(void)fuse_reply_err(req, r == 0 ? 0 : fs_errno(r));
}

void fs_count(struct fs *fs, enum fs_metric m)
{
	metric_add(fs->m_ops[m], 1);
}

void fs_reply_entry(struct fs *fs, fuse_req_t req, const struct node *dir,
		    struct node **np)
{
	struct node *n = *np;
	struct fuse_entry_param e = {.ino = n->ino, .generation = 1};

	node_stat(fs, n, &e.attr);
	e.attr_timeout = node_attr_timeout(n);
	e.entry_timeout = node_entry_timeout(fs, n);
	/* Before the reply: the kernel may forget the node before the reply
	 * returns. */
	node_lookup_add(fs, dir, n);
	if (fuse_reply_entry(req, &e) == -ENOENT)
		node_forget(fs, n->ino, 1); /* interrupted: reply not taken */
	node_put(fs, np);
}

void fs_op_put(struct fs_op *op)
{
	if (__atomic_sub_fetch(&op->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	node_put(op->fs, &op->node);
	free(op->name);
	free(op);
}

fuse_req_t fs_op_take(struct fs_op *op)
{
	fuse_req_t req = steal_ptr(&op->req);

	if (req)
		fuse_req_interrupt_func(req, NULL, NULL);
	return req;
}

static void op_cancel(struct loop_task *t)
{
	struct fs_op *op = container_of(t, struct fs_op, cancel);
	fuse_req_t req = fs_op_take(op);

	if (req)
		(void)fuse_reply_err(req, EINTR);
	fs_op_put(op);
}

/* Called on a libfuse thread, with the request's lock held. */
static void op_interrupted(fuse_req_t req, void *data)
{
	struct fs_op *op = data;

	(void)req;
	if (op->cancelled)
		return;
	op->cancelled = true;
	(void)__atomic_add_fetch(&op->refs, 1, __ATOMIC_ACQ_REL);
	op->cancel.run = op_cancel;
	loop_post(op->fs->cfg.loop, &op->cancel);
}

static void op_run(struct loop_task *t)
{
	struct fs_op *op = container_of(t, struct fs_op, task);

	/* From here on an interrupt may answer the request. */
	fuse_req_interrupt_func(op->req, op_interrupted, op);
	op->run(op);
}

void fs_op_start(struct fs *fs, fuse_req_t req, struct node *n,
		 const char *name, const struct fuse_file_info *fi,
		 void (*run)(struct fs_op *op))
{
	struct fs_op *op = calloc(1, sizeof(*op));

	if (!op || (name && !(op->name = strdup(name)))) {
		free(op);
		node_put(fs, &n);
		fs_reply_err(req, -ENOMEM);
		return;
	}
	op->fs = fs;
	op->req = req;
	op->node = n;
	if (fi)
		op->fi = *fi;
	op->run = run;
	op->refs = 1;
	op->task.run = op_run;
	loop_post(fs->cfg.loop, &op->task);
}

void fs_op_reply_err(struct fs_op *op, int r)
{
	struct fs *fs = op->fs;
	fuse_req_t req = fs_op_take(op);

	if (req && r == -ENOENT && op->name) {
		/* A negative entry, which the kernel may keep for a while. */
		struct fuse_entry_param e = {0};

		e.entry_timeout = (double)fs->cfg.negative_ms / 1000;
		(void)fuse_reply_entry(req, &e);
	} else if (req) {
		fs_reply_err(req, r);
	}
	fs_op_put(op);
}

void fs_op_reply_entry(struct fs_op *op, struct node **n)
{
	fuse_req_t req;

	if (!*n) {
		fs_op_reply_err(op, -ENOMEM);
		return;
	}
	req = fs_op_take(op);
	if (req)
		fs_reply_entry(op->fs, req, op->node, n);
	else
		node_put(op->fs, n);
	fs_op_put(op);
}
