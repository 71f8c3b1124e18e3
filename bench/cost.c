/*
 * cost.c - what it takes: memory of an entry, the library in an application, the agent when nobody asks for anything.
 *
 * Memory of an entry beyond key and value has two parts. What an entry occupies in the ring is measured: the agent's own
 * figure over the entries it holds. Its share of the index follows from the segment's geometry: one word of 8 bytes for
 * each 96 bytes of ring, so the larger the entry, the more words it pays for. Both are counted.
 */
#include <sys/stat.h>

#include "bench/bench_row.h"
#include "bench/bench_world.h"
#include "shm/ring.h"

#define KEYS 20000u

static struct bench_process *agent;
static riptide *handle;

/* ---- memory of an entry ------------------------------------------------------------------------------------- */

/* Bytes of index for each byte of ring. */
static double index_share(void)
{
	struct rshm_geometry geometry;

	rshm_geometry_plan(64u << 20, 1u << 20, &geometry);
	return (double)geometry.bucket_count * RSHM_LINE / (double)geometry.ring_bytes;
}

static void measure_entry(size_t size)
{
	static const char *const settings[] = {"cache.max_memory_bytes=1G", NULL};
	struct riptide_stats stats = {.size = sizeof(stats)};
	char figure[80], note[160];
	double occupied, index;

	agent = bench_agent_start(settings);
	handle = bench_open(agent);
	bench_load(handle, 0, KEYS, size);
	/* The figures of a tenant are refreshed a few times a second. */
	bench_pause_us(1500000);
	bench_ok(riptide_stats(handle, &stats), "riptide_stats");
	bench_need(stats.total_keys > KEYS / 2, "too few hot entries to measure");
	occupied = (double)stats.memory_usage_bytes / (double)stats.total_keys;
	index = index_share() * occupied;
	snprintf(figure, sizeof(figure), "memory of an entry beyond key and value, %zu B", size);
	snprintf(note, sizeof(note), "%.1f B in the ring (header 40 B and padding), %.1f B of index; %llu entries",
		 occupied - BENCH_KEY - (double)size, index, (unsigned long long)stats.total_keys);
	bench_print(&(struct bench_row){figure, BENCH_BYTES, occupied - BENCH_KEY - (double)size + index, NULL, 0, 0,
					BENCH_OURS_AT_MOST(64), BENCH_OURS_AT_MOST(60), note});
	riptide_close(&handle);
	bench_agents_stop();
}

/* ---- the library -------------------------------------------------------------------------------------------- */

/* Entries of a folder of /proc, such as threads or descriptors. */
static unsigned int count_entries(const char *path)
{
	unsigned int count = 0;
	DIR *folder = opendir(path);

	for (struct dirent *entry; folder && (entry = readdir(folder));)
		count += entry->d_name[0] != '.';
	if (folder)
		closedir(folder);
	return count;
}

/* First line of a command's output, as a number; and all of it as text, lines joined. -1: it failed. */
static double output_of(const char *command, char *text, size_t size)
{
	FILE *pipe = popen(command, "re");
	size_t length = pipe ? fread(text, 1, size - 1, pipe) : 0;

	text[length] = '\0';
	if (!pipe || pclose(pipe) != 0)
		return -1;
	for (char *c = text; *c; c++)
		*c = *c == '\n' ? ' ' : *c;
	return strtod(text, NULL);
}

static void measure_library(void)
{
	const char *build = getenv("RIPTIDE_BUILD_DIR");
	char command[600], text[200] = "", note[260];
	unsigned int threads = count_entries("/proc/self/task"), descriptors = count_entries("/proc/self/fd");
	double needed;

	snprintf(command, sizeof(command), "size '%s'/libriptide.so.0 | awk 'NR == 2 { print $1 }'",
		 build ? build : "build");
	bench_print(&(struct bench_row){"client library, text",
					BENCH_BYTES,
					output_of(command, text, sizeof(text)),
					NULL,
					0,
					0,
					BENCH_OURS_AT_MOST(65536),
					{0},
					NULL});
	snprintf(command, sizeof(command),
		 "readelf -d '%s'/libriptide.so.0 | sed -n 's/.*(NEEDED).*\\[\\(.*\\)\\]/\\1/p'",
		 build ? build : "build");
	output_of(command, text, sizeof(text));
	needed = *text ? 1 : 0;
	for (const char *c = text; *c; c++)
		needed += *c == ' ' && c[1];
	snprintf(note, sizeof(note), "needs: %s", text);
	bench_print(&(struct bench_row){"client library, libraries it needs",
					BENCH_COUNT,
					needed,
					NULL,
					0,
					0,
					BENCH_OURS_AT_MOST(1),
					{0},
					note});
	handle = bench_open(agent);
	bench_load(handle, 0, 100, 64);
	snprintf(note, sizeof(note), "%u more descriptors while the handle is open",
		 count_entries("/proc/self/fd") - descriptors);
	bench_print(&(struct bench_row){"client library, threads it starts",
					BENCH_COUNT,
					(double)count_entries("/proc/self/task") - threads,
					NULL,
					0,
					0,
					BENCH_OURS_AT_MOST(0),
					{0},
					note});
}

/* ---- the idle agent ----------------------------------------------------------------------------------------- */

/* Nanoseconds that all threads of a process have run. */
static double run_ns(pid_t pid)
{
	char path[300];
	double sum = 0;
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	folder = opendir(path);
	bench_need(folder != NULL, path);
	for (struct dirent *entry; (entry = readdir(folder));) {
		double ran = 0;
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid, entry->d_name);
		file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (file && fscanf(file, "%lf", &ran) == 1)
			sum += ran;
		if (file)
			fclose(file);
	}
	closedir(folder);
	return sum;
}

static void measure_idle(void)
{
	unsigned int seconds = bench_is_full() ? 30 : 5;
	double ran, anonymous, file;
	char note[160];

	bench_pause_us(1000000);
	ran = run_ns(agent->pid);
	bench_pause_us(seconds * 1000000ull);
	ran = run_ns(agent->pid) - ran;
	anonymous = bench_resident_bytes(agent->pid, "RssAnon:", "RssAnon:");
	file = bench_resident_bytes(agent->pid, "RssFile:", "RssFile:");
	snprintf(note, sizeof(note), "over %u s, with one client attached", seconds);
	bench_print(&(struct bench_row){"idle agent, of one core",
					BENCH_PERCENT,
					ran * 100 / (seconds * 1e9),
					NULL,
					0,
					0,
					BENCH_OURS_AT_MOST(0.5),
					{0},
					note});
	snprintf(note, sizeof(note), "%.1f MiB of its own, %.1f MiB of programs, libraries and the store's file",
		 anonymous / 1048576, file / 1048576);
	bench_print(&(struct bench_row){"idle agent, resident beyond shared memory",
					BENCH_BYTES,
					anonymous + file,
					NULL,
					0,
					0,
					BENCH_OURS_AT_MOST(20 << 20),
					{0},
					note});
}

int main(void)
{
	bench_world_begin();
	bench_heading("What it takes");
	measure_entry(64);
	measure_entry(1024);
	agent = bench_agent_start(NULL);
	measure_library();
	measure_idle();
	riptide_close(&handle);
	return 0;
}
