/* peerd: the table of commands, and `peerd run`. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cmd/cli.h"
#include "daemon/config.h"
#include "daemon/daemon.h"

static int cmd_run(const struct command *c, int argc, char **argv);
static int cmd_version(const struct command *c, int argc, char **argv);

static const struct command commands[] = {
	{"run", "", "the daemon, in the foreground",
	 "Runs the daemon in the foreground until SIGTERM or SIGINT.", cmd_run},
	{"status", "", "the state of a running daemon",
	 "Prints the state of the daemon that uses --cache-dir.", cmd_status},
	{"ls", "", "the blobs in its cache",
	 "Lists the blobs in the cache, and how much of each is cached.",
	 cmd_ls},
	{"pull", " REF…",
	 "fetch all blobs of HOST/NAME:TAG, or a blob HOST/NAME@DIGEST",
	 "Fetches everything that each REF names into the cache:\n"
	 "HOST/NAME:TAG for all blobs of an image or artifact (of a\n"
	 "multi-platform image, this machine's), HOST/NAME@sha256:… for one\n"
	 "manifest or blob.",
	 cmd_pull},
	{"verify", " [sha256:…]…", "check cached blobs against their digests",
	 "Reads blobs from the cache and checks them against their digests.\n"
	 "A blob that does not match is dropped, and fetched again when it\n"
	 "is read.",
	 cmd_verify},
	{"evict", " [sha256:…]…", "drop blobs and manifests from the cache",
	 "Drops the cached chunks of blobs, and manifests.", cmd_evict},
	{"peers", "", "the other nodes, and the bytes received from each",
	 "Lists the other nodes of the cluster, as this one sees them.",
	 cmd_peers},
	{"hosts", " add|undo", "make containerd use this mirror, or undo that",
	 "add edits containerd's hosts.toml files, so that containerd asks this\n"
	 "daemon first for the images of --hosts. undo restores the files byte\n"
	 "for byte.",
	 cmd_hosts},
	{"keys", " init|issue [NODE]",
	 "make the certificates that nodes authenticate with",
	 "Makes the certificates that nodes authenticate with as members of one\n"
	 "cluster. `init --dir DIR` makes the cluster's CA, once:\n"
	 "DIR/ca.crt and DIR/ca.key. `issue --dir DIR NODE` makes DIR/NODE.crt\n"
	 "and DIR/NODE.key, or renews them. Each node gets ca.crt and its own\n"
	 "two files, for --tls-ca, --tls-cert and --tls-key; a running daemon\n"
	 "takes renewed ones up by itself. ca.key stays where it is: anyone who\n"
	 "has it can add nodes.",
	 cmd_keys},
	{"version", "", "print the version", "Prints the version.",
	 cmd_version},
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static void print_usage(FILE *to)
{
	(void)fputs("usage: peerd COMMAND [OPTION]… [ARGUMENT]…\n"
		    "\n"
		    "Shows the blobs of container registries as lazily fetched "
		    "files.\n"
		    "\n",
		    to);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		(void)fprintf(to, "  %-8s %s\n", commands[i].name,
			      commands[i].summary);
	(void)fputs("\npeerd COMMAND --help lists the command's options.\n",
		    to);
}

static int cmd_version(const struct command *c, int argc, char **argv)
{
	(void)argv;
	if (argc > 1) {
		command_help(c, NULL, 0);
		return 0;
	}
	printf("peerd %s\n", PEERD_VERSION);
	return 0;
}

static int run_daemon(void *config, const struct string_list *args)
{
	struct config *cfg = config;
	enum log_level level = LOG_INFO;
	enum log_format format = LOG_FORMAT_AUTO;

	(void)args;
	if (!cfg->node_name) {
		cfg->node_name = calloc(1, 256);
		if (!cfg->node_name || gethostname(cfg->node_name, 255) == -1)
			return command_fail(1, "cannot get the host name");
	}
	(void)log_level_parse(cfg->log_level, &level);
	if (strcmp(cfg->log_format, "json") == 0)
		format = LOG_FORMAT_JSON;
	else if (strcmp(cfg->log_format, "text") == 0)
		format = LOG_FORMAT_TEXT;
	log_init(level, format, cfg->node_name, PEERD_VERSION);
	return daemon_run(cfg);
}

static int cmd_run(const struct command *c, int argc, char **argv)
{
	struct config cfg = {0};

	return command_run(c, config_options, config_noptions, &cfg, argc, argv,
			   run_daemon);
}

int main(int argc, char **argv)
{
	const struct command *c;

	if (argc < 2) {
		print_usage(stderr);
		return 2;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
	    strcmp(argv[1], "help") == 0) {
		print_usage(stdout);
		return 0;
	}
	c = find_command(strcmp(argv[1], "--version") == 0 ? "version"
							   : argv[1]);
	if (!c) {
		(void)fprintf(stderr, "peerd: no command \"%s\"\n\n", argv[1]);
		print_usage(stderr);
		return 2;
	}
	return c->run(c, argc - 1, argv + 1);
}
