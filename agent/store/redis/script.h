/*
 * script.h - what runs inside the server: Lua scripts, and the hashes they are called by.
 *
 * Each touches the one key it is given in KEYS[1] and no other, so that they run on a cluster and on DragonflyDB.
 */
#ifndef RIPTIDE_STORE_REDIS_SCRIPT_H
#define RIPTIDE_STORE_REDIS_SCRIPT_H

enum redis_script {
	/*
	 * A new expiry for an entry that exists: rewrites the two fields in the envelope's head and the server's own clock.
	 * ARGV[1] expiry and expiry bucket as they stand in the envelope (16 bytes), ARGV[2] ms to live, 0 = for ever.
	 * Answers one of enum redis_touch_result.
	 */
	REDIS_SCRIPT_TOUCH,
	/*
	 * A conditional PUT or DELETE. ARGV[1] one of enum redis_change_condition, ARGV[2] the version expected as it
	 * stands in an envelope (8 bytes), ARGV[3] ms to live, 0 = for ever, empty = expired already, ARGV[4] the
	 * caller's wall clock as expiries stand in an envelope (8 bytes), ARGV[5] the envelope, empty = DELETE.
	 * Answers a string that begins with one of enum redis_change_result.
	 */
	REDIS_SCRIPT_CHANGE,
	/*
	 * A tenant's namespace, a hash. ARGV[1] '1' = next generation, ARGV[2] what is swept, 0 = nothing new.
	 * Answers two decimal numbers with a space between them: generation - 1, and swept.
	 */
	REDIS_SCRIPT_NAMESPACE,
	REDIS_SCRIPTS
};

/* A server that does not know the SHA-1 says NOSCRIPT, and is sent the text. */
struct redis_script_text {
	const char *text, *sha;
};

extern const struct redis_script_text redis_scripts[REDIS_SCRIPTS];

enum redis_touch_result {
	REDIS_TOUCH_ABSENT = 0,
	REDIS_TOUCH_DONE = 1,
	REDIS_TOUCH_FOREIGN = -1, /* what is there is no envelope: left alone */
	REDIS_TOUCH_NEWER = -2,   /* an envelope of a newer format: left alone */
};

enum redis_change_condition {
	REDIS_CHANGE_IF_ABSENT = 'A',
	REDIS_CHANGE_IF_PRESENT = 'P',
	REDIS_CHANGE_IF_VERSION = 'V',
	REDIS_CHANGE_IF_OLDER = 'O',
};

enum redis_change_result {
	REDIS_CHANGE_DONE = 'd',
	REDIS_CHANGE_MISSED = 'm', /* DELETE: the condition is met, and there is nothing */
	REDIS_CHANGE_NEWER = 'f',  /* an envelope of a newer format: left alone */
	/* The condition is not met. The stamp of what is there follows: writer id, version, as in an envelope. */
	REDIS_CHANGE_CONFLICT = 'c',
	REDIS_CHANGE_CONFLICT_DEAD =
		't', /* the same, but what is there is a tombstone, expired, or nothing (stamp 0) */
};

#define REDIS_CHANGE_STAMP_BYTES 12u

#endif
