/* Connects the daemon with the other nodes (p2p/). Loop thread, except
 * cluster_check() and cluster_prepare(), which come before the loop. */
#ifndef DAEMON_CLUSTER_H
#define DAEMON_CLUSTER_H

#include "daemon/daemon-private.h"

/* Checks the options for peers. -EINVAL with *err: they contradict each other.
 */
int cluster_check(const struct config *cfg, struct error *err);
/* Reads or makes this node's id. Blocks; call it when the store is open, before
 * the loop runs. -EIO with *err: no random numbers. */
int cluster_prepare(struct daemon *d, struct error *err);
/* Listens for members and starts to look for them. Call it when d->server
 * exists. d->peers stays NULL without an address to listen on. */
int cluster_open(struct daemon *d, struct error *err);
/* Frees all that cluster_open() made. Call it when the server and the fetches
 * have ended and no thread calls peers any more. */
void cluster_close(struct daemon *d);
/* Starts a job that tells the homes which blobs and tags the store has. Call it
 * when everything is open. d->telling is true while the job runs. If
 * d->stopping is true when it ends, it calls daemon_told(). */
void cluster_ready(struct daemon *d);

#endif
