/* index.c - the key hash, apart so that xxHash is compiled once. */
#include "shm/index.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t rshm_hash(uint64_t seed, const void *key, size_t key_len)
{
	return XXH3_64bits_withSeed(key, key_len, seed);
}
