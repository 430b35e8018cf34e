#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2034,SC2154
# Connections that are held and not used.

load ../lib/common
load ../lib/http

setup()
{
	start_registry
	for i in 1 2 3 4; do
		random_file "$BATS_TEST_TMPDIR/$i" $((2 * MiB + 5))
		BLOB[i]=$(push_blob team/data "$BATS_TEST_TMPDIR/$i")
	done
	# Before a limit is set, which holds for the rest of the test, too.
	HTTP=127.0.0.1:$(free_port)
	PROM=127.0.0.1:$(free_port)
}

# crowd_soon ADDRESS: 10,000 connections, once crowd_comes() is called.
crowd_soon()
{
	background "$BATS_TEST_TMPDIR/crowd" \
		clients crowd "$1" 10000 "$BATS_TEST_TMPDIR/go"
}

crowd_comes()
{
	touch "$BATS_TEST_TMPDIR/go"
	wait_for 300 grep -q open "$BATS_TEST_TMPDIR/crowd.out"
	refute ended "$BATS_TEST_TMPDIR/crowd"
}

crowd_goes()
{
	rm "$BATS_TEST_TMPDIR/go"
	wait_for 60 ended "$BATS_TEST_TMPDIR/crowd"
	rm "$BATS_TEST_TMPDIR/crowd.out"
}

# all_works I: what needs the descriptors of sockets and of files.
all_works()
{
	equal "$(status_of "http://$PROM/healthz")" 200 'probe'
	equal "$(status_of "http://$HTTP/healthz")" 200 'probe of the mirror'
	curl -sf "http://$PROM/metrics" | grep -q peerd_
	cmp <(curl -sf "$(v2 "team/data/blobs/${BLOB[$1]}")") \
		"$BATS_TEST_TMPDIR/$1"
	equal "$(peerd status --json | jq -r .cache.write_errors)" 0
	cmp "$(blob_path team/data "${BLOB[$1 + 1]}")" \
		"$BATS_TEST_TMPDIR/$(($1 + 1))"
	refute grep -iE 'too many open files|cannot accept' "$PEERD_LOG"
}

@test "10,000 idle connections to the metrics port" {
	need_root
	start_mirror
	crowd_soon "$PROM"
	crowd_comes
	all_works 1
	at_most "$(ls "/proc/$(peerd_pid)/fd" | wc -l)" 4300
	crowd_goes
}

@test "10,000 idle connections, and 1,024 descriptors" {
	need_root
	for i in 1 3; do
		if ((i == 1)); then crowd_soon "$PROM"; else crowd_soon "$HTTP"; fi
		(
			ulimit -n 1024
			start_mirror
			echo "$PEERD_RUN" >"$BATS_TEST_TMPDIR/run"
		)
		PEERD_RUN=$(<"$BATS_TEST_TMPDIR/run") PEERD_LOG=$PEERD_RUN.log
		CACHE=$BATS_TEST_TMPDIR/cache MNT=$BATS_TEST_TMPDIR/mnt
		crowd_comes
		all_works $i
		at_most "$(ls "/proc/$(peerd_pid)/fd" | wc -l)" 250
		crowd_goes
		stop_peerd
	done
}
