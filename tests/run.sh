#!/bin/bash
# run.sh - runs test programs and counts their cases.
#
#   tests/run.sh BUILD_DIR SAN PROGRAM...         lint and models (plain build only), then every program; prints the count
#   tests/run.sh --one BUILD_DIR SAN PROGRAM...   the programs only, with their whole output
#   tests/run.sh --room BUILD_DIR SAN PROGRAM     what this script calls itself in a room (room.sh)
#   tests/run.sh --build-failed                   the count of a build that failed
#
# A program passes if it ends with status 0 within TEST_TIMEOUT seconds, ran at least one case, reported as many cases as
# it announced, and left neither a process nor an object in /dev/shm. What a program leaves is ended, and counts as
# one failed case, as does a crash or a time-out. Programs in tests/torture need not speak cmocka: each is one case; a
# torture-mutant-N has to end with status 1, which means that it found the deliberate fault.
#
# Where room.sh can make rooms, TEST_JOBS programs (default: one per processor) run side by side, each in its own; elsewhere one
# after the other.
#
# TEST_AGAIN (0): so many programs at most that failed beside others are run a second time, alone, and count by that; they are
# named at the end, so that nobody takes a race for peace. What a sanitizer reported is never run again.
#
# TEST_TIMEOUT (300), MODEL_TIMEOUT (900): seconds. RIPTIDE_TORTURE=long: the long form of the torture test.
set -u
export LC_ALL=C
cd "$(dirname "$0")/.." || exit 2

if [ "${1-}" = --build-failed ]; then
	echo 'build FAILED: no test was run'
	echo '0 passed, 1 failed, 0 skipped'
	exit 1
fi

one= room=
[ "${1-}" = --one ] && { one=1; shift; }
[ "${1-}" = --room ] && { room=1; shift; }
[ $# -ge 2 ] || { sed -n '2,7p' "$0"; exit 2; }
build=$(realpath "$1") san=$2
shift 2

passed=0 failed=0 skipped=0
failures=() again=()
logs=$build/test-logs
[ -n "$room" ] && logs=$build/test-logs/rooms/${1//\//_}
[ -n "$room" ] || rm -rf "$logs"
mkdir -p "$logs"
run_id=riptide-test-$$-$(date +%s%N)
# Only the programs get RIPTIDE_TEST_RUN: it tells their processes from this script's.
export RIPTIDE_BUILD_DIR=$build RIPTIDE_SOURCE_DIR=$PWD RIPTIDE_SAN=$san
export CMOCKA_MESSAGE_OUTPUT=stdout
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1:handle_abort=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}
time_limit=${TEST_TIMEOUT:-300}
[ -n "$san" ] && time_limit=$((time_limit * 2))
# Thread sanitizer of older compilers refuses the address-space layouts of newer kernels.
launcher=()
[ "$san" = thread ] && setarch -R true 2>/dev/null && launcher=(setarch -R)

# result STATE NAME SECONDS TEXT: one line per program; failures are listed again at the end.
result()
{
	printf '%-8s %s (%s s)%s\n' "$1" "$2" "$3" "${4:+: $4}"
	[ "$1" = FAILED ] && failures+=("$2${4:+: $4}")
}

# Ids of living processes that the tests started: by an executable of this build, or by their environment.
test_processes()
{
	{
		find /proc/[0-9]*/exe -maxdepth 0 -lname "$build/*" 2>/dev/null | cut -d/ -f3 | grep -vxF -e "$known_processes"
		grep -lsaF "RIPTIDE_TEST_RUN=$run_id" /proc/[0-9]*/environ | cut -d/ -f3
	} | sort -un
}

# Only what no living process has mapped or open counts as left behind: other agents on this machine have objects too.
shm_objects()
{
	local f
	for f in /dev/shm/riptide*; do
		[ -e "$f" ] && echo "$f"
	done
}
shm_left()
{
	local f
	for f in $(shm_objects | grep -vxF -f "$logs/shm-before"); do
		grep -qsF " $f" /proc/[0-9]*/maps || echo "$f"
	done
}

# left_behind: prints what a program left, ends it, and returns 0 if there was something.
left_behind()
{
	local tries=10 pids files pid file text=
	while [ $((tries--)) -gt 0 ]; do
		pids=$(test_processes)
		files=$(shm_left)
		[ -z "$pids$files" ] && return 1
		sleep 0.2
	done
	for pid in $pids; do
		text+=" process $pid ($(ps -o args= -p "$pid" | cut -c1-100))"
		kill -KILL "$pid" 2>/dev/null
	done
	for file in $files; do
		text+=" $file"
		rm -f "$file"
	done
	echo "left behind:$text"
}

# count_cases LOG: prints "passed failed skipped announced died" from cmocka's standard output, summed over its groups. Only
# the lines between a group's begin and end count; the summary after it repeats them. `died`: groups that did not end; less
# than 0 if more ended than began.
count_cases()
{
	awk '
	match($0, /\[==========\] .*Running [0-9]+ test\(s\)/) {
		match($0, /Running [0-9]+/)
		announced += substr($0, RSTART + 8, RLENGTH - 8)
		open_group = 1
		begun++
		next
	}
	/\[==========\] .*[0-9]+ test\(s\) run\./ { open_group = 0; begun-- }
	!open_group { next }
	/\[       OK \] / { passed++ }
	/\[  SKIPPED \] / { skipped++ }
	/\[  FAILED  \] / && !/\] GROUP (SETUP|TEARDOWN)/ { failed++ }
	/\[  ERROR   \] / && !/\] ---/ { failed++ }
	END { print passed + 0, failed + 0, skipped + 0, announced + 0, begun + 0 }' "$1"
}

# why STATUS: what an exit status of timeout(1) or the program means.
why()
{
	case $1 in
	124) echo "timed out after $time_limit s" ;;
	12[89] | 1[3-9][0-9]) echo "died by signal $(($1 - 128)) ($(kill -l $(($1 - 128)) 2>/dev/null))" ;;
	*) echo "exit status $1" ;;
	esac
}

# run_program PROGRAM ARG...: runs it; sets status, seconds, log.
run_program()
{
	local started=$SECONDS
	log=$logs/${name//\//_}.log
	# The shell's own remark about a killed child is not wanted, so the outer redirection.
	(
		ulimit -c 0
		RIPTIDE_TEST_RUN=$run_id exec timeout -k 10 "$time_limit" "${launcher[@]}" "$@" >"$log" 2>&1 </dev/null
	) 2>/dev/null
	status=$?
	seconds=$((SECONDS - started))
}

show_log()
{
	[ -n "$one" ] && return
	echo "---- last lines of $log"
	grep -aEv '^\[(==========| RUN      |       OK )\]' "$log" | tail -n 60
	echo '----'
}

# sum_up NAME PASSED FAILED SKIPPED TEXT: adds a program's cases and prints its line.
sum_up()
{
	local text=$5 left
	if left=$(left_behind); then
		set -- "$1" "$2" $(($3 + 1)) "$4"
		text="${text:+$text; }$left"
	fi
	passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
	local counts="$2 passed"
	[ "$3" -gt 0 ] && counts+=", $3 failed"
	[ "$4" -gt 0 ] && counts+=", $4 skipped"
	if [ "$3" -gt 0 ]; then
		result FAILED "$1" "$seconds" "$counts${text:+; $text}"
		show_log
	else
		result ok "$1" "$seconds" "$counts"
		[ "$4" -gt 0 ] && [ -z "$one" ] && grep -aE '^\[  SKIPPED \] [^:]*$' "$log" | sort -u | sed 's/^/           /'
	fi
}

run_cmocka()
{
	local p f s announced died text=
	run_program "$1"
	[ -n "$one" ] && cat "$log"
	read -r p f s announced died < <(count_cases "$log")
	if [ "$died" -gt 0 ] || { [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; }; then
		text=$(why "$status")
		[ "$died" -gt 0 ] && text+=" in $(grep -aoE '\[ RUN      \] .*' "$log" | tail -n 1 | cut -c14-)"
		f=$((f + 1))
	elif [ "$died" -lt 0 ]; then
		text='a forked child went on with the cases of its parent' f=$((f + 1))
	elif [ "$announced" -eq 0 ]; then
		text='ran no test' f=$((f + 1))
	elif [ "$f" -eq 0 ] && [ $((p + s)) -ne "$announced" ]; then
		text="announced $announced cases, reported $((p + s))" f=$((f + 1))
	fi
	sum_up "$name" "$p" "$f" "$s" "$text"
}

run_torture()
{
	local want=0 text=
	[[ $1 == *-mutant-* ]] && want=1
	if [ "${RIPTIDE_TORTURE-}" = long ]; then
		# Ten minutes by itself, and what an instrumented one takes to begin and end.
		time_limit=1200 run_program "$1"
	else
		run_program "$1" --short
	fi
	[ -n "$one" ] && cat "$log"
	if [ "$status" -eq "$want" ]; then
		sum_up "$name" 1 0 0 ''
	else
		text=$(why "$status")
		[ "$want" -eq 1 ] && text+=': the deliberate fault was not found (status 1)'
		sum_up "$name" 0 1 0 "$text"
	fi
}

# run_step NAME COMMAND...: lint and models print one line per step, `name: ok|FAILED|skipped ...`, which are not test cases.
steps_failed=0
run_step()
{
	local step=$1
	shift
	echo "== $step"
	"$@" </dev/null || { steps_failed=1; failures+=("$step"); }
}

known_processes=none
known_processes=$(test_processes)
known_processes=${known_processes:-none}
shm_objects >"$logs/shm-before"

if [ -z "$one$room$san" ]; then
	run_step lint "${MAKE:-make}" --no-print-directory O="$build" lint
	if [ -x tests/model/run.sh ]; then
		run_step models timeout -k 10 "${MODEL_TIMEOUT:-900}" tests/model/run.sh "$build/model"
	fi
fi
# run_here PROGRAM: here and now.
run_here()
{
	name=${1#"$build"/tests/}
	case $name in
	torture/*) run_torture "$1" ;;
	*) run_cmocka "$1" ;;
	esac
}

# run_in_room PROGRAM: its output goes to a file of its own, and from there to ours in one piece.
run_in_room()
{
	local out=$logs/rooms/${1//\//_}.out
	tests/room.sh tests/run.sh --room "$build" "$san" "$1" >"$out" 2>&1 </dev/null
	grep -qE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$out" ||
		printf 'FAILED   %s: its room ended early\n0 passed, 1 failed, 0 skipped\n' "${1#"$build"/tests/}" >>"$out"
	printf '%s\n' "$(sed '$d' "$out")"
}

# run_again PROGRAM...: those of them that failed and may have failed for what ran beside them.
run_again()
{
	local program out left=${TEST_AGAIN:-0}
	for program; do
		out=$logs/rooms/${program//\//_}.out
		tail -n 1 "$out" | grep -q ' 0 failed' && continue
		grep -rqaE 'ERROR: AddressSanitizer|WARNING: ThreadSanitizer|runtime error:' "${out%.out}" && continue
		[ $((left--)) -gt 0 ] || return
		echo "again    ${program#"$build"/tests/}"
		again+=("${program#"$build"/tests/}")
		run_in_room "$program"
	done
}

# run_in_rooms PROGRAM...: TEST_JOBS at a time, and adds up what they printed.
run_in_rooms()
{
	local program out p f s line
	mkdir -p "$logs/rooms"
	trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT TERM
	for program; do
		[ "$(jobs -rp | wc -l)" -lt "$jobs" ] || wait -n
		run_in_room "$program" &
	done
	wait
	run_again "$@"
	trap - INT TERM
	for program; do
		out=$logs/rooms/${program//\//_}.out
		read -r p _ f _ s _ < <(tail -n 1 "$out")
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
		while read -r line; do
			failures+=("$line")
		done < <(sed -n 's/^FAILED  *//p' "$out")
	done
}

[ -n "$one$room" ] || echo "== tests${san:+ ($san sanitizer)}"
programs=()
for program in "$@"; do
	programs+=("$(realpath "$program")")
done
jobs=1
[ -z "$one$room" ] && tests/room.sh true 2>/dev/null && jobs=${TEST_JOBS:-$(nproc)}
if [ "$jobs" -gt 1 ]; then
	run_in_rooms "${programs[@]}"
else
	for program in "${programs[@]}"; do
		run_here "$program"
	done
fi
seconds=0 name=end log=$logs/end.log
if [ $# -eq 0 ]; then
	failures+=('there is no test program')
	failed=$((failed + 1))
fi

if [ -z "$room" ] && [ ${#failures[@]} -gt 0 ]; then
	echo '== failed'
	printf '%s\n' "${failures[@]}"
fi
[ ${#again[@]} -gt 0 ] && printf 'was run a second time, alone: %s\n' "${again[@]}"
# A failed lint or model is a failure too: it is counted once, so that the last line never reads like a success.
echo "$passed passed, $((failed + steps_failed)) failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$steps_failed" -eq 0 ]
