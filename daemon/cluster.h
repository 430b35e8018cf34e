/* The daemon's part in a cluster. Loop thread, but for cluster_prepare(). */
#ifndef DAEMON_CLUSTER_H
#define DAEMON_CLUSTER_H

#include "daemon/daemon-private.h"

/* -EINVAL with *err when the options do not fit together. */
int cluster_check(const struct config *cfg, struct error *err);
/* Before the loop, with the store open: finds this node's id. */
int cluster_prepare(struct daemon *d, struct error *err);
/* After the server was made: listens for members and looks for them. d->peers
 * stays NULL when there are to be none. */
int cluster_open(struct daemon *d, struct error *err);
/* After the server and the fetches have ended, and no thread calls peers any
 * more. */
void cluster_close(struct daemon *d);
/* When all is open. Tells the homes what the store has from before, by a job on
 * a worker; while it runs d->telling is true; then, if d->stopping,
 * daemon_told() is called. */
void cluster_ready(struct daemon *d);

#endif
