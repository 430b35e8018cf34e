/* The command line: one table entry per command (main.c). A command that talks
 * to a running daemon uses the daemon's control socket and nothing else of the
 * program; see docs/swagger.yml for what that socket answers. */
#ifndef CMD_CLI_H
#define CMD_CLI_H

#include <stdbool.h>

#include "base/options.h"

struct command {
	const char *name;
	const char *args;    /* for the usage line; "" takes none */
	const char *summary; /* one line of `peerd --help`, without newline */
	const char *what;    /* for `peerd NAME --help` */
	/* argv[0] is the command's name. Returns the exit status: 0; 1 it
	 * failed; 2 the command line is wrong. */
	int (*run)(const struct command *c, int argc, char **argv);
};

/* Prints what `peerd NAME --help` says. */
void command_help(const struct command *c, const struct option *table,
		  size_t n);
/* Reads the options of `table` into cfg, which is all zero, and calls run()
 * with the other arguments, if c takes any. Or prints the help. Returns the
 * exit status; what the options own is released. */
int command_run(const struct command *c, const struct option *table, size_t n,
		void *cfg, int argc, char **argv,
		int (*run)(void *cfg, const struct string_list *args));
/* Prints "peerd: TEXT" to standard error and returns `status`. */
int command_fail(int status, const char *text);

/* client.c: the commands that talk to a running daemon. */
int cmd_status(const struct command *c, int argc, char **argv);
int cmd_ls(const struct command *c, int argc, char **argv);
int cmd_peers(const struct command *c, int argc, char **argv);
int cmd_pull(const struct command *c, int argc, char **argv);
int cmd_verify(const struct command *c, int argc, char **argv);
int cmd_evict(const struct command *c, int argc, char **argv);

/* hosts.c, keys.c: these need no daemon. */
int cmd_hosts(const struct command *c, int argc, char **argv);
int cmd_keys(const struct command *c, int argc, char **argv);

#endif
