/* delayd FILE DIGEST DELAY_MS PORT_FILE: a distant registry. It serves FILE as
 * the blob DIGEST of any repository (and at any other path), with ranges, and
 * waits DELAY_MS before each reply. HTTP/1.1 with keep-alive, one thread per
 * connection, on a port of 127.0.0.1 that it writes to PORT_FILE. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

static const char *digest;
static long delay_ms;
static int file;
static uint64_t file_size;

struct request {
	bool head;
	bool ping; /* GET /v2/ */
	bool ranged;
	uint64_t first, last;
};

/* Reads a request's head into buf. False if the client is gone. */
static bool read_head(int fd, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = '\0';
	while (!strstr(buf, "\r\n\r\n")) {
		ssize_t r;

		if (n + 1 >= size)
			return false;
		r = recv(fd, buf + n, size - 1 - n, 0);
		if (r <= 0)
			return false;
		n += (size_t)r;
		buf[n] = '\0';
	}
	return true;
}

static struct request parse(const char *head)
{
	struct request rq = {.head = strncmp(head, "HEAD ", 5) == 0,
			     .last = file_size - 1};
	const char *range = strcasestr(head, "\r\nrange: bytes=");

	rq.ping = strncmp(head, "GET /v2/ ", 9) == 0;
	if (range) {
		char *end;

		rq.ranged = true;
		rq.first =
			strtoull(range + strlen("\r\nrange: bytes="), &end, 10);
		if (*end == '-' && end[1] >= '0' && end[1] <= '9')
			rq.last = strtoull(end + 1, NULL, 10);
		if (rq.last >= file_size)
			rq.last = file_size - 1;
	}
	return rq;
}

static bool send_all(int fd, const char *s, size_t n)
{
	while (n > 0) {
		ssize_t r = send(fd, s, n, MSG_NOSIGNAL | MSG_MORE);

		if (r <= 0)
			return false;
		s += r;
		n -= (size_t)r;
	}
	return true;
}

static bool send_body(int fd, uint64_t first, uint64_t last)
{
	off_t off = (off_t)first;

	while ((uint64_t)off <= last) {
		ssize_t r = sendfile(fd, file, &off,
				     (size_t)(last + 1 - (uint64_t)off));

		if (r <= 0)
			return false;
	}
	return true;
}

static bool answer(int fd, const struct request *rq)
{
	struct timespec t = {.tv_sec = delay_ms / 1000,
			     .tv_nsec = delay_ms % 1000 * 1000000};
	char head[512], range[128] = "";
	int off = 0, n;

	nanosleep(&t, NULL);
	if (rq->ping) {
		static const char ok[] = "HTTP/1.1 200 OK\r\n"
					 "Content-Length: 2\r\n\r\n{}";

		n = (int)sizeof(ok) - 1;
		memcpy(head, ok, sizeof(ok));
	} else if (rq->first > rq->last) {
		n = snprintf(head, sizeof(head),
			     "HTTP/1.1 416 Bad range\r\n"
			     "Content-Length: 0\r\n\r\n");
	} else {
		if (rq->ranged)
			snprintf(range, sizeof(range),
				 "Content-Range: bytes %" PRIu64 "-%" PRIu64
				 "/%" PRIu64 "\r\n",
				 rq->first, rq->last, file_size);
		n = snprintf(head, sizeof(head),
			     "HTTP/1.1 %s\r\nContent-Length: %" PRIu64
			     "\r\nAccept-Ranges: bytes\r\n%s"
			     "ETag: \"1\"\r\nDocker-Content-Digest: %s\r\n\r\n",
			     rq->ranged ? "206 Partial Content" : "200 OK",
			     rq->last + 1 - rq->first, range, digest);
	}
	if (!send_all(fd, head, (size_t)n))
		return false;
	if (!rq->head && !rq->ping && rq->first <= rq->last &&
	    !send_body(fd, rq->first, rq->last))
		return false;
	/* Sends the rest that MSG_MORE held back. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof(off));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	return true;
}

static void *serve(void *arg)
{
	CLEANUP(closep) int fd = (int)(intptr_t)arg;
	char head[16384];

	while (read_head(fd, head, sizeof(head))) {
		struct request rq = parse(head);

		if (!answer(fd, &rq))
			break;
	}
	return NULL;
}

static int listen_somewhere(const char *port_file)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FILE *f;

	if (fd == -1 || bind(fd, (struct sockaddr *)&a, len) == -1 ||
	    listen(fd, 128) == -1 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) == -1)
		return -1;
	f = fopen(port_file, "we");
	if (!f || fprintf(f, "%d\n", ntohs(a.sin_port)) < 0 || fclose(f) != 0)
		return -1;
	return fd;
}

int main(int argc, char **argv)
{
	struct stat st;
	int listener;

	if (argc != 5) {
		fprintf(stderr,
			"usage: delayd FILE DIGEST DELAY_MS PORT_FILE\n");
		return 2;
	}
	digest = argv[2];
	delay_ms = strtol(argv[3], NULL, 10);
	file = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (file == -1 || fstat(file, &st) == -1) {
		perror(argv[1]);
		return 1;
	}
	file_size = (uint64_t)st.st_size;
	listener = listen_somewhere(argv[4]);
	if (listener == -1) {
		perror("delayd");
		return 1;
	}
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		pthread_t thread;

		if (fd == -1)
			continue;
		if (pthread_create(&thread, NULL, serve,
				   (void *)(intptr_t)fd) == 0)
			pthread_detach(thread);
		else
			close(fd);
	}
}
