/* Edits containerd's hosts.toml files, so that containerd asks this daemon
 * first for the images of some registries; and undoes that.
 *
 * The edit is one marked block. The rest of the file is kept byte for byte,
 * with owner and mode; of a link the target is edited. Undo restores the file
 * as it was before; if the file was changed by hand since, undo removes only
 * the block. Each change first saves the old file in the state directory, and
 * then renames a complete new file into place. So a crash at any moment loses
 * nothing and undo works after it.
 *
 * Sources: github.com/containerd/containerd/docs/hosts.md, and there
 * remotes/docker/config/hosts.go of 1.6 and 2.1. 1.6 ignores an unknown key
 * (dial_timeout before 2.1). If a registry has a directory, even an empty one,
 * containerd does not read "_default" for it.
 *
 * Blocks on disk; any thread. A lock in the state directory keeps processes
 * apart. */
#ifndef CONTAINERD_HOSTS_H
#define CONTAINERD_HOSTS_H

#include "base/values.h"

struct hosts_config {
	/* "docker.io", "registry.example:5000", "_default". A leading
	 * "https://" and a trailing "/" are dropped. With "http://" containerd
	 * asks the registry itself without TLS. */
	struct string_list hosts;
	struct string_list mirrors; /* "http://127.0.0.1:5000" */
	/* containerd's config_path. Of several directories separated by colons
	 * the first is used. */
	const char *config_path;
	const char *state_dir; /* made if absent; only peerd may write there */
};

enum hosts_level {
	HOSTS_CHANGED,
	HOSTS_UNCHANGED,
	HOSTS_WARNING, /* in addition to one of the others */
	HOSTS_FAILED,
};

/* Called in the calling thread, before hosts_add() or hosts_undo() returns.
 * host is "" when the text is about all registries. host and text are borrowed
 * for the call. The text names the file. */
typedef void hosts_report_fn(enum hosts_level level, const char *host,
			     const char *text, void *arg);

/* Adds the block for each registry. A registry that fails does not stop the
 * others; its error is returned, the first if there are several. -EINVAL: a
 * registry's name is not valid; or the mirrors are not valid or no directory is
 * given, and then nothing is changed. hosts_undo() has the same errors. */
int hosts_add(const struct hosts_config *c, hosts_report_fn *report, void *arg);
/* Removes the block for each registry. Without hosts: for every registry below
 * config_path that has our block or a state. Ignores the mirrors. */
int hosts_undo(const struct hosts_config *c, hosts_report_fn *report,
	       void *arg);

/* The commands: do the same and report on standard output and standard error.
 * Return the exit status. */
int hosts_add_command(const struct hosts_config *c);
int hosts_undo_command(const struct hosts_config *c);

#endif
