#include "registry/proxy.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/metrics.h"
#include "http/url.h"

#define PREFIX "/blobs/"

struct proxy {
	struct proxy_config cfg;
};

struct proxy_ask {
	struct proxy *p;
	struct http_req *rq;	  /* NULL: the client is gone */
	struct client_auth *auth; /* NULL: none */
};

static struct metric_family m_requests = {
	.name = "peerd_proxy_requests_total",
	.help = "Requests of block drivers for /blobs/, by outcome.",
	.type = METRIC_COUNTER,
	.labels = {"code"},
};

static void count(const char *code)
{
	metric_add(metric_get(&m_requests, (const char *const[]){code}), 1);
}

static void refuse(struct http_req *rq, int status, const char *code,
		   const char *why)
{
	char s[8];

	(void)snprintf(s, sizeof(s), "%d", status);
	count(s);
	http_reply_error(rq, status, code, "%s", why);
}

/* ---- Requests ---- */

static void on_gone(struct http_req *rq)
{
	struct proxy_ask *a = http_req_data(rq);

	a->rq = NULL;
	http_release(rq);
}

static void refuse_target(struct http_req *rq)
{
	refuse(rq, 403, "DENIED",
	       "the target is on this host or link, and --blobs-allow "
	       "does not name it");
}

static void reply_failure(struct proxy_ask *a, int r)
{
	struct http_req *rq = a->rq;

	switch (r) {
	case -EKEYEXPIRED:
		client_auth_challenge(a->auth, rq);
		refuse(rq, 401, "UNAUTHORIZED",
		       "upstream does not accept these credentials");
		break;
	case -ENOENT:
	case -EISDIR:
		refuse(rq, 404, "BLOB_UNKNOWN", "upstream has no such file");
		break;
	case -EACCES:
		refuse(rq, 403, "DENIED", "upstream refuses access");
		break;
	case -EPERM:
		refuse_target(rq);
		break;
	case -EOPNOTSUPP:
		refuse(rq, 502, "UNSUPPORTED",
		       "upstream does not serve ranges of the file");
		break;
	default:
		refuse(rq, 502, "UNAVAILABLE", "upstream cannot be reached");
	}
}

static void serve(struct proxy_ask *a, struct blob *b)
{
	struct serve_how how = {
		.miss_status = 502,
		.refused_status = 403,
	};
	char etag[DIGEST_HEX_SIZE];

	how.auth = steal_ptr(&a->auth);
	/* The key contains the version, so it serves as ETag in place of
	 * upstream's. */
	if (blob_key(b)->kind == BLOB_URL)
		how.etag = digest_hex(&blob_key(b)->id, etag);
	count("200");
	serve_blob(a->p->cfg.serve, a->rq, &b, &how);
}

static void on_blob(void *arg, int r, struct blob *b)
{
	struct proxy_ask *a = arg;

	if (a->rq)
		http_req_on_gone(a->rq, NULL);
	if (!a->rq)
		blob_unref(&b);
	else if (r < 0)
		reply_failure(a, r);
	else
		serve(a, b);
	client_auth_end(&a->auth);
	free(a);
}

/* Takes the absolute URL after the prefix: "https://host/…", or
 * "https:/host/…", which some clients' path cleaning makes of it. */
static int target_url(const char *target, struct buf *out)
{
	const char *s = target + strlen(PREFIX);
	const char *rest;
	int r;

	if (strncasecmp(s, "http:/", 6) == 0)
		rest = s + 6;
	else if (strncasecmp(s, "https:/", 7) == 0)
		rest = s + 7;
	else
		return -EINVAL;
	rest += *rest == '/';
	r = buf_printf(out, "%s://%s",
		       rest[0] && s[4] == ':' ? "http" : "https", rest);
	return r;
}

static int look_up(struct proxy *p, struct http_req *rq, const char *text,
		   const struct url *url)
{
	const char *value = http_req_header(rq, "Authorization");
	struct proxy_ask *a = calloc(1, sizeof(*a));
	int r = a ? 0 : -ENOMEM;

	/* A value that must not be passed on counts as none. */
	if (r == 0 && value)
		r = client_auth_new(url, value, &a->auth);
	if (r < 0 && r != -EINVAL) {
		free(a);
		return r;
	}
	a->p = p;
	a->rq = rq;
	http_req_set_data(rq, a);
	http_req_on_gone(rq, on_gone);
	registry_get_url(p->cfg.registry, text, a->auth ? &a->auth->base : NULL,
			 on_blob, a);
	return 0;
}

bool proxy_handle(struct proxy *p, struct http_req *rq)
{
	CLEANUP(buf_release) struct buf text = BUF_INIT(URL_MAX_BYTES);
	CLEANUP(url_release) struct url url = {0};

	if (strncmp(http_req_path(rq), PREFIX, strlen(PREFIX)) != 0)
		return false;
	if (strcmp(http_req_method(rq), "GET") != 0 && !http_req_is_head(rq)) {
		http_header_add(rq, "Allow", "GET, HEAD");
		refuse(rq, 405, "UNSUPPORTED", "only GET and HEAD are allowed");
		return true;
	}
	if (target_url(http_req_target(rq), &text) < 0 ||
	    url_parse(text.data, &url) < 0 || !*url.host) {
		refuse(rq, 400, "NAME_INVALID",
		       "not an absolute http or https URL");
		return true;
	}
	if (guard_refuses_name(p->cfg.guard, NULL, url.host, url.port)) {
		refuse_target(rq);
		return true;
	}
	if (look_up(p, rq, text.data, &url) < 0)
		refuse(rq, 500, "UNKNOWN", "out of memory");
	return true;
}

int proxy_new(const struct proxy_config *cfg, struct proxy **ret)
{
	struct proxy *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->cfg = *cfg;
	metric_register(&m_requests);
	*ret = p;
	return 0;
}

void proxy_free(struct proxy **p)
{
	free(*p);
	*p = NULL;
}
