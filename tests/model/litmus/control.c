/*
 * control.c - the two control words of an entry: B (expiry) is stored first, then A (epoch, release); readers load A
 * (acquire), then B. Who sees the new epoch must not see the old expiry.
 */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>

#ifdef BUG_RELAXED_STORE_OF_A
#define A_STORE memory_order_relaxed
#else
#define A_STORE memory_order_release
#endif
#ifdef BUG_RELAXED_LOAD_OF_A
#define A_LOAD memory_order_relaxed
#else
#define A_LOAD memory_order_acquire
#endif

static atomic_int a, b;

static void *agent(void *unused)
{
	(void)unused;
#ifdef BUG_A_BEFORE_B
	atomic_store_explicit(&a, 1, A_STORE);
	atomic_store_explicit(&b, 1, memory_order_relaxed);
#else
	atomic_store_explicit(&b, 1, memory_order_relaxed);
	atomic_store_explicit(&a, 1, A_STORE);
#endif
	return NULL;
}

static void *reader(void *unused)
{
	(void)unused;
	if (atomic_load_explicit(&a, A_LOAD) == 1)
		assert(atomic_load_explicit(&b, memory_order_relaxed) == 1);
	return NULL;
}

int main(void)
{
	pthread_t x, y;

	pthread_create(&x, NULL, agent, NULL);
	pthread_create(&y, NULL, reader, NULL);
	pthread_join(x, NULL);
	pthread_join(y, NULL);
	return 0;
}
