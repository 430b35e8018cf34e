/* A growing byte buffer with a hard limit. It ends in a NUL as soon as a byte
 * was added. Not thread-safe. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/util.h"

struct buf {
	char *data; /* NULL until the first byte */
	size_t len; /* without the NUL */
	size_t cap;
	size_t max; /* upper limit of len */
};

#define BUF_INIT(max_bytes) ((struct buf){.max = (max_bytes)})

/* Append. On an error the buffer is unchanged: -EMSGSIZE beyond the limit,
 * -ENOMEM, and -EINVAL if vsnprintf() fails. */
int buf_add(struct buf *b, const void *data, size_t len);
int buf_str(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *fmt, ...) PRINTF(2, 3);
/* Cuts the contents to their first len bytes, to undo additions. */
void buf_truncate(struct buf *b, size_t len);
/* Empties the buffer and keeps its memory. */
void buf_reset(struct buf *b);
/* Frees the memory; the buffer is empty and usable again. Fits CLEANUP(). */
void buf_release(struct buf *b);
/* Returns the data, which the caller now owns and free()s, and empties the
 * buffer. NULL only when memory is short. */
char *buf_steal(struct buf *b);

#endif
