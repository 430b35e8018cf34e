/* The running SHA-256 of each blob over its contiguous prefix, and its result.
 *
 * Two threads take blobs from two queues: [0] has the blobs that somebody waits
 * for, at normal priority; [1] has all others, at low priority. (One thread
 * could not do both: an unprivileged thread cannot raise its priority again.) A
 * blob is on one queue at most, and with one thread. It is queued when its sum
 * can continue, and leaves when it cannot. */
#include "store/store-private.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SLICE_CHUNKS 16
#define LOW_PRIORITY 19

static bool complete(const struct blob *b)
{
	return LOAD(&b->npresent) == b->chunks;
}

/* True if b still needs a check and its next chunk is present. */
static bool can_sum(const struct blob *b)
{
	uint32_t next = b->sum_reset ? 0 : LOAD(&b->sum_next);

	if (b->key.kind != BLOB_SHA256 || b->chunks == 0)
		return false;
	if (LOAD(&b->state) != BLOB_PROVISIONAL && !b->sum_forced)
		return false;
	return next >= b->chunks || chunk_present(b, next);
}

static int queue_of(const struct blob *b)
{
	return list_empty(&b->waiters) ? 1 : 0;
}

static void enqueue(struct store *s, struct blob *b)
{
	int q = queue_of(b);

	b->sum_queued = true;
	list_add_tail(&s->sums[q], &b->sum_node);
	(void)pthread_cond_signal(&s->sum_wake[q]);
}

void sum_kick_locked(struct blob *b)
{
	struct store *s = b->store;

	if (s->stop || b->sum_queued || b->sum_running || !can_sum(b))
		return;
	blob_ref_locked(b);
	enqueue(s, b);
}

uint64_t blob_unsummed_bytes(const struct blob *b)
{
	uint64_t done = LOAD(&b->sum_next) * CHUNK_SIZE;

	if (b->key.kind != BLOB_SHA256 || blob_get_state(b) == BLOB_VERIFIED)
		return 0;
	return done < b->size ? b->size - done : 0;
}

/* ---- One blob ---- */

static void call_waiters(struct list *waiters, int r)
{
	while (!list_empty(waiters)) {
		struct sum_waiter *w =
			list_first(waiters, struct sum_waiter, node);

		list_del(&w->node);
		w->done(w->arg, r);
		free(w);
	}
}

/* At a mismatch, tells which chunks are dropped: those from members, or all. */
static bool is_suspect(const struct seg *g, uint32_t i, bool peers_only)
{
	return bit_get(g->present, i) &&
	       (!peers_only || (g->from[i] != CHUNK_FROM_UPSTREAM &&
				g->from[i] != CHUNK_FROM_VERIFIED));
}

static uint32_t drop_suspects(struct blob *b, bool peers_only)
{
	uint32_t n = 0;

	for (uint32_t k = 0; k < b->nsegs; k++) {
		store_lock(b->store);
		for (uint32_t i = 0; seg_at(b, k) && i < seg_at(b, k)->n; i++) {
			if (!is_suspect(seg_at(b, k), i, peers_only))
				continue;
			chunk_drop_locked(b, k * INDEX_SEG + i);
			holds_break_locked(b, k * INDEX_SEG + i);
			n++;
		}
		store_unlock(b->store);
	}
	return n;
}

static void mismatched(struct store *s, struct blob *b)
{
	char str[DIGEST_STR_SIZE];
	uint32_t n;

	store_lock(s);
	STORE_REL(&b->gate, GATE_FAILED);
	b->rec_changed = true;
	store_unlock(s);
	n = drop_suspects(b, true);
	if (n == 0)
		n = drop_suspects(b, false);
	ADD(&s->mismatched_blobs, 1);
	log_warn("a blob does not match its digest; its chunks are dropped",
		 LS("blob", digest_str(&b->key.id, str)), LU("chunks", n));
	if (s->event)
		s->event(s->event_arg, b, BLOB_EV_MISMATCH);
}

/* mu is held. */
static void set_verified(struct store *s, struct blob *b)
{
	STORE_REL(&b->proven, true);
	STORE_REL(&b->state, BLOB_VERIFIED);
	STORE_REL(&b->gate, GATE_OPEN);
	b->rec_changed = true;
	for (uint32_t k = 0; k < b->nsegs; k++) {
		for (uint32_t i = 0; i < seg_at(b, k)->n; i++)
			seg_at(b, k)->from[i] = CHUNK_FROM_VERIFIED;
		seg_at(b, k)->changed = true;
	}
	blob_dirty_locked(b);
	ADD(&s->verified_blobs, 1);
}

/* Compares the complete sum. 0, -EBADMSG, or -EAGAIN: a chunk was dropped
 * meanwhile. */
static int conclude(struct store *s, struct blob *b)
{
	char str[DIGEST_STR_SIZE];
	struct digest d;
	bool match, again;

	sha256_final(b->sum, &d);
	match = digest_equal(&d, &b->key.id);
	store_lock(s);
	again = b->sum_reset || !complete(b);
	b->sum_reset = false;
	b->sum_forced = again && b->sum_forced;
	STORE(&b->sum_next, 0);
	sha256_free(&b->sum);
	if (match && !again)
		set_verified(s, b);
	store_unlock(s);
	if (again)
		return -EAGAIN;
	if (!match) {
		mismatched(s, b);
		return -EBADMSG;
	}
	log_debug("blob verified", LS("blob", digest_str(&b->key.id, str)),
		  LU("bytes", b->size));
	if (s->event)
		s->event(s->event_arg, b, BLOB_EV_VERIFIED);
	return 0;
}

static int begin(struct store *s, struct blob *b)
{
	store_lock(s);
	if (b->sum_reset) {
		sha256_free(&b->sum);
		STORE(&b->sum_next, 0);
		b->sum_reset = false;
	}
	if (!b->sum)
		b->sum = sha256_new();
	store_unlock(s);
	return b->sum ? 0 : -ENOMEM;
}

/* Keeps the state behind the chunk for chunk_prove(). mu is held. */
static int note_sum_locked(struct blob *b, uint32_t chunk)
{
	struct seg *g = seg_of(b, chunk);

	if (LOAD(&b->proven)) /* since this sum was asked for */
		return 0;
	/* Also for a segment of the last chunk alone, as a part of the proof.
	 */
	if (!g->sums)
		g->sums = calloc(g->n, sizeof(*g->sums));
	if (!g->sums)
		return -ENOMEM;
	if (chunk + 1 == b->chunks)
		return 0;
	sha256_state(b->sum, g->sums[chunk % INDEX_SEG]);
	return 0;
}

/* Sums some chunks. 0 or -EBADMSG: the sum is complete. -EAGAIN: continue when
 * can_sum(). -ENODATA: the next chunk is absent. */
static int slice(struct store *s, struct blob *b, int which, uint8_t *buf)
{
	int r = begin(s, b);

	for (int i = 0; r == 0 && i < SLICE_CHUNKS; i++) {
		uint32_t next = LOAD(&b->sum_next);

		if (next == b->chunks)
			return conclude(s, b);
		r = chunk_read(b, next, buf);
		if (r < 0)
			return r;
		sha256_update(b->sum, buf, blob_chunk_len(b, next));
		store_lock(s);
		r = note_sum_locked(b, next);
		STORE(&b->sum_next, next + 1);
		if (r == 0 && (b->sum_reset || s->stop ||
			       (which == 1 && !list_empty(&b->waiters))))
			r = -EAGAIN;
		store_unlock(s);
	}
	return r < 0 ? r : -EAGAIN;
}

/* True if the waiters get an answer, which is *r then; mu is held. They wait
 * only for a complete blob, so an absent chunk ends the wait. */
static bool answer(const struct blob *b, int *r)
{
	if (*r == 0 || *r == -EBADMSG)
		return true;
	if (!complete(b))
		*r = -ENODATA;
	else if (*r == -EAGAIN || *r == -ENODATA)
		return false;
	return true;
}

static void sum_one(struct store *s, struct blob *b, int which, uint8_t *buf)
{
	struct list waiters;
	int r = slice(s, b, which, buf);
	bool go_on = r == 0 || r == -EBADMSG || r == -EAGAIN || r == -ENODATA;

	list_init(&waiters);
	store_lock(s);
	b->sum_running = false;
	if (answer(b, &r)) {
		list_move_all(&b->waiters, &waiters);
		b->sum_forced = false;
	}
	if (go_on && can_sum(b)) {
		blob_ref_locked(b);
		enqueue(s, b);
	}
	store_unlock(s);
	call_waiters(&waiters, r);
	blob_unref(&b);
}

static struct blob *take(struct store *s, int which)
{
	struct blob *b;

	while (!s->stop && list_empty(&s->sums[which]))
		(void)pthread_cond_wait(&s->sum_wake[which], &s->mu);
	if (s->stop)
		return NULL;
	b = list_first(&s->sums[which], struct blob, sum_node);
	list_del(&b->sum_node);
	b->sum_queued = false;
	b->sum_running = true;
	return b;
}

void *sum_main(void *arg)
{
	struct sum_arg *a = arg;
	struct store *s = a->store;
	int which = a->which;
	uint8_t *buf = NULL;
	struct blob *b;

	free(a);
	(void)pthread_setname_np(pthread_self(), which ? "sum-low" : "sum");
	if (which == 1)
		(void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid),
				  LOW_PRIORITY);
	for (;;) {
		store_lock(s);
		if (list_empty(&s->sums[which]) && buf) {
			store_unlock(s);
			free(buf);
			buf = NULL;
			store_lock(s);
		}
		b = take(s, which);
		store_unlock(s);
		if (!b)
			break;
		while (!buf) {
			buf = malloc(CHUNK_SIZE);
			if (!buf)
				(void)usleep(100000);
		}
		sum_one(s, b, which, buf);
	}
	free(buf);
	return NULL;
}

void sum_cancel(struct store *s)
{
	struct list waiters;

	list_init(&waiters);
	for (int q = 0; q < 2; q++) {
		for (;;) {
			struct blob *b;

			store_lock(s);
			if (list_empty(&s->sums[q])) {
				store_unlock(s);
				break;
			}
			b = list_first(&s->sums[q], struct blob, sum_node);
			list_del(&b->sum_node);
			b->sum_queued = false;
			list_move_all(&b->waiters, &waiters);
			store_unlock(s);
			call_waiters(&waiters, -ECANCELED);
			blob_unref(&b);
		}
	}
}

/* ---- Waiting ---- */

/* True: *ret has the answer. */
static bool known(const struct blob *b, bool force, int *ret)
{
	uint32_t state = LOAD(&b->state);

	if (!force && state == BLOB_BAD)
		*ret = -EBADMSG;
	else if (!complete(b))
		*ret = -ENODATA;
	else if (b->chunks == 0)
		*ret = state == BLOB_BAD ? -EBADMSG : 0;
	else if (LOAD(&b->proven))
		*ret = 0;
	else if (b->key.kind != BLOB_SHA256 ||
		 (!force && state == BLOB_VERIFIED))
		*ret = 0;
	else
		return false;
	return true;
}

static void wait_verified(struct store *s, struct blob *b, bool force,
			  void (*done)(void *arg, int r), void *arg)
{
	struct sum_waiter *w = malloc(sizeof(*w));
	int r = -ENOMEM;

	store_lock(s);
	if (s->stop)
		r = -ECANCELED;
	else if (w && !known(b, force, &r)) {
		*w = (struct sum_waiter){.done = done, .arg = arg};
		list_add_tail(&b->waiters, &w->node);
		if (force) {
			b->sum_forced = true;
			b->sum_reset = true;
		}
		if (b->sum_queued) { /* perhaps on the other queue */
			list_del(&b->sum_node);
			enqueue(s, b);
		} else {
			sum_kick_locked(b);
		}
		store_unlock(s);
		return;
	}
	store_unlock(s);
	free(w);
	done(arg, r);
}

void blob_on_verified(struct store *s, struct blob *b,
		      void (*done)(void *arg, int r), void *arg)
{
	if (LOAD_ACQ(&b->external))
		done(arg, 0);
	else
		wait_verified(s, b, false, done, arg);
}

struct verify_wait {
	struct store *s;
	pthread_cond_t cond;
	bool done;
	int r;
};

static void verify_done(void *arg, int r)
{
	struct verify_wait *w = arg;

	store_lock(w->s);
	w->done = true;
	w->r = r;
	(void)pthread_cond_signal(&w->cond);
	store_unlock(w->s);
}

/* Has each chunk compared with its own checksum while it is summed. */
static void forget_checked(struct store *s, struct blob *b)
{
	for (uint32_t k = 0; k < b->nsegs; k++) {
		store_lock(s);
		for (int i = 0; seg_at(b, k) && i < SEG_WORDS; i++)
			STORE_REL(&seg_at(b, k)->checked[i], 0);
		store_unlock(s);
	}
}

/* Checks each chunk of a proven blob on its own, and drops those that are
 * wrong. -ENODATA: some chunks are absent. */
static int verify_proven(struct store *s, struct blob *b)
{
	CLEANUP(freep) uint8_t *buf = malloc(CHUNK_SIZE);
	char str[DIGEST_STR_SIZE];
	int worst = 0;

	if (!buf)
		return -ENOMEM;
	for (uint32_t c = 0; c < b->chunks; c++) {
		uint64_t gen = __atomic_load_n(&b->gen, __ATOMIC_SEQ_CST);
		int r = chunk_present(b, c) ? chunk_read(b, c, buf) : -ENODATA;
		bool same = true;

		if (r == 0)
			r = chunk_prove(b, c, buf);
		if (r == -EBADMSG) {
			store_lock(s);
			same = LOAD(&b->gen) == gen;
			if (same)
				blob_damaged_locked(b, c);
			store_unlock(s);
		}
		if (!same) {
			c--; /* it was dropped, and perhaps written anew */
			continue;
		}
		if (r == -EBADMSG) {
			log_warn("a damaged chunk in the cache is dropped",
				 LS("blob", digest_str(&b->key.id, str)),
				 LU("chunk", c));
		}
		if (r < 0)
			worst = r == -EBADMSG ? -ENODATA : r;
	}
	return worst;
}

int store_verify(struct store *s, struct blob *b)
{
	struct verify_wait w = {.s = s};

	if (LOAD_ACQ(&b->external)) {
		w.r = external_verify(b);
		if (w.r != -ENODATA)
			return w.r;
	}
	forget_checked(s, b);
	if (blob_proven(b))
		return verify_proven(s, b);
	cond_init(&w.cond);
	wait_verified(s, b, true, verify_done, &w);
	store_lock(s);
	while (!w.done)
		(void)pthread_cond_wait(&w.cond, &s->mu);
	store_unlock(s);
	(void)pthread_cond_destroy(&w.cond);
	/* Checks the chunks that the sum did not reach. */
	for (uint32_t c = 0; c < b->chunks && w.r != -ECANCELED; c++) {
		if (!chunk_present(b, c))
			continue;
		if (chunk_check(b, c, false) == -ENODATA && w.r == 0)
			w.r = -ENODATA;
	}
	return w.r;
}
