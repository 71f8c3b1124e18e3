/*
 * get.c - reading an entry: out of shared memory if it is there and may be believed, else through the agent.
 *
 *   look (hot_priv.h): enter ─▶ find, copy, check the tail ─▶ clock, judge ─▶ count ─▶ leave       no call of the system
 *   ask  (request.c):  GET through the channel, answer in pieces
 *
 * A look that meets a retired segment asks for the present one and looks once more. What the ring holds may change while it
 * is copied; nothing that was copied is used before rshm_still_valid() has said so.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client-lib/hot_priv.h"

#define COPY_ATTEMPTS 3

uint64_t rt_realtime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

uint64_t rt_age_ms(uint64_t version)
{
	uint64_t now_ms = rt_realtime_ms(), then_ms = version >> 16;

	return now_ms > then_ms ? now_ms - then_ms : 0;
}

void rt_look_info(const struct rt_look *look, const struct rshm_found *found, uint32_t flags,
		  struct riptide_info *ret)
{
	ret->version = found->entry.version;
	ret->age_ms = rt_age_ms(found->entry.version);
	ret->ttl_ms = found->entry.control_b == RSHM_NEVER ? RIPTIDE_NEVER : found->entry.control_b - look->now_ms;
	ret->flags = flags;
	ret->metadata_length = found->entry.metadata_len;
}

/* After a look: is there another segment to look at? */
static bool segment_has_changed(riptide *handle, int outcome, uint64_t deadline_ms)
{
	return outcome == RT_RELOCATE && rt_relocate(handle, deadline_ms);
}

/* ---- into the caller's buffer ------------------------------------------------------------------------------- */

struct target {
	void *buffer;
	size_t capacity;
	size_t *ret_length;
	struct riptide_info *ret_info;
};

static int look_into(riptide *handle, const void *key, size_t key_length, const struct target *target)
{
	struct rt_look look;
	struct rshm_found found;
	enum rshm_outcome outcome;
	uint32_t flags;
	int status;

	if (!rt_look_begin(handle, &look))
		return RT_ASK;
	if (!rt_look_can_see(&look))
		return rt_look_blind(&look);
	outcome = rshm_read(&look.sight->reader, rshm_hash(look.sight->reader.hash_seed, key, key_length), key,
			    key_length, target->buffer, target->capacity, NULL, 0, &found);
	status = outcome == RSHM_FOUND ? rt_look_judge(&look, &found, &flags, NULL) : rt_look_missed(&look, outcome);
	if (status == RIPTIDE_OK) {
		rt_look_hit(&look, &found);
		*target->ret_length = found.entry.value_len;
		if (found.entry.value_len > target->capacity)
			status = RIPTIDE_ETOOSMALL;
		else if (target->ret_info)
			rt_look_info(&look, &found, flags, target->ret_info);
	} else if (status == RIPTIDE_MISS && target->ret_info) {
		rt_info_of_absence(flags, target->ret_info);
	}
	rt_look_end(&look);
	return status;
}

/* The answer's value goes to the buffer if it fits; metadata is not wanted. */
static int place_into(struct rt_call *call)
{
	const struct target *target = call->context;
	size_t length = call->answer.answer_len - call->answer.metadata_len;

	*target->ret_length = length;
	if (length > target->capacity)
		return RIPTIDE_ETOOSMALL;
	call->body_to = target->buffer;
	return RIPTIDE_OK;
}

static int ask_into(riptide *handle, const void *key, size_t key_length, uint64_t deadline_ms, struct target *target)
{
	struct rt_call call;
	int status;

	rt_call_init(&call, "get", RSHM_OP_GET, key, key_length, deadline_ms);
	call.place = place_into;
	call.context = target;
	status = rt_call_run(handle, &call);
	if (status >= 0 && target->ret_info)
		rt_info_of_answer(&call.answer, target->ret_info);
	/* Too small a buffer is an ordinary way to ask for the length: no error text for it. */
	if (status < 0 && status != RIPTIDE_ETOOSMALL)
		return rt_fail(handle, status, call.verb, key, key_length, call.trouble);
	return status;
}

int riptide_get_into(riptide *handle, const void *key, size_t key_length, void *buffer, size_t capacity,
		     size_t *ret_length, struct riptide_info *ret_info)
{
	char nothing;
	struct target target = {buffer ? buffer : &nothing, capacity, ret_length, NULL};
	uint64_t deadline_ms;
	int status = rt_check_key(handle, "get", key, key_length);

	if (status < 0)
		return status;
	if (!ret_length || (!buffer && capacity))
		return rt_fail(handle, RIPTIDE_EINVALID, "get", key, key_length, "a place for the length is needed");
	target.ret_info = ret_info;
	status = look_into(handle, key, key_length, &target);
	if (__builtin_expect(status == RIPTIDE_OK, 1))
		return status;
	deadline_ms = rt_deadline_ms(handle);
	if (segment_has_changed(handle, status, deadline_ms))
		status = look_into(handle, key, key_length, &target);
	if (status == RIPTIDE_ESTALE)
		return rt_fail(handle, status, "get", key, key_length, NULL);
	return status < RT_ASK ? status : ask_into(handle, key, key_length, deadline_ms, &target);
}

/* ---- into memory of its own --------------------------------------------------------------------------------- */

int rt_value_alloc(size_t value_length, size_t metadata_length, struct riptide_value *value)
{
	unsigned char *data = malloc(value_length + 1 + metadata_length);

	if (!data)
		return RIPTIDE_ENOMEM;
	data[value_length] = '\0';
	value->data = data;
	value->length = value_length;
	value->metadata = metadata_length ? data + value_length + 1 : NULL;
	value->metadata_length = metadata_length;
	return RIPTIDE_OK;
}

/* Finds and copies into fresh memory. RIPTIDE_OK with *value and *found, RIPTIDE_ENOMEM, RT_ASK or RT_RELOCATE. */
static int copy_found(const struct rt_look *look, uint64_t hash, const void *key, size_t key_length,
		      struct rshm_found *found, struct riptide_value *value)
{
	const struct rshm_reader *reader = &look->sight->reader;

	for (int attempt = 0; attempt < COPY_ATTEMPTS; attempt++) {
		enum rshm_outcome outcome = rshm_find(reader, hash, key, key_length, found);
		const struct rshm_entry *entry = &found->entry;
		int status;

		if (outcome != RSHM_FOUND)
			return rt_look_missed(look, outcome);
		status = rt_value_alloc(entry->value_len, entry->metadata_len, value);
		if (status < 0)
			return status;
		if (entry->metadata_len)
			rshm_copy_out(value->metadata, found->bytes + key_length, entry->metadata_len);
		rshm_copy_out(value->data, found->bytes + key_length + entry->metadata_len, entry->value_len);
		if (rshm_still_valid(reader, found))
			return RIPTIDE_OK;
		free(value->data);
	}
	return rt_look_missed(look, RSHM_LAPPED);
}

/* What the judge has hidden of the metadata that was copied before. */
static void hide_metadata(struct riptide_value *value, size_t visible)
{
	value->metadata = visible ? (unsigned char *)value->metadata + (value->metadata_length - visible) : NULL;
	value->metadata_length = visible;
}

int rt_look_value(riptide *handle, const void *key, size_t key_length, uint64_t *soft_ms, struct riptide_value *ret)
{
	struct rt_look look;
	struct rshm_found found;
	struct riptide_value value;
	uint32_t flags;
	int status;

	if (!rt_look_begin(handle, &look))
		return RT_ASK;
	if (!rt_look_can_see(&look))
		return rt_look_blind(&look);
	status = copy_found(&look, rshm_hash(look.sight->reader.hash_seed, key, key_length), key, key_length, &found,
			    &value);
	if (status == RIPTIDE_OK) {
		status = rt_look_judge(&look, &found, &flags, soft_ms);
		if (status == RIPTIDE_OK) {
			rt_look_hit(&look, &found);
			rt_look_info(&look, &found, flags, &value.info);
			if (found.entry.metadata_len != value.metadata_length)
				hide_metadata(&value, found.entry.metadata_len);
			*ret = value;
		} else {
			free(value.data);
			if (status == RIPTIDE_MISS)
				rt_info_of_absence(flags, &ret->info);
		}
	}
	rt_look_end(&look);
	return status;
}

static int place_value(struct rt_call *call)
{
	struct riptide_value *value = call->context;
	size_t metadata_length = call->answer.metadata_len;
	int status;

	/* Called again after the agent died between two pieces. */
	free(value->data);
	value->data = NULL;
	status = rt_value_alloc(call->answer.answer_len - metadata_length, metadata_length, value);
	if (status < 0)
		return status;
	call->body_to = value->data;
	call->metadata_to = value->metadata;
	return RIPTIDE_OK;
}

int rt_call_value(riptide *handle, struct rt_call *call, struct riptide_value *ret)
{
	struct riptide_value value = {.data = NULL};
	int status;

	call->place = place_value;
	/* cppcheck-suppress autoVariables ; the call ends before this function does */
	call->context = &value;
	status = rt_call(handle, call);
	if (status >= 0)
		rt_info_of_answer(&call->answer, &value.info);
	if (status == RIPTIDE_OK)
		*ret = value;
	else
		free(value.data);
	if (status == RIPTIDE_MISS)
		ret->info = value.info;
	return status;
}

int rt_ask_value(riptide *handle, const void *key, size_t key_length, uint64_t deadline_ms, struct riptide_value *ret)
{
	struct rt_call call;

	rt_call_init(&call, "get", RSHM_OP_GET, key, key_length, deadline_ms);
	return rt_call_value(handle, &call, ret);
}

int riptide_get(riptide *handle, const void *key, size_t key_length, struct riptide_value *ret_value)
{
	uint64_t deadline_ms;
	int status = rt_check_key(handle, "get", key, key_length);

	if (status < 0)
		return status;
	if (!ret_value)
		return rt_fail(handle, RIPTIDE_EINVALID, "get", key, key_length, "a place for the value is needed");
	status = rt_look_value(handle, key, key_length, NULL, ret_value);
	if (status == RIPTIDE_OK)
		return status;
	deadline_ms = rt_deadline_ms(handle);
	if (segment_has_changed(handle, status, deadline_ms))
		status = rt_look_value(handle, key, key_length, NULL, ret_value);
	if (status == RIPTIDE_ESTALE || status == RIPTIDE_ENOMEM)
		return rt_fail(handle, status, "get", key, key_length, NULL);
	return status < RT_ASK ? status : rt_ask_value(handle, key, key_length, deadline_ms, ret_value);
}

void riptide_value_free(struct riptide_value *value)
{
	if (!value)
		return;
	free(value->data);
	memset(value, 0, sizeof(*value));
}
