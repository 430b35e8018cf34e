/* How near an address is: on this host, on this link, or neither. Strangers
 * must not send the daemon to near ones: services of a host trust whoever
 * reaches them on loopback, and cloud providers hand out credentials at
 * link-local addresses. Any thread. */
#ifndef HTTP_LOCAL_H
#define HTTP_LOCAL_H

#include <stdbool.h>

struct sockaddr;

/* In this order. Addresses inside of IPv6 ones (mapped, compatible, NAT64)
 * count as themselves. */
enum addr_scope {
	ADDR_FAR,
	ADDR_HOST, /* loopback, and what the interfaces have now */
	ADDR_LINK, /* link-local, unspecified, multicast and broadcast, and
		      unknown families */
};

/* When the interfaces cannot be listed, all addresses are ADDR_HOST. */
enum addr_scope addr_scope(const struct sockaddr *sa);

/* The same for a URL's host: an address in any notation that inet_aton(3)
 * takes (127.1, 0x7f000001), or "localhost" and names that end in
 * ".localhost". Other names are ADDR_FAR; their addresses are another
 * question. */
enum addr_scope host_scope(const char *host);

/* Whether the host (IPv6 without brackets) is an address, in full. */
bool host_is_address(const char *host);

/* Whether it is one, and the network ("10.0.0.0/8", "fd00::/8", or an address,
 * with or without brackets) has it. */
bool host_in_network(const char *host, const char *network);
bool network_valid(const char *network);

/* True if "host[:port]" or "[IPv6][:port]" is this host, where no other host
 * can listen: "localhost", or a loopback address in full. "127.1" and
 * "127.example" count as names. */
bool authority_is_loopback(const char *authority);

#endif
