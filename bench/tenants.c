/*
 * tenants.c - many tenants on one agent: created, attached, used in turn, idle.
 *
 * All of the tenants are created, a tenth of them are attached by this process, each through a handle of its own, and read in
 * turn. What an open tenant takes is the difference to the agent before they were attached; what one that nobody uses takes is
 * the difference between the agent with all of them created and with none.
 */
#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "bench/bench_row.h"
#include "bench/bench_world.h"

#define VALUE 100u

static struct bench_process *agent;
static riptide *admin;

static double resident(void)
{
	return bench_resident_bytes(agent->pid, "RssAnon:", "RssAnon:");
}

/* Bytes in use of this agent's objects. */
static double shared_bytes(void)
{
	char path[300], prefix[80];
	DIR *folder = opendir("/dev/shm");
	double sum = 0;

	snprintf(prefix, sizeof(prefix), "riptide.%s.", agent->instance);
	bench_need(folder != NULL, "/dev/shm");
	for (struct dirent *entry; (entry = readdir(folder));) {
		struct stat st;

		snprintf(path, sizeof(path), "/dev/shm/%.200s", entry->d_name);
		if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && stat(path, &st) == 0)
			sum += (double)st.st_blocks * 512;
	}
	closedir(folder);
	return sum;
}

static void print_ms(const char *figure, double *ns, size_t count, const char *note)
{
	char text[200];
	double p99 = bench_percentile(ns, count, 99) / 1e6;

	snprintf(text, sizeof(text), "p99 %.2f ms%s%s", p99, note ? "; " : "", note ? note : "");
	bench_print(&(struct bench_row){
		.figure = figure, .unit = BENCH_NS, .ours = bench_median(ns, count), .note = text});
}

static void create_all(uint32_t count, double *ns)
{
	double before = resident();
	char note[120];

	for (uint32_t i = 0; i < count; i++) {
		uint64_t began = bench_now_ns();
		char json[80];

		snprintf(json, sizeof(json), "{\"id\": \"t%05u\", \"quotas\": {\"memory_bytes\": 1048576}}", i);
		bench_ok(riptide_tenant_create(admin, json, NULL), "riptide_tenant_create");
		ns[i] = (double)(bench_now_ns() - began);
	}
	/* What the allocator and the store keep settles. */
	bench_pause_us(1000000);
	print_ms("tenant created, median", ns, count, NULL);
	snprintf(note, sizeof(note), "%u tenants that nobody uses", count);
	bench_print(&(struct bench_row){.figure = "idle tenant, memory of the agent",
					.unit = BENCH_BYTES,
					.ours = (resident() - before) / count,
					.note = note});
}

static void list_all(uint32_t count)
{
	uint64_t began = bench_now_ns();
	char request[120] = "{\"limit\": 1000}", note[60];
	uint32_t pages = 0, last = 0;

	do {
		char *page = NULL, *next;

		bench_ok(riptide_tenant_list(admin, request, &page), "riptide_tenant_list");
		pages++;
		next = strstr(page, "\"next\":\"");
		last = next == NULL;
		if (next)
			snprintf(request, sizeof(request), "{\"limit\": 1000, \"after\": \"%.6s\"}", next + 8);
		free(page);
	} while (!last && pages <= count / 1000 + 1);
	bench_need(last, "the end of the list");
	snprintf(note, sizeof(note), "%u tenants in %u pages", count, pages);
	bench_print(&(struct bench_row){.figure = "listing all tenants",
					.unit = BENCH_NS,
					.ours = (double)(bench_now_ns() - began),
					.note = note});
}

static void attach_some(uint32_t count, riptide **handles, double *ns)
{
	double before = resident(), shared = shared_bytes();
	char value[VALUE], note[120];

	memset(value, 'v', sizeof(value));
	for (uint32_t i = 0; i < count; i++) {
		struct riptide_options options = {
			.size = sizeof(options), .socket = agent->socket, .timeout_ms = 20000};
		uint64_t began = bench_now_ns();
		char id[16];

		snprintf(id, sizeof(id), "t%05u", i);
		options.tenant = id;
		bench_ok(riptide_open(&options, &handles[i]), "riptide_open");
		ns[i] = (double)(bench_now_ns() - began);
		bench_ok(riptide_set(handles[i], "key", 3, value, sizeof(value), NULL, NULL), "riptide_set");
	}
	print_ms("first process attached to a tenant, median", ns, count, "the agent opens the tenant");
	snprintf(note, sizeof(note), "and %.0f KiB of shared memory, its channel left out; %u open",
		 (shared_bytes() - shared) / count / 1024, count);
	bench_print(&(struct bench_row){.figure = "open tenant, memory of the agent",
					.unit = BENCH_BYTES,
					.ours = (resident() - before) / count,
					.note = note});
}

static void use_in_turn(uint32_t count, riptide **handles)
{
	uint32_t rounds = bench_is_full() ? 200 : 50;
	uint64_t hot = 0, began = bench_now_ns();
	char note[120];

	for (uint32_t round = 0; round < rounds; round++) {
		for (uint32_t i = 0; i < count; i++) {
			struct riptide_info info;
			char value[VALUE];
			size_t length;

			bench_ok(riptide_get_into(handles[i], "key", 3, value, sizeof(value), &length, &info),
				 "riptide_get_into");
			bench_need(length == VALUE, "the value");
			hot += (info.flags & RIPTIDE_HOT) != 0;
		}
	}
	snprintf(note, sizeof(note), "%.2f %% hot; each tenant's memory is cold when its turn comes",
		 100.0 * (double)hot / ((double)rounds * count));
	bench_print(&(struct bench_row){.figure = "hot get, tenants in turn, mean",
					.unit = BENCH_NS,
					.ours = (double)(bench_now_ns() - began) / rounds / count,
					.note = note});
}

/* ---- limits -------------------------------------------------------------------------------------------------------- */

#define BATCH 1000u
#define ROUNDS 201u

static riptide *open_hot(const char *id)
{
	struct riptide_options options = {
		.size = sizeof(options), .socket = agent->socket, .tenant = id, .timeout_ms = 20000};
	struct riptide_info info = {.flags = 0};
	char value[VALUE];
	riptide *handle;
	size_t length;

	memset(value, 'v', sizeof(value));
	bench_ok(riptide_open(&options, &handle), "riptide_open");
	bench_ok(riptide_set(handle, "key", 3, value, sizeof(value), NULL, NULL), "riptide_set");
	for (int i = 0; i < 1000 && !(info.flags & RIPTIDE_HOT); i++) {
		bench_ok(riptide_get_into(handle, "key", 3, value, sizeof(value), &length, &info),
			 "riptide_get_into");
		bench_pause_us(1000);
	}
	bench_need(info.flags & RIPTIDE_HOT, "a hot entry");
	return handle;
}

static double read_batch_ns(riptide *handle, uint64_t *hot)
{
	uint64_t began = bench_tick();

	for (uint32_t i = 0; i < BATCH; i++) {
		struct riptide_info info;
		char value[VALUE];
		size_t length;

		bench_ok(riptide_get_into(handle, "key", 3, value, sizeof(value), &length, &info),
			 "riptide_get_into");
		*hot += (info.flags & RIPTIDE_HOT) != 0;
	}
	return bench_span_ns(began, bench_tick()) / BATCH;
}

/* A tenant whose reads are counted against a limit that it does not reach, beside one without, in turn. */
static void measure_metering(void)
{
	double limited_ns[ROUNDS], free_ns[ROUNDS], ratios[ROUNDS];
	uint64_t limited_hot = 0, free_hot = 0;
	riptide *limited, *unlimited;
	char note[120];

	bench_ok(riptide_tenant_create(
			 admin, "{\"id\": \"limited\", \"rate_limits\": {\"operations\": {\"limit\": 100000000000}}}",
			 NULL),
		 "riptide_tenant_create");
	bench_ok(riptide_tenant_create(admin, "{\"id\": \"free\"}", NULL), "riptide_tenant_create");
	limited = open_hot("limited");
	unlimited = open_hot("free");
	/* Credits come at the next drain. */
	bench_pause_us(500000);
	for (uint32_t i = 0; i < ROUNDS; i++) {
		limited_ns[i] = read_batch_ns(limited, &limited_hot);
		free_ns[i] = read_batch_ns(unlimited, &free_hot);
		ratios[i] = limited_ns[i] / free_ns[i];
	}
	snprintf(note, sizeof(note), "%.1f %% of the reads hot, without a limit %.1f %%",
		 100.0 * (double)limited_hot / ((double)BATCH * ROUNDS),
		 100.0 * (double)free_hot / ((double)BATCH * ROUNDS));
	bench_print(&(struct bench_row){.figure = "hot get of a tenant with a limit, median",
					.unit = BENCH_NS,
					.ours = bench_median(limited_ns, ROUNDS),
					.peer_name = "without one",
					.peer = bench_median(free_ns, ROUNDS),
					.ratio = bench_median(ratios, ROUNDS),
					.note = note});
	riptide_close(&limited);
	riptide_close(&unlimited);
}

static void measure_asking(void)
{
	riptide *handle = open_hot("limited");
	double check[ROUNDS], access[ROUNDS];

	for (uint32_t i = 0; i < ROUNDS; i++) {
		struct riptide_access may;
		struct riptide_quota quota;
		uint64_t began = bench_now_ns();

		bench_ok(riptide_check_quota(handle, "memory_bytes", 1024, RIPTIDE_QUOTA_ASK, &quota),
			 "riptide_check_quota");
		check[i] = (double)(bench_now_ns() - began);
		began = bench_now_ns();
		bench_ok(riptide_validate_access(handle, "key", 3, "read", &may), "riptide_validate_access");
		access[i] = (double)(bench_now_ns() - began);
	}
	bench_print(&(struct bench_row){
		.figure = "quota check, median", .unit = BENCH_NS, .ours = bench_median(check, ROUNDS)});
	bench_print(&(struct bench_row){
		.figure = "access check, median", .unit = BENCH_NS, .ours = bench_median(access, ROUNDS)});
	riptide_close(&handle);
}

int main(void)
{
	static const char *const settings[] = {
		"tenancy.max_tenants=20000",    "limits.max_clients=4096",
		"limits.channels_per_uid=4096", "limits.attaches_per_second_per_uid=100000",
		"cache.max_memory_bytes=4G",    NULL};
	uint32_t created = bench_is_full() ? 10000 : 2000, attached = created / 10;
	struct rlimit files = {.rlim_cur = 4096, .rlim_max = 4096};
	double *ns = calloc(created, sizeof(*ns));
	riptide **handles = calloc(attached, sizeof(*handles));

	bench_clock_init();
	bench_need(ns && handles, "memory");
	/* A channel takes two descriptors here and three in the agent. */
	(void)getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	bench_world_begin();
	bench_heading("Many tenants on one agent");
	agent = bench_agent_start(settings);
	admin = bench_open(agent);
	create_all(created, ns);
	list_all(created);
	attach_some(attached, handles, ns);
	use_in_turn(attached, handles);
	measure_metering();
	measure_asking();
	for (uint32_t i = 0; i < attached; i++)
		riptide_close(&handles[i]);
	riptide_close(&admin);
	free(handles);
	free(ns);
	return 0;
}
