/*
 * Contexts of zstd cost more than compressing a small value and are kept per thread, freed when the thread ends.
 *
 * A frame that was made with a dictionary does not name it, since the envelope does, but ends with a check of the plain bytes:
 * four bytes that tell a wrong dictionary whatever its id. Without a dictionary the envelope's checksum of the stored bytes
 * is enough, since then they say everything.
 *
 * What is decompressed may come from a server or a disk that lies. Both decompressors get both limits; the plain size must be
 * what came out, and for zstd, whose ratio has no limit, what the frame itself announces.
 */
#include "agent/store/compress.h"

#include "shm/msg.h"

#if RIPTIDE_COMPRESSION

#include <limits.h>
#include <lz4.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <zdict.h>
#include <zstd.h>
#include <zstd_errors.h>

#define ZSTD_DICTIONARY_MAGIC 0xec30a437u /* little-endian, the first four bytes */

struct compress_dictionary {
	ZSTD_CDict *compressing;
	ZSTD_DDict *decompressing;
};

/* ---- contexts ----------------------------------------------------------------------------------------------- */

static pthread_once_t zstd_once = PTHREAD_ONCE_INIT;
static pthread_key_t zstd_compressor_key, zstd_decompressor_key;
static bool zstd_keys_made;

static void zstd_free_compressor(void *context)
{
	ZSTD_freeCCtx(context);
}

static void zstd_free_decompressor(void *context)
{
	ZSTD_freeDCtx(context);
}

static void zstd_make_keys(void)
{
	zstd_keys_made = pthread_key_create(&zstd_compressor_key, zstd_free_compressor) == 0 &&
			 pthread_key_create(&zstd_decompressor_key, zstd_free_decompressor) == 0;
}

static ZSTD_CCtx *zstd_compressor(void)
{
	ZSTD_CCtx *context;

	(void)pthread_once(&zstd_once, zstd_make_keys);
	if (!zstd_keys_made)
		return NULL;
	context = pthread_getspecific(zstd_compressor_key);
	if (context == NULL && (context = ZSTD_createCCtx()) != NULL &&
	    pthread_setspecific(zstd_compressor_key, context) != 0) {
		ZSTD_freeCCtx(context);
		context = NULL;
	}
	return context;
}

static ZSTD_DCtx *zstd_decompressor(void)
{
	ZSTD_DCtx *context;

	(void)pthread_once(&zstd_once, zstd_make_keys);
	if (!zstd_keys_made)
		return NULL;
	context = pthread_getspecific(zstd_decompressor_key);
	if (context == NULL && (context = ZSTD_createDCtx()) != NULL &&
	    pthread_setspecific(zstd_decompressor_key, context) != 0) {
		ZSTD_freeDCtx(context);
		context = NULL;
	}
	return context;
}

/* ---- values ------------------------------------------------------------------------------------------------- */

static int setting(int asked, int initial, int least, int most)
{
	if (asked == 0)
		return initial;
	if (asked < least)
		return least;
	return asked > most ? most : asked;
}

static int zstd_level(int asked)
{
	return setting(asked, COMPRESS_ZSTD_LEVEL_DEFAULT, COMPRESS_ZSTD_LEVEL_MIN, COMPRESS_ZSTD_LEVEL_MAX);
}

size_t compress_lz4_bound(size_t length)
{
	return (size_t)LZ4_compressBound((int)length);
}

size_t compress_zstd_bound(size_t length)
{
	return ZSTD_compressBound(length);
}

size_t compress_lz4(const void *from, size_t length, int acceleration, void *to, size_t capacity)
{
	acceleration = setting(acceleration, COMPRESS_LZ4_ACCELERATION_DEFAULT, 1, COMPRESS_LZ4_ACCELERATION_MAX);
	return (size_t)LZ4_compress_fast(from, to, (int)length, (int)capacity, acceleration);
}

static size_t zstd_with_dictionary(ZSTD_CCtx *context, const void *from, size_t length, const ZSTD_CDict *dictionary,
				   void *to, size_t capacity)
{
	size_t written;

	if (ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_dictIDFlag, 0)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)) ||
	    ZSTD_isError(ZSTD_CCtx_refCDict(context, dictionary)))
		return 0;
	written = ZSTD_compress2(context, to, capacity, from, length);
	/* The context outlives the dictionary. */
	(void)ZSTD_CCtx_reset(context, ZSTD_reset_session_and_parameters);
	return written;
}

size_t compress_zstd(const void *from, size_t length, int level, const struct compress_dictionary *dictionary,
		     void *to, size_t capacity)
{
	ZSTD_CCtx *context = zstd_compressor();
	size_t written;

	if (context == NULL)
		return 0;
	if (dictionary != NULL)
		written = zstd_with_dictionary(context, from, length, dictionary->compressing, to, capacity);
	else
		written = ZSTD_compressCCtx(context, to, capacity, from, length, zstd_level(level));
	return ZSTD_isError(written) ? 0 : written;
}

int decompress_lz4(const void *from, size_t length, void *to, size_t plain_size)
{
	int written;

	if (length > INT_MAX || plain_size > INT_MAX)
		return RSHM_E_CORRUPT;
	written = LZ4_decompress_safe(from, to, (int)length, (int)plain_size);
	return written >= 0 && (size_t)written == plain_size ? RSHM_OK : RSHM_E_CORRUPT;
}

int decompress_zstd(const void *from, size_t length, const struct compress_dictionary *dictionary, void *to,
		    size_t plain_size)
{
	ZSTD_DCtx *context;
	size_t written;

	/* An unknown or wrong size compares unequal too. */
	if (ZSTD_getFrameContentSize(from, length) != plain_size)
		return RSHM_E_CORRUPT;
	context = zstd_decompressor();
	if (context == NULL)
		return RSHM_E_NOMEM;
	if (dictionary != NULL)
		written =
			ZSTD_decompress_usingDDict(context, to, plain_size, from, length, dictionary->decompressing);
	else
		written = ZSTD_decompressDCtx(context, to, plain_size, from, length);
	return ZSTD_isError(written) || written != plain_size ? RSHM_E_CORRUPT : RSHM_OK;
}

/* ---- dictionaries ------------------------------------------------------------------------------------------- */

int compress_dictionary_create(const void *bytes, size_t length, int level, struct compress_dictionary **ret)
{
	struct compress_dictionary *dictionary;
	const unsigned char *magic = bytes;

	/* Without its magic number zstd would take any bytes for a dictionary. */
	if (length < 8 ||
	    (magic[0] | magic[1] << 8 | magic[2] << 16 | (unsigned)magic[3] << 24) != ZSTD_DICTIONARY_MAGIC ||
	    ZDICT_isError(ZDICT_getDictHeaderSize(bytes, length)))
		return RSHM_E_CORRUPT;
	dictionary = calloc(1, sizeof(*dictionary));
	if (dictionary == NULL)
		return RSHM_E_NOMEM;
	dictionary->compressing = ZSTD_createCDict(bytes, length, zstd_level(level));
	dictionary->decompressing = ZSTD_createDDict(bytes, length);
	if (dictionary->compressing == NULL || dictionary->decompressing == NULL) {
		compress_dictionary_destroy(&dictionary);
		return RSHM_E_NOMEM;
	}
	*ret = dictionary;
	return RSHM_OK;
}

void compress_dictionary_destroy(struct compress_dictionary **dictionary)
{
	if (*dictionary == NULL)
		return;
	(void)ZSTD_freeCDict((*dictionary)->compressing);
	(void)ZSTD_freeDDict((*dictionary)->decompressing);
	free(*dictionary);
	*dictionary = NULL;
}

size_t compress_dictionary_memory(const struct compress_dictionary *dictionary)
{
	return sizeof(*dictionary) + ZSTD_sizeof_CDict(dictionary->compressing) +
	       ZSTD_sizeof_DDict(dictionary->decompressing);
}

int compress_train(const void *samples, const size_t *sizes, size_t count, void *dictionary, size_t capacity,
		   size_t *ret_length)
{
	size_t length;

	if (count > UINT_MAX)
		return RSHM_E_INVALID;
	length = ZDICT_trainFromBuffer(dictionary, capacity, samples, sizes, (unsigned)count);
	if (ZDICT_isError(length))
		return ZSTD_getErrorCode(length) == ZSTD_error_memory_allocation ? RSHM_E_NOMEM : RSHM_E_INVALID;
	*ret_length = length;
	return RSHM_OK;
}

#else

struct compress_dictionary {
	char unused;
};

size_t compress_lz4_bound(size_t length)
{
	return length;
}

size_t compress_zstd_bound(size_t length)
{
	return length;
}

size_t compress_lz4(const void *from, size_t length, int acceleration, void *to, size_t capacity)
{
	(void)from, (void)length, (void)acceleration, (void)to, (void)capacity;
	return 0;
}

size_t compress_zstd(const void *from, size_t length, int level, const struct compress_dictionary *dictionary,
		     void *to, size_t capacity)
{
	(void)from, (void)length, (void)level, (void)dictionary, (void)to, (void)capacity;
	return 0;
}

int decompress_lz4(const void *from, size_t length, void *to, size_t plain_size)
{
	(void)from, (void)length, (void)to, (void)plain_size;
	return RSHM_E_FORMAT;
}

int decompress_zstd(const void *from, size_t length, const struct compress_dictionary *dictionary, void *to,
		    size_t plain_size)
{
	(void)from, (void)length, (void)dictionary, (void)to, (void)plain_size;
	return RSHM_E_FORMAT;
}

int compress_dictionary_create(const void *bytes, size_t length, int level, struct compress_dictionary **ret)
{
	(void)bytes, (void)length, (void)level, (void)ret;
	return RSHM_E_FORMAT;
}

void compress_dictionary_destroy(struct compress_dictionary **dictionary)
{
	*dictionary = NULL;
}

size_t compress_dictionary_memory(const struct compress_dictionary *dictionary)
{
	(void)dictionary;
	return 0;
}

int compress_train(const void *samples, const size_t *sizes, size_t count, void *dictionary, size_t capacity,
		   size_t *ret_length)
{
	(void)samples, (void)sizes, (void)count, (void)dictionary, (void)capacity, (void)ret_length;
	return RSHM_E_FORMAT;
}

#endif
