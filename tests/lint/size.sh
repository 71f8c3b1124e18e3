#!/bin/sh
# size.sh BUILD_DIR - the library's text stays at 64 KiB or less.
library=$(ls "$1"/libriptide.so.[0-9]* 2>/dev/null | head -n 1)
[ -n "$library" ] || { echo 'no library'; exit 77; }
text=$(size "$library" | awk 'NR == 2 { print $1 }')
echo "libriptide has $text of 65536 bytes of text"
[ "$text" -le 65536 ]
