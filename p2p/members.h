/* The nodes of the cluster, as this one sees them. No leader, no lease: a list
 * of places to look (--peers), looked up again and again, and a greeting.
 *
 *   host:port               one member: the first of its addresses that works
 *   dns:name:port           every A and AAAA record is a member
 *   srv:_service._proto.name  every SRV record, with its port
 *
 * Each address is greeted: GET /peer/v1/hello, answered with
 * {"id","name","version","zone"}. Who greets says its own port in the header
 * Peerd-Listen, so that one who is greeted by a stranger greets back: a node
 * that joins is known at once. Two addresses with one id are one member; our
 * own id is ourselves; another id at an address is another member.
 *
 * A member is alive while greetings and transfers succeed, and suspect after
 * one failure: it is greeted at once and still counts among the living, for a
 * single reset must not deal all blobs out anew. It is gone after
 * MEMBERS_GONE_AFTER failures in a row, then greeted seldom, and forgotten when
 * it was away for 100 greet_ms and no lookup names it (nor has it greeted us
 * lately). One that no lookup names stays as long as it answers. A lookup that
 * fails changes nothing.
 *
 * Greetings and lookups are spread evenly in time, with jitter: a cluster of
 * thousands costs a node at most 50 greetings a second, so that with 2,000
 * members each is greeted every 50 s, and transfers tell of failures sooner.
 *
 * Loop thread. */
#ifndef P2P_MEMBERS_H
#define P2P_MEMBERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/loop.h"
#include "base/options.h"
#include "base/util.h"
#include "http/client.h"
#include "http/server.h"
#include "p2p/placement.h"

#define MEMBERS_MAX	   20000
#define MEMBERS_GONE_AFTER 3
#define MEMBER_ID_MAX	   64
#define MEMBER_NAME_MAX	   128
#define MEMBER_ADDR_MAX	   64

struct members;

enum member_state {
	MEMBER_NEW, /* an address; never answered yet */
	MEMBER_ALIVE,
	MEMBER_SUSPECT, /* failed lately; among the living */
	MEMBER_GONE,
};

/* Owned by the members; stays valid while referenced. Read-only but for
 * `user`. */
struct member {
	char id[MEMBER_ID_MAX];	    /* "" while NEW */
	char name[MEMBER_NAME_MAX]; /* for people */
	char zone[MEMBER_NAME_MAX];
	char version[MEMBER_NAME_MAX];
	char addr[MEMBER_ADDR_MAX]; /* "10.0.0.1:5001", "[::1]:5001" */
	uint64_t place_id;	    /* place_hash() of id */
	enum member_state state;
	bool same_zone;
	uint64_t since_ms;     /* in this state */
	uint64_t heard_ms;     /* of the last success */
	double rtt_ms;	       /* of greetings, smoothed; 0 = unknown */
	unsigned int failures; /* in a row */
	char why[160];	       /* of the last failure */
	void *user;	       /* for p2p/peers.c */
};

static inline bool member_lives(const struct member *mb)
{
	return mb->state == MEMBER_ALIVE || mb->state == MEMBER_SUSPECT;
}

struct members_config {
	struct loop *loop;
	/* A greeting that waits for one of its connections for seconds is a
	 * failure: enough of them, or a client of its own. */
	struct http_client *client;
	const struct string_list *peers;	/* copied; see above */
	const char *id, *name, *zone, *version; /* our own; copied; id is at
				    most MEMBER_ID_MAX - 1 visible characters */
	uint16_t port; /* our own, for Peerd-Listen; 0 = do not tell */
	/* NULL: plain HTTP (loopback, --insecure-peers). */
	const char *ca_file, *cert_file, *key_file;
	uint32_t greet_ms;  /* between greetings of one member in a small
			       cluster; 0 = 3 s */
	uint32_t lookup_ms; /* 0 = 5 s */
	/* For tests: "127.0.0.1:5353" is asked instead of the system's name
	 * servers and /etc/hosts. */
	const char *nameserver;
	/* Who is living has changed, or members_settled() has become true; in a
	 * turn of its own, once for all changes since. The old views' members
	 * are valid until it returns. May be NULL. */
	void (*changed)(void *arg);
	/* A member is about to be freed: forget it. In a turn of its own, not
	 * called once members_free() was. May be NULL. */
	void (*forget)(void *arg, struct member *mb);
	void *arg;
};

/* A malformed entry of cfg->peers, or an id, name, zone or version that is not
 * visible ASCII: -EINVAL, *err names it and what is wrong. -ENOMEM. */
int members_new(const struct members_config *cfg, struct members **ret,
		struct error *err);
/* Cancels greetings and lookups; frees in the turns that follow, members too.
 * No callback comes after it. To be called before http_client_free(). NULLs. */
void members_free(struct members **m);

/* The living (alive or suspect) of our zone and ourselves, resp. of all zones.
 * Valid until `changed` is called. members_at(m, all, i) is the i-th, NULL for
 * ourselves.
 */
const struct place_view *members_view(struct members *m, bool all_zones);
struct member *members_at(struct members *m, bool all_zones, uint32_t i);
/* Rises with every change of the views. */
uint64_t members_generation(const struct members *m);
/* All that are known, in no particular order; ourselves not. */
void members_each(struct members *m, void (*each)(void *arg, struct member *mb),
		  void *arg);
struct member *members_find(struct members *m, const char *id);
/* The living, without ourselves. */
unsigned int members_alive(const struct members *m);
/* Every name was looked up and every address that came of it greeted, with
 * whatever success. Stays true. */
bool members_settled(const struct members *m);

/* How a transfer went: a success is as good as a greeting; a failure makes it
 * suspect and has it greeted now, but only greetings tell whether it is gone.
 * why is copied. */
void members_note(struct members *m, struct member *mb, bool ok,
		  const char *why);

/* Fills in what every request to a member carries: URL
 * "https://addr/path…" into *url, TLS files, deadlines for a LAN; other fields
 * are left alone. rq borrows from url and m. -EMSGSIZE, -ENOMEM. */
int members_request(struct members *m, const struct member *mb,
		    const char *path, struct http_request *rq, struct buf *url);

/* Answers GET /peer/v1/hello, and takes note of who asks: the client's address
 * with the port of Peerd-Listen is greeted as if a lookup named it, for a
 * minute or so. New ones are limited in number and rate. */
void members_hello(struct members *m, struct http_req *rq);

#endif
