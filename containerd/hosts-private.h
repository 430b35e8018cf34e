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

/* The text of a hosts.toml (hosts-edit.c). No I/O.
 *
 *	# BEGIN peerd: "peerd hosts undo" takes this block out again
 *	# peerd made=dir server=https://a mirrors=http://b crc32c=01234567
 *	server = "https://a"
 *	[host."http://b"]
 *	  capabilities = ["pull", "resolve"]
 *	  dial_timeout = "1s"
 *	# END peerd
 *
 * The block stands before the first table and after all keys that are in no
 * table. Its second line has all that hosts_edit_strip() needs, so the block
 *can be removed even if the state directory is lost. The checksum covers the
 *lines between the second and the last. If the file did not end in a newline,
 *it does not with the block either; stripping restores the end by that. */

#define HOSTS_BEGIN "# BEGIN peerd"

enum hosts_made {
	HOSTS_MADE_NOTHING, /* the file existed */
	HOSTS_MADE_FILE,
	HOSTS_MADE_DIR, /* the file and its directory */
};

struct hosts_block {
	const struct string_list *mirrors; /* valid, at most
					      HOSTS_MAX_MIRRORS, no duplicates
					    */
	const char *server;		   /* NULL: none */
	/* Lines, each ended by '\n', that are added only to a file without keys
	 * and tables; or NULL. */
	const char *extra;
	enum hosts_made made;
};

/* Appends base (len bytes, without a block) and the block to out. The block
 * leaves out mirrors that base names already; *ret_present counts them. If no
 * mirror remains, out gets base alone. -EINVAL, err has the line: base cannot
 * be parsed or has no place for the block; -EMSGSIZE, -ENOMEM. */
int hosts_edit_add(const char *base, size_t len, const struct hosts_block *b,
		   struct buf *out, size_t *ret_present, struct error *err);

struct hosts_found {
	unsigned int blocks;
	enum hosts_made made; /* of the first block */
	bool edited; /* the lines of a block differ from its checksum */
};

/* Appends text without our blocks to out. Of an edited block, lines that are
 * neither about our mirrors nor our server are kept. -EINVAL, err has the line:
 * text cannot be parsed, or a block is damaged; -EMSGSIZE, -ENOMEM. */
int hosts_edit_strip(const char *text, size_t len, struct buf *out,
		     struct hosts_found *ret, struct error *err);

/* Files (hosts-file.c). A file is replaced as a whole with rename(2), and is
 * durable when the call returns. Errors name the file. */

/* For tests: hosts_step() sends SIGKILL to this process at its nth call; 0:
 * never. hosts_step() is called around each step that changes the disk. */
extern unsigned int hosts_test_die_at;
void hosts_step(void);

struct hosts_file {
	char *path; /* with links followed; this file is replaced */
	bool exists;
	bool is_link; /* the path given to hosts_file_read() is a link */
	struct stat st;
	char *data; /* NUL-terminated; NULL only if !exists */
	size_t len;
};

/* Reads the file. A missing file is no error. On 0 the caller calls
 * hosts_file_release(). -ELOOP: a link whose target is missing; -EFBIG: more
 * than HOSTS_MAX_BYTES; -EINVAL: not a regular file; others as open(2). */
int hosts_file_read(const char *path, struct hosts_file *ret,
		    struct error *err);
void hosts_file_release(struct hosts_file *f);
/* Replaces the file f->path by data. The new file has the owner, mode and
 * extended attributes in f, or, if f does not exist, this process's owner and
 * `mode`. *f is not changed. */
int hosts_file_replace(const struct hosts_file *f, mode_t mode,
		       const void *data, size_t len, struct error *err);
/* 0 also if there is no such file. */
int hosts_file_unlink(const char *path, struct error *err);
/* Removes the temporary file that a crash during a replacement may leave. */
void hosts_file_remove_temporary(const char *path);
/* Appends to ret the directories among path and its parents that do not exist,
 * outermost first. */
int hosts_missing_dirs(const char *path, struct string_list *ret);
/* Makes the directory path and its missing parents. */
int hosts_make_dirs(const char *path, mode_t mode, struct error *err);
/* Removes the directories that are empty, from the last to the first. */
void hosts_remove_dirs(const struct string_list *dirs);
/* Returns path as an absolute path without double or trailing slashes; the
 * caller frees it. NULL: out of memory, or no working directory. */
char *hosts_absolute(const char *path);
/* asprintf(3); the caller frees the result. NULL: out of memory. */
char *hosts_format(const char *fmt, ...) PRINTF(1, 2);

/* State (hosts-state.c): the previous content of a hosts.toml, in one file per
 * hosts.toml. */

struct hosts_state {
	char *path; /* of hosts.toml, absolute */
	bool made_file;
	struct string_list made_dirs; /* outermost first */
	char *original;
	size_t original_len;
	struct digest written; /* of the hosts.toml that peerd wrote */
};

/* Reads the state of the hosts.toml `path`. On 0 the caller calls
 * hosts_state_release(). -ENOENT: there is none; -EBADMSG, err set: it is
 * damaged or belongs to another file; -ENOMEM. */
int hosts_state_read(const char *state_dir, const char *path,
		     struct hosts_state *ret, struct error *err);
int hosts_state_write(const char *state_dir, const struct hosts_state *s,
		      struct error *err);
/* 0 also if there is no state. */
int hosts_state_remove(const char *state_dir, const char *path,
		       struct error *err);
void hosts_state_release(struct hosts_state *s);
/* Calls fn for every readable state. The first negative result ends the walk
 * and is returned. */
int hosts_state_each(const char *state_dir,
		     int (*fn)(const struct hosts_state *s, void *arg),
		     void *arg);
/* Takes the lock of the state directory; waits while another process holds it.
 * Closing *ret_fd releases it. -ENOENT: there is no state directory. */
int hosts_state_lock(const char *state_dir, int *ret_fd, struct error *err);

#endif
