/* Input: eight bytes, the size of the representation, then the header. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "http/range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_range(const char *s, uint64_t total)
{
	struct byte_range out[RANGE_MAX];
	int n = range_parse(s, total, out);

	BUG_ON(n == 0 || n > RANGE_MAX);
	BUG_ON(n < 0 && n != -ERANGE && n != -EINVAL && n != -E2BIG);
	for (int i = 0; i < n; i++)
		BUG_ON(out[i].len == 0 || out[i].off >= total ||
		       out[i].len > total - out[i].off);
}

static void check_content_range(const char *s)
{
	uint64_t first, last, total, f, l, t;
	char again[128];

	if (content_range_parse(s, &first, &last, &total) < 0)
		return;
	BUG_ON(first > last || last >= total);
	(void)snprintf(again, sizeof(again), "bytes %llu-%llu/%llu",
		       (unsigned long long)first, (unsigned long long)last,
		       (unsigned long long)total);
	if (total == UINT64_MAX)
		(void)snprintf(strchr(again, '/'), 3, "/*");
	BUG_ON(content_range_parse(again, &f, &l, &t) != 0);
	BUG_ON(f != first || l != last || t != total);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(freep) char *s = NULL;
	uint64_t total;

	if (size < sizeof(total))
		return 0;
	memcpy(&total, data, sizeof(total));
	s = strndup((const char *)data + sizeof(total), size - sizeof(total));
	check_range(s, total);
	check_content_range(s);
	return 0;
}
