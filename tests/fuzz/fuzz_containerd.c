/* Input from containerd's socket: gRPC's frames, read as a whole and byte by
 * byte with the same result. Each message, and the input itself, is decoded as
 * every message type that peerd reads. */
#include <errno.h>
#include <stdint.h>

#include "containerd/containerd-msg.h"
#include "containerd/containerd-private.h"
#include "containerd/grpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void on_image(void *arg, const struct containerd_image *i)
{
	char *repo = NULL, *tag = NULL;

	(void)arg;
	check(*i->name && strlen(i->name) <= CONTAINERD_NAME_MAX);
	if (ctr_image_name(i->name, &repo, &tag) == 0)
		check(repo && strchr(repo, '/') && (!tag || *tag));
	free(repo);
	free(tag);
}

static void on_name(void *arg, const char *name)
{
	(void)arg;
	check(*name && strlen(name) <= CONTAINERD_NS_MAX);
	for (; *name; name++)
		check(*name > ' ' && *name < 0x7f);
}

static void check_message(const void *bytes, size_t len)
{
	char ns[CONTAINERD_NS_MAX + 1];
	bool of_image;
	int r = containerd_msg_images(bytes, len, on_image, NULL);

	check(r == 0 || r == -EBADMSG || r == -EMSGSIZE);
	r = containerd_msg_namespaces(bytes, len, on_name, NULL);
	check(r == 0 || r == -EBADMSG || r == -EMSGSIZE);
	r = containerd_msg_event(bytes, len, ns, &of_image);
	check(r == 0 || r == -EBADMSG || r == -EMSGSIZE);
	check(r < 0 || strlen(ns) <= CONTAINERD_NS_MAX);
}

struct frames {
	bool look;
	size_t n, bytes;
};

static int on_message(void *arg, const void *msg, size_t len)
{
	struct frames *f = arg;

	f->n++;
	f->bytes += len;
	if (f->look)
		check_message(msg, len);
	return 0;
}

static int read_frames(const uint8_t *data, size_t size, size_t step,
		       struct frames *f)
{
	struct grpc_reader g = GRPC_READER_INIT(4096);
	int r = 0;

	for (size_t at = 0; r == 0 && at < size; at += step)
		r = grpc_read(&g, data + at, min_u64(step, size - at),
			      on_message, f);
	grpc_reader_release(&g);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frames whole = {.look = true}, bytes = {0};
	int r = read_frames(data, size, size ? size : 1, &whole);

	check(r == read_frames(data, size, 1, &bytes));
	check(whole.n == bytes.n && whole.bytes == bytes.bytes);
	check(r == 0 || r == -EBADMSG || r == -EMSGSIZE);
	check_message(data, size);
	return 0;
}
