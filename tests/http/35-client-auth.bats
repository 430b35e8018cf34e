#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2030,SC2031,SC2034,SC2119,SC2120,SC2154
# /blobs/<URL> with the client's own Authorization: overlaybd's token for a
# registry that delivers layers without a redirect. It reaches the URL's origin
# for the client's own reads, and nobody and nothing else.

load ../lib/common
load ../lib/http

# The registry is an nginx that wants a token, and a second server that must
# never see it. start_private sets REG, REG_LOG, TARGET, TARGET_LOG.
start_private()
{
	REG_DIR=$BATS_TEST_TMPDIR/private
	REG=127.0.0.1:$(free_port)
	TARGET=127.0.0.1:$(free_port)
	REG_LOG=$REG_DIR/access.log
	TARGET_LOG=$REG_DIR/target.log
	mkdir -p "$REG_DIR/root/v2/some/image/blobs"
	random_file "$REG_DIR/layer" $((9 * MiB + 4321))
	FILE=$REG_DIR/layer
	SIZE=$(stat -c %s "$FILE")
	LAYER=$(digest_of "$FILE")
	ln "$FILE" "$REG_DIR/root/v2/some/image/blobs/$LAYER"
	ln "$FILE" "$REG_DIR/root/plain"
	URL=http://$REG/v2/some/image/blobs/$LAYER
	token_is f1rst.t0ken-of-the-client
}

# token_is TOKEN: what the registry takes from now on, and TOKEN here.
token_is()
{
	TOKEN=$1
	[[ ! -e $REG_DIR/front.pid ]] || finish "$REG_DIR/front" KILL 10 || true
	nginx_start "$REG_DIR/front" "
	map \$http_authorization \$may {
		default 0;
		'Bearer $TOKEN' 1;
	}
	server {
		listen $REG;
		access_log $REG_LOG requests;
		root $REG_DIR/root;
		add_header WWW-Authenticate 'Bearer realm=\"none\"' always;
		if (\$may = 0) { return 401; }
		location /moved/ {
			rewrite ^/moved/(.*)\$ http://$TARGET/\$1?sig=h1dden-signature
				redirect;
		}
		location /forbidden/ { return 403; }
	}
	server {
		listen $TARGET;
		access_log $TARGET_LOG requests;
		root $REG_DIR/root;
		if (\$arg_sig != h1dden-signature) { return 403; }
	}"
	wait_for 30 curl -s -o /dev/null "http://$REG/"
}

setup()
{
	GOT=$BATS_TEST_TMPDIR/got
	HEAD=$BATS_TEST_TMPDIR/head
	# Who reads without a token what is not there is told of in the log.
	expect_errors '"message":"read failed".*"error":"Permission denied"'
	start_private
	start_mirror --blobs-allow "$REG,$TARGET"
}

# get URL OFFSET LENGTH [CURL-ARGUMENT...]: the status; the body is in $GOT, the
# head in $HEAD.
get()
{
	rm -f "$GOT"
	curl -s --http1.1 -A overlaybd/1.0 -m "$PATIENCE" -o "$GOT" -D "$HEAD" \
		-w '%{http_code}' -r "$2-$(($2 + $3 - 1))" "${@:4}" \
		"http://$HTTP/blobs/$1"
}

# reads URL OFFSET LENGTH [CURL-ARGUMENT...]: 206, and the right bytes.
reads()
{
	equal "$(get "$@")" 206 "status for $*"
	cmp "$GOT" <(slice "$FILE" "$2" "$3")
}

with_token()
{
	"$@" -H "Authorization: Bearer $TOKEN"
}

# log_since MARK: the lines of requests behind that one.
log_since()
{
	settle_log
	tail -n +"$(($1 + 1))" "$REG_LOG" | grep -v /settle-
}

# Where it must not be: what the daemons wrote, and what they tell.
nowhere()
{
	local secret place
	for secret; do
		for place in metrics/prometheus api/v1/status api/v1/blobs; do
			refute grep -aF -e "$secret" \
				<(curl -s "http://$HTTP/$place")
		done
		refute grep -raqF -e "$secret" "$BATS_TEST_TMPDIR"/peerd.* \
			"$CACHE" "$BATS_TEST_TMPDIR"/*cache*
	done
}

@test "a registry that does not redirect: read with the client's token" {
	local mark read
	mark=$(reg_mark)
	equal "$(get "$URL" 0 1)" 403
	for read in '0 1' "$((SIZE - 512)) 512" '0 4096' '1044480 65536' \
		'5242880 262144' '1048576 1048576' '3 17'; do
		# shellcheck disable=SC2086
		with_token reads "$URL" $read
	done
	equal "$(with_token header_of Content-Length -I \
		"http://$HTTP/blobs/$URL")" "$SIZE"
	with_token curl -sf -m "$PATIENCE" -o "$BATS_TEST_TMPDIR/all" \
		"http://$HTTP/blobs/$URL"
	cmp "$BATS_TEST_TMPDIR/all" "$FILE"
	peerd ls | grep -q "${LAYER#sha256:}"
	# Each byte once, and with the token, but for who had none.
	equal "$(log_since "$mark" | jq -r 'select(.auth == "") | .status' |
		sort -u)" 401
	at_most "$(log_since "$mark" | jq -s '[.[] | select(.status == 206 and
		.range != "bytes=0-0") | .sent] | add')" "$SIZE"
	nowhere "$TOKEN"
	stop_peerd
	refute grep -raqF "$TOKEN" "$PEERD_LOG" "$CACHE"
}

@test "the target of a redirect does not get it" {
	local moved=http://$REG/moved/v2/some/image/blobs/$LAYER
	with_token reads "$moved" 0 100
	with_token reads "$moved" 5000000 300000
	with_token reads "http://$REG/moved/plain" 12345 300000
	at_least "$(wc -l <"$TARGET_LOG")" 3
	equal "$(jq -r .auth "$TARGET_LOG" | sort -u)" ''
	refute grep -F "$TOKEN" "$TARGET_LOG"
	# Nor does anybody else go where it has led.
	mark=$(wc -l <"$TARGET_LOG")
	equal "$(get "$moved" 8000000 10)" 403
	equal "$(get "http://$REG/moved/plain" 8000000 10)" 403
	equal "$(wc -l <"$TARGET_LOG")" "$mark"
	stop_peerd
	refute grep -raqF -e "$TOKEN" -e h1dden-signature "$PEERD_LOG" "$CACHE"
}

@test "a token that has expired: 401 at once, and the next one is taken" {
	local old=$TOKEN begun
	with_token reads "$URL" 0 100
	token_is s3cond.t0ken-of-the-client
	begun=$(now_ms)
	equal "$(get "$URL" 5000000 100 -H "Authorization: Bearer $old")" 401
	equal "$(get "http://$REG/plain" 0 100 \
		-H "Authorization: Bearer $old")" 401
	matches "$(tr -d '\r' <"$HEAD")" 'WWW-Authenticate: Bearer realm='
	equal "$(jq -r '.errors[0].code' "$GOT")" UNAUTHORIZED
	at_most "$(since_ms "$begun")" 20000 'milliseconds'
	# What is here is read nevertheless: see docs/overlaybd.md.
	reads "$URL" 10 1000 -H "Authorization: Bearer $old"
	with_token reads "$URL" 5000000 100
	with_token reads "http://$REG/plain" 0 100
	equal "$(with_token get "http://$REG/forbidden/x" 0 1)" 403
	nowhere "$old" "$TOKEN"
}

@test "without the token: what is verified, and nothing more" {
	local mark
	with_token reads "$URL" 0 100
	with_token reads "http://$REG/plain" 0 100
	mark=$(reg_mark)
	# Stored, but not verified; and what has no digest is asked for each
	# time.
	equal "$(get "$URL" 50 1000)" 403
	equal "$(get "$URL" 8000000 10)" 403
	equal "$(get "http://$REG/plain" 0 10)" 403
	equal "$(get "http://$REG/plain" 0 10 -H 'Authorization: Bearer x')" 401
	equal "$(log_since "$mark" | jq -r '"\(.status) \(.auth)"' | sort -u)" \
		"$(printf '401 \n401 Bearer x')"
	# The one who may read is not kept from it by their refusals.
	with_token reads "$URL" 8000000 10
	with_token reads "http://$REG/plain" 8000000 10
	# A restart changes nothing.
	stop_peerd
	start_mirror --blobs-allow "$REG"
	equal "$(get "$URL" 50 1000)" 403
	equal "$(get "$URL" 4000000 10)" 403
	equal "$(get "http://$REG/plain" 0 10)" 403
	with_token reads "$URL" 4000000 10
	with_token reads "http://$REG/plain" 0 10
	# What was verified as a whole is for everybody; no request of anybody's.
	with_token curl -sf -m "$PATIENCE" -o "$BATS_TEST_TMPDIR/all" \
		"http://$HTTP/blobs/$URL"
	wait_for "$PATIENCE" eval 'peerd ls | grep -q "verified"'
	# Once the "no" from before is forgotten.
	wait_for "$PATIENCE" reads "$URL" 50 1000
	mark=$(reg_mark)
	reads "$URL" 500 1000
	equal "$(log_since "$mark" | wc -l)" 0
	nowhere "$TOKEN"
}

@test "many at once, with it, without, and with another: each gets what is theirs" {
	local i off n=0 out=$BATS_TEST_TMPDIR/out
	for ((i = 0; i < 30; i++)); do
		off=$((i % 5 * 1500000))
		echo "url = \"http://$HTTP/blobs/$URL\""
		echo "range = \"$off-$((off + 99999))\""
		echo "output = \"$out.$i\""
		printf 'write-out = "%d %%{http_code}\\n"\n' "$i"
		case $((i % 3)) in
		0) echo "header = \"Authorization: Bearer $TOKEN\"" ;;
		1) echo 'header = "Authorization: Bearer w1ong.token"' ;;
		esac
		echo next
	done | sed '$d' >"$BATS_TEST_TMPDIR/many"
	curl -s --parallel --parallel-max 30 --parallel-immediate \
		-K "$BATS_TEST_TMPDIR/many" >"$BATS_TEST_TMPDIR/codes"
	while read -r i code; do
		n=$((n + 1))
		case $((i % 3)) in
		0) equal "$code" 206 ;;
		1) matches "$code" '^(206|401)$' ;;
		2) matches "$code" '^(206|403)$' ;;
		esac
		[[ $code != 206 ]] ||
			cmp "$out.$i" <(slice "$FILE" $((i % 5 * 1500000)) 100000)
	done <"$BATS_TEST_TMPDIR/codes"
	equal $n 30
	nowhere "$TOKEN" w1ong.token
}

@test "schemes that log in a connection, and what is malformed, stay here" {
	local mark value
	mark=$(reg_mark)
	for value in 'Negotiate TlRMTVNTUAAB' 'NTLM TlRMTVNTUAAB' \
		'Digest username="a"' "Bearer $TOKEN, Basic eDp5" Bearer; do
		equal "$(get "$URL" 0 1 -H "Authorization: $value")" 403
	done
	equal "$(get "$URL" 0 1 -H "Authorization: Bearer $TOKEN" \
		-H 'Authorization: Basic eDp5')" 403
	equal "$(log_since "$mark" | jq -r .auth | sort -u)" ''
}

alive()
{
	curl -sf "http://$1/api/v1/peers" |
		jq -e '[.peers[] | select(.state == "alive")] | length == 1'
}

@test "members are asked without it" {
	local here other relay log=$BATS_TEST_TMPDIR/relay.log http2
	stop_peerd
	here=127.0.0.1:$(free_port)
	# All that the first says to the second goes through the relay: members
	# learn a port from one another, and there the second is only by it.
	relay=127.0.0.1:$(free_port)
	other=127.0.0.2:${relay#*:}
	nginx_start "$BATS_TEST_TMPDIR/relay" "server {
		listen $relay;
		access_log $log requests;
		location / { proxy_pass http://$other; }
	}"
	http2=127.0.0.1:$(free_port)
	CACHE=$BATS_TEST_TMPDIR/cache2 MNT=$BATS_TEST_TMPDIR/mnt2 \
		start_peerd --http-addr "$http2" --https-addr "$other" \
		--peers "$here" --blobs-allow "$REG"
	start_mirror --blobs-allow "$REG" --https-addr "$here" --peers "$relay"
	wait_for "$PATIENCE" alive "$HTTP"
	wait_for "$PATIENCE" alive "$http2"
	with_token curl -sf -m "$PATIENCE" -o "$BATS_TEST_TMPDIR/all" \
		"http://$HTTP/blobs/$URL"
	cmp "$BATS_TEST_TMPDIR/all" "$FILE"
	wait_for 10 grep -q "\"uri\":\"/blobs/.*${LAYER#sha256:}" "$log"
	with_token curl -sf -m "$PATIENCE" -o "$BATS_TEST_TMPDIR/all" \
		"http://$HTTP/blobs/http://$REG/plain?sig=h1dden-signature"
	cmp "$BATS_TEST_TMPDIR/all" "$FILE"
	wait_for 10 grep -q '"uri":"/blobs/' "$log"
	equal "$(jq -r .auth "$log" | sort -u)" ''
	# The other has what members may have, and nothing to ask with.
	equal "$(curl -s -o /dev/null -w '%{http_code}' -r 0-9 \
		"http://$http2/blobs/$URL")" 403
	nowhere "$TOKEN" h1dden-signature
	refute grep -F -e "$TOKEN" -e h1dden-signature "$log"
}
