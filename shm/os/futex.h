/* futex.h - sleeping on a word of shared memory, across processes. */
#ifndef RSHM_OS_FUTEX_H
#define RSHM_OS_FUTEX_H

#include <stdint.h>

/* Sleeps while *word equals `expected`, at most `timeout_ms`. Wakes spuriously: look again. */
void rshm_futex_wait(uint32_t *word, uint32_t expected, uint32_t timeout_ms);

/* Wakes whoever sleeps on the word. Never blocks. */
void rshm_futex_wake(uint32_t *word);

#endif
