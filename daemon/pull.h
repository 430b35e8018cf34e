/* Fetches everything that a reference names: a blob, or a manifest with its
 * config and layers (of an index: those of this machine's platform). Loop
 * thread. */
#ifndef DAEMON_PULL_H
#define DAEMON_PULL_H

#include "daemon/daemon-private.h"

struct pull;

struct pull_progress {
	uint32_t blobs, blobs_done;
	uint64_t bytes, bytes_done; /* of all blobs known so far */
	uint64_t bytes_before;	    /* that were cached at the start */
};

struct pull_callbacks {
	void (*progress)(void *arg, const struct pull_progress *p);
	/* Exactly once; the pull is freed after it. why: for a person. */
	void (*done)(void *arg, int r, const char *why,
		     const struct pull_progress *p);
};

/* ref: "[host/]name[:tag][@digest]". -EINVAL with *err: malformed. A digest
 * that is no manifest of the repository is pulled as a blob. */
int pull_start(struct daemon *d, const char *ref,
	       const struct pull_callbacks *cb, void *arg, struct pull **ret,
	       struct error *err);
/* done(-ECANCELED) follows in a later turn. */
void pull_cancel(struct pull *p);

#endif
