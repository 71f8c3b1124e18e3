/* top.h - the parts of `riptidectl top`: samples of shared memory, frames, the terminal. One thread. */
#ifndef RIPTIDE_CTL_TOP_H
#define RIPTIDE_CTL_TOP_H

#include "client-lib/ctl/ctl.h"
#include "shm/os/map.h"

#define TOP_SILENCE_MS 1500u /* without a heartbeat means trouble: the agent beats several times within it */

/* ---- sample.c: what the agent object says ------------------------------------------------------------------- */

/* One place of the table of figures that was in use. Names are printable ASCII. */
struct top_row {
	uint32_t place;
	struct rshm_figures f;
	bool has_rates;                                /* false: it was not in the sample before */
	double hits, misses, sets, deletes, evictions; /* per second */
};

struct top_rows {
	struct top_row *rows; /* by place, until they are sorted */
	size_t count, capacity;
};

struct top_sample {
	bool attached; /* false: all else is as the agent left it, or empty */
	uint64_t at_ns, now_ms;
	char instance[40], version[16];
	uint32_t state, process_id;
	uint64_t started_ms, heartbeat_ms, restarts;
	uint64_t lease_until_ms, epoch; /* the shortest lease, the highest epoch */
	unsigned int unclean;           /* sources with entries of an older epoch */
	struct top_rows tenants, clients;
};

/* The agent object, mapped read-only. Zero it before first use. */
struct top_agent {
	struct rshm_map map; /* .base NULL: not attached */
	char name[RSHM_NAME_MAX];
	uint32_t tenant_capacity, client_capacity;
	uint64_t size;
};

/*
 * Finds the object by <folder of the control socket>/objects and maps it after checking owner, size and header. On failure an
 * exit code, and in `trouble` (of `size` bytes) one line with a remedy.
 */
int top_attach(struct top_agent *agent, const char *socket, char *trouble, size_t size);
void top_detach(struct top_agent *agent);

/* Another object serves now, or this one was retired: attach again. Reads the file only if the agent shows no life. */
bool top_is_replaced(const struct top_agent *agent, const char *socket);

/* Takes a sample; rates come from the difference to `before`, which may be empty. CTL_ERROR: no memory. */
int top_sample_take(const struct top_agent *agent, const struct top_sample *before, struct top_sample *ret);
void top_sample_fini(struct top_sample *sample);

/* ---- frame.c: a sample as text or JSON ---------------------------------------------------------------------- */

struct top_view {
	unsigned int lines, columns; /* of the terminal; 0: no limit */
	char sort;                   /* h, m, s, n */
	bool colour, screen;         /* screen: lines end with "erase to the end of the line" */
};

/* Sorts the sample's rows and writes a frame. */
void top_frame(struct top_sample *sample, const struct top_view *view, FILE *to);
/* The sample as a JSON object; NULL: no memory. */
json_t *top_json(struct top_sample *sample, char sort);

/* ---- terminal.c --------------------------------------------------------------------------------------------- */

/*
 * Takes the terminal over: alternate screen, keys without echo, and handlers that give it back whatever ends the process.
 * CTL_ERROR: stdin or stdout is no terminal.
 */
int terminal_setup(void);
/* Gives the terminal back. May be called twice. */
void terminal_teardown(void);
void terminal_size(unsigned int *ret_lines, unsigned int *ret_columns);

/*
 * Waits for a key, a new size of the window, or a signal to end, at most `wait_ms`. The key; 0: nothing, or draw again;
 * -1: end, and *ret_signal is the signal that wants it (0: end of input). Stops and continues the process on Ctrl-Z.
 */
int terminal_wait(uint64_t wait_ms, int *ret_signal);

#endif
