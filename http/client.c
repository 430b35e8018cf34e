#include "http/client-private.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/descriptors.h"
#include "http/deadline.h"
#include "http/head.h"
#include "http/local.h"
#include "http/proxies.h"
#include "http/url.h"

#define MAX_IDLE_CONNECTIONS  64
#define MAX_HOST_CONNECTIONS  16
#define FIRST_BYTE_TIMEOUT_MS 30000
#define LOW_SPEED_BYTES	      1024
#define LOW_SPEED_SECONDS     20
#define MAX_IDLE_HANDLES      4
#define MAX_RETRY_AFTER_S     3600
/* A daemon has one; its tests have a few. */
#define MAX_IDENTITIES 8

/* Life of an exchange: http_start() puts it on `todo`; the task hands it to
 * curl; curl's message, a deadline or a cancel ends it. curl's functions must
 * not be called from curl's callbacks. So a request of the caller in a callback
 * is only noted on `todo`, and the task carries it out. */
struct http_exchange {
	struct http_client *client;
	struct list node; /* in client->active */
	struct list todo; /* in client->todo, or empty */
	struct http_callbacks cb;
	void *arg;
	CURL *easy; /* NULL once removed from curl */
	struct curl_slist *headers;
	struct head head;
	struct head *trailers; /* NULL if there are none */

	bool added;    /* curl has the handle */
	bool canceled; /* no callback but done() from now on */
	bool paused;
	bool in_data;
	bool resume; /* http_resume() was called */
	bool ended;  /* done() is being called */
	bool proxied;
	struct client_guard guard;
	struct lookup *lookup; /* NULL: none under way */
	int failure; /* why a callback of ours stopped it, 0 if none did */

	struct deadline deadline;
	uint64_t start_ns, sent_ns, first_byte_ns; /* 0: not reached */

	char peer[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
	char errbuf[CURL_ERROR_SIZE];
	char why[CURL_ERROR_SIZE + 64];
};

struct http_client {
	struct loop *loop;
	CURLM *multi;
	char *user_agent;
	uv_timer_t timer; /* curl's */
	uv_timer_t sweep; /* for our deadlines */
	struct loop_task task;
	bool in_curl;
	bool closing;
	unsigned int refs; /* two timers */
	struct list active, todo;
	struct list watches;
	CURL *idle[MAX_IDLE_HANDLES];
	unsigned int nidle;
	struct client_identity identities[MAX_IDENTITIES];
	unsigned int nidentities;
};

/* The name of a server that a proxy is to be asked for. Outlives its exchange
 * until libuv calls back. */
struct lookup {
	uv_getaddrinfo_t req;
	struct http_exchange *x; /* NULL: it has ended */
};

/* A socket of curl's. */
struct watch {
	uv_poll_t poll;
	struct list node;
	struct http_client *client;
	curl_socket_t fd;
	int events;
	bool closing;
};

static void end_exchange(struct http_exchange *x, int r);
static void curl_ended(struct http_exchange *x, CURLcode code);

/* --- Client: sockets and timers ----------------------------------------- */

static void client_unref(struct http_client *c)
{
	if (--c->refs > 0)
		return;
	loop_cancel(c->loop, &c->task);
	free(c->user_agent);
	free(c);
}

static void on_timer_closed(uv_handle_t *h)
{
	client_unref(h->data);
}

static void read_messages(struct http_client *c)
{
	const CURLMsg *m;
	int left;

	/* done() may free the client; its memory lives until its handles are
	 * closed. */
	while (!c->closing && (m = curl_multi_info_read(c->multi, &left))) {
		struct http_exchange *x = NULL;
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &x);
		curl_ended(x, code);
	}
}

static void run_curl(struct http_client *c, curl_socket_t fd, int events)
{
	int running;

	BUG_ON(c->in_curl);
	c->in_curl = true;
	(void)curl_multi_socket_action(c->multi, fd, events, &running);
	c->in_curl = false;
	read_messages(c);
}

static void on_timer(uv_timer_t *t)
{
	run_curl(t->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct http_client *c = arg;

	(void)multi;
	if (c->closing)
		return 0;
	if (timeout_ms < 0) {
		(void)uv_timer_stop(&c->timer);
		return 0;
	}
	uv_update_time(loop_uv(c->loop));
	(void)uv_timer_start(&c->timer, on_timer, (uint64_t)timeout_ms, 0);
	return 0;
}

static void on_watch_closed(uv_handle_t *h)
{
	free(h->data);
}

static void watch_close(struct watch *w)
{
	w->closing = true;
	list_del(&w->node);
	/* Removes the descriptor from epoll at once; curl may close it. */
	uv_close((uv_handle_t *)&w->poll, on_watch_closed);
}

static void on_poll(uv_poll_t *p, int status, int events)
{
	struct watch *w = p->data;
	int flags = 0;

	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	/* With CURL_CSELECT_ERR alone curl would give up without reading the
	 * bytes that came before the reset. */
	if (status < 0)
		flags = CURL_CSELECT_IN | CURL_CSELECT_OUT | CURL_CSELECT_ERR;
	run_curl(w->client, w->fd, flags);
	/* libuv stops watching after an error. */
	if (status < 0 && !w->closing)
		(void)uv_poll_start(&w->poll, w->events, on_poll);
}

/* A socket that cannot be watched stalls until one of our deadlines passes. An
 * error returned from here would break all exchanges of the client. */
static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *arg,
			  void *assigned)
{
	struct http_client *c = arg;
	struct watch *w = assigned;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (w) {
			(void)curl_multi_assign(c->multi, fd, NULL);
			watch_close(w);
		}
		return 0;
	}
	if (!w) {
		w = calloc(1, sizeof(*w));
		if (!w)
			return 0;
		if (uv_poll_init(loop_uv(c->loop), &w->poll, fd) < 0) {
			free(w);
			return 0;
		}
		w->poll.data = w;
		w->client = c;
		w->fd = fd;
		list_add_tail(&c->watches, &w->node);
		(void)curl_multi_assign(c->multi, fd, w);
	}
	w->events = (what & CURL_POLL_IN ? UV_READABLE : 0) |
		    (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
	(void)uv_poll_start(&w->poll, w->events, on_poll);
	return 0;
}

/* --- Deadlines ------------------------------------------------------------ */

static void on_sweep(uv_timer_t *t);

static void sweep_within(struct http_client *c, uint64_t ms)
{
	if (c->closing || ms == UINT64_MAX ||
	    (uv_is_active((uv_handle_t *)&c->sweep) &&
	     uv_timer_get_due_in(&c->sweep) <= ms))
		return;
	uv_update_time(loop_uv(c->loop));
	(void)uv_timer_start(&c->sweep, on_sweep, ms, 0);
}

static void sweep_for(struct http_exchange *x, uint64_t now)
{
	sweep_within(x->client, deadline_wait_ms(&x->deadline, now));
}

static struct http_exchange *find_overdue(struct http_client *c)
{
	uint64_t now = now_ms();

	list_for_each (it, &c->active) {
		struct http_exchange *x =
			list_entry(it, struct http_exchange, node);

		if (x->canceled)
			continue;
		if (deadline_check(&x->deadline, now, x->why, sizeof(x->why)))
			return x;
		sweep_for(x, now);
	}
	return NULL;
}

static void on_sweep(uv_timer_t *t)
{
	struct http_client *c = t->data;
	struct http_exchange *x;

	/* done() may change the list in any way: start again after each. */
	while (!c->closing && (x = find_overdue(c)))
		end_exchange(x, -ETIMEDOUT);
}

/* --- curl's callbacks: c->in_curl is true in all of them ------------------ */

/* Makes curl end the exchange. r is the reason, which curl cannot carry. */
static size_t stop(struct http_exchange *x, int r)
{
	if (x->failure == 0)
		x->failure = r;
	return CURL_WRITEFUNC_ERROR;
}

/* curl has a connection and is about to send the request. */
static int on_curl_ready(void *arg, char *remote_ip, char *local_ip,
			 int remote_port, int local_port)
{
	struct http_exchange *x = arg;

	(void)local_ip;
	(void)local_port;
	/* A connection of before, made for somebody who may. */
	if (x->guard.refuse && !x->proxied &&
	    host_scope(remote_ip) >= x->guard.refuse) {
		x->guard.refused = true;
		return CURL_PREREQFUNC_ABORT;
	}
	x->sent_ns = uv_hrtime();
	deadline_sent(&x->deadline, now_ms());
	sweep_for(x, now_ms());
	if (!x->peer[0])
		(void)snprintf(x->peer, sizeof(x->peer),
			       strchr(remote_ip, ':') ? "[%s]:%d" : "%s:%d",
			       remote_ip, remote_port);
	return CURL_PREREQFUNC_OK;
}

/* A malformed field is left out: few callers read trailers. */
static void add_trailer(struct http_exchange *x, const char *line, size_t len)
{
	if (!x->trailers) {
		x->trailers = malloc(sizeof(*x->trailers));
		if (!x->trailers)
			return;
		head_init(x->trailers);
	}
	(void)head_add_trailer(x->trailers, line, len);
}

static size_t on_curl_header(char *line, size_t one, size_t len, void *arg)
{
	struct http_exchange *x = arg;
	int r;

	(void)one;
	if (x->canceled)
		return stop(x, -ECANCELED);
	if (x->head.complete) {
		add_trailer(x, line, len);
		return len;
	}
	if (x->first_byte_ns == 0)
		x->first_byte_ns = uv_hrtime();
	r = head_add(&x->head, line, len);
	if (r == 0 && len <= 2 && x->cb.informed)
		x->cb.informed(x->arg, x);
	if (r <= 0)
		return r == 0 ? len : stop(x, r);
	deadline_head(&x->deadline, now_ms());
	sweep_for(x, now_ms());
	if (x->cb.head) {
		struct http_response res = {
			.status = x->head.status,
			.content_length = x->head.content_length,
		};

		r = x->cb.head(x->arg, x, &res);
		if (r < 0)
			return stop(x, r);
	}
	return len;
}

static size_t on_curl_body(char *bytes, size_t one, size_t len, void *arg)
{
	struct http_exchange *x = arg;
	int r = 0;

	(void)one;
	if (x->canceled)
		return stop(x, -ECANCELED);
	if (!x->head.complete)
		return stop(x, -EPROTO);
	if (x->cb.data && len > 0) {
		x->in_data = true;
		r = x->cb.data(x->arg, x, bytes, len);
		x->in_data = false;
	}
	if (r == -EAGAIN) {
		x->paused = true;
		deadline_pause(&x->deadline, now_ms());
		return CURL_WRITEFUNC_PAUSE;
	}
	if (r < 0)
		return stop(x, r);
	deadline_bytes(&x->deadline, len);
	return len;
}

/* --- The end of an exchange ----------------------------------------------- */

/* Removes the exchange from curl, which closes its connection unless the
 * response was read to its end. */
static void detach(struct http_exchange *x)
{
	struct http_client *c = x->client;
	CURL *easy = steal_ptr(&x->easy);

	BUG_ON(c->in_curl);
	if (!easy)
		return;
	if (x->added)
		(void)curl_multi_remove_handle(c->multi, easy);
	curl_easy_reset(easy); /* the options still point to x */
	if (c->nidle < MAX_IDLE_HANDLES && !c->closing)
		c->idle[c->nidle++] = easy;
	else
		curl_easy_cleanup(easy);
	curl_slist_free_all(steal_ptr(&x->headers));
}

static void free_exchange(struct http_exchange *x)
{
	detach(x);
	if (x->lookup)
		x->lookup->x = NULL;
	list_del(&x->node);
	list_del(&x->todo);
	head_release(&x->head);
	if (x->trailers)
		head_release(x->trailers);
	free(x->trailers);
	free(x);
}

static void end_exchange(struct http_exchange *x, int r)
{
	detach(x);
	list_del(&x->node);
	list_del(&x->todo);
	x->ended = true;
	client_cut_queries(x->why);
	x->cb.done(x->arg, x, r, x->why);
	free_exchange(x);
}

static const char guard_why[] = "an address of this host or link";

/* With x->easy still there: it knows more. */
static int explain(struct http_exchange *x, CURLcode code)
{
	int r = x->failure < 0 ? x->failure
			       : client_errno(x->easy, code, x->errbuf);
	const char *why = x->errbuf[0] ? x->errbuf : curl_easy_strerror(code);
	const char *ip = NULL;
	long port = 0;
	/* curl 7.88 reports a header line of 100 KiB so. */
	bool long_line = code == CURLE_OUT_OF_MEMORY && x->sent_ns > 0 &&
			 !x->head.complete;

	if (r < 0 && x->guard.refused && x->sent_ns == 0) {
		r = -EPERM;
		why = guard_why;
	} else if (r == 0 && !x->head.complete) {
		r = -EPROTO;
		why = "no response head";
	} else if (long_line || (x->failure == -EPROTO && !x->head.complete)) {
		r = -EPROTO;
		why = "the response's head is malformed or too large";
	} else if (x->failure < 0) {
		why = strerror(-x->failure);
	} else if (r == 0) {
		why = "";
	} else if (r == -EKEYREJECTED) {
		why = client_tls_refusal(why);
	}
	(void)snprintf(x->why, sizeof(x->why), "%s", why);
	if (!x->peer[0] &&
	    curl_easy_getinfo(x->easy, CURLINFO_PRIMARY_IP, &ip) == CURLE_OK &&
	    ip && ip[0]) {
		(void)curl_easy_getinfo(x->easy, CURLINFO_PRIMARY_PORT, &port);
		(void)snprintf(x->peer, sizeof(x->peer),
			       strchr(ip, ':') ? "[%s]:%ld" : "%s:%ld", ip,
			       port);
	}
	return r;
}

static void curl_ended(struct http_exchange *x, CURLcode code)
{
	int r = explain(x, code);

	/* After http_cancel() the task calls done(), in a turn of its own. */
	if (x->canceled)
		detach(x);
	else
		end_exchange(x, r);
}

/* --- The task ------------------------------------------------------------- */

static void unpause(struct http_exchange *x)
{
	struct http_client *c = x->client;
	CURLcode code;

	x->resume = x->paused = false;
	deadline_resume(&x->deadline, now_ms());
	sweep_for(x, now_ms());
	c->in_curl = true;
	code = curl_easy_pause(x->easy, CURLPAUSE_CONT);
	c->in_curl = false;
	if (code != CURLE_OK)
		curl_ended(x, code);
}

/* True if curl was given work for which no timer or socket will wake it. */
static bool do_todo(struct http_exchange *x)
{
	struct http_client *c = x->client;

	list_del(&x->todo);
	if (x->canceled) {
		(void)snprintf(x->why, sizeof(x->why), "canceled");
		end_exchange(x, -ECANCELED);
	} else if (x->lookup) {
		return false; /* begins when that has come back */
	} else if (x->guard.refused && !x->added) {
		(void)snprintf(x->why, sizeof(x->why), "%s", guard_why);
		end_exchange(x, -EPERM);
	} else if (!x->added) {
		if (curl_multi_add_handle(c->multi, x->easy) != CURLM_OK) {
			(void)snprintf(x->why, sizeof(x->why),
				       "curl cannot start the exchange");
			end_exchange(x, -EIO);
			return false;
		}
		x->added = true;
		return true;
	} else if (x->resume && x->paused) {
		unpause(x);
		return true;
	}
	return false;
}

static void on_task(struct loop_task *t)
{
	struct http_client *c = container_of(t, struct http_client, task);
	struct list batch;
	bool kick = false;

	/* Exchanges that callbacks add meanwhile wait for the next turn. */
	list_init(&batch);
	list_move_all(&c->todo, &batch);
	/* If a done() frees the client, that empties the batch. */
	while (!list_empty(&batch))
		kick |= do_todo(list_first(&batch, struct http_exchange, todo));
	if (kick && !c->closing)
		run_curl(c, CURL_SOCKET_TIMEOUT, 0);
}

static void add_todo(struct http_exchange *x)
{
	if (!list_empty(&x->todo))
		return;
	list_add_tail(&x->client->todo, &x->todo);
	loop_post(x->client->loop, &x->client->task);
}

/* --- Client --------------------------------------------------------------- */

static void init_curl(void)
{
	BUG_ON(curl_global_init(CURL_GLOBAL_DEFAULT) != 0);
}

static int init_multi(struct http_client *c,
		      const struct http_client_config *cfg)
{
	uint32_t most = descriptors_share(DESCRIPTORS_CLIENT);
	long n = cfg->max_connections
			 ? (long)min_u64(cfg->max_connections, most)
			 : (long)most;
	long host = cfg->max_host_connections ? (long)cfg->max_host_connections
					      : MAX_HOST_CONNECTIONS;

	c->multi = curl_multi_init();
	if (!c->multi)
		return -ENOMEM;
	(void)curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION,
				on_curl_socket);
	(void)curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	(void)curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION,
				on_curl_timer);
	(void)curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	(void)curl_multi_setopt(c->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, n);
	(void)curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS,
				cfg->max_connections ? n
						     : MAX_IDLE_CONNECTIONS);
	(void)curl_multi_setopt(c->multi, CURLMOPT_MAX_HOST_CONNECTIONS, host);
	return 0;
}

int http_client_new(struct loop *l, const struct http_client_config *cfg,
		    struct http_client **ret)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	CLEANUP(freep) struct http_client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	(void)pthread_once(&once, init_curl);
	c->loop = l;
	c->task.run = on_task;
	list_init(&c->active);
	list_init(&c->todo);
	list_init(&c->watches);
	c->user_agent = strdup(cfg->user_agent ? cfg->user_agent : "");
	r = c->user_agent ? init_multi(c, cfg) : -ENOMEM;
	if (r < 0) {
		free(c->user_agent);
		return r;
	}
	/* Cannot fail. From here on the timers end by uv_close(). */
	(void)uv_timer_init(loop_uv(l), &c->timer);
	(void)uv_timer_init(loop_uv(l), &c->sweep);
	c->timer.data = c->sweep.data = c;
	c->refs = 2;
	*ret = steal_ptr(&c);
	return 0;
}

void http_client_free(struct http_client **cp)
{
	struct http_client *c = *cp;

	*cp = NULL;
	if (!c || c->closing)
		return;
	BUG_ON(c->in_curl);
	c->closing = true;
	while (!list_empty(&c->active)) {
		struct http_exchange *x =
			list_first(&c->active, struct http_exchange, node);

		(void)snprintf(x->why, sizeof(x->why), "canceled");
		end_exchange(x, -ECANCELED);
	}
	while (c->nidle > 0)
		curl_easy_cleanup(c->idle[--c->nidle]);
	(void)curl_multi_cleanup(c->multi);
	c->multi = NULL;
	while (c->nidentities > 0)
		tls_identity_free(&c->identities[--c->nidentities].tls);
	while (!list_empty(&c->watches))
		watch_close(list_first(&c->watches, struct watch, node));
	uv_close((uv_handle_t *)&c->timer, on_timer_closed);
	uv_close((uv_handle_t *)&c->sweep, on_timer_closed);
}

/* --- Exchanges ------------------------------------------------------------ */

/* The loaded files of a member; NULL: curl is to read them. If changed files
 * cannot be used, the old ones stay in use. That is logged by our server, which
 * reads the same files, and not here, where a half-written renewal may be
 * seen. */
static const struct client_identity *identity_for(struct http_client *c,
						  const struct http_request *rq)
{
	struct client_identity *id = NULL;
	struct error err;

	if (!rq->peer || !rq->ca_file || !rq->cert_file || !rq->key_file)
		return NULL;
	for (unsigned int i = 0; i < c->nidentities && !id; i++)
		if (tls_identity_is(c->identities[i].tls, rq->ca_file,
				    rq->cert_file, rq->key_file))
			id = &c->identities[i];
	if (id) {
		(void)tls_identity_refresh(id->tls, &err);
	} else {
		if (c->nidentities == MAX_IDENTITIES)
			return NULL;
		id = &c->identities[c->nidentities];
		if (tls_identity_new(rq->ca_file, rq->cert_file, rq->key_file,
				     &id->tls, &err) < 0)
			return NULL;
		c->nidentities++;
	}
	(void)snprintf(id->name, sizeof(id->name), "identity %u.%llu",
		       (unsigned int)(id - c->identities),
		       (unsigned long long)tls_identity_generation(id->tls));
	return id;
}

static void on_looked_up(uv_getaddrinfo_t *req, int status,
			 struct addrinfo *list)
{
	struct lookup *l = container_of(req, struct lookup, req);
	struct http_exchange *x = l->x;

	(void)status; /* without a list the proxy may know better */
	for (const struct addrinfo *a = list; x && a; a = a->ai_next)
		if (addr_scope(a->ai_addr) >= x->guard.refuse)
			x->guard.refused = true;
	uv_freeaddrinfo(list);
	free(l);
	if (!x)
		return;
	x->lookup = NULL;
	add_todo(x);
}

static int look_up(struct http_exchange *x, const char *host)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct lookup *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->x = x;
	if (uv_getaddrinfo(loop_uv(x->client->loop), &l->req, on_looked_up,
			   host, NULL, &hints) < 0) {
		free(l);
		return -ENOMEM;
	}
	x->lookup = l;
	return 0;
}

static void set_deadline(struct http_exchange *x, const struct http_request *rq)
{
	struct deadline *d = &x->deadline;

	d->total_ms = rq->total_timeout_ms;
	d->first_byte_ms = rq->first_byte_timeout_ms ? rq->first_byte_timeout_ms
						     : FIRST_BYTE_TIMEOUT_MS;
	d->low_speed_bytes =
		rq->low_speed_bytes ? rq->low_speed_bytes : LOW_SPEED_BYTES;
	d->low_speed_seconds = rq->low_speed_seconds ? rq->low_speed_seconds
						     : LOW_SPEED_SECONDS;
	deadline_start(d, now_ms());
	sweep_for(x, now_ms());
}

static int set_callbacks(struct http_exchange *x)
{
	CURLcode code = CURLE_OK;

#define SET(opt, value)                                                        \
	do {                                                                   \
		if (code == CURLE_OK)                                          \
			code = curl_easy_setopt(x->easy, opt, value);          \
	} while (0)
	SET(CURLOPT_PRIVATE, x);
	SET(CURLOPT_ERRORBUFFER, x->errbuf);
	SET(CURLOPT_HEADERFUNCTION, on_curl_header);
	SET(CURLOPT_HEADERDATA, x);
	SET(CURLOPT_WRITEFUNCTION, on_curl_body);
	SET(CURLOPT_WRITEDATA, x);
	SET(CURLOPT_PREREQFUNCTION, on_curl_ready);
	SET(CURLOPT_PREREQDATA, x);
#undef SET
	return code == CURLE_OK ? 0 : -EINVAL;
}

/* Everything that is known before curl begins. */
static int prepare(struct http_exchange *x, const struct http_request *rq)
{
	CLEANUP(url_release) struct url u = {0};
	struct http_client *c = x->client;
	const char *proxy = NULL;
	int r = url_parse(rq->url, &u);

	if (r < 0)
		return r;
	if (!rq->unix_socket && !rq->peer)
		proxy = proxy_for(&u);
	x->proxied = proxy != NULL;
	x->guard.refuse = rq->refuse;
	r = client_set_up(x->easy, rq, identity_for(c, rq), proxy ? proxy : "",
			  proxy ? NULL : &x->guard, c->user_agent, &x->headers);
	if (r == 0)
		r = set_callbacks(x);
	if (r == 0 && proxy && rq->refuse)
		r = look_up(x, u.host);
	return r;
}

int http_start(struct http_client *c, const struct http_request *rq,
	       const struct http_callbacks *cb, void *arg,
	       struct http_exchange **ret)
{
	struct http_exchange *x;
	int r;

	r = c->closing ? -EINVAL : client_check(rq);
	if (r < 0)
		return r;
	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->client = c;
	list_init(&x->node);
	list_init(&x->todo);
	head_init(&x->head);
	x->cb = *cb;
	x->arg = arg;
	x->start_ns = uv_hrtime();
	x->easy = c->nidle > 0 ? c->idle[--c->nidle] : curl_easy_init();
	r = x->easy ? prepare(x, rq) : -ENOMEM;
	if (r < 0) {
		free_exchange(x);
		return r;
	}
	if (rq->unix_socket)
		(void)snprintf(x->peer, sizeof(x->peer), "unix:%s",
			       rq->unix_socket);
	list_add_tail(&c->active, &x->node);
	set_deadline(x, rq);
	add_todo(x);
	*ret = x;
	return 0;
}

void http_resume(struct http_exchange *x)
{
	if (x->ended || !(x->paused || x->in_data))
		return;
	x->resume = true;
	add_todo(x);
}

void http_cancel(struct http_exchange *x)
{
	if (x->ended || x->canceled)
		return;
	x->canceled = true;
	add_todo(x);
}

/* --- Queries of an exchange
 * ------------------------------------------------- */

const char *http_header(struct http_exchange *x, const char *name, size_t i)
{
	return x->head.complete ? head_get(&x->head, name, i) : NULL;
}

const char *http_trailer(struct http_exchange *x, const char *name, size_t i)
{
	return x->trailers ? head_get(x->trailers, name, i) : NULL;
}

uint32_t http_retry_after_s(struct http_exchange *x)
{
	const char *s = http_header(x, "Retry-After", 0);
	size_t digits = s ? strspn(s, "0123456789") : 0;
	int64_t wait;

	if (!s)
		return 0;
	if (digits > 0 && s[digits] == '\0')
		wait = digits > 9 ? MAX_RETRY_AFTER_S : strtol(s, NULL, 10);
	else
		wait = (int64_t)curl_getdate(s, NULL) - (int64_t)now_unix_s();
	if (wait < 0)
		return 0;
	return (uint32_t)(wait > MAX_RETRY_AFTER_S ? MAX_RETRY_AFTER_S : wait);
}

void http_peer_cert(struct http_exchange *x, char out[TLS_NAME_SIZE])
{
	struct curl_tlssessioninfo *tls = NULL;

	*out = '\0';
	if (curl_easy_getinfo(x->easy, CURLINFO_TLS_SSL_PTR, &tls) ==
		    CURLE_OK &&
	    tls && tls->backend == CURLSSLBACKEND_OPENSSL && tls->internals)
		tls_peer_name(tls->internals, out);
}

const char *http_peer_addr(struct http_exchange *x)
{
	return x->peer;
}

void http_timing(struct http_exchange *x, double *ret_connect_ms,
		 double *ret_first_byte_ms)
{
	*ret_connect_ms =
		x->sent_ns ? (double)(x->sent_ns - x->start_ns) / 1e6 : 0;
	*ret_first_byte_ms =
		x->first_byte_ns
			? (double)(x->first_byte_ns - x->start_ns) / 1e6
			: 0;
}
