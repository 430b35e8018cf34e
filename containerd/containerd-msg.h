/* Encodes and decodes the messages of containerd's API. The bytes come from a
 * socket and are not trusted; every size is checked before memory is allocated
 * for it. No I/O. Any thread. Source: github.com/containerd/containerd,
 * api/services. */
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
	uint64_t updated_s; /* since 1970; 0 if the message has no time */
};

/* The next three return 0, -EBADMSG if the bytes are not such a message, or
 * -EMSGSIZE if there are too many bytes or decoding would take too much memory.
 * The callback borrows its strings until it returns. */

/* Decodes a ListImagesResponse. Calls each() for the images that have a name of
 * at most CONTAINERD_NAME_MAX bytes and a sha256 digest. */
int containerd_msg_images(const void *bytes, size_t len,
			  void (*each)(void *arg,
				       const struct containerd_image *i),
			  void *arg);
/* Decodes a ListNamespacesResponse. Calls each() for the valid names. */
int containerd_msg_namespaces(const void *bytes, size_t len,
			      void (*each)(void *arg, const char *name),
			      void *arg);
/* Decodes an event's Envelope. ns is empty if the event's namespace is not
 * valid. */
int containerd_msg_event(const void *bytes, size_t len,
			 char ns[CONTAINERD_NS_MAX + 1], bool *ret_of_image);
/* Appends an encoded SubscribeRequest to out. -ENOMEM, -EMSGSIZE. */
int containerd_msg_subscribe(const char *filter, struct buf *out);

#endif
