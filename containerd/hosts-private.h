/* Shared by hosts.c, hosts-edit.c, hosts-file.c and hosts-state.c. */
#ifndef CONTAINERD_HOSTS_PRIVATE_H
#define CONTAINERD_HOSTS_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/digest.h"
#include "base/util.h"
#include "base/values.h"

#define HOSTS_MAX_BYTES	  ((size_t)1 << 20)
#define HOSTS_MAX_MIRRORS 16
#define HOSTS_MIRROR_SIZE 512 /* the NUL included */
#define HOSTS_FILE	  "hosts.toml"

/* The text (hosts-edit.c): pure.
 *
 *	# BEGIN peerd: "peerd hosts undo" takes this block out again
 *	# peerd made=dir server=https://a mirrors=http://b crc32c=01234567
 *	server = "https://a"
 *	[host."http://b"]
 *	  capabilities = ["pull", "resolve"]
 *	  dial_timeout = "1s"
 *	# END peerd
 *
 * It stands before the first table and after all keys that are in none. The
 * second line tells hosts_edit_strip() all it needs, so that a lost state
 * directory costs nothing: the checksum is that of the lines after it. A file
 * that did not end in a newline does not with the block either; that is how
 * stripping knows. */

#define HOSTS_BEGIN "# BEGIN peerd"

enum hosts_made {
	HOSTS_MADE_NOTHING, /* the file was there */
	HOSTS_MADE_FILE,
	HOSTS_MADE_DIR, /* the file, and the directory that it is in */
};

struct hosts_block {
	const struct string_list *mirrors; /* valid, at most
					      HOSTS_MAX_MIRRORS, no doubles */
	const char *server;		   /* NULL: none */
	/* Lines ended by '\n' that only a file without keys and tables gets,
	 * or NULL. */
	const char *extra;
	enum hosts_made made;
};

/* Writes base (len bytes, without a block) with the block into out. Mirrors
 * that base names already are left out of it, and counted in *ret_present; if
 * none remains, out is base. -EINVAL, err with the line: base is not
 * understood, or leaves no place for the block; -EMSGSIZE, -ENOMEM. */
int hosts_edit_add(const char *base, size_t len, const struct hosts_block *b,
		   struct buf *out, size_t *ret_present, struct error *err);

struct hosts_found {
	unsigned int blocks;
	enum hosts_made made; /* of the first */
	bool edited;	      /* something was changed inside by hand */
};

/* Writes text without our blocks into out. What was put into a block by hand
 * and is not about our mirrors is kept. -EINVAL, err with the line: text is
 * not understood, or a block has lost an end. */
int hosts_edit_strip(const char *text, size_t len, struct buf *out,
		     struct hosts_found *ret, struct error *err);

/* Files (hosts-file.c): whole, durable, by rename. Errors name the file. */

/* For tests: SIGKILL to ourselves before the nth step that changes a disk; 0
 * never. */
extern unsigned int hosts_test_die_at;
void hosts_step(void);

struct hosts_file {
	char *path; /* with links followed; what is replaced */
	bool exists;
	bool is_link; /* the name that was asked for */
	struct stat st;
	char *data; /* NUL-terminated; NULL only if !exists */
	size_t len;
};

/* A missing file is no error. -ELOOP for a link to nothing, -EFBIG, -EINVAL
 * for what is no regular file, -errno. On 0: hosts_file_release(). */
int hosts_file_read(const char *path, struct hosts_file *ret,
		    struct error *err);
void hosts_file_release(struct hosts_file *f);
/* Puts data in the place of f with f's owner, mode and extended attributes, or
 * owned by us with `mode` if f does not exist. f is not changed. */
int hosts_file_replace(const struct hosts_file *f, mode_t mode,
		       const void *data, size_t len, struct error *err);
int hosts_file_unlink(const char *path, struct error *err);
/* What a crash in the middle of a replacement may leave. */
void hosts_file_remove_temporary(const char *path);
/* Adds those of path and its parents that do not exist, outermost first. */
int hosts_missing_dirs(const char *path, struct string_list *ret);
/* Makes path and its missing parents. */
int hosts_make_dirs(const char *path, mode_t mode, struct error *err);
/* Removes those that are empty, last first. */
void hosts_remove_dirs(const struct string_list *dirs);
/* Absolute, no double or trailing slashes. NULL when memory is short. */
char *hosts_absolute(const char *path);
/* printf into memory; NULL when memory is short. */
char *hosts_format(const char *fmt, ...) PRINTF(1, 2);

/* State (hosts-state.c): what stood there before, one file per hosts.toml. */

struct hosts_state {
	char *path; /* of hosts.toml, absolute */
	bool made_file;
	struct string_list made_dirs; /* outermost first */
	char *original;
	size_t original_len;
	struct digest written;
};

/* -ENOENT; -EBADMSG, err set: damaged, or not ours. On 0:
 * hosts_state_release(). */
int hosts_state_read(const char *state_dir, const char *path,
		     struct hosts_state *ret, struct error *err);
int hosts_state_write(const char *state_dir, const struct hosts_state *s,
		      struct error *err);
/* 0 also if there is none. */
int hosts_state_remove(const char *state_dir, const char *path,
		       struct error *err);
void hosts_state_release(struct hosts_state *s);
/* Calls fn for every readable state; the first negative result ends it. */
int hosts_state_each(const char *state_dir,
		     int (*fn)(const struct hosts_state *s, void *arg),
		     void *arg);
/* Waits for other processes. -ENOENT without a state directory. */
int hosts_state_lock(const char *state_dir, int *ret_fd, struct error *err);

#endif
