#include "daemon/daemon-private.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/descriptors.h"
#include "base/log.h"
#include "containerd/hosts.h"
#include "daemon/cluster.h"

/* For answers that are running; systemd and the chart give 30 s. */
#define GRACE_MS 10000

/* The protocol of sd_notify(3) is one datagram, so libsystemd is not needed. */
void daemon_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	CLEANUP(closep) int fd = -1;
	size_t len = path ? strlen(path) : 0;

	if (len == 0 || len >= sizeof(sa.sun_path))
		return;
	memcpy(sa.sun_path, path, len);
	if (sa.sun_path[0] == '@')
		sa.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd == -1 ||
	    sendto(fd, state, strlen(state), MSG_NOSIGNAL,
		   (struct sockaddr *)&sa,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) ==
		    -1)
		log_warn("cannot notify the service manager", LE(-errno));
}

/* Passes an event of the store on. Runs on a store thread. */
static void on_store_event(void *arg, struct blob *b, enum blob_event ev)
{
	struct daemon *d = arg;

	(void)pthread_mutex_lock(&d->events_mu);
	if (d->events) {
		fetch_store_event(d->fetch, b, ev);
		if (d->peers)
			peers_blob_event(d->peers, b, ev);
		if (d->fs)
			fs_blob_event(d->fs, b, ev);
	}
	(void)pthread_mutex_unlock(&d->events_mu);
}

/* Turned off before the loop ends; loop_free() still runs the tasks that were
 * posted before. */
static void set_events(struct daemon *d, bool on)
{
	(void)pthread_mutex_lock(&d->events_mu);
	d->events = on;
	(void)pthread_mutex_unlock(&d->events_mu);
}

/* ---- Stopping: each step starts the next ---- */

static void close_signal(uv_signal_t *s)
{
	if (!uv_is_closing((uv_handle_t *)s))
		uv_close((uv_handle_t *)s, NULL);
}

static void fetch_stopped(void *arg)
{
	struct daemon *d = arg;

	containerd_free(&d->containerd);
	registry_free(&d->registry);
	set_events(d, false);
	cluster_close(d);
	http_client_free(&d->client);
	close_signal(&d->term);
	close_signal(&d->intr);
	loop_stop(d->loop);
}

static void stop_fetch(struct daemon *d)
{
	if (d->fetch)
		fetch_stop(d->fetch, fetch_stopped, d);
	else
		fetch_stopped(d);
}

static void server_stopped(void *arg)
{
	struct daemon *d = arg;

	http_server_free(&d->server);
	mirror_free(&d->mirror);
	proxy_free(&d->proxy);
	d->served = true;
	if (!d->telling)
		stop_fetch(d);
}

void daemon_told(struct daemon *d)
{
	if (d->served)
		stop_fetch(d);
}

static void stop(struct daemon *d)
{
	if (d->stopping)
		return;
	d->stopping = true;
	daemon_notify("STOPPING=1");
	log_info("stopping");
	if (d->mount)
		mount_close(d->mount);
	if (d->server)
		http_server_stop(d->server, GRACE_MS, server_stopped, d);
	else
		server_stopped(d);
}

static void on_signal(uv_signal_t *s, int signum)
{
	(void)signum;
	stop(s->data);
}

static void on_unmounted(struct loop_task *t)
{
	struct daemon *d = container_of(t, struct daemon, unmounted);

	if (!d->stopping)
		log_warn("another process unmounted the mount",
			 LS("mount", d->cfg->mount));
	stop(d);
}

/* ---- Starting ---- */

static void on_session(void *arg, struct fuse_session *se)
{
	struct daemon *d = arg;

	fs_set_session(d->fs, se);
}

/* Another process unmounted the mount. Runs on a thread of the mount. */
static void on_gone(void *arg)
{
	struct daemon *d = arg;

	loop_post(d->loop, &d->unmounted);
}

static int open_store(struct daemon *d, struct error *err)
{
	CLEANUP(buf_release) struct buf external = BUF_INIT(4096);
	struct store_config sc = {
		.dir = d->cfg->cache_dir,
		.max_bytes = d->cfg->cache_size,
		.min_free_bytes = d->cfg->cache_min_free,
		.event = on_store_event,
		.event_arg = d,
	};

	if (d->cfg->containerd_content_path) {
		int r = containerd_blob_dir(d->cfg->containerd_content_path,
					    &external);

		if (r < 0)
			return set_error(err, r, "containerd-content-path: %s",
					 strerror(-r));
		sc.external_dir = external.data;
	}
	return store_open(&sc, &d->store, err);
}

static void on_containerd_blob(void *arg, const struct digest *digest,
			       bool present)
{
	struct daemon *d = arg;
	struct blob_key key = {.kind = BLOB_SHA256, .id = *digest};

	if (present && d->peers)
		peers_announce(d->peers, &key, 0);
}

static int open_containerd(struct daemon *d, struct error *err)
{
	const char *sock = d->cfg->containerd_sock;
	struct containerd_config cc = {
		.loop = d->loop,
		.client = d->client,
		.store = d->store,
		.content_path = d->cfg->containerd_content_path,
		.changed = on_containerd_blob,
		.arg = d,
	};
	int r;

	if (!cc.content_path && !sock)
		return 0;
	cc.sock = sock ? sock : "/run/containerd/containerd.sock";
	r = containerd_new(&cc, &d->containerd);
	return r < 0 ? set_error(err, r, "containerd: %s", strerror(-r)) : 0;
}

static int open_upstream(struct daemon *d, struct error *err)
{
	struct http_client_config hc = {.user_agent = "peerd/" PEERD_VERSION};
	struct registry_config rc = {
		.docker_config = d->cfg->registry_config,
		.certs_dir = d->cfg->certs_dir,
		.plain_http = &d->cfg->plain_http,
		.meta_timeout_ms = d->cfg->metadata_timeout_ms,
		.tag_fresh_ms = d->cfg->tag_fresh_ms,
		.negative_ms = d->cfg->negative_ms,
		.guard = &d->guard,
		.node = d->node,
	};
	struct fetch_config fc = {
		.loop = d->loop,
		.store = d->store,
		.read_timeout_ms = d->cfg->read_timeout_ms,
		.memory_bytes = d->cfg->fetch_memory,
		.workers = (uint32_t)d->cfg->prefetch_workers,
	};
	int r = http_client_new(d->loop, &hc, &d->client);

	if (r < 0)
		return set_error(err, r, "HTTP client: %s", strerror(-r));
	rc.loop = d->loop;
	rc.client = d->client;
	rc.store = d->store;
	rc.peers = d->peers ? peers_other_nodes(d->peers) : NULL;
	r = registry_new(&rc, &d->registry, err);
	if (r < 0)
		return r;
	r = open_containerd(d, err);
	if (r < 0)
		return r;
	r = fetch_new(&fc, &d->fetch);
	if (r < 0)
		return set_error(err, r, "fetch: %s", strerror(-r));
	d->serve_peers.fetch = d->fetch;
	if (d->peers)
		fetch_add_source(d->fetch, peers_source(d->peers));
	fetch_add_source(d->fetch, registry_source(d->registry));
	set_events(d, true);
	return 0;
}

/* At most a quarter of the cache: a prefetched chunk must not be evicted before
 * it is read. */
static uint64_t max_window(const struct config *cfg)
{
	if (!cfg->prefetch)
		return 0;
	return cfg->cache_size ? min_u64(cfg->max_window, cfg->cache_size / 4)
			       : cfg->max_window;
}

static int open_mount(struct daemon *d, struct error *err)
{
	struct fs_config fc = {
		.loop = d->loop,
		.store = d->store,
		.fetch = d->fetch,
		.registry = d->registry,
		.status = api_status,
		.status_arg = d,
		.max_window = max_window(d->cfg),
		.tag_fresh_ms = d->cfg->tag_fresh_ms,
		.negative_ms = d->cfg->negative_ms,
	};
	struct mount_config mc = {
		.path = d->cfg->mount,
		.allow_other = d->cfg->allow_other,
		.threads = (uint32_t)d->cfg->fuse_threads,
		.read_ahead_kb = (uint32_t)(d->cfg->read_ahead >> 10),
		.ops = &fs_ops,
		.session = on_session,
		.gone = on_gone,
		.arg = d,
	};
	struct fs *fs;
	int r;

	if (!d->cfg->mount)
		return 0;
	r = fs_new(&fc, &fs);
	if (r < 0)
		return set_error(err, r, "file system: %s", strerror(-r));
	(void)pthread_mutex_lock(&d->events_mu);
	d->fs = fs;
	(void)pthread_mutex_unlock(&d->events_mu);
	mc.userdata = fs;
	return mount_open(&mc, &d->mount, err);
}

static int open_mirror(struct daemon *d, struct error *err)
{
	struct mirror_config mc = {
		.serve = &d->serve,
		.registry = d->registry,
		.hosts = &d->cfg->hosts,
		.default_host = d->cfg->default_registry,
		.deadline_ms = d->cfg->mirror_timeout_ms,
	};
	struct proxy_config pc = {
		.serve = &d->serve,
		.registry = d->registry,
		.guard = &d->guard,
	};
	int r;

	d->serve = (struct serve_config){
		.loop = d->loop,
		.store = d->store,
		.fetch = d->fetch,
		.max_window = max_window(d->cfg),
		.first_deadline_ms = d->cfg->mirror_timeout_ms,
	};
	r = mirror_new(&mc, &d->mirror);
	if (r == 0)
		r = proxy_new(&pc, &d->proxy);
	return r < 0 ? set_error(err, r, "mirror: %s", strerror(-r)) : 0;
}

static int listen_on(struct daemon *d, const char *addr, http_handler *handler,
		     struct error *err)
{
	uint16_t port;
	int r;

	if (!*addr || strcmp(addr, "none") == 0)
		return 0;
	r = http_listen(d->server, addr, NULL, handler, d, &port, err);
	if (r == 0)
		log_info("listening", LS("address", addr), LU("port", port));
	return r;
}

static int make_server(struct daemon *d, struct error *err)
{
	struct http_server_config sc = {
		.loop = d->loop,
		.name = "peerd",
		.probe = "/healthz",
		.ended = stats_request,
		.ended_arg = d,
	};
	int r = http_server_new(&sc, &d->server);

	stats_init();
	return r < 0 ? set_error(err, r, "HTTP server: %s", strerror(-r)) : 0;
}

static int open_server(struct daemon *d, struct error *err)
{
	CLEANUP(buf_release) struct buf addr = BUF_INIT(4096);
	int r = buf_str(&addr, "unix:");

	if (r == 0)
		r = control_path(d->cfg->cache_dir, &addr);
	if (r < 0)
		return set_error(err, r, "control socket: %s", strerror(-r));
	r = http_listen(d->server, addr.data, NULL, api_handle, d, NULL, err);
	if (r == 0)
		r = listen_on(d, d->cfg->http_addr, api_handle_public, err);
	if (r == 0)
		r = listen_on(d, d->cfg->prom_addr, api_handle_metrics, err);
	return r;
}

static void listen_signals(struct daemon *d)
{
	(void)signal(SIGPIPE, SIG_IGN);
	(void)uv_signal_init(loop_uv(d->loop), &d->term);
	(void)uv_signal_init(loop_uv(d->loop), &d->intr);
	d->term.data = d->intr.data = d;
	(void)uv_signal_start(&d->term, on_signal, SIGTERM);
	(void)uv_signal_start(&d->intr, on_signal, SIGINT);
}

struct start {
	struct loop_task task;
	struct daemon *d;
};

/* Runs on the loop, since the objects that it opens belong to the loop. */
static void on_start(struct loop_task *t)
{
	struct start *s = container_of(t, struct start, task);
	struct daemon *d = s->d;
	struct error err = {"out of memory"};
	int r;

	listen_signals(d);
	r = make_server(d, &err);
	if (r == 0)
		r = cluster_open(d, &err);
	if (r == 0)
		r = open_upstream(d, &err);
	if (r == 0)
		r = open_mount(d, &err);
	if (r == 0)
		r = open_mirror(d, &err);
	if (r == 0)
		r = open_server(d, &err);
	if (r < 0) {
		log_error("cannot start", LS("why", err.text));
		events_state(d->p2p_events, P2P_FAILED, err.text);
		d->exit_status = r == -EINVAL ? 2 : 1;
		stop(d);
		return;
	}
	d->ready = true;
	cluster_ready(d);
	log_info("ready", LS("mount", d->cfg->mount),
		 LS("cache", d->cfg->cache_dir),
		 LU("ms", now_ms() - d->started_ms));
	daemon_notify("READY=1");
}

static void report_hosts(enum hosts_level level, const char *host,
			 const char *text, void *arg)
{
	(void)arg;
	if (level == HOSTS_FAILED)
		log_error("cannot change containerd's mirror configuration",
			  LS("host", host), LS("why", text));
	else if (level == HOSTS_WARNING)
		log_warn("containerd's mirror configuration", LS("host", host),
			 LS("why", text));
	else
		log_info("containerd's mirror configuration", LS("host", host),
			 LS("what", text));
}

/* Failures are logged and not fatal: containerd then asks the registries
 * itself. */
static void add_mirror_configuration(const struct config *cfg)
{
	CLEANUP(freep) char *state_dir = NULL;
	struct hosts_config c = {.hosts = cfg->hosts,
				 .mirrors = cfg->mirrors,
				 .config_path = cfg->hosts_config_path};

	if (asprintf(&state_dir, "%s/hosts-backup", cfg->cache_dir) < 0) {
		state_dir = NULL;
		return;
	}
	c.state_dir = state_dir;
	(void)hosts_add(&c, report_hosts, NULL);
}

int daemon_run(const struct config *cfg)
{
	struct daemon d = {.cfg = cfg, .started_ms = now_ms()};
	struct start start = {.task = {.run = on_start}, .d = &d};
	struct error err = {"out of memory"};
	int r;

	(void)snprintf(d.node, sizeof(d.node), "%s", cfg->node_name);
	d.guard = (struct guard){.allow = &cfg->blobs_allow,
				 .hosts = &cfg->hosts,
				 .plain_http = &cfg->plain_http};
	d.unmounted.run = on_unmounted;
	(void)pthread_mutex_init(&d.events_mu, NULL);
	r = descriptors_raise();
	if (r < 0)
		log_warn("cannot raise the limit of open files", LE(r));
	r = cluster_check(cfg, &err);
	if (r == 0)
		r = doors_check(cfg, &err);
	if (r == 0)
		r = paths_check(cfg, &err);
	if (r < 0) {
		log_error("cannot start", LS("why", err.text));
		return 2;
	}
	/* store_open() forks, so it comes before all threads. */
	r = open_store(&d, &err);
	if (r < 0) {
		log_error("cannot open the cache", LS("why", err.text));
		return 1;
	}
	r = cluster_prepare(&d, &err);
	if (r < 0) {
		log_error("cannot start", LS("why", err.text));
		store_close(&d.store);
		return 1;
	}
	if (cfg->add_mirror_configuration)
		add_mirror_configuration(cfg);
	r = loop_new(&d.loop);
	if (r < 0) {
		log_error("cannot start", LE(r));
		store_close(&d.store);
		return 1;
	}
	loop_post(d.loop, &start.task);
	loop_run(d.loop);
	loop_free(&d.loop);
	mount_free(&d.mount);
	fs_free(&d.fs);
	fetch_free(&d.fetch);
	store_close(&d.store);
	log_info("stopped");
	return d.exit_status;
}
