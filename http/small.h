/* An HTTP request whose answer's body is small: it is kept, up to a limit.
 *
 * Everything runs on the loop thread. */
#ifndef HTTP_SMALL_H
#define HTTP_SMALL_H

#include "base/buf.h"
#include "http/client.h"

struct http_small;

/* Valid until done() returns. */
struct http_answer {
	int r;			 /* as http_callbacks.done() has it, or: */
				 /* -EMSGSIZE the body is too long, -ENOMEM */
	const char *why;	 /* a sentence for a negative r */
	int status;		 /* 0: there was no answer */
	int64_t content_length;	 /* as the head says; -1: it does not */
	struct buf body;	 /* freed after done(), unless stolen */
	struct http_exchange *x; /* for http_header() and the like */
};

/* Embedded in the caller's object, all zero at first. Must stay alive until
 * done() is called, and may be started again from there, or freed. */
struct http_small {
	struct http_exchange *x; /* NULL: none is under way */
	struct http_answer answer;
	bool cut;
	void (*done)(struct http_small *s, struct http_answer *a);
};

/* What http_start() does. done() is called exactly once, never from inside this
 * call, and not at all if it fails. A body that is longer than max_body ends
 * the request with -EMSGSIZE; with `cut` its beginning is kept. */
int http_small_start(struct http_small *s, struct http_client *c,
		     const struct http_request *rq, size_t max_body, bool cut,
		     void (*done)(struct http_small *s, struct http_answer *a));

/* done() follows in a later turn of the loop, with -ECANCELED. Harmless when
 * none is under way. */
void http_small_cancel(struct http_small *s);

#endif
