/* Shared by the files of registry/. Everything runs on the loop thread, except
 * the work() of a job. */
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

/* Limits of the tables. Beyond a limit the least recently used idle entry is
 * freed. */
#define MAX_LOGINS 1024
#define MAX_ROUTES 8192
#define MAX_NOES   4096
#define MAX_URLS   4096

#define WHY_SIZE 320

/* ---- registry.c: time, jobs ---- */

/* A timer, embedded in its owner. fire() runs at when_ms. */
struct delay {
	struct list node; /* in registry.delays, by time */
	uint64_t when_ms;
	void (*fire)(struct delay *d);
};

struct ticker;	/* has the uv_timer_t; freed a turn after the registry */
struct workers; /* counts jobs that are queued or inside work() */

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

	/* See base/name-table.h. */
	struct hash_table hosts, logins, routes, queries, noes, urls, versions,
		lists, outages;
	size_t lists_bytes;	     /* of all in `lists` */
	struct list calls;	     /* struct call */
	struct list requests;	     /* struct request of upstream.c */
	uint64_t route_numbers;	     /* the last one given */
	uint64_t no_ranges_until_ms; /* the latest of all hosts */

	/* config.json at its last read. */
	struct auth_config *auth;
	struct timespec auth_mtime;
	bool auth_known;	    /* it was looked at */
	struct creds_job *auth_job; /* the look under way, or NULL */
	bool auth_late;		    /* it takes too long; nobody waits */
	struct list auth_waiters;   /* struct call.wait; they wait for it */
	struct delay auth_timeout;
	uint64_t auth_checked_ms; /* last look at its mtime; 0: never */
	uint64_t auth_generation; /* number of the last read; for logins */
	bool auth_warned_helpers;
};

void delay_init(struct delay *d, void (*fire)(struct delay *d));
/* Sets the timer, or moves it if it is set. fire() runs in a later turn of the
 * loop, even if when_ms has passed. */
void delay_set(struct registry *r, struct delay *d, uint64_t when_ms);
/* No effect if the timer is not set. */
void delay_cancel(struct delay *d);
bool delay_is_set(const struct delay *d);

/* A job whose work() may use the store: registry_free() waits until work() has
 * ended. done() always comes, even after registry_free(). */
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
	struct name_node node; /* in registry.hosts, by canonical name */
	uint32_t refs;
	char *name;
	char *base; /* "https://registry-1.docker.io" */
	bool https;
	/* Until when the registry asked to wait (Retry-After): [0] without a
	 * range, [1] with one. The two are separate: Docker Hub may limit
	 * manifests and still serve blobs. */
	uint64_t hold_until_ms[2];
	uint64_t no_ranges_until_ms; /* see no-ranges.c */
};

/* The login to one repository: the challenge and the token. It stays after a
 * call for the next call. */
struct login {
	struct name_node node; /* in registry.logins, by "HOST/NAME" */
	struct registry *r;
	uint32_t refs;
	struct host *host;
	char *repo; /* "HOST/NAME" */
	char *name;
	uint64_t auth_generation;
	bool asked_v2;			 /* for a challenge; once */
	struct auth_challenge challenge; /* the last one */
	struct auth_token token;
	struct call *fetch;	/* the call that fetches a token, or NULL */
	struct list waiters;	/* struct call.wait; they wait for that token */
	uint64_t complained_ms; /* when a refusal was logged last */
};

struct call;

/* Finds or makes a login. Borrows host and name, which the caller has checked.
 * On 0 the caller owns a reference. -ENOMEM. */
int login_get(struct registry *r, const char *host, const char *name,
	      struct login **ret);
/* The same, and the URL of a path behind "/v2/" of that registry, which the
 * caller frees. On an error both stay as they are. */
int login_url(struct registry *r, const char *host, const char *name,
	      struct login **ret, char **ret_url, const char *path, ...)
	PRINTF(6, 7);
void login_unref(struct login **s);
/* Gets the value for c's Authorization header. 0: *ret is the value; the caller
 * frees it; NULL: send none. -EINPROGRESS: a token is being fetched;
 * call_token_ready() follows. Other errors: the call cannot log in. */
int login_authorize(struct login *s, struct call *c, char **ret);
/* Handles the registry's 401 to c, which had sent `sent` (NULL: nothing). 0:
 * authorize and send again. -EACCES, with c's why set: refused. */
int login_challenged(struct login *s, struct call *c, const char *sent);
/* Whether to ask /v2/ how to log in: there are credentials, and the registry
 * has not asked for them. True once per login and credentials. */
bool login_wants_v2(struct login *s);
/* Logs that the registry refuses access, at most once a minute. */
void login_complain(struct login *s, const char *why);
/* Ends all logins; for registry_free(). */
void logins_release(struct registry *r);
void creds_init(struct registry *r);
/* Has config.json read again, on a worker, if its mtime has changed. Checks at
 * most once a second. False: a look is under way; calls in auth_waiters are
 * resumed after it, or after CONFIG_READ_MS with the last known credentials. */
bool creds_refresh(struct registry *r);
void creds_end(struct registry *r);
/* Whether "host[:port]" is reached by http, not https. */
bool host_is_plain(struct registry *r, const char *host);
/* Writes the path of the host's own CA to out; false if there is none. */
bool host_ca_file(struct registry *r, const char *host, char *out, size_t size);

/* ---- call.c: one HTTP call with login, redirects, retries ---- */

/* call_start() copies all of it, except login (referenced) and guard. */
struct call_spec {
	const char *method; /* NULL = GET */
	const char *url;
	struct login *login;	   /* NULL: no login */
	const char *authorization; /* instead of a login; never sent to another
				      origin; a 401 is then -EKEYEXPIRED */
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
	/* call.body is the answer's also when the status is an error, up to 64
	 * KiB; else empty. */
	bool keep_error;
};

/* Result of head() and data(): the call has all it wants and ends with 0. */
#define CALL_ENOUGH 1

struct call_ops {
	/* The status is 2xx or 416. 0: go on. CALL_ENOUGH. A negative errno
	 * ends the call with it; call_why() says why. May be NULL. */
	int (*head)(struct call *c);
	/* As in struct http_callbacks, or CALL_ENOUGH. May be NULL. */
	int (*data)(struct call *c, const void *bytes, size_t len);
	/* Called exactly once, never from inside call_start(); not called after
	 * call_abandon(). c is freed when it returns. r: 0 after a complete
	 * 2xx; else as in registry.h and source.h, including connection errors.
	 * why is valid during the call. */
	void (*done)(struct call *c, int r, const char *why);
	/* The registry has failed to answer and is asked again after a pause.
	 * May come from inside call_start(). May be NULL. */
	void (*delayed)(struct call *c);
};

struct call {
	struct list node; /* in registry.calls */
	struct list wait; /* in login.waiters */
	struct registry *r;
	const struct call_ops *ops;
	void *arg;
	struct login *login;

	char *method, *start, *authorization, *accept, *if_match, *content_type;
	char *registry;
	void *send_body;
	size_t send_len, max_body;
	bool has_range, retry, keep_error;
	uint64_t range_off, range_len, deadline_ms;

	struct url at; /* current URL, after redirects */
	bool asks_v2;  /* `at` is /v2/, for its challenge; see ask_v2() */
	bool crossed;  /* `at` left the origin of `start` */
	uint32_t hops, challenges, tries;
	char *sent_auth; /* Authorization of the current exchange */
	struct http_exchange *x;
	bool x_over;	  /* x has ended; its headers can still be read */
	bool zombie;	  /* done() was called; waits for x to end */
	bool in_callback; /* inside a callback of x */
	bool draining;	  /* the body is not passed to ops */
	bool enough;
	int v2_status; /* of the answer that made it ask /v2/ */
	int fail_r; /* the error of ops, or of sending, to end the call with */
	size_t drained;
	struct delay pause, deadline;
	struct metric_series *bytes_metric;

	/* Read by ops. */
	int status; /* of the last response; 0: none came */
	int64_t content_length;
	struct buf body;
	char why[WHY_SIZE];
};

/* Starts a call. On 0 *ret (ret may be NULL) lives until done() has returned.
 * -EINVAL (the URL), -ENOMEM: done() will not be called. */
int call_start(struct registry *r, const struct call_spec *spec,
	       const struct call_ops *ops, void *arg, struct call **ret);
/* Ends the call without done(). Sets *c to NULL; NULL is allowed. */
void call_abandon(struct call **c);
void call_resume(struct call *c);
/* Sets c->why, unless it is set. Returns r. */
int call_why(struct call *c, int r, const char *fmt, ...) PRINTF(3, 4);
/* Returns the i-th header of that name, borrowed; NULL if absent. Valid from
 * head() on. */
const char *call_header(struct call *c, const char *name, size_t i);
/* Finds <URL>; rel="next" (RFC 8288) of a list's page. 1: *ret is the URL,
 * which the caller releases; it may be on any server. 0: there is none.
 * -EBADMSG: it is malformed. -ENOMEM. */
int call_next_page(struct call *c, struct url *ret);
/* Called by login.c: the token is there (r is 0), or cannot be had. */
void call_token_ready(struct call *c, int r, const char *why);
/* Whether the call's error r means that no server answered, so that the last
 * known answer may be served. */
bool call_unreachable(const struct call *c, int r);
/* Whether the status of a HEAD leaves open what a GET would give: a signature
 * may cover GET only, and some servers have no HEAD. */
bool call_head_refused(const struct call *c);
/* Maps the call's error r to the errors of registry.h. */
int call_public_errno(const struct call *c, int r);

/* ---- probe.c: size, version, ranges ---- */

struct probe_result {
	uint64_t size;
	bool ranges;	  /* the server serves ranges */
	const char *etag; /* NULL if absent; borrowed */
	const char *modified;
};

struct probe;
typedef void probe_cb(void *arg, int r, const struct probe_result *res,
		      bool unreachable, const char *why);

/* The probe sends HEAD, then GET of the first byte if HEAD is refused, does not
 * give the size, or (with need_ranges) does not say whether ranges are served.
 * Result -EOPNOTSUPP: ranges are not served. */
struct probe_spec {
	const char *url;
	struct login *login; /* these two as in struct call_spec */
	const char *authorization;
	bool need_ranges;
};

int probe_start(struct registry *r, const struct probe_spec *spec, probe_cb *cb,
		void *arg, struct probe **ret);
void probe_abandon(struct probe **p);

/* ---- outage.c: hosts that do not answer ---- */

/* The host counts as down from now on, until it answers a probe or another
 * request. name: a repository of it. confirmed: it used up a request's whole
 * time, or failed; else it only takes long. No effect with negative_ms 0. */
void outage_begin(struct registry *r, const char *host, const char *name,
		  bool confirmed);
void outage_end(struct registry *r, const char *host);
bool outage_now(struct registry *r, const char *host);
/* When a request for metadata that begins now ends. */
uint64_t outage_deadline_ms(struct registry *r, const char *host);
/* Older connections to the host may be dead; 0: none is. host may be NULL. */
uint32_t outage_connection_age_s(struct registry *r, const char *host);
void outages_release(struct registry *r);

/* ---- query.c: equal questions share one query ---- */

struct query;

struct query_ops {
	size_t size; /* of the struct that embeds struct query at its start */
	/* Called from the loop, not from inside query_join(). */
	void (*begin)(struct query *f);
	/* Passes the result to one waiter. f may be NULL when r is negative. */
	void (*answer)(struct query *f, int r, void (*cb)(void), void *arg);
	/* Frees what f owns, not f. Its call and probe were abandoned before,
	 * and no job is inside work(). */
	void (*release)(struct query *f);
	/* The host has not answered for a while: other nodes may be asked.
	 * late: what is known is to be served. See query_wait(). May be
	 * NULL. */
	void (*impatient)(struct query *f, bool late);
};

/* A question that several callers may wait for. */
struct query {
	struct name_node node; /* in registry.queries */
	const struct query_ops *ops;
	struct registry *r; /* NULL once the query has ended */
	struct list waiters;
	struct loop_task begin;
	struct store_job job;
	void (*job_done)(struct query *f);
	bool job_busy;
	int abort_r; /* set by query_abort(); 0: none */
	struct call *call;
	struct probe *probe;
	bool asked_peers; /* other nodes were asked and have not answered yet */
	struct delay patience;
	uint64_t late_ms;  /* 0: query_wait() was not called */
	bool late;	   /* impatient() was called with it */
	char *host, *name; /* canonical; NULL for URLs */
	char *repo;	   /* "HOST/NAME", or a URL without its query */
	char why[WHY_SIZE];
};

/* Joins the query of that key, or makes one; *ret_new tells which. Takes over
 * key (NULL: memory was short). Returns NULL when memory is short; cb was
 * called with -ENOMEM then. */
struct query *query_join(struct registry *r, const struct query_ops *ops,
			 char *key, void (*cb)(void), void *arg, bool *ret_new);
/* Checks and copies both. -ENOENT (invalid), -ENOMEM: the caller must
 * query_abort(). */
int query_set_repo(struct query *f, const char *host, const char *name);
/* Makes begin() end the query with r instead. */
void query_abort(struct query *f, int r);
void query_job(struct query *f, void (*work)(struct store_job *j),
	       void (*done)(struct query *f));
/* Keeps the reason for the log. */
void query_why(struct query *f, const char *why);
/* Whether the query's host does not answer others. */
bool query_host_is_down(struct query *f);
/* Notes how a request to the query's host ended. */
void query_host_failed(struct query *f);
void query_host_answered(struct query *f);
/* The host is being asked: impatient() follows after a while, and again when it
 * is late, at once if the host is down. When it is late the host counts as
 * down. */
void query_wait(struct query *f);
/* The host answers with errors: it is late soon. For call_ops.delayed. */
void query_hurry(struct call *c);
/* Answers all waiters and frees f. A negative r is remembered (not -ENOMEM and
 * -ECANCELED), and logged unless it is a plain "no". */
void query_finish(struct query *f, int r);
/* The same, but a negative r is not remembered. */
void query_finish_once(struct query *f, int r);
/* Answers those who wait with 0; the query goes on. */
void query_answer_waiting(struct query *f);
void queries_release(struct registry *r);
/* Forgets every "no"; new credentials may change the answer. */
void noes_release(struct registry *r);
void no_remember(struct registry *r, const char *key, int e);
/* The remembered errno; 0 if there is none. */
int no_find(struct registry *r, const char *key);

/* ---- route.c: where a blob's bytes are ---- */

enum route_state { ROUTE_UNKNOWN, ROUTE_ASKING, ROUTE_DIRECT, ROUTE_TARGET };

/* Where the bytes of one blob at one origin are. */
struct route {
	struct name_node node;
	uint32_t refs;
	uint64_t number; /* unique; never 0 */
	enum route_state state;
	char *target; /* ROUTE_TARGET: the redirect's target; secret */
	uint64_t expires_ms;
	struct list waiters; /* struct request.wait, while ROUTE_ASKING */
};

/* Finds or makes a route. tag: NULL, or client_auth.tag of the requester; a
 * route with a tag is used for that tag only. On 0 the caller owns a reference.
 * -ENOMEM. */
int route_get(struct registry *r, const struct blob_key *key,
	      const char *origin, const char *tag, struct route **ret);
/* NULL: there is none of that number any more. */
struct route *route_by_number(struct registry *r, uint64_t number);
void route_unref(struct registry *r, struct route **rt);
/* Returns the current state; an expired target becomes ROUTE_UNKNOWN. */
enum route_state route_now(struct route *rt);
void route_set_direct(struct route *rt);
void route_set_target(struct route *rt, const struct url *target);
void route_forget(struct route *rt);
void routes_release(struct registry *r);
/* How long a redirect's target may be used, judged by its query. */
uint64_t route_lifetime_ms(const char *query, uint64_t now_s);

/* ---- no-ranges.c: registries that serve no ranges ---- */

/* The origin's registry has shown that it serves no ranges. False: origin is
 * of no registry that is known. */
bool no_ranges_note(struct registry *r, const char *origin);
/* Has ranges tried again. */
void no_ranges_forget(struct registry *r, const char *origin);
bool no_ranges_at(struct registry *r, const char *origin);

/* ---- upstream.c, urlfile.c ---- */

#define REGISTRY_PREFIX "registry://" /* of origins "registry://HOST/NAME" */
/* Returns "HOST/NAME" of such an origin, borrowed; NULL: it is a URL. */
const char *origin_repo(const char *origin);
/* Returns HOST of "HOST/NAME"; the caller frees it. NULL: no memory. */
char *repo_host(const char *repo);

extern const struct source_ops upstream_ops;
void requests_release(struct registry *r);

/* What fetches of a URL need besides the origin; in memory only. */
struct url_secret {
	struct name_node node; /* registry.urls, by route key */
	char *url;	       /* with the query */
	char *etag;	       /* a strong one, or NULL */
	bool unversioned;      /* the server gives no ETag and no date */
};

/* The key of struct url_secret, "kind:hex origin"; for routes, a space and tag
 * are appended if tag is not NULL. The caller frees it; NULL when memory is
 * short. */
char *route_key(const struct blob_key *key, const char *origin,
		const char *tag);
/* Returns NULL if there is none. Borrowed. */
struct url_secret *url_secret_find(struct registry *r,
				   const struct blob_key *key,
				   const char *origin);
/* Computes the id of a file's version, of `size` bytes, from the origin, the
 * query's parameters (NULL: none) without signatures, and ETag or date. Returns
 * false without ETag and date: *ret is then random and never comes again.
 * False, too, when memory is short; *ret is then zero. */
bool url_version_id(const char *origin, const char *query, const char *etag,
		    const char *modified, uint64_t size, struct digest *ret);
/* The part of the URL behind "?"; NULL: there is none. Borrowed from url. */
const char *query_of(const char *url);
/* Makes the next registry_get_url() of the origin ask upstream again. */
void url_expire(struct registry *r, const char *origin);
void urls_release(struct registry *r);

/* ---- lists.c ---- */

/* Forgets every list; other credentials may not be shown it. */
void lists_release(struct registry *r);

/* ---- blobs.c ---- */

/* Blocks: on a worker. Gives a blob that is bad another try, if there is a
 * reason to: `origin` is new to it, or it has been bad for negative_ms. */
void blob_revive(struct store *s, uint64_t negative_ms, struct blob *b,
		 const char *origin);

/* ---- count.c ---- */

/* Counts a response; code 0: none came. */
void count_response(const char *host, int code);
struct metric_series *count_bytes_series(const char *host);
/* Counts a range of so many bytes that arrived within ns nanoseconds. */
void count_speed(const char *node, const char *host, uint64_t bytes,
		 uint64_t ns);
/* Registers the metric families, so that they show before they have values. */
void count_register(void);

#endif
