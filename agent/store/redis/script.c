#include "agent/store/redis/script.h"

#include "agent/store/envelope.h"

/* The script spells numbers of envelope.h out. */
_Static_assert(ENVELOPE_OFFSET_EXPIRY == 48 && ENVELOPE_OFFSET_BUCKET == 56,
	       "expiry and bucket are neighbours at 48");
_Static_assert(ENVELOPE_HEAD_BYTES == 72, "the head has 72 bytes");
_Static_assert(ENVELOPE_MAGIC == 0x45545052 && ENVELOPE_FORMAT == 1, "the head begins with RPTE and 1");

/* A lone SETRANGE would make an entry out of nothing, and would damage what somebody else keeps there. */
const char redis_script_touch[] = "local h=redis.call('GETRANGE',KEYS[1],0,71) "
				  "if #h==0 then return 0 end "
				  "if #h<72 or string.sub(h,1,4)~='RPTE' then return -1 end "
				  "if string.byte(h,5)~=1 then return -2 end "
				  "redis.call('SETRANGE',KEYS[1],48,ARGV[1]) "
				  "if ARGV[2]=='0' then redis.call('PERSIST',KEYS[1]) "
				  "else redis.call('PEXPIRE',KEYS[1],ARGV[2]) end "
				  "return 1";
