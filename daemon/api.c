/* The routes below /api/v1/, which the commands use; health and metrics. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/metrics.h"
#include "daemon/daemon-private.h"
#include "daemon/pull.h"

#define JSON_TYPE  "application/json"
#define LINES_TYPE "application/x-ndjson"
/* Least time between two progress lines. */
#define PROGRESS_MS 200

static const char *state_name(enum blob_state s)
{
	static const char *const names[] = {"provisional", "verified", "bad"};

	return names[s];
}

/* ---- GET status ---- */

/* This and add_peers() add a part that only some daemons have. */
static int add_containerd(json_t *v, const struct containerd *c)
{
	struct containerd_stats st;

	if (!c)
		return 0;
	containerd_stats(c, &st);
	return json_object_set_new(
		v, "containerd",
		json_pack("{s:b, s:I, s:b, s:I, s:I}", "watching", st.watching,
			  "blobs", (json_int_t)st.blobs, "connected",
			  st.connected, "images", (json_int_t)st.images,
			  "events", (json_int_t)st.events));
}

static int add_peers(json_t *v, struct peers *p)
{
	if (!p)
		return 0;
	return json_object_set_new(
		v, "peers",
		json_pack("{s:I}", "alive",
			  (json_int_t)members_alive(peers_members(p))));
}

int api_status(void *arg, struct buf *out)
{
	struct daemon *d = arg;
	struct store_stats st;
	struct fetch_stats ft;
	CLEANUP(json_decrefp) json_t *v = NULL;
	int r;

	store_stats(d->store, &st);
	fetch_stats(d->fetch, &ft);
	v = json_pack(
		"{s:s, s:s, s:s, s:I, s:s?, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I,"
		" s:I, s:I, s:I, s:I, s:I, s:I}, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}}",
		"node", d->node, "version", PEERD_VERSION, "p2p",
		p2p_state_name(events_current(d->p2p_events)), "uptime_seconds",
		(json_int_t)((now_ms() - d->started_ms) / 1000), "mount",
		d->cfg->mount, "cache", "blobs", (json_int_t)st.blobs,
		"cached_bytes", (json_int_t)st.cached_bytes, "manifests",
		(json_int_t)st.manifests, "manifest_bytes",
		(json_int_t)st.manifest_bytes, "max_bytes",
		(json_int_t)st.max_bytes, "free_bytes",
		(json_int_t)st.fs_free_bytes, "evicted_chunks",
		(json_int_t)st.evicted_chunks, "evicted_bytes",
		(json_int_t)st.evicted_bytes, "damaged_chunks",
		(json_int_t)st.damaged_chunks, "write_errors",
		(json_int_t)st.write_errors, "commits", (json_int_t)st.commits,
		"verified_blobs", (json_int_t)st.verified_blobs,
		"mismatched_blobs", (json_int_t)st.mismatched_blobs, "fetch",
		"flights", (json_int_t)ft.flights, "requests",
		(json_int_t)ft.runs, "waiting_reads", (json_int_t)ft.reads,
		"memory_bytes", (json_int_t)ft.memory_bytes, "fetched_bytes",
		(json_int_t)ft.fetched_bytes, "failed_requests",
		(json_int_t)ft.failed_runs, "failed_reads",
		(json_int_t)ft.failed_reads);
	if (!v || add_containerd(v, d->containerd) < 0 ||
	    add_peers(v, d->peers) < 0)
		return -ENOMEM;
	r = json_dump(v, out);
	return r < 0 ? r : buf_str(out, "\n");
}

static void get_status(struct daemon *d, struct http_req *rq)
{
	CLEANUP(buf_release) struct buf out = BUF_INIT(65536);
	int r = api_status(d, &out);

	if (r < 0)
		http_reply_error(rq, 500, "UNKNOWN", "%s", strerror(-r));
	else
		http_reply(rq, 200, JSON_TYPE, out.data, out.len);
}

static void get_metrics(struct daemon *d, struct http_req *rq)
{
	CLEANUP(buf_release) struct buf out = BUF_INIT(16 << 20);
	int r;

	stats_collect(d);
	r = metrics_write(&out);
	if (r < 0)
		http_reply_error(rq, 500, "UNKNOWN", "%s", strerror(-r));
	else
		http_reply(rq, 200, "text/plain; version=0.0.4", out.data,
			   out.len);
}

/* ---- Worker jobs that end in one reply ---- */

struct api_job {
	struct loop_job job;
	struct daemon *d;
	struct http_req *rq; /* NULL: the client has gone */
	struct buf out;
	struct digest *digests;
	size_t ndigests;
	bool all;
	int (*one)(struct daemon *d, struct blob *b, struct buf *out);
	int result;
};

static void job_gone(struct http_req *rq)
{
	struct api_job *j = http_req_data(rq);

	j->rq = NULL;
	http_release(rq);
}

static void job_end(struct loop_job *lj)
{
	struct api_job *j = container_of(lj, struct api_job, job);

	if (j->rq) {
		http_req_on_gone(j->rq, NULL);
		if (j->result < 0)
			http_reply_error(j->rq, 500, "UNKNOWN", "%s",
					 strerror(-j->result));
		else
			http_reply(j->rq, 200, JSON_TYPE, j->out.data,
				   j->out.len);
	}
	buf_release(&j->out);
	free(j->digests);
	free(j);
}

static struct api_job *job_new(struct daemon *d, struct http_req *rq)
{
	struct api_job *j = calloc(1, sizeof(*j));

	if (!j) {
		http_reply_error(rq, 500, "UNKNOWN", "out of memory");
		return NULL;
	}
	j->d = d;
	j->rq = rq;
	j->out = BUF_INIT(256 << 20);
	http_req_set_data(rq, j);
	http_req_on_gone(rq, job_gone);
	return j;
}

static int blob_line(struct buf *out, const struct blob_info *info)
{
	char hex[DIGEST_HEX_SIZE];

	return buf_printf(out,
			  "%s{\"%s\":\"%s%s\",\"size\":%llu,\"cached\":%llu,"
			  "\"state\":\"%s\",\"last_use\":%llu}",
			  out->data[out->len - 1] == '[' ? "" : ",",
			  info->key.kind == BLOB_URL ? "url_key" : "digest",
			  info->key.kind == BLOB_URL ? "" : "sha256:",
			  digest_hex(&info->key.id, hex),
			  (unsigned long long)info->size,
			  (unsigned long long)info->cached_bytes,
			  info->key.kind == BLOB_URL ? "unverifiable"
						     : state_name(info->state),
			  (unsigned long long)info->last_use_s);
}

static int add_blob(void *arg, const struct blob_info *info)
{
	return blob_line(arg, info);
}

static void list_work(struct loop_job *lj)
{
	struct api_job *j = container_of(lj, struct api_job, job);

	j->result = buf_str(&j->out, "{\"blobs\":[");
	if (j->result == 0)
		j->result = store_each(j->d->store, add_blob, &j->out);
	if (j->result == 0)
		j->result = buf_str(&j->out, "]}\n");
}

static void get_blobs(struct daemon *d, struct http_req *rq)
{
	struct api_job *j = job_new(d, rq);

	if (j)
		loop_work(d->loop, &j->job, list_work, job_end);
}

/* ---- POST verify, evict ---- */

struct key_list {
	struct blob_key *v;
	size_t n, cap;
};

static int add_key(void *arg, const struct blob_info *info)
{
	struct key_list *l = arg;
	void *v = array_grow(l->v, l->n, &l->cap, sizeof(*l->v));

	if (!v)
		return -ENOMEM;
	l->v = v;
	l->v[l->n++] = info->key;
	return 0;
}

/* Every blob of that digest; one that is not known is answered as such. */
static int add_claims(struct api_job *j, const struct digest *d,
		      struct key_list *l)
{
	CLEANUP(freep) struct blob_key *v = NULL;
	struct blob_info info = {.key = {.kind = BLOB_SHA256, .id = *d}};
	size_t n = 0;
	int r = store_claims_of(j->d->store, d, &v, &n);

	if (r == 0 && n == 0)
		return add_key(l, &info);
	for (size_t i = 0; i < n && r == 0; i++) {
		info.key = v[i];
		r = add_key(l, &info);
	}
	return r;
}

static int evict_one(struct daemon *d, struct blob *b, struct buf *out)
{
	int r = store_evict(d->store, b);

	return json_quote(out, r == 0 ? "evicted" : strerror(-r));
}

/* Manifests are no blobs, and are evicted by the same names. */
static int add_manifests(struct store *s, struct key_list *l)
{
	CLEANUP(string_list_release) struct string_list digests = {0};
	int r = store_manifest_list(s, &digests);

	for (size_t i = 0; i < digests.n && r == 0; i++) {
		struct blob_info info = {.key = {.kind = BLOB_SHA256}};

		r = digest_parse(digests.v[i], &info.key.id);
		if (r == 0)
			r = add_key(l, &info);
	}
	return r;
}

static int do_key(struct api_job *j, const struct blob_key *key)
{
	bool manifest = j->one == evict_one && key->kind == BLOB_SHA256 &&
			store_manifest_evict(j->d->store, &key->id) == 0;
	struct blob *b = NULL;
	int r = store_get_claim(j->d->store, key, &b);
	char hex[DIGEST_HEX_SIZE];

	if (j->out.data[j->out.len - 1] != '[')
		(void)buf_str(&j->out, ",");
	if (buf_printf(&j->out, "{\"blob\":\"%s%s\",\"result\":",
		       key->kind == BLOB_URL ? "url:" : "sha256:",
		       digest_hex(&key->id, hex)) < 0)
		return -ENOMEM;
	if (r == 0) {
		r = j->one(j->d, b, &j->out);
		blob_unref(&b);
	} else if (r == -ENOENT && manifest) {
		r = json_quote(&j->out, "evicted");
	} else {
		r = json_quote(&j->out,
			       r == -ENOENT ? "unknown" : strerror(-r));
	}
	return r < 0 ? r : buf_str(&j->out, "}");
}

static void keys_work(struct loop_job *lj)
{
	struct api_job *j = container_of(lj, struct api_job, job);
	struct key_list l = {0};

	j->result = buf_str(&j->out, "{\"blobs\":[");
	if (j->result == 0 && j->all && j->one == evict_one)
		j->result = add_manifests(j->d->store, &l);
	if (j->result == 0 && j->all)
		j->result = store_each(j->d->store, add_key, &l);
	for (size_t i = 0; i < j->ndigests && j->result == 0; i++)
		j->result = add_claims(j, &j->digests[i], &l);
	for (size_t i = 0; i < l.n && j->result == 0; i++)
		j->result = do_key(j, &l.v[i]);
	if (j->result == 0)
		j->result = buf_str(&j->out, "]}\n");
	free(l.v);
}

static int verify_one(struct daemon *d, struct blob *b, struct buf *out)
{
	int r = store_verify(d->store, b);

	if (blob_key(b)->kind == BLOB_URL && r == 0)
		return json_quote(out, "unverifiable");
	return json_quote(out, r == 0	       ? "verified"
			       : r == -EBADMSG ? "mismatch"
			       : r == -ENODATA ? "incomplete"
					       : strerror(-r));
}

/* {"all":true} or {"digests":["sha256:…"]}. */
static void post_keys(struct daemon *d, struct http_req *rq,
		      int (*one)(struct daemon *d, struct blob *b,
				 struct buf *out))
{
	CLEANUP(json_decrefp) json_t *v = NULL;
	const json_t *list;
	struct error err;
	struct api_job *j;
	size_t len;
	const void *body = http_req_body(rq, &len);

	if (json_parse(body ? body : "", len, 1 << 20, &v, &err) < 0) {
		http_reply_error(rq, 400, "UNSUPPORTED", "%s", err.text);
		return;
	}
	list = json_get_arr(v, "digests");
	j = job_new(d, rq);
	if (!j)
		return;
	j->one = one;
	j->all = json_is_true(json_object_get(v, "all"));
	j->digests = calloc(json_array_size(list) + 1, sizeof(*j->digests));
	for (size_t i = 0; j->digests && i < json_array_size(list); i++) {
		const char *s = json_string_value(json_array_get(list, i));

		if (!s || digest_parse(s, &j->digests[i]) < 0) {
			http_req_on_gone(rq, NULL);
			http_reply_error(rq, 400, "DIGEST_INVALID",
					 "not a digest: %s", s ? s : "(none)");
			free(j->digests);
			free(j);
			return;
		}
		j->ndigests++;
	}
	loop_work(d->loop, &j->job, keys_work, job_end);
}

/* ---- POST pull: JSON lines with the progress ---- */

struct pull_req {
	struct http_req *rq; /* NULL: the client has gone */
	struct pull *pull;   /* NULL: done */
	struct buf line, next;
	bool writing, ended;
	uint64_t last_ms;
};

static void pull_flush(struct pull_req *p);

static void pull_req_free(struct pull_req *p)
{
	buf_release(&p->line);
	buf_release(&p->next);
	free(p);
}

static void pull_sent(struct http_req *rq, int r)
{
	struct pull_req *p = http_req_data(rq);

	(void)r; /* gone() follows an error */
	p->writing = false;
	if (r == 0)
		pull_flush(p);
}

static void pull_flush(struct pull_req *p)
{
	struct buf tmp;

	if (!p->rq || p->writing)
		return;
	if (p->next.len == 0) {
		if (p->ended) {
			struct http_req *rq = steal_ptr(&p->rq);

			http_req_on_gone(rq, NULL);
			http_end(rq);
			pull_req_free(p);
		}
		return;
	}
	tmp = p->line;
	p->line = p->next;
	p->next = tmp;
	buf_reset(&p->next);
	p->writing = true;
	http_write(p->rq, p->line.data, p->line.len, pull_sent);
}

static void pull_line(struct pull_req *p, const struct pull_progress *pr,
		      const char *result)
{
	(void)buf_printf(&p->next,
			 "{\"blobs\":%u,\"blobs_done\":%u,\"bytes\":%llu,"
			 "\"bytes_done\":%llu,\"bytes_before\":%llu",
			 pr->blobs, pr->blobs_done,
			 (unsigned long long)pr->bytes,
			 (unsigned long long)pr->bytes_done,
			 (unsigned long long)pr->bytes_before);
	if (result) {
		(void)buf_str(&p->next, ",\"result\":");
		(void)json_quote(&p->next, result);
	}
	(void)buf_str(&p->next, "}\n");
}

static void pull_progress(void *arg, const struct pull_progress *pr)
{
	struct pull_req *p = arg;
	uint64_t now = now_ms();

	if (!p->rq || p->next.len || now - p->last_ms < PROGRESS_MS)
		return;
	p->last_ms = now;
	pull_line(p, pr, NULL);
	pull_flush(p);
}

static void pull_done(void *arg, int r, const char *why,
		      const struct pull_progress *pr)
{
	struct pull_req *p = arg;

	p->pull = NULL;
	p->ended = true;
	if (!p->rq) {
		pull_req_free(p);
		return;
	}
	pull_line(p, pr, r == 0 ? "ok" : why);
	pull_flush(p);
}

static void pull_gone(struct http_req *rq)
{
	struct pull_req *p = http_req_data(rq);

	p->rq = NULL;
	http_release(rq);
	if (p->pull)
		pull_cancel(p->pull);
	else
		pull_req_free(p);
}

static void post_pull(struct daemon *d, struct http_req *rq)
{
	static const struct pull_callbacks cb = {pull_progress, pull_done};
	CLEANUP(json_decrefp) json_t *v = NULL;
	struct error err;
	struct pull_req *p;
	size_t len;
	const void *body = http_req_body(rq, &len);
	const char *ref;

	if (json_parse(body ? body : "", len, 65536, &v, &err) < 0 ||
	    !(ref = json_get_str(v, "reference"))) {
		http_reply_error(rq, 400, "UNSUPPORTED",
				 "expected {\"reference\": …}");
		return;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		http_reply_error(rq, 500, "UNKNOWN", "out of memory");
		return;
	}
	p->line = p->next = BUF_INIT(65536);
	p->rq = rq;
	if (pull_start(d, ref, &cb, p, &p->pull, &err) < 0) {
		http_reply_error(rq, 400, "NAME_INVALID", "%s", err.text);
		pull_req_free(p);
		return;
	}
	http_req_set_data(rq, p);
	http_req_on_gone(rq, pull_gone);
	http_header_add(rq, "Content-Type", LINES_TYPE);
	http_begin(rq, 200, -1);
}

/* ---- Routes ---- */

static void get_peers(struct daemon *d, struct http_req *rq)
{
	CLEANUP(buf_release) struct buf out = BUF_INIT(16 << 20);
	int r = d->peers ? peers_json(d->peers, &out)
			 : buf_str(&out, "{\"peers\":[]}\n");

	if (r < 0)
		http_reply_error(rq, 500, "UNKNOWN", "%s", strerror(-r));
	else
		http_reply(rq, 200, JSON_TYPE, out.data, out.len);
}

/* Readiness: whether the daemon takes traffic. For liveness any answer counts.
 */
static void get_ready(struct daemon *d, struct http_req *rq)
{
	if (d->ready && !d->stopping)
		http_reply(rq, 200, "text/plain", "ok\n", 3);
	else
		http_reply(rq, 503, "text/plain",
			   d->stopping ? "stopping\n" : "starting\n", 9);
}

typedef void handler(struct daemon *d, struct http_req *rq);

static void get_health(struct daemon *d, struct http_req *rq)
{
	(void)d;
	http_reply(rq, 200, "text/plain", "ok\n", 3);
}

/* What the route answers to its methods; 405 to all others. */
static void answer_get(struct daemon *d, struct http_req *rq, handler *get)
{
	if (strcmp(http_req_method(rq), "GET") == 0 || http_req_is_head(rq)) {
		get(d, rq);
		return;
	}
	http_header_add(rq, "Allow", "GET, HEAD");
	http_reply_error(rq, 405, "UNSUPPORTED",
			 "only GET and HEAD are allowed");
}

static bool is_post(struct http_req *rq)
{
	if (strcmp(http_req_method(rq), "POST") == 0)
		return true;
	http_header_add(rq, "Allow", "POST");
	http_reply_error(rq, 405, "UNSUPPORTED", "only POST is allowed");
	return false;
}

/* The routes of every listener. */
static bool handle_common(struct daemon *d, struct http_req *rq)
{
	const char *path = http_req_path(rq);

	if (strcmp(path, "/healthz") == 0)
		answer_get(d, rq, get_health);
	else if (strcmp(path, "/readyz") == 0)
		answer_get(d, rq, get_ready);
	else if (strcmp(path, "/metrics/prometheus") == 0 ||
		 strcmp(path, "/metrics") == 0)
		answer_get(d, rq, get_metrics);
	else
		return false;
	return true;
}

/* The same for those of --http-addr and the control socket. */
static bool handle_status(struct daemon *d, struct http_req *rq)
{
	const char *path = http_req_path(rq);

	if (strcmp(path, "/api/v1/status") == 0)
		answer_get(d, rq, get_status);
	else if (strcmp(path, "/api/v1/blobs") == 0)
		answer_get(d, rq, get_blobs);
	else if (strcmp(path, "/api/v1/peers") == 0)
		answer_get(d, rq, get_peers);
	else
		return handle_common(d, rq);
	return true;
}

static void no_route(struct http_req *rq)
{
	http_reply_error(rq, 404, "UNSUPPORTED", "no such route: %.200s",
			 http_req_path(rq));
}

void api_handle_metrics(void *arg, struct http_req *rq)
{
	if (doors_open(arg, rq) && !handle_common(arg, rq))
		no_route(rq);
}

void api_handle_public(void *arg, struct http_req *rq)
{
	struct daemon *d = arg;

	if (!doors_open_to(d, rq) || !doors_open(d, rq))
		return;
	if (!mirror_handle(d->mirror, rq) && !proxy_handle(d->proxy, rq) &&
	    !handle_status(d, rq))
		no_route(rq);
}

void api_handle(void *arg, struct http_req *rq)
{
	struct daemon *d = arg;
	const char *path = http_req_path(rq);

	if (strcmp(path, "/api/v1/pull") == 0) {
		if (is_post(rq))
			post_pull(d, rq);
	} else if (strcmp(path, "/api/v1/verify") == 0) {
		if (is_post(rq))
			post_keys(d, rq, verify_one);
	} else if (strcmp(path, "/api/v1/evict") == 0) {
		if (is_post(rq))
			post_keys(d, rq, evict_one);
	} else if (!handle_status(d, rq)) {
		no_route(rq);
	}
}
