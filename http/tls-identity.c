#include "http/tls-identity.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define PEM_MAX (1 << 20)

enum tls_file { CA_FILE, CERT_FILE, KEY_FILE, N_FILES };

/* Attributes that differ if a file was changed or replaced. */
struct file_id {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

/* The content of the files. */
struct material {
	X509_STORE *ca;
	X509 *own;
	struct stack_st_X509 *chain; /* from `own` to the CA */
	EVP_PKEY *key;
};

struct tls_identity {
	char *path[N_FILES];
	struct file_id seen[N_FILES]; /* of the last attempt to read */
	uint64_t generation;
	struct material m;
};

/* All zero for a file that is absent. */
static void identify(const char *path, struct file_id *ret)
{
	struct stat st;

	memset(ret, 0, sizeof(*ret));
	if (stat(path, &st) < 0)
		return;
	ret->dev = st.st_dev;
	ret->ino = st.st_ino;
	ret->size = st.st_size;
	ret->mtime = st.st_mtim;
	ret->ctime = st.st_ctim;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_file(const struct file_id *a, const struct file_id *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       same_time(a->mtime, b->mtime) && same_time(a->ctime, b->ctime);
}

static void bio_freep(BIO **b)
{
	(void)BIO_free(*b); /* also wipes the content */
}

static void store_ctx_freep(X509_STORE_CTX **s)
{
	X509_STORE_CTX_free(*s);
}

static void store_freep(X509_STORE **s)
{
	X509_STORE_free(*s);
}

static void chain_freep(struct stack_st_X509 **s)
{
	sk_X509_pop_free(*s, X509_free);
}

static int file_error(struct error *err, int r, const char *path)
{
	return set_error(err, r, "%s: %s", path, strerror(-r));
}

/* Never blocks for long: refuses everything but a small regular file. */
static int read_file(const char *path, BIO **ret, struct error *err)
{
	CLEANUP(closep) int fd = -1;
	CLEANUP(bio_freep) BIO *mem = BIO_new(BIO_s_mem());
	struct stat st;
	char buf[4096];
	size_t left = PEM_MAX;
	ssize_t n;

	if (!mem)
		return file_error(err, -ENOMEM, path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return file_error(err, -errno, path);
	if (!S_ISREG(st.st_mode))
		return set_error(err, -EBADMSG, "%s: not a regular file", path);
	while ((n = read(fd, buf, sizeof(buf))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return file_error(err, -errno, path);
		if ((size_t)n > left)
			return set_error(err, -EBADMSG, "%s: larger than 1 MiB",
					 path);
		left -= (size_t)n;
		if (BIO_write(mem, buf, (int)n) != n)
			return file_error(err, -ENOMEM, path);
	}
	OPENSSL_cleanse(buf, sizeof(buf));
	*ret = steal_ptr(&mem);
	return 0;
}

/* A daemon has nobody to ask for a passphrase. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	*(bool *)arg = true;
	return -1;
}

/* After PEM_read_bio_…() returned NULL: true if that was the end of the
 * file. */
static bool pem_end(void)
{
	bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;

	ERR_clear_error();
	return end;
}

/* Reads one or more certificates. */
static int read_certs(const char *path, struct stack_st_X509 **ret,
		      struct error *err)
{
	CLEANUP(chain_freep) struct stack_st_X509 *chain = sk_X509_new_null();
	CLEANUP(bio_freep) BIO *mem = NULL;
	X509 *x;
	int r = read_file(path, &mem, err);

	if (r < 0)
		return r;
	ERR_clear_error();
	while (chain && (x = PEM_read_bio_X509(mem, NULL, NULL, NULL))) {
		if (sk_X509_push(chain, x) <= 0) {
			X509_free(x);
			return file_error(err, -ENOMEM, path);
		}
	}
	if (!chain)
		return file_error(err, -ENOMEM, path);
	if (!pem_end())
		return set_error(err, -EBADMSG, "%s: a certificate is damaged",
				 path);
	if (sk_X509_num(chain) == 0)
		return set_error(err, -EBADMSG,
				 "%s: no certificate in PEM form in it", path);
	*ret = steal_ptr(&chain);
	return 0;
}

static int read_key(const char *path, EVP_PKEY **ret, struct error *err)
{
	CLEANUP(bio_freep) BIO *mem = NULL;
	bool encrypted = false;
	int r = read_file(path, &mem, err);

	if (r < 0)
		return r;
	ERR_clear_error();
	*ret = PEM_read_bio_PrivateKey(mem, NULL, no_passphrase, &encrypted);
	if (*ret)
		return 0;
	if (encrypted) {
		ERR_clear_error();
		return set_error(err, -EBADMSG,
				 "%s: the key has a passphrase; peerd needs "
				 "one without",
				 path);
	}
	return set_error(err, -EBADMSG,
			 pem_end() ? "%s: no private key in PEM form in it"
				   : "%s: the private key is damaged",
			 path);
}

static void material_release(struct material *m)
{
	X509_STORE_free(m->ca);
	X509_free(m->own);
	sk_X509_pop_free(m->chain, X509_free);
	EVP_PKEY_free(m->key);
	*m = (struct material){0};
}

static int read_ca(const char *path, X509_STORE **ret, struct error *err)
{
	CLEANUP(chain_freep) struct stack_st_X509 *certs = NULL;
	CLEANUP(store_freep) X509_STORE *store = X509_STORE_new();
	int r = read_certs(path, &certs, err);

	if (r < 0)
		return r;
	if (!store)
		return file_error(err, -ENOMEM, path);
	for (int i = 0; i < sk_X509_num(certs); i++) {
		X509 *x = sk_X509_value(certs, i);

		if (X509_check_ca(x) == 0)
			return set_error(err, -EBADMSG,
					 "%s: a certificate in it is not a CA "
					 "certificate",
					 path);
		if (X509_STORE_add_cert(store, x) != 1)
			return file_error(err, -ENOMEM, path);
	}
	/* Accepts an intermediate CA as trust anchor, as libcurl does. */
	(void)X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
	*ret = steal_ptr(&store);
	return 0;
}

static int read_own(const char *cert_path, const char *key_path,
		    struct material *m, struct error *err)
{
	int r = read_certs(cert_path, &m->chain, err);

	if (r == 0)
		r = read_key(key_path, &m->key, err);
	if (r < 0)
		return r;
	m->own = sk_X509_shift(m->chain);
	if (X509_check_private_key(m->own, m->key) == 1)
		return 0;
	ERR_clear_error();
	return set_error(err, -EKEYREJECTED,
			 "%s: not the key of the certificate in %s", key_path,
			 cert_path);
}

static bool use(const struct material *m, SSL_CTX *ctx)
{
	SSL_CTX_set1_cert_store(ctx, m->ca);
	return SSL_CTX_use_cert_and_key(ctx, m->own, m->key, m->chain, 1) == 1;
}

/* Makes a context on trial: OpenSSL refuses, for example, keys that are too
 * short. */
static int try_out(const struct material *m, const char *path,
		   struct error *err)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	const char *why;
	bool ok;

	if (!ctx)
		return set_error(err, -ENOMEM, "cannot make a TLS context");
	ok = use(m, ctx);
	SSL_CTX_free(ctx);
	if (ok)
		return 0;
	why = ERR_reason_error_string(ERR_peek_error());
	ERR_clear_error();
	return set_error(err, -EBADMSG,
			 "%s: OpenSSL refuses the certificate or key: %s", path,
			 why ? why : "unknown error");
}

static int load(struct tls_identity *t, struct error *err)
{
	CLEANUP(material_release) struct material m = {0};
	int r;

	ERR_clear_error();
	r = read_ca(t->path[CA_FILE], &m.ca, err);
	if (r == 0)
		r = read_own(t->path[CERT_FILE], t->path[KEY_FILE], &m, err);
	if (r == 0)
		r = try_out(&m, t->path[CERT_FILE], err);
	if (r < 0)
		return r;
	material_release(&t->m);
	t->m = m;
	m = (struct material){0};
	t->generation++;
	return 0;
}

/* ---- The interface ---- */

int tls_identity_new(const char *ca_file, const char *cert_file,
		     const char *key_file, struct tls_identity **ret,
		     struct error *err)
{
	const char *const path[] = {ca_file, cert_file, key_file};
	CLEANUP(tls_identity_free)
	struct tls_identity *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return set_error(err, -ENOMEM, "out of memory");
	for (int i = 0; i < N_FILES; i++) {
		t->path[i] = strdup(path[i]);
		if (!t->path[i])
			return set_error(err, -ENOMEM, "out of memory");
		identify(path[i], &t->seen[i]);
	}
	r = load(t, err);
	if (r < 0)
		return r;
	*ret = steal_ptr(&t);
	return 0;
}

void tls_identity_free(struct tls_identity **tp)
{
	struct tls_identity *t = *tp;

	if (!t)
		return;
	material_release(&t->m);
	for (int i = 0; i < N_FILES; i++)
		free(t->path[i]);
	free(t);
	*tp = NULL;
}

int tls_identity_refresh(struct tls_identity *t, struct error *err)
{
	bool changed = false;
	int r;

	/* Before reading: a change during the read is then seen by the next
	 * call. */
	for (int i = 0; i < N_FILES; i++) {
		struct file_id now;

		identify(t->path[i], &now);
		changed |= !same_file(&now, &t->seen[i]);
		t->seen[i] = now;
	}
	if (!changed)
		return 0;
	r = load(t, err);
	/* Not an error of the files: try again at the next call. */
	if (r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -EIO)
		memset(t->seen, 0, sizeof(t->seen));
	return r < 0 ? r : 1;
}

uint64_t tls_identity_generation(const struct tls_identity *t)
{
	return t->generation;
}

bool tls_identity_is(const struct tls_identity *t, const char *ca_file,
		     const char *cert_file, const char *key_file)
{
	return strcmp(t->path[CA_FILE], ca_file) == 0 &&
	       strcmp(t->path[CERT_FILE], cert_file) == 0 &&
	       strcmp(t->path[KEY_FILE], key_file) == 0;
}

const char *tls_identity_cert_file(const struct tls_identity *t)
{
	return t->path[CERT_FILE];
}

int tls_identity_use(const struct tls_identity *t, void *ssl_ctx)
{
	if (use(&t->m, ssl_ctx))
		return 0;
	ERR_clear_error();
	return -ENOMEM;
}

static void warn_of_ca(const struct tls_identity *t)
{
	CLEANUP(chain_freep)
	struct stack_st_X509 *all = X509_STORE_get1_all_certs(t->m.ca);

	for (int i = 0; i < sk_X509_num(all); i++)
		if (X509_cmp_current_time(
			    X509_get0_notAfter(sk_X509_value(all, i))) < 0)
			log_warn("a CA certificate has expired",
				 LS("file", t->path[CA_FILE]));
}

void tls_identity_warn(const struct tls_identity *t)
{
	CLEANUP(store_ctx_freep) X509_STORE_CTX *v = X509_STORE_CTX_new();

	warn_of_ca(t);
	if (v && X509_STORE_CTX_init(v, t->m.ca, t->m.own, t->m.chain) == 1 &&
	    X509_STORE_CTX_set_default(v, "ssl_server") == 1 &&
	    X509_verify_cert(v) != 1)
		log_warn("other nodes will refuse our certificate",
			 LS("file", t->path[CERT_FILE]),
			 LS("cause", X509_verify_cert_error_string(
					     X509_STORE_CTX_get_error(v))));
	ERR_clear_error();
}
