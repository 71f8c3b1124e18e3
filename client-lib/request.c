/*
 * request.c - one request through the channel: a slot, its pieces, the wait, the answer's pieces, and what an end in between
 * means.
 *
 *	acquire slot ─▶ [ fill piece ─▶ submit ─▶ bell? ─▶ wait ] while the agent says CONTINUE
 *	                    ─▶ place the answer ─▶ [ fetch ─▶ wait ] while bytes are missing ─▶ release slot
 *
 * Slots and blocks are handed out under the process's lock, in private memory. Only slots are waited for: a piece needs no
 * block, it is just smaller without, so nobody waits for a block while holding a slot.
 *
 * When the deadline passes or the agent is gone, the slot is given up by one exchange of its word, and the state that it was
 * in then decides: SUBMITTED was never taken and never will be, so nothing happened; TAKEN may have happened. Pieces of a
 * body before the last cannot have happened in either case. A slot given up stays out of use, with its blocks, until the
 * agent has freed it.
 *
 * Waiting: a bounded spin first, for an agent that is awake answers in a microsecond. Its length follows the average of
 * what it met; after some failures in a row it rests for a while; on one CPU it never begins.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client-lib/hot_priv.h"
#include "shm/os/futex.h"

#define ATTEMPTS_MAX 16u     /* of one call that loses its channel again and again */
#define SPIN_FAILURES_MAX 3u /* in a row, before it rests */
#define SPIN_REST_CALLS 64u
#define SPIN_CLOCK_EVERY 16u /* pauses between two looks at the clock */
#define SLOT_SLICE_MS 10u    /* nobody tells when the agent frees a slot that was given up */

enum wait { WAIT_ANSWERED, WAIT_LATE, WAIT_LOST };

struct exchange {
	riptide *handle;
	struct rt_channel *channel;
	struct rt_call *call;
	struct rshm_slot *slot;
	uint32_t number;
	struct rshm_request request; /* ours; copied into the slot piece by piece */
	bool may_have_run;           /* the whole body was taken */
};

/* ---- slots and blocks --------------------------------------------------------------------------------------- */

/* Lock held. Slots given up that the agent has freed meanwhile are ours again. */
static void collect_abandoned(struct rt_channel *channel)
{
	for (uint32_t rest = channel->abandoned_slots; rest; rest &= rest - 1) {
		uint32_t number = (uint32_t)__builtin_ctz(rest);

		if (!rshm_slot_is_free(&channel->shared->slots[number]))
			continue;
		for (unsigned int i = 0; i < channel->block_count[number]; i++)
			channel->free_blocks |= 1ull << channel->blocks[number][i];
		channel->block_count[number] = 0;
		channel->abandoned_slots &= ~(1u << number);
		channel->free_slots |= 1u << number;
	}
}

bool rt_process_wait(struct rt_process *process, uint64_t until_ms)
{
	struct timespec until = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};

	return pthread_cond_clockwait(&process->changed, &process->lock, CLOCK_MONOTONIC, &until) == 0;
}

/* Takes a slot, waiting for one at most until the deadline. */
static enum wait slot_acquire(struct exchange *x)
{
	struct rt_process *process = x->handle->process;
	struct rt_channel *channel = x->channel;
	enum wait outcome = WAIT_ANSWERED;

	pthread_mutex_lock(&process->lock);
	while (!channel->free_slots) {
		uint64_t now_ms = rshm_now_ms();

		collect_abandoned(channel);
		if (channel->free_slots)
			break;
		if (process->channel != channel)
			outcome = WAIT_LOST;
		else if (now_ms >= x->call->deadline_ms)
			outcome = WAIT_LATE;
		if (outcome != WAIT_ANSWERED)
			break;
		(void)rt_process_wait(process, now_ms + SLOT_SLICE_MS);
	}
	if (outcome == WAIT_ANSWERED) {
		x->number = (uint32_t)__builtin_ctz(channel->free_slots);
		channel->free_slots &= ~(1u << x->number);
		x->slot = &channel->shared->slots[x->number];
	}
	pthread_mutex_unlock(&process->lock);
	return outcome;
}

static void slot_give_back(struct exchange *x, bool answered)
{
	struct rt_process *process = x->handle->process;
	struct rt_channel *channel = x->channel;

	if (answered)
		rshm_slot_release(x->slot);
	pthread_mutex_lock(&process->lock);
	channel->abandoned_slots |= 1u << x->number;
	collect_abandoned(channel);
	pthread_cond_broadcast(&process->changed);
	pthread_mutex_unlock(&process->lock);
}

/* Takes blocks so that a piece can hold `bytes`, as many as there are. */
static void take_blocks(struct exchange *x, size_t bytes)
{
	struct rt_process *process = x->handle->process;
	struct rt_channel *channel = x->channel;
	uint8_t *count = &channel->block_count[x->number];

	if (rshm_piece_capacity(*count) >= bytes || *count == RSHM_SLOT_BLOCKS)
		return;
	pthread_mutex_lock(&process->lock);
	while (*count < RSHM_SLOT_BLOCKS && rshm_piece_capacity(*count) < bytes && channel->free_blocks) {
		uint8_t block = (uint8_t)__builtin_ctzll(channel->free_blocks);

		channel->free_blocks &= ~(1ull << block);
		channel->blocks[x->number][(*count)++] = block;
	}
	pthread_mutex_unlock(&process->lock);
	x->request.block_count = *count;
	memcpy(x->request.blocks, channel->blocks[x->number], *count);
}

/* ---- waiting ------------------------------------------------------------------------------------------------ */

static bool has_one_cpu(void)
{
	static uint32_t count; /* 2: more than one. Found out once; a race finds the same */
	uint64_t set[CPU_SETSIZE / 64] = {0};

	if (rshm_load_relaxed32(&count) == 0) {
		uint32_t n = syscall(SYS_sched_getaffinity, 0, sizeof(set), set) > 0 ? 0 : 2;

		for (size_t i = 0; i < CPU_SETSIZE / 64; i++)
			n += set[i] == 0 ? 0 : set[i] & (set[i] - 1) ? 2 : 1;
		rshm_store_relaxed32(&count, n == 1 ? 1 : 2);
	}
	return rshm_load_relaxed32(&count) == 1;
}

/* How long this wait may spin. */
static uint64_t spin_budget_ns(riptide *handle)
{
	struct rt_process *process = handle->process;
	uint64_t most = (uint64_t)handle->spin_us * 1000, likely;
	uint32_t rest = rshm_load_relaxed32(&process->spin_rest);

	if (has_one_cpu())
		return 0;
	if (rest > 0) {
		rshm_store_relaxed32(&process->spin_rest, rest - 1);
		return 0;
	}
	likely = rshm_load_relaxed(&process->spin_average_ns) * 4 + 1000;
	return likely < most ? likely : most;
}

static void spin_learn(struct rt_process *process, bool answered, uint64_t took_ns)
{
	uint64_t average = rshm_load_relaxed(&process->spin_average_ns);
	uint32_t failures = rshm_load_relaxed32(&process->spin_failures) + 1;

	rshm_store_relaxed(&process->spin_average_ns, (average * 7 + took_ns) / 8);
	if (!answered && failures >= SPIN_FAILURES_MAX)
		rshm_store_relaxed32(&process->spin_rest, SPIN_REST_CALLS);
	rshm_store_relaxed32(&process->spin_failures, answered || failures >= SPIN_FAILURES_MAX ? 0 : failures);
}

static bool spin(struct exchange *x)
{
	uint64_t budget_ns = spin_budget_ns(x->handle), began_ns, now_ns;
	bool answered = rshm_slot_is_answered(x->slot);

	if (answered || budget_ns == 0)
		return answered;
	began_ns = now_ns = rt_clock_ns();
	while (!answered && now_ns - began_ns < budget_ns) {
		for (unsigned int i = 0; i < SPIN_CLOCK_EVERY && !answered; i++) {
			rshm_pause();
			answered = rshm_slot_is_answered(x->slot);
		}
		now_ns = rt_clock_ns();
	}
	spin_learn(x->handle->process, answered, now_ns - began_ns);
	return answered;
}

/* Ends a wait without an answer; if one came at the last moment it counts. */
static enum wait end_wait(struct exchange *x, enum wait outcome, bool is_last_piece)
{
	enum rshm_slot_state state = rshm_slot_abandon(x->slot);

	if (state == RSHM_SLOT_ANSWERED)
		return WAIT_ANSWERED;
	if (state != RSHM_SLOT_SUBMITTED && is_last_piece)
		x->may_have_run = true;
	return outcome;
}

static enum wait wait_for_answer(struct exchange *x, bool is_last_piece)
{
	uint64_t slice_ms = 4;

	if (spin(x))
		return WAIT_ANSWERED;
	for (;;) {
		uint64_t now_ms = rshm_now_ms(), left_ms;
		uint32_t word;

		if (rshm_slot_is_answered(x->slot))
			return WAIT_ANSWERED;
		if (now_ms >= x->call->deadline_ms)
			return end_wait(x, WAIT_LATE, is_last_piece);
		left_ms = x->call->deadline_ms - now_ms;
		if (rshm_slot_prepare_wait(x->slot, &word))
			rshm_futex_wait(&x->slot->word, word, (uint32_t)(slice_ms < left_ms ? slice_ms : left_ms));
		if (rshm_slot_is_answered(x->slot))
			return WAIT_ANSWERED;
		/* A word that is neither waited for nor answered is broken; so is a channel whose agent is gone. */
		if (!rshm_slot_prepare_wait(x->slot, &word) || rt_channel_is_dead(x->channel, true))
			return end_wait(x, WAIT_LOST, is_last_piece);
		slice_ms = slice_ms * 4 < RT_SLICE_MS ? slice_ms * 4 : RT_SLICE_MS;
	}
}

/* ---- pieces ------------------------------------------------------------------------------------------------- */

/* False: the agent is gone. A full socket buffer holds bells enough. */
static bool ring_bell(const struct rt_channel *channel)
{
	static const char bell = 1;

	if (!rt_bell_is_ours(&channel->bell))
		return false;
	return send(channel->bell.fd, &bell, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 || errno == EAGAIN ||
	       errno == EINTR;
}

static enum wait submit_and_wait(struct exchange *x, bool is_last_piece)
{
	rshm_copy_in(&x->slot->request, &x->request, sizeof(x->request));
	if (rshm_channel_submit(x->channel->shared, x->number) && !ring_bell(x->channel))
		return end_wait(x, WAIT_LOST, is_last_piece);
	return wait_for_answer(x, is_last_piece);
}

/* Copies `length` bytes of the body at `offset`, from its parts into the slot. */
static void write_body(struct exchange *x, size_t offset, size_t length)
{
	size_t at = 0;

	for (size_t i = 0; i < 3 && length > 0; i++) {
		const struct rt_part *part = &x->call->parts[i];
		size_t n;

		if (offset >= part->length) {
			offset -= part->length;
			continue;
		}
		n = part->length - offset < length ? part->length - offset : length;
		rshm_piece_write(x->channel->shared, x->number, &x->request, at,
				 (const unsigned char *)part->bytes + offset, n);
		at += n;
		length -= n;
		offset = 0;
	}
}

/* Sends the whole body; afterwards call->answer is the first answer that is not CONTINUE. */
static enum wait send_body(struct exchange *x)
{
	struct rshm_request *request = &x->request;
	struct rshm_answer *answer = &x->call->answer;

	take_blocks(x, request->body_len);
	for (;;) {
		size_t left = request->body_len - request->offset, room = rshm_piece_capacity(request->block_count);
		enum wait outcome;

		request->piece_len = (uint32_t)(left < room ? left : room);
		write_body(x, request->offset, request->piece_len);
		outcome = submit_and_wait(x, request->piece_len == left);
		if (outcome != WAIT_ANSWERED)
			return outcome;
		rshm_copy_out(answer, &x->slot->answer, sizeof(*answer));
		if (answer->status != RSHM_CONTINUE || request->piece_len == left)
			return WAIT_ANSWERED;
		request->offset += request->piece_len;
		rshm_slot_continue(x->slot);
	}
}

/* Copies one piece of the answer from the slot to where it belongs: metadata first, then body. */
static void read_piece(struct exchange *x, const struct rshm_answer *piece, uint32_t metadata_len)
{
	struct rt_call *call = x->call;
	size_t in_metadata = piece->offset < metadata_len ? metadata_len - piece->offset : 0;

	if (in_metadata > piece->piece_len)
		in_metadata = piece->piece_len;
	if (in_metadata && call->metadata_to)
		rshm_piece_read(x->channel->shared, x->number, &x->request, 0, call->metadata_to + piece->offset,
				in_metadata);
	if (in_metadata < piece->piece_len && call->body_to)
		rshm_piece_read(x->channel->shared, x->number, &x->request, in_metadata,
				call->body_to + (piece->offset + in_metadata - metadata_len),
				piece->piece_len - in_metadata);
}

static bool piece_is_sound(const struct exchange *x, const struct rshm_answer *piece, uint32_t offset)
{
	return piece->offset == offset && offset <= piece->answer_len &&
	       piece->piece_len <= piece->answer_len - offset &&
	       piece->piece_len <= rshm_piece_capacity(x->request.block_count) &&
	       (piece->piece_len > 0 || offset == piece->answer_len) && piece->metadata_len <= piece->answer_len;
}

/* Fetches what the first answer did not bring. *ret_status: RIPTIDE_EPROTOCOL if the agent's pieces do not fit together. */
static enum wait fetch_rest(struct exchange *x, int *ret_status)
{
	const struct rshm_answer first = x->call->answer;
	uint32_t had = first.piece_len;

	x->may_have_run = true; /* it was answered: a lost rest of the answer undoes nothing */
	read_piece(x, &first, first.metadata_len);
	while (had < first.answer_len) {
		struct rshm_answer piece;
		enum wait outcome;

		take_blocks(x, first.answer_len - had);
		x->request.flags |= RSHM_REQUEST_FETCH;
		x->request.offset = had;
		x->request.piece_len = 0;
		rshm_slot_continue(x->slot);
		outcome = submit_and_wait(x, false);
		if (outcome != WAIT_ANSWERED)
			return outcome;
		rshm_copy_out(&piece, &x->slot->answer, sizeof(piece));
		if (piece.status < 0) {
			*ret_status = piece.status;
			return WAIT_ANSWERED;
		}
		if (piece.answer_len != first.answer_len || !piece_is_sound(x, &piece, had)) {
			*ret_status = RIPTIDE_EPROTOCOL;
			return WAIT_ANSWERED;
		}
		read_piece(x, &piece, first.metadata_len);
		had += piece.piece_len;
	}
	return WAIT_ANSWERED;
}

/* A negative answer may bring a text for people. */
static void read_trouble(struct exchange *x)
{
	const struct rshm_answer *answer = &x->call->answer;
	char *text = x->call->trouble;
	size_t length = answer->piece_len < RT_TEXT - 1 ? answer->piece_len : RT_TEXT - 1;

	text[0] = '\0';
	if (answer->status >= 0 || length == 0)
		return;
	rshm_copy_out(text, x->slot->bytes, length);
	text[length] = '\0';
	for (size_t i = 0; i < length && text[i]; i++)
		if ((unsigned char)text[i] < ' ')
			text[i] = ' ';
}

/* ---- one attempt -------------------------------------------------------------------------------------------- */

bool rt_status_is_known(int status)
{
	return status == RIPTIDE_OK || status == RIPTIDE_MISS || status == RIPTIDE_CONFLICT ||
	       (status < 0 && strcmp(rt_strerror(status), "unknown error") != 0);
}

static bool may_answer(const struct rt_call *call, int status)
{
	return rt_status_is_known(status) || (status == RSHM_LOAD && call->op == RSHM_OP_FETCH);
}

/* The answer is there: takes its bytes. *ret_status is the call's. */
static enum wait settle(struct exchange *x, int *ret_status)
{
	struct rt_call *call = x->call;
	int status = call->answer.status;

	if (!may_answer(call, status) || !piece_is_sound(x, &call->answer, 0)) {
		*ret_status = RIPTIDE_EPROTOCOL;
		return WAIT_ANSWERED;
	}
	*ret_status = status;
	read_trouble(x);
	if (status != RIPTIDE_OK || !call->place)
		return WAIT_ANSWERED;
	call->metadata_to = call->body_to = NULL;
	status = call->place(call);
	if (status < 0) {
		*ret_status = status;
		return WAIT_ANSWERED;
	}
	return fetch_rest(x, ret_status);
}

static void fill_request(struct exchange *x)
{
	const struct rt_call *call = x->call;
	size_t length = call->parts[0].length + call->parts[1].length + call->parts[2].length;

	x->request = (struct rshm_request){
		.op = call->op,
		.flags = call->flags,
		.body_len = (uint32_t)length,
		.deadline_ms = call->deadline_ms,
		.ttl_ms = call->ttl_ms,
		.change = call->change,
		.version = call->version,
		.operand = call->operand,
		.metadata_len = call->metadata_len,
		.items = call->items,
		.key_len = (uint16_t)call->key_length,
	};
}

/* Runs the call on this channel. */
static enum wait run_on(struct exchange *x, int *ret_status)
{
	enum wait outcome = slot_acquire(x);

	if (outcome != WAIT_ANSWERED)
		return outcome;
	fill_request(x);
	if (!rshm_slot_begin(x->slot)) {
		/* Somebody wrote a word that was ours. It stays out of use. */
		slot_give_back(x, false);
		return WAIT_LOST;
	}
	outcome = send_body(x);
	if (outcome == WAIT_ANSWERED)
		outcome = settle(x, ret_status);
	slot_give_back(x, outcome == WAIT_ANSWERED);
	return outcome;
}

static void pause_between(unsigned int attempt)
{
	uint64_t ms = attempt < 7 ? 1ull << attempt : RT_SLICE_MS;
	struct timespec pause = {.tv_nsec = (long)ms * 1000000};

	nanosleep(&pause, NULL);
}

static int late(struct rt_call *call, const struct exchange *x)
{
	if (call->writes && x->may_have_run)
		return rt_trouble(call->trouble, RIPTIDE_EUNKNOWN,
				  "the agent took the request and did not answer in time; it may have happened");
	return rt_trouble(call->trouble, RIPTIDE_ETIMEDOUT, "the agent did not answer in time");
}

/* Repeats what certainly did not happen, or may happen twice, until the deadline. */
static int run_until_deadline(riptide *handle, struct rt_call *call)
{
	for (unsigned int attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
		struct exchange x = {.handle = handle, .call = call};
		enum wait outcome;
		int result = RIPTIDE_OK, status;

		status = rt_channel_acquire(handle, call->deadline_ms, &x.channel, call->trouble);
		if (status < 0)
			return status;
		outcome = run_on(&x, &result);
		/* An agent that breaks the protocol, or drains, serves no more. */
		if (outcome == WAIT_LOST ||
		    (outcome == WAIT_ANSWERED && (result == RIPTIDE_EPROTOCOL || result == RIPTIDE_ECLOSED)))
			rt_channel_drop(handle, x.channel);
		rt_channel_release(handle, x.channel);
		if (outcome == WAIT_LATE)
			return late(call, &x);
		if (outcome == WAIT_ANSWERED && result != RIPTIDE_ECLOSED)
			return result;
		if (call->writes && x.may_have_run)
			return rt_trouble(call->trouble, RIPTIDE_EUNKNOWN,
					  "the agent went away while it served the request; it may have happened");
		if (rshm_now_ms() >= call->deadline_ms)
			return late(call, &x);
		if (attempt > 0)
			pause_between(attempt);
	}
	return rt_trouble(call->trouble, RIPTIDE_EAGAIN, "the agent dropped the channel %u times", ATTEMPTS_MAX);
}

static int check_size(riptide *handle, struct rt_call *call)
{
	struct rt_process *process = handle->process;
	uint64_t length = 0, limit;

	for (size_t i = 0; i < 3; i++)
		length += call->parts[i].length;
	pthread_mutex_lock(&process->lock);
	limit = process->channel && !call->items ? process->channel->entry_limit : 0;
	pthread_mutex_unlock(&process->lock);
	if (length > UINT32_MAX || (limit && length > limit))
		return rt_trouble(call->trouble, RIPTIDE_ETOOBIG, "an entry of %llu bytes is above the limit of %llu",
				  (unsigned long long)length, (unsigned long long)(limit ? limit : UINT32_MAX));
	return RIPTIDE_OK;
}

int rt_call_run(riptide *handle, struct rt_call *call)
{
	int cancel_state, status = rt_process_setup(handle);

	call->trouble[0] = '\0';
	if (status == RIPTIDE_OK)
		status = check_size(handle, call);
	if (status < 0)
		return status;
	/* A thread cancelled at a wait would take the lock and the slot with it. */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
	status = run_until_deadline(handle, call);
	pthread_setcancelstate(cancel_state, NULL);
	return status;
}

int rt_call(riptide *handle, struct rt_call *call)
{
	int status = rt_call_run(handle, call);

	if (status < 0)
		return rt_fail(handle, status, call->verb, call->key, call->key_length, call->trouble);
	return status;
}

uint64_t rt_deadline_ms(const riptide *handle)
{
	return rshm_now_ms() + handle->timeout_ms;
}

void rt_call_init(struct rt_call *call, const char *verb, uint16_t op, const void *key, size_t key_length,
		  uint64_t deadline_ms)
{
	memset(call, 0, offsetof(struct rt_call, trouble));
	call->trouble[0] = '\0';
	call->verb = verb;
	call->key = key;
	call->key_length = key_length;
	call->op = op;
	call->deadline_ms = deadline_ms;
	call->parts[0] = (struct rt_part){key, key_length};
}

int rt_begin(riptide *handle, struct rt_call *call, const char *verb, uint16_t op)
{
	int status = rt_check_open(handle, verb);

	if (status == RIPTIDE_OK)
		rt_call_init(call, verb, op, NULL, 0, rt_deadline_ms(handle));
	return status;
}

int rt_begin_key(riptide *handle, struct rt_call *call, const char *verb, uint16_t op, const void *key,
		 size_t key_length)
{
	int status = rt_check_key(handle, verb, key, key_length);

	if (status == RIPTIDE_OK)
		rt_call_init(call, verb, op, key, key_length, rt_deadline_ms(handle));
	return status;
}

void rt_info_of_answer(const struct rshm_answer *answer, struct riptide_info *ret)
{
	*ret = (struct riptide_info){
		.flags = (answer->flags & RSHM_ANSWER_STALE ? RIPTIDE_STALE : 0) |
			 (answer->flags & RSHM_ANSWER_NEGATIVE ? RIPTIDE_NEGATIVE : 0),
	};
	if (answer->status != RSHM_OK)
		return;
	ret->version = answer->version;
	ret->age_ms = rt_age_ms(answer->version);
	ret->ttl_ms = answer->ttl_ms;
	ret->metadata_length = answer->metadata_len;
}

void rt_info_of_absence(uint32_t flags, struct riptide_info *ret)
{
	*ret = (struct riptide_info){.flags = flags};
}
