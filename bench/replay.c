/*
 * replay.c - hit ratios of the agent's own cache code on a trace, beside exact LRU, exact LFU and Belady's MIN.
 *
 *   replay [--trace NAME,…] [--file CSV] [--sizes PERCENT,…] [--policy NAME,…] [--json FILE] …
 *
 * A request looks the key up as a client does (rshm_find), notes the touch as a client does (rshm_touch, in one thread's
 * shard), and on a miss puts the entry as the agent does (rshm_writer_put under policy.c). The shard is drained after every
 * --drain misses. No agent runs and nothing is left in /dev/shm: the segment is ordinary memory.
 *
 * What is equal: bytes. The ring's size, in which gap, fillers and dead entries count, is the capacity of the exact caches;
 * there an entry counts what it takes in the ring (header, key, value, padding) and nothing else does. The index is not
 * counted on either side. The first quarter of the requests warms up and does not count. Every miss is followed by a put.
 */
#include <getopt.h>
#include <jansson.h>

#include "agent/cache/policy.h"
#include "bench/replay_exact.h"
#include "shm/touch.h"

#define ENTRY_LIMIT (1u << 20)
#define SIZES_MAX 32u
#define ROWS_MAX 4096u

static const char usage[] =
	"usage: replay [OPTION]...\n"
	"  --trace NAME,...     made traces (default: all of them); --list names them\n"
	"  --file CSV           a trace of lines time,key,size instead\n"
	"  --sizes PERCENT,...  of the footprint, each rounded to a power of two (default: 0.1 to 20)\n"
	"  --policy NAME,...    default: lru,lfu,ttl,random,s3fifo\n"
	"  --json FILE          writes the rows there, too\n"
	"  --reinsert PERCENT   cache.reinsert_ratio_percent (default: 300)\n"
	"  --drain MISSES       between two looks at what readers touched (default: 16)\n"
	"  --keys N --bytes N --requests N   of made traces (default: 160000, 460, 2000000)\n"
	"  --no-exact           exact LRU only\n"
	"  --list               names the made traces\n";

struct settings {
	const char *traces, *file, *policies, *json_path;
	double sizes[SIZES_MAX];
	size_t size_count;
	uint32_t keys, mean, reinsert_percent, drain;
	size_t requests;
	bool exact;
};

static struct settings settings = {
	.policies = "lru,lfu,ttl,random,s3fifo",
	.sizes = {0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20},
	.size_count = 9,
	.keys = 160000,
	.mean = 460,
	.reinsert_percent = 300,
	.drain = 16,
	.requests = 2000000,
	.exact = true,
};

/* Points that a policy is better than exact LRU, over all rows. */
static double gains[HOT_POLICIES][ROWS_MAX];
static size_t gain_count[HOT_POLICIES];

/* ---- the agent's cache -------------------------------------------------------------------------------------- */

struct cache {
	void *object;
	struct rshm_writer writer;
	struct rshm_reader reader;
	struct policy *policy;
	struct rshm_shard shard;
	struct rshm_seen seen;
	uint64_t puts;
};

static void cache_open(struct cache *cache, enum hot_policy kind, uint64_t ring_bytes)
{
	struct rshm_geometry geometry;
	struct rshm_header header = {0};

	memset(cache, 0, sizeof(*cache));
	rshm_geometry_plan(ring_bytes, ENTRY_LIMIT, &geometry);
	cache->object = aligned_alloc(RSHM_PAGE, geometry.object_size);
	if (!cache->object)
		trace_out_of_memory();
	memset(cache->object, 0, geometry.object_size);
	rshm_writer_format(cache->object, &geometry, &header, "replay", 42, &cache->writer);
	rshm_writer_publish(&cache->writer, RSHM_POLICY_MISS, 0);
	cache->policy = policy_create(&cache->writer, kind, settings.reinsert_percent);
	if (!cache->policy || rshm_reader_init(cache->object, geometry.object_size, &cache->reader) < 0)
		trace_out_of_memory();
}

static void cache_close(struct cache *cache)
{
	policy_destroy(&cache->policy);
	free(cache->object);
}

static void cache_drain(struct cache *cache)
{
	static struct rshm_drained drained;

	rshm_drain(&cache->shard, &cache->seen, UINT64_MAX >> 16, &drained);
	for (uint32_t i = 0; i < drained.touch_count; i++)
		rshm_writer_touch(&cache->writer, drained.touches[i]);
}

static void cache_put(struct cache *cache, const char *key, uint32_t size)
{
	static const unsigned char value[ENTRY_LIMIT];
	struct rshm_item item = {
		.key = key,
		.key_len = TRACE_KEY,
		.value = value,
		.value_len = size,
		.version = cache->puts + 1,
		.control_b = RSHM_NEVER,
	};

	if (cache->puts++ % settings.drain == 0)
		cache_drain(cache);
	/* As hot_put() does with what is too large. */
	if (rshm_writer_put(&cache->writer, &item) < 0)
		rshm_writer_remove(&cache->writer, key, TRACE_KEY);
}

static bool cache_request(struct cache *cache, uint32_t number, uint32_t size)
{
	char key[TRACE_KEY] = {0};
	struct rshm_found found;
	uint64_t hash;

	memcpy(key, &number, sizeof(number));
	hash = rshm_hash(cache->reader.hash_seed, key, TRACE_KEY);
	if (rshm_find(&cache->reader, hash, key, TRACE_KEY, &found) == RSHM_FOUND && found.entry.value_len == size) {
		rshm_touch(&cache->shard, found.entry.position, found.entry.control_a, found.tail,
			   cache->reader.units);
		return true;
	}
	cache_put(cache, key, size);
	return false;
}

static struct exact_hits cache_replay(const struct trace *trace, enum hot_policy kind, uint64_t ring_bytes,
				      size_t warm, double *ret_copies)
{
	static struct cache cache;
	struct exact_hits hits = {0};

	cache_open(&cache, kind, ring_bytes);
	for (size_t i = 0; i < trace->count; i++)
		exact_count(&hits, i >= warm, trace->size[i], cache_request(&cache, trace->key[i], trace->size[i]));
	*ret_copies = cache.puts ? (double)cache.writer.reinsertions / (double)cache.puts : 0;
	cache_close(&cache);
	return hits;
}

/* ---- rows --------------------------------------------------------------------------------------------------- */

static double percent_of(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_row(const char *name, const struct exact_hits *hits, const struct exact_hits *lru, double copies)
{
	double ratio = percent_of(hits->hits, hits->requests);

	printf("    %-10s %7.2f %8.2f %+8.2f", name, ratio, percent_of(hits->hit_bytes, hits->bytes),
	       ratio - percent_of(lru->hits, lru->requests));
	if (copies >= 0)
		printf(" %8.2f", copies);
	printf("\n");
	fflush(stdout);
}

static void add_json(json_t *into, const char *name, const struct exact_hits *hits, double copies)
{
	json_t *row = json_pack("{s:f, s:f}", "hit_percent", percent_of(hits->hits, hits->requests),
				"byte_hit_percent", percent_of(hits->hit_bytes, hits->bytes));

	if (copies >= 0)
		json_object_set_new(row, "copies_per_put", json_real(copies));
	json_object_set_new(into, name, row);
}

static bool list_names(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
		if (strncmp(at, name, len) == 0 && (at[len] == ',' || at[len] == '\0'))
			return true;
	return false;
}

static void replay_policies(const struct trace *trace, uint64_t ring_bytes, size_t warm, const struct exact_hits *lru,
			    json_t *row)
{
	for (unsigned int kind = 0; kind < HOT_POLICIES; kind++) {
		struct exact_hits hits;
		double copies;

		if (!list_names(settings.policies, policy_name(kind)))
			continue;
		hits = cache_replay(trace, kind, ring_bytes, warm, &copies);
		print_row(policy_name(kind), &hits, lru, copies);
		add_json(row, policy_name(kind), &hits, copies);
		if (gain_count[kind] < ROWS_MAX)
			gains[kind][gain_count[kind]++] =
				percent_of(hits.hits, hits.requests) - percent_of(lru->hits, lru->requests);
	}
}

static void replay_size(const struct trace *trace, const char *name, const uint32_t *next, uint64_t ring_bytes,
			json_t *rows)
{
	static const char *const names[] = {"exact-lru", "exact-lfu", "exact-min"};
	size_t warm = trace->count / 4;
	struct exact_hits lru, hits;
	json_t *row = json_pack("{s:s, s:I, s:f}", "trace", name, "ring_bytes", (json_int_t)ring_bytes,
				"percent_of_footprint", percent_of(ring_bytes, trace->footprint));

	printf("  %s, ring %.3g MiB, %.2f %% of the footprint\n", name, (double)ring_bytes / 1048576,
	       percent_of(ring_bytes, trace->footprint));
	lru = exact_replay(trace, next, EXACT_LRU, ring_bytes, warm);
	for (unsigned int kind = EXACT_LRU; kind <= EXACT_MIN; kind++) {
		if (kind != EXACT_LRU && !settings.exact)
			continue;
		hits = kind == EXACT_LRU ? lru : exact_replay(trace, next, kind, ring_bytes, warm);
		print_row(names[kind], &hits, &lru, -1);
		add_json(row, names[kind], &hits, -1);
	}
	replay_policies(trace, ring_bytes, warm, &lru, row);
	json_array_append_new(rows, row);
}

/* The power of two that is nearest by ratio. */
static uint64_t ring_of(double bytes)
{
	uint64_t ring = RSHM_RING_MIN;

	while ((double)ring * 1.4142 < bytes && ring < RSHM_RING_MAX)
		ring *= 2;
	return ring;
}

static void replay_trace(const struct trace *trace, const char *name, const char *what, json_t *rows)
{
	uint32_t *next = exact_next_uses(trace);
	uint64_t before = 0;

	printf("\n%s: %s; %zu requests, footprint %.1f MiB\n", name, what, trace->count,
	       (double)trace->footprint / 1048576);
	printf("    %-10s %7s %8s %8s %8s\n", "", "hits %", "bytes %", "points", "copies");
	for (size_t i = 0; i < settings.size_count; i++) {
		uint64_t ring = ring_of((double)trace->footprint * settings.sizes[i] / 100);

		if (ring != before)
			replay_size(trace, name, next, ring, rows);
		before = ring;
	}
	free(next);
}

static void print_summary(void)
{
	printf("\nPoints better than exact LRU\n    %-10s %7s %8s %8s %6s\n", "", "worst", "median", "best", "rows");
	for (unsigned int kind = 0; kind < HOT_POLICIES; kind++) {
		size_t count = gain_count[kind];

		if (count)
			printf("    %-10s %+7.2f %+8.2f %+8.2f %6zu\n", policy_name(kind),
			       bench_percentile(gains[kind], count, 0), bench_median(gains[kind], count),
			       bench_percentile(gains[kind], count, 100), count);
	}
}

/* ---- command line ------------------------------------------------------------------------------------------- */

static bool take_sizes(const char *text)
{
	char *end;

	for (settings.size_count = 0; *text && settings.size_count < SIZES_MAX; text = *end ? end + 1 : end) {
		double size = strtod(text, &end);

		if (end == text || (*end && *end != ',') || !(size > 0 && size <= 1000))
			return false;
		settings.sizes[settings.size_count++] = size;
	}
	return settings.size_count > 0 && !*text;
}

static bool take_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret)
{
	char *end;

	*ret = strtoull(text, &end, 10);
	return end != text && *end == '\0' && *ret >= least && *ret <= most;
}

static void list_recipes(void)
{
	for (size_t i = 0; i < TRACE_RECIPES; i++)
		printf("%-12s %s\n", trace_recipes[i].name, trace_recipes[i].what);
	exit(0);
}

static bool take_option(int option, const char *text)
{
	uint64_t n = 0;
	bool good = true;

	switch (option) {
	case 't':
		settings.traces = text;
		return true;
	case 'f':
		settings.file = text;
		return true;
	case 'p':
		settings.policies = text;
		return true;
	case 'j':
		settings.json_path = text;
		return true;
	case 's':
		return take_sizes(text);
	case 'x':
		settings.exact = false;
		return true;
	case 'l':
		list_recipes();
		return true;
	case 'h':
		fputs(usage, stdout);
		exit(0);
	case 'r':
		good = take_number(text, 0, 1000, &n);
		settings.reinsert_percent = (uint32_t)n;
		return good;
	case 'd':
		good = take_number(text, 1, 1u << 30, &n);
		settings.drain = (uint32_t)n;
		return good;
	case 'k':
		good = take_number(text, 16, 1u << 28, &n);
		settings.keys = (uint32_t)n;
		return good;
	case 'b':
		good = take_number(text, 1, 1u << 16, &n);
		settings.mean = (uint32_t)n;
		return good;
	case 'n':
		good = take_number(text, 4, 1u << 30, &n);
		settings.requests = n;
		return good;
	}
	return false;
}

static void take_options(int argc, char **argv)
{
	static const struct option options[] = {
		{"trace", required_argument, NULL, 't'}, {"file", required_argument, NULL, 'f'},
		{"sizes", required_argument, NULL, 's'}, {"policy", required_argument, NULL, 'p'},
		{"json", required_argument, NULL, 'j'},  {"reinsert", required_argument, NULL, 'r'},
		{"drain", required_argument, NULL, 'd'}, {"keys", required_argument, NULL, 'k'},
		{"bytes", required_argument, NULL, 'b'}, {"requests", required_argument, NULL, 'n'},
		{"no-exact", no_argument, NULL, 'x'},    {"list", no_argument, NULL, 'l'},
		{"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (!take_option(option, optarg)) {
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (optind != argc) {
		fputs(usage, stderr);
		exit(2);
	}
}

static int replay_file(json_t *rows)
{
	struct trace trace;
	FILE *file = fopen(settings.file, "re");
	size_t wrong;

	if (!file) {
		perror(settings.file);
		return 1;
	}
	wrong = trace_read(file, &trace);
	fclose(file);
	if (wrong)
		fprintf(stderr, "%s:%zu: not a line of time,key,size\n", settings.file, wrong);
	else if (trace.count < 4)
		fprintf(stderr, "%s: too short\n", settings.file);
	else
		replay_trace(&trace, settings.file, "from a file", rows);
	wrong |= trace.count < 4;
	trace_free(&trace);
	return wrong ? 1 : 0;
}

static int replay_made(json_t *rows)
{
	size_t done = 0;

	for (size_t i = 0; i < TRACE_RECIPES; i++) {
		const struct trace_recipe *recipe = &trace_recipes[i];
		struct trace trace;

		if (settings.traces && !list_names(settings.traces, recipe->name))
			continue;
		trace_make(recipe, settings.keys, settings.mean, settings.requests, &trace);
		replay_trace(&trace, recipe->name, recipe->what, rows);
		trace_free(&trace);
		done++;
	}
	if (!done)
		fprintf(stderr, "replay: no such trace; --list names them\n");
	return done ? 0 : 2;
}

int main(int argc, char **argv)
{
	json_t *rows = json_array();
	int status;

	take_options(argc, argv);
	status = settings.file ? replay_file(rows) : replay_made(rows);
	if (status == 0)
		print_summary();
	if (status == 0 && settings.json_path &&
	    json_dump_file(rows, settings.json_path, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) < 0) {
		fprintf(stderr, "replay: cannot write %s\n", settings.json_path);
		status = 1;
	}
	json_decref(rows);
	return status;
}
