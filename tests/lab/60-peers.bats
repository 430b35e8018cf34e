#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031,SC2034,SC2046,SC2119,SC2154
# Nodes that have each other: one copy from the registry for all of them, and
# what any of them has can be read on each.

load ../lib/common
load ../lib/http
load nodes

setup()
{
	need_root
	need_peers
}

# copies_at_most PERCENT [MARK]: that the origin sent of the blob.
copies_at_most()
{
	at_most "$(origin_bytes "$DIGEST" "${2:-0}")" $((SIZE * $1 / 100)) \
		'bytes the registry sent'
}

@test "all pull one blob at once: one copy from the registry" {
	local i sum=0
	cluster 4
	new_blob $((24 * MiB + 4321))
	nodes_start 1 2 3 4
	all_pull 1 2 3 4
	copies_at_most 110
	for i in 1 2 3 4; do
		at_least "$(from_source $i peers)" $((SIZE / 3)) "host $i"
		sum=$((sum + $(from_source $i upstream)))
	done
	# What the nodes say they got from it is what it sent.
	equal "$sum" "$(origin_bytes "$DIGEST")"
	none_in_flight 1 2 3 4
	[[ ! -e $BUILD/flags ]] || grep -q fsanitize "$BUILD/flags" ||
		for i in 1 2 3 4; do
			at_most "$(node_kib $i VmHWM)" $((96 * 1024)) KiB
		done
}

@test "many small blobs at once: one copy of each" {
	local i n digests=() d
	cluster 3
	for ((n = 0; n < 12; n++)); do
		new_blob $((MiB * 3 / 2 + n))
		digests+=("$DIGEST")
	done
	nodes_start 1 2 3
	swarm_at
	for i in 1 2 3; do
		for d in "${digests[@]}"; do
			swarm_get $i lab/data "$d" 0 "${d:7:8}"
		done
	done
	swarm_wait 1 2 3
	for d in "${digests[@]}"; do
		for i in 1 2 3; do
			equal "$(digest_of "$SWARM/blob${d:7:8}.$i")" "$d"
		done
	done
	at_most "$(origin_bytes /blobs/)" $((12 * SIZE * 11 / 10))
}

@test "who comes late takes it from the others" {
	local mark
	cluster 4
	new_blob $((16 * MiB + 99))
	nodes_start 1 2 3
	all_pull 1 2 3
	mark=$(reg_mark)
	node_start 4
	nodes_meet 1 2 3 4
	all_pull 4
	equal "$(origin_bytes "$DIGEST" "$mark")" 0
	equal "$(from_source 4 peers)" "$SIZE"
}

@test "what one node alone has is found, wherever it should be" {
	local mark i
	cluster 4
	new_blob $((8 * MiB + 1))
	nodes_start 1
	all_pull 1
	mark=$(reg_mark)
	# None of these was there when it was fetched.
	for i in 2 3 4; do
		node_start $i
	done
	nodes_meet 1 2 3 4
	all_pull 3
	all_pull 2 4
	equal "$(origin_bytes "$DIGEST" "$mark")" 0
}

@test "the registry is stopped: blob, manifest and tag on a node without any" {
	local manifest path i
	cluster 4
	new_blob $((8 * MiB + 17))
	manifest=$(push_artifact lab/data v1 data.bin="$DATA")
	nodes_start 1 2 3
	all_pull 1
	node_curl 1 -f -o /dev/null "$(node_v2 lab/data/manifests/v1)"
	# What it has is told to its homes a moment later.
	wait_for "$PATIENCE" announced 1 2
	expect_errors 'upstream|registry|connect'
	origin_stop
	for i in 2 3; do
		node_curl $i -f -o "$BATS_TEST_TMPDIR/tag" \
			"$(node_v2 lab/data/manifests/v1)"
		equal "$(digest_of "$BATS_TEST_TMPDIR/tag")" "$manifest"
		node_curl $i -f -o "$BATS_TEST_TMPDIR/manifest" \
			"$(node_v2 "lab/data/manifests/$manifest")"
		equal "$(digest_of "$BATS_TEST_TMPDIR/manifest")" "$manifest"
		all_pull $i
	done
	# One that starts only now, through its mount.
	node_start 4 --mount "$BATS_TEST_TMPDIR/mnt"
	nodes_meet 1 2 3 4
	path=$BATS_TEST_TMPDIR/mnt/registry/$REG/lab/data/tags/v1/files/data.bin
	equal "$(digest_of "$path")" "$DIGEST"
	# What nobody has is soon known not to be there.
	matches "$(node_curl 4 -o /dev/null -w '%{http_code}' \
		"$(node_v2 lab/data/manifests/nothing)")" '^(404|50.)$'
}

# announced I COUNT: it has told so many things.
announced()
{
	(($(node_curl "$1" -f http://127.0.0.1:5000/api/v1/peers |
		jq .holders.announced) >= $2))
}

@test "each zone fetches for itself" {
	local i
	cluster 4
	new_blob $((12 * MiB))
	for i in 1 2; do
		node_begin $i --zone a
	done
	for i in 3 4; do
		node_begin $i --zone b
	done
	for i in 1 2 3 4; do
		node_wait_ready $i
	done
	nodes_meet 1 2 3 4
	all_pull 1 2 3 4
	at_least "$(origin_bytes "$DIGEST")" "$SIZE"
	copies_at_most 220
}

@test "what a member is asked carries no credentials and no signature" {
	cluster 3
	new_blob $((4 * MiB))
	bad_member 3 s404
	jq -n --arg a "$(printf 'someone:secret-word' | base64)" --arg r "$REG" \
		'{auths: {($r): {auth: $a}}}' >"$BATS_TEST_TMPDIR/config.json"
	NODE_OPTIONS=(--registry-config "$BATS_TEST_TMPDIR/config.json")
	nodes_start_beside_bad 1 2
	node_curl 1 -f -o /dev/null "$(node_v2 lab/data/blobs/"$DIGEST")"
	node_curl 2 -f -o /dev/null -H 'Authorization: Bearer secret-token' \
		"$(node_v2 lab/data/blobs/"$DIGEST")&sig=secret-signature"
	in_host 1 curl -s -o /dev/null \
		"http://127.0.0.1:5000/blobs/http://$REG/v2/lab/data/blobs/$DIGEST?sig=secret-query"
	grep -q "/blobs/" "$BAD_LOG"
	refute grep -iE 'secret|authorization' "$BAD_LOG"
	refute grep -E 'secret-(word|token|signature|query)' \
		"$(node_log 1)" "$(node_log 2)"
}

# tls_status I CURL-OPTION...: of a greeting on host I's listener, from host 2.
tls_status()
{
	local i=$1
	shift
	in_host 2 curl -s -o /dev/null -m 10 -w '%{http_code}' -k "$@" \
		"https://$(node_addr "$i")/peer/v1/hello" || true
}

@test "only who has a certificate of the cluster's CA is answered" {
	local other=$BATS_TEST_TMPDIR/other
	cluster 2
	"$PEERD" keys init --dir "$other"
	"$PEERD" keys issue --dir "$other" h2
	nodes_start 1
	equal "$(tls_status 1 --cert "$KEYS/h2.crt" --key "$KEYS/h2.key")" 200
	equal "$(tls_status 1)" 000
	equal "$(tls_status 1 --cert "$other/h2.crt" --key "$other/h2.key")" 000
	equal "$(tls_status 1 --tls-max 1.2 --cert "$KEYS/h2.crt" \
		--key "$KEYS/h2.key")" 000
	equal "$(in_host 2 curl -s -o /dev/null -m 10 -w '%{http_code}' \
		"http://$(node_addr 1)/peer/v1/hello" || true)" 000
	# What users ask of their node is not for other hosts.
	equal "$(in_host 2 curl -s -o /dev/null -m 10 -w '%{http_code}' \
		"http://$(host_ip 1):5000/v2/" || true)" 000
}

serial_of()
{
	in_host 2 openssl s_client -connect "$(node_addr "$1")" \
		-cert "$KEYS/h2.crt" -key "$KEYS/h2.key" </dev/null 2>/dev/null |
		openssl x509 -noout -serial
}

has_new_keys()
{
	[[ $(serial_of 1) != "$1" ]]
}

@test "renewed certificates are taken up without a restart" {
	local before pid
	cluster 2
	new_blob $((6 * MiB))
	nodes_start 1 2
	before=$(serial_of 1)
	matches "$before" '^serial=[0-9A-F]+$'
	pid=$(node_pid 1)
	"$PEERD" keys issue --dir "$KEYS" h1 >/dev/null
	wait_for "$PATIENCE" has_new_keys "$before"
	equal "$(node_pid 1)" "$pid"
	nodes_meet 1 2
	all_pull 1 2
	copies_at_most 110
}

@test "without keys: refused off this host, unless told otherwise" {
	lab_up 2
	origin_start
	new_blob $((4 * MiB))
	run -2 in_host 1 "$PEERD" run --cache-dir "$BATS_TEST_TMPDIR/x" \
		--http-addr none --prom-addr none \
		--https-addr "$(node_addr 1)" --peers "$(node_addr 2)"
	matches "$output" 'insecure-peers'
	nodes_start 1 2
	all_pull 1 2
	copies_at_most 110
}

@test "peers, as the command and the API tell of them" {
	local shown
	cluster 3
	new_blob $((6 * MiB))
	nodes_start 1 2 3
	all_pull 2 3
	all_pull 1
	shown=$(in_host 1 "$PEERD" peers --cache-dir "$(node_dir 1)/cache")
	grep -q h2 <<<"$shown"
	grep -q h3 <<<"$shown"
	node_curl 1 -f http://127.0.0.1:5000/api/v1/peers |
		jq -e '(.peers | length == 2) and ([.peers[].received_bytes] |
			add > 0) and .self.name == "h1"'
	# Somebody had it when host 1 asked.
	at_least "$(node_metric 1 peerd_peer_discovery_duration_seconds_count)" 1
}

# as_member HOST LOAD RANGE [OPTION...]: host 1 is asked in its name; prints the
# status and whom else to ask.
as_member()
{
	local id
	id=$(node_curl "$1" -f http://127.0.0.1:5000/api/v1/peers |
		jq -r .self.id)
	in_host "$1" curl -s -o /dev/null -k --cert "$KEYS/h$1.crt" \
		--key "$KEYS/h$1.key" -w '%{http_code} %header{peerd-ask}' \
		-H 'Peerd-Hop: 1' -H "Peerd-Blob: $DIGEST;size=$SIZE" \
		-H "Peerd-From: $id" -H "Peerd-Load: $2" -r "$3" "${@:4}" \
		"https://$(node_addr 1)/v2/lab/data/blobs/$DIGEST"
}

serving()
{
	node_curl 1 -f http://127.0.0.1:5000/api/v1/peers |
		jq -e ".transfers.serving >= $1"
}

@test "a busy node sends on to whom it gave the chunk, if that one is not" {
	local i id2
	cluster 3
	new_blob $((16 * MiB))
	nodes_start 1 2 3
	all_pull 1
	id2=$(node_curl 2 -f http://127.0.0.1:5000/api/v1/peers |
		jq -r .self.id)
	equal "$(as_member 2 0 0-1048575)" '206 '
	# It is not busy yet.
	equal "$(as_member 3 0 1048576-1048585)" '206 '
	for i in {1..8}; do
		background_on 3 "$BATS_TEST_TMPDIR/slow$i" curl -s -k \
			-o /dev/null --cert "$KEYS/h3.crt" --limit-rate 50k \
			--key "$KEYS/h3.key" -r "$((2 * MiB))-$((16 * MiB - 1))" \
			-H 'Peerd-Hop: 1' -H "Peerd-Blob: $DIGEST;size=$SIZE" \
			"https://$(node_addr 1)/v2/lab/data/blobs/$DIGEST"
	done
	wait_for "$PATIENCE" serving 8
	equal "$(as_member 3 0 0-1048575)" "307 $id2"
	# It was there in vain.
	equal "$(as_member 3 0 0-9 -H 'Peerd-Insist: 1')" '206 '
	# Who was given it could not keep it.
	equal "$(as_member 2 0 0-9)" '206 '
	# The other one is as busy.
	equal "$(as_member 2 40 3145728-3145737)" '206 '
	equal "$(as_member 3 0 3145728-3145737)" '206 '
}

# hosts_file: what follows on standard input is /etc/hosts, for this test.
hosts_file()
{
	{
		echo '127.0.0.1 localhost'
		cat
	} >"$BATS_TEST_TMPDIR/hosts"
	mount --bind "$BATS_TEST_TMPDIR/hosts" /etc/hosts
	HOSTS_BOUND=1
}

cpu_ms()
{
	awk '{ sub(/.*\) /, ""); print ($12 + $13) * 10 }' \
		"/proc/$(node_pid "$1")/stat"
}

@test "members by DNS: none, oneself only, 2000 that are not there" {
	local i spent
	[[ ${TEST_CONTAINED:-} ]] || skip 'changes /etc/hosts: only in contain'
	cluster 3
	new_blob $((6 * MiB))
	hosts_file <<-END
		$(host_ip 1) only-me.lab
		$(for i in 1 2 3; do echo "$(host_ip $i) members.lab"; done)
		$(for ((i = 0; i < 2000; i++)); do
			echo "10.99.$((100 + i / 200)).$((10 + i % 200)) crowd.lab"
		done)
		$(for i in 1 2; do echo "$(host_ip $i) crowd.lab"; done)
	END
	NODE_PEERS=dns:nothing.lab:5001 node_start 1
	node_curl 1 -f -o /dev/null "$(node_v2 lab/data/blobs/"$DIGEST")"
	equal "$(peers_in_state 1 alive)" 0
	node_stop 1
	NODE_PEERS=dns:only-me.lab:5001 node_start 1
	wait_for "$PATIENCE" node_logged 1 '"message":"ready"'
	equal "$(peers_in_state 1 alive)" 0
	node_stop 1
	new_blob $((6 * MiB))
	NODE_PEERS=dns:members.lab:5001 nodes_start 1 2 3
	all_pull 1 2 3
	copies_at_most 110
	nodes_stop
	new_blob $((6 * MiB))
	NODE_PEERS=dns:crowd.lab:5001 nodes_start 1 2
	spent=$(cpu_ms 1)
	all_pull 1 2
	copies_at_most 110
	sleep 5
	at_most $(($(cpu_ms 1) - spent)) 3000 \
		'ms of the processor, in 5 s with 2000 dead members'
}
