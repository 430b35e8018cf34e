#include "mount/session.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define MAX_THREADS 16
#define FS_TYPE	    "fuse.peerd"
#define WAKE_SIGNAL SIGUSR1

struct mount {
	struct mount_config cfg;
	char *path; /* absolute, without symbolic links */
	struct fuse_session *se;
	unsigned int major, minor; /* of the mounted device */
	pthread_t threads[MAX_THREADS];
	uint32_t nthreads;
	bool closing; /* atomic */
	bool gone;    /* atomic; gone() was called */
};

static void fclosep(FILE **f)
{
	if (*f)
		(void)fclose(*f);
}

/* Decodes the octal escapes of mountinfo (proc(5)) in place. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] &&
		    s[3]) {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
					(s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

/* Finds the topmost mount at path: 1, or 0 if there is none. Reads the kernel's
 * table only, so that a dead mount cannot block. */
static int find_mount(const char *path, char *ret_type, size_t type_size,
		      unsigned int *ret_major, unsigned int *ret_minor)
{
	CLEANUP(fclosep) FILE *f = fopen("/proc/self/mountinfo", "re");
	CLEANUP(freep) char *line = NULL;
	size_t cap = 0;
	int found = 0;

	if (!f)
		return -errno;
	while (getline(&line, &cap, f) > 0) {
		char *save = NULL, *tok, *point = NULL, *dev = NULL;
		char *rest = strstr(line, " - ");
		int i = 0;

		if (!rest)
			continue;
		*rest = '\0';
		for (tok = strtok_r(line, " ", &save); tok;
		     tok = strtok_r(NULL, " ", &save), i++) {
			if (i == 2)
				dev = tok;
			if (i == 4)
				point = tok;
		}
		if (!point || !dev)
			continue;
		unescape(point);
		if (strcmp(point, path) != 0)
			continue;
		tok = strtok_r(rest + 3, " \n", &save);
		if (ret_type)
			(void)snprintf(ret_type, type_size, "%s",
				       tok ? tok : "");
		if (sscanf(dev, "%u:%u", ret_major, ret_minor) == 2)
			found = 1; /* the last line is the topmost mount */
	}
	return found;
}

static int make_dirs(const char *path)
{
	CLEANUP(freep) char *s = strdup(path);

	if (!s)
		return -ENOMEM;
	for (char *p = s + 1;; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = '\0';
		if (mkdir(s, 0755) == -1 && errno != EEXIST)
			return -errno;
		*p = c;
		if (!c)
			return 0;
	}
}

/* Detaches the mount of a dead daemon, which answers no request. statfs(2)
 * shows that; stat(2) may be answered from the kernel's cache. */
static int clear_stale(const char *path, struct error *err)
{
	struct statfs st;

	for (int i = 0; i < 16; i++) {
		if (statfs(path, &st) == 0 ||
		    (errno != ENOTCONN && errno != ECONNABORTED))
			return 0;
		if (umount2(path, MNT_DETACH) == -1)
			return set_error(err, -errno,
					 "cannot unmount %s, the mount of a "
					 "dead daemon: %s",
					 path, strerror(errno));
		log_warn("detached the mount of a dead daemon",
			 LS("mount", path));
	}
	return 0;
}

static int prepare(struct mount *m, struct error *err)
{
	char type[64] = "", real[PATH_MAX];
	unsigned int major, minor;
	int r = clear_stale(m->cfg.path, err);

	if (r < 0)
		return r;
	r = make_dirs(m->cfg.path);
	if (r < 0)
		return set_error(err, r, "cannot make the mount point %s: %s",
				 m->cfg.path, strerror(-r));
	if (!realpath(m->cfg.path, real))
		return set_error(err, -errno,
				 "cannot resolve the mount point %s: %s",
				 m->cfg.path, strerror(errno));
	m->path = strdup(real);
	if (!m->path)
		return -ENOMEM;
	if (find_mount(m->path, type, sizeof(type), &major, &minor) == 1 &&
	    strcmp(type, FS_TYPE) == 0)
		return set_error(err, -EBUSY,
				 "another peerd has its mount at %s", m->path);
	return 0;
}

static int attach_as_root(struct mount *m, struct error *err)
{
	CLEANUP(closep) int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char opts[256], dev[32];

	if (fd == -1)
		return set_error(err, -errno, "cannot open /dev/fuse: %s",
				 strerror(errno));
	(void)snprintf(opts, sizeof(opts),
		       "fd=%d,rootmode=40000,user_id=0,group_id=0,"
		       "default_permissions,max_read=1048576%s",
		       fd, m->cfg.allow_other ? ",allow_other" : "");
	if (mount("peerd", m->path, FS_TYPE, MS_NODEV | MS_NOSUID | MS_RDONLY,
		  opts) == -1)
		return set_error(err, -errno, "cannot mount at %s: %s", m->path,
				 strerror(errno));
	(void)snprintf(dev, sizeof(dev), "/dev/fd/%d", fd);
	if (fuse_session_mount(m->se, dev) != 0) {
		(void)umount2(m->path, MNT_DETACH);
		return set_error(err, -EIO, "libfuse refused the mount");
	}
	(void)steal_fd(&fd); /* the session owns it */
	return 0;
}

static int session_new(struct mount *m, struct error *err)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int r = fuse_opt_add_arg(&args, "peerd");

	/* The operations' init() sets the same maximum. */
	if (r == 0)
		r = fuse_opt_add_arg(&args, "-omax_read=1048576");
	if (r == 0 && geteuid() != 0)
		r = fuse_opt_add_arg(&args, "-osubtype=peerd,fsname=peerd,ro,"
					    "default_permissions");
	if (r == 0 && geteuid() != 0 && m->cfg.allow_other)
		r = fuse_opt_add_arg(&args, "-oallow_other");
	if (r == 0)
		m->se = fuse_session_new(&args, m->cfg.ops, sizeof(*m->cfg.ops),
					 m->cfg.userdata);
	fuse_opt_free_args(&args);
	if (!m->se)
		return set_error(err, -EIO, "libfuse cannot make a session");
	return 0;
}

static void raise_read_ahead(struct mount *m)
{
	char path[128], val[16];
	int len = snprintf(val, sizeof(val), "%u\n", m->cfg.read_ahead_kb);
	CLEANUP(closep) int fd = -1;

	(void)snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		       m->major, m->minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd == -1 || write(fd, val, (size_t)len) != len)
		log_warn("cannot raise the kernel's read-ahead",
			 LS("file", path), LE(-errno));
}

static void *serve(void *arg)
{
	struct mount *m = arg;
	struct fuse_buf buf = {0};

	while (!fuse_session_exited(m->se)) {
		int r = fuse_session_receive_buf(m->se, &buf);

		if (r == -EINTR)
			continue;
		if (r <= 0)
			break;
		fuse_session_process_buf(m->se, &buf);
	}
	free(buf.mem);
	if (!__atomic_load_n(&m->closing, __ATOMIC_ACQUIRE) &&
	    !__atomic_exchange_n(&m->gone, true, __ATOMIC_ACQ_REL) &&
	    m->cfg.gone)
		m->cfg.gone(m->cfg.arg);
	return NULL;
}

static void on_wake(int signum)
{
	(void)signum;
}

/* The threads block all signals, which belong to the loop thread, except for
 * the one that interrupts their read(2) of /dev/fuse; see join(). */
static int start_threads(struct mount *m)
{
	uint32_t want = m->cfg.threads ? m->cfg.threads : 3;
	struct sigaction sa = {.sa_handler = on_wake};
	sigset_t all, old;
	int r = 0;

	if (sigaction(WAKE_SIGNAL, &sa, NULL) == -1)
		return -errno;
	(void)sigfillset(&all);
	(void)sigdelset(&all, WAKE_SIGNAL);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	while (m->nthreads < min_u64(want, MAX_THREADS) && r == 0) {
		r = -pthread_create(&m->threads[m->nthreads], NULL, serve, m);
		if (r == 0)
			m->nthreads++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return m->nthreads ? 0 : r;
}

int mount_open(const struct mount_config *cfg, struct mount **ret,
	       struct error *err)
{
	struct mount *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	m->cfg = *cfg;
	r = prepare(m, err);
	if (r == 0)
		r = session_new(m, err);
	if (r == 0 && geteuid() == 0)
		r = attach_as_root(m, err);
	else if (r == 0 && fuse_session_mount(m->se, m->path) != 0)
		r = set_error(err, -EIO, "cannot mount at %s (fusermount3)",
			      m->path);
	if (r < 0) {
		mount_free(&m);
		return r;
	}
	if (find_mount(m->path, NULL, 0, &m->major, &m->minor) != 1)
		log_warn("cannot find the mount in mountinfo",
			 LS("mount", m->path));
	else if (cfg->read_ahead_kb)
		raise_read_ahead(m);
	if (cfg->session)
		cfg->session(cfg->arg, m->se);
	r = start_threads(m);
	if (r < 0) {
		mount_close(m);
		mount_free(&m);
		return set_error(err, r, "cannot start threads: %s",
				 strerror(-r));
	}
	*ret = m;
	return 0;
}

/* True if the mount at our path is still ours. */
static bool still_mounted(const struct mount *m)
{
	unsigned int major = 0, minor = 0;

	return find_mount(m->path, NULL, 0, &major, &minor) == 1 &&
	       major == m->major && minor == m->minor;
}

static void unmount(struct mount *m)
{
	bool busy;

	if (!still_mounted(m) || umount2(m->path, 0) == 0)
		return;
	busy = errno == EBUSY;
	/* MNT_FORCE ends the connection, and with it all reads that wait for
	 * bytes. */
	if (umount2(m->path, MNT_FORCE | MNT_DETACH) == -1)
		log_error("cannot unmount", LS("mount", m->path), LE(-errno));
	else if (busy)
		log_warn("files are open: unmounted lazily",
			 LS("mount", m->path));
}

/* While files are open on a detached mount, read(2) of /dev/fuse does not
 * return by itself. The signal is repeated, because one that comes just before
 * read(2) is lost. */
static void join(pthread_t thread)
{
	while (pthread_tryjoin_np(thread, NULL) == EBUSY) {
		(void)pthread_kill(thread, WAKE_SIGNAL);
		(void)usleep(1000);
	}
}

void mount_close(struct mount *m)
{
	__atomic_store_n(&m->closing, true, __ATOMIC_RELEASE);
	if (geteuid() != 0)
		fuse_session_unmount(m->se);
	else
		unmount(m);
	fuse_session_exit(m->se);
	for (uint32_t i = 0; i < m->nthreads; i++)
		join(m->threads[i]);
	m->nthreads = 0;
}

void mount_free(struct mount **mp)
{
	struct mount *m = *mp;

	if (!m)
		return;
	if (m->se)
		fuse_session_destroy(m->se);
	free(m->path);
	free(m);
	*mp = NULL;
}
