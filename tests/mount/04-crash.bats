#!/usr/bin/env bats
# kill -9 and restarts: what was committed is there, right, and not fetched
# again; everything else is fetched anew.

load ../lib/common

# Chunks that the index has, as lines.
present()
{
	"$BUILD/tests/lib/cachetool" chunks "$CACHE" "$1" | sort -n
}

# both FILE FILE: numbers that are in both.
both()
{
	comm -12 <(sort "$1") <(sort "$2")
}

requested_since()
{
	"$LIB/ranges.py" "$REG_LOG" "$2" --from "$1" --chunks
}

@test "kill -9 in mid-download, twenty times" {
	REG_RATE=4m start_registry
	dir=$BATS_TEST_TMPDIR
	random_file "$dir/file" $((300 * MiB))
	digest=$(push_blob crash/data "$dir/file")
	CACHE=$dir/cache
	: >"$dir/had"
	mid=0
	for round in {1..20}; do
		mark=$(reg_mark)
		start_peerd
		file=$(blob_path crash/data "$digest")
		before=$(wc -l <"$dir/had")
		background "$dir/reader" cat "$file"
		# Some chunks must arrive in each round.
		wait_for "$PATIENCE" eval \
			"cached_at_least '$file' $(((before + 4) * MiB)) ||
			ended '$dir/reader'"
		sleep "0.0$((RANDOM % 10))"
		kill_peerd
		wait_for "$PATIENCE" ended "$dir/reader"
		rm "$dir/reader.out"
		wait_for "$PATIENCE" front_idle
		present "$digest" >"$dir/has"
		# Nothing that was committed is lost, or was asked for again.
		equal "$(both "$dir/had" "$dir/has" | wc -l)" \
			"$(wc -l <"$dir/had")" "round $round: kept"
		requested_since "$mark" "$digest" >"$dir/asked"
		equal "$(both "$dir/had" "$dir/asked")" '' \
			"round $round: fetched again"
		at_least "$(wc -l <"$dir/asked")" 1 "round $round: asked"
		(($(wc -l <"$dir/has") == 300)) || mid=$((mid + 1))
		mv "$dir/has" "$dir/had"
		((mid == round)) || break
	done
	# The download must have lasted, or nothing was tested.
	at_least "$mid" 15 'rounds in mid-download'
	mark=$(reg_mark)
	start_peerd
	cmp "$(blob_path crash/data "$digest")" "$dir/file"
	settle_log
	requested_since "$mark" "$digest" >"$dir/asked"
	equal "$(both "$dir/had" "$dir/asked")" '' 'fetched again'
	wait_for "$PATIENCE" is_verified "$(blob_path crash/data "$digest")"
	equal "$(peerd verify "$digest" >/dev/null; echo $?)" 0
}

# All names of the mount, with their inodes, sizes and what is stored of each.
tree()
{
	find "$MNT" -mindepth 1 -name .peerd -prune -o \
		-printf '%P %y %i %s %b\n' | sort
}

# What the daemon knows of each blob, but for the time.
known()
{
	peerd ls --json | jq -c '.blobs | sort_by(.digest)[] |
		[.digest, .size, .cached, .state]'
}

@test "kill -9 leaves the tree and what is stored as they were" {
	start_registry
	dir=$BATS_TEST_TMPDIR
	random_file "$dir/whole" $((5 * MiB + 7))
	random_file "$dir/part" $((6 * MiB))
	random_file "$dir/none" $((2 * MiB))
	push_artifact tree/data v1 "$dir/whole" "sub/dir/part=$dir/part" \
		"$dir/none"
	push_artifact tree/other latest "$dir/none"
	start_peerd
	files=$(repo_dir tree/data)/tags/v1/files
	cmp "$files/whole" "$dir/whole"
	same_at "$files/sub/dir/part" "$dir/part" $((3 * MiB + 5)) 1000
	cat "$(repo_dir tree/other)/manifests/latest" >/dev/null
	wait_for "$PATIENCE" is_verified "$files/whole"
	# Looking at a name makes its blob known.
	tree >/dev/null
	# The kernel's attributes may be of a moment ago.
	wait_for 10 eval '(($(stored "$files/sub/dir/part") == MiB))'
	tree >"$dir/tree"
	for name in "registry/$REG/tree/data/tags/v1/files/sub/dir/part f" \
		"registry/$REG/tree/other/tags/latest/manifest.json f" \
		"blobs/sha256/$(digest_of "$dir/whole" | cut -d: -f2) f"; do
		grep -qF "$name" "$dir/tree"
	done
	# With this answer everything is committed.
	known >"$dir/known"
	equal "$(wc -l <"$dir/known")" 4 'blobs'
	for round in 1 2 3; do
		kill_peerd
		mark=$(reg_mark)
		start_peerd
		diff "$dir/known" <(known)
		diff "$dir/tree" <(tree)
		# Names may be asked for again, bytes not.
		equal "$(reg_stat bytes /blobs/ "$mark")" 0 'bytes fetched'
	done
	cmp "$files/whole" "$dir/whole"
	same_at "$files/sub/dir/part" "$dir/part" $((3 * MiB + 5)) 1000
	equal "$(reg_stat bytes /blobs/ "$mark")" 0 'bytes fetched'
}

@test "a reader gets an error when the daemon dies, not a hang" {
	start_liar
	start_peerd
	file=$(blob_path mute "$(liar digest mute)" "$LIAR")
	background "$BATS_TEST_TMPDIR/reader" cat "$file"
	wait_for 20 eval 'liar log mute | grep -q "\"GET\".*blobs"'
	kill_peerd
	wait_for 20 ended "$BATS_TEST_TMPDIR/reader"
	equal "$(<"$BATS_TEST_TMPDIR/reader.rc")" 1
}

@test "a dead daemon's mount is cleared at start" {
	start_registry
	start_peerd
	ls "$MNT" >/dev/null
	kill_peerd
	run ls "$MNT"
	matches "$output" 'Transport endpoint is not connected'
	start_peerd
	[[ -d $MNT/registry ]]
	logged 'dead daemon'
	equal "$(grep -cF " $MNT " /proc/self/mounts)" 1 'mounts'
}

@test "with the registry gone, what is cached reads on after a restart" {
	start_registry
	dir=$BATS_TEST_TMPDIR
	random_file "$dir/a" $((6 * MiB))
	random_file "$dir/b" $((6 * MiB))
	push_artifact gone/data v1 "$dir/a" "$dir/b"
	b=$(digest_of "$dir/b")
	start_peerd --read-timeout 3s --metadata-timeout 3s --tag-fresh 0ms \
		--negative-time 0ms
	cmp "$(repo_dir gone/data)/tags/v1/files/a" "$dir/a"
	same_at "$(blob_path gone/data "$b")" "$dir/b" $((2 * MiB)) 1000
	ls "$(repo_dir gone/data)/tags"
	stop_registry
	for restart in no yes; do
		if [[ $restart == yes ]]; then
			stop_peerd
			start_peerd --read-timeout 3s --metadata-timeout 3s
		fi
		expect_errors "$b|$REG"
		equal "$(ls "$(repo_dir gone/data)/tags")" v1 'tags'
		equal "$(ls "$(repo_dir gone/data)/tags/v1/files")" $'a\nb'
		cmp "$(repo_dir gone/data)/tags/v1/files/a" "$dir/a"
		file=$(repo_dir gone/data)/tags/v1/files/b
		same_at "$file" "$dir/b" $((2 * MiB)) 1000
		began=$(now_ms)
		run -1 cat "$file"
		matches "$output" 'Input/output error'
		at_most "$(since_ms "$began")" 20000 'milliseconds'
	done
	start_registry_again
	wait_for 30 cmp "$file" "$dir/b"
}

@test "the registry is away for a moment in mid-download" {
	REG_RATE=8m start_registry
	dir=$BATS_TEST_TMPDIR
	random_file "$dir/file" $((60 * MiB))
	digest=$(push_blob away/data "$dir/file")
	start_peerd --read-timeout 60s
	file=$(blob_path away/data "$digest")
	background "$dir/reader" cmp "$file" "$dir/file"
	wait_for "$PATIENCE" cached_at_least "$file" 1
	stop_registry
	start_registry_again
	wait_for 90 ended "$dir/reader"
	equal "$(<"$dir/reader.rc")" 0
}

@test "damage to a cached file is found at the first read, and repaired" {
	start_registry
	dir=$BATS_TEST_TMPDIR
	random_file "$dir/file" $((8 * MiB))
	digest=$(push_blob damage/data "$dir/file")
	start_peerd
	file=$(blob_path damage/data "$digest")
	cmp "$file" "$dir/file"
	wait_for "$PATIENCE" is_verified "$file"
	stop_peerd
	data=$("$BUILD/tests/lib/cachetool" file "$CACHE" "$digest")
	printf 'X' | dd of="$data" bs=1 seek=$((3 * MiB + 5)) conv=notrunc \
		status=none
	mark=$(reg_mark)
	start_peerd
	cmp "$file" "$dir/file"
	settle_log
	equal "$(requested_since "$mark" "$digest")" 3 'chunks fetched'
	# A file cut short, and one that is gone.
	stop_peerd
	truncate -s $((2 * MiB + 100)) "$data"
	start_peerd
	cmp "$file" "$dir/file"
	stop_peerd
	rm "$data"
	start_peerd
	cmp "$file" "$dir/file"
}
