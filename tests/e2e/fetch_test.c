/* fetch_test.c - one load per missing key on the host, whatever happens to the one who loads. */
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/order.h"
#include "tests/e2e/both_stores.h"

static const char *const *both_settings(void)
{
	static const char *const settings[] = {NULL};

	return settings;
}

/* What loaders do and leave, shared by all processes of a test. */
struct play {
	uint32_t loads, go;
	uint32_t fail_first; /* so many loads fail */
	uint32_t die_first;  /* so many loaders are killed while they load */
	uint32_t absent;
	uint32_t pause_ms;
};

struct actor {
	struct fixture *f;
	struct play *play;
	struct riptide_fetch_options options;
	int expected_status;
};

static struct play *make_play(void)
{
	struct play *play = mmap(NULL, sizeof(*play), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(play, MAP_FAILED);
	return play;
}

static uint32_t add(uint32_t *counter)
{
	return __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
}

#define LOAD_ERROR (-1234)

static int load(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	static const char value[] = "loaded value";
	struct actor *actor = context;
	uint32_t number = add(&actor->play->loads);

	(void)key;
	(void)key_length;
	if (actor->play->pause_ms)
		e2e_pause_ms(actor->play->pause_ms);
	if (number <= actor->play->die_first)
		kill(getpid(), SIGKILL);
	if (number <= actor->play->fail_first)
		return LOAD_ERROR;
	if (actor->play->absent)
		return RIPTIDE_MISS;
	*ret = (struct riptide_loaded){.data = value, .length = sizeof(value) - 1};
	return RIPTIDE_OK;
}

static int fetch_once(struct actor *actor, const char *key)
{
	struct riptide_value value;
	int status = riptide_fetch(actor->f->handle, key, strlen(key), load, actor, &actor->options, &value);

	if (status == RIPTIDE_OK) {
		if (strcmp(value.data, "loaded value") != 0)
			status = E2E_WRONG;
		riptide_value_free(&value);
	}
	return status;
}

static int fetch_when_told(void *context)
{
	struct actor *actor = context;

	while (!rshm_load_relaxed32(&actor->play->go))
		usleep(100);
	return fetch_once(actor, "wanted") == actor->expected_status ? 0 : 1;
}

static struct actor make_actor(struct fixture *f, struct play *play)
{
	return (struct actor){.f = f, .play = play, .options = {.size = sizeof(struct riptide_fetch_options)}};
}

#define CROWD 16

/* Starts a crowd that fetches one key at one moment. Returns how many ended well. */
static int run_crowd(struct actor *actor)
{
	pid_t pids[CROWD];
	int well = 0;

	for (int i = 0; i < CROWD; i++)
		pids[i] = e2e_fork(fetch_when_told, actor);
	e2e_pause_ms(300);
	rshm_store_relaxed32(&actor->play->go, 1);
	for (int i = 0; i < CROWD; i++)
		well += e2e_join(pids[i], 20000) == 0;
	return well;
}

static void a_crowd_causes_one_load(void **state)
{
	struct fixture *f = both_fixture(state);
	struct play *play = make_play();
	struct actor actor = make_actor(f, play);

	play->pause_ms = 200;
	assert_int_equal(run_crowd(&actor), CROWD);
	assert_int_equal(play->loads, 1);
	assert_int_equal(e2e_check(f->handle, "wanted", "loaded value", NULL), RIPTIDE_OK);
	assert_int_equal(fetch_once(&actor, "wanted"), RIPTIDE_OK);
	assert_int_equal(play->loads, 1);
	munmap(play, sizeof(*play));
}

static void a_failed_load_is_tried_by_the_next_one(void **state)
{
	struct fixture *f = both_fixture(state);
	struct play *play = make_play();
	struct actor actor = make_actor(f, play);

	play->pause_ms = 30;
	play->fail_first = 3;
	/* Those whose own load fails are told so, the others get the value. */
	assert_int_equal(run_crowd(&actor), CROWD - 3);
	assert_int_equal(play->loads, 4);
	munmap(play, sizeof(*play));
}

static void a_loader_that_dies_is_followed_by_the_next_one(void **state)
{
	struct fixture *f = both_fixture(state);
	struct play *play = make_play();
	struct actor actor = make_actor(f, play);

	play->pause_ms = 30;
	play->die_first = 4;
	assert_int_equal(run_crowd(&actor), CROWD - 4);
	assert_int_equal(play->loads, 5);
	munmap(play, sizeof(*play));
}

static int load_too_long(void *context, const void *key, size_t key_length, struct riptide_loaded *ret)
{
	struct actor *actor = context;

	(void)key;
	(void)key_length;
	add(&actor->play->loads);
	e2e_pause_ms(1500);
	*ret = (struct riptide_loaded){.data = "late value", .length = 10};
	return RIPTIDE_OK;
}

static int fetch_slowly(void *context)
{
	struct actor *actor = context;
	struct riptide_value value;
	int status = riptide_fetch(actor->f->handle, "wanted", 6, load_too_long, actor, &actor->options, &value);
	bool right = status == RIPTIDE_OK && strcmp(value.data, "late value") == 0;

	if (status == RIPTIDE_OK)
		riptide_value_free(&value);
	return right ? 0 : 1;
}

static void a_slow_loader_is_overtaken_and_its_late_value_is_not_stored(void **state)
{
	struct fixture *f = both_fixture(state);
	struct play *play = make_play();
	struct actor actor = make_actor(f, play);
	pid_t slow;

	actor.options.load_timeout_ms = 300;
	slow = e2e_fork(fetch_slowly, &actor);
	while (rshm_load_relaxed32(&play->loads) == 0)
		usleep(1000);
	assert_int_equal(fetch_once(&actor, "wanted"), RIPTIDE_OK);
	assert_int_equal(e2e_join(slow, 10000), 0);
	assert_int_equal(play->loads, 2);
	assert_int_equal(e2e_check(f->handle, "wanted", "loaded value", NULL), RIPTIDE_OK);
	munmap(play, sizeof(*play));
}

/* A delete while somebody loads: what is loaded may be from before it. */
static void a_delete_voids_a_load_under_way(void **state)
{
	struct fixture *f = both_fixture(state);
	struct play *play = make_play();
	struct actor actor = make_actor(f, play);
	pid_t slow = e2e_fork(fetch_slowly, &actor);

	while (rshm_load_relaxed32(&play->loads) == 0)
		usleep(1000);
	assert_int_equal(riptide_delete(f->handle, "wanted", 6), RIPTIDE_MISS);
	assert_int_equal(e2e_join(slow, 10000), 0);
	assert_int_equal(e2e_check(f->handle, "wanted", "late value", NULL), RIPTIDE_MISS);
	munmap(play, sizeof(*play));
}

static void an_absence_is_remembered_as_long_as_asked(void **state)
{
	struct fixture *f = both_fixture(state);
	struct play *play = make_play();
	struct actor actor = make_actor(f, play);
	struct riptide_value value;
	int64_t misses;

	play->absent = 1;
	assert_int_equal(fetch_once(&actor, "nothing"), RIPTIDE_MISS);
	assert_int_equal(fetch_once(&actor, "nothing"), RIPTIDE_MISS);
	assert_int_equal(play->loads, 2);
	actor.options.negative_ttl_ms = 3000;
	for (int i = 0; i < 5; i++)
		assert_int_equal(fetch_once(&actor, "nothing"), RIPTIDE_MISS);
	assert_int_equal(play->loads, 3);
	memset(&value, 0, sizeof(value));
	misses = e2e_number(&f->agent, "tenants.0.misses");
	assert_int_equal(riptide_get(f->handle, "nothing", 7, &value), RIPTIDE_MISS);
	assert_true(value.info.flags & RIPTIDE_NEGATIVE);
	/* The agent was not asked, and counts the miss all the same. */
	assert_true(e2e_await(&f->agent, "tenants.0.misses", misses + 1, 2000) >= misses + 1);
	/* A write ends it at once, and so does time. */
	assert_int_equal(e2e_put(f->handle, "nothing", "something"), RIPTIDE_OK);
	assert_int_equal(e2e_check(f->handle, "nothing", "something", NULL), RIPTIDE_OK);
	assert_int_equal(fetch_once(&actor, "empty"), RIPTIDE_MISS);
	assert_int_equal(play->loads, 4);
	e2e_pause_ms(3200);
	assert_int_equal(fetch_once(&actor, "empty"), RIPTIDE_MISS);
	assert_int_equal(play->loads, 5);
	munmap(play, sizeof(*play));
}

static int fetch_flags(struct actor *actor, uint32_t *ret_flags)
{
	struct riptide_value value;
	int status = riptide_fetch(actor->f->handle, "old", 3, load, actor, &actor->options, &value);

	if (status == RIPTIDE_OK) {
		*ret_flags = value.info.flags;
		riptide_value_free(&value);
	}
	return status;
}

static int fetch_old_slowly(void *context)
{
	uint32_t flags;

	return fetch_flags(context, &flags) == RIPTIDE_OK ? 0 : 1;
}

static void an_old_value_serves_the_others_while_one_refreshes_it(void **state)
{
	struct fixture *f = both_fixture(state);
	struct play *play = make_play();
	struct actor actor = make_actor(f, play);
	uint32_t flags = 0;
	uint64_t began;
	pid_t slow;

	actor.options.ttl_ms = 200;
	actor.options.stale_while_refresh_ms = 60000;
	assert_int_equal(fetch_flags(&actor, &flags), RIPTIDE_OK);
	assert_int_equal(play->loads, 1);
	e2e_pause_ms(400);
	play->pause_ms = 1000;
	slow = e2e_fork(fetch_old_slowly, &actor);
	while (rshm_load_relaxed32(&play->loads) == 1)
		usleep(1000);
	began = e2e_now_ms();
	assert_int_equal(fetch_flags(&actor, &flags), RIPTIDE_OK);
	assert_true(e2e_now_ms() - began < 700);
	assert_true(flags & RIPTIDE_STALE);
	assert_int_equal(e2e_join(slow, 10000), 0);
	assert_int_equal(play->loads, 2);
	/* A plain read past the life time gets nothing. */
	e2e_pause_ms(400);
	assert_int_equal(e2e_check(f->handle, "old", "loaded value", NULL), RIPTIDE_MISS);
	munmap(play, sizeof(*play));
}

static void an_old_value_serves_when_loading_fails(void **state)
{
	struct fixture *f = both_fixture(state);
	struct play *play = make_play();
	struct actor actor = make_actor(f, play);
	uint32_t flags = 0;

	actor.options.ttl_ms = 200;
	actor.options.stale_if_error_ms = 60000;
	assert_int_equal(fetch_flags(&actor, &flags), RIPTIDE_OK);
	assert_false(flags & RIPTIDE_STALE);
	e2e_pause_ms(400);
	play->fail_first = 2;
	assert_int_equal(fetch_flags(&actor, &flags), RIPTIDE_OK);
	assert_true(flags & RIPTIDE_STALE);
	assert_int_equal(fetch_flags(&actor, &flags), RIPTIDE_OK);
	assert_false(flags & RIPTIDE_STALE);
	assert_int_equal(play->loads, 3);
	actor.options.stale_if_error_ms = 0;
	play->fail_first = 100;
	assert_int_equal(fetch_once(&actor, "another"), LOAD_ERROR);
	munmap(play, sizeof(*play));
}

static void without_an_agent_the_loader_goes_on(void **state)
{
	struct fixture *f = both_fixture(state);
	struct play *play = make_play();
	struct actor actor = make_actor(f, play);

	assert_int_equal(agent_process_kill(&f->agent, SIGKILL), 0);
	assert_int_equal(fetch_once(&actor, "wanted"), RIPTIDE_OK);
	assert_int_equal(play->loads, 1);
	assert_int_equal(agent_process_restart(&f->agent), 0);
	assert_int_equal(fetch_once(&actor, "wanted"), RIPTIDE_OK);
	assert_int_equal(fetch_once(&actor, "wanted"), RIPTIDE_OK);
	assert_in_range(play->loads, 1, 2);
	munmap(play, sizeof(*play));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH_STORES(a_crowd_causes_one_load),
		BOTH_STORES(a_failed_load_is_tried_by_the_next_one),
		BOTH_STORES(a_loader_that_dies_is_followed_by_the_next_one),
		BOTH_STORES(a_slow_loader_is_overtaken_and_its_late_value_is_not_stored),
		BOTH_STORES(a_delete_voids_a_load_under_way),
		BOTH_STORES(an_absence_is_remembered_as_long_as_asked),
		BOTH_STORES(an_old_value_serves_the_others_while_one_refreshes_it),
		BOTH_STORES(an_old_value_serves_when_loading_fails),
		BOTH_STORES(without_an_agent_the_loader_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
