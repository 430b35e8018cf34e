/* Asks homes for the holders of a key. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/metrics.h"
#include "p2p/holders-msg.h"
#include "p2p/holders-private.h"
#include "store/store.h"

/* Lookups at once, and remembered results. */
#define MAX_ASKING 1024
#define MAX_KNOWN  4096
/* Homes are on the LAN. The deadline is longer for a home with a long round
 * trip. */
#define FIRST_BYTE_MIN_MS 300
#define FIRST_BYTE_MAX_MS 2000
#define FIRST_BYTE_RTTS	  8
#define CONNECT_MIN_MS	  500
#define BODY_MS		  500

static struct metric_family m_lookups = {
	.name = "peerd_holder_lookups_total",
	.help = "Lookups of holders, by result.",
	.type = METRIC_COUNTER,
	.labels = {"result"},
};

/* The lookup of a key while homes are asked, then its remembered result. */
struct search {
	struct key_node node;
	struct holders *h;
	struct list state;   /* in holders->asking or known */
	struct list tell;    /* in holders->telling, or empty */
	struct list waiters; /* struct search_waiter */
	bool is_known;
	bool telling; /* callbacks of its waiters are being called */

	/* While homes are asked. */
	struct member *homes[PLACE_HOMES]; /* NULL once forgotten */
	uint32_t nhomes, next;
	struct holders_call call;
	uint64_t start_ns;

	/* The result. r is 0 as soon as one home has answered. */
	int r;
	uint64_t until_ms;
	uint64_t size;
	unsigned int n;
	struct member *v[HOLDERS_PER_KEY];
};

struct search_waiter {
	struct list node; /* in search->waiters or holders->failing */
	struct list all;  /* in holders->waiters */
	holders_cb *cb;
	void *arg;
	int r; /* of a waiter in holders->failing */
};

/* ---- Answers ---- */

static bool ask_has(const struct search *a, const struct member *mb)
{
	for (unsigned int i = 0; i < a->n; i++)
		if (a->v[i] == mb)
			return true;
	return false;
}

/* -EBADMSG: malformed. Leaves out this node, members that are not known and
 * members that are gone. */
static int read_answer(struct search *a, const struct buf *body)
{
	CLEANUP(holders_answer_release) struct holders_answer answer = {0};
	struct members *m = a->h->cfg.members;
	int r = holders_answer_parse(body->data, body->len, &answer);

	if (r < 0)
		return r;
	for (size_t i = 0; i < answer.n; i++) {
		const char *id = holders_answer_id(&answer, i);
		struct member *mb;

		if (strcmp(id, a->h->id) == 0 || a->n == HOLDERS_PER_KEY)
			continue;
		mb = members_find(m, id);
		if (mb && member_lives(mb) && !ask_has(a, mb))
			a->v[a->n++] = mb;
	}
	a->size = answer.size;
	return 0;
}

static void ask_end(struct search *a)
{
	struct holders *h = a->h;
	uint64_t keep = a->n > 0 ? h->cfg.found_ms : h->cfg.none_ms;

	if (a->n > 0)
		a->r = 0;
	a->is_known = true;
	a->until_ms = now_ms() + keep;
	list_del(&a->state);
	list_add_tail(&h->known, &a->state);
	h->nasking--;
	metric_add(a->n > 0   ? h->m_found
		   : a->r < 0 ? h->m_failed
			      : h->m_none,
		   1);
	if (h->cfg.looked_up)
		h->cfg.looked_up(h->cfg.arg,
				 (double)(uv_hrtime() - a->start_ns) / 1e9,
				 a->n > 0);
	if (list_empty(&a->waiters))
		return;
	list_add_tail(&h->telling, &a->tell);
	holders_kick(h);
}

/* ---- One home after the other ---- */

static void ask_next(struct search *a);

static void on_done(struct http_small *s, struct http_answer *ans)
{
	struct search *a = container_of(s, struct search, call.http);
	struct holders *h = a->h;
	int answer = ans->r < 0 ? ans->r : -EIO;

	if (h->closing) {
		holders_unref(h);
		return;
	}
	if (ans->r == 0 && ans->status == 200) {
		ans->r = answer = read_answer(a, &ans->body);
		ans->why = "malformed answer about holders";
	}
	if (answer < 0)
		a->n = 0;
	if (answer == 0 || a->r < 0)
		a->r = answer;
	if (answer == 0 && a->call.mb)
		own_heard_epoch(h, a->call.mb,
				http_header(ans->x, HOLDERS_EPOCH, 0));
	holders_note(h, &a->call, ans);
	a->call.mb = NULL;
	if (a->n > 0)
		ask_end(a);
	else
		ask_next(a);
	holders_unref(h);
}

static uint32_t first_byte_ms(const struct member *mb)
{
	double ms = mb->rtt_ms * FIRST_BYTE_RTTS;

	if (ms < FIRST_BYTE_MIN_MS)
		return FIRST_BYTE_MIN_MS;
	return ms > FIRST_BYTE_MAX_MS ? FIRST_BYTE_MAX_MS : (uint32_t)ms;
}

static int ask_member(struct search *a, struct member *mb)
{
	CLEANUP(buf_release) struct buf url = BUF_INIT(1024);
	char key[HOLDER_KEY_SIZE],
		path[sizeof(HOLDERS_PATH "?key=") + HOLDER_KEY_SIZE];
	struct http_request rq = {0};
	struct holders *h = a->h;
	uint32_t wait = first_byte_ms(mb);
	int r;

	(void)snprintf(path, sizeof(path), HOLDERS_PATH "?key=%s",
		       holder_key_str(&a->node.key, key));
	r = members_request(h->cfg.members, mb, path, &rq, &url);
	if (r < 0)
		return r;
	rq.first_byte_timeout_ms = wait;
	rq.connect_timeout_ms = wait > CONNECT_MIN_MS ? wait : CONNECT_MIN_MS;
	rq.total_timeout_ms = (uint64_t)wait + rq.connect_timeout_ms + BODY_MS;
	a->call = (struct holders_call){.mb = mb,
					.start_ms = now_ms(),
					.total_ms = rq.total_timeout_ms};
	r = http_small_start(&a->call.http, h->cfg.client, &rq,
			     HOLDERS_ANSWER_BYTES, false, on_done);
	if (r < 0)
		a->call.mb = NULL;
	else
		holders_ref(h);
	return r;
}

static void ask_next(struct search *a)
{
	while (a->next < a->nhomes) {
		struct member *mb = a->homes[a->next++];
		int r;

		if (!mb || !member_lives(mb))
			continue;
		r = ask_member(a, mb);
		if (r == 0)
			return;
		if (a->r < 0)
			a->r = r;
	}
	ask_end(a);
}

/* Suspect members come last: each may cost a deadline. */
static void add_homes(struct search *a, const uint32_t *v, uint32_t n,
		      enum member_state state)
{
	for (uint32_t i = 0; i < n; i++) {
		struct member *mb = members_at(a->h->cfg.members, true, v[i]);

		if (mb && mb->state == state)
			a->homes[a->nhomes++] = mb;
		else if (!mb)
			a->r = 0;
	}
}

/* The own notes of this node cost nothing, whether it is a home or not. */
static void ask_begin(struct search *a)
{
	const struct place_view *all = members_view(a->h->cfg.members, true);
	uint32_t v[PLACE_HOMES];
	uint32_t n = place_homes(all, holder_place(&a->node.key), v);
	bool self;

	a->start_ns = uv_hrtime();
	a->is_known = false;
	a->r = -EHOSTUNREACH;
	a->nhomes = a->next = 0;
	add_homes(a, v, n, MEMBER_ALIVE);
	add_homes(a, v, n, MEMBER_SUSPECT);
	a->n = home_find(&a->h->home, &a->node.key, &a->size, a->v, &self);
	if (a->n > 0)
		ask_end(a);
	else
		ask_next(a);
}

/* ---- What is remembered ---- */

static bool is_fresh(const struct search *a)
{
	if (!a->is_known || a->telling || !list_empty(&a->tell))
		return true;
	if (now_ms() >= a->until_ms)
		return false;
	for (unsigned int i = 0; i < a->n; i++)
		if (member_lives(a->v[i]))
			return true;
	return a->n == 0;
}

static void ask_free(struct key_node *n)
{
	free(key_entry(n, struct search));
}

static void forget_one(struct holders *h)
{
	struct search *a = list_first(&h->known, struct search, state);

	/* A search whose waiters are still to be told was used in this turn,
	 * and so were all that follow it. */
	if (a->telling || !list_empty(&a->tell))
		return;
	list_del(&a->state);
	key_table_del(&h->asks, &a->node);
	ask_free(&a->node);
}

static struct search *ask_new(struct holders *h, const struct holder_key *key)
{
	struct search *a;

	if (h->asks.n - h->nasking >= MAX_KNOWN)
		forget_one(h);
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->h = h;
	a->node.key = *key;
	list_init(&a->state);
	list_init(&a->tell);
	list_init(&a->waiters);
	key_table_add(&h->asks, &a->node);
	return a;
}

static void waiter_fail(struct holders *h, struct search_waiter *w, int r)
{
	w->r = r;
	list_del(&w->node);
	list_add_tail(&h->failing, &w->node);
	holders_kick(h);
}

static void ask_wait(struct search *a, struct search_waiter *w)
{
	struct holders *h = a->h;

	list_add_tail(&a->waiters, &w->node);
	if (!a->is_known)
		return;
	metric_add(h->m_remembered, 1);
	list_del(&a->state);
	list_add_tail(&h->known, &a->state);
	list_del(&a->tell);
	list_add_tail(&h->telling, &a->tell);
	holders_kick(h);
}

int holders_find(struct holders *h, const struct holder_key *key,
		 holders_cb *cb, void *arg)
{
	struct key_node *n = key_table_find(&h->asks, key);
	struct search *a = n ? key_entry(n, struct search) : NULL;
	bool begin = !a || !is_fresh(a);
	struct search_waiter *w = malloc(sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = (struct search_waiter){.cb = cb, .arg = arg};
	list_init(&w->node);
	list_add_tail(&h->waiters, &w->all);
	h->stats.finds++;
	if (begin && h->nasking >= MAX_ASKING) {
		waiter_fail(h, w, -EBUSY);
		return 0;
	}
	if (!a)
		a = ask_new(h, key);
	if (!a) {
		waiter_fail(h, w, -ENOMEM);
		return 0;
	}
	if (begin) {
		list_add_tail(&a->waiters, &w->node);
		list_del(&a->state);
		list_add_tail(&h->asking, &a->state);
		h->nasking++;
		ask_begin(a);
	} else {
		ask_wait(a, w);
	}
	return 0;
}

/* ---- Telling ---- */

static void tell(struct holders *h, struct search_waiter *w,
		 const struct search *a)
{
	struct member *v[HOLDERS_PER_KEY];
	unsigned int n = 0;
	holders_cb *cb = w->cb;
	void *arg = w->arg;
	int r = w->r;

	for (unsigned int i = 0; a && i < a->n; i++)
		if (a->v[i]->state == MEMBER_ALIVE)
			v[n++] = a->v[i];
	for (unsigned int i = 0; a && i < a->n; i++)
		if (a->v[i]->state == MEMBER_SUSPECT)
			v[n++] = a->v[i];
	list_del(&w->node);
	list_del(&w->all);
	free(w);
	if (n > 0)
		h->stats.found++;
	cb(arg, a ? a->r : r, a ? a->size : 0, v, n);
}

/* A callback may start or cancel lookups, and even free holders. A lookup
 * started in a callback gets its result in the next turn. */
static void tell_all(struct search *a)
{
	struct list l;

	list_init(&l);
	list_move_all(&a->waiters, &l);
	a->telling = true;
	while (!list_empty(&l))
		tell(a->h, list_first(&l, struct search_waiter, node), a);
	a->telling = false;
}

void find_work(struct holders *h)
{
	struct list asks, failing;

	list_init(&asks);
	list_init(&failing);
	list_move_all(&h->telling, &asks);
	list_move_all(&h->failing, &failing);
	while (!list_empty(&asks)) {
		struct search *a = list_first(&asks, struct search, tell);

		list_del(&a->tell);
		tell_all(a);
	}
	while (!list_empty(&failing))
		tell(h, list_first(&failing, struct search_waiter, node), NULL);
}

void holders_cancel(struct holders *h, void *arg)
{
	list_for_each_safe (it, &h->waiters) {
		struct search_waiter *w =
			list_entry(it, struct search_waiter, all);

		if (w->arg != arg)
			continue;
		list_del(&w->node);
		list_del(&w->all);
		free(w);
	}
}

/* ---- Beginning and end ---- */

static void forget_in(struct list *asks, const struct member *mb)
{
	list_for_each (it, asks) {
		struct search *a = list_entry(it, struct search, state);

		for (unsigned int i = a->n; i-- > 0;)
			if (a->v[i] == mb)
				a->v[i] = a->v[--a->n];
		for (uint32_t i = 0; !a->is_known && i < a->nhomes; i++)
			if (a->homes[i] == mb)
				a->homes[i] = NULL;
		if (a->call.mb != mb)
			continue;
		a->call.mb = NULL;
		http_small_cancel(&a->call.http);
	}
}

void find_forget(struct holders *h, struct member *mb)
{
	forget_in(&h->asking, mb);
	forget_in(&h->known, mb);
}

void find_stop(struct holders *h)
{
	list_for_each (it, &h->asking) {
		struct search *a = list_entry(it, struct search, state);

		http_small_cancel(&a->call.http);
	}
	list_for_each (it, &h->waiters)
		waiter_fail(h, list_entry(it, struct search_waiter, all),
			    -ECANCELED);
}

int find_init(struct holders *h)
{
	static const char *const results[] = {"found", "none", "failed",
					      "remembered"};
	struct metric_series **const series[] = {
		&h->m_found, &h->m_none, &h->m_failed, &h->m_remembered};

	for (size_t i = 0; i < ARRAY_SIZE(results); i++)
		*series[i] = metric_get(&m_lookups,
					(const char *const[]){results[i]});
	list_init(&h->asking);
	list_init(&h->known);
	list_init(&h->waiters);
	list_init(&h->telling);
	list_init(&h->failing);
	return key_table_init(&h->asks);
}

void find_release(struct holders *h)
{
	key_table_release(&h->asks, ask_free);
}
