/* Directories and files that must not be where they are said to be. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/daemon-private.h"

/* realpath(3), also of what is not there yet, and of a mount that has lost its
 * daemon: then of the directory above. To be freed; NULL when there is none. */
static char *resolve(const char *path)
{
	CLEANUP(freep) char *copy = strdup(path);
	CLEANUP(freep) char *above = NULL;
	char *real = realpath(path, NULL), *slash;

	if (real || !copy)
		return real;
	for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	slash = strrchr(copy, '/');
	if (!slash)
		above = resolve(".");
	else if (slash == copy)
		return strdup(copy);
	else
		*slash = '\0';
	if (slash)
		above = resolve(copy);
	if (!above || asprintf(&real, "%s/%s", strcmp(above, "/") ? above : "",
			       slash ? slash + 1 : copy) < 0)
		return NULL;
	return real;
}

/* Or the same. Both resolved. */
static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 &&
	       (path[n] == '\0' || path[n] == '/' || n == 1);
}

/* Whoever can write there decides what readers get. */
static int check_cache(const char *dir, struct error *err)
{
	struct stat st;

	if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
		return 0; /* made by us, or refused when it is opened */
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return set_error(err, -EINVAL,
				 "cache-dir: %s belongs to user %u, who could "
				 "change what readers get",
				 dir, (unsigned int)st.st_uid);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return set_error(err, -EINVAL,
				 "cache-dir: others may write to %s (mode "
				 "%04o), and so change what readers get; "
				 "`chmod go-w` it",
				 dir, (unsigned int)st.st_mode & 07777);
	return 0;
}

/* To read it would need the daemon that is to be started with it. */
static int check_mount(const struct config *c, struct error *err)
{
	const struct {
		const char *option, *path;
	} files[] = {
		{"cache-dir", c->cache_dir},
		{"registry-config", c->registry_config},
		{"certs-dir", c->certs_dir},
		{"tls-ca", c->tls_ca},
		{"tls-cert", c->tls_cert},
		{"tls-key", c->tls_key},
		{"config", c->config},
		{"containerd-sock", c->containerd_sock},
		{"containerd-content-path", c->containerd_content_path},
		{"containerd-hosts-config-path", c->hosts_config_path},
	};
	CLEANUP(freep) char *mount = resolve(c->mount);
	CLEANUP(freep) char *cache = resolve(c->cache_dir);

	if (!mount || !cache)
		return set_error(err, -EINVAL, "mount: %s cannot be resolved",
				 c->mount);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		CLEANUP(freep)
		char *path = files[i].path ? resolve(files[i].path) : NULL;

		if (path && is_below(path, mount))
			return set_error(err, -EINVAL,
					 "%s: %s is in the mount %s",
					 files[i].option, files[i].path,
					 c->mount);
	}
	if (is_below(mount, cache))
		return set_error(err, -EINVAL,
				 "mount: %s is in the cache directory %s",
				 c->mount, c->cache_dir);
	return 0;
}

int paths_check(const struct config *cfg, struct error *err)
{
	int r = check_cache(cfg->cache_dir, err);

	return r < 0 || !cfg->mount ? r : check_mount(cfg, err);
}
