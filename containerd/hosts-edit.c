#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "containerd/hosts-private.h"
#include "containerd/toml.h"

#define BEGIN	   HOSTS_BEGIN
#define BEGIN_REST ": \"peerd hosts undo\" takes this block out again"
#define END	   "# END peerd"
#define META	   "# peerd "

static const char *const made_names[] = {"nothing", "file", "dir"};

/* Borrowed bytes of a text. */
struct slice {
	const char *s;
	size_t len;
};

static bool slice_is(struct slice a, const char *s)
{
	return a.len == strlen(s) && memcmp(a.s, s, a.len) == 0;
}

static bool slice_has_prefix(struct slice a, const char *s)
{
	return a.len >= strlen(s) && memcmp(a.s, s, strlen(s)) == 0;
}

/* The item without the white space around it. */
static struct slice trimmed(const char *s, const struct toml_item *item)
{
	size_t start = item->start, end = item->end;

	while (start < end && strchr(" \t", s[start]))
		start++;
	while (end > start && strchr(" \t\r\n", s[end - 1]))
		end--;
	return (struct slice){s + start, end - start};
}

static bool is_marker(const char *s, const struct toml_item *item,
		      const char *marker)
{
	struct slice a = trimmed(s, item);
	size_t n = strlen(marker);

	return item->type == TOML_COMMENT && slice_has_prefix(a, marker) &&
	       (a.len == n || a.s[n] == ':' || a.s[n] == ' ');
}

static int no_memory(int r, struct error *err)
{
	return set_error(err, r,
			 r == -EMSGSIZE ? "grows too large" : "out of memory");
}

/* Adding */

struct survey {
	size_t insert; /* the offset for the block */
	bool has_server;
	bool has_statements;
	bool present[HOSTS_MAX_MIRRORS];
};

/* Marks the mirror that the table [host."…"], or a key below it, names. */
static void note_mirror(struct survey *v, const struct string_list *mirrors,
			const struct toml_path *table,
			const struct toml_path *key)
{
	const char *part[2] = {"", ""};
	size_t n = 0;

	for (size_t i = 0; table && i < table->n && n < 2; i++)
		part[n++] = table->part[i];
	for (size_t i = 0; key && i < key->n && n < 2; i++)
		part[n++] = key->part[i];
	if (n < 2 || strcmp(part[0], "host") != 0)
		return;
	for (size_t i = 0; i < mirrors->n; i++)
		if (strcmp(part[1], mirrors->v[i]) == 0)
			v->present[i] = true;
}

static int survey(const char *s, size_t len, const struct string_list *mirrors,
		  struct survey *ret, struct error *err)
{
	struct toml t;
	struct toml_item item;
	struct toml_path table = {.n = 0};
	bool in_table = false, in_comments = false;
	size_t comments = 0; /* start of the comments right above the item */
	int r = toml_init(&t, s, len, err);

	*ret = (struct survey){.insert = len};
	while (r == 0 && (r = toml_next(&t, &item)) > 0) {
		bool header =
			item.type == TOML_TABLE || item.type == TOML_ARRAY;
		bool host =
			item.path.n && strcmp(item.path.part[0], "host") == 0;

		r = 0;
		ret->has_statements |= header || item.type == TOML_KEY;
		if (item.type == TOML_COMMENT) {
			if (!in_comments)
				comments = item.start;
			in_comments = true;
			continue;
		}
		if (header && !in_table) {
			ret->insert = in_comments ? comments : item.start;
			in_table = true;
		}
		in_comments = false;
		if (header)
			table = item.path;
		if (host && (item.type == TOML_ARRAY ||
			     (item.type == TOML_KEY && !in_table)))
			return set_error(err, -EINVAL,
					 "line %u: \"host\" is not written as "
					 "[host.\"URL\"] tables; no table can "
					 "be inserted before it",
					 item.line);
		if (header)
			note_mirror(ret, mirrors, &item.path, NULL);
		else if (item.type == TOML_KEY && in_table)
			note_mirror(ret, mirrors, &table, &item.path);
		else if (item.type == TOML_KEY && item.path.n == 1 &&
			 strcmp(item.path.part[0], "server") == 0)
			ret->has_server = true;
	}
	return r;
}

/* Appends text; each '\n' becomes eol. */
static int add_lines(struct buf *out, const char *text, const char *eol)
{
	int r = 0;

	while (r == 0 && *text) {
		size_t n = strcspn(text, "\n");

		r = buf_add(out, text, n);
		if (r == 0 && text[n])
			r = buf_str(out, eol);
		text += n + (text[n] != '\0');
	}
	return r;
}

static int render_inside(const struct hosts_block *b, const struct survey *v,
			 const char *eol, struct buf *out)
{
	int r = 0;

	if (b->server && !v->has_server)
		r = buf_printf(out, "server = \"%s\"%s", b->server, eol);
	if (r == 0 && b->extra && !v->has_statements)
		r = add_lines(out, b->extra, eol);
	for (size_t i = 0; r == 0 && i < b->mirrors->n; i++)
		if (!v->present[i])
			r = buf_printf(out,
				       "[host.\"%s\"]%s"
				       "  capabilities = [\"pull\", "
				       "\"resolve\"]%s"
				       "  dial_timeout = \"1s\"%s",
				       b->mirrors->v[i], eol, eol, eol);
	return r;
}

/* Appends the whole block, with a newline at its end. */
static int render(const struct hosts_block *b, const struct survey *v,
		  const char *eol, struct buf *out)
{
	CLEANUP(buf_release) struct buf inside = BUF_INIT(HOSTS_MAX_BYTES);
	bool first = true;
	int r = render_inside(b, v, eol, &inside);

	if (r == 0)
		r = buf_printf(out,
			       BEGIN BEGIN_REST "%s" META
						"made=%s server=%s mirrors=",
			       eol, made_names[b->made],
			       b->server && !v->has_server ? b->server : "");
	for (size_t i = 0; r == 0 && i < b->mirrors->n; i++) {
		if (v->present[i])
			continue;
		r = buf_printf(out, "%s%s", first ? "" : ",", b->mirrors->v[i]);
		first = false;
	}
	if (r == 0)
		r = buf_printf(out, " crc32c=%08" PRIx32 "%s",
			       crc32c(0, inside.data, inside.len), eol);
	if (r == 0)
		r = buf_add(out, inside.data, inside.len);
	return r < 0 ? r : buf_printf(out, END "%s", eol);
}

static const char *eol_of(const char *s, size_t len)
{
	const char *nl = len ? memchr(s, '\n', len) : NULL;

	return nl && nl > s && nl[-1] == '\r' ? "\r\n" : "\n";
}

int hosts_edit_add(const char *base, size_t len, const struct hosts_block *b,
		   struct buf *out, size_t *ret_present, struct error *err)
{
	CLEANUP(buf_release) struct buf block = BUF_INIT(2 * HOSTS_MAX_BYTES);
	const char *eol = eol_of(base, len);
	bool open_end = len > 0 && base[len - 1] != '\n';
	struct survey v;
	int r;

	BUG_ON(b->mirrors->n > HOSTS_MAX_MIRRORS);
	*ret_present = 0;
	r = survey(base, len, b->mirrors, &v, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < b->mirrors->n; i++)
		*ret_present += v.present[i];
	if (*ret_present == b->mirrors->n) {
		r = buf_add(out, base, len);
		return r < 0 ? no_memory(r, err) : 0;
	}
	r = render(b, &v, eol, &block);
	if (r == 0)
		r = buf_add(out, base, v.insert);
	if (r == 0 && v.insert == len && open_end) {
		buf_truncate(&block, block.len - strlen(eol));
		r = buf_str(out, eol);
	}
	if (r == 0)
		r = buf_add(out, block.data, block.len);
	if (r == 0)
		r = buf_add(out, base + v.insert, len - v.insert);
	return r < 0 ? no_memory(r, err) : 0;
}

/* Removing */

struct block_meta {
	enum hosts_made made;
	struct slice server, mirrors;
	uint32_t crc;
};

/* Takes "name=WORD" from the start of *rest; *ret is WORD. */
static bool meta_field(struct slice *rest, const char *name, struct slice *ret)
{
	size_t n = strlen(name), len = 0;

	if (!slice_has_prefix(*rest, name) || rest->len == n ||
	    rest->s[n] != '=')
		return false;
	rest->s += n + 1;
	rest->len -= n + 1;
	while (len < rest->len && rest->s[len] != ' ')
		len++;
	*ret = (struct slice){rest->s, len};
	len += len < rest->len;
	rest->s += len;
	rest->len -= len;
	return true;
}

static bool parse_meta(const char *s, const struct toml_item *item,
		       struct block_meta *ret)
{
	struct slice rest = trimmed(s, item), made, crc;

	if (item->type != TOML_COMMENT || !slice_has_prefix(rest, META))
		return false;
	rest.s += strlen(META);
	rest.len -= strlen(META);
	if (!meta_field(&rest, "made", &made) ||
	    !meta_field(&rest, "server", &ret->server) ||
	    !meta_field(&rest, "mirrors", &ret->mirrors) ||
	    !meta_field(&rest, "crc32c", &crc) || rest.len || crc.len != 8)
		return false;
	ret->crc = 0;
	for (size_t i = 0; i < 8; i++) {
		static const char digits[] = "0123456789abcdef";
		const char *d = strchr(digits, crc.s[i]);

		if (!d)
			return false;
		ret->crc = ret->crc << 4 | (uint32_t)(d - digits);
	}
	for (size_t i = 0; i < ARRAY_SIZE(made_names); i++)
		if (slice_is(made, made_names[i])) {
			ret->made = (enum hosts_made)i;
			return true;
		}
	return false;
}

static bool is_our_mirror(const struct block_meta *m,
			  const struct toml_path *path)
{
	const char *p = m->mirrors.s, *end = p + m->mirrors.len;

	if (path->n < 2 || strcmp(path->part[0], "host") != 0)
		return false;
	while (p < end) {
		const char *comma = memchr(p, ',', (size_t)(end - p));
		size_t n = (size_t)((comma ? comma : end) - p);

		if (slice_is((struct slice){p, n}, path->part[1]))
			return true;
		p += n + (comma != NULL);
	}
	return false;
}

/* Is the item the "server" line that peerd wrote? */
static bool is_our_server(const char *s, const struct toml_item *item,
			  const struct block_meta *m)
{
	static const char before[] = "server = \"";
	struct slice a = trimmed(s, item);
	size_t n = sizeof(before) - 1;

	return m->server.len && a.len == n + m->server.len + 1 &&
	       memcmp(a.s, before, n) == 0 && a.s[a.len - 1] == '"' &&
	       memcmp(a.s + n, m->server.s, m->server.len) == 0;
}

/* Appends the lines of an edited block that are not ours: all but the tables of
 * our mirrors and our server. A comment is kept or dropped with the item below
 * it. */
static int salvage(const char *s, size_t len, const struct block_meta *m,
		   struct buf *out)
{
	struct toml t;
	struct toml_item item;
	bool in_ours = false;
	size_t held = 0; /* comments from here on are not decided yet */
	int r = toml_init(&t, s, len, NULL);

	while (r == 0 && (r = toml_next(&t, &item)) > 0) {
		bool header =
			item.type == TOML_TABLE || item.type == TOML_ARRAY;
		bool drop;

		r = 0;
		if (item.type == TOML_COMMENT)
			continue;
		if (header)
			in_ours = is_our_mirror(m, &item.path);
		drop = in_ours ||
		       (item.type == TOML_KEY && is_our_server(s, &item, m));
		if (!drop)
			r = buf_add(out, s + held, item.end - held);
		held = item.end;
	}
	if (r == 0 && !in_ours)
		r = buf_add(out, s + held, len - held);
	return r;
}

static int block_error(struct error *err, unsigned int line)
{
	return set_error(err, -EINVAL,
			 "line %u: the marked block of peerd is damaged; "
			 "remove it by hand",
			 line);
}

struct strip {
	const char *s;
	size_t len;
	size_t kept; /* the text before this offset is done */
	size_t begin, inside;
	unsigned int begin_line; /* 0: not in a block */
	bool has_meta;
	struct block_meta meta;
	struct buf *out;
	struct hosts_found *found;
};

static int end_block(struct strip *x, const struct toml_item *end)
{
	struct buf *out = x->out;
	const char *inside = x->s + x->inside;
	size_t len = end->start - x->inside, before;
	int r = buf_add(out, x->s + x->kept, x->begin - x->kept);

	before = out->len;
	if (r == 0 && crc32c(0, inside, len) != x->meta.crc) {
		x->found->edited = true;
		r = salvage(inside, len, &x->meta, out);
	}
	if (r < 0)
		return r;
	/* If no newline follows the block, peerd added the one before it. */
	if (out->len == before && end->end == x->len &&
	    x->s[x->len - 1] != '\n' && before > 0 &&
	    out->data[before - 1] == '\n') {
		before--;
		if (before > 0 && out->data[before - 1] == '\r')
			before--;
		buf_truncate(out, before);
	}
	if (x->found->blocks++ == 0)
		x->found->made = x->meta.made;
	x->kept = end->end;
	x->begin_line = 0;
	return 0;
}

static int strip_item(struct strip *x, const struct toml_item *item,
		      struct error *err)
{
	bool begin = is_marker(x->s, item, BEGIN);
	bool end = is_marker(x->s, item, END);
	int r = 0;

	if (!x->begin_line) {
		if (end)
			return block_error(err, item->line);
		if (begin) {
			x->begin = item->start;
			x->begin_line = item->line;
			x->has_meta = false;
		}
	} else if (!x->has_meta) {
		if (!parse_meta(x->s, item, &x->meta))
			return block_error(err, item->line);
		x->has_meta = true;
		x->inside = item->end;
	} else if (begin) {
		return block_error(err, item->line);
	} else if (end) {
		r = end_block(x, item);
	}
	return r < 0 ? no_memory(r, err) : 0;
}

int hosts_edit_strip(const char *text, size_t len, struct buf *out,
		     struct hosts_found *ret, struct error *err)
{
	struct strip x = {.s = text, .len = len, .out = out, .found = ret};
	struct toml t;
	struct toml_item item;
	int r = toml_init(&t, text, len, err);

	*ret = (struct hosts_found){0};
	while (r == 0 && (r = toml_next(&t, &item)) > 0)
		r = strip_item(&x, &item, err);
	if (r < 0)
		return r;
	if (x.begin_line)
		return block_error(err, x.begin_line);
	r = buf_add(out, text + x.kept, len - x.kept);
	return r < 0 ? no_memory(r, err) : 0;
}
