#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2154
# What containerd has is read in place, and its images' names are known.

load ../lib/common
load ../lib/http
load ../lib/containerd

setup_file()
{
	start_registry
	push_image team/app v1
	skopeo --insecure-policy inspect --raw --tls-verify=false \
		"docker://$REG_BACK/team/app:v1" >"$BATS_FILE_TMPDIR/manifest"
	export MANIFEST=$BATS_FILE_TMPDIR/manifest
	IMAGE=$REG/team/app:v1
	LAYER=$(jq -r '.layers[0].digest' "$MANIFEST")
	export IMAGE LAYER
}

setup()
{
	command -v containerd >/dev/null || missing 'needs containerd'
	need_root
}

# A field of the daemon's status.
status_field()
{
	curl -sf "http://$HTTP/api/v1/status" | jq -r "$1"
}

# status_is FIELD VALUE
status_is()
{
	[[ $(status_field "$1") == "$2" ]]
}

# How many files containerd has.
content_files()
{
	find "$CTRD/root/io.containerd.content.v1.content/blobs/sha256" \
		-type f 2>/dev/null | wc -l
}

all_known()
{
	(($(content_files) > 0)) &&
		status_is .containerd.blobs "$(content_files)"
}

pull_plainly()
{
	ctr_ images pull --plain-http --snapshotter native "$IMAGE" \
		>"$CTRD/pull.log" 2>&1
}

start_beside_containerd()
{
	start_mirror \
		--containerd-content-path \
		"$CTRD/root/io.containerd.content.v1.content" \
		--containerd-sock "$CTRD/sock"
}

@test "what containerd has is served from there, with the registry gone" {
	start_containerd one
	pull_plainly
	start_beside_containerd
	wait_for "$PATIENCE" all_known
	wait_for "$PATIENCE" status_is .containerd.connected true
	wait_for "$PATIENCE" status_is .containerd.images 1
	stop_registry
	curl -sf "$(v2 "team/app/blobs/$LAYER")" >"$BATS_TEST_TMPDIR/layer"
	equal "$(digest_of "$BATS_TEST_TMPDIR/layer")" "$LAYER"
	# By its name, which only containerd has heard of.
	curl -sf "$(v2 team/app/manifests/v1)" >"$BATS_TEST_TMPDIR/m"
	equal "$(digest_of "$BATS_TEST_TMPDIR/m")" "$(digest_of "$MANIFEST")"
	equal "$(status_field .cache.cached_bytes)" 0 'bytes kept twice'
	start_registry_again
}

@test "a blob that comes to containerd later replaces our copy" {
	start_containerd two
	start_beside_containerd
	curl -sf "$(v2 "team/app/blobs/$LAYER")" >"$BATS_TEST_TMPDIR/layer"
	at_least "$(status_field .cache.cached_bytes)" 1
	pull_plainly
	wait_for "$PATIENCE" all_known
	wait_for "$PATIENCE" status_is .cache.cached_bytes 0
	curl -sf "$(v2 "team/app/blobs/$LAYER")" >"$BATS_TEST_TMPDIR/layer"
	equal "$(digest_of "$BATS_TEST_TMPDIR/layer")" "$LAYER"
}

@test "containerd deletes what is being read, and comes back after a restart" {
	start_containerd three
	pull_plainly
	start_beside_containerd
	wait_for "$PATIENCE" all_known
	# It begins from containerd's file, and must end well without it.
	curl -sf --limit-rate 2M "$(v2 "team/app/blobs/$LAYER")" \
		>"$BATS_TEST_TMPDIR/layer" &
	reader=$!
	ctr_ images rm --sync "$IMAGE"
	wait "$reader"
	equal "$(digest_of "$BATS_TEST_TMPDIR/layer")" "$LAYER"
	wait_for "$PATIENCE" status_is .containerd.images 0
	# Without containerd the mirror is what it was without it.
	finish "$CTRD/containerd" TERM || true
	wait_for "$PATIENCE" status_is .containerd.connected false
	curl -sf "$(v2 "team/app/blobs/$LAYER")" >"$BATS_TEST_TMPDIR/layer"
	equal "$(digest_of "$BATS_TEST_TMPDIR/layer")" "$LAYER"
	start_containerd three
	wait_for "$PATIENCE" status_is .containerd.connected true
}
