/* Files in a test's own directory. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <ftw.h>
#include <stdio.h>

#include "base/util.h"

/* The last eight results stay valid. */
static inline const char *path_below(const char *top, const char *name)
{
	static char path[8][160];
	static unsigned int n;

	n = (n + 1) % ARRAY_SIZE(path);
	(void)snprintf(path[n], sizeof(path[n]), "%s/%s", top, name);
	return path[n];
}

static inline int remove_entry(const char *path, const struct stat *st,
			       int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void remove_tree(const char *path)
{
	(void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
