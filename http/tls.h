/* What libcurl cannot set by itself in an OpenSSL context. Any thread. */
#ifndef HTTP_TLS_H
#define HTTP_TLS_H

/* Trusts the certificates in a PEM file besides those that the SSL_CTX trusts
 * already. -ENOENT when the file cannot be read or holds none. */
int tls_add_ca_file(void *ssl_ctx, const char *path);

#endif
