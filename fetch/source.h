/* What a place to fetch chunks from implements: the registry does, peers do.
 * fetch/run.c calls it; daemon.c plugs it in, so that the floors above need not
 * know each other. Everything here runs on the loop thread. */
#ifndef FETCH_SOURCE_H
#define FETCH_SOURCE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

struct source;

/* A credential that somebody who reads has brought along, for one place where
 * the blob may be had (registry/client-auth.h). The engine and sources that it
 * is not meant for hand it on unseen: what it says is behind this. */
struct source_auth {
	struct digest id;  /* equal: the same credential, for the same place */
	uint64_t until_ms; /* requests that begin later go without it */
	unsigned int refs;
	void (*free)(struct source_auth *a);
};

static inline struct source_auth *source_auth_ref(struct source_auth *a)
{
	if (a)
		a->refs++;
	return a;
}

/* NULLs; NULL allowed. */
static inline void source_auth_unref(struct source_auth **pa)
{
	struct source_auth *a = *pa;

	*pa = NULL;
	if (a && --a->refs == 0)
		a->free(a);
}

/* NULL is the same as NULL. */
static inline bool source_auth_same(const struct source_auth *a,
				    const struct source_auth *b)
{
	return a == b || (a && b && digest_equal(&a->id, &b->id));
}

/* One range request, embedded in the caller's object. The caller fills the
 * first group and keeps the object alive until done() was called. */
struct source_request {
	struct blob *blob;
	uint64_t offset;
	uint64_t length;      /* > 0; within the blob */
	uint64_t deadline_ms; /* now_ms() at which to give up at the latest */
	bool background;      /* prefetch: nobody waits for it yet */
	bool as_owner;	      /* see fetch_read.as_owner */
	const char *origin;   /* NULL, or the one place to ask (see
				 blob_add_origin()) */
	struct source_auth *auth; /* NULL: none */

	/* The next bytes in order, not more than are left of the length. A
	 * source calls it only for bytes that a strictly checked reply
	 * carries: status 206 (200 only from offset 0 of a whole blob),
	 * Content-Range with this offset and the blob's total. Never from
	 * inside start() or cancel(). Returns false when memory is short
	 * right now: the source holds the bytes until resume(), and hands all
	 * of them over again then, in pieces of any size. */
	bool (*data)(struct source_request *rq, const void *bytes, size_t len);
	/* Exactly once, never from inside start(), resume() or cancel(). 0: all
	 * bytes were handed over. -ENOENT: does not have it; -EACCES: refused;
	 * -EKEYEXPIRED: because auth is no good, or not any more; -ESTALE:
	 * changed upstream; -EBUSY: too slow, the next source may do better;
	 * -EBADMSG: the reply was not the range that was asked for; -ETIMEDOUT,
	 * -ECONNRESET and other connection errors; -ECANCELED after cancel().
	 * `why` is a sentence for the log, without secrets, valid during the
	 * call. Bytes handed over before an error may be kept; before -EBADMSG,
	 * those of whole chunks. */
	void (*done)(struct source_request *rq, int r, const char *why);

	/* For the source. */
	void *source_data;
	uint16_t from; /* set by the source before the first data() call */
};

/* When several fail, the error with the highest rank is reported: a refusal or
 * a "no" is only the answer if all agree on it. 0 has the lowest. */
static inline int source_error_rank(int r)
{
	switch (r) {
	case 0:
		return 0;
	case -ENOENT:
		return 1;
	case -EACCES:
	case -EKEYEXPIRED:
		return 2;
	case -ESTALE:
		return 3;
	default:
		return 4;
	}
}

struct source_ops {
	const char *name; /* "upstream", "peers"; in logs and metrics */
	/* How many chunks, from this one on and at most max, belong in one
	 * request. 0: this source wants no part in it, now; the next one is
	 * asked. NULL: any number. */
	uint32_t (*extent)(struct source *s, struct blob *b, uint32_t chunk,
			   uint32_t max, bool as_owner);
	/* 0: done() will come. A negative errno (-ENOENT: this source has no
	 * idea about the blob): it will not, and the next source is asked. */
	int (*start)(struct source *s, struct source_request *rq);
	/* Somebody waits for it now: rq->background is false, rq->as_owner may
	 * have become true. May be NULL. */
	void (*hurry)(struct source *s, struct source_request *rq);
	/* After data() returned false. The bytes come again, from inside this
	 * call or later. */
	void (*resume)(struct source *s, struct source_request *rq);
	/* Ends it early; called once at most. No data() any more, and
	 * done(-ECANCELED) comes later. */
	void (*cancel)(struct source *s, struct source_request *rq);
};

struct source {
	const struct source_ops *ops;
	/* Background runs at once; 0 = fetch_config.workers. May be changed at
	 * any time. */
	uint32_t max_background;
	uint32_t background_runs; /* the engine's */
};

#endif
