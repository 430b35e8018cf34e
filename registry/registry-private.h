/* What the files of registry/ share. Everything here runs on the loop thread,
 * but for the work() of a job. */
#ifndef REGISTRY_REGISTRY_PRIVATE_H
#define REGISTRY_REGISTRY_PRIVATE_H

#include <errno.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/name-table.h"
#include "base/ref.h"
#include "http/client.h"
#include "http/url.h"
#include "registry/auth.h"
#include "registry/registry.h"

/* Idle entries beyond these go, the least recently used first. */
#define MAX_LOGINS 1024
#define MAX_ROUTES 8192
#define MAX_NOES   4096
#define MAX_URLS   4096

#define WHY_SIZE 320

/* ---- registry.c: time, jobs ---- */

/* Something to be done at a time; embedded. */
struct delay {
	struct list node; /* in registry.delays, by time */
	uint64_t when_ms;
	void (*fire)(struct delay *d);
};

struct ticker;	/* the uv_timer_t, which outlives the registry by a turn */
struct workers; /* counts jobs that are inside work() */

struct registry {
	struct source source;
	struct loop *loop;
	struct http_client *client;
	struct store *store;
	char *docker_config; /* NULL: none */
	char *certs_dir;     /* NULL: none */
	struct string_list plain_http;
	uint64_t meta_timeout_ms, tag_fresh_ms, negative_ms;
	const struct guard *guard; /* NULL: none */
	struct other_nodes *peers; /* NULL: none */
	const char *node;

	struct ticker *ticker;
	struct list delays;
	struct workers *workers;

	/* See table.h. */
	struct hash_table hosts, logins, routes, queries, noes, urls, versions;
	struct list calls;    /* struct call */
	struct list requests; /* struct request of upstream.c */

	/* config.json as it was when last read. */
	struct auth_config *auth;
	struct timespec auth_mtime;
	uint64_t auth_checked_ms; /* 0: never */
	uint64_t auth_generation; /* of the contents; for logins */
	bool auth_warned_helpers;
};

void delay_init(struct delay *d, void (*fire)(struct delay *d));
/* In a later turn of the loop, even if when_ms has passed. Moves it if it was
 * set. */
void delay_set(struct registry *r, struct delay *d, uint64_t when_ms);
/* Harmless if it is not set. */
void delay_cancel(struct delay *d);
bool delay_is_set(const struct delay *d);

/* A job that may use the store in work(): registry_free() waits until work()
 * has ended. done() comes in any case, after registry_free() too. */
struct store_job {
	struct loop_job base;
	struct workers *workers;
	void (*work)(struct store_job *j);
	void (*done)(struct store_job *j);
};

void store_job_start(struct registry *r, struct store_job *j,
		     void (*work)(struct store_job *j),
		     void (*done)(struct store_job *j));

/* ---- login.c: hosts and logins ---- */

/* A registry's address. */
struct host {
	struct name_node node; /* by canonical name */
	uint32_t refs;
	char *name;
	char *base; /* "https://registry-1.docker.io" */
	bool https;
	/* It told us to wait (Retry-After): with ranges; with the rest. They
	 * are limited apart: at Docker Hub, blobs may be had when manifests
	 * may not. */
	uint64_t hold_until_ms[2];
};

/* How to be let in to one repository. Between calls it stays for the next. */
struct login {
	struct name_node node; /* by "HOST/NAME" */
	struct registry *r;
	uint32_t refs;
	struct host *host;
	char *repo; /* "HOST/NAME" */
	char *name;
	uint64_t auth_generation;
	struct auth_challenge challenge; /* the last one */
	struct auth_token token;
	struct call *fetch;	/* of a token */
	struct list waiters;	/* struct call.wait, for that token */
	uint64_t complained_ms; /* a refusal was logged */
};

struct call;

/* Borrowed name parts, checked by the caller. On 0 the caller owns a
 * reference. -ENOMEM. */
int login_get(struct registry *r, const char *host, const char *name,
	      struct login **ret);
void login_unref(struct login **s);
/* 0: *ret (to be freed; NULL: none) is the value for Authorization.
 * -EINPROGRESS: a token is being fetched; call_token_ready() follows. Others:
 * refused for good. */
int login_authorize(struct login *s, struct call *c, char **ret);
/* The registry answered 401 to c, which had sent `sent` (NULL: nothing). 0:
 * authorize again and send again. -EACCES with c's why set. */
int login_challenged(struct login *s, struct call *c, const char *sent);
/* Logs that the registry refuses, once a minute. */
void login_complain(struct login *s, const char *why);
/* Forgets everything; for registry_free(). */
void logins_release(struct registry *r);
/* Reads config.json again if it has changed. */
void creds_refresh(struct registry *r);
/* "https" or "http" for a host of the API. */
bool host_is_plain(struct registry *r, const char *host);
/* Path of the host's own CA into out; false if there is none. */
bool host_ca_file(struct registry *r, const char *host, char *out, size_t size);

/* ---- call.c: one HTTP call with login, redirects, retries ---- */

/* Copied by call_start(), except login (referenced). */
struct call_spec {
	const char *method; /* NULL = GET */
	const char *url;
	struct login *login;	   /* NULL: no login */
	const char *authorization; /* instead of a login; never sent to
				      another origin; 401 is then
				      -EKEYEXPIRED */
	const char *accept;	   /* NULL: none */
	const char *if_match;	   /* NULL: none */
	const char *content_type;
	const void *body;
	size_t body_len;
	bool has_range;
	uint64_t range_off, range_len;
	uint64_t deadline_ms;
	size_t max_body; /* collected in call.body; 0: for ops.data */
	/* "host[:port]" that a reader has named (registry/guard.h); NULL:
	 * none. An address that the guard refuses is -EPERM, wherever a
	 * redirect leads. */
	const char *registry;
	bool retry; /* with pauses: connection errors, 429, 5xx */
};

/* A verdict of head() and data(): that was all that is wanted. */
#define CALL_ENOUGH 1

struct call_ops {
	/* The answer is a 2xx, or 416. 0: go on; CALL_ENOUGH; a negative
	 * errno ends the call with it, and call_why() says why. May be NULL. */
	int (*head)(struct call *c);
	/* As in struct http_callbacks, or CALL_ENOUGH. */
	int (*data)(struct call *c, const void *bytes, size_t len);
	/* Exactly once, never from inside call_start(), unless the call was
	 * abandoned; c is freed after it. r: 0 when a 2xx arrived whole; else
	 * what registry.h and source.h say, connection errors included. why is
	 * valid during the call. */
	void (*done)(struct call *c, int r, const char *why);
};

struct call {
	struct list node; /* registry.calls */
	struct list wait; /* login.waiters */
	struct registry *r;
	const struct call_ops *ops;
	void *arg;
	struct login *login;

	char *method, *start, *authorization, *accept, *if_match, *content_type;
	char *registry;
	void *send_body;
	size_t send_len, max_body;
	bool has_range, retry;
	uint64_t range_off, range_len, deadline_ms;

	struct url at; /* where it is now */
	bool crossed;  /* it has left the origin of `start` */
	uint32_t hops, challenges, tries;
	char *sent_auth; /* with the exchange under way */
	struct http_exchange *x;
	bool x_over;	  /* x has ended, but can still be asked */
	bool zombie;	  /* done() was called; waits for x to end */
	bool in_callback; /* of x */
	bool draining;	  /* the body is not for ops */
	bool enough;
	int fail_r; /* what ops, or what could not be sent, ends it with */
	size_t drained;
	struct delay pause, deadline;
	struct metric_series *bytes_metric;

	/* For ops. */
	int status; /* of the last answer; 0: none came */
	int64_t content_length;
	struct buf body;
	char why[WHY_SIZE];
};

/* On 0 *ret (may be NULL) lives until done() has returned. -EINVAL (the URL),
 * -ENOMEM: done() will not be called. */
int call_start(struct registry *r, const struct call_spec *spec,
	       const struct call_ops *ops, void *arg, struct call **ret);
/* Ends it without done(). NULLs. NULL allowed. */
void call_abandon(struct call **c);
void call_resume(struct call *c);
/* Sets why, unless it is set. Returns r. */
int call_why(struct call *c, int r, const char *fmt, ...) PRINTF(3, 4);
/* The i-th header of that name; NULL if absent. From head() on. */
const char *call_header(struct call *c, const char *name, size_t i);
/* From login.c: the token is there (r 0), or cannot be had. */
void call_token_ready(struct call *c, int r, const char *why);
/* Whether r, which a call ended with, means that nobody answered, so that what
 * was known before may be served. */
bool call_unreachable(const struct call *c, int r);
/* What the callers of registry.h get for it. */
int call_public_errno(const struct call *c, int r);

/* ---- probe.c: how large is it ---- */

struct probe_result {
	uint64_t size;
	bool ranges;	  /* the server serves them */
	const char *etag; /* NULL if absent; borrowed */
	const char *modified;
};

struct probe;
typedef void probe_cb(void *arg, int r, const struct probe_result *res,
		      bool unreachable, const char *why);

/* HEAD; or GET of the first byte where HEAD is refused, does not tell, or
 * (with need_ranges) leaves open whether ranges are served. -EOPNOTSUPP: they
 * are not. */
struct probe_spec {
	const char *url;
	struct login *login; /* these two as in struct call_spec */
	const char *authorization;
	bool need_ranges;
};

int probe_start(struct registry *r, const struct probe_spec *spec, probe_cb *cb,
		void *arg, struct probe **ret);
void probe_abandon(struct probe **p);

/* ---- query.c: equal requests are one ---- */

struct query;

struct query_ops {
	size_t size; /* of the struct that begins with struct query */
	/* From the loop, not from inside query_join(). */
	void (*begin)(struct query *f);
	/* Hands the outcome to one waiter. f may be NULL when r is negative. */
	void (*answer)(struct query *f, int r, void (*cb)(void), void *arg);
	/* Frees what f owns, not f. Calls and probes were abandoned. No job is
	 * inside work(). */
	void (*release)(struct query *f);
};

/* The head of a request that several callers may wait for. */
struct query {
	struct name_node node; /* registry.queries */
	const struct query_ops *ops;
	struct registry *r; /* NULL after registry_free() */
	struct list waiters;
	struct delay begin;
	struct store_job job;
	void (*job_done)(struct query *f);
	bool job_busy;
	int abort_r; /* query_abort() */
	struct call *call;
	struct probe *probe;
	bool asked_peers;  /* and they have not answered yet */
	char *host, *name; /* canonical; NULL for URLs */
	char *repo;	   /* "HOST/NAME"; a URL without its query */
	char why[WHY_SIZE];
};

/* Joins the flight of that key (taken; NULL: memory was short), or makes one;
 * *ret_new says which. NULL when memory is short: cb was answered already. */
struct query *query_join(struct registry *r, const struct query_ops *ops,
			 char *key, void (*cb)(void), void *arg, bool *ret_new);
/* Checks and copies both. -ENOENT, -ENOMEM: query_abort() it. */
int query_set_repo(struct query *f, const char *host, const char *name);
/* Makes begin() end the flight with r instead. */
void query_abort(struct query *f, int r);
void query_job(struct query *f, void (*work)(struct store_job *j),
	       void (*done)(struct query *f));
/* Keeps the reason for the log. */
void query_why(struct query *f, const char *why);
/* Whether the flight's host did not answer others a moment ago. */
bool query_host_is_down(struct query *f);
void query_host_failed(struct query *f);
/* Answers all and frees f. A negative r is remembered, and logged unless it is
 * a plain "no". */
void query_finish(struct query *f, int r);
void queries_release(struct registry *r);
/* Forgets the "no" to all; new credentials may change it. */
void noes_release(struct registry *r);
void no_remember(struct registry *r, const char *key, int e);
/* The errno that is remembered, 0 if none. */
int no_find(struct registry *r, const char *key);

/* ---- route.c: the way to a blob ---- */

enum route_state { ROUTE_UNKNOWN, ROUTE_ASKING, ROUTE_DIRECT, ROUTE_TARGET };

/* One blob at one origin. */
struct route {
	struct name_node node;
	uint32_t refs;
	enum route_state state;
	char *target; /* ROUTE_TARGET: where it was redirected to; secret */
	uint64_t expires_ms;
	struct list waiters; /* struct request.wait, while ROUTE_ASKING */
};

/* tag: NULL, or client_auth.tag of who asks: where that leads is for nobody
 * else. On 0 the caller owns a reference. */
int route_get(struct registry *r, const struct blob_key *key,
	      const char *origin, const char *tag, struct route **ret);
void route_unref(struct registry *r, struct route **rt);
/* The state now: a target that has expired is ROUTE_UNKNOWN. */
enum route_state route_now(struct route *rt);
void route_set_direct(struct route *rt);
void route_set_target(struct route *rt, const struct url *target);
void route_forget(struct route *rt);
void routes_release(struct registry *r);
/* How long a redirect's target may be used, from its query. */
uint64_t route_lifetime_ms(const char *query, uint64_t now_s);

/* ---- upstream.c, urlfile.c ---- */

extern const struct source_ops upstream_ops;
void requests_release(struct registry *r);

/* What the fetches of a URL need besides its origin; in memory only. */
struct url_secret {
	struct name_node node; /* registry.urls, by route key */
	char *url;	       /* with the query */
	char *etag;	       /* a strong one, or NULL */
	bool unversioned;      /* the server gives no ETag and no date */
};

/* "kind:hex origin", the key of struct url_secret, and with " tag" behind it
 * (if that is not NULL) of routes. To be freed; NULL when memory is short. */
char *route_key(const struct blob_key *key, const char *origin,
		const char *tag);
/* NULL if there is none. */
struct url_secret *url_secret_find(struct registry *r,
				   const struct blob_key *key,
				   const char *origin);
/* The id of a version: that of the answer to c, of `size` bytes. False when
 * the answer has neither ETag nor date, and *ret can never be had again. */
bool url_version_id(const char *origin, const char *etag, const char *modified,
		    uint64_t size, struct digest *ret);
/* Makes the next registry_get_url() ask again. */
void url_expire(struct registry *r, const char *origin);
void urls_release(struct registry *r);

/* ---- count.c ---- */

/* code 0: no answer came. */
void count_response(const char *host, int code);
struct metric_series *count_bytes_series(const char *host);
/* A range of so many bytes came within ns. */
void count_speed(const char *node, const char *host, uint64_t bytes,
		 uint64_t ns);
/* Shows families before they have values. */
void count_register(void);

#endif
