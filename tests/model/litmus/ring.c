/*
 * ring.c - the orderings of the hot ring: publication of an entry, and reclaiming of its bytes.
 *
 * Writer: tail past what is overwritten, full fence, bytes, index word (release). Reader: tail (acquire), word (acquire),
 * bytes, acquire fence, tail (relaxed). Bytes are relaxed accesses: the copy races by design and is believed only after the
 * check. A cell holds two words of a value; version v is (v, v). The ring has one cell, so each entry overwrites the last.
 */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>

#ifdef BUG_NO_WRITER_FENCE
#define WRITER_FENCE()
#else
#define WRITER_FENCE() atomic_thread_fence(memory_order_seq_cst)
#endif
#ifdef BUG_RELAXED_WORD_STORE
#define WORD_STORE memory_order_relaxed
#else
#define WORD_STORE memory_order_release
#endif
#ifdef BUG_RELAXED_WORD_LOAD
#define WORD_LOAD memory_order_relaxed
#else
#define WORD_LOAD memory_order_acquire
#endif
#ifdef BUG_ACQUIRE_LOAD_FOR_FENCE
#define LAST_TAIL_LOAD memory_order_acquire
#else
#define LAST_TAIL_LOAD memory_order_relaxed
#endif

static atomic_int tail, word, position, low, high;

static void append(int v)
{
#ifndef BUG_TAIL_AFTER_BYTES
	atomic_store_explicit(&tail, v, memory_order_release);
#endif
	WRITER_FENCE();
	atomic_store_explicit(&position, v, memory_order_relaxed);
	atomic_store_explicit(&low, v, memory_order_relaxed);
	atomic_store_explicit(&high, v, memory_order_relaxed);
#ifdef BUG_TAIL_AFTER_BYTES
	atomic_store_explicit(&tail, v, memory_order_release);
#endif
	atomic_store_explicit(&word, v, WORD_STORE);
}

static void *writer(void *unused)
{
	(void)unused;
	append(1);
	append(2);
	return NULL;
}

static void *reader(void *unused)
{
	int t0, w, l, h;

	(void)unused;
	t0 = atomic_load_explicit(&tail, memory_order_acquire);
	w = atomic_load_explicit(&word, WORD_LOAD);
	if (w == 0 || w < t0)
		return NULL;
#ifndef WITHOUT_POSITION_CHECK
	if (atomic_load_explicit(&position, memory_order_relaxed) != w)
		return NULL;
#endif
	l = atomic_load_explicit(&low, memory_order_relaxed);
	h = atomic_load_explicit(&high, memory_order_relaxed);
#if !defined(BUG_NO_READER_FENCE) && !defined(BUG_ACQUIRE_LOAD_FOR_FENCE)
	atomic_thread_fence(memory_order_acquire);
#endif
#ifndef BUG_NO_TAIL_CHECK
	if (w < atomic_load_explicit(&tail, LAST_TAIL_LOAD))
		return NULL;
#endif
	assert(l == w && h == w);
	return NULL;
}

int main(void)
{
	pthread_t a, b;

	pthread_create(&a, NULL, writer, NULL);
	pthread_create(&b, NULL, reader, NULL);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	return 0;
}
