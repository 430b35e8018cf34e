/* The places for connections of one listener: how many there are, and which
 * client address holds them. When they are all taken a newcomer is let in and
 * one that waits for its client's next request has to go, so that holding idle
 * connections keeps nobody out. One address gets half of the places at most,
 * for connections with a request under way cannot be closed; this host has no
 * limit but the listener's.
 *
 * Each call takes constant time. Loop thread only. */
#ifndef HTTP_PLACES_H
#define HTTP_PLACES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"

struct places_client;
struct sockaddr_storage;

/* For connections beyond the places, so that they get an answer: 503, or what a
 * probe gets. */
#define PLACES_SPARE 16

/* Embedded in a connection; zeroed before places_enter(). */
struct place {
	struct list node; /* of those that wait; empty: it does not */
	struct places_client *client; /* NULL: a spare place */
	bool taken;
};

struct places {
	struct list owned; /* for the owner's use */
	uint32_t max;
	uint32_t n, n_spare;
	struct hash_table clients;
	/* [i]: clients of which 2^i to 2^(i+1)-1 connections wait. */
	struct list crowd[32];
	struct list spare_waiting;
};

/* -ENOMEM. */
int places_new(uint32_t max, struct places **ret);
/* All must have left. NULLs; NULL allowed. */
void places_free(struct places **p);

/* Takes a place for a connection from addr, which waits for its client. The
 * caller closes *ret_victim (NULL: nobody), which leaves by that. -EAGAIN: not
 * even a spare one is left. -ENOMEM. */
int places_enter(struct places *p, struct place *pl,
		 const struct sockaddr_storage *addr,
		 struct place **ret_victim);
/* Harmless when repeated. */
void places_leave(struct places *p, struct place *pl);
/* Whether it waits for its client: the one that has waited longest is closed
 * first. */
void places_wait(struct places *p, struct place *pl, bool waits);

static inline bool place_is_spare(const struct place *pl)
{
	return !pl->client;
}

#endif
