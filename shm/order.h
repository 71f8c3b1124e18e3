/*
 * order.h - the only place that touches atomics.
 *
 * Shared structs are plain fixed-width integers, so that their layout is the same for every compiler; these functions
 * give the accesses their order. Every ordered access in shm/ carries one line that says why and names the access it
 * pairs with. A reader's mapping is read-only: nothing here that readers call is a read-modify-write (even fetch_add(p, 0)
 * and 16-byte atomic loads fault there).
 *
 * Thread sanitizer does not know fences, and calls a racing memcpy a race. In such builds copies go word by word, with
 * acquire loads and release stores, which orders them without a fence; production copies with memcpy between compiler
 * barriers (21 against 70 ns for 1 KiB).
 */
#ifndef RSHM_ORDER_H
#define RSHM_ORDER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__)
#define RSHM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RSHM_TSAN 1
#endif
#endif
#ifndef RSHM_TSAN
#define RSHM_TSAN 0
#endif

static inline uint64_t rshm_load_relaxed(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint64_t rshm_load_acquire(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void rshm_store_relaxed(uint64_t *p, uint64_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELAXED);
}

static inline void rshm_store_release(uint64_t *p, uint64_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELEASE);
}

static inline uint64_t rshm_add_relaxed(uint64_t *p, uint64_t value)
{
	return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
}

static inline uint32_t rshm_load_relaxed32(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint32_t rshm_load_acquire32(const uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void rshm_store_relaxed32(uint32_t *p, uint32_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELAXED);
}

static inline void rshm_store_release32(uint32_t *p, uint32_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELEASE);
}

static inline uint32_t rshm_or_acq_rel32(uint32_t *p, uint32_t bits)
{
	return __atomic_fetch_or(p, bits, __ATOMIC_ACQ_REL);
}

static inline uint32_t rshm_exchange_acq_rel32(uint32_t *p, uint32_t value)
{
	return __atomic_exchange_n(p, value, __ATOMIC_ACQ_REL);
}

/* Compare and swap; on failure *expected is what was found (acquire). Returns nonzero on success. */
static inline int rshm_cas_acq_rel32(uint32_t *p, uint32_t *expected, uint32_t value)
{
	return __atomic_compare_exchange_n(p, expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

#if RSHM_TSAN
static inline void rshm_fence_acquire(void)
{
}
static inline void rshm_fence_release(void)
{
}
static inline void rshm_fence_seq_cst(void)
{
	/* A private dummy keeps the store buffer drained; the sanitizer accepts it where it refuses a fence. */
	uint64_t dummy = 0;

	(void)__atomic_exchange_n(&dummy, 1, __ATOMIC_SEQ_CST);
}
#else
static inline void rshm_fence_acquire(void)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
}
static inline void rshm_fence_release(void)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
}
static inline void rshm_fence_seq_cst(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}
#endif

static inline void rshm_compiler_barrier(void)
{
	__asm__ __volatile__("" ::: "memory");
}

/* Tells the core that this is a spin loop. */
static inline void rshm_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield" ::: "memory");
#endif
}

/*
 * Copies between private memory and bytes that another process may be changing. What arrives may be torn: the caller
 * looks afterwards whether it was (ring.c). `shared` needs no alignment.
 */
#if RSHM_TSAN
typedef uint64_t __attribute__((may_alias)) rshm_any_word;

/* Bytes before the first whole word at `shared`, at most `length`. */
static inline size_t rshm_bytes_to_word(const unsigned char *shared, size_t length)
{
	size_t gap = (size_t)(-(uintptr_t)shared & 7u);

	return gap < length ? gap : length;
}
static inline void rshm_copy_out(void *private_bytes, const void *shared, size_t length)
{
	unsigned char *to = private_bytes;
	const unsigned char *from = shared;
	size_t i = 0, head = rshm_bytes_to_word(from, length);

	for (; i < head; i++)
		to[i] = __atomic_load_n(from + i, __ATOMIC_ACQUIRE);
	for (; i + 8 <= length; i += 8) {
		uint64_t word = __atomic_load_n((const rshm_any_word *)(const void *)(from + i), __ATOMIC_ACQUIRE);

		memcpy(to + i, &word, 8);
	}
	for (; i < length; i++)
		to[i] = __atomic_load_n(from + i, __ATOMIC_ACQUIRE);
}
static inline void rshm_copy_in(void *shared, const void *private_bytes, size_t length)
{
	unsigned char *to = shared;
	const unsigned char *from = private_bytes;
	size_t i = 0, head = rshm_bytes_to_word(to, length);

	for (; i < head; i++)
		__atomic_store_n(to + i, from[i], __ATOMIC_RELEASE);
	for (; i + 8 <= length; i += 8) {
		uint64_t word;

		memcpy(&word, from + i, 8);
		__atomic_store_n((rshm_any_word *)(void *)(to + i), word, __ATOMIC_RELEASE);
	}
	for (; i < length; i++)
		__atomic_store_n(to + i, from[i], __ATOMIC_RELEASE);
}
static inline int rshm_differs(const void *private_bytes, const void *shared, size_t length)
{
	const unsigned char *a = private_bytes, *b = shared;

	for (size_t i = 0; i < length; i++)
		if (a[i] != __atomic_load_n(b + i, __ATOMIC_ACQUIRE))
			return 1;
	return 0;
}
#else
static inline void rshm_copy_out(void *private_bytes, const void *shared, size_t length)
{
	rshm_compiler_barrier();
	if (length > 0) /* nothing may come from NULL */
		memcpy(private_bytes, shared, length);
	rshm_compiler_barrier();
}
static inline void rshm_copy_in(void *shared, const void *private_bytes, size_t length)
{
	rshm_compiler_barrier();
	if (length > 0)
		memcpy(shared, private_bytes, length);
	rshm_compiler_barrier();
}
/* Nonzero if the bytes differ; the answer counts only if the bytes were not reclaimed meanwhile. */
static inline int rshm_differs(const void *private_bytes, const void *shared, size_t length)
{
	int differs;

	rshm_compiler_barrier();
	differs = memcmp(private_bytes, shared, length) != 0;
	rshm_compiler_barrier();
	return differs;
}
#endif

#endif
