/* `peerd hosts`. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cmd/cli.h"
#include "containerd/hosts.h"
#include "daemon/config.h"

struct hosts_options {
	char *config;
	char *cache_dir;
	struct string_list hosts;
	struct string_list mirrors;
	char *config_path;
};

#define F(field) offsetof(struct hosts_options, field)

/* clang-format off */
static const struct option options[] = {
	{.name = "hosts", .type = OPT_LIST, .offset = F(hosts),
	 .value_name = "HOST[:PORT]", .section = "Options",
	 .help = "registries, or _default for all; without it, undo reverts "
		 "all changes of add"},
	{.name = "mirrors", .type = OPT_LIST, .offset = F(mirrors),
	 .value_name = "URL", .def = DEFAULT_MIRROR, .section = "Options",
	 .help = "the URLs that containerd asks first"},
	{.name = "containerd-hosts-config-path", .type = OPT_STRING,
	 .offset = F(config_path), .value_name = "DIR",
	 .def = DEFAULT_HOSTS_PATH, .section = "Options",
	 .help = "containerd's config_path, the directory of hosts.toml files"},
	{.name = "cache-dir", .type = OPT_STRING, .offset = F(cache_dir),
	 .value_name = "DIR", .def = DEFAULT_CACHE_DIR, .section = "Options",
	 .help = "DIR/hosts-backup keeps the files that undo restores"},
	{.name = "config", .type = OPT_STRING, .offset = F(config),
	 .shared = true,
	 .value_name = "FILE", .section = "Options", .hidden = true,
	 .help = "options as a JSON object"},
};
/* clang-format on */

static int run(void *cfg, const struct string_list *args)
{
	const struct hosts_options *o = cfg;
	const char *what = args->n == 1 ? args->v[0] : "";
	CLEANUP(freep) char *state_dir = NULL;
	struct hosts_config c = {.hosts = o->hosts,
				 .mirrors = o->mirrors,
				 .config_path = o->config_path};
	bool add = strcmp(what, "add") == 0;

	if (!add && strcmp(what, "undo") != 0)
		return command_fail(2, "use hosts add or hosts undo");
	if (asprintf(&state_dir, "%s/hosts-backup", o->cache_dir) < 0) {
		state_dir = NULL;
		return command_fail(1, "out of memory");
	}
	c.state_dir = state_dir;
	return add ? hosts_add_command(&c) : hosts_undo_command(&c);
}

int cmd_hosts(const struct command *c, int argc, char **argv)
{
	struct hosts_options o = {0};

	return command_run(c, options, ARRAY_SIZE(options), &o, argc, argv,
			   run);
}
