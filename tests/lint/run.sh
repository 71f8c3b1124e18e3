#!/bin/sh
# run.sh BUILD_DIR - every lint step, one line each: `name: ok`, `name: skipped (why)`, or `name: FAILED` after the findings.
# A step is a script of this folder: status 0 = ok, 77 = skipped, its last line saying why, anything else = failed.
set -u
export LC_ALL=C
cd "$(dirname "$0")/../.." || exit 2
build=${1:?build folder}
status=0

step()
{
	name=$1
	shift
	output=$("$@" 2>&1)
	case $? in
	0) echo "$name: ok${output:+ ($(echo "$output" | tail -n 1))}" ;;
	77) echo "$name: skipped ($(echo "$output" | tail -n 1))" ;;
	*)
		echo "$output" | sed 's/^/    /'
		echo "$name: FAILED"
		status=1
		;;
	esac
}

step layers tests/lint/layers.sh
step atomics tests/lint/atomics.sh
step purity tests/lint/purity.sh "$build"
step exports tests/lint/exports.sh "$build"
step needed tests/lint/needed.sh "$build"
step size tests/lint/size.sh "$build"
step lengths tests/lint/lengths.sh
step format tests/lint/format.sh
step cppcheck tests/lint/cppcheck.sh "$build"
exit $status
