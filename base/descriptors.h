/* The process's open files are one budget, dealt out here, so that nothing that
 * others can open without end (connections, blobs) takes what the rest needs.
 * Any thread. */
#ifndef BASE_DESCRIPTORS_H
#define BASE_DESCRIPTORS_H

#include <stdint.h>

enum descriptors_use {
	DESCRIPTORS_BLOBS,    /* the store's open files */
	DESCRIPTORS_LISTENER, /* connections to one address that we listen on */
	DESCRIPTORS_CLIENT,   /* connections of one HTTP client */
};

/* Raises RLIMIT_NOFILE as far as it goes. Before the first share. 0, or a
 * negative errno, after which the limit is what it was. */
int descriptors_raise(void);
/* How many of RLIMIT_NOFILE this use may have; at least 1. */
uint32_t descriptors_share(enum descriptors_use use);

#endif
