/* TLS between members of a cluster: version 1.3, and both sides send a
 * certificate of the cluster's CA. The caller checks which node the certificate
 * names. Also a setting of OpenSSL contexts that libcurl cannot make. Only the
 * tls*.c files use OpenSSL on this floor.
 *
 * Sources: RFC 8446; the manual pages of OpenSSL 3.0.
 *
 * A tls_server and its sessions belong to one thread, the loop's. The other
 * functions may be called on any thread. */
#ifndef HTTP_TLS_H
#define HTTP_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/util.h"

/* ---- For libcurl ---- */

/* Makes an SSL_CTX trust the certificates in a PEM file besides those that it
 * trusts already. -ENOENT if the file cannot be read or holds none. */
int tls_add_ca_file(void *ssl_ctx, const char *path);

/* Longer names are left out. */
#define TLS_NAME_SIZE 129
/* The common name in the certificate of the other side of an SSL, "" if that
 * has none that can be printed. */
void tls_peer_name(void *ssl, char out[TLS_NAME_SIZE]);

/* ---- The server's side ---- */

/* A CA, a certificate and its key, for new connections. An existing connection
 * keeps those that it was made with. */
struct tls_server;

/* Loads three files as tls_identity_new() (http/tls-identity.h), with its
 * errors. Only logs a warning for a certificate that has expired, is not valid
 * yet or comes from another CA: other nodes refuse it, but clock and files may
 * still be corrected. */
int tls_server_new(const char *ca_file, const char *cert_file,
		   const char *key_file, struct tls_server **ret,
		   struct error *err);
/* Frees s and sets it to NULL; NULL is allowed. Only when no session is left,
 * i.e. after the done() of http_server_stop(). */
void tls_server_free(struct tls_server **s);

/* Reloads changed files (tls_identity_refresh()); for a timer of about 10 s. 1:
 * new connections use the new files. 0: no change. Negative: the new files
 * cannot be used, which is logged once. */
int tls_server_reload_if_changed(struct tls_server *s);

/* ---- One connection ---- */

/* Most bytes to encrypt in one call, and the size of tls_session_buffer(). */
#define TLS_PIECE_BYTES (64U << 10)

struct tls_session;

/* Makes a session over a connected, nonblocking socket. fd is borrowed; s must
 * outlive the session. Never raises SIGPIPE. -ENOMEM. */
int tls_session_new(struct tls_server *s, int fd, struct tls_session **ret);
/* Frees t and sets it to NULL; sends nothing. NULL is allowed. */
void tls_session_free(struct tls_session **t);

/* Reads and decrypts, and advances the handshake. Returns the number of bytes,
 * or
 *
 *   0              the client has closed its half
 *   -EAGAIN        no bytes yet
 *   -EKEYREJECTED, -EPROTO
 *                  the handshake failed, see tls_session_failure(), or the
 *                  client broke the protocol. An alert for the client is on
 *                  its way. Further calls read and drop the client's bytes,
 *                  because closing with unread bytes would destroy the alert.
 *   others         the connection is broken */
ssize_t tls_session_read(struct tls_session *t, void *buf, size_t len);
/* True if decrypted bytes wait for tls_session_read(). The socket does not show
 * them. */
bool tls_session_pending(const struct tls_session *t);

/* Encrypts all len bytes, at most TLS_PIECE_BYTES; tls_session_flush() sends
 * the result. While that returns -EAGAIN the caller must not write more, or
 * bytes pile up in memory. -EPIPE if the session cannot send. */
int tls_session_write(struct tls_session *t, const void *bytes, size_t len);
/* Sends encrypted bytes. 0: all are in the socket. -EAGAIN: call again when the
 * socket is writable. Others: the connection is broken. */
int tls_session_flush(struct tls_session *t);
/* Keeps the bytes for a later flush, because more follow. After a write, either
 * this or tls_session_flush() must be called before another session is used.
 * -ENOMEM. */
int tls_session_hold(struct tls_session *t);
/* Number of bytes that wait for a flush. */
size_t tls_session_unsent(const struct tls_session *t);
/* Encrypts the closing alert (close_notify), if the session can still send. The
 * caller flushes. */
void tls_session_end(struct tls_session *t);

/* A buffer of TLS_PIECE_BYTES. All sessions of a tls_server share it, so it is
 * valid only within the current callback of the loop. */
char *tls_session_buffer(struct tls_session *t);

/* The common name in the client's certificate; "" if it has none that is
 * printable; NULL before the handshake is complete. */
const char *tls_session_name(const struct tls_session *t);
/* A sentence that tells why the handshake failed or is not complete; else NULL.
 * *ret_kind is one word: "certificate" (the client's was refused),
 * "no_certificate", "refused" (the client sent an alert), "protocol" or
 * "incomplete". */
const char *tls_session_failure(const struct tls_session *t,
				const char **ret_kind);

#endif
