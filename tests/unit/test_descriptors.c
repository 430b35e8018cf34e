/* The shares of the open files, at every limit that there may be. */
#include "base/descriptors.h"

#include <sys/resource.h>

#include "base/util.h"
#include "tests/unit/tap.h"

static void limit(uint64_t soft)
{
	struct rlimit lim;

	EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
	lim.rlim_cur = soft;
	EQ(setrlimit(RLIMIT_NOFILE, &lim), 0);
}

/* A store, which goes a quarter beyond its share, four listeners, each with
 * 16 connections more than it has places, two clients; and some for the rest.
 */
static void test_all_get_along(void)
{
	struct rlimit lim;
	uint64_t most;

	EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
	most = min_u64(lim.rlim_max, 4 << 20);
	for (uint64_t n = 512; n <= most; n += n / 3) {
		uint32_t blobs, listener, client;

		limit(n);
		blobs = descriptors_share(DESCRIPTORS_BLOBS);
		listener = descriptors_share(DESCRIPTORS_LISTENER);
		client = descriptors_share(DESCRIPTORS_CLIENT);
		OK(blobs >= n / 16 * 4 || blobs == 1000000);
		OK(listener >= n / 16 || listener == 4096);
		OK(client >= n / 16 * 2 || client == 1024);
		if (n >= 1024)
			OK(blobs + blobs / 4 + 4 * (listener + 16) +
				   2 * client + 40 <=
			   n);
	}
}

static void test_few(void)
{
	limit(8);
	EQ(descriptors_share(DESCRIPTORS_BLOBS), 1);
	EQ(descriptors_share(DESCRIPTORS_LISTENER), 1);
	EQ(descriptors_share(DESCRIPTORS_CLIENT), 1);
}

static void test_raise(void)
{
	struct rlimit lim;

	limit(100);
	EQ(descriptors_raise(), 0);
	EQ(getrlimit(RLIMIT_NOFILE, &lim), 0);
	EQ(lim.rlim_cur, lim.rlim_max);
	EQ(descriptors_raise(), 0);
}

int main(void)
{
	RUN(test_all_get_along);
	RUN(test_few);
	RUN(test_raise);
	return tap_done();
}
