#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "containerd/hosts-private.h"

#define FORMAT	       "peerd-hosts-1"
#define SUFFIX	       ".json"
#define MAX_JSON_BYTES (8 * HOSTS_MAX_BYTES) /* every byte escaped */

void hosts_state_release(struct hosts_state *s)
{
	free(s->path);
	free(s->original);
	string_list_release(&s->made_dirs);
	*s = (struct hosts_state){0};
}

/* The name of the state file: a hash of the path of the hosts.toml. */
static char *state_file(const char *state_dir, const char *path)
{
	struct digest d;
	char hex[DIGEST_HEX_SIZE];

	digest_of(path, strlen(path), &d);
	return hosts_format("%s/%.32s" SUFFIX, state_dir, digest_hex(&d, hex));
}

static int parse_dirs(json_t *dirs, struct hosts_state *s)
{
	json_t *v;
	size_t i;
	int r = 0;

	json_array_foreach (dirs, i, v) {
		if (!json_is_string(v) || *json_string_value(v) != '/')
			return -EBADMSG;
		r = string_list_add(&s->made_dirs, json_string_value(v));
		if (r < 0)
			return r;
	}
	return 0;
}

static int parse(const json_t *root, struct hosts_state *s)
{
	const char *format = json_get_str(root, "format");
	const char *path = json_get_str(root, "path");
	const char *original = json_get_str(root, "original");
	const char *digest = json_get_str(root, "original_digest");
	const char *written = json_get_str(root, "written_digest");
	json_t *dirs = json_get_arr(root, "made_dirs");
	const json_t *made = json_object_get(root, "made_file");
	struct digest want, is;

	if (!format || strcmp(format, FORMAT) != 0 || !path || !original ||
	    !digest || !written || !dirs || !json_is_boolean(made) ||
	    digest_parse(digest, &want) < 0 ||
	    digest_parse(written, &s->written) < 0)
		return -EBADMSG;
	s->made_file = json_is_true(made);
	s->original_len = strlen(original);
	digest_of(original, s->original_len, &is);
	if (!digest_equal(&want, &is))
		return -EBADMSG;
	s->path = strdup(path);
	s->original = strdup(original);
	return s->path && s->original ? parse_dirs(dirs, s) : -ENOMEM;
}

static int read_file(const char *file, struct hosts_state *ret,
		     struct error *err)
{
	struct hosts_state s = {0};
	struct error why = {""};
	json_t *root = NULL;
	int r = json_parse_file(file, MAX_JSON_BYTES, &root, &why);

	if (r == -ENOENT)
		return r;
	if (r == 0)
		r = parse(root, &s);
	json_decref(root);
	if (r < 0) {
		hosts_state_release(&s);
		return set_error(err, r == -ENOMEM ? r : -EBADMSG,
				 "%s: not a readable backup", file);
	}
	*ret = s;
	return 0;
}

int hosts_state_read(const char *state_dir, const char *path,
		     struct hosts_state *ret, struct error *err)
{
	CLEANUP(freep) char *file = state_file(state_dir, path);
	int r;

	if (!file)
		return set_error(err, -ENOMEM, "out of memory");
	r = read_file(file, ret, err);
	if (r == 0 && strcmp(ret->path, path) != 0) {
		hosts_state_release(ret);
		r = set_error(err, -EBADMSG, "%s: not a readable backup", file);
	}
	return r;
}

static int dump(const struct hosts_state *s, struct buf *out)
{
	char original[DIGEST_STR_SIZE], written[DIGEST_STR_SIZE];
	struct digest d;
	json_t *dirs = json_array(), *root;
	int r;

	for (size_t i = 0; dirs && i < s->made_dirs.n; i++)
		if (json_array_append_new(dirs,
					  json_string(s->made_dirs.v[i]))) {
			json_decref(dirs);
			return -EINVAL;
		}
	digest_of(s->original, s->original_len, &d);
	root = json_pack("{s:s, s:s, s:b, s:o, s:s, s:s, s:s%}", "format",
			 FORMAT, "path", s->path, "made_file",
			 (int)s->made_file, "made_dirs", dirs,
			 "original_digest", digest_str(&d, original),
			 "written_digest", digest_str(&s->written, written),
			 "original", s->original, s->original_len);
	if (!root)
		return -EINVAL;
	r = json_dump(root, out);
	json_decref(root);
	return r;
}

int hosts_state_write(const char *state_dir, const struct hosts_state *s,
		      struct error *err)
{
	CLEANUP(buf_release) struct buf out = BUF_INIT(MAX_JSON_BYTES);
	struct hosts_file f = {.path = state_file(state_dir, s->path)};
	int r = f.path ? dump(s, &out) : -ENOMEM;

	if (r < 0)
		r = set_error(err, r, "%s: cannot save a backup of it",
			      s->path);
	else
		/* Mode 0600: a header in the hosts.toml may be a secret. */
		r = hosts_file_replace(&f, 0600, out.data, out.len, err);
	hosts_file_release(&f);
	return r;
}

int hosts_state_remove(const char *state_dir, const char *path,
		       struct error *err)
{
	CLEANUP(freep) char *file = state_file(state_dir, path);

	if (!file)
		return set_error(err, -ENOMEM, "out of memory");
	hosts_file_remove_temporary(file);
	return access(file, F_OK) == 0 ? hosts_file_unlink(file, err) : 0;
}

int hosts_state_each(const char *state_dir,
		     int (*fn)(const struct hosts_state *s, void *arg),
		     void *arg)
{
	DIR *dir = opendir(state_dir);
	struct dirent *e;
	int r = 0;

	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	/* cppcheck-suppress readdirCalled */
	while (r >= 0 && (e = readdir(dir))) {
		size_t n = strlen(e->d_name), suffix = strlen(SUFFIX);
		CLEANUP(freep) char *file = NULL;
		struct hosts_state s;

		if (e->d_name[0] == '.' || n <= suffix ||
		    strcmp(e->d_name + n - suffix, SUFFIX) != 0)
			continue;
		file = hosts_format("%s/%s", state_dir, e->d_name);
		if (!file) {
			r = -ENOMEM;
		} else if (read_file(file, &s, NULL) == 0) {
			r = fn(&s, arg);
			hosts_state_release(&s);
		}
	}
	(void)closedir(dir);
	return r < 0 ? r : 0;
}

int hosts_state_lock(const char *state_dir, int *ret_fd, struct error *err)
{
	CLEANUP(freep) char *file = hosts_format("%s/lock", state_dir);
	CLEANUP(closep) int fd = -1;
	int r;

	if (!file)
		return set_error(err, -ENOMEM, "out of memory");
	fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd == -1) {
		r = -errno;
		return set_error(err, r, "%s: cannot open: %s", file,
				 strerror(-r));
	}
	while (flock(fd, LOCK_EX) == -1)
		if (errno != EINTR) {
			r = -errno;
			return set_error(err, r, "%s: cannot lock: %s", file,
					 strerror(-r));
		}
	*ret_fd = steal_fd(&fd);
	return 0;
}
