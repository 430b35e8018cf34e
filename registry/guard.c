#include "registry/guard.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

bool guard_allows(const struct string_list *list, const char *host,
		  uint16_t port)
{
	char with_port[300];
	size_t len = strlen(host);

	(void)snprintf(with_port, sizeof(with_port),
		       strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
	for (size_t i = 0; i < list->n; i++) {
		const char *a = list->v[i];
		size_t n = strlen(a);

		if (strcasecmp(a, host) == 0 || strcasecmp(a, with_port) == 0)
			return true;
		if (*a == '.' && len > n && strcasecmp(host + len - n, a) == 0)
			return true;
	}
	return false;
}
