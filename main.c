/* peerd: the command line. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon.h"
#include "keys.h"
#include "registry/hosts.h"

static const char usage[] =
	"usage: peerd COMMAND [OPTION]… [ARGUMENT]…\n"
	"\n"
	"Shows the blobs of container registries as lazily fetched files.\n"
	"\n"
	"  run      the daemon, in the foreground\n"
	"  status   what a running daemon is doing\n"
	"  ls       the blobs in its cache\n"
	"  pull     fetch all blobs of HOST/NAME:TAG, or a blob HOST/NAME@DIGEST\n"
	"  verify   check cached blobs against their digests\n"
	"  evict    drop blobs from the cache\n"
	"  peers    the other nodes, and what came from each\n"
	"  hosts    make containerd use this mirror, or undo that\n"
	"  keys     make the certificates by which nodes know each other\n"
	"  version  print the version\n"
	"\n"
	"peerd COMMAND --help tells a command's options.\n";

struct command {
	const char *name, *args, *what;
};

static const struct command commands[] = {
	{"run", "", "Runs the daemon in the foreground until SIGTERM or "
		    "SIGINT."},
	{"status", "", "Prints what the daemon that uses --cache-dir is "
		       "doing."},
	{"ls", "", "Lists the blobs in the cache, with how much of each is "
		   "there."},
	{"pull", " REF…",
	 "Fetches everything that each REF names into the cache:\n"
	 "HOST/NAME:TAG for all blobs of an image or artifact (of a\n"
	 "multi-platform image, this machine's), HOST/NAME@sha256:… for one\n"
	 "manifest or blob."},
	{"verify", " [sha256:…]…",
	 "Reads blobs from the cache and checks them against their digests.\n"
	 "What does not match is dropped, and fetched again when it is read."},
	{"evict", " [sha256:…]…", "Drops the cached chunks of blobs."},
	{"peers", "", "Lists the other nodes of the cluster, as this one sees "
		      "them."},
	{"hosts", " add|undo",
	 "Makes containerd ask this daemon first for the images of --hosts, by\n"
	 "its hosts.toml files; or takes that back, byte for byte."},
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static void print_help(const struct command *c, const struct option *table,
		       size_t n)
{
	printf("usage: peerd %s [OPTION]…%s\n\n%s\n\n", c->name, c->args,
	       c->what);
	options_help(table, n, stdout);
}

static int run(const struct command *cmd, int argc, char **argv)
{
	struct config cfg = {0};
	struct error err = {""};
	bool help = false;
	enum log_level level = LOG_INFO;
	enum log_format format = LOG_FORMAT_AUTO;
	int r = options_parse(config_options, config_noptions, &cfg, argc, argv,
			      NULL, &help, &err), status;

	if (r == 0 && help) {
		print_help(cmd, config_options, config_noptions);
		options_release(config_options, config_noptions, &cfg);
		return 0;
	}
	if (r < 0) {
		(void)fprintf(stderr, "peerd: %s\n", err.text);
		options_release(config_options, config_noptions, &cfg);
		return 2;
	}
	if (!cfg.node_name) {
		cfg.node_name = calloc(1, 256);
		if (!cfg.node_name || gethostname(cfg.node_name, 255) == -1) {
			(void)fprintf(stderr, "peerd: no host name\n");
			options_release(config_options, config_noptions, &cfg);
			return 1;
		}
	}
	(void)log_level_parse(cfg.log_level, &level);
	if (strcmp(cfg.log_format, "json") == 0)
		format = LOG_FORMAT_JSON;
	else if (strcmp(cfg.log_format, "text") == 0)
		format = LOG_FORMAT_TEXT;
	log_init(level, format, cfg.node_name, PEERD_VERSION);
	status = daemon_run(&cfg);
	options_release(config_options, config_noptions, &cfg);
	return status;
}

static int client(const struct command *cmd, int argc, char **argv)
{
	struct client_config cfg = {0};
	CLEANUP(string_list_release) struct string_list rest = {0};
	struct error err = {""};
	bool help = false, takes_args = *cmd->args != '\0';
	int r = options_parse(client_options, client_noptions, &cfg, argc, argv,
			      takes_args ? &rest : NULL, &help, &err);
	int status = 2;

	if (r < 0) {
		(void)fprintf(stderr, "peerd: %s\n", err.text);
	} else if (help) {
		print_help(cmd, client_options, client_noptions);
		status = 0;
	} else if (strcmp(cmd->name, "status") == 0) {
		status = cli_status(&cfg);
	} else if (strcmp(cmd->name, "ls") == 0) {
		status = cli_ls(&cfg);
	} else if (strcmp(cmd->name, "peers") == 0) {
		status = cli_peers(&cfg);
	} else if (strcmp(cmd->name, "pull") == 0) {
		status = cli_pull(&cfg, &rest);
	} else if (strcmp(cmd->name, "verify") == 0) {
		status = cli_verify(&cfg, &rest);
	} else {
		status = cli_evict(&cfg, &rest);
	}
	options_release(client_options, client_noptions, &cfg);
	return status;
}

static int hosts(const struct command *cmd, int argc, char **argv)
{
	struct hosts_options o = {0};
	CLEANUP(string_list_release) struct string_list rest = {0};
	CLEANUP(freep) char *state_dir = NULL;
	struct error err = {""};
	struct hosts_config c;
	bool help = false;
	int status = 2;
	int r = options_parse(hosts_options, hosts_noptions, &o, argc, argv,
			      &rest, &help, &err);

	if (r < 0) {
		(void)fprintf(stderr, "peerd: %s\n", err.text);
	} else if (help) {
		print_help(cmd, hosts_options, hosts_noptions);
		status = 0;
	} else if (rest.n != 1 || (strcmp(rest.v[0], "add") != 0 &&
				   strcmp(rest.v[0], "undo") != 0)) {
		(void)fprintf(stderr, "peerd: hosts add, or hosts undo?\n");
	} else if (asprintf(&state_dir, "%s/hosts-backup", o.cache_dir) < 0) {
		state_dir = NULL;
		status = 1;
	} else {
		c = (struct hosts_config){.hosts = o.hosts,
					  .mirrors = o.mirrors,
					  .config_path = o.config_path,
					  .state_dir = state_dir};
		status = rest.v[0][0] == 'a' ? hosts_add_command(&c)
					     : hosts_undo_command(&c);
	}
	options_release(hosts_options, hosts_noptions, &o);
	return status;
}

int main(int argc, char **argv)
{
	const struct command *cmd;

	if (argc < 2) {
		(void)fputs(usage, stderr);
		return 2;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
	    strcmp(argv[1], "help") == 0) {
		(void)fputs(usage, stdout);
		return 0;
	}
	if (strcmp(argv[1], "version") == 0 ||
	    strcmp(argv[1], "--version") == 0) {
		printf("peerd %s\n", PEERD_VERSION);
		return 0;
	}
	if (strcmp(argv[1], "keys") == 0)
		return cmd_keys(argc - 1, argv + 1);
	cmd = find_command(argv[1]);
	if (!cmd) {
		(void)fprintf(stderr, "peerd: no command \"%s\"\n\n%s", argv[1],
			      usage);
		return 2;
	}
	/* argv[0] of the rest is the command's name. */
	if (strcmp(cmd->name, "run") == 0)
		return run(cmd, argc - 1, argv + 1);
	if (strcmp(cmd->name, "hosts") == 0)
		return hosts(cmd, argc - 1, argv + 1);
	return client(cmd, argc - 1, argv + 1);
}
