#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# The requests that overlaybd sends when p2pConfig names peerd, as its
# registryfs_v2.cpp makes them:
#
#   to the registry    GET with "Range: bytes=0-0" (who authenticates how), then
#                      GET without one, redirects not followed
#   to peerd           GET /blobs/<target> with "Range: bytes=A-B", where target
#                      is what the redirect named, query and all; or, without a
#                      redirect, the registry's URL, with its Authorization
#
# 200 and 206 are good, the size is what Content-Range says, and the body is
# taken for the range as it comes. A failure is tried again three times.

load ../lib/common
load ../lib/http

setup_file()
{
	start_registry --redirect
	random_file "$BATS_FILE_TMPDIR/layer" $((9 * MiB + 4321))
	LAYER=$(push_blob some/image "$BATS_FILE_TMPDIR/layer")
	export LAYER URL=http://$REG/v2/some/image/blobs/$LAYER
	SIZE=$(stat -c %s "$BATS_FILE_TMPDIR/layer")
	export SIZE
}

setup()
{
	FILE=$BATS_FILE_TMPDIR/layer
	start_mirror --blobs-allow "$REG,$TARGET"
}

obd_curl()
{
	curl -s --http1.1 -A 'overlaybd/1.0' -m "$PATIENCE" "$@"
}

# What overlaybd finds out first: sets ACTUAL.
obd_resolve()
{
	equal "$(obd_curl -o /dev/null -r 0-0 -w '%{http_code}' "$1" |
		head -c 1)" 3
	ACTUAL=$(obd_curl -o /dev/null -w '%{redirect_url}' "$1")
	[[ $ACTUAL == *sig=* ]]
}

# obd_read OFFSET LENGTH FILE [CURL-ARGUMENT...]: as one read of the driver.
obd_read()
{
	local range
	range=bytes=$1-$(($1 + $2 - 1))
	obd_curl -o "$3" -D "$BATS_TEST_TMPDIR/head" -w '%{http_code}\n' \
		-H "Range: $range" "${@:4}" "http://$HTTP/blobs/$ACTUAL"
}

@test "the address and target of overlaybd.json" {
	python3 - "$ROOT/docs/overlaybd.md" <<-'END'
		import json, re, sys
		text = open(sys.argv[1]).read()
		config = json.loads(re.search(r"```json\n(.*?)```", text, re.S)[1])
		assert config["p2pConfig"] == {
		    "enable": True, "address": "http://127.0.0.1:5000/blobs"}
	END
}

@test "size, then blocks, through the redirect's target" {
	obd_resolve "$URL"
	mark=$(wc -l <"$TARGET_LOG")
	# get_length(): one byte, of which the total is used.
	equal "$(obd_read 0 1 "$BATS_TEST_TMPDIR/one")" 206
	grep -qi "^content-range: bytes 0-0/$SIZE" <(tr -d '\r' \
		<"$BATS_TEST_TMPDIR/head")
	equal "$(stat -c %s "$BATS_TEST_TMPDIR/one")" 1
	# Headers and index are at the end, blocks of 4 to 256 KiB anywhere.
	for read in "$((SIZE - 512)) 512" '0 4096' '4096 4096' \
		'1044480 65536' '5242880 262144' "$((SIZE - 1)) 1" \
		'1048576 1048576' '3 17'; do
		# shellcheck disable=SC2086
		equal "$(obd_read $read "$BATS_TEST_TMPDIR/got")" 206
		# shellcheck disable=SC2086
		cmp "$BATS_TEST_TMPDIR/got" <(slice "$FILE" $read)
	done
	# The bytes came once, whatever the number of reads.
	at_most "$(tail -n +"$((mark + 1))" "$TARGET_LOG" |
		jq -s '[.[].sent] | add')" "$SIZE" 'bytes from the target'
	# The digest is in the target's path: it is known as that blob.
	peerd ls | grep -q "${LAYER#sha256:}"
}

@test "a signature that is renewed leads to the same content" {
	obd_resolve "$URL"
	equal "$(obd_read 0 100000 "$BATS_TEST_TMPDIR/a")" 206
	rotate_signature second
	mark=$(wc -l <"$TARGET_LOG")
	obd_resolve "$URL"
	equal "$(obd_read 0 100000 "$BATS_TEST_TMPDIR/b")" 206
	cmp "$BATS_TEST_TMPDIR/a" "$BATS_TEST_TMPDIR/b"
	# Whether the new signature is good is asked once; no bytes come.
	equal "$(tail -n +"$((mark + 1))" "$TARGET_LOG" |
		jq -r '"\(.method) \(.sent)"')" 'HEAD 0'
	# What is not here yet is asked for with the new one.
	equal "$(obd_read 8000000 1000 "$BATS_TEST_TMPDIR/c")" 206
	cmp "$BATS_TEST_TMPDIR/c" <(slice "$FILE" 8000000 1000)
}

@test "no redirect: the registry's own URL" {
	start_registry plain
	LAYER=$(push_blob some/image "$FILE")
	ACTUAL=http://$REG/v2/some/image/blobs/$LAYER
	stop_peerd
	start_mirror --blobs-allow "$REG"
	for read in '0 1' '0 4096' "$((SIZE - 512)) 512"; do
		# shellcheck disable=SC2086
		equal "$(obd_read $read "$BATS_TEST_TMPDIR/got")" 206
		# shellcheck disable=SC2086
		cmp "$BATS_TEST_TMPDIR/got" <(slice "$FILE" $read)
	done
}

@test "no redirect, with credentials: they are passed on, and kept nowhere" {
	start_registry --htpasswd anna secret private
	LAYER=$(push_blob some/image "$FILE")
	ACTUAL=http://$REG/v2/some/image/blobs/$LAYER
	credentials=$(printf anna:secret | base64)
	stop_peerd
	start_mirror --blobs-allow "$REG"
	matches "$(obd_read 0 1 "$BATS_TEST_TMPDIR/got")" '^(401|403)$'
	for read in '0 1' '0 4096' "$((SIZE - 512)) 512"; do
		# shellcheck disable=SC2086
		equal "$(obd_read $read "$BATS_TEST_TMPDIR/got" \
			-H "Authorization: Basic $credentials")" 206
		# shellcheck disable=SC2086
		cmp "$BATS_TEST_TMPDIR/got" <(slice "$FILE" $read)
	done
	stop_peerd
	refute grep -raq "$credentials" "$PEERD_LOG" "$CACHE"
}

@test "many readers at once, as block devices do" {
	obd_resolve "$URL"
	for ((i = 0; i < 24; i++)); do
		off=$((i * 393216 % (SIZE - 131072)))
		echo "url = \"http://$HTTP/blobs/$ACTUAL\""
		echo "range = \"$off-$((off + 131071))\""
		echo "output = \"$BATS_TEST_TMPDIR/part.$off\""
		echo 'next'
	done | sed '$d' >"$BATS_TEST_TMPDIR/many"
	curl -sf --parallel --parallel-max 24 -K "$BATS_TEST_TMPDIR/many"
	n=0
	for part in "$BATS_TEST_TMPDIR"/part.*; do
		cmp "$part" <(slice "$FILE" "${part##*.}" 131072)
		n=$((n + 1))
	done
	at_least $n 20
}

@test "what fails, fails with a status that it tries again on" {
	obd_resolve "$URL"
	ACTUAL=${ACTUAL%%\?*}'?sig=wrong&x=%2F'
	matches "$(obd_read 0 1 "$BATS_TEST_TMPDIR/got")" '^(401|403)$'
	obd_resolve "$URL"
	equal "$(obd_read 0 1 "$BATS_TEST_TMPDIR/got")" 206
	# Beyond the end.
	equal "$(obd_read "$SIZE" 1 "$BATS_TEST_TMPDIR/got")" 416
}
