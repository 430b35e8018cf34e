#include "registry/serve.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/metrics.h"
#include "fetch/readahead.h"
#include "http/range.h"

#define BOUNDARY "peerd-3f6c1b7e9a54d208"
/* Bytes per sendfile, at most. */
#define FILE_PIECE (UINT64_C(8) << 20)
/* While bytes are missing, a response continues as soon as so many have
 * arrived. */
#define MIN_PIECE (64u << 10)

struct serve {
	const struct serve_config *cfg;
	struct serve_how how;
	struct http_req *rq; /* NULL: the client is gone, or all was sent */
	struct blob *blob;
	struct byte_range ranges[RANGE_MAX];
	uint32_t nranges, at; /* at: index of the range being sent */
	uint64_t off, end;    /* the rest of that range */
	uint64_t sent;
	bool begun, single, head_due; /* head_due: a part's head must be sent */
	int status;
	uint64_t deadline_ms;	    /* for the first byte */
	char etag[DIGEST_STR_SIZE]; /* empty: none */
	char part[320];
	struct readahead ra;

	/* The current step: one of a fetch, a job, a write. */
	struct fetch_read rd;
	bool reading, writing, working;
	struct loop_job job;
	int job_r, job_fd;
	uint64_t job_gen, piece_len;
	struct store_hold hold; /* of what is being sent from job_fd */
	bool holding, external;
	struct chunk_loan held;
	struct loop_task go_on; /* held was called back */
	bool going_on;
};

static struct metric_family m_sent = {
	.name = "peerd_http_sent_bytes_total",
	.help = "Bytes of blobs sent over HTTP: from the store (hit), or as "
		"they arrived (miss).",
	.type = METRIC_COUNTER,
	.labels = {"kind"},
};

static void count_sent(bool hit, uint64_t bytes)
{
	static struct metric_series *series[2];

	if (!series[hit])
		series[hit] = metric_get(
			&m_sent, (const char *const[]){hit ? "hit" : "miss"});
	metric_add(series[hit], (double)bytes);
}

static void next(struct serve *s);

/* ---- Ends ---- */

/* False: the bytes sent may be wrong. */
static bool fd_done(struct serve *s)
{
	bool good = true;

	if (s->holding)
		good = store_unhold(s->blob, &s->hold);
	if (s->job_fd >= 0) {
		/* containerd's file may be gone: the descriptor is empty then
		 */
		good &= !s->external || store_gen_ok(s->blob, s->job_gen);
		store_range_done(s->blob);
	}
	s->holding = false;
	s->job_fd = -1;
	return good;
}

static void serve_free(struct serve *s)
{
	if (s->reading || s->working || s->going_on)
		return; /* the callback comes, and frees s */
	chunk_return(&s->held);
	(void)fd_done(s);
	blob_unref(&s->blob);
	client_auth_end(&s->how.auth);
	free(s);
}

static void refuse(const struct serve *s, struct http_req *rq, int r)
{
	const struct serve_how *how = &s->how;
	int status = r == -EBUSY	? 503
		     : how->miss_status ? how->miss_status
					: 404;

	if (r == -EKEYEXPIRED && how->auth) {
		client_auth_challenge(how->auth, rq);
		http_reply_error(rq, 401, "UNAUTHORIZED",
				 "upstream does not accept these credentials");
	} else if (r == -EACCES && how->refused_status) {
		http_reply_error(rq, how->refused_status, "DENIED",
				 "upstream refuses access");
	} else {
		http_reply_error(rq, status, "BLOB_UNKNOWN",
				 "not available now: %s", strerror(-r));
	}
}

static void finish(struct serve *s, int r)
{
	struct http_req *rq = steal_ptr(&s->rq);

	if (s->how.auth)
		client_auth_over(s->how.auth);
	if (rq)
		http_req_on_gone(rq, NULL);
	if (rq && r == 0)
		http_end(rq);
	else if (rq && r == -EPIPE)
		http_release(rq);
	else if (rq && s->begun)
		http_abort(rq);
	else if (rq)
		refuse(s, rq, r);
	if (s->how.done)
		s->how.done(s->how.arg, r, s->sent);
	serve_free(s);
}

static void on_gone(struct http_req *rq)
{
	struct serve *s = http_req_data(rq);

	s->rq = NULL;
	http_release(rq);
	if (s->reading)
		fetch_read_cancel(&s->rd);
	finish(s, -EPIPE);
}

/* ---- Pieces ---- */

static void on_sent(struct http_req *rq, int r)
{
	struct serve *s = http_req_data(rq);

	s->writing = false;
	if (r == 0)
		count_sent(!s->held.buf, s->piece_len);
	chunk_return(&s->held);
	if (r < 0) {
		finish(s, r);
		return;
	}
	if (!fd_done(s)) {
		finish(s, -ESTALE);
		return;
	}
	s->off += s->piece_len;
	s->sent += s->piece_len;
	next(s);
}

static uint64_t multipart_length(struct serve *s);
static void add_headers(struct http_req *rq, const char *etag);

/* Headers are added only here: a response to a miss must not have them. */
static void begin(struct serve *s)
{
	uint64_t size = blob_size(s->blob);
	uint64_t len = s->end - s->off;
	const char *type = s->how.content_type ? s->how.content_type
					       : "application/octet-stream";

	if (s->begun)
		return;
	s->begun = true;
	add_headers(s->rq, s->etag);
	if (s->how.tell_digest)
		http_header_add(s->rq, "Docker-Content-Digest", "%s", s->etag);
	http_header_add(s->rq, "Content-Type", "%s",
			s->single ? type
				  : "multipart/byteranges; boundary=" BOUNDARY);
	if (s->status == 206 && s->single)
		http_header_add(s->rq, "Content-Range", "bytes %llu-%llu/%llu",
				(unsigned long long)s->off,
				(unsigned long long)s->end - 1,
				(unsigned long long)size);
	if (!s->single)
		len = multipart_length(s);
	http_begin(s->rq, s->status, (int64_t)len);
}

static void send_file(struct serve *s)
{
	begin(s);
	s->writing = true;
	http_send_file(s->rq, s->job_fd, s->off, s->piece_len, on_sent);
}

static void read_piece(struct serve *s);

static void ranged(struct serve *s)
{
	if (s->job_r == 0) {
		s->external = blob_external(s->blob);
		s->job_r = store_hold(s->blob, s->off, s->piece_len, s->job_gen,
				      &s->hold);
		s->holding = s->job_r == 0;
		if (!s->holding)
			(void)fd_done(s);
	}
	if (s->job_r == 0)
		send_file(s);
	else if (s->job_r == -ENODATA || s->job_r == -EAGAIN)
		read_piece(s);
	else
		finish(s, s->job_r);
}

static int range_fd(struct serve *s, bool now)
{
	struct store *store = s->cfg->store;

	if (s->how.peer)
		return store_range_fd_unchecked(store, s->blob, s->off,
						s->piece_len, now, &s->job_fd,
						&s->job_gen);
	if (now)
		return store_range_fd_now(store, s->blob, s->off, s->piece_len,
					  &s->job_fd, &s->job_gen);
	return store_range_fd(store, s->blob, s->off, s->piece_len, &s->job_fd,
			      &s->job_gen);
}

static void range_work(struct loop_job *j)
{
	struct serve *s = container_of(j, struct serve, job);

	s->job_r = range_fd(s, false);
}

static void range_done(struct loop_job *j)
{
	struct serve *s = container_of(j, struct serve, job);

	s->working = false;
	if (!s->rq)
		serve_free(s);
	else
		ranged(s);
}

/* Sends from the store. Usually the chunks are checked; otherwise a worker
 * checks them first. */
static void file_piece(struct serve *s)
{
	s->job_fd = -1;
	s->job_r = range_fd(s, true);
	if (s->job_r != -EBUSY) {
		ranged(s);
		return;
	}
	s->working = true;
	loop_work(s->cfg->loop, &s->job, range_work, range_done);
}

static void on_go_on(struct loop_task *t)
{
	struct serve *s = container_of(t, struct serve, go_on);

	s->going_on = false;
	if (!s->rq)
		serve_free(s);
	else
		next(s);
}

/* Others want the memory that a slow client holds. What it has not taken comes
 * out of the store, which is no memory of ours. */
static void on_recall(struct chunk_loan *l)
{
	struct serve *s = container_of(l, struct serve, held);
	size_t left = http_take_back(s->rq), sent = s->piece_len - left;

	if (left == 0)
		return; /* on_sent() is on its way */
	chunk_return(l);
	s->writing = false;
	count_sent(false, sent);
	s->off += sent;
	s->sent += sent;
	s->going_on = true;
	s->go_on.run = on_go_on;
	loop_post(s->cfg->loop, &s->go_on);
}

static void on_read(struct fetch_read *rd, int r)
{
	struct serve *s = container_of(rd, struct serve, rd);
	const struct fetch_piece *p = &rd->piece[0];

	s->reading = false;
	if (!s->rq) {
		serve_free(s);
		return;
	}
	if (r < 0) {
		finish(s, r);
		return;
	}
	if (s->head_due) {
		/* There are bytes to follow the head now. */
		begin(s);
		next(s);
		return;
	}
	s->piece_len = p->len;
	if (!p->mem) {
		file_piece(s);
		return;
	}
	chunk_lend(&s->held, p->buf, on_recall);
	begin(s);
	s->writing = true;
	http_write(s->rq, p->mem, p->len, on_sent);
}

static void read_piece(struct serve *s)
{
	uint64_t in_chunk = CHUNK_SIZE - s->off % CHUNK_SIZE;
	uint64_t len = min_u64(s->end - s->off, in_chunk);

	memset(&s->rd, 0, sizeof(s->rd));
	s->rd.blob = s->blob;
	s->rd.off = s->off;
	s->rd.len = (uint32_t)len;
	s->rd.min = (uint32_t)min_u64(len, MIN_PIECE);
	s->rd.deadline_ms = s->begun ? 0 : s->deadline_ms;
	s->rd.unchecked = s->how.peer;
	s->rd.as_owner = s->how.as_owner;
	s->rd.auth = s->how.auth ? &s->how.auth->base : NULL;
	s->rd.done = on_read;
	s->reading = true;
	fetch_read_start(s->cfg->fetch, &s->rd);
}

static void guess_ahead(struct serve *s, uint64_t len)
{
	bool waits = !blob_has(s->blob, (uint32_t)(s->off / CHUNK_SIZE));
	struct readahead_want want;

	if (!s->cfg->max_window || blob_missing(s->blob) == 0 ||
	    !readahead_note(&s->ra, s->off, len, blob_size(s->blob),
			    s->cfg->max_window, waits, &want) ||
	    want.off >= s->end)
		return;
	fetch_prefetch_as(s->cfg->fetch, s->blob, want.off,
			  min_u64(want.len, s->end - want.off), want.steady,
			  s->how.auth ? &s->how.auth->base : NULL);
}

/* Number of bytes from s->off on that are present without a gap. */
static uint64_t present_from(const struct serve *s)
{
	uint32_t c = (uint32_t)(s->off / CHUNK_SIZE);
	uint64_t until;

	if (!blob_has(s->blob, c))
		return 0;
	until = (uint64_t)blob_next_missing(s->blob, c) * CHUNK_SIZE;
	return min_u64(until, s->end) - s->off;
}

static void send_part(struct serve *s, const char *text, size_t len)
{
	memcpy(s->part, text, len);
	begin(s);
	s->writing = true;
	s->piece_len = 0;
	http_write(s->rq, s->part, len, on_sent);
}

static size_t part_head(const struct serve *s, uint32_t i, char out[320])
{
	const char *type = s->how.content_type ? s->how.content_type
					       : "application/octet-stream";

	return (size_t)snprintf(
		out, 320,
		"%s--" BOUNDARY "\r\nContent-Type: %.128s\r\n"
		"Content-Range: bytes %llu-%llu/%llu\r\n\r\n",
		i ? "\r\n" : "", type, (unsigned long long)s->ranges[i].off,
		(unsigned long long)(s->ranges[i].off + s->ranges[i].len - 1),
		(unsigned long long)blob_size(s->blob));
}

static const char multipart_end[] = "\r\n--" BOUNDARY "--\r\n";

static uint64_t multipart_length(struct serve *s)
{
	uint64_t len = sizeof(multipart_end) - 1;
	char head[320];

	for (uint32_t i = 0; i < s->nranges; i++)
		len += part_head(s, i, head) + s->ranges[i].len;
	return len;
}

/* The next step: a part's head, a piece of a range, the next range, or the
 * end. */
static void next(struct serve *s)
{
	char text[320];
	size_t len;

	if (s->off == s->end && !s->head_due) {
		s->at++;
		if (s->at < s->nranges) {
			s->off = s->ranges[s->at].off;
			s->end = s->off + s->ranges[s->at].len;
			s->head_due = true;
		} else if (s->at == s->nranges && !s->single) {
			send_part(s, multipart_end, sizeof(multipart_end) - 1);
			return;
		} else {
			finish(s, 0);
			return;
		}
	}
	/* The first head waits until there are bytes to follow it. */
	if (s->head_due && !s->single && (s->begun || present_from(s) > 0)) {
		s->head_due = false;
		len = part_head(s, s->at, text);
		send_part(s, text, len);
		return;
	}
	s->piece_len = min_u64(present_from(s), FILE_PIECE);
	guess_ahead(s, s->piece_len ? s->piece_len
				    : min_u64(CHUNK_SIZE, s->end - s->off));
	if (s->piece_len &&
	    (s->how.peer ? !blob_failed(s->blob) : !blob_gated(s->blob)))
		file_piece(s);
	else
		read_piece(s);
}

/* ---- Conditions ---- */

/* Whether a list of entity tags ("a", W/"b", *) contains etag. RFC 9110,
 * 13.1. */
static bool etag_listed(const char *list, const char *etag, bool weak)
{
	size_t len = etag ? strlen(etag) : 0;

	if (!etag)
		return false;
	while (*list) {
		const char *q;
		bool is_weak = false;

		list += strspn(list, " \t,");
		if (*list == '*')
			return true;
		if (strncmp(list, "W/", 2) == 0) {
			is_weak = true;
			list += 2;
		}
		if (*list != '"' || !(q = strchr(list + 1, '"')))
			return false;
		if ((weak || !is_weak) && (size_t)(q - list - 1) == len &&
		    strncmp(list + 1, etag, len) == 0)
			return true;
		list = q + 1;
	}
	return false;
}

/* Computes the status from the conditions and the Range header: 200, 206, 304,
 * 412 or 416. Fills ranges for 206. */
static int decide(struct http_req *rq, uint64_t size, const char *etag,
		  struct byte_range ranges[RANGE_MAX], uint32_t *ret_n)
{
	const char *h = http_req_header(rq, "If-Match");
	int n;

	*ret_n = 0;
	if (h && !etag_listed(h, etag, false))
		return 412;
	h = http_req_header(rq, "If-None-Match");
	if (h && etag_listed(h, etag, true))
		return 304;
	h = http_req_header(rq, "Range");
	if (!h || strcmp(http_req_method(rq), "GET") != 0)
		return 200;
	if (http_req_header(rq, "If-Range") &&
	    !etag_listed(http_req_header(rq, "If-Range"), etag, false))
		return 200;
	n = range_parse(h, size, ranges);
	if (n == -ERANGE || n == -E2BIG)
		return 416;
	if (n < 0)
		return 200; /* an unknown form of range is ignored */
	*ret_n = (uint32_t)n;
	return 206;
}

static void add_headers(struct http_req *rq, const char *etag)
{
	http_header_add(rq, "Accept-Ranges", "bytes");
	if (etag && *etag)
		http_header_add(rq, "ETag", "\"%s\"", etag);
}

static bool answers_simply(int status)
{
	return status == 304 || status == 412 || status == 416;
}

static void reply_simple(struct http_req *rq, int status, uint64_t size)
{
	if (status == 416) {
		http_header_add(rq, "Content-Range", "bytes */%llu",
				(unsigned long long)size);
		http_reply_error(rq, 416, "RANGE_INVALID",
				 "the size is %llu bytes",
				 (unsigned long long)size);
		return;
	}
	http_reply(rq, status, NULL, NULL, 0);
}

void serve_bytes(struct http_req *rq, const void *bytes, size_t len,
		 const char *content_type, const char *etag)
{
	struct byte_range ranges[RANGE_MAX];
	uint32_t n;
	int status = decide(rq, len, etag, ranges, &n);

	add_headers(rq, etag);
	if (answers_simply(status)) {
		reply_simple(rq, status, len);
		return;
	}
	if (status == 206 && n == 1) {
		http_header_add(
			rq, "Content-Range", "bytes %llu-%llu/%zu",
			(unsigned long long)ranges[0].off,
			(unsigned long long)(ranges[0].off + ranges[0].len - 1),
			len);
		http_reply(rq, 206, content_type,
			   (const char *)bytes + ranges[0].off, ranges[0].len);
		return;
	}
	/* Several ranges of small content: send the whole (RFC 9110, 14.2
	 * allows a server to ignore Range). */
	http_reply(rq, 200, content_type, bytes, len);
}

void serve_blob(const struct serve_config *cfg, struct http_req *rq,
		struct blob **b, const struct serve_how *how)
{
	struct serve *s = calloc(1, sizeof(*s));
	uint64_t size = blob_size(*b);
	struct client_auth *auth;

	if (!s) {
		blob_unref(b);
		http_reply_error(rq, 500, "UNKNOWN", "out of memory");
		if (how->done)
			how->done(how->arg, -ENOMEM, 0);
		auth = how->auth;
		client_auth_end(&auth);
		return;
	}
	s->cfg = cfg;
	s->how = *how;
	s->rq = rq;
	s->blob = steal_ptr(b);
	s->job_fd = -1;
	if (how->etag)
		(void)snprintf(s->etag, sizeof(s->etag), "%s", how->etag);
	else if (blob_key(s->blob)->kind == BLOB_SHA256)
		(void)digest_str(&blob_key(s->blob)->id, s->etag);
	s->status = decide(rq, size, *s->etag ? s->etag : NULL, s->ranges,
			   &s->nranges);
	if (answers_simply(s->status)) {
		add_headers(rq, s->etag);
		reply_simple(rq, s->status, size);
		s->rq = NULL;
		finish(s, 0);
		return;
	}
	s->single = s->nranges <= 1;
	if (s->status == 200) {
		s->ranges[0] = (struct byte_range){0, size};
		s->nranges = 1;
	}
	s->off = s->ranges[0].off;
	s->end = s->off + s->ranges[0].len;
	s->head_due = !s->single;
	if (http_req_is_head(rq) || size == 0) {
		begin(s);
		finish(s, 0);
		return;
	}
	if (!how->patient)
		s->deadline_ms = now_ms() + (cfg->first_deadline_ms
						     ? cfg->first_deadline_ms
						     : 10000);
	http_req_set_data(rq, s);
	http_req_on_gone(rq, on_gone);
	next(s);
}
