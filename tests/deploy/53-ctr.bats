#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# The workload `ctr`: pulls through the mirror, and what it prints.

load ../lib/common
load ../lib/http
load ../lib/containerd

setup_file()
{
	start_registry
	push_image team/app v1
	export IMAGE=$REG/team/app:v1
}

setup()
{
	command -v containerd >/dev/null || missing 'needs containerd'
	need_root
}

# workload ARGUMENT...: its lines are in OUT, its status in RC.
workload()
{
	OUT=$BATS_TEST_TMPDIR/out RC=0
	"$ROOT/deploy/workload/ctr.sh" "$@" >"$OUT" || RC=$?
	# Each line is JSON.
	[[ $(head -c 1 "$OUT") != "{" ]] || jq -es . "$OUT" >/dev/null
}

here()
{
	workload --address "$CTRD/sock" --hosts-dir "$BATS_TEST_TMPDIR/certs.d" \
		--snapshotter native --http "http://$HTTP" --state ready \
		--metrics "http://$PROM/metrics/prometheus" --node node-1 "$@"
}

said()
{
	jq -es --arg m "$1" "[.[] | select(.message == \$m) | $2] | any" \
		"$OUT" >/dev/null || {
		echo "no \"$1\" with $2 in:" >&2
		cat "$OUT" >&2
		return 1
	}
}

@test "images are pulled through peerd, twice, and the bytes told" {
	start_mirror
	start_containerd one
	peerd hosts add --hosts "$REG" --mirrors "http://$HTTP" \
		--containerd-hosts-config-path "$BATS_TEST_TMPDIR/certs.d"
	# Containerd takes other addresses than localhost for HTTPS ones.
	sed -i "s|^server = .*|server = \"http://$REG\"|" \
		"$BATS_TEST_TMPDIR/certs.d/$REG/hosts.toml"
	here --rounds 2 "$IMAGE"
	cat "$OUT"
	equal "$RC" 0
	said 'pulled image' '.size > 4000000 and .speed > 0 and .ms > 0 and
		.node == "node-1"'
	equal "$(jq -r 'select(.message == "pulled image").image' "$OUT" |
		wc -l)" 2
	said 'speeds (MB/s)' '.["pull.p50"] >= .["pull.p100"] and
		.["pull.p100"] > 0'
	said 'error rates' '.["pull.error_rate"] == 0'
	# Once from upstream, though it was pulled twice.
	said 'bytes by source' '.upstream > 4000000 and .upstream < 7000000'
	# Nothing is left.
	equal "$(ctr_ --namespace peerd-ctr images ls -q)" ''
}

@test "what cannot be pulled is an error, the rest goes on" {
	start_mirror --mirror-timeout 2s
	start_containerd one
	peerd hosts add --hosts "$REG" --mirrors "http://$HTTP" \
		--containerd-hosts-config-path "$BATS_TEST_TMPDIR/certs.d"
	here --keep "$REG/team/none:v1" "$IMAGE"
	equal "$RC" 1
	said 'pull failed' '.image | endswith("none:v1")'
	said 'error rates' '.["pull.error_rate"] == 0.5'
	equal "$(ctr_ --namespace peerd-ctr images ls -q)" "$IMAGE"
}

@test "waiting ends, and wrong options are refused" {
	start_mirror
	workload --http "http://$HTTP" --state P2PNever --wait 1 "$IMAGE"
	equal "$RC" 1
	said 'peerd is not in that state' '.state | length > 0'
	for arguments in '' '--rounds x a' '--nonsense a' '--wait'; do
		# shellcheck disable=SC2086
		workload $arguments 2>/dev/null
		equal "$RC" 2
	done
	workload --help
	equal "$RC" 0
	grep -q 'p100 is the slowest' "$OUT"
}
