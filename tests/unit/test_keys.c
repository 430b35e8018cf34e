/* The certificates that `peerd keys` makes, and that command. */
#include "daemon/keys.c"

/* cmd/ is no part of the library that tests are linked with. */
#include "cmd/cli.c"
#include "cmd/keys.c"

#include <dirent.h>

#include "tests/unit/scratch.h"
#include "tests/unit/tap.h"

#define DAYS(s) ((double)(s) / 86400)

static char dir[64];

static const char *at(const char *name)
{
	return path_below(dir, name);
}

static void clear(void)
{
	remove_tree(dir);
}

static void make_dir(void)
{
	(void)snprintf(dir, sizeof(dir), "%s/peerd-keys-XXXXXX",
		       getenv("TMPDIR") && strlen(getenv("TMPDIR")) < 32
			       ? getenv("TMPDIR")
			       : "/tmp");
	if (!mkdtemp(dir))
		BAIL("mkdtemp");
}

static int count_files(void)
{
	DIR *d = opendir(dir);
	const struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)))
		n += strcmp(e->d_name, ".") != 0 &&
		     strcmp(e->d_name, "..") != 0;
	if (d)
		(void)closedir(d);
	return n;
}

static int mode_of(const char *name)
{
	struct stat st;

	return stat(at(name), &st) == 0 ? (int)(st.st_mode & 07777) : -1;
}

static ino_t inode_of(const char *name)
{
	struct stat st;

	return stat(at(name), &st) == 0 ? st.st_ino : 0;
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(at(name), "w");

	OK(f && fputs(text, f) >= 0);
	if (f)
		(void)fclose(f);
}

static X509 *cert(const char *name)
{
	FILE *f = fopen(at(name), "r");
	X509 *x = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;

	if (f)
		(void)fclose(f);
	if (!x)
		BAIL("no certificate");
	return x;
}

static EVP_PKEY *private_key(const char *name)
{
	FILE *f = fopen(at(name), "r");
	EVP_PKEY *k =
		f ? PEM_read_PrivateKey(f, NULL, no_passphrase, NULL) : NULL;

	if (f)
		(void)fclose(f);
	if (!k)
		BAIL("no key");
	return k;
}

static double days_from_now(const ASN1_TIME *t)
{
	struct tm tm;

	EQ(ASN1_TIME_to_tm(t, &tm), 1);
	return DAYS(difftime(timegm(&tm), time(NULL)));
}

/* X509_V_OK, or the error for this purpose. */
static int verify(const char *name, const char *use)
{
	CLEANUP(x509_freep) X509 *ca = cert("ca.crt"), *x = cert(name);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *v = X509_STORE_CTX_new();
	int r;

	(void)X509_STORE_add_cert(store, ca);
	(void)X509_STORE_set_flags(store, X509_V_FLAG_X509_STRICT);
	EQ(X509_STORE_CTX_init(v, store, x, NULL), 1);
	EQ(X509_STORE_CTX_set_default(v, use), 1);
	r = X509_verify_cert(v) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(v);
	X509_STORE_CTX_free(v);
	X509_STORE_free(store);
	return r;
}

static void common_name(const char *name, char out[80])
{
	CLEANUP(x509_freep) X509 *x = cert(name);

	out[0] = '\0';
	(void)X509_NAME_get_text_by_NID(X509_get_subject_name(x),
					NID_commonName, out, 80);
}

static int issue_node(const char *node, struct error *err)
{
	err->text[0] = '\0';
	return keys_issue(dir, node, KEYS_DAYS, NULL, err);
}

/* ---- The CA ---- */

static void test_init(void)
{
	struct error err = {""};
	mode_t old = umask(0);

	make_dir();
	EQ(keys_init(dir, &err), 0);
	(void)umask(old);
	EQ(count_files(), 2);
	EQ(mode_of("ca.key"), 0600);
	EQ(mode_of("ca.crt"), 0644);
	{
		CLEANUP(x509_freep) X509 *x = cert("ca.crt");
		CLEANUP(pkey_freep) EVP_PKEY *k = private_key("ca.key");
		double from = days_from_now(X509_get0_notBefore(x));
		double until = days_from_now(X509_get0_notAfter(x));

		EQ(X509_check_private_key(x, k), 1);
		EQ(X509_check_ca(x), 1);
		EQ(X509_get_pathlen(x), 0);
		EQ(X509_get_key_usage(x), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
		OK(from < -1.9 && from > -2.1);
		OK(until > 3649.9 && until < 3650.1);
	}
	EQ(verify("ca.crt", "ssl_server"), X509_V_ERR_INVALID_PURPOSE);
	clear();
}

static void test_init_makes_dir(void)
{
	struct error err = {""};
	char top[64];

	make_dir();
	memcpy(top, dir, sizeof(top));
	(void)snprintf(dir, sizeof(dir), "%.40s/new", top);
	EQ(keys_init(dir, &err), 0);
	EQ(mode_of("."), 0700);
	EQ(count_files(), 2);
	EQ(keys_init(at("a/b"), &err), -ENOENT);
	OK(strstr(err.text, "a/b"));
	EQ(keys_init(at("ca.crt"), &err), -ENOTDIR);
	memcpy(dir, top, sizeof(dir));
	clear();
}

static void test_init_never_overwrites(void)
{
	struct error err = {""};
	ino_t crt, key;

	make_dir();
	EQ(keys_init(dir, &err), 0);
	crt = inode_of("ca.crt");
	key = inode_of("ca.key");
	EQ(keys_init(dir, &err), -EEXIST);
	OK(strstr(err.text, dir));
	EQ(inode_of("ca.crt"), crt);
	EQ(inode_of("ca.key"), key);
	/* One of the two files counts as a CA. */
	EQ(unlink(at("ca.crt")), 0);
	EQ(keys_init(dir, &err), -EEXIST);
	EQ(inode_of("ca.key"), key);
	EQ(count_files(), 1);
	EQ(unlink(at("ca.key")), 0);
	EQ(symlink("/nonexistent", at("ca.crt")), 0);
	EQ(keys_init(dir, &err), -EEXIST);
	EQ(count_files(), 1);
	clear();
}

/* Two at once; the second checked before the first wrote. */
static void test_init_race(void)
{
	CLEANUP(pkey_freep) EVP_PKEY *k = EVP_EC_gen("P-256");
	CLEANUP(x509_freep) X509 *x = make_ca(k);
	CLEANUP(closep) int dirfd = -1;
	struct error err = {""};
	ino_t crt;

	make_dir();
	EQ(keys_init(dir, &err), 0);
	crt = inode_of("ca.crt");
	EQ(dir_open(dir, &dirfd, &err), 0);
	EQ(save_pair(dirfd, dir, "ca", x, k, false, &err), -EEXIST);
	EQ(inode_of("ca.crt"), crt);
	EQ(count_files(), 2);
	/* The key was new, the certificate existed: the key is removed again.
	 */
	EQ(unlink(at("ca.key")), 0);
	EQ(save_pair(dirfd, dir, "ca", x, k, false, &err), -EEXIST);
	OK(strstr(err.text, "ca.crt"));
	EQ(inode_of("ca.crt"), crt);
	EQ(count_files(), 1);
	clear();
}

/* ---- Nodes ---- */

static void test_issue(void)
{
	struct error err = {""};
	mode_t old = umask(0);
	time_t until = 0;
	char cn[80];

	make_dir();
	EQ(keys_init(dir, &err), 0);
	EQ(keys_issue(dir, "node-1.example", 30, &until, &err), 0);
	(void)umask(old);
	EQ(count_files(), 4);
	EQ(mode_of("node-1.example.key"), 0600);
	EQ(mode_of("node-1.example.crt"), 0644);
	EQ(verify("node-1.example.crt", "ssl_server"), X509_V_OK);
	EQ(verify("node-1.example.crt", "ssl_client"), X509_V_OK);
	OK(verify("node-1.example.crt", "smime_sign") != X509_V_OK);
	common_name("node-1.example.crt", cn);
	STREQ(cn, "node-1.example");
	{
		CLEANUP(x509_freep) X509 *x = cert("node-1.example.crt");
		CLEANUP(pkey_freep)
		EVP_PKEY *k = private_key("node-1.example.key");
		double from = days_from_now(X509_get0_notBefore(x));
		double end = days_from_now(X509_get0_notAfter(x));

		EQ(X509_check_private_key(x, k), 1);
		EQ(X509_check_ca(x), 0);
		EQ(X509_get_extended_key_usage(x),
		   XKU_SSL_SERVER | XKU_SSL_CLIENT);
		EQ(X509_check_host(x, "node-1.example", 0, 0, NULL), 1);
		OK(from < -1.9 && from > -2.1);
		OK(end > 29.9 && end < 30.1);
		OK(DAYS(difftime(until, time(NULL))) > 29.9);
	}
	clear();
}

/* The alternative names of a certificate. */
static void test_alt_names(void)
{
	static const struct {
		const char *node;
		int type; /* -1: there is none */
	} cases[] = {
		{"n1", GEN_DNS},	 {"a.b-c.d", GEN_DNS},
		{"10.0.0.1", GEN_IPADD}, {"fd00::1", GEN_IPADD},
		{"under_score", -1},	 {"-dash", -1},
		{"two words", -1},	 {"dot.", -1},
		{"dots..in", -1},	 {"n,DNS:evil", -1},
		{"n\xc3\xb6rdlich", -1}, {"a@section", -1},
		{"DNS:x", -1},		 {"cA", GEN_DNS},
		{"copy:always", -1},
	};
	struct error err = {""};

	make_dir();
	EQ(keys_init(dir, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char file[80], cn[80];
		GENERAL_NAMES *names;
		X509 *x;

		EQ(issue_node(cases[i].node, &err), 0);
		(void)snprintf(file, sizeof(file), "%s.crt", cases[i].node);
		x = cert(file);
		common_name(file, cn);
		STREQ(cn, cases[i].node);
		names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
		EQ(names != NULL, cases[i].type >= 0);
		if (names) {
			EQ(sk_GENERAL_NAME_num(names), 1);
			EQ(sk_GENERAL_NAME_value(names, 0)->type,
			   cases[i].type);
		}
		EQ(verify(file, "ssl_client"), X509_V_OK);
		GENERAL_NAMES_free(names);
		X509_free(x);
	}
	clear();
}

static void test_bad_names(void)
{
	static const char *const names[] = {
		"",	   ".",		"..",	   ".hidden", "a/b",
		"/etc/n",  "../n",	"a\nb",	   "a\x7f",   "a\tb",
		"\x1b[2J", "a\xc2\x85", "bad\xff", "\xc3",    "ca",
	};
	char name[KEYS_MAX_NODE_NAME + 2];
	struct error err = {""};

	make_dir();
	EQ(keys_init(dir, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		EQ(issue_node(names[i], &err), -EINVAL);
		OK(strstr(err.text, "name"));
	}
	memset(name, 'x', sizeof(name));
	name[KEYS_MAX_NODE_NAME + 1] = '\0';
	EQ(issue_node(name, &err), -EINVAL);
	EQ(count_files(), 2);
	name[KEYS_MAX_NODE_NAME] = '\0';
	EQ(issue_node(name, &err), 0);
	EQ(count_files(), 4);
	EQ(keys_issue(dir, "n", 0, NULL, &err), -EINVAL);
	EQ(keys_issue(dir, "n", KEYS_CA_DAYS + 1, NULL, &err), -EINVAL);
	EQ(count_files(), 4);
	clear();
}

static void test_renewal(void)
{
	struct error err = {""};
	ino_t key, crt;

	make_dir();
	EQ(keys_init(dir, &err), 0);
	EQ(issue_node("n", &err), 0);
	key = inode_of("n.key");
	crt = inode_of("n.crt");
	{
		CLEANUP(x509_freep) X509 *a = cert("n.crt");
		CLEANUP(x509_freep) X509 *b = NULL;
		CLEANUP(pkey_freep) EVP_PKEY *k = NULL;

		EQ(issue_node("n", &err), 0);
		b = cert("n.crt");
		k = private_key("n.key");
		EQ(X509_check_private_key(b, k), 1);
		EQ(X509_check_private_key(a, k), 0);
		OK(ASN1_INTEGER_cmp(X509_get0_serialNumber(a),
				    X509_get0_serialNumber(b)) != 0);
		OK(ASN1_STRING_length(X509_get0_serialNumber(a)) > 8);
	}
	OK(inode_of("n.key") != key);
	OK(inode_of("n.crt") != crt);
	EQ(count_files(), 4);
	clear();
}

/* A CA with 30 days left issues for at most 30 days. */
static void test_end_of_ca(void)
{
	CLEANUP(x509_freep) X509 *ca = NULL;
	CLEANUP(pkey_freep) EVP_PKEY *k = NULL;
	struct error err = {""};
	time_t until = 0;
	FILE *f;

	make_dir();
	EQ(keys_init(dir, &err), 0);
	ca = cert("ca.crt");
	k = private_key("ca.key");
	for (int days = 30; days >= -1; days -= 31) {
		(void)X509_gmtime_adj(X509_getm_notAfter(ca), days * DAY_S);
		OK(X509_sign(ca, k, EVP_sha256()) > 0);
		f = fopen(at("ca.crt"), "w");
		EQ(PEM_write_X509(f, ca), 1);
		(void)fclose(f);
		EQ(keys_issue(dir, "n", 365, &until, &err),
		   days > 0 ? 0 : -EKEYREJECTED);
		if (days > 0)
			OK(DAYS(difftime(until, time(NULL))) < 30.1);
		else
			OK(strstr(err.text, "expired"));
	}
	clear();
}

static void test_bad_ca(void)
{
	struct error err = {""};
	char text[] = "-----BEGIN CERTIFICATE-----\nAAAA\n"
		      "-----END CERTIFICATE-----\n";

	make_dir();
	EQ(issue_node("n", &err), -ENOENT);
	OK(strstr(err.text, "keys init"));
	EQ(keys_issue("/nonexistent/dir", "n", 1, NULL, &err), -ENOENT);
	EQ(keys_init(dir, &err), 0);
	EQ(rename(at("ca.key"), at("saved")), 0);
	EQ(issue_node("n", &err), -ENOENT);
	OK(strstr(err.text, "ca.key"));
	put("ca.key", "hello\n");
	EQ(issue_node("n", &err), -EBADMSG);
	EQ(unlink(at("ca.key")), 0);
	EQ(issue_node("n", &err), -ENOENT);
	EQ(rename(at("saved"), at("ca.key")), 0);
	EQ(issue_node("n", &err), 0);
	/* A renewed certificate has another key. */
	EQ(rename(at("n.key"), at("ca.key")), 0);
	EQ(issue_node("n", &err), -EKEYREJECTED);
	put("ca.crt", text);
	EQ(issue_node("n", &err), -EBADMSG);
	put("ca.crt", "");
	EQ(issue_node("n", &err), -EBADMSG);
	EQ(ERR_peek_error(), 0);
	clear();
}

/* A CA that somebody made with other tools. */
static void test_foreign_ca(void)
{
	CLEANUP(pkey_freep) EVP_PKEY *k = NULL;
	CLEANUP(x509_freep) X509 *x = NULL;
	CLEANUP(closep) int dirfd = -1;
	struct error err = {""};

	make_dir();
	k = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	x = new_cert(k, time(NULL) + 100 * DAY_S);
	OK(set_name(x, "other") &&
	   X509_set_issuer_name(x, X509_get_subject_name(x)) == 1 &&
	   add_extension(x, x, NID_basic_constraints, "critical,CA:TRUE") &&
	   X509_sign(x, k, NULL) > 0);
	EQ(dir_open(dir, &dirfd, &err), 0);
	EQ(save_pair(dirfd, dir, "ca", x, k, false, &err), 0);
	EQ(issue_node("n", &err), 0);
	{
		CLEANUP(x509_freep) X509 *n = cert("n.crt");

		EQ(X509_verify(n, k), 1);
	}
	clear();
}

/* ---- The command ---- */

static int command(const char *a, const char *b, const char *c, const char *d,
		   const char *e)
{
	static const struct command keys = {"keys", " init|issue", "", "",
					    cmd_keys};
	const char *const from[] = {"keys", a, b, c, d, e};
	char *argv[ARRAY_SIZE(from) + 1] = {0};
	int argc = 0, status;

	while (argc < (int)ARRAY_SIZE(from) && from[argc]) {
		argv[argc] = strdup(from[argc]);
		argc++;
	}
	status = cmd_keys(&keys, argc, argv);
	for (int i = 0; i < argc; i++)
		free(argv[i]);
	return status;
}

static void test_command(void)
{
	make_dir();
	EQ(command(NULL, NULL, NULL, NULL, NULL), 2);
	EQ(command("--help", NULL, NULL, NULL, NULL), 0);
	EQ(command("init", NULL, NULL, NULL, NULL), 2);
	EQ(command("revoke", "--dir", dir, NULL, NULL), 2);
	EQ(command("init", "--dir", dir, "n", NULL), 2);
	EQ(command("issue", "--dir", dir, "n", NULL), 1);
	EQ(command("init", "--dir", dir, NULL, NULL), 0);
	EQ(command("init", "--dir", dir, NULL, NULL), 1);
	EQ(command("issue", "--dir", dir, NULL, NULL), 2);
	EQ(command("issue", "--dir", dir, "a", "b"), 2);
	EQ(command("issue", "--dir", dir, "a/b", NULL), 1);
	EQ(command("issue", "--dir", dir, "n", "--days=0"), 2);
	EQ(command("issue", "--dir", dir, "n", "--days=9999"), 2);
	EQ(command("issue", "n", "--dir", dir, "--days=7"), 0);
	EQ(count_files(), 4);
	{
		CLEANUP(x509_freep) X509 *x = cert("n.crt");
		double end = days_from_now(X509_get0_notAfter(x));

		OK(end > 6.9 && end < 7.1);
	}
	clear();
}

int main(void)
{
	(void)unsetenv("PEERD_DIR");
	(void)unsetenv("PEERD_DAYS");
	RUN(test_init);
	RUN(test_init_makes_dir);
	RUN(test_init_never_overwrites);
	RUN(test_init_race);
	RUN(test_issue);
	RUN(test_alt_names);
	RUN(test_bad_names);
	RUN(test_renewal);
	RUN(test_end_of_ca);
	RUN(test_bad_ca);
	RUN(test_foreign_ca);
	RUN(test_command);
	return tap_done();
}
