/* Digests in the URLs of blobs. */
#include "registry/urldigest.h"
#include "tests/unit/tap.h"

#define HEX "1e8a9c7d00112233445566778899aabbccddeeff00112233445566778899aabb"

static bool found(const char *path)
{
	char hex[DIGEST_HEX_SIZE];
	struct digest d;

	if (!url_digest(path, &d))
		return false;
	STREQ(digest_hex(&d, hex), HEX);
	return true;
}

static void test_forms(void)
{
	OK(found("/sha256:" HEX));
	OK(found("/v2/team/app/blobs/sha256:" HEX));
	OK(found("/v2/team/app/blobs/sha256%3A" HEX));
	OK(found("/ghcr1/blobs/sha256%3a" HEX));
	OK(found("/docker/registry/v2/blobs/sha256/1e/" HEX "/data"));
	OK(found("/registry-v2/docker/registry/v2/blobs/sha256/1e/" HEX
		 "/data"));
	OK(found("/01031d61e1024861afee5d512651eb9f-h36fskt2ei//docker/registry"
		 "/v2/blobs/sha256/1e/" HEX "/data"));
	OK(found("/quayio-production-s3/sha256/1e/" HEX));
}

static void test_none(void)
{
	static const char *const paths[] = {
		"",
		"/",
		"//",
		"data",
		"/data",
		"/" HEX,
		HEX,
		"sha256:" HEX, /* not a path of a URL */
		"/sha256:" HEX "/",
		"/sha256:" HEX "/link",
		"/sha256:" HEX "/data",
		"/sha256:" HEX "0",
		"/sha256:1e",
		"/sha256:",
		"/SHA256:" HEX,
		"/xsha256:" HEX,
		"/sha512:" HEX,
		"/sha256%2f" HEX,
		"/sha256%3",
		"/sha256/" HEX,
		"/sha256/" HEX "/data",
		"/sha256/1f/" HEX "/data",
		"/sha256/1/" HEX "/data",
		"/sha256/1e8/" HEX "/data",
		"/sha256//" HEX "/data",
		"/sha512/1e/" HEX "/data",
		"/1e/" HEX "/data",
		"1e/" HEX "/data",
		"sha256/1e/" HEX "/data",
		"/sha256/1e/" HEX "/data/",
		"/sha256/1e/" HEX "/link",
		"/sha256/1e//data",
		"/sha256/1e/data",
		"/sha256/1e/" HEX "0/data",
		"/sha256/1E/1E8A9C7D00112233445566778899AABBCCDDEEFF0011223344"
		"5566778899AABB/data",
	};
	struct digest d;

	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		if (url_digest(paths[i], &d)) {
			OK(false);
			printf("# found in %s\n", paths[i]);
		}
}

int main(void)
{
	RUN(test_forms);
	RUN(test_none);
	return tap_done();
}
