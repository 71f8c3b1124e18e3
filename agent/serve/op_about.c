/* op_about.c - ping, stats, locate: what a client asks about us rather than about an entry. */
#include <string.h>

#include "agent/base/clock.h"
#include "agent/serve/serve_priv.h"
#include "shm/tlv.h"

static void answer_bytes(struct slot *slot, const void *bytes, size_t length)
{
	struct rshm_answer head = {.status = RSHM_OK};

	request_answer(slot, &head, NULL, 0, bytes, length);
}

static void answer_stats(struct slot *slot)
{
	struct serve_tenant *tenant = slot->client->tenant;
	struct evictions_figures evicted;
	struct rshm_stats stats = {
		.plain_bytes = tenant->counts.plain_bytes,
		.stored_bytes = tenant->counts.stored_bytes,
		.spilled = tenant->counts.spilled,
		.restored = tenant->counts.restored,
	};

	figures_drain_tenant(tenant);
	figures_publish(slot->client->worker);
	evictions_figures(tenant->evictions, clock_monotonic_ms(), &evicted);
	memcpy(&stats.figures, tenant->figures, sizeof(stats.figures));
	stats.milli_operations = figures_rate(tenant);
	stats.hit_ns_mean = histogram_mean(&tenant->hit_ns);
	stats.hit_ns_p95 = histogram_percentile(&tenant->hit_ns, 95);
	stats.evictions_capacity = evicted.count[EVICTION_CAPACITY];
	stats.evictions_expired = evicted.count[EVICTION_EXPIRED];
	stats.evictions_manual = evicted.count[EVICTION_MANUAL];
	stats.evictions_memory_pressure = evicted.count[EVICTION_MEMORY_PRESSURE];
	stats.evicted_bytes = evicted.total_bytes;
	stats.milli_evictions = (uint64_t)(evicted.rate * 1000);
	stats.journal_records = slot->client->worker->totals.store.journal.records;
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
	if (!slot->client->tenant->tenant->cold && hot_locate(slot->client->tenant->hot, name, &size)) {
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
