/*
 * error.c - codes, their categories, and the one error text of a handle.
 *
 * The public codes are the numbers of shm/msg.h under other names; the assertions below hold them together. The categories
 * are the strings that metrics and logs of the system name; of them exactly "redis", "timeout" and "coordination" mean
 * passing trouble, so that riptide_error_is_retryable() and a look at the category agree.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "client-lib/riptide_priv.h"

#define SHOWN_KEY 48u /* bytes of a key that an error text shows */

#define SAME(name) _Static_assert(RIPTIDE_##name == RSHM_##name, "one number, two names")
#define SAME_ERROR(name) _Static_assert((int)RIPTIDE_E##name == (int)RSHM_E_##name, "one number, two names")
SAME(OK);
SAME(MISS);
SAME_ERROR(INVALID);
SAME_ERROR(TOOBIG);
SAME_ERROR(TOOSMALL);
SAME_ERROR(DENIED);
SAME_ERROR(NOTENANT);
SAME_ERROR(UNSUPPORTED);
SAME_ERROR(CLOSED);
SAME_ERROR(AGAIN);
SAME_ERROR(UNKNOWN);
SAME_ERROR(TIMEDOUT);
SAME_ERROR(NOAGENT);
SAME_ERROR(BACKEND);
SAME_ERROR(NOMEM);
SAME_ERROR(STALE);
SAME_ERROR(VOID);
SAME_ERROR(CORRUPT);
SAME_ERROR(FORMAT);
SAME_ERROR(PROTOCOL);
SAME_ERROR(SYSTEM);
SAME_ERROR(FULL);

struct code {
	int number;
	int is_retryable;
	const char *category, *text;
};

static const struct code codes[] = {
	{RIPTIDE_OK, 0, "none", "no error"},
	{RIPTIDE_MISS, 0, "none", "the key is not there"},
	{RIPTIDE_EINVALID, 0, "riptide", "an argument cannot be served"},
	{RIPTIDE_ETOOBIG, 0, "cache", "key, metadata, value or batch is above its limit"},
	{RIPTIDE_ETOOSMALL, 0, "cache", "the buffer is too small"},
	{RIPTIDE_EDENIED, 0, "tenant_access", "this user, token or policy may not"},
	{RIPTIDE_ENOTENANT, 0, "tenant_access", "no such tenant, or not for this user"},
	{RIPTIDE_EUNSUPPORTED, 0, "configuration", "agent and library do not speak the same version"},
	{RIPTIDE_ECLOSED, 0, "state", "the handle is closed, or the agent is shutting down"},
	{RIPTIDE_EAGAIN, 1, "coordination", "nothing was changed; try again"},
	{RIPTIDE_EUNKNOWN, 0, "cache", "the write may or may not have happened"},
	{RIPTIDE_ETIMEDOUT, 1, "timeout", "the deadline passed; nothing was changed"},
	{RIPTIDE_ENOAGENT, 1, "coordination", "no agent answers on the socket"},
	{RIPTIDE_EBACKEND, 1, "redis", "the store answered with an error of its own"},
	{RIPTIDE_ENOMEM, 0, "performance", "no memory"},
	{RIPTIDE_ESTALE, 0, "cache", "only an unverified copy exists and the tenant's policy refuses it"},
	{RIPTIDE_EVOID, 0, "cache", "the view's bytes were reclaimed while it was held"},
	{RIPTIDE_ECORRUPT, 0, "data_integrity", "the stored entry failed its checks"},
	{RIPTIDE_EFORMAT, 0, "serialization", "the stored entry is of a newer format"},
	{RIPTIDE_EPROTOCOL, 0, "riptide", "agent and library misunderstood each other"},
	{RIPTIDE_ESYSTEM, 0, "generic", "a system call failed"},
	{RIPTIDE_EFULL, 0, "filesystem", "the store has no room left"},
};

static const struct code *find_code(int number)
{
	static const struct code unknown = {0, 0, "generic", "unknown error"};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (codes[i].number == number)
			return &codes[i];
	return &unknown;
}

const char *riptide_strerror(int code)
{
	return find_code(code)->text;
}

const char *riptide_error_category(int code)
{
	return find_code(code)->category;
}

int riptide_error_is_retryable(int code)
{
	return find_code(code)->is_retryable;
}

const char *riptide_version(void)
{
	return RIPTIDE_VERSION;
}

int rt_trouble(char *trouble, int code, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(trouble, RT_TEXT, format, arguments);
	va_end(arguments);
	return code;
}

/* Shows a key's first bytes: what is not printable as \xNN. Returns the characters written. */
static size_t show_key(char *to, size_t capacity, const unsigned char *key, size_t key_length)
{
	static const char hex[] = "0123456789abcdef";
	size_t shown = key_length < SHOWN_KEY ? key_length : SHOWN_KEY, n = 0;

	to[n++] = '"';
	for (size_t i = 0; i < shown && n + 8 < capacity; i++) {
		if (key[i] >= ' ' && key[i] < 127 && key[i] != '"' && key[i] != '\\') {
			to[n++] = (char)key[i];
			continue;
		}
		to[n++] = '\\';
		to[n++] = 'x';
		to[n++] = hex[key[i] >> 4];
		to[n++] = hex[key[i] & 15];
	}
	to[n++] = '"';
	if (shown < key_length)
		n += (size_t)snprintf(to + n, capacity - n, "...");
	to[n] = '\0';
	return n;
}

int rt_fail(riptide *handle, int code, const char *verb, const void *key, size_t key_length, const char *text)
{
	struct rt_process *process = handle->process;
	char shown[4 * SHOWN_KEY + 16] = "";

	if (key && key_length) {
		shown[0] = ' ';
		(void)show_key(shown + 1, sizeof(shown) - 1, key, key_length);
	}
	pthread_mutex_lock(&process->error_lock);
	process->error_code = code;
	(void)snprintf(process->error_text, sizeof(process->error_text), "%s%s: %s", verb, shown,
		       text && text[0] ? text : riptide_strerror(code));
	pthread_mutex_unlock(&process->error_lock);
	return code;
}

int riptide_last_error(riptide *handle, char *buffer, size_t capacity)
{
	struct rt_process *process;
	int code;

	if (!rt_handle_is_valid(handle) || (!buffer && capacity))
		return RIPTIDE_EINVALID;
	process = handle->process;
	pthread_mutex_lock(&process->error_lock);
	code = process->error_code;
	if (capacity)
		(void)snprintf(buffer, capacity, "%s", process->error_text);
	pthread_mutex_unlock(&process->error_lock);
	return code;
}

int rt_check_key(riptide *handle, const char *verb, const void *key, size_t key_length)
{
	if (!rt_handle_is_valid(handle))
		return RIPTIDE_EINVALID;
	if (!handle->is_open)
		return rt_fail(handle, RIPTIDE_ECLOSED, verb, NULL, 0, "the handle was not opened successfully");
	if (!key || key_length == 0)
		return rt_fail(handle, RIPTIDE_EINVALID, verb, NULL, 0, "a key has at least one byte");
	if (key_length > RSHM_KEY_MAX)
		return rt_fail(handle, RIPTIDE_ETOOBIG, verb, key, key_length, "a key has at most 65535 bytes");
	return RIPTIDE_OK;
}
