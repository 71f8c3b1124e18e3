#!/bin/sh
# cppcheck.sh BUILD_DIR - cppcheck over the product's sources; a finding that is wrong is suppressed in place with a reason.
command -v cppcheck >/dev/null || { echo 'cppcheck is not installed'; exit 77; }
folders=$(for folder in shm agent client-lib; do [ -d "$folder" ] && echo "$folder"; done)
[ -n "$(find $folders -name '*.c' 2>/dev/null | head -n 1)" ] || { echo 'no sources'; exit 77; }
mkdir -p "$1/cppcheck"
exec cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 -j"$(nproc)" \
	--cppcheck-build-dir="$1/cppcheck" --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches \
	--suppress=unknownMacro --max-configs=1 -D_GNU_SOURCE -D__linux__ -D__x86_64__ '-DRIPTIDE_VERSION="0"' \
	-I. -Iclient-lib/include --template='{file}:{line}: {severity}: {message} [{id}]' $folders
