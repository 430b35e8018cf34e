/* The inode table, and what stat(2) shows of a node. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "fs/fs-private.h"

#define LONG_S 86400.0

static struct list *bucket(struct fs *fs, uint64_t ino)
{
	return &fs->buckets[ino % NODE_BUCKETS];
}

static uint64_t avoid_reserved(uint64_t ino)
{
	return ino <= FUSE_ROOT_ID ? ino + 2 : ino;
}

static uint64_t blob_ino(const struct blob_key *key)
{
	uint64_t ino = digest_prefix(&key->id) ^ (key->kind == BLOB_URL);

	for (int i = 0; i < 8; i++)
		ino ^= (uint64_t)key->claim.place[i] << (8 * i);
	return avoid_reserved(ino);
}

/* A hash of the identity. The parts cannot contain NUL. */
static uint64_t identity_ino(enum node_type type, const char *host,
			     const char *name, const char *sub,
			     const struct digest *d)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(65536);
	char hex[DIGEST_HEX_SIZE] = "";
	struct digest id;

	if (d)
		(void)digest_hex(d, hex);
	if (buf_printf(&b, "%d%c%s%c%s%c%s%c%s", (int)type, 0, host ? host : "",
		       0, name ? name : "", 0, sub ? sub : "", 0, hex) < 0)
		return 0;
	digest_of(b.data, b.len, &id);
	return avoid_reserved(digest_prefix(&id));
}

static bool same(const char *a, const char *b)
{
	return !a == !b && (!a || strcmp(a, b) == 0);
}

struct node *node_find_locked(struct fs *fs, uint64_t ino)
{
	list_for_each (n, bucket(fs, ino)) {
		struct node *node = list_entry(n, struct node, hash);

		if (node->ino == ino)
			return node;
	}
	return NULL;
}

static void node_free(struct node *n)
{
	free(n->host);
	free(n->name);
	free(n->sub);
	free(n->bytes);
	image_unref(&n->image);
	blob_unref(&n->blob);
	if (n->ahead)
		(void)pthread_mutex_destroy(&n->ahead->mu);
	free(n->ahead);
	free(n);
}

static struct node *node_alloc(enum node_type type, const char *host,
			       const char *name, const char *sub,
			       const struct digest *digest)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->type = type;
	list_init(&n->hash);
	list_init(&n->names);
	if ((host && !(n->host = strdup(host))) ||
	    (name && !(n->name = strdup(name))) ||
	    (sub && !(n->sub = strdup(sub)))) {
		node_free(n);
		return NULL;
	}
	if (digest)
		n->digest = *digest;
	return n;
}

/* Puts n into the table, or finds the node of its identity there. If two
 * identities have the same hash, the later node gets the next free number. */
static struct node *insert(struct fs *fs, struct node *n)
{
	struct node *old;

	(void)pthread_mutex_lock(&fs->mu);
	while ((old = node_find_locked(fs, n->ino))) {
		if (old->type == n->type && same(old->host, n->host) &&
		    same(old->name, n->name) && same(old->sub, n->sub) &&
		    digest_equal(&old->digest, &n->digest) &&
		    old->blob == n->blob)
			break;
		n->ino = avoid_reserved(n->ino + 1);
	}
	if (old) {
		n = old;
	} else {
		list_add(bucket(fs, n->ino), &n->hash);
		fs->nnodes++;
	}
	n->uses++;
	(void)pthread_mutex_unlock(&fs->mu);
	return n;
}

struct node *node_get(struct fs *fs, enum node_type type, const char *host,
		      const char *name, const char *sub,
		      const struct digest *digest)
{
	struct node *n = node_alloc(type, host, name, sub, digest), *in;

	if (!n)
		return NULL;
	n->ino = identity_ino(type, host, name, sub, digest);
	if (!n->ino) {
		node_free(n);
		return NULL;
	}
	in = insert(fs, n);
	if (in != n)
		node_free(n);
	return in;
}

struct node *node_get_blob(struct fs *fs, struct blob **b, const char *place)
{
	struct blob_key key = {.kind = blob_key(*b)->kind,
			       .id = blob_key(*b)->id};
	char text[2 * BLOB_PLACE_BYTES + 24] = "";
	struct node *n, *in;

	if (place && key.kind == BLOB_SHA256) {
		blob_key_claim(&key, place, blob_size(*b));
		for (int i = 0; i < BLOB_PLACE_BYTES; i++)
			(void)snprintf(text + 2 * i, 3, "%02x",
				       key.claim.place[i]);
		(void)snprintf(text + 2 * BLOB_PLACE_BYTES, 24, " %llu",
			       (unsigned long long)key.claim.size);
	}
	n = node_alloc(NODE_BLOB, key.kind == BLOB_URL ? "u" : "", text, NULL,
		       &key.id);
	if (n)
		n->ahead = calloc(1, sizeof(*n->ahead));
	if (!n || !n->ahead) {
		if (n)
			node_free(n);
		blob_unref(b);
		return NULL;
	}
	(void)pthread_mutex_init(&n->ahead->mu, NULL);
	n->ino = blob_ino(&key);
	n->blob = steal_ptr(b);
	in = insert(fs, n);
	if (in != n)
		node_free(n);
	return in;
}

void node_each_of(struct fs *fs, const struct blob *b,
		  void (*each)(void *arg, uint64_t ino), void *arg)
{
	(void)pthread_mutex_lock(&fs->mu);
	for (int i = 0; i < NODE_BUCKETS; i++)
		list_for_each (n, &fs->buckets[i]) {
			const struct node *node =
				list_entry(n, struct node, hash);

			if (node->blob == b)
				each(arg, node->ino);
		}
	(void)pthread_mutex_unlock(&fs->mu);
}

struct node *node_find(struct fs *fs, uint64_t ino)
{
	struct node *n;

	(void)pthread_mutex_lock(&fs->mu);
	n = node_find_locked(fs, ino);
	if (n)
		n->uses++;
	(void)pthread_mutex_unlock(&fs->mu);
	return n;
}

/* fs.mu is held. True: the caller frees n. */
static bool drop_locked(struct fs *fs, struct node *n)
{
	if (n->uses || n->nlookup)
		return false;
	list_del(&n->hash);
	list_del(&n->names);
	fs->nnodes--;
	return true;
}

void node_put(struct fs *fs, struct node **np)
{
	struct node *n = *np;
	bool last;

	*np = NULL;
	if (!n)
		return;
	(void)pthread_mutex_lock(&fs->mu);
	n->uses--;
	last = drop_locked(fs, n);
	(void)pthread_mutex_unlock(&fs->mu);
	if (last)
		node_free(n);
}

void node_lookup_add(struct fs *fs, const struct node *dir, struct node *n)
{
	bool evict;

	(void)pthread_mutex_lock(&fs->mu);
	n->nlookup++;
	evict = evict_note_locked(fs, dir, n);
	(void)pthread_mutex_unlock(&fs->mu);
	if (evict)
		evict_start(fs);
}

void node_forget(struct fs *fs, uint64_t ino, uint64_t count)
{
	struct node *n;
	bool last = false;

	(void)pthread_mutex_lock(&fs->mu);
	n = node_find_locked(fs, ino);
	if (n) {
		n->nlookup -= min_u64(n->nlookup, count);
		last = drop_locked(fs, n);
	}
	(void)pthread_mutex_unlock(&fs->mu);
	if (last)
		node_free(n);
}

void node_set_image(struct fs *fs, struct node *n, struct image *img)
{
	(void)pthread_mutex_lock(&fs->mu);
	if (!n->image)
		n->image = image_ref(img);
	(void)pthread_mutex_unlock(&fs->mu);
}

bool node_is_dir(const struct node *n)
{
	return n->type != NODE_STATUS && n->type != NODE_BLOB &&
	       n->type != NODE_MANIFEST;
}

void node_stat(struct fs *fs, const struct node *n, struct stat *st)
{
	(void)fs;
	memset(st, 0, sizeof(*st));
	st->st_ino = n->ino;
	st->st_blksize = CHUNK_SIZE;
	if (node_is_dir(n)) {
		st->st_mode = S_IFDIR | 0555;
		st->st_nlink = 2;
		return;
	}
	st->st_mode = S_IFREG | 0444;
	st->st_nlink = 1;
	if (n->blob) {
		st->st_size = (off_t)blob_size(n->blob);
		st->st_blocks =
			(blkcnt_t)div_up_u64(blob_cached_bytes(n->blob), 512);
	} else {
		st->st_size = (off_t)n->len;
		st->st_blocks = (blkcnt_t)div_up_u64(n->len, 512);
	}
}

double node_attr_timeout(const struct node *n)
{
	/* st_blocks changes as chunks come and are evicted. */
	if (n->blob)
		return 1;
	return n->type == NODE_STATUS ? 0 : LONG_S;
}

double node_entry_timeout(const struct fs *fs, const struct node *n)
{
	double fresh = (double)fs->cfg.tag_fresh_ms / 1000;

	switch (n->type) {
	case NODE_TAG:
	case NODE_LAYERS:
	case NODE_FILES:
	case NODE_MANIFEST: /* may be named by a tag */
	case NODE_URL_DIR:
	/* Names in layers/, files/ and url/, and config.json, may come to name
	 * another blob. */
	case NODE_BLOB:
		return fresh;
	default:
		return LONG_S;
	}
}

int nodes_init(struct fs *fs)
{
	for (int i = 0; i < NODE_BUCKETS; i++)
		list_init(&fs->buckets[i]);
	evict_init(fs);
	fs->root = node_alloc(NODE_ROOT, NULL, NULL, NULL, NULL);
	if (!fs->root)
		return -ENOMEM;
	fs->root->ino = FUSE_ROOT_ID;
	fs->root->uses = 1;
	list_add(bucket(fs, FUSE_ROOT_ID), &fs->root->hash);
	return 0;
}

void nodes_release(struct fs *fs)
{
	for (int i = 0; i < NODE_BUCKETS; i++) {
		while (!list_empty(&fs->buckets[i])) {
			struct node *n =
				list_first(&fs->buckets[i], struct node, hash);

			list_del(&n->hash);
			node_free(n);
		}
	}
}
