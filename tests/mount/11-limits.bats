#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2034,SC2154
# More blobs in use than there are descriptors.

load ../lib/common
load ../lib/http

readers()
{
	"$BATS_TEST_DIRNAME/readers.py" "$@"
}

FILES=1500
LIMIT=1024

# Blobs enough to run out of descriptors; sets LIST and BYTES.
many_blobs()
{
	start_registry
	LIST=$BATS_TEST_TMPDIR/list
	readers lay "$REG_DIR/store" many/small $FILES "$LIST"
	BYTES=$((FILES * 1000 + FILES * (FILES - 1) / 2))
}

# Both limits, soft and hard; they hold for the rest of the test, too.
start_limited()
{
	ulimit -n $LIMIT
	start_mirror
	equal "$(awk '/^Max open files/ { print $4, $5 }' \
		"/proc/$(peerd_pid)/limits")" "$LIMIT $LIMIT"
}

# kept_to_limit MOST: room was left for connections, and nothing failed for want
# of a descriptor.
kept_to_limit()
{
	at_most "$1" $((LIMIT * 3 / 4)) 'descriptors'
	equal "$(peerd status --json | jq .cache.write_errors)" 0
	equal "$(peerd status --json | jq .cache.cached_bytes)" "$BYTES" cached
	refute grep -iE 'too many open files|EMFILE' "$PEERD_LOG"
}

get_all()
{
	kept_to_limit "$(readers http "$(peerd_pid)" "$LIST" \
		"$(v2 'many/small/blobs/{}')")"
}

@test "1,500 files of the mount, all open, with 1,024 descriptors" {
	need_root
	many_blobs
	# It has to be there before the limit is.
	mkfifo "$BATS_TEST_TMPDIR/go"
	background "$BATS_TEST_TMPDIR/files" bash -c 'read -r pid pattern <"$0"
		exec "$1" files "$pid" "$2" "$pattern"' \
		"$BATS_TEST_TMPDIR/go" "$BATS_TEST_DIRNAME/readers.py" "$LIST"
	start_limited
	echo "$(peerd_pid) $(blob_path many/small '{}')" \
		>"$BATS_TEST_TMPDIR/go"
	wait_for 300 ended "$BATS_TEST_TMPDIR/files"
	cat "$BATS_TEST_TMPDIR/files.log"
	equal "$(<"$BATS_TEST_TMPDIR/files.rc")" 0
	kept_to_limit "$(<"$BATS_TEST_TMPDIR/files.out")"
	# The kernel still knows the files, so their blobs stay in memory.
	get_all
	stop_peerd
	mark=$(reg_mark)
	start_mirror
	get_all
	equal "$(reg_stat bytes many/small "$mark")" 0 'fetched again'
}

@test "1,500 blobs over HTTP with 1,024 descriptors" {
	many_blobs
	start_limited
	get_all
	# From the store.
	mark=$(reg_mark)
	get_all
	equal "$(reg_stat bytes many/small "$mark")" 0 'fetched again'
}
