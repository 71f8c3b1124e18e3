/* report.h - what report.c, report_tenants.c and metrics.c tell of the agent. Main thread; a new reference each. */
#ifndef RIPTIDE_REPORT_H
#define RIPTIDE_REPORT_H

#include <jansson.h>

#include "agent/serve/serve.h"

struct agent;
struct control_peer;

/* All tenants together, those that were closed since the start included; exact but for the rate. */
struct report_sum {
	struct rshm_figures figures;
	uint64_t plain_bytes, stored_bytes, operations_per_second_milli;
	struct evictions_figures evictions;
	struct histogram hit_ns;
};
/* NULL: no memory. The caller's to free(). */
struct report_sum *report_sum(struct agent *agent);

json_t *report_figures(const struct rshm_figures *figures);
/* Those that the peer may use; of others nobody but operators is told. NULL: an operator asks. */
json_t *report_tenants(struct agent *agent, const struct control_peer *peer);
json_t *report_total(struct agent *agent, const struct control_peer *peer);

/* Everything in the text format of Prometheus; the caller's to free(), NULL: no memory. */
char *metrics_text(struct agent *agent);

#endif
