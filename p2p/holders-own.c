/* The keys that this node holds, and their announcement to homes. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "p2p/holders-private.h"

/* Fewer than a home accepts: so many cost its loop some 2 ms. */
#define BATCH_KEYS 500
/* Announcements at once; the client's other connections are for bytes. */
#define MAX_POSTS	8
#define POST_TIMEOUT_MS 10000
#define RETRY_MIN_MS	200
#define RETRY_MAX_MS	30000

struct home;

/* One of the homes of a key, and whether the key was announced there. */
struct slot {
	struct list node;    /* in target->pending, sending or sent */
	struct home *target; /* NULL: none, or this node */
	uint8_t i;	     /* index in own->slots */
	bool self;
};

struct own {
	struct key_node node;
	struct list place; /* in holders->placed or unplaced */
	uint64_t size;
	struct slot slots[PLACE_HOMES];
};

/* A home of some of this node's keys. */
struct home {
	struct key_node node; /* key: place_id */
	struct holders *h;
	struct holders_call call;	    /* mb also between requests */
	struct list pending, sending, sent; /* sent: oldest sent first */
	uint32_t nslots;
	uint64_t due_ms;   /* when `pending` is to be sent */
	uint64_t again_ms; /* when the first of `sent` is to be sent again */
	unsigned int failures;		/* in a row */
	char epoch[HOLDERS_EPOCH_SIZE]; /* "" until the home has sent one */
};

static struct own *slot_own(struct slot *s)
{
	return container_of(s - s->i, struct own, slots[0]);
}

/* ---- Targets ---- */

static void target_key(uint64_t place_id, struct holder_key *ret)
{
	*ret = (struct holder_key){0};
	memcpy(ret->id.sha256, &place_id, sizeof(place_id));
}

static struct home *target_find(const struct holders *h, uint64_t place_id)
{
	struct holder_key key;
	struct key_node *n;

	target_key(place_id, &key);
	n = key_table_find(&h->targets, &key);
	return n ? key_entry(n, struct home) : NULL;
}

static struct home *target_get(struct holders *h, struct member *mb)
{
	struct home *t = target_find(h, mb->place_id);

	if (!t) {
		t = calloc(1, sizeof(*t));
		if (!t)
			return NULL;
		target_key(mb->place_id, &t->node.key);
		t->h = h;
		list_init(&t->pending);
		list_init(&t->sending);
		list_init(&t->sent);
		t->due_ms = t->again_ms = UINT64_MAX;
		key_table_add(&h->targets, &t->node);
	}
	t->call.mb = mb;
	return t;
}

/* Frees t if no key has this home and no request is open. */
static void target_put(struct home *t)
{
	if (t->nslots > 0 || t->call.http.x)
		return;
	key_table_del(&t->h->targets, &t->node);
	free(t);
}

static void target_due(struct home *t, uint64_t at_ms)
{
	t->due_ms = at_ms;
	holders_wake(t->h, at_ms);
}

/* All keys of this home are sent again within again_ms, in as many requests as
 * necessary, evenly spread. */
static void target_again(struct home *t, uint64_t now)
{
	uint64_t every = t->h->cfg.again_ms / (t->nslots / BATCH_KEYS + 1);

	t->again_ms = now + holders_random(t->h, every * 3 / 4, every);
	holders_wake(t->h, t->again_ms);
}

/* ---- Slots ---- */

static void slot_pend(struct slot *s)
{
	struct home *t = s->target;

	list_del(&s->node);
	list_add_tail(&t->pending, &s->node);
	if (t->due_ms == UINT64_MAX)
		target_due(t, now_ms() + t->h->cfg.batch_ms);
}

static void slot_join(struct slot *s, struct home *t)
{
	s->target = t;
	t->nslots++;
	slot_pend(s);
}

static void slot_leave(struct holders *h, struct slot *s)
{
	struct home *t = s->target;

	if (s->self)
		home_drop_self(&h->home, &slot_own(s)->node.key);
	s->self = false;
	s->target = NULL;
	list_del(&s->node);
	if (!t)
		return;
	t->nslots--;
	target_put(t);
}

/* ---- Finding homes ---- */

struct homes {
	struct home *v[PLACE_HOMES];
	uint32_t n;
	bool self;
};

static void find_homes(struct holders *h, const struct holder_key *key,
		       struct homes *ret)
{
	struct members *m = h->cfg.members;
	uint32_t v[PLACE_HOMES];
	uint32_t n = place_homes(members_view(m, true), holder_place(key), v);

	*ret = (struct homes){.n = 0};
	for (uint32_t i = 0; i < n; i++) {
		struct member *mb = members_at(m, true, v[i]);
		struct home *t = mb ? target_get(h, mb) : NULL;

		if (!mb)
			ret->self = true;
		else if (t)
			ret->v[ret->n++] = t;
	}
}

/* Takes t off the list. */
static bool take_home(struct homes *l, const struct home *t)
{
	for (uint32_t i = 0; i < l->n; i++) {
		if (l->v[i] != t)
			continue;
		l->v[i] = l->v[--l->n];
		return true;
	}
	return false;
}

static struct slot *free_slot(struct own *o)
{
	for (unsigned int i = 0; i < PLACE_HOMES; i++)
		if (!o->slots[i].self && !o->slots[i].target)
			return &o->slots[i];
	return NULL;
}

/* Announces the key to new homes only. */
static void own_place(struct holders *h, struct own *o)
{
	struct homes homes;

	find_homes(h, &o->node.key, &homes);
	for (unsigned int i = 0; i < PLACE_HOMES; i++) {
		struct slot *s = &o->slots[i];

		if (s->self && homes.self)
			homes.self = false;
		else if (s->self ||
			 (s->target && !take_home(&homes, s->target)))
			slot_leave(h, s);
	}
	if (homes.self) {
		free_slot(o)->self = true;
		(void)home_put(&h->home, &o->node.key, o->size, h->id);
	}
	while (homes.n > 0)
		slot_join(free_slot(o), homes.v[--homes.n]);
}

bool own_work(struct holders *h)
{
	uint64_t until = uv_hrtime() + HOLDERS_SLICE_NS;

	while (!list_empty(&h->unplaced)) {
		struct own *o = list_first(&h->unplaced, struct own, place);

		list_del(&o->place);
		list_add_tail(&h->placed, &o->place);
		own_place(h, o);
		if (uv_hrtime() >= until)
			return !list_empty(&h->unplaced);
	}
	return false;
}

/* Keys that already wait for their homes come first, so that every key has its
 * turn even if the members change again and again. */
void holders_members_changed(struct holders *h)
{
	list_move_all(&h->placed, &h->unplaced);
	holders_kick(h);
	holders_wake(h, now_ms());
}

/* ---- The set of keys ---- */

static void own_del(struct holders *h, struct own *o)
{
	for (unsigned int i = 0; i < PLACE_HOMES; i++)
		slot_leave(h, &o->slots[i]);
	list_del(&o->place);
	key_table_del(&h->own, &o->node);
	free(o);
}

static void own_resize(struct holders *h, struct own *o, uint64_t size)
{
	o->size = size;
	for (unsigned int i = 0; i < PLACE_HOMES; i++) {
		struct slot *s = &o->slots[i];

		if (s->self)
			(void)home_put(&h->home, &o->node.key, size, h->id);
		else if (s->target)
			slot_pend(s);
	}
}

void own_announce(struct holders *h, const struct holder_key *key,
		  uint64_t size)
{
	struct key_node *n = key_table_find(&h->own, key);
	struct own *o = n ? key_entry(n, struct own) : NULL;

	if (o) {
		key_table_touch(&h->own, n);
		if (size > 0 && size != o->size)
			own_resize(h, o, size);
		return;
	}
	if (h->own.n >= h->cfg.max_own)
		own_del(h, key_first(&h->own, struct own));
	o = calloc(1, sizeof(*o));
	if (!o)
		return;
	o->node.key = *key;
	o->size = size;
	for (unsigned int i = 0; i < PLACE_HOMES; i++) {
		o->slots[i].i = (uint8_t)i;
		list_init(&o->slots[i].node);
	}
	key_table_add(&h->own, &o->node);
	list_add_tail(&h->unplaced, &o->place);
}

void own_withdraw(struct holders *h, const struct holder_key *key)
{
	struct key_node *n = key_table_find(&h->own, key);

	if (n)
		own_del(h, key_entry(n, struct own));
}

/* ---- Sending ---- */

static void heard_epoch(struct home *t, const char *epoch, uint64_t now)
{
	if (!epoch || strlen(epoch) >= sizeof(t->epoch) ||
	    strcmp(epoch, t->epoch) == 0)
		return;
	if (t->epoch[0] != '\0' && !list_empty(&t->sent)) {
		list_move_all(&t->sent, &t->pending);
		target_due(t, now);
	}
	(void)snprintf(t->epoch, sizeof(t->epoch), "%s", epoch);
}

void own_heard_epoch(struct holders *h, const struct member *mb,
		     const char *epoch)
{
	struct home *t = target_find(h, mb->place_id);

	if (t)
		heard_epoch(t, epoch, now_ms());
}

static void retry(struct home *t, uint64_t now)
{
	unsigned int n = t->failures < 16 ? t->failures : 16;
	uint64_t wait = min_u64((uint64_t)RETRY_MIN_MS << n, RETRY_MAX_MS);

	t->failures++;
	/* The keys of the failed request come first again. */
	list_move_all(&t->pending, &t->sending);
	list_move_all(&t->sending, &t->pending);
	target_due(t, now + holders_random(t->h, wait / 2, wait));
}

/* Keys that a home refuses for good count as sent; they are sent again in
 * time. */
static void sent(struct home *t, const struct http_answer *a, uint64_t now)
{
	bool taken = a->status / 100 == 2;

	heard_epoch(t, http_header(a->x, HOLDERS_EPOCH, 0), now);
	if (taken)
		list_for_each (it, &t->sending)
			t->h->stats.announcements_sent++;
	else
		log_debug("a member refuses an announcement",
			  LS("peer", t->call.mb ? t->call.mb->name : ""),
			  LU("status", a->status));
	list_move_all(&t->sending, &t->sent);
	t->failures = 0;
	t->due_ms = UINT64_MAX;
	if (!list_empty(&t->pending))
		target_due(t, now);
	if (t->again_ms == UINT64_MAX)
		target_again(t, now);
}

/* 403: the home does not know this node yet. 404: it does not have this route
 * yet. */
static bool is_final(int status)
{
	return status / 100 == 2 || status == 400 || status == 413;
}

static void on_done(struct http_small *s, struct http_answer *a)
{
	struct home *t = container_of(s, struct home, call.http);
	struct holders *h = t->h;
	uint64_t now = now_ms();

	h->nposts--;
	if (!h->closing) {
		if (a->r == 0 && is_final(a->status))
			sent(t, a, now);
		else
			retry(t, now);
		holders_note(h, &t->call, a);
		target_put(t);
		holders_wake(h, now);
	}
	holders_unref(h);
}

/* Moves as many slots as fit from pending to sending. */
static int write_batch(struct home *t, struct buf *out)
{
	const char *comma = "";
	unsigned int n = 0;
	int r;

	r = buf_str(out, "{\"id\":");
	if (r == 0)
		r = json_quote(out, t->h->id);
	if (r == 0)
		r = buf_str(out, ",\"holds\":[");
	while (r == 0 && !list_empty(&t->pending) && n < BATCH_KEYS) {
		struct slot *s = list_first(&t->pending, struct slot, node);
		struct own *o = slot_own(s);
		char key[HOLDER_KEY_SIZE];

		r = buf_printf(out, "%s[\"%s\",%" PRIu64 "]", comma,
			       holder_key_str(&o->node.key, key), o->size);
		list_del(&s->node);
		list_add_tail(&t->sending, &s->node);
		comma = ",";
		n++;
	}
	return r < 0 ? r : buf_str(out, "]}");
}

static int start_post(struct home *t)
{
	CLEANUP(buf_release) struct buf body = BUF_INIT(HOLDERS_BATCH_BYTES);
	CLEANUP(buf_release) struct buf url = BUF_INIT(1024);
	struct http_request rq = {0};
	struct holders *h = t->h;
	int r;

	r = members_request(h->cfg.members, t->call.mb, HOLDERS_PATH, &rq,
			    &url);
	if (r == 0)
		r = write_batch(t, &body);
	if (r < 0)
		return r;
	rq.method = "POST";
	rq.body = body.data;
	rq.body_len = body.len;
	rq.total_timeout_ms = POST_TIMEOUT_MS;
	t->call.start_ms = now_ms();
	t->call.total_ms = POST_TIMEOUT_MS;
	return http_small_start(&t->call.http, h->cfg.client, &rq, 0, true,
				on_done);
}

static void target_post(struct home *t, uint64_t now)
{
	int r = start_post(t);

	if (r < 0) {
		retry(t, now);
		return;
	}
	holders_ref(t->h);
	t->h->nposts++;
	key_table_touch(&t->h->targets, &t->node);
}

static void refresh(struct home *t, uint64_t now)
{
	for (unsigned int n = 0; n < BATCH_KEYS && !list_empty(&t->sent); n++) {
		struct list *s = t->sent.next;

		list_del(s);
		list_add_tail(&t->pending, s);
	}
	t->due_ms = min_u64(t->due_ms, now);
	target_again(t, now);
}

/* Returns when to call again, in ms. The end of a post arms the timer, and so
 * does a change of the living members. */
static uint64_t target_tick(struct home *t, uint64_t now)
{
	if (t->call.http.x || !t->call.mb || !member_lives(t->call.mb))
		return UINT64_MAX;
	/* Not while it waits to retry after a failure. */
	if (t->again_ms <= now && t->failures == 0)
		refresh(t, now);
	if (list_empty(&t->pending))
		t->due_ms = UINT64_MAX;
	if (t->due_ms <= now) {
		if (t->h->nposts < MAX_POSTS)
			target_post(t, now);
		return UINT64_MAX;
	}
	return t->failures > 0 ? t->due_ms : min_u64(t->due_ms, t->again_ms);
}

uint64_t own_tick(struct holders *h, uint64_t now)
{
	uint64_t at = UINT64_MAX;

	list_for_each_safe (it, &h->targets.order) {
		struct home *t = key_at(it, struct home);

		at = min_u64(at, target_tick(t, now));
	}
	return at;
}

/* ---- Beginning and end ---- */

void own_forget(struct holders *h, struct member *mb)
{
	struct home *t = target_find(h, mb->place_id);

	if (!t || t->call.mb != mb)
		return;
	t->call.mb = NULL;
	http_small_cancel(&t->call.http);
}

void own_stop(struct holders *h)
{
	list_for_each (it, &h->targets.order) {
		struct home *t = key_at(it, struct home);

		http_small_cancel(&t->call.http);
	}
}

int own_init(struct holders *h)
{
	int r;

	list_init(&h->placed);
	list_init(&h->unplaced);
	r = key_table_init(&h->own);
	return r < 0 ? r : key_table_init(&h->targets);
}

static void free_own(struct key_node *n)
{
	free(key_entry(n, struct own));
}

static void free_target(struct key_node *n)
{
	free(key_entry(n, struct home));
}

void own_release(struct holders *h)
{
	key_table_release(&h->own, free_own);
	key_table_release(&h->targets, free_target);
}
