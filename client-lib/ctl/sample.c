/*
 * sample.c - reads the agent object.
 *
 * Nothing here asks the agent: a control call would hang when it hangs, which is when people look. The object's name stands
 * in <run dir>/objects, which only the agent's user can write; the object must belong to the same user, so that nobody
 * else's is shown. Geometry is read once and checked against the size; every figure is one relaxed load, for the agent goes
 * on counting, and a place whose `in_use` changed while it was copied is left out until the next frame.
 */
#include "client-lib/ctl/top.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shm/order.h"
#include "shm/source.h"

#define OBJECT_MAX (1ull << 30) /* bytes; 100,000 tenants and 65,536 clients take 41 MiB */
#define LINES_MAX 200000        /* of the list of objects */

/* ---- finding it --------------------------------------------------------------------------------------------- */

static int objects_path(const char *socket, char *path, size_t size)
{
	const char *slash = strrchr(socket, '/');
	int length = slash ? (int)(slash - socket) : 1;

	return snprintf(path, size, "%.*s/objects", length, slash ? socket : ".") < (int)size ? 0 : -1;
}

static bool take_line(char *line, char *ret_name)
{
	static const char prefix[] = "agent - ";
	const char *name = line + sizeof(prefix) - 1;

	if (strncmp(line, prefix, sizeof(prefix) - 1) != 0)
		return false;
	line[strcspn(line, "\n")] = '\0';
	if (!rshm_name_is_valid(name))
		return false;
	strcpy(ret_name, name);
	return true;
}

/* The name in the file and the file's owner. An exit code with a text. */
static int find_name(const char *socket, char *ret_name, uid_t *ret_owner, char *trouble, size_t size)
{
	char path[512], line[256];
	struct stat st;
	bool found = false;
	FILE *file = NULL;
	int fd;

	if (objects_path(socket, path, sizeof(path)) < 0) {
		snprintf(trouble, size, "the path of the socket is too long");
		return CTL_USAGE;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		bool denied = errno == EACCES || errno == EPERM;

		snprintf(trouble, size, "%s: %s; %s", path, strerror(errno),
			 denied ? "top is for the agent's user, its group, and root"
				: "start riptided, or set --socket to the control socket of one that runs");
		return denied ? CTL_DENIED : CTL_NO_AGENT;
	}
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		file = fdopen(fd, "r");
	if (!file)
		close(fd);
	for (int i = 0; file && !found && i < LINES_MAX && fgets(line, sizeof(line), file); i++)
		found = take_line(line, ret_name);
	if (file)
		fclose(file);
	if (!found) {
		snprintf(trouble, size, "%s lists no agent; start riptided", path);
		return CTL_NO_AGENT;
	}
	*ret_owner = st.st_uid;
	return CTL_OK;
}

static int object_size(const char *name, uint64_t *ret)
{
	struct stat st;
	int fd = shm_open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0), status;

	if (fd < 0)
		return -1;
	status = fstat(fd, &st);
	close(fd);
	if (status < 0)
		return -1;
	*ret = (uint64_t)st.st_size;
	return 0;
}

static bool header_is_good(struct top_agent *a)
{
	const struct rshm_agent *agent = a->map.base;
	struct rshm_header header;

	rshm_copy_out(&header, &agent->header, sizeof(header));
	a->tenant_capacity = rshm_load_relaxed32(&agent->tenant_capacity);
	a->client_capacity = rshm_load_relaxed32(&agent->client_capacity);
	return header.magic == RSHM_AGENT_MAGIC && header.layout_major == RSHM_LAYOUT_MAJOR &&
	       header.object_size == a->map.size &&
	       rshm_agent_size(a->tenant_capacity, a->client_capacity) == a->map.size;
}

int top_attach(struct top_agent *a, const char *socket, char *trouble, size_t size)
{
	uint64_t bytes = 0;
	uid_t owner;
	int status;

	top_detach(a);
	status = find_name(socket, a->name, &owner, trouble, size);
	if (status != CTL_OK)
		return status;
	if (object_size(a->name, &bytes) < 0) {
		status = errno == EACCES ? CTL_DENIED : CTL_NO_AGENT;
		snprintf(trouble, size, "/dev/shm%s: %s; %s", a->name, strerror(errno),
			 status == CTL_DENIED ? "run as the agent's user or root"
					      : "the agent is gone: start riptided");
		return status;
	}
	if (bytes < sizeof(struct rshm_agent) || bytes > OBJECT_MAX ||
	    rshm_map_read(a->name, bytes, owner, &a->map) < 0) {
		snprintf(trouble, size, "/dev/shm%s is not the agent's: its owner or size is wrong", a->name);
		return CTL_DENIED;
	}
	if (!header_is_good(a)) {
		top_detach(a);
		snprintf(trouble, size,
			 "the agent object has another layout; use the riptidectl of the agent's version");
		return CTL_ERROR;
	}
	return CTL_OK;
}

void top_detach(struct top_agent *a)
{
	if (a->map.base)
		rshm_unmap(&a->map);
	a->map.base = NULL;
}

bool top_is_replaced(const struct top_agent *a, const char *socket)
{
	const struct rshm_agent *agent = a->map.base;
	char name[RSHM_NAME_MAX], trouble[512];
	uint64_t beat_ms = rshm_load_relaxed(&agent->heartbeat_ms), now_ms = rshm_now_ms();
	uid_t owner;

	if (rshm_load_acquire32(&agent->state) == RSHM_RETIRED)
		return true;
	if (now_ms < beat_ms + TOP_SILENCE_MS)
		return false;
	return find_name(socket, name, &owner, trouble, sizeof(trouble)) == CTL_OK && strcmp(name, a->name) != 0;
}

/* ---- reading it --------------------------------------------------------------------------------------------- */

/* Whatever the writer put there: printable ASCII and a NUL. */
static void copy_text(char *to, const char *shared, size_t size)
{
	rshm_copy_out(to, shared, size);
	to[size - 1] = '\0';
	for (char *at = to; *at; at++)
		if (*at < ' ' || *at > '~')
			*at = '?';
}

static void copy_figures(struct rshm_figures *to, const struct rshm_figures *from)
{
	to->hits = rshm_load_relaxed(&from->hits);
	to->hit_bytes = rshm_load_relaxed(&from->hit_bytes);
	to->misses = rshm_load_relaxed(&from->misses);
	to->stale = rshm_load_relaxed(&from->stale);
	to->sets = rshm_load_relaxed(&from->sets);
	to->deletes = rshm_load_relaxed(&from->deletes);
	to->requests = rshm_load_relaxed(&from->requests);
	to->errors = rshm_load_relaxed(&from->errors);
	to->hit_ns_p50 = rshm_load_relaxed(&from->hit_ns_p50);
	to->hit_ns_p99 = rshm_load_relaxed(&from->hit_ns_p99);
	to->process_id = rshm_load_relaxed32(&from->process_id);
	to->user_id = rshm_load_relaxed32(&from->user_id);
	to->used_bytes = rshm_load_relaxed(&from->used_bytes);
	to->limit_bytes = rshm_load_relaxed(&from->limit_bytes);
	to->entries = rshm_load_relaxed(&from->entries);
	to->evictions = rshm_load_relaxed(&from->evictions);
	copy_text(to->name, from->name, sizeof(to->name));
	copy_text(to->program, from->program, sizeof(to->program));
}

static double per_second(uint64_t before, uint64_t now, double seconds)
{
	return now > before && seconds > 0 ? (double)(now - before) / seconds : 0;
}

static void set_rates(struct top_row *row, const struct top_row *before, double seconds)
{
	const struct rshm_figures *a = &before->f, *b = &row->f;

	row->has_rates = true;
	row->hits = per_second(a->hits, b->hits, seconds);
	row->misses = per_second(a->misses, b->misses, seconds);
	row->sets = per_second(a->sets, b->sets, seconds);
	row->deletes = per_second(a->deletes, b->deletes, seconds);
	row->evictions = per_second(a->evictions, b->evictions, seconds);
}

static struct top_row *add_row(struct top_rows *list)
{
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? 2 * list->capacity : 16;
		struct top_row *rows = reallocarray(list->rows, capacity, sizeof(*rows));

		if (!rows)
			return NULL;
		list->rows = rows;
		list->capacity = capacity;
	}
	list->rows[list->count] = (struct top_row){.place = 0};
	return &list->rows[list->count];
}

static int compare_place(const void *a, const void *b)
{
	const struct top_row *x = a, *y = b;

	return (x->place > y->place) - (x->place < y->place);
}

static const struct top_row *find_row(const struct top_rows *list, const struct top_row *like)
{
	const struct top_row *row = NULL;

	if (list->count > 0)
		row = bsearch(like, list->rows, list->count, sizeof(*like), compare_place);
	return row && row->f.in_use == like->f.in_use ? row : NULL;
}

/* `before` was sorted for its frame and is put back into the order of places here. */
static int read_rows(const struct rshm_figures *table, uint32_t capacity, const struct top_rows *before,
		     double seconds, struct top_rows *ret)
{
	if (before->count > 0)
		qsort(before->rows, before->count, sizeof(*before->rows), compare_place);
	for (uint32_t i = 0; i < capacity; i++) {
		/* Acquire: pairs with the agent's release of `in_use`, after which the names stand. */
		uint64_t use = rshm_load_acquire(&table[i].in_use);
		const struct top_row *earlier;
		struct top_row *row;

		if (use == 0)
			continue;
		row = add_row(ret);
		if (!row)
			return CTL_ERROR;
		row->place = i;
		row->f.in_use = use;
		copy_figures(&row->f, &table[i]);
		rshm_fence_acquire();
		if (rshm_load_relaxed(&table[i].in_use) != use)
			continue;
		ret->count++;
		earlier = find_row(before, row);
		if (earlier)
			set_rates(row, earlier, seconds);
	}
	return CTL_OK;
}

static void read_sources(const struct rshm_agent *agent, struct top_sample *ret)
{
	ret->lease_until_ms = UINT64_MAX;
	for (unsigned int i = 0; i < RSHM_SOURCES; i++) {
		const struct rshm_source *source = &agent->sources[i];
		uint64_t until_ms = rshm_load_relaxed(&source->lease_until_ms), epoch = rshm_source_epoch(source);

		/* Workers use as many as they are; the others never had a lease. */
		if (until_ms != 0 && until_ms < ret->lease_until_ms)
			ret->lease_until_ms = until_ms;
		if (epoch > ret->epoch)
			ret->epoch = epoch;
		ret->unclean += rshm_load_relaxed(&source->clean) == 0;
	}
	if (ret->lease_until_ms == UINT64_MAX)
		ret->lease_until_ms = 0;
}

int top_sample_take(const struct top_agent *a, const struct top_sample *before, struct top_sample *ret)
{
	struct rshm_agent *agent = a->map.base;
	struct timespec now;
	double seconds;
	int status;

	clock_gettime(CLOCK_MONOTONIC, &now);
	*ret = (struct top_sample){
		.attached = true,
		.at_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
		.now_ms = rshm_now_ms(),
		.state = rshm_load_acquire32(&agent->state),
		.process_id = rshm_load_relaxed32(&agent->process_id),
		.started_ms = rshm_load_relaxed(&agent->started_ms),
		.heartbeat_ms = rshm_load_relaxed(&agent->heartbeat_ms),
		.restarts = rshm_load_relaxed(&agent->restarts),
	};
	copy_text(ret->instance, agent->instance_name, sizeof(ret->instance));
	copy_text(ret->version, agent->program_version, sizeof(ret->version));
	read_sources(agent, ret);
	seconds = before->at_ns ? (double)(ret->at_ns - before->at_ns) / 1e9 : 0;
	status = read_rows(rshm_agent_tenants(agent), a->tenant_capacity, &before->tenants, seconds, &ret->tenants);
	if (status == CTL_OK)
		status = read_rows(rshm_agent_clients(agent, a->tenant_capacity), a->client_capacity,
				   &before->clients, seconds, &ret->clients);
	if (status != CTL_OK)
		top_sample_fini(ret);
	return status;
}

void top_sample_fini(struct top_sample *sample)
{
	free(sample->tenants.rows);
	free(sample->clients.rows);
	*sample = (struct top_sample){.attached = false};
}
