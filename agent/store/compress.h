/*
 * compress.h - lz4 and zstd behind one door: nothing else in the agent calls or includes them.
 *
 * `make COMPRESSION=0` builds without the libraries. Every function is there all the same: compressing gives 0 bytes
 * ("store it plain"), everything else RSHM_E_FORMAT.
 *
 * No function logs; all may be called from any thread. Only compress_train() takes longer than its input's length explains.
 */
#ifndef RIPTIDE_STORE_COMPRESS_H
#define RIPTIDE_STORE_COMPRESS_H

#include <stddef.h>

#ifndef RIPTIDE_COMPRESSION
#define RIPTIDE_COMPRESSION 1
#endif

#define COMPRESS_LZ4_ACCELERATION_DEFAULT 1
#define COMPRESS_LZ4_ACCELERATION_MAX 64
#define COMPRESS_ZSTD_LEVEL_DEFAULT 3
#define COMPRESS_ZSTD_LEVEL_MIN (-7)
#define COMPRESS_ZSTD_LEVEL_MAX 19

/* A zstd dictionary, prepared for both directions. Immutable, so that any number of threads may use it at once. */
struct compress_dictionary;

/* Room that the two functions below never exceed. `length` <= ENVELOPE_VALUE_MAX. */
size_t compress_lz4_bound(size_t length);
size_t compress_zstd_bound(size_t length);

/*
 * Compresses into `to`, which has `capacity` bytes. Returns the bytes written, 0 if it did not work out: then the value is
 * stored plain. Acceleration and level 0 are the defaults; what lies outside their range is brought to its end. With a
 * dictionary its own level counts, and the frame ends with a check of the plain bytes, so that a wrong dictionary shows.
 */
size_t compress_lz4(const void *from, size_t length, int acceleration, void *to, size_t capacity);
size_t compress_zstd(const void *from, size_t length, int level, const struct compress_dictionary *dictionary,
		     void *to, size_t capacity);

/*
 * Decompresses to exactly `plain_size` bytes and never writes beyond them. RSHM_E_CORRUPT (does not give exactly that size,
 * wrong dictionary; what was written is void), RSHM_E_NOMEM, RSHM_E_FORMAT (this build has no compression).
 */
int decompress_lz4(const void *from, size_t length, void *to, size_t plain_size);
int decompress_zstd(const void *from, size_t length, const struct compress_dictionary *dictionary, void *to,
		    size_t plain_size);

/*
 * Prepares a dictionary as compress_train() makes them; the bytes are copied. RSHM_E_CORRUPT (not such a dictionary),
 * RSHM_E_NOMEM, RSHM_E_FORMAT. Takes about a millisecond.
 */
int compress_dictionary_create(const void *bytes, size_t length, int level, struct compress_dictionary **ret);
void compress_dictionary_destroy(struct compress_dictionary **dictionary);

/* Memory that it takes, in bytes. */
size_t compress_dictionary_memory(const struct compress_dictionary *dictionary);

/*
 * Trains a dictionary of at most `capacity` bytes from `count` samples that lie one after the other. Blocks: tenths of a
 * second per MiB of samples. RSHM_E_INVALID (too few or too small samples), RSHM_E_NOMEM, RSHM_E_FORMAT.
 */
int compress_train(const void *samples, const size_t *sizes, size_t count, void *dictionary, size_t capacity,
		   size_t *ret_length);

#endif
