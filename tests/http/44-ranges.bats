#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2030,SC2031,SC2034,SC2119,SC2120,SC2154
# Registries that serve no ranges, or serve them in their own way, and such as
# refuse HEAD: what can be had from them without peerd can be had with it, and
# the registry sends it about once.

load ../lib/common
load ../lib/http
load ../lib/containerd

SIZE=$((24 * MiB + 4321))

# A registry, and a front of it: REG is the front's address.
setup_file()
{
	start_registry
	BLOB=$BATS_FILE_TMPDIR/blob
	random_file "$BLOB" "$SIZE"
	DIGEST=$(push_blob team/data "$BLOB")
	push_artifact team/data v1 blob="$BLOB"
	push_image team/app v1
	# docker-registry 2 caches tags of Docker's own manifests only.
	skopeo --insecure-policy copy --quiet --format v2s2 \
		--src-tls-verify=false --dest-tls-verify=false \
		"docker://$REG_BACK/team/app:v1" \
		"docker://$REG_BACK/team/docker:v1"
	export BLOB DIGEST
}

setup()
{
	FRONT_LOG=$BATS_TEST_TMPDIR/front.log
	touch "$FRONT_LOG"
	REG=127.0.0.1:$(free_port)
	background "$BATS_TEST_TMPDIR/front" "$LIB/no-ranges.py" \
		--listen "$REG" --back "$REG_BACK" --log "$FRONT_LOG"
	wait_for 20 curl -sf "http://$REG/v2/"
}

front()
{
	curl -sf "http://$REG/front/$1"
}

# The bytes of the blob that the registry sent.
sent()
{
	jq -s --arg d "$DIGEST" '[.[] | select(.uri | contains($d)) | .sent] |
		add // 0' "$FRONT_LOG"
}

# about_one_copy [TIMES]: requests that are given up at their head cost what is
# in the buffers of two sockets.
about_one_copy()
{
	wait_for "$PATIENCE" quiet
	at_most "$(sent)" $((SIZE * ${1:-1} + 6 * MiB)) 'bytes sent'
}

blob_by_mirror()
{
	curl -sf -m "$PATIENCE" "$(v2 "team/data/blobs/$DIGEST")" | cmp - "$BLOB"
}

pull()
{
	local hosts=$BATS_TEST_TMPDIR/certs.d
	mkdir -p "$hosts/$REG"
	cat >"$hosts/$REG/hosts.toml" <<-END
		server = "http://$REG"

		[host."http://$HTTP"]
		  capabilities = ["pull", "resolve"]
	END
	ctr_ images pull --hosts-dir "$hosts" --snapshotter native \
		"${1:-$REG/team/app:v1}" >"$CTRD/pull.log" 2>&1 || {
		tail -n 5 "$CTRD/pull.log" >&2
		return 1
	}
}

# fresh MODE: a peerd with nothing, before a front in that mode.
fresh()
{
	[[ ! ${PEERD_RUN:-} ]] || stop_peerd
	CACHE=$BATS_TEST_TMPDIR/cache.$RANDOM
	: >"$FRONT_LOG"
	front "$1"
	start_mirror
}

by_mirror()
{
	fresh "$1"
	blob_by_mirror
	about_one_copy
}

# All over the blob, at once; then all of it.
by_mount()
{
	local file pids=() i
	need_root
	fresh "$1"
	file=$(blob_path team/data "$DIGEST")
	for i in 23 5 17 0 11; do
		same_at "$file" "$BLOB" $((i * MiB + 1000)) 70000 &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i"
	done
	cmp "$file" "$BLOB"
	about_one_copy
}

# peerd brings all of it.
by_ctr()
{
	command -v containerd >/dev/null || missing 'needs containerd'
	need_root
	fresh "$1"
	start_containerd "$1"
	pull
	refute grep -q '"agent": "containerd' "$FRONT_LOG"
}

@test "200 with the whole blob" {
	by_mirror ignore
	by_mount ignore
	by_ctr ignore
}

@test "200 with the whole blob, without its length" {
	by_mirror chunked
	by_mount chunked
	by_ctr chunked
}

@test "400 for a range" {
	by_mirror s400
	by_mount s400
	by_ctr s400
}

@test "416 for a range" {
	by_mirror s416
	by_mount s416
	by_ctr s416
}

@test "501 for a range" {
	by_mirror s501
	by_mount s501
	by_ctr s501
}

@test "a range without the total size" {
	by_mirror star
	by_mount star
	by_ctr star
}

@test "less than the range" {
	by_mirror short
	by_mount short
	by_ctr short
}

@test "a stream that breaks off begins again, and goes on behind what is held" {
	front break-2
	start_mirror
	blob_by_mirror
	about_one_copy 3
}

@test "a stream that always breaks off at one place: an error, not for ever" {
	front break-1000000
	expect_errors 'read failed.*bytes remaining'
	start_mirror --read-timeout 5s
	refute blob_by_mirror
	wait_for "$PATIENCE" quiet
	front ignore
	blob_by_mirror
}

@test "a size that the registry contradicts is still an error" {
	front wrongsize
	expect_errors 'read failed.*416: upstream has another size'
	start_mirror --read-timeout 5s
	refute blob_by_mirror
}

@test "many readers of one blob: one stream" {
	local pids=() i
	front ignore
	start_mirror
	for i in 1 2 3 4; do
		blob_by_mirror &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i"
	done
	about_one_copy
}

two_nodes()
{
	A=127.0.0.1:$(free_port) B=127.0.0.1:$(free_port)
	start_mirror --https-addr "$A" --peers "$A,$B" --insecure-peers
	HTTP1=$HTTP RUN1=$PEERD_RUN
	CACHE=$BATS_TEST_TMPDIR/cache2 MNT=$BATS_TEST_TMPDIR/mnt2
	HTTP='' PROM=''
	start_mirror --https-addr "$B" --peers "$A,$B" --insecure-peers
	wait_for "$PATIENCE" met
}

met()
{
	local at
	for at in "$HTTP" "$HTTP1"; do
		equal "$(curl -sf "http://$at/api/v1/status" | jq -r .p2p)" \
			P2PActive
	done
}

# The owner of the whole blob is not always asked before the registry.
@test "two nodes at once: no more than one copy each" {
	local first
	front ignore
	two_nodes
	(
		HTTP=$HTTP1
		blob_by_mirror
	) &
	first=$!
	blob_by_mirror
	wait "$first"
	about_one_copy 2
}

@test "a second node gets it from the first" {
	front ignore
	two_nodes
	(
		HTTP=$HTTP1
		blob_by_mirror
	)
	blob_by_mirror
	about_one_copy
}

@test "docker-registry as a pull-through cache, cold" {
	local front=$REG dir=$BATS_TEST_TMPDIR/cache-registry
	need_root
	mkdir -p "$dir"
	REG=127.0.0.1:$(free_port)
	cat >"$dir/config.yml" <<-END
		version: 0.1
		log: {level: error, accesslog: {disabled: true}}
		storage: {filesystem: {rootdirectory: $dir/store}}
		http: {addr: $REG}
		proxy: {remoteurl: "http://$front"}
	END
	background "$dir/distribution" docker-registry serve "$dir/config.yml"
	wait_for 30 curl -sf "http://$REG/v2/"
	start_mirror
	blob_by_mirror
	same_at "$(blob_path team/data "$DIGEST")" "$BLOB" $((20 * MiB)) 5000
	# Asked by itself, it may answer 500 to a tag at first.
	wait_for "$PATIENCE" curl -sf -o /dev/null -H \
		'Accept: application/vnd.docker.distribution.manifest.v2+json' \
		"http://$REG/v2/team/docker/manifests/v1"
	start_containerd one
	pull "$REG/team/docker:v1"
}

no_head()
{
	local url tag
	front "head$1"
	start_mirror --tag-fresh 0s --blobs-allow "$REG"
	tag=$(v2 team/data/manifests/v1)
	for _ in 1 2 3; do
		equal "$(status_of "$tag")" 200
	done
	equal "$(header_of Warning "$tag")" '' 'stale'
	blob_by_mirror
	# A size that no manifest tells.
	random_file "$BATS_TEST_TMPDIR/single" 70000
	DIGEST=$(push_blob team/single "$BATS_TEST_TMPDIR/single")
	equal "$(status_of "$(v2 "team/single/blobs/$DIGEST")")" 200
	url="http://$HTTP/blobs/http://$REG/v2/team/single/blobs/$DIGEST"
	equal "$(status_of "$url")" 200
	cmp "$MNT/url/http/$REG/v2/team/single/blobs/$DIGEST" \
		"$BATS_TEST_TMPDIR/single"
}

@test "HEAD gets 400: GET tells" {
	no_head 400
}

@test "HEAD gets 403: GET tells" {
	no_head 403
}

@test "HEAD gets 405: GET tells" {
	no_head 405
}
