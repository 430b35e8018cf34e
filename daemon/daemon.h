/* The daemon's life, from start to end. */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

struct config;

/* Runs the daemon until SIGTERM, SIGINT or until another process unmounts the
 * mount. cfg is borrowed. Logs the reason if it cannot start. Returns the exit
 * status of the process: 0; 1 for a failure; 2 for options that contradict each
 * other. */
int daemon_run(const struct config *cfg);

#endif
