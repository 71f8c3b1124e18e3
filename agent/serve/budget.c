/*
 * budget.c - rates and quotas of a tenant, before anything is done: what may be used is drawn ahead from the account that all
 * its agents share (tenant/account.h), a slice at a time, and given out here.
 *
 *	request ─▶ enough in the purses? ── yes ─▶ taken, goes on
 *	               │ no, and none will be there soon ─▶ refused: what, limit, use, when again
 *	               │ no ─▶ parked ─▶ account: read ─▶ drawn ─▶ written if unchanged ─▶ asked again
 *
 * A purse that is half empty is filled before it is needed. Bytes of answers are known too late: they may take a purse below
 * zero, and what comes next pays first. Readers of shared memory get credits out of the same purses (stop_hits and stop_bytes
 * of their shards), more when they have used half, and lose what they do not use for a second. So what all hosts together let
 * pass is at most the limit and the slices that were drawn before and not used: SLICES of them make one burst.
 *
 * While the backend cannot be asked, each host draws from an account of its own, at the full limit, and says so in the log. When
 * the tenant is closed, what is left goes back; a killed agent takes it along.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/serve/serve_priv.h"
#include "agent/tenant/account.h"
#include "agent/tenant/record.h"

#define SLICES 20u        /* of a burst */
#define CREDITS 8u        /* a shard's credits are this part of a slice */
#define ATTEMPTS 16u      /* against other agents that change the account */
#define REQUEST_MS 1500u  /* for each step at the backend */
#define PARKED_MAX 4096u  /* slots that wait; further ones are told to retry */
#define CREDIT_MS 1u      /* between two drains of a client that reads through its channel */
#define ALERT_PERCENT 90u /* of a quota: the operator is told */
#define ALERT_LOW_PERCENT 80u
#define AWAY_MS 1000u /* between two tries while the backend is away */

struct purse {
	int64_t have;
	uint64_t slice, use;     /* use: of all, when it was last drawn */
	uint64_t empty_until_ms; /* monotonic: nothing will be drawn before; RATE_NEVER */
	bool is_high;            /* nearly all is used, and that was told */
};

enum budget_step { BUDGET_IDLE, BUDGET_READING, BUDGET_WRITING };

struct budget {
	struct serve_tenant *tenant;
	const struct account_limits *limits;
	struct purse purses[ACCOUNT_KINDS];
	struct account account, own; /* as last read and changed; of this host alone */
	uint64_t version;            /* of the one that was read; 0: there is none */
	bool is_damaged;             /* what was read is replaced, whatever its version */
	struct account_draw draw;
	uint64_t back[ACCOUNT_KINDS]; /* what goes back in this round */
	enum budget_step step;
	uint32_t attempts, parked_count, round_count; /* round_count: of the parked, those that this round is for */
	uint64_t away_until_ms;                       /* 0: the backend answers */
	bool closing, is_returning, has_returned;     /* is_returning: this round gives back */
	struct slot *parked, **parked_last;
	struct envelope_buffer envelope;
	struct store_request request;
	uint64_t alerts;            /* counts quotas that came to be nearly used up */
	uint64_t limited, shadowed; /* counts requests refused, and draws that only the shadow mode let pass */
};

/* ---- life ---------------------------------------------------------------------------------------------------------- */

int budget_create(struct serve_tenant *tenant)
{
	const struct account_limits *limits = tenant->tenant->limits;
	struct budget *b;

	if (!limits)
		return RSHM_OK;
	b = calloc(1, sizeof(*b));
	if (!b || account_init(&b->account) < 0 || account_init(&b->own) < 0) {
		if (b)
			account_fini(&b->account);
		free(b);
		return RSHM_E_NOMEM;
	}
	b->tenant = tenant;
	b->limits = limits;
	b->parked_last = &b->parked;
	for (int kind = 0; kind < ACCOUNT_KINDS; kind++) {
		uint64_t slice = account_limit(limits, (enum account_kind)kind) / SLICES;

		/* A slice of a large limit need not be large: what is drawn is lost with the agent. */
		b->purses[kind].slice = slice == 0 ? 1 : slice < (UINT64_C(1) << 40) ? slice : UINT64_C(1) << 40;
	}
	tenant->budget = b;
	return RSHM_OK;
}

void budget_destroy(struct serve_tenant *tenant)
{
	struct budget *b = tenant->budget;

	tenant->budget = NULL;
	if (!b)
		return;
	must(!b->parked);
	account_fini(&b->account);
	account_fini(&b->own);
	envelope_buffer_fini(&b->envelope);
	free(b);
}

/* ---- what requests cost ----------------------------------------------------------------------------------------------- */

static uint64_t operations_of(const struct rshm_request *r)
{
	switch (r->op) {
	case RSHM_OP_GET_BATCH:
	case RSHM_OP_SET_BATCH:
	case RSHM_OP_DELETE_BATCH:
	case RSHM_OP_WARM:
		return r->items;
	case RSHM_OP_PING:
	case RSHM_OP_STATS:
	case RSHM_OP_LOCATE:
	case RSHM_OP_FLUSH:
	case RSHM_OP_FETCH_FAILED:
	case RSHM_OP_CHECK_ACCESS:
	case RSHM_OP_CHECK_QUOTA:
	case RSHM_OP_RATE:
		return 0;
	default:
		return 1;
	}
}

static void cost_of(const struct slot *slot, uint64_t ret[ACCOUNT_KINDS])
{
	uint64_t operations = operations_of(&slot->request);

	if (slot->request.op == RSHM_OP_CHECK_QUOTA) {
		memset(ret, 0, ACCOUNT_KINDS * sizeof(ret[0]));
		quota_cost(slot, ret);
		return;
	}
	ret[ACCOUNT_PER_MINUTE] = ret[ACCOUNT_OPERATIONS] = operations;
	/* One more, for an answer is on its way: without a byte left nothing is begun. */
	ret[ACCOUNT_BYTES] = ret[ACCOUNT_TRANSFER] = operations ? (uint64_t)slot->request.body_len + 1 : 0;
}

/* The first kind that lacks something; ACCOUNT_KINDS: none does. */
static enum account_kind lacking(const struct budget *b, const uint64_t cost[ACCOUNT_KINDS])
{
	enum account_kind kind = ACCOUNT_PER_MINUTE;

	while (kind < ACCOUNT_KINDS && (!b->limits->limited[kind] || cost[kind] == 0 ||
					(b->purses[kind].have > 0 && (uint64_t)b->purses[kind].have >= cost[kind])))
		kind++;
	return kind;
}

static void take(struct budget *b, const uint64_t cost[ACCOUNT_KINDS])
{
	for (int kind = 0; kind < ACCOUNT_KINDS; kind++)
		if (b->limits->limited[kind])
			b->purses[kind].have -= (int64_t)cost[kind];
}

/* The first kind of which it wants more than there can ever be at once; ACCOUNT_KINDS: none. */
static enum account_kind beyond_all(const struct budget *b, const uint64_t cost[ACCOUNT_KINDS])
{
	enum account_kind kind = ACCOUNT_PER_MINUTE;

	while (kind < ACCOUNT_KINDS && (!b->limits->limited[kind] || cost[kind] <= account_limit(b->limits, kind) ||
					(kind < ACCOUNT_RATES && b->limits->rates[kind].shadow)))
		kind++;
	return kind;
}

/* ---- answers --------------------------------------------------------------------------------------------------------- */

static void refuse(struct slot *slot, enum account_kind kind, uint64_t asked, bool never)
{
	struct budget *b = slot->client->tenant->budget;
	const struct purse *purse = &b->purses[kind];
	uint64_t now_ms = clock_monotonic_ms();
	char buffer[240];
	struct text text;

	b->limited++;
	text_init(&text, buffer, sizeof(buffer));
	text_append_format(&text, "Quota exceeded: %s: limit %" PRIu64 ", in use %" PRIu64 ", asked %" PRIu64,
			   account_kind_name(kind), account_limit(b->limits, kind), purse->use, asked);
	if (never)
		text_append_string(&text, "; more than the limit at once never passes");
	else if (purse->empty_until_ms > now_ms && purse->empty_until_ms != RATE_NEVER)
		text_append_format(&text, ", retry after %" PRIu64 " ms", purse->empty_until_ms - now_ms);
	request_refuse(slot, kind == ACCOUNT_TRANSFER ? RSHM_E_QUOTA : RSHM_E_LIMITED, buffer);
}

static bool park(struct budget *b, struct slot *slot)
{
	if (b->closing || b->parked_count == PARKED_MAX) {
		request_refuse(slot, b->closing ? RSHM_E_CLOSED : RSHM_E_AGAIN,
			       "too many requests wait for the tenant's quotas");
		return false;
	}
	client_ref(slot->client);
	slot->parked_next = NULL;
	*b->parked_last = slot;
	b->parked_last = &slot->parked_next;
	b->parked_count++;
	return true;
}

static struct slot *unpark(struct budget *b)
{
	struct slot *slot = b->parked;

	if (!slot)
		return NULL;
	b->parked = slot->parked_next;
	if (!b->parked)
		b->parked_last = &b->parked;
	b->parked_count--;
	return slot;
}

/* ---- the shared account ------------------------------------------------------------------------------------------------- */

static void begin_round(struct budget *b);
static void draw_alone(struct budget *b);
static void end_round(struct budget *b, int status);

static void ask(struct budget *b, enum store_op op, store_done_fn *done)
{
	const struct tenant *tenant = b->tenant->tenant;

	b->request = (struct store_request){
		.op = op,
		.name = {.tenant = TENANT_RESERVED_ID,
			 .tenant_number = tenant->registry_number,
			 .shards = 1,
			 .generation = 1,
			 .space = ACCOUNT_SPACE,
			 .key = tenant->id,
			 .key_len = strlen(tenant->id)},
		.skip_remaining = true,
		.deadline_ms = clock_monotonic_ms() + REQUEST_MS,
		.done = done,
		.context = b,
	};
}

/* What the purses and those who wait would like to have. */
static void set_wishes(struct budget *b)
{
	uint64_t cost[ACCOUNT_KINDS], sums[ACCOUNT_KINDS] = {0};

	memset(&b->draw, 0, sizeof(b->draw));
	b->round_count = b->parked_count;
	b->is_returning = b->closing;
	for (const struct slot *slot = b->parked; slot; slot = slot->parked_next) {
		cost_of(slot, cost);
		for (int kind = 0; kind < ACCOUNT_KINDS; kind++)
			sums[kind] += cost[kind];
	}
	for (int kind = 0; kind < ACCOUNT_KINDS; kind++) {
		const struct purse *purse = &b->purses[kind];
		int64_t aim = (int64_t)(purse->slice + sums[kind]);

		if (b->limits->limited[kind] && aim > purse->have && !b->closing)
			b->draw.wanted[kind] = (uint64_t)(aim - purse->have);
		b->back[kind] = b->closing && purse->have > 0 ? (uint64_t)purse->have : 0;
	}
}

/* Draws, and does what those who wait ask of the named quotas. Their answers go out when it is written. */
static void apply(struct budget *b, struct account *account)
{
	uint64_t wall_ms = clock_realtime_ms();

	set_wishes(b);
	account_draw(account, b->limits, wall_ms, &b->draw);
	account_return(account, b->limits, wall_ms, b->back);
	for (struct slot *slot = b->parked; slot; slot = slot->parked_next)
		quota_apply(slot, account, b->limits);
}

static void put_on_done(struct store_request *request)
{
	struct budget *b = request->context;

	if (request->status == RSHM_CONFLICT && ++b->attempts < ATTEMPTS) {
		b->step = BUDGET_IDLE;
		begin_round(b);
		return;
	}
	end_round(b, request->status == RSHM_CONFLICT ? RSHM_E_AGAIN : request->status);
}

static void write_account(struct budget *b)
{
	const struct worker *worker = b->tenant->worker;
	struct envelope_compression plain = {.choice = ENVELOPE_CHOOSE_NONE};
	struct envelope_input input = {
		.key = b->tenant->tenant->id,
		.key_len = strlen(b->tenant->tenant->id),
		.created_ms = clock_realtime_ms(),
		.version = hlc_next(worker->env->hlc),
		.writer_id = worker->env->writer_id,
	};
	char *text = account_encode(&b->account);
	int status = text ? RSHM_OK : RSHM_E_NOMEM;

	if (status == RSHM_OK) {
		input.value = text;
		input.value_len = strlen(text);
		envelope_buffer_fini(&b->envelope);
		status = envelope_encode(&input, &plain, &b->envelope);
	}
	free(text);
	if (status < 0) {
		end_round(b, status);
		return;
	}
	ask(b, STORE_PUT, put_on_done);
	b->request.condition = b->is_damaged ? STORE_ALWAYS : b->version ? STORE_IF_VERSION : STORE_IF_ABSENT;
	b->request.expected_version = b->version;
	b->request.envelope = b->envelope.bytes;
	b->request.envelope_len = b->envelope.length;
	b->step = BUDGET_WRITING;
	store_submit(worker->store, &b->request);
}

static int read_account(struct budget *b)
{
	const struct store_request *request = &b->request;
	unsigned char plain[ACCOUNT_BYTES_MAX];
	struct envelope_view view;
	int status =
		envelope_open(request->result, request->result_len, request->name.key, request->name.key_len, &view);

	if (status == RSHM_OK && view.head.plain_size > sizeof(plain))
		status = RSHM_E_CORRUPT;
	if (status == RSHM_OK)
		status = envelope_payload(&view, plain, view.head.plain_size);
	if (status == RSHM_OK)
		status = account_decode(plain, view.head.plain_size, &b->account);
	if (status == RSHM_OK)
		b->version = view.head.version;
	return status;
}

static void get_on_done(struct store_request *request)
{
	struct budget *b = request->context;
	static struct log_limit limit = LOG_LIMIT(5, 60000);
	int status = request->status;

	b->version = 0;
	b->is_damaged = false;
	account_fini(&b->account);
	if (status == RSHM_OK)
		status = read_account(b);
	if (status == RSHM_E_CORRUPT || status == RSHM_E_FORMAT) {
		log_limited(&limit, LOG_LEVEL_ERROR, "serve",
			    "tenant %s: what its hosts have used cannot be read from the backend; it is counted anew",
			    b->tenant->tenant->id);
		b->is_damaged = true;
		status = RSHM_MISS;
	}
	if (status == RSHM_MISS)
		status = account_init(&b->account);
	/* Whatever it holds now, it is an account. */
	if (status < 0) {
		must(b->account.used || account_init(&b->account) == RSHM_OK);
		end_round(b, status);
		return;
	}
	apply(b, &b->account);
	write_account(b);
}

/* One round at a time; those who come meanwhile wait for the next. */
static void begin_round(struct budget *b)
{
	if (b->step != BUDGET_IDLE)
		return;
	if (clock_monotonic_ms() < b->away_until_ms && !b->closing) {
		draw_alone(b);
		return;
	}
	b->step = BUDGET_READING;
	ask(b, STORE_GET, get_on_done);
	store_submit(b->tenant->worker->store, &b->request);
}

void budget_alert(struct serve_tenant *tenant, const char *name, uint64_t use, uint64_t limit)
{
	tenant->budget->alerts++;
	log_warn("serve", "tenant %s: %u %% of its %s are used: %" PRIu64 " of %" PRIu64, tenant->tenant->id,
		 ALERT_PERCENT, name, use, limit);
}

uint64_t budget_alert_level(uint64_t limit)
{
	/* In this order: nothing overflows, and small limits have a level, too. */
	return limit - limit / (100 / (100 - ALERT_PERCENT));
}

/* Told once, and again when it was clearly less meanwhile. */
static void watch_use(struct budget *b, enum account_kind kind)
{
	struct purse *purse = &b->purses[kind];
	uint64_t limit = account_limit(b->limits, kind), use = b->draw.use[kind] + b->draw.granted[kind];

	if (purse->is_high && use < limit / 100 * ALERT_LOW_PERCENT)
		purse->is_high = false;
	/* A slice of a small limit is much of it, and not used yet. */
	if (purse->is_high || use < budget_alert_level(limit) || limit < 100)
		return;
	purse->is_high = true;
	budget_alert(b->tenant, account_kind_name(kind), use, limit);
}

static void fill_purses(struct budget *b)
{
	uint64_t now_ms = clock_monotonic_ms();

	for (int kind = 0; kind < ACCOUNT_KINDS; kind++) {
		struct purse *purse = &b->purses[kind];
		uint64_t retry_ms = b->draw.retry_ms[kind];

		if (!b->limits->limited[kind])
			continue;
		purse->have += (int64_t)b->draw.granted[kind] - (int64_t)b->back[kind];
		purse->use = b->draw.use[kind];
		/* Rate limits are there to be reached; quotas are not. */
		if (kind == ACCOUNT_PER_MINUTE || kind == ACCOUNT_TRANSFER)
			watch_use(b, (enum account_kind)kind);
		b->shadowed += b->draw.shadowed[kind];
		purse->empty_until_ms = b->draw.granted[kind] >= b->draw.wanted[kind] ? 0
					: retry_ms == RATE_NEVER                      ? RATE_NEVER
										      : now_ms + retry_ms;
	}
}

/* Those who waited: what they lack now, they will not have soon. */
static void serve_parked(struct budget *b, int status)
{
	uint32_t count = b->closing ? b->parked_count : b->round_count;
	uint64_t cost[ACCOUNT_KINDS];

	while (count-- > 0) {
		struct slot *slot = unpark(b);
		struct client *client = slot->client;
		enum account_kind kind;

		cost_of(slot, cost);
		kind = lacking(b, cost);
		if (client->dropped || b->closing) {
			request_fail(slot, RSHM_E_CLOSED);
		} else if (operations_of(&slot->request) == 0) {
			quota_answer(slot, status);
		} else if (kind == ACCOUNT_KINDS) {
			take(b, cost);
			request_dispatch(slot);
		} else {
			refuse(slot, kind, cost[kind], false);
		}
		client_unref(client);
	}
}

/* The backend is away: this host's own account, until it is tried again. */
static void draw_alone(struct budget *b)
{
	set_wishes(b);
	account_draw(&b->own, b->limits, clock_realtime_ms(), &b->draw);
	fill_purses(b);
	serve_parked(b, RSHM_E_AGAIN);
}

static void end_round(struct budget *b, int status)
{
	static struct log_limit limit = LOG_LIMIT(5, 60000);

	b->step = BUDGET_IDLE;
	b->attempts = 0;
	b->away_until_ms = 0;
	if (b->is_returning)
		b->has_returned = true;
	if (status < 0 && !b->closing) {
		log_limited(
			&limit, LOG_LEVEL_WARN, "serve",
			"tenant %s: the backend cannot be asked what other hosts have used (status %d); this one counts alone",
			b->tenant->tenant->id, status);
		b->away_until_ms = clock_monotonic_ms() + AWAY_MS;
		draw_alone(b);
	} else {
		fill_purses(b);
		serve_parked(b, status);
	}
	/* What came while it was asked. */
	if (b->parked || (b->closing && !b->has_returned))
		begin_round(b);
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

/* Is a purse half empty that could be filled? */
static bool wants_filling(const struct budget *b, uint64_t now_ms)
{
	for (int kind = 0; kind < ACCOUNT_KINDS; kind++) {
		const struct purse *purse = &b->purses[kind];

		if (b->limits->limited[kind] && purse->have < (int64_t)(purse->slice + 1) / 2 &&
		    now_ms >= purse->empty_until_ms)
			return true;
	}
	return false;
}

static void fill_ahead(struct budget *b, uint64_t now_ms)
{
	if (b->step == BUDGET_IDLE && !b->closing && now_ms >= b->away_until_ms && wants_filling(b, now_ms))
		begin_round(b);
}

bool budget_admit(struct slot *slot)
{
	struct budget *b = slot->client->tenant->budget;
	uint64_t cost[ACCOUNT_KINDS], now_ms;
	enum account_kind kind;

	if (!b || operations_of(&slot->request) == 0)
		return true;
	now_ms = clock_monotonic_ms();
	cost_of(slot, cost);
	kind = beyond_all(b, cost);
	if (kind != ACCOUNT_KINDS) {
		refuse(slot, kind, cost[kind], true);
		return false;
	}
	kind = lacking(b, cost);
	if (kind == ACCOUNT_KINDS) {
		take(b, cost);
		fill_ahead(b, now_ms);
		/* A reader that has used its credits up: it need not wait for the next drain. */
		if (slot->request.op == RSHM_OP_GET && now_ms - slot->client->drained_ms >= CREDIT_MS)
			figures_drain_client(slot->client);
		return true;
	}
	if (now_ms < b->purses[kind].empty_until_ms && b->purses[kind].empty_until_ms != RATE_NEVER) {
		refuse(slot, kind, cost[kind], false);
		return false;
	}
	if (park(b, slot))
		begin_round(b);
	return false;
}

void budget_wait(struct slot *slot)
{
	struct budget *b = slot->client->tenant->budget;

	if (park(b, slot))
		begin_round(b);
}

void budget_charge_answer(struct serve_tenant *tenant, uint64_t bytes)
{
	const struct budget *b = tenant->budget;

	if (!b)
		return;
	for (enum account_kind kind = ACCOUNT_BYTES; kind <= ACCOUNT_TRANSFER; kind++)
		if (b->limits->limited[kind])
			tenant->budget->purses[kind].have -= (int64_t)bytes;
}

/* ---- credits of readers ------------------------------------------------------------------------------------------------- */

/* So many of both kinds of operations, or of bytes, as the purses have, at most `wanted`. */
static uint64_t take_credits(struct budget *b, enum account_kind one, enum account_kind other, uint64_t wanted)
{
	const enum account_kind kinds[] = {one, other};

	for (int i = 0; i < 2; i++)
		if (b->limits->limited[kinds[i]] && (int64_t)wanted > b->purses[kinds[i]].have)
			wanted = b->purses[kinds[i]].have > 0 ? (uint64_t)b->purses[kinds[i]].have : 0;
	for (int i = 0; i < 2; i++)
		if (b->limits->limited[kinds[i]])
			b->purses[kinds[i]].have -= (int64_t)wanted;
	return wanted;
}

static void give_credits(struct budget *b, enum account_kind one, enum account_kind other, uint64_t amount)
{
	b->purses[one].have += b->limits->limited[one] ? (int64_t)amount : 0;
	b->purses[other].have += b->limits->limited[other] ? (int64_t)amount : 0;
}

static uint64_t credit_aim(const struct budget *b, enum account_kind one, enum account_kind other)
{
	uint64_t aim = UINT64_MAX;

	if (b->limits->limited[one])
		aim = b->purses[one].slice / CREDITS;
	if (b->limits->limited[other] && b->purses[other].slice / CREDITS < aim)
		aim = b->purses[other].slice / CREDITS;
	return aim;
}

/* Moves where a shard has to stop, to `used` and at most an aim beyond it. Returns the new stop. */
static uint64_t move_stop(struct budget *b, enum account_kind one, enum account_kind other, uint64_t stop,
			  uint64_t used, bool idle)
{
	uint64_t aim = credit_aim(b, one, other), left = stop > used ? stop - used : 0;

	if (aim == UINT64_MAX)
		return UINT64_MAX;
	/* Read beyond the stop: the hits of threads that share a shard, and a value's last bytes. */
	if (used > stop) {
		(void)take_credits(b, one, other, used - stop);
		stop = used;
	}
	if (idle) {
		give_credits(b, one, other, left);
		return used;
	}
	if (left > aim / 2)
		return stop;
	return stop + take_credits(b, one, other, aim - left);
}

void budget_begin_client(struct client *client)
{
	struct budget *b = client->tenant->budget;

	for (unsigned int i = 0; b && i < RSHM_SHARDS; i++) {
		struct credit *credit = &client->credits[i];

		if (credit_aim(b, ACCOUNT_PER_MINUTE, ACCOUNT_OPERATIONS) == UINT64_MAX)
			credit->stop_hits = UINT64_MAX;
		if (credit_aim(b, ACCOUNT_BYTES, ACCOUNT_TRANSFER) == UINT64_MAX)
			credit->stop_bytes = UINT64_MAX;
		rshm_store_relaxed(&client->channel->shards[i].stop_hits, credit->stop_hits);
		rshm_store_relaxed(&client->channel->shards[i].stop_bytes, credit->stop_bytes);
	}
}

void budget_credit(struct client *client, unsigned int number, bool idle)
{
	struct budget *b = client->tenant->budget;
	struct rshm_shard *shard = &client->channel->shards[number];
	struct credit *credit = &client->credits[number];
	const struct rshm_seen *seen = &client->seen[number];

	if (!b)
		return;
	credit->stop_hits = move_stop(b, ACCOUNT_PER_MINUTE, ACCOUNT_OPERATIONS, credit->stop_hits, seen->hits, idle);
	credit->stop_bytes = move_stop(b, ACCOUNT_BYTES, ACCOUNT_TRANSFER, credit->stop_bytes, seen->hit_bytes, idle);
	rshm_store_relaxed(&shard->stop_hits, credit->stop_hits);
	rshm_store_relaxed(&shard->stop_bytes, credit->stop_bytes);
}

void budget_tick(struct serve_tenant *tenant, uint64_t now_ms)
{
	struct budget *b = tenant->budget;

	if (b)
		fill_ahead(b, now_ms);
}

/* ---- end ------------------------------------------------------------------------------------------------------------------- */

void budget_stop(struct serve_tenant *tenant, bool give_back)
{
	struct budget *b = tenant->budget;

	if (!b || b->closing)
		return;
	b->closing = true;
	b->has_returned = !give_back;
	if (b->step == BUDGET_IDLE)
		serve_parked(b, RSHM_E_CLOSED);
	if (give_back)
		begin_round(b);
}

bool budget_is_quiet(const struct serve_tenant *tenant)
{
	const struct budget *b = tenant->budget;

	return !b || (b->step == BUDGET_IDLE && !b->parked && (!b->closing || b->has_returned));
}

struct budget_figures budget_figures(const struct serve_tenant *tenant)
{
	const struct budget *b = tenant->budget;

	if (!b)
		return (struct budget_figures){0};
	return (struct budget_figures){.limited = b->limited, .shadowed = b->shadowed, .alerts = b->alerts};
}

bool budget_take(struct serve_tenant *tenant, enum account_kind kind, uint64_t amount)
{
	struct purse *purse = &tenant->budget->purses[kind];

	if (purse->have < 0 || (uint64_t)purse->have < amount)
		return false;
	purse->have -= (int64_t)amount;
	return true;
}

void budget_give(struct serve_tenant *tenant, enum account_kind kind, uint64_t amount)
{
	tenant->budget->purses[kind].have += (int64_t)amount;
}

void budget_state(const struct serve_tenant *tenant, enum account_kind kind, struct budget_state *ret)
{
	const struct budget *b = tenant->budget;
	const struct purse *purse = &b->purses[kind];
	uint64_t now_ms = clock_monotonic_ms();

	*ret = (struct budget_state){
		.limit = account_limit(b->limits, kind),
		.have = purse->have > 0 ? (uint64_t)purse->have : 0,
		.use = purse->use,
		.retry_ms = purse->empty_until_ms > now_ms && purse->empty_until_ms != RATE_NEVER
				    ? purse->empty_until_ms - now_ms
				    : 0,
	};
	if (kind < ACCOUNT_RATES)
		account_peek(&b->account, b->limits, kind, clock_realtime_ms(), &ret->rate);
}
