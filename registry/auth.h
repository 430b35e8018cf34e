/* Parsers for logging in to registries, without I/O except auth_config_read():
 * the credentials of a Docker config.json, challenges, tokens. Sources: Docker
 * CLI, "config.json"; RFC 9110, 11.6.1; distribution, "Token Authentication
 * Specification". Any thread. */
#ifndef REGISTRY_AUTH_H
#define REGISTRY_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"

#define AUTH_CONFIG_MAX_BYTES ((size_t)1 << 20)
#define AUTH_TOKEN_MAX_BYTES  ((size_t)32 << 10)

/* A field that the file does not have is NULL. */
struct auth_creds {
	char *user, *password;
	char *identity_token; /* an OAuth2 refresh token */
	char *registry_token; /* sent as it is */
};

struct auth_config;

/* Parses a config.json. Entries without usable content are left out. -ENOMEM;
 * -EINVAL with *err. On 0 the caller owns *ret; end it with
 * auth_config_free(). */
int auth_config_parse(const char *json, size_t len, struct auth_config **ret,
		      struct error *err);
/* Reads and parses the file at path. Errors as above, and -errno of open(2) and
 * read(2). */
int auth_config_read(const char *path, struct auth_config **ret,
		     struct error *err);
void auth_config_free(struct auth_config **c);
/* Returns the entry for a repository of a canonical host (see
 * ref_host_canonical()): the one whose key is the longest prefix of
 * "host/name", by whole components (containers-auth.json(5)). Borrowed from c;
 * NULL if there is none. */
const struct auth_creds *auth_config_find(const struct auth_config *c,
					  const char *host, const char *name);
/* Whether the file names credential helpers. peerd does not run them. */
bool auth_config_has_helpers(const struct auth_config *c);

enum auth_scheme { AUTH_NONE, AUTH_BASIC, AUTH_BEARER };

struct auth_challenge {
	enum auth_scheme scheme;
	char *realm;   /* AUTH_BEARER: a URL, never NULL */
	char *service; /* NULL if absent */
	char *scope;   /* NULL if absent */
};

/* Parses the value of one WWW-Authenticate field, which may hold several
 * challenges; prefers Bearer to Basic. -ENOENT: neither scheme is there.
 * -EINVAL: malformed. On 0 end *ret with auth_challenge_release(). */
int auth_challenge_parse(const char *value, struct auth_challenge *ret);
void auth_challenge_release(struct auth_challenge *c);

struct auth_token {
	char *value;	     /* NULL: none */
	uint64_t refresh_ms; /* on now_ms(); get a new one from then on */
	uint64_t expires_ms; /* on now_ms(); unusable from then on */
};

/* Parses a token server's answer, received at at_ms. -ENOMEM; -EINVAL with
 * *err. On 0 end *ret with auth_token_release(). */
int auth_token_parse(const char *json, size_t len, uint64_t at_ms,
		     struct auth_token *ret, struct error *err);
void auth_token_release(struct auth_token *t);

/* Returns "Basic …"; the caller frees it. NULL when memory is short. */
char *auth_basic(const char *user, const char *password);

/* Decodes s into a NUL-terminated string that the caller frees. *ret_len counts
 * the bytes, which may include NULs. -EINVAL: malformed. -ENOMEM. */
int auth_base64_decode(const char *s, char **ret, size_t *ret_len);

#endif
