/*
 * dictionary_sampler.h - keeps a fair choice of the values written, to train dictionaries from.
 *
 * Per tenant and content type a reservoir of samples within a bound of bytes; when it is full, newer values replace random
 * ones ever more rarely, so that each value written had about the same chance to be there.
 *
 * Samples are plain values of a tenant: they stay in this process's memory, and dictionaries made of them may hold pieces of
 * them.
 */
#ifndef RIPTIDE_STORE_DICTIONARY_SAMPLER_H
#define RIPTIDE_STORE_DICTIONARY_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "agent/store/dictionary.h"

#define DICTIONARY_SAMPLE_MIN 64u /* bytes; shorter values are not sampled */

struct dictionary_sampler;

struct dictionary_sampler_options {
	size_t stream_bytes; /* samples of one tenant and content type; 0 = 2 MiB */
	size_t stream_max; /* pairs of tenant and content type; 0 = 16. Times stream_bytes is the bound of it all. */
	size_t sample_max; /* longer values are not sampled; 0 = 16 KiB; at most stream_bytes */
	uint64_t idle_ms;  /* a new pair takes the place of one that got nothing for so long; 0 = 60 000 */
};

struct dictionary_stream {
	char tenant[RSHM_TENANT_MAX + 1];
	char content_type[DICTIONARY_TYPE_MAX + 1];
	size_t count, bytes; /* samples kept */
	uint64_t seen;       /* values that could have been sampled */
};

/* What dictionary_training wants; dictionary_samples_fini(). */
struct dictionary_samples {
	void *bytes;
	size_t *sizes;
	size_t count, total;
};

/* RSHM_E_INVALID, RSHM_E_NOMEM. */
int dictionary_sampler_create(const struct dictionary_sampler_options *options, struct dictionary_sampler **ret);
void dictionary_sampler_destroy(struct dictionary_sampler **sampler);

/*
 * Offers a value; any thread, for each value written. Never waits: if another thread is inside, the value is passed over.
 * So it is if it is too short or long, a name is too long, or memory is short. No content type is length 0.
 */
void dictionary_sampler_feed(struct dictionary_sampler *sampler, const char *tenant, const char *content_type,
			     size_t content_type_len, const void *value, size_t value_len);

/* Copies the samples of a pair; any thread; feeders pass over meanwhile. RSHM_MISS (no such pair), RSHM_E_NOMEM. */
int dictionary_sampler_copy(struct dictionary_sampler *sampler, const char *tenant, const char *content_type,
			    struct dictionary_samples *ret);
void dictionary_samples_fini(struct dictionary_samples *samples);

/* Forgets a pair's samples, for example once it was trained and new ones are to count. RSHM_MISS. */
int dictionary_sampler_forget(struct dictionary_sampler *sampler, const char *tenant, const char *content_type);

/* Describes up to `capacity` pairs; returns how many there are. */
size_t dictionary_sampler_list(struct dictionary_sampler *sampler, struct dictionary_stream *streams,
			       size_t capacity);

#endif
