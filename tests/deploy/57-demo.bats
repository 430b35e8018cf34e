#!/usr/bin/env bats
# shellcheck disable=SC2153,SC2154
# scripts/demo, with a lab and without one.

load ../lib/common

setup()
{
	need_root
	STUBS=$BATS_TEST_TMPDIR/bin
	mkdir "$STUBS"
	# peerd is built already.
	stub make 0 ''
}

# stub NAME STATUS MESSAGE
stub()
{
	printf '#!/bin/sh\necho "%s" >&2\nexit %d\n' "$3" "$2" >"$STUBS/$1"
	chmod 755 "$STUBS/$1"
}

# demo [NAME=VALUE]...: its output is in $said, on one line.
demo()
{
	env PATH="$STUBS:$PATH" BUILD="$BUILD" BIN="$BIN" "$@" \
		"$ROOT/scripts/demo" >"$BATS_TEST_TMPDIR/out" 2>&1 || {
		cat "$BATS_TEST_TMPDIR/out" >&2
		return 1
	}
	said=$(tr -s ' \n' ' ' <"$BATS_TEST_TMPDIR/out")
	matches "$said" 'All of it is stopped and removed now'
}

@test "the demo in a lab, called from an unusual environment" {
	local tmp="$BATS_TEST_TMPDIR/with spaces, and long"
	mkdir "$tmp"
	tmp+=/$(printf '.%.0s' {1..100})
	mkdir "$tmp"
	umask 077
	demo TMPDIR="$tmp" http_proxy=http://127.0.0.1:1 LC_ALL=de_DE.UTF-8
	matches "$said" 'files go to /tmp: no short and plain path'
	matches "$said" 'Each host is a network namespace'
	matches "$said" 'its link carries 100 Mbit/s'
	equal "$(ls -A "$tmp")" ''
	equal "$(grep -c peerd-demo /proc/self/mounts)" 0
}

@test "the demo without network namespaces says why there is no lab" {
	stub unshare 1 'unshare: unshare failed: No space left on device'
	demo
	matches "$said" 'because there is no lab: lab: no namespace for switch: unshare: unshare failed: No space left on device'
}

@test "the demo without rates of links says so, and what tc said" {
	stub tc 2 'Error: Specified qdisc kind is unknown.'
	demo
	matches "$said" 'Each host is a network namespace'
	matches "$said" 'links have no rate \(Error: Specified qdisc kind is unknown\.\)'
}
