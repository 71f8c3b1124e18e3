/* agent_priv.h - the agent's parts, for agent.c, stores.c, admission.c, report.c and reload.c. Main thread. */
#ifndef RIPTIDE_AGENT_PRIV_H
#define RIPTIDE_AGENT_PRIV_H

#include <pthread.h>
#include <uv.h>

#include "agent/agent.h"
#include "agent/base/hlc.h"
#include "agent/base/mailbox.h"
#include "agent/control/audit.h"
#include "agent/control/control.h"
#include "agent/presence.h"
#include "agent/serve/serve.h"
#include "agent/store/embedded/embedded.h"

/* Who replays the journal of which tenants. */
struct journal_owner {
	struct agent *agent;
	uint32_t worker;
};

/* A place for the figures of a client, taken from accepted attach to the channel's end. */
struct client_place {
	bool taken;
	struct live_tenant *live; /* NULL: a tenant of the configuration */
};

#define WORKERS_MAX 64u /* of agent.workers */

struct agent {
	/* set once */
	const struct config_sources *sources;
	struct config *config;
	int lock_fd;
	char control_path[256], doorbell_path[256], objects_path[256], hot_set_path[1100];
	struct object_list *objects;
	struct hot_budget budget;
	struct hot_environment hot;
	struct hlc hlc;
	struct embedded_env *embedded;  /* NULL with the redis backend */
	struct tenant_numbers *numbers; /* of the disk tier; NULL without one */
	struct tenant_table *tenants;
	struct dictionary_registry *dictionaries;
	struct dictionary_sampler *sampler; /* NULL: off */
	struct master_keys *masters;        /* NULL: no tenant encrypts */
	struct key_work *key_work;          /* of operators (tenant_keys.c), the last one first */
	struct serve_environment serve;
	struct worker **workers;
	uint32_t worker_count;
	struct journal_owner journal_owners[WORKERS_MAX];
	/* main loop */
	uv_loop_t loop;
	bool loop_open;
	struct presence presence;
	struct live_tenants *live; /* tenants of the backend; NULL: none are served */
	struct control *control;
	struct audit *audit;           /* NULL: off */
	struct tenant *administrators; /* whose users administer tenants; NULL: only operators */
	struct mailbox mailbox;
	uv_timer_t beat;
	uv_signal_t on_term, on_int, on_hup;
	uv_work_t joining;
	bool stopping;
	int exit_status;
	uint64_t started_ms, beats;
	struct client_place *client_places;
	uint32_t client_place_count;
};

/* stores.c */
int stores_open(struct agent *agent, char *error, size_t error_len);
int stores_number_tenants(struct agent *agent, char *error, size_t error_len);
/* The main loop's own, for the registry of tenants; without a journal. */
int stores_create_registry(struct agent *agent, struct store **ret, char *error, size_t error_len);
/* Number and shards of a tenant. May block on the disk; one thread at a time. */
int stores_number_tenant(struct agent *agent, const char *id, uint32_t *ret_number, uint32_t *ret_shards);
int stores_create(void *agent, uint32_t worker, uv_loop_t *loop, struct store **ret, char *error, size_t error_len);
int stores_open_spill(void *agent, uint32_t worker, uv_loop_t *loop, struct spill **ret, char *error,
		      size_t error_len);
void stores_close(struct agent *agent);

/* admission.c: hooks of the control plane, and the ends of channels */
void admission_attach(void *agent, const struct control_attach *attach, control_attached_fn *done,
		      void *done_context);
void admission_connect(void *agent, void *binding, const struct control_peer *peer, int fd, uint64_t channel_id);
void admission_release(void *agent, void *binding);
void admission_channel_closed(void *agent, uid_t uid, uint32_t figures_index); /* worker threads */
void admission_refused(void *agent, const struct serve_refusal *refusal);      /* the same */

/* How a peer is let in. */
struct admission_terms {
	bool read_only;
	uint64_t until_ms; /* wall clock; 0: for good */
};

/* Answers an attach to a tenant that is open and lets the peer in; `live` as in struct client_place. */
void admission_accept(struct agent *agent, const struct tenant *tenant, struct live_tenant *live,
		      const struct control_attach *attach, const struct admission_terms *terms,
		      control_attached_fn *done, void *done_context);
void admission_refuse(const struct control_attach *attach, control_attached_fn *done, void *done_context);

/* report.c */
void report_hook(void *agent, uint16_t op, const struct control_peer *peer, control_text_fn *done,
		 void *done_context);

/* dictionaries.c */
int dictionaries_open(struct agent *agent);
void dictionary_hook(void *agent, const struct control_dictionary *request, control_text_fn *done,
		     void *done_context);

/* reload.c */
void reload_hook(void *agent, control_text_fn *done, void *done_context);
/* On SIGHUP: the same, told to the log. */
void reload_now(struct agent *agent);

#endif
