/* containerd's hosts.toml: makes containerd ask this daemon first for the
 * images of some registries, and undoes that.
 *
 * The edit is one marked block; whatever else is in the file is kept byte for
 * byte, with its owner and mode, and a link's target is edited in its place.
 * Undo gives back what stood there before; if the file was changed by hand in
 * the meantime, it takes out the block only. Every change is a whole new file
 * renamed into place, after what stood there was saved in the state directory,
 * so that a crash at any moment loses nothing and undo works after it.
 *
 * Sources: github.com/containerd/containerd/docs/hosts.md, and there
 * remotes/docker/config/hosts.go of 1.6 and 2.1. An unknown key (dial_timeout
 * before 2.1) is ignored by 1.6. A registry directory, even an empty one, keeps
 * containerd from looking at "_default".
 *
 * Blocks on disk; any thread. Processes keep out of each other's way by a lock
 * in the state directory. */
#ifndef CONTAINERD_HOSTS_H
#define CONTAINERD_HOSTS_H

#include "base/values.h"

struct hosts_config {
	/* "docker.io", "registry.example:5000", "_default"; a leading
	 * "https://" and a trailing "/" are dropped, "http://" makes the
	 * registry itself be asked without TLS. */
	struct string_list hosts;
	struct string_list mirrors; /* "http://127.0.0.1:5000" */
	/* containerd's config_path; of several, separated by colons, the
	 * first. */
	const char *config_path;
	const char *state_dir; /* made if absent; only ours may write there */
};

enum hosts_level {
	HOSTS_CHANGED,
	HOSTS_UNCHANGED,
	HOSTS_WARNING, /* besides one of the others */
	HOSTS_FAILED,
};

/* In the calling thread, before the call returns. host is "" when the sentence
 * is about all; both are lent for the call. The text names the file. */
typedef void hosts_report_fn(enum hosts_level level, const char *host,
			     const char *text, void *arg);

/* Both do all registries they can, and return 0 or the error of the first that
 * failed, -EINVAL for one that is badly named. Bad mirrors or no directory:
 * -EINVAL and nothing is done. */
int hosts_add(const struct hosts_config *c, hosts_report_fn *report, void *arg);
/* No hosts: everything below config_path that holds our block or is in the
 * state directory. Mirrors are not looked at. */
int hosts_undo(const struct hosts_config *c, hosts_report_fn *report,
	       void *arg);

/* The commands: the same, for a person, on standard output and error. Return
 * the exit status. */
int hosts_add_command(const struct hosts_config *c);
int hosts_undo_command(const struct hosts_config *c);

#endif
