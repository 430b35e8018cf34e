#include "registry/mirror.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/ref.h"
#include "http/url.h"
#include "registry/pass.h"

struct mirror {
	struct mirror_config cfg;
};

static struct metric_family m_requests = {
	.name = "peerd_mirror_requests_total",
	.help = "Requests of container runtimes, by kind and outcome.",
	.type = METRIC_COUNTER,
	.labels = {"kind", "code"},
};
static struct metric_family m_stale = {
	.name = "peerd_mirror_stale_tags_total",
	.help = "Tags and lists that were served although upstream did not "
		"confirm them.",
	.type = METRIC_COUNTER,
};

/* A request that waits for the registry's callback. */
struct mirror_ask {
	struct mirror *m;
	struct http_req *rq; /* NULL: answered, or the client is gone */
	uv_timer_t timer;    /* sends the 404 at the deadline */
	bool closing, called_back;
	bool list; /* not a manifest or a blob */
};

static void count(const char *kind, const char *code)
{
	metric_add(metric_get(&m_requests, (const char *const[]){kind, code}),
		   1);
}

/* Whether the client asks another server when this one fails. "ns" is what
 * containerd adds for a mirror. Podman, CRI-O and Docker send none; after a
 * manifest that came from here, they ask only here for its blobs. To them this
 * mirror is the registry, and a 404 for a list means that the list is empty. */
static bool has_next_host(struct http_req *rq)
{
	return http_req_query(rq, "ns") != NULL;
}

static void on_timer_closed(uv_handle_t *h)
{
	struct mirror_ask *a = h->data;

	a->closing = false;
	if (a->called_back)
		free(a);
}

/* Takes the request for an answer: nothing else can answer it afterwards. */
static struct http_req *take(struct mirror_ask *a)
{
	struct http_req *rq = steal_ptr(&a->rq);

	if (!rq)
		return NULL;
	http_req_on_gone(rq, NULL);
	a->closing = true;
	uv_close((uv_handle_t *)&a->timer, on_timer_closed);
	return rq;
}

static void on_gone(struct http_req *rq)
{
	struct mirror_ask *a = http_req_data(rq);

	(void)take(a);
	http_release(rq);
}

static void not_found(struct http_req *rq, const char *kind, const char *why)
{
	bool blob = strcmp(kind, "blob") == 0;

	count(kind, "404");
	http_reply_error(rq, 404, blob ? "BLOB_UNKNOWN" : "MANIFEST_UNKNOWN",
			 "%s", why);
}

/* No list can be had. Never a 404 that a client takes for an empty list: it
 * would lose signatures without noticing. */
static void no_list(struct http_req *rq, int status, const char *code,
		    const char *why)
{
	if (has_next_host(rq))
		status = 404;
	count("list", status == 404 ? "404" : status == 403 ? "403" : "502");
	http_reply_error(rq, status, code, "%s", why);
}

/* For a client that asks nobody else. A 404 would say that the registry does
 * not have the blob. */
static void no_blob(struct http_req *rq, const char *why)
{
	count("blob", "502");
	http_reply_error(rq, 502, "UNAVAILABLE", "%s", why);
}

static void on_deadline(uv_timer_t *t)
{
	struct mirror_ask *a = t->data;
	bool list = a->list;
	struct http_req *rq = take(a);

	if (rq && list)
		no_list(rq, 502, "UNAVAILABLE",
			"no answer from upstream in time");
	else if (rq)
		not_found(rq, "any", "no answer from upstream in time");
}

static uint64_t deadline_ms(const struct mirror *m)
{
	return m->cfg.deadline_ms ? m->cfg.deadline_ms : 25000;
}

/* With patient, no deadline: the registry's own ends the request. */
static struct mirror_ask *ask_new(struct mirror *m, struct http_req *rq,
				  bool patient)
{
	struct mirror_ask *a = calloc(1, sizeof(*a));

	if (!a) {
		http_reply_error(rq, 500, "UNKNOWN", "out of memory");
		return NULL;
	}
	a->m = m;
	a->rq = rq;
	(void)uv_timer_init(loop_uv(m->cfg.serve->loop), &a->timer);
	a->timer.data = a;
	if (!patient)
		(void)uv_timer_start(&a->timer, on_deadline, deadline_ms(m), 0);
	http_req_set_data(rq, a);
	http_req_on_gone(rq, on_gone);
	return a;
}

/* Call it in the registry's callback: ends the ask. */
static struct http_req *ask_end(struct mirror_ask *a)
{
	struct http_req *rq = take(a);

	a->called_back = true;
	if (!a->closing)
		free(a);
	return rq;
}

static const char *why_not(int r)
{
	switch (r) {
	case -ENOENT:
		return "upstream has no such content";
	case -EACCES:
		return "upstream refuses this node's credentials";
	case -EBADMSG:
		return "upstream sent wrong or malformed content";
	default:
		return "upstream cannot be reached";
	}
}

static void reply_manifest(struct http_req *rq,
			   const struct manifest_result *res)
{
	char d[DIGEST_STR_SIZE];

	(void)digest_str(&res->digest, d);
	http_header_add(rq, "Docker-Content-Digest", "%s", d);
	if (res->stale) {
		metric_add(metric_get(&m_stale, NULL), 1);
		http_header_add(rq, "Warning",
				"110 peerd \"upstream did not confirm it\"");
	}
	count("manifest", "200");
	serve_bytes(rq, res->bytes, res->len,
		    *res->media_type ? res->media_type : "application/json", d);
}

static void on_manifest(void *arg, int r, const struct manifest_result *res)
{
	struct http_req *rq = ask_end(arg);

	if (!rq)
		return;
	if (r < 0)
		not_found(rq, "manifest", why_not(r));
	else
		reply_manifest(rq, res);
}

/* The next page by the same mirror; ns goes with it. */
static void add_link(struct http_req *rq, const char *next)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(URL_MAX_BYTES + 1024);
	const char *ns = http_req_query(rq, "ns");
	int r = buf_str(&b, next);

	if (ns && *next == '/') {
		r = r < 0 ? r
			  : buf_str(&b, strchr(next, '?') ? "&ns=" : "?ns=");
		r = r < 0 ? r : url_encode(&b, ns, ":");
	}
	if (r == 0)
		http_header_add(rq, "Link", "<%s>; rel=\"next\"", b.data);
}

static void reply_list(struct http_req *rq, const struct list_result *res)
{
	char code[8];

	(void)snprintf(code, sizeof(code), "%d", res->status);
	count("list", code);
	if (res->next)
		add_link(rq, res->next);
	if (res->filters)
		http_header_add(rq, "OCI-Filters-Applied", "%s", res->filters);
	if (res->stale) {
		metric_add(metric_get(&m_stale, NULL), 1);
		http_header_add(rq, "Warning",
				"110 peerd \"upstream did not confirm it\"");
	}
	http_reply(rq, res->status,
		   res->media_type ? res->media_type : "application/json",
		   res->bytes, res->len);
}

static void on_list(void *arg, int r, const struct list_result *res)
{
	struct http_req *rq = ask_end(arg);

	if (!rq)
		return;
	if (r == -EPERM || r == -EACCES)
		no_list(rq, 403, "DENIED", why_not(r));
	else if (r < 0)
		no_list(rq, 502, "UNAVAILABLE", why_not(r));
	else if (res->status == 401 || res->status == 403)
		no_list(rq, 403, "DENIED", why_not(-EACCES));
	else if (has_next_host(rq) &&
		 (res->status == 408 || res->status == 429 ||
		  res->status >= 500))
		no_list(rq, 502, "UNAVAILABLE", why_not(-EHOSTUNREACH));
	else
		reply_list(rq, res);
}

static void reply_blob(struct mirror *m, struct http_req *rq, struct blob **b)
{
	struct serve_how how = {.tell_digest = true};

	if (!has_next_host(rq)) {
		how.patient = true;
		how.miss_status = 502;
	}
	count("blob", "200");
	serve_blob(m->cfg.serve, rq, b, &how);
}

static void on_blob(void *arg, int r, struct blob *b)
{
	struct mirror_ask *a = arg;
	struct mirror *m = a->m;
	struct http_req *rq = ask_end(a);

	if (!rq)
		blob_unref(&b);
	else if (r == 0)
		reply_blob(m, rq, &b);
	else if (r == -ENOENT || has_next_host(rq))
		not_found(rq, "blob", why_not(r));
	else
		no_blob(rq, why_not(r));
}

/* Takes the registry out of a name "HOST/NAME" or "HOST__PORT/NAME". The rule
 * is that of references: a first component with a '.' or a port, or
 * "localhost", is a host. False: there is none, or it is not one of --hosts;
 * *name is unchanged. *ret points into *name. */
static bool take_host(const struct mirror *m, char **name, const char **ret)
{
	char *slash = strchr(*name, '/'), *port;
	bool is_host;

	if (!slash)
		return false;
	*slash = '\0';
	port = strstr(*name, "__");
	is_host = port || strchr(*name, '.') || strcmp(*name, "localhost") == 0;
	if (port) {
		port[0] = ':';
		memmove(port + 1, port + 2, strlen(port + 2) + 1);
	}
	if (is_host && ref_host_valid(*name) &&
	    (m->cfg.hosts->n == 0 || ref_host_listed(m->cfg.hosts, *name))) {
		*ret = ref_host_canonical(*name);
		*name = slash + 1;
		return true;
	}
	if (port) {
		memmove(port + 2, port + 1, strlen(port + 1) + 1);
		port[0] = port[1] = '_';
	}
	*slash = '/';
	return false;
}

/* Returns the registry of a request without ns and without a host in its name:
 * the default, or the only one that is served. NULL: it could be several. */
static const char *default_host(const struct mirror *m)
{
	const char *only = m->cfg.hosts->n == 1 ? m->cfg.hosts->v[0] : "";

	if (m->cfg.default_host)
		return ref_host_canonical(m->cfg.default_host);
	return ref_host_valid(only) && strcmp(only, "_default") != 0
		       ? ref_host_canonical(only)
		       : NULL;
}

/* Finds the registry that the client means, and takes it out of *name if it
 * stands there; NULL: an error was sent. */
static const char *which_host(struct mirror *m, struct http_req *rq,
			      char **name)
{
	const char *ns = http_req_query(rq, "ns");

	if (!ns && !take_host(m, name, &ns))
		ns = default_host(m);
	if (!ns) {
		http_reply_error(rq, 404, "NAME_UNKNOWN",
				 "the registry is not clear: the request has "
				 "neither ns= nor HOST/ before the name");
		return NULL;
	}
	ns = ref_host_canonical(ns);
	if (!ref_host_valid(ns)) {
		http_reply_error(rq, 400, "NAME_INVALID",
				 "ns is not the name of a registry");
		return NULL;
	}
	if (m->cfg.hosts->n > 0 && !ref_host_listed(m->cfg.hosts, ns)) {
		http_reply_error(rq, 404, "NAME_UNKNOWN",
				 "not a registry that this mirror serves");
		return NULL;
	}
	return ns;
}

static void on_pass_blob(struct http_req *rq, int r)
{
	if (r < 0)
		not_found(rq, "blob", why_not(r));
	else
		count("blob", "200");
}

static void on_pass_manifest(struct http_req *rq, int r)
{
	if (r < 0)
		not_found(rq, "manifest", why_not(r));
	else
		count("manifest", "200");
}

/* Content whose digest is not a SHA-256: the store does not keep it. */
static void pass(struct mirror *m, struct http_req *rq, const char *host,
		 const char *name, const char *digest, bool blob)
{
	char what[sizeof("manifests/") + REF_DIGEST_MAX];
	CLEANUP(freep) char *full = NULL;

	(void)snprintf(what, sizeof(what), "%s/%s",
		       blob ? "blobs" : "manifests", digest);
	if (strcmp(host, "docker.io") == 0 && !strchr(name, '/') &&
	    asprintf(&full, "library/%s", name) < 0)
		full = NULL;
	registry_pass(m->cfg.registry, rq, host, full ? full : name, what,
		      blob ? NULL : manifest_accept, deadline_ms(m),
		      blob ? on_pass_blob : on_pass_manifest);
}

static void get_blob(struct mirror *m, struct http_req *rq, const char *host,
		     const char *name, const char *reference)
{
	struct blob_key key = {.kind = BLOB_SHA256};
	struct blob *b;
	struct mirror_ask *a;

	if (digest_parse(reference, &key.id) < 0) {
		if (ref_digest_valid(reference))
			pass(m, rq, host, name, reference, true);
		else
			http_reply_error(rq, 400, "DIGEST_INVALID",
					 "not a digest");
		return;
	}
	/* The usual case: the blob is in memory and complete. An earlier
	 * request has added its origin, as a rule. */
	if (store_peek(m->cfg.serve->store, &key, &b) == 0) {
		if (blob_missing(b) == 0) {
			reply_blob(m, rq, &b);
			return;
		}
		blob_unref(&b);
	}
	a = ask_new(m, rq, !has_next_host(rq));
	if (a)
		registry_get_blob(m->cfg.registry, host, name, &key.id, on_blob,
				  a);
}

static void get_manifest(struct mirror *m, struct http_req *rq,
			 const char *host, const char *name,
			 const char *reference)
{
	struct digest d;
	struct mirror_ask *a;

	if (digest_parse(reference, &d) < 0 && !ref_tag_valid(reference)) {
		if (ref_digest_valid(reference))
			pass(m, rq, host, name, reference, false);
		else
			http_reply_error(rq, 400, "MANIFEST_INVALID",
					 "neither a tag nor a digest");
		return;
	}
	a = ask_new(m, rq, false);
	if (a)
		registry_get_manifest(m->cfg.registry, host, name, reference,
				      on_manifest, a);
}

/* The query as the client sent it, without ns. NULL: no memory. */
static char *query_without_ns(struct http_req *rq)
{
	const char *q = strchr(http_req_target(rq), '?');
	char *copy = strdup(q ? q + 1 : ""), *out = copy;

	if (!copy)
		return NULL;
	for (const char *p = q ? q + 1 : ""; *p;) {
		size_t n = strcspn(p, "&");

		if (n && strncmp(p, "ns=", 3) != 0) {
			if (out > copy)
				*out++ = '&';
			memcpy(out, p, n);
			out += n;
		}
		p += n + (p[n] == '&');
	}
	*out = '\0';
	return copy;
}

/* name: NULL for the catalog. */
static void get_list(struct mirror *m, struct http_req *rq, char *name,
		     const char *what)
{
	char none[] = "", *rest = name ? name : none;
	const char *host = which_host(m, rq, &rest);
	CLEANUP(freep) char *query = NULL;
	struct mirror_ask *a;

	if (!host)
		return;
	query = query_without_ns(rq);
	if (!query) {
		http_reply_error(rq, 500, "UNKNOWN", "out of memory");
		return;
	}
	a = ask_new(m, rq, false);
	if (!a)
		return;
	a->list = true;
	registry_get_list(m->cfg.registry, host, name ? rest : NULL, what,
			  query, on_list, a);
}

static void get_referrers(struct mirror *m, struct http_req *rq, char *name,
			  const char *digest)
{
	char what[sizeof("referrers/") + REF_DIGEST_MAX];

	if (!ref_digest_valid(digest)) {
		http_reply_error(rq, 400, "DIGEST_INVALID", "not a digest");
		return;
	}
	(void)snprintf(what, sizeof(what), "referrers/%s", digest);
	get_list(m, rq, name, what);
}

static void get_of_repository(struct mirror *m, struct http_req *rq, char *name,
			      const char *kind, const char *reference)
{
	bool blob = strcmp(kind, "blobs") == 0;
	const char *host;

	if (strcmp(kind, "tags") == 0 && strcmp(reference, "list") == 0) {
		get_list(m, rq, name, "tags/list");
	} else if (strcmp(kind, "referrers") == 0) {
		get_referrers(m, rq, name, reference);
	} else if (!blob && strcmp(kind, "manifests") != 0) {
		http_reply_error(rq, 404, "UNSUPPORTED", "no such route");
	} else {
		host = which_host(m, rq, &name);
		if (host && blob)
			get_blob(m, rq, host, name, reference);
		else if (host)
			get_manifest(m, rq, host, name, reference);
	}
}

bool mirror_handle(struct mirror *m, struct http_req *rq)
{
	CLEANUP(freep) char *path = strdup(http_req_path(rq));
	char *name, *kind, *reference;

	if (!path || strncmp(path, "/v2/", 4) != 0)
		return path && strcmp(path, "/v2") == 0
			       ? (http_reply(rq, 200, "application/json", "{}",
					     2),
				  true)
			       : false;
	http_header_add(rq, "Docker-Distribution-Api-Version", "registry/2.0");
	if (strcmp(http_req_method(rq), "GET") != 0 && !http_req_is_head(rq)) {
		http_header_add(rq, "Allow", "GET, HEAD");
		http_reply_error(rq, 405, "UNSUPPORTED",
				 "only GET and HEAD are allowed");
		return true;
	}
	if (strcmp(path, "/v2/") == 0) {
		http_reply(rq, 200, "application/json", "{}", 2);
		return true;
	}
	if (strcmp(path, "/v2/_catalog") == 0) {
		get_list(m, rq, NULL, "_catalog");
		return true;
	}
	/* Some clients encode a digest's colon. Names need no escapes; an
	 * encoded slash is refused. */
	if (strcasestr(path, "%2f") || strcasestr(path, "%00") ||
	    !url_decode(path) ||
	    !ref_split_path(path, &name, &kind, &reference))
		http_reply_error(rq, 400, "NAME_INVALID",
				 "not the name of a repository");
	else
		get_of_repository(m, rq, name, kind, reference);
	return true;
}

int mirror_new(const struct mirror_config *cfg, struct mirror **ret)
{
	struct mirror *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->cfg = *cfg;
	metric_register(&m_requests);
	metric_register(&m_stale);
	*ret = m;
	return 0;
}

void mirror_free(struct mirror **m)
{
	free(*m);
	*m = NULL;
}
