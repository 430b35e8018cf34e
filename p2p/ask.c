/* The members as a source of chunks (fetch/source.h): chooses the member,
 * checks its answer, goes to another one if it fails or is late. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "http/range.h"
#include "p2p/peers-private.h"

#define WHY_BYTES 1024
/* How often a range is hedged. */
#define MAX_HEDGES 2
/* A member that brings less than 1/CRAWL_PART of a range in CRAWL_MS crawls. */
#define CRAWL_MS   3000
#define CRAWL_PART 2
/* After so many redirects the owner is asked to serve. */
#define MAX_MOVES 8
/* Until the first byte: an owner may have to wait for upstream. A member that
 * is slow against the others loses its requests long before. */
#define FIRST_BYTE_MS 30000
/* A member that reports for longer than this that it waits for upstream is no
 * help. */
#define PATIENCE_MS 15000
/* While nothing is known of normal durations: a node that waits so long at
 * another member for less than HEARD_LEAST bytes, while other members wait for
 * this node, fetches for itself. */
#define YIELD_MS 500
/* Fewer bytes are no sign of life. */
#define HEARD_LEAST (16u << 10)

static struct metric_family m_asks = {
	.name = "peerd_peer_requests_total",
	.help = "Ranges asked of members, by outcome.",
	.type = METRIC_COUNTER,
	.labels = {"result"},
};

static void count(const char *result)
{
	metric_add(metric_get(&m_asks, (const char *const[]){result}), 1);
}

/* Values of source_request.place: the member had the bytes, or was asked to
 * fetch them. */
enum { PLACE_HELD = 1, PLACE_FETCHED };

/* ---- Names ---- */

int origin_path(const char *origin, const struct blob_key *key, struct buf *out)
{
	static const char scheme[] = "registry://";
	char s[DIGEST_STR_SIZE];
	const char *host, *name;

	if (!origin || strncmp(origin, scheme, sizeof(scheme) - 1) != 0) {
		if (origin)
			return buf_printf(out, "/blobs/%s", origin);
		return buf_printf(out, "/v2/peerd/blobs/%s",
				  digest_str(&key->id, s));
	}
	host = origin + sizeof(scheme) - 1;
	name = strchr(host, '/');
	if (!name)
		return -EINVAL;
	return buf_printf(out, "/v2/%s/blobs/%s?ns=%.*s", name + 1,
			  digest_str(&key->id, s), (int)(name - host), host);
}

/* ---- The end of an ask ---- */

static void ask_free(struct ask *a)
{
	list_del(&a->node);
	know_put(a->p, a->know);
	for (unsigned int i = 0; i < a->ntried; i++)
		partner_unref(&a->tried[i]);
	partner_unref(&a->at);
	partner_unref(&a->moved_to);
	buf_release(&a->why);
	free(a);
}

static void ask_end(struct ask *a, int r)
{
	struct source_request *rq = a->rq;
	CLEANUP(freep) char *why = buf_steal(&a->why);

	ask_free(a);
	rq->source_data = NULL;
	rq->done(rq, r, why && *why ? why : "no member has it");
}

static void end_later(struct loop_task *t)
{
	struct ask *a = container_of(t, struct ask, later);

	ask_end(a, a->end_r);
}

bool ask_was_tried(const struct ask *a, const struct partner *w)
{
	for (unsigned int i = 0; i < a->ntried; i++)
		if (a->tried[i] == w)
			return true;
	return false;
}

static void note_tried(struct ask *a, struct partner *w, int r, const char *why)
{
	if (a->ntried < ASK_MAX_TRIED)
		a->tried[a->ntried++] = partner_ref(w);
	if (r == -ETIMEDOUT || a->worst_r == 0 || a->worst_r == -ENOENT)
		a->worst_r = r;
	(void)buf_printf(&a->why, "%s%s: %s", a->why.len ? "; " : "",
			 partner_name(w), why);
}

/* ---- One request ---- */

static uint64_t ask_left(const struct ask *a)
{
	return a->rq->length - a->got;
}

static int check_head(const struct ask *a, struct http_exchange *x,
		      const struct http_response *res)
{
	const char *v = http_header(x, "Content-Range", 0);
	uint64_t first, last, total, off = a->rq->offset + a->got;

	if (!v || content_range_parse(v, &first, &last, &total) < 0)
		return -EBADMSG;
	if (total != blob_size(a->rq->blob) || first != off ||
	    last != off + ask_left(a) - 1)
		return -EBADMSG;
	if (res->content_length >= 0 &&
	    (uint64_t)res->content_length != ask_left(a))
		return -EBADMSG;
	return 0;
}

static void on_moved(struct ask *a, const char *id)
{
	struct partner *w = id ? partner_find(a->p, id) : NULL;

	a->moved = true;
	partner_unref(&a->moved_to);
	if (w && ++a->moves <= MAX_MOVES && partner_alive(w) && w != a->at &&
	    w->slow_ms <= now_ms() && !ask_was_tried(a, w))
		a->moved_to = partner_ref(w);
}

static int on_head(void *arg, struct http_exchange *x,
		   const struct http_response *res)
{
	struct ask *a = arg;
	struct peers *p = a->p;
	const char *load = http_header(x, "Peerd-Load", 0);
	const struct have *h;
	int r;

	a->status = res->status;
	know_read(p, a->know, a->at, http_header(x, "Peerd-Have", 0));
	if (load)
		(void)load_text_parse(load, &a->at->load);
	slow_read(p, a->at, http_header(x, "Peerd-Slow", 0));
	if (res->status == 307) {
		on_moved(a, http_header(x, "Peerd-Ask", 0));
		return 0;
	}
	if (res->status != 206)
		return 0;
	r = check_head(a, x, res);
	if (r < 0)
		return r;
	a->head_ok = true;
	a->head_ns = uv_hrtime();
	/* Only if the member had the chunk already: an owner's first byte may
	 * come from upstream, and that time is no search for a holder. */
	h = know_of(p, a->know, a->at);
	if (p->cfg.observe && a->at->mb && h && have_chunk(h, a->chunk))
		p->cfg.observe(p->cfg.arg, PEERS_DISCOVERY, a->at->mb->addr,
			       (double)(a->head_ns - a->started_ns) / 1e9);
	return 0;
}

static int on_data(void *arg, struct http_exchange *x, const void *bytes,
		   size_t len)
{
	struct ask *a = arg;

	(void)x;
	if (!a->head_ok)
		return 0;
	if (len > ask_left(a))
		return -EBADMSG;
	a->rq->from = a->at->store_id;
	a->rq->place = a->as_holder ? PLACE_HELD : PLACE_FETCHED;
	if (!a->rq->data(a->rq, bytes, len)) {
		a->paused = true;
		return -EAGAIN;
	}
	a->got += len;
	a->at->got_bytes += len;
	pace_add(&a->at->pace, len);
	a->at->heard_bytes += len;
	if (a->at->heard_bytes >= HEARD_LEAST) {
		a->at->heard_bytes = 0;
		a->at->heard_ms = now_ms();
	}
	return 0;
}

static void request_ok(struct ask *a, uint64_t bytes)
{
	struct peers *p = a->p;
	struct partner *w = a->at;
	uint64_t now = now_ms();
	double seconds = (double)(uv_hrtime() - a->head_ns) / 1e9;

	w->heard_ms = now;
	slow_note(p, a->as_holder, now - a->sent_ms, bytes);
	w->slow_times = 0;
	count("ok");
	if (w->mb) {
		members_note(p->members, w->mb, true, NULL);
		if (p->cfg.observe && seconds > 0)
			p->cfg.observe(p->cfg.arg, PEERS_SPEED, w->mb->addr,
				       (double)bytes / (1 << 20) / seconds);
	}
}

static const char *status_text(int status, char out[32])
{
	(void)snprintf(out, 32, "HTTP %d", status);
	return out;
}

/* r 0: the answer was not the range. */
static void request_failed(struct ask *a, int r, int status, const char *why)
{
	struct partner *w = a->at;
	char text[32];

	if (r < 0) {
		w->failures++;
		count(r == -EBADMSG ? "wrong_answer" : "unreachable");
		if (w->mb && r != -EBADMSG)
			members_note(a->p->members, w->mb, false, why);
		note_tried(a, w, r, why);
		return;
	}
	count(status == 404 ? "not_found" : status == 503 ? "busy" : "refused");
	know_lacks(a->know, w, a->chunk);
	if (!a->as_holder && status != 503)
		know_wont(a->p, a->know, w);
	note_tried(a, w, -ENOENT,
		   status == 404 ? "does not have it"
				 : status_text(status, text));
}

static void request_moved(struct ask *a)
{
	if (a->insist && !a->moved_to) {
		request_failed(a, 0, 307, NULL);
		return;
	}
	a->p->redirects_got++;
	count("moved");
	a->insist |= !a->moved_to;
}

static void on_done(void *arg, struct http_exchange *x, int r, const char *why)
{
	struct ask *a = arg;
	struct peers *p = a->p;
	uint64_t bytes = a->got - a->got_before;
	int status = a->status;
	bool done;

	(void)x;
	a->x = NULL;
	a->at->active--;
	done = r == 0 && a->head_ok && ask_left(a) == 0;
	if (done) {
		request_ok(a, bytes);
	} else if (a->cancelled || a->leaving) {
		;
	} else if (r == 0 && a->moved) {
		request_moved(a);
	} else {
		if (r == 0 && a->head_ok)
			r = -ECONNRESET; /* shorter than it promised */
		request_failed(a, r, status, why ? why : "failed");
		/* After a failure no redirect, which could lead in a circle. */
		a->insist = true;
	}
	partner_unref(&a->at);
	if (done || a->cancelled) {
		ask_end(a, done ? 0 : -ECANCELED);
	} else {
		a->waiting = true;
		a->leaving = false;
	}
	asks_pump(p);
}

/* The headers of a request, and memory for their values. */
struct sayings {
	struct http_header h[9];
	size_t n;
	char key[BLOB_TEXT_SIZE], have[HAVE_TEXT_SIZE], load[16];
	char slow[SLOW_TEXT_SIZE];
};

static void say(struct sayings *s, const char *name, const char *value)
{
	s->h[s->n++] = (struct http_header){name, value};
}

static void say_all(const struct ask *a, struct sayings *s)
{
	const struct peers *p = a->p;
	struct blob *b = a->rq->blob;

	s->n = 0;
	(void)snprintf(s->load, sizeof(s->load), "%u", p->nserves);
	say(s, "Peerd-Hop", "1");
	say(s, "Peerd-Blob", blob_text(blob_key(b), blob_size(b), s->key));
	say(s, "Peerd-From", p->cfg.members.id);
	say(s, "Peerd-Have", have_text(b, a->chunk, s->have));
	say(s, "Peerd-Load", s->load);
	if (slow_text(p, s->slow))
		say(s, "Peerd-Slow", s->slow);
	if (!a->as_holder)
		say(s, "Peerd-Fetch", "1");
	if (a->insist)
		say(s, "Peerd-Insist", "1");
}

/* A 102: the owner waits for upstream. */
static void on_informed(void *arg, struct http_exchange *x)
{
	struct ask *a = arg;

	(void)x;
	if (now_ms() - a->sent_ms < PATIENCE_MS)
		a->at->heard_ms = now_ms();
}

static const struct http_callbacks callbacks = {
	.head = on_head,
	.data = on_data,
	.done = on_done,
	.informed = on_informed,
};

/* The first origin of the claim's own place; NULL: none. A member that is asked
 * to fetch takes no other place's bytes for it. */
static const char *own_origin(const struct blob *b,
			      const struct string_list *origins)
{
	for (size_t i = 0; i < origins->n; i++)
		if (!blob_origin_foreign(b, origins->v[i]))
			return origins->v[i];
	return NULL;
}

/* Takes over the caller's reference to w. On an error a->at still holds it. */
static int ask_send(struct ask *a, struct partner *w, bool as_holder)
{
	CLEANUP(buf_release) struct buf path = BUF_INIT(4096);
	CLEANUP(buf_release) struct buf url = BUF_INIT(8192);
	CLEANUP(string_list_release) struct string_list origins = {0};
	struct http_request rq = {0};
	struct sayings says;
	struct peers *p = a->p;
	uint64_t now = now_ms();
	int r;

	a->at = w;
	a->as_holder = as_holder;
	a->head_ok = a->moved = a->leaving = a->waiting = false;
	a->status = 0;
	a->sent_ms = now;
	a->got_before = a->got;
	a->started_ns = a->head_ns = uv_hrtime();
	r = blob_origins(a->rq->blob, &origins);
	if (r == 0)
		r = origin_path(own_origin(a->rq->blob, &origins),
				blob_key(a->rq->blob), &path);
	if (r == 0)
		r = members_request(p->members, w->mb, path.data, &rq, &url);
	if (r < 0)
		return r;
	say_all(a, &says);
	rq.headers = says.h;
	rq.nheaders = says.n;
	rq.has_range = true;
	rq.range_off = a->rq->offset + a->got;
	rq.range_len = ask_left(a);
	rq.first_byte_timeout_ms = FIRST_BYTE_MS;
	rq.total_timeout_ms =
		a->rq->deadline_ms > now ? a->rq->deadline_ms - now : 1;
	r = http_start(p->cfg.client, &rq, &callbacks, a, &a->x);
	if (r == 0 && w->active++ == 0)
		w->heard_ms = now;
	return r;
}

/* ---- Choosing a member ---- */

static bool ask_decide(struct ask *a)
{
	struct peers *p = a->p;
	struct partner *w;
	enum place_verdict v;
	int r;

	if (a->moved_to && partner_alive(a->moved_to)) {
		w = steal_ptr(&a->moved_to);
		v = PLACE_ASK_HOLDER;
	} else {
		partner_unref(&a->moved_to);
		v = a->ntried == ASK_MAX_TRIED
			    ? PLACE_ASK_UPSTREAM
			    : know_choose(p, a->know, a->chunk, a,
					  a->rq->background,
					  a->rq->as_owner || a->as_owner, &w);
		if (v == PLACE_WAIT)
			return false;
		if (v == PLACE_ASK_UPSTREAM) {
			if (know_look(p, a->know))
				return false;
			ask_end(a, a->worst_r ? a->worst_r : -ENOENT);
			return true;
		}
		(void)partner_ref(w);
	}
	r = ask_send(a, w, v == PLACE_ASK_HOLDER);
	if (r < 0) {
		note_tried(a, a->at, r, strerror(-r));
		partner_unref(&a->at);
		a->waiting = true;
		asks_pump(p);
	}
	return true;
}

static void on_pump(struct loop_task *t)
{
	struct peers *p = container_of(t, struct peers, pump);

	if (p->freeing)
		return;
	list_for_each_safe (n, &p->asks) {
		struct ask *a = list_entry(n, struct ask, node);

		a->chunk = (uint32_t)((a->rq->offset + a->got) / CHUNK_SIZE);
		if (a->waiting && !a->cancelled)
			(void)ask_decide(a);
	}
}

void asks_pump(struct peers *p)
{
	p->pump.run = on_pump;
	if (!p->freeing)
		loop_post(p->cfg.loop, &p->pump);
}

/* ---- fetch/source.h ---- */

static struct peers *of(struct source *s)
{
	return container_of(s, struct peers, source);
}

/* Bytes that failed their digest are fetched again from upstream only. Of a
 * blob without a place nobody can be asked whose bytes they would be. */
static bool takes_part(struct peers *p, const struct blob *b)
{
	if (blob_key(b)->kind == BLOB_SHA256 && !blob_key_placed(blob_key(b)) &&
	    !blob_shared(b))
		return false;
	return !p->freeing && members_alive(p->members) > 0 &&
	       !blob_failed(b) && blob_get_state(b) != BLOB_BAD;
}

static uint32_t extent(struct source *s, struct blob *b, uint32_t chunk,
		       uint32_t max, bool as_owner)
{
	struct peers *p = of(s);
	struct partner *w;
	enum place_verdict v;
	struct know *k;
	uint32_t n;

	if (!takes_part(p, b))
		return 0;
	k = know_get(p, blob_key(b), blob_size(b));
	if (!k)
		return 0;
	know_set_owner(p, k, b);
	v = know_choose(p, k, chunk, NULL, true, as_owner, &w);
	n = (uint32_t)min_u64(max, k->stripe - chunk % k->stripe);
	if (v == PLACE_ASK_UPSTREAM)
		n = know_look(p, k) ? 1 : 0;
	else if (v == PLACE_ASK_HOLDER)
		n = 1;
	know_put(p, k);
	return n;
}

static int start(struct source *s, struct source_request *rq)
{
	struct peers *p = of(s);
	struct know *k;
	struct ask *a;

	if (rq->origin || !takes_part(p, rq->blob))
		return -ENOENT;
	a = calloc(1, sizeof(*a));
	k = know_get(p, blob_key(rq->blob), blob_size(rq->blob));
	if (!a || !k) {
		free(a);
		if (k)
			know_put(p, k);
		return -ENOENT;
	}
	a->p = p;
	a->rq = rq;
	a->know = k;
	a->why = BUF_INIT(WHY_BYTES);
	a->waiting = true;
	a->chunk = (uint32_t)(rq->offset / CHUNK_SIZE);
	rq->source_data = a;
	list_add_tail(&p->asks, &a->node);
	arm_peers_tick(p);
	asks_pump(p);
	return 0;
}

/* The ask may wait its turn at a member; with a reader it need not. */
static void hurry(struct source *s, struct source_request *rq)
{
	const struct ask *a = rq->source_data;

	if (a && a->waiting)
		asks_pump(of(s));
}

static void resume(struct source *s, struct source_request *rq)
{
	struct ask *a = rq->source_data;

	(void)s;
	a->paused = false;
	if (a->at)
		a->at->heard_ms = now_ms();
	/* The pause was not the member's fault. */
	a->sent_ms = now_ms();
	a->got_before = a->got;
	if (a->x)
		http_resume(a->x);
}

static void cancel(struct source *s, struct source_request *rq)
{
	struct ask *a = rq->source_data;

	a->cancelled = true;
	if (a->x) {
		http_cancel(a->x);
		return;
	}
	a->end_r = -ECANCELED;
	a->later.run = end_later;
	loop_post(of(s)->cfg.loop, &a->later);
}

static void leave(struct ask *a, int r, const char *why)
{
	note_tried(a, a->at, r, why);
	a->leaving = true;
	http_cancel(a->x);
}

void asks_leave(struct peers *p, const struct partner *w, const char *why)
{
	count("slow");
	list_for_each_safe (n, &p->asks) {
		struct ask *a = list_entry(n, struct ask, node);

		if (a->at == w && a->x && !a->cancelled && !a->leaving)
			leave(a, -ETIMEDOUT, why);
	}
}

struct partner *ask_at(struct peers *p, const struct blob_key *key,
		       uint32_t chunk)
{
	const struct know *k = know_find(p, key);

	list_for_each (n, &p->asks) {
		struct ask *a = list_entry(n, struct ask, node);
		uint64_t at = (uint64_t)chunk * CHUNK_SIZE;

		if (k && a->know == k && a->at &&
		    at + CHUNK_SIZE > a->rq->offset &&
		    at < a->rq->offset + a->rq->length)
			return a->at;
	}
	return NULL;
}

/* Of the open request. */
struct progress {
	uint64_t age_ms, got, len;
};

static struct progress progress_of(const struct ask *a, uint64_t now)
{
	return (struct progress){
		.age_ms = now - a->sent_ms,
		.got = a->got - a->got_before,
		.len = a->rq->length - a->got_before,
	};
}

/* Whether the request would take much longer than a new one does now. */
static bool drags(const struct ask *a, uint64_t now)
{
	struct progress g = progress_of(a, now);
	uint64_t normal = slow_normal_ms(a->p, g.len);

	return normal ? place_is_slow(g.age_ms, g.got, g.len, normal)
		      : g.age_ms >= YIELD_MS && g.got < HEARD_LEAST;
}

bool asks_yield(struct peers *p, const struct blob_key *key, uint32_t chunk,
		const struct partner *w, bool at_once)
{
	const struct know *k = know_find(p, key);
	uint64_t at = (uint64_t)chunk * CHUNK_SIZE, now = now_ms();
	bool any = false;

	list_for_each_safe (n, &p->asks) {
		struct ask *a = list_entry(n, struct ask, node);

		if (!k || a->know != k || a->at != w || !a->x || a->cancelled ||
		    a->leaving || at + CHUNK_SIZE <= a->rq->offset ||
		    at >= a->rq->offset + a->rq->length ||
		    !(at_once || drags(a, now)))
			continue;
		p->yields++;
		count("yielded");
		a->as_owner = true;
		leave(a, -ETIMEDOUT, "other members wait for this node");
		any = true;
	}
	return any;
}

/* Whether there is another member to ask. If upstream is the only one left, the
 * answer is to_upstream. */
static bool has_alternative(struct ask *a, bool to_upstream)
{
	struct partner *w;

	if (a->ntried == ASK_MAX_TRIED)
		return false;
	a->tried[a->ntried++] = a->at;
	(void)know_choose(a->p, a->know, a->chunk, a, false,
			  a->rq->as_owner || a->as_owner, &w);
	a->ntried--;
	return w ? w->slow_ms <= now_ms() : to_upstream;
}

/* Whether it is this node's part to fetch the chunk from upstream, and the
 * holder that it asks crawls. Normal durations say nothing then, because all
 * members wait for the same holder. It costs upstream one copy at most, since
 * the others wait for this node. */
static bool crawls(const struct ask *a, const struct progress *g)
{
	uint32_t order[PLACE_ORDER];
	struct member *mb;

	if (!a->as_holder || g->age_ms < CRAWL_MS ||
	    g->got * CRAWL_PART >= g->len)
		return false;
	if (a->rq->as_owner || a->as_owner)
		return true;
	if (know_order(a->p, a->know, a->chunk, order) == 0)
		return true;
	mb = members_at(a->p->members, false, order[0]);
	return !mb; /* this node is the owner */
}

void asks_hedge(struct peers *p, uint64_t normal_ms, uint64_t now)
{
	list_for_each_safe (n, &p->asks) {
		struct ask *a = list_entry(n, struct ask, node);
		struct progress g = progress_of(a, now);
		bool crawl;

		if (a->rq->background || !a->x || a->cancelled || a->leaving ||
		    a->paused || a->hedges == MAX_HEDGES)
			continue;
		crawl = crawls(a, &g);
		if (!crawl && !place_is_slow(g.age_ms, g.got, g.len,
					     normal_ms * g.len / CHUNK_SIZE))
			continue;
		if (!has_alternative(a, crawl))
			continue;
		a->hedges++;
		count("late");
		leave(a, -EBUSY, "late, while a reader waits");
	}
}

/* Wrong bytes that a member fetched on demand may be those of upstream: they
 * cost it this blob only. */
static void blame(struct source *s, struct blob *b, uint16_t from,
		  uint64_t place)
{
	struct peers *p = of(s);
	struct know *k;

	if (from == CHUNK_FROM_UPSTREAM)
		return;
	if (place != PLACE_FETCHED) {
		peers_bench(p, from);
		return;
	}
	k = know_get(p, blob_key(b), blob_size(b));
	if (!k)
		return;
	list_for_each (n, &p->partners) {
		struct partner *w = list_entry(n, struct partner, node);

		if (w->store_id == from)
			know_wont(p, k, w);
	}
	know_put(p, k);
}

void peers_source_init(struct peers *p)
{
	static const struct source_ops ops = {
		.name = "peers",
		.extent = extent,
		.start = start,
		.hurry = hurry,
		.blame = blame,
		.resume = resume,
		.cancel = cancel,
	};

	list_init(&p->asks);
	p->source.ops = &ops;
	/* Most of them wait for their turn at a member. */
	p->source.max_background = 256;
	metric_register(&m_asks);
}
