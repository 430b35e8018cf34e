/* The transport of connections without TLS, and their addresses. */
#include <arpa/inet.h>
#include <errno.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "http/server-private.h"

static ssize_t plain_read(struct conn *c, void *buf, size_t len)
{
	ssize_t n;

	do {
		n = recv(c->fd, buf, len, 0);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static ssize_t plain_writev(struct conn *c, const struct iovec *iov, int n,
			    bool more)
{
	struct msghdr m = {.msg_iov = (struct iovec *)iov,
			   .msg_iovlen = (size_t)n};
	ssize_t r;

	do {
		r = sendmsg(c->fd, &m, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static ssize_t plain_sendfile(struct conn *c, int fd, uint64_t off, size_t len)
{
	off_t at = (off_t)off;
	ssize_t n;

	do {
		n = sendfile(c->fd, fd, &at, len);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void plain_shut_wr(struct conn *c)
{
	(void)shutdown(c->fd, SHUT_WR);
}

static void plain_close(struct conn *c, bool reset)
{
	struct linger l = {.l_onoff = 1, .l_linger = 0};
	char drop[4096];

	if (reset)
		(void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	/* Unread input would reset the connection too. */
	for (int i = 0; !reset && i < 16; i++)
		if (recv(c->fd, drop, sizeof(drop), MSG_DONTWAIT) <= 0)
			break;
	(void)close(c->fd);
}

char *conn_addr(const struct conn *c, char out[HTTP_ADDR_SIZE])
{
	const struct sockaddr_in6 *a6 = (const void *)&c->addr;
	const struct sockaddr_in *a4 = (const void *)&c->addr;
	char host[INET6_ADDRSTRLEN] = "unknown";
	const void *ip = &a4->sin_addr;
	bool v6 = c->addr.ss_family == AF_INET6;

	if (c->addr.ss_family != AF_INET && !v6) {
		(void)snprintf(out, HTTP_ADDR_SIZE, "unix");
		return out;
	}
	if (v6 && IN6_IS_ADDR_V4MAPPED(&a6->sin6_addr)) {
		ip = &a6->sin6_addr.s6_addr[12];
		v6 = false;
	} else if (v6) {
		ip = &a6->sin6_addr;
	}
	(void)inet_ntop(v6 ? AF_INET6 : AF_INET, ip, host, sizeof(host));
	/* The port is at the same offset in both structs. */
	(void)snprintf(out, HTTP_ADDR_SIZE, v6 ? "[%s]:%u" : "%s:%u", host,
		       (unsigned int)ntohs(a4->sin_port));
	return out;
}

const struct http_transport http_plain = {
	.read = plain_read,
	.writev = plain_writev,
	.sendfile = plain_sendfile,
	.shut_wr = plain_shut_wr,
	.close = plain_close,
};
