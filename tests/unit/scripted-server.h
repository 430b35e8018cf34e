/* A server for client tests that runs scripts: for each connection it calls a
 * function of the test on a new thread, with the connection's number, and
 * closes the connection when the function returns. */
#ifndef TESTS_SCRIPTED_SERVER_H
#define TESTS_SCRIPTED_SERVER_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/tap.h"

#define SERVER_MAX_CONNECTIONS 64

struct server;

typedef void server_script(struct server *s, int fd, int nth);

struct server_connection {
	struct server *server;
	pthread_t thread;
	int fd, nth;
};

struct server {
	server_script *script;
	int fd;
	char url[64]; /* "http://127.0.0.1:PORT" */
	pthread_t thread;
	pthread_mutex_t mu;
	int connections;     /* guarded by: mu */
	char request[65536]; /* the last request; guarded by: mu */
	struct server_connection conn[SERVER_MAX_CONNECTIONS];
};

static inline void *server_connection_main(void *arg)
{
	struct server_connection *c = arg;

	c->server->script(c->server, c->fd, c->nth);
	(void)close(c->fd);
	return NULL;
}

static inline void *server_main(void *arg)
{
	struct server *s = arg;
	int n = 0;

	for (;;) {
		struct server_connection *c = &s->conn[n];
		int fd = accept(s->fd, NULL, NULL);

		if (fd < 0)
			break; /* server_stop() */
		if (n == SERVER_MAX_CONNECTIONS)
			BAIL("too many connections");
		*c = (struct server_connection){
			.server = s, .fd = fd, .nth = n};
		(void)pthread_mutex_lock(&s->mu);
		s->connections = ++n;
		(void)pthread_mutex_unlock(&s->mu);
		if (pthread_create(&c->thread, NULL, server_connection_main,
				   c) != 0)
			BAIL("pthread_create");
	}
	for (int i = 0; i < n; i++)
		(void)pthread_join(s->conn[i].thread, NULL);
	return NULL;
}

static inline void server_start_at(struct server *s, server_script *script,
				   const struct sockaddr *sa, socklen_t len)
{
	s->script = script;
	s->connections = 0;
	s->request[0] = '\0';
	(void)pthread_mutex_init(&s->mu, NULL);
	s->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->fd < 0 || bind(s->fd, sa, len) < 0 || listen(s->fd, 64) < 0 ||
	    pthread_create(&s->thread, NULL, server_main, s) != 0)
		BAIL("cannot start the server");
}

static inline void server_start(struct server *s, server_script *script)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(sin);

	server_start_at(s, script, (struct sockaddr *)&sin, len);
	if (getsockname(s->fd, (struct sockaddr *)&sin, &len) < 0)
		BAIL("getsockname");
	(void)snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%d",
		       ntohs(sin.sin_port));
}

static inline void server_start_unix(struct server *s, server_script *script,
				     const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	server_start_at(s, script, (struct sockaddr *)&sun, sizeof(sun));
	(void)snprintf(s->url, sizeof(s->url), "http://localhost");
}

/* Waits for the connections to end: the client must have closed them, or the
 * scripts must have ended. */
static inline void server_stop(struct server *s)
{
	(void)shutdown(s->fd, SHUT_RDWR);
	(void)pthread_join(s->thread, NULL);
	(void)close(s->fd);
	(void)pthread_mutex_destroy(&s->mu);
}

static inline int server_connections(struct server *s)
{
	int n;

	(void)pthread_mutex_lock(&s->mu);
	n = s->connections;
	(void)pthread_mutex_unlock(&s->mu);
	return n;
}

/* --- For scripts ---------------------------------------------------------- */

/* Reads a head and the body that its Content-Length announces. False at the end
 * of the connection. */
static inline bool server_recv(int fd, char *buf, size_t size)
{
	size_t len = 0, want = SIZE_MAX;

	while (len < want) {
		ssize_t n = recv(fd, buf + len, size - 1 - len, 0);
		const char *end, *cl;

		if (n <= 0)
			return false;
		len += (size_t)n;
		buf[len] = '\0';
		end = strstr(buf, "\r\n\r\n");
		cl = strcasestr(buf, "\r\nContent-Length:");
		if (end)
			want = (size_t)(end - buf) + 4 +
			       (cl && cl < end ? strtoul(cl + 17, NULL, 10)
					       : 0);
	}
	return true;
}

/* The same, into s->request. */
static inline bool server_read(struct server *s, int fd)
{
	char buf[sizeof(s->request)];

	if (!server_recv(fd, buf, sizeof(buf)))
		return false;
	(void)pthread_mutex_lock(&s->mu);
	memcpy(s->request, buf, strlen(buf) + 1);
	(void)pthread_mutex_unlock(&s->mu);
	return true;
}

/* False when the client is gone. */
static inline bool server_send(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static inline bool server_say(int fd, const char *text)
{
	return server_send(fd, text, strlen(text));
}

/* Sends nothing more until the client closes. */
static inline void server_stall(int fd)
{
	char c[256];

	while (recv(fd, c, sizeof(c), 0) > 0)
		;
}

/* Makes close() send a reset. */
static inline void server_will_reset(int fd)
{
	struct linger l = {.l_onoff = 1, .l_linger = 0};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

#endif
