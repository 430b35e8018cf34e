#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031,SC2034,SC2119,SC2153,SC2154
# A registry that falls silent: the kernel still accepts connections for its
# stopped process, and nothing is ever answered. And slow ones.

load ../lib/common
load ../lib/http

setup()
{
	random_file "$BATS_TEST_TMPDIR/f" 100000
}

alive()
{
	curl -sf "http://$1/api/v1/peers" |
		jq -e '[.peers[] | select(.state == "alive")] | length == 1'
}

# Two members, both with mirrors: HTTP and HTTP2. Options are for both.
start_two()
{
	local here other
	here=127.0.0.1:$(free_port)
	other=127.0.0.2:${here#*:}
	HTTP2=127.0.0.1:$(free_port)
	CACHE=$BATS_TEST_TMPDIR/cache2 MNT=$BATS_TEST_TMPDIR/mnt2 \
		start_peerd --http-addr "$HTTP2" --https-addr "$other" \
		--peers "$here" "$@"
	start_mirror --https-addr "$here" --peers "$other" "$@"
	wait_for "$PATIENCE" alive "$HTTP"
	wait_for "$PATIENCE" alive "$HTTP2"
}

silence()
{
	kill -STOP "$(<"$REG_DIR/front.pid")"
}

sound()
{
	kill -CONT "$(<"$REG_DIR/front.pid")"
}

# within MS CURL-ARGUMENT...: succeeds, and takes no longer.
within()
{
	local limit=$1 began
	shift
	began=$(now_ms)
	curl -sf -m "$PATIENCE" -D "$BATS_TEST_TMPDIR/head" \
		-o "$BATS_TEST_TMPDIR/body" "$@"
	echo "$(since_ms "$began") ms: ${*: -1}" >&2
	# A sanitizer's daemon is slow, and so is a busy machine.
	at_most "$(since_ms "$began")" "$((limit * PATIENCE / 60))" ms
}

at2()
{
	echo "${1/$HTTP/$HTTP2}"
}

fresh()
{
	curl -sf -o /dev/null -D "$BATS_TEST_TMPDIR/head" "$1" &&
		! grep -q '^Warning:' "$BATS_TEST_TMPDIR/head"
}

@test "a silent registry: what this node knows, within 3 s, then at once" {
	start_registry
	push_artifact team/app v1 "$BATS_TEST_TMPDIR/f"
	push_artifact team/app v2 "$BATS_TEST_TMPDIR/f"
	start_mirror --tag-fresh 0s
	url=$(v2 team/app/manifests/v1)
	curl -sf "$url" >"$BATS_TEST_TMPDIR/before"
	curl -sf "$(v2 team/app/manifests/v2)" >/dev/null
	silence
	within 3000 -I "$url"
	grep -q '^Warning: 110 ' "$BATS_TEST_TMPDIR/head"
	within 1000 "$url"
	cmp "$BATS_TEST_TMPDIR/body" "$BATS_TEST_TMPDIR/before"
	within 1000 "$(v2 team/app/manifests/v2)"
	# "Down" does not end by time: the probe is not answered either.
	refute logged 'a registry answers again'
	sound
	wait_for 20 fresh "$url"
	logged 'a registry answers again'
}

@test "a silent registry: tags and manifests that a member has" {
	start_registry
	manifest=$(push_artifact team/app v1 "$BATS_TEST_TMPDIR/f")
	start_two --tag-fresh 0s
	curl -sf "$(v2 team/app/manifests/v1)" >"$BATS_TEST_TMPDIR/before"
	silence
	within 3000 -I "$(at2 "$(v2 team/app/manifests/v1)")"
	grep -q '^Warning: 110 ' "$BATS_TEST_TMPDIR/head"
	within 1500 "$(at2 "$(v2 "team/app/manifests/$manifest")")"
	cmp "$BATS_TEST_TMPDIR/body" "$BATS_TEST_TMPDIR/before"
	sound
}

@test "a registry with errors: what is known, within 3 s at each tag" {
	local code
	REG_LOCATIONS="if (-f $BATS_TEST_TMPDIR/503) { return 503; }
		if (-f $BATS_TEST_TMPDIR/500) { return 500; }
		if (-f $BATS_TEST_TMPDIR/429) { return 429; }"
	start_registry
	push_artifact team/app v1 "$BATS_TEST_TMPDIR/f"
	push_artifact team/app v2 "$BATS_TEST_TMPDIR/f"
	start_mirror --tag-fresh 0s
	for code in 500 503 429; do
		wait_for 20 fresh "$(v2 team/app/manifests/v1)"
		wait_for 20 fresh "$(v2 team/app/manifests/v2)"
		touch "$BATS_TEST_TMPDIR/$code"
		within 3000 -I "$(v2 team/app/manifests/v1)"
		grep -q '^Warning: 110 ' "$BATS_TEST_TMPDIR/head"
		within 1500 -I "$(v2 team/app/manifests/v2)"
		rm "$BATS_TEST_TMPDIR/$code"
	done
}

@test "a silent token server: what is known, within 3 s" {
	local token
	token=127.0.0.1:$(free_port)
	# Its tokens are not looked at; they are over at once.
	nginx_start "$BATS_TEST_TMPDIR/token" "server {
		listen $token;
		default_type application/json;
		location / { return 200 '{\"token\":\"x\",\"expires_in\":1}'; }
	}"
	start_registry
	front=127.0.0.1:$(free_port)
	nginx_start "$BATS_TEST_TMPDIR/front" "server {
		listen $front;
		location / {
			add_header WWW-Authenticate
				'Bearer realm=\"http://$token/\"' always;
			if (\$http_authorization = '') { return 401; }
			proxy_set_header Authorization '';
			proxy_pass http://$REG_BACK;
		}
	}"
	wait_for 30 curl -s -o /dev/null "http://$front/"
	REG=$front
	push_artifact team/app v1 "$BATS_TEST_TMPDIR/f"
	start_mirror --tag-fresh 0s
	curl -sf -o /dev/null "$(v2 team/app/manifests/v1)"
	kill -STOP "$(<"$BATS_TEST_TMPDIR/token.pid")"
	stale()
	{
		within 3000 -I "$(v2 team/app/manifests/v1)"
		grep -q '^Warning: 110 ' "$BATS_TEST_TMPDIR/head"
	}
	wait_for 10 stale
	within 1000 -I "$(v2 team/app/manifests/v1)"
	kill -CONT "$(<"$BATS_TEST_TMPDIR/token.pid")"
}

@test "a slow registry: its answer is waited for, and kept" {
	start_registry
	push_artifact team/app v1 "$BATS_TEST_TMPDIR/f"
	start_mirror --tag-fresh 1h
	silence
	# The client gives up; the request to the registry goes on.
	refute curl -sf -m 3 "$(v2 team/app/manifests/v1)"
	# This one waits for the same answer, which comes after 12 s in all.
	background "$BATS_TEST_TMPDIR/late" \
		curl -sf -m "$PATIENCE" "$(v2 team/app/manifests/v1)"
	began=$(now_ms)
	twelve()
	{
		at_least "$(since_ms "$began")" 11000
	}
	wait_for 20 twelve
	refute ended "$BATS_TEST_TMPDIR/late"
	sound
	finish "$BATS_TEST_TMPDIR/late" CONT
	jq -e .layers "$BATS_TEST_TMPDIR/late.out"
	mark=$(reg_mark)
	within 1000 "$(v2 team/app/manifests/v1)"
	equal "$(reg_mark)" $((mark + 1)) # its own mark
}

@test "--tag-fresh 0s: a tag that moves is new at the next request" {
	start_registry
	old=$(push_artifact team/app latest "$BATS_TEST_TMPDIR/f")
	start_mirror --tag-fresh 0s
	url=$(v2 team/app/manifests/latest)
	equal "$(header_of Docker-Content-Digest "$url")" "$old"
	echo new >"$BATS_TEST_TMPDIR/g"
	new=$(push_artifact team/app latest "$BATS_TEST_TMPDIR/g")
	refute test "$old" = "$new"
	equal "$(header_of Docker-Content-Digest "$url")" "$new"
}

@test "another's 404 does not make a tag forgotten" {
	REG_LOCATIONS="if (-f $BATS_TEST_TMPDIR/404) { return 404; }
		if (-f $BATS_TEST_TMPDIR/503) { return 503; }"
	start_registry
	push_artifact team/app v1 "$BATS_TEST_TMPDIR/f"
	start_mirror --tag-fresh 0s
	url=$(v2 team/app/manifests/v1)
	curl -sf -o /dev/null "$url"
	touch "$BATS_TEST_TMPDIR/404"
	equal "$(status_of "$url")" 404
	rm "$BATS_TEST_TMPDIR/404"
	touch "$BATS_TEST_TMPDIR/503"
	within 3000 "$url"
	grep -q '^Warning: 110 ' "$BATS_TEST_TMPDIR/head"
}
