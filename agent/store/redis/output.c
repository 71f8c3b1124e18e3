#include "agent/store/redis/output.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/assert.h"

#define OUTPUT_CAPACITY_FIRST 4096u
#define OUTPUT_KEEP_MAX (256u << 10) /* a larger buffer is freed once it is empty */
#define OUTPUT_COMPACT_MIN (64u << 10)
#define OUTPUT_DIGITS_MAX 20u

static char *output_room(struct redis_output *output, size_t length)
{
	size_t capacity = output->capacity != 0 ? output->capacity : OUTPUT_CAPACITY_FIRST;
	char *bytes;

	if (output->failed)
		return NULL;
	if (output->capacity - output->length >= length)
		return output->bytes + output->length;
	while (capacity - output->length < length)
		capacity *= 2;
	bytes = realloc(output->bytes, capacity);
	if (bytes == NULL) {
		output->failed = true;
		return NULL;
	}
	output->bytes = bytes;
	output->capacity = capacity;
	return bytes + output->length;
}

static void output_took(struct redis_output *output, size_t length)
{
	output->length += length;
	output->queued += length;
}

/* Writes "<sign><number>\r\n"; returns its length. */
static size_t write_line(char *to, char sign, uint64_t number)
{
	char digits[OUTPUT_DIGITS_MAX];
	size_t count = 0, length = 0;

	do {
		digits[count++] = (char)('0' + number % 10);
		number /= 10;
	} while (number != 0);
	to[length++] = sign;
	while (count > 0)
		to[length++] = digits[--count];
	to[length++] = '\r';
	to[length++] = '\n';
	return length;
}

void redis_output_command(struct redis_output *output, uint32_t count, const char *name)
{
	char *to = output_room(output, OUTPUT_DIGITS_MAX + 3);

	if (to == NULL)
		return;
	output_took(output, write_line(to, '*', count));
	redis_output_string(output, name, strlen(name));
}

void redis_output_string(struct redis_output *output, const void *bytes, size_t length)
{
	char *to = output_room(output, OUTPUT_DIGITS_MAX + 3 + length + 2);
	size_t head;

	if (to == NULL)
		return;
	head = write_line(to, '$', length);
	if (length > 0)
		memcpy(to + head, bytes, length);
	memcpy(to + head + length, "\r\n", 2);
	output_took(output, head + length + 2);
}

void redis_output_number(struct redis_output *output, uint64_t number)
{
	char line[OUTPUT_DIGITS_MAX + 3];
	size_t length = write_line(line, '$', number);

	redis_output_string(output, line + 1, length - 3);
}

static bool output_lent_room(struct redis_output *output)
{
	size_t capacity = output->lent_capacity != 0 ? output->lent_capacity * 2 : 8;
	struct redis_output_lent *lent;

	if (output->lent_count < output->lent_capacity)
		return true;
	lent = realloc(output->lent, capacity * sizeof(*lent));
	if (lent == NULL)
		return false;
	output->lent = lent;
	output->lent_capacity = capacity;
	return true;
}

void redis_output_lend(struct redis_output *output, const void *bytes, size_t length)
{
	char *to;

	if (length <= REDIS_OUTPUT_COPY_MAX) {
		redis_output_string(output, bytes, length);
		return;
	}
	to = output_room(output, OUTPUT_DIGITS_MAX + 3 + 2);
	if (to == NULL)
		return;
	if (!output_lent_room(output)) {
		output->failed = true;
		return;
	}
	output_took(output, write_line(to, '$', length));
	output->lent[output->lent_count++] =
		(struct redis_output_lent){.bytes = bytes, .length = length, .at = output->length};
	output->queued += length;
	memcpy(output->bytes + output->length, "\r\n", 2);
	output_took(output, 2);
}

struct redis_output_mark redis_output_mark(const struct redis_output *output)
{
	return (struct redis_output_mark){output->length, output->lent_count, output->queued};
}

void redis_output_rollback(struct redis_output *output, struct redis_output_mark mark)
{
	must(output->sent <= mark.queued);
	output->length = mark.length;
	output->lent_count = mark.lent_count;
	output->queued = mark.queued;
	output->failed = false;
}

size_t redis_output_vectors(const struct redis_output *output, struct iovec *vectors, size_t count)
{
	size_t position = output->position, skip = output->lent_position, used = 0;

	for (size_t i = output->lent_first; i < output->lent_count && used + 2 <= count; i++) {
		const struct redis_output_lent *lent = &output->lent[i];

		if (lent->at > position)
			vectors[used++] = (struct iovec){output->bytes + position, lent->at - position};
		vectors[used++] = (struct iovec){(char *)lent->bytes + skip, lent->length - skip};
		position = lent->at;
		skip = 0;
		if (i + 1 < output->lent_count && used + 2 > count)
			return used;
	}
	if (output->length > position && used < count)
		vectors[used++] = (struct iovec){output->bytes + position, output->length - position};
	return used;
}

/* Lets go of what is sent, so that a connection that never runs empty does not grow. */
static void output_compact(struct redis_output *output)
{
	size_t left = output->length - output->position;

	if (left == 0 && output->lent_first == output->lent_count) {
		output->length = output->position = 0;
		output->lent_first = output->lent_count = 0;
		if (output->capacity > OUTPUT_KEEP_MAX) {
			free(output->bytes);
			output->bytes = NULL;
			output->capacity = 0;
		}
		return;
	}
	if (output->position < OUTPUT_COMPACT_MIN || output->position < left)
		return;
	memmove(output->bytes, output->bytes + output->position, left);
	for (size_t i = output->lent_first; i < output->lent_count; i++) {
		output->lent[i - output->lent_first] = output->lent[i];
		output->lent[i - output->lent_first].at -= output->position;
	}
	output->lent_count -= output->lent_first;
	output->lent_first = 0;
	output->length = left;
	output->position = 0;
}

void redis_output_advance(struct redis_output *output, size_t sent)
{
	output->sent += sent;
	must(output->sent <= output->queued);
	while (sent > 0) {
		bool has_lent = output->lent_first < output->lent_count;
		size_t stop = has_lent ? output->lent[output->lent_first].at : output->length;
		size_t step = stop - output->position < sent ? stop - output->position : sent;

		output->position += step;
		sent -= step;
		if (sent == 0 || !has_lent)
			break;
		step = output->lent[output->lent_first].length - output->lent_position;
		step = step < sent ? step : sent;
		output->lent_position += step;
		sent -= step;
		if (output->lent_position == output->lent[output->lent_first].length) {
			output->lent_position = 0;
			output->lent_first++;
		}
	}
	must(sent == 0);
	output_compact(output);
}

void redis_output_reset(struct redis_output *output)
{
	free(output->bytes);
	free(output->lent);
	*output = (struct redis_output){.bytes = NULL};
}
