/*
 * op_incr.c - counting: get, compute, compare-and-set, again if another host was faster.
 *
 * On this host the key's turn keeps others out; the condition on the version keeps out other hosts. What the entry carries
 * (metadata, life time) stays. A missing one counts as 0 and begins with what the request brings.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/serve/serve_priv.h"

#define ATTEMPTS_MAX 100u /* against other hosts; the deadline usually ends it before */
#define DIGITS_MAX 20u    /* of a 64-bit number and its sign */

/* A whole decimal number and nothing else. */
static bool parse_number(const void *bytes, size_t length, int64_t *ret)
{
	char text[DIGITS_MAX + 2], *end;
	long long value;

	if (length == 0 || length > DIGITS_MAX)
		return false;
	memcpy(text, bytes, length);
	text[length] = '\0';
	if (text[0] != '-' && (text[0] < '0' || text[0] > '9'))
		return false;
	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno || end != text + length || end == text)
		return false;
	*ret = value;
	return true;
}

static void incr_start(struct entry_op *op);

static void incr_on_written(struct entry_op *op, int status)
{
	if (status == RSHM_CONFLICT && ++op->attempts < ATTEMPTS_MAX && !entry_deadline_passed(op)) {
		incr_start(op);
		return;
	}
	/* Who loads the key at this moment may bring what was there before. */
	if (status == RSHM_OK || status == RSHM_E_UNKNOWN)
		loading_written(op->worker->loading, op->tenant, op->key, op->key_len, clock_monotonic_ms());
	op->result_metadata_len = 0;
	op->result_value = &op->number;
	op->result_value_len = sizeof(op->number);
	entry_complete(op, status == RSHM_CONFLICT ? RSHM_E_AGAIN : status, false);
}

/* Keeps what the entry carries while the store is asked again. */
static int keep_metadata(struct entry_op *op)
{
	unsigned char *copy;

	if (op->result_metadata_len == 0) {
		op->metadata_len = 0;
		return RSHM_OK;
	}
	copy = malloc(op->result_metadata_len);
	if (!copy)
		return RSHM_E_NOMEM;
	memcpy(copy, op->result_metadata, op->result_metadata_len);
	free(op->kept_metadata);
	op->kept_metadata = copy;
	op->metadata = copy;
	op->metadata_len = op->result_metadata_len;
	return RSHM_OK;
}

static void incr_on_loaded(struct entry_op *op, int status)
{
	int64_t number = 0;

	if (status == RSHM_OK) {
		status = parse_number(op->result_value, op->result_value_len, &number) ? keep_metadata(op)
										       : RSHM_E_INVALID;
	} else if (status == RSHM_MISS) {
		op->metadata = op->request_metadata;
		op->metadata_len = op->request_metadata_len;
		op->expiry_ms = entry_expiry_ms(op, op->ttl_ms);
		status = RSHM_OK;
	}
	if (status == RSHM_OK && __builtin_add_overflow(number, (int64_t)op->operand, &op->number))
		status = RSHM_E_INVALID;
	if (status < 0) {
		entry_complete(op, status == RSHM_E_UNKNOWN ? RSHM_E_TIMEDOUT : status, false);
		return;
	}
	free(op->payload);
	op->payload = NULL;
	op->value_len = (size_t)snprintf(op->digits, sizeof(op->digits), "%" PRId64, op->number);
	op->value = op->digits;
	op->condition = STORE_IF_VERSION;
	op->expected_version = op->found_version;
	entry_write(op, incr_on_written);
}

static void incr_start(struct entry_op *op)
{
	entry_load(op, incr_on_loaded);
}

static void incr_on_turn(struct inflight_op *turn)
{
	struct entry_op *op = (struct entry_op *)turn;

	if (entry_deadline_passed(op))
		entry_complete(op, RSHM_E_TIMEDOUT, false);
	else
		incr_start(op);
}

void entry_incr(struct entry_op *op)
{
	op->request_metadata = op->metadata;
	op->request_metadata_len = op->metadata_len;
	entry_take_turn(op, false, incr_on_turn);
}
