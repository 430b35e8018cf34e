/* The TLS identity of a node: a CA, the node's certificate and its key, read
 * from three files, and again when one of them changes. Loading takes two
 * milliseconds of processor time with OpenSSL 3, as much as one side of a
 * handshake; so many connections share one identity.
 *
 * Sources: the manual pages of OpenSSL 3.0. An identity belongs to one thread,
 * except in tls_identity_new() and tls_identity_free(). */
#ifndef HTTP_TLS_IDENTITY_H
#define HTTP_TLS_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

struct tls_identity;

/* Reads three PEM files (regular, at most 1 MiB each); copies the paths.
 * ca_file: one or more CA certificates. cert_file: our certificate, then the
 * intermediate certificates up to the CA, if any. key_file: its key, without a
 * passphrase.
 *
 * -ENOENT, -EACCES and the like for a file that cannot be read; -EBADMSG for a
 * file with wrong content; -EKEYREJECTED if the key does not belong to the
 * certificate. *err names the file. */
int tls_identity_new(const char *ca_file, const char *cert_file,
		     const char *key_file, struct tls_identity **ret,
		     struct error *err);
/* Frees t and sets it to NULL; NULL is allowed. A context that uses the
 * identity keeps references to its parts. */
void tls_identity_free(struct tls_identity **t);

/* Checks whether a file was changed or replaced (three calls of stat(2)), and
 * if so reads all three. 1: the new content is in use from now on. 0: nothing
 * changed. Negative, as above: the new content cannot be used. The old content
 * then stays in use until the next change; or until the next call if the error
 * was a lack of memory or descriptors, or an I/O error. */
int tls_identity_refresh(struct tls_identity *t, struct error *err);
/* Starts at 1 and rises with each new content. */
uint64_t tls_identity_generation(const struct tls_identity *t);
bool tls_identity_is(const struct tls_identity *t, const char *ca_file,
		     const char *cert_file, const char *key_file);
const char *tls_identity_cert_file(const struct tls_identity *t);

/* Makes an SSL_CTX trust this CA only, and send our certificate. -ENOMEM. */
int tls_identity_use(const struct tls_identity *t, void *ssl_ctx);
/* Logs a warning if other nodes will refuse our certificate, because it has
 * expired, is not valid yet or comes from another CA, and one for an expired CA
 * certificate. Clock and files may still be corrected. */
void tls_identity_warn(const struct tls_identity *t);

#endif
