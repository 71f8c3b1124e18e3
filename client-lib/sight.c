/*
 * sight.c - the read-only mappings that hot reads look at: opened, published, replaced, and unmapped when nobody looks.
 *
 *   handle->sight ──▶ sight { reader of the segment, sources of the agent object }   immutable, replaced as a whole
 *                         │ uses              │
 *                    mapping (segment)   mapping (agent)        shared by sights, counted under the process lock
 *
 * What is replaced goes to the process's list of kept things. It is freed by rt_reclaim(), called whenever a channel or a
 * sight is replaced and when a request ends, once every thread has moved on (thread.c) and, for a sight, no thread holds
 * a view of it. Readers never wait for any of this, and take no part in it but by their lines.
 *
 * A child of fork() inherits handle->sight and its mappings as they were; its list of kept things is empty, so what its
 * parent was about to unmap stays mapped in the child: a bounded leak instead of a lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client-lib/riptide_priv.h"
#include "shm/order.h"
#include "shm/tlv.h"

#define LOCATE_AGAIN_MS 1000u /* while there is no segment to read */
#define LOCATE_SOON_MS 10u    /* while the agent names the one that was retired */

int rt_mapping_open(const char *name, uint64_t size, uid_t owner, struct rt_mapping **ret, char *trouble)
{
	struct rt_mapping *mapping;
	int status;

	if (!rshm_name_is_valid(name))
		return rt_trouble(trouble, RIPTIDE_EPROTOCOL,
				  "the agent names an object that cannot be one of its own");
	mapping = calloc(1, sizeof(*mapping));
	if (!mapping)
		return rt_trouble(trouble, RIPTIDE_ENOMEM, "no memory for a mapping");
	status = rshm_map_read(name, size, owner, &mapping->map);
	if (status < 0) {
		free(mapping);
		return rt_trouble(trouble, status, "cannot read shared memory %s of the agent (%s)", name,
				  strerror(errno));
	}
	memcpy(mapping->name, name, strlen(name) + 1);
	*ret = mapping;
	return RIPTIDE_OK;
}

void rt_mapping_unref(struct rt_mapping *mapping)
{
	if (!mapping || (mapping->users > 0 && --mapping->users > 0))
		return;
	rshm_unmap(&mapping->map);
	free(mapping);
}

static int check_agent_object(const struct rt_mapping *mapping, char *trouble)
{
	struct rshm_header header;

	if (mapping->map.size < sizeof(struct rshm_agent))
		return rt_trouble(trouble, RIPTIDE_EPROTOCOL, "the agent object is too small");
	rshm_copy_out(&header, mapping->map.base, sizeof(header));
	if (header.magic != RSHM_AGENT_MAGIC || header.object_size != mapping->map.size)
		return rt_trouble(trouble, RIPTIDE_EPROTOCOL, "%s is no agent object", mapping->name);
	if (header.layout_major != RSHM_LAYOUT_MAJOR)
		return rt_trouble(
			trouble, RIPTIDE_EUNSUPPORTED,
			"the agent's shared memory has layout %u, this library reads %u; upgrade the older one",
			header.layout_major, RSHM_LAYOUT_MAJOR);
	return RIPTIDE_OK;
}

int rt_sight_create(struct rt_mapping *agent, struct rt_mapping *segment, struct rt_sight **ret, char *trouble)
{
	struct rt_sight *sight;
	int status = check_agent_object(agent, trouble);

	if (status < 0)
		return status;
	sight = calloc(1, sizeof(*sight));
	if (!sight)
		return rt_trouble(trouble, RIPTIDE_ENOMEM, "no memory for a handle's view of shared memory");
	if (segment) {
		status = rshm_reader_init(segment->map.base, segment->map.size, &sight->reader);
		if (status < 0) {
			free(sight);
			return rt_trouble(trouble, status, "cannot use segment %s: %s", segment->name,
					  rt_strerror(status));
		}
		segment->users++;
	}
	agent->users++;
	sight->sources = ((const struct rshm_agent *)agent->map.base)->sources;
	sight->agent = agent;
	sight->segment = segment;
	*ret = sight;
	return RIPTIDE_OK;
}

static void sight_destroy(struct rt_sight *sight)
{
	rt_mapping_unref(sight->segment);
	rt_mapping_unref(sight->agent);
	free(sight);
}

struct rt_sight *rt_sight_now(riptide *handle)
{
	return (struct rt_sight *)(uintptr_t)rshm_load_acquire(&handle->sight);
}

void rt_sight_publish(riptide *handle, struct rt_sight *sight)
{
	struct rt_sight *old = rt_sight_now(handle);

	/* Pairs with the acquire in rt_look_begin(). */
	rshm_store_release(&handle->sight, (uintptr_t)sight);
	if (old)
		rt_keep(handle, &old->kept);
	rt_reclaim(handle);
}

void rt_keep(riptide *handle, struct rt_kept *kept)
{
	struct rt_process *process = handle->process;

	kept->next = process->kept;
	process->kept = kept;
	process->kept_count++;
}

static void kept_destroy(riptide *handle, struct rt_kept *kept)
{
	if (kept->is_channel)
		rt_channel_destroy(handle, (struct rt_channel *)kept);
	else
		sight_destroy((struct rt_sight *)kept);
}

static bool kept_is_used(const struct rt_kept *kept)
{
	return kept->is_channel ? ((const struct rt_channel *)kept)->users > 0 : rt_view_is_held(kept);
}

void rt_reclaim(riptide *handle)
{
	struct rt_process *process = handle->process;
	struct rt_kept **link = &process->kept;

	if (!*link || !rt_threads_have_moved_on())
		return;
	while (*link) {
		struct rt_kept *kept = *link;

		if (kept_is_used(kept)) {
			link = &kept->next;
			continue;
		}
		*link = kept->next;
		process->kept_count--;
		kept_destroy(handle, kept);
	}
}

void rt_release_all(riptide *handle)
{
	struct rt_process *process = handle->process;
	struct rt_sight *sight = rt_sight_now(handle);

	rshm_store_release(&handle->sight, 0);
	while (process->kept) {
		struct rt_kept *kept = process->kept;

		process->kept = kept->next;
		kept_destroy(handle, kept);
	}
	if (sight)
		sight_destroy(sight);
}

/* ---- a segment that was retired ----------------------------------------------------------------------------- */

struct located {
	char name[RSHM_NAME_MAX]; /* empty: no hot reads for this client */
	uint64_t size;
	unsigned char *answer;
};

static int place_located(struct rt_call *call)
{
	struct located *located = call->context;

	free(located->answer);
	located->answer = malloc((size_t)call->answer.answer_len + 1);
	call->body_to = located->answer;
	return located->answer ? RIPTIDE_OK : RIPTIDE_ENOMEM;
}

static int parse_located(struct located *located, size_t length)
{
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;
	int status = rshm_tlv_open(&reader, located->answer, length, &header);

	if (status < 0)
		return status;
	if (header.status < 0)
		return header.status;
	while ((status = rshm_tlv_next(&reader, &tlv)) > 0) {
		bool ok = true;

		if (tlv.tag == RSHM_TAG_SEGMENT_OBJECT)
			ok = rshm_tlv_get_text(&tlv, located->name, sizeof(located->name));
		else if (tlv.tag == RSHM_TAG_SEGMENT_SIZE)
			ok = rshm_tlv_get_u64(&tlv, &located->size);
		if (!ok)
			return RIPTIDE_EPROTOCOL;
	}
	return status;
}

static int ask_where(riptide *handle, uint64_t deadline_ms, struct located *ret)
{
	struct rt_call call;
	int status;

	rt_call_init(&call, "locate", RSHM_OP_LOCATE, NULL, 0, deadline_ms);
	call.place = place_located;
	call.context = ret;
	status = rt_call_run(handle, &call);
	return status == RIPTIDE_OK ? parse_located(ret, call.answer.answer_len) : status;
}

/* Lock held. Publishes a sight of the named segment with the present channel's agent object. */
static int publish_located(riptide *handle, struct rt_mapping *segment, const struct rt_channel *asked)
{
	char trouble[RT_TEXT];
	struct rt_sight *sight;
	int status;

	/* Attached anew meanwhile: that published a sight of its own. */
	if (handle->process->channel != asked || !asked)
		return RIPTIDE_EAGAIN;
	if (handle->process->kept_count >= RT_KEEP_MAX)
		return RIPTIDE_EAGAIN;
	status = rt_sight_create(asked->agent, segment, &sight, trouble);
	if (status == RIPTIDE_OK)
		rt_sight_publish(handle, sight);
	return status;
}

/* Lock held by the caller, and again on return. */
static void locate(riptide *handle, uint64_t deadline_ms)
{
	struct rt_process *process = handle->process;
	struct located located = {.size = 0};
	struct rt_mapping *segment = NULL;
	struct rt_channel *asked;
	struct rt_sight *now;
	char trouble[RT_TEXT];
	uid_t owner;
	int status;

	pthread_mutex_unlock(&process->lock);
	status = ask_where(handle, deadline_ms, &located);
	free(located.answer);
	pthread_mutex_lock(&process->lock);
	asked = process->channel;
	now = rt_sight_now(handle);
	process->next_locate_ms = rshm_now_ms() + LOCATE_AGAIN_MS;
	if (status != RIPTIDE_OK || !asked)
		return;
	if (located.name[0] && now && now->segment && strcmp(now->segment->name, located.name) == 0) {
		process->next_locate_ms = rshm_now_ms() + LOCATE_SOON_MS;
		return;
	}
	owner = asked->agent_uid;
	if (located.name[0]) {
		pthread_mutex_unlock(&process->lock);
		status = rt_mapping_open(located.name, located.size, owner, &segment, trouble);
		pthread_mutex_lock(&process->lock);
	}
	if (status == RIPTIDE_OK)
		status = publish_located(handle, segment, asked);
	if (status < 0 && segment)
		rt_mapping_unref(segment);
	if (status == RIPTIDE_OK && segment)
		process->next_locate_ms = 0;
}

bool rt_relocate(riptide *handle, uint64_t deadline_ms)
{
	struct rt_process *process = handle->process;
	struct rt_sight *before = rt_sight_now(handle);
	bool mine;

	if (rt_process_setup(handle) < 0)
		return false;
	pthread_mutex_lock(&process->lock);
	mine = !process->locating && rshm_now_ms() >= process->next_locate_ms;
	if (mine) {
		process->locating = true;
		locate(handle, deadline_ms);
		process->locating = false;
	}
	pthread_mutex_unlock(&process->lock);
	return rt_sight_now(handle) != before;
}
