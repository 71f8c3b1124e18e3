#!/bin/bash
# demo.sh [BUILD_DIR [DOCUMENTS...]] - runs the demonstration in a temporary folder and leaves nothing behind.
set -euo pipefail

build=$(cd "${1:-${RIPTIDE_BUILD_DIR:?usage: demo.sh BUILD_DIR [DOCUMENTS...]}}" && pwd)
[ $# -eq 0 ] || shift
if [ $# -eq 0 ]; then
	set --
	for d in /usr/share/common-licenses /usr/share/doc; do
		[ -d "$d" ] && set -- "$@" "$d"
	done
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/riptide-demo.XXXXXX")
redis_pid=
cleanup() {
	[ -z "$redis_pid" ] || kill "$redis_pid" 2>/dev/null || true
	[ -z "$redis_pid" ] || wait "$redis_pid" 2>/dev/null || true
	"$build/riptided" --no-config --set agent.run_dir="$dir/run" --set agent.state_dir="$dir/state" --forget \
		2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT

redis=()
if command -v redis-server >/dev/null 2>&1; then
	redis-server --port 0 --unixsocket "$dir/redis.sock" --save '' --appendonly no --daemonize no \
		--dir "$dir" >/dev/null 2>&1 &
	redis_pid=$!
	for _ in $(seq 100); do
		[ -S "$dir/redis.sock" ] && break
		sleep 0.05
	done
	[ -S "$dir/redis.sock" ] && redis=(--redis "$dir/redis.sock")
fi
"$build/examples/demo" --agent "$build/riptided" --dir "$dir" "${redis[@]}" --seconds "${DEMO_SECONDS:-4}" "$@"
