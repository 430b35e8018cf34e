# shellcheck shell=bash disable=SC2034,SC2154
# A containerd of a test's own, with directories and a socket of its own; to be
# loaded after common.bash.

# start_containerd NAME: sets CTRD, its directory.
start_containerd()
{
	CTRD=${BATS_TEST_TMPDIR:-$BATS_FILE_TMPDIR}/$1
	mkdir -p "$CTRD"
	cat >"$CTRD/config.toml" <<-END
		version = 2
		root = "$CTRD/root"
		state = "$CTRD/state"
		disabled_plugins = ["io.containerd.grpc.v1.cri",
			"io.containerd.snapshotter.v1.devmapper",
			"io.containerd.snapshotter.v1.btrfs",
			"io.containerd.snapshotter.v1.zfs",
			"io.containerd.snapshotter.v1.aufs",
			"io.containerd.tracing.processor.v1.otlp",
			"io.containerd.internal.v1.tracing"]
		[grpc]
		  address = "$CTRD/sock"
		[ttrpc]
		  address = "$CTRD/ttrpc"
		[plugins."io.containerd.internal.v1.opt"]
		  path = "$CTRD/opt"
	END
	background "$CTRD/containerd" containerd --config "$CTRD/config.toml" \
		--log-level warn
	wait_for "$PATIENCE" ctr_ version
}

ctr_()
{
	ctr --address "$CTRD/sock" "$@"
}
