#include "p2p/holders.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "p2p/holders-private.h"

#define BATCH_MS 100
#define NONE_MS	 500
#define FOUND_MS 5000
/* Limits of the timer: at most IDLE_MS, at least TICK_MS. */
#define IDLE_MS 60000
#define TICK_MS 5

/* An announcement or a withdrawal by another thread. */
struct news {
	struct list node;
	struct holder_key key;
	uint64_t size;
	bool gone;
};

/* ---- The task and the timer ---- */

static void free_news(struct list *l)
{
	while (!list_empty(l)) {
		struct news *n = list_first(l, struct news, node);

		list_del(&n->node);
		free(n);
	}
}

void holders_ref(struct holders *h)
{
	h->refs++;
}

void holders_unref(struct holders *h)
{
	if (--h->refs > 0)
		return;
	find_release(h);
	own_release(h);
	home_release(&h->home);
	free_news(&h->reading);
	free_news(&h->news);
	(void)pthread_mutex_destroy(&h->mu);
	free(h);
}

void holders_kick(struct holders *h)
{
	loop_post(h->cfg.loop, &h->task);
}

/* Returns whether there is news to read. While older news is being read,
 * further news stays in h->news, whose length is bounded. */
static bool take_news(struct holders *h)
{
	(void)pthread_mutex_lock(&h->mu);
	if (list_empty(&h->reading)) {
		list_move_all(&h->news, &h->reading);
		h->nnews = 0;
	}
	(void)pthread_mutex_unlock(&h->mu);
	return !list_empty(&h->reading);
}

static void read_news(struct holders *h)
{
	uint64_t until = uv_hrtime() + HOLDERS_SLICE_NS;

	while (take_news(h)) {
		struct news *n = list_first(&h->reading, struct news, node);

		list_del(&n->node);
		if (n->gone)
			own_withdraw(h, &n->key);
		else
			own_announce(h, &n->key, n->size);
		free(n);
		if (uv_hrtime() >= until)
			return;
	}
}

static void on_task(struct loop_task *t)
{
	struct holders *h = container_of(t, struct holders, task);

	if (!h->closing) {
		/* A callback in find_work() may call holders_free(). */
		find_work(h);
		if (h->closing)
			return;
		read_news(h);
		if (own_work(h) || take_news(h))
			holders_kick(h);
		return;
	}
	find_work(h);
	holders_unref(h);
}

static void on_timer(uv_timer_t *t);

static void arm(struct holders *h, uint64_t now, uint64_t at)
{
	uint64_t wait = at > now ? at - now : 0;

	wait = max_u64(min_u64(wait, IDLE_MS), TICK_MS);
	h->timer_ms = now + wait;
	(void)uv_timer_start(&h->timer, on_timer, wait, 0);
}

static void on_timer(uv_timer_t *t)
{
	struct holders *h = t->data;
	uint64_t now = now_ms(), at;

	h->timer_ms = UINT64_MAX;
	at = own_tick(h, now);
	at = min_u64(at, home_sweep(&h->home, now));
	if (at < h->timer_ms)
		arm(h, now, at);
}

void holders_wake(struct holders *h, uint64_t at_ms)
{
	if (!h->closing && at_ms < h->timer_ms)
		arm(h, now_ms(), at_ms);
}

/* ---- Shared ---- */

uint64_t holders_random(struct holders *h, uint64_t lo, uint64_t hi)
{
	h->random ^= h->random << 13;
	h->random ^= h->random >> 7;
	h->random ^= h->random << 17;
	return lo + h->random % (hi - lo + 1);
}

/* A request that timed out before it got a connection says nothing about the
 * member, and neither does an answer of 3xx or 4xx. */
void holders_note(struct holders *h, const struct holders_call *c,
		  const struct http_answer *a)
{
	double connect_ms = 0, first_byte_ms = 0;
	bool ok = a->r == 0 && a->status / 100 == 2;

	if (!c->mb || a->r == -ECANCELED ||
	    (a->r == 0 && a->status / 100 < 5 && !ok))
		return;
	http_timing(a->x, &connect_ms, &first_byte_ms);
	if (a->r == -ETIMEDOUT && connect_ms <= 0 &&
	    now_ms() - c->start_ms >= c->total_ms)
		return;
	members_note(h->cfg.members, c->mb, ok,
		     ok		? NULL
		     : a->r < 0 ? a->why
				: "error status in its answer about holders");
}

uint64_t holder_place(const struct holder_key *key)
{
	uint8_t b[1 + DIGEST_BYTES] = {(uint8_t)key->kind};

	memcpy(b + 1, key->id.sha256, DIGEST_BYTES);
	return place_hash(b, sizeof(b));
}

/* ---- From any thread ---- */

/* If memory is short the news is lost, as if the homes had forgotten it. */
static void tell(struct holders *h, const struct holder_key *key, uint64_t size,
		 bool gone)
{
	struct news *n = malloc(sizeof(*n)), *old = NULL;

	if (!n)
		return;
	*n = (struct news){.key = *key, .size = size, .gone = gone};
	(void)pthread_mutex_lock(&h->mu);
	if (h->nnews >= h->cfg.max_own) {
		old = list_first(&h->news, struct news, node);
		list_del(&old->node);
		h->nnews--;
	}
	list_add_tail(&h->news, &n->node);
	h->nnews++;
	holders_kick(h);
	(void)pthread_mutex_unlock(&h->mu);
	free(old);
}

void holders_announce(struct holders *h, const struct holder_key *key,
		      uint64_t size)
{
	tell(h, key, size, false);
}

void holders_withdraw(struct holders *h, const struct holder_key *key)
{
	tell(h, key, 0, true);
}

/* ---- Beginning and end ---- */

static void fill_in(struct holders_config *c)
{
	if (c->batch_ms == 0)
		c->batch_ms = BATCH_MS;
	if (c->again_ms == 0)
		c->again_ms = HOLDERS_AGAIN_MS;
	if (c->ttl_ms == 0)
		c->ttl_ms = HOLDERS_TTL_MS;
	if (c->none_ms == 0)
		c->none_ms = NONE_MS;
	if (c->found_ms == 0)
		c->found_ms = FOUND_MS;
	if (c->max_own == 0)
		c->max_own = HOLDERS_MAX_OWN;
	if (c->max_keys == 0)
		c->max_keys = HOLDERS_MAX_KEYS;
}

static int init(struct holders *h)
{
	uint64_t seed[2] = {0};
	int r;

	if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
		seed[0] = seed[1] = uv_hrtime();
	h->random = seed[0] | 1; /* never 0 */
	(void)snprintf(h->epoch, sizeof(h->epoch), "%016" PRIx64, seed[1]);
	r = home_init(&h->home, h->cfg.members, h->id, h->cfg.ttl_ms,
		      h->cfg.max_keys);
	if (r == 0)
		r = own_init(h);
	if (r == 0)
		r = find_init(h);
	if (r < 0)
		return r;
	h->task.run = on_task;
	h->timer.data = h;
	h->timer_ms = UINT64_MAX;
	return uv_timer_init(loop_uv(h->cfg.loop), &h->timer);
}

int holders_new(const struct holders_config *cfg, struct holders **ret)
{
	struct holders *h;
	int r;

	if (strlen(cfg->id) >= sizeof(h->id))
		return -EINVAL;
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->cfg = *cfg;
	fill_in(&h->cfg);
	(void)snprintf(h->id, sizeof(h->id), "%s", cfg->id);
	h->cfg.id = h->id;
	h->refs = 1;
	list_init(&h->news);
	list_init(&h->reading);
	r = pthread_mutex_init(&h->mu, NULL);
	BUG_ON(r != 0);
	r = init(h);
	if (r < 0) {
		holders_unref(h);
		return r;
	}
	h->refs = 2; /* the timer, and the last turn of the task */
	*ret = h;
	return 0;
}

static void on_closed(uv_handle_t *t)
{
	holders_unref(t->data);
}

void holders_free(struct holders **ph)
{
	struct holders *h = *ph;

	if (!h)
		return;
	*ph = NULL;
	h->closing = true;
	own_stop(h);
	find_stop(h);
	uv_close((uv_handle_t *)&h->timer, on_closed);
	holders_kick(h);
}

void holders_forget(struct holders *h, struct member *mb)
{
	own_forget(h, mb);
	find_forget(h, mb);
}

void holders_stats(struct holders *h, struct holders_stats *ret)
{
	*ret = h->stats;
	ret->own = h->own.n;
	ret->keys = h->home.keys.n;
}
