/* The daemon's P2P state, told to whoever wants to know: a line in the log, a
 * STATUS= line to the service manager, and in a pod an event on that pod, as
 * `kubectl describe pod` shows.
 *
 * In Kubernetes (KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT and POD_NAME
 * are set) events go to the API server with the service account's token, one
 * after the other, in order. Which status leads to what:
 *   201 and other 2xx   done
 *   409                 done when it answers a repetition (the first one had
 *                       arrived), else again under another name
 *   401, 403, 404       a few times again with back-off and the token as it is
 *                       then; after that this event is dropped, and each later
 *                       one is tried only once. Logged once
 *   429, 5xx, no answer again, with back-off and as Retry-After says
 *   others              this event is dropped, and logged once
 * Nothing of this is ever waited for, and nothing of it fails the daemon.
 *
 * Sources: Kubernetes API, Event v1 core; sd_notify(3). Loop thread only. */
#ifndef DAEMON_EVENTS_H
#define DAEMON_EVENTS_H

#include <stdint.h>

#include "base/loop.h"
#include "http/client.h"

#define EVENTS_ACCOUNT_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

struct events;

enum p2p_state {
	P2P_NONE, /* nothing was said yet */
	P2P_INITIALIZING,
	P2P_CONNECTED,	  /* another member has answered */
	P2P_ACTIVE,	  /* connected, and serving what this node has */
	P2P_DISCONNECTED, /* was connected, and no member answers now */
	P2P_FAILED,	  /* takes no part, and will not by itself */
};

/* Strings are copied. */
struct events_config {
	struct loop *loop;
	struct http_client *client; /* must outlive events_free() */
	/* "STATUS=…", for the service manager; NULL: none. */
	void (*notify)(const char *state);
	const char *account_dir; /* NULL: EVENTS_ACCOUNT_DIR; has token, ca.crt
				    and namespace */
	const char *api_url;	 /* NULL: from the environment, with https */
	uint32_t retry_ms;	 /* the first pause, then twice that up to 64
				    times; 0: 1 s */
	uint32_t timeout_ms;	 /* of one request; 0: 10 s */
	uint32_t refill_ms; /* after 12 requests, one each so often; 0: 30 s */
};

/* POD_NAME, POD_UID, POD_NAMESPACE and NODE_NAME are taken from the
 * environment. -ENOMEM. Outside Kubernetes, or with something missing there
 * (logged), only log and service manager are told. */
int events_new(const struct events_config *cfg, struct events **ret);
/* What is not sent is dropped. Memory goes in later turns of the loop. NULLs;
 * NULL allowed. */
void events_free(struct events **ev);

/* message is a sentence for people, at most 1 KiB of it is kept. The state that
 * is in force already is not told again. NULL ev allowed. */
void events_state(struct events *ev, enum p2p_state state, const char *message);
enum p2p_state events_current(const struct events *ev);
/* "P2PInitializing" and so on; "none" for P2P_NONE. */
const char *p2p_state_name(enum p2p_state state);

#endif
