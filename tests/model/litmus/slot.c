/*
 * slot.c - a slot's word hands its bytes over and back: submit (release) to take (compare-and-swap, acquire), answer
 * (compare-and-swap, release) to the client's look (acquire). Bytes are plain memory: any race is an error by itself.
 */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>

#ifdef BUG_RELAXED_SUBMIT
#define SUBMIT memory_order_relaxed
#else
#define SUBMIT memory_order_release
#endif
#ifdef BUG_RELAXED_TAKE
#define TAKE memory_order_relaxed
#else
#define TAKE memory_order_acq_rel
#endif
#ifdef BUG_RELAXED_ANSWER
#define ANSWER memory_order_relaxed
#else
#define ANSWER memory_order_acq_rel
#endif
#ifdef BUG_RELAXED_LOOK
#define LOOK memory_order_relaxed
#else
#define LOOK memory_order_acquire
#endif

enum { FREE, SUBMITTED, TAKEN, ANSWERED };
static atomic_int word;
static int bytes;

static void *client(void *unused)
{
	(void)unused;
	bytes = 1;
	atomic_store_explicit(&word, SUBMITTED, SUBMIT);
	if (atomic_load_explicit(&word, LOOK) == ANSWERED)
		assert(bytes == 2);
	return NULL;
}

static void *worker(void *unused)
{
	int expected = SUBMITTED;

	(void)unused;
	if (!atomic_compare_exchange_strong_explicit(&word, &expected, TAKEN, TAKE, memory_order_relaxed))
		return NULL;
	assert(bytes == 1);
	bytes = 2;
	expected = TAKEN;
	atomic_compare_exchange_strong_explicit(&word, &expected, ANSWERED, ANSWER, memory_order_relaxed);
	return NULL;
}

int main(void)
{
	pthread_t a, b;

	pthread_create(&a, NULL, client, NULL);
	pthread_create(&b, NULL, worker, NULL);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	return 0;
}
