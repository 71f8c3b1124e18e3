/* coherence_delay.h - the part of coherence.c that measures how soon one host knows what the other wrote. */
#ifndef BENCH_COHERENCE_DELAY_H
#define BENCH_COHERENCE_DELAY_H

#include "bench/coherence_agents.h"

#define DELAY_ROUNDS_MAX 2000u
#define DELAY_BLOCK_MAX 100u
#define DELAY_KEY "delay"

/* What the parent and one other process share. Numbers of rounds; each is written by one of the two. */
struct watch {
	_Alignas(128) uint32_t wanted; /* the parent's */
	_Alignas(128) uint32_t ready, seen;
	uint64_t last_old_ns; /* when the last read that gave the old value began */
	uint64_t new_ns, message_ns;
};

static void await_number(const uint32_t *word, uint32_t number, pid_t child, const char *what)
{
	uint64_t until_ns = bench_now_ns() + PATIENCE_NS;

	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != number) {
		errno = 0;
		bench_need(bench_now_ns() < until_ns && (child == 0 || waitpid(child, NULL, WNOHANG) == 0), what);
		bench_pause_us(20);
	}
}

static void set_number(riptide *handle, uint32_t number)
{
	char value[VALUE] = "";

	memcpy(value, &number, sizeof(number));
	bench_ok(riptide_set(handle, DELAY_KEY, sizeof(DELAY_KEY) - 1, value, VALUE, NULL, NULL), "riptide_set");
}

#define NO_NUMBER UINT32_MAX

/* The number that B has, NO_NUMBER if it has none; `ret_hot`: verified, from shared memory. */
static uint32_t get_number(riptide *handle, bool *ret_hot)
{
	struct riptide_info info = {.flags = 0};
	uint32_t number = NO_NUMBER;
	char value[VALUE];
	size_t length = 0;
	int status = riptide_get_into(handle, DELAY_KEY, sizeof(DELAY_KEY) - 1, value, VALUE, &length, &info);

	bench_ok(status, "riptide_get_into");
	if (status == RIPTIDE_OK)
		memcpy(&number, value, sizeof(number));
	*ret_hot = status == RIPTIDE_OK && (info.flags & (RIPTIDE_HOT | RIPTIDE_STALE)) == RIPTIDE_HOT;
	return number;
}

/* The process on B: makes the key hot, then reads it without a pause until it is the new one. */
static void poll_rounds(struct watch *watch, const struct bench_process *agent)
{
	riptide *handle = bench_open(agent);

	for (uint32_t round = 1;; round++) {
		uint64_t last_old_ns = 0, now_ns;
		bool hot = false;

		while (__atomic_load_n(&watch->wanted, __ATOMIC_ACQUIRE) != round)
			bench_pause_us(50);
		while (get_number(handle, &hot) != round - 1 || !hot)
			bench_pause_us(20);
		__atomic_store_n(&watch->ready, round, __ATOMIC_RELEASE);
		for (;;) {
			uint64_t began_ns = bench_now_ns();
			uint32_t number = get_number(handle, &hot);

			if (number == round)
				break;
			if (number != round - 1 && number != NO_NUMBER)
				bench_die("reading on B", "neither the old value nor the new one");
			if (number != NO_NUMBER)
				last_old_ns = began_ns;
		}
		now_ns = bench_now_ns();
		watch->last_old_ns = last_old_ns;
		watch->new_ns = now_ns;
		__atomic_store_n(&watch->seen, round, __ATOMIC_RELEASE);
	}
}

static void subscribe_rounds(struct watch *watch)
{
	redisContext *redis = bench_redis_connect();
	redisReply *reply = redisCommand(redis, "SUBSCRIBE bench");

	bench_need(reply && reply->type == REDIS_REPLY_ARRAY, "SUBSCRIBE");
	freeReplyObject(reply);
	__atomic_store_n(&watch->ready, 1, __ATOMIC_RELEASE);
	for (uint32_t round = 1;; round++) {
		bench_need(redisGetReply(redis, (void **)&reply) == REDIS_OK, "a message");
		watch->message_ns = bench_now_ns();
		freeReplyObject(reply);
		__atomic_store_n(&watch->seen, round, __ATOMIC_RELEASE);
	}
}

struct delay {
	struct watch *ours, *plain;
	pid_t poller, subscriber;
	riptide *on_a;
	redisContext *redis;
	uint64_t random;
	uint32_t round, pause_us; /* the set comes up to so much later than all is ready */
	size_t count, block_count;
	/* From the beginning of the set or the PUBLISH; `after`: since the set returned. */
	double new_ns[DELAY_ROUNDS_MAX], old_ns[DELAY_ROUNDS_MAX], after_ns[DELAY_ROUNDS_MAX],
		plain_ns[DELAY_ROUNDS_MAX];
	double new_ratio[DELAY_ROUNDS_MAX], old_ratio[DELAY_ROUNDS_MAX]; /* of blocks */
};

static double since(uint64_t at_ns, uint64_t began_ns)
{
	return at_ns > began_ns ? (double)(at_ns - began_ns) : 0;
}

static void one_set(struct delay *d)
{
	uint32_t round = ++d->round;
	uint64_t began_ns, ended_ns;

	__atomic_store_n(&d->ours->wanted, round, __ATOMIC_RELEASE);
	await_number(&d->ours->ready, round, d->poller, "waiting for a hot copy");
	bench_pause_us(50 + bench_random(&d->random) % d->pause_us);
	began_ns = bench_now_ns();
	set_number(d->on_a, round);
	ended_ns = bench_now_ns();
	await_number(&d->ours->seen, round, d->poller, "waiting for the new value");
	d->new_ns[d->count] = since(d->ours->new_ns, began_ns);
	d->old_ns[d->count] = since(d->ours->last_old_ns, began_ns);
	d->after_ns[d->count] = since(d->ours->last_old_ns, ended_ns);
}

static double one_message(struct delay *d, uint32_t round)
{
	uint64_t began_ns;
	redisReply *reply;

	bench_pause_us(50 + bench_random(&d->random) % 200);
	began_ns = bench_now_ns();
	reply = redisCommand(d->redis, "PUBLISH bench %u", round);
	bench_need(reply && reply->type == REDIS_REPLY_INTEGER && reply->integer == 1, "PUBLISH");
	freeReplyObject(reply);
	await_number(&d->plain->seen, round, d->subscriber, "waiting for a message");
	return since(d->plain->message_ns, began_ns);
}

static double percentile_of(const double *values, size_t count, double percent)
{
	double sorted[DELAY_ROUNDS_MAX];

	memcpy(sorted, values, count * sizeof(*values));
	return bench_percentile(sorted, count, percent);
}

static void delay_block(struct delay *d, size_t length)
{
	size_t first = d->count;
	double plain;

	for (size_t i = 0; i < length; i++, d->count++)
		one_set(d);
	for (size_t i = first; i < d->count; i++)
		d->plain_ns[i] = one_message(d, (uint32_t)i + 1);
	plain = percentile_of(d->plain_ns + first, length, 50);
	d->new_ratio[d->block_count] = percentile_of(d->new_ns + first, length, 50) / plain;
	d->old_ratio[d->block_count++] = percentile_of(d->old_ns + first, length, 50) / plain;
}

static void delay_begin(struct delay *d, const struct pair *pair)
{
	struct watch *shared =
		mmap(NULL, 2 * sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	bench_need(shared != MAP_FAILED, "memory");
	*d = (struct delay){.ours = &shared[0], .plain = &shared[1], .random = 1};
	d->on_a = bench_open(pair->a);
	d->redis = bench_redis_connect();
	set_number(d->on_a, 0);
	d->poller = bench_fork();
	if (d->poller == 0) {
		bench_pin(bench_timed_cpu());
		poll_rounds(d->ours, pair->b);
	}
	d->subscriber = bench_fork();
	if (d->subscriber == 0)
		subscribe_rounds(d->plain);
	await_number(&d->plain->ready, 1, d->subscriber, "SUBSCRIBE");
}

static void delay_end(struct delay *d)
{
	pid_t children[] = {d->poller, d->subscriber};

	for (int i = 0; i < 2; i++) {
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
	munmap(d->ours, 2 * sizeof(*d->ours));
	riptide_close(&d->on_a);
	redisFree(d->redis);
}

static void delay_row(const char *figure, const struct delay *d, const double *ours, const double *ratios,
		      const char *add)
{
	char note[300];

	snprintf(note, sizeof(note), "p99 %.0f, max %.0f µs; pub/sub p99 %.0f, max %.0f µs; %zu rounds%s",
		 percentile_of(ours, d->count, 99) / 1e3, percentile_of(ours, d->count, 100) / 1e3,
		 percentile_of(d->plain_ns, d->count, 99) / 1e3, percentile_of(d->plain_ns, d->count, 100) / 1e3,
		 d->count, add);
	show(figure, BENCH_NS, percentile_of(ours, d->count, 50), "pub/sub message",
	     percentile_of(d->plain_ns, d->count, 50), percentile_of(ratios, d->block_count, 50), note);
}

static void measure_delay(const struct pair *pair)
{
	static struct delay d;
	bool is_ttl = strcmp(pair->mode, "ttl") == 0;
	size_t wanted = is_ttl ? 100 : DELAY_ROUNDS_MAX, block = is_ttl ? 10 : DELAY_BLOCK_MAX, after = 0;
	char figure[80], note[160], add[80] = "";

	place_all(-1 - bench_timed_cpu());
	delay_begin(&d, pair);
	d.pause_us = is_ttl ? TTL_AGE_MS * 1000 : 200;
	while (d.count < wanted)
		delay_block(&d, block);
	delay_end(&d);
	place_all(INT_MIN);
	if (is_ttl)
		snprintf(add, sizeof(add), "; max_age_ms=%d bounds it", TTL_AGE_MS);
	snprintf(figure, sizeof(figure), "%s: set on A, new value read on B, p50", pair->mode);
	delay_row(figure, &d, d.new_ns, d.new_ratio, add);
	delay_row("  old value read for the last time, p50", &d, d.old_ns, d.old_ratio, add);
	for (size_t i = 0; i < d.count; i++)
		after += d.after_ns[i] > 0;
	snprintf(note, sizeof(note), "in %.1f %% of the rounds at all; p99 %.0f, max %.0f µs",
		 100.0 * (double)after / (double)d.count, percentile_of(d.after_ns, d.count, 99) / 1e3,
		 percentile_of(d.after_ns, d.count, 100) / 1e3);
	show("  old value read after the set returned, p50", BENCH_NS, percentile_of(d.after_ns, d.count, 50), NULL,
	     0, 0, note);
}

#endif
