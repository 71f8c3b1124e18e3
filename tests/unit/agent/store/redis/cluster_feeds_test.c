#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/store/redis/cluster/feeds.h"

/* Three nodes whose feeds are played here: two have slots, the third has none. */
struct fixture {
	struct cluster_feeds feeds;
	struct cluster_feed nodes[3];
	struct store_watcher tell[3];
	char heard[512]; /* what the cluster told, as a text */
};

static void hear(struct fixture *f, const char *what, uint64_t number)
{
	size_t length = strlen(f->heard);

	snprintf(f->heard + length, sizeof(f->heard) - length, "%s%llu ", what, (unsigned long long)number);
}

static void hear_mode(void *context, enum store_coherence mode)
{
	hear(context, "mode", mode);
}

static void hear_fenced(void *context, bool armed, const char *why)
{
	assert_non_null(why);
	hear(context, armed ? "armed" : "fenced", 0);
}

static void hear_proven(void *context, uint64_t complete_ms)
{
	hear(context, "proven", complete_ms);
}

static void hear_changed(void *context, const struct store_change *change)
{
	hear(context, "changed", change->kind);
}

static void mode(struct fixture *f, int node, enum store_coherence told)
{
	f->tell[node].mode(f->tell[node].context, told);
}

static void fenced(struct fixture *f, int node, bool armed)
{
	f->tell[node].fenced(f->tell[node].context, armed, "a test");
}

static void proven(struct fixture *f, int node, uint64_t complete_ms)
{
	f->tell[node].proven(f->tell[node].context, complete_ms);
}

static void assert_heard(struct fixture *f, const char *text)
{
	assert_string_equal(f->heard, text);
	f->heard[0] = '\0';
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const struct store_watcher watcher = {.mode = hear_mode,
					      .fenced = hear_fenced,
					      .proven = hear_proven,
					      .changed = hear_changed,
					      .context = f};

	*state = f;
	for (int i = 0; i < 3; i++) {
		cluster_feeds_add(&f->feeds, &f->nodes[i]);
		f->tell[i] = cluster_feed_watcher(&f->nodes[i]);
		f->nodes[i].counts = i < 2;
	}
	cluster_feeds_begin(&f->feeds, &watcher);
	cluster_feeds_on_map(&f->feeds, true, "a test");
	assert_heard(f, "");
	return 0;
}

/* Both that count track, are armed and proven. */
static int setup_armed(void **state)
{
	struct fixture *f;

	setup(state);
	f = *state;
	for (int i = 0; i < 2; i++) {
		mode(f, i, STORE_TRACKING);
		fenced(f, i, true);
		proven(f, i, 100);
	}
	assert_heard(f, "mode3 armed0 proven100 ");
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void the_weakest_mode_is_told(void **state)
{
	struct fixture *f = *state;

	mode(f, 2, STORE_TTL);
	assert_heard(f, "");
	mode(f, 0, STORE_TRACKING);
	mode(f, 1, STORE_TRACKING);
	assert_heard(f, "mode3 ");
	mode(f, 1, STORE_CHANNEL);
	mode(f, 0, STORE_TTL);
	mode(f, 1, STORE_TRACKING);
	mode(f, 0, STORE_TRACKING);
	assert_heard(f, "mode2 mode1 mode3 ");
}

static void all_must_be_armed(void **state)
{
	struct fixture *f = *state;

	mode(f, 0, STORE_TRACKING);
	mode(f, 1, STORE_TRACKING);
	fenced(f, 0, true);
	proven(f, 0, 100);
	assert_heard(f, "mode3 ");
	fenced(f, 1, true);
	assert_heard(f, "armed0 ");
}

static void proofs_are_as_old_as_the_oldest_and_told_once(void **state)
{
	struct fixture *f = *state;

	proven(f, 1, 90);
	assert_heard(f, "");
	proven(f, 1, 150);
	proven(f, 0, 120);
	proven(f, 0, 130);
	proven(f, 1, 160);
	assert_heard(f, "proven120 proven130 ");
}

static void a_fence_of_any_is_one_of_all(void **state)
{
	struct fixture *f = *state;

	fenced(f, 1, false);
	proven(f, 0, 200);
	assert_heard(f, "fenced0 ");
	fenced(f, 1, true);
	proven(f, 0, 210);
	assert_heard(f, "armed0 ");
	proven(f, 1, 205);
	assert_heard(f, "proven205 ");
}

static void a_node_without_slots_does_not_fence(void **state)
{
	struct fixture *f = *state;

	mode(f, 2, STORE_TTL);
	fenced(f, 2, false);
	assert_heard(f, "");
}

static void the_target_of_a_slot_counts_until_it_is_armed(void **state)
{
	struct fixture *f = *state;

	cluster_feed_expect(&f->nodes[2]);
	assert_heard(f, "fenced0 ");
	mode(f, 2, STORE_TRACKING);
	proven(f, 0, 300);
	proven(f, 1, 300);
	assert_heard(f, "");
	fenced(f, 2, true);
	assert_heard(f, "armed0 ");
	proven(f, 2, 250);
	assert_heard(f, "proven250 ");
	/* An armed one is no news. */
	cluster_feed_expect(&f->nodes[2]);
	assert_heard(f, "");
}

static void a_change_of_the_map_is_a_fence(void **state)
{
	struct fixture *f = *state;

	cluster_feeds_on_map(&f->feeds, true, "a test");
	assert_heard(f, "fenced0 armed0 proven100 ");
	/* Slots without an owner: nobody tells of them. */
	cluster_feeds_on_map(&f->feeds, false, "a test");
	proven(f, 0, 200);
	proven(f, 1, 200);
	assert_heard(f, "fenced0 ");
	/* The new owner is not armed yet. */
	f->nodes[2].counts = true;
	cluster_feeds_on_map(&f->feeds, true, "a test");
	assert_heard(f, "");
	mode(f, 2, STORE_TRACKING);
	fenced(f, 2, true);
	proven(f, 2, 190);
	assert_heard(f, "armed0 proven190 ");
	/* It goes, and holds nobody up. */
	cluster_feeds_remove(&f->nodes[2]);
	cluster_feeds_on_map(&f->feeds, true, "a test");
	assert_heard(f, "fenced0 armed0 proven200 ");
}

static void a_mode_that_proves_nothing_fences(void **state)
{
	struct fixture *f = *state;

	mode(f, 1, STORE_TTL);
	assert_heard(f, "fenced0 mode1 ");
	proven(f, 0, 300);
	assert_heard(f, "");
}

static void changes_are_passed_on_and_counted(void **state)
{
	struct fixture *f = *state;
	struct store_change change = {.kind = STORE_CHANGED_EVERYTHING};
	struct store_feed feed;

	f->tell[2].changed(f->tell[2].context, &change);
	change.maybe_ours = true;
	f->tell[0].changed(f->tell[0].context, &change);
	assert_heard(f, "changed2 changed2 ");
	cluster_feeds_status(&f->feeds, &feed);
	assert_int_equal(feed.changes, 2);
	assert_int_equal(feed.maybe_ours, 1);
	assert_true(feed.armed && feed.mode == STORE_TRACKING && feed.fences == 0);
	assert_true(feed.proof_age_ms != UINT64_MAX);
}

int main(void)
{
#define CASE(name, begin) cmocka_unit_test_setup_teardown(name, begin, teardown)
	const struct CMUnitTest tests[] = {
		CASE(the_weakest_mode_is_told, setup),
		CASE(all_must_be_armed, setup),
		CASE(proofs_are_as_old_as_the_oldest_and_told_once, setup_armed),
		CASE(a_fence_of_any_is_one_of_all, setup_armed),
		CASE(a_node_without_slots_does_not_fence, setup_armed),
		CASE(the_target_of_a_slot_counts_until_it_is_armed, setup_armed),
		CASE(a_change_of_the_map_is_a_fence, setup_armed),
		CASE(a_mode_that_proves_nothing_fences, setup_armed),
		CASE(changes_are_passed_on_and_counted, setup_armed),
	};
#undef CASE

	return cmocka_run_group_tests(tests, NULL, NULL);
}
