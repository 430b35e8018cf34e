/* The mount: attaches it, serves its requests on threads of its own, detaches
 * it.
 *
 * A mount that a dead daemon left behind ("Transport endpoint is not
 * connected") is cleared first. The kernel's read-ahead is raised after
 * mounting, since the FUSE protocol can only lower it
 * (/sys/class/bdi/<major>:<minor>/read_ahead_kb). As root the mount is made
 * with mount(2); others go through fusermount3. */
#ifndef MOUNT_SESSION_H
#define MOUNT_SESSION_H

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

struct mount;

struct mount_config {
	const char *path; /* made if absent */
	bool allow_other; /* not only the user who mounts may read */
	uint32_t threads; /* 0 = 3 */
	uint32_t read_ahead_kb;
	const struct fuse_lowlevel_ops *ops;
	void *userdata; /* of the operations */
	/* Called with the session before the first request, and once on a
	 * thread of the mount if somebody else unmounts it. */
	void (*session)(void *arg, struct fuse_session *se);
	void (*gone)(void *arg);
	void *arg;
};

/* On 0 requests are being served, and the caller ends it with mount_close().
 * -EBUSY: another peerd serves this path; *err says more. */
int mount_open(const struct mount_config *cfg, struct mount **ret,
	       struct error *err);
/* Unmounts, lazily if files are open (their readers get ENOTCONN), joins the
 * threads, frees and NULLs. Answers of parked requests may still come until
 * mount_free(). */
void mount_close(struct mount *m);
void mount_free(struct mount **m);

#endif
