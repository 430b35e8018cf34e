#include "containerd/hosts.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/ref.h"
#include "containerd/hosts-private.h"
#include "http/local.h"

#define ALL "_default" /* containerd's directory for all other registries */

/* One call of hosts_add() or hosts_undo(). */
struct hosts_job {
	hosts_report_fn *report;
	void *arg;
	char *config_dir; /* absolute */
	const char *state_dir;
	struct string_list mirrors; /* without doubles */
	int result;
};

static void PRINTF(4, 5) tell(struct hosts_job *j, enum hosts_level level,
			      const char *host, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	j->report(level, host, text, j->arg);
}

static int fail(struct hosts_job *j, int r, const char *host, const char *text)
{
	if (j->result == 0)
		j->result = r;
	tell(j, HOSTS_FAILED, host, "%s",
	     *text	    ? text
	     : r == -ENOMEM ? "out of memory"
			    : strerror(-r));
	return r;
}

/* Names */

/* A registry that the user named. */
struct hosts_entry {
	char dir[REF_HOST_MAX + 3];
	char server[REF_HOST_MAX + 16]; /* "": none; containerd uses its
					   default */
};

static int parse_registry(const char *s, struct hosts_entry *ret)
{
	static const char https[] = "https://", http[] = "http://";
	bool plain = strncmp(s, http, strlen(http)) == 0;
	char host[sizeof(ret->dir)];
	size_t n;

	if (plain)
		s += strlen(http);
	else if (strncmp(s, https, strlen(https)) == 0)
		s += strlen(https);
	n = strlen(s);
	if (n > 0 && s[n - 1] == '/')
		n--;
	if (n > REF_HOST_MAX)
		return -EINVAL;
	memcpy(host, s, n);
	host[n] = '\0';
	ret->server[0] = '\0';
	if (strcmp(host, ALL) != 0) {
		if (!ref_host_valid(host))
			return -EINVAL;
		s = ref_host_canonical(host);
		/* Without "server" containerd tries loopback without TLS. */
		if (plain || !authority_is_loopback(host))
			(void)snprintf(ret->server, sizeof(ret->server), "%s%s",
				       plain ? http : https, ref_host_api(s));
	} else {
		s = host;
	}
	(void)snprintf(ret->dir, sizeof(ret->dir), "%s", s);
	return 0;
}

/* Writes "host_5000_" for "host:5000"; containerd reads that directory first.
 * False if there is no port. */
static bool port_dir(const char *host, char *out, size_t size)
{
	const char *colon = strrchr(host, ':');

	if (!colon || colon[-1] == ':' || strchr(colon, ']'))
		return false;
	(void)snprintf(out, size, "%.*s_%s_", (int)(colon - host), host,
		       colon + 1);
	return true;
}

/* True if the URL needs no escapes between quotes and has no secrets in it. */
static bool mirror_valid(const char *s)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789.-_~:/[]%";
	size_t scheme = strncmp(s, "http://", 7) == 0	 ? 7
			: strncmp(s, "https://", 8) == 0 ? 8
							 : 0;

	return scheme && s[scheme] && s[scheme] != '/' && s[scheme] != ':' &&
	       strlen(s) < HOSTS_MIRROR_SIZE && s[strspn(s, allowed)] == '\0';
}

/* Files */

static char *file_of(const struct hosts_job *j, const char *dir)
{
	return hosts_format("%s%s%s/" HOSTS_FILE, j->config_dir,
			    j->config_dir[1] ? "/" : "", dir);
}

/* Returns path without "/hosts.toml". */
static char *dir_of(const char *path)
{
	return strndup(path, strlen(path) - strlen("/" HOSTS_FILE));
}

/* 1: *ret is the backup; 0: no usable backup; negative: an error, already
 * reported. */
static int load_state(struct hosts_job *j, const char *host, const char *path,
		      struct hosts_state *ret)
{
	struct error err = {""};
	int r = hosts_state_read(j->state_dir, path, ret, &err);

	if (r == 0)
		return 1;
	if (r == -EBADMSG)
		tell(j, HOSTS_WARNING, host, "%s; using the marks in the file",
		     err.text);
	else if (r != -ENOENT)
		return fail(j, r, host, err.text);
	return 0;
}

/* The state before an edit. */
struct current {
	char *path;
	struct hosts_file file;
	struct hosts_state state; /* if has_state */
	bool has_state;
	struct hosts_found found;
	struct buf base; /* without our block */
};

static void current_release(struct current *c)
{
	free(c->path);
	hosts_file_release(&c->file);
	hosts_state_release(&c->state);
	buf_release(&c->base);
}

static int strip(struct current *c, struct error *err)
{
	struct error why = {""};
	int r = hosts_edit_strip(c->file.data, c->file.len, &c->base, &c->found,
				 &why);

	return r < 0 ? set_error(err, r, "%s: %s", c->path, why.text) : 0;
}

static int load(struct hosts_job *j, const char *host, const char *dir,
		struct current *c)
{
	struct error err = {""};
	struct digest is;
	int r;

	c->base = BUF_INIT(2 * HOSTS_MAX_BYTES);
	c->path = file_of(j, dir);
	if (!c->path)
		return fail(j, -ENOMEM, host, "");
	r = load_state(j, host, c->path, &c->state);
	if (r < 0)
		return r;
	c->has_state = r > 0;
	r = hosts_file_read(c->path, &c->file, &err);
	if (r == 0 && c->file.exists)
		r = strip(c, &err);
	if (r < 0)
		return fail(j, r, host, err.text);
	if (!c->file.exists || !c->has_state || !c->found.blocks)
		return 0;
	digest_of(c->file.data, c->file.len, &is);
	if (!digest_equal(&is, &c->state.written))
		return 0;
	/* The file is unchanged since peerd wrote it: the backup is exact. */
	buf_reset(&c->base);
	r = buf_add(&c->base, c->state.original, c->state.original_len);
	return r < 0 ? fail(j, r, host, "") : 0;
}

/* Adding */

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_suffix(const char *s, const char *suffix)
{
	size_t n = strlen(s), k = strlen(suffix);

	return n > k && strcmp(s + n - k, suffix) == 0;
}

/* Leaves out names that would need escapes. */
static int list_certificates(const char *dir, struct string_list *ret)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = 0;

	if (!d)
		return 0;
	/* cppcheck-suppress readdirCalled */
	while (r == 0 && (e = readdir(d))) {
		const char *s = e->d_name;

		if ((has_suffix(s, ".crt") || has_suffix(s, ".cert") ||
		     has_suffix(s, ".key")) &&
		    !strpbrk(s, "\"\\") && ret->n < 100) {
			bool plain = true;

			for (; *s; s++)
				plain &= *s >= ' ' && *s < 0x7f;
			if (plain)
				r = string_list_add(ret, e->d_name);
		}
	}
	(void)closedir(d);
	if (ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), compare_strings);
	return r;
}

/* Without a hosts.toml containerd uses the *.crt and *.cert files of the
 * directory for the registry. With a hosts.toml it uses only those named there.
 */
static int certificate_lines(const char *dir, struct buf *out)
{
	CLEANUP(string_list_release) struct string_list files = {0};
	const char *sep = "ca = [";
	int r = list_certificates(dir, &files);

	for (size_t i = 0; r == 0 && i < files.n; i++) {
		if (!has_suffix(files.v[i], ".crt"))
			continue;
		r = buf_printf(out, "%s\"%s\"", sep, files.v[i]);
		sep = ", ";
	}
	if (r == 0 && out->len)
		r = buf_str(out, "]\n");
	sep = "client = [";
	for (size_t i = 0; r == 0 && i < files.n; i++) {
		const char *s = files.v[i];
		char key[sizeof(((struct dirent *)0)->d_name)];

		if (!has_suffix(s, ".cert"))
			continue;
		(void)snprintf(key, sizeof(key), "%.*s.key",
			       (int)(strlen(s) - strlen(".cert")), s);
		r = string_list_has(&files, key)
			    ? buf_printf(out, "%s[\"%s\", \"%s\"]", sep, s, key)
			    : buf_printf(out, "%s\"%s\"", sep, s);
		sep = ", ";
	}
	return r == 0 && *sep == ',' ? buf_str(out, "]\n") : r;
}

struct inherit {
	const char *path;
	struct string_list *dirs;
};

/* Adds the parents of path that peerd made for another registry, so that the
 * last undo removes them. */
static int inherit_dirs(const struct hosts_state *s, void *arg)
{
	struct inherit *in = arg;
	int r = 0;

	for (size_t i = 0; r == 0 && i < s->made_dirs.n; i++) {
		const char *dir = s->made_dirs.v[i];
		size_t n = strlen(dir);

		if (strncmp(in->path, dir, n) == 0 && in->path[n] == '/' &&
		    !string_list_has(in->dirs, dir))
			r = string_list_add(in->dirs, dir);
	}
	return r;
}

/* Sorts directories so that the outermost comes first: a parent is shorter. */
static int compare_lengths(const void *a, const void *b)
{
	size_t x = strlen(*(char *const *)a), y = strlen(*(char *const *)b);

	return (x > y) - (x < y);
}

/* The directories that peerd makes or has made for this file. */
static int our_dirs(struct hosts_job *j, const struct current *c,
		    const char *dir, struct string_list *ret)
{
	struct inherit in = {c->path, ret};
	int r = hosts_missing_dirs(dir, ret);

	if (r == 0)
		r = hosts_state_each(j->state_dir, inherit_dirs, &in);
	if (r == 0 && !c->has_state && c->found.made == HOSTS_MADE_DIR &&
	    !string_list_has(ret, dir))
		r = string_list_add(ret, dir);
	if (ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), compare_lengths);
	return r;
}

/* Warns if the registry's new directory hides the settings of "_default". */
static void warn_of_default(struct hosts_job *j, const char *host)
{
	CLEANUP(buf_release) struct buf rest = BUF_INIT(2 * HOSTS_MAX_BYTES);
	CLEANUP(freep) char *path = file_of(j, ALL);
	struct hosts_file f;
	struct hosts_found found;

	if (!path || hosts_file_read(path, &f, NULL) < 0)
		return;
	if (f.exists &&
	    hosts_edit_strip(f.data, f.len, &rest, &found, NULL) == 0 &&
	    rest.len)
		tell(j, HOSTS_WARNING, host,
		     "containerd no longer reads %s for it", path);
	hosts_file_release(&f);
}

/* Writes the backup, then the directories, then the file: after a crash at any
 * point undo knows what was made. 1: the file was written; 0: it was right
 * already. */
static int commit(struct hosts_job *j, const struct current *c, const char *dir,
		  struct string_list *dirs, bool made, const struct buf *text,
		  struct error *err)
{
	char none[] = "";
	struct hosts_state s = {.path = c->path,
				.made_file = made,
				.made_dirs = *dirs,
				.original = c->base.data ? c->base.data : none,
				.original_len = c->base.len};
	bool same = c->file.exists && c->file.len == text->len &&
		    memcmp(c->file.data, text->data, text->len) == 0;
	int r;

	digest_of(text->data, text->len, &s.written);
	if (!same || !c->has_state ||
	    !digest_equal(&s.written, &c->state.written)) {
		r = hosts_state_write(j->state_dir, &s, err);
		if (r < 0)
			return r;
	}
	if (same)
		return 0;
	r = hosts_make_dirs(dir, 0755, err);
	if (r == 0)
		r = hosts_file_replace(&c->file, 0644, text->data, text->len,
				       err);
	return r < 0 ? r : 1;
}

static enum hosts_made what_we_make(const struct current *c, const char *dir,
				    const struct string_list *dirs)
{
	if (c->found.blocks)
		return c->found.made;
	if (c->file.exists)
		return HOSTS_MADE_NOTHING;
	return string_list_has(dirs, dir) ? HOSTS_MADE_DIR : HOSTS_MADE_FILE;
}

static int edit(struct hosts_job *j, const struct hosts_entry *reg,
		struct current *c, const char *dir, struct string_list *dirs,
		struct error *err)
{
	CLEANUP(buf_release) struct buf text = BUF_INIT(2 * HOSTS_MAX_BYTES);
	CLEANUP(buf_release) struct buf extra = BUF_INIT((size_t)64 << 10);
	const char *base = c->base.data ? c->base.data : "";
	struct hosts_block b = {
		.mirrors = &j->mirrors,
		.server = *reg->server ? reg->server : NULL,
		.made = what_we_make(c, dir, dirs),
	};
	struct error why = {""};
	size_t present = 0;
	int r = certificate_lines(dir, &extra);

	if (r == 0)
		b.extra = extra.data;
	if (r == 0)
		r = hosts_edit_add(base, c->base.len, &b, &text, &present,
				   &why);
	if (r == 0 && text.len > HOSTS_MAX_BYTES)
		r = set_error(&why, -EFBIG, "grows too large");
	if (r < 0)
		return set_error(err, r, "%s: %s", c->path,
				 *why.text ? why.text : strerror(-r));
	if (present > 0)
		tell(j, HOSTS_WARNING, reg->dir,
		     "%s: already names %s, left as it is", c->path,
		     present == j->mirrors.n ? "the mirrors" : "some mirrors");
	/* No block is added if the file names all mirrors. But an old block
	 * is removed here. */
	if (present == j->mirrors.n && !c->found.blocks)
		return 0;
	return commit(j, c, dir, dirs, b.made != HOSTS_MADE_NOTHING, &text,
		      err);
}

static int add_one(struct hosts_job *j, const struct hosts_entry *reg)
{
	CLEANUP(string_list_release) struct string_list dirs = {0};
	CLEANUP(current_release) struct current c = {0};
	CLEANUP(freep) char *dir = NULL;
	char with_port[sizeof(reg->dir) + 1];
	const char *name = reg->dir;
	struct error err = {""};
	struct stat st;
	bool fresh;
	int r;

	if (port_dir(reg->dir, with_port, sizeof(with_port))) {
		CLEANUP(freep)
		char *other = hosts_format("%s/%s", j->config_dir, with_port);

		if (!other)
			return fail(j, -ENOMEM, reg->dir, "");
		if (stat(other, &st) == 0)
			name = with_port;
	}
	r = load(j, reg->dir, name, &c);
	if (r < 0)
		return r;
	dir = dir_of(c.path);
	if (!dir)
		return fail(j, -ENOMEM, reg->dir, "");
	fresh = stat(dir, &st) == -1;
	r = our_dirs(j, &c, dir, &dirs);
	if (r == 0)
		r = edit(j, reg, &c, dir, &dirs, &err);
	if (r < 0)
		return fail(j, r, reg->dir, err.text);
	if (r && fresh && strcmp(reg->dir, ALL) != 0)
		warn_of_default(j, reg->dir);
	tell(j, r ? HOSTS_CHANGED : HOSTS_UNCHANGED, reg->dir, "%s: %s", c.path,
	     r ? "written" : "left as it is");
	return 0;
}

/* Undoing */

static bool same_as_base(const struct current *c)
{
	return c->file.len == c->base.len &&
	       (!c->base.len ||
		memcmp(c->file.data, c->base.data, c->base.len) == 0);
}

/* 1: the file was changed. */
static int restore_file(const struct current *c, bool *ret_gone,
			struct error *err)
{
	bool made = c->found.made != HOSTS_MADE_NOTHING;
	int r;

	*ret_gone = !c->file.exists;
	if (!c->file.exists || !c->found.blocks)
		return 0;
	if (made && !c->base.len && !c->file.is_link) {
		r = hosts_file_unlink(c->file.path, err);
		*ret_gone = r == 0;
		return r < 0 ? r : 1;
	}
	if (same_as_base(c))
		return 0;
	r = hosts_file_replace(&c->file, 0644, c->base.data ? c->base.data : "",
			       c->base.len, err);
	return r < 0 ? r : 1;
}

static int remove_dirs(const struct current *c)
{
	CLEANUP(string_list_release) struct string_list dirs = {0};
	int r = 0;

	if (c->has_state) {
		hosts_remove_dirs(&c->state.made_dirs);
	} else if (c->found.made == HOSTS_MADE_DIR) {
		CLEANUP(freep) char *dir = dir_of(c->path);

		r = dir ? string_list_add(&dirs, dir) : -ENOMEM;
		if (r == 0)
			hosts_remove_dirs(&dirs);
	}
	return r;
}

static int undo_one(struct hosts_job *j, const char *name)
{
	CLEANUP(current_release) struct current c = {0};
	struct error err = {""};
	bool gone;
	int r = load(j, name, name, &c), changed;

	if (r < 0)
		return r;
	if (c.has_state || c.found.blocks)
		hosts_file_remove_temporary(c.file.path);
	changed = restore_file(&c, &gone, &err);
	if (changed < 0)
		return fail(j, changed, name, err.text);
	if (gone) {
		r = remove_dirs(&c);
		if (r < 0)
			return fail(j, r, name, "");
	}
	r = hosts_state_remove(j->state_dir, c.path, &err);
	if (r < 0)
		return fail(j, r, name, err.text);
	tell(j, changed ? HOSTS_CHANGED : HOSTS_UNCHANGED, name, "%s: %s",
	     c.path,
	     !changed	      ? "nothing to undo"
	     : gone	      ? "removed"
	     : c.found.edited ? "restored; lines added to peerd's block by "
				"hand are kept"
			      : "restored");
	return 0;
}

struct collect {
	const struct hosts_job *j;
	struct string_list *names;
};

static int collect_state(const struct hosts_state *s, void *arg)
{
	struct collect *c = arg;
	size_t n = strlen(c->j->config_dir);
	CLEANUP(freep) char *name = NULL;
	CLEANUP(freep) char *dir = dir_of(s->path);

	if (!dir)
		return -ENOMEM;
	if (strncmp(dir, c->j->config_dir, n) != 0 || strchr(dir + n + 1, '/'))
		return 0;
	name = strdup(strrchr(dir, '/') + 1);
	if (!name)
		return -ENOMEM;
	return string_list_has(c->names, name)
		       ? 0
		       : string_list_add(c->names, name);
}

static bool holds_block(const struct hosts_job *j, const char *dir)
{
	CLEANUP(freep) char *path = file_of(j, dir);
	struct hosts_file f;
	bool found;

	if (!path || hosts_file_read(path, &f, NULL) < 0)
		return false;
	found = f.exists &&
		memmem(f.data, f.len, HOSTS_BEGIN, strlen(HOSTS_BEGIN));
	hosts_file_release(&f);
	return found;
}

static int collect_all(const struct hosts_job *j, struct string_list *names)
{
	struct collect c = {j, names};
	DIR *dir = opendir(j->config_dir);
	struct dirent *e;
	int r = 0;

	if (!dir && errno != ENOENT)
		return -errno;
	/* cppcheck-suppress readdirCalled */
	while (dir && r == 0 && (e = readdir(dir)))
		if (e->d_name[0] != '.' && holds_block(j, e->d_name))
			r = string_list_add(names, e->d_name);
	if (dir)
		(void)closedir(dir);
	if (r == 0)
		r = hosts_state_each(j->state_dir, collect_state, &c);
	if (names->n)
		qsort(names->v, names->n, sizeof(*names->v), compare_strings);
	return r;
}

/* The file of host:5000 may be in either of two directories. */
static void undo_named(struct hosts_job *j, const char *s)
{
	struct hosts_entry reg;
	char with_port[sizeof(reg.dir) + 1];

	if (parse_registry(s, &reg) < 0) {
		(void)fail(j, -EINVAL, s, "not the name of a registry");
		return;
	}
	if (port_dir(reg.dir, with_port, sizeof(with_port))) {
		CLEANUP(freep) char *path = file_of(j, with_port);
		struct hosts_state state;

		if (path &&
		    hosts_state_read(j->state_dir, path, &state, NULL) == 0) {
			hosts_state_release(&state);
			(void)undo_one(j, with_port);
		} else if (holds_block(j, with_port)) {
			(void)undo_one(j, with_port);
		}
	}
	(void)undo_one(j, reg.dir);
}

/* Both */

static int set_mirrors(struct hosts_job *j, const struct string_list *mirrors)
{
	if (!mirrors->n)
		return fail(j, -EINVAL, "", "no mirrors given");
	for (size_t i = 0; i < mirrors->n; i++) {
		const char *s = mirrors->v[i];

		if (!mirror_valid(s)) {
			/* A URL that may have a password in it is not printed.
			 */
			bool show = !strpbrk(s, "@?#");

			tell(j, HOSTS_FAILED, "",
			     "mirror %zu%s%.80s%s is not an http:// or "
			     "https:// URL without user, query and fragment",
			     i + 1, show ? " \"" : "", show ? s : "",
			     show ? "\"" : "");
			j->result = -EINVAL;
			return -EINVAL;
		}
		/* The reader of TOML in containerd 1.x takes no bracket in the
		 * name of a table, not even in quotes, and then skips the whole
		 * file. */
		if (strpbrk(s, "[]")) {
			tell(j, HOSTS_FAILED, "",
			     "mirror %zu \"%.80s\": containerd 1.x refuses a "
			     "hosts.toml with an IPv6 address; use a name or an "
			     "IPv4 address",
			     i + 1, s);
			j->result = -EINVAL;
			return -EINVAL;
		}
		if (!string_list_has(&j->mirrors, s) &&
		    string_list_add(&j->mirrors, s) < 0)
			return fail(j, -ENOMEM, "", "");
	}
	if (j->mirrors.n > HOSTS_MAX_MIRRORS)
		return fail(j, -EINVAL, "", "too many mirrors");
	return 0;
}

static int set_config_dir(struct hosts_job *j, const char *path)
{
	CLEANUP(freep) char *first = NULL;
	size_t n;

	path += strspn(path, ":");
	n = strcspn(path, ":");
	if (!n)
		return fail(j, -EINVAL, "",
			    "no directory of hosts.toml files given");
	first = strndup(path, n);
	j->config_dir = first ? hosts_absolute(first) : NULL;
	if (!j->config_dir)
		return fail(j, -ENOMEM, "", "");
	if (path[n + strspn(path + n, ":")])
		tell(j, HOSTS_WARNING, "",
		     "of several directories only %s is edited; containerd "
		     "uses the first that has the registry",
		     j->config_dir);
	return 0;
}

static void job_release(struct hosts_job *j)
{
	free(j->config_dir);
	string_list_release(&j->mirrors);
}

int hosts_add(const struct hosts_config *c, hosts_report_fn *report, void *arg)
{
	CLEANUP(job_release)
	struct hosts_job j = {
		.report = report, .arg = arg, .state_dir = c->state_dir};
	CLEANUP(closep) int lock = -1;
	struct error err = {""};
	struct hosts_entry reg;
	int r = set_mirrors(&j, &c->mirrors);

	if (r == 0)
		r = set_config_dir(&j, c->config_path);
	if (r < 0)
		return r;
	if (!c->hosts.n)
		return fail(&j, -EINVAL, "", "no registries given");
	r = hosts_make_dirs(c->state_dir, 0700, &err);
	if (r == 0)
		r = hosts_state_lock(c->state_dir, &lock, &err);
	if (r < 0)
		return fail(&j, r, "", err.text);
	for (size_t i = 0; i < c->hosts.n; i++) {
		if (parse_registry(c->hosts.v[i], &reg) < 0)
			(void)fail(&j, -EINVAL, c->hosts.v[i],
				   "not the name of a registry");
		else
			(void)add_one(&j, &reg);
	}
	return j.result;
}

int hosts_undo(const struct hosts_config *c, hosts_report_fn *report, void *arg)
{
	CLEANUP(job_release)
	struct hosts_job j = {
		.report = report, .arg = arg, .state_dir = c->state_dir};
	CLEANUP(string_list_release) struct string_list names = {0};
	CLEANUP(closep) int lock = -1;
	struct error err = {""};
	int r = set_config_dir(&j, c->config_path);

	if (r < 0)
		return r;
	r = hosts_state_lock(c->state_dir, &lock, &err);
	if (r < 0 && r != -ENOENT)
		return fail(&j, r, "", err.text);
	for (size_t i = 0; i < c->hosts.n; i++)
		undo_named(&j, c->hosts.v[i]);
	if (c->hosts.n)
		return j.result;
	r = collect_all(&j, &names);
	if (r < 0)
		return fail(&j, r, "", "");
	for (size_t i = 0; i < names.n; i++)
		(void)undo_one(&j, names.v[i]);
	if (!names.n)
		tell(&j, HOSTS_UNCHANGED, "", "%s: nothing to undo",
		     j.config_dir);
	return j.result;
}

/* Prints a report on standard output or standard error. */
static void print_report(enum hosts_level level, const char *host,
			 const char *text, void *arg)
{
	bool good = level == HOSTS_CHANGED || level == HOSTS_UNCHANGED;

	(void)arg;
	(void)fprintf(good ? stdout : stderr, "%s%s%s%s%s\n",
		      good ? "" : "peerd: ",
		      level == HOSTS_WARNING ? "warning: " : "", host,
		      *host ? ": " : "", text);
}

int hosts_add_command(const struct hosts_config *c)
{
	return hosts_add(c, print_report, NULL) < 0;
}

int hosts_undo_command(const struct hosts_config *c)
{
	return hosts_undo(c, print_report, NULL) < 0;
}
