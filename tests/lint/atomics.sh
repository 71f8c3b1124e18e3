#!/bin/sh
# atomics.sh - in the shared layer and the library only shm/order.h touches atomics.
found=$(find shm client-lib -name '*.[ch]' ! -path shm/order.h 2>/dev/null | sort |
	xargs grep -nE '__atomic_|__sync_|stdatomic|\<_Atomic\>|\<atomic_[a-z]+' /dev/null)
[ -z "$found" ] && exit 0
echo "$found"
echo 'use the functions of shm/order.h'
exit 1
