/*
 * watch.h - a watcher that remembers what it heard, for the tests of this folder. One test at a time.
 */
#ifndef REDIS_WATCH_H
#define REDIS_WATCH_H

#include "tests/unit/agent/store/redis/fixture.h"

#define LEASE_MS 1600u
#define CHANGES_MAX 20000u
#define SMALL 64u
#define LARGE (300u << 10)

struct seen {
	enum store_change_kind kind;
	char tenant[72];
	uint64_t generation;
	char space;
	char key[48]; /* its beginning */
	size_t key_len;
	bool has_key, maybe_ours;
};

struct watch {
	struct fixture *fixture;
	uint32_t modes, armings, fences, proofs, everything, count;
	enum store_coherence mode;
	bool armed, close_at_change;
	uint64_t proven_ms;
	char why[160];
	struct seen seen[CHANGES_MAX];
};

__attribute__((unused)) static struct watch watch; /* one test at a time */

__attribute__((unused)) static void on_mode(void *context, enum store_coherence mode)
{
	struct watch *w = context;

	assert_int_not_equal(mode, w->modes > 0 ? w->mode : STORE_SOLE);
	w->mode = mode;
	w->modes++;
}

__attribute__((unused)) static void on_fenced(void *context, bool armed, const char *why)
{
	struct watch *w = context;

	assert_int_equal(w->mode, STORE_TRACKING);
	assert_int_not_equal(armed, w->armed);
	w->armed = armed;
	*(armed ? &w->armings : &w->fences) += 1;
	w->proofs = 0;
	snprintf(w->why, sizeof(w->why), "%s", why);
}

__attribute__((unused)) static void on_proven(void *context, uint64_t complete_ms)
{
	struct watch *w = context;

	assert_true(w->armed);
	assert_true(complete_ms >= w->proven_ms && complete_ms <= clock_monotonic_ms());
	w->proven_ms = complete_ms;
	w->proofs++;
}

__attribute__((unused)) static void on_changed(void *context, const struct store_change *change)
{
	struct watch *w = context;
	struct seen *seen = &w->seen[w->count];

	assert_true(w->count < CHANGES_MAX);
	w->count++;
	*seen = (struct seen){.kind = change->kind, .maybe_ours = change->maybe_ours};
	w->everything += change->kind == STORE_CHANGED_EVERYTHING;
	if (w->close_at_change) {
		w->close_at_change = false;
		store_close(w->fixture->store, fixture_on_closed, w->fixture);
	}
	if (change->kind == STORE_CHANGED_EVERYTHING)
		return;
	assert_true(change->tenant_len < sizeof(seen->tenant));
	memcpy(seen->tenant, change->tenant, change->tenant_len);
	seen->generation = change->generation;
	seen->space = change->space;
	seen->has_key = change->key != NULL;
	seen->key_len = change->key_len;
	if (change->key != NULL)
		memcpy(seen->key, change->key,
		       change->key_len < sizeof(seen->key) - 1 ? change->key_len : sizeof(seen->key) - 1);
}

__attribute__((unused)) static const struct store_watcher watcher = {
	.mode = on_mode, .fenced = on_fenced, .proven = on_proven, .changed = on_changed, .context = &watch};

__attribute__((unused)) static void open_watched(struct fixture *f)
{
	memset(&watch, 0, sizeof(watch));
	watch.fixture = f;
	f->config.lease_ms = LEASE_MS;
	fixture_open(f);
	assert_true(store_watch(f->store, &watcher));
	assert_int_equal(watch.modes, f->config.coherence == STORE_REDIS_TTL);
}

__attribute__((unused)) static void open_armed(struct fixture *f)
{
	open_watched(f);
	assert_true(fixture_run(f, &watch.armings, 1, 5000));
	assert_int_equal(watch.mode, STORE_TRACKING);
}

/* Whatever was executed before this has been told when it returns. */
__attribute__((unused)) static void settle(struct fixture *f)
{
	uint64_t from_ms = clock_monotonic_ms(), end_ms = from_ms + 5000;

	fixture_run_for(f, 20);
	while (watch.proven_ms <= from_ms && clock_monotonic_ms() < end_ms)
		fixture_run_for(f, 10);
	assert_true(watch.proven_ms > from_ms);
}

__attribute__((unused)) static const struct seen *find(const char *key)
{
	for (uint32_t i = watch.count; i > 0; i--) {
		if (watch.seen[i - 1].has_key && strcmp(watch.seen[i - 1].key, key) == 0)
			return &watch.seen[i - 1];
	}
	return NULL;
}

__attribute__((unused)) static void assert_foreign(const char *key)
{
	const struct seen *seen = find(key);

	if (seen == NULL)
		fail_msg("nothing was told of %s", key);
	assert_int_equal(seen->kind, STORE_CHANGED_ENTRY);
	assert_string_equal(seen->tenant, "t1");
	assert_int_equal(seen->generation, 1);
	assert_int_equal(seen->space, 'c');
	assert_int_equal(seen->key_len, strlen(key));
	assert_false(seen->maybe_ours);
}

__attribute__((unused)) static struct store_feed feed_of(struct fixture *f)
{
	struct store_status status;

	store_status(f->store, &status);
	return status.feed;
}

/* An envelope's head as far as scripts look at it. */
__attribute__((unused)) static void make_envelope(unsigned char *bytes, size_t length, uint64_t version)
{
	uint32_t magic = ENVELOPE_MAGIC;

	memset(bytes, 'v', length);
	memset(bytes, 0, ENVELOPE_HEAD_BYTES);
	memcpy(bytes, &magic, 4);
	bytes[4] = ENVELOPE_FORMAT;
	memcpy(bytes + ENVELOPE_OFFSET_VERSION, &version, sizeof(version));
}

/* The id of our connection with this name; 0: there is none. */
__attribute__((unused)) static long long client_id(struct fixture *f, const char *name)
{
	redisContext *context = redisConnectUnix(f->server.unix_path);
	redisReply *reply = redisCommand(context, "CLIENT LIST");
	long long id = 0;
	char field[64];
	char *line, *rest = NULL;

	assert_non_null(reply);
	snprintf(field, sizeof(field), " name=%s ", name);
	for (line = strtok_r(reply->str, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
		if (strstr(line, field) != NULL)
			id = atoll(line + 3);
	}
	freeReplyObject(reply);
	redisFree(context);
	return id;
}

__attribute__((unused)) static int with_server(void **state)
{
	struct fixture *f = fixture_create();

	*state = f;
	f->config.connect_grace_ms = 3000;
	return redis_server_start(&f->server, "--enable-debug-command", "yes", NULL);
}

__attribute__((unused)) static int without(void **state)
{
	fixture_destroy(*state);
	return 0;
}

#endif
