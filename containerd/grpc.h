/* As much of gRPC as it takes to ask a daemon on this machine: calls with one
 * request message, and one or many in reply, over a Unix socket.
 *
 * Source: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md. Everything here runs on
 * the loop thread; callbacks never come from inside the call that started
 * them. */
#ifndef CONTAINERD_GRPC_H
#define CONTAINERD_GRPC_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "http/client.h"

/* ---- Messages out of a stream of bytes ---- */

#define GRPC_PREFIX 5

struct grpc_reader {
	struct buf msg; /* max is the limit of a message */
	uint8_t prefix[GRPC_PREFIX];
	uint32_t have; /* of the prefix */
};

#define GRPC_READER_INIT(max_bytes)                                            \
	((struct grpc_reader){.msg = BUF_INIT(max_bytes)})

/* Calls message() for each one that is complete now; what it returns if
 * negative is returned, and nothing more may be fed. -EMSGSIZE: a message is
 * longer than the limit. -EBADMSG: it is compressed, which was not asked for.
 * -ENOMEM. */
int grpc_read(struct grpc_reader *g, const void *bytes, size_t len,
	      int (*message)(void *arg, const void *msg, size_t len),
	      void *arg);
/* True when the bytes so far end in the middle of a message. */
bool grpc_reader_within(const struct grpc_reader *g);
void grpc_reader_release(struct grpc_reader *g);

/* ---- Calls ---- */

struct grpc_call;

struct grpc_request { /* all copied */
	const char *sock;
	const char *method; /* "/containerd.services.images.v1.Images/List" */
	const struct http_header *metadata;
	size_t nmetadata;
	const void *msg;
	size_t len;
	size_t max_reply;    /* bytes of one message */
	uint32_t timeout_ms; /* 0: a stream that may be silent for long */
};

struct grpc_callbacks {
	/* A negative errno ends the call with it. */
	int (*message)(void *arg, const void *msg, size_t len);
	/* Exactly once, unless it was abandoned. 0: the status was OK.
	 * -EACCES, -ENOENT, -EOPNOTSUPP, -EHOSTUNREACH, -EIO for other
	 * statuses; -EPROTO: it does not speak gRPC; else as
	 * http_callbacks.done. */
	void (*done)(void *arg, int r, const char *why);
};

/* -EINVAL, -ENOMEM: done() will not be called. */
int grpc_start(struct http_client *c, const struct grpc_request *rq,
	       const struct grpc_callbacks *cb, void *arg,
	       struct grpc_call **ret);
/* No callback comes any more. NULLs. NULL allowed. */
void grpc_abandon(struct grpc_call **call);

#endif
