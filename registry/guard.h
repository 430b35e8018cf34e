/* Where the daemon may be sent by others than its operator. The one place that
 * decides it, for URLs (the mount's url/, /blobs/), registries, their redirects
 * and token servers, and what members ask for; docs/security.md has the rule in
 * words. The client for HTTP then holds the addresses of all connections
 * against it (http/client.h, refuse). Loop thread. */
#ifndef REGISTRY_GUARD_H
#define REGISTRY_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/options.h"
#include "http/local.h"

/* What the operator has named. Lists are borrowed. */
struct guard {
	const struct string_list *allow; /* "host", "host:port", "[v6]:port" or
					    ".suffix" */
	const struct string_list *hosts, *plain_http; /* registries */
};

/* From which scope on addresses are refused for a URL's host (IPv6 without
 * brackets) and port; 0: none is. registry ("host[:port]"): the registry that a
 * reader has named, for whose sake the request is made; it may be on this host,
 * and so may what it sends us to on its own host. NULL: there is none. */
enum addr_scope guard_refuse(const struct guard *g, const char *registry,
			     const char *host, uint16_t port);

/* Whether the host is refused before its name is looked up. */
bool guard_refuses_name(const struct guard *g, const char *registry,
			const char *host, uint16_t port);

/* Whether a member may have us ask that registry ("host[:port]"): one that the
 * operator has named; or, if g->hosts does not say which there are, any that is
 * not refused by its name. */
bool guard_member_may(const struct guard *g, const char *registry);

#endif
