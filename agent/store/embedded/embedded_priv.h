/*
 * embedded_priv.h - what the files of this folder share.
 */
#ifndef RIPTIDE_STORE_EMBEDDED_PRIV_H
#define RIPTIDE_STORE_EMBEDDED_PRIV_H

#include <lmdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/base/mailbox.h"
#include "agent/base/text.h"
#include "agent/store/embedded/embedded.h"
#include "agent/store/embedded/record.h"
#include "agent/store/request_list.h"
#include "agent/store/store.h"

#define EMBEDDED_ENV_MAGIC 0x454d4245u
#define EMBEDDED_MODULE "store.embedded"
#define EMBEDDED_FORMAT 1u
#define EMBEDDED_TABLES_MAX 16u
#define EMBEDDED_READERS_MAX 1024u /* workers times nesting, and the operator's tools */

struct embedded_env {
	uint32_t magic;
	/* set once */
	char *path;
	MDB_env *mdb;
	struct record_tables tables;
	enum embedded_sync sync;
	uint64_t map_size;
	uint64_t put_pages; /* a put may not grow the file beyond; the rest is for deletes and the sweep */
	uint32_t page_size;
	pthread_t writer;
	/* under lock; `limits` holds the live options only */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct embedded_config limits;
	struct request_list queue;
	bool stopping;
	/* writer only */
	struct record_counts counts;
	bool unsynced;
	uint64_t sync_due_ms, sweep_due_ms;
	/* atomic, for whoever reports */
	uint64_t entries, bytes, commits, writes;
	uint32_t broken; /* the file failed for good; a restart may help */
};

/* request->state while it is ours */
enum embedded_state {
	EMBEDDED_QUEUED = 1,
	EMBEDDED_TAKEN,
	EMBEDDED_DEFERRED_READ,
	EMBEDDED_DEFERRED_ANSWER,
	EMBEDDED_BARRIER, /* no request: store_close() waits until what is before it is committed and synced */
};

struct embedded_store {
	struct store base;
	/* set once */
	struct embedded_env *env;
	struct mailbox mailbox;
	uv_idle_t idle;   /* runs while something is deferred */
	uv_timer_t timer; /* runs while writes are pending */
	/* loop only */
	MDB_txn *readers[4]; /* one for each `done` that may be on the stack */
	uint32_t depth;
	struct request_list deferred;
	uint64_t earliest_deadline_ms; /* of queued writes */
	uint64_t pending, completed, failed;
	uint32_t handles;
	bool closing;
	void (*closed)(void *context);
	void *closed_context;
	struct store_request barrier;
	/* under the env's lock */
	struct mailbox_message message;
	struct request_list finished;
	bool posted;
};

/* file.c: all before the environment is opened. */
int file_prepare(const char *path, struct text *error);
int file_check(const char *path, struct text *error);
void file_compact(const char *path);
/* Notes that a loss of power from now on may damage the file, and that it no longer does. */
int file_mark_dirty(const char *path, struct text *error);
void file_mark_clean(const char *path);
/* Explains a failed call of LMDB on the file; returns its status. */
int file_explain(const char *path, const char *what, int mdb_error, struct text *error);
/* Pages that wait for reuse. Returns an LMDB error. */
int file_free_pages(MDB_txn *txn, uint64_t *ret);

/* writer.c */
void *writer_run(void *env);

/* store.c: hands finished requests back to their stores. Any thread; takes the lock of the env. */
void embedded_store_finish(struct embedded_env *env, struct request_list *finished);

#endif
