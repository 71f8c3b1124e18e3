#!/bin/sh
# deps.sh [--print | --missing] GROUP... - the Debian packages RipTide needs; installs those that are missing.
#
# Groups: build   to compile the agent, the library and the tools
#         test    to run the tests
#         lint    lint steps and models that are skipped where their tool is missing
#         bench   the peers that `make bench` measures against
#
#   deps.sh build test     install what is missing (as root, or by sudo without a password); else say what is missing
#   deps.sh build +lint    the same, but go on where a group marked by + cannot be installed
#   deps.sh --print build  one package per line
#   deps.sh --missing test only what is not installed; status 1 if there is something
#
# For Debian 12 and 13. Where there is no dpkg, the compiler has the last word: this script says so and succeeds.
# No installed server is left running: redis-server is only ever started by the tests, on sockets of their own.
set -u
export LC_ALL=C

packages()
{
	case $1 in
	build)
		echo gcc make pkg-config libc6-dev libuv1-dev libnng-dev libhiredis-dev libconfuse-dev libjansson-dev \
			libsystemd-dev libsodium-dev liblmdb-dev liblz4-dev libzstd-dev libxxhash-dev libacl1-dev
		;;
	test) echo libcmocka-dev redis-server binutils procps util-linux acl iproute2 ;;
	lint) echo clang-format cppcheck spin ;;
	bench) echo redis-server lmdb-utils memcached ;;
	*)
		echo "deps.sh: no group \"$1\" (build, test, lint, bench)" >&2
		exit 2
		;;
	esac
}

is_installed()
{
	dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed && return
	# Debian 13 has the tool of this name in another package.
	[ "$1" = pkg-config ] && command -v pkg-config >/dev/null
}

mode=install
case ${1-} in
--print) mode=print; shift ;;
--missing) mode=missing; shift ;;
-h | --help | '') sed -n '2,15p' "$0"; exit 0 ;;
esac

# missing_of GROUP: what of it is not installed.
missing_of()
{
	list=$(packages "$1") || exit
	for package in $list; do
		is_installed "$package" || echo "$package"
	done
}

if [ $mode = print ]; then
	for group in "$@"; do
		packages "${group#+}" || exit
	done | tr ' ' '\n' | sort -u
	exit
fi
if ! command -v dpkg-query >/dev/null; then
	[ $mode = install ] && echo "This is not a Debian system: packaging/deps.sh names the packages whose equivalents are needed."
	exit 0
fi

required= optional=
for group in "$@"; do
	list=$(missing_of "${group#+}") || exit
	case $group in
	+*) optional="$optional $list" ;;
	*) required="$required $list" ;;
	esac
done
required=$(echo $required) optional=$(echo $optional)
missing=$(echo $required $optional)
[ -z "$missing" ] && exit 0
if [ $mode = missing ]; then
	printf '%s\n' $missing
	exit 1
fi

if [ "$(id -u)" -eq 0 ]; then
	as_root='env'
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
	as_root='sudo -n env'
else
	if [ -z "$required" ]; then
		echo "going on without: $optional (needs root to install)"
		exit 0
	fi
	echo "These packages are missing: $required" >&2
	echo "Install them as root:  apt-get install --no-install-recommends $required" >&2
	exit 1
fi

echo "installing: $missing"
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
apt()
{
	# RUNLEVEL=1 keeps package scripts from starting services.
	$as_root DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" \
		>"$log" 2>&1 </dev/null
}
apt update || { tail -n 5 "$log" >&2; echo 'apt-get update failed; trying with the package lists as they are' >&2; }
install()
{
	apt install --no-install-recommends "$@" && return
	tail -n 20 "$log" >&2
	echo "These packages could not be installed: $*" >&2
	return 1
}
if ! install $missing; then
	[ -z "$optional" ] && exit 1
	echo "going on without: $optional"
	[ -z "$required" ] || install $required || exit 1
fi

# Only what this very run installed is stopped: a server that was there before is its owner's business.
if [ -d /run/systemd/system ]; then
	for service in redis-server memcached; do
		case " $missing " in
		*" $service "*)
			echo "disabling the $service service that the package brought"
			$as_root systemctl disable --now "$service" >/dev/null 2>&1
			;;
		esac
	done
fi
exit 0
