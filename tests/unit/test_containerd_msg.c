/* The messages on containerd's socket, and the set of its blobs. */
#include <errno.h>

#include "base/cleanup.h"
#include "containerd/containerd-msg.h"
#include "containerd/containerd-private.h"
#include "containerd/digest-set.h"
#include "containerd/grpc.h"
#include "tests/unit/tap.h"

/* ---- Frames ---- */

struct got {
	int n, fail_at;
	char text[256];
};

static int on_message(void *arg, const void *msg, size_t len)
{
	struct got *g = arg;
	size_t at = strlen(g->text);

	(void)snprintf(g->text + at, sizeof(g->text) - at, "[%.*s]", (int)len,
		       (const char *)msg);
	return ++g->n == g->fail_at ? -ECANCELED : 0;
}

static void test_frames(void)
{
	static const char bytes[] = "\0\0\0\0\3abc"
				    "\0\0\0\0\0"
				    "\0\0\0\0\1x"
				    "\0\0\0\0\2y";
	size_t len = sizeof(bytes) - 1;

	for (size_t step = 1; step <= len; step++) {
		struct grpc_reader r = GRPC_READER_INIT(3);
		struct got g = {0};

		for (size_t at = 0; at < len; at += step)
			EQ(grpc_read(&r, bytes + at, min_u64(step, len - at),
				     on_message, &g),
			   0);
		STREQ(g.text, "[abc][][x]");
		OK(grpc_reader_within(&r));
		EQ(grpc_read(&r, "z", 1, on_message, &g), 0);
		STREQ(g.text, "[abc][][x][yz]");
		OK(!grpc_reader_within(&r));
		grpc_reader_release(&r);
	}
}

static void test_bad_frames(void)
{
	struct grpc_reader r = GRPC_READER_INIT(3);
	struct got g = {.fail_at = 2};

	EQ(grpc_read(&r, "\0\0\0\0\4", 5, on_message, &g), -EMSGSIZE);
	OK(!r.msg.data);
	grpc_reader_release(&r);
	r = GRPC_READER_INIT(3);
	EQ(grpc_read(&r, "\0\xff\xff\xff\xff", 5, on_message, &g), -EMSGSIZE);
	OK(!r.msg.data);
	grpc_reader_release(&r);
	r = GRPC_READER_INIT(3);
	EQ(grpc_read(&r, "\1\0\0\0\1x", 6, on_message, &g), -EBADMSG);
	grpc_reader_release(&r);
	r = GRPC_READER_INIT(3);
	EQ(g.n, 0);
	EQ(grpc_read(&r, "\0\0\0\0\1a\0\0\0\0\1b\0\0\0\0\1c", 18, on_message,
		     &g),
	   -ECANCELED);
	EQ(g.n, 2);
	grpc_reader_release(&r);
}

/* ---- Messages, by hand ---- */

static void varint(struct buf *b, uint64_t v)
{
	do {
		uint8_t byte = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));

		if (buf_add(b, &byte, 1) < 0)
			BAIL("buf_add");
		v >>= 7;
	} while (v);
}

static void field(struct buf *b, int number, const void *bytes, size_t len)
{
	varint(b, (uint64_t)number << 3 | 2);
	varint(b, len);
	if (len && buf_add(b, bytes, len) < 0)
		BAIL("buf_add");
}

static void text_field(struct buf *b, int number, const char *s)
{
	field(b, number, s, strlen(s));
}

#define D1                                                                     \
	"sha256:1111111111111111111111111111111111111111111111111111111111111111"

static void add_image(struct buf *list, const char *name, const char *digest)
{
	CLEANUP(buf_release) struct buf image = BUF_INIT(4096);
	CLEANUP(buf_release) struct buf target = BUF_INIT(4096);
	CLEANUP(buf_release) struct buf time = BUF_INIT(64);

	if (name)
		text_field(&image, 1, name);
	text_field(&image, 2, "a label"); /* not named in the .proto */
	if (digest) {
		text_field(&target, 1, "application/x");
		text_field(&target, 2, digest);
		varint(&target, 3 << 3);
		varint(&target, 12345);
		field(&image, 3, target.data, target.len);
	}
	varint(&time, 1 << 3);
	varint(&time, 1700000000);
	varint(&time, 2 << 3);
	varint(&time, 5);
	field(&image, 8, time.data, time.len);
	field(list, 1, image.data, image.len);
}

static void on_image(void *arg, const struct containerd_image *i)
{
	char d[DIGEST_STR_SIZE];

	STREQ(digest_str(&i->digest, d), D1);
	EQ(i->updated_s, 1700000000);
	(void)buf_printf(arg, "[%s]", i->name);
}

static void on_name(void *arg, const char *name)
{
	(void)buf_printf(arg, "[%s]", name);
}

static void test_images(void)
{
	CLEANUP(buf_release) struct buf list = BUF_INIT(1 << 20);
	CLEANUP(buf_release) struct buf out = BUF_INIT(1 << 20);
	char long_name[CONTAINERD_NAME_MAX + 2];

	memset(long_name, 'a', sizeof(long_name));
	long_name[sizeof(long_name) - 1] = '\0';
	EQ(containerd_msg_images("", 0, on_image, &out), 0);
	add_image(&list, "one", D1);
	add_image(&list, "no digest", NULL);
	add_image(&list, "other", "sha512:00");
	add_image(&list, "bad", "sha256:zz");
	add_image(&list, NULL, D1);
	add_image(&list, long_name, D1);
	add_image(&list, "two", D1);
	text_field(&list, 77, "unknown");
	EQ(containerd_msg_images(list.data, list.len, on_image, &out), 0);
	STREQ(out.data, "[one][two]");
	buf_reset(&out);
	EQ(containerd_msg_images(list.data, list.len - 3, on_image, &out),
	   -EBADMSG);
	EQ(out.len, 0);
}

static void test_namespaces(void)
{
	static const char *const names[] = {"k8s.io", "", "with space",
					    "a\r\nB: c", "moby"};
	CLEANUP(buf_release) struct buf list = BUF_INIT(1 << 20);
	CLEANUP(buf_release) struct buf out = BUF_INIT(1 << 20);

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		CLEANUP(buf_release) struct buf ns = BUF_INIT(256);

		text_field(&ns, 1, names[i]);
		field(&list, 1, ns.data, ns.len);
	}
	EQ(containerd_msg_namespaces(list.data, list.len, on_name, &out), 0);
	STREQ(out.data, "[k8s.io][moby]");
	EQ(containerd_msg_namespaces("\x0a\x05x", 3, on_name, &out), -EBADMSG);
}

static void test_events(void)
{
	CLEANUP(buf_release) struct buf e = BUF_INIT(256);
	CLEANUP(buf_release) struct buf rq = BUF_INIT(256);
	CLEANUP(buf_release) struct buf little = BUF_INIT(2);
	char ns[CONTAINERD_NS_MAX + 1];
	bool of_image;

	text_field(&e, 2, "k8s.io");
	text_field(&e, 3, "/images/create");
	EQ(containerd_msg_event(e.data, e.len, ns, &of_image), 0);
	STREQ(ns, "k8s.io");
	OK(of_image);
	buf_reset(&e);
	text_field(&e, 2, "a b");
	text_field(&e, 3, "/imagesX");
	EQ(containerd_msg_event(e.data, e.len, ns, &of_image), 0);
	STREQ(ns, "");
	OK(!of_image);
	EQ(containerd_msg_event("\xff", 1, ns, &of_image), -EBADMSG);
	EQ(containerd_msg_event("", 0, ns, &of_image), 0);
	OK(!of_image);

	EQ(containerd_msg_subscribe("abc", &rq), 0);
	EQ(rq.len, 5);
	OK(memcmp(rq.data,
		  "\x0a\x03"
		  "abc",
		  5) == 0);
	EQ(containerd_msg_subscribe("abc", &little), -EMSGSIZE);
}

/* Millions of fields in few bytes are refused before they are allocated. */
static void test_greedy(void)
{
	CLEANUP(freep) char *bytes = malloc(CONTAINERD_MSG_MAX + 1);
	CLEANUP(buf_release) struct buf out = BUF_INIT(1 << 20);
	int r;

	if (!bytes)
		BAIL("malloc");
	memset(bytes, 0, CONTAINERD_MSG_MAX + 1);
	EQ(containerd_msg_images(bytes, CONTAINERD_MSG_MAX + 1, on_image, &out),
	   -EMSGSIZE);
	for (size_t i = 0; i < CONTAINERD_MSG_MAX; i += 2) {
		bytes[i] = 1 << 3 | 2; /* an image */
		bytes[i + 1] = 0;      /* empty */
	}
	EQ(containerd_msg_images(bytes, CONTAINERD_MSG_MAX, on_image, &out),
	   -EMSGSIZE);
	for (size_t i = 0; i < CONTAINERD_MSG_MAX; i += 2)
		bytes[i] = 15 << 3; /* unknown */
	r = containerd_msg_images(bytes, CONTAINERD_MSG_MAX, on_image, &out);
	EQ(r, -EMSGSIZE);
	EQ(out.len, 0);
}

/* ---- Names ---- */

static void test_names(void)
{
	static const struct {
		const char *name, *repo, *tag;
	} t[] = {
		{"docker.io/library/alpine:3.19", "docker.io/library/alpine",
		 "3.19"},
		{"docker.io/alpine", "docker.io/library/alpine", "latest"},
		{"localhost:5000/a/b:c", "localhost:5000/a/b", "c"},
		{"localhost/a:c", "localhost/a", "c"},
		{"r.example/a@" D1, "r.example/a", NULL},
		{"r.example/a:t@" D1, "r.example/a", NULL},
		{"alpine:3", NULL, NULL},
		{"library/alpine:3", NULL, NULL},
		{D1, NULL, NULL},
		{"import-2024-01-01@" D1, NULL, NULL},
		{"r.example/A:b", NULL, NULL},
		{"r.example/", NULL, NULL},
		{"/a:b", NULL, NULL},
		{"", NULL, NULL},
		{"r.example/a:b\n", NULL, NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		CLEANUP(freep) char *repo = NULL, *tag = NULL;
		int r = ctr_image_name(t[i].name, &repo, &tag);

		EQ(r, t[i].repo ? 0 : -EINVAL);
		if (r < 0 || !t[i].repo)
			continue;
		STREQ(repo, t[i].repo);
		if (t[i].tag)
			STREQ(tag, t[i].tag);
		else
			OK(!tag);
	}
}

/* ---- The set ---- */

static struct digest nth(uint32_t i)
{
	struct digest d;

	digest_of(&i, sizeof(i), &d);
	return d;
}

static void test_set(void)
{
	static bool in[4096];
	struct digest_set s = {0};
	struct digest d = nth(0);
	const struct digest *walk;
	size_t n = 0, at = 0;
	uint32_t x = 1;

	OK(!digest_set_has(&s, &d));
	OK(!digest_set_del(&s, &d));
	OK(!digest_set_next(&s, &at));
	for (int i = 0; i < 200000; i++) {
		uint32_t k;

		x = x * 1664525 + 1013904223;
		k = x >> 20;
		d = nth(k);
		if (x >> 8 & 3) {
			EQ(digest_set_add(&s, &d), in[k] ? 0 : 1);
			n += !in[k];
			in[k] = true;
		} else {
			EQ(digest_set_del(&s, &d), in[k]);
			n -= in[k];
			in[k] = false;
		}
		if (s.n != n)
			break;
	}
	EQ(s.n, n);
	for (uint32_t k = 0; k < ARRAY_SIZE(in); k++) {
		d = nth(k);
		EQ(digest_set_has(&s, &d), in[k]);
	}
	while ((walk = digest_set_next(&s, &at))) {
		OK(digest_set_has(&s, walk));
		n--;
	}
	EQ(n, 0);
	digest_set_release(&s);
	OK(!digest_set_has(&s, &d));
}

int main(void)
{
	RUN(test_frames);
	RUN(test_bad_frames);
	RUN(test_images);
	RUN(test_namespaces);
	RUN(test_events);
	RUN(test_greedy);
	RUN(test_names);
	RUN(test_set);
	return tap_done();
}
