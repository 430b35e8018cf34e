/* containerd on this node: its content store by inotify, its images by gRPC;
 * also with a real containerd. */
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/loop.h"
#include "containerd/containerd.h"
#include "fetch/fetch.h"
#include "http/client.h"
#include "registry/registry.h"
#include "tests/unit/store-helpers.h"

extern char **environ;

/* ---- A loop, a store, and the recorded callbacks ---- */

static struct rig {
	struct loop *loop;
	struct http_client *client;
	struct store *store;
	struct registry *registry;
	struct containerd *c;
	int came, went;
	uv_timer_t tick;
	bool (*cond)(void);
	uint64_t until_ms;
} rig;

static char content[5000], blob_dir[5200], sock[5200];

static void on_changed(void *arg, const struct digest *d, bool present)
{
	EQ(arg == &rig, 1);
	EQ(containerd_has(rig.c, d), present);
	rig.came += present;
	rig.went += !present;
}

static void rig_open(bool with_content, bool with_sock)
{
	static const struct string_list none;
	struct http_client_config hc = {.user_agent = "test"};
	struct registry_config rc = {.plain_http = &none,
				     .meta_timeout_ms = 5000,
				     .tag_fresh_ms = 30000};
	struct containerd_config cc = {
		.content_path = with_content ? content : NULL,
		.sock = with_sock ? sock : NULL,
		.changed = on_changed,
		.arg = &rig,
		.look_ms = 20,
		.list_ms = 3600000,
		.retry_ms = 200,
	};
	struct error err;

	memset(&rig, 0, sizeof(rig));
	rig.store = open_with((struct store_config){
		.commit_interval_ms = 5,
		.external_dir = with_content ? blob_dir : NULL,
		.external_grace_ms = 1});
	if (loop_new(&rig.loop) < 0)
		BAIL("loop_new");
	(void)uv_timer_init(loop_uv(rig.loop), &rig.tick);
	rc.loop = cc.loop = rig.loop;
	rc.store = cc.store = rig.store;
	if (http_client_new(rig.loop, &hc, &rig.client) < 0)
		BAIL("http_client_new");
	rc.client = cc.client = rig.client;
	if (registry_new(&rc, &rig.registry, &err) < 0)
		BAIL(err.text);
	EQ(containerd_new(&cc, &rig.c), 0);
}

static void rig_close(void)
{
	containerd_free(&rig.c);
	containerd_free(&rig.c);
	registry_free(&rig.registry);
	http_client_free(&rig.client);
	uv_close((uv_handle_t *)&rig.tick, NULL);
	loop_free(&rig.loop);
	store_close(&rig.store);
}

static void on_tick(uv_timer_t *t)
{
	(void)t;
	if (rig.cond() || now_ms() > rig.until_ms)
		loop_stop(rig.loop);
}

/* Runs the loop until cond() holds. */
static bool until(bool (*cond)(void))
{
	rig.cond = cond;
	rig.until_ms = now_ms() + 120000;
	(void)uv_timer_start(&rig.tick, on_tick, 0, 2);
	loop_run(rig.loop);
	(void)uv_timer_stop(&rig.tick);
	return cond();
}

static struct containerd_stats stats(void)
{
	struct containerd_stats s;

	containerd_stats(rig.c, &s);
	return s;
}

/* ---- The content store, by hand ---- */

static void put_bytes(const char *dir, const struct blob_key *key,
		      const void *bytes, size_t len)
{
	char tmp[6000], path[6000], hex[DIGEST_HEX_SIZE];
	int fd;

	(void)snprintf(tmp, sizeof(tmp), "%s/ingest", t_dir);
	(void)snprintf(path, sizeof(path), "%s/%s", dir,
		       digest_hex(&key->id, hex));
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, bytes, len) != (ssize_t)len || close(fd) != 0 ||
	    rename(tmp, path) != 0)
		BAIL("put_bytes");
}

static void put_seed(uint64_t seed, uint64_t size)
{
	struct blob_key key = sha_key(seed, size);
	CLEANUP(freep) uint8_t *buf = malloc(size);

	if (!buf)
		BAIL("malloc");
	fill(seed, 0, buf, size);
	put_bytes(blob_dir, &key, buf, size);
}

static void del_seed(uint64_t seed, uint64_t size)
{
	struct blob_key key = sha_key(seed, size);
	char path[6000], hex[DIGEST_HEX_SIZE];

	(void)snprintf(path, sizeof(path), "%s/%s", blob_dir,
		       digest_hex(&key.id, hex));
	EQ(unlink(path), 0);
}

static bool has_seed(uint64_t seed, uint64_t size)
{
	struct blob_key key = sha_key(seed, size);

	return containerd_has(rig.c, &key.id);
}

static uint64_t expected;

static bool has_expected(void)
{
	return stats().blobs == expected;
}

static bool until_blobs(uint64_t n)
{
	expected = n;
	return until(has_expected);
}

static bool is_watching(void)
{
	return stats().watching;
}

static bool is_not_watching(void)
{
	return !stats().watching && stats().blobs == 0;
}

static int count_one(void *arg, const struct digest *d)
{
	(void)d;
	return ++*(int *)arg == 100 ? -EINTR : 0;
}

static void begin(void)
{
	wipe();
	run("mkdir -p \"$D\"/content/blobs/sha256");
}

static void test_watch(void)
{
	int n = 0;

	begin();
	put_seed(1, 1000);
	put_seed(2, 1000);
	run("echo x >\"$D\"/content/blobs/sha256/README");
	rig_open(true, false);
	EQ(rig.came, 0);
	OK(until_blobs(2));
	OK(is_watching());
	OK(has_seed(1, 1000) && has_seed(2, 1000) && !has_seed(3, 1000));
	EQ(rig.came, 2);
	put_seed(3, 1000);
	OK(until_blobs(3));
	OK(has_seed(3, 1000));
	EQ(containerd_each(rig.c, count_one, &n), 0);
	EQ(n, 3);
	n = 98;
	EQ(containerd_each(rig.c, count_one, &n), -EINTR);
	EQ(n, 100);
	del_seed(2, 1000);
	OK(until_blobs(2));
	OK(!has_seed(2, 1000));
	EQ(rig.came, 3);
	EQ(rig.went, 1);
	/* Files that are not blobs are ignored. */
	run("ln -s /etc/passwd \"$D\"/content/blobs/sha256/$(printf "
	    "%064d 7); : >\"$D\"/content/blobs/sha256/$(printf %064d 8)");
	put_seed(4, 1000);
	OK(until_blobs(3));
	EQ(rig.came, 4);
	rig_close();
}

static void test_comes_and_goes(void)
{
	wipe();
	rig_open(true, false);
	EQ(rig.came, 0);
	run("mkdir -p \"$D\"/content/blobs/sha256");
	OK(until(is_watching));
	put_seed(1, 1000);
	OK(until_blobs(1));
	/* The directory is removed at once, as by `rm -rf` of its root. */
	run("rm -r \"$D\"/content");
	OK(until(is_not_watching));
	EQ(rig.went, 1);
	run("mkdir -p \"$D\"/content/blobs/sha256");
	put_seed(1, 1000);
	put_seed(2, 1000);
	OK(until_blobs(2));
	EQ(rig.came, 3);
	/* Another directory takes its place. */
	run("mkdir -p \"$D\"/other/sha256 && cd \"$D\"/content && "
	    "mv blobs gone && mv ../other blobs");
	put_seed(3, 1000);
	OK(until_blobs(1));
	OK(has_seed(3, 1000) && !has_seed(1, 1000));
	put_seed(4, 1000);
	OK(until_blobs(2));
	/* A file takes its place. */
	run("rm -r \"$D\"/content/blobs && echo >\"$D\"/content/blobs");
	OK(until_blobs(0));
	rig_close();
}

static uint64_t cached(void)
{
	struct store_stats st;

	store_stats(rig.store, &st);
	return st.cached_bytes;
}

static bool nothing_cached(void)
{
	return cached() == 0;
}

static struct blob *the_blob;

static bool is_external(void)
{
	return blob_external(the_blob);
}

static bool is_not_external(void)
{
	return !blob_external(the_blob);
}

/* peerd drops its copy of a blob that containerd has; a blob that containerd
 * drops is gone. */
static void test_not_kept_twice(void)
{
	struct blob_key one = sha_key(1, 2 * MIB), two = sha_key(2, 2 * MIB);
	struct blob *b;
	uint64_t gen;
	int fd;

	begin();
	rig_open(true, false);
	OK(until(is_watching));
	b = make_blob(rig.store, two, 2 * MIB);
	write_all(rig.store, b, 2);
	blob_unref(&b);
	the_blob = make_blob(rig.store, one, 2 * MIB);
	write_all(rig.store, the_blob, 1);
	EQ(verified(rig.store, the_blob), 0);
	EQ(store_range_fd(rig.store, the_blob, 0, 2 * MIB, &fd, &gen), 0);
	put_seed(1, 2 * MIB);
	put_seed(2, 2 * MIB);
	OK(until_blobs(2));
	OK(until(is_external));
	OK(until(nothing_cached));
	EQ(read_same(rig.store, the_blob, 1, 0, 2 * MIB), 0);
	del_seed(1, 2 * MIB);
	OK(until(is_not_external));
	EQ(read_same(rig.store, the_blob, 1, 0, 2 * MIB), -ENODATA);
	EQ(blob_missing(the_blob), 2);
	blob_unref(&the_blob);
	b = get_blob(rig.store, two);
	OK(blob_external(b));
	EQ(read_same(rig.store, b, 2, 1, 2 * MIB - 1), 0);
	blob_unref(&b);
	rig_close();
}

/* A source that never answers. */
static struct source_request *stuck;
static struct loop_task stuck_end;

static int stuck_start(struct source *s, struct source_request *rq)
{
	(void)s;
	stuck = rq;
	return 0;
}

static void end_stuck(struct loop_task *t)
{
	(void)t;
	stuck->done(stuck, -ECANCELED, "stopped");
}

static void stuck_cancel(struct source *s, struct source_request *rq)
{
	(void)s;
	(void)rq;
	stuck_end.run = end_stuck;
	loop_post(rig.loop, &stuck_end);
}

static void stuck_resume(struct source *s, struct source_request *rq)
{
	(void)s;
	(void)rq;
}

static struct {
	int dones, r;
	uint32_t pieces;
	bool in_memory, stopped;
} read_end;

static void on_read(struct fetch_read *rd, int r)
{
	read_end.dones++;
	read_end.r = r;
	read_end.pieces = rd->npieces;
	read_end.in_memory = rd->npieces > 0 && rd->piece[0].mem;
}

static void on_stopped(void *arg)
{
	(void)arg;
	read_end.stopped = true;
}

static bool is_stuck(void)
{
	return stuck;
}

static bool is_read(void)
{
	return read_end.dones > 0;
}

static bool is_stopped(void)
{
	return read_end.stopped;
}

/* The registry does not answer, but containerd got the blob elsewhere. */
static void test_ends_a_wait(void)
{
	static const struct source_ops ops = {
		.name = "stuck",
		.start = stuck_start,
		.resume = stuck_resume,
		.cancel = stuck_cancel,
	};
	struct source source = {.ops = &ops};
	struct fetch_config fc = {.read_timeout_ms = 3600000};
	struct fetch_read rd = {.off = 100, .len = 1000, .done = on_read};
	struct fetch *f;

	begin();
	rig_open(true, false);
	OK(until(is_watching));
	fc.loop = rig.loop;
	fc.store = rig.store;
	EQ(fetch_new(&fc, &f), 0);
	fetch_add_source(f, &source);
	rd.blob = make_blob(rig.store, sha_key(1, 2 * MIB), 2 * MIB);
	fetch_read_start(f, &rd);
	OK(until(is_stuck));
	put_seed(1, 2 * MIB);
	OK(until(is_read));
	EQ(read_end.dones, 1);
	EQ(read_end.r, 0);
	EQ(read_end.pieces, 1);
	OK(!read_end.in_memory);
	EQ(read_same(rig.store, rd.blob, 1, 100, 1000), 0);
	fetch_stop(f, on_stopped, NULL);
	OK(until(is_stopped));
	fetch_free(&f);
	blob_unref(&rd.blob);
	rig_close();
}

/* More events than the kernel's queue holds. */
static void test_overflow(void)
{
	enum { N = 7000 };
	struct blob_key key = {.kind = BLOB_SHA256};

	begin();
	rig_open(true, false);
	OK(until(is_watching));
	for (uint32_t i = 0; i < N; i++) {
		digest_of(&i, sizeof(i), &key.id);
		/* Three events for each file. */
		for (int k = 0; k < 3; k++)
			put_bytes(blob_dir, &key, &i, sizeof(i));
	}
	OK(until_blobs(N));
	run("find \"$D\"/content/blobs/sha256 -name '[0-7]*' -delete");
	run("find \"$D\"/content/blobs/sha256 -type f -delete");
	OK(until_blobs(0));
	EQ(rig.came, rig.went);
	OK(rig.came >= N);
	rig_close();
}

/* The end comes at any moment. */
static void test_freed_while_busy(void)
{
	begin();
	for (uint64_t i = 0; i < 600; i++)
		put_seed(i, 10);
	rig_open(true, true);
	rig_close();
	rig_open(true, true);
	OK(until(is_watching));
	rig_close();
}

/* ---- A real containerd ---- */

static pid_t daemon_pid = -1;
static char containerd_log[5200];

static void start_containerd(void)
{
	char config[5200];
	static const char *const words[] = {"setpriv", "--pdeathsig", "KILL",
					    "containerd", "-c"};
	char *argv[ARRAY_SIZE(words) + 2] = {NULL};
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;

	(void)snprintf(config, sizeof(config), "%s/config.toml", t_dir);
	(void)setenv("SOCK", sock, 1);
	run("cat >\"$D\"/config.toml <<END\n"
	    "version = 2\n"
	    "root = \"$D/root\"\n"
	    "state = \"$D/state\"\n"
	    "disabled_plugins = [\"io.containerd.grpc.v1.cri\","
	    " \"io.containerd.internal.v1.opt\"]\n"
	    "[grpc]\n"
	    "address = \"$SOCK\"\n"
	    "[ttrpc]\n"
	    "address = \"$SOCK.ttrpc\"\n"
	    "END\n");
	(void)posix_spawn_file_actions_init(&fa);
	(void)posix_spawn_file_actions_addopen(
		&fa, 1, containerd_log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	(void)posix_spawn_file_actions_adddup2(&fa, 1, 2);
	(void)posix_spawnattr_init(&attr);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		argv[i] = (char *)(uintptr_t)words[i];
	argv[ARRAY_SIZE(words)] = config;
	if (posix_spawnp(&daemon_pid, argv[0], &fa, &attr, argv, environ) != 0)
		BAIL("containerd cannot be started");
	(void)posix_spawnattr_destroy(&attr);
	(void)posix_spawn_file_actions_destroy(&fa);
}

static void stop_containerd(int sig)
{
	int status;

	if (daemon_pid > 0 && kill(daemon_pid, sig) == 0)
		(void)waitpid(daemon_pid, &status, 0);
	daemon_pid = -1;
}

static bool is_connected(void)
{
	return stats().connected;
}

static bool is_not_connected(void)
{
	return !stats().connected;
}

/* ctr with these arguments, in this namespace. */
static void ctr(const char *ns, const char *args)
{
	char cmd[9000];

	(void)snprintf(cmd, sizeof(cmd),
		       "ctr -a \"$SOCK\" -n %s %s >\"$D\"/ctr.out 2>&1 || "
		       "{ sed 's/^/# /' \"$D\"/ctr.out; false; }",
		       ns, args);
	run(cmd);
}

static struct blob_key put_json(const char *text)
{
	struct blob_key key = {.kind = BLOB_SHA256};

	digest_of(text, strlen(text), &key.id);
	put_bytes(in_dir("oci/blobs/sha256"), &key, text, strlen(text));
	return key;
}

/* Makes an image of one layer that cannot be unpacked. Returns its manifest. */
static struct blob_key import_image(const char *ns, const char *name,
				    uint64_t seed)
{
	struct blob_key layer = sha_key(seed, MIB + seed), config, manifest;
	CLEANUP(freep) uint8_t *buf = malloc(MIB + seed);
	char text[2000], d[DIGEST_STR_SIZE], e[DIGEST_STR_SIZE];
	int fd;

	run("rm -rf \"$D\"/oci && mkdir -p \"$D\"/oci/blobs/sha256 && "
	    "echo '{\"imageLayoutVersion\": \"1.0.0\"}' "
	    ">\"$D\"/oci/oci-layout");
	if (!buf)
		BAIL("malloc");
	fill(seed, 0, buf, MIB + seed);
	put_bytes(in_dir("oci/blobs/sha256"), &layer, buf, MIB + seed);
	(void)snprintf(
		text, sizeof(text),
		"{\"architecture\":\"amd64\",\"os\":\"linux\","
		"\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"%s\"]}}",
		digest_str(&layer.id, d));
	config = put_json(text);
	(void)snprintf(
		text, sizeof(text),
		"{\"schemaVersion\":2,\"mediaType\":"
		"\"application/vnd.oci.image.manifest.v1+json\",\"config\":"
		"{\"mediaType\":\"application/vnd.oci.image.config.v1+json\","
		"\"digest\":\"%s\",\"size\":%zu},\"layers\":[{\"mediaType\":"
		"\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"%s\","
		"\"size\":%llu}]}",
		digest_str(&config.id, e), strlen(text), d,
		(unsigned long long)(MIB + seed));
	manifest = put_json(text);
	(void)snprintf(
		text, sizeof(text),
		"{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":"
		"\"application/vnd.oci.image.manifest.v1+json\",\"digest\":"
		"\"%s\",\"size\":%zu,\"annotations\":"
		"{\"io.containerd.image.name\":\"%s\"}}]}",
		digest_str(&manifest.id, d), strlen(text), name);
	fd = open(in_dir("oci/index.json"), O_WRONLY | O_CREAT | O_CLOEXEC,
		  0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) ||
	    close(fd) != 0)
		BAIL("index.json");
	run("tar -C \"$D\"/oci -cf \"$D\"/oci.tar .");
	ctr(ns, "images import --no-unpack \"$D\"/oci.tar");
	return manifest;
}

static struct {
	const char *repo, *tag;
	struct digest digest;
} wanted;

static bool tag_is_known(void)
{
	struct digest d;
	uint64_t seen;

	return store_tag_get(rig.store, wanted.repo, wanted.tag, &d, &seen) ==
		       0 &&
	       digest_equal(&d, &wanted.digest) && seen == 0;
}

static bool until_tag(const char *repo, const char *tag, struct blob_key key)
{
	wanted.repo = repo;
	wanted.tag = tag;
	wanted.digest = key.id;
	return until(tag_is_known);
}

static struct {
	bool done, stale;
	int r;
	struct digest digest;
	uint32_t layers;
	struct digest layer;
} answer;

static void on_manifest(void *arg, int r, const struct manifest_result *res)
{
	(void)arg;
	answer.done = true;
	answer.r = r;
	if (r < 0)
		return;
	answer.stale = res->stale;
	answer.digest = res->digest;
	answer.layers = res->manifest ? res->manifest->nentries : 0;
	if (answer.layers > 0)
		answer.layer = res->manifest->entries[0].digest;
}

static bool answered(void)
{
	return answer.done;
}

static bool lacks_containerd(void)
{
	return geteuid() != 0 ||
	       system("command -v containerd ctr setpriv tar >/dev/null") != 0;
}

#define NEED_CONTAINERD()                                                      \
	do {                                                                   \
		if (lacks_containerd())                                        \
			SKIP("no containerd, or not root");                    \
	} while (0)

static void real_begin(void)
{
	wipe();
	(void)snprintf(content, sizeof(content),
		       "%s/root/io.containerd.content.v1.content", t_dir);
	(void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs/sha256", content);
}

static void real_end(void)
{
	rig_close();
	stop_containerd(SIGTERM);
	(void)snprintf(content, sizeof(content), "%s/content", t_dir);
	(void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs/sha256", content);
}

/* A registry that is down: port 1 of this machine. */
#define HOST "127.0.0.1:1"

static void test_images(void)
{
	struct blob_key first, second, third;
	struct string_list repos = {0};
	struct digest d;
	uint64_t size, events;
	struct blob *b;

	NEED_CONTAINERD();
	real_begin();
	rig_open(true, true);
	/* containerd is not there yet. */
	OK(until(is_not_connected));
	start_containerd();
	OK(until(is_connected));

	first = import_image("k8s.io", HOST "/lib/app:v1", 1);
	OK(until_tag(HOST "/lib/app", "v1", first));
	OK(stats().events > 0);
	OK(until_blobs(3));
	EQ(store_repo_has(rig.store, HOST "/lib/app", true, &first.id, &size),
	   0);
	EQ(store_repo_list(rig.store, HOST, &repos), 0);
	EQ(repos.n, 1);
	string_list_release(&repos);

	/* The registry is down, but the tag resolves: */
	registry_get_manifest(rig.registry, HOST, "lib/app", "v1", on_manifest,
			      NULL);
	OK(until(answered));
	EQ(answer.r, 0);
	OK(answer.stale);
	OK(digest_equal(&answer.digest, &first.id));
	EQ(answer.layers, 1);
	EQ(store_repo_has(rig.store, HOST "/lib/app", false, &answer.layer,
			  &size),
	   0);
	EQ(size, MIB + 1);
	b = get_blob(rig.store, sha_key(1, MIB + 1));
	OK(digest_equal(&blob_key(b)->id, &answer.layer));
	OK(blob_external(b));
	EQ(read_same(rig.store, b, 1, 0, MIB + 1), 0);
	blob_unref(&b);

	/* Another name, another image of that name, another namespace. */
	ctr("k8s.io", "images tag " HOST "/lib/app:v1 " HOST "/lib/app:v2");
	OK(until_tag(HOST "/lib/app", "v2", first));
	second = import_image("k8s.io", HOST "/lib/app:v1", 2);
	OK(until_tag(HOST "/lib/app", "v1", second));
	third = import_image("other", HOST "/b:c", 3);
	OK(until_tag(HOST "/b", "c", third));
	EQ(stats().images, 3);
	OK(until_blobs(9)); /* the indexes that were imported go */

	/* A later answer of the registry is kept. */
	EQ(store_tag_put(rig.store, HOST "/lib/app", "v9", &third.id,
			 now_unix_s() + 1000),
	   0);
	events = stats().events;
	ctr("k8s.io", "images tag " HOST "/lib/app:v1 " HOST "/lib/app:v9");
	ctr("k8s.io", "images tag " HOST "/lib/app:v1 " HOST "/lib/app:last");
	OK(until_tag(HOST "/lib/app", "last", second));
	OK(stats().events >= events + 2);
	EQ(store_tag_get(rig.store, HOST "/lib/app", "v9", &d, &size), 0);
	OK(digest_equal(&d, &third.id));

	/* Its garbage collection removes blobs. */
	the_blob = get_blob(rig.store, sha_key(3, MIB + 3));
	OK(blob_external(the_blob));
	ctr("other", "images rm --sync " HOST "/b:c");
	OK(until_blobs(6));
	OK(until(is_not_external));
	blob_unref(&the_blob);
	real_end();
}

static bool two_images(void)
{
	return stats().images == 2;
}

static void test_restarts(void)
{
	struct blob_key first, second;

	NEED_CONTAINERD();
	real_begin();
	start_containerd();
	rig_open(true, true);
	OK(until(is_connected));
	first = import_image("default", HOST "/a:1", 1);
	OK(until_tag(HOST "/a", "1", first));
	OK(until_blobs(3)); /* the index that was imported goes by itself */

	stop_containerd(SIGKILL);
	OK(until(is_not_connected));
	EQ(stats().blobs, 3); /* they are there all the same */
	start_containerd();
	OK(until(is_connected));
	second = import_image("default", HOST "/a:2", 2);
	OK(until_tag(HOST "/a", "2", second));
	EQ(stats().images, 2);

	/* containerd was reset while peerd did not watch: nothing of before is
	 * left. */
	stop_containerd(SIGTERM);
	OK(until(is_not_connected));
	run("rm -rf \"$D\"/root \"$D\"/state");
	start_containerd();
	OK(until(is_connected));
	OK(until_blobs(0));
	second = import_image("default", HOST "/b:1", 3);
	OK(until_tag(HOST "/b", "1", second));
	EQ(stats().images, 1);
	rig_close();

	/* All of it is also found at the start. */
	run("rm -rf \"$D\"/index \"$D\"/blobs");
	first = import_image("more", HOST "/c:1", 4);
	rig_open(true, true);
	OK(until_tag(HOST "/b", "1", second));
	OK(until_tag(HOST "/c", "1", first));
	OK(until(two_images));
	OK(until_blobs(6));
	real_end();
}

/* Its manifests cannot be read on this node: such a tag would be useless. */
static void test_without_content(void)
{
	struct digest d;
	uint64_t seen;

	NEED_CONTAINERD();
	real_begin();
	start_containerd();
	rig_open(false, true);
	OK(until(is_connected));
	(void)import_image("default", HOST "/a:1", 1);
	(void)import_image("default", HOST "/a:2", 2);
	OK(until(two_images));
	rig_close();
	rig_open(false, true);
	OK(until(two_images));
	EQ(store_tag_get(rig.store, HOST "/a", "1", &d, &seen), -ENOENT);
	EQ(stats().blobs, 0);
	real_end();
}

/* ---- Servers that are not containerd ---- */

static int log_fd = -1, warned;

/* Lines of the log, since the last call, about the socket. */
static int count_warnings(void)
{
	char buf[8192];
	ssize_t n = read(log_fd, buf, sizeof(buf) - 1);

	buf[n > 0 ? n : 0] = '\0';
	for (const char *p = buf;
	     (p = strstr(p, "cannot list containerd's images")); p++)
		warned++;
	return warned;
}

struct liar {
	int listener;
	const char *bytes;
	size_t len;
	bool hang;
	int accepted, served; /* atomic */
	pthread_t thread;
};

static void *lie(void *arg)
{
	struct liar *l = arg;
	char buf[4096];

	for (;;) {
		int fd = accept4(l->listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			return NULL;
		__atomic_fetch_add(&l->accepted, 1, __ATOMIC_SEQ_CST);
		(void)send(fd, l->bytes, l->len, MSG_NOSIGNAL);
		while (l->hang && read(fd, buf, sizeof(buf)) > 0)
			;
		(void)close(fd);
		__atomic_fetch_add(&l->served, 1, __ATOMIC_SEQ_CST);
	}
}

static void liar_start(struct liar *l)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	(void)snprintf(sa.sun_path, sizeof(sa.sun_path), "%.100s", sock);
	(void)unlink(sock);
	l->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->listener < 0 ||
	    bind(l->listener, (struct sockaddr *)&sa, sizeof(sa)) != 0 ||
	    listen(l->listener, 16) != 0 ||
	    pthread_create(&l->thread, NULL, lie, l) != 0)
		BAIL("liar");
}

static void liar_stop(struct liar *l)
{
	(void)shutdown(l->listener, SHUT_RDWR);
	(void)pthread_join(l->thread, NULL);
	(void)close(l->listener);
	(void)unlink(sock);
}

static struct liar *the_liar;

static bool liar_was_asked(void)
{
	return __atomic_load_n(&the_liar->served, __ATOMIC_SEQ_CST) >= 6;
}

static void test_garbage(void)
{
	static const char h1[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"
				 "Content-Type: application/grpc\r\n\r\nabc";
	/* SETTINGS; a HEADERS frame of stream 1 that says ":status 404". */
	static const char h2[] = "\0\0\0\4\0\0\0\0\0"
				 "\0\0\1\1\5\0\0\0\1\x8d";
	/* The same with ":status 200" and nothing else; then nonsense. */
	static const char no_type[] = "\0\0\0\4\0\0\0\0\0"
				      "\0\0\1\1\4\0\0\0\1\x88"
				      "\0\0\3\0\1\0\0\0\1abc"
				      "\xff\xff\xff\xff\xff\xff\xff\xff\xff";
	struct {
		const char *bytes;
		size_t len;
	} lies[] = {
		{"", 0},
		{"\r\n\r\nnonsense\0\xff\n", 14},
		{h1, sizeof(h1) - 1},
		{h2, sizeof(h2) - 1},
		{no_type, sizeof(no_type) - 1},
	};

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		struct liar l = {.bytes = lies[i].bytes, .len = lies[i].len};

		the_liar = &l;
		liar_start(&l);
		(void)count_warnings();
		warned = 0;
		rig_open(true, true);
		OK(until(liar_was_asked));
		OK(!stats().connected);
		OK(until(is_watching)); /* the other functions still work */
		rig_close();
		EQ(count_warnings(), 1);
		liar_stop(&l);
	}
}

static bool liar_has_one(void)
{
	return __atomic_load_n(&the_liar->accepted, __ATOMIC_SEQ_CST) >= 1;
}

/* The server accepts and stays silent; containerd_free() still ends. */
static void test_silence(void)
{
	struct liar l = {.bytes = "", .hang = true};

	begin();
	the_liar = &l;
	liar_start(&l);
	rig_open(false, true);
	OK(until(liar_has_one));
	OK(!stats().connected);
	rig_close();
	liar_stop(&l);
}

static bool was_warned(void)
{
	return count_warnings() > 0;
}

static void test_no_socket(void)
{
	begin();
	(void)unlink(sock);
	run(": >\"$SOCK\""); /* a file */
	(void)count_warnings();
	warned = 0;
	rig_open(true, true);
	OK(until(is_watching));
	OK(until(was_warned));
	OK(!stats().connected);
	rig_close();
	EQ(count_warnings(), 1);
	run("rm \"$SOCK\"");
}

static int open_log(void)
{
	char name[] = "/tmp/test-containerd-log-XXXXXX";
	int fd = mkostemp(name, O_CLOEXEC | O_APPEND);
	int rd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || rd < 0)
		BAIL("log");
	(void)unlink(name);
	if (!getenv("VERBOSE"))
		log_set_fd(fd);
	return rd;
}

static void kill_containerd(void)
{
	stop_containerd(SIGKILL);
}

int main(void)
{
	(void)signal(SIGPIPE, SIG_IGN);
	(void)alarm(1200);
	(void)atexit(kill_containerd);
	t_begin("containerd");
	/* Written with one descriptor, read with another. */
	log_init(LOG_WARN, LOG_FORMAT_TEXT, "test", "0");
	log_fd = open_log();
	(void)snprintf(content, sizeof(content), "%s/content", t_dir);
	(void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs/sha256", content);
	(void)snprintf(sock, sizeof(sock), "%s/c.sock", t_dir);
	(void)snprintf(containerd_log, sizeof(containerd_log), "%s/log", t_dir);
	(void)setenv("SOCK", sock, 1);
	RUN(test_watch);
	RUN(test_comes_and_goes);
	RUN(test_not_kept_twice);
	RUN(test_ends_a_wait);
	RUN(test_overflow);
	RUN(test_freed_while_busy);
	RUN(test_garbage);
	RUN(test_silence);
	RUN(test_no_socket);
	RUN(test_images);
	RUN(test_restarts);
	RUN(test_without_content);
	kill_containerd();
	return t_end();
}
