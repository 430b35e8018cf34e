/* The objects that daemon.c builds, shared by the files of daemon/. Loop
 * thread. */
#ifndef DAEMON_DAEMON_PRIVATE_H
#define DAEMON_DAEMON_PRIVATE_H

#include <pthread.h>

#include "base/loop.h"
#include "containerd/containerd.h"
#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "fetch/fetch.h"
#include "fs/fs.h"
#include "http/client.h"
#include "http/server.h"
#include "http/tls.h"
#include "mount/session.h"
#include "p2p/peers.h"
#include "registry/guard.h"
#include "registry/mirror.h"
#include "registry/proxy.h"
#include "registry/registry.h"
#include "store/store.h"

struct daemon {
	const struct config *cfg;
	struct guard guard;
	struct loop *loop;
	struct store *store;
	struct http_client *client;
	struct registry *registry;
	struct fetch *fetch;
	struct fs *fs;
	pthread_mutex_t events_mu;
	bool events; /* guarded by: events_mu; store events are passed on */
	struct mount *mount;
	struct http_server *server;
	struct serve_config serve;
	struct mirror *mirror;
	struct proxy *proxy;
	struct containerd *containerd; /* NULL: not configured */
	/* Of cluster.c; NULL if no other nodes are configured. */
	struct peers *peers;
	struct http_client *peer_client;
	struct serve_config serve_peers;
	struct tls_server *tls;
	uv_timer_t reload;
	struct events *p2p_events;
	bool telling; /* see cluster_ready() */
	char node_id[MEMBER_ID_MAX];
	uint64_t started_ms;
	char node[256];
	uv_signal_t term, intr;
	struct loop_task unmounted;
	bool ready, stopping;
	bool served; /* the server has ended */
	int exit_status;
};

/* Sends `state` to the service manager, as sd_notify(3). */
void daemon_notify(const char *state);
/* cluster_ready()'s job has ended and the daemon is stopping. */
void daemon_told(struct daemon *d);

/* api.c: the routes of the control socket, of --http-addr and of --prom-addr;
 * and the status document. */
void api_handle(void *arg, struct http_req *rq);
void api_handle_public(void *arg, struct http_req *rq);
void api_handle_metrics(void *arg, struct http_req *rq);
int api_status(void *arg, struct buf *out);

/* doors.c: who may ask. False: the request was answered. open: no web page has
 * made it. open_to: the client's address is allowed. check: -EINVAL for options
 * that cannot be. */
bool doors_open(struct daemon *d, struct http_req *rq);
bool doors_open_to(struct daemon *d, struct http_req *rq);
int doors_check(const struct config *cfg, struct error *err);

/* paths.c: -EINVAL when the cache is in others' hands, or is the mount, or a
 * file that the daemon needs is in the mount. */
int paths_check(const struct config *cfg, struct error *err);

/* stats.c: metrics of the whole daemon. Call stats_init() before the first
 * request and stats_collect() before metrics_write(). stats_request() is the
 * server's http_server_config.ended. */
void stats_init(void);
void stats_collect(struct daemon *d);
void stats_discovery(const struct daemon *d, const char *addr, double seconds);
void stats_peer_speed(const struct daemon *d, const char *addr,
		      double mib_per_second);
void stats_request(void *arg, const struct http_req *rq, int status,
		   uint64_t ns);

#endif
