/* The JSON that nodes send to homes, and homes answer (see p2p/holders.h).
 * Pure. Text from a member is untrusted input. */
#ifndef P2P_HOLDERS_MSG_H
#define P2P_HOLDERS_MSG_H

#include "base/json.h"
#include "p2p/holders.h"

/* Limit of a home's answer. */
#define HOLDERS_ANSWER_BYTES (16u << 10)

struct hold {
	struct holder_key key;
	uint64_t size; /* at most BLOB_MAX_SIZE */
};

/* {"id","holds":[["sha256:<hex>",size],…]} */
struct hold_batch {
	char *id; /* id of the sender; any text */
	struct hold *v;
	size_t n;
};

/* Parses all of it or nothing. -EMSGSIZE: more than HOLDERS_BATCH_BYTES or
 * HOLDERS_BATCH_KEYS; -EINVAL: *err says why; -ENOMEM. After 0 the caller calls
 * hold_batch_release(). */
int hold_batch_parse(const char *bytes, size_t len, struct hold_batch *ret,
		     struct error *err);
void hold_batch_release(struct hold_batch *b);

/* {"size":N,"holders":["<member id>",…]} */
struct holders_answer {
	uint64_t size; /* at most BLOB_MAX_SIZE; 0 = not known */
	json_t *doc, *ids;
	size_t n;
};

/* -EBADMSG: malformed. After 0 the caller calls holders_answer_release(). */
int holders_answer_parse(const char *bytes, size_t len,
			 struct holders_answer *ret);
/* Returns the i-th id, any text; borrowed from a. */
const char *holders_answer_id(const struct holders_answer *a, size_t i);
void holders_answer_release(struct holders_answer *a);

#endif
