/* The daemon as a whole. */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

struct config;

/* Runs the daemon until SIGTERM, SIGINT or somebody unmounts the mount. cfg is
 * borrowed. Logs why it cannot start. Returns the process's exit status: 0, 1
 * for a failure, 2 for options that do not fit together. */
int daemon_run(const struct config *cfg);

#endif
