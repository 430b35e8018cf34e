/* Lists the names of containerd's images over its socket. A stream of events
 * says only that an image of a namespace changed; peerd then lists the
 * namespace. containerd does not report when the stream has begun, so the first
 * lists follow quickly after its start, and then the pauses double. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/name-table.h"
#include "containerd/containerd-msg.h"
#include "containerd/containerd-private.h"
#include "containerd/grpc.h"

#define LIST_MS	      30000
#define LIST_FIRST_MS 1000
#define RETRY_MS      5000
#define RETRY_MIN_MS  100
/* The pause before the next connect is reset after a stream that lived this
 * long or brought an event. */
#define STREAM_GOOD_MS 10000
/* Delay from an event to the list: several events often come together. */
#define SOON_MS		50
#define CALL_TIMEOUT_MS 20000
#define MAX_IMAGES	65536
#define MAX_NAMESPACES	1024
#define BATCH		64

#define IMAGES	   "/containerd.services.images.v1.Images/List"
#define NAMESPACES "/containerd.services.namespaces.v1.Namespaces/List"
#define EVENTS	   "/containerd.services.events.v1.Events/Subscribe"

static struct metric_family m_images = {
	.name = "peerd_containerd_images",
	.help = "Names of containerd's images.",
	.type = METRIC_GAUGE,
};

struct named_image {
	struct name_node node; /* by "NAMESPACE NAME" */
	struct digest digest;
	uint64_t updated_s;
	uint64_t seen;	/* number of the last list that had it */
	uint64_t tried; /* number of the list after which it was last tried to
			   record it */
	bool noted;	/* recorded in the store, or nothing to record */
};

/* One image that a worker records in the store. */
struct note {
	char *key, *repo, *tag;
	struct digest digest;
	uint64_t updated_s;
	int r;
};

struct ctr_images {
	struct containerd_config cfg;
	char *sock;
	uv_timer_t timer;
	unsigned int refs; /* the owner, the timer, the job */
	bool closing;

	struct grpc_call *stream, *call;
	bool good; /* the stream has brought an event */
	bool stream_complained;
	uint64_t stream_ms; /* when the stream was started */
	uint64_t retry_ms;  /* when to start the next one */
	uint32_t retry_wait;

	bool connected, complained;
	bool list_all;	  /* list the namespaces next */
	uint64_t list_ms; /* when list_all is set again */
	uint64_t soon_ms; /* no call starts before this time */
	uint32_t list_wait;
	struct string_list known; /* namespaces in the last answer */
	struct string_list todo;  /* namespaces whose images to list */
	char *listing; /* the namespace whose images are being listed */

	struct hash_table images;
	uint64_t lists, events;

	struct loop_job job;
	bool noting;
	struct note notes[BATCH];
	size_t nnotes;
	struct metric_series *m_images;
};

static void arm(struct ctr_images *i);

/* ---- Names of namespaces ---- */

static void todo_add(struct ctr_images *i, const char *ns)
{
	if (i->todo.n < MAX_NAMESPACES && !string_list_has(&i->todo, ns))
		(void)string_list_add(&i->todo, ns);
}

static char *todo_take(struct ctr_images *i)
{
	char *ns;

	if (i->todo.n == 0)
		return NULL;
	ns = i->todo.v[0];
	memmove(i->todo.v, i->todo.v + 1, i->todo.n * sizeof(*i->todo.v));
	i->todo.n--;
	return ns;
}

/* ---- Recording in the store ---- */

static void image_free(struct ctr_images *i, struct named_image *m)
{
	name_table_del(&i->images, &m->node);
	free(m);
}

static void notes_release(struct ctr_images *i)
{
	for (size_t k = 0; k < i->nnotes; k++) {
		free(i->notes[k].key);
		free(i->notes[k].repo);
		free(i->notes[k].tag);
	}
	i->nnotes = 0;
}

static void unref(struct ctr_images *i)
{
	if (--i->refs > 0)
		return;
	notes_release(i);
	name_table_for_each_safe(it, &i->images)
		image_free(i, name_table_at(it, struct named_image, node));
	name_table_release(&i->images);
	string_list_release(&i->known);
	string_list_release(&i->todo);
	free(i->listing);
	free(i->sock);
	free(i);
}

static void note_work(struct loop_job *j)
{
	struct ctr_images *i = container_of(j, struct ctr_images, job);

	for (size_t k = 0; k < i->nnotes; k++) {
		struct note *n = &i->notes[k];

		n->r = ctr_image_note(i->cfg.store, n->repo, n->tag, &n->digest,
				      n->updated_s);
	}
}

static void note_some(struct ctr_images *i);

static void note_done(struct loop_job *j)
{
	struct ctr_images *i = container_of(j, struct ctr_images, job);

	i->noting = false;
	for (size_t k = 0; !i->closing && k < i->nnotes; k++) {
		const struct note *n = &i->notes[k];
		struct name_node *tn = name_table_find(&i->images, n->key);
		struct named_image *m =
			tn ? name_table_entry(tn, struct named_image, node)
			   : NULL;

		if (m && n->r == 0 && digest_equal(&m->digest, &n->digest))
			m->noted = true;
	}
	notes_release(i);
	if (!i->closing)
		note_some(i);
	unref(i);
}

/* Adds the image to the notes, unless it is not one of a registry. False: out
 * of memory. */
static bool add_note(struct ctr_images *i, struct named_image *m)
{
	struct note *n = &i->notes[i->nnotes];
	int r;

	*n = (struct note){.digest = m->digest, .updated_s = m->updated_s};
	m->tried = i->lists;
	r = ctr_image_name(strchr(m->node.key, ' ') + 1, &n->repo, &n->tag);
	if (r == -ENOMEM)
		return false;
	if (r < 0) {
		m->noted = true; /* nothing to record */
		return true;
	}
	i->nnotes++;
	n->key = strdup(m->node.key);
	return n->key;
}

/* Starts a job that records up to BATCH images. An image that could not be
 * recorded is tried again after the next list. */
static void note_some(struct ctr_images *i)
{
	if (i->noting)
		return;
	list_for_each (it, &i->images.order) {
		struct named_image *m =
			name_table_at(it, struct named_image, node);

		if (m->noted || m->tried == i->lists)
			continue;
		if (i->nnotes == BATCH || !add_note(i, m))
			break;
	}
	if (i->nnotes == 0)
		return;
	if (!i->notes[i->nnotes - 1].key) {
		notes_release(i);
		return;
	}
	i->noting = true;
	i->refs++;
	loop_work(i->cfg.loop, &i->job, note_work, note_done);
}

/* ---- Lists ---- */

/* Logs only the first failure after a success. */
static void failed(struct ctr_images *i, int r, const char *why)
{
	if (!i->complained)
		log_warn("cannot list containerd's images",
			 LS("socket", i->sock), LE(r), LS("why", why));
	i->complained = true;
	i->connected = false;
}

static void went_well(struct ctr_images *i)
{
	if (!i->connected)
		log_info("listing containerd's images", LS("socket", i->sock));
	i->connected = true;
	i->complained = false;
}

static void on_image(void *arg, const struct containerd_image *in)
{
	struct ctr_images *i = arg;
	CLEANUP(freep) char *key = NULL;
	struct name_node *tn;
	struct named_image *m;

	if (asprintf(&key, "%s %s", i->listing, in->name) < 0) {
		key = NULL;
		return;
	}
	tn = name_table_find(&i->images, key);
	if (tn) {
		m = name_table_entry(tn, struct named_image, node);
	} else {
		if (i->images.n >= MAX_IMAGES)
			return;
		m = calloc(1, sizeof(*m));
		if (!m)
			return;
		if (name_table_add(&i->images, &m->node, key) < 0) {
			free(m);
			return;
		}
	}
	if (!tn || !digest_equal(&m->digest, &in->digest) ||
	    m->updated_s != in->updated_s)
		m->noted = false;
	m->digest = in->digest;
	m->updated_s = in->updated_s;
	m->seen = i->lists;
}

static int images_message(void *arg, const void *msg, size_t len)
{
	struct ctr_images *i = arg;

	i->lists++;
	return containerd_msg_images(msg, len, on_image, i);
}

/* Removes the images of the namespace that the last list did not have. */
static void forget_others(struct ctr_images *i, const char *ns)
{
	size_t len = strlen(ns);

	name_table_for_each_safe(it, &i->images)
	{
		struct named_image *m =
			name_table_at(it, struct named_image, node);

		if (m->seen != i->lists && strncmp(m->node.key, ns, len) == 0 &&
		    m->node.key[len] == ' ')
			image_free(i, m);
	}
}

static void images_done(void *arg, int r, const char *why)
{
	struct ctr_images *i = arg;
	CLEANUP(freep) char *ns = steal_ptr(&i->listing);

	i->call = NULL;
	if (r < 0) {
		failed(i, r, why);
	} else {
		went_well(i);
		forget_others(i, ns);
		note_some(i);
	}
	metric_set(i->m_images, (double)i->images.n);
	arm(i);
}

static void on_namespace(void *arg, const char *name)
{
	struct ctr_images *i = arg;

	if (i->known.n < MAX_NAMESPACES)
		(void)string_list_add(&i->known, name);
	todo_add(i, name);
}

static int namespaces_message(void *arg, const void *msg, size_t len)
{
	struct ctr_images *i = arg;

	string_list_release(&i->known);
	return containerd_msg_namespaces(msg, len, on_namespace, i);
}

/* Removes the images of namespaces that are gone. */
static void forget_namespaces(struct ctr_images *i)
{
	name_table_for_each_safe(it, &i->images)
	{
		struct named_image *m =
			name_table_at(it, struct named_image, node);
		char ns[CONTAINERD_NS_MAX + 1];

		(void)snprintf(ns, sizeof(ns), "%.*s",
			       (int)strcspn(m->node.key, " "), m->node.key);
		if (!string_list_has(&i->known, ns))
			image_free(i, m);
	}
}

static void namespaces_done(void *arg, int r, const char *why)
{
	struct ctr_images *i = arg;

	i->call = NULL;
	if (r < 0) {
		failed(i, r, why);
	} else {
		forget_namespaces(i);
		if (i->todo.n == 0)
			went_well(i); /* there are no namespaces */
	}
	arm(i);
}

static int start(struct ctr_images *i, const char *method, const char *ns,
		 const struct buf *msg, uint32_t timeout_ms,
		 const struct grpc_callbacks *cb, struct grpc_call **ret)
{
	struct http_header metadata = {"containerd-namespace", ns};
	struct grpc_request rq = {
		.sock = i->sock,
		.method = method,
		.metadata = &metadata,
		.nmetadata = ns ? 1 : 0,
		.msg = msg ? msg->data : NULL,
		.len = msg ? msg->len : 0,
		.max_reply = CONTAINERD_MSG_MAX,
		.timeout_ms = timeout_ms,
	};

	return grpc_start(i->cfg.client, &rq, cb, i, ret);
}

static void next_call(struct ctr_images *i)
{
	static const struct grpc_callbacks namespaces = {namespaces_message,
							 namespaces_done};
	static const struct grpc_callbacks images = {images_message,
						     images_done};
	int r = 0;

	if (i->list_all) {
		i->list_all = false;
		r = start(i, NAMESPACES, NULL, NULL, CALL_TIMEOUT_MS,
			  &namespaces, &i->call);
	} else if (i->todo.n > 0) {
		i->listing = todo_take(i);
		r = start(i, IMAGES, i->listing, NULL, CALL_TIMEOUT_MS, &images,
			  &i->call);
		if (r < 0) {
			free(i->listing);
			i->listing = NULL;
		}
	}
	if (r < 0)
		failed(i, r, "cannot start the call");
}

/* ---- Events ---- */

static int event_message(void *arg, const void *msg, size_t len)
{
	struct ctr_images *i = arg;
	char ns[CONTAINERD_NS_MAX + 1];
	bool of_image;
	int r = containerd_msg_event(msg, len, ns, &of_image);

	if (r < 0)
		return r;
	i->good = true;
	i->stream_complained = false;
	if (!of_image)
		return 0;
	i->events++;
	if (*ns)
		todo_add(i, ns);
	else
		i->list_all = true;
	if (i->soon_ms <= now_ms())
		i->soon_ms = now_ms() + SOON_MS;
	arm(i);
	return 0;
}

static void stream_done(void *arg, int r, const char *why)
{
	struct ctr_images *i = arg;
	uint64_t now = now_ms();

	i->stream = NULL;
	if (i->good || now - i->stream_ms >= STREAM_GOOD_MS)
		i->retry_wait = RETRY_MIN_MS;
	i->retry_ms = now + i->retry_wait;
	i->retry_wait =
		(uint32_t)min_u64((uint64_t)i->retry_wait * 2, i->cfg.retry_ms);
	/* If containerd is gone, the lists fail and log it. */
	if ((r == -EMSGSIZE || r == -EBADMSG || r == -EOPNOTSUPP) &&
	    !i->stream_complained) {
		i->stream_complained = true;
		log_warn("cannot read containerd's events; its images are "
			 "listed at intervals",
			 LS("socket", i->sock), LE(r), LS("why", why));
	}
	arm(i);
}

static void start_stream(struct ctr_images *i)
{
	static const struct grpc_callbacks cb = {event_message, stream_done};
	CLEANUP(buf_release) struct buf msg = BUF_INIT(1024);
	int r = containerd_msg_subscribe("topic~=\"^/images/\"", &msg);

	i->good = false;
	i->stream_ms = now_ms();
	if (r == 0)
		r = start(i, EVENTS, NULL, &msg, 0, &cb, &i->stream);
	if (r < 0)
		stream_done(i, r, "cannot start the call");
	/* Finds the changes from before the stream began, or while it was
	 * down. */
	i->list_all = true;
	i->list_wait = LIST_FIRST_MS;
	i->list_ms = i->stream_ms + i->list_wait;
}

/* ---- Timer ---- */

static void on_timer(uv_timer_t *t)
{
	struct ctr_images *i = t->data;
	uint64_t now = now_ms();

	if (!i->stream && now >= i->retry_ms)
		start_stream(i);
	if (i->stream && now >= i->list_ms) {
		i->list_all = true;
		i->list_wait = (uint32_t)min_u64((uint64_t)i->list_wait * 2,
						 i->cfg.list_ms);
		i->list_ms = now + i->list_wait;
	}
	if (!i->call && now >= i->soon_ms)
		next_call(i);
	arm(i);
}

static void arm(struct ctr_images *i)
{
	uint64_t now = now_ms(), due;

	if (i->closing)
		return;
	due = i->stream ? i->list_ms : i->retry_ms;
	if (!i->call && (i->list_all || i->todo.n > 0))
		due = min_u64(due, i->soon_ms);
	uv_update_time(loop_uv(i->cfg.loop));
	(void)uv_timer_start(&i->timer, on_timer, due > now ? due - now : 0, 0);
}

/* ---- Start and end ---- */

static void on_closed(uv_handle_t *h)
{
	unref(h->data);
}

int ctr_images_new(const struct containerd_config *cfg, struct ctr_images **ret)
{
	struct ctr_images *i = calloc(1, sizeof(*i));
	int r;

	if (!i)
		return -ENOMEM;
	r = name_table_init(&i->images);
	if (r < 0) {
		free(i);
		return r;
	}
	i->refs = 1;
	i->cfg = *cfg;
	if (!i->cfg.list_ms)
		i->cfg.list_ms = LIST_MS;
	if (!i->cfg.retry_ms)
		i->cfg.retry_ms = RETRY_MS;
	i->retry_wait = RETRY_MIN_MS;
	i->m_images = metric_get(&m_images, NULL);
	i->sock = strdup(cfg->sock);
	if (!i->sock) {
		unref(i);
		return -ENOMEM;
	}
	(void)uv_timer_init(loop_uv(cfg->loop), &i->timer);
	i->timer.data = i;
	i->refs++;
	arm(i);
	*ret = i;
	return 0;
}

void ctr_images_free(struct ctr_images **pi)
{
	struct ctr_images *i = steal_ptr(pi);

	if (!i)
		return;
	i->closing = true;
	grpc_abandon(&i->stream);
	grpc_abandon(&i->call);
	uv_close((uv_handle_t *)&i->timer, on_closed);
	unref(i);
}

void ctr_images_stats(const struct ctr_images *i, struct containerd_stats *ret)
{
	ret->connected = i->connected;
	ret->images = i->images.n;
	ret->lists = i->lists;
	ret->events = i->events;
}
