/* Names: registry hosts, repositories, tags, digests, and references as people
 * write them. Sources: OCI distribution specification 1.1, "Pull"; the grammar
 * of github.com/distribution/reference. Any thread. */
#ifndef BASE_REF_H
#define BASE_REF_H

#include <stdbool.h>

#include "base/digest.h"
#include "base/util.h"
#include "base/values.h"

#define REF_HOST_MAX   255
#define REF_NAME_MAX   255
#define REF_TAG_MAX    128
#define REF_DIGEST_MAX 255

/* "host[:port]", lower-case letters, digits, '.', '-'; or "[IPv6][:port]". */
bool ref_host_valid(const char *s);
/* One path component of a repository name. */
bool ref_component_valid(const char *s);
/* Components joined with '/'. */
bool ref_name_valid(const char *s);
bool ref_tag_valid(const char *s);
/* A digest of any algorithm, "sha256:…", "sha512:…". */
bool ref_digest_valid(const char *s);

/* Cuts the path "/v2/<name>/<kind>/<reference>" in place, from the right,
 * because any component of a name may equal a kind. False if the path has
 * another form or the name is not valid. The caller checks kind and reference.
 */
bool ref_split_path(char *path, char **ret_name, char **ret_kind,
		    char **ret_reference);

/* Returns the canonical host: "docker.io" for index.docker.io and
 * registry-1.docker.io, otherwise s itself. */
const char *ref_host_canonical(const char *s);
/* True if the list names the host: as it is, by an alias, after "http://" or
 * "https://", or by "_default", which stands for every host (as in containerd's
 * certs.d). */
bool ref_host_listed(const struct string_list *list, const char *host);
/* Returns the host that serves the API: "registry-1.docker.io" for Docker Hub,
 * otherwise s itself. */
const char *ref_host_api(const char *s);

struct ref {
	char *host; /* canonical */
	char *name; /* with "library/" for Docker Hub's short names */
	char *tag;  /* NULL with a digest alone; "latest" with neither */
	bool has_digest;
	struct digest digest; /* wins over the tag */
};

/* Parses "[host[:port]/]name[:tag][@sha256:…]". The first component is a host
 * if it has a '.' or a ':', or is "localhost"; otherwise the host is Docker
 * Hub. -EINVAL with *err, which names the wrong part; -ENOMEM. On 0:
 * ref_release(). */
int ref_parse(const char *s, struct ref *ret, struct error *err);
void ref_release(struct ref *r);

#endif
