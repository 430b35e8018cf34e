#include "store/index-check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

/* The format of LMDB 0.9 as its source describes it, in this machine's byte
 * order and word size. Pages have a header. B+ trees have branch and leaf
 * pages; nodes are packed without gaps from the end of a page, and their
 * offsets follow its header in order of keys. Values too long for a leaf are on
 * overflow pages. Pages 0 and 1 are the meta pages; the one with the higher
 * transaction number counts. It has two trees: free pages by transaction, and
 * the named databases. */

#define META_MAGIC   0xBEEFC0DE
#define META_VERSION 1
#define NO_PAGE	     ((size_t)-1)
#define MAX_DEPTH    24
#define MAX_KEY	     511

enum { P_BRANCH = 1, P_LEAF = 2, P_OVERFLOW = 4, P_META = 8 };
enum { F_BIGDATA = 1, F_SUBDATA = 2 };
#define DB_INTEGERKEY 8

struct header {
	size_t pgno;
	uint16_t pad;
	uint16_t flags;
	uint16_t lower; /* with upper: number of overflow pages */
	uint16_t upper;
};

struct lmdb_node {
	uint16_t lo, hi;
	uint16_t flags;
	uint16_t key_len;
	uint8_t data[];
};

struct tree {
	uint32_t pad;
	uint16_t flags, depth;
	size_t branches, leaves, overflows, entries, root;
};

struct lmdb_meta {
	uint32_t magic, version;
	void *address;
	size_t map_bytes;
	struct tree trees[2];
	size_t last_page, txn;
};

struct key {
	const uint8_t *p; /* NULL: no bound */
	size_t len;
};

enum tree_kind { TREE_FREE, TREE_NAMES, TREE_RECORDS };

struct check {
	const uint8_t *map;
	size_t bytes, pages, page_bytes;
	const struct lmdb_meta *meta;
	uint8_t *seen;	/* one bit per page: in use, or known to be free */
	bool free_pass; /* the second pass, which reads the free list */
};

/* The counts of a walk, to compare with those in the tree's record. */
struct count {
	enum tree_kind kind;
	size_t branches, leaves, overflows, entries;
};

static bool mark(struct check *c, size_t page)
{
	uint8_t bit = (uint8_t)(1u << (page % 8));

	if (page < 2 || page > c->meta->last_page || (c->seen[page / 8] & bit))
		return false;
	c->seen[page / 8] |= bit;
	return true;
}

static const struct header *page_at(struct check *c, size_t page)
{
	const struct header *h;

	if (page >= c->pages || !mark(c, page))
		return NULL;
	h = (const void *)(c->map + page * c->page_bytes);
	return h->pgno == page ? h : NULL;
}

static int compare(const struct count *n, const struct key *a,
		   const struct key *b)
{
	size_t len = a->len < b->len ? a->len : b->len;
	size_t x, y;
	int r;

	if (n->kind == TREE_FREE) { /* keys are numbers */
		memcpy(&x, a->p, sizeof(x));
		memcpy(&y, b->p, sizeof(y));
		return x < y ? -1 : x > y;
	}
	r = memcmp(a->p, b->p, len);
	return r ? r : (a->len > b->len) - (a->len < b->len);
}

static bool key_ok(const struct count *n, const struct key *k)
{
	return n->kind == TREE_FREE ? k->len == sizeof(size_t)
				    : k->len > 0 && k->len <= MAX_KEY;
}

/* Checks the list of one transaction: a count, then falling page numbers. */
static bool free_list_ok(struct check *c, const uint8_t *data, size_t len)
{
	size_t n, page, before = NO_PAGE;

	if (len < sizeof(n))
		return false;
	memcpy(&n, data, sizeof(n));
	if (n > len / sizeof(n) - 1)
		return false;
	for (size_t i = 1; i <= n; i++) {
		memcpy(&page, data + i * sizeof(page), sizeof(page));
		if (page >= before || !mark(c, page))
			return false;
		before = page;
	}
	return true;
}

static bool overflow_ok(struct check *c, struct count *n, size_t page,
			size_t len, const uint8_t **ret)
{
	const struct header *h;
	uint32_t pages;

	h = page_at(c, page);
	if (!h || h->flags != P_OVERFLOW)
		return false;
	memcpy(&pages, &h->lower, sizeof(pages));
	if (pages == 0 || pages > c->pages - page ||
	    len > pages * c->page_bytes - sizeof(*h))
		return false;
	for (uint32_t i = 1; i < pages; i++)
		if (!mark(c, page + i))
			return false;
	n->overflows += pages;
	*ret = (const uint8_t *)h + sizeof(*h);
	return true;
}

static bool tree_ok(struct check *c, const struct tree *t, enum tree_kind kind);

static bool leaf_node_ok(struct check *c, struct count *n,
			 const struct lmdb_node *node, size_t len)
{
	const uint8_t *data = node->data + node->key_len;
	struct tree sub;
	size_t page;

	if (node->flags & F_BIGDATA) {
		memcpy(&page, data, sizeof(page));
		/* The free list is read twice; its pages are marked once. */
		if (c->free_pass)
			data = c->map + page * c->page_bytes +
			       sizeof(struct header);
		else if (!overflow_ok(c, n, page, len, &data))
			return false;
	}
	if (n->kind == TREE_FREE)
		return !c->free_pass || free_list_ok(c, data, len);
	if (n->kind == TREE_RECORDS)
		return true;
	if (len != sizeof(sub))
		return false;
	memcpy(&sub, data, sizeof(sub));
	return sub.flags == 0 && tree_ok(c, &sub, TREE_RECORDS);
}

/* Returns the number of bytes of a node in the page; 0 if it cannot be right.
 */
static size_t node_bytes(const struct check *c, const struct count *n,
			 const struct header *h, const struct lmdb_node *node,
			 size_t room)
{
	size_t need, len = (size_t)node->hi << 16 | node->lo;
	unsigned int flags = node->flags;

	if (h->flags == P_BRANCH) {
		need = sizeof(*node) + node->key_len;
	} else {
		if (n->kind == TREE_NAMES) {
			if (flags != F_SUBDATA)
				return 0;
		} else if (flags & ~(unsigned int)F_BIGDATA) {
			return 0;
		}
		if (len > c->bytes)
			return 0;
		need = sizeof(*node) + node->key_len +
		       (flags & F_BIGDATA ? sizeof(size_t) : len);
	}
	need += need & 1;
	return need <= room ? need : 0;
}

/* Checks that nodes lie within the page, without gaps or overlaps: no two share
 * bytes, and together they fill the space after `upper` exactly. */
static bool nodes_ok(struct check *c, struct count *n, const struct header *h,
		     size_t keys)
{
	const uint16_t *at = (const uint16_t *)(h + 1);
	uint8_t used[65536 / 16] = {0};
	size_t total = 0;

	for (size_t i = 0; i < keys; i++) {
		const struct lmdb_node *node;
		size_t len;

		if (at[i] < h->upper || (at[i] & 1) ||
		    at[i] + sizeof(*node) > c->page_bytes)
			return false;
		node = (const void *)((const uint8_t *)h + at[i]);
		len = node_bytes(c, n, h, node, c->page_bytes - at[i]);
		if (len == 0)
			return false;
		for (size_t b = at[i] / 2; b < (at[i] + len) / 2; b++) {
			if (used[b / 8] >> (b % 8) & 1)
				return false;
			used[b / 8] |= (uint8_t)(1u << (b % 8));
		}
		total += len;
	}
	return total == c->page_bytes - h->upper;
}

static const struct lmdb_node *node_at(const struct header *h, size_t i)
{
	const uint16_t *at = (const uint16_t *)(h + 1);

	return (const void *)((const uint8_t *)h + at[i]);
}

static bool page_ok(struct check *c, struct count *n, size_t page, int depth,
		    struct key low, struct key high);

/* Checks one node and the page or tree below it. Moves *low on to its key. */
static bool node_ok(struct check *c, struct count *n, const struct header *h,
		    size_t i, size_t keys, int depth, struct key *low,
		    const struct key *high)
{
	const struct lmdb_node *node = node_at(h, i);
	struct key key = {node->data, node->key_len}, end = *high;
	bool branch = h->flags == P_BRANCH;
	size_t child;

	/* Nobody reads the first key of a branch. */
	if (!branch || i > 0) {
		if (!key_ok(n, &key))
			return false;
		if (low->p && (branch || i > 0 ? compare(n, &key, low) <= 0
					       : compare(n, &key, low) < 0))
			return false;
		if (high->p && compare(n, &key, high) >= 0)
			return false;
		*low = key;
	}
	if (!branch) {
		n->entries++;
		return leaf_node_ok(c, n, node,
				    (size_t)node->hi << 16 | node->lo);
	}
	if (i + 1 < keys) {
		const struct lmdb_node *after = node_at(h, i + 1);

		end = (struct key){after->data, after->key_len};
		if (!key_ok(n, &end))
			return false;
	}
	child = (size_t)node->lo | (size_t)node->hi << 16;
	if (sizeof(size_t) > 4)
		child |= (size_t)((uint64_t)node->flags << 32);
	return page_ok(c, n, child, depth - 1, *low, end);
}

static bool page_ok(struct check *c, struct count *n, size_t page, int depth,
		    struct key low, struct key high)
{
	const struct header *h;
	size_t keys;
	bool branch = depth > 1;

	if (c->free_pass)
		h = (const void *)(c->map + page * c->page_bytes);
	else
		h = page_at(c, page);
	if (!h || h->flags != (branch ? P_BRANCH : P_LEAF) ||
	    h->lower < sizeof(*h) || h->lower > h->upper || (h->lower & 1) ||
	    (h->upper & 1) || h->upper > c->page_bytes)
		return false;
	keys = (h->lower - sizeof(*h)) / 2;
	if (keys < (branch && n->kind != TREE_FREE ? 2 : 1) ||
	    !nodes_ok(c, n, h, keys))
		return false;
	if (branch)
		n->branches++;
	else
		n->leaves++;
	for (size_t i = 0; i < keys; i++)
		if (!node_ok(c, n, h, i, keys, depth, &low, &high))
			return false;
	return true;
}

static bool tree_ok(struct check *c, const struct tree *t, enum tree_kind kind)
{
	struct count n = {.kind = kind};
	struct key none = {NULL, 0};

	if (t->root == NO_PAGE)
		return t->entries == 0 && t->depth == 0;
	if (t->depth < 1 || t->depth > MAX_DEPTH ||
	    !page_ok(c, &n, t->root, t->depth, none, none))
		return false;
	return n.entries == t->entries &&
	       (c->free_pass ||
		(n.branches == t->branches && n.leaves == t->leaves &&
		 n.overflows == t->overflows));
}

static const struct lmdb_meta *meta_at(const struct check *c, size_t page)
{
	const struct header *h;
	const struct lmdb_meta *m;

	h = (const void *)(c->map + page * c->page_bytes);
	m = (const void *)(h + 1);
	/* The flags of the free tree include the environment's. */
	if (h->flags != P_META || m->magic != META_MAGIC ||
	    m->version != META_VERSION || m->trees[0].pad != c->page_bytes ||
	    m->trees[0].flags != DB_INTEGERKEY || m->trees[1].flags != 0 ||
	    m->last_page < 1 || m->last_page > SIZE_MAX / c->page_bytes - 1)
		return NULL;
	return m;
}

static bool metas_ok(struct check *c)
{
	const struct header *h = (const void *)c->map;
	const struct lmdb_meta *a, *b;

	/* The file must hold both meta pages before the page size is read. */
	if (c->bytes < (size_t)2 * 512)
		return false;
	a = (const void *)(h + 1);
	c->page_bytes = a->trees[0].pad;
	if (c->page_bytes < 512 || c->page_bytes > 32768 ||
	    (c->page_bytes & (c->page_bytes - 1)) ||
	    c->bytes < 2 * c->page_bytes)
		return false;
	c->pages = c->bytes / c->page_bytes;
	a = meta_at(c, 0);
	b = meta_at(c, 1);
	if (!a || !b)
		return false;
	c->meta = a->txn < b->txn ? b : a;
	/* The file may end before the last page if the pages beyond are free.
	 * One list cannot name more free pages than this. */
	return c->meta->last_page < c->pages + c->bytes / sizeof(size_t);
}

static bool tail_free(const struct check *c)
{
	for (size_t i = c->pages; i <= c->meta->last_page; i++)
		if (!(c->seen[i / 8] >> (i % 8) & 1))
			return false;
	return true;
}

static int check_map(struct check *c)
{
	CLEANUP(freep) uint8_t *seen = NULL;

	if (!metas_ok(c))
		return -EBADMSG;
	seen = calloc(c->meta->last_page / 8 + 1, 1);
	if (!seen)
		return -ENOMEM;
	c->seen = seen;
	if (!tree_ok(c, &c->meta->trees[0], TREE_FREE) ||
	    !tree_ok(c, &c->meta->trees[1], TREE_NAMES))
		return -EBADMSG;
	/* All pages in use are known now: none of them may be free. */
	c->free_pass = true;
	if (!tree_ok(c, &c->meta->trees[0], TREE_FREE) || !tail_free(c))
		return -EBADMSG;
	return 0;
}

int index_check_pages(const char *dir)
{
	char path[4096];
	CLEANUP(closep) int fd = -1;
	struct check c = {0};
	struct stat st;
	void *map;
	int r;

	if (snprintf(path, sizeof(path), "%s/data.mdb", dir) >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1 || fstat(fd, &st) == -1)
		return -errno;
	if (st.st_size < 1024)
		return -EBADMSG;
	c.bytes = (size_t)st.st_size;
	map = mmap(NULL, c.bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	c.map = map;
	r = check_map(&c);
	(void)munmap(map, c.bytes);
	return r;
}
