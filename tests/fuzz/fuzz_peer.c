/* Input from members: headers of requests and answers for blobs, greetings,
 * requests to homes and their answers. The input is parsed as each of them; an
 * accepted one is within the limits, and if peerd writes it too, it reads back
 * the same. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "p2p/holders-keys.h"
#include "p2p/holders-msg.h"
#include "p2p/holders-private.h"
#include "p2p/members-private.h"
#include "p2p/words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_blob(const char *s)
{
	struct blob_key key, again;
	char text[BLOB_TEXT_SIZE];
	uint64_t size, size_again;
	int r = blob_text_parse(s, &key, &size);

	BUG_ON(r != 0 && r != -EINVAL);
	if (r < 0)
		return;
	BUG_ON(size > BLOB_MAX_SIZE);
	BUG_ON(key.kind != BLOB_SHA256 && key.kind != BLOB_URL);
	(void)blob_text(&key, size, text);
	BUG_ON(blob_text_parse(text, &again, &size_again) < 0);
	BUG_ON(!blob_key_equal(&key, &again) || size != size_again);
}

static void fuzz_have(const char *s, uint32_t nchunks)
{
	struct have_bits h;
	int r = have_text_parse(s, nchunks, &h);

	BUG_ON(r != 0 && r != -EINVAL);
	if (r == 0 && !h.all) {
		volatile uint8_t sum = 0;

		BUG_ON(h.first >= nchunks || h.n > HAVE_MAX_CHUNKS || h.n % 8);
		for (uint32_t i = 0; i < h.n / 8; i++)
			sum = (uint8_t)(sum + h.bits[i]);
	} else {
		BUG_ON(h.bits || h.first || h.n);
		BUG_ON(h.all != (r == 0));
	}
	free(h.bits);
}

static void fuzz_small(const char *s)
{
	struct holder_key key;
	char text[HOLDER_KEY_SIZE];
	uint32_t load = 0;

	if (holder_key_parse(s, &key) == 0)
		BUG_ON(strcmp(holder_key_str(&key, text), s) != 0);
	if (load_text_parse(s, &load) == 0)
		BUG_ON(load > UINT16_MAX);
}

static void fuzz_greeting(const char *bytes, size_t len)
{
	CLEANUP(json_decrefp) json_t *doc = NULL;
	struct error err = {""};
	struct hello h;

	if (greet_parse(bytes, len, &doc, &h, &err) < 0) {
		BUG_ON(doc || !*err.text);
		return;
	}
	BUG_ON(!greet_is_text(h.id, 1, MEMBER_ID_MAX));
	BUG_ON(!greet_is_text(h.name, 0, MEMBER_NAME_MAX));
	BUG_ON(!greet_is_text(h.zone, 0, MEMBER_NAME_MAX));
	BUG_ON(!greet_is_text(h.version, 0, MEMBER_NAME_MAX));
}

static void fuzz_batch(const char *bytes, size_t len)
{
	struct hold_batch b = {0};
	struct error err = {""};
	char text[HOLDER_KEY_SIZE];
	int r = hold_batch_parse(bytes, len, &b, &err);

	BUG_ON(r != 0 && r != -EINVAL && r != -EMSGSIZE);
	BUG_ON((r < 0) != (*err.text != '\0'));
	BUG_ON((r < 0) != (b.id == NULL));
	BUG_ON(b.n > HOLDERS_BATCH_KEYS);
	for (size_t i = 0; i < b.n; i++) {
		struct holder_key key;

		BUG_ON(b.v[i].size > BLOB_MAX_SIZE);
		(void)holder_key_str(&b.v[i].key, text);
		BUG_ON(holder_key_parse(text, &key) < 0 ||
		       !holder_key_equal(&key, &b.v[i].key));
	}
	hold_batch_release(&b);
}

static void fuzz_answer(const char *bytes, size_t len)
{
	struct holders_answer a = {0};
	int r = holders_answer_parse(bytes, len, &a);

	BUG_ON(r != 0 && r != -EBADMSG);
	BUG_ON(a.size > BLOB_MAX_SIZE || (r < 0 && (a.doc || a.n)));
	for (size_t i = 0; i < a.n; i++)
		BUG_ON(!holders_answer_id(&a, i));
	holders_answer_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint32_t chunks[] = {0, 1, 100, HAVE_MAX_CHUNKS,
					  UINT32_MAX};
	const char *bytes = (const char *)data;
	CLEANUP(freep) char *s = NULL;

	if (size == 0)
		return 0;
	s = strndup(bytes, size);
	if (!s)
		return 0;
	fuzz_blob(s);
	for (size_t i = 0; i < ARRAY_SIZE(chunks); i++)
		fuzz_have(s, chunks[i]);
	fuzz_small(s);
	fuzz_greeting(bytes, size);
	fuzz_batch(bytes, size);
	fuzz_answer(bytes, size);
	return 0;
}
