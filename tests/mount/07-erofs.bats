#!/usr/bin/env bats
# Images mounted straight from the mount, loop devices, and fio's own pattern.

load ../lib/common

setup_file()
{
	start_registry
	export DIR=$BATS_FILE_TMPDIR/tree
	mkdir -p "$DIR/a/b/c"
	for i in {1..40}; do
		random_file "$DIR/a/f$i" $((i * 25013))
	done
	seq 100000 >"$DIR/a/b/numbers"
	ln -s ../f1 "$DIR/a/b/link"
	: >"$DIR/a/b/c/empty"
	mkfs.erofs "$BATS_FILE_TMPDIR/image.erofs" "$DIR" >/dev/null
	push_artifact images/tree v1 "$BATS_FILE_TMPDIR/image.erofs"
	export IMAGE_BYTES
	IMAGE_BYTES=$(stat -c %s "$BATS_FILE_TMPDIR/image.erofs")
}

setup()
{
	need_root
	start_peerd
	IMAGE=$(repo_dir images/tree)/tags/v1/files/image.erofs
	mkdir -p "$BATS_TEST_TMPDIR/at"
}

# The kernel cannot: a skip. Anything else is a failure.
mount_erofs()
{
	run mount -t erofs "$@"
	[[ $status != 0 ]] || return 0
	case $output in
	*'unknown filesystem'* | *'block device required'* | \
		*'failed to setup loop'*) missing "$output" ;;
	*) echo "$output" >&2; return 1 ;;
	esac
}

@test "EROFS is mounted straight from a file of the mount" {
	mark=$(reg_mark)
	mount_erofs -o ro "$IMAGE" "$BATS_TEST_TMPDIR/at"
	cat "$BATS_TEST_TMPDIR/at/a/b/c/empty"
	at_most "$(reg_stat bytes blobs/ "$mark")" $((IMAGE_BYTES / 2)) \
		'bytes fetched for a look at it'
	diff -r --no-dereference "$DIR" "$BATS_TEST_TMPDIR/at"
	umount "$BATS_TEST_TMPDIR/at"
}

@test "EROFS on a loop device with direct I/O" {
	dev=$(losetup --direct-io=on -r -f --show "$IMAGE")
	equal "$(losetup -n -O DIO "$dev" | tr -d ' ')" 1 'direct I/O'
	mount_erofs -o ro "$dev" "$BATS_TEST_TMPDIR/at" || {
		losetup -d "$dev"
		return 1
	}
	diff -r --no-dereference "$DIR" "$BATS_TEST_TMPDIR/at"
	umount "$BATS_TEST_TMPDIR/at"
	losetup -d "$dev"
}

@test "an image on a loop device outlives eviction" {
	dev=$(losetup -r -f --show "$IMAGE")
	mount_erofs -o ro "$dev" "$BATS_TEST_TMPDIR/at"
	diff -r --no-dereference "$DIR" "$BATS_TEST_TMPDIR/at"
	peerd evict --all
	drop_caches
	diff -r --no-dereference "$DIR" "$BATS_TEST_TMPDIR/at"
	umount "$BATS_TEST_TMPDIR/at"
	losetup -d "$dev"
}

# fio's own pattern, with a checksum in each block: it knows what it wrote
# where, so a block from another place is found out.
@test "fio verifies random reads through the mount" {
	cd "$BATS_TEST_TMPDIR"
	pattern=(--name=verify --size=64m --bs=16k --verify=crc32c
		--randseed=4711 --verify_fatal=1)
	fio "${pattern[@]}" --filename="$BATS_TEST_TMPDIR/pattern" \
		--rw=write --do_verify=0 --end_fsync=1 >fio.out
	digest=$(push_blob fio/data "$BATS_TEST_TMPDIR/pattern")
	file=$(blob_path fio/data "$digest")
	# To fio a colon separates files.
	fio "${pattern[@]}" --filename="${file//:/\\:}" --readonly --rw=randread \
		--ioengine=psync --allow_file_create=0 >fio.out ||
		{ cat fio.out >&2; false; }
	peerd evict "$digest"
	drop_caches
	fio "${pattern[@]}" --filename="${file//:/\\:}" --readonly --rw=randread \
		--ioengine=libaio --direct=1 --iodepth=16 \
		--allow_file_create=0 >fio.out || { cat fio.out >&2; false; }
	# A wrong byte would have been seen.
	cp pattern broken
	printf 'X' | dd of=broken bs=1 seek=$((7 * MiB + 900)) conv=notrunc \
		status=none
	digest=$(push_blob fio/data "$BATS_TEST_TMPDIR/broken")
	file=$(blob_path fio/data "$digest")
	refute fio "${pattern[@]}" --readonly --rw=randread --ioengine=psync \
		--filename="${file//:/\\:}" \
		--allow_file_create=0 >fio.out 2>&1
	grep -qE 'verify failed|verify: bad' fio.out
}
