/* Against `openssl s_server -www`, with certificates made by the openssl
 * command. */
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "tests/unit/http-rig.h"
#include "tests/unit/scratch.h"

extern char **environ;

static char dir[] = "/tmp/test-http-tls-XXXXXX";

static const char *file(const char *name)
{
	return path_below(dir, name);
}

static bool sh(const char *script)
{
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)script, dir, NULL};
	pid_t pid;
	int status;

	return posix_spawnp(&pid, "sh", NULL, NULL, argv, environ) == 0 &&
	       waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	       WEXITSTATUS(status) == 0;
}

/* Two authorities; a server's certificate for 127.0.0.1, one for another name,
 * one that has expired, and a client's. */
static const char make_keys[] =
	"set -e; cd \"$0\"; exec >log 2>&1\n"
	"ca() { openssl req -x509 -newkey ec -pkeyopt "
	"ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.crt -days 2 "
	"-subj /CN=$1 -addext basicConstraints=critical,CA:TRUE; }\n"
	"cert() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
	"-nodes -keyout $1.key -out $1.csr -subj /CN=$1\n"
	"printf 'subjectAltName=%s\\n' $3 >ext\n"
	"openssl x509 -req -in $1.csr -CA $2.crt -CAkey $2.key "
	"-CAcreateserial -out $1.crt -days 2 -extfile ext; }\n"
	"ca ca; ca other\n"
	"cert server ca IP:127.0.0.1\n"
	"cert elsewhere ca DNS:elsewhere.test\n"
	"cert client ca DNS:client.test\n"
	"cert stranger other DNS:client.test\n"
	/* Only "openssl ca" accepts past dates in every version. */
	"cert expired ca IP:127.0.0.1\n"
	"printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=db\\nserial=serial\\n"
	"new_certs_dir=.\\npolicy=p\\n[p]\\ncommonName=supplied\\n' >cnf\n"
	": >db; echo 01 >serial\n"
	"openssl ca -batch -config cnf -md sha256 -cert ca.crt -keyfile ca.key "
	"-in expired.csr -out expired.crt -extfile ext "
	"-startdate 20200101000000Z -enddate 20200102000000Z\n";

struct tls_server {
	pid_t pid;
	char url[64];
};

/* s_server prints "ACCEPT 127.0.0.1:PORT" once it listens. */
static void tls_server_start(struct tls_server *s, const char *cert,
			     bool client_certificate)
{
	char script[512], line[256], *port;
	char *argv[] = {(char *)"sh", (char *)"-c", script, dir, NULL};
	posix_spawn_file_actions_t fa;
	int fds[2];
	FILE *out;

	(void)snprintf(script, sizeof(script),
		       "cd \"$0\" && exec openssl s_server -www -accept "
		       "127.0.0.1:0 -cert %s.crt -key %s.key %s </dev/null "
		       "2>/dev/null",
		       cert, cert,
		       client_certificate ? "-Verify 1 -verify_return_error "
					    "-CAfile ca.crt"
					  : "");
	if (pipe(fds) < 0)
		BAIL("pipe");
	(void)posix_spawn_file_actions_init(&fa);
	(void)posix_spawn_file_actions_adddup2(&fa, fds[1], 1);
	(void)posix_spawn_file_actions_addclose(&fa, fds[0]);
	(void)posix_spawn_file_actions_addclose(&fa, fds[1]);
	if (posix_spawnp(&s->pid, "sh", &fa, NULL, argv, environ) != 0)
		BAIL("cannot start openssl");
	(void)posix_spawn_file_actions_destroy(&fa);
	(void)close(fds[1]);
	out = fdopen(fds[0], "r");
	do {
		if (!fgets(line, sizeof(line), out))
			BAIL("openssl s_server does not listen");
	} while (strncmp(line, "ACCEPT ", 7) != 0);
	(void)fclose(out);
	port = strrchr(line, ':');
	(void)snprintf(s->url, sizeof(s->url), "https://127.0.0.1:%d/",
		       (int)strtol(port + 1, NULL, 10));
}

static void tls_server_stop(struct tls_server *s)
{
	(void)kill(s->pid, SIGKILL);
	(void)waitpid(s->pid, NULL, 0);
}

/* One exchange with a client of its own. */
static int fetch_with(const char *url, struct http_request rq)
{
	struct fetch f = {0};
	struct rig rig;

	rig_init(&rig);
	rq.url = url;
	fetch_rq(&rig, &f, &rq);
	if (f.r == 0) {
		EQ(f.status, 200);
		OK(f.len > 0);
	} else {
		OK(f.why[0] != '\0');
		EQ(f.heads, 0);
	}
	rig_release(&rig);
	fetch_release(&f);
	return f.r;
}

static void test_trust(void)
{
	struct tls_server s;
	struct http_request nothing = {0};
	struct http_request ca = {.ca_file = file("ca.crt")};
	struct http_request ca_only = {.ca_file = file("ca.crt"),
				       .ca_only = true};
	struct http_request other = {.ca_file = file("other.crt")};
	struct http_request other_only = {.ca_file = file("other.crt"),
					  .ca_only = true};
	struct http_request missing = {.ca_file = file("missing.crt")};

	tls_server_start(&s, "server", false);
	EQ(fetch_with(s.url, ca), 0);
	EQ(fetch_with(s.url, ca_only), 0);
	OK(fetch_with(s.url, nothing) < 0); /* or no system store at all */
	EQ(fetch_with(s.url, other), -EKEYREJECTED);
	EQ(fetch_with(s.url, other_only), -EKEYREJECTED);
	EQ(fetch_with(s.url, missing), -EIO);
	tls_server_stop(&s);
}

static void test_wrong_name(void)
{
	struct tls_server s;
	struct http_request ca = {.ca_file = file("ca.crt"), .ca_only = true};

	tls_server_start(&s, "elsewhere", false);
	EQ(fetch_with(s.url, ca), -EKEYREJECTED);
	tls_server_stop(&s);
}

static void test_expired(void)
{
	struct tls_server s;
	struct http_request ca = {.ca_file = file("ca.crt"), .ca_only = true};

	tls_server_start(&s, "expired", false);
	EQ(fetch_with(s.url, ca), -EKEYREJECTED);
	tls_server_stop(&s);
}

static void test_client_certificate(void)
{
	struct tls_server s;
	struct http_request rq = {.ca_file = file("ca.crt"), .ca_only = true};

	tls_server_start(&s, "server", true);
	EQ(fetch_with(s.url, rq), -EKEYREJECTED);
	rq.cert_file = file("client.crt");
	rq.key_file = file("client.key");
	EQ(fetch_with(s.url, rq), 0);
	rq.cert_file = file("stranger.crt");
	rq.key_file = file("stranger.key");
	EQ(fetch_with(s.url, rq), -EKEYREJECTED);
	rq.cert_file = file("missing.crt");
	EQ(fetch_with(s.url, rq), -EIO);
	tls_server_stop(&s);
}

/* A connection made with one kind of trust is not used with another. */
static void test_trust_is_not_shared(void)
{
	struct tls_server s;
	struct http_request rq = {.ca_file = file("ca.crt")};
	struct fetch f = {0}, g = {0}, h = {0};
	struct rig rig;

	tls_server_start(&s, "server", false);
	rig_init(&rig);
	rq.url = s.url;
	fetch_rq(&rig, &f, &rq);
	EQ(f.r, 0);
	rq.ca_file = file("other.crt");
	fetch_rq(&rig, &g, &rq);
	EQ(g.r, -EKEYREJECTED);
	rq.ca_file = NULL;
	fetch_rq(&rig, &h, &rq);
	OK(h.r < 0);
	rig_release(&rig);
	tls_server_stop(&s);
	fetch_release(&f);
}

static void say_http(struct server *s, int fd, int nth)
{
	(void)s;
	(void)nth;
	(void)server_say(fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
	server_stall(fd);
}

static void test_not_tls(void)
{
	static struct server s;
	struct http_request rq = {.ca_file = file("ca.crt"), .ca_only = true};
	char url[80];

	server_start(&s, say_http);
	(void)snprintf(url, sizeof(url), "https%.60s", s.url + 4);
	EQ(fetch_with(url, rq), -EPROTO);
	server_stop(&s);
}

static void close_at_once(struct server *s, int fd, int nth)
{
	(void)s;
	if (nth % 2)
		server_will_reset(fd);
}

static void test_closed_in_handshake(void)
{
	static struct server s;
	struct http_request rq = {.ca_file = file("ca.crt"), .ca_only = true};
	char url[80];

	server_start(&s, close_at_once);
	(void)snprintf(url, sizeof(url), "https%.60s", s.url + 4);
	EQ(fetch_with(url, rq), -ECONNRESET);
	EQ(fetch_with(url, rq), -ECONNRESET);
	server_stop(&s);
}

int main(void)
{
	rig_environment();
	if (!mkdtemp(dir))
		BAIL("mkdtemp");
	if (!sh(make_keys))
		BAIL("the openssl command cannot make certificates");
	RUN(test_trust);
	RUN(test_wrong_name);
	RUN(test_expired);
	RUN(test_client_certificate);
	RUN(test_trust_is_not_shared);
	RUN(test_not_tls);
	RUN(test_closed_in_handshake);
	remove_tree(dir);
	return tap_done();
}
