/*
 * Requests as commands, and what their answers mean. How a request is put into words: compose.c.
 *
 * What is sent again when a connection was lost after a write had left as a whole, so that it may have been executed?
 * By then the barrier (pool.c) has seen to it that the first try is over before the second begins.
 *
 *	PUT, DELETE if version   A version is never given twice. If the first try was executed the entry has another
 *	                         one, and the second does nothing. So a version that is not the expected one proves
 *	                         nothing: it is RSHM_OK if it is the request's own, else RSHM_E_UNKNOWN, never
 *	                         RSHM_CONFLICT. Who adds to a counter would add twice.
 *	PUT if older             Newest wins, however often it is sent. RSHM_OK if the request's own version is
 *	                         found; RSHM_CONFLICT with a newer one is true either way. What a plain DELETE removed
 *	                         in between may come back; who needs more (behind/) deletes with tombstones.
 *	SWEPT                    Never lowers.
 *	reads                    Always.
 *
 * All others are RSHM_E_UNKNOWN at once. A second NEXT_GENERATION would skip one. IF_ABSENT and IF_PRESENT, and
 * IF_VERSION 0, which is IF_ABSENT, would bring back what somebody removed after the first try; a plain PUT would
 * replace what somebody wrote after it. And once a try may have been executed, no later one can be answered with an
 * error that says nothing was changed: redis_store_answer() sees to that.
 */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/store/envelope.h"
#include "agent/store/redis/redis_priv.h"
#include "agent/store/redis/script.h"
#include "shm/msg.h"

#define TRANSACTION_REPLIES 4u
#define CANARY_LIFE_MS 60000u /* in the server, after our end */

/* ---- sending --------------------------------------------------------------------------------------------------- */

bool redis_command_is_repeatable(const struct store_request *request)
{
	enum store_condition condition = redis_request_condition(request);

	switch (request->op) {
	case STORE_SWEPT:
		return true;
	case STORE_PUT:
	case STORE_DELETE:
		return condition == STORE_IF_VERSION || condition == STORE_IF_OLDER;
	default:
		return !redis_request_is_write(request);
	}
}

/* What was put since `mark` is in flight. RSHM_E_NOMEM: it is taken back. redis_flights_reserve() was called. */
static int flight_begin(struct redis_connection *connection, struct redis_output_mark mark,
			struct redis_flight flight)
{
	if (connection->output.failed) {
		redis_output_rollback(&connection->output, mark);
		return RSHM_E_NOMEM;
	}
	flight.begun_ms = clock_monotonic_ms();
	flight.end = connection->output.queued;
	redis_flights_push(&connection->flights, flight);
	redis_store_wake(connection->store, flight.begun_ms + connection->store->config.command_timeout_ms);
	redis_connection_mark_dirty(connection);
	return RSHM_OK;
}

static void publish_put(struct redis_connection *connection, const char *message, size_t length)
{
	char channel[KEYS_PREFIX_MAX + 32];

	(void)redis_tracking_channel(connection->store, channel);
	redis_output_command(&connection->output, 3, "PUBLISH");
	redis_output_string(&connection->output, channel, strlen(channel));
	redis_output_string(&connection->output, message, length);
}

/* Tells the others of the key, with our id in front, together with the command before. */
static void transaction_end(struct redis_connection *connection, const struct keys_redis *key)
{
	const char *id = connection->store->tracking.id;
	char message[sizeof(connection->store->tracking.id) + KEYS_REDIS_MAX];
	size_t id_length = strlen(id);

	memcpy(message, id, id_length);
	message[id_length] = ':';
	memcpy(message + id_length + 1, key->bytes, key->length);
	publish_put(connection, message, id_length + 1 + key->length);
	redis_output_command(&connection->output, 1, "EXEC");
}

/* The target of a slot on its way takes the next command, though the slot is not its own yet. */
static int command_send_asking(struct redis_connection *connection)
{
	struct redis_output_mark mark = redis_output_mark(&connection->output);
	struct redis_flight flight = {.command = REDIS_COMMAND_ASKING, .replies_left = 1};

	if (!redis_flights_reserve(&connection->flights))
		return RSHM_E_NOMEM;
	redis_output_command(&connection->output, 1, "ASKING");
	return flight_begin(connection, mark, flight);
}

static int command_send(struct redis_connection *connection, struct store_request *request, bool whole_script)
{
	struct redis_output_mark mark;
	/* ASKING is good for one command, and a transaction is several. */
	bool publishes = connection->store->tracking.publishes && redis_request_is_write(request) &&
			 !redis_node_is_asking(request);
	struct redis_flight flight = {.request = request};
	struct keys_redis key;
	int status = redis_compose_prepare(connection->store, request, &key);

	if (status == RSHM_OK && redis_node_is_asking(request) && request->op != STORE_LIST)
		status = command_send_asking(connection);
	mark = redis_output_mark(&connection->output);
	if (status == RSHM_OK && !redis_flights_reserve(&connection->flights))
		status = RSHM_E_NOMEM;
	if (status != RSHM_OK)
		return status;
	if (publishes)
		redis_output_command(&connection->output, 1, "MULTI");
	flight.command = redis_compose(connection, request, &key, whole_script);
	flight.replies_left = flight.command == REDIS_COMMAND_GET ? 2 : 1;
	if (publishes) {
		transaction_end(connection, &key);
		flight.transaction = REDIS_TRANSACTION_WHOLE;
		flight.replies_left = TRANSACTION_REPLIES;
	}
	flight.ours = redis_tracking_note(connection, request, &key);
	status = flight_begin(connection, mark, flight);
	if (status != RSHM_OK)
		redis_tracking_forget(connection->store, flight.ours);
	return status;
}

int redis_command_send(struct redis_connection *connection, struct store_request *request)
{
	must(connection->state == REDIS_CONNECTION_READY);
	return command_send(connection, request, false);
}

static int kill_send(struct redis_connection *connection, enum redis_command command, uint64_t client_id)
{
	struct redis_output_mark mark = redis_output_mark(&connection->output);
	struct redis_flight flight = {.command = command, .client_id = client_id, .replies_left = 1};

	if (!redis_flights_reserve(&connection->flights))
		return RSHM_E_NOMEM;
	redis_output_command(&connection->output, 4, "CLIENT");
	redis_output_string(&connection->output, "KILL", 4);
	redis_output_string(&connection->output, "ID", 2);
	redis_output_number(&connection->output, client_id);
	return flight_begin(connection, mark, flight);
}

int redis_command_send_kill(struct redis_connection *connection, uint64_t client_id)
{
	return kill_send(connection, REDIS_COMMAND_KILL, client_id);
}

int redis_command_send_tracking(struct redis_connection *connection, uint64_t feed_id)
{
	const struct redis_store *store = connection->store;
	struct redis_output *output = &connection->output;
	struct redis_output_mark mark = redis_output_mark(output);
	struct redis_flight flight = {.command = REDIS_COMMAND_TRACKING, .replies_left = 1};
	const char *tenant = store->config.watch_tenant;
	char prefix[KEYS_PREFIX_MAX + RSHM_TENANT_MAX + 32], canaries[KEYS_PREFIX_MAX + 32];

	snprintf(prefix, sizeof(prefix), "%s:v%u:%s%s%s", store->keys.prefix, (unsigned)store->keys.version,
		 tenant ? "{" : "", tenant ? tenant : "", tenant ? "." : "");
	snprintf(canaries, sizeof(canaries), "%s:v%u:canary:", store->keys.prefix, (unsigned)store->keys.version);
	if (!redis_flights_reserve(&connection->flights))
		return RSHM_E_NOMEM;
	redis_output_command(output, tenant ? 11 : 9, "CLIENT");
	redis_output_string(output, "TRACKING", 8);
	redis_output_string(output, "ON", 2);
	redis_output_string(output, "REDIRECT", 8);
	redis_output_number(output, feed_id);
	redis_output_string(output, "BCAST", 5);
	redis_output_string(output, "PREFIX", 6);
	redis_output_string(output, prefix, strlen(prefix));
	if (tenant) {
		redis_output_string(output, "PREFIX", 6);
		redis_output_string(output, canaries, strlen(canaries));
	}
	redis_output_string(output, "NOLOOP", 6);
	if (flight_begin(connection, mark, flight) != RSHM_OK)
		return RSHM_E_NOMEM;
	/* No server gives this id to anybody. */
	return kill_send(connection, REDIS_COMMAND_KILL_PROBE, INT64_MAX);
}

int redis_command_send_canary(struct redis_connection *connection, const char *key)
{
	struct redis_output *output = &connection->output;
	struct redis_output_mark mark = redis_output_mark(output);
	struct redis_flight flight = {.command = REDIS_COMMAND_CANARY, .replies_left = 1};

	if (!redis_flights_reserve(&connection->flights))
		return RSHM_E_NOMEM;
	redis_output_command(output, 5, "SET");
	redis_output_string(output, key, strlen(key));
	redis_output_number(output, connection->store->tracking.canary.number);
	redis_output_string(output, "PX", 2);
	redis_output_number(output, CANARY_LIFE_MS);
	return flight_begin(connection, mark, flight);
}

int redis_command_send_publish_probe(struct redis_connection *connection)
{
	struct redis_output_mark mark = redis_output_mark(&connection->output);
	struct redis_flight flight = {.command = REDIS_COMMAND_PUBLISH_PROBE,
				      .transaction = REDIS_TRANSACTION_WHOLE,
				      .replies_left = TRANSACTION_REPLIES};

	if (!redis_flights_reserve(&connection->flights))
		return RSHM_E_NOMEM;
	redis_output_command(&connection->output, 1, "MULTI");
	publish_put(connection, "", 0);
	publish_put(connection, "", 0);
	redis_output_command(&connection->output, 1, "EXEC");
	return flight_begin(connection, mark, flight);
}

/* Asks for the next keys of a page of LIST, or answers it. */
static void listing_go_on(struct redis_connection *connection, struct store_request *request)
{
	struct redis_output_mark mark = redis_output_mark(&connection->output);
	struct redis_flight flight = {.request = request, .command = REDIS_COMMAND_NAMES};
	int status = redis_flights_reserve(&connection->flights) ? RSHM_OK : RSHM_E_NOMEM;

	if (status == RSHM_OK) {
		flight.replies_left = redis_listing_put_names(&connection->output, request) *
				      (redis_node_is_asking(request) ? 2 : 1);
		if (flight.replies_left == 0) {
			redis_store_answer(connection->store, request, redis_listing_finish(request));
			return;
		}
		status = flight_begin(connection, mark, flight);
	}
	if (status != RSHM_OK)
		redis_store_answer(connection->store, request, status);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static bool change_fits(const struct redis_reply *reply)
{
	if (reply->type != REDIS_REPLY_IS_STRING || reply->length == 0)
		return false;
	switch (reply->bytes[0]) {
	case REDIS_CHANGE_DONE:
	case REDIS_CHANGE_MISSED:
	case REDIS_CHANGE_NEWER:
		return reply->length == 1;
	case REDIS_CHANGE_CONFLICT:
	case REDIS_CHANGE_CONFLICT_DEAD:
		return reply->length == 1 + REDIS_CHANGE_STAMP_BYTES;
	default:
		return false;
	}
}

enum redis_shape redis_command_shape(const struct redis_flight *flight)
{
	if (flight->transaction != REDIS_TRANSACTION_NONE && flight->replies_left == 1)
		return REDIS_SHAPE_EXEC;
	if (flight->command == REDIS_COMMAND_SLOTS || flight->command == REDIS_COMMAND_SENTINEL)
		return REDIS_SHAPE_TREE;
	return flight->command == REDIS_COMMAND_SCAN ? REDIS_SHAPE_PAGE : REDIS_SHAPE_PLAIN;
}

/* Whether the next answer to NAMES is that to the ASKING before a name's GETRANGE. */
static bool names_ask(const struct redis_flight *flight)
{
	return flight->replies_left % 2 == 0 && flight->request != NULL && redis_node_is_asking(flight->request);
}

/* Whether this kind of answer can belong to the command. Errors can to any. */
static bool reply_fits(const struct redis_flight *flight, const struct redis_reply *reply)
{
	/* What stands before EXEC's is OK or QUEUED; but loose commands are answered at once. */
	if (flight->transaction != REDIS_TRANSACTION_NONE && flight->replies_left > 1)
		return reply->type == REDIS_REPLY_IS_STATUS || flight->value != NULL;
	switch (flight->command) {
	case REDIS_COMMAND_GET:
		if (flight->replies_left == 1)
			return reply->type == REDIS_REPLY_IS_INTEGER;
		return reply->type == REDIS_REPLY_IS_STRING || reply->type == REDIS_REPLY_IS_NIL;
	case REDIS_COMMAND_GET_ALONE:
		return reply->type == REDIS_REPLY_IS_STRING || reply->type == REDIS_REPLY_IS_NIL;
	case REDIS_COMMAND_HEAD:
	case REDIS_COMMAND_ROLE:
	case REDIS_COMMAND_INFO:
	case REDIS_COMMAND_NAMESPACE:
		return reply->type == REDIS_REPLY_IS_STRING;
	case REDIS_COMMAND_NAMES:
		if (reply->type == REDIS_REPLY_IS_STATUS)
			return flight->request == NULL || names_ask(flight);
		return reply->type == REDIS_REPLY_IS_STRING && !names_ask(flight);
	case REDIS_COMMAND_SCAN:
		return redis_listing_page_fits(reply);
	case REDIS_COMMAND_SLOTS:
	case REDIS_COMMAND_SENTINEL:
		return reply->type == REDIS_REPLY_IS_TREE;
	case REDIS_COMMAND_CHANGE:
		return change_fits(reply);
	case REDIS_COMMAND_SET:
	case REDIS_COMMAND_ASKING:
	case REDIS_COMMAND_AUTH:
	case REDIS_COMMAND_SELECT:
	case REDIS_COMMAND_SETNAME:
	case REDIS_COMMAND_TRACKING:
	case REDIS_COMMAND_CANARY:
		return reply->type == REDIS_REPLY_IS_STATUS;
	case REDIS_COMMAND_REMOVE_EXPIRED:
	case REDIS_COMMAND_DELETE:
	case REDIS_COMMAND_TOUCH:
	case REDIS_COMMAND_CLIENT_ID:
	case REDIS_COMMAND_KILL:
	case REDIS_COMMAND_KILL_PROBE:
	case REDIS_COMMAND_PUBLISH_PROBE:
		return reply->type == REDIS_REPLY_IS_INTEGER;
	}
	return false;
}

/* A refused command is sent in its other form, if it has one. */
static bool command_fall_back(struct redis_connection *connection, const struct redis_flight *flight,
			      const struct redis_reply *error)
{
	struct redis_store *store = connection->store;
	bool is_script = flight->command == REDIS_COMMAND_TOUCH || flight->command == REDIS_COMMAND_CHANGE ||
			 flight->command == REDIS_COMMAND_NAMESPACE;
	bool whole_script = is_script && redis_reply_error_is(error, "NOSCRIPT");
	bool no_unlink =
		(flight->command == REDIS_COMMAND_DELETE || flight->command == REDIS_COMMAND_REMOVE_EXPIRED) &&
		!store->no_unlink && redis_reply_error_is(error, "ERR unknown command");

	if (!whole_script && !no_unlink)
		return false;
	store->no_unlink |= no_unlink;
	return command_send(connection, flight->request, whole_script) == RSHM_OK;
}

static void command_on_error(struct redis_connection *connection, const struct redis_flight *flight,
			     const struct redis_reply *error)
{
	struct redis_store *store = connection->store;
	struct redis_verdict verdict = redis_reply_verdict(error);

	if (command_fall_back(connection, flight, error) || redis_node_divert(store, flight->request, error))
		return;
	if (verdict.advice != NULL)
		redis_store_log_error(store, verdict.advice, error);
	if (verdict.leave && connection->state == REDIS_CONNECTION_READY)
		redis_connection_leave(connection);
	if (verdict.retry)
		redis_store_retry(store, flight->request, verdict.status);
	else
		redis_store_answer(store, flight->request, verdict.status);
}

static int touch_status(long long result)
{
	switch (result) {
	case REDIS_TOUCH_DONE:
		return RSHM_OK;
	case REDIS_TOUCH_ABSENT:
		return RSHM_MISS;
	case REDIS_TOUCH_NEWER:
		return RSHM_E_FORMAT;
	default:
		return RSHM_E_CORRUPT;
	}
}

/* Whether this is the stamp of the request's own envelope. */
static bool stamp_is_own(const struct store_request *request, const char *stamp)
{
	const char *envelope = request->envelope;

	return request->op == STORE_PUT && memcmp(stamp, envelope + ENVELOPE_OFFSET_WRITER, 4) == 0 &&
	       memcmp(stamp + 4, envelope + ENVELOPE_OFFSET_VERSION, 8) == 0;
}

static int conflict_status(struct store_request *request, const struct redis_reply *reply)
{
	const char *stamp = reply->bytes + 1;
	uint64_t version;

	if ((request->attempts & REDIS_ATTEMPTS_UNKNOWN) != 0) {
		if (stamp_is_own(request, stamp))
			return RSHM_OK;
		if (request->condition != STORE_IF_OLDER)
			return RSHM_E_UNKNOWN;
	}
	memcpy(&version, stamp + 4, sizeof(version));
	request->found_version = reply->bytes[0] == REDIS_CHANGE_CONFLICT ? le64toh(version) : 0;
	return RSHM_CONFLICT;
}

static int change_status(struct store_request *request, const struct redis_reply *reply)
{
	switch (reply->bytes[0]) {
	case REDIS_CHANGE_DONE:
		return RSHM_OK;
	case REDIS_CHANGE_MISSED:
		return RSHM_MISS;
	case REDIS_CHANGE_NEWER:
		return RSHM_E_FORMAT;
	default:
		return conflict_status(request, reply);
	}
}

/* Takes a decimal number that ends with `end` from *text. */
static bool take_number(const char **text, char end, uint64_t *ret)
{
	const char *p = *text;
	uint64_t number = 0;

	for (; *p >= '0' && *p <= '9' && number <= REDIS_GENERATION_MAX; p++)
		number = number * 10 + (uint64_t)(*p - '0');
	if (p == *text || *p != end || number > REDIS_GENERATION_MAX)
		return false;
	*text = p + 1;
	*ret = number;
	return true;
}

static int namespace_status(struct store_request *request, const struct redis_reply *reply)
{
	const char *text = reply->bytes;
	uint64_t changes, swept;

	if (!take_number(&text, ' ', &changes) || !take_number(&text, '\0', &swept) ||
	    text != reply->bytes + reply->length + 1)
		return RSHM_E_CORRUPT;
	request->generation = changes + 1;
	request->swept = swept;
	return RSHM_OK;
}

/* Both answers of a GET have come. */
static int get_status(struct store_request *request, const struct redis_reply *value, const struct redis_reply *pttl)
{
	/* -2: it expired or went between the two commands; -1: it has no end. */
	if (value->type == REDIS_REPLY_IS_NIL || pttl->integer == -2)
		return RSHM_MISS;
	request->result = value->bytes;
	request->result_len = value->length;
	if (pttl->integer >= 0)
		request->remaining_ms = pttl->integer > 0 ? (uint64_t)pttl->integer : 1;
	return RSHM_OK;
}

static int command_status(const struct redis_flight *flight, const struct redis_reply *reply)
{
	struct store_request *request = flight->request;

	switch (flight->command) {
	case REDIS_COMMAND_GET:
		return get_status(request, flight->value, reply);
	case REDIS_COMMAND_GET_ALONE:
		request->result = reply->bytes;
		request->result_len = reply->length;
		return reply->type == REDIS_REPLY_IS_NIL ? RSHM_MISS : RSHM_OK;
	case REDIS_COMMAND_SLOTS:
		request->result = reply->bytes;
		request->result_len = reply->length;
		return RSHM_OK;
	case REDIS_COMMAND_HEAD:
		request->result = reply->bytes;
		request->result_len = reply->length;
		return reply->length > 0 ? RSHM_OK : RSHM_MISS;
	case REDIS_COMMAND_DELETE:
		return reply->integer > 0 ? RSHM_OK : RSHM_MISS;
	case REDIS_COMMAND_TOUCH:
		return touch_status(reply->integer);
	case REDIS_COMMAND_CHANGE:
		return change_status(request, reply);
	case REDIS_COMMAND_NAMESPACE:
		return namespace_status(request, reply);
	default:
		return RSHM_OK;
	}
}

/* Whether an answer to one of NAMES fails them all: what another program keeps there in another form does not. */
static bool name_fails(const struct redis_store *store, const struct redis_reply *reply)
{
	/* Of a slot on its way: a walk over the cluster meets the name where it can be asked for. */
	if (redis_node_diverts(store, reply))
		return false;
	return reply->type == REDIS_REPLY_IS_ERROR && !redis_reply_error_is(reply, "WRONGTYPE");
}

static bool flight_fails(const struct redis_store *store, const struct redis_flight *flight,
			 const struct redis_reply *reply)
{
	return flight->command == REDIS_COMMAND_NAMES ? name_fails(store, reply)
						      : reply->type == REDIS_REPLY_IS_ERROR;
}

static void command_finish(struct redis_connection *connection, const struct redis_flight *flight,
			   const struct redis_reply *reply)
{
	struct store_request *request = flight->request;

	if (flight->command >= REDIS_COMMAND_KILL_PROBE) {
		redis_tracking_on_reply(connection, flight->command, flight->value != NULL ? flight->value : reply);
		return;
	}
	if (flight->command == REDIS_COMMAND_KILL) {
		redis_pool_on_kill(connection->store, flight->client_id, reply);
		return;
	}
	if (flight->command >= REDIS_COMMAND_AUTH) {
		redis_greeting_on_reply(connection, flight->command, reply);
		return;
	}
	if (request == NULL)
		return;
	if (flight->transaction == REDIS_TRANSACTION_LOOSE) {
		redis_store_answer(connection->store, request, RSHM_E_UNKNOWN);
		return;
	}
	if (flight->transaction == REDIS_TRANSACTION_UNPUBLISHED) {
		redis_tracking_on_unpublished(connection->store, flight->value);
		redis_store_retry(connection->store, request, RSHM_E_AGAIN);
		return;
	}
	if (flight->value != NULL && flight->value->type == REDIS_REPLY_IS_ERROR) {
		command_on_error(connection, flight, flight->value);
	} else if (flight_fails(connection->store, flight, reply)) {
		command_on_error(connection, flight, reply);
	} else if (flight->command == REDIS_COMMAND_SCAN || flight->command == REDIS_COMMAND_NAMES) {
		if (flight->command == REDIS_COMMAND_SCAN)
			redis_listing_on_page(connection->store, request, reply);
		listing_go_on(connection, request);
	} else {
		redis_store_answer(connection->store, request, command_status(flight, reply));
	}
}

/* Takes over an answer before that to EXEC; the first error is kept. */
static void transaction_keep(struct redis_flight *flight, struct redis_reply *reply)
{
	bool is_error = reply->type == REDIS_REPLY_IS_ERROR, is_first = flight->value == NULL;

	/* What was refused before the command itself is MULTI. */
	if (flight->replies_left == TRANSACTION_REPLIES - 1 && !is_first && !is_error)
		flight->transaction = REDIS_TRANSACTION_LOOSE;
	if (flight->replies_left == TRANSACTION_REPLIES - 2 && is_first && is_error)
		flight->transaction = REDIS_TRANSACTION_UNPUBLISHED;
	flight->replies_left--;
	if (is_first && is_error)
		flight->value = reply;
	else
		free(reply);
}

/* Takes over an answer that is not the last of its flight. */
static void flight_keep(const struct redis_store *store, struct redis_flight *flight, struct redis_reply *reply)
{
	if (flight->transaction != REDIS_TRANSACTION_NONE) {
		transaction_keep(flight, reply);
		return;
	}
	flight->replies_left--;
	if (flight->value == NULL && (flight->command != REDIS_COMMAND_NAMES || name_fails(store, reply)))
		flight->value = reply;
	else
		free(reply);
}

bool redis_command_on_reply(struct redis_connection *connection, struct redis_reply *reply)
{
	struct redis_flight *oldest = redis_flights_at(&connection->flights, 0), flight;

	bool fits = reply->type == REDIS_REPLY_IS_ERROR || reply_fits(oldest, reply);

	/* Nothing is answered before it has left. */
	if (!fits || (oldest->replies_left == 1 && oldest->end > connection->output.sent)) {
		free(reply);
		return false;
	}
	if (oldest->command == REDIS_COMMAND_NAMES && oldest->request != NULL && !names_ask(oldest))
		redis_listing_on_name(connection->store, oldest->request, reply);
	if (oldest->replies_left > 1) {
		flight_keep(connection->store, oldest, reply);
		return true;
	}
	flight = redis_flights_pop(&connection->flights);
	redis_tracking_forget(connection->store, flight.ours);
	command_finish(connection, &flight, reply);
	free(flight.value);
	free(reply);
	return true;
}
