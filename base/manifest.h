/* Manifests: OCI image manifest and index, Docker schema 2 manifest and list.
 * Sources: OCI image specification 1.1; Docker image manifest V2, schema 2. The
 * parser has limits and ignores unknown fields. Any thread. */
#ifndef BASE_MANIFEST_H
#define BASE_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/digest.h"
#include "base/util.h"

/* The parser refuses more entries (layers, or manifests of an index). */
#define MANIFEST_MAX_ENTRIES 4096
/* The parser refuses longer documents (OCI distribution specification, "Pushing
 * Manifests"). */
#define MANIFEST_MAX_BYTES ((size_t)4 << 20)
/* 16 TiB, the largest blob */
#define DESCRIPTOR_MAX_SIZE (UINT64_C(1) << 44)

struct descriptor {
	struct digest digest;
	uint64_t size;
	char *media_type; /* "" if absent */
	char *title; /* org.opencontainers.image.title; NULL if absent or not
			valid. A valid title has no "/" at its start or end, no
			"", "." or ".." component, no control characters (C0,
			DEL, C1), valid UTF-8, and at most 255 bytes per
			component, 4096 in all */
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

/* Parses a manifest. media_type is the Content-Type, "" if unknown; the
 * document's own mediaType wins. -EINVAL with *err: not a manifest of a known
 * kind (schema 1 included), too long, a malformed digest, a negative size, or
 * too many entries. -ENOMEM. On 0 the caller owns *ret: manifest_free(). */
int manifest_parse(const void *bytes, size_t len, const char *media_type,
		   struct manifest **ret, struct error *err);
void manifest_free(struct manifest **m);

/* Returns the entry of an index for "os/arch[/variant]" (NULL: this machine's),
 * borrowed from m; the best after `skip` better ones; NULL if there are no
 * more. The order is containerd's: the platform itself, older variants, then
 * 386 on amd64 and arm on arm64; last, entries without a platform. Names are
 * normalized
 * ("x86_64" is amd64, "aarch64" and "arm64/v8" are arm64). Never returns an
 * attestation ("unknown/unknown"). An entry may be an index itself. */
const struct descriptor *manifest_for_platform(const struct manifest *m,
					       const char *platform,
					       uint32_t skip);
/* Appends the platforms of an index to out, for people: "linux/arm64,
 * linux/arm/v7", as many as fit. */
void manifest_list_platforms(const struct manifest *m, struct buf *out);

/* "linux/amd64" and the like for this machine. */
const char *manifest_platform(void);

/* For Accept headers, comma-separated. */
extern const char manifest_accept[];

#endif
