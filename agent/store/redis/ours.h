/*
 * ours.h - which Redis keys a write of our own may still be told of: writes that NOLOOP does not cover.
 *
 * A fixed table of counters that keys are hashed into. Keys that share one are taken for each other, which only ever adds
 * a "may be"; so the table is never full. One thread; nothing blocks.
 */
#ifndef RIPTIDE_STORE_REDIS_OURS_H
#define RIPTIDE_STORE_REDIS_OURS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct redis_ours;

/* NULL without memory. */
struct redis_ours *redis_ours_create(void);
/* Clears *ours; NULL is fine. */
void redis_ours_destroy(struct redis_ours **ours);

/* A write of the key begins. Returns a token, never 0, for redis_ours_end(). */
uint32_t redis_ours_begin(struct redis_ours *ours, const void *key, size_t key_len);
/* It was answered, or its connection is lost: what is told of the key until `until_ms` may be due to it. */
void redis_ours_end(struct redis_ours *ours, uint32_t token, uint64_t until_ms);
/* Whether what is told of the key now may be due to such a write. */
bool redis_ours_may_be(const struct redis_ours *ours, const void *key, size_t key_len, uint64_t now_ms);

#endif
