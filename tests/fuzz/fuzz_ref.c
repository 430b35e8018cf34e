/* References and names: the parts of an accepted one are valid, and its
 * canonical form reads back the same. Also challenges in headers and
 * credentials in config.json. */
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "registry/auth.h"
#include "base/ref.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct ref *r)
{
	CLEANUP(freep) char *s = NULL;
	char digest[DIGEST_STR_SIZE];
	struct ref again;

	if (asprintf(&s, "%s/%s%s%s%s%s", r->host, r->name, r->tag ? ":" : "",
		     r->tag ? r->tag : "", r->has_digest ? "@" : "",
		     r->has_digest ? digest_str(&r->digest, digest) : "") < 0)
		abort();
	BUG_ON(ref_parse(s, &again, NULL) != 0);
	BUG_ON(strcmp(again.host, r->host) != 0);
	BUG_ON(strcmp(again.name, r->name) != 0);
	BUG_ON(again.has_digest != r->has_digest);
	BUG_ON((again.tag != NULL) != (r->tag != NULL));
	BUG_ON(r->tag && strcmp(again.tag, r->tag) != 0);
	ref_release(&again);
}

static void fuzz_ref(const char *s)
{
	struct error err;
	struct ref r;

	if (ref_parse(s, &r, &err) < 0) {
		BUG_ON(strlen(err.text) >= sizeof(err.text));
		return;
	}
	BUG_ON(!ref_name_valid(r.name));
	BUG_ON(!r.tag && !r.has_digest);
	BUG_ON(r.tag && !ref_tag_valid(r.tag));
	BUG_ON(strstr(r.name, "..") || strstr(r.name, "//"));
	/* A host without a dot is recognised only by a port or as "localhost".
	 */
	if (strpbrk(r.host, ".:") || strcmp(r.host, "localhost") == 0)
		check_again(&r);
	BUG_ON(!ref_host_valid(r.host));
	ref_release(&r);
}

static void fuzz_auth(const char *s, size_t len)
{
	struct auth_config *c = NULL;
	struct auth_challenge ch;
	struct auth_token t;

	if (auth_challenge_parse(s, &ch) == 0) {
		BUG_ON(ch.scheme == AUTH_NONE);
		BUG_ON(ch.scheme == AUTH_BEARER && !ch.realm);
		auth_challenge_release(&ch);
	}
	if (auth_config_parse(s, len, &c, NULL) == 0) {
		(void)auth_config_find(c, "a", "b/c");
		auth_config_free(&c);
	}
	if (auth_token_parse(s, len, 0, &t, NULL) == 0) {
		BUG_ON(strpbrk(t.value, "\r\n "));
		auth_token_release(&t);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *s;

	if (size > 8192)
		return 0;
	s = strndup((const char *)data, size);
	if (!s)
		return 0;
	(void)ref_host_valid(s);
	(void)ref_component_valid(s);
	(void)ref_name_valid(s);
	(void)ref_tag_valid(s);
	fuzz_ref(s);
	fuzz_auth(s, strlen(s));
	free(s);
	return 0;
}
