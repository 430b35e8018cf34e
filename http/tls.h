/* TLS as members of a cluster speak it to each other: version 1.3, and both
 * sides show a certificate of the cluster's CA; which node it names is for the
 * caller to look at. Besides that, what libcurl cannot set by itself in an
 * OpenSSL context. OpenSSL is used in tls*.c and nowhere else on this floor.
 *
 * Sources: RFC 8446; the manual pages of OpenSSL 3.0.
 *
 * A tls_server and its sessions belong to one thread, the loop's. The others
 * may be called on any thread. */
#ifndef HTTP_TLS_H
#define HTTP_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/util.h"

/* ---- For libcurl ---- */

/* Trusts the certificates in a PEM file besides those that the SSL_CTX trusts
 * already. -ENOENT when the file cannot be read or holds none. */
int tls_add_ca_file(void *ssl_ctx, const char *path);

/* Longer names are left out. */
#define TLS_NAME_SIZE 129
/* The common name in the certificate of the other side of an SSL, "" if that
 * has none that can be printed. */
void tls_peer_name(void *ssl, char out[TLS_NAME_SIZE]);

/* ---- The server's side ---- */

/* A CA, a certificate and its key, as new connections use them. Connections
 * that stand keep those with which they were made. */
struct tls_server;

/* From three files, as tls_identity_new() (http/tls-identity.h). A certificate
 * that has expired, is not valid yet or is of another CA is only warned of in
 * the log: others refuse it, but clocks and files may still be put right. */
int tls_server_new(const char *ca_file, const char *cert_file,
		   const char *key_file, struct tls_server **ret,
		   struct error *err);
/* Once no session is left, which is when http_server_stop() has called back.
 * NULLs; NULL allowed. */
void tls_server_free(struct tls_server **s);

/* tls_identity_refresh(), for a timer of, say, 10 s. 1: new connections use the
 * new set. Negative: the new set is no good, which the log says once. */
int tls_server_reload_if_changed(struct tls_server *s);

/* ---- One connection ---- */

/* What is encrypted at once; and how much room tls_session_buffer() has. */
#define TLS_PIECE_BYTES (64U << 10)

struct tls_session;

/* A server's session over a connected, nonblocking socket, which is borrowed.
 * s must live longer. SIGPIPE is never raised. -ENOMEM. */
int tls_session_new(struct tls_server *s, int fd, struct tls_session **ret);
/* Frees and NULLs; sends nothing. NULL allowed. */
void tls_session_free(struct tls_session **t);

/* Also makes the handshake, as far as it gets. The number of bytes, or
 *   0              the client has sent all it wants to
 *   -EAGAIN        nothing there yet
 *   -EKEYREJECTED, -EPROTO
 *                  the handshake failed, see tls_session_failure(), or the
 *                  client broke the protocol; an alert for the client is on
 *                  its way. From then on calls read and drop what it sends:
 *                  closing with unread bytes would destroy the alert.
 *   others         the connection is broken */
ssize_t tls_session_read(struct tls_session *t, void *buf, size_t len);
/* Decrypted bytes wait for tls_session_read(): the socket will not tell. */
bool tls_session_pending(const struct tls_session *t);

/* Encrypts len bytes, all of them. What comes of it is sent by
 * tls_session_flush(); do not go on encrypting while that returns -EAGAIN,
 * or it piles up. -EPIPE when the session cannot send. */
int tls_session_write(struct tls_session *t, const void *bytes, size_t len);
/* 0: all of it is in the socket. -EAGAIN: wait until it can take more, and
 * call again. Others: the connection is broken. */
int tls_session_flush(struct tls_session *t);
/* Puts off the flush: further bytes are about to follow. One of the two must
 * come after a write and before anything is done with another session. */
int tls_session_hold(struct tls_session *t);
/* Bytes that wait for a flush. */
size_t tls_session_unsent(const struct tls_session *t);
/* Tells the client that nothing more comes, if it still can be told. To be
 * flushed. */
void tls_session_end(struct tls_session *t);

/* Room for TLS_PIECE_BYTES; shared by all sessions of a tls_server, so it is
 * valid until the loop is left. */
char *tls_session_buffer(struct tls_session *t);

/* The common name in the client's certificate, "" if that has none that can be
 * printed; NULL before the handshake is complete. */
const char *tls_session_name(const struct tls_session *t);
/* NULL unless the handshake failed, or has begun and is not complete: why, a
 * sentence, and in *ret_kind one word: "certificate" (the client's is no good),
 * "no_certificate", "refused" (the client does not want ours), "protocol" or
 * "incomplete". */
const char *tls_session_failure(const struct tls_session *t,
				const char **ret_kind);

#endif
