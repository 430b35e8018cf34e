/* Certificates for tests, with any defect that a test needs; keys.c makes only
 * good ones. */
#ifndef TESTS_TLS_CERTS_H
#define TESTS_TLS_CERTS_H

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "tests/unit/tap.h"

#define DAY 86400L

struct identity {
	X509 *cert;
	EVP_PKEY *key;
};

struct cert_spec {
	const char *cn;		   /* NULL: no common name */
	const char *usage;	   /* extended; NULL: for both sides */
	long from, until;	   /* seconds from now; 0, 0: two days */
	const struct identity *ca; /* NULL: is a CA itself */
};

static inline void spec_extension(X509 *x, X509 *issuer, int nid,
				  const char *value)
{
	X509_EXTENSION *e;
	X509V3_CTX ctx;

	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	if (!e || X509_add_ext(x, e, -1) != 1)
		BAIL("extension");
	X509_EXTENSION_free(e);
}

static inline struct identity make_identity(struct cert_spec s)
{
	static long serial = 1000;
	struct identity id = {X509_new(), EVP_EC_gen("P-256")};
	const struct identity *ca = s.ca ? s.ca : &id;
	X509_NAME *name = X509_get_subject_name(id.cert);
	long until = s.from || s.until ? s.until : 2 * DAY;

	(void)X509_set_version(id.cert, X509_VERSION_3);
	(void)ASN1_INTEGER_set(X509_get_serialNumber(id.cert), ++serial);
	(void)X509_gmtime_adj(X509_getm_notBefore(id.cert),
			      s.from || s.until ? s.from : -2 * DAY);
	(void)X509_gmtime_adj(X509_getm_notAfter(id.cert), until);
	(void)X509_set_pubkey(id.cert, id.key);
	if (s.cn && X509_NAME_add_entry_by_NID(
			    name, NID_commonName, MBSTRING_UTF8,
			    (const unsigned char *)s.cn, -1, -1, 0) != 1)
		BAIL("name");
	if (!s.cn)
		(void)X509_NAME_add_entry_by_NID(
			name, NID_organizationName, MBSTRING_UTF8,
			(const unsigned char *)"nobody", -1, -1, 0);
	(void)X509_set_issuer_name(id.cert, X509_get_subject_name(ca->cert));
	if (!s.ca)
		spec_extension(id.cert, id.cert, NID_basic_constraints,
			       "critical,CA:TRUE");
	else
		spec_extension(id.cert, ca->cert, NID_ext_key_usage,
			       s.usage ? s.usage : "serverAuth,clientAuth");
	if (X509_sign(id.cert, ca->key, EVP_sha256()) <= 0)
		BAIL("sign");
	return id;
}

static inline void free_identity(struct identity *id)
{
	X509_free(id->cert);
	EVP_PKEY_free(id->key);
}

/* Replaces the files as a whole, by rename. */
static inline void save_cert(const char *path, const struct identity *id)
{
	char tmp[256];
	FILE *f;

	(void)snprintf(tmp, sizeof(tmp), "%.200s.new", path);
	f = fopen(tmp, "w");
	if (!f || PEM_write_X509(f, id->cert) != 1 || fclose(f) != 0 ||
	    rename(tmp, path) != 0)
		BAIL("certificate file");
}

static inline void save_key(const char *path, const struct identity *id,
			    const char *passphrase)
{
	char tmp[256];
	FILE *f;

	(void)snprintf(tmp, sizeof(tmp), "%.200s.new", path);
	f = fopen(tmp, "w");
	if (!f ||
	    PEM_write_PKCS8PrivateKey(
		    f, id->key, passphrase ? EVP_aes_128_cbc() : NULL,
		    passphrase, passphrase ? (int)strlen(passphrase) : 0, NULL,
		    NULL) != 1 ||
	    fclose(f) != 0 || rename(tmp, path) != 0)
		BAIL("key file");
}

#endif
