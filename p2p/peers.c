#include "p2p/peers-private.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"

#define BENCH_MS 300000

static struct metric_family m_benched = {
	.name = "peerd_benched_members_total",
	.help = "Members that were benched because their bytes failed a "
		"blob's digest.",
	.type = METRIC_COUNTER,
};

/* ---- Partners ---- */

struct partner *partner_ref(struct partner *w)
{
	w->refs++;
	return w;
}

void partner_unref(struct partner **wp)
{
	struct partner *w = steal_ptr(wp);

	if (!w || --w->refs > 0)
		return;
	list_del(&w->node);
	free(w);
}

bool partner_alive(const struct partner *w)
{
	return w->mb && member_lives(w->mb);
}

const char *partner_name(const struct partner *w)
{
	if (!w || !w->mb)
		return "a member that is gone";
	return *w->mb->name ? w->mb->name : w->mb->addr;
}

struct partner *partner_of(struct peers *p, struct member *mb)
{
	struct partner *w = mb->user;

	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->p = p;
	w->mb = mb;
	w->refs = 1;
	w->lived = partner_alive(w);
	w->store_id = store_peer_id(p->cfg.store, mb->id);
	list_add_tail(&p->partners, &w->node);
	mb->user = w;
	return w;
}

struct partner *partner_find(struct peers *p, const char *id)
{
	struct member *mb = members_find(p->members, id);

	return mb ? partner_of(p, mb) : NULL;
}

/* ---- Members ---- */

static void on_changed(void *arg)
{
	struct peers *p = arg;

	slow_members_changed(p);
	holders_members_changed(p->holders);
	if (p->cfg.changed)
		p->cfg.changed(p->cfg.arg, members_alive(p->members));
	asks_pump(p);
}

static void on_forget(void *arg, struct member *mb)
{
	struct peers *p = arg;
	struct partner *w = mb->user;

	if (p->holders)
		holders_forget(p->holders, mb);
	if (!w)
		return;
	mb->user = NULL;
	w->mb = NULL;
	know_forget_partner(p, w);
	given_forget_partner(p, w);
	partner_unref(&w);
}

static void on_looked_up(void *arg, double seconds, bool found)
{
	struct peers *p = arg;

	if (found && p->cfg.observe)
		p->cfg.observe(p->cfg.arg, PEERS_DISCOVERY, "homes", seconds);
}

/* ---- Time ---- */

static void on_tick(uv_timer_t *t)
{
	struct peers *p = t->data;

	serve_tick(p, now_ms());
	slow_tick(p, now_ms());
	if (list_empty(&p->asks) && list_empty(&p->serves)) {
		(void)uv_timer_stop(t);
		p->ticking = false;
	}
}

void arm_peers_tick(struct peers *p)
{
	if (p->ticking)
		return;
	p->ticking = true;
	slow_begin(p, now_ms());
	(void)uv_timer_start(&p->tick, on_tick, TICK_MS, TICK_MS);
}

/* ---- Wrong bytes ----
 *
 * When a blob fails its digest, each member that sent a chunk of it is a
 * suspect. Once the blob was fetched again and is verified, the chunks whose
 * checksums differ from before identify the members to bench. */

#define MAX_SUSPICIONS 64

struct suspect {
	uint32_t chunk, crc;
	uint16_t from;
};

struct suspicion {
	struct loop_task task;
	struct list node; /* in peers.suspicions */
	struct peers *p;
	struct blob *blob; /* a reference */
	uint32_t n;
	struct suspect v[];
};

void peers_bench(struct peers *p, uint16_t store_id)
{
	uint64_t now = now_ms();

	list_for_each_safe (n, &p->partners) {
		struct partner *w = list_entry(n, struct partner, node);

		if (w->store_id != store_id || w->benched_ms > now)
			continue;
		w->benched_ms = now + BENCH_MS;
		w->benched_times++;
		metric_add(metric_get(&m_benched, NULL), 1);
		log_warn("a member is benched: bytes that it sent failed "
			 "their digest",
			 LS("member", partner_name(w)),
			 LU("minutes", BENCH_MS / 60000));
		know_forget_partner(p, w);
	}
}

static void suspicion_free(struct suspicion *s)
{
	list_del(&s->node);
	__atomic_sub_fetch(&s->p->nsuspicions, 1, __ATOMIC_RELAXED);
	blob_unref(&s->blob);
	free(s);
}

static void suspect_posted(struct loop_task *t)
{
	struct suspicion *s = container_of(t, struct suspicion, task);
	struct peers *p = s->p;

	p->mismatches++;
	list_add_tail(&p->suspicions, &s->node);
	if (__atomic_load_n(&p->nsuspicions, __ATOMIC_RELAXED) > MAX_SUSPICIONS)
		suspicion_free(
			list_first(&p->suspicions, struct suspicion, node));
}

/* On a store thread. */
static void mismatch(struct peers *p, struct blob *b)
{
	uint32_t nchunks = blob_chunks(b);
	struct suspicion *s = calloc(1, sizeof(*s) + nchunks * sizeof(s->v[0]));

	if (!s)
		return;
	for (uint32_t c = 0; c < nchunks; c++) {
		uint16_t from = blob_chunk_from(b, c);

		if (from != CHUNK_FROM_UPSTREAM)
			s->v[s->n++] =
				(struct suspect){.chunk = c,
						 .crc = blob_chunk_crc(b, c),
						 .from = from};
	}
	if (s->n == 0) {
		free(s);
		return;
	}
	s->p = p;
	s->blob = blob_ref(b);
	list_init(&s->node);
	__atomic_add_fetch(&p->nsuspicions, 1, __ATOMIC_RELAXED);
	s->task.run = suspect_posted;
	loop_post(p->cfg.loop, &s->task);
}

static void convict(struct suspicion *s)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (blob_chunk_crc(s->blob, s->v[i].chunk) != s->v[i].crc)
			peers_bench(s->p, s->v[i].from);
	suspicion_free(s);
}

struct verified {
	struct loop_task task;
	struct peers *p;
	struct blob *blob;
};

static void verified_posted(struct loop_task *t)
{
	struct verified *e = container_of(t, struct verified, task);

	list_for_each_safe (n, &e->p->suspicions) {
		struct suspicion *s = list_entry(n, struct suspicion, node);

		if (s->blob == e->blob)
			convict(s);
	}
	blob_unref(&e->blob);
	free(e);
}

/* On a store thread. */
static void verified(struct peers *p, struct blob *b)
{
	struct verified *e;

	if (__atomic_load_n(&p->nsuspicions, __ATOMIC_RELAXED) == 0)
		return;
	e = calloc(1, sizeof(*e));
	if (!e)
		return;
	e->p = p;
	e->blob = blob_ref(b);
	e->task.run = verified_posted;
	loop_post(p->cfg.loop, &e->task);
}

/* ---- Announcements ---- */

void peers_announce(struct peers *p, const struct blob_key *key, uint64_t size)
{
	struct holder_key k = holder_key_of(key);

	holders_announce(p->holders, &k, size);
}

void peers_blob_event(struct peers *p, struct blob *b, enum blob_event ev)
{
	struct holder_key key;

	if (ev == BLOB_EV_MISMATCH)
		mismatch(p, b);
	if (ev == BLOB_EV_VERIFIED)
		verified(p, b);
	if (ev == BLOB_EV_VERIFIED || ev == BLOB_EV_COMMITTED)
		peers_announce(p, blob_key(b), blob_size(b));
	if (ev == BLOB_EV_EMPTIED) {
		key = holder_key_of(blob_key(b));
		holders_withdraw(p->holders, &key);
	}
}

/* ---- State as JSON ---- */

static const char *state_text(const struct partner *w, const struct member *mb,
			      uint64_t now)
{
	static const char *const names[] = {
		[MEMBER_NEW] = "new",
		[MEMBER_ALIVE] = "alive",
		[MEMBER_SUSPECT] = "suspect",
		[MEMBER_GONE] = "gone",
	};

	if (w && w->benched_ms > now)
		return "benched";
	if (w && w->slow_ms > now && mb->state == MEMBER_ALIVE)
		return "slow";
	return names[mb->state];
}

static void add_member(void *arg, struct member *mb)
{
	const struct partner *w = mb->user;
	uint64_t now = now_ms();
	json_t *v = json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I,"
		" s:s}",
		"id", mb->id, "name", mb->name, "address", mb->addr, "zone",
		mb->zone, "version", mb->version, "state",
		state_text(w, mb, now), "rtt_ms", mb->rtt_ms, "heard_ms_ago",
		(json_int_t)(mb->heard_ms ? now - mb->heard_ms : 0),
		"received_bytes", (json_int_t)(w ? w->got_bytes : 0),
		"sent_bytes", (json_int_t)(w ? w->sent_bytes : 0),
		"open_requests", (json_int_t)(w ? w->active : 0), "benched",
		(json_int_t)(w ? w->benched_times : 0), "why",
		mb->state == MEMBER_ALIVE ? "" : mb->why);

	if (v)
		(void)json_array_append_new(arg, v);
}

int peers_json(struct peers *p, struct buf *out)
{
	CLEANUP(json_decrefp) json_t *v = NULL;
	json_t *list = json_array();
	struct holders_stats hs;
	int r;

	if (!list)
		return -ENOMEM;
	members_each(p->members, add_member, list);
	holders_stats(p->holders, &hs);
	v = json_pack(
		"{s:{s:s, s:s, s:s}, s:o, s:{s:I, s:I, s:I, s:I, s:I, s:I},"
		" s:{s:I, s:I, s:I, s:I}}",
		"self", "id", p->cfg.members.id, "name", p->cfg.members.name,
		"zone", p->cfg.members.zone, "peers", list, "transfers",
		"takeovers", (json_int_t)p->takeovers, "redirected",
		(json_int_t)p->redirects_got, "redirects_sent",
		(json_int_t)p->redirects_sent, "mismatches",
		(json_int_t)p->mismatches, "served_bytes",
		(json_int_t)p->served_bytes, "serving", (json_int_t)p->nserves,
		"holders", "announced", (json_int_t)hs.own, "kept",
		(json_int_t)hs.keys, "finds", (json_int_t)hs.finds, "found",
		(json_int_t)hs.found);
	if (!v)
		return -ENOMEM;
	r = json_dump(v, out);
	return r < 0 ? r : buf_str(out, "\n");
}

/* ---- Start and end ---- */

struct members *peers_members(struct peers *p)
{
	return p->members;
}

struct source *peers_source(struct peers *p)
{
	return &p->source;
}

struct other_nodes *peers_other_nodes(struct peers *p)
{
	return &p->for_registry;
}

int peers_new(const struct peers_config *cfg, struct peers **ret,
	      struct error *err)
{
	struct peers *p = calloc(1, sizeof(*p));
	struct holders_config hc;
	int r;

	if (!p)
		return set_error(err, -ENOMEM, "out of memory");
	p->cfg = *cfg;
	list_init(&p->partners);
	list_init(&p->knows);
	list_init(&p->suspicions);
	for (int i = 0; i < KNOW_HASH; i++)
		list_init(&p->know_hash[i]);
	peers_source_init(p);
	serve_init(p);
	meta_init(p);
	metric_register(&m_benched);
	p->cfg.members.loop = cfg->loop;
	p->cfg.members.client = cfg->client;
	p->cfg.members.changed = on_changed;
	p->cfg.members.forget = on_forget;
	p->cfg.members.arg = p;
	r = members_new(&p->cfg.members, &p->members, err);
	if (r < 0) {
		free(p);
		return r;
	}
	hc = (struct holders_config){
		.loop = cfg->loop,
		.client = cfg->client,
		.members = p->members,
		.id = p->cfg.members.id,
		.looked_up = on_looked_up,
		.arg = p,
	};
	r = holders_new(&hc, &p->holders);
	if (r < 0) {
		members_free(&p->members);
		free(p);
		return set_error(err, r, "peers: %s", strerror(-r));
	}
	(void)uv_timer_init(loop_uv(cfg->loop), &p->tick);
	p->tick.data = p;
	*ret = p;
	return 0;
}

static void maybe_free(struct peers *p)
{
	if (!p->closed || p->jobs > 0)
		return;
	loop_cancel(p->cfg.loop, &p->pump);
	free(p);
}

void peers_job_ended(struct peers *p)
{
	p->jobs--;
	maybe_free(p);
}

static void on_closed(uv_handle_t *h)
{
	struct peers *p = h->data;

	p->closed = true;
	maybe_free(p);
}

/* Requests that are still open may hold references. */
static void let_partners_go(struct peers *p)
{
	while (!list_empty(&p->partners)) {
		struct partner *w =
			list_first(&p->partners, struct partner, node);

		list_del(&w->node);
		if (w->mb) {
			w->mb->user = NULL;
			w->mb = NULL;
			partner_unref(&w);
		}
	}
}

void peers_free(struct peers **pp)
{
	struct peers *p = steal_ptr(pp);

	if (!p)
		return;
	p->freeing = true;
	holders_free(&p->holders);
	meta_free_all(p);
	know_free_all(p);
	given_free_all(p);
	while (!list_empty(&p->suspicions))
		suspicion_free(
			list_first(&p->suspicions, struct suspicion, node));
	let_partners_go(p);
	members_free(&p->members);
	uv_close((uv_handle_t *)&p->tick, on_closed);
}
