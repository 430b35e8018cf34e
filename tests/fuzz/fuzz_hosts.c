/* containerd's hosts.toml. If the input can be parsed, its items have no gaps
 * between them, a file without our block is left as it is, and adding and
 * stripping a block gives the same bytes again. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "containerd/hosts-private.h"
#include "containerd/toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *text(const struct buf *b)
{
	return b->data ? b->data : "";
}

static bool same(const struct buf *b, const char *s, size_t len)
{
	return b->len == len && memcmp(text(b), s, len) == 0;
}

static void check_items(const char *s, size_t len)
{
	struct error err = {""};
	struct toml_item item;
	size_t end = 0;
	struct toml t;
	int r = toml_init(&t, s, len, &err);

	while (r == 0 && (r = toml_next(&t, &item)) == 1) {
		BUG_ON(item.end <= item.start || item.end > len);
		BUG_ON(end && item.start != end);
		BUG_ON(item.line == 0);
		if (item.type == TOML_TABLE || item.type == TOML_ARRAY ||
		    item.type == TOML_KEY)
			BUG_ON(item.path.n == 0);
		for (size_t i = 0; i < ARRAY_SIZE(item.path.part); i++)
			BUG_ON(strnlen(item.path.part[i], TOML_PART_SIZE) ==
			       TOML_PART_SIZE);
		end = item.end;
		r = 0;
	}
	BUG_ON(r != 0 && r != -EINVAL);
	BUG_ON((r < 0) != (*err.text != '\0'));
	BUG_ON(r == 0 && end && end != len);
}

static void put_and_take(const struct buf *base, const struct hosts_block *b)
{
	CLEANUP(buf_release) struct buf with = BUF_INIT(4 * HOSTS_MAX_BYTES);
	CLEANUP(buf_release) struct buf out = BUF_INIT(4 * HOSTS_MAX_BYTES);
	struct hosts_found found;
	size_t present;

	if (hosts_edit_add(text(base), base->len, b, &with, &present, NULL) < 0)
		return;
	BUG_ON(present > b->mirrors->n);
	check_items(text(&with), with.len);
	BUG_ON(hosts_edit_strip(text(&with), with.len, &out, &found, NULL) < 0);
	BUG_ON(!same(&out, text(base), base->len));
	BUG_ON(found.edited);
	if (present < b->mirrors->n)
		BUG_ON(found.blocks != 1 || found.made != b->made);
	else
		BUG_ON(!same(&with, text(base), base->len));
}

static void fuzz(const char *s, size_t len, const struct string_list *mirrors)
{
	CLEANUP(buf_release) struct buf base = BUF_INIT(4 * HOSTS_MAX_BYTES);
	const struct hosts_block blocks[] = {
		{.mirrors = mirrors, .server = "https://a"},
		{.mirrors = mirrors, .made = HOSTS_MADE_FILE},
		{.mirrors = mirrors,
		 .server = "https://a",
		 .extra = "ca = \"x\"\n",
		 .made = HOSTS_MADE_DIR},
	};
	struct error err = {""};
	struct hosts_found found;
	int r;

	check_items(s, len);
	r = hosts_edit_strip(s, len, &base, &found, &err);
	BUG_ON(r != 0 && r != -EINVAL);
	BUG_ON((r < 0) != (*err.text != '\0'));
	if (r < 0)
		return;
	BUG_ON(base.len > len);
	BUG_ON(!found.blocks && !same(&base, s, len));
	for (size_t i = 0; i < ARRAY_SIZE(blocks); i++)
		put_and_take(&base, &blocks[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(string_list_release) struct string_list mirrors = {0};
	CLEANUP(freep) char *s = malloc(size + 1);

	if (!s || size > HOSTS_MAX_BYTES ||
	    string_list_add(&mirrors, "http://b") < 0 ||
	    string_list_add(&mirrors, "http://[::1]:5000") < 0)
		return 0;
	memcpy(s, data, size);
	s[size] = '\0';
	fuzz(s, size, &mirrors);
	return 0;
}
