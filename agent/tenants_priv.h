/* tenants_priv.h - what the files of the life of a tenant share: tenants.c, tenants_admit.c, tenants_open.c. Main loop. */
#ifndef RIPTIDE_TENANTS_PRIV_H
#define RIPTIDE_TENANTS_PRIV_H

#include "agent/agent_priv.h"
#include "agent/tenants.h"

#define TOKEN_BYTES_MAX 4096u
#define TENANT_RETRY_MS 500u

/* A process that waits to be let in. */
struct waiting {
	struct waiting *next;
	struct control_attach attach; /* its texts are ours */
	char tenant[RSHM_TENANT_MAX + 1], program[48];
	unsigned char token[TOKEN_BYTES_MAX];
	control_attached_fn *done;
	void *context;
	bool considered; /* it was there when the users were looked up */
};

struct waiter {
	struct waiter *next;
	void (*done)(void *context);
	void *context;
};

enum live_state { LIVE_NONE, LIVE_PREPARING, LIVE_OPENING, LIVE_OPEN, LIVE_CLOSING, LIVE_DRAINING };

struct live_tenant {
	struct live_tenant *next;
	struct agent *agent;
	char id[RSHM_TENANT_MAX + 1];
	enum live_state state;
	struct tenant_record *record; /* as last read; NULL: there is none, or it was not read yet */
	bool known;                   /* it was read */
	bool stale, reading, changed_while_reading;
	uint64_t read_ms, retry_at_ms, idle_since_ms;
	struct tenant *tenant;       /* from OPENING to DRAINING */
	char *built_from;            /* the part of the record that it was made from */
	struct token_set *tokens;    /* that let in since; NULL: they cannot be read */
	bool fits;                   /* the record was compared with both */
	char segment[RSHM_NAME_MAX]; /* offered */
	uint32_t uses;
	bool order_due; /* the worker could not take the order to close */
	struct waiting *attaches;
	struct waiter *refreshes, *closes;
	/* PREPARING */
	uv_work_t work;
	struct tenant_settings settings;
	uid_t *users;
	gid_t *groups;
	json_t *document;
	struct tenant *made; /* by the pool's thread */
	int work_status;
};

struct live_tenants {
	struct agent *agent;
	struct live_tenant *first;
	struct store *store; /* NULL: nothing was asked yet */
	struct registry *registry;
	enum store_coherence mode;
	bool armed, closing;
	uint64_t proven_ms, tidy_at_ms;
	bool tidying;
	void (*closed)(void *context);
	void *closed_context;
};

/* tenants.c: decides what is next; the tenant may be gone when it returns. */
void live_evaluate(struct live_tenant *live);
struct live_tenant *live_find_or_make(struct agent *agent, const char *id);
void live_doubt(struct live_tenant *live);
/* Is what is known of it as new as can be? */
bool live_is_fresh(const struct live_tenant *live);
void live_release_waiters(struct waiter **list);
/* Its tenant is nobody's any more. */
void live_drop(struct live_tenant *live);
/* From a worker: `handle` runs on the main loop, with a struct live_message. */
struct live_message {
	struct mailbox_message message; /* first */
	struct live_tenant *live;
	int status;
};
void live_post(struct live_tenant *live, void (*handle)(struct mailbox_message *message), int status);

/* tenants_admit.c: answers to those who wait. */
void live_admit_all(struct live_tenant *live);
/*
 * The users are known, the tenant is not open yet. Who was considered and may not, or may but the record forbids it, is told so.
 * Returns whether anybody is left who was considered.
 */
bool live_sift(struct live_tenant *live);
void live_refuse_all(struct live_tenant *live, int status, const char *text);
/* There is no such tenant, or none any more. */
void live_refuse_unknown(struct live_tenant *live);

bool live_is_permitted(const struct live_tenant *live);

/* tenants_open.c: from a record to users, and from one that permits it to a tenant that is open at its worker. */
void live_prepare(struct live_tenant *live);
/* What it was built from is nothing any more. */
void live_forget_built(struct live_tenant *live);
/* Is the open tenant what the record would make now? */
bool live_fits(struct live_tenant *live);

#endif
