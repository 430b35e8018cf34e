#!/usr/bin/env bats
# shellcheck disable=SC2154
# How responses end that cannot be completed, and those that run at SIGTERM.

load ../lib/common
load ../lib/http

setup()
{
	start_liar
	start_mirror --mirrors '*'
}

# body_end PATH: how the body ended, as a client's socket sees it, and whether
# bytes of the promised length are missing.
body_end()
{
	python3 - "$HTTP" "$1" "$PATIENCE" <<-'EOF'
		import socket, sys
		host, port = sys.argv[1].rsplit(":", 1)
		s = socket.create_connection((host, int(port)),
		                             float(sys.argv[3]))
		s.sendall(f"GET {sys.argv[2]} HTTP/1.1\r\nHost: {host}\r\n\r\n"
		          .encode())
		got = b""
		try:
		    while part := s.recv(65536):
		        got += part
		    end = "closed"
		except ConnectionResetError:
		    end = "reset"
		head, _, body = got.partition(b"\r\n\r\n")
		fields = dict(line.lower().split(b": ", 1)
		              for line in head.split(b"\r\n")[1:])
		short = len(body) < int(fields[b"content-length"])
		print(head.split()[1].decode(), end,
		      "short" if short else "whole")
	EOF
}

@test "a response that cannot be completed is closed early, not reset" {
	local digest
	expect_errors 'read failed|does not match|digest'
	digest=$(liar digest x/wrongbytes)
	equal "$(body_end "/v2/x/wrongbytes/blobs/$digest?ns=$LIAR")" \
		'200 closed short'
}

registry_asked()
{
	[[ -n $(liar log x/slow) ]]
}

@test "SIGTERM in mid-pull: what runs ends well, and new requests are answered" {
	local digest pull
	digest=$(liar digest x/slow)
	curl -sf -m "$PATIENCE" "$(v2 "x/slow/blobs/$digest" "$LIAR")" \
		-o "$BATS_TEST_TMPDIR/out" &
	pull=$!
	wait_for 20 registry_asked
	kill -TERM "$(peerd_pid)"
	wait_for 20 logged '"message":"stopping"'
	equal "$(status_of "http://$HTTP/healthz")" 200
	wait "$pull"
	equal "$(digest_of "$BATS_TEST_TMPDIR/out")" "$digest"
	stop_peerd
}
