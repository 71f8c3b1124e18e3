/* tenant_admin_priv.h - what the files that answer operators about tenants share. Main loop. */
#ifndef RIPTIDE_TENANT_ADMIN_PRIV_H
#define RIPTIDE_TENANT_ADMIN_PRIV_H

#include <jansson.h>

#include "agent/agent_priv.h"
#include "agent/tenants.h"

/* One request, until its end. */
struct job {
	struct agent *agent;
	uint16_t op;
	char id[RSHM_TENANT_MAX + 1];
	json_t *document; /* of the request; NULL: none */
	char *text;       /* the same as it came */
	size_t text_len;
	char user[24]; /* who asked */
	uint32_t attempts;
	struct tenant_record *record;
	json_t *answer; /* beside the record */
	/* list */
	char **ids;
	size_t count, at, total;
	bool more, is_asking, answered;
	/* delete */
	struct tenant *tenant;
	struct erase_counts counts;
	int status;
	control_text_fn *done;
	void *context;
};

/* Each answers and frees the job. `text` for people; NULL: the backend did not take it. */
void job_end(struct job *job, int status, const char *text);
/* Takes the document; NULL: no memory. */
void job_end_with(struct job *job, json_t *document);
/* A new document of what anybody may see of the record. */
json_t *job_described(const struct tenant_record *record);
/* NULL: the job was ended. */
struct registry *job_registry(struct job *job);

/* tenant_ask.c: records, tokens, rules, the list. */
void tenant_ask(struct job *job);
void tenant_ask_list(struct job *job);

/* tenant_keys.c: what is asked of, or done with, the keys of a tenant that has this record. */
void tenant_keys_ask(struct job *job, const struct tenant_record *record);

#endif
