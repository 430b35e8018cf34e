#include "http/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

int tls_add_ca_file(void *ssl_ctx, const char *path)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ssl_ctx);

	if (X509_STORE_load_file(store, path) == 1)
		return 0;
	/* Else it would be taken for an error of the handshake. */
	ERR_clear_error();
	return -ENOENT;
}
