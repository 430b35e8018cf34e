/* Probes: find a file's size and version, and whether its server serves
 * ranges. */
#include <string.h>
#include <strings.h>

#include "http/range.h"
#include "registry/registry-private.h"

struct probe {
	struct registry *r;
	struct login *login;
	char *url, *authorization;
	bool said_empty; /* HEAD did */
	bool need_ranges;
	bool got; /* GET was sent, not HEAD */
	uint64_t deadline_ms;
	struct call *call;
	probe_cb *cb;
	void *arg;
	struct probe_result res;
};

static void probe_free(struct probe *p)
{
	call_abandon(&p->call);
	login_unref(&p->login);
	free(p->url);
	free(p->authorization);
	free(p);
}

void probe_abandon(struct probe **pp)
{
	struct probe *p = *pp;

	*pp = NULL;
	if (p)
		probe_free(p);
}

static void report(struct probe *p, struct call *c, int r, const char *why)
{
	bool unreachable = r < 0 && call_unreachable(c, r);

	p->res.etag = call_header(c, "ETag", 0);
	p->res.modified = call_header(c, "Last-Modified", 0);
	p->cb(p->arg, call_public_errno(c, r), r < 0 ? NULL : &p->res,
	      unreachable, why);
	probe_free(p);
}

static int get_head(struct call *c)
{
	struct probe *p = c->arg;
	const char *v = call_header(c, "Content-Range", 0);
	uint64_t first, last, total;

	p->res.ranges = c->status != 200;
	switch (c->status) {
	case 206:
		if (!v || content_range_parse(v, &first, &last, &total) < 0 ||
		    first != 0 || last != 0 || total == UINT64_MAX)
			return call_why(c, -EBADMSG,
					"%s: 206 without a usable "
					"Content-Range",
					c->at.host);
		p->res.size = total;
		return CALL_ENOUGH;
	case 416: /* the answer for an empty file */
		if (v ? strcasecmp(v, "bytes */0") != 0 : !p->said_empty)
			return call_why(c, -EBADMSG,
					"%s: HTTP 416 for the "
					"first byte",
					c->at.host);
		p->res.size = 0;
		return CALL_ENOUGH;
	case 200:
		if (c->content_length < 0)
			return call_why(c, -EBADMSG,
					"%s: the answer has no size",
					c->at.host);
		p->res.size = (uint64_t)c->content_length;
		return CALL_ENOUGH;
	default:
		return call_why(c, -EBADMSG, "%s: HTTP %d", c->at.host,
				c->status);
	}
}

static void get_done(struct call *c, int r, const char *why)
{
	struct probe *p = c->arg;

	p->call = NULL;
	if (r == 0 && p->need_ranges && !p->res.ranges && p->res.size) {
		r = -EOPNOTSUPP;
		why = "the server does not serve ranges";
	}
	report(p, c, r, why);
}

static void head_done(struct call *c, int r, const char *why);

static int send_probe(struct probe *p)
{
	static const struct call_ops head_ops = {.done = head_done};
	static const struct call_ops get_ops = {
		.head = get_head,
		.done = get_done,
	};
	struct call_spec spec = {
		.method = p->got ? "GET" : "HEAD",
		.url = p->url,
		.login = p->login,
		.authorization = p->authorization,
		.registry = p->login ? p->login->host->name : NULL,
		.has_range = p->got,
		.range_len = p->got ? 1 : 0,
		.deadline_ms = p->deadline_ms,
		.retry = true,
	};

	return call_start(p->r, &spec, p->got ? &get_ops : &head_ops, p,
			  &p->call);
}

static bool head_tells_nothing(const struct probe *p, const struct call *c,
			       int r, const char *ranges)
{
	if (r < 0)
		return call_head_refused(c);
	/* Some servers send Content-Length: 0 with any HEAD. */
	if (c->content_length <= 0)
		return true;
	return p->need_ranges && c->content_length > 0 &&
	       (!ranges || strcasecmp(ranges, "bytes") != 0);
}

static void head_done(struct call *c, int r, const char *why)
{
	struct probe *p = c->arg;
	const char *ranges = call_header(c, "Accept-Ranges", 0);

	p->call = NULL;
	if (head_tells_nothing(p, c, r, ranges)) {
		p->got = true;
		p->said_empty = r == 0 && c->content_length == 0;
		r = send_probe(p);
		if (r == 0)
			return;
		why = strerror(-r);
	}
	if (r == 0) {
		p->res.size = (uint64_t)c->content_length;
		p->res.ranges = ranges != NULL;
	}
	report(p, c, r, why);
}

int probe_start(struct registry *r, const struct probe_spec *spec, probe_cb *cb,
		void *arg, struct probe **ret)
{
	struct probe *p = calloc(1, sizeof(*p));
	int e;

	if (!p)
		return -ENOMEM;
	p->r = r;
	p->need_ranges = spec->need_ranges;
	p->cb = cb;
	p->arg = arg;
	p->deadline_ms = outage_deadline_ms(
		r, spec->login ? spec->login->host->name : NULL);
	p->url = strdup(spec->url);
	if (spec->authorization)
		p->authorization = strdup(spec->authorization);
	if (spec->login) {
		p->login = spec->login;
		p->login->refs++;
	}
	e = p->url && !p->authorization == !spec->authorization ? send_probe(p)
								: -ENOMEM;
	if (e < 0)
		probe_free(p);
	else
		*ret = p;
	return e;
}
