#include "http/client-private.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "http/head.h"
#include "http/local.h"
#include "http/tls.h"
#include "http/url.h"

#define CONNECT_TIMEOUT_MS   10000
#define RECEIVE_BUFFER_BYTES (512 * 1024L)
#define MAX_HEADERS	     256
/* How long a CA file that was replaced on disk may stay in use. */
#define CA_CACHE_SECONDS 300L

/* After several calls in a row `code` holds the first error. */
#define SET(opt, value)                                                        \
	do {                                                                   \
		if (code == CURLE_OK)                                          \
			code = curl_easy_setopt(easy, opt, value);             \
	} while (0)

/* A token: RFC 9110, 5.6.2. */
static bool is_token(const char *s)
{
	size_t n = strspn(s, "!#$%&'*+-.^_`|~0123456789"
			     "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			     "abcdefghijklmnopqrstuvwxyz");

	return n > 0 && s[n] == '\0';
}

static bool is_field_value(const char *s)
{
	for (; *s; s++)
		if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
			return false;
	return true;
}

static bool is_https(const char *url)
{
	return strncasecmp(url, "https:", 6) == 0;
}

int client_check(const struct http_request *rq)
{
	struct sockaddr_un sun;

	if (!rq->url || (rq->method && !is_token(rq->method)) ||
	    (rq->body_len > 0 && !rq->body) || rq->nheaders > MAX_HEADERS)
		return -EINVAL;
	if (rq->has_range &&
	    (rq->range_len == 0 || rq->range_off > UINT64_MAX - rq->range_len))
		return -EINVAL;
	if (((rq->ca_only || (rq->peer && is_https(rq->url))) &&
	     !rq->ca_file) ||
	    (rq->unix_socket &&
	     strlen(rq->unix_socket) >= sizeof(sun.sun_path)))
		return -EINVAL;
	for (size_t i = 0; i < rq->nheaders; i++)
		if (!is_token(rq->headers[i].name) ||
		    !is_field_value(rq->headers[i].value))
			return -EINVAL;
	return 0;
}

/* Appends "Name: value". For an empty value curl needs "Name;". For NULL
 * "Name:" makes curl leave the header out. */
static int add_header(struct curl_slist **headers, const char *name,
		      const char *value)
{
	CLEANUP(buf_release) struct buf line = BUF_INIT(HEAD_MAX_BYTES);
	struct curl_slist *list;
	int r;

	if (!value)
		r = buf_printf(&line, "%s:", name);
	else if (value[strspn(value, " \t")] == '\0')
		r = buf_printf(&line, "%s;", name);
	else
		r = buf_printf(&line, "%s: %s", name, value);
	if (r < 0)
		return r == -EMSGSIZE ? -EINVAL : r;
	list = curl_slist_append(*headers, line.data);
	if (!list)
		return -ENOMEM;
	*headers = list;
	return 0;
}

static bool has_header(const struct http_request *rq, const char *name)
{
	for (size_t i = 0; i < rq->nheaders; i++)
		if (strcasecmp(rq->headers[i].name, name) == 0)
			return true;
	return false;
}

static int add_headers(struct curl_slist **headers,
		       const struct http_request *rq)
{
	char range[64];
	int r = 0;

	for (size_t i = 0; r == 0 && i < rq->nheaders; i++)
		r = add_header(headers, rq->headers[i].name,
			       rq->headers[i].value);
	if (r == 0 && rq->has_range) {
		(void)snprintf(range, sizeof(range), "bytes=%llu-%llu",
			       (unsigned long long)rq->range_off,
			       (unsigned long long)(rq->range_off +
						    rq->range_len - 1));
		r = add_header(headers, "Range", range);
	}
	if (r == 0 && !has_header(rq, "Accept-Encoding"))
		r = add_header(headers, "Accept-Encoding", "identity");
	/* Headers that curl would add by itself to a request with a body. */
	if (r == 0 && !has_header(rq, "Expect"))
		r = add_header(headers, "Expect", NULL);
	if (r == 0 && !has_header(rq, "Content-Type"))
		r = add_header(headers, "Content-Type", NULL);
	return r;
}

static CURLcode set_method(CURL *easy, const struct http_request *rq)
{
	const char *method = rq->method ? rq->method : "GET";
	CURLcode code = CURLE_OK;

	if (strcmp(method, "HEAD") == 0) {
		SET(CURLOPT_NOBODY, 1L);
	} else if (rq->body_len > 0 || strcmp(method, "POST") == 0 ||
		   strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0) {
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body_len);
		SET(CURLOPT_COPYPOSTFIELDS,
		    rq->body_len > 0 ? (const char *)rq->body : "");
		SET(CURLOPT_CUSTOMREQUEST, method);
	} else {
		SET(CURLOPT_HTTPGET, 1L);
		SET(CURLOPT_CUSTOMREQUEST, method);
	}
	return code;
}

/* Adds the system's CAs; ca_file itself is trusted through CURLOPT_CAINFO. In
 * this way curl can tell connections of different ca_files apart when it looks
 * for one to use again. */
static CURLcode on_curl_ssl_ctx(CURL *easy, void *ssl_ctx, void *arg)
{
	const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);

	(void)easy;
	(void)arg;
	if (v->cainfo)
		(void)tls_add_ca_file(ssl_ctx, v->cainfo);
	return CURLE_OK;
}

/* The name has been looked up, and this is where the connection goes: nobody
 * can put another address in its place. curl 7.88 does not close its sockets on
 * exec. */
static curl_socket_t on_curl_open(void *arg, curlsocktype purpose,
				  struct curl_sockaddr *a)
{
	struct client_guard *guard = arg;

	(void)purpose;
	if (guard && guard->refuse && addr_scope(&a->addr) >= guard->refuse) {
		guard->refused = true;
		return CURL_SOCKET_BAD;
	}
	return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static CURLcode on_curl_identity(CURL *easy, void *ssl_ctx, void *identity)
{
	(void)easy;
	return tls_identity_use(identity, ssl_ctx) < 0 ? CURLE_OUT_OF_MEMORY
						       : CURLE_OK;
}

/* curl decides by the names of CA files and directories which connections may
 * be used again, and here it is given no file. So the identity's name is set as
 * the directory of CAs. Nothing reads that directory, because the callback
 * replaces the CA store. */
static CURLcode set_identity(CURL *easy, const struct client_identity *identity)
{
	CURLcode code = CURLE_OK;

	SET(CURLOPT_CAINFO, NULL);
	SET(CURLOPT_CAPATH, identity->name);
	SET(CURLOPT_SSL_CTX_FUNCTION, on_curl_identity);
	SET(CURLOPT_SSL_CTX_DATA, identity->tls);
	return code;
}

static CURLcode set_own_files(CURL *easy, const struct http_request *rq)
{
	CURLcode code = CURLE_OK;

	if (rq->cert_file)
		SET(CURLOPT_SSLCERT, rq->cert_file);
	if (rq->key_file)
		SET(CURLOPT_SSLKEY, rq->key_file);
	return code;
}

/* The member must have a certificate of the CA in use now, and must see our
 * current certificate: so no session is resumed. */
static CURLcode set_peer_tls(CURL *easy, const struct http_request *rq,
			     const struct client_identity *identity)
{
	CURLcode code = CURLE_OK;

	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 0L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
	SET(CURLOPT_CA_CACHE_TIMEOUT, 0L);
	SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
	if (code == CURLE_OK && identity)
		return set_identity(easy, identity);
	SET(CURLOPT_CAINFO, rq->ca_file);
	SET(CURLOPT_CAPATH, NULL);
	return code == CURLE_OK ? set_own_files(easy, rq) : code;
}

/* If only a CA file is set, and no directory, curl keeps the parsed file for
 * later connections. That saves megabytes and milliseconds for each. */
static CURLcode set_server_tls(CURL *easy, const struct http_request *rq)
{
	const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);
	CURLcode code = CURLE_OK;

	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_CA_CACHE_TIMEOUT, CA_CACHE_SECONDS);
	if (rq->ca_file) {
		SET(CURLOPT_CAINFO, rq->ca_file);
		SET(CURLOPT_CAPATH, rq->ca_only ? NULL : v->capath);
		if (!rq->ca_only) {
			/* A store to which the callback adds must not be
			 * shared. */
			SET(CURLOPT_CA_CACHE_TIMEOUT, 0L);
			SET(CURLOPT_SSL_CTX_FUNCTION, on_curl_ssl_ctx);
		}
	} else if (v->cainfo) {
		SET(CURLOPT_CAPATH, NULL);
	}
	return code;
}

static CURLcode set_tls(CURL *easy, const struct http_request *rq,
			const struct client_identity *identity)
{
	CURLcode code;

	if (rq->peer)
		return is_https(rq->url) ? set_peer_tls(easy, rq, identity)
					 : CURLE_OK;
	code = set_server_tls(easy, rq);
	return code == CURLE_OK ? set_own_files(easy, rq) : code;
}

static CURLcode set_connection(CURL *easy, const struct http_request *rq,
			       const char *proxy, struct client_guard *guard)
{
	CURLcode code = CURLE_OK;

	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_HTTP_VERSION,
	    rq->http2_prior_knowledge
		    ? (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
		    : (long)CURL_HTTP_VERSION_1_1);
	if (rq->http2_prior_knowledge) {
		/* curl 7.88.1 loses the second request on such a connection. */
		SET(CURLOPT_FRESH_CONNECT, 1L);
		SET(CURLOPT_FORBID_REUSE, 1L);
	}
	SET(CURLOPT_MAXLIFETIME_CONN, (long)rq->max_connection_age_s);
	SET(CURLOPT_CONNECTTIMEOUT_MS, rq->connect_timeout_ms
					       ? (long)rq->connect_timeout_ms
					       : (long)CONNECT_TIMEOUT_MS);
	SET(CURLOPT_NOSIGNAL, 1L);
	/* Otherwise cancelling waits for the resolver's thread. */
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_OPENSOCKETFUNCTION, on_curl_open);
	SET(CURLOPT_OPENSOCKETDATA, guard);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	/* curl 7.88 refuses this on a handle whose last transfer did not
	 * get past name resolution. It then has the right size from before. */
	(void)curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	if (rq->unix_socket)
		SET(CURLOPT_UNIX_SOCKET_PATH, rq->unix_socket);
	SET(CURLOPT_PROXY, proxy);
	SET(CURLOPT_NOPROXY, ""); /* that was looked at */
	return code;
}

int client_set_up(CURL *easy, const struct http_request *rq,
		  const struct client_identity *identity, const char *proxy,
		  struct client_guard *guard, const char *user_agent,
		  struct curl_slist **headers)
{
	CLEANUP(url_release) struct url u = {0};
	CLEANUP(buf_release) struct buf url = BUF_INIT(URL_MAX_BYTES);
	CURLcode code;
	int r;

	r = url_parse(rq->url, &u);
	if (r == 0)
		r = url_format(&u, true, &url);
	if (r == 0)
		r = add_headers(headers, rq);
	if (r < 0)
		return r;
	code = set_method(easy, rq);
	if (code == CURLE_OK)
		code = set_tls(easy, rq, identity);
	if (code == CURLE_OK)
		code = set_connection(easy, rq, proxy, guard);
	SET(CURLOPT_URL, url.data);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_HTTPHEADER, *headers);
	if (user_agent[0])
		SET(CURLOPT_USERAGENT, user_agent);
	if (code == CURLE_OUT_OF_MEMORY)
		return -ENOMEM;
	return code == CURLE_OK ? 0 : -EINVAL;
}

void client_cut_queries(char *s)
{
	char *out = s;

	while (*s) {
		if (*s == '?')
			s += strcspn(s, " \t'\"<>)");
		else
			*out++ = *s++;
	}
	*out = '\0';
}

static int connect_errno(CURL *easy)
{
	long e = 0;

	(void)curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &e);
	switch (e) {
	case ECONNREFUSED:
	case ENOENT: /* no such Unix socket */
		return -ECONNREFUSED;
	case ETIMEDOUT:
		return -ETIMEDOUT;
	case ECONNRESET:
		return -ECONNRESET;
	default:
		return -EHOSTUNREACH;
	}
}

/* True if the other side refused our certificate, or the lack of one. With TLS
 * 1.3 that shows only when the answer is read, in OpenSSL's words. */
static bool certificate_refused(const char *s)
{
	return strstr(s, " alert ") &&
	       (strstr(s, "certificate") || strstr(s, "unknown ca") ||
		strstr(s, "decrypt error") || strstr(s, "access denied"));
}

const char *client_tls_refusal(const char *errbuf)
{
	static const struct {
		const char *kind, *words;
		const char *why;
	} refusals[] = {
		{" alert ", "certificate required",
		 "the other side requires a certificate, and none was sent"},
		{" alert ", "certificate expired",
		 "the other side refused our certificate: it has expired"},
		{" alert ", "unknown ca",
		 "the other side refused our certificate: another CA issued it"},
		{" alert ", "bad certificate",
		 "the other side refused our certificate: it is not valid yet, "
		 "or damaged"},
		{" alert ", "unsupported certificate",
		 "the other side refused our certificate: it is not for this "
		 "use"},
		{" alert ", "decrypt error",
		 "the other side refused our certificate: its signature is "
		 "wrong"},
		{" alert ", "certificate revoked",
		 "the other side refused our certificate: it is revoked"},
		{"certificate problem", "has expired",
		 "the other side's certificate has expired"},
		{"certificate problem", "not yet valid",
		 "the other side's certificate is not valid yet"},
		{"certificate problem", "local issuer certificate",
		 "another CA issued the other side's certificate"},
		{"certificate problem", "self-signed certificate",
		 "another CA issued the other side's certificate"},
		/* For a wrong signature curl reports OpenSSL's first error
		 * instead. */
		{"error:", "asn1 encoding routines",
		 "the signature of the other side's certificate is wrong"},
		{"error:", "rsa routines",
		 "the signature of the other side's certificate is wrong"},
		{"error:", "signature failure", /* OpenSSL 3.5 */
		 "the signature of the other side's certificate is wrong"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++)
		if (strstr(errbuf, refusals[i].kind) &&
		    strstr(errbuf, refusals[i].words))
			return refusals[i].why;
	return errbuf;
}

static int transfer_errno(CURL *easy, const char *errbuf)
{
	long proxy_status = 0;

	if (certificate_refused(errbuf))
		return -EKEYREJECTED;
	(void)curl_easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &proxy_status);
	if (proxy_status >= 300)
		return -EHOSTUNREACH;
	if (strstr(errbuf, "chunk")) /* malformed framing */
		return -EPROTO;
	return -ECONNRESET;
}

static int handshake_errno(const char *errbuf)
{
	/* The issuer has the right name and another key. */
	if (certificate_refused(errbuf) ||
	    strstr(errbuf, "asn1 encoding routines") ||
	    strstr(errbuf, "rsa routines") ||
	    strstr(errbuf, "signature failure"))
		return -EKEYREJECTED;
	if (strstr(errbuf, "SSL routines") && !strstr(errbuf, "unexpected eof"))
		return -EPROTO;
	return -ECONNRESET;
}

int client_errno(CURL *easy, CURLcode code, const char *errbuf)
{
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_COULDNT_RESOLVE_HOST:
		return -ENOENT;
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_PROXY:
		return -EHOSTUNREACH;
	case CURLE_COULDNT_CONNECT:
		return connect_errno(easy);
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
	case CURLE_HTTP2_STREAM:
		return -ECONNRESET;
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
		return transfer_errno(easy, errbuf);
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_SSL_CLIENTCERT:
		return -EKEYREJECTED;
	case CURLE_SSL_CONNECT_ERROR:
		return handshake_errno(errbuf);
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_HTTP2:
	case CURLE_FILESIZE_EXCEEDED:
	case CURLE_BAD_CONTENT_ENCODING:
#if LIBCURL_VERSION_NUM >= 0x080600
	case CURLE_TOO_LARGE:
#endif
		return -EPROTO;
	default:
		return -EIO;
	}
}
