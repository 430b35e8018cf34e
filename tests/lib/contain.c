/* contain TEST [ARGS]: runs one test program so that nothing of it remains.
 *
 * It gets a temporary directory of its own (TMPDIR; also HOME, so that no file
 * of the user matters), a session of its own, default signals, and, for root, a
 * mount and a network namespace with a loopback device (so that ports never
 * collide and no test reaches the network). For root the directory's path is
 * short and has no spaces, whatever TMPDIR was: a socket's path has at most 107
 * bytes, and /proc/self/mounts escapes spaces. When it ends, or after
 * TEST_TIMEOUT seconds (300), every process it started is killed, whatever is
 * mounted below the directory is unmounted, loop devices on files in it are
 * freed, and the directory is removed (unless TEST_KEEP is set).
 *
 * Exits as the test did; 124 after the timeout. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/loop.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SETTLE_MS 10000

static char dir[256];
/* The directory in the caller's TMPDIR that is mounted on dir; "": none. */
static char store[PATH_MAX];

static int64_t monotonic_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void loopback_up(void)
{
	struct ifreq rq = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	CLEANUP(closep) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd == -1 || ioctl(fd, SIOCSIFFLAGS, &rq) == -1)
		perror("contain: lo");
}

/* Makes new namespaces. Without the privilege the test runs in the existing
 * ones. Returns true if the test may mount. */
static bool own_namespaces(void)
{
	bool mounts = unshare(CLONE_NEWNS) == 0 &&
		      mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) == 0;

	if (unshare(CLONE_NEWNET) == 0)
		loopback_up();
	return mounts;
}

static bool make_temporary(char *out, size_t size, const char *parent)
{
	int n = snprintf(out, size, "%s/peerd-test-XXXXXX", parent);

	if (n > 0 && (size_t)n < size && mkdtemp(out))
		return true;
	fprintf(stderr, "contain: no directory in %s: %s\n", parent,
		n > 0 && (size_t)n < size ? strerror(errno) : "too long");
	return false;
}

static bool make_dir(bool mounts)
{
	const char *tmp = getenv("TMPDIR");

	if (!tmp || !*tmp)
		tmp = "/tmp";
	if (!mounts || strcmp(tmp, "/tmp") == 0)
		return make_temporary(dir, sizeof(dir), tmp);
	if (!make_temporary(store, sizeof(store), tmp))
		return false;
	if (make_temporary(dir, sizeof(dir), "/tmp") &&
	    mount(store, dir, NULL, MS_BIND, NULL) == 0)
		return true;
	perror("contain: bind");
	(void)rmdir(dir);
	(void)rmdir(store);
	return false;
}

/* Returns the parent of a process, from /proc/PID/stat. The command's name may
 * contain spaces and parentheses, so the fields are counted from the last
 * parenthesis. */
static pid_t parent_of(long pid, char *name, size_t name_size)
{
	char path[64], line[512];
	CLEANUP(closep) int fd = -1;
	const char *name_start, *name_end;
	ssize_t n;
	int parent;

	snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return -1;
	n = read(fd, line, sizeof(line) - 1);
	if (n <= 0)
		return -1;
	line[n] = '\0';
	name_start = strchr(line, '(');
	name_end = strrchr(line, ')');
	if (!name_start || !name_end ||
	    sscanf(name_end + 1, " %*c %d", &parent) != 1)
		return -1;
	snprintf(name, name_size, "%.*s", (int)(name_end - name_start - 1),
		 name_start + 1);
	return parent;
}

/* Orphans of the test become our children (PR_SET_CHILD_SUBREAPER). */
static void kill_children(bool tell)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	char name[64];

	while (proc && (e = readdir(proc))) {
		char *end;
		long pid = strtol(e->d_name, &end, 10);

		if (*end || parent_of(pid, name, sizeof(name)) != getpid())
			continue;
		if (tell)
			fprintf(stderr, "# contain: left running: %s (%ld)\n",
				name, pid);
		kill((pid_t)pid, SIGKILL);
	}
	if (proc)
		closedir(proc);
}

static void kill_all(bool tell)
{
	int64_t end = monotonic_ms() + SETTLE_MS;
	struct timespec pause = {.tv_nsec = 10000000};

	for (;;) {
		pid_t r = waitpid(-1, NULL, WNOHANG);

		if (r > 0)
			continue;
		if (r == -1 && errno != EINTR)
			return;
		if (monotonic_ms() > end) {
			fprintf(stderr, "# contain: a process will not die\n");
			return;
		}
		kill_children(tell);
		nanosleep(&pause, NULL);
	}
}

/* The last mount below dir, in the order of mounting; false if none. */
static bool last_mount(char *out, size_t size)
{
	FILE *f = fopen("/proc/self/mounts", "re");
	char line[4096], target[2048];
	bool found = false;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %2047s", target) != 1 ||
		    strncmp(target, dir, strlen(dir)) != 0)
			continue;
		snprintf(out, size, "%s", target);
		found = true;
	}
	if (f)
		fclose(f);
	return found;
}

static void unmount_all(void)
{
	char target[2048], before[2048] = "";

	while (last_mount(target, sizeof(target))) {
		if (umount2(target, MNT_DETACH) == -1 ||
		    strcmp(target, before) == 0) {
			perror("# contain: umount");
			return;
		}
		snprintf(before, sizeof(before), "%s", target);
	}
}

static void free_loop_device(int number)
{
	char path[64], file[2048];
	CLEANUP(closep) int fd = -1;
	CLEANUP(closep) int dev = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/block/loop%d/loop/backing_file",
		 number);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return;
	n = read(fd, file, sizeof(file) - 1);
	file[n > 0 ? n : 0] = '\0';
	if (strncmp(file, dir, strlen(dir)) != 0)
		return;
	snprintf(path, sizeof(path), "/dev/loop%d", number);
	dev = open(path, O_RDONLY | O_CLOEXEC);
	if (dev == -1 || ioctl(dev, LOOP_CLR_FD, 0) == -1)
		perror("# contain: loop device");
}

static int remove_entry(const char *path, const struct stat *st, int type,
			struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	(void)remove(path);
	return 0;
}

static void clean_up(bool tell)
{
	kill_all(tell);
	/* Call it before unmounting: the names of the backing files are paths
	 * below the mounts. */
	for (int i = 0; i < 256; i++)
		free_loop_device(i);
	unmount_all();
	if (*store)
		(void)rmdir(dir);
	if (!getenv("TEST_KEEP"))
		(void)nftw(*store ? store : dir, remove_entry, 32,
			   FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	else
		fprintf(stderr, "# contain: kept %s\n", *store ? store : dir);
}

static void run(char **argv, const sigset_t *mask)
{
	/* Ignored signals are inherited, and a shell cannot change that. With
	 * SIGPIPE ignored, pipelines that end early fail. */
	for (int sig = 1; sig < SIGRTMIN; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			(void)signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, mask, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	setenv("TMPDIR", dir, 1);
	setenv("HOME", dir, 1);
	setenv("TEST_CONTAINED", "1", 1);
	execvp(argv[0], argv);
	fprintf(stderr, "contain: %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* Waits for the child, a signal to this process, or the timeout. Returns the
 * exit status. */
static int supervise(pid_t child, int64_t timeout_ms, const sigset_t *mask)
{
	int64_t end = monotonic_ms() + timeout_ms;
	int status, sig = SIGCHLD;

	for (;;) {
		int64_t left = end - monotonic_ms();
		struct timespec t = {.tv_sec = left / 1000,
				     .tv_nsec = left % 1000 * 1000000};
		pid_t r;

		while ((r = waitpid(-1, &status, WNOHANG)) > 0) {
			if (r != child)
				continue;
			return WIFEXITED(status) ? WEXITSTATUS(status)
						 : 128 + WTERMSIG(status);
		}
		if (left <= 0) {
			fprintf(stderr, "# contain: timed out\n");
			return 124;
		}
		sig = sigtimedwait(mask, NULL, &t);
		if (sig > 0 && sig != SIGCHLD)
			return 128 + sig;
	}
}

int main(int argc, char **argv)
{
	const char *t = getenv("TEST_TIMEOUT");
	long seconds = t ? strtol(t, NULL, 10) : 300;
	sigset_t mask, old;
	pid_t child;
	int status;

	if (argc < 2) {
		fprintf(stderr, "usage: contain TEST [ARG...]\n");
		return 2;
	}
	if (!make_dir(own_namespaces()))
		return 2;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_BLOCK, &mask, &old);

	child = fork();
	if (child == -1) {
		perror("contain: fork");
		return 2;
	}
	if (child == 0)
		run(argv + 1, &old);
	status = supervise(child, seconds * 1000, &mask);
	clean_up(status != 124);
	return status;
}
