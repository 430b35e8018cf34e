/* A growing byte buffer with a hard limit, NUL-terminated at all times once
 * something was added. Not thread-safe. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/util.h"

struct buf {
	char *data; /* NULL until the first byte */
	size_t len; /* without the NUL */
	size_t cap;
	size_t max; /* len never exceeds it */
};

#define BUF_INIT(max_bytes) ((struct buf){.max = (max_bytes)})

/* -EMSGSIZE when the limit would be passed, -ENOMEM; the buffer is unchanged
 * then. 0 otherwise. */
int buf_add(struct buf *b, const void *data, size_t len);
int buf_str(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *fmt, ...) PRINTF(2, 3);
/* Cuts the contents to their first len bytes; for undoing. */
void buf_truncate(struct buf *b, size_t len);
/* Keeps the memory. */
void buf_reset(struct buf *b);
/* Frees; the buffer is empty and usable again. Fits CLEANUP(). */
void buf_release(struct buf *b);
/* The data, now the caller's to free(), never NULL except when memory is
 * short; the buffer is empty after it. */
char *buf_steal(struct buf *b);

#endif
