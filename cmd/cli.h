/* The command line: one table entry per command (main.c). A command that talks
 * to a running daemon uses the daemon's control socket and no other part of the
 * program; docs/swagger.yml describes that socket's API. */
#ifndef CMD_CLI_H
#define CMD_CLI_H

#include <stdbool.h>

#include "base/options.h"

struct command {
	const char *name;
	const char *args; /* for the usage line; "" if the command takes none */
	const char *summary; /* one line of `peerd --help`, without newline */
	const char *what;    /* for `peerd NAME --help` */
	/* argv[0] is the command's name. Returns the exit status: 0; 1 if the
	 * command failed; 2 if the command line is wrong. */
	int (*run)(const struct command *c, int argc, char **argv);
};

/* Prints the text of `peerd NAME --help`. */
void command_help(const struct command *c, const struct option *table,
		  size_t n);
/* Reads the options of `table` into cfg, which must be all zero, and calls
 * run() with the other arguments, if c takes any. With --help, prints the help
 * instead. Releases the values that options own. Returns the exit status. */
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
