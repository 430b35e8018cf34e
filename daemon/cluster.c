/* Connects the daemon with the other nodes: the listener for members, its keys,
 * and the callbacks between p2p/ and the rest of the daemon. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/cluster.h"
#include "http/local.h"
#include "p2p/placement.h"

#define DEFAULT_PORT	 "5001"
#define RELOAD_MS	 10000
#define NODE_ID_BYTES	 16
#define PEER_CONNECTIONS 1024
/* Beyond this, requests to one member are queued. */
#define PEER_HOST_CONNECTIONS 8
/* Time for the first byte of an answer to a member: this node may have to fetch
 * the range from upstream. */
#define PEER_FIRST_BYTE_MS 30000

static bool has_keys(const struct config *cfg)
{
	return cfg->tls_ca || cfg->tls_cert || cfg->tls_key;
}

static const char *listen_addr(const struct config *cfg)
{
	if (cfg->https_addr && *cfg->https_addr)
		return strcmp(cfg->https_addr, "none") == 0 ? NULL
							    : cfg->https_addr;
	return cfg->peers.n > 0 || has_keys(cfg) ? ":" DEFAULT_PORT : NULL;
}

/* Members must use TLS, or be on this host, or --insecure-peers is set. */
int cluster_check(const struct config *cfg, struct error *err)
{
	const char *addr = listen_addr(cfg);
	bool local = addr && authority_is_loopback(addr);

	if (!addr && cfg->peers.n > 0)
		return set_error(err, -EINVAL,
				 "--peers needs a listener, "
				 "--https-addr");
	if (has_keys(cfg) && (!cfg->tls_ca || !cfg->tls_cert || !cfg->tls_key))
		return set_error(err, -EINVAL,
				 "tls-ca, tls-cert and tls-key must all be "
				 "given");
	if (!addr || has_keys(cfg) || cfg->insecure_peers)
		return 0;
	for (size_t i = 0; i < cfg->peers.n; i++)
		local = local && authority_is_loopback(cfg->peers.v[i]);
	if (!local)
		return set_error(err, -EINVAL,
				 "peers off this host need --tls-ca, "
				 "--tls-cert and --tls-key (see `peerd "
				 "keys`), or --insecure-peers");
	return 0;
}

/* Reads the node's id from the store, or makes one. The id stays the same after
 * a restart, since homes and their records use it. */
static int node_id(struct store *s, char out[MEMBER_ID_MAX])
{
	static const char key[] = "node-id";
	CLEANUP(buf_release) struct buf v = BUF_INIT(MEMBER_ID_MAX - 1);
	uint8_t bytes[NODE_ID_BYTES];

	if (store_kv_get(s, key, sizeof(key), &v) == 0 &&
	    v.len == 2 * NODE_ID_BYTES) {
		memcpy(out, v.data, v.len + 1);
		return 0;
	}
	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return -EIO;
	for (size_t i = 0; i < sizeof(bytes); i++)
		(void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
	/* A read-only cache keeps no id: after a restart the members take this
	 * node for a new one. */
	(void)store_kv_put(s, key, sizeof(key), out, 2 * sizeof(bytes));
	return 0;
}

int cluster_prepare(struct daemon *d, struct error *err)
{
	int r;

	if (!listen_addr(d->cfg))
		return 0;
	r = node_id(d->store, d->node_id);
	return r < 0 ? set_error(err, r, "no random numbers: %s", strerror(-r))
		     : 0;
}

/* ---- Callbacks of p2p/ ---- */

static void on_request(void *arg, struct http_req *rq)
{
	struct daemon *d = arg;

	peers_handle(d->peers, rq);
}

static bool may_fetch(void *arg, const char *host)
{
	const struct daemon *d = arg;

	return guard_member_may(&d->guard, host);
}

static bool sweeps(void *arg, struct blob *b)
{
	const struct daemon *d = arg;

	return registry_serves_no_ranges(d->registry, b);
}

static void observe(void *arg, enum peers_observed what, const char *addr,
		    double value)
{
	struct daemon *d = arg;

	if (what == PEERS_DISCOVERY)
		stats_discovery(d, addr, value);
	else
		stats_peer_speed(d, addr, value);
}

static void tell_state(struct daemon *d, unsigned int alive)
{
	enum p2p_state was = events_current(d->p2p_events);

	if (alive == 0 && (was == P2P_CONNECTED || was == P2P_ACTIVE))
		events_state(d->p2p_events, P2P_DISCONNECTED,
			     "no other node answers");
	if (alive == 0)
		return;
	if (was != P2P_ACTIVE)
		events_state(d->p2p_events, P2P_CONNECTED,
			     "another node has answered");
	if (d->ready)
		events_state(d->p2p_events, P2P_ACTIVE,
			     "serves its blobs and reads from other nodes");
}

/* Members came or went. With members, this node as an owner fetches its stripes
 * in order: with many parallel ranges upstream would serve late ones before
 * early ones. */
static void changed(void *arg, unsigned int alive)
{
	struct daemon *d = arg;

	if (d->registry)
		registry_source(d->registry)->max_background =
			alive ? place_upstream_runs(alive + 1) : 0;
	tell_state(d, alive);
}

static void on_reload(uv_timer_t *t)
{
	struct daemon *d = t->data;

	(void)tls_server_reload_if_changed(d->tls); /* logs the result */
}

/* ---- Open and close ---- */

static int open_tls(struct daemon *d, struct error *err)
{
	const struct config *c = d->cfg;
	int r;

	if (!has_keys(c)) {
		if (c->insecure_peers)
			log_warn("insecure-peers: members are neither "
				 "encrypted nor authenticated");
		return 0;
	}
	r = tls_server_new(c->tls_ca, c->tls_cert, c->tls_key, &d->tls, err);
	if (r < 0)
		return r;
	(void)uv_timer_init(loop_uv(d->loop), &d->reload);
	d->reload.data = d;
	(void)uv_timer_start(&d->reload, on_reload, RELOAD_MS, RELOAD_MS);
	return 0;
}

int cluster_open(struct daemon *d, struct error *err)
{
	const struct config *c = d->cfg;
	struct http_client_config hc = {
		.user_agent = "peerd/" PEERD_VERSION,
		.max_connections = PEER_CONNECTIONS,
		.max_host_connections = PEER_HOST_CONNECTIONS,
	};
	struct peers_config pc = {
		.loop = d->loop,
		.store = d->store,
		.members = {.peers = &c->peers,
			    .id = d->node_id,
			    .name = d->node,
			    .zone = c->zone ? c->zone : "",
			    .version = PEERD_VERSION,
			    .ca_file = c->tls_ca,
			    .cert_file = c->tls_cert,
			    .key_file = c->tls_key},
		.upload_slots = (uint32_t)c->upload_slots,
		.serve = &d->serve_peers,
		.may_fetch = may_fetch,
		.sweeps = sweeps,
		.observe = observe,
		.changed = changed,
		.arg = d,
	};
	struct events_config ec = {.loop = d->loop,
				   .notify = daemon_notify,
				   .account_dir = c->service_account_dir};
	const char *addr = listen_addr(c);
	int r;

	if (!addr)
		return 0;
	d->serve_peers = (struct serve_config){
		.loop = d->loop,
		.store = d->store,
		.first_deadline_ms = PEER_FIRST_BYTE_MS,
	};
	r = open_tls(d, err);
	if (r < 0)
		return r;
	r = http_listen(d->server, addr, d->tls, on_request, d,
			&pc.members.port, err);
	if (r < 0)
		return r;
	r = http_client_new(d->loop, &hc, &d->peer_client);
	if (r < 0)
		return set_error(err, r, "HTTP client: %s", strerror(-r));
	ec.client = pc.client = d->peer_client;
	r = events_new(&ec, &d->p2p_events);
	if (r < 0)
		return set_error(err, r, "events: %s", strerror(-r));
	events_state(d->p2p_events, P2P_INITIALIZING,
		     "looking for other nodes");
	r = peers_new(&pc, &d->peers, err);
	if (r == 0)
		log_info("listening for members", LS("address", addr),
			 LU("port", pc.members.port), LS("id", d->node_id),
			 LB("tls", d->tls));
	return r;
}

void cluster_close(struct daemon *d)
{
	peers_free(&d->peers);
	events_free(&d->p2p_events);
	http_client_free(&d->peer_client);
	tls_server_free(&d->tls);
	if (d->reload.data)
		uv_close((uv_handle_t *)&d->reload, NULL);
	d->reload.data = NULL;
}

/* ---- Telling the homes about the cache ---- */

struct cache_tell {
	struct loop_job job;
	struct daemon *d;
	const char *repo; /* "HOST/NAME", the current repository */
};

static int tell_blob(void *arg, const struct blob_info *info)
{
	struct cache_tell *n = arg;

	if (info->cached_bytes > 0)
		peers_announce(n->d->peers, &info->key, info->size);
	return 0;
}

static void tell_manifest(struct cache_tell *n, const char *tag,
			  const struct digest *digest)
{
	struct other_nodes *p = peers_other_nodes(n->d->peers);
	CLEANUP(freep) char *host = strdup(n->repo);
	char *slash = host ? strchr(host, '/') : NULL;

	if (!slash)
		return;
	*slash = '\0';
	p->ops->noted(p, host, slash + 1, tag, digest);
}

static int tell_digest(void *arg, const struct digest *digest, uint64_t size)
{
	(void)size;
	tell_manifest(arg, NULL, digest);
	return 0;
}

static void tell_tags(struct cache_tell *n)
{
	CLEANUP(string_list_release) struct string_list tags = {0};
	struct digest digest;
	uint64_t seen;

	if (store_tag_list(n->d->store, n->repo, &tags) < 0)
		return;
	for (size_t i = 0; i < tags.n; i++)
		if (store_tag_get(n->d->store, n->repo, tags.v[i], &digest,
				  &seen) == 0)
			tell_manifest(n, tags.v[i], &digest);
}

static void tell_work(struct loop_job *j)
{
	struct cache_tell *n = container_of(j, struct cache_tell, job);
	CLEANUP(string_list_release) struct string_list repos = {0};

	(void)store_each(n->d->store, tell_blob, n);
	if (store_repo_list(n->d->store, "", &repos) < 0)
		return;
	for (size_t i = 0; i < repos.n; i++) {
		n->repo = repos.v[i];
		(void)store_repo_each(n->d->store, n->repo, true, tell_digest,
				      n);
		tell_tags(n);
	}
}

static void tell_done(struct loop_job *j)
{
	struct cache_tell *n = container_of(j, struct cache_tell, job);

	n->d->telling = false;
	if (n->d->stopping)
		daemon_told(n->d);
	free(n);
}

void cluster_ready(struct daemon *d)
{
	struct cache_tell *n;

	if (!d->peers)
		return;
	tell_state(d, members_alive(peers_members(d->peers)));
	n = calloc(1, sizeof(*n));
	if (!n)
		return; /* the homes learn of a blob when it is read */
	n->d = d;
	d->telling = true;
	loop_work(d->loop, &n->job, tell_work, tell_done);
}
