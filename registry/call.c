/* Calls: one HTTP request with login, redirects and retries. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "base/log.h"
#include "base/metrics.h"
#include "registry/guard.h"
#include "registry/registry-private.h"

#define MAX_HOPS  5
#define MAX_TRIES 6
/* The bodies of redirects and errors are read to the end up to this size, so
 * that the connection can be used again. */
#define MAX_DRAINED (64 << 10)
/* Upper limit of a host's wait (Retry-After) for calls other than the one that
 * was told to wait. */
#define MAX_HOLD_MS    60000
#define BACKOFF_MS     200
#define BACKOFF_MAX_MS 3000
/* For metadata: somebody may wait for it, in a directory listing for
 * instance. */
#define META_CONNECT_MS 5000
/* The same when other nodes can be asked instead. */
#define META_CONNECT_PEERS_MS 2000

static void go(struct call *c);

int call_why(struct call *c, int r, const char *fmt, ...)
{
	va_list ap;

	if (c->why[0])
		return r;
	va_start(ap, fmt);
	(void)vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
	return r;
}

const char *call_header(struct call *c, const char *name, size_t i)
{
	return c->x ? http_header(c->x, name, i) : NULL;
}

bool call_unreachable(const struct call *c, int r)
{
	switch (r) {
	case -EHOSTUNREACH:
	case -ENETUNREACH:
	case -ETIMEDOUT:
	case -ECONNREFUSED:
	case -ECONNRESET:
	case -EKEYREJECTED:
	case -EPROTO:
	case -EIO:
		return true;
	case -ENOENT:
		return c->status == 0; /* DNS knows no such host */
	default:
		return false;
	}
}

bool call_head_refused(const struct call *c)
{
	return c->status == 400 || c->status == 403 || c->status == 405 ||
	       c->status == 501;
}

int call_public_errno(const struct call *c, int r)
{
	return r != -ENOENT && call_unreachable(c, r) ? -EHOSTUNREACH : r;
}

static void call_free(struct call *c)
{
	login_unref(&c->login);
	url_release(&c->at);
	free(c->method);
	free(c->start);
	free(c->authorization);
	free(c->accept);
	free(c->if_match);
	free(c->content_type);
	free(c->registry);
	free(c->send_body);
	free(c->sent_auth);
	buf_release(&c->body);
	free(c);
}

/* Takes c out of all lists and timers. Only a running exchange may still point
 * to c. */
static void detach(struct call *c)
{
	list_del(&c->node);
	list_del(&c->wait);
	delay_cancel(&c->pause);
	delay_cancel(&c->deadline);
	if (c->x && !c->x_over) {
		c->zombie = true;
		if (!c->in_callback)
			http_cancel(c->x);
	}
}

static void finish(struct call *c, int r, const char *why)
{
	if (!why || !*why)
		why = r < 0 ? strerror(-r) : "";
	if (r == -EACCES && c->login)
		login_complain(c->login, why);
	detach(c);
	c->ops->done(c, r, why);
	if (!c->zombie)
		call_free(c);
}

void call_abandon(struct call **pc)
{
	struct call *c = *pc;

	*pc = NULL;
	if (!c)
		return;
	detach(c);
	if (!c->zombie)
		call_free(c);
}

void call_resume(struct call *c)
{
	if (c->x && !c->x_over)
		http_resume(c->x);
}

/* Continues in pause_over(). An exchange that has ended is freed before
 * that. */
static void pause_until(struct call *c, uint64_t when_ms)
{
	if (c->x_over)
		c->x = NULL;
	delay_set(c->r, &c->pause, when_ms);
}

/* Ends the call in a later turn of the loop. */
static void fail_later(struct call *c, int r)
{
	c->fail_r = r;
	pause_until(c, now_ms());
}

static void deadline_passed(struct delay *d)
{
	struct call *c = container_of(d, struct call, deadline);
	char why[WHY_SIZE];

	(void)snprintf(why, sizeof(why), "%s: no complete answer in time",
		       c->at.host);
	finish(c, -ETIMEDOUT, why);
}

/* Sends the request again, from the first URL, at when_ms. */
static void try_again_at(struct call *c, uint64_t when_ms)
{
	struct url u;

	c->tries++;
	if (when_ms >= c->deadline_ms || c->tries > MAX_TRIES) {
		fail_later(c, -EHOSTUNREACH);
		return;
	}
	if (c->hops) {
		if (url_parse(c->start, &u) < 0) {
			fail_later(c, -ENOMEM);
			return;
		}
		url_release(&c->at);
		c->at = u;
		c->hops = 0;
		c->crossed = false;
	}
	c->fail_r = 0;
	if (c->ops->delayed)
		c->ops->delayed(c);
	pause_until(c, when_ms);
}

static void back_off(struct call *c)
{
	uint64_t wait =
		min_u64(BACKOFF_MAX_MS, (uint64_t)BACKOFF_MS << c->tries);
	uint32_t random = 0;

	(void)!getrandom(&random, sizeof(random), 0);
	try_again_at(c, now_ms() + wait / 2 + random % (wait / 2 + 1));
}

static void pause_over(struct delay *d)
{
	struct call *c = container_of(d, struct call, pause);

	if (c->fail_r < 0)
		finish(c, c->fail_r, c->why);
	else
		go(c);
}

/* ---- The answer ---- */

static int status_errno(int status)
{
	switch (status) {
	case 401:
	case 403:
		return -EACCES;
	case 404:
	case 410:
		return -ENOENT;
	case 412:
		return -ESTALE;
	case 408:
	case 429:
		return -EHOSTUNREACH;
	default:
		return status >= 500 ? -EHOSTUNREACH : -EBADMSG;
	}
}

static bool is_redirect(int status)
{
	return status == 301 || status == 302 || status == 303 ||
	       status == 307 || status == 308;
}

static void set_method(struct call *c, const char *method)
{
	char *m = strdup(method);

	if (!m)
		return; /* at worst the server refuses the old method */
	free(c->method);
	c->method = m;
}

static int redirect_allowed(struct call *c, const struct url *to)
{
	CLEANUP(buf_release) struct buf a = BUF_INIT(512);

	if (c->hops >= MAX_HOPS)
		return call_why(c, -EBADMSG, "%s: more than %d redirects",
				c->at.host, MAX_HOPS);
	if (strcmp(c->method, "POST") == 0)
		return call_why(c, -EBADMSG, "%s: redirect of a POST",
				c->at.host);
	if (strcmp(c->at.scheme, "https") != 0 ||
	    strcmp(to->scheme, "https") == 0)
		return 0;
	if (url_authority(to, &a) < 0)
		return -ENOMEM;
	if (!host_is_plain(c->r, a.data))
		return call_why(c, -EBADMSG, "%s: redirect from https to http",
				c->at.host);
	return 0;
}

static void follow(struct call *c)
{
	const char *to = http_header(c->x, "Location", 0);
	struct url next;
	int r;

	if (!to || url_resolve(&c->at, to, &next) < 0) {
		r = call_why(c, -EBADMSG,
			     "%s: redirect without a usable Location",
			     c->at.host);
		finish(c, r, c->why);
		return;
	}
	r = redirect_allowed(c, &next);
	if (r < 0) {
		url_release(&next);
		finish(c, r, c->why);
		return;
	}
	if (!url_same_origin(&c->at, &next))
		c->crossed = true;
	if (c->status == 303 && strcmp(c->method, "HEAD") != 0)
		set_method(c, "GET");
	url_release(&c->at);
	c->at = next;
	c->hops++;
	go(c);
}

/* Some registries refuse a client that is not logged in with 403 or 404 and no
 * challenge, and say at /v2/ only how to log in. Asks there, then start again.
 */
static bool ask_v2(struct call *c)
{
	CLEANUP(freep) char *v2 = NULL;
	struct url u;

	if ((c->status != 403 && c->status != 404) || c->asks_v2 || c->hops ||
	    c->sent_auth || !login_wants_v2(c->login))
		return false;
	if (asprintf(&v2, "%s/v2/", c->login->host->base) < 0) {
		v2 = NULL;
		return false;
	}
	if (url_parse(v2, &u) < 0)
		return false;
	url_release(&c->at);
	c->at = u;
	c->asks_v2 = true;
	c->v2_status = c->status;
	go(c);
	return true;
}

/* Takes the answer of /v2/ to ask_v2(). */
static void v2_answered(struct call *c)
{
	struct url u;
	int r = -ENOENT;

	c->asks_v2 = false;
	if (c->status == 401)
		r = login_challenged(c->login, c, c->sent_auth);
	if (r == 0)
		r = url_parse(c->start, &u);
	if (r == 0) {
		c->challenges++;
		url_release(&c->at);
		c->at = u;
		go(c);
		return;
	}
	/* The first answer stands. */
	c->status = c->v2_status;
	c->why[0] = '\0';
	(void)call_why(c, 0, "%s: HTTP %d", c->at.host, c->status);
	finish(c, status_errno(c->status), c->why);
}

static void challenged(struct call *c)
{
	int r;

	r = login_challenged(c->login, c, c->sent_auth);
	if (r < 0) {
		finish(c, r, c->why);
		return;
	}
	c->challenges++;
	go(c);
}

/* Handles a response that is no success and that ops does not get. */
static void refused(struct call *c)
{
	uint32_t wait_s = http_retry_after_s(c->x);
	bool at_home = c->login && !c->crossed;

	if (c->asks_v2) {
		v2_answered(c);
		return;
	}
	if (at_home && ask_v2(c))
		return;
	if (is_redirect(c->status)) {
		follow(c);
		return;
	}
	if (c->status == 401 && at_home) {
		challenged(c);
		return;
	}
	(void)call_why(c, 0, "%s: HTTP %d", c->at.host, c->status);
	if (wait_s && (c->status == 429 || c->status == 503)) {
		uint64_t until = now_ms() + (uint64_t)wait_s * 1000;

		if (at_home)
			c->login->host->hold_until_ms[c->has_range] =
				min_u64(until, now_ms() + MAX_HOLD_MS);
		try_again_at(c, until);
		return;
	}
	if (c->retry && status_errno(c->status) == -EHOSTUNREACH) {
		back_off(c);
		return;
	}
	if (c->status == 401 && c->authorization && !c->crossed)
		finish(c, -EKEYEXPIRED, c->why);
	else
		finish(c, status_errno(c->status), c->why);
}

static int verdict(struct call *c, int v)
{
	if (c->zombie)
		return -ECANCELED;
	if (v == CALL_ENOUGH) {
		c->enough = true;
		return -ECANCELED;
	}
	if (v < 0 && v != -EAGAIN)
		c->fail_r = v;
	return v;
}

static int exchange_head(void *arg, struct http_exchange *x,
			 const struct http_response *res)
{
	struct call *c = arg;
	int v = 0;

	(void)x;
	if (c->zombie)
		return -ECANCELED;
	c->status = res->status;
	c->content_length = res->content_length;
	count_response(c->at.host, c->status);
	c->draining = c->asks_v2 || ((c->status < 200 || c->status > 299) &&
				     c->status != 416);
	if (c->draining)
		return 0;
	if (c->max_body && strcmp(c->method, "HEAD") != 0 &&
	    c->content_length > (int64_t)c->max_body)
		return verdict(c, call_why(c, -EBADMSG,
					   "%s: the answer is larger than %zu "
					   "bytes",
					   c->at.host, c->max_body));
	if (c->ops->head) {
		c->in_callback = true;
		v = c->ops->head(c);
		c->in_callback = false;
	}
	c->draining = c->status == 416;
	return verdict(c, v);
}

static int take(struct call *c, const void *bytes, size_t len)
{
	int r;

	if (!c->max_body)
		return c->ops->data ? c->ops->data(c, bytes, len) : 0;
	r = buf_add(&c->body, bytes, len);
	if (r == -EMSGSIZE)
		return call_why(c, -EBADMSG,
				"%s: the answer is larger than %zu bytes",
				c->at.host, c->max_body);
	return r;
}

static int drain(struct call *c, const void *bytes, size_t len)
{
	if (c->drained > MAX_DRAINED) {
		buf_reset(&c->body);
		return -EMSGSIZE;
	}
	return c->keep_error ? buf_add(&c->body, bytes, len) : 0;
}

static int exchange_data(void *arg, struct http_exchange *x, const void *bytes,
			 size_t len)
{
	struct call *c = arg;
	int v;

	(void)x;
	if (c->zombie)
		return -ECANCELED;
	if (c->draining) {
		c->drained += len;
		return drain(c, bytes, len);
	}
	c->in_callback = true;
	v = take(c, bytes, len);
	c->in_callback = false;
	if (v >= 0)
		metric_add(c->bytes_metric, (double)len);
	return verdict(c, v);
}

/* Whether a second attempt may help. A timeout has lasted long enough. */
static bool may_pass(int r)
{
	return r == -ECONNREFUSED || r == -ECONNRESET || r == -EHOSTUNREACH ||
	       r == -ENETUNREACH || r == -EPROTO || r == -EIO;
}

static void exchange_done(void *arg, struct http_exchange *x, int r,
			  const char *why)
{
	struct call *c = arg;

	(void)x;
	if (c->zombie) {
		call_free(c);
		return;
	}
	c->x_over = true;
	if (c->enough || (r == 0 && !c->draining)) {
		finish(c, 0, NULL);
	} else if (c->fail_r < 0) {
		finish(c, c->fail_r, c->why[0] ? c->why : why);
	} else if (c->status && c->draining) {
		refused(c);
	} else {
		if (!c->status)
			count_response(c->at.host, 0);
		(void)call_why(c, 0, "%s: %s", c->at.host, why);
		if (c->retry && may_pass(r) && c->tries < 2)
			back_off(c);
		else
			finish(c, r, c->why);
	}
}

/* ---- The request ---- */

static int build_url(struct call *c, struct buf *url, struct buf *authority)
{
	int r;

	r = url_format(&c->at, true, url);
	if (r == 0)
		r = url_authority(&c->at, authority);
	return r;
}

static int send_request(struct call *c)
{
	static const struct http_callbacks cb = {
		.head = exchange_head,
		.data = exchange_data,
		.done = exchange_done,
	};
	CLEANUP(buf_release) struct buf url = BUF_INIT(URL_MAX_BYTES + 64);
	CLEANUP(buf_release) struct buf authority = BUF_INIT(512);
	struct http_header h[4];
	struct http_request rq = {
		.method = c->asks_v2 ? "GET" : c->method,
		.headers = h,
		.body = c->send_body,
		.body_len = c->send_len,
		.refuse = guard_refuse(c->r->guard, c->registry, c->at.host,
				       c->at.port),
		.has_range = c->has_range && !c->asks_v2,
		.range_off = c->range_off,
		.range_len = c->range_len,
		.connect_timeout_ms = !c->retry	    ? 0
				      : c->r->peers ? META_CONNECT_PEERS_MS
						    : META_CONNECT_MS,
		.max_connection_age_s =
			outage_connection_age_s(c->r, c->registry),
	};
	char ca[4096];
	int r;

	r = build_url(c, &url, &authority);
	if (r == 0 && guard_refuses_name(c->r->guard, c->registry, c->at.host,
					 c->at.port))
		r = call_why(c, -EPERM, "%s: an address of this host or link",
			     c->at.host);
	if (r < 0)
		return r;
	rq.url = url.data;
	if (strcmp(c->at.scheme, "https") == 0 &&
	    host_ca_file(c->r, authority.data, ca, sizeof(ca)))
		rq.ca_file = ca;
	if (c->accept)
		h[rq.nheaders++] = (struct http_header){"Accept", c->accept};
	if (c->if_match)
		h[rq.nheaders++] =
			(struct http_header){"If-Match", c->if_match};
	if (c->sent_auth)
		h[rq.nheaders++] =
			(struct http_header){"Authorization", c->sent_auth};
	if (c->content_type)
		h[rq.nheaders++] =
			(struct http_header){"Content-Type", c->content_type};
	c->bytes_metric = count_bytes_series(c->at.host);
	c->x_over = false;
	r = http_start(c->r->client, &rq, &cb, c, &c->x);
	if (r < 0)
		c->x = NULL;
	return r;
}

/* Finds the value of Authorization for the next exchange. */
static int authorize(struct call *c)
{
	free(c->sent_auth);
	c->sent_auth = NULL;
	if (c->crossed)
		return 0;
	if (c->authorization) {
		c->sent_auth = strdup(c->authorization);
		return c->sent_auth ? 0 : -ENOMEM;
	}
	if (!c->login)
		return 0;
	return login_authorize(c->login, c, &c->sent_auth);
}

/* Sends the next exchange, or schedules the next step. */
static void go(struct call *c)
{
	int r;

	c->x = NULL;
	c->status = 0;
	c->draining = c->enough = false;
	c->drained = 0;
	c->fail_r = 0;
	c->why[0] = '\0';
	buf_reset(&c->body);
	if (c->login && !c->crossed &&
	    c->login->host->hold_until_ms[c->has_range] > now_ms()) {
		(void)call_why(c, 0, "%s: the registry asked to wait",
			       c->at.host);
		try_again_at(c, c->login->host->hold_until_ms[c->has_range]);
		return;
	}
	r = authorize(c);
	if (r == -EINPROGRESS)
		return;
	if (r == 0)
		r = send_request(c);
	if (r < 0)
		fail_later(c, r);
}

void call_token_ready(struct call *c, int r, const char *why)
{
	if (r < 0)
		finish(c, r, why);
	else
		go(c);
}

static int dup_or_null(const char *s, char **ret)
{
	if (!s)
		return 0;
	*ret = strdup(s);
	return *ret ? 0 : -ENOMEM;
}

static int copy_spec(struct call *c, const struct call_spec *s)
{
	c->max_body = s->max_body;
	c->body = BUF_INIT(s->max_body);
	c->has_range = s->has_range;
	c->range_off = s->range_off;
	c->range_len = s->range_len;
	c->deadline_ms = s->deadline_ms;
	c->retry = s->retry;
	c->keep_error = s->keep_error;
	if (s->body) {
		c->send_body = malloc(s->body_len + 1);
		if (!c->send_body)
			return -ENOMEM;
		memcpy(c->send_body, s->body, s->body_len);
		c->send_len = s->body_len;
	}
	if (dup_or_null(s->method ? s->method : "GET", &c->method) < 0 ||
	    dup_or_null(s->url, &c->start) < 0 ||
	    dup_or_null(s->authorization, &c->authorization) < 0 ||
	    dup_or_null(s->accept, &c->accept) < 0 ||
	    dup_or_null(s->if_match, &c->if_match) < 0 ||
	    dup_or_null(s->content_type, &c->content_type) < 0 ||
	    dup_or_null(s->registry, &c->registry) < 0)
		return -ENOMEM;
	return url_parse(s->url, &c->at);
}

int call_start(struct registry *r, const struct call_spec *spec,
	       const struct call_ops *ops, void *arg, struct call **ret)
{
	struct call *c = calloc(1, sizeof(*c));
	int e;

	if (!c)
		return -ENOMEM;
	c->r = r;
	c->ops = ops;
	c->arg = arg;
	list_init(&c->node);
	list_init(&c->wait);
	delay_init(&c->pause, pause_over);
	delay_init(&c->deadline, deadline_passed);
	e = copy_spec(c, spec);
	if (e < 0) {
		call_free(c);
		return e;
	}
	if (spec->login) {
		c->login = spec->login;
		c->login->refs++;
	}
	list_add_tail(&r->calls, &c->node);
	delay_set(r, &c->deadline, c->deadline_ms);
	if (ret)
		*ret = c;
	go(c);
	return 0;
}
