/* The addresses of members, the schedule of their greetings, and the lookups of
 * names. */
#include "p2p/members-private.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

/* Greetings that are open at once. */
#define MAX_GREETING 128

_Static_assert(RESOLVE_MAX_ADDRS >= MEMBERS_MAX,
	       "one name may give all members");
_Static_assert(RESOLVE_TEXT_MAX <= MEMBER_ADDR_MAX, "mb.addr holds it");

/* ---- Token buckets ---- */

static void bucket_fill(struct bucket *b)
{
	uint64_t now = now_ms();

	b->tokens += (double)(now - b->at_ms) * b->per_ms;
	if (b->tokens > b->burst)
		b->tokens = b->burst;
	b->at_ms = now;
}

bool bucket_take(struct bucket *b)
{
	bucket_fill(b);
	if (b->tokens < 1)
		return false;
	b->tokens -= 1;
	return true;
}

/* Returns the time until the next token, in ms. */
static uint64_t bucket_wait_ms(struct bucket *b)
{
	bucket_fill(b);
	return b->tokens >= 1 ? 0 : (uint64_t)((1 - b->tokens) / b->per_ms) + 1;
}

/* ---- The heap: addresses by due time ---- */

static void heap_put(struct members *m, size_t i, struct addr *a)
{
	m->heap[i] = a;
	a->heap_at = i;
}

static void heap_up(struct members *m, size_t i, struct addr *a)
{
	while (i > 0 && m->heap[(i - 1) / 2]->due_ms > a->due_ms) {
		heap_put(m, i, m->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(m, i, a);
}

static void heap_down(struct members *m, size_t i, struct addr *a)
{
	for (;;) {
		size_t c = 2 * i + 1;

		if (c + 1 < m->heap_n &&
		    m->heap[c + 1]->due_ms < m->heap[c]->due_ms)
			c++;
		if (c >= m->heap_n || m->heap[c]->due_ms >= a->due_ms)
			break;
		heap_put(m, i, m->heap[c]);
		i = c;
	}
	heap_put(m, i, a);
}

/* The heap has room: see addr_new(). */
static void heap_add(struct members *m, struct addr *a, uint64_t due_ms)
{
	a->due_ms = due_ms;
	heap_up(m, m->heap_n++, a);
}

static void heap_del(struct members *m, struct addr *a)
{
	struct addr *last = m->heap[--m->heap_n];
	size_t i = a->heap_at;

	a->heap_at = SIZE_MAX;
	if (last == a)
		return;
	if (last->due_ms < a->due_ms)
		heap_up(m, i, last);
	else
		heap_down(m, i, last);
}

void addr_hurry(struct addr *a, uint64_t due_ms)
{
	if (a->heap_at == SIZE_MAX || a->due_ms <= due_ms)
		return;
	a->due_ms = due_ms;
	heap_up(a->m, a->heap_at, a);
}

static uint64_t interval_ms(const struct members *m, bool seldom)
{
	uint64_t ms = (uint64_t)m->cfg.greet_ms * (seldom ? 10 : 1);

	/* With greet_ms = 3 s, many addresses make 40 greetings a second; the
	 * bucket leaves room for urgent ones. */
	return max_u64(ms, m->naddrs * m->cfg.greet_ms / 120);
}

/* Returns the delay after failures of the member's primary address, by their
 * number; 0: the delay for a member that is gone. */
static uint64_t retry_ms(const struct addr *a)
{
	const struct member *mb = &a->node->mb;
	uint64_t ms = a->m->cfg.greet_ms;
	unsigned int n = mb->failures;

	if (mb->state == MEMBER_NEW)
		n++;
	return n == 2 ? ms / 6 : n == 3 ? ms / 3 : 0;
}

static uint64_t next_due(const struct addr *a)
{
	struct members *m = a->m;
	uint64_t now = now_ms(), ms;
	const struct member_node *node = a->node;

	if (!node || node->primary != a)
		return now + members_jitter(m, interval_ms(m, true));
	if (node->mb.failures == 0)
		return now + members_jitter(m, interval_ms(m, false));
	if (node->mb.state == MEMBER_SUSPECT && node->mb.failures == 1)
		return 0;
	ms = retry_ms(a);
	return now + members_jitter(m, ms ? ms : interval_ms(m, true));
}

void addr_again(struct addr *a)
{
	a->m->greeting--;
	heap_add(a->m, a, next_due(a));
}

/* ---- Addresses ---- */

static struct addr **bucket_of(struct members *m, const char *text)
{
	return &m->by_text[place_hash(text, strlen(text)) % MEMBERS_BUCKETS];
}

struct addr *addr_find(struct members *m, const char *text)
{
	struct addr *a = *bucket_of(m, text);

	while (a && strcmp(a->text, text) != 0)
		a = a->hash_next;
	return a;
}

static int heap_reserve(struct members *m)
{
	struct addr **heap = array_grow((void *)m->heap, m->naddrs,
					&m->heap_cap, sizeof(struct addr *));

	if (!heap)
		return -ENOMEM;
	m->heap = heap;
	return 0;
}

static struct addr *addr_new(struct members *m, const struct resolve_addr *at)
{
	struct addr *a, **p;

	if (m->naddrs >= MEMBERS_MAX) {
		if (!m->full_told)
			log_warn("too many members, further ones are left out",
				 LU("max", MEMBERS_MAX));
		m->full_told = true;
		return NULL;
	}
	if (heap_reserve(m) < 0)
		return NULL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->m = m;
	a->at = *at;
	(void)resolve_addr_text(at, a->text);
	list_init(&a->sibling);
	if (node_new(m, a) < 0) {
		free(a);
		return NULL;
	}
	a->since_ms = now_ms();
	list_add_tail(&m->addrs, &a->all);
	m->naddrs++;
	p = bucket_of(m, a->text);
	a->hash_next = *p;
	*p = a;
	/* Addresses that are found together are not greeted all at once. */
	heap_add(m, a,
		 now_ms() + members_jitter(m, m->cfg.greet_ms / 60) +
			 members_jitter(m, min_u64(m->cfg.greet_ms / 3,
						   m->naddrs * m->cfg.greet_ms /
							   150)));
	return a;
}

struct addr *addr_get(struct members *m, const struct resolve_addr *at)
{
	char text[RESOLVE_TEXT_MAX];
	struct addr *a = addr_find(m, resolve_addr_text(at, text));

	return a ? a : addr_new(m, at);
}

static void addr_unawait(struct addr *a)
{
	if (!a->awaited)
		return;
	a->awaited = false;
	a->m->awaited--;
	members_check_settled(a->m);
}

void addr_greeted(struct addr *a)
{
	a->greeted = true;
	addr_unawait(a);
}

void addr_free(struct addr *a)
{
	struct members *m = a->m;
	struct addr **p = bucket_of(m, a->text);

	while (*p != a)
		p = &(*p)->hash_next;
	*p = a->hash_next;
	addr_unawait(a);
	if (a->heap_at != SIZE_MAX)
		heap_del(m, a);
	if (a->node)
		node_drop_addr(a->node, a,
			       "no lookup names its address any more");
	list_del(&a->all);
	m->naddrs--;
	m->full_told = false;
	free(a);
}

/* How long a node that greeted this one counts as named: longer than a node of
 * a large cluster waits between two greetings. */
static uint64_t learned_ms(const struct members *m)
{
	return max_u64((uint64_t)m->cfg.greet_ms * 20,
		       interval_ms(m, false) * 2);
}

bool addr_is_named(const struct addr *a)
{
	return a->named > 0 ||
	       (a->learned_ms && now_ms() - a->learned_ms < learned_ms(a->m));
}

/* An address that nobody names, and that has not answered for long, or
 * never. */
static bool is_spent(const struct addr *a)
{
	const struct member_node *node = a->node;
	uint64_t last =
		max_u64(a->since_ms, max_u64(a->learned_ms, a->answered_ms));

	if (addr_is_named(a) ||
	    (node && node->primary == a && member_lives(&node->mb)))
		return false;
	if (!node)
		return true; /* this node */
	if (a->answered_ms == 0 && a->failures >= MEMBERS_GONE_AFTER)
		return true;
	return now_ms() - last > (uint64_t)a->m->cfg.greet_ms * 100;
}

/* ---- Lookups ---- */

static void addr_name(struct addr *a)
{
	struct members *m = a->m;

	if (a->named++ > 0 || a->greeted || a->awaited || m->settled)
		return;
	a->awaited = true;
	m->awaited++;
}

static void addr_unname(struct addr *a)
{
	if (--a->named == 0)
		a->since_ms = now_ms();
}

/* A name of kind host:port gives one address: the first that works. It stays
 * for as long as the name has it. */
static void choose_one(const struct name *nm, struct resolve_result *res)
{
	const struct addr *old = nm->n ? nm->v[0] : NULL;
	char text[RESOLVE_TEXT_MAX];

	for (size_t i = 0; old && i < res->n; i++) {
		if (strcmp(resolve_addr_text(&res->v[i], text), old->text) != 0)
			continue;
		if (old->failures >= MEMBERS_GONE_AFTER)
			i = (i + 1) % res->n;
		res->v[0] = res->v[i];
		break;
	}
	res->n = min_u64(res->n, 1);
}

static void apply_lookup(struct name *nm, struct members *m,
			 struct resolve_result *res)
{
	struct addr **v;
	size_t n = 0;

	v = calloc(res->n + nm->n + 1, sizeof(struct addr *));
	if (!v)
		return; /* the next lookup tries again */
	if (nm->nm.kind == RESOLVE_HOST)
		choose_one(nm, res);
	m->mark++;
	for (size_t i = 0; i < res->n; i++) {
		struct addr *a = addr_get(m, &res->v[i]);

		if (!a || a->mark == m->mark)
			continue;
		a->mark = m->mark;
		addr_name(a);
		v[n++] = a;
	}
	for (size_t i = 0; res->partial && i < nm->n; i++) {
		if (nm->v[i]->mark == m->mark)
			continue;
		addr_name(nm->v[i]);
		v[n++] = nm->v[i];
	}
	for (size_t i = 0; i < nm->n; i++)
		addr_unname(nm->v[i]);
	free((void *)nm->v);
	nm->v = v;
	nm->n = n;
}

static void log_lookup(struct name *nm, int r, const char *why)
{
	if (nm->told == r)
		return;
	if (r == -ENOENT)
		log_warn("a name of --peers has no address",
			 LS("name", nm->text), LS("why", why));
	else if (r < 0)
		log_warn("cannot look up a name of --peers, its last addresses "
			 "stay in use",
			 LS("name", nm->text), LS("why", why), LE(r));
	else
		log_info("a name of --peers can be looked up again",
			 LS("name", nm->text), LU("addrs", nm->n));
	nm->told = r;
}

static void looked_up(struct members *m, struct name *nm, int r,
		      struct resolve_result *res)
{
	/* Thousands of names must not keep a worker busy. */
	uint64_t ms =
		max_u64(m->cfg.lookup_ms, m->nnames * m->cfg.lookup_ms / 50);

	if (r == 0 || r == -ENOENT)
		apply_lookup(nm, m, res);
	log_lookup(nm, r, res->why);
	nm->due_ms = now_ms() + members_jitter(m, ms);
	if (!nm->looked_up) {
		nm->looked_up = true;
		m->unlooked--;
		members_check_settled(m);
	}
}

/* On a worker. */
static void lookup_work(struct loop_job *j)
{
	struct members *m = container_of(j, struct members, job);

	m->job_r = resolve_run(&m->job_name->nm, m->cfg.nameserver, &m->stop,
			       &m->job_result);
}

static void lookup_done(struct loop_job *j)
{
	struct members *m = container_of(j, struct members, job);

	m->looking_up = false;
	if (!m->closing) {
		looked_up(m, m->job_name, m->job_r, &m->job_result);
		members_arm(m);
	}
	resolve_result_release(&m->job_result);
	members_unref(m);
}

/* One lookup at a time: a name server that hangs blocks one worker only. */
static struct name *next_name(struct members *m)
{
	struct name *first = NULL;

	for (size_t i = 0; !m->looking_up && i < m->nnames; i++)
		if (m->names[i].nm.kind != RESOLVE_ADDR &&
		    (!first || m->names[i].due_ms < first->due_ms))
			first = &m->names[i];
	return first;
}

static void start_lookup(struct members *m)
{
	struct name *nm = next_name(m);

	if (!nm || nm->due_ms > now_ms())
		return;
	m->looking_up = true;
	m->job_name = nm;
	m->refs++;
	loop_work(m->cfg.loop, &m->job, lookup_work, lookup_done);
}

int names_init(struct members *m, struct error *err)
{
	const struct string_list *l = m->cfg.peers;
	size_t n = l ? l->n : 0;
	struct resolve_result res;

	m->cfg.peers = NULL; /* no longer borrowed */
	if (n > MEMBERS_MAX)
		return set_error(err, -EINVAL, "more than %d peers",
				 MEMBERS_MAX);
	m->names = calloc(n + 1, sizeof(*m->names));
	if (!m->names)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		struct name *nm = &m->names[m->nnames];
		int r = resolve_parse(l->v[i], &nm->nm, err);

		if (r < 0)
			return r;
		nm->text = strdup(l->v[i]);
		if (!nm->text)
			return -ENOMEM;
		m->nnames++;
		m->unlooked++;
		if (nm->nm.kind != RESOLVE_ADDR)
			continue;
		r = resolve_run(&nm->nm, NULL, &m->stop, &res);
		if (r == 0)
			looked_up(m, nm, r, &res);
		resolve_result_release(&res);
		if (r < 0)
			return r;
	}
	members_check_settled(m);
	return 0;
}

void names_release(struct members *m)
{
	for (size_t i = 0; i < m->nnames; i++) {
		free(m->names[i].text);
		free((void *)m->names[i].v);
	}
	free(m->names);
}

/* ---- Time ---- */

static void greet_due(struct members *m)
{
	uint64_t now = now_ms();

	while (m->heap_n > 0 && m->greeting < MAX_GREETING &&
	       m->heap[0]->due_ms <= now) {
		struct addr *a = m->heap[0];

		if (is_spent(a)) {
			addr_free(a);
			continue;
		}
		if (!bucket_take(&m->may_greet))
			break;
		heap_del(m, a);
		a->tried_ms = now;
		if (greet_start(a) < 0)
			addr_again(a);
	}
}

void members_arm(struct members *m)
{
	const struct name *nm;
	uint64_t now = now_ms(), wait = 60000, due;

	if (m->closing)
		return;
	if (m->heap_n > 0 && m->greeting < MAX_GREETING) {
		due = m->heap[0]->due_ms;
		due = due > now ? due - now : 0;
		wait = min_u64(wait,
			       max_u64(due, bucket_wait_ms(&m->may_greet)));
	}
	nm = next_name(m);
	if (nm)
		wait = min_u64(wait, nm->due_ms > now ? nm->due_ms - now : 0);
	/* The loop's cached time may be old; the timer would fire too early. */
	uv_update_time(loop_uv(m->cfg.loop));
	(void)uv_timer_start(&m->timer, members_on_timer, wait, 0);
}

void members_on_timer(uv_timer_t *t)
{
	struct members *m = t->data;

	if (m->dirty)
		members_post(m);
	greet_due(m);
	start_lookup(m);
	members_arm(m);
}
