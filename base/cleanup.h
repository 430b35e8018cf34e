/* Scope-bound ownership: f() gets a variable declared with CLEANUP(f) when its
 * scope ends. Declare and initialise such variables at the top of a function,
 * never after a label that a goto may jump over. On success hand the value on
 * with steal_ptr() or steal_fd(), which leave NULL or -1 behind.
 *
 * Source: GCC manual, "cleanup" variable attribute. Any thread. */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(f) __attribute__((cleanup(f)))

/* For char *, void * and any other pointer from malloc(). */
static inline void freep(void *pp)
{
	free(*(void **)pp);
	*(void **)pp = NULL;
}

/* For file descriptors; ignores -1. Preserves errno. */
static inline void closep(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
	errno = saved;
}

#define steal_ptr(pp)                                                          \
	({                                                                     \
		__typeof__(*(pp)) ptr_ = *(pp);                                \
		*(pp) = NULL;                                                  \
		ptr_;                                                          \
	})

static inline int steal_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

#endif
