/* Plain HTTP(S) files as blobs. A blob's id is made of the URL without its
 * query, and of the version that the server names. The whole URL, which may be
 * signed, stays in memory. */
#include <inttypes.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "base/log.h"
#include "registry/client-auth.h"
#include "registry/registry-private.h"
#include "registry/urldigest.h"

#define ORIGIN_MAX    1024
#define RECORD_MAX    512
#define KV_KEY_MAX    480
#define RECORD_FORMAT "1 %" PRIu64 " %64s %64s"

/* The version of a URL that was asked for lately; valid until until_ms. */
struct url_version {
	struct name_node node; /* in registry.versions, by url_query.known_as */
	char *origin;
	struct blob_key key;
	uint64_t until_ms;
};

struct url_query {
	struct query f;
	struct store *store;
	uint64_t negative_ms;
	char *url;	/* with its query; secret */
	char *known_as; /* url, with " tag" appended if there is auth */
	struct source_auth *auth; /* NULL: none */
	char *origin;		  /* without the query */
	struct digest query_id;
	bool has_secret;     /* a signature, or auth: not everybody's */
	struct blob_key key; /* kind BLOB_SHA256: the URL names the digest */
	uint64_t size;
	char *etag; /* a strong one, or NULL */
	bool versioned;
	int r;	     /* result of the job */
	int probe_r; /* error to report if the store knows no version */
	struct blob *blob;
};

static struct url_query *of(struct query *f)
{
	return container_of(f, struct url_query, f);
}

static struct url_query *of_job(struct store_job *j)
{
	return of(container_of(j, struct query, job));
}

static void url_query_release(struct query *f)
{
	struct url_query *u = of(f);

	blob_unref(&u->blob);
	free(u->url);
	free(u->known_as);
	free(u->origin);
	free(u->etag);
	source_auth_unref(&u->auth);
}

static void url_answer(struct query *f, int r, void (*cb)(void), void *arg)
{
	((blob_cb *)cb)(arg, r, r == 0 ? blob_ref(of(f)->blob) : NULL);
}

/* ---- Queries ---- */

static bool is_name(const char *p, size_t n, const char *name)
{
	return strlen(name) == n && strncasecmp(name, p, n) == 0;
}

static bool has_param(const char *query, const char *name)
{
	while (query && *query) {
		if (is_name(query, strcspn(query, "=&"), name))
			return true;
		query += strcspn(query, "&");
		query += *query == '&';
	}
	return false;
}

static bool is_listed(const char *p, size_t n, const char *names)
{
	while (*names) {
		size_t len = strcspn(names, " ");

		if (n == len && strncasecmp(p, names, len) == 0)
			return true;
		names += len;
		names += *names == ' ';
	}
	return false;
}

/* Parameters of signed URLs. All but the signature itself may name content in
 * other URLs, so they count only beside it. */
static bool is_signature(const char *query, const char *p, size_t n)
{
	static const struct {
		const char *signature, *prefix, *names;
	} schemes[] = {
		{"X-Amz-Signature", "X-Amz-", ""},
		{"X-Goog-Signature", "X-Goog-", ""},
		/* Azure's shared access signatures */
		{"sig", NULL,
		 "se st sp spr sv sr ss srt sip si ske skt sks skv skoid sktid "
		 "saoid suoid scid sdd ses"},
		/* CloudFront, and older ones of Amazon and Google */
		{"Signature", NULL,
		 "Expires Key-Pair-Id Policy AWSAccessKeyId GoogleAccessId"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		const char *prefix = schemes[i].prefix;

		if (has_param(query, schemes[i].signature) &&
		    (is_name(p, n, schemes[i].signature) ||
		     is_listed(p, n, schemes[i].names) ||
		     (prefix && strncasecmp(p, prefix, strlen(prefix)) == 0)))
			return true;
	}
	return false;
}

/* It lets in, and may name content too. */
static bool is_token(const char *p, size_t n)
{
	return is_name(p, n, "token") || is_name(p, n, "access_token") ||
	       is_name(p, n, "verify");
}

/* The parameters of a query: those that name content, and signatures. */
struct query_parts {
	bool names, lets_in;
	struct digest id; /* of the parameters that name content */
};

static struct query_parts split_query(const char *query)
{
	CLEANUP(buf_release) struct buf names = BUF_INIT(URL_MAX_BYTES);
	struct query_parts parts = {0};

	for (const char *p = query; p && *p;) {
		size_t n = strcspn(p, "&"), name = strcspn(p, "=&");
		bool signs = is_signature(query, p, name);

		parts.lets_in |= signs || is_token(p, name);
		if (!signs && buf_printf(&names, "%.*s&", (int)n, p) == 0)
			parts.names = true;
		p += n + (p[n] == '&');
	}
	digest_of(names.data ? names.data : "", names.len, &parts.id);
	return parts;
}

/* ---- Versions ---- */

bool url_version_id(const char *origin, const char *query, const char *etag,
		    const char *modified, uint64_t size, struct digest *ret)
{
	struct query_parts parts = split_query(query);
	struct sha256 *h = sha256_new();
	uint64_t nonce[2] = {now_ms(), 0};
	char text[32];
	int n;

	memset(ret, 0, sizeof(*ret));
	if (!h)
		return false;
	/* A weak ETag alone does not promise the same bytes. */
	if (etag && strncmp(etag, "W/", 2) != 0)
		modified = NULL;
	sha256_update(h, origin, strlen(origin) + 1);
	if (parts.names)
		sha256_update(h, &parts.id, sizeof(parts.id));
	n = snprintf(text, sizeof(text), "%" PRIu64, size);
	sha256_update(h, text, (size_t)n + 1);
	sha256_update(h, etag ? etag : "", etag ? strlen(etag) + 1 : 1);
	if (modified)
		sha256_update(h, modified, strlen(modified) + 1);
	if (!etag && !modified) {
		(void)!getrandom(&nonce[1], sizeof(nonce[1]), 0);
		sha256_update(h, nonce, sizeof(nonce));
	}
	sha256_final(h, ret);
	sha256_free(&h);
	return etag || modified;
}

static void version_del(struct registry *r, struct url_version *v)
{
	name_table_del(&r->versions, &v->node);
	free(v->origin);
	free(v);
}

static struct url_version *version_find(struct registry *r, const char *name)
{
	struct name_node *tn = name_table_find(&r->versions, name);

	return tn ? name_table_entry(tn, struct url_version, node) : NULL;
}

static void version_set(struct url_query *u, uint64_t fresh_ms)
{
	struct registry *r = u->f.r;
	struct url_version *v = version_find(r, u->known_as);

	if (!v) {
		if (r->versions.n >= MAX_URLS)
			version_del(r,
				    name_table_first(&r->versions,
						     struct url_version, node));
		v = calloc(1, sizeof(*v));
		if (!v)
			return;
		v->origin = strdup(u->origin);
		if (!v->origin ||
		    name_table_add(&r->versions, &v->node, u->known_as)) {
			free(v->origin);
			free(v);
			return;
		}
	}
	v->key = u->key;
	v->until_ms = now_ms() + fresh_ms;
}

void url_expire(struct registry *r, const char *origin)
{
	name_table_for_each_safe(it, &r->versions)
	{
		struct url_version *v =
			name_table_at(it, struct url_version, node);

		if (strcmp(v->origin, origin) == 0)
			version_del(r, v);
	}
}

/* ---- Whole URLs ---- */

const char *query_of(const char *url)
{
	const char *mark = strchr(url, '?');

	return mark ? mark + 1 : NULL;
}

static void secret_del(struct registry *r, struct url_secret *s)
{
	name_table_del(&r->urls, &s->node);
	free(s->url);
	free(s->etag);
	free(s);
}

struct url_secret *url_secret_find(struct registry *r,
				   const struct blob_key *key,
				   const char *origin)
{
	CLEANUP(freep) char *k = NULL;
	struct name_node *tn;

	if (strncmp(origin, "http", 4) != 0)
		return NULL;
	k = route_key(key, origin, NULL);
	tn = k ? name_table_find(&r->urls, k) : NULL;
	return tn ? name_table_entry(tn, struct url_secret, node) : NULL;
}

/* The length of "SCHEME://HOST". */
static size_t site_len(const char *url)
{
	const char *host = strstr(url, "://");

	host = host ? host + 3 : url;
	return (size_t)(host - url) + strcspn(host, "/");
}

/* The oldest one; of the same site if that has a share of its own, so that one
 * site's URLs cannot drive out all others. */
static struct url_secret *secret_to_go(struct registry *r, const char *origin)
{
	size_t len = site_len(origin), same = 0;
	struct url_secret *first = NULL;

	name_table_for_each_safe(it, &r->urls)
	{
		struct url_secret *s =
			name_table_at(it, struct url_secret, node);

		if (site_len(s->url) != len ||
		    strncmp(s->url, origin, len) != 0)
			continue;
		first = first ? first : s;
		same++;
	}
	return same >= MAX_URLS / 8
		       ? first
		       : name_table_first(&r->urls, struct url_secret, node);
}

/* The newest URL replaces the older one: the server took its signature a moment
 * ago, and it is mostly valid longest. */
static void secret_set(struct url_query *u)
{
	CLEANUP(freep) char *k = route_key(&u->key, u->origin, NULL);
	struct registry *r = u->f.r;
	struct name_node *tn = k ? name_table_find(&r->urls, k) : NULL;
	struct url_secret *s;

	if (!k)
		return;
	if (tn)
		secret_del(r, name_table_entry(tn, struct url_secret, node));
	else if (r->urls.n >= MAX_URLS)
		secret_del(r, secret_to_go(r, u->origin));
	s = calloc(1, sizeof(*s));
	if (!s)
		return;
	s->url = strdup(u->url);
	s->etag = u->etag ? strdup(u->etag) : NULL;
	s->unversioned = !u->versioned;
	if (!s->url || name_table_add(&r->urls, &s->node, k) < 0) {
		free(s->url);
		free(s->etag);
		free(s);
	}
}

void urls_release(struct registry *r)
{
	name_table_for_each_safe(it, &r->urls)
		secret_del(r, name_table_at(it, struct url_secret, node));
	name_table_for_each_safe(it, &r->versions)
		version_del(r, name_table_at(it, struct url_version, node));
}

/* ---- Jobs ---- */

static void kv_key(const struct url_query *u, char out[KV_KEY_MAX])
{
	char hex[DIGEST_HEX_SIZE];
	struct digest d;

	if (strlen(u->origin) + sizeof("url:") <= KV_KEY_MAX) {
		(void)snprintf(out, KV_KEY_MAX, "url:%s", u->origin);
		return;
	}
	digest_of(u->origin, strlen(u->origin), &d);
	(void)snprintf(out, KV_KEY_MAX, "urlhash:%s", digest_hex(&d, hex));
}

/* Every reader may have bytes that are proven. */
static void find_digest(struct store_job *j)
{
	struct url_query *u = of_job(j);
	struct blob_key key = {.kind = BLOB_SHA256, .id = u->key.id};

	u->r = store_get(u->store, &key, &u->blob);
}

static void create_digest(struct url_query *u)
{
	blob_key_claim(&u->key, u->origin, u->size);
	blob_unref(&u->blob);
	u->r = store_create(u->store, &u->key, u->size, &u->blob);
	if (u->r == 0)
		blob_revive(u->store, u->negative_ms, u->blob, u->origin);
}

/* Gets the blob of a version that was found a moment ago. */
static void get_known(struct store_job *j)
{
	struct url_query *u = of_job(j);

	u->r = store_get(u->store, &u->key, &u->blob);
}

static void create(struct store_job *j)
{
	struct url_query *u = of_job(j);
	char key[KV_KEY_MAX], val[RECORD_MAX];
	char id[DIGEST_HEX_SIZE], query[DIGEST_HEX_SIZE];
	int n;

	if (u->key.kind == BLOB_SHA256) {
		create_digest(u);
		return;
	}
	u->r = store_create(u->store, &u->key, u->size, &u->blob);
	/* A record on disk is used for any requester while upstream is away, so
	 * a version found with a credential or a signature is not recorded. */
	if (u->r < 0 || u->has_secret)
		return;
	kv_key(u, key);
	n = snprintf(val, sizeof(val), RECORD_FORMAT, u->size,
		     digest_hex(&u->key.id, id),
		     digest_hex(&u->query_id, query));
	(void)store_kv_put(u->store, key, strlen(key), val, (size_t)n);
}

static void find_last(struct store_job *j)
{
	CLEANUP(buf_release) struct buf val = BUF_INIT(RECORD_MAX);
	struct url_query *u = of_job(j);
	char id[DIGEST_HEX_SIZE], query[DIGEST_HEX_SIZE];
	char key[KV_KEY_MAX];
	struct digest query_id;

	if (u->key.kind == BLOB_SHA256) {
		/* Unchecked bytes may have come with a signature. */
		find_digest(j);
		return;
	}
	kv_key(u, key);
	u->r = store_kv_get(u->store, key, strlen(key), &val);
	if (u->r < 0)
		return;
	u->r = -ENOENT;
	if (sscanf(val.data ? val.data : "", RECORD_FORMAT, &u->size, id,
		   query) == 3 &&
	    digest_parse_hex(id, &u->key.id) == 0 &&
	    digest_parse_hex(query, &query_id) == 0 &&
	    digest_equal(&query_id, &u->query_id))
		u->r = store_get(u->store, &u->key, &u->blob);
}

/* ---- The query ---- */

static void ready(struct query *f)
{
	struct url_query *u = of(f);

	if (u->r < 0) {
		query_finish(f, u->r);
		return;
	}
	secret_set(u);
	version_set(u, f->r->tag_fresh_ms);
	u->r = blob_add_origin(u->store, u->blob, u->origin);
	query_finish(f, u->r);
}

static void last_found(struct query *f)
{
	struct url_query *u = of(f);

	if (u->r < 0) {
		query_finish(f, u->probe_r);
		return;
	}
	u->versioned = true;
	/* Valid as long as a "no": later requests do not wait for a dead server
	 * again. */
	version_set(u, f->r->negative_ms);
	query_finish(f, 0);
}

/* Upstream does not answer. Its last answer for the same URL with the same
 * credential still holds. A URL without a credential or signature may be served
 * to anybody. */
static void serve_last(struct query *f)
{
	struct url_query *u = of(f);
	struct url_version *v = version_find(f->r, u->known_as);

	if (u->blob) { /* proven, but with chunks missing */
		query_finish(f, 0);
	} else if (v) {
		u->key = v->key;
		query_job(f, get_known, last_found);
	} else if (u->has_secret) {
		query_finish(f, u->probe_r);
	} else {
		query_job(f, find_last, last_found);
	}
}

static void probed(void *arg, int r, const struct probe_result *res,
		   bool unreachable, const char *why)
{
	struct query *f = arg;
	struct url_query *u = of(f);

	query_why(f, why);
	f->probe = NULL;
	if (unreachable) {
		u->probe_r = r;
		serve_last(f);
		return;
	}
	if (r == 0 && res->size > BLOB_MAX_SIZE)
		r = -EBADMSG;
	if (r < 0) {
		query_finish(f, r);
		return;
	}
	u->size = res->size;
	if (u->key.kind == BLOB_SHA256) {
		u->versioned = true;
		query_job(f, create, ready);
		return;
	}
	u->versioned = url_version_id(u->origin, query_of(u->url), res->etag,
				      res->modified, res->size, &u->key.id);
	if (res->etag && res->etag[0] == '"')
		u->etag = strdup(res->etag);
	query_job(f, create, ready);
}

static void ask(struct query *f)
{
	const struct url_query *u = of(f);
	struct probe_spec spec = {
		.url = u->url,
		.authorization =
			u->auth ? client_auth_of(u->auth)->value : NULL,
		.need_ranges = true,
	};
	int r = probe_start(f->r, &spec, probed, f, &f->probe);

	if (r < 0)
		query_finish(f, r);
}

static void known_got(struct query *f)
{
	struct url_query *u = of(f);

	if (u->r == 0) {
		query_finish(f, 0);
		return;
	}
	ask(f);
}

/* Missing chunks are fetched with the credential of this reader: check it. */
static void digest_found(struct query *f)
{
	if (of(f)->r == 0 && blob_missing(of(f)->blob) == 0)
		query_finish(f, 0);
	else
		ask(f);
}

static void url_begin(struct query *f)
{
	struct url_query *u = of(f);
	struct url_version *v = version_find(f->r, u->known_as);

	if (v && now_ms() < v->until_ms) {
		u->key = v->key;
		query_job(f, get_known, known_got);
	} else if (u->key.kind == BLOB_SHA256) {
		query_job(f, find_digest, digest_found);
	} else {
		ask(f);
	}
}

static const struct query_ops url_ops = {
	.size = sizeof(struct url_query),
	.begin = url_begin,
	.answer = url_answer,
	.release = url_query_release,
};

static int set_url(struct url_query *u, const char *text)
{
	CLEANUP(url_release) struct url url = {0};
	CLEANUP(buf_release) struct buf whole = BUF_INIT(URL_MAX_BYTES + 64);
	CLEANUP(buf_release) struct buf origin = BUF_INIT(ORIGIN_MAX);
	struct query_parts parts;

	if (url_parse(text, &url) < 0 || url_format(&url, false, &origin) < 0 ||
	    url_format(&url, true, &whole) < 0)
		return -ENOENT;
	u->origin = buf_steal(&origin);
	u->url = buf_steal(&whole);
	if (!u->origin || !u->url)
		return -ENOMEM;
	if (asprintf(&u->known_as, "%s%s%s", u->url, u->auth ? " " : "",
		     u->auth ? client_auth_of(u->auth)->tag : "") < 0) {
		u->known_as = NULL;
		return -ENOMEM;
	}
	if (url_digest(url.path, &u->key.id))
		u->key.kind = BLOB_SHA256;
	u->f.repo = strdup(u->origin);
	parts = split_query(url.query);
	u->query_id = parts.id;
	u->has_secret = parts.lets_in || u->auth;
	return 0;
}

void registry_get_url(struct registry *r, const char *url,
		      struct source_auth *auth, blob_cb *cb, void *arg)
{
	struct query *f;
	bool is_new;
	char *key;
	int e;

	if (asprintf(&key, "url %s%s%s", url, auth ? " " : "",
		     auth ? client_auth_of(auth)->tag : "") < 0)
		key = NULL;
	f = query_join(r, &url_ops, key, (void (*)(void))cb, arg, &is_new);
	if (!f || !is_new)
		return;
	of(f)->store = r->store;
	of(f)->negative_ms = r->negative_ms;
	of(f)->auth = source_auth_ref(auth);
	of(f)->key.kind = BLOB_URL;
	e = set_url(of(f), url);
	if (e < 0)
		query_abort(f, e);
}
