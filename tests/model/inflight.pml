/*
 * inflight.pml - one key: what may be published, patched and confirmed while others write it.
 *
 * Operations of the agent: GET; SET, a whole value, through the writer, whose own changes the feed is not told, or
 * through the pool; by script PATCH (a new version from the one before, which is told) and TOUCH (another
 * deadline, the same version). Others SET and TOUCH. Of a key the server remembers only who changed it last in
 * this turn of its loop. Answers and what the feed tells come in any order. Any change that is told may be taken
 * for an echo of our own and be looked up (a check), and two checks may answer out of order. Connections are lost
 * with writes in flight, which the server may execute at any time until it has killed them; what is not told
 * meanwhile, the fence covers that follows.
 *
 * Holds: when all that was told has been heard and no check is pending, a copy of the present epoch is what the
 * server has; a write that was given up is never executed after a later one of ours. -DBUG_… must be refuted.
 */
#ifndef FOREIGN
#define FOREIGN 1 /* writes of others */
#endif
#ifndef OWN
#define OWN 2
#endif
#ifndef LOSSES
#define LOSSES 1 /* of feed and writer, or of a connection of the pool */
#endif
#define NONE 0

mtype = { IDLE, ASKED, EXECUTED };        /* a question to the server */
mtype = { GET, SET, PATCH, TOUCH };
mtype = { AWAY, CONNECTING, WORKS };      /* feed and writer, as the agent knows them */

typedef entry {
	byte version;
	byte base;    /* the last write of a whole value */
	byte deadline /* the last write that set it */
}

/* What is compared: by versions alone, a touch by others would hide behind one of ours. */
#ifdef BUG_DEADLINE_IGNORED
#define STAMP(entry) (entry.version * 16)
#else
#define STAMP(entry) (entry.version * 16 + entry.deadline)
#endif

/* the server */
entry stored;
byte drawn = 1;      /* versions */
byte foreign = 0;
byte newest_own = 0; /* executed */
bit is_tracked = 0;
bit is_dirty = 0;
bit last_was_writer = 0;
byte told = 0;       /* messages in the feed */

/* in the socket of a lost connection */
mtype limbo = IDLE;
byte limbo_version = 0;
mtype kill = IDLE;

/* the agent */
mtype links = AWAY;
bit armed = 0;
byte losses = 0;
byte own = 0;
entry copy; /* of shared memory; version NONE: there is none */
bit copy_is_of_epoch = 0;

mtype op = IDLE;
mtype op_kind = GET;
bit op_on_writer = 0;
bit op_is_of_epoch = 0;
bit op_is_marked = 0;
byte op_noted = NONE;
byte op_previous = NONE; /* the version that a patch found */
entry result;

mtype probe = IDLE; /* of the revalidation */
bit probe_is_of_epoch = 0;
byte probe_stamp = 0;
byte probe_answer = 0;

mtype check[2] = IDLE;
byte check_stamp[2];

#define SET_ENTRY(to, v, b, d) to.version = v; to.base = b; to.deadline = d

inline remove_copy()
{
	SET_ENTRY(copy, NONE, 0, 0);
	copy_is_of_epoch = 0
}

inline fence()
{
	copy_is_of_epoch = 0;
	op_is_of_epoch = 0;
#ifndef BUG_PROBE_OF_BEFORE
	probe_is_of_epoch = 0
#endif
}

inline end_op()
{
	op = IDLE;
	op_kind = GET;
	op_on_writer = 0;
	op_is_of_epoch = 0;
	op_is_marked = 0;
	op_noted = NONE;
	op_previous = NONE;
	SET_ENTRY(result, NONE, 0, 0)
}

/* ---- the server ---- */

inline execute(kind, version_of_it, by_writer)
{
	if
	:: kind == SET -> SET_ENTRY(stored, version_of_it, version_of_it, version_of_it)
	:: kind == PATCH -> stored.version = version_of_it
	:: kind == TOUCH -> stored.deadline = version_of_it
	fi;
	is_dirty = is_tracked;
	last_was_writer = is_tracked && by_writer
}

inline execute_op()
{
	op_previous = stored.version;
	if
	:: op_kind != GET ->
		newest_own = result.version;
		execute(op_kind, result.version, op_on_writer)
	:: else
	fi;
	SET_ENTRY(result, stored.version, stored.base, stored.deadline);
	if
	:: op_kind != PATCH -> op_previous = NONE
	:: else
	fi;
	op = EXECUTED
}

active proctype server()
{
	atomic { SET_ENTRY(stored, 1, 1, 1) }
end:
	do
	:: atomic { foreign < FOREIGN ->
		foreign++;
		drawn++;
		if
		:: execute(SET, drawn, 0)
		:: execute(TOUCH, drawn, 0)
		fi }
	:: atomic { op == ASKED -> execute_op() }
	:: atomic { probe == ASKED -> probe_answer = STAMP(stored); probe = EXECUTED }
	:: atomic { check[0] == ASKED -> check_stamp[0] = STAMP(stored); check[0] = EXECUTED }
	:: atomic { check[1] == ASKED -> check_stamp[1] = STAMP(stored); check[1] = EXECUTED }
	/* The turn of the loop ends. */
	:: atomic { is_dirty ->
		is_dirty = 0;
		if
		:: !last_was_writer -> told++
		:: else
		fi;
		last_was_writer = 0 }
	/* What was given up: no connection of ours that the server knows by now is the one it came by. */
	:: atomic { limbo != IDLE ->
		assert(limbo_version > newest_own);
		newest_own = limbo_version;
		execute(limbo, limbo_version, 0);
		limbo = IDLE;
		limbo_version = 0 }
	:: atomic { kill == ASKED -> limbo = IDLE; limbo_version = 0; kill = EXECUTED }
	od
}

/* ---- the agent ---- */

inline forget()
{
#ifndef BUG_NO_REMOVAL
	remove_copy();
#endif
#ifndef BUG_MARK_IGNORED
	op_is_marked = (op != IDLE)
#endif
}

inline take_check(i)
{
#ifndef BUG_CHECK_IGNORED
#ifndef BUG_ANSWER_NOT_NOTED
	if
	:: op != IDLE ->
#ifndef BUG_LAST_NOTE_COUNTS
		if
		:: op_noted != NONE && op_noted != check_stamp[i] -> op_is_marked = 1
		:: else
		fi;
#endif
		op_noted = check_stamp[i]
	:: else
	fi;
#endif
	if
	:: copy.version != NONE && STAMP(copy) != check_stamp[i] -> remove_copy()
	:: else
	fi;
#endif
	/* Which place a check has means nothing: the first is filled first. */
	check[i] = check[1];
	check_stamp[i] = check_stamp[1];
	check[1] = IDLE;
	check_stamp[1] = 0
}

inline publish()
{
	if
#ifdef BUG_EPOCH_IGNORED
	:: !op_is_marked && (op_noted == NONE || op_noted == STAMP(result)) ->
#else
	:: op_is_of_epoch && !op_is_marked && (op_noted == NONE || op_noted == STAMP(result)) ->
#endif
		SET_ENTRY(copy, result.version, result.base, result.deadline);
		copy_is_of_epoch = 1
	:: else -> remove_copy()
	fi
}

inline patch_copy()
{
	if
#ifdef BUG_PATCH_UNCOMPARED
	:: copy.version != NONE ->
#else
	:: copy.version != NONE && copy.version == op_previous ->
#endif
		copy.version = result.version
	:: else -> remove_copy()
	fi
}

/* A copy of another version than the one that was touched is old, and goes when that is told. */
inline touch_copy()
{
	if
	:: copy.version != NONE -> copy.deadline = result.deadline
	:: else
	fi
}

inline take_probe()
{
	if
	:: copy.version != NONE && STAMP(copy) == probe_stamp && probe_answer != probe_stamp -> remove_copy()
	:: copy.version != NONE && STAMP(copy) == probe_stamp && probe_answer == probe_stamp && probe_is_of_epoch ->
		copy_is_of_epoch = 1
	:: else
	fi;
	probe = IDLE;
	probe_is_of_epoch = 0;
	probe_stamp = 0;
	probe_answer = 0
}

/* Its outcome is unknown. */
inline lose_write()
{
	if
	:: op == ASKED -> limbo = op_kind; limbo_version = result.version
	:: op == EXECUTED
	fi;
	kill = ASKED;
	remove_copy();
	end_op()
}

#ifdef BUG_NO_BARRIER
#define MAY_WRITE (own < OWN)
#define MAY_ARM (links == WORKS && !armed)
#else
#define MAY_WRITE (own < OWN && kill == IDLE)
#define MAY_ARM (links == WORKS && !armed && kill == IDLE)
#endif

inline begin_write(kind)
{
	own++;
	drawn++;
	op = ASKED;
	op_kind = kind;
	op_is_of_epoch = 1;
	result.version = drawn
}

active proctype agent()
{
end:
	do
	/* operations, one after the other */
	:: atomic { op == IDLE && !copy_is_of_epoch -> op = ASKED; op_is_of_epoch = 1 }
	:: atomic { op == IDLE && MAY_WRITE -> begin_write(SET); op_on_writer = (links == WORKS) }
	:: atomic { op == IDLE && MAY_WRITE -> begin_write(SET) } /* a script, or too large for the writer */
	:: atomic { op == IDLE && MAY_WRITE -> begin_write(PATCH) }
	:: atomic { op == IDLE && MAY_WRITE -> begin_write(TOUCH) }
	:: atomic { op == EXECUTED ->
		if
		:: op_kind == GET || op_kind == SET -> publish()
		:: op_kind == PATCH -> patch_copy()
		:: op_kind == TOUCH -> touch_copy()
		fi;
		end_op() }
	/* the revalidation */
	:: atomic { probe == IDLE && copy.version != NONE && !copy_is_of_epoch ->
		probe = ASKED;
		probe_is_of_epoch = 1;
		probe_stamp = STAMP(copy) }
	:: atomic { probe == EXECUTED -> take_probe() }
	/* what the feed tells */
	:: atomic { told > 0 && links != AWAY ->
		if
		:: links == CONNECTING
		:: links == WORKS -> forget()
		:: links == WORKS && check[0] == IDLE -> check[0] = ASKED
		:: links == WORKS && check[0] != IDLE && check[1] == IDLE -> check[1] = ASKED
		fi;
		told-- }
	:: atomic { check[0] == EXECUTED -> take_check(0) }
	:: atomic { check[1] == EXECUTED -> take_check(1) }
	/* links and connections */
	:: atomic { links == AWAY -> links = CONNECTING; is_tracked = 1 }
	:: atomic { links == CONNECTING -> links = WORKS }
	:: atomic { MAY_ARM ->
		armed = 1;
#ifdef BUG_NO_SECOND_FENCE
		if
		:: losses == 0 -> fence()
		:: else
		fi
#else
		fence()
#endif
		}
	:: atomic { kill == EXECUTED -> kill = IDLE }
	:: atomic { links == WORKS && losses < LOSSES -> /* feed and writer; the latter may answer what it has in flight */
		losses++;
		links = AWAY;
		is_tracked = 0;
		is_dirty = 0;
		last_was_writer = 0;
		told = 0;
		armed = 0;
		fence();
		if
		:: op != IDLE && op_on_writer -> lose_write()
		:: op_on_writer = 0
		fi }
	:: atomic { op != IDLE && op_kind != GET && !op_on_writer && losses < LOSSES -> /* one of the pool */
		losses++;
		armed = 0;
		fence();
		lose_write() }
	od
}

#define ALL_IS_HEARD (armed && !is_dirty && told == 0 && limbo == IDLE && check[0] == IDLE && check[1] == IDLE && \
	(op == IDLE || op_kind == GET))

active proctype reader()
{
end:
	atomic { ALL_IS_HEARD && copy_is_of_epoch && (copy.version != stored.version || copy.base != stored.base ||
		copy.deadline != stored.deadline) -> assert(false) }
}
