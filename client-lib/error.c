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
SAME(CONFLICT);
SAME_ERROR(INVALID);
SAME_ERROR(TOOBIG);
SAME_ERROR(TOOSMALL);
SAME_ERROR(DENIED);
SAME_ERROR(NOTENANT);
SAME_ERROR(UNSUPPORTED);
SAME_ERROR(CLOSED);
SAME_ERROR(QUOTA);
SAME_ERROR(AGAIN);
SAME_ERROR(UNKNOWN);
SAME_ERROR(TIMEDOUT);
SAME_ERROR(NOAGENT);
SAME_ERROR(BACKEND);
SAME_ERROR(NOMEM);
SAME_ERROR(STALE);
SAME_ERROR(VOID);
SAME_ERROR(LIMITED);
SAME_ERROR(CORRUPT);
SAME_ERROR(FORMAT);
SAME_ERROR(PROTOCOL);
SAME_ERROR(SYSTEM);
SAME_ERROR(FULL);
SAME_ERROR(NODICT);
SAME_ERROR(NOKEY);

enum category {
	NONE,
	RIPTIDE,
	CACHE,
	TENANT_ACCESS,
	CONFIGURATION,
	STATE,
	COORDINATION,
	TIMEOUT,
	REDIS,
	PERFORMANCE,
	DATA_INTEGRITY,
	SERIALIZATION,
	GENERIC,
	FILESYSTEM,
	COMPRESSION,
	QUOTA
};

static const char categories[][15] = {
	[NONE] = "none",
	[RIPTIDE] = "riptide",
	[CACHE] = "cache",
	[TENANT_ACCESS] = "tenant_access",
	[CONFIGURATION] = "configuration",
	[STATE] = "state",
	[COORDINATION] = "coordination",
	[TIMEOUT] = "timeout",
	[REDIS] = "redis",
	[PERFORMANCE] = "performance",
	[DATA_INTEGRITY] = "data_integrity",
	[SERIALIZATION] = "serialization",
	[GENERIC] = "generic",
	[FILESYSTEM] = "filesystem",
	[COMPRESSION] = "compression",
	[QUOTA] = "quota",
};

/* number, whether it may be retried, category, text; the last one stands for all others */
#define CODES(CODE)                                                                                     \
	CODE(RIPTIDE_OK, 0, NONE, "no error")                                                           \
	CODE(RIPTIDE_MISS, 0, NONE, "the key is not there")                                             \
	CODE(RIPTIDE_CONFLICT, 0, NONE, "the condition does not hold; nothing was changed")             \
	CODE(RIPTIDE_EINVALID, 0, RIPTIDE, "an argument cannot be served")                              \
	CODE(RIPTIDE_ETOOBIG, 0, CACHE, "key, metadata, value or batch is above its limit")             \
	CODE(RIPTIDE_ETOOSMALL, 0, CACHE, "the buffer is too small")                                    \
	CODE(RIPTIDE_EDENIED, 0, TENANT_ACCESS, "this user, token or policy may not")                   \
	CODE(RIPTIDE_ENOTENANT, 0, TENANT_ACCESS, "no such tenant, or not for this user")               \
	CODE(RIPTIDE_EUNSUPPORTED, 0, CONFIGURATION, "agent and library do not speak the same version") \
	CODE(RIPTIDE_ECLOSED, 0, STATE, "the handle is closed, or the agent shuts down")                \
	CODE(RIPTIDE_EQUOTA, 0, QUOTA, "a quota of the tenant is used up; nothing was changed")         \
	CODE(RIPTIDE_EAGAIN, 1, COORDINATION, "nothing was changed; try again")                         \
	CODE(RIPTIDE_EUNKNOWN, 0, CACHE, "the write may or may not have happened")                      \
	CODE(RIPTIDE_ETIMEDOUT, 1, TIMEOUT, "the deadline passed; nothing was changed")                 \
	CODE(RIPTIDE_ENOAGENT, 1, COORDINATION, "no agent answers on the socket")                       \
	CODE(RIPTIDE_EBACKEND, 1, REDIS, "the store answered with an error of its own")                 \
	CODE(RIPTIDE_ENOMEM, 0, PERFORMANCE, "no memory")                                               \
	CODE(RIPTIDE_ESTALE, 0, CACHE, "only an unverified copy exists; policy refuses it")             \
	CODE(RIPTIDE_EVOID, 0, CACHE, "the view's bytes were reclaimed while it was held")              \
	CODE(RIPTIDE_ELIMITED, 1, COORDINATION, "a rate limit of the tenant; try again later")          \
	CODE(RIPTIDE_ECORRUPT, 0, DATA_INTEGRITY, "the stored entry failed its checks")                 \
	CODE(RIPTIDE_EFORMAT, 0, SERIALIZATION, "the stored entry is of a newer format")                \
	CODE(RIPTIDE_EPROTOCOL, 0, RIPTIDE, "agent and library misunderstood each other")               \
	CODE(RIPTIDE_ESYSTEM, 0, GENERIC, "a system call failed")                                       \
	CODE(RIPTIDE_EFULL, 0, FILESYSTEM, "the store has no room left")                                \
	CODE(RIPTIDE_ENODICT, 0, COMPRESSION, "the dictionary of the stored entry is not there")        \
	CODE(RIPTIDE_ENOKEY, 0, CONFIGURATION, "the agent does not have the key of the stored entry")   \
	CODE(0, 0, GENERIC, "unknown error")

struct code {
	signed char number;
	bool is_retryable;
	unsigned char category; /* enum category */
};

#define AS_CODE(number, is_retryable, category, text) {number, is_retryable, category},
#define AS_TEXT(number, is_retryable, category, text) text "\0"
static const struct code codes[] = {CODES(AS_CODE)};
/* One behind the other, in the same order: pointers would have to be relocated, and arrays would have gaps. */
static const char texts[] = CODES(AS_TEXT);

static size_t find_code(int number)
{
	size_t i = 0;

	while (i < sizeof(codes) / sizeof(codes[0]) - 1 && codes[i].number != number)
		i++;
	return i;
}

const char *rt_strerror(int code)
{
	const char *text = texts;

	for (size_t i = find_code(code); i > 0; i--)
		text += strlen(text) + 1;
	return text;
}

const char *riptide_strerror(int code)
{
	return rt_strerror(code);
}

const char *riptide_error_category(int code)
{
	return categories[codes[find_code(code)].category];
}

int riptide_error_is_retryable(int code)
{
	return codes[find_code(code)].is_retryable;
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
		       text && text[0] ? text : rt_strerror(code));
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

int rt_check_open(riptide *handle, const char *verb)
{
	if (!rt_handle_is_valid(handle))
		return RIPTIDE_EINVALID;
	if (!handle->is_open)
		return rt_fail(handle, RIPTIDE_ECLOSED, verb, NULL, 0, "the handle was not opened successfully");
	return RIPTIDE_OK;
}

int rt_check_key(riptide *handle, const char *verb, const void *key, size_t key_length)
{
	int status = rt_check_open(handle, verb);

	if (status < 0)
		return status;
	if (!key || key_length == 0)
		return rt_fail(handle, RIPTIDE_EINVALID, verb, NULL, 0, "a key has at least one byte");
	if (key_length > RSHM_KEY_MAX)
		return rt_fail(handle, RIPTIDE_ETOOBIG, verb, key, key_length, "a key has at most 65535 bytes");
	return RIPTIDE_OK;
}
