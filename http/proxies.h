/* Which proxy a request goes through: http_proxy, https_proxy, all_proxy and
 * no_proxy of the environment. curl is told, and not asked, because only one of
 * both can decide whether the address of a connection is the server's or the
 * proxy's (http/client.h, refuse). Any thread, as long as nobody changes the
 * environment. */
#ifndef HTTP_PROXIES_H
#define HTTP_PROXIES_H

#include <stdbool.h>

#include "http/url.h"

/* The proxy's URL, or NULL for none. As with curl, http_proxy is read in lower
 * case only (a CGI program would have the other from a client's header); the
 * others in lower case first. Borrowed from the environment. */
const char *proxy_for(const struct url *u);

/* Whether a list like no_proxy names the host (IPv6 without brackets): "*",
 * addresses, networks ("10.0.0.0/8", "fd00::/8"), names, and names that a name
 * ends in ("example.com" and ".example.com" are the same). Separated by commas
 * or blanks. */
bool proxy_excepts(const char *list, const char *host);

#endif
