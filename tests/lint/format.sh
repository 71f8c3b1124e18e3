#!/bin/sh
# format.sh [--write] - holds the sources against .clang-format, or rewrites them. Other major versions of clang-format break
# lines differently: only the one below judges.
version=14
tool=
for candidate in "clang-format-$version" clang-format; do
	"$candidate" --version 2>/dev/null | grep -q "version $version\." && { tool=$candidate; break; }
done
files=$(find shm agent client-lib bench tests -name '*.[ch]' -type f 2>/dev/null | sort)
[ -n "$files" ] || { echo 'no sources'; exit 77; }
if [ -z "$tool" ]; then
	echo "clang-format $version is not installed"
	[ "${1-}" = --write ] && exit 1
	exit 77
fi
if [ "${1-}" = --write ]; then
	echo "$files" | xargs "$tool" -i
	exit
fi
wrong=$(for file in $files; do
	"$tool" "$file" | cmp -s - "$file" || echo "$file"
done)
[ -z "$wrong" ] && exit 0
echo "$wrong"
echo 'not formatted; make format does it'
exit 1
