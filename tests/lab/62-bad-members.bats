#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031,SC2034,SC2046,SC2119,SC2154
# Members that lie, hang, or talk nonsense (badpeer.py), and strangers: readers
# get right bytes, late at worst; no flight is stuck; no storm on anybody.

load ../lib/common
load ../lib/http
load nodes

setup()
{
	need_root
	need_peers
}

# beside MODE [COPIES]: two good nodes and one that is bad in that way; both
# pull at once, and then one of them another blob.
beside()
{
	local began
	if [[ ! ${REG:-} ]]; then
		cluster 3
	fi
	new_blob $((12 * MiB + 7))
	bad_member 3 "$1"
	nodes_start_beside_bad 1 2
	began=$(now_ms)
	all_pull 1 2
	echo "# $1: $(since_ms "$began") ms, copies:" \
		"$(origin_bytes "$DIGEST" "$MARK") of $SIZE" >&3
	at_most "$(since_ms "$began")" $((PATIENCE * 1000)) "ms, $1"
	calm "${2:-150}" 1 2
	was_asked "$1"
}

# It was asked for bytes, and not again and again.
was_asked()
{
	[[ $1 != deaf ]] || return 0
	grep -q '/blobs/' "$BAD_LOG"
	at_most "$(grep -c '/blobs/' "$BAD_LOG")" 100 "requests to it, $1"
}

again()
{
	nodes_stop
	finish "$BAD_RUN" KILL || true
	rm -rf "$(node_dir 1)" "$(node_dir 2)"
}

# What was sent before the digest was known to be wrong cannot be taken back:
# the reply is broken off, and who asks again gets it right.
right_or_broken_off()
{
	local i
	swarm_wait 1 2 2>/dev/null || true
	for i in 1 2; do
		if [[ $(<"$SWARM/blob.$i.rc") == 0 ]]; then
			swarm_check "$DIGEST" $i
		fi
	done
}

@test "a member sends wrong bytes: found out, benched, fetched again" {
	local mode
	expect_errors 'does not match its digest|read failed.*Bad message'
	cluster 3
	for mode in flip garbage; do
		new_blob $((12 * MiB + 7))
		bad_member 3 $mode
		nodes_start_beside_bad 1 2
		begin_pull 1 2
		right_or_broken_off
		all_pull 1 2
		was_asked $mode
		calm 320 1 2
		at_least "$(nodes_metric '1 2' peerd_benched_members_total)" 1
		node_curl 1 http://127.0.0.1:5000/api/v1/peers |
			jq -e '.peers[] | select(.name == "bad").benched > 0'
		# It is asked no more.
		: >"$BAD_LOG"
		new_blob $((6 * MiB))
		all_pull 1
		refute grep "GET.*/blobs/.*${DIGEST#sha256:}" "$BAD_LOG"
		again
	done
}

@test "a member hangs after the head, or says nothing at all" {
	local mode
	for mode in hang mute deaf; do
		beside $mode
		again
	done
}

@test "a member sends a byte a second" {
	beside drip
}

# Long before it can be called slow.
@test "what a reader waits for at a member that crawls is asked of another" {
	local late
	cluster 5
	new_blob $((24 * MiB + 7))
	bad_member 5 crawl
	nodes_start_beside_bad 1 2 3 4
	all_pull 1 2 3 4
	was_asked crawl
	late=$(nodes_metric '1 2 3 4' peerd_peer_requests_total 'result="late"')
	at_least "$late" 1 'late requests'
	calm 150 1 2 3 4
}

@test "a member hangs up, resets, or speaks no HTTP" {
	local mode
	for mode in half reset nothttp hugehead; do
		beside $mode
		again
	done
}

@test "a member answers something else than was asked" {
	local mode
	for mode in wrongrange wrongtotal range200 short long; do
		beside $mode
		again
	done
}

@test "a member refuses, or sends round and round" {
	local mode
	for mode in s404 s503 s416 self nobody have; do
		beside $mode
		again
	done
}

@test "a stranger's requests are refused, and harm nobody" {
	local i status
	cluster 2
	new_blob $((2 * MiB))
	nodes_start 1 2
	all_pull 1
	member_curl()
	{
		in_host 2 curl -s -o /dev/null -m 20 -w '%{http_code}' -k \
			--cert "$KEYS/h2.crt" --key "$KEYS/h2.key" \
			"$@" || true
	}
	# Not what a member asks, or not at all.
	for i in "/v2/lab/data/blobs/$DIGEST" /v2/../../etc/passwd \
		/blobs/http://127.0.0.1:22/ /api/v1/status /metrics \
		/peer/v1/nothing '/v2/x/manifests/a%00b?ns=x'; do
		status=$(member_curl --path-as-is "https://$(node_addr 1)$i")
		matches "$status" '^4'
	done
	for i in 'sha256:zz;size=1' "$DIGEST;size=-1" "$DIGEST;size=9e9" \
		"$DIGEST;size=99999999999999999999" "$DIGEST" ''; do
		matches "$(member_curl -H 'Peerd-Hop: 1' -H "Peerd-Blob: $i" \
			-H 'Range: bytes=0-9' -H 'Peerd-Fetch: 1' \
			-H 'Peerd-Have: 0:ffffff' \
			"https://$(node_addr 1)/v2/lab/data/blobs/$DIGEST")" \
			'^4'
	done
	matches "$(member_curl -X POST -d '{"id": 7, "holds": [[[]]]}' \
		"https://$(node_addr 1)/peer/v1/holders")" '^4'
	matches "$(head -c 3000000 /dev/zero | member_curl -X POST \
		--data-binary @- "https://$(node_addr 1)/peer/v1/holders")" \
		'^(4|000)'
	# What it names and this node may not know is not fetched for it.
	status=$(member_curl -H 'Peerd-Hop: 1' -H 'Peerd-Fetch: 1' \
		-H "Peerd-Blob: url:${DIGEST#sha256:};size=5" \
		-H 'Range: bytes=0-4' \
		"https://$(node_addr 1)/blobs/http://127.0.0.1:5004/metrics")
	matches "$status" '^4'
	all_pull 2
	calm 110 1 2
}

# as_bad OPTION...: a request that host 3 makes with its certificate.
as_bad()
{
	in_host 3 curl -s -m 20 -k --cert "$KEYS/bad.crt" \
		--key "$KEYS/bad.key" "$@"
}

# So many of its ids were asked who they are.
ids_greeted()
{
	(($(jq -r 'select(.path == "/peer/v1/hello").port' "$BAD_LOG" |
		sort -u | wc -l) >= $1))
}

bad_ones()
{
	node_curl "$1" -f http://127.0.0.1:5000/api/v1/peers |
		jq '[.peers[] | select(.name == "bad" and .state != "new")] |
			length'
}

@test "one certificate on one host is one member, and speaks for itself only" {
	local i id
	cluster 3
	new_blob $((12 * MiB + 7))
	bad_member 3 mute --ids 40
	nodes_start_beside_bad 1 2
	for i in {1..39}; do
		as_bad -o /dev/null -H "Peerd-Listen: $((5001 + i))" \
			"https://$(node_addr 1)/peer/v1/hello"
	done
	wait_for "$PATIENCE" ids_greeted 12
	# They were, and none was taken for a member.
	: >"$BAD_LOG"
	wait_for "$PATIENCE" ids_greeted 12
	equal "$(bad_ones 1)" 1
	all_pull 1 2
	calm 150 1 2

	id=$(node_curl 2 -f http://127.0.0.1:5000/api/v1/peers |
		jq -r .self.id)
	equal "$(as_bad -o /dev/null -w '%{http_code}' -X POST \
		-d "{\"id\": \"$id\", \"holds\": []}" \
		"https://$(node_addr 1)/peer/v1/holders")" 403
	equal "$(in_host 2 curl -s -m 20 -k --cert "$KEYS/h2.crt" \
		--key "$KEYS/h2.key" -o /dev/null -w '%{http_code}' -X POST \
		-d "{\"id\": \"$id\", \"holds\": []}" \
		"https://$(node_addr 1)/peer/v1/holders")" 204
}
