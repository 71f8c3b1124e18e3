/*
 * Versions are 64 bits, more than a Lua number holds, and `<` of Lua strings goes by the locale of the server. So two
 * stamps (writer id, then version, little-endian) are compared byte by byte from their ends: version first, then writer.
 */
#include "agent/store/redis/script.h"

#include "agent/store/envelope.h"

/* The scripts spell numbers of envelope.h out. */
_Static_assert(ENVELOPE_OFFSET_EXPIRY == 48 && ENVELOPE_OFFSET_BUCKET == 56,
	       "expiry and bucket are neighbours at 48");
_Static_assert(ENVELOPE_OFFSET_FLAGS == 6 && ENVELOPE_FLAG_TOMBSTONE == 1, "the lowest bit at 6 is the tombstone's");
_Static_assert(ENVELOPE_OFFSET_VERSION == 8 && ENVELOPE_OFFSET_WRITER == 32, "version at 8, writer at 32");
_Static_assert(ENVELOPE_HEAD_BYTES == 72, "the head has 72 bytes");
_Static_assert(ENVELOPE_MAGIC == 0x45545052 && ENVELOPE_FORMAT == 1, "the head begins with RPTE and 1");

/* A lone SETRANGE would make an entry out of nothing, and would damage what somebody else keeps there. */
static const char touch_text[] = "local h=redis.call('GETRANGE',KEYS[1],0,71) "
				 "if #h==0 then return 0 end "
				 "if #h<72 or string.sub(h,1,4)~='RPTE' then return -1 end "
				 "if string.byte(h,5)~=1 then return -2 end "
				 "redis.call('SETRANGE',KEYS[1],48,ARGV[1]) "
				 "if ARGV[2]=='0' then redis.call('PERSIST',KEYS[1]) "
				 "else redis.call('PEXPIRE',KEYS[1],ARGV[2]) end "
				 "return 1";

/*
 * s: stamp of what is there. live: there, no tombstone, and not expired by the caller's clock, as its readers see it.
 * What is no envelope is live and older than all.
 */
static const char change_text[] =
	"local k,c,t,v=KEYS[1],ARGV[1],ARGV[3],ARGV[5] "
	"local h=redis.call('GETRANGE',k,0,71) "
	"local live=#h>0 or redis.call('EXISTS',k)==1 "
	"local s,ours,expired=string.rep('\\0',12),false,false "
	"local function stamp(e) return string.sub(e,33,36)..string.sub(e,9,16) end "
	"local function less(a,b) for i=#a,1,-1 do local x,y=string.byte(a,i),string.byte(b,i) "
	"if x~=y then return x<y end end return false end "
	"if #h==72 and string.sub(h,1,4)=='RPTE' then "
	"if string.byte(h,5)~=1 then return 'f' end "
	"local e=string.sub(h,49,56) "
	"ours,s=true,stamp(h) "
	"expired=e~=string.rep('\\0',8) and not less(ARGV[4],e) "
	"live=not expired and string.byte(h,7)%2==0 end "
	"local met=false "
	"if c=='A' then met=not live "
	"elseif c=='P' then met=live "
	"elseif c=='V' then met=live and ours and string.sub(s,5,12)==ARGV[2] "
	"elseif c=='O' then met=expired or not ours or less(s,stamp(v)) end "
	"if not met then return (live and 'c' or 't')..s end "
	"if v=='' and not live then return 'm' end "
	"if v=='' or t=='' then redis.call('DEL',k) "
	"elseif t=='0' then redis.call('SET',k,v) "
	"else redis.call('SET',k,v,'PX',t) end "
	"return 'd'";

static const char namespace_text[] = "local k=KEYS[1] "
				     "if ARGV[1]=='1' then redis.call('HINCRBY',k,'g',1) end "
				     "local s=redis.call('HGET',k,'s') or '0' "
				     "if ARGV[2]~='0' and tonumber(ARGV[2])>(tonumber(s) or 0) then "
				     "s=ARGV[2] redis.call('HSET',k,'s',s) end "
				     "return (redis.call('HGET',k,'g') or '0')..' '..s";

const struct redis_script_text redis_scripts[REDIS_SCRIPTS] = {
	[REDIS_SCRIPT_TOUCH] = {touch_text, "aafa233898f2efafef195aa9ed21bc7fad9b8fd1"},
	[REDIS_SCRIPT_CHANGE] = {change_text, "70a191e0e66d8139712da6df8852134db75f221b"},
	[REDIS_SCRIPT_NAMESPACE] = {namespace_text, "08ea53eb58e59dbd5f3aad3d854766fa1181663d"},
};
