#!/usr/bin/env bats
# peerd hosts add|undo: the command line, and what a TOML parser makes of the
# result. The edit itself is tested in tests/unit/test_hosts.c.

load ../lib/common

setup()
{
	CERTS=$BATS_TEST_TMPDIR/certs.d
	STATE=$BATS_TEST_TMPDIR/cache
	FILE=$CERTS/r.example:5000/hosts.toml
}

hosts()
{
	local verb=$1
	shift
	"$PEERD" hosts "$verb" --containerd-hosts-config-path "$CERTS" \
		--cache-dir "$STATE" "$@"
}

# put FILE TEXT: printf's escapes.
put()
{
	mkdir -p "$(dirname "$1")"
	printf '%b' "$2" >"$1"
}

# parsed EXPRESSION: what Python says of it; t is the file as a table.
parsed()
{
	python3 -c 'import sys, tomllib
t = tomllib.load(open(sys.argv[1], "rb"))
print(eval(sys.argv[2]))' "$FILE" "$1"
}

@test "add writes a file that containerd's fields can be read from" {
	run -0 hosts add --hosts r.example:5000
	matches "$output" 'r.example:5000: .*/hosts.toml: written'
	equal "$(parsed 't["server"]')" https://r.example:5000
	equal "$(parsed 't["host"]')" "{'http://127.0.0.1:5000': \
{'capabilities': ['pull', 'resolve'], 'dial_timeout': '1s'}}"
	run -0 hosts add --hosts r.example:5000
	matches "$output" 'left as it is'
	run -0 hosts undo
	matches "$output" 'removed'
	[[ ! -e $CERTS ]]
	run -0 hosts undo
	matches "$output" 'nothing to undo'
}

@test "what stood there stands there again, byte for byte" {
	put "$FILE" 'ca = """\n[host."no"]\n"""  # x\r\n\n# b\n[host."http://b"]'
	cp -p "$FILE" "$BATS_TEST_TMPDIR/before"
	chmod 604 "$FILE"
	hosts add --hosts r.example:5000 --mirrors http://m1:1,http://m2:2
	equal "$(parsed 'list(t["host"])')" \
		"['http://m1:1', 'http://m2:2', 'http://b']"
	matches "$(parsed 't["ca"]')" 'host."no"'
	equal "$(stat -c %a "$FILE")" 604
	hosts undo
	cmp "$FILE" "$BATS_TEST_TMPDIR/before"
	equal "$(stat -c %a "$FILE")" 604
}

@test "a host added by hand survives, with and without the backup" {
	for lose in '' 1; do
		rm -rf "$CERTS" "$STATE"
		hosts add --hosts r.example:5000
		printf '[host."http://hand"]\n  capabilities = ["pull"]\n' \
			>>"$FILE"
		[[ ! $lose ]] || rm -r "$STATE"
		hosts add --hosts r.example:5000
		equal "$(parsed 'list(t["host"])')" \
			"['http://127.0.0.1:5000', 'http://hand']"
		hosts undo --hosts r.example:5000
		equal "$(<"$FILE")" $'[host."http://hand"]\n  capabilities = ["pull"]'
	done
}

@test "a killed add or undo is made good by the next" {
	put "$FILE" 'server = "https://a"\n[host."http://b"]'
	cp "$FILE" "$BATS_TEST_TMPDIR/before"
	for i in {1..20}; do
		verb=$( ((i % 2)) && echo add || echo undo)
		timeout -s KILL "$(printf '0.%03d' $((i * 2)))" "$PEERD" hosts "$verb" \
			--containerd-hosts-config-path "$CERTS" \
			--cache-dir "$STATE" --hosts r.example:5000 || true
		equal "$(parsed 't["server"]')" https://a
		((i % 5)) || hosts undo
		((i % 5)) || cmp "$FILE" "$BATS_TEST_TMPDIR/before"
	done
	hosts undo
	cmp "$FILE" "$BATS_TEST_TMPDIR/before"
	equal "$(ls -A "${FILE%/*}")" hosts.toml
}

@test "one that cannot be done is named; the others are done" {
	put "$CERTS/bad.example/hosts.toml" 'x = """\n'
	run -1 --separate-stderr hosts add \
		--hosts bad.example,r.example:5000,../up
	matches "$output" 'r.example:5000: .*written'
	matches "$stderr" 'bad.example: .*/bad.example/hosts.toml: line 1: unterminated'
	matches "$stderr" '\.\./up: not the name of a registry'
	equal "$(<"$CERTS/bad.example/hosts.toml")" 'x = """'
	[[ -e $FILE && ! -e $CERTS/../up ]]
}

@test "bad options do nothing" {
	run -1 hosts add
	run -1 hosts add --hosts r.example --mirrors 'http://u:secret@h'
	refute grep secret <<<"$output"
	run -1 hosts add --hosts r.example --mirrors nonsense
	matches "$output" '"nonsense" is not an http'
	# containerd 1.x would skip the whole file.
	run -1 hosts add --hosts r.example --mirrors 'http://[::1]:5000'
	matches "$output" 'containerd 1.x refuses .* IPv6'
	[[ ! -e $CERTS ]]
}

@test "several directories: the first, and a word about it" {
	run -0 --separate-stderr "$PEERD" hosts add --hosts r.example:5000 \
		--containerd-hosts-config-path "$CERTS:$CERTS.2" \
		--cache-dir "$STATE"
	matches "$stderr" 'warning: of several directories'
	[[ -e $FILE && ! -e $CERTS.2 ]]
}
