#!/usr/bin/env bats
# The commands that talk to a running daemon.

load ../lib/common

setup_file()
{
	start_registry
	export DIR=$BATS_FILE_TMPDIR/files
	mkdir -p "$DIR"
	random_file "$DIR/a" $((6 * MiB + 1))
	random_file "$DIR/b" $((2 * MiB))
	push_artifact cli/data v1 "$DIR/a" "$DIR/b"
	push_image cli/image v1
	A=$(digest_of "$DIR/a")
	B=$(digest_of "$DIR/b")
	export A B
}

state_of()
{
	peerd ls --json | jq -r --arg d "$1" \
		'.blobs[] | select(.digest == $d) | .state'
}

cached_of()
{
	peerd ls --json | jq -r --arg d "$1" \
		'.blobs[] | select(.digest == $d) | .cached'
}

@test "status tells what the daemon is doing" {
	start_peerd
	run -0 peerd status
	matches "$output" "$MNT"
	peerd status --json | jq -e --arg m "$MNT" '.mount == $m and
		.cache.blobs == 0 and .fetch.failed_reads == 0'
	cat "$(blob_path cli/data "$A")" >/dev/null
	peerd status --json | jq -e --argjson n $((6 * MiB + 1)) \
		'.cache.cached_bytes == $n and .fetch.fetched_bytes == $n'
	equal "$(jq -r .cache.blobs "$MNT/.peerd/status.json")" \
		"$(peerd status --json | jq -r .cache.blobs)"
}

@test "ls lists blobs, how much is cached, and whether it was verified" {
	start_peerd
	read_at "$(blob_path cli/data "$A")" $((3 * MiB)) 10 >/dev/null
	cat "$(blob_path cli/data "$B")" >/dev/null
	wait_for "$PATIENCE" eval '[[ $(state_of "$B") == verified ]]'
	equal "$(state_of "$A")" provisional
	equal "$(cached_of "$A")" "$MiB"
	run -0 peerd ls
	matches "$output" "$B .*verified"
}

@test "pull of a tag fetches all blobs, and reads need no registry" {
	start_peerd --read-timeout 3s --metadata-timeout 3s
	run -0 peerd pull "$REG/cli/data:v1"
	matches "$output" 'cli/data'
	equal "$(state_of "$A")" verified
	equal "$(state_of "$B")" verified
	mark=$(reg_mark)
	cmp "$(blob_path cli/data "$A")" "$DIR/a"
	equal "$(reg_stat requests "$A" "$mark")" 0
	# Again costs nothing.
	peerd pull --quiet "$REG/cli/data:v1"
	equal "$(reg_stat bytes 'blobs/' "$mark")" 0 'bytes fetched'
}

@test "pull of an image fetches config and layers" {
	start_peerd
	peerd pull "$REG/cli/image:v1"
	dir=$(repo_dir cli/image)/tags/v1
	mark=$(reg_mark)
	for file in "$dir"/layers/* "$dir/config.json"; do
		cat "$file" >/dev/null
	done
	equal "$(reg_stat requests blobs/ "$mark")" 0
}

@test "pull by digest: a blob, and a manifest" {
	start_peerd
	peerd pull "$REG/cli/data@$B"
	equal "$(state_of "$B")" verified
	equal "$(cached_of "$A")" ''
	digest=$(digest_of "$(repo_dir cli/data)/manifests/v1")
	peerd pull "$REG/cli/data@$digest"
	equal "$(state_of "$A")" verified
}

@test "pull with --json reports progress and a result" {
	start_peerd
	peerd pull --json "$REG/cli/data:v1" >"$BATS_TEST_TMPDIR/lines"
	jq -es '.[-1].result == "ok" and .[-1].bytes_done == .[-1].bytes' \
		"$BATS_TEST_TMPDIR/lines"
}

@test "pull of what is not there, or no reference, fails with a sentence" {
	start_peerd --metadata-timeout 3s
	run -1 peerd pull "$REG/cli/none:v1"
	matches "$output" 'cli/none'
	run -1 peerd pull "$REG/cli/data:v9"
	refute peerd pull "$REG/UPPER CASE"
	refute peerd pull "127.0.0.1:1/cli/data:v1"
	refute peerd pull
	run -1 peerd pull "$REG/cli/data@sha256:$(printf 'ab%.0s' {1..32})"
	# One bad of several: the others are pulled.
	refute peerd pull "$REG/cli/none:v1" "$REG/cli/data:v1"
	equal "$(state_of "$A")" verified
}

@test "pull shows a progress bar on a terminal only" {
	start_peerd
	script -qec "'$PEERD' pull --cache-dir '$CACHE' '$REG/cli/data:v1'" \
		/dev/null >"$BATS_TEST_TMPDIR/screen"
	grep -q '\[####' "$BATS_TEST_TMPDIR/screen"
	peerd evict --all
	peerd pull "$REG/cli/data:v1" >"$BATS_TEST_TMPDIR/out" \
		2>"$BATS_TEST_TMPDIR/err"
	refute grep -q '\[###' "$BATS_TEST_TMPDIR/out" "$BATS_TEST_TMPDIR/err"
}

@test "a pull that is interrupted goes on where it was" {
	start_liar
	start_peerd --read-timeout 8s
	expect_errors "$LIAR|sha256"
	digest=$(liar digest stall)
	background "$BATS_TEST_TMPDIR/pull" "$PEERD" pull --cache-dir "$CACHE" \
		"$LIAR/stall@$digest"
	wait_for 20 eval 'liar log stall | grep -q "\"GET\".*blobs"'
	finish "$BATS_TEST_TMPDIR/pull" INT 20 || true
	liar heal stall
	peerd status >/dev/null
	liar bytes stall >"$BATS_TEST_TMPDIR/right"
	wait_for "$PATIENCE" cmp "$(blob_path stall "$digest" "$LIAR")" \
		"$BATS_TEST_TMPDIR/right"
}

@test "verify checks what is cached, and finds damage" {
	start_peerd
	peerd pull "$REG/cli/data:v1"
	run -0 peerd verify "$A" "$B"
	matches "$output" "$A *verified"
	run -0 peerd verify --all
	data=$("$BUILD/tests/lib/cachetool" file "$CACHE" "$A")
	printf 'X' | dd of="$data" bs=1 seek=$((2 * MiB + 5)) conv=notrunc \
		status=none
	expect_errors "$A|digest"
	run peerd verify "$A"
	refute grep -qE "$A *verified" <<<"$output"
	drop_caches
	cmp "$(blob_path cli/data "$A")" "$DIR/a"
	run -0 peerd verify "$A"
	matches "$output" "$A *verified"
}

@test "verify and evict of what is unknown or malformed fail" {
	start_peerd
	for command in verify evict; do
		refute peerd $command
		refute peerd $command nonsense
		refute peerd $command "sha256:$(printf 'cd%.0s' {1..32})"
	done
}

@test "evict of one blob leaves the others" {
	start_peerd
	peerd pull "$REG/cli/data:v1"
	peerd evict "$A"
	equal "$(cached_of "$A")" 0
	equal "$(cached_of "$B")" $((2 * MiB))
	peerd evict --all
	equal "$(cached_of "$B")" 0
}

@test "what was evicted is not called verified" {
	start_peerd
	peerd pull "$REG/cli/data:v1"
	equal "$(state_of "$A")" verified
	is_verified "$(blob_path cli/data "$A")"
	peerd evict --all
	# As it is in memory, in the index, and read back from there.
	for restart in no yes; do
		[[ $restart == no ]] || { stop_peerd; start_peerd; }
		for digest in "$A" "$B"; do
			equal "$(cached_of "$digest")" 0
			equal "$(state_of "$digest")" provisional
			equal "$(xattr verified "$(blob_path cli/data \
				"$digest")")" no
			equal "$(state_of "$digest")" provisional
		done
	done
	# Of an empty blob all is there.
	: >"$BATS_TEST_TMPDIR/empty"
	empty=$(push_blob cli/data "$BATS_TEST_TMPDIR/empty")
	cat "$(blob_path cli/data "$empty")"
	peerd evict --all
	equal "$(state_of "$empty")" verified
	cmp "$(blob_path cli/data "$A")" "$DIR/a"
	wait_for "$PATIENCE" is_verified "$(blob_path cli/data "$A")"
	equal "$(state_of "$A")" verified
}

@test "version needs no daemon" {
	run -0 "$PEERD" version
	matches "$output" '^peerd .'
	equal "$("$PEERD" --version)" "$output"
}

@test "without a daemon each command says so" {
	CACHE=$BATS_TEST_TMPDIR/nobody
	for command in status ls "verify --all" "evict --all" "pull x/y:z"; do
		# shellcheck disable=SC2086
		run peerd $command
		at_least "$status" 1 "$command"
		matches "$output" 'no daemon.*nobody'
	done
	# A socket that nobody listens on any more.
	start_registry
	start_peerd
	kill_peerd
	run peerd status
	at_least "$status" 1
	matches "$output" 'peerd: '
}

@test "the control socket is for its owner only" {
	start_peerd
	equal "$(stat -c %a "$CACHE/peerd.sock")" 600
}
