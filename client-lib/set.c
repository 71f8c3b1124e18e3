/*
 * set.c - writing a whole value, and removing one. All of it goes through the channel; the agent has changed or removed the hot
 * copy before it answers, so that after RIPTIDE_OK no reader of this host gets the older value.
 */
#include <stdlib.h>

#include "client-lib/riptide_priv.h"

#define SAME(ours, theirs) _Static_assert((unsigned int)(ours) == (unsigned int)(theirs), "one number, two names")
SAME(RIPTIDE_IF_ABSENT, RSHM_IF_ABSENT);
SAME(RIPTIDE_IF_PRESENT, RSHM_IF_PRESENT);
SAME(RIPTIDE_WRITE_THROUGH, RSHM_WRITE_THROUGH);
SAME(RIPTIDE_WRITE_BEHIND, RSHM_WRITE_BEHIND);
SAME(RIPTIDE_COMPRESS_NONE, RSHM_COMPRESS_NONE);
SAME(RIPTIDE_COMPRESS_LZ4, RSHM_COMPRESS_LZ4);
SAME(RIPTIDE_COMPRESS_ZSTD, RSHM_COMPRESS_ZSTD);
SAME(RIPTIDE_COMPRESS_AUTO, RSHM_COMPRESS_AUTO);

int rt_change_init(const struct riptide_set_options *options, uint64_t soft_deadline_ms, struct rt_change *ret)
{
	static const struct riptide_set_options none = {.size = sizeof(none)};

	*ret = (struct rt_change){.ttl_ms = RSHM_TTL_DEFAULT};
	if (!options)
		options = &none;
	/* A caller of a later version brings a longer struct; a shorter one never existed. */
	if (options->size < sizeof(*options) || (unsigned int)options->condition > RIPTIDE_IF_PRESENT ||
	    (unsigned int)options->write_mode > RIPTIDE_WRITE_BEHIND ||
	    (unsigned int)options->compression > RIPTIDE_COMPRESS_AUTO)
		return RIPTIDE_EINVALID;
	ret->ttl_ms = options->ttl_ms;
	ret->bits = rshm_change(options->condition, options->write_mode, options->compression);
	return rt_metadata_encode(options->metadata, soft_deadline_ms, &ret->metadata, &ret->metadata_length);
}

void rt_change_fini(struct rt_change *change)
{
	free(change->metadata);
	change->metadata = NULL;
}

int rt_write(riptide *handle, struct rt_call *call, const struct rt_change *change, const void *value,
	     size_t value_length, uint64_t *ret_version)
{
	int status;

	call->writes = true;
	call->change = change->bits;
	call->ttl_ms = change->ttl_ms;
	call->metadata_len = (uint32_t)change->metadata_length;
	call->parts[1] = (struct rt_part){change->metadata, change->metadata_length};
	call->parts[2] = (struct rt_part){value, value_length};
	status = rt_call(handle, call);
	if ((status == RIPTIDE_OK || status == RIPTIDE_CONFLICT) && ret_version)
		*ret_version = call->answer.version;
	return status;
}

void rt_tell_flags(const struct riptide_set_options *options, uint32_t answer_flags)
{
	if (options && options->ret_flags)
		*options->ret_flags = answer_flags & RSHM_ANSWER_ACCEPTED ? RIPTIDE_ACCEPTED : 0;
}

int rt_put(riptide *handle, struct rt_call *call, const void *value, size_t value_length,
	   const struct riptide_set_options *options, uint64_t *ret_version)
{
	uint32_t forced = call->change;
	struct rt_change change;
	int status = rt_change_init(options, 0, &change);
	const char *trouble = "bad options or metadata";

	if (!value && value_length) {
		status = RIPTIDE_EINVALID;
		trouble = "the value is missing";
	}
	if (forced && rshm_change_condition(change.bits) != RSHM_ALWAYS)
		status = RIPTIDE_EINVALID;
	if (forced)
		change.bits = forced | rshm_change(0, 0, rshm_change_compression(change.bits));
	if (status == RIPTIDE_OK)
		status = rt_write(handle, call, &change, value, value_length, ret_version);
	else
		status = rt_fail(handle, status, call->verb, call->key, call->key_length,
				 status == RIPTIDE_EINVALID ? trouble : NULL);
	rt_change_fini(&change);
	if (status == RIPTIDE_OK)
		rt_tell_flags(options, call->answer.flags);
	return status;
}

int rt_set(riptide *handle, const void *key, size_t key_length, const void *value, size_t value_length,
	   const struct riptide_set_options *options, uint64_t deadline_ms, uint64_t *ret_version)
{
	struct rt_call call;

	rt_call_init(&call, "set", RSHM_OP_SET, key, key_length, deadline_ms);
	return rt_put(handle, &call, value, value_length, options, ret_version);
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
