#!/bin/sh
# exports.sh BUILD_DIR - the library exports what client-lib/riptide.map names, all of it and nothing else.
library=$(ls "$1"/libriptide.so.[0-9]* 2>/dev/null | head -n 1)
map=client-lib/riptide.map
[ -n "$library" ] && [ -e "$map" ] || { echo 'no library'; exit 77; }
named=$(sed -e 's|/\*.*\*/||' -e 's/#.*//' "$map" | tr '{};' '\n\n\n' | awk '
/local:/ { global = 0 }
/global:/ { global = 1; sub(/.*global:/, "") }
global && NF { print $1 }' | sort)
exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort)
wrong=$(printf '%s\n' "$named" "$exported" | sort | uniq -u | sed '/^$/d')
[ -z "$wrong" ] && { echo "$(echo "$exported" | grep -c .) symbols"; exit 0; }
for symbol in $wrong; do
	if echo "$exported" | grep -qx "$symbol"; then
		echo "$symbol is exported, but $map does not name it"
	else
		echo "$symbol is named in $map, but the library does not export it"
	fi
done
exit 1
