#!/usr/bin/env bats
# Wrong names, unreachable registries, killed readers, bad options.

load ../lib/common

setup_file()
{
	start_registry
	export FILE=$BATS_FILE_TMPDIR/file
	random_file "$FILE" $((3 * MiB))
	DIGEST=$(push_blob some/data "$FILE")
	push_artifact some/data v1 "$FILE"
	export DIGEST
}

ABSENT=sha256:$(printf 'ab%.0s' {1..32})

# fails_with TEXT PATH: within seconds.
fails_with()
{
	local began
	began=$(now_ms)
	run cat "$2"
	equal "$status" 1 "$2"
	matches "$output" "$1"
	at_most "$(since_ms "$began")" "${3:-15000}" 'milliseconds'
}

# hanging N: so many requests hang at the liar.
hanging()
{
	(($(grep -c '"method": "GET".*/mute/blobs/' "$LIAR_DIR/requests.log") >= $1))
}

rss_kib()
{
	sed -n 's/^VmRSS:[ \t]*\([0-9]*\) kB/\1/p' "/proc/$(peerd_pid)/status"
}

@test "unknown registry, repository, tag and digest: no such file" {
	start_peerd
	fails_with 'No such file' "$(repo_dir no/such)/manifests/v1"
	fails_with 'No such file' "$(blob_path no/such "$DIGEST")"
	fails_with 'No such file' "$(blob_path some/data "$ABSENT")"
	fails_with 'No such file' "$(repo_dir some/data)/manifests/v9"
	fails_with 'No such file' "$(repo_dir some/data)/manifests/$ABSENT"
	fails_with 'No such file' \
		"$(repo_dir some/data)/tags/v9/manifest.json"
	fails_with 'No such file' "$(repo_dir some/data)/tags/v1/files/none"
	fails_with 'No such file' "$MNT/blobs/sha256/${ABSENT#sha256:}"
	fails_with 'No such file' \
		"$(blob_path some/data "$DIGEST" registry.invalid)" 30000
}

@test "what is not there is remembered, and forgotten" {
	start_peerd --negative-time 3s
	fails_with 'No such file' "$(repo_dir some/data)/manifests/late"
	mark=$(reg_mark)
	for _ in 1 2 3 4 5; do
		refute cat "$(repo_dir some/data)/manifests/late" 2>/dev/null
	done
	settle_log
	at_most "$(tail -n +$((mark + 1)) "$REG_LOG" | grep -c /late || true)" 1
	push_artifact some/data late "$FILE"
	wait_for 30 cat "$(repo_dir some/data)/manifests/late"
}

@test "a registry that is down: an error by the deadline" {
	start_peerd --read-timeout 4s --metadata-timeout 4s
	expect_errors '127.0.0.1:1'
	fails_with 'Input/output error' \
		"$(blob_path some/data "$DIGEST" 127.0.0.1:1)" 20000
	run ls "$MNT/registry/127.0.0.1:1/some/data/tags"
	matches "$output" 'Input/output error'
}

@test "a deadline is kept while the registry is silent" {
	start_liar
	start_peerd --read-timeout 3s
	expect_errors sha256
	file=$(blob_path mute "$(liar digest mute)" "$LIAR")
	fails_with 'Input/output error' "$file" 20000
	# Log line: which source, and why.
	logged '"level":"error".*sha256'
}

@test "registries that hang hold nobody else up" {
	start_liar
	start_peerd
	expect_errors sha256
	# More requests than there may be connections to one, at five.
	cat >"$BATS_TEST_TMPDIR/hang.py" <<-'END'
		import sys, threading
		def read(path):
		    with open(path, "rb") as f:
		        f.read(1)
		for path in sys.argv[1:]:
		    threading.Thread(target=read, args=(path,)).start()
	END
	paths=()
	for name in {1..100}; do
		paths+=("$(blob_path "$name/mute" "$(liar digest "$name/mute")" \
			"127.0.0.$((name % 5 + 1)):${LIAR#*:}")")
	done
	background "$BATS_TEST_TMPDIR/hang" python3 \
		"$BATS_TEST_TMPDIR/hang.py" "${paths[@]}"
	wait_for "$PATIENCE" hanging 64
	began=$(now_ms)
	cmp "$(blob_path some/data "$DIGEST")" "$FILE"
	at_most "$(since_ms "$began")" 20000 milliseconds
	finish "$BATS_TEST_TMPDIR/hang" KILL || true
}

@test "odd names are refused, without a request" {
	start_peerd
	mark=$(reg_mark)
	long=$(printf 'x%.0s' {1..300})
	for name in '%2e%2e' 'a%2Fb' $'a\tb' $'new\nline' 'UPPER' '-dash' \
		'a b' "$long" 'ä'; do
		for path in "$MNT/registry/$REG/$name/tags/v1" \
			"$(repo_dir some/data)/tags/$name" \
			"$(repo_dir some/data)/manifests/$name" \
			"$(repo_dir some/data)/blobs/$name" \
			"$(repo_dir some/data)/blobs/sha256:$name" \
			"$MNT/registry/$name/x/blobs/$DIGEST" \
			"$MNT/blobs/sha256/$name" "$MNT/$name"; do
			# A tag may be upper case; nobody has one of that name.
			refute stat "$path" 2>/dev/null
		done
	done
	settle_log
	refute grep -E 'GET.*(%2|%0|a b|\\t|xxxxxx|-dash)' \
		<(tail -n +$((mark + 1)) "$REG_LOG")
	# Names of 4 KiB, in components of their own and in one.
	deep=$(printf 'y%.0s/' {1..2000})
	refute stat "$MNT/registry/$REG/${deep}blobs/$DIGEST" 2>/dev/null
	python3 - "$MNT/registry/$REG" <<-'END'
		import os, sys
		for n in 255, 256, 4000:
		    try:
		        os.stat(sys.argv[1] + "/" + "z" * n + "/tags/v1")
		        sys.exit("found")
		    except OSError:
		        pass
	END
	# .. is the kernel's business, and leads nowhere else.
	equal "$(stat -c %i "$MNT/registry/..")" "$(stat -c %i "$MNT")"
	cmp "$(repo_dir some/data)/blobs/../blobs/$DIGEST" "$FILE"
}

@test "a reader that is killed gets away at once" {
	start_liar
	start_peerd --read-timeout 60s
	expect_errors sha256
	file=$(blob_path mute "$(liar digest mute)" "$LIAR")
	background "$BATS_TEST_TMPDIR/reader" cat "$file"
	wait_for 20 eval 'liar log mute | grep -q "\"GET\".*blobs"'
	began=$(now_ms)
	kill -TERM "$(<"$BATS_TEST_TMPDIR/reader.pid")"
	wait_for 20 ended "$BATS_TEST_TMPDIR/reader"
	at_most "$(since_ms "$began")" 10000 'milliseconds'
	# Others are served meanwhile and after.
	cmp "$(blob_path some/data "$DIGEST")" "$FILE"
}

@test "a reader killed in a lookup gets away, too" {
	start_peerd --metadata-timeout 60s
	# Listens and never answers.
	port=$(free_port)
	background "$BATS_TEST_TMPDIR/deaf" socat -u \
		"TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr" OPEN:/dev/null
	wait_for 20 eval "ss -ltn | grep -q :$port"
	background "$BATS_TEST_TMPDIR/reader" \
		cat "$(blob_path x/y "$DIGEST" "127.0.0.1:$port")"
	wait_for 20 eval "ss -tn state established | grep -q :$port"
	began=$(now_ms)
	kill -TERM "$(<"$BATS_TEST_TMPDIR/reader.pid")"
	wait_for 20 ended "$BATS_TEST_TMPDIR/reader"
	at_most "$(since_ms "$began")" 10000 'milliseconds'
	finish "$BATS_TEST_TMPDIR/deaf" KILL || true
}

@test "SIGTERM and SIGINT unmount and end with 0, also in mid-download" {
	start_liar
	for signal in TERM INT; do
		start_peerd
		expect_errors sha256
		file=$(blob_path stall "$(liar digest stall)" "$LIAR")
		background "$BATS_TEST_TMPDIR/reader" cat "$file"
		wait_for 20 eval 'liar log stall | grep -q "\"GET\".*blobs"'
		finish "$PEERD_RUN" "$signal"
		refute mounted "$MNT"
		wait_for 20 ended "$BATS_TEST_TMPDIR/reader"
		refute test "$(<"$BATS_TEST_TMPDIR/reader.rc")" = 0
	done
}

@test "SIGTERM with a file open: the mount is gone, the reader not hung" {
	start_peerd
	exec 7<"$(blob_path some/data "$DIGEST")"
	head -c 100 <&7 | cmp - <(head -c 100 "$FILE")
	stop_peerd
	timeout 10 cat <&7 >/dev/null 2>&1 || true
	exec 7<&-
}

@test "an unmount from outside ends the daemon" {
	need_root
	start_peerd
	umount "$MNT"
	wait_for "$PATIENCE" ended "$PEERD_RUN"
}

@test "readiness is told to the service manager" {
	socket=$BATS_TEST_TMPDIR/notify
	background "$BATS_TEST_TMPDIR/manager" \
		socat -u "UNIX-RECV:$socket" "CREATE:$BATS_TEST_TMPDIR/told"
	wait_for 20 test -S "$socket"
	NOTIFY_SOCKET=$socket start_peerd
	wait_for 20 grep -q READY=1 "$BATS_TEST_TMPDIR/told"
	stop_peerd
	wait_for 20 grep -q STOPPING=1 "$BATS_TEST_TMPDIR/told"
}

@test "--help tells every option and command" {
	run -0 "$PEERD" --help
	for command in run status ls pull verify evict version; do
		grep -qw -- "$command" <<<"$output"
		[[ $command == version ]] ||
			"$PEERD" "$command" --help | grep -q "peerd $command"
	done
	run -0 "$PEERD" run --help
	for option in mount cache-dir cache-size cache-min-free plain-http \
		registry-config certs-dir read-timeout metadata-timeout \
		tag-fresh negative-time log-level read-ahead max-window \
		fetch-memory prefetch allow-other; do
		grep -q -- "--$option" <<<"$output"
	done
	at_most "$(awk '{ print length }' <<<"$output" | sort -n | tail -1)" 80
}

# refused WORDS COMMAND...: each word is in the message, and no daemon runs.
refused()
{
	local words=$1 word
	shift
	run timeout 20 "$PEERD" "$@"
	at_least "$status" 1 "$*"
	refute test "$status" = 124
	for word in $words; do
		grep -qF -- "$word" <<<"$output" || {
			echo "'$word' is not in: $output" >&2
			return 1
		}
	done
}

@test "a bad value names the option, the value and the range" {
	dir=(--cache-dir "$BATS_TEST_TMPDIR/c" --mount "$BATS_TEST_TMPDIR/m")
	refused '--cache-size 12parsecs' run "${dir[@]}" --cache-size 12parsecs
	refused '--read-timeout 1ms 100ms' run "${dir[@]}" --read-timeout 1ms
	refused '--max-window 1B 1MiB' run "${dir[@]}" --max-window 1B
	refused '--log-level loud debug' run "${dir[@]}" --log-level loud
	refused '--prefetch maybe' run "${dir[@]}" --prefetch=maybe
	refused '--nonsense' run "${dir[@]}" --nonsense
	refused 'frobnicate' frobnicate
	PEERD_CACHE_SIZE=lots refused 'PEERD_CACHE_SIZE lots' run "${dir[@]}"
	echo '{"tag-fresh": "soon"}' >"$BATS_TEST_TMPDIR/conf"
	refused 'tag-fresh soon' run "${dir[@]}" \
		--config "$BATS_TEST_TMPDIR/conf"
	echo '{"tag-fresh": ' >"$BATS_TEST_TMPDIR/conf"
	refused "$BATS_TEST_TMPDIR/conf" run "${dir[@]}" \
		--config "$BATS_TEST_TMPDIR/conf"
	[[ ! -e $BATS_TEST_TMPDIR/c ]]
}

@test "options come from flags, the environment and a file" {
	echo '{"node-name": "from-file", "tag-fresh": "7s"}' \
		>"$BATS_TEST_TMPDIR/conf"
	PEERD_NODE_NAME=from-env start_peerd \
		--config "$BATS_TEST_TMPDIR/conf"
	logged '"node":"from-env"'
	stop_peerd
	start_peerd --config "$BATS_TEST_TMPDIR/conf"
	logged '"node":"from-file"'
}

@test "a mount point that cannot be one is said plainly" {
	start_peerd
	echo x >"$BATS_TEST_TMPDIR/plain"
	refused "$BATS_TEST_TMPDIR/plain" run --cache-dir \
		"$BATS_TEST_TMPDIR/c2" --mount "$BATS_TEST_TMPDIR/plain"
	refused "/proc/nothing" run --cache-dir "$BATS_TEST_TMPDIR/c2" \
		--mount /proc/nothing
}

@test "other users read with --allow-other only" {
	need_root
	chmod 755 "$BATS_TEST_TMPDIR" "$BATS_FILE_TMPDIR" \
		"$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR"/* "$TMPDIR" || true
	start_peerd
	file=$(blob_path some/data "$DIGEST")
	other=(setpriv --reuid 65534 --regid 65534 --clear-groups)
	refute "${other[@]}" cat "$file" >/dev/null 2>&1
	stop_peerd
	start_peerd --allow-other
	"${other[@]}" cat "$file" | cmp - "$FILE"
}

@test "100,000 made-up names cost no memory, and readers keep their places" {
	need_root
	chmod 755 "$BATS_TEST_TMPDIR" "$BATS_FILE_TMPDIR" \
		"$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR"/* "$TMPDIR" || true
	start_peerd --allow-other
	cat >"$BATS_TEST_TMPDIR/make-up.py" <<-'END'
		import os, sys
		os.setgroups([])
		os.setgid(65534)
		os.setuid(65534)
		for i in range(100000):
		    os.stat("%s/h%d/x%d/tags" % (sys.argv[1], i % 7, i))
	END
	# Somebody stands in a directory of no image, and has a file open.
	place=$MNT/registry/$REG/only/stood/in
	cd "$place"
	exec {fd}<"$(blob_path some/data "$DIGEST")"
	dd bs=1000 count=1 status=none <&"$fd" | cmp - <(head -c 1000 "$FILE")
	before=$(rss_kib)
	python3 "$BATS_TEST_TMPDIR/make-up.py" "$MNT/registry"
	[[ ${SANITIZED:-} ]] ||
		at_most "$(($(rss_kib) - before))" $((32 * 1024)) 'KiB more'
	run stat -c %F . tags
	equal "$output" $'directory\ndirectory'
	run stat -c %F "$place/tags"
	equal "$output" directory
	equal "$(pwd -P)" "$place"
	cd /
	cmp - <(tail -c +1001 "$FILE") <&"$fd"
	exec {fd}<&-
	cmp "$(blob_path some/data "$DIGEST")" "$FILE"
}

@test "a cache in the hands of others is refused" {
	need_root
	local place=$BATS_TEST_TMPDIR/theirs
	mkdir "$place"
	for mode in 0777 1777 0775 0757 2770; do
		chmod "$mode" "$place"
		refused 'cache-dir others' run --cache-dir "$place"
	done
	chmod 0700 "$place"
	chown 65534 "$place"
	refused 'cache-dir 65534' run --cache-dir "$place"
	equal "$(find "$place" -mindepth 1 | wc -l)" 0 'files in it'
}

@test "a mount in the cache, or the other way round, is refused" {
	local place=$BATS_TEST_TMPDIR/d
	mkdir -p "$place/m" "$place/c"
	ln -s "$place/c" "$place/link"
	for mount in "$place/c" "$place/c/" "$place/c/m" "$place/c/not/yet" \
		"$place/link" "$place/link/m" "$place/m/../c"; do
		refused 'cache' run --cache-dir "$place/c" --mount "$mount"
	done
	refused 'cache-dir mount' run --cache-dir "$place/m/c" --mount "$place/m"
	refused 'cache-dir mount' run --cache-dir "$place/link" --mount "$place"
	equal "$(find "$place/c" -mindepth 1 | wc -l)" 0 'files in the cache'
}

@test "what the daemon reads must not be in its own mount" {
	local place=$BATS_TEST_TMPDIR/d option
	mkdir -p "$place/m"
	ln -s "$place/m" "$place/link"
	echo '{}' >"$place/m/file"
	for option in registry-config certs-dir tls-ca tls-cert tls-key \
		config containerd-sock containerd-content-path \
		containerd-hosts-config-path; do
		# Whose keys those are does not matter here.
		refused "$option mount" run --cache-dir "$place/c" \
			--mount "$place/m" --insecure-peers \
			--tls-ca "$place/x" --tls-cert "$place/x" \
			--tls-key "$place/x" --"$option" "$place/link/file"
	done
	# A name that only begins in the same way is another place.
	# shellcheck disable=SC2034
	CACHE=$place/mc MNT=$place/m
	start_peerd
}
