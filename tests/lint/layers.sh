#!/bin/sh
# layers.sh - holds every #include against tests/layers.txt, whose head explains the rules.
set -u
find shm agent client-lib bench tests -name '*.[ch]' -type f 2>/dev/null | sort | xargs awk '
# A glob as a regular expression: ** matches anything, * anything but a slash.
function glob(pattern,    i, c, re)
{
	re = "^"
	for (i = 1; i <= length(pattern); i++) {
		c = substr(pattern, i, 1)
		if (c == "*" && substr(pattern, i + 1, 1) == "*") {
			re = re ".*"
			i++
		} else if (c == "*") {
			re = re "[^/]*"
		} else if (c ~ /[.+()\[\]{}^$|?\\]/) {
			re = re "\\" c
		} else {
			re = re c
		}
	}
	return re "$"
}
function folder(path)
{
	sub(/\/[^\/]*$/, "", path)
	return path
}
function complain(text)
{
	printf "%s:%d: %s\n", FILENAME, FNR, text
	bad = 1
}
# rules[i], word by word in rule[i, 1..words[i]]; word 1 is the verb.
BEGIN {
	while ((getline line <"tests/layers.txt") > 0) {
		sub(/#.*/, "", line)
		n = split(line, word, /[ \t]+/)
		if (n && word[1] == "") {
			for (i = 1; i < n; i++)
				word[i] = word[i + 1]
			n--
		}
		while (n && word[n] == "")
			n--
		if (n == 0)
			continue
		if ((word[1] != "allow" && word[1] != "only") || n < 2) {
			print "tests/layers.txt: not understood: " line
			bad = 1
			continue
		}
		rules++
		words[rules] = n
		verb[rules] = word[1]
		for (i = 2; i <= n; i++)
			rule[rules, i] = glob(word[i])
	}
	if (!rules) {
		print "tests/layers.txt: no rules"
		bad = 1
	}
}
FNR == 1 { files++ }
/^[ \t]*#[ \t]*include[ \t]*"/ {
	split($0, part, "\"")
	name = part[2]
	ok = name !~ /_priv\.h$/ && folder(name) == folder(FILENAME)
	if (name ~ /_priv\.h$/) {
		if (folder(name) != folder(FILENAME))
			complain("\"" name "\" is private to its folder")
		next
	}
	for (r = 1; r <= rules && !ok; r++) {
		if (verb[r] != "allow" || FILENAME !~ rule[r, 2])
			continue
		for (i = 3; i <= words[r] && !ok; i++)
			ok = name ~ rule[r, i]
	}
	if (!ok)
		complain("may not include \"" name "\" (tests/layers.txt)")
}
/^[ \t]*#[ \t]*include[ \t]*[<"]/ {
	name = $0
	sub(/^[ \t]*#[ \t]*include[ \t]*[<"]/, "", name)
	sub(/[>"].*/, "", name)
	for (r = 1; r <= rules; r++) {
		if (verb[r] != "only" || name !~ rule[r, 2])
			continue
		ok = 0
		for (i = 3; i <= words[r] && !ok; i++)
			ok = FILENAME ~ rule[r, i]
		if (!ok)
			complain("may not include <" name "> (tests/layers.txt)")
	}
}
END {
	if (!bad)
		print files + 0 " files"
	exit bad
}' /dev/null
