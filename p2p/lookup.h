/* Names of members to addresses, by DNS and /etc/hosts.
 *
 *   10.0.0.1:5001  [::1]:5001   an address; needs no lookup
 *   host:port                   all its addresses, best first
 *   dns:name:port               all A and AAAA records
 *   srv:_service._proto.name    all SRV records (RFC 2782), whatever their
 *                               priority and weight, each with its port
 *
 * Without a port: LOOKUP_DEFAULT_PORT. Nothing is remembered here, and what
 * cannot be a member's address (multicast, link-local…) is left out.
 *
 * Any thread; lookup_run() blocks for seconds: on a worker. */
#ifndef P2P_LOOKUP_H
#define P2P_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"

#define LOOKUP_DEFAULT_PORT 5001
#define LOOKUP_NAME_MAX	    254 /* with NUL */
#define LOOKUP_TEXT_MAX	    64
/* Of one name; more are left out. */
#define LOOKUP_MAX_ADDRS 20000

enum lookup_kind { LOOKUP_ADDR, LOOKUP_HOST, LOOKUP_DNS, LOOKUP_SRV };

struct lookup_addr {
	uint8_t ip[16]; /* network order; IPv4 in the first four */
	bool v6;
	uint16_t port;
};

struct lookup_name {
	enum lookup_kind kind;
	char name[LOOKUP_NAME_MAX]; /* without "dns:", port and brackets */
	uint16_t port;		    /* not for srv: */
};

/* One entry of --peers. -EINVAL: *err names it and what is wrong. */
int lookup_parse(const char *s, struct lookup_name *ret, struct error *err);

/* "10.0.0.1:5001", "[::1]:5001". Always fits; returns out. */
char *lookup_addr_text(const struct lookup_addr *a, char out[LOOKUP_TEXT_MAX]);
/* Reads an IP address without port and brackets; IPv6 forms of IPv4 addresses
 * become IPv4. -EINVAL, also for one that cannot be a member's. */
int lookup_addr_parse(const char *ip, uint16_t port, struct lookup_addr *ret);

struct lookup_result {
	struct lookup_addr *v;
	size_t n;
	bool partial; /* some could not be looked up: others may exist */
	char why[160];
};

/* Blocks. nameserver: NULL for the system's, or "127.0.0.1:5353" to ask that
 * one and nothing else. When *stop (atomic) becomes non-zero it ends early.
 * 0; -ENOENT: the name has no address, says the name server; otherwise nobody
 * knows (-ETIMEDOUT and others), and ret->why is a sentence about it. The
 * caller releases *ret in any case. */
int lookup_run(const struct lookup_name *nm, const char *nameserver,
	       const int *stop, struct lookup_result *ret);
void lookup_result_release(struct lookup_result *res);

#endif
