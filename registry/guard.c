#include "registry/guard.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/ref.h"
#include "base/util.h"
#include "http/url.h"

static bool is_allowed(const struct string_list *list, const char *host,
		       uint16_t port)
{
	char with_port[300];
	size_t len = strlen(host);

	(void)snprintf(with_port, sizeof(with_port),
		       strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
	for (size_t i = 0; list && i < list->n; i++) {
		const char *a = list->v[i];
		size_t n = strlen(a);

		if (strcasecmp(a, host) == 0 || strcasecmp(a, with_port) == 0)
			return true;
		if (*a == '.' && len > n && strcasecmp(host + len - n, a) == 0)
			return true;
	}
	return false;
}

/* "_default" stands for all registries, and so names none. */
static bool guard_names(const struct guard *g, const char *registry)
{
	const struct string_list *lists[] = {g->hosts, g->plain_http};

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		for (size_t j = 0; lists[i] && j < lists[i]->n; j++) {
			struct string_list one = {.v = &lists[i]->v[j], .n = 1};

			if (strcmp(one.v[0], "_default") != 0 &&
			    ref_host_listed(&one, registry))
				return true;
		}
	}
	return false;
}

static int parse_registry(const char *registry, struct url *ret)
{
	char text[REF_HOST_MAX + sizeof("https:///")];
	int n = snprintf(text, sizeof(text), "https://%s/",
			 ref_host_api(registry));

	if (!ref_host_valid(registry) || n < 0 || (size_t)n >= sizeof(text))
		return -EINVAL;
	return url_parse(text, ret);
}

enum addr_scope guard_refuse(const struct guard *g, const char *registry,
			     const char *host, uint16_t port)
{
	CLEANUP(url_release) struct url u = {0};

	if (!g || is_allowed(g->allow, host, port))
		return ADDR_FAR;
	if (!registry || parse_registry(registry, &u) < 0 ||
	    strcasecmp(u.host, host) != 0)
		return ADDR_HOST;
	return guard_names(g, registry) ? ADDR_FAR : ADDR_LINK;
}

bool guard_refuses_name(const struct guard *g, const char *registry,
			const char *host, uint16_t port)
{
	enum addr_scope refuse = guard_refuse(g, registry, host, port);

	return refuse && host_scope(host) >= refuse;
}

bool guard_member_may(const struct guard *g, const char *registry)
{
	CLEANUP(url_release) struct url u = {0};

	if (guard_names(g, registry))
		return true;
	if (g->hosts && g->hosts->n > 0 && !ref_host_listed(g->hosts, registry))
		return false;
	return parse_registry(registry, &u) == 0 &&
	       !guard_refuses_name(g, NULL, u.host, u.port);
}
