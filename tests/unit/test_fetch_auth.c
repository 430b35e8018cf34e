/* Credentials of readers: which request carries which credential, and which
 * reader gets a refusal. */
#include "tests/unit/fetch-rig.h"

struct cred {
	struct source_auth base;
	int freed;
};

static void cred_free(struct source_auth *a)
{
	container_of(a, struct cred, base)->freed++;
}

static void cred_init(struct cred *c, uint8_t id)
{
	*c = (struct cred){
		.base = {.refs = 1, .until_ms = UINT64_MAX, .free = cred_free}};
	c->base.id.sha256[0] = id;
}

/* The last reference is gone. */
static void cred_end(struct cred *c)
{
	struct source_auth *a = &c->base;

	EQ(a->refs, 1);
	source_auth_unref(&a);
	EQ(c->freed, 1);
}

/* Returns the only request, which must carry this credential. */
static struct ask *only_with(struct rig *rig, const struct cred *c)
{
	turns(rig);
	EQ(asks(&rig->fakes[0]), 1);
	OK(source_auth_same(ask_of(&rig->fakes[0], 0)->rq->auth,
			    c ? &c->base : NULL));
	return ask_of(&rig->fakes[0], 0);
}

static void expect(struct rig *rig, struct reader *r, int result)
{
	UNTIL(rig, r->calls > 0);
	turns(rig);
	EQ(r->calls, 1);
	EQ(r->r, result);
}

static void goes_with_the_read(void)
{
	struct reader with = {0}, without = {0};
	struct content c;
	struct cred a;
	struct rig rig;

	rig_new(&rig);
	cred_init(&a, 1);
	content_init(&rig, &c, BLOB_SHA256, 1, 8 * MIB);
	with.rd.auth = &a.base;
	start_read(&rig, &with, &c, MIB, 10);
	deliver(only_with(&rig, &a));
	expect(&rig, &with, 0);
	/* Every reader gets the bytes that it brought. */
	EQ(read_now(&rig, &c, MIB + 100, 10), 0);
	EQ(rig.fakes[0].starts, 1);
	/* The rest is requested without it. */
	start_read(&rig, &without, &c, 4 * MIB, 10);
	deliver(only_with(&rig, NULL));
	expect(&rig, &without, 0);
	UNTIL(&rig, idle(&rig));
	cred_end(&a);
	rig_release(&rig);
}

/* A reader without a credential waits for the request of a reader with one, or
 * the reverse: then the request is made again. */
static void refused_without(void)
{
	struct reader with = {0}, without = {0};
	struct content c;
	struct cred a;
	struct rig rig;

	rig_new(&rig);
	cred_init(&a, 1);
	content_init(&rig, &c, BLOB_SHA256, 1, 2 * MIB);
	with.rd.auth = &a.base;
	start_read(&rig, &without, &c, 0, 10);
	(void)only_with(&rig, NULL);
	start_read(&rig, &with, &c, 0, 10);
	answer(only_with(&rig, NULL), -EACCES);
	expect(&rig, &without, -EACCES);
	EQ(with.calls, 0);
	deliver(only_with(&rig, &a));
	expect(&rig, &with, 0);
	UNTIL(&rig, idle(&rig));
	cred_end(&a);
	rig_release(&rig);
}

static void refused_with(void)
{
	static const int refusals[] = {-EKEYEXPIRED, -EACCES, -ENOENT};
	struct content c;
	struct rig rig;

	rig_new(&rig);
	content_init(&rig, &c, BLOB_SHA256, 1, 8 * MIB);
	for (uint32_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		struct reader with[3] = {{.calls = 0}}, without = {0};
		uint64_t off = i * 2 * MIB;
		struct cred a, again, b;

		cred_init(&a, 1);
		cred_init(&again, 1);
		cred_init(&b, 2);
		with[0].rd.auth = &a.base;
		with[1].rd.auth =
			&again.base; /* the same credential of another reader */
		with[2].rd.auth = &b.base;
		for (int j = 0; j < 3; j++)
			start_read(&rig, &with[j], &c, off + (uint64_t)j, 10);
		start_read(&rig, &without, &c, off, 10);
		answer(only_with(&rig, &a), refusals[i]);
		expect(&rig, &with[0], refusals[i]);
		expect(&rig, &with[1], refusals[i]);
		EQ(with[2].calls + without.calls, 0);
		answer(only_with(&rig, &b), refusals[i]);
		expect(&rig, &with[2], refusals[i]);
		EQ(without.calls, 0);
		deliver(only_with(&rig, NULL));
		expect(&rig, &without, 0);
		UNTIL(&rig, idle(&rig));
		cred_end(&a);
		cred_end(&again);
		cred_end(&b);
	}
	rig_release(&rig);
}

/* An aborted request continues with the same credential, and ends with an
 * answer, not at the deadline. */
static void expires_on_the_way(void)
{
	struct reader r = {0};
	struct content c;
	struct cred a;
	struct rig rig;
	struct ask *k;

	rig_new(&rig);
	cred_init(&a, 1);
	content_init(&rig, &c, BLOB_SHA256, 1, 2 * MIB);
	r.rd.auth = &a.base;
	start_read(&rig, &r, &c, 0, CHUNK_SIZE);
	k = only_with(&rig, &a);
	OK(give(k, 500000));
	answer(k, -ECONNRESET);
	k = only_with(&rig, &a);
	EQ(k->rq->offset, 500000);
	answer(k, -EKEYEXPIRED);
	expect(&rig, &r, -EKEYEXPIRED);
	UNTIL(&rig, idle(&rig));
	cred_end(&a);
	rig_release(&rig);
}

/* One request carries one credential. */
static void not_in_one_request(void)
{
	struct reader a1 = {0}, a2 = {0}, b = {0}, none = {0};
	struct cred a, other;
	struct content c;
	struct rig rig;

	rig_new(&rig);
	cred_init(&a, 1);
	cred_init(&other, 2);
	content_init(&rig, &c, BLOB_SHA256, 1, 8 * MIB);
	a1.rd.auth = a2.rd.auth = &a.base;
	b.rd.auth = &other.base;
	start_read(&rig, &a1, &c, 0, 10);
	start_read(&rig, &a2, &c, MIB, 10);
	start_read(&rig, &none, &c, 2 * MIB, 10);
	start_read(&rig, &b, &c, 3 * MIB, 10);
	turns(&rig);
	EQ(asks(&rig.fakes[0]), 3);
	for (unsigned int i = 0; i < 3; i++) {
		const struct source_request *rq = ask_of(&rig.fakes[0], i)->rq;

		EQ(rq->length, rq->offset == 0 ? 2 * MIB : MIB);
		OK(rq->auth == (rq->offset == 0	       ? &a.base
				: rq->offset > 2 * MIB ? &other.base
						       : NULL));
	}
	rig.fakes[0].behave = honest;
	expect(&rig, &a1, 0);
	expect(&rig, &a2, 0);
	expect(&rig, &b, 0);
	expect(&rig, &none, 0);
	UNTIL(&rig, idle(&rig));
	cred_end(&a);
	cred_end(&other);
	rig_release(&rig);
}

/* Prefetch uses the credential until it expires. */
static void ahead(void)
{
	struct content c;
	struct cred a;
	struct rig rig;

	rig_new(&rig);
	cred_init(&a, 1);
	content_init(&rig, &c, BLOB_SHA256, 1, 8 * MIB);
	fetch_prefetch_as(rig.fetch, c.b, 0, 2 * MIB, false, &a.base);
	EQ(only_with(&rig, &a)->rq->length, 2 * MIB);
	deliver(ask_of(&rig.fakes[0], 0));
	UNTIL(&rig, idle(&rig));
	EQ(a.base.refs, 1);
	/* A refusal without a waiting reader ends the flight. */
	fetch_prefetch_as(rig.fetch, c.b, 2 * MIB, MIB, false, &a.base);
	answer(only_with(&rig, &a), -EKEYEXPIRED);
	UNTIL(&rig, idle(&rig));
	EQ(a.base.refs, 1);
	fetch_prefetch_as(rig.fetch, c.b, 4 * MIB, MIB, false, &a.base);
	a.base.until_ms = 0;
	deliver(only_with(&rig, NULL));
	UNTIL(&rig, idle(&rig));
	cred_end(&a);
	rig_release(&rig);
}

/* A blob that failed its digest is fetched again only for readers that could
 * get it before. */
static void again_after_a_mismatch(void)
{
	struct reader r = {0};
	struct content c;
	struct cred a;
	struct rig rig;

	rig_new(&rig);
	cred_init(&a, 1);
	content_init(&rig, &c, BLOB_SHA256, 1, 3 * MIB);
	c.wrong_at = MIB;
	c.wrong_times = 1;
	fetch_prefetch_as(rig.fetch, c.b, 0, c.size, false, &a.base);
	deliver(only_with(&rig, &a));
	/* The engine's own attempt. */
	UNTIL(&rig, asks(&rig.fakes[0]) == 1);
	answer(only_with(&rig, NULL), -EACCES);
	UNTIL(&rig, asks(&rig.fakes[0]) == 0);
	r.rd.auth = &a.base;
	start_read(&rig, &r, &c, 0, 10);
	expect(&rig, &r, -EBADMSG);
	rig.fakes[0].behave = honest;
	OK(source_auth_same(ask_of(&rig.fakes[0], 0)->rq->auth, &a.base));
	UNTIL(&rig, blob_get_state(c.b) == BLOB_VERIFIED);
	EQ(read_all(&rig, &c), 0);
	UNTIL(&rig, idle(&rig));
	cred_end(&a);
	rig_release(&rig);
}

int main(void)
{
	rig_begin("test_fetch_auth");
	RUN(goes_with_the_read);
	RUN(refused_without);
	RUN(refused_with);
	RUN(expires_on_the_way);
	RUN(not_in_one_request);
	RUN(ahead);
	RUN(again_after_a_mismatch);
	return t_end();
}
