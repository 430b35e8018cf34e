/* Names: registry hosts, repositories, tags, digests, and the references that
 * people write. Sources: OCI distribution specification 1.1, "Pull"; the
 * grammar of github.com/distribution/reference. Any thread. */
#ifndef BASE_REF_H
#define BASE_REF_H

#include <stdbool.h>

#include "base/digest.h"
#include "base/util.h"
#include "base/values.h"

#define REF_HOST_MAX 255
#define REF_NAME_MAX 255
#define REF_TAG_MAX  128

/* "host[:port]", lower-case letters, digits, '.', '-'; or "[IPv6][:port]". */
bool ref_host_valid(const char *s);
/* One path component of a repository name. */
bool ref_component_valid(const char *s);
/* Components joined with '/'. */
bool ref_name_valid(const char *s);
bool ref_tag_valid(const char *s);

/* Cuts the path "/v2/<name>/<kind>/<reference>" in place: from the right, since
 * a name may have components of any kind. False if it is no such path or the
 * name is not valid; kind and reference are the caller's to check. */
bool ref_split_path(char *path, char **ret_name, char **ret_kind,
		    char **ret_reference);

/* docker.io and index.docker.io are aliases; this is the canonical host
 * ("docker.io"), or s itself. */
const char *ref_host_canonical(const char *s);
/* Whether the list names the host: as it is, by an alias, with "http://" or
 * "https://" before it, or by "_default", which stands for every host (as in
 * containerd's certs.d). */
bool ref_host_listed(const struct string_list *list, const char *host);
/* The host that serves the API: "registry-1.docker.io" for Docker Hub. */
const char *ref_host_api(const char *s);

struct ref {
	char *host; /* canonical */
	char *name; /* "library/" added for Docker Hub's short names */
	char *tag;  /* NULL if a digest stands alone; "latest" if neither */
	bool has_digest;
	struct digest digest; /* wins over the tag */
};

/* "[host[:port]/]name[:tag][@sha256:…]". The first component is a host if it
 * has a '.', a ':' or is "localhost"; otherwise Docker Hub is meant. -EINVAL
 * with *err, which says which part is wrong. On 0: ref_release(). */
int ref_parse(const char *s, struct ref *ret, struct error *err);
void ref_release(struct ref *r);

#endif
