/*
 * pace.h - one gait for all that loads a tenant's entries before they are asked for.
 *
 * The hot set at start, a client's list and a client's prefix wait in one line: no more than warming.keys_per_second keys
 * begin in a second, whoever asks, and no more than cache.warming_batch_size are under way. Worker thread.
 */
#ifndef RIPTIDE_SERVE_PACE_H
#define RIPTIDE_SERVE_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum pace_turn {
	PACE_GO,      /* begins with one key; may enter again */
	PACE_LATE,    /* until_ms has passed: begins with none */
	PACE_STOPPED, /* and never will */
};

/* Something that waits to begin with a key; embedded by its owner. */
struct paced {
	struct paced *next;
	uint64_t until_ms; /* how long it waits; 0: for ever */
	void (*start)(struct paced *paced, enum pace_turn turn);
};

struct pace {
	uint32_t keys_per_second, under_way_max; /* set once */
	uint64_t credit;                         /* in thousandths of a key */
	uint64_t credit_ms;                      /* as of then */
	struct paced *first, **last;
	uint32_t under_way;
	bool running, stopped;
};

void pace_init(struct pace *pace, uint32_t keys_per_second, uint32_t under_way_max, uint64_t now_ms);
void pace_enter(struct pace *pace, struct paced *paced, uint64_t now_ms);
/* A key that was begun has come back, or PACE_GO began with none after all. */
void pace_leave(struct pace *pace, uint64_t now_ms);
/* Begins what may begin by now. */
void pace_tick(struct pace *pace, uint64_t now_ms);
/* Tells all that wait, and all that come later, to stop. */
void pace_stop(struct pace *pace);
bool pace_is_busy(const struct pace *pace);

#endif
