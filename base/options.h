/* Options from one table: command line flag, environment variable, JSON file.
 *
 * "--cache-size 10GiB" = PEERD_CACHE_SIZE=10GiB = {"cache-size": "10GiB"}.
 * Precedence: flag over environment over file over default. The table alone
 * holds an option's name, unit, range, default and help; options_help() prints
 * them, and scripts/check-man compares the manual page with them. An error
 * names the option, its source, the bad value, and what is allowed.
 *
 * Not thread-safe; use it before the threads start. */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/util.h"
#include "base/values.h"

enum option_type {
	OPT_STRING,   /* char *; NULL without value and default */
	OPT_LIST,     /* struct string_list; comma-separated, flag repeatable; a
			 JSON array of strings in the file */
	OPT_BOOL,     /* bool; "--x", "--x=false", true/false/1/0/yes/no */
	OPT_UINT,     /* uint64_t, decimal */
	OPT_SIZE,     /* uint64_t, bytes: 4096, 64KiB, 10GiB, 1.5TiB, and
			 KB/MB/GB/TB as powers of 1000 */
	OPT_DURATION, /* uint64_t, milliseconds: 500ms, 5s, 2m, 1h */
	OPT_ENUM,     /* char *, one of the words in `choices` */
};

struct option {
	const char *name; /* without the dashes */
	enum option_type type;
	size_t offset;		/* of the field in the caller's struct */
	const char *value_name; /* "SIZE", "DIR"; in --help */
	const char *def;	/* default, as text; NULL = none, 0 or false */
	uint64_t min, max; /* OPT_UINT, OPT_SIZE, OPT_DURATION; max 0 = none */
	const char *choices; /* OPT_ENUM: "error|warn|info|debug" */
	const char *section; /* heading in --help */
	const char *help;    /* one sentence, no full stop */
	bool hidden;	     /* not in --help */
	bool shared; /* of "config": other commands use the file too, so ignore
			its keys that this table lacks */
};

/* Fills the struct at *config from the defaults, the file that a "config"
 * option of the table (or its environment variable) names, environ, and
 * argv[1…]; skips argv[0]. Values are malloc()ed; options_release() frees them.
 * Positional arguments go into *rest (NULL: they are an error). "--" ends the
 * options. "--help" or "-h" sets *help and ends the parsing. Otherwise -EINVAL
 * with *err, or -ENOMEM; the struct then holds the values so far and must be
 * released too. */
int options_parse(const struct option *table, size_t n, void *config, int argc,
		  char **argv, struct string_list *rest, bool *help,
		  struct error *err);

void options_release(const struct option *table, size_t n, void *config);

/* Prints the sections in the table's order, wrapped at 80 columns: flag, unit,
 * help, "(default …)", and the rule for environment variables once at the end.
 */
void options_help(const struct option *table, size_t n, FILE *out);

#endif
