/* e2e.c - helpers of the end-to-end tests. */
#include "tests/support/e2e.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "client-lib/control.h"
#include "shm/os/map.h"
#include "shm/tlv.h"

#define STATUS_PATIENCE_MS 5000
#define STEP_MS 10

/* ---- time --------------------------------------------------------------------------------------------------- */

uint64_t e2e_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void e2e_make_file(char *path, size_t size, const char *stem)
{
	int fd = -1;

	if ((size_t)snprintf(path, size, "/tmp/riptide-%s-XXXXXX", stem) < size)
		fd = mkstemp(path);
	if (fd < 0)
		abort();
	close(fd);
}

void e2e_pause_ms(long ms)
{
	struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&span, NULL);
}

/* ---- handles ------------------------------------------------------------------------------------------------ */

int e2e_open(const struct agent_process *agent, const char *tenant, uint32_t timeout_ms, riptide **ret)
{
	struct riptide_options options = {
		.size = sizeof(options),
		.socket = agent->socket,
		.tenant = tenant ? tenant : "default",
		.timeout_ms = timeout_ms,
	};

	return riptide_open(&options, ret);
}

int e2e_put(riptide *handle, const char *key, const char *value)
{
	return riptide_set(handle, key, strlen(key), value, strlen(value), NULL, NULL);
}

int e2e_check(riptide *handle, const char *key, const char *value, struct riptide_info *ret_info)
{
	char buffer[256];
	size_t length = 0;
	int status = riptide_get_into(handle, key, strlen(key), buffer, sizeof(buffer), &length, ret_info);

	if (status != RIPTIDE_OK)
		return status;
	return length == strlen(value) && memcmp(buffer, value, length) == 0 ? RIPTIDE_OK : E2E_WRONG;
}

int e2e_await_check(riptide *handle, const char *key, const char *value, int status, long patience_ms)
{
	uint64_t until = e2e_now_ms() + (uint64_t)patience_ms;
	int last;

	while ((last = e2e_check(handle, key, value, NULL)) != status && e2e_now_ms() < until)
		e2e_pause_ms(STEP_MS);
	return last;
}

/* ---- status ------------------------------------------------------------------------------------------------- */

static json_t *parse_status(const unsigned char *answer, size_t length)
{
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;

	if (rshm_tlv_open(&reader, answer, length, &header) < 0 || header.status != RSHM_OK)
		return NULL;
	while (rshm_tlv_next(&reader, &tlv) > 0)
		if (tlv.tag == RSHM_TAG_JSON)
			return json_loadb((const char *)tlv.value, tlv.length, 0, NULL);
	return NULL;
}

static json_t *read_status(const struct agent_process *agent)
{
	unsigned char message[64], *answer;
	char trouble[RT_CONTROL_TEXT];
	struct rshm_tlv_writer writer;
	size_t length;
	json_t *status;

	rshm_tlv_begin(&writer, message, sizeof(message), RSHM_CONTROL_STATUS, 0, 1);
	length = (size_t)rshm_tlv_finish(&writer);
	if (rt_control_ask(agent->socket, message, length, rshm_now_ms() + STATUS_PATIENCE_MS, &answer, &length, NULL,
			   trouble) < 0)
		return NULL;
	status = parse_status(answer, length);
	free(answer);
	return status;
}

static const json_t *walk(const json_t *at, const char *path)
{
	char step[64];

	while (at && *path) {
		size_t length = strcspn(path, ".");

		snprintf(step, sizeof(step), "%.*s", (int)length, path);
		at = json_is_array(at) ? json_array_get(at, (size_t)atol(step)) : json_object_get(at, step);
		path += length + (path[length] == '.');
	}
	return at;
}

int64_t e2e_number(const struct agent_process *agent, const char *path)
{
	json_t *status = read_status(agent);
	const json_t *found = walk(status, path);
	int64_t number = -1;

	if (json_is_integer(found))
		number = json_integer_value(found);
	else if (json_is_boolean(found))
		number = json_is_true(found);
	json_decref(status);
	return number;
}

void e2e_text(const struct agent_process *agent, const char *path, char *buffer, size_t size)
{
	json_t *status = read_status(agent);
	const char *text = json_string_value(walk(status, path));

	snprintf(buffer, size, "%s", text ? text : "");
	json_decref(status);
}

int64_t e2e_await(const struct agent_process *agent, const char *path, int64_t least, long patience_ms)
{
	uint64_t until = e2e_now_ms() + (uint64_t)patience_ms;
	int64_t number;

	while ((number = e2e_number(agent, path)) < least && e2e_now_ms() < until)
		e2e_pause_ms(5 * STEP_MS);
	return number;
}

bool e2e_await_trust(const struct agent_process *agent)
{
	return e2e_await(agent, "coherence.lease_remaining_ms", 1, 10000) > 0;
}

bool e2e_await_exactly(const struct agent_process *agent, const char *path, int64_t wanted, long patience_ms)
{
	uint64_t until = e2e_now_ms() + (uint64_t)patience_ms;
	int64_t number;

	while ((number = e2e_number(agent, path)) != wanted && e2e_now_ms() < until)
		e2e_pause_ms(5 * STEP_MS);
	return number == wanted;
}

/* ---- processes ---------------------------------------------------------------------------------------------- */

int e2e_descriptors(pid_t pid)
{
	char path[64];
	DIR *folder;
	int count = 0;

	snprintf(path, sizeof(path), "/proc/%ld/fd", (long)pid);
	folder = opendir(path);
	if (!folder)
		return -1;
	for (struct dirent *entry; (entry = readdir(folder));)
		count += entry->d_name[0] != '.';
	closedir(folder);
	return count;
}

long e2e_resident_kib(pid_t pid)
{
	char path[64], line[128];
	long kib = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "RssAnon: %ld", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib;
}

pid_t e2e_fork(int (*run)(void *context), void *context)
{
	pid_t parent = getpid(), pid;

	fflush(NULL);
	pid = fork();
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	_exit(getppid() == parent ? run(context) & 0xff : 255);
}

int e2e_join(pid_t pid, long patience_ms)
{
	uint64_t until = e2e_now_ms() + (uint64_t)patience_ms;
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (e2e_now_ms() >= until) {
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			return -1;
		}
		e2e_pause_ms(STEP_MS / 5);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

bool e2e_stop(struct agent_process *agent)
{
	char line[1024];
	FILE *log;

	if (agent_process_kill(agent, SIGTERM) == 0 && WIFEXITED(agent->wait_status) &&
	    WEXITSTATUS(agent->wait_status) == 0)
		return true;
	fprintf(stderr, "the agent did not stop well: wait status %#x; its log:\n", (unsigned int)agent->wait_status);
	log = fopen(agent->log_path, "re");
	while (log && fgets(line, sizeof(line), log))
		fputs(line, stderr);
	if (log)
		fclose(log);
	return false;
}

int e2e_objects(const struct agent_process *agent)
{
	char prefix[64];
	DIR *folder = opendir("/dev/shm");
	int count = 0;

	snprintf(prefix, sizeof(prefix), "riptide.%s.", agent->instance);
	for (struct dirent *entry; folder && (entry = readdir(folder));)
		count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
	if (folder)
		closedir(folder);
	return count;
}

/* ---- the witness -------------------------------------------------------------------------------------------- */

struct witness_task {
	const struct agent_process *agent;
	struct e2e_testimony *testimony;
};

static void note_failure(struct e2e_testimony *t, int status)
{
	__atomic_store_n(&t->last, status, __ATOMIC_RELAXED);
	__atomic_add_fetch(status == E2E_WRONG ? &t->wrong : &t->errors, 1, __ATOMIC_RELAXED);
}

static bool witness_round(riptide *handle, struct e2e_testimony *t, uint64_t round)
{
	struct riptide_info info = {.flags = 0};
	char key[32], value[64];
	int status;

	snprintf(key, sizeof(key), "witness-%llu", (unsigned long long)(round % 16));
	snprintf(value, sizeof(value), "what round %llu says", (unsigned long long)round);
	status = e2e_put(handle, key, value);
	for (int i = 0; i < 4 && status == RIPTIDE_OK; i++) {
		status = e2e_check(handle, key, value, &info);
		if (status == RIPTIDE_OK && (info.flags & RIPTIDE_HOT))
			__atomic_add_fetch(&t->hot, 1, __ATOMIC_RELAXED);
	}
	if (status == RIPTIDE_OK)
		status = riptide_delete(handle, key, strlen(key));
	if (status != RIPTIDE_OK)
		note_failure(t, status);
	return status == RIPTIDE_OK;
}

static int witness_main(void *context)
{
	const struct witness_task *task = context;
	struct e2e_testimony *t = task->testimony;
	riptide *handle;
	int status = e2e_open(task->agent, NULL, 5000, &handle);

	if (status != RIPTIDE_OK)
		note_failure(t, status);
	for (uint64_t round = 0; status == RIPTIDE_OK && !__atomic_load_n(&t->stop, __ATOMIC_RELAXED); round++) {
		uint64_t began = e2e_now_ms(), took;

		if (witness_round(handle, t, round))
			__atomic_add_fetch(&t->rounds, 1, __ATOMIC_RELAXED);
		took = e2e_now_ms() - began;
		if (took > t->slowest_ms)
			t->slowest_ms = took;
		e2e_pause_ms(1);
	}
	riptide_close(&handle);
	return 0;
}

int e2e_witness_start(struct e2e_witness *witness, const struct agent_process *agent)
{
	struct witness_task task = {.agent = agent};

	witness->testimony =
		mmap(NULL, sizeof(*witness->testimony), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (witness->testimony == MAP_FAILED)
		return -1;
	task.testimony = witness->testimony;
	witness->pid = e2e_fork(witness_main, &task);
	return witness->pid > 0 && e2e_witness_is_well(witness, 5000) ? 0 : -1;
}

bool e2e_witness_is_well(const struct e2e_witness *witness, long patience_ms)
{
	const struct e2e_testimony *t = witness->testimony;
	uint64_t until = e2e_now_ms() + (uint64_t)patience_ms;
	uint64_t wanted = __atomic_load_n(&t->rounds, __ATOMIC_RELAXED) + 5;

	while (__atomic_load_n(&t->rounds, __ATOMIC_RELAXED) < wanted && e2e_now_ms() < until)
		e2e_pause_ms(STEP_MS);
	if (t->wrong == 0 && t->errors == 0 && t->rounds >= wanted)
		return true;
	fprintf(stderr,
		"the witness: %llu rounds (wanted %llu), %llu wrong values, %llu errors (last %lld), slowest %llu ms\n",
		(unsigned long long)t->rounds, (unsigned long long)wanted, (unsigned long long)t->wrong,
		(unsigned long long)t->errors, (long long)t->last, (unsigned long long)t->slowest_ms);
	return false;
}

bool e2e_witness_stop(struct e2e_witness *witness)
{
	int status;

	if (!witness->testimony || witness->testimony == MAP_FAILED)
		return false;
	__atomic_store_n(&witness->testimony->stop, 1, __ATOMIC_RELAXED);
	status = e2e_join(witness->pid, 10000);
	munmap(witness->testimony, sizeof(*witness->testimony));
	witness->testimony = NULL;
	return status == 0;
}
