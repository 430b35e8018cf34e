/* An upstream server for the registry tests. It answers as the test says,
 * records every request, and keeps its connections open between requests. */
#ifndef TESTS_REGISTRY_LIAR_H
#define TESTS_REGISTRY_LIAR_H

#include <inttypes.h>
#include <stdarg.h>

#include "tests/unit/registry-rig.h"
#include "tests/unit/scripted-server.h"

#define LIAR_MAX_REQUESTS 512
#define CONTENT_SIZE	  1000

struct liar;
/* Called on the connection's thread with no lock held. False closes the
 * connection. */
typedef bool liar_answer(struct liar *l, int fd, const char *req, int nth);

struct liar {
	struct server server;
	const char *host; /* "127.0.0.1:PORT" */
	liar_answer *answer;
	pthread_mutex_t mu;
	int n;			       /* guarded by: mu */
	char *reqs[LIAR_MAX_REQUESTS]; /* guarded by: mu; head and body */
	/* For answers; the test sets them between requests, or atomically. */
	int state;
	const void *data;
	struct liar *other;
};

static char content[CONTENT_SIZE];

static inline void content_init(void)
{
	uint32_t x = 7;

	for (size_t i = 0; i < sizeof(content); i++) {
		x = x * 1664525 + 1013904223;
		content[i] = (char)(x >> 24);
	}
}

static inline void liar_script(struct server *s, int fd, int nth)
{
	struct liar *l = container_of(s, struct liar, server);
	char *req = malloc(65536);
	bool more = true;

	(void)nth;
	while (more && server_recv(fd, req, 65536)) {
		int n;

		(void)pthread_mutex_lock(&l->mu);
		n = l->n++;
		if (n >= LIAR_MAX_REQUESTS)
			BAIL("too many requests");
		l->reqs[n] = strdup(req);
		(void)pthread_mutex_unlock(&l->mu);
		more = l->answer(l, fd, req, n);
	}
	free(req);
}

static inline void liar_start(struct liar *l, liar_answer *answer)
{
	*l = (struct liar){.answer = answer};
	(void)pthread_mutex_init(&l->mu, NULL);
	server_start(&l->server, liar_script);
	l->host = l->server.url + strlen("http://");
}

/* Free the client before. */
static inline void liar_stop(struct liar *l)
{
	server_stop(&l->server);
	for (int i = 0; i < l->n; i++)
		free(l->reqs[i]);
	(void)pthread_mutex_destroy(&l->mu);
}

/* Counts the requests that began with this text; all requests for "". */
static inline int liar_count(struct liar *l, const char *prefix)
{
	int n = 0;

	(void)pthread_mutex_lock(&l->mu);
	for (int i = 0; i < l->n; i++)
		n += strncmp(l->reqs[i], prefix, strlen(prefix)) == 0;
	(void)pthread_mutex_unlock(&l->mu);
	return n;
}

/* Counts the requests that contained this text. */
static inline int liar_saw(struct liar *l, const char *text)
{
	int n = 0;

	(void)pthread_mutex_lock(&l->mu);
	for (int i = 0; i < l->n; i++)
		n += strcasestr(l->reqs[i], text) != NULL;
	(void)pthread_mutex_unlock(&l->mu);
	return n;
}

static inline bool has(const char *req, const char *text)
{
	return strcasestr(req, text) != NULL;
}

static inline bool is(const char *req, const char *prefix)
{
	return strncmp(req, prefix, strlen(prefix)) == 0;
}

/* Status line, headers (each with CRLF), Content-Length, body. */
static inline bool reply(int fd, const char *req, const char *status,
			 const char *headers, const void *body, size_t len)
{
	char head[8192];
	int n = snprintf(head, sizeof(head),
			 "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n", status,
			 headers, len);

	return server_send(fd, head, (size_t)n) &&
	       (is(req, "HEAD ") || server_send(fd, body, len));
}

static inline bool reply_text(int fd, const char *req, const char *status,
			      const char *headers, const char *body)
{
	return reply(fd, req, status, headers, body, strlen(body));
}

static inline bool redirect(int fd, const char *req, const char *fmt, ...)
	PRINTF(3, 4);
static inline bool redirect(int fd, const char *req, const char *fmt, ...)
{
	char to[4096], header[4200];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(to, sizeof(to), fmt, ap);
	va_end(ap);
	(void)snprintf(header, sizeof(header), "Location: %s\r\n", to);
	return reply_text(fd, req, "307 Temporary Redirect", header, "there");
}

/* Answers correctly with the requested range of `content`. */
static inline bool reply_range_with(int fd, const char *req,
				    const char *headers)
{
	const char *v = strcasestr(req, "\r\nRange: bytes=");
	unsigned long first, last;
	char all[1024], *end;

	if (!v)
		return reply(fd, req, "200 OK", headers, content, CONTENT_SIZE);
	first = strtoul(v + 15, &end, 10);
	last = strtoul(end + 1, NULL, 10);
	if (last >= CONTENT_SIZE || first > last)
		return reply_text(fd, req, "416 Range Not Satisfiable", "", "");
	(void)snprintf(all, sizeof(all),
		       "%sContent-Range: bytes %lu-%lu/%d\r\n", headers, first,
		       last, CONTENT_SIZE);
	return reply(fd, req, "206 Partial Content", all, content + first,
		     last - first + 1);
}

static inline bool reply_range(int fd, const char *req)
{
	return reply_range_with(fd, req, "");
}

/* The blob of `content`, with the origin registry://HOST/a/b. */
static inline struct blob *content_blob(struct reg_rig *g, const char *host)
{
	struct blob_key key = {.kind = BLOB_SHA256};
	struct blob *b = NULL;
	char origin[128];

	digest_of(content, CONTENT_SIZE, &key.id);
	if (store_create(g->store, &key, CONTENT_SIZE, &b) < 0)
		BAIL("store_create");
	if (host) {
		(void)snprintf(origin, sizeof(origin), "registry://%s/a/b",
			       host);
		EQ(blob_add_origin(g->store, b, origin), 0);
	}
	return b;
}

/* A config.json in the rig's directory; for rig_restart_registry(). */
static inline void rig_config(struct reg_rig *g, char *path, size_t size,
			      const char *host, const char *fields)
{
	char text[1024];

	(void)snprintf(text, sizeof(text), "{\"auths\":{\"%s\":{%s}}}", host,
		       fields);
	rig_write_file(g->dir, "docker.json", text);
	(void)snprintf(path, size, "%s/docker.json", g->dir);
	g->cfg.docker_config = path;
}

#endif
