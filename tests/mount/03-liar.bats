#!/usr/bin/env bats
# Registries that lie, stall and break: right bytes in the end, or an error
# within the deadline; never wrong bytes and never a short read.

load ../lib/common

# Long enough to recover in, on a slow machine; and short, where it must run out.
PATIENT=30 DEADLINE=2

setup_file()
{
	start_liar
}

setup()
{
	mkdir -p "$BATS_TEST_TMPDIR"
	start_peerd --read-timeout ${PATIENT}s --metadata-timeout 5s
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

impatient()
{
	stop_peerd
	start_peerd --read-timeout ${DEADLINE}s --metadata-timeout 5s
}

# All of each fails with EIO, in time; side by side, for they take the deadline.
fail()
{
	local began name
	impatient
	began=$(now_ms)
	for name; do
		lying "$name"
		background "$BATS_TEST_TMPDIR/cat-$name" cat "$FILE"
	done
	for name; do
		wait_for "$PATIENCE" ended "$BATS_TEST_TMPDIR/cat-$name"
		# The kernel asks again for the page it wants, after its
		# read-ahead failed; and machines are slow.
		at_most "$(since_ms "$began")" $((DEADLINE * 4000 + 15000)) \
			"milliseconds for $name"
		equal "$(<"$BATS_TEST_TMPDIR/cat-$name.rc")" 1 "cat of $name"
		grep -q 'Input/output error' "$BATS_TEST_TMPDIR/cat-$name.log"
	done
}

# Of each some bytes may be read, but none is wrong.
no_wrong_byte()
{
	local name out
	for name; do
		lying "$name"
		out=$BATS_TEST_TMPDIR/some-$name
		rm -f "$out.out"
		background "$out" cat "$FILE"
	done
	for name; do
		lying "$name"
		out=$BATS_TEST_TMPDIR/some-$name
		wait_for 240 ended "$out"
		cmp -n "$(stat -c %s "$out.out")" "$out.out" "$RIGHT"
		[[ $(<"$out.rc") != 0 ]] || cmp "$out.out" "$RIGHT"
	done
}

requests()
{
	liar log "$1" | grep -c '"GET".*blobs' || true
}

@test "an honest registry of the same kind is read" {
	recovers ok
}

@test "200 to a range: right bytes or an error" {
	impatient
	no_wrong_byte range200
}

@test "200 to a range in the middle is never taken for the range" {
	lying range200/b
	if read_at "$FILE" $((2 * MiB)) 4096 >"$BATS_TEST_TMPDIR/got"; then
		cmp "$BATS_TEST_TMPDIR/got" <(read_at "$RIGHT" $((2 * MiB)) 4096)
	fi
	recovers range200-1
}

@test "replies that are not the range asked for are refused" {
	fail wrongrange wrongtotal norange empty s204
	at_most "$(requests empty)" 60 'requests'
	no_wrong_byte wrongrange wrongtotal norange
}

@test "after a few such replies, right ones are taken" {
	recovers wrongrange-2
	recovers wrongtotal-1
	recovers norange-1
	recovers empty-2
}

@test "a body cut short is completed" {
	recovers short-2
	recovers shortlength-2
}

@test "bodies always cut short, reset or too long give no wrong byte" {
	impatient
	no_wrong_byte short shortlength long reset
	recovers long-1
}

@test "a HEAD that tells another size gives no wrong bytes" {
	impatient
	for name in headbig headsmall; do
		lying $name
		run -1 cat "$FILE"
		refute cmp -s "$FILE" "$RIGHT"
	done
	no_wrong_byte headbig
	recovers headnone
}

@test "bytes that do not match the digest fail a read of the whole" {
	fail wrongbytes
	# It stays unusable, also later, and after a restart.
	run -1 cat "$FILE"
	at_least "$(requests wrongbytes)" 1
	at_most "$(requests wrongbytes)" 40 'requests'
	impatient
	run -1 cat "$FILE"
}

@test "a blob that was bad once is fetched again and read" {
	lying wrongbytes-9
	refute cmp -s "$FILE" "$RIGHT"
	liar heal wrongbytes-9
	peerd evict "$(liar digest wrongbytes-9)"
	cmp "$FILE" "$RIGHT"
}

@test "bytes that were wrong once are fetched again, and right" {
	# What was read before the end cannot be taken back: that read fails.
	lying wrongbytes-1
	cat "$FILE" >/dev/null 2>&1 || true
	wait_for "$PATIENCE" cmp "$FILE" "$RIGHT"
	wait_for "$PATIENCE" is_verified "$FILE"
}

@test "429 is waited for as Retry-After says" {
	began=$(now_ms)
	recovers s429-2
	at_least "$(since_ms "$began")" 1000 'milliseconds'
}

@test "416, 429 and 5xx for a moment are retried" {
	recovers s416-1
	recovers s500-2
	recovers s503-1
}

@test "416, 429 and 5xx for ever are an error" {
	fail s416 s429 s503
	at_most "$(requests s429)" 60 'requests'
	at_most "$(requests s503)" 60 'requests'
}

@test "a blob that is gone is an error at once" {
	lying s404
	began=$(now_ms)
	refute cat "$FILE"
	at_most "$(since_ms "$began")" 15000 'milliseconds'
}

@test "redirect loops, and redirects to elsewhere, end" {
	fail loop pingpong far badredirect
	at_most "$(requests loop)" 400 'requests'
	at_most "$(requests pingpong)" 400 'requests'
}

@test "silence, stalls and trickles are errors at the deadline" {
	fail stall mute drip
}

@test "a slow first byte is waited for" {
	recovers slow-1
}

@test "a reset in mid-chunk is resumed" {
	recovers reset-3
}

@test "what is not HTTP is an error" {
	fail garbage hugehead
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
		badlength nul surrogate; do
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
	equal "$(ls "$dir/layers" | wc -l)" 13
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
