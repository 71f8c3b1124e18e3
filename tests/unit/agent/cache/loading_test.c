/* loading_test.c - who loads, who waits, and what ends either. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cache/loading.h"
#include "shm/msg.h"

enum { KEYS = 8, WAITING = 40, PER_OWNER = 6, KEY_BYTES = 4000, TIMEOUT_MAX_MS = 10000 };

static const struct loading_limits limits = {
	.keys = KEYS,
	.waiting = WAITING,
	.per_owner = PER_OWNER,
	.key_bytes = KEY_BYTES,
	.load_timeout_max_ms = TIMEOUT_MAX_MS,
};

/* One client per operation unless a test says otherwise. */
static struct loading_owner owners[64];
static struct loading *table;
static char trace[4096];

struct op {
	struct loading_op base;
	char name;
	uint64_t ticket;        /* of its load */
	bool fails_at_once;     /* its load, inside the callback */
	bool is_stored_at_once; /* likewise */
	struct op *enters;      /* when it is told an answer */
	struct loading_owner *kills;
	uint64_t now_ms;
	int entered;
};

static void note(char what, char name)
{
	size_t n = strlen(trace);

	assert_true(n + 3 < sizeof(trace));
	trace[n] = what;
	trace[n + 1] = name;
	trace[n + 2] = '\0';
}

static void on_become_loader(struct loading_op *base, uint64_t ticket)
{
	struct op *op = (struct op *)base;

	assert_true(ticket != 0);
	op->ticket = ticket;
	note('+', op->name);
	if (op->fails_at_once)
		assert_true(loading_done(table, base->tenant, base->key, base->key_len, ticket, LOADING_FAILED,
					 op->now_ms));
	if (op->is_stored_at_once)
		assert_true(loading_done(table, base->tenant, base->key, base->key_len, ticket, LOADING_STORED,
					 op->now_ms));
}

static void on_answer(struct loading_op *base, enum loading_answer answer)
{
	struct op *op = (struct op *)base;

	note(answer == LOADING_READ_AGAIN ? '=' : answer == LOADING_ABSENT ? '0' : '!', op->name);
	if (op->enters)
		op->entered = loading_enter(table, &op->enters->base, op->now_ms);
	if (op->kills)
		loading_owner_gone(table, op->kills, op->now_ms);
}

static struct op make(const char *key, char name)
{
	struct op op = {
		.base = {.tenant = &table,
			 .key = key,
			 .key_len = strlen(key),
			 .owner = &owners[name % 64],
			 .load_timeout_ms = 100,
			 .deadline_ms = 1000,
			 .become_loader = on_become_loader,
			 .answer = on_answer},
		.name = name,
	};

	return op;
}

static bool done(struct op *op, enum loading_outcome outcome, uint64_t now_ms)
{
	return loading_done(table, op->base.tenant, op->base.key, op->base.key_len, op->ticket, outcome, now_ms);
}

static bool holds(const struct op *op)
{
	return loading_holds(table, op->base.tenant, op->base.key, op->base.key_len, op->ticket);
}

static void enter_all(struct op *ops, size_t count, uint64_t now_ms)
{
	for (size_t i = 0; i < count; i++)
		assert_int_equal(loading_enter(table, &ops[i].base, now_ms), RSHM_OK);
}

static int setup(void **state)
{
	(void)state;
	trace[0] = '\0';
	memset(owners, 0, sizeof(owners));
	table = loading_create(&limits);
	return table ? 0 : -1;
}

static void assert_nothing_left(void)
{
	assert_int_equal(loading_keys(table), 0);
	assert_int_equal(loading_waiting(table), 0);
	assert_true(loading_next_ms(table) == UINT64_MAX);
	for (size_t i = 0; i < 64; i++)
		assert_int_equal(owners[i].count, 0);
}

static int teardown(void **state)
{
	(void)state;
	/* A failed test leaves some waiting. */
	for (size_t i = 0; i < 64; i++)
		loading_owner_gone(table, &owners[i], UINT32_MAX);
	loading_destroy(&table);
	return table == NULL ? 0 : -1;
}

static void first_one_loads_and_the_others_wait(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("k", 'c')};

	(void)state;
	enter_all(ops, 3, 0);
	assert_string_equal(trace, "+a");
	assert_int_equal(loading_keys(table), 1);
	assert_int_equal(loading_waiting(table), 2);
	assert_true(done(&ops[0], LOADING_STORED, 1));
	assert_string_equal(trace, "+a=b=c");
	assert_nothing_left();
}

static void absence_is_told_to_all_waiting(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("k", 'c')};

	(void)state;
	enter_all(ops, 3, 0);
	assert_true(done(&ops[0], LOADING_NONE, 1));
	assert_string_equal(trace, "+a0b0c");
	assert_nothing_left();
}

static void failed_load_passes_on_in_order_with_a_new_ticket(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("k", 'c')};

	(void)state;
	enter_all(ops, 3, 0);
	assert_true(done(&ops[0], LOADING_FAILED, 1));
	assert_string_equal(trace, "+a+b");
	assert_true(ops[0].ticket != ops[1].ticket);
	assert_false(done(&ops[0], LOADING_STORED, 2));
	assert_true(done(&ops[1], LOADING_FAILED, 2));
	assert_true(done(&ops[2], LOADING_FAILED, 2));
	assert_string_equal(trace, "+a+b+c");
	assert_nothing_left();
}

static void other_keys_and_tenants_load_at_once(void **state)
{
	struct op ops[] = {make("k", 'a'), make("l", 'b'), make("k", 'c'), make("kk", 'd')};

	(void)state;
	ops[2].base.tenant = trace;
	enter_all(ops, 4, 0);
	assert_string_equal(trace, "+a+b+c+d");
	/* A ticket is good for its own key only. */
	ops[0].ticket = ops[1].ticket;
	assert_false(done(&ops[0], LOADING_STORED, 1));
	assert_int_equal(loading_keys(table), 4);
}

static void wrong_ticket_and_unknown_key_change_nothing(void **state)
{
	struct op a = make("k", 'a'), b = make("k", 'b'), stranger = make("nobody", 's');
	uint64_t ticket;

	(void)state;
	enter_all(&a, 1, 0);
	enter_all(&b, 1, 0);
	ticket = a.ticket;
	assert_true(holds(&a));
	a.ticket = ticket + 1;
	assert_false(holds(&a));
	assert_false(done(&a, LOADING_STORED, 1));
	a.ticket = 0;
	assert_false(done(&a, LOADING_FAILED, 1));
	assert_false(done(&stranger, LOADING_STORED, 1));
	assert_int_equal(loading_waiting(table), 1);
	a.ticket = ticket;
	assert_true(done(&a, LOADING_STORED, 1));
	assert_false(holds(&a));
	assert_false(done(&a, LOADING_STORED, 1));
	assert_string_equal(trace, "+a=b");
}

static void key_is_not_needed_after_entering(void **state)
{
	char key[] = "volatile";
	struct op a = make(key, 'a'), b = make("volatile", 'b');

	(void)state;
	enter_all(&a, 1, 0);
	memset(key, 'x', sizeof(key) - 1);
	enter_all(&b, 1, 0);
	assert_string_equal(trace, "+a");
	a.base.key = "volatile";
	assert_true(done(&a, LOADING_STORED, 1));
	assert_string_equal(trace, "+a=b");
}

static void loader_past_its_time_is_replaced_and_its_result_refused(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b')};

	(void)state;
	ops[1].base.load_timeout_ms = 50;
	enter_all(ops, 2, 0);
	assert_int_equal(loading_next_ms(table), 100);
	loading_tick(table, 99);
	assert_string_equal(trace, "+a");
	loading_tick(table, 100);
	assert_string_equal(trace, "+a+b");
	assert_false(holds(&ops[0]));
	assert_false(done(&ops[0], LOADING_STORED, 101));
	assert_int_equal(loading_next_ms(table), 150);
	loading_tick(table, 150);
	assert_false(done(&ops[1], LOADING_STORED, 151));
	assert_nothing_left();
}

static void waiting_one_past_its_deadline_is_told(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("k", 'c')};

	(void)state;
	ops[1].base.deadline_ms = 50;
	enter_all(ops, 3, 0);
	assert_int_equal(loading_next_ms(table), 50);
	loading_tick(table, 50);
	assert_string_equal(trace, "+a!b");
	assert_true(done(&ops[0], LOADING_FAILED, 60));
	assert_string_equal(trace, "+a!b+c");
}

static void waiting_one_past_its_deadline_does_not_become_loader(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("k", 'c')};

	(void)state;
	ops[1].base.deadline_ms = 50;
	enter_all(ops, 3, 0);
	/* No tick came in between. */
	assert_true(done(&ops[0], LOADING_FAILED, 50));
	assert_string_equal(trace, "+a!b+c");
}

static void one_whose_deadline_has_passed_is_refused(void **state)
{
	struct op a = make("k", 'a'), b = make("k", 'b');

	(void)state;
	a.base.deadline_ms = b.base.deadline_ms = 10;
	assert_int_equal(loading_enter(table, &a.base, 10), RSHM_E_TIMEDOUT);
	/* Also with a clock read before the latest that the table has seen. */
	assert_int_equal(loading_enter(table, &b.base, 9), RSHM_E_TIMEDOUT);
	assert_string_equal(trace, "");
	assert_nothing_left();
}

static void load_time_is_cut_to_the_longest_allowed(void **state)
{
	struct op ops[] = {make("k", 'a'), make("l", 'b'), make("m", 'c')};

	(void)state;
	ops[0].base.load_timeout_ms = 0;
	ops[1].base.load_timeout_ms = UINT64_MAX;
	ops[2].base.load_timeout_ms = TIMEOUT_MAX_MS + 1;
	enter_all(ops, 3, 7);
	assert_int_equal(loading_next_ms(table), 7 + TIMEOUT_MAX_MS);
	loading_tick(table, 7 + TIMEOUT_MAX_MS - 1);
	assert_int_equal(loading_keys(table), 3);
	loading_tick(table, 7 + TIMEOUT_MAX_MS);
	assert_nothing_left();
}

static void write_by_others_wakes_the_waiting_and_voids_the_ticket(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("k", 'c')};

	(void)state;
	enter_all(ops, 3, 0);
	loading_written(table, &table, "other", 5, 1);
	loading_written(table, trace, "k", 1, 1);
	assert_string_equal(trace, "+a");
	loading_written(table, &table, "k", 1, 1);
	assert_string_equal(trace, "+a=b=c");
	assert_false(done(&ops[0], LOADING_STORED, 2));
	assert_nothing_left();
}

static void emptied_tenant_wakes_all_its_waiting_and_no_other(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("l", 'c'),
			   make("l", 'd'), make("k", 'e'), make("k", 'f')};
	struct op again = make("l", 'L');

	(void)state;
	ops[4].base.tenant = ops[5].base.tenant = trace;
	ops[1].enters = &again;
	enter_all(ops, 6, 0);
	trace[0] = '\0';
	loading_forget(table, &table);
	assert_int_equal(strlen(trace), 6);
	assert_non_null(strstr(trace, "=b+L"));
	assert_non_null(strstr(trace, "=d"));
	assert_false(holds(&ops[0]) || holds(&ops[2]));
	assert_true(holds(&again) && holds(&ops[4]));
	assert_int_equal(loading_keys(table), 2);
	assert_true(done(&ops[4], LOADING_STORED, 1));
	assert_true(done(&again, LOADING_STORED, 1));
	loading_forget(table, &table);
	assert_nothing_left();
}

static void loads_of_a_dead_owner_pass_on_and_its_waits_vanish(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("k", 'c'), make("l", 'd'), make("l", 'e')};

	(void)state;
	ops[1].base.owner = ops[0].base.owner;
	ops[4].base.owner = ops[0].base.owner;
	enter_all(ops, 5, 0);
	assert_string_equal(trace, "+a+d");
	assert_false(loading_is_waiting(&ops[0].base));
	assert_true(loading_is_waiting(&ops[1].base) && loading_is_waiting(&ops[2].base));
	loading_owner_gone(table, ops[0].base.owner, 1);
	assert_false(loading_is_waiting(&ops[1].base) || loading_is_waiting(&ops[2].base));
	assert_string_equal(trace, "+a+d+c");
	assert_int_equal(loading_waiting(table), 0);
	assert_false(done(&ops[0], LOADING_STORED, 2));
	assert_true(done(&ops[2], LOADING_STORED, 2));
	assert_true(done(&ops[3], LOADING_STORED, 2));
	assert_string_equal(trace, "+a+d+c");
	assert_nothing_left();
}

static void refresh_begins_or_is_told_that_another_one_loads(void **state)
{
	struct op a = make("k", 'a'), b = make("k", 'b'), c = make("k", 'c');
	uint64_t ticket = 0, second = 7;

	(void)state;
	assert_int_equal(loading_try_begin(table, &a.base, 0, &ticket), RSHM_OK);
	assert_true(ticket != 0);
	assert_int_equal(loading_try_begin(table, &b.base, 0, &second), RSHM_MISS);
	assert_int_equal(second, 7);
	/* One to whom the key is missing altogether waits for the refresh, and loads if that fails. */
	enter_all(&c, 1, 0);
	assert_string_equal(trace, "");
	a.ticket = ticket;
	assert_true(done(&a, LOADING_FAILED, 1));
	assert_string_equal(trace, "+c");
	assert_int_equal(loading_try_begin(table, &b.base, 0, &second), RSHM_MISS);
	assert_true(done(&c, LOADING_STORED, 1));
	assert_int_equal(loading_try_begin(table, &b.base, 0, &second), RSHM_OK);
	loading_tick(table, 101);
	assert_nothing_left();
}

static void tables_and_owners_have_bounds(void **state)
{
	struct op ops[PER_OWNER + 1], others[KEYS + 1], lines[WAITING + 1];
	char keys[KEYS + 1][2];
	uint64_t ticket;

	(void)state;
	for (int i = 0; i <= PER_OWNER; i++) {
		ops[i] = make("k", (char)('a' + i));
		ops[i].base.owner = &owners[63];
		assert_int_equal(loading_enter(table, &ops[i].base, 0), i < PER_OWNER ? RSHM_OK : RSHM_E_AGAIN);
	}
	loading_owner_gone(table, &owners[63], 0);
	assert_nothing_left();
	for (int i = 0; i <= KEYS; i++) {
		keys[i][0] = (char)('0' + i);
		keys[i][1] = '\0';
		others[i] = make(keys[i], (char)i);
		assert_int_equal(loading_enter(table, &others[i].base, 0), i < KEYS ? RSHM_OK : RSHM_E_AGAIN);
	}
	assert_int_equal(loading_try_begin(table, &others[KEYS].base, 0, &ticket), RSHM_E_AGAIN);
	/* Waiting for what is loaded is possible still, up to its own limit. */
	for (int i = 0; i <= WAITING; i++) {
		lines[i] = make("0", (char)(i + 10));
		assert_int_equal(loading_enter(table, &lines[i].base, 0), i < WAITING ? RSHM_OK : RSHM_E_AGAIN);
	}
	assert_true(done(&others[0], LOADING_STORED, 1));
	assert_int_equal(loading_waiting(table), 0);
	assert_int_equal(loading_enter(table, &others[KEYS].base, 1), RSHM_OK);
	loading_tick(table, 500);
	assert_nothing_left();
}

static void bytes_of_keys_have_a_bound(void **state)
{
	static char long_key[KEY_BYTES], other_key[KEY_BYTES / 2 + 1];
	struct op a = make("", 'a'), b = make("", 'b');

	(void)state;
	memset(long_key, 'l', sizeof(long_key));
	memset(other_key, 'o', sizeof(other_key));
	a.base.key = long_key;
	a.base.key_len = KEY_BYTES / 2;
	b.base.key = other_key;
	b.base.key_len = sizeof(other_key);
	assert_int_equal(loading_enter(table, &a.base, 0), RSHM_OK);
	assert_int_equal(loading_enter(table, &b.base, 0), RSHM_E_AGAIN);
	assert_true(done(&a, LOADING_STORED, 0));
	assert_int_equal(loading_enter(table, &b.base, 0), RSHM_OK);
	assert_true(done(&b, LOADING_STORED, 0));
	a.base.key_len = KEY_BYTES;
	assert_int_equal(loading_enter(table, &a.base, 0), RSHM_OK);
	assert_true(done(&a, LOADING_STORED, 0));
	assert_nothing_left();
}

static void one_that_reads_again_in_vain_loads_at_once(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("k", 'c')}, again = make("k", 'B'),
		  behind = make("k", 'C');

	(void)state;
	ops[1].enters = &again;
	ops[2].enters = &behind;
	enter_all(ops, 3, 0);
	assert_true(done(&ops[0], LOADING_STORED, 1));
	assert_string_equal(trace, "+a=b+B=c");
	assert_int_equal(loading_waiting(table), 1);
	assert_true(done(&again, LOADING_STORED, 2));
	assert_string_equal(trace, "+a=b+B=c=C");
	assert_nothing_left();
}

static void callback_may_take_away_those_behind_it(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("k", 'c'), make("k", 'd')};

	(void)state;
	ops[1].kills = ops[2].base.owner;
	enter_all(ops, 4, 0);
	assert_true(done(&ops[0], LOADING_STORED, 1));
	assert_string_equal(trace, "+a=b=d");
	assert_nothing_left();
}

static void one_told_in_a_tick_cannot_be_told_twice_in_it(void **state)
{
	struct op a = make("k", 'a'), b = make("k", 'b'), again = make("k", 'B');

	(void)state;
	b.base.deadline_ms = 10;
	b.enters = &again;
	b.now_ms = 5; /* an old reading of the clock */
	again.base.deadline_ms = 20;
	enter_all(&a, 1, 0);
	enter_all(&b, 1, 0);
	loading_tick(table, 30);
	assert_string_equal(trace, "+a!b");
	assert_int_equal(b.entered, RSHM_E_TIMEDOUT);
}

static void load_stored_inside_the_callback_wakes_the_rest(void **state)
{
	struct op ops[] = {make("k", 'a'), make("k", 'b'), make("k", 'c')}, again = make("k", 'C');

	(void)state;
	ops[1].is_stored_at_once = true;
	ops[2].enters = &again;
	enter_all(ops, 3, 0);
	assert_true(done(&ops[0], LOADING_FAILED, 1));
	assert_string_equal(trace, "+a+b=c+C");
	assert_true(done(&again, LOADING_STORED, 1));
	assert_nothing_left();
	ops[1] = make("k", 'b');
	ops[1].fails_at_once = true;
	enter_all(&ops[1], 1, 1);
	assert_nothing_left();
}

static unsigned int quiet_failures;

static void fail_quietly(struct loading_op *base, uint64_t ticket)
{
	quiet_failures++;
	assert_true(loading_done(table, base->tenant, base->key, base->key_len, ticket, LOADING_FAILED, 1));
}

static void long_line_of_loaders_that_fail_at_once_needs_no_stack(void **state)
{
	enum { COUNT = 300000 };
	struct loading_limits many = {2, COUNT, COUNT + 1, KEY_BYTES, TIMEOUT_MAX_MS};
	struct op *ops = calloc(COUNT, sizeof(*ops));
	struct op first = make("k", 'f');

	(void)state;
	assert_non_null(ops);
	loading_destroy(&table);
	table = loading_create(&many);
	assert_non_null(table);
	enter_all(&first, 1, 0);
	for (int i = 0; i < COUNT; i++) {
		ops[i] = make("k", 'x');
		ops[i].base.become_loader = fail_quietly;
		assert_int_equal(loading_enter(table, &ops[i].base, 0), RSHM_OK);
	}
	quiet_failures = 0;
	assert_true(done(&first, LOADING_FAILED, 1));
	assert_int_equal(quiet_failures, COUNT);
	assert_nothing_left();
	free(ops);
}

/* ---- many random steps against a plain model ---------------------------------------------------------------- */

enum { ACTORS = 24, MODEL_KEYS = 3, STEPS = 200000 };
enum actor_state { IDLE, WAITS, LOADS };

static struct actor {
	struct loading_op base;
	enum actor_state state;
	unsigned int key, order;
	uint64_t ticket, load_until_ms;
} actors[ACTORS];
static struct loading_owner actor_owners[ACTORS];
static const char *const model_keys[MODEL_KEYS] = {"alpha", "beta", "gamma"};
static uint64_t model_now_ms;
static unsigned int loads_seen, answers_seen;

static struct actor *model_loader(unsigned int key)
{
	for (int i = 0; i < ACTORS; i++)
		if (actors[i].state == LOADS && actors[i].key == key)
			return &actors[i];
	return NULL;
}

static void actor_loads(struct loading_op *base, uint64_t ticket)
{
	struct actor *actor = (struct actor *)base;

	assert_null(model_loader(actor->key));
	assert_true(actor->state == WAITS);
	for (int i = 0; i < ACTORS; i++)
		assert_false(actors[i].state == WAITS && actors[i].key == actor->key &&
			     actors[i].order < actor->order);
	assert_true(base->deadline_ms > model_now_ms);
	actor->state = LOADS;
	actor->ticket = ticket;
	actor->load_until_ms = model_now_ms + base->load_timeout_ms;
	loads_seen++;
}

static void actor_is_answered(struct loading_op *base, enum loading_answer answer)
{
	struct actor *actor = (struct actor *)base;

	assert_true(actor->state == WAITS);
	assert_true((answer == LOADING_TIMED_OUT) == (base->deadline_ms <= model_now_ms));
	actor->state = IDLE;
	answers_seen++;
}

static void actor_enters(struct actor *actor, unsigned int order)
{
	actor->key = (unsigned int)rand() % MODEL_KEYS;
	actor->base = (struct loading_op){
		.tenant = actors,
		.key = model_keys[actor->key],
		.key_len = strlen(model_keys[actor->key]),
		.owner = &actor_owners[actor - actors],
		.load_timeout_ms = 1 + (uint64_t)rand() % 40,
		.deadline_ms = model_now_ms + 1 + (uint64_t)rand() % 60,
		.become_loader = actor_loads,
		.answer = actor_is_answered,
	};
	actor->order = order;
	actor->state = WAITS;
	assert_int_equal(loading_enter(table, &actor->base, model_now_ms), RSHM_OK);
}

static void actor_is_done(struct actor *actor)
{
	struct loading_op op = actor->base;

	actor->state = IDLE;
	assert_true(loading_done(table, op.tenant, op.key, op.key_len, actor->ticket,
				 (enum loading_outcome)(rand() % 3), model_now_ms));
	assert_false(loading_holds(table, op.tenant, op.key, op.key_len, actor->ticket));
}

static void model_ticks(void)
{
	model_now_ms += (uint64_t)rand() % 8;
	for (int i = 0; i < ACTORS; i++)
		if (actors[i].state == LOADS && actors[i].load_until_ms <= model_now_ms)
			actors[i].state = IDLE;
	loading_tick(table, model_now_ms);
	for (int i = 0; i < ACTORS; i++)
		assert_false(actors[i].state == WAITS && actors[i].base.deadline_ms <= model_now_ms);
}

static void model_is_what_the_table_says(void)
{
	uint32_t loading = 0, waiting = 0;
	uint64_t next_ms = UINT64_MAX;

	for (int i = 0; i < ACTORS; i++) {
		uint64_t due_ms = actors[i].state == LOADS ? actors[i].load_until_ms : actors[i].base.deadline_ms;

		loading += actors[i].state == LOADS;
		waiting += actors[i].state == WAITS;
		if (actors[i].state == WAITS)
			assert_non_null(model_loader(actors[i].key));
		if (actors[i].state != IDLE && due_ms < next_ms)
			next_ms = due_ms;
	}
	assert_int_equal(loading_keys(table), loading);
	assert_int_equal(loading_waiting(table), waiting);
	assert_true(loading_next_ms(table) == next_ms);
}

static void random_steps_agree_with_a_plain_model(void **state)
{
	(void)state;
	srand(20250101);
	for (unsigned int step = 0; step < STEPS; step++) {
		struct actor *actor = &actors[rand() % ACTORS];

		switch (rand() % 16) {
		default:
			if (actor->state == IDLE)
				actor_enters(actor, step);
			else if (actor->state == LOADS && rand() % 8 == 0)
				actor_is_done(actor);
			break;
		case 0:
			actor->state = IDLE;
			loading_owner_gone(table, &actor_owners[actor - actors], model_now_ms);
			break;
		case 1:
			if (model_loader(actor->key))
				model_loader(actor->key)->state = IDLE;
			loading_written(table, actors, model_keys[actor->key], strlen(model_keys[actor->key]),
					model_now_ms);
			break;
		case 2:
			model_ticks();
			break;
		}
		model_is_what_the_table_says();
	}
	assert_true(loads_seen > 1000 && answers_seen > 1000);
	model_now_ms += 1000;
	loading_tick(table, model_now_ms);
	for (int i = 0; i < ACTORS; i++)
		loading_owner_gone(table, &actor_owners[i], model_now_ms);
	assert_nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_one_loads_and_the_others_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(absence_is_told_to_all_waiting, setup, teardown),
		cmocka_unit_test_setup_teardown(failed_load_passes_on_in_order_with_a_new_ticket, setup, teardown),
		cmocka_unit_test_setup_teardown(other_keys_and_tenants_load_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_ticket_and_unknown_key_change_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(key_is_not_needed_after_entering, setup, teardown),
		cmocka_unit_test_setup_teardown(loader_past_its_time_is_replaced_and_its_result_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(waiting_one_past_its_deadline_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(waiting_one_past_its_deadline_does_not_become_loader, setup,
						teardown),
		cmocka_unit_test_setup_teardown(one_whose_deadline_has_passed_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(load_time_is_cut_to_the_longest_allowed, setup, teardown),
		cmocka_unit_test_setup_teardown(write_by_others_wakes_the_waiting_and_voids_the_ticket, setup,
						teardown),
		cmocka_unit_test_setup_teardown(emptied_tenant_wakes_all_its_waiting_and_no_other, setup, teardown),
		cmocka_unit_test_setup_teardown(loads_of_a_dead_owner_pass_on_and_its_waits_vanish, setup, teardown),
		cmocka_unit_test_setup_teardown(refresh_begins_or_is_told_that_another_one_loads, setup, teardown),
		cmocka_unit_test_setup_teardown(tables_and_owners_have_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_of_keys_have_a_bound, setup, teardown),
		cmocka_unit_test_setup_teardown(one_that_reads_again_in_vain_loads_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(callback_may_take_away_those_behind_it, setup, teardown),
		cmocka_unit_test_setup_teardown(one_told_in_a_tick_cannot_be_told_twice_in_it, setup, teardown),
		cmocka_unit_test_setup_teardown(load_stored_inside_the_callback_wakes_the_rest, setup, teardown),
		cmocka_unit_test_setup_teardown(long_line_of_loaders_that_fail_at_once_needs_no_stack, setup,
						teardown),
		cmocka_unit_test_setup_teardown(random_steps_agree_with_a_plain_model, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
