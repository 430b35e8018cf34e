#include "p2p/words.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "p2p/holders-keys.h"

struct holder_key holder_key_of(const struct blob_key *key)
{
	return (struct holder_key){
		.kind = key->kind == BLOB_URL ? HOLDER_URL : HOLDER_SHA256,
		.id = key->id,
	};
}

/* Parses decimal digits and nothing else. */
static int number(const char *s, uint64_t max, uint64_t *ret)
{
	char *end;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	*ret = strtoull(s, &end, 10);
	return errno || *end || *ret > max ? -EINVAL : 0;
}

char *blob_text(const struct blob_key *key, uint64_t size,
		char out[BLOB_TEXT_SIZE])
{
	struct holder_key k = holder_key_of(key);
	char text[HOLDER_KEY_SIZE];

	(void)snprintf(out, BLOB_TEXT_SIZE, "%s;size=%llu",
		       holder_key_str(&k, text), (unsigned long long)size);
	return out;
}

int blob_text_parse(const char *s, struct blob_key *ret_key, uint64_t *ret_size)
{
	static const char tag[] = ";size=";
	const char *semicolon = strchr(s, ';');
	char text[HOLDER_KEY_SIZE];
	struct holder_key key;
	size_t len;

	if (!semicolon || strncmp(semicolon, tag, sizeof(tag) - 1) != 0)
		return -EINVAL;
	len = (size_t)(semicolon - s);
	if (len >= sizeof(text))
		return -EINVAL;
	memcpy(text, s, len);
	text[len] = '\0';
	if (holder_key_parse(text, &key) < 0 ||
	    (key.kind != HOLDER_SHA256 && key.kind != HOLDER_URL))
		return -EINVAL;
	*ret_key = (struct blob_key){
		.kind = key.kind == HOLDER_URL ? BLOB_URL : BLOB_SHA256,
		.id = key.id,
	};
	return number(semicolon + sizeof(tag) - 1, BLOB_MAX_SIZE, ret_size);
}

int have_text_parse(const char *s, uint32_t nchunks, struct have_bits *ret)
{
	char *colon;
	unsigned long first;
	size_t len;

	*ret = (struct have_bits){0};
	if (strcmp(s, "all") == 0) {
		ret->all = true;
		return 0;
	}
	errno = 0;
	first = strtoul(s, &colon, 10);
	if (errno || *s < '0' || *s > '9' || *colon != ':' || first >= nchunks)
		return -EINVAL;
	s = colon + 1;
	len = strlen(s);
	if (len % 2 || len > HAVE_MAX_CHUNKS / 4)
		return -EINVAL;
	for (size_t i = 0; i < len; i++)
		if (hex_value_lower(s[i]) < 0)
			return -EINVAL;
	ret->bits = malloc(len / 2 + 1);
	if (!ret->bits)
		return -ENOMEM;
	for (size_t i = 0; i < len; i += 2)
		ret->bits[i / 2] = (uint8_t)(hex_value_lower(s[i]) << 4 |
					     hex_value_lower(s[i + 1]));
	ret->first = (uint32_t)first;
	ret->n = (uint32_t)len * 4;
	return 0;
}

char *have_text(const struct blob *b, uint32_t chunk, char out[HAVE_TEXT_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	uint32_t nchunks = blob_chunks(b), first = 0, n;
	size_t len;

	if (blob_missing(b) == 0) {
		memcpy(out, "all", 4);
		return out;
	}
	if (nchunks > HAVE_MAX_CHUNKS && chunk > HAVE_MAX_CHUNKS / 2)
		first = (chunk - HAVE_MAX_CHUNKS / 2) & ~UINT32_C(7);
	n = (uint32_t)min_u64(nchunks - first, HAVE_MAX_CHUNKS);
	len = (size_t)snprintf(out, HAVE_TEXT_SIZE, "%u:", first);
	for (uint32_t i = 0; i < n; i += 8) {
		unsigned int byte = 0;

		for (uint32_t j = i; j < n && j < i + 8; j++)
			byte |= (unsigned int)blob_has(b, first + j) << (j - i);
		out[len++] = digits[byte >> 4];
		out[len++] = digits[byte & 15];
	}
	out[len] = '\0';
	return out;
}

int load_text_parse(const char *s, uint32_t *ret)
{
	uint64_t n;

	if (number(s, UINT16_MAX, &n) < 0)
		return -EINVAL;
	*ret = (uint32_t)n;
	return 0;
}

int slow_text_parse(const char *s, void (*id)(void *arg, const char *id),
		    void *arg)
{
	char ids[SLOW_MAX_IDS][MEMBER_ID_MAX];
	unsigned int n = 0;

	for (;;) {
		size_t len = strcspn(s, ",");

		if (len == 0 || len >= MEMBER_ID_MAX || n == SLOW_MAX_IDS)
			return -EINVAL;
		memcpy(ids[n], s, len);
		ids[n++][len] = '\0';
		s += len;
		if (!*s)
			break;
		s++;
	}
	for (unsigned int i = 0; i < n; i++)
		id(arg, ids[i]);
	return 0;
}
