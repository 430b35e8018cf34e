/* Manifests: OCI image manifest and index, Docker schema 2 manifest and list.
 * Sources: OCI image specification 1.1; Docker image manifest V2, schema 2.
 * Parsed with limits; unknown fields are ignored. Any thread. */
#ifndef BASE_MANIFEST_H
#define BASE_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/util.h"

/* More entries (layers, or manifests of an index) than this are refused. */
#define MANIFEST_MAX_ENTRIES 4096
/* Longer documents are refused (OCI distribution specification, "Pushing
 * Manifests"). */
#define MANIFEST_MAX_BYTES ((size_t)4 << 20)
/* 16 TiB: no blob is larger. */
#define DESCRIPTOR_MAX_SIZE (UINT64_C(1) << 44)

struct descriptor {
	struct digest digest;
	uint64_t size;
	char *media_type; /* "" if absent */
	char *title;	  /* org.opencontainers.image.title, or NULL; checked:
			     no "/" at the start or end, no "", "." or ".."
			     component, no control bytes, valid UTF-8, at most
			     255 bytes a component; NULL when it fails */
	char *os, *arch, *variant; /* of an index's entry; NULL if absent */
};

struct manifest {
	bool index; /* entries are manifests, not layers */
	bool has_config;
	struct descriptor config;
	struct descriptor *entries;
	uint32_t nentries;
	char *media_type;
};

/* media_type is the Content-Type, "" if unknown; the document's own mediaType
 * wins. -EINVAL with *err: not a manifest of a known kind (schema 1 too), or
 * one with a malformed digest, a negative size, too many entries. On 0 the
 * caller owns *ret: manifest_free(). */
int manifest_parse(const void *bytes, size_t len, const char *media_type,
		   struct manifest **ret, struct error *err);
void manifest_free(struct manifest **m);

/* The entry of an index for "os/arch[/variant]" (NULL: this machine's, linux);
 * an exact variant first, then any of that arch; entries that are attestations
 * ("unknown/unknown") never. NULL if there is none. */
const struct descriptor *manifest_for_platform(const struct manifest *m,
					       const char *platform);

/* "linux/amd64" and the like for this machine. */
const char *manifest_platform(void);

/* For Accept: headers, comma-separated. */
extern const char manifest_accept[];

#endif
