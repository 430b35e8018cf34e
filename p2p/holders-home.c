#include "p2p/holders-home.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/metrics.h"
#include "p2p/holders-msg.h"
#include "p2p/holders-private.h"
#include "store/store.h"

#define SWEEP_MS   5000
#define SWEEP_KEYS 2000

static struct metric_family m_keys = {
	.name = "peerd_holders_keys",
	.help = "Keys whose holders this node remembers as a home.",
	.type = METRIC_GAUGE,
};

/* An id, stored once for all keys that the node holds. */
struct holder_name {
	struct key_node node; /* by the id's SHA-256 */
	uint32_t refs;
	bool self;
	char id[MEMBER_ID_MAX];
};

struct holder {
	struct holder_name *name;
	uint64_t until_ms;
};

struct home_entry {
	struct key_node node;
	uint64_t size;
	uint64_t heard_ms;
	unsigned int n, cap;
	struct holder *v;
};

/* ---- Names ---- */

static struct holder_name *name_get(struct holder_home *t, const char *id)
{
	struct holder_key key = {0};
	struct key_node *node;
	struct holder_name *name;

	digest_of(id, strlen(id), &key.id);
	node = key_table_find(&t->names, &key);
	if (node) {
		name = key_entry(node, struct holder_name);
	} else {
		name = calloc(1, sizeof(*name));
		if (!name)
			return NULL;
		name->node.key = key;
		(void)snprintf(name->id, sizeof(name->id), "%s", id);
		name->self = strcmp(id, t->self) == 0;
		key_table_add(&t->names, &name->node);
	}
	name->refs++;
	return name;
}

static void name_put(struct holder_home *t, struct holder_name *name)
{
	if (--name->refs > 0)
		return;
	key_table_del(&t->names, &name->node);
	free(name);
}

/* NULL if the member is gone, or is this node. */
static struct member *name_member(const struct holder_home *t,
				  const struct holder_name *name)
{
	struct member *mb =
		name->self ? NULL : members_find(t->members, name->id);

	return mb && member_lives(mb) ? mb : NULL;
}

/* ---- Entries ---- */

static void show_keys(const struct holder_home *t)
{
	metric_set(t->m_keys, (double)t->keys.n);
}

static struct home_entry *entry_find(const struct holder_home *t,
				     const struct holder_key *key)
{
	struct key_node *n = key_table_find(&t->keys, key);

	return n ? key_entry(n, struct home_entry) : NULL;
}

static void entry_drop(struct holder_home *t, struct home_entry *e,
		       unsigned int i)
{
	name_put(t, e->v[i].name);
	e->v[i] = e->v[--e->n];
}

static void entry_del(struct holder_home *t, struct home_entry *e)
{
	while (e->n > 0)
		entry_drop(t, e, e->n - 1);
	key_table_del(&t->keys, &e->node);
	free(e->v);
	free(e);
}

static void entry_expire(struct holder_home *t, struct home_entry *e,
			 uint64_t now)
{
	for (unsigned int i = e->n; i-- > 0;)
		if (e->v[i].until_ms <= now)
			entry_drop(t, e, i);
}

/* Makes room for another holder, at the cost of a member that is gone if the
 * list is full. -ENOSPC: all are living. */
static int entry_room(struct holder_home *t, struct home_entry *e)
{
	unsigned int cap = e->cap ? e->cap * 2 : 1;
	struct holder *v;

	if (e->n < e->cap)
		return 0;
	if (e->n == HOLDERS_PER_KEY) {
		for (unsigned int i = 0; i < e->n; i++) {
			if (e->v[i].name->self || name_member(t, e->v[i].name))
				continue;
			entry_drop(t, e, i);
			return 0;
		}
		return -ENOSPC;
	}
	v = realloc(e->v, cap * sizeof(*v));
	if (!v)
		return -ENOMEM;
	e->v = v;
	e->cap = cap;
	return 0;
}

static struct home_entry *entry_get(struct holder_home *t,
				    const struct holder_key *key)
{
	struct home_entry *e = entry_find(t, key);

	if (e) {
		key_table_touch(&t->keys, &e->node);
		return e;
	}
	if (t->keys.n >= t->max_keys)
		entry_del(t, key_first(&t->keys, struct home_entry));
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->node.key = *key;
	key_table_add(&t->keys, &e->node);
	return e;
}

int home_put(struct holder_home *t, const struct holder_key *key, uint64_t size,
	     const char *id)
{
	struct holder_name *name = name_get(t, id);
	uint64_t now = now_ms();
	struct home_entry *e = name ? entry_get(t, key) : NULL;
	unsigned int i = 0;
	int r;

	if (!e) {
		if (name)
			name_put(t, name);
		return -ENOMEM;
	}
	e->heard_ms = now;
	if (size > 0)
		e->size = size;
	entry_expire(t, e, now);
	while (i < e->n && e->v[i].name != name)
		i++;
	if (i < e->n) {
		name_put(t, name);
	} else {
		r = entry_room(t, e);
		if (r < 0) {
			name_put(t, name);
			if (e->n == 0)
				entry_del(t, e);
			return r == -ENOSPC ? 0 : r;
		}
		i = e->n++;
		e->v[i].name = name;
	}
	e->v[i].until_ms = name->self ? UINT64_MAX : now + t->ttl_ms;
	show_keys(t);
	return 0;
}

void home_drop_self(struct holder_home *t, const struct holder_key *key)
{
	struct home_entry *e = entry_find(t, key);

	for (unsigned int i = e ? e->n : 0; i-- > 0;)
		if (e->v[i].name->self)
			entry_drop(t, e, i);
	if (e && e->n == 0)
		entry_del(t, e);
	show_keys(t);
}

unsigned int home_find(const struct holder_home *t,
		       const struct holder_key *key, uint64_t *ret_size,
		       struct member *ret[HOLDERS_PER_KEY], bool *ret_self)
{
	const struct home_entry *e = entry_find(t, key);
	uint64_t now = now_ms();
	unsigned int n = 0;

	*ret_self = false;
	*ret_size = 0;
	for (unsigned int i = 0; e && i < e->n; i++) {
		struct member *mb;

		if (e->v[i].until_ms <= now)
			continue;
		if (e->v[i].name->self)
			*ret_self = true;
		mb = name_member(t, e->v[i].name);
		if (mb)
			ret[n++] = mb;
	}
	if (n > 0 || *ret_self)
		*ret_size = e->size;
	return n;
}

/* The list is ordered by announcement: the sweep ends at the first key that was
 * announced within ttl_ms. A key that only this node holds moves to the end, as
 * if announced again. */
uint64_t home_sweep(struct holder_home *t, uint64_t now)
{
	unsigned int done = 0;

	while (t->keys.n > 0 && done < SWEEP_KEYS) {
		struct home_entry *e = key_first(&t->keys, struct home_entry);

		if (e->heard_ms + t->ttl_ms > now)
			break;
		entry_expire(t, e, now);
		if (e->n == 0) {
			entry_del(t, e);
		} else {
			e->heard_ms = now;
			key_table_touch(&t->keys, &e->node);
		}
		done++;
	}
	if (done > 0)
		show_keys(t);
	if (t->keys.n == 0)
		return UINT64_MAX;
	if (done == SWEEP_KEYS)
		return now + 10;
	return now + min_u64(SWEEP_MS, t->ttl_ms);
}

int home_init(struct holder_home *t, struct members *members, const char *self,
	      uint32_t ttl_ms, uint32_t max_keys)
{
	int r;

	*t = (struct holder_home){.members = members,
				  .self = self,
				  .ttl_ms = ttl_ms,
				  .max_keys = max_keys,
				  .m_keys = metric_get(&m_keys, NULL)};
	r = key_table_init(&t->keys);
	return r < 0 ? r : key_table_init(&t->names);
}

static void free_entry(struct key_node *n)
{
	struct home_entry *e = key_entry(n, struct home_entry);

	free(e->v);
	free(e);
}

static void free_name(struct key_node *n)
{
	free(key_entry(n, struct holder_name));
}

void home_release(struct holder_home *t)
{
	key_table_release(&t->keys, free_entry);
	key_table_release(&t->names, free_name);
}

/* ---- Requests ---- */

/* Takes the whole batch, unless memory is short. */
static void take_batch(struct holders *h, struct http_req *rq,
		       const struct hold_batch *b)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < b->n; i++) {
		r = home_put(&h->home, &b->v[i].key, b->v[i].size, b->id);
		h->stats.announcements_got += r == 0;
	}
	holders_wake(h, now_ms() + min_u64(SWEEP_MS, h->home.ttl_ms));
	if (r < 0)
		http_reply_error(rq, 500, "UNKNOWN", "out of memory");
	else
		http_reply(rq, 204, NULL, NULL, 0);
}

static void handle_post(struct holders *h, struct http_req *rq)
{
	CLEANUP(hold_batch_release) struct hold_batch b = {0};
	struct error err = {""};
	size_t len;
	const char *body = http_req_body(rq, &len);
	int r = hold_batch_parse(body, len, &b, &err);

	if (r == -EMSGSIZE)
		http_reply_error(rq, 413, "SIZE_INVALID", "%s", err.text);
	else if (r == -ENOMEM)
		http_reply_error(rq, 500, "UNKNOWN", "out of memory");
	else if (r < 0)
		http_reply_error(rq, 400, "UNSUPPORTED", "%s", err.text);
	else if (strlen(b.id) >= MEMBER_ID_MAX || strcmp(b.id, h->id) == 0 ||
		 !members_speaker(h->cfg.members, rq, b.id))
		http_reply_error(
			rq, 403, "DENIED",
			"\"id\" is not a known member, or not the requester");
	else
		take_batch(h, rq, &b);
}

static int write_answer(struct holders *h, const struct holder_key *key,
			struct buf *out)
{
	struct member *v[HOLDERS_PER_KEY];
	uint64_t size;
	bool self;
	unsigned int n = home_find(&h->home, key, &size, v, &self);
	/* Starts at random, so that not all nodes ask the same holder first. */
	unsigned int first =
		n > 0 ? (unsigned int)holders_random(h, 0, n - 1) : 0;
	const char *comma = "";
	int r;

	r = buf_printf(out, "{\"size\":%llu,\"holders\":[",
		       (unsigned long long)size);
	if (r == 0 && self) {
		r = json_quote(out, h->id);
		comma = ",";
	}
	for (unsigned int i = 0; i < n && r == 0; i++) {
		r = buf_str(out, comma);
		if (r == 0)
			r = json_quote(out, v[(first + i) % n]->id);
		comma = ",";
	}
	return r < 0 ? r : buf_str(out, "]}");
}

static void handle_get(struct holders *h, struct http_req *rq)
{
	CLEANUP(buf_release) struct buf out = BUF_INIT(64 << 10);
	const char *s = http_req_query(rq, "key");
	struct holder_key key;

	if (!s || holder_key_parse(s, &key) < 0) {
		http_reply_error(rq, 400, "DIGEST_INVALID",
				 "\"key\" is missing or malformed");
		return;
	}
	if (write_answer(h, &key, &out) < 0) {
		http_reply_error(rq, 500, "UNKNOWN", "out of memory");
		return;
	}
	http_reply(rq, 200, "application/json", out.data, out.len);
}

void holders_handle(struct holders *h, struct http_req *rq)
{
	const char *method = http_req_method(rq);

	http_header_add(rq, HOLDERS_EPOCH, "%s", h->epoch);
	if (strcmp(method, "POST") == 0) {
		handle_post(h, rq);
	} else if (strcmp(method, "GET") == 0 || http_req_is_head(rq)) {
		handle_get(h, rq);
	} else {
		http_header_add(rq, "Allow", "GET, HEAD, POST");
		http_reply_error(rq, 405, "UNSUPPORTED",
				 "only GET, HEAD and POST are allowed");
	}
}
