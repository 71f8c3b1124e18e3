/* op_about.c - ping, stats, locate: what a client asks about us rather than about an entry. */
#include <string.h>

#include "agent/serve/serve_priv.h"
#include "shm/tlv.h"

static void answer_bytes(struct slot *slot, const void *bytes, size_t length)
{
	struct rshm_answer head = {.status = RSHM_OK};

	request_answer(slot, &head, NULL, 0, bytes, length);
}

/* Figures of the tenant, then what has no place in them: bytes written before and after compression, operations per
 * 1,000 seconds, and the mean time of a sampled hit in ns. */
static void answer_stats(struct slot *slot)
{
	struct serve_tenant *tenant = slot->client->tenant;
	struct {
		struct rshm_figures figures;
		uint64_t plain_bytes, stored_bytes, milli_operations, hit_ns_mean;
	} stats;
	uint64_t operations = 0;

	figures_drain_tenant(tenant);
	figures_publish(slot->client->worker);
	for (uint32_t i = 0; i < 11; i++)
		if (i != tenant->rate_slot)
			operations += tenant->rate_operations[i];
	memcpy(&stats.figures, tenant->figures, sizeof(stats.figures));
	stats.plain_bytes = tenant->counts.plain_bytes;
	stats.stored_bytes = tenant->counts.stored_bytes;
	stats.milli_operations = operations * 100;
	stats.hit_ns_mean = histogram_mean(&tenant->hit_ns);
	answer_bytes(slot, &stats, sizeof(stats));
}

static void answer_locate(struct slot *slot)
{
	unsigned char buffer[512];
	struct rshm_tlv_writer writer;
	char name[RSHM_NAME_MAX];
	uint64_t size;
	int64_t length;

	rshm_tlv_begin(&writer, buffer, sizeof(buffer), RSHM_OP_LOCATE, RSHM_OK, 0);
	if (hot_locate(slot->client->tenant->hot, name, &size)) {
		rshm_tlv_text(&writer, RSHM_TAG_SEGMENT_OBJECT, name);
		rshm_tlv_u64(&writer, RSHM_TAG_SEGMENT_SIZE, size);
	}
	length = rshm_tlv_finish(&writer);
	answer_bytes(slot, buffer, (size_t)length);
}

void about_execute(struct slot *slot)
{
	switch (slot->request.op) {
	case RSHM_OP_STATS:
		answer_stats(slot);
		break;
	case RSHM_OP_LOCATE:
		answer_locate(slot);
		break;
	default:
		answer_bytes(slot, NULL, 0);
	}
}
