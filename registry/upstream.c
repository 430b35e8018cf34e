/* The last source: fetches ranges of blobs from upstream. */
#include <inttypes.h>
#include <strings.h>
#include <string.h>

#include "base/log.h"
#include "http/range.h"
#include "registry/client-auth.h"
#include "registry/registry-private.h"

/* The time for half a chunk of a proven blob, while another origin is known. */
#define CRAWL_MS 3000

/* A source_request that is being served. */
struct request {
	struct list node; /* in registry.requests */
	struct list wait; /* in route.waiters */
	struct registry *r;
	struct source_request *rq;
	struct string_list origins;
	size_t next; /* index of the next origin; the current one is next - 1 */
	struct route *route; /* of the current origin */
	struct call *call;
	struct delay later; /* then() in the next turn, or at the deadline */
	void (*then)(struct request *u);
	uint64_t got;		      /* bytes handed over */
	uint64_t got_before, sent_ns; /* values at the start of the call */
	uint64_t watched;	      /* value when watch_crawl() looked */
	uint64_t answer_left; /* bytes of the range that the answer promises and
				 has not brought */
	char *target;  /* the route's target that the call went to; NULL: none
			  was known */
	bool leader;   /* the route's waiters wait for this request */
	bool accepted; /* a valid response head has arrived */
	bool asked_again; /* the origin was asked again after a known target
			     refused */
	bool ranged;	  /* the call asks for a range */
	bool cut;    /* a 200 with the whole blob, of which a part is wanted */
	bool held;   /* data() returned false */
	int worst_r; /* the error to report; 0: nothing failed yet */
	struct buf why;
};

static void try_origin(struct request *u);
static void next_origin(struct request *u);

static const char *origin_now(const struct request *u)
{
	return u->origins.v[u->next - 1];
}

/* The reader's credential, if it is for the current origin; else NULL. */
static const struct client_auth *auth_here(const struct request *u)
{
	const struct client_auth *a = client_auth_of(u->rq->auth);

	return a && strcmp(a->origin, origin_now(u)) == 0 ? a : NULL;
}

static uint64_t first_wanted(const struct request *u)
{
	return u->rq->offset + u->got;
}

static uint64_t still_wanted(const struct request *u)
{
	return u->rq->length - u->got;
}

/* ---- The end of a request ---- */

static void request_free(struct request *u)
{
	call_abandon(&u->call);
	list_del(&u->node);
	list_del(&u->wait);
	delay_cancel(&u->later);
	route_unref(u->r, &u->route);
	string_list_release(&u->origins);
	buf_release(&u->why);
	free(u->target);
	free(u);
}

static void run_later(struct delay *d)
{
	struct request *u = container_of(d, struct request, later);

	u->then(u);
}

static void do_later(struct request *u, void (*then)(struct request *u))
{
	u->then = then;
	delay_set(u->r, &u->later, now_ms());
}

/* The waiters continue in the next turn of the loop, because this may run
 * inside a callback of the HTTP client. */
static void wake_waiters(struct request *u)
{
	while (!list_empty(&u->route->waiters)) {
		struct request *w =
			list_first(&u->route->waiters, struct request, wait);

		list_del(&w->wait);
		do_later(w, try_origin);
	}
}

static void fail_waiters(struct request *u, int r, const char *why);

/* Ends u's lead of the route, if it has it. r and why: the result. After
 * -ECANCELED, -ETIMEDOUT or -ENOMEM, which say nothing about the origin, the
 * waiters try the origin themselves; after other errors they fail. */
static void end_lead(struct request *u, int r, const char *why)
{
	if (!u->leader)
		return;
	u->leader = false;
	if (u->route->state == ROUTE_ASKING)
		u->route->state = ROUTE_UNKNOWN;
	if (r < 0 && r != -ECANCELED && r != -ETIMEDOUT && r != -ENOMEM)
		fail_waiters(u, r, why);
	else
		wake_waiters(u);
}

static void end(struct request *u, int r, const char *why)
{
	struct source_request *rq = u->rq;
	CLEANUP(freep) char *text = NULL;

	if (u->route)
		end_lead(u, -ECANCELED, NULL);
	if (!why)
		why = text = buf_steal(&u->why);
	request_free(u);
	rq->source_data = NULL;
	rq->done(rq, r, why ? why : "");
}

static void end_canceled(struct request *u)
{
	end(u, -ECANCELED, "canceled");
}

static void end_timed_out(struct request *u)
{
	end(u, -ETIMEDOUT,
	    "the deadline passed while another request asked upstream");
}

static void end_failed(struct request *u)
{
	end(u, u->worst_r ? u->worst_r : -ENOENT, NULL);
}

static void note_failure(struct request *u, int r, const char *why)
{
	int worst = source_error_rank(u->worst_r);

	/* Among origins, -EBADMSG gives way to other errors of its rank: an
	 * origin that cannot be reached may come back. */
	if (source_error_rank(r) > worst ||
	    (source_error_rank(r) == worst && u->worst_r == -EBADMSG))
		u->worst_r = r;
	(void)buf_printf(&u->why, "%s%s: %s", u->why.len ? "; " : "",
			 origin_now(u), why);
}

static void end_no_ranges(struct request *u)
{
	note_failure(u, -ERANGE, "no ranges are served");
	end(u, -ERANGE, NULL);
}

static void fail_waiters(struct request *u, int r, const char *why)
{
	while (!list_empty(&u->route->waiters)) {
		struct request *w =
			list_first(&u->route->waiters, struct request, wait);

		list_del(&w->wait);
		note_failure(w, r, why);
		do_later(w, next_origin);
	}
}

/* ---- The answer ---- */

/* A URL's version is part of its blob's key. So a changed file is never taken
 * for the old one, whatever else the server says. */
static int check_version(struct request *u, struct call *c)
{
	const struct blob_key *key = blob_key(u->rq->blob);
	const char *etag = call_header(c, "ETag", 0);
	const char *modified = call_header(c, "Last-Modified", 0);
	struct url_secret *secret;
	struct digest id;

	if (key->kind != BLOB_URL)
		return 0;
	secret = url_secret_find(u->r, key, origin_now(u));
	if (secret && (secret->unversioned || (!etag && !modified)))
		return 0; /* only the size can be compared */
	if (url_version_id(origin_now(u), secret ? query_of(secret->url) : NULL,
			   etag, modified, blob_size(u->rq->blob), &id) &&
	    digest_equal(&id, &key->id))
		return 0;
	return call_why(c, -ESTALE, "the file has changed");
}

struct forget {
	struct store_job job;
	struct store *store;
	struct digest digest;
	char repo[];
};

static void forget_work(struct store_job *j)
{
	struct forget *g = container_of(j, struct forget, job);

	(void)store_repo_del(g->store, g->repo, false, &g->digest);
}

static void forget_done(struct store_job *j)
{
	free(container_of(j, struct forget, job));
}

/* Forgets the size that the repository gave for the blob, so that the next
 * look-up asks again. */
static void forget_size(struct request *u)
{
	const char *repo = origin_repo(origin_now(u));
	const struct blob_key *key = blob_key(u->rq->blob);
	struct forget *g;

	if (!repo)
		return;
	g = calloc(1, sizeof(*g) + strlen(repo) + 1);
	if (!g)
		return;
	g->store = u->r->store;
	g->digest = key->id;
	memcpy(g->repo, repo, strlen(repo) + 1);
	store_job_start(u->r, &g->job, forget_work, forget_done);
}

static int check_range(struct request *u, struct call *c)
{
	const char *v = call_header(c, "Content-Range", 0);
	uint64_t first, last, total, want = still_wanted(u);
	uint64_t size = blob_size(u->rq->blob);

	if (!v || content_range_parse(v, &first, &last, &total) < 0)
		return call_why(c, -EBADMSG,
				"%s: 206 without a usable "
				"Content-Range",
				c->at.host);
	/* "*": the digest will tell. */
	if (total != size && total != UINT64_MAX) {
		forget_size(u);
		return call_why(c, -EBADMSG,
				"%s: upstream has another "
				"size: \"%.80s\"",
				c->at.host, v);
	}
	if (first != first_wanted(u) || last - first >= want)
		return call_why(c, -EBADMSG,
				"%s: not the requested "
				"range: \"%.80s\"",
				c->at.host, v);
	/* A server may send less than it was asked for (RFC 9110, 15.3.7): the
	 * rest is asked for afterwards. */
	want = last - first + 1;
	if (c->content_length >= 0 && (uint64_t)c->content_length != want)
		return call_why(c, -EBADMSG,
				"%s: Content-Length contradicts "
				"Content-Range",
				c->at.host);
	u->answer_left = want;
	return 0;
}

/* The answer says that the origin serves no ranges. Returns -ERANGE, upon which
 * the engine asks for the whole blob. */
static int check_whole(struct request *u, struct call *c)
{
	uint64_t size = blob_size(u->rq->blob);

	if (c->content_length >= 0 && (uint64_t)c->content_length != size) {
		forget_size(u);
		return call_why(c, -EBADMSG,
				"%s: upstream has another size: %" PRId64,
				c->at.host, c->content_length);
	}
	u->answer_left = still_wanted(u);
	if (u->answer_left == size)
		return 0;
	if (u->ranged && no_ranges_note(u->r, origin_now(u)))
		return call_why(c, -ERANGE, "%s: no ranges", c->at.host);
	if (first_wanted(u) != 0 || c->content_length < 0)
		return call_why(c, -EBADMSG,
				"%s: upstream sent the whole file, not the "
				"range",
				c->at.host);
	u->cut = true;
	return 0;
}

/* 416 says "bytes * /SIZE", without the blank, or nothing. */
static int check_416(struct request *u, struct call *c)
{
	const char *v = call_header(c, "Content-Range", 0);
	uint64_t size;

	if (v &&
	    (strncasecmp(v, "bytes */", 8) != 0 ||
	     parse_u64(v + 8, &size) < 0 || size == blob_size(u->rq->blob)))
		v = NULL;
	if (!v && u->ranged && no_ranges_note(u->r, origin_now(u)))
		return call_why(c, -ERANGE, "%s: no ranges", c->at.host);
	forget_size(u);
	return call_why(c, -EBADMSG, "%s: HTTP 416: upstream has another size",
			c->at.host);
}

static int check_head(struct request *u, struct call *c)
{
	switch (c->status) {
	case 206:
		return check_range(u, c);
	case 200:
		return check_whole(u, c);
	case 416:
		return check_416(u, c);
	default:
		return call_why(c, -EBADMSG, "%s: HTTP %d for a range",
				c->at.host, c->status);
	}
}

/* Sets the route by what this response shows, for the requests that follow. */
static void learn_route(struct request *u, struct call *c)
{
	if (u->target && !c->hops)
		return; /* the known target is still valid */
	if (c->crossed || u->target)
		route_set_target(u->route, &c->at);
	else
		route_set_direct(u->route);
	if (u->leader) {
		u->leader = false;
		wake_waiters(u);
	}
}

static int range_head(struct call *c)
{
	struct request *u = c->arg;
	int r;

	r = check_head(u, c);
	if (r == 0)
		r = check_version(u, c);
	if (r == 0 || r == -ERANGE)
		learn_route(u, c);
	if (r < 0)
		return r;
	u->accepted = true;
	u->rq->from = CHUNK_FROM_UPSTREAM;
	u->rq->place = u->route->number;
	return 0;
}

static int range_data(struct call *c, const void *bytes, size_t len)
{
	struct request *u = c->arg;

	if (len > u->answer_left) {
		if (!u->cut)
			return call_why(c, -EBADMSG,
					"%s: more bytes than "
					"requested",
					c->at.host);
		len = (size_t)u->answer_left;
	}
	u->held = !u->rq->data(u->rq, bytes, len);
	if (u->held)
		return -EAGAIN;
	u->got += len;
	u->answer_left -= len;
	return u->cut && still_wanted(u) == 0 ? CALL_ENOUGH : 0;
}

/* Whether the known target is not valid any more (Amazon answers 400 when a
 * token in the URL has expired). */
static bool target_refused(const struct request *u, const struct call *c)
{
	if (!u->target || u->accepted)
		return false;
	return c->status == 400 || c->status == 401 || c->status == 403 ||
	       c->status == 404 || c->status == 410;
}

/* Keeps a newer target that another request has set meanwhile. */
static void forget_target(struct request *u)
{
	if (u->target && u->route->state == ROUTE_TARGET &&
	    strcmp(u->route->target, u->target) == 0)
		route_forget(u->route);
}

/* Whether the origin refused the request for its Range, it seems. */
static bool ranges_refused(const struct request *u, const struct call *c)
{
	return !u->accepted && u->ranged &&
	       (c->status == 400 || c->status == 501) &&
	       no_ranges_note(u->r, origin_now(u));
}

static void range_done(struct call *c, int r, const char *why)
{
	struct request *u = c->arg;

	u->call = NULL;
	delay_cancel(&u->later);
	count_speed(u->r->node, c->at.host, u->got - u->got_before,
		    uv_hrtime() - u->sent_ns);
	if (r == -EPERM) /* the guard refused the address */
		r = -EACCES;
	if (r == 0 && still_wanted(u) == 0) {
		end(u, 0, "");
		return;
	}
	if (target_refused(u, c)) {
		forget_target(u);
		if (!u->asked_again) {
			u->asked_again = true;
			try_origin(u);
			return;
		}
	}
	if (r == 0 && u->answer_left == 0 && u->got > u->got_before) {
		try_origin(u); /* the answer was shorter than the range */
		return;
	}
	if (ranges_refused(u, c))
		r = -ERANGE;
	if (r == -ERANGE) {
		end_lead(u, -ECANCELED, NULL);
		end_no_ranges(u);
		return;
	}
	if (r == 0) {
		r = -ECONNRESET;
		why = "the body ended early";
	}
	/* A cache may have the blob now, and be able to serve the rest; and a
	 * 400 or 501 was for another reason. */
	if (!u->ranged && r != -ECANCELED)
		no_ranges_forget(u->r, origin_now(u));
	/* The origin may redirect to another target if this one cannot be
	 * reached. */
	if (call_unreachable(c, r) && !u->accepted)
		forget_target(u);
	if (r == -ENOENT && c->status == 0)
		r = -EHOSTUNREACH; /* no such host; not a "no" for the blob */
	if (r == -ESTALE)
		url_expire(u->r, origin_now(u));
	if (r == -ENOENT || r == -EACCES || r == -EKEYEXPIRED)
		no_remember(u->r, u->route->node.key, r);
	note_failure(u, r, why);
	end_lead(u, r, why);
	if (r == -ETIMEDOUT && now_ms() >= u->rq->deadline_ms)
		end_failed(u);
	else
		next_origin(u);
}

/* ---- The request ---- */

static void watch_crawl(struct request *u);

/* Any place may have told the bytes of a proven blob: one that sends them byte
 * by byte must not keep them from the readers of another place. */
static void crawled(struct request *u)
{
	uint64_t got = u->got - u->watched, want = got + still_wanted(u);

	if (u->held || got >= min_u64(CHUNK_SIZE, want) / 2) {
		watch_crawl(u);
		return;
	}
	call_abandon(&u->call);
	blob_origin_last(u->r->store, u->rq->blob, origin_now(u));
	note_failure(u, -EBUSY, "slow, and another place is known");
	end_lead(u, -ETIMEDOUT, NULL);
	next_origin(u);
}

static void watch_crawl(struct request *u)
{
	if (!blob_proven(u->rq->blob) || u->next >= u->origins.n)
		return;
	u->watched = u->got;
	u->then = crawled;
	delay_set(u->r, &u->later, now_ms() + CRAWL_MS);
}

static const struct call_ops range_ops = {
	.head = range_head,
	.data = range_data,
	.done = range_done,
};

/* Finds the login and the blob's URL for "HOST/NAME". */
static int registry_url(struct request *u, const char *host, const char *repo,
			struct login **ret_login, char **ret_url)
{
	const char *name = strchr(repo, '/');
	char digest[DIGEST_STR_SIZE];

	if (!name || blob_key(u->rq->blob)->kind != BLOB_SHA256)
		return -EINVAL;
	name++;
	if (!ref_host_valid(host) || !ref_name_valid(name))
		return -EINVAL;
	return login_url(u->r, host, name, ret_login, ret_url, "%s/blobs/%s",
			 name, digest_str(&blob_key(u->rq->blob)->id, digest));
}

static int send_range(struct request *u)
{
	const char *origin = origin_now(u);
	CLEANUP(login_unref) struct login *s = NULL;
	CLEANUP(freep) char *url = NULL;
	CLEANUP(freep) char *registry = NULL;
	const struct client_auth *auth = auth_here(u);
	struct url_secret *secret =
		url_secret_find(u->r, blob_key(u->rq->blob), origin);
	struct call_spec spec = {
		.has_range = u->ranged,
		.range_off = first_wanted(u),
		.range_len = still_wanted(u),
		.deadline_ms = u->rq->deadline_ms,
		.if_match = secret ? secret->etag : NULL,
	};
	const char *repo = origin_repo(origin);
	int r;

	if (repo) {
		registry = repo_host(repo);
		if (!registry)
			return -ENOMEM;
		spec.registry = registry;
	}
	free(u->target);
	u->target = NULL;
	u->accepted = u->cut = false;
	u->got_before = u->got;
	u->sent_ns = uv_hrtime();
	if (u->route->state == ROUTE_TARGET) {
		u->target = strdup(u->route->target);
		if (!u->target)
			return -ENOMEM;
		spec.url = u->target;
	} else if (repo) {
		r = registry_url(u, registry, repo, &s, &url);
		if (r < 0)
			return r;
		spec.url = url;
		spec.login = s;
	} else if (auth) {
		spec.url = auth->url;
		spec.authorization = auth->value;
	} else {
		spec.url = secret ? secret->url : origin;
	}
	return call_start(u->r, &spec, &range_ops, u, &u->call);
}

/* Asks the current origin for the missing bytes. While another request finds
 * the route, u waits for it. */
static void try_origin(struct request *u)
{
	bool whole = still_wanted(u) == blob_size(u->rq->blob);
	int r;

	u->ranged = !no_ranges_at(u->r, origin_now(u));
	if (!u->ranged && !whole) {
		do_later(u, end_no_ranges);
		return;
	}
	switch (route_now(u->route)) {
	case ROUTE_ASKING:
		list_add_tail(&u->route->waiters, &u->wait);
		u->then = end_timed_out;
		delay_set(u->r, &u->later, u->rq->deadline_ms);
		return;
	case ROUTE_UNKNOWN:
		u->leader = true;
		u->route->state = ROUTE_ASKING;
		break;
	default:
		break;
	}
	r = send_range(u);
	if (r < 0) {
		note_failure(u, r, strerror(-r));
		end_lead(u, r, strerror(-r));
		next_origin(u);
		return;
	}
	watch_crawl(u);
}

/* Returns what tells apart routes to one origin; NULL: nothing. After a restart
 * the whole URL of a file is not known until a reader brings it, and a member
 * may ask for the file before: a "no" to the URL without its query, or a
 * redirect, is not one to the reader's. */
static const char *route_tag(struct request *u)
{
	const struct blob_key *key = blob_key(u->rq->blob);
	const struct client_auth *auth = auth_here(u);

	if (auth)
		return auth->tag;
	if (key->kind == BLOB_URL && !url_secret_find(u->r, key, origin_now(u)))
		return "?";
	return NULL;
}

static void next_origin(struct request *u)
{
	int r;

	for (;;) {
		route_unref(u->r, &u->route);
		u->asked_again = false;
		if (u->next >= u->origins.n) {
			do_later(u, end_failed);
			return;
		}
		u->next++;
		r = route_get(u->r, blob_key(u->rq->blob), origin_now(u),
			      route_tag(u), &u->route);
		if (r == 0)
			r = no_find(u->r, u->route->node.key);
		if (r == 0)
			break;
		note_failure(u, r,
			     r == -ENOENT ? "not found a moment ago"
			     : r == -EACCES || r == -EKEYEXPIRED
				     ? "refused a moment ago"
			     : r == -EBADMSG ? "sent wrong bytes a moment ago"
					     : strerror(-r));
	}
	try_origin(u);
}

/* The origin that the reader has a credential for comes first. */
static int find_origins(struct source_request *rq, struct string_list *ret)
{
	CLEANUP(string_list_release) struct string_list all = {0};
	const struct client_auth *auth = client_auth_of(rq->auth);
	int r;

	if (rq->origin)
		return string_list_add(ret, rq->origin);
	/* Of a proven blob any origin will do: none comes before those of its
	 * own place. */
	if (!auth || blob_proven(rq->blob))
		return blob_origins(rq->blob, ret);
	r = string_list_add(ret, auth->origin);
	if (r == 0)
		r = blob_origins(rq->blob, &all);
	for (size_t i = 0; r == 0 && i < all.n; i++) {
		if (strcmp(all.v[i], auth->origin) != 0)
			r = string_list_add(ret, all.v[i]);
	}
	return r;
}

static int upstream_start(struct source *s, struct source_request *rq)
{
	struct registry *r = container_of(s, struct registry, source);
	struct request *u = calloc(1, sizeof(*u));

	if (!u)
		return -ENOENT;
	u->r = r;
	u->rq = rq;
	u->why = BUF_INIT(1024);
	list_init(&u->wait);
	list_init(&u->node);
	delay_init(&u->later, run_later);
	list_add_tail(&r->requests, &u->node);
	if (find_origins(rq, &u->origins) < 0 || u->origins.n == 0) {
		request_free(u);
		return -ENOENT;
	}
	rq->source_data = u;
	creds_refresh(r);
	next_origin(u);
	return 0;
}

/* Moves the origin of a route that brought wrong bytes to the end. Whoever has
 * the route's credential does not ask it for negative_ms. */
static void upstream_blame(struct source *s, struct blob *b, uint16_t from,
			   uint64_t place)
{
	struct registry *r = container_of(s, struct registry, source);
	CLEANUP(string_list_release) struct string_list all = {0};
	const struct route *rt;

	if (from != CHUNK_FROM_UPSTREAM)
		return;
	rt = place ? route_by_number(r, place) : NULL;
	if (!rt) {
		blob_origin_last(r->store, b, NULL);
		return;
	}
	no_remember(r, rt->node.key, -EBADMSG);
	(void)blob_origins(b, &all);
	for (size_t i = 0; i < all.n; i++) {
		CLEANUP(freep)
		char *key = route_key(blob_key(b), all.v[i], NULL);
		size_t n = key ? strlen(key) : 0;

		/* A tag may follow. */
		if (n && strncmp(rt->node.key, key, n) == 0 &&
		    (rt->node.key[n] == '\0' || rt->node.key[n] == ' '))
			blob_origin_last(r->store, b, all.v[i]);
	}
}

static void upstream_resume(struct source *s, struct source_request *rq)
{
	struct request *u = rq->source_data;

	(void)s;
	if (u && u->call)
		call_resume(u->call);
}

static void upstream_cancel(struct source *s, struct source_request *rq)
{
	struct request *u = rq->source_data;

	(void)s;
	if (!u)
		return;
	/* It may have stalled. */
	if (u->call && blob_proven(rq->blob))
		blob_origin_last(u->r->store, rq->blob, origin_now(u));
	call_abandon(&u->call);
	list_del(&u->wait);
	if (u->route)
		end_lead(u, -ECANCELED, NULL);
	do_later(u, end_canceled);
}

static bool upstream_sweeps(struct source *s, struct blob *b)
{
	return registry_serves_no_ranges(
		container_of(s, struct registry, source), b);
}

const struct source_ops upstream_ops = {
	.name = "upstream",
	.sweeps = upstream_sweeps,
	.start = upstream_start,
	.resume = upstream_resume,
	.blame = upstream_blame,
	.cancel = upstream_cancel,
};

void requests_release(struct registry *r)
{
	while (!list_empty(&r->requests))
		end(list_first(&r->requests, struct request, node), -ECANCELED,
		    "peerd stops");
}
