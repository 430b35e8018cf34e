#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2034,SC2154
# A registry that hangs in mid-body, or before it: what waits for it holds
# nothing for longer than it must, and does not keep the daemon from ending.

load ../lib/common
load ../lib/http

readers()
{
	"$BATS_TEST_DIRNAME/readers.py" "$@"
}

status()
{
	jq -r "$1" "$MNT/.peerd/status.json"
}

# ---- Memory ----

# stuck_files KIND COUNT: as many blobs that the liar never sends whole; adds
# their paths to `stuck`.
stuck_files()
{
	local i
	for ((i = 0; i < $2; i++)); do
		stuck+=("$(blob_path "n$i/$1" "$(liar digest "n$i/$1")" \
			"$LIAR")")
	done
}

idle()
{
	peerd status --json | jq -e '.fetch | .waiting_reads == 0 and
		.flights == 0 and .requests == 0 and .memory_bytes == 0'
}

rss_kib()
{
	sed -n 's/^VmRSS:[ \t]*\([0-9]*\) kB/\1/p' "/proc/$(peerd_pid)/status"
}

few_flights()
{
	peerd status --json | jq -e '.fetch | .waiting_reads == 0 and
		.flights <= 16 and .requests <= 16'
}

@test "200 readers that are killed while they wait leave nothing behind" {
	start_liar
	start_peerd --read-timeout 600s
	stuck=()
	stuck_files stall 6
	stuck_files mute 2
	readers killed "'$PEERD' status --json --cache-dir '$CACHE'" 200 \
		"${stuck[@]}"
	# A chunk may go on for some time, though nobody waits for it.
	equal "$(status .fetch.waiting_reads)" 0 'waiting reads'
	at_most "$(status .fetch.memory_bytes)" \
		$(($(status .fetch.flights) * MiB)) 'memory'
	stop_liar
	wait_for "$PATIENCE" idle || {
		peerd status --json | jq .fetch
		return 1
	}
	# And all is well.
	rm "$LIAR_DIR/port"
	start_liar
	liar bytes n0/ok >"$BATS_TEST_TMPDIR/right"
	cmp "$(blob_path n0/ok "$(liar digest n0/ok)" "$LIAR")" \
		"$BATS_TEST_TMPDIR/right"
	wait_for "$PATIENCE" idle
}

@test "a member that asks for made-up blobs and hangs up leaves nothing" {
	local port mute before
	port=$(free_port)
	# A registry that takes connections and says nothing.
	cat >"$BATS_TEST_TMPDIR/mute.py" <<-'END'
		import socket
		s = socket.create_server(("127.0.0.1", 0), backlog=1024)
		print(s.getsockname()[1], flush=True)
		held = []
		while True:
		    held.append(s.accept())
	END
	background "$BATS_TEST_TMPDIR/mute" python3 "$BATS_TEST_TMPDIR/mute.py"
	wait_for 20 test -s "$BATS_TEST_TMPDIR/mute.out"
	mute=127.0.0.1:$(<"$BATS_TEST_TMPDIR/mute.out")
	start_peerd --read-timeout 600s --plain-http "$mute" --hosts "$mute" \
		--https-addr "127.0.0.1:$port" --peers 127.0.0.1:1 \
		--insecure-peers
	before=$(rss_kib)
	cat >"$BATS_TEST_TMPDIR/flood.py" <<-'END'
		import hashlib, socket, struct, sys
		port, mute, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
		held = []
		for i in range(count):
		    digest = "sha256:" + hashlib.sha256(b"%d" % i).hexdigest()
		    s = socket.create_connection(("127.0.0.1", port))
		    s.sendall((f"GET /v2/some/data/blobs/{digest}?ns={mute} HTTP/1.1\r\n"
		               "Host: x\r\nPeerd-Hop: 1\r\nPeerd-Fetch: 1\r\n"
		               f"Peerd-Blob: {digest};size={16 << 40}\r\n"
		               "Range: bytes=0-1048575\r\n\r\n").encode())
		    held.append(s)
		    if len(held) < 100 and i + 1 < count:
		        continue
		    # Those that are served are answered 102 now and then.
		    for s in held:
		        s.recv(1)
		        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
		                     struct.pack("ii", 1, 0))
		        s.close()
		    held = []
	END
	python3 "$BATS_TEST_TMPDIR/flood.py" "$port" "$mute" 1000
	wait_for "$PATIENCE" few_flights
	equal "$(status .cache.blobs)" 0 'blobs'
	[[ ${SANITIZED:-} ]] ||
		at_most "$(($(rss_kib) - before))" $((16 * 1024)) 'KiB more'
}

@test "a read of which one half is stored and the other under way" {
	start_liar
	start_peerd --read-timeout 30s
	file=$(blob_path stall "$(liar digest stall)" "$LIAR")
	liar bytes stall | tail -c +$((MiB / 2 + 1)) | head -c "$MiB" \
		>"$BATS_TEST_TMPDIR/right"
	# Past the page cache. The first gets chunk 0, and, once the silence has
	# lasted long enough to ask again, half of chunk 1, of which no more
	# comes. The second finds chunk 0 in the store.
	for reader in first second; do
		background "$BATS_TEST_TMPDIR/$reader" dd if="$file" bs=1M \
			count=1 iflag=direct,skip_bytes skip=$((MiB / 2))
		wait_for "$PATIENCE" ended "$BATS_TEST_TMPDIR/$reader"
		cmp "$BATS_TEST_TMPDIR/$reader.out" "$BATS_TEST_TMPDIR/right"
		wait_for "$PATIENCE" cached_at_least "$file" "$MiB"
	done
	equal "$(xattr cached "$file")" "$MiB"
}

# ---- The end ----

@test "SIGTERM ends reads, requests and look-ups that a registry keeps waiting" {
	start_liar
	# Listens and never answers.
	port=$(free_port)
	background "$BATS_TEST_TMPDIR/deaf" socat -u \
		"TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr" OPEN:/dev/null
	wait_for 20 eval "ss -ltn | grep -q :$port"
	start_mirror --read-timeout 600s --metadata-timeout 600s \
		--mirror-timeout 600s
	dir=$BATS_TEST_TMPDIR
	mute=$(liar digest mute)
	stall=$(liar digest stall)
	background "$dir/mute" cat "$(blob_path mute "$mute" "$LIAR")"
	background "$dir/stall" cat "$(blob_path stall "$stall" "$LIAR")"
	# Over two chunks, of which the first comes.
	background "$dir/direct" dd if="$(blob_path dd/stall \
		"$(liar digest dd/stall)" "$LIAR")" of=/dev/null bs=1M \
		iflag=direct,skip_bytes skip=$((3 * MiB / 2)) count=1
	background "$dir/lookup" ls \
		"$(repo_dir some/name "127.0.0.1:$port")/tags"
	background "$dir/curl" curl -sS -f \
		"$(v2 "web/mute/blobs/$(liar digest web/mute)" "$LIAR")"
	background "$dir/pull" "$PEERD" pull --cache-dir "$CACHE" \
		"$LIAR/cli/stall@$(liar digest cli/stall)"
	for name in mute stall dd/stall web/mute cli/stall; do
		wait_for 20 eval "liar log $name | grep -q '\"GET\".*blobs'"
	done
	wait_for 20 eval "ss -tn state established | grep -q :$port"
	wait_for 20 eval '(($(status .fetch.waiting_reads) >= 3))'
	for name in mute stall direct lookup curl pull; do
		refute ended "$dir/$name"
	done
	began=$(now_ms)
	stop_peerd
	# 5 s for whom it serves; the rest is a slow machine's.
	at_most "$(since_ms "$began")" 15000 'milliseconds'
	for name in mute stall direct lookup curl pull; do
		wait_for 10 ended "$dir/$name"
		at_least "$(<"$dir/$name.rc")" 1 "status of $name"
	done
	# One sentence each, and never a part as if it were all.
	matches "$(<"$dir/mute.log")" 'cat: .*: .'
	matches "$(<"$dir/stall.log")" 'cat: .*: .'
	refute mounted "$MNT"
	equal "$(ls -A "$MNT")" '' 'below the mount'
}
