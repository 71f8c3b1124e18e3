/*
 * redisReader with functions of our own that make one allocation per answer and refuse what no command of ours asks for:
 * returning NULL from them makes the reader fail for good. So 13 bytes that announce an array of a thousand million
 * elements cost nothing.
 *
 * The answer to SCAN, an array of a cursor and an array of names, is flattened: its items collect in the reader, and
 * become one allocation when the last one has come. So does what a feed is pushed; but where a page that is too large ends
 * the connection, the rest of such a push is read and forgotten, and the push says so.
 *
 * The reader waits for as many bytes as an answer announces and searches an unfinished line from its beginning each time.
 * Both are bounded here by looking at what is left over after each piece.
 *
 * Compiles with hiredis 0.14 and 1.x, whose createArray differs; of the reader's members only err, buf, pos, len and
 * ridx are read, maxbuf and privdata set.
 */
#include "agent/store/redis/reply.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "agent/base/assert.h"
#include "shm/msg.h"

#define READER_KEEP_MAX (256u << 10) /* a buffer that grew larger is freed once it is empty */
#define READER_LINE_MAX (16u << 10)  /* of a status or error */
#define READER_LENGTH_LINE_MAX 32u
#define READER_BUSY_MIN (64u << 10)
#define READER_PAGE_FIRST 4096u
#define READER_TREE_MAX (8u << 20) /* 16,384 ranges of one slot, each with some replicas */
#define READER_TEXT_MAX 512u       /* of a tree: addresses and ids */

struct redis_reader {
	redisReader *parser;
	redisReplyObjectFunctions functions;
	size_t reply_max;
	size_t fed; /* since the buffer was last empty */
	/* a page that has not come as a whole */
	enum redis_shape shape;
	enum redis_payload payload; /* of a push */
	struct redis_reply *inner;  /* the first answer of a transaction */
	char *page;
	size_t page_length, page_capacity;
	const char *fault;
};

static struct redis_reply *reply_create(enum redis_reply_type type, const char *bytes, size_t length)
{
	struct redis_reply *reply = malloc(sizeof(*reply) + length + 1);

	if (reply == NULL)
		return NULL;
	reply->type = type;
	reply->integer = 0;
	reply->length = length;
	if (length > 0)
		memcpy(reply->bytes, bytes, length);
	reply->bytes[length] = '\0';
	return reply;
}

/* ---- pages ----------------------------------------------------------------------------------------------------- */

/* A task of the outer array has a parent, one of the array of names a grandparent. */
static bool task_is_cursor(const redisReadTask *task)
{
	return task->parent->parent == NULL && task->idx == 0;
}

static bool task_is_payload(const redisReadTask *task)
{
	return task->parent->parent == NULL && task->idx == 2;
}

static bool task_is_names(const redisReadTask *task)
{
	return task->parent != NULL && task->parent->parent == NULL && task->idx == 1;
}

static bool task_is_name(const redisReadTask *task)
{
	return task->parent->parent != NULL;
}

/* Any pointer but NULL will do: only the outermost object is kept by the parser. */
static void *page_append(struct redis_reader *reader, const char *bytes, size_t length)
{
	size_t needed = reader->page_length + sizeof(uint32_t) + length, capacity = reader->page_capacity;
	uint32_t item = (uint32_t)length;

	if (needed > reader->reply_max && reader->shape == REDIS_SHAPE_PUSH) {
		reader->payload = REDIS_PAYLOAD_TOO_MUCH;
		return reader;
	}
	if (length > reader->reply_max || needed > reader->reply_max) {
		reader->fault = "an answer above the limit";
		return NULL;
	}
	if (capacity < needed) {
		char *page;

		capacity = needed > READER_PAGE_FIRST ? 2 * needed : READER_PAGE_FIRST;
		page = realloc(reader->page, capacity);
		if (page == NULL)
			return NULL;
		reader->page = page;
		reader->page_capacity = capacity;
	}
	memcpy(reader->page + reader->page_length, &item, sizeof(item));
	if (length > 0)
		memcpy(reader->page + reader->page_length + sizeof(item), bytes, length);
	reader->page_length = needed;
	return reader;
}

/* The outermost object becomes the whole page. */
static int page_finish(struct redis_reader *reader, struct redis_reply *outer, struct redis_reply **ret)
{
	*ret = reply_create(outer->type, reader->page, reader->page_length);
	if (*ret != NULL && outer->type == REDIS_REPLY_IS_PUSH)
		(*ret)->integer = reader->payload;
	free(outer);
	free(reader->page);
	reader->page = NULL;
	reader->page_length = reader->page_capacity = 0;
	return *ret != NULL ? RSHM_OK : RSHM_E_NOMEM;
}

bool redis_reply_page_next(const struct redis_reply *page, size_t *position, const char **ret_bytes,
			   size_t *ret_length)
{
	uint32_t length;

	if (*position == page->length)
		return false;
	memcpy(&length, page->bytes + *position, sizeof(length));
	*ret_bytes = page->bytes + *position + sizeof(length);
	*ret_length = length;
	*position += sizeof(length) + length;
	must(*position <= page->length);
	return true;
}

/* ---- trees ----------------------------------------------------------------------------------------------------- */

static void *tree_append(struct redis_reader *reader, char kind, const char *bytes, size_t length)
{
	char item[1 + READER_TEXT_MAX] = {kind};

	if (length > READER_TEXT_MAX || reader->page_length > READER_TREE_MAX) {
		reader->fault = "a slot map above the limit";
		return NULL;
	}
	if (length > 0)
		memcpy(item + 1, bytes, length);
	return page_append(reader, item, 1 + length);
}

static void *tree_append_number(struct redis_reader *reader, char kind, long long number)
{
	char digits[24];

	return tree_append(reader, kind, digits, (size_t)snprintf(digits, sizeof(digits), "%lld", number));
}

/* Whether what is read stands inside a tree. */
static bool task_is_of_tree(const redisReadTask *task)
{
	const struct redis_reader *reader = task->privdata;

	return task->parent != NULL && reader->shape == REDIS_SHAPE_TREE;
}

/* ---- what the parser calls ------------------------------------------------------------------------------------- */

/* An answer inside that to EXEC. */
static void *take_inner(const redisReadTask *task, struct redis_reply *reply)
{
	struct redis_reader *reader = task->privdata;

	if (reply == NULL || task->idx != 0) {
		free(reply);
		return task->idx != 0 ? reader : NULL;
	}
	must(reader->inner == NULL);
	reader->inner = reply;
	return reader;
}

static struct redis_reply *create_plain(const redisReadTask *task, const char *bytes, size_t length)
{
	switch (task->type) {
	case REDIS_REPLY_STRING:
		return reply_create(REDIS_REPLY_IS_STRING, bytes, length);
	case REDIS_REPLY_STATUS:
		return reply_create(REDIS_REPLY_IS_STATUS, bytes, length);
	case REDIS_REPLY_ERROR:
		return reply_create(REDIS_REPLY_IS_ERROR, bytes, length);
	default:
		return NULL;
	}
}

static void *create_string(const redisReadTask *task, char *bytes, size_t length)
{
	struct redis_reader *reader = task->privdata;

	if (task_is_of_tree(task))
		return task->type == REDIS_REPLY_ERROR ? NULL : tree_append(reader, '$', bytes, length);
	if (task->parent != NULL && reader->shape == REDIS_SHAPE_EXEC)
		return take_inner(task, create_plain(task, bytes, length));
	if (task->parent != NULL) {
		bool fits = task->type == REDIS_REPLY_STRING &&
			    (reader->shape == REDIS_SHAPE_PUSH || task_is_cursor(task) || task_is_name(task));

		if (reader->shape == REDIS_SHAPE_PUSH && task_is_payload(task))
			reader->payload = REDIS_PAYLOAD_TEXT;
		return fits ? page_append(task->privdata, bytes, length) : NULL;
	}
	return create_plain(task, bytes, length);
}

#if HIREDIS_MAJOR >= 1
static void *create_array(const redisReadTask *task, size_t elements)
#else
static void *create_array(const redisReadTask *task, int elements)
#endif
{
	struct redis_reader *reader = task->privdata;

	if (reader->shape == REDIS_SHAPE_TREE) {
		void *item = tree_append_number(reader, '*', (long long)elements);

		return task->parent == NULL && item != NULL ? reply_create(REDIS_REPLY_IS_TREE, NULL, 0) : item;
	}
	if (task->parent == NULL && reader->shape == REDIS_SHAPE_PAGE && elements == 2)
		return reply_create(REDIS_REPLY_IS_PAGE, NULL, 0);
	if (task->parent == NULL && reader->shape == REDIS_SHAPE_PUSH && elements == 3) {
		reader->payload = REDIS_PAYLOAD_ITEMS;
		return reply_create(REDIS_REPLY_IS_PUSH, NULL, 0);
	}
	if (task->parent == NULL && reader->shape == REDIS_SHAPE_EXEC && elements == 2)
		return reply_create(REDIS_REPLY_IS_PAGE, NULL, 0);
	if (task->parent == NULL || reader->shape == REDIS_SHAPE_EXEC)
		return NULL;
	if (reader->shape == REDIS_SHAPE_PUSH)
		return task_is_payload(task) ? reader : NULL;
	return task_is_names(task) ? reader : NULL;
}

/* A payload of no bytes. */
static void *take_payload(const redisReadTask *task, enum redis_payload payload)
{
	struct redis_reader *reader = task->privdata;

	if (reader->shape != REDIS_SHAPE_PUSH || !task_is_payload(task))
		return NULL;
	reader->payload = payload;
	return reader;
}

static void *create_integer(const redisReadTask *task, long long value)
{
	const struct redis_reader *reader = task->privdata;
	bool is_inner = task->parent != NULL && reader->shape == REDIS_SHAPE_EXEC;
	struct redis_reply *reply;

	if (task->type != REDIS_REPLY_INTEGER)
		return NULL;
	if (task_is_of_tree(task))
		return tree_append_number(task->privdata, ':', value);
	if (task->parent != NULL && !is_inner)
		return take_payload(task, REDIS_PAYLOAD_NUMBER);
	reply = reply_create(REDIS_REPLY_IS_INTEGER, NULL, 0);
	if (reply != NULL)
		reply->integer = value;
	return is_inner ? take_inner(task, reply) : reply;
}

static void *create_nil(const redisReadTask *task)
{
	if (task_is_of_tree(task))
		return tree_append(task->privdata, '_', NULL, 0);
	return task->parent == NULL ? reply_create(REDIS_REPLY_IS_NIL, NULL, 0)
				    : take_payload(task, REDIS_PAYLOAD_NIL);
}

#if HIREDIS_MAJOR >= 1
static void *refuse_double(const redisReadTask *task, double value, char *bytes, size_t length)
{
	(void)task;
	(void)value;
	(void)bytes;
	(void)length;
	return NULL;
}

static void *refuse_bool(const redisReadTask *task, int value)
{
	(void)task;
	(void)value;
	return NULL;
}
#endif

static bool reader_open(struct redis_reader *reader)
{
	reader->parser = redisReaderCreateWithFunctions(&reader->functions);
	if (reader->parser == NULL)
		return false;
	reader->parser->maxbuf = READER_KEEP_MAX;
	reader->parser->privdata = reader;
	reader->fed = 0;
	return true;
}

struct redis_reader *redis_reader_create(size_t reply_max)
{
	struct redis_reader *reader = calloc(1, sizeof(*reader));

	if (reader == NULL)
		return NULL;
	reader->reply_max = reply_max;
	reader->functions = (redisReplyObjectFunctions)
	{
		.createString = create_string, .createArray = create_array, .createInteger = create_integer,
		.createNil = create_nil,
#if HIREDIS_MAJOR >= 1
		.createDouble = refuse_double, .createBool = refuse_bool,
#endif
		.freeObject = free,
	};
	if (!reader_open(reader)) {
		free(reader);
		return NULL;
	}
	return reader;
}

void redis_reader_destroy(struct redis_reader **reader)
{
	if (*reader == NULL)
		return;
	if ((*reader)->parser != NULL)
		redisReaderFree((*reader)->parser);
	free((*reader)->page);
	free((*reader)->inner);
	free(*reader);
	*reader = NULL;
}

int redis_reader_feed(struct redis_reader *reader, const void *bytes, size_t length)
{
	if (reader->parser == NULL && !reader_open(reader))
		return RSHM_E_NOMEM;
	reader->fed += length;
	return redisReaderFeed(reader->parser, bytes, length) == REDIS_OK ? RSHM_OK : RSHM_E_NOMEM;
}

/*
 * Looks at an answer that has not come as a whole. Where its first line has, it is the length of a bulk string: the type's
 * byte may have been taken already, but any other answer would be complete.
 */
static int reader_check_rest(struct redis_reader *reader)
{
	const redisReader *parser = reader->parser;
	const char *rest = parser->buf + parser->pos, *end;
	size_t left = parser->len - parser->pos, announced = 0;

	end = memchr(rest, '\n', left < READER_LENGTH_LINE_MAX ? left : READER_LENGTH_LINE_MAX);
	if (end == NULL) {
		if (left <= READER_LINE_MAX)
			return RSHM_MISS;
		reader->fault = "an endless line";
		return RSHM_E_PROTOCOL;
	}
	for (const char *p = rest + (*rest == '$'); *p >= '0' && *p <= '9' && announced <= reader->reply_max; p++)
		announced = announced * 10 + (size_t)(*p - '0');
	if (announced <= reader->reply_max)
		return RSHM_MISS;
	reader->fault = "an answer above the limit";
	return RSHM_E_PROTOCOL;
}

int redis_reader_next(struct redis_reader *reader, enum redis_shape shape, struct redis_reply **ret)
{
	void *object = NULL;
	struct redis_reply *reply;

	if (reader->parser == NULL)
		return RSHM_MISS;
	reader->shape = shape;
	if (redisReaderGetReply(reader->parser, &object) != REDIS_OK) {
		if (reader->fault == NULL)
			reader->fault = reader->parser->err == REDIS_ERR_OOM
						? "an answer of a kind that was not asked for"
						: "bytes that are no answer";
		return RSHM_E_PROTOCOL;
	}
	reply = object;
	if (reply != NULL && reader->inner != NULL) {
		*ret = reader->inner;
		reader->inner = NULL;
		free(reply);
		return RSHM_OK;
	}
	if (reply != NULL && (reply->type == REDIS_REPLY_IS_PAGE || reply->type == REDIS_REPLY_IS_PUSH ||
			      reply->type == REDIS_REPLY_IS_TREE))
		return page_finish(reader, reply, ret);
	if (reply != NULL) {
		*ret = reply;
		return RSHM_OK;
	}
	if (reader->parser->pos < reader->parser->len)
		return reader_check_rest(reader);
	/* Nothing is left over, but in the middle of an answer the parser's own state still counts. */
	if (reader->parser->ridx == -1) {
		if (reader->fed > READER_KEEP_MAX && reader->parser->len == 0) {
			redisReaderFree(reader->parser);
			reader->parser = NULL;
		}
		reader->fed = 0;
	}
	return RSHM_MISS;
}

const char *redis_reader_fault(const struct redis_reader *reader)
{
	return reader->fault != NULL ? reader->fault : "no fault";
}

bool redis_reader_is_busy(const struct redis_reader *reader)
{
	return reader->parser != NULL && reader->parser->len - reader->parser->pos > READER_BUSY_MIN;
}

bool redis_reply_error_is(const struct redis_reply *error, const char *begin)
{
	size_t length = strlen(begin);

	return error->type == REDIS_REPLY_IS_ERROR && error->length >= length &&
	       memcmp(error->bytes, begin, length) == 0;
}

/* First match wins. */
static const struct {
	const char *begin;
	struct redis_verdict verdict;
} verdicts[] = {
	{"LOADING", {.status = RSHM_E_AGAIN, .retry = true}},
	{"BUSY ", {.status = RSHM_E_AGAIN, .retry = true}},
	{"MASTERDOWN", {.status = RSHM_E_AGAIN, .retry = true}},
	{"TRYAGAIN", {.status = RSHM_E_AGAIN, .retry = true}},
	{"CLUSTERDOWN", {.status = RSHM_E_AGAIN, .retry = true}},
	{"NOREPLICAS", {.status = RSHM_E_AGAIN, .retry = true}},
	{"READONLY",
	 {.status = RSHM_E_AGAIN,
	  .retry = true,
	  .leave = true,
	  .advice = "this server is a replica; connecting anew in case its name moved to the master"}},
	{"OOM",
	 {.status = RSHM_E_FULL, .advice = "the server is at its maxmemory; raise it or set an eviction policy"}},
	{"NOAUTH",
	 {.status = RSHM_E_BACKEND, .leave = true, .advice = "the server wants a password; put it into the URL"}},
	{"WRONGPASS",
	 {.status = RSHM_E_BACKEND, .leave = true, .advice = "user or password is wrong; correct the URL"}},
	{"NOPERM", {.status = RSHM_E_BACKEND, .advice = "the server's ACL forbids this to our user"}},
	{"MOVED",
	 {.status = RSHM_E_BACKEND,
	  .advice = "this server is a node of a cluster; write redis+cluster:// in the URL"}},
	{"ASK ",
	 {.status = RSHM_E_BACKEND,
	  .advice = "this server is a node of a cluster; write redis+cluster:// in the URL"}},
	{"MISCONF", {.status = RSHM_E_BACKEND, .advice = "the server cannot save to its disk and refuses writes"}},
	{"WRONGTYPE", {.status = RSHM_E_BACKEND, .advice = "another program keeps something else under our key"}},
};

struct redis_verdict redis_reply_verdict(const struct redis_reply *error)
{
	must(error->type == REDIS_REPLY_IS_ERROR);
	for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++) {
		if (redis_reply_error_is(error, verdicts[i].begin))
			return verdicts[i].verdict;
	}
	return (struct redis_verdict){.status = RSHM_E_BACKEND, .advice = "the server refused a command"};
}
