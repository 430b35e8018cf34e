#include "base/ref.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

#define HUB_HOST "docker.io"
#define HUB_API	 "registry-1.docker.io"

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_lower_alnum(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z');
}

static bool is_alnum(char c)
{
	return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

/* ":port" or nothing. */
static bool port_valid(const char *s)
{
	unsigned int port = 0;

	if (!*s)
		return true;
	if (*s++ != ':' || !*s || strlen(s) > 5)
		return false;
	for (; *s; s++) {
		if (!is_digit(*s))
			return false;
		port = port * 10 + (unsigned int)(*s - '0');
	}
	return port > 0 && port <= 65535;
}

/* "[IPv6][:port]". The resolver decides which of these strings are addresses.
 */
static bool ipv6_host_valid(const char *s)
{
	const char *end = strchr(s, ']');
	size_t colons = 0;

	if (!end || end - s > 46)
		return false;
	for (s++; s < end; s++) {
		if (*s == ':')
			colons++;
		else if (!is_digit(*s) && !(*s >= 'a' && *s <= 'f') &&
			 *s != '.')
			return false;
	}
	return colons >= 2 && port_valid(end + 1);
}

bool ref_host_valid(const char *s)
{
	size_t label = 0;

	if (!*s || strnlen(s, REF_HOST_MAX + 1) > REF_HOST_MAX)
		return false;
	if (*s == '[')
		return ipv6_host_valid(s);
	for (; *s && *s != ':'; s++) {
		if (*s == '.') {
			if (!label || s[-1] == '-')
				return false;
			label = 0;
		} else if (is_lower_alnum(*s) || (*s == '-' && label)) {
			label++;
		} else {
			return false;
		}
	}
	return label && s[-1] != '-' && port_valid(s);
}

/* Alphanumeric runs, joined by one '.', one or two '_', or any number of '-'.
 * Returns the rest of s, NULL if s begins with no component. */
static const char *skip_component(const char *s)
{
	for (;;) {
		const char *p = s;

		while (is_lower_alnum(*s))
			s++;
		if (s == p)
			return NULL;
		if (*s == '.') {
			s++;
		} else if (*s == '_') {
			s += s[1] == '_' ? 2 : 1;
		} else if (*s == '-') {
			while (*s == '-')
				s++;
		} else {
			return s;
		}
	}
}

bool ref_component_valid(const char *s)
{
	if (strnlen(s, REF_NAME_MAX + 1) > REF_NAME_MAX)
		return false;
	s = skip_component(s);
	return s && !*s;
}

bool ref_name_valid(const char *s)
{
	if (strnlen(s, REF_NAME_MAX + 1) > REF_NAME_MAX)
		return false;
	for (;;) {
		s = skip_component(s);
		if (!s || (*s && *s != '/'))
			return false;
		if (!*s++)
			return true;
	}
}

bool ref_tag_valid(const char *s)
{
	size_t n;

	if (!is_alnum(*s) && *s != '_')
		return false;
	for (n = 0; s[n]; n++) {
		if (n >= REF_TAG_MAX)
			return false;
		if (!is_alnum(s[n]) && s[n] != '_' && s[n] != '.' &&
		    s[n] != '-')
			return false;
	}
	return true;
}

/* Returns the part after the last slash, which becomes the end of s. */
static char *cut_last(char *s)
{
	char *slash = strrchr(s, '/');

	if (!slash)
		return NULL;
	*slash = '\0';
	return slash + 1;
}

/* image-spec, "Digests": algorithm ":" encoded. Of those that are registered
 * the encoded part is as long as the sum. */
bool ref_digest_valid(const char *s)
{
	static const char lower[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	static const char encoded[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ=_-"
				      "abcdefghijklmnopqrstuvwxyz0123456789";
	size_t n = strspn(s, lower), len = strlen(s);
	const char *sum;

	while (n && strchr("+._-", s[n]) && s[n]) {
		size_t part = strspn(s + n + 1, lower);

		n = part ? n + 1 + part : 0;
	}
	if (n == 0 || s[n] != ':' || len > REF_DIGEST_MAX)
		return false;
	sum = s + n + 1;
	if (strncmp(s, "sha256:", 7) == 0 || strncmp(s, "sha512:", 7) == 0)
		return strlen(sum) == (s[3] == '2' ? 64 : 128) &&
		       strspn(sum, "0123456789abcdef") == strlen(sum);
	return *sum && strspn(sum, encoded) == strlen(sum);
}

bool ref_split_path(char *path, char **ret_name, char **ret_kind,
		    char **ret_reference)
{
	static const char prefix[] = "/v2/";

	if (strncmp(path, prefix, strlen(prefix)) != 0)
		return false;
	*ret_name = path + strlen(prefix);
	*ret_reference = cut_last(*ret_name);
	*ret_kind = *ret_reference ? cut_last(*ret_name) : NULL;
	return *ret_kind && ref_name_valid(*ret_name);
}

const char *ref_host_canonical(const char *s)
{
	if (strcmp(s, "index.docker.io") == 0 || strcmp(s, HUB_API) == 0)
		return HUB_HOST;
	return s;
}

static const char *without_scheme(const char *s)
{
	if (strncmp(s, "http://", 7) == 0)
		return s + 7;
	return strncmp(s, "https://", 8) == 0 ? s + 8 : s;
}

bool ref_host_listed(const struct string_list *list, const char *host)
{
	host = ref_host_canonical(host);
	for (size_t i = 0; i < list->n; i++) {
		const char *s = without_scheme(list->v[i]);

		if (strcmp(s, "_default") == 0 ||
		    strcmp(ref_host_canonical(s), host) == 0)
			return true;
	}
	return false;
}

const char *ref_host_api(const char *s)
{
	return strcmp(ref_host_canonical(s), HUB_HOST) == 0 ? HUB_API : s;
}

void ref_release(struct ref *r)
{
	free(r->host);
	free(r->name);
	free(r->tag);
	*r = (struct ref){0};
}

static bool looks_like_host(const char *s)
{
	return strpbrk(s, ".:") || strcmp(s, "localhost") == 0;
}

/* Moves *s past its host; without one the host is Docker Hub. */
static int split_host(char **s, char **ret_host, struct error *err)
{
	char *slash = strchr(*s, '/');

	if (slash)
		*slash = '\0';
	if (!slash || !looks_like_host(*s)) {
		if (slash)
			*slash = '/';
		*ret_host = strdup(HUB_HOST);
		return *ret_host ? 0 : -ENOMEM;
	}
	for (char *p = *s; *p; p++) {
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p - 'A' + 'a');
	}
	if (!ref_host_valid(*s))
		return set_error(err, -EINVAL,
				 "\"%.*s\" is not a registry host",
				 REF_HOST_MAX, *s);
	*ret_host = strdup(ref_host_canonical(*s));
	*s = slash + 1;
	return *ret_host ? 0 : -ENOMEM;
}

static int split_digest(char *s, struct ref *ret, struct error *err)
{
	char *at = strchr(s, '@');

	if (!at)
		return 0;
	*at++ = '\0';
	if (digest_parse(at, &ret->digest) < 0)
		return set_error(err, -EINVAL,
				 "\"%.100s\" is not a digest: \"sha256:\" and "
				 "64 lower-case hex digits are expected",
				 at);
	ret->has_digest = true;
	return 0;
}

static int split_tag(char *s, struct ref *ret, struct error *err)
{
	char *slash = strrchr(s, '/');
	char *colon = strchr(slash ? slash : s, ':');
	const char *tag;

	if (colon) {
		*colon = '\0';
		tag = colon + 1;
		if (!ref_tag_valid(tag))
			return set_error(err, -EINVAL,
					 "\"%.128s\" is not a tag", tag);
	} else if (ret->has_digest) {
		return 0;
	} else {
		tag = "latest";
	}
	ret->tag = strdup(tag);
	return ret->tag ? 0 : -ENOMEM;
}

static int set_name(const char *s, struct ref *ret, struct error *err)
{
	bool shorthand = strcmp(ret->host, HUB_HOST) == 0 && !strchr(s, '/');

	if (!ref_name_valid(s))
		return set_error(err, -EINVAL,
				 "\"%.255s\" is not a repository name", s);
	if (asprintf(&ret->name, "%s%s", shorthand ? "library/" : "", s) < 0) {
		ret->name = NULL;
		return -ENOMEM;
	}
	if (strlen(ret->name) > REF_NAME_MAX)
		return set_error(err, -EINVAL,
				 "the repository name is longer "
				 "than %d bytes",
				 REF_NAME_MAX);
	return 0;
}

int ref_parse(const char *s, struct ref *ret, struct error *err)
{
	CLEANUP(ref_release) struct ref ref = {0};
	CLEANUP(freep) char *copy = NULL;
	char *p;
	int r;

	*ret = (struct ref){0};
	if (!*s)
		return set_error(err, -EINVAL, "the reference is empty");
	if (strnlen(s, 2048) == 2048)
		return set_error(err, -EINVAL, "the reference is too long");
	copy = strdup(s);
	if (!copy)
		return -ENOMEM;
	p = copy;
	r = split_digest(p, &ref, err);
	if (r < 0)
		return r;
	r = split_host(&p, &ref.host, err);
	if (r < 0)
		return r;
	r = split_tag(p, &ref, err);
	if (r < 0)
		return r;
	r = set_name(p, &ref, err);
	if (r < 0)
		return r;
	*ret = ref;
	ref = (struct ref){0};
	return 0;
}
