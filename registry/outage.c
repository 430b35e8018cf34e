/* Hosts that do not answer: "down" until a probe in the background gets an
 * answer, or another request does. */
#include <string.h>

#include "base/log.h"
#include "registry/registry-private.h"

/* Between two probes. */
#define PROBE_FIRST_MS 1000
#define PROBE_MAX_MS   5000
/* What nobody here knows is still asked of a host that is down. It gets less
 * time once it has used up the whole time of a request. */
#define DOWN_DEADLINE_MS 5000
/* Connections from before the outage are not used again for so long after it.
 * By then libcurl has closed them: they were idle for 118 s. */
#define REMEMBER_MS 120000
#define MAX_OUTAGES 1024

struct outage {
	struct name_node node; /* in registry.outages, by the host's name */
	struct registry *r;
	char *host, *name; /* a repository of it, for the login */
	uint64_t began_ms;
	uint64_t over_ms; /* 0: it is down */
	bool confirmed;	  /* a request ended without an answer */
	uint32_t probes;
	struct call *probe;
	struct delay pause; /* until the next probe */
};

static void outage_free(struct outage *o)
{
	delay_cancel(&o->pause);
	call_abandon(&o->probe);
	free(o->host);
	free(o->name);
	free(o);
}

static void outage_del(struct outage *o)
{
	name_table_del(&o->r->outages, &o->node);
	outage_free(o);
}

static struct outage *find(struct registry *r, const char *host)
{
	struct name_node *tn = host ? name_table_find(&r->outages, host) : NULL;
	struct outage *o;

	if (!tn)
		return NULL;
	o = name_table_entry(tn, struct outage, node);
	if (!o->over_ms || now_ms() - o->over_ms < REMEMBER_MS)
		return o;
	outage_del(o);
	return NULL;
}

static void probe_later(struct outage *o)
{
	uint64_t wait = (uint64_t)PROBE_FIRST_MS << min_u64(o->probes++, 8);

	delay_set(o->r, &o->pause, now_ms() + min_u64(wait, PROBE_MAX_MS));
}

static void over(struct outage *o)
{
	if (o->over_ms)
		return;
	o->over_ms = now_ms();
	delay_cancel(&o->pause);
	call_abandon(&o->probe);
	log_info("a registry answers again", LS("registry", o->host),
		 LU("seconds", (o->over_ms - o->began_ms) / 1000));
}

static void probed(struct call *c, int r, const char *why)
{
	struct outage *o = c->arg;

	(void)why;
	o->probe = NULL;
	if (r < 0 && call_unreachable(c, r))
		probe_later(o);
	else
		over(o);
}

/* With the login of the repository that failed: its token server may be what
 * does not answer. */
static void send_probe(struct delay *d)
{
	static const struct call_ops ops = {.done = probed};
	struct outage *o = container_of(d, struct outage, pause);
	CLEANUP(login_unref) struct login *s = NULL;
	CLEANUP(freep) char *url = NULL;
	struct call_spec spec = {
		.max_body = MANIFEST_MAX_BYTES,
		.deadline_ms = now_ms() + o->r->meta_timeout_ms,
		.registry = o->host,
	};
	int r;

	r = login_url(o->r, o->host, o->name, &s, &url, "%s", "");
	spec.url = url;
	spec.login = s;
	if (r == 0)
		r = call_start(o->r, &spec, &ops, o, &o->probe);
	if (r < 0)
		probe_later(o);
}

static struct outage *outage_new(struct registry *r, const char *host,
				 const char *name)
{
	struct outage *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->r = r;
	delay_init(&o->pause, send_probe);
	o->host = strdup(host);
	o->name = strdup(name);
	if (r->outages.n >= MAX_OUTAGES)
		outage_del(name_table_first(&r->outages, struct outage, node));
	if (!o->host || !o->name ||
	    name_table_add(&r->outages, &o->node, host) < 0) {
		outage_free(o);
		return NULL;
	}
	return o;
}

void outage_begin(struct registry *r, const char *host, const char *name,
		  bool confirmed)
{
	struct outage *o = find(r, host);

	if (r->negative_ms == 0)
		return;
	if (o && !o->over_ms) {
		o->confirmed |= confirmed;
		return;
	}
	if (o)
		outage_del(o);
	o = outage_new(r, host, name);
	if (!o)
		return;
	o->began_ms = now_ms();
	o->confirmed = confirmed;
	probe_later(o);
}

bool outage_now(struct registry *r, const char *host)
{
	const struct outage *o = find(r, host);

	return o && !o->over_ms;
}

void outage_end(struct registry *r, const char *host)
{
	struct outage *o = find(r, host);

	if (o)
		over(o);
}

uint64_t outage_deadline_ms(struct registry *r, const char *host)
{
	const struct outage *o = find(r, host);
	bool brief = o && !o->over_ms && o->confirmed;

	return now_ms() + (brief ? min_u64(DOWN_DEADLINE_MS, r->meta_timeout_ms)
				 : r->meta_timeout_ms);
}

uint32_t outage_connection_age_s(struct registry *r, const char *host)
{
	const struct outage *o = find(r, host);

	return o ? (uint32_t)((now_ms() - o->began_ms) / 1000) + 1 : 0;
}

void outages_release(struct registry *r)
{
	name_table_for_each_safe(it, &r->outages)
		outage_del(name_table_at(it, struct outage, node));
}
