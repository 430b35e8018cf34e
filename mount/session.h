/* The mount: attaches it, serves its requests on its own threads, detaches it.
 *
 * A mount that a dead daemon left behind ("Transport endpoint is not
 * connected") is detached first. The kernel's read-ahead is raised after
 * mounting (/sys/class/bdi/<major>:<minor>/read_ahead_kb), because the FUSE
 * protocol can only lower it. Root mounts with mount(2), other users with
 * fusermount3. */
#ifndef MOUNT_SESSION_H
#define MOUNT_SESSION_H

#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

struct mount;

struct mount_config {
	const char *path; /* made if absent */
	bool allow_other; /* other users than the one who mounts may read */
	uint32_t threads; /* 0 = 3; at most 16 */
	uint32_t read_ahead_kb;
	const struct fuse_lowlevel_ops *ops;
	void *userdata; /* for the operations */
	/* session() is called with the session before the first request. gone()
	 * is called once, on a thread of the mount, if another process unmounts
	 * it. */
	void (*session)(void *arg, struct fuse_session *se);
	void (*gone)(void *arg);
	void *arg;
};

/* Mounts and starts the threads. On 0 requests are being served, and the caller
 * ends this with mount_close(). -EBUSY: another peerd serves this path; other
 * errors as the system gives them. *err has the details. */
int mount_open(const struct mount_config *cfg, struct mount **ret,
	       struct error *err);
/* Unmounts, lazily if files are open (their readers get ENOTCONN), and joins
 * the threads. Parked requests may still be answered until mount_free(). */
void mount_close(struct mount *m);
/* Frees m and sets it to NULL; NULL is allowed. */
void mount_free(struct mount **m);

#endif
