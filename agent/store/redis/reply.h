/*
 * reply.h - what a server sends, taken apart by hiredis' redisReader, and what its errors mean.
 *
 * The server is not trusted. SCAN and EXEC are the only commands of this store that are answered by an array, and a feed
 * is pushed arrays of three; none is accepted but in its place and shape; neither is any RESP3 type, an answer above a
 * limit, or a line that does not end. One thread; nothing blocks.
 */
#ifndef RIPTIDE_STORE_REDIS_REPLY_H
#define RIPTIDE_STORE_REDIS_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/base/text.h"

enum redis_reply_type {
	REDIS_REPLY_IS_STRING,
	REDIS_REPLY_IS_STATUS,
	REDIS_REPLY_IS_ERROR,
	REDIS_REPLY_IS_INTEGER,
	REDIS_REPLY_IS_NIL,
	REDIS_REPLY_IS_PAGE, /* of SCAN: `bytes` are {u32 length, bytes}: the cursor, then the names */
	/* of a feed: `bytes` as of a page: the kind, the channel, then the payload; `integer` is an enum redis_payload */
	REDIS_REPLY_IS_PUSH,
	/*
	 * Of CLUSTER SLOTS, flattened: items as of a page. Each begins with what it is: '*' and how many items follow that
	 * belong to it, '$' and a text, ':' and a number in digits, '_' for nil.
	 */
	REDIS_REPLY_IS_TREE,
};

enum redis_payload {
	REDIS_PAYLOAD_ITEMS,    /* an array of any number of strings */
	REDIS_PAYLOAD_TEXT,     /* one string, as somebody published it */
	REDIS_PAYLOAD_NIL,      /* nothing was said: of invalidations, everything is meant */
	REDIS_PAYLOAD_TOO_MUCH, /* more than `reply_max` bytes, of which not all were kept */
	REDIS_PAYLOAD_NUMBER,
};

/* What may come next, beside the plain answers. */
enum redis_shape {
	REDIS_SHAPE_PLAIN,
	REDIS_SHAPE_PAGE,
	REDIS_SHAPE_PUSH,
	REDIS_SHAPE_TREE,
	REDIS_SHAPE_EXEC, /* a transaction's two answers, of which the first is wanted, and comes in their place */
};

/* Freed with free(). */
struct redis_reply {
	enum redis_reply_type type;
	long long integer;
	size_t length;
	char bytes[]; /* of string, status, error, page and push; followed by a NUL */
};

struct redis_reader;

/* Accepts answers of up to `reply_max` bytes. NULL without memory. */
struct redis_reader *redis_reader_create(size_t reply_max);
/* Clears *reader; NULL is fine. */
void redis_reader_destroy(struct redis_reader **reader);

/* Takes a copy of what was received. RSHM_E_NOMEM. */
int redis_reader_feed(struct redis_reader *reader, const void *bytes, size_t length);

/*
 * RSHM_OK with the next answer, the caller's to free; RSHM_MISS if more must be received; RSHM_E_PROTOCOL if what came can
 * never become an answer: the connection is to be dropped, and redis_reader_fault() says why. RSHM_E_NOMEM.
 * `shape`: the same at each call until that answer has come.
 */
int redis_reader_next(struct redis_reader *reader, enum redis_shape shape, struct redis_reply **ret);

/* Takes the next item of a page or push from *position, 0 at first. False: that was the last. */
bool redis_reply_page_next(const struct redis_reply *page, size_t *position, const char **ret_bytes,
			   size_t *ret_length);
const char *redis_reader_fault(const struct redis_reader *reader);

/* Whether a large answer is being received. */
bool redis_reader_is_busy(const struct redis_reader *reader);

/* What an error answer means for the request. A refused command changed nothing. */
struct redis_verdict {
	int status;         /* enum rshm_status */
	bool retry;         /* may go better in a moment */
	bool leave;         /* this server is the wrong one: connect anew */
	const char *advice; /* for the log; NULL: the error is passing and needs no line */
};

struct redis_verdict redis_reply_verdict(const struct redis_reply *error);

/* Whether an error begins with this text. */
bool redis_reply_error_is(const struct redis_reply *error, const char *begin);

#endif
