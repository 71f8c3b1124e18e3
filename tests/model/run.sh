#!/bin/bash
# run.sh [BUILD_DIR] - checks the models with what is installed, and says what it skipped.
# One line each: model, variant, what is expected and what came out, states or executions, seconds. Ends with the counts.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
if [ $# -gt 0 ]; then
	mkdir -p "$1"
	build=$(cd "$1" && pwd)
else
	build=$(mktemp -d "${TMPDIR:-/tmp}/riptide-model.XXXXXX")
	trap 'rm -rf "$build"' EXIT
fi
genmc=${GENMC:-genmc}
cc=${CC:-cc}
passed=0 failed=0 skipped=0

# verdict MODEL VARIANT EXPECTED GOT COUNT SECONDS
verdict()
{
	printf '%-18s %-26s expected %-8s got %-8s %12s %5ss\n' "$1" "$2" "$3" "$4" "$5" "$6"
	if [ "$3" = "$4" ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# spin_case MODEL VARIANT EXPECTED [DEFINES]
spin_case()
{
	local model=$1 variant=$2 expected=$3 dir="$build/$1-$2" begun=$SECONDS got states define=${4-}
	if [ "$variant" != sound ] && [ -z "$define" ]; then define="-DBUG_$variant"; fi
	rm -rf "$dir"
	mkdir -p "$dir"
	(
		cd "$dir"
		# shellcheck disable=SC2086
		spin $define -a "$here/$model.pml" >spin.log 2>&1
		"$cc" -O2 -w -DSAFETY -DMEMLIM=4096 -DVECTORSZ=2048 -o pan pan.c >cc.log 2>&1
		timeout 240 ./pan -m1000000 >pan.log 2>&1
	) || true
	if [ ! -f "$dir/pan.log" ] || grep -qE 'max search depth too small|memory limit|Search not completed' "$dir/pan.log" &&
		! grep -q 'errors: [1-9]' "$dir/pan.log"; then
		got=unknown
	elif grep -q 'errors: 0' "$dir/pan.log"; then
		got=holds
	elif grep -q 'errors: [1-9]' "$dir/pan.log"; then
		got=refuted
	else
		got=unknown
	fi
	states=$(awk '/states, stored/ { print $1; exit }' "$dir/pan.log" 2>/dev/null || true)
	verdict "$model.pml" "$variant" "$expected" "$got" "${states:-?} st" $((SECONDS - begun))
}

# litmus_case MODEL VARIANT EXPECTED [DEFINE]
litmus_case()
{
	local model=$1 variant=$2 expected=$3 log="$build/$1-$2.log" begun=$SECONDS got=holds count define=${4-}
	if [ "$variant" != sound ] && [ -z "$define" ]; then define="-DBUG_$variant"; fi
	# shellcheck disable=SC2086
	if ! timeout 120 "$genmc" -rc11 -disable-estimation -- $define "$here/litmus/$model.c" >"$log" 2>&1; then
		if grep -qE 'violation|Error detected|race' "$log"; then got=refuted; else got=unknown; fi
	fi
	count=$(sed -n 's/^Number of complete executions explored: //p' "$log" | head -n 1)
	verdict "litmus/$model.c" "$variant" "$expected" "$got" "${count:-?} ex" $((SECONDS - begun))
}

spin_models="ring:NO_TAIL_CHECK,TAIL_AFTER_BYTES,WORD_BEFORE_BYTES,HEAD_AFTER_WORD,TWO_WORDS
slot:PLAIN_ANSWER,FREE_AT_ABANDON
bell:NO_SECOND_LOOK,NO_CLIENT_FENCE,NO_WORKER_FENCE,WAITING_READ_EARLY
lease:PRESENT_CANARY,TWO_CANARIES,OLD_NAMES,PROOF_BY_PING,PROOF_BY_WRITER,NO_FENCE_WHEN_ARMED,NO_FENCE_ON_LOSS,NOT_WITHHELD
inflight:MARK_IGNORED,NO_REMOVAL,CHECK_IGNORED,ANSWER_NOT_NOTED,LAST_NOTE_COUNTS,DEADLINE_IGNORED,PATCH_UNCOMPARED,EPOCH_IGNORED,\
PROBE_OF_BEFORE,NO_BARRIER,NO_SECOND_FENCE"
litmus_files="ring:NO_TAIL_CHECK,TAIL_AFTER_BYTES,NO_WRITER_FENCE,RELAXED_WORD_STORE,RELAXED_WORD_LOAD,NO_READER_FENCE,ACQUIRE_LOAD_FOR_FENCE
control:RELAXED_STORE_OF_A,RELAXED_LOAD_OF_A,A_BEFORE_B
bell:NO_CLIENT_FENCE,NO_WORKER_FENCE
slot:RELAXED_SUBMIT,RELAXED_TAKE,RELAXED_ANSWER,RELAXED_LOOK"

if command -v spin >/dev/null 2>&1 && command -v "$cc" >/dev/null 2>&1; then
	for entry in $spin_models; do
		spin_case "${entry%%:*}" sound holds
		for bug in $(tr , ' ' <<<"${entry#*:}"); do spin_case "${entry%%:*}" "$bug" refuted; done
	done
	spin_case lease two-writes holds '-DWRITES=2 -DEND=3'
	spin_case lease without-fence-on-loss holds -DWITHOUT_FENCE_ON_LOSS
	spin_case inflight two-foreign holds '-DFOREIGN=2 -DOWN=1'
else
	echo 'skipped: the spin models; install spin and a C compiler'
	skipped=$((skipped + 1))
fi
if command -v "$genmc" >/dev/null 2>&1; then
	for entry in $litmus_files; do
		litmus_case "${entry%%:*}" sound holds
		for bug in $(tr , ' ' <<<"${entry#*:}"); do litmus_case "${entry%%:*}" "$bug" refuted; done
	done
	litmus_case ring no-position-check holds -DWITHOUT_POSITION_CHECK
else
	echo 'skipped: the litmus files; they want GenMC (0.10 or later) on PATH or in $GENMC'
	skipped=$((skipped + 1))
fi
echo "models: $passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
