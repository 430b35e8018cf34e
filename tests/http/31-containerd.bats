#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# containerd pulls through the mirror. Each containerd has directories and a
# socket of its own.

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
	export IMAGE
}

setup()
{
	command -v containerd >/dev/null || missing 'needs containerd'
	need_root
}

# The hosts.toml of a registry that peerd mirrors.
write_hosts()
{
	HOSTS=$BATS_TEST_TMPDIR/certs.d
	mkdir -p "$HOSTS/$REG"
	cat >"$HOSTS/$REG/hosts.toml" <<-END
		server = "http://$REG"

		[host."http://$HTTP"]
		  capabilities = ["pull", "resolve"]
	END
}

pull()
{
	ctr_ images pull --hosts-dir "$HOSTS" --snapshotter native \
		"${1:-$IMAGE}" >>"$CTRD/pull.log" 2>&1 || {
		local rc=$?
		tail -n 5 "$CTRD/pull.log" >&2
		return $rc
	}
}

# Every blob of the image is in containerd's store, and is unpacked.
is_pulled()
{
	ctr_ images check --snapshotter native | grep -F "${1:-$IMAGE}" |
		grep -F complete | grep -qF true
	equal "$(ctr_ images ls | awk -v i="${1:-$IMAGE}" \
		'$1 == i { print $3 }')" "$(digest_of "$MANIFEST")"
	while read -r digest; do
		ctr_ content get "$digest" >"$CTRD/blob"
		equal "$(digest_of "$CTRD/blob")" "$digest"
	done < <(jq -r '.config.digest, .layers[].digest' "$MANIFEST")
	at_least "$(jq '.layers | length' "$MANIFEST")" 2 layers
}

# How often an agent asked the registry since line $2 of its log.
asked_by()
{
	settle_log
	tail -n +"$(($2 + 1))" "$REG_LOG" |
		jq -r --arg a "$1" 'select(.agent | startswith($a)) | .uri' |
		wc -l
}

@test "a pull from an open registry goes through peerd" {
	start_mirror
	write_hosts
	start_containerd one
	mark=$(reg_mark)
	pull
	is_pulled
	equal "$(asked_by containerd "$mark")" 0 'requests of containerd'
	at_least "$(asked_by peerd "$mark")" 3 'requests of peerd'
	at_least "$(metric peerd_mirror_requests_total 'kind="blob"')" 3
	# The second node's runtime gets it from what is stored.
	mark=$(reg_mark)
	start_containerd two
	pull
	is_pulled
	equal "$(reg_stat bytes blobs "$mark")" 0 'bytes of blobs'
}

@test "a pull from a registry that wants credentials, which peerd has" {
	start_registry --htpasswd anna secret private
	push_image team/app v1
	IMAGE=$REG/team/app:v1
	MANIFEST=$BATS_TEST_TMPDIR/manifest
	skopeo --insecure-policy inspect --raw --tls-verify=false \
		--creds anna:secret "docker://$REG_BACK/team/app:v1" \
		>"$MANIFEST"
	start_mirror --registry-config "$(docker_config anna secret)"
	write_hosts
	start_containerd one
	pull
	is_pulled
	equal "$(status_of "http://$REG/v2/team/app/manifests/v1")" 401
}

@test "without peerd containerd asks the registry itself" {
	start_mirror
	stop_peerd
	write_hosts
	start_containerd one
	mark=$(reg_mark)
	pull
	is_pulled
	at_least "$(asked_by containerd "$mark")" 3 'requests of containerd'
}

@test "what peerd cannot have containerd gets from the registry" {
	# peerd has no credentials, and is refused; containerd is let in.
	start_registry --htpasswd anna secret private
	push_image team/app v1
	IMAGE=$REG/team/app:v1
	MANIFEST=$BATS_TEST_TMPDIR/manifest
	skopeo --insecure-policy inspect --raw --tls-verify=false \
		--creds anna:secret "docker://$REG_BACK/team/app:v1" \
		>"$MANIFEST"
	start_mirror --mirror-timeout 5s
	write_hosts
	start_containerd one
	ctr_ images pull --hosts-dir "$HOSTS" --snapshotter native \
		--user anna:secret "$IMAGE" >"$CTRD/pull.log" 2>&1
	is_pulled
}

@test "without the registry a second containerd gets all from peerd" {
	start_registry own
	push_image team/app v1
	IMAGE=$REG/team/app:v1
	MANIFEST=$BATS_TEST_TMPDIR/manifest
	skopeo --insecure-policy inspect --raw --tls-verify=false \
		"docker://$REG_BACK/team/app:v1" >"$MANIFEST"
	start_mirror --tag-fresh 0s
	write_hosts
	start_containerd one
	pull
	finish "$CTRD/containerd" TERM || true
	stop_registry
	start_containerd two
	pull
	is_pulled
	at_least "$(metric peerd_mirror_stale_tags_total)" 1
	# And so after a restart of peerd.
	stop_peerd
	start_mirror --tag-fresh 0s
	start_containerd three
	pull
	is_pulled
}

has_begun()
{
	(($(metric peerd_upstream_bytes_total) > 1000000))
}

@test "peerd is killed in mid-pull: the pull, or a second one, succeeds" {
	REG_RATE=1m start_registry slow
	push_image team/app v1
	IMAGE=$REG/team/app:v1
	MANIFEST=$BATS_TEST_TMPDIR/manifest
	skopeo --insecure-policy inspect --raw --tls-verify=false \
		"docker://$REG_BACK/team/app:v1" >"$MANIFEST"
	start_mirror
	write_hosts
	start_containerd one
	background "$CTRD/first" ctr --address "$CTRD/sock" images pull \
		--hosts-dir "$HOSTS" --snapshotter native "$IMAGE"
	wait_for "$PATIENCE" has_begun
	refute ended "$CTRD/first"
	kill_peerd
	wait_for "$PATIENCE" ended "$CTRD/first"
	if [[ $(<"$CTRD/first.rc") != 0 ]]; then
		pull
	fi
	is_pulled
}

@test "peerd is restarted: what was stored is not fetched again" {
	start_mirror
	write_hosts
	start_containerd one
	pull
	wait_for "$PATIENCE" quiet
	stop_peerd
	start_mirror
	start_containerd two
	mark=$(reg_mark)
	pull
	is_pulled
	equal "$(reg_stat bytes blobs "$mark")" 0 'bytes of blobs'
}

@test "an image that is not there: containerd says so soon" {
	start_mirror --mirror-timeout 2s
	write_hosts
	start_containerd one
	run pull "$REG/team/none:v1"
	refute test "$status" = 0
	matches "$output" 'not found'
}
