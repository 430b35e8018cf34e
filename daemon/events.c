#include "daemon/events.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "http/small.h"

#define MAX_MESSAGE	 1024
#define MAX_QUEUE	 16
#define MAX_TOKEN_BYTES	 65536
#define MAX_REPLY	 255 /* bytes of an answer that are kept for the log */
#define MAX_ATTEMPTS	 12
#define REFUSED_ATTEMPTS 4
/* A state that changes often must not flood the API server: BURST requests at
 * once, then one per REFILL_MS. */
#define BURST	  12
#define REFILL_MS 30000

struct k8s_event {
	enum p2p_state state;
	time_t time;
	unsigned attempts;
	char name[253 + 1];
	char message[MAX_MESSAGE + 1];
};

enum phase {
	IDLE,	 /* nothing to send */
	READING, /* a worker reads the token */
	SENDING,
	PAUSING, /* the timer runs */
};

struct events {
	struct loop *loop;
	struct http_client *client;
	void (*notify)(const char *state);
	enum p2p_state state;
	uint32_t retry_ms, timeout_ms, refill_ms;

	/* NULL url: not in Kubernetes. */
	char *url, *ca_file, *token_file;
	char *pod, *uid, *namespace, *node;

	uv_timer_t timer;
	struct loop_job job;
	struct http_small request;
	enum phase phase;
	bool closing;
	unsigned users; /* handle, job and exchange that still call back */

	struct k8s_event queue[MAX_QUEUE]; /* the first nqueue are used */
	unsigned nqueue;
	uint64_t budget_ms; /* a request costs refill_ms */
	uint64_t budget_at_ms;
	uint64_t serial;

	char *token; /* used by the job while it runs */
	int token_error;
	int status;

	bool refused; /* each of these states was logged */
	bool failing;
	bool dropped;
};

static void step(struct events *ev);

const char *p2p_state_name(enum p2p_state state)
{
	static const char *const names[] = {
		"none",	     "P2PInitializing", "P2PConnected",
		"P2PActive", "P2PDisconnected", "P2PFailed"};

	return names[state];
}

static bool is_warning(enum p2p_state s)
{
	return s == P2P_DISCONNECTED || s == P2P_FAILED;
}

static void forget(char **secret)
{
	if (*secret)
		explicit_bzero(*secret, strlen(*secret));
	free(*secret);
	*secret = NULL;
}

static void events_destroy(struct events *ev)
{
	free(ev->url);
	free(ev->ca_file);
	free(ev->token_file);
	free(ev->pod);
	free(ev->uid);
	free(ev->namespace);
	free(ev->node);
	forget(&ev->token);
	free(ev);
}

static void user_gone(struct events *ev)
{
	BUG_ON(ev->users == 0);
	ev->users--;
	if (ev->closing && ev->users == 0)
		events_destroy(ev);
}

/* ---- The event as a Kubernetes object ---- */

/* A Kubernetes name is a DNS subdomain. The pod's name is one already; the part
 * after the dot makes the event's name unique. */
static void name_entry(struct events *ev, struct k8s_event *e)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	ev->serial++;
	(void)snprintf(e->name, sizeof(e->name), "%.220s.%llx", ev->pod,
		       (unsigned long long)ts.tv_sec * 1000000000ULL +
			       (unsigned long long)ts.tv_nsec + ev->serial);
}

static int event_body(const struct events *ev, const struct k8s_event *e,
		      struct buf *out)
{
	char time[32];
	struct tm tm;
	CLEANUP(json_decrefp) json_t *v = NULL;

	(void)gmtime_r(&e->time, &tm);
	(void)strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%SZ", &tm);
	v = json_pack("{s:s, s:s, s:{s:s, s:s}, s:{s:s, s:s, s:s, s:s, s:s*},"
		      " s:s, s:s, s:s, s:{s:s, s:s*}, s:s, s:s, s:i, s:s, s:s}",
		      "apiVersion", "v1", "kind", "Event", "metadata", "name",
		      e->name, "namespace", ev->namespace, "involvedObject",
		      "apiVersion", "v1", "kind", "Pod", "name", ev->pod,
		      "namespace", ev->namespace, "uid", ev->uid, "reason",
		      p2p_state_name(e->state), "message", e->message, "type",
		      is_warning(e->state) ? "Warning" : "Normal", "source",
		      "component", "peerd", "host", ev->node, "firstTimestamp",
		      time, "lastTimestamp", time, "count", 1,
		      "reportingComponent", "peerd", "reportingInstance",
		      ev->pod);
	return v ? json_dump(v, out) : -ENOMEM;
}

/* ---- The queue ---- */

static void drop_first(struct events *ev)
{
	BUG_ON(ev->nqueue == 0);
	ev->nqueue--;
	memmove(&ev->queue[0], &ev->queue[1],
		ev->nqueue * sizeof(ev->queue[0]));
}

static void on_timer(uv_timer_t *t)
{
	struct events *ev = t->data;

	ev->phase = IDLE;
	step(ev);
}

static void pause_for(struct events *ev, uint64_t ms)
{
	ev->phase = PAUSING;
	(void)uv_timer_start(&ev->timer, on_timer, ms, 0);
}

/* Doubles after each failure, minus a random part of up to a quarter, so that
 * the pods of a cluster do not retry at the same moment. */
static uint64_t back_off(const struct events *ev, unsigned attempts)
{
	uint64_t ms = (uint64_t)ev->retry_ms
		      << (attempts < 7 ? attempts - 1 : 6);
	uint32_t random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) == -1)
		random = 0;
	return ms - random % (ms / 4 + 1);
}

static void log_failing(struct events *ev, const char *why)
{
	if (!ev->failing)
		log_warn("cannot post events to the Kubernetes API; retrying",
			 LS("url", ev->url), LI("status", ev->status),
			 LS("why", why));
	ev->failing = true;
}

static void log_dropped(struct events *ev, const struct k8s_event *e,
			const char *why)
{
	if (!ev->dropped)
		log_warn("a Kubernetes event was dropped",
			 LS("event", p2p_state_name(e->state)),
			 LI("status", ev->status), LS("why", why));
	ev->dropped = true;
}

static void try_again(struct events *ev, uint32_t retry_after_s,
		      const char *why)
{
	struct k8s_event *e = &ev->queue[0];
	uint64_t ms;

	log_failing(ev, why);
	if (e->attempts >= MAX_ATTEMPTS) {
		log_dropped(ev, e, why);
		/* The next event is sent after the same pause. */
		ms = back_off(ev, e->attempts);
		drop_first(ev);
	} else {
		ms = max_u64(back_off(ev, e->attempts),
			     (uint64_t)retry_after_s * 1000);
	}
	pause_for(ev, ms);
}

/* ---- One request ---- */

static void sent(struct events *ev)
{
	if (ev->failing || ev->refused)
		log_info("events reach the Kubernetes API again");
	ev->failing = ev->refused = ev->dropped = false;
	drop_first(ev);
	ev->phase = IDLE;
}

/* No such right (yet: the role may be bound after the pod was started), or a
 * token that is no longer good. It is read anew for each attempt. */
static void refused(struct events *ev, const char *reply)
{
	struct k8s_event *e = &ev->queue[0];

	if (!ev->refused && e->attempts < REFUSED_ATTEMPTS) {
		pause_for(ev, back_off(ev, e->attempts));
		return;
	}
	if (!ev->refused)
		log_warn("the Kubernetes API refuses events; given up",
			 LS("url", ev->url), LI("status", ev->status),
			 LS("why", reply));
	ev->refused = true;
	drop_first(ev);
	ev->phase = IDLE;
}

static void answered(struct events *ev, const struct http_answer *a)
{
	struct k8s_event *e = &ev->queue[0];
	const char *reply = a->body.data ? a->body.data : "";
	int status = a->status;

	if (status / 100 == 2 || (status == 409 && e->attempts > 1)) {
		sent(ev);
	} else if (status == 409) {
		name_entry(ev, e);
		try_again(ev, 0, reply);
	} else if (status == 401 || status == 403 || status == 404) {
		refused(ev, reply);
	} else if (status == 408 || status == 429 || status >= 500) {
		try_again(ev, http_retry_after_s(a->x), reply);
	} else {
		log_dropped(ev, e, reply);
		drop_first(ev);
		ev->phase = IDLE;
	}
}

static void on_done(struct http_small *s, struct http_answer *a)
{
	struct events *ev = container_of(s, struct events, request);

	ev->status = a->status;
	if (!ev->closing && a->r < 0)
		try_again(ev, 0, a->why);
	else if (!ev->closing)
		answered(ev, a);
	if (!ev->closing && ev->phase == IDLE)
		step(ev);
	user_gone(ev);
}

static int start_request(struct events *ev)
{
	CLEANUP(buf_release) struct buf body = BUF_INIT(16384);
	CLEANUP(buf_release) struct buf auth = BUF_INIT(MAX_TOKEN_BYTES + 64);
	const struct http_header headers[] = {
		{"Authorization", NULL},
		{"Content-Type", "application/json"},
		{"Accept", "application/json"},
	};
	struct http_header h[ARRAY_SIZE(headers)];
	struct http_request rq = {
		.method = "POST",
		.url = ev->url,
		.headers = h,
		.nheaders = ARRAY_SIZE(h),
		.ca_file =
			strncmp(ev->url, "https:", 6) == 0 ? ev->ca_file : NULL,
		.ca_only = strncmp(ev->url, "https:", 6) == 0,
		.connect_timeout_ms = ev->timeout_ms,
		.first_byte_timeout_ms = ev->timeout_ms,
		.total_timeout_ms = ev->timeout_ms,
	};
	int r = event_body(ev, &ev->queue[0], &body);

	if (r == 0)
		r = buf_printf(&auth, "Bearer %s", ev->token);
	if (r < 0)
		return r;
	memcpy(h, headers, sizeof(h));
	h[0].value = auth.data;
	rq.body = body.data;
	rq.body_len = body.len;
	r = http_small_start(&ev->request, ev->client, &rq, MAX_REPLY, true,
			     on_done);
	explicit_bzero(auth.data, auth.len);
	return r;
}

static void send_first(struct events *ev)
{
	int r;

	ev->budget_ms -= min_u64(ev->budget_ms, ev->refill_ms);
	r = start_request(ev);
	if (r < 0) {
		try_again(ev, 0, strerror(-r));
		return;
	}
	ev->phase = SENDING;
	ev->users++;
}

/* ---- The token ---- */

/* Runs on a worker: the file is usually on tmpfs, but may be on a disk. */
static void read_token(struct loop_job *j)
{
	struct events *ev = container_of(j, struct events, job);
	CLEANUP(closep) int fd = open(ev->token_file, O_RDONLY | O_CLOEXEC);
	char *s = fd == -1 ? NULL : malloc(MAX_TOKEN_BYTES + 1);
	ssize_t n = s ? read(fd, s, MAX_TOKEN_BYTES) : -1;

	ev->token_error = n == -1 ? -errno : 0;
	if (n >= 0) {
		s[n] = '\0';
		s[strcspn(s, "\r\n")] = '\0';
		if (!*s)
			ev->token_error = -ENODATA;
	}
	if (ev->token_error < 0)
		forget(&s);
	forget(&ev->token);
	ev->token = s;
}

static void on_token(struct loop_job *j)
{
	struct events *ev = container_of(j, struct events, job);

	if (!ev->closing) {
		ev->queue[0].attempts++;
		ev->status = 0;
		if (ev->token_error < 0)
			try_again(ev, 0,
				  "the service account's token cannot be read");
		else
			send_first(ev);
	}
	user_gone(ev);
}

/* ---- The next step ---- */

static void refill(struct events *ev)
{
	uint64_t now = now_ms();

	ev->budget_ms = min_u64(ev->budget_ms + now - ev->budget_at_ms,
				(uint64_t)BURST * ev->refill_ms);
	ev->budget_at_ms = now;
}

static void step(struct events *ev)
{
	if (ev->phase != IDLE || ev->nqueue == 0)
		return;
	refill(ev);
	if (ev->budget_ms < ev->refill_ms) {
		pause_for(ev, ev->refill_ms - ev->budget_ms);
		return;
	}
	ev->phase = READING;
	ev->users++;
	loop_work(ev->loop, &ev->job, read_token, on_token);
}

static void enqueue(struct events *ev, enum p2p_state state,
		    const char *message)
{
	struct k8s_event *e;

	/* A full queue drops its second event: the newest state counts most,
	 * and the first event may be on its way. */
	if (ev->nqueue == MAX_QUEUE) {
		memmove(&ev->queue[1], &ev->queue[2],
			(MAX_QUEUE - 2) * sizeof(ev->queue[0]));
		ev->nqueue--;
	}
	e = &ev->queue[ev->nqueue++];
	*e = (struct k8s_event){.state = state, .time = time(NULL)};
	(void)snprintf(e->message, sizeof(e->message), "%s", message);
	name_entry(ev, e);
	step(ev);
}

void events_state(struct events *ev, enum p2p_state state, const char *message)
{
	char text[MAX_MESSAGE + 1];
	CLEANUP(buf_release) struct buf line = BUF_INIT(MAX_MESSAGE + 64);

	if (!ev || state == ev->state || state == P2P_NONE)
		return;
	ev->state = state;
	/* The service manager would read a line break as the start of another
	 * assignment. */
	(void)snprintf(text, sizeof(text), "%s", message);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	if (is_warning(state))
		log_warn(p2p_state_name(state), LS("what", text));
	else
		log_info(p2p_state_name(state), LS("what", text));
	if (ev->notify && buf_printf(&line, "STATUS=%s: %s",
				     p2p_state_name(state), text) == 0)
		ev->notify(line.data);
	if (ev->url)
		enqueue(ev, state, text);
}

enum p2p_state events_current(const struct events *ev)
{
	return ev ? ev->state : P2P_NONE;
}

/* ---- Set-up ---- */

static const char *env(const char *name)
{
	const char *s = getenv(name);

	return s && *s ? s : NULL;
}

/* A DNS label or subdomain. The API server has checked it already; here it must
 * not change the URL. */
static bool is_k8s_name(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-.");

	return n > 0 && n <= 253 && s[n] == '\0';
}

/* From POD_NAMESPACE, or the file that is mounted beside the token. */
static int find_namespace(struct events *ev, const char *dir)
{
	CLEANUP(freep) char *path = NULL;
	CLEANUP(closep) int fd = -1;
	char name[254];
	const char *s = env("POD_NAMESPACE");
	ssize_t n;

	if (!s) {
		if (asprintf(&path, "%s/namespace", dir) < 0) {
			path = NULL;
			return -ENOMEM;
		}
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd == -1 ? -1 : read(fd, name, sizeof(name) - 1);
		if (n <= 0)
			return -ENOENT;
		name[n] = '\0';
		name[strcspn(name, "\n")] = '\0';
		s = name;
	}
	if (!is_k8s_name(s))
		return -EINVAL;
	ev->namespace = strdup(s);
	return ev->namespace ? 0 : -ENOMEM;
}

static int find_url(struct events *ev, const char *api_url)
{
	const char *host = env("KUBERNETES_SERVICE_HOST");
	const char *port = env("KUBERNETES_SERVICE_PORT");
	bool v6 = host && strchr(host, ':');
	int n;

	if (api_url)
		n = asprintf(&ev->url, "%s/api/v1/namespaces/%s/events",
			     api_url, ev->namespace);
	else
		n = asprintf(&ev->url,
			     "https://%s%s%s:%s/api/v1/namespaces/%s/events",
			     v6 ? "[" : "", host, v6 ? "]" : "",
			     port ? port : "443", ev->namespace);
	if (n < 0)
		ev->url = NULL;
	return n < 0 ? -ENOMEM : 0;
}

/* -ENOENT, -EINVAL: a needed value is missing or not valid. */
static int find_cluster(struct events *ev, const struct events_config *cfg)
{
	const char *dir =
		cfg->account_dir ? cfg->account_dir : EVENTS_ACCOUNT_DIR;
	const char *pod = env("POD_NAME"), *uid = env("POD_UID");
	const char *node = env("NODE_NAME");
	int r;

	if (!pod)
		return -ENOENT;
	if (!is_k8s_name(pod))
		return -EINVAL;
	r = find_namespace(ev, dir);
	if (r < 0)
		return r;
	ev->pod = strdup(pod);
	ev->uid = uid ? strdup(uid) : NULL;
	ev->node = node ? strdup(node) : NULL;
	if (asprintf(&ev->ca_file, "%s/ca.crt", dir) < 0)
		ev->ca_file = NULL;
	if (asprintf(&ev->token_file, "%s/token", dir) < 0)
		ev->token_file = NULL;
	if (!ev->pod || !ev->ca_file || !ev->token_file || (uid && !ev->uid) ||
	    (node && !ev->node))
		return -ENOMEM;
	return find_url(ev, cfg->api_url);
}

int events_new(const struct events_config *cfg, struct events **ret)
{
	struct events *ev = calloc(1, sizeof(*ev));
	int r = 0;

	if (!ev)
		return -ENOMEM;
	ev->loop = cfg->loop;
	ev->client = cfg->client;
	ev->notify = cfg->notify;
	ev->retry_ms = cfg->retry_ms ? cfg->retry_ms : 1000;
	ev->timeout_ms = cfg->timeout_ms ? cfg->timeout_ms : 10000;
	ev->refill_ms = cfg->refill_ms ? cfg->refill_ms : REFILL_MS;
	ev->budget_ms = (uint64_t)BURST * ev->refill_ms;
	ev->budget_at_ms = now_ms();
	if (cfg->api_url || env("KUBERNETES_SERVICE_HOST"))
		r = find_cluster(ev, cfg);
	if (r == -ENOMEM) {
		events_destroy(ev);
		return r;
	}
	if (r < 0)
		log_warn("no events on the pod: POD_NAME or POD_NAMESPACE is "
			 "not set or not a valid name");
	(void)uv_timer_init(loop_uv(ev->loop), &ev->timer);
	ev->timer.data = ev;
	ev->users = 1;
	*ret = ev;
	return 0;
}

static void on_timer_closed(uv_handle_t *h)
{
	user_gone(h->data);
}

void events_free(struct events **evp)
{
	struct events *ev = steal_ptr(evp);

	if (!ev)
		return;
	ev->closing = true;
	ev->nqueue = 0;
	uv_close((uv_handle_t *)&ev->timer, on_timer_closed);
	http_small_cancel(&ev->request);
}
