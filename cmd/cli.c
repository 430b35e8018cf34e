/* Functions that all commands share. */
#include "cmd/cli.h"

#include <stdio.h>

#include "base/cleanup.h"

void command_help(const struct command *c, const struct option *table, size_t n)
{
	printf("usage: peerd %s [OPTION]…%s\n\n%s\n\n", c->name, c->args,
	       c->what);
	options_help(table, n, stdout);
}

int command_fail(int status, const char *text)
{
	(void)fprintf(stderr, "peerd: %s\n", text);
	return status;
}

int command_run(const struct command *c, const struct option *table, size_t n,
		void *cfg, int argc, char **argv,
		int (*run)(void *cfg, const struct string_list *args))
{
	CLEANUP(string_list_release) struct string_list args = {0};
	struct error err = {""};
	bool help = false;
	int status = 0;

	if (options_parse(table, n, cfg, argc, argv, *c->args ? &args : NULL,
			  &help, &err) < 0)
		status = command_fail(2, err.text);
	else if (help)
		command_help(c, table, n);
	else
		status = run(cfg, &args);
	options_release(table, n, cfg);
	return status;
}
