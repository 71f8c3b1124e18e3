/*
 * sp.c - the framing as a state machine.
 *
 *	HELLO --8 bytes--> HEAD --9 bytes--> TRACE --word with high bit--> BODY --last byte--> HEAD
 *	                     any wrong byte: FAILED, for good
 *
 * A length is checked before anything depends on it: against the limit as soon as the head is whole, and against the
 * backtrace that must fit into it. Nothing is stored but the 9 bytes of a head and the backtrace, so a peer that
 * announces much and sends nothing costs nothing here.
 */
#include "agent/control/sp.h"

#include <string.h>

#include "agent/base/assert.h"
#include "shm/msg.h"

#define SP_TYPE_MESSAGE 1u
#define SP_WORD 4u
#define SP_LAST_HOP 0x80u

static const unsigned char hello_of_req[SP_HELLO_BYTES] = {0x00, 'S', 'P', 0x00, 0x00, 0x30, 0x00, 0x00};
const unsigned char sp_hello_of_rep[SP_HELLO_BYTES] = {0x00, 'S', 'P', 0x00, 0x00, 0x31, 0x00, 0x00};

void sp_init(struct sp *sp, uint64_t body_max)
{
	must(body_max < UINT64_MAX - SP_TRACE_MAX);
	*sp = (struct sp){.body_max = body_max, .state = SP_STATE_HELLO};
}

bool sp_is_idle(const struct sp *sp)
{
	return sp->state == SP_STATE_HEAD && sp->head_length == 0;
}

static int sp_fail(struct sp *sp, int status)
{
	sp->state = SP_STATE_FAILED;
	return status;
}

/* Fails at the first wrong byte, not after the eighth: a peer of another kind may never send that many. */
static int take_hello(struct sp *sp, unsigned char byte)
{
	if (byte != hello_of_req[sp->head_length])
		return sp_fail(sp, RSHM_E_PROTOCOL);
	if (++sp->head_length < SP_HELLO_BYTES)
		return SP_EVENT_MORE;
	sp->head_length = 0;
	sp->state = SP_STATE_HEAD;
	return SP_EVENT_HELLO;
}

static int take_head(struct sp *sp, unsigned char byte)
{
	uint64_t length = 0;

	sp->head[sp->head_length++] = byte;
	if (sp->head[0] != SP_TYPE_MESSAGE)
		return sp_fail(sp, RSHM_E_PROTOCOL);
	if (sp->head_length < SP_HEAD_BYTES)
		return SP_EVENT_MORE;
	for (size_t i = 1; i < SP_HEAD_BYTES; i++)
		length = length << 8 | sp->head[i];
	if (length < SP_WORD)
		return sp_fail(sp, RSHM_E_PROTOCOL);
	if (length > sp->body_max + SP_TRACE_MAX)
		return sp_fail(sp, RSHM_E_TOOBIG);
	sp->left = length;
	sp->trace_length = 0;
	sp->state = SP_STATE_TRACE;
	return SP_EVENT_MORE;
}

static int take_trace(struct sp *sp, unsigned char byte)
{
	bool last;

	sp->trace[sp->trace_length++] = byte;
	sp->left--;
	if (sp->trace_length % SP_WORD != 0)
		return sp->left == 0 ? sp_fail(sp, RSHM_E_PROTOCOL) : SP_EVENT_MORE;
	last = (sp->trace[sp->trace_length - SP_WORD] & SP_LAST_HOP) != 0;
	if (!last && (sp->left < SP_WORD || sp->trace_length == SP_TRACE_MAX))
		return sp_fail(sp, RSHM_E_PROTOCOL);
	if (!last)
		return SP_EVENT_MORE;
	if (sp->left > sp->body_max)
		return sp_fail(sp, RSHM_E_TOOBIG);
	sp->head_length = 0;
	sp->state = sp->left > 0 ? SP_STATE_BODY : SP_STATE_HEAD;
	return sp->left > 0 ? SP_EVENT_MORE : SP_EVENT_MESSAGE;
}

static int take_byte(struct sp *sp, unsigned char byte)
{
	switch (sp->state) {
	case SP_STATE_HELLO:
		return take_hello(sp, byte);
	case SP_STATE_HEAD:
		return take_head(sp, byte);
	case SP_STATE_TRACE:
		return take_trace(sp, byte);
	default:
		return RSHM_E_PROTOCOL;
	}
}

int sp_feed(struct sp *sp, const void *bytes, size_t length, struct sp_step *ret)
{
	const unsigned char *from = bytes;
	int event = sp->state == SP_STATE_FAILED ? RSHM_E_PROTOCOL : SP_EVENT_MORE;
	size_t used = 0;

	while (event == SP_EVENT_MORE && used < length && sp->state != SP_STATE_BODY)
		event = take_byte(sp, from[used++]);
	*ret = (struct sp_step){.used = used, .body = from + used};
	if (event != SP_EVENT_MORE || sp->state != SP_STATE_BODY || used == length)
		return event;
	ret->body_length = length - used < sp->left ? length - used : (size_t)sp->left;
	ret->used += ret->body_length;
	sp->left -= ret->body_length;
	if (sp->left > 0)
		return SP_EVENT_BODY;
	sp->state = SP_STATE_HEAD;
	return SP_EVENT_MESSAGE;
}

size_t sp_answer_head(const struct sp *sp, uint64_t body_length, unsigned char *to)
{
	uint64_t length = sp->trace_length + body_length;

	must(sp->trace_length >= SP_WORD && sp->trace_length <= SP_TRACE_MAX);
	to[0] = SP_TYPE_MESSAGE;
	for (size_t i = 0; i < 8; i++)
		to[1 + i] = (unsigned char)(length >> (8 * (7 - i)));
	memcpy(to + SP_HEAD_BYTES, sp->trace, sp->trace_length);
	return SP_HEAD_BYTES + sp->trace_length;
}
