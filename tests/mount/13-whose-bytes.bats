#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2119,SC2120,SC2154
# Nobody can make another reader see wrong bytes, or none: bytes and facts that
# are not verified are shown only to readers whose own name leads to the place
# that they came from. See docs/verification.md.

load ../lib/common
load ../lib/http

setup_file()
{
	start_registry
	random_file "$BATS_FILE_TMPDIR/layer" $((5 * MiB + 77))
	LAYER=$(push_blob good/image "$BATS_FILE_TMPDIR/layer")
	export LAYER
}

# EVIL is a web server with a file of any name for the layer's digest.
setup()
{
	FILE=$BATS_FILE_TMPDIR/layer
	EVIL=127.0.0.1:$(free_port)
	mkdir -p "$BATS_TEST_TMPDIR/evil/x"
	WRONG=$BATS_TEST_TMPDIR/evil/x/$LAYER
	nginx_start "$BATS_TEST_TMPDIR/evil-server" "server {
		listen $EVIL;
		root $BATS_TEST_TMPDIR/evil;
	}"
	random_file "$WRONG" "$(stat -c %s "$FILE")"
	wait_for 20 curl -sf -o /dev/null "http://$EVIL/x/$LAYER"
	start_mirror --blobs-allow "$EVIL,$REG"
	expect_errors "$LAYER"
	GOOD=$(blob_path good/image "$LAYER")
}

# The bytes that the attacker asked for: those of EVIL, which he named himself.
evil_range()
{
	curl -s -m "$PATIENCE" -o /dev/null -r "$1" \
		"http://$HTTP/blobs/http://$EVIL/x/$LAYER"
}

mirror_is_right()
{
	curl -sf -m "$PATIENCE" -o "$BATS_TEST_TMPDIR/got" \
		"http://$HTTP/v2/good/image/blobs/$LAYER?ns=$REG"
	cmp "$BATS_TEST_TMPDIR/got" "$FILE"
}

@test "a reader's file is not touched by what somebody else fetched" {
	cmp -n 16 "$GOOD" "$FILE"
	evil_range 0-15
	evil_range 2097152-2097167
	cmp "$GOOD" "$FILE"
	mirror_is_right
	wait_for "$PATIENCE" is_verified "$GOOD"
}

@test "nor when the attacker comes first, nor after a restart" {
	evil_range 0-15
	evil_range 5242880-
	stop_peerd
	start_mirror --blobs-allow "$EVIL,$REG"
	evil_range 1048576-1048577
	mirror_is_right
	cmp "$GOOD" "$FILE"
	# All of the wrong bytes cost nobody but those who name EVIL.
	evil_range 0-
	cmp "$GOOD" "$FILE"
	mirror_is_right
}

@test "nor by the attacker's own name in the mount" {
	local bad=$MNT/url/http/$EVIL/x/$LAYER
	cmp "$bad" "$FILE" 2>/dev/null && return 1
	head -c 16 "$bad" >/dev/null || true
	cmp "$GOOD" "$FILE"
	cat "$bad" >/dev/null && return 1
	mirror_is_right
}

@test "another size binds nobody else" {
	for size in 0 1 $((5 * MiB)) $((6 * MiB)); do
		truncate -s "$size" "$WRONG"
		evil_range 0-15 || true
		curl -s -o /dev/null -I "http://$HTTP/blobs/http://$EVIL/x/$LAYER"
		stat "$MNT/url/http/$EVIL/x/$LAYER" >/dev/null || true
	done
	equal "$(stat -c %s "$GOOD")" "$(stat -c %s "$FILE")"
	mirror_is_right
	cmp "$GOOD" "$FILE"
}

@test "a foreign manifest that lists the layer with no bytes binds nobody" {
	local dir=$BATS_TEST_TMPDIR/foreign
	mkdir "$dir"
	printf '{}' >"$dir/config"
	push_blob evil/image "$FILE"
	config=$(push_blob evil/image "$dir/config")
	jq -n --arg c "$config" --arg d "$LAYER" '{schemaVersion: 2,
		mediaType: "application/vnd.oci.image.manifest.v1+json",
		config: {mediaType: "application/vnd.oci.image.config.v1+json",
			digest: $c, size: 2},
		layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar",
			digest: $d, size: 0}]}' >"$dir/manifest"
	push_manifest evil/image latest "$dir/manifest"
	curl -sf -o /dev/null \
		"http://$HTTP/v2/evil/image/manifests/latest?ns=$REG"
	curl -s -o /dev/null "http://$HTTP/v2/evil/image/blobs/$LAYER?ns=$REG"
	stat "$(blob_path evil/image "$LAYER")" >/dev/null || true
	mirror_is_right
	equal "$(stat -c %s "$GOOD")" "$(stat -c %s "$FILE")"
	cmp "$GOOD" "$FILE"
}

@test "once verified, bytes are shared, and every chunk is checked" {
	cat "$GOOD" >/dev/null
	wait_for "$PATIENCE" is_verified "$GOOD"
	# EVIL is not even asked for what is here.
	curl -sf -o "$BATS_TEST_TMPDIR/got" \
		"http://$HTTP/blobs/http://$EVIL/x/$LAYER"
	cmp "$BATS_TEST_TMPDIR/got" "$FILE"
	# A reader holds the file; its chunks go, and EVIL is the newest place.
	exec 7<"$GOOD"
	peerd evict "$LAYER"
	evil_range 0-15 || true
	cmp "$GOOD" "$FILE"
	cmp /dev/fd/7 "$FILE"
	exec 7<&-
	mirror_is_right
}

@test "URLs that differ in their query are two files" {
	local host
	host=127.0.0.1:$(free_port)
	mkdir "$BATS_TEST_TMPDIR/two"
	random_file "$BATS_TEST_TMPDIR/two/A" 70000
	random_file "$BATS_TEST_TMPDIR/two/B" 70000
	touch -d @1700000000 "$BATS_TEST_TMPDIR/two/"[AB]
	nginx_start "$BATS_TEST_TMPDIR/two-server" "server {
		listen $host;
		root $BATS_TEST_TMPDIR/two;
		location = /f { rewrite ^ /\$arg_d? last; }
		location / { }
	}"
	wait_for 20 curl -sf -o /dev/null "http://$host/f?d=A"
	stop_peerd
	start_mirror --blobs-allow "$host"
	for name in A B A; do
		curl -sf -o "$BATS_TEST_TMPDIR/got" \
			"http://$HTTP/blobs/http://$host/f?d=$name"
		cmp "$BATS_TEST_TMPDIR/got" "$BATS_TEST_TMPDIR/two/$name"
	done
}

@test "damage that verify finds leaves the kernel too" {
	local stored
	cat "$GOOD" >/dev/null
	wait_for "$PATIENCE" is_verified "$GOOD"
	stop_peerd
	stored=$("$BUILD/tests/lib/cachetool" file "$CACHE" "$LAYER")
	start_mirror
	exec 7<"$GOOD"
	cmp "$GOOD" "$FILE"
	# The pages of the mount's file go; what is on disk changes.
	python3 - "$GOOD" "$stored" <<-'END'
		import os, sys
		f = os.open(sys.argv[1], os.O_RDONLY)
		os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
		g = os.open(sys.argv[2], os.O_RDWR)
		byte = os.pread(g, 1, 3 << 20)
		os.pwrite(g, bytes([byte[0] ^ 1]), 3 << 20)
	END
	cmp -s "$GOOD" "$FILE" || true
	peerd verify "$LAYER"
	same()
	{
		cmp -s "$GOOD" "$FILE"
	}
	wait_for "$PATIENCE" same
	cmp /dev/fd/7 "$FILE"
	exec 7<&-
}

# A query never reaches the disk or another member: a node that was started
# again knows the URL without it until a reader comes.
@test "a member that asks for a URL's file does not close it to readers" {
	local host port key status
	host=127.0.0.1:$(free_port)
	port=$(free_port)
	mkdir "$BATS_TEST_TMPDIR/one"
	random_file "$BATS_TEST_TMPDIR/one/A" $((3 * MiB))
	nginx_start "$BATS_TEST_TMPDIR/one-server" "server {
		listen $host;
		root $BATS_TEST_TMPDIR/one;
		location = /f { rewrite ^ /\$arg_d? last; }
		location = / { return 404; }
	}"
	wait_for 20 curl -sf -o /dev/null "http://$host/f?d=A"
	stop_peerd
	start_mirror --blobs-allow "$host"
	curl -sf -o /dev/null -r 0-9 "http://$HTTP/blobs/http://$host/f?d=A"
	key=$(peerd ls --json | jq -r '.blobs[] | .url_key // empty')
	stop_peerd
	start_mirror --blobs-allow "$host" --https-addr "127.0.0.2:$port" \
		--peers "127.0.0.3:$port"
	status=$(status_of -H 'Peerd-Hop: 1' -H 'Peerd-Fetch: 1' \
		-H "Peerd-Blob: url:$key;size=$((3 * MiB))" -r 2097152-2097161 \
		"http://127.0.0.2:$port/blobs/http://$host/f")
	matches "$status" '^[45]'
	expect_errors "$key"
	curl -sf -o "$BATS_TEST_TMPDIR/got" \
		"http://$HTTP/blobs/http://$host/f?d=A"
	cmp "$BATS_TEST_TMPDIR/got" "$BATS_TEST_TMPDIR/one/A"
}
