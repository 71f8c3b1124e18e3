#!/bin/sh
# needed.sh BUILD_DIR - the library and the examples link libc alone (its loader counts as part of it).
files=$(ls "$1"/libriptide.so.[0-9]* 2>/dev/null; find "$1/examples" -maxdepth 1 -type f -perm -100 2>/dev/null)
[ -n "$files" ] || { echo 'no library'; exit 77; }
status=0
for file in $files; do
	for library in $(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
		case $library in
		libc.so.* | ld-linux*) ;;
		*) echo "${file##*/} needs $library"; status=1 ;;
		esac
	done
done
exit $status
