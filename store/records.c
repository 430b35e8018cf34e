/* Manifests, tags, contents of repositories, and other small records. */
#include "store/store-private.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

#define MAX_TYPE   255
#define MAX_KV_KEY 480
#define MAX_KV_VAL ((size_t)64 << 10)
/* How old the noted use of a manifest, or the note of a repository's item, may
 * be before it is written again. */
#define USE_S	   60
#define NOTED_S	   ((uint64_t)24 * 3600)
#define TIME_BYTES 8
#define ITEM_BYTES (TIME_BYTES + 8)

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

static int put_manifest(struct store *s, const struct digest *d,
			const struct buf *v)
{
	CLEANUP(buf_release) struct buf old = BUF_INIT(64);
	struct index_blob rec = {.size = v->len,
				 .last_use_s = now_unix_s(),
				 .cached_bytes = v->len},
			  was = {0};
	struct index_batch b;
	bool known;
	int r;

	index_batch_init(&b);
	index_put(&b, INDEX_MANIFESTS, d->sha256, DIGEST_BYTES, v->data,
		  v->len);
	index_put_use(&b, d->sha256, DIGEST_BYTES, &rec);
	(void)pthread_mutex_lock(&s->manifests_mu);
	known = index_get(s->ix, INDEX_USES, d->sha256, DIGEST_BYTES, &old) ==
			0 &&
		index_decode_blob((uint8_t *)old.data, old.len, &was);
	r = index_write(s->ix, &b);
	if (r == 0) {
		ADD(&s->manifests, known ? 0 : 1);
		ADD(&s->manifest_bytes, rec.cached_bytes - was.cached_bytes);
	}
	(void)pthread_mutex_unlock(&s->manifests_mu);
	index_batch_release(&b);
	return r;
}

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
	r = put_manifest(s, d, &v);
	/* Now, and not when the next chunks are committed: LMDB's file never
	 * shrinks while it is open. */
	if (r == 0 && LOAD(&s->manifest_bytes) > manifests_max(s))
		(void)commit_wait(s);
	return r;
}

/* Uses are written at leisure, so once in a while is enough. */
static void note_use(struct store *s, const struct digest *d)
{
	CLEANUP(buf_release) struct buf v = BUF_INIT(64);
	uint64_t now = now_unix_s();
	struct index_blob rec;
	bool noted = false;

	if (index_get(s->ix, INDEX_USES, d->sha256, DIGEST_BYTES, &v) < 0 ||
	    !index_decode_blob((uint8_t *)v.data, v.len, &rec) ||
	    rec.last_use_s + USE_S > now)
		return;
	store_lock(s);
	for (unsigned int i = 0; i < s->ntouches && !noted; i++)
		noted = s->touches[i].db == INDEX_USES &&
			memcmp(s->touches[i].key, d->sha256, DIGEST_BYTES) == 0;
	if (!noted)
		note_touch_locked(s, INDEX_USES, d->sha256, DIGEST_BYTES, now);
	store_unlock(s);
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
	note_use(s, d);
	*ret_type = steal_ptr(&type);
	*ret_bytes = steal_ptr(&bytes);
	*ret_len = len;
	return 0;
}

/* ---- Tags ---- */

int store_tag_put(struct store *s, const char *repo, const char *tag,
		  const struct digest *d, uint64_t seen_s)
{
	uint8_t v[DIGEST_BYTES + TIME_BYTES], noted[TIME_BYTES];
	struct index_batch b;
	struct rkey key;
	int r;

	if (!*tag)
		return -EINVAL;
	r = repo_key(repo, tag, strlen(tag), &key);
	if (r < 0)
		return r;
	memcpy(v, d->sha256, DIGEST_BYTES);
	put_le(v + DIGEST_BYTES, seen_s, TIME_BYTES);
	put_le(noted, now_unix_s(), TIME_BYTES);
	index_batch_init(&b);
	index_put(&b, INDEX_TAGS, key.v, key.len, v, sizeof(v));
	index_put(&b, INDEX_REPOS, key.v, strlen(repo) + 1, noted,
		  sizeof(noted));
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

static int add_digest(void *arg, const uint8_t *key, size_t key_len,
		      const uint8_t *val, size_t val_len)
{
	char text[DIGEST_STR_SIZE];
	struct digest d;

	(void)val;
	(void)val_len;
	if (key_len != DIGEST_BYTES)
		return 0;
	memcpy(d.sha256, key, DIGEST_BYTES);
	return string_list_add(arg, digest_str(&d, text));
}

int store_manifest_list(struct store *s, struct string_list *ret)
{
	return index_each(s->ix, INDEX_USES, NULL, 0, add_digest, ret);
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

static int get_item(struct store *s, const struct rkey *key,
		    uint64_t *ret_noted_s, uint64_t *ret_size)
{
	CLEANUP(buf_release) struct buf v = BUF_INIT(ITEM_BYTES);
	int r = index_get(s->ix, INDEX_REPOS, key->v, key->len, &v);

	if (r < 0)
		return r == -EMSGSIZE ? -ENOENT : r;
	if (v.len != ITEM_BYTES)
		return -ENOENT;
	*ret_noted_s = get_le((const uint8_t *)v.data, TIME_BYTES);
	*ret_size = get_le((const uint8_t *)v.data + TIME_BYTES, 8);
	return 0;
}

int store_repo_add(struct store *s, const char *repo, bool manifest,
		   const struct digest *d, uint64_t size)
{
	uint64_t old, noted, now = now_unix_s();
	uint8_t v[ITEM_BYTES];
	struct rkey key;
	int r = item_key(repo, manifest, d, &key);

	if (r < 0)
		return r;
	/* Most are known: this saves a flush. */
	if (get_item(s, &key, &noted, &old) == 0 && old == size &&
	    noted + NOTED_S > now)
		return 0;
	put_le(v, now, TIME_BYTES);
	put_le(v + TIME_BYTES, size, 8);
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
	struct rkey key;
	uint64_t noted;

	if (item_key(repo, manifest, d, &key) < 0)
		return -ENOENT;
	return get_item(s, &key, &noted, ret_size);
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

	if (key_len != l->skip + DIGEST_BYTES || val_len != ITEM_BYTES)
		return 0;
	v = array_grow(l->v, l->n, &l->cap, sizeof(*l->v));
	if (!v)
		return -ENOMEM;
	l->v = v;
	memcpy(l->v[l->n].d.sha256, key + l->skip, DIGEST_BYTES);
	l->v[l->n++].size = get_le(val + TIME_BYTES, 8);
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
	CLEANUP(buf_release) struct buf v = BUF_INIT(TIME_BYTES + MAX_KV_VAL);
	uint8_t noted[TIME_BYTES];
	int r;

	if (key_len == 0 || key_len > MAX_KV_KEY || val_len > MAX_KV_VAL)
		return -EINVAL;
	put_le(noted, now_unix_s(), TIME_BYTES);
	r = buf_add(&v, noted, sizeof(noted));
	if (r == 0 && val_len > 0)
		r = buf_add(&v, val, val_len);
	if (r < 0)
		return r;
	return write_one(s, INDEX_KV, key, key_len, v.data, v.len);
}

int store_kv_get(struct store *s, const void *key, size_t key_len,
		 struct buf *ret)
{
	CLEANUP(buf_release) struct buf v = BUF_INIT(TIME_BYTES + MAX_KV_VAL);
	int r = index_get(s->ix, INDEX_KV, key, key_len, &v);

	if (r < 0)
		return r;
	if (v.len < TIME_BYTES)
		return -ENOENT;
	return buf_add(ret, v.data + TIME_BYTES, v.len - TIME_BYTES);
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
