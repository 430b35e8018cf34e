#include "http/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define PEM_MAX	    (1 << 20)
#define DEPTH_MAX   4	       /* of a client's chain, besides the CA */
#define REST_MAX    (1U << 20) /* encrypted bytes that wait for the socket */
#define RECORD_MAX  (16U << 10)
#define RECORD_MORE 64U /* at most, by which a record grows */
#define OUT_BYTES                                                              \
	(TLS_PIECE_BYTES + RECORD_MAX +                                        \
	 (TLS_PIECE_BYTES / RECORD_MAX + 4) * RECORD_MORE)

int tls_add_ca_file(void *ssl_ctx, const char *path)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ssl_ctx);

	if (X509_STORE_load_file(store, path) == 1)
		return 0;
	/* Else it would be taken for an error of the handshake. */
	ERR_clear_error();
	return -ENOENT;
}

/* ---- Files ---- */

enum tls_file { CA_FILE, CERT_FILE, KEY_FILE, N_FILES };

/* What tells that a file is no longer the one that was read. */
struct file_id {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

struct tls_server {
	SSL_CTX *ctx;
	char *path[N_FILES];
	struct file_id seen[N_FILES]; /* what was read last, or tried */
	/* Encrypted bytes of the session that is writing right now. */
	size_t out_len;
	unsigned char out[OUT_BYTES];
	char plain[TLS_PIECE_BYTES];
};

/* All zero for a file that is not there. */
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
	(void)BIO_free(*b); /* which wipes what was in it */
}

static void x509_freep(X509 **x)
{
	X509_free(*x);
}

static void pkey_freep(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}

static void store_ctx_freep(X509_STORE_CTX **s)
{
	X509_STORE_CTX_free(*s);
}

static void ctx_freep(SSL_CTX **c)
{
	SSL_CTX_free(*c);
}

static void chain_freep(struct stack_st_X509 **s)
{
	sk_X509_pop_free(*s, X509_free);
}

static int file_error(struct error *err, int r, const char *path)
{
	return set_error(err, r, "%s: %s", path, strerror(-r));
}

/* Never blocks for long: what is not a small regular file is refused. */
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

/* Nobody is there to be asked. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	*(bool *)arg = true;
	return -1;
}

/* After PEM_read_bio_…() gave nothing: whether that is the end of the file. */
static bool pem_end(void)
{
	bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;

	ERR_clear_error();
	return end;
}

/* One certificate or more. */
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
		return set_error(err, -EBADMSG, "%s: a damaged certificate",
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
				   : "%s: a damaged private key",
			 path);
}

/* ---- The context ---- */

static int set_ca(SSL_CTX *ctx, const char *path, struct error *err)
{
	CLEANUP(chain_freep) struct stack_st_X509 *certs = NULL;
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	int r = read_certs(path, &certs, err);

	if (r < 0)
		return r;
	for (int i = 0; i < sk_X509_num(certs); i++) {
		X509 *x = sk_X509_value(certs, i);

		if (X509_check_ca(x) == 0)
			return set_error(err, -EBADMSG,
					 "%s: holds a certificate that is not "
					 "a CA's",
					 path);
		if (X509_cmp_current_time(X509_get0_notAfter(x)) < 0)
			log_warn("a CA's certificate has expired",
				 LS("file", path));
		if (X509_STORE_add_cert(store, x) != 1)
			return file_error(err, -ENOMEM, path);
	}
	/* One that another CA has issued is as good as one that has issued
	 * itself; libcurl holds it the same way. */
	(void)X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
	return 0;
}

/* What others are going to find wrong with it. */
static void warn_of_own(SSL_CTX *ctx, X509 *own, struct stack_st_X509 *chain,
			const char *path)
{
	CLEANUP(store_ctx_freep) X509_STORE_CTX *v = X509_STORE_CTX_new();
	bool ok;

	if (!v ||
	    X509_STORE_CTX_init(v, SSL_CTX_get_cert_store(ctx), own, chain) !=
		    1 ||
	    X509_STORE_CTX_set_default(v, "ssl_server") != 1)
		return;
	ok = X509_verify_cert(v) == 1;
	if (!ok)
		log_warn("other nodes will refuse our certificate",
			 LS("file", path),
			 LS("cause", X509_verify_cert_error_string(
					     X509_STORE_CTX_get_error(v))));
	ERR_clear_error();
}

static int set_own(SSL_CTX *ctx, const char *cert_path, const char *key_path,
		   struct error *err)
{
	CLEANUP(chain_freep) struct stack_st_X509 *chain = NULL;
	CLEANUP(x509_freep) X509 *own = NULL;
	CLEANUP(pkey_freep) EVP_PKEY *key = NULL;
	int r = read_certs(cert_path, &chain, err);

	if (r == 0)
		r = read_key(key_path, &key, err);
	if (r < 0)
		return r;
	own = sk_X509_shift(chain);
	if (X509_check_private_key(own, key) != 1) {
		ERR_clear_error();
		return set_error(err, -EKEYREJECTED,
				 "%s: not the key of the certificate in %s",
				 key_path, cert_path);
	}
	if (SSL_CTX_use_cert_and_key(ctx, own, key, chain, 1) != 1) {
		const char *why = ERR_reason_error_string(ERR_peek_error());

		ERR_clear_error();
		return set_error(err, -EBADMSG, "%s: not usable: %s", cert_path,
				 why ? why : "unknown error");
	}
	warn_of_own(ctx, own, chain, cert_path);
	return 0;
}

static int set_protocol(SSL_CTX *ctx)
{
	/* AES-128-GCM first: nothing is faster with AES in hardware, and a
	 * client without puts ChaCha20 first. */
	static const char suites[] = "TLS_AES_128_GCM_SHA256:"
				     "TLS_CHACHA20_POLY1305_SHA256:"
				     "TLS_AES_256_GCM_SHA384";

	if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, suites) != 1 ||
	    SSL_CTX_set_num_tickets(ctx, 0) != 1)
		return -EIO;
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION |
					       SSL_OP_NO_TICKET |
					       SSL_OP_CIPHER_SERVER_PREFERENCE |
					       SSL_OP_PRIORITIZE_CHACHA |
					       /* Requests tell their length. */
					       SSL_OP_IGNORE_UNEXPECTED_EOF);
	/* A resumed session would outlive its certificates. */
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* 34 KiB less for each idle connection. */
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(
		ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_verify_depth(ctx, DEPTH_MAX);
	return 0;
}

static int load(struct tls_server *s, SSL_CTX **ret, struct error *err)
{
	CLEANUP(ctx_freep) SSL_CTX *ctx = NULL;
	int r;

	ERR_clear_error();
	ctx = SSL_CTX_new(TLS_server_method());
	if (!ctx)
		return set_error(err, -ENOMEM, "no TLS context");
	r = set_protocol(ctx);
	if (r < 0) {
		ERR_clear_error();
		return set_error(err, r, "OpenSSL has no TLS 1.3");
	}
	r = set_ca(ctx, s->path[CA_FILE], err);
	if (r == 0)
		r = set_own(ctx, s->path[CERT_FILE], s->path[KEY_FILE], err);
	if (r < 0)
		return r;
	*ret = steal_ptr(&ctx);
	return 0;
}

int tls_server_new(const char *ca_file, const char *cert_file,
		   const char *key_file, struct tls_server **ret,
		   struct error *err)
{
	const char *const path[] = {ca_file, cert_file, key_file};
	CLEANUP(tls_server_free) struct tls_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return set_error(err, -ENOMEM, "out of memory");
	for (int i = 0; i < N_FILES; i++) {
		s->path[i] = strdup(path[i]);
		if (!s->path[i])
			return set_error(err, -ENOMEM, "out of memory");
		identify(path[i], &s->seen[i]);
	}
	r = load(s, &s->ctx, err);
	if (r < 0)
		return r;
	*ret = steal_ptr(&s);
	return 0;
}

void tls_server_free(struct tls_server **sp)
{
	struct tls_server *s = *sp;

	if (!s)
		return;
	SSL_CTX_free(s->ctx);
	for (int i = 0; i < N_FILES; i++)
		free(s->path[i]);
	free(s);
	*sp = NULL;
}

int tls_server_reload_if_changed(struct tls_server *s)
{
	SSL_CTX *ctx = NULL;
	struct error err = {""};
	bool changed = false;
	int r;

	/* Before they are read: what changes meanwhile is seen next time. */
	for (int i = 0; i < N_FILES; i++) {
		struct file_id now;

		identify(s->path[i], &now);
		changed |= !same_file(&now, &s->seen[i]);
		s->seen[i] = now;
	}
	if (!changed)
		return 0;
	r = load(s, &ctx, &err);
	if (r < 0) {
		log_warn("the new certificates are no good, the old ones stay "
			 "in use",
			 LS("cause", err.text));
		return r;
	}
	/* Sessions hold on to the one they were made from. */
	SSL_CTX_free(s->ctx);
	s->ctx = ctx;
	log_info("new certificates are in use", LS("file", s->path[CERT_FILE]));
	return 1;
}

/* ---- Sessions ---- */

struct tls_session {
	struct tls_server *server;
	SSL *ssl;
	int fd;
	int socket_r; /* what the socket said last, if it was an error */
	bool eof;     /* the client has closed its half */
	bool heard;   /* it has sent something */
	bool established;
	bool broken; /* SSL must not be used any more */
	/* Encrypted bytes that the socket has not taken; those in server->out
	 * come after them. */
	unsigned char *rest;
	size_t rest_pos, rest_len;
	const char *kind; /* see tls_session_failure() */
	char failure[192];
	char name[129];
};

static bool keep_rest(struct tls_session *t, const void *bytes, size_t len)
{
	size_t have = t->rest_len - t->rest_pos;
	unsigned char *p;

	if (len == 0)
		return true;
	if (have + len > REST_MAX)
		return false;
	if (t->rest_pos > 0)
		memmove(t->rest, t->rest + t->rest_pos, have);
	t->rest_pos = 0;
	t->rest_len = have;
	p = realloc(t->rest, have + len);
	if (!p)
		return false;
	memcpy(p + have, bytes, len);
	t->rest = p;
	t->rest_len = have + len;
	return true;
}

/* OpenSSL reads from the socket, but writes into memory, where records gather
 * until one system call sends them all. So a write never has to be tried
 * again, with the same bytes at that. */
static int on_bio_read(BIO *b, char *buf, int len)
{
	struct tls_session *t = BIO_get_data(b);
	ssize_t n;

	BIO_clear_retry_flags(b);
	do {
		n = recv(t->fd, buf, (size_t)len, 0);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		t->heard = true;
		return (int)n;
	}
	if (n == 0) {
		t->eof = true;
		return 0;
	}
	if (errno == EAGAIN)
		BIO_set_retry_read(b);
	else
		t->socket_r = -errno;
	return -1;
}

static int on_bio_write(BIO *b, const char *buf, int len)
{
	struct tls_session *t = BIO_get_data(b);
	struct tls_server *s = t->server;

	BIO_clear_retry_flags(b);
	if ((size_t)len > sizeof(s->out) - s->out_len) {
		if (!keep_rest(t, s->out, s->out_len))
			return -1;
		s->out_len = 0;
		if ((size_t)len > sizeof(s->out))
			return keep_rest(t, buf, (size_t)len) ? len : -1;
	}
	memcpy(s->out + s->out_len, buf, (size_t)len);
	s->out_len += (size_t)len;
	return len;
}

static long on_bio_ctrl(BIO *b, int what, long num, void *ptr)
{
	const struct tls_session *t = BIO_get_data(b);

	(void)num;
	(void)ptr;
	if (what == BIO_CTRL_EOF)
		return t->eof;
	return what == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(),
				     "peerd");

	if (m && BIO_meth_set_read(m, on_bio_read) == 1 &&
	    BIO_meth_set_write(m, on_bio_write) == 1 &&
	    BIO_meth_set_ctrl(m, on_bio_ctrl) == 1)
		bio_method = m;
}

int tls_session_new(struct tls_server *s, int fd, struct tls_session **ret)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	CLEANUP(tls_session_free) struct tls_session *t = calloc(1, sizeof(*t));
	BIO *b;

	(void)pthread_once(&once, make_bio_method);
	if (!t || !bio_method)
		return -ENOMEM;
	ERR_clear_error();
	t->server = s;
	t->fd = fd;
	t->ssl = SSL_new(s->ctx);
	b = t->ssl ? BIO_new(bio_method) : NULL;
	if (!b) {
		ERR_clear_error();
		return -ENOMEM;
	}
	BIO_set_data(b, t);
	BIO_set_init(b, 1);
	SSL_set_bio(t->ssl, b, b);
	SSL_set_accept_state(t->ssl);
	*ret = steal_ptr(&t);
	return 0;
}

void tls_session_free(struct tls_session **tp)
{
	struct tls_session *t = *tp;

	if (!t)
		return;
	SSL_free(t->ssl);
	free(t->rest);
	free(t);
	*tp = NULL;
}

/* ---- Handshake and reading ---- */

static void fail(struct tls_session *t, const char *kind, const char *what,
		 const char *more)
{
	t->kind = kind;
	(void)snprintf(t->failure, sizeof(t->failure), "%s%s%s", what,
		       *more ? ": " : "", more);
}

static void explain(struct tls_session *t)
{
	/* The last, for what a library below said comes before it. */
	unsigned long e = ERR_peek_last_error();
	const char *text = ERR_reason_error_string(e);

	if (!text)
		text = "unknown error";
	switch (ERR_GET_REASON(e)) {
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		fail(t, "certificate", "the client's certificate is refused",
		     X509_verify_cert_error_string(
			     SSL_get_verify_result(t->ssl)));
		break;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		fail(t, "no_certificate", "the client showed no certificate",
		     "");
		break;
	case SSL_R_HTTP_REQUEST:
		fail(t, "protocol", "the client spoke HTTP without TLS", "");
		break;
	case SSL_R_UNSUPPORTED_PROTOCOL:
		fail(t, "protocol", "the client does not offer TLS 1.3", "");
		break;
	default:
		if (ERR_GET_REASON(e) >= SSL_AD_REASON_OFFSET)
			fail(t, "refused", "the client refused us", text);
		else
			fail(t, "protocol", "not TLS as it should be", text);
	}
}

/* No control characters, and no NUL that would cut it short. */
static bool is_printable(const unsigned char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return true;
}

static void take_name(struct tls_session *t)
{
	X509 *x = SSL_get0_peer_certificate(t->ssl);
	X509_NAME *subject = x ? X509_get_subject_name(x) : NULL;
	int i = subject ? X509_NAME_get_index_by_NID(subject, NID_commonName,
						     -1)
			: -1;
	unsigned char *s = NULL;
	int n;

	if (i < 0)
		return;
	n = ASN1_STRING_to_UTF8(
		&s, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i)));
	if (n > 0 && (size_t)n < sizeof(t->name) && is_printable(s, (size_t)n))
		memcpy(t->name, s, (size_t)n);
	OPENSSL_free(s);
}

static ssize_t read_and_drop(struct tls_session *t, void *buf, size_t len)
{
	ssize_t n;

	do {
		n = recv(t->fd, buf, len, 0);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* After SSL_read() gave nothing. */
static ssize_t why_no_bytes(struct tls_session *t, int n)
{
	int e = SSL_get_error(t->ssl, n);
	bool certificate;

	if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
		return -EAGAIN;
	if (e == SSL_ERROR_ZERO_RETURN && t->established)
		return 0;
	t->broken = true;
	if (e == SSL_ERROR_ZERO_RETURN)
		return -ECONNRESET;
	if (e != SSL_ERROR_SSL)
		return t->socket_r < 0 ? t->socket_r : -ECONNRESET;
	if (t->established)
		return -EPROTO;
	explain(t);
	certificate = strcmp(t->kind, "protocol") != 0;
	return certificate ? -EKEYREJECTED : -EPROTO;
}

ssize_t tls_session_read(struct tls_session *t, void *buf, size_t len)
{
	ssize_t r;
	int n;

	if (t->broken)
		return read_and_drop(t, buf, len);
	ERR_clear_error();
	n = SSL_read(t->ssl, buf, (int)min_u64(len, 1U << 30));
	r = n > 0 ? n : 0;
	if (!t->established && SSL_is_init_finished(t->ssl)) {
		t->established = true;
		take_name(t);
	}
	if (n <= 0)
		r = why_no_bytes(t, n);
	ERR_clear_error();
	/* Its own messages, and alerts. What fails here will fail again. */
	(void)tls_session_flush(t);
	return r;
}

bool tls_session_pending(const struct tls_session *t)
{
	return !t->broken && SSL_pending(t->ssl) > 0;
}

/* ---- Writing ---- */

int tls_session_write(struct tls_session *t, const void *bytes, size_t len)
{
	int n;

	if (t->broken || !t->established)
		return -EPIPE;
	if (len == 0)
		return 0;
	BUG_ON(len > TLS_PIECE_BYTES);
	ERR_clear_error();
	n = SSL_write(t->ssl, bytes, (int)len);
	if (n == (int)len)
		return 0;
	ERR_clear_error();
	t->broken = true;
	return -EPIPE;
}

int tls_session_hold(struct tls_session *t)
{
	struct tls_server *s = t->server;
	bool ok = keep_rest(t, s->out, s->out_len);

	s->out_len = 0;
	return ok ? 0 : -ENOMEM;
}

size_t tls_session_unsent(const struct tls_session *t)
{
	return t->rest_len - t->rest_pos;
}

int tls_session_flush(struct tls_session *t)
{
	struct tls_server *s = t->server;
	size_t have = t->rest_len - t->rest_pos, own;
	struct iovec iov[2];
	struct msghdr m = {.msg_iov = iov};
	ssize_t n;
	int r;

	if (have > 0)
		iov[m.msg_iovlen++] =
			(struct iovec){t->rest + t->rest_pos, have};
	if (s->out_len > 0)
		iov[m.msg_iovlen++] = (struct iovec){s->out, s->out_len};
	if (m.msg_iovlen == 0)
		return 0;
	do {
		n = sendmsg(t->fd, &m, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		r = -errno;
		s->out_len = 0;
		t->broken = true;
		return r;
	}
	n = n < 0 ? 0 : n;
	own = (size_t)min_u64((uint64_t)n, have);
	t->rest_pos += own;
	own = (size_t)n - own;
	if (t->rest_pos == t->rest_len) {
		free(t->rest);
		t->rest = NULL;
		t->rest_pos = t->rest_len = 0;
	}
	if (!keep_rest(t, s->out + own, s->out_len - own)) {
		s->out_len = 0;
		t->broken = true;
		return -ENOMEM;
	}
	s->out_len = 0;
	return t->rest_len > 0 ? -EAGAIN : 0;
}

void tls_session_end(struct tls_session *t)
{
	if (t->broken || !t->established)
		return;
	ERR_clear_error();
	(void)SSL_shutdown(t->ssl);
	ERR_clear_error();
}

/* ---- What is known ---- */

char *tls_session_buffer(struct tls_session *t)
{
	return t->server->plain;
}

const char *tls_session_name(const struct tls_session *t)
{
	return t->established ? t->name : NULL;
}

const char *tls_session_failure(const struct tls_session *t,
				const char **ret_kind)
{
	*ret_kind = t->kind ? t->kind : "incomplete";
	if (t->kind)
		return t->failure;
	return t->heard && !t->established
		       ? "the client did not complete the handshake"
		       : NULL;
}
