/* Reports the daemon's P2P state: as a line in the log, as a STATUS= line to
 * the service manager, and in a pod as an event of that pod, which `kubectl
 * describe pod` shows.
 *
 * In Kubernetes (KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT and POD_NAME
 * are set) events are sent to the API server with the service account's token,
 * one after the other, in order. By the answer's status:
 *   201 and other 2xx   the event is done
 *   409                 done, if this was a repetition (the first request had
 *                       arrived); else sent again under another name
 *   401, 403, 404       sent again a few times with back-off; the token is read
 *                       again each time. Then this event is dropped and logged,
 *                       and each later one is tried only once
 *   408, 429, 5xx,      sent again, with back-off and at least Retry-After; the
 *   no answer           event is dropped after 12 attempts
 *   others              the event is dropped; logged once
 * The daemon never waits for an event, and never fails because of one.
 * Sources: Kubernetes API, Event v1 core; sd_notify(3). Loop thread only. */
#ifndef DAEMON_EVENTS_H
#define DAEMON_EVENTS_H

#include <stdint.h>

#include "base/loop.h"
#include "http/client.h"

#define EVENTS_ACCOUNT_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

struct events;

enum p2p_state {
	P2P_NONE, /* events_state() was not called yet */
	P2P_INITIALIZING,
	P2P_CONNECTED,	  /* another member has answered */
	P2P_ACTIVE,	  /* connected, and serves its blobs to members */
	P2P_DISCONNECTED, /* was connected; now no member answers */
	P2P_FAILED,	  /* the daemon could not start and ends */
};

/* Strings are copied. */
struct events_config {
	struct loop *loop;
	struct http_client *client; /* must outlive events_free() */
	/* Called with "STATUS=…" for the service manager. NULL: none. */
	void (*notify)(const char *state);
	const char *account_dir; /* directory of token, ca.crt and namespace;
				    NULL: EVENTS_ACCOUNT_DIR */
	const char *api_url;	 /* NULL: https, host and port from the
				    environment */
	uint32_t retry_ms;   /* the first pause; doubled up to 64 times that;
				0: 1 s */
	uint32_t timeout_ms; /* of one request; 0: 10 s */
	uint32_t refill_ms;  /* after a burst of 12 requests, one request per
				this time; 0: 30 s */
};

/* Reads POD_NAME, POD_UID, POD_NAMESPACE and NODE_NAME from the environment.
 * Outside Kubernetes, or if a needed value is missing there (logged), states go
 * only to the log and the service manager. -ENOMEM. */
int events_new(const struct events_config *cfg, struct events **ret);
/* Drops the events that are not sent. The memory is freed in a later turn of
 * the loop. *ev may be NULL, and becomes NULL. */
void events_free(struct events **ev);

/* Reports a new state; does nothing if ev is in that state already. message is
 * a sentence for people, copied up to 1 KiB. ev may be NULL. */
void events_state(struct events *ev, enum p2p_state state, const char *message);
enum p2p_state events_current(const struct events *ev);
/* "P2PInitializing" and so on; "none" for P2P_NONE. */
const char *p2p_state_name(enum p2p_state state);

#endif
