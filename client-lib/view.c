/*
 * view.c - the bytes of a hot entry where they lie; and whether there are any.
 *
 * The thread's line carries the address of the sight that it reads from, so the mapping stays although the thread has
 * left the call; the sight's address also stands in thread-local memory, for fork() empties the lines and not the views.
 * (A child whose other threads use the handle before the thread that forked has made a call should not use such a view.)
 * What is not hot is shown in a copy, which is freed at the end; such a view is always valid.
 *
 *	reserved  0 the sight, NULL for a copy   1 the copy   2 position, 3 tail: words of rshm_found   4 the handle
 */
#include <stdlib.h>
#include <string.h>

#include "client-lib/hot_priv.h"

enum { VIEW_SIGHT, VIEW_COPY, VIEW_POSITION, VIEW_TAIL, VIEW_HANDLE };

static void hold(const struct rt_look *look)
{
	rt_thread.view = (uintptr_t)look->sight;
	/* Within the call: whoever sees the call's end sees this too (rt_leave releases it). */
	rshm_store_relaxed(&look->line->view, rt_thread.view);
}

static void let_go(void)
{
	struct rt_line *line = rt_thread.line;

	rt_thread.view = 0;
	/* A child of fork() that made no call since has none. Pairs with rt_view_is_held(). */
	if (rt_line_is_mine(line))
		rshm_store_release(&line->view, 0);
}

static void show(const struct rt_look *look, const struct rshm_found *found, riptide *handle,
		 struct riptide_view *ret)
{
	hold(look);
	memset(ret, 0, sizeof(*ret));
	ret->data = found->bytes + found->entry.key_len + found->entry.metadata_len;
	ret->length = found->entry.value_len;
	ret->reserved[VIEW_SIGHT] = (void *)(uintptr_t)look->sight;
	ret->reserved[VIEW_POSITION] = (void *)(uintptr_t)found->entry.position;
	ret->reserved[VIEW_TAIL] = (void *)(uintptr_t)found->tail;
	ret->reserved[VIEW_HANDLE] = handle;
}

/* Both may be NULL. */
static int look_in_place(riptide *handle, const void *key, size_t key_length, struct riptide_view *ret_view,
			 struct riptide_info *ret_info)
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
	outcome = rshm_find(&look.sight->reader, rshm_hash(look.sight->reader.hash_seed, key, key_length), key,
			    key_length, &found);
	if (outcome == RSHM_FOUND && !rshm_still_valid(&look.sight->reader, &found))
		outcome = RSHM_LAPPED;
	status = outcome == RSHM_FOUND ? rt_look_judge(&look, &found, &flags, NULL) : rt_look_missed(&look, outcome);
	if (status == RIPTIDE_OK) {
		rt_look_hit(&look, &found);
		if (ret_view)
			show(&look, &found, handle, ret_view);
		if (ret_info)
			rt_look_info(&look, &found, flags, ret_info);
	} else if (status == RIPTIDE_MISS && ret_info) {
		rt_info_of_absence(flags, ret_info);
	}
	rt_look_end(&look);
	return status;
}

static int copy_view(riptide *handle, const void *key, size_t key_length, uint64_t deadline_ms,
		     struct riptide_view *ret)
{
	struct riptide_value value;
	int status = rt_ask_value(handle, key, key_length, deadline_ms, &value);

	if (status == RIPTIDE_MISS)
		ret->info = value.info;
	if (status != RIPTIDE_OK)
		return status;
	memset(ret, 0, sizeof(*ret));
	ret->data = value.data;
	ret->length = value.length;
	ret->info = value.info;
	ret->reserved[VIEW_COPY] = value.data;
	ret->reserved[VIEW_HANDLE] = handle;
	return RIPTIDE_OK;
}

int riptide_view(riptide *handle, const void *key, size_t key_length, struct riptide_view *ret_view)
{
	uint64_t deadline_ms;
	int status = rt_check_key(handle, "view", key, key_length);

	if (status < 0)
		return status;
	if (!ret_view)
		return rt_fail(handle, RIPTIDE_EINVALID, "view", key, key_length, "a place for the view is needed");
	if (rt_thread.view)
		return rt_fail(handle, RIPTIDE_EINVALID, "view", key, key_length,
			       "this thread holds a view already: riptide_view_end() ends it");
	status = look_in_place(handle, key, key_length, ret_view, &ret_view->info);
	if (status == RIPTIDE_OK)
		return status;
	deadline_ms = rt_deadline_ms(handle);
	if (status == RT_RELOCATE && rt_relocate(handle, deadline_ms))
		status = look_in_place(handle, key, key_length, ret_view, &ret_view->info);
	if (status == RIPTIDE_ESTALE)
		return rt_fail(handle, status, "view", key, key_length, NULL);
	return status < RT_ASK ? status : copy_view(handle, key, key_length, deadline_ms, ret_view);
}

int riptide_view_end(riptide *handle, struct riptide_view *view)
{
	const struct rt_sight *sight;
	struct rshm_found found = {.bytes = NULL};
	bool is_valid;

	if (!rt_handle_is_valid(handle) || !view || view->reserved[VIEW_HANDLE] != handle)
		return RIPTIDE_EINVALID;
	sight = view->reserved[VIEW_SIGHT];
	if (!sight) {
		free(view->reserved[VIEW_COPY]);
		memset(view, 0, sizeof(*view));
		return RIPTIDE_OK;
	}
	if (rt_thread.view != (uintptr_t)sight)
		return rt_fail(handle, RIPTIDE_EINVALID, "view_end", NULL, 0, "this thread does not hold the view");
	found.entry.position = (uintptr_t)view->reserved[VIEW_POSITION];
	found.tail = (uintptr_t)view->reserved[VIEW_TAIL];
	is_valid = rshm_still_valid(&sight->reader, &found);
	let_go();
	memset(view, 0, sizeof(*view));
	if (!is_valid)
		return rt_fail(handle, RIPTIDE_EVOID, "view_end", NULL, 0, NULL);
	return RIPTIDE_OK;
}

/* ---- only whether --------------------------------------------------------------------------------------- */

int riptide_exists(riptide *handle, const void *key, size_t key_length, struct riptide_info *ret_info)
{
	struct rt_call call;
	uint64_t deadline_ms;
	int status = rt_check_key(handle, "exists", key, key_length);

	if (status < 0)
		return status;
	status = look_in_place(handle, key, key_length, NULL, ret_info);
	deadline_ms = rt_deadline_ms(handle);
	if (status == RT_RELOCATE && rt_relocate(handle, deadline_ms))
		status = look_in_place(handle, key, key_length, NULL, ret_info);
	if (status == RIPTIDE_ESTALE)
		return rt_fail(handle, status, "exists", key, key_length, NULL);
	if (status < RT_ASK)
		return status;
	rt_call_init(&call, "exists", RSHM_OP_EXISTS, key, key_length, deadline_ms);
	status = rt_call(handle, &call);
	if (status >= 0 && ret_info)
		rt_info_of_answer(&call.answer, ret_info);
	return status;
}
