#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "containerd/hosts-private.h"

#define XATTR_MAX 65536 /* XATTR_SIZE_MAX and XATTR_LIST_MAX of Linux */

unsigned int hosts_test_die_at;

void hosts_step(void)
{
	if (hosts_test_die_at && --hosts_test_die_at == 0)
		(void)kill(getpid(), SIGKILL);
}

static int fail(struct error *err, int r, const char *path, const char *what)
{
	return set_error(err, r, "%s: %s: %s", path, what, strerror(-r));
}

char *hosts_format(const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : s;
}

char *hosts_absolute(const char *path)
{
	CLEANUP(freep) char *cwd = *path == '/' ? strdup("") : getcwd(NULL, 0);
	char *s = cwd ? hosts_format("%s/%s", cwd, path) : NULL;
	char *to = s;

	if (!s)
		return NULL;
	for (const char *from = s; *from; from++)
		if (*from != '/' || (from[1] != '/' && from[1] != '\0'))
			*to++ = *from;
	if (to == s)
		*to++ = '/';
	*to = '\0';
	return s;
}

/* "a" for "a/b", "/" for "/b". */
static char *parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return strdup(".");
	return slash == path ? strdup("/")
			     : strndup(path, (size_t)(slash - path));
}

static int sync_parent(const char *path)
{
	CLEANUP(freep) char *dir = parent_of(path);
	CLEANUP(closep) int fd = -1;

	if (!dir)
		return -ENOMEM;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd == -1)
		return -errno;
	hosts_step();
	return fsync(fd) == -1 ? -errno : 0;
}

/* Reading */

void hosts_file_release(struct hosts_file *f)
{
	free(f->path);
	free(f->data);
	*f = (struct hosts_file){0};
}

static int read_all(int fd, struct hosts_file *f)
{
	size_t max = HOSTS_MAX_BYTES;

	f->data = malloc(max + 2);
	if (!f->data)
		return -ENOMEM;
	while (f->len <= max) {
		ssize_t n = read(fd, f->data + f->len, max + 1 - f->len);

		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -errno;
		if (n == 0)
			break;
		f->len += (size_t)n;
	}
	f->data[f->len] = '\0';
	return f->len > max ? -EFBIG : 0;
}

static int resolve(const char *path, struct hosts_file *f, struct error *err)
{
	struct stat st;

	f->is_link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
	f->path = f->is_link ? realpath(path, NULL) : strdup(path);
	if (f->path)
		return 0;
	return f->is_link ? set_error(err, -ELOOP,
				      "%s: its link's target cannot be opened",
				      path)
			  : fail(err, -ENOMEM, path, "cannot read");
}

int hosts_file_read(const char *path, struct hosts_file *ret, struct error *err)
{
	struct hosts_file f = {0};
	CLEANUP(closep) int fd = -1;
	int r = resolve(path, &f, err);

	if (r < 0)
		return r;
	/* O_NONBLOCK: opening a pipe must not wait for its other end. */
	fd = open(f.path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd == -1 && errno == ENOENT && !f.is_link) {
		*ret = f;
		return 0;
	}
	if (fd == -1 || fstat(fd, &f.st) == -1)
		r = fail(err, -errno, path, "cannot read");
	else if (!S_ISREG(f.st.st_mode))
		r = set_error(err, -EINVAL, "%s: not a regular file", path);
	else
		r = read_all(fd, &f);
	if (r == -EFBIG)
		(void)set_error(err, r, "%s: larger than %zu bytes", path,
				HOSTS_MAX_BYTES);
	else if (r < 0 && fd != -1 && S_ISREG(f.st.st_mode))
		(void)fail(err, r, path, "cannot read");
	if (r < 0) {
		hosts_file_release(&f);
		return r;
	}
	f.exists = true;
	*ret = f;
	return 0;
}

/* Writing */

static char *temporary_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	int dir = slash ? (int)(slash - path) + 1 : 0;

	return hosts_format("%.*s.%s.peerd-new", dir, path, path + dir);
}

void hosts_file_remove_temporary(const char *path)
{
	CLEANUP(freep) char *tmp = temporary_of(path);

	if (tmp && unlink(tmp) == 0)
		hosts_step();
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n == -1 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

/* Copies access control lists and security labels. Some attributes cannot be
 * set by a process; the kernel sets those of them that matter. */
static void copy_xattrs(const char *from, int to)
{
	CLEANUP(freep) char *names = malloc(XATTR_MAX);
	CLEANUP(freep) char *value = malloc(XATTR_MAX);
	ssize_t n;

	if (!names || !value)
		return;
	n = listxattr(from, names, XATTR_MAX);
	for (const char *p = names; n > 0 && p < names + n;
	     p += strlen(p) + 1) {
		ssize_t size = getxattr(from, p, value, XATTR_MAX);

		if (size >= 0)
			(void)fsetxattr(to, p, value, (size_t)size, 0);
	}
}

static int fill(int fd, const struct hosts_file *f, mode_t mode,
		const char *data, size_t len)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) == -1)
		return -errno;
	if (f->exists &&
	    (st.st_uid != f->st.st_uid || st.st_gid != f->st.st_gid) &&
	    fchown(fd, f->st.st_uid, f->st.st_gid) == -1)
		return -errno;
	if (f->exists)
		copy_xattrs(f->path, fd);
	if (fchmod(fd, f->exists ? f->st.st_mode & 07777 : mode) == -1)
		return -errno;
	hosts_step();
	r = write_all(fd, data, len / 2);
	if (r < 0)
		return r;
	hosts_step();
	r = write_all(fd, data + len / 2, len - len / 2);
	if (r < 0)
		return r;
	hosts_step();
	return fsync(fd) == -1 ? -errno : 0;
}

int hosts_file_replace(const struct hosts_file *f, mode_t mode,
		       const void *data, size_t len, struct error *err)
{
	CLEANUP(freep) char *tmp = temporary_of(f->path);
	CLEANUP(closep) int fd = -1;
	int r;

	if (!tmp)
		return fail(err, -ENOMEM, f->path, "cannot write");
	(void)unlink(tmp);
	hosts_step();
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
		  0600);
	if (fd == -1)
		return fail(err, -errno, f->path, "cannot write");
	r = fill(fd, f, mode, data, len);
	hosts_step();
	if (r == 0 && rename(tmp, f->path) == -1)
		r = -errno;
	if (r < 0) {
		(void)unlink(tmp);
		return fail(err, r, f->path, "cannot write");
	}
	r = sync_parent(f->path);
	return r < 0 ? fail(err, r, f->path, "cannot write") : 0;
}

int hosts_file_unlink(const char *path, struct error *err)
{
	int r;

	hosts_step();
	if (unlink(path) == -1 && errno != ENOENT)
		return fail(err, -errno, path, "cannot remove");
	r = sync_parent(path);
	return r < 0 && r != -ENOENT ? fail(err, r, path, "cannot remove") : 0;
}

/* Directories */

int hosts_missing_dirs(const char *path, struct string_list *ret)
{
	CLEANUP(freep) char *s = strdup(path);
	struct stat st;
	int r = 0;

	if (!s)
		return -ENOMEM;
	for (char *p = s + 1; r == 0; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (stat(s, &st) == -1 && errno == ENOENT)
			r = string_list_add(ret, s);
		*p = c;
		if (c == '\0')
			break;
	}
	return r;
}

int hosts_make_dirs(const char *path, mode_t mode, struct error *err)
{
	CLEANUP(string_list_release) struct string_list dirs = {0};
	int r = hosts_missing_dirs(path, &dirs);

	for (size_t i = 0; r == 0 && i < dirs.n; i++) {
		hosts_step();
		if (mkdir(dirs.v[i], mode) == -1 && errno != EEXIST)
			r = -errno;
		else
			r = sync_parent(dirs.v[i]);
	}
	return r < 0 ? fail(err, r, path, "cannot make the directory") : 0;
}

void hosts_remove_dirs(const struct string_list *dirs)
{
	for (size_t i = dirs->n; i > 0; i--) {
		hosts_step();
		if (rmdir(dirs->v[i - 1]) == 0)
			(void)sync_parent(dirs->v[i - 1]);
	}
}
