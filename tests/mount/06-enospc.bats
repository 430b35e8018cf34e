#!/usr/bin/env bats
# Cache directories that are full, read-only, in use, foreign or damaged.

load ../lib/common

setup_file()
{
	start_registry
	export FILE=$BATS_FILE_TMPDIR/file
	random_file "$FILE" $((48 * MiB + 17))
	DIGEST=$(push_blob full/data "$FILE")
	export DIGEST
}

# A cache on a file system of its own.
small_cache()
{
	need_root
	CACHE=$BATS_TEST_TMPDIR/small/cache
	mkdir -p "$BATS_TEST_TMPDIR/small"
	mount -t tmpfs -o "size=$1" tmpfs "$BATS_TEST_TMPDIR/small"
}

loop_cache()
{
	need_root
	CACHE=$BATS_TEST_TMPDIR/small/cache
	mkdir -p "$BATS_TEST_TMPDIR/small"
	truncate -s "$1" "$BATS_TEST_TMPDIR/image"
	mkfs.ext4 -q ${2:+-N "$2"} "$BATS_TEST_TMPDIR/image"
	mount -o loop "$BATS_TEST_TMPDIR/image" "$BATS_TEST_TMPDIR/small"
}

# push_small COUNT: many small files as one artifact's; their digests are in
# $BATS_TEST_TMPDIR/digests.
push_small()
{
	for ((i = 0; i < $1; i++)); do
		echo "small $i" >"$BATS_TEST_TMPDIR/one"
		push_blob full/small "$BATS_TEST_TMPDIR/one"
	done >"$BATS_TEST_TMPDIR/digests"
}

release_cache()
{
	stop_peerd
	umount "$BATS_TEST_TMPDIR/small"
}

# It does not start: the status is not 0, and the log's end says why.
does_not_start()
{
	local why=$1
	shift
	expect_errors "$why"
	start_peerd_unready "$@"
	wait_for "$PATIENCE" peerd_ready_or_dead
	refute peerd_ready
	finish "$PEERD_RUN" TERM && return 1
	grep -qE "$why" "$PEERD_LOG" || {
		cat "$PEERD_LOG" >&2
		return 1
	}
}

full_disk()
{
	expect_errors 'No space left|cache'
	start_peerd
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
	drop_caches
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
	for i in 40 3 17; do
		same_at "$(blob_path full/data "$DIGEST")" "$FILE" \
			$((i * MiB + 5)) 70000
	done
	peerd status >/dev/null
}

@test "a full tmpfs: reads go on, and are right" {
	small_cache 12m
	full_disk
	release_cache
}

@test "a full ext4 on a loop device: reads go on, and are right" {
	loop_cache 24M
	full_disk
	# And after a restart on the full disk.
	stop_peerd
	full_disk
	release_cache
}

@test "a file system out of inodes: the oldest blobs make room" {
	# Of 400 inodes directories take up to 256.
	loop_cache 64M 400
	push_small 500
	start_peerd
	while read -r digest; do
		grep -q '^small' "$(blob_path full/small "$digest")"
	done <"$BATS_TEST_TMPDIR/digests"
	# What was read last is cached.
	equal "$(peerd status --json | jq .cache.write_errors)" 0 \
		'writes that failed'
	peerd ls --json | jq -e --arg d "$(tail -1 "$BATS_TEST_TMPDIR/digests")" \
		'.blobs[] | select(.digest == $d) | .cached > 0'
	# An empty cache has no files.
	peerd evict --all >/dev/null
	equal "$(find "$CACHE/blobs" -type f | wc -l)" 0 'files left'
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
	release_cache
}

@test "a disk that others fill: what was cached stays right" {
	small_cache 40m
	expect_errors 'No space left|cache'
	start_peerd
	file=$(blob_path full/data "$DIGEST")
	same_at "$file" "$FILE" 0 $((4 * MiB))
	head -c 64M /dev/zero >"$BATS_TEST_TMPDIR/small/hog" 2>/dev/null || true
	cmp "$file" "$FILE"
	rm "$BATS_TEST_TMPDIR/small/hog"
	drop_caches
	cmp "$file" "$FILE"
	release_cache
}

@test "--cache-min-free is kept" {
	small_cache 60m
	start_peerd --cache-min-free 20MiB
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
	wait_for "$PATIENCE" eval \
		'(($(df -B 1 --output=avail "$CACHE" | tail -1) >= 19 * MiB))'
	release_cache
}

@test "a read-only cache directory is said plainly" {
	small_cache 12m
	mkdir -p "$CACHE"
	mount -o remount,ro "$BATS_TEST_TMPDIR/small"
	does_not_start 'Read-only file system'
	grep -F "$CACHE" "$PEERD_LOG"
	umount "$BATS_TEST_TMPDIR/small"
}

@test "a cache directory that is a file is said plainly" {
	CACHE=$BATS_TEST_TMPDIR/file
	echo hello >"$CACHE"
	does_not_start 'Not a directory'
}

@test "a second daemon on one cache says who holds it" {
	start_peerd
	first=$PEERD_RUN
	pid=$(peerd_pid)
	mnt=$MNT
	MNT=$BATS_TEST_TMPDIR/mnt2
	does_not_start "$pid"
	refute mounted "$MNT"
	# The first is none the worse for it.
	MNT=$mnt PEERD_RUN=$first PEERD_LOG=$first.log
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
	stop_peerd
}

@test "a cache of an unknown version is refused and left alone" {
	start_peerd
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
	stop_peerd
	"$BUILD/tests/lib/cachetool" format "$CACHE" 99
	sum=$(digest_of "$CACHE/index/data.mdb")
	does_not_start 'version'
	equal "$(digest_of "$CACHE/index/data.mdb")" "$sum"
	[[ -s $("$BUILD/tests/lib/cachetool" file "$CACHE" "$DIGEST") ]]
}

# cached_then COMMAND...: a cache, damaged by COMMAND on its data.mdb, works.
cached_then()
{
	start_peerd
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
	stop_peerd
	"$@" "$CACHE/index/data.mdb"
	expect_errors 'index|cache'
	start_peerd
	logged '"level":"(warn|error)".*(index|cache)'
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
	stop_peerd
	# Once said, it is in order again.
	start_peerd
	refute grep -E '"level":"(warn|error)"' "$PEERD_LOG"
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
}

overwrite()
{
	head -c 65536 /dev/urandom | dd of="$1" conv=notrunc status=none
}

overwrite_inside()
{
	head -c 20000 /dev/urandom |
		dd of="$1" bs=4096 seek=3 conv=notrunc status=none
}

cut_short()
{
	truncate -s 9000 "$1"
}

@test "an index of random bytes is set aside" {
	cached_then overwrite
}

@test "an index with damaged pages is set aside" {
	cached_then overwrite_inside
}

@test "an index that was cut short is set aside" {
	cached_then cut_short
}

@test "an empty index file is no obstacle" {
	start_peerd
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
	stop_peerd
	: >"$CACHE/index/data.mdb"
	start_peerd
	cmp "$(blob_path full/data "$DIGEST")" "$FILE"
}
