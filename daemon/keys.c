#include "daemon/keys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/text.h"

#define EARLIER_S (2 * 86400L)
#define DAY_S	  86400L

static void x509_freep(X509 **x)
{
	X509_free(*x);
}

static void pkey_freep(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}

static void bio_freep(BIO **b)
{
	(void)BIO_free(*b); /* also wipes the bytes */
}

static void bn_freep(BIGNUM **n)
{
	BN_free(*n);
}

static void filep(FILE **f)
{
	if (*f)
		(void)fclose(*f);
}

/* Sets err to `what` and OpenSSL's reason. */
static int ssl_error(struct error *err, const char *what)
{
	const char *why = ERR_reason_error_string(ERR_peek_error());

	ERR_clear_error();
	return set_error(err, -EIO, "%s: %s", what,
			 why ? why : "OpenSSL gives no reason");
}

/* ---- Files ---- */

static int dir_open(const char *dir, int *ret, struct error *err)
{
	*ret = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*ret >= 0)
		return 0;
	return set_error(err, -errno, "%s: %s", dir, strerror(errno));
}

struct file {
	char name[KEYS_MAX_NODE_NAME + 8];
	char tmp[32]; /* "": there is none */
	BIO *bytes;
	mode_t mode;
};

static int write_all(int fd, const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Writes the file under a random name. A node's name cannot begin with a dot,
 * so the names cannot collide. */
static int write_tmp(int dirfd, struct file *f)
{
	CLEANUP(closep) int fd = -1;
	unsigned char id[8];
	char *bytes = NULL;
	long len = BIO_get_mem_data(f->bytes, &bytes);
	int r;

	if (RAND_bytes(id, sizeof(id)) != 1)
		return -EIO;
	(void)snprintf(f->tmp, sizeof(f->tmp), ".tmp-%02x%02x%02x%02x%02x%02x",
		       id[0], id[1], id[2], id[3], id[4], id[5]);
	fd = openat(dirfd, f->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
		    f->mode);
	if (fd < 0) {
		r = -errno;
		f->tmp[0] = '\0';
		return r;
	}
	r = write_all(fd, bytes, (size_t)len);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

static void remove_tmp(int dirfd, struct file *f)
{
	if (f->tmp[0])
		(void)unlinkat(dirfd, f->tmp, 0);
	f->tmp[0] = '\0';
}

/* link(2) never replaces a file; rename(2) always does. */
static int put_in_place(int dirfd, struct file *f, bool replace)
{
	int r = replace ? renameat(dirfd, f->tmp, dirfd, f->name)
			: linkat(dirfd, f->tmp, dirfd, f->name, 0);

	if (r < 0)
		return -errno;
	if (replace)
		f->tmp[0] = '\0';
	else
		remove_tmp(dirfd, f);
	return 0;
}

/* Saves both files. If the second fails and `replace` is false, the first is
 * removed. */
static int save(int dirfd, const char *dir, struct file f[2], bool replace,
		struct error *err)
{
	struct file *at = f;
	int r = 0;

	for (int i = 0; r == 0 && i < 2; i++) {
		at = &f[i];
		r = write_tmp(dirfd, at);
	}
	for (int i = 0; r == 0 && i < 2; i++) {
		at = &f[i];
		r = put_in_place(dirfd, at, replace);
		if (r < 0 && i == 1 && !replace)
			(void)unlinkat(dirfd, f[0].name, 0);
	}
	remove_tmp(dirfd, &f[0]);
	remove_tmp(dirfd, &f[1]);
	if (r == 0 && fsync(dirfd) < 0)
		r = -errno;
	return r == 0 ? 0
		      : set_error(err, r, "%s/%s: %s", dir, at->name,
				  strerror(-r));
}

static int open_file(int dirfd, const char *dir, const char *name, FILE **ret,
		     struct error *err)
{
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC), r;

	*ret = fd < 0 ? NULL : fdopen(fd, "r");
	if (*ret)
		return 0;
	r = -errno;
	if (fd >= 0)
		(void)close(fd);
	if (r == -ENOENT)
		return set_error(err, r,
				 "%s/%s: no such file; `peerd keys init` makes "
				 "it",
				 dir, name);
	return set_error(err, r, "%s/%s: %s", dir, name, strerror(-r));
}

/* Makes OpenSSL fail instead of prompting for a passphrase. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

static int load_ca(int dirfd, const char *dir, X509 **ret, EVP_PKEY **ret_key,
		   struct error *err)
{
	CLEANUP(filep) FILE *crt = NULL, *key = NULL;
	int r = open_file(dirfd, dir, "ca.crt", &crt, err);

	if (r == 0)
		r = open_file(dirfd, dir, "ca.key", &key, err);
	if (r < 0)
		return r;
	ERR_clear_error();
	*ret = PEM_read_X509(crt, NULL, NULL, NULL);
	if (!*ret)
		return set_error(err, -EBADMSG, "%s/ca.crt: not a certificate",
				 dir);
	*ret_key = PEM_read_PrivateKey(key, NULL, no_passphrase, NULL);
	if (!*ret_key)
		return set_error(err, -EBADMSG,
				 "%s/ca.key: not a private key, or one with a "
				 "passphrase",
				 dir);
	if (X509_check_private_key(*ret, *ret_key) != 1)
		return set_error(err, -EKEYREJECTED,
				 "%s: ca.key is not the key of ca.crt", dir);
	if (X509_cmp_current_time(X509_get0_notAfter(*ret)) < 0)
		return set_error(err, -EKEYREJECTED,
				 "%s/ca.crt: the CA has expired", dir);
	return 0;
}

/* ---- Certificates ---- */

static bool add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;
	bool ok;

	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = e && X509_add_ext(x, e, -1) == 1;
	X509_EXTENSION_free(e);
	return ok;
}

/* 128 random bits, so that a renewed certificate of the same name has another
 * serial number. */
static bool set_serial(X509 *x)
{
	CLEANUP(bn_freep) BIGNUM *n = BN_new();

	return n && BN_rand(n, 128, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
	       !BN_is_zero(n) &&
	       BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) != NULL;
}

/* A certificate without names, extensions and signature. */
static X509 *new_cert(EVP_PKEY *key, time_t until)
{
	CLEANUP(x509_freep) X509 *x = X509_new();

	if (!x || X509_set_version(x, X509_VERSION_3) != 1 || !set_serial(x) ||
	    !X509_gmtime_adj(X509_getm_notBefore(x), -EARLIER_S) ||
	    !ASN1_TIME_set(X509_getm_notAfter(x), until) ||
	    X509_set_pubkey(x, key) != 1)
		return NULL;
	return steal_ptr(&x);
}

static bool set_name(X509 *x, const char *cn)
{
	return X509_NAME_add_entry_by_NID(X509_get_subject_name(x),
					  NID_commonName, MBSTRING_UTF8,
					  (const unsigned char *)cn, -1, -1,
					  0) == 1;
}

static int to_files(X509 *x, EVP_PKEY *key, struct file f[2])
{
	f[0].bytes = BIO_new(BIO_s_mem());
	f[1].bytes = BIO_new(BIO_s_mem());
	f[0].mode = 0600;
	f[1].mode = 0644;
	if (!f[0].bytes || !f[1].bytes ||
	    PEM_write_bio_PKCS8PrivateKey(f[0].bytes, key, NULL, NULL, 0, NULL,
					  NULL) != 1 ||
	    PEM_write_bio_X509(f[1].bytes, x) != 1)
		return -EIO;
	return 0;
}

static int save_pair(int dirfd, const char *dir, const char *name, X509 *x,
		     EVP_PKEY *key, bool replace, struct error *err)
{
	struct file f[2] = {{.bytes = NULL}};
	int r;

	/* The key comes first: a certificate without its key is useless. */
	(void)snprintf(f[0].name, sizeof(f[0].name), "%s.key", name);
	(void)snprintf(f[1].name, sizeof(f[1].name), "%s.crt", name);
	r = to_files(x, key, f);
	if (r < 0)
		r = ssl_error(err, "cannot write PEM");
	else
		r = save(dirfd, dir, f, replace, err);
	bio_freep(&f[0].bytes);
	bio_freep(&f[1].bytes);
	return r;
}

static bool exists(int dirfd, const char *name)
{
	return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static X509 *make_ca(EVP_PKEY *key)
{
	CLEANUP(x509_freep) X509 *x = NULL;
	unsigned char id[4];
	char cn[64];

	x = new_cert(key, time(NULL) + KEYS_CA_DAYS * DAY_S);
	/* A random name lets error messages tell two CAs apart. */
	if (!x || RAND_bytes(id, sizeof(id)) != 1)
		return NULL;
	(void)snprintf(cn, sizeof(cn), "peerd cluster CA %02x%02x%02x%02x",
		       id[0], id[1], id[2], id[3]);
	if (!set_name(x, cn) ||
	    X509_set_issuer_name(x, X509_get_subject_name(x)) != 1 ||
	    !add_extension(x, x, NID_basic_constraints,
			   "critical,CA:TRUE,pathlen:0") ||
	    !add_extension(x, x, NID_key_usage,
			   "critical,keyCertSign,cRLSign") ||
	    !add_extension(x, x, NID_subject_key_identifier, "hash") ||
	    X509_sign(x, key, EVP_sha256()) <= 0)
		return NULL;
	return steal_ptr(&x);
}

int keys_init(const char *dir, struct error *err)
{
	CLEANUP(closep) int dirfd = -1;
	CLEANUP(pkey_freep) EVP_PKEY *key = NULL;
	CLEANUP(x509_freep) X509 *ca = NULL;
	int r;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return set_error(err, -errno, "%s: %s", dir, strerror(errno));
	r = dir_open(dir, &dirfd, err);
	if (r < 0)
		return r;
	/* save() would fail too, but with a less clear message. */
	if (exists(dirfd, "ca.crt") || exists(dirfd, "ca.key"))
		return set_error(err, -EEXIST,
				 "%s: there is a CA already (ca.crt, ca.key); "
				 "nothing was changed",
				 dir);
	ERR_clear_error();
	key = EVP_EC_gen("P-256");
	ca = key ? make_ca(key) : NULL;
	if (!ca)
		return ssl_error(err, "cannot make a CA");
	return save_pair(dirfd, dir, "ca", ca, key, false, err);
}

/* ---- Nodes ---- */

static int check_name(const char *s, struct error *err)
{
	size_t len = strlen(s), n;
	const char *why = NULL;

	if (len == 0)
		why = "is empty";
	else if (len > KEYS_MAX_NODE_NAME)
		why = "is longer than 64 bytes";
	else if (*s == '.')
		why = "begins with a dot";
	else if (strchr(s, '/'))
		why = "has a slash";
	else if (strcmp(s, "ca") == 0)
		why = "is reserved for the CA's files";
	for (const char *p = s; !why && *p; p += n) {
		n = utf8_len(p, len - (size_t)(p - s));
		if (n == 0)
			why = "is not UTF-8";
		else if ((unsigned char)*p < 0x20 || *p == 0x7f ||
			 /* U+0080 to U+009F */
			 (n == 2 && memcmp(p, "\xc2\xa0", 2) < 0))
			why = "has a control character";
	}
	return why ? set_error(err, -EINVAL, "the node's name %s", why) : 0;
}

/* RFC 1123, 2.1. */
static bool is_dns_name(const char *s)
{
	static const char ok[] = "abcdefghijklmnopqrstuvwxyz"
				 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

	for (;;) {
		size_t n = strspn(s, ok);

		if (n == 0 || n > 63 || s[0] == '-' || s[n - 1] == '-')
			return false;
		if (s[n] == '\0')
			return true;
		if (s[n] != '.')
			return false;
		s += n + 1;
	}
}

/* peerd does not check the alternative name, but other programs do. */
static bool add_alt_name(X509 *x, X509 *ca, const char *node)
{
	char value[KEYS_MAX_NODE_NAME + 8];
	struct in6_addr ip;
	const char *type = "DNS";

	if (inet_pton(AF_INET, node, &ip) == 1 ||
	    inet_pton(AF_INET6, node, &ip) == 1)
		type = "IP";
	else if (!is_dns_name(node))
		return true;
	(void)snprintf(value, sizeof(value), "%s:%s", type, node);
	return add_extension(x, ca, NID_subject_alt_name, value);
}

static bool fill_node(X509 *x, X509 *ca, EVP_PKEY *ca_key, const char *node)
{
	/* A CA that peerd did not make may have a key type that takes no
	 * digest (Ed25519). */
	const EVP_MD *md = EVP_sha256();
	char name[32];

	if (EVP_PKEY_get_default_digest_name(ca_key, name, sizeof(name)) == 2 &&
	    strcmp(name, "UNDEF") == 0)
		md = NULL;
	return set_name(x, node) &&
	       X509_set_issuer_name(x, X509_get_subject_name(ca)) == 1 &&
	       add_extension(x, ca, NID_basic_constraints,
			     "critical,CA:FALSE") &&
	       add_extension(x, ca, NID_key_usage,
			     "critical,digitalSignature") &&
	       add_extension(x, ca, NID_ext_key_usage,
			     "serverAuth,clientAuth") &&
	       add_extension(x, ca, NID_subject_key_identifier, "hash") &&
	       (X509_get0_subject_key_id(ca) == NULL ||
		add_extension(x, ca, NID_authority_key_identifier, "keyid")) &&
	       add_alt_name(x, ca, node) && X509_sign(x, ca_key, md) > 0;
}

/* A certificate must not expire later than its issuer. */
static bool end_of(X509 *ca, unsigned int days, time_t *ret)
{
	struct tm tm;
	time_t ca_end;

	if (ASN1_TIME_to_tm(X509_get0_notAfter(ca), &tm) != 1)
		return false;
	ca_end = timegm(&tm);
	*ret = time(NULL) + (time_t)days * DAY_S;
	if (*ret > ca_end)
		*ret = ca_end;
	return true;
}

int keys_issue(const char *dir, const char *node, unsigned int days,
	       time_t *ret_until, struct error *err)
{
	CLEANUP(closep) int dirfd = -1;
	CLEANUP(pkey_freep) EVP_PKEY *ca_key = NULL, *key = NULL;
	CLEANUP(x509_freep) X509 *ca = NULL, *x = NULL;
	time_t until;
	int r = check_name(node, err);

	if (r < 0)
		return r;
	if (days == 0 || days > KEYS_CA_DAYS)
		return set_error(err, -EINVAL, "days: from 1 to %d",
				 KEYS_CA_DAYS);
	r = dir_open(dir, &dirfd, err);
	if (r == 0)
		r = load_ca(dirfd, dir, &ca, &ca_key, err);
	if (r < 0) {
		ERR_clear_error();
		return r;
	}
	key = EVP_EC_gen("P-256");
	if (key && end_of(ca, days, &until))
		x = new_cert(key, until);
	if (!x || !fill_node(x, ca, ca_key, node))
		return ssl_error(err, "cannot make a certificate");
	r = save_pair(dirfd, dir, node, x, key, true, err);
	if (r == 0 && ret_until)
		*ret_until = until;
	return r;
}
