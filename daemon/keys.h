/* Makes the certificates with which the members of a cluster authenticate each
 * other: one CA per cluster, one certificate per node. All use ECDSA with
 * P-256, which OpenSSL signs and verifies twice as fast as Ed25519.
 *
 *   ca.crt, ca.key        keys_init(); keep ca.key off the nodes
 *   NODE.crt, NODE.key    keys_issue()
 *
 * Keys are PEM without a passphrase, mode 0600. Files appear whole or not at
 * all, and are durable when a call returns. Source: RFC 5280; the rules of the
 * CA/Browser Forum do not apply.
 *
 * Blocks on disk: call it from a command, not from the loop. */
#ifndef DAEMON_KEYS_H
#define DAEMON_KEYS_H

#include <time.h>

#include "base/util.h"

#define KEYS_CA_DAYS	   3650
#define KEYS_DAYS	   365 /* of a node's certificate, by default */
#define KEYS_MAX_NODE_NAME 64  /* bytes; RFC 5280's limit for a common name */

/* Makes a CA in dir; makes dir (mode 0700) if it is absent. -EEXIST: ca.crt or
 * ca.key exists; nothing is changed. */
int keys_init(const char *dir, struct error *err);

/* Makes or renews a node's key and certificate, signed by the CA in dir, for
 * servers and clients. It is valid from two days ago, since clocks differ,
 * until `days` from now or until the CA expires, if that is earlier. *ret_until
 * (may be NULL) gets that time. -EINVAL: the name has a slash, a control
 * character or a leading dot, is empty, too long, not UTF-8, or "ca"; or days
 * is 0 or more than KEYS_CA_DAYS. -ENOENT: there is no CA. -EKEYREJECTED:
 * ca.key does not match ca.crt, or the CA has expired. */
int keys_issue(const char *dir, const char *node, unsigned int days,
	       time_t *ret_until, struct error *err);

#endif
