/* The verdict "slow".
 *
 * A member is slow if it delivers much less than the others at the same time. A
 * fixed limit, or a comparison with earlier rates, would take a crowded link
 * for a fault of all members, and send them all to upstream at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "p2p/peers-private.h"

/* How long a slow member is not asked; doubled with each verdict. */
#define SLOW_MS	    15000
#define SLOW_MAX_MS 120000

/* ---- Normal durations ---- */

/* Fewer samples say nothing. */
#define NORM_LEAST 3

void slow_note(struct peers *p, bool had_it, uint64_t ms, uint64_t bytes)
{
	struct norm *n = had_it ? &p->norm_holder : &p->norm_owner;
	uint64_t per_mib = bytes ? ms * CHUNK_SIZE / bytes : 0;

	n->ms[n->n++ % NORM_SAMPLES] = (uint32_t)min_u64(per_mib, UINT32_MAX);
}

/* Copies the latest durations per MiB and returns their number; 0: not known
 * yet. Owners may have to wait for upstream, so durations of holders are used
 * only while there are too few of owners. */
static unsigned int samples(const struct peers *p, uint32_t v[NORM_SAMPLES])
{
	const struct norm *n =
		p->norm_owner.n < NORM_LEAST ? &p->norm_holder : &p->norm_owner;
	unsigned int k = (unsigned int)min_u64(n->n, NORM_SAMPLES);

	memcpy(v, n->ms, k * sizeof(v[0]));
	return k < NORM_LEAST ? 0 : k;
}

uint64_t slow_normal_ms(const struct peers *p, uint64_t bytes)
{
	uint32_t v[NORM_SAMPLES];
	unsigned int k = samples(p, v);

	if (k == 0)
		return 0;
	return max_u64(place_normal_ms(v, k, 0) * bytes / CHUNK_SIZE, 1);
}

/* An open request counts with its age if that is longer than normal: when all
 * wait for one thing, all are late and none is slow. */
static uint64_t normal_now_ms(const struct peers *p, uint64_t now)
{
	uint32_t v[2 * NORM_SAMPLES];
	unsigned int ended = samples(p, v), k = ended;

	if (ended == 0)
		return 0;
	list_for_each (it, &p->asks) {
		const struct ask *a = list_entry(it, struct ask, node);

		if (a->x && !a->paused && k < 2 * NORM_SAMPLES)
			v[k++] =
				(uint32_t)min_u64(now - a->sent_ms, UINT32_MAX);
	}
	return place_normal_ms(v, ended, k - ended);
}

/* ---- Rates ---- */

static void pace_tick(struct peers *p, uint64_t now)
{
	uint64_t age = now - p->slot_ms;
	bool ended = age >= pace_slot_ms(slow_normal_ms(p, CHUNK_SIZE));

	list_for_each (n, &p->asks) {
		struct ask *a = list_entry(n, struct ask, node);

		if (a->at && a->paused)
			a->at->paused = true;
	}
	list_for_each (n, &p->partners) {
		struct partner *w = list_entry(n, struct partner, node);

		if (w->active == 0 || w->paused)
			pace_break(&w->pace);
		if (ended)
			pace_slot(&w->pace, (uint32_t)min_u64(age, UINT32_MAX));
		w->paused = false;
	}
	if (ended)
		p->slot_ms = now;
}

static int by_pace(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

struct paces {
	double median; /* of the members that are asked now; -1: fewer than
			  three */
	unsigned int slow, alive;
};

#define PACE_MEMBERS 128

static struct paces pace_now(struct peers *p, uint64_t now)
{
	double v[PACE_MEMBERS] = {0};
	unsigned int n = 0;
	struct paces r = {.median = -1};

	list_for_each (it, &p->partners) {
		const struct partner *w = list_entry(it, struct partner, node);
		double pace = pace_rate(&w->pace, PACE_SLOTS / 3);

		r.slow += w->slow_ms > now;
		r.alive += partner_alive(w);
		if (pace >= 0 && n < PACE_MEMBERS)
			v[n++] = pace;
	}
	qsort(v, n, sizeof(v[0]), by_pace);
	if (n >= 3)
		r.median = v[n / 2];
	return r;
}

/* A member that delivers less than 1/SLOW_PART of the median seems slow; with
 * less than 1/SURE_PART it certainly is. */
#define SLOW_PART  5
#define SURE_PART  10
#define SLOW_SLOTS 12 /* slots in which this node waited for it */
/* How long the opinion of another member counts. At least DOUBTS_MIN members,
 * and a quarter of all, must agree, so that the error of one does not make all
 * avoid a member. A node speaks for itself only: see members_speaker(). */
#define DOUBT_MS   5000
#define DOUBTS_MIN 2
/* With the opinion of one other member: less than this part, over so many
 * slots. */
#define DOUBTED_PART  4
#define DOUBTED_SLOTS 8
/* Medians below this (bytes per second) are no basis for a verdict. */
#define PACE_LEAST (160u << 10)
/* Rates from before a pause this long say nothing about now. */
#define FRESH_MS 2000
/* Less than HEARD_LEAST bytes for so long is silence. */
#define SILENT_MS     2000
#define SILENT_MAX_MS 6000

/* ---- Opinions of others ---- */

/* Whether Peerd-Slow names it: as slow (verdict), or as seemingly slow. */
static bool is_told(const struct partner *w, bool verdict, uint64_t now)
{
	return partner_alive(w) && (verdict ? w->slow_ms > now && w->slow_seen
					    : w->seems_slow_ms > 0);
}

char *slow_text(const struct peers *p, char out[SLOW_TEXT_SIZE])
{
	uint64_t now = now_ms();
	unsigned int n = 0;
	size_t len = 0;

	/* Verdicts first: there may be many impressions. */
	for (int verdict = 1; verdict >= 0; verdict--) {
		list_for_each (it, &p->partners) {
			const struct partner *w =
				list_entry(it, struct partner, node);

			if (n == SLOW_MAX_IDS || !is_told(w, verdict, now))
				continue;
			len += (size_t)snprintf(out + len, SLOW_TEXT_SIZE - len,
						"%s%s", n ? "," : "",
						w->mb->id);
			n++;
		}
	}
	return n ? out : NULL;
}

struct hearsay {
	struct peers *p;
	const struct partner *from;
};

static void doubt(void *arg, const char *id)
{
	const struct hearsay *h = arg;
	struct partner *w = partner_find(h->p, id);
	unsigned int at = 0;

	if (!w || w == h->from || now_ms() < w->pardoned_ms)
		return;
	for (unsigned int i = 0; i < DOUBTERS; i++) {
		if (w->doubts[i].who == h->from) {
			at = i;
			break;
		}
		if (w->doubts[i].ms < w->doubts[at].ms)
			at = i;
	}
	w->doubts[at].who = h->from;
	w->doubts[at].ms = now_ms();
}

void slow_read(struct peers *p, const struct partner *w, const char *text)
{
	struct hearsay h = {.p = p, .from = w};

	if (text && w)
		(void)slow_text_parse(text, doubt, &h);
}

static unsigned int doubts(const struct partner *w, uint64_t now)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < DOUBTERS; i++)
		n += w->doubts[i].ms && now - w->doubts[i].ms < DOUBT_MS;
	return n;
}

/* ---- The verdict ---- */

/* Whether this node sees it deliver less than 1/part of the median. */
static bool lags(const struct partner *w, const struct paces *pace,
		 uint64_t normal_ms, unsigned int part, unsigned int nslots)
{
	double rate = pace_rate(&w->pace, nslots);

	return w->active > 0 && rate >= 0 && normal_ms > 0 &&
	       pace->median >= PACE_LEAST && rate * part < pace->median;
}

/* An impression of one node alone is often chance, or upstream is late for one
 * of the member's chunks. It becomes a verdict if another node shares it, if it
 * lasts, or if it is very clear. The opinion of others must not create an
 * impression here: two nodes would confirm each other's. */
static bool is_slow(struct partner *w, const struct paces *pace,
		    uint64_t normal_ms, uint64_t now)
{
	uint64_t patience =
		min_u64(max_u64(SILENT_MS, 4 * normal_ms), SILENT_MAX_MS);

	if (w->slow_ms > now)
		return false;
	if (!lags(w, pace, normal_ms, SLOW_PART, SLOW_SLOTS))
		w->seems_slow_ms = 0;
	else if (!w->seems_slow_ms)
		w->seems_slow_ms = now;
	if (w->active > 0 && now - w->heard_ms >= patience)
		return true;
	if (doubts(w, now) > 0 &&
	    lags(w, pace, normal_ms, DOUBTED_PART, DOUBTED_SLOTS))
		return true;
	return w->seems_slow_ms &&
	       (now - w->seems_slow_ms >= patience ||
		lags(w, pace, normal_ms, SURE_PART, SLOW_SLOTS));
}

static bool is_doubted(const struct partner *w, const struct paces *pace,
		       uint64_t now)
{
	double own = pace_rate(&w->pace, PACE_SLOTS / 3);
	unsigned int n = doubts(w, now);

	/* It may be slow for the others, but not for this node. */
	if (pace->median > 0 && own * 2 >= pace->median)
		return false;
	return n >= DOUBTS_MIN && (n >= pace->alive / 4 || n == DOUBTERS);
}

static void take_over(struct peers *p, struct partner *w, double median,
		      bool seen, uint64_t now)
{
	unsigned int shift = w->slow_times < 4 ? w->slow_times : 4;
	double pace = pace_rate(&w->pace, 1);

	w->slow_times++;
	w->pardon = false;
	w->slow_seen = seen;
	w->seems_slow_ms = 0;
	w->slow_ms = now + min_u64((uint64_t)SLOW_MS << shift, SLOW_MAX_MS);
	p->takeovers++;
	log_info("a member is slow: others are asked",
		 LS("member", partner_name(w)), LU("requests", w->active),
		 LD("bytes_per_second", pace), LD("others", median),
		 LU("silent_ms", w->active ? now - w->heard_ms : 0),
		 LS("found_by", seen ? "this node" : "others"));
	asks_leave(p, w, "slower than the other members");
}

/* For so long others may still repeat the old verdict. */
#define PARDON_MS 10000

static void see_anew(struct partner *w)
{
	memset(&w->pace, 0, sizeof(w->pace));
	w->seems_slow_ms = 0;
}

static void forget(struct partner *w, uint64_t now)
{
	w->pardon = false;
	w->pardoned_ms = now + PARDON_MS;
	w->slow_ms = 0;
	memset(w->doubts, 0, sizeof(w->doubts));
	w->heard_ms = now;
	see_anew(w);
}

/* A suspect member may be about to leave as well: it waits until it is not. */
static void pardon(struct partner *w, uint64_t now)
{
	if (!w->pardon || !w->mb || w->mb->state != MEMBER_ALIVE)
		return;
	forget(w, now);
	log_info("a slow member is tried again: it may have waited for a "
		 "member that is gone",
		 LS("member", partner_name(w)));
}

void slow_members_changed(struct peers *p)
{
	uint64_t now = now_ms();
	bool left = false;

	list_for_each (n, &p->partners) {
		struct partner *w = list_entry(n, struct partner, node);
		bool lives = partner_alive(w);

		if (w->lived && !lives) {
			left = true;
			w->slow_times = 0;
			forget(w, now);
		}
		w->lived = lives;
	}
	list_for_each (n, &p->partners) {
		struct partner *w = list_entry(n, struct partner, node);

		/* Two verdicts with no range delivered in between: the member
		 * itself is slow. */
		if (!left || w->slow_times > 1 || w->slow_ms <= now)
			continue;
		w->pardon = true;
		pardon(w, now);
	}
}

void slow_begin(struct peers *p, uint64_t now)
{
	bool fresh = now - p->slot_ms > FRESH_MS;

	p->slot_ms = now;
	if (!fresh)
		return;
	list_for_each (n, &p->partners)
		see_anew(list_entry(n, struct partner, node));
}

void slow_tick(struct peers *p, uint64_t now)
{
	struct paces pace = pace_now(p, now);
	uint64_t normal = slow_normal_ms(p, CHUNK_SIZE);

	list_for_each_safe (n, &p->partners) {
		struct partner *w = list_entry(n, struct partner, node);
		bool seen;

		pardon(w, now);
		seen = is_slow(w, &pace, normal, now);
		if (!seen && (w->slow_ms > now || !partner_alive(w) ||
			      !is_doubted(w, &pace, now)))
			continue;
		/* If many members are slow, the cause lies elsewhere; but
		 * silence always counts. */
		if (pace.slow >= 1 + pace.alive / 4 &&
		    (!seen || now - w->heard_ms < SILENT_MAX_MS))
			continue;
		take_over(p, w, pace.median, seen, now);
		pace.slow++;
	}
	pace_tick(p, now);
	asks_hedge(p, normal_now_ms(p, now), now);
	asks_pump(p); /* the pause of a member may be over */
}
