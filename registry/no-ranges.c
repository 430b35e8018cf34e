/* Registries that serve no ranges.
 *
 * The OCI distribution specification lets a registry ignore Range. Whether one
 * does shows at the first request for a part of a blob: 200 with all of it, or
 * 400, 416 or 501. That is remembered per registry, for a while only: a cache
 * that is being filled serves ranges once it has the blob. Meanwhile the
 * blob is read as a whole (fetch/sweep.c). */
#include <string.h>

#include "registry/registry-private.h"

/* Ranges are tried again after so long. A try in vain costs a request whose
 * body is not read. */
#define NO_RANGES_MS 60000

static struct host *host_of(struct registry *r, const char *origin)
{
	const char *repo = origin_repo(origin);
	CLEANUP(freep) char *name = repo ? repo_host(repo) : NULL;
	struct name_node *tn;

	if (!name)
		return NULL;
	tn = name_table_find(&r->hosts, ref_host_canonical(name));
	return tn ? name_table_entry(tn, struct host, node) : NULL;
}

bool no_ranges_note(struct registry *r, const char *origin)
{
	struct host *h = host_of(r, origin);

	if (!h)
		return false;
	r->no_ranges_until_ms = h->no_ranges_until_ms = now_ms() + NO_RANGES_MS;
	return true;
}

void no_ranges_forget(struct registry *r, const char *origin)
{
	struct host *h = host_of(r, origin);

	if (h)
		h->no_ranges_until_ms = 0;
}

bool no_ranges_at(struct registry *r, const char *origin)
{
	const struct host *h;

	if (now_ms() >= r->no_ranges_until_ms)
		return false;
	h = host_of(r, origin);
	return h && now_ms() < h->no_ranges_until_ms;
}

bool registry_serves_no_ranges(struct registry *r, struct blob *b)
{
	CLEANUP(string_list_release) struct string_list all = {0};
	bool any = false;

	if (now_ms() >= r->no_ranges_until_ms)
		return false;
	(void)blob_origins(b, &all);
	for (size_t i = 0; !any && i < all.n; i++)
		any = no_ranges_at(r, all.v[i]);
	return any;
}
