#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/order.h"
#include "tests/support/siege.h"

/*
 * A client that writes into its channel what no library writes. Whatever it is, the agent lives, a witness in another
 * process is served without one error, and what was refused is counted (tests/support/siege.h looks after each case).
 */

#define MIB (1u << 20)
#define ROUNDS 1000

static struct siege siege;

static int begin_all(void **state)
{
	static const char *const settings[] = {"limits.attaches_per_second_per_uid=100000", NULL};

	(void)state;
	return siege_begin(&siege, settings);
}

static int end_all(void **state)
{
	(void)state;
	return siege_end(&siege);
}

static int setup(void **state)
{
	(void)state;
	return siege_begin_case(&siege);
}

static int teardown(void **state)
{
	(void)state;
	return siege_end_case(&siege);
}

static uint64_t random_state = 88172645463325252ull;

static uint64_t random_number(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* The channel still works for one who behaves from now on, or is closed. */
static bool is_served_or_closed(struct raw_client *client, uint32_t number)
{
	struct rshm_request request = raw_fields(RSHM_OP_SET, 3, 5);
	struct rshm_answer answer;
	int status;

	if (raw_is_hung_up(client->bell, 1))
		return true;
	status = raw_request(client, number, &request, "keyvalue", &answer);
	return status == RSHM_OK || (status == RSHM_E_TIMEDOUT && raw_is_hung_up(client->bell, 1000));
}

/* ---- the channel's bytes ------------------------------------------------------------------------------------ */

static void scribble(struct rshm_channel *channel)
{
	unsigned char *bytes = (unsigned char *)channel;

	for (size_t i = 0; i + 8 <= sizeof(*channel); i += 8) {
		uint64_t word = random_number();

		memcpy(bytes + i, &word, 8);
	}
}

/* Plausible requests, so that more than the first check is reached. */
static void scribble_requests(struct rshm_channel *channel)
{
	for (uint32_t i = 0; i < RSHM_SLOTS; i++) {
		struct rshm_request *r = &channel->slots[i].request;

		r->op = (uint16_t)(random_number() % 13);
		r->flags = (uint16_t)(random_number() % 4);
		r->block_count = (uint16_t)(random_number() % 17);
		for (int b = 0; b < 16; b++)
			r->blocks[b] = (uint8_t)(random_number() % RSHM_BLOCKS);
		r->body_len = (uint32_t)(random_number() % 9000);
		r->piece_len = (uint32_t)(random_number() % 4500);
		r->offset = random_number() % 4 ? 0 : (uint32_t)(random_number() % 9000);
		r->metadata_len = random_number() % 2 ? 0 : (uint32_t)(random_number() % 300);
		r->key_len = (uint16_t)(random_number() % 300);
		r->items = (uint32_t)(random_number() % 5);
		r->deadline_ms = random_number() % 2 ? UINT64_MAX : rshm_now_ms() + 1000;
	}
}

static void submit_everything(struct raw_client *client)
{
	for (uint32_t i = 0; i < RSHM_SLOTS; i++)
		if (random_number() % 2)
			rshm_store_release32(&client->channel->slots[i].word,
					     (uint32_t)random_number() << 4 | RSHM_SLOT_SUBMITTED);
	(void)rshm_or_acq_rel32(&client->channel->submitted, (uint32_t)random_number());
	raw_bell(client);
}

static void random_bytes_over_the_whole_channel_harm_nobody(void **state)
{
	struct raw_client client = {.bell = -1};

	(void)state;
	for (int i = 0; i < ROUNDS; i++) {
		if (client.bell < 0)
			siege_attach(&siege, &client);
		if (random_number() % 2)
			scribble(client.channel);
		scribble_requests(client.channel);
		submit_everything(&client);
		if (i % 8 == 7 || raw_is_hung_up(client.bell, 1))
			raw_close(&client);
	}
	raw_close(&client);
	assert_true(e2e_await(&siege.agent, "workers.0.protocol_errors", siege.protocol_errors + 10, 3000) >=
		    siege.protocol_errors + 10);
}

struct lie {
	const char *what;
	struct rshm_request request;
};

static const struct lie lies[] = {
	{"body beyond every limit", {.op = RSHM_OP_SET, .body_len = UINT32_MAX, .piece_len = 10, .key_len = 3}},
	{"piece longer than the body", {.op = RSHM_OP_SET, .body_len = 10, .piece_len = 11, .key_len = 3}},
	{"piece longer than the slot", {.op = RSHM_OP_SET, .body_len = 9000, .piece_len = 4097, .key_len = 3}},
	{"piece longer than slot and blocks",
	 {.op = RSHM_OP_SET, .body_len = 100000, .piece_len = 69633, .key_len = 3, .block_count = 16}},
	{"piece of 4 GiB", {.op = RSHM_OP_SET, .body_len = UINT32_MAX, .piece_len = UINT32_MAX, .key_len = 3}},
	{"offset beyond the body", {.op = RSHM_OP_SET, .body_len = 10, .offset = 11, .key_len = 3}},
	{"offset that overflows", {.op = RSHM_OP_SET, .body_len = 20, .offset = UINT32_MAX - 5, .piece_len = 10}},
	{"first piece that is none",
	 {.op = RSHM_OP_SET, .body_len = 20, .offset = 10, .piece_len = 10, .key_len = 3}},
	{"key longer than the body", {.op = RSHM_OP_GET, .body_len = 3, .piece_len = 3, .key_len = 4}},
	{"key of 65535 in nothing", {.op = RSHM_OP_GET, .key_len = 65535}},
	{"metadata longer than the body",
	 {.op = RSHM_OP_SET, .body_len = 9, .piece_len = 9, .key_len = 3, .metadata_len = 7}},
	{"metadata of 4 GiB",
	 {.op = RSHM_OP_SET, .body_len = 9, .piece_len = 9, .key_len = 3, .metadata_len = UINT32_MAX}},
	{"more blocks than a slot has",
	 {.op = RSHM_OP_GET, .body_len = 3, .piece_len = 3, .key_len = 3, .block_count = 17}},
	{"65535 blocks", {.op = RSHM_OP_GET, .body_len = 3, .piece_len = 3, .key_len = 3, .block_count = 65535}},
	{"a block out of range",
	 {.op = RSHM_OP_GET, .body_len = 3, .piece_len = 3, .key_len = 3, .block_count = 1, .blocks = {RSHM_BLOCKS}}},
	{"a block far out of range",
	 {.op = RSHM_OP_GET, .body_len = 3, .piece_len = 3, .key_len = 3, .block_count = 2, .blocks = {0, 255}}},
	{"no key", {.op = RSHM_OP_GET}},
	{"no operation", {.op = 0, .body_len = 3, .piece_len = 3, .key_len = 3}},
	{"an unknown operation", {.op = 9999, .body_len = 3, .piece_len = 3, .key_len = 3}},
	{"a control operation", {.op = RSHM_CONTROL_RELOAD, .body_len = 3, .piece_len = 3, .key_len = 3}},
	{"a fetch of nothing", {.op = RSHM_OP_GET, .flags = RSHM_REQUEST_FETCH}},
	{"a fetch from the middle of nothing", {.op = RSHM_OP_GET, .flags = RSHM_REQUEST_FETCH, .offset = 4096}},
};

/* Each lie gets an error, or the channel is closed; never an answer as if it were true. */
static void lengths_and_numbers_that_lie_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct raw_client client;
		struct rshm_slot *slot;
		bool answered;

		siege_attach(&siege, &client);
		slot = &client.channel->slots[5];
		memset(slot->bytes, 'x', sizeof(slot->bytes));
		slot->request = lies[i].request;
		slot->request.deadline_ms = rshm_now_ms() + 1000;
		raw_submit(&client, 5, 7);
		answered = raw_await(&client, 5, 500);
		if (!answered && !raw_is_hung_up(client.bell, 1000))
			fail_msg("%s: neither answered nor closed", lies[i].what);
		if (answered && slot->answer.status >= 0)
			fail_msg("%s: answered with %d", lies[i].what, slot->answer.status);
		if (!is_served_or_closed(&client, 6))
			fail_msg("%s: the channel neither serves nor is closed", lies[i].what);
		raw_close(&client);
	}
	assert_true(e2e_number(&siege.agent, "workers.0.protocol_errors") > siege.protocol_errors);
}

struct flicker {
	struct rshm_channel *channel;
	uint32_t end;
};

/* Turns fields of a request between right and wrong as fast as it can. */
static void *flicker_main(void *context)
{
	struct flicker *flicker = context;
	volatile struct rshm_request *r = &flicker->channel->slots[0].request;
	volatile unsigned char *bytes = flicker->channel->slots[0].bytes;

	for (uint64_t i = 0; !rshm_load_relaxed32(&flicker->end); i++) {
		r->piece_len = i % 3 ? 8 : UINT32_MAX;
		r->body_len = i % 5 ? 8 : UINT32_MAX;
		r->key_len = i % 7 ? 3 : 65535;
		r->metadata_len = i % 11 ? 0 : UINT32_MAX;
		r->block_count = i % 13 ? 0 : 65535;
		r->blocks[0] = i % 2 ? 0 : 255;
		r->op = (uint16_t)(i % 17 ? RSHM_OP_SET : 77);
		bytes[i % 8] = (unsigned char)i;
		flicker->channel->slots[1].answer.status = (int32_t)i;
	}
	return NULL;
}

static void fields_that_change_between_check_and_use_harm_nobody(void **state)
{
	uint64_t until = e2e_now_ms() + 2000, submissions = 0, answers = 0;

	(void)state;
	while (e2e_now_ms() < until) {
		struct flicker flicker = {.end = 0};
		struct raw_client client;
		pthread_t thread;

		siege_attach(&siege, &client);
		flicker.channel = client.channel;
		assert_int_equal(pthread_create(&thread, NULL, flicker_main, &flicker), 0);
		for (uint32_t i = 1; i < 200 && !raw_is_hung_up(client.bell, 1); i++) {
			raw_submit(&client, 0, i);
			submissions++;
			answers += raw_await(&client, 0, 2);
		}
		rshm_store_relaxed32(&flicker.end, 1);
		pthread_join(thread, NULL);
		raw_close(&client);
	}
	assert_true(submissions > 50);
	assert_true(answers > 0);
}

static void words_that_change_under_the_agent_end_the_channel(void **state)
{

	for (int i = 0; i < 50; i++) {
		struct rshm_request request = raw_fields(RSHM_OP_SET, 3, 4000);
		struct raw_client client;

		(void)state;
		siege_attach(&siege, &client);
		client.channel->slots[0].request = request;
		client.channel->slots[0].request.deadline_ms = UINT64_MAX;
		for (uint32_t round = 0; round < 2000; round++) {
			uint32_t word = (uint32_t)random_number();

			rshm_store_release32(&client.channel->slots[0].word,
					     word << 4 | (round % 3 ? RSHM_SLOT_SUBMITTED : word % 8));
			(void)rshm_or_acq_rel32(&client.channel->submitted, 1);
			if (round % 64 == 0) {
				raw_bell(&client);
				e2e_pause_ms(1);
			}
		}
		raw_close(&client);
	}
	assert_true(e2e_await(&siege.agent, "workers.0.protocol_errors", siege.protocol_errors + 1, 3000) >
		    siege.protocol_errors);
}

static void a_slot_submitted_twice_ends_its_channel(void **state)
{
	struct raw_client client;

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct rshm_request request = raw_fields(RSHM_OP_SET, 3, 4000);

		siege_attach(&siege, &client);
		client.channel->slots[0].request = request;
		client.channel->slots[0].request.deadline_ms = UINT64_MAX;
		for (uint32_t k = 0; k < 500; k++)
			raw_submit(&client, 0, 1);
		assert_true(is_served_or_closed(&client, 1));
		raw_close(&client);
	}
}

static void absurd_counters_do_not_mislead_the_figures(void **state)
{
	int64_t before = e2e_number(&siege.agent, "tenants.0.hits"), after;
	uint64_t began = e2e_now_ms();
	struct raw_client client;

	(void)state;
	siege_attach(&siege, &client);
	for (int round = 0; round < 50; round++) {
		for (unsigned int i = 0; i < RSHM_SHARDS; i++) {
			struct rshm_shard *shard = &client.channel->shards[i];

			rshm_store_relaxed(&shard->hits, round % 2 ? UINT64_MAX : random_number());
			rshm_store_relaxed(&shard->hit_bytes, random_number());
			rshm_store_relaxed(&shard->misses, round % 2 ? 0 : UINT64_MAX / 2);
			for (int k = 0; k < (int)RSHM_TOUCHES; k++)
				rshm_store_relaxed(&shard->touches[k], random_number());
			rshm_store_relaxed(&shard->touch_next, random_number());
		}
		e2e_pause_ms(10);
	}
	e2e_pause_ms(600);
	after = e2e_number(&siege.agent, "tenants.0.hits");
	assert_true(after >= before);
	/* What 16 threads at 10 ns a read can do in the time it took, and some slack; not what the client says. */
	assert_in_range(after - before, 0, 16 * 100000 * (int64_t)(e2e_now_ms() - began + 500));
	raw_close(&client);
}

/* ---- the memfd and the bell --------------------------------------------------------------------------------- */

static void the_channel_cannot_be_cut_grown_or_sealed(void **state)
{
	struct raw_client client;

	(void)state;
	siege_attach(&siege, &client);
	assert_int_equal(ftruncate(client.memfd, 0), -1);
	assert_int_equal(ftruncate(client.memfd, 64 * MIB), -1);
	assert_int_equal(fcntl(client.memfd, F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_int_equal(errno, EPERM);
	/* Holes can be punched: they read as zeros and are filled on the next write. */
	(void)fallocate(client.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, sizeof(struct rshm_channel));
	assert_true(is_served_or_closed(&client, 3));
	for (int i = 0; i < 200; i++) {
		(void)fallocate(client.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				sizeof(struct rshm_channel));
		submit_everything(&client);
	}
	raw_close(&client);
}

static void ten_thousand_bells_are_answered_by_work_alone(void **state)
{
	struct raw_client client;

	(void)state;
	siege_attach(&siege, &client);
	for (int i = 0; i < 10000; i++)
		raw_bell(&client);
	assert_true(is_served_or_closed(&client, 0));
	assert_false(raw_is_hung_up(client.bell, 10));
	raw_close(&client);
}

static void bells_without_end_close_their_channel_only(void **state)
{
	static const char bells[65536];
	struct raw_client client;
	uint64_t until = e2e_now_ms() + 5000;

	(void)state;
	siege_attach(&siege, &client);
	while (!raw_is_hung_up(client.bell, 1) && e2e_now_ms() < until)
		(void)send(client.bell, bells, sizeof(bells), MSG_NOSIGNAL | MSG_DONTWAIT);
	assert_true(raw_is_hung_up(client.bell, 1000));
	raw_close(&client);
	assert_true(e2e_await(&siege.agent, "workers.0.protocol_errors", siege.protocol_errors + 1, 3000) >
		    siege.protocol_errors);
	assert_true(agent_process_log_has(&siege.agent, "rings the bell more often"));
}

/* ---- pieces ------------------------------------------------------------------------------------------------- */

/* Begins a body of `length` bytes and leaves it at its first piece. */
static void begin_body(struct raw_client *client, uint32_t number, uint32_t length, uint32_t deadline_ms)
{
	struct rshm_slot *slot = &client->channel->slots[number];

	slot->request = (struct rshm_request){
		.op = RSHM_OP_SET,
		.key_len = 4,
		.body_len = length,
		.piece_len = RSHM_INLINE,
		.deadline_ms = rshm_now_ms() + deadline_ms,
	};
	memset(slot->bytes, 'h', RSHM_INLINE);
	raw_submit(client, number, RSHM_SLOT_GENERATION(slot->word) + 1);
}

static void pieces_out_of_order_end_their_channel(void **state)
{
	static const uint32_t offsets[] = {4095, 4097, 8192, MIB - 4096, 1};

	(void)state;
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		struct raw_client client;
		struct rshm_slot *slot;

		siege_attach(&siege, &client);
		slot = &client.channel->slots[0];
		begin_body(&client, 0, MIB, 5000);
		assert_true(raw_await(&client, 0, 2000));
		assert_int_equal(slot->answer.status, RSHM_CONTINUE);
		assert_int_equal(slot->answer.offset, RSHM_INLINE);
		slot->request.offset = offsets[i];
		raw_submit(&client, 0, RSHM_SLOT_GENERATION(slot->word));
		assert_true(raw_is_hung_up(client.bell, 2000));
		raw_close(&client);
	}
	assert_int_equal(e2e_await(&siege.agent, "workers.0.protocol_errors", siege.protocol_errors + 5, 3000),
			 siege.protocol_errors + 5);
}

/* Staging memory is bounded: the many halves are told to retry, and those who hang up give theirs back. */
static void bodies_that_never_end_are_bounded(void **state)
{
	struct raw_client clients[4];
	int refused = 0, taken = 0;

	(void)state;
	for (int c = 0; c < 4; c++) {
		siege_attach(&siege, &clients[c]);
		for (uint32_t i = 0; i < RSHM_SLOTS; i++)
			begin_body(&clients[c], i, 18 * MIB, 60000);
		for (uint32_t i = 0; i < RSHM_SLOTS; i++) {
			assert_true(raw_await(&clients[c], i, 5000));
			refused += clients[c].channel->slots[i].answer.status == RSHM_E_AGAIN;
			taken += clients[c].channel->slots[i].answer.status == RSHM_CONTINUE;
		}
	}
	assert_int_equal(refused + taken, 4 * RSHM_SLOTS);
	assert_in_range(taken, 1, 3); /* of limits.worker_staging_bytes, 64 MiB */
	assert_true(e2e_await(&siege.agent, "workers.0.staging_refused", refused, 3000) >= refused);
	assert_true(e2e_witness_is_well(&siege.witness, 5000));
	for (int c = 0; c < 4; c++)
		raw_close(&clients[c]);
}

/* Who begins a body and lets its deadline pass must not keep the tenant's staging memory from others for ever. */
static void a_body_that_was_left_lying_is_given_up_after_its_deadline(void **state)
{
	struct raw_client client;

	(void)state;
	siege_attach(&siege, &client);
	begin_body(&client, 0, 20 * MIB, 300);
	assert_true(raw_await(&client, 0, 2000));
	assert_int_equal(client.channel->slots[0].answer.status, RSHM_CONTINUE);
	assert_true(e2e_await(&siege.agent, "workers.0.staging_bytes", 20 * MIB, 2000) >= 20 * MIB);
	assert_true(e2e_await_exactly(&siege.agent, "workers.0.staging_bytes", 0, 8000));
	assert_true(is_served_or_closed(&client, 1));
	raw_close(&client);
}

/* Nor may a deadline far away keep it: the time between two pieces is bounded, and so is one channel's share. */
static void one_channel_cannot_take_its_tenants_staging_for_long(void **state)
{
	static unsigned char value[MIB];
	struct raw_client client;
	riptide *other;

	(void)state;
	assert_int_equal(e2e_open(&siege.agent, NULL, 5000, &other), RIPTIDE_OK);
	siege_attach(&siege, &client);
	begin_body(&client, 0, 20 * MIB, 600000);
	for (uint32_t i = 1; i < RSHM_SLOTS; i++)
		begin_body(&client, i, MIB, 600000);
	for (uint32_t i = 0; i < RSHM_SLOTS; i++)
		assert_true(raw_await(&client, i, 5000));
	assert_int_equal(riptide_set(other, "k", 1, value, sizeof(value), NULL, NULL), RIPTIDE_OK);
	assert_true(e2e_await_exactly(&siege.agent, "workers.0.staging_bytes", 0, 9000));
	riptide_close(&other);
	raw_close(&client);
}

static void answers_that_are_never_fetched_are_bounded(void **state)
{
	char *value = malloc(8 * MIB);
	struct raw_client client;
	riptide *handle;

	(void)state;
	memset(value, 'v', 8 * MIB);
	assert_int_equal(e2e_open(&siege.agent, NULL, 5000, &handle), RIPTIDE_OK);
	assert_int_equal(riptide_set(handle, "large", 5, value, 8 * MIB, NULL, NULL), RIPTIDE_OK);
	for (int round = 0; round < 8; round++) {
		siege_attach(&siege, &client);
		for (uint32_t i = 0; i < RSHM_SLOTS; i++) {
			client.channel->slots[i].request = raw_fields(RSHM_OP_GET, 5, 0);
			client.channel->slots[i].request.deadline_ms = rshm_now_ms() + 60000;
			memcpy(client.channel->slots[i].bytes, "large", 5);
			raw_submit(&client, i, 1);
		}
		for (uint32_t i = 0; i < RSHM_SLOTS; i++)
			assert_true(raw_await(&client, i, 10000));
		assert_true(e2e_number(&siege.agent, "workers.0.staging_bytes") <= 64 * MIB);
		assert_true(e2e_witness_is_well(&siege.witness, 5000));
		raw_close(&client);
	}
	assert_int_equal(riptide_delete(handle, "large", 5), RIPTIDE_OK);
	riptide_close(&handle);
	free(value);
}

/* ---- batches ------------------------------------------------------------------------------------------------ */

struct batch_lie {
	uint16_t op;
	uint32_t items;    /* as told */
	uint32_t body_len; /* bytes sent */
	struct rshm_batch_item first;
};

static const struct batch_lie batch_lies[] = {
	{RSHM_OP_GET_BATCH, 0, 35, {.key_len = 3}},
	{RSHM_OP_GET_BATCH, 2, 35, {.key_len = 3}},
	{RSHM_OP_GET_BATCH, 1000, 35, {.key_len = 3}},
	{RSHM_OP_GET_BATCH, RSHM_BATCH_MAX + 1, 35, {.key_len = 3}},
	{RSHM_OP_GET_BATCH, UINT32_MAX, 35, {.key_len = 3}},
	{RSHM_OP_GET_BATCH, 1, 31, {.key_len = 3}},
	{RSHM_OP_GET_BATCH, 1, 35, {.key_len = 4}},
	{RSHM_OP_GET_BATCH, 1, 35, {.key_len = 65535}},
	{RSHM_OP_GET_BATCH, 1, 36, {.key_len = 3}},
	{RSHM_OP_SET_BATCH, 1, 40, {.key_len = 3, .value_len = 6}},
	{RSHM_OP_SET_BATCH, 1, 40, {.key_len = 3, .value_len = UINT32_MAX}},
	{RSHM_OP_SET_BATCH, 1, 40, {.key_len = 3, .value_len = UINT32_MAX - 2}},
	{RSHM_OP_SET_BATCH, 1, 40, {.key_len = 3, .metadata_len = 65535}},
	{RSHM_OP_SET_BATCH, 1, 40, {.key_len = 3, .metadata_len = 65535, .value_len = UINT32_MAX - 65000}},
	{RSHM_OP_DELETE_BATCH, 1, 0, {.key_len = 0}},
	{RSHM_OP_DELETE_BATCH, 3, 96, {.key_len = 0}},
};

static void batches_that_lie_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(batch_lies) / sizeof(batch_lies[0]); i++) {
		const struct batch_lie *lie = &batch_lies[i];
		struct rshm_request request = {
			.op = lie->op,
			.items = lie->items,
			.body_len = lie->body_len,
			.piece_len = lie->body_len,
		};
		unsigned char body[4096] = {0};
		struct rshm_answer answer = {.status = RSHM_OK};
		struct raw_client client;
		int status;

		memcpy(body, &lie->first, sizeof(lie->first));
		memcpy(body + sizeof(lie->first), "keyvalues", 9);
		siege_attach(&siege, &client);
		status = raw_request(&client, 0, &request, body, &answer);
		/* Three items without keys are items that fail one by one; everything else is no batch. */
		if (status >= 0 && i + 1 < sizeof(batch_lies) / sizeof(batch_lies[0]))
			fail_msg("batch lie %zu: answered with %d", i, status);
		assert_true(is_served_or_closed(&client, 1));
		raw_close(&client);
	}
}

/* ---- loads -------------------------------------------------------------------------------------------------- */

/* Has the agent make `waiter` wait for a key that `loader` is to load; the ticket of the load. */
static uint64_t make_wait(struct raw_client *loader, struct raw_client *waiter, const char *key)
{
	struct rshm_request fetch = raw_fields(RSHM_OP_FETCH, strlen(key), 0);
	struct rshm_answer answer;

	fetch.operand = 60000;
	assert_int_equal(raw_request(loader, 0, &fetch, key, &answer), RSHM_LOAD);
	fetch.deadline_ms = rshm_now_ms() + 60000;
	waiter->channel->slots[0].request = fetch;
	rshm_piece_write(waiter->channel, 0, &waiter->channel->slots[0].request, 0, key, strlen(key));
	raw_submit(waiter, 0, 1);
	assert_false(raw_await(waiter, 0, 100));
	return answer.version;
}

/*
 * The answer to one client is the end of what another waits for; where that one has broken its channel meanwhile it is
 * dropped in the middle of the first one's turn. It may stand before or behind it in the round of clients.
 */
static void who_is_dropped_in_the_turn_of_another_stops_nobody(void **state)
{
	(void)state;
	for (int round = 0; round < 4; round++) {
		struct rshm_request failed = raw_fields(RSHM_OP_FETCH_FAILED, 6, 0);
		struct raw_client clients[2], *loader = &clients[round % 2], *waiter = &clients[1 - round % 2];
		struct rshm_answer answer;
		char key[16];

		snprintf(key, sizeof(key), "load-%d", round);
		siege_attach(&siege, &clients[0]);
		siege_attach(&siege, &clients[1]);
		failed.version = make_wait(loader, waiter, key);
		rshm_store_release32(&waiter->channel->slots[0].word, 0);
		assert_int_equal(raw_request(loader, 0, &failed, key, &answer), RSHM_OK);
		assert_true(raw_is_hung_up(waiter->bell, 5000));
		assert_true(is_served_or_closed(loader, 1));
		assert_false(raw_is_hung_up(loader->bell, 10));
		assert_true(e2e_witness_is_well(&siege.witness, 5000));
		raw_close(&clients[0]);
		raw_close(&clients[1]);
	}
	assert_int_equal(e2e_await(&siege.agent, "workers.0.protocol_errors", siege.protocol_errors + 4, 3000),
			 siege.protocol_errors + 4);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	/* First those that look for their line in the log, which is limited to so many lines in ten seconds. */
	const struct CMUnitTest tests[] = {
		CASE(bells_without_end_close_their_channel_only),
		CASE(lengths_and_numbers_that_lie_are_refused),
		CASE(batches_that_lie_are_refused),
		CASE(pieces_out_of_order_end_their_channel),
		CASE(who_is_dropped_in_the_turn_of_another_stops_nobody),
		CASE(a_slot_submitted_twice_ends_its_channel),
		CASE(words_that_change_under_the_agent_end_the_channel),
		CASE(the_channel_cannot_be_cut_grown_or_sealed),
		CASE(ten_thousand_bells_are_answered_by_work_alone),
		CASE(absurd_counters_do_not_mislead_the_figures),
		CASE(bodies_that_never_end_are_bounded),
		CASE(a_body_that_was_left_lying_is_given_up_after_its_deadline),
		CASE(one_channel_cannot_take_its_tenants_staging_for_long),
		CASE(answers_that_are_never_fetched_are_bounded),
		CASE(fields_that_change_between_check_and_use_harm_nobody),
		CASE(random_bytes_over_the_whole_channel_harm_nobody),
	};
#undef CASE

	return cmocka_run_group_tests(tests, begin_all, end_all);
}
