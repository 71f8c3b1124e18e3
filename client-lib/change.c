/*
 * change.c - changes that depend on what is there, life times, and the barrier behind writes that were accepted.
 *
 * Compare-and-set is a set under the condition RSHM_IF_VERSION. incr is one request, not a loop of this kind: the agent orders
 * the adders of this host by key and repeats by version against those of others.
 */
#include "client-lib/riptide_priv.h"

int riptide_touch(riptide *handle, const void *key, size_t key_length, uint64_t ttl_ms)
{
	struct rt_call call;
	int status = rt_begin_key(handle, &call, "touch", RSHM_OP_TOUCH, key, key_length);

	if (status < 0)
		return status;
	call.writes = true;
	call.ttl_ms = ttl_ms;
	return rt_call(handle, &call);
}

int riptide_ttl(riptide *handle, const void *key, size_t key_length, uint64_t *ret_ttl_ms)
{
	struct rt_call call;
	int status = rt_begin_key(handle, &call, "ttl", RSHM_OP_EXISTS, key, key_length);

	if (status < 0)
		return status;
	if (!ret_ttl_ms)
		return rt_fail(handle, RIPTIDE_EINVALID, "ttl", key, key_length, "a place for the time is needed");
	/* Of the store: the hot copy may live shorter. */
	call.flags = RSHM_REQUEST_FRESH;
	status = rt_call(handle, &call);
	if (status == RIPTIDE_OK)
		*ret_ttl_ms = call.answer.ttl_ms;
	return status;
}

int riptide_cas(riptide *handle, const void *key, size_t key_length, uint64_t expected_version, const void *value,
		size_t value_length, const struct riptide_set_options *options, uint64_t *ret_version)
{
	struct rt_call call;
	int status = rt_begin_key(handle, &call, "cas", RSHM_OP_SET, key, key_length);

	if (status < 0)
		return status;
	call.version = expected_version;
	call.change = rshm_change(RSHM_IF_VERSION, RSHM_WRITE_THROUGH, 0);
	return rt_put(handle, &call, value, value_length, options, ret_version);
}

static int place_number(struct rt_call *call)
{
	if (call->answer.answer_len != sizeof(int64_t) || call->answer.metadata_len)
		return RIPTIDE_EPROTOCOL;
	call->body_to = call->context;
	return RIPTIDE_OK;
}

int riptide_incr(riptide *handle, const void *key, size_t key_length, int64_t delta,
		 const struct riptide_set_options *options, int64_t *ret_value)
{
	struct rt_call call;
	int64_t value = 0;
	int status = rt_begin_key(handle, &call, "incr", RSHM_OP_INCR, key, key_length);

	if (status < 0)
		return status;
	call.change = rshm_change(RSHM_ALWAYS, RSHM_WRITE_THROUGH, 0);
	call.operand = (uint64_t)delta;
	call.place = place_number;
	call.context = &value;
	status = rt_put(handle, &call, NULL, 0, options, NULL);
	if (status == RIPTIDE_OK && ret_value)
		*ret_value = value;
	return status;
}

int riptide_flush(riptide *handle)
{
	struct rt_call call;
	int status = rt_begin(handle, &call, "flush", RSHM_OP_FLUSH);

	/* May be repeated: an agent that began anew has the same journal. */
	return status < 0 ? status : rt_call(handle, &call);
}
