/* channel_test.c - slots, bitmap, the armed word; what a hostile client can write into them. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/channel.h"
#include "shm/order.h"
#include "shm/os/futex.h"

static int setup(void **state)
{
	struct rshm_header header = {.generation = 1};
	void *base =
		mmap(NULL, sizeof(struct rshm_channel), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED)
		return -1;
	rshm_channel_format(base, &header, 77);
	*state = base;
	return 0;
}

static int teardown(void **state)
{
	return munmap(*state, sizeof(struct rshm_channel));
}

static void submit_plain(struct rshm_channel *channel, uint32_t number)
{
	assert_true(rshm_slot_begin(&channel->slots[number]));
	memset(&channel->slots[number].request, 0, sizeof(struct rshm_request));
	channel->slots[number].request.op = RSHM_OP_PING;
	(void)rshm_channel_submit(channel, number);
}

static void request_passes_to_the_worker_and_back(void **state)
{
	struct rshm_channel *channel = *state;
	struct rshm_slot *slot = &channel->slots[5];
	struct rshm_request request;
	struct rshm_answer answer = {.status = RSHM_OK, .version = 9};
	uint32_t generation;

	assert_int_equal(rshm_channel_check(channel, sizeof(*channel)), RSHM_OK);
	submit_plain(channel, 5);
	assert_false(rshm_slot_is_answered(slot));
	assert_int_equal(rshm_channel_pending(channel), 1u << 5);
	assert_int_equal(rshm_channel_pending(channel), 0);
	assert_int_equal(rshm_slot_take(channel, 5, &request, &generation), RSHM_TAKEN);
	assert_int_equal(request.op, RSHM_OP_PING);
	assert_int_equal(rshm_slot_answer(channel, 5, generation, &answer), RSHM_ANSWER_QUIET);
	assert_true(rshm_slot_is_answered(slot));
	assert_int_equal(slot->answer.version, 9);
	rshm_slot_release(slot);
	assert_true(rshm_slot_is_free(slot));
}

static void header_that_lies_is_refused(void **state)
{
	struct rshm_channel *channel = *state;

	assert_int_equal(rshm_channel_check(channel, sizeof(*channel) - 1), RSHM_E_CORRUPT);
	channel->header.layout_major++;
	assert_int_equal(rshm_channel_check(channel, sizeof(*channel)), RSHM_E_UNSUPPORTED);
	channel->header.magic ^= 1;
	assert_int_equal(rshm_channel_check(channel, sizeof(*channel)), RSHM_E_CORRUPT);
}

static void generation_is_new_for_every_request_and_kept_for_its_pieces(void **state)
{
	struct rshm_channel *channel = *state;
	struct rshm_answer answer = {.status = RSHM_CONTINUE};
	struct rshm_request request;
	uint32_t first, piece, second;

	submit_plain(channel, 0);
	assert_int_equal(rshm_slot_take(channel, 0, &request, &first), RSHM_TAKEN);
	rshm_slot_answer(channel, 0, first, &answer);
	rshm_slot_continue(&channel->slots[0]);
	rshm_channel_submit(channel, 0);
	assert_int_equal(rshm_slot_take(channel, 0, &request, &piece), RSHM_TAKEN);
	assert_int_equal(first, piece);
	rshm_slot_answer(channel, 0, piece, &answer);
	rshm_slot_release(&channel->slots[0]);
	submit_plain(channel, 0);
	assert_int_equal(rshm_slot_take(channel, 0, &request, &second), RSHM_TAKEN);
	assert_int_not_equal(first, second);
}

static void late_answer_frees_the_abandoned_slot_and_nothing_else(void **state)
{
	struct rshm_channel *channel = *state;
	struct rshm_slot *slot = &channel->slots[3];
	struct rshm_answer answer = {.status = RSHM_OK};
	struct rshm_request request;
	uint32_t generation;

	submit_plain(channel, 3);
	assert_int_equal(rshm_slot_take(channel, 3, &request, &generation), RSHM_TAKEN);
	assert_int_equal(rshm_slot_abandon(slot), RSHM_SLOT_TAKEN);
	assert_false(rshm_slot_begin(slot)); /* not ours before the worker lets go */
	assert_int_equal(rshm_slot_answer(channel, 3, generation, &answer), RSHM_ANSWER_GONE);
	assert_true(rshm_slot_is_free(slot));
	assert_true(rshm_slot_begin(slot));
}

static void request_abandoned_before_it_was_taken_is_freed_by_the_worker(void **state)
{
	struct rshm_channel *channel = *state;
	struct rshm_request request;
	uint32_t generation;

	submit_plain(channel, 3);
	assert_int_equal(rshm_slot_abandon(&channel->slots[3]), RSHM_SLOT_SUBMITTED);
	assert_int_equal(rshm_slot_take(channel, 3, &request, &generation), RSHM_NOTHING);
	assert_true(rshm_slot_is_free(&channel->slots[3]));
}

static void answered_request_cannot_be_abandoned(void **state)
{
	struct rshm_channel *channel = *state;
	struct rshm_answer answer = {.status = RSHM_OK};
	struct rshm_request request;
	uint32_t generation, word;

	submit_plain(channel, 3);
	rshm_slot_take(channel, 3, &request, &generation);
	assert_true(rshm_slot_prepare_wait(&channel->slots[3], &word));
	assert_int_equal(rshm_slot_answer(channel, 3, generation, &answer), RSHM_ANSWER_WAKE);
	assert_int_equal(rshm_slot_abandon(&channel->slots[3]), RSHM_SLOT_ANSWERED);
	assert_false(rshm_slot_prepare_wait(&channel->slots[3], &word));
}

static void words_that_no_client_leaves_are_found_out(void **state)
{
	struct rshm_channel *channel = *state;
	struct rshm_slot *slot = &channel->slots[1];
	struct rshm_answer answer = {.status = RSHM_OK};
	struct rshm_request request;
	uint32_t generation;

	for (uint32_t state_bits = 0; state_bits < 8; state_bits++) {
		slot->word = 0;
		submit_plain(channel, 1);
		assert_int_equal(rshm_slot_take(channel, 1, &request, &generation), RSHM_TAKEN);
		if (state_bits != RSHM_SLOT_TAKEN && state_bits != RSHM_SLOT_ABANDONED) {
			slot->word = generation << 4 | state_bits;
			assert_int_equal(rshm_slot_answer(channel, 1, generation, &answer), RSHM_ANSWER_BROKEN);
		}
		slot->word = (generation + 1) << 4 | RSHM_SLOT_TAKEN;
		assert_int_equal(rshm_slot_answer(channel, 1, generation, &answer), RSHM_ANSWER_BROKEN);
	}
}

static enum rshm_take take_with(struct rshm_channel *channel, const struct rshm_request *wanted)
{
	struct rshm_request request;
	uint32_t generation;

	channel->slots[2].word = 0;
	rshm_slot_begin(&channel->slots[2]);
	channel->slots[2].request = *wanted;
	rshm_channel_submit(channel, 2);
	return rshm_slot_take(channel, 2, &request, &generation);
}

static void lengths_and_block_numbers_that_lie_break_the_channel(void **state)
{
	struct rshm_request r;

#define LIES(...)                                                          \
	do {                                                               \
		r = (struct rshm_request){.op = RSHM_OP_SET, __VA_ARGS__}; \
		assert_int_equal(take_with(*state, &r), RSHM_BROKEN);      \
	} while (0)
	LIES(.body_len = 10, .piece_len = 11);
	LIES(.body_len = 10, .offset = 11);
	LIES(.body_len = 10, .offset = 5, .piece_len = 6);
	LIES(.body_len = 1u << 20, .piece_len = RSHM_INLINE + 1);
	LIES(.body_len = 10, .key_len = 11);
	LIES(.body_len = 10, .metadata_len = 11);
	LIES(.body_len = 10, .metadata_len = 6, .key_len = 5);
	LIES(.body_len = UINT32_MAX, .offset = UINT32_MAX, .piece_len = UINT32_MAX);
	LIES(.block_count = RSHM_SLOT_BLOCKS + 1);
	LIES(.block_count = 1, .blocks = {RSHM_BLOCKS});
	LIES(.block_count = UINT16_MAX);
	r = (struct rshm_request){
		.op = RSHM_OP_SET, .body_len = 10, .piece_len = 10, .key_len = 4, .metadata_len = 6};
	assert_int_equal(take_with(*state, &r), RSHM_TAKEN);
}

static void piece_may_fill_its_blocks_and_not_a_byte_more(void **state)
{
	for (uint16_t blocks = 0; blocks <= RSHM_SLOT_BLOCKS; blocks++) {
		uint32_t capacity = (uint32_t)rshm_piece_capacity(blocks);
		struct rshm_request r = {.op = RSHM_OP_SET, .block_count = blocks, .body_len = UINT32_MAX};

		for (unsigned int i = 0; i < blocks; i++)
			r.blocks[i] = (uint8_t)(RSHM_BLOCKS - 1 - i);
		r.piece_len = capacity;
		r.offset = UINT32_MAX - capacity;
		assert_int_equal(take_with(*state, &r), RSHM_TAKEN);
		r.offset++;
		assert_int_equal(take_with(*state, &r), RSHM_BROKEN);
		r.flags = RSHM_REQUEST_FETCH; /* its offset is in the answer */
		assert_int_equal(take_with(*state, &r), RSHM_TAKEN);
		r.piece_len++;
		assert_int_equal(take_with(*state, &r), RSHM_BROKEN);
		r.flags = 0;
		r.offset = 0;
		assert_int_equal(take_with(*state, &r), RSHM_BROKEN);
	}
}

static void worker_takes_a_submitted_word_and_leaves_every_other(void **state)
{
	struct rshm_channel *channel = *state;
	uint32_t *word = &channel->slots[6].word;
	struct rshm_request request;
	uint32_t generation;

	for (uint32_t low = 0; low < 16; low++) {
		uint32_t before = 0xabcdef5u << 4 | low;

		*word = before;
		if (RSHM_SLOT_STATE(low) == RSHM_SLOT_SUBMITTED) {
			assert_int_equal(rshm_slot_take(channel, 6, &request, &generation), RSHM_TAKEN);
			assert_int_equal(generation, 0xabcdef5u);
			assert_int_equal(RSHM_SLOT_STATE(*word), RSHM_SLOT_TAKEN);
			assert_int_equal(*word & RSHM_SLOT_WAITING, low & RSHM_SLOT_WAITING);
			continue;
		}
		assert_int_equal(rshm_slot_take(channel, 6, &request, &generation), RSHM_NOTHING);
		if (RSHM_SLOT_STATE(low) == RSHM_SLOT_ABANDONED)
			assert_int_equal(*word, 0xabcdef5u << 4 | RSHM_SLOT_FREE);
		else
			assert_int_equal(*word, before);
	}
}

static void generation_begins_anew_after_its_28_bits(void **state)
{
	struct rshm_channel *channel = *state;
	struct rshm_answer answer = {.status = RSHM_OK};
	struct rshm_request request;
	uint32_t generation;

	channel->slots[0].word = 0xfffffffu << 4 | RSHM_SLOT_FREE;
	submit_plain(channel, 0);
	assert_int_equal(rshm_slot_take(channel, 0, &request, &generation), RSHM_TAKEN);
	assert_int_equal(generation, 0);
	assert_int_equal(rshm_slot_answer(channel, 0, generation, &answer), RSHM_ANSWER_QUIET);
}

static void bit_without_a_submission_means_nothing(void **state)
{
	struct rshm_channel *channel = *state;
	struct rshm_request request;
	uint32_t generation;

	channel->submitted = UINT32_MAX;
	assert_int_equal(rshm_channel_pending(channel), UINT32_MAX);
	for (uint32_t i = 0; i < RSHM_SLOTS; i++)
		assert_int_equal(rshm_slot_take(channel, i, &request, &generation), RSHM_NOTHING);
}

static void piece_runs_through_inline_bytes_and_blocks_in_any_order(void **state)
{
	struct rshm_channel *channel = *state;
	struct rshm_request layout = {.block_count = 3, .blocks = {47, 0, 13}};
	size_t capacity = rshm_piece_capacity(3);
	unsigned char *in = malloc(capacity), *out = calloc(1, capacity);

	for (size_t i = 0; i < capacity; i++)
		in[i] = (unsigned char)(i * 7 + i / 4096);
	rshm_piece_write(channel, 4, &layout, 0, in, capacity);
	rshm_piece_read(channel, 4, &layout, 0, out, capacity);
	assert_memory_equal(in, out, capacity);
	assert_memory_equal(channel->blocks[47], in + RSHM_INLINE, RSHM_BLOCK);
	rshm_piece_read(channel, 4, &layout, RSHM_INLINE - 3, out, 10);
	assert_memory_equal(in + RSHM_INLINE - 3, out, 10);
	free(in);
	free(out);
}

/* ---- arm and bell --------------------------------------------------------------------------------------------- */

struct race {
	struct rshm_channel *channel;
	uint32_t bells, stop;
	uint64_t rounds;
};

static void *worker_thread(void *context)
{
	struct race *race = context;
	struct rshm_answer answer = {.status = RSHM_OK};
	struct rshm_request request;
	uint32_t generation;

	rshm_channel_disarm(race->channel);
	while (!rshm_load_acquire32(&race->stop)) {
		if (rshm_channel_pending(race->channel)) {
			if (rshm_slot_take(race->channel, 0, &request, &generation) == RSHM_TAKEN)
				rshm_slot_answer(race->channel, 0, generation, &answer);
			continue;
		}
		if (rshm_channel_arm(race->channel)) {
			rshm_channel_disarm(race->channel);
			continue;
		}
		/* Asleep: only the bell wakes us. */
		while (!rshm_load_acquire32(&race->bells) && !rshm_load_acquire32(&race->stop))
			sched_yield();
		rshm_store_release32(&race->bells, 0);
		rshm_channel_disarm(race->channel);
	}
	return NULL;
}

static void no_request_sleeps_while_the_worker_falls_asleep(void **state)
{
	struct race race = {.channel = *state};
	struct rshm_slot *slot = &race.channel->slots[0];
	uint64_t rounds = RSHM_TSAN ? 100000 : 1000000, waited;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, worker_thread, &race), 0);
	for (uint64_t i = 0; i < rounds; i++) {
		assert_true(rshm_slot_begin(slot));
		if (rshm_channel_submit(race.channel, 0))
			rshm_store_release32(&race.bells, 1);
		for (waited = 0; !rshm_slot_is_answered(slot); waited++) {
			sched_yield();
			assert_true(waited < 50u * 1000 * 1000);
		}
		rshm_slot_release(slot);
	}
	rshm_store_release32(&race.stop, 1);
	pthread_join(thread, NULL);
}

/* Rounds in which an answer and a client that gives up meet; the word of each must agree with the other's. */
struct quarrel {
	struct rshm_channel *channel;
	uint32_t round, done; /* begun by the client, ended by the worker */
	uint32_t generation, gone, broken;
};

static void *answering_thread(void *context)
{
	struct quarrel *q = context;
	struct rshm_answer answer = {.status = RSHM_OK};

	for (uint32_t round = 1;; round++) {
		enum rshm_answered outcome;

		while (rshm_load_acquire32(&q->round) < round)
			sched_yield();
		if (rshm_load_acquire32(&q->round) == UINT32_MAX)
			return NULL;
		for (uint32_t i = round % 64; i > 0; i--)
			rshm_pause();
		outcome = rshm_slot_answer(q->channel, 9, q->generation, &answer);
		q->gone = outcome == RSHM_ANSWER_GONE;
		q->broken += outcome == RSHM_ANSWER_BROKEN;
		rshm_store_release32(&q->done, round);
	}
}

static void answer_and_abandonment_agree_on_who_was_first(void **state)
{
	struct quarrel q = {.channel = *state};
	struct rshm_slot *slot = &q.channel->slots[9];
	uint32_t rounds = RSHM_TSAN ? 20000 : 100000, disagreements = 0;
	struct rshm_request request;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, answering_thread, &q), 0);
	for (uint32_t round = 1; round <= rounds; round++) {
		enum rshm_slot_state was;

		submit_plain(q.channel, 9);
		disagreements += rshm_slot_take(q.channel, 9, &request, &q.generation) != RSHM_TAKEN;
		rshm_store_release32(&q.round, round);
		for (uint32_t i = round / 64 % 64; i > 0; i--)
			rshm_pause();
		was = rshm_slot_abandon(slot);
		while (rshm_load_acquire32(&q.done) < round)
			sched_yield();
		if (was == RSHM_SLOT_TAKEN)
			disagreements += !q.gone || !rshm_slot_is_free(slot);
		else
			disagreements += was != RSHM_SLOT_ANSWERED || q.gone || !rshm_slot_is_answered(slot);
		if (was == RSHM_SLOT_ANSWERED)
			rshm_slot_release(slot);
	}
	rshm_store_release32(&q.round, UINT32_MAX);
	pthread_join(thread, NULL);
	assert_int_equal(disagreements, 0);
	assert_int_equal(q.broken, 0);
}

static void futex_carries_answers_between_processes(void **state)
{
	struct rshm_channel *channel = *state;
	struct rshm_answer answer = {.status = RSHM_OK};
	struct rshm_request request;
	uint32_t generation, word;
	pid_t pid = fork();
	int code;

	assert_true(pid >= 0);
	if (pid == 0) {
		for (unsigned int served = 0; served < 200;) {
			if (!rshm_channel_pending(channel)) {
				usleep(50);
				continue;
			}
			if (rshm_slot_take(channel, 0, &request, &generation) != RSHM_TAKEN)
				_exit(1);
			if (rshm_slot_answer(channel, 0, generation, &answer) == RSHM_ANSWER_WAKE)
				rshm_futex_wake(&channel->slots[0].word);
			served++;
		}
		_exit(0);
	}
	for (unsigned int i = 0; i < 200; i++) {
		unsigned int slices = 0;

		submit_plain(channel, 0);
		while (rshm_slot_prepare_wait(&channel->slots[0], &word)) {
			rshm_futex_wait(&channel->slots[0].word, word, 100);
			assert_true(slices++ < 300);
		}
		assert_true(rshm_slot_is_answered(&channel->slots[0]));
		rshm_slot_release(&channel->slots[0]);
	}
	waitpid(pid, &code, 0);
	assert_int_equal(code, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(request_passes_to_the_worker_and_back),
		CASE(header_that_lies_is_refused),
		CASE(generation_is_new_for_every_request_and_kept_for_its_pieces),
		CASE(late_answer_frees_the_abandoned_slot_and_nothing_else),
		CASE(request_abandoned_before_it_was_taken_is_freed_by_the_worker),
		CASE(answered_request_cannot_be_abandoned),
		CASE(words_that_no_client_leaves_are_found_out),
		CASE(lengths_and_block_numbers_that_lie_break_the_channel),
		CASE(piece_may_fill_its_blocks_and_not_a_byte_more),
		CASE(worker_takes_a_submitted_word_and_leaves_every_other),
		CASE(generation_begins_anew_after_its_28_bits),
		CASE(bit_without_a_submission_means_nothing),
		CASE(piece_runs_through_inline_bytes_and_blocks_in_any_order),
		CASE(no_request_sleeps_while_the_worker_falls_asleep),
		CASE(answer_and_abandonment_agree_on_who_was_first),
		CASE(futex_carries_answers_between_processes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
