/*
 * script.h - what runs inside the server: one Lua script, and the hash it is called by.
 */
#ifndef RIPTIDE_STORE_REDIS_SCRIPT_H
#define RIPTIDE_STORE_REDIS_SCRIPT_H

/*
 * A new expiry for an entry that exists: rewrites the two fields in the envelope's head and the server's own clock.
 * KEYS[1]; ARGV[1] expiry and expiry bucket as they stand in the envelope (16 bytes), ARGV[2] ms to live, 0 = for ever.
 * Answers one of enum redis_touch_result.
 */
extern const char redis_script_touch[];

/* SHA-1 of the script, for EVALSHA. A server that does not know it says NOSCRIPT, and is sent the script. */
#define REDIS_SCRIPT_TOUCH_SHA "aafa233898f2efafef195aa9ed21bc7fad9b8fd1"

enum redis_touch_result {
	REDIS_TOUCH_ABSENT = 0,
	REDIS_TOUCH_DONE = 1,
	REDIS_TOUCH_FOREIGN = -1, /* what is there is no envelope: left alone */
	REDIS_TOUCH_NEWER = -2,   /* an envelope of a newer format: left alone */
};

#endif
