/* Fetches all blobs that a reference names: one blob, or the config and layers
 * of a manifest (of an index: those for this machine's platform). Loop thread.
 */
#ifndef DAEMON_PULL_H
#define DAEMON_PULL_H

#include "daemon/daemon-private.h"

struct pull;

struct pull_progress {
	uint32_t blobs, blobs_done;
	uint64_t bytes, bytes_done; /* of all blobs known so far */
	uint64_t bytes_before;	    /* cached before the pull */
};

struct pull_callbacks {
	void (*progress)(void *arg, const struct pull_progress *p);
	/* Called exactly once; the pull is freed when it returns. why is a text
	 * for people, borrowed for the call. */
	void (*done)(void *arg, int r, const char *why,
		     const struct pull_progress *p);
};

/* Starts a pull of ref, "[host/]name[:tag][@digest]". A digest that is not a
 * manifest of the repository is pulled as a blob. *ret is valid until done() is
 * called. -EINVAL with *err: malformed reference; -ENOMEM. */
int pull_start(struct daemon *d, const char *ref,
	       const struct pull_callbacks *cb, void *arg, struct pull **ret,
	       struct error *err);
/* Starts no more blobs. done() follows in a later turn, with -ECANCELED unless
 * the pull failed before. */
void pull_cancel(struct pull *p);

#endif
