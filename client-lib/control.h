/*
 * control.h - the client's end of the control socket: SP REQ over an AF_UNIX stream, as NNG speaks it.
 *
 * For the library and riptidectl. No function blocks beyond its deadline (CLOCK_MONOTONIC_COARSE, ms) or raises a signal.
 * Errors are RIPTIDE_E…, with a text for people in `trouble`, RT_CONTROL_TEXT bytes.
 */
#ifndef RIPTIDE_CONTROL_H
#define RIPTIDE_CONTROL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RT_CONTROL_TEXT 320u
#define RT_CONTROL_ANSWER_MAX (16u << 20) /* bytes that an answer may have */

/* Connects a stream to `path`; *ret_uid is the peer's user as the kernel knows it. RIPTIDE_ENOAGENT: nobody listens. */
int rt_stream_connect(const char *path, uint64_t deadline_ms, int *ret_fd, uid_t *ret_uid, char *trouble);

/* Sends or receives exactly `length` bytes. RIPTIDE_ENOAGENT: the peer hung up; RIPTIDE_ETIMEDOUT. */
int rt_stream_send(int fd, const void *bytes, size_t length, uint64_t deadline_ms, char *trouble);
int rt_stream_receive(int fd, void *bytes, size_t length, uint64_t deadline_ms, char *trouble);

/* Waits until `events` of poll(2) are there. */
int rt_stream_wait(int fd, short events, uint64_t deadline_ms, char *trouble);

/* Exchanges the hellos of REQ and REP on a fresh stream. RIPTIDE_EPROTOCOL: the peer is no REP socket. */
int rt_control_hello(int fd, uint64_t deadline_ms, char *trouble);

/*
 * One request and its answer. `body` is a whole control message (rshm_tlv_finish()). *ret_answer is to be freed. Answers to
 * other requests are passed over. Sent once, never again.
 */
int rt_control_call(int fd, const void *body, size_t length, uint64_t deadline_ms, unsigned char **ret_answer,
		    size_t *ret_length, char *trouble);

/* All of it: connect, hello, call, close. `ret_uid` may be NULL. */
int rt_control_ask(const char *path, const void *body, size_t length, uint64_t deadline_ms,
		   unsigned char **ret_answer, size_t *ret_length, uid_t *ret_uid, char *trouble);

#endif
