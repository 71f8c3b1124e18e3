#!/bin/sh
# room.sh - runs a command in a room of its own: own processes, own /dev/shm, own loopback network.
#
#   tests/room.sh COMMAND...    its exit status; 125: this machine or user cannot make rooms
#
# Several test programs may run side by side then: none sees the objects, processes and ports of another, and what one leaves
# behind is surely its own. When the room's first process ends, the kernel ends all others in it.
set -u
[ $# -gt 0 ] || { sed -n '2,4p' "$0"; exit 2; }
exec unshare --mount --net --pid --fork --kill-child --mount-proc sh -c '
	mount --make-rprivate / &&
	mount -t tmpfs -o mode=1777 tmpfs /dev/shm &&
	mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns &&
	ip link set lo up || exit 125
	"$@"' room "$@"
