/* The list of hosts that strangers' URLs may lead to although the hosts are on
 * this host or link. Any thread. */
#ifndef REGISTRY_GUARD_H
#define REGISTRY_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/options.h"

/* Whether the list contains a URL's host (IPv6 without brackets). Entries are
 * "host", "host:port", "[v6]:port" or ".suffix". */
bool guard_allows(const struct string_list *list, const char *host,
		  uint16_t port);

#endif
