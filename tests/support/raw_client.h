/*
 * raw_client.h - a client without the library: attaches by hand and writes into its channel what it likes.
 *
 * For tests of what the agent does with clients that are broken or hostile. No function asserts; every wait is bounded.
 */
#ifndef TESTS_SUPPORT_RAW_CLIENT_H
#define TESTS_SUPPORT_RAW_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shm/channel.h"
#include "shm/os/map.h"

#define RAW_TICKET_BYTES 16u

struct raw_client {
	int bell;                     /* the doorbell connection; -1: none */
	int memfd;                    /* of the channel; -1: none */
	struct rshm_channel *channel; /* mapped read-write; NULL: none */
	uid_t agent_uid;
	unsigned char ticket[RAW_TICKET_BYTES];
	char doorbell[108], agent_object[RSHM_NAME_MAX], segment[RSHM_NAME_MAX];
	uint64_t agent_size, segment_size;
};

/* A stream to a unix socket, non-blocking; -1. */
int raw_connect(const char *path);
/* Sends all of it within a second; false if the peer does not take it. Never a signal. */
bool raw_send(int fd, const void *bytes, size_t length);
/* True if the peer hangs up within `patience_ms`; what it sends before is read and forgotten. */
bool raw_is_hung_up(int fd, long patience_ms);

/* Asks the control socket to attach; fills what the answer tells. Returns the answer's status, RSHM_E_NOAGENT without one. */
int raw_ask(struct raw_client *client, const char *socket, const char *tenant);
/* Connects to the doorbell and shows the first `length` bytes of `ticket`. RSHM_OK, or RSHM_E_NOAGENT. */
int raw_ring(struct raw_client *client, const void *ticket, size_t length);
/* Waits for the welcome and maps the channel. The status that the agent sent; RSHM_E_NOAGENT: it hung up without one. */
int raw_welcome(struct raw_client *client);
/* All three. */
int raw_attach(struct raw_client *client, const char *socket, const char *tenant);
/* Closes and unmaps what there is. */
void raw_close(struct raw_client *client);

/* Rings the bell, whether it is needed or not. */
void raw_bell(const struct raw_client *client);
/* Submits slot `number` as it stands: word SUBMITTED of `generation`, bit, bell. */
void raw_submit(struct raw_client *client, uint32_t number, uint32_t generation);
/* Waits until the slot is answered or `patience_ms` is over. */
bool raw_await(struct raw_client *client, uint32_t number, long patience_ms);

/* A whole correct request of one piece in slot `number`; the answer's status, RSHM_E_TIMEDOUT without one. */
int raw_request(struct raw_client *client, uint32_t number, const struct rshm_request *request, const void *body,
		struct rshm_answer *ret_answer);
/* A request of op with this key and value, complete but deadline. */
struct rshm_request raw_fields(uint16_t op, size_t key_length, size_t value_length);

#endif
