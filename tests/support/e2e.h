/*
 * e2e.h - what end-to-end tests have in common: handles on a real agent, its status document, processes, a witness.
 *
 * Waits are bounded. Functions are for the test's main thread unless they say otherwise.
 */
#ifndef TESTS_SUPPORT_E2E_H
#define TESTS_SUPPORT_E2E_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "riptide/riptide.h"
#include "tests/support/agent_process.h"

/* ---- time --------------------------------------------------------------------------------------------------- */

uint64_t e2e_now_ms(void);
void e2e_pause_ms(long ms);
/* Makes an empty file of a name that nobody else has, /tmp/riptide-STEM-…; the caller removes it. Aborts if that fails. */
void e2e_make_file(char *path, size_t size, const char *stem);

/* ---- handles; any thread or process ------------------------------------------------------------------------- */

/* `tenant` may be NULL: default. As riptide_open(). */
int e2e_open(const struct agent_process *agent, const char *tenant, uint32_t timeout_ms, riptide **ret);

/* Sets text. */
int e2e_put(riptide *handle, const char *key, const char *value);

#define E2E_WRONG 100 /* the key has another value */

/* RIPTIDE_OK: the key has this text as its value; else E2E_WRONG or what the get returned. `ret_info` may be NULL. */
int e2e_check(riptide *handle, const char *key, const char *value, struct riptide_info *ret_info);

/* Repeats e2e_check() until it gives `status` or `patience_ms` is over. Returns the last status. */
int e2e_await_check(riptide *handle, const char *key, const char *value, int status, long patience_ms);

/* ---- status ------------------------------------------------------------------------------------------------- */

/* A number or boolean of the agent's status document, such as "workers.0.protocol_errors"; -1: not there, no agent. */
int64_t e2e_number(const struct agent_process *agent, const char *path);
/* The same for a text; "" if it is not there. */
void e2e_text(const struct agent_process *agent, const char *path, char *buffer, size_t size);
/* Waits until the number is `least` or more. Returns the last one seen. */
int64_t e2e_await(const struct agent_process *agent, const char *path, int64_t least, long patience_ms);
/* Waits until readers may trust what is hot: the agent has its first proof. False: not within 10 s. */
bool e2e_await_trust(const struct agent_process *agent);
/* Waits until the number is exactly `wanted`. */
bool e2e_await_exactly(const struct agent_process *agent, const char *path, int64_t wanted, long patience_ms);

/* ---- processes ---------------------------------------------------------------------------------------------- */

/* Open descriptors, and resident memory without shared mappings in KiB, of a process; -1: there is none. */
int e2e_descriptors(pid_t pid);
long e2e_resident_kib(pid_t pid);

/* A child that ends with the test and exits with what `run` returns (0-255). */
pid_t e2e_fork(int (*run)(void *context), void *context);
/* Its exit status; 1000 + signal if one ended it; -1 if it had to be killed after `patience_ms`. */
int e2e_join(pid_t pid, long patience_ms);

/* Stops the agent by SIGTERM. True if it ended with status 0; else its log is on stderr. */
bool e2e_stop(struct agent_process *agent);

/* Objects in /dev/shm that belong to this agent's instance. */
int e2e_objects(const struct agent_process *agent);

/* ---- the witness: a well-behaved client in a process of its own, which checks that it is served ---------------- */

struct e2e_witness {
	pid_t pid;
	struct e2e_testimony {
		uint64_t rounds; /* a set, gets of it, a delete, all right */
		uint64_t hot;    /* gets answered from shared memory */
		uint64_t wrong;  /* wrong bytes, ever */
		uint64_t errors; /* calls that failed */
		int64_t last;    /* code of the last failure */
		uint64_t slowest_ms;
		uint32_t stop;
	} * testimony; /* shared with the process */
};

int e2e_witness_start(struct e2e_witness *witness, const struct agent_process *agent);
/* True if it has been served without any error so far, and goes on being: some more rounds within `patience_ms`. */
bool e2e_witness_is_well(const struct e2e_witness *witness, long patience_ms);
/* Ends the process. Returns false if it did not end well. */
bool e2e_witness_stop(struct e2e_witness *witness);

#endif
