#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# The workload `random`: what it prints, and that it finds wrong bytes.

load ../lib/common
load ../lib/http

setup_file()
{
	start_registry
	random_file "$BATS_FILE_TMPDIR/blob" $((5 * MiB + 123))
	random_file "$BATS_FILE_TMPDIR/small" 1000
	BLOB=$(push_blob some/repo "$BATS_FILE_TMPDIR/blob")
	SMALL=$(push_blob some/repo "$BATS_FILE_TMPDIR/small")
	export BLOB SMALL
	export BLOB_URL=http://$REG/v2/some/repo/blobs/$BLOB
	export SMALL_URL=http://$REG/v2/some/repo/blobs/$SMALL
	unset PEERD_HTTP_ADDR PEERD_PROM_ADDR
}

# workload ARGUMENT...: its lines are in OUT, its status in RC.
workload()
{
	OUT=$BATS_TEST_TMPDIR/out RC=0
	"$BIN/peerd-random" --node-name node-1 "$@" >"$OUT" \
		2>"$BATS_TEST_TMPDIR/err" || RC=$?
}

# said MESSAGE FILTER: a line with that message satisfies it.
said()
{
	jq -e -s --arg m "$1" "[.[] | select(.message == \$m) | $2] | any" \
		"$OUT" >/dev/null || {
		echo "no \"$1\" with $2 in:" >&2
		cat "$OUT" >&2
		return 1
	}
}

through()
{
	workload --proxy "http://$HTTP/blobs/" "$@"
}

@test "both ways are compared, and told as JSON lines" {
	start_mirror --blobs-allow "$REG"
	through --reads 7 "$BLOB_URL" "$SMALL_URL"
	equal "$RC" 0
	size=$((5 * MiB + 123))
	for mode in upstream p2p; do
		said 'downloading blob' ".mode == \"$mode\" and .size == $size
			and .readsPerBlob == 7 and .node == \"node-1\"
			and (.time | test(\"Z$\")) and .level == \"info\"
			and (.version | length > 0)"
		said 'downloading blob' ".mode == \"$mode\" and .size == 1000"
		said 'speeds (MB/s)' ".[\"$mode.p50\"] >= .[\"$mode.p75\"] and
			.[\"$mode.p75\"] >= .[\"$mode.p90\"] and
			.[\"$mode.p90\"] >= .[\"$mode.p95\"] and
			.[\"$mode.p95\"] >= .[\"$mode.p100\"] and
			.[\"$mode.p100\"] > 0"
	done
	said 'error rates' '.["p2p.error_rate"] == 0 and
		.["upstream.error_rate"] == 0'
	at_least "$(metric peerd_http_sent_bytes_total)" 3000000
}

@test "the same seed reads the same ranges" {
	start_mirror --blobs-allow "$REG"
	for run in 1 2; do
		mark=$(reg_mark)
		through --seed 42 "$BLOB_URL"
		equal "$RC" 0
		settle_log
		tail -n +"$((mark + 1))" "$REG_LOG" | jq -r \
			'select(.agent | startswith("peerd-random")) | .range' \
			>"$BATS_TEST_TMPDIR/ranges.$run"
	done
	at_least "$(wc -l <"$BATS_TEST_TMPDIR/ranges.1")" 6
	cmp "$BATS_TEST_TMPDIR/ranges.1" "$BATS_TEST_TMPDIR/ranges.2"
}

@test "redirects of the registry are followed" {
	start_registry --redirect signed
	digest=$(push_blob a/b "$BATS_FILE_TMPDIR/blob")
	start_mirror --blobs-allow "$REG,$TARGET"
	through "http://$REG/v2/a/b/blobs/$digest"
	cat "$OUT"
	equal "$RC" 0
	refute grep -q 'sig=' "$OUT"
}

@test "wrong bytes are found" {
	fake=127.0.0.1:$(free_port)
	random_file "$BATS_TEST_TMPDIR/wrong" $((5 * MiB + 123))
	nginx_start "$BATS_TEST_TMPDIR/fake" "server {
		listen $fake;
		location = /readyz { return 200; }
		location / { root $BATS_TEST_TMPDIR; rewrite .* /wrong break; }
	}"
	workload --proxy "http://$fake/blobs" --reads 3 "$BLOB_URL"
	equal "$RC" 1
	said 'error rates' '.["p2p.error_rate"] == 1 and
		.["upstream.error_rate"] == 0'
	said 'bytes differed' '.reads == 3'
}

@test "what cannot be read is an error" {
	start_mirror --blobs-allow "$REG"
	through "http://$REG/v2/some/repo/blobs/sha256:${BLOB//[0-9]/0}"
	equal "$RC" 1
	said 'read failed' '.why | test("404")'
	said 'error rates' '.["upstream.error_rate"] == 1'
	through --read-size 1KiB 'gopher://x/'
	equal "$RC" 1
	workload --proxy "http://127.0.0.1:$(free_port)/" --wait 300ms \
		"$BLOB_URL"
	equal "$RC" 1
	said 'peerd is not ready' true
}

@test "help and options" {
	workload --help
	equal "$RC" 0
	grep -q 'p100 is the slowest' "$OUT"
	workload
	equal "$RC" 2
	workload --reads 0 "$BLOB_URL"
	equal "$RC" 2
	grep -q 'reads' "$BATS_TEST_TMPDIR/err"
	workload --proxy nonsense "$BLOB_URL"
	equal "$RC" 1
}
