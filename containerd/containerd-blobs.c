/* The blobs of containerd's content store. An inotify event only queues the
 * file for a check; a worker checks the file, and only its result counts. So
 * events may come twice, late, or for files that are gone already. After lost
 * events the whole directory is scanned again. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/metrics.h"
#include "containerd/containerd-private.h"
#include "containerd/digest-set.h"

#define LOOK_MS	    3000
#define BATCH	    256
#define MAX_BLOBS   ((size_t)1 << 20)
#define MAX_TO_LOOK ((size_t)1 << 17)
/* Reads of inotify in one turn of the loop: many events must not block the
 * loop for long. */
#define READS_A_TURN 16

#define EVENTS                                                                 \
	(IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE |                \
	 IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

static struct metric_family m_blobs = {
	.name = "peerd_containerd_blobs",
	.help = "Blobs in containerd's content store.",
	.type = METRIC_GAUGE,
};

struct digests {
	struct digest *v;
	size_t n, cap;
};

enum found { FOUND_NOTHING, FOUND_BLOB, FOUND_UNKNOWN };

enum look_kind {
	LOOK_SCAN,  /* watch the directory and read its names */
	LOOK_CHECK, /* is the directory still the same */
	LOOK_FILES, /* which files of the batch exist */
};

/* One job of a worker. */
struct content_look {
	struct loop_job job;
	enum look_kind kind;
	int r;
	dev_t dev;
	ino_t ino;
	struct digests names;
	struct digest batch[BATCH];
	enum found found[BATCH];
	size_t n;
};

struct ctr_blobs {
	struct containerd_config cfg;
	char *dir;
	int inotify; /* -1: not available */
	uv_poll_t poll;
	uv_timer_t timer;
	unsigned int refs; /* the owner, each handle, the job */
	bool closing, busy;

	bool watching, complained;
	bool rescan, check; /* jobs to start */
	bool again;	    /* a file could not be checked; scan again */
	bool fresh;	    /* some names of a scan are not checked yet */
	dev_t dev;	    /* of the watched directory */
	ino_t ino;
	uint64_t scans;
	struct digest_set set;
	struct digests to_look;
	struct content_look look;
	struct metric_series *m_blobs;
};

static int digests_add(struct digests *l, const struct digest *d)
{
	void *v = array_grow(l->v, l->n, &l->cap, sizeof(*l->v));

	if (!v)
		return -ENOMEM;
	l->v = v;
	l->v[l->n++] = *d;
	return 0;
}

static void digests_release(struct digests *l)
{
	free(l->v);
	*l = (struct digests){0};
}

/* ---- On a worker ---- */

/* The watch starts before the names are read, so that no change is missed. */
static int watch_dir(struct ctr_blobs *b, struct content_look *k, int fd)
{
	struct stat st, now;

	if (fstat(fd, &st) == -1)
		return -errno;
	if (b->inotify >= 0 &&
	    inotify_add_watch(b->inotify, b->dir, EVENTS) == -1)
		return -errno;
	if (stat(b->dir, &now) == -1)
		return -errno;
	if (now.st_dev != st.st_dev || now.st_ino != st.st_ino)
		return -EAGAIN; /* the directory was replaced just now */
	k->dev = st.st_dev;
	k->ino = st.st_ino;
	return 0;
}

static int read_names(struct content_look *k, int fd)
{
	DIR *d = fdopendir(fd);
	const struct dirent *e;
	struct digest id;
	int r = 0;

	if (!d) {
		r = -errno;
		(void)close(fd);
		return r;
	}
	/* cppcheck-suppress readdirCalled */
	while (r == 0 && k->names.n < MAX_BLOBS && (e = readdir(d)))
		if (digest_parse_hex(e->d_name, &id) == 0)
			r = digests_add(&k->names, &id);
	(void)closedir(d);
	return r;
}

static int scan(struct ctr_blobs *b, struct content_look *k)
{
	CLEANUP(closep) int fd = -1;
	int r;

	fd = open(b->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd == -1)
		return -errno;
	r = watch_dir(b, k, fd);
	return r < 0 ? r : read_names(k, steal_fd(&fd));
}

static int check(struct ctr_blobs *b, struct content_look *k)
{
	struct stat st;

	if (stat(b->dir, &st) == -1)
		return -errno;
	k->dev = st.st_dev;
	k->ino = st.st_ino;
	return 0;
}

static void look_at_files(struct ctr_blobs *b, struct content_look *k)
{
	for (size_t i = 0; i < k->n; i++) {
		int r = store_external_changed(b->cfg.store, &k->batch[i]);

		if (r == 1)
			k->found[i] = FOUND_BLOB;
		else if (r == 0 || r == -ESTALE)
			k->found[i] = FOUND_NOTHING;
		else
			k->found[i] = FOUND_UNKNOWN;
	}
}

static void work(struct loop_job *j)
{
	struct content_look *k = container_of(j, struct content_look, job);
	struct ctr_blobs *b = container_of(k, struct ctr_blobs, look);

	if (k->kind == LOOK_SCAN)
		k->r = scan(b, k);
	else if (k->kind == LOOK_CHECK)
		k->r = check(b, k);
	else
		look_at_files(b, k);
}

/* ---- On the loop ---- */

static void unref(struct ctr_blobs *b)
{
	if (--b->refs > 0)
		return;
	if (b->inotify >= 0)
		(void)close(b->inotify);
	digest_set_release(&b->set);
	digests_release(&b->to_look);
	digests_release(&b->look.names);
	free(b->dir);
	free(b);
}

static void on_closed(uv_handle_t *h)
{
	unref(h->data);
}

static void apply(struct ctr_blobs *b, const struct digest *d, enum found f)
{
	bool present = f == FOUND_BLOB, had = digest_set_has(&b->set, d);

	if (f == FOUND_UNKNOWN ||
	    (present && !had && digest_set_add(&b->set, d) < 0)) {
		b->again = true;
		return;
	}
	if (present == had)
		return;
	if (!present)
		(void)digest_set_del(&b->set, d);
	metric_set(b->m_blobs, (double)b->set.n);
	if (b->cfg.changed)
		b->cfg.changed(b->cfg.arg, d, present);
}

/* Queues the names of a scan and all known blobs for a check. A known blob may
 * be gone, or another file may have replaced it. */
static int look_at_all(struct ctr_blobs *b, const struct content_look *k)
{
	const struct digest *d;
	size_t at = 0;
	int r = 0;

	while (r == 0 && (d = digest_set_next(&b->set, &at)))
		r = digests_add(&b->to_look, d);
	for (size_t i = 0; r == 0 && i < k->names.n; i++)
		if (!digest_set_has(&b->set, &k->names.v[i]))
			r = digests_add(&b->to_look, &k->names.v[i]);
	return r;
}

static void scanned(struct ctr_blobs *b, struct content_look *k)
{
	bool absent = k->r == -ENOENT || k->r == -ENOTDIR;

	if (look_at_all(b, k) < 0)
		b->again = true;
	if (k->r < 0 && !absent && !b->complained)
		log_warn("cannot watch containerd's content store",
			 LS("dir", b->dir), LE(k->r));
	if (k->names.n == MAX_BLOBS && !b->complained)
		log_warn("containerd's content store has too many blobs; the "
			 "others are ignored",
			 LS("dir", b->dir));
	if (k->r == 0 && !b->watching)
		log_info("reading containerd's content store in place",
			 LS("dir", b->dir), LU("blobs", k->names.n));
	b->complained = (k->r < 0 && !absent) || k->names.n == MAX_BLOBS;
	b->watching = k->r == 0;
	b->dev = k->dev;
	b->ino = k->ino;
	b->fresh = true;
	digests_release(&k->names);
}

static void kick(struct ctr_blobs *b);

static void done(struct loop_job *j)
{
	struct content_look *k = container_of(j, struct content_look, job);
	struct ctr_blobs *b = container_of(k, struct ctr_blobs, look);

	b->busy = false;
	if (!b->closing && k->kind == LOOK_SCAN)
		scanned(b, k);
	if (!b->closing && k->kind == LOOK_CHECK &&
	    (k->r < 0 || k->dev != b->dev || k->ino != b->ino))
		b->rescan = true;
	/* changed() may call ctr_blobs_free(). */
	for (size_t i = 0; !b->closing && k->kind == LOOK_FILES && i < k->n;
	     i++)
		apply(b, &k->batch[i], k->found[i]);
	kick(b);
	unref(b);
}

/* Starts the next job. Files come before scans and checks, so that the list of
 * files gets shorter however many scans are requested. */
static void kick(struct ctr_blobs *b)
{
	struct content_look *k = &b->look;

	if (b->busy || b->closing)
		return;
	if (b->to_look.n == 0 && b->fresh) {
		b->fresh = false;
		b->scans++;
	}
	if (b->to_look.n > 0) {
		k->kind = LOOK_FILES;
		k->n = min_u64(b->to_look.n, BATCH);
		b->to_look.n -= k->n;
		memcpy(k->batch, b->to_look.v + b->to_look.n,
		       k->n * sizeof(*k->batch));
	} else if (b->rescan) {
		k->kind = LOOK_SCAN;
		b->rescan = b->check = false;
	} else if (b->check) {
		k->kind = LOOK_CHECK;
		b->check = false;
	} else {
		return;
	}
	b->busy = true;
	b->refs++;
	loop_work(b->cfg.loop, &k->job, work, done);
}

/* ---- inotify ---- */

static void on_event(struct ctr_blobs *b, const struct inotify_event *e)
{
	struct digest d;

	/* The event may be of a directory that was watched earlier; the scan
	 * tells. */
	if (e->mask & (IN_Q_OVERFLOW | IN_DELETE_SELF | IN_MOVE_SELF |
		       IN_IGNORED | IN_UNMOUNT))
		b->rescan = true;
	if (e->len == 0 || digest_parse_hex(e->name, &d) < 0)
		return;
	/* If the list is full, a scan finds the file later. */
	if (b->to_look.n >= MAX_TO_LOOK || digests_add(&b->to_look, &d) < 0)
		b->rescan = true;
}

static void on_readable(uv_poll_t *p, int status, int events)
{
	struct ctr_blobs *b = p->data;
	_Alignas(struct inotify_event) char buf[16384];

	(void)events;
	for (int turn = 0; status >= 0 && turn < READS_A_TURN; turn++) {
		ssize_t n = read(b->inotify, buf, sizeof(buf)), at = 0;

		if (n <= 0)
			break;
		while (at < n) {
			const struct inotify_event *e =
				(const void *)(buf + at);

			on_event(b, e);
			at += (ssize_t)(sizeof(*e) + e->len);
		}
	}
	kick(b);
}

static void on_timer(uv_timer_t *t)
{
	struct ctr_blobs *b = t->data;

	if (!b->watching || b->again || b->inotify < 0)
		b->rescan = true;
	b->again = false;
	b->check = true;
	kick(b);
}

/* ---- Start and end ---- */

static int open_inotify(struct ctr_blobs *b)
{
	int r;

	b->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (b->inotify == -1) {
		log_warn("inotify is not available; containerd's content store "
			 "is scanned at intervals",
			 LE(-errno));
		return 0;
	}
	r = uv_poll_init(loop_uv(b->cfg.loop), &b->poll, b->inotify);
	if (r < 0)
		return r;
	b->poll.data = b;
	b->refs++;
	(void)uv_poll_start(&b->poll, UV_READABLE, on_readable);
	return 0;
}

int ctr_blobs_new(const struct containerd_config *cfg, struct ctr_blobs **ret)
{
	CLEANUP(buf_release) struct buf dir = BUF_INIT(4096);
	struct ctr_blobs *b;
	uint64_t every = cfg->look_ms ? cfg->look_ms : LOOK_MS;
	int r = containerd_blob_dir(cfg->content_path, &dir);

	if (r < 0)
		return r;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->cfg = *cfg;
	b->refs = 1;
	b->dir = buf_steal(&dir);
	b->m_blobs = metric_get(&m_blobs, NULL);
	r = b->dir ? open_inotify(b) : -ENOMEM;
	if (r < 0) {
		unref(b);
		return r;
	}
	(void)uv_timer_init(loop_uv(cfg->loop), &b->timer);
	b->timer.data = b;
	b->refs++;
	(void)uv_timer_start(&b->timer, on_timer, every, every);
	b->rescan = true;
	kick(b);
	*ret = b;
	return 0;
}

void ctr_blobs_free(struct ctr_blobs **pb)
{
	struct ctr_blobs *b = steal_ptr(pb);

	if (!b)
		return;
	b->closing = true;
	if (b->inotify >= 0)
		uv_close((uv_handle_t *)&b->poll, on_closed);
	uv_close((uv_handle_t *)&b->timer, on_closed);
	unref(b);
}

bool ctr_blobs_has(const struct ctr_blobs *b, const struct digest *d)
{
	return digest_set_has(&b->set, d);
}

int ctr_blobs_each(const struct ctr_blobs *b,
		   int (*each)(void *arg, const struct digest *d), void *arg)
{
	const struct digest *d;
	size_t at = 0;
	int r = 0;

	while (r == 0 && (d = digest_set_next(&b->set, &at)))
		r = each(arg, d);
	return r;
}

void ctr_blobs_stats(const struct ctr_blobs *b, struct containerd_stats *ret)
{
	ret->watching = b->watching;
	ret->blobs = b->set.n;
	ret->scans = b->scans;
}
