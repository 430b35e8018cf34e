/* Names of members to addresses, by DNS and /etc/hosts.
 *
 *   10.0.0.1:5001  [::1]:5001   an address; needs no lookup
 *   host:port                   all its addresses, best first
 *   dns:name:port               all A and AAAA records
 *   srv:_service._proto.name    all SRV records (RFC 2782), whatever their
 *                               priority and weight, each with its port
 *
 * Without a port: RESOLVE_DEFAULT_PORT. Nothing is remembered here, and what
 * cannot be a member's address (multicast, link-local…) is left out.
 *
 * Any thread; resolve_run() blocks for seconds: on a worker. */
#ifndef P2P_RESOLVE_H
#define P2P_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"

#define RESOLVE_DEFAULT_PORT 5001
#define RESOLVE_NAME_MAX     254 /* with NUL */
#define RESOLVE_TEXT_MAX     64
/* Of one name; more are left out. */
#define RESOLVE_MAX_ADDRS 20000

enum resolve_kind { RESOLVE_ADDR, RESOLVE_HOST, RESOLVE_DNS, RESOLVE_SRV };

struct resolve_addr {
	uint8_t ip[16]; /* network order; IPv4 in the first four */
	bool v6;
	uint16_t port;
};

struct resolve_name {
	enum resolve_kind kind;
	char name[RESOLVE_NAME_MAX]; /* without "dns:", port and brackets */
	uint16_t port;		     /* not for srv: */
};

/* One entry of --peers. -EINVAL: *err names it and what is wrong. */
int resolve_parse(const char *s, struct resolve_name *ret, struct error *err);

/* "10.0.0.1:5001", "[::1]:5001". Always fits; returns out. */
char *resolve_addr_text(const struct resolve_addr *a,
			char out[RESOLVE_TEXT_MAX]);
/* Reads an IP address without port and brackets; IPv6 forms of IPv4 addresses
 * become IPv4. -EINVAL, also for one that cannot be a member's. */
int resolve_addr_parse(const char *ip, uint16_t port, struct resolve_addr *ret);

struct resolve_result {
	struct resolve_addr *v;
	size_t n;
	bool partial; /* some could not be looked up: others may exist */
	char why[160];
};

/* Blocks. nameserver: NULL for the system's, or "127.0.0.1:5353" to ask that
 * one and nothing else. When *stop (atomic) becomes non-zero it ends early.
 * 0; -ENOENT: the name has no address, says the name server; otherwise nobody
 * knows (-ETIMEDOUT and others), and ret->why is a sentence about it. The
 * caller releases *ret in any case. */
int resolve_run(const struct resolve_name *nm, const char *nameserver,
		const int *stop, struct resolve_result *ret);
void resolve_result_release(struct resolve_result *res);

#endif
