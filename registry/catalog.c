/* store/catalog.h, implemented by the registries. */
#include "registry/registry-private.h"

static struct registry *of(struct catalog *c)
{
	return container_of(c, struct registry, catalog);
}

static void get_manifest(struct catalog *c, const char *host, const char *name,
			 const char *reference, manifest_cb *cb, void *arg)
{
	registry_get_manifest(of(c), host, name, reference, cb, arg);
}

static void list_tags(struct catalog *c, const char *host, const char *name,
		      tags_cb *cb, void *arg)
{
	registry_list_tags(of(c), host, name, cb, arg);
}

static void get_blob(struct catalog *c, const char *host, const char *name,
		     const struct digest *d, blob_cb *cb, void *arg)
{
	registry_get_blob(of(c), host, name, d, cb, arg);
}

static void get_url(struct catalog *c, const char *url, blob_cb *cb, void *arg)
{
	registry_get_url(of(c), url, cb, arg);
}

static void get_url_guarded(struct catalog *c, const char *url,
			    const struct string_list *guard,
			    struct source_auth *auth, blob_cb *cb, void *arg)
{
	registry_get_url_guarded(of(c), url, guard, auth, cb, arg);
}

struct catalog *registry_catalog(struct registry *r)
{
	static const struct catalog_ops ops = {
		.get_manifest = get_manifest,
		.list_tags = list_tags,
		.get_blob = get_blob,
		.get_url = get_url,
		.get_url_guarded = get_url_guarded,
	};

	r->catalog.ops = &ops;
	return &r->catalog;
}
