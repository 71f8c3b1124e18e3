/*
 * sp.h - the REP side of the SP mapping that NNG speaks over IPC: bytes in, events out.
 *
 *	hello	00 53 50 00 00 30 00 00			REQ; ours says 31, REP
 *	frame	01 | u64be length | backtrace | body	length counts backtrace and body
 *
 * The backtrace is one u32be word per hop, the last one (the request's id) with its high bit set; the answer carries the
 * same words back. Pure: no system call, no memory of its own. Any one thread at a time.
 */
#ifndef CONTROL_SP_H
#define CONTROL_SP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SP_HELLO_BYTES 8u
#define SP_HEAD_BYTES 9u
#define SP_HOPS_MAX 15u
#define SP_TRACE_MAX (SP_HOPS_MAX * 4u)

extern const unsigned char sp_hello_of_rep[SP_HELLO_BYTES];

enum sp_state { SP_STATE_HELLO, SP_STATE_HEAD, SP_STATE_TRACE, SP_STATE_BODY, SP_STATE_FAILED };

struct sp {
	uint64_t body_max;
	uint64_t left; /* bytes of this frame that have not come yet */
	enum sp_state state;
	uint32_t head_length, trace_length; /* bytes that have come */
	unsigned char head[SP_HEAD_BYTES];
	unsigned char trace[SP_TRACE_MAX]; /* of the present or the last frame */
};

enum sp_event {
	SP_EVENT_MORE,    /* all bytes used, nothing whole yet */
	SP_EVENT_HELLO,   /* the peer is a REQ socket */
	SP_EVENT_BODY,    /* a piece of a body */
	SP_EVENT_MESSAGE, /* the last piece of a body, maybe empty */
};

struct sp_step {
	size_t used;      /* bytes taken by this step; feed the rest again */
	const void *body; /* within the bytes fed; SP_EVENT_BODY and SP_EVENT_MESSAGE only */
	size_t body_length;
};

/* `body_max`: bytes that a body may have. */
void sp_init(struct sp *sp, uint64_t body_max);

/*
 * Takes bytes up to the next event: an enum sp_event, RSHM_E_PROTOCOL (no REQ peer, unknown frame, backtrace too long or not
 * ended) or RSHM_E_TOOBIG. After an error every further call is RSHM_E_PROTOCOL. Never reads beyond `length`.
 */
int sp_feed(struct sp *sp, const void *bytes, size_t length, struct sp_step *ret);

/* True after the hello and before the first byte of the next frame: the peer owes nothing. */
bool sp_is_idle(const struct sp *sp);

/* Writes what precedes an answer to the last message: at most SP_HEAD_BYTES + SP_TRACE_MAX bytes. Returns their number. */
size_t sp_answer_head(const struct sp *sp, uint64_t body_length, unsigned char *to);

#endif
