#include "registry/pass.h"

#include <string.h>

#include "registry/registry-private.h"

/* A call has a deadline. The client's and the server's limits for a stalled
 * transfer come long before this one. */
#define PASS_MAX_MS ((uint64_t)24 * 3600 * 1000)

struct pass {
	struct http_req *rq;
	struct call *call; /* NULL: it has ended */
	pass_cb *cb;
	void *bytes; /* on their way to the client, or NULL */
	bool begun;
	int r; /* result of the call, once it has ended */
};

/* The request has been ended. */
static void pass_free(struct pass *p)
{
	call_abandon(&p->call);
	free(p->bytes);
	free(p);
}

static void on_gone(struct http_req *rq)
{
	struct pass *p = http_req_data(rq);

	http_release(rq);
	pass_free(p);
}

static void end(struct pass *p)
{
	if (p->r < 0)
		http_abort(p->rq);
	else
		http_end(p->rq);
	pass_free(p);
}

static void refuse(struct pass *p, int r)
{
	http_req_on_gone(p->rq, NULL);
	p->cb(p->rq, r);
	pass_free(p);
}

static void sent(struct http_req *rq, int r)
{
	struct pass *p = http_req_data(rq);

	free(p->bytes);
	p->bytes = NULL;
	if (r < 0)
		on_gone(rq);
	else if (p->call)
		call_resume(p->call);
	else
		end(p);
}

static bool is_printable(const char *s)
{
	for (; s && *s; s++) {
		if (*s < ' ' || *s > '~')
			return false;
	}
	return s != NULL;
}

static int on_head(struct call *c)
{
	struct pass *p = c->arg;
	const char *type = call_header(c, "Content-Type", 0);

	if (c->status != 200)
		return call_why(c, -EBADMSG, "%s: HTTP %d", c->at.host,
				c->status);
	delay_set(c->r, &c->deadline, now_ms() + PASS_MAX_MS);
	p->cb(p->rq, 0);
	if (is_printable(type))
		http_header_add(p->rq, "Content-Type", "%s", type);
	http_begin(p->rq, 200, c->content_length);
	p->begun = true;
	return http_req_is_head(p->rq) ? CALL_ENOUGH : 0;
}

static int on_data(struct call *c, const void *bytes, size_t len)
{
	struct pass *p = c->arg;

	if (p->bytes)
		return -EAGAIN;
	p->bytes = malloc(len);
	if (!p->bytes)
		return -ENOMEM;
	memcpy(p->bytes, bytes, len);
	http_write(p->rq, p->bytes, len, sent);
	return 0;
}

static void on_done(struct call *c, int r, const char *why)
{
	struct pass *p = c->arg;

	(void)why;
	p->call = NULL;
	p->r = r;
	if (!p->begun)
		refuse(p, r < 0 ? call_public_errno(c, r) : -EBADMSG);
	else if (!p->bytes)
		end(p);
}

static int start(struct pass *p, struct registry *r, const char *host,
		 const char *name, const char *what, const char *accept,
		 uint64_t deadline_ms)
{
	static const struct call_ops ops = {
		.head = on_head,
		.data = on_data,
		.done = on_done,
	};
	CLEANUP(login_unref) struct login *s = NULL;
	CLEANUP(freep) char *url = NULL;
	struct call_spec spec = {
		.method = http_req_method(p->rq),
		.accept = accept,
		.deadline_ms = now_ms() + deadline_ms,
		.registry = host,
	};
	int e = login_url(r, host, name, &s, &url, "%s/%s", name, what);

	if (e < 0)
		return e;
	spec.url = url;
	spec.login = s;
	return call_start(r, &spec, &ops, p, &p->call);
}

void registry_pass(struct registry *r, struct http_req *rq, const char *host,
		   const char *name, const char *what, const char *accept,
		   uint64_t deadline_ms, pass_cb *cb)
{
	struct pass *p = calloc(1, sizeof(*p));
	int e;

	if (!p) {
		cb(rq, -ENOMEM);
		return;
	}
	p->rq = rq;
	p->cb = cb;
	http_req_set_data(rq, p);
	http_req_on_gone(rq, on_gone);
	creds_refresh(r);
	e = start(p, r, host, name, what, accept, deadline_ms);
	if (e < 0)
		refuse(p, e);
}
