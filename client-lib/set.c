/*
 * set.c - changing one entry. All of it goes through the channel; the agent has changed or removed the hot copy before it
 * answers, so that after RIPTIDE_OK no reader of this host gets the older value.
 */
#include <stdlib.h>

#include "client-lib/riptide_priv.h"

int rt_set(riptide *handle, const void *key, size_t key_length, const void *value, size_t value_length,
	   const struct riptide_set_options *options, uint64_t deadline_ms, uint64_t *ret_version)
{
	unsigned char *metadata = NULL;
	size_t metadata_length = 0;
	struct rt_call call;
	int status;

	if (!value && value_length)
		return rt_fail(handle, RIPTIDE_EINVALID, "set", key, key_length, "the value is missing");
	rt_call_init(&call, "set", RSHM_OP_SET, key, key_length, deadline_ms);
	status = rt_set_options(options, &call.ttl_ms, &metadata, &metadata_length);
	if (status < 0)
		return rt_fail(handle, status, "set", key, key_length,
			       status == RIPTIDE_EINVALID ? "bad options or metadata" : NULL);
	call.writes = true;
	call.metadata_len = (uint32_t)metadata_length;
	call.parts[1] = (struct rt_part){metadata, metadata_length};
	call.parts[2] = (struct rt_part){value, value_length};
	status = rt_call(handle, &call);
	free(metadata);
	if (status == RIPTIDE_OK && ret_version)
		*ret_version = call.answer.version;
	return status;
}

int riptide_set(riptide *handle, const void *key, size_t key_length, const void *value, size_t value_length,
		const struct riptide_set_options *options, uint64_t *ret_version)
{
	int status = rt_check_key(handle, "set", key, key_length);

	if (status < 0)
		return status;
	return rt_set(handle, key, key_length, value, value_length, options, rt_deadline_ms(handle), ret_version);
}

int rt_delete(riptide *handle, const void *key, size_t key_length, uint64_t deadline_ms)
{
	struct rt_call call;

	rt_call_init(&call, "delete", RSHM_OP_DELETE, key, key_length, deadline_ms);
	call.writes = true;
	return rt_call(handle, &call);
}

int riptide_delete(riptide *handle, const void *key, size_t key_length)
{
	int status = rt_check_key(handle, "delete", key, key_length);

	return status < 0 ? status : rt_delete(handle, key, key_length, rt_deadline_ms(handle));
}

int riptide_touch(riptide *handle, const void *key, size_t key_length, uint64_t ttl_ms)
{
	struct rt_call call;
	int status = rt_check_key(handle, "touch", key, key_length);

	if (status < 0)
		return status;
	rt_call_init(&call, "touch", RSHM_OP_TOUCH, key, key_length, rt_deadline_ms(handle));
	call.writes = true;
	call.ttl_ms = ttl_ms;
	return rt_call(handle, &call);
}
