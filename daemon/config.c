#include "daemon/config.h"

#include <stddef.h>

#include "daemon/events.h"

#define F(field) offsetof(struct config, field)
#define MIB	 (UINT64_C(1) << 20)
#define TIB	 (UINT64_C(1) << 40)

/* clang-format off */
const struct option config_options[] = {
	{.name = "mount", .type = OPT_STRING, .offset = F(mount),
	 .value_name = "DIR", .section = "Mount",
	 .help = "show blobs as files below DIR; DIR is made if absent"},
	{.name = "allow-other", .type = OPT_BOOL, .offset = F(allow_other),
	 .section = "Mount",
	 .help = "let users other than the one who runs peerd read the files"},
	{.name = "read-ahead", .type = OPT_SIZE, .offset = F(read_ahead),
	 .value_name = "SIZE", .def = "1MiB", .max = 64 * MIB,
	 .section = "Mount",
	 .help = "read-ahead of the kernel on the mount; 0 leaves it as it is"},
	{.name = "fuse-threads", .type = OPT_UINT, .offset = F(fuse_threads),
	 .value_name = "N", .def = "3", .min = 1, .max = 16,
	 .section = "Mount", .help = "threads that serve the mount"},

	{.name = "cache-dir", .type = OPT_STRING, .offset = F(cache_dir),
	 .value_name = "DIR", .def = DEFAULT_CACHE_DIR, .section = "Cache",
	 .help = "the directory of chunks and index; one daemon per DIR"},
	{.name = "cache-size", .type = OPT_SIZE, .offset = F(cache_size),
	 .value_name = "SIZE", .def = "0", .section = "Cache",
	 .help = "evict the least recently used chunks and manifests above "
		 "SIZE; 0: the only limit is --cache-min-free"},
	{.name = "cache-min-free", .type = OPT_SIZE,
	 .offset = F(cache_min_free), .value_name = "SIZE", .def = "1GiB",
	 .section = "Cache",
	 .help = "evict when the file system has less than SIZE free"},

	{.name = "registry-config", .type = OPT_STRING,
	 .offset = F(registry_config), .value_name = "FILE",
	 .section = "Registries",
	 .help = "credentials, a Docker config.json; read again on change"},
	{.name = "certs-dir", .type = OPT_STRING, .offset = F(certs_dir),
	 .value_name = "DIR", .section = "Registries",
	 .help = "certificates of registries, DIR/HOST[:PORT]/ca.crt"},
	{.name = "plain-http", .type = OPT_LIST, .offset = F(plain_http),
	 .value_name = "HOST[:PORT]", .section = "Registries",
	 .help = "registries without TLS; those on loopback need no entry"},
	{.name = "read-timeout", .type = OPT_DURATION,
	 .offset = F(read_timeout_ms), .value_name = "TIME", .def = "60s",
	 .min = 100, .max = 3600000, .section = "Registries",
	 .help = "a read that no source satisfies in TIME fails"},
	{.name = "metadata-timeout", .type = OPT_DURATION,
	 .offset = F(metadata_timeout_ms), .value_name = "TIME", .def = "30s",
	 .min = 100, .max = 600000, .section = "Registries",
	 .help = "the same for manifests, tags and sizes"},
	{.name = "tag-fresh", .type = OPT_DURATION, .offset = F(tag_fresh_ms),
	 .value_name = "TIME", .def = "30s", .max = 86400000,
	 .section = "Registries",
	 .help = "a tag is not requested again before TIME has passed"},
	{.name = "negative-time", .type = OPT_DURATION,
	 .offset = F(negative_ms), .value_name = "TIME", .def = "5s",
	 .max = 3600000, .section = "Registries",
	 .help = "a \"not found\" or a refusal is remembered for TIME"},

	{.name = "http-addr", .type = OPT_STRING, .offset = F(http_addr),
	 .value_name = "ADDR:PORT", .def = "127.0.0.1:5000", .section = "HTTP",
	 .help = "address for container runtimes and block drivers; \"none\" "
		 "turns it off"},
	{.name = "prom-addr", .type = OPT_STRING, .offset = F(prom_addr),
	 .value_name = "ADDR:PORT", .def = "0.0.0.0:5004", .section = "HTTP",
	 .help = "address for metrics, /metrics/prometheus; \"none\" turns it "
		 "off"},
	{.name = "hosts", .type = OPT_LIST, .offset = F(hosts),
	 .value_name = "HOST[:PORT]", .section = "HTTP",
	 .help = "registries that the mirror serves; without it, all"},
	{.name = "default-registry", .type = OPT_STRING,
	 .offset = F(default_registry), .value_name = "HOST[:PORT]",
	 .section = "HTTP",
	 .help = "the registry that a mirror request without a registry means; "
		 "without it, the only one of --hosts"},
	{.name = "add-mirror-configuration", .type = OPT_BOOL,
	 .offset = F(add_mirror_configuration), .section = "HTTP",
	 .help = "write containerd's hosts.toml for --hosts at the start; "
		 "`peerd hosts undo` reverts it"},
	{.name = "mirrors", .type = OPT_LIST, .offset = F(mirrors),
	 .value_name = "URL", .def = DEFAULT_MIRROR, .section = "HTTP",
	 .help = "the URLs that containerd asks first"},
	{.name = "containerd-hosts-config-path", .type = OPT_STRING,
	 .offset = F(hosts_config_path), .value_name = "DIR",
	 .def = DEFAULT_HOSTS_PATH, .section = "HTTP",
	 .help = "containerd's config_path, the directory of hosts.toml files"},
	{.name = "mirror-timeout", .type = OPT_DURATION,
	 .offset = F(mirror_timeout_ms), .value_name = "TIME", .def = "25s",
	 .min = 100, .max = 600000, .section = "HTTP",
	 .help = "the mirror answers 404 if no bytes came within TIME, so "
		 "that the runtime asks the registry itself"},
	{.name = "blobs-allow", .type = OPT_LIST, .offset = F(blobs_allow),
	 .value_name = "HOST[:PORT]", .section = "HTTP",
	 .help = "targets on this host or link that /blobs/, the mount's url/ "
		 "and redirects may lead to"},
	{.name = "http-names", .type = OPT_LIST, .offset = F(http_names),
	 .value_name = "NAME", .section = "HTTP",
	 .help = "further names by which clients call this host; requests for "
		 "others are refused (421)"},
	{.name = "http-allow", .type = OPT_LIST, .offset = F(http_allow),
	 .value_name = "NETWORK", .section = "HTTP",
	 .help = "addresses and networks that may ask on --http-addr, besides "
		 "this host; all when none is named"},

	{.name = "containerd-content-path", .type = OPT_STRING,
	 .offset = F(containerd_content_path), .value_name = "DIR",
	 .section = "containerd",
	 .help = "containerd's content store; its blobs are read in place and "
		 "not stored twice"},
	{.name = "containerd-sock", .type = OPT_STRING,
	 .offset = F(containerd_sock), .value_name = "PATH",
	 .section = "containerd",
	 .help = "containerd's socket, for image names; with a content path "
		 "/run/containerd/containerd.sock by default"},

	{.name = "peers", .type = OPT_LIST, .offset = F(peers),
	 .value_name = "PEER", .section = "Peers",
	 .help = "addresses of other nodes: host:port, dns:name:port (all of "
		 "its addresses), srv:_service._proto.name"},
	{.name = "https-addr", .type = OPT_STRING, .offset = F(https_addr),
	 .value_name = "ADDR:PORT", .section = "Peers",
	 .help = "address for other nodes; :5001 by default when there are "
		 "--peers or keys, \"none\" turns it off"},
	{.name = "tls-ca", .type = OPT_STRING, .offset = F(tls_ca),
	 .value_name = "FILE", .section = "Peers",
	 .help = "the cluster's CA; a node with its certificate is a member"},
	{.name = "tls-cert", .type = OPT_STRING, .offset = F(tls_cert),
	 .value_name = "FILE", .section = "Peers",
	 .help = "this node's certificate; read again when it is renewed"},
	{.name = "tls-key", .type = OPT_STRING, .offset = F(tls_key),
	 .value_name = "FILE", .section = "Peers", .help = "the certificate's key"},
	{.name = "insecure-peers", .type = OPT_BOOL,
	 .offset = F(insecure_peers), .section = "Peers",
	 .help = "allow nodes off this host without keys: no encryption, no "
		 "authentication"},
	{.name = "zone", .type = OPT_STRING, .offset = F(zone),
	 .value_name = "NAME", .section = "Peers",
	 .help = "nodes of one zone share what they fetch; each zone fetches "
		 "for itself"},
	{.name = "upload-slots", .type = OPT_UINT, .offset = F(upload_slots),
	 .value_name = "N", .def = "64", .min = 1, .max = 4096,
	 .section = "Peers",
	 .help = "requests of other nodes beyond N are redirected to nodes "
		 "that were sent the same chunk"},

	{.name = "prefetch", .type = OPT_BOOL, .offset = F(prefetch),
	 .def = "true", .section = "Fetching",
	 .help = "fetch ahead of sequential readers"},
	{.name = "max-window", .type = OPT_SIZE, .offset = F(max_window),
	 .value_name = "SIZE", .def = "64MiB", .min = MIB, .max = 1024 * MIB,
	 .section = "Fetching", .help = "how far to fetch ahead of one reader"},
	{.name = "fetch-memory", .type = OPT_SIZE, .offset = F(fetch_memory),
	 .value_name = "SIZE", .def = "48MiB", .min = 4 * MIB, .max = TIB,
	 .section = "Fetching",
	 .help = "memory for bytes that are not yet in the cache"},
	{.name = "prefetch-workers", .type = OPT_UINT,
	 .offset = F(prefetch_workers), .value_name = "N", .def = "8",
	 .min = 1, .max = 256, .section = "Fetching",
	 .help = "parallel requests for chunks that no read waits for yet"},

	{.name = "service-account-dir", .type = OPT_STRING,
	 .offset = F(service_account_dir), .value_name = "DIR",
	 .def = EVENTS_ACCOUNT_DIR, .section = "General", .hidden = true,
	 .help = "in Kubernetes, the directory of token, ca.crt and namespace"},
	{.name = "node-name", .type = OPT_STRING, .offset = F(node_name),
	 .value_name = "NAME", .section = "General",
	 .help = "this node's name, in the log and to other nodes; the host "
		 "name by default"},
	{.name = "log-level", .type = OPT_ENUM, .offset = F(log_level),
	 .value_name = "LEVEL", .def = "info",
	 .choices = "error|warn|info|debug", .section = "General",
	 .help = "lowest level that is logged"},
	{.name = "log-format", .type = OPT_ENUM, .offset = F(log_format),
	 .value_name = "FORMAT", .def = "auto", .choices = "auto|json|text",
	 .section = "General",
	 .help = "auto is text on a terminal, JSON lines elsewhere"},
	{.name = "config", .type = OPT_STRING, .offset = F(config),
	 .value_name = "FILE", .section = "General",
	 .help = "options as a JSON object, {\"cache-size\": \"10GiB\"}"},
};
/* clang-format on */
const size_t config_noptions = ARRAY_SIZE(config_options);

int control_path(const char *cache_dir, struct buf *out)
{
	return buf_printf(out, "%s/peerd.sock", cache_dir);
}
