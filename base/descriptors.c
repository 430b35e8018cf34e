#include "base/descriptors.h"

#include <errno.h>
#include <sys/resource.h>

#include "base/util.h"

/* Of RLIMIT_NOFILE, in 16ths. A daemon has one store (which goes a quarter
 * beyond its share while all of its files are in use), four listeners (control
 * socket, HTTP, metrics, members) and two clients (registries, members): 14.25
 * in all. The rest, 112 of 1,024, is for what there is a fixed number of: a
 * daemon without load has 24, and a full listener opens 16 more. */
static const struct {
	uint32_t sixteenths;
	uint32_t most;
} shares[] = {
	/* Beyond it the store closes what was used the longest ago. */
	[DESCRIPTORS_BLOBS] = {5, 1000000},
	/* With a request each is 2 KiB, and a buffer of 4 KiB: 24 MiB. */
	[DESCRIPTORS_LISTENER] = {1, 4096},
	/* So many hosts that hang hold up nobody else. */
	[DESCRIPTORS_CLIENT] = {2, 1024},
};

int descriptors_raise(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) == -1)
		return -errno;
	lim.rlim_cur = lim.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &lim) == -1 ? -errno : 0;
}

uint32_t descriptors_share(enum descriptors_use use)
{
	struct rlimit lim = {.rlim_cur = 1024};

	(void)getrlimit(RLIMIT_NOFILE, &lim); /* cannot fail */
	return (uint32_t)max_u64(
		1, min_u64(lim.rlim_cur / 16 * shares[use].sixteenths,
			   shares[use].most));
}
