/* What is needed to log in to registries, without any I/O: credentials of a
 * Docker config.json, challenges, tokens. Sources: Docker CLI,
 * "config.json"; RFC 9110, 11.6.1; distribution, "Token Authentication
 * Specification". Any thread. */
#ifndef REGISTRY_AUTH_H
#define REGISTRY_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"

#define AUTH_CONFIG_MAX_BYTES ((size_t)1 << 20)
#define AUTH_TOKEN_MAX_BYTES  ((size_t)32 << 10)

/* NULL where the file has none. */
struct auth_creds {
	char *user, *password;
	char *identity_token; /* an OAuth2 refresh token */
	char *registry_token; /* to be sent as it is */
};

struct auth_config;

/* -EINVAL with *err. Entries that make no sense are left out. On 0:
 * auth_config_free(). */
int auth_config_parse(const char *json, size_t len, struct auth_config **ret,
		      struct error *err);
/* The same of a file; -errno of open(2) and read(2) besides. */
int auth_config_read(const char *path, struct auth_config **ret,
		     struct error *err);
void auth_config_free(struct auth_config **c);
/* By canonical host (see ref_host_canonical()). Borrowed; NULL if there are
 * none. */
const struct auth_creds *auth_config_find(const struct auth_config *c,
					  const char *host);
/* Whether it names credential helpers, which are not run. */
bool auth_config_has_helpers(const struct auth_config *c);

enum auth_scheme { AUTH_NONE, AUTH_BASIC, AUTH_BEARER };

struct auth_challenge {
	enum auth_scheme scheme;
	char *realm;   /* AUTH_BEARER: a URL, never NULL */
	char *service; /* NULL if absent */
	char *scope;   /* NULL if absent */
};

/* The value of one WWW-Authenticate field, which may hold several challenges:
 * a Bearer one is preferred to a Basic one. -ENOENT: neither is there. -EINVAL:
 * malformed. On 0: auth_challenge_release(). */
int auth_challenge_parse(const char *value, struct auth_challenge *ret);
void auth_challenge_release(struct auth_challenge *c);

struct auth_token {
	char *value;	     /* NULL: none */
	uint64_t refresh_ms; /* now_ms() from when a new one should be got */
	uint64_t expires_ms; /* … and from when this one must not be used */
};

/* A token server's answer. -EINVAL with *err. On 0: auth_token_release(). */
int auth_token_parse(const char *json, size_t len, uint64_t at_ms,
		     struct auth_token *ret, struct error *err);
void auth_token_release(struct auth_token *t);

/* "Basic …", to be freed; NULL when memory is short. */
char *auth_basic(const char *user, const char *password);

/* NUL-terminated and to be freed; *ret_len bytes, which may include NULs.
 * -EINVAL. */
int auth_base64_decode(const char *s, char **ret, size_t *ret_len);

#endif
