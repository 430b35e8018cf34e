#include "base/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"

#define CONFIG_OPTION	 "config"
#define FILE_MAX_BYTES	 ((size_t)1 << 20)
#define ENV_PREFIX	 "PEERD_"
#define ENV_NAME_SIZE	 128
#define HELP_WIDTH	 80
#define HELP_COLUMN	 32
#define SHOWN_VALUE_SIZE 128

/* One value */

static void show_number(enum option_type type, uint64_t v,
			char out[VALUE_SHOW_SIZE])
{
	if (type == OPT_SIZE)
		(void)show_size(v, out);
	else if (type == OPT_DURATION)
		(void)show_duration_ms(v, out);
	else
		(void)snprintf(out, VALUE_SHOW_SIZE, "%" PRIu64, v);
}

static void env_name(const struct option *o, char out[ENV_NAME_SIZE])
{
	size_t n = sizeof(ENV_PREFIX) - 1;

	memcpy(out, ENV_PREFIX, n);
	for (const char *p = o->name; *p && n < ENV_NAME_SIZE - 1; p++)
		out[n++] = (char)(*p == '-' ? '_' : toupper((unsigned char)*p));
	out[n] = '\0';
}

/* Describes the allowed values, for errors. */
static void show_allowed(const struct option *o, char out[128])
{
	static const char *const forms[] = {
		[OPT_STRING] = "text",
		[OPT_LIST] = "a comma-separated list",
		[OPT_BOOL] = "true or false",
		[OPT_UINT] = "a whole number",
		[OPT_SIZE] = "a size such as 4096, 64KiB or 1.5GB",
		[OPT_DURATION] = "a time such as 500ms, 5s, 2m or 1h",
	};
	char min[VALUE_SHOW_SIZE], max[VALUE_SHOW_SIZE];

	if (o->type == OPT_ENUM) {
		(void)snprintf(out, 128, "one of %s", o->choices);
		return;
	}
	show_number(o->type, o->min, min);
	show_number(o->type, o->max, max);
	if (o->min && o->max)
		(void)snprintf(out, 128, "%s, from %s to %s", forms[o->type],
			       min, max);
	else if (o->min || o->max)
		(void)snprintf(out, 128, "%s, at %s %s", forms[o->type],
			       o->min ? "least" : "most", o->min ? min : max);
	else
		(void)snprintf(out, 128, "%s", forms[o->type]);
}

/* Makes the value short, safe for a terminal, and free of secrets in URLs. */
static void show_value(const char *s, char out[SHOWN_VALUE_SIZE])
{
	char plain[SHOWN_VALUE_SIZE / 2];
	size_t n = 0, len;
	const char *p = plain;

	(void)log_redact_url(s, plain, sizeof(plain));
	if (!strstr(s, "://")) /* otherwise "a#b" would become "a" */
		(void)snprintf(plain, sizeof(plain), "%s", s);
	len = utf8_cut(plain, strlen(plain));
	while (len > 0) {
		char c[TEXT_ESCAPE_SIZE];
		size_t used = text_escape(p, len, c);
		size_t add = strlen(c);

		if (n + add + sizeof("…") > SHOWN_VALUE_SIZE)
			break;
		memcpy(out + n, c, add);
		n += add;
		p += used;
		len -= used;
	}
	out[n] = '\0';
	if (len > 0 || strlen(s) >= sizeof(plain))
		memcpy(out + n, "…", sizeof("…"));
}

static int bad_value(const struct option *o, const char *where,
		     const char *value, struct error *err)
{
	char shown[SHOWN_VALUE_SIZE], allowed[128];

	show_value(value, shown);
	show_allowed(o, allowed);
	return set_error(err, -EINVAL, "%s: \"%s\" is not %s", where, shown,
			 allowed);
}

static bool is_choice(const char *choices, const char *word)
{
	size_t len = strlen(word);

	while (*choices) {
		size_t n = strcspn(choices, "|");

		if (n == len && len > 0 && memcmp(choices, word, n) == 0)
			return true;
		choices += n + (choices[n] != '\0');
	}
	return false;
}

static int parse_bool(const char *s, bool *ret)
{
	static const char *const words[] = {"false", "true", "0",
					    "1",     "no",   "yes"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(s, words[i]) == 0) {
			*ret = i % 2 == 1;
			return 0;
		}
	return -EINVAL;
}

static int parse_number(const struct option *o, const char *s, uint64_t *ret)
{
	uint64_t v;
	int r = o->type == OPT_UINT   ? parse_u64(s, &v)
		: o->type == OPT_SIZE ? parse_size(s, &v)
				      : parse_duration_ms(s, &v);

	if (r < 0)
		return r;
	if (v < o->min || (o->max && v > o->max))
		return -ERANGE;
	*ret = v;
	return 0;
}

static void *field_of(const struct option *o, void *config)
{
	return (char *)config + o->offset;
}

static int set_string(char **field, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

/* Adds to a list, replaces any other value. where: "--name" or "PEERD_NAME",
 * for the error. */
static int set_value(const struct option *o, void *config, const char *value,
		     const char *where, struct error *err)
{
	void *field = field_of(o, config);
	int r = -EINVAL;

	switch (o->type) {
	case OPT_STRING:
		r = set_string(field, value);
		break;
	case OPT_ENUM:
		if (is_choice(o->choices, value))
			r = set_string(field, value);
		break;
	case OPT_LIST:
		r = string_list_split(field, value);
		break;
	case OPT_BOOL:
		r = parse_bool(value, field);
		break;
	case OPT_UINT:
	case OPT_SIZE:
	case OPT_DURATION:
		r = parse_number(o, value, field);
		break;
	}
	if (r == -ENOMEM)
		return set_error(err, r, "%s: out of memory", where);
	return r < 0 ? bad_value(o, where, value, err) : 0;
}

/* The list of a higher source replaces that of a lower one. */
static void clear_list(const struct option *o, void *config)
{
	if (o->type == OPT_LIST)
		string_list_release(field_of(o, config));
}

static void clear_all(const struct option *table, size_t n, void *config)
{
	for (size_t i = 0; i < n; i++) {
		void *field = field_of(&table[i], config);

		switch (table[i].type) {
		case OPT_STRING:
		case OPT_ENUM:
			*(char **)field = NULL;
			break;
		case OPT_LIST:
			*(struct string_list *)field = (struct string_list){0};
			break;
		case OPT_BOOL:
			*(bool *)field = false;
			break;
		case OPT_UINT:
		case OPT_SIZE:
		case OPT_DURATION:
			*(uint64_t *)field = 0;
			break;
		}
	}
}

void options_release(const struct option *table, size_t n, void *config)
{
	for (size_t i = 0; i < n; i++) {
		if (table[i].type == OPT_LIST)
			string_list_release(field_of(&table[i], config));
		else if (table[i].type == OPT_STRING ||
			 table[i].type == OPT_ENUM)
			freep(field_of(&table[i], config));
	}
}

/* The command line */

struct args {
	const struct option *table;
	size_t n;
	char **argv;
	int argc, i;
	bool ended; /* "--" was seen */
};

enum arg { ARG_END, ARG_OPTION, ARG_POSITIONAL, ARG_HELP };

static const struct option *find_option(const struct option *table, size_t n,
					const char *name, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (strlen(table[i].name) == len &&
		    memcmp(table[i].name, name, len) == 0)
			return &table[i];
	return NULL;
}

/* Edit distance; UINT32_MAX for names too long to compare. */
static unsigned int distance(const char *a, size_t alen, const char *b)
{
	unsigned int row[65];
	size_t blen = strlen(b);

	if (alen >= ARRAY_SIZE(row) || blen >= ARRAY_SIZE(row))
		return UINT32_MAX;
	for (size_t j = 0; j <= blen; j++)
		row[j] = (unsigned int)j;
	for (size_t i = 1; i <= alen; i++) {
		unsigned int diagonal = row[0];

		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= blen; j++) {
			unsigned int best = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			best = best < row[j] + 1 ? best : row[j] + 1;
			row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
		}
	}
	return row[blen];
}

/* prefix goes before the given name, dashes before the proposed one. */
static int unknown(const struct option *table, size_t n, const char *prefix,
		   const char *dashes, const char *name, size_t len,
		   struct error *err)
{
	CLEANUP(freep) char *copy = strndup(name, len);
	const struct option *near = NULL;
	unsigned int best = 3;
	char shown[SHOWN_VALUE_SIZE];

	for (size_t i = 0; i < n; i++) {
		unsigned int d = distance(name, len, table[i].name);

		if (d < best && !table[i].hidden) {
			best = d;
			near = &table[i];
		}
	}
	show_value(copy ? copy : "", shown);
	return set_error(err, -EINVAL, "%s%s: no such option%s%s%s", prefix,
			 shown, near ? "; did you mean " : "",
			 near ? dashes : "", near ? near->name : "");
}

/* Takes a next argument with two dashes for another option, not for the value;
 * --name=--value still passes such a value. */
static int next_option(struct args *a, const char *arg,
		       const struct option **opt, const char **value,
		       struct error *err)
{
	const char *name = arg + 2;
	size_t len = strcspn(name, "=");
	const struct option *o = find_option(a->table, a->n, name, len);

	if (!o)
		return unknown(a->table, a->n, "--", "--", name, len, err);
	*opt = o;
	if (name[len] == '=') {
		*value = name + len + 1;
	} else if (o->type == OPT_BOOL) {
		*value = "true";
	} else if (a->i < a->argc && strncmp(a->argv[a->i], "--", 2) != 0) {
		*value = a->argv[a->i++];
	} else {
		char allowed[128];

		show_allowed(o, allowed);
		return set_error(err, -EINVAL, "--%s: needs a value: %s",
				 o->name, allowed);
	}
	return ARG_OPTION;
}

/* Returns enum arg, or a negative errno. */
static int next_arg(struct args *a, const struct option **opt,
		    const char **value, struct error *err)
{
	const char *arg;

	if (!a->ended && a->i < a->argc && strcmp(a->argv[a->i], "--") == 0) {
		a->ended = true;
		a->i++;
	}
	if (a->i >= a->argc)
		return ARG_END;
	arg = a->argv[a->i++];
	*value = arg;
	if (a->ended || arg[0] != '-' || arg[1] == '\0')
		return ARG_POSITIONAL;
	if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
		return ARG_HELP;
	if (arg[1] != '-')
		return unknown(a->table, a->n, "-", "--", arg + 1,
			       strlen(arg + 1), err);
	return next_option(a, arg, opt, value, err);
}

/* Checks the form of all arguments and finds the file's name. apply_args()
 * reads the values later, because those of the file come first. */
static int scan_args(struct args a, bool may_rest, bool *help,
		     const char **file, struct error *err)
{
	const struct option *o = NULL;
	const char *value;
	int r;

	while ((r = next_arg(&a, &o, &value, err)) > ARG_END) {
		char shown[SHOWN_VALUE_SIZE];

		if (r == ARG_HELP) {
			*help = true;
			return 0;
		}
		if (r == ARG_OPTION && o && strcmp(o->name, CONFIG_OPTION) == 0)
			*file = value;
		if (r != ARG_POSITIONAL || may_rest)
			continue;
		show_value(value, shown);
		return set_error(err, -EINVAL, "%s: unexpected argument",
				 shown);
	}
	return r;
}

static int apply_args(struct args a, void *config, struct string_list *rest,
		      struct error *err)
{
	CLEANUP(freep) bool *seen = calloc(a.n + 1, sizeof(*seen));
	const struct option *o = NULL;
	const char *value;
	int r;

	if (!seen)
		return -ENOMEM;
	while ((r = next_arg(&a, &o, &value, err)) > ARG_END) {
		char where[ENV_NAME_SIZE];

		if (r == ARG_POSITIONAL) {
			r = string_list_add(rest, value);
		} else {
			BUG_ON(!o);
			(void)snprintf(where, sizeof(where), "--%s", o->name);
			if (!seen[o - a.table])
				clear_list(o, config);
			seen[o - a.table] = true;
			r = set_value(o, config, value, where, err);
		}
		if (r < 0)
			return r;
	}
	return r;
}

/* The environment */

/* Other names with the prefix are ignored: Kubernetes sets PEERD_SERVICE_HOST
 * and the like for a service called peerd. An empty variable counts as unset.
 */
static const char *get_env(const struct option *o)
{
	char name[ENV_NAME_SIZE];
	const char *v;

	env_name(o, name);
	v = getenv(name);
	return v && *v ? v : NULL;
}

static int apply_env(const struct option *table, size_t n, void *config,
		     struct error *err)
{
	for (size_t i = 0; i < n; i++) {
		const char *value = get_env(&table[i]);
		char where[ENV_NAME_SIZE + 32], name[ENV_NAME_SIZE];
		int r;

		if (!value)
			continue;
		env_name(&table[i], name);
		(void)snprintf(where, sizeof(where), "%s (environment)", name);
		clear_list(&table[i], config);
		r = set_value(&table[i], config, value, where, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The file */

static int set_json_list(const struct option *o, void *config, json_t *v,
			 const char *where, struct error *err)
{
	size_t i;
	json_t *item;

	json_array_foreach (v, i, item) {
		int r;

		if (!json_is_string(item))
			return set_error(err, -EINVAL,
					 "%s: item %zu is not a string", where,
					 i + 1);
		r = string_list_add(field_of(o, config),
				    json_string_value(item));
		if (r < 0)
			return set_error(err, r, "%s: out of memory", where);
	}
	return 0;
}

static int set_json(const struct option *o, void *config, json_t *v,
		    const char *where, struct error *err)
{
	char num[32], allowed[128];

	clear_list(o, config);
	if (o->type == OPT_LIST && json_is_array(v))
		return set_json_list(o, config, v, where, err);
	if (json_is_string(v))
		return set_value(o, config, json_string_value(v), where, err);
	if (o->type == OPT_BOOL && json_is_boolean(v))
		return set_value(o, config, json_is_true(v) ? "true" : "false",
				 where, err);
	if ((o->type == OPT_UINT || o->type == OPT_SIZE) &&
	    json_is_integer(v)) {
		(void)snprintf(num, sizeof(num), "%" JSON_INTEGER_FORMAT,
			       json_integer_value(v));
		return set_value(o, config, num, where, err);
	}
	show_allowed(o, allowed);
	return set_error(err, -EINVAL, "%s: wrong type of value, wanted %s",
			 where, allowed);
}

static int apply_file(const struct option *table, size_t n, void *config,
		      const char *path, struct error *err)
{
	const struct option *self =
		find_option(table, n, CONFIG_OPTION, strlen(CONFIG_OPTION));
	bool shared = self && self->shared;
	CLEANUP(json_decrefp) json_t *root = NULL;
	const char *key;
	json_t *v;
	int r = json_parse_file(path, FILE_MAX_BYTES, &root, err);

	if (r < 0)
		return r;
	if (!json_is_object(root))
		return set_error(err, -EINVAL, "%s: not a JSON object", path);
	json_object_foreach (root, key, v) {
		const struct option *o =
			find_option(table, n, key, strlen(key));
		char where[384];

		(void)snprintf(where, sizeof(where), "%.255s: ", path);
		if (o && strcmp(o->name, CONFIG_OPTION) == 0)
			return set_error(err, -EINVAL,
					 "%s\"%s\" cannot be set in a file",
					 where, key);
		if (!o && shared)
			continue;
		if (!o)
			return unknown(table, n, where, "", key, strlen(key),
				       err);
		(void)snprintf(where, sizeof(where), "%s in %.255s", o->name,
			       path);
		r = set_json(o, config, v, where, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int apply_defaults(const struct option *table, size_t n, void *config,
			  struct error *err)
{
	for (size_t i = 0; i < n; i++) {
		int r = !table[i].def
				? 0
				: set_value(&table[i], config, table[i].def,
					    table[i].name, err);

		BUG_ON(r == -EINVAL); /* our own table is wrong */
		if (r < 0)
			return r;
	}
	return 0;
}

int options_parse(const struct option *table, size_t n, void *config, int argc,
		  char **argv, struct string_list *rest, bool *help,
		  struct error *err)
{
	struct args a = {table, n, argv, argc, 1, false};
	const struct option *config_option =
		find_option(table, n, CONFIG_OPTION, strlen(CONFIG_OPTION));
	const char *file = NULL;
	int r;

	*help = false;
	clear_all(table, n, config);
	if (rest)
		*rest = (struct string_list){0};
	r = apply_defaults(table, n, config, err);
	if (r == 0)
		r = scan_args(a, rest != NULL, help, &file, err);
	if (r < 0 || *help)
		return r;
	if (!file && config_option)
		file = get_env(config_option);
	if (file && *file)
		r = apply_file(table, n, config, file, err);
	if (r == 0)
		r = apply_env(table, n, config, err);
	if (r == 0)
		r = apply_args(a, config, rest, err);
	/* Any failure to read the file counts as bad options. */
	return r < 0 && r != -ENOMEM ? -EINVAL : r;
}

/* --help */

static size_t columns(const char *s, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += ((unsigned char)s[i] & 0xc0) != 0x80;
	return n;
}

/* Prints s from column `at`, further lines from column `indent`; ends the line.
 */
static void print_wrapped(FILE *out, size_t at, size_t indent, const char *s)
{
	bool first = true;

	while (*s) {
		size_t len = strcspn(s, " ");
		size_t cols = columns(s, len);

		if (!first && at + 1 + cols > HELP_WIDTH) {
			(void)fprintf(out, "\n%*s", (int)indent, "");
			at = indent;
		} else if (!first) {
			(void)fputc(' ', out);
			at++;
		}
		(void)fwrite(s, 1, len, out);
		at += cols;
		first = false;
		s += len;
		s += strspn(s, " ");
	}
	(void)fputc('\n', out);
}

static void print_option(FILE *out, const struct option *o)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(4096);
	const char *choices = o->type == OPT_ENUM ? o->choices : NULL;
	const char *def = o->def && *o->def ? o->def : NULL;
	int n = fprintf(out, "  --%s%s%s", o->name, o->value_name ? " " : "",
			o->value_name ? o->value_name : "");
	size_t at = n > 0 ? (size_t)n : 0;
	int r;

	if (at + 2 > HELP_COLUMN) {
		(void)fputc('\n', out);
		at = 0;
	}
	(void)fprintf(out, "%*s", (int)(HELP_COLUMN - at), "");
	r = buf_str(&b, o->help);
	if (r == 0 && choices)
		r = buf_printf(&b, " (%s%s", choices, def ? "" : ")");
	if (r == 0 && def)
		r = buf_printf(&b, "%sdefault %s)", choices ? ", " : " (", def);
	print_wrapped(out, HELP_COLUMN, HELP_COLUMN,
		      r == 0 && b.data ? b.data : o->help);
}

static bool same_section(const struct option *a, const struct option *b)
{
	return strcmp(a->section ? a->section : "",
		      b->section ? b->section : "") == 0;
}

static void print_section(FILE *out, const struct option *table, size_t n,
			  size_t first)
{
	const char *name = table[first].section;

	for (size_t i = 0; i < first; i++)
		if (!table[i].hidden && same_section(&table[i], &table[first]))
			return; /* printed already */
	(void)fprintf(out, "%s:\n", name && *name ? name : "Options");
	for (size_t i = first; i < n; i++)
		if (!table[i].hidden && same_section(&table[i], &table[first]))
			print_option(out, &table[i]);
	(void)fputc('\n', out);
}

void options_help(const struct option *table, size_t n, FILE *out)
{
	const struct option *example = NULL;
	char text[512], name[ENV_NAME_SIZE];

	for (size_t i = 0; i < n; i++) {
		if (table[i].hidden)
			continue;
		print_section(out, table, n, i);
		if (!example && strchr(table[i].name, '-'))
			example = &table[i];
	}
	if (n == 0)
		return;
	example = example ? example : &table[0];
	env_name(example, name);
	(void)snprintf(
		text, sizeof(text),
		"Every option can also be set in the environment (--%s "
		"is %s)%s A flag wins over the environment%s.",
		example->name, name,
		find_option(table, n, CONFIG_OPTION, strlen(CONFIG_OPTION))
			? " and as a key of the JSON file that --config "
			  "names."
			: ".",
		find_option(table, n, CONFIG_OPTION, strlen(CONFIG_OPTION))
			? ", and the environment over the file"
			: "");
	print_wrapped(out, 0, 0, text);
}
