/* Turns names of members into addresses, by DNS and /etc/hosts.
 *
 *   10.0.0.1:5001  [::1]:5001   an address; needs no lookup
 *   host:port                   all its addresses, best first
 *   dns:name:port               all A and AAAA records
 *   srv:_service._proto.name    all SRV records (RFC 2782) with their ports;
 *                               priority and weight are ignored
 *
 * The default port is RESOLVE_DEFAULT_PORT. Nothing is cached here. Addresses
 * that no member can have (multicast, link-local …) are left out.
 *
 * Any thread; resolve_run() blocks for seconds, so call it on a worker. */
#ifndef P2P_RESOLVE_H
#define P2P_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"

#define RESOLVE_DEFAULT_PORT 5001
#define RESOLVE_NAME_MAX     254 /* with the NUL */
#define RESOLVE_TEXT_MAX     64
/* Addresses of one name; more are left out. */
#define RESOLVE_MAX_ADDRS 20000

enum resolve_kind { RESOLVE_ADDR, RESOLVE_HOST, RESOLVE_DNS, RESOLVE_SRV };

struct resolve_addr {
	uint8_t ip[16]; /* network order; IPv4 in the first four */
	bool v6;
	uint16_t port;
};

struct resolve_name {
	enum resolve_kind kind;
	char name[RESOLVE_NAME_MAX]; /* without the prefix, port and brackets */
	uint16_t port;		     /* 0 for srv: */
};

/* Parses one entry of --peers. -EINVAL: *err names it and the mistake. */
int resolve_parse(const char *s, struct resolve_name *ret, struct error *err);

/* Writes "10.0.0.1:5001" or "[::1]:5001", which always fits. Returns out. */
char *resolve_addr_text(const struct resolve_addr *a,
			char out[RESOLVE_TEXT_MAX]);
/* Parses an IP address without port and brackets; an IPv6-mapped IPv4 address
 * becomes IPv4. -EINVAL: malformed, or no member can have it. */
int resolve_addr_parse(const char *ip, uint16_t port, struct resolve_addr *ret);

struct resolve_result {
	struct resolve_addr *v;
	size_t n;
	bool partial; /* some lookups failed: there may be more addresses */
	char why[160];
};

/* Looks up a name. Blocks. nameserver: NULL for the system's, or
 * "127.0.0.1:5353" to ask only that one. Ends early when *stop (atomic) becomes
 * non-zero. -ENOENT: the name server says that the name has no address. Other
 * errors (-ETIMEDOUT …): the addresses are not known. ret->why is a sentence
 * about the error. The caller calls resolve_result_release() in any case. */
int resolve_run(const struct resolve_name *nm, const char *nameserver,
		const int *stop, struct resolve_result *ret);
void resolve_result_release(struct resolve_result *res);

#endif
