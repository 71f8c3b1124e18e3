/*
 * thread.c - a line of memory per thread: is it using a mapping, and which counters are its own?
 *
 * Whoever reads shared memory makes its line's `calls` odd before it loads the address of a mapping, and even when it is
 * done. Whoever replaces a mapping stores the new address, makes every running thread of the process pass a full barrier
 * (membarrier), and looks at all lines: a line that is even, or has changed, no longer uses the old mapping. The reader
 * pays two stores to its own line and no fence. Where the kernel has no membarrier, readers pay for a fence.
 *
 * Lines lie on pages that fork() empties. A child's thread finds that its line is not its own any more, takes one anew, and by the way
 * learns that it is a child: the check costs nothing, for the line is looked at anyway. The registry's lock lies there
 * too: a zeroed mutex is an unlocked one, so a child never waits for a thread that it does not have.
 *
 * A thread that ends gives its line back (key destructor), and with it the number of its counter shard.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client-lib/riptide_priv.h"
#include "shm/order.h"

#define LINES_MAX 4096u
#define MOVE_ON_SPINS 4000 /* some 20 to 100 us */

struct registry {
	pthread_mutex_t lock;
	uint32_t used; /* lines that were ever taken; only grows */
	struct rt_line lines[LINES_MAX];
};

__thread struct rt_thread rt_thread __attribute__((tls_model("initial-exec")));
bool rt_fence_is_needed;

static struct registry *registry;
static pthread_key_t exit_key;
static bool exit_key_exists;
static pthread_once_t setup_once = PTHREAD_ONCE_INIT;
static int setup_errno;

void *rt_wiped_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	if (madvise(memory, size, MADV_WIPEONFORK) < 0) {
		int saved = errno;

		munmap(memory, size);
		errno = saved;
		return NULL;
	}
	return memory;
}

static void give_line_back(void *value)
{
	struct rt_line *line = value;

	/* A child's thread may end without having taken a line in the child. */
	rt_thread.line = NULL;
	rt_thread.view = 0;
	if (!rt_line_is_mine(line))
		return;
	pthread_mutex_lock(&registry->lock);
	rshm_store_relaxed(&line->view, 0);
	/* Pairs with the acquire in rt_threads_have_moved_on(). */
	rshm_store_release(&line->calls, (line->calls + 1) & ~(uint64_t)1);
	rshm_store_relaxed(&line->owner, 0);
	pthread_mutex_unlock(&registry->lock);
}

/* The library may be unloaded before its threads end: then nobody may call into it. */
__attribute__((destructor)) static void forget_exit_key(void)
{
	if (exit_key_exists)
		pthread_key_delete(exit_key);
	exit_key_exists = false;
}

static void setup(void)
{
	registry = rt_wiped_memory(sizeof(*registry));
	if (!registry) {
		setup_errno = errno;
		return;
	}
	setup_errno = pthread_key_create(&exit_key, give_line_back);
	exit_key_exists = setup_errno == 0;
}

int rt_threads_setup(void)
{
	pthread_once(&setup_once, setup);
	if (setup_errno) {
		errno = setup_errno;
		return RIPTIDE_ESYSTEM;
	}
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) < 0)
		rt_fence_is_needed = true;
	return RIPTIDE_OK;
}

struct rt_line *rt_line_acquire(void)
{
	struct rt_line *line = rt_thread.line;
	uint32_t i;

	if (rt_line_is_mine(line))
		return line;
	line = NULL;
	pthread_mutex_lock(&registry->lock);
	for (i = 0; i < registry->used && rshm_load_relaxed(&registry->lines[i].owner) != 0; i++)
		;
	if (i < LINES_MAX) {
		line = &registry->lines[i];
		if (i == registry->used)
			rshm_store_release32(&registry->used, i + 1);
		line->shard = i < RSHM_SHARDS - 1 ? i : RSHM_SHARDS - 1;
		line->shard_is_shared = line->shard == RSHM_SHARDS - 1;
		rshm_store_relaxed(&line->owner, (uintptr_t)&rt_thread);
		/* A view that was held over fork() still is. */
		rshm_store_relaxed(&line->view, rt_thread.view);
	}
	pthread_mutex_unlock(&registry->lock);
	if (!line)
		return NULL;
	rt_thread.line = line;
	(void)pthread_setspecific(exit_key, line);
	return line;
}

/* Has this line ended the use of a mapping that it may be in? */
static bool line_has_moved_on(const struct rt_line *line)
{
	/* Pairs with the release when a call ends: what it read, it read before. */
	uint64_t calls = rshm_load_acquire(&line->calls);

	for (int i = 0; (calls & 1) && i < MOVE_ON_SPINS; i++) {
		if (rshm_load_acquire(&line->calls) != calls)
			return true;
		rshm_pause();
	}
	return !(calls & 1);
}

bool rt_threads_have_moved_on(void)
{
	uint32_t used;

	/* Pairs with the compiler barrier (or fence) in rt_enter(). */
	if (rt_fence_is_needed || syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) < 0) {
		if (!rt_fence_is_needed)
			return false;
		rshm_fence_seq_cst();
	}
	used = rshm_load_acquire32(&registry->used);
	for (uint32_t i = 0; i < used; i++)
		if (!line_has_moved_on(&registry->lines[i]))
			return false;
	return true;
}

bool rt_view_is_held(const void *sight)
{
	uint32_t used = rshm_load_acquire32(&registry->used);

	for (uint32_t i = 0; i < used; i++)
		if (rshm_load_acquire(&registry->lines[i].view) == (uintptr_t)sight)
			return true;
	return false;
}
