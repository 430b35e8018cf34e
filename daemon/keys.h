/* The certificates by which the members of a cluster know each other: one CA
 * per cluster, one certificate per node. ECDSA with P-256 throughout, which
 * OpenSSL signs and verifies twice as fast as Ed25519.
 *
 *   ca.crt, ca.key        keys_init(); ca.key belongs on no node
 *   NODE.crt, NODE.key    keys_issue()
 *
 * Keys are PEM without a passphrase, mode 0600. Files appear whole or not at
 * all, and are on disk when a call returns. Sources: RFC 5280; the CA/Browser
 * Forum has no say here.
 *
 * Blocks on disk; for the command line, not for the loop. */
#ifndef DAEMON_KEYS_H
#define DAEMON_KEYS_H

#include <time.h>

#include "base/util.h"

#define KEYS_CA_DAYS	   3650
#define KEYS_DAYS	   365 /* of a node's certificate, unless told */
#define KEYS_MAX_NODE_NAME 64  /* bytes; RFC 5280's bound of a common name */

/* Makes a CA in dir, and dir (0700) if it is absent. -EEXIST: there is a CA, or
 * half of one; nothing is touched. */
int keys_init(const char *dir, struct error *err);

/* Makes, or renews, a node's key and certificate, signed by the CA in dir: for
 * servers and clients, valid from two days ago, since clocks differ, for `days`
 * from now, but not beyond the CA's own end. *ret_until (may be NULL) is when
 * it ends. -EINVAL for a name with a slash, a control character or a dot in
 * front, for one that is empty, too long, not UTF-8, or "ca"; -ENOENT without a
 * CA; -EKEYREJECTED when the CA's two files do not belong together or it has
 * expired. */
int keys_issue(const char *dir, const char *node, unsigned int days,
	       time_t *ret_until, struct error *err);

#endif
