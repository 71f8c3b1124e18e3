/*
 * hlc.h - hybrid logical clock: versions that grow along with wall time and never go backwards.
 *
 * A version is 48 bits of milliseconds since 1970 and 16 bits of counter. Of two versions of one clock the larger was
 * made later, whatever the wall clock did meanwhile; ties between hosts are the caller's to break. All functions: any
 * thread, lock-free, never block. Versions of a process that ends are continued by hlc_init() with the last known one.
 *
 * Where several hosts write, hlc_identify() makes ties rare: the low 8 bits of all versions are the clock's own, and the
 * first of a millisecond has a counter of its own. Such a clock makes 192,000 versions a second before it runs ahead of the
 * wall; another, 65 million.
 */
#ifndef BASE_HLC_H
#define BASE_HLC_H

#include <stdbool.h>
#include <stdint.h>

/* A remote version further ahead of our wall clock than this is not believed. */
#define HLC_DRIFT_MAX_MS (3600u * 1000u)

struct hlc {
	uint64_t last;      /* atomic: the largest version made or observed */
	uint16_t first;     /* counter of the first version of a millisecond */
	bool is_identified; /* the low byte of `first` is that of all versions */
};

/* Starts at `floor`, the largest version known from before; 0 if none. Before other threads see the clock. */
void hlc_init(struct hlc *hlc, uint64_t floor);

/* Takes an identity from a number that is random or at least different on each host. Before other threads see the clock. */
void hlc_identify(struct hlc *hlc, uint32_t writer_id);

/* A version larger than every one made or observed before. */
uint64_t hlc_next(struct hlc *hlc);

/*
 * Makes later versions larger than `remote`. False, and nothing changed, if `remote` lies more than HLC_DRIFT_MAX_MS in
 * our future: the caller reports it, for either clock is wrong and writes of that peer would win for an hour.
 */
bool hlc_observe(struct hlc *hlc, uint64_t remote);

/* The same with the wall clock given, in ms. */
uint64_t hlc_next_at(struct hlc *hlc, uint64_t now_ms);
bool hlc_observe_at(struct hlc *hlc, uint64_t remote, uint64_t now_ms);

/* The largest version made or observed so far. */
uint64_t hlc_last(const struct hlc *hlc);

static inline uint64_t hlc_ms(uint64_t version)
{
	return version >> 16;
}

static inline uint32_t hlc_counter(uint64_t version)
{
	return (uint32_t)(version & 0xffffu);
}

#endif
