#!/bin/sh
# lengths.sh - a function has at most 70 lines, a .c file 800. A header should have at most 150: longer ones are named, and are
# no failure.
find shm agent client-lib bench tests -name '*.[ch]' -type f 2>/dev/null | sort | xargs awk '
function close_file()
{
	if (file ~ /\.c$/ && count > 800) {
		printf "%s: %d lines; two subjects above 800\n", file, count
		bad = 1
	}
	if (file ~ /\.h$/ && count > 150)
		long = long (long ? " " : "") file ":" count
}
FILENAME == "/dev/null" { next }
FNR == 1 {
	close_file()
	file = FILENAME
	files++
	begin = 0
}
{ count = FNR }
/^[A-Za-z_].*\(/ { head = FNR ": " $0 }
/^\{/ { begin = FNR }
/^\}/ && begin {
	if (FNR - begin - 1 > 70) {
		printf "%s:%d: the function has %d lines: %s\n", file, begin, FNR - begin - 1, head
		bad = 1
	}
	begin = 0
}
END {
	close_file()
	if (long && !bad)
		print "headers above 150 lines: " long
	exit bad
}' /dev/null
