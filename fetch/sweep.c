/* Sweeps: blobs that can only be read from their beginning to their end.
 *
 * The OCI distribution specification lets a registry ignore Range, and some
 * do: each request then brings the whole blob. Such a blob is read once, for
 * all who wait. A sweep is a run over the whole blob, from offset 0. A blob
 * has one sweep at a time. Flights ahead of its position wait for it, instead
 * of making requests of their own. Where there is no flight the sweep makes
 * one, so that a chunk is stored although nobody has asked for it yet. Chunks
 * that are here, or come from elsewhere, are skipped: that is all there is to
 * a second sweep after one that broke off. Flights that the sweep has passed
 * wait for its end; then the next sweep begins, if they are still wanted.
 *
 * The source decides (source_ops.sweeps). It finds out by a range request,
 * which it ends with -ERANGE; the flights are then asked for again, from the
 * first source on, for a member may be the one that reads the blob. */
#include "fetch/fetch-private.h"

#include <errno.h>

/* Flights that a sweep has passed look so often whether it has ended. */
#define SWEEP_LOOK_MS 100

bool sweep_due(const struct blob_fetch *bf, unsigned int source)
{
	const struct fetch *f = bf->f;
	struct source *s;

	if (source >= f->nsources)
		return false;
	if (bf->sweep && bf->sweep->source_index == source)
		return true;
	s = f->sources[source];
	return s->ops->sweeps && s->ops->sweeps(s, bf->blob);
}

static bool sweep_takes(const struct run *run, struct flight *fl)
{
	if (run->cancelled ||
	    (uint64_t)fl->chunk * CHUNK_SIZE + fl->have < run->pos ||
	    (fl->state != FLIGHT_QUEUED && fl->state != FLIGHT_WANTED &&
	     fl->state != FLIGHT_RETRY))
		return false;
	flight_choose_auth(fl);
	return source_auth_same(fl->auth, run->rq.auth);
}

static void sweep_take(struct run *run, struct flight *fl)
{
	fl->run = run;
	flight_move(fl, FLIGHT_RUNNING);
	if (!list_empty(&fl->waits))
		run_hurry(run, false);
}

void sweep_begin(struct run *run, struct flight *fl)
{
	run->bf->sweep = run;
	run->end = run->limit = blob_chunks(run->rq.blob);
	sweep_take(run, fl);
}

void sweep_end(struct run *run)
{
	if (run->bf->sweep == run)
		run->bf->sweep = NULL;
}

bool sweep_join(struct flight *fl, bool background)
{
	struct run *run = fl->bf->sweep;

	if (sweep_takes(run, fl)) {
		sweep_take(run, fl);
		return true;
	}
	if (background)
		return false;
	fl->retry_ms = now_ms() + SWEEP_LOOK_MS;
	flight_move(fl, FLIGHT_RETRY);
	return true;
}

struct flight *sweep_flight(struct run *run, uint64_t *ret_skip)
{
	uint64_t begin = (uint64_t)run_chunk(run) * CHUNK_SIZE;
	struct flight *fl = flight_find(run->bf, run_chunk(run));

	*ret_skip = begin + CHUNK_SIZE - run->pos;
	if (!fl) {
		if (run->pos > begin || blob_has(run->rq.blob, run_chunk(run)))
			return NULL;
		fl = flight_new(run->bf, run_chunk(run));
		if (!fl)
			return NULL; /* the next sweep brings it */
		fl->auth = source_auth_ref(run->rq.auth);
	}
	if (fl->run != run) {
		if (!sweep_takes(run, fl))
			return NULL;
		sweep_take(run, fl);
	}
	if (begin + fl->have == run->pos)
		return fl;
	/* An earlier run has brought its beginning. */
	if (begin + fl->have > run->pos)
		*ret_skip = begin + fl->have - run->pos;
	return NULL;
}
