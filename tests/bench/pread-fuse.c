/* pread-fuse FILE DIR READ_AHEAD_KIB: a minimal FUSE file system, as the
 * reference for peerd. It serves DIR/file from FILE with pread(), libfuse's
 * low-level interface, 3 threads, the kernel's page cache and requests of 1
 * MiB. Prints "ready"; ends on SIGTERM or when it is unmounted. */
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/util.h"

#define FILE_INO 2
#define MAX_READ (1 << 20)
#define FOREVER	 86400.0

static int backing;
static struct stat file_stat, root_stat;
static __thread char *buffer;

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	conn->max_read = MAX_READ;
	conn->max_readahead = MAX_READ;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = {.ino = FILE_INO,
				     .attr = file_stat,
				     .attr_timeout = FOREVER,
				     .entry_timeout = FOREVER};

	if (parent != FUSE_ROOT_ID || strcmp(name, "file") != 0)
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_entry(req, &e);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	(void)fi;
	fuse_reply_attr(req, ino == FILE_INO ? &file_stat : &root_stat,
			FOREVER);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->keep_cache = 1;
	fi->noflush = 1;
	fuse_reply_open(req, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	ssize_t n;

	(void)ino, (void)fi;
	if (!buffer)
		buffer = malloc(MAX_READ);
	if (!buffer || size > MAX_READ) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	n = pread(backing, buffer, size, off);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buffer, (size_t)n);
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.open = op_open,
	.read = op_read,
};

static int raise_read_ahead(const char *dir, const char *kib)
{
	char path[128];
	struct stat st;
	FILE *f;

	if (stat(dir, &st) == -1)
		return -errno;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		 major(st.st_dev), minor(st.st_dev));
	f = fopen(path, "we");
	if (!f)
		return -errno;
	fprintf(f, "%s\n", kib);
	return fclose(f) == 0 ? 0 : -errno;
}

static void *set_up(void *arg)
{
	char **argv = arg;
	int r = raise_read_ahead(argv[2], argv[3]);

	if (r < 0)
		fprintf(stderr, "pread-fuse: read-ahead: %s\n", strerror(-r));
	puts("ready");
	fflush(stdout);
	return NULL;
}

static int prepare(const char *file)
{
	backing = open(file, O_RDONLY | O_CLOEXEC);
	if (backing == -1 || fstat(backing, &file_stat) == -1) {
		perror(file);
		return -1;
	}
	file_stat.st_ino = FILE_INO;
	file_stat.st_mode = S_IFREG | 0444;
	root_stat.st_ino = FUSE_ROOT_ID;
	root_stat.st_mode = S_IFDIR | 0755;
	root_stat.st_nlink = 2;
	return 0;
}

int main(int argc, char **argv)
{
	char name[] = "pread-fuse";
	char options[] = "-oro,max_read=1048576,fsname=pread-fuse";
	char *fuse_argv[] = {name, options};
	struct fuse_args args = FUSE_ARGS_INIT(2, fuse_argv);
	struct fuse_loop_config *loop = fuse_loop_cfg_create();
	struct fuse_session *se;
	pthread_t thread;
	int r = 1;

	if (argc != 4) {
		fprintf(stderr, "usage: pread-fuse FILE DIR READ_AHEAD_KIB\n");
		return 2;
	}
	if (prepare(argv[1]) < 0)
		return 1;
	fuse_loop_cfg_set_max_threads(loop, 3);
	fuse_loop_cfg_set_clone_fd(loop, 0);
	se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!se || fuse_set_signal_handlers(se) != 0 ||
	    fuse_session_mount(se, argv[2]) != 0)
		return 1;
	/* stat() of the mount needs a running loop. */
	if (pthread_create(&thread, NULL, set_up, argv) == 0) {
		r = fuse_session_loop_mt(se, loop) < 0;
		pthread_join(thread, NULL);
	}
	fuse_session_unmount(se);
	fuse_remove_signal_handlers(se);
	fuse_session_destroy(se);
	fuse_loop_cfg_destroy(loop);
	return r;
}
