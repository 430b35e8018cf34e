/* `peerd keys`. */
#include <errno.h>

#include "base/cleanup.h"
#include "base/options.h"
#include "keys.h"

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
	 .help = "where ca.crt and ca.key are, and nodes' files go"},
	{.name = "days",
	 .type = OPT_UINT,
	 .offset = F(days),
	 .value_name = "N",
	 .def = TEXT(KEYS_DAYS),
	 .min = 1,
	 .max = KEYS_CA_DAYS,
	 .section = "Options",
	 .help = "issue: how long the certificate is valid from now on"},
};

static const char help_text[] =
	"usage: peerd keys init --dir DIR\n"
	"       peerd keys issue --dir DIR NODE [--days N]\n"
	"\n"
	"Makes the certificates by which nodes know each other as members of\n"
	"one cluster. init makes the cluster's CA, once: DIR/ca.crt and\n"
	"DIR/ca.key. issue makes DIR/NODE.crt and DIR/NODE.key, or renews\n"
	"them. Each node gets ca.crt and its own two files, for --tls-ca,\n"
	"--tls-cert and --tls-key; a running daemon takes renewed ones up by\n"
	"itself. ca.key stays where it is: who has it can add nodes.\n"
	"\n";

static int complain(const char *text)
{
	(void)fprintf(stderr, "peerd: %s\n", text);
	return 1;
}

static int init(const struct keys_options *o)
{
	struct error err = {""};

	if (keys_init(o->dir, &err) < 0)
		return complain(err.text);
	printf("%s/ca.crt: the CA's certificate, for every node (--tls-ca)\n"
	       "%s/ca.key: its key, for no node; keep it safe\n",
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
		return complain(err.text);
	if (gmtime_r(&until, &tm))
		(void)strftime(day, sizeof(day), "%F", &tm);
	printf("%s/%s.crt, %s/%s.key: valid until %s\n", o->dir, node, o->dir,
	       node, day);
	return 0;
}

static int run(const struct keys_options *o, const struct string_list *args)
{
	const char *what = args->n > 0 ? args->v[0] : "";
	bool is_init = strcmp(what, "init") == 0;

	if (!is_init && strcmp(what, "issue") != 0)
		(void)complain("keys init, or keys issue NODE?");
	else if (!o->dir || !*o->dir)
		(void)complain("--dir DIR is missing");
	else if (is_init && args->n > 1)
		(void)complain("keys init takes no NODE");
	else if (!is_init && args->n != 2)
		(void)complain("keys issue takes one NODE");
	else
		return is_init ? init(o) : issue(o, args->v[1]);
	return 2;
}

int cmd_keys(int argc, char **argv)
{
	CLEANUP(string_list_release) struct string_list args = {0};
	struct keys_options o = {0};
	struct error err = {""};
	bool help = false;
	int status = 2;
	int r = options_parse(options, ARRAY_SIZE(options), &o, argc, argv,
			      &args, &help, &err);

	if (r < 0) {
		(void)complain(err.text);
	} else if (help) {
		(void)fputs(help_text, stdout);
		options_help(options, ARRAY_SIZE(options), stdout);
		status = 0;
	} else {
		status = run(&o, &args);
	}
	options_release(options, ARRAY_SIZE(options), &o);
	return status;
}
