/* Addresses that the client must not connect to, whatever led there. */
#include <dlfcn.h>
#include <netdb.h>

#include "tests/unit/http-rig.h"

/* Before libc's: no test may ask a name server. */
int getaddrinfo(const char *node, const char *service,
		const struct addrinfo *hints, struct addrinfo **res)
{
	static __typeof__(getaddrinfo) *libc;
	struct addrinfo h = *hints;

	if (!libc)
		*(void **)&libc = dlsym(RTLD_NEXT, "getaddrinfo");
	h.ai_flags |= AI_NUMERICHOST;
	if (strcmp(node, "near.test") == 0)
		node = "127.0.0.1";
	return libc(node, service, &h, res);
}

/* The proxy's own address does not count, and that of what it is asked for
 * does, as far as it is known here. */
static void test_proxy_guard(void)
{
	static const char *const near[] = {"http://127.0.0.1:1/x",
					   "http://near.test:1/x",
					   "http://[::1]:1/x",
					   "http://169.254.169.254/x"};
	struct http_request rq = {.refuse = ADDR_HOST};
	struct bench b;

	bench_init(&b, say_hello);
	(void)setenv("http_proxy", b.server.url, 1);
	for (size_t i = 0; i < ARRAY_SIZE(near); i++) {
		struct fetch f = {0};

		rq.url = near[i];
		fetch_rq(&b.rig, &f, &rq);
		EQ(f.r, -EPERM);
		fetch_release(&f);
	}
	rq.url = "http://far.test/x";
	fetch_rq(&b.rig, &b.f, &rq);
	EQ(b.f.r, 0);
	OK(strncmp(b.server.request, "GET http://far.test/x ", 22) == 0);
	(void)unsetenv("http_proxy");
	bench_release(&b);
}

/* It is looked up when the exchange ends. */
static void test_proxy_guard_canceled(void)
{
	struct http_request rq = {.url = "http://far.test/x",
				  .refuse = ADDR_HOST};
	struct fetch f = {0};
	struct rig rig;

	rig_init(&rig);
	(void)setenv("http_proxy", "http://127.0.0.1:1", 1);
	fetch_start(&rig, &f, &rq);
	http_cancel(f.x);
	rig_run(&rig);
	EQ(f.r, -ECANCELED);
	EQ(f.dones, 1);
	(void)unsetenv("http_proxy");
	rig_release(&rig);
	fetch_release(&f);
}

static void test_guard(void)
{
	struct http_request rq = {.refuse = ADDR_HOST};
	struct fetch f[4] = {0};
	char named[64];
	struct bench b;

	bench_init(&b, say_hello);
	(void)snprintf(named, sizeof(named), "http://near.test%s",
		       strrchr(b.server.url, ':'));
	rq.url = named;
	fetch_rq(&b.rig, &f[0], &rq);
	EQ(f[0].r, -EPERM);
	rq.refuse = ADDR_LINK;
	fetch_rq(&b.rig, &f[1], &rq);
	EQ(f[1].r, 0);
	/* On the connection that the one before has made. */
	rq.refuse = ADDR_HOST;
	fetch_rq(&b.rig, &f[2], &rq);
	EQ(f[2].r, -EPERM);
	rq.refuse = ADDR_FAR;
	fetch_rq(&b.rig, &f[3], &rq);
	EQ(f[3].r, 0);
	for (size_t i = 0; i < ARRAY_SIZE(f); i++)
		fetch_release(&f[i]);
	bench_release(&b);
}

int main(void)
{
	rig_environment();
	RUN(test_proxy_guard);
	RUN(test_proxy_guard_canceled);
	RUN(test_guard);
	return tap_done();
}
