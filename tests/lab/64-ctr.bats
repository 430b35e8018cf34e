#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031,SC2034,SC2119,SC2154
# The workload `ctr` on three hosts, as `make ci-lab-ctr` runs it: each has its
# own containerd, which pulls one image through its own peerd at the same time.

load ../lib/common
load ../lib/http
load ../lib/containerd
load nodes

setup()
{
	command -v containerd >/dev/null || missing 'needs containerd'
	need_root
	need_peers
}

# push_image() runs where the registry is.
skopeo()
{
	host_exec 0 skopeo "$@"
}

# containerd_on I: its directory is ctrd.I.
containerd_on()
{
	local dir=$BATS_TEST_TMPDIR/ctrd.$1
	containerd_config "$dir"
	background_on "$1" "$dir/containerd" containerd \
		--config "$dir/config.toml" --log-level warn
	wait_for "$PATIENCE" ctr --address "$dir/sock" version
}

@test "three hosts pull one image at once: one copy from the registry" {
	local i out sum=0
	cluster 3
	push_image team/app v1
	nodes_start 1 2 3
	mkdir -p "$BATS_TEST_TMPDIR/certs.d/$REG"
	cat >"$BATS_TEST_TMPDIR/certs.d/$REG/hosts.toml" <<-END
		server = "http://$REG"

		[host."http://127.0.0.1:5000"]
		  capabilities = ["pull", "resolve"]
	END
	for i in 1 2 3; do
		containerd_on "$i"
	done
	for i in 1 2 3; do
		background_on "$i" "$BATS_TEST_TMPDIR/ctr.$i" \
			"$ROOT/deploy/workload/ctr.sh" --node "h$i" \
			--address "$BATS_TEST_TMPDIR/ctrd.$i/sock" \
			--hosts-dir "$BATS_TEST_TMPDIR/certs.d" \
			--snapshotter native \
			--metrics http://127.0.0.1:5004/metrics/prometheus \
			"$REG/team/app:v1"
	done
	for i in 1 2 3; do
		out=$BATS_TEST_TMPDIR/ctr.$i.out
		wait_for "$PATIENCE" ended "$BATS_TEST_TMPDIR/ctr.$i"
		sed 's/^/# /' "$out" >&3
		equal "$(<"$BATS_TEST_TMPDIR/ctr.$i.rc")" 0 "status on host $i"
		jq -es '[.[] | select(.message == "pulled image")] |
			length == 1 and all(.size > 4000000)' "$out"
		jq -es '[.[] | select(.message == "error rates")] |
			length > 0 and all(.["pull.error_rate"] == 0)' "$out"
		sum=$((sum + $(jq -s '[.[] | select(.message ==
			"bytes by source") | .upstream] | add' "$out")))
	done
	# The layers once, and each node's own small documents.
	at_most "$sum" 7000000 'bytes from upstream on all hosts'
}
