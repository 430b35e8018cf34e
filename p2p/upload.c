/* Requests of other members. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/ref.h"
#include "http/range.h"
#include "http/url.h"
#include "p2p/peers-private.h"

/* Beyond upload_slots, requests are redirected; beyond so many times that, they
 * get a 503. */
#define HARD_FACTOR 4
#define INFORM_MS   500

static struct metric_family m_served = {
	.name = "peerd_peer_served_requests_total",
	.help = "Ranges that members asked for, by answer.",
	.type = METRIC_COUNTER,
	.labels = {"result"},
};
static struct metric_family m_bytes = {
	.name = "peerd_peer_served_bytes_total",
	.help = "Bytes of blobs sent to members.",
	.type = METRIC_COUNTER,
};

struct serving {
	struct list node; /* in peers.serves */
	struct peers *p;
	struct http_req *rq;  /* NULL: gone, or being answered */
	struct partner *from; /* NULL: not known; a reference */
	struct blob_key key;
	uint64_t size; /* 0 on a HEAD */
	uint64_t off, len;
	uint32_t chunk;
	bool head, fetch, insist;
	struct http_req *waits; /* being answered; upstream may delay it */
	uint64_t began_ms;
	char *origin; /* NULL: none, or not to be used */
	/* On a worker. */
	struct loop_job job;
	int r;
	struct blob *blob;
};

static void count(const char *result)
{
	metric_add(metric_get(&m_served, (const char *const[]){result}), 1);
}

/* ---- Receivers of a chunk ---- */

static struct list *given_bucket(struct peers *p, const struct blob_key *key,
				 uint32_t chunk)
{
	return &p->given_hash[(digest_prefix(&key->id) + chunk) % KNOW_HASH];
}

static void given_free(struct peers *p, struct given *g)
{
	list_del(&g->hash);
	list_del(&g->lru);
	p->ngiven--;
	for (unsigned int i = 0; i < g->n; i++)
		partner_unref(&g->to[i]);
	free(g);
}

static struct given *given_get(struct peers *p, const struct blob_key *key,
			       uint32_t chunk, bool make)
{
	struct list *head = given_bucket(p, key, chunk);
	struct given *g;

	list_for_each (n, head) {
		g = list_entry(n, struct given, hash);
		if (g->chunk == chunk && blob_key_equal(&g->key, key))
			return g;
	}
	if (!make)
		return NULL;
	if (p->ngiven >= GIVEN_MAX)
		given_free(p, list_first(&p->given, struct given, lru));
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->key = *key;
	g->chunk = chunk;
	list_add(head, &g->hash);
	list_add_tail(&p->given, &g->lru);
	p->ngiven++;
	return g;
}

static void given_note(struct serving *s)
{
	struct given *g;

	if (!s->from)
		return;
	g = given_get(s->p, &s->key, s->chunk, true);
	if (!g)
		return;
	g->times++;
	for (unsigned int i = 0; i < g->n; i++)
		if (g->to[i] == s->from)
			return;
	if (g->n < GIVEN_MEMBERS) {
		g->to[g->n++] = partner_ref(s->from);
		return;
	}
	partner_unref(&g->to[g->oldest]);
	g->to[g->oldest] = partner_ref(s->from);
	g->oldest = (g->oldest + 1) % GIVEN_MEMBERS;
}

/* Returns how long a transfer to the member takes at present, as far as is
 * known. */
static uint32_t pace_ms(const struct partner *w, uint64_t now)
{
	uint64_t open = w->open_to ? now - w->given_ms : 0;

	return (uint32_t)min_u64(max_u64(w->took_ms, open), UINT32_MAX);
}

/* Chooses a receiver of the chunk to which the requester is redirected; NULL:
 * none, or this node should serve it. */
static struct partner *given_pick(const struct serving *s, struct given *g)
{
	const struct peers *p = s->p;
	uint32_t slots = p->cfg.upload_slots ? p->cfg.upload_slots : 64;
	uint32_t nmembers = members_alive(p->members) + 1;
	uint32_t fanout = place_fanout(blob_chunks(s->blob), nmembers);
	struct place_receiver to[GIVEN_MEMBERS];
	uint64_t now = now_ms();
	struct place_given given = {
		.to = to,
		.n = g->n,
		.turn = g->turn,
		.load = p->nserves - 1, /* without this request */
		.times = g->times,
		.fanout = p->nserves > slots && !s->insist ? 0 : fanout,
		.margin = place_margin(nmembers),
		.insist = s->insist,
	};
	uint32_t i;

	for (i = 0; i < g->n; i++) {
		const struct partner *w = g->to[i];

		if (w == s->from)
			return NULL; /* it was given the chunk, but did not keep
					it */
		to[i] = (struct place_receiver){
			.load = w->load,
			.pace_ms = pace_ms(w, now),
			.unfit = !partner_alive(w) || w->slow_ms > now ||
				 w->benched_ms > now,
		};
	}
	i = place_redirect(&given);
	if (i == PLACE_NONE)
		return NULL;
	g->turn++;
	g->to[i]->load++;
	return g->to[i];
}

void given_forget_partner(struct peers *p, const struct partner *w)
{
	list_for_each_safe (n, &p->given) {
		struct given *g = list_entry(n, struct given, lru);

		for (unsigned int i = 0; i < g->n; i++)
			if (g->to[i] == w) {
				partner_unref(&g->to[i]);
				g->to[i] = g->to[--g->n];
				g->oldest = 0;
				i--;
			}
	}
}

void given_free_all(struct peers *p)
{
	while (!list_empty(&p->given))
		given_free(p, list_first(&p->given, struct given, lru));
}

/* ---- The end ---- */

static void serving_free(struct serving *s)
{
	list_del(&s->node);
	s->p->nserves--;
	partner_unref(&s->from);
	blob_unref(&s->blob);
	free(s->origin);
	free(s);
}

static void on_gone(struct http_req *rq)
{
	struct serving *s = http_req_data(rq);

	s->rq = NULL; /* looked_up() frees s */
	http_release(rq);
}

static void served(void *arg, int r, uint64_t bytes)
{
	struct serving *s = arg;
	uint64_t now = now_ms();

	s->waits = NULL;
	if (s->from) {
		s->from->open_to--;
		s->from->given_ms = now;
		if (r == 0)
			s->from->took_ms = now - s->began_ms;
	}
	s->p->served_bytes += bytes;
	metric_add(metric_get(&m_bytes, NULL), (double)bytes);
	if (s->from)
		s->from->sent_bytes += bytes;
	serving_free(s);
}

static void refuse(struct serving *s, int status, const char *code,
		   const char *why)
{
	struct http_req *rq = steal_ptr(&s->rq);

	http_req_on_gone(rq, NULL);
	count(status == 404 ? "not_found" : "refused");
	http_reply_error(rq, status, code, "%s", why);
	serving_free(s);
}

/* ---- The answer ---- */

static void tell_state(struct serving *s)
{
	char have[HAVE_TEXT_SIZE], slow[SLOW_TEXT_SIZE];

	http_header_add(s->rq, "Peerd-Load", "%u", s->p->nserves);
	if (slow_text(s->p, slow))
		http_header_add(s->rq, "Peerd-Slow", "%s", slow);
	http_header_add(s->rq, "Peerd-Have", "%s",
			have_text(s->blob, s->chunk, have));
}

static bool is_present(const struct serving *s)
{
	uint32_t last = (uint32_t)((s->off + s->len - 1) / CHUNK_SIZE);

	return blob_next_missing(s->blob, s->chunk) > last;
}

/* Redirects the requester if given_pick() returns a receiver of the chunk. */
static bool send_away(struct serving *s)
{
	struct peers *p = s->p;
	struct given *g = given_get(p, &s->key, s->chunk, false);
	const struct partner *w = g ? given_pick(s, g) : NULL;
	struct http_req *rq;

	if (!w)
		return false;
	p->redirects_sent++;
	count("moved");
	rq = steal_ptr(&s->rq);
	http_req_on_gone(rq, NULL);
	http_header_add(rq, "Peerd-Ask", "%s", w->mb->id);
	http_reply(rq, 307, NULL, NULL, 0);
	serving_free(s);
	return true;
}

static void send_blob(struct serving *s)
{
	struct serve_how how = {.peer = true, .done = served, .arg = s};
	struct peers *p = s->p;
	struct http_req *rq;

	given_note(s);
	s->began_ms = now_ms();
	if (s->from && s->from->open_to++ == 0)
		s->from->given_ms = s->began_ms;
	count("served");
	rq = steal_ptr(&s->rq);
	http_req_on_gone(rq, NULL);
	if (!is_present(s))
		s->waits = rq;
	arm_peers_tick(p);
	/* s lives until served(). */
	how.as_owner = s->fetch;
	serve_blob(p->cfg.serve, rq, &s->blob, &how);
}

/* What the member says that it has of the blob. */
static void learn(struct serving *s)
{
	struct peers *p = s->p;
	struct know *k;

	if (!s->from || s->size == 0)
		return;
	k = know_get(p, &s->key, s->size);
	if (!k)
		return;
	know_read(p, k, s->from, http_req_header(s->rq, "Peerd-Have"));
	know_put(p, k);
}

static bool is_anothers(const struct serving *s)
{
	struct know *k = know_get(s->p, &s->key, blob_size(s->blob));
	bool is;

	if (!k)
		return false;
	is = know_is_anothers(s->p, k, s->blob);
	know_put(s->p, k);
	return is;
}

static void answer(struct serving *s)
{
	struct peers *p = s->p;
	const struct partner *at;

	/* Ours may have begun as another claim. */
	if (s->r == 0)
		s->key = *blob_key(s->blob);
	learn(s);
	if (s->r < 0) {
		refuse(s, 404, "BLOB_UNKNOWN",
		       "this node does not know the blob");
		return;
	}
	if (s->head) {
		struct http_req *rq;

		if (blob_cached_bytes(s->blob) == 0 && blob_size(s->blob) > 0 &&
		    blob_missing(s->blob) > 0) {
			refuse(s, 404, "BLOB_UNKNOWN",
			       "this node has no chunk of the blob");
			return;
		}
		rq = steal_ptr(&s->rq);
		http_req_on_gone(rq, NULL);
		http_begin(rq, 200, (int64_t)blob_size(s->blob));
		http_end(rq);
		serving_free(s);
		return;
	}
	if (s->len == 0 || s->off > blob_size(s->blob) ||
	    s->len > blob_size(s->blob) - s->off) {
		refuse(s, 416, "RANGE_INVALID",
		       "the range is not within the blob");
		return;
	}
	tell_state(s);
	if (is_present(s)) {
		if (!send_away(s))
			send_blob(s);
		return;
	}
	at = ask_at(p, &s->key, s->chunk);
	if (!s->fetch && (!at || at == s->from)) {
		refuse(s, 404, "BLOB_UNKNOWN",
		       "this node does not have the range");
		return;
	}
	if (s->fetch && is_anothers(s)) {
		refuse(s, 503, "UNAVAILABLE",
		       "another member reads the whole blob");
		return;
	}
	/* Two members wait for each other: the one with the lesser id
	 * fetches. */
	if (at && at == s->from &&
	    (strcmp(p->cfg.members.id, at->mb->id) > 0 ||
	     !asks_yield(p, &s->key, s->chunk, at, true))) {
		refuse(s, 503, "UNAVAILABLE",
		       "this node waits for the requester");
		return;
	}
	if (send_away(s))
		return;
	send_blob(s);
}

static void look_up(struct loop_job *j)
{
	struct serving *s = container_of(j, struct serving, job);
	struct store *store = s->p->cfg.store;

	s->r = store_get(store, &s->key, &s->blob);
	if (s->r == -ENOENT && s->fetch && s->origin)
		s->r = store_create_unsure(store, &s->key, s->size, &s->blob);
	if (s->r == 0 && s->size && blob_size(s->blob) != s->size) {
		blob_unref(&s->blob);
		s->r = -ESTALE;
	}
	if (s->r == 0 && s->origin && s->fetch)
		(void)blob_add_origin(store, s->blob, s->origin);
}

static void looked_up(struct loop_job *j)
{
	struct serving *s = container_of(j, struct serving, job);
	struct peers *p = s->p;

	if (!s->rq)
		serving_free(s);
	else
		answer(s);
	peers_job_ended(p);
}

/* A request that waits for upstream gets a 102 (Processing) twice a second. A
 * request for which this node waits at another member gets none: the requester
 * judged the members before this one unfit, and may be right. */
void serve_tick(struct peers *p, uint64_t now)
{
	if (now - p->informed_ms < INFORM_MS)
		return;
	p->informed_ms = now;
	list_for_each (n, &p->serves) {
		struct serving *s = list_entry(n, struct serving, node);
		const struct partner *at;

		if (!s->waits)
			continue;
		at = ask_at(p, &s->key, s->chunk);
		if (!at)
			http_inform(s->waits);
		else if (s->fetch)
			(void)asks_yield(p, &s->key, s->chunk, at, false);
	}
}

/* ---- The request ---- */

static int parse_range(struct http_req *rq, struct serving *s)
{
	const char *text = http_req_header(rq, "Range");
	struct byte_range ranges[RANGE_MAX];

	if (s->head)
		return 0;
	if (!text || range_parse(text, s->size, ranges) != 1)
		return -EINVAL;
	s->off = ranges[0].off;
	s->len = ranges[0].len;
	s->chunk = (uint32_t)(s->off / CHUNK_SIZE);
	return 0;
}

static bool is_one(struct http_req *rq, const char *name)
{
	const char *v = http_req_header(rq, name);

	return v && strcmp(v, "1") == 0;
}

/* origin (taken over): where this node may fetch the blob from; NULL: nowhere.
 * place: where the member's reader has it from; NULL: unknown. The answer has
 * bytes that are proven, or that came from the same place. */
static void handle_blob(struct peers *p, struct http_req *rq, char *origin,
			const char *place)
{
	const char *text = http_req_header(rq, "Peerd-Blob");
	const char *id = http_req_header(rq, "Peerd-From");
	const char *load = http_req_header(rq, "Peerd-Load");
	uint32_t slots = p->cfg.upload_slots ? p->cfg.upload_slots : 64;
	struct serving *s = calloc(1, sizeof(*s));
	struct member *mb;

	if (!s) {
		free(origin);
		http_reply_error(rq, 503, "UNAVAILABLE", "out of memory");
		return;
	}
	s->p = p;
	s->rq = rq;
	s->origin = origin;
	s->head = http_req_is_head(rq);
	list_add_tail(&p->serves, &s->node);
	p->nserves++;
	if (!text || blob_text_parse(text, &s->key, &s->size) < 0 ||
	    parse_range(rq, s) < 0) {
		refuse(s, 400, "UNSUPPORTED",
		       "Peerd-Blob or Range is missing or malformed");
		return;
	}
	if (s->key.kind == BLOB_SHA256 && place)
		blob_key_claim(&s->key, place, s->size);
	if (p->nserves > slots * HARD_FACTOR) {
		refuse(s, 503, "TOOMANYREQUESTS", "too many requests");
		return;
	}
	mb = members_speaker(p->members, rq, id);
	s->from = mb ? partner_of(p, mb) : NULL;
	if (s->from)
		(void)partner_ref(s->from);
	if (s->from && load)
		(void)load_text_parse(load, &s->from->load);
	slow_read(p, s->from, http_req_header(rq, "Peerd-Slow"));
	s->fetch = is_one(rq, "Peerd-Fetch");
	s->insist = is_one(rq, "Peerd-Insist");
	http_req_set_data(rq, s);
	http_req_on_gone(rq, on_gone);
	if (store_peek(p->cfg.store, &s->key, &s->blob) == 0 &&
	    (s->head || blob_size(s->blob) == s->size)) {
		if (s->fetch && s->origin && !is_present(s))
			(void)blob_add_origin(p->cfg.store, s->blob, s->origin);
		answer(s);
		return;
	}
	blob_unref(&s->blob);
	p->jobs++;
	loop_work(p->cfg.loop, &s->job, look_up, looked_up);
}

static void handle_v2(struct peers *p, struct http_req *rq)
{
	CLEANUP(freep) char *path = strdup(http_req_path(rq));
	CLEANUP(freep) char *place = NULL;
	char *name, *kind, *reference, *origin = NULL;
	const char *ns = http_req_query(rq, "ns");

	if (!path || !ref_split_path(path, &name, &kind, &reference) ||
	    (ns && !ref_host_valid(ns))) {
		http_reply_error(rq, 400, "NAME_INVALID",
				 "not the name of a repository");
		return;
	}
	if (strcmp(kind, "blobs") == 0) {
		if (ns && asprintf(&place, "registry://%s/%s", ns, name) < 0)
			place = NULL;
		if (place &&
		    (!p->cfg.may_fetch || p->cfg.may_fetch(p->cfg.arg, ns)))
			origin = strdup(place);
		handle_blob(p, rq, origin, place);
	} else if (strcmp(kind, "manifests") == 0 && ns) {
		meta_handle(p, rq, ns, name, reference);
	} else {
		http_reply_error(rq, 404, "UNSUPPORTED", "no such route");
	}
}

void peers_handle(struct peers *p, struct http_req *rq)
{
	const char *path = http_req_path(rq);
	bool get =
		strcmp(http_req_method(rq), "GET") == 0 || http_req_is_head(rq);

	if (strcmp(path, "/peer/v1/hello") == 0 && get) {
		members_hello(p->members, rq);
	} else if (strcmp(path, "/peer/v1/holders") == 0) {
		holders_handle(p->holders, rq);
	} else if (strncmp(path, "/v2/", 4) != 0 &&
		   strncmp(path, "/blobs/", 7) != 0) {
		http_reply_error(rq, 404, "UNSUPPORTED", "no such route");
	} else if (!get) {
		http_header_add(rq, "Allow", "GET, HEAD");
		http_reply_error(rq, 405, "UNSUPPORTED",
				 "only GET and HEAD are allowed");
	} else if (!is_one(rq, "Peerd-Hop")) {
		http_reply_error(rq, 400, "UNSUPPORTED",
				 "the header Peerd-Hop: 1 is missing");
	} else if (path[1] == 'v') {
		handle_v2(p, rq);
	} else {
		/* A URL is served only if this node knows it already; a URL
		 * that a member names is not fetched. */
		handle_blob(p, rq, NULL, path + strlen("/blobs/"));
	}
}

void serve_init(struct peers *p)
{
	list_init(&p->serves);
	list_init(&p->given);
	for (int i = 0; i < KNOW_HASH; i++)
		list_init(&p->given_hash[i]);
	metric_register(&m_served);
	metric_register(&m_bytes);
}
