/* Manifests by digest and by tag. */
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "registry/registry-private.h"

struct manifest_query {
	struct query f;
	struct store *store;
	uint64_t tag_fresh_ms;
	char *reference;
	bool by_tag;
	bool has_digest; /* digest is known, or the reference */
	struct digest digest;
	bool fresh; /* upstream confirmed the tag within tag_fresh_ms */
	bool stale;
	bool told;	 /* other nodes were told of it */
	bool from_peers; /* the bytes come from a member, not from upstream */
	bool peers_tried;
	bool asking; /* upstream's answer is still to come */
	/* A member's answer that is held back: upstream's may come in time. */
	char *peer_type;
	void *peer_bytes;
	size_t peer_len;
	/* The manifest, received or from the store; moves between loop and
	 * jobs. */
	char *type;
	void *bytes;
	size_t len;
	bool expected_known; /* expected: the digest that the bytes must have */
	struct digest expected;
	struct manifest *manifest;
	int r; /* result of the job; or the error if other nodes fail too */
};

static struct manifest_query *of(struct query *f)
{
	return container_of(f, struct manifest_query, f);
}

static struct manifest_query *of_job(struct store_job *j)
{
	return of(container_of(j, struct query, job));
}

static void drop_content(struct manifest_query *m)
{
	manifest_free(&m->manifest);
	free(m->bytes);
	free(m->type);
	m->bytes = NULL;
	m->type = NULL;
	m->len = 0;
}

static void manifest_release(struct query *f)
{
	drop_content(of(f));
	free(of(f)->reference);
	free(of(f)->peer_type);
	free(of(f)->peer_bytes);
}

/* From now on other nodes may ask this node for the manifest. */
static void tell_peers(struct manifest_query *m)
{
	struct other_nodes *p = m->f.r->peers;

	if (p && !m->told)
		p->ops->noted(p, m->f.host, m->f.name,
			      m->by_tag ? m->reference : NULL, &m->digest);
	m->told = true;
}

static void manifest_answer(struct query *f, int r, void (*cb)(void), void *arg)
{
	manifest_cb *call_back = (manifest_cb *)cb;
	struct manifest_query *m;
	struct manifest_result res;

	if (r < 0) {
		call_back(arg, r, NULL);
		return;
	}
	m = of(f);
	tell_peers(m);
	res = (struct manifest_result){
		.digest = m->digest,
		.media_type = m->type,
		.bytes = m->bytes,
		.len = m->len,
		.manifest = m->manifest,
		.stale = m->stale,
	};
	call_back(arg, 0, &res);
}

/* ---- Jobs ---- */

/* The document's own type overrides the header's. The result always fits into a
 * header. */
static int settle_type(struct manifest_query *m)
{
	const char *t = m->type ? m->type : "";
	size_t n = strcspn(t, "; \t,");
	char *s;

	if (m->manifest) {
		t = m->manifest->media_type;
		n = strlen(t);
	}
	for (size_t i = 0; i < n; i++) {
		if (t[i] <= ' ' || t[i] > '~')
			n = 0;
	}
	s = n && n < 256 ? strndup(t, n) : strdup("application/octet-stream");
	if (!s)
		return -ENOMEM;
	free(m->type);
	m->type = s;
	return 0;
}

static int parse(struct manifest_query *m)
{
	int r;

	r = manifest_parse(m->bytes, m->len, m->type ? m->type : "",
			   &m->manifest, NULL);
	if (r == -ENOMEM)
		return r;
	return settle_type(m);
}

/* Loads the manifest d from the store. On an error m keeps its content, unless
 * memory is short. */
static int load(struct manifest_query *m, const struct digest *d)
{
	CLEANUP(freep) char *type = NULL;
	CLEANUP(freep) void *bytes = NULL;
	struct digest sum;
	size_t len;
	int r;

	r = store_manifest_get(m->store, d, &type, &bytes, &len);
	if (r < 0)
		return r;
	digest_of(bytes, len, &sum);
	if (!digest_equal(&sum, d))
		return -ENOENT;
	drop_content(m);
	m->digest = *d;
	m->type = steal_ptr(&type);
	m->bytes = steal_ptr(&bytes);
	m->len = len;
	return parse(m);
}

static void look_up(struct store_job *j)
{
	struct manifest_query *m = of_job(j);
	uint64_t now = now_unix_s(), seen;
	struct digest digest;

	if (m->by_tag) {
		m->r = store_tag_get(m->store, m->f.repo, m->reference,
				     &m->digest, &seen);
		if (m->r < 0)
			return;
		m->has_digest = true;
		m->fresh = seen <= now && (now - seen) * 1000 < m->tag_fresh_ms;
	}
	digest = m->digest;
	m->r = load(m, &digest);
	if (m->r < 0)
		m->fresh = false;
}

static void note_tag(struct manifest_query *m, uint64_t seen)
{
	if (m->by_tag)
		(void)store_tag_put(m->store, m->f.repo, m->reference,
				    &m->digest, seen);
}

/* Upstream confirmed the tag, or named a digest that the store may have. */
static void confirm(struct store_job *j)
{
	struct manifest_query *m = of_job(j);

	if (m->bytes && digest_equal(&m->digest, &m->expected))
		m->r = 0;
	else
		m->r = load(m, &m->expected);
	if (m->r == 0)
		note_tag(m, now_unix_s());
}

static void forget_tag(struct store_job *j)
{
	struct manifest_query *m = of_job(j);

	(void)store_tag_del(m->store, m->f.repo, m->reference);
}

static void note_children(struct manifest_query *m)
{
	const struct manifest *doc = m->manifest;
	const char *repo = m->f.repo;

	(void)store_repo_add(m->store, repo, true, &m->digest, m->len);
	if (!doc)
		return;
	if (doc->has_config)
		(void)store_repo_add(m->store, repo, false, &doc->config.digest,
				     doc->config.size);
	for (uint32_t i = 0; i < doc->nentries; i++)
		(void)store_repo_add(m->store, repo, doc->index,
				     &doc->entries[i].digest,
				     doc->entries[i].size);
}

/* Checks content from upstream or from a member. Content without an expected
 * digest, or a member's answer for a tag, must at least be a manifest: a login
 * page with status 200 must not become a tag. A member's tag counts as seen
 * long ago. If the store cannot keep the manifest, the store logs this, and it
 * is served all the same. */
static void accept_content(struct store_job *j)
{
	struct manifest_query *m = of_job(j);
	bool must_parse = !m->expected_known || (m->from_peers && m->by_tag);
	struct digest d;

	digest_of(m->bytes, m->len, &d);
	if (m->expected_known && !digest_equal(&d, &m->expected)) {
		m->r = -EBADMSG;
		return;
	}
	m->digest = d;
	m->r = parse(m);
	if (m->r < 0)
		return;
	if (!m->manifest && must_parse) {
		m->r = -EBADMSG;
		return;
	}
	(void)store_manifest_put(m->store, &d, m->type, m->bytes, m->len);
	note_children(m);
	note_tag(m, m->from_peers ? 0 : now_unix_s());
}

/* ---- Upstream ---- */

static void accepted(struct query *f)
{
	struct manifest_query *m = of(f);

	if (m->r == -EBADMSG)
		query_why(f, m->expected_known
				     ? "the content does not match its digest"
				     : "the content is not a manifest");
	query_finish(f, m->r);
}

/* Serves the last known digest, because upstream did not answer. */
static void serve_stale(struct query *f)
{
	struct manifest_query *m = of(f);

	m->stale = true;
	query_finish(f, 0);
}

static void get(struct query *f, const char *ref);

static void peers_accepted(struct query *f)
{
	struct manifest_query *m = of(f);

	if (m->r == 0 || !m->asking) {
		accepted(f);
		return;
	}
	/* A member's wrong bytes take nothing from upstream's answer. */
	drop_content(m);
	m->from_peers = m->stale = false;
	get(f, m->reference);
}

/* Takes the member's answer that is held back. A tag counts as seen long ago;
 * it is asked for again when the host answers. */
static void use_peers(struct query *f)
{
	struct manifest_query *m = of(f);

	call_abandon(&f->call);
	drop_content(m);
	m->bytes = steal_ptr(&m->peer_bytes);
	m->type = steal_ptr(&m->peer_type);
	m->len = m->peer_len;
	m->from_peers = true;
	m->stale = m->by_tag;
	query_job(f, accept_content, peers_accepted);
}

static void peers_answered(void *arg, int r, const char *type,
			   const void *bytes, size_t len)
{
	struct query *f = arg;
	struct manifest_query *m = of(f);

	f->asked_peers = false;
	if (r == 0) {
		m->peer_bytes = malloc(len);
		m->peer_type = strdup(type);
		m->peer_len = len;
	}
	if (r == 0 && m->peer_bytes && m->peer_type) {
		memcpy(m->peer_bytes, bytes, len);
		if (!m->asking || (f->call && (f->late || !m->by_tag)))
			use_peers(f);
	} else if (!m->asking) {
		query_finish(f, m->r);
	}
}

static void ask_peers(struct query *f)
{
	struct other_nodes *p = f->r->peers;

	f->asked_peers = of(f)->peers_tried = true;
	p->ops->get_manifest(p, f->host, f->name, of(f)->reference,
			     peers_answered, f);
}

static void warn_stale(struct query *f)
{
	log_warn("upstream does not answer; the last known digest of a tag is "
		 "served",
		 LS("repository", f->repo), LS("tag", of(f)->reference),
		 LS("why", f->why));
}

static void manifest_impatient(struct query *f, bool late)
{
	struct manifest_query *m = of(f);

	if (!f->call)
		return;
	if (m->by_tag && m->bytes) {
		if (!late || list_empty(&f->waiters))
			return;
		query_why(f, "no answer yet");
		warn_stale(f);
		m->stale = true;
		query_answer_waiting(f);
		m->stale = false;
	} else if (m->peer_bytes && m->peer_type) {
		if (late)
			use_peers(f);
	} else if (f->r->peers && !m->peers_tried) {
		ask_peers(f);
	}
}

/* r: the error to end with if the members do not have it either. True: they are
 * asked, or their answer is used. */
static bool peers_instead(struct query *f, int r)
{
	struct manifest_query *m = of(f);

	m->r = r;
	if (!f->r->peers)
		return false;
	if (m->peer_bytes && m->peer_type)
		use_peers(f);
	else if (!m->peers_tried)
		ask_peers(f);
	else
		return f->asked_peers;
	return true;
}

/* Errors of a registry are JSON. A 404 that is not is perhaps that of a proxy
 * that has lost its registry: the tag is not forgotten for it, nor is the 404
 * remembered. */
static bool is_registrys(struct call *c)
{
	const char *type = call_header(c, "Content-Type", 0);

	return type && strcasestr(type, "json");
}

static void failed(struct query *f, struct call *c, int r)
{
	struct manifest_query *m = of(f);
	bool unreachable = call_unreachable(c, r);

	r = call_public_errno(c, r);
	m->asking = false;
	if (unreachable) {
		query_host_failed(f);
		if (m->by_tag && m->bytes) {
			warn_stale(f);
			serve_stale(f);
			return;
		}
		if (peers_instead(f, r))
			return;
	} else {
		query_host_answered(f);
	}
	m->r = r;
	if (r == -ENOENT && m->by_tag && m->has_digest && !unreachable) {
		if (is_registrys(c))
			query_job(f, forget_tag, accepted);
		else
			query_finish_once(f, r);
	} else {
		query_finish(f, r);
	}
}

static void read_digest_header(struct manifest_query *m, struct call *c)
{
	const char *v = call_header(c, "Docker-Content-Digest", 0);
	struct digest d;

	if (!v || digest_parse(v, &d) < 0)
		return;
	m->expected = d;
	m->expected_known = true;
}

static void got(struct call *c, int r, const char *why)
{
	struct query *f = c->arg;
	struct manifest_query *m = of(f);
	const char *type = call_header(c, "Content-Type", 0);

	query_why(f, why);
	f->call = NULL;
	if (r < 0) {
		failed(f, c, r);
		return;
	}
	m->asking = false;
	query_host_answered(f);
	if (m->by_tag && !m->expected_known)
		read_digest_header(m, c);
	drop_content(m);
	m->len = c->body.len;
	m->bytes = buf_steal(&c->body);
	m->type = strdup(type ? type : "");
	if (!m->bytes || !m->type) {
		query_finish(f, m->len ? -ENOMEM : -EBADMSG);
		return;
	}
	query_job(f, accept_content, accepted);
}

static void headed(struct call *c, int r, const char *why);

static int send_call(struct query *f, const char *method, const char *ref,
		     const struct call_ops *ops)
{
	CLEANUP(login_unref) struct login *s = NULL;
	CLEANUP(freep) char *url = NULL;
	struct call_spec spec = {
		.method = method,
		.accept = manifest_accept,
		.max_body = MANIFEST_MAX_BYTES,
		.deadline_ms = outage_deadline_ms(f->r, f->host),
		.registry = f->host,
		.retry = true,
	};
	int r;

	of(f)->asking = true;
	r = login_url(f->r, f->host, f->name, &s, &url, "%s/manifests/%s",
		      f->name, ref);
	if (r < 0)
		return r;
	spec.url = url;
	spec.login = s;
	return call_start(f->r, &spec, ops, f, &f->call);
}

static void get(struct query *f, const char *ref)
{
	static const struct call_ops ops = {
		.done = got,
		.delayed = query_hurry,
	};
	int r = send_call(f, "GET", ref, &ops);

	if (r < 0)
		query_finish(f, r);
}

static void head(struct query *f)
{
	static const struct call_ops ops = {
		.done = headed,
		.delayed = query_hurry,
	};
	int r = send_call(f, "HEAD", of(f)->reference, &ops);

	if (r < 0)
		query_finish(f, r);
}

/* Runs after confirm(). Gets by digest, so that a tag that moves in between
 * cannot give one digest and the content of another. */
static void confirmed(struct query *f)
{
	struct manifest_query *m = of(f);
	char digest[DIGEST_STR_SIZE];

	if (m->r == 0)
		query_finish(f, 0);
	else
		get(f, digest_str(&m->expected, digest));
}

static void headed(struct call *c, int r, const char *why)
{
	struct query *f = c->arg;
	struct manifest_query *m = of(f);

	query_why(f, why);
	f->call = NULL;
	if (r == 0) {
		query_host_answered(f);
		read_digest_header(m, c);
	}
	if (r == 0 && m->expected_known)
		query_job(f, confirm, confirmed);
	else if (r == 0 || call_head_refused(c))
		get(f, m->reference);
	else
		failed(f, c, r);
}

static void looked_up(struct query *f)
{
	struct manifest_query *m = of(f);

	if (m->r == 0 && (!m->by_tag || m->fresh)) {
		query_finish(f, 0);
		return;
	}
	if (m->r == 0) {
		if (query_host_is_down(f)) {
			serve_stale(f);
			return;
		}
		query_wait(f);
		head(f);
		return;
	}
	if (!m->by_tag) {
		m->expected = m->digest;
		m->expected_known = true;
	}
	query_wait(f);
	get(f, m->reference);
}

static void manifest_begin(struct query *f)
{
	query_job(f, look_up, looked_up);
}

static const struct query_ops manifest_ops = {
	.size = sizeof(struct manifest_query),
	.begin = manifest_begin,
	.answer = manifest_answer,
	.release = manifest_release,
	.impatient = manifest_impatient,
};

static int set_reference(struct manifest_query *m, const char *reference)
{
	if (digest_parse(reference, &m->digest) == 0)
		m->has_digest = true;
	else if (ref_tag_valid(reference))
		m->by_tag = true;
	else
		return -ENOENT;
	m->reference = strdup(reference);
	return m->reference ? 0 : -ENOMEM;
}

void registry_get_manifest(struct registry *r, const char *host,
			   const char *name, const char *reference,
			   manifest_cb *cb, void *arg)
{
	struct query *f;
	bool is_new;
	char *key;
	int e;

	if (asprintf(&key, "manifest %s %s %s", host, name, reference) < 0)
		key = NULL;
	f = query_join(r, &manifest_ops, key, (void (*)(void))cb, arg, &is_new);
	if (!f || !is_new)
		return;
	of(f)->store = r->store;
	of(f)->tag_fresh_ms = r->tag_fresh_ms;
	e = query_set_repo(f, host, name);
	if (e == 0)
		e = set_reference(of(f), reference);
	if (e < 0)
		query_abort(f, e);
}
