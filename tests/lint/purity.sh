#!/bin/sh
# purity.sh BUILD_DIR - the objects of shm/ import nothing but mem*, besides each other.
archive=$1/shm.a
[ -e "$archive" ] || { echo "no $archive"; exit 77; }
nm --defined-only "$archive" | awk 'NF == 3 { print $3 }' | sort -u >"$1/.shm-defined"
found=$(nm -u -A "$archive" | awk -v defined="$1/.shm-defined" '
BEGIN {
	while ((getline name <defined) > 0)
		ok[name] = 1
	ok["memcpy"] = ok["memcmp"] = ok["memset"] = ok["memmove"] = ok["memchr"] = 1
	ok["_GLOBAL_OFFSET_TABLE_"] = 1
}
!($NF in ok) { print }')
rm -f "$1/.shm-defined"
[ -z "$found" ] && exit 0
echo "$found"
echo 'shm/ may import only memcpy, memcmp, memset, memmove, memchr; system calls belong in shm/os/'
exit 1
