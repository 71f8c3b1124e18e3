/*
 * bell.pml - falling asleep without losing a request, and waking up without losing an answer.
 *
 * Both sides have a store buffer of one (as x86 has; any weaker machine has more): a store is visible to the other side
 * only when it is flushed, at any later moment, and a fence waits for that. Holds: whoever waits is woken (no invalid end
 * state). The time slices that the real client sleeps in are left out, so that they cannot hide a lost wake-up.
 * -DBUG_… must be refuted.
 */
#define REQUESTS 2

byte submitted = 0; /* memory */
bit armed = 1;
byte buffered_submitted = 0;
bit submitted_is_buffered = 0;
bit buffered_armed = 0;
bit armed_is_buffered = 0;

byte bells = 0;
byte taken = 0;
bit ended = 0;

/* The slot's word: taken, waiting flag, answered; the futex sleeps while the word is what it was. */
bit word_answered = 0;
bit word_waiting = 0;
bit woken = 0;

active proctype flusher()
{
end_flusher:
	do
	:: atomic { submitted_is_buffered -> submitted = buffered_submitted; submitted_is_buffered = 0 }
	:: atomic { armed_is_buffered -> armed = buffered_armed; armed_is_buffered = 0 }
	od
}

active proctype client()
{
	byte number = 0;

	do
	:: number < REQUESTS ->
		number++;
		word_answered = 0;
		word_waiting = 0;
		woken = 0;
		!submitted_is_buffered;
		atomic { buffered_submitted = number; submitted_is_buffered = 1 }
#ifndef BUG_NO_CLIENT_FENCE
		!submitted_is_buffered;
#endif
		if
		:: armed -> bells = 1
		:: !armed -> skip
		fi;
		/* Wait: announce by compare-and-swap, then sleep while the word stays. */
		if
		:: word_answered
		:: atomic { !word_answered -> word_waiting = 1 };
			(word_answered && woken) /* asleep until somebody wakes us */
		fi
	:: else -> break
	od;
	ended = 1
}

inline serve()
{
	if
	:: submitted > taken ->
		taken = submitted;
#ifdef BUG_WAITING_READ_EARLY
		seen_waiting = word_waiting;
		word_answered = 1;
#else
		atomic { seen_waiting = word_waiting; word_answered = 1 }
#endif
		if
		:: seen_waiting -> woken = 1
		:: else
		fi
	:: else
	fi
}

active proctype worker()
{
	bit seen_waiting;

	do
	:: ended -> break
	:: !ended ->
		serve();
		if
		:: skip /* goes on polling */
		:: /* lets go: arm, fence, look once more, sleep */
			!armed_is_buffered;
			atomic { buffered_armed = 1; armed_is_buffered = 1 }
#ifndef BUG_NO_WORKER_FENCE
			!armed_is_buffered;
#endif
#ifndef BUG_NO_SECOND_LOOK
			if
			:: submitted > taken -> skip
			:: else ->
#endif
end_asleep:
				(bells || ended);
				bells = 0
#ifndef BUG_NO_SECOND_LOOK
			fi
#endif
			;
			!armed_is_buffered;
			atomic { buffered_armed = 0; armed_is_buffered = 1 }
		fi
	od
}
