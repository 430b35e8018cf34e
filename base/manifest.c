#include "base/manifest.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/json.h"

#define OCI_MANIFEST	"application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX	"application/vnd.oci.image.index.v1+json"
#define DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_LIST                                                            \
	"application/vnd.docker.distribution.manifest"                         \
	".list.v2+json"
#define TITLE_KEY     "org.opencontainers.image.title"
#define TITLE_MAX     4096
#define COMPONENT_MAX 255
#define TYPE_MAX      255

const char manifest_accept[] =
	OCI_INDEX "," OCI_MANIFEST "," DOCKER_LIST "," DOCKER_MANIFEST;

/* Media types go into headers: only printable characters without blanks. */
static bool type_valid(const char *s)
{
	size_t n;

	for (n = 0; s[n]; n++) {
		if (s[n] <= ' ' || s[n] > '~' || n >= TYPE_MAX)
			return false;
	}
	return true;
}

/* jansson has checked that the title is UTF-8. */
static bool title_valid(const char *s)
{
	size_t part = 0, n;

	for (n = 0;; n++) {
		unsigned char c = (unsigned char)s[n];

		if (c == '/' || c == '\0') {
			const char *p = s + n - part;

			if (part == 0 || part > COMPONENT_MAX ||
			    (part == 1 && p[0] == '.') ||
			    (part == 2 && p[0] == '.' && p[1] == '.'))
				return false;
			part = 0;
			if (!c)
				return n <= TITLE_MAX;
			continue;
		}
		/* C1 controls are U+0080 to U+009F: C2 80 to C2 9F. */
		if (c < ' ' || c == 0x7f ||
		    (c == 0xc2 && (unsigned char)s[n + 1] < 0xa0))
			return false;
		part++;
	}
}

static int dup_str(const char *s, char **ret)
{
	if (!s)
		return 0;
	*ret = strdup(s);
	return *ret ? 0 : -ENOMEM;
}

static void descriptor_release(struct descriptor *d)
{
	free(d->media_type);
	free(d->title);
	free(d->os);
	free(d->arch);
	free(d->variant);
}

static int parse_platform(const json_t *o, struct descriptor *d)
{
	const json_t *p = json_get_obj(o, "platform");
	int r;

	if (!p)
		return 0;
	r = dup_str(json_get_str(p, "os"), &d->os);
	if (r == 0)
		r = dup_str(json_get_str(p, "architecture"), &d->arch);
	if (r == 0)
		r = dup_str(json_get_str(p, "variant"), &d->variant);
	return r;
}

/* On an error *d holds the fields read so far. */
static int parse_descriptor(const json_t *o, const char *what,
			    struct descriptor *d, struct error *err)
{
	const char *digest = json_get_str(o, "digest");
	const char *type = json_get_str(o, "mediaType");
	const char *title =
		json_get_str(json_get_obj(o, "annotations"), TITLE_KEY);
	int r;

	if (!digest || digest_parse(digest, &d->digest) < 0)
		return set_error(err, -EINVAL, "%s has no valid digest", what);
	if (json_get_u64(o, "size", &d->size) < 0 ||
	    d->size > DESCRIPTOR_MAX_SIZE)
		return set_error(err, -EINVAL, "%s has no valid size", what);
	if (type && !type_valid(type))
		return set_error(err, -EINVAL, "%s has a malformed mediaType",
				 what);
	r = dup_str(type ? type : "", &d->media_type);
	if (r == 0 && title && title_valid(title))
		r = dup_str(title, &d->title);
	if (r == 0)
		r = parse_platform(o, d);
	return r;
}

static int parse_entries(const json_t *arr, struct manifest *m,
			 struct error *err)
{
	size_t n = json_array_size(arr);
	int r;

	if (n > MANIFEST_MAX_ENTRIES)
		return set_error(err, -EINVAL,
				 "the manifest has %zu entries; at most %d are "
				 "accepted",
				 n, MANIFEST_MAX_ENTRIES);
	if (n == 0)
		return 0;
	m->entries = calloc(n, sizeof(*m->entries));
	if (!m->entries)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct descriptor *d = &m->entries[m->nentries++];

		r = parse_descriptor(
			json_array_get(arr, i),
			m->index ? "an entry of the index" : "a layer", d, err);
		if (r < 0)
			return r;
	}
	return 0;
}

void manifest_free(struct manifest **pm)
{
	struct manifest *m = *pm;

	*pm = NULL;
	if (!m)
		return;
	descriptor_release(&m->config);
	for (uint32_t i = 0; i < m->nentries; i++)
		descriptor_release(&m->entries[i]);
	free(m->entries);
	free(m->media_type);
	free(m);
}

/* The kind that a media type names: 1 index, 0 manifest, -EINVAL neither. */
static int kind_of_type(const char *t)
{
	size_t n = strcspn(t, "; \t");
	static const struct {
		const char *type;
		int index;
	} known[] = {
		{OCI_MANIFEST, 0},
		{DOCKER_MANIFEST, 0},
		{OCI_INDEX, 1},
		{DOCKER_LIST, 1},
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strlen(known[i].type) == n &&
		    strncasecmp(known[i].type, t, n) == 0)
			return known[i].index;
	}
	return -EINVAL;
}

/* Refuses a document that could be read as either kind: two readers would see
 * different images (the attack of CVE-2021-41190). */
static int find_kind(const json_t *o, const char *content_type,
		     struct manifest *m, struct error *err)
{
	const char *own = json_get_str(o, "mediaType");
	bool as_index = json_object_get(o, "manifests") != NULL;
	bool as_image = json_object_get(o, "layers") ||
			json_object_get(o, "config") ||
			json_object_get(o, "fsLayers");
	uint64_t version;
	int kind;

	if (json_get_u64(o, "schemaVersion", &version) < 0 || version != 2)
		return set_error(err, -EINVAL,
				 "the manifest's schemaVersion is not 2");
	if (as_index == as_image)
		return set_error(err, -EINVAL,
				 "the document is not an image manifest or "
				 "an index, or it is both");
	if (own) {
		kind = kind_of_type(own);
		if (kind < 0)
			return set_error(err, -EINVAL,
					 "media type \"%.200s\" is not a "
					 "known manifest type",
					 own);
	} else {
		kind = kind_of_type(content_type);
		if (kind < 0)
			kind = as_index;
		own = kind_of_type(content_type) >= 0 ? content_type
		      : kind			      ? OCI_INDEX
						      : OCI_MANIFEST;
	}
	if ((kind == 1) != as_index)
		return set_error(err, -EINVAL,
				 "the manifest's media type "
				 "contradicts its content");
	m->index = kind == 1;
	m->media_type = strndup(own, strcspn(own, "; \t"));
	return m->media_type ? 0 : -ENOMEM;
}

int manifest_parse(const void *bytes, size_t len, const char *media_type,
		   struct manifest **ret, struct error *err)
{
	CLEANUP(manifest_free) struct manifest *m = NULL;
	CLEANUP(json_decrefp) json_t *o = NULL;
	const json_t *list;
	int r;

	r = json_parse(bytes, len, MANIFEST_MAX_BYTES, &o, err);
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return -EINVAL;
	if (!json_is_object(o))
		return set_error(err, -EINVAL,
				 "the manifest is not a JSON object");
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	r = find_kind(o, media_type, m, err);
	if (r < 0)
		return r;
	if (json_object_get(o, "config")) {
		r = parse_descriptor(json_object_get(o, "config"), "the config",
				     &m->config, err);
		if (r < 0)
			return r;
		m->has_config = true;
	}
	list = json_object_get(o, m->index ? "manifests" : "layers");
	if (list && !json_is_null(list) && !json_is_array(list))
		return set_error(err, -EINVAL,
				 "the manifest's entries are not a JSON array");
	r = parse_entries(list, m, err);
	if (r < 0)
		return r;
	*ret = steal_ptr(&m);
	return 0;
}

const char *manifest_platform(void)
{
#if defined(__x86_64__)
	return "linux/amd64";
#elif defined(__aarch64__)
	return "linux/arm64";
#elif defined(__i386__)
	return "linux/386";
#elif defined(__arm__) && defined(__ARM_ARCH) && __ARM_ARCH < 6
	return "linux/arm/v5";
#elif defined(__arm__) && defined(__ARM_ARCH) && __ARM_ARCH == 6
	return "linux/arm/v6";
#elif defined(__arm__)
	return "linux/arm/v7";
#elif defined(__riscv)
	return "linux/riscv64";
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
	return "linux/ppc64le";
#elif defined(__s390x__)
	return "linux/s390x";
#elif defined(__loongarch64)
	return "linux/loong64";
#else
	return "linux/unknown";
#endif
}

struct platform {
	char os[32], arch[32], variant[16];
};

/* The rules are those of github.com/containerd/platforms, database.go. */
static void normalize(struct platform *p)
{
	static const struct {
		const char *arch, *variant, *is_arch, *is_variant;
	} same[] = {
		{"i386", NULL, "386", ""},
		{"x86_64", "v1", "amd64", ""},
		{"x86_64", "", "amd64", ""},
		{"x86-64", "v1", "amd64", ""},
		{"x86-64", "", "amd64", ""},
		{"amd64", "v1", "amd64", ""},
		{"x86_64", NULL, "amd64", NULL},
		{"x86-64", NULL, "amd64", NULL},
		{"aarch64", "8", "arm64", ""},
		{"aarch64", "v8", "arm64", ""},
		{"arm64", "8", "arm64", ""},
		{"arm64", "v8", "arm64", ""},
		{"aarch64", NULL, "arm64", NULL},
		{"armhf", NULL, "arm", "v7"},
		{"armel", NULL, "arm", "v6"},
		{"arm", "", "arm", "v7"},
		{"arm", "5", "arm", "v5"},
		{"arm", "6", "arm", "v6"},
		{"arm", "7", "arm", "v7"},
		{"arm", "8", "arm", "v8"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
		if (strcasecmp(p->arch, same[i].arch) != 0 ||
		    (same[i].variant &&
		     strcasecmp(p->variant, same[i].variant) != 0))
			continue;
		(void)snprintf(p->arch, sizeof(p->arch), "%s", same[i].is_arch);
		if (same[i].is_variant)
			(void)snprintf(p->variant, sizeof(p->variant), "%s",
				       same[i].is_variant);
		return;
	}
}

/* A field that is too long matches nothing, for it is left out. */
static void set_field(char *out, size_t size, const char *s, size_t len)
{
	(void)snprintf(out, size, "%.*s", len < size ? (int)len : 0, s);
}

static struct platform parse_platform_name(const char *s)
{
	struct platform p = {"", "", ""};
	size_t n = strcspn(s, "/");

	set_field(p.os, sizeof(p.os), s, n);
	s += n + (s[n] == '/');
	n = strcspn(s, "/");
	set_field(p.arch, sizeof(p.arch), s, n);
	s += n + (s[n] == '/');
	set_field(p.variant, sizeof(p.variant), s, strlen(s));
	normalize(&p);
	return p;
}

/* Steps from a platform to the next that its machine also runs: older variants,
 * then 386 on amd64, and arm on arm64. False: there is none. */
static bool next_platform(struct platform *p)
{
	bool arm = strcmp(p->arch, "arm") == 0;

	if (strcmp(p->arch, "arm64") == 0) {
		(void)snprintf(p->arch, sizeof(p->arch), "arm");
		(void)snprintf(p->variant, sizeof(p->variant), "v8");
		return true;
	}
	if (strcmp(p->arch, "amd64") == 0 && !p->variant[0]) {
		(void)snprintf(p->arch, sizeof(p->arch), "386");
		return true;
	}
	if ((!arm && strcmp(p->arch, "amd64") != 0) || p->variant[0] != 'v' ||
	    p->variant[1] < (arm ? '6' : '2') || p->variant[1] > '9' ||
	    p->variant[2])
		return false;
	p->variant[1]--;
	if (!arm && p->variant[1] == '1')
		p->variant[0] = '\0';
	return true;
}

static bool entry_is(const struct descriptor *d, const struct platform *want)
{
	struct platform have = {"", "", ""};

	if (!d->os || !d->arch || strcmp(d->os, "unknown") == 0 ||
	    strcmp(d->arch, "unknown") == 0)
		return false;
	set_field(have.os, sizeof(have.os), d->os, strlen(d->os));
	set_field(have.arch, sizeof(have.arch), d->arch, strlen(d->arch));
	if (d->variant)
		set_field(have.variant, sizeof(have.variant), d->variant,
			  strlen(d->variant));
	normalize(&have);
	return *want->os && strcasecmp(have.os, want->os) == 0 &&
	       strcmp(have.arch, want->arch) == 0 &&
	       strcmp(have.variant, want->variant) == 0;
}

const struct descriptor *manifest_for_platform(const struct manifest *m,
					       const char *platform,
					       uint32_t skip)
{
	struct platform want =
		parse_platform_name(platform ? platform : manifest_platform());

	if (!m->index)
		return NULL;
	do {
		for (uint32_t i = 0; i < m->nentries; i++) {
			if (entry_is(&m->entries[i], &want) && skip-- == 0)
				return &m->entries[i];
		}
	} while (next_platform(&want));
	for (uint32_t i = 0; i < m->nentries; i++) {
		const struct descriptor *d = &m->entries[i];

		if (!d->os && !d->arch &&
		    (!*d->media_type || kind_of_type(d->media_type) >= 0) &&
		    skip-- == 0)
			return d;
	}
	return NULL;
}

void manifest_list_platforms(const struct manifest *m, struct buf *out)
{
	for (uint32_t i = 0; m->index && i < m->nentries; i++) {
		const struct descriptor *d = &m->entries[i];
		char one[96];
		size_t n;

		if (!d->os || !d->arch || strcmp(d->os, "unknown") == 0)
			continue;
		n = (size_t)snprintf(one, sizeof(one), "%s%.31s/%.31s%s%.15s",
				     out->len ? ", " : "", d->os, d->arch,
				     d->variant ? "/" : "",
				     d->variant ? d->variant : "");
		if (buf_add(out, one, n) < 0)
			return;
	}
}
