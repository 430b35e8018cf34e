/* Manifests, tags, contents of repositories, and other small records. */
#include "store/store-private.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

#define MAX_TYPE   255
#define MAX_KV_KEY 480
#define MAX_KV_VAL ((size_t)64 << 10)

struct rkey {
	uint8_t v[INDEX_KEY_MAX];
	size_t len;
};

/* Makes the key of repo, NUL, and `more`. */
static int repo_key(const char *repo, const void *more, size_t more_len,
		    struct rkey *ret)
{
	size_t len = strlen(repo);

	if (len == 0)
		return -EINVAL;
	if (len + 1 + more_len > sizeof(ret->v))
		return -ENAMETOOLONG;
	memcpy(ret->v, repo, len + 1);
	if (more_len)
		memcpy(ret->v + len + 1, more, more_len);
	ret->len = len + 1 + more_len;
	return 0;
}

static int write_one(struct store *s, enum index_db db, const void *key,
		     size_t key_len, const void *val, size_t val_len)
{
	struct index_batch b;
	int r;

	index_batch_init(&b);
	index_put(&b, db, key, key_len, val, val_len);
	r = index_write(s->ix, &b);
	index_batch_release(&b);
	return r;
}

static int del_one(struct store *s, enum index_db db, const void *key,
		   size_t key_len)
{
	struct index_batch b;
	int r;

	index_batch_init(&b);
	index_del(&b, db, key, key_len);
	r = index_write(s->ix, &b);
	index_batch_release(&b);
	return r;
}

/* ---- Manifests ---- */

int store_manifest_put(struct store *s, const struct digest *d,
		       const char *media_type, const void *bytes, size_t len)
{
	size_t type_len = strlen(media_type);
	CLEANUP(buf_release)
	struct buf v = BUF_INIT(MAX_TYPE + 1 + MANIFEST_MAX_BYTES);
	struct digest real;
	int r;

	if (type_len > MAX_TYPE)
		return -EINVAL;
	if (len > MANIFEST_MAX_BYTES)
		return -EFBIG;
	digest_of(bytes, len, &real);
	if (!digest_equal(&real, d))
		return -EBADMSG;
	r = buf_add(&v, media_type, type_len + 1);
	if (r == 0 && len > 0)
		r = buf_add(&v, bytes, len);
	if (r < 0)
		return r;
	return write_one(s, INDEX_MANIFESTS, d->sha256, DIGEST_BYTES, v.data,
			 v.len);
}

int store_manifest_get(struct store *s, const struct digest *d, char **ret_type,
		       void **ret_bytes, size_t *ret_len)
{
	CLEANUP(buf_release)
	struct buf v = BUF_INIT(MAX_TYPE + 1 + MANIFEST_MAX_BYTES);
	CLEANUP(freep) char *type = NULL, *bytes = NULL;
	size_t type_len, len;
	int r = index_get(s->ix, INDEX_MANIFESTS, d->sha256, DIGEST_BYTES, &v);

	if (r == -ENOENT)
		return external_manifest(s, d, ret_type, ret_bytes, ret_len);
	if (r < 0)
		return r;
	type_len = v.len ? strnlen(v.data, v.len) : 0;
	if (type_len == v.len)
		return -ENOENT;
	len = v.len - type_len - 1;
	type = strdup(v.data);
	bytes = malloc(len + 1);
	if (!type || !bytes)
		return -ENOMEM;
	memcpy(bytes, v.data + type_len + 1, len);
	bytes[len] = '\0';
	*ret_type = steal_ptr(&type);
	*ret_bytes = steal_ptr(&bytes);
	*ret_len = len;
	return 0;
}

/* ---- Tags ---- */

int store_tag_put(struct store *s, const char *repo, const char *tag,
		  const struct digest *d, uint64_t seen_s)
{
	uint8_t v[DIGEST_BYTES + 8];
	struct index_batch b;
	struct rkey key;
	int r;

	if (!*tag)
		return -EINVAL;
	r = repo_key(repo, tag, strlen(tag), &key);
	if (r < 0)
		return r;
	memcpy(v, d->sha256, DIGEST_BYTES);
	put_le(v + DIGEST_BYTES, seen_s, 8);
	index_batch_init(&b);
	index_put(&b, INDEX_TAGS, key.v, key.len, v, sizeof(v));
	index_put(&b, INDEX_REPOS, key.v, strlen(repo) + 1, NULL, 0);
	r = index_write(s->ix, &b);
	index_batch_release(&b);
	return r;
}

int store_tag_get(struct store *s, const char *repo, const char *tag,
		  struct digest *ret, uint64_t *ret_seen_s)
{
	CLEANUP(buf_release) struct buf v = BUF_INIT(DIGEST_BYTES + 8);
	struct rkey key;
	int r;

	if (!*tag || repo_key(repo, tag, strlen(tag), &key) < 0)
		return -ENOENT;
	r = index_get(s->ix, INDEX_TAGS, key.v, key.len, &v);
	if (r < 0)
		return r == -EMSGSIZE ? -ENOENT : r;
	if (v.len != DIGEST_BYTES + 8)
		return -ENOENT;
	memcpy(ret->sha256, v.data, DIGEST_BYTES);
	*ret_seen_s = get_le((const uint8_t *)v.data + DIGEST_BYTES, 8);
	return 0;
}

int store_tag_del(struct store *s, const char *repo, const char *tag)
{
	struct rkey key;

	if (!*tag || repo_key(repo, tag, strlen(tag), &key) < 0)
		return 0;
	return del_one(s, INDEX_TAGS, key.v, key.len);
}

struct lister {
	struct string_list *out;
	size_t skip;
	const char *prefix;
	size_t prefix_len;
};

static int add_text(struct string_list *out, const uint8_t *p, size_t len)
{
	char text[INDEX_KEY_MAX + 1];

	memcpy(text, p, len);
	text[len] = '\0';
	return string_list_add(out, text);
}

static int add_rest(void *arg, const uint8_t *key, size_t key_len,
		    const uint8_t *val, size_t val_len)
{
	struct lister *l = arg;

	(void)val;
	(void)val_len;
	return add_text(l->out, key + l->skip, key_len - l->skip);
}

int store_tag_list(struct store *s, const char *repo, struct string_list *ret)
{
	struct lister l = {.out = ret, .skip = strlen(repo) + 1};
	struct rkey key;

	if (repo_key(repo, NULL, 0, &key) < 0)
		return 0;
	return index_each(s->ix, INDEX_TAGS, key.v, key.len, add_rest, &l);
}

/* ---- Repositories ---- */

static int item_key(const char *repo, bool manifest, const struct digest *d,
		    struct rkey *ret)
{
	uint8_t more[1 + DIGEST_BYTES];

	more[0] = manifest ? 'm' : 'b';
	if (d)
		memcpy(more + 1, d->sha256, DIGEST_BYTES);
	return repo_key(repo, more, d ? sizeof(more) : 1, ret);
}

int store_repo_add(struct store *s, const char *repo, bool manifest,
		   const struct digest *d, uint64_t size)
{
	uint64_t old;
	struct rkey key;
	uint8_t v[8];
	int r = item_key(repo, manifest, d, &key);

	if (r < 0)
		return r;
	/* Most are known: this saves a flush. */
	if (store_repo_has(s, repo, manifest, d, &old) == 0 && old == size)
		return 0;
	put_le(v, size, 8);
	return write_one(s, INDEX_REPOS, key.v, key.len, v, sizeof(v));
}

int store_repo_del(struct store *s, const char *repo, bool manifest,
		   const struct digest *d)
{
	struct rkey key;

	return item_key(repo, manifest, d, &key) < 0
		       ? 0
		       : del_one(s, INDEX_REPOS, key.v, key.len);
}

int store_repo_has(struct store *s, const char *repo, bool manifest,
		   const struct digest *d, uint64_t *ret_size)
{
	CLEANUP(buf_release) struct buf v = BUF_INIT(8);
	struct rkey key;
	int r;

	if (item_key(repo, manifest, d, &key) < 0)
		return -ENOENT;
	r = index_get(s->ix, INDEX_REPOS, key.v, key.len, &v);
	if (r < 0)
		return r == -EMSGSIZE ? -ENOENT : r;
	if (v.len != 8)
		return -ENOENT;
	*ret_size = get_le((const uint8_t *)v.data, 8);
	return 0;
}

struct item {
	struct digest d;
	uint64_t size;
};

struct items {
	struct item *v;
	size_t n, cap, skip;
};

/* Copies the items first, because the caller's function may write to the index.
 */
static int add_item(void *arg, const uint8_t *key, size_t key_len,
		    const uint8_t *val, size_t val_len)
{
	struct items *l = arg;
	void *v;

	if (key_len != l->skip + DIGEST_BYTES || val_len != 8)
		return 0;
	v = array_grow(l->v, l->n, &l->cap, sizeof(*l->v));
	if (!v)
		return -ENOMEM;
	l->v = v;
	memcpy(l->v[l->n].d.sha256, key + l->skip, DIGEST_BYTES);
	l->v[l->n++].size = get_le(val, 8);
	return 0;
}

int store_repo_each(struct store *s, const char *repo, bool manifest,
		    int (*each)(void *arg, const struct digest *d,
				uint64_t size),
		    void *arg)
{
	struct items l = {0};
	struct rkey key;
	int r;

	if (item_key(repo, manifest, NULL, &key) < 0)
		return 0;
	l.skip = key.len;
	r = index_each(s->ix, INDEX_REPOS, key.v, key.len, add_item, &l);
	for (size_t i = 0; r == 0 && i < l.n; i++)
		r = each(arg, &l.v[i].d, l.v[i].size);
	free(l.v);
	return r;
}

/* Adds each repository once, and jumps over its other keys. */
static int add_repo(void *arg, const uint8_t *key, size_t key_len,
		    struct index_cursor *next)
{
	struct lister *l = arg;
	size_t len = strnlen((const char *)key, key_len);
	int r;

	if (len < l->prefix_len || memcmp(key, l->prefix, l->prefix_len) != 0)
		return 1;
	if (len == key_len)
		return 0;
	r = add_text(l->out, key, len);
	if (r < 0)
		return r;
	memcpy(next->next, key, len);
	next->next[len] = 1;
	next->next_len = len + 1;
	return INDEX_SEEK;
}

int store_repo_list(struct store *s, const char *prefix,
		    struct string_list *ret)
{
	struct lister l = {
		.out = ret, .prefix = prefix, .prefix_len = strlen(prefix)};
	int r = index_walk(s->ix, INDEX_REPOS, prefix, l.prefix_len, add_repo,
			   &l);

	return r < 0 ? r : 0;
}

/* ---- Other records ---- */

int store_kv_put(struct store *s, const void *key, size_t key_len,
		 const void *val, size_t val_len)
{
	if (key_len == 0 || key_len > MAX_KV_KEY || val_len > MAX_KV_VAL)
		return -EINVAL;
	return write_one(s, INDEX_KV, key, key_len, val, val_len);
}

int store_kv_get(struct store *s, const void *key, size_t key_len,
		 struct buf *ret)
{
	return index_get(s->ix, INDEX_KV, key, key_len, ret);
}

int store_kv_del(struct store *s, const void *key, size_t key_len)
{
	if (key_len == 0 || key_len > MAX_KV_KEY)
		return 0;
	return del_one(s, INDEX_KV, key, key_len);
}

int store_kv_list(struct store *s, const char *prefix, struct string_list *ret)
{
	struct lister l = {.out = ret};

	return index_each(s->ix, INDEX_KV, prefix, strlen(prefix), add_rest,
			  &l);
}
