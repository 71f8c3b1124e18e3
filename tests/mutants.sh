#!/bin/bash
# mutants.sh - does the checker of coherence notice when a rule is missing? Builds the agent once for each rule without it, and
# runs tests/e2e/checker_test against each until it finds a violation, or SECONDS are over.
#
# Usage: tests/mutants.sh SECONDS [NAME...]; from the top of the tree. Exit status 1: a mutant was not found.
#
# A mutant is a name, and files, each with a sed script that takes a rule out; a script that changes nothing is an error here.
set -u
seconds=${1:?usage: tests/mutants.sh SECONDS [NAME...]}
shift
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT

mutants=(
	# A lease is extended because the agent lives, and nobody notices that the feed has stopped to deliver.
	'lease-without-proof|agent/serve/watching.c|s/worker->coherence_known \&\& worker->coherence != STORE_TRACKING/worker->coherence_known/|agent/store/redis/canary.c|s/canary->outstanding \&\& broken_ms <= now_ms/false/'
	# Neither losing the feed nor a new one fences anything. (One of the two hides most of what the other's absence does.)
	'no-fence|agent/serve/watching.c|/^static void watch_on_fenced/,/^}/s/^\tfence(worker);$/\tworker->fences++;/'
	# An operation under way publishes what it brings although the key was changed meanwhile.
	'publish-despite-change|agent/cache/inflight.c|s/return !record->marked \&\& /return /;s/(!record->noted || fits_note(record, version, expiry_ms))/true/'
	# What may be ours is taken for ours.
	'echo-not-checked|agent/serve/watching.c|s/if (!change->maybe_ours || !begin_check(tenant, change))/if (!change->maybe_ours)/'
	# A foreign change removes nothing.
	'change-ignored|agent/serve/watching.c|/^static void forget_entry/,/^}/s/hot_remove(.*/(void)0;/'
	# Revalidation confirms what it has not compared.
	'revalidation-blind|agent/coherence/revalidate.c|s/status == RSHM_OK \&\& head->version == probe->version/status >= 0/'
	# Everything flushed is noticed by nobody.
	'flush-ignored|agent/serve/watching.c|s/if (change->kind == STORE_CHANGED_EVERYTHING) {/if (change->kind == STORE_CHANGED_EVERYTHING) return; if (0) {/'
)

status=0
for mutant in "${mutants[@]}"; do
	IFS='|' read -ra part <<<"${mutant//||/@OR@}"
	name=${part[0]}
	[ $# -gt 0 ] && [[ " $* " != *" $name "* ]] && continue
	rm -rf "$work/tree"
	mkdir "$work/tree"
	git ls-files -z | xargs -0 cp --parents -t "$work/tree" || exit 2
	for ((i = 1; i < ${#part[@]}; i += 2)); do
		file=${part[i]}
		sed -i "${part[i + 1]//@OR@/||}" "$work/tree/$file"
		if cmp -s "$file" "$work/tree/$file"; then
			echo "$name: the script changes nothing in $file"
			status=1
			continue 2
		fi
	done
	if ! make -C "$work/tree" -s O="$work/build" WERROR= all >"$work/log" 2>&1; then
		echo "$name: does not build"
		tail -n 5 "$work/log"
		status=1
		continue
	fi
	RIPTIDE_CHECKER_SECONDS=$seconds make -C "$work/tree" -s O="$work/build" WERROR= e2e-checker >"$work/log" 2>&1
	if grep -q '^violations [1-9]' "$work/log"; then
		echo "$name: found ($(grep -m1 '^last:' "$work/log"))"
	else
		echo "$name: NOT FOUND in $seconds s"
		tail -n 5 "$work/log"
		status=1
	fi
done
exit $status
