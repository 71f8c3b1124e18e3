#!/bin/sh
# run.sh [--quick|--full] [PROGRAM...] - measures side by side with Redis, LMDB and memcpy, prints tables, writes bench.json.
#
# RIPTIDE_BUILD_DIR names the build (default: build); programs are its bench/*, all of them unless some are named.
# Exit status 0: measured, whatever came out. 1: something could not be measured. 2: bad command line.
set -u
export LC_ALL=C
build=${RIPTIDE_BUILD_DIR:-$(dirname "$0")/../build}
build=$(cd "$build" 2>/dev/null && pwd) || { echo "bench: no build in ${RIPTIDE_BUILD_DIR:-build}; run make bench" >&2; exit 1; }
export RIPTIDE_BUILD_DIR="$build"
RIPTIDE_BENCH_MODE=quick
programs=
for argument; do
	case $argument in
	--quick) RIPTIDE_BENCH_MODE=quick ;;
	--full) RIPTIDE_BENCH_MODE=full ;;
	-*) echo 'usage: bench/run.sh [--quick|--full] [ring|hot|miss|crowd|operations|cost|seed|compression|sealing|coherence|tenant|tenants ...]' >&2; exit 2 ;;
	*) programs="$programs $argument" ;;
	esac
done
export RIPTIDE_BENCH_MODE
: "${programs:=ring hot miss crowd operations cost seed compression sealing coherence tenant tenants}"
command -v redis-server >/dev/null || { echo 'bench: redis-server is needed as a peer: apt-get install redis-server' >&2; exit 1; }

folder=$(mktemp -d "${TMPDIR:-/tmp}/riptide-bench-rows.XXXXXX") || exit 1
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
export RIPTIDE_BENCH_ROWS="$folder/rows"
: >"$RIPTIDE_BENCH_ROWS"

model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1 | tr -d '"\\')
cpus=$(getconf _NPROCESSORS_ONLN)
redis=$(redis-server --version | sed 's/.* v=\([^ ]*\).*/\1/')
load=$(cut -d ' ' -f 1-3 /proc/loadavg)
began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
echo "RipTide bench, $RIPTIDE_BENCH_MODE: $cpus CPUs (${model:-unknown}), Linux $(uname -r), redis-server $redis, load before: $load"
echo 'Times are medians over rounds; a ratio is the median of the rounds'"'"' own ratios. Believe ratios, not times.'

status=0
for program in $programs; do
	if [ ! -x "$build/bench/$program" ]; then
		echo "bench: there is no program $program in $build/bench" >&2
		status=1
	elif ! "$build/bench/$program"; then
		echo "bench: $program could not measure everything" >&2
		status=1
	fi
done

{
	printf '{"mode":"%s","began":"%s","cpu":"%s","cpus":%s,"kernel":"%s","redis":"%s","load_before":"%s","load_after":"%s","rows":[\n' \
		"$RIPTIDE_BENCH_MODE" "$began" "$model" "$cpus" "$(uname -r)" "$redis" "$load" "$(cut -d ' ' -f 1-3 /proc/loadavg)"
	sed '$!s/$/,/' "$RIPTIDE_BENCH_ROWS"
	printf ']}\n'
} >"$folder/json" && cp "$folder/json" "$build/bench.json" || status=1
echo
echo "$(grep -c '"verdict": "short"' "$RIPTIDE_BENCH_ROWS") of $(grep -c . "$RIPTIDE_BENCH_ROWS") rows are short of what they must reach; all of them: $build/bench.json"
exit $status
