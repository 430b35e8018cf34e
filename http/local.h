/* Recognises addresses that a remote client must not make the daemon connect
 * to: those of this host or link, unspecified, multicast and broadcast ones.
 * Cloud providers serve credentials at link-local addresses. Any thread. */
#ifndef HTTP_LOCAL_H
#define HTTP_LOCAL_H

#include <stdbool.h>

struct sockaddr;

/* True for loopback, link-local, unspecified, multicast and broadcast
 * addresses, also inside IPv6 addresses (mapped, compatible, NAT64), and for
 * unknown families. */
bool addr_is_local(const struct sockaddr *sa);

/* The same for the host of a URL: an address in any notation that inet_aton(3)
 * accepts (127.1, 0x7f000001), "localhost", or a name that ends in
 * ".localhost". Other names are not local; the caller checks the addresses they
 * resolve to. */
bool host_looks_local(const char *host);

/* True if "host[:port]" or "[IPv6][:port]" is this host, where no other host
 * can listen: "localhost", or a loopback address in full. "127.1" and
 * "127.example" count as names. */
bool authority_is_loopback(const char *authority);

#endif
