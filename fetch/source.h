/* The interface of a source: a kind of place that chunks come from. registry/
 * and p2p/ implement it, fetch/run.c and fetch/stream.c call it, daemon/ plugs
 * the two together, so that p2p/ and registry/ need not be known here.
 * Everything here runs on the loop thread. */
#ifndef FETCH_SOURCE_H
#define FETCH_SOURCE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

struct source;

/* A reader's credential for one place where the blob may be had
 * (registry/client-auth.h). The engine, and sources that the credential is not
 * meant for, pass it on and cannot look into it: its content lies behind this
 * struct. */
struct source_auth {
	struct digest id;  /* equal: the same credential, for the same place */
	uint64_t until_ms; /* requests that begin later do not carry it */
	unsigned int refs;
	void (*free)(struct source_auth *a);
};

static inline struct source_auth *source_auth_ref(struct source_auth *a)
{
	if (a)
		a->refs++;
	return a;
}

/* Drops a reference and sets *pa to NULL; NULL is allowed. */
static inline void source_auth_unref(struct source_auth **pa)
{
	struct source_auth *a = *pa;

	*pa = NULL;
	if (a && --a->refs == 0)
		a->free(a);
}

/* Two NULLs are the same. */
static inline bool source_auth_same(const struct source_auth *a,
				    const struct source_auth *b)
{
	return a == b || (a && b && digest_equal(&a->id, &b->id));
}

/* One range request, embedded in the caller's object. The caller fills the
 * first group of fields and keeps the object alive until done() is called. */
struct source_request {
	struct blob *blob;
	uint64_t offset;
	uint64_t length;	  /* > 0; within the blob */
	uint64_t deadline_ms;	  /* on now_ms(); latest time to give up */
	bool background;	  /* prefetch: no read waits for it yet */
	bool as_owner;		  /* see fetch_read.as_owner */
	const char *origin;	  /* NULL, or the only place to ask (see
				     blob_add_origin()) */
	struct source_auth *auth; /* NULL: none */

	/* Takes the next bytes in order, at most the rest of the length. A
	 * source calls it only for bytes of a strictly checked reply: status
	 * 206 (200 only from offset 0 of a whole blob), Content-Range with this
	 * offset and the blob's total size. Never called from inside start() or
	 * cancel(). Returns false when no memory is free, or when a stream is
	 * held back: the source keeps the bytes until resume(), and then hands
	 * all of them over again, in pieces of any size. */
	bool (*data)(struct source_request *rq, const void *bytes, size_t len);
	/* Ends the request. Called exactly once, never from inside start(),
	 * resume() or cancel(). 0: all bytes were handed over. -ENOENT: the
	 * source does not have the blob. -EACCES: refused. -EKEYEXPIRED:
	 * refused because auth is not valid, or not any more. -ESTALE: changed
	 * upstream. -EBUSY: too slow; the next source may be faster. -EBADMSG:
	 * the reply was not the requested range. -ERANGE: the place has the
	 * blob, but serves no ranges of it, and sweeps() is true from now on.
	 * -ETIMEDOUT, -ECONNRESET and
	 * other connection errors. -ECANCELED after cancel(). `why` is a
	 * sentence for the log, without secrets, valid during the call. The
	 * engine may keep bytes handed over before an error; before -EBADMSG,
	 * only those of whole chunks. */
	void (*done)(struct source_request *rq, int r, const char *why);

	/* The source's fields. */
	void *source_data;
	/* The source sets both before the first data() call: the sender (see
	 * CHUNK_FROM_UPSTREAM), and a non-zero number of its own for the place,
	 * which blame() gets back. */
	uint16_t from;
	uint64_t place;
};

/* When several sources fail, the reader gets the error with the highest rank: a
 * refusal or a "no" is the result only if all sources agree. 0 has the lowest
 * rank. */
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
	/* Returns how many chunks, from this chunk on and at most max, make one
	 * request. 0: the source does not take the chunk now; the next source
	 * is asked. NULL: any number. */
	uint32_t (*extent)(struct source *s, struct blob *b, uint32_t chunk,
			   uint32_t max, bool as_owner);
	/* Whether b can only be read from its beginning to its end. The engine
	 * then makes one request for the whole blob. NULL: never. */
	bool (*sweeps)(struct source *s, struct blob *b);
	/* Starts a request. 0: done() will come. A negative errno (-ENOENT: the
	 * source knows no place for the blob): done() will not come, and the
	 * next source is asked. */
	int (*start)(struct source *s, struct source_request *rq);
	/* A read waits for the request now: rq->background is false, and
	 * rq->as_owner may have become true. May be NULL. */
	void (*hurry)(struct source *s, struct source_request *rq);
	/* Continues after data() returned false. The bytes come again, from
	 * inside this call or later. */
	void (*resume)(struct source *s, struct source_request *rq);
	/* Bytes of b from this sender and place were wrong. The source asks
	 * other places first from now on. place 0: the place is not known. May
	 * be NULL. */
	void (*blame)(struct source *s, struct blob *b, uint16_t from,
		      uint64_t place);
	/* Ends the request early; called at most once. data() is not called any
	 * more; done(-ECANCELED) comes later. */
	void (*cancel)(struct source *s, struct source_request *rq);
};

struct source {
	const struct source_ops *ops;
	/* Limit for parallel background runs; 0 = fetch_config.workers. The
	 * source may change it at any time. */
	uint32_t max_background;
	uint32_t background_runs; /* written by the engine */
};

#endif
