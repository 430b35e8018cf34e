/* containerd's messages, to and from bytes. Bytes come from a socket and may be
 * anything; sizes are bounded before memory is taken for them. No I/O. Any
 * thread. Source: github.com/containerd/containerd, api/services. */
#ifndef CONTAINERD_CONTAINERD_MSG_H
#define CONTAINERD_CONTAINERD_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/digest.h"

#define CONTAINERD_MSG_MAX ((size_t)16 << 20)
/* containerd: identifiers have at most 76 characters. */
#define CONTAINERD_NS_MAX   76
#define CONTAINERD_NAME_MAX 1024

struct containerd_image {
	const char *name; /* "docker.io/library/alpine:3.19", or anything */
	struct digest digest;
	uint64_t updated_s; /* since 1970; 0 if it does not say */
};

/* Each of these: -EBADMSG when the bytes are no such message, -EMSGSIZE when
 * they are too many, or would take too much memory. Strings are borrowed during
 * the callback. */

/* Calls each() for the images that have a name of at most CONTAINERD_NAME_MAX
 * bytes and a sha256 digest. */
int containerd_msg_images(const void *bytes, size_t len,
			  void (*each)(void *arg,
				       const struct containerd_image *i),
			  void *arg);
/* Calls each() for the names that are valid. */
int containerd_msg_namespaces(const void *bytes, size_t len,
			      void (*each)(void *arg, const char *name),
			      void *arg);
/* ns is empty if the event's is not valid. */
int containerd_msg_event(const void *bytes, size_t len,
			 char ns[CONTAINERD_NS_MAX + 1], bool *ret_of_image);
/* A SubscribeRequest. -ENOMEM, -EMSGSIZE. */
int containerd_msg_subscribe(const char *filter, struct buf *out);

#endif
