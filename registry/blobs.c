/* Blobs of repositories, made ready for reading. */
#include <string.h>

#include "base/log.h"
#include "registry/registry-private.h"

struct blob_query {
	struct query f;
	struct store *store;
	uint64_t negative_ms;
	struct blob_key key;
	uint64_t size; /* the size that upstream or a member gave */
	bool peers_tried;
	bool from_peers; /* it was a member */
	char *origin;	 /* "registry://HOST/NAME" */
	int r;		 /* result of the job */
	struct blob *blob;
};

void blob_revive(struct store *s, uint64_t negative_ms, struct blob *b,
		 const char *origin)
{
	CLEANUP(string_list_release) struct string_list known = {0};
	bool tried = false;

	if (blob_get_state(b) != BLOB_BAD || blob_origins(b, &known) < 0)
		return;
	for (size_t i = 0; i < known.n; i++)
		tried |= strcmp(known.v[i], origin) == 0;
	if (!tried || blob_bad_ms(b) >= negative_ms)
		(void)store_evict(s, b);
}

static struct blob_query *of(struct query *f)
{
	return container_of(f, struct blob_query, f);
}

static void blob_release(struct query *f)
{
	blob_unref(&of(f)->blob);
	free(of(f)->origin);
}

static void blob_answer(struct query *f, int r, void (*cb)(void), void *arg)
{
	((blob_cb *)cb)(arg, r, r == 0 ? blob_ref(of(f)->blob) : NULL);
}

static void add_origin(struct blob_query *bf)
{
	if (blob_add_origin(bf->store, bf->blob, bf->origin) < 0)
		log_warn("cannot note a blob's origin",
			 LS("origin", bf->origin));
}

/* The repository's own manifest gives the size. Without one, unchecked bytes
 * from the same registry do. */
static void look_up(struct store_job *j)
{
	struct blob_query *bf = of(container_of(j, struct query, job));
	uint64_t size = 0;

	bf->r = -ENOENT;
	if (store_repo_has(bf->store, bf->f.repo, false, &bf->key.id, &size) ==
	    0)
		bf->r = store_create(bf->store, &bf->key, size, &bf->blob);
	/* An impossible size counts as none. */
	if (bf->r == -ENOENT || bf->r == -EBADMSG || bf->r == -EFBIG)
		bf->r = store_get(bf->store, &bf->key, &bf->blob);
	if (bf->r == 0)
		blob_revive(bf->store, bf->negative_ms, bf->blob, bf->origin);
}

static void create(struct store_job *j)
{
	struct blob_query *bf = of(container_of(j, struct query, job));

	bf->r = store_create(bf->store, &bf->key, bf->size, &bf->blob);
	/* A member's word is none of the repository's. */
	if (bf->r == 0 && !bf->from_peers)
		(void)store_repo_add(bf->store, bf->f.repo, false, &bf->key.id,
				     bf->size);
	if (bf->r == 0)
		blob_revive(bf->store, bf->negative_ms, bf->blob, bf->origin);
}

static void ready(struct query *f)
{
	struct blob_query *bf = of(f);

	if (bf->r == 0)
		add_origin(bf);
	query_finish(f, bf->r);
}

/* The size is a member's word; the digest will decide. */
static void peers_answered(void *arg, int r, uint64_t size)
{
	struct query *f = arg;

	f->asked_peers = false;
	if (r < 0) {
		if (!f->probe)
			query_finish(f, -EHOSTUNREACH);
		return;
	}
	probe_abandon(&f->probe);
	of(f)->size = size;
	of(f)->from_peers = true;
	query_job(f, create, ready);
}

static void ask_peers(struct query *f)
{
	struct other_nodes *p = f->r->peers;

	f->asked_peers = of(f)->peers_tried = true;
	p->ops->get_size(p, f->host, f->name, &of(f)->key.id, peers_answered,
			 f);
}

static void blob_impatient(struct query *f, bool late)
{
	(void)late;
	if (f->probe && f->r->peers && !of(f)->peers_tried)
		ask_peers(f);
}

static void probed(void *arg, int r, const struct probe_result *res,
		   bool unreachable, const char *why)
{
	struct query *f = arg;

	query_why(f, why);
	f->probe = NULL;
	if (unreachable) {
		query_host_failed(f);
		if (f->asked_peers)
			return;
		if (f->r->peers && !of(f)->peers_tried) {
			ask_peers(f);
			return;
		}
	} else {
		query_host_answered(f);
	}
	if (r == 0 && res->size > BLOB_MAX_SIZE)
		r = -EBADMSG;
	if (r < 0) {
		query_finish(f, r);
		return;
	}
	of(f)->size = res->size;
	query_job(f, create, ready);
}

static void ask_size(struct query *f)
{
	CLEANUP(login_unref) struct login *s = NULL;
	CLEANUP(freep) char *url = NULL;
	char digest[DIGEST_STR_SIZE];
	int r;

	r = login_url(f->r, f->host, f->name, &s, &url, "%s/blobs/%s", f->name,
		      digest_str(&of(f)->key.id, digest));
	if (r == 0)
		r = probe_start(f->r,
				&(struct probe_spec){.url = url, .login = s},
				probed, f, &f->probe);
	if (r < 0)
		query_finish(f, r);
}

static void looked_up(struct query *f)
{
	struct blob_query *bf = of(f);

	if (bf->r == -ENOENT) {
		query_wait(f);
		ask_size(f);
	} else {
		ready(f);
	}
}

static void blob_begin(struct query *f)
{
	query_job(f, look_up, looked_up);
}

static const struct query_ops blob_ops = {
	.size = sizeof(struct blob_query),
	.begin = blob_begin,
	.answer = blob_answer,
	.release = blob_release,
	.impatient = blob_impatient,
};

void registry_get_blob(struct registry *r, const char *host, const char *name,
		       const struct digest *d, blob_cb *cb, void *arg)
{
	char hex[DIGEST_HEX_SIZE];
	struct query *f;
	bool is_new;
	char *key;
	int e;

	if (asprintf(&key, "blob %s %s %s", host, name, digest_hex(d, hex)) < 0)
		key = NULL;
	f = query_join(r, &blob_ops, key, (void (*)(void))cb, arg, &is_new);
	if (!f || !is_new)
		return;
	of(f)->store = r->store;
	of(f)->negative_ms = r->negative_ms;
	of(f)->key = (struct blob_key){.kind = BLOB_SHA256, .id = *d};
	e = query_set_repo(f, host, name);
	if (e == 0 && asprintf(&of(f)->origin, "registry://%s", f->repo) < 0) {
		of(f)->origin = NULL;
		e = -ENOMEM;
	}
	if (e == 0)
		blob_key_claim(&of(f)->key, of(f)->origin, 0);
	else
		query_abort(f, e);
}
