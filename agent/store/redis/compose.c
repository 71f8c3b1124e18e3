/*
 * Requests in the words of the server.
 *
 *	GET                 GET, PTTL                 one request in flight; GET alone if skip_remaining
 *	HEAD                GETRANGE 0 n-1            empty = not there
 *	PUT                 SET [PX ms]               of what is expired already: UNLINK
 *	DELETE              UNLINK                    DEL on servers without it; a tombstone goes too, and counts
 *	PUT, DELETE         EVALSHA change script     with a condition
 *	TOUCH               EVALSHA touch script      to what lies in the past: UNLINK
 *	LIST                SCAN, GETRANGEs           listing.c
 *	*GENERATION, SWEPT  EVALSHA namespace script
 *	FLUSH               nothing                   redis.c
 *
 * Scripts are sent as EVAL where they are not known yet. Times to live are sent as durations: the clocks of agent and
 * server need not agree. To a condition an entry is expired when it is by either clock, as it is to our readers.
 */
#include <endian.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/store/envelope.h"
#include "agent/store/redis/redis_priv.h"
#include "agent/store/redis/script.h"
#include "shm/msg.h"

/* Redis refuses what overflows its clock; nobody waits 1,000 years. */
#define COMPOSE_TTL_MAX_MS (1000ull * 365 * 86400 * 1000)

/* ---- whether --------------------------------------------------------------------------------------------------- */

static bool is_conditional(const struct store_request *request)
{
	return (request->op == STORE_PUT || request->op == STORE_DELETE) && request->condition != STORE_ALWAYS;
}

/* Whether the request can be served. */
static int request_check(const struct redis_store *store, const struct store_request *request)
{
	bool has_envelope = request->op == STORE_PUT && request->envelope_len >= ENVELOPE_HEAD_BYTES;

	switch (request->op) {
	case STORE_PUT:
		if (request->envelope_len > store->config.envelope_max)
			return RSHM_E_TOOBIG;
		if (request->condition == STORE_ALWAYS)
			return RSHM_OK;
		return request->condition <= STORE_IF_OLDER && has_envelope ? RSHM_OK : RSHM_E_INVALID;
	case STORE_DELETE:
		return request->condition == STORE_ALWAYS || request->condition == STORE_IF_VERSION ? RSHM_OK
												    : RSHM_E_INVALID;
	case STORE_SWEPT:
		return request->swept <= REDIS_GENERATION_MAX ? RSHM_OK : RSHM_E_INVALID;
	case STORE_GET:
	case STORE_HEAD:
	case STORE_TOUCH:
	case STORE_LIST:
	case STORE_GENERATION:
	case STORE_NEXT_GENERATION:
		return RSHM_OK;
	case STORE_FLUSH: /* answered in submit */
		break;
	}
	return RSHM_E_INVALID;
}

int redis_compose_prepare(const struct redis_store *store, struct store_request *request, struct keys_redis *ret_key)
{
	int status;

	if (request->op == REDIS_NODE_SLOTS)
		return RSHM_OK;
	switch (request->op) {
	case STORE_LIST:
		status = redis_listing_begin(store, request);
		break;
	case STORE_GENERATION:
	case STORE_NEXT_GENERATION:
	case STORE_SWEPT:
		status = keys_redis_tenant(&store->keys, request->name.tenant, ret_key);
		break;
	default:
		status = keys_redis(&store->keys, &request->name, ret_key);
		break;
	}
	return status == RSHM_OK ? request_check(store, request) : status;
}

/* ---- words ----------------------------------------------------------------------------------------------------- */

/* Milliseconds to live; 0: expired. */
static uint64_t time_to_live(uint64_t expiry_ms, uint64_t now_ms)
{
	uint64_t left_ms = expiry_ms > now_ms ? expiry_ms - now_ms : 0;

	return left_ms < COMPOSE_TTL_MAX_MS ? left_ms : COMPOSE_TTL_MAX_MS;
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

/* A script's call; `arguments` of them follow. */
static void put_script(struct redis_output *output, enum redis_script script, bool whole, uint32_t arguments,
		       const struct keys_redis *key)
{
	const char *body = whole ? redis_scripts[script].text : redis_scripts[script].sha;

	redis_output_command(output, 4 + arguments, whole ? "EVAL" : "EVALSHA");
	redis_output_string(output, body, strlen(body));
	redis_output_number(output, 1);
	redis_output_string(output, key->bytes, key->length);
}

static void put_touch(struct redis_output *output, const struct store_request *request, const struct keys_redis *key,
		      uint64_t now_ms, bool whole)
{
	uint64_t fields[2] = {htole64(request->expiry_ms),
			      htole64(envelope_expiry_bucket(now_ms, request->expiry_ms))};

	put_script(output, REDIS_SCRIPT_TOUCH, whole, 2, key);
	redis_output_string(output, fields, sizeof(fields));
	redis_output_number(output, request->expiry_ms != 0 ? time_to_live(request->expiry_ms, now_ms) : 0);
}

static void put_change(struct redis_output *output, const struct store_request *request, const struct keys_redis *key,
		       uint64_t now_ms, bool whole)
{
	static const char letters[] = {[STORE_IF_ABSENT] = REDIS_CHANGE_IF_ABSENT,
				       [STORE_IF_PRESENT] = REDIS_CHANGE_IF_PRESENT,
				       [STORE_IF_VERSION] = REDIS_CHANGE_IF_VERSION,
				       [STORE_IF_OLDER] = REDIS_CHANGE_IF_OLDER};
	uint64_t expected = htole64(request->expected_version), now = htole64(now_ms);
	uint64_t left_ms = time_to_live(request->expiry_ms, now_ms);

	put_script(output, REDIS_SCRIPT_CHANGE, whole, 5, key);
	redis_output_string(output, &letters[redis_request_condition(request)], 1);
	redis_output_string(output, &expected, sizeof(expected));
	if (request->op == STORE_PUT && (request->expiry_ms == 0 || left_ms > 0))
		redis_output_number(output, left_ms);
	else
		redis_output_string(output, "", 0);
	redis_output_string(output, &now, sizeof(now));
	if (request->op == STORE_PUT)
		redis_output_lend(output, request->envelope, request->envelope_len);
	else
		redis_output_string(output, "", 0);
}

static void put_namespace(struct redis_output *output, const struct store_request *request,
			  const struct keys_redis *key, bool whole)
{
	put_script(output, REDIS_SCRIPT_NAMESPACE, whole, 2, key);
	redis_output_number(output, request->op == STORE_NEXT_GENERATION);
	redis_output_number(output, request->op == STORE_SWEPT ? request->swept : 0);
}

/* PUT and TOUCH without a condition. */
static enum redis_command put_timed(struct redis_connection *connection, const struct store_request *request,
				    const struct keys_redis *key, bool whole_script)
{
	bool is_put = request->op == STORE_PUT;
	uint64_t now_ms = !is_put || request->expiry_ms != 0 ? clock_realtime_ms() : 0;

	if (request->expiry_ms != 0 && request->expiry_ms <= now_ms) {
		put_remove(connection, key);
		return is_put ? REDIS_COMMAND_REMOVE_EXPIRED : REDIS_COMMAND_DELETE;
	}
	if (is_put) {
		put_set(&connection->output, request, key, now_ms);
		return REDIS_COMMAND_SET;
	}
	put_touch(&connection->output, request, key, now_ms, whole_script);
	return REDIS_COMMAND_TOUCH;
}

enum redis_command redis_compose(struct redis_connection *connection, const struct store_request *request,
				 const struct keys_redis *key, bool whole_script)
{
	struct redis_output *output = &connection->output;

	if (request->op == REDIS_NODE_SLOTS) {
		redis_output_command(output, 2, "CLUSTER");
		redis_output_string(output, "SLOTS", 5);
		return REDIS_COMMAND_SLOTS;
	}
	if (is_conditional(request)) {
		put_change(output, request, key, clock_realtime_ms(), whole_script);
		return REDIS_COMMAND_CHANGE;
	}
	switch (request->op) {
	case STORE_GET:
		put_key(output, 2, "GET", key);
		if (request->skip_remaining || redis_node_is_asking(request))
			return REDIS_COMMAND_GET_ALONE;
		put_key(output, 2, "PTTL", key);
		return REDIS_COMMAND_GET;
	case STORE_HEAD:
		put_head(output, request, key);
		return REDIS_COMMAND_HEAD;
	case STORE_PUT:
	case STORE_TOUCH:
		return put_timed(connection, request, key, whole_script);
	case STORE_DELETE:
		put_remove(connection, key);
		return REDIS_COMMAND_DELETE;
	case STORE_LIST:
		redis_listing_put_scan(output, request);
		return REDIS_COMMAND_SCAN;
	case STORE_GENERATION:
	case STORE_NEXT_GENERATION:
	case STORE_SWEPT:
		put_namespace(output, request, key, whole_script);
		return REDIS_COMMAND_NAMESPACE;
	case STORE_FLUSH:
		break;
	}
	must(!"an operation that request_check() lets pass");
	return REDIS_COMMAND_GET_ALONE;
}
