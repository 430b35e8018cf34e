/* Shared by the tests of registry/registry.h: a loop, a client, a store and a
 * registry, and calls that run the loop until the answer comes. */
#ifndef TESTS_REGISTRY_RIG_H
#define TESTS_REGISTRY_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "http/client.h"
#include "registry/registry.h"
#include "store/store.h"
#include "tests/unit/scratch.h"
#include "tests/unit/tap.h"

#define RIG_DEADLINE_MS 60000

struct reg_rig {
	char dir[256];
	struct loop *loop;
	struct http_client *client;
	struct store *store;
	struct registry *registry;
	struct registry_config cfg;
	int pending;   /* the loop stops at 0 */
	bool starting; /* inside a call that must not call back yet */
};

/* Sets up the log; call it first. VERBOSE=1 shows the log. */
static inline void rig_log(void)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	log_init(LOG_DEBUG, LOG_FORMAT_JSON, "test", "0");
	if (!getenv("VERBOSE"))
		log_set_fd(fd);
}

static inline void rig_make_dir(char *dir, size_t size)
{
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(dir, size, "%s/test-registry-XXXXXX",
		       tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		BAIL("mkdtemp");
}

static inline void rig_write_file(const char *dir, const char *name,
				  const char *text)
{
	char path[512];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	if (!f || fputs(text, f) < 0 || fclose(f) != 0)
		BAIL("cannot write a file");
}

/* Restarts the registry only; the store keeps its records. */
static inline void rig_restart_registry(struct reg_rig *g)
{
	struct error err;

	registry_free(&g->registry);
	OK(!g->registry);
	g->cfg.loop = g->loop;
	g->cfg.client = g->client;
	g->cfg.store = g->store;
	if (registry_new(&g->cfg, &g->registry, &err) < 0)
		BAIL(err.text);
}

/* g->cfg may have been set before; zeros get the defaults of the tests. */
static inline void rig_open(struct reg_rig *g)
{
	struct http_client_config hc = {.user_agent = "test/1"};
	struct store_config sc = {.commit_interval_ms = 1};
	char dir[300];
	struct error err;

	rig_make_dir(g->dir, sizeof(g->dir));
	(void)snprintf(dir, sizeof(dir), "%s/cache", g->dir);
	sc.dir = dir;
	if (store_open(&sc, &g->store, &err) < 0)
		BAIL(err.text);
	if (loop_new(&g->loop) < 0 ||
	    http_client_new(g->loop, &hc, &g->client) < 0)
		BAIL("no loop or client");
	if (!g->cfg.meta_timeout_ms)
		g->cfg.meta_timeout_ms = RIG_DEADLINE_MS;
	rig_restart_registry(g);
}

static inline void rig_close(struct reg_rig *g)
{
	registry_free(&g->registry);
	http_client_free(&g->client);
	loop_free(&g->loop);
	store_close(&g->store);
	remove_tree(g->dir);
}

static inline void rig_begin(struct reg_rig *g)
{
	g->pending++;
	g->starting = true;
}

static inline void rig_answered(struct reg_rig *g)
{
	OK(!g->starting);
	if (--g->pending == 0)
		loop_stop(g->loop);
}

static inline void rig_wait(struct reg_rig *g)
{
	g->starting = false;
	if (g->pending)
		loop_run(g->loop);
	EQ(g->pending, 0);
}

/* ---- Manifests ---- */

struct got_manifest {
	struct reg_rig *g;
	int calls, r;
	struct digest digest;
	char type[256];
	char *bytes;
	size_t len;
	bool parsed, stale;
	uint32_t entries;
};

static inline void on_manifest(void *arg, int r,
			       const struct manifest_result *res)
{
	struct got_manifest *m = arg;

	m->calls++;
	m->r = r;
	EQ(res != NULL, r == 0);
	if (res) {
		m->digest = res->digest;
		(void)snprintf(m->type, sizeof(m->type), "%s", res->media_type);
		free(m->bytes);
		m->bytes = malloc(res->len + 1);
		memcpy(m->bytes, res->bytes, res->len);
		m->bytes[res->len] = '\0';
		m->len = res->len;
		m->parsed = res->manifest != NULL;
		m->entries = res->manifest ? res->manifest->nentries : 0;
		m->stale = res->stale;
	}
	rig_answered(m->g);
}

static inline void start_manifest(struct reg_rig *g, const char *host,
				  const char *name, const char *reference,
				  struct got_manifest *m)
{
	m->g = g;
	rig_begin(g);
	registry_get_manifest(g->registry, host, name, reference, on_manifest,
			      m);
}

/* Returns r; m may be NULL. */
static inline int rig_manifest(struct reg_rig *g, const char *host,
			       const char *name, const char *reference,
			       struct got_manifest *m)
{
	struct got_manifest own = {0};
	struct got_manifest *p = m ? m : &own;

	free(p->bytes);
	*p = (struct got_manifest){0};
	start_manifest(g, host, name, reference, p);
	rig_wait(g);
	EQ(p->calls, 1);
	if (!m)
		free(own.bytes);
	return p->r;
}

/* ---- Tags ---- */

struct got_tags {
	struct reg_rig *g;
	int calls, r;
	bool stale;
	size_t n;
	char text[4096]; /* with blanks between */
};

static inline void on_tags(void *arg, int r, const struct string_list *tags,
			   bool stale)
{
	struct got_tags *t = arg;

	t->calls++;
	t->r = r;
	t->stale = stale;
	t->text[0] = '\0';
	EQ(tags != NULL, r == 0);
	t->n = tags ? tags->n : 0;
	for (size_t i = 0; i < t->n && i < 50; i++) {
		size_t len = strlen(t->text);

		(void)snprintf(t->text + len, sizeof(t->text) - len, "%s%s",
			       i ? " " : "", tags->v[i]);
	}
	rig_answered(t->g);
}

static inline int rig_tags(struct reg_rig *g, const char *host,
			   const char *name, struct got_tags *t)
{
	*t = (struct got_tags){.g = g};
	rig_begin(g);
	registry_list_tags(g->registry, host, name, on_tags, t);
	rig_wait(g);
	EQ(t->calls, 1);
	return t->r;
}

/* ---- Blobs ---- */

struct got_blob {
	struct reg_rig *g;
	int calls, r;
	struct blob *b;
};

static inline void on_blob(void *arg, int r, struct blob *b)
{
	struct got_blob *w = arg;

	w->calls++;
	w->r = r;
	w->b = b;
	EQ(b != NULL, r == 0);
	rig_answered(w->g);
}

/* The caller owns *ret, NULL on an error. */
static inline int rig_blob(struct reg_rig *g, const char *host,
			   const char *name, const struct digest *d,
			   struct blob **ret)
{
	struct got_blob w = {.g = g};

	rig_begin(g);
	registry_get_blob(g->registry, host, name, d, on_blob, &w);
	rig_wait(g);
	EQ(w.calls, 1);
	*ret = w.b;
	return w.r;
}

static inline int rig_url(struct reg_rig *g, const char *url, struct blob **ret)
{
	struct got_blob w = {.g = g};

	rig_begin(g);
	registry_get_url(g->registry, url, NULL, on_blob, &w);
	rig_wait(g);
	EQ(w.calls, 1);
	*ret = w.b;
	return w.r;
}

/* ---- Ranges ---- */

struct range {
	struct source_request rq;
	struct reg_rig *g;
	struct buf bytes;
	int dones, r;
	char why[1024];
	/* Called before the bytes are taken; may be NULL. */
	bool (*on_data)(struct range *w);
};

static inline bool range_on_data(struct source_request *rq, const void *bytes,
				 size_t len)
{
	struct range *w = container_of(rq, struct range, rq);

	EQ(w->dones, 0);
	OK(len > 0);
	EQ(rq->from, CHUNK_FROM_UPSTREAM);
	if (w->on_data && !w->on_data(w))
		return false;
	EQ(buf_add(&w->bytes, bytes, len), 0);
	OK(w->bytes.len <= rq->length);
	return true;
}

static inline void range_on_done(struct source_request *rq, int r,
				 const char *why)
{
	struct range *w = container_of(rq, struct range, rq);

	w->dones++;
	w->r = r;
	(void)snprintf(w->why, sizeof(w->why), "%s", why);
	rig_answered(w->g);
}

/* Returns the result of start(). */
static inline int range_start(struct reg_rig *g, struct blob *b, uint64_t off,
			      uint64_t len, struct range *w)
{
	struct source *s = registry_source(g->registry);
	bool (*on_data)(struct range *) = w->on_data;
	uint64_t deadline = w->rq.deadline_ms;
	const char *origin = w->rq.origin;
	struct source_auth *auth = w->rq.auth;
	int r;

	*w = (struct range){
		.g = g,
		.bytes = BUF_INIT(64 << 20),
		.on_data = on_data,
		.rq =
			{
				.blob = b,
				.offset = off,
				.length = len,
				.origin = origin,
				.auth = auth,
				.deadline_ms =
					deadline ? deadline
						 : now_ms() + RIG_DEADLINE_MS,
				.data = range_on_data,
				.done = range_on_done,
				.from = 77,
			},
	};
	rig_begin(g);
	r = s->ops->start(s, &w->rq);
	if (r < 0)
		g->pending--;
	return r;
}

/* Fetches a range and compares it with `content`, the whole blob's bytes (NULL:
 * no comparison). Returns done()'s r. */
static inline int rig_range(struct reg_rig *g, struct blob *b, uint64_t off,
			    uint64_t len, const void *content, struct range *w)
{
	struct range own = {0};
	struct range *p = w ? w : &own;
	int r = range_start(g, b, off, len, p);

	rig_wait(g);
	if (r < 0)
		return r;
	EQ(p->dones, 1);
	if (p->r == 0)
		EQ(p->bytes.len, len);
	if (content && p->bytes.len)
		OK(memcmp(p->bytes.data, (const char *)content + off,
			  p->bytes.len) == 0);
	buf_release(&p->bytes);
	return p->r;
}

#endif
