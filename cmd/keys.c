/* `peerd keys`. */
#include <errno.h>

#include "base/options.h"
#include "cmd/cli.h"
#include "daemon/keys.h"

struct keys_options {
	char *dir;
	uint64_t days;
};

#define F(field) offsetof(struct keys_options, field)
#define TEXT_(x) #x
#define TEXT(x)	 TEXT_(x)

static const struct option options[] = {
	{.name = "dir",
	 .type = OPT_STRING,
	 .offset = F(dir),
	 .value_name = "DIR",
	 .section = "Options",
	 .help = "the directory of ca.crt, ca.key and the nodes' files"},
	{.name = "days",
	 .type = OPT_UINT,
	 .offset = F(days),
	 .value_name = "N",
	 .def = TEXT(KEYS_DAYS),
	 .min = 1,
	 .max = KEYS_CA_DAYS,
	 .section = "Options",
	 .help = "issue: for how many days from now the certificate is valid"},
};

static int init(const struct keys_options *o)
{
	struct error err = {""};

	if (keys_init(o->dir, &err) < 0)
		return command_fail(1, err.text);
	printf("%s/ca.crt: the CA's certificate, for every node (--tls-ca)\n"
	       "%s/ca.key: its key; keep it safe, and on no node\n",
	       o->dir, o->dir);
	return 0;
}

static int issue(const struct keys_options *o, const char *node)
{
	struct error err = {""};
	char day[32] = "?";
	time_t until = 0;
	struct tm tm;

	if (keys_issue(o->dir, node, (unsigned int)o->days, &until, &err) < 0)
		return command_fail(1, err.text);
	if (gmtime_r(&until, &tm))
		(void)strftime(day, sizeof(day), "%F", &tm);
	printf("%s/%s.crt, %s/%s.key: valid until %s\n", o->dir, node, o->dir,
	       node, day);
	return 0;
}

static int run(void *cfg, const struct string_list *args)
{
	const struct keys_options *o = cfg;
	const char *what = args->n > 0 ? args->v[0] : "";
	bool is_init = strcmp(what, "init") == 0;

	if (!is_init && strcmp(what, "issue") != 0)
		return command_fail(2, "use keys init or keys issue NODE");
	if (!o->dir || !*o->dir)
		return command_fail(2, "--dir DIR is missing");
	if (is_init && args->n > 1)
		return command_fail(2, "keys init takes no NODE");
	if (!is_init && args->n != 2)
		return command_fail(2, "keys issue takes one NODE");
	return is_init ? init(o) : issue(o, args->v[1]);
}

int cmd_keys(const struct command *c, int argc, char **argv)
{
	struct keys_options o = {0};

	return command_run(c, options, ARRAY_SIZE(options), &o, argc, argv,
			   run);
}
