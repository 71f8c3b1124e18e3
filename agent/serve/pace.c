/*
 * pace.c - a token bucket with a line before it. Credit for one key and a tenth of a second at most is saved up. Keys may
 * come back before start() returns; `running` keeps this a loop.
 */
#include "agent/serve/pace.h"

#include <stddef.h>

#define KEY 1000u

static uint64_t credit_max(const struct pace *pace)
{
	return KEY + (uint64_t)pace->keys_per_second * KEY / 10;
}

void pace_init(struct pace *pace, uint32_t keys_per_second, uint32_t under_way_max, uint64_t now_ms)
{
	*pace = (struct pace){
		.keys_per_second = keys_per_second,
		.under_way_max = under_way_max,
		.credit = KEY,
		.credit_ms = now_ms,
		.last = &pace->first,
	};
}

static void earn(struct pace *pace, uint64_t now_ms)
{
	uint64_t elapsed_ms = now_ms - pace->credit_ms;

	if (elapsed_ms > 1000)
		elapsed_ms = 1000;
	pace->credit += elapsed_ms * pace->keys_per_second;
	pace->credit_ms = now_ms;
	if (pace->credit > credit_max(pace))
		pace->credit = credit_max(pace);
}

static struct paced *take_first(struct pace *pace)
{
	struct paced *paced = pace->first;

	pace->first = paced->next;
	if (!pace->first)
		pace->last = &pace->first;
	paced->next = NULL;
	return paced;
}

/* Whoever has waited too long; the first one that is met, since its owner may change the line. */
static struct paced *take_late(struct pace *pace, uint64_t now_ms)
{
	for (struct paced **link = &pace->first; *link; link = &(*link)->next) {
		struct paced *paced = *link;

		if (paced->until_ms == 0 || now_ms < paced->until_ms)
			continue;
		*link = paced->next;
		if (pace->last == &paced->next)
			pace->last = link;
		paced->next = NULL;
		return paced;
	}
	return NULL;
}

void pace_tick(struct pace *pace, uint64_t now_ms)
{
	struct paced *late;

	if (pace->running)
		return;
	pace->running = true;
	earn(pace, now_ms);
	while (!pace->stopped && (late = take_late(pace, now_ms)) != NULL)
		late->start(late, PACE_LATE);
	while (pace->first && (pace->stopped || (pace->under_way < pace->under_way_max && pace->credit >= KEY))) {
		struct paced *paced = take_first(pace);

		if (!pace->stopped) {
			pace->credit -= KEY;
			pace->under_way++;
		}
		paced->start(paced, pace->stopped ? PACE_STOPPED : PACE_GO);
	}
	pace->running = false;
}

void pace_enter(struct pace *pace, struct paced *paced, uint64_t now_ms)
{
	paced->next = NULL;
	*pace->last = paced;
	pace->last = &paced->next;
	pace_tick(pace, now_ms);
}

void pace_leave(struct pace *pace, uint64_t now_ms)
{
	pace->under_way--;
	pace_tick(pace, now_ms);
}

void pace_stop(struct pace *pace)
{
	pace->stopped = true;
	pace_tick(pace, pace->credit_ms);
}

bool pace_is_busy(const struct pace *pace)
{
	return pace->first || pace->under_way > 0;
}
