/* An HTTP request whose answer has a small body, which is kept in memory up to
 * a limit.
 *
 * Everything runs on the loop thread. */
#ifndef HTTP_SMALL_H
#define HTTP_SMALL_H

#include "base/buf.h"
#include "http/client.h"

struct http_small;

/* Valid until done() returns. */
struct http_answer {
	/* As for http_callbacks.done(); also -EMSGSIZE: the body is too long,
	 * and -ENOMEM. */
	int r;
	const char *why;	  /* a sentence for a negative r */
	int status;		  /* 0: no answer came */
	int64_t content_length;	  /* -1: the head does not have it */
	char cert[TLS_NAME_SIZE]; /* see http_peer_cert() */
	struct buf body;	  /* freed after done(), unless taken out */
	struct http_exchange *x;  /* for http_header() and the like */
};

/* Embedded in the caller's object, zeroed at first. Must stay alive until
 * done() is called; done() may start it again or free it. */
struct http_small {
	struct http_exchange *x; /* NULL: no request is open */
	struct http_answer answer;
	bool cut;
	void (*done)(struct http_small *s, struct http_answer *a);
};

/* Starts the request with http_start() and returns its result. If that is 0,
 * done() is called exactly once, never from inside this call; otherwise it is
 * never called. A body longer than max_body bytes ends the request with
 * -EMSGSIZE; with `cut` the rest of the body is dropped instead. */
int http_small_start(struct http_small *s, struct http_client *c,
		     const struct http_request *rq, size_t max_body, bool cut,
		     void (*done)(struct http_small *s, struct http_answer *a));

/* Ends the request: done(-ECANCELED) comes in a later turn of the loop. Does
 * nothing if no request is open. */
void http_small_cancel(struct http_small *s);

#endif
