#!/usr/bin/env bats
# shellcheck disable=SC2154
# A cache that is too small for what is read through it: responses that are
# running go on, and every byte is right.

load ../lib/common
load ../lib/http

setup_file()
{
	start_registry
	random_file "$BATS_FILE_TMPDIR/large" $((100 * MiB + 5))
	LARGE=$(push_blob full/cache "$BATS_FILE_TMPDIR/large")
	export LARGE
}

# whole DIGEST NAME
whole()
{
	curl -sf -m "$((PATIENCE * 4))" "$(v2 "full/cache/blobs/$1")" |
		digest_of /dev/stdin >"$BATS_TEST_TMPDIR/$2"
}

@test "a blob larger than the cache streams through" {
	start_mirror --cache-size 16MiB
	for i in 1 2 3; do
		whole "$LARGE" got
		equal "$(<"$BATS_TEST_TMPDIR/got")" "$LARGE"
	done
	equal "$(digest_of "$(blob_path full/cache "$LARGE")")" "$LARGE"
}

@test "many blobs at once in a full cache, evicted by hand as well" {
	local digests=() i round
	start_mirror --cache-size 64MiB
	for i in {1..6}; do
		random_file "$BATS_TEST_TMPDIR/f" $((20 * MiB + i))
		digests+=("$(push_blob full/cache "$BATS_TEST_TMPDIR/f")")
	done
	for round in 1 2 3; do
		for i in "${!digests[@]}"; do
			background "$BATS_TEST_TMPDIR/get$round.$i" \
				curl -sf -m "$((PATIENCE * 4))" \
				-o "$BATS_TEST_TMPDIR/body$round.$i" \
				--limit-rate 30M \
				"$(v2 "full/cache/blobs/${digests[i]}")"
			peerd evict --all
		done
		for i in "${!digests[@]}"; do
			wait_for $((PATIENCE * 4)) ended \
				"$BATS_TEST_TMPDIR/get$round.$i"
			equal "$(<"$BATS_TEST_TMPDIR/get$round.$i.rc")" 0
			equal "$(digest_of "$BATS_TEST_TMPDIR/body$round.$i")" \
				"${digests[i]}"
			rm "$BATS_TEST_TMPDIR/body$round.$i"
		done
	done
}

# end_of_body URL: what a socket shows at the end of the response: "closed" or
# an error's name; and how many bytes came.
end_of_body()
{
	python3 - "$HTTP" "$1" <<-'END'
		import errno, socket, sys
		host, port = sys.argv[1].split(":")
		s = socket.create_connection((host, int(port)), timeout=120)
		s.sendall(f"GET {sys.argv[2]} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
		n = 0
		try:
		    while piece := s.recv(1 << 16):
		        n += len(piece)
		    print("closed", n)
		except OSError as e:
		    print(errno.errorcode[e.errno], n)
	END
}

@test "a body that cannot be completed ends in an orderly close" {
	start_liar
	start_mirror --read-timeout 3s
	expect_errors 'read failed|does not match'
	liar bytes stall >/dev/null
	run end_of_body "/v2/stall/blobs/$(liar digest stall)?ns=$LIAR"
	echo "$output"
	matches "$output" '^closed [1-9]'
}

@test "a pull that is running when peerd is stopped gets all of it" {
	start_mirror
	background "$BATS_TEST_TMPDIR/get" curl -sf --limit-rate 30M \
		-o "$BATS_TEST_TMPDIR/body" "$(v2 "full/cache/blobs/$LARGE")"
	wait_for "$PATIENCE" test -s "$BATS_TEST_TMPDIR/body"
	kill -TERM "$(peerd_pid)"
	wait_for "$PATIENCE" grep -q '"message":"stopping"' "$PEERD_LOG"
	# A new connection is served as long as the old one is.
	curl -sf -o "$BATS_TEST_TMPDIR/part" -r 0-99 \
		"$(v2 "full/cache/blobs/$LARGE")"
	wait_for "$PATIENCE" ended "$BATS_TEST_TMPDIR/get"
	equal "$(<"$BATS_TEST_TMPDIR/get.rc")" 0
	equal "$(digest_of "$BATS_TEST_TMPDIR/body")" "$LARGE"
	wait_for "$PATIENCE" ended "$PEERD_RUN"
	equal "$(<"$PEERD_RUN.rc")" 0
}
