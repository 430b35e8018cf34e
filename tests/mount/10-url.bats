#!/usr/bin/env bats
# url/: any file that an HTTP server serves with ranges.

load ../lib/common

setup()
{
	WWW=$BATS_TEST_TMPDIR/www
	HOST=127.0.0.1:$(free_port)
	LOG=$BATS_TEST_TMPDIR/web/access.log
	mkdir -p "$WWW/dir/sub" "$BATS_TEST_TMPDIR/web"
	random_file "$WWW/dir/file.bin" $((7 * MiB + 5))
	echo 'with space' >"$WWW/dir/sub/a b.txt"
	nginx_start "$BATS_TEST_TMPDIR/web/nginx" "server {
		listen $HOST;
		root $WWW;
		access_log $LOG requests;
		location /noranges/ { alias $WWW/dir/; max_ranges 0; }
		location /secret/ { return 403; }
		location /inward/ { return 302 http://localhost:${HOST#*:}/dir/file.bin; }
		location /link/ { return 302 http://169.254.169.254/latest/meta-data; }
		location /moved/ { return 302 http://$HOST/dir/file.bin; }
	}"
	wait_for 20 curl -s -o /dev/null "http://$HOST/"
	start_peerd --tag-fresh 200ms --negative-time 200ms \
		--blobs-allow "$HOST"
	FILE=$MNT/url/http/$HOST/dir/file.bin
}

url_stat()
{
	local mark=/settle-$RANDOM$RANDOM
	curl -s -o /dev/null "http://$HOST$mark"
	wait_for 10 grep -q "$mark" "$LOG"
	"$LIB/ranges.py" "$LOG" "$2" | sed -n "s/^$1 //p"
}

@test "a file is read by its URL" {
	equal "$(stat -c %s "$FILE")" $((7 * MiB + 5))
	cmp "$FILE" "$WWW/dir/file.bin"
	equal "$(url_stat twice file.bin)" 0 'bytes sent twice'
	equal "$(<"$MNT/url/http/$HOST/dir/sub/a b.txt")" 'with space'
}

@test "a few bytes of it fetch one chunk" {
	same_at "$FILE" "$WWW/dir/file.bin" $((4 * MiB + 77)) 900
	at_most "$(url_stat bytes file.bin)" "$MiB" 'bytes fetched'
	wait_for 10 eval '(($(stored "$FILE") == MiB))'
}

@test "a file that changed shows its new content" {
	cmp "$FILE" "$WWW/dir/file.bin"
	random_file "$WWW/dir/new" $((2 * MiB + 1))
	mv "$WWW/dir/new" "$WWW/dir/file.bin"
	wait_for 20 cmp "$FILE" "$WWW/dir/file.bin"
	equal "$(stat -c %s "$FILE")" $((2 * MiB + 1))
}

@test "a file that changes while it is read: never two versions in one" {
	exec 7<"$FILE"
	head -c 4096 <&7 | cmp - <(head -c 4096 "$WWW/dir/file.bin")
	cp "$WWW/dir/file.bin" "$BATS_TEST_TMPDIR/old"
	random_file "$WWW/dir/new" $((7 * MiB + 5))
	touch -d '+5 seconds' "$WWW/dir/new"
	mv "$WWW/dir/new" "$WWW/dir/file.bin"
	expect_errors "$HOST|read failed"
	drop_caches
	python3 - "$BATS_TEST_TMPDIR/old" <<-'END'
		import os, sys
		old = open(sys.argv[1], "rb").read()
		at = 4096
		try:
		    while at < len(old):
		        part = os.pread(7, 50000, at)
		        assert part == old[at:at + len(part)], at
		        assert part
		        at += len(part)
		except OSError:
		    pass
	END
	exec 7<&-
	wait_for 30 cmp "$FILE" "$WWW/dir/file.bin"
}

@test "directories, missing and refused files" {
	# What is not there may be a directory: HTTP cannot tell.
	run cat "$MNT/url/http/$HOST/nothing"
	matches "$output" 'No such file|Is a directory'
	run cat "$MNT/url/http/$HOST/secret/x"
	matches "$output" 'Permission denied|No such file|Is a directory'
	run cat "$MNT/url/gopher/$HOST/x"
	matches "$output" 'No such file'
	[[ -d $MNT/url/http/$HOST/dir ]]
}

@test "a server without ranges is an error, not a hang" {
	run timeout 30 cat "$MNT/url/http/$HOST/noranges/file.bin"
	at_least "$status" 1
	refute test "$status" = 124
}

@test "a redirect is followed" {
	cmp "$MNT/url/http/$HOST/moved/file" "$WWW/dir/file.bin"
}

@test "after a restart without the server, what was cached is read" {
	cmp "$FILE" "$WWW/dir/file.bin"
	stop_peerd
	finish "$BATS_TEST_TMPDIR/web/nginx" KILL || true
	start_peerd --metadata-timeout 3s --blobs-allow "$HOST"
	cmp "$FILE" "$WWW/dir/file.bin"
}


@test "addresses of this host and link are refused unless they are allowed" {
	local own port=${HOST#*:} target
	own=$(ip -4 -o addr show scope global | sed -n 's|.* inet \([^/]*\)/.*|\1|p' |
		head -1)
	for target in "localhost:$port" "127.0.0.2:$port" "127.1:$port" \
		"0.0.0.0:$port" "[::1]:$port" "[::ffff:127.0.0.1]:$port" \
		169.254.169.254 '[fe80::1]' ${own:+"$own:1"}; do
		run cat "$MNT/url/http/$target/dir/file.bin"
		at_least "$status" 1
		matches "$output" 'Permission denied|No such file'
	done
	# Where a redirect leads, too.
	run cat "$MNT/url/http/$HOST/inward/file"
	matches "$output" 'Permission denied'
	run cat "$MNT/url/http/$HOST/link/file"
	matches "$output" 'Permission denied'
	equal "$(grep -c /dir/file.bin "$LOG")" 0 'requests that came through'
	stop_peerd
	start_peerd
	run cat "$FILE"
	matches "$output" 'Permission denied'
	equal "$(grep -c /dir/file.bin "$LOG")" 0 'requests that came through'
}
