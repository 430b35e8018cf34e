/* What the files of the server share. Loop thread only.
 *
 *   server.c   the server, its listeners, the sweep of timeouts
 *   conn.c     one connection: its states, reading, sending, closing
 *   places.c   how many connections a listener may have, and which of them go
 *   plain.c    how bytes get onto the wire without TLS
 *   tls-conn.c the same with TLS, as http/tls.h does it
 *   answer.c   the half of server.h that handlers call
 *   parser.c   bytes to heads
 *
 * Life of a connection:
 *
 *   HEAD -> [BODY ->] HANDLER -> FLUSH -> HEAD, or LINGER, or DEAD
 *
 * HANDLER: a handler holds the request (conn.held). FLUSH: the answer is
 * complete here and is being sent. LINGER: all was sent and our half closed;
 * what the client still sends is thrown away for a moment, since closing with
 * unread bytes would reset the connection and could destroy the answer on its
 * way. DEAD: the socket is closed; the memory stays until libuv has let go of
 * the handle and the handler of the request.
 *
 * Callbacks to handlers are never made from inside their calls: they wait in
 * server.later, which is worked off when the outermost of our own callbacks
 * ends, or in the loop's next turn. */
#ifndef HTTP_SERVER_PRIVATE_H
#define HTTP_SERVER_PRIVATE_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <uv.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/log.h"
#include "http/parser.h"
#include "http/places.h"
#include "http/server.h"

struct conn;
struct tls_server;
struct tls_session;

/* How bytes get onto the wire. The calls behave like the system calls of the
 * same names on a nonblocking socket, but return -errno, and never raise
 * SIGPIPE. One that encrypts may take bytes although the socket has not taken
 * all it made of them; then it sets conn.unsent, and returns -EAGAIN from
 * further writes until they are gone. */
struct http_transport {
	/* 0: end. -ESHUTDOWN: the connection is to be ended, but not without
	 * sending what was written so far. */
	ssize_t (*read)(struct conn *c, void *buf, size_t len);
	/* more: further bytes follow at once, so that a short segment need not
	 * leave yet. Without any bytes: sends what is unsent. */
	ssize_t (*writev)(struct conn *c, const struct iovec *iov, int n,
			  bool more);
	/* NULL: the file is read and written instead. 0: the file has ended. */
	ssize_t (*sendfile)(struct conn *c, int fd, uint64_t off, size_t len);
	/* Bytes can be read although the socket has none. NULL: never. */
	bool (*pending)(const struct conn *c);
	/* Nothing will be written any more. */
	void (*shut_wr)(struct conn *c);
	/* Closes the descriptor. reset: with RST, unsent bytes dropped. */
	void (*close)(struct conn *c, bool reset);
};

extern const struct http_transport http_plain;

enum conn_state {
	CONN_HEAD,
	CONN_BODY,
	CONN_HANDLER,
	CONN_FLUSH,
	CONN_LINGER,
	CONN_DEAD,
};

/* What waits in server.later for a connection. */
enum conn_later {
	LATER_CALL = 1,	 /* sent(), gone(), or freeing */
	LATER_RUN = 2,	 /* buffered bytes may hold the next request */
	LATER_FLUSH = 4, /* a head to send that no body bytes came with */
	LATER_READ = 8,	 /* the transport has bytes that were not read */
};

/* Strings made for a request, freed with it. */
struct http_str {
	struct http_str *next;
	char s[];
};

struct http_strs {
	struct http_str *first;
};

struct http_req {
	struct http_head head;
	struct http_strs *strs; /* the connection's */
	void *data;
	void (*gone)(struct http_req *rq);

	/* The answer. */
	struct buf fields;  /* what http_header_add() collected */
	uint64_t called_ns; /* when the handler was; 0: it was not */
	int status;
	uint64_t promised; /* body bytes of http_begin() still to come */
	bool begun;	   /* the head was built */
	bool chunked;	   /* the answer is */
	bool chunk_open;   /* a chunk's closing CR LF is still to be sent */
	bool until_close;  /* length unknown, and no chunks in HTTP/1.0 */
	bool without_body; /* HEAD, 204, 304 */
	bool out_of_memory;
};

struct conn {
	struct http_server *server;
	struct list node;	/* in server.conns */
	struct list later_node; /* in server.later */
	unsigned int later;	/* enum conn_later */

	uv_poll_t poll;
	int fd;
	int armed; /* events of poll */
	const struct http_transport *tr;
	struct tls_session *tls; /* NULL without, and once closed */
	char *tls_name;		 /* NULL before the handshake is complete */
	bool tls_reported;	 /* that the handshake failed */
	bool unsent; /* the transport has bytes that the socket did not take */
	struct sockaddr_storage addr;
	http_handler *handler;
	void *handler_arg;
	struct places *places; /* the listener's */
	struct place place;

	enum conn_state state; /* conn_set_state() */
	uint64_t deadline_ms;  /* 0: none */
	bool held;	       /* a handler owns rq */
	bool closed;	       /* libuv has let go of poll */
	bool keep;	       /* another request may follow */
	bool unread;	       /* of this request not all was read */
	bool fin;	       /* the peer will send nothing more */
	bool head_timed;       /* deadline_ms is that of a head */
	bool running;	       /* inside conn_run() */

	/* Bytes read and not yet consumed; the request's head stays at the
	 * front until it ends. */
	char *in;
	size_t in_len, in_cap;
	size_t in_pos;	/* where http_head_find() is */
	size_t in_used; /* bytes at the front that belong to the request */

	/* The body: in `in` when it came whole with its head, else here. */
	char *body;
	size_t body_len, body_cap;
	const char *body_data;
	struct http_chunked chunks;
	size_t linger_left;

	/* Output, in this order: own bytes, then what a handler lent. */
	struct buf out;
	size_t out_pos;
	const char *lent;
	size_t lent_len;
	int file;
	uint64_t file_off, file_len;
	bool progress; /* something was sent since the deadline was set */
	bool writing;  /* of a handler's write not all was sent */
	int sent_r;    /* how it went, for sent() */
	http_sent_cb *sent;

	struct http_strs strs;
	struct http_req rq;
};

struct http_listener {
	struct http_server *server;
	struct list node;
	uv_poll_t poll;
	int fd;
	struct places *places;	/* of all addresses of its name */
	struct tls_server *tls; /* NULL: without */
	bool paused;		/* out of descriptors */
	http_handler *handler;
	void *arg;
	char *unix_path; /* NULL for TCP */
	dev_t unix_dev;
	ino_t unix_ino;
};

/* Files up to this size are read and sent with their head in one call. */
#define HTTP_SMALL_FILE (16U << 10)

struct http_server {
	uv_loop_t *uv;
	struct http_server_config cfg; /* defaults filled in; name unused */
	char *name;
	struct list listeners, conns, later;
	struct list places;
	uint32_t n_conns;
	unsigned int depth; /* of our own callbacks on the stack */
	uv_idle_t turn;	    /* active while later is not empty */
	uv_timer_t sweep;   /* active while there is anything to time */
	unsigned int open_handles;
	bool stopping, closing, stopped;
	uint64_t cut_ms; /* when stopping: connections are cut off then */
	void (*done)(void *arg);
	void *done_arg;
	struct log_limit emfile_log, crowd_log, tls_log;
	char date[48]; /* "Date: …\r\n" of date_s */
	uint64_t date_s;
	char scratch[HTTP_SMALL_FILE + 4096];
};

/* ---- server.c ---- */

void http_server_enter(struct http_server *s);
/* Ends one of our own callbacks; the outermost works off server.later. */
void http_server_leave(struct http_server *s);
/* Something was put into server.later. */
void http_server_wake(struct http_server *s);
/* After a connection or a listener was freed. */
void http_server_check_stopped(struct http_server *s);

/* ---- conn.c ---- */

/* Takes fd over, also when it fails. -EAGAIN: there is no place for it. */
int conn_new(struct http_listener *l, int fd,
	     const struct sockaddr_storage *addr);
void conn_set_state(struct conn *c, enum conn_state state);
void conn_close(struct conn *c, bool reset);
void conn_later(struct conn *c, unsigned int what);
void conn_do_later(struct conn *c);
void conn_timeout(struct conn *c);
/* Sends what can be sent now, and goes on from there. */
void conn_kick(struct conn *c);
/* The same, unless the loop is going to tell that the socket is ready. */
void conn_kick_unless_armed(struct conn *c);
/* The handler is done with the request. */
void conn_unhold(struct conn *c);

/* ---- answer.c ---- */

/* "127.0.0.1:1234" or "unix". Returns out. */
#define HTTP_ADDR_SIZE (INET6_ADDRSTRLEN + 16)
char *conn_addr(const struct conn *c, char out[HTTP_ADDR_SIZE]);

/* ---- tls-conn.c ---- */

/* Makes c, which is new, speak TLS. -ENOMEM. */
int conn_use_tls(struct conn *c, struct tls_server *tls);
void conn_tls_metrics(void);

static inline struct conn *req_conn(const struct http_req *rq)
{
	return container_of(rq, struct conn, rq);
}

#endif
