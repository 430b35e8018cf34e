#include "p2p/holders-msg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "p2p/holders-private.h"
#include "store/store.h"

static int parse_hold(const json_t *v, struct hold *ret)
{
	const json_t *key = json_array_get(v, 0), *n = json_array_get(v, 1);

	if (json_array_size(v) != 2 || !json_is_string(key) ||
	    !json_is_integer(n) || json_integer_value(n) < 0 ||
	    (uint64_t)json_integer_value(n) > BLOB_MAX_SIZE)
		return -EINVAL;
	ret->size = (uint64_t)json_integer_value(n);
	return holder_key_parse(json_string_value(key), &ret->key);
}

static int parse_holds(const json_t *holds, struct hold_batch *b,
		       struct error *err)
{
	size_t n = json_array_size(holds);

	if (n > HOLDERS_BATCH_KEYS)
		return set_error(err, -EMSGSIZE, "more than %d keys",
				 HOLDERS_BATCH_KEYS);
	b->v = calloc(n + 1, sizeof(*b->v));
	if (!b->v)
		return set_error(err, -ENOMEM, "out of memory");
	for (; b->n < n; b->n++)
		if (parse_hold(json_array_get(holds, b->n), &b->v[b->n]) < 0)
			return set_error(err, -EINVAL,
					 "entry %zu is not a key and a size",
					 b->n);
	return 0;
}

int hold_batch_parse(const char *bytes, size_t len, struct hold_batch *ret,
		     struct error *err)
{
	CLEANUP(hold_batch_release) struct hold_batch b = {0};
	CLEANUP(json_decrefp) json_t *o = NULL;
	const char *id;
	json_t *holds;
	int r;

	if (len > HOLDERS_BATCH_BYTES)
		return set_error(err, -EMSGSIZE, "more than %u bytes",
				 HOLDERS_BATCH_BYTES);
	r = json_parse(bytes, len, HOLDERS_BATCH_BYTES, &o, err);
	if (r < 0)
		return r;
	id = json_get_str(o, "id");
	holds = json_get_arr(o, "holds");
	if (!id || !holds)
		return set_error(err, -EINVAL,
				 "\"id\" or \"holds\" is missing");
	b.id = strdup(id);
	if (!b.id)
		return set_error(err, -ENOMEM, "out of memory");
	r = parse_holds(holds, &b, err);
	if (r < 0)
		return r;
	*ret = b;
	b = (struct hold_batch){0};
	return 0;
}

void hold_batch_release(struct hold_batch *b)
{
	free(b->id);
	free(b->v);
	*b = (struct hold_batch){0};
}

int holders_answer_parse(const char *bytes, size_t len,
			 struct holders_answer *ret)
{
	CLEANUP(holders_answer_release) struct holders_answer a = {0};

	if (json_parse(bytes, len, HOLDERS_ANSWER_BYTES, &a.doc, NULL) < 0)
		return -EBADMSG;
	a.ids = json_get_arr(a.doc, "holders");
	if (!a.ids || json_get_u64(a.doc, "size", &a.size) < 0 ||
	    a.size > BLOB_MAX_SIZE)
		return -EBADMSG;
	a.n = json_array_size(a.ids);
	for (size_t i = 0; i < a.n; i++)
		if (!holders_answer_id(&a, i))
			return -EBADMSG;
	*ret = a;
	a = (struct holders_answer){0};
	return 0;
}

const char *holders_answer_id(const struct holders_answer *a, size_t i)
{
	return json_string_value(json_array_get(a->ids, i));
}

void holders_answer_release(struct holders_answer *a)
{
	json_decref(a->doc);
	*a = (struct holders_answer){0};
}
