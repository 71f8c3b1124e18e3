/*
 * slot.pml - one slot of a request channel: submit, take, answer, give up, use again.
 *
 * The client makes REQUESTS requests; on each it may give up at any moment while the worker has it. Request and answer share
 * the slot's bytes. Holds: an answer read is the answer to that request; what the worker takes is what was asked; the slot
 * is not lost. -DBUG_… must be refuted.
 */
#define REQUESTS 3

mtype = { FREE, FILLING, SUBMITTED, TAKEN, ANSWERED, ABANDONED };

mtype state = FREE;
byte generation = 0;
byte bytes = 0;    /* the slot's bytes: a request's number, or 100 + it as its answer */
byte finished = 0; /* requests that ended, answered or given up */
bit ended = 0;

active proctype client()
{
	byte number = 0;

	do
	:: number < REQUESTS ->
		number++;
		state == FREE; /* the private free list hands out a slot that is free again */
		atomic { state = FILLING; generation++ }
		bytes = number;
		state = SUBMITTED;
		if
		:: state == ANSWERED ->
			assert(bytes == 100 + number);
			state = FREE
		:: /* the deadline: one compare-and-swap from what the word is */
			if
			:: atomic { (state == SUBMITTED || state == TAKEN) ->
#ifdef BUG_FREE_AT_ABANDON
				state = FREE }
#else
				state = ABANDONED }
#endif
			:: atomic { state == ANSWERED -> skip };
				assert(bytes == 100 + number);
				state = FREE
			fi
		fi;
		finished++
	:: else -> break
	od;
	state == FREE; /* not lost: the last one comes back, too */
	ended = 1
}

active proctype worker()
{
	byte mine, request;
	bit taken;

end_idle:
	do
	:: ended -> break
	:: atomic { state == ABANDONED -> state = FREE }
	:: atomic { state == SUBMITTED -> state = TAKEN; mine = generation };
		request = bytes; /* copied once */
		assert(request < 100);
		/* ... work ... */
		bytes = 100 + request; /* a client that freed the slot early may be filling the next request */
#ifdef BUG_PLAIN_ANSWER
		state = ANSWERED
#else
		atomic {
			if
			:: state == TAKEN && generation == mine -> state = ANSWERED
			:: state == ABANDONED && generation == mine -> state = FREE
			:: else -> skip
			fi
		}
#endif
	od
}
