/* Shared by the files of the server. Loop thread only.
 *
 *   server.c   the server, its listeners, the sweep of timeouts
 *   conn.c     one connection: its states, reading, sending, closing
 *   places.c   limits connections per listener and client, and picks those to
 *              close
 *   plain.c    the transport without TLS
 *   tls-conn.c the transport with TLS, by http/tls.h
 *   answer.c   the half of server.h that handlers call
 *   parser.c   parses heads and chunked bodies
 *
 * Life of a connection:
 *
 *   HEAD -> [BODY ->] HANDLER -> FLUSH -> HEAD, or LINGER, or DEAD
 *
 * - HANDLER: a handler holds the request (conn.held).
 * - FLUSH: the answer is complete in memory and is being sent.
 * - LINGER: the answer was sent and our half of the connection is closed. For a
 *   moment conn.c reads and drops the client's bytes, because closing with
 *   unread bytes would reset the connection and could destroy the answer on its
 *   way.
 * - DEAD: the socket is closed. The memory stays until libuv has closed the
 *   handle and the handler has ended the request.
 *
 * A callback to a handler never runs inside a call of that handler. Callbacks
 * wait in server.later. The outermost callback of the server runs the list when
 * it ends; else the next turn of the loop does. */
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

/* A transport: how bytes get to and from the client. The calls behave like the
 * system calls of the same names on a nonblocking socket, but return -errno and
 * never raise SIGPIPE. An encrypting transport may accept bytes that the socket
 * has not accepted yet. It then sets conn.unsent and returns -EAGAIN from
 * further writes until those bytes are sent. */
struct http_transport {
	/* 0: end of the stream. -ESHUTDOWN: end the connection, after sending
	 * what was written so far. */
	ssize_t (*read)(struct conn *c, void *buf, size_t len);
	/* more: further bytes follow at once, so a short segment may be held
	 * back. With n 0: sends what is unsent. */
	ssize_t (*writev)(struct conn *c, const struct iovec *iov, int n,
			  bool more);
	/* NULL: the file is read and written instead. Returns 0 at the end of
	 * the file. */
	ssize_t (*sendfile)(struct conn *c, int fd, uint64_t off, size_t len);
	/* True if the transport has bytes to read although the socket has none.
	 * NULL: never. */
	bool (*pending)(const struct conn *c);
	/* Called when nothing will be written any more. */
	void (*shut_wr)(struct conn *c);
	/* Closes the descriptor. reset: sends RST and drops unsent bytes. */
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

/* The reasons for which a connection is in server.later. */
enum conn_later {
	LATER_CALL = 1,	 /* to call sent() or gone(), or to be freed */
	LATER_RUN = 2,	 /* to parse buffered bytes, which may hold a request */
	LATER_FLUSH = 4, /* to send a head that came without body bytes */
	LATER_READ = 8,	 /* to read bytes that the transport has */
};

/* A string made for a request and freed with it. */
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
	struct buf fields;  /* header lines of http_header_add() */
	uint64_t called_ns; /* when the handler was called; 0: it was not */
	int status;
	uint64_t promised; /* body bytes that http_begin() promised and that
			      were not written yet */
	bool begun;	   /* the head was built */
	bool chunked;	   /* the answer is chunked */
	bool chunk_open;   /* a chunk's closing CR LF is still to be sent */
	bool until_close;  /* the length is unknown, and HTTP/1.0 has no chunks
			    */
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
	struct tls_session *tls; /* NULL without TLS, and once closed */
	char *tls_name;		 /* NULL before the handshake is complete */
	bool tls_reported; /* the failed handshake was counted and logged */
	bool unsent; /* the transport has bytes that the socket has not accepted
		      */
	struct sockaddr_storage addr;
	http_handler *handler;
	void *handler_arg;
	struct places *places; /* the listener's */
	struct place place;

	enum conn_state state; /* set by conn_set_state() */
	uint64_t deadline_ms;  /* 0: none */
	bool held;	       /* a handler owns rq */
	bool closed;	       /* libuv has closed poll */
	bool keep;	       /* another request may follow */
	bool unread;	       /* a part of this request was not read */
	bool fin;	       /* the client has closed its half */
	bool head_timed;       /* deadline_ms is that of a head */
	bool running;	       /* inside conn_run() */

	/* Bytes that were read and not consumed. The head of a request stays at
	 * the front until the request ends. */
	char *in;
	size_t in_len, in_cap;
	size_t in_pos;	/* how far http_head_find() has looked; from run_head()
			   on the head's length */
	size_t in_used; /* bytes at the front that belong to the request */

	/* The body of the request; it lies in `in` if it came whole with its
	 * head. */
	char *body;
	size_t body_len, body_cap;
	const char *body_data;
	struct http_chunked chunks;
	size_t linger_left;

	/* Output, in this order: own bytes, then bytes or a file that the
	 * handler lent. */
	struct buf out;
	size_t out_pos;
	const char *lent;
	size_t lent_len;
	int file;
	uint64_t file_off, file_len;
	bool progress; /* something was sent since the deadline was set */
	bool writing;  /* a handler's write is not complete */
	int sent_r;    /* result of the write, for sent() */
	http_sent_cb *sent;

	struct http_strs strs;
	struct http_req rq;
};

struct http_listener {
	struct http_server *server;
	struct list node;
	uv_poll_t poll;
	int fd;
	struct places *places;	/* shared by all addresses of its name */
	struct tls_server *tls; /* NULL without TLS */
	bool paused;		/* out of descriptors */
	http_handler *handler;
	void *arg;
	char *unix_path; /* NULL for TCP */
	dev_t unix_dev;
	ino_t unix_ino;
};

/* Files up to this size are sent with their head in one call. */
#define HTTP_SMALL_FILE (16U << 10)

struct http_server {
	uv_loop_t *uv;
	struct http_server_config cfg; /* defaults filled in; name unused */
	char *name;
	struct list listeners, conns, later;
	struct list places;
	uint32_t n_conns;
	unsigned int depth; /* number of server callbacks on the stack */
	uv_idle_t turn;	    /* active while `later` is not empty */
	uv_timer_t sweep;   /* active while a timeout is pending */
	unsigned int open_handles;
	bool stopping, closing, stopped;
	uint64_t cut_ms; /* when stopping: the time at which connections are
			    closed */
	void (*done)(void *arg);
	void *done_arg;
	struct log_limit emfile_log, crowd_log, tls_log;
	char date[48]; /* "Date: …\r\n" of date_s */
	uint64_t date_s;
	char scratch[HTTP_SMALL_FILE + 4096];
};

/* ---- server.c ---- */

void http_server_enter(struct http_server *s);
/* Every libuv callback of the server runs between enter and leave. The
 * outermost leave runs server.later. */
void http_server_leave(struct http_server *s);
/* To be called after adding to server.later. */
void http_server_wake(struct http_server *s);
/* To be called after freeing a connection or a listener. */
void http_server_check_stopped(struct http_server *s);

/* ---- conn.c ---- */

/* Makes a connection of an accepted socket. Owns fd, also on failure. -EAGAIN:
 * no place is left. */
int conn_new(struct http_listener *l, int fd,
	     const struct sockaddr_storage *addr);
void conn_set_state(struct conn *c, enum conn_state state);
void conn_close(struct conn *c, bool reset);
/* Ends a connection whose answer is not whole; see http_abort(). */
void conn_end_short(struct conn *c);
void conn_later(struct conn *c, unsigned int what);
void conn_do_later(struct conn *c);
void conn_timeout(struct conn *c);
/* Sends as much as the socket accepts, then continues with the next state. */
void conn_kick(struct conn *c);
/* The same, unless the loop waits for the socket to become writable. */
void conn_kick_unless_armed(struct conn *c);
/* The handler has ended the request. */
void conn_unhold(struct conn *c);

/* ---- plain.c ---- */

/* Formats the client's address: "127.0.0.1:1234" or "unix". Returns out. */
#define HTTP_ADDR_SIZE (INET6_ADDRSTRLEN + 16)
char *conn_addr(const struct conn *c, char out[HTTP_ADDR_SIZE]);

/* ---- tls-conn.c ---- */

/* Makes the new connection c use TLS. -ENOMEM. */
int conn_use_tls(struct conn *c, struct tls_server *tls);
void conn_tls_metrics(void);

static inline struct conn *req_conn(const struct http_req *rq)
{
	return container_of(rq, struct conn, rq);
}

#endif
