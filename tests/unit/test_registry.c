/* The registry client against Debian's docker-registry, open and with
 * htpasswd. */
#include <arpa/inet.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/registry-rig.h"

#define START_MS 60000

static const char user[] = "alice";
static const char password[] = "s3cret-pass:word";

/* ---- The real registry ---- */

struct real {
	char dir[256];
	char host[64]; /* "127.0.0.1:PORT" */
	uint16_t port;
	pid_t pid;
};

static bool have(const char *program)
{
	char cmd[128];

	(void)snprintf(cmd, sizeof(cmd), "command -v %s >/dev/null 2>&1",
		       program);
	return system(cmd) == 0;
}

static uint16_t free_port(void)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(sin);
	CLEANUP(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sin, &len) < 0)
		BAIL("no port");
	return ntohs(sin.sin_port);
}

static bool answers(uint16_t port)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(port),
	};
	CLEANUP(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return connect(fd, (struct sockaddr *)&sin, sizeof(sin)) == 0;
}

static pid_t spawn_registry(const char *config, int log)
{
	pid_t parent = getpid(), pid = fork();

	if (pid == 0) {
		(void)dup2(log, 1);
		(void)dup2(log, 2);
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			(void)execlp("docker-registry", "docker-registry",
				     "serve", config, (char *)NULL);
		_exit(127);
	}
	return pid;
}

/* False if it ended, for example because another process took the port. */
static bool wait_until_up(struct real *s)
{
	uint64_t end = now_ms() + START_MS;
	const struct timespec pause = {.tv_nsec = 20000000};

	while (now_ms() < end) {
		if (answers(s->port))
			return true;
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid)
			return false;
		(void)nanosleep(&pause, NULL);
	}
	BAIL("docker-registry does not answer");
}

static void real_run(struct real *s)
{
	CLEANUP(closep) int log = -1;
	char path[300];

	(void)snprintf(path, sizeof(path), "%s/log", s->dir);
	log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log < 0)
		BAIL("cannot write the registry's log");
	(void)snprintf(path, sizeof(path), "%s/config.yml", s->dir);
	s->pid = spawn_registry(path, log);
	if (s->pid < 0)
		BAIL("fork");
}

static void make_passwords(const char *dir)
{
	char cmd[512];

	(void)snprintf(cmd, sizeof(cmd), "htpasswd -Bbn %s %s >%s/htpasswd",
		       user, password, dir);
	if (system(cmd) != 0)
		BAIL("htpasswd failed");
}

static bool make_certificate(const char *dir)
{
	char cmd[1024];

	(void)snprintf(cmd, sizeof(cmd),
		       "openssl req -x509 -newkey ec -pkeyopt "
		       "ec_paramgen_curve:prime256v1 -nodes -keyout %s/key "
		       "-out %s/crt -days 2 -subj /CN=test -addext "
		       "subjectAltName=IP:127.0.0.1 2>/dev/null",
		       dir, dir);
	return system(cmd) == 0;
}

static void real_start(struct real *s, bool with_login, bool with_tls)
{
	char text[4096], auth[512] = "", tls[1024] = "";

	*s = (struct real){0};
	rig_make_dir(s->dir, sizeof(s->dir));
	if (with_login) {
		make_passwords(s->dir);
		(void)snprintf(auth, sizeof(auth),
			       "auth:\n  htpasswd:\n    realm: test\n"
			       "    path: %s/htpasswd\n",
			       s->dir);
	}
	if (with_tls) {
		if (!make_certificate(s->dir))
			BAIL("openssl failed");
		(void)snprintf(tls, sizeof(tls),
			       "  tls:\n    certificate: %s/crt\n"
			       "    key: %s/key\n",
			       s->dir, s->dir);
	}
	for (int i = 0; i < 10; i++) {
		s->port = free_port();
		(void)snprintf(s->host, sizeof(s->host), "127.0.0.1:%u",
			       s->port);
		(void)snprintf(text, sizeof(text),
			       "version: 0.1\n"
			       "log:\n  level: error\n"
			       "  accesslog:\n    disabled: true\n"
			       "storage:\n  filesystem:\n"
			       "    rootdirectory: %s/data\n"
			       "http:\n  addr: %s\n%s%s",
			       s->dir, s->host, tls, auth);
		rig_write_file(s->dir, "config.yml", text);
		real_run(s);
		if (wait_until_up(s))
			return;
	}
	BAIL("docker-registry does not start");
}

static void real_kill(struct real *s)
{
	if (s->pid > 0) {
		(void)kill(s->pid, SIGKILL);
		(void)waitpid(s->pid, NULL, 0);
	}
	s->pid = 0;
}

static void real_stop(struct real *s)
{
	real_kill(s);
	remove_tree(s->dir);
}

/* ---- Pushing, with the HTTP client itself ---- */

struct push {
	struct reg_rig *g;
	int r, status;
	char location[2048];
};

static int push_head(void *arg, struct http_exchange *x,
		     const struct http_response *res)
{
	struct push *p = arg;
	const char *v = http_header(x, "Location", 0);

	p->status = res->status;
	(void)snprintf(p->location, sizeof(p->location), "%s", v ? v : "");
	return 0;
}

static void push_done(void *arg, struct http_exchange *x, int r,
		      const char *why)
{
	struct push *p = arg;

	(void)x;
	(void)why;
	p->r = r;
	rig_answered(p->g);
}

static int push_send(struct reg_rig *g, const char *method, const char *url,
		     const char *type, const void *body, size_t len, bool login,
		     struct push *p)
{
	static const struct http_callbacks cb = {.head = push_head,
						 .done = push_done};
	/* alice:s3cret-pass:word */
	struct http_header h[2] = {
		{"Content-Type", type},
		{"Authorization", "Basic YWxpY2U6czNjcmV0LXBhc3M6d29yZA=="},
	};
	struct http_request rq = {
		.method = method,
		.url = url,
		.headers = h,
		.nheaders = login ? 2 : 1,
		.body = body,
		.body_len = len,
	};
	struct http_exchange *x;

	*p = (struct push){.g = g};
	rig_begin(g);
	EQ(http_start(g->client, &rq, &cb, p, &x), 0);
	rig_wait(g);
	EQ(p->r, 0);
	return p->status;
}

static void push_blob(struct reg_rig *g, const struct real *s, const char *name,
		      const void *data, size_t len, bool login,
		      struct digest *ret)
{
	char url[4096], digest[DIGEST_STR_SIZE];
	struct push p;

	digest_of(data, len, ret);
	(void)snprintf(url, sizeof(url), "http://%s/v2/%s/blobs/uploads/",
		       s->host, name);
	EQ(push_send(g, "POST", url, "application/octet-stream", "", 0, login,
		     &p),
	   202);
	(void)snprintf(url, sizeof(url), "%s&digest=%s", p.location,
		       digest_str(ret, digest));
	EQ(push_send(g, "PUT", url, "application/octet-stream", data, len,
		     login, &p),
	   201);
}

static void push_manifest(struct reg_rig *g, const struct real *s,
			  const char *name, const char *tag, const char *text,
			  bool login, struct digest *ret)
{
	char url[1024];
	struct push p;

	digest_of(text, strlen(text), ret);
	(void)snprintf(url, sizeof(url), "http://%s/v2/%s/manifests/%s",
		       s->host, name, tag);
	EQ(push_send(g, "PUT", url,
		     "application/vnd.oci.image.manifest.v1+json", text,
		     strlen(text), login, &p),
	   201);
}

/* ---- One image, used by all tests ---- */

#define BLOB_SIZE ((3 << 20) + 12345)

struct image {
	char *blob; /* BLOB_SIZE */
	struct digest blob_digest, config_digest, manifest_digest;
	char manifest[2048];
};

static void image_push(struct reg_rig *g, const struct real *s,
		       const char *name, const char *tag, bool login,
		       struct image *im)
{
	char d1[DIGEST_STR_SIZE], d2[DIGEST_STR_SIZE];
	uint32_t x = 12345;

	*im = (struct image){.blob = malloc(BLOB_SIZE)};
	for (size_t i = 0; i < BLOB_SIZE; i++) {
		x = x * 1664525 + 1013904223;
		im->blob[i] = (char)(x >> 24);
	}
	push_blob(g, s, name, im->blob, BLOB_SIZE, login, &im->blob_digest);
	push_blob(g, s, name, "{}", 2, login, &im->config_digest);
	(void)snprintf(
		im->manifest, sizeof(im->manifest),
		"{\"schemaVersion\":2,"
		"\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
		"\"config\":{\"mediaType\":"
		"\"application/vnd.oci.image.config.v1+json\","
		"\"digest\":\"%s\",\"size\":2},"
		"\"layers\":[{\"mediaType\":"
		"\"application/vnd.oci.image.layer.v1.tar\","
		"\"digest\":\"%s\",\"size\":%d}]}",
		digest_str(&im->config_digest, d1),
		digest_str(&im->blob_digest, d2), BLOB_SIZE);
	push_manifest(g, s, name, tag, im->manifest, login,
		      &im->manifest_digest);
}

static void check_manifest(const struct image *im, const struct got_manifest *m)
{
	OK(digest_equal(&m->digest, &im->manifest_digest));
	EQ(m->len, strlen(im->manifest));
	STREQ(m->bytes, im->manifest);
	STREQ(m->type, "application/vnd.oci.image.manifest.v1+json");
	OK(m->parsed);
	EQ(m->entries, 1);
}

static void check_unknown(struct reg_rig *g, const char *host)
{
	struct digest none = {{1, 2, 3}};
	char digest[DIGEST_STR_SIZE];
	struct got_tags t;
	struct blob *b;

	EQ(rig_manifest(g, host, "a/b", "no-such-tag", NULL), -ENOENT);
	EQ(rig_manifest(g, host, "no/such", "v1", NULL), -ENOENT);
	EQ(rig_manifest(g, host, "a/b", digest_str(&none, digest), NULL),
	   -ENOENT);
	EQ(rig_tags(g, host, "no/such", &t), -ENOENT);
	EQ(rig_blob(g, host, "a/b", &none, &b), -ENOENT);
	/* Names that cannot exist are not even asked for. */
	EQ(rig_manifest(g, host, "a/../b", "v1", NULL), -ENOENT);
	EQ(rig_manifest(g, host, "a/b", "v1/x", NULL), -ENOENT);
	EQ(rig_manifest(g, host, "a/b", "sha256:00", NULL), -ENOENT);
	EQ(rig_manifest(g, "ho st", "a/b", "v1", NULL), -ENOENT);
	EQ(rig_tags(g, "..", "a/b", &t), -ENOENT);
	EQ(rig_blob(g, host, "a%2fb", &none, &b), -ENOENT);
}

static void check_blob(struct reg_rig *g, const char *host,
		       const struct image *im)
{
	struct string_list origins = {0};
	char want[128];
	struct blob *b;

	EQ(rig_blob(g, host, "a/b", &im->blob_digest, &b), 0);
	if (!b)
		return;
	EQ(blob_size(b), BLOB_SIZE);
	EQ(blob_origins(b, &origins), 0);
	EQ(origins.n, 1);
	(void)snprintf(want, sizeof(want), "registry://%s/a/b", host);
	STREQ(origins.v[0], want);
	string_list_release(&origins);
	EQ(rig_range(g, b, 0, 1, im->blob, NULL), 0);
	EQ(rig_range(g, b, 0, BLOB_SIZE, im->blob, NULL), 0);
	EQ(rig_range(g, b, 1 << 20, 1 << 20, im->blob, NULL), 0);
	EQ(rig_range(g, b, BLOB_SIZE - 1, 1, im->blob, NULL), 0);
	blob_unref(&b);
}

static void test_open(void)
{
	struct reg_rig g = {.cfg = {.tag_fresh_ms = 0, .negative_ms = 5000}};
	struct got_manifest m = {0};
	char digest[DIGEST_STR_SIZE];
	struct got_tags t;
	struct image im;
	struct real s;

	if (!have("docker-registry"))
		SKIP("docker-registry is not installed");
	real_start(&s, false, false);
	rig_open(&g);
	image_push(&g, &s, "a/b", "v1", false, &im);
	/* Before a manifest told its size: by HEAD. */
	check_blob(&g, s.host, &im);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", &m), 0);
	OK(!m.stale);
	check_manifest(&im, &m);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", &m), 0);
	check_manifest(&im, &m);
	EQ(rig_manifest(&g, s.host, "a/b",
			digest_str(&im.manifest_digest, digest), &m),
	   0);
	check_manifest(&im, &m);
	EQ(rig_tags(&g, s.host, "a/b", &t), 0);
	STREQ(t.text, "v1");
	OK(!t.stale);
	check_unknown(&g, s.host);
	free(m.bytes);
	free(im.blob);
	rig_close(&g);
	real_stop(&s);
}

/* A moved tag is detected; a removed tag is gone on this node too. */
static void test_tag_moves(void)
{
	struct reg_rig g = {.cfg = {.tag_fresh_ms = 0}};
	struct got_manifest m = {0};
	struct digest second;
	struct got_tags t;
	struct image im;
	struct real s;
	char text[2048 + 8];

	if (!have("docker-registry"))
		SKIP("docker-registry is not installed");
	real_start(&s, false, false);
	rig_open(&g);
	image_push(&g, &s, "a/b", "v1", false, &im);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", &m), 0);
	check_manifest(&im, &m);
	(void)snprintf(text, sizeof(text), "%s\n", im.manifest);
	push_manifest(&g, &s, "a/b", "v1", text, false, &second);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", &m), 0);
	OK(digest_equal(&m.digest, &second));
	STREQ(m.bytes, text);
	for (int i = 9; i >= 0; i--) {
		char tag[16];

		(void)snprintf(tag, sizeof(tag), "t%d", i);
		push_manifest(&g, &s, "a/b", tag, text, false, &second);
	}
	EQ(rig_tags(&g, s.host, "a/b", &t), 0);
	STREQ(t.text, "t0 t1 t2 t3 t4 t5 t6 t7 t8 t9 v1");
	free(m.bytes);
	free(im.blob);
	rig_close(&g);
	real_stop(&s);
}

static void test_unreachable(void)
{
	struct reg_rig g = {.cfg = {.tag_fresh_ms = 0}};
	struct got_manifest m = {0};
	char digest[DIGEST_STR_SIZE];
	struct got_tags t;
	struct range w = {0};
	struct image im;
	struct real s;
	struct blob *b;

	if (!have("docker-registry"))
		SKIP("docker-registry is not installed");
	real_start(&s, false, false);
	rig_open(&g);
	image_push(&g, &s, "a/b", "v1", false, &im);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", NULL), 0);
	real_kill(&s);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", &m), 0);
	OK(m.stale);
	check_manifest(&im, &m);
	EQ(rig_manifest(&g, s.host, "a/b", "unseen", NULL), -EHOSTUNREACH);
	EQ(rig_manifest(&g, s.host, "a/b",
			digest_str(&im.manifest_digest, digest), &m),
	   0);
	OK(!m.stale);
	EQ(rig_tags(&g, s.host, "a/b", &t), 0);
	OK(t.stale);
	STREQ(t.text, "v1");
	EQ(rig_tags(&g, s.host, "x/y", &t), -EHOSTUNREACH);
	/* The size is known from the manifest. */
	EQ(rig_blob(&g, s.host, "a/b", &im.blob_digest, &b), 0);
	EQ(blob_size(b), BLOB_SIZE);
	EQ(rig_range(&g, b, 0, 100, NULL, &w), -ECONNREFUSED);
	OK(strstr(w.why, s.host) != NULL);
	/* It comes back. */
	real_run(&s);
	OK(wait_until_up(&s));
	EQ(rig_range(&g, b, 0, 100, im.blob, NULL), 0);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", &m), 0);
	OK(!m.stale);
	blob_unref(&b);
	free(m.bytes);
	free(im.blob);
	rig_close(&g);
	real_stop(&s);
}

/* A tag that was seen lately is served without a request. */
static void test_fresh(void)
{
	struct reg_rig g = {.cfg = {.tag_fresh_ms = 3600000}};
	struct got_manifest m = {0};
	struct image im;
	struct real s;

	if (!have("docker-registry"))
		SKIP("docker-registry is not installed");
	real_start(&s, false, false);
	rig_open(&g);
	image_push(&g, &s, "a/b", "v1", false, &im);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", NULL), 0);
	real_kill(&s);
	rig_restart_registry(&g);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", &m), 0);
	OK(!m.stale);
	check_manifest(&im, &m);
	free(m.bytes);
	free(im.blob);
	rig_close(&g);
	real_stop(&s);
}

static void write_creds(const struct reg_rig *g, const char *host,
			const char *auth)
{
	char text[512];

	(void)snprintf(text, sizeof(text),
		       "{\"auths\":{\"%s\":{\"auth\":\"%s\"}}}", host, auth);
	rig_write_file(g->dir, "docker.json", text);
}

static void test_login(void)
{
	struct reg_rig g = {.cfg = {.negative_ms = 100000}};
	struct got_manifest m = {0};
	char path[300];
	struct got_tags t;
	struct image im;
	struct real s;
	struct blob *b;

	if (!have("docker-registry") || !have("htpasswd"))
		SKIP("docker-registry or htpasswd is not installed");
	real_start(&s, true, false);
	rig_open(&g);
	image_push(&g, &s, "a/b", "v1", true, &im);
	/* Without credentials. */
	EQ(rig_manifest(&g, s.host, "a/b", "v1", NULL), -EACCES);
	EQ(rig_tags(&g, s.host, "a/b", &t), -EACCES);
	EQ(rig_blob(&g, s.host, "a/b", &im.blob_digest, &b), -EACCES);
	/* With wrong ones. */
	write_creds(&g, s.host, "YWxpY2U6d3Jvbmc=");
	(void)snprintf(path, sizeof(path), "%s/docker.json", g.dir);
	g.cfg.docker_config = path;
	rig_restart_registry(&g);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", NULL), -EACCES);
	EQ(rig_blob(&g, s.host, "a/b", &im.blob_digest, &b), -EACCES);
	/* With the right ones. */
	write_creds(&g, s.host, "YWxpY2U6czNjcmV0LXBhc3M6d29yZA==");
	rig_restart_registry(&g);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", &m), 0);
	check_manifest(&im, &m);
	EQ(rig_tags(&g, s.host, "a/b", &t), 0);
	STREQ(t.text, "v1");
	check_blob(&g, s.host, &im);
	check_unknown(&g, s.host);
	free(m.bytes);
	free(im.blob);
	rig_close(&g);
	real_stop(&s);
}

/* Credentials that are corrected while peerd runs count at once, although the
 * refusal was remembered. */
static void test_login_fixed(void)
{
	struct reg_rig g = {.cfg = {.negative_ms = 3600000}};
	struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	const struct timespec pause = {.tv_nsec = 50000000};
	uint64_t end = now_ms() + RIG_DEADLINE_MS;
	struct image im;
	char path[300];
	struct real s;
	int r;

	if (!have("docker-registry") || !have("htpasswd"))
		SKIP("docker-registry or htpasswd is not installed");
	real_start(&s, true, false);
	rig_open(&g);
	image_push(&g, &s, "a/b", "v1", true, &im);
	write_creds(&g, s.host, "YWxpY2U6d3Jvbmc=");
	(void)snprintf(path, sizeof(path), "%s/docker.json", g.dir);
	EQ(utimensat(AT_FDCWD, path, times, 0), 0);
	g.cfg.docker_config = path;
	rig_restart_registry(&g);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", NULL), -EACCES);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", NULL), -EACCES);
	write_creds(&g, s.host, "YWxpY2U6czNjcmV0LXBhc3M6d29yZA==");
	/* The file is checked once a second. */
	do {
		(void)nanosleep(&pause, NULL);
		r = rig_manifest(&g, s.host, "a/b", "v1", NULL);
	} while (r == -EACCES && now_ms() < end);
	EQ(r, 0);
	free(im.blob);
	rig_close(&g);
	real_stop(&s);
}

static void test_empty_blob(void)
{
	struct reg_rig g = {0};
	struct digest d;
	struct real s;
	struct blob *b;

	if (!have("docker-registry"))
		SKIP("docker-registry is not installed");
	real_start(&s, false, false);
	rig_open(&g);
	push_blob(&g, &s, "a/b", "", 0, false, &d);
	EQ(rig_blob(&g, s.host, "a/b", &d, &b), 0);
	EQ(blob_size(b), 0);
	EQ(blob_chunks(b), 0);
	EQ(blob_get_state(b), BLOB_VERIFIED);
	blob_unref(&b);
	rig_close(&g);
	real_stop(&s);
}

static void test_unknown_host(void)
{
	struct reg_rig g = {0};
	struct got_tags t;
	int r;

	rig_open(&g);
	/* RFC 2606: never a host. The result is unknown if the resolver itself
	 * is unreachable. */
	r = rig_manifest(&g, "no-such-host.invalid", "a/b", "v1", NULL);
	if (r != -EHOSTUNREACH)
		EQ(r, -ENOENT);
	r = rig_tags(&g, "no-such-host.invalid", "a/b", &t);
	if (r != -EHOSTUNREACH)
		EQ(r, -ENOENT);
	rig_close(&g);
}

static void copy_ca(const struct real *s, const struct reg_rig *g)
{
	char cmd[1024];

	(void)snprintf(cmd, sizeof(cmd),
		       "mkdir -p %s/certs/%s && cp %s/crt %s/certs/%s/ca.crt",
		       g->dir, s->host, s->dir, g->dir, s->host);
	if (system(cmd) != 0)
		BAIL("cannot copy the certificate");
}

/* A registry on loopback with its own CA is used with TLS. */
static void test_tls(void)
{
	struct reg_rig g = {0};
	struct real s, other;
	char certs[300];

	if (!have("docker-registry") || !have("openssl"))
		SKIP("docker-registry or openssl is not installed");
	real_start(&s, false, true);
	rig_open(&g);
	/* It answers 400 to plain HTTP. */
	EQ(rig_manifest(&g, s.host, "a/b", "v1", NULL), -EBADMSG);
	(void)snprintf(certs, sizeof(certs), "%s/certs", g.dir);
	g.cfg.certs_dir = certs;
	/* Another's CA. */
	real_start(&other, false, true);
	(void)snprintf(other.host, sizeof(other.host), "%s", s.host);
	copy_ca(&other, &g);
	rig_restart_registry(&g);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", NULL), -EHOSTUNREACH);
	copy_ca(&s, &g);
	rig_restart_registry(&g);
	EQ(rig_manifest(&g, s.host, "a/b", "v1", NULL), -ENOENT);
	rig_close(&g);
	real_stop(&s);
	real_stop(&other);
}

static void test_config_file(void)
{
	struct reg_rig g = {0};

	/* Missing or bad files are warnings. */
	g.cfg.docker_config = "/nonexistent/config.json";
	rig_open(&g);
	rig_close(&g);
	g.cfg.docker_config = "/proc/self/cmdline";
	rig_open(&g);
	rig_close(&g);
}

int main(void)
{
	rig_log();
	RUN(test_open);
	RUN(test_tag_moves);
	RUN(test_unreachable);
	RUN(test_fresh);
	RUN(test_login);
	RUN(test_login_fixed);
	RUN(test_empty_blob);
	RUN(test_tls);
	RUN(test_unknown_host);
	RUN(test_config_file);
	return tap_done();
}
