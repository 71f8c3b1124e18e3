/*
 * ring.pml - the hot ring: one writer that may be killed between any two steps, its successor, and readers.
 *
 * A cell of the ring holds an entry as position, key and two halves of a value; the value of version v is the pair (v, v).
 * Memory is sequentially consistent here: fences are the litmus files' business.
 *
 * Holds: what a reader accepts is whole, of its key, and not older than what was acknowledged before it began.
 * -DBUG_… removes one safety each and must be refuted.
 */
#define SIZE 3  /* cells of the ring */
#define PUTS 5  /* appends in all */
#define KILLS 1
#define KEYS 2
#define NONE 0

byte head = SIZE;  /* shared; positions start at the ring's size, so that 0 means empty */
byte tail = SIZE;
byte word[KEYS];
byte word2[KEYS];  /* BUG_TWO_WORDS only */
byte cell_position[SIZE];
byte cell_key[SIZE];
byte cell_low[SIZE];
byte cell_high[SIZE];
byte floor_of[KEYS]; /* acknowledged version */
byte key_of[PUTS + 1]; /* of a version: what was ever put under it */
byte puts = 0;       /* versions drawn */
byte kills = 0;
bit cleared = 0;

/* Between any two steps the writer may die; everything private to it is gone, everything stored stays. */
#define MAY_DIE if :: kills < KILLS -> kills++; goto dead :: skip fi

inline store_head() { head = next_head }
inline store_word()
{
#ifdef BUG_TWO_WORDS
	if
	:: word2[key] == NONE -> word2[key] = word[key]
	:: else
	fi;
#endif
	word[key] = position
}
inline store_tail() { tail = next_tail }

proctype writer()
{
	byte key, position, version, next_head, next_tail, k;
	byte my_head, my_tail;

adopt:
	my_head = head;
	my_tail = tail;
	/* The index is scanned, not the log: a word that does not lead to an entry of its key is set to 0. */
	k = 0;
	do
	:: k < KEYS ->
		if
		:: word[k] != NONE && !(word[k] >= my_tail && word[k] < my_head &&
		   cell_position[word[k] % SIZE] == word[k] && cell_key[word[k] % SIZE] == k) -> word[k] = NONE
		:: else
		fi;
		k++
	:: else -> break
	od;
	do
	:: puts < PUTS ->
		puts++;
		version = puts;
		select(key : 0 .. KEYS - 1);
		key_of[version] = key;
		position = my_head;
		next_head = my_head + 1;
		next_tail = my_tail;
		if
		:: next_head - my_tail > SIZE -> next_tail = next_head - SIZE
		:: else
		fi;
#ifdef BUG_WORD_BEFORE_BYTES
		store_word();
		MAY_DIE;
#endif
#ifndef BUG_TAIL_AFTER_BYTES
		store_tail();
		MAY_DIE;
#endif
#ifndef BUG_HEAD_AFTER_WORD
		store_head();
		MAY_DIE;
#endif
		cell_position[position % SIZE] = position;
		cell_key[position % SIZE] = key;
		cell_low[position % SIZE] = version;
		MAY_DIE;
		cell_high[position % SIZE] = version;
		MAY_DIE;
#ifdef BUG_TAIL_AFTER_BYTES
		store_tail();
		MAY_DIE;
#endif
#ifndef BUG_WORD_BEFORE_BYTES
		store_word();
		MAY_DIE;
#endif
#ifdef BUG_HEAD_AFTER_WORD
		store_head();
		MAY_DIE;
#endif
		my_head = next_head;
		my_tail = next_tail;
		floor_of[key] = version
	:: !cleared && puts > 2 ->
		cleared = 1;
		my_tail = my_head;
		tail = my_tail
	:: puts == PUTS -> goto done
	od;
dead:
	goto adopt;
done:
	skip
}

proctype reader()
{
	byte key, wanted, t0, w, low, high, k;

	select(key : 0 .. KEYS - 1);
	wanted = floor_of[key];
	t0 = tail;
#ifdef BUG_TWO_WORDS
	if
	:: w = word[key]
	:: word2[key] != NONE -> w = word2[key]
	fi;
#else
	w = word[key];
#endif
	if
	:: w == NONE || w < t0 || w >= t0 + SIZE -> goto miss
	:: else
	fi;
	if
	:: cell_position[w % SIZE] != w -> goto miss
	:: else
	fi;
	k = cell_key[w % SIZE];
	if
	:: k != key -> goto miss
	:: else
	fi;
	low = cell_low[w % SIZE];
	high = cell_high[w % SIZE];
#ifndef BUG_NO_TAIL_CHECK
	if
	:: tail > w -> goto miss /* void: the protocol looks again */
	:: else
	fi;
#endif
	assert(low == high && key_of[low] == key); /* not torn, not another key's */
	assert(low >= wanted);                     /* not older than acknowledged */
miss:
	skip
}

init {
	atomic {
		run writer();
		run reader()
	}
}
