#!/usr/bin/env bats
# Registries that want a password, and registries that redirect blobs.

load ../lib/common

setup()
{
	start_registry --htpasswd reader 's3cret:with/odd+chars' --redirect
	random_file "$BATS_TEST_TMPDIR/file" $((4 * MiB + 99))
	DIGEST=$(push_blob private/data "$BATS_TEST_TMPDIR/file")
	push_artifact private/data v1 "$BATS_TEST_TMPDIR/file"
	GOOD=$(docker_config reader 's3cret:with/odd+chars')
	mark=$(reg_mark)
}

leaks_nothing()
{
	refute grep -E 's3cret|sig=|'"$(jq -r '.auths[].auth' "$GOOD")" \
		"$BATS_TEST_TMPDIR"/peerd.*.log
}

@test "the right password opens blobs, tags and files" {
	start_peerd --registry-config "$GOOD"
	cmp "$(blob_path private/data "$DIGEST")" "$BATS_TEST_TMPDIR/file"
	equal "$(ls "$(repo_dir private/data)/tags")" v1
	cmp "$(repo_dir private/data)/tags/v1/files/file" \
		"$BATS_TEST_TMPDIR/file"
	leaks_nothing
}

@test "a wrong password gives EACCES and a line naming the repository" {
	start_peerd --registry-config "$(docker_config reader wrong)"
	expect_errors "$REG"
	run cat "$(blob_path private/data "$DIGEST")"
	equal "$status" 1
	matches "$output" 'Permission denied'
	run ls "$(repo_dir private/data)/tags"
	matches "$output" 'Permission denied'
	logged "$REG.*private/data|private/data.*$REG"
	at_most "$(grep -c 'private/data' <(grep -E \
		'"level":"(warn|error)"' "$PEERD_LOG"))" 3 'log lines'
}

@test "no password at all gives EACCES" {
	start_peerd
	expect_errors "$REG"
	run cat "$(blob_path private/data "$DIGEST")"
	equal "$status" 1
	matches "$output" 'Permission denied'
}

@test "a corrected config.json is read without a restart" {
	config=$(docker_config reader wrong)
	start_peerd --registry-config "$config" --negative-time 100ms
	expect_errors "$REG"
	file=$(blob_path private/data "$DIGEST")
	refute cat "$file"
	cp "$GOOD" "$config.new"
	touch -d '+2 seconds' "$config.new"
	mv "$config.new" "$config"
	wait_for 30 cmp "$file" "$BATS_TEST_TMPDIR/file"
}

@test "a missing or broken config.json does not stop the daemon" {
	start_peerd --registry-config "$BATS_TEST_TMPDIR/nothing.json"
	stop_peerd
	echo '{"auths": [' >"$BATS_TEST_TMPDIR/broken.json"
	start_peerd --registry-config "$BATS_TEST_TMPDIR/broken.json"
	logged '"level":"warn".*broken.json'
}

# A FIFO that nobody writes to hangs like a file system that is gone.
@test "a config.json that cannot be read stops nobody" {
	config=$BATS_TEST_TMPDIR/config.json
	cp "$GOOD" "$config"
	start_peerd --registry-config "$config"
	dir=$(repo_dir private/data)
	equal "$(ls "$dir/tags")" v1
	rm "$config"
	mkfifo "$config"
	expect_errors 'registry credentials'
	hung() {
		cat "$(blob_path private/data "$1")" >/dev/null
		logged 'does not answer; the last known credentials'
	}
	n=0
	one_more() {
		n=$((n + 1))
		random_file "$BATS_TEST_TMPDIR/more" $((1000 + n))
		hung "$(push_blob private/data "$BATS_TEST_TMPDIR/more")"
	}
	wait_for 30 one_more
	cmp "$(blob_path private/data "$DIGEST")" "$BATS_TEST_TMPDIR/file"
	# The read ends, without JSON: the last known credentials remain.
	: >"$config"
	logs_it() { logged 'the last known ones are used'; }
	wait_for 30 logs_it
	one_more_after() {
		random_file "$BATS_TEST_TMPDIR/last" 999
		cat "$(blob_path private/data "$(push_blob private/data \
			"$BATS_TEST_TMPDIR/last")")" >/dev/null
	}
	one_more_after
	rm "$config"
	cp "$GOOD" "$config"
}

@test "a key for a namespace is for its repositories" {
	push_artifact other/data v1 "$BATS_TEST_TMPDIR/file"
	jq --arg r "$REG" '{auths: {
		($r): .auths[$r], ($r + "/other"): {auth: "bm9ib2R5Ong="}}}' \
		"$GOOD" >"$BATS_TEST_TMPDIR/parts.json"
	start_peerd --registry-config "$BATS_TEST_TMPDIR/parts.json"
	expect_errors "$REG"
	equal "$(ls "$(repo_dir private/data)/tags")" v1
	run ls "$(repo_dir other/data)/tags"
	matches "$output" 'Permission denied'
}

@test "a registry that asks for credentials at /v2/ only" {
	start_registry --htpasswd reader 's3cret:with/odd+chars' other
	push_artifact hidden/data v1 "$BATS_TEST_TMPDIR/file"
	shy=127.0.0.1:$(free_port)
	nginx_start "$BATS_TEST_TMPDIR/shy" "server {
		listen $shy;
		access_log $BATS_TEST_TMPDIR/shy.log requests;
		location = /v2/ { proxy_pass http://$REG_BACK; }
		location / {
			if (\$http_authorization = '') { return 404; }
			proxy_pass http://$REG_BACK;
		}
	}"
	wait_for 30 curl -s -o /dev/null "http://$shy/"
	start_peerd --registry-config "$(docker_config reader \
		's3cret:with/odd+chars' "$shy")" --negative-time 0s
	REG=$shy
	cmp "$(repo_dir hidden/data)/tags/v1/files/file" \
		"$BATS_TEST_TMPDIR/file"
	# Its own 404 stands, and /v2/ is asked once per repository.
	refute ls "$(repo_dir hidden/data)/tags/none/files"
	refute ls "$(repo_dir hidden/data)/tags/none2/files"
	curl -s -o /dev/null "http://$shy/settled"
	wait_for 10 grep -q settled "$BATS_TEST_TMPDIR/shy.log"
	equal "$(grep -c '"uri":"/v2/"' "$BATS_TEST_TMPDIR/shy.log")" 1
}

@test "no Authorization reaches the target of a redirect" {
	start_peerd --registry-config "$GOOD"
	cmp "$(blob_path private/data "$DIGEST")" "$BATS_TEST_TMPDIR/file"
	settle_log
	at_least "$(wc -l <"$TARGET_LOG")" 1 'requests at the target'
	refute grep -v '"auth":""' "$TARGET_LOG"
	refute grep -vE '"status":20[06]' "$TARGET_LOG"
	leaks_nothing
}

@test "the redirect's target is remembered" {
	start_peerd --registry-config "$GOOD" --prefetch=false
	file=$(blob_path private/data "$DIGEST")
	for i in 4 2 0 3 1; do
		same_at "$file" "$BATS_TEST_TMPDIR/file" $((i * MiB)) 50
	done
	settle_log
	equal "$(tail -n +$((mark + 1)) "$REG_LOG" |
		grep -c '"GET".*"status":307')" 1 'redirects asked for'
}

@test "an expired redirect is resolved again, once" {
	start_peerd --registry-config "$GOOD" --prefetch=false
	file=$(blob_path private/data "$DIGEST")
	same_at "$file" "$BATS_TEST_TMPDIR/file" 0 50
	rotate_signature second
	mark=$(reg_mark)
	cmp "$file" "$BATS_TEST_TMPDIR/file"
	settle_log
	at_least "$(grep -c '"status":403' "$TARGET_LOG")" 1 'refused'
	equal "$(tail -n +$((mark + 1)) "$REG_LOG" |
		grep -c '"GET".*"status":307')" 1 'redirects asked for'
}

@test "many readers share one redirect" {
	start_peerd --registry-config "$GOOD"
	file=$(blob_path private/data "$DIGEST")
	for i in {1..8}; do
		background "$BATS_TEST_TMPDIR/r$i" \
			cmp "$file" "$BATS_TEST_TMPDIR/file"
	done
	for i in {1..8}; do
		wait_for "$PATIENCE" ended "$BATS_TEST_TMPDIR/r$i"
		equal "$(<"$BATS_TEST_TMPDIR/r$i.rc")" 0
	done
	settle_log
	equal "$(tail -n +$((mark + 1)) "$REG_LOG" |
		grep -c '"GET".*"status":307')" 1 'redirects asked for'
}

@test "what is cached is read without credentials after a restart" {
	start_peerd --registry-config "$GOOD"
	file=$(blob_path private/data "$DIGEST")
	cmp "$file" "$BATS_TEST_TMPDIR/file"
	stop_peerd
	start_peerd
	cmp "$file" "$BATS_TEST_TMPDIR/file"
}
