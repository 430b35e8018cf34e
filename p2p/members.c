#include "p2p/members-private.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/metrics.h"

#define GREET_MS  3000
#define LOOKUP_MS 5000

/* Deadlines of requests to members, which are in one data centre. */
#define CONNECT_MS	  2000
#define FIRST_BYTE_MS	  10000
#define LOW_SPEED_BYTES	  1024
#define LOW_SPEED_SECONDS 10

/* Limit of log lines about members' states: enough for a whole cluster, but no
 * endless stream. */
#define LOG_BURST     2000
#define LOG_PERIOD_MS 60000

static struct metric_family m_members = {
	.name = "peerd_members",
	.help = "Known members of the cluster, by state, without this node.",
	.type = METRIC_GAUGE,
	.labels = {"state"},
};

/* ---- States ---- */

static void count_state(enum member_state state, int delta)
{
	static const char *const names[] = {"new", "alive", "suspect", "gone"};

	metric_add(metric_get(&m_members, (const char *const[]){names[state]}),
		   delta);
}

static void log_state(struct members *m, const struct member *mb)
{
	if (m->closing ||
	    !log_limit_ok(&m->log_states, LOG_BURST, LOG_PERIOD_MS))
		return;
	if (mb->state == MEMBER_ALIVE)
		log_info("member alive", LS("member", mb->id),
			 LS("name", mb->name), LS("addr", mb->addr),
			 LS("zone", mb->zone));
	else if (mb->state == MEMBER_SUSPECT)
		log_info("member suspect", LS("member", mb->id),
			 LS("name", mb->name), LS("addr", mb->addr),
			 LS("why", mb->why));
	else
		log_warn("member gone", LS("member", mb->id),
			 LS("name", mb->name), LS("addr", mb->addr),
			 LS("why", mb->why));
}

static void set_state(struct members *m, struct member_node *node,
		      enum member_state state)
{
	bool was = member_lives(&node->mb), is;

	if (node->mb.state == state)
		return;
	count_state(node->mb.state, -1);
	count_state(state, 1);
	node->mb.state = state;
	node->mb.since_ms = now_ms();
	log_state(m, &node->mb);
	is = member_lives(&node->mb);
	if (was == is)
		return;
	m->dirty = true;
	members_post(m);
	if (is)
		m->living++;
	else
		m->living--;
	if (m->living == 0 && !m->closing)
		log_warn("no member is alive any more",
			 LS("why", node->mb.why));
}

static void set_why(struct member_node *node, const char *why)
{
	(void)snprintf(node->mb.why, sizeof(node->mb.why), "%s", why);
}

/* ---- Nodes ---- */

static struct member_node **bucket_of(struct members *m, const char *id)
{
	return &m->by_id[place_hash(id, strlen(id)) % MEMBERS_BUCKETS];
}

static struct member_node *find_node(struct members *m, const char *id)
{
	struct member_node *node = *bucket_of(m, id);

	while (node && strcmp(node->mb.id, id) != 0)
		node = node->hash_next;
	return node;
}

static void set_primary(struct member_node *node, struct addr *a)
{
	node->primary = a;
	(void)snprintf(node->mb.addr, sizeof(node->mb.addr), "%s", a->text);
}

static void node_add_addr(struct member_node *node, struct addr *a)
{
	a->node = node;
	list_add_tail(&node->addrs, &a->sibling);
	if (!node->primary)
		set_primary(node, a);
}

int node_new(struct members *m, struct addr *a)
{
	struct member_node *node = calloc(1, sizeof(*node));

	if (!node)
		return -ENOMEM;
	list_init(&node->addrs);
	list_add_tail(&m->nodes, &node->link);
	node->mb.since_ms = now_ms();
	count_state(MEMBER_NEW, 1);
	node_add_addr(node, a);
	return 0;
}

static void node_die(struct members *m, struct member_node *node,
		     const char *why)
{
	if (node->mb.state != MEMBER_NEW) {
		set_why(node, why);
		set_state(m, node, MEMBER_GONE);
	}
	if (node->mb.id[0]) {
		struct member_node **p = bucket_of(m, node->mb.id);

		while (*p != node)
			p = &(*p)->hash_next;
		*p = node->hash_next;
	}
	count_state(node->mb.state, -1);
	node->dead = true;
	list_del(&node->link);
	list_add_tail(&m->dead, &node->link);
	members_post(m);
}

void node_drop_addr(struct member_node *node, struct addr *a, const char *why)
{
	struct members *m = a->m;

	list_del(&a->sibling);
	a->node = NULL;
	if (list_empty(&node->addrs)) {
		node->primary = NULL;
		node_die(m, node, why);
		return;
	}
	if (node->primary != a)
		return;
	set_primary(node, list_first(&node->addrs, struct addr, sibling));
	if (node->mb.state != MEMBER_ALIVE)
		return;
	set_why(node, why);
	set_state(m, node, MEMBER_SUSPECT);
	list_for_each (it, &node->addrs)
		addr_hurry(list_entry(it, struct addr, sibling), 0);
}

static void set_text(char *to, size_t size, const char *from)
{
	(void)snprintf(to, size, "%s", from);
}

static void set_id(struct members *m, struct member_node *node, const char *id)
{
	struct member_node **p = bucket_of(m, id);

	set_text(node->mb.id, sizeof(node->mb.id), id);
	node->mb.place_id = place_hash(id, strlen(id));
	node->hash_next = *p;
	*p = node;
}

static void set_about(struct members *m, struct member_node *node,
		      const struct hello *h)
{
	struct member *mb = &node->mb;
	bool same_zone = strcmp(h->zone, m->cfg.zone) == 0;

	set_text(mb->name, sizeof(mb->name), h->name);
	set_text(mb->zone, sizeof(mb->zone), h->zone);
	set_text(mb->version, sizeof(mb->version), h->version);
	if (mb->same_zone == same_zone)
		return;
	mb->same_zone = same_zone;
	if (member_lives(&node->mb)) {
		m->dirty = true;
		members_post(m);
	}
}

static void set_alive(struct members *m, struct member_node *node)
{
	node->mb.failures = 0;
	node->mb.heard_ms = now_ms();
	set_state(m, node, MEMBER_ALIVE);
}

/* ---- Outcomes of greetings ---- */

static void answered_ourselves(struct addr *a, const struct hello *h)
{
	struct members *m = a->m;

	if (strcmp(h->name, m->cfg.name) != 0 &&
	    log_limit_ok(&m->log_copies, 1, 600000))
		log_warn("another node has this node's id: was its cache "
			 "directory copied?",
			 LS("addr", a->text), LS("name", h->name));
	if (a->node)
		node_drop_addr(a->node, a,
			       "its address now leads to this node");
}

/* Makes a an address of the member with this id, and returns that member. NULL:
 * no memory. */
static struct member_node *node_at(struct addr *a, const char *id)
{
	struct members *m = a->m;
	struct member_node *node = find_node(m, id), *old = a->node;

	if (node && node == old)
		return node;
	if (!node && old && old->mb.state == MEMBER_NEW) {
		set_id(m, old, id);
		return old;
	}
	if (node) {
		if (old)
			node_drop_addr(old, a,
				       "another node answers at its address");
		node_add_addr(node, a);
		return node;
	}
	if (old)
		node_drop_addr(old, a, "another node answers at its address");
	if (node_new(m, a) < 0)
		return NULL;
	set_id(m, a->node, id);
	return a->node;
}

static int refuse(const struct addr *a, const struct hello *h, const char *cert,
		  const char *why, struct error *err)
{
	if (log_limit_ok(&a->m->log_refused, 1, 600000))
		log_warn("a node is not accepted as a member",
			 LS("addr", a->text), LS("member", h->id),
			 LS("certificate", cert), LS("why", why));
	return set_error(err, -EACCES, "%s", why);
}

int members_answered(struct addr *a, const struct hello *h, const char *cert,
		     double rtt_ms, struct error *err)
{
	struct members *m = a->m;
	bool self = strcmp(h->id, m->cfg.id) == 0;
	const char *why =
		self ? NULL : cert_refusal(a, cert, members_find(m, h->id));
	struct member_node *node;
	struct addr *p;

	if (why)
		return refuse(a, h, cert, why, err);
	a->failures = 0;
	a->answered_ms = now_ms();
	if (self) {
		answered_ourselves(a, h);
		return 0;
	}
	node = node_at(a, h->id);
	if (!node)
		return 0; /* no memory: the next greeting tries again */
	set_text(node->mb.cert, sizeof(node->mb.cert), cert);
	p = node->primary;
	if (p != a && (p->failures > 0 || p->answered_ms == 0 ||
		       (!addr_is_named(p) && addr_is_named(a))))
		set_primary(node, a);
	if (node->primary == a)
		node->mb.rtt_ms = node->mb.rtt_ms > 0
					  ? node->mb.rtt_ms * 7 / 8 + rtt_ms / 8
					  : rtt_ms;
	set_about(m, node, h);
	set_alive(m, node);
	return 0;
}

static bool is_named(const struct member_node *node)
{
	list_for_each (it, &node->addrs)
		if (addr_is_named(list_entry(it, struct addr, sibling)))
			return true;
	return false;
}

void members_failed(struct addr *a, const char *why)
{
	struct members *m = a->m;
	struct member_node *node = a->node;

	a->failures++;
	if (!node || node->primary != a)
		return;
	node->mb.failures++;
	set_why(node, why);
	if (node->mb.state == MEMBER_ALIVE)
		set_state(m, node, MEMBER_SUSPECT);
	else if (node->mb.state == MEMBER_SUSPECT &&
		 (node->mb.failures >= MEMBERS_GONE_AFTER || !is_named(node)))
		set_state(m, node, MEMBER_GONE);
	if (node->mb.failures > MEMBERS_GONE_AFTER)
		return;
	list_for_each (it, &node->addrs)
		if (list_entry(it, struct addr, sibling) != a)
			addr_hurry(list_entry(it, struct addr, sibling), 0);
}

void members_note(struct members *m, struct member *mb, bool ok,
		  const char *why)
{
	struct member_node *node = container_of(mb, struct member_node, mb);

	if (m->closing || node->dead || mb->state == MEMBER_NEW)
		return;
	if (ok) {
		set_alive(m, node);
		return;
	}
	set_why(node, why);
	if (mb->state != MEMBER_ALIVE)
		return; /* only greetings decide */
	mb->failures = 1;
	set_state(m, node, MEMBER_SUSPECT);
	list_for_each (it, &node->addrs)
		addr_hurry(list_entry(it, struct addr, sibling), 0);
	members_arm(m);
}

/* ---- Views ---- */

struct living {
	uint64_t id;
	struct member *mb; /* NULL: this node */
};

static int by_place(const void *a, const void *b)
{
	const struct living *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	/* Of two members with the same place_id every node leaves out the same
	 * one; a node with that place_id never leaves out itself. */
	if (!x->mb || !y->mb)
		return x->mb ? 1 : -1;
	return strcmp(x->mb->id, y->mb->id);
}

static void view_release(struct view *v)
{
	free(v->ids);
	free((void *)v->at);
	*v = (struct view){0};
}

static int view_build(struct members *m, bool all, struct view *ret)
{
	CLEANUP(freep) struct living *v = NULL;
	uint32_t n = 0;

	v = calloc((size_t)m->living + 1, sizeof(*v));
	ret->ids = calloc((size_t)m->living + 1, sizeof(*ret->ids));
	ret->at = calloc((size_t)m->living + 1, sizeof(struct member *));
	if (!v || !ret->ids || !ret->at)
		return -ENOMEM;
	v[n++].id = place_hash(m->cfg.id, strlen(m->cfg.id));
	list_for_each (it, &m->nodes) {
		struct member_node *node =
			list_entry(it, struct member_node, link);

		if (member_lives(&node->mb) && (all || node->mb.same_zone))
			v[n++] = (struct living){node->mb.place_id, &node->mb};
	}
	qsort(v, n, sizeof(*v), by_place);
	for (uint32_t i = 0; i < n; i++) {
		if (i > 0 && v[i].id == v[i - 1].id)
			continue;
		if (!v[i].mb)
			ret->place.self = ret->place.n;
		ret->at[ret->place.n] = v[i].mb;
		ret->ids[ret->place.n++] = v[i].id;
	}
	ret->place.ids = ret->ids;
	return 0;
}

static bool view_differs(const struct view *a, const struct view *b)
{
	return a->place.n != b->place.n ||
	       memcmp(a->ids, b->ids, a->place.n * sizeof(*a->ids)) != 0 ||
	       memcmp((void *)a->at, (void *)b->at,
		      a->place.n * sizeof(struct member *)) != 0;
}

/* *ret_differ: whether the living members have changed. -ENOMEM: nothing has
 * changed. */
static int rebuild(struct members *m, bool *ret_differ)
{
	struct view v[2] = {0};
	int r = 0;

	*ret_differ = false;
	for (int i = 0; r == 0 && i < 2; i++)
		r = view_build(m, i == 1, &v[i]);
	if (r == 0)
		*ret_differ = m->generation == 0 ||
			      view_differs(&v[0], &m->views[0]) ||
			      view_differs(&v[1], &m->views[1]);
	for (int i = 0; i < 2; i++) {
		if (*ret_differ) {
			view_release(&m->views[i]);
			m->views[i] = v[i];
		} else {
			view_release(&v[i]);
		}
	}
	m->generation += *ret_differ;
	m->dirty = r < 0;
	return r;
}

static void free_dead(struct members *m)
{
	while (!list_empty(&m->dead)) {
		struct member_node *node =
			list_first(&m->dead, struct member_node, link);

		if (m->cfg.forget)
			m->cfg.forget(m->cfg.arg, &node->mb);
		list_del(&node->link);
		free(node);
	}
}

static void on_task(struct loop_task *t)
{
	struct members *m = container_of(t, struct members, task);
	bool tell = !m->settled && m->unlooked == 0 && m->awaited == 0;
	bool differ = false;

	if (!m->closing) {
		m->settled |= tell;
		/* If memory is short the old views stay, and so do dead
		 * members; members_on_timer() tries again. */
		if (m->dirty)
			(void)rebuild(m, &differ);
		if ((tell || differ) && m->cfg.changed)
			m->cfg.changed(m->cfg.arg);
		if (!m->closing && !m->dirty)
			free_dead(m);
	}
}

void members_post(struct members *m)
{
	if (!m->closing)
		loop_post(m->cfg.loop, &m->task);
}

void members_check_settled(struct members *m)
{
	if (!m->settled && m->unlooked == 0 && m->awaited == 0)
		members_post(m);
}

const struct place_view *members_view(struct members *m, bool all_zones)
{
	return &m->views[all_zones].place;
}

struct member *members_at(struct members *m, bool all_zones, uint32_t i)
{
	BUG_ON(i >= m->views[all_zones].place.n);
	return m->views[all_zones].at[i];
}

uint64_t members_generation(const struct members *m)
{
	return m->generation;
}

void members_each(struct members *m, void (*each)(void *arg, struct member *mb),
		  void *arg)
{
	list_for_each_safe (it, &m->nodes)
		each(arg, &list_entry(it, struct member_node, link)->mb);
}

struct member *members_find(struct members *m, const char *id)
{
	struct member_node *node = find_node(m, id);

	return node ? &node->mb : NULL;
}

unsigned int members_alive(const struct members *m)
{
	return m->living;
}

bool members_settled(const struct members *m)
{
	return m->settled;
}

int members_request(struct members *m, const struct member *mb,
		    const char *path, struct http_request *rq, struct buf *url)
{
	int r;

	buf_reset(url);
	r = buf_printf(url, "%s://%s%s", m->cfg.ca_file ? "https" : "http",
		       mb->addr, path);
	if (r < 0)
		return r;
	rq->url = url->data;
	rq->peer = true;
	rq->ca_file = m->cfg.ca_file;
	rq->cert_file = m->cfg.cert_file;
	rq->key_file = m->cfg.key_file;
	rq->connect_timeout_ms = CONNECT_MS;
	rq->first_byte_timeout_ms = FIRST_BYTE_MS;
	rq->low_speed_bytes = LOW_SPEED_BYTES;
	rq->low_speed_seconds = LOW_SPEED_SECONDS;
	return 0;
}

/* ---- Start and end ---- */

/* SplitMix64 (Steele, Lea, Flood, 2014): good enough to spread events in
 * time. */
uint64_t members_jitter(struct members *m, uint64_t ms)
{
	uint64_t z = m->random += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	z ^= z >> 31;
	return ms - ms / 5 + z % (ms / 5 * 2 + 1);
}

static int copy(const char **s)
{
	if (!*s)
		return 0;
	*s = strdup(*s);
	return *s ? 0 : -ENOMEM;
}

/* Replaces the caller's strings by copies. If memory is short, the strings
 * without a copy become NULL. */
static int copy_config(struct members_config *cfg)
{
	const char **const v[] = {&cfg->id,	  &cfg->name,
				  &cfg->zone,	  &cfg->version,
				  &cfg->ca_file,  &cfg->cert_file,
				  &cfg->key_file, &cfg->nameserver};
	int r = 0;

	if (!cfg->zone)
		cfg->zone = "";
	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		if (r < 0)
			*v[i] = NULL;
		else
			r = copy(v[i]);
	}
	return r;
}

static void free_config(struct members_config *cfg)
{
	const char *const v[] = {cfg->id,	cfg->name,	cfg->zone,
				 cfg->version,	cfg->ca_file,	cfg->cert_file,
				 cfg->key_file, cfg->nameserver};

	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		free((char *)(uintptr_t)v[i]);
}

static int check_text(const char *what, const char *s, size_t min, size_t size,
		      struct error *err)
{
	if (greet_is_text(s, min, size))
		return 0;
	return set_error(err, -EINVAL,
			 "the node's %s must be %zu to %zu visible ASCII "
			 "characters",
			 what, min, size - 1);
}

static int check_config(const struct members_config *cfg, struct error *err)
{
	int r = check_text("id", cfg->id, 1, MEMBER_ID_MAX, err);

	if (r == 0)
		r = check_text("name", cfg->name, 0, MEMBER_NAME_MAX, err);
	if (r == 0)
		r = check_text("zone", cfg->zone ? cfg->zone : "", 0,
			       MEMBER_NAME_MAX, err);
	if (r == 0)
		r = check_text("version", cfg->version, 0, MEMBER_NAME_MAX,
			       err);
	return r;
}

void members_unref(struct members *m)
{
	if (--m->refs > 0)
		return;
	loop_cancel(m->cfg.loop, &m->task);
	while (!list_empty(&m->addrs))
		addr_free(list_first(&m->addrs, struct addr, all));
	m->cfg.forget = NULL;
	free_dead(m);
	names_release(m);
	view_release(&m->views[0]);
	view_release(&m->views[1]);
	free_config(&m->cfg);
	free((void *)m->heap);
	free(m);
}

static void on_timer_closed(uv_handle_t *h)
{
	members_unref(h->data);
}

static struct bucket bucket_of_rate(double burst, double per_ms)
{
	return (struct bucket){burst, burst, per_ms, now_ms()};
}

static int members_init(struct members *m, struct error *err)
{
	bool differ;
	int r;

	r = copy_config(&m->cfg);
	if (r == 0)
		r = rebuild(m, &differ);
	if (r == 0)
		r = names_init(m, err);
	return r;
}

int members_new(const struct members_config *cfg, struct members **ret,
		struct error *err)
{
	struct members *m;
	int r = check_config(cfg, err);

	if (r < 0)
		return r;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->refs = 1;
	m->cfg = *cfg;
	if (!m->cfg.greet_ms)
		m->cfg.greet_ms = GREET_MS;
	if (!m->cfg.lookup_ms)
		m->cfg.lookup_ms = LOOKUP_MS;
	list_init(&m->nodes);
	list_init(&m->dead);
	list_init(&m->addrs);
	m->task.run = on_task;
	m->random = now_ms() ^ place_hash(cfg->id, strlen(cfg->id));
	/* With greet_ms = 3 s: 50 greetings a second, and 10 new addresses a
	 * second from nodes that greet this one. */
	m->may_greet = bucket_of_rate(50, 150.0 / m->cfg.greet_ms);
	m->may_learn = bucket_of_rate(64, 30.0 / m->cfg.greet_ms);
	metric_register(&m_members);
	greet_register();
	r = members_init(m, err);
	if (r < 0) {
		if (r == -ENOMEM)
			(void)set_error(err, r, "out of memory");
		m->closing = true; /* no more posts from here on */
		members_unref(m);
		return r;
	}
	(void)uv_timer_init(loop_uv(cfg->loop), &m->timer);
	m->timer.data = m;
	m->refs++;
	members_arm(m);
	*ret = m;
	return 0;
}

void members_free(struct members **pm)
{
	struct members *m = steal_ptr(pm);

	if (!m)
		return;
	m->closing = true;
	__atomic_store_n(&m->stop, 1, __ATOMIC_RELAXED);
	list_for_each (it, &m->addrs) {
		http_small_cancel(&list_entry(it, struct addr, all)->greeting);
	}
	uv_close((uv_handle_t *)&m->timer, on_timer_closed);
	members_unref(m);
}
