#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2034,SC2119,SC2120,SC2154
# The mirror that container runtimes call: routes, ranges, conditions, misses,
# and what it does when upstream fails.

load ../lib/common
load ../lib/http

setup_file()
{
	start_registry
	export FILES=$BATS_FILE_TMPDIR/files
	mkdir -p "$FILES"
	random_file "$FILES/big" $((48 * MiB))
	random_file "$FILES/small" $((5 * MiB + 12345))
	BIG=$(push_blob team/data "$FILES/big")
	SMALL=$(push_blob team/data "$FILES/small")
	MANIFEST=$(push_artifact team/files v1 "data.bin=$FILES/small")
	export BIG SMALL MANIFEST
}

setup()
{
	SIZE=$((5 * MiB + 12345))
	start_mirror
	URL=$(v2 "team/data/blobs/$SMALL")
}

@test "/v2/ says that this is a registry" {
	for path in v2 v2/; do
		equal "$(status_of "http://$HTTP/$path")" 200
		equal "$(curl -s "http://$HTTP/$path")" '{}'
	done
	equal "$(header_of Docker-Distribution-Api-Version \
		"http://$HTTP/v2/")" registry/2.0
}

@test "manifests by tag and by digest, GET and HEAD" {
	for ref in v1 "$MANIFEST"; do
		url=$(v2 "team/files/manifests/$ref")
		curl -sf "$url" >"$BATS_TEST_TMPDIR/manifest"
		equal "$(digest_of "$BATS_TEST_TMPDIR/manifest")" "$MANIFEST"
		equal "$(header_of Docker-Content-Digest -I "$url")" "$MANIFEST"
		equal "$(header_of Content-Type "$url")" \
			application/vnd.oci.image.manifest.v1+json
		equal "$(header_of Content-Length -I "$url")" \
			"$(stat -c %s "$BATS_TEST_TMPDIR/manifest")"
		equal "$(header_of ETag "$url")" "\"$MANIFEST\""
	done
	# An encoded colon is one.
	equal "$(status_of "$(v2 "team/files/manifests/${MANIFEST/:/%3A}")")" 200
}

@test "a blob, GET and HEAD; HEAD moves nothing" {
	mark=$(reg_mark)
	equal "$(header_of Content-Length -I "$URL")" "$SIZE"
	equal "$(header_of Accept-Ranges -I "$URL")" bytes
	equal "$(header_of ETag -I "$URL")" "\"$SMALL\""
	equal "$(header_of Docker-Content-Digest -I "$URL")" "$SMALL"
	equal "$(reg_stat bytes "$SMALL" "$mark")" 0 'bytes for HEAD'
	equal "$(curl -sf "$URL" | sha256sum | cut -d' ' -f1)" \
		"${SMALL#sha256:}"
	equal "$(reg_stat bytes "$SMALL" "$mark")" "$SIZE" 'bytes for GET'
	equal "$(curl -sf "$URL" | sha256sum | cut -d' ' -f1)" \
		"${SMALL#sha256:}"
	equal "$(reg_stat bytes "$SMALL" "$mark")" "$SIZE" 'bytes for both'
}

@test "an empty blob" {
	: >"$BATS_TEST_TMPDIR/empty"
	url=$(v2 "team/data/blobs/$(push_blob team/data \
		"$BATS_TEST_TMPDIR/empty")")
	equal "$(header_of Content-Length "$url")" 0
	equal "$(status_of "$url")" 200
	equal "$(status_of -H 'Range: bytes=0-' "$url")" 416
}

# Cold, and again when it is stored.
@test "single ranges" {
	for _ in cold stored; do
		while read -r range off len; do
			curl -sf -D "$BATS_TEST_TMPDIR/head" -r "$range" \
				"$URL" >"$BATS_TEST_TMPDIR/part"
			cmp "$BATS_TEST_TMPDIR/part" \
				<(slice "$FILES/small" "$off" "$len")
			grep -q '^HTTP/1.1 206 ' "$BATS_TEST_TMPDIR/head"
			tr -d '\r' <"$BATS_TEST_TMPDIR/head" | grep -iqx \
				"content-range: bytes $off-$((off + len - \
				1))/$SIZE"
		done <<-END
			0-0 0 1
			0-99 0 100
			1048570-1048590 1048570 21
			1048575-3145728 1048575 2097154
			$((SIZE - 1))-$((SIZE - 1)) $((SIZE - 1)) 1
			4000000- 4000000 $((SIZE - 4000000))
			0- 0 $SIZE
			-100 $((SIZE - 100)) 100
			-99999999 0 $SIZE
			5242000-99999999 5242000 $((SIZE - 5242000))
		END
	done
	# What is no range is ignored.
	for range in 'bytes=9-5' 'lines=1-2' 'bytes=a-b' 'bytes'; do
		equal "$(status_of -H "Range: $range" "$URL")" 200 "$range"
	done
}

@test "several ranges come as multipart/byteranges" {
	for _ in cold stored; do
		for ranges in 0-1,5-9,-3 0-0,1048575-1048576 \
			4194304-4194400,100-200,201-2097151 \
			-1,0-0 5000000-,10-12; do
			clients parts "$FILES/small" "$URL" "$ranges"
		done
	done
	# As stargz-snapshotter asks.
	equal "$(status_of -r 0-1,5-9,-3 "$URL")" 206
	matches "$(header_of Content-Type -r 0-1,5-9,-3 "$URL")" \
		'^multipart/byteranges; boundary='
}

# Else one request costs 64 times its blob.
@test "ranges that overlap are sent once" {
	for _ in cold stored; do
		for ranges in 0-9,5-20 1048570-1048580,1048579-3000000,5-1048575 \
			"$(printf '%d-,' {0..62})0-" -1,0-; do
			clients once "$FILES/small" "$URL" "$ranges"
		done
	done
}

@test "a range behind the end is refused, and the size told" {
	for range in "$SIZE-" 99999999-100000000; do
		refuses 416 RANGE_INVALID -r "$range" "$URL"
		equal "$(header_of Content-Range -r "$range" "$URL")" \
			"bytes */$SIZE"
	done
	# One that can be satisfied is enough.
	equal "$(status_of -r 99999999-,0-1 "$URL")" 206
}

@test "conditions: the digest is the entity tag" {
	for tags in "\"$SMALL\"" "W/\"$SMALL\"" '*' "\"x\", \"$SMALL\""; do
		equal "$(status_of -H "If-None-Match: $tags" "$URL")" 304
	done
	equal "$(header_of ETag -H "If-None-Match: *" "$URL")" "\"$SMALL\""
	equal "$(curl -s -H "If-None-Match: *" "$URL" | wc -c)" 0
	equal "$(status_of -H 'If-None-Match: "x"' "$URL")" 200
	equal "$(status_of -r 0-9 -H "If-Range: \"$SMALL\"" "$URL")" 206
	equal "$(status_of -r 0-9 -H 'If-Range: "x"' "$URL")" 200
	equal "$(status_of -r 0-9 -H \
		'If-Range: Wed, 21 Oct 2015 07:28:00 GMT' "$URL")" 200
	equal "$(status_of -H 'If-Match: "x"' "$URL")" 412
	equal "$(status_of -H "If-Match: \"$SMALL\"" "$URL")" 200
	url=$(v2 "team/files/manifests/v1")
	equal "$(status_of -H "If-None-Match: \"$MANIFEST\"" "$url")" 304
}

# containerd 2.1 asks for "bytes=N-" and hangs up.
@test "an open-ended range whose reader hangs up fetches little" {
	mark=$(reg_mark)
	url=$(v2 "team/data/blobs/$BIG")
	clients sip "$url" 65536 $((8 * MiB))-
	wait_for 30 quiet
	asked=$(reg_stat asked "$BIG" "$mark")
	at_least "$asked" 65536
	at_most "$asked" $((16 * MiB)) 'bytes asked of the registry'
	# Nothing of it hinders the next.
	cmp <(curl -sf "$url") "$FILES/big"
}

@test "300 clients at once on a cold blob: each byte is asked for once" {
	random_file "$BATS_TEST_TMPDIR/cold" $((6 * MiB + 777))
	digest=$(push_blob team/data "$BATS_TEST_TMPDIR/cold")
	mark=$(reg_mark)
	clients swarm "$(v2 "team/data/blobs/$digest")" 300 "$digest"
	equal "$(reg_stat twice "$digest" "$mark")" 0 'bytes sent twice'
	equal "$(reg_stat bytes "$digest" "$mark")" $((6 * MiB + 777))
}

@test "a tag: upstream is asked first" {
	stop_peerd
	start_mirror --tag-fresh 100ms
	echo one >"$BATS_TEST_TMPDIR/f"
	one=$(push_artifact team/moving now "$BATS_TEST_TMPDIR/f")
	url=$(v2 team/moving/manifests/now)
	equal "$(header_of Docker-Content-Digest -I "$url")" "$one"
	echo two >"$BATS_TEST_TMPDIR/f"
	two=$(push_artifact team/moving now "$BATS_TEST_TMPDIR/f")
	wait_for 20 eval \
		'[[ $(header_of Docker-Content-Digest -I "$url") == "$two" ]]'
	equal "$(header_of Warning "$url")" ''
}

# With a registry of its own, which it may stop.
@test "a tag that upstream does not confirm: the last known one" {
	stop_peerd
	start_registry own
	manifest=$(push_artifact team/own v1 "data.bin=$FILES/small")
	start_mirror --tag-fresh 100ms --mirror-timeout 20s
	url=$(v2 team/own/manifests/v1)
	equal "$(header_of Docker-Content-Digest "$url")" "$manifest"
	curl -sf "$(v2 "team/own/blobs/$SMALL")" | cmp - "$FILES/small"
	stop_registry
	wait_for 20 eval '[[ $(header_of Warning "$url") == 110* ]]'
	equal "$(curl -sf "$url" | sha256sum | cut -d' ' -f1)" \
		"${manifest#sha256:}"
	at_least "$(metric peerd_mirror_stale_tags_total)" 1
	# By digest nothing needs to be confirmed.
	equal "$(header_of Warning "$(v2 "team/own/manifests/$manifest")")" ''
	curl -sf "$(v2 "team/own/blobs/$SMALL")" | cmp - "$FILES/small"
	# Also after a restart.
	stop_peerd
	start_mirror --tag-fresh 100ms --mirror-timeout 20s
	equal "$(header_of Docker-Content-Digest "$url")" "$manifest"
	curl -sf "$(v2 "team/own/blobs/$SMALL")" | cmp - "$FILES/small"
}

# misses WITHIN-MS URL: a 404, well before anybody gives up.
misses()
{
	local began
	began=$(now_ms)
	refuses 404 '(BLOB|MANIFEST|NAME)_UNKNOWN' "$2"
	at_most "$(since_ms "$began")" "$1" 'milliseconds'
	# Nothing of it looks like the blob.
	equal "$(header_of ETag "$2")" ''
}

@test "a plain miss is a 404 within the deadline" {
	stop_peerd
	start_liar
	start_mirror --mirror-timeout 2s
	none=sha256:$(printf '%064d' 1)
	# Unknown to a registry that answers.
	misses 20000 "$(v2 "team/data/blobs/$none")"
	misses 20000 "$(v2 team/nothing/manifests/v1)"
	misses 20000 "$(v2 "team/files/manifests/$none")"
	# No registry there, or no such host.
	dead=127.0.0.1:$(free_port)
	misses 20000 "$(v2 "team/data/blobs/$none" "$dead")"
	misses 20000 "$(v2 team/data/manifests/v1 "$dead")"
	misses 20000 "$(v2 team/data/manifests/v1 no-such-host.invalid)"
	# It refuses, or says nothing.
	expect_errors 'read failed'
	for mode in s401 s403 s404 s500 s503 mute; do
		misses 20000 "$(v2 "x/$mode/blobs/$(liar digest "x/$mode")" \
			"$LIAR")"
	done
	equal "$(status_of "http://$HTTP/v2/")" 200
}

@test "a source that fails in mid-blob is asked again, inside the response" {
	start_liar
	for mode in short-1 reset-2 garbage-1 s500-2 shortlength-1 \
		wrongrange-1 long-1; do
		digest=$(liar digest "x/$mode")
		equal "$(curl -sf "$(v2 "x/$mode/blobs/$digest" "$LIAR")" |
			sha256sum | cut -d' ' -f1)" "${digest#sha256:}" "$mode"
	done
}

@test "a source that fails for good: never short with success" {
	stop_peerd
	start_liar
	start_mirror --read-timeout 1500ms --mirror-timeout 1500ms
	expect_errors 'read failed|does not match|digest'
	for mode in short reset empty stall wrongbytes wrongtotal headbig; do
		digest=$(liar digest "x/$mode")
		rc=0
		code=$(curl -s -o "$BATS_TEST_TMPDIR/body" -w '%{http_code}' \
			"$(v2 "x/$mode/blobs/$digest" "$LIAR")") || rc=$?
		# Refused, or broken off; the right bytes are no fault either.
		if [[ $rc == 0 && $code == 200 ]]; then
			equal "$(digest_of "$BATS_TEST_TMPDIR/body")" \
				"$digest" "$mode"
		elif [[ $rc == 0 ]]; then
			equal "$code" 404 "$mode"
		fi
		case $mode in
		wrongbytes | headbig) refute test "$rc $code" = '0 200' ;;
		esac
	done
	equal "$(status_of "http://$HTTP/v2/")" 200
}

@test "registries that --hosts does not name are not served" {
	stop_peerd
	start_mirror --hosts "$REG" --hosts other.example
	equal "$(status_of "$URL")" 200
	refuses 404 NAME_UNKNOWN "$(v2 "team/data/blobs/$SMALL" stranger.example)"
	refuses 404 NAME_UNKNOWN \
		"$(v2 team/files/manifests/v1 127.0.0.1:"$(free_port)")"
}

# Podman, CRI-O and Docker send no ns.
@test "without ns, no registry is answered for by another" {
	local one=$REG other plain="http://$HTTP/v2/team/same/manifests/v1"
	local first=$BATS_TEST_TMPDIR/first second=$BATS_TEST_TMPDIR/second
	random_file "$first" 1000
	random_file "$second" 1000
	one_manifest=$(push_artifact team/same v1 "$first")
	start_registry other
	other=$REG
	other_manifest=$(push_artifact team/same v1 "$second")
	stop_peerd
	start_mirror --hosts "$one" --hosts "$other"
	refuses 404 NAME_UNKNOWN "$plain"
	named() { header_of Docker-Content-Digest "http://$HTTP/v2/$1"; }
	# A path in podman's configuration cannot hold a colon.
	equal "$(named "${one/:/__}/team/same/manifests/v1")" "$one_manifest"
	equal "$(named "${other/:/__}/team/same/manifests/v1")" \
		"$other_manifest"
	equal "$(status_of "http://$HTTP/v2/${other/:/__}/team/same/blobs/$(
		digest_of "$second")")" 200
	refuses 404 NAME_UNKNOWN \
		"http://$HTTP/v2/stranger.example/team/same/manifests/v1"
	stop_peerd
	start_mirror --hosts "$other"
	equal "$(header_of Docker-Content-Digest "$plain")" "$other_manifest"
	stop_peerd
	start_mirror --default-registry "$one"
	equal "$(header_of Docker-Content-Digest "$plain")" "$one_manifest"
	stop_peerd
	start_mirror
	refuses 404 NAME_UNKNOWN "$plain"
}

@test "without ns, a blob of a served manifest is waited for" {
	local pid plain name="http://$HTTP/v2/${REG/:/__}/team/files"
	random_file "$BATS_TEST_TMPDIR/file" $((2 * MiB))
	push_artifact team/files wait "$BATS_TEST_TMPDIR/file" >/dev/null
	plain=$name/blobs/$(digest_of "$BATS_TEST_TMPDIR/file")
	stop_peerd
	start_mirror --mirror-timeout 500ms --read-timeout 60s
	expect_errors 'read failed'
	equal "$(status_of "$name/manifests/wait")" 200
	pid=$(<"$REG_DIR/distribution.pid")
	kill -STOP "$pid"
	background "$BATS_TEST_TMPDIR/waits" \
		curl -sf -o "$BATS_TEST_TMPDIR/got" "$plain"
	# With ns, the client has another server to ask.
	equal "$(status_of "$(v2 "team/files/blobs/${plain##*/}")")" 404
	refute ended "$BATS_TEST_TMPDIR/waits"
	kill -CONT "$pid"
	wait_for "$PATIENCE" ended "$BATS_TEST_TMPDIR/waits"
	equal "$(<"$BATS_TEST_TMPDIR/waits.rc")" 0
	cmp "$BATS_TEST_TMPDIR/got" "$BATS_TEST_TMPDIR/file"
	# The registry's own 404 is passed on.
	refuses 404 BLOB_UNKNOWN "$name/blobs/sha256:$(printf '%064d' 7)"
}

@test "malformed requests get a 4xx with a reason" {
	stop_peerd
	start_mirror --default-registry "$REG"
	local base="http://$HTTP/v2"
	refuses 400 NAME_INVALID "$base/../../etc/passwd/blobs/$SMALL"
	refuses 400 NAME_INVALID "$base/a%2fb/blobs/$SMALL"
	refuses 400 NAME_INVALID "$base/a%2Fb/blobs/$SMALL"
	refuses 400 NAME_INVALID "$base/a/%2e%2e/b/blobs/$SMALL"
	refuses 400 NAME_INVALID "$base/a%00b/blobs/$SMALL"
	refuses 400 NAME_INVALID "$base/UPPER/blobs/$SMALL"
	refuses 400 NAME_INVALID "$base//blobs/$SMALL"
	refuses 400 NAME_INVALID "$base/a//b/blobs/$SMALL"
	refuses 400 NAME_INVALID "$base/a%zz/blobs/$SMALL"
	refuses 400 NAME_INVALID "$base/$(printf 'a/%.0s' {1..300})x/blobs/x"
	refuses 400 NAME_INVALID "$base/blobs/$SMALL"
	refuses 400 DIGEST_INVALID "$base/a/blobs/sha256:zz"
	refuses 400 DIGEST_INVALID "$base/a/blobs/md5:"
	refuses 400 DIGEST_INVALID "$base/a/blobs/${SMALL}0"
	refuses 400 MANIFEST_INVALID "$base/a/manifests/.."
	refuses 400 MANIFEST_INVALID "$base/a/manifests/a%20b"
	refuses 400 NAME_INVALID "$base/a/manifests/v1?ns=file:///etc"
	refuses 400 NAME_INVALID "$base/a/manifests/v1?ns=../.."
	refuses 400 NAME_INVALID "$base/a/manifests/v1?ns=user@host"
	refuses 404 UNSUPPORTED "$base/a/uploads/x"
	refuses 405 UNSUPPORTED -X POST "$base/a/blobs/uploads/"
	refuses 405 UNSUPPORTED -X DELETE "$base/a/manifests/v1"
	refuses 404 UNSUPPORTED "http://$HTTP/nothing"
	refuses 431 HEADER_TOO_LARGE -H "X-Big: $(printf '%040000d' 0)" \
		"$base/"
	refuses 414 TARGET_TOO_LONG "$base/$(printf '%09000d' 0)"
	equal "$(status_of "http://$HTTP/v2/")" 200
}

@test "a slow client holds no memory" {
	stop_peerd
	start_mirror --fetch-memory 16MiB
	random_file "$BATS_TEST_TMPDIR/cold" $((16 * MiB))
	digest=$(push_blob team/data "$BATS_TEST_TMPDIR/cold")
	before=$(anon_kib)
	background "$BATS_TEST_TMPDIR/hold" \
		clients hold "$(v2 "team/data/blobs/$digest")" 50 \
		"$BATS_TEST_TMPDIR/go"
	# All have asked, and what a connection holds of its own is full.
	wait_for "$PATIENCE" eval \
		'(($(ss -tnH state established "src $HTTP" | \
		awk "\$2 > 0" | wc -l) >= 50))'
	growth=$(($(anon_kib) - before))
	# Sanitizers have memory of their own.
	at_most "$growth" $((60 * 1024)) 'growth in KiB'
	touch "$BATS_TEST_TMPDIR/go"
	wait_for 300 ended "$BATS_TEST_TMPDIR/hold"
	equal "$(grep -cx "$digest" "$BATS_TEST_TMPDIR/hold.out")" 50
	at_most $(($(anon_kib) - before)) $((60 * 1024)) 'growth in KiB'
}

@test "slow clients keep no memory from others" {
	stop_peerd
	start_mirror --fetch-memory 4MiB
	for name in slow cold; do
		random_file "$BATS_TEST_TMPDIR/$name" $((64 * MiB))
	done
	slow=$(push_blob team/data "$BATS_TEST_TMPDIR/slow")
	cold=$(push_blob team/data "$BATS_TEST_TMPDIR/cold")
	background "$BATS_TEST_TMPDIR/hold" \
		clients hold "$(v2 "team/data/blobs/$slow")" 8 \
		"$BATS_TEST_TMPDIR/go" $((8 * MiB))
	stuck='(($(ss -tnH state established "src $HTTP" | \
		awk "\$2 > 0" | wc -l) == 8))'
	wait_for "$PATIENCE" eval "$stuck"
	# What came for them is in the store, although they do not take it.
	wait_for "$PATIENCE" quiet
	cmp <(curl -sf "$(v2 "team/data/blobs/$cold")") \
		"$BATS_TEST_TMPDIR/cold"
	eval "$stuck"
	touch "$BATS_TEST_TMPDIR/go"
	wait_for 300 ended "$BATS_TEST_TMPDIR/hold"
	for i in {0..7}; do
		read_at "$BATS_TEST_TMPDIR/slow" $((i * 8 * MiB)) $((8 * MiB)) \
			>"$BATS_TEST_TMPDIR/part"
		digest_of "$BATS_TEST_TMPDIR/part"
	done | cmp - "$BATS_TEST_TMPDIR/hold.out"
}

@test "a client that sends its header by the byte is cut off" {
	at_most "$(clients dribble "$HTTP")" 45000 milliseconds
}

@test "requests on one connection, one after the other" {
	run curl -sf -o /dev/null -o /dev/null -o /dev/null \
		-w '%{num_connects} ' "$URL" "$URL" "$(v2 team/files/manifests/v1)"
	equal "$output" '1 0 0 '
}

@test "SIGTERM lets a response end" {
	background "$BATS_TEST_TMPDIR/slow" curl -sf --limit-rate 16M \
		-o "$BATS_TEST_TMPDIR/got" "$(v2 "team/data/blobs/$BIG")"
	wait_for 30 test -s "$BATS_TEST_TMPDIR/got"
	stop_peerd
	wait_for 60 ended "$BATS_TEST_TMPDIR/slow"
	equal "$(<"$BATS_TEST_TMPDIR/slow.rc")" 0
	cmp "$BATS_TEST_TMPDIR/got" "$FILES/big"
}
