/* Members with certificates, for members-rig.h. */
#ifndef TESTS_MEMBERS_TLS_H
#define TESTS_MEMBERS_TLS_H

#include <dirent.h>

#include "tests/unit/members-rig.h"
#include "tests/unit/tls-certs.h"

static char dir[32];

static inline const char *file(const char *name)
{
	static char path[8][128];
	static unsigned int n;

	n = (n + 1) % ARRAY_SIZE(path);
	(void)snprintf(path[n], sizeof(path[n]), "%s/%s", dir, name);
	return path[n];
}

static inline struct tls_server *make_tls(const char *name,
					  const struct identity *ca, long from,
					  long until)
{
	struct identity id = make_identity((struct cert_spec){
		.cn = name, .ca = ca, .from = from, .until = until});
	struct tls_server *tls = NULL;
	struct error err = {""};
	char crt[160], key[160];

	(void)snprintf(crt, sizeof(crt), "%s/%s.crt", dir, name);
	(void)snprintf(key, sizeof(key), "%s/%s.key", dir, name);
	save_cert(crt, &id);
	save_key(key, &id, NULL);
	free_identity(&id);
	if (tls_server_new(file("ca.crt"), crt, key, &tls, &err) < 0)
		BAIL(err.text);
	return tls;
}

static inline void use_tls(struct subject *s, const char *cert, const char *key)
{
	s->cfg.ca_file = file("ca.crt");
	s->cfg.cert_file = cert;
	s->cfg.key_file = key;
}

/* First: a directory with the CA's certificate. */
static inline void make_files(const struct identity *ca)
{
	(void)snprintf(dir, sizeof(dir), "/tmp/test-members-XXXXXX");
	if (!mkdtemp(dir))
		BAIL("mkdtemp");
	save_cert(file("ca.crt"), ca);
}

static inline void remove_files(void)
{
	DIR *d = opendir(dir);
	const struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			(void)unlink(file(e->d_name));
	if (d)
		(void)closedir(d);
	EQ(rmdir(dir), 0);
}

#endif
