/* A small gRPC client for a daemon on this machine: calls with one request
 * message and one or more reply messages, over a Unix socket.
 *
 * Source: github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md. Loop thread. A callback
 * never comes from inside the call that started it. */
#ifndef CONTAINERD_GRPC_H
#define CONTAINERD_GRPC_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "http/client.h"

/* ---- Splits a stream of bytes into messages ---- */

#define GRPC_PREFIX 5

struct grpc_reader {
	struct buf msg; /* its max is the longest message, in bytes */
	uint8_t prefix[GRPC_PREFIX];
	uint32_t have; /* bytes of the prefix */
};

#define GRPC_READER_INIT(max_bytes)                                            \
	((struct grpc_reader){.msg = BUF_INIT(max_bytes)})

/* Adds bytes and calls message() for each message that is now complete. A
 * negative result of message() is returned. -EMSGSIZE: a message is longer than
 * the limit. -EBADMSG: a message is compressed; the request does not offer
 * compression. -ENOMEM. After an error the reader takes no more bytes. */
int grpc_read(struct grpc_reader *g, const void *bytes, size_t len,
	      int (*message)(void *arg, const void *msg, size_t len),
	      void *arg);
/* True if the bytes so far end in the middle of a message. */
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
	uint32_t timeout_ms; /* of the whole call; 0: none, for a stream that
				may be silent for long */
};

struct grpc_callbacks {
	/* A negative errno ends the call with that error. */
	int (*message)(void *arg, const void *msg, size_t len);
	/* Called exactly once, unless the call was abandoned. 0: the status was
	 * OK. -EACCES, -ENOENT, -EOPNOTSUPP, -EHOSTUNREACH: the status that
	 * matches; -EIO: any other status; -EPROTO: the reply is not gRPC or
	 * was cut short; else as http_callbacks.done. why is borrowed for the
	 * call. */
	void (*done)(void *arg, int r, const char *why);
};

/* Starts a call. On 0 *ret is valid until done() is called; the caller sets its
 * copy to NULL there. -EINVAL, -ENOMEM: done() will not be called. */
int grpc_start(struct http_client *c, const struct grpc_request *rq,
	       const struct grpc_callbacks *cb, void *arg,
	       struct grpc_call **ret);
/* Cancels the call; no callback comes afterwards. *call may be NULL, and
 * becomes NULL. */
void grpc_abandon(struct grpc_call **call);

#endif
