#include "http/tls.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "http/tls-identity.h"

#define DEPTH_MAX   4	       /* of a client's chain, without the CA */
#define REST_MAX    (1U << 20) /* encrypted bytes that wait for the socket */
#define RECORD_MAX  (16U << 10)
#define RECORD_MORE 64U /* most bytes that encryption adds to a record */
#define OUT_BYTES                                                              \
	(TLS_PIECE_BYTES + RECORD_MAX +                                        \
	 (TLS_PIECE_BYTES / RECORD_MAX + 4) * RECORD_MORE)

int tls_add_ca_file(void *ssl_ctx, const char *path)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ssl_ctx);

	if (X509_STORE_load_file(store, path) == 1)
		return 0;
	/* Otherwise it would be taken for an error of the handshake. */
	ERR_clear_error();
	return -ENOENT;
}

struct tls_server {
	SSL_CTX *ctx;
	struct tls_identity *identity;
	uint64_t generation; /* of the identity that ctx was made from */
	/* Encrypted bytes of the session that is writing now. */
	size_t out_len;
	unsigned char out[OUT_BYTES];
	char plain[TLS_PIECE_BYTES];
};

/* ---- The context ---- */

static void ctx_freep(SSL_CTX **c)
{
	SSL_CTX_free(*c);
}

static int set_protocol(SSL_CTX *ctx)
{
	/* AES-128-GCM first: it is the fastest with AES in hardware, and a
	 * client without AES in hardware puts ChaCha20 first. */
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
					       /* requests carry their length */
					       SSL_OP_IGNORE_UNEXPECTED_EOF);
	/* A resumed session would outlive its certificates. */
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* saves 34 KiB per idle connection */
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_verify(
		ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_verify_depth(ctx, DEPTH_MAX);
	return 0;
}

static int make_context(struct tls_server *s, struct error *err)
{
	CLEANUP(ctx_freep) SSL_CTX *ctx = NULL;
	int r;

	ERR_clear_error();
	ctx = SSL_CTX_new(TLS_server_method());
	if (!ctx)
		return set_error(err, -ENOMEM, "cannot make a TLS context");
	r = set_protocol(ctx);
	if (r < 0) {
		ERR_clear_error();
		return set_error(err, r, "OpenSSL has no TLS 1.3");
	}
	r = tls_identity_use(s->identity, ctx);
	if (r < 0)
		return set_error(err, r, "cannot make a TLS context");
	/* Existing sessions hold a reference to the old context. */
	SSL_CTX_free(s->ctx);
	s->ctx = steal_ptr(&ctx);
	s->generation = tls_identity_generation(s->identity);
	tls_identity_warn(s->identity);
	return 0;
}

int tls_server_new(const char *ca_file, const char *cert_file,
		   const char *key_file, struct tls_server **ret,
		   struct error *err)
{
	CLEANUP(tls_server_free) struct tls_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return set_error(err, -ENOMEM, "out of memory");
	r = tls_identity_new(ca_file, cert_file, key_file, &s->identity, err);
	if (r == 0)
		r = make_context(s, err);
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
	tls_identity_free(&s->identity);
	free(s);
	*sp = NULL;
}

int tls_server_reload_if_changed(struct tls_server *s)
{
	struct error err = {""};
	int r = tls_identity_refresh(s->identity, &err);

	if (r >= 0 && s->generation != tls_identity_generation(s->identity)) {
		r = make_context(s, &err);
		if (r == 0)
			r = 1;
	}
	if (r < 0)
		log_warn("cannot use the new certificates, the old ones stay "
			 "in use",
			 LS("cause", err.text));
	if (r > 0)
		log_info("new certificates are in use",
			 LS("file", tls_identity_cert_file(s->identity)));
	return r;
}

/* ---- Sessions ---- */

struct tls_session {
	struct tls_server *server;
	SSL *ssl;
	int fd;
	int socket_r; /* last error of the socket; 0 if none */
	bool eof;     /* the client has closed its half */
	bool heard;   /* the client has sent bytes */
	bool established;
	bool broken; /* ssl must not be used any more */
	/* Encrypted bytes that the socket has not accepted; those in
	 * server->out follow them. */
	unsigned char *rest;
	size_t rest_pos, rest_len;
	const char *kind; /* see tls_session_failure() */
	char failure[192];
	char name[TLS_NAME_SIZE];
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
 * until one system call sends them all. So SSL_write() never has to be repeated
 * with the same bytes. */
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
	/* The last error; errors of lower libraries come before it. */
	unsigned long e = ERR_peek_last_error();
	const char *text = ERR_reason_error_string(e);

	if (!text)
		text = "unknown error";
	switch (ERR_GET_REASON(e)) {
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		fail(t, "certificate", "the client's certificate was refused",
		     X509_verify_cert_error_string(
			     SSL_get_verify_result(t->ssl)));
		break;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		fail(t, "no_certificate", "the client sent no certificate", "");
		break;
	case SSL_R_HTTP_REQUEST:
		fail(t, "protocol", "the client spoke HTTP without TLS", "");
		break;
	case SSL_R_UNSUPPORTED_PROTOCOL:
		fail(t, "protocol", "the client does not offer TLS 1.3", "");
		break;
	default:
		if (ERR_GET_REASON(e) >= SSL_AD_REASON_OFFSET)
			fail(t, "refused", "the client sent an alert", text);
		else
			fail(t, "protocol", "the client broke the TLS protocol",
			     text);
	}
}

/* No control characters, and no NUL, which would cut the name short. */
static bool is_printable(const unsigned char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return true;
}

void tls_peer_name(void *ssl, char out[TLS_NAME_SIZE])
{
	const X509 *x = SSL_get0_peer_certificate(ssl);
	X509_NAME *subject = x ? X509_get_subject_name(x) : NULL;
	int i = subject ? X509_NAME_get_index_by_NID(subject, NID_commonName,
						     -1)
			: -1;
	unsigned char *s = NULL;
	int n;

	*out = '\0';
	if (i < 0)
		return;
	n = ASN1_STRING_to_UTF8(
		&s, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i)));
	if (n > 0 && n < TLS_NAME_SIZE && is_printable(s, (size_t)n)) {
		memcpy(out, s, (size_t)n);
		out[n] = '\0';
	}
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

/* The result for the caller after SSL_read() returned no bytes. */
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
		tls_peer_name(t->ssl, t->name);
	}
	if (n <= 0)
		r = why_no_bytes(t, n);
	ERR_clear_error();
	/* Sends handshake messages and alerts. If this fails, the next call
	 * fails, too. */
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

/* ---- State ---- */

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
