#include "p2p/resolve.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/values.h"

/* Limits: seconds and tries of one lookup, and the time of all lookups for one
 * srv: name. */
#define TRY_SECONDS 3
#define TRIES	    2
#define ALL_MS	    15000

/* ---- Parsing ---- */

static bool is_label(const char *s, size_t len)
{
	if (len == 0 || len > 63)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyz"
			    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_",
			    s[i]))
			return false;
	return true;
}

static bool is_name(const char *s)
{
	for (;;) {
		size_t n = strcspn(s, ".");

		if (!is_label(s, n))
			return false;
		if (s[n] == '\0' || s[n + 1] == '\0')
			return true;
		s += n + 1;
	}
}

/* getaddrinfo(3) would accept "1.2.3" and "017" as addresses. */
static bool is_numeric(const char *s)
{
	return s[strspn(s, "0123456789.")] == '\0';
}

static int parse_port(const char *entry, const char *s, uint16_t *ret,
		      struct error *err)
{
	uint64_t port;

	if (strlen(s) > 5 || parse_u64(s, &port) < 0 || port < 1 ||
	    port > UINT16_MAX)
		return set_error(err, -EINVAL,
				 "%.300s: the port must be 1 to 65535", entry);
	*ret = (uint16_t)port;
	return 0;
}

static int parse_bracketed(const char *entry, const char *s,
			   struct resolve_name *nm, struct error *err)
{
	const char *end = strchr(s, ']');
	struct resolve_addr a;
	size_t len;

	if (!end || (end[1] != '\0' && end[1] != ':'))
		return set_error(err, -EINVAL,
				 "%.300s: not [ADDRESS] or [ADDRESS]:PORT",
				 entry);
	len = (size_t)(end - s - 1);
	if (len >= INET6_ADDRSTRLEN)
		return set_error(err, -EINVAL, "%.300s: not an IPv6 address",
				 entry);
	memcpy(nm->name, s + 1, len);
	nm->name[len] = '\0';
	if (end[1] && parse_port(entry, end + 2, &nm->port, err) < 0)
		return -EINVAL;
	nm->kind = RESOLVE_ADDR;
	if (!strchr(nm->name, ':') ||
	    resolve_addr_parse(nm->name, nm->port, &a) < 0)
		return set_error(err, -EINVAL,
				 "%.300s: not a usable IPv6 address", entry);
	return 0;
}

/* Parses NAME[:PORT]; a literal IPv4 address becomes RESOLVE_ADDR. */
static int parse_host(const char *entry, const char *s, struct resolve_name *nm,
		      struct error *err)
{
	const char *colon = strchr(s, ':');
	size_t len = colon ? (size_t)(colon - s) : strlen(s);
	struct resolve_addr a;

	if (*s == '[')
		return parse_bracketed(entry, s, nm, err);
	if (colon && strchr(colon + 1, ':'))
		return set_error(err, -EINVAL,
				 "%.300s: put an IPv6 address in brackets",
				 entry);
	if (len >= sizeof(nm->name))
		return set_error(err, -EINVAL,
				 "%.300s: longer than 253 characters", entry);
	memcpy(nm->name, s, len);
	nm->name[len] = '\0';
	if (!is_name(nm->name))
		return set_error(err, -EINVAL, "%.300s: not a host name",
				 entry);
	if (colon && parse_port(entry, colon + 1, &nm->port, err) < 0)
		return -EINVAL;
	if (!is_numeric(nm->name))
		return 0;
	nm->kind = RESOLVE_ADDR;
	if (resolve_addr_parse(nm->name, nm->port, &a) < 0)
		return set_error(err, -EINVAL,
				 "%.300s: not a usable IPv4 address", entry);
	return 0;
}

static int parse_srv(const char *entry, const char *s, struct resolve_name *nm,
		     struct error *err)
{
	const char *dot = strchr(s, '.');

	if (strchr(s, ':'))
		return set_error(err, -EINVAL,
				 "%.300s: srv: takes no port, its records do",
				 entry);
	if (strlen(s) >= sizeof(nm->name))
		return set_error(err, -EINVAL,
				 "%.300s: longer than 253 characters", entry);
	if (*s != '_' || !dot || dot[1] != '_' || !strchr(dot + 1, '.') ||
	    !is_name(s))
		return set_error(err, -EINVAL,
				 "%.300s: not srv:_SERVICE._PROTO.NAME", entry);
	nm->kind = RESOLVE_SRV;
	nm->port = 0;
	(void)snprintf(nm->name, sizeof(nm->name), "%s", s);
	return 0;
}

int resolve_parse(const char *s, struct resolve_name *ret, struct error *err)
{
	*ret = (struct resolve_name){.kind = RESOLVE_HOST,
				     .port = RESOLVE_DEFAULT_PORT};
	if (strncmp(s, "srv:", 4) == 0)
		return parse_srv(s, s + 4, ret, err);
	if (strncmp(s, "dns:", 4) == 0) {
		ret->kind = RESOLVE_DNS;
		return parse_host(s, s + 4, ret, err);
	}
	return parse_host(s, s, ret, err);
}

/* ---- Addresses ---- */

static bool is_usable(const struct resolve_addr *a)
{
	if (a->port == 0)
		return false;
	if (!a->v6)
		return a->ip[0] != 0 && a->ip[0] < 224;
	if (IN6_IS_ADDR_UNSPECIFIED((const struct in6_addr *)a->ip) ||
	    a->ip[0] == 0xff)
		return false;
	/* A link-local address means nothing without its link. */
	return !(a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80);
}

static int from_bytes(int family, const void *ip, uint16_t port,
		      struct resolve_addr *ret)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	*ret = (struct resolve_addr){.port = port, .v6 = family == AF_INET6};
	memcpy(ret->ip, ip, ret->v6 ? 16 : 4);
	if (ret->v6 && memcmp(ret->ip, mapped, sizeof(mapped)) == 0) {
		memmove(ret->ip, ret->ip + 12, 4);
		memset(ret->ip + 4, 0, 12);
		ret->v6 = false;
	}
	return is_usable(ret) ? 0 : -EINVAL;
}

int resolve_addr_parse(const char *ip, uint16_t port, struct resolve_addr *ret)
{
	uint8_t bytes[16];

	if (inet_pton(AF_INET, ip, bytes) == 1)
		return from_bytes(AF_INET, bytes, port, ret);
	if (inet_pton(AF_INET6, ip, bytes) == 1)
		return from_bytes(AF_INET6, bytes, port, ret);
	return -EINVAL;
}

char *resolve_addr_text(const struct resolve_addr *a,
			char out[RESOLVE_TEXT_MAX])
{
	char ip[INET6_ADDRSTRLEN] = "";

	(void)inet_ntop(a->v6 ? AF_INET6 : AF_INET, a->ip, ip, sizeof(ip));
	(void)snprintf(out, RESOLVE_TEXT_MAX, a->v6 ? "[%s]:%u" : "%s:%u", ip,
		       a->port);
	return out;
}

/* Leaves out addresses that no member can have. */
static int add(struct resolve_result *res, int family, const void *ip,
	       uint16_t port)
{
	struct resolve_addr a, *v;

	if (from_bytes(family, ip, port, &a) < 0 || res->n >= RESOLVE_MAX_ADDRS)
		return 0;
	if ((res->n & (res->n - 1)) == 0) {
		v = realloc(res->v, (res->n ? res->n * 2 : 1) * sizeof(*v));
		if (!v)
			return -ENOMEM;
		res->v = v;
	}
	res->v[res->n++] = a;
	return 0;
}

void resolve_result_release(struct resolve_result *res)
{
	free(res->v);
	*res = (struct resolve_result){0};
}

static int failed(struct resolve_result *res, int r, const char *why)
{
	(void)snprintf(res->why, sizeof(res->why), "%s", why);
	return r;
}

/* ---- The resolver ---- */

struct resolver {
	struct __res_state st;
	bool own_server; /* a given server, without the system's servers and
			    /etc/hosts */
	const int *stop;
	uint64_t deadline_ms;
	unsigned char msg[NS_MAXMSG];
};

static bool out_of_time(const struct resolver *rs)
{
	return now_ms() > rs->deadline_ms ||
	       __atomic_load_n(rs->stop, __ATOMIC_RELAXED);
}

static int resolver_init(struct resolver *rs, const char *nameserver)
{
	struct resolve_name nm;
	struct resolve_addr a;

	if (res_ninit(&rs->st) < 0)
		return -EIO;
	if (rs->st.retrans > TRY_SECONDS)
		rs->st.retrans = TRY_SECONDS;
	if (rs->st.retry > TRIES)
		rs->st.retry = TRIES;
	if (!nameserver)
		return 0;
	if (resolve_parse(nameserver, &nm, NULL) < 0 ||
	    nm.kind != RESOLVE_ADDR ||
	    resolve_addr_parse(nm.name, nm.port, &a) < 0 || a.v6) {
		res_nclose(&rs->st);
		return -EINVAL;
	}
	rs->own_server = true;
	rs->st.options &= ~(unsigned long)(RES_DNSRCH | RES_DEFNAMES);
	rs->st.nscount = 1;
	rs->st.nsaddr_list[0] = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(a.port),
	};
	memcpy(&rs->st.nsaddr_list[0].sin_addr, a.ip, 4);
	return 0;
}

static int query(struct resolver *rs, const char *name, ns_type type,
		 ns_msg *ret, struct resolve_result *res)
{
	int n = res_nsearch(&rs->st, name, ns_c_in, type, rs->msg,
			    sizeof(rs->msg));

	if (n < 0) {
		int h = rs->st.res_h_errno;
		bool none = h == HOST_NOT_FOUND || h == NO_DATA;

		return failed(res, none ? -ENOENT : -ETIMEDOUT, hstrerror(h));
	}
	if ((size_t)n > sizeof(rs->msg) || ns_initparse(rs->msg, n, ret) < 0)
		return failed(res, -EBADMSG,
			      "the name server's answer is malformed");
	return 0;
}

/* Adds an A or AAAA record; ignores others. */
static int add_record(const ns_rr *rr, uint16_t port,
		      struct resolve_result *res)
{
	if (ns_rr_type(*rr) == ns_t_a && ns_rr_rdlen(*rr) == 4)
		return add(res, AF_INET, ns_rr_rdata(*rr), port);
	if (ns_rr_type(*rr) == ns_t_aaaa && ns_rr_rdlen(*rr) == 16)
		return add(res, AF_INET6, ns_rr_rdata(*rr), port);
	return 0;
}

static int query_addrs(struct resolver *rs, const char *name, uint16_t port,
		       ns_type type, struct resolve_result *res)
{
	ns_msg msg;
	ns_rr rr;
	int r = query(rs, name, type, &msg, res);

	for (int i = 0; r == 0 && i < ns_msg_count(msg, ns_s_an); i++) {
		if (ns_parserr(&msg, ns_s_an, i, &rr) < 0)
			return failed(res, -EBADMSG,
				      "the name server's answer is malformed");
		r = add_record(&rr, port, res);
	}
	return r;
}

static int ask_server(struct resolver *rs, const char *name, uint16_t port,
		      struct resolve_result *res)
{
	size_t before = res->n;
	int r4 = query_addrs(rs, name, port, ns_t_a, res);
	int r6 = query_addrs(rs, name, port, ns_t_aaaa, res);

	if ((r4 < 0 && r4 != -ENOENT) || (r6 < 0 && r6 != -ENOENT)) {
		if (res->n == before)
			return r4 < 0 && r4 != -ENOENT ? r4 : r6;
		res->partial = true;
	}
	return res->n > before ? 0 : -ENOENT;
}

static int ask_system(const char *name, uint16_t port,
		      struct resolve_result *res)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
				 .ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_ADDRCONFIG};
	struct addrinfo *list = NULL;
	size_t before = res->n;
	int e = getaddrinfo(name, NULL, &hints, &list), r = 0;

	if (e == EAI_NONAME || e == EAI_NODATA || e == EAI_ADDRFAMILY)
		return failed(res, -ENOENT, gai_strerror(e));
	if (e == EAI_MEMORY)
		return -ENOMEM;
	if (e != 0)
		return failed(res, -ETIMEDOUT, gai_strerror(e));
	for (struct addrinfo *ai = list; r == 0 && ai; ai = ai->ai_next) {
		const struct sockaddr_in *a4 = (const void *)ai->ai_addr;
		const struct sockaddr_in6 *a6 = (const void *)ai->ai_addr;

		if (ai->ai_family == AF_INET)
			r = add(res, AF_INET, &a4->sin_addr, port);
		else if (ai->ai_family == AF_INET6)
			r = add(res, AF_INET6, &a6->sin6_addr, port);
	}
	freeaddrinfo(list);
	return r == 0 && res->n == before ? -ENOENT : r;
}

static int ask(struct resolver *rs, const char *name, uint16_t port,
	       struct resolve_result *res)
{
	return rs->own_server ? ask_server(rs, name, port, res)
			      : ask_system(name, port, res);
}

/* ---- SRV ---- */

struct srv_target {
	char name[RESOLVE_NAME_MAX + 2];
	uint16_t port;
	bool found;
};

/* -ENOMEM, -EBADMSG. A target "." means that the service is not available. */
static int read_targets(ns_msg *msg, struct srv_target *v, size_t *ret_n)
{
	int count = ns_msg_count(*msg, ns_s_an);
	size_t n = 0;
	ns_rr rr;

	for (int i = 0; i < count; i++) {
		const unsigned char *data;

		if (ns_parserr(msg, ns_s_an, i, &rr) < 0)
			return -EBADMSG;
		data = ns_rr_rdata(rr);
		if (ns_rr_type(rr) != ns_t_srv || ns_rr_rdlen(rr) < 7)
			continue;
		v[n] = (struct srv_target){
			.port = (uint16_t)ns_get16(data + 4)};
		if (dn_expand(ns_msg_base(*msg), ns_msg_end(*msg), data + 6,
			      v[n].name, sizeof(v[n].name)) < 0)
			return -EBADMSG;
		/* dn_expand() gives "" for the root. */
		if (v[n].port && v[n].name[0] && is_name(v[n].name))
			n++;
	}
	*ret_n = n;
	return 0;
}

/* Adds the addresses that the server sent along with its answer. */
static int add_additional(ns_msg *msg, struct srv_target *v, size_t n,
			  struct resolve_result *res)
{
	int r = 0;
	ns_rr rr;

	for (int i = 0; i < ns_msg_count(*msg, ns_s_ar); i++) {
		if (ns_parserr(msg, ns_s_ar, i, &rr) < 0)
			return 0; /* ask_targets() looks up the rest */
		if (ns_rr_type(rr) != ns_t_a && ns_rr_type(rr) != ns_t_aaaa)
			continue;
		for (size_t k = 0; r == 0 && k < n; k++) {
			if (strcasecmp(v[k].name, ns_rr_name(rr)) != 0)
				continue;
			v[k].found = true;
			r = add_record(&rr, v[k].port, res);
		}
		if (r < 0)
			break;
	}
	return r;
}

/* Begins at a changing target, so that the next lookup covers others if time
 * runs out. */
static int ask_targets(struct resolver *rs, const struct srv_target *v,
		       size_t n, struct resolve_result *res)
{
	size_t first = n ? (size_t)(now_ms() % n) : 0;

	for (size_t i = 0; i < n; i++) {
		const struct srv_target *t = &v[(first + i) % n];
		int r = 0;

		if (t->found)
			continue;
		if (out_of_time(rs)) {
			res->partial = true;
			return failed(res, res->n ? 0 : -ETIMEDOUT,
				      "no time left to look up all targets");
		}
		r = ask(rs, t->name, t->port, res);
		if (r == -ENOMEM)
			return r;
		if (r < 0 && r != -ENOENT)
			res->partial = true;
	}
	if (res->n == 0)
		return res->partial ? -ETIMEDOUT : -ENOENT;
	return 0;
}

static int run_srv(struct resolver *rs, const char *name,
		   struct resolve_result *res)
{
	CLEANUP(freep) struct srv_target *v = NULL;
	size_t n = 0;
	ns_msg msg;
	int r = query(rs, name, ns_t_srv, &msg, res);

	if (r < 0)
		return r;
	/* A message of 64 KiB limits the number. */
	v = calloc((size_t)ns_msg_count(msg, ns_s_an) + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	r = read_targets(&msg, v, &n);
	if (r < 0)
		return failed(res, r, "the name server's answer is malformed");
	r = add_additional(&msg, v, n, res);
	return r < 0 ? r : ask_targets(rs, v, n, res);
}

int resolve_run(const struct resolve_name *nm, const char *nameserver,
		const int *stop, struct resolve_result *ret)
{
	CLEANUP(freep) struct resolver *rs = calloc(1, sizeof(*rs));
	struct resolve_addr a;
	int r;

	*ret = (struct resolve_result){0};
	if (!rs)
		return -ENOMEM;
	if (nm->kind == RESOLVE_ADDR) {
		r = resolve_addr_parse(nm->name, nm->port, &a);
		return r < 0 ? r
			     : add(ret, a.v6 ? AF_INET6 : AF_INET, a.ip,
				   a.port);
	}
	rs->stop = stop;
	rs->deadline_ms = now_ms() + ALL_MS;
	r = resolver_init(rs, nameserver);
	if (r < 0)
		return failed(ret, r, "cannot set up the resolver");
	r = nm->kind == RESOLVE_SRV ? run_srv(rs, nm->name, ret)
				    : ask(rs, nm->name, nm->port, ret);
	res_nclose(&rs->st);
	return r;
}
