/* Private to the client. client-setup.c sets up a curl handle for a
 * request, and translates curl's error codes. Loop thread only. */
#ifndef HTTP_CLIENT_PRIVATE_H
#define HTTP_CLIENT_PRIVATE_H

#include <curl/curl.h>

#include "http/client.h"
#include "http/tls-identity.h"

/* -EINVAL for a request that is invalid or must not be sent. */
int client_check(const struct http_request *rq);

/* A member's three files, loaded. Without one, because they could not be
 * loaded, curl reads the files for each connection and reports the error. */
struct client_identity {
	struct tls_identity *tls;
	char name[40]; /* unique for these files in this version; see
			  set_identity() */
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

/* Translates curl's result into the r of http_callbacks.done. easy must not
 * have been reset; errbuf is its CURLOPT_ERRORBUFFER. */
int client_errno(CURL *easy, CURLcode code, const char *errbuf);

/* For -EKEYREJECTED: a sentence with the reason if errbuf has it in OpenSSL's
 * words; else errbuf. */
const char *client_tls_refusal(const char *errbuf);

/* Cuts every '?' and the rest of its word, so that no signature or token of a
 * URL gets into a message. */
void client_cut_queries(char *s);

#endif
