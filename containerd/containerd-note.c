/* Records containerd's images in the store. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/manifest.h"
#include "base/ref.h"
#include "containerd/containerd-private.h"

/* ref_parse() reads a name without a host as one of Docker Hub. But containerd
 * stores the host in a name; a name without a host is a local one. */
static bool has_host(const char *name)
{
	size_t n = strcspn(name, "/");

	return name[n] == '/' &&
	       (memchr(name, '.', n) || memchr(name, ':', n) ||
		(n == 9 && memcmp(name, "localhost", 9) == 0));
}

int ctr_image_name(const char *name, char **ret_repo, char **ret_tag)
{
	CLEANUP(freep) char *repo = NULL;
	struct ref ref = {0};
	int r;

	if (!has_host(name))
		return -EINVAL;
	r = ref_parse(name, &ref, NULL);
	if (r < 0)
		return r;
	if (asprintf(&repo, "%s/%s", ref.host, ref.name) < 0) {
		repo = NULL;
		ref_release(&ref);
		return -ENOMEM;
	}
	*ret_repo = steal_ptr(&repo);
	*ret_tag = ref.has_digest ? NULL : steal_ptr(&ref.tag);
	ref_release(&ref);
	return 0;
}

/* Records a manifest, its config and its layers for the repository. Of an index
 * it also records the manifests that can be read on this node. */
static int note_manifest(struct store *s, const char *repo,
			 const struct digest *d, bool top)
{
	CLEANUP(freep) char *type = NULL;
	CLEANUP(freep) void *bytes = NULL;
	CLEANUP(manifest_free) struct manifest *m = NULL;
	size_t len;
	int r;

	r = store_manifest_get(s, d, &type, &bytes, &len);
	if (r == 0)
		r = manifest_parse(bytes, len, type, &m, NULL);
	if (r < 0 || !m)
		return r == -EINVAL ? -ENOENT : r;
	(void)store_repo_add(s, repo, true, d, len);
	if (m->has_config)
		(void)store_repo_add(s, repo, false, &m->config.digest,
				     m->config.size);
	for (uint32_t i = 0; i < m->nentries; i++) {
		(void)store_repo_add(s, repo, m->index, &m->entries[i].digest,
				     m->entries[i].size);
		if (m->index && top)
			(void)note_manifest(s, repo, &m->entries[i].digest,
					    false);
	}
	return 0;
}

int ctr_image_note(struct store *s, const char *repo, const char *tag,
		   const struct digest *d, uint64_t updated_s)
{
	struct digest known;
	uint64_t seen_s;
	int r = note_manifest(s, repo, d, true);

	if (r < 0 || !tag)
		return r;
	r = store_tag_get(s, repo, tag, &known, &seen_s);
	if (r == 0 && (digest_equal(&known, d) || seen_s >= updated_s))
		return 0;
	if (r < 0 && r != -ENOENT)
		return r;
	/* containerd may have the tag from the registry, or somebody may have
	 * made it on this node. Seen at 0 means that it is never fresh. */
	return store_tag_put(s, repo, tag, d, 0);
}
