/*
 * A reservoir whose bound is bytes, not a number: while there is room a value is taken; then the n-th value is taken with
 * the chance (samples kept) / n, and random ones leave until it fits. Where lengths differ that favours none by its length,
 * and keeps a little fewer of the older ones than exact sampling would; dictionaries do not mind.
 *
 * What a sample costs besides its bytes is counted with them: else many small ones would take twice the bound.
 *
 * Feeding is for every write, so it only tries the lock, draws before it copies, and looks for its stream by one hash.
 */
#include "agent/store/dictionary_sampler.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/assert.h"
#include "agent/base/clock.h"

#define SAMPLER_STREAM_BYTES (2u << 20)
#define SAMPLER_STREAM_BYTES_MAX (64u << 20)
#define SAMPLER_STREAM_MAX 16u
#define SAMPLER_STREAM_LIMIT 1024u
#define SAMPLER_SAMPLE_MAX (16u << 10)
#define SAMPLER_IDLE_MS 60000u
#define SAMPLE_OVERHEAD 48u /* bytes: two slots, since their array doubles, and the allocator's */

struct sample {
	void *bytes;
	size_t length;
};

struct stream {
	uint64_t hash;
	uint64_t fed_ms; /* monotonic */
	size_t cost;     /* bytes of all samples, with overhead */
	size_t slots;    /* room in `samples` */
	struct sample *samples;
	struct dictionary_stream about;
};

struct dictionary_sampler {
	struct dictionary_sampler_options options; /* set once, no zeros left */

	pthread_mutex_t lock;
	/* under lock */
	uint64_t random;
	size_t count;
	struct stream streams[];
};

/* xorshift64*: good enough to choose samples. */
static uint64_t draw(struct dictionary_sampler *sampler, uint64_t below)
{
	uint64_t x = sampler->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	sampler->random = x;
	return (x * 2685821657736338717ull >> 16) % below;
}

int dictionary_sampler_create(const struct dictionary_sampler_options *options, struct dictionary_sampler **ret)
{
	struct dictionary_sampler_options full = *options;
	struct dictionary_sampler *sampler;

	full.stream_bytes = full.stream_bytes != 0 ? full.stream_bytes : SAMPLER_STREAM_BYTES;
	full.stream_max = full.stream_max != 0 ? full.stream_max : SAMPLER_STREAM_MAX;
	full.sample_max = full.sample_max != 0 ? full.sample_max : SAMPLER_SAMPLE_MAX;
	full.idle_ms = full.idle_ms != 0 ? full.idle_ms : SAMPLER_IDLE_MS;
	if (full.stream_bytes > SAMPLER_STREAM_BYTES_MAX || full.stream_max > SAMPLER_STREAM_LIMIT ||
	    full.sample_max > full.stream_bytes || full.stream_bytes - full.sample_max < SAMPLE_OVERHEAD)
		return RSHM_E_INVALID;
	sampler = calloc(1, sizeof(*sampler) + full.stream_max * sizeof(struct stream));
	if (sampler == NULL)
		return RSHM_E_NOMEM;
	sampler->options = full;
	randombytes_buf(&sampler->random, sizeof(sampler->random));
	sampler->random |= 1;
	must(pthread_mutex_init(&sampler->lock, NULL) == 0);
	*ret = sampler;
	return RSHM_OK;
}

static void stream_clear(struct stream *stream)
{
	for (size_t i = 0; i < stream->about.count; i++)
		free(stream->samples[i].bytes);
	free(stream->samples);
	*stream = (struct stream){0};
}

void dictionary_sampler_destroy(struct dictionary_sampler **sampler)
{
	struct dictionary_sampler *old = *sampler;

	*sampler = NULL;
	if (old == NULL)
		return;
	for (size_t i = 0; i < old->count; i++)
		stream_clear(&old->streams[i]);
	must(pthread_mutex_destroy(&old->lock) == 0);
	free(old);
}

/* ---- feeding ------------------------------------------------------------------------------------------------ */

static uint64_t names_hash(const char *tenant, const char *type, size_t type_len)
{
	return XXH3_64bits_withSeed(type, type_len, XXH3_64bits(tenant, strlen(tenant)));
}

static struct stream *stream_find(struct dictionary_sampler *sampler, uint64_t hash, const char *tenant,
				  const char *type, size_t type_len)
{
	for (size_t i = 0; i < sampler->count; i++) {
		struct stream *stream = &sampler->streams[i];

		if (stream->hash == hash && strcmp(stream->about.tenant, tenant) == 0 &&
		    strlen(stream->about.content_type) == type_len &&
		    memcmp(stream->about.content_type, type, type_len) == 0)
			return stream;
	}
	return NULL;
}

/* A place for a new pair, or NULL while all are in use. */
static struct stream *stream_place(struct dictionary_sampler *sampler, uint64_t now_ms)
{
	struct stream *oldest = &sampler->streams[0];

	if (sampler->count < sampler->options.stream_max)
		return &sampler->streams[sampler->count++];
	for (size_t i = 1; i < sampler->count; i++)
		if (sampler->streams[i].fed_ms < oldest->fed_ms)
			oldest = &sampler->streams[i];
	if (now_ms - oldest->fed_ms < sampler->options.idle_ms)
		return NULL;
	stream_clear(oldest);
	return oldest;
}

static struct stream *stream_of(struct dictionary_sampler *sampler, const char *tenant, const char *type,
				size_t type_len)
{
	uint64_t hash = names_hash(tenant, type, type_len), now_ms = clock_monotonic_ms();
	struct stream *stream = stream_find(sampler, hash, tenant, type, type_len);

	if (stream == NULL) {
		stream = stream_place(sampler, now_ms);
		if (stream == NULL)
			return NULL;
		stream->hash = hash;
		memcpy(stream->about.tenant, tenant, strlen(tenant) + 1);
		memcpy(stream->about.content_type, type, type_len);
	}
	stream->fed_ms = now_ms;
	return stream;
}

static void stream_remove(struct stream *stream, size_t index)
{
	struct sample *sample = &stream->samples[index];

	stream->cost -= sample->length + SAMPLE_OVERHEAD;
	stream->about.bytes -= sample->length;
	free(sample->bytes);
	*sample = stream->samples[--stream->about.count];
}

static void stream_append(struct stream *stream, const void *value, size_t value_len)
{
	void *bytes = malloc(value_len);

	if (bytes == NULL)
		return;
	if (stream->about.count == stream->slots) {
		size_t slots = stream->slots != 0 ? 2 * stream->slots : 64;
		struct sample *samples = realloc(stream->samples, slots * sizeof(*samples));

		if (samples == NULL) {
			free(bytes);
			return;
		}
		stream->samples = samples;
		stream->slots = slots;
	}
	memcpy(bytes, value, value_len);
	stream->samples[stream->about.count].bytes = bytes;
	stream->samples[stream->about.count].length = value_len;
	stream->about.count++;
	stream->cost += value_len + SAMPLE_OVERHEAD;
	stream->about.bytes += value_len;
}

static void stream_offer(struct dictionary_sampler *sampler, struct stream *stream, const void *value,
			 size_t value_len)
{
	size_t cost = value_len + SAMPLE_OVERHEAD, bound = sampler->options.stream_bytes;

	stream->about.seen++;
	if (stream->cost + cost > bound && draw(sampler, stream->about.seen) >= stream->about.count)
		return;
	while (stream->cost + cost > bound)
		stream_remove(stream, draw(sampler, stream->about.count));
	stream_append(stream, value, value_len);
}

void dictionary_sampler_feed(struct dictionary_sampler *sampler, const char *tenant, const char *content_type,
			     size_t content_type_len, const void *value, size_t value_len)
{
	struct stream *stream;

	if (content_type_len == 0)
		content_type = "";
	if (value_len < DICTIONARY_SAMPLE_MIN || value_len > sampler->options.sample_max ||
	    content_type_len > DICTIONARY_TYPE_MAX || strlen(tenant) > RSHM_TENANT_MAX ||
	    memchr(content_type, '\0', content_type_len) != NULL)
		return;
	if (pthread_mutex_trylock(&sampler->lock) != 0)
		return;
	stream = stream_of(sampler, tenant, content_type, content_type_len);
	if (stream != NULL)
		stream_offer(sampler, stream, value, value_len);
	pthread_mutex_unlock(&sampler->lock);
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static int stream_copy(const struct stream *stream, struct dictionary_samples *ret)
{
	struct dictionary_samples copy = {.count = stream->about.count, .total = stream->about.bytes};
	size_t offset = 0;

	copy.bytes = malloc(copy.total + 1);
	copy.sizes = malloc((copy.count + 1) * sizeof(*copy.sizes));
	if (copy.bytes == NULL || copy.sizes == NULL) {
		dictionary_samples_fini(&copy);
		return RSHM_E_NOMEM;
	}
	for (size_t i = 0; i < copy.count; i++) {
		memcpy((unsigned char *)copy.bytes + offset, stream->samples[i].bytes, stream->samples[i].length);
		copy.sizes[i] = stream->samples[i].length;
		offset += copy.sizes[i];
	}
	must(offset == copy.total);
	*ret = copy;
	return RSHM_OK;
}

int dictionary_sampler_copy(struct dictionary_sampler *sampler, const char *tenant, const char *content_type,
			    struct dictionary_samples *ret)
{
	size_t type_len = strlen(content_type);
	const struct stream *stream;
	int status;

	pthread_mutex_lock(&sampler->lock);
	stream = stream_find(sampler, names_hash(tenant, content_type, type_len), tenant, content_type, type_len);
	status = stream != NULL ? stream_copy(stream, ret) : RSHM_MISS;
	pthread_mutex_unlock(&sampler->lock);
	return status;
}

void dictionary_samples_fini(struct dictionary_samples *samples)
{
	free(samples->bytes);
	free(samples->sizes);
	*samples = (struct dictionary_samples){0};
}

int dictionary_sampler_forget(struct dictionary_sampler *sampler, const char *tenant, const char *content_type)
{
	size_t type_len = strlen(content_type);
	struct stream *stream;

	pthread_mutex_lock(&sampler->lock);
	stream = stream_find(sampler, names_hash(tenant, content_type, type_len), tenant, content_type, type_len);
	if (stream != NULL) {
		stream_clear(stream);
		*stream = sampler->streams[--sampler->count];
		sampler->streams[sampler->count] = (struct stream){0};
	}
	pthread_mutex_unlock(&sampler->lock);
	return stream != NULL ? RSHM_OK : RSHM_MISS;
}

size_t dictionary_sampler_list(struct dictionary_sampler *sampler, struct dictionary_stream *streams, size_t capacity)
{
	size_t count;

	pthread_mutex_lock(&sampler->lock);
	count = sampler->count;
	for (size_t i = 0; i < count && i < capacity; i++)
		streams[i] = sampler->streams[i].about;
	pthread_mutex_unlock(&sampler->lock);
	return count;
}
