#!/usr/bin/env bats
# Registries that lie, stall and break: right bytes in the end, or an error
# within the deadline; never wrong bytes and never a short read.

load ../lib/common

DEADLINE=6

setup_file()
{
	start_liar
}

setup()
{
	mkdir -p "$BATS_TEST_TMPDIR"
	start_peerd --read-timeout ${DEADLINE}s --metadata-timeout 5s
	expect_errors "$LIAR"
	expect_errors 'sha256:'
}

# The path of NAME's blob; its right bytes are put in $RIGHT.
lying()
{
	RIGHT=$BATS_TEST_TMPDIR/right
	liar bytes "$1" >"$RIGHT"
	FILE=$(blob_path "$1" "$(liar digest "$1")" "$LIAR")
}

# It reads right: after some retries, say.
recovers()
{
	lying "$1"
	cmp "$FILE" "$RIGHT"
}

# All of it fails with EIO, in time. What was read before that is right, unless
# the bytes themselves were the lie, which only the whole can show.
fails()
{
	local began taken
	lying "$1"
	began=$(now_ms)
	run -1 cat "$FILE"
	matches "$output" 'Input/output error'
	taken=$(since_ms "$began")
	# Opening may wait for metadata first, and machines are slow.
	at_most "$taken" $((DEADLINE * 1000 * 2 + 15000)) 'milliseconds'
}

reads_no_wrong_byte()
{
	local n
	cat "$FILE" >"$BATS_TEST_TMPDIR/got" 2>/dev/null || true
	n=$(stat -c %s "$BATS_TEST_TMPDIR/got")
	cmp -n "$n" "$BATS_TEST_TMPDIR/got" "$RIGHT"
}

requests()
{
	liar log "$1" | grep -c '"GET".*blobs' || true
}

@test "an honest registry of the same kind is read" {
	recovers ok
}

@test "200 to a range: right bytes or an error" {
	lying range200
	if cat "$FILE" >"$BATS_TEST_TMPDIR/got"; then
		cmp "$BATS_TEST_TMPDIR/got" "$RIGHT"
	fi
	reads_no_wrong_byte
}

@test "200 to a range in the middle is never taken for the range" {
	lying range200/b
	if read_at "$FILE" $((2 * MiB)) 4096 >"$BATS_TEST_TMPDIR/got"; then
		cmp "$BATS_TEST_TMPDIR/got" <(read_at "$RIGHT" $((2 * MiB)) 4096)
	fi
	recovers range200-1
}

@test "a wrong Content-Range is refused" {
	fails wrongrange
	reads_no_wrong_byte
	recovers wrongrange-2
}

@test "a wrong total in Content-Range is refused" {
	fails wrongtotal
	recovers wrongtotal-1
}

@test "206 without Content-Range is refused" {
	fails norange
	recovers norange-1
}

@test "a body cut short is completed" {
	recovers short-2
	recovers shortlength-2
	recovers empty-2
}

@test "a body always cut short still makes progress, or fails cleanly" {
	lying short
	reads_no_wrong_byte
	lying shortlength
	reads_no_wrong_byte
}

@test "an empty body for ever is an error" {
	fails empty
	at_most "$(requests empty)" 60 'requests'
}

@test "a body too long is no harm" {
	lying long
	reads_no_wrong_byte
	recovers long-1
}

@test "a HEAD that tells another size gives no wrong bytes" {
	lying headbig
	run -1 cat "$FILE"
	reads_no_wrong_byte
	lying headsmall
	run cat "$FILE"
	refute cmp -s "$FILE" "$BATS_TEST_TMPDIR/nothing"
	equal "$status" 1
	recovers headnone
}

@test "bytes that do not match the digest fail a read of the whole" {
	fails wrongbytes
	# It stays unusable, also later, and after a restart.
	run -1 cat "$FILE"
	at_least "$(requests wrongbytes)" 1
	at_most "$(requests wrongbytes)" 40 'requests'
	stop_peerd
	start_peerd --read-timeout ${DEADLINE}s
	run -1 cat "$FILE"
}

@test "a blob that was bad once is fetched again and read" {
	lying wrongbytes-9
	refute cmp -s "$FILE" "$RIGHT"
	liar heal wrongbytes-9
	peerd evict "$(liar digest wrongbytes-9)"
	cmp "$FILE" "$RIGHT"
}

@test "one wrong answer among right ones is repaired unseen" {
	recovers wrongbytes-1
	wait_for "$PATIENCE" is_verified "$FILE"
}

@test "416 is an error, and retried" {
	fails s416
	recovers s416-1
}

@test "429 is waited for as Retry-After says" {
	began=$(now_ms)
	recovers s429-2
	at_least "$(since_ms "$began")" 1000 'milliseconds'
	fails s429
	at_most "$(requests s429)" 60 'requests'
}

@test "5xx is retried, then an error" {
	recovers s500-2
	recovers s503-1
	fails s503
	at_most "$(requests s503)" 60 'requests'
}

@test "a success without a body is an error" {
	fails s204
}

@test "a blob that is gone is an error at once" {
	lying s404
	began=$(now_ms)
	refute cat "$FILE"
	at_most "$(since_ms "$began")" 15000 'milliseconds'
}

@test "redirect loops end" {
	fails loop
	at_most "$(requests loop)" 400 'requests'
	fails pingpong
	at_most "$(requests pingpong)" 400 'requests'
	fails far
}

@test "a redirect to another scheme is not followed" {
	fails badredirect
}

@test "a stalled body is an error at the deadline, and resumed if it can be" {
	fails stall
	fails mute
}

@test "a slow first byte is waited for" {
	recovers slow-1
}

@test "a trickle is an error at the deadline" {
	fails drip
}

@test "a reset in mid-chunk is resumed" {
	recovers reset-3
}

@test "resets for ever give no wrong bytes" {
	lying reset
	reads_no_wrong_byte
}

@test "what is not HTTP is an error" {
	fails garbage
	fails hugehead
	recovers garbage-1
}

# Manifests

manifest()
{
	echo "$MNT/registry/$LIAR/$1/manifests/$2"
}

tag()
{
	echo "$MNT/registry/$LIAR/$1/tags/$2"
}

@test "a good manifest is shown" {
	jq -e .schemaVersion "$(manifest m good)"
	equal "$(ls "$(tag m good)/files")" blob.bin
	jq -e .schemaVersion "$(manifest m noheader)"
}

@test "a manifest that does not match its digest is refused" {
	refute cat "$(manifest m "sha256:$(printf 'f0%.0s' {1..32})")"
	refute ls "$(tag m wrong)/files"
}

@test "malformed, deep, huge and empty manifests are refused" {
	for kind in broken deep huge empty many negative baddigest schema1 \
		badlength; do
		refute ls "$(tag m $kind)/layers"
	done
	# Good as ever.
	equal "$(ls "$(tag m good)/files")" blob.bin
	rss=$(sed -n 's/^VmHWM:[ \t]*\([0-9]*\) kB/\1/p' \
		"/proc/$(peerd_pid)/status")
	# Sanitizers multiply it.
	[[ ${SANITIZED:-} ]] || at_most "$rss" $((128 * 1024)) 'KiB resident'
}

@test "titles that are no file names are left out" {
	dir=$(tag m names)
	equal "$(cd "$dir/files" && find . -type f | sort | xargs)" \
		'./good.txt ./sub/dir/good.txt'
	equal "$(ls "$dir/layers" | wc -l)" 15
	# The directory is really the mount's.
	equal "$(find "$dir" -name passwd | wc -l)" 0
}

@test "two layers of one title give one file" {
	equal "$(ls "$(tag m dup)/files")" same
}

@test "tags are read over pages, and endless lists end" {
	equal "$(ls "$MNT/registry/$LIAR/paging/tags" | wc -l)" 250
	timeout 60 ls "$MNT/registry/$LIAR/endless/tags" || true
	timeout 60 ls "$MNT/registry/$LIAR/hugetags/tags" || true
	equal "$(ls "$MNT/registry/$LIAR/badtags/tags" 2>/dev/null |
		grep -v '^fine$')" '' 'bad tags'
	peerd status >/dev/null
}
