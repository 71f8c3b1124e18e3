/*
 * Requests as commands, and what their answers mean.
 *
 *	GET     GET, PTTL              two commands, one request in flight; GET alone if skip_remaining
 *	HEAD    GETRANGE 0 n-1         empty = not there
 *	PUT     SET [PX ms]            of what is expired already: UNLINK
 *	DELETE  UNLINK                 DEL on servers without it
 *	TOUCH   EVALSHA touch script   EVAL where it is not known yet; to what lies in the past: UNLINK
 *
 * Times to live are sent as durations: the clocks of agent and server need not agree.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/store/envelope.h"
#include "agent/store/redis/redis_priv.h"
#include "agent/store/redis/script.h"
#include "shm/msg.h"

/* Redis refuses what overflows its clock; nobody waits 1,000 years. */
#define COMMAND_TTL_MAX_MS (1000ull * 365 * 86400 * 1000)

/* ---- sending --------------------------------------------------------------------------------------------------- */

/* Milliseconds to live; 0: expired. */
static uint64_t time_to_live(uint64_t expiry_ms, uint64_t now_ms)
{
	uint64_t left_ms = expiry_ms > now_ms ? expiry_ms - now_ms : 0;

	return left_ms < COMMAND_TTL_MAX_MS ? left_ms : COMMAND_TTL_MAX_MS;
}

static void put_key(struct redis_output *output, uint32_t words, const char *name, const struct keys_redis *key)
{
	redis_output_command(output, words, name);
	redis_output_string(output, key->bytes, key->length);
}

static void put_remove(struct redis_connection *connection, const struct keys_redis *key)
{
	put_key(&connection->output, 2, connection->store->no_unlink ? "DEL" : "UNLINK", key);
}

static void put_head(struct redis_output *output, const struct store_request *request, const struct keys_redis *key)
{
	size_t wanted = request->head_bytes > ENVELOPE_HEAD_BYTES ? request->head_bytes : ENVELOPE_HEAD_BYTES;

	put_key(output, 4, "GETRANGE", key);
	redis_output_number(output, 0);
	redis_output_number(output, wanted - 1);
}

static void put_set(struct redis_output *output, const struct store_request *request, const struct keys_redis *key,
		    uint64_t now_ms)
{
	put_key(output, request->expiry_ms != 0 ? 5 : 3, "SET", key);
	redis_output_lend(output, request->envelope, request->envelope_len);
	if (request->expiry_ms != 0) {
		redis_output_string(output, "PX", 2);
		redis_output_number(output, time_to_live(request->expiry_ms, now_ms));
	}
}

static void put_touch(struct redis_output *output, const struct store_request *request, const struct keys_redis *key,
		      uint64_t now_ms, bool whole)
{
	uint64_t fields[2] = {htole64(request->expiry_ms),
			      htole64(envelope_expiry_bucket(now_ms, request->expiry_ms))};

	redis_output_command(output, 6, whole ? "EVAL" : "EVALSHA");
	if (whole)
		redis_output_string(output, redis_script_touch, strlen(redis_script_touch));
	else
		redis_output_string(output, REDIS_SCRIPT_TOUCH_SHA, strlen(REDIS_SCRIPT_TOUCH_SHA));
	redis_output_number(output, 1);
	redis_output_string(output, key->bytes, key->length);
	redis_output_string(output, fields, sizeof(fields));
	redis_output_number(output, request->expiry_ms != 0 ? time_to_live(request->expiry_ms, now_ms) : 0);
}

static enum redis_command put_request(struct redis_connection *connection, const struct store_request *request,
				      const struct keys_redis *key, bool whole_script)
{
	struct redis_output *output = &connection->output;
	bool has_expiry = (request->op == STORE_PUT || request->op == STORE_TOUCH) && request->expiry_ms != 0;
	uint64_t now_ms = request->op == STORE_TOUCH || has_expiry ? clock_realtime_ms() : 0;
	bool is_expired = has_expiry && request->expiry_ms <= now_ms;

	switch (request->op) {
	case STORE_GET:
		put_key(output, 2, "GET", key);
		if (request->skip_remaining)
			return REDIS_COMMAND_GET_ALONE;
		put_key(output, 2, "PTTL", key);
		return REDIS_COMMAND_GET;
	case STORE_HEAD:
		put_head(output, request, key);
		return REDIS_COMMAND_HEAD;
	case STORE_PUT:
		if (is_expired)
			break;
		put_set(output, request, key, now_ms);
		return REDIS_COMMAND_SET;
	case STORE_TOUCH:
		if (is_expired)
			break;
		put_touch(output, request, key, now_ms, whole_script);
		return REDIS_COMMAND_TOUCH;
	case STORE_DELETE:
		break;
	}
	put_remove(connection, key);
	return request->op == STORE_PUT ? REDIS_COMMAND_REMOVE_EXPIRED : REDIS_COMMAND_DELETE;
}

static int command_send(struct redis_connection *connection, struct store_request *request, bool whole_script)
{
	struct redis_store *store = connection->store;
	struct redis_output_mark mark = redis_output_mark(&connection->output);
	struct redis_flight flight = {.request = request, .begun_ms = clock_monotonic_ms()};
	struct keys_redis key;
	int status = keys_redis(&store->keys, &request->name, &key);

	if (status == RSHM_OK && request->op == STORE_PUT && request->envelope_len > store->config.envelope_max)
		status = RSHM_E_TOOBIG;
	if (status == RSHM_OK && !redis_flights_reserve(&connection->flights))
		status = RSHM_E_NOMEM;
	if (status != RSHM_OK)
		return status;
	flight.command = put_request(connection, request, &key, whole_script);
	if (connection->output.failed) {
		redis_output_rollback(&connection->output, mark);
		return RSHM_E_NOMEM;
	}
	flight.replies_left = flight.command == REDIS_COMMAND_GET ? 2 : 1;
	flight.end = connection->output.queued;
	redis_flights_push(&connection->flights, flight);
	redis_store_wake(store, flight.begun_ms + store->config.command_timeout_ms);
	redis_connection_mark_dirty(connection);
	return RSHM_OK;
}

int redis_command_send(struct redis_connection *connection, struct store_request *request)
{
	must(connection->state == REDIS_CONNECTION_READY);
	return command_send(connection, request, false);
}

int redis_command_send_kill(struct redis_connection *connection, uint64_t client_id)
{
	struct redis_output_mark mark = redis_output_mark(&connection->output);
	struct redis_flight flight = {.command = REDIS_COMMAND_KILL, .client_id = client_id, .replies_left = 1};

	if (!redis_flights_reserve(&connection->flights))
		return RSHM_E_NOMEM;
	redis_output_command(&connection->output, 4, "CLIENT");
	redis_output_string(&connection->output, "KILL", 4);
	redis_output_string(&connection->output, "ID", 2);
	redis_output_number(&connection->output, client_id);
	if (connection->output.failed) {
		redis_output_rollback(&connection->output, mark);
		return RSHM_E_NOMEM;
	}
	flight.end = connection->output.queued;
	flight.begun_ms = clock_monotonic_ms();
	redis_flights_push(&connection->flights, flight);
	redis_store_wake(connection->store, flight.begun_ms + connection->store->config.command_timeout_ms);
	redis_connection_mark_dirty(connection);
	return RSHM_OK;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

/* Whether this kind of answer can belong to the command. Errors can to any. */
static bool reply_fits(const struct redis_flight *flight, const struct redis_reply *reply)
{
	switch (flight->command) {
	case REDIS_COMMAND_GET:
		if (flight->replies_left == 1)
			return reply->type == REDIS_REPLY_IS_INTEGER;
		return reply->type == REDIS_REPLY_IS_STRING || reply->type == REDIS_REPLY_IS_NIL;
	case REDIS_COMMAND_GET_ALONE:
		return reply->type == REDIS_REPLY_IS_STRING || reply->type == REDIS_REPLY_IS_NIL;
	case REDIS_COMMAND_HEAD:
	case REDIS_COMMAND_INFO:
		return reply->type == REDIS_REPLY_IS_STRING;
	case REDIS_COMMAND_SET:
	case REDIS_COMMAND_AUTH:
	case REDIS_COMMAND_SELECT:
	case REDIS_COMMAND_SETNAME:
		return reply->type == REDIS_REPLY_IS_STATUS;
	case REDIS_COMMAND_REMOVE_EXPIRED:
	case REDIS_COMMAND_DELETE:
	case REDIS_COMMAND_TOUCH:
	case REDIS_COMMAND_CLIENT_ID:
	case REDIS_COMMAND_KILL:
		return reply->type == REDIS_REPLY_IS_INTEGER;
	}
	return false;
}

/* A refused command is sent in its other form, if it has one. */
static bool command_fall_back(struct redis_connection *connection, const struct redis_flight *flight,
			      const struct redis_reply *error)
{
	struct redis_store *store = connection->store;
	bool whole_script = flight->command == REDIS_COMMAND_TOUCH && redis_reply_error_is(error, "NOSCRIPT");
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

	if (command_fall_back(connection, flight, error))
		return;
	if (verdict.advice != NULL)
		redis_store_log_error(store, verdict.advice, error);
	if (verdict.leave && connection->state == REDIS_CONNECTION_READY)
		redis_pool_retire(connection);
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
	case REDIS_COMMAND_HEAD:
		request->result = reply->bytes;
		request->result_len = reply->length;
		return reply->length > 0 ? RSHM_OK : RSHM_MISS;
	case REDIS_COMMAND_DELETE:
		return reply->integer > 0 ? RSHM_OK : RSHM_MISS;
	case REDIS_COMMAND_TOUCH:
		return touch_status(reply->integer);
	default:
		return RSHM_OK;
	}
}

static void command_finish(struct redis_connection *connection, const struct redis_flight *flight,
			   const struct redis_reply *reply)
{
	struct store_request *request = flight->request;

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
	if (flight->value != NULL && flight->value->type == REDIS_REPLY_IS_ERROR)
		command_on_error(connection, flight, flight->value);
	else if (reply->type == REDIS_REPLY_IS_ERROR)
		command_on_error(connection, flight, reply);
	else
		redis_store_answer(connection->store, request, command_status(flight, reply));
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
	if (oldest->replies_left > 1) {
		oldest->replies_left--;
		oldest->value = reply;
		return true;
	}
	flight = redis_flights_pop(&connection->flights);
	command_finish(connection, &flight, reply);
	free(flight.value);
	free(reply);
	return true;
}
