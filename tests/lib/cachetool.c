/* Looks into a cache directory that no daemon uses, for tests.
 *
 *   cachetool chunks DIR DIGEST     numbers of the chunks that are present
 *   cachetool format DIR NUMBER     writes another format version
 *   cachetool file DIR DIGEST       path of the blob's file */
#include <errno.h>
#include <glob.h>
#include <inttypes.h>

#include "base/cleanup.h"
#include "store/index.h"
#include "store/store.h"

static int fail(const char *what, int r)
{
	fprintf(stderr, "cachetool: %s: %s\n", what, strerror(-r));
	return 1;
}

static int chunks(const char *dir, const char *digest)
{
	struct blob_key key = {.kind = BLOB_SHA256};
	struct store_config cfg = {.dir = dir};
	struct store *s = NULL;
	struct blob *b = NULL;
	struct error err = {""};
	int r = digest_parse(digest, &key.id);

	if (r < 0)
		return fail(digest, r);
	r = store_open(&cfg, &s, &err);
	if (r < 0)
		return fail(err.text, r);
	r = store_get(s, &key, &b);
	if (r == 0) {
		for (uint32_t i = 0; i < blob_chunks(b); i++)
			if (blob_has(b, i))
				printf("%" PRIu32 "\n", i);
		blob_unref(&b);
	}
	store_close(&s);
	return r < 0 && r != -ENOENT ? fail(digest, r) : 0;
}

static int set_format(const char *dir, const char *number)
{
	struct index *ix = NULL;
	struct error err = {""};
	struct index_batch batch;
	char path[4096];
	int r;

	snprintf(path, sizeof(path), "%s/index", dir);
	r = index_open(path, &ix, &err);
	if (r < 0)
		return fail(err.text, r);
	index_batch_init(&batch);
	index_put(&batch, INDEX_META, "format", strlen("format"), number,
		  strlen(number));
	r = index_write(ix, &batch);
	index_batch_release(&batch);
	index_close(&ix);
	return r < 0 ? fail(path, r) : 0;
}

/* The files of that digest: one for each claim. */
static int file(const char *dir, const char *digest)
{
	char pattern[4096], hex[DIGEST_HEX_SIZE];
	struct digest d;
	glob_t found;
	int r = digest_parse(digest, &d);

	if (r < 0)
		return fail(digest, r);
	digest_hex(&d, hex);
	snprintf(pattern, sizeof(pattern), "%s/blobs/sha256/%.2s/%s*", dir, hex,
		 hex);
	if (glob(pattern, 0, NULL, &found) != 0)
		return fail(pattern, -ENOENT);
	for (size_t i = 0; i < found.gl_pathc; i++)
		puts(found.gl_pathv[i]);
	globfree(&found);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "chunks") == 0)
		return chunks(argv[2], argv[3]);
	if (argc == 4 && strcmp(argv[1], "format") == 0)
		return set_format(argv[2], argv[3]);
	if (argc == 4 && strcmp(argv[1], "file") == 0)
		return file(argv[2], argv[3]);
	fprintf(stderr, "usage: cachetool chunks|format|file DIR ARG\n");
	return 2;
}
