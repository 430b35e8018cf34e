/* Addresses that are not for strangers to ask for: those of this host, of this
 * link, of nobody, and of many. Cloud providers hand out credentials at
 * link-local ones. Any thread. */
#ifndef HTTP_LOCAL_H
#define HTTP_LOCAL_H

#include <stdbool.h>

struct sockaddr;

/* Loopback, link-local, unspecified, multicast and broadcast addresses, also
 * inside of IPv6 ones (mapped, compatible, NAT64). Unknown families too. */
bool addr_is_local(const struct sockaddr *sa);

/* The same for a URL's host: an address in any notation that inet_aton(3)
 * takes (127.1, 0x7f000001), or "localhost" and what ends in ".localhost".
 * Other names are not local; what they resolve to is another question. */
bool host_looks_local(const char *host);

/* Whether "host[:port]" or "[IPv6][:port]" is this host and nobody else can
 * listen there: "localhost", or a loopback address in full. "127.1" and
 * "127.example" are names. */
bool authority_is_loopback(const char *authority);

#endif
