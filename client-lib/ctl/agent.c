/* agent.c - the way to the agent: a handle of the library for data, one message on the control socket for the rest. */
#include "client-lib/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client-lib/control.h"
#include "shm/os/map.h"
#include "shm/tlv.h"

#define TOKEN_MAX 4096u

int ctl_exit_of(int code)
{
	switch (code) {
	case RIPTIDE_OK:
		return CTL_OK;
	case RIPTIDE_MISS:
		return CTL_NO;
	case RIPTIDE_EINVALID:
		return CTL_USAGE;
	case RIPTIDE_ENOAGENT:
	case RIPTIDE_ECLOSED:
		return CTL_NO_AGENT;
	case RIPTIDE_EDENIED:
	case RIPTIDE_ENOTENANT:
		return CTL_DENIED;
	case RIPTIDE_ETIMEDOUT:
		return CTL_TIMEOUT;
	default:
		return CTL_ERROR;
	}
}

int ctl_fail_handle(riptide *handle, int code)
{
	char text[RT_CONTROL_TEXT] = "";

	if (handle)
		riptide_last_error(handle, text, sizeof(text));
	return ctl_fail(ctl_exit_of(code), "%s", text[0] ? text : riptide_strerror(code));
}

/* The file's contents without the newline at its end. */
static int read_token(const char *path, char *token, size_t *ret_length)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	size_t length = 0;
	ssize_t n = 0;

	if (fd < 0)
		return ctl_fail(CTL_ERROR, "%s: %s", path, strerror(errno));
	while (length <= TOKEN_MAX && (n = read(fd, token + length, TOKEN_MAX + 1 - length)) > 0)
		length += (size_t)n;
	if (n < 0)
		ctl_fail(CTL_ERROR, "%s: %s", path, strerror(errno));
	close(fd);
	if (n < 0)
		return CTL_ERROR;
	if (length > 0 && length <= TOKEN_MAX && token[length - 1] == '\n')
		length--;
	if (length == 0 || length > TOKEN_MAX)
		return ctl_fail(CTL_USAGE, "%s: a token has 1 to %u bytes", path, TOKEN_MAX);
	*ret_length = length;
	return CTL_OK;
}

int ctl_open(const struct ctl *ctl, riptide **ret_handle)
{
	char token[TOKEN_MAX + 1];
	struct riptide_options options = {
		.size = sizeof(options),
		.socket = ctl->socket,
		.tenant = ctl->tenant,
		.timeout_ms = ctl->timeout_ms,
	};
	int status = CTL_OK;

	*ret_handle = NULL;
	if (ctl->token_file) {
		status = read_token(ctl->token_file, token, &options.token_length);
		options.token = token;
	}
	if (status == CTL_OK) {
		int code = riptide_open(&options, ret_handle);

		if (code < 0) {
			status = ctl_fail_handle(*ret_handle, code);
			riptide_close(ret_handle);
		}
	}
	explicit_bzero(token, sizeof(token));
	return status;
}

struct answer {
	json_t *document;
	char text[RT_CONTROL_TEXT];
};

/* An RSHM_E… of the agent, or of ours if the answer cannot be understood. */
static int read_answer(uint16_t op, const unsigned char *bytes, size_t length, struct answer *ret)
{
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	struct rshm_tlv tlv;
	int more, status = rshm_tlv_open(&reader, bytes, length, &header);

	if (status < 0)
		return status;
	if (header.op != op)
		return RSHM_E_PROTOCOL;
	while ((more = rshm_tlv_next(&reader, &tlv)) > 0) {
		if (tlv.tag == RSHM_TAG_ERROR_TEXT)
			(void)rshm_tlv_get_text(&tlv, ret->text, sizeof(ret->text));
		else if (tlv.tag == RSHM_TAG_JSON && !ret->document)
			ret->document = json_loadb((const char *)tlv.value, tlv.length, JSON_REJECT_DUPLICATES, NULL);
	}
	if (more < 0)
		return more;
	if (header.status == RSHM_OK && !json_is_object(ret->document))
		return RSHM_E_PROTOCOL;
	return header.status;
}

/* What an operator asked to be done and the agent refused for good reason is a negative answer, not wrong usage. */
static bool is_wish(uint16_t op)
{
	return op == RSHM_CONTROL_RELOAD || (op >= RSHM_CONTROL_DICT_LIST && op <= RSHM_CONTROL_DICT_DROP);
}

int ctl_ask_with(const struct ctl *ctl, const void *request, size_t request_length, json_t **ret_document)
{
	struct answer answer = {.document = NULL};
	struct rshm_control_header header;
	struct rshm_tlv_reader reader;
	unsigned char *bytes;
	size_t length;
	uint16_t op;
	int code;

	if (rshm_tlv_open(&reader, request, request_length, &header) < 0)
		return ctl_fail(CTL_USAGE, "%s", riptide_strerror(RIPTIDE_EINVALID));
	op = header.op;
	code = rt_control_ask(ctl->socket, request, request_length, rshm_now_ms() + ctl->timeout_ms, &bytes, &length,
			      NULL, answer.text);
	if (code == RIPTIDE_OK) {
		code = read_answer(op, bytes, length, &answer);
		free(bytes);
	}
	if (code == RSHM_OK) {
		*ret_document = answer.document;
		return CTL_OK;
	}
	json_decref(answer.document);
	return ctl_fail(is_wish(op) && code == RSHM_E_INVALID ? CTL_NO : ctl_exit_of(code), "%s",
			answer.text[0] ? answer.text : riptide_strerror(code));
}

int ctl_ask(const struct ctl *ctl, uint16_t op, json_t **ret_document)
{
	unsigned char request[64];
	struct rshm_tlv_writer writer;

	rshm_tlv_begin(&writer, request, sizeof(request), op, 0, 1);
	return ctl_ask_with(ctl, request, (size_t)rshm_tlv_finish(&writer), ret_document);
}
