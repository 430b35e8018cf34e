#include "registry/auth.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/ref.h"

/* Default lifetime of a token without expires_in, by distribution's token
 * specification. */
#define TOKEN_DEFAULT_S 60
#define TOKEN_MAX_S	86400

struct creds_entry {
	char *host;
	char *path; /* of the repositories; "": all of the host */
	bool exact; /* the key was a bare host, not a URL */
	struct auth_creds creds;
};

struct auth_config {
	struct creds_entry *v;
	size_t n;
	bool helpers;
};

/* ---- base64 (RFC 4648, 4) ---- */

static int b64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int auth_base64_decode(const char *s, char **ret, size_t *ret_len)
{
	size_t n = strcspn(s, "="), out = 0;
	size_t pad = strspn(s + n, "=");
	CLEANUP(freep) char *p = NULL;
	uint32_t acc = 0;
	int bits = 0;

	if (s[n + pad] || pad > 2 || n % 4 == 1 || (pad && (n + pad) % 4))
		return -EINVAL;
	p = malloc(n / 4 * 3 + 4);
	if (!p)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		int v = b64_value(s[i]);

		if (v < 0)
			return -EINVAL;
		acc = (acc << 6 | (uint32_t)v) & 0xffffff;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			p[out++] = (char)(acc >> bits & 0xff);
		}
	}
	p[out] = '\0';
	*ret_len = out;
	*ret = steal_ptr(&p);
	return 0;
}

char *auth_basic(const char *user, const char *password)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				     "abcdefghijklmnopqrstuvwxyz"
				     "0123456789+/=";
	CLEANUP(freep) char *in = NULL;
	char *out, *p;
	int n;

	n = asprintf(&in, "%s:%s", user, password);
	if (n < 0) {
		in = NULL;
		return NULL;
	}
	out = malloc(6 + ((size_t)n + 2) / 3 * 4 + 1);
	if (!out)
		return NULL;
	memcpy(out, "Basic ", 6);
	p = out + 6;
	for (int i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)(unsigned char)in[i] << 16;

		if (i + 1 < n)
			v |= (uint32_t)(unsigned char)in[i + 1] << 8;
		if (i + 2 < n)
			v |= (uint32_t)(unsigned char)in[i + 2];
		*p++ = digits[v >> 18];
		*p++ = digits[v >> 12 & 63];
		*p++ = digits[i + 1 < n ? v >> 6 & 63 : 64];
		*p++ = digits[i + 2 < n ? v & 63 : 64];
	}
	*p = '\0';
	return out;
}

/* ---- config.json ---- */

static void creds_release(struct auth_creds *c)
{
	free(c->user);
	free(c->password);
	free(c->identity_token);
	free(c->registry_token);
}

void auth_config_free(struct auth_config **pc)
{
	struct auth_config *c = *pc;

	*pc = NULL;
	if (!c)
		return;
	for (size_t i = 0; i < c->n; i++) {
		free(c->v[i].host);
		free(c->v[i].path);
		creds_release(&c->v[i].creds);
	}
	free(c->v);
	free(c);
}

/* Splits a key such as "https://index.docker.io/v1/", "host:port",
 * "http://host/v2/" or "host/namespace/repository". Of a URL only the host
 * counts, as in Docker; a key without a scheme is for the repositories below
 * its path (containers-auth.json(5)). -EINVAL: neither. -ENOMEM. */
static int split_key(const char *key, struct creds_entry *e)
{
	CLEANUP(freep) char *host = NULL;
	const char *s = key, *path;

	if (strncasecmp(s, "https://", 8) == 0)
		s += 8;
	else if (strncasecmp(s, "http://", 7) == 0)
		s += 7;
	path = s + strcspn(s, "/");
	host = strndup(s, (size_t)(path - s));
	if (!host)
		return -ENOMEM;
	for (char *p = host; *p; p++) {
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p - 'A' + 'a');
	}
	if (!ref_host_valid(host))
		return -EINVAL;
	e->exact = s == key && !*path;
	path += *path == '/';
	if (s != key || strcmp(path, "v1") == 0 || strcmp(path, "v1/") == 0 ||
	    strcmp(path, "v2") == 0 || strcmp(path, "v2/") == 0)
		path = "";
	if (*path && !ref_name_valid(path))
		return -EINVAL;
	e->path = strdup(path);
	e->host = strdup(ref_host_canonical(host));
	return e->path && e->host ? 0 : -ENOMEM;
}

static int dup_field(const json_t *o, const char *key, char **ret)
{
	const char *s = json_get_str(o, key);

	if (!s || !*s)
		return 0;
	*ret = strdup(s);
	return *ret ? 0 : -ENOMEM;
}

/* The token is sent in a header without encoding. */
static bool token_valid(const char *s)
{
	size_t n;

	for (n = 0; s[n]; n++) {
		if (s[n] <= ' ' || s[n] > '~' || n >= AUTH_TOKEN_MAX_BYTES)
			return false;
	}
	return n > 0;
}

/* "auth" is base64 of "user:password"; some tools pad it with NULs. */
static int split_auth(const char *auth, struct auth_creds *c)
{
	CLEANUP(freep) char *plain = NULL;
	char *colon;
	size_t len;
	int r;

	r = auth_base64_decode(auth, &plain, &len);
	if (r < 0)
		return r;
	colon = strchr(plain, ':');
	if (!colon)
		return -EINVAL;
	*colon = '\0';
	free(c->user);
	free(c->password);
	c->user = strdup(plain);
	c->password = strdup(colon + 1);
	return c->user && c->password ? 0 : -ENOMEM;
}

/* -EINVAL: no usable content. -ENOMEM. */
static int parse_creds(const json_t *o, struct auth_creds *c)
{
	const char *auth = json_get_str(o, "auth");
	int r;

	r = dup_field(o, "username", &c->user);
	if (r == 0)
		r = dup_field(o, "password", &c->password);
	if (r == 0)
		r = dup_field(o, "identitytoken", &c->identity_token);
	if (r == 0)
		r = dup_field(o, "registrytoken", &c->registry_token);
	if (r == 0 && auth && *auth)
		r = split_auth(auth, c);
	if (r < 0)
		return r;
	if (c->registry_token && !token_valid(c->registry_token))
		return -EINVAL;
	return c->registry_token || c->identity_token ||
			       (c->user && c->password)
		       ? 0
		       : -EINVAL;
}

static int add_entry(struct auth_config *c, const char *key, const json_t *o)
{
	struct creds_entry e = {0};
	int r;

	r = split_key(key, &e);
	if (r == 0)
		r = parse_creds(o, &e.creds);
	if (r < 0) {
		free(e.host);
		free(e.path);
		creds_release(&e.creds);
		return r == -ENOMEM ? r : 0;
	}
	c->v[c->n++] = e;
	return 0;
}

static int build_config(const json_t *o, struct auth_config **ret,
			struct error *err)
{
	CLEANUP(auth_config_free) struct auth_config *c = NULL;
	const char *key;
	json_t *auths, *v;
	int r;

	if (!json_is_object(o))
		return set_error(err, -EINVAL, "not a JSON object");
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->helpers = json_get_str(o, "credsStore") ||
		     json_object_size(json_get_obj(o, "credHelpers")) > 0;
	auths = json_get_obj(o, "auths");
	c->v = calloc(json_object_size(auths) + 1, sizeof(*c->v));
	if (!c->v)
		return -ENOMEM;
	json_object_foreach (auths, key, v) {
		r = add_entry(c, key, v);
		if (r < 0)
			return r;
	}
	*ret = steal_ptr(&c);
	return 0;
}

int auth_config_parse(const char *json, size_t len, struct auth_config **ret,
		      struct error *err)
{
	CLEANUP(json_decrefp) json_t *o = NULL;
	int r;

	r = json_parse(json, len, AUTH_CONFIG_MAX_BYTES, &o, err);
	if (r < 0)
		return r == -ENOMEM ? r : -EINVAL;
	return build_config(o, ret, err);
}

int auth_config_read(const char *path, struct auth_config **ret,
		     struct error *err)
{
	CLEANUP(json_decrefp) json_t *o = NULL;
	int r;

	r = json_parse_file(path, AUTH_CONFIG_MAX_BYTES, &o, err);
	if (r < 0)
		return r;
	return build_config(o, ret, err);
}

/* Whether the entry is for this repository. */
static bool entry_covers(const struct creds_entry *e, const char *host,
			 const char *name)
{
	size_t n = strlen(e->path);

	return strcmp(e->host, host) == 0 &&
	       (n == 0 || (strncmp(e->path, name, n) == 0 &&
			   (name[n] == '/' || name[n] == '\0')));
}

const struct auth_creds *auth_config_find(const struct auth_config *c,
					  const char *host, const char *name)
{
	const struct creds_entry *found = NULL;

	for (size_t i = 0; c && i < c->n; i++) {
		const struct creds_entry *e = &c->v[i];

		if (entry_covers(e, host, name) &&
		    (!found || strlen(e->path) > strlen(found->path) ||
		     (strlen(e->path) == strlen(found->path) && e->exact &&
		      !found->exact)))
			found = e;
	}
	return found ? &found->creds : NULL;
}

bool auth_config_has_helpers(const struct auth_config *c)
{
	return c && c->helpers;
}

/* ---- WWW-Authenticate ---- */

static bool is_token_char(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
	       (c >= 'A' && c <= 'Z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static const char *skip_blank(const char *s)
{
	return s + strspn(s, " \t");
}

/* Reads and unescapes a token or a quoted string at *s. -EINVAL, -ENOMEM. */
static int take_value(const char **s, char **ret)
{
	const char *p = *s;
	size_t n = 0;
	char *out;

	out = malloc(strlen(p) + 1);
	if (!out)
		return -ENOMEM;
	if (*p == '"') {
		for (p++; *p && *p != '"'; p++) {
			if (*p == '\\' && p[1])
				p++;
			if ((unsigned char)*p < ' ' || *p == 0x7f)
				break;
			out[n++] = *p;
		}
		if (*p != '"') {
			free(out);
			return -EINVAL;
		}
		p++;
	} else {
		/* Laxer than a token: some servers do not quote realms. */
		while (*p > ' ' && *p < 0x7f && *p != ',' && *p != '"')
			out[n++] = *p++;
	}
	out[n] = '\0';
	*s = p;
	*ret = out;
	return 0;
}

void auth_challenge_release(struct auth_challenge *c)
{
	free(c->realm);
	free(c->service);
	free(c->scope);
	*c = (struct auth_challenge){0};
}

static void set_param(struct auth_challenge *c, const char *name, size_t len,
		      char **value)
{
	char **field = NULL;

	if (len == 5 && strncasecmp(name, "realm", 5) == 0)
		field = &c->realm;
	else if (len == 7 && strncasecmp(name, "service", 7) == 0)
		field = &c->service;
	else if (len == 5 && strncasecmp(name, "scope", 5) == 0)
		field = &c->scope;
	if (field && !*field)
		*field = steal_ptr(value);
}

/* Keeps the better of the two in *best; empties *cur. */
static void settle(struct auth_challenge *cur, struct auth_challenge *best)
{
	if (cur->scheme == AUTH_BEARER && !cur->realm)
		cur->scheme = AUTH_NONE;
	if (cur->scheme > best->scheme) {
		auth_challenge_release(best);
		*best = *cur;
		*cur = (struct auth_challenge){0};
	}
	auth_challenge_release(cur);
}

static enum auth_scheme scheme_of(const char *name, size_t len)
{
	if (len == 5 && strncasecmp(name, "basic", 5) == 0)
		return AUTH_BASIC;
	if (len == 6 && strncasecmp(name, "bearer", 6) == 0)
		return AUTH_BEARER;
	return AUTH_NONE;
}

/* Reads one list element: a scheme (its first parameter or token68 may follow),
 * or a parameter of the previous scheme. */
static int take_element(const char **s, struct auth_challenge *cur,
			struct auth_challenge *best)
{
	CLEANUP(freep) char *value = NULL;
	const char *name = *s, *p = *s, *eq;
	size_t len;
	int r;

	while (is_token_char(*p))
		p++;
	len = (size_t)(p - name);
	if (len == 0)
		return -EINVAL;
	eq = skip_blank(p);
	if (*eq == '=' && eq[1] != '=') {
		eq = skip_blank(eq + 1);
		r = take_value(&eq, &value);
		if (r < 0)
			return r;
		set_param(cur, name, len, &value);
		*s = eq;
		return 0;
	}
	settle(cur, best);
	cur->scheme = scheme_of(name, len);
	*s = p;
	p = skip_blank(p);
	if (p == *s || !*p || *p == ',')
		return *p && *p != ',' && p == *s ? -EINVAL : 0;
	/* A parameter, or the token68 of a scheme like Negotiate. */
	for (eq = p; is_token_char(*eq); eq++)
		;
	eq = skip_blank(eq);
	if (*eq == '=' && eq[1] && eq[1] != '=' && eq[1] != ',') {
		*s = p;
		return take_element(s, cur, best);
	}
	*s = p + strcspn(p, ",");
	return 0;
}

int auth_challenge_parse(const char *value, struct auth_challenge *ret)
{
	CLEANUP(auth_challenge_release) struct auth_challenge cur = {0};
	CLEANUP(auth_challenge_release) struct auth_challenge best = {0};
	const char *s = value;
	int r;

	*ret = (struct auth_challenge){0};
	for (;;) {
		s += strspn(s, " \t,");
		if (!*s)
			break;
		r = take_element(&s, &cur, &best);
		if (r < 0)
			return r;
		s = skip_blank(s);
		if (*s && *s != ',')
			return -EINVAL;
	}
	settle(&cur, &best);
	if (best.scheme == AUTH_NONE)
		return -ENOENT;
	*ret = best;
	best = (struct auth_challenge){0};
	return 0;
}

/* ---- Tokens ---- */

void auth_token_release(struct auth_token *t)
{
	free(t->value);
	*t = (struct auth_token){0};
}

int auth_token_parse(const char *json, size_t len, uint64_t at_ms,
		     struct auth_token *ret, struct error *err)
{
	CLEANUP(json_decrefp) json_t *o = NULL;
	uint64_t life_s;
	const char *v;
	int r;

	*ret = (struct auth_token){0};
	r = json_parse(json, len, AUTH_TOKEN_MAX_BYTES * 4, &o, err);
	if (r < 0)
		return r == -ENOMEM ? r : -EINVAL;
	v = json_get_str(o, "token");
	if (!v || !*v)
		v = json_get_str(o, "access_token");
	if (!v || !token_valid(v))
		return set_error(err, -EINVAL,
				 "the answer has no usable token");
	if (json_get_u64(o, "expires_in", &life_s) < 0 || life_s == 0)
		life_s = TOKEN_DEFAULT_S;
	life_s = min_u64(life_s, TOKEN_MAX_S);
	ret->value = strdup(v);
	if (!ret->value)
		return -ENOMEM;
	ret->refresh_ms = at_ms + life_s * 800;
	ret->expires_ms = at_ms + life_s * 950;
	return 0;
}
