/* The options of `peerd run`, as one struct and one table. */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/options.h"

#define DEFAULT_CACHE_DIR  "/var/cache/peerd"
#define DEFAULT_MIRROR	   "http://127.0.0.1:5000"
#define DEFAULT_HOSTS_PATH "/etc/containerd/certs.d"

struct config {
	char *config;
	char *mount;
	bool allow_other;
	uint64_t read_ahead;
	uint64_t fuse_threads;
	char *cache_dir;
	uint64_t cache_size;
	uint64_t cache_min_free;
	char *registry_config;
	char *certs_dir;
	struct string_list plain_http;
	uint64_t read_timeout_ms;
	uint64_t metadata_timeout_ms;
	uint64_t tag_fresh_ms;
	uint64_t negative_ms;
	char *http_addr;
	char *prom_addr;
	struct string_list hosts;
	char *default_registry;
	bool add_mirror_configuration;
	struct string_list mirrors;
	char *hosts_config_path;
	struct string_list blobs_allow;
	struct string_list http_names;
	struct string_list http_allow;
	char *containerd_content_path;
	char *containerd_sock;
	uint64_t mirror_timeout_ms;
	char *https_addr;
	struct string_list peers;
	char *zone;
	char *tls_ca;
	char *tls_cert;
	char *tls_key;
	bool insecure_peers;
	uint64_t upload_slots;
	bool prefetch;
	uint64_t max_window;
	uint64_t fetch_memory;
	uint64_t prefetch_workers;
	char *service_account_dir;
	char *node_name;
	char *log_level;
	char *log_format;
};

extern const struct option config_options[];
extern const size_t config_noptions;

/* Appends the path of the control socket, "<cache-dir>/peerd.sock", to out.
 * -EMSGSIZE, -ENOMEM. */
int control_path(const char *cache_dir, struct buf *out);

#endif
