/* Between client.c and client-setup.c: a request becomes a curl handle, and
 * curl's error codes ours. Loop thread. */
#ifndef HTTP_CLIENT_PRIVATE_H
#define HTTP_CLIENT_PRIVATE_H

#include <curl/curl.h>

#include "http/client.h"
#include "http/tls-identity.h"

/* -EINVAL for what must not be sent or makes no sense. */
int client_check(const struct http_request *rq);

/* What was loaded of a member's three files, if that could be done; else curl
 * reads them for each connection, and says what is wrong. */
struct client_identity {
	struct tls_identity *tls;
	char name[40]; /* of this one, as it is now; see set_identity() */
};

/* Which addresses an exchange must not connect to. */
struct client_guard {
	enum addr_scope refuse; /* 0: none */
	bool refused;		/* one was; another may have been tried */
};

/* Sets everything that depends on the request alone; rq is copied. identity may
 * be NULL, and lives as long as easy is in use. So does guard, which is asked
 * for each connection; NULL: none, for requests through a proxy. proxy: "" for
 * none. On 0 the caller frees *headers (NULL at first) after easy was reset.
 * -EINVAL or -ENOMEM; *headers may then hold some, too. */
int client_set_up(CURL *easy, const struct http_request *rq,
		  const struct client_identity *identity, const char *proxy,
		  struct client_guard *guard, const char *user_agent,
		  struct curl_slist **headers);

/* What http_callbacks.done gets for curl's result. easy must not have been
 * reset; errbuf is its CURLOPT_ERRORBUFFER. */
int client_errno(CURL *easy, CURLcode code, const char *errbuf);

/* For -EKEYREJECTED: what was wrong, in a sentence, where curl's own message
 * says it in OpenSSL's words; else that message. */
const char *client_tls_refusal(const char *errbuf);

/* Cuts what follows a '?' up to the end of the word: no signature or token
 * that a URL may hold gets into a message. */
void client_cut_queries(char *s);

#endif
