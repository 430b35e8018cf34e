/* Asks members for manifests and sizes of blobs when upstream cannot be
 * reached, and answers such requests. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/manifest.h"
#include "base/ref.h"
#include "http/small.h"
#include "http/url.h"
#include "p2p/peers-private.h"

/* Members asked at once, and for one question. */
#define META_PARALLEL	4
#define META_MAX_ASKED	256
#define META_TIMEOUT_MS 2000

/* A question to several members; the first good answer ends it. */
struct meta_question {
	struct list node; /* in peers.metas */
	struct peers *p;
	char *path;
	struct blob_key key; /* of the blob whose size is wanted */
	bool size;
	peer_manifest_cb *on_manifest;
	peer_size_cb *on_size;
	void *arg;
	bool looking; /* homes are being asked */
	bool over;
	struct loop_task later;
	int end_r;
	/* Members to ask, holders first; references. */
	struct partner *who[META_MAX_ASKED];
	unsigned int n, next, open;
	/* The answer. */
	struct buf body;
	char *type;
	uint64_t found_size;
};

struct meta_ask {
	struct http_small http;
	struct meta_question *m;
	struct partner *w; /* a reference */
};

static void meta_free(struct meta_question *m)
{
	list_del(&m->node);
	for (unsigned int i = 0; i < m->n; i++)
		partner_unref(&m->who[i]);
	buf_release(&m->body);
	free(m->type);
	free(m->path);
	free(m);
}

/* Calls back, once. Frees m when nothing is open any more. */
static void meta_end(struct meta_question *m, int r)
{
	if (!m->over) {
		m->over = true;
		if (m->size && m->on_size)
			m->on_size(m->arg, r, m->found_size);
		else if (m->on_manifest)
			m->on_manifest(m->arg, r, m->type, m->body.data,
				       m->body.len);
	}
	if (m->open == 0 && !m->looking)
		meta_free(m);
}

static void meta_go(struct meta_question *m);

static void on_done(struct http_small *s, struct http_answer *ans)
{
	struct meta_ask *a = container_of(s, struct meta_ask, http);
	struct meta_question *m = a->m;
	const char *type = http_header(ans->x, "Content-Type", 0);
	bool good = ans->r == 0 && ans->status == 200 && !m->over;

	m->open--;
	if (ans->r < 0 && !m->over && a->w->mb)
		members_note(m->p->members, a->w->mb, false, ans->why);
	if (good && m->size) {
		good = ans->content_length >= 0 &&
		       (uint64_t)ans->content_length <= BLOB_MAX_SIZE;
		m->found_size = good ? (uint64_t)ans->content_length : 0;
	} else if (good) {
		good = ans->body.len > 0;
		m->type = strdup(type ? type : "");
		good = good && m->type;
		if (good) {
			m->body = ans->body;
			ans->body = BUF_INIT(0);
		}
	}
	partner_unref(&a->w);
	free(a);
	if (good)
		meta_end(m, 0);
	else
		meta_go(m);
}

static int meta_send(struct meta_question *m, struct partner *w)
{
	CLEANUP(buf_release) struct buf url = BUF_INIT(8192);
	struct meta_ask *a = calloc(1, sizeof(*a));
	struct http_request rq = {0};
	struct http_header h[3];
	char key[BLOB_TEXT_SIZE];
	int r;

	if (!a)
		return -ENOMEM;
	r = members_request(m->p->members, w->mb, m->path, &rq, &url);
	if (r < 0) {
		free(a);
		return r;
	}
	a->m = m;
	h[rq.nheaders++] = (struct http_header){"Peerd-Hop", "1"};
	h[rq.nheaders++] =
		(struct http_header){"Peerd-From", m->p->cfg.members.id};
	if (m->size) {
		(void)blob_text(&m->key, 0, key);
		h[rq.nheaders++] = (struct http_header){"Peerd-Blob", key};
		rq.method = "HEAD";
	}
	rq.headers = h;
	rq.first_byte_timeout_ms = META_TIMEOUT_MS;
	rq.total_timeout_ms = (uint64_t)META_TIMEOUT_MS * 2;
	r = http_small_start(&a->http, m->p->cfg.client, &rq,
			     MANIFEST_MAX_BYTES, false, on_done);
	if (r < 0) {
		free(a);
		return r;
	}
	a->w = partner_ref(w);
	m->open++;
	return 0;
}

/* Asks the next members, or ends without an answer. */
static void meta_go(struct meta_question *m)
{
	while (!m->over && m->open < META_PARALLEL && m->next < m->n) {
		struct partner *w = m->who[m->next++];

		if (partner_alive(w))
			(void)meta_send(m, w);
	}
	if (m->over || m->open == 0)
		meta_end(m, -ENOENT);
}

static void add_who(struct meta_question *m, struct partner *w)
{
	for (unsigned int i = 0; i < m->n; i++)
		if (m->who[i] == w)
			return;
	if (w && m->n < META_MAX_ASKED)
		m->who[m->n++] = partner_ref(w);
}

static void add_member(void *arg, struct member *mb)
{
	struct meta_question *m = arg;

	if (mb->state == MEMBER_ALIVE)
		add_who(m, partner_of(m->p, mb));
}

static void looked(void *arg, int r, uint64_t size, struct member *const *v,
		   unsigned int n)
{
	struct meta_question *m = arg;

	(void)size;
	m->looking = false;
	if (r == -ECANCELED || m->over) {
		meta_end(m, -ECANCELED);
		return;
	}
	for (unsigned int i = 0; i < n; i++)
		add_who(m, partner_of(m->p, v[i]));
	members_each(m->p->members, add_member, m);
	meta_go(m);
}

static struct peers *of(struct other_nodes *c)
{
	return container_of(c, struct peers, for_registry);
}

static void end_later(struct loop_task *t)
{
	struct meta_question *m = container_of(t, struct meta_question, later);

	m->looking = false;
	meta_end(m, m->end_r);
}

static void meta_start(struct peers *p, struct meta_question *m,
		       const struct holder_key *key)
{
	m->p = p;
	m->body = BUF_INIT(MANIFEST_MAX_BYTES);
	m->looking = true;
	list_add_tail(&p->metas, &m->node);
	m->later.run = end_later;
	m->end_r = -ENOENT;
	if (members_alive(p->members) > 0 && m->path)
		m->end_r = holders_find(p->holders, key, looked, m);
	if (m->end_r < 0)
		loop_post(p->cfg.loop, &m->later);
}

static void tag_key(const char *host, const char *name, const char *tag,
		    struct holder_key *ret)
{
	CLEANUP(freep) char *text = NULL;

	ret->kind = HOLDER_TAG;
	memset(&ret->id, 0, sizeof(ret->id));
	if (asprintf(&text, "%s/%s:%s", host, name, tag) < 0) {
		text = NULL;
		return;
	}
	digest_of(text, strlen(text), &ret->id);
}

static void get_manifest(struct other_nodes *c, const char *host,
			 const char *name, const char *reference,
			 peer_manifest_cb *cb, void *arg)
{
	struct meta_question *m = calloc(1, sizeof(*m));
	struct holder_key key = {.kind = HOLDER_SHA256};

	if (!m) {
		cb(arg, -ENOMEM, NULL, NULL, 0);
		return;
	}
	m->on_manifest = cb;
	m->arg = arg;
	if (asprintf(&m->path, "/v2/%s/manifests/%s?ns=%s", name, reference,
		     host) < 0)
		m->path = NULL;
	if (digest_parse(reference, &key.id) < 0)
		tag_key(host, name, reference, &key);
	meta_start(of(c), m, &key);
}

static void get_size(struct other_nodes *c, const char *host, const char *name,
		     const struct digest *d, peer_size_cb *cb, void *arg)
{
	struct meta_question *m = calloc(1, sizeof(*m));
	struct holder_key key = {.kind = HOLDER_SHA256, .id = *d};
	char s[DIGEST_STR_SIZE];

	if (!m) {
		cb(arg, -ENOMEM, 0);
		return;
	}
	m->size = true;
	m->on_size = cb;
	m->arg = arg;
	m->key = (struct blob_key){.kind = BLOB_SHA256, .id = *d};
	if (asprintf(&m->path, "/v2/%s/blobs/%s?ns=%s", name, digest_str(d, s),
		     host) < 0)
		m->path = NULL;
	meta_start(of(c), m, &key);
}

static void cancel(struct other_nodes *c, void *arg)
{
	list_for_each (n, &of(c)->metas) {
		struct meta_question *m =
			list_entry(n, struct meta_question, node);

		if (m->arg == arg && !m->over) {
			m->on_manifest = NULL;
			m->on_size = NULL;
			m->over = true; /* the last open request frees it */
		}
	}
}

static void noted(struct other_nodes *c, const char *host, const char *name,
		  const char *tag, const struct digest *d)
{
	struct holder_key key = {.kind = HOLDER_SHA256, .id = *d};

	holders_announce(of(c)->holders, &key, 0);
	if (tag) {
		tag_key(host, name, tag, &key);
		holders_announce(of(c)->holders, &key, 0);
	}
}

/* ---- Answering ---- */

struct reply {
	struct loop_job job;
	struct peers *p;
	struct http_req *rq; /* NULL: the client is gone */
	char *repo, *reference;
	int r;
	struct digest digest;
	char *type;
	void *bytes;
	size_t len;
};

static void reply_gone(struct http_req *rq)
{
	struct reply *y = http_req_data(rq);

	y->rq = NULL;
	http_release(rq);
}

static void reply_work(struct loop_job *j)
{
	struct reply *y = container_of(j, struct reply, job);
	struct store *s = y->p->cfg.store;
	uint64_t seen;

	y->r = digest_parse(y->reference, &y->digest);
	if (y->r < 0)
		y->r = store_tag_get(s, y->repo, y->reference, &y->digest,
				     &seen);
	if (y->r == 0)
		y->r = store_manifest_get(s, &y->digest, &y->type, &y->bytes,
					  &y->len);
}

static void reply_done(struct loop_job *j)
{
	struct reply *y = container_of(j, struct reply, job);
	char d[DIGEST_STR_SIZE];

	peers_job_ended(y->p);
	if (y->rq) {
		http_req_on_gone(y->rq, NULL);
		if (y->r < 0) {
			http_reply_error(y->rq, 404, "MANIFEST_UNKNOWN",
					 "this node does not have it");
		} else {
			http_header_add(y->rq, "Docker-Content-Digest", "%s",
					digest_str(&y->digest, d));
			http_reply(y->rq, 200,
				   *y->type ? y->type : "application/json",
				   y->bytes, y->len);
		}
	}
	free(y->repo);
	free(y->reference);
	free(y->type);
	free(y->bytes);
	free(y);
}

void meta_handle(struct peers *p, struct http_req *rq, const char *host,
		 const char *name, const char *reference)
{
	CLEANUP(freep) char *ref = strdup(reference);
	struct reply *y = calloc(1, sizeof(*y));
	struct digest d;

	if (!y || !ref || !url_decode(ref) ||
	    (digest_parse(ref, &d) < 0 && !ref_tag_valid(ref))) {
		free(y);
		http_reply_error(rq, 400, "MANIFEST_INVALID",
				 "neither a tag nor a sha256 digest");
		return;
	}
	y->p = p;
	y->rq = rq;
	y->reference = steal_ptr(&ref);
	if (asprintf(&y->repo, "%s/%s", ref_host_canonical(host), name) < 0) {
		free(y->reference);
		free(y);
		http_reply_error(rq, 503, "UNAVAILABLE", "out of memory");
		return;
	}
	http_req_set_data(rq, y);
	http_req_on_gone(rq, reply_gone);
	p->jobs++;
	loop_work(p->cfg.loop, &y->job, reply_work, reply_done);
}

void meta_init(struct peers *p)
{
	static const struct other_nodes_ops ops = {
		.get_manifest = get_manifest,
		.get_size = get_size,
		.cancel = cancel,
		.noted = noted,
	};

	list_init(&p->metas);
	p->for_registry.ops = &ops;
}

/* Open requests end with the client and the holders, and then free their
 * questions. */
void meta_free_all(struct peers *p)
{
	while (!list_empty(&p->metas)) {
		struct meta_question *m =
			list_first(&p->metas, struct meta_question, node);

		list_del(&m->node);
		m->over = true;
	}
}
