/*
 * lease.pml - trust by canary: how long a copy may be served after somebody on another host wrote its key.
 *
 * A server tells the agent's feed what was changed, in batches, the keys of one batch in any order. It does so for
 * the agent's writer connection, and stops without a word when that dies, while the feed lives on and answers. The
 * agent writes canaries through a third connection, one at a time, and trusts for LEASE from the time when the
 * canary *before* the one that was told was sent. A change that may be an echo of its own is looked up first (a
 * check), and proofs that came after it wait for that, in the way of agent/coherence/lease.c. Every link may break
 * at any moment, noticed late or never.
 *
 * Holds: no read that starts more than LEASE after a write had returned is answered, as verified, with an older
 * version. A write returns when it is executed, and a fence forgets all copies: the worst case of the one, the
 * same as unverified of the other. -DBUG_… must be refuted. -DWITHOUT_FENCE_ON_LOSS holds: no proofs after the
 * loss, and arming fences.
 */
#define LEASE 1
#ifndef END
#define END 4 /* the last moment */
#endif
#ifndef WRITES
#define WRITES 1
#endif
#define ARMINGS 2
#define CHECKS 2
#define NEVER 0
#define NO_COPY 0

mtype = { IDLE, ASKED, EXECUTED };    /* a question to the server */
mtype = { AWAY, CONNECTING, WORKS };  /* feed and writer, as the agent knows them */
mtype = { KEY, CANARY };              /* what the feed tells */

byte now = 1;

/* the server */
byte version = 1;
byte returned[WRITES + 2]; /* when the write of a version had returned */
bit writer_lives = 0;
bit feed_lives = 0;
bit key_is_dirty = 0; /* in the batch of this turn of the server's loop */
bit canary_is_dirty = 0;
chan feed = [4] of { mtype };

/* the agent */
mtype links = AWAY;
bit armed = 0;
byte armings = 0;
byte copy = NO_COPY; /* the version that shared memory has, of the present epoch */
mtype load = IDLE;
bit load_is_of_epoch = 0;
bit load_is_marked = 0;
byte load_version = 0;
byte load_noted = 0;

bit canary_is_out = 0;
byte canary_begun = NEVER;
byte canary_previous = NEVER;
byte canaries_sent = 0; /* on their way to the server */
bit writer_answered = 0; /* BUG_PROOF_BY_WRITER only */

byte proven = NEVER; /* the lease ends at proven + LEASE */
bit has_waiting = 0;
byte waiting = NEVER;
byte latest = NEVER;
bit round = 0;
byte pending[2];
mtype check[CHECKS] = IDLE;
bit check_round[CHECKS];
byte check_version[CHECKS];

/* ---- lease.c ---- */

inline extend(complete)
{
	if
	:: complete > proven -> proven = complete
	:: else
	fi
}

inline prove(complete)
{
#ifdef BUG_NOT_WITHHELD
	extend(complete);
#else
	if
	:: has_waiting && complete > latest -> latest = complete
	:: has_waiting && complete <= latest
	:: !has_waiting && pending[0] + pending[1] == 0 -> extend(complete)
	:: !has_waiting && pending[0] + pending[1] > 0 ->
		has_waiting = 1;
		waiting = complete;
		round = 1 - round
	fi
#endif
}

inline settle()
{
	do
	:: has_waiting && pending[1 - round] == 0 ->
		extend(waiting);
		has_waiting = (latest != NEVER);
		waiting = latest;
		latest = NEVER;
		if
		:: has_waiting -> round = 1 - round
		:: else
		fi
	:: else -> break
	od
}

/* Those from now on have another name: an earlier one that is still on its way tells nobody anything. */
inline rename_canaries()
{
	canary_is_out = 0;
	canary_begun = NEVER;
	canary_previous = NEVER;
#ifndef BUG_OLD_NAMES
	canaries_sent = 0;
	canary_is_dirty = 0
#endif
}

inline fence()
{
	copy = NO_COPY;
	load_is_of_epoch = 0;
	waiting = NEVER;
	latest = NEVER;
	rename_canaries()
}

/* ---- the world ---- */

active proctype clock()
{
end:
	do
	:: now < END -> now++
	od
}

active proctype writers()
{
end:
	do
	:: atomic { version <= WRITES ->
		version++;
		returned[version] = now;
		key_is_dirty = writer_lives }
	od
}

active proctype server()
{
end:
	do
	:: atomic { load == ASKED -> load_version = version; load = EXECUTED }
	:: atomic { check[0] == ASKED -> check_version[0] = version; check[0] = EXECUTED }
	:: atomic { check[1] == ASKED -> check_version[1] = version; check[1] = EXECUTED }
#ifdef BUG_PROOF_BY_PING
	:: atomic { canaries_sent > 0 && feed_lives && nfull(feed) -> canaries_sent--; feed!CANARY }
#else
#ifdef BUG_PROOF_BY_WRITER
	:: atomic { canaries_sent > 0 && writer_lives -> canaries_sent--; writer_answered = 1 }
#else
	:: atomic { canaries_sent > 0 -> canaries_sent--; canary_is_dirty = writer_lives }
#endif
#endif
	/* The turn of the loop ends: the batch leaves. */
	:: atomic { key_is_dirty && !canary_is_dirty && nfull(feed) ->
		key_is_dirty = 0;
		if
		:: feed_lives -> feed!KEY
		:: else
		fi }
	:: atomic { canary_is_dirty && len(feed) < 3 ->
		if
		:: !feed_lives
		:: feed_lives && !key_is_dirty -> feed!CANARY
		:: feed_lives && key_is_dirty -> feed!CANARY; feed!KEY
		:: feed_lives && key_is_dirty -> feed!KEY; feed!CANARY
		fi;
		key_is_dirty = 0;
		canary_is_dirty = 0 }
	/* A connection dies; the agent may not have noticed. The batch goes with the client that it was for. */
	:: atomic { writer_lives -> writer_lives = 0; key_is_dirty = 0; canary_is_dirty = 0 }
	:: feed_lives -> feed_lives = 0
	od
}

/* ---- the agent ---- */

inline forget()
{
	copy = NO_COPY;
	load_is_marked = (load != IDLE)
}

inline begin_check(i)
{
	check[i] = ASKED;
	check_round[i] = round;
	pending[round]++
}

inline end_check(i)
{
	pending[check_round[i]]--;
	/* Which place a check has means nothing: the first is filled first. */
	check[i] = check[1];
	check_version[i] = check_version[1];
	check_round[i] = check_round[1];
	check[1] = IDLE;
	check_version[1] = 0;
	check_round[1] = 0;
	settle()
}

inline take_check(i)
{
	if
	:: /* the answer */
		check[i] == EXECUTED;
		if
		:: copy != check_version[i] -> copy = NO_COPY
		:: else
		fi;
		if
		:: load != IDLE ->
			if
			:: load_noted != 0 && load_noted != check_version[i] -> load_is_marked = 1
			:: else
			fi;
			load_noted = check_version[i]
		:: else
		fi
	:: /* none in time */
		check[i] != IDLE;
		forget()
	fi;
	end_check(i)
}

inline take_canary()
{
	if
	:: armed && canary_is_out ->
		canary_is_out = 0;
#ifdef BUG_PRESENT_CANARY
		prove(canary_begun);
#else
		if
		:: canary_previous != NEVER -> prove(canary_previous)
		:: else
		fi;
#endif
		canary_previous = canary_begun;
		canary_begun = NEVER
	:: else
	fi
}

inline end_load()
{
	if
	:: load_is_of_epoch && !load_is_marked && (load_noted == 0 || load_noted == load_version) -> copy = load_version
	:: else -> copy = NO_COPY
	fi;
	load = IDLE;
	load_is_of_epoch = 0;
	load_is_marked = 0;
	load_version = 0;
	load_noted = 0
}

inline drop_links()
{
	links = AWAY;
	writer_lives = 0;
	feed_lives = 0;
	key_is_dirty = 0;
	canary_is_dirty = 0;
	do
	:: feed?_
	:: empty(feed) -> break
	od
}

active proctype agent()
{
end:
	do
	/* feed and writer: begun, armed, lost or given up */
	:: atomic { links == AWAY && armings < ARMINGS ->
		armings++;
		writer_lives = 1;
		feed_lives = 1;
		links = CONNECTING }
	:: atomic { links == CONNECTING ->
		links = WORKS;
		if
		:: !armed ->
			armed = 1;
#ifndef BUG_NO_FENCE_WHEN_ARMED
			fence()
#endif
		:: else
		fi }
	:: atomic { links == WORKS ->
		drop_links();
#ifndef BUG_NO_FENCE_ON_LOSS
		armed = 0;
#ifdef WITHOUT_FENCE_ON_LOSS
		rename_canaries()
#else
		fence()
#endif
#endif
		}
	/* canaries */
	:: atomic { links == WORKS && armed && !canary_is_out ->
		canary_is_out = 1;
		canary_begun = now;
		canaries_sent++ }
#ifdef BUG_TWO_CANARIES
	:: atomic { links == WORKS && armed && canary_is_out && canaries_sent < 2 ->
		canary_previous = canary_begun;
		canary_begun = now;
		canaries_sent++ }
#endif
	:: atomic { writer_answered -> writer_answered = 0; take_canary() }
	/* what the feed tells */
	:: atomic { links != AWAY && feed?[CANARY] -> feed?CANARY; take_canary() }
	:: atomic { links != AWAY && feed?[KEY] ->
		feed?KEY;
		if
		:: links == CONNECTING
		:: links == WORKS -> forget()
		:: links == WORKS && check[0] == IDLE -> begin_check(0)
		:: links == WORKS && check[0] != IDLE && check[1] == IDLE -> begin_check(1)
		fi }
	:: atomic { check[0] != IDLE -> take_check(0) }
	:: atomic { check[1] != IDLE -> take_check(1) }
	/* a get that found nothing in shared memory */
	:: atomic { load == IDLE && copy == NO_COPY -> load = ASKED; load_is_of_epoch = 1 }
	:: atomic { load == EXECUTED -> end_load() }
	od
}

#define IS_VERIFIED (copy != NO_COPY && proven != NEVER && now < proven + LEASE)

active proctype reader()
{
end:
	atomic { IS_VERIFIED && copy != version && now > returned[copy + 1] + LEASE -> assert(false) }
}
