/* What a node shows and trusts in TLS: a CA, its own certificate and the key of
 * that, read from three files once and again when one of them changes. To load
 * them costs two milliseconds of the processor with OpenSSL 3, as much as one
 * side of a handshake, so it is done once for many connections.
 *
 * Sources: the manual pages of OpenSSL 3.0. An identity belongs to one thread,
 * but for tls_identity_new() and tls_identity_free(). */
#ifndef HTTP_TLS_IDENTITY_H
#define HTTP_TLS_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

struct tls_identity;

/* Reads three PEM files (regular, at most 1 MiB each; the paths are copied).
 * ca_file: one or more CA certificates. cert_file: our certificate, then what
 * leads from it to the CA, if anything does. key_file: its key, without a
 * passphrase.
 *
 * -ENOENT, -EACCES and the like for a file that cannot be read, -EBADMSG for
 * one that is not what it should be, -EKEYREJECTED when key and certificate
 * do not belong together; *err names the file. */
int tls_identity_new(const char *ca_file, const char *cert_file,
		     const char *key_file, struct tls_identity **ret,
		     struct error *err);
/* NULLs; NULL allowed. What was used in contexts lives as long as they do. */
void tls_identity_free(struct tls_identity **t);

/* Looks whether a file was changed or replaced (three stat(2) when not) and if
 * so reads all three. 1: they are what is used from now on. 0: nothing changed.
 * Negative, as above: the new ones are no good; the old ones stay until the
 * next change, or the next call when it was for want of memory or descriptors.
 */
int tls_identity_refresh(struct tls_identity *t, struct error *err);
/* Rises with each that is taken up; from 1. */
uint64_t tls_identity_generation(const struct tls_identity *t);
bool tls_identity_is(const struct tls_identity *t, const char *ca_file,
		     const char *cert_file, const char *key_file);
const char *tls_identity_cert_file(const struct tls_identity *t);

/* Makes an SSL_CTX trust the CA, and nobody else, and show the certificate.
 * -ENOMEM. */
int tls_identity_use(const struct tls_identity *t, void *ssl_ctx);
/* Says in the log what others will find wrong: one that has expired, is not
 * valid yet or is of another CA. Clocks and files may still be put right. */
void tls_identity_warn(const struct tls_identity *t);

#endif
