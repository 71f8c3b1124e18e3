/*
 * bell.c - the armed word and the bitmap (Dekker): the client publishes and looks whether to ring, the worker arms and looks
 * whether something was published. At least one of them must see the other.
 */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>

static atomic_int submitted, armed;
static int rang, saw;

static void *client(void *unused)
{
	(void)unused;
	atomic_store_explicit(&submitted, 1, memory_order_release);
#ifndef BUG_NO_CLIENT_FENCE
	atomic_thread_fence(memory_order_seq_cst);
#endif
	rang = atomic_load_explicit(&armed, memory_order_relaxed);
	return NULL;
}

static void *worker(void *unused)
{
	(void)unused;
	atomic_store_explicit(&armed, 1, memory_order_relaxed);
#ifndef BUG_NO_WORKER_FENCE
	atomic_thread_fence(memory_order_seq_cst);
#endif
	saw = atomic_load_explicit(&submitted, memory_order_relaxed);
	return NULL;
}

int main(void)
{
	pthread_t a, b;

	pthread_create(&a, NULL, client, NULL);
	pthread_create(&b, NULL, worker, NULL);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	assert(rang || saw);
	return 0;
}
