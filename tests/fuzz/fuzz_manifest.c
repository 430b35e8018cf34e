/* Manifests: an accepted one is within the limits, and its strings are safe in
 * paths and headers. */
#include <stdint.h>
#include <string.h>

#include "base/manifest.h"
#include "store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_title(const char *s)
{
	size_t n = strlen(s);

	BUG_ON(n == 0 || s[0] == '/' || s[n - 1] == '/' || strstr(s, "//"));
	for (const char *p = s; p; p = strchr(p, '/')) {
		size_t len;

		p += *p == '/';
		len = strcspn(p, "/");
		BUG_ON(len == 0 || len > 255);
		BUG_ON(len == 1 && p[0] == '.');
		BUG_ON(len == 2 && p[0] == '.' && p[1] == '.');
	}
	for (; *s; s++)
		BUG_ON((unsigned char)*s < ' ' || *s == 0x7f);
}

static void check_descriptor(const struct descriptor *d)
{
	BUG_ON(d->size > BLOB_MAX_SIZE);
	BUG_ON(!d->media_type || strpbrk(d->media_type, "\r\n "));
	if (d->title)
		check_title(d->title);
}

static void check(const struct manifest *m)
{
	static const char *const platforms[] = {
		NULL, "linux/amd64", "linux/arm/v7", "a", "", "/", "//"};

	BUG_ON(m->nentries > MANIFEST_MAX_ENTRIES);
	BUG_ON(!m->media_type);
	if (m->has_config)
		check_descriptor(&m->config);
	for (uint32_t i = 0; i < m->nentries; i++)
		check_descriptor(&m->entries[i]);
	for (size_t i = 0; i < ARRAY_SIZE(platforms); i++) {
		const struct descriptor *d =
			manifest_for_platform(m, platforms[i], 0);

		BUG_ON(d && !m->index);
	}
}

/* The first byte picks the Content-Type. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const types[] = {
		"", "application/vnd.oci.image.manifest.v1+json",
		"application/vnd.oci.image.index.v1+json; charset=utf-8",
		"text/plain"};
	struct manifest *m = NULL;
	struct error err;

	if (size == 0)
		return 0;
	if (manifest_parse(data + 1, size - 1,
			   types[data[0] % ARRAY_SIZE(types)], &m, &err) == 0)
		check(m);
	manifest_free(&m);
	return 0;
}
