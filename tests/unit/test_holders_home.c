/* p2p/holders.h as a home: its table's bounds, and requests from strangers. */
#include "tests/unit/holders-rig.h"

static void test_table_is_bounded(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(1 << 20);
	struct holders_stats st;

	settings.max_keys = 20;
	begin(3);
	for (unsigned int i = 0; i < 5; i++) {
		holds(&b, 1, i * 1000, 1000);
		EQ(post(&nodes[0], b.data), 204);
		holders_stats(nodes[0].holders, &st);
		EQ(st.keys, 20);
	}
	EQ(st.announcements_got, 5000);
	/* The last keys; n0 is a home of all of them. */
	{
		struct holder_key last = key_nr(4999), old = key_nr(4979);

		STREQ(find(&nodes[0], &last)->ids, "n1 ");
		EQ(finds[0].size, 4999);
		EQ(find(&nodes[0], &old)->n, 0);
	}
	/* A key that is announced again becomes the newest. */
	holds(&b, 2, 4980, 1);
	EQ(post(&nodes[0], b.data), 204);
	holds(&b, 2, 0, 19);
	EQ(post(&nodes[0], b.data), 204);
	{
		struct holder_key again = key_nr(4980), old = key_nr(4981);

		EQ(find(&nodes[0], &again)->n, 2);
		EQ(find(&nodes[0], &old)->n, 0);
	}
	end();
}

static unsigned int count(const char *s, char c)
{
	unsigned int n = 0;

	for (; *s; s++)
		n += *s == c;
	return n;
}

static bool n19_is_gone(void)
{
	return members_find(nodes[0].members, "n19") == NULL ||
	       members_find(nodes[0].members, "n19")->state == MEMBER_GONE;
}

static void test_holders_of_a_key_are_bounded(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(1 << 20);
	struct holder_key key = key_nr(7);
	char q[HOLDER_KEY_SIZE + 8] = "?key=";

	begin(20);
	(void)holder_key_str(&key, q + 5);
	for (int i = 19; i > 0; i--) {
		holds(&b, i, 7, 1);
		EQ(post(&nodes[0], b.data), 204);
		EQ(post(&nodes[0], b.data), 204);
	}
	EQ(ask(&nodes[0], "GET", q, NULL, 0), 200);
	/* Two quotes each, and those of the two names. */
	EQ(count(reply.body.data, '"'), 2 * HOLDERS_PER_KEY + 4);
	OK(strstr(reply.body.data, "\"n19\""));
	OK(!strstr(reply.body.data, "\"n3\""));
	/* A member that is gone is not named, and others take its place. */
	node_kill(&nodes[19]);
	OK(run_until(n19_is_gone));
	EQ(ask(&nodes[0], "GET", q, NULL, 0), 200);
	EQ(count(reply.body.data, '"'), 2 * HOLDERS_PER_KEY + 2);
	OK(!strstr(reply.body.data, "\"n19\""));
	holds(&b, 3, 7, 1);
	EQ(post(&nodes[0], b.data), 204);
	EQ(ask(&nodes[0], "GET", q, NULL, 0), 200);
	EQ(count(reply.body.data, '"'), 2 * HOLDERS_PER_KEY + 4);
	OK(strstr(reply.body.data, "\"n3\""));
	end();
}

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_bad_announcements(void)
{
	static const struct {
		const char *body;
		int status;
	} bad[] = {
		{"", 400},
		{"x", 400},
		{"[]", 400},
		{"{}", 400},
		{"null", 400},
		{"{\"id\":\"n1\"}", 400},
		{"{\"id\":1,\"holds\":[]}", 400},
		{"{\"id\":\"n1\",\"holds\":{}}", 400},
		{"{\"id\":\"n1\",\"holds\":[1]}", 400},
		{"{\"id\":\"n1\",\"holds\":[[]]}", 400},
		{"{\"id\":\"n1\",\"holds\":[[\"sha256:" HEX "\"]]}", 400},
		{"{\"id\":\"n1\",\"holds\":[[\"sha256:" HEX "\",1,2]]}", 400},
		{"{\"id\":\"n1\",\"holds\":[[\"sha256:" HEX "\",-1]]}", 400},
		{"{\"id\":\"n1\",\"holds\":[[\"sha256:" HEX "\",1.5]]}", 400},
		{"{\"id\":\"n1\",\"holds\":[[\"sha256:" HEX "\",\"1\"]]}", 400},
		{"{\"id\":\"n1\",\"holds\":[[\"sha256:" HEX
		 "\",17592186044417]]}",
		 400},
		{"{\"id\":\"n1\",\"holds\":[[\"sha512:" HEX "\",1]]}", 400},
		{"{\"id\":\"n1\",\"holds\":[[\"" HEX "\",1]]}", 400},
		{"{\"id\":\"n1\",\"holds\":[[\"sha256:" HEX "0\",1]]}", 400},
		{"{\"id\":\"n1\",\"holds\":[[\"sha256:X" HEX "\",1]]}", 400},
		/* One good and one bad key: neither is taken. */
		{"{\"id\":\"n1\",\"holds\":[[\"sha256:" HEX
		 "\",1],[\"tag:\",1]]}",
		 400},
		{"{\"id\":\"stranger\",\"holds\":[[\"sha256:" HEX "\",1]]}",
		 403},
		{"{\"id\":\"\",\"holds\":[[\"sha256:" HEX "\",1]]}", 403},
		{"{\"id\":\"" HEX HEX "\",\"holds\":[]}", 403},
		/* No other node may announce for this node. */
		{"{\"id\":\"n0\",\"holds\":[[\"sha256:" HEX "\",1]]}", 403},
	};
	struct holders_stats st;

	begin(2);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (post(&nodes[0], bad[i].body) != bad[i].status)
			printf("# %s\n", bad[i].body);
		EQ(reply.status, bad[i].status);
		OK(reply.body.data &&
		   strstr(reply.body.data, "{\"errors\":[{\"code\":"));
	}
	holders_stats(nodes[0].holders, &st);
	EQ(st.keys, 0);
	EQ(st.announcements_got, 0);
	EQ(post(&nodes[0], "{\"id\":\"n1\",\"holds\":[]}"), 204);
	EQ(post(&nodes[0],
		"{\"id\":\"n1\",\"holds\":[[\"sha256:" HEX
		"\",17592186044416],[\"url:" HEX "\",0],[\"tag:" HEX "\",1]]}"),
	   204);
	holders_stats(nodes[0].holders, &st);
	EQ(st.keys, 3);
	end();
}

static void test_large_announcements(void)
{
	CLEANUP(buf_release) struct buf b = BUF_INIT(1 << 20);

	begin(2);
	holds(&b, 1, 0, 1001);
	EQ(post(&nodes[0], b.data), 413);
	holds(&b, 1, 0, 1000);
	EQ(post(&nodes[0], b.data), 204);
	while (b.len <= 128 << 10)
		(void)buf_str(&b, "                                ");
	EQ(post(&nodes[0], b.data), 413);
	end();
}

static void test_bad_questions(void)
{
	static const char *const bad[] = {
		"",
		"?key",
		"?key=",
		"?key=sha256:",
		"?key=sha256:0123",
		"?key=" HEX,
		"?key=sha256:" HEX "0",
		"?key=sha256:%00" HEX,
		"?key=SHA256:" HEX,
		"?kez=sha256:" HEX,
	};

	begin(1);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		EQ(ask(&nodes[0], "GET", bad[i], NULL, 0), 400);
		OK(strstr(reply.body.data, "DIGEST_INVALID"));
	}
	EQ(ask(&nodes[0], "GET", "?key=sha256%3A" HEX, NULL, 0), 200);
	STREQ(reply.body.data, "{\"size\":0,\"holders\":[]}");
	EQ(ask(&nodes[0], "HEAD", "?key=tag:" HEX, NULL, 0), 200);
	EQ(ask(&nodes[0], "DELETE", "?key=tag:" HEX, NULL, 0), 405);
	end();
}

int main(void)
{
	holders_rig_environment();
	RUN(test_table_is_bounded);
	RUN(test_holders_of_a_key_are_bounded);
	RUN(test_bad_announcements);
	RUN(test_large_announcements);
	RUN(test_bad_questions);
	buf_release(&reply.body);
	return tap_done();
}
