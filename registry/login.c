/* Hosts, and the logins to their repositories. */
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "http/local.h"
#include "registry/registry-private.h"

#define CONFIG_CHECK_MS	 1000
#define CONFIG_READ_MS	 2000 /* then the last known credentials serve */
#define COMPLAIN_MS	 60000
#define TOKEN_ANSWER_MAX (AUTH_TOKEN_MAX_BYTES * 4)

/* ---- Hosts ---- */

bool host_ca_file(struct registry *r, const char *host, char *out, size_t size)
{
	const char *names[] = {host, ref_host_canonical(host)};

	if (!r->certs_dir || !ref_host_valid(host))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		int n = snprintf(out, size, "%s/%s/ca.crt", r->certs_dir,
				 names[i]);

		if (n > 0 && (size_t)n < size && access(out, R_OK) == 0)
			return true;
	}
	return false;
}

/* A registry on loopback without a CA is reached by http: it serves tests and
 * development, no other machine can intercept it, and few have TLS. */
bool host_is_plain(struct registry *r, const char *host)
{
	char ca[4096];

	if (string_list_has(&r->plain_http, host) ||
	    string_list_has(&r->plain_http, ref_host_canonical(host)))
		return true;
	return authority_is_loopback(host) &&
	       !host_ca_file(r, host, ca, sizeof(ca));
}

static void host_unref(struct registry *r, struct host *h)
{
	if (--h->refs)
		return;
	name_table_del(&r->hosts, &h->node);
	free(h->name);
	free(h->base);
	free(h);
}

static int host_get(struct registry *r, const char *name, struct host **ret)
{
	struct name_node *tn = name_table_find(&r->hosts, name);
	struct host *h;

	if (tn) {
		*ret = name_table_entry(tn, struct host, node);
		(*ret)->refs++;
		return 0;
	}
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->refs = 1;
	h->https = !host_is_plain(r, name);
	h->name = strdup(name);
	if (asprintf(&h->base, "http%s://%s", h->https ? "s" : "",
		     ref_host_api(name)) < 0)
		h->base = NULL;
	if (!h->name || !h->base ||
	    name_table_add(&r->hosts, &h->node, name) < 0) {
		free(h->name);
		free(h->base);
		free(h);
		return -ENOMEM;
	}
	*ret = h;
	return 0;
}

/* ---- Credentials ---- */

/* One look at config.json, on a pool worker: a file system may hang. */
struct creds_job {
	struct loop_job job;
	struct registry *r; /* NULL: registry_free() has run */
	char *path;
	bool force;
	struct timespec mtime; /* the last one; then the one found */
	bool read;
	int result;
	struct auth_config *auth;
	struct error err;
};

static void creds_work(struct loop_job *base)
{
	struct creds_job *j = container_of(base, struct creds_job, job);
	struct timespec mtime = {.tv_nsec = -1}; /* no such file */
	struct stat st;

	if (stat(j->path, &st) == 0)
		mtime = st.st_mtim;
	j->read = j->force || mtime.tv_sec != j->mtime.tv_sec ||
		  mtime.tv_nsec != j->mtime.tv_nsec;
	j->mtime = mtime;
	if (j->read)
		j->result = auth_config_read(j->path, &j->auth, &j->err);
}

static void take_creds(struct registry *r, struct creds_job *j)
{
	/* A file that is gone was removed; any other failure may pass. */
	bool keep = j->result < 0 && j->result != -ENOENT && r->auth;

	r->auth_mtime = j->mtime;
	r->auth_known = true;
	if (!j->read)
		return;
	if (j->result < 0)
		log_warn(keep ? "cannot read the registry credentials; the "
				"last known ones are used"
			      : "cannot read the registry credentials; "
				"registries are used without credentials",
			 LS("file", r->docker_config),
			 j->result == -EINVAL || j->result == -EMSGSIZE
				 ? LS("error", j->err.text)
				 : LE(j->result));
	if (keep)
		return;
	auth_config_free(&r->auth);
	r->auth = steal_ptr(&j->auth);
	r->auth_generation++;
	noes_release(r);
	lists_release(r);
	if (auth_config_has_helpers(r->auth) && !r->auth_warned_helpers) {
		r->auth_warned_helpers = true;
		log_warn("credential helpers are not run; only credentials "
			 "in the file are used",
			 LS("file", r->docker_config));
	}
}

static void creds_wake(struct registry *r)
{
	struct list waiters;

	delay_cancel(&r->auth_timeout);
	list_init(&waiters);
	list_move_all(&r->auth_waiters, &waiters);
	while (!list_empty(&waiters)) {
		struct call *c = list_first(&waiters, struct call, wait);

		list_del(&c->wait);
		call_token_ready(c, 0, NULL);
	}
}

static void creds_done(struct loop_job *base)
{
	struct creds_job *j = container_of(base, struct creds_job, job);
	struct registry *r = j->r;

	if (r) {
		r->auth_job = NULL;
		r->auth_late = false;
		r->auth_checked_ms = now_ms();
		take_creds(r, j);
		creds_wake(r);
	}
	auth_config_free(&j->auth);
	free(j->path);
	free(j);
}

static void creds_timeout(struct delay *d)
{
	struct registry *r = container_of(d, struct registry, auth_timeout);

	r->auth_late = true;
	log_warn("the file of registry credentials does not answer; the last "
		 "known credentials are used",
		 LS("file", r->docker_config));
	creds_wake(r);
}

void creds_init(struct registry *r)
{
	list_init(&r->auth_waiters);
	delay_init(&r->auth_timeout, creds_timeout);
}

bool creds_refresh(struct registry *r)
{
	uint64_t now = now_ms();
	struct creds_job *j;

	if (!r->docker_config)
		return true;
	if (r->auth_job)
		return r->auth_late;
	if (r->auth_checked_ms && now - r->auth_checked_ms < CONFIG_CHECK_MS)
		return true;
	j = calloc(1, sizeof(*j));
	if (!j)
		return true; /* with what is known */
	j->path = strdup(r->docker_config);
	if (!j->path) {
		free(j);
		return true;
	}
	j->r = r;
	j->force = !r->auth_known;
	j->mtime = r->auth_mtime;
	r->auth_job = j;
	delay_set(r, &r->auth_timeout, now + CONFIG_READ_MS);
	loop_work(r->loop, &j->job, creds_work, creds_done);
	return false;
}

void creds_end(struct registry *r)
{
	delay_cancel(&r->auth_timeout);
	if (r->auth_job)
		r->auth_job->r = NULL;
	r->auth_job = NULL;
	auth_config_free(&r->auth);
}

/* ---- Logins ---- */

/* Releases all that s owns; s itself stays allocated. */
static void login_clear(struct login *s)
{
	struct registry *r = s->r;

	name_table_del(&r->logins, &s->node);
	host_unref(r, s->host);
	auth_challenge_release(&s->challenge);
	auth_token_release(&s->token);
	free(s->repo);
	free(s->name);
	s->r = NULL;
}

void login_unref(struct login **ps)
{
	struct login *s = *ps;
	struct registry *r;

	*ps = NULL;
	if (!s || --s->refs)
		return;
	r = s->r;
	if (!r) { /* logins_release() has run */
		free(s);
		return;
	}
	if (r->logins.n <= MAX_LOGINS)
		return;
	name_table_for_each_safe(it, &r->logins)
	{
		struct login *old = name_table_at(it, struct login, node);

		if (old->refs == 0) {
			login_clear(old);
			free(old);
			return;
		}
	}
}

/* A zombie call may still hold a reference: such a login stays as an empty
 * shell. */
void logins_release(struct registry *r)
{
	name_table_for_each_safe(it, &r->logins)
	{
		struct login *s = name_table_at(it, struct login, node);

		/* The token call was abandoned without done(), so its reference
		 * is left; take it over, or else take a new one. */
		if (!s->fetch)
			s->refs++;
		s->fetch = NULL;
		login_clear(s);
		login_unref(&s);
	}
}

static int login_new(struct registry *r, const char *host, const char *name,
		     const char *repo, struct login **ret)
{
	struct login *s = calloc(1, sizeof(*s));
	int e;

	if (!s)
		return -ENOMEM;
	e = host_get(r, host, &s->host);
	if (e < 0) {
		free(s);
		return e;
	}
	s->r = r;
	list_init(&s->waiters);
	s->repo = strdup(repo);
	s->name = strdup(name);
	if (!s->repo || !s->name ||
	    name_table_add(&r->logins, &s->node, repo)) {
		host_unref(r, s->host);
		free(s->repo);
		free(s->name);
		free(s);
		return -ENOMEM;
	}
	*ret = s;
	return 0;
}

int login_get(struct registry *r, const char *host, const char *name,
	      struct login **ret)
{
	CLEANUP(freep) char *repo = NULL;
	struct name_node *tn;
	int e;

	if (asprintf(&repo, "%s/%s", host, name) < 0) {
		repo = NULL;
		return -ENOMEM;
	}
	tn = name_table_find(&r->logins, repo);
	if (tn) {
		*ret = name_table_entry(tn, struct login, node);
	} else {
		e = login_new(r, host, name, repo, ret);
		if (e < 0)
			return e;
	}
	(*ret)->refs++;
	return 0;
}

int login_url(struct registry *r, const char *host, const char *name,
	      struct login **ret, char **ret_url, const char *path, ...)
{
	CLEANUP(login_unref) struct login *s = NULL;
	va_list ap;
	char *rest;
	int e = login_get(r, host, name, &s);

	if (e < 0)
		return e;
	va_start(ap, path);
	if (vasprintf(&rest, path, ap) < 0)
		rest = NULL;
	va_end(ap);
	if (!rest)
		return -ENOMEM;
	if (asprintf(ret_url, "%s/v2/%s", s->host->base, rest) < 0) {
		*ret_url = NULL;
		e = -ENOMEM;
	}
	free(rest);
	if (e == 0)
		*ret = steal_ptr(&s);
	return e;
}

void login_complain(struct login *s, const char *why)
{
	uint64_t now = now_ms();

	if (s->complained_ms && now - s->complained_ms < COMPLAIN_MS)
		return;
	s->complained_ms = now;
	log_warn("the registry refuses access", LS("registry", s->host->name),
		 LS("repository", s->name), LS("why", why));
}

/* ---- Tokens ---- */

static int add_param(struct buf *b, const char *name, const char *value)
{
	int r = 0;

	if (b->len && !strchr("?&", b->data[b->len - 1]))
		r = buf_str(b, "&");
	if (r == 0)
		r = buf_str(b, name);
	if (r == 0)
		r = buf_str(b, "=");
	if (r == 0)
		r = url_encode(b, value, ":/");
	return r;
}

static int add_scope(struct login *s, struct buf *b, bool split)
{
	CLEANUP(freep) char *own = NULL;
	CLEANUP(freep) char *copy = NULL;
	const char *scope = s->challenge.scope;
	char *save = NULL;
	int r = 0;

	if (!scope || !*scope) {
		if (asprintf(&own, "repository:%s:pull", s->name) < 0) {
			own = NULL;
			return -ENOMEM;
		}
		scope = own;
	}
	if (!split)
		return add_param(b, "scope", scope);
	copy = strdup(scope);
	if (!copy)
		return -ENOMEM;
	for (char *p = strtok_r(copy, " ", &save); p && r == 0;
	     p = strtok_r(NULL, " ", &save))
		r = add_param(b, "scope", p);
	return r;
}

/* Credentials go to the realm only if the registry proved its name (TLS), or if
 * the realm's host is the registry itself. */
static bool realm_may_have_creds(const struct login *s, const struct url *realm)
{
	struct url base;
	bool same;

	if (s->host->https)
		return true;
	if (url_parse(s->host->base, &base) < 0)
		return false;
	same = strcmp(base.host, realm->host) == 0;
	url_release(&base);
	return same;
}

static bool realm_allowed(const struct login *s, const struct url *realm)
{
	CLEANUP(buf_release) struct buf a = BUF_INIT(512);

	if (strcmp(realm->scheme, "https") == 0 || !s->host->https)
		return true;
	return url_authority(realm, &a) == 0 && authority_is_loopback(a.data);
}

static void wake(struct login *s, int r, const char *why)
{
	struct list waiters;

	list_init(&waiters);
	list_move_all(&s->waiters, &waiters);
	while (!list_empty(&waiters)) {
		struct call *c = list_first(&waiters, struct call, wait);

		list_del(&c->wait);
		call_token_ready(c, r, why);
	}
}

/* Takes the token from the body of the response. */
static int read_token(struct login *s, struct call *c, struct error *err)
{
	struct auth_token t;
	int r;

	r = auth_token_parse(c->body.data ? c->body.data : "", c->body.len,
			     now_ms(), &t, err);
	if (r < 0)
		return r == -EINVAL ? -EBADMSG : r;
	auth_token_release(&s->token);
	s->token = t;
	return 0;
}

static void token_done(struct call *c, int r, const char *why)
{
	struct login *s = c->arg;
	struct error err = {"no usable answer"};
	char text[WHY_SIZE];

	s->fetch = NULL;
	if (r == 0) {
		r = read_token(s, c, &err);
		why = err.text;
	} else if (c->status >= 400 && c->status < 500 && c->status != 429 &&
		   c->status != 408) {
		r = -EACCES;
	} else if (r == -ENOENT) {
		r = -EHOSTUNREACH;
	}
	(void)snprintf(text, sizeof(text), "the token server: %.300s", why);
	wake(s, r, text);
	login_unref(&s);
}

static int post_token(struct login *s, const struct auth_creds *creds,
		      struct call_spec *spec, struct buf *body)
{
	const char *service = s->challenge.service;
	int r;

	r = buf_str(body, "grant_type=refresh_token&client_id=peerd");
	if (r == 0 && service)
		r = add_param(body, "service", service);
	if (r == 0)
		r = add_scope(s, body, false);
	if (r == 0)
		r = add_param(body, "refresh_token", creds->identity_token);
	spec->method = "POST";
	spec->content_type = "application/x-www-form-urlencoded";
	spec->body = body->data;
	spec->body_len = body->len;
	return r;
}

static int get_token_url(struct login *s, const struct auth_creds *creds,
			 const struct url *realm, struct buf *url)
{
	int r = buf_str(url, realm->query ? "" : "?");

	if (r == 0 && s->challenge.service)
		r = add_param(url, "service", s->challenge.service);
	if (r == 0)
		r = add_scope(s, url, true);
	if (r == 0 && creds && creds->user)
		r = add_param(url, "account", creds->user);
	return r;
}

/* Sends the request for a token; token_done() follows. */
static int fetch_token(struct login *s, const struct auth_creds *creds)
{
	static const struct call_ops ops = {.done = token_done};
	CLEANUP(url_release) struct url realm = {0};
	CLEANUP(buf_release) struct buf url = BUF_INIT(URL_MAX_BYTES);
	CLEANUP(buf_release) struct buf body = BUF_INIT(64 << 10);
	CLEANUP(freep) char *basic = NULL;
	struct call_spec spec = {
		.registry = s->host->name,
		.max_body = TOKEN_ANSWER_MAX,
		.retry = true,
		.deadline_ms = now_ms() + s->r->meta_timeout_ms,
	};
	int r;

	r = url_parse(s->challenge.realm, &realm);
	if (r < 0)
		return r;
	if (!realm_may_have_creds(s, &realm))
		creds = NULL;
	r = url_format(&realm, true, &url);
	if (r == 0 && creds && creds->identity_token)
		r = post_token(s, creds, &spec, &body);
	else if (r == 0)
		r = get_token_url(s, creds, &realm, &url);
	if (r < 0)
		return r;
	if (!body.len && creds && creds->user && creds->password) {
		basic = auth_basic(creds->user, creds->password);
		if (!basic)
			return -ENOMEM;
		spec.authorization = basic;
	}
	spec.url = url.data;
	r = call_start(s->r, &spec, &ops, s, &s->fetch);
	if (r == 0)
		s->refs++;
	return r;
}

static const struct auth_creds *find_creds(struct login *s)
{
	if (s->auth_generation != s->r->auth_generation) {
		s->auth_generation = s->r->auth_generation;
		auth_token_release(&s->token);
		s->asked_v2 = false;
	}
	return auth_config_find(s->r->auth, s->host->name, s->name);
}

bool login_wants_v2(struct login *s)
{
	const struct auth_creds *creds = find_creds(s);

	if (!creds || creds->registry_token || s->asked_v2 ||
	    s->challenge.scheme != AUTH_NONE)
		return false;
	s->asked_v2 = true;
	return true;
}

static int set_bearer(const char *token, char **ret)
{
	if (asprintf(ret, "Bearer %s", token) < 0) {
		*ret = NULL;
		return -ENOMEM;
	}
	return 0;
}

static int authorize_bearer(struct login *s, struct call *c,
			    const struct auth_creds *creds, char **ret)
{
	uint64_t now = now_ms();
	int r;

	if (s->token.value && now < s->token.expires_ms) {
		/* In the background; if it fails, there is time for another
		 * attempt. */
		if (now >= s->token.refresh_ms && !s->fetch)
			(void)fetch_token(s, creds);
		return set_bearer(s->token.value, ret);
	}
	if (!s->fetch) {
		r = fetch_token(s, creds);
		if (r < 0)
			return r;
	}
	list_add_tail(&s->waiters, &c->wait);
	return -EINPROGRESS;
}

int login_authorize(struct login *s, struct call *c, char **ret)
{
	const struct auth_creds *creds;

	*ret = NULL;
	if (!creds_refresh(s->r)) {
		list_add_tail(&s->r->auth_waiters, &c->wait);
		return -EINPROGRESS;
	}
	creds = find_creds(s);
	if (creds && creds->registry_token)
		return set_bearer(creds->registry_token, ret);
	switch (s->challenge.scheme) {
	case AUTH_BEARER:
		return authorize_bearer(s, c, creds, ret);
	case AUTH_BASIC:
		if (!creds || !creds->user || !creds->password)
			return 0;
		*ret = auth_basic(creds->user, creds->password);
		return *ret ? 0 : -ENOMEM;
	default:
		return 0;
	}
}

/* Picks the best challenge of the response. */
static int read_challenges(struct call *c, struct auth_challenge *ret)
{
	const char *v;

	*ret = (struct auth_challenge){0};
	for (size_t i = 0; i < 8; i++) {
		struct auth_challenge ch;

		v = call_header(c, "WWW-Authenticate", i);
		if (!v)
			break;
		if (auth_challenge_parse(v, &ch) < 0)
			continue;
		if (ch.scheme > ret->scheme) {
			auth_challenge_release(ret);
			*ret = ch;
		} else {
			auth_challenge_release(&ch);
		}
	}
	return ret->scheme == AUTH_NONE ? -ENOENT : 0;
}

static int check_realm(struct login *s, struct call *c,
		       const struct auth_challenge *ch)
{
	CLEANUP(url_release) struct url realm = {0};

	if (ch->scheme != AUTH_BEARER)
		return 0;
	if (url_parse(ch->realm, &realm) < 0)
		return call_why(c, -EACCES,
				"%s: the address of the token "
				"server is malformed",
				s->host->name);
	if (!realm_allowed(s, &realm))
		return call_why(c, -EACCES,
				"%s: the token server %s is not "
				"https",
				s->host->name, realm.host);
	return 0;
}

static bool same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

int login_challenged(struct login *s, struct call *c, const char *sent)
{
	CLEANUP(auth_challenge_release) struct auth_challenge ch = {0};
	const struct auth_creds *creds = find_creds(s);
	bool has_password = creds && creds->user && creds->password;
	int r;

	if (read_challenges(c, &ch) < 0)
		return call_why(c, -EACCES,
				"%s: HTTP 401 without a "
				"supported login scheme",
				s->host->name);
	if (sent && (c->challenges > 0 || ch.scheme == AUTH_BASIC ||
		     (creds && creds->registry_token)))
		return call_why(c, -EACCES,
				"%s: HTTP 401: the credentials "
				"are refused",
				s->host->name);
	if (ch.scheme == AUTH_BASIC && !has_password)
		return call_why(c, -EACCES,
				"%s: HTTP 401: credentials are "
				"needed, and none is configured",
				s->host->name);
	if (c->challenges > 1)
		return call_why(c, -EACCES, "%s: HTTP 401 repeatedly",
				s->host->name);
	r = check_realm(s, c, &ch);
	if (r < 0)
		return r;
	/* Keep a token that another call has renewed meanwhile. */
	if (!same_text(ch.scope, s->challenge.scope) ||
	    !same_text(ch.realm, s->challenge.realm) ||
	    !same_text(ch.service, s->challenge.service) ||
	    (sent && s->token.value &&
	     same_text(sent + strlen("Bearer "), s->token.value)))
		auth_token_release(&s->token);
	auth_challenge_release(&s->challenge);
	s->challenge = ch;
	ch = (struct auth_challenge){0};
	return 0;
}
