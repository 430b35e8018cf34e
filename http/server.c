#include "http/server.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/descriptors.h"
#include "http/server-private.h"

#define ACCEPT_BATCH  64
#define ACCEPT_PAUSE  200 /* ms without accepting after descriptors ran out */
#define MAX_ADDRESSES 8	  /* of one name */

/* ---- Callbacks put off ---- */

void http_server_enter(struct http_server *s)
{
	s->depth++;
}

static void on_turn(uv_idle_t *h)
{
	struct http_server *s = h->data;

	http_server_enter(s);
	http_server_leave(s);
}

void http_server_wake(struct http_server *s)
{
	if (s->depth == 0)
		(void)uv_idle_start(&s->turn, on_turn);
}

static void run_later(struct http_server *s)
{
	struct list batch;

	list_init(&batch);
	list_move_all(&s->later, &batch);
	while (!list_empty(&batch)) {
		struct conn *c = list_first(&batch, struct conn, later_node);

		list_del(&c->later_node);
		conn_do_later(c);
	}
}

void http_server_leave(struct http_server *s)
{
	if (s->depth == 1)
		run_later(s);
	s->depth--;
	if (s->depth > 0)
		return;
	/* Entries added meanwhile wait for the next turn, so that one busy
	 * connection cannot keep the loop from the others. */
	if (list_empty(&s->later))
		(void)uv_idle_stop(&s->turn);
	else
		http_server_wake(s);
	http_server_check_stopped(s);
}

/* ---- Timeouts ---- */

static void resume_accepting(struct http_server *s);

static uint64_t sweep_ms(const struct http_server *s)
{
	uint64_t ms = min_u64(s->cfg.header_timeout_ms, s->cfg.idle_timeout_ms);

	ms = min_u64(ms, s->cfg.send_timeout_ms) / 4;
	return max_u64(10, min_u64(ms, ACCEPT_PAUSE));
}

static void listener_close(struct http_listener *l);

static void close_listeners(struct http_server *s)
{
	while (!list_empty(&s->listeners))
		listener_close(
			list_first(&s->listeners, struct http_listener, node));
}

static void on_sweep(uv_timer_t *h)
{
	struct http_server *s = h->data;
	uint64_t now = uv_now(s->uv);

	http_server_enter(s);
	resume_accepting(s);
	if (s->stopping && now >= s->cut_ms)
		close_listeners(s);
	list_for_each_safe (it, &s->conns) {
		struct conn *c = list_entry(it, struct conn, node);

		/* Without a length only a reset tells that bytes are missing.
		 */
		if (s->stopping && now >= s->cut_ms)
			conn_close(c, c->rq.until_close);
		else if (c->deadline_ms && now >= c->deadline_ms)
			conn_timeout(c);
	}
	if (list_empty(&s->conns))
		(void)uv_timer_stop(&s->sweep);
	http_server_leave(s);
}

static void start_sweep(struct http_server *s)
{
	uint64_t ms = sweep_ms(s);

	if (!uv_is_active((uv_handle_t *)&s->sweep))
		(void)uv_timer_start(&s->sweep, on_sweep, ms, ms);
}

/* ---- Accepting ---- */

static void pause_accepting(struct http_listener *l, int r)
{
	struct http_server *s = l->server;

	l->paused = true;
	(void)uv_poll_stop(&l->poll);
	/* The sweep resumes accepting, so it runs also without connections. */
	(void)uv_timer_start(&s->sweep, on_sweep, ACCEPT_PAUSE, ACCEPT_PAUSE);
	if (log_limit_ok(&s->emfile_log, 1, 60000))
		log_error("cannot accept connections", LE(r),
			  LU("connections", s->n_conns));
}

/* False if there is no further connection to accept now. */
static bool accept_one(struct http_listener *l)
{
	struct http_server *s = l->server;
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);
	int fd, r;

	fd = accept4(l->fd, (struct sockaddr *)&addr, &len,
		     SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		r = -errno;
		if (r == -EMFILE || r == -ENFILE || r == -ENOBUFS ||
		    r == -ENOMEM)
			pause_accepting(l, r);
		/* Other errors concern only that connection (accept(2)). */
		return r != -EAGAIN && !l->paused;
	}
	r = conn_new(l, fd, &addr);
	if (r < 0 && r != -EAGAIN && log_limit_ok(&s->emfile_log, 1, 60000))
		log_error("cannot set up a connection", LE(r));
	if (r == 0)
		start_sweep(s);
	return true;
}

static void on_acceptable(uv_poll_t *h, int status, int events)
{
	struct http_listener *l = h->data;
	struct http_server *s = l->server;

	(void)status; /* accept4() reports it */
	(void)events;
	http_server_enter(s);
	for (int i = 0; i < ACCEPT_BATCH && accept_one(l); i++)
		;
	http_server_leave(s);
}

static void resume_accepting(struct http_server *s)
{
	list_for_each (it, &s->listeners) {
		struct http_listener *l =
			list_entry(it, struct http_listener, node);

		if (l->paused && !s->stopping) {
			l->paused = false;
			(void)uv_poll_start(&l->poll, UV_READABLE,
					    on_acceptable);
		}
	}
}

/* ---- Listeners ---- */

static void on_listener_closed(uv_handle_t *h)
{
	struct http_listener *l = h->data;
	struct http_server *s = l->server;

	free(l->unix_path);
	free(l);
	s->open_handles--;
	http_server_check_stopped(s);
}

static void listener_close(struct http_listener *l)
{
	struct stat st;

	list_del(&l->node);
	uv_close((uv_handle_t *)&l->poll, on_listener_closed);
	/* Not the socket of a process that replaced ours. */
	if (l->unix_path && lstat(l->unix_path, &st) == 0 &&
	    st.st_dev == l->unix_dev && st.st_ino == l->unix_ino)
		(void)unlink(l->unix_path);
	(void)close(l->fd);
}

/* Adds a listener on the bound fd; owns fd on success only. */
static int listener_new(struct http_server *s, int fd, http_handler *handler,
			void *arg, const char *unix_path)
{
	CLEANUP(freep) struct http_listener *l = calloc(1, sizeof(*l));
	CLEANUP(freep) char *path = unix_path ? strdup(unix_path) : NULL;
	struct stat st = {0};
	int r;

	if (!l || (unix_path && !path))
		return -ENOMEM;
	if (path && lstat(path, &st) < 0)
		return -errno;
	if (listen(fd, SOMAXCONN) < 0)
		return -errno;
	r = uv_poll_init_socket(s->uv, &l->poll, fd);
	if (r < 0)
		return r;
	l->poll.data = l;
	l->server = s;
	l->fd = fd;
	l->handler = handler;
	l->arg = arg;
	l->unix_path = steal_ptr(&path);
	l->unix_dev = st.st_dev;
	l->unix_ino = st.st_ino;
	list_add_tail(&s->listeners, &l->node);
	s->open_handles++;
	(void)uv_poll_start(&l->poll, UV_READABLE, on_acceptable);
	(void)steal_ptr(&l);
	return 0;
}

/* Removes a socket file that no process listens on: a dead process left it. */
static int remove_stale(const struct sockaddr_un *sun)
{
	CLEANUP(closep) int fd = -1;
	struct stat st;

	if (lstat(sun->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0 ||
	    errno != ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(sun->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int listen_unix(struct http_server *s, const char *path,
		       http_handler *handler, void *arg)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	CLEANUP(closep) int fd = -1;
	int r;

	if (!*path || strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path));
	r = remove_stale(&sun);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* On Linux the file gets the socket's own mode. So there is no moment
	 * at which others could connect, and the umask, which all threads
	 * share, does not change. */
	if (fchmod(fd, 0600) < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&sun, sizeof(sun)) < 0)
		return -errno;
	r = listener_new(s, fd, handler, arg, path);
	if (r < 0) {
		(void)unlink(path);
		return r;
	}
	(void)steal_fd(&fd);
	return 0;
}

static uint16_t *port_of(struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET6
		       ? &((struct sockaddr_in6 *)(void *)a)->sin6_port
		       : &((struct sockaddr_in *)(void *)a)->sin_port;
}

/* *port: 0 lets the kernel choose; set to the port in use. */
static int listen_tcp(struct http_server *s, struct sockaddr_storage *addr,
		      socklen_t len, bool v6only, uint16_t *port,
		      http_handler *handler, void *arg)
{
	CLEANUP(closep) int fd = -1;
	int on = 1, v6 = v6only, r;

	fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
		    0);
	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (addr->ss_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6,
				 sizeof(v6));
	*port_of(addr) = htons(*port);
	if (bind(fd, (struct sockaddr *)addr, len) < 0)
		return -errno;
	if (getsockname(fd, (struct sockaddr *)addr, &len) < 0)
		return -errno;
	r = listener_new(s, fd, handler, arg, NULL);
	if (r < 0)
		return r;
	*port = ntohs(*port_of(addr));
	(void)steal_fd(&fd);
	return 0;
}

/* ":port": one socket for IPv6 and IPv4, or for IPv4 alone if the kernel has no
 * IPv6. */
static int listen_any(struct http_server *s, uint16_t *port,
		      http_handler *handler, void *arg)
{
	struct sockaddr_storage a = {.ss_family = AF_INET6};
	int r;

	r = listen_tcp(s, &a, sizeof(struct sockaddr_in6), false, port, handler,
		       arg);
	if (r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL)
		return r;
	a = (struct sockaddr_storage){.ss_family = AF_INET};
	return listen_tcp(s, &a, sizeof(struct sockaddr_in), false, port,
			  handler, arg);
}

/* Listens on all addresses of a name ("localhost" may be 127.0.0.1 and ::1),
 * except for those that the machine lacks. */
static int listen_host(struct http_server *s, const char *host, uint16_t *port,
		       http_handler *handler, void *arg)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_PASSIVE};
	struct addrinfo *list = NULL;
	int n = 0, missing = -EADDRNOTAVAIL, r = 0;

	if (getaddrinfo(host, NULL, &hints, &list) != 0)
		return -EADDRNOTAVAIL;
	for (struct addrinfo *ai = list; ai && n < MAX_ADDRESSES;
	     ai = ai->ai_next) {
		struct sockaddr_storage a = {0};

		memcpy(&a, ai->ai_addr, ai->ai_addrlen);
		r = listen_tcp(s, &a, ai->ai_addrlen, true, port, handler, arg);
		if (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT) {
			missing = r;
			r = 0;
			continue;
		}
		if (r < 0)
			break;
		n++;
	}
	freeaddrinfo(list);
	if (r < 0)
		return r;
	return n > 0 ? 0 : missing;
}

/* Splits "host:port", "[v6]:port" or ":port". -EINVAL. */
static int split_address(const char *addr, char *host, size_t host_size,
			 uint16_t *ret_port)
{
	const char *colon = strrchr(addr, ':'), *begin = addr, *end = colon;
	uint64_t port = 0;
	size_t digits;

	if (!colon)
		return -EINVAL;
	digits = strspn(colon + 1, "0123456789");
	if (digits == 0 || digits > 5 || colon[1 + digits])
		return -EINVAL;
	port = strtoull(colon + 1, NULL, 10);
	if (port > UINT16_MAX)
		return -EINVAL;
	if (*begin == '[') {
		begin++;
		end--;
		if (end <= begin || *end != ']')
			return -EINVAL;
	} else if (memchr(begin, ':', (size_t)(end - begin))) {
		return -EINVAL;
	}
	if ((size_t)(end - begin) >= host_size)
		return -EINVAL;
	memcpy(host, begin, (size_t)(end - begin));
	host[end - begin] = '\0';
	*ret_port = (uint16_t)port;
	return 0;
}

int http_listen(struct http_server *s, const char *addr, struct tls_server *tls,
		http_handler *handler, void *arg, uint16_t *ret_port,
		struct error *err)
{
	struct list *last = s->listeners.prev;
	struct places *places;
	uint16_t port = 0;
	char host[256];
	int r;

	if (s->stopping)
		return set_error(err, -ECANCELED, "%s: the server is stopping",
				 addr);
	r = places_new(s->cfg.max_connections, &places);
	if (r < 0)
		return set_error(err, r, "%s: %s", addr, strerror(-r));
	list_add_tail(&s->places, &places->owned);
	if (strncmp(addr, "unix:", 5) == 0) {
		r = listen_unix(s, addr + 5, handler, arg);
	} else {
		r = split_address(addr, host, sizeof(host), &port);
		if (r < 0)
			return set_error(err, r,
					 "%s: not HOST:PORT, :PORT or "
					 "unix:PATH",
					 addr);
		r = *host ? listen_host(s, host, &port, handler, arg)
			  : listen_any(s, &port, handler, arg);
	}
	if (r < 0) {
		/* All addresses of a name, or none. */
		while (s->listeners.prev != last)
			listener_close(list_entry(s->listeners.prev,
						  struct http_listener, node));
		return set_error(err, r, "cannot listen on %s: %s", addr,
				 strerror(-r));
	}
	for (struct list *it = last->next; it != &s->listeners; it = it->next) {
		struct http_listener *l =
			list_entry(it, struct http_listener, node);

		l->tls = tls;
		l->places = places;
	}
	if (tls)
		conn_tls_metrics();
	if (ret_port)
		*ret_port = port;
	return 0;
}

/* ---- The server ---- */

static uint32_t or_default(uint32_t value, uint32_t def)
{
	return value ? value : def;
}

int http_server_new(const struct http_server_config *cfg,
		    struct http_server **ret)
{
	CLEANUP(freep) struct http_server *s = calloc(1, sizeof(*s));
	struct http_server_config *c;

	if (!s)
		return -ENOMEM;
	s->name = strdup(cfg->name ? cfg->name : "peerd");
	if (!s->name)
		return -ENOMEM;
	/* sendfile(2) has no MSG_NOSIGNAL. */
	(void)signal(SIGPIPE, SIG_IGN);
	s->cfg = *cfg;
	c = &s->cfg;
	c->name = s->name;
	c->max_connections = or_default(
		c->max_connections, descriptors_share(DESCRIPTORS_LISTENER));
	c->max_header_bytes = or_default(c->max_header_bytes, 32U << 10);
	c->max_target_bytes = or_default(c->max_target_bytes, 8U << 10);
	c->max_body_bytes = or_default(c->max_body_bytes, 1U << 20);
	c->header_timeout_ms = or_default(c->header_timeout_ms, 10000);
	c->idle_timeout_ms = or_default(c->idle_timeout_ms, 60000);
	c->send_timeout_ms = or_default(c->send_timeout_ms, 60000);
	if (c->max_header_bytes > HTTP_MAX_HEAD)
		c->max_header_bytes = HTTP_MAX_HEAD;
	list_init(&s->listeners);
	list_init(&s->conns);
	list_init(&s->later);
	list_init(&s->places);
	s->uv = loop_uv(c->loop);
	(void)uv_idle_init(s->uv, &s->turn);
	(void)uv_timer_init(s->uv, &s->sweep);
	s->turn.data = s->sweep.data = s;
	s->open_handles = 2;
	*ret = steal_ptr(&s);
	return 0;
}

static void on_handle_closed(uv_handle_t *h)
{
	struct http_server *s = h->data;

	if (--s->open_handles > 0)
		return;
	s->stopped = true;
	if (s->done)
		s->done(s->done_arg);
}

/* Connections that wait in the backlog are served: closing the listener would
 * reset them. */
static void drained(struct http_server *s)
{
	list_for_each (it, &s->listeners) {
		struct http_listener *l =
			list_entry(it, struct http_listener, node);

		while (list_empty(&s->conns) && accept_one(l))
			;
	}
	if (list_empty(&s->conns))
		close_listeners(s);
}

void http_server_check_stopped(struct http_server *s)
{
	if (s->stopping && s->depth == 0 && list_empty(&s->conns))
		drained(s);
	/* Two handles are the server's own; the others are listeners. */
	if (!s->stopping || s->closing || s->depth > 0 ||
	    !list_empty(&s->conns) || s->open_handles > 2)
		return;
	s->closing = true;
	uv_close((uv_handle_t *)&s->turn, on_handle_closed);
	uv_close((uv_handle_t *)&s->sweep, on_handle_closed);
}

void http_server_stop(struct http_server *s, uint32_t grace_ms,
		      void (*done)(void *arg), void *arg)
{
	uint64_t ms = max_u64(1, min_u64(sweep_ms(s), grace_ms));

	BUG_ON(s->stopping);
	http_server_enter(s);
	s->stopping = true;
	s->done = done;
	s->done_arg = arg;
	uv_update_time(s->uv);
	s->cut_ms = uv_now(s->uv) + grace_ms;
	if (grace_ms == 0)
		close_listeners(s);
	list_for_each_safe (it, &s->conns) {
		struct conn *c = list_entry(it, struct conn, node);

		if (grace_ms == 0)
			conn_close(c, c->rq.until_close);
		else if (c->state == CONN_HEAD && c->in_len == 0)
			conn_close(c, false);
	}
	(void)uv_timer_start(&s->sweep, on_sweep, ms, ms);
	http_server_leave(s);
}

void http_server_free(struct http_server **sp)
{
	struct http_server *s = *sp;

	if (!s)
		return;
	BUG_ON(!s->stopped);
	while (!list_empty(&s->places)) {
		struct places *p = list_first(&s->places, struct places, owned);

		places_free(&p);
	}
	free(s->name);
	free(s);
	*sp = NULL;
}
