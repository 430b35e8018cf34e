/* The bound of the inode table.
 *
 * The kernel keeps a name for as long as it has memory, and this process keeps
 * a node for each name that the kernel keeps. Directories are made up by
 * looking them up, without a question to anybody, so any user can make as many
 * as he likes. When there are too many nodes, the kernel is told to forget
 * directories, with all below them that nobody uses; its FORGETs free the
 * nodes. A directory in use stays, and works.
 *
 * Directories that never led to a file go first: to forget a file costs the
 * kernel its pages. */
#include <errno.h>
#include <string.h>

#include "fs/fs-private.h"

/* 16 MB of nodes. A host with 500 images of 10 layers needs half of them. */
#define NODES_MAX  32768U
#define NODES_KEEP (NODES_MAX / 8 * 7)

/* A directory that is found in dir without waiting for anything. The kernel
 * locks dir to forget it, and whoever looks up a name in dir holds that lock
 * until he is answered. */
static bool is_evictable(const struct node *dir)
{
	return dir->type == NODE_BLOBS_TOP || dir->type == NODE_REGISTRY ||
	       dir->type == NODE_NAME || dir->type == NODE_SCHEME;
}

/* It is found only if somebody has it: the network, or the store. */
static bool is_proof(const struct node *dir)
{
	switch (dir->type) {
	case NODE_BLOBS:
	case NODE_REPO_BLOBS:
	case NODE_REPO_MANIFESTS:
	case NODE_REPO_TAGS:
	case NODE_TAG:
	case NODE_LAYERS:
	case NODE_FILES:
	case NODE_URL_DIR:
		return true;
	default:
		return false;
	}
}

static void list_node(struct fs *fs, struct node *n)
{
	list_del(&n->names);
	list_add_tail(n->is_proven ? &fs->proven : &fs->made_up, &n->names);
}

/* Marks the directory and those above it. */
static void prove(struct fs *fs, uint64_t ino)
{
	struct node *n;

	for (; ino && (n = node_find_locked(fs, ino)); ino = n->parent) {
		n->is_proven = true;
		if (!list_empty(&n->names))
			list_node(fs, n);
	}
}

bool evict_note_locked(struct fs *fs, const struct node *dir, struct node *n)
{
	if (node_is_dir(n))
		n->parent = dir->ino;
	if (is_evictable(dir))
		list_node(fs, n);
	else if (is_proof(dir) && n->type != NODE_URL_DIR)
		prove(fs, dir->ino);
	if (fs->nnodes <= NODES_MAX || fs->evicting)
		return false;
	fs->evicting = true;
	return true;
}

/* The name of a directory that is_evictable(). */
static const char *name_of(const struct node *n)
{
	const char *slash;

	switch (n->type) {
	case NODE_BLOBS:
		return "sha256";
	case NODE_REPO_BLOBS:
		return "blobs";
	case NODE_REPO_MANIFESTS:
		return "manifests";
	case NODE_REPO_TAGS:
		return "tags";
	case NODE_URL_DIR:
		return n->name; /* the host */
	default:
		if (!*n->name)
			return n->host;
		slash = strrchr(n->name, '/');
		return slash ? slash + 1 : n->name;
	}
}

struct victim {
	uint64_t ino, parent;
	char name[NAME_MAX + 1];
};

/* Takes the next one from the lists. False: there are few enough nodes. */
static bool take(struct fs *fs, struct victim *ret)
{
	struct list *from;
	struct node *n;
	bool any;

	(void)pthread_mutex_lock(&fs->mu);
	from = list_empty(&fs->made_up) ? &fs->proven : &fs->made_up;
	any = fs->nnodes > NODES_KEEP && !list_empty(from);
	if (any) {
		n = list_first(from, struct node, names);
		list_del(&n->names);
		ret->ino = n->ino;
		ret->parent = n->parent;
		(void)snprintf(ret->name, sizeof(ret->name), "%s", name_of(n));
	}
	(void)pthread_mutex_unlock(&fs->mu);
	return any;
}

/* It may still be in use, or its FORGET may be under way. */
static void put_back(struct fs *fs, const struct victim *v)
{
	struct node *n;

	(void)pthread_mutex_lock(&fs->mu);
	n = node_find_locked(fs, v->ino);
	if (n && n->parent == v->parent && list_empty(&n->names))
		list_node(fs, n);
	(void)pthread_mutex_unlock(&fs->mu);
}

/* On a worker: the kernel may wait for pages that a read holds. */
static void evict_work(struct loop_job *j)
{
	struct fs *fs = container_of(j, struct fs, evict_job);
	struct victim v;
	unsigned int most;

	(void)pthread_mutex_lock(&fs->mu);
	most = fs->nnodes > NODES_KEEP ? fs->nnodes - NODES_KEEP : 0;
	(void)pthread_mutex_unlock(&fs->mu);
	while (most-- > 0 && take(fs, &v)) {
		/* -ENOENT: the kernel has forgotten it already. */
		(void)fuse_lowlevel_notify_inval_entry(fs->se, v.parent, v.name,
						       strlen(v.name));
		put_back(fs, &v);
	}
}

static void evict_done(struct loop_job *j)
{
	struct fs *fs = container_of(j, struct fs, evict_job);

	(void)pthread_mutex_lock(&fs->mu);
	fs->evicting = false;
	(void)pthread_mutex_unlock(&fs->mu);
}

static void evict_posted(struct loop_task *t)
{
	struct fs *fs = container_of(t, struct fs, evict_task);

	loop_work(fs->cfg.loop, &fs->evict_job, evict_work, evict_done);
}

void evict_start(struct fs *fs)
{
	fs->evict_task.run = evict_posted;
	loop_post(fs->cfg.loop, &fs->evict_task);
}

void evict_init(struct fs *fs)
{
	list_init(&fs->made_up);
	list_init(&fs->proven);
}
