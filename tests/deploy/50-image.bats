#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2034,SC2119,SC2120,SC2154
# The images, built from the real Dockerfile (make-image) and run under a real
# containerd: what the container mounts, the host reads.
#
# TEST_CACHE: a directory that keeps Debian's packages and the images for the
# next time. Without it the building takes some minutes.

load ../lib/common
load ../lib/http
load ../lib/containerd

# A process of those that started this test that has the machine's network;
# the test has one of its own (contain), without Debian's mirror.
outside()
{
	local pid=$$ own
	own=$(readlink /proc/self/ns/net)
	while ((pid > 1)) && [[ $(readlink "/proc/$pid/ns/net") == "$own" ]]; do
		pid=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
	done
	echo "$pid"
}

setup_file()
{
	local tool
	need_root
	need_root_mount
	for tool in buildah debootstrap containerd ctr runc; do
		command -v "$tool" >/dev/null || missing "needs $tool"
	done
	export IMAGES=$BATS_FILE_TMPDIR/images
	cache=${TEST_CACHE:-$BATS_FILE_TMPDIR/cache}
	mkdir -p "$IMAGES" "$cache"
	nsenter --net="/proc/$(outside)/ns/net" \
		"$ROOT/tests/deploy/make-image" "$IMAGES" "$cache" \
		>"$BATS_FILE_TMPDIR/build.log" 2>&1 || {
		tail -n 30 "$BATS_FILE_TMPDIR/build.log" >&2
		return 1
	}
	start_containerd node
	ctr_ images import "$IMAGES/peerd.tar" >"$CTRD/import.log"
	ctr_ images import "$IMAGES/workloads.tar" >>"$CTRD/import.log"
	IMAGE=$(ctr_ images ls -q | grep -m 1 'peerd:test')
	WORKLOADS=$(ctr_ images ls -q | grep -m 1 'workloads:test')
	SNAPSHOTTER=native
	! grep -qw overlay /proc/filesystems || SNAPSHOTTER=overlayfs
	export CTRD IMAGE WORKLOADS SNAPSHOTTER
	start_registry
	push_image team/app v1
	random_file "$BATS_FILE_TMPDIR/blob" $((3 * MiB + 77))
	BLOB=$(push_blob some/repo "$BATS_FILE_TMPDIR/blob")
	export BLOB
}

setup()
{
	# As /var/lib/peerd on a node: a shared mount.
	NODE=$BATS_TEST_TMPDIR/node-dir
	mkdir -p "$NODE/lib" "$NODE/cache" "$NODE/certs.d"
	mount --bind "$NODE/lib" "$NODE/lib"
	mount --make-shared "$NODE/lib"
	HTTP=127.0.0.1:$(free_port)
	PROM=127.0.0.1:$(free_port)
}

teardown()
{
	local id
	for id in $(ctr_ containers ls -q); do
		ctr_ tasks kill --signal KILL "$id" || true
		wait_for 20 ctr_ tasks rm --force "$id" || true
		ctr_ containers rm "$id" || true
	done >/dev/null 2>&1
	umount -l "$NODE/lib/mnt" "$NODE/lib" 2>/dev/null || true
	kill_services "$BATS_TEST_TMPDIR"
}

# run_peerd ID [OPTION...]: as the chart's pod: privileged, root read-only.
run_peerd()
{
	local id=$1
	shift
	background "$BATS_TEST_TMPDIR/$id" ctr --address "$CTRD/sock" run \
		--snapshotter "$SNAPSHOTTER" --privileged --read-only --net-host \
		--rootfs-propagation shared \
		--env PEERD_HTTP_ADDR="$HTTP" --env PEERD_PROM_ADDR="$PROM" \
		--mount "type=bind,src=$NODE/lib,dst=/var/lib/peerd,options=rbind:rshared" \
		--mount "type=bind,src=$NODE/cache,dst=/var/cache/peerd,options=rbind:rw" \
		--mount "type=bind,src=$NODE/certs.d,dst=/etc/containerd/certs.d,options=rbind:rw" \
		"$IMAGE" "$id" /usr/bin/peerd run --mount /var/lib/peerd/mnt \
		--cache-min-free 0 --blobs-allow "$REG" "$@"
	wait_for "$PATIENCE" curl -sf -o /dev/null "http://$PROM/readyz" || {
		cat "$BATS_TEST_TMPDIR/$id.log" >&2
		return 1
	}
}

host_file()
{
	echo "$NODE/lib/mnt/registry/$REG/some/repo/blobs/$BLOB"
}

@test "the host reads a blob through the container's mount" {
	run_peerd one --allow-other --add-mirror-configuration --hosts "$REG" \
		--mirrors "http://$HTTP"
	cmp "$(host_file)" "$BATS_FILE_TMPDIR/blob"
	# hosts.toml is written on the host, and given back as preStop does it.
	grep -q "$HTTP" "$NODE/certs.d/$REG/hosts.toml"
	ctr_ tasks exec --exec-id undo one /usr/bin/peerd hosts undo
	refute test -e "$NODE/certs.d/$REG/hosts.toml"
	# The end as Kubernetes does it: the mount goes with it.
	ctr_ tasks kill --signal TERM one
	wait_for "$PATIENCE" ended "$BATS_TEST_TMPDIR/one"
	equal "$(<"$BATS_TEST_TMPDIR/one.rc")" 0
	refute mounted "$NODE/lib/mnt"
	# Nothing but the cache was written to.
	equal "$(ls -A "$NODE/lib")" mnt
	refute grep -E '"level":"(error|warn)"' "$BATS_TEST_TMPDIR/one.log"
}

@test "what a killed pod left mounted is cleared by the next one" {
	run_peerd one
	cmp "$(host_file)" "$BATS_FILE_TMPDIR/blob"
	ctr_ tasks kill --signal KILL one
	wait_for "$PATIENCE" ended "$BATS_TEST_TMPDIR/one"
	run_peerd two
	cmp "$(host_file)" "$BATS_FILE_TMPDIR/blob"
	equal "$(grep -c " $NODE/lib/mnt fuse" /proc/self/mounts)" 1
}

@test "the workloads' image compares peerd with the registry" {
	run_peerd one
	ctr_ run --rm --snapshotter "$SNAPSHOTTER" --read-only --net-host "$WORKLOADS" \
		random /usr/bin/peerd-random --proxy "http://$HTTP/blobs/" \
		"http://$REG/v2/some/repo/blobs/$BLOB" \
		>"$BATS_TEST_TMPDIR/random.out"
	jq -es '[.[] | select(.message == "error rates") |
		.["p2p.error_rate"] == 0] | any' "$BATS_TEST_TMPDIR/random.out"
	mkdir -p "$NODE/certs.d/$REG"
	printf 'server = "http://%s"\n[host."http://%s"]\n' "$REG" "$HTTP" \
		>"$NODE/certs.d/$REG/hosts.toml"
	ctr_ run --rm --snapshotter "$SNAPSHOTTER" --net-host \
		--mount "type=bind,src=$CTRD,dst=/run/containerd,options=rbind:rw" \
		--mount "type=bind,src=$NODE/certs.d,dst=/etc/containerd/certs.d,options=rbind:ro" \
		"$WORKLOADS" pulls /usr/bin/ctr.sh --state ready \
		--address /run/containerd/sock --snapshotter "$SNAPSHOTTER" \
		--http "http://$HTTP" "$REG/team/app:v1" \
		>"$BATS_TEST_TMPDIR/ctr.out"
	jq -es '[.[] | select(.message == "bytes by source") |
		.upstream > 4000000] | any' "$BATS_TEST_TMPDIR/ctr.out"
}

@test "the images are small and say what they are" {
	at_most "$(stat -c %s "$IMAGES/peerd.tar")" $((60 * MiB)) peerd.tar
	at_most "$(stat -c %s "$IMAGES/workloads.tar")" $((80 * MiB)) \
		workloads.tar
	skopeo inspect --config "oci-archive:$IMAGES/peerd.tar" \
		>"$BATS_TEST_TMPDIR/config"
	jq -e '.config | .Entrypoint == ["/usr/bin/peerd"] and
		.Cmd == ["run"] and
		.Labels["org.opencontainers.image.title"] == "peerd"' \
		"$BATS_TEST_TMPDIR/config"
	matches "$(ctr_ run --rm --snapshotter "$SNAPSHOTTER" "$IMAGE" version \
		/usr/bin/peerd version)" '^peerd [0-9a-zA-Z]'
}
