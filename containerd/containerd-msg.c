#include "containerd/containerd-msg.h"

#include <errno.h>
#include <string.h>

#include "containerd/containerd.pb-c.h"

/* A decoded message with many small fields, known or unknown, takes much more
 * memory than its encoded bytes. */
#define MEMORY_MAX (CONTAINERD_MSG_MAX * 4)

/* One allocation. It stores its size, so that memory_free() can return the size
 * to memory.left. */
struct piece {
	size_t size;
	max_align_t data[];
};

struct memory {
	ProtobufCAllocator allocator;
	size_t left;
	bool short_of;
};

static void *memory_alloc(void *arg, size_t size)
{
	struct memory *m = arg;
	struct piece *p = NULL;

	if (size <= m->left && m->left - size >= sizeof(*p))
		p = malloc(sizeof(*p) + size);
	if (!p) {
		m->short_of = true;
		return NULL;
	}
	p->size = sizeof(*p) + size;
	m->left -= p->size;
	return p->data;
}

static void memory_free(void *arg, void *data)
{
	struct memory *m = arg;
	struct piece *p;

	if (!data)
		return;
	p = container_of(data, struct piece, data);
	m->left += p->size;
	free(p);
}

static int unpack(const ProtobufCMessageDescriptor *type, struct memory *m,
		  const void *bytes, size_t len, ProtobufCMessage **ret)
{
	*m = (struct memory){
		.allocator = {memory_alloc, memory_free, m},
		.left = MEMORY_MAX,
	};
	if (len > CONTAINERD_MSG_MAX)
		return -EMSGSIZE;
	*ret = protobuf_c_message_unpack(type, &m->allocator, len, bytes);
	if (*ret)
		return 0;
	return m->short_of ? -EMSGSIZE : -EBADMSG;
}

static void release(ProtobufCMessage *msg, struct memory *m)
{
	protobuf_c_message_free_unpacked(msg, &m->allocator);
}

/* A namespace's name is sent as an HTTP header. */
static bool ns_valid(const char *s)
{
	size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			     "abcdefghijklmnopqrstuvwxyz"
			     "0123456789._-");

	return n > 0 && n <= CONTAINERD_NS_MAX && s[n] == '\0';
}

int containerd_msg_images(const void *bytes, size_t len,
			  void (*each)(void *arg,
				       const struct containerd_image *i),
			  void *arg)
{
	struct memory m;
	ProtobufCMessage *msg;
	const Ctr__ListImagesResponse *list;
	int r = unpack(&ctr__list_images_response__descriptor, &m, bytes, len,
		       &msg);

	if (r < 0)
		return r;
	list = (const Ctr__ListImagesResponse *)msg;
	for (size_t k = 0; k < list->n_images; k++) {
		const Ctr__Image *i = list->images[k];
		struct containerd_image out = {.name = i->name};

		if (!*i->name || strlen(i->name) > CONTAINERD_NAME_MAX ||
		    !i->target ||
		    digest_parse(i->target->digest, &out.digest) < 0)
			continue;
		if (i->updated_at && i->updated_at->seconds > 0)
			out.updated_s = (uint64_t)i->updated_at->seconds;
		each(arg, &out);
	}
	release(msg, &m);
	return 0;
}

int containerd_msg_namespaces(const void *bytes, size_t len,
			      void (*each)(void *arg, const char *name),
			      void *arg)
{
	struct memory m;
	ProtobufCMessage *msg;
	const Ctr__ListNamespacesResponse *list;
	int r = unpack(&ctr__list_namespaces_response__descriptor, &m, bytes,
		       len, &msg);

	if (r < 0)
		return r;
	list = (const Ctr__ListNamespacesResponse *)msg;
	for (size_t k = 0; k < list->n_namespaces; k++)
		if (ns_valid(list->namespaces[k]->name))
			each(arg, list->namespaces[k]->name);
	release(msg, &m);
	return 0;
}

int containerd_msg_event(const void *bytes, size_t len,
			 char ns[CONTAINERD_NS_MAX + 1], bool *ret_of_image)
{
	struct memory m;
	ProtobufCMessage *msg;
	const Ctr__Envelope *e;
	int r = unpack(&ctr__envelope__descriptor, &m, bytes, len, &msg);

	if (r < 0)
		return r;
	e = (const Ctr__Envelope *)msg;
	(void)snprintf(ns, CONTAINERD_NS_MAX + 1, "%s",
		       ns_valid(e->namespace_) ? e->namespace_ : "");
	*ret_of_image = strncmp(e->topic, "/images/", 8) == 0;
	release(msg, &m);
	return 0;
}

int containerd_msg_subscribe(const char *filter, struct buf *out)
{
	Ctr__SubscribeRequest rq = CTR__SUBSCRIBE_REQUEST__INIT;
	char *filters[] = {(char *)(uintptr_t)filter};
	uint8_t packed[512];
	size_t len;

	rq.n_filters = 1;
	rq.filters = filters;
	len = ctr__subscribe_request__get_packed_size(&rq);
	if (len > sizeof(packed))
		return -EMSGSIZE;
	(void)ctr__subscribe_request__pack(&rq, packed);
	return buf_add(out, packed, len);
}
