/* The nodes of the cluster, as this node sees them. There is no leader and no
 * lease: only a list of names (--peers) that are looked up again and again, and
 * a greeting.
 *
 *   host:port               one member: the first of its addresses that works
 *   dns:name:port           every A and AAAA record is a member
 *   srv:_service._proto.name  every SRV record, with its port
 *
 * Each address is greeted: GET /peer/v1/hello, answered with
 * {"id","name","version","zone"}. The header Peerd-Listen carries the port of
 * the node that greets. A node that is greeted by a stranger greets it back, so
 * a node that joins is known at once. Two addresses with one id are one member.
 * An address that answers with this node's id is this node. An address that
 * answers with another id than before belongs to another member.
 *
 * A member is alive while greetings and transfers succeed. It is suspect after
 * one failure: it is greeted at once and still counts as living, because a
 * single reset must not move the owners of all blobs. It is gone after
 * MEMBERS_GONE_AFTER failures in a row (after the second if no lookup names it
 * and it has not greeted lately); then it is greeted seldom. It is forgotten
 * once it was away for 100 greet_ms, no lookup names it and it has not greeted
 * lately. A member that no lookup names stays as long as it answers. A lookup
 * that fails changes nothing.
 *
 * An id belongs to the certificate, by its name, that answered with it first;
 * and at one IP address a certificate has one living id. Without TLS an address
 * has 16.
 *
 * Greetings and lookups are spread evenly in time, with jitter. A node sends at
 * most 50 greetings a second, however large the cluster: with 2,000 members
 * each is greeted every 50 s, and transfers report failures sooner.
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
#include "http/tls.h"
#include "p2p/placement.h"

#define MEMBERS_MAX	   20000
#define MEMBERS_GONE_AFTER 3
#define MEMBER_ID_MAX	   64
#define MEMBER_NAME_MAX	   128
#define MEMBER_ADDR_MAX	   64
#define MEMBER_CERT_MAX	   TLS_NAME_SIZE

struct members;

enum member_state {
	MEMBER_NEW, /* an address that has never answered */
	MEMBER_ALIVE,
	MEMBER_SUSPECT, /* failed lately; counts as living */
	MEMBER_GONE,
};

/* Owned by the members; valid until members_config.forget was called for it.
 * Read-only, except `user`. */
struct member {
	char id[MEMBER_ID_MAX];	    /* "" in state NEW */
	char name[MEMBER_NAME_MAX]; /* for people */
	char zone[MEMBER_NAME_MAX];
	char version[MEMBER_NAME_MAX];
	char addr[MEMBER_ADDR_MAX]; /* "10.0.0.1:5001", "[::1]:5001" */
	char cert[MEMBER_CERT_MAX]; /* the name in its certificate; "" without
				       TLS */
	uint64_t place_id;	    /* place_hash() of id */
	enum member_state state;
	bool same_zone;
	uint64_t since_ms;     /* when this state began */
	uint64_t heard_ms;     /* when the last success was */
	double rtt_ms;	       /* of greetings, smoothed; 0 = unknown */
	unsigned int failures; /* in a row */
	char why[160];	       /* reason of the last failure */
	void *user;	       /* owned by p2p/peers.c */
};

static inline bool member_lives(const struct member *mb)
{
	return mb->state == MEMBER_ALIVE || mb->state == MEMBER_SUSPECT;
}

struct members_config {
	struct loop *loop;
	/* Needs enough connections, or a client of its own: a greeting that
	 * waits seconds for a connection counts as a failure. */
	struct http_client *client;
	const struct string_list *peers; /* copied; see above */
	/* Of this node; copied. id has at most MEMBER_ID_MAX - 1 visible
	 * characters. */
	const char *id, *name, *zone, *version;
	uint16_t port; /* of this node, for Peerd-Listen; 0 = not sent */
	/* NULL: plain HTTP (loopback, --insecure-peers). */
	const char *ca_file, *cert_file, *key_file;
	uint32_t greet_ms;  /* between greetings of one member in a small
			       cluster; 0 = 3 s */
	uint32_t lookup_ms; /* 0 = 5 s */
	/* For tests: "127.0.0.1:5353" replaces the system's name servers and
	 * /etc/hosts. */
	const char *nameserver;
	/* The set of living members has changed, or members_settled() has
	 * become true. Called in a turn of its own, once for all changes since
	 * the last call. Members of the old views are valid until it returns.
	 * May be NULL. */
	void (*changed)(void *arg);
	/* A member is about to be freed: drop all pointers to it. Called in a
	 * turn of its own; not called after members_free(). May be NULL. */
	void (*forget)(void *arg, struct member *mb);
	void *arg;
};

/* -EINVAL: a malformed entry of cfg->peers, or an id, name, zone or version
 * that is not visible ASCII; *err names it and the mistake. -ENOMEM. */
int members_new(const struct members_config *cfg, struct members **ret,
		struct error *err);
/* Cancels greetings and lookups, and frees m and all members in later turns. No
 * callback comes afterwards. Call it before http_client_free(). Sets *m to
 * NULL. */
void members_free(struct members **m);

/* Returns the living members (alive or suspect) and this node: of this node's
 * zone, or of all zones. Valid until the turn that calls `changed`.
 * members_at(m, all, i) is the i-th; NULL is this node. */
const struct place_view *members_view(struct members *m, bool all_zones);
struct member *members_at(struct members *m, bool all_zones, uint32_t i);
/* Rises with each change of the views. */
uint64_t members_generation(const struct members *m);
/* Calls each() for all known members, in no particular order, without this
 * node. */
void members_each(struct members *m, void (*each)(void *arg, struct member *mb),
		  void *arg);
struct member *members_find(struct members *m, const char *id);
/* Returns the member with this id (NULL allowed) if the request comes from it:
 * by its certificate, and from one of its addresses unless no other member has
 * this certificate. NULL: it does not, or the id is not known. */
struct member *members_speaker(struct members *m, const struct http_req *rq,
			       const char *id);
/* Returns the number of living members, without this node. */
unsigned int members_alive(const struct members *m);
/* True once every name was looked up and every address found was greeted, with
 * or without success. Stays true. */
bool members_settled(const struct members *m);

/* Reports the outcome of a transfer. A success counts like a greeting. A
 * failure makes the member suspect and triggers a greeting, but only greetings
 * find that it is gone. why is copied. */
void members_note(struct members *m, struct member *mb, bool ok,
		  const char *why);

/* Fills in what every request to a member needs: the URL "https://addr/path…"
 * in *url, the TLS files, deadlines for a LAN. Leaves the other fields alone.
 * rq borrows from url and m. -EMSGSIZE, -ENOMEM. */
int members_request(struct members *m, const struct member *mb,
		    const char *path, struct http_request *rq, struct buf *url);

/* Answers GET /peer/v1/hello and learns the requester's address: the client's
 * IP address with the port of Peerd-Listen. That address is greeted as if a
 * lookup named it, for a minute (longer in a large cluster). New addresses are
 * limited in number and rate. */
void members_hello(struct members *m, struct http_req *rq);

#endif
