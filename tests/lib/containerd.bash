# shellcheck shell=bash disable=SC2034,SC2154
# A containerd of a test's own, with directories and a socket of its own; to be
# loaded after common.bash, which containerd_config() does without.

# containerd_config DIR: makes DIR/config.toml for a containerd that keeps all
# it has below DIR, and listens at DIR/sock.
containerd_config()
{
	local dir=$1
	mkdir -p "$dir"
	cat >"$dir/config.toml" <<-END
		version = 2
		root = "$dir/root"
		state = "$dir/state"
		disabled_plugins = ["io.containerd.grpc.v1.cri",
			"io.containerd.snapshotter.v1.devmapper",
			"io.containerd.snapshotter.v1.btrfs",
			"io.containerd.snapshotter.v1.zfs",
			"io.containerd.snapshotter.v1.aufs",
			"io.containerd.tracing.processor.v1.otlp",
			"io.containerd.internal.v1.tracing"]
		[grpc]
		  address = "$dir/sock"
		[ttrpc]
		  address = "$dir/ttrpc"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "$dir/opt"
	END
}

# start_containerd NAME: sets CTRD, its directory.
start_containerd()
{
	CTRD=${BATS_TEST_TMPDIR:-$BATS_FILE_TMPDIR}/$1
	containerd_config "$CTRD"
	background "$CTRD/containerd" containerd --config "$CTRD/config.toml" \
		--log-level warn
	wait_for "$PATIENCE" ctr_ version
}

ctr_()
{
	ctr --address "$CTRD/sock" "$@"
}
