#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031,SC2034,SC2119,SC2154
# The workload `random` on three hosts, as `make ci-lab-random` runs it: ranges
# of blobs through each host's own peerd, compared with upstream's.

load ../lib/common
load ../lib/http
load nodes

setup()
{
	need_root
	need_peers
}

@test "random ranges on three hosts are right, and come from peers too" {
	local i url blobs=() all=()
	cluster 3
	for i in 1 2; do
		new_blob $((6 * MiB + i))
		blobs+=("$DIGEST")
		all+=("http://$REG/v2/lab/data/blobs/$DIGEST")
	done
	NODE_OPTIONS=(--blobs-allow "$REG")
	nodes_start 1 2 3
	for i in 1 2 3; do
		background_on "$i" "$BATS_TEST_TMPDIR/random.$i" \
			"$BIN/peerd-random" --node-name "h$i" --reads 12 \
			--proxy http://127.0.0.1:5000/blobs/ "${all[@]}"
	done
	for i in 1 2 3; do
		wait_for "$PATIENCE" ended "$BATS_TEST_TMPDIR/random.$i"
		sed 's/^/# /' "$BATS_TEST_TMPDIR/random.$i.out" >&3
		equal "$(<"$BATS_TEST_TMPDIR/random.$i.rc")" 0 "status on host $i"
		jq -es '[.[] | select(.message == "downloading blob" and
				.mode == "p2p")] | length == 2' \
			"$BATS_TEST_TMPDIR/random.$i.out"
		jq -es '[.[] | select(.message == "speeds (MB/s)")] |
			any(.["p2p.p50"] >= .["p2p.p100"] and
				.["p2p.p100"] > 0)' \
			"$BATS_TEST_TMPDIR/random.$i.out"
		jq -es '[.[] | select(.message == "error rates")] |
			any(.["p2p.error_rate"] == 0)' \
			"$BATS_TEST_TMPDIR/random.$i.out"
	done
	at_least "$(($(from_source 1 peers) + $(from_source 2 peers) + \
		$(from_source 3 peers)))" 1 'bytes from peers'
}
