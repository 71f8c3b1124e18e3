/*
 * checker.h - the promise of coherence under faults: several agents, as of several hosts, on one backend, many clients, and
 * programs that know nothing of agents. A test program starts the servers, names the faults and runs it; meanwhile all that is
 * read as verified is judged by the ledger (ledger.h).
 *
 * RIPTIDE_CHECKER_SECONDS lengthens a run, RIPTIDE_CHECKER_SEED repeats its faults, though not their moments. All functions
 * are for one thread of the test; they return 0, or -1 after a line on stderr.
 */
#ifndef TESTS_SUPPORT_CHECKER_H
#define TESTS_SUPPORT_CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/support/agent_process.h"
#include "tests/support/ledger.h"
#include "tests/support/redis_server.h"

#define CHECKER_HOSTS 3u
#define CHECKER_READERS 2u /* of each host */
#define CHECKER_WRITERS 4u
#define CHECKER_LEASE_MS 2000u

struct checker_counts {
	uint64_t reads, hot, verified, stale, misses, read_errors, wrong;
	uint64_t writes, unknown, refused, foreign_writes, deletes;
	uint64_t violations, oldest_ms;
	uint64_t last_key, last_number, last_age_ms, last_host; /* of a violation */
	uint64_t last_newer, last_newer_ms, last_newer_host;
};

struct checker {
	/* the caller's, before checker_start() */
	struct redis_server *servers; /* foreign programs write to those that take it; lent */
	uint32_t server_count;
	const char
		*absent_name; /* and its number: where foreign programs put a key that no server has; NULL: nowhere */
	/* a fault's: what it needs cannot be had; the run ends and is judged by what it saw */
	bool over;
	/* the checker's */
	struct agent_process agents[CHECKER_HOSTS];
	struct ledger *ledger;
	struct checker_counts *counts; /* shared by all processes, as is the next */
	uint32_t *end;
	pid_t children[CHECKER_HOSTS * CHECKER_READERS + CHECKER_WRITERS];
	size_t child_count;
};

/* One that takes as long as it has to, and leaves behind what goes on by itself. */
struct checker_fault {
	const char *name;
	void (*cause)(struct checker *checker, uint32_t random);
	uint32_t weight;
};

/* Starts an agent on each of the URLs ("redis.url=...") and waits until it trusts its copies. `settings` end with NULL. */
int checker_start(struct checker *checker, const char *const urls[CHECKER_HOSTS], const char *const settings[]);
/* Forks the clients, causes faults for so long, reports. -1: a promise was broken, or too little happened. */
int checker_run(struct checker *checker, const struct checker_fault *faults, size_t fault_count,
		unsigned long seconds);
/* Ends clients and agents; a checker that was only zeroed is fine. */
int checker_stop(struct checker *checker);

/* A command on a connection of its own, which the faults do not meet. */
__attribute__((format(printf, 2, 3))) void checker_order(struct redis_server *server, const char *format, ...);

/* Faults of any backend; those of servers choose one. */
void checker_kill_feeds(struct checker *checker, uint32_t random);
void checker_kill_clients(struct checker *checker, uint32_t random);
void checker_kill_one_client(struct checker *checker, uint32_t random);
void checker_sleep_server(struct checker *checker, uint32_t random);
void checker_pause_server(struct checker *checker, uint32_t random); /* for less than 3 s */
void checker_forget_scripts(struct checker *checker, uint32_t random);
void checker_pause_agent(struct checker *checker, uint32_t random);
void checker_restart_agent(struct checker *checker, uint32_t random);

#endif
