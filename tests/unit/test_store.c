/* The store without faults, and the requests that it refuses. */
#include "tests/unit/store-helpers.h"

static void write_and_read(void)
{
	uint64_t size = 3 * MIB + 1000;
	struct blob_key key = sha_key(1, size);
	struct store *s = open_store();
	struct blob *b = NULL;
	uint8_t map[2], one[10];

	EQ(store_get(s, &key, &b), -ENOENT);
	b = make_blob(s, key, size);
	EQ(blob_size(b), size);
	EQ(blob_chunks(b), 4);
	EQ(blob_chunk_len(b, 0), CHUNK_SIZE);
	EQ(blob_chunk_len(b, 3), 1000);
	EQ(blob_missing(b), 4);
	EQ(blob_get_state(b), BLOB_PROVISIONAL);
	EQ(store_read(s, b, 0, one, 10), -ENODATA);

	EQ(write_chunk(s, b, 2, 1), 0);
	EQ(write_chunk(s, b, 2, 1), -EEXIST);
	EQ(write_chunk(s, b, 3, 1), 0);
	EQ(store_write(s, b, 0, one, 10, 0), -EINVAL);
	EQ(store_write(s, b, 4, one, 10, 0), -EINVAL);
	EQ(blob_missing(b), 2);
	EQ(blob_cached_bytes(b), MIB + 1000);
	OK(!blob_has(b, 0) && blob_has(b, 2) && !blob_has(b, 99));
	EQ(blob_next_missing(b, 0), 0);
	EQ(blob_next_missing(b, 2), 4);
	blob_bitmap(b, map, sizeof(map));
	EQ(map[0], 0x0c);
	EQ(map[1], 0);
	EQ(read_same(s, b, 1, 2 * MIB, MIB + 1000), 0);
	EQ(read_same(s, b, 1, 3 * MIB - 5, 10), 0);
	EQ(read_same(s, b, 1, size - 1, 1), 0);
	EQ(read_same(s, b, 1, size, 0), 0);
	EQ(read_same(s, b, 1, 2 * MIB - 1, 2), -ENODATA);
	EQ(store_read(s, b, size, one, 1), -EINVAL);
	EQ(store_read(s, b, UINT64_MAX, one, 10), -EINVAL);
	EQ(store_read(s, b, 10, one, SIZE_MAX), -EINVAL);

	EQ(write_chunk(s, b, 0, 1), 0);
	EQ(write_chunk(s, b, 1, 1), 0);
	EQ(verified(s, b), 0);
	EQ(blob_get_state(b), BLOB_VERIFIED);
	EQ(blob_unsummed_bytes(b), 0);
	EQ(read_same(s, b, 1, 0, size), 0);
	EQ(store_sync(s), 0);
	OK(events(BLOB_EV_COMMITTED) > 0);
	EQ(events(BLOB_EV_VERIFIED), 1);
	blob_unref(&b);
	OK(b == NULL);
	store_close(&s);
	OK(s == NULL);

	s = open_store();
	b = get_blob(s, key);
	EQ(blob_get_state(b), BLOB_VERIFIED);
	EQ(blob_missing(b), 0);
	EQ(read_same(s, b, 1, 0, size), 0);
	EQ(blob_next_missing(b, 0), 4);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* Blobs of more than one segment of the index. */
static void large(void)
{
	uint64_t size = 700 * MIB;
	struct blob_key key = url_key(1);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, size);
	static const uint32_t some[] = {0, 63, 64, 255, 256, 511, 512, 699};
	uint8_t map[88];

	for (size_t i = 0; i < ARRAY_SIZE(some); i++)
		EQ(write_chunk(s, b, some[i], 7), 0);
	EQ(store_sync(s), 0);
	blob_unref(&b);
	store_close(&s);
	s = open_store();
	b = get_blob(s, key);
	EQ(blob_missing(b), 700 - ARRAY_SIZE(some));
	EQ(blob_next_missing(b, 0), 1);
	EQ(blob_next_missing(b, 63), 65);
	EQ(blob_next_missing(b, 255), 257);
	EQ(blob_next_missing(b, 699), 700);
	blob_bitmap(b, map, sizeof(map));
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		OK(map[some[i] / 8] >> (some[i] % 8) & 1);
		EQ(read_same(s, b, 7, some[i] * MIB + 5, 1000), 0);
	}
	blob_unref(&b);
	store_close(&s);
	wipe();
}

static void empty_blobs(void)
{
	struct store *s = open_store();
	struct blob_key wrong = sha_key(3, 5);
	struct blob *b = make_blob(s, sha_key(0, 0), 0);
	uint8_t c;

	EQ(blob_chunks(b), 0);
	EQ(blob_missing(b), 0);
	EQ(blob_get_state(b), BLOB_VERIFIED);
	EQ(store_read(s, b, 0, &c, 0), 0);
	EQ(store_read(s, b, 0, &c, 1), -EINVAL);
	EQ(verified(s, b), 0);
	EQ(store_verify(s, b), 0);
	blob_unref(&b);
	/* No digest but one is that of no bytes, whoever says so. */
	EQ(store_create(s, &wrong, 0, &b), -EBADMSG);
	b = make_blob(s, wrong, 5);
	EQ(blob_get_state(b), BLOB_PROVISIONAL);
	write_all(s, b, 3);
	EQ(verified(s, b), 0);
	blob_unref(&b);
	b = make_blob(s, url_key(4), 0);
	EQ(verified(s, b), 0);
	EQ(store_read(s, b, 0, &c, 0), 0);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

static bool is_known(struct store *s, struct blob_key key)
{
	struct blob *b = NULL;
	bool known = store_get(s, &key, &b) == 0;

	blob_unref(&b);
	return known;
}

static size_t norigins(struct blob *b)
{
	CLEANUP(string_list_release) struct string_list l = {0};

	EQ(blob_origins(b, &l), 0);
	return l.n;
}

/* A blob that was asked for, and perhaps does not exist. */
static void unsure_blobs(void)
{
	struct blob_key keys[3] = {url_key(1), url_key(2), url_key(3)};
	struct store *s = open_store();
	struct store_stats st;
	struct blob *b = NULL;
	uint64_t size = 300 * 1024 * MIB; /* several pages of segments */

	for (int i = 0; i < 3; i++) {
		EQ(store_create_unsure(s, &keys[i], size, &b), 0);
		EQ(blob_add_origin(s, b, "https://example.com/x"), 0);
		EQ(blob_missing(b), size / CHUNK_SIZE);
		EQ(store_sync(s), 0);
		if (i == 1)
			EQ(write_chunk(s, b, 70000, 5), 0);
		blob_unref(&b);
	}
	EQ(store_create(s, &keys[2], size, &b), 0);
	blob_unref(&b);
	EQ(store_sync(s), 0);
	store_stats(s, &st);
	EQ(st.blobs, 2);
	store_close(&s);

	s = open_store();
	store_stats(s, &st);
	EQ(st.blobs, 2);
	OK(!is_known(s, keys[0]));
	OK(is_known(s, keys[2]));
	b = get_blob(s, keys[1]);
	EQ(read_same(s, b, 5, 70000 * MIB, MIB), 0);
	EQ(norigins(b), 1);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

static void other_sizes(void)
{
	struct blob_key key = url_key(5);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, 300 * MIB), *other = NULL;

	EQ(store_create(s, &key, BLOB_MAX_SIZE + 1, &other), -EFBIG);
	EQ(store_create(s, &key, 5 * MIB, &other), -ESTALE);
	EQ(write_chunk(s, b, 299, 5), 0);
	EQ(store_sync(s), 0);
	blob_unref(&b);
	store_close(&s);
	s = open_store();
	EQ(store_create(s, &key, 5 * MIB, &other), -ESTALE);
	b = get_blob(s, key);
	EQ(blob_missing(b), 299);
	EQ(read_same(s, b, 5, 299 * MIB, MIB), 0);
	EQ(blob_cached_bytes(b), MIB);
	blob_unref(&b);
	b = make_blob(s, url_key(6), BLOB_MAX_SIZE);
	EQ(blob_missing(b), BLOB_MAX_SIZE / CHUNK_SIZE);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

static void origins(void)
{
	struct string_list l = {0};
	struct store *s = open_store();
	struct blob *b = make_blob(s, url_key(7), 10);
	char text[1100];

	for (int i = 0; i < 20; i++) {
		(void)snprintf(text, sizeof(text), "registry://h/%d", i);
		EQ(blob_add_origin(s, b, text), 0);
	}
	EQ(blob_add_origin(s, b, "registry://h/10"), 0);
	EQ(blob_add_origin(s, b, ""), -EINVAL);
	memset(text, 'x', sizeof(text));
	text[1025] = '\0';
	EQ(blob_add_origin(s, b, text), -EINVAL);
	blob_unref(&b);
	store_close(&s);

	s = open_store();
	b = get_blob(s, url_key(7));
	EQ(blob_origins(b, &l), 0);
	EQ(l.n, 16);
	STREQ(l.v[0], "registry://h/10");
	STREQ(l.v[1], "registry://h/19");
	STREQ(l.v[15], "registry://h/4");
	string_list_release(&l);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* Of a proven blob, any place may be one that still answers: neither the
 * claim's place nor others drive all others out. */
static void origins_of_places(void)
{
	struct string_list l = {0};
	struct store *s = open_store();
	struct blob_key key = sha_key(9, 10);
	struct blob *b;
	size_t own = 0;
	char text[64];

	blob_key_claim(&key, "registry://own/0", 10);
	b = make_blob(s, key, 10);
	EQ(blob_add_origin(s, b, "registry://good/x"), 0);
	EQ(norigins(b), 0); /* not proven: whose bytes would they be */
	EQ(write_chunk(s, b, 0, 9), 0);
	EQ(verified(s, b), 0);
	EQ(blob_add_origin(s, b, "registry://good/x"), 0);
	for (int i = 0; i < 20; i++) {
		(void)snprintf(text, sizeof(text), "registry://own/%d", i);
		EQ(blob_add_origin(s, b, text), 0);
	}
	EQ(blob_origins(b, &l), 0);
	EQ(l.n, 16);
	STREQ(l.v[0], "registry://own/19");
	STREQ(l.v[15], "registry://good/x");
	string_list_release(&l);
	for (int i = 0; i < 20; i++) {
		(void)snprintf(text, sizeof(text), "registry://evil%d/x", i);
		EQ(blob_add_origin(s, b, text), 0);
	}
	EQ(blob_origins(b, &l), 0);
	EQ(l.n, 16);
	for (size_t i = 0; i < l.n; i++)
		own += !blob_origin_foreign(b, l.v[i]);
	OK(own >= 7);
	string_list_release(&l);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* Chunks from members are dropped, those from upstream stay. */
static void mismatch_from_peer(void)
{
	uint64_t size = 5 * MIB + 77;
	struct store *s = open_store();
	struct blob *b = make_blob(s, sha_key(8, size), size);
	uint16_t peer = store_peer_id(s, "node-2");

	for (uint32_t c = 0; c < 6; c++)
		EQ(write_chunk_as(s, b, c, c == 4 ? 9 : 8,
				  c == 4 || c == 1 ? peer : 0),
		   0);
	EQ(verified(s, b), -EBADMSG);
	EQ(events(BLOB_EV_MISMATCH), 1);
	EQ(blob_missing(b), 2);
	OK(!blob_has(b, 1) && !blob_has(b, 4));
	EQ(blob_chunk_from(b, 4), peer);
	EQ(blob_chunk_from(b, 0), 0);
	EQ(verified(s, b), -ENODATA);
	EQ(write_chunk(s, b, 4, 8), 0);
	EQ(write_chunk(s, b, 1, 8), 0);
	EQ(verified(s, b), 0);
	EQ(blob_get_state(b), BLOB_VERIFIED);
	EQ(read_same(s, b, 8, 0, size), 0);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

static void mismatch_from_upstream(void)
{
	uint64_t size = 2 * MIB;
	struct blob_key key = sha_key(10, size);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, size);
	struct store_stats st;
	uint8_t c;

	EQ(write_chunk(s, b, 0, 10), 0);
	EQ(write_chunk(s, b, 1, 11), 0);
	/* The check may have ended before the call; then the answer is that
	 * chunks are missing. */
	(void)verified(s, b);
	WAIT(events(BLOB_EV_MISMATCH));
	EQ(blob_missing(b), 2);
	blob_set_bad(s, b);
	EQ(store_read(s, b, 0, &c, 1), -EIO);
	EQ(write_chunk(s, b, 0, 10), -EIO);
	EQ(verified(s, b), -EBADMSG);
	blob_unref(&b);
	store_close(&s);

	s = open_store();
	b = get_blob(s, key);
	EQ(blob_get_state(b), BLOB_BAD);
	EQ(store_read(s, b, 0, &c, 1), -EIO);
	EQ(store_evict(s, b), 0);
	EQ(blob_get_state(b), BLOB_PROVISIONAL);
	write_all(s, b, 10);
	EQ(verified(s, b), 0);
	store_stats(s, &st);
	EQ(st.verified_blobs, 1);
	EQ(st.mismatched_blobs, 0);
	EQ(st.blobs, 1);
	EQ(st.cached_bytes, size);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* A chunk that a verified blob has lost must come back as it was. */
static void verified_again(void)
{
	uint64_t size = 3 * MIB;
	struct blob_key key = sha_key(12, size);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, size);
	uint16_t peer = store_peer_id(s, "p");

	for (uint32_t c = 0; c < 3; c++)
		EQ(write_chunk_as(s, b, c, 12, peer), 0);
	EQ(verified(s, b), 0);
	EQ(store_sync(s), 0);
	blob_unref(&b);
	store_close(&s);
	flip_byte(file_of(key), MIB + 3);

	s = open_store();
	b = get_blob(s, key);
	EQ(read_same(s, b, 12, 0, size), -ENODATA);
	EQ(blob_missing(b), 1);
	EQ(write_chunk_as(s, b, 1, 13, peer), -EBADMSG);
	EQ(blob_missing(b), 1);
	EQ(events(BLOB_EV_MISMATCH), 0);
	EQ(write_chunk_as(s, b, 1, 12, peer), 0);
	EQ(verified(s, b), 0);
	EQ(read_same(s, b, 12, 0, size), 0);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* What the chunks of a verified blob must be is remembered as long as any of
 * them is here or somebody holds the blob: also over a restart, and in a blob
 * of several segments. */
static void proof(void)
{
	uint64_t size = 260 * MIB + 5;
	struct blob_key key = sha_key(40, size);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, size);
	static const uint32_t some[] = {0, 1, 255, 256, 259, 260};

	OK(!blob_proven(b));
	write_all(s, b, 40);
	EQ(verified(s, b), 0);
	OK(blob_proven(b) && blob_shared(b));
	EQ(store_sync(s), 0);
	EQ(store_evict(s, b), 0);
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		EQ(write_chunk(s, b, some[i], 41), -EBADMSG);
		OK(!blob_has(b, some[i]));
		EQ(write_chunk(s, b, some[i], 40), 0);
	}
	EQ(blob_get_state(b), BLOB_VERIFIED);
	EQ(store_verify(s, b), -ENODATA); /* not all of it is here */
	EQ(blob_missing(b), 261 - ARRAY_SIZE(some));
	EQ(store_sync(s), 0);
	blob_unref(&b);
	store_close(&s);

	s = open_store();
	b = get_blob(s, key);
	OK(blob_proven(b));
	EQ(write_chunk(s, b, 100, 41), -EBADMSG);
	EQ(write_chunk(s, b, 100, 40), 0);
	/* Bytes on disk that their own checksum vouches for. */
	EQ(store_evict(s, b), 0);
	blob_unref(&b);
	store_close(&s);

	/* Nothing was left of it: it begins as a claim again. */
	s = open_store();
	b = get_blob(s, key);
	OK(!blob_proven(b));
	EQ(blob_get_state(b), BLOB_PROVISIONAL);
	EQ(write_chunk(s, b, 100, 41), 0);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* Unchecked bytes belong to who claimed them; verified ones to everybody. */
static void claims(void)
{
	uint64_t size = 2 * MIB + 9;
	struct blob_key good = sha_key(42, size), evil = good, any,
			nobody = good;
	struct store *s = open_store();
	struct blob *b, *e, *x = NULL;

	blob_key_claim(&evil, "http://evil.example/x", size);
	nobody.claim = (struct blob_claim){0};
	b = make_blob(s, good, size);
	e = make_blob(s, evil, size);
	OK(b != e);
	EQ(write_chunk(s, e, 0, 43), 0);
	EQ(blob_missing(b), 3);
	EQ(read_same(s, b, 43, 0, 16), -ENODATA);
	EQ(write_chunk(s, b, 0, 42), 0);
	EQ(read_same(s, b, 42, 0, 16), 0);
	EQ(read_same(s, e, 43, 0, 16), 0);
	EQ(store_get(s, &nobody, &x), -ENOENT);
	EQ(store_peek(s, &nobody, &x), -EAGAIN);
	/* Another repository of the registry is the same place; another size
	 * is another claim. */
	any = nobody;
	blob_key_claim(&any, "registry://example.com/other", 0);
	EQ(store_get(s, &any, &x), 0);
	OK(x == b);
	blob_unref(&x);
	any.claim.size = size + 1;
	EQ(store_get(s, &any, &x), -ENOENT);
	blob_key_claim(&any, "registry://example.co/other", 0);
	EQ(store_get(s, &any, &x), -ENOENT);
	EQ(store_sync(s), 0);
	blob_unref(&b);
	blob_unref(&e);
	store_close(&s);

	s = open_store();
	e = get_blob(s, evil);
	EQ(read_same(s, e, 43, 0, 16), 0);
	b = get_blob(s, good);
	EQ(read_same(s, b, 42, 0, 16), 0);
	EQ(write_chunk(s, e, 1, 42), 0);
	EQ(write_chunk(s, e, 2, 42), 0);
	EQ(verified(s, e) == 0, false);
	WAIT(events(BLOB_EV_MISMATCH) == 1);
	EQ(blob_missing(e), 3);
	EQ(blob_missing(b), 2);
	EQ(write_chunk(s, b, 1, 42), 0);
	EQ(write_chunk(s, b, 2, 42), 0);
	EQ(verified(s, b), 0);
	/* Now it is everybody's, whatever they claimed. */
	EQ(store_get(s, &nobody, &x), 0);
	OK(x == b);
	blob_unref(&x);
	EQ(store_peek(s, &evil, &x), 0);
	OK(x == b);
	blob_unref(&x);
	evil.claim.size = 7;
	x = make_blob(s, evil, 7);
	OK(x == b);
	blob_unref(&x);
	EQ(store_sync(s), 0);
	blob_unref(&b);
	blob_unref(&e);
	store_close(&s);

	s = open_store();
	x = make_blob(s, evil, 7);
	EQ(blob_size(x), size);
	EQ(read_same(s, x, 42, 0, size), 0);
	blob_unref(&x);
	store_close(&s);
	wipe();
}

/* Closed before the sum was done: it is done when the blob is opened. */
static void sum_after_restart(void)
{
	uint64_t size = 40 * MIB;
	struct blob_key key = sha_key(14, size);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, size);

	write_all(s, b, 14);
	blob_unref(&b);
	store_close(&s);
	s = open_store();
	b = get_blob(s, key);
	EQ(blob_missing(b), 0);
	WAIT(blob_get_state(b) == BLOB_VERIFIED);
	EQ(blob_unsummed_bytes(b), 0);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* Some threads write out of order, others wait. */
struct verifier {
	struct store *s;
	uint64_t seed;
	pthread_t thread;
	int r;
};

static void *verifier_main(void *arg)
{
	struct verifier *v = arg;
	uint64_t size = 12 * MIB + 5;
	struct blob_key key = sha_key(v->seed, size);
	struct blob *b = make_blob(v->s, key, size);

	for (uint32_t i = 0; i < 13; i++) {
		uint32_t c = (i * 5 + (uint32_t)v->seed) % 13;
		int r = write_chunk(v->s, b, c, v->seed);

		OK(r == 0 || r == -EEXIST);
	}
	v->r = verified(v->s, b);
	blob_unref(&b);
	return NULL;
}

static void many_verifiers(void)
{
	struct store *s = open_store();
	struct verifier v[6];
	struct store_stats st;

	for (int i = 0; i < 6; i++) {
		v[i] = (struct verifier){.s = s, .seed = 20 + (uint64_t)i / 2};
		EQ(pthread_create(&v[i].thread, NULL, verifier_main, &v[i]), 0);
	}
	for (int i = 0; i < 6; i++) {
		EQ(pthread_join(v[i].thread, NULL), 0);
		EQ(v[i].r, 0);
	}
	store_stats(s, &st);
	EQ(st.blobs, 3);
	EQ(st.verified_blobs, 3);
	store_close(&s);
	wipe();
}

/* Waiting callers are called back when the store closes. */
static void close_while_waiting(void)
{
	uint64_t size = 64 * MIB;
	struct store *s = open_store();
	struct blob *b = make_blob(s, sha_key(30, size), size);
	int r = 12345;

	write_all(s, b, 30);
	blob_on_verified(s, b, t_answer, &r);
	blob_unref(&b);
	store_close(&s);
	OK(r == 0 || r == -ECANCELED);
	wipe();
}

static void full_verify(void)
{
	uint64_t size = 4 * MIB;
	struct blob_key key = sha_key(31, size), url = url_key(31);
	struct store *s = open_store();
	struct blob *b = make_blob(s, key, size), *u = make_blob(s, url, size);

	write_all(s, b, 31);
	EQ(verified(s, b), 0);
	EQ(store_verify(s, b), 0);
	EQ(write_chunk(s, u, 1, 31), 0);
	EQ(store_verify(s, u), -ENODATA);
	EQ(store_sync(s), 0);
	flip_byte(file_of(key), 2 * MIB);
	flip_byte(file_of(url), MIB);
	EQ(store_verify(s, b), -ENODATA);
	EQ(blob_missing(b), 1);
	EQ(store_verify(s, u), -ENODATA);
	EQ(blob_missing(u), 4);
	EQ(store_sync(s), 0);
	EQ(events(BLOB_EV_DROPPED), 2);
	write_all(s, u, 31);
	EQ(store_verify(s, u), 0);
	blob_unref(&b);
	blob_unref(&u);
	store_close(&s);
	wipe();
}

static void descriptors(void)
{
	struct store *s = open_store();
	struct blob *b = make_blob(s, url_key(32), 3 * MIB);
	uint8_t buf[100];
	uint64_t gen;
	int fd;

	EQ(store_range_fd(s, b, 0, 10, &fd, &gen), -ENODATA);
	write_all(s, b, 32);
	EQ(store_range_fd(s, b, 0, 4 * MIB, &fd, &gen), -EINVAL);
	EQ(store_range_fd(s, b, MIB - 50, 100, &fd, &gen), 0);
	EQ(pread(fd, buf, 100, MIB - 50), 100);
	OK(same(32, MIB - 50, buf, 100));
	OK(store_gen_ok(b, gen));
	EQ(store_evict(s, b), 0);
	OK(!store_gen_ok(b, gen));
	blob_unref(&b);
	store_close(&s);
	wipe();
}

/* The event that the store holds it no more comes once, also after a restart.
 */
static void emptied(void)
{
	struct store *s = open_store();
	struct blob *b = make_blob(s, url_key(33), 3 * MIB);

	EQ(store_sync(s), 0);
	EQ(events(BLOB_EV_EMPTIED), 0); /* it never had a chunk */
	write_all(s, b, 33);
	EQ(store_sync(s), 0);
	EQ(events(BLOB_EV_EMPTIED), 0);
	EQ(store_evict(s, b), 0);
	EQ(store_sync(s), 0);
	EQ(events(BLOB_EV_EMPTIED), 1);
	EQ(write_chunk(s, b, 1, 33), 0);
	EQ(store_sync(s), 0);
	blob_unref(&b);
	store_close(&s);

	s = open_store();
	b = get_blob(s, url_key(33));
	EQ(store_evict(s, b), 0);
	EQ(store_sync(s), 0);
	EQ(events(BLOB_EV_EMPTIED), 1); /* since it was opened */
	EQ(store_evict(s, b), 0);
	EQ(store_sync(s), 0);
	EQ(events(BLOB_EV_EMPTIED), 1);
	blob_unref(&b);
	store_close(&s);
	wipe();
}

static int seen_repo(void *arg, const struct digest *d, uint64_t size)
{
	(void)d;
	*(uint64_t *)arg += size;
	return 0;
}

static int stop_at_once(void *arg, const struct digest *d, uint64_t size)
{
	(void)arg;
	(void)d;
	(void)size;
	return 42;
}

static void manifests(void)
{
	struct digest d;
	struct store *s = open_store();
	char *type = NULL;
	void *bytes = NULL;
	size_t len = 0;
	CLEANUP(freep) char *big = calloc(1, MANIFEST_MAX_BYTES + 1);

	digest_of("{}", 2, &d);
	EQ(store_manifest_get(s, &d, &type, &bytes, &len), -ENOENT);
	EQ(store_manifest_put(s, &d, "application/x", "{ }", 3), -EBADMSG);
	EQ(store_manifest_put(s, &d, "application/x", "{}", 2), 0);
	EQ(store_manifest_get(s, &d, &type, &bytes, &len), 0);
	STREQ(type, "application/x");
	STREQ((char *)bytes, "{}");
	EQ(len, 2);
	free(type);
	free(bytes);
	digest_of(big, MANIFEST_MAX_BYTES, &d);
	EQ(store_manifest_put(s, &d, "t", big, MANIFEST_MAX_BYTES), 0);
	EQ(store_manifest_get(s, &d, &type, &bytes, &len), 0);
	EQ(len, MANIFEST_MAX_BYTES);
	free(type);
	free(bytes);
	digest_of(big, MANIFEST_MAX_BYTES + 1, &d);
	EQ(store_manifest_put(s, &d, "t", big, MANIFEST_MAX_BYTES + 1), -EFBIG);
	store_close(&s);
	wipe();
}

static uint64_t index_bytes(void)
{
	struct stat st;

	return stat(in_dir("index/data.mdb"), &st) == 0 ? (uint64_t)st.st_size
							: UINT64_MAX;
}

#define BIG_MANIFEST ((size_t)300 << 10)

/* The i-th of some large manifests. */
static struct digest put_manifest(struct store *s, uint64_t i)
{
	CLEANUP(freep) uint8_t *bytes = malloc(BIG_MANIFEST);
	struct digest d;

	if (!bytes)
		BAIL("malloc");
	fill(i, 0, bytes, BIG_MANIFEST);
	digest_of(bytes, BIG_MANIFEST, &d);
	EQ(store_manifest_put(s, &d, "t", bytes, BIG_MANIFEST), 0);
	return d;
}

static bool has_manifest(struct store *s, const struct digest *d)
{
	CLEANUP(freep) char *type = NULL;
	CLEANUP(freep) void *bytes = NULL;
	size_t len;

	return store_manifest_get(s, d, &type, &bytes, &len) == 0;
}

static struct store_stats stats(struct store *s)
{
	struct store_stats st;

	store_stats(s, &st);
	return st;
}

static void manifests_are_bounded(void)
{
	const struct store_config cfg = {.max_bytes = 16 * MIB,
					 .commit_interval_ms = 5};
	struct store *s = open_with(cfg);
	struct digest small;
	struct blob *b;

	for (uint64_t i = 0; i < 100; i++) {
		(void)put_manifest(s, i);
		OK(stats(s).manifest_bytes <= 2 * MIB);
	}
	OK(stats(s).manifests > 0);
	EQ(stats(s).manifests, stats(s).manifest_bytes / (BIG_MANIFEST + 2));
	OK(index_bytes() < 6 * MIB);
	/* The same again counts once. */
	digest_of("{}", 2, &small);
	for (int i = 0; i < 2; i++)
		EQ(store_manifest_put(s, &small, "t", "{}", 2), 0);
	OK(has_manifest(s, &small));
	/* Chunks leave them their share, and do not drive them out. */
	b = make_blob(s, url_key(1), 40 * MIB);
	write_all(s, b, 1);
	WAIT(stats(s).cached_bytes + stats(s).manifest_bytes <= 16 * MIB);
	blob_unref(&b);
	OK(has_manifest(s, &small));
	store_close(&s);

	s = open_with(cfg);
	OK(has_manifest(s, &small));
	OK(stats(s).manifests > 1);
	EQ(store_manifest_evict(s, &small), 0);
	EQ(store_manifest_evict(s, &small), -ENOENT);
	OK(!has_manifest(s, &small));
	store_close(&s);
	wipe();
}

/* The least recently used go: those whose use was noted long ago. */
static void old_manifests_go_first(void)
{
	struct store_config cfg = {.max_bytes = 16 * MIB};
	struct index_blob rec = {.cached_bytes = BIG_MANIFEST + 2};
	struct store *s = open_with(cfg);
	struct index_batch batch;
	struct digest d[6];

	index_batch_init(&batch);
	for (uint64_t i = 0; i < 6; i++) {
		d[i] = put_manifest(s, i);
		rec.last_use_s = 1000 + (i * 5 + 3) % 6;
		index_put_use(&batch, d[i].sha256, DIGEST_BYTES, &rec);
	}
	EQ(index_write(s->ix, &batch), 0);
	index_batch_release(&batch);
	OK(has_manifest(s, &d[3])); /* the oldest, were it not for this use */
	(void)put_manifest(s, 6);
	OK(has_manifest(s, &d[3]));
	OK(!has_manifest(s, &d[2])); /* 1001 */
	OK(has_manifest(s, &d[4]));  /* 1005 */
	store_close(&s);
	wipe();
}

static void index_is_compacted(void)
{
	struct store *s = open_store();
	CLEANUP(string_list_release) struct string_list l = {0};
	uint64_t before, used;
	struct digest d, kept;
	uint64_t seen;

	for (uint64_t i = 0; i < 40; i++)
		kept = put_manifest(s, i);
	EQ(store_tag_put(s, "host/a", "t", &kept, 77), 0);
	before = index_bytes();
	OK(before > 40 * BIG_MANIFEST);
	EQ(store_manifest_list(s, &l), 0);
	EQ(l.n, 40);
	for (size_t i = 0; i < l.n; i++) {
		EQ(digest_parse(l.v[i], &d), 0);
		if (!digest_equal(&d, &kept))
			EQ(store_manifest_evict(s, &d), 0);
	}
	EQ(stats(s).manifest_bytes, BIG_MANIFEST + 2);
	store_close(&s);
	OK(index_bytes() >= before); /* no file shrinks while it is open */

	run("echo left over >\"$D\"/index/compact.mdb");
	s = open_store();
	used = index_bytes();
	OK(used < 2 * BIG_MANIFEST);
	OK(has_manifest(s, &kept));
	EQ(store_tag_get(s, "host/a", "t", &d, &seen), 0);
	EQ(seen, 77);
	(void)put_manifest(s, 100);
	store_close(&s);

	s = open_store(); /* the index passes its check */
	OK(has_manifest(s, &kept));
	EQ(stats(s).manifests, 2);
	store_close(&s);
	wipe();
}

/* Far more than are kept of each kind, made by a stranger in one go; the oldest
 * come last by key. */
#define TOO_MANY (STORE_MAX_RECORDS + STORE_MAX_RECORDS / 5)

static void put_many(struct store *s)
{
	struct index_batch batch;

	index_batch_init(&batch);
	for (uint64_t i = 0; i < TOO_MANY; i++) {
		struct index_blob rec = {.size = 7, .last_use_s = TOO_MANY - i};
		struct blob_key blob = {.kind = BLOB_SHA256};
		uint8_t v[DIGEST_BYTES + 8] = {0}, bkey[INDEX_BKEY];
		char key[64];
		size_t len;

		len = (size_t)snprintf(key, sizeof(key), "url:%08llu",
				       (unsigned long long)i);
		put_le(v, TOO_MANY - i, 8);
		index_put(&batch, INDEX_KV, key, len, v, 16);
		index_put(&batch, INDEX_REPOS, key, len, v, 16);
		put_le(v + DIGEST_BYTES, TOO_MANY - i, 8);
		index_put(&batch, INDEX_TAGS, key, len, v, sizeof(v));
		digest_of(key, len, &blob.id);
		bkey_of(&blob, bkey);
		index_put_blob(&batch, bkey, &rec);
	}
	EQ(index_write(s->ix, &batch), 0);
	index_batch_release(&batch);
}

static void records_are_bounded(void)
{
	static const enum index_db dbs[] = {INDEX_KV, INDEX_REPOS, INDEX_TAGS,
					    INDEX_BLOBS};
	CLEANUP(buf_release) struct buf v = BUF_INIT(100);
	struct store *s = open_store();

	EQ(store_kv_put(s, "node-id", 7, "x", 1), 0);
	put_many(s);
	store_close(&s);
	s = open_store();
	EQ(stats(s).blobs, TOO_MANY);
	EQ(store_sync(s), 0);
	EQ(store_sync(s), 0); /* the first came after housekeeping */
	for (size_t i = 0; i < ARRAY_SIZE(dbs); i++)
		OK(index_count(s->ix, dbs[i]) <= STORE_MAX_RECORDS);
	for (size_t i = 0; i < ARRAY_SIZE(dbs); i++)
		OK(index_count(s->ix, dbs[i]) >= STORE_MAX_RECORDS / 2);
	EQ(stats(s).blobs, index_count(s->ix, INDEX_BLOBS));
	/* The newest are left, and what is no stranger's. */
	EQ(index_get(s->ix, INDEX_TAGS, "url:00000000", 12, &v), 0);
	EQ(index_get(s->ix, INDEX_TAGS, "url:00119999", 12, &v), -ENOENT);
	EQ(store_kv_get(s, "node-id", 7, &v), 0);
	store_close(&s);
	wipe();
}

static void tags_and_repositories(void)
{
	struct digest d = {{1}}, e = {{2}}, got;
	struct string_list l = {0};
	struct store *s = open_store();
	char longest[600];
	uint64_t n = 0;

	memset(longest, 'r', sizeof(longest));
	longest[599] = '\0';
	EQ(store_tag_put(s, "h/app", "v1", &d, 1000), 0);
	EQ(store_tag_put(s, "h/app", "v2", &e, 1001), 0);
	EQ(store_tag_put(s, "h/app2", "v3", &e, 1002), 0);
	EQ(store_tag_put(s, longest, "v3", &e, 1002), -ENAMETOOLONG);
	EQ(store_tag_put(s, "", "v3", &e, 1002), -EINVAL);
	EQ(store_tag_get(s, "h/app", "v2", &got, &n), 0);
	OK(digest_equal(&got, &e));
	EQ(n, 1001);
	EQ(store_tag_get(s, "h/app", "v3", &got, &n), -ENOENT);
	EQ(store_tag_get(s, longest, "v3", &got, &n), -ENOENT);
	EQ(store_tag_list(s, "h/app", &l), 0);
	EQ(l.n, 2);
	STREQ(l.v[0], "v1");
	STREQ(l.v[1], "v2");
	string_list_release(&l);
	EQ(store_tag_del(s, "h/app", "v1"), 0);
	EQ(store_tag_get(s, "h/app", "v1", &got, &n), -ENOENT);

	EQ(store_repo_has(s, "h/app", true, &d, &n), -ENOENT);
	EQ(store_repo_add(s, "h/app", true, &d, 5), 0);
	EQ(store_repo_add(s, "h/app", true, &d, 5), 0);
	EQ(store_repo_add(s, "h/app", false, &d, 6), 0);
	EQ(store_repo_add(s, "h/app", false, &e, 7), 0);
	EQ(store_repo_add(s, "z/only", false, &e, 8), 0);
	EQ(store_repo_has(s, "h/app", false, &d, &n), 0);
	EQ(n, 6);
	n = 0;
	EQ(store_repo_each(s, "h/app", false, seen_repo, &n), 0);
	EQ(n, 13);
	EQ(store_repo_each(s, "h/app", false, stop_at_once, NULL), 42);
	EQ(store_repo_list(s, "", &l), 0);
	EQ(l.n, 3);
	STREQ(l.v[0], "h/app");
	STREQ(l.v[1], "h/app2");
	STREQ(l.v[2], "z/only");
	string_list_release(&l);
	EQ(store_repo_list(s, "h/app", &l), 0);
	EQ(l.n, 2);
	string_list_release(&l);
	EQ(store_repo_list(s, "nobody", &l), 0);
	EQ(l.n, 0);
	store_close(&s);
	wipe();
}

static void small_records(void)
{
	CLEANUP(buf_release) struct buf v = BUF_INIT(100000);
	CLEANUP(freep) char *big = calloc(1, 65537);
	struct string_list l = {0};
	struct store *s = open_store();
	char name[300];
	uint16_t id;

	EQ(store_kv_put(s, "url\0x", 5, "1", 1), 0);
	EQ(store_kv_put(s, "abc", 3, big, 65536), 0);
	EQ(store_kv_put(s, "abc", 3, big, 65537), -EINVAL);
	EQ(store_kv_put(s, big, 481, "", 0), -EINVAL);
	EQ(store_kv_put(s, big, 480, "", 0), 0);
	EQ(store_kv_get(s, "url\0x", 5, &v), 0);
	STREQ(v.data, "1");
	EQ(store_kv_get(s, "url", 3, &v), -ENOENT);
	EQ(store_kv_list(s, "a", &l), 0);
	EQ(l.n, 1);
	STREQ(l.v[0], "abc");
	string_list_release(&l);
	EQ(store_kv_del(s, "abc", 3), 0);
	EQ(store_kv_del(s, "abc", 3), 0);
	EQ(store_kv_get(s, "abc", 3, &v), -ENOENT);

	id = store_peer_id(s, "node-1");
	EQ(id, 1);
	EQ(store_peer_id(s, "node-2"), 2);
	EQ(store_peer_id(s, "node-1"), 1);
	EQ(store_peer_name(s, 2, name, sizeof(name)), 0);
	STREQ(name, "node-2");
	EQ(store_peer_name(s, 0, name, sizeof(name)), -ENOENT);
	EQ(store_peer_name(s, 3, name, sizeof(name)), -ENOENT);
	store_close(&s);
	s = open_store();
	EQ(store_peer_id(s, "node-2"), 2);
	EQ(store_peer_id(s, "node-3"), 3);
	store_close(&s);
	wipe();
}

static int64_t anon_kib(void)
{
	CLEANUP(freep) char *line = NULL;
	FILE *f = fopen("/proc/self/status", "re");
	long long kib = 0;
	size_t cap = 0;

	while (f && getline(&line, &cap, f) > 0)
		if (sscanf(line, "RssAnon: %lld", &kib) == 1)
			break;
	if (f)
		(void)fclose(f);
	return kib;
}

static int count_info(void *arg, const struct blob_info *info)
{
	uint64_t *n = arg;

	n[0]++;
	n[1] += info->cached_bytes;
	return info->size == 0 || info->size > 5000 ? -EINVAL : 0;
}

/* The memory of ten thousand blobs. */
static void ten_thousand(void)
{
	struct store *s = open_with((struct store_config){0});
	struct store_stats st;
	uint64_t n[2] = {0}, want = 0;
	int64_t before;

	for (uint64_t i = 0; i < 10000; i++) {
		struct blob *b = make_blob(s, url_key(i), 1 + i % 5000);

		if (i % 2 == 0) {
			EQ(write_chunk(s, b, 0, i), 0);
			want += 1 + i % 5000;
		}
		blob_unref(&b);
	}
	EQ(store_each(s, count_info, n), 0);
	EQ(n[0], 10000);
	EQ(n[1], want);
	store_close(&s);

	before = anon_kib();
	s = open_with((struct store_config){0});
	store_stats(s, &st);
	EQ(st.blobs, 10000);
	EQ(st.cached_bytes, want);
	for (uint64_t i = 0; i < 10000; i++) {
		struct blob *b = get_blob(s, url_key(i));

		EQ(blob_size(b), 1 + i % 5000);
		if (i % 2 == 0)
			EQ(read_same(s, b, i, 0, 1 + i % 5000), 0);
		blob_unref(&b);
	}
	EQ(store_sync(s), 0);
	printf("# 10000 blobs: %lld KiB more\n",
	       (long long)(anon_kib() - before));
	/* Builds with sanitizers have no _FORTIFY_SOURCE. */
#ifdef _FORTIFY_SOURCE
	OK(anon_kib() - before < 4096);
#endif
	store_close(&s);
	wipe();
}

/* The order of last use survives a restart. */
static uint64_t last_use;

static int take_last_use(void *arg, const struct blob_info *info)
{
	(void)arg;
	last_use = info->last_use_s;
	return 0;
}

static void last_use_is_kept(void)
{
	struct store *s = open_store();
	struct blob *b = make_blob(s, url_key(50), 10);
	uint64_t first;

	write_all(s, b, 50);
	blob_unref(&b);
	store_close(&s);
	s = open_store();
	EQ(store_each(s, take_last_use, NULL), 0);
	first = last_use;
	OK(first + 600 > now_unix_s());
	WAIT(now_unix_s() > first + 1);
	b = get_blob(s, url_key(50));
	EQ(read_same(s, b, 50, 0, 10), 0);
	blob_unref(&b);
	store_close(&s);
	s = open_store();
	EQ(store_each(s, take_last_use, NULL), 0);
	OK(last_use > first);
	store_close(&s);
	wipe();
}

int main(void)
{
	t_begin("test_store");
	RUN(write_and_read);
	RUN(large);
	RUN(empty_blobs);
	RUN(unsure_blobs);
	RUN(other_sizes);
	RUN(origins);
	RUN(origins_of_places);
	RUN(mismatch_from_peer);
	RUN(mismatch_from_upstream);
	RUN(verified_again);
	RUN(proof);
	RUN(claims);
	RUN(sum_after_restart);
	RUN(many_verifiers);
	RUN(close_while_waiting);
	RUN(full_verify);
	RUN(descriptors);
	RUN(emptied);
	RUN(manifests);
	RUN(manifests_are_bounded);
	RUN(old_manifests_go_first);
	RUN(index_is_compacted);
	RUN(records_are_bounded);
	RUN(tags_and_repositories);
	RUN(small_records);
	RUN(ten_thousand);
	RUN(last_use_is_kept);
	return t_end();
}
